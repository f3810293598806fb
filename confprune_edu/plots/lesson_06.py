"""Figures of lesson 06."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from confprune_edu import pvalues
from confprune_edu.plots.picture import (
    BLUE,
    COLOURS,
    GREY,
    LINES,
    SMALLEST,
    UNDER,
    Picture,
    _limit,
    _picture,
    _styled,
    index_axis,
    percent,
    spots,
    tell,
)

# Lesson 06

_GRID: dict[str, Any] = {"aspect": "auto", "origin": "lower", "interpolation": "nearest"}

PALE_BLUES = ListedColormap(mpl.colormaps["Blues"](np.linspace(0.65, 0, 256)))  # dark: a small p-value


@_styled
def risk_coverage(
    coverage: Mapping[str, ArrayLike], risk: Mapping[str, ArrayLike], *, alpha: float, title: str = ""
) -> Picture:
    """Mean loss among the answered examples against the share answered, (t,) by name; NaN risk: nothing answered.

    The right-hand end of a curve, hollow, is the network that answers everything.

    >>> risk_coverage({"full": [0.5, 1.0]}, {"full": [0.0, 0.2]}, alpha=0.1).alt
    'Risk among the answered against coverage. full: 0.2000 at coverage 100.0%, at most alpha = 0.1 up to 50.0%.'
    """
    picture, ax = _picture(7, 3.6)
    notes = []
    for (name, share), colour, line in zip(coverage.items(), COLOURS, LINES, strict=False):
        x, y = np.asarray(share, dtype=float), np.asarray(risk[name], dtype=float)
        ax.plot(x, y, color=colour, linestyle=line, label=name)
        ax.plot(x[-1], y[-1], "o", color=colour, markerfacecolor="white", clip_on=False, zorder=3)
        fine = x[np.nan_to_num(y, nan=np.inf) <= alpha]
        reach = f"at most alpha = {alpha:.3g} up to {fine.max():.1%}" if fine.size else f"above alpha = {alpha:.3g}"
        notes.append(f"{name}: {y[-1]:.4f} at coverage {x[-1]:.1%}, {reach}")
    _limit(ax, alpha, f"alpha = {alpha:.3g}", axis="y")
    ax.set(xlabel="coverage: share of the digits that it answers", ylabel="errors among the answered", title=title)
    ax.set_xlim(0.5, 1.0)
    ax.set_ylim(0, min(5 * alpha, 1))
    percent(ax, "xy")
    ax.legend(loc="upper left")
    return tell(picture, f"Risk among the answered against coverage. {'; '.join(notes)}.")


@_styled
def selective(
    p_values: ArrayLike,
    rejected: ArrayLike,
    coverage: ArrayLike,
    ratios: ArrayLike,
    thresholds: ArrayLike,
    *,
    alpha: float,
    delta: float,
    floor: float | None = None,
    chosen: tuple[int, int] | None = None,
    start: float = 0.0,
    title: str = "",
) -> Picture:
    """P-values (m, t) of pairs of ratio and threshold as a heat map (below), and what is certified (above).

    Parameters
    ----------
    p_values, rejected, coverage : arrays, shape (m, t)
        A row a ratio, a column a threshold, from strict to lenient; `coverage` is 0 where nothing is selected.
    ratios, thresholds : float arrays, shapes (m,) and (t,)
    alpha, delta : float
    floor : float, optional
        Coverage that was certified, too: drawn as a line.
    chosen : (row, column), optional
        A pair to mark.
    start : float
        Smallest ratio that is drawn; the title and the alternative text are about the whole grid.

    >>> p = [[0.01, 0.3], [0.2, 1.0]]
    >>> selective(p, np.less(p, 0.05), [[0.8, 1], [0, 0.9]], [0.5, 0.9], [0.9, 0], alpha=0.01, delta=0.1).alt
    '1 of 4 pairs certified, ratios up to 0.5, coverage up to 80.0%. Heat map of the p-values, alpha = 0.01, with the
    certified pairs outlined; delta = 0.1 lets 1 pass if each is tested alone. Above it the coverage.'
    """
    p, mask, share = np.asarray(p_values, dtype=float), np.asarray(rejected, dtype=bool), np.asarray(coverage)
    first = int(np.searchsorted(np.asarray(ratios), start))
    picture = Picture(figsize=(7, 4))  # fixed margins: a control redraws fast, and nothing moves
    grid = {"left": 0.1, "right": 0.86, "top": 0.92, "bottom": 0.12, "hspace": 0.1, "height_ratios": [1, 1.7]}
    top, bottom = picture.subplots(2, 1, sharex=True, gridspec_kw=grid)
    _pairs(bottom, p[first:], mask[first:], share[first:], delta)
    _reach(top, mask[first:], share[first:], floor)
    if chosen is not None and chosen[0] >= first:
        for ax, height in ((top, share[chosen]), (bottom, chosen[1])):  # rings: what they mark is seen through them
            for width, colour in ((3.5, "white"), (1.5, "black")):
                ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": width}
                ax.plot(chosen[0] - first, height, "o", markersize=11, zorder=4, **ring)
    index_axis(bottom, "x", np.asarray(ratios)[first:], 7)
    index_axis(bottom, "y", thresholds, 6)
    bottom.set(xlabel="pruning ratio (weights set to zero)", ylabel="threshold")
    found = _found_pairs(mask, share, ratios)
    top.set_title(title or found[0].upper() + found[1:])
    bar = picture.add_axes((0.88, 0.12, 0.02, 0.49))
    bar.imshow(np.linspace(-6, 0, 64)[:, None], cmap=PALE_BLUES, aspect="auto", origin="lower", extent=(0, 1, -6, 0))
    bar.set(xticks=[], yticks=[-6, -4, -2, 0], yticklabels=["1e-6", "1e-4", "0.01", "1"])
    bar.yaxis.tick_right()
    bar.grid(False)
    bar.set_title("p", fontsize=9)
    alone = int((p <= delta).sum())
    alt = (
        f"{found[0].upper()}{found[1:]}. Heat map of the p-values, alpha = {alpha:.3g}, with the certified pairs "
        f"outlined; delta = {delta:.3g} lets {alone} pass if each is tested alone. Above it the coverage."
    )
    return tell(picture, alt)


@_styled
def frontiers(
    ratios: ArrayLike, curves: Mapping[str, ArrayLike], *, floor: float | None = None, title: str = ""
) -> Picture:
    """Largest certified coverage (m,) by name against the pruning ratio; NaN: nothing is certified at this ratio.

    `floor` is a coverage that somebody asks for; the alternative text says how far each curve stays above it.

    >>> frontiers([0.5, 0.8], {"alpha = 0.01": [0.95, np.nan]}, floor=0.9).alt
    'Largest certified coverage against pruning ratio. alpha = 0.01: up to ratio 0.5, with coverage 90% up to 0.5.'
    """
    x, notes = np.asarray(ratios, dtype=float), []
    picture, ax = _picture(7, 3.6)
    for (name, values), colour, line, mark in zip(curves.items(), COLOURS, LINES, "osD^v<>p", strict=False):
        y = np.asarray(values, dtype=float)
        ax.plot(x, y, color=colour, linestyle=line, marker=mark, markersize=3.5, label=name)
        found, high = x[np.isfinite(y)], x[np.nan_to_num(y, nan=-1) >= (floor or 0)]
        reach = f"up to ratio {found.max():g}" if found.size else "nothing certified"
        if floor is not None:
            reach += f", with coverage {floor:.0%} {f'up to {high.max():g}' if high.size else 'nowhere'}"
        notes.append(f"{name}: {reach}")
    if floor is not None:
        ax.axhline(floor, color=GREY, linestyle="--", linewidth=1.2)
        ax.annotate(f"coverage {floor:.0%}", (0.01, floor), xycoords=("axes fraction", "data"), **UNDER)
    ax.set(xlabel="pruning ratio (weights set to zero)", ylabel="coverage: share answered", title=title)
    lowest = np.nanmin([1.0, *(np.nanmin(y) for y in map(np.asarray, curves.values()) if np.isfinite(y).any())])
    ax.set_ylim(max(min(lowest, floor or 1) - 0.05, -0.02), 1.01)
    ends = [x[np.isfinite(y)].max(initial=x[0]) for y in map(np.asarray, curves.values())]
    ax.set_xlim(max(x[0], min(ends) - 0.25) - 0.01, max(ends) + 0.02)  # before that little happens
    percent(ax, "xy", 0)
    ax.legend(loc="lower left")
    return tell(picture, f"Largest certified coverage against pruning ratio. {'; '.join(notes)}.")


@_styled
def certified_regions(
    regions: Mapping[str, ArrayLike], coverage: ArrayLike, ratios: ArrayLike, thresholds: ArrayLike, *, title: str = ""
) -> Picture:
    """Certified pairs (m, t), filled, by procedure: a panel each; the dotted outline is that of the first one.

    >>> certified_regions({"rows": [[True, False]]}, [[0.5, 1.0]], [0.8], [0.9, 0.0]).alt
    'Certified pairs by procedure. rows: 1 of 2 pairs certified, ratios up to 0.8, coverage up to 50.0%.'
    """
    share, notes = np.asarray(coverage, dtype=float), []
    k = len(regions)
    across = 2 if k > 1 else 1
    down = -(-k // across)
    picture = Picture(figsize=(7, min(0.8 + 1.6 * down, 4)), layout="constrained")
    axes = np.atleast_1d(picture.subplots(down, across, sharex=True, sharey=True)).ravel()
    first = np.asarray(next(iter(regions.values())), dtype=bool)
    for ax, (name, region) in zip(axes, regions.items(), strict=False):
        mask = np.asarray(region, dtype=bool)
        ax.imshow(mask.T, cmap=ListedColormap(["white", "#7FB5D8"]), vmin=0, vmax=1, **_GRID)
        _outline(ax, first, color="black", linewidth=1, linestyle=":")
        index_axis(ax, "x", ratios, 6)
        index_axis(ax, "y", thresholds, 4)
        ax.grid(False)
        found = _found_pairs(mask, share, ratios)
        best = (
            f"{mask.sum():,} pairs, up to {np.asarray(ratios)[mask.any(axis=1)].max():g}" if mask.any() else "nothing"
        )
        ax.set_title(f"{name}: {best}", fontsize=10)
        notes.append(f"{name}: {found}")
    for ax in axes[k:]:
        ax.set_axis_off()
    picture.supxlabel("pruning ratio", fontsize=10)
    picture.supylabel("threshold", fontsize=10)
    picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    return tell(picture, f"Certified pairs by procedure. {'; '.join(notes)}.")


@_styled
def rescue(result: Any, means: ArrayLike, *, start: float = 0.0, title: str = "") -> Picture:
    """Mean losses of networks that answer everything, `means` (m,), and of certified ones that may abstain.

    Below, the coverage of the latter: at each ratio the certified pair that covers most, from the ratio `start` on.
    """
    x, whole, share = result.ratios, np.asarray(means, dtype=float), result.frontier
    widest = np.where(result.rejected, result.coverage, -1).argmax(axis=1)
    answers = np.where(np.isfinite(share), result.risk[np.arange(len(x)), widest], np.nan)
    shown, alpha = x >= start, result.alpha
    picture = Picture(figsize=(7, 4), layout="constrained")
    top, bottom = picture.subplots(2, 1, sharex=True)
    for y, colour, face, mark, label in (
        (whole, COLOURS[1], "white", "s", "answers everything"),
        (answers, BLUE, BLUE, "o", "may abstain: certified"),
    ):
        top.plot(x[shown], y[shown], mark, color=colour, markerfacecolor=face, markersize=4, label=label)
    bottom.plot(x[shown], share[shown], "o", color=BLUE, markersize=4)
    top.axhline(alpha, color=GREY, linestyle="--", linewidth=1.2)
    spot: dict[str, Any] = {"ha": "right", "va": "bottom", "color": GREY, "fontsize": 9}
    top.annotate(f"alpha = {alpha:.3g}", (0.99, alpha), xycoords=("axes fraction", "data"), **spot)
    top.set(ylabel="errors / answers", ylim=(0, min(5 * alpha, 1.02)), title=title)
    top.legend(loc="upper left", fontsize=9)
    bottom.set(ylabel="coverage", ylim=(0, 1.04), xlabel="pruning ratio (weights set to zero)")
    percent(top, "y")
    percent(bottom, "xy", 0)
    found = np.isfinite(share)
    told = f"certified at {found.sum()} of {len(x)} ratios"
    if found.any():
        told += f", with a mean loss of at most {answers[found].max():.4f} and a coverage of "
        told += f"{share[found].min():.1%} to {share[found].max():.1%}"
    return tell(
        picture,
        f"Mean loss against pruning ratio, alpha = {alpha:.3g}. Answering everything: at least {whole.min():.4f}. "
        f"May abstain: {told}.",
    )


@_styled
def selective_splits(result: Any) -> Picture:
    """Chosen ratio and coverage (left) and the true selective risk (right) over repeated calibrations.

    Bars beyond alpha are hatched; risks beyond 2 alpha are counted in the last bar.
    """
    picture = Picture(figsize=(7, 3.4), layout="constrained")
    left, right = picture.subplots(1, 2)
    found = np.isfinite(result.ratio)
    edges, beyond = result.alpha * np.arange(21) / 10, result.risk > result.alpha + pvalues.ROUNDING
    spots(left, result.ratio[found], result.coverage[found])
    for part, low, look in (
        (found & ~beyond, 0, {"color": BLUE, "edgecolor": BLUE}),
        (beyond, 1.001, {"color": "#F6D5C0", "edgecolor": COLOURS[1], "hatch": "////"}),
    ):
        shown = np.clip(result.risk[part], low * result.alpha, (low + 0.998) * result.alpha)
        right.hist(shown, bins=edges, weights=np.full(len(shown), 1 / len(found)), **look)
    _limit(right, result.alpha, f"alpha = {result.alpha:.3g}", axis="x")
    left.set(xlabel="chosen pruning ratio (area: how often)", ylabel="true coverage there")
    left.set_title(f"nothing certified: {result.abstained:.1%}", fontsize=10)
    right.set(xlabel="true selective risk of the chosen pair", ylabel="share of splits", xlim=(0, edges[-1]))
    broken = "beyond alpha" if result.floor is None else "alpha or floor broken"
    right.set_title(f"{broken}: {result.broken:.1%}, promised {result.delta:.0%}", fontsize=10)
    left.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    right.xaxis.set_major_locator(MaxNLocator(4))
    percent(left, "xy", 1)
    percent(right, "xy")
    middle = "nothing ever certified"
    if found.any():
        middle = f"median ratio {np.median(result.ratio[found]):g}, coverage {np.median(result.coverage[found]):.3f}"
    return tell(
        picture,
        f"{len(found)} calibrations: {middle}; {broken}, "
        f"with alpha = {result.alpha:.3g}, in {result.broken:.1%} of them, delta allows {result.delta:.0%}.",
    )


@_styled
def by_class(
    panels: Mapping[str, ArrayLike], names: Sequence[str], *, overall: Mapping[str, float], title: str = ""
) -> Picture:
    """A share (k,) for each class, one panel of bars a quantity, with the share over all classes as a line.

    >>> by_class({"declined": [0.1, 0.3]}, ["0", "1"], overall={"declined": 0.2}).alt
    'By class. declined: 10.0% (0) to 30.0% (1), 20.0% over all.'
    """
    picture = Picture(figsize=(7, 3), layout="constrained")
    axes = np.atleast_1d(picture.subplots(1, len(panels)))
    notes = []
    for ax, (name, values) in zip(axes, panels.items(), strict=True):
        y = np.asarray(values, dtype=float)
        ax.bar(range(len(y)), y, color=BLUE)
        ax.axhline(overall[name], color=GREY, linestyle="--", linewidth=1.2)
        ax.set_xticks(range(len(y)), names)
        ax.set_title(f"{name}; all: {overall[name]:.1%} (dashed)", fontsize=10)
        ax.set_xlabel("class")
        ax.grid(False, axis="x")
        percent(ax, "y")
        low, high = int(np.nanargmin(y)), int(np.nanargmax(y))
        notes.append(
            f"{name}: {y[low]:.1%} ({names[low]}) to {y[high]:.1%} ({names[high]}), {overall[name]:.1%} over all"
        )
    picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    return tell(picture, f"By class. {'; '.join(notes)}.")


# Helpers of lesson 06


def _pairs(ax: Axes, p: np.ndarray, mask: np.ndarray, share: np.ndarray, delta: float) -> None:
    """The heat map: p-values, grey where nothing is selected, and two outlines."""
    shade = np.log10(np.clip(p, SMALLEST, 1)).T
    ax.imshow(shade, cmap=PALE_BLUES, vmin=-6, vmax=0, **_GRID)
    empty = np.where(share > 0, np.nan, 1.0).T
    ax.imshow(empty, cmap=ListedColormap(["#BBBBBB"]), **_GRID)
    _outline(ax, p <= delta, color=COLOURS[1], linewidth=1.2, linestyle="--")
    _outline(ax, mask, color="black", linewidth=1.8)
    key: list[Any] = [
        Line2D([], [], color="black", label="certified"),
        Line2D([], [], color=COLOURS[1], linestyle="--", linewidth=1.2, label="p ≤ delta"),
    ]
    key += [Patch(facecolor="#BBBBBB", label="nothing answered")] if np.nansum(empty) else []
    ax.legend(handles=key, loc="upper left", fontsize=9, frameon=True, framealpha=0.9, ncols=3)
    ax.grid(False)


def _reach(ax: Axes, mask: np.ndarray, share: np.ndarray, floor: float | None) -> None:
    """The largest certified coverage of each ratio; a tick on the axis where no threshold is certified."""
    reach, x = np.where(mask, share, 0).max(axis=1), np.arange(len(mask))
    some = mask.any(axis=1)
    if some.any():
        ax.plot(x[some], reach[some], "o", color=BLUE, markersize=3.5, label="largest certified")
    if not some.all():
        ax.plot(x[~some], np.full((~some).sum(), -0.05), "|", color=COLOURS[1], markersize=7, label="nothing certified")
    if floor is not None:
        ax.axhline(floor, color=GREY, linestyle="--", linewidth=1.2)
        ax.annotate(
            f"floor {floor:g}", (1.005, floor), xycoords=("axes fraction", "data"), va="center", color=GREY, fontsize=9
        )
    ax.set(ylim=(-0.1, 1.05), ylabel="coverage", yticks=[0, 0.5, 1])
    percent(ax, "y")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 0.08), fontsize=9)


def _found_pairs(mask: np.ndarray, share: np.ndarray, ratios: ArrayLike) -> str:
    if not mask.any():
        return "nothing certified"
    best = np.asarray(ratios, dtype=float)[mask.any(axis=1)].max()
    most = share[mask].max()
    return f"{mask.sum():,} of {mask.size:,} pairs certified, ratios up to {best:g}, coverage up to {most:.1%}"


def _outline(ax: Axes, mask: np.ndarray, **look: Any) -> None:
    """Lines around the True cells of a mask (m, t) that is drawn with m to the right and t upwards."""
    padded = np.pad(mask, 1)
    i, k = np.nonzero(padded[1:] != padded[:-1])  # between rows: a vertical line
    lines = [((x - 0.5, y - 1.5), (x - 0.5, y - 0.5)) for x, y in zip(i, k, strict=True)]
    i, k = np.nonzero(padded[:, 1:] != padded[:, :-1])
    lines += [((x - 1.5, y - 0.5), (x - 0.5, y - 0.5)) for x, y in zip(i, k, strict=True)]
    ax.add_collection(LineCollection(lines, **look))
