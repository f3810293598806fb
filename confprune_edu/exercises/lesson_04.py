"""Exercises of lesson 04."""

import math
from typing import Any

import numpy as np

from confprune_edu.exercises.checker import Answer, exercise, outcome, shown
from confprune_edu.exercises.verdict import Fault

DELTA = 0.1


def _chain(p, level, start=0):
    return np.logical_and.accumulate((p <= level) | (np.arange(len(p)) < start)) & (np.arange(len(p)) >= start)


@exercise(
    mistakes={
        "argmax of a mask without any True is 0: ask first whether any p-value is above delta": (
            lambda p, delta: np.arange(len(p)) < np.argmax(p > delta)
        ),
        "True marks what is certified, not what failed": lambda p, delta: ~_chain(p, delta),
        "the mask has an entry for each of the m hypotheses, False for those that were never tested, too": (
            lambda p, delta: np.full(_chain(p, delta).sum(), True)
        ),
        "the first test is the first in the given order, not the last": lambda p, delta: _chain(p[::-1], delta)[::-1],
    },
)
def fixed_sequence(p_values, delta):
    """Return a bool mask of shape (m,), True for each hypothesis that the sequence rejects."""
    rejected = np.zeros(len(p_values), dtype=bool)
    for j, p in enumerate(p_values):
        if p > delta:
            break
        rejected[j] = True
    return rejected


@exercise(mistakes={"return the ratio, not its position": lambda p, ratios, delta: int(_chain(p, delta).sum()) - 1})
def certified_ratio(p_values, ratios, delta):
    """Return the largest ratio that the fixed sequence certifies, or None."""
    certified = None
    for p, ratio in zip(p_values, ratios, strict=True):
        if p > delta:
            break
        certified = float(ratio)
    return certified


@exercise(
    given=lambda p, delta, starts: [np.array(p), delta, list(starts)],
    mistakes={
        "a chain begins at its own start, not at index 0": lambda p, delta, s: _chain(p, delta / len(s)),
        "a chain begins at its own start, not at 0, and spends delta / k": lambda p, delta, s: _chain(p, delta),
        "walk from every start, not from the first alone": lambda p, delta, s: _chain(p, delta / len(s), s[0]),
        "walk from every start, not from the first alone, at delta / k": lambda p, delta, s: _chain(p, delta, s[0]),
        "a chain tests its own start, too": (
            lambda p, delta, s: np.any([_chain(p, delta / len(s), x + 1) for x in s], axis=0)
        ),
        "walk from every start: none replaces another": lambda p, delta, s: _chain(p, delta / len(s), s[-1]),
        "the answer is the union of all chains, not the first that certifies something": (
            lambda p, delta, s: next(filter(np.any, [_chain(p, delta / len(s), x) for x in s]), np.full(len(p), False))
        ),
    },
)
def multi_start(p_values, delta, starts):
    """Return a bool mask of shape (m,), True for each hypothesis that some chain rejects."""
    rejected = np.zeros(len(p_values), dtype=bool)
    for start in starts:
        for j in range(start, len(p_values)):
            if p_values[j] > delta / len(starts):
                break
            rejected[j] = True
    return rejected


# A law by its candidates (1: unsafe, p uniform; 0: safe, p = 0), and the mistake of a rule that errs too often there
LAWS = {
    (1, 0, 0, 1): "whoever lets the p-values choose the direction has tried both: two chances at delta each, about 2 "
    "delta; together the two directions may spend delta",
    (1,) * 10: "a direction stops at its first failure: without a stop each p-value is one more chance",
    (0,) * 5 + (1,) * 5: "a direction stops at its first failure, also where it began well",
    (1,) * 5 + (0,) * 5: "a direction stops at its first failure, also where it began well",
}


def _valid_and_useful(answer: Answer) -> Fault | None:
    """Many rules are right: ask what they certify at the safe ends, and how often they certify what is not safe."""
    blind = "a direction fixed beforehand is valid, but blind at its other end: give both a share of delta"
    timid = "this gives budget away: the two directions may spend all of delta, half of it each"
    for low, why in ((0.0, blind), (0.012, timid)):  # Bonferroni among four may spend 0.025, half of it 0.0125
        ends = np.array([[low, low, 0.9, 0.9], [0.9, 0.9, low, low]])
        masks = _masks(answer, ends)
        if isinstance(masks, Fault):
            return masks
        for p, mask, end in zip(ends, masks, ("first", "last"), strict=True):
            if not mask.any():
                found = f"the two candidates at the {end} end are safe, and none is certified"
                either = "either direction certifies by itself: take the union"
                return Fault(f"p_values = {shown(p)}", found, why if low or masks.any() else either)
            if (mask & (p > DELTA)).any():
                turned = (mask == (p[::-1] <= DELTA)).all()
                known = (
                    "turn the mask of the reversed p-values round again" if turned else "the failure is not certified"
                )
                return Fault(f"p_values = {shown(p)}", "a p-value of 0.9 was certified", known)
    return next(filter(None, (_broken_promise(answer, np.array(law), why) for law, why in LAWS.items())), None)


def _broken_promise(answer: Answer, unsafe: Any, why: str, trials: int = 2000) -> Fault | None:
    """The worst case, without chance: p-values of unsafe candidates are uniform and never small at the same time.

    Each is one number of a fine grid on (0, 1), moved on by 1 / m from candidate to candidate and around, so that the
    chances of false certificates add up: the union bound is an equality.
    """
    at = (np.arange(trials) + 0.5) / trials
    p = unsafe * ((at[:, None] + np.linspace(0, 1, len(unsafe), endpoint=False)) % 1)
    masks = _masks(answer, p)
    if isinstance(masks, Fault):
        return masks
    false = int((masks & (unsafe == 1)).any(axis=1).sum())
    found = f"in {false / trials:.1%} of {trials} repetitions something false is certified, {DELTA:.0%} are allowed"
    if false <= -math.log(1 - DELTA) * trials:  # the most that k tests at 1 - (1 - delta)^(1/k) each can spend
        why = "this is the worst dependence, not luck: Sidak's 1 - (1 - delta)^(1/k) needs independent tests"
    given = f"candidates, unsafe where 1: {unsafe.tolist()}, delta = {DELTA}"
    return Fault(given, found, why) if false > DELTA * trials else None


def _masks(answer: Answer, p: Any) -> Any:
    """What an answer certifies in each row; a Fault, if it does not return a mask everywhere."""
    masks = [outcome(answer, (row, DELTA)) for row in p]
    for row, mask in zip(p, masks, strict=True):
        if np.shape(mask) != row.shape:
            found = f"want a mask of shape {row.shape}, got {shown(mask)}"
            return Fault(f"p_values = {shown(row)}", found, "the rule must have an answer for all p-values and any m")
    return np.array(masks, dtype=bool)


@exercise(judge=_valid_and_useful)
def two_way(p_values, delta):
    """Return a bool mask of shape (m,), valid whichever ends are unsafe, useful whichever end is safe."""
    p = np.asarray(p_values)
    forward = np.logical_and.accumulate(p <= delta / 2)  # two chains, fixed beforehand: half of delta for each
    backward = np.logical_and.accumulate(p[::-1] <= delta / 2)[::-1]
    return forward | backward
