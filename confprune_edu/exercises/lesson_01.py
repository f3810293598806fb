"""Checkers of lesson 01."""

from collections.abc import Callable
from typing import Any

import numpy as np

from confprune_edu.exercises.checker import exercise

# Lesson 01


def _global_mask_solution(weights, ratio):
    flat = np.concatenate([np.abs(w).ravel() for w in weights])
    gone = np.zeros(len(flat), dtype=bool)
    gone[np.argsort(flat, kind="stable")[: round(ratio * len(flat))]] = True
    ends = np.cumsum([w.size for w in weights])[:-1]
    return [part.reshape(w.shape) for part, w in zip(np.split(gone, ends), weights, strict=True)]


MASK_CASES: list[tuple[list[Any], float, str]] = [
    ([[1, 2, 3, 4]], 0.25, "True marks the weights that go, the smallest"),
    ([[-3, 1, 2, -4]], 0.5, "the size of a weight is |w|: -4 is large"),
    ([[1, 2], [3, 4]], 0.5, "one order for all layers together, not a share of each layer"),
    ([[2, 2, 2, 2]], 0.5, "exactly round(ratio * N) weights go; among equal ones the first by position"),
    ([[1, 2, 3, 4, 5, 6, 7]], 0.4, "round(0.4 * 7) = 3 weights go: round, do not cut off"),
    ([[3, 4], [1, 2]], 0.0, "ratio 0 removes nothing"),
    ([[[1, 4], [3, 2]], [5, 6]], 0.5, "each mask has the shape of its weights"),
    ([[1.0] * 40, [1.0] * 60], 0.7, "ties go by position: sort with kind='stable'"),
]


@exercise(
    hint="Put all |w| into one long array, find the places of the round(ratio * N) smallest with a stable argsort, "
    "mark them in one long mask, and cut that into the shapes of the layers.",
    solution=_global_mask_solution,
)
def global_mask(answer: Callable[..., Any]) -> None:
    """Check `answer(weights, ratio)`, a list of bool masks, one a layer, True where a weight goes."""
    for layers, ratio, misconception in MASK_CASES:
        want = [m.tolist() for m in _global_mask_solution([np.array(layer, float) for layer in layers], ratio)]
        masks = [np.asarray(mask) for mask in answer([np.array(layer, float) for layer in layers], ratio)]
        got = [np.asarray(mask, dtype=bool).tolist() for mask in masks]
        where = f"weights = {layers}" if len(layers[0]) < 9 else f"{sum(map(len, layers))} equal weights in two layers"
        detail = f": want {want}, got {got}" if len(layers[0]) < 9 else ""
        assert got == want, f"{where}, ratio = {ratio}{detail} ({misconception})"


def _loop_amounts_solution(ratios):
    amounts, reached = [], 0.0
    for ratio in ratios:
        amounts.append((ratio - reached) / (1 - reached))
        reached = ratio
    return amounts


@exercise(
    hint="Before a step the share `reached` is zero, so 1 - reached is left. Removing a fraction a of what is left "
    "adds a (1 - reached) to the zeros. Solve for a.",
    solution=_loop_amounts_solution,
)
def loop_amounts(answer: Callable[..., Any]) -> None:
    """Check `answer(ratios)`: what each step of a loop on one model must remove of what is left to reach the ratios."""
    for ratios in ((0.5,), (0.1, 0.2), (0.1, 0.2, 0.3), (0.5, 0.5, 0.9), (0.0, 0.2)):
        want, got = _loop_amounts_solution(ratios), [float(a) for a in answer(list(ratios))]
        known = (
            (ratios, "these compound: each amount is a share of what is left, not of all weights"),
            (np.diff(ratios, prepend=0.0), "differences are shares of all weights; divide by the share that is left"),
            ([(b - a) / b if b else 0 for a, b in zip((0, *ratios), ratios, strict=False)],
             "divide by what is left before the step, 1 - reached, not by the goal"),
        )  # fmt: skip
        near = [why for wrong, why in known if len(got) == len(wrong) and np.allclose(got, wrong)]
        why = near[0] if near else "one amount a ratio: the step removes amount * (1 - reached)"
        assert len(got) == len(want) and np.allclose(got, want), (
            f"ratios = {list(ratios)}: want {np.round(want, 4).tolist()}, got {np.round(got, 4).tolist()} ({why})"
        )


def _csr_break_even_solution(rows, columns):
    weights = rows * columns
    for zeros in range(weights + 1):
        if (weights - zeros) * (4 + 4) + (rows + 1) * 4 < weights * 4:
            return zeros
    return None


@exercise(
    hint="Dense: 4 bytes a weight, zero or not. CSR: 8 bytes a non-zero weight and 4 bytes for each of rows + 1 "
    "pointers. Write down both sizes and find the first number of zeros for which CSR is strictly smaller.",
    solution=_csr_break_even_solution,
    none_is_an_answer=True,
)
def csr_break_even(answer: Callable[..., Any]) -> None:
    """Check `answer(rows, columns)`: the smallest number of zeros for which CSR is smaller than dense, or None."""
    for rows, columns in ((4, 10), (1, 10), (1, 1), (100, 30)):
        want, got, n = _csr_break_even_solution(rows, columns), answer(rows, columns), rows * columns
        known = {
            None: "enough zeros always help, unless the matrix is too small for its pointers",
            1: "a single zero saves nothing: CSR pays 8 bytes for each weight that is left",
            n // 2 + 1: "do not forget the rows + 1 pointers",
            (want or 0) - 1: "at equality nothing is saved: CSR must be smaller",
            n - (want or 0): "count the zeros, not the weights that are left",
        }
        why = "it may never pay: then the answer is None" if want is None else known.get(got, "compare the two sizes")
        assert got == want, f"{rows} x {columns}: want {want}, got {got} ({why})"
