"""Lesson 08: checkers, figures, the explorer, and what the prose says about the recorded orders."""

import numpy as np
import pytest
import torch
from answers import right_and_wrong

from confprune_edu import data, models, plots, pruning, pvalues, widgets
from confprune_edu.calibration import calibrate_losses, group_means
from confprune_edu.validation import ErrorRate, repeated_splits

# Exercises


def by_sorting(weights):
    order = np.argsort(np.abs(weights))
    squares = np.abs(weights)[order] ** 2.0
    left = np.cumsum(squares[::-1])[::-1]
    scores = np.empty(len(weights))
    scores[order] = squares / left
    return scores


def sorted_lamp(weights):
    return np.sort(by_sorting(weights))


def by_sign(weights):  # "larger" where it should be "larger in size"
    return np.array([w**2 / (weights[weights >= w] ** 2).sum() for w in weights])


def smaller_ones(weights):
    squares = weights**2
    return np.array([s / squares[squares <= s].sum() for s in squares])


def strictly_larger(weights):
    squares = weights**2
    return np.array([s / (squares[squares > s].sum() or s) for s in squares])


def looked(steps, counts=lambda name: True, later=True, among=lambda rows, own: bool(rows & own)):
    at = [name for name, _ in steps].index("calibrate")
    own = steps[at][1]
    early = {name for name, rows in steps[:at] if counts(name) and among(rows, own)}
    return early | ({name for name, _ in steps[at + 1 :]} if later else set())


def furthest(p, level, walk=lambda p, level: np.logical_and.accumulate(p <= level, axis=1)):
    reach = walk(p, level).sum(axis=1)
    k = int(reach.argmax())
    return (k, int(reach[k]) - 1) if reach[k] else None


def last_passing(p, delta):
    passed = [(j, -k) for k, row in enumerate(p) for j, q in enumerate(row) if q <= delta / len(p)]
    return (-max(passed)[1], max(passed)[0]) if passed else None


def last_of_the_furthest(p, delta):
    found = furthest(p[::-1], delta / len(p))
    return found and (len(p) - 1 - found[0], found[1])


def by_loops(p, delta):
    best = None
    for k, row in enumerate(p):
        for j, q in enumerate(row):
            if q > delta / len(p):
                break
            if best is None or j > best[1]:
                best = (k, j)
    return best


RIGHT = [
    ("lamp_scores", by_sorting),
    ("lamp_scores", lambda w: list(by_sorting(w))),
    ("peeking_steps", looked),
    ("peeking_steps", lambda steps: sorted(looked(steps))),
    ("best_order", by_loops),
    ("best_order", lambda p, delta: furthest(p, delta / len(p))),
]

