"""The loss table against pruning by hand, whatever the form of the data; what an evaluation must leave alone."""

import functools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from confprune_edu import calibration, evaluation, losses, models
from confprune_edu.engine import batches, passes

RATIOS = [0.0, 0.6, 0.9, 0.97]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def pruned_by_hand(ratio):
    """The shipped network with the smallest weights at zero: one sort, one write a layer."""
    model = models.load("mnist-mlp")
    weights = torch.cat([layer.weight.detach().flatten() for layer in model.children()])
    weights[torch.argsort(weights.abs(), stable=True)[: round(ratio * len(weights))]] = 0
    parts = weights.split([layer.weight.numel() for layer in model.children()])
    for layer, part in zip(model.children(), parts, strict=True):
        layer.weight.data = part.view(layer.weight.shape)
    return model


def answers(model, images):
    with torch.no_grad():
        return model(images)


def distance(pruned, full, target):
    """A loss of one's own: total variation of the two predictions, float in [0, 1]."""
    return (pruned.softmax(1) - full.softmax(1)).abs().sum(1) / 2


BY_HAND = {
    "disagreement": (losses.disagreement, lambda p, f, y: p.argmax(1) != f.argmax(1)),
    "error": (losses.error, lambda p, f, y: p.argmax(1) != y),
    "degradation": (losses.degradation, lambda p, f, y: (f.argmax(1) == y) & (p.argmax(1) != y)),
    "accuracy_drop": (losses.accuracy_drop, lambda p, f, y: (p.argmax(1) != y).double() - (f.argmax(1) != y).double()),
    "float": (distance, lambda p, f, y: 1 - torch.minimum(p.softmax(1), f.softmax(1)).sum(1)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_table_is_pruning_and_running_ratio_by_ratio(mlp, digits, name):
    images, labels = (part[:4000] for part in digits)
    loss, by_hand = BY_HAND[name]
    full = answers(mlp, images)
    want = torch.stack([by_hand(answers(pruned_by_hand(r), images), full, labels) for r in RATIOS], dim=1)
    table = evaluation.loss_table(mlp, (images, labels), RATIOS, loss)
    assert table.shape == (4000, 4)
    assert table.dtype == (np.float64 if name in ("accuracy_drop", "float") else bool)
    np.testing.assert_allclose(table.astype(float), want.double(), atol=1e-5 if name == "float" else 0)
    assert table[:, -1].mean() > table[:, 1].mean()


def test_columns_are_those_of_the_table(mlp, digits):
    images = digits[0][:100]
    columns = list(evaluation.loss_columns(mlp, images, RATIOS, distance))
    table = evaluation.loss_table(mlp, images, RATIOS, distance)
    np.testing.assert_allclose(np.column_stack(columns), table, atol=1e-6)  # the table adds what changes


@pytest.mark.parametrize("batch_size", [1, 7, 49, 50, 5000, np.int64(32)])
def test_batch_size_does_not_matter(mlp, digits, batch_size):
    data = tuple(part[:50] for part in digits)
    want = evaluation.loss_table(mlp, data, RATIOS, losses.error)
    np.testing.assert_array_equal(evaluation.loss_table(mlp, data, RATIOS, losses.error, batch_size=batch_size), want)


class Tokens(nn.Module):
    """Token ids, which are few numbers, become many."""

    def __init__(self, width):
        super().__init__()
        self.table, self.last, self.seen = nn.Embedding(50, width), nn.Linear(width, 3), []

    def forward(self, ids):
        Tokens.batches.append(len(ids))
        return self.last(self.table(ids)).mean(1)


@pytest.mark.parametrize(("width", "most"), [(2, 1280), (128, 2**21 // (16 * 128)), (2**15, 8), (2**17, 2)])
def test_the_default_batch_is_fitted_to_what_layers_give(width, most):
    ids, Tokens.batches = torch.randint(0, 50, (40 if most < 10 else 1500, 16)), []
    evaluation.loss_table(Tokens(width), ids, [0.5], distance)
    assert Tokens.batches[:2] == [2, 4] and max(Tokens.batches) == max(most, 4)
    assert sum(Tokens.batches[2:]) == 2 * len(ids) and set(Tokens.batches[2:-2]) <= {most, len(ids) % most}
    Tokens.batches = []
    evaluation.loss_table(Tokens(width), DataLoader(ids[:40], batch_size=20), [0.5], distance)
    evaluation.loss_table(Tokens(width), ids[:32], [0.5], distance)  # few
    evaluation.loss_table(Tokens(width), ids[:40], [0.5], distance, batch_size=20)
    assert Tokens.batches == [20] * 4 + [32] * 2 + [20] * 4


def test_the_default_batch_counts_what_attention_holds_inside():
    layer = nn.TransformerEncoderLayer(64, 2, 8, batch_first=True).eval()  # in eval mode one operator for all of it
    with torch.inference_mode():
        found = batches.fitting(layer, torch.rand(40, 64, 64))
    assert found == 2**21 // (3 * 64 * 64)  # queries, keys and values


class Pairs(Dataset):
    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], self.labels[i]


class Stream(IterableDataset):
    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __iter__(self):
        return zip(self.images, self.labels, strict=True)


def read_only(array):
    array = array.numpy().copy()
    array.flags.writeable = False
    return array


SAME_ORDER = {
    "list": lambda x, y: [x, y],
    "numpy": lambda x, y: (x.numpy(), y.numpy()),
    "read-only": lambda x, y: (read_only(x), read_only(y)),
    "reversed view": lambda x, y: (x.flip(0).numpy()[::-1], y.flip(0).numpy()[::-1]),
    "loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=32),
    "last batch of one": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=99),
    "data set": Pairs,
    "tensor data set": TensorDataset,
    "stream": lambda x, y: DataLoader(Stream(x, y), batch_size=64),
}
OTHER_ORDER = {
    "shuffle": lambda d: DataLoader(d, batch_size=30, shuffle=True),
    "shuffle, own generator": lambda d: DataLoader(
        d, batch_size=30, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
    "sampler": lambda d: DataLoader(d, sampler=RandomSampler(d, generator=torch.Generator().manual_seed(3))),
    "batch sampler": lambda d: DataLoader(
        d, batch_sampler=BatchSampler(RandomSampler(d, generator=torch.Generator().manual_seed(3)), 40, False)
    ),
}


@pytest.mark.parametrize("form", SAME_ORDER)
def test_form_of_the_data_does_not_matter(mlp, digits, form):
    images, labels = (part[:100] for part in digits)
    want = evaluation.loss_table(mlp, (images, labels), RATIOS, losses.error)
    data = SAME_ORDER[form](images, labels)
    np.testing.assert_array_equal(evaluation.loss_table(mlp, data, RATIOS, losses.error), want)


@pytest.mark.parametrize("form", OTHER_ORDER)
def test_shuffled_loaders_give_the_same_rows_in_another_order(mlp, digits, form):
    def labelled(pruned, full, target):
        return (target + losses.error(pruned, full, target)) / 10

    images, labels = (part[:100] for part in digits)
    want = evaluation.loss_table(mlp, (images, labels), RATIOS, labelled).tolist()
    got = evaluation.loss_table(mlp, OTHER_ORDER[form](TensorDataset(images, labels)), RATIOS, labelled).tolist()
    assert got != want and sorted(got) == sorted(want)


@pytest.mark.parametrize("form", ["tensor", "numpy", "one part", "loader", "loader of tensors"])
def test_inputs_alone(mlp, digits, form):
    images, labels = (part[:100] for part in digits)
    data = {
        "tensor": images,
        "numpy": images.numpy(),
        "one part": (images,),
        "loader": DataLoader(TensorDataset(images), batch_size=30),
        "loader of tensors": DataLoader(images, batch_size=30),
    }[form]
    want = evaluation.loss_table(mlp, (images, labels), RATIOS, losses.disagreement)
    np.testing.assert_array_equal(evaluation.loss_table(mlp, data, RATIOS, losses.disagreement), want)
    with pytest.raises(ValueError, match="target"):
        evaluation.loss_table(mlp, data, RATIOS, losses.error)


def test_inputs_of_any_type_in_a_loader():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, inputs):
            return self.layer(inputs["a"] + inputs["b"])

    model, a, b = Sum(), torch.randn(30, 4), torch.randn(30, 4)
    loader = DataLoader([{"a": a[i], "b": b[i]} for i in range(30)], batch_size=8)
    got = evaluation.loss_table(model, loader, RATIOS, losses.disagreement)
    want = evaluation.loss_table(nn.Sequential(model.layer), a + b, RATIOS, losses.disagreement)
    np.testing.assert_array_equal(got, want)


def test_custom_scores_and_finish_are_used():
    model, x = nn.Linear(4, 3), torch.randn(200, 4)
    ones = {"weight": torch.tensor([[1.0, 1, 1, 0]] * 3)}
    blind = nn.Linear(4, 3)
    blind.load_state_dict({"weight": model.weight.detach() * torch.tensor([1.0, 1, 1, 0]), "bias": model.bias})
    want = answers(model, x).argmax(1) != answers(blind, x).argmax(1)
    got = evaluation.loss_table(model, x, [0.25], losses.disagreement, scores=ones)[:, 0]
    assert got.tolist() == want.tolist() and 0 < got.mean() < 1
    biased = evaluation.loss_table(model, x, [0.0], losses.disagreement, finish=lambda m: m.bias.data.add_(9))
    assert not biased.any()
    flipped = evaluation.loss_table(model, x, [0.0], losses.disagreement, finish=lambda m: m.weight.data.neg_())
    assert flipped.any()


# What an evaluation must leave alone


def noisy():
    """Batch norm, dropout, a frozen layer and gradients, in training mode: much that could change."""
    model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.ReLU(), nn.Linear(12, 3)).train()
    model(torch.randn(50, 6) * 3).square().sum().backward()
    model[2].eval()
    model[4].weight.requires_grad_(False)
    return model


class Interrupted(TensorDataset):
    """Raises `problem` when the 30th example is read, the first or the second time."""

    def __init__(self, x, problem, time):
        super().__init__(x)
        self.problem, self.reads, self.time = problem, 0, time

    def __getitem__(self, i):
        self.reads += i == 29
        if self.reads == self.time:
            raise self.problem
        return super().__getitem__(i)


def restless(pruned, full, target, problem=None):
    """A loss that draws from every global random state, and raises `problem`."""
    torch.rand(1), np.random.rand(1), random.random()  # noqa: NPY002
    if problem is not None:
        raise problem
    return losses.disagreement(pruned, full)


def test_everything_is_as_it_was(unchanged):
    model, generator = noisy(), torch.Generator().manual_seed(5)
    data = TensorDataset(torch.randn(40, 6))
    loader = DataLoader(data, batch_size=16, shuffle=True, generator=generator)
    inputs = data.tensors[0].clone()
    with unchanged(model, generator):
        evaluation.loss_table(model, loader, RATIOS, restless)
        evaluation.loss_table(model, DataLoader(data, batch_size=16, shuffle=True), RATIOS, restless)
        calibration.calibrate(
            model, data.tensors[0], restless, alpha=0.5, delta=0.1, finish=lambda m: torch.rand(1), ratios=RATIOS
        )
    assert torch.equal(data.tensors[0], inputs)


@pytest.fixture
def no_room(monkeypatch):
    """No memory for batches: a loader is read in each pass."""
    monkeypatch.setattr(batches, "KEPT_SHARE", 0)
    monkeypatch.setattr(batches, "KEPT_UNKNOWN", 0)


@pytest.mark.parametrize("problem", [ZeroDivisionError, KeyboardInterrupt])
def test_everything_is_as_it_was_after_an_exception(unchanged, problem, no_room):
    model, generator = noisy(), torch.Generator().manual_seed(5)
    x = torch.randn(40, 6)
    for time, finish in ((1, None), (2, lambda network: None)):  # without room, one pass a network that is finished
        interrupted = Interrupted(x, problem, time)
        loader = DataLoader(interrupted, batch_size=16, shuffle=True, generator=generator)
        with unchanged(model, generator), pytest.raises(problem):
            evaluation.loss_table(model, loader, RATIOS, restless, finish=finish)
    with unchanged(model), pytest.raises(problem):
        evaluation.loss_table(model, x, RATIOS, functools.partial(restless, problem=problem))
    with unchanged(model), pytest.raises(problem):
        loss = functools.partial(restless, problem=problem)
        calibration.calibrate(model, DataLoader(x, shuffle=True), loss, alpha=0.5, delta=0.1)


def test_everything_is_as_it_was_after_half_a_table(unchanged):
    model, generator = noisy(), torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(torch.randn(40, 6)), batch_size=16, shuffle=True, generator=generator)
    with unchanged(model, generator):
        columns = evaluation.loss_columns(model, loader, RATIOS, restless)
    with unchanged(model, generator):
        next(columns)
        next(columns)
    with unchanged(model, generator):
        columns.close()


def test_the_generator_of_a_batch_sampler_is_restored(unchanged):
    class OwnBatches:
        def __init__(self):
            self.generator = torch.Generator().manual_seed(1)

        def __iter__(self):
            return iter(torch.randperm(40, generator=self.generator).view(4, 10).tolist())

        def __len__(self):
            return 4

    model, batches = nn.Linear(6, 3), OwnBatches()
    loader = DataLoader(TensorDataset(torch.randn(40, 6)), batch_sampler=batches)
    with unchanged(model, batches.generator):
        table = evaluation.loss_table(model, loader, [0.0], losses.disagreement)
    assert not table.any()


@pytest.mark.parametrize("outer", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_gradient_mode_around_it(outer, digits, mlp):
    with outer():
        table = evaluation.loss_table(mlp, digits[0][:100], RATIOS, losses.disagreement)
    np.testing.assert_array_equal(table, evaluation.loss_table(mlp, digits[0][:100], RATIOS, losses.disagreement))


def test_models_are_evaluated_in_eval_mode_without_gradients():
    seen = []

    class Witness(nn.Linear):
        def forward(self, x):
            seen.append((self.training, torch.is_inference_mode_enabled()))
            return super().forward(x)

    model = nn.Sequential(Witness(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    x = torch.randn(30, 4)
    (column,) = evaluation.loss_columns(model, x, [0.0], losses.disagreement)
    assert not column.any()  # dropout or batch means would show
    evaluation.loss_table(model, x, [0.5], losses.disagreement)
    assert seen == [(False, True)] * 3 and model.training  # at ratio 0 the full network has answered


def test_a_network_that_writes_into_its_input_sees_the_same_input_each_time():
    class Normalised(nn.Linear):
        def forward(self, x):
            return super().forward(x.sub_(1).mul_(-3))

    model, x = Normalised(4, 3), torch.randn(200, 4)
    before, outside = x.clone(), nn.Linear(4, 3)
    outside.load_state_dict(model.state_dict())
    got = evaluation.loss_table(model, x, RATIOS, losses.disagreement)
    assert torch.equal(x, before), "the caller's data were changed"
    np.testing.assert_array_equal(got, evaluation.loss_table(outside, (x - 1) * -3, RATIOS, losses.disagreement))


def test_a_loss_that_writes_into_its_arguments_spoils_no_later_ratio():
    model, x = nn.Linear(4, 3), torch.randn(100, 4)

    def destructive(pruned, full, target):
        wrong = pruned.argmax(1) != full.argmax(1)
        full.neg_()
        return wrong

    got = evaluation.loss_table(model, x, RATIOS, destructive)
    np.testing.assert_array_equal(got, evaluation.loss_table(model, x, RATIOS, losses.disagreement))


# Laziness


class Counted(nn.Linear):
    """Counts forward passes of itself and its copies."""

    passes = 0

    def forward(self, x):
        Counted.passes += 1
        return super().forward(x)


@pytest.fixture
def counted():
    Counted.passes = 0
    return Counted(6, 3)


def test_nothing_is_evaluated_before_it_is_asked_for(counted):
    columns = evaluation.loss_columns(counted, torch.randn(40, 6), RATIOS, losses.disagreement, batch_size=10)
    assert Counted.passes == 0
    next(columns)
    assert Counted.passes == 4  # of the full network, which is that of ratio 0
    next(columns)
    assert Counted.passes == 8


@pytest.mark.parametrize("failing", range(4))
def test_no_ratio_beyond_the_first_failure(counted, failing):
    def loss(pruned, full, target):  # the first ratio takes the second pass, and so on
        return torch.full((40,), float(Counted.passes == failing + 2))

    settings = dict(alpha=0.2, delta=0.1, ratios=[0.1, 0.2, 0.4, 0.6], batch_size=40)
    result = calibration.calibrate(counted, torch.randn(40, 6), loss, block=1, **settings)
    assert Counted.passes == failing + 2 and result.evaluated == failing + 1
    assert np.isfinite(result.p_values).tolist() == [j <= failing for j in range(4)]
    assert result.rejected.tolist() == [j < failing for j in range(4)]
    Counted.passes = 0
    result = calibration.calibrate(counted, torch.randn(40, 6), loss, procedure="holm", **settings)
    assert Counted.passes == 5 and result.rejected.tolist() == [j != failing for j in range(4)]


def test_no_more_than_one_block_beyond_the_first_failure(counted):
    def loss(pruned, full, target):
        return torch.full((40,), float(Counted.passes >= 65))  # of the full network's, at 0.01, and others

    grid, done = np.arange(1, 100) / 100, []
    for block in (None, 3):
        Counted.passes = 0
        result = calibration.calibrate(
            counted, torch.randn(40, 6), loss, alpha=0.2, delta=0.1, ratios=grid, block=block, batch_size=40
        )
        assert np.isfinite(result.p_values).sum() == 65 and result.evaluated == Counted.passes
        done.append(result.evaluated)
    assert done == [63 + 63 // 8, 66]
    with pytest.raises(ValueError, match="block"):
        calibration.calibrate(counted, torch.randn(40, 6), loss, alpha=0.2, delta=0.1, block=0)


def test_a_refused_setting_costs_no_forward_pass(counted):
    with pytest.raises(ValueError, match="alpha"):
        calibration.calibrate(counted, torch.randn(40, 6), losses.disagreement, alpha=2, delta=0.1)
    with pytest.raises(ValueError, match="p_value"):
        calibration.calibrate(counted, torch.randn(40, 6), losses.disagreement, alpha=0.1, delta=0.1, p_value="t")
    assert Counted.passes == 0


# Loaders that do not repeat themselves


class OtherEachTime(IterableDataset):
    """Gives `change(x, pass number)`."""

    def __init__(self, x, change):
        self.x, self.change, self.passes = x, change, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.change(self.x, self.passes - 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda x, k: x + k,
        lambda x, k: x[: len(x) - 16 * k],
        lambda x, k: torch.cat([x, x[:16]]) if k else x,
        lambda x, k: x.roll(16 * k, 0),
        lambda x, k: x.roll(k, 0),
        lambda x, k: x.flip(0) if k else x,
        lambda x, k: x.view(-1, 16, 6).flip(1).flatten(0, 1) if k else x,
    ],
    ids=["values", "fewer", "more", "batches moved", "examples moved", "reversed", "reversed in each batch"],
)
@pytest.mark.parametrize("whole_numbers", [True, False])
def test_other_examples_on_the_second_pass_are_refused(change, whole_numbers, no_room):
    x = torch.randint(0, 9, (64, 6)).float() if whole_numbers else torch.randn(64, 6)
    model, loaders = nn.Linear(6, 3), [DataLoader(OtherEachTime(x, change), batch_size=16) for _ in range(3)]
    with pytest.raises(ValueError, match="second pass"):
        list(evaluation.loss_columns(model, loaders[0], [0.0, 0.5], losses.disagreement))
    with pytest.raises(ValueError, match="second pass"):
        evaluation.loss_table(model, loaders[1], [0.0, 0.5], losses.disagreement, finish=lambda network: None)
    once = evaluation.loss_table(model, loaders[2], [0.0, 0.5], losses.disagreement)  # one pass is all it takes
    assert loaders[2].dataset.passes == 1
    np.testing.assert_array_equal(once, evaluation.loss_table(model, change(x, 0), [0.0, 0.5], losses.disagreement))


def test_inputs_in_another_order_on_the_second_pass_are_refused_in_a_dict_too(no_room):
    class Named(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs["x"])

    data = OtherEachTime(torch.randn(64, 6), lambda x, k: [{"x": row} for row in x.roll(k, 0)])
    with pytest.raises(ValueError, match="second pass"):
        list(evaluation.loss_columns(Named(6, 3), DataLoader(data, batch_size=16), [0.0, 0.5], losses.disagreement))


def test_missing_values_in_the_inputs_are_no_other_examples():
    class Filled(nn.Linear):
        def forward(self, x):
            return super().forward(x.nan_to_num())

    x = torch.randn(20, 4)
    x[3, 2], x[5] = torch.nan, torch.inf
    for data in (x, DataLoader(x, batch_size=6)):
        assert not evaluation.loss_table(Filled(4, 3), data, [0.0], losses.disagreement).any()


class Reused(IterableDataset):
    """Fills the same memory again for each batch."""

    def __init__(self, x):
        self.x, self.batch, self.passes = x, torch.empty(16, 6), 0

    def __iter__(self):
        self.passes += 1
        return (self.batch.copy_(part) for part in self.x.split(16))


@pytest.mark.parametrize("room", [True, False])
def test_a_loader_is_read_once_where_its_batches_fit(room, request):
    if not room:
        request.getfixturevalue("no_room")
    model, x = nn.Linear(6, 3), torch.randn(64, 6)
    want, settings = evaluation.loss_table(model, x, RATIOS, distance), {"loss": distance, "alpha": 0.9, "delta": 0.1}
    for procedure, finish, passes_without in (
        ("fixed_sequence", None, 1),
        ("holm", None, 1),
        ("fixed_sequence", lambda network: None, 5),
        ("holm", lambda network: None, 5),
    ):
        data = Reused(x)
        loader = DataLoader(data, batch_size=None)
        how = settings | {"ratios": RATIOS, "procedure": procedure, "finish": finish}
        result = calibration.calibrate(model, loader, **how)
        np.testing.assert_allclose(result.loss_means, want.mean(axis=0), atol=1e-6)
        assert data.passes == (1 if room else passes_without)


# Refusals


X, Y = torch.arange(24.0).view(8, 3) - 9, torch.arange(8) % 3


@pytest.mark.parametrize(
    "loss, words",
    [
        (lambda p, f, y: losses.error(p, f, y).double().mean(), "one value an example"),
        (lambda p, f, y: (p > 0).double(), "one value an example"),
        (lambda p, f, y: losses.error(p, f, y)[:3], "one value an example"),
        (lambda p, f, y: p[:, 0] * torch.nan, "ratio 0.25"),
        (lambda p, f, y: losses.error(p, f, y) + 1e-5, "ratio 0.25"),
        (lambda p, f, y: losses.error(p, f, y).double() - 1.5, "ratio 0.25"),
    ],
    ids=["mean", "table", "short", "NaN", "above 1", "below 0"],
)
def test_bad_losses_are_refused(loss, words):
    with pytest.raises(ValueError, match="loss") as caught:
        evaluation.loss_table(nn.Linear(3, 3), (X, Y), [0.25, 0.5], loss)
    assert words in str(caught.value)


@pytest.mark.parametrize("value", ["x", {"loss": 1}, (torch.ones(2),), torch.ones(8).to_sparse(), torch.ones(8) * 1j])
def test_losses_that_are_no_numbers_are_refused(value):
    with pytest.raises(TypeError, match="loss must give"):
        evaluation.loss_table(nn.Linear(3, 3), (X, Y), [0.25], lambda p, f, y: value)


@pytest.mark.parametrize("loss", ["error", None, 0.5])
def test_a_loss_is_a_function(loss):
    with pytest.raises(TypeError, match="loss"):
        evaluation.loss_table(nn.Linear(3, 3), (X, Y), [0.25], loss)


@pytest.mark.parametrize(
    "data, problem, words",
    [
        (X[:0], ValueError, "example"),
        ((X[:0], Y[:0]), ValueError, "example"),
        (DataLoader(TensorDataset(X[:0])), ValueError, "example"),
        (torch.tensor(1.0), ValueError, "data"),
        ((X, Y[:7]), ValueError, "targets"),
        ((X[:7], Y), ValueError, "inputs"),
        ((X, torch.tensor(1)), (TypeError, ValueError), "targets"),
        ((X, Y, Y), ValueError, "3 parts"),
        ({}, ValueError, "example"),
        ({"x": X, "y": Y[:7]}, ValueError, r"inputs\['x'\] and inputs\['y'\]"),
        (({"x": {"z": X.tolist()}}, Y), TypeError, r"inputs\['x'\]\['z'\]"),
        (DataLoader(TensorDataset(X, Y, Y)), ValueError, "3 parts"),
        ("digits", TypeError, "data"),
        (None, TypeError, "data"),
        (X.tolist(), (TypeError, ValueError), "data"),
        ((X, Y.tolist()), TypeError, "targets"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bad_data_are_refused(data, problem, words):
    with pytest.raises(problem, match=words):
        evaluation.loss_table(nn.Linear(3, 3), data, [0.25], losses.error)


@pytest.mark.parametrize(
    "batch_size, problem", [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_batch_size_is_a_positive_integer(batch_size, problem):
    with pytest.raises(problem, match="batch_size"):
        evaluation.loss_table(nn.Linear(3, 3), X, [0.25], losses.disagreement, batch_size=batch_size)


@pytest.mark.parametrize("evaluate", [evaluation.loss_table, evaluation.loss_columns])
def test_bad_grids_and_models_are_refused_at_once(evaluate):
    for ratios in ([], [0.5, 0.1], [1.0], [-0.1], [0.1, 0.1], [np.nan]):
        with pytest.raises(ValueError, match="ratios"):
            evaluate(nn.Linear(3, 3), X, ratios, losses.disagreement)
    with pytest.raises(ValueError, match="no prunable weight"):
        evaluate(nn.LayerNorm(3), X, [0.1], losses.disagreement)
    with pytest.raises(TypeError, match="model"):
        evaluate(lambda x: x, X, [0.1], losses.disagreement)


def test_network_that_returns_a_tuple_needs_a_loss_that_picks():
    model, x = nn.LSTM(3, 4, batch_first=True), torch.randn(20, 5, 3)
    with pytest.raises(TypeError, match="tuple"):
        evaluation.loss_table(model, x, [0.1], losses.disagreement)
    table = evaluation.loss_table(model, x, [0.0, 0.8], lambda p, f, y: losses.disagreement(p[0][:, -1], f[0][:, -1]))
    assert table.shape == (20, 2) and not table[:, 0].any() and table[:, 1].any()


def test_nan_outputs_are_refused():
    model = nn.Linear(3, 3)
    model.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        evaluation.loss_table(model, X, [0.1], losses.disagreement)


# Range of a loss


def test_loss_range():
    def own(pruned, full, target, scale=1.0):
        return scale * (pruned - full).abs().amax(1).clamp_max(4)

    own.range = (0, 4)
    assert losses.loss_range(losses.error) == (0, 1)
    assert losses.loss_range(own) == losses.loss_range(functools.partial(own, scale=0.5)) == (0, 4)
    assert losses.loss_range(functools.partial(functools.partial(losses.accuracy_drop))) == (-1, 1)
    assert evaluation.loss_table(nn.Linear(3, 3), X, [0.9], functools.partial(own, scale=0.5)).max() > 1
    with pytest.raises(ValueError, match="loss"):
        evaluation.loss_table(nn.Linear(3, 3), X, [0.9], functools.partial(own, scale=2))


@pytest.mark.parametrize("interval", [(1, 0), (0, 0), (0, np.inf), (np.nan, 1)])
def test_a_range_is_an_interval(interval):
    def own(pruned, full, target):
        return pruned[:, 0].abs().clamp_max(1)

    own.range = interval
    with pytest.raises(ValueError, match="range"):
        evaluation.loss_table(nn.Linear(3, 3), X, [0.9], own)


# Progress


@pytest.mark.parametrize("progress", [True, False])
def test_short_work_and_no_progress_are_silent(progress, capsys):
    evaluation.loss_table(nn.Linear(3, 3), X, RATIOS, losses.disagreement, progress=progress)
    assert capsys.readouterr() == ("", "")


def test_long_work_shows_its_progress_only_if_asked(monkeypatch, capsys):
    settings = []
    real = passes.tqdm
    monkeypatch.setattr(passes, "tqdm", lambda *a, **k: settings.append(k) or real(*a, **(k | {"delay": 0})))
    evaluation.loss_table(nn.Linear(3, 3), X, RATIOS, losses.disagreement)
    assert "ratio" in capsys.readouterr().err and settings[0]["delay"] == 2
    evaluation.loss_table(nn.Linear(3, 3), X, RATIOS, losses.disagreement, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_bad_value_names_the_table_that_holds_it():
    def doubtful(pruned, full, target):
        return pruned[:, 0] * 0 + 1.5

    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"doubt at ratio 0.5 must lie in \[0, 1\], got 1.5"):
        evaluation.loss_tables(model, torch.ones(3, 2), [0.5], {"other": losses.disagreement, "doubt": doubtful})


@pytest.mark.parametrize("way", [evaluation.loss_table, lambda *args: list(evaluation.loss_columns(*args))])
def test_an_error_of_torch_tells_what_the_inputs_were(way):
    with pytest.raises(RuntimeError) as told:
        way(nn.Linear(2, 2), torch.ones(3, 2).double(), [0.5], losses.disagreement)
    assert told.value.__notes__ == [
        "data: a batch of inputs is torch.float64 (3, 2); the model's weights are torch.float32"
    ]
