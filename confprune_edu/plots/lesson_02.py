"""Figures of lesson 02, p-values: their laws, the majorants behind them, who is smallest where."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from confprune_edu import pvalues
from confprune_edu.plots import picture as draw


@draw.styled
def error_counts(
    counts: ArrayLike, n: int, alpha: float, *, errors: int, title: str = "", examples: str = "samples"
) -> draw.Picture:
    """How often a model of risk alpha makes k errors among n: simulated `counts` (dots), the law (bars), tail filled.

    >>> error_counts([1, 2, 2, 3], 4, 0.5, errors=1).alt
    'Errors among n = 4 of a model of risk 0.5: at most 1 with probability 0.312; in 0.2500 of 4 simulated samples.'
    """
    drawn, k = np.bincount(np.asarray(counts), minlength=n + 1) / np.size(counts), np.arange(n + 1)
    pmf = np.diff(pvalues.binomial(k, n, alpha), prepend=0.0)
    shown = (pmf > 1e-4 * pmf.max()) | (k <= errors + 1)
    picture, (ax,) = draw.blank(7, 3.2)
    faces = [draw.BLUE if i <= errors else "white" for i in k[shown]]
    ax.bar(k[shown], pmf[shown], color=faces, edgecolor=draw.BLUE)
    simulated = f"{np.size(counts):,} simulated {examples}"
    ax.plot(k[shown], drawn[shown], "o", color=draw.COLOURS[1], markersize=4, label=simulated)
    ax.axvline(n * alpha, color=draw.GREY, linestyle="--", linewidth=1.2, label="expected: n alpha")
    ax.set(xlabel=f"errors among n = {n:,} examples, risk = {alpha:g}", ylabel="probability", title=title)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    chance, share = pmf[: errors + 1].sum(), drawn[: errors + 1].sum()
    tail = Patch(facecolor=draw.BLUE, edgecolor=draw.BLUE, label=f"at most {errors}: {chance:.3g} in all")
    law = Patch(facecolor="white", edgecolor=draw.BLUE, label="the binomial law")
    ax.legend(handles=[tail, law, *ax.get_legend_handles_labels()[0]])
    return draw.tell(
        picture,
        f"Errors among n = {n} of a model of risk {alpha:g}: at most {errors} with probability {chance:.3g}; in "
        f"{share:.4f} of {np.size(counts):,} simulated samples.",
    )


@draw.styled
def p_value_laws(
    laws: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    limit: float = 1.0,
    at: float = 0.1,
    title: str = "",
    marks: bool = False,
) -> draw.Picture:
    """Distribution functions of p-values, up to u = `limit`: a valid one stays out of the hatched half under the null.

    Parameters
    ----------
    laws : by name, the values of a p-value (k,) and their probabilities (k,)
        For simulated p-values, equal probabilities.
    limit, at : float
        Largest u drawn; the level that the alternative text reports.
    marks : bool
        Mark each step, so that curves are told apart where they run along each other.

    >>> p_value_laws({"fair": ([0.05, 0.5, 1.0], [0.05, 0.45, 0.5])}).alt
    'Share of p-values that are at most u, against u. At u = 0.1: fair 0.050. Above the diagonal somewhere: none.'
    """
    picture, (ax,) = draw.blank(7, 3.8)
    ax.fill_between([0, limit], [0, limit], [1, 1], facecolor="none", edgecolor="#D9D9D9", hatch="//", linewidth=0)
    ax.plot([0, limit], [0, limit], color=draw.GREY, linewidth=1)
    notes, broken, top = [], [], limit
    for (name, (p, chance)), look in zip(laws.items(), draw.looks(laws, draw.MARKS if marks else ""), strict=True):
        u, which = np.unique(np.asarray(p, dtype=float), return_inverse=True)
        below = np.cumsum(np.bincount(which, np.asarray(chance, dtype=float)))
        shown = np.searchsorted(u, limit, side="right")
        x, y = np.r_[0, u[:shown], limit], np.r_[0, below[:shown], below[shown - 1] if shown else 0]
        ax.step(x, y, where="post", markevery=range(1, shown + 1), linewidth=1.2 if marks else None, **look)
        top = max(top, y[-1])
        reached = np.searchsorted(u, at, side="right")
        notes.append(f"{name} {below[reached - 1] if reached else 0:.3f}")
        broken += [name] if (below - u).max() > 1e-9 else []
    ax.set(xlim=(0, limit), ylim=(-0.01 * top, min(1.04 * top, 1.02)), title=title)
    ax.set(xlabel="u", ylabel="probability of p ≤ u")
    if at < limit:
        draw.level(ax, at, f"u = {at:g}", axis="x", at=0.98, gap=4, ha="left", va="top", rotation=0)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return draw.tell(
        picture,
        f"Share of p-values that are at most u, against u. At u = {at:g}: {', '.join(notes)}. "
        f"Above the diagonal somewhere: {', '.join(broken) or 'none'}.",
    )


@draw.styled
def chord(f: Callable[[Any], Any], alpha: float, risk: float, *, label: str, title: str = "") -> draw.Picture:
    """A convex decreasing f on [0, 1] below its chord: losses and coins of mean `risk`, and a coin of mean alpha.

    >>> chord(lambda x: np.exp(-3 * x), 0.1, 0.4, label="exp(-3 x)").alt
    'exp(-3 x) on [0, 1] lies below its chord; the chord falls from 0.905 at alpha = 0.1 to 0.620 at the risk 0.4.'
    """
    x = np.linspace(0, 1, 201)
    line = f(0.0) + x * (f(1.0) - f(0.0))
    heights = {mean: f(0.0) + mean * (f(1.0) - f(0.0)) for mean in (alpha, risk)}
    picture, (ax,) = draw.blank(7, 3.2)
    ax.fill_between(x, f(x), line, color=draw.BLUE, alpha=0.12, label="E f(L) of a loss of mean x lies here")
    ax.plot(x, f(x), color=draw.BLUE, label=f"f(x) = {label}")
    ax.plot(x, line, color=draw.COLOURS[1], linestyle="--", label="chord: E f of a coin of mean x")
    for mean, name, face in ((risk, f"risk {risk:g}", "white"), (alpha, f"alpha = {alpha:.3g}", draw.COLOURS[1])):
        ax.plot(mean, heights[mean], "o", color=draw.COLOURS[1], markerfacecolor=face, zorder=3)
        ax.annotate(f"coin, {name}", (mean, heights[mean]), xytext=(6, 5), textcoords="offset points", fontsize=9)
    ax.set(xlabel="loss on one example, or its mean", ylabel="f", title=title)
    ax.legend(loc="upper right", fontsize=9)
    return draw.tell(
        picture,
        f"{label} on [0, 1] lies below its chord; the chord falls from {heights[alpha]:.3f} at alpha = {alpha:.3g} to "
        f"{heights[risk]:.3f} at the risk {risk:g}.",
    )


@draw.styled
def majorants(s: float, n: int, alpha: float) -> draw.Picture:
    """Functions above the step 1{x <= s} (left), and what each costs as a bound on P[S <= s] (right).

    Hinges (c - x)+ / (c - s) for three c, and the exponential of Hoeffding; s < n alpha.

    >>> majorants(5, 100, 0.1).alt
    'Majorants of the step, s = 5, n = 100, alpha = 0.1. Bounds: Hoeffding 0.188; hinge at c = 6: 0.0914; hinge at
    c = 7: 0.104; hinge at c = 9: 0.184. The smallest hinge bound is at c = 6.'
    """
    c = np.arange(int(np.floor(s)) + 1, n + 1)
    prices = np.cumsum(pvalues.binomial(np.arange(n + 1), n, alpha))[c - 1] / (c - s)
    best, first = int(c[prices.argmin()]), int(c[0])
    wide = int(min(n, best + max(2 * (best - s), 3)))
    hinges = list(dict.fromkeys((first, best, min(best + 1, n), wide)))
    hoeffding = float(pvalues.hoeffding(s, n, alpha))
    picture, (left, right) = draw.blank(7, 3.8, 1, 2, width_ratios=[1.25, 1])
    _above_the_step(left, s, n, alpha, hinges)
    shown = c <= max(2 * best - s, best + 4)
    right.plot(c[shown], prices[shown], "o", color=draw.BLUE, markerfacecolor="white", label="hinge at c")
    right.plot(best, prices.min(), "o", color=draw.BLUE, label="the best hinge: tight")
    right.axhline(hoeffding, color="black", linestyle=":", label="exponential (Hoeffding)")
    right.set(xlabel="c", ylabel="bound on P[S ≤ s]", title=f"The best price is at c = {best}")
    right.set_ylim(0, 1.1 * max(hoeffding, prices[shown].max()))
    right.legend(fontsize=9, loc="lower right")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    bounds = "; ".join(f"hinge at c = {at}: {prices[at - first]:.3g}" for at in hinges)
    return draw.tell(
        picture,
        f"Majorants of the step, s = {s:g}, n = {n}, alpha = {alpha:.3g}. Bounds: Hoeffding {hoeffding:.3g}; {bounds}. "
        f"The smallest hinge bound is at c = {best}.",
    )


def _above_the_step(ax: Axes, s: float, n: int, alpha: float, hinges: list[int]) -> None:
    """The step, the hinges, and the exponential whose slope is the best for Hoeffding's bound."""
    x = np.linspace(0, max(n * alpha, hinges[-1]) + 1, 1201)
    slope = np.log(alpha * (n - s) / ((1 - alpha) * s)) if s > 0 else np.inf
    ax.fill_between(x, x <= s, color="#D9D9D9", label="the step 1{x ≤ s}", step="mid")
    with np.errstate(over="ignore"):
        ax.plot(x, np.exp(slope * (s - x)) if s > 0 else (x <= 0), color="black", linestyle=":", label="exponential")
    draw.lines(ax, x, {f"hinge at c = {at}": np.maximum(at - x, 0) / (at - s) for at in hinges})
    ax.set(ylim=(0, 2.6), xlabel=f"x, a sum of n = {n:,} losses", ylabel="value", title="Each lies above the step")
    ax.legend(fontsize=9, loc="upper right")


