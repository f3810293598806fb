"""Every figure of the course. Each function returns a `Picture`: a matplotlib figure that carries its alternative text.

Certified points are filled, others hollow; alpha and delta are dashed grey lines with their name on the line; no
meaning rests on colour alone. Nothing global is touched: no pyplot state, no rcParams.
"""

import base64
import functools
import html
import io
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, Patch, Wedge
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike
from PIL import Image
from scipy.special import betaincinv

from confprune_edu import fwer, pvalues

if TYPE_CHECKING:
    from confprune_edu.calibration import Calibration
    from confprune_edu.selective import SelectiveCalibration
    from confprune_edu.validation import ErrorRate, SelectiveSplits, Splits

# Okabe and Ito (2008), dark enough on white, told apart in grey by the line styles that go with them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9", "#7F7F7F")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
BLUE, GREY = COLOURS[0], "#666666"
_ORANGE = np.array([230, 159, 0]) / 255
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


# JupyterLab runs a widget's callback in another thread than the cells; matplotlib's settings and fonts are for one.
ONE_AT_A_TIME = threading.RLock()


class Picture(Figure):
    """A figure with alternative text: shown in a notebook as an image that a screen reader can read out."""

    alt: str = ""
    colours: int = 128

    def png(self) -> bytes:
        """The picture as the bytes of a PNG file with a palette of `colours`, a third of the size of full colour."""
        canvas = FigureCanvasAgg(self)
        with ONE_AT_A_TIME:
            canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        buffer = io.BytesIO()
        image.quantize(self.colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            buffer, format="png"
        )
        return buffer.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        data = base64.b64encode(self.png()).decode()
        image = f'<img alt="{html.escape(self.alt)}" src="data:image/png;base64,{data}" style="max-width: 100%">'
        return {"text/html": image, "image/png": data, "text/plain": self.alt}


def _styled(draw: Callable[..., Picture]) -> Callable[..., Picture]:
    @functools.wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Picture:
        with ONE_AT_A_TIME, mpl.rc_context(STYLE):
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
            f"above alpha = {alpha:.3g} from ratio {x[above[0]]:g} on"
            if above.size
            else f"never above alpha = {alpha:.3g}"
        )
        notes.append(f"{name}: {y[0]:.3f} at ratio {x[0]:g}, {when}")
    _limit(ax, alpha, f"alpha = {alpha:.3g}", axis="y")
    ax.set(xlabel="pruning ratio (weights set to zero)", ylabel="mean loss", title=title)
    ax.set_ylim(-0.02 * min(4 * alpha, 1), min(max(4 * alpha, 0.02), 1))
    _percent(ax, "xy")
    ax.legend(loc="upper left")
    return _tell(picture, "Risk against pruning ratio. " + "; ".join(notes) + ".")


@_styled
def calibration(result: "Calibration", *, focus: bool = True) -> Picture:
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
    _percent(top, "y")
    _percent(bottom, "x")
    alt = (
        f"{_finding(result)}. Two panels against the ratio, {int(tested.sum())} of {len(result.ratios)} tested: "
        f"the mean calibration loss with alpha = {result.alpha:.3g}, and the {result.p_value} p-values with delta = "
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
    for (name, values), (colour, line) in zip(curves.items(), _method_styles(curves), strict=True):
        p = np.asarray(values, dtype=float)
        ax.plot(x, np.maximum(p, SMALLEST), color=colour, linestyle=line, marker=".", label=name)
        passed = int(np.logical_and.accumulate(p <= delta).sum())
        notes.append(f"{name} {x[passed - 1]:g}" if passed else f"{name} none")
    _limit(ax, delta, f"delta = {delta:.3g}", axis="y")
    crossing = [int(np.argmax(np.asarray(v) > delta)) for v in curves.values()]
    ax.set_xlim(x[max(min(crossing) - 8, 0)], x[min(max(crossing) + 4, len(x) - 1)])
    ax.set(xlabel="pruning ratio (weights set to zero)", ylabel=P_LABEL, yscale="log", title=title)
    _percent(ax, "x")
    ax.legend(ncols=2, fontsize=9)
    found = ", ".join(notes)
    return _tell(
        picture,
        f"P-values against pruning ratio with delta = {delta:.3g}. Largest ratio with every p-value so far at most "
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
        picture.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=8)
    _limit(right, result.alpha, f"alpha = {result.alpha:.3g}", axis="x")
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
    return _tell(picture, "Certified ratio by alpha and delta: " + "; ".join(notes) + ".")


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
    return _tell(picture, "Digits: " + "; ".join(caption.replace("\n", ", ") for caption in captions) + ".")


def _picture(width: float, height: float) -> tuple[Picture, Axes]:
    picture = Picture(figsize=(width, height), layout="constrained")
    return picture, picture.subplots()


def _tell(picture: Picture, alt: str) -> Picture:
    picture.alt = alt
    return picture


def _finding(result: "Calibration") -> str:
    return "Nothing certified" if result.ratio is None else f"Certified up to {100 * result.ratio:.4g}% of the weights"


def _limit(ax: Axes, value: float, label: str, *, axis: str) -> None:
    """A dashed grey line at `value` with its name on it."""
    if axis == "y":
        ax.axhline(value, color=GREY, linestyle="--", linewidth=1.2)
        ax.annotate(label, (0.01, value), xycoords=("axes fraction", "data"), va="bottom", color=GREY, fontsize=9)
    else:
        ax.axvline(value, color=GREY, linestyle="--", linewidth=1.2)
        ax.annotate(
            label,
            (value, 0.5),
            xycoords=("data", "axes fraction"),
            ha="right",
            va="center",
            rotation=90,
            color=GREY,
            fontsize=9,
        )


def _percent(ax: Axes, which: str, decimals: int | None = None) -> None:
    for name in which:
        axis = ax.xaxis if name == "x" else ax.yaxis
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=decimals))


# Lesson 02

METHOD_STYLE: dict[str, tuple[str, Any]] = {  # one colour and one line for each p-value, in every figure
    "hoeffding": (COLOURS[0], "--"),
    "bentkus": (COLOURS[3], "-."),
    "hoeffding_bentkus": (COLOURS[7], ":"),
    "prw": (COLOURS[2], (0, (5, 1))),
    "tight": (COLOURS[5], "-"),
    "betting": (COLOURS[4], (0, (3, 1, 1, 1))),
    "clt": (COLOURS[1], (0, (1, 1))),
    "binomial": (COLOURS[6], (0, (8, 2))),
}


def _method_styles(names: Iterable[str]) -> list[tuple[str, Any]]:
    """Colour and line by name: those of the method, or the next of the cycle for any other name."""
    cycle = zip(COLOURS, LINES, strict=True)
    return [METHOD_STYLE.get(name, cycled) for name, cycled in zip(names, cycle, strict=False)]


@_styled
def error_counts(
    counts: ArrayLike, n: int, alpha: float, *, errors: int, title: str = "", examples: str = "samples"
) -> Picture:
    """How often a model of risk alpha makes k errors among n: simulated `counts` (dots), the law (bars), tail filled.

    >>> error_counts([1, 2, 2, 3], 4, 0.5, errors=1).alt
    'Errors among n = 4 of a model of risk 0.5: at most 1 with probability 0.312; in 0.2500 of 4 simulated samples.'
    """
    drawn, k = np.bincount(np.asarray(counts), minlength=n + 1) / np.size(counts), np.arange(n + 1)
    pmf = _binomial_pmf(n, alpha)
    shown = (pmf > 1e-4 * pmf.max()) | (k <= errors + 1)
    picture, ax = _picture(7, 3.2)
    faces = [BLUE if i <= errors else "white" for i in k[shown]]
    ax.bar(k[shown], pmf[shown], color=faces, edgecolor=BLUE)
    ax.plot(
        k[shown], drawn[shown], "o", color=COLOURS[1], markersize=4, label=f"{np.size(counts):,} simulated {examples}"
    )
    ax.axvline(n * alpha, color=GREY, linestyle="--", linewidth=1.2, label="expected: n alpha")
    ax.set(xlabel=f"errors among n = {n:,} examples, risk = {alpha:g}", ylabel="probability", title=title)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    lines = ax.get_legend_handles_labels()[0]
    tail = Patch(facecolor=BLUE, edgecolor=BLUE, label=f"at most {errors}: {pmf[: errors + 1].sum():.3g} in all")
    ax.legend(handles=[tail, Patch(facecolor="white", edgecolor=BLUE, label="the binomial law"), *lines])
    chance, share = pmf[: errors + 1].sum(), drawn[: errors + 1].sum()
    return _tell(
        picture,
        f"Errors among n = {n} of a model of risk {alpha:g}: at most {errors} with probability {chance:.3g}; in "
        f"{share:.4f} of {np.size(counts):,} simulated samples.",
    )


