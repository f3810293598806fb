"""Lesson 06: its checkers accept every right form and refuse each misconception; its figures and claims."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from answers import right_and_wrong
from scipy.special import bdtr

from confprune_edu import plots, selective, widgets
from confprune_edu.calibration import calibrate_losses
from confprune_edu.plots.picture import BLUE
from confprune_edu.pvalues import binomial
from confprune_edu.validation import ErrorRate, SelectiveSplits


@pytest.fixture(autouse=True)
def _one_drawing(monkeypatch):
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")


# Exercises: right answers


def by_package(confidence, wrong, threshold, alpha):
    answered = confidence >= threshold
    return binomial(wrong[answered].sum(), answered.sum(), alpha) if answered.any() else 1.0


def walked(p, delta):
    return np.logical_and.accumulate(p <= delta / len(p), axis=1)


def by_sorting(rejected, ratios, thresholds, coverage, min_coverage):
    j, k = np.nonzero(rejected & (coverage >= min_coverage))
    if len(j) == 0:
        return None
    first = np.lexsort((coverage[j, k], j))[-1]
    return ratios[j[first]], thresholds[k[first]]


RIGHT = [
    ("selective_p_value", by_package),
    ("certified_rows", walked),
    ("certified_rows", lambda p, delta: (iter(row.tolist()) for row in walked(p, delta))),
    ("certified_rows", lambda p, delta: walked(p, delta).tolist()),
    ("certified_rows", lambda p, delta: np.cumprod(p <= delta / len(p), axis=1)),
    ("best_pair", by_sorting),
    ("best_pair", lambda *args: None if (found := by_sorting(*args)) is None else list(found)),
]


# Exercises: known wrong answers, and the misconception that the message must name


def tail(errors, n, alpha):
    return sum(math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(int(errors) + 1))


def declined_are_right(c, wrong, t, alpha):
    return tail(wrong[c >= t].sum(), len(c), alpha)


def all_errors(c, wrong, t, alpha):
    return tail(min(wrong.sum(), (c >= t).sum()), int((c >= t).sum()), alpha)


def strictly_above(c, wrong, t, alpha):
    return tail(wrong[c > t].sum(), int((c > t).sum()), alpha)


def the_unsure(c, wrong, t, alpha):
    return tail(wrong[c < t].sum(), int((c < t).sum()), alpha)


def exactly_so_many(c, wrong, t, alpha):
    n, k = int((c >= t).sum()), int(wrong[c >= t].sum())
    return math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k)


def zero_for_nothing(c, wrong, t, alpha):
    return by_package(c, wrong, t, alpha) if (c >= t).any() else 0.0


def mean_of_nothing(c, wrong, t, alpha):
    return by_package(c, wrong, t, alpha) if (c >= t).any() else math.nan


def never_certain(c, wrong, t, alpha):
    return min(by_package(c, wrong, t, alpha), 0.9) if (c >= t).any() else 1.0


def no_errors_seen(c, wrong, t, alpha):
    return (1 - alpha) ** int((c >= t).sum()) if not wrong[c >= t].all() else 1.0


def share(scale):
    return lambda p, delta: np.logical_and.accumulate(p <= delta / scale(p), axis=1)


def first_row_decides(p, delta):
    return walked(p, delta) & np.logical_and.accumulate(walked(p, delta)[:, :1], axis=0)


def from_the_lenient_end(p, delta):
    return np.logical_and.accumulate((p <= delta / len(p))[:, ::-1], axis=1)[:, ::-1]


def at_least_one(p, delta):
    return walked(p, delta) | (~walked(p, delta).any() & (p == p.min()))


def ignoring(rejected=False, floor=False):
    def answer(mask, ratios, thresholds, coverage, min_coverage):
        mask = mask | rejected
        return by_sorting(mask, ratios, thresholds, coverage, 0 if floor else min_coverage)

    return answer


def row_first(mask, ratios, thresholds, coverage, min_coverage):
    if not mask.any():
        return None
    j = np.flatnonzero(mask.any(axis=1))[-1]
    fine = np.flatnonzero(mask[j] & (coverage[j] >= min_coverage))
    return (ratios[j], thresholds[fine[-1]]) if fine.size else None


def strictest(mask, ratios, thresholds, coverage, min_coverage):
    j, k = np.nonzero(mask & (coverage >= min_coverage))
    return (ratios[j[-1]], thresholds[k[j == j[-1]][0]]) if len(j) else None


def covers_more(mask, ratios, thresholds, coverage, min_coverage):
    return by_sorting(mask, ratios, thresholds, coverage, min_coverage + 1e-9 if min_coverage else 0)


def truthy(mask, ratios, thresholds, coverage, min_coverage):
    found = by_sorting(mask, ratios, thresholds, coverage, min_coverage)
    return found if found and any(found) else None


def nearest(mask, ratios, thresholds, coverage, min_coverage):
    found = by_sorting(mask, ratios, thresholds, coverage, min_coverage)
    return found or by_sorting(mask, ratios, thresholds, coverage, 0)


def positions(mask, ratios, thresholds, coverage, min_coverage):
    return by_sorting(mask, np.arange(2), np.arange(2), coverage, min_coverage)


def maximum(mask, ratios, thresholds, coverage, min_coverage):
    fine = mask & (coverage >= min_coverage)
    j = max(np.flatnonzero(fine.any(axis=1)))
    return ratios[j], thresholds[max(np.flatnonzero(fine[j]), key=lambda k: coverage[j, k])]


def widest_of_all_rows(mask, ratios, thresholds, coverage, min_coverage):
    j, k = np.nonzero(mask & (coverage >= min_coverage))
    return (ratios[j.max()], thresholds[k.max()]) if len(j) else None


def gentle_for_nothing(mask, ratios, thresholds, coverage, min_coverage):
    if not mask.any():
        return ratios[0], thresholds[0]
    return by_sorting(mask, ratios, thresholds, coverage, min_coverage)


WRONG = [
    ("selective_p_value", declined_are_right, "a declined digit is not a digit that is right"),
    ("selective_p_value", all_errors, "errors of declined digits do not count"),
    ("selective_p_value", strictly_above, "equal to the threshold is an answer"),
    ("selective_p_value", the_unsure, "not below it"),
    ("selective_p_value", exactly_so_many, "not of exactly so many"),
    ("selective_p_value", zero_for_nothing, "nothing answered is no evidence"),
    ("selective_p_value", mean_of_nothing, "nothing answered is no evidence"),
    ("selective_p_value", never_certain, "so that p = 1"),
    ("selective_p_value", lambda c, w, t, a: w.mean(), "two digits are answered"),
    ("selective_p_value", lambda c, w, t, a: w[c >= t].sum() / (c >= t).sum(), "the mean loss of the answered"),
    ("selective_p_value", lambda c, w, t, a: tail(w[c >= t].sum() - 1, (c >= t).sum(), a), "includes so many"),
    ("selective_p_value", no_errors_seen, "errors among the answered]"),
    ("certified_rows", share(lambda p: p.size if len(p) == 1 else len(p)), "only the rows share it"),
    ("certified_rows", share(lambda p: 1), "delta / m, not delta"),
    ("certified_rows", share(lambda p: p.size), "only the rows share it"),
    ("certified_rows", share(lambda p: len(p) * (1 if p.shape[1] < 3 or len(p) == 1 else 3)), "not delta / (m t)"),
    ("certified_rows", lambda p, delta: p <= delta / len(p), "a row stops at its first failure"),
    ("certified_rows", first_row_decides, "ends itself only"),
    ("certified_rows", from_the_lenient_end, "not from the lenient end"),
    ("certified_rows", lambda p, delta: np.logical_and.accumulate(p < delta / len(p), axis=1), "p equal to delta / m"),
    ("certified_rows", at_least_one, "rejecting nothing is a legal answer"),
    ("certified_rows", lambda p, delta: walked(p, delta).any(axis=1), "want shape (1, 2), got shape (1,)"),
    ("certified_rows", lambda p, delta: p, "True or False"),
    ("certified_rows", lambda p, delta: walked(p, 0.1), "the delta that is given"),
    (
        "certified_rows",
        lambda p, d: np.logical_and.accumulate((p <= d / len(p)).ravel()).reshape(p.shape),
        "begins anew",
    ),
    ("certified_rows", lambda p, d: np.logical_and.accumulate(p <= d / len(p), axis=0), "not down the columns"),
    (
        "selective_p_value",
        lambda c, w, t, a: 1 - tail(w[c >= t].sum(), (c >= t).sum(), a),
        "so few errors, not of more",
    ),
    ("selective_p_value", lambda c, w, t, a: tail((~w)[c >= t].sum(), (c >= t).sum(), a), "not the right answers"),
    ("best_pair", widest_of_all_rows, "not in any other row"),
    ("best_pair", lambda *args: by_sorting(*args)[0], "Return (ratio, threshold)"),
    ("best_pair", ignoring(rejected=True), "not certified is no answer"),
    ("best_pair", ignoring(floor=True), "the pairs that cover enough"),
    ("best_pair", row_first, "a smaller one may be the answer"),
    ("best_pair", strictest, "of its thresholds the one that answers most"),
    ("best_pair", covers_more, "equal to min_coverage is enough"),
    ("best_pair", truthy, "are answers, not None"),
    ("best_pair", nearest, "None, not the nearest"),
    ("best_pair", positions, "values, not positions"),
    ("best_pair", maximum, "return None before a maximum"),
    ("best_pair", gentle_for_nothing, "nothing certified is None"),
    ("best_pair", lambda *args: None, "got None (the function returns None"),
]


(
    test_right_answers_are_accepted,
    test_wrong_answers_are_refused_by_name,
    test_every_misconception_of_a_checker_is_told_to_somebody,
) = right_and_wrong(RIGHT, WRONG)


# Figures


P = np.array([[0.001, 0.04, 0.3], [0.02, 0.2, 0.9], [1.0, 0.4, 1.0]])
COVERAGE = np.array([[0.8, 0.9, 1.0], [0.5, 0.7, 1.0], [0.0, 0.2, 1.0]])
GRID = {"ratios": np.array([0.5, 0.8, 0.9]), "thresholds": np.array([0.9, 0.5, 0.0]), "alpha": 0.05, "delta": 0.1}


def pairs(rejected, floor=None):
    """What the figure reads of a certificate of pairs."""
    return SimpleNamespace(p_values=P, rejected=rejected, coverage=COVERAGE, floor=floor, **GRID)


def drawn(picture):
    assert picture.png()
    return picture


def test_the_map_tells_what_is_certified_and_what_would_pass_alone():
    picture = drawn(plots.selective(pairs(P <= 0.03)))
    assert picture.alt.startswith("2 of 9 pairs certified, ratios up to 0.8, coverage up to 80.0%.")
    assert "delta = 0.1 lets 3 pass" in picture.alt
    assert plots.selective(pairs(P < 0)).alt.startswith("Nothing certified.")


def test_the_map_is_the_table_a_row_a_ratio_and_strict_thresholds_first():
    left = plots.selective(pairs(P <= 0.03)).axes[0]
    evidence, silent = (np.ma.filled(image.get_array(), np.nan) for image in left.images)
    np.testing.assert_allclose(evidence, np.log10(np.maximum(P, 1e-6)))
    assert np.argwhere(silent == 1).tolist() == [[2, 0]]  # the strictest threshold of the last ratio answers nothing
    assert [label.get_text() for label in left.get_xticklabels()] == ["0.9", "0.5", "0"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["0.5", "0.8", "0.9"]
    low, high = left.get_ylim()
    assert low > high  # the gentlest ratio is on top
    assert "nothing answered" in [text.get_text() for text in left.get_legend().get_texts()]


def area_inside(lines):
    """Cells inside of closed lines along the cells' edges: vertical edges, signed by the side on which they lie."""
    edges = sorted((y0, x0) for (x0, y0), (x1, _) in lines if x0 == x1)
    rows = {y: [x for z, x in edges if z == y] for y, _ in edges}
    return sum(right - left for xs in rows.values() for left, right in zip(xs[::2], xs[1::2], strict=True))