WRONG = [
    ("lamp_scores", lambda w: w**2 / (w**2).sum(), "not by all of the layer"),
    ("lamp_scores", lambda w: np.abs(w), "1 / 5"),
    ("lamp_scores", lambda w: np.array([abs(x) / np.abs(w)[np.abs(w) >= abs(x)].sum() for x in w]), "squares, not"),
    ("lamp_scores", strictly_larger, "itself among those"),
    ("lamp_scores", smaller_ones, "divided by the sum of both"),
    ("lamp_scores", by_sign, "a sign does not matter"),
    ("lamp_scores", lambda w: by_sorting(w) if len(w) < 4 else sorted_lamp(w), "not sorted"),
    ("lamp_scores", lambda w: by_sorting(w) if np.abs(w).max() < 10 else by_sorting(w) * 2, "another unit"),
    ("lamp_scores", lambda w: by_sorting(w) if len(w) > 1 else np.zeros(1), "has score 1"),
    ("peeking_steps", lambda steps: {"train"}, "the answer is the empty set"),
    ("peeking_steps", lambda steps: looked(steps, among=lambda rows, own: own <= rows), "one calibration row"),
    ("peeking_steps", lambda steps: looked(steps, counts=lambda name: name != "batch norms"), "need no labels"),
    ("peeking_steps", lambda steps: looked(steps, later=False), "another network, however fresh"),
    (
        "peeking_steps",
        lambda steps: {name for name in looked(steps) if dict(steps)[name]},
        "without any data",
    ),
    (
        "peeking_steps",
        lambda steps: looked(steps, counts=lambda name: name != "choose the order"),
        "chosen by these rows",
    ),
    ("peeking_steps", lambda steps: set(sorted(looked(steps))[:1]), "name them all"),
    ("best_order", lambda p, delta: furthest(p, delta), "may spend delta / K"),
    ("best_order", lambda p, delta: furthest(p, delta / p.size), "need not share"),
    ("best_order", lambda p, delta: (0, 0), "(1, 1)"),
    ("best_order", lambda p, delta: furthest(p[::-1], delta / len(p)), "(1, 1)"),
    ("best_order", lambda p, delta: furthest(p[-1:], delta / len(p)) and (len(p) - 1, 0), "(1, 1)"),
    (
        "best_order",
        lambda p, delta: (
            (1, furthest(p[1:], delta / len(p))[1]) if len(p) > 1 and p[1, 0] < 0.05 else by_loops(p, delta)
        ),
        "wherever it stands",
    ),
    ("best_order", lambda p, delta: by_loops(p, 1.7 * delta if len(p) == 2 else delta), "too much for one of two"),
    ("best_order", last_passing, "after the first failure"),
    ("best_order", lambda p, delta: by_loops(p, delta) or (0, 0), "return None"),
    ("best_order", last_of_the_furthest, "the first of them"),
    ("best_order", lambda p, delta: by_loops(p, 0.999 * delta), "still a rejection"),
    ("best_order", lambda p, delta: by_loops(p, delta * len(p) / 2), "a quarter of delta"),
    ("best_order", lambda p, delta: by_loops(p, delta / 2) if len(p) == 1 else by_loops(p, delta), "has all of delta"),
    ("best_order", lambda p, delta: by_loops(p, 0.1), "delta that is given"),
]

(
    test_right_answers_are_accepted,
    test_wrong_answers_are_refused_by_name,
    test_every_misconception_of_a_checker_is_told_to_somebody,
) = right_and_wrong(RIGHT, WRONG)


# Figures


def test_ratios_are_drawn_a_row_a_network():
    picture = plots.ratios_by_order({"a": {"size": 0.5, "rank": None}, "b": {"size": 0.25}})
    picture.png()
    (ax,) = picture.axes
    assert [line.get_xdata().tolist() for line in ax.lines[:2]] == [[0.5, 0.25], [0.0]]
    assert picture.alt == "Certified ratio by network and order. a: size 0.5, rank none; b: size 0.25."


def test_a_mark_stands_where_the_certified_ratios_end():
    table = np.repeat([[0, 1]], 80, axis=0)
    good, bad = (calibrate_losses(t, [0.2, 0.6], alpha=0.1, delta=0.1) for t in (table, 1 - table))
    picture = plots.orders_compared({"one": good, "other": bad}, title="t")
    picture.png()
    marks = [line for line in picture.axes[0].lines if line.get_marker() not in ("", "None", None)]
    assert [mark.get_xdata().tolist() for mark in marks] == [[0.2]]
    assert picture.alt.endswith("Certified up to: one 0.2, other none.")


def test_certified_times_are_filled():
    result = calibrate_losses(np.repeat([[0, 1]], 80, axis=0), [0.2, 0.6], alpha=0.1, delta=0.1)
    picture = plots.seconds_and_risk({"fewer": ([0.8, 0.4], result)})
    picture.png()
    filled, hollow = picture.axes[0].lines[1:3]
    assert (filled.get_ydata().tolist(), hollow.get_ydata().tolist()) == ([0.8], [0.4])
    assert picture.alt.endswith("Shortest certified time: fewer 0.80 of the full network at ratio 0.2.")


# The explorer