@draw.styled
def wealth(games: draw.ByName, *, delta: float, title: str = "") -> draw.Picture:
    """Wealth of gamblers over time, arrays (n + 1, players) by name: one panel each, with the goal 1 / delta.

    >>> wealth({"fair": [[1.0, 1.0], [0.5, 20.0]]}, delta=0.1).alt
    'Wealth against examples seen. fair: 1 of 2 players ever own 1 / delta = 10.'
    """
    picture, axes = draw.blank(7, 3.4, 1, len(games), sharey=True)
    notes = []
    for ax, (name, paths) in zip(axes, games.items(), strict=True):
        paths = np.asarray(paths, dtype=float)
        won = (paths >= 1 / delta).any(axis=0)
        goal = f"1 / delta = {1 / delta:g}"
        ax.plot(paths[:, ~won], color=draw.GREY, linewidth=0.8)
        ax.plot(paths[:, won], color=draw.BLUE, linewidth=1.2)
        draw.level(ax, 1 / delta, goal)
        ax.set(xlabel="examples seen", title=f"{name}: {won.sum()} of {paths.shape[1]} reach it", yscale="log")
        ax.yaxis.set_major_formatter("{x:g}")
        notes.append(f"{name}: {won.sum()} of {paths.shape[1]} players ever own {goal}")
    axes[0].set_ylabel("wealth (start: 1)")
    draw.heading(picture, title)
    return draw.tell(picture, "Wealth against examples seen.", notes)


