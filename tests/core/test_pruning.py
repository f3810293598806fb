"""Masks against torch.nn.utils.prune and by hand: how many weights go, which, in which layers, and what stays."""

import copy
import random
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn
from torch.nn.utils import parametrizations, prune as torch_prune
from torch.utils.flop_counter import FlopCounterMode

from confprune_edu import pruning
from confprune_edu.pruning import copies

RATIOS = [0, 0.001, 0.1, 0.25, 0.285, 0.29, 0.333, 0.5, 0.57, 0.58, 0.7, 0.75, 0.9, 0.99, 0.999]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def conv_net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 6, 2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(6 * 49, 3),
    )


def flat(model):
    """All prunable weights of a model, in order."""
    return torch.cat([w.detach().flatten() for w in pruning.prunable(model).values()])


def zeros(model):
    return int((flat(model) == 0).sum())


# How many and which


@pytest.mark.parametrize("weights", [2, 3, 5, 7, 64, 100, 1000])
@pytest.mark.parametrize("ratio", RATIOS)
def test_exactly_round_of_ratio_times_n(weights, ratio):
    pruned = pruning.prune(nn.Linear(weights, 1), ratio)
    assert zeros(pruned) == round(ratio * weights)
    assert pruning.sparsity(pruned) == round(ratio * weights) / weights


@pytest.mark.parametrize("ratio", [*RATIOS, np.float32(0.5), np.float64(0.3), 0])
def test_masks_are_those_of_torch_on_the_shipped_network(mlp, ratio):
    pruned = pruning.prune(mlp, ratio)
    torch_prune.global_unstructured(
        [(layer, "weight") for layer in mlp.children()], torch_prune.L1Unstructured, amount=float(ratio)
    )
    for layer, own in zip(mlp.children(), pruned.children(), strict=True):
        assert torch.equal(own.weight, layer.weight) and torch.equal(own.bias, layer.bias)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9, 0.99])
def test_masks_are_those_of_torch_on_a_convolution_network(ratio):
    model = conv_net()
    pruned = pruning.prune(model, ratio)
    torch_prune.global_unstructured([(model[i], "weight") for i in (0, 3, 6)], torch_prune.L1Unstructured, amount=ratio)
    assert all(torch.equal(pruned[i].weight, model[i].weight) for i in (0, 3, 6))


def test_the_order_is_global_and_not_layer_by_layer():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3))
    nn.init.constant_(model[0].weight, 100)
    pruned = pruning.prune(model, 0.5)
    assert (pruned[0].weight == 0).sum() == 0 and (pruned[1].weight == 0).all()


def test_equal_weights_go_by_position():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 40))
    for layer in model:
        nn.init.constant_(layer.weight, -0.5)
    for ratio in RATIOS:
        gone = flat(pruning.prune(model, ratio)) == 0
        assert gone[: round(ratio * 132)].all() and not gone[round(ratio * 132) :].any()


def test_nested():
    model, before = conv_net(), None
    for pruned in pruning.family(model, [0, 0.2, 0.21, 0.5, 0.8, 0.99]):
        gone = flat(pruned) == 0
        assert before is None or gone[before].all()
        assert torch.equal(flat(pruned)[~gone], flat(model)[~gone])
        before = gone


def test_pruning_again_from_the_original_does_not_compound():
    model = nn.Linear(10, 10)
    assert [zeros(pruning.prune(model, r)) for r in (0.1, 0.2, 0.3)] == [10, 20, 30]
    assert [zeros(m) for m in pruning.family(model, [0.1, 0.2, 0.3])] == [10, 20, 30]
    assert torch.equal(flat(pruning.prune(model, 0.3)), flat(next(pruning.family(model, [0.3]))))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(dtype):
    model = conv_net().to(dtype)
    pruned = pruning.prune(model, 0.5)
    assert zeros(pruned) == round(0.5 * len(flat(model))) and pruned[0].weight.dtype == dtype
    ranked = sorted((abs(value), i) for i, value in enumerate(flat(model).tolist()))
    want = {i for _, i in ranked[: zeros(pruned)]}
    assert set((flat(pruned) == 0).nonzero().flatten().tolist()) == want


# Scores


