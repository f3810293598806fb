"""P-values against slow exact references, and their promise P[p <= u] <= u against laws whose risk is known."""

import math
import time
import tracemalloc
from decimal import Decimal
from fractions import Fraction
from functools import cache
from itertools import accumulate, product

import mpmath
import numpy as np
import pytest
import torch
from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value
from scipy.stats import binom, binomtest
from statsmodels.stats.weightstats import ztest

from confprune_edu import pvalues
from confprune_edu.pvalues import betting, binomial, clt, hoeffding, hoeffding_bentkus, p_values, prw, tight

FROM_SUM = (hoeffding, pvalues.bentkus, hoeffding_bentkus, prw, tight)  # any losses in [0, 1]
FROM_COUNT = (*FROM_SUM, binomial)
by_sum = pytest.mark.parametrize("method", FROM_SUM, ids=lambda f: f.__name__)
by_count = pytest.mark.parametrize("method", FROM_COUNT, ids=lambda f: f.__name__)
sizes = pytest.mark.parametrize("n", [1, 2, 7, 100, 1000])
alphas = pytest.mark.parametrize("alpha", [0.01, 0.07, 0.1, 0.29, 0.5, 0.9])


# --- the slow, exact references: integer arithmetic on the float alpha, rounded once at the end ---


@cache
def exact_cdf(n, alpha):
    """P[Bin(n, alpha) <= k] for k = 0..n, and 1 for k up to 3n."""
    top, bottom = alpha.as_integer_ratio()
    mass = (math.comb(n, k) * top**k * (bottom - top) ** (n - k) for k in range(n + 1))
    return np.array([total / bottom**n for total in accumulate(mass)] + [1.0] * 2 * n)


def slow_hoeffding(s, n, alpha):
    s, n, alpha = Decimal(s), Decimal(n), Decimal(alpha)
    if s >= n * alpha:
        return 1.0
    return float(((n * alpha / s) ** s if s else 1) * (n * (1 - alpha) / (n - s)) ** (n - s))


def slow_bentkus(s, n, alpha):
    return min(1.0, math.e * exact_cdf(n, alpha)[math.ceil(s)])


def slow_hoeffding_bentkus(s, n, alpha):
    return min(slow_hoeffding(s, n, alpha), slow_bentkus(s, n, alpha))


def slow_prw(s, n, alpha):
    k, expected = math.ceil(s), n * Fraction(alpha)
    return min(1.0, float((n - k) * Fraction(alpha) / (expected - k)) * exact_cdf(n, alpha)[k]) if k < expected else 1.0


def slow_tight(s, n, alpha):
    hinge = np.concatenate([[0.0], np.cumsum(exact_cdf(n, alpha))])  # E(c - B)+ for c = 0..3n+1
    c = np.arange(math.floor(s) + 1, 3 * n + 1)
    return min(1.0, (hinge[c] / (c - s)).min())


def slow_binomial(k, n, alpha):
    return exact_cdf(n, alpha)[k]


def slow_betting(losses, alpha):
    """One example at a time: stake, win or lose, only then learn the loss."""
    n, wealth, richest = len(losses), 1.0, 1.0
    total, squares, seen = 5 * alpha, 5 * alpha * (1 - alpha), 5
    for loss in losses:
        stake = min(math.sqrt(2 * math.log(20) / (n * squares / seen)), 0.75 / (1 - alpha))
        wealth *= 1 + stake * (alpha - loss)
        richest = max(richest, wealth)
        total, seen = total + loss, seen + 1
        squares += (loss - total / seen) ** 2
    return 1 / richest


@by_count
@sizes
@alphas
def test_every_count_equals_the_exact_reference(method, n, alpha):
    slow = globals()[f"slow_{method.__name__}"]
    expected = [slow(k, n, alpha) for k in range(n + 1)]
    np.testing.assert_allclose(method(np.arange(n + 1), n, alpha), expected, rtol=1e-9, atol=1e-300)


