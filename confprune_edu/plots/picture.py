"""The style of every figure, and its alternative text."""

import base64
import functools
import html
import io
import threading
from collections.abc import Callable, Iterable, Sequence
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


def _picture(width: float, height: float) -> tuple[Picture, Axes]:
    picture = Picture(figsize=(width, height), layout="constrained")
    return picture, picture.subplots()


def tell(picture: Picture, alt: str) -> Picture:
    picture.alt = alt
    return picture


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


def percent(ax: Axes, which: str, decimals: int | None = None) -> None:
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


def method_styles(names: Iterable[str]) -> list[tuple[str, Any]]:
    """Colour and line by name: those of the method, or the next of the cycle for any other name."""
    cycle = zip(COLOURS, LINES, strict=True)
    return [METHOD_STYLE.get(name, cycled) for name, cycled in zip(names, cycle, strict=False)]


def rate_with_bars(errors: np.ndarray, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """errors / trials, (k,), and the lengths (2, k) of the exact 95 % binomial interval (Clopper and Pearson, 1934)."""
    low = np.where(errors > 0, betaincinv(np.maximum(errors, 1), trials - errors + 1, 0.025), 0)
    high = np.where(errors < trials, betaincinv(errors + 1, np.maximum(trials - errors, 1), 0.975), 1)
    rate = errors / trials
    return rate, np.array([rate - low, high - rate])


def plain_log(ax: Axes, ticks: Sequence[float]) -> None:
    """Fixed decimal labels on the logarithmic y axis: drawn in half the time of powers of ten found by a locator."""
    ax.minorticks_off()
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


UNDER: dict[str, Any] = {"va": "top", "color": GREY, "fontsize": 9}  # a name under a line


def index_axis(ax: Axes, which: str, values: ArrayLike, ticks: int = 8) -> None:
    """Labels for an axis of positions in a grid: its values at about so many of them, evenly spaced."""
    grid = np.asarray(values, dtype=float)
    step = next(size for size in (1, 2, 5, 10, 20, 50, len(grid)) if size * (ticks + 1) >= len(grid))
    at = np.arange(0, len(grid), step)
    (ax.set_xticks if which == "x" else ax.set_yticks)(at, [f"{grid[i]:.3g}" for i in at])


def spots(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Points whose area is the number of times that a place, in steps of 0.01, occurs."""
    places, counts = np.unique(np.round(np.column_stack([x, y]), 2), axis=0, return_counts=True)
    ax.scatter(
        places[:, 0], places[:, 1], s=400 * counts / max(counts.sum(), 1) + 4, color=BLUE, alpha=0.7, linewidth=0
    )
