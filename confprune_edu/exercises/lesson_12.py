"""Exercises of lesson 12."""

import numpy as np

from confprune_edu.exercises.checker import exercise


@exercise(
    mistakes={
        "this is the colleague's: every entry of the row occurs somewhere, but not together in one row": (
            lambda calibration, used: ~np.isin(calibration, used).all(axis=1)
        ),
        "one equal entry makes no copy: a row is known if all of its entries are those of one used row": (
            lambda calibration, used: ~(calibration[:, None] == used).any(axis=(1, 2))
        ),
        "compare with every used row, not with the one in the same place": (
            lambda calibration, used: np.array(
                [i >= len(used) or (row != used[i]).any() for i, row in enumerate(calibration)]
            )
        ),
        "True marks what may calibrate, not what is known": (
            lambda calibration, used: (calibration[:, None] == used).all(axis=2).any(axis=1)
        ),
    },
)
def fresh_rows(calibration, used):
    """Return a bool mask of shape (n,), True for each row that is no row of `used`."""
    fresh = np.ones(len(calibration), dtype=bool)
    for i in range(len(calibration)):
        for row in used:
            if (calibration[i] == row).all():
                fresh[i] = False
    return fresh


@exercise(
    mistakes={
        "this counts the zeros that are there": (
            lambda first, second, ratio: int((first == 0).sum() + (second == 0).sum())
        ),
        "this is how many zeros were certified, not how many of them are missing": (
            lambda first, second, ratio: round(ratio * (first.size + second.size))
        ),
    },
)
def zeros_missing(first, second, ratio):
    """Return an int, how many zeros the two layers lack."""
    zeros = 0
    for layer in (first, second):
        for weight in layer.ravel():
            zeros += int(weight == 0)
    return max(0, round(ratio * (first.size + second.size)) - zeros)


def _changed(a, b):
    return int((a.argmax(axis=1) != b.argmax(axis=1)).sum())


@exercise(
    mistakes={
        "this is the colleague's: a small difference can change a decision, and a large one may change none": (
            lambda a, b: int((abs(a - b).max(axis=1) > 0.01).sum())
        ),
        "an output may change and the decision stay: compare the classes": (
            lambda a, b: int((a != b).any(axis=1).sum())
        ),
        "the classes are the columns, the examples the rows": (
            lambda a, b: int((a.argmax(axis=0) != b.argmax(axis=0)).sum())
        ),
        "how many, not which share": lambda a, b: _changed(a, b) / len(a),
        "count the decisions that changed, not those that stayed": lambda a, b: len(a) - _changed(a, b),
    },
)
def changed_decisions(a, b):
    """Return an int, the number of examples (rows) whose class changes."""
    changed = 0
    for mine, other in zip(a, b, strict=True):
        changed += int(np.argmax(mine) != np.argmax(other))
    return changed
