"""Figures of lesson 03."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, Wedge
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from confprune_edu.plots.picture import (
    BLUE,
    COLOURS,
    GREY,
    LINES,
    P_LABEL,
    SMALLEST,
    Picture,
    _limit,
    _picture,
    _styled,
    percent,
    rate_with_bars,
    tell,
)

# Lesson 03: many tests, one budget


@_styled
def lucky_models(means: ArrayLike, certified: ArrayLike, *, alpha: float, risk: float, n: int) -> Picture:
    """Calibration means (m,) of models that all have the same risk above alpha: certified filled, others hollow.

    >>> lucky_models([0.08, 0.12], [True, False], alpha=0.1, risk=0.101, n=500).alt
    'Mean losses of 2 models on n = 500 examples each, all with risk 0.101, above alpha = 0.1: 1 of them is certified.'
    """
    y, lucky = np.asarray(means, dtype=float), np.asarray(certified, dtype=bool)
    verb = "is" if lucky.sum() == 1 else "are"
    picture, ax = _picture(7, 3)
    for mask, face, label in ((lucky, BLUE, "certified (falsely)"), (~lucky, "white", "not certified")):
        ax.plot(np.flatnonzero(mask) + 1, y[mask], "o", color=BLUE, markerfacecolor=face, label=label)
    ax.axhline(alpha, color=GREY, linestyle="--", linewidth=1.2)
    ax.axhline(risk, color=COLOURS[1], linestyle="-", linewidth=1.2)
    for value, text, colour, va in (
        (alpha, f"alpha = {alpha:.3g}", GREY, "top"),
        (risk, f"risk of every model = {risk:g}", COLOURS[1], "bottom"),
    ):
        ax.annotate(text, (1.01, value), xycoords=("axes fraction", "data"), va=va, color=colour, fontsize=9)
    ax.set(xlabel="model", ylabel=f"mean loss, n = {n} each", xlim=(0, len(y) + 1))
    low, high = min(y.min(), alpha), max(y.max(), risk)
    ax.set_ylim(max(low - 0.08 * (high - low), -0.04 * high), min(high + 0.08 * (high - low), 1.02))
    false = ", and every certificate is false" if lucky.any() else ""
    ax.set_title(f"{lucky.sum()} of {len(y)} models {verb} certified{false}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    percent(ax, "y")
    below = risk > np.dot(ax.get_ylim(), (0.3, 0.7))  # the legend keeps away from the names on the lines
    ax.legend(loc="lower left" if below else "upper left", bbox_to_anchor=(1, 0 if below else 1), fontsize=9)
    return tell(
        picture,
        f"Mean losses of {len(y)} models on n = {n} examples each, all with risk {risk:g}, above alpha = {alpha:.3g}: "
        f"{lucky.sum()} of them {verb} certified.",
    )


@_styled
def chance_of_any(
    sizes: ArrayLike, curves: Mapping[str, ArrayLike], *, delta: float, seen: tuple[int, int, int], title: str = ""
) -> Picture:
    """Chance (sizes,) of at least one false certificate, by name, against the number of models.

    `seen` is (models, errors, trials) of a simulation, drawn as a point with its exact 95 % binomial interval.

    >>> chance_of_any([1, 40], {"no correction": [0.1, 0.985]}, delta=0.1, seen=(40, 984, 1000)).alt
    'Chance of any false certificate, delta = 0.1. At 40 models: no correction 0.985; simulated 0.984 in 1000 trials.'
    """
    x = np.asarray(sizes)
    picture, ax = _picture(7, 3.6)
    for (name, values), colour, line in zip(curves.items(), COLOURS, LINES, strict=False):
        ax.plot(x, np.asarray(values), color=colour, linestyle=line, label=name)
    m, errors, trials = seen
    rate, bars = rate_with_bars(np.array([errors]), trials)
    ax.errorbar([m], rate, bars, fmt="o", color="black", capsize=4, label=f"simulated, {trials:,} trials")
    ax.axhline(delta, color=GREY, linestyle="--", linewidth=1.2)
    right: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"),
        "ha": "right",
        "va": "bottom",
        "color": GREY,
        "fontsize": 9,
    }
    ax.annotate(f"delta = {delta:.3g}", (0.99, delta), **right)
    ax.set(xlabel="number of models tested, m", ylabel="P[any false certificate]", ylim=(-0.02, 1.04), title=title)
    percent(ax, "y")
    ax.legend(loc="center right", fontsize=9)
    at = ", ".join(f"{name} {float(np.interp(m, x, np.asarray(values))):.3f}" for name, values in curves.items())
    return tell(
        picture,
        f"Chance of any false certificate, delta = {delta:.3g}. At {m} models: {at}; simulated {rate[0]:.3f} "
        f"in {trials} trials.",
    )


@_styled
def holm_stairs(p_values: ArrayLike, *, delta: float) -> Picture:
    """Sorted p-values (m,) under the levels of Bonferroni, flat, and Holm, a staircase: certified by Holm filled.

    >>> holm_stairs([0.01, 0.03, 0.045, 0.5], delta=0.1).alt
    'Sorted p-values, m = 4, delta = 0.1: 1 is at most delta / m, the level of Bonferroni; Holm certifies 3.'
    """
    p = np.sort(np.asarray(p_values, dtype=float))
    m, rank = len(p), np.arange(1, len(p) + 1)
    levels = delta / (m - rank + 1)
    passed, flat = np.logical_and.accumulate(p <= levels), int(np.sum(p <= delta / m))
    picture, ax = _picture(7, 3.4)
    ax.step(rank, levels, where="mid", color=COLOURS[2], linestyle="-", label="Holm: delta / (m - i + 1)")
    ax.axhline(delta / m, color=COLOURS[1], linestyle="-.", label="Bonferroni: delta / m")
    for mask, face, label in ((passed, BLUE, "certified by Holm"), (~passed, "white", "not certified")):
        ax.plot(rank[mask], np.maximum(p[mask], SMALLEST), "o", color=BLUE, markerfacecolor=face, label=label)
    _limit(ax, delta, f"delta = {delta:.3g}", axis="y")
    ax.set(yscale="log", xlabel=f"rank i of the p-value among m = {m}", ylabel=P_LABEL)
    ax.set_title(f"Bonferroni certifies {flat}, Holm climbs the stairs and certifies {passed.sum()}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower right", fontsize=9)
    return tell(
        picture,
        f"Sorted p-values, m = {m}, delta = {delta:.3g}: {flat} {'is' if flat == 1 else 'are'} at most delta / m, "
        f"the level of Bonferroni; Holm certifies {passed.sum()}.",
    )


@_styled
def family_wise_errors(
    panels: Mapping[str, Mapping[str, ArrayLike]], kinds: Sequence[str], *, trials: int, delta: float, title: str = ""
) -> Picture:
    """Family-wise error rates with exact 95 % binomial intervals: a panel a scenario, a mark a procedure.

    `panels[scenario][procedure]` counts the trials with any false certificate under each kind of dependence, (kinds,).

    >>> family_wise_errors({"all bad": {"holm": [9]}}, ["independent"], trials=100, delta=0.1).alt
    'Family-wise error rate in 100 trials, delta = 0.1. all bad: holm 0.090 independent.'
    """
    picture = Picture(figsize=(7, 3.8), layout="constrained")
    axes = np.atleast_1d(picture.subplots(1, len(panels), sharey=True))
    plain, notes = [kind.replace("\n", " ") for kind in kinds], []
    for ax, (scenario, procedures) in zip(axes, panels.items(), strict=True):
        for i, (name, errors) in enumerate(procedures.items()):
            rate, bars = rate_with_bars(np.asarray(errors), trials)
            x = np.arange(len(kinds)) + 0.2 * (i - (len(procedures) - 1) / 2)
            ax.errorbar(x, rate, bars, fmt="osD^v"[i], color=COLOURS[i], capsize=4, linewidth=1.2, label=name)
            shown = ", ".join(f"{value:.3f} {kind}" for value, kind in zip(rate, plain, strict=True))
            notes.append(f"{scenario}: {name} {shown}")
        ax.axhline(delta, color=GREY, linestyle="--", linewidth=1.2)
        ax.set_xticks(range(len(kinds)), kinds)
        ax.set_yscale("symlog", linthresh=0.01, linscale=0.6)
        ax.set(ylim=(0, 1.5), xlim=(-0.5, len(kinds) - 0.5))
        ax.set_yticks([0, 0.01, 0.1, 1], ["0%", "1%", "10%", "100%"])
        ax.set_title(scenario, fontsize=10)
    axes[-1].annotate(
        f"delta = {delta:.3g}",
        (0.99, delta),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        color=GREY,
        fontsize=9,
    )
    axes[0].set_ylabel(f"FWER in {trials:,} trials (log scale above 1 %)")
    axes[0].legend(loc="lower left", fontsize=9)
    picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    return tell(picture, f"Family-wise error rate in {trials} trials, delta = {delta:.3g}. {'; '.join(notes)}.")


Graph = tuple[ArrayLike, ArrayLike, ArrayLike]  # weights (m,), transitions (m, m), rejected (m,)


@_styled
def budget_graphs(
    states: Sequence[Graph],
    p_values: ArrayLike,
    *,
    delta: float,
    names: Sequence[str],
    places: ArrayLike | None = None,
    title: str = "",
) -> Picture:
    """Hypotheses as nodes whose filled share is their part of delta, transitions as arrows; one panel a state.

    A state is (weights (m,), transitions (m, m), rejected (m,)), `places` are coordinates (m, 2), a circle by default.

    >>> budget_graphs([([1, 0], [[0, 1], [0, 0]], [False, False])], [0.04, 0.2], delta=0.1, names=["H1", "H2"]).alt
    'Budgets. Panel 1: H1 0.1, p = 0.04; H2 0, p = 0.2.'
    """
    m, k = len(names), len(states)
    turn = np.pi / 2 - 2 * np.pi * np.arange(m) / m
    where = 1.25 * np.column_stack([np.cos(turn), np.sin(turn)]) if places is None else np.asarray(places, dtype=float)
    picture = Picture(figsize=(5, 4) if k == 1 else (7, 3))  # placed by hand: an explorer has no time for a layout
    axes = picture.subplots(1, k, gridspec_kw={"left": 0, "right": 1, "bottom": 0, "top": 0.85, "wspace": 0.02})
    notes = []
    for i, (ax, state) in enumerate(zip(np.atleast_1d(axes), states, strict=True)):
        said = _budget_graph(ax, state, np.asarray(p_values, dtype=float), delta, names, where)
        notes.append(f"Panel {i + 1}: {said}.")
        done = int(np.sum(state[2]))
        when = {0: "before any rejection", 1: "after 1 rejection"}.get(done, f"after {done} rejections")
        ax.set_title(when, fontsize=10, loc="center")
        ax.set_axis_off()
    picture.suptitle(title, fontsize=11, x=0.02, y=0.99, ha="left")
    return tell(picture, (title or "Budgets") + ". " + " ".join(notes))


# Two networks, A and B, each at a gentle and an aggressive ratio; p-values as multiples of delta.
BUDGET_NAMES = ("A 50 %", "A 80 %", "B 50 %", "B 80 %")

BUDGET_PLACES = ((0, 2), (2, 2), (0, 0), (2, 0))

BUDGET_SCENARIOS = {
    "only just convincing": (0.2, 0.6, 0.4, 0.9),
    "A breaks early": (0.7, 5.0, 0.4, 0.2),
    "A fails at once": (3.0, 4.0, 0.3, 0.35),
    "all convincing": (0.01, 0.1, 0.02, 0.2),
}

BUDGET_PROCEDURES: dict[str, tuple[Any, Any]] = {  # weights and transitions over BUDGET_NAMES
    "bonferroni": ([1 / 4] * 4, np.zeros((4, 4))),
    "holm": ([1 / 4] * 4, (1 - np.eye(4)) / 3),
    "chain": ([1, 0, 0, 0], [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]),
    "two chains with exchange": (
        [1 / 2, 0, 1 / 2, 0],
        [[0, 1 / 2, 1 / 2, 0], [0, 0, 1, 0], [1 / 2, 0, 0, 1 / 2], [1, 0, 0, 0]],
    ),
}


def error_budget(procedure: str, scenario: str, steps: int | Sequence[int], delta: float = 0.1) -> Picture:
    """The graph of one of BUDGET_PROCEDURES after `steps` rejections, or one panel a step for a sequence of steps.

    >>> error_budget("chain", "A fails at once", 1).alt
    'chain, A fails at once: 0 of 4 certified. Panel 1: A 50 % 0.1, p = 0.3; A 80 % 0, p = 0.4; B 50 % 0, p = 0.03; \
B 80 % 0, p = 0.035.'
    """
    p = np.minimum(1, delta * np.array(BUDGET_SCENARIOS[scenario]))
    states = _flow(p, delta, *BUDGET_PROCEDURES[procedure])
    wanted = [steps] if isinstance(steps, int) else steps
    shown = [states[k] for k in dict.fromkeys(min(k, len(states) - 1) for k in wanted)]
    title = f"{procedure}, {scenario}: {len(states) - 1} of {len(p)} certified"
    return budget_graphs(shown, p, delta=delta, names=BUDGET_NAMES, places=BUDGET_PLACES, title=title)


def _flow(
    p: np.ndarray, delta: float, weights: ArrayLike, transitions: ArrayLike
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The states of a graphical procedure, the smallest p-value that may be rejected going first."""
    w, g = np.array(weights, dtype=float), np.array(transitions, dtype=float)
    states = [(w, g, np.zeros(len(w), dtype=bool))]
    while True:
        w, g, gone = states[-1]
        passed = ~gone & (w > 0) & (p <= w * delta * (1 + 1e-12))
        if not passed.any():
            return states
        j = int(np.argmin(np.where(passed, p, np.inf)))
        loop = g[:, j] * g[j]
        new = (g + np.outer(g[:, j], g[j])) / np.where(loop < 1, 1 - loop, np.inf)[:, None]
        gone = gone | (np.arange(len(w)) == j)
        new[gone], new[:, gone] = 0, 0
        np.fill_diagonal(new, 0)
        states.append((np.where(gone, 0, w + w[j] * g[j]), new, gone))


