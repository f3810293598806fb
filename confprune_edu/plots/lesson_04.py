"""Figures of lesson 04, fixed sequences: one step by step, several orders, several starts, several sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from confprune_edu import fwer
from confprune_edu.plots import picture as draw

SEQUENCES = {
    "like pruning: slowly rising": (0.0004, 0.001, 0.003, 0.02, 0.06, 0.08, 0.3, 0.7),
    "an early failure": (0.004, 0.2, 0.001, 0.002, 0.003, 0.004, 0.01, 0.02),
    "the first one fails": (0.3, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001),
    "all pass": (0.01, 0.05, 0.02, 0.04, 0.03, 0.05, 0.01, 0.03),
}  # p-values in testing order, for the explorer


@draw.styled
def sequence(p_values: ArrayLike, *, delta: float, step: int | None = None) -> draw.Picture:
    """A fixed sequence after `step` tests (default: all): what is certified, where it stops, what is never tested.

    >>> sequence([0.01, 0.3, 0.02], delta=0.1).alt  # doctest: +ELLIPSIS
    'A fixed sequence of 3 tests at delta = 0.1. Test 1: p = 0.01, certified; test 2: p = 0.3, stop; ...
    """
    p = np.asarray(p_values, dtype=float)
    m, certified = len(p), int(np.logical_and.accumulate(p <= delta).sum())
    seen = min(m if step is None else int(step), certified + 1, m)
    stopped = seen > certified
    certified, k = min(certified, seen), np.arange(1, m + 1)
    picture, (ax,) = draw.blank(7, 3.2, margins={"left": 0.13, "right": 0.87, "bottom": 0.16, "top": 0.9})
    y = np.maximum(p, 1e-4)
    ax.plot(k[:certified], y[:certified], "o", color=draw.BLUE, markersize=8, label="certified")
    if stopped:
        ax.plot(
            seen, y[seen - 1], "o", color=draw.COLOURS[1], markerfacecolor="white", markersize=8, label="fails: stop"
        )
        ax.plot(k[seen:], y[seen:], "x", color=draw.GREY, markersize=6, label="never tested")
        ax.axvspan(seen + 0.5, m + 0.6, color="#F0F0F0", zorder=0)
    for j in k[seen:] if not stopped else []:
        ax.annotate("?", (j, 0.5), xycoords=("data", "axes fraction"), ha="center", color=draw.GREY)
    for j in range(seen):
        ax.annotate(f"{p[j]:.2g}", (k[j], y[j]), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
    draw.level(ax, delta, f"delta = {delta:.3g}", at=1.01, va="center", fontsize=10)
    ax.set(xlim=(0.4, m + 0.6), ylim=(1e-5, 3), yscale="log", xticks=k)
    draw.plain_log(ax, [1, 0.1, 0.01, 0.001, 0.0001])
    ax.set(xlabel="test, in the order fixed beforehand", ylabel="p-value")
    if stopped:
        last = f"p = {p[seen - 1]:.2g} > delta at test {seen}: stop; certified: {certified}, never tested: {m - seen}"
    else:
        last = f"{certified} of {m} tests passed" + ("" if seen == m else f": go on to test {seen + 1}")
    ax.set_title(last)
    if seen:
        ax.legend(loc="lower left", ncols=3, fontsize=9)
    states = ["certified"] * certified + ["stop"] * stopped
    notes = [f"test {j}: p = {p[j - 1]:.2g}, {state}" for j, state in zip(k, states, strict=False)]
    notes += [f"test {j}: {'never tested' if stopped else 'not yet tested'}" for j in k[seen:]]
    return draw.tell(
        picture, f"A fixed sequence of {m} tests at delta = {delta:.3g}.", [draw.capital(notes[0]), *notes[1:]]
    )


@draw.styled
def orders(results: Mapping[str, Any], *, title: str = "") -> draw.Picture:
    """The law of the certified ratio for several orders of the same tests: one histogram an order.

    >>> from confprune_edu.validation import Splits
    >>> one = Splits(*np.array([[0.8, np.nan], [0.01, np.nan], [0.02, np.nan]]), 0.05, 0.1, np.zeros(2))
    >>> orders({"forward": one}).alt  # doctest: +ELLIPSIS
    'Certified ratio by order of the tests: forward: median 0.8, nothing certified in 50.0 %, risk...
    """
    picture, (ax,) = draw.blank(7, 1.0 + 0.42 * len(results))
    notes = []
    for row, (name, result) in enumerate(results.items()):
        found = np.isfinite(result.ratio)
        values, counts = np.unique(result.ratio[found], return_counts=True)
        ax.bar(values, -0.85 * counts / len(found), width=0.008, bottom=row + 0.4, color=draw.BLUE)
        if found.any():
            text = f"median {np.median(result.ratio[found]):g}, nothing certified in {result.abstained:.1%}"
        else:
            text = "nothing ever certified"
            ax.annotate(text, (0.01, row), va="center", color=draw.GREY, fontsize=9)
        ax.annotate(f"{result.any_broken:.1%}", (1.06, row), va="center", ha="center", annotation_clip=False)
        notes.append(f"{name}: {text}, risk beyond alpha in {result.any_broken:.1%}".replace("%", " %"))
    ax.annotate("risk beyond\nalpha in", (1.06, -0.7), va="center", ha="center", fontsize=9, annotation_clip=False)
    ax.set_yticks(range(len(results)), list(results))
    ax.set(xlim=(0, 1), ylim=(len(results) - 0.5, -1), title=title)
    ax.set_xlabel("certified pruning ratio (height: share of the repetitions)")
    ax.grid(False, axis="y")
    draw.percent(ax, "x")
    return draw.tell(picture, "Certified ratio by order of the tests:", notes)


@draw.styled
def chains(
    ratios: ArrayLike, risks: ArrayLike, p_values: ArrayLike, *, alpha: float, delta: float, starts: Sequence[int]
) -> draw.Picture:
    """True risks (m,), known here, and p-values (m,) with the chains of a multi-start: certified filled.

    Grey crosses: no chain comes there.
    """
    x, risk, p = (np.asarray(values, dtype=float) for values in (ratios, risks, p_values))
    share, rejected = delta / len(starts), fwer.multi_start(p, delta, starts)
    picture, (top, bottom) = draw.blank(7, 4, 2, sharex=True)
    top.plot(x, risk, color=draw.COLOURS[5])
    draw.filled(bottom, x, np.maximum(p, draw.SMALLEST), rejected, size=5, tested=_reached(p <= share, starts))
    for number, start in enumerate(starts):
        bottom.axvline(x[start], color=draw.COLOURS[1], linestyle=":", linewidth=1.5, label="" if number else "start")
    draw.level(top, alpha, f"alpha = {alpha:.3g}")
    draw.level(bottom, share, f"delta / {len(starts)} = {share:g}", xy=(0.02, share), xycoords="data", va="top")
    found, alone = (
        f"certified up to {x[mask].max():.2g}" if mask.any() else "nothing certified"
        for mask in (rejected, fwer.fixed_sequence(p, delta))
    )
    count = {1: "One start", 4: "Four starts"}.get(len(starts), f"{len(starts)} starts")
    top.set(ylabel="true risk", title=f"One start at ratio 0: {alone}. {count}: {found}", ylim=(0, min(4 * alpha, 1)))
    draw.p_value_axis(bottom)
    draw.ratio_axis(bottom)
    draw.plain_log(bottom, [1, 0.01, 0.0001, 1e-6])
    top.legend(*bottom.get_legend_handles_labels(), loc="upper center", ncols=4, fontsize=9)
    draw.percent(top, "y")
    return draw.tell(
        picture,
        f"A risk that starts at {risk[0]:.3f}, dips to {risk.min():.3f} at ratio {x[risk.argmin()]:.2g} and rises, "
        f"alpha = {alpha:.3g}. With one start at ratio 0 and delta = {delta:.3g}: {alone}; with {len(starts)} starts at"
        f" delta / {len(starts)} each: {found}.",
    )


def _reached(passed: np.ndarray, starts: Sequence[int]) -> np.ndarray:
    """Which tests some chain makes: from its start to its first failure."""
    seen = np.full(len(passed), False)
    for start in starts:
        seen[start:] |= np.cumsum(~passed[start:]) - ~passed[start:] == 0
    return seen


@draw.styled
def certified_against(sizes: ArrayLike, results: draw.ByName, *, xlabel: str, title: str = "") -> draw.Picture:
    """Certified ratios (k, trials) by name against `sizes` (k,): medians, and the middle 80 % as a band.

    NaN, nothing certified, counts as less than any ratio; a size at which the median is nothing has a hollow mark at
    zero, and no line leads there.

    >>> certified_against([50, 100], {"fixed": [[np.nan] * 3, [0.8, 0.9, 0.9]]}, xlabel="n").alt
    'Median certified ratio. fixed: none at n 50, 0.9 at n 100.'
    """
    x, unit, notes = np.asarray(sizes, dtype=float), xlabel.split()[-1], []
    picture, (ax,) = draw.blank(7, 3.6)
    for (name, ratios), look in zip(results.items(), draw.looks(results, "o"), strict=True):
        found = np.nan_to_num(np.asarray(ratios, dtype=float))
        low, middle, high = np.quantile(found, [0.1, 0.5, 0.9], axis=1, method="lower")
        ax.fill_between(x, low, high, where=high > 0, color=look["color"], alpha=0.15, linewidth=0)
        ax.plot(x, np.where(middle > 0, middle, np.nan), markersize=4, **look)
        none = middle == 0
        ax.plot(x[none], middle[none], look["marker"], color=look["color"], markerfacecolor="white", clip_on=False)
        told = (f"{f'{y:g}' if y else 'none'} at {unit} {size:g}" for size, y in zip(x, middle, strict=True))
        notes.append(f"{name}: {', '.join(told)}")
    ax.set(xscale="log", ylim=(-0.03, 1), ylabel="certified ratio (0: none)", title=title)
    draw.size_axis(ax, x, xlabel)
    draw.percent(ax, "y")
    if len(results) > 1:
        ax.legend(loc="lower right")
    return draw.tell(picture, "Median certified ratio.", notes)