@pytest.mark.parametrize("mask", [P <= 0.03, P <= 0.1, P < 2, P == 0.2, P < 0])
def test_the_outline_surrounds_exactly_the_certified_cells(mask):
    _, certified = plots.selective(pairs(mask)).axes[0].collections
    segments = [segment.tolist() for segment in certified.get_segments()]
    assert area_inside(segments) == mask.sum()
    corners = {tuple(point) for segment in segments for point in segment}
    assert corners <= {(j - 0.5, k - 0.5) for j in range(4) for k in range(4)}


def test_the_reach_is_filled_where_a_threshold_is_certified():
    right = plots.selective(pairs(P <= 0.05, floor=0.6)).axes[1]
    certified, without, floor = right.lines
    assert certified.get_xydata().tolist() == [[0.9, 0], [0.5, 1]] and certified.get_markerfacecolor() == BLUE
    assert without.get_ydata().tolist() == [2] and without.get_xdata().max() < 0  # left of the axis: no coverage of 0
    assert set(floor.get_xdata()) == {0.6}


@pytest.mark.parametrize(("start", "ring"), [(0.0, [(1, 1), (0.7, 1)]), (0.8, [(1, 0), (0.7, 0)]), (0.85, [])])
def test_the_ring_stays_with_its_pair_where_the_map_starts_later(start, ring):
    picture = plots.selective(pairs(P <= 0.05), chosen=(1, 1), start=start)
    rings = [
        line
        for ax in picture.axes
        for line in ax.lines
        if line.get_markersize() == 11 and line.get_markeredgewidth() < 2
    ]
    assert [tuple(line.get_xydata()[0]) for line in rings] == ring
    assert all(line.get_markerfacecolor() == "none" for line in rings)  # it must not hide what it marks
    assert picture.alt.startswith("3 of 9 pairs certified, ratios up to 0.8")  # the text is about the whole grid


