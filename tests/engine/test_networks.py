"""A zoo of networks and batches: each table is that of networks built anew, or the refusal names the culprit."""

import collections
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader

from confprune_edu import evaluation, pruning, selective
from confprune_edu.engine import batches as engine_batches, nested, shared

RATIOS = [0.0, 0.4, 0.8, 0.95]


def moved(pruned, full, target):
    """How far the outputs moved, in [0, 1)."""
    return 1 - (full - pruned).flatten(1).abs().sum(dim=1).neg().exp()


def by_hand(build, batches, call, names):
    """The table from networks that share nothing: built anew, loaded, pruned by one sort, run on new batches."""
    source = build()
    sizes = [source.get_parameter(name).numel() for name in names]
    order = torch.cat([source.get_parameter(name).detach().abs().flatten() for name in names]).argsort(stable=True)
    networks = []
    for ratio in RATIOS:
        network = build()
        network.load_state_dict(source.state_dict())
        kept = torch.ones(len(order))
        kept[order[: round(ratio * len(order))]] = 0
        for name, part in zip(names, kept.split(sizes), strict=True):
            network.get_parameter(name).data.mul_(part.view(network.get_parameter(name).shape))
        networks.append(network.eval())
    full = build()
    full.load_state_dict(source.state_dict())
    with torch.no_grad():
        full.eval()
        wanted = [call(full, batch) for batch in batches()]
        columns = [
            torch.cat([moved(call(n, b), y, None) for b, y in zip(batches(), wanted, strict=True)]) for n in networks
        ]
    return torch.stack(columns, dim=1).numpy()


def matrices(model):
    """Names of what is pruned by default: all but vectors and embeddings."""
    return [name for name, p in model.named_parameters() if p.ndim > 1 and "table" not in name and "aux" not in name]


