"""Many tests, one budget: which hypotheses may be rejected so that P[any false rejection] <= delta.

Every procedure takes p-values of shape (m,), or (trials, m) treated row by row, and the budget delta; it returns a
bool mask `rejected` of the same shape. Rejecting H_j: risk_j > alpha certifies candidate j. All hold for any dependence
between the p-values; an order, weights or starting points must be fixed before the losses are seen.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confprune_edu import _checks

Bools = NDArray[np.bool_]


def bonferroni(p_values: ArrayLike, delta: float) -> Bools:
    """Reject every p-value that is at most delta / m: the budget in equal shares.

    Parameters
    ----------
    p_values : float array, shape (m,) or (trials, m), in [0, 1]
        One p-value a hypothesis; rows are independent repetitions.
    delta : float in (0, 1)
        Tolerated probability of any false rejection in a row.

    Returns
    -------
    rejected : bool array, the shape of `p_values`; True means "certified".

    Raises
    ------
    TypeError, ValueError
        A p-value outside [0, 1] or NaN, no p-value, or `delta` outside (0, 1).

    Source: Dunn (1961).

    >>> bonferroni([0.01, 0.04, 0.03, 0.5], delta=0.1).tolist()
    [True, False, False, False]
    """
    p, delta = _arguments(p_values, delta)
    return p <= delta / p.shape[-1]


def holm(p_values: ArrayLike, delta: float) -> Bools:
    """Bonferroni that spends the share of every rejected hypothesis again; never rejects less.

    The i-th smallest of m p-values may be as large as delta / (m - i + 1), until one fails.
    Parameters, return value and errors as in `bonferroni`.

    Source: Holm (1979).

    >>> holm([0.01, 0.04, 0.03, 0.5], delta=0.1).tolist()
    [True, True, True, False]
    """
    p, delta = _arguments(p_values, delta)
    m = p.shape[-1]
    ascending = np.sort(p, axis=-1)
    passed = np.logical_and.accumulate(ascending <= delta / np.arange(m, 0, -1), axis=-1)
    last = passed.sum(axis=-1, keepdims=True) - 1
    largest = np.take_along_axis(ascending, np.maximum(last, 0), axis=-1)
    return (p <= largest) & (last >= 0)


def fixed_sequence(p_values: ArrayLike, delta: float) -> Bools:
    """Test in the given order, each at the full delta, and stop at the first failure.

    The order is that of `p_values` and must be fixed beforehand (gentle to aggressive, say), never read off the
    losses: then a false certificate requires that the first candidate in the order whose risk exceeds alpha is
    rejected, and its p-value is at most delta with probability at most delta. Parameters, return value and errors as
    in `bonferroni`.

    Source: Maurer, Hothorn and Lehmacher (1995); Learn then Test, arXiv 2110.01052.

    >>> fixed_sequence([0.01, 0.04, 0.2, 0.03], delta=0.1).tolist()
    [True, True, False, False]
    """
    p, delta = _arguments(p_values, delta)
    return np.logical_and.accumulate(p <= delta, axis=-1)


def multi_start(p_values: ArrayLike, delta: float, starts: Sequence[int]) -> Bools:
    """Fixed sequences from several starting points, each with its own share delta / len(starts).

    A chain runs from its start to its first failure (or the end), also through later starts. Useful where the risk
    dips, so that a failure at the beginning does not end everything.

    Parameters
    ----------
    p_values, delta
        As in `bonferroni`.
    starts : sequence of int, each in 0..m-1, no two equal
        Positions where the chains begin, fixed before the losses are seen.

    Returns
    -------
    rejected : bool array, the shape of `p_values`; True means "certified".

    Raises
    ------
    TypeError, ValueError
        As in `bonferroni`; `starts` empty, repeated or out of range.

    Source: Learn then Test, arXiv 2110.01052 (fixed sequence testing).

    >>> multi_start([0.3, 0.01, 0.04, 0.2], delta=0.1, starts=[0, 1]).tolist()
    [False, True, True, False]
    """
    p, delta = _arguments(p_values, delta)
    first = _starts(starts, p.shape[-1])
    small = p <= delta / len(first)
    rejected = np.zeros(p.shape, dtype=bool)
    for start in first:
        rejected[..., start:] |= np.logical_and.accumulate(small[..., start:], axis=-1)
    return rejected


def graphical(p_values: ArrayLike, delta: float, weights: ArrayLike, transitions: ArrayLike) -> Bools:
    """Budget that flows: hypothesis j holds weights[j] * delta, and leaves it to others when it is rejected.

    Equal weights that pass on in equal shares give Holm; all weight on the first of a chain gives the fixed sequence.

    Parameters
    ----------
    p_values, delta
        As in `bonferroni`.
    weights : float array, shape (m,), >= 0, sum at most 1
        Share of delta that each hypothesis holds at the beginning.
    transitions : float array, shape (m, m), >= 0, zero diagonal, rows sum to at most 1
        transitions[j, k]: fraction of j's budget that goes to k once j is rejected.

    Returns
    -------
    rejected : bool array, the shape of `p_values`; True means "certified".

    Raises
    ------
    TypeError, ValueError
        As in `bonferroni`; weights or transitions of a wrong shape or outside these ranges.

    Rows and weights that sum to 1 up to rounding count as summing to 1. Budgets are right to about 1e-14 of their size,
    however small the transitions are, since `graph_step` subtracts nothing.

    Source: Bretz, Maurer, Brannath and Posch (2009), algorithm 1.

    >>> chain = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    >>> graphical([0.04, 0.01, 0.2], delta=0.1, weights=[1, 0, 0], transitions=chain).tolist()
    [True, True, False]
    """
    p, delta = _arguments(p_values, delta)
    graph = _graph(weights, transitions, p.shape[-1])
    rows = [_graphical_row(row, delta, *graph) for row in p.reshape(-1, p.shape[-1])]
    return np.array(rows, dtype=bool).reshape(p.shape)


def graph_step(weights: ArrayLike, transitions: ArrayLike, j: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The graph that is left when hypothesis j is rejected: its budget moves on, and so does what was sent to it.

    weights[l] gains weights[j] * transitions[j, l]. What l sends to k, it sends directly or through j; what returns to
    l through j is divided among the others in the same proportions. Budget never grows.

    Parameters
    ----------
    weights, transitions
        As in `graphical`.
    j : int in 0..m-1
        The hypothesis that is rejected.

    Returns
    -------
    weights, transitions : float64 arrays, shapes (m,) and (m, m); zero at j.

    Raises
    ------
    TypeError, ValueError
        As in `graphical`; `j` out of range.

    Source: Bretz et al. (2009), algorithm 1; Grassmann, Taksar and Heyman (1985), elimination without subtraction.

    >>> weights, transitions = graph_step([0.5, 0.25, 0.25], [[0, 0.5, 0.5], [0.5, 0, 0.5], [0, 0, 0]], j=0)
    >>> weights.tolist(), transitions.tolist()   # of 0.5 + 0.5 * 0.5 + 0.5 * 0.5, what 1 sent, 0.25 came back to it
    ([0.0, 0.5, 0.5], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    """
    m = len(_checks.numeric(weights, "weights").reshape(-1))
    w, g = _step(*_graph(weights, transitions, m), _checks.whole(j, "j", 0, m - 1))
    return w[:-1], g[:-1, :-1]