@by_sum
@sizes
@alphas
def test_fractional_sums_equal_the_exact_reference(method, n, alpha):
    slow = globals()[f"slow_{method.__name__}"]
    s = np.concatenate([np.linspace(0, n, 197), n * alpha * np.linspace(0.5, 1, 53)[:-1]])
    expected = [slow(x, n, alpha) for x in s]
    np.testing.assert_allclose(method(s, n, alpha), expected, rtol=1e-8, atol=1e-300)


@sizes
@alphas
def test_hoeffding_bentkus_equals_mapie(n, alpha):
    k = np.arange(n + 1)
    k = k[np.ceil(n * (k / n)) == k]  # elsewhere mapie, which takes a mean, counts one error too many
    mapie = compute_hoeffding_bentkus_p_value(k / n, n, alpha)[:, 0]
    np.testing.assert_allclose(hoeffding_bentkus(k, n, alpha), np.minimum(mapie, 1), rtol=1e-9, atol=1e-300)


@sizes
@alphas
def test_binomial_equals_scipy(n, alpha):
    k = np.arange(n + 1)
    np.testing.assert_allclose(binomial(k, n, alpha), binom.cdf(k, n, alpha), rtol=1e-9, atol=1e-300)


@alphas
@pytest.mark.parametrize("n", [1, 2, 7, 100, 1000])
def test_betting_equals_a_loop_over_the_examples(n, alpha):
    rng = np.random.default_rng(n)
    losses = np.column_stack(
        [rng.random(n), rng.beta(2, 20, n), rng.random(n) < alpha, np.zeros(n), np.ones(n), np.full(n, alpha)]
    )
    expected = [slow_betting(column, alpha) for column in losses.T]
    np.testing.assert_allclose(betting(losses, alpha), expected, rtol=1e-10)


def test_clt_equals_statsmodels():
    losses = np.random.default_rng(0).beta(2, 18, (50, 30))
    expected = [ztest(column, value=0.1, alternative="smaller")[1] for column in losses.T]
    np.testing.assert_allclose(clt(losses, 0.1), expected, rtol=1e-9)


# --- the promise: at the null boundary, and beyond it, P[p <= u] <= u for every u ---


def excess(p, chance):
    """max over u of P[p <= u] - u, exactly, for a p-value that takes value p[i] with probability chance[i]."""
    u, which = np.unique(p, return_inverse=True)
    return (np.cumsum(np.bincount(which, chance)) - u).max()


def two_point(low, high, risk, n):
    """All sums of n losses in {low, high} with mean `risk`, and their probabilities."""
    k = np.arange(n + 1)
    return (k if (low, high) == (0, 1) else low * (n - k) + high * k), binom.pmf(k, n, (risk - low) / (high - low))


@by_count
@sizes
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("risk_over_alpha", [1, 1.1])
def test_error_counts_give_valid_p_values_exactly(method, n, alpha, risk_over_alpha):
    counts, chance = two_point(0, 1, alpha * risk_over_alpha, n)
    assert excess(method(counts, n, alpha), chance) <= 1e-12


@by_sum
@sizes
@pytest.mark.parametrize(("low", "high"), [(0, 0.9), (0, 0.35), (0.04, 1), (0.09, 0.11)])
def test_two_point_losses_give_valid_p_values_exactly(method, n, low, high):
    sums, chance = two_point(low, high, 0.1, n)
    assert excess(method(sums, n, 0.1), chance) <= 1e-12


LAWS = {  # values, their probabilities, number of examples; the mean is 0.3
    "0/1": ([0, 1], [0.7, 0.3], 11),
    "two-point": ([0.2, 0.9], [6 / 7, 1 / 7], 11),
    "three-point": ([0, 0.25, 1], [0.6, 0.4 / 3, 0.8 / 3], 7),
}


def every_table(law):
    """Each possible sequence of losses, as a column (n, m), and its probability (m,)."""
    values, chance, n = LAWS[law]
    return np.array(list(product(values, repeat=n))).T, np.prod(list(product(chance, repeat=n)), axis=1)