class Net(nn.Module):
    """Two linear layers; the cases below change how they are called."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 3)

    def body(self, x):
        return self.second(self.first(x).relu())

    def forward(self, x):
        return self.body(x)


X = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))


def rows(wrap=lambda x: x):
    """A function that gives new batches: `wrap` of ten rows each."""
    return lambda: [wrap(X[i : i + 10].clone()) for i in range(0, 40, 10)]


def loader(batches):
    return DataLoader(batches(), batch_size=None)


# Batches that a network changes


class Popped(Net):
    def forward(self, batch):
        return self.body(batch.pop("x") + batch.pop("shift", 0.0))


class Remembered(Net):
    """The idiom of graph networks: what was computed is put into the batch."""

    def forward(self, batch):
        if not hasattr(batch, "hidden"):
            batch.hidden = self.first(batch.x).relu()
        return self.second(batch.hidden)


class Consumed(Net):
    def forward(self, batch):
        total = 0.0
        while batch[1]:
            total = total + self.body(batch[1].pop())
        return total


class Doubled(Net):
    def forward(self, batch):
        batch["inner"][0] = batch["inner"][0] * 2
        return self.body(batch["inner"][0])


class Deeper(Net):
    def forward(self, batch):
        batch["inner"][0].mul_(2)
        return self.body(batch["inner"][0])


class Texts(Net):
    def forward(self, texts):
        return self.body(torch.tensor([[float(ord(c)) for c in text] for text in texts]) / 200)


class Graph:
    def __init__(self, x):
        self.x = x


@dataclasses.dataclass
class Record:
    x: torch.Tensor
    hidden: torch.Tensor | None = None


@dataclasses.dataclass(slots=True)
class Slots:
    x: torch.Tensor
    hidden: torch.Tensor | None = None


class Filled(Net):
    def forward(self, batch):
        if batch.hidden is None:
            batch.hidden = self.first(batch.x).relu()
        return self.second(batch.hidden)


class Taken(Net):
    def forward(self, batch):
        return self.body(batch.popleft())


class Boxed(Net):
    """Takes rows of numbers as objects, the last of them None."""

    def forward(self, batch):
        return self.body(torch.tensor(batch[:-1].tolist()))


class Dressed(collections.UserDict):
    """As tokenizers give them: a dict in all but name."""


Pair = collections.namedtuple("Pair", ["x", "shift"])


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.GRU(6, 5, batch_first=True)

    def forward(self, sequence):
        return self.rnn(sequence)[1][0]


class Sparse(Net):
    def forward(self, x):
        return self.second(torch.sparse.mm(x, self.first.weight.T).relu())


class Ragged(Net):
    def forward(self, x):
        return torch.stack([self.body(row).sum(0) for row in x.unbind()])


def ragged(layout):
    return lambda x: torch.nested.nested_tensor([x[: k % 3 + 1] for k in range(len(x))], layout=layout)


def words(x):
    return ["".join(chr(int(97 + 8 * abs(v)) % 120 + 5) for v in row) for row in x.tolist()]


BATCHES = {
    "popped": (Popped, rows(lambda x: {"x": x, "shift": 0.5})),
    "popped from a UserDict": (Popped, rows(lambda x: Dressed(x=x, shift=torch.ones(len(x), 1)))),
    "given an attribute": (Remembered, rows(Graph)),
    "given a field": (Filled, rows(Record)),
    "given a slot": (Filled, rows(Slots)),
    "taken from a queue": (Taken, rows(lambda x: collections.deque([x]))),
    "list used up": (Consumed, rows(lambda x: {0: "name", 1: [x, x / 2]})),
    "list entry replaced": (Doubled, rows(lambda x: {"inner": [x]})),
    "tensor inside written": (Deeper, rows(lambda x: {"inner": [x]})),
    "texts": (Texts, rows(words)),
    "packed sequences": (Packed, rows(lambda x: pack_sequence([x[k:] for k in range(len(x))]))),
    "ragged": (Ragged, rows(ragged(torch.jagged))),
    "ragged, the old way": (Ragged, rows(ragged(torch.strided))),
    "sparse": (Sparse, rows(lambda x: x.to_sparse())),
    "sparse rows": (Sparse, rows(lambda x: x.to_sparse_csr())),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("way", ["table", "columns", "finished"])
@pytest.mark.parametrize("case", BATCHES)
def test_every_ratio_sees_the_same_batch(case, way, unchanged):
    build, batches = BATCHES[case]
    model = build()
    with unchanged(model):
        if way == "columns":
            got = np.column_stack(list(evaluation.loss_columns(model, loader(batches), RATIOS, moved)))
        else:
            finish = (lambda network: None) if way == "finished" else None
            got = evaluation.loss_table(model, loader(batches), RATIOS, moved, finish=finish)
    want = by_hand(build, batches, lambda network, batch: network(batch), matrices(model))
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert want[:, -1].mean() > 0.05


def test_the_callers_batches_are_left_alone():
    batches = [{"x": X[:10], "shift": 0.5}, {"x": X[10:20], "shift": 0.5}]
    evaluation.loss_table(Popped(), DataLoader(batches, batch_size=None), RATIOS, moved)
    assert [sorted(batch) for batch in batches] == [["shift", "x"]] * 2


def test_selective_classification_sees_the_same_batch():
    data = loader(rows(lambda x: {"x": x, "shift": 0.5}))
    plain = selective.calibrate(Net(), X + 0.5, changed, alpha=0.9, delta=0.5, ratios=RATIOS, thresholds=[0.5, 0])
    got = selective.calibrate(Popped(), data, changed, alpha=0.9, delta=0.5, ratios=RATIOS, thresholds=[0.5, 0])
    np.testing.assert_array_equal(got.p_values, plain.p_values)


def changed(pruned, full, target):
    return pruned.argmax(1) != full.argmax(1)


class Held:
    """A batch that cannot be copied."""

    def __init__(self, x):
        self.x, self.stream = x, (v for v in [1])


def test_a_batch_that_cannot_be_copied_is_refused_by_name():
    with pytest.raises(TypeError, match=r"data: a Held cannot be copied.*generator"):
        evaluation.loss_table(Remembered(), loader(rows(Held)), RATIOS, moved)


class Movable(Graph):
    """Moves itself, as batches of graphs and of tokens do."""

    def to(self, device):
        self.x = self.x.to(device)
        return self


def test_whatever_can_be_moved_is_moved_and_the_callers_stays():
    far, given = torch.device("meta"), {"graph": Movable(X), "names": ["a"], "rest": (X, pack_sequence([X[0], X[1]]))}
    got = nested.moved(given, far)
    assert {tensor.device.type for tensor in nested.tensors((got["graph"], got["rest"][0]))} == {"meta"}
    assert got["rest"][1].data.is_meta and not got["rest"][1].batch_sizes.is_meta  # which torch wants on the processor
    assert given["graph"].x is X and got["names"] == ["a"]


@pytest.fixture
def no_room(monkeypatch):
    """No memory for batches: a loader is read in each pass."""
    monkeypatch.setattr(engine_batches, "KEPT_SHARE", 0)
    monkeypatch.setattr(engine_batches, "KEPT_UNKNOWN", 0)


OTHERS = {
    "UserDict": (Popped, lambda x: Dressed(x=x)),
    "object": (Remembered, Graph),
    "slots": (Filled, Slots),
    "queue": (Taken, lambda x: collections.deque([x])),
    "array of objects": (Boxed, lambda x: [np.array([row.tolist() for row in x] + [None], dtype=object)]),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_examples_in_any_wrapping_are_noticed(case, no_room):
    model, wrap = OTHERS[case]

    class Restless(torch.utils.data.IterableDataset):
        turn = 0

        def __iter__(self):
            Restless.turn += 1
            return iter([wrap(X.roll(Restless.turn, 0))])

    with pytest.raises(ValueError, match="second pass"):
        list(evaluation.loss_columns(model(), DataLoader(Restless(), batch_size=None), RATIOS, moved))


def test_other_texts_are_noticed(no_room):
    class Restless(torch.utils.data.IterableDataset):
        turn = 0

        def __iter__(self):
            Restless.turn += 1
            return iter([words(X.roll(Restless.turn, 0))])

    with pytest.raises(ValueError, match="second pass"):
        list(evaluation.loss_columns(Texts(), DataLoader(Restless(), batch_size=None), RATIOS, moved))


# What is input and what is target


class Two(Net):
    def forward(self, x, shift):
        return self.body(x + shift)


class Answers(Net):
    def forward(self, x=None, shift=0.0, labels=None):
        return {"scores": self.body(x + shift), "loss": None}


LABELS = torch.arange(40) % 3
SHIFT = torch.linspace(0, 1, 40)[:, None]


def both(model, batch):
    return model(*batch[:2])


def wrong(pruned, full, target):
    return pruned.argmax(1) != target


HOOKS = {
    "two inputs": (Two, (X, SHIFT), dict(call=both, target=lambda batch: None), moved),
    "two inputs and labels": (Two, (X, SHIFT, LABELS), dict(call=both, target=lambda batch: batch[2]), wrong),
    "a dict of tensors": (
        Answers,
        dict(x=X, shift=SHIFT, labels=LABELS.numpy()),
        dict(call=lambda model, batch: model(**batch)["scores"], target=lambda batch: batch["labels"], batch_size=7),
        wrong,
    ),
    "a dict of tensors, and labels": (
        Answers,
        (Dressed(x=X, shift=SHIFT), LABELS),
        dict(call=lambda model, batch: model(**batch)["scores"], batch_size=7),
        wrong,
    ),
    "labels inside": (
        Answers,
        DataLoader([dict(x=x, shift=s, labels=y) for x, s, y in zip(X, SHIFT, LABELS, strict=True)], batch_size=7),
        dict(call=lambda model, batch: model(**batch)["scores"], target=lambda batch: batch["labels"]),
        wrong,
    ),
    "an output that is picked": (Answers, (X + SHIFT, LABELS), dict(call=lambda m, x: m(x)["scores"]), wrong),
}


@pytest.mark.parametrize("way", ["table", "columns"])
@pytest.mark.parametrize("case", HOOKS)
def test_how_a_model_is_called_and_where_its_targets_are(case, way):
    build, data, hooks, loss = HOOKS[case]
    want = evaluation.loss_table(Net(), (X + SHIFT, LABELS), RATIOS, loss)
    if way == "table":
        got = evaluation.loss_table(build(), data, RATIOS, loss, **hooks)
    else:
        got = np.column_stack(list(evaluation.loss_columns(build(), data, RATIOS, loss, **hooks)))
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert want[:, -1].mean() > 0.05


def test_a_data_set_of_rows_by_name_is_read_as_one():
    class Rows:
        """What Hugging Face's data sets offer: rows by number, also several at once."""

        def __len__(self):
            return 40

        def __getitem__(self, k):
            return {"x": X[k], "labels": LABELS[k]}

        def __getitems__(self, numbers):
            return [self[k] for k in numbers]

    hooks = dict(call=lambda model, batch: model(batch["x"]), target=lambda batch: batch["labels"])
    want = evaluation.loss_table(Net(), (X, LABELS), RATIOS, wrong)
    np.testing.assert_array_equal(evaluation.loss_table(Net(), Rows(), RATIOS, wrong, **hooks), want)


