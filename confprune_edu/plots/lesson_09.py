"""Figures of lesson 09, sensitivity: margins, reading a ratio off a risk curve, networks side by side, predictions."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from confprune_edu.plots import picture as draw


@draw.styled
def margins(
    deltas: ArrayLike, exact: draw.ByName, formula: draw.ByName, *, alpha: float, title: str = ""
) -> draw.Picture:
    """The mean loss (k,) that is still certified, by name against delta: exact as points, by formula as a line.

    NaN: nothing is certified, however few the failures.

    >>> margins([0.01, 0.1], {"n = 100": [np.nan, 0.02]}, {"n = 100": [0.001, 0.015]}, alpha=0.05).alt
    'Largest mean loss that is certified, alpha = 0.05. N = 100: 0.0200 at delta 0.1 (formula 0.0150); none at 0.01.'
    """
    x, notes = np.asarray(deltas, dtype=float), []
    picture, (ax,) = draw.blank(7, 3.6)
    for (name, values), look in zip(exact.items(), draw.looks(exact), strict=True):
        y, line = np.asarray(values, dtype=float), np.asarray(formula[name], dtype=float)
        ax.plot(x, np.where(line > 0, line, np.nan), color=look["color"], linestyle="--", linewidth=1.2)
        ax.plot(x, y, "o", markersize=4, color=look["color"], label=name)
        found = np.flatnonzero(np.isfinite(y))
        none = ", ".join(f"{d:g}" for d in x[np.isnan(y)])
        told = f"{y[found[-1]]:.4f} at delta {x[found[-1]]:g} (formula {line[found[-1]]:.4f})" if found.size else ""
        notes.append(f"{name}: {told}" + (f"; none at {none}" if none else ""))
    draw.level(ax, alpha, f"alpha = {alpha:.3g}")
    ax.set(xscale="log", ylim=(0, 1.1 * alpha), xlabel="delta", ylabel="mean loss still certified", title=title)
    draw.size_axis(ax, x, "delta")
    ax.plot([], [], "--", color=draw.GREY, linewidth=1.2, label="formula")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 0.04), ncols=2, fontsize=9)
    about = f"Largest mean loss that is certified, alpha = {alpha:.3g}."
    return draw.tell(picture, about, [draw.capital(notes[0]), *notes[1:]])


@draw.styled
def read_off(
    ratios: ArrayLike, risks: ArrayLike, levels: Mapping[str, tuple[float, float]], *, title: str = ""
) -> draw.Picture:
    """A risk curve (m,), and for each name a level of it with the ratio where the curve gets there.

    >>> read_off([0.0, 0.5, 0.9], [0.0, 0.1, 0.4], {"alpha = 0.1": (0.08, 0.4)}).alt
    'A risk curve read backwards. Alpha = 0.1: a mean loss of 0.0800 is reached at ratio 0.40.'
    """
    x, y, notes = np.asarray(ratios, dtype=float), np.asarray(risks, dtype=float), []
    picture, (ax,) = draw.blank(7, 3.4)
    ax.plot(x, y, color=draw.COLOURS[5], label="risk")
    places = [place for _, place in levels.values()]
    left, right = max(min(places) - 0.15, 0), min(max(places) + 0.1, 1)
    for (name, (level, place)), look in zip(levels.items(), draw.looks(levels), strict=True):
        ax.plot([left, place, place], [level, level, 0], linewidth=1.4, **look)
        notes.append(f"{name}: a mean loss of {level:.4f} is reached at ratio {place:.2f}")
    highest = max(level for level, _ in levels.values())
    ax.set(xlim=(left, right), ylim=(0, max(1.25 * highest, 1e-3)), ylabel="mean loss", title=title)
    draw.ratio_axis(ax, 0)
    draw.percent(ax, "y")
    ax.legend(loc="lower right", fontsize=9)
    return draw.tell(picture, "A risk curve read backwards.", [draw.capital(notes[0]), *notes[1:]])


@draw.styled
def by_setting(
    settings: Mapping[str, ArrayLike], columns: Mapping[str, Mapping[str, draw.ByName]], *, title: str = ""
) -> draw.Picture:
    """Certified ratios by network against each of the `settings`: a column of panels a sample size, a row a setting.

    `columns` maps a column's name to, by the name of a setting, the curves (k,) of the networks.

    >>> by_setting({"alpha": [0.01, 0.1]}, {"n = 100": {"alpha": {"MLP": [0.2, 0.9]}}}).alt
    'Mean certified ratio. n = 100: MLP from 0.20 at alpha 0.01 to 0.90 at 0.1.'
    """
    picture, axes = draw.blank(7, 1 + 2.1 * len(settings), len(settings), len(columns), sharey=True, sharex="row")
    grid, notes = axes.reshape(len(settings), len(columns)), []
    for column, (name, panels) in zip(grid.T, columns.items(), strict=True):
        told = []
        for ax, (setting, values) in zip(column, settings.items(), strict=True):
            x = np.asarray(values, dtype=float)
            for network, y in draw.lines(ax, x, panels[setting], draw.MARKS, markersize=3, linewidth=1.2):
                told.append(f"{network} from {y[0]:.2f} at {setting} {x[0]:g} to {y[-1]:.2f} at {x[-1]:g}")
            ax.set(xscale="log", ylim=(-0.03, 1), xlabel=setting)
            ax.minorticks_off()
            ax.set_xticks(x[[0, len(x) // 2, -1]], [f"{v:g}" for v in x[[0, len(x) // 2, -1]]])
            draw.percent(ax, "y", 0)
        column[0].set_title(name)
        notes.append(f"{name}: {', '.join(told)}")
    for ax in grid[:, 0]:
        ax.set_ylabel("certified ratio")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    in_a_row = 4 if max(map(len, labels)) < 20 else 2
    picture.legend(handles, labels, loc="outside lower center", ncols=in_a_row, fontsize=9)
    draw.heading(picture, title)
    return draw.tell(picture, "Mean certified ratio.", notes)


@draw.styled
def predictions(predicted: draw.ByName, measured: draw.ByName, *, within: float, title: str = "") -> draw.Picture:
    """Predicted against measured costs of networks, two for each name: of half of alpha (filled), of a tenth of delta.

    Costs below 0.0001 are drawn there.

    >>> predictions({"MLP": [0.04, 0.01]}, {"MLP": [0.05, 0.01]}, within=0.25).alt
    'Predicted and measured cost. MLP: half of alpha 0.0400 and 0.0500, a tenth of delta 0.0100 and 0.0100.'
    """
    shown = {name: np.maximum(np.array([predicted[name], measured[name]], dtype=float), 1e-4) for name in predicted}
    every, notes = np.array(list(shown.values())), []
    ends = np.array([every.min() / 1.6, every.max() * 1.6])
    picture, (ax,) = draw.blank(7, 4)
    ax.plot(ends, ends, color=draw.GREY, linewidth=1)
    ax.fill_between(ends, (1 - within) * ends, (1 + within) * ends, color="#E6E6E6", label=f"within {within:.0%}")
    for (name, (guess, found)), look in zip(shown.items(), draw.looks(predicted, draw.MARKS), strict=True):
        spot = {"marker": look["marker"], "color": look["color"], "linestyle": "", "markersize": 7}
        ax.plot(found[0], guess[0], label=name, **spot)
        ax.plot(found[1], guess[1], markerfacecolor="white", **spot)
        (a, d), (alpha, delta) = np.asarray(predicted[name], dtype=float), np.asarray(measured[name], dtype=float)
        notes.append(f"{name}: half of alpha {a:.4f} and {alpha:.4f}, a tenth of delta {d:.4f} and {delta:.4f}")
    for face, label in ((draw.GREY, "filled: half of alpha"), ("white", "hollow: a tenth of delta")):
        ax.plot([], [], "o", color=draw.GREY, markerfacecolor=face, label=label)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, ylabel="predicted cost", title=title)
    ticks = [tick for tick in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3) if ends[0] < tick < ends[1]]
    draw.plain_log(ax, ticks)
    draw.size_axis(ax, np.array(ticks), "measured cost, as a difference of ratios")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    return draw.tell(picture, "Predicted and measured cost.", notes)


@draw.styled
def by_ratio(ratios: ArrayLike, curves: draw.ByName, *, ylabel: str, at: float, title: str = "") -> draw.Picture:
    """Shares (m,) by name against the pruning ratio; the alternative text tells those nearest to the ratio `at`.

    >>> by_ratio([0.0, 0.5], {"MLP": [0.0, 0.02]}, ylabel="share of the squares", at=0.5).alt
    'Share of the squares against pruning ratio. At 0.5: MLP 0.020.'
    """
    x, notes = np.asarray(ratios, dtype=float), []
    picture, (ax,) = draw.blank(7, 3.6)
    for name, y in draw.lines(ax, x, curves):
        notes.append(f"{name} {y[np.argmin(abs(x - at))]:.3f}")
    ax.set(ylabel=ylabel, title=title)
    draw.ratio_axis(ax, 0)
    draw.percent(ax, "y", 0)
    ax.legend(loc="upper left", fontsize=9)
    return draw.tell(picture, f"{draw.capital(ylabel)} against pruning ratio. At {at:g}: {', '.join(notes)}.")


@draw.styled
def sensitivity(
    alphas: ArrayLike, curves: draw.ByName, *, alpha: float, delta: float, gains: Mapping[str, float], ratio: float
) -> draw.Picture:
    """The ratio to expect (k,) against alpha, a curve for each delta by name, with what moves it at `alpha`.

    `ratio` was certified on recorded examples; `gains` are changes of the ratio to expect, by what is changed.

    >>> sensitivity([0.01, 0.1], {"delta": [0.2, 0.6]}, alpha=0.05, delta=0.1, gains={"2 alpha": 0.1}, ratio=0.5).alt
    'alpha = 0.05, delta = 0.1: ratio 0.50 certified; 2 alpha: +0.100.'
    """
    x = np.asarray(alphas, dtype=float)
    picture, (ax,) = draw.blank(7, 3.6, margins={"left": 0.12, "right": 0.97, "bottom": 0.17, "top": 0.88})
    draw.lines(ax, x, curves)
    draw.level(ax, alpha, f"alpha = {alpha:.3g}", axis="x", at=0.25)
    ax.plot(alpha, ratio, "o", color=draw.COLOURS[5], markersize=8, label="certified on recorded examples")
    ax.set(xscale="log", xlim=(x[0], x[-1]), ylim=(-0.02, 1), xlabel="tolerated risk alpha", ylabel="ratio to expect")
    draw.size_axis(ax, np.array([v for v in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if x[0] <= v <= x[-1]]), "alpha")
    draw.percent(ax, "y", 0)
    finding = "; ".join(f"{name}: {gain:+.3f}" for name, gain in gains.items())
    ax.set_title(f"Ratio {ratio:.2f} certified; {finding}")
    ax.legend(loc="upper left", fontsize=9)
    return draw.tell(picture, f"alpha = {alpha:.3g}, delta = {delta:.3g}: ratio {ratio:.2f} certified; {finding}.")