def _budget_graph(ax: Axes, state: Graph, p: np.ndarray, delta: float, names: Sequence[str], where: np.ndarray) -> str:
    """One graph on `ax`; returns what it shows in words."""
    weights, transitions = (np.asarray(part, dtype=float) for part in state[:2])
    rejected, radius, notes = np.asarray(state[2], dtype=bool), 0.48, []
    for (x, y), w, done, q, name in zip(where, weights, rejected, p, names, strict=True):
        ready = not done and w > 0 and q <= w * delta * (1 + 1e-12)
        sign = "≤" if ready else ">"
        face, line = (BLUE if done else "white"), (2.4 if ready else 0.8)
        ax.add_artist(Circle((x, y), radius, facecolor=face, edgecolor="none", zorder=3))
        ax.add_artist(Wedge((x, y), radius, 90 - 360 * w, 90, facecolor="#F3C98B", edgecolor="none", zorder=4))
        ax.add_artist(Circle((x, y), radius, fill=False, edgecolor="black", linewidth=line, zorder=5))
        text = f"{name}\ncertified" if done else f"{name}\n{w * delta:.3g}"
        ax.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if done else "black", zorder=6)
        up = y > where[:, 1].mean()  # p-values stand outside, where no arrow passes
        label = f"p = {q:.3g}" if done else f"p = {q:.3g} {sign} {w * delta:.3g}"
        spot: dict[str, Any] = {"ha": "center", "va": "bottom" if up else "top", "fontsize": 8}
        ax.text(x, y + (radius + 0.08) * (1 if up else -1), label, weight="bold" if ready else "normal", **spot)
        notes.append(f"{name} certified" if done else f"{name} {w * delta:.3g}, p = {q:.3g}")
    for j, k in np.argwhere(transitions > 0):
        _arrow(ax, where[j], where[k], radius, transitions[j, k])
    (left, low), (right, high) = where.min(axis=0), where.max(axis=0)
    ax.set(xlim=(left - 0.9, right + 0.9), ylim=(low - 0.85, high + 0.85), aspect="equal")
    return "; ".join(notes)


def _arrow(ax: Axes, sender: np.ndarray, receiver: np.ndarray, radius: float, share: float) -> None:
    """A curved arrow between two nodes with its fraction on it, nearer to the sender."""
    (x, y), bend, t = receiver - sender, 0.16, 0.28
    control = (sender + receiver) / 2 + bend * np.array([y, -x])
    start, end = (node + radius * (control - node) / np.hypot(*(control - node)) for node in (sender, receiver))
    curve = Path([start, control, end], [Path.MOVETO, Path.CURVE3, Path.CURVE3])
    ax.add_artist(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=11, color=GREY, linewidth=1.1, zorder=2))
    x, y = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
    box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    text = str(Fraction(share).limit_denominator(60))
    ax.text(x, y, text, ha="center", va="center", fontsize=8, bbox=box, zorder=2.5)