@pytest.mark.parametrize("method", ["hoeffding", "bentkus", "hoeffding_bentkus", "prw", "tight", "betting"])
@pytest.mark.parametrize("law", LAWS)
def test_every_possible_table_gives_a_valid_p_value(method, law):
    table, chance = every_table(law)
    assert excess(p_values(table, 0.3, method), chance) <= 1e-12


def lost_one_error(k, n, alpha):
    return binom.cdf(k - 1, n, alpha)


def rounded_down(s, n, alpha):
    return binom.cdf(np.floor(s), n, alpha)


def bets_with_hindsight(table, alpha):
    gain = np.where(table < alpha, 1.0, 0) * (alpha - table)
    return np.minimum(1 / np.prod(1 + gain, axis=0), 1)


def bets_both_ways(table, alpha):
    return 2 / (np.prod(1 + (alpha - table), axis=0) + np.prod(1 - (alpha - table), axis=0))


def test_twin_the_exact_check_finds_broken_p_values():
    counts, chance = two_point(0, 1, 0.1, 100)
    assert excess(lost_one_error(counts, 100, 0.1), chance) > 0.01
    sums, chance = two_point(0, 0.9, 0.1, 100)
    assert excess(rounded_down(sums, 100, 0.1), chance) > 0.01
    table, chance = every_table("0/1")
    assert excess(clt(table, 0.3), chance) > 0.01
    assert excess(bets_with_hindsight(table, 0.3), chance) > 0.01
    worse = every_table("0/1")[0] * 0.5 + 0.5  # the risk is 0.65: no bet against it may pay
    assert excess(bets_both_ways(worse, 0.3), chance) > 0.01


TRIALS = 4000
RANDOM_LAWS = {  # mean 0.1
    "narrow beta": lambda rng, shape: rng.beta(5, 45, shape),
    "wide beta": lambda rng, shape: rng.beta(0.05, 0.45, shape),
    "two-point": lambda rng, shape: np.where(rng.random(shape) < 0.05, 0.86, 0.06),
    "0/1": lambda rng, shape: rng.random(shape) < 0.1,
    "rare loss": lambda rng, shape: np.where(rng.random(shape) < 0.1 / 0.95, 0.95, 0.0),
}


def exceeds(hits, trials, level):
    """Is P[hit] > level, beyond doubt? One-sided exact binomial test at 1e-4."""
    return binomtest(int(hits), trials, level, alternative="greater").pvalue < 1e-4


def broken_level(p):
    """The first u with P[p <= u] > u beyond doubt, or None; one p-value a trial."""
    return next((u for u in (0.01, 0.05, 0.1, 0.2, 0.5) if exceeds((p <= u).sum(), len(p), u)), None)


@pytest.mark.parametrize("method", ["hoeffding", "bentkus", "hoeffding_bentkus", "prw", "tight", "betting"])
@pytest.mark.parametrize("law", RANDOM_LAWS)
@pytest.mark.parametrize("n", [20, 200])
def test_random_losses_give_valid_p_values(method, law, n):
    losses = RANDOM_LAWS[law](np.random.default_rng(1), (n, TRIALS))
    assert broken_level(p_values(losses, 0.1, method)) is None


def test_twin_the_simulation_finds_clt_and_rounding_down_broken():
    losses = RANDOM_LAWS["rare loss"](np.random.default_rng(1), (20, TRIALS))
    assert broken_level(clt(losses, 0.1)) == 0.01
    assert broken_level(rounded_down(losses.sum(axis=0), 20, 0.1)) is not None


# --- tight: the best of them ---


@sizes
@alphas
def test_tight_is_nowhere_above_the_others(n, alpha):
    s = np.concatenate([np.arange(n + 1), np.linspace(0, n, 501)])
    for other in (hoeffding, pvalues.bentkus, hoeffding_bentkus, prw):
        assert (tight(s, n, alpha) <= other(s, n, alpha) + 1e-12).all()


@sizes
@alphas
def test_no_error_at_all_gives_the_exact_binomial_value(n, alpha):
    assert tight(0, n, alpha) == pytest.approx((1 - alpha) ** n, rel=1e-9)
    assert binomial(0, n, alpha) == pytest.approx((1 - alpha) ** n, rel=1e-9)


