"""Figures that several lessons share: certificates, risks and p-values against the ratio, repeated splits, error rates.

`certificate` is what `Calibration.plot()` shows. Lesson 05 has no figures of its own: it uses these alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from confprune_edu.plots import picture as draw


@draw.styled
def risk_curves(ratios: ArrayLike, curves: draw.ByName, *, alpha: float, title: str = "") -> draw.Picture:
    """Mean losses (m,) by name against the pruning ratio, with alpha as a line.

    >>> risk_curves([0.0, 0.5], {"error": [0.01, 0.2]}, alpha=0.1).alt
    'Risk against pruning ratio. error: 0.010 at ratio 0, above alpha = 0.1 from ratio 0.5 on.'
    """
    x, notes, line = np.asarray(ratios, dtype=float), [], f"alpha = {alpha:.3g}"
    picture, (ax,) = draw.blank(7, 3.6)
    for name, y in draw.lines(ax, x, curves):
        above = np.flatnonzero(y > alpha)
        when = f"above {line} from ratio {x[above[0]]:g} on" if above.size else f"never above {line}"
        notes.append(f"{name}: {y[0]:.3f} at ratio {x[0]:g}, {when}")
    draw.level(ax, alpha, line)
    ax.set(ylabel="mean loss", title=title, ylim=(-0.02 * min(4 * alpha, 1), min(max(4 * alpha, 0.02), 1)))
    draw.ratio_axis(ax)
    draw.percent(ax, "y")
    ax.legend(loc="upper left")
    return draw.tell(picture, "Risk against pruning ratio.", notes)


@draw.styled
def p_value_curves(ratios: ArrayLike, curves: draw.ByName, *, delta: float, title: str = "") -> draw.Picture:
    """P-values (m,) by method against the pruning ratio, on a logarithmic axis, where they cross delta.

    >>> p_value_curves([0.8, 0.9], {"tight": [0.01, 0.5]}, delta=0.1).alt
    'P-values against pruning ratio with delta = 0.1. Largest ratio with every p-value so far at most delta: tight 0.8.'
    """
    x, line = np.asarray(ratios, dtype=float), f"delta = {delta:.3g}"
    picture, (ax,) = draw.blank(7, 3.8)
    drawn = draw.lines(ax, x, {name: np.maximum(p, draw.SMALLEST) for name, p in curves.items()}, marks=".")
    passed = {name: int(np.logical_and.accumulate(p <= delta).sum()) for name, p in drawn}
    crossing = [int(np.argmax(p > delta)) for _, p in drawn]
    draw.level(ax, delta, line)
    ax.set_xlim(x[max(min(crossing) - 8, 0)], x[min(max(crossing) + 4, len(x) - 1)])
    ax.set_title(title)
    draw.p_value_axis(ax)
    draw.ratio_axis(ax)
    ax.legend(ncols=2, fontsize=9)
    found = ", ".join(f"{name} {x[k - 1]:g}" if k else f"{name} none" for name, k in passed.items())
    about = "Largest ratio with every p-value so far at most delta"
    return draw.tell(picture, f"P-values against pruning ratio with {line}. {about}: {found}.")


@draw.styled
def certificate(result: Any, *, focus: bool = True) -> draw.Picture:
    """Mean losses and p-values of a calibration against the pruning ratio: certified filled, not certified hollow.

    `focus=True` shows only the neighbourhood of the certified ratio. Grey crosses are p-values beyond the first failure
    of a fixed sequence: computed, and never tested.
    """
    picture, (top, bottom) = draw.blank(7, 4, 2, sharex=True)
    computed = np.isfinite(result.p_values)
    centre = result.ratios[0] if result.ratio is None else result.ratio
    show = computed & (np.abs(result.ratios - centre) <= 0.2) if focus else computed
    _evidence(top, bottom, result, show, size=5)
    high = max(float(result.loss_means[show].max(initial=0)), result.alpha)
    finding = "Nothing certified"
    if result.ratio is not None:
        finding = f"Certified up to {100 * result.ratio:.4g}% of the weights"
        if (knob := getattr(result, "knob", None)) is not None:
            finding = f"Certified up to {knob} = {result.ratio:g}"
    top.set(ylim=(-0.03 * high, min(1.2 * high, 1.02)), ylabel=f"mean {result.loss}", title=finding)
    return draw.tell(
        picture,
        f"{finding}. Two panels against the ratio, {int(result.tested.sum())} of {len(result.ratios)} tested: "
        f"the mean calibration loss with alpha = {result.alpha:.3g}, and the {result.p_value} p-values with delta = "
        f"{result.delta:g}. Filled points are certified, hollow ones are not."
        + (" Crosses were never tested." if (computed & ~result.tested).any() else ""),
    )


@draw.styled
def grid_of_tests(result: Any, population: ArrayLike) -> draw.Picture:
    """Mean losses and p-values of a whole grid, on axes that stay, with the mean over all examples, (m,), as a line.

    `result` is a calibration in which every p-value was computed.

    >>> from confprune_edu.calibration import calibrate_losses
    >>> result = calibrate_losses(np.repeat([[0, 1]], 90, axis=0), [0.5, 0.9], alpha=0.05, delta=0.1)
    >>> grid_of_tests(result, [0.02, 0.7]).alt
    'n = 90, alpha = 0.05, delta = 0.1: certified up to 0.5, 1 of 2 ratios; the mean over all examples there is 0.0200.'
    """
    x, risk, alpha = result.ratios, np.asarray(population, dtype=float), result.alpha
    picture, (top, bottom) = draw.blank(7, 4, 2, sharex=True, margins={"left": 0.12, "right": 0.98, "hspace": 0.12})
    top.plot(x, risk, color=draw.COLOURS[5], linewidth=1.2, label="all examples")
    _evidence(top, bottom, result, np.full(len(x), True), size=4)
    at = np.flatnonzero(result.rejected)
    found = f"certified up to {x[at[-1]]:g}, {len(at)} of {len(x)} ratios" if at.size else "nothing certified"
    top.set(ylim=(-0.05 * alpha, min(2.5 * alpha, 1.02)), ylabel=f"mean loss, n = {result.n}")
    top.set(xticks=np.arange(6) / 5, yticks=[0, alpha, 2 * alpha] if 2 * alpha <= 1 else [0, alpha])
    top.set_title(draw.capital(found))
    top.legend(loc="upper left", fontsize=9, ncols=2)
    bottom.set(xlim=(-0.02, 1.02), ylim=(draw.SMALLEST / 2, 3))
    draw.plain_log(bottom, [1, 0.01, 0.0001, 1e-6])
    there = f"; the mean over all examples there is {risk[at[-1]]:.4f}" if at.size else ""
    return draw.tell(picture, f"n = {result.n}, alpha = {alpha:.3g}, delta = {result.delta:.3g}: {found}{there}.")


def _evidence(top: Axes, bottom: Axes, result: Any, show: np.ndarray, *, size: int) -> None:
    """Mean losses above and p-values below, of the ratios in the mask `show`."""
    x, mean, p, mask = (v[show] for v in (result.ratios, result.loss_means, result.p_values, result.rejected))
    for ax, y in ((top, mean), (bottom, np.maximum(p, draw.SMALLEST))):
        draw.filled(ax, x, y, mask, size=size, tested=result.tested[show])
    draw.level(top, result.alpha, f"alpha = {result.alpha:.3g}")
    draw.level(bottom, result.delta, f"delta = {result.delta:.3g}")
    draw.p_value_axis(bottom)
    draw.percent(top, "y")
    draw.ratio_axis(bottom, knob=getattr(result, "knob", None))


@draw.styled
def splits(result: Any) -> draw.Picture:
    """The law of the certified ratio (left) and of its risk (right) over repeated calibrations."""
    picture, (left, right) = draw.blank(7, 3.4, 1, 2)
    found, middle = np.isfinite(result.ratio), "no ratio ever certified"
    draw.level(right, result.alpha, f"alpha = {result.alpha:.3g}", axis="x")
    if found.any():
        middle = f"median certified ratio {np.median(result.ratio[found]):g}"
        values, counts = np.unique(result.ratio[found], return_counts=True)
        left.bar(values, counts / len(found), width=0.8 * np.diff(values).min(initial=0.01), color=draw.BLUE)
        left.set_xlim(values[0] - 0.02, values[-1] + 0.02)
        left.xaxis.set_major_locator(MaxNLocator(4))
        right.hist(
            [result.risk[found], result.test_risk[found]],
            bins=20,
            weights=[np.full(int(found.sum()), 1 / len(found))] * 2,
            color=[draw.BLUE, "white"],
            edgecolor=draw.BLUE,
            label=["all examples (the promise)", "left-out examples"],
        )
        right.set_ylim(0, 1.25 * right.get_ylim()[1])
        picture.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=8)
    left.set(xlabel="certified pruning ratio", ylabel="share of splits")
    left.set_title(f"nothing certified: {result.abstained:.1%}")
    right.set_xlabel("risk at the certified ratio")
    right.set_title(f"beyond alpha: {result.broken:.1%}, promised {result.delta:.0%}")
    for ax in (left, right):
        draw.percent(ax, "xy")
    return draw.tell(
        picture,
        f"{len(found)} calibrations: {middle}; the risk there exceeds alpha = {result.alpha:.3g} in "
        f"{result.broken:.1%} of them, delta = {result.delta:.3g} allows {result.delta:.0%}; the mean of the left-out "
        f"examples exceeds it in {result.test_broken:.1%}.",
    )


@draw.styled
def ratio_table(alphas: Sequence[float], deltas: Sequence[float], ratios: ArrayLike, title: str = "") -> draw.Picture:
    """Certified ratios (len(alphas), len(deltas)) as a table shaded by value; NaN means that nothing was certified.

    >>> ratio_table([0.05], [0.1], [[0.8]]).alt
    'Certified ratio by alpha and delta: alpha 0.05, delta 0.1: 0.8.'
    """
    values, notes = np.asarray(ratios, dtype=float), []
    picture, (ax,) = draw.blank(6, 0.6 + 0.42 * len(alphas))
    ax.imshow(values, cmap="Blues", vmin=0, vmax=2.5, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        text = "none" if np.isnan(value) else f"{value:g}"
        ax.text(j, i, text, ha="center", va="center")
        notes.append(f"alpha {alphas[i]:g}, delta {deltas[j]:g}: {text}")
    ax.set_xticks(range(len(deltas)), [f"{d:g}" for d in deltas])
    ax.set_yticks(range(len(alphas)), [f"{a:g}" for a in alphas])
    ax.set(xlabel="delta", ylabel="alpha", title=title)
    ax.grid(False)
    return draw.tell(picture, "Certified ratio by alpha and delta:", notes)


@draw.styled
def digits(images: ArrayLike, captions: Sequence[str], title: str = "") -> draw.Picture:
    """Grey-level images (k, height, width) in [0, 1] in one row, each with a caption.

    >>> digits(np.zeros((1, 2, 2)), ["a zero"]).alt
    'Digits: a zero.'
    """
    picture, axes = draw.blank(7, 1.8, 1, len(captions))
    picture.set_layout_engine(ConstrainedLayoutEngine(h_pad=0.12))  # square axes lose room for captions
    for ax, image, caption in zip(axes, np.asarray(images), captions, strict=True):
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(caption, fontsize=9, loc="center")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    draw.heading(picture, title)
    return draw.tell(picture, "Digits:", [caption.replace("\n", ", ") for caption in captions])


@draw.styled
def error_intervals(rates: Mapping[str, Any], *, title: str = "", event: str = "a false certificate") -> draw.Picture:
    """Share of repetitions with `event`, by procedure, with exact 95 % binomial intervals, and delta.

    A bar is the interval, the black line in it the share. Hatched: the exact binomial test against "at most delta" has
    p < 1e-4. `title` says what the hatched bars show; where there is none, the title says that.

    >>> from confprune_edu.validation import ErrorRate
    >>> error_intervals({"peeking": ErrorRate(180, 1000, 0.1)}).alt  # doctest: +ELLIPSIS
    'Share of repetitions with a false certificate, exact 95 % intervals, delta = 0.1: peeking 18.0 % (15.7 to 20.5)...
    """
    picture, (ax,) = draw.blank(7, 0.9 + 0.38 * len(rates))
    notes, delta = [], next(iter(rates.values())).delta
    for row, (name, rate) in enumerate(rates.items()):
        notes.append(f"{name} {draw.rate_row(ax, row, rate)}")
        ax.annotate(f"{rate.rate:.1%}", (1.02, row), xycoords=("axes fraction", "data"), va="center")
    told = "; ".join(notes)
    ax.set_yticks(range(len(rates)), list(rates))
    ax.set(ylim=(len(rates) - 0.5, -0.9), xlabel=f"share of repetitions with {event}")
    ax.set_title(title if "broken" in told else "No rule is seen to break the promise here")
    ax.set_xlim(0, min(max(1.15 * ax.get_xlim()[1], 1.6 * delta), 1.02))
    top = (len(rates) + 0.05) / (len(rates) + 0.4)
    draw.level(ax, delta, f"delta = {delta:.3g}", axis="x", at=top, gap=4, ha="left", va="baseline", rotation=0)
    draw.percent(ax, "x")
    what = f"Share of repetitions with {event}, exact 95 % intervals"
    return draw.tell(picture, f"{what}, delta = {delta:.3g}: {told}.")
