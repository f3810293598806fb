"""Exercises of lesson 00."""

import math
from typing import Any

from confprune_edu.exercises.checker import exercise

RECORD: dict[str, Any] = {
    "trained_on": range(0, 500),
    "calibrated_on": range(1000, 2000),
    "ratios_chosen": "before",
    "calibrations": 1,
    "delta_each": 0.1,
    "delta": 0.1,
    "calibrated_dtype": "float32",
    "shipped_dtype": "float32",
    "alpha": 0.05,
    "ratio": 0.88,
    "test_mean": 0.046,
}


def _record(change: dict[str, Any]) -> list[Any]:
    """The record above with a change, in which two numbers are a range."""
    nothing = {"None": None}
    made = {key: range(*x) if isinstance(x, list) else nothing.get(x, x) for key, x in change.items()}
    return [RECORD | made]


@exercise(parts=("not fresh", "chosen after", "best of several", "another function"), given=_record)
def certificate_flaws(record):
    """Return the set of flaws of a certificate."""
    flaws = set()
    if set(record["trained_on"]) & set(record["calibrated_on"]):
        flaws.add("not fresh")
    if record["ratios_chosen"] == "after":
        flaws.add("chosen after")
    if record["calibrations"] * record["delta_each"] > record["delta"]:
        flaws.add("best of several")
    if record["calibrated_dtype"] != record["shipped_dtype"]:
        flaws.add("another function")
    return flaws


def _digits(a: float, d: float) -> float:
    """log d / log(1 - a), less 1e-9, so that a rounding error does not lift `ceil` by one."""
    return math.log(d) / math.log(1 - a) - 1e-9


@exercise(
    mistakes={
        "alpha and delta have changed places": lambda a, d: math.ceil(_digits(d, a)),
        "exp(-alpha n) only bounds (1 - alpha)^n: take the power itself": lambda a, d: math.ceil(math.log(1 / d) / a),
        "1 / alpha digits hold one mistake on average; ask for the chance of none": lambda a, d: math.ceil(1 / a),
        "a digit is read right with probability 1 - alpha, not alpha": lambda a, d: math.ceil(_digits(1 - a, d)),
        "a number of digits is whole: round up": lambda a, d: math.log(d) / math.log(1 - a),
        "too few by one: round up": lambda a, d: math.floor(_digits(a, d) + 2e-9),
        "too few by one: this is the last n that does not certify": lambda a, d: math.ceil(_digits(a, d)) - 1,
        "at most delta: a chance equal to delta is small enough": lambda a, d: math.floor(_digits(a, d) + 2e-9) + 1,
    }
)
def digits_needed(alpha, delta):
    """Return the smallest n whose digits, all read right, can certify anything."""
    n = 1
    while (1 - alpha) ** n > delta:
        n += 1
    return n
