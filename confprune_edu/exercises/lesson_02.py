"""Checkers of lesson 02."""

import math
from collections.abc import Callable
from typing import Any

from scipy.special import ndtr, rel_entr

from confprune_edu.exercises.checker import Case, binomial_solution, compare, exercise, pmf


@exercise(
    hint="P[exactly k errors] = comb(n, k) alpha**k (1 - alpha)**(n - k). Which k are no worse than what you saw?",
    solution=binomial_solution,
)
def binomial_p_value(answer: Callable[..., Any]) -> None:
    """Check `answer(errors, n, alpha)`, the exact p-value of 0/1 losses."""
    cases: dict[Case, str] = {
        (0, 2, 0.5): "of the four outcomes of two examples, one has no error",
        (1, 3, 0.25): "sum the probabilities of 0, 1, ... up to `errors` errors under risk alpha",
        (5, 100, 0.1): "exact, not approximate: sum the binomial probabilities",
        (3, 3, 0.1): "no outcome is worse than all wrong, so that p = 1",
    }
    mistakes: dict[str, Callable[..., float]] = {
        "at most `errors` errors includes `errors` itself": lambda k, n, a: sum(pmf(i, n, a) for i in range(k)),
        "the p-value is the probability of so few errors or fewer, not of exactly so many": lambda k, n, a: pmf(
            k, n, a
        ),
        "few errors are the evidence: sum from 0 up, not from `errors` on": (
            lambda k, n, a: sum(pmf(i, n, a) for i in range(k, n + 1))
        ),
        "the null speaks of risk alpha, not of the observed mean": lambda k, n, a: binomial_solution(k, n, k / n),
        "this is the normal approximation, which guarantees nothing at finite n": (
            lambda k, n, a: ndtr((k - n * a) / math.sqrt(n * a * (1 - a)))
        ),
    }
    compare(answer, binomial_solution, "errors n alpha", cases, mistakes)


def _hoeffding_solution(loss_sum, n, alpha):
    mean = min(loss_sum / n, alpha)  # beyond alpha there is no evidence: p = 1
    entropy = (1 - mean) * math.log((1 - mean) / (1 - alpha))
    if mean > 0:  # 0 log 0 = 0
        entropy += mean * math.log(mean / alpha)
    return math.exp(-n * entropy)


@exercise(
    hint="exp(-n h1(a, alpha)) with a = min(loss_sum / n, alpha) and "
    "h1(a, b) = a log(a / b) + (1 - a) log((1 - a) / (1 - b)). What is 0 log 0?",
    solution=_hoeffding_solution,
)
def hoeffding_p_value(answer: Callable[..., Any]) -> None:
    """Check `answer(loss_sum, n, alpha)`, Hoeffding's p-value with the relative entropy."""
    cases: dict[Case, str] = {
        (5, 100, 0.1): "exp(-n h1(a, alpha)) with a = loss_sum / n",
        (2.5, 50, 0.2): "sums may be fractional: round nothing",
        (20, 100, 0.1): "a mean loss above alpha is no evidence: p = 1",
        (0, 20, 0.1): "0 log 0 is 0, its limit, so that p = (1 - alpha)**n",
    }
    mistakes: dict[str, Callable[..., float]] = {
        "this is the weaker exp(-2 n gap**2); the relative entropy gives more": (
            lambda s, n, a: math.exp(-2 * n * max(a - s / n, 0) ** 2)
        ),
        "h1(mean, alpha), the mean first: relative entropy is not symmetric": (
            lambda s, n, a: math.exp(-n * _entropy(a, min(s / n, a))) if s else 0.0
        ),
        "n examples: the relative entropy counts n times": lambda s, n, a: math.exp(-_entropy(min(s / n, a), a)),
        "a mean loss above alpha is no evidence for `risk <= alpha`: p = 1, cap the mean at alpha": (
            lambda s, n, a: math.exp(-n * _entropy(s / n, a))
        ),
    }
    compare(answer, _hoeffding_solution, "loss_sum n alpha", cases, mistakes)


def _entropy(a: float, b: float) -> float:
    return float(rel_entr(a, b) + rel_entr(1 - a, 1 - b))


def _tight_solution(loss_sum, n, alpha):
    def hinge(c):  # E(c - B)+ for B ~ Bin(n, alpha)
        return sum((c - k) * math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(c))

    return min(1, *(hinge(c) / (c - loss_sum) for c in range(math.floor(loss_sum) + 1, n + 1)))


