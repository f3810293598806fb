"""Copies that compute with other weights than their own are refused before anything is certified."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from confprune_edu import calibration, evaluation, losses
from confprune_edu.engine import proof

X = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()


def without_gradients(model):
    model.forward = torch.no_grad()(model.forward)
    return model


def compiled_forward(model):
    model.forward = torch.compile(model.forward)
    return model


def under_autocast(model):
    forward = model.forward

    def cast(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return forward(x)

    model.forward = cast
    return model


def cooled(model):
    inner = model[2].forward
    model[2].forward = lambda x: inner(x) / 2
    return model


def only_the_first(model):
    model[0].forward = torch.no_grad()(model[0].forward)
    return model


class Listed(nn.Module):
    """Steps that are functions over `self`."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.steps = [lambda x: self.inner[0](x).relu(), lambda x: self.inner[2](x)]

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return x


class Around(nn.Module):
    """A wrapper that closes over the model, and gives decisions: whole numbers."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.decide = inner, lambda x: inner(x).argmax(1)

    def forward(self, x):
        return nn.functional.one_hot(self.decide(x), 3)


class Sometimes(nn.Module):
    """Two experts by the sign of the first number; the second is called through the original."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.other = inner, nn.Linear(6, 3)
        self.second = lambda x: self.other(x)

    def forward(self, x):
        return torch.cat([(self.inner if row[0] > 0 else self.second)(row)[None] for row in x])


class Filled(nn.Linear):
    """Computes with a copy of its weight that it has kept."""

    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.kept = self.weight.detach().bfloat16()

    def forward(self, x):
        return nn.functional.linear(x.bfloat16(), self.kept).float() + self.bias


def kept(model):
    model[2] = Filled(model[2])
    return model


class Scaled(Filled):
    """Reads its weight, too."""

    def forward(self, x):
        return super().forward(x) * self.weight.abs().max().clamp(1, 1)


def kept_and_read(model):
    model[2] = Scaled(model[2])
    return model


class Hidden(nn.Linear):
    """Computes where torch sees nothing, with numbers that it has kept."""

    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.kept = self.weight.detach().numpy().copy()

    def forward(self, x):
        return torch.from_numpy(x.numpy() @ self.kept.T) + self.bias


def hidden(model):
    model[2] = Hidden(model[2])
    return model


class Later(nn.Module):
    """Calls the original in its third batch only; `Unsure` where no answer is sure, which no full network's is."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.other = inner, lambda x: inner(x)

    def forward(self, x):
        return self.other(x) if x[0, 0] == X[20, 0] else self.inner(x)


class Unsure(Later):
    def forward(self, x):
        answer = self.inner(x)
        return answer if answer.abs().max() > 0.3 else self.other(x)


class Outside(nn.Module):
    """A wide layer of the original, out of torch's sight, on few examples."""

    def __init__(self, inner):
        super().__init__()
        self.wide, self.inner = nn.Linear(600, 6), inner
        original = self.wide.weight.detach()
        self.product = lambda x: torch.from_numpy(x.numpy() @ original.numpy().T)

    def forward(self, x):
        return self.inner(self.product(x.repeat(1, 100)))


REDIRECTED = {
    without_gradients: "0.weight",
    compiled_forward: "0.weight",
    under_autocast: "0.weight",
    cooled: "2.weight",
    only_the_first: "0.weight",
    Listed: "inner.0.weight",
    Around: "inner.0.weight",
    Sometimes: "other.weight",
    Later: "inner.0.weight",
    Unsure: "inner.0.weight",
}


class Halves(Filled):
    """Keeps two halves of its weight, and looks at its size."""

    def __init__(self, layer):
        super().__init__(layer)
        self.kept = [half.clone() for half in self.weight.detach().chunk(2, dim=1)]

    def forward(self, x):
        parts = zip(x.chunk(2, dim=1), self.kept, strict=True)
        return sum(part @ half.T for part, half in parts) * self.weight.abs().max().clamp(1, 1)


class Levels(Filled):
    """Keeps 255 levels, and takes the range of each output, by which they are multiplied, from its weight."""

    def __init__(self, layer):
        super().__init__(layer)
        self.kept = (self.weight.detach() / self.range()).round().to(torch.int8)

    def range(self):
        return self.weight.detach().abs().amax(1, keepdim=True) / 127

    def forward(self, x):
        return x @ (self.kept * self.range()).T + self.bias


class Signs(Filled):
    """Keeps the signs alone."""

    def __init__(self, layer):
        super().__init__(layer)
        self.kept = self.weight.detach() > 0

    def forward(self, x):
        return x @ (self.kept.float() - 0.5).T


def last(layer):
    def change(model):
        model[2] = layer(model[2])
        return model

    change.__name__ = layer.__name__
    return change


KEPT = {kept: "2.weight", kept_and_read: "2.weight", hidden: "2.weight", Outside: "wide.weight"} | {
    last(layer): "2.weight" for layer in (Halves, Levels, Signs)
}


@pytest.mark.parametrize("way", ["table", "one", "columns", "finished", "holm"])
@pytest.mark.parametrize("change", REDIRECTED | KEPT, ids=lambda change: change.__name__)
def test_copies_that_compute_with_other_weights_are_refused_by_name(change, way, unchanged):
    model = change(net())
    name = (REDIRECTED | KEPT)[change].replace(".", r"\.")
    words = rf"reads {name} of the original" if change in REDIRECTED else rf"{name} is not shown"

    def largest(pruned, full, target):
        return (pruned != full).any(1)

    with unchanged(model), pytest.raises(ValueError, match=words):
        if way == "columns":
            list(evaluation.loss_columns(model, X, [0.5, 0.9], largest, batch_size=10))
        elif way == "one":
            evaluation.loss_table(model, X, [0.9], largest, batch_size=10)
        elif way == "holm":
            settings = dict(alpha=0.5, delta=0.1, procedure="holm", ratios=[0.1, 0.9], batch_size=10)
            calibration.calibrate(model, X, largest, **settings)
        else:
            finish = (lambda network: None) if way == "finished" else None
            evaluation.loss_table(model, X, [0.5, 0.9], largest, finish=finish, batch_size=10)


