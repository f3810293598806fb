"""Lesson 00: its exercises know right from wrong, and its picture and its claims are what they say."""

import math
import re

import numpy as np
import pytest
from answers import right_and_wrong
from scipy.stats import binomtest

from confprune_edu import data, exercises, losses, plots, widgets
from confprune_edu.calibration import calibrate_losses
from confprune_edu.evaluation import loss_table
from confprune_edu.pvalues import binomial, tight


def flaws(record, *, fresh=None, several=None, function=None, after=None):
    """Another right form, a list; each part may be replaced by a wrong one."""
    parts = {
        "not fresh": overlap(record) if fresh is None else fresh(record),
        "best of several": (
            record["calibrations"] > record["delta"] / record["delta_each"] if several is None else several(record)
        ),
        "another function": (
            record["calibrated_dtype"] != record["shipped_dtype"] if function is None else function(record)
        ),
        "chosen after": record["ratios_chosen"] != "before" if after is None else after(record),
    }
    return [flaw for flaw, holds in parts.items() if holds]


def overlap(record):
    return bool(set(record["trained_on"]).intersection(record["calibrated_on"]))


def one_flaw(record):
    return flaws(record)[:1]


def refuted_by_test(record):
    return flaws(record) + (["not fresh"] if (record["test_mean"] or 0) > record["alpha"] else [])


def none_is_a_flaw(record):
    return flaws(record) + (["not fresh"] if record["ratio"] is None else [])


def few_are_a_flaw(record):
    return flaws(record) + (["not fresh"] if len(record["calibrated_on"]) < 100 else [])


def no_return(record):
    flaws(record)


def digits(alpha, delta):
    return math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9)


RIGHT = [
    ("certificate_flaws", flaws),
    ("certificate_flaws", lambda record: tuple(flaws(record))),
    ("certificate_flaws", lambda record: (flaw for flaw in flaws(record))),
    ("digits_needed", digits),
    ("digits_needed", lambda alpha, delta: float(digits(alpha, delta))),
    ("digits_needed", lambda alpha, delta: np.array([digits(alpha, delta)])),
]
WRONG = [
    ("certificate_flaws", lambda record: ["not fresh"], "none of the four flaws"),
    ("certificate_flaws", lambda record: flaws(record, fresh=lambda r: False), "flatter"),
    (
        "certificate_flaws",
        lambda r: flaws(r, fresh=lambda r: r["trained_on"] == r["calibrated_on"]),
        "one shared digit",
    ),
    ("certificate_flaws", lambda record: flaws(record, after=lambda r: False), "not fixed beforehand"),
    ("certificate_flaws", lambda record: flaws(record, function=lambda r: False), "another precision"),
    ("certificate_flaws", lambda record: flaws(record, function=lambda r: r["shipped_dtype"] != "float32"), "finer"),
    (
        "certificate_flaws",
        lambda record: flaws(
            record, function=lambda r: {"bfloat16", "float16"} & {r["calibrated_dtype"], r["shipped_dtype"]}
        ),
        "no precision is a flaw in itself",
    ),
    ("certificate_flaws", lambda record: flaws(record, several=lambda r: False), "best of ten"),
    ("certificate_flaws", lambda record: flaws(record, several=lambda r: r["calibrations"] > 1), "keep the promise"),
    (
        "certificate_flaws",
        lambda r: flaws(r, several=lambda r: r["calibrations"] * r["delta_each"] > 0.1),
        "is promised",
    ),
    (
        "certificate_flaws",
        lambda record: flaws(record, several=lambda r: r["delta_each"] * r["calibrations"] != r["delta"]),
        "more than is needed",
    ),
    (
        "certificate_flaws",
        lambda record: flaws(record, several=lambda r: r["calibrations"] > 1 and r["delta_each"] >= r["delta"]),
        "three at delta / 2",
    ),
    ("certificate_flaws", none_is_a_flaw, "nothing certified is an answer"),
    ("certificate_flaws", refuted_by_test, "a test mean is noisy"),
    ("certificate_flaws", lambda r: flaws(r, fresh=lambda r: r["test_mean"] > r["alpha"] or overlap(r)), "is noisy"),
    ("certificate_flaws", lambda r: flaws(r, fresh=lambda r: r["test_mean"] > 0.06 or overlap(r)), "TypeError"),
    ("certificate_flaws", few_are_a_flaw, "few digits cost ratio"),
    ("certificate_flaws", one_flaw, "more than one flaw"),
    ("certificate_flaws", lambda record: [flaw.replace(" ", "_") for flaw in flaws(record)], "'not_fresh' is none of"),
    ("certificate_flaws", lambda record: bool(flaws(record)), "Return the set of flaws"),
    ("certificate_flaws", no_return, "is there a return"),
    ("digits_needed", lambda alpha, delta: digits(delta, alpha), "have changed places"),
    ("digits_needed", lambda alpha, delta: math.ceil(1 / alpha), "one mistake on average"),
    ("digits_needed", lambda alpha, delta: math.ceil(math.log(1 / delta) / alpha), "only bounds"),
    ("digits_needed", lambda alpha, delta: math.ceil(math.log(delta) / math.log(alpha) - 1e-12), "not alpha"),
    ("digits_needed", lambda alpha, delta: math.log(delta) / math.log(1 - alpha), "digits is whole: round up"),
    ("digits_needed", lambda alpha, delta: int(math.log(delta) / math.log(1 - alpha)), "too few by one: round up"),
    ("digits_needed", lambda alpha, delta: digits(alpha, delta) - 1, "the last n that does not certify"),
    ("digits_needed", lambda alpha, delta: int(math.log(delta) / math.log(1 - alpha)) + 1, "equal to delta"),
    ("digits_needed", lambda alpha, delta: digits(alpha, delta) + 1, "(1 - alpha)^n if the risk is alpha"),
    ("digits_needed", lambda alpha, delta: 100, "(1 - alpha)^n"),
    ("digits_needed", lambda alpha, delta: "ten", "want a number, got 'ten'"),
    ("digits_needed", lambda alpha, delta: str(digits(alpha, delta)), "want a number, got '22'"),
]
(
    test_right_answers_are_accepted,
    test_wrong_answers_are_refused_by_name,
    test_every_misconception_of_a_checker_is_told_to_somebody,
) = right_and_wrong(RIGHT, WRONG)


