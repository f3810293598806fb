"""Structured orders against slow loops and torch; smaller networks against masked ones; seconds by a false clock."""

import collections
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from confprune_edu import models, pruning
from confprune_edu.calibration import calibrate
from confprune_edu.evaluation import loss_table
from confprune_edu.losses import disagreement

# by channel


class Attending(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 3, **options)


GROUPS = {  # a model, and for each entry of a weight what it goes with, in plain words
    "linear": (nn.Linear(4, 3), lambda name, place: place[0]),
    "convolution": (nn.Conv2d(4, 6, 3, groups=2), lambda name, place: place[0]),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), lambda name, place: place[1]),
    "transposed, grouped": (nn.ConvTranspose1d(4, 6, 3, groups=2), lambda name, place: (place[0] // 2, place[1])),
    "gru": (nn.GRU(3, 5, 2, bidirectional=True), lambda name, place: (name[len("weight_ih") :], place[0] % 5)),
    "lstm": (nn.LSTM(3, 5), lambda name, place: place[0] % 5),
    "cell": (nn.GRUCell(3, 5), lambda name, place: place[0] % 5),
    "attention": (Attending(), lambda name, place: place[1] // 2 if "out" in name else place[0] % 6 // 2),
    "attention, apart": (
        Attending(kdim=5, vdim=4),
        lambda name, place: place[1] // 2 if "out" in name else place[0] // 2,
    ),
    "several": (nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)), lambda name, place: (name, place[0])),
}


def places(weight):
    return np.ndindex(*weight.shape)


@pytest.mark.parametrize("case", GROUPS)
@pytest.mark.parametrize("custom", [False, True])
def test_every_weight_has_the_mean_score_of_its_group(case, custom):
    model, group = GROUPS[case]
    scores = (
        {n: torch.rand(w.shape) for n, w in pruning.prunable(model).items()} if custom else pruning.magnitude(model)
    )
    members = collections.defaultdict(list)
    for name, score in scores.items():
        for place in places(score):
            members[group(name, place)].append(float(score[place]))
    got = pruning.by_channel(model, scores if custom else None)
    assert list(got) == list(scores)
    for name, score in got.items():
        want = np.array([np.mean(members[group(name, place)]) for place in places(score)])
        np.testing.assert_allclose(score.numpy().ravel(), want, rtol=1e-6)


@pytest.mark.parametrize(
    "layer, dim", [(nn.Linear(7, 10), 0), (nn.Conv2d(3, 10, 3), 0), (nn.ConvTranspose2d(3, 10, 2), 1)]
)
@pytest.mark.parametrize("channels", [0, 1, 4, 9])
def test_whole_channels_go_as_torch_has_them_go(layer, dim, channels):
    pruned = pruning.prune(layer, channels / 10, pruning.by_channel(layer))
    torch_prune.ln_structured(layer, "weight", amount=channels, n=1, dim=dim)
    assert torch.equal(pruned.weight, layer.weight)
    torch_prune.remove(layer, "weight")


@pytest.mark.parametrize("ratio", [0.1, 0.33, 0.5, 0.77])
def test_at_most_one_group_is_cut_in_part(ratio):
    model = models.load("mnist-cnn")
    pruned = pruning.prune(model, ratio, pruning.by_channel(model))
    cut = 0
    for name, weight in pruning.prunable(model).items():
        before, left = (w.flatten(1) != 0 for w in (weight, pruned.get_parameter(name)))
        cut += int(((before & ~left).any(1) & left.any(1)).sum())
    assert cut <= 1


# blocks


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("custom", [False, True])
def test_at_k_of_m_exactly_so_many_of_each_block_go_the_smallest(m, custom):
    model = nn.Sequential(nn.Linear(8, 5), nn.Conv2d(4, 2, 2))
    scores = (
        {n: torch.rand(w.shape) for n, w in pruning.prunable(model).items()} if custom else pruning.magnitude(model)
    )
    order = pruning.blockwise(model, scores if custom else None, m=m)
    for k in range(m):
        pruned = pruning.prunable(pruning.prune(model, k / m, order))
        for name, weight in pruned.items():
            rows = zip(weight.flatten(1).tolist(), scores[name].flatten(1).tolist(), strict=True)
            for row, score in rows:
                for i in range(0, len(row), m):
                    first = sorted(range(i, i + m), key=lambda j, score=score: score[j])[:k]
                    assert [j for j in range(i, i + m) if row[j] == 0] == sorted(first)


