"""Lesson 06: its figures and its explorer."""

from types import SimpleNamespace

import numpy as np
import pytest

from confprune_edu import controls, plots, selective, widgets
from confprune_edu.plots.picture import BLUE
from confprune_edu.validation import SelectiveSplits


@pytest.fixture(autouse=True)
def _one_drawing(monkeypatch):
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")


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
    monkeypatch.setattr(controls, "display", shown.append)
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
