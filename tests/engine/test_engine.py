"""The engine against pruned copies: every kind of network that its tricks might get wrong."""

import operator

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from confprune_edu import evaluation, losses, models, pruning
from confprune_edu.engine import first_layer, kernels, shared

FINE = np.arange(0, 100) / 100  # a per cent of the weights a step: sparse updates
COARSE = np.array([0.0, 0.3, 0.6, 0.9])  # too much changes: multiplied anew


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def moved(pruned, full, target):
    """A smooth loss in [0, 1], so that any difference of two networks shows."""
    return torch.tanh((pruned - full).flatten(1).double().abs().mean(1))


def by_copies(model, data, ratios):
    """The same from pruned copies, in one batch, by definition."""
    model = pruning.twin(model).eval()
    with torch.no_grad():
        full = model(data.clone())
        return np.column_stack([moved(pruning.prune(model, r)(data.clone()), full, None) for r in ratios])


class InPlace(nn.Sequential):
    """Writes into the output of its first layer."""

    def forward(self, x):
        return self[2](self[0](x).relu_().mul_(2))


class Erasing(nn.Sequential):
    """Writes into a part of its first layer's input, after the layer has read it."""

    def forward(self, x):
        hidden = self[0](x)
        x[first_layer.PROBE :].zero_()
        return self[1](hidden.relu())


