"""Figures of lesson 00, start here."""

import numpy as np

from confprune_edu.plots import picture as draw


@draw.styled
def risk_laws(risks: draw.ByName, *, alpha: float, title: str = "") -> draw.Picture:
    """True risks (trials,) of the networks that each rule chose, one histogram a rule; NaN: it chose none.

    Bars beyond alpha are hatched; all risks beyond 2 alpha are counted in the last bar.

    >>> risk_laws({"luck": [0.04, 0.2, 0.3, np.nan]}, alpha=0.1).alt
    'True risk of the chosen network. luck: above alpha = 0.1 in 50.0% of 4 repetitions, nothing chosen in 25.0%.'
    """
    height = 1 + 1.3 * len(risks)
    margins = {"left": 0.11, "right": 0.96, "bottom": 0.5 / height, "top": 1 - 0.6 / height, "hspace": 0.35}
    picture, axes = draw.blank(7, height, len(risks), sharex=True, sharey=True, margins=margins)
    notes, line = [], f"alpha = {alpha:.3g}"
    for ax, (name, values) in zip(axes, risks.items(), strict=True):
        risk = np.asarray(values, dtype=float)
        beyond, none = float(np.mean(risk > alpha)), float(np.mean(np.isnan(risk)))
        draw.risk_bars(ax, risk, risk > alpha, alpha)
        draw.level(ax, alpha, line if ax is axes[0] else "", axis="x")
        ax.set_ylabel("share of draws")
        ax.set_title(f"{name}: beyond alpha {beyond:.1%}, nothing chosen {none:.1%}", fontsize=10)
        draw.percent(ax, "x")
        draw.percent(ax, "y", 0)
        how_often = f"{beyond:.1%} of {len(risk)} repetitions, nothing chosen in {none:.1%}"
        notes.append(f"{name}: above {line} in {how_often}")
    axes[-1].set_xlabel("true risk of the chosen network (last bar: all beyond)")
    draw.heading(picture, title)
    return draw.tell(picture, "True risk of the chosen network.", notes)