@draw.styled
def p_values_by_mean(n: int, alpha: float, variance: float = 1.0, *, delta: float = 0.1, seed: int = 0) -> draw.Picture:
    """P-values by every method against the mean loss of n examples, at one variance of the losses.

    Hoeffding-Bentkus is left out: it is the lower one of two curves that are drawn.

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
    losses = means + np.sqrt(variance) * (coins(means, n, seed) - means)
    left_out = ("binomial", "hoeffding_bentkus")
    curves = {f: pvalues.p_values(losses, alpha, f) for f in pvalues.METHODS if f not in left_out}
    picture, (ax,) = draw.blank(7, 4)
    draw.lines(ax, means, {name: np.maximum(p, draw.SMALLEST) for name, p in curves.items()})
    if variance == 1:
        k = np.arange(int(np.floor(n * means[-1])) + 1)
        exact = np.maximum(pvalues.binomial(k, n, alpha), draw.SMALLEST)
        ax.plot(k / n, exact, "o", color=draw.METHOD_STYLE["binomial"][0], markersize=4, label="binomial")
    draw.level(ax, alpha, f"alpha = {alpha:.3g}", axis="x", at=0.02, gap=3, ha="left", va="baseline")
    draw.level(ax, delta, f"delta = {delta:.3g}")
    half = {name: float(p[np.abs(means - alpha / 2).argmin()]) for name, p in curves.items()}
    valid = min((name for name in half if name != "clt"), key=lambda name: half[name])
    draw.p_value_axis(ax)
    ax.set(ylim=(draw.SMALLEST / 2, 2), xlabel=f"mean loss of n = {n:,} examples")
    ax.set_title(f"At mean alpha / 2, smallest and valid for any losses: {valid}, {half[valid]:.2g}")
    ax.set_yticks([1, 1e-2, 1e-4, 1e-6], ["1", "1e-2", "1e-4", "1e-6"])  # plain and few: an explorer redraws them
    ax.set_yticks([], minor=True)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    listed = ", ".join(f"{name} {p:.2g}" for name, p in half.items())
    return draw.tell(
        picture,
        f"P-values against the mean loss, n = {n}, alpha = {alpha:.3g}. At half of alpha: {listed}. Variance of the "
        f"losses: {variance:g} of that of 0/1 losses.",
    )


@draw.styled
def p_value_map(
    sizes: ArrayLike, means: ArrayLike, p: draw.ByName, *, alpha: float, delta: float, title: str = ""
) -> draw.Picture:
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
    picture, (left, right) = draw.blank(7, 3.6, 1, 2, sharey=True)
    looks = list(zip(rivals, ["#9CCBE8", "#EBC3D8", "#DDF0E7", "#E6E6E6"], ["....", "////", "", "xx"], strict=False))
    for i, (_, shade, hatch) in enumerate(looks):
        area = left.contourf(sizes, means, best == i, levels=[0.5, 1.5], colors=[shade], hatches=[hatch])
        area.set(edgecolor=draw.GREY, linewidth=0)
    mesh = right.pcolormesh(sizes, means, factor, cmap="Blues", vmin=1, shading="nearest", rasterized=True)
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
    key: list[Any] = [Patch(fc=shade, ec=draw.GREY, hatch=hatch, label=name) for name, shade, hatch in looks]
    key += [Line2D([], [], color="black", label=f"tight = delta = {delta:.3g}")]
    key += [Line2D([], [], color="black", linestyle="--", linewidth=1.2, label="rival = delta")]
    tight_fit = {"fontsize": 8, "handlelength": 1.4, "columnspacing": 1}
    picture.legend(handles=key, loc="outside lower center", ncols=len(key), **tight_fit)
    draw.heading(picture, title)
    share = ", ".join(f"{name} {(best[matters] == i).mean():.0%}" for i, name in enumerate(rivals))
    most = factor[matters].max(initial=1)
    return draw.tell(
        picture,
        f"Smallest rival of tight where tight is between 1e-4 and 0.5: {share}. There it is up to {most:.1f} times as "
        f"large as tight. Lines show where each is delta = {delta:.3g}.",
    )


@draw.styled
def examples_needed(shares: ArrayLike, needed: draw.ByName, *, title: str = "") -> draw.Picture:
    """Examples needed to certify, by method, against the variance of the losses (a fraction of that of 0/1 losses).

    NaN where no size that was tried is enough.

    >>> examples_needed([0.1, 1], {"tight": [300, 300], "betting": [100, 400]}).alt
    'Examples needed against the variance. At 0.1 of that of 0/1 losses: tight 300, betting 100; at 1: tight 300,
    betting 400.'
    """
    x = np.asarray(shares, dtype=float)
    picture, (ax,) = draw.blank(7, 3.6)
    drawn = draw.lines(ax, x, needed, marks="o", markersize=4)
    ax.set(xscale="log", yscale="log", title=title, ylabel="examples needed, n")
    ax.set_xlabel("variance of the losses / variance of 0/1 losses of the same mean")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    first, last = (", ".join(f"{name} {n[i]:g}" for name, n in drawn) for i in (0, -1))
    ends = f"At {x[0]:g} of that of 0/1 losses: {first}; at {x[-1]:g}: {last}."
    return draw.tell(picture, f"Examples needed against the variance. {ends}")


@functools.cache
def _order(n: int, seed: int) -> Any:
    return np.random.default_rng(seed).permutation(n)[:, None]


def coins(means: Any, n: int, seed: int) -> Any:
    """0/1 losses (n, m) whose mean is exactly means (m,): one of each column is fractional where that needs it."""
    return np.clip(n * means - _order(n, seed), 0, 1)
