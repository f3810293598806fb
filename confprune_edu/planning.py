"""Before a calibration: how many examples it needs, and which ratio it will give, from a guess of the risk curve."""

import functools
import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

from confprune_edu import _checks, pvalues

MOST = 100_000  # examples that anybody would label


def most_failures(n: int, alpha: float, delta: float, *, p_value: str = "tight") -> int:
    """How many failures among n examples are still certified: the largest count whose p-value is at most delta.

    Parameters
    ----------
    n : int
        Calibration examples, with losses of 0 or 1.
    alpha, delta : float in (0, 1)
        As in `calibration.calibrate`.
    p_value : "tight" or "binomial"

    Returns
    -------
    int; -1 where not even a calibration without any failure certifies.

    >>> most_failures(1000, alpha=0.05, delta=0.1), most_failures(20, alpha=0.05, delta=0.1)
    (38, -1)
    """
    size = _checks.positive_int(n, "n")
    alpha, delta = _checks.number(alpha, "alpha"), _checks.number(delta, "delta")
    _checks.choice(p_value, "p_value", ("tight", "binomial"))
    return int((pvalues.FROM_SUM[p_value](np.arange(size + 1), size, alpha) <= delta).sum()) - 1


def expected_ratio(
    risks: ArrayLike,
    ratios: Sequence[float] | NDArray[Any],
    *,
    n: int,
    alpha: float,
    delta: float,
    p_value: str = "tight",
) -> float:
    """The mean certified ratio over all calibration sets of n examples, from a guess of the risk curve.

    A ratio is certified where at most `most_failures` of the n examples fail. The losses are taken as 0/1 and nested,
    as in `examples_needed`: then the chance of that is a binomial one, of the highest risk up to this ratio, and the
    mean is the sum of the chances, each times the step from the ratio before. Where nothing is certified the ratio
    counts as 0.

    Parameters
    ----------
    risks : float array, shape (m,), in [0, 1]
        Guessed risks, in the order of the sequence.
    ratios : float array, shape (m,), strictly increasing in [0, 1)
    n, alpha, delta, p_value
        As in `most_failures`.

    Returns
    -------
    float in [0, 1).

    >>> round(expected_ratio([0.0, 0.01, 0.04, 0.2], [0.0, 0.3, 0.6, 0.9], n=1000, alpha=0.05, delta=0.1), 3)
    0.424
    """
    grid, curve = _checks.ratios(ratios), _checks.within(_checks.numeric(risks, "risks").astype(float), "risks", 0, 1)
    if curve.shape != grid.shape:
        raise ValueError(f"risks must have a value for each of the {len(grid)} ratios, got shape {curve.shape}")
    most = most_failures(n, alpha, delta, p_value=p_value)
    if most < 0:
        return 0.0
    chances = bdtr(most, n, np.maximum.accumulate(curve))
    return float(np.diff(grid, prepend=0) @ chances)


def examples_needed(
    risks: ArrayLike, alpha: float, delta: float, *, power: float = 0.8, p_value: str = "tight"
) -> NDArray[np.float64]:
    """How many calibration examples to label, from a guess of the risk curve.

    With so many, a fixed sequence certifies this ratio with probability at least `power`, if the guess is right. The
    losses are taken as 0/1 and nested (what fails at one ratio fails at the next), so that the highest risk up to a
    ratio decides: losses between 0 and 1 vary less and need fewer. The guess comes from other data, never from the
    calibration examples, and costs no validity where it is wrong, only power.

    Parameters
    ----------
    risks : float array, shape (m,), in [0, 1], or a number
        Guessed risks, in the order of the sequence.
    alpha, delta : float in (0, 1)
        As in `calibration.calibrate`.
    power : float in (0, 1)
        Chance of success that is wanted.
    p_value : "tight" or "binomial"

    Returns
    -------
    float64 array, shape (m,): whole numbers, near alpha to some hundredths (the chance of success is a saw),
    inf where the risk is not below alpha or 100,000 would not do.

    Raises
    ------
    TypeError, ValueError
        An argument outside these ranges, named.

    >>> examples_needed([0.01, 0.03, 0.045, 0.06], alpha=0.05, delta=0.1).tolist()
    [81.0, 601.0, 12053.0, inf]
    """
    alpha, delta = _checks.number(alpha, "alpha"), _checks.number(delta, "delta")
    power = _checks.number(power, "power")
    _checks.choice(p_value, "p_value", ("tight", "binomial"))
    curve = _checks.within(_checks.numeric(risks, "risks").astype(np.float64), "risks", 0, 1)
    if curve.ndim > 1 or curve.size == 0:
        raise ValueError(f"risks must be a number or have shape (m,) with m >= 1, got {curve.shape}")
    worst = np.maximum.accumulate(np.atleast_1d(curve))

    @functools.cache
    def size(failures: int) -> int:
        """The fewest examples among which so many failures are still certified: more examples lower the p-value."""
        nats = -math.log(delta)
        most = math.ceil((failures + nats + math.sqrt(nats**2 + 2 * nats * failures)) / alpha)  # Chernoff's bound
        p_of = pvalues.FROM_SUM[p_value]
        return bisect_left(range(most), True, lo=failures + 1, key=lambda n: bool(p_of(failures, n, alpha) <= delta))

    def needed(risk: float, top: int) -> tuple[float, int]:
        """How many examples, and how many failures among them are certified: at least half of `top`."""

        def reached(failures: int) -> bool:
            return bool(pvalues.binomial_cdf(np.array(failures), size(failures), risk) >= power)

        while size(top) < MOST and not reached(top):
            top *= 2
        failures = bisect_left(range(top), True, lo=top // 2, key=reached)
        return (size(failures) if size(failures) < MOST else np.inf), failures

    found: dict[float, float] = {}
    top = 1
    for risk in sorted({risk for risk in worst.ravel().tolist() if risk < alpha}):
        found[risk], failures = needed(risk, top)
        top = max(failures, 1)
    return np.array([found.get(risk, np.inf) for risk in worst.tolist()]).reshape(curve.shape)[()]
