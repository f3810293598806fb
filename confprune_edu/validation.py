"""Does the promise hold? Repeated splits of a real loss table, and laws whose risk is known by formula."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtrc

from confprune_edu import _checks, fwer, pvalues
from confprune_edu.recipe import Recipe
from confprune_edu.selective.splits import SelectiveSplits as SelectiveSplits, selective_splits as selective_splits

Floats = NDArray[np.float64]
Law = Callable[[Floats, int, np.random.Generator], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Splits:
    """What `trials` random splits of one loss table gave; one entry a split.

    Attributes
    ----------
    ratio : float64 array, shape (trials,)
        Largest certified ratio; NaN where nothing was certified.
    risk : float64 array, shape (trials,)
        Mean loss at that ratio over the whole table, the risk of the population that is split; NaN likewise.
    test_risk : float64 array, shape (trials,)
        Mean loss at that ratio over the examples left out; NaN likewise.
    alpha, delta : float
    wrong : bool array, shape (trials,)
        Whether any certified ratio, the largest or not, has a risk above alpha.
    """

    ratio: Floats
    risk: Floats
    test_risk: Floats
    alpha: float
    delta: float
    wrong: NDArray[np.bool_]

    @property
    def broken(self) -> float:
        """Share of the splits whose largest certified ratio has a risk above alpha; smaller ones are not looked at.

        That is what a user of the largest ratio meets. A procedure is judged by `any_broken`, which is never less.
        """
        return float((self.risk > self.alpha + pvalues.ROUNDING).mean())

    @property
    def any_broken(self) -> float:
        """Share of the splits in which any certified ratio has a risk above alpha: the promise is at most delta."""
        return float(self.wrong.mean())

    @property
    def test_broken(self) -> float:
        """Share of the splits whose test mean exceeds alpha: an estimate, about which nothing is promised."""
        return float((self.test_risk > self.alpha + pvalues.ROUNDING).mean())

    @property
    def abstained(self) -> float:
        """Share of the splits in which nothing was certified."""
        return float(np.isnan(self.ratio).mean())


def repeated_splits(
    losses: ArrayLike,
    ratios: Sequence[float] | NDArray[Any],
    *,
    n_calibration: int,
    alpha: float,
    delta: float,
    p_value: str = "tight",
    procedure: fwer.Procedure = "fixed_sequence",
    trials: int = 1000,
    seed: int = 0,
    loss_range: tuple[float, float] = (0.0, 1.0),
) -> Splits:
    """Calibrate on `trials` random subsets of a loss table and look at the rest.

    The table's rows are the population: its column means are the true risks, so that a false certificate is
    seen, not estimated. Drawing without replacement makes sums only more concentrated in convex order (Hoeffding, 1963,
    theorem 4), so that hoeffding and tight stay valid, and with them bentkus, hoeffding_bentkus and prw, which are
    never below tight. `binomial` is a tail, not a convex bound: without replacement it keeps every level up to 1/2
    where alpha is at most 1/2, and may exceed it elsewhere. For `betting` no proof is known to us, and `clt` promises
    nothing.

    Parameters
    ----------
    losses : bool, int or float array, shape (n, m), in `loss_range`
    ratios : float array, shape (m,), strictly increasing in [0, 1)
    n_calibration : int in 1..n-1
        Examples drawn for each calibration.
    alpha, delta, p_value, procedure, loss_range
        As in `calibration.calibrate_losses`.
    trials : int
        Number of splits.
    seed : int
        Seed of the splits.

    Returns
    -------
    Splits

    >>> losses = np.random.default_rng(0).random((500, 3)) < [0.01, 0.05, 0.3]
    >>> splits = repeated_splits(losses, [0.3, 0.6, 0.9], n_calibration=200, alpha=0.1, delta=0.1, trials=50)
    >>> float(splits.ratio.max()), splits.broken
    (0.6, 0.0)
    """
    plan = Recipe(alpha, delta, p_value, procedure, loss_range)
    low, high = plan.loss_range
    table, grid = _checks.losses(losses, low, high, ndim=(2,)), _checks.ratios(ratios)
    _checks.columns(table, "losses", grid)
    size = _checks.calibration_size(n_calibration, len(table))
    count = _checks.positive_int(trials, "trials")
    x, level = pvalues.rescale(table, plan.alpha, low, high)
    sums, p = _split(x, level, size, p_value, count, np.random.default_rng(seed))
    rejected = plan.reject(p)
    last = np.where(rejected.any(axis=1), rejected.shape[1] - 1 - np.argmax(rejected[:, ::-1], axis=1), -1)
    test_means = (pvalues.loss_sums(x)[last] - sums[np.arange(count), last]) / (len(x) - size)
    means = pvalues.loss_sums(table) / len(table)
    found = last >= 0
    return Splits(
        ratio=np.where(found, grid[last], np.nan),
        risk=np.where(found, means[last], np.nan),
        test_risk=np.where(found, low + (high - low) * test_means, np.nan),
        alpha=plan.alpha,
        delta=plan.delta,
        wrong=np.any(rejected[:, means > plan.alpha + pvalues.ROUNDING], axis=1),
    )


def bernoulli(risks: Floats, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """0/1 losses (n, m) with the given risks; one uniform an example, so that columns are nested as in pruning.

    >>> bernoulli(np.array([0.1, 0.9]), 1000, np.random.default_rng(0)).mean(axis=0).round(1).tolist()
    [0.1, 0.9]
    """
    return rng.random((n, 1)) < risks


def independent(risks: Floats, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """0/1 losses (n, m) with the given risks and independent columns.

    >>> independent(np.array([0.1, 0.9]), 1000, np.random.default_rng(0)).mean(axis=0).round(1).tolist()
    [0.1, 0.9]
    """
    return rng.random((n, len(risks))) < risks


def beta(risks: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Losses (n, m) in (0, 1) with the given risks, Beta(4 r, 4 (1 - r)) and independent columns.

    >>> beta(np.array([0.1, 0.9]), 1000, np.random.default_rng(0)).mean(axis=0).round(1).tolist()
    [0.1, 0.9]
    """
    return rng.beta(4 * risks, 4 * (1 - risks), size=(n, len(risks)))


