"""Exercises of lesson 06."""

import math
from typing import Any

import numpy as np

from confprune_edu.exercises.binomial import pmf, tail
from confprune_edu.exercises.checker import exercise


def _counts(answered: Any, wrong: Any) -> tuple[int, int]:
    """Errors among the answered digits, and their number."""
    return int(wrong[answered].sum()), int(answered.sum())


@exercise(
    mistakes={
        "a declined digit is not a digit that is right: the number of examples is that of the answered ones": (
            lambda c, wrong, t, a: tail(_counts(c >= t, wrong)[0], len(c), a)
        ),
        "the errors of declined digits do not count": (
            lambda c, wrong, t, a: tail(min(wrong.sum(), (c >= t).sum()), (c >= t).sum(), a)
        ),
        "an answer needs a confidence of at least the threshold, not below it": (
            lambda c, wrong, t, a: tail(*_counts(c < t, wrong), a)
        ),
        "the p-value is the probability of so few errors or fewer, not of exactly so many": (
            lambda c, wrong, t, a: pmf(*_counts(c >= t, wrong), a)
        ),
        "at most so many errors includes so many": (
            lambda c, wrong, t, a: tail(_counts(c >= t, wrong)[0] - 1, (c >= t).sum(), a)
        ),
        "this is the mean loss of the answered digits, not how often luck brings it about": (
            lambda c, wrong, t, a: _counts(c >= t, wrong)[0] / _counts(c >= t, wrong)[1]
        ),
        "the p-value is the probability of so few errors, not of more": (
            lambda c, wrong, t, a: 1 - tail(*_counts(c >= t, wrong), a)
        ),
        "count the errors among the answers, not the right answers": lambda c, wrong, t, a: tail(
            *_counts(c >= t, ~wrong), a
        ),
    },
)
def selective_p_value(confidence, wrong, threshold, alpha):
    """Return the exact p-value of one pair, a number, from arrays of shape (n,)."""
    answered = confidence >= threshold
    n, errors = int(answered.sum()), int(wrong[answered].sum())  # of the answered digits only
    # no answer is no evidence: the sum below is then P[Bin(0, alpha) <= 0] = 1
    return sum(math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(errors + 1))


@exercise(
    mistakes={
        "each row begins anew: a failure ends its own row only": lambda p, delta: np.logical_and.accumulate(
            (p <= delta / len(p)).ravel()
        ).reshape(p.shape),
        "walk along the rows, from column to column, not down the columns": lambda p, delta: np.logical_and.accumulate(
            p <= delta / len(p), axis=0
        ),
    },
)
def certified_rows(p_values, delta):
    """Return a bool mask of the shape (m, t) of the p-values, one entry a pair."""
    rejected = np.zeros(p_values.shape, dtype=bool)
    for j in range(len(p_values)):
        for k in range(p_values.shape[1]):  # strict to lenient
            if p_values[j, k] > delta / len(p_values):
                break
            rejected[j, k] = True
    return rejected


@exercise(parts=("ratio", "threshold"))
def best_pair(rejected, ratios, thresholds, coverage, min_coverage):
    """Return (ratio, threshold), two values, or None."""
    best = None
    for j in range(len(ratios)):  # gentle to aggressive: a later row overwrites an earlier one
        fine = [k for k in range(len(thresholds)) if rejected[j, k] and coverage[j, k] >= min_coverage]
        if fine:
            best = (float(ratios[j]), float(thresholds[max(fine, key=lambda k: coverage[j, k])]))
    return best
