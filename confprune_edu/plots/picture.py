"""What all figures share: colours, line styles, the `Picture` with its alternative text, and recurring parts.

A figure is a function under `@styled` that starts with `blank` and ends with `tell`. Everything else here draws or
labels one part of a figure: `lines`, `filled` points, a `level`, an axis.
"""

import base64
import functools
import html
import io
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike
from PIL import Image
from scipy.special import betaincinv

ByName = Mapping[str, ArrayLike]  # arrays, each under the name that the legend gives it

# Okabe and Ito (2008), dark enough on white, told apart in grey by the line styles that go with them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9", "#7F7F7F")

LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))

MARKS = "osD^v<>p"

BLUE, GREY = COLOURS[0], "#666666"

SMALLEST = 1e-6  # smaller p-values are drawn there

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

# What an SVG takes from the page around it, so that it is read on a dark one, too: text, paper, lines between them.
# White lines and letters are left: they are drawn on photographs and on colours.
PAGE = {
    '<g style="fill: #ffffff"': '<g style="fill: white"',
    ": #000000": ": currentColor",
    "fill: #ffffff": "fill: var(--jp-layout-color0, white)",
    f": {GREY}": ": color-mix(in srgb, currentColor 65%, transparent)",
    ": #e6e6e6": ": color-mix(in srgb, currentColor 15%, transparent)",
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

    def svg(self) -> str:
        """The picture as an SVG element for a page: sharp at any size, in the page's own colours of text and paper."""
        buffer = io.StringIO()
        with ONE_AT_A_TIME, mpl.rc_context({"svg.hashsalt": "confprune"}):  # the same picture, the same text
            self.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Type")))
        text, (width, height) = buffer.getvalue(), self.get_size_inches()
        drawn = text[text.index(">", text.index("<svg")) + 1 :]
        for colour, of_page in PAGE.items():
            drawn = drawn.replace(colour, of_page)
        size = f'viewBox="0 0 {72 * width:g} {72 * height:g}" style="width: 100%; max-width: {100 * width:g}px"'
        return f'<svg role="img" aria-label="{html.escape(self.alt)}" {size} fill="currentColor">{drawn}'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        data = base64.b64encode(self.png()).decode()
        image = f'<img alt="{html.escape(self.alt)}" src="data:image/png;base64,{data}" style="max-width: 100%">'
        return {"text/html": image, "image/png": data, "text/plain": self.alt}


def styled(draw: Callable[..., Picture]) -> Callable[..., Picture]:
    """Make a figure in the style of the course, one thread at a time; matplotlib's settings stay as they were."""

    @functools.wraps(draw)
    def in_style(*args: Any, **kwargs: Any) -> Picture:
        with ONE_AT_A_TIME, mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return in_style


def blank(
    width: float, height: float, rows: int = 1, columns: int = 1, *, margins: Any = None, **options: Any
) -> tuple[Picture, np.ndarray]:
    """An empty picture, `width` by `height` inches, and its axes in a flat array, row by row.

    `margins` (left, right, ... as for a gridspec) replace the automatic layout, which takes half the time of a figure:
    for explorers, which redraw often and whose panels must not move.
    """
    picture = Picture(figsize=(width, height), layout=None if margins else "constrained")
    axes = picture.subplots(rows, columns, squeeze=False, gridspec_kw=margins, **options)
    return picture, axes.ravel()


def tell(picture: Picture, text: str, notes: Iterable[str] | None = None) -> Picture:
    """The picture, with `text` as its alternative text; notes are added as one more sentence."""
    picture.alt = text if notes is None else f"{text} {'; '.join(notes)}."
    return picture


def capital(text: str) -> str:
    """The text with a capital first letter; the others stay as they are."""
    return text[:1].upper() + text[1:]


def heading(picture: Picture, title: str) -> None:
    """A title above all panels."""
    if title:
        picture.suptitle(title, fontsize=11, x=0.01, ha="left")


def looks(names: Iterable[str], marks: str = "") -> list[dict[str, Any]]:
    """Colour, line, mark and label of each name: those of the p-value of that name, else the next ones of the cycle."""
    found = []
    for i, name in enumerate(names):
        colour, line = METHOD_STYLE.get(name, (COLOURS[i % len(COLOURS)], LINES[i % len(LINES)]))
        mark = marks[i % len(marks)] if marks else ""
        found.append({"color": colour, "linestyle": line, "marker": mark, "label": name})
    return found


def lines(ax: Axes, x: ArrayLike, curves: ByName, marks: str = "", **options: Any) -> list[tuple[str, np.ndarray]]:
    """Draw each curve (m,) against `x` in a look of its own; returns names and values."""
    drawn = [(name, np.asarray(values, dtype=float)) for name, values in curves.items()]
    for (_, y), look in zip(drawn, looks(curves, marks), strict=True):
        ax.plot(x, y, **look, **options)
    return drawn


def filled(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    mask: np.ndarray,
    labels: Sequence[str] = ("certified", "not certified"),
    size: float = 6,
    tested: np.ndarray | None = None,
) -> None:
    """Points, filled where the mask is True and hollow elsewhere; grey crosses where nothing was tested."""
    seen = np.full(len(x), True) if tested is None else tested
    for part, face, label in zip((mask, seen & ~mask), (BLUE, "white"), labels, strict=True):
        ax.plot(x[part], y[part], "o", markersize=size, color=BLUE, markerfacecolor=face, label=label)
    if not seen.all():
        ax.plot(x[~seen], y[~seen], "x", markersize=size, color=GREY, label="never tested")


def level(
    ax: Axes, value: float, label: str = "", *, axis: str = "y", at: float | None = None, gap: float = 0, **text: Any
) -> None:
    """A dashed grey line across the panel at `value` of the axis, with its name on it.

    The name stands `at` this part of the line's length, `gap` points further right; `text` says how it is written
    (options of `annotate`). Without a label the line has no name.
    """
    look: dict[str, Any] = {"color": GREY, "fontsize": 9, "xytext": (gap, 0), "textcoords": "offset points"}
    if axis == "y":
        ax.axhline(value, color=GREY, linestyle="--", linewidth=1.2)
        look |= {"xy": (0.01 if at is None else at, value), "xycoords": ("axes fraction", "data"), "va": "bottom"}
    else:
        ax.axvline(value, color=GREY, linestyle="--", linewidth=1.2)
        look |= {"xy": (value, 0.5 if at is None else at), "xycoords": ("data", "axes fraction")}
        look |= {"ha": "right", "va": "center", "rotation": 90}
    if label:
        ax.annotate(label, **(look | text))


def percent(ax: Axes, which: str, decimals: int | None = None) -> None:
    """Per cent on the axes named in `which`, "x", "y" or both."""
    for name in which:
        axis = ax.xaxis if name == "x" else ax.yaxis
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=decimals))


