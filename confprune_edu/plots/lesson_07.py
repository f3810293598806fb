"""Figures of lesson 07, polyps: masks on frames, layers of the network, the variance of losses of masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from confprune_edu.plots import picture as draw

_ORANGE = np.array([230, 159, 0]) / 255

_DARK: dict[str, Any] = {"frameon": True, "facecolor": "#444444", "labelcolor": "white"}  # a legend that shows white


@draw.styled
def overlays(
    images: ArrayLike, truth: ArrayLike, found: ArrayLike, captions: Sequence[str], *, columns: int, title: str = ""
) -> draw.Picture:
    """Frames (k, 3, height, width) in [0, 1], in rows of `columns`, with outlines of the true and of the found mask.

    The true mask, (k, height, width) bool, has a solid white outline, the found one a dashed orange one and a tint.

    >>> overlays(np.zeros((1, 3, 4, 4)), np.ones((1, 4, 4)), np.zeros((1, 4, 4)), ["C1: nothing found"], columns=1).alt
    'Frames with the true and the found mask. C1: nothing found.'
    """
    frames, true, seen = (np.asarray(values) for values in (images, truth, found))
    down = -(-len(captions) // columns)
    picture, axes = draw.blank(7, 0.35 + down * (7 / columns + 0.25), down, columns)
    picture.colours = 256  # photographs have more of them than drawings
    for ax, image, a, b, caption in zip(axes, frames, true, seen, captions, strict=False):
        pixels = image.transpose(1, 2, 0)
        ax.imshow(np.where(b[..., None] > 0, 0.65 * pixels + 0.35 * _ORANGE, pixels), interpolation="nearest")
        for mask, colour, line in ((a, "white", "-"), (b, draw.COLOURS[4], "--")):
            _contour(ax, mask, colour, line)
        ax.set_title(caption, fontsize=9, loc="center")
    for ax in axes:
        ax.set_axis_off()
    truths = Line2D([], [], color="white", label="true mask")
    finds = Line2D([], [], color=draw.COLOURS[4], linestyle="--", label="found mask")
    picture.legend(handles=[truths, finds], loc="outside lower right", ncols=2, fontsize=9, **_DARK)
    draw.heading(picture, title)
    return draw.tell(picture, "Frames with the true and the found mask.", captions)


@draw.styled
def by_layer(
    values: draw.ByName, layers: Sequence[str], *, xlabel: str, line: float | None = None, title: str = ""
) -> draw.Picture:
    """A number for each layer (L,), by name, a row a layer from input (above) to output; `line` marks a value.

    >>> by_layer({"ratio 0.7": [0.1, 0.9]}, ["first", "last"], xlabel="share of zeros").alt
    'Share of zeros by layer. Ratio 0.7: from 0.1 (first) to 0.9 (last).'
    """
    picture, (ax,) = draw.blank(7, 1.1 + 0.22 * len(layers))
    notes, rows = [], np.arange(len(layers))
    for (name, numbers), look in zip(values.items(), draw.looks(values, draw.MARKS), strict=True):
        x = np.asarray(numbers, dtype=float)
        ax.plot(x, rows, markersize=5, linewidth=0.8, **look)
        low, high = int(np.nanargmin(x)), int(np.nanargmax(x))
        notes.append(f"{name}: from {x[low]:.3g} ({layers[low]}) to {x[high]:.3g} ({layers[high]})")
    if line is not None:
        draw.level(ax, line, axis="x")
    ax.set_yticks(rows, layers)
    ax.set(ylim=(len(layers) - 0.5, -0.5), xlabel=xlabel, title=title)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return draw.tell(picture, f"{draw.capital(xlabel)} by layer.", [draw.capital(notes[0]), *notes[1:]])


@draw.styled
def variance_shares(ratios: ArrayLike, means: ArrayLike, variances: draw.ByName, title: str = "") -> draw.Picture:
    """Variance (m,) of losses with these means (m,), by name, against mean (1 - mean), the largest in [0, 1].

    >>> variance_shares([0.0, 0.5], [0.1, 0.2], {"by frame": [0.045, 0.04]}).alt
    'Variance of the losses against pruning ratio. By frame: 0.5 of the largest possible at ratio 0, 0.25 at 0.5.'
    """
    x, mean = np.asarray(ratios, dtype=float), np.asarray(means, dtype=float)
    notes, largest = [], mean * (1 - mean)
    j, *_, k = np.flatnonzero(largest)  # elsewhere nothing can vary
    picture, (ax,) = draw.blank(7, 3.2)
    ax.plot(x, largest, color=draw.GREY, linestyle="--", linewidth=1.2, label="0/1 losses with this mean")
    for name, y in draw.lines(ax, x, variances):
        first, last = y[j] / largest[j], y[k] / largest[k]
        notes.append(f"{name}: {first:.2g} of the largest possible at ratio {x[j]:g}, {last:.2g} at {x[k]:g}")
    ax.set(ylabel="variance of the losses", title=title)
    ax.set_ylim(bottom=0)
    draw.ratio_axis(ax)
    ax.legend(loc="upper left")
    about = "Variance of the losses against pruning ratio."
    return draw.tell(picture, about, [draw.capital(notes[0]), *notes[1:]])


@draw.styled
def frame_and_certificate(image: ArrayLike, masks: draw.ByName, result: Any, ratio: float) -> draw.Picture:
    """A frame (3, height, width) with outlines of masks by name, beside the risks and the certificate of a table.

    The line at `ratio` meets a filled point where that ratio is certified. The alternative text gives the overlap
    (Dice) of the last mask with each of the others.

    >>> from confprune_edu.calibration import calibrate_losses
    >>> result = calibrate_losses(np.zeros((50, 1)), [0.5], alpha=0.1, delta=0.1)
    >>> frame_and_certificate(np.zeros((3, 4, 4)), {"truth": np.eye(4) > 0, "pruned": np.eye(4) > 0}, result, 0.5).alt
    'Ratio 0.5: certified. Dice of the pruned with the truth 1.00; alpha = 0.1, certified up to 0.5.'
    """
    picture = draw.Picture(figsize=(7, 3.4))  # fixed margins: a control redraws fast, and nothing moves
    left, right = (picture.add_axes(place) for place in ((0.01, 0.16, 0.34, 0.74), (0.46, 0.16, 0.5, 0.74)))
    picture.colours = 256
    _frame(left, image, masks)
    x, safe = result.ratios, result.rejected
    draw.filled(right, x, result.loss_means, safe, size=4, tested=result.tested)
    right.axvline(ratio, color=draw.COLOURS[4], linestyle="--")
    draw.level(right, result.alpha, f"alpha = {result.alpha:.3g}")
    right.set(xlim=(-0.02, 1), ylim=(-0.02, 1.02), ylabel=f"mean loss of {result.n} videos")
    draw.ratio_axis(right, 0)
    draw.percent(right, "y", 0)
    right.legend(loc="upper left", fontsize=8)
    finding = f"Ratio {ratio:.3g}: {'certified' if safe[np.isclose(x, ratio)].any() else 'not certified'}"
    right.set_title(finding)
    *others, (last, found) = masks.items()
    overlaps = ", ".join(f"{name} {_dice(np.asarray(found), np.asarray(other)):.2f}" for name, other in others)
    reach = "nothing certified" if result.ratio is None else f"certified up to {result.ratio:g}"
    told = f"Dice of the {last} with the {overlaps}; alpha = {result.alpha:.3g}, {reach}"
    return draw.tell(picture, f"{finding}. {told}.")


def _frame(ax: Axes, image: ArrayLike, masks: draw.ByName) -> None:
    """An image with the outlines of up to three masks and their names."""
    ax.imshow(np.asarray(image).transpose(1, 2, 0), interpolation="nearest")
    ax.set_axis_off()
    handles = []
    outlines: list[Any] = [("white", "-"), (draw.COLOURS[6], ":"), (draw.COLOURS[4], "--")]
    for (name, mask), (colour, line) in zip(masks.items(), outlines, strict=False):
        _contour(ax, np.asarray(mask), colour, line)
        handles.append(Line2D([], [], color=colour, linestyle=line, label=name))
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 0), fontsize=8, ncols=2, **_DARK)


def _contour(ax: Axes, mask: np.ndarray, colour: str, line: str) -> None:
    if 0 < mask.sum() < mask.size:  # nothing to outline otherwise
        ax.contour(mask, levels=[0.5], colors=[colour], linestyles=[line], linewidths=1.3)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum())) if (a | b).any() else 1.0
