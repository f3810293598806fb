"""Exercises of lesson 01."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from confprune_edu.exercises.checker import Answer, exercise


def _layers(weights: list[Any], ratio: float) -> list[Any]:
    return [[np.array(w, dtype=float) for w in weights], ratio]


@exercise(given=_layers)
def global_mask(weights, ratio):
    """Return a list of bool masks, one a layer, each of the shape of its weights, True where a weight goes."""
    flat = np.concatenate([np.abs(w).ravel() for w in weights])
    gone = np.zeros(len(flat), dtype=bool)
    gone[np.argsort(flat, kind="stable")[: round(ratio * len(flat))]] = True
    ends = np.cumsum([w.size for w in weights])[:-1]
    return [part.reshape(w.shape) for part, w in zip(np.split(gone, ends), weights, strict=True)]


def _steps(divisor):
    return lambda ratios: [(b - a) / divisor(a, b) for a, b in pairwise([0, *ratios])]


@exercise(
    given=lambda *args: copy.deepcopy(args),
    mistakes={
        "these compound: each amount is a share of what is left, not of all weights": lambda ratios: ratios,
        "differences are shares of all weights; divide by the share that is left": _steps(lambda a, b: 1),
        "divide by what is left before the step, 1 - reached, not by the goal": _steps(lambda a, b: b or 1),
        "divide by what is left before the step, not after it": _steps(lambda a, b: 1 - b),
        "this is the share that stays; the amount is the share that goes": (
            lambda ratios: [(1 - b) / (1 - a) for a, b in pairwise([0, *ratios])]
        ),
    },
)
def loop_amounts(ratios):
    """Return one amount a ratio: what a step must remove of what is left."""
    amounts, reached = [], 0.0
    for ratio in ratios:
        amounts.append((ratio - reached) / (1 - reached))
        reached = ratio
    return np.array(amounts)


def _pays(pointers: Callable[[int, int], int], entry: int = 8) -> Answer:
    """From which number of zeros on CSR saves bytes, with so many pointers and bytes an entry."""

    def answer(rows, columns):
        n = rows * columns
        saved = (4 * n - entry * (n - zeros) - 4 * pointers(rows, columns) for zeros in range(n + 1))
        return next((zeros for zeros, gain in enumerate(saved) if gain > 0), None)

    return answer


@exercise(
    mistakes={
        "a single zero saves nothing: CSR pays 8 bytes for each weight that is left": lambda r, c: 1,
        "do not forget the rows + 1 pointers": _pays(lambda r, c: 0),
        "CSR must be smaller, not as large, and it has one pointer more than rows": _pays(lambda r, c: r),
        "the pointers belong to rows, not to columns": _pays(lambda r, c: c + 1),
        "count the zeros, not the weights that are left": lambda r, c: r * c - _pays(lambda r, c: r + 1)(r, c),
        "4 bytes for a value, and 4 more for its column": _pays(lambda r, c: r + 1, entry=4),
    }
)
def csr_break_even(rows, columns):
    """Return the smallest number of zeros for which CSR is smaller than dense, or None."""
    weights = rows * columns
    for zeros in range(weights + 1):
        if (weights - zeros) * (4 + 4) + (rows + 1) * 4 < weights * 4:
            return zeros
    return None