def ratio_axis(ax: Axes, decimals: int | None = None, knob: str | None = None) -> None:
    """The ratio from left to right: a share of the weights, or what a family calls it."""
    ax.set_xlabel(knob or "pruning ratio (weights set to zero)")
    if knob is None:
        percent(ax, "x", decimals)


def p_value_axis(ax: Axes) -> None:
    ax.set(ylabel="p-value (at least 1e-6)", yscale="log")


def size_axis(ax: Axes, sizes: np.ndarray, xlabel: str, form: str = "g") -> None:
    """Ticks at the sizes themselves, and nowhere else."""
    ax.set_xlabel(xlabel)
    ax.set_xticks(sizes, [format(size, form) for size in sizes])
    ax.minorticks_off()


def plain_log(ax: Axes, ticks: Sequence[float]) -> None:
    """Fixed decimal labels on the logarithmic y axis: drawn in half the time of powers of ten found by a locator."""
    ax.minorticks_off()
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def rate_with_bars(errors: np.ndarray, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """errors / trials, (k,), and the lengths (2, k) of the exact 95 % binomial interval (Clopper and Pearson, 1934)."""
    low = np.where(errors > 0, betaincinv(np.maximum(errors, 1), trials - errors + 1, 0.025), 0)
    high = np.where(errors < trials, betaincinv(errors + 1, np.maximum(trials - errors, 1), 0.975), 1)
    rate = errors / trials
    return rate, np.array([rate - low, high - rate])


def rate_row(ax: Axes, row: int, rate: Any) -> str:
    """Draw a `validation.ErrorRate` at y = row: its exact 95 % interval, a black line at the share; the note on it.

    Hatched: the exact binomial test against "at most delta" has p < 1e-4, and the note ends with "broken".
    """
    _, bars = rate_with_bars(np.array([rate.errors]), rate.trials)
    low, high = rate.rate - bars[0, 0], rate.rate + bars[1, 0]
    broken = rate.evidence < 1e-4
    face, edge, hatch = ("#F6D5C0", COLOURS[1], "////") if broken else ("#7FB5D8", BLUE, None)
    ax.barh(row, high - low, left=low, height=0.5, color=face, edgecolor=edge, hatch=hatch)
    ax.vlines(rate.rate, row - 0.34, row + 0.34, color="black", zorder=3)
    return f"{100 * rate.rate:.1f} % ({100 * low:.1f} to {100 * high:.1f}){', broken' if broken else ''}"


def risk_bars(ax: Axes, risk: np.ndarray, beyond: np.ndarray, alpha: float) -> None:
    """The law of a risk, (trials,): bars `beyond` alpha are hatched, risks above 2 alpha go into the last bar.

    Heights are shares of all trials; NaN, nothing certified, is in no bar.
    """
    within, edges = np.isfinite(risk) & ~beyond, [alpha * k / 10 for k in range(21)]
    for part, low, face, edge, hatch in ((within, 0, BLUE, BLUE, None), (beyond, 1.001, "#F6D5C0", COLOURS[1], "////")):
        shown = np.clip(risk[part], low * alpha, (low + 0.998) * alpha)
        height = np.histogram(shown, edges)[0] / len(risk)
        at = np.flatnonzero(height)  # no bar where it would be empty: an explorer redraws them all
        ax.bar(np.take(edges, at), height[at], alpha / 10, align="edge", color=face, edgecolor=edge, hatch=hatch)
    ax.set_xlim(0, 2 * alpha)