@pytest.mark.parametrize("second", [torch.ones(40, 6), torch.ones(40, 6, dtype=torch.bool), torch.ones(40, 2)])
def test_a_second_input_that_is_taken_for_targets_is_warned_of(second):
    with pytest.warns(UserWarning, match=r"call=.*target="):
        evaluation.loss_table(Net(), (X, second), RATIOS, moved)


def test_targets_that_are_used_or_are_labels_are_not_warned_of():
    def distance(pruned, full, target):
        return (pruned.mean(1) - target[:, 0]).abs().clamp_max(1)

    evaluation.loss_table(Net(), (X, torch.ones(40, 6)), RATIOS, distance)
    evaluation.loss_table(Net(), (X, LABELS), RATIOS, moved)


@pytest.mark.parametrize("hooks", [{"call": "model"}, {"target": "labels"}])
def test_hooks_are_functions(hooks):
    with pytest.raises(TypeError, match=next(iter(hooks))):
        evaluation.loss_table(Net(), X, RATIOS, moved, **hooks)


# Layers of every kind


class Foreign(nn.Module):
    """A linear layer that torch does not know, as in GPT-2."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


class Experts(nn.Module):
    """A mixture whose experts are one tensor of three dimensions; each row goes to one of them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.experts, self.head = nn.Parameter(torch.randn(4, 6, 5)), nn.Linear(5, 3)

    def forward(self, x):
        chosen = (x.sum(1).abs() * 7).long() % 4
        return self.head(torch.einsum("bi,bio->bo", x, self.experts[chosen]))