Procedure = str | Callable[[NDArray[np.float64], float], Bools]
PROCEDURES: dict[str, Callable[..., Bools]] = {f.__name__: f for f in (bonferroni, holm, fixed_sequence)}
KEEP_DELTA: tuple[Callable[..., Bools], ...] = (*PROCEDURES.values(), multi_start, graphical)


def named(procedure: Procedure) -> Callable[[NDArray[np.float64], float], Bools]:
    """The function behind a name of `PROCEDURES`, for (m,) and (trials, m).

    A function (p_values (m,), delta) -> rejected (m,) stands for itself: it is called row by row and its mask checked.

    >>> named("holm")([0.01, 0.2], 0.1).tolist()
    [True, False]
    """
    if callable(procedure) and procedure not in PROCEDURES.values():
        return functools.partial(one_by_one, procedure)
    return procedure if callable(procedure) else PROCEDURES[_checks.choice(procedure, "procedure", PROCEDURES)]


def one_by_one(procedure: Callable[..., Any], p_values: NDArray[np.float64], delta: float, ndim: int = 1) -> Bools:
    """A caller's function, which knows one row (m,), or one grid (m, t) at `ndim=2`, on each of many; masks checked.

    >>> one_by_one(lambda p, delta: p <= delta, np.array([[0.01, 0.2], [0.3, 0.1]]), 0.1).tolist()
    [[True, False], [False, True]]
    """
    own = p_values.shape[-ndim:]
    masks = [_checks.mask(procedure(p.copy(), delta), "procedure", *own) for p in p_values.reshape(-1, *own)]
    return np.array(masks).reshape(p_values.shape)