def test_a_risk_coverage_curve_is_told_where_it_meets_alpha():
    picture = drawn(
        plots.risk_coverage(
            {"a": [0.0, 0.6, 1.0], "b": [0.7, 0.9, 1.0]}, {"a": [np.nan, 0.05, 0.2], "b": [0.1, 0.2, 0.3]}, alpha=0.05
        )
    )
    assert "a: 0.2000 at coverage 100.0%, at most alpha = 0.05 up to 60.0%" in picture.alt
    assert "b: 0.3000 at coverage 100.0%, above alpha = 0.05." in picture.alt


def test_frontiers_tell_how_far_they_reach():
    curves = {"one": [1.0, 0.9, np.nan], "other": [0.8, np.nan, np.nan], "none": [np.nan] * 3}
    alt = drawn(plots.frontiers([0.5, 0.8, 0.9], curves, floor=0.9)).alt
    assert "one: up to ratio 0.8, with coverage 90% up to 0.8" in alt
    assert "other: up to ratio 0.5, with coverage 90% nowhere" in alt
    assert "none: nothing certified, with coverage 90% nowhere" in alt


def test_regions_have_a_panel_each():
    regions = {"broad": P <= 0.3, "thin": P == 0.04, "none": P < 0}
    picture = drawn(plots.certified_regions(regions, COVERAGE, GRID["ratios"], GRID["thresholds"]))
    assert "broad: 5 of 9 pairs certified, ratios up to 0.8, coverage up to 100.0%; thin: 1 of 9" in picture.alt
    assert picture.alt.endswith("none: nothing certified.")
    for ax, mask in zip(picture.axes, regions.values(), strict=False):
        np.testing.assert_array_equal(ax.images[0].get_array(), mask)


