"""Lesson 03: checkers refuse each misconception they know, figures tell the numbers, and the lesson's claims hold."""

from itertools import pairwise

import numpy as np
import pytest
from answers import right_and_wrong
from scipy.stats import binomtest, false_discovery_control

from confprune_edu import controls, exercises, fwer, plots, widgets
from confprune_edu.plots import lesson_03, picture

# --- exercises ---


def adjusted(p, factor=True, cap=True, monotone=True, order=True, holm_first=None):
    """Right with the default options, and wrong in one way with each of the others."""
    m, rank = len(p), np.argsort(np.argsort(p, kind="stable"), kind="stable")
    holm = np.array([(holm_first or m) - i for i in range(m)]) * np.sort(p)
    holm = np.maximum.accumulate(holm) if monotone else holm
    bonferroni = (m if factor else 1) * np.asarray(p)
    holm = holm[rank] if order else holm
    return (np.minimum(1, bonferroni), np.minimum(1, holm)) if cap else (bonferroni, holm)


def unfair_to_ties(p):
    """Holm's factor counted as one more than the number of larger p-values: two equal ones pay for one too few."""
    return [min(1, max((sum(q > r for q in p) + 1) * r for r in p if r <= own)) for own in p]


def adjusted_by_search(p):
    """From the procedures themselves: the smallest delta among the candidates that certifies j; lists, not arrays."""
    candidates = sorted({k * q for k in range(1, len(p) + 1) for q in p if 0 < k * q < 1})

    def smallest(procedure, j):
        return next((d for d in candidates if procedure(p, d * (1 + 1e-12))[j]), 1.0)

    return [[smallest(f, j) for j in range(len(p))] for f in (fwer.bonferroni, fwer.holm)]


def step(w, g, j, add=True, share=True, clear=True, detour=True, loop=True, diagonal=True, guard=True, old=True):
    """The update rule in arrays; wrong in one way with each option switched off."""
    m = len(w)
    w = (w if add else 0 * w) + w[j] * (g[j] if share else (g[j] > 0))
    new = g.copy()
    for k in range(m):
        for i in range(m):
            source = g if old else new
            back = source[k, j] * source[j, k] if loop else 0
            top = source[k, i] + (source[k, j] * source[j, i] if detour else 0)
            if k != i or not diagonal:
                with np.errstate(all="ignore"):
                    new[k, i] = top / (1 - back) if back < 1 or not guard else 0
    if clear:
        w[j], new[j], new[:, j] = 0, 0, 0
    return w, new


def step_in_place(w, g, j):
    w[:], g[:] = step(w, g, j)
    return w, g


def filled_up(g):
    return g / np.where(g.any(axis=1), g.sum(axis=1), 1)[:, None]


def best(p, factor=None, cap=True, independent=False):
    j = int(np.argmin(p))
    stated = 1 - (1 - p[j]) ** len(p) if independent else (factor or len(p)) * p[j]
    return j, min(1, stated) if cap else stated


