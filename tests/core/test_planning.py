"""How many examples to label, which ratio to expect, the watch over a network at work; with twins that must fail."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from confprune_edu import pvalues
from confprune_edu.calibration import calibrate_losses
from confprune_edu.planning import expected_ratio, most_failures
from confprune_edu.validation import bernoulli, examples_needed, monitor

# Examples needed


@pytest.mark.parametrize("p_value", ["tight", "binomial"])
@pytest.mark.parametrize("alpha, delta, power", [(0.1, 0.1, 0.8), (0.05, 0.05, 0.9), (0.3, 0.1, 0.5), (0.2, 0.01, 0.8)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.6])
def test_the_first_number_of_examples_that_is_enough(p_value, alpha, delta, power, share):
    def enough(n):
        passing = int((pvalues.FROM_SUM[p_value](np.arange(n + 1), n, alpha) <= delta).sum()) - 1
        return passing >= 0 and binom.cdf(passing, n, share * alpha) >= power

    first = next(n for n in range(1, 2000) if enough(n))
    assert examples_needed(share * alpha, alpha, delta, power=power, p_value=p_value) == first


@pytest.mark.long
def test_calibrations_on_so_many_examples_succeed_as_often_as_wanted_and_on_fewer_do_not():
    risks, alpha, delta, rng = np.array([0.01, 0.02, 0.03]), 0.05, 0.1, np.random.default_rng(0)
    n = int(examples_needed(risks, alpha, delta, power=0.8)[-1])

    def succeeded(size, trials=2000):
        draws = (rng.random((size, 1)) < risks for _ in range(trials))
        return sum(calibrate_losses(d, [0.2, 0.4, 0.6], alpha=alpha, delta=delta).ratio == 0.6 for d in draws)

    assert binomtest(succeeded(n), 2000, 0.8, alternative="less").pvalue > 1e-4
    assert binomtest(succeeded(n // 2), 2000, 0.8, alternative="less").pvalue < 1e-4  # the twin


def test_a_dip_does_not_help_and_what_is_out_of_reach_is_infinite():
    needed = examples_needed([0.03, 0.01, 0.0499, 0.05, 0.01], 0.05, 0.1)
    assert needed[0] == needed[1] == examples_needed(0.03, 0.05, 0.1)
    assert np.isinf(needed[2:]).all()


@pytest.mark.parametrize(
    "name, settings",
    [
        ("risks", {"risks": [1.2]}),
        ("alpha", {"alpha": 0.0}),
        ("delta", {"delta": 1.0}),
        ("power", {"power": 80}),
        ("p_value", {"p_value": "betting"}),
    ],
)
def test_examples_needed_refuses_by_name(name, settings):
    with pytest.raises(ValueError, match=f"^{name}"):
        examples_needed(**{"risks": [0.01], "alpha": 0.05, "delta": 0.1} | settings)


# The ratio to expect


@pytest.mark.parametrize("p_value", ["tight", "binomial"])
@pytest.mark.parametrize("n, alpha, delta", [(1, 0.5, 0.4), (31, 0.05, 0.2), (100, 0.03, 0.1), (400, 0.2, 0.01)])
def test_the_largest_count_that_is_certified(p_value, n, alpha, delta):
    certified = [k for k in range(n + 1) if pvalues.FROM_SUM[p_value](k, n, alpha) <= delta]
    assert most_failures(n, alpha, delta, p_value=p_value) == max(certified, default=-1)


def certified_on_average(risks, ratios, trials=400, **setting):
    """Calibrations on nested 0/1 losses, and the standard error of their mean."""
    rng, n = np.random.default_rng(3), setting.pop("n")
    found = [calibrate_losses(bernoulli(risks, n, rng), ratios, **setting).ratio or 0.0 for _ in range(trials)]
    return np.mean(found), np.std(found) / trials**0.5


@pytest.mark.parametrize("n, delta", [(60, 0.1), (300, 0.1), (300, 0.001)])
def test_the_expected_ratio_is_the_mean_over_calibrations(n, delta):
    risks, ratios = np.array([0.0, 0.02, 0.01, 0.06, 0.08, 0.15]), np.array([0.0, 0.2, 0.4, 0.5, 0.55, 0.9])
    setting = {"n": n, "alpha": 0.1, "delta": delta}
    mean, error = certified_on_average(np.maximum.accumulate(risks), ratios, **setting)
    assert abs(expected_ratio(risks, ratios, **setting) - mean) < 4 * error + 1e-9
    twin = expected_ratio(risks, ratios, **setting | {"alpha": 0.13})
    assert abs(twin - mean) > 4 * error  # the same comparison sees a wrong alpha


def test_where_nothing_can_be_certified_the_ratio_to_expect_is_zero():
    assert expected_ratio([0.0, 0.0], [0.0, 0.5], n=20, alpha=0.05, delta=0.1) == 0
    assert expected_ratio([0.0, 0.0], [0.0, 0.5], n=100, alpha=0.05, delta=0.1) == 0.5
    assert expected_ratio([0.9], [0.5], n=100, alpha=0.05, delta=0.1) < 1e-9


@pytest.mark.parametrize(
    "name, change",
    [
        ("risks", {"risks": [0.1]}),
        ("risks", {"risks": [0.1, 1.1]}),
        ("ratios", {"ratios": [0.5, 0.2]}),
        ("n", {"n": 0}),
        ("alpha", {"alpha": 1.0}),
        ("delta", {"delta": 0.0}),
        ("p_value", {"p_value": "betting"}),
    ],
)
def test_expected_ratio_refuses_by_name(name, change):
    with pytest.raises(ValueError, match=f"^{name}"):
        expected_ratio(**{"risks": [0.0, 0.1], "ratios": [0.0, 0.5], "n": 50, "alpha": 0.1, "delta": 0.1} | change)


# The monitor


def wealth_by_loop(losses, alpha):
    """The wealth of `monitor`, coin by coin: every stake and every moment has money of its own."""
    total, stakes = 0.0, np.geomspace(0.01, 0.9, 20) / alpha
    path = []
    for t in range(1, len(losses) + 1):
        total = 1 / (t + 1)  # not placed yet
        for start in range(1, t + 1):
            gains = [np.prod(1 + stake * (losses[start - 1 : t] - alpha)) for stake in stakes]
            total += np.mean(gains) / (start * (start + 1))
        path.append(total)
    return path


def test_wealth_is_that_of_a_slow_loop_and_later_losses_do_not_change_it():
    losses = np.random.default_rng(1).random(40) ** 3
    watch = monitor(losses, 0.2, 0.1)
    np.testing.assert_allclose(watch.wealth, wealth_by_loop(losses, 0.2), rtol=1e-12)
    np.testing.assert_allclose(watch.wealth[:25], monitor(losses[:25], 0.2, 0.1).wealth, rtol=1e-12)


def quiet(kind, rng, n, alpha):
    """A watch of n losses whose mean, given the past, never exceeds alpha."""
    if kind == "bernoulli":
        return rng.random(n) < alpha
    if kind == "beta":
        return rng.beta(4 * alpha, 4 * (1 - alpha), n)
    waves = alpha * (np.arange(n) % 200 < 100)  # safe and at the edge by turns
    return rng.random(n) < waves


@pytest.mark.long
@pytest.mark.parametrize("kind", ["bernoulli", "beta", "waves"])
def test_false_alarms_are_at_most_delta_however_long_the_watch(kind):
    rng, trials, delta = np.random.default_rng(2), 2000, 0.1
    alarms = sum(monitor(quiet(kind, rng, 1000, 0.05), 0.05, delta).alarm is not None for _ in range(trials))
    assert binomtest(alarms, trials, delta, alternative="greater").pvalue > 1e-4


def test_looking_again_and_again_with_a_fixed_size_test_is_refuted():
    rng, trials, n, alpha, delta = np.random.default_rng(3), 500, 1000, 0.05, 0.1
    seen = np.arange(1, n + 1)
    alarms = 0
    for _ in range(trials):
        errors = np.cumsum(quiet("bernoulli", rng, n, alpha))
        alarms += (binom.sf(errors - 1, seen, alpha) <= delta).any()  # P[as many or more] at each look
    assert binomtest(int(alarms), trials, delta, alternative="greater").pvalue < 1e-4


def test_a_stronger_shift_is_noticed_sooner_also_after_a_long_quiet_time():
    rng = np.random.default_rng(4)
    delays = []
    for risk in (0.08, 0.15, 0.4):
        runs = [np.concatenate([rng.random(2000) < 0.03, rng.random(4000) < risk]) for _ in range(40)]
        alarms = [monitor(run, 0.05, 0.1).alarm for run in runs]
        delays.append(np.median([np.inf if alarm is None else alarm - 2000 for alarm in alarms]))
    assert delays == sorted(delays, reverse=True) and np.isfinite(delays).all()


def test_an_alarm_is_the_first_moment_at_which_the_wealth_is_there():
    watch = monitor(np.ones(30), 0.1, 0.01)
    assert watch.wealth[watch.alarm - 1] >= 100 > watch.wealth[: watch.alarm - 1].max()
    assert monitor(np.zeros(30), 0.1, 0.01).alarm is None
    assert np.isfinite(monitor(np.ones(5000), 0.01, 0.1).wealth).all()


def test_losses_of_another_range_are_rescaled_with_alpha():
    losses = np.random.default_rng(5).integers(-1, 2, 200)
    both = monitor(losses, 0.1, 0.1, loss_range=(-1, 1)), monitor((losses + 1) / 2, 0.55, 0.1)
    np.testing.assert_allclose(both[0].wealth, both[1].wealth, rtol=1e-12)


@pytest.mark.parametrize(
    "name, settings", [("losses", {"losses": [2.0]}), ("alpha", {"alpha": 1.0}), ("delta", {"delta": 0})]
)
def test_monitor_refuses_by_name(name, settings):
    with pytest.raises(ValueError, match=f"^{name}"):
        monitor(**{"losses": [0.0], "alpha": 0.05, "delta": 0.1} | settings)
