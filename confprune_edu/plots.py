"""Every figure of the course. Each function returns a `Picture`: a matplotlib figure that carries its alternative text.

Certified points are filled, others hollow; alpha and delta are dashed grey lines with their name on the line; no
meaning rests on colour alone. Nothing global is touched: no pyplot state, no rcParams.
"""

import base64
import functools
import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from confprune_edu.calibration import Calibration
    from confprune_edu.validation import Splits

# Okabe and Ito (2008), dark enough on white, told apart in grey by the line styles that go with them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9", "#7F7F7F")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
BLUE, GREY = COLOURS[0], "#666666"
SMALLEST, P_LABEL = 1e-6, "p-value (at least 1e-6)"  # smaller ones are drawn there

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.dpi": 100,
}


class Picture(Figure):
    """A figure with alternative text: shown in a notebook as an image that a screen reader can read out."""

    alt: str = ""

    def png(self) -> bytes:
        """The picture as the bytes of a PNG file."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        data = base64.b64encode(self.png()).decode()
        image = f'<img alt="{html.escape(self.alt)}" src="data:image/png;base64,{data}" style="max-width: 100%">'
        return {"text/html": image, "image/png": data, "text/plain": self.alt}


def _styled(draw: Callable[..., Picture]) -> Callable[..., Picture]:
    @functools.wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Picture:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


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
            f"above alpha = {alpha:g} from ratio {x[above[0]]:g} on" if above.size else f"never above alpha = {alpha:g}"
        )
        notes.append(f"{name}: {y[0]:.3f} at ratio {x[0]:g}, {when}")
    _limit(ax, alpha, f"alpha = {alpha:g}", axis="y")
    ax.set(xlabel="pruning ratio (weights set to zero)", ylabel="mean loss", title=title)
    ax.set_ylim(-0.002, max(4 * alpha, 0.02))
    _percent(ax, "xy")
    ax.legend(loc="upper left")
    return _tell(picture, "Risk against pruning ratio. " + "; ".join(notes) + ".")


@_styled
def calibration(result: "Calibration", *, focus: bool = True) -> Picture:
    """Mean losses and p-values of a calibration against the pruning ratio: certified filled, not certified hollow.

    `focus=True` shows only the neighbourhood of the last tested ratios.
    """
    picture = Picture(figsize=(7, 4), layout="constrained")
    top, bottom = picture.subplots(2, 1, sharex=True)
    tested = np.isfinite(result.p_values)
    x, last = result.ratios[tested], result.ratios[tested][-1]
    show = (result.ratios >= last - 0.2) & tested if focus and result.procedure == "fixed_sequence" else tested
    for ax, y in ((top, result.loss_means), (bottom, np.maximum(result.p_values, SMALLEST))):
        for mask, face in ((show & result.rejected, BLUE), (show & ~result.rejected, "white")):
            ax.plot(result.ratios[mask], y[mask], "o", markersize=5, color=BLUE, markerfacecolor=face)
    _limit(top, result.alpha, f"alpha = {result.alpha:g}", axis="y")
    _limit(bottom, result.delta, f"delta = {result.delta:g}", axis="y")
    top.set(ylabel=f"mean {result.loss}", title=_finding(result))
    bottom.set(ylabel=P_LABEL, yscale="log", xlabel="pruning ratio (weights set to zero)")
    _percent(top, "y")
    _percent(bottom, "x")
    alt = (
        f"{_finding(result)}. Two panels against the pruning ratio, {len(x)} of {len(result.ratios)} ratios tested: "
        f"the mean calibration loss with alpha = {result.alpha:g}, and the {result.p_value} p-values with delta = "
        f"{result.delta:g}. Filled points are certified, hollow ones are not."
    )
    return _tell(picture, alt)


@_styled
def p_value_curves(ratios: ArrayLike, curves: Mapping[str, ArrayLike], *, delta: float, title: str = "") -> Picture:
    """P-values (m,) by method against the pruning ratio, on a logarithmic axis, where they cross delta.

    >>> p_value_curves([0.8, 0.9], {"tight": [0.01, 0.5]}, delta=0.1).alt
    'P-values against pruning ratio with delta = 0.1. Largest ratio with every p-value so far at most delta: tight 0.8.'
    """
    x, notes = np.asarray(ratios, dtype=float), []
    picture, ax = _picture(7, 3.8)
    for (name, values), colour, line in zip(curves.items(), COLOURS, LINES, strict=False):
        p = np.asarray(values, dtype=float)
        ax.plot(x, np.maximum(p, SMALLEST), color=colour, linestyle=line, marker=".", label=name)
        passed = int(np.logical_and.accumulate(p <= delta).sum())
        notes.append(f"{name} {x[passed - 1]:g}" if passed else f"{name} none")
    _limit(ax, delta, f"delta = {delta:g}", axis="y")
    crossing = [int(np.argmax(np.asarray(v) > delta)) for v in curves.values()]
    ax.set_xlim(x[max(min(crossing) - 8, 0)], x[min(max(crossing) + 4, len(x) - 1)])
    ax.set(xlabel="pruning ratio (weights set to zero)", ylabel=P_LABEL, yscale="log", title=title)
    _percent(ax, "x")
    ax.legend(ncols=2, fontsize=9)
    found = ", ".join(notes)
    return _tell(
        picture,
        f"P-values against pruning ratio with delta = {delta:g}. Largest ratio with every p-value so far at most "
        f"delta: {found}.",
    )


@_styled
def splits(result: "Splits") -> Picture:
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
        right.legend(fontsize=8, loc="upper left")
    _limit(right, result.alpha, f"alpha = {result.alpha:g}", axis="x")
    left.set(xlabel="certified pruning ratio", ylabel="share of splits")
    right.set(
        xlabel="risk at the certified ratio", title=f"beyond alpha: {result.broken:.1%}, promised {result.delta:.0%}"
    )
    left.set_title(f"nothing certified: {result.abstained:.1%}")
    _percent(left, "xy")
    _percent(right, "xy")
    if found.any():
        left.set_xlim(values[0] - 0.02, values[-1] + 0.02)
        right.set_ylim(0, 1.25 * right.get_ylim()[1])
    middle = f"median certified ratio {np.median(result.ratio[found]):g}" if found.any() else "no ratio ever certified"
    return _tell(
        picture,
        f"{len(found)} repeated calibrations: {middle}; the risk there exceeds alpha = {result.alpha:g}"
        f" in {result.broken:.1%} of them, delta = {result.delta:g} allows {result.delta:.0%}; the mean of the left-out "
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
    return _tell(picture, "Certified ratio by alpha and delta: " + "; ".join(notes) + ".")


@_styled
def digits(images: ArrayLike, captions: Sequence[str], title: str = "") -> Picture:
    """Grey-level images (k, height, width) in [0, 1] in one row, each with a caption.

    >>> digits(np.zeros((1, 2, 2)), ["a zero"]).alt
    'Digits: a zero.'
    """
    picture = Picture(figsize=(7, 1.7), layout="constrained")
    axes = np.atleast_1d(picture.subplots(1, len(captions)))
    for ax, image, caption in zip(axes, np.asarray(images), captions, strict=True):
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(caption, fontsize=9, loc="center")
        ax.set_axis_off()
    picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    return _tell(picture, "Digits: " + "; ".join(caption.replace("\n", ", ") for caption in captions) + ".")


def _picture(width: float, height: float) -> tuple[Picture, Axes]:
    picture = Picture(figsize=(width, height), layout="constrained")
    return picture, picture.subplots()


def _tell(picture: Picture, alt: str) -> Picture:
    picture.alt = alt
    return picture


def _finding(result: "Calibration") -> str:
    return "Nothing certified" if result.ratio is None else f"Certified up to {result.ratio:.0%} of the weights"


def _limit(ax: Axes, value: float, label: str, *, axis: str) -> None:
    """A dashed grey line at `value` with its name on it."""
    if axis == "y":
        ax.axhline(value, color=GREY, linestyle="--", linewidth=1.2)
        ax.annotate(label, (0.01, value), xycoords=("axes fraction", "data"), va="bottom", color=GREY, fontsize=9)
    else:
        ax.axvline(value, color=GREY, linestyle="--", linewidth=1.2)
        ax.annotate(
            label,
            (value, 0.98),
            xycoords=("data", "axes fraction"),
            ha="right",
            va="top",
            rotation=90,
            color=GREY,
            fontsize=9,
        )


def _percent(ax: Axes, which: str) -> None:
    for name in which:
        axis = ax.xaxis if name == "x" else ax.yaxis
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