@by_count
@pytest.mark.parametrize("alpha", [0.01, 0.3, 0.99])
def test_large_samples_stay_finite_and_ordered(method, alpha):
    p = method(np.arange(0, 100_001, 50), 100_000, alpha)
    assert np.isfinite(p).all()
    assert (np.diff(p) >= -1e-12).all()  # more errors are never better


def long_double_tight(s, n, alpha):
    """Every c from 25 deviations below n alpha to 12 above; only the first probability comes from many digits."""
    deviation = math.sqrt(n * alpha * (1 - alpha))
    low, high = max(int(n * alpha - 25 * deviation), 0), min(int(n * alpha + 12 * deviation) + 5, n)
    with mpmath.workdps(40):
        a, lg = mpmath.mpf(alpha), mpmath.loggamma
        log = lg(n + 1) - lg(low + 1) - lg(n - low + 1) + low * mpmath.log(a) + (n - low) * mpmath.log(1 - a)
        first = float(mpmath.exp(log))
    i = np.arange(low, high, dtype=np.longdouble)
    odds = np.longdouble(alpha) / (1 - np.longdouble(alpha))
    pmf = np.concatenate([[1], np.cumprod((n - i) / (i + 1) * odds)])
    c, hinge = np.arange(low + 1, high + 2), np.cumsum(np.cumsum(pmf))
    return min(1.0, float((hinge[c > s] / (c[c > s] - s)).min()) * first)


@pytest.mark.parametrize(("n", "alpha"), [(10**6, 0.05), (10**7, 0.3), (10**8, 1e-4), (10**8, 0.1), (10**8, 0.5)])
def test_tight_at_large_n_equals_the_whole_sum(n, alpha):
    s = n * alpha - np.array([0.01, 1, 3, 8, 9.5, 12, 20]) * math.sqrt(n * alpha * (1 - alpha))
    want = [long_double_tight(x, n, alpha) for x in s]
    np.testing.assert_allclose(tight(s, n, alpha), want, rtol=1e-12)  # at once, and far sums with near ones
    np.testing.assert_allclose([tight(x, n, alpha) for x in s], want, rtol=1e-12)


def test_tight_at_large_n_needs_little_time_and_memory():
    tracemalloc.start()
    before = time.process_time()
    assert tight(10**7 - 5000, 10**8, 0.1) == pytest.approx(long_double_tight(10**7 - 5000, 10**8, 0.1), rel=1e-12)
    assert time.process_time() - before < 5  # half a second, where nothing else runs
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()


def test_low_variance_favours_betting_and_counts_favour_tight():
    steady = np.random.default_rng(2).beta(80, 920, (500, 200))  # mean 0.08, nearly constant
    counts = np.random.default_rng(3).random((500, 200)) < 0.06
    assert np.median(betting(steady, 0.1)) < np.median(p_values(steady, 0.1, "tight")) / 100
    assert np.median(p_values(counts, 0.1, "tight")) < np.median(betting(counts, 0.1))


# --- sums carry rounding error, counts do not ---


@by_sum
@pytest.mark.parametrize("s", [0.1 * 3 * 10, np.cumsum(np.full(30, 0.1))[-1], 3 - 1e-10, 3 + 1e-10])
def test_a_sum_next_to_an_integer_counts_as_that_integer(method, s):
    assert s != 3
    assert method(s, 30, 0.2) == method(3, 30, 0.2)
    np.testing.assert_array_equal(method([s, 4.5], 30, 0.2), method([3.0, 4.5], 30, 0.2))


@by_sum
@pytest.mark.parametrize("s", [28.999999, 28.99999999, 28.999999999])
def test_a_sum_just_below_an_integer_is_not_rounded_down(method, s):
    assert method(s, 300, 0.15) == pytest.approx(method(29, 300, 0.15), rel=1e-5)


@by_sum
def test_sums_outside_by_rounding_only_are_accepted(method):
    np.testing.assert_array_equal(method([-1e-12, 10 + 1e-12], 10, 0.3), method([0, 10], 10, 0.3))


