"""Probabilities of B ~ Bin(n, alpha) as plain sums: what known mistakes are made of."""

import math


def pmf(k: int, n: int, alpha: float) -> float:
    """P[B = k]."""
    return math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k)


def tail(k: int, n: int, alpha: float) -> float:
    """P[B <= k]."""
    return sum(pmf(i, n, alpha) for i in range(k + 1))