@_styled
def p_value_laws(
    laws: Mapping[str, tuple[ArrayLike, ArrayLike]], *, limit: float = 1.0, at: float = 0.1, title: str = ""
) -> Picture:
    """Distribution functions of p-values, up to u = `limit`: a valid one stays out of the hatched half under the null.

    Parameters
    ----------
    laws : by name, the values of a p-value (k,) and their probabilities (k,)
        For simulated p-values, equal probabilities.
    limit, at : float
        Largest u drawn; the level that the alternative text reports.

    >>> p_value_laws({"fair": ([0.05, 0.5, 1.0], [0.05, 0.45, 0.5])}).alt
    'Share of p-values that are at most u, against u. At u = 0.1: fair 0.050. Above the diagonal somewhere: none.'
    """
    picture, ax = _picture(7, 3.8)
    ax.fill_between([0, limit], [0, limit], [1, 1], facecolor="none", edgecolor="#D9D9D9", hatch="//", linewidth=0)
    ax.plot([0, limit], [0, limit], color=GREY, linewidth=1)
    notes, broken, top = [], [], limit
    for (name, (p, chance)), (colour, line) in zip(laws.items(), _method_styles(laws), strict=True):
        u, which = np.unique(np.asarray(p, dtype=float), return_inverse=True)
        below = np.cumsum(np.bincount(which, np.asarray(chance, dtype=float)))
        shown = np.searchsorted(u, limit, side="right")
        x, y = np.r_[0, u[:shown], limit], np.r_[0, below[:shown], below[shown - 1] if shown else 0]
        ax.step(x, y, where="post", color=colour, linestyle=line, label=name)
        top = max(top, y[-1])
        reached = np.searchsorted(u, at, side="right")
        notes.append(f"{name} {below[reached - 1] if reached else 0:.3f}")
        broken += [name] if (below - u).max() > 1e-9 else []
    ax.set(xlim=(0, limit), ylim=(0, min(1.04 * top, 1.02)), title=title)
    ax.set(xlabel="u", ylabel="probability of p ≤ u")
    if at < limit:
        ax.axvline(at, color=GREY, linestyle="--", linewidth=1.2)
        ax.annotate(
            f"u = {at:g}",
            (at, 0.98),
            (4, 0),
            ("data", "axes fraction"),
            "offset points",
            va="top",
            color=GREY,
            fontsize=9,
        )
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return _tell(
        picture,
        f"Share of p-values that are at most u, against u. At u = {at:g}: {', '.join(notes)}. "
        f"Above the diagonal somewhere: {', '.join(broken) or 'none'}.",
    )


@_styled
def chord(f: Callable[[Any], Any], alpha: float, risk: float, *, label: str, title: str = "") -> Picture:
    """A convex decreasing f on [0, 1] below its chord: losses and coins of mean `risk`, and a coin of mean alpha.

    >>> chord(lambda x: np.exp(-3 * x), 0.1, 0.4, label="exp(-3 x)").alt
    'exp(-3 x) on [0, 1] lies below its chord; the chord falls from 0.905 at alpha = 0.1 to 0.620 at the risk 0.4.'
    """
    x = np.linspace(0, 1, 201)
    line = f(0.0) + x * (f(1.0) - f(0.0))
    picture, ax = _picture(7, 3.2)
    ax.fill_between(x, f(x), line, color=BLUE, alpha=0.12, label="E f(L) of a loss of mean x lies here")
    ax.plot(x, f(x), color=BLUE, label=f"f(x) = {label}")
    ax.plot(x, line, color=COLOURS[1], linestyle="--", label="chord: E f of a coin of mean x")
    for mean, name, face in ((risk, f"risk {risk:g}", "white"), (alpha, f"alpha = {alpha:.3g}", COLOURS[1])):
        height = f(0.0) + mean * (f(1.0) - f(0.0))
        ax.plot(mean, height, "o", color=COLOURS[1], markerfacecolor=face, zorder=3)
        ax.annotate(f"coin, {name}", (mean, height), xytext=(6, 5), textcoords="offset points", fontsize=9)
    ax.set(xlabel="loss on one example, or its mean", ylabel="f", title=title)
    ax.legend(loc="upper right", fontsize=9)
    values = [f(0.0) + mean * (f(1.0) - f(0.0)) for mean in (alpha, risk)]
    return _tell(
        picture,
        f"{label} on [0, 1] lies below its chord; the chord falls from {values[0]:.3f} at alpha = {alpha:.3g} to "
        f"{values[1]:.3f} at the risk {risk:g}.",
    )


@_styled
def majorants(s: float, n: int, alpha: float) -> Picture:
    """Functions above the step 1{x <= s} (left), and what each costs as a bound on P[S <= s] (right).

    Hinges (c - x)+ / (c - s) for three c, and the exponential of Hoeffding; s < n alpha.

    >>> majorants(5, 100, 0.1).alt
    'Majorants of the step, s = 5, n = 100, alpha = 0.1. Bounds: Hoeffding 0.188; hinge at c = 6: 0.0914; hinge at
    c = 7: 0.104; hinge at c = 9: 0.184. The smallest hinge bound is at c = 6.'
    """
    c = np.arange(int(np.floor(s)) + 1, n + 1)
    hinge = np.cumsum(pvalues.binomial(np.arange(n + 1), n, alpha))[c - 1] / (c - s)
    best, first = c[hinge.argmin()], c[0]
    hoeffding = float(pvalues.hoeffding(s, n, alpha))
    slope = np.log(alpha * (n - s) / ((1 - alpha) * s)) if s > 0 else np.inf
    wide = int(min(n, best + max(2 * (best - s), 3)))
    hinges = dict.fromkeys((int(first), int(best), min(int(best) + 1, n), wide))
    picture = Picture(figsize=(7, 3.8), layout="constrained")
    left, right = picture.subplots(1, 2, width_ratios=[1.25, 1])
    x = np.linspace(0, max(n * alpha, wide) + 1, 1201)
    left.fill_between(x, x <= s, color="#D9D9D9", label="the step 1{x ≤ s}", step="mid")
    with np.errstate(over="ignore"):
        left.plot(x, np.exp(slope * (s - x)) if s > 0 else (x <= 0), color="black", linestyle=":", label="exponential")
    for at, colour, line in zip(hinges, COLOURS, LINES, strict=False):
        left.plot(x, np.maximum(at - x, 0) / (at - s), color=colour, linestyle=line, label=f"hinge at c = {at}")
    left.set(ylim=(0, 2.6), xlabel=f"x, a sum of n = {n:,} losses", ylabel="value", title="Each lies above the step")
    left.legend(fontsize=9, loc="upper right")
    shown = c <= max(2 * best - s, best + 4)
    right.plot(c[shown], hinge[shown], "o", color=BLUE, markerfacecolor="white", label="hinge at c")
    right.plot(best, hinge.min(), "o", color=BLUE, label="the best hinge: tight")
    right.axhline(hoeffding, color="black", linestyle=":", label="exponential (Hoeffding)")
    right.set(xlabel="c", ylabel="bound on P[S ≤ s]", title=f"The best price is at c = {best}")
    right.set_ylim(0, 1.1 * max(hoeffding, hinge[shown].max()))
    right.legend(fontsize=9, loc="lower right")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    bounds = "; ".join(f"hinge at c = {at}: {hinge[at - first]:.3g}" for at in hinges)
    return _tell(
        picture,
        f"Majorants of the step, s = {s:g}, n = {n}, alpha = {alpha:.3g}. Bounds: Hoeffding {hoeffding:.3g}; {bounds}. "
        f"The smallest hinge bound is at c = {best}.",
    )


@_styled
def wealth(games: Mapping[str, ArrayLike], *, delta: float, title: str = "") -> Picture:
    """Wealth of gamblers over time, arrays (n + 1, players) by name: one panel each, with the goal 1 / delta.

    >>> wealth({"fair": [[1.0, 1.0], [0.5, 20.0]]}, delta=0.1).alt
    'Wealth against examples seen. fair: 1 of 2 players ever own 1 / delta = 10.'
    """
    picture = Picture(figsize=(7, 3.4), layout="constrained")
    axes = np.atleast_1d(picture.subplots(1, len(games), sharey=True))
    notes = []
    for ax, (name, paths) in zip(axes, games.items(), strict=True):
        paths = np.asarray(paths, dtype=float)
        won = (paths >= 1 / delta).any(axis=0)
        ax.plot(paths[:, ~won], color=GREY, linewidth=0.8)
        ax.plot(paths[:, won], color=BLUE, linewidth=1.2)
        _limit(ax, 1 / delta, f"1 / delta = {1 / delta:g}", axis="y")
        ax.set(xlabel="examples seen", title=f"{name}: {won.sum()} of {paths.shape[1]} reach it", yscale="log")
        ax.yaxis.set_major_formatter("{x:g}")
        notes.append(f"{name}: {won.sum()} of {paths.shape[1]} players ever own 1 / delta = {1 / delta:g}")
    axes[0].set_ylabel("wealth (start: 1)")
    picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    return _tell(picture, "Wealth against examples seen. " + "; ".join(notes) + ".")