def test_a_call_that_names_the_model_is_refused():
    model = net()
    with pytest.raises(ValueError, match=r"reads 0\.weight of the original.*`call`"):
        evaluation.loss_table(model, X, [0.5], losses.disagreement, call=lambda network, inputs: model(inputs))


@pytest.mark.parametrize("compile", [torch.compile, lambda m: m.compile() or m, lambda m: part_compiled(m)])
def test_compiled_models_are_run_as_they_are_written(compile):
    want = evaluation.loss_table(net(), X, [0.0, 0.5, 0.9], losses.disagreement)
    np.testing.assert_array_equal(evaluation.loss_table(compile(net()), X, [0.0, 0.5, 0.9], losses.disagreement), want)


def part_compiled(model):
    model[2] = torch.compile(model[2])
    return model


class Unread(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner, self.aux = net(), nn.Linear(6, width)

    def forward(self, x):
        return self.inner(x)


def test_a_large_part_that_is_not_read_is_warned_of():
    want = evaluation.loss_table(net(), X, [0.0], losses.disagreement)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(evaluation.loss_table(Unread(1), X, [0.0], losses.disagreement), want)
    with pytest.warns(UserWarning, match=r"does not read aux\.weight"):
        evaluation.loss_table(Unread(20), X, [0.0, 0.5], losses.disagreement)


class Positions(nn.Module):
    """An honest table in a plain attribute, as large as a weight, beside a head that is not read."""

    def __init__(self, aux):
        super().__init__()
        self.inner, self.table = net(), torch.randn(12, 6)
        self.aux = nn.Linear(6, 1) if aux else None

    def forward(self, x):
        return self.inner(x + self.table[: len(x) % 12 + 1].mean(0))


def test_honest_constants_cost_nothing_but_where_they_could_hold_what_is_not_read():
    model = Positions(aux=False)
    assert evaluation.loss_table(model, X, [0.0, 0.9], losses.disagreement).shape == (30, 2)
    with pytest.raises(ValueError, match=r"aux\.weight is not shown"):
        evaluation.loss_table(Positions(aux=True), X, [0.0, 0.9], losses.disagreement)


REGISTER = {}


class Shared(nn.Linear):
    """Takes its weight from a register outside of the model, where the first copy that is called has left its own."""

    def forward(self, x):
        if "weight" not in REGISTER:
            REGISTER["weight"] = self.weight.detach().clone()
        return nn.functional.linear(x, REGISTER["weight"]) + self.bias


class SharedAndRead(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, REGISTER.setdefault("weight", self.weight.detach().clone())) + self.bias


@pytest.mark.parametrize("layer", [Shared, SharedAndRead])
def test_a_cache_that_all_copies_share_is_refused(layer):
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), layer(12, 3))
    for evaluate in (evaluation.loss_table, lambda *given: list(evaluation.loss_columns(*given))):
        for ratios in ([0.1, 0.5, 0.9], [0.0, 0.9], [0.9]):
            REGISTER.clear()
            with pytest.raises(ValueError, match=r"2\.weight.*cache"):
                evaluate(model, X, ratios, losses.disagreement)


class Rebuilt(nn.Sequential):
    """Its copies are built anew, with the weights of a network that was never trained."""

    def __deepcopy__(self, memo):
        return Rebuilt(*net())


def test_a_copy_with_other_weights_is_refused_by_name():
    model = Rebuilt(*net())
    model[2].weight.data.neg_()
    with pytest.raises(ValueError, match=r"another 2\.weight.*__deepcopy__"):
        evaluation.loss_table(model, X, [0.5, 0.9], losses.disagreement)


# Which memory operators read


def test_operands_tell_inside_from_outside():
    weight, table, x = torch.randn(4, 3), torch.randn(5, 3), torch.randn(2, 3)

    def read(function, *known):
        with proof.Operands([*known, x]) as seen:
            seen.note([function()])
        return [not seen.read.isdisjoint(proof.memories(t)) for t in (weight, table)], bool(seen.foreign)

    assert read(lambda: x @ weight.T, weight) == ([True, False], False)
    assert read(lambda: x @ weight.T) == ([True, False], True)
    assert read(lambda: x + table[0], weight) == ([False, True], True)
    assert read(lambda: x.new_empty(2, 3).copy_(x) + 1) == ([False, False], False)
    assert read(lambda: x + torch.from_numpy(x.numpy() * 2)) == ([False, False], True)
    assert read(lambda: x + torch.empty(2, 3)) == ([False, False], True)  # filled out of sight, who knows
    assert read(lambda: torch.mv(x, weight.detach().view(-1)[:3])) == ([True, False], True)
    assert read(lambda: [weight.T, weight[0], x.exp()][2]) == ([False, False], False)  # a view reads nothing


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_every_kind_of_tensor_has_its_memory():
    dense = torch.eye(3)
    for tensor in (dense, dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc()):
        assert proof.memories(tensor)
        assert set(proof.memories(tensor)) == set(proof.memories(tensor))
