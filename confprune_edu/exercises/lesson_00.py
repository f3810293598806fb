"""Checkers of lesson 00."""

from collections.abc import Callable
from typing import Any

import numpy as np

from confprune_edu.exercises.checker import exercise

# Lesson 00

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


def _certificate_flaws_solution(record):
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


FLAW_CASES: list[tuple[dict[str, Any], set[str], str]] = [
    ({}, set(), "this record has none of the four flaws: the answer is the empty set"),
    ({"calibrated_on": range(0, 500)}, {"not fresh"}, "digits that trained the network flatter it"),
    ({"calibrated_on": range(499, 1499)}, {"not fresh"}, "one shared digit is enough: look for any overlap"),
    ({"ratios_chosen": "after"}, {"chosen after"}, "a grid made to fit the losses is not fixed beforehand"),
    ({"shipped_dtype": "bfloat16"}, {"another function"}, "another precision is another function"),
    ({"calibrations": 10}, {"best of several"}, "the best of ten errs with probability up to 10 x delta_each"),
    ({"calibrations": 10, "delta_each": 0.01}, set(), "ten calibrations at delta / 10 each keep the promise"),
    ({"ratio": None, "test_mean": None}, set(), "nothing certified is an answer, not a flaw"),
    ({"test_mean": 0.056}, set(), "a test mean is noisy: slightly above alpha it refutes nothing"),
    ({"calibrated_on": range(1000, 1050), "ratio": 0.4}, set(), "few digits cost ratio, not validity"),
    (
        {"calibrated_on": range(400, 900), "shipped_dtype": "float16"},
        {"not fresh", "another function"},
        "a certificate can have more than one flaw: collect them all",
    ),
]


@exercise(
    hint="Four independent questions, one `if` each. Digits are numbered: two ranges overlap if their sets do. Of K "
    "claims that each err with probability at most delta_each some claim errs with probability at most K x delta_each.",
    solution=_certificate_flaws_solution,
)
def certificate_flaws(answer: Callable[..., Any]) -> None:
    """Check `answer(record)`, which returns the set of flaws of a certificate."""
    for change, want, misconception in FLAW_CASES:
        got = answer(dict(RECORD) | change)
        got = {got} if isinstance(got, str) else set(got)
        record = ", ".join(f"{key} = {value}" for key, value in change.items()) or "the record as shown"
        assert got == want, f"{record}: want {sorted(want)}, got {sorted(got, key=str)} ({misconception})"


def _digits_needed_solution(alpha, delta):
    n = 1
    while (1 - alpha) ** n > delta:
        n += 1
    return n


@exercise(
    hint="A network whose risk is exactly alpha reads one digit right with probability 1 - alpha, and n digits in a "
    "row with (1 - alpha) to the power n. How large must n be for this to be at most delta?",
    solution=_digits_needed_solution,
)
def digits_needed(answer: Callable[..., Any]) -> None:
    """Check `answer(alpha, delta)`, the smallest n whose digits, all read right, can certify anything."""
    for alpha, delta in ((0.1, 0.1), (0.5, 0.25), (0.2, 0.5), (0.01, 0.1), (0.001, 0.01)):
        want, got = _digits_needed_solution(alpha, delta), np.asarray(answer(alpha, delta)).item()
        known = {
            int(np.ceil(np.log(1 / delta) / alpha)): "exp(-alpha n) only bounds (1 - alpha)^n: take the power itself",
            int(np.ceil(1 / alpha)): "1 / alpha digits hold one mistake on average; ask for the chance of none",
            int(np.ceil(np.log(delta) / np.log(alpha))): "a digit is read right with probability 1 - alpha, not alpha",
            want - 1: "too few by one: round up",
            want + 1: "at most delta: a chance equal to delta is small enough, and no digit more is needed",
        }
        why = known.get(got, "no mistake among n digits has probability (1 - alpha)^n if the risk is alpha")
        assert got == want, f"alpha = {alpha}, delta = {delta}: want {want}, got {got} ({why})"