RIGHT = [
    ("adjusted_p_values", adjusted),
    ("adjusted_p_values", adjusted_by_search),
    ("adjusted_p_values", lambda p: np.array(adjusted(p))),
    ("graph_step", step),
    ("graph_step", lambda w, g, j: tuple(part.tolist() for part in step(w, g, j))),
    ("best_of_many", best),
    ("adjusted_p_values", lambda p: (part for part in adjusted(p))),
    ("graph_step", lambda w, g, j: (part for part in step(w, g, j))),
    ("best_of_many", lambda p: [np.argmin(p), np.minimum(1, len(p) * np.min(p))]),
]
WRONG = [
    ("adjusted_p_values", lambda p: (np.full(len(p), p[0] / 2), p), "nothing is corrected"),
    ("adjusted_p_values", lambda p: adjusted(p, factor=False), "Bonferroni multiplies by m"),
    ("adjusted_p_values", lambda p: (adjusted(p)[0], np.array(p)), "Holm by m for the smallest"),
    ("adjusted_p_values", lambda p: adjusted(p, order=False), "the order of p_values"),
    ("adjusted_p_values", lambda p: adjusted(p, cap=False), "at most 1"),
    ("adjusted_p_values", lambda p: adjusted(p, monotone=False), "step-down"),
    ("adjusted_p_values", lambda p: (adjusted(p)[0], unfair_to_ties(p)), "equal p-values"),
    ("adjusted_p_values", lambda p: adjusted(p)[0], "Return two arrays"),
    ("adjusted_p_values", lambda p: (adjusted(p)[0], adjusted(p, order=False)[1][np.argsort(p)]), "its inverse"),
    ("adjusted_p_values", lambda p: (adjusted(p)[0], false_discovery_control(p)), "this is Benjamini-Hochberg"),
    ("graph_step", step_in_place, "weights is now"),
    ("graph_step", step_in_place, "leave the arguments as they were"),
    ("graph_step", lambda w, g, j: step(w, g, j, clear=False), "keeps nothing"),
    ("graph_step", lambda w, g, j: step(w, g, j, add=False), "already holds"),
    ("graph_step", lambda w, g, j: step(w, g, j, share=False), "only the fraction"),
    ("graph_step", lambda w, g, j: step(w, g, j, detour=False), "goes on to where"),
    ("graph_step", lambda w, g, j: step(w, g, j, loop=False), "shared out again"),
    ("graph_step", lambda w, g, j: step(w, g, j, diagonal=False), "points at itself"),
    ("graph_step", lambda w, g, j: step(w, g, j, guard=False), "division by zero"),
    ("graph_step", lambda w, g, j: step(w, g, j, old=False), "old graph"),
    ("graph_step", lambda w, g, j: (step(w, g, j)[0], "arrows"), "transitions: want numbers, got 'arrows'"),
    ("graph_step", lambda w, g, j: step(w, g, j)[0], "Return new weights (m,)"),
    ("graph_step", lambda w, g, j: (step(w, g, j)[0], filled_up(step(w, g, j)[1])), "need not sum to 1"),
    ("best_of_many", lambda p: best(p, factor=1), "as if all m tests were reported"),
    ("best_of_many", lambda p: (len(p) - 1, best(p)[1]), "the place of the smallest"),
    ("best_of_many", lambda p: best(p, factor=max(1, int(np.sum(p < 0.8)))), "never looked promising"),
    ("best_of_many", lambda p: best(p, independent=True), "needs independent"),
    ("best_of_many", lambda p: (best(p)[0], 0.06 if len(p) == 3 else best(p)[1]), "m p holds"),
    ("best_of_many", lambda p: best(p, cap=False), "at most 1"),
    ("best_of_many", lambda p: (len(p) - 1, 1.0), "a single test"),
    ("best_of_many", lambda p: (0, best(p)[1]), "the smallest p-value, wherever it stands"),
    ("best_of_many", lambda p: (np.argmin(p) + 1, best(p)[1]), "positions count from 0"),
    ("best_of_many", lambda p: best(p)[::-1], "first the position"),
    ("best_of_many", lambda p: (int(np.argmax(p)), min(1, len(p) * max(p))), "report the smallest"),
]


(
    test_right_answers_are_accepted,
    test_wrong_answers_are_refused_by_name,
    test_every_misconception_of_a_checker_is_told_to_somebody,
) = right_and_wrong(RIGHT, WRONG)


def test_adjusted_p_values_are_the_procedures_for_all_delta_at_once():
    rng = np.random.default_rng(0)
    solution = exercises.EXERCISES["adjusted_p_values"][1]
    for p in rng.random((200, 6)) ** 3:
        for delta in rng.random(5):
            for found, procedure in zip(solution(p), (fwer.bonferroni, fwer.holm), strict=True):
                assert ((found <= delta) == procedure(p, delta)).all()


def test_graph_steps_lead_to_the_result_of_the_package():
    rng, solution = np.random.default_rng(1), exercises.EXERCISES["graph_step"][1]
    for _ in range(200):
        m = int(rng.integers(2, 7))
        w, g = rng.dirichlet(np.ones(m)), rng.dirichlet(np.full(m, 0.5), size=m) * (1 - np.eye(m))
        p = 0.1 * rng.random(m) ** 2
        want, rejected = fwer.graphical(p, 0.1, w, g), np.zeros(m, dtype=bool)
        while (passed := ~rejected & (p <= 0.1 * w)).any():
            j = int(rng.choice(np.flatnonzero(passed)))  # any order
            rejected[j] = True
            w, g = solution(w, g, j)
        assert (rejected == want).all()


# --- figures and the explorer ---

ALL = [(name, scenario) for name in plots.BUDGET_PROCEDURES for scenario in plots.BUDGET_SCENARIOS]


@pytest.mark.parametrize(("procedure", "scenario"), ALL)
def test_the_explorer_certifies_what_the_package_certifies(procedure, scenario):
    picture = plots.error_budget(procedure, scenario, 4)
    rejected = fwer.graphical(
        0.1 * np.array(plots.BUDGET_SCENARIOS[scenario]), 0.1, *plots.BUDGET_PROCEDURES[procedure]
    )
    assert f"{rejected.sum()} of 4 certified" in picture.alt
    for name, certified in zip(plots.BUDGET_NAMES, rejected, strict=True):
        assert (f"{name} certified" in picture.alt) == certified