def test_of_equal_places_the_smaller_scores_go_first_over_the_network():
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(4, 2))
    scores = {n: torch.rand(w.shape) for n, w in pruning.prunable(model).items()}
    order = pruning.blockwise(model, scores)
    least = sorted((float(row.min()), name, i) for name, s in scores.items() for i, row in enumerate(s))[:2]
    pruned = pruning.prune(model, 2 / 16, order)
    gone = {(n, i) for n, w in pruning.prunable(pruned).items() for i, row in enumerate(w) if (row == 0).any()}
    assert gone == {(name, i) for _, name, i in least}


def test_blocks_that_do_not_fit_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^0\.weight has 6 weights in a row, no multiple of 4"):
        pruning.blockwise(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 4)))
    with pytest.raises(ValueError, match=r"^m must be an integer from 2"):
        pruning.blockwise(nn.Linear(4, 4), m=1)
    with pytest.raises(ValueError, match=r"^scores must have the names"):
        pruning.by_channel(nn.Linear(4, 4), {})


# smaller networks


def kept(small, full, inputs):
    """Which outputs of a layer are left, when these of its inputs are: rows with the same weights."""
    rows = {tuple(row.flatten().tolist()): i for i, row in enumerate(full.weight[:, inputs])}
    assert len(rows) == len(full.weight)
    return [rows[tuple(row.flatten().tolist())] for row in small.weight]


def silence(layer, outputs):
    """Zero all outputs of a layer but these."""
    gone = [i for i in range(len(layer.weight)) if i not in outputs]
    for parameter in layer.parameters(recurse=False):
        parameter.data[gone] = 0


def mask_mlp(full, small):
    hidden = kept(small.hidden1, full.hidden1, range(784))
    silence(full.hidden1, hidden)
    silence(full.hidden2, kept(small.hidden2, full.hidden2, hidden))


def mask_cnn(full, small):
    first = kept(small[0], full[0], [0])
    second = kept(small[3], full[3], first)
    for layer, outputs in (
        (0, first),
        (3, second),
        (7, kept(small[7], full[7], [49 * c + i for c in second for i in range(49)])),
    ):
        silence(full[layer], outputs)


def mask_unet(full, small):
    """Along the encoder, down to the bottom, and up again, where the outputs of an encoder's block come second."""

    def double(block, smaller, inputs):
        for at in (0, 3):
            inputs = kept(smaller[at], block[at], list(inputs))
            silence(block[at], inputs)
            silence(block[at + 1], inputs)
        return inputs

    skips, left = [], range(3)
    for block, smaller in zip(full.encoder, small.encoder, strict=True):
        left = double(block, smaller, left)
        skips.append((left, len(block[3].weight)))
    below = skips.pop()
    for block, smaller in zip(full.decoder, small.decoder, strict=True):
        inputs = [*below[0], *(i + below[1] for i in skips.pop()[0])]
        below = double(block, smaller, inputs), len(block[3].weight)


NETWORKS = {
    "mnist-mlp": (mask_mlp, (3, 1, 28, 28), ["output"]),
    "mnist-cnn": (mask_cnn, (3, 1, 28, 28), ["9"]),
    "polyp-unet": (mask_unet, (2, 3, 32, 32), ["head"]),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5])
