"""Exercises of lesson 10."""

import math
from statistics import NormalDist

import numpy as np

from confprune_edu.exercises.checker import exercise


def _end(failures, n, tail):
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        likely = sum(math.comb(n, k) * middle**k * (1 - middle) ** (n - k) for k in range(failures + 1)) > tail
        low, high = (middle, high) if likely else (low, middle)
    return high


def _normal_end(failures, n, z):
    mean = failures / n
    return mean + z * math.sqrt(mean * (1 - mean) / n)


@exercise(
    mistakes={
        "a normal interval: no failure leaves it no width at all, however few the examples": (
            lambda k, n, d: _normal_end(k, n, NormalDist().inv_cdf(1 - d))
        ),
        "one standard error is not delta, and no failure leaves it no width at all": (
            lambda k, n, d: _normal_end(k, n, 1)
        ),
        "one end only: it may spend all of delta, not delta / 2": lambda k, n, d: _end(k, n, d / 2),
        "at most so many failures: `failures` itself is among the outcomes that count": (
            lambda k, n, d: _end(k - 1, n, d) if k else 0.0
        ),
        "this is where so *many* failures become unlikely; ask for so few": lambda k, n, d: _end(k, n, 1 - d),
    }
)
def exact_end(failures, n, delta):
    """Return the upper end, a number: the risk at which so few failures have probability delta."""
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        risk = (low + high) / 2
        so_few = sum(math.comb(n, k) * risk**k * (1 - risk) ** (n - k) for k in range(failures + 1))
        if so_few > delta:  # not yet unlikely: the end is further up
            low = risk
        else:
            high = risk
    return high


def _evaluated(passed, block):
    """In blocks, up to the first that did not pass."""
    first = len(passed) - 1 if passed.all() else int(np.argmin(passed))
    return -(-(first + 1) // block) * block


@exercise(
    mistakes={
        "the network that fails has to be evaluated, too: nobody knows beforehand": (
            lambda p, d, block: int(np.logical_and.accumulate(p <= d).sum())
        ),
        "a block is evaluated as a whole: round up": lambda p, d, block: _evaluated(p <= d, 1),
        "the grid ends: no more networks than there are": lambda p, d, block: _evaluated(p <= d, block),
        "networks beyond the block of the first failure are not evaluated": lambda p, d, block: len(p),
        "networks, not blocks": lambda p, d, block: _evaluated(p <= d, block) // block,
        "p equal to delta passes": lambda p, d, block: min(_evaluated(p < d, block), len(p)),
    }
)
def networks_evaluated(p_values, delta, block):
    """Return how many networks are evaluated, a whole number."""
    evaluated = 0
    while evaluated < len(p_values):
        evaluated = min(evaluated + block, len(p_values))  # the next block, which may be cut by the end of the grid
        if max(p_values[:evaluated]) > delta:
            break
    return evaluated


def _first_best(losses):
    """For each ratio the seed with the fewest failures, the first of several."""
    return losses.sum(axis=1).argmin(axis=0)


def _of(seeds, losses):
    return np.take_along_axis(losses.sum(axis=1), seeds[None], axis=0)[0]


@exercise(
    mistakes={
        "this is the leak itself: the examples that chose the seed are counted again": (
            lambda x: x.sum(axis=1).min(axis=0)
        ),
        "the second half chooses among the seeds, too: the minimum over them is a choice": (
            lambda x: x[:, x.shape[1] // 2 :].sum(axis=1).min(axis=0)
        ),
        "the second half helped to choose: choose with the first half alone": (
            lambda x: _of(_first_best(x), x[:, x.shape[1] // 2 :])
        ),
        "the first half chose, and counts again: count on the other half alone": (
            lambda x: _of(_first_best(x[:, : x.shape[1] // 2]), x)
        ),
        "halves are exchanged: the first half chooses, the other counts": (
            lambda x: _of(_first_best(x[:, x.shape[1] // 2 :]), x[:, : x.shape[1] // 2])
        ),
        "each ratio has a choice of its own, not one seed for all": (
            lambda x: x[x[:, : x.shape[1] // 2].sum(axis=(1, 2)).argmin(), x.shape[1] // 2 :].sum(axis=0)
        ),
        "a count, not a mean: p-values take counts": (
            lambda x: (
                _of(_first_best(x[:, : x.shape[1] // 2]), x[:, x.shape[1] // 2 :]) / (x.shape[1] - x.shape[1] // 2)
            )
        ),
    }
)
def fair_failures(losses):
    """Return the failures that may be counted, whole numbers of shape (m,)."""
    seeds, n, m = losses.shape
    choosing, counting = losses[:, : n // 2], losses[:, n // 2 :]
    failures = np.zeros(m, dtype=int)
    for j in range(m):
        best = min(range(seeds), key=lambda seed: choosing[seed, :, j].sum())  # the first of several
        failures[j] = counting[best, :, j].sum()
    return failures