def test_magnitude_is_the_absolute_value():
    model = conv_net()
    scores = pruning.magnitude(model)
    assert list(scores) == list(pruning.prunable(model)) == ["0.weight", "3.weight", "6.weight"]
    assert all(torch.equal(scores[f"{i}.weight"], model[i].weight.abs()) for i in (0, 3, 6))
    assert not any(score.requires_grad for score in scores.values())


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8]
)
def test_custom_scores_rule_with_ties_by_position(dtype):
    model = conv_net()
    scores = {name: torch.randint(0, 50, w.shape).to(dtype) for name, w in pruning.prunable(model).items()}
    ranked = [(score, i) for i, score in enumerate(torch.cat([s.flatten() for s in scores.values()]).tolist())]
    for ratio in (0.2, 0.5, 0.9):
        want = {i for _, i in sorted(ranked)[: round(ratio * len(ranked))]}
        gone = flat(pruning.prune(model, ratio, dict(reversed(scores.items())))) == 0
        assert set(gone.nonzero().flatten().tolist()) == want


def test_large_integer_and_infinite_scores_keep_their_order():
    layer = nn.Linear(4, 1)
    big = {"weight": torch.tensor([[2**60 + 3, 2**60 + 1, 2**60 + 2, 2**60]])}
    assert (pruning.prune(layer, 0.5, big).weight == 0).tolist() == [[False, True, False, True]]
    infinite = {"weight": torch.tensor([[torch.inf, 1.0, -torch.inf, 0.0]])}
    assert (pruning.prune(layer, 0.5, infinite).weight == 0).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("1.weight"),
        lambda s: s.update({"1.bias": torch.ones(2)}),
        lambda s: s.update({"1.weight": torch.ones(3, 2)}),
        lambda s: s.update({"1.weight": torch.tensor(1.0)}),
        lambda s: s["1.weight"].fill_(torch.nan),
        lambda s: s.clear(),
    ],
    ids=["missing", "unknown", "shape", "scalar", "NaN", "empty"],
)
def test_scores_that_do_not_fit_are_refused(change):
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    scores = pruning.magnitude(model)
    change(scores)
    with pytest.raises(ValueError, match="scores"):
        pruning.prune(model, 0.5, scores)


@pytest.mark.parametrize("scores", [[torch.ones(3, 4)], {"weight": np.ones((3, 4))}, torch.ones(3, 4)])
def test_scores_of_another_type_are_refused_by_name(scores):
    with pytest.raises((TypeError, ValueError), match="scores"):
        pruning.prune(nn.Linear(4, 3), 0.5, scores)


def test_nan_weights_are_refused():
    model = nn.Linear(3, 3)
    nn.init.constant_(model.weight, torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        pruning.prune(model, 0.5)


@pytest.mark.parametrize("ratio", [1, 1.0, 2, -0.1, float("nan"), float("inf"), np.float64(1)])
def test_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(ValueError, match="ratio"):
        pruning.prune(nn.Linear(3, 3), ratio)


@pytest.mark.parametrize("ratio", ["0.5", True, None, [0.5], np.True_])
def test_ratio_that_is_no_number_is_refused(ratio):
    with pytest.raises(TypeError, match="ratio"):
        pruning.prune(nn.Linear(3, 3), ratio)


@pytest.mark.parametrize("ratios", [[], [0.5, 0.2], [0.2, 0.2], [0.2, 1.0], [-0.1], [[0.2]], [float("nan")]])
def test_family_refuses_a_bad_grid_at_once(ratios):
    with pytest.raises(ValueError, match="ratios"):
        pruning.family(nn.Linear(3, 3), ratios)


# The original


def test_original_is_untouched(unchanged):
    model = conv_net().train()
    model[6].weight.requires_grad_(False)
    model(torch.ones(2, 1, 8, 8)).sum().backward()
    with unchanged(model):
        pruned = pruning.prune(model, 0.5)
        pruning.magnitude(model)["0.weight"].zero_()
        pruning.sparsity(model)
        pruning.savings(model, torch.ones(2, 1, 8, 8))
        nn.init.zeros_(pruned[0].weight)
        pruned[1].running_mean.add_(1)


def test_savings_leave_the_inputs_of_a_network_that_writes_into_them():
    model, inputs = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)), -torch.ones(4, 3)
    pruning.savings(model, inputs, full=model, repetitions=1)
    assert (inputs == -1).all()