@pytest.mark.parametrize(("alpha", "delta"), [(0.05, 0.1), (0.01, 0.1), (0.2, 0.02)])
def test_that_many_digits_can_certify_and_one_fewer_cannot(alpha, delta):
    n = exercises.EXERCISES["digits_needed"].solution(alpha, delta)
    for p_value in (binomial, tight):
        assert p_value(0, n, alpha) <= delta < p_value(0, n - 1, alpha)


def test_the_histograms_count_what_they_say():
    picture = plots.risk_laws({"a": [0.01, 0.05, 0.06, 0.9], "b": [np.nan] * 4}, alpha=0.05)
    assert "a: above alpha = 0.05 in 50.0% of 4 repetitions, nothing chosen in 0.0%" in picture.alt
    assert "b: above alpha = 0.05 in 0.0% of 4 repetitions, nothing chosen in 100.0%" in picture.alt
    heights = [[bar.get_height() for bar in ax.patches] for ax in picture.axes]
    assert (sum(heights[0]), sum(heights[1])) == (1, 0)
    beyond = [bar.get_height() for bar in picture.axes[0].patches if bar.get_hatch()]
    assert sum(beyond) == 0.5 and beyond[-1] == 0.25
    assert picture.png()


@pytest.fixture
def wrong(mlp):
    """The table of section 2, in the order in which the digits ship."""
    return loss_table(mlp, data.mnist5k(), RATIOS, losses.error, progress=False)


RATIOS = np.r_[0:80:10, 80:97] / 100


def test_the_explorer_says_of_both_rules_what_the_slow_experiment_says(wrong, monkeypatch):
    drawn = {}
    monkeypatch.setattr(widgets, "explore", lambda draw, **controls: drawn.update({n: draw(0.05, n) for n in SIZES}))
    widgets.counting_explorer(wrong)
    risk, rng, broken = wrong.mean(axis=0), np.random.default_rng(2), {}
    for n in SIZES:
        draws = [wrong[rng.integers(5000, size=n)] for _ in range(1000)]
        rules = {
            "fine": [rows.mean(axis=0) <= 0.05 for rows in draws],
            "certificate": [calibrate_losses(rows, RATIOS, alpha=0.05, delta=0.1).rejected for rows in draws],
        }
        for name, chosen in rules.items():
            slow = np.mean([risk[np.flatnonzero(fine)[-1]] > 0.05 for fine in chosen if fine.any()] or [0])
            (said,) = re.findall(rf"{name}: above alpha = 0.05 in ([\d.]+)%", drawn[n].alt)
            broken[name, n] = float(said) / 100
            assert abs(broken[name, n] - slow * np.mean([fine.any() for fine in chosen])) < 0.1
    assert broken["fine", 200] > 0.5 and broken["fine", 4000] > 0.25  # as the lesson says
    assert broken["certificate", 200] < 0.1 > broken["certificate", 4000]


SIZES = (200, 4000)


def test_counting_breaks_the_limit_and_the_certificate_keeps_it(wrong):
    """The experiment of section 3 with other draws; counting is the twin that must fail the same test."""
    ratios, alpha, delta = RATIOS, 0.05, 0.1
    risk = wrong.mean(axis=0)
    draws = np.random.default_rng(1).integers(len(wrong), size=(2000, 1000))
    broken = {"count": 0, "certificate": 0}
    for rows in draws:
        broken["count"] += risk[wrong[rows].mean(axis=0) <= alpha][-1] > alpha
        certified = calibrate_losses(wrong[rows], ratios, alpha=alpha, delta=delta).rejected
        broken["certificate"] += bool((risk[certified] > alpha).any())
    assert binomtest(int(broken["certificate"]), 2000, delta, alternative="greater").pvalue >= 1e-4
    assert binomtest(int(broken["count"]), 2000, delta, alternative="greater").pvalue < 1e-4
