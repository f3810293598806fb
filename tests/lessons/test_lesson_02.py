"""Lesson 02: its checkers tell right from wrong, its figures tell the truth, its claims hold."""

import math

import numpy as np
import pytest
from answers import right_and_wrong
from scipy.stats import binom, norm, poisson

from confprune_edu import controls, plots, pvalues, widgets
from confprune_edu.plots import lesson_02
from confprune_edu.plots.picture import SMALLEST
from confprune_edu.pvalues import betting, clt, hoeffding, tight

# --- exercises ---


def entropy(a, b):
    return sum(x * math.log(x / y) for x, y in ((a, b), (1 - a, 1 - b)) if x)


def hinge(c, n, alpha):
    return float(np.maximum(c - np.arange(n + 1), 0) @ binom.pmf(np.arange(n + 1), n, alpha))


def hinges(s, n, alpha, last=0):
    return [hinge(c, n, alpha) / (c - s) for c in range(math.floor(s) + 1, n + 1 - last)]


def count_up(accept, start=1):
    while not accept(start):
        start += 1
    return start


def by_loop(errors, n, alpha):
    total = 0
    for k in range(errors + 1):
        total = total + math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k)
    return [total]


def tight_by_cumsum(s, n, alpha):
    c = np.arange(math.floor(s) + 1, n + 1)
    return np.minimum(1, (np.cumsum(binom.cdf(np.arange(n), n, alpha))[c - 1] / (c - s)).min())