@by_count
@pytest.mark.parametrize("kind", [bool, np.int8, np.uint8, np.int64, np.float32, np.float64])
def test_every_count_of_up_to_60_survives_the_way_through_a_loss_table(method, kind):
    for n in range(1, 61):
        k = np.arange(n + 1)
        losses = (np.arange(n)[:, None] < k).astype(kind)  # column k holds k errors
        np.testing.assert_array_equal(p_values(losses, 0.1, method.__name__), method(k, n, 0.1))


def test_seven_errors_in_a_hundred_are_seven():
    losses = np.arange(100) < 7
    assert math.ceil(100 * losses.mean()) == 8  # the trap
    assert p_values(losses, 0.1, "binomial") == pytest.approx(0.2061, abs=5e-5)
    assert p_values(losses, 0.1, "bentkus") == pytest.approx(math.e * 0.2061, abs=2e-4)


@by_count
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_narrow_integers_do_not_overflow(method, kind):
    losses = np.arange(1000)[:, None] < np.array([300, 0, 1000, 60])
    name = method.__name__
    np.testing.assert_array_equal(p_values(losses.astype(kind), 0.4, name), p_values(losses, 0.4, name))
    np.testing.assert_array_equal(method(np.array([7, 100], kind), 1000, 0.1), method([7, 100], 1000, 0.1))


@pytest.mark.parametrize("method", pvalues.METHODS)
def test_single_precision_losses_are_summed_in_double_precision(method):
    single = np.random.default_rng(4).random((3000, 2), dtype=np.float32) / 4
    if method == "binomial":
        single = np.round(single * 4)
    np.testing.assert_array_equal(p_values(single, 0.13, method), p_values(single.astype(float), 0.13, method))


@pytest.mark.parametrize("kind", [np.int8, np.float16, np.float32, np.float64])
def test_losses_of_any_type_are_rescaled_in_double_precision(kind):
    table = np.random.default_rng(9).integers(-1, 2, (2000, 3)).astype(kind)
    table[0] = 0.1 if np.issubdtype(kind, np.floating) else 0
    got, level = pvalues.rescale(table, kind(0.25) if kind != np.int8 else 0.25, -1, 2)
    assert got.dtype == np.float64 and type(level) is float
    assert (got.tolist(), level) == ([[(float(x) + 1) / 3 for x in row] for row in table], 1.25 / 3)


@by_sum
@pytest.mark.parametrize("n", [3, 100, 10**6])
@pytest.mark.parametrize("alpha", [0.1, 0.29, 0.5])
def test_no_p_value_exceeds_one(method, n, alpha):
    just_below = n * alpha * (1 - np.logspace(-15, -2, 100))
    assert (method(just_below, n, alpha) <= 1).all()


# --- the ends of the range ---


@by_count
@sizes
def test_only_losses_give_exactly_one(method, n):
    assert method(n, n, 0.3) == 1


@pytest.mark.parametrize("method", [*(f.__name__ for f in FROM_COUNT), "betting", "clt"])
def test_a_risk_far_above_alpha_gives_exactly_one(method):
    assert p_values(np.ones((40, 2)), 0.1, method).tolist() == [1, 1]
    if method not in ("binomial", "clt"):
        assert p_values(np.tile([0.5, 0.6, 0.7, 1], 25), 0.1, method) == 1


@pytest.mark.parametrize("method", ["hoeffding", "bentkus", "hoeffding_bentkus", "prw", "tight", "binomial", "betting"])
def test_one_example_can_not_certify(method):
    assert p_values([0], 0.1, method) >= 0.9 * (1 - 1e-12)  # P[no loss] at the null boundary
    assert p_values([1], 0.1, method) == 1


def test_clt_of_losses_that_are_all_equal():
    for n in range(2, 60):
        equal = [clt(np.full(n, loss), 0.3) for loss in (0.0, 0.29, 0.3, 0.31, 1.0)]
        assert equal == [0, 0, 1, 1, 1], f"n = {n}"
    assert clt([0.0], 0.3) == 1
    assert clt([[0.0, 1.0]], 0.3).tolist() == [1, 1]