def test_routes_have_an_arrow_a_step_from_where_budget_enters():
    walks = {"rows": [[(0, 0), (0, 1)], [(1, 0), (1, 1)]], "split": [[(1, 1), (0, 0)]]}
    picture = drawn(plots.routes(walks, {"rows": [(0, 0), (1, 0)], "split": [(1, 1)]}, (2, 2)))
    assert "rows: enters at (0, 0), (1, 0), arrows 2 to the right, 0 down, 0 elsewhere" in picture.alt
    assert picture.alt.endswith("split: enters at (1, 1), arrows 0 to the right, 0 down, 1 elsewhere.")
    heads = [[[int(place) for place in note.xy] for note in ax.texts] for ax in picture.axes]
    assert heads == [[[1, 0], [1, 1]], [[0, 0]]]  # columns to the right, rows downwards
    assert picture.axes[0].get_ylim()[0] > picture.axes[0].get_ylim()[1]


def tables(seed=0, n=2000):
    rng = np.random.default_rng(seed)
    confidence = rng.random((n, 3)) ** 0.2
    risk = (1 - confidence) * [0.1, 0.6, 0] + [0, 0, 0.5]  # the last network is wrong half of the time, sure or not
    return confidence, rng.random((n, 3)) < risk


def test_rescue_takes_the_widest_certified_pair_of_each_ratio():
    confidence, wrong = tables()
    result = selective.calibrate_losses(confidence, wrong, GRID["ratios"], [0.99, 0.9, 0.5, 0.0], alpha=0.06, delta=0.1)
    assert result.rejected.sum(axis=1).tolist() == [4, 2, 0]
    picture = drawn(plots.rescue(result, wrong.mean(axis=0)))
    whole, part = (line.get_ydata() for line in picture.axes[0].lines[:2])
    share = picture.axes[1].lines[0].get_ydata()
    np.testing.assert_array_equal(whole, wrong.mean(axis=0))
    for j in (0, 1):
        column = np.flatnonzero(result.rejected[j])[-1]  # the most lenient one answers most
        assert (part[j], share[j]) == (result.risk[j, column], result.coverage[j, column])
    assert np.isnan([part[2], share[2]]).all()
    assert "certified at 2 of 3 ratios" in picture.alt
    assert len(plots.rescue(result, wrong.mean(axis=0), start=0.8).axes[0].lines[0].get_ydata()) == 2


