"""Lesson 01: its exercises know right from wrong, and its pictures and its claims are what they say."""

import copy

import numpy as np
import pytest
import torch
from answers import right_and_wrong
from torch.nn.utils import prune as torch_prune

from confprune_edu import controls, plots, pruning, widgets


def mask(weights, ratio, *, size=np.abs, count=round, kind="stable"):
    """Another right form, with loops and lists; each part may be replaced by a wrong one."""
    entries = [(size(w), i, j) for i, layer in enumerate(weights) for j, w in enumerate(layer.ravel())]
    gone = sorted(entries, key=lambda e: e[0] if kind == "stable" else (e[0], -e[1], -e[2]))
    places = {(i, j) for _, i, j in gone[: count(ratio * len(entries))]}
    return [
        np.reshape([(i, j) in places for j in range(layer.size)], layer.shape).tolist()
        for i, layer in enumerate(weights)
    ]


def by_quantile(weights, ratio):
    threshold = np.quantile(np.concatenate([np.abs(w).ravel() for w in weights]), ratio)
    return [np.abs(w) < threshold for w in weights]


def in_torch(weights, ratio):
    parts = [torch.as_tensor(w) for w in weights]
    flat = torch.cat([w.abs().flatten() for w in parts])
    rank = flat.argsort(stable=True).argsort(stable=True)
    sizes = [w.numel() for w in parts]
    return [r.view(w.shape) < round(ratio * len(flat)) for r, w in zip(rank.split(sizes), parts, strict=True)]


def in_place(weights, ratio):
    for w in weights:
        np.abs(w, out=w)
    return mask(weights, ratio)


def unstable(weights, ratio):
    flat = np.concatenate([np.abs(w).ravel() for w in weights])
    gone = np.zeros(len(flat), dtype=bool)
    gone[np.argsort(flat)[: round(ratio * len(flat))]] = True
    parts = np.split(gone, np.cumsum([w.size for w in weights])[:-1])
    return [part.reshape(w.shape) for part, w in zip(parts, weights, strict=True)]


def last_of_many(weights, ratio):
    return mask(weights, ratio, kind="stable" if sum(w.size for w in weights) < 20 else "last")


def amounts(ratios):
    before = np.r_[0, ratios[:-1]]
    return (np.array(ratios) - before) / (1 - before)


def differences(ratios, divisor):
    return [(b - a) / divisor(a, b) for a, b in zip([0, *ratios], ratios, strict=False)]


def formula(rows, columns):
    zeros = (rows * columns + rows + 1) // 2 + 1
    return zeros if zeros <= rows * columns else None


def pays(rows, columns, size, at_equality=False):
    n = rows * columns
    return next((z for z in range(n + 1) if size(n - z) < 4 * n or (at_equality and size(n - z) == 4 * n)), None)