class Heads(Net):
    """A head that eval mode leaves out."""

    def __init__(self):
        super().__init__()
        self.aux = nn.Linear(6, 1)

    def forward(self, x):
        return (self.body(x), self.aux(x)) if self.training else self.body(x)


class Half(Net):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.body(x).float()


class Lazily(nn.Linear):
    """Keeps a converted copy of its weight from the first call on."""

    kept = None

    def forward(self, x):
        if self.kept is None:
            self.kept = self.weight.detach().to(torch.float64)
        return nn.functional.linear(x.double(), self.kept).float() + self.bias


class Kept(Net):
    def __init__(self):
        super().__init__()
        self.second = Lazily(12, 3)


REGISTER = {}


class ByWeight(nn.Linear):
    """Keeps what it has converted in a register outside of the model."""

    def forward(self, x):
        if self.weight not in REGISTER:
            REGISTER[self.weight] = self.weight.detach().double()
        return nn.functional.linear(x.double(), REGISTER[self.weight]).float() + self.bias


class Registered(Net):
    def __init__(self):
        super().__init__()
        self.second = ByWeight(12, 3)


def seeded(build):
    def anew():
        torch.manual_seed(0)
        return build()

    return anew


class Noisy(Net):
    """Draws from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x):
        return self.body(x + torch.randn(x.shape, generator=self.generator) / 4)


class Counting(Noisy):
    """Writes into a weight at each call, too, so that the networks of a grid cannot share it."""

    def forward(self, x):
        with torch.no_grad():
            self.second.weight.mul_(1.5)
        return super().forward(x)


class Tied(nn.Module):
    """A decoder with the weights of its encoder; the ways below differ in how they are tied."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.code, self.back = nn.Linear(6, 12), nn.Linear(12, 6)
        self.tie()

    def tie(self):
        self.back.weight.data = self.code.weight.data.T

    def forward(self, x):
        return self.back(self.code(x).tanh())


class TiedParameter(Tied):
    def tie(self):
        self.back.weight = nn.Parameter(self.code.weight.T)


class TiedBuilt(Tied):
    """Copies itself in a way of its own."""

    def __deepcopy__(self, memo):
        other = type(self)()
        other.load_state_dict(self.state_dict())
        return other.train(self.training)


class Sliced(Tied):
    """Reads a weight, and a part of it through a tensor that lies in its memory."""

    def tie(self):
        self.half = self.code.weight.data[:6]

    def forward(self, x):
        return self.code(x)[:, :6].tanh() @ self.half


