"""Does the promise hold? Repeated splits of a real loss table, and laws whose risk is known by formula."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtrc

from confprune_edu import _checks, fwer, pvalues
from confprune_edu.planning import examples_needed as examples_needed
from confprune_edu.recipe import Recipe
from confprune_edu.selective.splits import SelectiveSplits as SelectiveSplits, selective_splits as selective_splits

Floats = NDArray[np.float64]
LARGEST = 700.0  # logarithm of a wealth beyond which it is no longer counted
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
        Mean loss at that ratio over the examples that were not drawn; NaN likewise.
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
    replace: bool = False,
) -> Splits:
    """Calibrate on `trials` random parts of a loss table and look at the rest.

    The table's rows are the population: its column means are the true risks, so that a false certificate is seen, not
    estimated. With `replace` the draws are independent, and every p-value's guarantee holds as it stands.

    Without it sums are only more concentrated in convex order (Hoeffding, 1963, theorem 4), so that hoeffding and tight
    stay valid, and with them bentkus, hoeffding_bentkus and prw, which are never below tight. `binomial` keeps every
    level up to 1/4 for alpha < 1 - 1/n: the errors count like n independent coins of unequal bias (Vatutin and
    Mikhailov, 1982), which show c <= n alpha - 1 or fewer no more often than equal ones do (Hoeffding, 1956, theorem
    4), and no larger c has a p-value of at most 1/4 (Greenberg and Mohri, 2014). For `betting` no proof is known to us.

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
    replace : bool
        Draw with replacement (the bootstrap): an example may come several times.

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
    p, rest = _split(x, level, size, p_value, count, np.random.default_rng(seed), replace)
    rejected = plan.reject(p)
    last = np.where(rejected.any(axis=1), rejected.shape[1] - 1 - np.argmax(rejected[:, ::-1], axis=1), -1)
    test_means = rest[np.arange(count), last]
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


@dataclass(frozen=True, eq=False)
class Monitor:
    """What a watch over deployed losses has seen, see `monitor`.

    Attributes
    ----------
    wealth : float64 array, shape (n,)
        What betting against "the risk is at most alpha" has made of 1, after each loss.
    alarm : int or None
        How many losses had been seen when the wealth first reached 1 / delta; None: it did not.
    """

    wealth: Floats
    alarm: int | None


def monitor(losses: ArrayLike, alpha: float, delta: float, *, loss_range: tuple[float, float] = (0.0, 1.0)) -> Monitor:
    """Watch a certified network at work: an alarm says that its risk has been above alpha at some time of the watch.

    After each labelled loss one looks at the wealth of a gambler who bets against "the risk is at most alpha". While
    that is true, the chance that the wealth *ever* reaches 1 / delta is at most delta, however long the watch and
    however often one looks (Ville's inequality); each loss may have any law whose mean, given the losses before, is at
    most alpha. The gambler spreads the money over stakes and over the moments at which a shift may begin, a part of
    1 / (s (s + 1)) for moment s, so that a long quiet time does not use it up. No alarm is no proof that all is well.

    Parameters
    ----------
    losses : bool, int or float array, shape (n,), in `loss_range`
        In the order in which they came. Call again with more: the wealth of earlier losses stays what it was.
    alpha : float in the range of the loss
        Tolerated risk.
    delta : float in (0, 1)
        Tolerated chance of a false alarm, over the whole watch.
    loss_range : (low, high)

    Returns
    -------
    Monitor

    Raises
    ------
    TypeError, ValueError
        An argument outside these ranges, named.

    Source: Ville (1939); stakes as in Waudby-Smith and Ramdas, arXiv 2010.09686; a mixture over the moments of a change
    as in Shin, Ramdas and Rinaldo, arXiv 2203.03532.

    >>> quiet, shifted = np.zeros(500), np.tile([1, 0, 0, 0], 25)   # a risk of 0, then of a quarter
    >>> monitor(np.concatenate([quiet, shifted]), alpha=0.05, delta=0.1).alarm
    561
    """
    low, high = _checks.interval(loss_range, "loss_range")
    alpha, delta = _checks.number(alpha, "alpha", low, high), _checks.number(delta, "delta")
    x, level = pvalues.rescale(_checks.losses(losses, low, high, ndim=(1,)), alpha, low, high)
    stakes = np.geomspace(0.01, 0.9, 20) / level  # below 1 / level no loss can ruin the gambler
    gains = np.log1p(stakes * (x.astype(np.float64)[:, None] - level))
    before, moments = np.cumsum(gains, axis=0) - gains, np.arange(1.0, len(x) + 1)[:, None]
    placed = np.logaddexp.accumulate(-np.log(moments * (moments + 1)) - before, axis=0)
    kept = 1 / (moments[:, 0] + 1)  # for the moments to come
    wealth = np.exp(np.minimum(placed + before + gains, LARGEST)).mean(axis=1) + kept
    alarmed = np.flatnonzero(wealth >= 1 / delta)
    return Monitor(wealth, int(alarmed[0]) + 1 if alarmed.size else None)


def _drawn(law: Law, risks: Floats, n: int, rng: np.random.Generator) -> NDArray[Any]:
    losses = np.asarray(law(risks, n, rng))
    if losses.shape != (n, len(risks)):
        raise ValueError(f"law must give losses of shape {(n, len(risks))}, got {losses.shape}")
    return losses


def _split(
    table: NDArray[Any], alpha: float, size: int, p_value: str, trials: int, rng: np.random.Generator, replace: bool
) -> tuple[Floats, Floats]:
    """P-values of `size` rows drawn at random, and mean losses of the rows that were not drawn, (trials, m) each."""
    counts = table.dtype.kind != "f" or (p_value == "binomial" and bool(((table == 0) | (table == 1)).all()))
    exact = np.float32 if counts and len(table) < 2**24 else np.float64  # counts below 2**24 are exact in float32
    values: NDArray[Any] = table.astype(exact)
    whole = pvalues.loss_sums(table)
    sums, p, rest = [], [], []
    for some in _chunks(trials, 100):
        times = _draw(some, len(table), size, rng, replace)  # how often each row was drawn, (some, n)
        sums.append(np.matmul(times.astype(exact), values))
        seen = np.matmul((times > 0).astype(exact), values) if replace else sums[-1]
        rest.append((whole - seen) / (len(table) - np.count_nonzero(times, axis=1, keepdims=True)))
        if p_value not in pvalues.FROM_SUM:
            drawn = (np.repeat(np.arange(len(table)), row) for row in times)
            p += [pvalues.FROM_LOSSES[p_value](table[rng.permutation(rows)], alpha) for rows in drawn]
    total = np.concatenate(sums)
    total = np.rint(total).astype(np.int64) if counts else total
    found = pvalues.FROM_SUM[p_value](total, size, alpha) if p_value in pvalues.FROM_SUM else np.array(p)
    return found, np.concatenate(rest)


def _draw(trials: int, n: int, size: int, rng: np.random.Generator, replace: bool) -> NDArray[Any]:
    if replace:
        rows = rng.integers(n, size=(trials, size)) + n * np.arange(trials)[:, None]
        return np.bincount(rows.ravel(), minlength=trials * n).reshape(trials, n)
    keys = rng.random((trials, n))  # the rows with the smallest keys are drawn
    return keys <= np.partition(keys, size - 1, axis=1)[:, size - 1, None]


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]