def test_clt_of_losses_that_hardly_differ():
    assert clt([0.0, 1e-200], 0.3) == 0
    assert clt([1.0, 1.0, 1 - 1e-16], 0.3) == 1


# --- shapes, types, order ---


@by_count
def test_shape_and_order_of_the_sums_are_kept(method):
    counts = np.random.default_rng(5).integers(0, 11, (6, 4))  # 24 counts, more than n + 1: a table lookup
    one_by_one = np.array([[method(k, 10, 0.3) for k in row] for row in counts.tolist()])
    for kind in (np.int64, np.uint8, np.uint64):
        got = method(counts.astype(kind), 10, 0.3)
        assert got.shape == (6, 4)
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got, one_by_one)
    np.testing.assert_array_equal(method(counts[0], 10, 0.3), one_by_one[0])
    assert isinstance(method(3, 10, 0.3), np.float64)
    assert isinstance(method(np.array(3), 10, 0.3), np.float64)


@by_sum
def test_fractional_sums_keep_shape_and_order(method):
    sums = np.random.default_rng(6).random((6, 4)) * 10
    got = method(sums, 10, 0.3)
    np.testing.assert_array_equal(got, [[method(s, 10, 0.3) for s in row] for row in sums.tolist()])
    assert method(np.concatenate([sums[0], [4]]), 10, 0.3)[-1] == method(4, 10, 0.3)


@pytest.mark.parametrize("method", pvalues.METHODS)
def test_columns_are_independent_and_losses_are_left_alone(method):
    losses = np.random.default_rng(7).integers(0, 2, (30, 5)).astype(float)
    before = losses.copy()
    got = p_values(losses, 0.6, method)
    assert got.shape == (5,)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, [p_values(losses[:, j].copy(), 0.6, method) for j in range(5)], rtol=1e-14)
    np.testing.assert_array_equal(losses, before)
    assert isinstance(p_values(losses[:, 0], 0.6, method), np.float64)


def test_tight_is_the_default_method():
    losses = np.random.default_rng(8).random((30, 5)) / 8
    np.testing.assert_array_equal(p_values(losses, 0.1), tight(losses.sum(axis=0), 30, 0.1))


# --- refusals name the argument ---

bad_alpha = pytest.mark.parametrize(
    ("alpha", "error"),
    [(bad, ValueError) for bad in (0, 1, -0.1, 1.1, math.nan, math.inf)]
    + [(bad, TypeError) for bad in ("0.1", None, True, [0.1])],
)


@by_count
@bad_alpha
def test_alpha_is_refused_by_sums(method, alpha, error):
    with pytest.raises(error, match=r"^alpha must"):
        method(3, 10, alpha)


@pytest.mark.parametrize("method", pvalues.METHODS)
@bad_alpha
def test_alpha_is_refused_by_losses(method, alpha, error):
    with pytest.raises(error, match=r"^alpha must"):
        p_values([0, 1, 0], alpha, method)


@by_count
@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-3, ValueError), (10.0, TypeError), (True, TypeError)])
def test_n_is_refused(method, n, error):
    with pytest.raises(error, match=r"^n must"):
        method(0, n, 0.1)


@by_count
@pytest.mark.parametrize("loss_sum", [-1, 11, [0, 11]], ids=repr)
def test_a_count_outside_the_sample_is_refused(method, loss_sum):
    with pytest.raises(ValueError, match=r"^loss_sum must lie in \[0, 10\]"):
        method(loss_sum, 10, 0.1)


@by_sum
@pytest.mark.parametrize("loss_sum", [-1e-6, 10 + 1e-6, math.nan, math.inf, [1.0, math.nan]], ids=repr)
def test_a_sum_outside_the_sample_is_refused(method, loss_sum):
    with pytest.raises(ValueError, match=r"^loss_sum must"):
        method(loss_sum, 10, 0.1)