class Twice(nn.Module):
    """Calls its first layer twice, with different inputs."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(20, 20), nn.Linear(20, 4)

    def forward(self, x):
        return self.last(self.layer(self.layer(x).relu() + x))


class Functional(nn.Module):
    """What enters the first layer that is *called* depends on weights that are pruned, too."""

    def __init__(self):
        super().__init__()
        self.hidden, self.last = nn.Linear(20, 20), nn.Linear(20, 4)

    def forward(self, x):
        return self.last(linear(x, self.hidden.weight).relu())


class Remembering(nn.Module):
    """Adds what it saw in its last call, in a buffer and in an attribute."""

    def __init__(self):
        super().__init__()
        self.last, self.calls = nn.Linear(20, 4), 0
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        self.calls += 1
        out = self.last(x) + self.seen + self.calls
        self.seen += out.mean(0)
        return out


class Viewing(nn.Module):
    """Its `view` refuses outputs that are laid out channels last."""

    def __init__(self):
        super().__init__()
        self.convolution, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 4)

    def forward(self, x):
        return self.last(self.convolution(x).view(len(x), -1))


class Heads(nn.Module):
    """Its `view` takes rows alone, and so does its `check` of them where it has one."""

    def __init__(self, check=None):
        super().__init__()
        self.hidden, self.last, self.check = nn.Linear(20, 30), nn.Linear(10, 4), check

    def forward(self, x):
        hidden = self.hidden(x).tanh()
        if self.check is not None:
            assert self.check(hidden), "rows, please"
            return self.last(hidden[:, :10])
        return self.last(hidden.view(-1, 10)).view(len(x), 12)


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(20, 4, batch_first=True), nn.Linear(20, 4)

    def forward(self, x):
        x = x[:, None] + torch.arange(3)[:, None]
        return self.last(self.attention(x, x, x)[0].mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.last = nn.LSTM(5, 9, 2, batch_first=True), nn.Linear(9, 4)

    def forward(self, x):
        return self.last(self.recurrent(x.view(-1, 4, 5))[0][:, -1])


def tied():
    model = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20), nn.Linear(20, 4))
    model[2].weight = model[0].weight
    return model


def tied_by_data():
    model = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20), nn.Linear(20, 4))
    model[2].weight.data = model[0].weight.data
    return model


NETWORKS = {
    "linear": lambda: nn.Linear(20, 4),
    "no bias": lambda: nn.Sequential(nn.Linear(20, 30, bias=False), nn.Tanh(), nn.Linear(30, 4)),
    "in place": lambda: InPlace(nn.Linear(20, 30), nn.Identity(), nn.Linear(30, 4)),
    "erasing": lambda: Erasing(nn.Linear(20, 30), nn.Linear(30, 4)),
    "twice": Twice,
    "functional": Functional,
    "view": Heads,
    "insists on rows": lambda: Heads(torch.Tensor.is_contiguous),
    "attention": Attending,
    "recurrent": Recurrent,
    "tied": tied,
    "tied by data": tied_by_data,
    "normalised first": lambda: nn.Sequential(nn.BatchNorm1d(20), nn.Dropout(), nn.Linear(20, 30), nn.Linear(30, 4)),
    "bilinear": lambda: nn.Sequential(nn.Linear(20, 12), nn.Unflatten(1, (3, 4)), nn.Conv1d(3, 5, 2), nn.Flatten()),
}
IMAGES = {
    "convolution": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)),
    "view": Viewing,
    "unet": lambda: models.UNet(widths=(4, 6, 8)),
    "flattened first": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, 4)),
}


@pytest.mark.parametrize("ratios", [FINE[40:], COARSE, np.array([0.5])], ids=["fine", "coarse", "one"])
@pytest.mark.parametrize("batch_size", [1, 16, 64])
@pytest.mark.parametrize("name", NETWORKS)
def test_tables_are_those_of_pruned_copies(name, batch_size, ratios, unchanged):
    model, data = NETWORKS[name](), torch.randn(20, 20)
    want = by_copies(model, data, ratios)
    with unchanged(model):
        got = evaluation.loss_table(model, data, ratios, moved, batch_size=batch_size)
    np.testing.assert_allclose(got, want, atol=2e-6)
    assert got[:, -1].mean() > 1e-3


@pytest.mark.parametrize(
    "weight",
    [
        torch.randn(30, 45)[:, 5:25],
        torch.randn(60, 40)[::2, ::2],
        torch.randn(20, 30).T,
        torch.randn(30, 20, dtype=torch.cfloat).conj().imag,
    ],
    ids=["columns", "every second", "transposed", "negated"],
)
@pytest.mark.parametrize("first", [True, False])
def test_weights_may_lie_in_memory_as_they_like(weight, first, unchanged):
    model, data = nn.Sequential(nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 30), nn.Linear(30, 4)), torch.randn(20, 20)
    model = model[2:] if first else model
    model[-2].weight = nn.Parameter(weight)
    with unchanged(model):
        got = evaluation.loss_table(model, data, FINE, moved, batch_size=7)
    np.testing.assert_allclose(got, by_copies(model, data, FINE), atol=2e-6)


def test_positions_of_more_weights_than_four_bytes_count_are_left_as_they_are():
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 4))
    family = shared.Family(model, FINE, pruning.global_order(model, None).long())
    for j in (3, 1, 5, 2, 5):
        wanted = pruning.prune(model, FINE[j])
        assert all(map(torch.equal, family.at(j).parameters(), wanted.parameters()))


def test_convolutions_of_another_format_may_be_asked_for_in_any_order():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 1), nn.Conv2d(1, 4, (2, 3)))
    full = pruning.twin(model).to(memory_format=torch.channels_last)
    assert not full[0].weight.is_contiguous()
    family = shared.Family(model, FINE, pruning.global_order(model, None), full=full)
    for j in (3, 1, 50, 20, 99, 0):
        wanted = pruning.prune(model, FINE[j])
        assert all(map(torch.equal, family.at(j).parameters(), wanted.parameters()))


def test_a_weight_that_is_infinite_may_go():
    model, data = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4)), torch.randn(20, 20)
    model[0].weight.data[0, :3] = torch.inf
    scores = {name: torch.where(w.isinf(), -1.0, w.abs()) for name, w in pruning.prunable(model).items()}
    got = evaluation.loss_table(model, data, [0.01, 0.02], lambda pruned, *_: moved(pruned, 0, None), scores=scores)
    want = [moved(pruning.prune(model, ratio, scores)(data), 0, None) for ratio in (0.01, 0.02)]
    np.testing.assert_allclose(got, torch.stack(want, dim=1).detach(), atol=2e-6)


def test_ratios_may_be_asked_for_in_any_order():
    model, data = InPlace(nn.Linear(20, 30), nn.Identity(), nn.Linear(30, 4)).eval(), torch.randn(9, 20)
    family = shared.Family(model, FINE, pruning.global_order(model, None))
    call = first_layer.FirstCall(pruning.twin(model), list(pruning.prunable(model)), operator.call)
    with torch.inference_mode():
        call.of(data)
        family.see(call)
        for j in (7, 3, 3, 60, 61, 0, 99):
            torch.testing.assert_close(family.at(j)(data), pruning.prune(model, FINE[j])(data), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "by_columns"), [("in place", True), ("no bias", True), ("view", False)])
def test_linear_layers_give_columns_if_the_network_can_work_with_them(name, by_columns):
    model, data = NETWORKS[name]().eval(), torch.randn(9, 20)
    family, call = (
        shared.Family(model, FINE, pruning.global_order(model, None)),
        first_layer.FirstCall(pruning.twin(model), list(pruning.prunable(model)), operator.call),
    )
    with torch.inference_mode():
        call.of(data)
        family.see(call)
        family.try_columns(operator.call, data)
        assert family.first.gives_columns is by_columns
        torch.testing.assert_close(family.at(40)(data), pruning.prune(model, FINE[40])(data))


@pytest.mark.parametrize("name", IMAGES)
def test_tables_of_images_are_those_of_pruned_copies(name, unchanged):
    model, data = IMAGES[name](), torch.randn(10, 3, 8, 8)
    with unchanged(model):
        got = evaluation.loss_table(model, data, FINE[::10], moved, batch_size=4)
    np.testing.assert_allclose(got, by_copies(model, data, FINE[::10]), atol=2e-6)
    columns = evaluation.loss_columns(model, data, FINE[::10], moved, batch_size=4)
    np.testing.assert_allclose(np.column_stack(list(columns)), got, atol=2e-6)


def test_the_format_of_a_network_is_the_fast_one_where_it_can_be():
    x = torch.randn(2, 3, 8, 8)
    formats = {}
    for name in ("convolution", "view", "flattened first"):
        network = IMAGES[name]().eval()
        kernels.choose_format(network, x, operator.call)
        formats[name] = kernels.memory_format(network)
        assert kernels.in_format_of(network, x).is_contiguous(memory_format=formats[name])
    assert formats == {
        "convolution": torch.channels_last,
        "view": torch.contiguous_format,
        "flattened first": torch.contiguous_format,
    }


@pytest.mark.parametrize("loss", [lambda p, f, y: p.view(len(p), -1), lambda p, f, y: f.view(len(f), -1)])
def test_a_loss_may_view_the_outputs_of_networks_that_are_laid_out_channels_last(loss):
    def seen(pruned, full, target):
        return torch.sigmoid(loss(pruned, full, target).mean(1))

    model, data = IMAGES["convolution"](), torch.randn(6, 3, 8, 8)
    table = evaluation.loss_table(model, data, FINE[::20], seen)
    np.testing.assert_allclose(table, np.column_stack(list(evaluation.loss_columns(model, data, FINE[::20], seen))))


def test_what_prunes_nothing_is_not_evaluated_again():
    calls = []

    class Counted(nn.Linear):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    model, data = Counted(20, 4), torch.randn(6, 20)
    assert not evaluation.loss_table(model, data, [0.0, 0.5], moved, batch_size=3)[:, 0].any()
    assert calls == [3] * 4  # in each batch the full network and ratio 0.5
    calls.clear()
    evaluation.loss_table(model, data, [0.25, 0.5], moved, batch_size=3)
    assert calls == [3] * 6


def test_losses_draw_the_same_numbers_whether_or_not_the_full_network_is_evaluated_again():
    def drawn(pruned, full, target):
        return torch.rand(len(pruned))

    model, data = Noisy(20, 4), torch.ones(6, 20)
    for ratios in ([0.0], [0.0, 0.5]):
        table = evaluation.loss_table(model, data, ratios, drawn, batch_size=2)
        assert (table == table[:, :1]).all() and len(set(table[:, 0])) == 6


def test_wrong_inputs_are_still_told_by_the_network():
    with pytest.raises(RuntimeError, match="channels"):
        evaluation.loss_table(IMAGES["convolution"](), torch.randn(4, 5, 8, 8), [0.5], moved)


def test_what_a_network_remembers_it_remembers_of_its_own_ratio():
    model, data = Remembering(), torch.randn(40, 20)
    got = evaluation.loss_table(model, data, COARSE, moved, batch_size=10)
    want = np.column_stack(list(evaluation.loss_columns(model, data, COARSE, moved, batch_size=10)))
    np.testing.assert_allclose(got, want, atol=2e-6)
    assert model.calls == 0 and not model.seen.any()


class Normalising(nn.Module):
    """Rescales its own weights in place; those of the full network need no rescaling."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(20, 4)
        self.size = self.layer.weight.data.abs().sum().item()

    def forward(self, x):
        self.layer.weight.data *= self.size / self.layer.weight.data.abs().sum()
        return self.layer(x)


