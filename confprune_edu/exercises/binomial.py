"""Binomial probabilities as plain sums, of which known wrong answers of lessons 02 and 06 are made."""

import math


def pmf(k: int, n: int, alpha: float) -> float:
    """P[B = k]."""
    return math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k)


def tail(k: int, n: int, alpha: float) -> float:
    """P[B <= k]."""
    return sum(pmf(i, n, alpha) for i in range(k + 1))
