"""Exercises of lesson 08."""

import numpy as np

from confprune_edu.exercises.checker import exercise

STEPS = ("train", "scores", "batch norms", "fine-tune", "choose the order", "calibrate", "quantise")


def _over_all(weights):
    squares = np.asarray(weights, dtype=float) ** 2
    return squares / squares.sum()


def _not_squared(weights):
    sizes = np.abs(weights)
    return np.array([size / sizes[sizes >= size].sum() for size in sizes])


def _without_itself(weights):
    squares = np.asarray(weights, dtype=float) ** 2
    return np.array([s / (squares[squares > s].sum() or s) for s in squares])


@exercise(
    mistakes={
        "divide by the weights that are still there, not by all of the layer": _over_all,
        "LAMP compares squares, not sizes": _not_squared,
        "a weight is itself among those that are still there": _without_itself,
    },
)
def lamp_scores(weights):
    """Return the LAMP score of each weight of one layer, an array of shape (k,); no two weights are equally large."""
    squares = weights**2
    return np.array([s / squares[squares >= s].sum() for s in squares])


@exercise(
    parts=STEPS,
    given=lambda steps: [[(name, set(rows)) for name, rows in steps]],
)
def peeking_steps(steps):
    """Return the set of names of the steps that break the promise of the calibration."""
    names = [name for name, _ in steps]
    at = names.index("calibrate")
    looked = {name for name, rows in steps[:at] if rows & steps[at][1]}  # with or without labels
    return looked | set(names[at + 1 :])  # whatever comes later makes another function


def _walked(p, level):
    return np.logical_and.accumulate(p <= level, axis=1).sum(axis=1)


def _furthest(reach):
    k = int(np.argmax(reach))
    return (k, int(reach[k]) - 1) if reach[k] else None


@exercise(
    mistakes={
        "every order may spend delta / K, not all of delta": lambda p, delta: _furthest(_walked(p, delta)),
        "the ratios of one order need not share: only the orders do": lambda p, delta: _furthest(
            _walked(p, delta / p.size)
        ),
    },
    parts=("order", "ratio"),
)
def best_order(p_values, delta):
    """Return (k, j), the order that is certified furthest and its last ratio, or None; p_values has shape (K, m)."""
    passed = np.logical_and.accumulate(p_values <= delta / len(p_values), axis=1)
    reach = passed.sum(axis=1)
    k = int(reach.argmax())  # the first of them where several reach as far
    return (k, int(reach[k]) - 1) if reach[k] else None
