"""Evidence against "risk > alpha" from the losses of n calibration examples.

Every function here returns p-values: small means "certified safe". For i.i.d. losses in [0, 1] with mean above alpha,
P[p <= u] <= u for every u in (0, 1) at every n (up to the rounding below); `clt`, kept for contrast, holds only
asymptotically, and `binomial` needs 0/1 losses. All but `betting` and `clt` see the losses only through their sum.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincc, ndtr, rel_entr

from confprune_edu import _checks

Floats = NDArray[np.float64]

# Sums of losses such as 0.1 carry rounding error: this close to an integer, a sum counts as that integer. (Rounding
# down by at most 1e-9 costs about what raising alpha by 1e-9 / n would.)
ROUNDING = 1e-9


def hoeffding(loss_sum: ArrayLike, n: int, alpha: float) -> Floats:
    """Relative-entropy Hoeffding p-value of H: risk > alpha; small means "certified safe", 1 means "no evidence".

    exp(-n h1(min(s / n, alpha), alpha)), with h1(a, b) = a log(a / b) + (1 - a) log((1 - a) / (1 - b)).

    Parameters
    ----------
    loss_sum : int or float array, shape (...), in [0, n]
        Sum s of the n losses, each in [0, 1].
    n : int, n >= 1
        Calibration examples, the same for every entry.
    alpha : float in (0, 1)
        Tolerated risk, as a fraction.

    Returns
    -------
    float64 array, shape (...), in [0, 1], in the order of `loss_sum`.

    Raises
    ------
    TypeError, ValueError
        An argument outside these ranges, or NaN.

    Source: Hoeffding (1963), theorem 1; Angelopoulos et al., Learn then Test, arXiv 2110.01052.

    >>> hoeffding([0, 5, 20], n=100, alpha=0.1).round(4).tolist()
    [0.0, 0.1881, 1.0]
    """
    s, n, alpha = _arguments(loss_sum, n, alpha)
    return _by_count(lambda s: _hoeffding(s, n, alpha), s, n)


def bentkus(loss_sum: ArrayLike, n: int, alpha: float) -> Floats:
    """Bentkus p-value of H: risk > alpha; small means "certified safe".

    min(1, e P[Bin(n, alpha) <= ceil(s)]): the binomial tail, paid for with a factor e that covers every law in [0, 1].
    Parameters, return value and errors as in `hoeffding`.

    Source: Bentkus (2004); Bates et al., arXiv 2101.02703.

    >>> bentkus([0, 5, 5.2, 20], n=100, alpha=0.1).round(4).tolist()
    [0.0001, 0.1565, 0.3185, 1.0]
    """
    s, n, alpha = _arguments(loss_sum, n, alpha)
    return _by_count(lambda k: _bentkus(k, n, alpha), _ceil(s), n)


def hoeffding_bentkus(loss_sum: ArrayLike, n: int, alpha: float) -> Floats:
    """The smaller of `hoeffding` and `bentkus`, the default of the literature; small means "certified safe".

    The minimum of two p-values is not a p-value in general; here it is, since both lie above `tight`.
    Parameters, return value and errors as in `hoeffding`.

    Source: Bates et al., arXiv 2101.02703; Learn then Test, arXiv 2110.01052.

    >>> hoeffding_bentkus([0, 5, 20], n=100, alpha=0.1).round(4).tolist()
    [0.0, 0.1565, 1.0]
    """
    s, n, alpha = _arguments(loss_sum, n, alpha)
    h = _by_count(lambda s: _hoeffding(s, n, alpha), s, n)
    return np.minimum(h, _by_count(lambda k: _bentkus(k, n, alpha), _ceil(s), n))


def prw(loss_sum: ArrayLike, n: int, alpha: float) -> Floats:
    """Pelekis-Ramon-Wang p-value of H: risk > alpha; small means "certified safe".

    With k = ceil(s): min(1, (n - k) alpha / (n alpha - k) P[Bin(n, alpha) <= k]) where k < n alpha, and 1 elsewhere.
    Parameters, return value and errors as in `hoeffding`.

    Source: Pelekis, Ramon and Wang, arXiv 1503.02284; Alvarez, arXiv 2405.08975.

    >>> prw([0, 5, 5.2, 20], n=100, alpha=0.1).round(4).tolist()
    [0.0, 0.1094, 0.2753, 1.0]
    """
    s, n, alpha = _arguments(loss_sum, n, alpha)

    def formula(k: NDArray[np.int64]) -> Floats:
        p = np.ones(k.shape)
        low = k < n * alpha
        p[low] = (n - k[low]) * alpha / (n * alpha - k[low]) * binomial_cdf(k[low], n, alpha)
        return np.minimum(p, 1)

    return _by_count(formula, _ceil(s), n)


def tight(loss_sum: ArrayLike, n: int, alpha: float) -> Floats:
    """The best p-value of H: risk > alpha that a hinge can give; small means "certified safe".

    min over integers c > s of E(c - B)+ / (c - s), capped at 1, for B ~ Bin(n, alpha). Never larger than `hoeffding`,
    `bentkus` or `prw`, and needs no rounding of s. Parameters, return value and errors as in `hoeffding`.

    Why it is valid: let mu > alpha be the risk. x -> (c - x)+ is convex, so E(c - S)+ <= E(c - Bin(n, mu))+ (the convex
    order of Hoeffding, 1963), and decreasing, so that this is at most E(c - B)+. Markov's inequality gives P[S <= s] <=
    E(c - B)+ / (c - s) for every c > s. The bound increases with s, hence P[bound(S) <= u] <= u. Integers c suffice:
    E(c - B)+ is linear between them.

    Source: Bentkus (2004); Pinelis (2006).

    >>> tight([0, 5, 5.2, 20], n=100, alpha=0.1).round(4).tolist()
    [0.0, 0.0914, 0.1143, 1.0]
    """
    s, n, alpha = _arguments(loss_sum, n, alpha)
    far = bool(s.min(initial=n) < n * alpha - _reach(n, alpha, alpha, 44))
    low, hinge, turn = _hinges(n, alpha, far)

    def formula(s: Floats) -> Floats:
        at = np.maximum(np.searchsorted(turn, s), np.floor(s).astype(np.int64) - low)
        p, below = np.ones(s.shape), s < n * alpha
        at = np.minimum(at[below], len(hinge) - 1)  # c = low + 1 + at
        p[below] = hinge[at] / (low + 1 + at - s[below])
        return np.minimum(p, 1)

    return _by_count(formula, s, n)


def binomial(loss_sum: ArrayLike, n: int, alpha: float) -> Floats:
    """P-value of H: risk > alpha from 0/1 losses; small means "certified safe".

    P[Bin(n, alpha) <= loss_sum]: how often a model whose risk is exactly alpha would err so rarely. Exact at every n.

    Parameters
    ----------
    loss_sum : int array, shape (...)
        Errors among the n calibration examples (a count, never a mean).
    n : int, n >= 1
        Calibration examples, the same for every entry.
    alpha : float in (0, 1)
        Tolerated risk, as a fraction.

    Returns
    -------
    float64 array, shape (...), in [0, 1], in the order of `loss_sum`.

    Raises
    ------
    TypeError
        `loss_sum` is not of integer type: these losses are not 0/1.
    ValueError
        `alpha` outside (0, 1), or a count outside 0..n.

    Source: Angelopoulos et al., Learn then Test, arXiv 2110.01052.

    >>> binomial([0, 7, 20], n=100, alpha=0.1).round(4).tolist()
    [0.0, 0.2061, 0.9992]
    """
    if np.asarray(loss_sum).dtype.kind not in "iu":
        raise TypeError(f"loss_sum must be integer counts of 0/1 losses, got dtype {np.asarray(loss_sum).dtype}")
    k, n, alpha = _arguments(loss_sum, n, alpha)
    return _by_count(lambda k: binomial_cdf(k, n, alpha), k, n)


def betting(losses: ArrayLike, alpha: float) -> Floats:
    """P-value of H: risk > alpha from a gambler's wealth; small means "certified safe", and low variance helps.

    Before loss t the gambler stakes w_t >= 0 on "it will be below alpha", and his wealth is multiplied by
    1 + w_t (alpha - L_t). If the risk exceeds alpha he can not expect to win, whatever the stakes, so that
    1 / (his largest wealth so far) is a p-value (Ville's inequality). The stake is the one that is best for a win of
    20 to 1 after n rounds at the variance seen so far, at most 3/4 of all he may stake; the first rounds lean on five
    imagined examples with mean alpha.

    Parameters
    ----------
    losses : bool, int or float array, shape (n,) or (n, m), in [0, 1]
        The losses of n >= 1 examples, in an order that does not depend on them (random, say: not sorted by class). One
        order, fixed beforehand: the smallest p-value of several is none.
    alpha : float in (0, 1)
        Tolerated risk, as a fraction.

    Returns
    -------
    float64 array, shape () or (m,), in [0, 1].

    Raises
    ------
    TypeError, ValueError
        Losses outside [0, 1], NaN, no example, or `alpha` outside (0, 1).

    Source: Waudby-Smith and Ramdas, arXiv 2010.09686 (one-sided, predictable plug-in stakes).

    >>> betting(np.full(1000, 0.08), alpha=0.1) < 0.01 < tight(80, 1000, 0.1)
    np.True_
    """
    x = _checks.losses(losses).astype(np.float64)
    alpha = _checks.number(alpha, "alpha")
    n, imagined, variance = len(x), 5, alpha * (1 - alpha)
    seen = np.arange(1, n + 1).reshape(-1, *[1] * (x.ndim - 1)) + imagined
    mean = (imagined * alpha + np.cumsum(x, axis=0)) / seen
    spread = (imagined * variance + np.cumsum((x - mean) ** 2, axis=0)) / seen
    past = np.concatenate([np.full_like(spread[:1], variance), spread[:-1]])  # a stake may use past losses only
    stake = np.minimum(np.sqrt(2 * np.log(20) / (n * past)), 0.75 / (1 - alpha))
    log_wealth = np.cumsum(np.log1p(stake * (alpha - x)), axis=0)
    return np.exp(-np.maximum(log_wealth.max(axis=0), 0))


def clt(losses: ArrayLike, alpha: float) -> Floats:
    """Normal approximation to a p-value of H: risk > alpha, for contrast: NO guarantee at any finite n.

    Phi(sqrt(n) (mean - alpha) / sd), with the n - 1 form of the standard deviation. Losses that are all equal leave no
    variance: the value is then 0 below alpha and 1 elsewhere, and a single loss gives 1.
    Parameters, return value and errors as in `betting`; the order of the losses does not matter.

    >>> float(clt([0.0] * 20, alpha=0.1)), round(float(tight(0, 20, alpha=0.1)), 4)   # 20 lucky draws prove little
    (0.0, 0.1216)
    """
    x = _checks.losses(losses).astype(np.float64)
    alpha = _checks.number(alpha, "alpha")
    if len(x) == 1:
        return np.ones(x.shape[1:])[()]
    sd = np.asarray(x.std(axis=0, ddof=1))
    varied = (np.ptp(x, axis=0) > 0) & (sd > 1e-150)  # below that the variance underflows
    gap = np.where(varied, x.mean(axis=0), x[0]) - alpha
    z = np.where(gap < 0, -np.inf, np.inf)
    np.divide(np.sqrt(len(x)) * gap, sd, out=z, where=varied)
    return ndtr(z)[()]


FROM_SUM: dict[str, Callable[..., Floats]] = {
    f.__name__: f for f in (hoeffding, bentkus, hoeffding_bentkus, prw, tight, binomial)
}
FROM_LOSSES: dict[str, Callable[..., Floats]] = {f.__name__: f for f in (betting, clt)}
METHODS = (*FROM_SUM, *FROM_LOSSES)


def p_values(losses: ArrayLike, alpha: float, method: str = "tight") -> Floats:
    """One p-value of H_j: risk_j > alpha for each candidate j of a loss table; small means "certified safe".

    Parameters
    ----------
    losses : bool, int or float array, shape (n, m), in [0, 1]
        Loss of each of n calibration examples (rows) under each of m candidates; shape (n,) for a single candidate.
    alpha : float in (0, 1)
        Tolerated risk, as a fraction.
    method : str
        hoeffding, bentkus, hoeffding_bentkus, prw, tight, binomial (0/1 losses only), betting or clt (no guarantee).

    Returns
    -------
    float64 array, shape (m,), in [0, 1], in the order of the columns.

    Raises
    ------
    TypeError, ValueError
        Losses outside [0, 1] or NaN, no example, an unknown method, `binomial` on losses that are not 0/1.

    >>> losses = np.repeat([[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]], [5, 15, 80], axis=0)
    >>> p_values(losses, alpha=0.1).round(4).tolist()   # 5, 20, 0 and 85 errors in 100
    [0.0914, 1.0, 0.0, 1.0]
    """
    _checks.choice(method, "method", METHODS)
    x = _checks.losses(losses)
    if method in FROM_LOSSES:
        return FROM_LOSSES[method](x, alpha)
    return FROM_SUM[method](loss_sums(x, counts=method == "binomial"), len(x), alpha)


def loss_sums(losses: NDArray[Any], counts: bool = False) -> NDArray[Any]:
    """Column sums of a loss array: an integer count of bool and integer losses, float64 of others.

    With `counts=True` float losses must be exactly 0 or 1 and are counted too (TypeError otherwise).

    >>> loss_sums(np.array([[True, False], [True, True]])).tolist()
    [2, 1]
    """
    if losses.dtype.kind != "f":
        return losses.sum(axis=0, dtype=np.int64)
    total = losses.sum(axis=0, dtype=np.float64)
    if not counts:
        return total
    if not ((losses == 0) | (losses == 1)).all():
        raise TypeError(
            "method 'binomial' needs 0/1 losses, got values strictly between 0 and 1: use 'tight' or 'betting'"
        )
    return np.rint(total).astype(np.int64)


def rescale(losses: NDArray[Any], alpha: float, low: float, high: float) -> tuple[NDArray[Any], float]:
    """Losses and alpha of the range [low, high], moved to [0, 1] together, in float64.

    >>> rescale(np.array([-1, 0, 1]), 0.1, -1, 1)
    (array([0. , 0.5, 1. ]), 0.55)
    """
    if (low, high) == (0, 1):
        return losses, alpha
    return (losses.astype(np.float64) - low) / (high - low), (float(alpha) - low) / (high - low)


def binomial_cdf(k: NDArray[Any], n: Any, alpha: float) -> Floats:
    """P[Bin(n, alpha) <= k] for integers k in 0..n, as the regularised incomplete beta function; n may be an array.

    >>> binomial_cdf(np.array([0, 2, 0]), np.array([80, 100, 0]), 0.05).round(4).tolist()
    [0.0165, 0.1183, 1.0]
    """
    return np.where(k == n, 1.0, betaincc(k + 1.0, np.maximum(n - k, 1.0), alpha))


def _arguments(loss_sum: ArrayLike, n: int, alpha: float) -> tuple[NDArray[Any], int, float]:
    """Checked (loss_sum, n, alpha): sums near an integer are that integer, and counts have integer type."""
    n, alpha = _checks.positive_int(n, "n"), _checks.number(alpha, "alpha")
    s = _checks.numeric(loss_sum, "loss_sum")
    if s.dtype.kind == "b":
        raise TypeError("loss_sum must be sums or counts, got booleans: sum the losses over the examples first")
    if s.dtype.kind == "f":
        s = s.astype(np.float64)
        whole = np.rint(s)
        near = np.abs(s - whole) <= ROUNDING
        s = whole.astype(np.int64) if near.all() else np.where(near, whole, s)
    s = _checks.within(s, "loss_sum", 0, n)
    return s.astype(np.int64) if s.dtype.kind in "iu" else s, n, alpha


def _by_count(formula: Callable[[NDArray[Any]], Floats], s: NDArray[Any], n: int) -> Floats:
    """`formula(s)`; counts repeat, so many of them are read off the table of formula(0..n)."""
    if s.dtype.kind in "iu" and s.size > n + 1:
        return formula(np.arange(n + 1))[s]
    return formula(s)[()]


def _ceil(s: NDArray[Any]) -> NDArray[np.int64]:
    return np.ceil(s).astype(np.int64)


def _hoeffding(s: NDArray[Any], n: int, alpha: float) -> Floats:
    mean = np.minimum(s / n, alpha)
    return np.minimum(np.exp(-n * (rel_entr(mean, alpha) + rel_entr(1 - mean, 1 - alpha))), 1)


def _bentkus(k: NDArray[np.int64], n: int, alpha: float) -> Floats:
    return np.minimum(np.e * binomial_cdf(k, n, alpha), 1)


@functools.lru_cache(maxsize=4)  # a fixed sequence asks for one p-value after another
def _hinges(n: int, alpha: float, far: bool) -> tuple[int, Floats, Floats]:
    """`low`, E(c - B)+ for c = low + 1, low + 2, ..., and where the best c turns, see `_turning_points`.

    Only for the counts that matter. Above the last, P[B <= i] is 1 but for exp(-44). Below `low` it is 0 in floating
    point, exp(-760), if `far`; else it is exp(-44) of what it is at a sum that `_reach` calls near, since
    P[B <= i - w] / P[B <= i] increases with i: P[B <= i] is log-concave.
    """
    mean, near = n * alpha, _reach(n, alpha, alpha, 44)
    low = max(int(mean - (_reach(n, alpha, alpha, 760) if far else 2 * near + 1)), 0)
    cdf = binomial_cdf(np.arange(low, min(int(mean + _reach(n, alpha, 1 - alpha, 44)) + 2, n) + 1), n, alpha)
    hinge = np.cumsum(cdf[:-1])  # the sum of P[B <= i] over i < c
    return low, hinge, _turning_points(low + 1 + np.arange(len(hinge)), hinge, cdf[1:])


def _reach(n: int, alpha: float, step: float, nats: float) -> float:
    """The t at which Bernstein's bound on P[B - n alpha beyond t] is exp(-nats), `step` the largest step that way."""
    drift = nats * step / 3
    return drift + math.sqrt(drift**2 + 2 * nats * n * alpha * (1 - alpha))


def _turning_points(c: NDArray[np.int64], hinge: Floats, cdf: Floats) -> Floats:
    """E[B | B <= c] for each c: the best c for a sum s is the first one above s where this reaches s.

    Adding 1 to c lowers E(c - B)+ / (c - s) exactly while s > c - E(c - B)+ / P[B <= c], and the right-hand side is
    E[B | B <= c], which increases with c. Where P[B <= c] underflows, any larger c is valid too: none is chosen there.
    """
    return np.where(cdf > 0, c - hinge / np.where(cdf > 0, cdf, 1), -np.inf)