def test_rescue_says_that_nothing_was_certified():
    result = selective.calibrate_losses(*tables(), GRID["ratios"], alpha=0.0001, delta=0.1)
    assert drawn(plots.rescue(result, [0.1, 0.2, 0.3])).alt.endswith("May abstain: certified at 0 of 3 ratios.")


def splits_of(risk, floor=None):
    risk = np.array(risk)
    ratio = np.where(np.isnan(risk), np.nan, 0.8)
    return SelectiveSplits(ratio, ratio, risk, ratio, risk > 0.05, 0.05, 0.1, floor)


def test_splits_beyond_alpha_are_hatched_and_all_are_counted():
    picture = drawn(plots.selective_splits(splits_of([0.01, 0.05, 0.06, 0.9, np.nan])))
    bars = picture.axes[1].patches
    assert sum(bar.get_height() for bar in bars) == pytest.approx(4 / 5)
    beyond = [(bar.get_x(), bar.get_height()) for bar in bars if bar.get_hatch() and bar.get_height()]
    assert [height for _, height in beyond] == pytest.approx([1 / 5, 1 / 5])
    assert all(x >= 0.05 - 1e-9 for x, _ in beyond)
    assert [ax.get_title(loc="left") for ax in picture.axes] == [
        "nothing certified: 20.0%",
        "beyond alpha: 40.0%, promised 10%",
    ]
    assert "in 40.0% of them" in picture.alt and "5 calibrations: median ratio 0.8, coverage 0.800" in picture.alt


def test_splits_of_which_none_certified_anything_are_drawn():
    assert "2 calibrations: nothing ever certified" in drawn(plots.selective_splits(splits_of([np.nan] * 2))).alt
    titled = plots.selective_splits(splits_of([0.01, 0.02], floor=0.9)).axes[1].get_title(loc="left")
    assert titled == "alpha or floor broken: 100.0%, promised 10%"  # a coverage of 0.8 breaks the floor


def test_classes_and_mean_ratios_are_told():
    alt = drawn(plots.by_class({"x": [0.2, 0.5, 0.1]}, ["a", "b", "c"], overall={"x": 0.3})).alt
    assert alt == "By class. x: 10.0% (c) to 50.0% (b), 30.0% over all."
    alt = drawn(plots.mean_ratios([10, 20], {"rows": [[np.nan, 0.5], [0.8, 0.9]]}, xlabel="digits n")).alt
    assert alt.endswith("rows: 0.250 at n = 10, 0.850 at n = 20.")


# Explorer


def test_the_explorer_draws_the_certificate_of_its_defaults(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "display", shown.append)
    ratios = GRID["ratios"]
    widgets.selective_explorer(*tables(), ratios, alpha=0.06, procedure="graph")
    (picture,) = shown
    right = selective.calibrate_losses(*tables(), ratios, alpha=0.06, delta=0.1, procedure="graph")
    assert right.rejected.any()
    assert picture.alt == right.plot().alt