RIGHT = [
    ("binomial_p_value", lambda k, n, a: binom.cdf(k, n, a)),
    ("binomial_p_value", by_loop),
    ("binomial_p_value", lambda k, n, a: np.float32(binom.cdf(k, n, a))),
    ("examples_needed", lambda k, a, d: count_up(lambda n: binom.cdf(k, n, a) <= d, max(k, 1))),
    (
        "examples_needed",
        lambda k, a, d: float(next(n for n in range(max(k, 1), 10**6) if pvalues.binomial(k, n, a) <= d)),
    ),
    ("hoeffding_p_value", hoeffding),
    ("hoeffding_p_value", lambda s, n, a: np.array(math.exp(-n * entropy(min(s / n, a), a)))),
    ("tight_p_value", tight),
    ("tight_p_value", tight_by_cumsum),
    ("tight_p_value", lambda s, n, a: min([1.0, *hinges(s, n, a)])),
]
WRONG = [
    ("binomial_p_value", lambda k, n, a: binom.cdf(k - 1, n, a), "includes `errors` itself"),
    ("binomial_p_value", lambda k, n, a: binom.pmf(k, n, a), "not of exactly so many"),
    ("binomial_p_value", lambda k, n, a: binom.sf(k - 1, n, a), "few errors are the evidence"),
    ("binomial_p_value", lambda k, n, a: binom.cdf(k, n, k / n), "not of the observed mean"),
    ("binomial_p_value", lambda k, n, a: norm.cdf((k - n * a) / math.sqrt(n * a * (1 - a))), "normal approximation"),
    ("binomial_p_value", lambda k, n, a: poisson.cdf(k, n * a), "one has no error"),
    ("binomial_p_value", lambda k, n, a: None, "is there a return"),
    ("binomial_p_value", lambda k, n, a: min(1, 2 * binom.cdf(k, n, a)), "nothing is doubled"),
    ("binomial_p_value", lambda k, n, a: binom.cdf(k, n, a) - (k == n), "no outcome is worse than all wrong"),
    ("binomial_p_value", lambda k, n, a: binom.cdf(0, n, a), "sum the probabilities of 0, 1"),
    (
        "binomial_p_value",
        lambda k, n, a: round(float(binom.cdf(k, n, a)), 2) if n > 3 else binom.cdf(k, n, a),
        "exact, not approximate",
    ),
    ("binomial_p_value", lambda k, n, a: binom.sf(k, n, a), "the probability of more errors"),
    (
        "binomial_p_value",
        lambda k, n, a: binom.cdf(k, n, a) if n == 2 else 1 / 0,
        "ZeroDivisionError: division by zero in",
    ),
    (
        "examples_needed",
        lambda k, a, d: count_up(lambda n: binom.cdf(k, n, a) < d, max(k, 1)),
        "p equal to delta is still a rejection",
    ),
    (
        "examples_needed",
        lambda k, a, d: count_up(lambda n: binom.cdf(k, n, a) <= d, max(k, 1)) - 1,
        "one example too few",
    ),
    ("examples_needed", lambda k, a, d: math.log(d) / math.log(1 - a), "whole number of examples"),
    ("examples_needed", lambda k, a, d: math.ceil(math.log(d) / math.log(1 - a) - 1e-12), "every error costs examples"),
    ("examples_needed", lambda k, a, d: math.ceil(math.log(1 / d) / a), "rule of thumb"),
    ("examples_needed", lambda k, a, d: int(k / a) + 1, "it may be luck"),
    (
        "examples_needed",
        lambda k, a, d: count_up(lambda n: binom.cdf(k - 1, n, a) <= d, max(k, 1)),
        "includes `errors` itself",
    ),
    ("examples_needed", lambda k, a, d: 10, "p = (1 - alpha)**n, and 0.5**2"),
    ("examples_needed", lambda k, a, d: count_up(lambda n: binom.cdf(k, n, d) <= a, max(k, 1)), "have changed places"),
    ("examples_needed", lambda k, a, d: count_up(lambda n: binom.cdf(0, n, a) <= d) + 20 * k, "must be at most delta"),
    ("examples_needed", lambda k, a, d: int(math.log(d) / math.log(1 - a)), "the first with p <= delta"),
    ("examples_needed", lambda k, a, d: 2 if a == 0.5 else 100, "without an error p = (1 - alpha)**n"),
    ("hoeffding_p_value", lambda s, n, a: math.exp(-2 * n * max(a - s / n, 0) ** 2), "weaker exp(-2 n gap**2)"),
    ("hoeffding_p_value", lambda s, n, a: math.exp(-n * entropy(a, min(s / n, a))) if s else 0.0, "the mean first"),
    ("hoeffding_p_value", lambda s, n, a: math.exp(-entropy(min(s / n, a), a)), "counts n times"),
    ("hoeffding_p_value", lambda s, n, a: math.exp(-n * entropy(s / n, a)), "cap the mean at alpha"),
    ("hoeffding_p_value", lambda s, n, a: math.exp(-n * entropy(min(s / n, a), a)) if s else math.nan, "0 log 0 is 0"),
    ("hoeffding_p_value", lambda s, n, a: hoeffding(math.ceil(s), n, a), "round nothing"),
    ("hoeffding_p_value", lambda s, n, a: 0.5, "with a = loss_sum / n"),
    ("hoeffding_p_value", lambda s, n, a: math.exp(n * entropy(min(s / n, a), a)), "the sign: evidence makes"),
    ("hoeffding_p_value", lambda s, n, a: min(1, math.exp(n * entropy(min(s / n, a), a))), "where it is capped"),
    ("hoeffding_p_value", lambda s, n, a: math.exp(-n * entropy(min(s / n, a), a) / math.log(2)), "not of base 2"),
    ("hoeffding_p_value", lambda s, n, a: math.exp(-n * entropy(min(s / n, a), a) / math.log(10)), "not of base 10"),
    ("hoeffding_p_value", lambda s, n, a: 2 ** (-n * entropy(min(s / n, a), a)), "this is a power of 2"),
    ("hoeffding_p_value", lambda s, n, a: entropy(min(s / n, a), a), "this is h1 alone"),
    (
        "hoeffding_p_value",
        lambda s, n, a: math.nan if s / n > a else hoeffding(s, n, a),
        "above alpha is no evidence: p = 1",
    ),
    ("tight_p_value", lambda s, n, a: min([1, *hinges(s, n, a)[:1], *hinges(s, n, a)[-1:]]), "not over the first few"),
    ("tight_p_value", lambda s, n, a: min(1, hinges(s, n, a)[0]), "this is one hinge"),
    ("tight_p_value", lambda s, n, a: min(1, max(hinges(s, n, a))), "take the smallest, not the largest"),
    (
        "tight_p_value",
        lambda s, n, a: min(1, *((c - n * a) / (c - s) for c in range(math.floor(s) + 1, n + 1))),
        "never negative",
    ),
    ("tight_p_value", lambda s, n, a: tight(math.floor(s), n, a), "evidence that is not there"),
    ("tight_p_value", lambda s, n, a: tight(math.ceil(s), n, a), "gives evidence away"),
    ("tight_p_value", lambda s, n, a: min([1, *hinges(s, n, a, last=1)]), "stops before b"),
    ("tight_p_value", lambda s, n, a: min(hinges(s, n, a)), "a probability needs no bound above 1"),
    (
        "tight_p_value",
        lambda s, n, a: min(hinge(c, n, a) / (c - s) for c in range(math.floor(s), n + 1)),
        "it would divide by zero",
    ),
    (
        "tight_p_value",
        lambda s, n, a: pvalues.bentkus(s, n, a) if s == 5 else tight(s, n, a),
        "min over every integer c > s",
    ),
    ("tight_p_value", lambda s, n, a: tight(s, n, a) if s == int(s) else 0.5, "c - s keeps its fraction"),
    ("tight_p_value", lambda s, n, a: tight(s, n, a) if s != 0.9 else 0.5, "c = n is a candidate, too"),
]
(
    test_right_answers_are_accepted,
    test_wrong_answers_are_refused_by_name,
    test_every_misconception_of_a_checker_is_told_to_somebody,
) = right_and_wrong(RIGHT, WRONG)


