"""Figures of certificates, of risks and p-values against the ratio, and of repeated splits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine
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
    method_styles,
    percent,
    plain_log,
    rate_with_bars,
    tell,
)


@_styled
def risk_curves(ratios: ArrayLike, curves: Mapping[str, ArrayLike], *, alpha: float, title: str = "") -> Picture:
    """Mean losses (m,) by name against the pruning ratio, with alpha as a line.

    >>> risk_curves([0.0, 0.5], {"error": [0.01, 0.2]}, alpha=0.1).alt
    'Risk against pruning ratio. error: 0.010 at ratio 0, above alpha = 0.1 from ratio 0.5 on.'
    """
    x, notes = np.asarray(ratios, dtype=float), []
    picture, ax = _picture(7, 3.6)
    for (name, values), colour, line in zip(curves.items(), COLOURS, LINES, strict=False):
        y = np.asarray(values, dtype=float)
        ax.plot(x, y, color=colour, linestyle=line, label=name)
        above = np.flatnonzero(y > alpha)
        when = (
            f"above alpha = {alpha:.3g} from ratio {x[above[0]]:g} on"
            if above.size
            else f"never above alpha = {alpha:.3g}"
        )
        notes.append(f"{name}: {y[0]:.3f} at ratio {x[0]:g}, {when}")
    _limit(ax, alpha, f"alpha = {alpha:.3g}", axis="y")
    ax.set(xlabel="pruning ratio (weights set to zero)", ylabel="mean loss", title=title)
    ax.set_ylim(-0.02 * min(4 * alpha, 1), min(max(4 * alpha, 0.02), 1))
    percent(ax, "xy")
    ax.legend(loc="upper left")
    return tell(picture, "Risk against pruning ratio. " + "; ".join(notes) + ".")


@_styled
def calibration(result: Any, *, focus: bool = True) -> Picture:
    """Mean losses and p-values of a calibration against the pruning ratio: certified filled, not certified hollow.

    `focus=True` shows only the neighbourhood of the certified ratio.
    """
    picture = Picture(figsize=(7, 4), layout="constrained")
    top, bottom = picture.subplots(2, 1, sharex=True)
    tested = np.isfinite(result.p_values)
    centre = result.ratios[0] if result.ratio is None else result.ratio
    show = tested & (np.abs(result.ratios - centre) <= 0.2) if focus else tested
    for ax, y in ((top, result.loss_means), (bottom, np.maximum(result.p_values, SMALLEST))):
        for mask, face in ((show & result.rejected, BLUE), (show & ~result.rejected, "white")):
            ax.plot(result.ratios[mask], y[mask], "o", markersize=5, color=BLUE, markerfacecolor=face)
    high = max(float(result.loss_means[show].max(initial=0)), result.alpha)
    top.set_ylim(-0.03 * high, min(1.2 * high, 1.02))
    _limit(top, result.alpha, f"alpha = {result.alpha:.3g}", axis="y")
    _limit(bottom, result.delta, f"delta = {result.delta:.3g}", axis="y")
    top.set(ylabel=f"mean {result.loss}", title=_finding(result))
    bottom.set(ylabel=P_LABEL, yscale="log", xlabel="pruning ratio (weights set to zero)")
    percent(top, "y")
    percent(bottom, "x")
    alt = (
        f"{_finding(result)}. Two panels against the ratio, {int(tested.sum())} of {len(result.ratios)} tested: "
        f"the mean calibration loss with alpha = {result.alpha:.3g}, and the {result.p_value} p-values with delta = "
        f"{result.delta:g}. Filled points are certified, hollow ones are not."
    )
    return tell(picture, alt)


@_styled
def p_value_curves(ratios: ArrayLike, curves: Mapping[str, ArrayLike], *, delta: float, title: str = "") -> Picture:
    """P-values (m,) by method against the pruning ratio, on a logarithmic axis, where they cross delta.

    >>> p_value_curves([0.8, 0.9], {"tight": [0.01, 0.5]}, delta=0.1).alt
    'P-values against pruning ratio with delta = 0.1. Largest ratio with every p-value so far at most delta: tight 0.8.'
    """
    x, notes = np.asarray(ratios, dtype=float), []
    picture, ax = _picture(7, 3.8)
    for (name, values), (colour, line) in zip(curves.items(), method_styles(curves), strict=True):
        p = np.asarray(values, dtype=float)
        ax.plot(x, np.maximum(p, SMALLEST), color=colour, linestyle=line, marker=".", label=name)
        passed = int(np.logical_and.accumulate(p <= delta).sum())
        notes.append(f"{name} {x[passed - 1]:g}" if passed else f"{name} none")
    _limit(ax, delta, f"delta = {delta:.3g}", axis="y")
    crossing = [int(np.argmax(np.asarray(v) > delta)) for v in curves.values()]
    ax.set_xlim(x[max(min(crossing) - 8, 0)], x[min(max(crossing) + 4, len(x) - 1)])
    ax.set(xlabel="pruning ratio (weights set to zero)", ylabel=P_LABEL, yscale="log", title=title)
    percent(ax, "x")
    ax.legend(ncols=2, fontsize=9)
    found = ", ".join(notes)
    return tell(
        picture,
        f"P-values against pruning ratio with delta = {delta:.3g}. Largest ratio with every p-value so far at most "
        f"delta: {found}.",
    )


@_styled
def splits(result: Any) -> Picture:
    """The law of the certified ratio (left) and of its risk (right) over repeated calibrations."""
    picture = Picture(figsize=(7, 3.4), layout="constrained")
    left, right = picture.subplots(1, 2)
    found = np.isfinite(result.ratio)
    if found.any():
        values, counts = np.unique(result.ratio[found], return_counts=True)
        left.bar(values, counts / len(found), width=0.8 * np.diff(values).min(initial=0.01), color=BLUE)
        right.hist(
            [result.risk[found], result.test_risk[found]],
            bins=20,
            weights=[np.full(int(found.sum()), 1 / len(found))] * 2,
            color=[BLUE, "white"],
            edgecolor=BLUE,
            label=["all examples (the promise)", "left-out examples"],
        )
        picture.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=8)
    _limit(right, result.alpha, f"alpha = {result.alpha:.3g}", axis="x")
    left.set(xlabel="certified pruning ratio", ylabel="share of splits")
    right.set(
        xlabel="risk at the certified ratio", title=f"beyond alpha: {result.broken:.1%}, promised {result.delta:.0%}"
    )
    left.set_title(f"nothing certified: {result.abstained:.1%}")
    percent(left, "xy")
    percent(right, "xy")
    if found.any():
        left.set_xlim(values[0] - 0.02, values[-1] + 0.02)
        right.set_ylim(0, 1.25 * right.get_ylim()[1])
    middle = f"median certified ratio {np.median(result.ratio[found]):g}" if found.any() else "no ratio ever certified"
    return tell(
        picture,
        f"{len(found)} calibrations: {middle}; the risk there exceeds alpha = {result.alpha:.3g} in "
        f"{result.broken:.1%} of them, delta = {result.delta:.3g} allows {result.delta:.0%}; the mean of the left-out "
        f"examples exceeds it in {result.test_broken:.1%}.",
    )


@_styled
def ratio_table(alphas: Sequence[float], deltas: Sequence[float], ratios: ArrayLike, title: str = "") -> Picture:
    """Certified ratios (len(alphas), len(deltas)) as a table shaded by value; NaN means that nothing was certified.

    >>> ratio_table([0.05], [0.1], [[0.8]]).alt
    'Certified ratio by alpha and delta: alpha 0.05, delta 0.1: 0.8.'
    """
    values = np.asarray(ratios, dtype=float)
    picture, ax = _picture(6, 0.6 + 0.42 * len(alphas))
    ax.imshow(values, cmap="Blues", vmin=0, vmax=2.5, aspect="auto")
    notes = []
    for (i, alpha), (j, delta) in ((a, d) for a in enumerate(alphas) for d in enumerate(deltas)):
        text = "none" if np.isnan(values[i, j]) else f"{values[i, j]:g}"
        ax.text(j, i, text, ha="center", va="center")
        notes.append(f"alpha {alpha:g}, delta {delta:g}: {text}")
    ax.set_xticks(range(len(deltas)), [f"{d:g}" for d in deltas])
    ax.set_yticks(range(len(alphas)), [f"{a:g}" for a in alphas])
    ax.set(xlabel="delta", ylabel="alpha", title=title)
    ax.grid(False)
    return tell(picture, "Certified ratio by alpha and delta: " + "; ".join(notes) + ".")


@_styled
def digits(images: ArrayLike, captions: Sequence[str], title: str = "") -> Picture:
    """Grey-level images (k, height, width) in [0, 1] in one row, each with a caption.

    >>> digits(np.zeros((1, 2, 2)), ["a zero"]).alt
    'Digits: a zero.'
    """
    picture = Picture(
        figsize=(7, 1.8), layout=ConstrainedLayoutEngine(h_pad=0.12)
    )  # square axes lose room for captions
    axes = np.atleast_1d(picture.subplots(1, len(captions)))
    for ax, image, caption in zip(axes, np.asarray(images), captions, strict=True):
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(caption, fontsize=9, loc="center")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    if title:
        picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    return tell(picture, "Digits: " + "; ".join(caption.replace("\n", ", ") for caption in captions) + ".")


def _finding(result: Any) -> str:
    return "Nothing certified" if result.ratio is None else f"Certified up to {100 * result.ratio:.4g}% of the weights"


@_styled
def ratio_against_m(
    sizes: ArrayLike, curves: Mapping[str, ArrayLike], *, ceiling: float, n: int, title: str = ""
) -> Picture:
    """Mean certified ratio (sizes,) by procedure against the number of candidates, on a logarithmic axis.

    >>> ratio_against_m([10, 100], {"bonferroni": [0.8, 0.78]}, ceiling=0.87, n=500).alt
    'Mean certified ratio against m, n = 500, largest safe ratio 0.870. bonferroni: 0.800 at m = 10, 0.780 at m = 100.'
    """
    x, notes = np.asarray(sizes), []
    picture, ax = _picture(7, 3.6)
    for (name, values), colour, line, mark in zip(curves.items(), COLOURS, LINES, "osD^v", strict=False):
        y = np.asarray(values, dtype=float)
        ax.plot(x, y, color=colour, linestyle=line, marker=mark, markersize=5, label=name)
        notes.append(f"{name}: {y[0]:.3f} at m = {x[0]}, {y[-1]:.3f} at m = {x[-1]}")
    _limit(ax, ceiling, "largest safe ratio", axis="y")
    ax.set(
        xscale="log", xlabel="candidates tested, m (log scale)", ylabel=f"mean certified ratio, n = {n}", title=title
    )
    ax.set_xticks(x, [str(size) for size in x])
    ax.minorticks_off()
    percent(ax, "y")
    ax.legend(fontsize=9)
    return tell(
        picture,
        f"Mean certified ratio against m, n = {n}, largest safe ratio {ceiling:.3f}. {'; '.join(notes)}.",
    )


@_styled
def error_intervals(rates: Mapping[str, Any], *, title: str = "") -> Picture:
    """Share of repetitions with a false certificate, by procedure, with exact 95 % binomial intervals, and delta.

    Circles: compatible with delta. Crosses: the exact binomial test against "at most delta" has p < 1e-4. `title` says
    what the crosses show; where there is none, the title says that.

    >>> from confprune_edu.validation import ErrorRate
    >>> error_intervals({"peeking": ErrorRate(180, 1000, 0.1)}).alt  # doctest: +ELLIPSIS
    'Share of repetitions with a false certificate, exact 95 % intervals, delta = 0.1: peeking 18.0 % (15.7 to 20.5)...
    """
    picture, ax = _picture(7, 0.9 + 0.38 * len(rates))
    notes, delta = [], next(iter(rates.values())).delta
    for row, (name, rate) in enumerate(rates.items()):
        _, bars = rate_with_bars(np.array([rate.errors]), rate.trials)
        low, high = rate.rate - bars[0, 0], rate.rate + bars[1, 0]
        broken = rate.evidence < 1e-4
        colour, marker = (COLOURS[1], "X") if broken else (BLUE, "o")
        ax.plot([low, high], [row, row], color=colour, linestyle="--" if broken else "-")
        ax.plot(rate.rate, row, marker, color=colour, markersize=8)
        ax.annotate(f"{rate.rate:.1%}", (1.02, row), xycoords=("axes fraction", "data"), va="center")
        notes.append(f"{name} {rate.rate:.1%} ({100 * low:.1f} to {100 * high:.1f}){', broken' if broken else ''}")
    ax.set_yticks(range(len(rates)), list(rates))
    ax.set(ylim=(len(rates) - 0.5, -0.9), xlabel="share of repetitions with a false certificate")
    ax.set_title(title if "broken" in "".join(notes) else "No rule is seen to break the promise here")
    ax.set_xlim(0, min(max(1.15 * ax.get_xlim()[1], 1.6 * delta), 1.02))
    ax.axvline(delta, color=GREY, linestyle="--", linewidth=1.2)
    ax.annotate(
        f"delta = {delta:.3g}", (delta, -0.55), xytext=(4, 0), textcoords="offset points", color=GREY, fontsize=9
    )
    percent(ax, "x")
    told = "; ".join(notes).replace("%", " %")
    return tell(
        picture,
        f"Share of repetitions with a false certificate, exact 95 % intervals, delta = {delta:.3g}: {told}.",
    )


@_styled
def certificate(
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

    >>> certificate([0.5, 0.9], [0.01, 0.2], [0.02, 0.1], [0.01, 1.0], [True, False], alpha=0.05, delta=0.1, n=90).alt
    'n = 90, alpha = 0.05, delta = 0.1: certified up to 0.5, 1 of 2 ratios; the mean over all examples there is 0.0200.'
    """
    x, mean, risk, p = (np.asarray(values, dtype=float) for values in (ratios, means, population, p_values))
    mask = np.asarray(rejected, dtype=bool)
    picture = Picture(figsize=(7, 4))  # fixed margins: a control redraws fast, and nothing moves
    top, bottom = picture.subplots(2, 1, sharex=True, gridspec_kw={"left": 0.12, "right": 0.98, "hspace": 0.12})
    top.plot(x, risk, color=COLOURS[5], linewidth=1.2, label="all examples")
    for ax, y in ((top, mean), (bottom, np.maximum(p, SMALLEST))):
        for part, face, label in ((mask, BLUE, "certified"), (~mask, "white", "not certified")):
            ax.plot(x[part], y[part], "o", markersize=4, color=BLUE, markerfacecolor=face, label=label)
    _limit(top, alpha, f"alpha = {alpha:.3g}", axis="y")
    _limit(bottom, delta, f"delta = {delta:.3g}", axis="y")
    at = np.flatnonzero(mask)
    found = f"certified up to {x[at[-1]]:g}, {len(at)} of {len(x)} ratios" if at.size else "nothing certified"
    top.set(ylim=(-0.05 * alpha, min(2.5 * alpha, 1.02)), ylabel=f"mean loss, n = {n}")
    top.set_title(title or found[0].upper() + found[1:])
    top.set(xticks=np.arange(6) / 5, yticks=[0, alpha, 2 * alpha] if 2 * alpha <= 1 else [0, alpha])
    top.legend(loc="upper left", fontsize=9)
    bottom.set(
        xlim=(-0.02, 1.02),
        ylim=(SMALLEST / 2, 3),
        yscale="log",
        ylabel=P_LABEL,
        xlabel="pruning ratio (weights set to zero)",
    )
    percent(top, "y")
    percent(bottom, "x")
    plain_log(bottom, [1, 0.01, 0.0001, 1e-6])
    there = f"; the mean over all examples there is {risk[at[-1]]:.4f}" if at.size else ""
    return tell(picture, f"n = {n}, alpha = {alpha:.3g}, delta = {delta:.3g}: {found}{there}.")