@by_count
@pytest.mark.parametrize("loss_sum", ["3", None, [True, False], 3j], ids=repr)
def test_a_loss_sum_that_is_no_number_is_refused(method, loss_sum):
    with pytest.raises(TypeError, match=r"^loss_sum must"):
        method(loss_sum, 10, 0.1)


@pytest.mark.parametrize("loss_sum", [3.0, [1, 2.5], np.float32(2)], ids=repr)
def test_binomial_refuses_sums_that_are_no_counts(loss_sum):
    with pytest.raises(TypeError, match=r"^loss_sum must be integer counts"):
        binomial(loss_sum, 10, 0.1)


@pytest.mark.parametrize("method", pvalues.METHODS)
@pytest.mark.parametrize(
    "losses",
    [[0, 2], [-1, 0], [0.5, 1.01], [-0.01, 0], [0, math.nan], [0, math.inf], np.array([3, 0], np.uint8)]
    + [np.zeros(shape) for shape in ((), (0,), (0, 3), (3, 0), (2, 2, 2))],
    ids=str,
)
def test_losses_are_refused(method, losses):
    with pytest.raises(ValueError, match=r"^losses must"):
        p_values(losses, 0.1, method)


@pytest.mark.parametrize("method", pvalues.METHODS)
@pytest.mark.parametrize("losses", [["0", "1"], [None, 1], [0j, 1]], ids=str)
def test_losses_that_are_no_numbers_are_refused(method, losses):
    with pytest.raises(TypeError, match=r"^losses must hold numbers"):
        p_values(losses, 0.1, method)


@pytest.mark.parametrize("method", pvalues.METHODS)
def test_losses_a_rounding_error_outside_are_moved_to_the_end(method):
    losses = np.array([0.0, 1.0, 0.0, 0.0])
    beyond = losses + np.array([-9e-7, 9e-7, 0, 0])
    assert p_values(beyond, 0.3, method) == p_values(losses, 0.3, method) and beyond[1] > 1
    for bad in (losses - 1.1e-6, losses + 1.1e-6):
        with pytest.raises(ValueError, match=r"^losses must lie in \[0, 1\], got"):
            p_values(bad, 0.3, method)


def scalar(kind, value):
    return torch.tensor(value) if kind == "torch" else np.dtype(kind).type(value)


@pytest.mark.parametrize("kind", ["torch", "float16", "float32", "float64"])
def test_alpha_may_be_a_scalar_of_torch_or_numpy(kind):
    alpha = scalar(kind, 0.125)
    assert binomial(3, 10, alpha) == binomial(3, 10, 0.125) == binomial(3, 10, np.array(float(alpha)))
    with pytest.raises(TypeError, match=r"^alpha must be a number"):
        binomial(3, 10, torch.tensor(True) if kind == "torch" else np.bool_(True))
    with pytest.raises(ValueError, match=r"^alpha must lie"):
        binomial(3, 10, scalar(kind, 1.0))


@pytest.mark.parametrize("function", [betting, clt], ids=lambda f: f.__name__)
def test_betting_and_clt_guard_their_own_door(function):
    with pytest.raises(ValueError, match=r"^losses must lie in"):
        function([0, 1.5], 0.1)
    with pytest.raises(ValueError, match=r"^losses must"):
        function([], 0.1)


def test_the_refusal_says_where_the_bad_loss_is():
    with pytest.raises(ValueError, match=r"got 1\.5 at position \[1, 0\]"):
        p_values([[0, 0], [1.5, 0]], 0.1)


@pytest.mark.parametrize("method", ["hb", "", None, 3, "Tight"], ids=repr)
def test_an_unknown_method_is_answered_with_the_known_ones(method):
    with pytest.raises(ValueError, match=r"^method must be one of " + ", ".join(pvalues.METHODS)):
        p_values([0, 1], 0.1, method)


def test_binomial_takes_only_losses_that_are_0_or_1():
    with pytest.raises(TypeError, match=r"binomial.*0/1 losses"):
        p_values([0, 1, 0.5], 0.1, "binomial")
    assert p_values([0.0, 1.0, 0.0], 0.1, "binomial") == binomial(1, 3, 0.1)