RIGHT = [
    ("global_mask", mask),
    ("global_mask", in_torch),
    ("global_mask", lambda ws, r: (np.array(m) for m in mask(ws, r))),
    ("global_mask", lambda ws, r: [np.array(m, dtype=int) for m in mask(ws, r)]),
    ("loop_amounts", amounts),
    ("loop_amounts", lambda ratios: (float(a) for a in amounts(ratios))),
    ("csr_break_even", formula),
]
WRONG = [
    ("global_mask", lambda ws, r: [~np.array(m) for m in mask(ws, r)], "True marks the weights that go"),
    ("global_mask", lambda ws, r: mask(ws, r, size=float), "the size of a weight is |w|"),
    ("global_mask", lambda ws, r: [np.array(mask([w], r)[0]) for w in ws], "one order for all layers"),
    ("global_mask", by_quantile, "exactly round"),
    ("global_mask", lambda ws, r: mask(ws, r, kind="last"), "the first by position"),
    ("global_mask", lambda ws, r: mask(ws, r, size=lambda w: (abs(w), w)), "whatever sign and layer"),
    ("global_mask", lambda ws, r: mask(ws, r, count=int), "do not cut off"),
    ("global_mask", lambda ws, r: mask(ws, r, count=lambda x: -int(-x // 1)), "not up"),
    ("global_mask", lambda ws, r: mask(ws, max(r, 0.25)), "ratio 0 removes nothing"),
    ("global_mask", lambda ws, r: [np.ravel(m) for m in mask(ws, r)], "has the shape of its weights"),
    ("global_mask", lambda ws, r: [np.transpose(m) for m in mask(ws, r)], "each mask has the shape of its weights"),
    ("global_mask", last_of_many, "kind='stable'"),
    ("global_mask", unstable, "kind='stable'"),
    ("global_mask", in_place, "leave the arguments as they were"),
    ("global_mask", lambda ws, r: mask(ws, r)[:1], "want 2 values"),
    ("loop_amounts", lambda ratios: ratios, "compound"),
    ("loop_amounts", lambda ratios: np.diff(ratios, prepend=0), "differences are shares of all weights"),
    ("loop_amounts", lambda ratios: differences(ratios, lambda a, b: b or 1), "not by the goal"),
    ("loop_amounts", lambda ratios: differences(ratios, lambda a, b: 1 - b), "not after it"),
    ("loop_amounts", lambda ratios: [ratios[-1]], "one amount a ratio"),
    ("loop_amounts", lambda ratios: 1 - amounts(ratios), "the share that stays"),
    ("loop_amounts", lambda ratios: [0.5] * len(ratios), "amount * (1 - reached)"),
    ("csr_break_even", lambda r, c: 1, "a single zero saves nothing"),
    ("csr_break_even", lambda r, c: r * c // 2 + 1, "rows + 1 pointers"),
    ("csr_break_even", lambda r, c: pays(r, c, lambda left: 8 * left + 4 * r), "one pointer more than rows"),
    ("csr_break_even", lambda r, c: pays(r, c, lambda left: 8 * left + 4 * (c + 1)), "not to columns"),
    (
        "csr_break_even",
        lambda r, c: pays(r, c, lambda left: 8 * left + 4 * r + 4, True),
        "CSR must be smaller",
    ),
    ("csr_break_even", lambda r, c: pays(r, c, lambda left: 4 * left + 4 * r + 4), "4 more for its column"),
    ("csr_break_even", lambda r, c: r * c - (formula(r, c) or 0), "not the weights that are left"),
    ("csr_break_even", lambda r, c: (r * c + r + 1) // 2 + 1, "the answer is None"),
    ("csr_break_even", lambda r, c: None, "is there a return"),
    ("csr_break_even", lambda r, c: 10**6, "compare the two sizes"),
]
(
    test_right_answers_are_accepted,
    test_wrong_answers_are_refused_by_name,
    test_every_misconception_of_a_checker_is_told_to_somebody,
) = right_and_wrong(RIGHT, WRONG)


def test_the_amounts_make_torch_reach_the_ratios_and_the_ratios_themselves_do_not():
    ratios = [0.1, 0.2, 0.3]
    for steps, reached in ((amounts(ratios), ratios), (ratios, [0.1, 0.28, 0.496])):
        layer = torch.nn.Linear(100, 100)
        for amount, want in zip(steps, reached, strict=True):
            torch_prune.l1_unstructured(layer, "weight", amount=amount)
            assert (layer.weight == 0).float().mean().item() == pytest.approx(want, abs=1e-4)


def test_the_break_even_is_that_of_the_package():
    layer = torch.nn.Linear(10, 100)
    zeros = formula(100, 10)
    for count, smaller in ((zeros - 1, False), (zeros, True)):
        total = pruning.savings(pruning.prune(layer, count / 1000)).total
        assert total.nonzero == 1000 - count and (total.csr < total.dense) is smaller


def arrays(model):
    return {name: weight.detach().numpy() for name, weight in pruning.prunable(model).items()}


def test_the_histograms_say_how_many_weights_are_almost_zero(mlp):
    picture = plots.weight_histograms(arrays(mlp))
    flat = np.concatenate([np.abs(w).ravel() for w in arrays(mlp).values()])
    assert f"{(flat < 1e-8).mean():.1%} of them are smaller than 1e-08" in picture.alt
    assert all(sum(bar.get_height() for bar in ax.patches) == len(flat) for ax in picture.axes)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.9, 0.999])
def test_the_threshold_picture_shows_what_the_package_prunes(mlp, ratio):
    picture = plots.weights_and_threshold(plots.sort_weights(arrays(mlp)), ratio)
    pruned = arrays(pruning.prune(mlp, ratio))
    assert f"the {sum((w == 0).sum() for w in pruned.values())} smallest of 266200" in picture.alt
    assert all(f"{(w == 0).mean():.1%} of {name}" in picture.alt for name, w in pruned.items())
    kept, everything = (patch.get_data() for patch in picture.axes[0].patches)
    assert everything.values.sum() == 266200
    assert kept.values.sum() == sum((w != 0).sum() for w in pruned.values())
    assert picture.png()


def test_the_maps_count_pixels_without_weights():
    maps = np.zeros((2, 4, 4))
    maps[1, 1:3, 1:3] = 5
    picture = plots.pixel_maps(maps, ["none", "middle"], unit="weights", title="t")
    assert "none: 100.0% of the pixels have none, at most 0" in picture.alt
    assert "middle: 75.0% of the pixels have none, at most 5" in picture.alt


def test_the_explorer_draws_once_without_a_reader(mlp, monkeypatch):
    shown = []
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")
    monkeypatch.setattr(controls, "display", shown.append)
    widgets.weights_and_threshold(arrays(mlp))
    widgets.weights_and_threshold(arrays(mlp), 0.995)
    assert [picture.alt.partition(" the ")[0] for picture in shown] == ["At ratio 0.9", "At ratio 0.995"]


def test_the_explorer_sorts_once_for_all_moves(mlp, monkeypatch):
    sorts, sort = [], plots.sort_weights
    monkeypatch.setattr(plots, "sort_weights", lambda weights: sorts.append(1) or sort(weights))
    monkeypatch.setattr(widgets, "explore", lambda draw, **controls: [draw(ratio=r) for r in (0.1, 0.5, 0.9)])
    widgets.weights_and_threshold(arrays(mlp))
    assert sorts == [1]


def rescaled(model, factor):
    twin = copy.deepcopy(model)
    twin.hidden1.weight.data *= factor
    twin.hidden1.bias.data *= factor
    twin.hidden2.weight.data /= factor
    return twin


def test_the_twin_computes_the_same_function_and_its_second_layer_goes_first(mlp, digits):
    twin = rescaled(mlp, 1024)
    with torch.inference_mode():
        assert torch.allclose(twin(digits[0]), mlp(digits[0]), rtol=1e-5, atol=1e-5)
    zeros = {name: (w == 0).mean() for name, w in arrays(pruning.prune(twin, 0.3)).items()}
    assert zeros["hidden2.weight"] > 0.9 > 0.3 > zeros["hidden1.weight"]


def test_ranks_within_layers_prune_each_layer_alike_also_in_the_twin(mlp):
    for model in (mlp, rescaled(mlp, 1024)):
        scores = {
            name: s.flatten().argsort(stable=True).argsort().view_as(s) / s.numel()
            for name, s in pruning.magnitude(model).items()
        }
        for w in arrays(pruning.prune(model, 0.9, scores)).values():
            assert abs((w == 0).sum() - 0.9 * w.size) <= 1


def test_blank_pixels_lose_their_weights_first(mlp, digits):
    blank = (digits[0] == 0).all(dim=0).flatten().numpy()
    survive = arrays(pruning.prune(mlp, 0.5))["hidden1.weight"] != 0
    assert survive[:, blank].mean() < 0.01 < 0.5 < survive[:, ~blank].mean()
