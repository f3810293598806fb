"""Figures of lesson 03, many tests with one budget: how often luck certifies, Holm's stairs, the budget as a graph."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, Wedge
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from confprune_edu import fwer
from confprune_edu.plots import picture as draw


@draw.styled
def lucky_models(means: ArrayLike, certified: ArrayLike, *, alpha: float, risk: float, n: int) -> draw.Picture:
    """Calibration means (m,) of models that all have the same risk above alpha: certified filled, others hollow.

    >>> lucky_models([0.08, 0.12], [True, False], alpha=0.1, risk=0.101, n=500).alt
    'Mean losses of 2 models on n = 500 examples each, all with risk 0.101, above alpha = 0.1: 1 of them is certified.'
    """
    y, lucky = np.asarray(means, dtype=float), np.asarray(certified, dtype=bool)
    verb = "is" if lucky.sum() == 1 else "are"
    picture, (ax,) = draw.blank(7, 3)
    draw.filled(ax, np.arange(1, len(y) + 1), y, lucky, ("certified (falsely)", "not certified"))
    draw.level(ax, alpha, f"alpha = {alpha:.3g}", at=1.01, va="top")
    ax.axhline(risk, color=draw.COLOURS[1], linewidth=1.2)
    beside = {"xycoords": ("axes fraction", "data"), "va": "bottom", "color": draw.COLOURS[1], "fontsize": 9}
    ax.annotate(f"risk of every model = {risk:g}", (1.01, risk), **beside)
    ax.set(xlabel="model", ylabel=f"mean loss, n = {n} each", xlim=(0, len(y) + 1))
    low, high = min(y.min(), alpha), max(y.max(), risk)
    ax.set_ylim(max(low - 0.08 * (high - low), -0.04 * high), min(high + 0.08 * (high - low), 1.02))
    false = ", and every certificate is false" if lucky.any() else ""
    ax.set_title(f"{lucky.sum()} of {len(y)} models {verb} certified{false}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    draw.percent(ax, "y")
    below = risk > np.dot(ax.get_ylim(), (0.3, 0.7))  # the legend keeps away from the names on the lines
    ax.legend(loc="lower left" if below else "upper left", bbox_to_anchor=(1, 0 if below else 1), fontsize=9)
    return draw.tell(
        picture,
        f"Mean losses of {len(y)} models on n = {n} examples each, all with risk {risk:g}, above alpha = {alpha:.3g}: "
        f"{lucky.sum()} of them {verb} certified.",
    )


@draw.styled
def chance_of_any(
    sizes: ArrayLike, curves: draw.ByName, *, delta: float, seen: tuple[int, int, int], title: str = ""
) -> draw.Picture:
    """Chance (sizes,) of at least one false certificate, by name, against the number of models.

    `seen` is (models, errors, trials) of a simulation, drawn as a point with its exact 95 % binomial interval.

    >>> chance_of_any([1, 40], {"no correction": [0.1, 0.985]}, delta=0.1, seen=(40, 984, 1000)).alt
    'Chance of any false certificate, delta = 0.1. At 40 models: no correction 0.985; simulated 0.984 in 1000 trials.'
    """
    picture, (ax,) = draw.blank(7, 3.6)
    drawn = draw.lines(ax, sizes, curves)
    m, errors, trials = seen
    rate, bars = draw.rate_with_bars(np.array([errors]), trials)
    ax.errorbar([m], rate, bars, fmt="o", color="black", capsize=4, label=f"simulated, {trials:,} trials")
    draw.level(ax, delta, f"delta = {delta:.3g}", at=0.99, ha="right")
    ax.set(xlabel="number of models tested, m", ylabel="P[any false certificate]", ylim=(-0.02, 1.04), title=title)
    draw.percent(ax, "y")
    ax.legend(loc="center right", fontsize=9)
    at = ", ".join(f"{name} {np.interp(m, np.asarray(sizes), y):.3f}" for name, y in drawn)
    return draw.tell(
        picture,
        f"Chance of any false certificate, delta = {delta:.3g}. At {m} models: {at}; simulated {rate[0]:.3f} "
        f"in {trials} trials.",
    )


@draw.styled
def holm_stairs(p_values: ArrayLike, *, delta: float) -> draw.Picture:
    """Sorted p-values (m,) under the levels of Bonferroni, flat, and Holm, a staircase: certified by Holm filled.

    >>> holm_stairs([0.01, 0.03, 0.045, 0.5], delta=0.1).alt
    'Sorted p-values, m = 4, delta = 0.1: 1 is at most delta / m, the level of Bonferroni; Holm certifies 3.'
    """
    p = np.sort(np.asarray(p_values, dtype=float))
    m, rank = len(p), np.arange(1, len(p) + 1)
    levels = delta / (m - rank + 1)
    passed, flat = np.logical_and.accumulate(p <= levels), int(np.sum(p <= delta / m))
    picture, (ax,) = draw.blank(7, 3.4)
    ax.step(rank, levels, where="mid", color=draw.COLOURS[2], linestyle="-", label="Holm: delta / (m - i + 1)")
    ax.axhline(delta / m, color=draw.COLOURS[1], linestyle="-.", label="Bonferroni: delta / m")
    draw.filled(ax, rank, np.maximum(p, draw.SMALLEST), passed, ("certified by Holm", "not certified"))
    draw.level(ax, delta, f"delta = {delta:.3g}")
    draw.p_value_axis(ax)
    ax.set_xlabel(f"rank i of the p-value among m = {m}")
    ax.set_title(f"Bonferroni certifies {flat}, Holm climbs the stairs and certifies {passed.sum()}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower right", fontsize=9)
    return draw.tell(
        picture,
        f"Sorted p-values, m = {m}, delta = {delta:.3g}: {flat} {'is' if flat == 1 else 'are'} at most delta / m, "
        f"the level of Bonferroni; Holm certifies {passed.sum()}.",
    )


@draw.styled
def family_wise_errors(
    panels: Mapping[str, draw.ByName], kinds: Sequence[str], *, trials: int, delta: float, title: str = ""
) -> draw.Picture:
    """Family-wise error rates with exact 95 % binomial intervals: a panel a scenario, a mark a procedure.

    `panels[scenario][procedure]` counts the trials with any false certificate under each kind of dependence, (kinds,).

    >>> family_wise_errors({"all bad": {"holm": [9]}}, ["independent"], trials=100, delta=0.1).alt
    'Family-wise error rate in 100 trials, delta = 0.1. all bad: holm 0.090 independent.'
    """
    picture, axes = draw.blank(7, 3.8, 1, len(panels), sharey=True)
    plain, notes = [kind.replace("\n", " ") for kind in kinds], []
    for ax, (scenario, procedures) in zip(axes, panels.items(), strict=True):
        for i, look in enumerate(draw.looks(procedures, draw.MARKS)):
            name, x = look["label"], np.arange(len(kinds)) + 0.2 * (i - (len(procedures) - 1) / 2)
            rate, bars = draw.rate_with_bars(np.asarray(procedures[name]), trials)
            ax.errorbar(x, rate, bars, capsize=4, linewidth=1.2, **(look | {"linestyle": "none"}))
            shown = ", ".join(f"{value:.3f} {kind}" for value, kind in zip(rate, plain, strict=True))
            notes.append(f"{scenario}: {name} {shown}")
        draw.level(ax, delta, f"delta = {delta:.3g}" if ax is axes[-1] else "", at=0.99, ha="right")
        ax.set_xticks(range(len(kinds)), kinds)
        ax.set_yscale("symlog", linthresh=0.01, linscale=0.6)
        ax.set(ylim=(0, 1.5), xlim=(-0.5, len(kinds) - 0.5))
        ax.set_yticks([0, 0.01, 0.1, 1], ["0%", "1%", "10%", "100%"])
        ax.set_title(scenario, fontsize=10)
    axes[0].set_ylabel(f"FWER in {trials:,} trials (log scale above 1 %)")
    axes[0].legend(loc="lower left", fontsize=9)
    draw.heading(picture, title)
    return draw.tell(picture, f"Family-wise error rate in {trials} trials, delta = {delta:.3g}.", notes)


@draw.styled
def ratio_against_m(sizes: ArrayLike, curves: draw.ByName, *, ceiling: float, n: int, title: str = "") -> draw.Picture:
    """Mean certified ratio (sizes,) by procedure against the number of candidates, on a logarithmic axis.

    >>> ratio_against_m([10, 100], {"bonferroni": [0.8, 0.78]}, ceiling=0.87, n=500).alt
    'Mean certified ratio against m, n = 500, largest safe ratio 0.870. bonferroni: 0.800 at m = 10, 0.780 at m = 100.'
    """
    x = np.asarray(sizes)
    picture, (ax,) = draw.blank(7, 3.6)
    drawn = draw.lines(ax, x, curves, draw.MARKS, markersize=5)
    draw.level(ax, ceiling, "largest safe ratio")
    ax.set(xscale="log", ylabel=f"mean certified ratio, n = {n}", title=title)
    draw.size_axis(ax, x, "candidates tested, m (log scale)")
    draw.percent(ax, "y")
    ax.legend(fontsize=9)
    notes = [f"{name}: {y[0]:.3f} at m = {x[0]}, {y[-1]:.3f} at m = {x[-1]}" for name, y in drawn]
    return draw.tell(picture, f"Mean certified ratio against m, n = {n}, largest safe ratio {ceiling:.3f}.", notes)


Graph = tuple[ArrayLike, ArrayLike, ArrayLike]  # weights (m,), transitions (m, m), rejected (m,)
RADIUS = 0.48  # of a node


@draw.styled
def budget_graphs(
    states: Sequence[Graph],
    p_values: ArrayLike,
    *,
    delta: float,
    names: Sequence[str],
    places: ArrayLike | None = None,
    title: str = "",
) -> draw.Picture:
    """Hypotheses as nodes whose filled share is their part of delta, transitions as arrows; one panel a state.

    A state is (weights (m,), transitions (m, m), rejected (m,)), `places` are coordinates (m, 2), a circle by default.

    >>> budget_graphs([([1, 0], [[0, 1], [0, 0]], [False, False])], [0.04, 0.2], delta=0.1, names=["H1", "H2"]).alt
    'Budgets. Panel 1: H1 0.1, p = 0.04; H2 0, p = 0.2.'
    """
    m, k = len(names), len(states)
    turn = np.pi / 2 - 2 * np.pi * np.arange(m) / m
    where = 1.25 * np.column_stack([np.cos(turn), np.sin(turn)]) if places is None else np.asarray(places, dtype=float)
    margins = {"left": 0, "right": 1, "bottom": 0, "top": 0.85, "wspace": 0.02}
    picture, axes = draw.blank(*((5, 4) if k == 1 else (7, 3)), 1, k, margins=margins)
    notes, p = [], np.asarray(p_values, dtype=float)
    for i, (ax, state) in enumerate(zip(axes, states, strict=True)):
        notes.append(f"Panel {i + 1}: {_budget_graph(ax, state, p, delta, names, where)}.")
        done = int(np.sum(state[2]))
        when = {0: "before any rejection", 1: "after 1 rejection"}.get(done, f"after {done} rejections")
        ax.set_title(when, fontsize=10, loc="center")
        ax.set_axis_off()
    picture.suptitle(title, fontsize=11, x=0.02, y=0.99, ha="left")
    return draw.tell(picture, (title or "Budgets") + ". " + " ".join(notes))


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


def error_budget(procedure: str, scenario: str, steps: int | Sequence[int], delta: float = 0.1) -> draw.Picture:
    """The graph of one of BUDGET_PROCEDURES after `steps` rejections, or one panel a step for a sequence of steps.

    >>> error_budget("chain", "A fails at once", 1).alt
    'chain, A fails at once: 0 of 4 certified. Panel 1: A 50 % 0.1, p = 0.3; A 80 % 0, p = 0.4; B 50 % 0, p = 0.03; \
B 80 % 0, p = 0.035.'
    """
    p = np.minimum(1, delta * np.array(BUDGET_SCENARIOS[scenario]))
    states = budget_states(p, delta, *BUDGET_PROCEDURES[procedure])
    wanted = [steps] if isinstance(steps, int) else steps
    shown = [states[k] for k in dict.fromkeys(min(k, len(states) - 1) for k in wanted)]
    title = f"{procedure}, {scenario}: {len(states) - 1} of {len(p)} certified"
    return budget_graphs(shown, p, delta=delta, names=BUDGET_NAMES, places=BUDGET_PLACES, title=title)


def budget_states(p: np.ndarray, delta: float, weights: ArrayLike, transitions: ArrayLike) -> list[Graph]:
    """The states of a graphical procedure from its start on; of all that may be rejected, the smallest p-value goes."""
    m = len(p)
    states: list[Any] = [(np.asarray(weights), np.asarray(transitions), np.zeros(m, dtype=bool))]
    while True:
        w, g, gone = states[-1]
        passed = ~gone & _ready(w, p, delta)
        if not passed.any():
            return states
        j = int(np.argmin(np.where(passed, p, np.inf)))
        states.append((*fwer.graph_step(w, g, j), gone | (np.arange(m) == j)))


def _ready(weights: np.ndarray, p: np.ndarray, delta: float) -> np.ndarray:
    """Whether the budget of a hypothesis is enough to reject it."""
    return (weights > 0) & (p <= weights * delta * (1 + 1e-12))


def _budget_graph(ax: Axes, state: Graph, p: np.ndarray, delta: float, names: Sequence[str], where: np.ndarray) -> str:
    """One graph on `ax`; returns what it shows in words."""
    weights, transitions = (np.asarray(part, dtype=float) for part in state[:2])
    rejected, notes = np.asarray(state[2], dtype=bool), []
    ready, above = ~rejected & _ready(weights, p, delta), where[:, 1] > where[:, 1].mean()
    for i, name in enumerate(names):
        budget = f"{weights[i] * delta:.3g}"
        _node(ax, where[i], weights[i], f"{name}\n{'certified' if rejected[i] else budget}", rejected[i], ready[i])
        label = f"p = {p[i]:.3g}" if rejected[i] else f"p = {p[i]:.3g} {'≤' if ready[i] else '>'} {budget}"
        y = where[i, 1] + (RADIUS + 0.08) * (1 if above[i] else -1)  # outside of the graph, where no arrow passes
        look: dict[str, Any] = {"va": "bottom" if above[i] else "top", "weight": "bold" if ready[i] else "normal"}
        ax.text(where[i, 0], y, label, ha="center", fontsize=8, **look)
        notes.append(f"{name} certified" if rejected[i] else f"{name} {budget}, p = {p[i]:.3g}")
    for j, k in np.argwhere(transitions > 0):
        _arrow(ax, where[j], where[k], transitions[j, k])
    (left, low), (right, high) = where.min(axis=0), where.max(axis=0)
    ax.set(xlim=(left - 0.9, right + 0.9), ylim=(low - 0.85, high + 0.85), aspect="equal")
    return "; ".join(notes)


def _node(ax: Axes, centre: Any, weight: float, text: str, done: bool, ready: bool) -> None:
    """A disc with its share of delta as a sector: blue once it is certified, with a heavy rim if it may be next."""
    face, ink = (draw.BLUE, "white") if done else ("white", "black")
    ax.add_artist(Circle(centre, RADIUS, facecolor=face, edgecolor="none", zorder=3))
    ax.add_artist(Wedge(centre, RADIUS, 90 - 360 * weight, 90, facecolor="#E69F0080", edgecolor="none", zorder=4))
    ax.add_artist(Circle(centre, RADIUS, fill=False, edgecolor="black", linewidth=2.4 if ready else 0.8, zorder=5))
    ax.text(centre[0], centre[1], text, ha="center", va="center", fontsize=8, color=ink, zorder=6)


def _arrow(ax: Axes, sender: np.ndarray, receiver: np.ndarray, share: float) -> None:
    """A curved arrow between two nodes with its fraction on it, nearer to the sender."""
    (x, y), bend, t = receiver - sender, 0.16, 0.28
    control = (sender + receiver) / 2 + bend * np.array([y, -x])
    start, end = (node + RADIUS * (control - node) / np.hypot(*(control - node)) for node in (sender, receiver))
    curve = Path([start, control, end], [Path.MOVETO, Path.CURVE3, Path.CURVE3])
    look: dict[str, Any] = {"color": draw.GREY, "linewidth": 1.1, "zorder": 2}
    ax.add_artist(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=11, **look))
    x, y = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
    box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    text = str(Fraction(share).limit_denominator(60))
    ax.text(x, y, text, ha="center", va="center", fontsize=8, bbox=box, zorder=2.5)