@exercise(
    hint="For each integer c from floor(s) + 1 to n: E(c - B)+ is a sum over k < c of (c - k) P[B = k]. "
    "Divide by c - s, take the smallest, and cap it at 1.",
    solution=_tight_solution,
)
def tight_p_value(answer: Callable[..., Any]) -> None:
    """Check `answer(loss_sum, n, alpha)` for one 0 <= loss_sum < n, the best bound of a hinge."""
    cases: dict[Case, str] = {
        (0, 2, 0.5): "the candidates are c = 1 and c = 2; c = s is none, it would divide by zero",
        (5, 100, 0.1): "min over every integer c > s of E(c - B)+ / (c - s)",
        (5.2, 100, 0.1): "s need not be an integer: c starts above it, and c - s keeps its fraction",
        (3, 20, 0.2): "the smallest over all c, not over the first few",
        (0.9, 2, 0.5): "c = n is a candidate, too",
        (20, 100, 0.1): "a probability needs no bound above 1: cap it",
    }
    mistakes: dict[str, Callable[..., float]] = {
        "this is one hinge, c = floor(s) + 1; others may be lower": (
            lambda s, n, a: min(1, _hinge(math.floor(s) + 1, n, a) / (math.floor(s) + 1 - s))
        ),
        "(c - B)+ is never negative: where B exceeds c it counts as 0": (
            lambda s, n, a: min(1, *((c - n * a) / (c - s) for c in range(math.floor(s) + 1, n + 1)))
        ),
        "s need not be an integer: rounding it down claims evidence that is not there": (
            lambda s, n, a: _tight_solution(math.floor(s), n, a)
        ),
        "s need not be an integer: rounding it up is valid but gives evidence away": (
            lambda s, n, a: _tight_solution(math.ceil(s), n, a)
        ),
        "c = n is a candidate, too: range(a, b) stops before b": (
            lambda s, n, a: min([1, *(_hinge(c, n, a) / (c - s) for c in range(math.floor(s) + 1, n))])
        ),
        "a probability needs no bound above 1: cap it": (
            lambda s, n, a: min(_hinge(c, n, a) / (c - s) for c in range(math.floor(s) + 1, n + 1))
        ),
    }
    compare(answer, _tight_solution, "loss_sum n alpha", cases, mistakes)


def _hinge(c: int, n: int, alpha: float) -> float:
    return sum((c - k) * pmf(k, n, alpha) for k in range(c))


def _examples_needed_solution(errors, alpha, delta):
    n = max(errors, 1)
    while sum(math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(errors + 1)) > delta:
        n += 1  # more examples with the same errors: better evidence
    return n


@exercise(
    hint="Without an error the p-value is (1 - alpha)**n: solve for n. With errors there is no formula: start at "
    "n = errors and count upwards until the binomial p-value is at most delta.",
    solution=_examples_needed_solution,
)
def examples_needed(answer: Callable[..., Any]) -> None:
    """Check `answer(errors, alpha, delta)`, the smallest n at which so many errors certify by the binomial p-value."""
    cases: dict[Case, str] = {
        (0, 0.5, 0.25): "without an error p = (1 - alpha)**n, and 0.5**2 is at most 0.25",
        (0, 0.5, 0.3): "n is a whole number, the first with p <= delta",
        (0, 0.1, 0.1): "without an error p = (1 - alpha)**n",
        (1, 0.1, 0.1): "P[Bin(n, alpha) <= errors] must be at most delta",
        (4, 0.1, 0.05): "P[Bin(n, alpha) <= errors] must be at most delta",
    }

    def exact(delta: float, alpha: float) -> float:  # examples needed without an error, before rounding
        return math.log(delta) / math.log(1 - alpha)

    mistakes: dict[str, Callable[..., float]] = {
        "p equal to delta is still a rejection": (
            lambda k, a, d: _first(lambda n: binomial_solution(k, n, a) < d, max(k, 1))
        ),
        "one example too few: the last n that does not certify": (
            lambda k, a, d: _examples_needed_solution(k, a, d) - 1
        ),
        "n is a whole number of examples: round up": lambda k, a, d: exact(d, a),
        "every error costs examples: this is the answer for no error at all": (
            lambda k, a, d: _examples_needed_solution(0, a, d)
        ),
        "log(1 / delta) / alpha is a rule of thumb, safe but too large, and knows no errors": (
            lambda k, a, d: math.ceil(math.log(1 / d) / a)
        ),
        "a mean below alpha is no evidence yet: it may be luck": lambda k, a, d: math.floor(k / a) + 1,
        "at most `errors` errors includes `errors` itself": (
            lambda k, a, d: _first(lambda n: sum(pmf(i, n, a) for i in range(k)) <= d, max(k, 1))
        ),
    }
    compare(answer, _examples_needed_solution, "errors alpha delta", cases, mistakes)


def _first(accept: Callable[[int], bool], start: int) -> int:
    n = start
    while not accept(n):
        n += 1
    return n
