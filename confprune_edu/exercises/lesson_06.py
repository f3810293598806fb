"""Checkers of lesson 06."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from confprune_edu.exercises.checker import as_mask, binomial_solution, compare, exercise, near, pmf

# Lesson 06


def _selective_p_value_solution(confidence, wrong, threshold, alpha):
    answered = confidence >= threshold
    n, errors = int(answered.sum()), int(wrong[answered].sum())  # of the answered digits only
    # no answer is no evidence: the sum below is then P[Bin(0, alpha) <= 0] = 1
    return sum(math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(errors + 1))


PAIR_CASES: dict[Any, str] = {
    ((0.9, 0.8, 0.4), (0, 0, 1), 0.6, 0.1): "two digits are answered, both rightly: p = 0.9**2",
    ((0.9, 0.5, 0.4), (0, 0, 0), 0.5, 0.2): "confidence equal to the threshold is an answer",
    ((0.9, 0.8, 0.7, 0.6, 0.2), (0, 1, 0, 0, 1), 0.5, 0.5): "P[Bin(answered, alpha) <= errors among the answered]",
    ((0.4, 0.3), (1, 0), 0.5, 0.1): "nothing answered is no evidence: p = 1",
    ((0.9, 0.8), (1, 1), 0.5, 0.1): "no outcome is worse than all wrong, so that p = 1",
}


@exercise(
    hint="Keep the digits with confidence >= threshold. How many are they, and how many of them are wrong? Then it is "
    "the binomial p-value of lesson 02, at that number of digits. What is it if there are none?",
    solution=_selective_p_value_solution,
)
def selective_p_value(answer: Callable[..., Any]) -> None:
    """Check `answer(confidence, wrong, threshold, alpha)`, the exact p-value of one pair, from arrays of shape (n,)."""

    def arrays(confidence: Any, wrong: Any, threshold: float, alpha: float) -> Any:
        return answer(np.array(confidence), np.array(wrong, dtype=bool), threshold, alpha)

    mistakes: dict[str, Callable[..., float]] = {
        "a declined digit is not a digit that is right: the number of examples is that of the answered ones": (
            lambda c, w, t, a: binomial_solution(_answered(c, w, t)[1], len(c), a)
        ),
        "the errors of declined digits do not count": (
            lambda c, w, t, a: binomial_solution(min(sum(w), _answered(c, w, t)[0]), _answered(c, w, t)[0], a)
        ),
        "confidence equal to the threshold is an answer": (
            lambda c, w, t, a: binomial_solution(*_answered(c, w, t, strict=True)[::-1], a)
        ),
        "an answer needs a confidence of at least the threshold, not below it": (
            lambda c, w, t, a: binomial_solution(*_answered([-x for x in c], w, -t, strict=True)[::-1], a)
        ),
        "the p-value is the probability of so few errors or fewer, not of exactly so many": (
            lambda c, w, t, a: pmf(*_answered(c, w, t)[::-1], a)
        ),
    }
    compare(arrays, _pair_p_value, "confidence wrong threshold alpha", PAIR_CASES, mistakes)


def _pair_p_value(confidence: Any, wrong: Any, threshold: float, alpha: float) -> float:
    return binomial_solution(*_answered(confidence, wrong, threshold)[::-1], alpha)


def _answered(confidence: Any, wrong: Any, threshold: float, strict: bool = False) -> tuple[int, int]:
    """Answered examples, and the errors among them."""
    kept = [bool(w) for c, w in zip(confidence, wrong, strict=True) if c > threshold or (c == threshold and not strict)]
    return len(kept), sum(kept)


def _certified_rows_solution(p_values, delta):
    rejected = np.zeros(p_values.shape, dtype=bool)
    for j in range(len(p_values)):
        for k in range(p_values.shape[1]):  # strict to lenient
            if p_values[j, k] > delta / len(p_values):
                break
            rejected[j, k] = True
    return rejected


ROWS_CASES: dict[Any, str] = {
    ((0.09, 0.08),): "one row is a fixed sequence at the full delta: only the rows share it, not the thresholds",
    ((0.03, 0.04), (0.08, 0.09)): "each of m rows may spend delta / m, not delta",
    ((0.03, 0.04, 0.02), (0.04, 0.01, 0.04)): "delta / m, not delta / (m t): inside a row every test spends it again",
    ((0.01, 0.60), (0.02, 0.70)): "from the first column on, the strictest threshold, not from the lenient end",
    ((0.01, 0.60, 0.01), (0.01, 0.01, 0.01)): "a row stops at its first failure; what comes after it does not count",
    ((0.60, 0.01), (0.01, 0.02)): "a row that fails ends itself only, not the rows after it",
    ((0.05, 0.30), (0.01, 0.05)): "p equal to delta / m is still a rejection",
    ((0.90, 0.90), (0.90, 0.90)): "rejecting nothing is a legal answer: a mask without any True",
}


@exercise(
    hint="Bonferroni over the rows, and inside each row the fixed sequence of lesson 04, at the row's share of delta. "
    "`np.logical_and.accumulate(..., axis=1)` walks along all rows at once.",
    solution=_certified_rows_solution,
)
def certified_rows(answer: Callable[..., Any], delta: float = 0.1) -> None:
    """Check `answer(p_values, delta)` for p-values (m, t), which returns a bool mask of that shape."""
    for rows, misconception in ROWS_CASES.items():
        p = np.array(rows)
        want, got = _certified_rows_solution(p, delta), np.asarray(answer(p.copy(), delta))
        assert got.shape == p.shape, (
            f"return a bool mask of shape {p.shape}, one entry a pair; got shape {got.shape} (is there a return?)"
        )
        given = np.reshape(as_mask(got.ravel(), p.size), p.shape)
        assert (given == want).all(), (
            f"p = {p.tolist()}, delta = {delta}: want {want.tolist()}, got {given.tolist()} ({misconception})"
        )


def _best_pair_solution(rejected, ratios, thresholds, coverage, min_coverage):
    best = None
    for j in range(len(ratios)):  # gentle to aggressive: a later row overwrites an earlier one
        fine = [k for k in range(len(thresholds)) if rejected[j, k] and coverage[j, k] >= min_coverage]
        if fine:
            best = (float(ratios[j]), float(thresholds[max(fine, key=lambda k: coverage[j, k])]))
    return best


BEST_PAIR_CASES: list[tuple[Any, Any, float, str]] = [
    (
        ((1, 1), (1, 1)),
        ((0.6, 0.8), (0.5, 0.7)),
        0.0,
        "the largest ratio, and of its thresholds the one that answers most; values, not positions",
    ),
    (((1, 0), (0, 0)), ((0.6, 0.8), (0.5, 0.7)), 0.0, "a pair that is not certified is no answer, however good it is"),
    (
        ((1, 0), (1, 1)),
        ((0.9, 0.95), (0.5, 0.7)),
        0.8,
        "the largest ratio among the pairs that cover enough: a smaller one may be the answer",
    ),
    (((1, 1), (1, 1)), ((0.6, 0.8), (0.5, 0.7)), 0.7, "coverage equal to min_coverage is enough"),
    (((1, 1), (0, 0)), ((0.6, 1.0), (0.5, 1.0)), 0.9, "a ratio of 0 and a threshold of 0 are answers, not None"),
    (((1, 1), (1, 1)), ((0.6, 0.8), (0.5, 0.7)), 0.9, "no certified pair covers so much: None, not the nearest one"),
    (((0, 0), (0, 0)), ((0.6, 0.8), (0.5, 0.7)), 0.0, "nothing certified is None"),
]


@exercise(
    hint="Which pairs are certified and cover at least min_coverage? Their largest ratio; then, in that row, the "
    "largest coverage. Check first whether there is any such pair.",
    solution=_best_pair_solution,
    none_is_an_answer=True,
)
def best_pair(answer: Callable[..., Any]) -> None:
    """Check `answer(rejected, ratios, thresholds, coverage, min_coverage)`: (ratio, threshold) or None."""
    ratios, thresholds = np.array([0.0, 0.8]), np.array([0.9, 0.0])
    for rejected, coverage, floor, misconception in BEST_PAIR_CASES:
        mask, share = np.array(rejected, dtype=bool), np.array(coverage)
        want = _best_pair_solution(mask, ratios, thresholds, share, floor)
        case = f"rejected = {mask.tolist()}, coverage = {share.tolist()}, min_coverage = {floor}"
        try:
            got = answer(mask, ratios, thresholds, share, floor)
        except (IndexError, ValueError) as problem:
            raise AssertionError(f"{case}: {problem} (no pair is left: return None before a maximum)") from problem
        right = got is None if want is None else got is not None and near(got, want)
        assert right, (
            f"{case}, ratios {ratios.tolist()}, thresholds {thresholds.tolist()}: want {want}, got {got!r} "
            f"({misconception})"
        )
