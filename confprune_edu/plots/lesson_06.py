"""Figures of lesson 06, selective classification: pairs of a pruning ratio and a confidence threshold.

A grid of pairs is drawn as the tables (m, t) are written: a row a ratio, from gentle (above) to aggressive, a column a
threshold, from strict (left) to lenient.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from confprune_edu import pvalues
from confprune_edu.plots import picture as draw

_GRID: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest"}

# full colour: a small p-value; a large one lets the page through, light or dark
PALE_BLUES = ListedColormap([(0.13, 0.44, 0.71, strength) for strength in np.linspace(0.8, 0, 256)])


@draw.styled
def risk_coverage(coverage: draw.ByName, risk: draw.ByName, *, alpha: float, title: str = "") -> draw.Picture:
    """Mean loss among the answered examples against the share answered, (t,) by name; NaN risk: nothing answered.

    The right-hand end of a curve, hollow, is the network that answers everything.

    >>> risk_coverage({"full": [0.5, 1.0]}, {"full": [0.0, 0.2]}, alpha=0.1).alt
    'Risk among the answered against coverage. full: 0.2000 at coverage 100.0%, at most alpha = 0.1 up to 50.0%.'
    """
    picture, (ax,) = draw.blank(7, 3.6)
    notes, line = [], f"alpha = {alpha:.3g}"
    for (name, share), look in zip(coverage.items(), draw.looks(coverage), strict=True):
        x, y = np.asarray(share, dtype=float), np.asarray(risk[name], dtype=float)
        ax.plot(x, y, **look)
        ax.plot(x[-1], y[-1], "o", color=look["color"], markerfacecolor="white", clip_on=False, zorder=3)
        fine = x[y <= alpha]  # NaN, nothing answered, is not
        reach = f"at most {line} up to {fine.max():.1%}" if fine.size else f"above {line}"
        notes.append(f"{name}: {y[-1]:.4f} at coverage {x[-1]:.1%}, {reach}")
    draw.level(ax, alpha, line)
    ax.set(xlabel="coverage: share of the digits that it answers", ylabel="errors among the answered", title=title)
    ax.set(xlim=(0.5, 1), ylim=(0, min(5 * alpha, 1)))
    draw.percent(ax, "xy")
    ax.legend(loc="upper left")
    return draw.tell(picture, "Risk among the answered against coverage.", notes)


@draw.styled
def selective(
    result: Any, *, chosen: tuple[int, int] | None = None, start: float = 0.0, title: str = ""
) -> draw.Picture:
    """P-values (m, t) of pairs of ratio and threshold as a heat map (left), and what is certified (right).

    A certified coverage, `result.floor`, is a line. The title and the alternative text are about the whole grid.

    Parameters
    ----------
    result : a calibration of pairs
    chosen : (row, column), optional
        A pair to mark: positions of its ratio and its threshold.
    start : float
        Smallest ratio that is drawn.

    >>> from confprune_edu.selective import calibrate_losses
    >>> sure, wrong = np.full((90, 2), 0.8), np.repeat([[False, True]], 90, axis=0)
    >>> selective(calibrate_losses(sure, wrong, [0.5, 0.9], [0.7, 0.0], alpha=0.1, delta=0.1)).alt
    '2 of 4 pairs certified, ratios up to 0.5, coverage up to 100.0%. Heat map of the p-values, alpha = 0.1, with the
    certified pairs outlined; delta = 0.1 lets 2 pass if each is tested alone. Beside it the coverage.'
    """
    first = int(np.searchsorted(result.ratios, start))
    p, mask, share = result.p_values, result.rejected, result.coverage
    margins = {"left": 0.09, "right": 0.89, "top": 0.92, "bottom": 0.13, "wspace": 0.06, "width_ratios": [1.9, 1]}
    picture, (left, right) = draw.blank(7, 4, 1, 2, sharey=True, margins=margins)
    _pairs(left, p[first:], mask[first:], share[first:], result.delta)
    _reach(right, mask[first:], share[first:], result.floor)
    if chosen is not None and chosen[0] >= first:
        _ring(left, chosen[1], chosen[0] - first)
        _ring(right, share[chosen], chosen[0] - first)
    _index_axis(left, "x", result.thresholds, 6)
    _index_axis(left, "y", result.ratios[first:], 10)
    left.set(xlabel="threshold, strict to lenient", ylabel=getattr(result, "knob", None) or "pruning ratio")
    found = draw.capital(_found_pairs(mask, share, result.ratios))
    left.set_title(title or found)
    _colour_bar(picture.add_axes((0.91, 0.13, 0.02, 0.72)))
    return draw.tell(
        picture,
        f"{found}. Heat map of the p-values, alpha = {result.alpha:.3g}, with the certified pairs outlined; delta = "
        f"{result.delta:.3g} lets {(p <= result.delta).sum()} pass if each is tested alone. Beside it the coverage.",
    )


@draw.styled
def frontiers(ratios: ArrayLike, curves: draw.ByName, *, floor: float | None = None, title: str = "") -> draw.Picture:
    """Largest certified coverage (m,) by name against the pruning ratio; NaN: nothing is certified at this ratio.

    `floor` is a coverage that somebody asks for; the alternative text says how far each curve stays above it.

    >>> frontiers([0.5, 0.8], {"alpha = 0.01": [0.95, np.nan]}, floor=0.9).alt
    'Largest certified coverage against pruning ratio. alpha = 0.01: up to ratio 0.5, with coverage 90% up to 0.5.'
    """
    x, notes = np.asarray(ratios, dtype=float), []
    picture, (ax,) = draw.blank(7, 3.6)
    drawn = draw.lines(ax, x, curves, draw.MARKS, markersize=3.5)
    for name, y in drawn:
        found, high = x[np.isfinite(y)], x[y >= (floor or 0)]
        reach = f"up to ratio {found.max():g}" if found.size else "nothing certified"
        if floor is not None:
            reach += f", with coverage {floor:.0%} {f'up to {high.max():g}' if high.size else 'nowhere'}"
        notes.append(f"{name}: {reach}")
    if floor is not None:
        draw.level(ax, floor, f"coverage {floor:.0%}", va="top")
    lowest = min(1.0, *(np.nanmin(y, initial=1.0) for _, y in drawn))
    ends = [x[np.isfinite(y)].max(initial=x[0]) for _, y in drawn]
    ax.set_ylim(max(min(lowest, floor or 1) - 0.05, -0.02), 1.01)
    ax.set_xlim(max(x[0], min(ends) - 0.25) - 0.01, max(ends) + 0.02)  # before that little happens
    ax.set(ylabel="coverage: share answered", title=title)
    draw.ratio_axis(ax, 0)
    draw.percent(ax, "y", 0)
    ax.legend(loc="lower left")
    return draw.tell(picture, "Largest certified coverage against pruning ratio.", notes)


@draw.styled
def certified_regions(
    regions: draw.ByName, coverage: ArrayLike, ratios: ArrayLike, thresholds: ArrayLike, *, title: str = ""
) -> draw.Picture:
    """Certified pairs (m, t), filled, by procedure: a panel each; the dotted outline is that of the first one.

    >>> certified_regions({"rows": [[True, False]]}, [[0.5, 1.0]], [0.8], [0.9, 0.0]).alt
    'Certified pairs by procedure. rows: 1 of 2 pairs certified, ratios up to 0.8, coverage up to 50.0%.'
    """
    share, notes, k = np.asarray(coverage, dtype=float), [], len(regions)
    across = 2 if k > 1 else 1
    down = -(-k // across)
    picture, axes = draw.blank(7, min(0.8 + 1.6 * down, 4), down, across, sharex=True, sharey=True)
    first = np.asarray(next(iter(regions.values())), dtype=bool)
    for ax, (name, region) in zip(axes, regions.items(), strict=False):
        mask = np.asarray(region, dtype=bool)
        ax.imshow(mask, cmap=ListedColormap(["white", "#7FB5D8"]), vmin=0, vmax=1, **_GRID)
        _outline(ax, first, color="black", linewidth=1, linestyle=":")
        _index_axis(ax, "x", thresholds, 6)
        _index_axis(ax, "y", ratios, 5)
        ax.grid(False)
        most = np.asarray(ratios)[mask.any(axis=1)].max(initial=0)
        ax.set_title(f"{name}: {f'{mask.sum():,} pairs, up to {most:g}' if mask.any() else 'nothing'}", fontsize=10)
        notes.append(f"{name}: {_found_pairs(mask, share, ratios)}")
    for ax in axes[k:]:
        ax.set_axis_off()
    picture.supxlabel("threshold, strict to lenient", fontsize=10)
    picture.supylabel("pruning ratio", fontsize=10)
    draw.heading(picture, title)
    return draw.tell(picture, "Certified pairs by procedure.", notes)


@draw.styled
def routes(
    walks: Mapping[str, Sequence[Sequence[tuple[int, int]]]],
    starts: Mapping[str, Sequence[tuple[int, int]]],
    shape: tuple[int, int],
    title: str = "",
) -> draw.Picture:
    """How budget moves through a grid of pairs (m, t), a panel a procedure: arrows along walks, discs where it enters.

    >>> routes({"path": [[(0, 1), (1, 1)]]}, {"path": [(0, 1)]}, (2, 3)).alt
    'Where budget enters a grid of 2 rows (ratios) and 3 columns (thresholds), and where it goes. path: enters at
    (0, 1), arrows 0 to the right, 1 down, 0 elsewhere.'
    """
    (m, t), notes = shape, []
    picture, axes = draw.blank(7, 2.3, 1, len(walks), sharex=True, sharey=True)
    for ax, (name, ways) in zip(axes, walks.items(), strict=True):
        y, x = np.divmod(np.arange(m * t), t)
        ax.plot(x, y, "s", color="#DDDDDD", markersize=9)
        steps = [(np.array(a), np.array(b)) for way in ways for a, b in itertools.pairwise(way)]
        for a, b in steps:
            look = {"arrowstyle": "->", "color": draw.BLUE, "shrinkA": 3, "shrinkB": 3}
            ax.annotate("", xy=b[::-1], xytext=a[::-1], arrowprops=look)
        ax.plot(*np.transpose(starts[name])[::-1], "o", color="black", markersize=6)
        ax.set(title=name, xlim=(-0.7, t - 0.3), ylim=(m - 0.3, -0.7), xticks=[], yticks=[])
        ax.grid(False)
        enters = ", ".join(f"({j}, {k})" for j, k in starts[name])
        right, down = (sum((b - a).tolist() == step for a, b in steps) for step in ([0, 1], [1, 0]))
        told = f"{right} to the right, {down} down, {len(steps) - right - down} elsewhere"
        notes.append(f"{name}: enters at {enters}, arrows {told}")
    axes[0].set_ylabel("ratio: gentle (above)\nto aggressive")
    picture.supxlabel("threshold: strict (left) to lenient", fontsize=10)
    draw.heading(picture, title)
    about = f"Where budget enters a grid of {m} rows (ratios) and {t} columns (thresholds), and where it goes."
    return draw.tell(picture, about, notes)


@draw.styled
def mean_ratios(sizes: ArrayLike, results: draw.ByName, *, xlabel: str, title: str = "") -> draw.Picture:
    """Mean certified ratio by name over repetitions (k, trials), against `sizes` (k,); NaN, nothing, counts as 0.

    >>> mean_ratios([50, 100], {"rows": [[np.nan, np.nan], [0.8, np.nan]]}, xlabel="digits n").alt
    'Mean certified ratio, nothing certified counted as 0. rows: 0.000 at n = 50, 0.400 at n = 100.'
    """
    x, unit, notes = np.asarray(sizes, dtype=float), xlabel.split()[-1], []
    means = {name: np.nan_to_num(np.asarray(ratios, dtype=float)).mean(axis=1) for name, ratios in results.items()}
    picture, (ax,) = draw.blank(7, 3.4)
    for name, y in draw.lines(ax, x, means, draw.MARKS, markersize=6):
        told = (f"{value:.3f} at {unit} = {size:g}" for size, value in zip(x, y, strict=True))
        notes.append(f"{name}: {', '.join(told)}")
    ax.set(ylim=(-0.03, 1), ylabel="mean certified ratio (none: 0)", title=title)
    draw.size_axis(ax, x, xlabel, ",.0f")
    draw.percent(ax, "y")
    ax.legend(loc="lower right")
    return draw.tell(picture, "Mean certified ratio, nothing certified counted as 0.", notes)


@draw.styled
def rescue(result: Any, means: ArrayLike, *, start: float = 0.0, title: str = "") -> draw.Picture:
    """Mean losses of networks that answer everything, `means` (m,), and of certified ones that may abstain.

    Below, the coverage of the latter: at each ratio the certified pair that covers most, from the ratio `start` on.
    """
    x, whole, share = result.ratios, np.asarray(means, dtype=float), result.frontier
    widest = np.where(result.rejected, result.coverage, -1).argmax(axis=1)
    answers = np.where(np.isfinite(share), result.risk[np.arange(len(x)), widest], np.nan)
    shown, alpha = x >= start, result.alpha
    picture, (top, bottom) = draw.blank(7, 4, 2, sharex=True)
    for ax, y, colour, face, mark, label in (
        (top, whole, draw.COLOURS[1], "white", "s", "answers everything"),
        (top, answers, draw.BLUE, draw.BLUE, "o", "may abstain: certified"),
        (bottom, share, draw.BLUE, draw.BLUE, "o", ""),
    ):
        ax.plot(x[shown], y[shown], mark, color=colour, markerfacecolor=face, markersize=4, label=label)
    draw.level(top, alpha, f"alpha = {alpha:.3g}", at=0.99, ha="right")
    top.set(ylabel="errors / answers", ylim=(0, min(5 * alpha, 1.02)), title=title)
    top.legend(loc="upper left", fontsize=9)
    bottom.set(ylabel="coverage", ylim=(0, 1.04))
    draw.ratio_axis(bottom, 0)
    draw.percent(top, "y")
    draw.percent(bottom, "y", 0)
    found = np.isfinite(share)
    told = f"certified at {found.sum()} of {len(x)} ratios"
    if found.any():
        told += f", with a mean loss of at most {answers[found].max():.4f} and a coverage of "
        told += f"{share[found].min():.1%} to {share[found].max():.1%}"
    return draw.tell(
        picture,
        f"Mean loss against pruning ratio, alpha = {alpha:.3g}. Answering everything: at least {whole.min():.4f}. "
        f"May abstain: {told}.",
    )


@draw.styled
def selective_splits(result: Any) -> draw.Picture:
    """Chosen ratio and coverage (left) and the true selective risk (right) over repeated calibrations.

    Bars beyond alpha are hatched; risks beyond 2 alpha are counted in the last bar.
    """
    picture, (left, right) = draw.blank(7, 3.4, 1, 2)
    found = np.isfinite(result.ratio)
    _spots(left, result.ratio[found], result.coverage[found])
    draw.risk_bars(right, result.risk, result.risk > result.alpha + pvalues.ROUNDING, result.alpha)
    draw.level(right, result.alpha, f"alpha = {result.alpha:.3g}", axis="x")
    left.set(xlabel="chosen pruning ratio (area: how often)", ylabel="true coverage there")
    left.set_title(f"nothing certified: {result.abstained:.1%}", fontsize=10)
    right.set(xlabel="true selective risk of the chosen pair", ylabel="share of splits")
    broken = "beyond alpha" if result.floor is None else "alpha or floor broken"
    right.set_title(f"{broken}: {result.broken:.1%}, promised {result.delta:.0%}", fontsize=10)
    left.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    right.xaxis.set_major_locator(MaxNLocator(4))
    draw.percent(left, "xy", 1)
    draw.percent(right, "xy")
    middle = "nothing ever certified"
    if found.any():
        middle = f"median ratio {np.median(result.ratio[found]):g}, coverage {np.median(result.coverage[found]):.3f}"
    return draw.tell(
        picture,
        f"{len(found)} calibrations: {middle}; {broken}, "
        f"with alpha = {result.alpha:.3g}, in {result.broken:.1%} of them, delta allows {result.delta:.0%}.",
    )


@draw.styled
def by_class(
    panels: draw.ByName, names: Sequence[str], *, overall: Mapping[str, float], title: str = ""
) -> draw.Picture:
    """A share (k,) for each class, one panel of bars a quantity, with the share over all classes as a line.

    >>> by_class({"declined": [0.1, 0.3]}, ["0", "1"], overall={"declined": 0.2}).alt
    'By class. declined: 10.0% (0) to 30.0% (1), 20.0% over all.'
    """
    picture, axes = draw.blank(7, 3, 1, len(panels))
    notes = []
    for ax, (name, values) in zip(axes, panels.items(), strict=True):
        y = np.asarray(values, dtype=float)
        ax.bar(range(len(y)), y, color=draw.BLUE)
        draw.level(ax, overall[name])
        ax.set_xticks(range(len(y)), names)
        ax.set_title(f"{name}; all: {overall[name]:.1%} (dashed)", fontsize=10)
        ax.set_xlabel("class")
        ax.grid(False, axis="x")
        draw.percent(ax, "y")
        low, high = int(np.nanargmin(y)), int(np.nanargmax(y))
        ends = f"{y[low]:.1%} ({names[low]}) to {y[high]:.1%} ({names[high]})"
        notes.append(f"{name}: {ends}, {overall[name]:.1%} over all")
    draw.heading(picture, title)
    return draw.tell(picture, "By class.", notes)


def _pairs(ax: Axes, p: np.ndarray, mask: np.ndarray, share: np.ndarray, delta: float) -> None:
    """The heat map: p-values, grey where nothing is selected, and two outlines."""
    shade = np.log10(np.clip(p, draw.SMALLEST, 1))
    ax.imshow(shade, cmap=PALE_BLUES, vmin=-6, vmax=0, **_GRID)
    empty = np.where(share > 0, np.nan, 1.0)
    ax.imshow(empty, cmap=ListedColormap(["#BBBBBB"]), **_GRID)
    _outline(ax, p <= delta, color=draw.COLOURS[1], linewidth=1.2, linestyle="--")
    _outline(ax, mask, color="black", linewidth=1.8)
    key: list[Any] = [
        Line2D([], [], color="black", label="certified"),
        Line2D([], [], color=draw.COLOURS[1], linestyle="--", linewidth=1.2, label="p ≤ delta"),
    ]
    key += [Patch(facecolor="#BBBBBB", label="nothing answered")] if np.nansum(empty) else []
    ax.legend(handles=key, loc="upper right", fontsize=9, frameon=True, framealpha=0.9)
    ax.grid(False)


def _reach(ax: Axes, mask: np.ndarray, share: np.ndarray, floor: float | None) -> None:
    """The largest certified coverage of each ratio; a tick on the axis where no threshold is certified."""
    reach, y = np.where(mask, share, 0).max(axis=1), np.arange(len(mask))
    some = mask.any(axis=1)
    if some.any():
        ax.plot(reach[some], y[some], "o", color=draw.BLUE, markersize=3.5, label="largest certified")
    if not some.all():
        none = np.full((~some).sum(), -0.05)
        ax.plot(none, y[~some], "_", color=draw.COLOURS[1], markersize=7, label="nothing certified")
    if floor is not None:
        draw.level(ax, floor, f"floor {floor:g}", axis="x", at=0.02, ha="right", va="bottom", rotation=0)
    ax.set(xlim=(-0.1, 1.05), xlabel="coverage", xticks=[0, 0.5, 1])
    ax.tick_params(axis="y", length=0)
    draw.percent(ax, "x")
    ax.legend(loc="upper left", fontsize=8, handlelength=1, borderaxespad=0.2)


def _ring(ax: Axes, x: float, y: float) -> None:
    """A mark through which the marked is seen."""
    for width, colour in ((3.5, "white"), (1.5, "black")):
        ax.plot(x, y, "o", markersize=11, zorder=4, mfc="none", markeredgecolor=colour, markeredgewidth=width)


def _colour_bar(ax: Axes) -> None:
    ax.imshow(np.linspace(-6, 0, 64)[:, None], cmap=PALE_BLUES, aspect="auto", origin="lower", extent=(0, 1, -6, 0))
    ax.set(xticks=[], yticks=[-6, -4, -2, 0], yticklabels=["1e-6", "1e-4", "0.01", "1"])
    ax.yaxis.tick_right()
    ax.grid(False)
    ax.set_title("p", fontsize=9)


def _index_axis(ax: Axes, which: str, values: ArrayLike, ticks: int) -> None:
    """Labels for an axis of positions in a grid: its values at about so many of them, evenly spaced."""
    grid = np.asarray(values, dtype=float)
    step = next(size for size in (1, 2, 5, 10, 20, 50, len(grid)) if size * (ticks + 1) >= len(grid))
    at = np.arange(0, len(grid), step)
    (ax.set_xticks if which == "x" else ax.set_yticks)(at, [f"{grid[i]:.3g}" for i in at])


def _spots(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Points whose area is the number of times that a place, in steps of 0.01, occurs."""
    places, counts = np.unique(np.round(np.column_stack([x, y]), 2), axis=0, return_counts=True)
    size = 400 * counts / max(counts.sum(), 1) + 4
    ax.scatter(places[:, 0], places[:, 1], s=size, color=draw.BLUE, alpha=0.7, linewidth=0)


def _found_pairs(mask: np.ndarray, share: np.ndarray, ratios: ArrayLike) -> str:
    if not mask.any():
        return "nothing certified"
    best = np.asarray(ratios, dtype=float)[mask.any(axis=1)].max()
    most = share[mask].max()
    return f"{mask.sum():,} of {mask.size:,} pairs certified, ratios up to {best:g}, coverage up to {most:.1%}"


def _outline(ax: Axes, mask: np.ndarray, **look: Any) -> None:
    """Lines around the True cells of a mask (m, t) that is drawn a row a ratio, a column a threshold."""
    padded = np.pad(mask.T, 1)
    i, k = np.nonzero(padded[1:] != padded[:-1])  # between rows: a vertical line
    edges = [((x - 0.5, y - 1.5), (x - 0.5, y - 0.5)) for x, y in zip(i, k, strict=True)]
    i, k = np.nonzero(padded[:, 1:] != padded[:, :-1])
    edges += [((x - 1.5, y - 0.5), (x - 0.5, y - 0.5)) for x, y in zip(i, k, strict=True)]
    ax.add_collection(LineCollection(edges, **look))
