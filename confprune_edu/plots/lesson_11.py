"""Figures of lesson 11, the world shifts: what becomes of risks and certificates, and when an alarm comes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from confprune_edu.plots import picture as draw


@draw.styled
def against_strength(
    strengths: Mapping[str, Sequence[float]],
    shares: Mapping[str, draw.ByName],
    *,
    ylabel: str,
    line: tuple[str, float],
    trials: int | None = None,
    title: str = "",
) -> draw.Picture:
    """Shares against the strength of a shift: a panel a shift, a curve a name, and a dashed line, (name, value).

    `strengths[shift]` (k,) are drawn at equal steps; `shares[shift][name]` (k,) are shares, or counts out of `trials`,
    which get exact 95 % intervals. A share that is NaN is not drawn.

    >>> against_strength({"blur": [0, 2]}, {"blur": {"error": [0.01, 0.3]}}, ylabel="risk", line=("alpha", 0.05)).alt
    'Risk against the strength of a shift, alpha = 0.05. blur: error from 0.01 to 0.30.'
    """
    columns = min(3, len(strengths))
    rows = -(-len(strengths) // columns)
    picture, axes = draw.blank(7, 0.9 + 1.7 * rows, rows, columns, sharey=True)
    notes = []
    for ax, (shift, values) in zip(axes, strengths.items(), strict=False):
        x, looks = np.arange(len(values)), draw.looks(shares[shift], draw.MARKS)
        told = (_curve(ax, x, np.asarray(shares[shift][look["label"]], dtype=float), look, trials) for look in looks)
        notes.append(f"{shift}: {', '.join(told)}")
        ax.axhline(line[1], color=draw.GREY, linestyle="--", linewidth=1.2, label=f"{line[0]} = {line[1]:.3g}")
        ax.set_xticks(x, [f"{value:g}" for value in values], fontsize=8)
        ax.set_title(shift, fontsize=10)
        draw.percent(ax, "y", 0)
    for ax in axes[::columns]:
        ax.set_ylabel(ylabel, fontsize=9)
    for ax in axes[len(strengths) :]:
        ax.set_axis_off()
    key = axes[0].get_legend_handles_labels()
    if len(strengths) < len(axes):
        axes[-1].legend(*key, loc="center left", fontsize=9).set_in_layout(False)  # else it narrows a column
    else:
        picture.legend(*key, loc="outside lower center", ncols=len(key[1]), fontsize=9)
    draw.heading(picture, title)
    about = f"{draw.capital(ylabel)} against the strength of a shift, {line[0]} = {line[1]:.3g}."
    return draw.tell(picture, about, notes)


def _curve(ax: Axes, x: np.ndarray, y: np.ndarray, look: dict[str, Any], trials: int | None) -> str:
    """Draw shares, or counts out of `trials`, (k,); where they begin and end, and their largest between."""
    if trials:
        y, bars = draw.rate_with_bars(y, trials)
        ax.errorbar(x, y, bars, capsize=3, markersize=4, **look)
    else:
        ax.plot(x, y, markersize=4, **look)
    known = y[np.isfinite(y)] if np.isfinite(y).any() else y
    most = f", at most {known.max():.2f}" if known.max() > max(known[0], known[-1]) else ""
    return f"{look['label']} from {known[0]:.2f} to {known[-1]:.2f}{most}"


@draw.styled
def delays(
    risks: draw.ByName, waits: Mapping[str, ArrayLike], *, alpha: float, longest: int, title: str = ""
) -> draw.Picture:
    """How long a monitor waits after a shift, by the risk at work: medians, and the middle half as a bar.

    `waits[shift]`, (k, runs), belongs to the risks `risks[shift]`, (k,); a wait of inf, no alarm among the `longest`
    examples that were watched, is drawn at the upper edge.

    >>> delays({"blur": [0.2]}, {"blur": [[30, 50, np.inf]]}, alpha=0.05, longest=1000).alt
    'Median wait for an alarm by the risk after the shift, alpha = 0.05. blur: 50 at 0.200.'
    """
    picture, (ax,) = draw.blank(7, 3.6)
    notes = []
    for look in draw.looks(risks, draw.MARKS):
        x = np.asarray(risks[look["label"]], dtype=float)
        low, middle, high = np.quantile(np.asarray(waits[look["label"]]), [0.25, 0.5, 0.75], axis=1, method="lower")
        shown = np.minimum([low, middle, high], longest)
        bars = np.array([shown[1] - shown[0], shown[2] - shown[1]])
        ax.errorbar(x, shown[1], bars, capsize=3, markersize=6, linewidth=1.2, **(look | {"linestyle": "none"}))
        told = (f"{wait:g}" if np.isfinite(wait) else "none" for wait in middle)
        notes.append(f"{look['label']}: " + ", ".join(f"{w} at {r:.3f}" for w, r in zip(told, x, strict=True)))
    draw.level(ax, alpha, f"alpha = {alpha:.3g}", axis="x", at=0.02, gap=3, ha="left", va="baseline")
    draw.level(ax, longest, "no alarm while we watched", at=0.5)
    ax.set(yscale="log", xscale="log", title=title)
    ax.set(xlabel="risk after the shift", ylabel="examples until the alarm")
    ax.yaxis.set_major_formatter("{x:g}")
    ticks = [tick for tick in (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if alpha <= tick]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return draw.tell(picture, f"Median wait for an alarm by the risk after the shift, alpha = {alpha:.3g}.", notes)


@draw.styled
def home_and_there(
    ratios: ArrayLike, home: ArrayLike, there: ArrayLike, certified: ArrayLike, *, alpha: float, false: float
) -> draw.Picture:
    """Risks (m,) at home and after a shift, beside how often each ratio is the largest certified one at home, (m,).

    `false` is the share of the calibrations whose certificates the shift makes false.

    >>> home_and_there([0, 0.9], [0.0, 0.04], [0.1, 0.3], [0.0, 1.0], alpha=0.05, false=1.0).alt
    'Risk at the ratio that is certified most often, 0.9: at home 0.040, after the shift 0.300, alpha = 0.05. False
    after the shift: 100.0% of the calibrations.'
    """
    x, risk, moved, share = (np.asarray(values, dtype=float) for values in (ratios, home, there, certified))
    picture, (left, right) = draw.blank(
        7, 3.4, 1, 2, margins={"left": 0.1, "right": 0.98, "bottom": 0.16, "wspace": 0.3}
    )
    places = np.arange(len(x))  # equal steps: the grid is fine where networks break
    for y, look in zip((risk, moved), draw.looks(["at home", "after the shift"], "os"), strict=True):
        left.plot(places, y, markersize=5, **look)
    draw.level(left, alpha, f"alpha = {alpha:.3g}")
    left.set(ylabel="mean loss", ylim=(-0.02, max(4 * alpha, 1.05 * moved.max(), 1.05 * risk.max())))
    left.legend(loc="upper left", fontsize=9)
    left.set_title(f"False after the shift: {false:.1%}")
    right.bar(places, share, color=draw.BLUE)
    right.set(ylabel="share of calibrations at home", ylim=(0, 1))
    right.set_title("Largest certified ratio")
    for ax in (left, right):
        ax.set_xticks(places, [f"{ratio:g}" for ratio in x], fontsize=8)
        ax.set_xlabel("pruning ratio")
        draw.percent(ax, "y", 0)
    j = int(share.argmax())
    risks = f"at home {risk[j]:.3f}, after the shift {moved[j]:.3f}, alpha = {alpha:.3g}"
    about = f"Risk at the ratio that is certified most often, {x[j]:g}: {risks}."
    none = "" if share.any() else "Nothing certified. "
    return draw.tell(picture, f"{none}{about} False after the shift: {false:.1%} of the calibrations.")