def test_the_smaller_network_computes_what_the_masked_one_does(name, ratio, unchanged):
    mask, shape, last = NETWORKS[name]
    model, inputs = models.load(name), torch.rand(shape)
    with unchanged(model):
        small = pruning.channels_removed(inputs[:1], keep=last)(model, ratio)
    masked = models.load(name)
    with torch.no_grad():
        mask(masked, small)
        want, got = masked(inputs), small(inputs)
        assert torch.allclose(want, got, atol=1e-4 * float(want.abs().max()))
        assert ratio == 0 or not torch.allclose(model(inputs), got, atol=1e-2)
    widths = [m.weight.shape[0] for m in small.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    before = [m.weight.shape[0] for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert widths == [int(w * (1 - ratio) + 1e-9) for w in before[:-1]] + before[-1:]
    assert type(small) is type(model)


def test_channels_removed_is_a_family(mlp, digits, unchanged, tmp_path):
    images = digits[0][:600]
    family = pruning.channels_removed(images[:1], keep=["output"])
    plan = dict(alpha=0.1, delta=0.1, ratios=[0.0, 0.1, 0.2, 0.4, 0.8])
    with unchanged(mlp):
        result = calibrate(mlp, images, disagreement, family=family, **plan)
    assert (result.criterion, result.knob) == ("channels_removed", "share of channels removed") and result.ratio > 0
    small = result.prune(mlp)
    keep = int(300 * (1 - result.ratio)), int(100 * (1 - result.ratio))
    assert result.parameters == [266_610, 785 * keep[0] + (keep[0] + 1) * keep[1] + (keep[1] + 1) * 10]
    want = (small(images).argmax(1) != mlp(images).argmax(1)).double().mean()
    assert result.loss_means[result.ratios == result.ratio] == pytest.approx(float(want), abs=1e-9)


def test_an_output_layer_that_loses_channels_is_refused(mlp, digits):
    family = pruning.channels_removed(digits[0][:1], keep=[])
    with pytest.raises(
        ValueError, match=r"^family must give networks whose outputs have the form .* \(20, 10\); at ratio 0.5"
    ):
        loss_table(mlp, digits[0][:20], [0.5], disagreement, family=family)
    with pytest.raises(TypeError, match=r"^keep must be a list of names"):
        pruning.channels_removed(digits[0][:1], keep="output")
    with pytest.raises(AttributeError, match="last"):
        pruning.channels_removed(digits[0][:1], keep=["last"])(mlp, 0.5)


@pytest.mark.filterwarnings("ignore:Unwrapped parameters")
@pytest.mark.parametrize("name, words", [("mnist-gru", "finds no channel"), ("mnist-vit", "does not run")])
def test_networks_that_cannot_be_followed_are_refused(name, words, unchanged):
    model, inputs = models.load(name), torch.rand(1, 1, 28, 28)
    with unchanged(model), pytest.raises(ValueError, match=f"^channels_removed: .* {words}"):
        pruning.channels_removed(inputs, keep=["output"])(model, 0.5)


def test_frozen_layers_stay_frozen(mlp, digits):
    mlp.hidden1.requires_grad_(False)
    small = pruning.channels_removed(digits[0][:1], keep=["output"])(mlp, 0.5)
    assert [p.requires_grad for p in small.parameters()] == [False, False, True, True, True, True]


# seconds


class Clock:
    now = 0.0


class Timed(nn.Linear):
    """A layer that takes its time, more of it in the first call and in the third."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        Clock.now += self.cost * {1: 100, 3: 7}.get(self.calls, 1)
        return super().forward(x)


def timed(cost):
    layer = Timed(4, 3)
    layer.cost = cost
    return layer


def test_seconds_are_the_median_of_repetitions_after_one_that_warms_up(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now)
    small, full = timed(0.5), timed(2.0)
    report = pruning.savings(small, torch.ones(2, 4), full=full, repetitions=5)
    assert (report.seconds, report.full_seconds) == (0.5, 2.0)
    assert str(report).endswith("A batch takes 500 ms, the full network's 2e+03 ms: 4.00 x as fast, here and now.")
    assert small.calls == full.calls == 0 and report.total.multiply_adds == 12


def test_seconds_need_inputs_and_are_not_measured_unasked():
    model = nn.Linear(4, 3)
    assert pruning.savings(model, torch.ones(2, 4)).seconds is None
    with pytest.raises(ValueError, match=r"^full: the two networks are timed on inputs"):
        pruning.savings(model, full=model)
    with pytest.raises(ValueError, match=r"^repetitions must be an integer of at least 1"):
        pruning.savings(model, torch.ones(2, 4), full=model, repetitions=0)
