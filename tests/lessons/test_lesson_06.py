"""Lesson 06: its checkers accept every right form and refuse each misconception; its claims."""

import math

import numpy as np
import pytest
from answers import right_and_wrong
from scipy.special import bdtr

from confprune_edu import selective
from confprune_edu.calibration import calibrate_losses
from confprune_edu.pvalues import binomial
from confprune_edu.validation import ErrorRate


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