def test_every_control_of_the_explorer_changes_the_certificate(monkeypatch):
    kept = {}
    monkeypatch.setattr(widgets, "explore", lambda draw, **controls: kept.update(draw=draw, controls=controls))
    widgets.selective_explorer(*tables(), GRID["ratios"], alpha=0.06)
    values = {name: control.value for name, control in kept["controls"].items()}
    assert values == {"alpha": 0.06, "delta": 0.1, "procedure": "rows", "floor": 0.0}
    alts = {kept["draw"](**values).alt}
    changes = [{"alpha": 0.1}, {"delta": 0.01}, {"floor": 0.5}]
    changes += [{"procedure": name} for name in kept["controls"]["procedure"].options if name != "rows"]
    alts |= {kept["draw"](**values | change).alt for change in changes}
    assert len(alts) == 1 + len(changes) == 7


# Claims of the lesson


def known_p_values(trials=2000, n=3000, m=20, t=20, alpha=0.01, seed=1):
    """P-values (trials, m, t) of independent networks whose selective risk is a hair above alpha at every pair."""
    rng = np.random.default_rng(seed)
    step = rng.multinomial(n, np.r_[0.5, np.full(t - 1, 0.5 / (t - 1))], size=(trials, m))
    errors = rng.binomial(step, 1.001 * alpha)
    return bdtr(errors.cumsum(axis=2), step.cumsum(axis=2), alpha)


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        (lambda p: p[:, :1, -1:] <= 0.1, False),
        (lambda p: p[:, :1] <= 0.1, True),
        (lambda p: p <= 0.1, True),
        (lambda p: selective.rows(p, 0.1), False),
        (lambda p: selective.grid_graph(p, 0.1), False),
        (lambda p: selective.path(p, 0.1, selective.staircase(20, 20)), False),
    ],
    ids=["one pair", "thresholds alone", "every pair", "rows", "graph", "path"],
)
def test_a_grid_needs_a_procedure_for_the_grid(rule, broken):
    rejected = rule(known_p_values())
    false = rejected.reshape(len(rejected), -1).any(axis=1).sum()
    assert (ErrorRate(int(false), len(rejected), 0.1).evidence < 1e-4) is broken


def test_a_tenth_of_a_per_cent_takes_688_answers_without_an_error():
    p = selective.risk_p_values(np.ones((688, 1)), np.zeros((688, 1), dtype=bool), [1.0], 0.01)
    assert p[0, 0] <= 0.1 / 100 < p[0, 0] / 0.99


def test_what_the_prose_says_about_the_digits(digits, mlp):
    from confprune_edu import losses
    from confprune_edu.evaluation import loss_tables

    images, labels = digits
    wanted = {"confidence": losses.confidence, "error": losses.error}
    ratios = np.arange(100) / 100
    confidence, wrong = loss_tables(mlp, (images, labels), ratios, wanted, progress=False).values()
    assert wrong.mean(axis=0).min() > 0.01  # "the risk exceeds alpha at every ratio"
    assert calibrate_losses(wrong[:3000], ratios, alpha=0.01, delta=0.1, p_value="binomial").ratio is None
    result = selective.calibrate_losses(confidence[:3000], wrong[:3000], ratios, alpha=0.01, delta=0.1)
    assert result.frontier[:70].min() > 0.95 and 0.9 <= result.frontier[87] < 0.91  # "4 or 5 %", "10 % at 0.87"
    pair = result.best(min_coverage=0.9)
    test, unsure = wrong[3000:, pair.row], confidence[3000:, pair.row] < pair.threshold
    assert 0.2 < test[unsure].mean() < 0.3 and test[~unsure].mean() < 1 / 200  # "one in four", "one in two hundred"
    sure, errs = confidence[:, pair.row], wrong[:, pair.row]  # "just above the threshold wrong more often"
    near = (sure >= pair.threshold) & (sure < np.quantile(sure[sure >= pair.threshold], 0.2))
    assert errs[near].mean() > 2 * errs[(sure >= pair.threshold) & ~near].mean()
    silent = [np.mean(confidence[labels == c, pair.row] < pair.threshold) for c in range(10)]
    assert np.argmax(silent) == 8 and max(silent) > 5 * min(silent)