def test_the_explorer_shows_the_certificates_of_all_orders(monkeypatch):
    kept = {}
    monkeypatch.setattr(widgets, "explore", lambda draw, **controls: kept.update(draw=draw, controls=controls))
    widgets.order_explorer("mnist-mlp", n=500)
    values = {name: control.value for name, control in kept["controls"].items()}
    shown = kept["draw"](**values)
    rows = np.random.default_rng(0).permutation(5000)[:500]
    orders = data.CLASSIFIER_FAMILIES["mnist-mlp"]
    found = {}
    for order in orders:
        losses, ratios = data.classifier_losses("mnist-mlp", "degradation", order)
        found[order] = calibrate_losses(losses[rows], ratios, alpha=0.05, delta=0.1 / len(orders))
    assert shown.alt == plots.orders_compared(found).alt
    changes = [
        {},
        {"network": "mnist-cnn"},
        {"alpha": 0.2},
        {"delta": 0.001},
        {"n": 100},
        {"budget": "spent on each order"},
    ]
    alts = [kept["draw"](**values | change).alt for change in changes]
    assert len(set(alts)) == len(changes)


# Claims of the lesson


def tables(network):
    orders = data.CLASSIFIER_FAMILIES[network]
    return np.array([data.classifier_losses(network, "degradation", order)[0] for order in orders])


@pytest.mark.parametrize("network", data.CLASSIFIERS)
@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.1])
def test_every_order_keeps_the_promise(network, alpha):
    for table in tables(network):
        rule = {"n_calibration": 500, "alpha": alpha, "delta": 0.1, "trials": 2000, "replace": True}
        splits = repeated_splits(table, data.mnist_losses()[1], **rule)
        assert ErrorRate(round(2000 * splits.any_broken), 2000, 0.1).evidence > 1e-4


def test_splits_see_a_rule_that_breaks_the_promise_of_an_order():
    rule = {"n_calibration": 500, "alpha": 0.05, "delta": 0.1, "trials": 2000, "replace": True}
    splits = repeated_splits(tables("mnist-mlp")[2], data.mnist_losses()[1], procedure=lambda p, d: p < 0.9, **rule)
    assert ErrorRate(round(2000 * splits.any_broken), 2000, 0.1).evidence < 1e-4


def equally_good(alpha, size, draws, seed=0, K=6):
    """Errors (draws, K, m) of K independent orders with the recorded risks of one, which step to a hair above alpha."""
    risks = data.mnist_losses()[0].mean(axis=0)
    step = int(np.argmax(risks > alpha / 2))
    risks[step] = 1.0001 * alpha
    bad = np.arange(len(risks)) >= step
    return np.random.default_rng(seed).binomial(size, risks, size=(draws, K, len(risks))), bad


@pytest.mark.parametrize(("share", "kept"), [("delta / K", True), ("delta", False)])
def test_the_best_of_several_orders_keeps_delta_only_if_they_share_it(share, kept):
    alpha, delta, size, draws = 0.05, 0.1, 1000, 3000
    counts, bad = equally_good(alpha, size, draws)
    level = delta / counts.shape[1] if share == "delta / K" else delta
    p = pvalues.binomial(np.arange(size + 1), size, alpha)[counts]
    passed = np.logical_and.accumulate(p <= level, axis=2)
    best = passed.sum(axis=2).argmax(axis=1)  # the furthest: a false claim is one that it makes
    false = (passed[np.arange(draws), best] & bad).any(axis=1)
    assert (ErrorRate(int(false.sum()), draws, delta).evidence > 1e-4) == kept


def test_a_choice_on_other_examples_keeps_all_of_delta():
    alpha, delta, size, draws = 0.05, 0.1, 1000, 3000
    p_of_count = pvalues.binomial(np.arange(size + 1), size, alpha)
    chosen, bad = equally_good(alpha, size, draws)
    fresh, _ = equally_good(alpha, size, draws, seed=1)
    best = np.logical_and.accumulate(p_of_count[chosen] <= delta, axis=2).sum(axis=2).argmax(axis=1)
    every = np.arange(draws)
    passed = np.logical_and.accumulate(p_of_count[fresh[every, best]] <= delta, axis=1)
    assert ErrorRate(int((passed & bad).any(axis=1).sum()), draws, delta).evidence > 1e-4


def polyp_certificate(recorded, alpha):
    home = recorded.centre < 6
    videos = group_means(recorded.losses[home], recorded.group[home])
    videos = videos[np.random.default_rng(0).permutation(len(videos))]
    return calibrate_losses(videos, recorded.ratios, alpha=alpha, delta=0.1, p_value="betting")


