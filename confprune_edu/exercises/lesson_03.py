"""Checkers of lesson 03."""

from collections.abc import Callable
from typing import Any

import numpy as np

from confprune_edu.exercises.checker import exercise, near, shown

# Lesson 03


def _adjusted_solution(p_values):
    m, p = len(p_values), np.asarray(p_values, dtype=float)
    bonferroni, holm = np.minimum(1, m * p), np.empty(m)
    needed = 0.0
    for rank, j in enumerate(np.argsort(p)):
        needed = max(needed, (m - rank) * p[j])  # all smaller p-values must have passed, too
        holm[j] = min(1, needed)
    return bonferroni, holm


ADJUSTED_CASES = {
    (0.03,): "with one hypothesis nothing is corrected: both are p itself",
    (0.01, 0.20): "Bonferroni multiplies by m; Holm by m for the smallest p-value, by 1 for the largest",
    (0.20, 0.01): "the answer is in the order of p_values, not in sorted order",
    (0.02, 0.021, 0.30): "Holm is a step-down: no adjusted value may be smaller than that of a smaller p-value",
    (0.60, 0.70): "a p-value is at most 1: cap m p there",
    (0.04, 0.04): "equal p-values have equal adjusted values: either they are both certified or neither is",
}


@exercise(
    hint="Bonferroni certifies j if m p_j <= delta. Holm's i-th smallest p-value must satisfy (m - i + 1) p <= delta, "
    "and so must all the smaller ones before it: what is the smallest delta that satisfies all of these?",
    solution=_adjusted_solution,
)
def adjusted_p_values(answer: Callable[..., Any]) -> None:
    """Check `answer(p_values)`, which returns the adjusted p-values (bonferroni, holm), each of shape (m,)."""
    for p, misconception in ADJUSTED_CASES.items():
        want, got = _adjusted_solution(p), answer(np.array(p))
        assert len(got) == 2, f"return two arrays, bonferroni and holm; got {got!r}"
        for name, right, given in zip(("bonferroni", "holm"), want, got, strict=True):
            assert near(given, right), (
                f"p_values = {list(p)}: {name} must be {shown(right)}, got {shown(given)} ({misconception})"
            )


def _graph_step_solution(weights, transitions, j):
    w, g, m = np.array(weights, dtype=float), np.array(transitions, dtype=float), len(weights)
    new_w, new_g = np.zeros(m), np.zeros((m, m))
    others = [k for k in range(m) if k != j]
    for k in others:
        new_w[k] = w[k] + w[j] * g[j, k]
        loop = g[k, j] * g[j, k]
        for i in others:
            if i != k and loop < 1:
                new_g[k, i] = (g[k, i] + g[k, j] * g[j, i]) / (1 - loop)
    return new_w, new_g


GRAPH_CASES: dict[tuple[Any, Any, int], str] = {
    ((1, 0), ((0, 1), (0, 0)), 0): "the rejected hypothesis keeps nothing: its budget and its arrows become 0",
    ((0.5, 0.5), ((0, 1), (0, 0)), 0): "what arrives is added to what a hypothesis already holds: w_k + w_j g_jk",
    ((0.5, 0.5), ((0, 0.5), (0, 0)), 0): "only the fraction g_jk of the budget w_j travels to k",
    ((0.5, 0.5), ((0, 0.5), (0.5, 0)), 0): "no node points at itself, also not through the one that was rejected",
    (
        (1, 0, 0),
        ((0, 1, 0), (0, 0, 1), (0, 0, 0)),
        1,
    ): "an arrow into the rejected node goes on to where that node pointed: g_kj g_jl is added to g_kl",
    ((1, 0, 0), ((0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)), 2): "what would return to its sender "
    "is shared out again: divide by 1 - g_kj g_jk",
    (
        (0.5, 0.5, 0),
        ((0, 1, 0), (1, 0, 0), (0, 0, 0)),
        0,
    ): "two nodes that point only at each other: g_kj g_jk = 1 leaves no arrow, not a division by zero",
    (
        (0.2, 0.3, 0.5),
        ((0, 0.2, 0.6), (0.4, 0, 0.5), (0.3, 0.7, 0)),
        0,
    ): "compute every new fraction from the old graph; do not overwrite what is still needed",
}


@exercise(
    hint="Two rules for the nodes k, l that stay: w_k + w_j g_jk, and (g_kl + g_kj g_jl) / (1 - g_kj g_jk). Everything "
    "that touches j is 0 afterwards, and so is the diagonal.",
    solution=_graph_step_solution,
)
def graph_step(answer: Callable[..., Any]) -> None:
    """Check `answer(weights, transitions, j)`: weights (m,) and transitions (m, m) after hypothesis j is rejected."""
    for (weights, transitions, j), misconception in GRAPH_CASES.items():
        w, g = np.array(weights, dtype=float), np.array(transitions, dtype=float)
        want, got = _graph_step_solution(w, g, j), answer(w.copy(), g.copy(), j)
        assert len(got) == 2, f"return weights and transitions; got {got!r}"
        for name, right, given in zip(("weights", "transitions"), want, got, strict=True):
            assert near(given, right), (
                f"weights {shown(w)}, transitions {shown(g)}, rejected {j}: new {name} must be {shown(right)}, "
                f"got {shown(given)} ({misconception})"
            )


def _best_of_many_solution(p_values):
    best = int(np.argmin(p_values))
    return best, min(1.0, len(p_values) * float(p_values[best]))


BEST_CASES = {
    (0.04,): "a single test needs no correction",
    (0.30, 0.02, 0.50): "the best of m tests is as if all m were reported: m times its p-value, not the p-value itself",
    (0.01, 0.90, 0.95, 1.00): "every model that was tested counts, also those that never looked promising",
    (0.20, 0.30, 0.25): "1 - (1 - p)^m needs independent tests, and shared examples rule that out; m p holds",
    (0.40, 0.90, 0.60): "a p-value is at most 1",
}


@exercise(
    hint="Reporting the best of m tests is a family of m tests. Which correction holds whatever their dependence, and "
    "for how many tests do you pay?",
    solution=_best_of_many_solution,
)
def best_of_many(answer: Callable[..., Any]) -> None:
    """Check `answer(p_values)`, which returns (index of the reported model, the p-value that its report may state)."""
    for p, misconception in BEST_CASES.items():
        best, stated = _best_of_many_solution(p)
        got = answer(np.array(p))
        assert len(got) == 2, f"return an index and a p-value; got {got!r}"
        assert int(got[0]) == best, (
            f"p_values = {list(p)}: the report speaks of model {best}, the smallest p-value; got {got[0]!r}"
        )
        assert near(got[1], stated), (
            f"p_values = {list(p)}: the honest p-value is {stated:.4g}, got {shown(got[1])} ({misconception})"
        )