def _arguments(p_values: ArrayLike, delta: float) -> tuple[NDArray[np.float64], float]:
    delta = _checks.number(delta, "delta")
    return _checks.p_values(p_values, "m"), delta


def _starts(starts: Sequence[int], m: int) -> list[int]:
    array = _checks.numeric(starts, "starts")
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(f"starts must be a non-empty list of positions in 0..{m - 1}, got {starts!r}")
    if len(np.unique(array)) < array.size:
        raise ValueError(f"starts must not repeat a position, got {starts!r}")
    return _checks.within(array, "starts", 0, m - 1).tolist()


SLACK = 1e-12  # a third plus two sixths is two thirds only up to rounding
NO_LEAK = 1e-15  # (1 - e) + e is 1 only up to rounding


def _graph(weights: ArrayLike, transitions: ArrayLike, m: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The checked graph with a sink, node m, that receives what the others keep: all rows but its own sum to 1."""
    w = _checks.within(_checks.numeric(weights, "weights").astype(np.float64), "weights", 0, 1)
    g = _checks.within(_checks.numeric(transitions, "transitions").astype(np.float64), "transitions", 0, 1)
    if w.shape != (m,) or g.shape != (m, m):
        raise ValueError(f"weights and transitions must have shapes ({m},) and ({m}, {m}), got {w.shape} and {g.shape}")
    if np.diag(g).any():
        raise ValueError(f"transitions must have a zero diagonal, got {np.diag(g).tolist()}")
    rows = np.vstack([g, w])
    kept = np.array([math.fsum([1, *-row]) for row in rows])  # to the last digit, whatever the order
    if kept.min() < -SLACK:
        raise ValueError(
            f"weights and each row of transitions may sum to 1 at most, got {w.sum():g} and {g.sum(axis=1).max():g}"
        )
    rows = np.column_stack([rows, np.where(kept > NO_LEAK, kept, 0)]) / np.maximum(1 - kept, 1)[:, None]
    return rows[-1], np.vstack([rows[:-1], np.zeros(m + 1)])


def _step(w: NDArray[Any], g: NDArray[Any], j: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """`graph_step` where every row sums to 1, the sink's aside: then 1 - loop is what a row sends to others.

    That is summed, not subtracted, so that a loop which is closed but for 1e-12 loses no digit.
    """
    w, g = w + w[j] * g[j], g + np.outer(g[:, j], g[j])
    w[j] = g[:, j] = g[j] = g[np.diag_indices_from(g)] = 0
    sent = g.sum(axis=1)
    g[sent == 0, -1] = 1  # a loop that is closed altogether keeps its budget
    return w / max(w.sum(), 1.0), g / np.where(sent > 0, sent, 1)[:, None]


def _graphical_row(p: NDArray[Any], delta: float, w: NDArray[Any], g: NDArray[Any]) -> Bools:
    """Algorithm 1 on one row of p-values."""
    rejected = np.zeros(len(p), dtype=bool)
    while True:
        open_now = ~rejected & (p <= w[:-1] * delta * (1 + SLACK)) & (w[:-1] > 0)
        if not open_now.any():
            return rejected
        j = int(np.argmax(open_now))  # which one goes first does not change the result
        rejected[j] = True
        w, g = _step(w, g, j)
