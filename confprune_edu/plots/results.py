"""Figures that several lessons share: certificates, risks and p-values against the ratio, repeated splits, error rates.

`certificate` is what `Calibration.plot()` shows. Lesson 05 has no figures of its own: it uses these alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike

from confprune_edu.plots.picture import (
    BLUE,
    COLOURS,
    SMALLEST,
    ByName,
    Picture,
    blank,
    capital,
    filled,
    heading,
    level,
    lines,
    p_value_axis,
    percent,
    plain_log,
    rate_with_bars,
    ratio_axis,
    styled,
    tell,
)


@styled
def risk_curves(ratios: ArrayLike, curves: ByName, *, alpha: float, title: str = "") -> Picture:
    """Mean losses (m,) by name against the pruning ratio, with alpha as a line.

    >>> risk_curves([0.0, 0.5], {"error": [0.01, 0.2]}, alpha=0.1).alt
    'Risk against pruning ratio. error: 0.010 at ratio 0, above alpha = 0.1 from ratio 0.5 on.'
    """
    x, notes, line = np.asarray(ratios, dtype=float), [], f"alpha = {alpha:.3g}"
    picture, (ax,) = blank(7, 3.6)
    for name, y in lines(ax, x, curves):
        above = np.flatnonzero(y > alpha)
        when = f"above {line} from ratio {x[above[0]]:g} on" if above.size else f"never above {line}"
        notes.append(f"{name}: {y[0]:.3f} at ratio {x[0]:g}, {when}")
    level(ax, alpha, line)
    ax.set(ylabel="mean loss", title=title, ylim=(-0.02 * min(4 * alpha, 1), min(max(4 * alpha, 0.02), 1)))
    ratio_axis(ax)
    percent(ax, "y")
    ax.legend(loc="upper left")
    return tell(picture, "Risk against pruning ratio.", notes)


@styled
def p_value_curves(ratios: ArrayLike, curves: ByName, *, delta: float, title: str = "") -> Picture:
    """P-values (m,) by method against the pruning ratio, on a logarithmic axis, where they cross delta.

    >>> p_value_curves([0.8, 0.9], {"tight": [0.01, 0.5]}, delta=0.1).alt
    'P-values against pruning ratio with delta = 0.1. Largest ratio with every p-value so far at most delta: tight 0.8.'
    """
    x, line = np.asarray(ratios, dtype=float), f"delta = {delta:.3g}"
    picture, (ax,) = blank(7, 3.8)
    drawn = lines(ax, x, {name: np.maximum(p, SMALLEST) for name, p in curves.items()}, marks=".")
    passed = {name: int(np.logical_and.accumulate(p <= delta).sum()) for name, p in drawn}
    crossing = [int(np.argmax(p > delta)) for _, p in drawn]
    level(ax, delta, line)
    ax.set_xlim(x[max(min(crossing) - 8, 0)], x[min(max(crossing) + 4, len(x) - 1)])
    ax.set_title(title)
    p_value_axis(ax)
    ratio_axis(ax)
    ax.legend(ncols=2, fontsize=9)
    found = ", ".join(f"{name} {x[k - 1]:g}" if k else f"{name} none" for name, k in passed.items())
    about = "Largest ratio with every p-value so far at most delta"
    return tell(picture, f"P-values against pruning ratio with {line}. {about}: {found}.")


@styled
def certificate(result: Any, *, focus: bool = True) -> Picture:
    """Mean losses and p-values of a calibration against the pruning ratio: certified filled, not certified hollow.

    `focus=True` shows only the neighbourhood of the certified ratio.
    """
    picture, (top, bottom) = blank(7, 4, 2, sharex=True)
    tested = np.isfinite(result.p_values)
    centre = result.ratios[0] if result.ratio is None else result.ratio
    show = tested & (np.abs(result.ratios - centre) <= 0.2) if focus else tested
    x, mean, p, mask = (v[show] for v in (result.ratios, result.loss_means, result.p_values, result.rejected))
    _evidence(top, bottom, (x, mean, p, mask), result.alpha, result.delta, size=5)
    high = max(float(mean.max(initial=0)), result.alpha)
    share = None if result.ratio is None else 100 * result.ratio
    finding = "Nothing certified" if share is None else f"Certified up to {share:.4g}% of the weights"
    top.set(ylim=(-0.03 * high, min(1.2 * high, 1.02)), ylabel=f"mean {result.loss}", title=finding)
    return tell(
        picture,
        f"{finding}. Two panels against the ratio, {int(tested.sum())} of {len(result.ratios)} tested: "
        f"the mean calibration loss with alpha = {result.alpha:.3g}, and the {result.p_value} p-values with delta = "
        f"{result.delta:g}. Filled points are certified, hollow ones are not.",
    )


@styled
def tested_grid(
    ratios: ArrayLike,
    means: ArrayLike,
    population: ArrayLike,
    p_values: ArrayLike,
    rejected: ArrayLike,
    *,
    alpha: float,
    delta: float,
    n: int,
    title: str = "",
) -> Picture:
    """Mean losses and p-values of a whole grid, on axes that stay, with the mean over all examples as a line.

    >>> tested_grid([0.5, 0.9], [0.01, 0.2], [0.02, 0.1], [0.01, 1.0], [True, False], alpha=0.05, delta=0.1, n=90).alt
    'n = 90, alpha = 0.05, delta = 0.1: certified up to 0.5, 1 of 2 ratios; the mean over all examples there is 0.0200.'
    """
    x, mean, risk, p = (np.asarray(values, dtype=float) for values in (ratios, means, population, p_values))
    mask = np.asarray(rejected, dtype=bool)
    picture, (top, bottom) = blank(7, 4, 2, sharex=True, margins={"left": 0.12, "right": 0.98, "hspace": 0.12})
    top.plot(x, risk, color=COLOURS[5], linewidth=1.2, label="all examples")
    _evidence(top, bottom, (x, mean, p, mask), alpha, delta, size=4)
    at = np.flatnonzero(mask)
    found = f"certified up to {x[at[-1]]:g}, {len(at)} of {len(x)} ratios" if at.size else "nothing certified"
    top.set(ylim=(-0.05 * alpha, min(2.5 * alpha, 1.02)), ylabel=f"mean loss, n = {n}", title=title or capital(found))
    top.set(xticks=np.arange(6) / 5, yticks=[0, alpha, 2 * alpha] if 2 * alpha <= 1 else [0, alpha])
    top.legend(loc="upper left", fontsize=9)
    bottom.set(xlim=(-0.02, 1.02), ylim=(SMALLEST / 2, 3))
    plain_log(bottom, [1, 0.01, 0.0001, 1e-6])
    there = f"; the mean over all examples there is {risk[at[-1]]:.4f}" if at.size else ""
    return tell(picture, f"n = {n}, alpha = {alpha:.3g}, delta = {delta:.3g}: {found}{there}.")


def _evidence(top: Axes, bottom: Axes, table: Sequence[np.ndarray], alpha: float, delta: float, *, size: int) -> None:
    """Mean losses above and p-values below; `table` is ratios, means, p-values and rejected, each (m,)."""
    x, mean, p, mask = table
    filled(top, x, mean, mask, size=size)
    filled(bottom, x, np.maximum(p, SMALLEST), mask, size=size)
    level(top, alpha, f"alpha = {alpha:.3g}")
    level(bottom, delta, f"delta = {delta:.3g}")
    p_value_axis(bottom)
    percent(top, "y")
    ratio_axis(bottom)


@styled
def splits(result: Any) -> Picture:
    """The law of the certified ratio (left) and of its risk (right) over repeated calibrations."""
    picture, (left, right) = blank(7, 3.4, 1, 2)
    found, middle = np.isfinite(result.ratio), "no ratio ever certified"
    level(right, result.alpha, f"alpha = {result.alpha:.3g}", axis="x")
    if found.any():
        middle = f"median certified ratio {np.median(result.ratio[found]):g}"
        values, counts = np.unique(result.ratio[found], return_counts=True)
        left.bar(values, counts / len(found), width=0.8 * np.diff(values).min(initial=0.01), color=BLUE)
        left.set_xlim(values[0] - 0.02, values[-1] + 0.02)
        right.hist(
            [result.risk[found], result.test_risk[found]],
            bins=20,
            weights=[np.full(int(found.sum()), 1 / len(found))] * 2,
            color=[BLUE, "white"],
            edgecolor=BLUE,
            label=["all examples (the promise)", "left-out examples"],
        )
        right.set_ylim(0, 1.25 * right.get_ylim()[1])
        picture.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=8)
    left.set(xlabel="certified pruning ratio", ylabel="share of splits")
    left.set_title(f"nothing certified: {result.abstained:.1%}")
    right.set_xlabel("risk at the certified ratio")
    right.set_title(f"beyond alpha: {result.broken:.1%}, promised {result.delta:.0%}")
    for ax in (left, right):
        percent(ax, "xy")
    return tell(
        picture,
        f"{len(found)} calibrations: {middle}; the risk there exceeds alpha = {result.alpha:.3g} in "
        f"{result.broken:.1%} of them, delta = {result.delta:.3g} allows {result.delta:.0%}; the mean of the left-out "
        f"examples exceeds it in {result.test_broken:.1%}.",
    )


@styled
def ratio_table(alphas: Sequence[float], deltas: Sequence[float], ratios: ArrayLike, title: str = "") -> Picture:
    """Certified ratios (len(alphas), len(deltas)) as a table shaded by value; NaN means that nothing was certified.

    >>> ratio_table([0.05], [0.1], [[0.8]]).alt
    'Certified ratio by alpha and delta: alpha 0.05, delta 0.1: 0.8.'
    """
    values, notes = np.asarray(ratios, dtype=float), []
    picture, (ax,) = blank(6, 0.6 + 0.42 * len(alphas))
    ax.imshow(values, cmap="Blues", vmin=0, vmax=2.5, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        text = "none" if np.isnan(value) else f"{value:g}"
        ax.text(j, i, text, ha="center", va="center")
        notes.append(f"alpha {alphas[i]:g}, delta {deltas[j]:g}: {text}")
    ax.set_xticks(range(len(deltas)), [f"{d:g}" for d in deltas])
    ax.set_yticks(range(len(alphas)), [f"{a:g}" for a in alphas])
    ax.set(xlabel="delta", ylabel="alpha", title=title)
    ax.grid(False)
    return tell(picture, "Certified ratio by alpha and delta:", notes)


@styled
def digits(images: ArrayLike, captions: Sequence[str], title: str = "") -> Picture:
    """Grey-level images (k, height, width) in [0, 1] in one row, each with a caption.

    >>> digits(np.zeros((1, 2, 2)), ["a zero"]).alt
    'Digits: a zero.'
    """
    picture, axes = blank(7, 1.8, 1, len(captions))
    picture.set_layout_engine(ConstrainedLayoutEngine(h_pad=0.12))  # square axes lose room for captions
    for ax, image, caption in zip(axes, np.asarray(images), captions, strict=True):
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(caption, fontsize=9, loc="center")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    heading(picture, title)
    return tell(picture, "Digits:", [caption.replace("\n", ", ") for caption in captions])


@styled
def error_intervals(rates: Mapping[str, Any], *, title: str = "") -> Picture:
    """Share of repetitions with a false certificate, by procedure, with exact 95 % binomial intervals, and delta.

    Circles: compatible with delta. Crosses: the exact binomial test against "at most delta" has p < 1e-4. `title` says
    what the crosses show; where there is none, the title says that.

    >>> from confprune_edu.validation import ErrorRate
    >>> error_intervals({"peeking": ErrorRate(180, 1000, 0.1)}).alt  # doctest: +ELLIPSIS
    'Share of repetitions with a false certificate, exact 95 % intervals, delta = 0.1: peeking 18.0 % (15.7 to 20.5)...
    """
    picture, (ax,) = blank(7, 0.9 + 0.38 * len(rates))
    notes, delta = [], next(iter(rates.values())).delta
    for row, (name, rate) in enumerate(rates.items()):
        _, bars = rate_with_bars(np.array([rate.errors]), rate.trials)
        low, high = rate.rate - bars[0, 0], rate.rate + bars[1, 0]
        broken = rate.evidence < 1e-4
        colour, marker, line = (COLOURS[1], "X", "--") if broken else (BLUE, "o", "-")
        ax.plot([low, high], [row, row], color=colour, linestyle=line)
        ax.plot(rate.rate, row, marker, color=colour, markersize=8)
        ax.annotate(f"{rate.rate:.1%}", (1.02, row), xycoords=("axes fraction", "data"), va="center")
        notes.append(f"{name} {rate.rate:.1%} ({100 * low:.1f} to {100 * high:.1f}){', broken' if broken else ''}")
    told = "; ".join(notes).replace("%", " %")
    ax.set_yticks(range(len(rates)), list(rates))
    ax.set(ylim=(len(rates) - 0.5, -0.9), xlabel="share of repetitions with a false certificate")
    ax.set_title(title if "broken" in told else "No rule is seen to break the promise here")
    ax.set_xlim(0, min(max(1.15 * ax.get_xlim()[1], 1.6 * delta), 1.02))
    top = (len(rates) + 0.05) / (len(rates) + 0.4)
    level(ax, delta, f"delta = {delta:.3g}", axis="x", at=top, gap=4, ha="left", va="baseline", rotation=0)
    percent(ax, "x")
    what = "Share of repetitions with a false certificate, exact 95 % intervals"
    return tell(picture, f"{what}, delta = {delta:.3g}: {told}.")