@_styled
def p_values_by_mean(n: int, alpha: float, variance: float = 1.0, *, delta: float = 0.1, seed: int = 0) -> Picture:
    """P-values by every method against the mean loss of n examples, at one variance of the losses.

    Parameters
    ----------
    n, alpha, delta
        Examples, tolerated risk, and the line to beat.
    variance : float in [0, 1]
        Variance of the losses, as a fraction of that of 0/1 losses of the same mean, mean (1 - mean).
    seed : int
        Order of the losses, which `betting` sees.

    >>> p_values_by_mean(100, 0.1).alt[:87]
    'P-values against the mean loss, n = 100, alpha = 0.1. At half of alpha: hoeffding 0.19,'
    """
    means = np.linspace(0, min(1.2 * alpha, 1), 61)
    losses = means + np.sqrt(variance) * (_coins(means, n, seed) - means)
    curves = {f: pvalues.p_values(losses, alpha, f) for f in pvalues.METHODS if f != "binomial"}
    picture, ax = _picture(7, 4)
    for (name, p), (colour, line) in zip(curves.items(), _method_styles(curves), strict=True):
        ax.plot(means, np.maximum(p, SMALLEST), color=colour, linestyle=line, label=name)
    if variance == 1:
        k = np.arange(int(np.floor(n * means[-1])) + 1)
        exact = np.maximum(pvalues.binomial(k, n, alpha), SMALLEST)
        ax.plot(k / n, exact, "o", color=METHOD_STYLE["binomial"][0], markersize=4, label="binomial")
    ax.axvline(alpha, color=GREY, linestyle="--", linewidth=1.2)
    ax.annotate(
        f"alpha = {alpha:.3g}",
        (alpha, 0.02),
        (3, 0),
        ("data", "axes fraction"),
        "offset points",
        rotation=90,
        color=GREY,
        fontsize=9,
    )
    _limit(ax, delta, f"delta = {delta:.3g}", axis="y")
    half = {name: float(p[np.abs(means - alpha / 2).argmin()]) for name, p in curves.items()}
    valid = min((name for name in half if name != "clt"), key=lambda name: half[name])
    ax.set(
        yscale="log",
        ylim=(SMALLEST / 2, 2),
        xlabel=f"mean loss of n = {n:,} examples",
        ylabel=P_LABEL,
    )
    ax.set_title(f"At mean alpha / 2, smallest and valid for any losses: {valid}, {half[valid]:.2g}")
    ax.set_yticks([1, 1e-2, 1e-4, 1e-6], ["1", "1e-2", "1e-4", "1e-6"])  # plain and few: an explorer redraws them
    ax.set_yticks([], minor=True)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    listed = ", ".join(f"{name} {p:.2g}" for name, p in half.items())
    return _tell(
        picture,
        f"P-values against the mean loss, n = {n}, alpha = {alpha:.3g}. At half of alpha: {listed}. Variance of the "
        f"losses: {variance:g} of that of 0/1 losses.",
    )


@_styled
def p_value_map(
    sizes: ArrayLike, means: ArrayLike, p: Mapping[str, ArrayLike], *, alpha: float, delta: float, title: str = ""
) -> Picture:
    """Which rival of `tight` is the smallest (left), and by what factor `tight` is smaller still (right).

    Drawn where the choice may matter, at values of `tight` between 1e-4 and 0.5.

    Parameters
    ----------
    sizes, means : float arrays, shapes (k,) and (m,)
        Examples, and mean losses as a fraction of alpha.
    p : by name, float array, shape (m, k)
        P-values of the same losses; one of the names is "tight".

    >>> p = {"tight": [[0.1, 0.1]] * 2, "prw": [[0.2, 0.1]] * 2}
    >>> p_value_map([10, 20], [0.2, 0.4], p, alpha=0.1, delta=0.1).alt
    'Smallest rival of tight where tight is between 1e-4 and 0.5: prw 100%. There it is up to 2.0 times as large as
    tight. Lines show where each is delta = 0.1.'
    """
    tight, rivals = np.asarray(p["tight"], dtype=float), [name for name in p if name != "tight"]
    stack = np.stack([np.asarray(p[name], dtype=float) for name in rivals])
    matters = (tight > 1e-4) & (tight < 0.5)  # elsewhere all agree
    best = np.where(matters, stack.argmin(axis=0), np.nan)
    factor = np.where(matters, stack.min(axis=0) / np.where(matters, tight, 1), np.nan)
    picture = Picture(figsize=(7, 3.6), layout="constrained")
    left, right = picture.subplots(1, 2, sharey=True)
    shades = ["#9CCBE8", "#EBC3D8", "#DDF0E7", "#E6E6E6"][: len(rivals)]
    options = {"shading": "nearest", "rasterized": True}
    left.pcolormesh(sizes, means, best, cmap=ListedColormap(shades), vmin=-0.5, vmax=len(rivals) - 0.5, **options)
    mesh = right.pcolormesh(sizes, means, factor, cmap="Blues", vmin=1, **options)
    picture.colorbar(mesh, ax=right, label="smallest rival / tight")
    for ax in (left, right):
        for values, line in ((tight, "solid"), (stack.min(axis=0), "dashed")):
            if values.min() < delta < values.max():
                ax.contour(sizes, means, values, [delta], colors="black", linewidths=1.5, linestyles=line)
        ax.set(xscale="log", xlabel="examples n")
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.grid(False)
    left.set(ylabel=f"mean loss / alpha (alpha = {alpha:.3g})", title="The smallest rival")
    right.set_title("What tight gains on it")
    key: list[Any] = [
        Patch(facecolor=shade, edgecolor=GREY, label=name) for name, shade in zip(rivals, shades, strict=True)
    ]
    key += [Line2D([], [], color="black", label=f"tight = delta = {delta:.3g}")]
    key += [Line2D([], [], color="black", linestyle="--", linewidth=1.2, label="rival = delta")]
    picture.legend(
        handles=key, loc="outside lower center", ncols=len(key), fontsize=8, handlelength=1.4, columnspacing=1
    )
    picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    share = ", ".join(f"{name} {(best[matters] == i).mean():.0%}" for i, name in enumerate(rivals))
    most = factor[matters].max(initial=1)
    return _tell(
        picture,
        f"Smallest rival of tight where tight is between 1e-4 and 0.5: {share}. There it is up to {most:.1f} times as "
        f"large as tight. Lines show where each is delta = {delta:.3g}.",
    )


@_styled
def examples_needed(shares: ArrayLike, needed: Mapping[str, ArrayLike], *, title: str = "") -> Picture:
    """Examples needed to certify, by method, against the variance of the losses (a fraction of that of 0/1 losses).

    NaN where no size that was tried is enough.

    >>> examples_needed([0.1, 1], {"tight": [300, 300], "betting": [100, 400]}).alt
    'Examples needed against the variance. At 0.1 of that of 0/1 losses: tight 300, betting 100; at 1: tight 300,
    betting 400.'
    """
    x, picture_and_axes = np.asarray(shares, dtype=float), _picture(7, 3.6)
    picture, ax = picture_and_axes
    for (name, n), (colour, line) in zip(needed.items(), _method_styles(needed), strict=True):
        ax.plot(x, n, color=colour, linestyle=line, marker="o", markersize=4, label=name)
    ax.set(xscale="log", yscale="log", title=title, ylabel="examples needed, n")
    ax.set_xlabel("variance of the losses / variance of 0/1 losses of the same mean")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    ends = "; at ".join(
        f"{x[i]:g}{' of that of 0/1 losses' if i == 0 else ''}: "
        + ", ".join(f"{name} {np.asarray(n)[i]:g}" for name, n in needed.items())
        for i in (0, -1)
    )
    return _tell(picture, f"Examples needed against the variance. At {ends}.")


def _binomial_pmf(n: int, alpha: float) -> Any:
    return np.diff(pvalues.binomial(np.arange(n + 1), n, alpha), prepend=0.0)


@functools.cache
def _order(n: int, seed: int) -> Any:
    return np.random.default_rng(seed).permutation(n)[:, None]


def _coins(means: Any, n: int, seed: int) -> Any:
    """0/1 losses (n, m) whose mean is exactly means (m,): one of each column is fractional where that needs it."""
    return np.clip(n * means - _order(n, seed), 0, 1)


# Lesson 03: many tests, one budget


@_styled
def lucky_models(means: ArrayLike, certified: ArrayLike, *, alpha: float, risk: float, n: int) -> Picture:
    """Calibration means (m,) of models that all have the same risk above alpha: certified filled, others hollow.

    >>> lucky_models([0.08, 0.12], [True, False], alpha=0.1, risk=0.101, n=500).alt
    'Mean losses of 2 models on n = 500 examples each, all with risk 0.101, above alpha = 0.1: 1 of them is certified.'
    """
    y, lucky = np.asarray(means, dtype=float), np.asarray(certified, dtype=bool)
    verb = "is" if lucky.sum() == 1 else "are"
    picture, ax = _picture(7, 3)
    for mask, face, label in ((lucky, BLUE, "certified (falsely)"), (~lucky, "white", "not certified")):
        ax.plot(np.flatnonzero(mask) + 1, y[mask], "o", color=BLUE, markerfacecolor=face, label=label)
    ax.axhline(alpha, color=GREY, linestyle="--", linewidth=1.2)
    ax.axhline(risk, color=COLOURS[1], linestyle="-", linewidth=1.2)
    for value, text, colour, va in (
        (alpha, f"alpha = {alpha:.3g}", GREY, "top"),
        (risk, f"risk of every model = {risk:g}", COLOURS[1], "bottom"),
    ):
        ax.annotate(text, (1.01, value), xycoords=("axes fraction", "data"), va=va, color=colour, fontsize=9)
    ax.set(xlabel="model", ylabel=f"mean loss, n = {n} each", xlim=(0, len(y) + 1))
    low, high = min(y.min(), alpha), max(y.max(), risk)
    ax.set_ylim(max(low - 0.08 * (high - low), -0.04 * high), min(high + 0.08 * (high - low), 1.02))
    false = ", and every certificate is false" if lucky.any() else ""
    ax.set_title(f"{lucky.sum()} of {len(y)} models {verb} certified{false}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _percent(ax, "y")
    below = risk > np.dot(ax.get_ylim(), (0.3, 0.7))  # the legend keeps away from the names on the lines
    ax.legend(loc="lower left" if below else "upper left", bbox_to_anchor=(1, 0 if below else 1), fontsize=9)
    return _tell(
        picture,
        f"Mean losses of {len(y)} models on n = {n} examples each, all with risk {risk:g}, above alpha = {alpha:.3g}: "
        f"{lucky.sum()} of them {verb} certified.",
    )


@_styled
def chance_of_any(
    sizes: ArrayLike, curves: Mapping[str, ArrayLike], *, delta: float, seen: tuple[int, int, int], title: str = ""
) -> Picture:
    """Chance (sizes,) of at least one false certificate, by name, against the number of models.

    `seen` is (models, errors, trials) of a simulation, drawn as a point with its exact 95 % binomial interval.

    >>> chance_of_any([1, 40], {"no correction": [0.1, 0.985]}, delta=0.1, seen=(40, 984, 1000)).alt
    'Chance of any false certificate, delta = 0.1. At 40 models: no correction 0.985; simulated 0.984 in 1000 trials.'
    """
    x = np.asarray(sizes)
    picture, ax = _picture(7, 3.6)
    for (name, values), colour, line in zip(curves.items(), COLOURS, LINES, strict=False):
        ax.plot(x, np.asarray(values), color=colour, linestyle=line, label=name)
    m, errors, trials = seen
    rate, bars = _rate_with_bars(np.array([errors]), trials)
    ax.errorbar([m], rate, bars, fmt="o", color="black", capsize=4, label=f"simulated, {trials:,} trials")
    ax.axhline(delta, color=GREY, linestyle="--", linewidth=1.2)
    right: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"),
        "ha": "right",
        "va": "bottom",
        "color": GREY,
        "fontsize": 9,
    }
    ax.annotate(f"delta = {delta:.3g}", (0.99, delta), **right)
    ax.set(xlabel="number of models tested, m", ylabel="P[any false certificate]", ylim=(-0.02, 1.04), title=title)
    _percent(ax, "y")
    ax.legend(loc="center right", fontsize=9)
    at = ", ".join(f"{name} {float(np.interp(m, x, np.asarray(values))):.3f}" for name, values in curves.items())
    return _tell(
        picture,
        f"Chance of any false certificate, delta = {delta:.3g}. At {m} models: {at}; simulated {rate[0]:.3f} "
        f"in {trials} trials.",
    )


