"""Exercises of lesson 02."""

import itertools
import math
import operator
from collections.abc import Callable

from scipy.special import ndtr, rel_entr

from confprune_edu.exercises.binomial import pmf, tail
from confprune_edu.exercises.checker import Answer, exercise


@exercise(
    mistakes={
        "at most `errors` errors includes `errors` itself": lambda k, n, a: tail(k - 1, n, a),
        "the p-value is the probability of so few errors or fewer, not of exactly so many": pmf,
        "few errors are the evidence: sum from 0 up, not from `errors` on": lambda k, n, a: 1 - tail(k - 1, n, a),
        "few errors are the evidence: this is the probability of more errors": lambda k, n, a: 1 - tail(k, n, a),
        "the null speaks of risk alpha, not of the observed mean": lambda k, n, a: tail(k, n, k / n),
        "one side is enough: many errors are no evidence, so nothing is doubled": (
            lambda k, n, a: min(1, 2 * tail(k, n, a))
        ),
        "this is the normal approximation, which guarantees nothing at finite n": (
            lambda k, n, a: ndtr((k - n * a) / math.sqrt(n * a * (1 - a)))
        ),
    },
)
def binomial_p_value(errors, n, alpha):
    """Return the exact p-value of 0/1 losses, a number."""
    # every outcome with at most `errors` errors, each with its probability under risk alpha
    return sum(math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(errors + 1))


def _entropy(a: float, b: float) -> float:
    return float(rel_entr(a, b) + rel_entr(1 - a, 1 - b))


def _power(base: float = math.e, log: float = math.e, n: int | None = None) -> Answer:
    """base ** (-n h1), with logarithms to the base `log` in h1, and `n` in place of the number of examples."""
    return lambda s, m, a: base ** (-(n or m) * _entropy(min(s / m, a), a) / math.log(log))


@exercise(
    mistakes={
        "this is the weaker exp(-2 n gap**2); the relative entropy gives more": (
            lambda s, n, a: math.exp(-2 * n * max(a - s / n, 0) ** 2)
        ),
        "h1(mean, alpha), the mean first": lambda s, n, a: math.exp(-n * _entropy(a, min(s / n, a))),
        "n examples: the relative entropy counts n times": _power(n=1),
        "a mean loss above alpha is no evidence for `risk <= alpha`: p = 1, cap the mean at alpha": (
            lambda s, n, a: math.exp(-n * _entropy(s / n, a))
        ),
        "the sign: evidence makes the p-value small, exp(-n h1), not exp(n h1)": _power(1 / math.e),
        "the sign: exp(n h1) is never below 1, also where it is capped": lambda s, n, a: 1,
        "the base: logarithms are natural ones, as exp is, not of base 2": _power(log=2),
        "the base: logarithms are natural ones, as exp is, not of base 10": _power(log=10),
        "the base: exp and log belong together, and this is a power of 2": _power(2),
        "this is h1 alone: the p-value is exp(-n h1)": lambda s, n, a: _entropy(min(s / n, a), a),
    }
)
def hoeffding_p_value(loss_sum, n, alpha):
    """Return Hoeffding's p-value with the relative entropy, a number."""
    mean = min(loss_sum / n, alpha)  # beyond alpha there is no evidence: p = 1
    entropy = (1 - mean) * math.log((1 - mean) / (1 - alpha))
    if mean > 0:  # 0 log 0 = 0
        entropy += mean * math.log(mean / alpha)
    return math.exp(-n * entropy)


def _hinges(s: float, n: int, alpha: float) -> list[float]:
    """E(c - B)+ / (c - s) for every c, and the cap."""
    return [sum((c - k) * pmf(k, n, alpha) for k in range(c)) / (c - s) for c in range(math.floor(s) + 1, n + 1)] + [1]


@exercise(
    mistakes={
        "every c gives a bound that holds: take the smallest, not the largest": (
            lambda s, n, a: min(1, max(_hinges(s, n, a)[:-1]))
        ),
        "this is one hinge, c = floor(s) + 1; others may be lower": lambda s, n, a: min(1, _hinges(s, n, a)[0]),
        "(c - B)+ is never negative: where B exceeds c it counts as 0": (
            lambda s, n, a: min(1, *((c - n * a) / (c - s) for c in range(math.floor(s) + 1, n + 1)))
        ),
        "rounding s down claims evidence that is not there": lambda s, n, a: min(_hinges(math.floor(s), n, a)),
        "rounding s up is valid but gives evidence away": lambda s, n, a: min(_hinges(math.ceil(s), n, a)),
    }
)
def tight_p_value(loss_sum, n, alpha):
    """Return the best bound of a hinge for one 0 <= loss_sum < n, a number."""

    def hinge(c):  # E(c - B)+ for B ~ Bin(n, alpha)
        return sum((c - k) * math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(c))

    return min(1, *(hinge(c) / (c - loss_sum) for c in range(math.floor(loss_sum) + 1, n + 1)))


def _certify(k: int, a: float, d: float, passes: Callable[[float, float], bool] = operator.le) -> int:
    return next(n for n in itertools.count(max(k, 1)) if passes(tail(k, n, a), d))


@exercise(
    mistakes={
        "p equal to delta is still a rejection": lambda k, a, d: _certify(k, a, d, operator.lt),
        "one example too few: the last n that does not certify": lambda k, a, d: _certify(k, a, d) - 1,
        "n is a whole number of examples: round up": lambda k, a, d: math.log(d) / math.log(1 - a),
        "every error costs examples: this is the answer for no error at all": lambda k, a, d: _certify(0, a, d),
        "log(1 / delta) / alpha is a rule of thumb, safe but too large, and knows no errors": (
            lambda k, a, d: math.ceil(math.log(1 / d) / a)
        ),
        "a mean below alpha is no evidence yet: it may be luck": lambda k, a, d: math.floor(k / a) + 1,
        "at most `errors` errors includes `errors` itself": lambda k, a, d: _certify(k - 1, a, d),
        "alpha and delta have changed places": lambda k, a, d: _certify(k, d, a),
    }
)
def examples_needed(errors, alpha, delta):
    """Return the smallest n at which so many errors certify by the binomial p-value."""
    n = max(errors, 1)
    while sum(math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(errors + 1)) > delta:
        n += 1  # more examples with the same errors: better evidence
    return n