@_styled
def certified_against(sizes: ArrayLike, results: Mapping[str, ArrayLike], *, xlabel: str, title: str = "") -> Picture:
    """Certified ratios (k, trials) by name against `sizes` (k,): medians, and the middle 80 % as a band.

    NaN, nothing certified, counts as less than any ratio and is drawn at zero.

    >>> certified_against([50, 100], {"fixed": [[np.nan] * 3, [0.8, 0.9, 0.9]]}, xlabel="n").alt
    'Median certified ratio. fixed: none at n 50, 0.9 at n 100.'
    """
    x, notes = np.asarray(sizes, dtype=float), []
    picture, ax = _picture(7, 3.6)
    for (name, ratios), colour, line in zip(results.items(), COLOURS, LINES, strict=False):
        filled = np.nan_to_num(np.asarray(ratios, dtype=float))
        low, middle, high = np.quantile(filled, [0.1, 0.5, 0.9], axis=1, method="lower")
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(x, middle, color=colour, linestyle=line, marker="o", markersize=4, label=name)
        told = [
            f"{value:g} at {xlabel.split()[-1]} {size:g}" if value else f"none at {xlabel.split()[-1]} {size:g}"
            for size, value in zip(x, middle, strict=True)
        ]
        notes.append(f"{name}: {', '.join(told)}")
    ax.set(xscale="log", ylim=(-0.03, 1), xlabel=xlabel, ylabel="certified ratio (0: none)", title=title)
    ax.set_xticks(x, [f"{size:g}" for size in x])
    ax.minorticks_off()
    percent(ax, "y")
    if len(results) > 1:
        ax.legend(loc="lower right")
    return tell(picture, f"Median certified ratio. {'; '.join(notes)}.")