def test_the_recorded_orders_of_the_unet_are_of_frames_that_are_on_record():
    frames = data.polyp_losses("dice_degradation")
    for order in data.POLYP_ORDERS:
        recorded = data.polyp_orders(order)
        assert set(recorded.names) <= set(frames.names) and len(set(recorded.names)) == len(recorded.names)
        assert np.unique(recorded.group, return_counts=True)[1].max() == 2
        assert set(recorded.group) == set(frames.group[frames.centre < 6])
        assert recorded.losses.shape == (len(recorded.names), len(recorded.ratios))
        sizes = [w.numel() for w in pruning.prunable(models.load("polyp-unet")).values()]
        share = np.array(sizes) @ recorded.zeros / sum(sizes)
        assert share == pytest.approx(recorded.ratios, abs=1e-3)


def test_what_the_prose_says_about_orders():
    rows = np.random.default_rng(0).permutation(5000)[:3000]
    reach = {}
    for network in data.CLASSIFIERS:
        for order in data.CLASSIFIER_FAMILIES[network]:
            losses, ratios = data.classifier_losses(network, "degradation", order)
            reach[network, order] = calibrate_losses(losses[rows], ratios, alpha=0.05, delta=0.1).ratio
    for network in ("mnist-vit", "words-transformer", "mnist-gru"):
        others = [ratio for (name, order), ratio in reach.items() if name == network and order != "product"]
        assert reach[network, "product"] > max(others)
        table, ratios = data.classifier_losses(network, "degradation", "product")  # found among a dozen on these rows
        shared = calibrate_losses(table[rows], ratios, alpha=0.05, delta=0.1 / 12).ratio
        assert shared > reach[network, "magnitude"]
    assert reach["mnist-vit", "fisher"] > reach["mnist-vit", "magnitude"]
    assert reach["words-transformer", "fisher"] < reach["words-transformer", "magnitude"]


def test_what_the_prose_says_about_the_unet():
    stale, anew = (
        polyp_certificate(data.polyp_losses("dice_degradation", f), 0.05) for f in ("magnitude", "batch-norm")
    )
    found = {order: polyp_certificate(data.polyp_orders(order), 0.05).ratio or 0.0 for order in data.POLYP_ORDERS}
    assert stale.ratio == 0.38 and (anew.ratio or 0) < 0.1
    assert found["lamp"] == max(found.values()) == 0.6
    lamp, tuned = data.polyp_orders("lamp"), data.polyp_orders("fine-tuned")
    assert tuned.ratios.tolist() == [0.7] and tuned.losses.mean() > lamp.losses[:, 3].mean() - 0.01


def test_what_the_prose_says_about_channels():
    frames = data.polyp_orders("lamp")
    reach = {}
    for finish in data.POLYP_CHANNELS:
        recorded = data.polyp_channels(finish)
        assert recorded.names == frames.names and recorded.losses.shape == (207, len(recorded.ratios))
        reach[finish] = [polyp_certificate(recorded, alpha).ratio for alpha in (0.05, 0.1, 0.15)]
        assert polyp_certificate(recorded, 0.1).loss_means[0] > 4 * 0.0185  # what 123 videos can certify at 0.05
    assert reach == {"one-shot": [None, None, 0.125], "trained": [None, None, 0.375]}


def test_the_network_that_is_timed_has_the_shape_of_the_one_that_is_certified():
    unet = models.load("polyp-unet")
    small = pruning.channels_removed(torch.zeros(1, 3, 32, 32), keep=["head"])(unet, 0.375)
    thin = models.UNet([10, 20, 40, 80, 120])
    assert [p.shape for p in small.parameters()] == [p.shape for p in thin.parameters()]


def test_what_the_prose_says_about_training():
    rows = np.random.default_rng(0).permutation(5000)[:3000]
    for network, ratio in {"mnist-gru": 0.9, "mnist-vit": 0.9}.items():
        losses, ratios = data.tuned_losses(network)
        assert calibrate_losses(losses[rows], ratios, alpha=0.05, delta=0.1).ratio == ratio
        rule = {"n_calibration": 500, "alpha": 0.05, "delta": 0.1, "trials": 2000, "replace": True}
        splits = repeated_splits(losses, ratios, **rule)
        assert ErrorRate(round(2000 * splits.any_broken), 2000, 0.1).evidence > 1e-4