def two_point(risks: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Losses (n, m) of r / 2 or (1 + r) / 2 with the given risks: little variance, never 0 or 1.

    >>> two_point(np.array([0.1, 0.9]), 1000, np.random.default_rng(0)).mean(axis=0).round(1).tolist()
    [0.1, 0.9]
    """
    return (risks + (rng.random((n, 1)) < risks)) / 2


@dataclass(frozen=True)
class ErrorRate:
    """How often a method certified something false: `errors` of `trials`, against the promise `delta`."""

    errors: int
    trials: int
    delta: float

    @property
    def rate(self) -> float:
        """errors / trials."""
        return self.errors / self.trials

    @property
    def evidence(self) -> float:
        """Exact binomial p-value against "the error rate is at most delta": tiny values refute the promise."""
        return float(bdtrc(self.errors - 1, self.trials, self.delta)) if self.errors else 1.0


def error_rate(
    law: Law,
    risks: ArrayLike,
    *,
    n: int,
    alpha: float,
    delta: float,
    p_value: str = "tight",
    procedure: fwer.Procedure = "fixed_sequence",
    trials: int = 2000,
    seed: int = 0,
) -> ErrorRate:
    """How often any candidate with risk above alpha is certified, when the risks are known by formula.

    Certifying nothing is no error.

    Parameters
    ----------
    law : callable
        law(risks, n, rng) -> losses (n, m) in [0, 1] with these column means: `bernoulli`, `independent`, `beta`,
        `two_point` or your own.
    risks : float array, shape (m,), in (0, 1)
        True risks, in the order of the sequence.
    n, alpha, delta, p_value, procedure
        As in `calibration.calibrate_losses`.
    trials, seed
        Calibration sets to draw, and the seed of the draws.

    Returns
    -------
    ErrorRate

    >>> error_rate(bernoulli, [0.05, 0.11], n=100, alpha=0.1, delta=0.1, trials=200).rate <= 0.1
    True
    """
    risks = _checks.within(_checks.numeric(risks, "risks").astype(np.float64), "risks", 0, 1)
    if risks.ndim != 1 or risks.size == 0:
        raise ValueError(f"risks must have shape (m,) with m >= 1, got {risks.shape}")
    size, count = _checks.positive_int(n, "n"), _checks.positive_int(trials, "trials")
    plan, rng = Recipe(alpha, delta, p_value, procedure), np.random.default_rng(seed)
    p = np.array([pvalues.p_values(_drawn(law, risks, size, rng), plan.level, p_value) for _ in range(count)])
    wrong = plan.reject(p)[:, risks > plan.alpha].any(axis=1)
    return ErrorRate(int(wrong.sum()), count, plan.delta)


def _drawn(law: Law, risks: Floats, n: int, rng: np.random.Generator) -> NDArray[Any]:
    losses = np.asarray(law(risks, n, rng))
    if losses.shape != (n, len(risks)):
        raise ValueError(f"law must give losses of shape {(n, len(risks))}, got {losses.shape}")
    return losses


def _split(
    table: NDArray[Any], alpha: float, size: int, p_value: str, trials: int, rng: np.random.Generator
) -> tuple[NDArray[Any], Floats]:
    """Sums of the losses and p-values, (trials, m) each, of random subsets of `size` rows."""
    counts = table.dtype.kind != "f" or (p_value == "binomial" and bool(((table == 0) | (table == 1)).all()))
    exact = np.float32 if counts and len(table) < 2**24 else np.float64  # counts below 2**24 are exact in float32
    values: NDArray[Any] = table.astype(exact)
    sums, p = [], []
    for some in _chunks(trials, 100):
        keys = rng.random((some, len(table)))  # the rows with the smallest keys are drawn
        drawn = keys <= np.partition(keys, size - 1, axis=1)[:, size - 1, None]
        sums.append(np.matmul(drawn.astype(exact), values))
        if p_value not in pvalues.FROM_SUM:
            p += [pvalues.FROM_LOSSES[p_value](table[rng.permutation(np.flatnonzero(rows))], alpha) for rows in drawn]
    total = np.concatenate(sums)
    total = np.rint(total).astype(np.int64) if counts else total
    return total, pvalues.FROM_SUM[p_value](total, size, alpha) if p_value in pvalues.FROM_SUM else np.array(p)


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]
