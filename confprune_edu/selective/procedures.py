"""Procedures that test a whole grid of pairs (ratio, threshold) with one error budget.

A procedure takes p-values (m, t), or (trials, m, t) grid by grid, and the budget delta; it returns a bool mask
`rejected` of that shape, and P[any false rejection] <= delta for any dependence. Where the budget starts and goes must
not depend on the data that are tested.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confprune_edu import _checks, fwer
from confprune_edu.selective.evidence import Bools, Floats

STARTS = 10  # `grid_graph` shares its budget among every (m // 10)-th row, unless told otherwise: 10 to 19 of them


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


BY_NAME: dict[str, Callable[..., Bools]] = {"rows": rows, "path": middle, "graph": grid_graph}
KEEP_DELTA: tuple[Callable[..., Bools], ...] = (rows, path, middle, grid_graph)

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
        return BY_NAME[procedure](larger(risk_p, coverage_p), delta)
    return BY_NAME[procedure](risk_p, delta / 2) & (coverage_p <= delta / 2 / risk_p.shape[-2])


def larger(risk_p: Floats, coverage_p: Floats | None) -> Floats:
    """The p-values of "too risky or too silent"; those of the risk alone where no coverage is to be certified.

    >>> larger(np.array([[0.01, 0.4]]), np.array([[0.6, 0.0]])).tolist()
    [[0.6, 0.4]]
    """
    return risk_p if coverage_p is None else np.maximum(risk_p, coverage_p)


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