class Flat(Tied):
    """All parameters are parts of one tensor, with which it computes."""

    def tie(self):
        self.flat, at = torch.cat([p.data.flatten() for p in self.parameters()]), 0
        for p in self.parameters():
            p.data = self.flat[at : at + p.numel()].view(p.shape)
            at += p.numel()

    def forward(self, x):
        return (x @ self.flat[:72].view(12, 6).T).tanh() @ self.flat[84:156].view(6, 12).T


class Called(Net):
    """Is called by what `torch.func` takes: a dict of its weights, in their memory."""

    def __init__(self):
        super().__init__()
        self.inner = Net()
        self.taken = {name: p.detach() for name, p in self.inner.named_parameters()}
        del self.first, self.second

    def forward(self, x):
        return torch.func.functional_call(self.inner, self.taken, (x,))


class TiedConvolutions(nn.Module):
    turned = False

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)
        self.b.weight.data = self.a.weight.data.mT if self.turned else self.a.weight.data

    def forward(self, x):
        return self.b(self.a(x).tanh()).flatten(1)


class TiedTurned(TiedConvolutions):
    turned = True


class Typed(nn.Sequential):
    """Asks for the type of its layers."""

    def forward(self, x):
        for layer in self:
            x = layer(x) * (3 if type(layer) is nn.Linear else 1)
        return x


class Strided(nn.Module):
    """Takes its numbers from where they lie in memory if they lie row by row."""

    def __init__(self, first):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = first, nn.Linear(4, 3)

    def forward(self, x):
        y = self.first(x).tanh()
        return self.last(torch.as_strided(y, (len(x), 4), (y[0].numel(), 1)))


class Sloped(Net):
    """Gives the gradient of its output, as networks of energies and forces do."""

    def forward(self, x):
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone().requires_grad_()
            return torch.autograd.grad(self.body(x).exp().sum(), x)[0].detach()


