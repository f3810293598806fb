"""Figures of lesson 07."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from confprune_edu.plots.picture import BLUE, COLOURS, GREY, LINES, Picture, _limit, _picture, _styled, percent, tell

_ORANGE = np.array([230, 159, 0]) / 255

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
    return tell(picture, "Frames with the true and the found mask. " + "; ".join(captions) + ".")


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
    return tell(picture, f"{xlabel[0].upper()}{xlabel[1:]} by layer. {told[0].upper()}{told[1:]}.")


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
    percent(ax, "x")
    ax.legend(loc="upper left")
    told = "; ".join(notes)
    return tell(picture, f"Variance of the losses against pruning ratio. {told[0].upper()}{told[1:]}.")


@_styled
def frame_and_certificate(image: ArrayLike, masks: Mapping[str, ArrayLike], result: Any, ratio: float) -> Picture:
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
    percent(right, "xy", 0)
    right.legend(loc="upper left", fontsize=8)
    words = f"ratio {ratio:.3g}: {'certified' if safe[np.isclose(x, ratio)].any() else 'not certified'}"
    right.set_title(words[0].upper() + words[1:])
    *others, (last, found) = masks.items()
    overlaps = ", ".join(f"{name} {_dice(np.asarray(found), np.asarray(other)):.2f}" for name, other in others)
    reach = "nothing certified" if result.ratio is None else f"certified up to {result.ratio:g}"
    told = f"Dice of the {last} with the {overlaps}; alpha = {result.alpha:.3g}, {reach}"
    return tell(picture, f"{words[0].upper()}{words[1:]}. {told}.")


def _contour(ax: Axes, mask: np.ndarray, colour: str, line: str) -> None:
    if 0 < mask.sum() < mask.size:  # nothing to outline otherwise
        ax.contour(mask, levels=[0.5], colors=[colour], linestyles=[line], linewidths=1.3)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum())) if (a | b).any() else 1.0