def test_no_scenario_has_one_winner_for_all():
    certified = {pair: int(plots.error_budget(*pair, 0).alt.split(": ")[1][0]) for pair in ALL}
    scenarios = list(plots.BUDGET_SCENARIOS)
    assert {certified["chain", s] for s in scenarios} >= {0, 4}
    assert all(certified["bonferroni", s] <= certified["holm", s] for s in scenarios)
    for name in plots.BUDGET_PROCEDURES:
        best = [certified[name, s] == max(certified[other, s] for other in plots.BUDGET_PROCEDURES) for s in scenarios]
        assert not all(best), name


def test_budget_is_never_created_and_open_hypotheses_never_lose_any():
    for procedure, scenario in ALL:
        p = 0.1 * np.array(plots.BUDGET_SCENARIOS[scenario])
        states = lesson_03.budget_states(p, 0.1, *plots.BUDGET_PROCEDURES[procedure])
        for (w, _, _), (after, arrows, gone) in pairwise(states):
            assert after.sum() <= 1 + 1e-12 and (after[~gone] >= w[~gone]).all()
            assert (arrows.sum(axis=1) <= 1 + 1e-12).all() and not arrows[gone].any() and not arrows[:, gone].any()


def test_the_explorer_draws_once_without_a_reader(capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(controls, "display", shown.append)
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")
    widgets.error_budget(0.2)
    assert len(shown) == 1 and shown[0].alt.startswith("chain, A breaks early")


def test_large_delta_keeps_p_values_of_the_scenarios_below_one():
    assert "p = 1" in plots.error_budget("holm", "A breaks early", 0, delta=0.5).alt


def test_figures_tell_their_numbers():
    lucky = plots.lucky_models([0.2, 0.1, 0.3], [False] * 3, alpha=0.1, risk=0.101, n=50)
    assert lucky.alt.endswith("0 of them are certified.")
    errors = plots.family_wise_errors(
        {"all bad": {"none": [50, 7], "holm": [0, 100]}}, ["independent", "copies\n(all)"], trials=100, delta=0.1
    )
    assert (
        "none 0.500 independent, 0.070 copies (all); all bad: holm 0.000 independent, 1.000 copies (all)" in errors.alt
    )
    ratios = plots.ratio_against_m([2, 4], {"holm": [0.5, 0.6]}, ceiling=0.7, n=9)
    assert "0.500 at m = 2, 0.600 at m = 4" in ratios.alt
    for drawn in (lucky, errors, ratios):
        assert drawn.png().startswith(b"\x89PNG")


@pytest.mark.parametrize("errors", [0, 1, 7, 100])
def test_intervals_are_those_of_clopper_and_pearson(errors):
    want = binomtest(errors, 100).proportion_ci(0.95, method="exact")
    rate, bars = picture.rate_with_bars(np.array([errors]), 100)
    np.testing.assert_allclose([rate[0] - bars[0, 0], rate[0] + bars[1, 0]], [want.low, want.high], atol=1e-12)


# --- claims of the lesson ---


def test_a_certificate_for_the_best_of_many_holds_under_any_dependence():
    """best_of_many keeps its level for independent p-values and for copies; the uncorrected one does not."""
    rng, trials, delta = np.random.default_rng(2), 4000, 0.1
    for p in (rng.random((trials, 20)), np.repeat(rng.random((trials, 1)), 20, axis=1)):
        corrected = np.minimum(1, 20 * p.min(axis=1))
        assert binomtest(int((corrected <= delta).sum()), trials, delta, alternative="greater").pvalue > 1e-4
    twin = rng.random((trials, 20)).min(axis=1)
    assert binomtest(int((twin <= delta).sum()), trials, delta, alternative="greater").pvalue < 1e-4


def test_nested_losses_and_growing_risks_need_no_correction_but_independent_ones_do():
    from confprune_edu.validation import bernoulli, error_rate, independent

    risks, options = np.linspace(0.101, 0.2, 30), {"n": 200, "alpha": 0.1, "delta": 0.1, "p_value": "binomial"}
    rates = [error_rate(law, risks, procedure=lambda p, d: p <= d, **options) for law in (bernoulli, independent)]
    assert rates[0].evidence > 1e-4 > rates[1].evidence