LAYERS = {
    "foreign": (seeded(lambda: nn.Sequential(Foreign(6, 8), nn.ReLU(), Foreign(8, 3))), X, ["*.weight"]),
    "foreign and own": (seeded(lambda: nn.Sequential(Foreign(6, 8), nn.Tanh(), nn.Linear(8, 3))), X, ["0.weight"]),
    "experts": (Experts, X, ["experts", "head.weight"]),
    "unread head": (Heads, X, ["first.weight", "second.weight"]),
    "unread head, pruned": (Heads, X, None),
    "autocast inside": (Half, X, None),
    "kept inside": (Kept, X, None),
    "generator of its own": (Noisy, X, None),
    "writes its weights": (Counting, X, None),
    "kept outside": (Registered, X, None),
    "convolutions": (
        seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.Flatten())),
        X[:36].reshape(36, 1, 2, 3).repeat(1, 1, 2, 1),
        None,
    ),
    "tied through data": (Tied, X, None),
    "tied as a parameter": (TiedParameter, X, None),
    "tied where it is copied": (TiedBuilt, X, None),
    "a part of a weight in an attribute": (Sliced, X, None),
    "parts of one tensor": (Flat, X, None),
    "torch.func": (Called, X, None),
    "tied convolutions": (TiedConvolutions, X.view(40, 1, 2, 3), None),
    "tied convolutions, turned": (TiedTurned, X.view(40, 1, 2, 3), None),
    "asks for types": (seeded(lambda: Typed(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))), X, None),
    "gradients": (Sloped, X, None),
    "strides of a linear layer": (seeded(lambda: Strided(nn.Linear(6, 8))), X, None),
    "strides of a convolution": (seeded(lambda: Strided(nn.Conv2d(1, 4, 2))), X.view(40, 1, 2, 3), None),
    "spectral norm": (
        seeded(lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 12)), nn.Tanh(), nn.Linear(12, 3))),
        X,
        ["*_orig", "2.weight"],
    ),
    "attention": (
        seeded(lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)),
        X.view(20, 2, 6),
        None,
    ),
    "recurrent": (seeded(Packed), X.view(8, 5, 6), None),
    "weight norm left out": (
        seeded(lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3))),
        X,
        ["2.weight"],
    ),
    "scripted part left out": (
        seeded(lambda: nn.Sequential(torch.jit.script(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3))),
        X,
        None,
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:the model does not read", "ignore:The .grad attribute")
@pytest.mark.parametrize("case", LAYERS)
def test_layers_of_every_kind(case, unchanged):
    build, data, weights = LAYERS[case]
    model = build()
    with unchanged(model):
        got = evaluation.loss_table(model, data, RATIOS, moved, weights=weights, batch_size=9)
        one = evaluation.loss_table(model, data, RATIOS[2:3], moved, weights=weights, batch_size=9)
    batches = lambda: data.split(9)  # noqa: E731
    names = list(pruning.prunable(model, weights))
    want = by_hand(build, batches, lambda network, batch: network(batch), names)
    np.testing.assert_allclose(got, want, atol=2e-3 if case == "autocast inside" else 1e-5)
    np.testing.assert_allclose(one, want[:, 2:3], atol=2e-3 if case == "autocast inside" else 1e-5)
    assert want[:, -1].mean() > 0.05
    columns = evaluation.loss_columns(model, data, RATIOS, moved, weights=weights, batch_size=9)
    np.testing.assert_allclose(np.column_stack(list(columns)), got, atol=2e-3 if case == "autocast inside" else 1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_weights_in_torchscript_are_refused_by_name():
    part = nn.Sequential(torch.jit.script(nn.Linear(6, 8)), nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"0\.weight is in TorchScript"):
        evaluation.loss_table(part, X, RATIOS, moved, weights=["*.weight"])
    with pytest.raises(ValueError, match=r"RecursiveScriptModule"):
        evaluation.loss_table(torch.jit.script(nn.Linear(6, 3)), X, RATIOS, moved)


@pytest.mark.parametrize("conv", [False, True])
def test_deterministic_algorithms(conv):
    model = nn.Sequential(nn.Conv2d(1, 4, 2), nn.Flatten()) if conv else Net()
    data = X.view(40, 1, 2, 3) if conv else X
    want = evaluation.loss_table(model, data, RATIOS, moved)
    torch.use_deterministic_algorithms(True)
    try:
        np.testing.assert_array_equal(evaluation.loss_table(model, data, RATIOS, moved), want)
    finally:
        torch.use_deterministic_algorithms(False)


class Tally(nn.ReLU):
    calls = 0

    def forward(self, x):
        Tally.calls += 1
        return super().forward(x)


@pytest.mark.parametrize("first", [0.0, 0.1])
def test_a_grid_may_start_anywhere_and_shares_its_weights(first):
    Tally.calls = 0
    model = nn.Sequential(nn.Linear(6, 16), Tally(), nn.Linear(16, 3))
    evaluation.loss_table(model, X, [first, 0.5, 0.9], moved, batch_size=40)
    assert Tally.calls == 1 + 2 + 3 - (first == 0)  # full, a trial of columns, and each ratio that prunes something


def test_losses_of_bfloat16_and_none():
    got = evaluation.loss_table(Net(), X, RATIOS, lambda p, f, y: moved(p, f, y).bfloat16())
    np.testing.assert_allclose(got, evaluation.loss_table(Net(), X, RATIOS, moved), atol=1e-2)
    with pytest.raises(TypeError, match=r"loss.*None.*return"):
        evaluation.loss_table(Net(), X, RATIOS, lambda p, f, y: None)


def test_sparse_data_in_memory_are_refused():
    with pytest.raises(TypeError, match="inputs must be a dense tensor"):
        evaluation.loss_table(Net(), X.to_sparse(), RATIOS, moved)


def test_autocast_around_it():
    """Its cache keeps converted weights in torch before 2.11."""
    model = Net()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = evaluation.loss_table(model, X, RATIOS, lambda p, f, y: moved(p.float(), f.float(), y))
    np.testing.assert_allclose(got, evaluation.loss_table(model, X, RATIOS, moved), atol=0.05)
    assert np.ptp(got.mean(axis=0)) > 0.2


# What is large is not copied for each ratio


class Wide(Net):
    """Two large tables and a vocabulary."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(200, 200))
        self.table, self.words = torch.rand(40000), {f"word {k}": k for k in range(5000)}
        self.frozen = nn.Embedding(5000, 4)

    def forward(self, x):
        ids = torch.tensor([self.words[f"word {int(abs(v) * 100)}"] for v in x[:, 0]])
        return self.body(x) + self.table[ids][:, None] + self.seen[0, 0] + self.frozen(ids)[:, :3]


class Writing(Wide):
    """Writes to what is large, in batches that begin with a large number; the next batch would show it."""

    def __init__(self, where="seen", from_the=0.0):
        super().__init__()
        self.where, self.from_the = where, from_the

    def forward(self, x):
        out = super().forward(x)
        if x[0, 0] > self.from_the:
            if self.where == "words":
                self.words["word 0"] += 1
            elif self.where == "data":
                self.seen.data = self.seen + out.abs().mean()
            else:
                target = getattr(self, self.where)
                target = getattr(target, "weight", target)
                target.add_(out.abs().mean().detach())
        return out


def test_networks_share_what_is_large_and_not_what_is_small():
    model = Wide().eval()
    model.register_buffer("small", torch.zeros(3))
    order, given = pruning.global_order(model, None), pruning.twin(model)
    family = shared.Family(given, np.array(RATIOS), order, full=model)
    one, other = family.at(1), family.at(3)
    for name in ("seen", "table", "words"):
        assert getattr(one, name) is getattr(other, name) is getattr(model, name)
    for layer in ("frozen", "first"):
        assert one.get_submodule(layer).weight is other.get_submodule(layer).weight is model.get_submodule(layer).weight
    assert one.small is not other.small and not family.changed()
    assert model.first.weight.eq(0).any() and given.first.weight.ne(0).all()
    family.restore()
    assert torch.equal(model.first.weight, given.first.weight)
    one.words["word 0"] = 7
    assert "words" in family.changed()


@pytest.mark.parametrize("where", ["seen", "table", "words", "data", "frozen", "second"])
@pytest.mark.parametrize("late", [False, True])
def test_networks_that_write_to_what_is_large_are_right(where, late, unchanged):
    atol = 1e-4 if where == "second" else 1e-5  # weights that grow: outputs near 30, with the rounding of such
    x = X.clone()
    x[[0, 10, 20, 30], 0] = torch.tensor([0.1, 0.2, 0.6, 0.7])

    def build():
        return Writing(where, 0.5 if late else 0.0)

    model = build()
    with unchanged(model):
        got = evaluation.loss_table(model, x, RATIOS, moved, batch_size=10)
        columns = np.column_stack(list(evaluation.loss_columns(model, x, RATIOS, moved, batch_size=10)))
    names = list(pruning.prunable(model))
    want = by_hand(build, lambda: x.split(10), lambda network, batch: network(batch), names)
    np.testing.assert_allclose(got, want, atol=atol)
    np.testing.assert_allclose(columns, want, atol=atol)
    batches = DataLoader(x.split(10), batch_size=None)
    if late:  # the rows of the first batches were given already
        name = {"data": "seen", "second": "weights that are pruned"}.get(where, where)
        with pytest.raises(ValueError, match=rf"writes to .*{name}.*finish="):
            evaluation.loss_table(model, batches, RATIOS, moved)
        got = evaluation.loss_table(model, batches, RATIOS, moved, finish=lambda network: None)
    else:
        got = evaluation.loss_table(model, batches, RATIOS, moved)
    np.testing.assert_allclose(got, want, atol=atol)


class Shown(Net):
    """Gives, beside its output, a weight that is pruned."""

    def forward(self, x):
        return self.body(x), self.second.weight


@pytest.mark.parametrize(
    "evaluate", [evaluation.loss_table, lambda *a: np.column_stack(list(evaluation.loss_columns(*a)))]
)
def test_the_full_networks_answer_may_be_a_weight(evaluate):
    def zeros(pruned, full, target):
        return (full[1] - pruned[1]).ne(0).double().mean().expand(len(pruned[0]))

    model = Shown()
    want = [1 - float(pruning.prune(model, ratio).second.weight.ne(0).double().mean()) for ratio in RATIOS]
    np.testing.assert_allclose(evaluate(model, X, RATIOS, zeros), np.tile(want, (len(X), 1)))


def keeps_inputs(network, x):
    """Its state begins as the first batch, and is then written to."""
    if network.state is None:
        network.state = x
    else:
        network.state.mul_(0.5).add_(x)
    return network.body(x + network.state)


def keeps_outputs(network, x):
    """Adds to the outputs that it gave before."""
    network.state = network.body(x) if network.state is None else network.state.add_(network.body(x))
    return network.state


def writes_where_pruned(network, x):
    if network.state is not None and network.second.weight.eq(0).any():
        network.second.weight.mul_(1.5)
    network.state = True
    return network.body(x)


def rounds_for_a_call(network, x):
    weight = network.first.weight
    before = weight.clone()
    weight.copy_((weight * 8).round() / 8)
    output = network.body(x)
    weight.copy_(before)
    return output


def exchanges_for_a_call(network, x):
    weight = network.first.weight
    before, weight.data = weight.data, weight.data * 1.5
    output = network.body(x)
    weight.data = before
    return output


class Stateful(Net):
    """Does what a function says, and may keep something until the next batch."""

    def __init__(self, function):
        super().__init__()
        self.function, self.state = function, None

    def forward(self, x):
        return self.function(self, x)


@pytest.mark.parametrize(
    "function", [keeps_inputs, keeps_outputs, writes_where_pruned, rounds_for_a_call, exchanges_for_a_call]
)
def test_networks_that_write_to_what_they_keep_or_for_a_call_are_right(function, unchanged):
    def build():
        return Stateful(function)

    def again():
        return X.clone().split(10)

    def once():
        return DataLoader(again(), batch_size=None)

    model = build()
    want = by_hand(build, again, lambda network, batch: network(batch).clone(), ["first.weight", "second.weight"])
    with unchanged(model):
        got = [
            evaluation.loss_table(model, X, RATIOS, moved, batch_size=10),
            np.column_stack(list(evaluation.loss_columns(model, X, RATIOS, moved, batch_size=10))),
            evaluation.loss_table(model, once(), RATIOS, moved, finish=lambda network: None),
        ]
        if function in (keeps_inputs, writes_where_pruned):  # the rows of the first batch were given already
            with pytest.raises(
                ValueError, match=r"writes to (inputs that it has kept|weights that are pruned).*finish="
            ):
                evaluation.loss_table(model, once(), RATIOS, moved)
        else:
            got.append(evaluation.loss_table(model, once(), RATIOS, moved))
    for table in got:
        np.testing.assert_allclose(table, want, atol=1e-5)


class Whole(Net):
    """Gives all that a loss could write to."""

    def forward(self, x):
        return self.body(x), x, self.second.weight, self.second.bias


def test_a_loss_may_write_into_outputs_that_are_inputs_or_weights(unchanged):
    def erasing(pruned, full, target):
        losses = moved(pruned[0], full[0], target)
        for tensor in (*pruned, *full):
            tensor.zero_()
        return losses

    model, whole = Net(), Whole()
    want = evaluation.loss_table(model, X, RATIOS, moved, batch_size=10)
    with unchanged(whole):
        columns = np.column_stack(list(evaluation.loss_columns(whole, X, RATIOS, erasing, batch_size=10)))
        for got in (
            evaluation.loss_table(whole, X, RATIOS, erasing, batch_size=10),
            evaluation.loss_table(whole, X, RATIOS, erasing, batch_size=10, finish=lambda network: None),
            columns,
        ):
            np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("finish", [None, lambda network: None])
@pytest.mark.parametrize("name", ["first.weight", "second.weight", "second.bias"])
def test_a_model_that_changes_between_columns_is_refused(name, finish):
    model = Net()
    columns = evaluation.loss_columns(model, X, RATIOS, moved, finish=finish)
    next(columns)
    model.get_parameter(name).data[0] += 1
    with pytest.raises(ValueError, match="model has changed since loss_columns was called"):
        next(columns)


def test_gradients_may_be_asked_for_whatever_mode_the_caller_is_in():
    class Slope(Net):
        def forward(self, x):
            with torch.inference_mode(False), torch.enable_grad():
                at = x.clone().requires_grad_()
                return torch.autograd.grad(self.body(at).square().sum(), at)[0]

    model = Slope()
    want = evaluation.loss_table(model, X, RATIOS, moved)
    with torch.inference_mode():
        got = evaluation.loss_table(model, X, RATIOS, moved)
    np.testing.assert_array_equal(got, want)
    assert want[:, -1].mean() > 0.05


class Stubborn(nn.Linear):
    """Has a `__deepcopy__` that shares nothing with others."""

    def __deepcopy__(self, memo):
        other = Stubborn(self.in_features, self.out_features)
        other.load_state_dict(self.state_dict())
        return other


def test_networks_whose_copies_share_nothing_get_a_copy_a_ratio():
    def build():
        torch.manual_seed(0)
        return nn.Sequential(Stubborn(6, 12), nn.ReLU(), nn.Linear(12, 3))

    want = by_hand(build, lambda: [X], lambda network, batch: network(batch), ["0.weight", "2.weight"])
    np.testing.assert_allclose(evaluation.loss_table(build(), X, RATIOS, moved), want, atol=1e-5)
    assert want[:, -1].mean() > 0.05
