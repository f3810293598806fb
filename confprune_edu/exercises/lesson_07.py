"""Checkers of lesson 07."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from confprune_edu.exercises.checker import as_mask, compare, exercise, near, shown

# Lesson 07


def _mask_loss_solution(found, truth):
    total = found.sum() + truth.sum()
    return 1 - 2 * (found & truth).sum() / total if total else 0.0  # two empty masks agree perfectly


OVERLAP_CASES: dict[Any, str] = {
    ((1, 1, 0, 0), (1, 0, 0, 0)): "1 - 2 * overlap / (area of one + area of the other)",
    ((0, 1, 1, 0), (0, 0, 1, 1)): "the overlap is one pixel, the areas are two and two: 1 - 2 / 4",
    ((0, 0, 0, 0), (0, 0, 0, 0)): "two empty masks agree perfectly: the loss is 0, not 0 / 0",
    ((0, 1, 0, 0), (0, 0, 0, 0)): "a false alarm on an empty frame is a total failure: the loss is 1",
    ((0, 0, 0, 0), (1, 1, 0, 0)): "nothing found of a polyp is a total failure: the loss is 1",
    ((1, 0, 1, 0), (1, 0, 1, 0)): "equal masks have no loss",
}


@exercise(
    hint="Count pixels: those in both masks, those in the one, those in the other. And what do you divide by when both "
    "masks are empty?",
    solution=_mask_loss_solution,
)
def mask_loss(answer: Callable[..., Any]) -> None:
    """Check `answer(found, truth)`, which returns 1 - Dice of two bool masks of one shape."""

    def masks(found: Any, truth: Any) -> Any:
        return answer(*(np.array(mask, dtype=bool).reshape(2, 2) for mask in (found, truth)))

    mistakes: dict[str, Callable[..., float]] = {
        "this is 1 - IoU: Dice divides twice the overlap by the sum of the areas": (
            lambda a, b: 1 - _overlap(a, b) / (sum(a) + sum(b) - _overlap(a, b) or math.inf) - (not any(a + b))
        ),
        "this is Dice: the loss is 1 - Dice": lambda a, b: 1 - _dice_loss(a, b),
        "the overlap counts twice": lambda a, b: 1 - _overlap(a, b) / (sum(a) + sum(b)) if any(a + b) else 0.0,
        "two empty masks agree perfectly: the loss is 0": lambda a, b: _dice_loss(a, b) if any(a + b) else 1.0,
        "an empty and a non-empty mask do not agree at all: the loss is 1": (
            lambda a, b: _dice_loss(a, b) if any(a) and any(b) else 0.0
        ),
    }
    compare(masks, _dice_loss, "found truth", OVERLAP_CASES, mistakes)


def _overlap(a: Any, b: Any) -> int:
    return sum(map(min, a, b))


def _dice_loss(a: Any, b: Any) -> float:
    return 1 - 2 * _overlap(a, b) / (sum(a) + sum(b)) if any(a + b) else 0.0


def _video_means_solution(losses, videos):
    return np.array([losses[videos == v].mean(axis=0) for v in sorted(set(videos))])


VIDEO_CASES: list[tuple[Any, Any, str]] = [
    (
        ((0.0, 0.2), (0.4, 0.6), (1.0, 1.0)),
        (7, 7, 9),
        "a row a video: for each video the mean over its frames, by column",
    ),
    (((0.0,), (0.0,), (0.9,), (0.5,)), (4, 4, 4, 6), "the sum over the frames of a video, divided by their number"),
    (((0.0,), (1.0,), (0.5,)), (1, 2, 1), "the frames of a video need not stand side by side"),
    (((0.3,), (0.9,)), (5, 2), "in the order of the sorted labels, not of their first frames"),
    (((0.2, 0.4),), (3,), "one video of one frame is a table (1, m)"),
    (((0.6,), (0.6,), (0.0,)), (1, 1, 0), "a video with more frames counts no more than one with few"),
]


@exercise(
    hint="Which labels are there? `np.unique`. For each of them: the rows of its frames, and their mean over axis 0.",
    solution=_video_means_solution,
)
def video_means(answer: Callable[..., Any]) -> None:
    """Check `answer(losses, videos)`, which returns one row of mean losses a video."""
    for losses, videos, misconception in VIDEO_CASES:
        table, labels = np.array(losses), np.array(videos)
        want, got = _video_means_solution(table, labels), answer(table.copy(), labels.copy())
        assert near(got, want), (
            f"losses {table.tolist()}, videos {list(videos)}: want {shown(want)}, got {shown(got)} ({misconception})"
        )


def _every_hospital_solution(p_values, delta):
    worst = p_values.max(axis=0)  # "too bad in some hospital" is refuted where it is refuted for the worst
    return np.logical_and.accumulate(worst <= delta)


HOSPITAL_CASES: dict[Any, str] = {
    ((0.01, 0.02), (0.03, 0.04)): "every hospital is refuted for both ratios",
    (
        (0.01, 0.01),
        (0.15, 0.01),
    ): "one hospital without evidence is enough to refuse, however good the others are, and a sequence stops there",
    ((0.08, 0.20), (0.09, 0.01)): "delta need not be shared among the hospitals: the claim is false as soon as one of "
    "them is too bad, and that one would have to pass by luck",
    ((0.60, 0.01), (0.70, 0.01)): "a ratio after the first failure is not certified",
    ((0.10, 0.30), (0.10, 0.30)): "p equal to delta is still a rejection",
    ((0.04, 0.12, 0.03),): "one hospital is a fixed sequence",
    ((0.01, 0.01), (0.01, 0.02), (0.01, 0.50)): "there may be more than two hospitals: each has its say",
    ((0.01, 0.01), (0.01, 0.50), (0.01, 0.02)): "there may be more than two hospitals: each has its say",
}


@exercise(
    hint="H: the risk is above alpha in at least one hospital. If H is true, that hospital's p-value is small with "
    "probability at most delta, so how large may the largest of the p-values be? Lesson 06 did that with risk and "
    "coverage. Then walk from gentle to aggressive.",
    solution=_every_hospital_solution,
)
def every_hospital(answer: Callable[..., Any], delta: float = 0.1) -> None:
    """Check `answer(p_values, delta)` for p-values (c, m), which returns a bool mask (m,)."""
    given = [(np.array(table), delta, misconception) for table, misconception in HOSPITAL_CASES.items()]
    given += [(p / 2, delta / 2, "compare with the delta that is given") for p, *_ in given]
    for p, budget, misconception in given:
        want = _every_hospital_solution(p, budget).tolist()
        got = as_mask(answer(p.copy(), budget), p.shape[1])
        assert got == want, f"p = {p.tolist()}, delta = {budget}: want {want}, got {got} ({misconception})"
