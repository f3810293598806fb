"""Figures of lesson 10, certificate or validation set: false claims by rule, n and alpha; what each part costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from confprune_edu.plots import picture as draw


@draw.styled
def rule_rates(rates: Mapping[str, Mapping[str, Any]], *, title: str = "") -> draw.Picture:
    """Share of repetitions with a false claim, by network (a panel each) and by rule, with exact 95 % intervals.

    Bars as in `results.error_intervals`; a rule that a network has no rate for has no bar there.

    >>> from confprune_edu.validation import ErrorRate
    >>> rule_rates({"mlp": {"peeking": ErrorRate(180, 1000, 0.1)}}).alt  # doctest: +ELLIPSIS
    'Share of repetitions with a false claim, exact 95 % intervals, delta = 0.1. mlp: peeking 18.0 % (15.7 to 20.5)...
    """
    rules = list(dict.fromkeys(rule for of_network in rates.values() for rule in of_network))
    picture, axes = draw.blank(7, 1.1 + 0.26 * len(rules), 1, len(rates), sharex=True, sharey=True)
    notes, delta = [], next(iter(next(iter(rates.values())).values())).delta
    for ax, (network, of_network) in zip(axes, rates.items(), strict=True):
        told = [f"{rule} {draw.rate_row(ax, rules.index(rule), rate)}" for rule, rate in of_network.items()]
        draw.level(ax, delta, axis="x")
        ax.set_title(network, fontsize=10)
        draw.percent(ax, "x", 0)
        notes.append(f"{network}: {', '.join(told)}")
    axes[0].set_yticks(range(len(rules)), rules)
    axes[0].set_ylim(len(rules) - 0.5, -0.6)
    axes[0].set_xlim(0, min(axes[0].get_xlim()[1], 1.02))
    picture.supxlabel(f"share of repetitions with a false claim (dashed: delta = {delta:.3g})", fontsize=10)
    draw.heading(picture, title)
    what = f"Share of repetitions with a false claim, exact 95 % intervals, delta = {delta:.3g}"
    return draw.tell(picture, f"{what}. {'; '.join(notes)}.")


@draw.styled
def rules_against_n(
    sizes: Sequence[int], rates: Mapping[str, Sequence[Any]], ratios: draw.ByName, *, best: float, title: str = ""
) -> draw.Picture:
    """False claims (left, exact 95 % intervals) and median chosen ratios (k,) (right) against the examples, by rule.

    `best` is the largest ratio whose risk is at most alpha; a median of 0 says that nothing was chosen.

    >>> from confprune_edu.validation import ErrorRate
    >>> rates = {"luck": [ErrorRate(50, 100, 0.1), ErrorRate(20, 100, 0.1)]}
    >>> rules_against_n([100, 900], rates, {"luck": [0.9, 0.8]}, best=0.8).alt
    'Against n = 100, 900; the best ratio is 0.8. luck: false claims 50.0 %, 20.0 %; median ratio 0.9, 0.8.'
    """
    picture, (left, right) = draw.blank(7, 3.6, 1, 2)
    notes, delta = [], next(iter(rates.values()))[0].delta
    for (name, of_rule), look in zip(rates.items(), draw.looks(rates, draw.MARKS), strict=True):
        share, bars = draw.rate_with_bars(np.array([rate.errors for rate in of_rule]), of_rule[0].trials)
        middle = np.asarray(ratios[name], dtype=float)
        left.errorbar(sizes, share, bars, markersize=4, capsize=2, **look)
        right.plot(sizes, middle, markersize=4, **look)
        shares = ", ".join(f"{100 * value:.1f} %" for value in share)
        notes.append(f"{name}: false claims {shares}; median ratio {', '.join(f'{r:g}' for r in middle)}")
    draw.level(left, delta, f"delta = {delta:.3g}", at=0.6)
    draw.level(right, best)
    for ax in (left, right):
        ax.set_xscale("log")
        draw.size_axis(ax, np.asarray(sizes), "examples n")
        ax.tick_params(axis="x", labelsize=8)
        draw.percent(ax, "y", 0)
    left.set(ylabel="share with a false claim", ylim=(-0.02, None))
    right.set(ylabel="median chosen ratio")
    right.set_title(f"dashed: the last safe ratio, {best:g}", fontsize=9)
    picture.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    draw.heading(picture, title)
    told = f"Against n = {', '.join(map(str, sizes))}; the best ratio is {best:g}."
    return draw.tell(picture, f"{told} {'; '.join(notes)}.")


@draw.styled
def rates_against_alpha(alphas: ArrayLike, shares: draw.ByName, *, delta: float, title: str = "") -> draw.Picture:
    """Share of repetitions with a false claim, (k,) by rule, against the tolerated risk.

    >>> rates_against_alpha([0.05, 0.1], {"luck": [0.5, 0.2]}, delta=0.1).alt
    'Share of repetitions with a false claim for 2 values of alpha from 0.05 to 0.1, delta = 0.1: luck up to 50.0 %.'
    """
    x = np.asarray(alphas, dtype=float)
    picture, (ax,) = draw.blank(7, 3.6)
    drawn = draw.lines(ax, x, shares)
    draw.level(ax, delta, f"delta = {delta:.3g}", at=0.9)
    ax.set(xlabel="tolerated risk alpha", ylabel="share with a false claim", title=title)
    ax.set_ylim(-0.02, 1.3 * ax.get_ylim()[1])
    draw.percent(ax, "xy", 0)
    ax.legend(loc="upper left", ncols=2, fontsize=9)
    what = f"Share of repetitions with a false claim for {len(x)} values of alpha from {x[0]:.3g} to {x[-1]:.3g}"
    notes = "; ".join(f"{name} up to {100 * share.max():.1f} %" for name, share in drawn)
    return draw.tell(picture, f"{what}, delta = {delta:.3g}: {notes}.")


@draw.styled
def rule_laws(ratio: ArrayLike, risk: ArrayLike, *, alpha: float, title: str = "") -> draw.Picture:
    """The laws of the ratio that a rule chooses (left) and of its true risk (right), (trials,); NaN: none chosen.

    >>> rule_laws([0.8, 0.8, np.nan, 0.9], [0.04, 0.04, np.nan, 0.2], alpha=0.1).alt
    'Median ratio 0.8; true risk above alpha = 0.1 in 25.0 % of 4 repetitions, nothing chosen in 25.0 %.'
    """
    chosen, risks = np.asarray(ratio, dtype=float), np.asarray(risk, dtype=float)
    found, beyond = np.isfinite(chosen), risks > alpha
    margins = {"left": 0.1, "right": 0.98, "bottom": 0.17, "top": 0.8, "wspace": 0.3}
    picture, (left, right) = draw.blank(7, 3.2, 1, 2, margins=margins)
    values, counts = np.unique(chosen[found], return_counts=True)
    left.bar(values, counts / len(found), width=0.8 * np.diff(values).min(initial=0.02), color=draw.BLUE)
    left.set(xlabel="chosen ratio", ylabel="share of repetitions", xlim=(-0.02, 1.02))
    draw.risk_bars(right, risks, beyond, alpha)
    draw.level(right, alpha, f"alpha = {alpha:.3g}", axis="x")
    right.set_xlabel("true risk there (last bar: all beyond)")
    middle = f"median ratio {np.median(values.repeat(counts)):g}" if found.any() else "no ratio chosen"
    none, false = f"{100 * (~found).mean():.1f} %", f"{100 * beyond.mean():.1f} %"
    left.set_title(f"{middle}, none in {none}", fontsize=10)
    right.set_title(f"false claims: {false}", fontsize=10)
    for ax in (left, right):
        draw.percent(ax, "xy", 0)
    draw.heading(picture, title)
    about = f"true risk above alpha = {alpha:.3g} in {false} of {len(found)} repetitions, nothing chosen in {none}"
    return draw.tell(picture, f"{draw.capital(middle)}; {about}.")


@draw.styled
def costs(seconds: Mapping[str, tuple[Sequence[float], draw.ByName]], *, title: str = "") -> draw.Picture:
    """Seconds (k,) of each part of a calibration, by name, against what grows: a panel each, its sizes and its parts.

    >>> costs({"examples n": ([10, 20], {"evaluate": [1.0, 2.0], "p-values": [0.001, 0.001]})}).alt
    'Seconds of each part. Against examples n, 10 to 20: evaluate 1 to 2, p-values 0.001 to 0.001.'
    """
    picture, axes = draw.blank(7, 3.4, 1, len(seconds), sharey=True)
    notes = []
    for ax, (unit, (sizes, parts)) in zip(axes, seconds.items(), strict=True):
        drawn = draw.lines(ax, np.asarray(sizes, dtype=float), parts, draw.MARKS, markersize=4)
        ax.set(xscale="log", yscale="log")
        draw.size_axis(ax, np.asarray(sizes), unit, ",")
        told = ", ".join(f"{name} {y[0]:.2g} to {y[-1]:.2g}" for name, y in drawn)
        notes.append(f"Against {unit}, {sizes[0]:g} to {sizes[-1]:g}: {told}.")
    axes[0].set_ylabel("seconds")
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    draw.heading(picture, title)
    return draw.tell(picture, f"Seconds of each part. {' '.join(notes)}")
