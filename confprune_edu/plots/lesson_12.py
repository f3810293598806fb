"""Figures of lesson 12, your own model: how many examples a plan needs."""

import numpy as np
from numpy.typing import ArrayLike

from confprune_edu.plots import picture as draw


@draw.styled
def examples_by_ratio(ratios: ArrayLike, needed: ArrayLike, *, n: int, title: str = "") -> draw.Picture:
    """Calibration examples needed (m,) against the pruning ratio; inf, a cross at the top: no number is enough.

    Filled points are within reach of the n examples that one has, the dashed line.

    >>> examples_by_ratio([0.2, 0.5, 0.8], [45, 2500, np.inf], n=2000).alt
    '2,000 examples reach ratio 0.2. Examples needed by ratio: 45 at 0.2, 2,500 at 0.5, no number at 0.8.'
    """
    x, y = np.asarray(ratios, dtype=float), np.asarray(needed, dtype=float)
    known = np.isfinite(y)
    reach = f"{n:,} examples reach {f'ratio {x[y <= n].max():g}' if (y <= n).any() else 'no ratio'}"
    picture, (ax,) = draw.blank(7, 3.4, margins={"left": 0.12, "right": 0.96, "bottom": 0.15, "top": 0.9})
    draw.filled(ax, x[known], y[known], y[known] <= n, labels=("within reach", "beyond it"))
    ax.plot(x[~known], np.ones((~known).sum()), "x", color=draw.GREY, transform=ax.get_xaxis_transform(), clip_on=False)
    ax.plot([], [], "x", color=draw.GREY, label="no number is enough")
    draw.level(ax, n, f"n = {n:,}")
    ax.set(xlim=(-0.02, 1), yscale="log", ylabel="examples needed", title=title or reach)
    ax.set_ylim(top=4 * max(n, y[known].max(initial=1)))
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.minorticks_off()
    draw.ratio_axis(ax, 0)
    ax.legend(loc="lower right")
    told = (f"{f'{k:,.0f}' if np.isfinite(k) else 'no number'} at {ratio:g}" for ratio, k in zip(x, y, strict=True))
    return draw.tell(picture, f"{reach}. Examples needed by ratio: {', '.join(told)}.")
