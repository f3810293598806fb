"""Checkers of lesson 04."""

from collections.abc import Callable
from typing import Any

import numpy as np

from confprune_edu.exercises.checker import as_mask, exercise, near
from confprune_edu.validation import ErrorRate

# Lesson 04


def _fixed_sequence_solution(p_values, delta):
    rejected = np.zeros(len(p_values), dtype=bool)
    for j, p in enumerate(p_values):
        if p > delta:
            break
        rejected[j] = True
    return rejected


SEQUENCE_CASES = {
    (0.05, 0.06, 0.07): "every test may spend all of delta, not delta / m",
    (0.01, 0.02, 0.20): "the test that fails is not certified: the last certified one comes before it",
    (0.05, 0.50, 0.02): "stop at the first failure in the given order; later p-values no longer count",
    (0.10, 0.20, 0.30): "p equal to delta is still a rejection",
    (0.05, 0.01, 0.03): "compare each p-value with delta, not with the one before: p-values need not rise",
    (0.90, 0.90, 0.90): "rejecting nothing is a legal answer: a mask without any True",
}


@exercise(
    hint="Walk through the p-values in the given order. What do you do at the first one above delta?",
    solution=_fixed_sequence_solution,
)
def fixed_sequence(answer: Callable[..., Any], delta: float = 0.1) -> None:
    """Check `answer(p_values, delta)`, which returns a bool mask of shape (m,)."""
    for p, misconception in SEQUENCE_CASES.items():
        want, got = _fixed_sequence_solution(p, delta).tolist(), as_mask(answer(np.array(p), delta), len(p))
        assert got == want, f"p = {list(p)}, delta = {delta}: want {want}, got {got} ({misconception})"


def _certified_ratio_solution(p_values, ratios, delta):
    certified = None
    for p, ratio in zip(p_values, ratios, strict=True):
        if p > delta:
            break
        certified = float(ratio)
    return certified


RATIO_CASES = {
    (0.01, 0.02, 0.03): "if every test passes, the answer is the last ratio of the grid",
    (
        0.01,
        0.02,
        0.30,
    ): "return the last ratio that passed, not the first that failed (and the ratio, not its position)",
    (0.01, 0.50, 0.60): "a certified ratio of 0 is an answer, not the same as None: ask `is None`, not for truth",
    (0.01, 0.30, 0.02): "stop at the first failure, also where a later p-value is small again",
    (0.01, 0.10, 0.40): "p equal to delta is still a rejection",
    (
        0.30,
        0.40,
        0.50,
    ): "nothing certified is None, not 0, -1, NaN or the first ratio: to use a ratio of 0 is a claim, too",
}


@exercise(
    hint="Start with certified = None, and overwrite it with each ratio whose test passes, until one fails.",
    solution=_certified_ratio_solution,
    none_is_an_answer=True,
)
def certified_ratio(answer: Callable[..., Any], delta: float = 0.1) -> None:
    """Check `answer(p_values, ratios, delta)`: the largest ratio that the fixed sequence certifies, or None."""
    ratios = np.array([0.0, 0.5, 0.8])
    for p, misconception in RATIO_CASES.items():
        want = _certified_ratio_solution(p, ratios, delta)
        try:
            got = answer(np.array(p), ratios, delta)
        except ValueError as problem:
            raise AssertionError(
                f"p = {list(p)}: {problem} (nothing passed: return None before a maximum)"
            ) from problem
        right = got is None if want is None else got is not None and near(got, want)
        assert right, f"p = {list(p)}, ratios = {ratios.tolist()}: want {want}, got {got!r} ({misconception})"


def _multi_start_solution(p_values, delta, starts):
    rejected = np.zeros(len(p_values), dtype=bool)
    for start in starts:
        for j in range(start, len(p_values)):
            if p_values[j] > delta / len(starts):
                break
            rejected[j] = True
    return rejected


STARTS_CASES: dict[tuple[Any, Any], str] = {
    ((0.09, 0.08, 0.50), (0,)): "one start is the fixed sequence at the full delta",
    ((0.01, 0.02, 0.01, 0.02), (0, 2)): "certified by any chain is certified: take the union",
    ((0.50, 0.02, 0.01, 0.60), (0, 1)): "a start that fails ends its own chain only, not the others",
    ((0.08, 0.50, 0.01, 0.07), (0, 2)): "each of k starts may spend delta / k, not delta",
    ((0.03, 0.50, 0.01, 0.02), (0, 2)): "the share is delta / (number of starts), not delta / m",
    ((0.01, 0.70, 0.02, 0.03), (0, 1)): "each chain stops at its first failure; what comes after it does not count",
    ((0.90, 0.90, 0.90, 0.90), (0, 2)): "rejecting nothing is a legal answer",
}


@exercise(
    hint="Two loops: over the starts, and from each start to the end or the first p-value above delta / len(starts).",
    solution=_multi_start_solution,
)
def multi_start(answer: Callable[..., Any], delta: float = 0.1) -> None:
    """Check `answer(p_values, delta, starts)`, which returns a bool mask of shape (m,)."""
    for (p, starts), misconception in STARTS_CASES.items():
        want = _multi_start_solution(p, delta, starts).tolist()
        got = as_mask(answer(np.array(p), delta, list(starts)), len(p))
        assert got == want, (
            f"p = {list(p)}, starts = {list(starts)}, delta = {delta}: want {want}, got {got} ({misconception})"
        )


def _two_way_solution(p_values, delta):
    p = np.asarray(p_values)
    forward = np.logical_and.accumulate(p <= delta / 2)  # two chains, fixed beforehand: half of delta for each
    backward = np.logical_and.accumulate(p[::-1] <= delta / 2)[::-1]
    return forward | backward


@exercise(
    hint="A false certificate needs a small p-value at one end OR at the other. What does the union bound say if both "
    "directions are always walked, and how much of delta may each of them spend?",
    solution=_two_way_solution,
)
def two_way(answer: Callable[..., Any], delta: float = 0.1) -> None:
    """Check `answer(p_values, delta)`: a bool mask (m,), valid whichever ends are bad, useful whichever end is good."""
    trials, rng = 2000, np.random.default_rng(0)
    for good, end in (((0.0, 0.0, 0.9, 0.9), "first"), ((0.9, 0.9, 0.0, 0.0), "last")):
        got = as_mask(answer(np.array(good), delta), 4)
        assert any(got), (
            f"p = {list(good)}: the two candidates at the {end} end are clearly safe, and none is certified (a "
            "direction fixed beforehand is valid, but blind at its other end: give both directions a share of delta)"
        )
        assert not any(mask and p > delta for mask, p in zip(got, good, strict=True)), (
            f"p = {list(good)}: a p-value of 0.9 was certified (the candidate that fails is not part of the chain)"
        )
    bad = np.array([True, False, False, True])
    p = np.where(bad, rng.random((trials, 4)), 0.0)  # both ends unsafe: their p-values are uniform, the worst case
    rate = ErrorRate(sum((np.array(as_mask(answer(row, delta), 4)) & bad).any() for row in p), trials, delta)
    assert rate.evidence > 1e-4, (
        f"both ends unsafe: {rate.rate:.1%} of {trials} certificates are false, {delta:.0%} are allowed "
        "(whoever lets the p-values choose the direction has tried both: two chances at delta each, about 2 delta)"
    )
