"""Evidence about pairs of a pruning ratio and a confidence threshold.

H_jk: E[loss | confidence >= threshold_k] > alpha, for the model pruned to ratio_j. P-values have shape (m, t): a row a
ratio, from gentle to aggressive, a column a threshold, from strict to lenient.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confprune_edu import _checks, pvalues

Bools = NDArray[np.bool_]

Floats = NDArray[np.float64]


class Counts(NamedTuple):
    """Examples that each pair answers, `selected`, and the sum of their losses, `loss_sum`; shape (m, t) each."""

    selected: NDArray[np.int64]
    loss_sum: NDArray[Any]

    def means(self, low: float = 0.0, high: float = 1.0) -> Floats:
        """Mean loss among the answered, moved from [0, 1] to [low, high]; NaN where nothing is answered.

        >>> Counts(np.array([[0, 4]]), np.array([[0, 1]])).means(low=-1).tolist()
        [[nan, -0.5]]
        """
        out = np.full(self.selected.shape, np.nan)
        mean = np.divide(self.loss_sum, self.selected, out=out, where=self.selected > 0)
        return np.clip(low + (high - low) * mean, low, high)  # rounding must not lead out of the range


def counts(confidence: ArrayLike, losses: ArrayLike, thresholds: ArrayLike) -> Counts:
    """How many examples each pair answers, and the sum of their losses: all that most p-values need.

    Parameters
    ----------
    confidence : float array, shape (n, m), in [0, 1]
        Confidence about n examples (rows) of the model pruned to each of m ratios (columns).
    losses : bool, int or float array, shape (n, m), in [0, 1]
    thresholds : float array, shape (t,), strictly decreasing in [0, 1]
        An example is answered where its confidence is at least the threshold.

    Returns
    -------
    Counts
        selected : int64 array, shape (m, t); loss_sum : the same, a count of bool and integer losses, else float64.

    Raises
    ------
    TypeError, ValueError
        An argument outside these ranges or NaN, no example, tables of unequal shape.

    >>> selected, errors = counts([[0.9], [0.6], [0.5]], [[False], [True], [True]], [0.8, 0.6, 0.0])
    >>> selected.tolist(), errors.tolist()
    ([[1, 2, 3]], [[0, 1, 2]])
    """
    tables = Tables.of(confidence, losses, thresholds)
    return tally(tables.cells, tables.losses, len(tables.thresholds))


def risk_p_values(
    confidence: ArrayLike, losses: ArrayLike, thresholds: ArrayLike, alpha: float, method: str = "binomial"
) -> Floats:
    """One p-value of H: E[loss | confidence >= threshold] > alpha for each pair; small means "certified safe".

    "binomial", for 0/1 losses, looks at the answered examples: given how many they are, their errors are binomial. The
    other methods look at all n examples, where one that is not answered counts as alpha exactly: the mean of
    alpha + (loss - alpha) 1{answered}, in [0, 1], is above alpha if and only if H holds.

    Parameters
    ----------
    confidence, losses, thresholds
        As in `counts`.
    alpha : float in (0, 1)
        Tolerated risk among the answered.
    method : str
        A name of `pvalues.METHODS`; "betting" and "clt" walk through the examples, a ratio at a time, and take longer.
        "betting" needs examples in random order: where they are sorted, by class say, it certifies falsely.

    Returns
    -------
    float64 array, shape (m, t), in [0, 1]; exactly 1 where nothing is answered.

    Raises
    ------
    TypeError, ValueError
        As in `counts`; `alpha` outside (0, 1), an unknown method, `binomial` on losses that are not 0/1.

    Source: Geifman and El-Yaniv, arXiv 1705.08500 (binomial); Learn then Test, arXiv 2110.01052.

    >>> confidence, wrong = np.repeat([[0.9], [0.6]], [80, 20], axis=0), np.repeat([[0], [1]], [98, 2], axis=0)
    >>> risk_p_values(confidence, wrong, [0.95, 0.8, 0.5], alpha=0.05).round(4).tolist()   # 0 of 0, 0 of 80, 2 of 100
    [[1.0, 0.0165, 0.1183]]
    """
    alpha, method = _checks.number(alpha, "alpha"), _checks.choice(method, "method", pvalues.METHODS)
    return Tables.of(confidence, losses, thresholds).p_values(slice(None), alpha, method)[0]


def coverage_p_values(confidence: ArrayLike, thresholds: ArrayLike, floor: float) -> Floats:
    """One p-value of H: P[confidence >= threshold] < floor for each pair; small means "certified to answer enough".

    P[Bin(n, 1 - floor) <= examples not answered]. To certify risk and coverage together take the larger p-value:
    "too risky or too silent" is refuted only where both parts are.

    Parameters
    ----------
    confidence, thresholds
        As in `counts`.
    floor : float in (0, 1)
        Share of the examples that must be answered.

    Returns
    -------
    float64 array, shape (m, t), in [0, 1].

    Raises
    ------
    TypeError, ValueError
        As in `counts`; `floor` outside (0, 1).

    Source: Berger (1982), intersection-union tests.

    >>> coverage_p_values(np.repeat([[0.9], [0.4]], [97, 3], axis=0), [0.95, 0.5], floor=0.9).round(4).tolist()
    [[1.0, 0.0078]]
    """
    c = _checks.losses(confidence, ndim=(2,), name="confidence")
    selected = counts(c, np.zeros(c.shape, dtype=bool), thresholds).selected
    return answered_p_values(selected, len(c), _checks.number(floor, "floor"))


def bins(confidence: NDArray[Any], thresholds: Floats) -> NDArray[np.int64]:
    """The cell j (t + 1) + k that each entry (n, m) falls into: k thresholds, from strict to lenient, lie above it.

    >>> bins(np.array([[0.9, 0.1], [0.5, 0.6]]), np.array([0.8, 0.5])).tolist()
    [[0, 5], [1, 4]]
    """
    above = len(thresholds) - np.searchsorted(thresholds[::-1], confidence, side="right")
    return above + (len(thresholds) + 1) * np.arange(confidence.shape[1])


def tally(cells: NDArray[np.int64], losses: NDArray[Any], t: int) -> Counts:
    """`counts` of entries that fall into these `bins`; `losses` (n, m) in [0, 1].

    >>> tally(np.array([[0, 5], [1, 4]]), np.array([[True, True], [True, False]]), t=2).loss_sum.tolist()
    [[1, 2], [0, 0]]
    """
    m = cells.shape[1]

    def cumulated(fallen: NDArray[np.int64], weights: NDArray[Any] | None = None) -> NDArray[Any]:
        return np.bincount(fallen, weights, minlength=m * (t + 1)).reshape(m, t + 1)[:, :t].cumsum(axis=1)

    selected = cumulated(cells.ravel())
    if losses.dtype.kind != "f":
        return Counts(selected, cumulated(cells[losses.astype(bool)]))
    return Counts(selected, cumulated(cells.ravel(), losses.ravel()))


def pair_p_values(found: Counts, n: int, alpha: float, method: str) -> Floats:
    """`risk_p_values` from counts among n examples, for the methods that need no more.

    >>> pair_p_values(Counts(np.array([[80, 100]]), np.array([[0, 2]])), 100, 0.05, "binomial").round(4).tolist()
    [[0.0165, 0.1183]]
    """
    selected, total = found
    if method == "binomial":  # P[Bin(selected, alpha) <= total]
        p = pvalues.binomial_cdf(total, selected, alpha)
    else:
        p = pvalues.FROM_SUM[method](total + alpha * (n - selected), n, alpha)
    return np.where(selected > 0, p, 1.0)


def answered_p_values(selected: NDArray[np.int64], n: int, floor: float) -> Floats:
    """`coverage_p_values` from counts among n examples.

    >>> answered_p_values(np.array([[97]]), 100, 0.9).round(4).tolist()
    [[0.0078]]
    """
    return pvalues.binomial(n - selected, n, 1 - floor)


class Tables(NamedTuple):
    """Confidence and losses, checked, with the cells of `bins`: p-values of any rows of them are then quick.

    >>> Tables.of([[0.9], [0.4]], [[0], [1]], [0.5]).p_values([0], alpha=0.1, method="binomial")[0].tolist()
    [[0.9]]
    """

    confidence: NDArray[Any]
    losses: NDArray[Any]
    thresholds: Floats
    cells: NDArray[np.int64]

    @classmethod
    def of(
        cls, confidence: ArrayLike, losses: ArrayLike, thresholds: ArrayLike, low: float = 0.0, high: float = 1.0
    ) -> "Tables":
        """The tables, the losses in [low, high] rescaled to [0, 1]; ValueError or TypeError where `counts` says."""
        c = _checks.losses(confidence, ndim=(2,), name="confidence")
        x = _checks.losses(losses, low, high, ndim=(2,))
        if x.shape != c.shape:
            raise ValueError(f"confidence and losses must share a shape (n, m), got {c.shape} and {x.shape}")
        taus = check_thresholds(thresholds)
        return cls(c, pvalues.rescale(x, 0.0, low, high)[0], taus, bins(c, taus))

    def p_values(self, which: Any, alpha: float, method: str) -> tuple[Floats, Counts]:
        """`risk_p_values` from these rows of the tables, in this order, and the counts behind them."""
        x, cells = self.losses[which], self.cells[which]
        if method == "binomial" and x.dtype.kind == "f":
            pvalues.loss_sums(x, counts=True)  # refuses what is neither 0 nor 1
            x = x == 1
        found = tally(cells, x, len(self.thresholds))
        if method in pvalues.FROM_SUM:
            return pair_p_values(found, len(x), alpha, method), found
        columns = zip(self.confidence[which].T, x.T, strict=True)
        answers = (np.where(c[:, None] >= self.thresholds, column[:, None], alpha) for c, column in columns)
        p = np.array([pvalues.FROM_LOSSES[method](z, alpha) for z in answers])  # z is (n, t): one ratio at a time
        return np.where(found.selected > 0, p, 1.0), found


def check_thresholds(values: Any) -> Floats:
    """`values` as a grid of thresholds, (t,) float64, strictly decreasing in [0, 1]."""
    taus = _checks.within(_checks.numeric(values, "thresholds").astype(np.float64), "thresholds", 0, 1)
    if taus.ndim != 1 or taus.size == 0:
        raise ValueError(f"thresholds must be a non-empty list of thresholds, got shape {taus.shape}")
    if (rise := np.flatnonzero(np.diff(taus) >= 0)).size:
        k = int(rise[0])
        hint = "; thresholds[::-1] is" if (np.diff(taus) > 0).all() else ""
        raise ValueError(
            f"thresholds must be strictly decreasing, from strict to lenient, got {taus[k]:g} and then "
            f"{taus[k + 1]:g} at position {k + 1}{hint}"
        )
    return taus