@_styled
def holm_stairs(p_values: ArrayLike, *, delta: float) -> Picture:
    """Sorted p-values (m,) under the levels of Bonferroni, flat, and Holm, a staircase: certified by Holm filled.

    >>> holm_stairs([0.01, 0.03, 0.045, 0.5], delta=0.1).alt
    'Sorted p-values, m = 4, delta = 0.1: 1 is at most delta / m, the level of Bonferroni; Holm certifies 3.'
    """
    p = np.sort(np.asarray(p_values, dtype=float))
    m, rank = len(p), np.arange(1, len(p) + 1)
    levels = delta / (m - rank + 1)
    passed, flat = np.logical_and.accumulate(p <= levels), int(np.sum(p <= delta / m))
    picture, ax = _picture(7, 3.4)
    ax.step(rank, levels, where="mid", color=COLOURS[2], linestyle="-", label="Holm: delta / (m - i + 1)")
    ax.axhline(delta / m, color=COLOURS[1], linestyle="-.", label="Bonferroni: delta / m")
    for mask, face, label in ((passed, BLUE, "certified by Holm"), (~passed, "white", "not certified")):
        ax.plot(rank[mask], np.maximum(p[mask], SMALLEST), "o", color=BLUE, markerfacecolor=face, label=label)
    _limit(ax, delta, f"delta = {delta:.3g}", axis="y")
    ax.set(yscale="log", xlabel=f"rank i of the p-value among m = {m}", ylabel=P_LABEL)
    ax.set_title(f"Bonferroni certifies {flat}, Holm climbs the stairs and certifies {passed.sum()}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower right", fontsize=9)
    return _tell(
        picture,
        f"Sorted p-values, m = {m}, delta = {delta:.3g}: {flat} {'is' if flat == 1 else 'are'} at most delta / m, "
        f"the level of Bonferroni; Holm certifies {passed.sum()}.",
    )


@_styled
def family_wise_errors(
    panels: Mapping[str, Mapping[str, ArrayLike]], kinds: Sequence[str], *, trials: int, delta: float, title: str = ""
) -> Picture:
    """Family-wise error rates with exact 95 % binomial intervals: a panel a scenario, a mark a procedure.

    `panels[scenario][procedure]` counts the trials with any false certificate under each kind of dependence, (kinds,).

    >>> family_wise_errors({"all bad": {"holm": [9]}}, ["independent"], trials=100, delta=0.1).alt
    'Family-wise error rate in 100 trials, delta = 0.1. all bad: holm 0.090 independent.'
    """
    picture = Picture(figsize=(7, 3.8), layout="constrained")
    axes = np.atleast_1d(picture.subplots(1, len(panels), sharey=True))
    plain, notes = [kind.replace("\n", " ") for kind in kinds], []
    for ax, (scenario, procedures) in zip(axes, panels.items(), strict=True):
        for i, (name, errors) in enumerate(procedures.items()):
            rate, bars = _rate_with_bars(np.asarray(errors), trials)
            x = np.arange(len(kinds)) + 0.2 * (i - (len(procedures) - 1) / 2)
            ax.errorbar(x, rate, bars, fmt="osD^v"[i], color=COLOURS[i], capsize=4, linewidth=1.2, label=name)
            shown = ", ".join(f"{value:.3f} {kind}" for value, kind in zip(rate, plain, strict=True))
            notes.append(f"{scenario}: {name} {shown}")
        ax.axhline(delta, color=GREY, linestyle="--", linewidth=1.2)
        ax.set_xticks(range(len(kinds)), kinds)
        ax.set_yscale("symlog", linthresh=0.01, linscale=0.6)
        ax.set(ylim=(0, 1.5), xlim=(-0.5, len(kinds) - 0.5))
        ax.set_yticks([0, 0.01, 0.1, 1], ["0%", "1%", "10%", "100%"])
        ax.set_title(scenario, fontsize=10)
    axes[-1].annotate(
        f"delta = {delta:.3g}",
        (0.99, delta),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        color=GREY,
        fontsize=9,
    )
    axes[0].set_ylabel(f"FWER in {trials:,} trials (log scale above 1 %)")
    axes[0].legend(loc="lower left", fontsize=9)
    picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    return _tell(picture, f"Family-wise error rate in {trials} trials, delta = {delta:.3g}. {'; '.join(notes)}.")


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
    _percent(ax, "y")
    ax.legend(fontsize=9)
    return _tell(
        picture,
        f"Mean certified ratio against m, n = {n}, largest safe ratio {ceiling:.3f}. {'; '.join(notes)}.",
    )


Graph = tuple[ArrayLike, ArrayLike, ArrayLike]  # weights (m,), transitions (m, m), rejected (m,)


@_styled
def budget_graphs(
    states: Sequence[Graph],
    p_values: ArrayLike,
    *,
    delta: float,
    names: Sequence[str],
    places: ArrayLike | None = None,
    title: str = "",
) -> Picture:
    """Hypotheses as nodes whose filled share is their part of delta, transitions as arrows; one panel a state.

    A state is (weights (m,), transitions (m, m), rejected (m,)), `places` are coordinates (m, 2), a circle by default.

    >>> budget_graphs([([1, 0], [[0, 1], [0, 0]], [False, False])], [0.04, 0.2], delta=0.1, names=["H1", "H2"]).alt
    'Budgets. Panel 1: H1 0.1, p = 0.04; H2 0, p = 0.2.'
    """
    m, k = len(names), len(states)
    turn = np.pi / 2 - 2 * np.pi * np.arange(m) / m
    where = 1.25 * np.column_stack([np.cos(turn), np.sin(turn)]) if places is None else np.asarray(places, dtype=float)
    picture = Picture(figsize=(5, 4) if k == 1 else (7, 3))  # placed by hand: an explorer has no time for a layout
    axes = picture.subplots(1, k, gridspec_kw={"left": 0, "right": 1, "bottom": 0, "top": 0.85, "wspace": 0.02})
    notes = []
    for i, (ax, state) in enumerate(zip(np.atleast_1d(axes), states, strict=True)):
        said = _budget_graph(ax, state, np.asarray(p_values, dtype=float), delta, names, where)
        notes.append(f"Panel {i + 1}: {said}.")
        done = int(np.sum(state[2]))
        when = {0: "before any rejection", 1: "after 1 rejection"}.get(done, f"after {done} rejections")
        ax.set_title(when, fontsize=10, loc="center")
        ax.set_axis_off()
    picture.suptitle(title, fontsize=11, x=0.02, y=0.99, ha="left")
    return _tell(picture, (title or "Budgets") + ". " + " ".join(notes))


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


def error_budget(procedure: str, scenario: str, steps: int | Sequence[int], delta: float = 0.1) -> Picture:
    """The graph of one of BUDGET_PROCEDURES after `steps` rejections, or one panel a step for a sequence of steps.

    >>> error_budget("chain", "A fails at once", 1).alt
    'chain, A fails at once: 0 of 4 certified. Panel 1: A 50 % 0.1, p = 0.3; A 80 % 0, p = 0.4; B 50 % 0, p = 0.03; \
B 80 % 0, p = 0.035.'
    """
    p = np.minimum(1, delta * np.array(BUDGET_SCENARIOS[scenario]))
    states = _flow(p, delta, *BUDGET_PROCEDURES[procedure])
    wanted = [steps] if isinstance(steps, int) else steps
    shown = [states[k] for k in dict.fromkeys(min(k, len(states) - 1) for k in wanted)]
    title = f"{procedure}, {scenario}: {len(states) - 1} of {len(p)} certified"
    return budget_graphs(shown, p, delta=delta, names=BUDGET_NAMES, places=BUDGET_PLACES, title=title)