# --- figures: what they say is true ---


def test_the_tail_in_the_picture_is_the_p_value():
    counts = np.random.default_rng(0).binomial(100, 0.1, 10_000)
    alt = plots.error_counts(counts, 100, 0.1, errors=5).alt
    assert f"at most 5 with probability {binom.cdf(5, 100, 0.1):.4f}" in alt
    assert f"in {(counts <= 5).mean():.4f} of 10,000 simulated samples" in alt


def test_the_picture_of_laws_draws_the_distribution_function_and_names_the_broken():
    k = np.arange(101)
    laws = {name: (f(k, 100, 0.1), binom.pmf(k, 100, 0.1)) for name, f in pvalues.FROM_SUM.items()}
    laws["lost one"] = (binom.cdf(k - 1, 100, 0.1), binom.pmf(k, 100, 0.1))
    picture = plots.p_value_laws(laws, at=0.1)
    assert picture.alt.endswith("Above the diagonal somewhere: lost one.")
    assert "binomial 0.058" in picture.alt
    for line, (p, chance) in zip(picture.axes[0].lines[1:], laws.values(), strict=False):
        x, y = line.get_data()
        for u in (0.013, 0.1, 0.77):
            assert y[np.searchsorted(x, u, side="right") - 1] == pytest.approx(chance[p <= u].sum())


def test_curves_and_regions_are_told_apart_without_colour():
    k = np.arange(101)
    laws = {name: (f(k, 100, 0.1), binom.pmf(k, 100, 0.1)) for name, f in pvalues.FROM_SUM.items()}
    drawn = plots.p_value_laws(laws, limit=0.3, marks=True).axes[0].lines[1 : len(laws) + 1]
    assert len({line.get_marker() for line in drawn}) == len(laws)
    for line, (p, _) in zip(drawn, laws.values(), strict=True):
        assert line.get_xdata()[list(line.get_markevery())] == pytest.approx(np.unique(p[p <= 0.3]))
    p_map = {name: np.full((2, 2), p) for name, p in (("tight", 0.1), ("prw", 0.2), ("bentkus", 0.3), ("clt", 0.4))}
    (legend,) = plots.p_value_map([10, 20], [0.2, 0.4], p_map, alpha=0.1, delta=0.1).legends
    assert len({patch.get_hatch() for patch in legend.get_patches()}) == 3


def test_the_majorants_lie_above_the_step_and_their_prices_are_those_of_the_package():
    left, right = plots.majorants(5, 100, 0.1).axes
    for line in left.lines:
        x, y = line.get_data()
        assert (y >= (x <= 5) - 1e-12).all() and (y >= 0).all()
    prices = right.lines[0].get_ydata()
    assert prices.min() == pytest.approx(tight(5, 100, 0.1))
    assert prices[:3] == pytest.approx([hinge(c, 100, 0.1) / (c - 5) for c in (6, 7, 8)])
    assert right.lines[2].get_ydata()[0] == pytest.approx(hoeffding(5, 100, 0.1))


@pytest.mark.parametrize(("s", "n", "alpha"), [(0, 50, 0.001), (0, 1, 0.5), (5.2, 100, 0.1), (89, 100, 0.9)])
def test_the_majorants_can_be_drawn_at_the_ends(s, n, alpha):
    assert f"s = {s:g}, n = {n}" in plots.majorants(s, n, alpha).alt


def test_wealth_counts_those_who_ever_reach_the_goal():
    paths = np.array([[1, 1, 1], [12, 1, 9.9], [3, 1, 9.9]])
    assert "1 of 3 players" in plots.wealth({"game": paths}, delta=0.1).alt


