"""Lesson 04: its checkers accept every right form and refuse each misconception; its figures and claims."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from answers import right_and_wrong
from scipy.stats import binomtest

from confprune_edu import controls, data, exercises, fwer, plots, widgets
from confprune_edu.calibration import calibrate_losses
from confprune_edu.pvalues import METHODS, binomial, p_values
from confprune_edu.validation import ErrorRate, Splits


@pytest.fixture(autouse=True)
def _one_drawing(monkeypatch):
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")


# Exercises: right answers


def listed(p, delta):
    return [all(q <= delta for q in p[: j + 1]) for j in range(len(p))]


def ratio_from_mask(p, ratios, delta):
    passed = fwer.fixed_sequence(p, delta)
    return np.asarray(ratios)[passed].max() if passed.any() else None


def chains_as_ints(p, delta, starts):
    hit = np.zeros(len(p), dtype=int)
    for start in starts:
        hit[start:] |= np.cumprod(p[start:] <= delta / len(starts))
    return hit


def bonferroni(p, delta):
    return fwer.bonferroni(p, delta)


RIGHT = [
    ("fixed_sequence", fwer.fixed_sequence),
    ("fixed_sequence", listed),
    ("fixed_sequence", lambda p, delta: np.cumprod(p <= delta)),
    ("certified_ratio", ratio_from_mask),
    ("certified_ratio", lambda p, ratios, delta: calibrate_like(p, ratios, delta)),
    ("multi_start", fwer.multi_start),
    ("multi_start", chains_as_ints),
    ("two_way", lambda p, delta: fwer.fixed_sequence(p, delta / 2) | fwer.fixed_sequence(p[::-1], delta / 2)[::-1]),
    ("two_way", bonferroni),
    ("two_way", fwer.holm),
    ("two_way", lambda p, delta: fwer.multi_start(p, delta / 2, [0]) | fwer.bonferroni(p, delta / 2)),
    ("two_way", lambda p, delta: (bool(hit) for hit in bonferroni(p, delta))),
    ("fixed_sequence", lambda p, delta: (hit for hit in listed(p, delta))),
    ("multi_start", lambda p, delta, starts: map(bool, chains_as_ints(p, delta, starts))),
]


def calibrate_like(p, ratios, delta):
    best = None
    for j in range(len(p)):
        if (p[: j + 1] <= delta).all():
            best = ratios[j]
    return best


# Exercises: known wrong answers, and the misconception that the message must name


def with_the_failure(p, delta):
    passed = fwer.fixed_sequence(p, delta)
    passed[1:] |= passed[:-1].copy()
    return passed


def rising_only(p, delta):
    return np.logical_and.accumulate((p <= delta) & (np.diff(p, prepend=0) >= 0))


def first_failed(p, ratios, delta):
    return ratios[int(np.argmax(p > delta))] if (p > delta).any() else ratios[-1]


def zero_for_nothing(p, ratios, delta):
    return ratio_from_mask(p, ratios, delta) or 0.0


def truthy(p, ratios, delta):
    return ratio_from_mask(p, ratios, delta) or None


def full_delta(p, delta, starts):
    return fwer.multi_start(p, min(delta * len(starts), 0.999), starts)


def share_of_m(p, delta, starts):
    return np.logical_or.reduce(
        [
            np.r_[np.zeros(s, bool), fwer.fixed_sequence(p[s:], delta / len(p) if len(starts) > 1 else delta)]
            for s in starts
        ]
    )


def intersection(p, delta, starts):
    chains = [np.r_[np.zeros(s, bool), fwer.fixed_sequence(p[s:], delta / len(starts))] for s in starts]
    return np.logical_and.reduce(chains)


def chain(p, level, start):
    return np.r_[np.zeros(start, bool), fwer.fixed_sequence(p[start:], level)]


def late(p, level, start):
    return chain(p, level, start + 1) if start + 1 < len(p) else np.zeros(len(p), bool)


def first_chain_decides(p, delta, starts):
    chain = fwer.fixed_sequence(p[starts[0] :], delta / len(starts))
    return fwer.multi_start(p, delta, starts) if chain.any() else np.zeros(len(p), bool)


def later_chain_overwrites(p, delta, starts):
    found = np.zeros(len(p), bool)
    for start in starts:
        found[start:] = fwer.fixed_sequence(p[start:], delta / len(starts))
    return found


def first_success(p, delta, starts):
    chains = [chain(p, delta / len(starts), start) for start in starts]
    return next((found for found in chains if found.any()), chains[0])


def never_stops(p, delta, starts):
    return (p <= delta / len(starts)) & (np.arange(len(p)) >= min(starts))


def better_end(p, delta):
    return fwer.fixed_sequence(p, delta) if p[0] <= p[-1] else fwer.fixed_sequence(p[::-1], delta)[::-1]


def both_ways(p, level):
    return fwer.fixed_sequence(p, level) | fwer.fixed_sequence(p[::-1], level)[::-1]


def both_in_full(p, delta):
    return both_ways(p, delta)


WRONG = [
    ("fixed_sequence", lambda p, delta: fwer.fixed_sequence(p, delta / len(p)), "all of delta, not delta / m"),
    ("fixed_sequence", with_the_failure, "the last certified one comes before"),
    ("fixed_sequence", lambda p, delta: p <= delta, "stop at the first failure"),
    ("fixed_sequence", lambda p, delta: np.logical_and.accumulate(p < delta), "p equal to delta"),
    ("fixed_sequence", rising_only, "not with the one before"),
    (
        "fixed_sequence",
        lambda p, delta: fwer.fixed_sequence(p, delta) | (p == p[0]),
        "rejecting nothing is a legal answer",
    ),
    ("fixed_sequence", lambda p, delta: None, "got None"),
    ("fixed_sequence", lambda p, delta: fwer.fixed_sequence(p, delta).sum(), "got shape ()"),
    ("fixed_sequence", lambda p, delta: p, "True or False"),
    ("fixed_sequence", lambda p, delta: [True] * int(fwer.fixed_sequence(p, delta).sum()), "an entry for each"),
    ("fixed_sequence", lambda p, delta: fwer.fixed_sequence(p[::-1], delta)[::-1], "not the last"),
    ("certified_ratio", lambda p, r, delta: ratio_from_mask(p, r, delta / len(p)), "all of delta, not delta / m"),
    ("multi_start", lambda p, delta, s: np.any([late(p, delta / len(s), x) for x in s], axis=0), "own start, too"),
    ("multi_start", lambda p, delta, s: np.any([chain(p, delta, x) for x in s], axis=0), "may spend delta / k"),
    ("certified_ratio", first_failed, "not the first that failed"),
    (
        "certified_ratio",
        lambda p, r, delta: r[p <= delta].max() if (p <= delta).any() else None,
        "stop at the first failure",
    ),
    ("certified_ratio", lambda p, r, delta: ratio_from_mask(p, r, delta - 1e-9), "p equal to delta"),
    ("certified_ratio", truthy, "not the same as None"),
    ("certified_ratio", zero_for_nothing, "nothing certified is None"),
    ("certified_ratio", lambda p, r, delta: fwer.fixed_sequence(p, delta).sum() - 1, "not its position"),
    ("certified_ratio", lambda p, r, delta: r[np.argmax(p > delta)], "last ratio of the grid"),
    ("fixed_sequence", lambda p, delta: fwer.fixed_sequence(p, 0.1), "the delta that is given"),
    ("fixed_sequence", lambda p, delta: np.arange(len(p)) < np.argmax(p > delta), "argmax of a mask"),
    ("fixed_sequence", lambda p, delta: ~fwer.fixed_sequence(p, delta), "not what failed"),
    ("certified_ratio", lambda p, r, delta: ratio_from_mask(p, r, 0.1), "the delta that is given"),
    ("certified_ratio", lambda p, r, delta: None, "is there a return"),
    ("certified_ratio", lambda p, r, delta: r[fwer.fixed_sequence(p, delta)].max(), "return None before"),
    ("multi_start", lambda p, delta, starts: fwer.fixed_sequence(p, delta / len(starts)), "not at index 0"),
    ("multi_start", lambda p, delta, starts: fwer.fixed_sequence(p, delta), "not at 0, and spends delta / k"),
    ("multi_start", lambda p, delta, starts: chain(p, delta / len(starts), starts[0]), "not from the first alone"),
    ("multi_start", lambda p, delta, starts: chain(p, delta, starts[0]), "not from the first alone, at delta / k"),
    ("multi_start", lambda p, delta, starts: chain(p, delta / len(starts), starts[-1]), "none replaces another"),
    ("multi_start", lambda p, delta, starts: fwer.multi_start(p, 0.1, starts), "the delta that is given"),
    (
        "multi_start",
        lambda p, delta, starts: fwer.multi_start(p, delta, starts) | (np.arange(len(p)) < min(starts)),
        "a chain begins at its start",
    ),
    (
        "multi_start",
        lambda p, delta, starts: fwer.multi_start(p, delta, starts) | (p.min() > delta),
        "rejecting nothing is a legal answer",
    ),
    ("multi_start", lambda p, delta, starts: fwer.multi_start(p, delta / 2, starts), "one start is the fixed sequence"),
    ("multi_start", later_chain_overwrites, "in any order"),
    ("multi_start", first_success, "the union of all chains"),
    ("multi_start", first_chain_decides, "ends its own chain only"),
    ("multi_start", full_delta, "delta / k, not delta"),
    ("multi_start", share_of_m, "not delta / m"),
    ("multi_start", intersection, "take the union"),
    ("multi_start", never_stops, "stops at its first failure"),
    ("two_way", better_end, "two chances at delta each"),
    ("two_way", both_in_full, "two chances at delta each"),
    ("two_way", lambda p, delta: p <= delta, "two chances at delta each"),
    ("two_way", lambda p, delta: p <= delta / 2, "without a stop"),
    ("two_way", lambda p, delta: p <= 2 * delta / len(p), "without a stop"),
    ("two_way", lambda p, delta: both_ways(p, 0.6 * delta), "together the two directions may spend delta"),
    ("two_way", lambda p, delta: both_ways(p, delta / 2) | ((p <= delta / 2) & (p[0] == 0)), "began well"),
    ("two_way", lambda p, delta: p < 2, "nothing may be certified"),
    ("two_way", lambda p, delta: p < 0, "every candidate is clearly safe"),
    ("two_way", lambda p, delta: both_ways(p, delta / 2)[[0, 1, 2]], "for all p-values and any m"),
    ("two_way", lambda p, delta: both_ways(p, delta / 2).any(), "got shape ()"),
    ("two_way", fwer.fixed_sequence, "blind at its other end"),
    ("two_way", lambda p, delta: fwer.fixed_sequence(p[::-1], delta)[::-1], "blind at its other end"),
    ("two_way", lambda p, delta: with_the_failure(p, delta / 2), "the failure is not certified"),
    ("two_way", lambda p, delta: both_ways(p, 1 - (1 - delta) ** 0.5), "the worst dependence, not luck"),
    ("two_way", lambda p, delta: p <= 1 - (1 - delta) ** (1 / len(p)), "the worst dependence, not luck"),
    ("two_way", both_in_full, "in 20.0% of 2000 repetitions something false is certified"),
    (
        "two_way",
        lambda p, delta: fwer.fixed_sequence(p, delta / 2) | fwer.fixed_sequence(p[::-1], delta / 2),
        "round again",
    ),
    (
        "two_way",
        lambda p, delta: fwer.fixed_sequence(p, delta / 2) & fwer.fixed_sequence(p[::-1], delta / 2)[::-1],
        "take the union",
    ),
    ("two_way", lambda p, delta: both_ways(p, delta / 10), "half of it each"),
]


(
    test_right_answers_are_accepted,
    test_wrong_answers_are_refused_by_name,
    test_every_misconception_of_a_checker_is_told_to_somebody,
) = right_and_wrong(RIGHT, WRONG)


# Figures


def test_a_sequence_shows_what_it_has_seen_and_no_more():
    p = (0.01, 0.02, 0.3, 0.04)
    alts = [plots.sequence(p, delta=0.1, step=step).alt for step in range(5)]
    assert "Test 1: not yet tested" in alts[0]
    assert "test 2: p = 0.02, certified; test 3: not yet tested" in alts[2]
    assert "test 3: p = 0.3, stop; test 4: never tested" in alts[3]
    assert alts[3] == alts[4] == plots.sequence(p, delta=0.1).alt  # a stopped sequence goes no further
    assert "p = 0.04" not in alts[4]


@pytest.mark.parametrize("p", plots.SEQUENCES.values())
def test_the_explorers_sequences_stop_where_the_rule_does(p):
    alt = plots.sequence(p, delta=0.1).alt
    assert alt.count("certified") == fwer.fixed_sequence(p, 0.1).sum()
    assert ("stop" in alt) == (max(p) > 0.1)


def test_error_intervals_are_exact_and_mark_only_the_broken():
    picture = plots.error_intervals({"held": ErrorRate(110, 1000, 0.1), "peeked": ErrorRate(180, 1000, 0.1)}, title="t")
    for errors in (110, 180):
        low, high = binomtest(errors, 1000).proportion_ci(0.95, method="exact")
        assert f"({100 * low:.1f} to {100 * high:.1f})" in picture.alt
    assert picture.alt.count("broken") == 1 and "peeked 18.0 % (15.7 to 20.5), broken" in picture.alt
    quiet = plots.error_intervals({"none": ErrorRate(0, 50, 0.1)}, title="breaks the promise")
    assert quiet.axes[0].get_title(loc="left").startswith("No rule")


def test_orders_tells_the_median_and_the_abstentions():
    ratio, risk = np.array([0.8, 0.9, 0.9, np.nan]), np.array([0.01, 0.06, 0.06, np.nan])
    one = Splits(ratio, risk, np.zeros(4), 0.05, 0.1, risk > 0.05)
    none = Splits(np.full(2, np.nan), np.full(2, np.nan), np.full(2, np.nan), 0.05, 0.1, np.zeros(2))
    alt = plots.orders({"forward": one, "backward": none}).alt
    assert "forward: median 0.9, nothing certified in 25.0 %, risk beyond alpha in 50.0 %" in alt
    assert "backward: nothing ever certified, risk beyond alpha in 0.0 %" in alt


def test_chains_tells_what_one_and_several_starts_certify():
    p = np.array([0.9, 0.9, 0.01, 0.01, 0.9])
    picture = plots.chains([0, 0.2, 0.4, 0.6, 0.8], [0.3, 0.2, 0.1, 0.1, 0.4], p, alpha=0.2, delta=0.1, starts=[0, 2])
    assert "one start at ratio 0 and delta = 0.1: nothing certified; with 2 starts" in picture.alt
    assert picture.alt.endswith("certified up to 0.6.")
    assert crosses(picture.axes[1]) == [[0.2]]  # the first chain fails at once, the second goes on to its failure


def test_certified_against_counts_nothing_as_none_and_draws_no_line_there():
    picture = plots.certified_against([10, 20], {"a": [[np.nan, np.nan, 0.9], [0.5, 0.6, 0.7]]}, xlabel="digits n")
    assert picture.alt == "Median certified ratio. a: none at n 10, 0.6 at n 20."
    line, none = picture.axes[0].lines
    assert np.isnan(line.get_ydata()).tolist() == [True, False] and none.get_xydata().tolist() == [[10, 0]]


# One convention: tested is what comes up to the first failure, and what comes after it is a grey cross


def crosses(ax):
    return [line.get_xdata().tolist() for line in ax.lines if line.get_label() == "never tested"]


def test_what_comes_after_the_first_failure_was_never_tested():
    table = np.repeat([[0, 0, 1, 0]], 90, axis=0)
    settings = {"ratios": [0.2, 0.4, 0.6, 0.8], "alpha": 0.05, "delta": 0.1}
    result = calibrate_losses(table, **settings)
    assert result.tested.tolist() == [True, True, True, False]
    assert "2 of 3 tested ratios certified, 4 in the grid" in repr(result).replace("\n", " ")
    for picture in (plots.grid_of_tests(result, [0, 0, 1, 0]), result.plot(focus=False)):
        assert [crosses(ax) for ax in picture.axes] == [[[0.8]]] * 2
    assert "3 of 4 tested" in result.plot().alt and result.plot(focus=False).alt.endswith("Crosses were never tested.")
    every = calibrate_losses(table, procedure="holm", **settings)
    assert every.tested.all() and crosses(every.plot(focus=False).axes[0]) == []
    assert calibrate_losses(table[:, :2], [0.2, 0.4], alpha=0.05, delta=0.1).tested.all()


def test_the_grid_of_tests_keeps_its_axes():
    ratios, rising = np.arange(10) / 10, np.linspace(0, 0.2, 10)
    levels = {"alpha": 0.05, "delta": 0.1, "n": 50}
    for p in (np.linspace(0, 1, 10), np.ones(10)):
        evidence = {"p_values": p, "rejected": p <= 0.1, "tested": np.full(10, True)}
        result = SimpleNamespace(ratios=ratios, loss_means=rising, **evidence, **levels)
        picture = plots.grid_of_tests(result, rising)
        assert [ax.get_xlim() for ax in picture.axes] == [(-0.02, 1.02)] * 2
    assert picture.alt == "n = 50, alpha = 0.05, delta = 0.1: nothing certified."


# Explorers


def drawn_once(monkeypatch, explorer):
    shown = []
    monkeypatch.setattr(controls, "display", shown.append)
    explorer()
    (picture,) = shown
    return picture.alt


def test_sequence_explorer_starts_with_the_first_test(monkeypatch):
    alt = drawn_once(monkeypatch, widgets.sequence_explorer)
    assert "Test 1: p = 0.0004, certified; test 2: not yet tested" in alt


def test_calibration_explorer_is_calibrate_losses(monkeypatch):
    losses, ratios = data.mnist_losses()
    alt = drawn_once(monkeypatch, partial(widgets.calibration_explorer, 0.05, 0.1, 300))
    assert f"certified up to {calibrate_losses(losses[:300], ratios, alpha=0.05, delta=0.1).ratio:g}," in alt


def test_calibration_explorer_computes_p_values_only_when_they_change(monkeypatch):
    calls, kept = [], {}
    monkeypatch.setattr(widgets, "explore", lambda draw, **controls: kept.update(draw=draw, controls=controls))
    monkeypatch.setattr(widgets.pvalues, "p_values", lambda *a: calls.append(a[1:]) or p_values(*a))
    widgets.calibration_explorer()
    values = {name: control.value for name, control in kept["controls"].items()}
    kept["draw"](**values)
    for change in ({"delta": 0.2}, {"procedure": "holm"}, {"procedure": "multi_start, 4 starts"}):
        kept["draw"](**values | change)
    assert len(calls) == 1
    kept["draw"](**values | {"n": 50})
    assert len(calls) == 2


# Claims of the lesson


def nested(risks, n, trials, rng):
    return rng.multinomial(n, np.diff(risks, prepend=0, append=1), size=trials)[:, :-1].cumsum(axis=1)


def independent(risks, n, trials, rng):
    return rng.binomial(n, risks, size=(trials, len(risks)))


@pytest.mark.parametrize("counts", [independent, nested])
@pytest.mark.parametrize("order", ["forward", "backward", "random"])
def test_every_fixed_order_holds_delta(counts, order):
    rng = np.random.default_rng(1)
    risks = 0.05 * np.r_[np.linspace(0.1, 0.6, 20), np.full(20, 1.001)]
    walk = {"forward": np.arange(40), "backward": np.arange(40)[::-1], "random": rng.permutation(40)}[order]
    p = binomial(counts(risks, 1000, 4000, rng), 1000, 0.05)[:, walk]
    false = (fwer.fixed_sequence(p, 0.1) & (risks > 0.05)[walk]).any(axis=1)
    first_unsafe = np.argmax((risks > 0.05)[walk])
    assert (false == fwer.fixed_sequence(p, 0.1)[:, first_unsafe]).all()
    assert ErrorRate(int(false.sum()), 4000, 0.1).evidence > 1e-4
    unstopped = ((p <= 0.1) & (risks > 0.05)[walk]).any(axis=1)
    if counts is independent:  # the harness sees a broken rule
        assert ErrorRate(int(unstopped.sum()), 4000, 0.1).evidence < 1e-4


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        (better_end, True),
        (both_in_full, True),
        (lambda p, delta: p <= delta, True),
        (exercises.EXERCISES["two_way"].solution, False),
    ],
)
@pytest.mark.long
def test_peeking_at_the_ends_breaks_the_promise(rule, broken):
    p = np.random.default_rng(2).random((2000, 6)) * [1, 0, 0, 0, 0, 1]  # both ends unsafe, the middle surely safe
    false = sum(rule(row, 0.1)[[0, -1]].any() for row in p)
    assert (ErrorRate(int(false), 2000, 0.1).evidence < 1e-4) is broken


@pytest.mark.parametrize(("share", "broken"), [(1, True), (4, False)])
def test_each_start_must_pay(share, broken):
    p = np.random.default_rng(3).random((4000, 60))
    chains = [fwer.fixed_sequence(p[:, start:], 0.1 / share).any(axis=1) for start in (0, 15, 30, 45)]
    false = np.logical_or.reduce(chains).sum()
    assert (ErrorRate(int(false), 4000, 0.1).evidence < 1e-4) is broken


def test_as_many_starts_as_tests_are_bonferroni():
    p = np.random.default_rng(4).random((500, 12)) ** 3
    np.testing.assert_array_equal(fwer.multi_start(p, 0.1, range(12)), fwer.bonferroni(p, 0.1))


@pytest.mark.parametrize("method", METHODS)
def test_the_method_by_hand_is_calibrate_losses(method):
    losses, ratios = data.mnist_losses()
    for n in (20, 500):
        for alpha in (0.01, 0.1):
            p = p_values(losses[:n], alpha, method)
            for delta in (0.01, 0.3):
                package = calibrate_losses(losses[:n], ratios, alpha=alpha, delta=delta, p_value=method)
                assert package.rejected.tolist() == listed(p, delta)
                assert package.ratio == ratio_from_mask(p, ratios, delta)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("clt",)])
def test_below_the_zero_failure_rule_nothing_is_certified(method):
    for alpha, delta in ((0.05, 0.1), (0.01, 0.05), (0.2, 0.01)):
        n = int(np.ceil(np.log(delta) / np.log1p(-alpha)))
        clean = np.zeros((n, 1), dtype=bool)
        assert calibrate_losses(clean[:-1], [0.5], alpha=alpha, delta=delta, p_value=method).ratio is None
        if method in ("binomial", "tight"):
            assert calibrate_losses(clean, [0.5], alpha=alpha, delta=delta, p_value=method).ratio == 0.5


def test_the_lesson_imports_no_torch():
    notebook = Path(__file__).parents[2] / "notebooks" / "04_fixed_sequence_testing.ipynb"
    code = f"""
import os, sys
os.environ["CONFPRUNE_STATIC"] = "1"
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"{{name}} is not installed")
sys.meta_path.insert(0, Refuse())
import nbformat
cells = [c for c in nbformat.read({str(notebook)!r}, 4).cells if c.cell_type == "code"]
names = {{}}
for cell in cells:
    exec(cell.source, names)
    if "n_calibration: int" in cell.source:
        names.update(alpha=0.001, n_calibration=50)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "nothing certified: 50 digits" in done.stdout
