"""Exercises of lesson 03."""

import numpy as np

from confprune_edu.exercises.checker import EXERCISES, exercise


def _benjamini_hochberg(p):
    m, order = len(p), np.argsort(p)
    stepped_up = np.minimum.accumulate((m * p[order] / np.arange(1, m + 1))[::-1])[::-1]
    return np.minimum(1, m * p), stepped_up[np.argsort(order)]


@exercise(
    parts=("bonferroni", "holm"),
    mistakes={
        "this is Benjamini-Hochberg, which bounds the mean share of false certificates, not the chance of any": (
            _benjamini_hochberg
        )
    },
)
def adjusted_p_values(p_values):
    """Return two arrays, the adjusted p-values (bonferroni, holm), each of shape (m,)."""
    m, p = len(p_values), np.asarray(p_values, dtype=float)
    bonferroni, holm = np.minimum(1, m * p), np.empty(m)
    needed = 0.0
    for rank, j in enumerate(np.argsort(p)):
        needed = max(needed, (m - rank) * p[j])  # all smaller p-values must have passed, too
        holm[j] = min(1, needed)
    return bonferroni, holm


def _filled_up(w, g, j):
    w, g = (np.array(part) for part in EXERCISES["graph_step"].solution(w, g, j))
    return w, g / np.where(g.any(axis=1), g.sum(axis=1), 1)[:, None]


@exercise(
    parts=("weights", "transitions"),
    mistakes={"the arrows of a node need not sum to 1: divide by 1 - g_kj g_jk and by nothing else": _filled_up},
)
def graph_step(weights, transitions, j):
    """Return new weights (m,) and transitions (m, m), two arrays of numbers, after hypothesis j is rejected."""
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


def _paid(p, j):
    return j, min(1, len(p) * p[j])


@exercise(
    parts=("index", "p"),
    mistakes={
        "the report speaks of the smallest p-value, wherever it stands": lambda p: (
            0,
            _paid(p, p.argmin())[1],
        ),
        "positions count from 0": lambda p: (p.argmin() + 1, _paid(p, p.argmin())[1]),
        "small p-values are the good ones: report the smallest": lambda p: _paid(p, p.argmax()),
        "first the position, then the p-value": lambda p: _paid(p, p.argmin())[::-1],
        "1 - (1 - p)^m needs independent tests, and shared examples rule that out; m p holds": (
            lambda p: (p.argmin(), 1 - (1 - p.min()) ** len(p))
        ),
    },
)
def best_of_many(p_values):
    """Return two values: the index of the reported model, and the p-value that its report may state."""
    best = int(np.argmin(p_values))
    return best, min(1.0, len(p_values) * float(p_values[best]))
