"""Lesson 10: checkers, figures, the explorer, and what the prose says of the usual rules and of the certificate."""

import math

import numpy as np
import pytest
from answers import right_and_wrong
from scipy.optimize import brentq
from scipy.stats import beta, binom, norm

from confprune_edu import data, exercises, fwer, plots, pvalues, widgets
from confprune_edu.validation import ErrorRate, error_rate, independent


@pytest.fixture(autouse=True)
def _one_drawing(monkeypatch):
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")


# Exercises


def exact(failures, n, delta):
    return beta.ppf(1 - delta, failures + 1, n - failures)


def normal(failures, n, z):
    mean = failures / n
    return mean + z * math.sqrt(mean * (1 - mean) / n)


def one_outcome(failures, n, delta):  # exactly so many failures
    return brentq(lambda risk: binom.pmf(failures, n, risk) - delta, failures / n, 1)


def upto(first, block, m):
    return min((first // block + 1) * block, m)


def blocks(p, delta, block):
    failed = [j for j, value in enumerate(p) if value > delta]
    return upto(failed[0], block, len(p)) if failed else len(p)


def after_the_last_pass(p, delta, block):
    passed = np.flatnonzero(p <= delta)
    return upto(passed[-1] + 1 if passed.size else 0, block, len(p))


def halves(losses, half):
    seeds = losses[:, :half].sum(axis=1).argmin(axis=0)
    return losses[seeds, half:, np.arange(losses.shape[2])].sum(axis=1)


def fair(losses):
    return halves(losses, losses.shape[1] // 2)


def counted(losses, seeds, rows):
    return losses[:, rows].sum(axis=1)[seeds, np.arange(losses.shape[2])]


def last_of_the_best(losses):
    half = losses.shape[1] // 2
    sums = losses[:, :half].sum(axis=1)
    return counted(losses, len(losses) - 1 - sums[::-1].argmin(axis=0), slice(half, None))


RIGHT = [
    ("exact_end", exact),
    ("exact_end", lambda k, n, d: 1 - beta.ppf(d, n - k, k + 1)),
    ("networks_evaluated", blocks),
    ("networks_evaluated", lambda p, d, block: float(blocks(p, d, block))),
    ("fair_failures", fair),
    ("fair_failures", lambda x: fair(x).tolist()),
    ("fair_failures", lambda x: (count for count in fair(x))),
]

WRONG = [
    ("exact_end", lambda k, n, d: normal(k, n, norm.isf(d)), "a normal interval"),
    ("exact_end", lambda k, n, d: normal(k, n, 1), "one standard error is not delta"),
    ("exact_end", lambda k, n, d: exact(k, n, d / 2), "all of delta, not delta / 2"),
    ("exact_end", lambda k, n, d: exact(k - 1, n, d) if k else 0.0, "itself is among the outcomes"),
    ("exact_end", lambda k, n, d: exact(k, n, 1 - d), "where so *many* failures"),
    ("exact_end", lambda k, n, d: 0.5, "one example that did not fail"),
    ("exact_end", lambda k, n, d: 1 - d, "(1 - risk)^n = delta"),
    ("exact_end", one_outcome, "not exactly so many"),
    ("exact_end", lambda k, n, d: exact(k, n, 0.1), "the delta that is given"),
    ("exact_end", lambda k, n, d: exact(k, n, d) if n < 100 else normal(k, n, 1.28), "with all of delta: 100"),
    ("networks_evaluated", lambda p, d, block: fwer.fixed_sequence(p, d).sum(), "has to be evaluated, too"),
    ("networks_evaluated", lambda p, d, block: blocks(p, d, 1), "round up"),
    (
        "networks_evaluated",
        lambda p, d, block: -(-blocks(p, d, 1) // block) * block,
        "the grid ends",
    ),
    ("networks_evaluated", lambda p, d, block: len(p), "beyond the block of the first failure"),
    ("networks_evaluated", lambda p, d, block: -(-blocks(p, d, 1) // block), "networks, not blocks"),
    ("networks_evaluated", lambda p, d, block: blocks(p + 1e-9, d, block), "p equal to delta passes"),
    ("networks_evaluated", lambda p, d, block: 1, "one at a time"),
    ("networks_evaluated", lambda p, d, block: blocks(p, d, 1) if block == 1 else len(p), "first block of four"),
    ("networks_evaluated", lambda p, d, block: 0 if p[0] > d else blocks(p, d, block), "the first failure ends it"),
    (
        "networks_evaluated",
        lambda p, d, block: min(blocks(p, d, block), len(p) // block * block),
        "cut by the end of the grid",
    ),
    ("networks_evaluated", lambda p, d, block: upto(np.argmax(p > d), block, len(p)), "nothing fails"),
    ("networks_evaluated", after_the_last_pass, "small p-values after the first failure"),
    ("networks_evaluated", lambda p, d, block: blocks(p, 0.1, block), "the delta that is given"),
    ("fair_failures", lambda x: x.sum(axis=1).min(axis=0), "this is the leak itself"),
    ("fair_failures", lambda x: x[:, x.shape[1] // 2 :].sum(axis=1).min(axis=0), "the minimum over them is a choice"),
    (
        "fair_failures",
        lambda x: counted(x, x.sum(axis=1).argmin(axis=0), slice(x.shape[1] // 2, None)),
        "the second half helped to choose",
    ),
    (
        "fair_failures",
        lambda x: counted(x, x[:, : x.shape[1] // 2].sum(axis=1).argmin(axis=0), slice(None)),
        "the first half chose, and counts again",
    ),
    (
        "fair_failures",
        lambda x: counted(x, x[:, x.shape[1] // 2 :].sum(axis=1).argmin(axis=0), slice(x.shape[1] // 2)),
        "halves are exchanged",
    ),
    (
        "fair_failures",
        lambda x: x[x[:, : x.shape[1] // 2].sum(axis=(1, 2)).argmin(), x.shape[1] // 2 :].sum(axis=0),
        "not one seed for all",
    ),
    ("fair_failures", lambda x: fair(x) / (x.shape[1] - x.shape[1] // 2), "a count, not a mean"),
    ("fair_failures", lambda x: x[0].sum(axis=0), "prefers the second seed"),
    ("fair_failures", lambda x: np.full(x.shape[2], 2), "by the first half alone"),
    ("fair_failures", lambda x: x[-1, x.shape[1] // 2 :].sum(axis=0), "a choice of its own"),
    ("fair_failures", lambda x: halves(x, -(-x.shape[1] // 2)), "two choose (n // 2), three count"),
    ("fair_failures", last_of_the_best, "of equally good seeds the first"),
    ("fair_failures", lambda x: fair(x) if len(x) > 1 else x[0].sum(axis=0), "with one seed"),
]


(
    test_right_answers_are_accepted,
    test_wrong_answers_are_refused_by_name,
    test_every_misconception_of_a_checker_is_told_to_somebody,
) = right_and_wrong(RIGHT, WRONG)


def test_a_certificate_is_an_interval():
    """The exact test passes where the end of exercise 1 is at most alpha."""
    end = exercises.EXERCISES["exact_end"].solution
    ends = np.array([end(k, 60, 0.1) for k in range(60)])
    for alpha in (0.05, 0.2, 0.5):
        assert ((ends <= alpha) == (pvalues.binomial(np.arange(60), 60, alpha) <= 0.1)).all()


# Figures


def test_intervals_of_a_panel_are_the_exact_ones_and_say_what_is_broken():
    rates = {
        "a": {"luck": ErrorRate(180, 1000, 0.1), "sure": ErrorRate(90, 1000, 0.1)},
        "b": {"sure": ErrorRate(0, 50, 0.1)},
    }
    picture = plots.rule_rates(rates, title="t")
    low, high = (100 * beta.ppf(q, 180 + k, 821 - k) for q, k in ((0.025, 0), (0.975, 1)))
    assert f"a: luck 18.0 % ({low:.1f} to {high:.1f}), broken, sure 9.0 %" in picture.alt
    assert "b: sure 0.0 % (0.0 to 7.1)." in picture.alt
    left, right = picture.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["luck", "sure"]
    assert len(left.patches) == 2 and len(right.patches) == 1


def test_curves_against_n_and_alpha_are_those_given():
    rates = {"luck": [ErrorRate(50, 100, 0.1), ErrorRate(10, 100, 0.1)], "sure": [ErrorRate(0, 100, 0.1)] * 2}
    picture = plots.rules_against_n([100, 1000], rates, {"luck": [0.9, 0.8], "sure": [0, 0.7]}, best=0.75)
    assert "sure: false claims 0.0 %, 0.0 %; median ratio 0, 0.7" in picture.alt and "ratio is 0.75" in picture.alt
    assert [line.get_ydata().tolist() for line in picture.axes[1].lines[:2]] == [[0.9, 0.8], [0, 0.7]]
    teeth = plots.rates_against_alpha([0.02, 0.04, 0.06], {"luck": [0.1, 0.5, 0.2]}, delta=0.1)
    assert teeth.alt.endswith("luck up to 50.0 %.")
    assert teeth.axes[0].lines[0].get_ydata().tolist() == [0.1, 0.5, 0.2]


def test_the_bill_has_a_panel_for_each_thing_that_grows():
    parts = {"evaluate": [1.0, 2.0], "procedure": [1e-4, 1e-4]}
    picture = plots.costs({"n": ([10, 20], parts), "weights": ([100, 1000], parts)})
    assert len(picture.axes) == 2 and "Against weights, 100 to 1000: evaluate 1 to 2" in picture.alt


# The explorer


def test_the_explorer_draws_what_the_rule_chose(monkeypatch):
    kept, asked = {}, []
    monkeypatch.setattr(widgets, "explore", lambda draw, **controls: kept.update(draw=draw, controls=controls))

    def play(*what):
        asked.append(what)
        return np.array([0.9, 0.9, np.nan, 0.95]), np.array([0.04, 0.04, np.nan, 0.07]), "more"

    widgets.rule_explorer(play, ["luck", "sure"], ["a", "b"], n=300, alpha=0.05)
    values = {name: control.value for name, control in kept["controls"].items()}
    assert values == {"rule": "luck", "network": "a", "n": 300, "alpha": 0.05}
    alt = kept["draw"](**values | {"rule": "sure"}).alt
    assert asked == [("sure", "a", 300, 0.05)]
    assert alt == "Median ratio 0.9; true risk above alpha = 0.05 in 25.0 % of 4 repetitions, nothing chosen in 25.0 %."
    nothing = plots.rule_laws([np.nan], [np.nan], alpha=0.05)
    assert nothing.alt.startswith("No ratio chosen;")


# What the prose says


def at_level(level, stop):
    return lambda p, delta: fwer.fixed_sequence(p, level) if stop else p <= level


WORST = {"n": 400, "alpha": 0.1, "delta": 0.1, "trials": 2000}
HAIR = np.full(10, 0.1001)


@pytest.mark.parametrize("p_value", ["tight", "binomial", "betting"])
def test_the_certificate_keeps_delta_where_every_claim_is_false(p_value):
    trials = {"trials": 500} if p_value == "betting" else {}
    assert error_rate(independent, HAIR, p_value=p_value, **WORST | trials).evidence > 1e-4
    assert error_rate(independent, HAIR, p_value=p_value, procedure="holm", **WORST | trials).evidence > 1e-4


@pytest.mark.parametrize(("z", "stop"), [(0, True), (0, False), (1, True), (1, False), (1.96, False)])
def test_the_same_check_refutes_the_usual_rules(z, stop):
    """The twins: a mean below alpha, with and without a margin."""
    rule = at_level(norm.sf(z), stop)
    assert error_rate(independent, HAIR, p_value="clt", procedure=rule, **WORST).evidence < 1e-4


def test_an_interval_claims_everything_where_nothing_failed():
    """ "With 50 examples and a risk of 2 % this happens in one sample of three.\""""
    assert 1 / 3 < 0.98**50 < 0.4
    rare = {"n": 50, "alpha": 0.0199, "delta": 0.1, "trials": 2000}
    found = error_rate(independent, [0.02], p_value="clt", procedure=at_level(0.025, True), **rare)
    assert abs(found.rate - 0.98**50) < 0.05
    assert error_rate(independent, [0.02], p_value="binomial", **rare).errors == 0


@pytest.fixture(scope="module")
def shares():
    """Of two rules, by network: how often the chosen ratio is unsafe, with draws of rows, one repetition at a time."""
    found = {}
    for name in ("words-gru", "mnist-cnn"):
        losses, _ = data.classifier_losses(name)
        risk, rng, wrong = losses.mean(axis=0), np.random.default_rng(7), []
        for _ in range(600):
            seen = losses[rng.integers(len(losses), size=1000)]
            mean, margin = seen.mean(axis=0), seen.std(axis=0, ddof=1) / math.sqrt(1000)
            wrong.append([risk[np.flatnonzero(mean + z * margin <= 0.05)[-1]] > 0.05 for z in (0, 1)])
        found[name] = np.mean(wrong, axis=0)
    return found


def test_where_the_risk_creeps_the_mean_is_wrong_in_half_of_the_draws_and_one_standard_error_in_a_fifth(shares):
    assert 0.5 < shares["words-gru"][0] < 0.62
    assert 0.15 < shares["words-gru"][1] < 0.25


def test_where_the_risk_jumps_both_are_right(shares):
    assert shares["mnist-cnn"].max() < 0.01