class Merging(nn.Linear):
    """Changes when it goes to eval mode."""

    def train(self, mode=True):
        if self.training and not mode:
            self.bias.data += self.weight.data.sum(dim=1)
        return super().train(mode)


@pytest.mark.parametrize("make", [Normalising, lambda: Merging(20, 4)])
def test_networks_that_change_their_own_weights_get_a_copy_a_ratio(make, unchanged):
    model, data = make(), torch.randn(30, 20)
    with unchanged(model):
        table = evaluation.loss_table(model, data, COARSE, moved, batch_size=10)
        columns = list(evaluation.loss_columns(model, data, COARSE, moved, batch_size=10))
    np.testing.assert_allclose(table, np.column_stack(columns), atol=2e-6)
    with torch.no_grad():
        full = pruning.twin(model).eval()(data)
        want = [moved(pruning.prune(model, r).eval()(data), full, None) for r in COARSE]
    np.testing.assert_allclose(table, np.column_stack(want), atol=2e-6)
    assert table[:, -1].mean() > 1e-3


def test_autocast_is_respected():
    model, data = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4)), torch.randn(30, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        table = evaluation.loss_table(model, data, FINE[::9], moved)
        columns = list(evaluation.loss_columns(model, data, FINE[::9], moved))
    np.testing.assert_array_equal(table, np.column_stack(columns))


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.randn(len(x), 4)


def test_networks_that_draw_see_the_same_numbers_at_every_ratio_and_others_in_every_batch():
    model, data = Noisy(20, 4), torch.ones(6, 20)
    got = evaluation.loss_table(model, data, [0.0, 0.5], moved, batch_size=2)
    assert (got[:, 0] == 0).all() and (got[:, 1] > 0).all()

    def noise(pruned, full, target):
        return torch.sigmoid(pruned[:, 0])

    table = evaluation.loss_table(model, data, [0.0, 0.5], noise, batch_size=2)
    assert len(set(table[:, 0])) == 6


def test_a_first_layer_is_multiplied_only_now_and_then(monkeypatch):
    calls, product = [], kernels.product

    def counted(inputs, weight, bias, columns=False):
        calls.extend([1] * (len(weight) == 30))  # the first layer
        return product(inputs, weight, bias, columns)

    for module in (first_layer, kernels):
        monkeypatch.setattr(module, "product", counted)
    monkeypatch.setattr(first_layer, "FRESH", 64)
    model = nn.Sequential(nn.Linear(200, 30), nn.ReLU(), nn.Linear(30, 4))
    evaluation.loss_table(model, torch.randn(20, 200), FINE, moved, batch_size=10)
    assert len(calls) == 2 * (1 + 1)  # in each of two batches the full network, and once anew
    calls.clear()
    evaluation.loss_table(model, torch.randn(20, 200), COARSE, moved, batch_size=10)
    assert len(calls) == 2 * (1 + 3)  # at ratio 0 nothing has changed


@pytest.mark.parametrize(
    ("layer", "inputs", "expected"),
    [
        (nn.Linear(3, 2), (torch.ones(4, 3),), True),
        (nn.Linear(3, 2).double(), (torch.ones(4, 3).double(),), True),
        (nn.Linear(3, 2), (torch.ones(4, 5, 3),), False),
        (nn.Linear(3, 2).bfloat16(), (torch.ones(4, 3).bfloat16(),), False),
        (type("Own", (nn.Linear,), {})(3, 2), (torch.ones(4, 3),), False),
        (nn.Conv1d(3, 2, 1), (torch.ones(4, 3),), False),
        (nn.Linear(3, 2), (), False),
    ],
)
def test_only_plain_linear_layers_of_rows_are_updated(layer, inputs, expected):
    with torch.inference_mode():
        assert first_layer.updatable(layer, inputs) is expected
    assert not first_layer.updatable(layer, inputs)  # a network that asks for gradients gets them


@pytest.mark.parametrize(
    "form",
    [
        lambda x, w, b: (x, w, b),
        lambda x, w, b: (x, w, None),
        lambda x, w, b: (x.T.contiguous().T, w.T.contiguous().T, b),
        lambda x, w, b: (x[:, ::2], w[:, ::2], b),
        lambda x, w, b: (x[:1].expand(7, 20), w[:, :1].expand(30, 20), b[:1].expand(30)),
        lambda x, w, b: (x[:0], w, b),
        lambda x, w, b: (x[:, :0], w[:, :0], b),
        lambda x, w, b: (x, w[:0], b[:0]),
        lambda x, w, b: (x.T.contiguous().T, w, None),
        lambda x, w, b: (x.T.contiguous().T, w[:0], b[:0]),
        lambda x, w, b: (x[:1], w, b),
        lambda x, w, b: (x.double(), w.double(), b.double()),
    ],
)
def test_products_are_those_of_torch_in_every_form(form):
    inputs, weight, bias = form(torch.randn(7, 20), torch.randn(30, 20), torch.randn(30))
    with torch.inference_mode():
        got, want = kernels.product(inputs, weight, bias), linear(inputs, weight, bias)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert got.is_contiguous()


def test_wrong_widths_are_refused_by_the_fast_kernel_too():
    with torch.inference_mode(), pytest.raises(RuntimeError):
        kernels.product(torch.ones(7, 20), torch.ones(30, 21), None)


def test_without_the_fast_kernel_the_table_is_the_same(monkeypatch, mlp, digits):
    images = digits[0][:200]
    fast = evaluation.loss_table(mlp, images, FINE, moved)
    monkeypatch.setattr(kernels, "ONEDNN", None)
    np.testing.assert_allclose(evaluation.loss_table(mlp, images, FINE, moved), fast, rtol=0, atol=1e-5)


def test_errors_do_not_add_up():
    model = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))
    data, finer = torch.rand(50, 784), np.arange(0, 300) / 300
    got = evaluation.loss_table(model, data, finer, moved)[:, 14::15]
    want = by_copies(model.double(), data.double(), finer[14::15])
    assert abs(got - want).max() < 1e-6


def test_a_0_1_loss_differs_only_at_ties(mlp, digits):
    images, labels = (part[:1000] for part in digits)
    table = evaluation.loss_table(mlp, (images, labels), FINE, losses.error)
    for j in range(0, 100, 9):
        with torch.no_grad():
            logits = pruning.prune(mlp, FINE[j])(images)
        top = logits.topk(2).values
        other = table[:, j] != (logits.argmax(1) != labels).numpy()
        assert ((top[:, 0] - top[:, 1]).numpy()[other] < 1e-5).all()