def _flow(
    p: np.ndarray, delta: float, weights: ArrayLike, transitions: ArrayLike
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The states of a graphical procedure, the smallest p-value that may be rejected going first."""
    w, g = np.array(weights, dtype=float), np.array(transitions, dtype=float)
    states = [(w, g, np.zeros(len(w), dtype=bool))]
    while True:
        w, g, gone = states[-1]
        passed = ~gone & (w > 0) & (p <= w * delta * (1 + 1e-12))
        if not passed.any():
            return states
        j = int(np.argmin(np.where(passed, p, np.inf)))
        loop = g[:, j] * g[j]
        new = (g + np.outer(g[:, j], g[j])) / np.where(loop < 1, 1 - loop, np.inf)[:, None]
        gone = gone | (np.arange(len(w)) == j)
        new[gone], new[:, gone] = 0, 0
        np.fill_diagonal(new, 0)
        states.append((np.where(gone, 0, w + w[j] * g[j]), new, gone))


def _budget_graph(ax: Axes, state: Graph, p: np.ndarray, delta: float, names: Sequence[str], where: np.ndarray) -> str:
    """One graph on `ax`; returns what it shows in words."""
    weights, transitions = (np.asarray(part, dtype=float) for part in state[:2])
    rejected, radius, notes = np.asarray(state[2], dtype=bool), 0.48, []
    for (x, y), w, done, q, name in zip(where, weights, rejected, p, names, strict=True):
        ready = not done and w > 0 and q <= w * delta * (1 + 1e-12)
        sign = "≤" if ready else ">"
        face, line = (BLUE if done else "white"), (2.4 if ready else 0.8)
        ax.add_artist(Circle((x, y), radius, facecolor=face, edgecolor="none", zorder=3))
        ax.add_artist(Wedge((x, y), radius, 90 - 360 * w, 90, facecolor="#F3C98B", edgecolor="none", zorder=4))
        ax.add_artist(Circle((x, y), radius, fill=False, edgecolor="black", linewidth=line, zorder=5))
        text = f"{name}\ncertified" if done else f"{name}\n{w * delta:.3g}"
        ax.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if done else "black", zorder=6)
        up = y > where[:, 1].mean()  # p-values stand outside, where no arrow passes
        label = f"p = {q:.3g}" if done else f"p = {q:.3g} {sign} {w * delta:.3g}"
        spot: dict[str, Any] = {"ha": "center", "va": "bottom" if up else "top", "fontsize": 8}
        ax.text(x, y + (radius + 0.08) * (1 if up else -1), label, weight="bold" if ready else "normal", **spot)
        notes.append(f"{name} certified" if done else f"{name} {w * delta:.3g}, p = {q:.3g}")
    for j, k in np.argwhere(transitions > 0):
        _arrow(ax, where[j], where[k], radius, transitions[j, k])
    (left, low), (right, high) = where.min(axis=0), where.max(axis=0)
    ax.set(xlim=(left - 0.9, right + 0.9), ylim=(low - 0.85, high + 0.85), aspect="equal")
    return "; ".join(notes)


def _arrow(ax: Axes, sender: np.ndarray, receiver: np.ndarray, radius: float, share: float) -> None:
    """A curved arrow between two nodes with its fraction on it, nearer to the sender."""
    (x, y), bend, t = receiver - sender, 0.16, 0.28
    control = (sender + receiver) / 2 + bend * np.array([y, -x])
    start, end = (node + radius * (control - node) / np.hypot(*(control - node)) for node in (sender, receiver))
    curve = Path([start, control, end], [Path.MOVETO, Path.CURVE3, Path.CURVE3])
    ax.add_artist(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=11, color=GREY, linewidth=1.1, zorder=2))
    x, y = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
    box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    text = str(Fraction(share).limit_denominator(60))
    ax.text(x, y, text, ha="center", va="center", fontsize=8, bbox=box, zorder=2.5)


def _rate_with_bars(errors: np.ndarray, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """errors / trials, (k,), and the lengths (2, k) of the exact 95 % binomial interval (Clopper and Pearson, 1934)."""
    low = np.where(errors > 0, betaincinv(np.maximum(errors, 1), trials - errors + 1, 0.025), 0)
    high = np.where(errors < trials, betaincinv(errors + 1, np.maximum(trials - errors, 1), 0.975), 1)
    rate = errors / trials
    return rate, np.array([rate - low, high - rate])


# Lesson 00


@_styled
def risk_laws(risks: Mapping[str, ArrayLike], *, alpha: float, title: str = "") -> Picture:
    """True risks (trials,) of the networks that each rule chose, one histogram a rule; NaN: it chose none.

    Bars beyond alpha are hatched; all risks beyond 2 alpha are counted in the last bar.

    >>> risk_laws({"luck": [0.04, 0.2, 0.3, np.nan]}, alpha=0.1).alt
    'True risk of the chosen network. luck: above alpha = 0.1 in 50.0% of 4 repetitions, nothing chosen in 25.0%.'
    """
    picture = Picture(figsize=(7, 1 + 1.3 * len(risks)), layout="constrained")
    axes = np.atleast_1d(picture.subplots(len(risks), 1, sharex=True, sharey=True))
    edges, notes = alpha * np.arange(21) / 10, []
    for ax, (name, values) in zip(axes, risks.items(), strict=True):
        risk = np.asarray(values, dtype=float)
        beyond, none = float(np.mean(risk > alpha)), float(np.mean(np.isnan(risk)))
        for part, look in ((risk <= alpha, {"color": BLUE}), (risk > alpha, {"color": "#F6D5C0", "hatch": "////"})):
            shown = np.clip(risk[part], 0, edges[-1] * 0.999)
            shown = np.where(risk[part] > alpha, np.maximum(shown, alpha * 1.001), np.minimum(shown, alpha * 0.999))
            edge = COLOURS[1] if "hatch" in look else BLUE
            ax.hist(shown, bins=edges, weights=np.full(len(shown), 1 / len(risk)), edgecolor=edge, **look)
        _limit(ax, alpha, f"alpha = {alpha:.3g}" if ax is axes[0] else "", axis="x")
        ax.set(xlim=(0, edges[-1]), ylabel="share of draws")
        ax.set_title(f"{name}: beyond alpha {beyond:.1%}, nothing chosen {none:.1%}", fontsize=10)
        _percent(ax, "xy")
        notes.append(
            f"{name}: above alpha = {alpha:.3g} in {beyond:.1%} of {len(risk)} repetitions, "
            f"nothing chosen in {none:.1%}"
        )
    axes[-1].set_xlabel("true risk of the chosen network (last bar: all beyond)")
    picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    return _tell(picture, "True risk of the chosen network. " + "; ".join(notes) + ".")


# Lesson 01

UNDERFLOW = 1e-8  # weights smaller than this are drawn together


@_styled
def weight_histograms(weights: Mapping[str, ArrayLike], title: str = "") -> Picture:
    """All weights of a network twice: their values, and log10 of their absolute values, zeros left out.

    >>> weight_histograms({"a": [[0.5, -0.25]], "b": [1e-30, 0.0]}).alt[:66]
    '4 weights. 50.0% of them are smaller than 1e-08 in absolute value;'
    """
    flat = np.concatenate([np.ravel(w) for w in weights.values()]).astype(float)
    size = np.abs(flat)
    picture = Picture(figsize=(7, 3.2), layout="constrained")
    left, right = picture.subplots(1, 2)
    reach = size.max()
    left.hist(flat, bins=np.linspace(-reach, reach, 121), color=BLUE)
    right.hist(np.log10(size[size > 0]), bins=np.arange(-46, np.ceil(np.log10(reach)) + 0.5, 0.5), color=BLUE)
    left.set(xlabel="weight", ylabel="number of weights", title="Linear axis: one heap at zero")
    right.set(xlabel="|weight|, powers of ten", title="Logarithmic axis: two heaps")
    right.set_xticks([-40, -30, -20, -10, 0], [f"$10^{{{k}}}$" for k in (-40, -30, -20, -10, 0)])
    for ax in (left, right):
        ax.yaxis.set_major_formatter("{x:,.0f}")
    picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    return _tell(
        picture,
        f"{len(flat)} weights. {np.mean(size < UNDERFLOW):.1%} of them are smaller than {UNDERFLOW:.0e} in absolute "
        f"value; the median is {np.median(size):.2g}, the largest {reach:.2g}. Two histograms: values on a linear "
        "axis, absolute values on a logarithmic one.",
    )


def sort_weights(weights: Mapping[str, ArrayLike]) -> dict[str, Any]:
    """What `weights_and_threshold` needs, computed once: names, sizes, |w| in global order and the layer of each.

    >>> sort_weights({"a": [0.5, -0.1], "b": [0.2]})["layer"].tolist()
    [0, 1, 0]
    """
    parts = [np.abs(np.ravel(w)) for w in weights.values()]
    flat = np.concatenate(parts).astype(float)
    order = np.argsort(flat, kind="stable")
    layer = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
    return {"names": list(weights), "sizes": np.array([len(part) for part in parts]), "sorted": flat[order],
            "layer": layer}  # fmt: skip


@_styled
def weights_and_threshold(ordered: Mapping[str, Any], ratio: float) -> Picture:
    """The global threshold of a pruning ratio (left) and the share of each layer that goes (right).

    `ordered` comes from `sort_weights`. Weights that stay are filled, those that go are hollow.

    >>> weights_and_threshold(sort_weights({"a": [0.5, -0.1], "b": [0.2, 0.9]}), 0.5).alt
    'At ratio 0.5 the 2 smallest of 4 weights go, all up to 0.2 in absolute value: 50.0% of a, 50.0% of b.'
    """
    size, layer, names = ordered["sorted"], ordered["layer"], ordered["names"]
    gone = round(ratio * len(size))
    threshold = size[gone - 1] if gone else 0.0
    share = np.bincount(layer[:gone], minlength=len(names)) / ordered["sizes"]
    picture = Picture(figsize=(7, 3.2))  # placed by hand: an automatic layout takes as long as all the rest
    place = {"left": 0.13, "right": 0.965, "bottom": 0.15, "top": 0.91, "wspace": 0.08}
    left, right = picture.subplots(1, 2, width_ratios=[1.5, 1], gridspec_kw=place)
    top = np.ceil(4 * np.log10(size[-1])) / 4 if size[-1] > UNDERFLOW else 0.0
    edges = np.concatenate([[-8.5], np.arange(-8, top + 0.125, 0.25)])
    below = np.searchsorted(size, 10.0 ** edges[1:])
    counts, out = np.diff(below, prepend=0), np.diff(np.minimum(below, gone), prepend=0)
    left.stairs(counts - out, edges, fill=True, color=BLUE, label="stay")
    left.stairs(counts, edges, baseline=counts - out, color=BLUE, linewidth=1, label="go")
    if gone:
        where = np.log10(max(threshold, UNDERFLOW))
        side, gap = ("right", -4) if where > -4 else ("left", 4)
        left.axvline(where, color=GREY, linestyle="--", linewidth=1.2)
        left.annotate(f"threshold {threshold:.2g}", (where, 0.97), (gap, 0), xycoords=("data", "axes fraction"),
                      textcoords="offset points", ha=side, va="top", color=GREY, fontsize=9)  # fmt: skip
    left.set_xticks([-8, -6, -4, -2, 0], ["≤ 1e-8", "1e-6", "1e-4", "0.01", "1"])
    left.set(xlabel="|weight|, logarithmic axis", ylabel="number of weights", xlim=(-8.7, 0.2))
    left.set_title(f"{gone:,} of {len(size):,} weights go")
    left.legend(loc="center left", bbox_to_anchor=(0.12, 0.6), fontsize=9)
    left.set_ylim(0, 1.12 * max(counts.max(), 1))
    left.yaxis.set_major_formatter("{x:,.0f}")
    rows = np.arange(len(names))
    right.barh(rows, 1 - share, 0.6, share, color=BLUE, edgecolor=BLUE)
    right.barh(rows, share, 0.6, color="white", edgecolor=BLUE, linewidth=0.8)
    for row, name in enumerate(names):
        right.text(0.01, row - 0.36, f"{name}: {share[row]:.1%} go", va="bottom", fontsize=9)
    right.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.75), yticks=[], xlabel="share of the layer's weights")
    right.set_title("Who pays")
    right.grid(False)
    _percent(right, "x")
    paid = ", ".join(f"{s:.1%} of {name}" for name, s in zip(names, share, strict=True))
    upto = f", all up to {threshold:.2g} in absolute value" if gone else ""
    return _tell(picture, f"At ratio {ratio:g} the {gone} smallest of {len(size)} weights go{upto}: {paid}.")


@_styled
def pixel_maps(maps: ArrayLike, captions: Sequence[str], *, unit: str, title: str = "") -> Picture:
    """Maps (k, height, width) of non-negative numbers side by side, each from 0 (dark) to its own maximum (bright).

    >>> pixel_maps(np.ones((1, 2, 2)), ["50% zeros"], unit="weights a pixel").alt
    'Maps of weights a pixel. 50% zeros: 0.0% of the pixels have none, at most 1.'
    """
    values, notes = np.asarray(maps, dtype=float), []
    picture = Picture(figsize=(7, 2.4), layout="constrained")
    axes = np.atleast_1d(picture.subplots(1, len(values)))
    for ax, image, caption in zip(axes, values, captions, strict=True):
        ax.imshow(image, cmap="cividis", vmin=0, vmax=max(image.max(), 1))
        ax.set_title(f"{caption}\n0 to {image.max():g}", fontsize=9, loc="center")
        ax.set(xticks=[], yticks=[])
        notes.append(f"{caption}: {np.mean(image == 0):.1%} of the pixels have none, at most {image.max():g}")
    picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    picture.supxlabel(f"{unit}: dark = 0, bright = the largest number of each picture", fontsize=9)
    return _tell(picture, f"Maps of {unit}. " + "; ".join(notes) + ".")


# Lesson 04

SEQUENCES = {
    "like pruning: slowly rising": (0.0004, 0.001, 0.003, 0.02, 0.06, 0.08, 0.3, 0.7),
    "an early failure": (0.004, 0.2, 0.001, 0.002, 0.003, 0.004, 0.01, 0.02),
    "the first one fails": (0.3, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001),
    "all pass": (0.01, 0.05, 0.02, 0.04, 0.03, 0.05, 0.01, 0.03),
}  # p-values in testing order, for the explorer


@_styled
def sequence(p_values: ArrayLike, *, delta: float, step: int | None = None) -> Picture:
    """A fixed sequence after `step` tests (default: all): what is certified, where it stops, what is never tested.

    >>> sequence([0.01, 0.3, 0.02], delta=0.1).alt  # doctest: +ELLIPSIS
    'A fixed sequence of 3 tests at delta = 0.1. Test 1: p = 0.01, certified; test 2: p = 0.3, stop; ...
    """
    p = np.asarray(p_values, dtype=float)
    m, certified = len(p), int(np.logical_and.accumulate(p <= delta).sum())
    seen = min(m if step is None else int(step), certified + 1, m)
    stopped = seen > certified
    certified, k = min(certified, seen), np.arange(1, m + 1)
    picture = Picture(figsize=(7, 3.2))
    ax = picture.add_axes((0.13, 0.16, 0.74, 0.74))  # fixed margins: a step redraws fast, and nothing moves
    y = np.maximum(p, 1e-4)
    ax.plot(k[:certified], y[:certified], "o", color=BLUE, markersize=8, label="certified")
    if stopped:
        ax.plot(seen, y[seen - 1], "o", color=COLOURS[1], markerfacecolor="white", markersize=8, label="fails: stop")
        ax.plot(k[seen:], y[seen:], "x", color=GREY, markersize=6, label="never tested")
        ax.axvspan(seen + 0.5, m + 0.6, color="#F0F0F0", zorder=0)
    for j in k[seen:] if not stopped else []:
        ax.annotate("?", (j, 0.5), xycoords=("data", "axes fraction"), ha="center", color=GREY)
    for j in range(seen):
        ax.annotate(f"{p[j]:.2g}", (k[j], y[j]), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
    ax.axhline(delta, color=GREY, linestyle="--", linewidth=1.2)
    ax.annotate(f"delta = {delta:.3g}", (1.01, delta), xycoords=("axes fraction", "data"), va="center", color=GREY)
    ax.set(xlim=(0.4, m + 0.6), ylim=(1e-5, 3), yscale="log", xticks=k)
    _plain_log(ax, [1, 0.1, 0.01, 0.001, 0.0001])
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
    told = "; ".join(notes)
    return _tell(picture, f"A fixed sequence of {m} tests at delta = {delta:.3g}. {told[0].upper()}{told[1:]}.")


@_styled
def error_intervals(rates: Mapping[str, "ErrorRate"], *, title: str = "") -> Picture:
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
        _, bars = _rate_with_bars(np.array([rate.errors]), rate.trials)
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
    _percent(ax, "x")
    told = "; ".join(notes).replace("%", " %")
    return _tell(
        picture,
        f"Share of repetitions with a false certificate, exact 95 % intervals, delta = {delta:.3g}: {told}.",
    )


@_styled
def orders(results: Mapping[str, "Splits"], *, title: str = "") -> Picture:
    """The law of the certified ratio for several orders of the same tests: one histogram an order.

    >>> from confprune_edu.validation import Splits
    >>> one = Splits(*np.array([[0.8, np.nan], [0.01, np.nan], [0.02, np.nan]]), alpha=0.05, delta=0.1)
    >>> orders({"forward": one}).alt  # doctest: +ELLIPSIS
    'Certified ratio by order of the tests: forward: median 0.8, nothing certified in 50.0 %, risk...
    """
    picture, ax = _picture(7, 1.0 + 0.42 * len(results))
    notes = []
    for row, (name, result) in enumerate(results.items()):
        found = np.isfinite(result.ratio)
        values, counts = np.unique(result.ratio[found], return_counts=True)
        ax.bar(values, -0.85 * counts / len(found), width=0.008, bottom=row + 0.4, color=BLUE)
        if found.any():
            text = f"median {np.median(result.ratio[found]):g}, nothing certified in {result.abstained:.1%}"
        else:
            text = "nothing ever certified"
            ax.annotate(text, (0.01, row), va="center", color=GREY, fontsize=9)
        ax.annotate(f"{result.broken:.1%}", (1.06, row), va="center", ha="center", annotation_clip=False)
        notes.append(f"{name}: {text}, risk beyond alpha in {result.broken:.1%}".replace("%", " %"))
    ax.annotate("risk beyond\nalpha in", (1.06, -0.7), va="center", ha="center", fontsize=9, annotation_clip=False)
    ax.set_yticks(range(len(results)), list(results))
    ax.set(xlim=(0, 1), ylim=(len(results) - 0.5, -1), title=title)
    ax.set_xlabel("certified pruning ratio (height: share of the repetitions)")
    ax.grid(False, axis="y")
    _percent(ax, "x")
    return _tell(picture, f"Certified ratio by order of the tests: {'; '.join(notes)}.")


@_styled
def chains(
    ratios: ArrayLike, risks: ArrayLike, p_values: ArrayLike, *, alpha: float, delta: float, starts: Sequence[int]
) -> Picture:
    """True risks (m,), known here, and p-values (m,) with the chains of a multi-start: certified filled."""
    x, risk, p = (np.asarray(values, dtype=float) for values in (ratios, risks, p_values))
    share, rejected = delta / len(starts), fwer.multi_start(p, delta, starts)
    single = fwer.fixed_sequence(p, delta)
    picture = Picture(figsize=(7, 4), layout="constrained")
    top, bottom = picture.subplots(2, 1, sharex=True)
    top.plot(x, risk, color=COLOURS[5])
    y = np.maximum(p, SMALLEST)
    for mask, face, label in ((rejected, BLUE, "certified"), (~rejected, "white", "not certified")):
        bottom.plot(x[mask], y[mask], "o", markersize=5, color=BLUE, markerfacecolor=face, label=label)
    for number, start in enumerate(starts):
        bottom.axvline(x[start], color=COLOURS[1], linestyle=":", linewidth=1.5, label="" if number else "start")
    _limit(top, alpha, f"alpha = {alpha:.3g}", axis="y")
    bottom.axhline(share, color=GREY, linestyle="--", linewidth=1.2)
    bottom.annotate(f"delta / {len(starts)} = {share:g}", (0.02, share), va="top", color=GREY, fontsize=9)
    found = f"certified up to {x[rejected].max():.2g}" if rejected.any() else "nothing certified"
    alone = f"certified up to {x[single].max():.2g}" if single.any() else "nothing certified"
    count = {1: "One start", 4: "Four starts"}.get(len(starts), f"{len(starts)} starts")
    top.set(ylabel="true risk", title=f"One start at ratio 0: {alone}. {count}: {found}", ylim=(0, min(4 * alpha, 1)))
    bottom.set(ylabel=P_LABEL, yscale="log", xlabel="pruning ratio (weights set to zero)")
    _plain_log(bottom, [1, 0.01, 0.0001, 1e-6])
    top.legend(*bottom.get_legend_handles_labels(), loc="upper center", ncols=3, fontsize=9)
    _percent(top, "y")
    _percent(bottom, "x")
    return _tell(
        picture,
        f"A risk that starts at {risk[0]:.3f}, dips to {risk.min():.3f} at ratio {x[risk.argmin()]:.2g} and rises, "
        f"alpha = {alpha:.3g}. With one start at ratio 0 and delta = {delta:.3g}: {alone}; with {len(starts)} starts at"
        f" delta / {len(starts)} each: {found}.",
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
    _percent(top, "y")
    _percent(bottom, "x")
    _plain_log(bottom, [1, 0.01, 0.0001, 1e-6])
    there = f"; the mean over all examples there is {risk[at[-1]]:.4f}" if at.size else ""
    return _tell(picture, f"n = {n}, alpha = {alpha:.3g}, delta = {delta:.3g}: {found}{there}.")


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
    _percent(ax, "y")
    if len(results) > 1:
        ax.legend(loc="lower right")
    return _tell(picture, f"Median certified ratio. {'; '.join(notes)}.")


def _plain_log(ax: Axes, ticks: Sequence[float]) -> None:
    """Fixed decimal labels on the logarithmic y axis: drawn in half the time of powers of ten found by a locator."""
    ax.minorticks_off()
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


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
    _percent(ax, "xy")
    ax.legend(loc="upper left")
    return _tell(picture, f"Risk among the answered against coverage. {'; '.join(notes)}.")


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
    _index_axis(bottom, "x", np.asarray(ratios)[first:], 7)
    _index_axis(bottom, "y", thresholds, 6)
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
    return _tell(picture, alt)


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
        ax.annotate(f"coverage {floor:.0%}", (0.01, floor), xycoords=("axes fraction", "data"), **_UNDER)
    ax.set(xlabel="pruning ratio (weights set to zero)", ylabel="coverage: share answered", title=title)
    lowest = np.nanmin([1.0, *(np.nanmin(y) for y in map(np.asarray, curves.values()) if np.isfinite(y).any())])
    ax.set_ylim(max(min(lowest, floor or 1) - 0.05, -0.02), 1.01)
    ends = [x[np.isfinite(y)].max(initial=x[0]) for y in map(np.asarray, curves.values())]
    ax.set_xlim(max(x[0], min(ends) - 0.25) - 0.01, max(ends) + 0.02)  # before that little happens
    _percent(ax, "xy", 0)
    ax.legend(loc="lower left")
    return _tell(picture, f"Largest certified coverage against pruning ratio. {'; '.join(notes)}.")


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
        _index_axis(ax, "x", ratios, 6)
        _index_axis(ax, "y", thresholds, 4)
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
    return _tell(picture, f"Certified pairs by procedure. {'; '.join(notes)}.")


@_styled
def rescue(result: "SelectiveCalibration", means: ArrayLike, *, start: float = 0.0, title: str = "") -> Picture:
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
    _percent(top, "y")
    _percent(bottom, "xy", 0)
    found = np.isfinite(share)
    told = f"certified at {found.sum()} of {len(x)} ratios"
    if found.any():
        told += f", with a mean loss of at most {answers[found].max():.4f} and a coverage of "
        told += f"{share[found].min():.1%} to {share[found].max():.1%}"
    return _tell(
        picture,
        f"Mean loss against pruning ratio, alpha = {alpha:.3g}. Answering everything: at least {whole.min():.4f}. "
        f"May abstain: {told}.",
    )


@_styled
def selective_splits(result: "SelectiveSplits") -> Picture:
    """Chosen ratio and coverage (left) and the true selective risk (right) over repeated calibrations.

    Bars beyond alpha are hatched; risks beyond 2 alpha are counted in the last bar.
    """
    picture = Picture(figsize=(7, 3.4), layout="constrained")
    left, right = picture.subplots(1, 2)
    found = np.isfinite(result.ratio)
    edges, beyond = result.alpha * np.arange(21) / 10, result.risk > result.alpha + pvalues.ROUNDING
    _spots(left, result.ratio[found], result.coverage[found])
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
    _percent(left, "xy", 1)
    _percent(right, "xy")
    middle = "nothing ever certified"
    if found.any():
        middle = f"median ratio {np.median(result.ratio[found]):g}, coverage {np.median(result.coverage[found]):.3f}"
    return _tell(
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
        _percent(ax, "y")
        low, high = int(np.nanargmin(y)), int(np.nanargmax(y))
        notes.append(
            f"{name}: {y[low]:.1%} ({names[low]}) to {y[high]:.1%} ({names[high]}), {overall[name]:.1%} over all"
        )
    picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    return _tell(picture, f"By class. {'; '.join(notes)}.")


_UNDER: dict[str, Any] = {"va": "top", "color": GREY, "fontsize": 9}  # a name under a line


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
    _percent(ax, "y")
    ax.legend(loc="lower right")
    return _tell(picture, f"Mean certified ratio, nothing certified counted as 0. {'; '.join(notes)}.")


# Lesson 07


@_styled
def overlays(
    images: ArrayLike,
    truth: ArrayLike,
    found: ArrayLike,
    captions: Sequence[str],
    *,
    columns: int,
    title: str = "",
) -> Picture:
    """Frames (k, 3, height, width) in [0, 1], in rows of `columns`, with outlines of the true and of the found mask.

    The true mask, (k, height, width) bool, has a solid white outline, the found one a dashed orange one and a tint.

    >>> overlays(np.zeros((1, 3, 4, 4)), np.ones((1, 4, 4)), np.zeros((1, 4, 4)), ["C1: nothing found"], columns=1).alt
    'Frames with the true and the found mask. C1: nothing found.'
    """
    frames, true, seen = (np.asarray(values) for values in (images, truth, found))
    down = -(-len(captions) // columns)
    picture = Picture(figsize=(7, 0.35 + down * (7 / columns + 0.25)), layout="constrained")
    picture.colours = 256  # photographs have more of them than drawings
    axes = np.atleast_1d(picture.subplots(down, columns)).ravel()
    for ax, image, a, b, caption in zip(axes, frames, true, seen, captions, strict=False):
        tinted = np.where(b[..., None] > 0, 0.65 * image.transpose(1, 2, 0) + 0.35 * _ORANGE, image.transpose(1, 2, 0))
        ax.imshow(tinted, interpolation="nearest")
        for mask, colour, line in ((a, "white", "-"), (b, COLOURS[4], "--")):
            _contour(ax, mask, colour, line)
        ax.set_title(caption, fontsize=9, loc="center")
    for ax in axes:
        ax.set_axis_off()
    key = [
        Line2D([], [], color="#999999", label="true mask (white)"),
        Line2D([], [], color=COLOURS[4], linestyle="--", label="found mask"),
    ]
    picture.legend(handles=key, loc="outside lower right", ncols=2, fontsize=9)
    if title:
        picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    return _tell(picture, "Frames with the true and the found mask. " + "; ".join(captions) + ".")


@_styled
def by_layer(
    values: Mapping[str, ArrayLike], layers: Sequence[str], *, xlabel: str, line: float | None = None, title: str = ""
) -> Picture:
    """A number for each layer (L,), by name, a row a layer from input (above) to output; `line` marks a value.

    >>> by_layer({"ratio 0.7": [0.1, 0.9]}, ["first", "last"], xlabel="share of zeros").alt
    'Share of zeros by layer. Ratio 0.7: from 0.1 (first) to 0.9 (last).'
    """
    picture, ax = _picture(7, 1.1 + 0.22 * len(layers))
    notes = []
    rows = np.arange(len(layers))
    for (name, numbers), colour, mark, style in zip(values.items(), COLOURS, "osD^v", LINES, strict=False):
        x = np.asarray(numbers, dtype=float)
        ax.plot(x, rows, marker=mark, markersize=5, linewidth=0.8, linestyle=style, color=colour, label=name)
        low, high = int(np.nanargmin(x)), int(np.nanargmax(x))
        notes.append(f"{name}: from {x[low]:.3g} ({layers[low]}) to {x[high]:.3g} ({layers[high]})")
    if line is not None:
        ax.axvline(line, color=GREY, linestyle="--", linewidth=1.2)
    ax.set_yticks(rows, layers)
    ax.set(ylim=(len(layers) - 0.5, -0.5), xlabel=xlabel, title=title)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    told = "; ".join(notes)
    return _tell(picture, f"{xlabel[0].upper()}{xlabel[1:]} by layer. {told[0].upper()}{told[1:]}.")


@_styled
def variance_shares(
    ratios: ArrayLike, means: ArrayLike, variances: Mapping[str, ArrayLike], title: str = ""
) -> Picture:
    """Variance (m,) of losses with these means (m,), by name, against mean (1 - mean), the largest in [0, 1].

    >>> variance_shares([0.0, 0.5], [0.1, 0.2], {"by frame": [0.045, 0.04]}).alt
    'Variance of the losses against pruning ratio. By frame: 0.5 of the largest possible at ratio 0, 0.25 at 0.5.'
    """
    x, mean = np.asarray(ratios, dtype=float), np.asarray(means, dtype=float)
    picture, ax = _picture(7, 3.2)
    ax.plot(x, mean * (1 - mean), color=GREY, linestyle="--", linewidth=1.2, label="0/1 losses with this mean")
    notes = []
    for (name, values), colour, style in zip(variances.items(), COLOURS, LINES, strict=False):
        y = np.asarray(values, dtype=float)
        ax.plot(x, y, color=colour, linestyle=style, label=name)
        j, *_, k = np.flatnonzero(mean * (1 - mean))  # elsewhere nothing can vary
        first, last = (f"{y[i] / (mean[i] * (1 - mean[i])):.2g}" for i in (j, k))
        notes.append(f"{name}: {first} of the largest possible at ratio {x[j]:g}, {last} at {x[k]:g}")
    ax.set(xlabel="pruning ratio (weights set to zero)", ylabel="variance of the losses", title=title)
    ax.set_ylim(bottom=0)
    _percent(ax, "x")
    ax.legend(loc="upper left")
    told = "; ".join(notes)
    return _tell(picture, f"Variance of the losses against pruning ratio. {told[0].upper()}{told[1:]}.")


@_styled
def frame_and_certificate(
    image: ArrayLike, masks: Mapping[str, ArrayLike], result: "Calibration", ratio: float
) -> Picture:
    """A frame (3, height, width) with outlines of masks by name, beside the risks and the certificate of a table.

    The line at `ratio` meets a filled point where that ratio is certified. The alternative text gives the overlap
    (Dice) of the last mask with each of the others.

    >>> from confprune_edu.calibration import calibrate_losses
    >>> result = calibrate_losses(np.zeros((50, 1)), [0.5], alpha=0.1, delta=0.1)
    >>> frame_and_certificate(np.zeros((3, 4, 4)), {"truth": np.eye(4) > 0, "pruned": np.eye(4) > 0}, result, 0.5).alt
    'Ratio 0.5: certified. Dice of the pruned with the truth 1.00; alpha = 0.1, certified up to 0.5.'
    """
    picture = Picture(figsize=(7, 3.4))  # fixed margins: a control redraws fast, and nothing moves
    picture.colours = 256
    left = picture.add_axes((0.01, 0.16, 0.34, 0.74))
    left.imshow(np.asarray(image).transpose(1, 2, 0), interpolation="nearest")
    left.set_axis_off()
    handles = []
    looks: list[Any] = [("white", "-"), (COLOURS[6], ":"), (COLOURS[4], "--")]
    for (name, mask), (colour, line) in zip(masks.items(), looks, strict=False):
        _contour(left, np.asarray(mask), colour, line)
        label, shown = (f"{name} (white)", "#999999") if colour == "white" else (name, colour)
        handles.append(Line2D([], [], color=shown, linestyle=line, label=label))
    left.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 0), fontsize=8, ncols=2)
    right = picture.add_axes((0.46, 0.16, 0.5, 0.74))
    x, mean, safe = result.ratios, result.loss_means, result.rejected
    for part, face, label in ((safe, BLUE, "certified"), (~safe, "white", "not certified")):
        right.plot(x[part], mean[part], "o", markersize=4, color=BLUE, markerfacecolor=face, label=label)
    right.axvline(ratio, color=COLOURS[4], linestyle="--")
    _limit(right, result.alpha, f"alpha = {result.alpha:.3g}", axis="y")
    right.set(xlim=(-0.02, 1), ylim=(-0.02, 1.02), xlabel="pruning ratio (weights set to zero)")
    right.set_ylabel(f"mean loss of {result.n} videos")
    _percent(right, "xy", 0)
    right.legend(loc="upper left", fontsize=8)
    words = f"ratio {ratio:.3g}: {'certified' if safe[np.isclose(x, ratio)].any() else 'not certified'}"
    right.set_title(words[0].upper() + words[1:])
    *others, (last, found) = masks.items()
    overlaps = ", ".join(f"{name} {_dice(np.asarray(found), np.asarray(other)):.2f}" for name, other in others)
    reach = "nothing certified" if result.ratio is None else f"certified up to {result.ratio:g}"
    told = f"Dice of the {last} with the {overlaps}; alpha = {result.alpha:.3g}, {reach}"
    return _tell(picture, f"{words[0].upper()}{words[1:]}. {told}.")


def _contour(ax: Axes, mask: np.ndarray, colour: str, line: str) -> None:
    if 0 < mask.sum() < mask.size:  # nothing to outline otherwise
        ax.contour(mask, levels=[0.5], colors=[colour], linestyles=[line], linewidths=1.3)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum())) if (a | b).any() else 1.0


# Benchmark


@_styled
def races(tables: Mapping[str, Mapping[str, float]]) -> Picture:
    """Seconds by way, a panel a table, as multiples of the table's first way.

    >>> races({"table": {"bound": 0.5, "usual": 2.0}}).alt
    'Times as multiples of the first way. Table: bound 1 x, usual 4 x.'
    """
    rows = [len(ways) for ways in tables.values()]
    picture = Picture(figsize=(7, 0.6 * len(rows) + 0.3 * sum(rows)), layout="constrained")
    axes = np.atleast_1d(picture.subplots(len(rows), 1, height_ratios=[1 + count for count in rows]))
    notes = []
    for ax, (title, ways) in zip(axes, tables.items(), strict=True):
        multiples = np.array(list(ways.values())) / next(iter(ways.values()))
        ax.barh(range(len(ways)), multiples, color=[GREY] + [BLUE] * (len(ways) - 1), height=0.6)
        for row, multiple in enumerate(multiples):
            ax.annotate(
                f"{multiple:.2g} x", (multiple, row), (4, 0), textcoords="offset points", va="center", fontsize=9
            )
        ax.set(title=title, xlim=(0, 1.12 * multiples.max()), xticks=[])
        ax.set_yticks(range(len(ways)), list(ways))
        ax.invert_yaxis()
        told = ", ".join(f"{name} {multiple:.2g} x" for name, multiple in zip(ways, multiples, strict=True))
        notes.append(f"{title[0].upper()}{title[1:]}: {told}")
    return _tell(picture, f"Times as multiples of the first way. {'; '.join(notes)}.")


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
    _percent(ax, "y")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 0.08), fontsize=9)


def _found_pairs(mask: np.ndarray, share: np.ndarray, ratios: ArrayLike) -> str:
    if not mask.any():
        return "nothing certified"
    best = np.asarray(ratios, dtype=float)[mask.any(axis=1)].max()
    most = share[mask].max()
    return f"{mask.sum():,} of {mask.size:,} pairs certified, ratios up to {best:g}, coverage up to {most:.1%}"


def _index_axis(ax: Axes, which: str, values: ArrayLike, ticks: int = 8) -> None:
    """Labels for an axis of positions in a grid: its values at about so many of them, evenly spaced."""
    grid = np.asarray(values, dtype=float)
    step = next(size for size in (1, 2, 5, 10, 20, 50, len(grid)) if size * (ticks + 1) >= len(grid))
    at = np.arange(0, len(grid), step)
    (ax.set_xticks if which == "x" else ax.set_yticks)(at, [f"{grid[i]:.3g}" for i in at])


def _outline(ax: Axes, mask: np.ndarray, **look: Any) -> None:
    """Lines around the True cells of a mask (m, t) that is drawn with m to the right and t upwards."""
    padded = np.pad(mask, 1)
    i, k = np.nonzero(padded[1:] != padded[:-1])  # between rows: a vertical line
    lines = [((x - 0.5, y - 1.5), (x - 0.5, y - 0.5)) for x, y in zip(i, k, strict=True)]
    i, k = np.nonzero(padded[:, 1:] != padded[:, :-1])
    lines += [((x - 1.5, y - 0.5), (x - 0.5, y - 0.5)) for x, y in zip(i, k, strict=True)]
    ax.add_collection(LineCollection(lines, **look))


def _spots(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Points whose area is the number of times that a place, in steps of 0.01, occurs."""
    places, counts = np.unique(np.round(np.column_stack([x, y]), 2), axis=0, return_counts=True)
    ax.scatter(
        places[:, 0], places[:, 1], s=400 * counts / max(counts.sum(), 1) + 4, color=BLUE, alpha=0.7, linewidth=0
    )