@_styled
def mean_ratios(sizes: ArrayLike, results: Mapping[str, ArrayLike], *, xlabel: str, title: str = "") -> Picture:
    """Mean certified ratio by name over repetitions (k, trials), against `sizes` (k,); NaN, nothing, counts as 0.

    >>> mean_ratios([50, 100], {"rows": [[np.nan, np.nan], [0.8, np.nan]]}, xlabel="digits n").alt
    'Mean certified ratio, nothing certified counted as 0. rows: 0.000 at n = 50, 0.400 at n = 100.'
    """
    x, notes = np.asarray(sizes, dtype=float), []
    picture, ax = _picture(7, 3.4)
    for (name, ratios), colour, line, mark in zip(results.items(), COLOURS, LINES, "osD^v<>p", strict=False):
        y = np.nan_to_num(np.asarray(ratios, dtype=float)).mean(axis=1)
        ax.plot(x, y, color=colour, linestyle=line, marker=mark, markersize=6, label=name)
        told = (f"{value:.3f} at {xlabel.split()[-1]} = {size:g}" for size, value in zip(x, y, strict=True))
        notes.append(f"{name}: {', '.join(told)}")
    ax.set(ylim=(-0.03, 1), xlabel=xlabel, ylabel="mean certified ratio (none: 0)", title=title)
    ax.set_xticks(x, [f"{size:,.0f}" for size in x])
    percent(ax, "y")
    ax.legend(loc="lower right")
    return tell(picture, f"Mean certified ratio, nothing certified counted as 0. {'; '.join(notes)}.")