@pytest.mark.parametrize("variance", [0, 0.3, 1])
def test_the_explorer_draws_the_p_values_of_losses_with_exactly_this_mean(variance):
    picture = plots.p_values_by_mean(100, 0.1, variance)
    lines = {line.get_label(): line.get_data() for line in picture.axes[0].lines}
    means = np.linspace(0, 0.12, 61)
    for name in ("hoeffding", "prw", "tight"):
        expected = np.maximum(pvalues.FROM_SUM[name](100 * means, 100, 0.1), SMALLEST)
        np.testing.assert_allclose(lines[name][1], expected, rtol=1e-6)
    assert ("binomial" in lines) == (variance == 1)


def test_the_losses_of_the_explorer_have_the_mean_and_the_variance_that_it_says():
    means = np.arange(0, 13) / 100
    coins = lesson_02.coins(means, 100, seed=0)
    np.testing.assert_allclose(coins.mean(axis=0), means, atol=1e-15)
    np.testing.assert_allclose(coins.var(axis=0), means * (1 - means), atol=1e-15)
    assert set(np.unique(np.round(coins, 12))) == {0, 1}


def test_the_explorer_draws_once_where_nobody_moves_it(monkeypatch):
    drawn = []
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")
    monkeypatch.setattr(controls, "display", drawn.append)
    widgets.p_value_explorer(50, 0.001)
    (picture,) = drawn
    assert "n = 50, alpha = 0.001" in picture.alt


def test_the_map_tells_who_is_smallest_where_the_choice_matters():
    p = {"tight": [[0.1, 1e-6]], "prw": [[0.3, 1e-6]], "bentkus": [[0.2, 1e-5]]}
    two_rows = {name: np.repeat(row, 2, axis=0) for name, row in p.items()}
    alt = plots.p_value_map([10, 20], [0.2, 0.4], two_rows, alpha=0.1, delta=0.1).alt
    assert "prw 0%, bentkus 100%" in alt and "up to 2.0 times" in alt


# --- claims of the lesson ---


def test_a_coin_is_the_worst_loss():
    rng = np.random.default_rng(0)
    for f in (lambda x: np.exp(-2 * x), lambda x: np.maximum(3 - x, 0), lambda x: -x, lambda x: 1 / (1 + x)):
        for risk in (0.2, 0.3, 0.7):
            sums = rng.beta(2 * risk, 2 * (1 - risk), (20_000, 8)).sum(axis=1)
            coin = f(np.arange(9)) @ binom.pmf(np.arange(9), 8, 0.2)
            noise = f(sums).std() / math.sqrt(len(sums))
            assert f(sums).mean() <= coin + 4 * noise + 1e-12


def test_clt_certifies_a_bad_model_far_above_its_level():
    k = np.arange(101)
    p = clt(np.arange(100)[:, None] < k, 0.01)
    assert binom.pmf(k, 100, 0.0101)[p == 0].sum() == pytest.approx(0.9899**100)
    assert binom.pmf(k, 100, 0.0101)[tight(k, 100, 0.01) <= 0.1].sum() <= 0.1


def test_few_examples_suffice_for_betting_only_where_the_variance_is_small():
    rng = np.random.default_rng(0)
    coins = rng.random((200, 2001)) < 0.07
    narrow = 0.07 + 0.2 * (coins - 0.07)
    assert np.median(betting(narrow, 0.1)) < 0.1 < np.median(pvalues.p_values(narrow, 0.1))
    assert np.median(betting(coins, 0.1)) > np.median(pvalues.p_values(coins, 0.1))


def test_losses_in_minus_one_to_one_break_a_formula_made_for_zero_to_one():
    up = np.arange(101)
    law = binom.pmf(up, 100, 0.55)
    assert law[tight(np.maximum(2 * up - 100, 0), 100, 0.1) <= 0.1].sum() > 0.3
    assert law[tight(up, 100, 0.55) <= 0.1].sum() <= 0.1


@pytest.mark.long
def test_betting_keeps_its_promise_on_the_losses_of_the_lesson():
    rng = np.random.default_rng(1)
    losses = 0.1 + 0.5 * ((rng.random((100, 4000)) < 0.1) - 0.1)
    assert binom.sf((betting(losses, 0.1) <= 0.1).sum() - 1, 4000, 0.1) > 1e-4
