"""Figures of lesson 00."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from confprune_edu.plots.picture import BLUE, COLOURS, Picture, _limit, _styled, percent, tell

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
        percent(ax, "xy")
        notes.append(
            f"{name}: above alpha = {alpha:.3g} in {beyond:.1%} of {len(risk)} repetitions, "
            f"nothing chosen in {none:.1%}"
        )
    axes[-1].set_xlabel("true risk of the chosen network (last bar: all beyond)")
    picture.suptitle(title, fontsize=11, x=0.01, ha="left")
    return tell(picture, "True risk of the chosen network. " + "; ".join(notes) + ".")
