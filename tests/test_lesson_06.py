"""Lesson 06: its checkers accept every right form and refuse each misconception; its figures and claims."""

import math

import numpy as np
import pytest

from confprune_edu import exercises
from confprune_edu.pvalues import binomial

NAMES = ("selective_p_value", "certified_rows", "best_pair")


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
    ("certified_rows", lambda p, delta: walked(p, delta).tolist()),
    ("certified_rows", lambda p, delta: np.cumprod(p <= delta / len(p), axis=1)),
    ("best_pair", by_sorting),
    ("best_pair", lambda *args: None if (found := by_sorting(*args)) is None else list(found)),
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_every_right_form_is_accepted(name, answer, capsys):
    getattr(exercises, name)(answer)
    assert capsys.readouterr().out == f"{name}: correct\n"


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
    ("selective_p_value", no_errors_seen, r"errors among the answered\]"),
    ("certified_rows", share(lambda p: p.size if len(p) == 1 else len(p)), "only the rows share it"),
    ("certified_rows", share(lambda p: 1), "delta / m, not delta"),
    ("certified_rows", share(lambda p: p.size), "only the rows share it"),
    ("certified_rows", share(lambda p: len(p) * (1 if p.shape[1] < 3 or len(p) == 1 else 3)), r"not delta / \(m t\)"),
    ("certified_rows", lambda p, delta: p <= delta / len(p), "a row stops at its first failure"),
    ("certified_rows", first_row_decides, "ends itself only"),
    ("certified_rows", from_the_lenient_end, "not from the lenient end"),
    ("certified_rows", lambda p, delta: np.logical_and.accumulate(p < delta / len(p), axis=1), "p equal to delta / m"),
    ("certified_rows", at_least_one, "rejecting nothing is a legal answer"),
    ("certified_rows", lambda p, delta: walked(p, delta).any(axis=1), r"shape \(1, 2\).*got shape \(1,\)"),
    ("certified_rows", lambda p, delta: p, "True or False"),
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
    ("best_pair", lambda *args: None, "want .*got None"),
]


@pytest.mark.parametrize(("name", "answer", "misconception"), WRONG)
def test_every_misconception_is_refused_by_name(name, answer, misconception):
    with pytest.raises(AssertionError, match=misconception):
        getattr(exercises, name)(answer)


@pytest.mark.parametrize(
    "hints",
    [
        list(exercises.PAIR_CASES.values()),
        list(exercises.ROWS_CASES.values()),
        [case[-1] for case in exercises.BEST_PAIR_CASES],
    ],
)
def test_every_case_is_the_reason_for_a_refusal(hints):
    """No case is dead: for each of them there is a wrong answer that all the others let pass."""
    said = []
    for name, answer, _ in WRONG:
        with pytest.raises(AssertionError) as refusal:
            getattr(exercises, name)(answer)
        said.append(str(refusal.value))
    assert [hint for hint in hints if not any(hint in text for text in said)] == []
