"""Figures of lesson 08, which weights, really: ratios certified by order and network, risks by order, seconds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from confprune_edu.plots import picture as draw


@draw.styled
def ratios_by_order(found: Mapping[str, Mapping[str, float | None]], *, title: str = "") -> draw.Picture:
    """The certified ratio of each order, a row a network: `found` maps network -> order -> ratio or None.

    Where several orders have one ratio their marks stand above each other; None, nothing certified, stands at 0.

    >>> ratios_by_order({"MLP": {"magnitude": 0.91, "random": None}}).alt
    'Certified ratio by network and order. MLP: magnitude 0.91, random none.'
    """
    orders = list(dict.fromkeys(order for row in found.values() for order in row))
    picture, (ax,) = draw.blank(7, 1.2 + 0.42 * len(found))
    step = 0.7 / max(len(orders) - 1, 1)
    for i, look in enumerate(draw.looks(orders, draw.MARKS)):
        points = [(ratios[orders[i]] or 0, row) for row, ratios in enumerate(found.values()) if orders[i] in ratios]
        x, rows = np.array(points, dtype=float).T
        ax.plot(x, rows + step * i - 0.35, **look | {"linestyle": ""}, markersize=6)
    for row in range(1, len(found)):
        ax.axhline(row - 0.5, color="#CCCCCC", linewidth=0.8)
    ax.set_yticks(range(len(found)), list(found))
    ax.grid(visible=False, axis="y")
    ax.set(ylim=(len(found) - 0.5, -0.5), xlim=(-0.02, 1), xlabel="certified pruning ratio", title=title)
    draw.percent(ax, "x", 0)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    told = [
        f"{network}: "
        + ", ".join(f"{order} {'none' if ratio is None else f'{ratio:g}'}" for order, ratio in row.items())
        for network, row in found.items()
    ]
    return draw.tell(picture, "Certified ratio by network and order.", told)


@draw.styled
def orders_compared(results: Mapping[str, Any], *, title: str = "") -> draw.Picture:
    """Mean losses of several calibrations against the ratio; a large filled mark where the certified ratios end.

    >>> from confprune_edu.calibration import calibrate_losses
    >>> result = calibrate_losses(np.zeros((50, 1)), [0.5], alpha=0.1, delta=0.1)
    >>> orders_compared({"magnitude": result}).alt
    'Mean loss against pruning ratio by order, alpha = 0.1. Certified up to: magnitude 0.5.'
    """
    alpha = next(iter(results.values())).alpha
    picture, (ax,) = draw.blank(7, 3.6, margins={"left": 0.11, "right": 0.98, "bottom": 0.15, "top": 0.9})
    for look, result in zip(draw.looks(results, draw.MARKS), results.values(), strict=True):
        mark = look.pop("marker")
        ax.plot(result.ratios, result.loss_means, **look)
        if result.ratio is not None:
            at = result.loss_means[result.ratios == result.ratio]
            ax.plot(result.ratio, at, marker=mark, color=look["color"], markersize=9)
    draw.level(ax, alpha, f"alpha = {alpha:.3g}", at=0.02, ha="left")
    ax.set(ylabel="mean loss", ylim=(-0.08 * alpha, 4 * alpha), title=title)
    draw.ratio_axis(ax)
    draw.percent(ax, "y")
    ax.legend(loc="upper left", fontsize=9, title="mark: certified up to here")
    ends = ", ".join(f"{name} {'none' if r.ratio is None else f'{r.ratio:g}'}" for name, r in results.items())
    return draw.tell(
        picture, f"Mean loss against pruning ratio by order, alpha = {alpha:.3g}. Certified up to: {ends}."
    )


@draw.styled
def seconds_and_risk(families: Mapping[str, tuple[ArrayLike, Any]], *, title: str = "") -> draw.Picture:
    """Time against risk: a family maps to times (m,), as shares of the full network's, and its calibration.

    Certified ratios are filled, others hollow; the calibration holds one ratio a time.

    >>> from confprune_edu.calibration import calibrate_losses
    >>> result = calibrate_losses(np.zeros((50, 2)), [0.2, 0.5], alpha=0.1, delta=0.1)
    >>> seconds_and_risk({"fewer units": ([0.9, 0.6], result)}).alt
    'Time against mean loss, alpha = 0.1. Shortest certified time: fewer units 0.60 of the full network at ratio 0.5.'
    """
    alpha = next(iter(families.values()))[1].alpha
    picture, (ax,) = draw.blank(7, 3.6)
    notes = []
    for look, (name, (times, result)) in zip(draw.looks(families, draw.MARKS), families.items(), strict=True):
        y, mark, safe = np.asarray(times, dtype=float), look.pop("marker"), result.rejected
        ax.plot(result.loss_means, y, linewidth=0.8, **look)
        colour = look["color"]
        ax.plot(result.loss_means[safe], y[safe], mark, color=colour)
        ax.plot(result.loss_means[~safe], y[~safe], mark, color=colour, markerfacecolor="white")
        best = np.flatnonzero(safe)[np.argmin(y[safe])] if safe.any() else None
        where = "" if best is None else f" at ratio {result.ratios[best]:g}"
        notes.append(f"{name} {'none' if best is None else f'{y[best]:.2f} of the full network'}{where}")
    draw.level(ax, alpha, f"alpha = {alpha:.3g}", axis="x")
    ax.set(xlabel="mean loss of the calibration examples", ylabel="time / that of the full network", title=title)
    ax.set(xlim=(-0.05 * alpha, 2.5 * alpha), ylim=(0, None))
    draw.percent(ax, "x")
    ax.legend(loc="center right", title="filled: certified")
    about = f"Time against mean loss, alpha = {alpha:.3g}. Shortest certified time:"
    return draw.tell(picture, f"{about} {', '.join(notes)}.")
