"""Evidence about pairs of a pruning ratio and a confidence threshold, and procedures that test a whole grid of pairs.

H_jk: E[loss | confidence >= threshold_k] > alpha, for the model pruned to ratio_j. P-values have shape (m, t): a row a
ratio, from gentle to aggressive, a column a threshold, from strict to lenient. A procedure takes them, or p-values
(trials, m, t) grid by grid, and the budget delta; it returns a bool mask `rejected` of that shape, and P[any false
rejection] <= delta for any dependence. Where the budget starts and goes must not depend on the data that are tested.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confprune_edu import _checks, fwer, pvalues

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

METHODS = pvalues.METHODS
STARTS = 10  # `grid_graph` shares its budget among every (m // 10)-th row, unless told otherwise: 10 to 19 of them


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
        A name of `METHODS`; "betting" and "clt" walk through the examples, a ratio at a time, and take longer.
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
    alpha, method = _checks.number(alpha, "alpha"), _checks.choice(method, "method", METHODS)
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


def rows(p_values: ArrayLike, delta: float) -> Bools:
    """Bonferroni over the rows, and in each a fixed sequence from strict to lenient at delta / m.

    Parameters
    ----------
    p_values : float array, shape (m, t) or (trials, m, t), in [0, 1]
    delta : float in (0, 1)
        Tolerated probability of any false rejection in a grid.

    Returns
    -------
    rejected : bool array, the shape of `p_values`; True means "certified".

    Raises
    ------
    TypeError, ValueError
        A p-value outside [0, 1] or NaN, another shape, or `delta` outside (0, 1).

    >>> rows([[0.01, 0.04, 0.2], [0.03, 0.06, 0.01]], delta=0.1).tolist()
    [[True, True, False], [True, False, False]]
    """
    p, delta = _arguments(p_values, delta)
    m, t = p.shape[-2:]
    return fwer.fixed_sequence(p.reshape(-1, t), delta / m).reshape(p.shape)


def path(p_values: ArrayLike, delta: float, path: ArrayLike) -> Bools:
    """A fixed sequence along a path through the grid, each pair at the full delta, until the first failure.

    Parameters
    ----------
    p_values, delta
        As in `rows`.
    path : int array, shape (k, 2)
        Pairs (row, column) in the order of testing, none twice; fixed before the confidences and the losses of these
        examples are seen, or learned from other examples. Pairs off the path are never certified.

    Returns
    -------
    rejected : bool array, the shape of `p_values`; True means "certified".

    Raises
    ------
    TypeError, ValueError
        As in `rows`; a path of another form, beyond the grid, or with a pair twice.

    >>> path([[0.01, 0.04], [0.09, 0.2]], delta=0.1, path=[[0, 0], [1, 0], [1, 1]]).tolist()
    [[True, False], [True, False]]
    """
    p, delta = _arguments(p_values, delta)
    row, column = _path(path, *p.shape[-2:]).T
    rejected = np.zeros(p.shape, dtype=bool)
    if len(row):
        along = p[..., row, column]
        rejected[..., row, column] = fwer.fixed_sequence(along.reshape(-1, len(row)), delta).reshape(along.shape)
    return rejected


def staircase(
    m: int, t: int, start: tuple[int, int] | None = None, end: tuple[int, int] | None = None
) -> NDArray[np.int64]:
    """A path that needs no data: from one pair straight to another, one row or one column at a time.

    Parameters
    ----------
    m, t : int
        Rows and columns of the grid.
    start, end : (row, column), optional
        Default: down the middle column, from (0, t // 2) to (m - 1, t // 2): one threshold, and ever more pruning.

    Returns
    -------
    int64 array, shape (k, 2), for `path`.

    Raises
    ------
    TypeError, ValueError
        A start or an end beyond the grid.

    >>> staircase(2, 3).tolist(), staircase(2, 3, start=(0, 0), end=(1, 2)).tolist()
    ([[0, 1], [1, 1]], [[0, 0], [0, 1], [1, 1], [1, 2]])
    """
    m, t = _checks.positive_int(m, "m"), _checks.positive_int(t, "t")
    first = _path([(0, t // 2) if start is None else start], m, t, "start")[0]
    last = _path([(m - 1, t // 2) if end is None else end], m, t, "end")[0]
    down, along = np.abs(last - first)
    step = np.arange(down + along + 1)
    row = (2 * step * down + down + along) // max(2 * (down + along), 1)  # step * down / (down + along), rounded
    return first + np.sign(last - first) * np.column_stack([row, step - row])


def middle(p_values: ArrayLike, delta: float) -> Bools:
    """`path` down the middle column: one threshold, fixed beforehand, and ever more pruning.

    >>> middle([[0.3, 0.01], [0.01, 0.2]], delta=0.1).tolist()
    [[False, True], [False, False]]
    """
    p, delta = _arguments(p_values, delta)
    return path(p, delta, staircase(*p.shape[-2:]))


def grid_graph(p_values: ArrayLike, delta: float, weights: ArrayLike | None = None, down: float = 0.2) -> Bools:
    """The graphical procedure on the grid: a rejected pair leaves its budget to the next in its row and in its column.

    Budget enters at the strict end of some rows. Few starts give each of them a test that it can pass; the share that
    is passed down opens the rows between, and what several rows send to one pair adds up. A pair in the last column
    passes all of its budget down, one in the last row all of it along.

    Parameters
    ----------
    p_values, delta
        As in `rows`.
    weights : float array, shape (m,), >= 0, sum at most 1; optional
        Share of delta that enters at the first column of each row. Default: equal shares for every (m // 10)-th row,
        beginning with the first. With weights 1 / m and `down=0` this is `rows`, except that a row rejected as a whole
        leaves its share to others.
    down : float in [0, 1]
        Share of its budget that a rejected pair passes to the next row; the rest goes along its row.

    Returns
    -------
    rejected : bool array, the shape of `p_values`; True means "certified".

    Raises
    ------
    TypeError, ValueError
        As in `rows`; weights of another shape or outside these ranges, `down` outside [0, 1].

    Source: Bretz, Maurer, Brannath and Posch (2009). The graph has no loops, so that one pass in topological order, an
    anti-diagonal at a time, gives what their algorithm gives (`fwer.graphical`).

    >>> grid_graph([[0.01, 0.03], [0.04, 0.2]], delta=0.1, weights=[1, 0], down=0.5).tolist()
    [[True, True], [True, False]]
    """
    p, delta = _arguments(p_values, delta)
    m, t = p.shape[-2:]
    share = np.full((m, t), _checks.within(_checks.numeric(down, "down"), "down", 0, 1), dtype=np.float64)
    share[:, -1], share[-1] = 1, 0
    budget = np.zeros((*p.shape[:-2], m + 1, t + 1))  # what leaves the grid is caught in the margin
    budget[..., :m, 0] = delta * _weights(weights, m)
    rejected = np.zeros(p.shape, dtype=bool)
    for diagonal in range(m + t - 1):
        j = np.arange(max(diagonal - t + 1, 0), min(diagonal + 1, m))
        k = diagonal - j
        held = budget[..., j, k]
        rejected[..., j, k] = (p[..., j, k] <= held * (1 + fwer.SLACK)) & (held > 0)
        held = np.where(rejected[..., j, k], held, 0)
        budget[..., j + 1, k] += held * share[j, k]
        budget[..., j, k + 1] += held * (1 - share[j, k])
    return rejected


def learned_path(p_values: ArrayLike, coverage: ArrayLike) -> NDArray[np.int64]:
    """Split (Pareto) testing: the order in which pairs are tested, learned from other examples than those that test.

    Only pairs that nothing beats are on the path: no other pair prunes at least as much, covers at least as much and
    has at most its p-value; of pairs equal in all three, one is on it. They come in the order of their p-values, the
    most promising first.

    Parameters
    ----------
    p_values : float array, shape (m, t), in [0, 1]
        P-values from a first part of the examples.
    coverage : int or float array, shape (m, t), >= 0
        Coverage there, as a share or a count.

    Returns
    -------
    int64 array, shape (k, 2), k >= 1
        Pairs (row, column), for `path` on p-values from the second part.

    Raises
    ------
    TypeError, ValueError
        A p-value outside [0, 1] or NaN, or tables of unequal shape.

    Source: Laufer-Goldshtein, Fisch, Barzilay and Jaakkola, Pareto testing, arXiv 2210.07913.

    >>> learned_path([[0.01, 0.3], [0.02, 0.3]], coverage=[[0.7, 0.9], [0.6, 0.9]]).tolist()   # (1, 1) beats (0, 1)
    [[0, 0], [1, 0], [1, 1]]
    """
    p = _checks.p_values(p_values, "m", "t")
    share = _checks.within(_checks.numeric(coverage, "coverage"), "coverage", 0, np.inf)
    if p.ndim != 2 or share.shape != p.shape:
        raise ValueError(f"p_values and coverage must share a shape (m, t), got {p.shape} and {share.shape}")
    rank = np.unique(share, return_inverse=True)[1].reshape(p.shape)
    least = np.full(rank.max() + 1, np.inf)  # smallest p-value so far of a pair that covers at least so much
    found = []
    for row in range(len(p) - 1, -1, -1):  # what prunes more comes first: a later pair can not beat an earlier one
        for column in np.lexsort((p[row], -rank[row])):
            if p[row, column] < least[rank[row, column]]:
                found.append((row, column))
                covered = least[: rank[row, column] + 1]
                np.minimum(covered, p[row, column], out=covered)
    return np.array(sorted(found, key=lambda pair: (p[pair], pair)), dtype=np.int64)


PROCEDURES: dict[str, Callable[..., Bools]] = {"rows": rows, "path": middle, "graph": grid_graph}
Procedure = str | Callable[[Floats, float], Any]


def reject(procedure: Procedure, risk_p: Floats, delta: float, coverage_p: Floats | None = None) -> Bools:
    """The mask of a procedure, by name or a caller's function, from p-values of the risks and perhaps of the coverages.

    A path, and a caller's function, test the larger of the two. In a row the coverage fails at the strict end and the
    risk at the lenient end, so that "rows" and "graph" test both apart, with delta / 2 each. Examples answered at a
    threshold are answered at every more lenient one, so that the coverages of a row cost no more than a single one.

    >>> risk_p, coverage_p = np.array([[0.01, 0.02, 0.4]]), np.array([[0.6, 0.03, 0.0]])
    >>> reject("rows", risk_p, 0.1).tolist(), reject("rows", risk_p, 0.1, coverage_p).tolist()
    ([[True, True, False]], [[False, True, False]])
    """
    if callable(procedure):
        return fwer.one_by_one(procedure, larger(risk_p, coverage_p), delta, ndim=2)
    if coverage_p is None or procedure == "path":
        return PROCEDURES[procedure](larger(risk_p, coverage_p), delta)
    return PROCEDURES[procedure](risk_p, delta / 2) & (coverage_p <= delta / 2 / risk_p.shape[-2])


def larger(risk_p: Floats, coverage_p: Floats | None) -> Floats:
    """The p-values of "too risky or too silent"; those of the risk alone where no coverage is to be certified.

    >>> larger(np.array([[0.01, 0.4]]), np.array([[0.6, 0.0]])).tolist()
    [[0.6, 0.4]]
    """
    return risk_p if coverage_p is None else np.maximum(risk_p, coverage_p)


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


def _arguments(p_values: ArrayLike, delta: float) -> tuple[NDArray[np.float64], float]:
    delta = _checks.number(delta, "delta")
    return _checks.p_values(p_values, "m", "t"), delta


def _path(pairs: ArrayLike, m: int, t: int, name: str = "path") -> NDArray[np.int64]:
    array = np.asarray(pairs)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise ValueError(f"{name} must give pairs of integers (row, column), got {pairs!r}")
    if (outside := ((array < 0) | (array >= (m, t))).any(axis=1)).any():
        raise ValueError(f"{name} must stay in a grid of {m} rows and {t} columns, got {array[outside][0].tolist()}")
    pairs, visits = np.unique(array, axis=0, return_counts=True)
    if (visits > 1).any():
        raise ValueError(f"{name} must visit no pair twice, got {pairs[visits > 1][0].tolist()} more than once")
    return array.astype(np.int64)


def _weights(weights: ArrayLike | None, m: int) -> NDArray[np.float64]:
    if weights is None:
        starts = np.arange(m) % max(m // STARTS, 1) == 0
        return starts / starts.sum()
    w: NDArray[Any] = _checks.within(_checks.numeric(weights, "weights").astype(np.float64), "weights", 0, 1)
    if w.shape != (m,) or w.sum() > 1 + fwer.SLACK:
        raise ValueError(f"weights must have shape ({m},) and sum to 1 at most, got {w.tolist()}")
    return w / max(w.sum(), 1.0)


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
