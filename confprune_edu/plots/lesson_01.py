"""Figures of lesson 01, magnitude pruning."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from confprune_edu.plots import picture as draw

UNDERFLOW = 1e-8  # weights smaller than this are drawn together


@draw.styled
def weight_histograms(weights: draw.ByName, title: str = "") -> draw.Picture:
    """All weights of a network twice: their values, and log10 of their absolute values, zeros left out.

    >>> weight_histograms({"a": [[0.5, -0.25]], "b": [1e-30, 0.0]}).alt[:66]
    '4 weights. 50.0% of them are smaller than 1e-08 in absolute value;'
    """
    flat = np.concatenate([np.ravel(w) for w in weights.values()]).astype(float)
    size = np.abs(flat)
    picture, (left, right) = draw.blank(7, 3.2, 1, 2)
    reach = size.max()
    left.hist(flat, bins=np.linspace(-reach, reach, 121), color=draw.BLUE)
    right.hist(np.log10(size[size > 0]), bins=np.arange(-46, np.ceil(np.log10(reach)) + 0.5, 0.5), color=draw.BLUE)
    left.set(xlabel="weight", ylabel="number of weights", title="Linear axis: one heap at zero")
    right.set(xlabel="|weight|, powers of ten", title="Logarithmic axis: two heaps")
    right.set_xticks([-40, -30, -20, -10, 0], [f"$10^{{{k}}}$" for k in (-40, -30, -20, -10, 0)])
    for ax in (left, right):
        ax.yaxis.set_major_formatter("{x:,.0f}")
    draw.heading(picture, title)
    return draw.tell(
        picture,
        f"{len(flat)} weights. {np.mean(size < UNDERFLOW):.1%} of them are smaller than {UNDERFLOW:.0e} in absolute "
        f"value; the median is {np.median(size):.2g}, the largest {reach:.2g}. Two histograms: values on a linear "
        "axis, absolute values on a logarithmic one.",
    )


def sort_weights(weights: draw.ByName) -> dict[str, Any]:
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


@draw.styled
def weights_and_threshold(ordered: dict[str, Any], ratio: float) -> draw.Picture:
    """The global threshold of a pruning ratio (left) and the share of each layer that goes (right).

    `ordered` comes from `sort_weights`. Weights that stay are filled, those that go are hollow.

    >>> weights_and_threshold(sort_weights({"a": [0.5, -0.1], "b": [0.2, 0.9]}), 0.5).alt
    'At ratio 0.5 the 2 smallest of 4 weights go, all up to 0.2 in absolute value: 50.0% of a, 50.0% of b.'
    """
    size, layer, names = ordered["sorted"], ordered["layer"], ordered["names"]
    gone = round(ratio * len(size))
    threshold = size[gone - 1] if gone else 0.0
    share = np.bincount(layer[:gone], minlength=len(names)) / ordered["sizes"]
    margins = {"left": 0.13, "right": 0.965, "bottom": 0.15, "top": 0.91, "wspace": 0.08}
    picture, (left, right) = draw.blank(7, 3.2, 1, 2, width_ratios=[1.5, 1], margins=margins)
    _sizes(left, size, gone, threshold)
    _shares(right, names, share)
    paid = ", ".join(f"{s:.1%} of {name}" for name, s in zip(names, share, strict=True))
    upto = f", all up to {threshold:.2g} in absolute value" if gone else ""
    return draw.tell(picture, f"At ratio {ratio:g} the {gone} smallest of {len(size)} weights go{upto}: {paid}.")


def _sizes(ax: Axes, size: np.ndarray, gone: int, threshold: float) -> None:
    """The histogram of the absolute values, in ascending order, of which the first `gone` go."""
    top = np.ceil(4 * np.log10(size[-1])) / 4 if size[-1] > UNDERFLOW else 0.0
    edges = np.concatenate([[-8.5], np.arange(-8, top + 0.125, 0.25)])
    below = np.searchsorted(size, 10.0 ** edges[1:])
    counts, out = np.diff(below, prepend=0), np.diff(np.minimum(below, gone), prepend=0)
    ax.stairs(counts - out, edges, fill=True, color=draw.BLUE, label="stay")
    ax.stairs(counts, edges, baseline=counts - out, color=draw.BLUE, linewidth=1, label="go")
    if gone:
        where = np.log10(max(threshold, UNDERFLOW))
        side, gap = ("right", -4) if where > -4 else ("left", 4)
        draw.level(ax, where, f"threshold {threshold:.2g}", axis="x", at=0.97, gap=gap, ha=side, va="top", rotation=0)
    ax.set_xticks([-8, -6, -4, -2, 0], ["≤ 1e-8", "1e-6", "1e-4", "0.01", "1"])
    ax.set(xlabel="|weight|, logarithmic axis", ylabel="number of weights", xlim=(-8.7, 0.2))
    ax.set_title(f"{gone:,} of {len(size):,} weights go")
    ax.legend(loc="center left", bbox_to_anchor=(0.12, 0.6), fontsize=9)
    ax.set_ylim(0, 1.12 * max(counts.max(), 1))
    ax.yaxis.set_major_formatter("{x:,.0f}")


def _shares(ax: Axes, names: Sequence[str], share: np.ndarray) -> None:
    """A bar a layer: the part that stays filled, the `share` that goes hollow."""
    rows = np.arange(len(names))
    ax.barh(rows, 1 - share, 0.6, share, color=draw.BLUE, edgecolor=draw.BLUE)
    ax.barh(rows, share, 0.6, color="white", edgecolor=draw.BLUE, linewidth=0.8)
    for row, name in enumerate(names):
        ax.text(0.01, row - 0.36, f"{name}: {share[row]:.1%} go", va="bottom", fontsize=9)
    ax.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.75), yticks=[], xlabel="share of the layer's weights")
    ax.set_title("Who pays")
    ax.grid(False)
    draw.percent(ax, "x")


@draw.styled
def pixel_maps(maps: ArrayLike, captions: Sequence[str], *, unit: str, title: str = "") -> draw.Picture:
    """Maps (k, height, width) of non-negative numbers side by side, each from 0 (dark) to its own maximum (bright).

    >>> pixel_maps(np.ones((1, 2, 2)), ["50% zeros"], unit="weights a pixel").alt
    'Maps of weights a pixel. 50% zeros: 0.0% of the pixels have none, at most 1.'
    """
    values, notes = np.asarray(maps, dtype=float), []
    picture, axes = draw.blank(7, 2.4, 1, len(values))
    for ax, image, caption in zip(axes, values, captions, strict=True):
        ax.imshow(image, cmap="cividis", vmin=0, vmax=max(image.max(), 1))
        ax.set_title(f"{caption}\n0 to {image.max():g}", fontsize=9, loc="center")
        ax.set(xticks=[], yticks=[])
        notes.append(f"{caption}: {np.mean(image == 0):.1%} of the pixels have none, at most {image.max():g}")
    draw.heading(picture, title)
    picture.supxlabel(f"{unit}: dark = 0, bright = the largest number of each picture", fontsize=9)
    return draw.tell(picture, f"Maps of {unit}.", notes)
