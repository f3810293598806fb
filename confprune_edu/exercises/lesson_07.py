"""Exercises of lesson 07."""

import numpy as np

from confprune_edu.exercises.checker import exercise


@exercise(
    mistakes={
        "1 - IoU: Dice divides twice the overlap by both areas": lambda a, b: (a ^ b).sum() / ((a | b).sum() or 1),
        "this is Dice: the loss is 1 - Dice": lambda a, b: 1 - (a ^ b).sum() / ((a | b).sum() + (a & b).sum() or 1),
        "the overlap counts twice": lambda a, b: 1 - (a & b).sum() / (a.sum() + b.sum()) if (a | b).any() else 0.0,
        "this is the share of wrong pixels, in which the empty background counts": lambda a, b: (a != b).mean(),
    },
)
def mask_loss(found, truth):
    """Return 1 - Dice of two bool masks of one shape, a number."""
    total = found.sum() + truth.sum()
    return 1 - 2 * (found & truth).sum() / total if total else 0.0  # two empty masks agree perfectly


@exercise()
def video_means(losses, videos):
    """Return means, a row a video, of shape (g, m)."""
    return np.array([losses[videos == v].mean(axis=0) for v in sorted(set(videos))])


def _walked(p, level):
    return np.logical_and.accumulate(p <= level)


@exercise(
    mistakes={
        "every ratio may spend all of delta, not delta / m": lambda p, delta: _walked(
            p.max(axis=0), delta / p.shape[1]
        ),
        "one p-value a ratio: the largest over the hospitals, which are the rows": (
            lambda p, delta: _walked(p.max(axis=1), delta)
        ),
    },
)
def every_hospital(p_values, delta):
    """Return a bool mask of shape (m,), True for each ratio that is certified for every hospital."""
    worst = p_values.max(axis=0)  # "too bad in some hospital" is refuted where it is refuted for the worst
    return np.logical_and.accumulate(worst <= delta)