@pytest.mark.parametrize("mode", [True, False])
def test_copy_keeps_training_mode_and_flags(mode):
    model = conv_net().train(mode)
    model[1].train(not mode)
    model[0].bias.requires_grad_(False)
    pruned = pruning.prune(model, 0.5)
    assert [m.training for m in pruned.modules()] == [m.training for m in model.modules()]
    assert [p.requires_grad for p in pruned.parameters()] == [p.requires_grad for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(pruned.buffers(), model.buffers(), strict=True))
    assert torch.equal(pruned[0].bias, model[0].bias) and torch.equal(pruned[1].weight, model[1].weight)


def test_pruned_copy_can_be_trained():
    pruned = pruning.prune(nn.Linear(4, 2), 0.5)
    pruned(torch.ones(1, 4)).sum().backward()
    assert pruned.weight.is_leaf and pruned.weight.grad is not None


# Which layers


@pytest.mark.parametrize(
    "module, names",
    [
        (nn.Linear(3, 2), ["weight"]),
        (nn.Bilinear(3, 4, 2), ["weight"]),
        (nn.Conv1d(2, 3, 2), ["weight"]),
        (nn.Conv2d(2, 4, 2, groups=2), ["weight"]),
        (nn.Conv3d(2, 3, 2), ["weight"]),
        (nn.ConvTranspose1d(2, 3, 2), ["weight"]),
        (nn.ConvTranspose2d(2, 3, 2), ["weight"]),
        (nn.ConvTranspose3d(2, 3, 2), ["weight"]),
        (nn.RNN(3, 4), ["weight_ih_l0", "weight_hh_l0"]),
        (nn.GRU(3, 4, 2), ["weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1"]),
        (
            nn.LSTM(3, 4, bidirectional=True),
            ["weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse", "weight_hh_l0_reverse"],
        ),
        (nn.LSTM(3, 4, proj_size=2), ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"]),
        (nn.RNNCell(3, 4), ["weight_ih", "weight_hh"]),
        (nn.GRUCell(3, 4), ["weight_ih", "weight_hh"]),
        (nn.LSTMCell(3, 4, bias=False), ["weight_ih", "weight_hh"]),
        (nn.MultiheadAttention(8, 2), ["in_proj_weight", "out_proj.weight"]),
        (
            nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True),
            ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"],
        ),
        (
            nn.TransformerEncoderLayer(8, 2, 16),
            ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"],
        ),
        (nn.Embedding(5, 3), []),
        (nn.EmbeddingBag(5, 3), []),
        (nn.Sequential(nn.BatchNorm1d(3), nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.PReLU(3), nn.RMSNorm(3)), []),
        (nn.LSTM(3, 4, 2).requires_grad_(False), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_prunable_weights(module, names):
    found = pruning.prunable(module)
    if names is None:
        names = [name for name, _ in module.named_parameters() if "weight" in name]
    assert list(found) == names
    assert all(found[name] is module.get_parameter(name) for name in names)


def test_prunable_weights_are_all_but_vectors_and_tables():
    model = nn.ModuleList([nn.Embedding(9, 8), nn.TransformerDecoderLayer(8, 2, 16), nn.GRU(3, 2, bidirectional=True)])
    expected = {name for name, p in model.named_parameters() if p.ndim > 1 and not name.startswith("0.")}
    assert set(pruning.prunable(model)) == expected


class Tied(nn.Module):
    def __init__(self, first, second, share):
        super().__init__()
        self.first, self.second = first, second
        if share == "parameter":
            self.second.weight = self.first.weight
        else:
            self.second.weight.data = self.first.weight.data

    def forward(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("share", ["parameter", "data"])
def test_shared_weights_count_once_and_stay_shared(share):
    model = Tied(nn.Linear(4, 4), nn.Linear(4, 4), share)
    assert list(pruning.prunable(model)) == ["first.weight"]
    pruned = pruning.prune(model, 0.5)
    assert pruning.sparsity(pruned) == 0.5
    assert torch.equal(pruned.first.weight, pruned.second.weight) and (pruned.second.weight == 0).sum() == 8
    assert pruning.savings(pruned, torch.ones(2, 4)).total.multiply_adds == 32


@pytest.mark.parametrize("share", ["parameter", "data"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_weight_shared_with_an_embedding_is_an_embedding(share, flip):
    layers = (nn.Linear(3, 5), nn.Embedding(5, 3)) if flip else (nn.Embedding(5, 3), nn.Linear(3, 5))
    model = nn.Sequential(Tied(*layers, share), nn.Linear(5, 4))
    assert list(pruning.prunable(model)) == ["1.weight"]
    pruned = pruning.prune(model, 0.9)
    assert pruned[0].first.weight.count_nonzero() == pruned[0].second.weight.count_nonzero() == 15
    assert pruned[1].weight.count_nonzero() == 2


def test_a_module_used_twice_counts_once():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    pruned = pruning.prune(model, 0.25)
    assert list(pruning.prunable(model)) == ["0.weight"]
    assert zeros(pruned) == 4 and pruned[0] is pruned[2]


def old_style(name):
    def wrap(module, weight="weight"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # superseded in torch, and still in use
            return getattr(nn.utils, name)(module, weight)

    return wrap


@pytest.mark.parametrize(
    "module, weight",
    [
        (old_style("weight_norm")(nn.Linear(3, 3)), "1.weight"),
        (old_style("weight_norm")(nn.LSTM(3, 3), "weight_hh_l0"), "1.weight_hh_l0"),
        (old_style("spectral_norm")(nn.Conv2d(3, 3, 3)), "1.weight"),
        (parametrizations.weight_norm(nn.Linear(3, 3)), "1.weight"),
        (parametrizations.spectral_norm(nn.Linear(3, 3)), "1.weight"),
        (parametrizations.weight_norm(nn.GRU(3, 3), "weight_ih_l0"), "1.weight_ih_l0"),
        (parametrizations.orthogonal(nn.MultiheadAttention(4, 2), "in_proj_weight"), "1.in_proj_weight"),
        (torch_prune.l1_unstructured(nn.Linear(3, 3), "weight", 2), "1.weight"),
        (nn.LazyLinear(3), "1.weight"),
        (nn.LazyConv2d(3, 2), "1.weight"),
        (nn.Linear(3, 3, device="meta"), "1.weight"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_weights_without_values_of_their_own_are_refused_by_name(module, weight):
    model = nn.Sequential(nn.Linear(3, 3), module)
    for refuse in (pruning.prunable, pruning.magnitude, pruning.sparsity, lambda m: pruning.prune(m, 0.5)):
        with pytest.raises(ValueError, match=weight.replace(".", r"\.")):
            refuse(model)


def test_a_mask_of_torch_that_was_made_permanent_is_accepted():
    layer = torch_prune.remove(torch_prune.l1_unstructured(nn.Linear(3, 3), "weight", 2), "weight")
    assert pruning.sparsity(layer) == 2 / 9 and zeros(pruning.prune(layer, 0.5)) == 4


def test_models_without_prunable_weights_are_refused():
    model = nn.Sequential(nn.Embedding(3, 3), nn.LayerNorm(3))
    assert pruning.prunable(model) == {}
    for refuse in (pruning.sparsity, pruning.savings, lambda m: pruning.prune(m, 0.5)):
        with pytest.raises(ValueError, match="no prunable weight"):
            refuse(model)


@pytest.mark.parametrize("model", [lambda x: x, nn.Linear, None, {"weight": torch.ones(2)}])
def test_what_is_no_module_is_refused(model):
    with pytest.raises(TypeError, match="model"):
        pruning.prunable(model)


# The zeros take effect


def by_hand(model, ratio):
    """The same architecture with the smallest matrix entries at zero: sort, write, load."""
    weights = {n: w.clone() for n, w in model.state_dict().items() if w.ndim > 1}
    order = sorted((abs(v), n, i) for n, w in weights.items() for i, v in enumerate(w.flatten().tolist()))
    for _, name, i in order[: round(ratio * len(order))]:
        weights[name].view(-1)[i] = 0
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict() | weights)
    return twin


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x)


@pytest.mark.parametrize(
    "model, size",
    [
        (nn.RNN(3, 4, 2), 3),
        (nn.GRU(3, 4, 2, bidirectional=True), 3),
        (nn.LSTM(3, 4, 2, bidirectional=True, dropout=0.5), 3),
        (SelfAttention(8, 2), 8),
        (SelfAttention(8, 2, kdim=8, vdim=8), 8),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 8),
    ],
    ids=lambda value: type(value).__name__,
)
def test_outputs_are_those_of_a_model_pruned_by_hand(model, size):
    x = torch.randn(5, 2, size)
    model.eval()
    with torch.inference_mode():
        full, own, twin = (m(x) for m in (model, pruning.prune(model, 0.6), by_hand(model, 0.6)))
    full, own, twin = (out[0] if isinstance(out, tuple) else out for out in (full, own, twin))
    assert torch.equal(own, twin) and not torch.allclose(own, full, atol=1e-3)


# Finish


def bn_statistics(model):
    """Re-estimate batch-norm statistics on random inputs, with dropout on: all of it draws random numbers."""
    model.train()
    for _ in range(3):
        model(torch.rand(8, 1, 8, 8) + np.random.rand() + random.random())  # noqa: NPY002
    model.eval()


def test_finish_is_reproducible_and_leaves_the_random_state(unchanged):
    model, ratios = conv_net(), [0.2, 0.5]
    with unchanged(model):
        first = list(pruning.family(model, ratios, finish=bn_statistics))
    torch.rand(3)
    np.random.rand(3), random.random()  # noqa: NPY002
    again = [next(pruning.family(model, [ratio], finish=bn_statistics)) for ratio in ratios]
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert not torch.equal(first[0][1].running_mean, model[1].running_mean)
    assert [zeros(m) for m in first] == [round(r * len(flat(model))) for r in ratios]


def test_finish_gets_a_copy_in_eval_mode_with_gradients_on():
    seen = []

    def finish(model):
        seen.append((model.training, torch.is_grad_enabled(), zeros(model)))
        model(torch.ones(1, 4)).sum().backward()
        with torch.no_grad():
            model.bias.sub_(model.bias.grad)

    model = nn.Linear(4, 2).train()
    bias = model.bias.tolist()
    with torch.no_grad():
        (pruned,) = pruning.family(model, [0.5], finish=finish)
    assert seen == [(False, True, 4)] and model.training and model.bias.tolist() == bias
    assert pruned.bias.tolist() == pytest.approx([b - 1 for b in bias], abs=1e-6)


@pytest.mark.parametrize("value", [1.0, 1e-30, torch.nan])
def test_finish_that_revives_a_pruned_weight_is_refused(value, unchanged):
    model = conv_net()

    def finish(pruned):
        torch.rand(1)
        pruned[6].weight.data[pruned[6].weight == 0] = value

    with unchanged(model), pytest.raises(ValueError, match="finish"):
        next(pruning.family(model, [0.9], finish=finish))


def test_finish_may_remove_more_weights():
    (pruned,) = pruning.family(nn.Linear(4, 4), [0.5], finish=lambda m: nn.init.zeros_(m.weight))
    assert pruning.sparsity(pruned) == 1


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_random_state_is_restored_when_finish_raises(problem, unchanged):
    def finish(pruned):
        torch.rand(1), np.random.rand(1), random.random()  # noqa: NPY002
        raise problem

    model = conv_net()
    with unchanged(model), pytest.raises(problem):
        next(pruning.family(model, [0.9], finish=finish))


# Savings


def test_savings_counts_bytes():
    model = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10).double())
    pruned = pruning.prune(model, 0.75)
    report = pruning.savings(pruned)
    assert [layer.name for layer in report.layers] == ["0.weight", "2.weight"]
    for layer, weight, size in zip(report.layers, (pruned[0].weight, pruned[2].weight), (4, 8), strict=True):
        left = sum(value != 0 for value in weight.flatten().tolist())
        assert (layer.weights, layer.nonzero, layer.dense) == (weight.numel(), left, weight.numel() * size)
        assert layer.csr == left * (size + 4) + 4 * (len(weight) + 1)
        assert layer.compressed == len(zlib.compress(weight.detach().numpy().tobytes()))
        assert layer.multiply_adds is layer.nonzero_multiply_adds is None
    assert report.total.weights == 800 and report.total.nonzero == 200 and report.total.dense == 600 * 4 + 200 * 8
    assert report.total.multiply_adds is None


def test_savings_csr_is_what_scipy_stores():
    pruned = pruning.prune(nn.Linear(50, 40), 0.9)
    csr = csr_array(pruned.weight.detach().numpy())
    assert pruning.savings(pruned).total.csr == csr.data.nbytes + csr.indices.nbytes + csr.indptr.nbytes


@pytest.mark.parametrize(
    "model, shape",
    [
        (nn.Linear(4, 3), (4,)),
        (nn.Linear(4, 3), (5, 4)),
        (nn.Conv1d(3, 5, 2), (3, 7)),
        (nn.Conv2d(4, 6, 3, groups=2, stride=2, padding=1, dilation=2), (4, 9, 8)),
        (nn.Conv3d(2, 3, 2), (2, 4, 3, 5)),
        (nn.ConvTranspose1d(2, 3, 4), (2, 5)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, output_padding=1), (4, 5, 6)),
        (conv_net().eval(), (1, 8, 8)),
        (nn.GRU(3, 4, 2, bidirectional=True, batch_first=True), (5, 3)),
        (nn.GRUCell(3, 4), (3,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_multiply_adds_are_those_of_torch(model, shape):
    x = torch.ones(2, *shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    total = pruning.savings(model, x).total
    assert total.multiply_adds == counter.get_total_flops() / 2 / len(x)
    assert total.nonzero_multiply_adds == total.multiply_adds


def test_multiply_adds_of_attention_by_hand():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    adds = {s.name: s.multiply_adds for s in pruning.savings(layer, torch.ones(2, 5, 8)).layers}
    assert adds == {
        "self_attn.in_proj_weight": 5 * 24 * 8,
        "self_attn.out_proj.weight": 5 * 8 * 8,
        "linear1.weight": 5 * 16 * 8,
        "linear2.weight": 5 * 8 * 16,
    }


def test_multiply_adds_count_only_weights_that_are_left():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 3))
    nn.init.constant_(model[0].weight, 10)
    pruned = pruning.prune(model, 0.5)  # 117 of 234, all in the linear layer
    total = pruning.savings(pruned, torch.ones(4, 1, 8, 8)).total
    assert (total.multiply_adds, total.nonzero_multiply_adds) == (18 * 36 + 216, 18 * 36 + 99)


def test_a_module_used_twice_multiplies_twice():
    layer = nn.Linear(4, 4)
    assert pruning.savings(nn.Sequential(layer, layer), torch.ones(2, 4)).total.multiply_adds == 32


def test_savings_says_that_a_mask_alone_shrinks_nothing():
    report = pruning.savings(pruning.prune(nn.Linear(100, 10), 0.9), torch.ones(1, 100))
    assert str(report) == repr(report)
    for words in ("mask alone shrinks nothing", "90.0%", "4,000 bytes", f"{report.total.csr / 4000:.2f} x"):
        assert words in str(report)


# Fingerprint


def test_fingerprint_sees_names_types_shapes_and_values():
    base = nn.Linear(4, 2)
    reshaped, renamed = nn.Linear(2, 4), nn.Sequential(nn.Linear(4, 2))
    reshaped.weight.data, reshaped.bias.data = base.weight.data.view(4, 2), base.bias.data
    renamed[0].load_state_dict(base.state_dict())
    twin = nn.Linear(4, 2)
    twin.load_state_dict(base.state_dict())
    assert pruning.fingerprint(twin) == pruning.fingerprint(base)
    others = [reshaped, renamed, twin.double(), nn.Linear(4, 2)]
    assert len({pruning.fingerprint(m) for m in (base, *others)}) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_order_is_that_of_a_stable_sort(dtype):
    generator = torch.Generator().manual_seed(0)
    scores = (torch.randn(5000, generator=generator) * 30).round().to(dtype)  # many ties
    if dtype.is_floating_point:
        special = [0.0, -0.0, float("inf"), float("-inf"), 1e-45, -1e-45, 1e-3, -1e-3, 6e4, -6e4]
        scores = torch.cat([scores, scores / 1000, torch.tensor(special * 3, dtype=dtype)])
    scores = scores[torch.randperm(len(scores), generator=generator)]
    order = pruning.global_order(nn.Linear(len(scores), 1), {"weight": scores[None]})
    values = scores.tolist()
    assert order.tolist() == sorted(range(len(values)), key=values.__getitem__)  # also stable; -0.0 is 0.0


def test_order_of_more_scores_than_are_looked_at_together():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(copies.CHUNK, 2), nn.Linear(2, 7), nn.Linear(1001, 3))
    scores = {
        k: torch.randn(w.shape, generator=generator).mul(1000).round() for k, w in pruning.prunable(model).items()
    }
    together = torch.cat([score.flatten() for score in scores.values()])
    order = pruning.global_order(model, scores)
    assert order.dtype == torch.int32
    assert torch.equal(order.long(), torch.argsort(together, stable=True))
    assert order.untyped_storage().nbytes() <= 4 * len(order) + 4  # the keys' other half is given back


@pytest.mark.parametrize("other", [torch.bfloat16, torch.float64, torch.int64])
def test_scores_of_several_dtypes_are_compared_by_value(other):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    scores = {"0.weight": torch.tensor([[0.5, -0.0, 3.0], [2.0, -1.0, 1.0]]).half()}
    scores["1.weight"] = torch.tensor([[0, 2], [-1, 3]]).to(other)
    assert pruning.global_order(model, scores).tolist() == [4, 8, 1, 6, 0, 5, 3, 7, 2, 9]


def test_the_default_order_is_that_of_magnitudes():
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last), nn.Linear(2, 2))
    model[0].half(), model[2].bfloat16()
    model[0].weight.data[0] = torch.tensor([0.0, -0.0, 0.25])
    assert torch.equal(pruning.global_order(model, None), pruning.global_order(model, pruning.magnitude(model)))


# Which weights, by the caller's word


class Foreign(nn.Module):
    """A linear layer that torch does not know, its weight (inputs, outputs), as GPT-2 has it."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


def mixed():
    layers = {"emb": nn.Embedding(7, 4), "body": Foreign(4, 6), "norm": nn.LayerNorm([3, 6]), "head": nn.Linear(6, 2)}
    nn.init.uniform_(layers["norm"].weight, -2, 2)
    return nn.Sequential(nn.ModuleDict(layers))


@pytest.mark.parametrize(
    "weights, names",
    [
        (None, ["0.head.weight"]),
        (["*.weight"], ["0.emb.weight", "0.body.weight", "0.norm.weight", "0.head.weight"]),
        (["*.body.*"], ["0.body.weight"]),
        (("*.head.weight", "0.body.weight"), ["0.body.weight", "0.head.weight"]),
        (lambda name, module, parameter: isinstance(module, (Foreign, nn.Linear)), ["0.body.weight", "0.head.weight"]),
        (lambda name, module, parameter: parameter.numel() > 20, ["0.emb.weight", "0.body.weight"]),
    ],
)
def test_the_caller_chooses_which_weights_may_go(weights, names):
    model = mixed()
    assert list(pruning.prunable(model, weights)) == list(pruning.magnitude(model, weights)) == names
    size = sum(model.get_parameter(name).numel() for name in names)
    pruned = pruning.prune(model, 0.5, weights=weights)
    assert pruning.sparsity(pruned, weights) == round(size / 2) / size
    for name, weight in model.named_parameters():
        assert torch.equal(pruned.get_parameter(name), weight) == (name not in names)
    assert [layer.name for layer in pruning.savings(pruned, weights=weights).layers] == names
    assert pruning.extent(pruned, weights)[:3] == (
        size,
        36 if weights is None else pruned_total(names),
        round(size / 2),
    )


def pruned_total(names):
    """The two layers, and what else was chosen."""
    return 36 + 28 * ("0.emb.weight" in names) + 18 * ("0.norm.weight" in names)


def test_multiply_adds_of_foreign_layers_are_not_known():
    class Both(nn.Sequential):
        def forward(self, x):
            return self[0].head(self[0].body(x))

    model = Both(*mixed().children())
    report = pruning.savings(model, torch.ones(2, 4), weights=["*.body.weight", "*.head.weight"])
    assert [layer.multiply_adds for layer in report.layers] == [None, 12] and report.total.multiply_adds is None


@pytest.mark.parametrize(
    "weights, problem, words",
    [
        (["*.wieght"], ValueError, r"weights.*\*\.wieght"),
        (["*.body.*", "0.body.bias"], ValueError, "0.body.bias"),
        ("*.weight", TypeError, "weights"),
        ([3], TypeError, "weights"),
        ([], TypeError, "weights"),
        (0.5, TypeError, "weights"),
        (lambda name, module, parameter: False, ValueError, "no prunable weight"),
    ],
)
def test_a_choice_of_no_weight_is_refused(weights, problem, words):
    with pytest.raises(problem, match=words):
        pruning.prune(mixed(), 0.5, weights=weights)


def test_a_weight_with_two_names_is_chosen_by_either():
    model = Tied(nn.Embedding(5, 5), nn.Linear(5, 5), "data")
    for pattern in ("first.*", "second.weight"):
        assert list(pruning.prunable(model, [pattern])) == ["first.weight"]
    shared = nn.Linear(4, 4)
    assert list(pruning.prunable(nn.Sequential(shared, nn.ReLU(), shared), ["2.weight"])) == ["0.weight"]


def test_layers_without_values_of_their_own_may_be_left_out():
    model = nn.Sequential(nn.Linear(3, 3), nn.LazyLinear(2), parametrizations.weight_norm(nn.Linear(3, 3)))
    assert list(pruning.prunable(model, ["0.weight"])) == ["0.weight"]
    assert pruning.extent(model, ["0.weight"]).left_out == {
        "2.parametrizations.weight.original0": 3,
        "2.parametrizations.weight.original1": 9,
    }
    assert pruning.sparsity(pruning.prune(model, 0.5, weights=["2.*.original1"]), ["2.*.original1"]) == 4 / 9


def test_extent_counts_what_is_left_out():
    found = pruning.extent(mixed())
    assert found == (12, 36, 0, {"0.body.weight": 24})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # superseded in torch, and still in use
        part = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), {"0"})
    assert pruning.extent(part) == (6, 18, 0, {"0.weight": 12})
    assert pruning.extent(Tied(nn.Embedding(5, 5), nn.Linear(5, 5), "data"), ["second.weight"]).matrix == 25


def test_a_model_without_prunable_weight_is_told_its_layers():
    with pytest.raises(ValueError, match=r"Foreign \(2\), LayerNorm \(1\).*weights="):
        pruning.prune(nn.Sequential(Foreign(2, 2), nn.ReLU(), Foreign(2, 2), nn.LayerNorm(2)), 0.5)


def test_a_parametrised_embedding_is_not_evaluated(unchanged):
    model = nn.Sequential(parametrizations.spectral_norm(nn.Embedding(6, 4)), nn.Linear(4, 3)).train()
    with unchanged(model):
        assert list(pruning.prunable(model)) == ["1.weight"]
        assert pruning.extent(model) == (12, 12, 0, {})


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused_by_name(dtype):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = nn.Parameter(torch.ones(3, 3).to(dtype), requires_grad=False)
    with pytest.raises(ValueError, match=r"1\.weight.*weights="):
        pruning.prunable(model)
    assert list(pruning.prunable(model, ["0.weight"])) == ["0.weight"]


# Models that cannot be copied


@pytest.mark.parametrize(
    "value",
    [threading.Lock(), (x for x in [1]), torch.ones(2, requires_grad=True) * 2],
    ids=["lock", "iterator", "graph"],
)
def test_what_cannot_be_copied_is_named(value):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].kept = value
    with pytest.raises(ValueError, match=rf"1\.kept, a {type(value).__name__}"):
        pruning.prune(model, 0.5)


@pytest.mark.parametrize("shares", ["model", "layer"])
def test_a_copy_that_shares_weights_is_refused(shares, unchanged):
    class Same(nn.Linear):
        def __deepcopy__(self, memo):
            return self

    model = Same(3, 3) if shares == "model" else nn.Sequential(nn.Linear(3, 3), Same(3, 3))
    with unchanged(model), pytest.raises(ValueError, match="shares"):
        pruning.prune(model, 0.5)
