"""Explorers: a function of `plots` with controls. Each is a thin layer; what is drawn is decided in `plots`.

Live (JupyterLab, VS Code, Colab) an explorer redraws when a control moves. Executed without a reader (papermill, nbval,
nbconvert) it draws once, at the defaults, as a plain output of the cell: the figure is stored, an error fails the cell.
"""

import functools
import gc
import math
import os
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import ipywidgets
import numpy as np
from IPython import get_ipython
from IPython.display import display

from confprune_edu import calibration, certificates, data, fwer, plots, pvalues, selective
from confprune_edu.selective import procedures

NAMED: dict[str, Any] = {"style": {"description_width": "20em"}, "layout": {"width": "36em"}}
SLIDER: dict[str, Any] = {"readout": False, "layout": {"width": "16em"}}
QUICK = 0.25  # seconds; a figure that is drawn sooner follows a slider while it is dragged

# The widgets of one row, not made yet (without a reader none is): the first holds the value, the others follow it.
Control = functools.partial[list[Any]]


def explore(draw: Callable[..., Any], **controls: Control) -> None:
    """Show `draw(**values)` and, live, redraw it when a control moves.

    An error of `draw` is shown in place of the figure, until a control moves again.

    Parameters
    ----------
    draw : callable
        Takes the values of the controls by name, returns what to display (a `plots.Picture`, say) and changes nothing.
    controls
        Made by `slider`, `log_slider`, `integer` or `menu`, so that labels have units and are never cut off.

    >>> explore(lambda n: f"n = {n}", n=integer("examples", 50, 1, 100))
    n = 50
    """

    def show(**values: Any) -> None:
        start = time.perf_counter()
        display(draw(**values), exclude=["image/png"])  # the picture within the HTML is enough for a reader
        quick = time.perf_counter() - start < QUICK
        for moved in sliders:
            moved.continuous_update = quick

    if not is_live():
        display(draw(**{name: control.keywords["value"] for name, control in controls.items()}))
        return
    _settle()
    rows = {name: control() for name, control in controls.items()}
    sliders = [slider for _, *twins in rows.values() for slider in twins]
    figure = ipywidgets.interactive_output(show, {name: row[0] for name, row in rows.items()})
    shown = ipywidgets.VBox([*(ipywidgets.HBox(row) for row in rows.values()), figure])
    display(shown.add_class("confprune-explorer"))


def _settle() -> None:
    """Spare the garbage collector what is in memory by now: with torch loaded, one round through it takes 0.2 s.

    Such a round would hold up a redraw now and then. What becomes garbage later is found when the next explorer opens.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def is_live() -> bool:
    """Does a front end with a reader ask for this cell? CONFPRUNE_STATIC=1 or 0 in the environment decides before.

    Front ends say which cell they run; papermill, nbval and nbconvert do not. Voila does not either, but has readers.
    """
    if (static := os.environ.get("CONFPRUNE_STATIC")) is not None:
        return static != "1"
    if os.environ.get("SERVER_SOFTWARE", "").startswith("voila"):
        return True
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent("shell").get("metadata"))


def slider(label: str, value: float, low: float, high: float, step: float, digits: int = 2) -> Control:
    """A number from `low` to `high`: typed, or moved with a slider in steps of `step`, rounded to `digits` places."""
    limits = {"value": value, "min": low, "max": high, "step": step}
    moved = functools.partial(ipywidgets.FloatSlider, **limits)
    return Control(_twins, ipywidgets.BoundedFloatText, moved, lambda x: round(x, digits), label=label, **limits)


def log_slider(label: str, value: float, low: float, high: float) -> Control:
    """A number from 10**low to 10**high: typed, or moved with a slider, twenty steps a power of ten.

    The slider gives three digits: what is shown is what is used. A `value` beyond the limits moves them.
    """
    low, high = min(low, math.floor(20 * math.log10(value)) / 20), max(high, math.ceil(20 * math.log10(value)) / 20)
    moved = functools.partial(ipywidgets.FloatLogSlider, value=value, min=low, max=high, step=0.05)
    limits = {"value": value, "min": 10**low, "max": 10**high, "step": 10**low}
    return Control(_twins, ipywidgets.BoundedFloatText, moved, lambda x: float(f"{x:.3g}"), label=label, **limits)


def integer(label: str, value: int, low: int, high: int, step: int = 1) -> Control:
    """A whole number from `low` to `high`: typed, or moved with a slider in steps of `step`."""
    limits = {"value": value, "min": low, "max": high, "step": step}
    moved = functools.partial(ipywidgets.IntSlider, **limits)
    return Control(_twins, ipywidgets.BoundedIntText, moved, int, label=label, **limits)


def menu(label: str, options: Sequence[Any], value: Any = None) -> Control:
    """A drop-down list, and a slider through it; the first option is chosen unless `value` says another."""
    value = options[0] if value is None else value
    return Control(_choices, label=label, options=options, value=value)


def _twins(number: Any, slider: Any, rounded: Callable[[Any], Any], *, label: str, **limits: Any) -> list[Any]:
    """A number to type, which has its label as a name for screen readers, and a slider, which has none.

    Each follows the other when they are more than half a step apart: the browser moves a slider to the nearest step,
    which is no reason to change a number that was typed, and a slider is not pushed while it is dragged.
    """
    typed, moved = number(description=label, **limits, **NAMED), slider(**SLIDER)
    position = math.log10 if isinstance(moved, ipywidgets.FloatLogSlider) else float

    def link(source: Any, target: Any, rounded: Callable[[Any], Any]) -> None:
        def follow(_: Any) -> None:
            if abs(position(source.value) - position(target.value)) > 0.501 * moved.step:
                target.value = rounded(source.value)

        source.observe(follow, "value")

    link(typed, moved, lambda value: value)
    link(moved, typed, rounded)
    return [typed, moved]


def _choices(*, label: str, options: Sequence[Any], value: Any) -> list[Any]:
    """A drop-down list, which has a name, and a slider: JupyterLab takes the list's arrow keys to go to other cells."""
    chosen = ipywidgets.Dropdown(description=label, options=options, value=value, **NAMED)
    moved = ipywidgets.SelectionSlider(options=options, value=value, **SLIDER)
    ipywidgets.link((chosen, "index"), (moved, "index"))
    return [chosen, moved]


# Lesson 00


def counting_explorer(wrong: Any, alpha: float = 0.05, n: int = 200, *, delta: float = 0.1) -> None:
    """How often two rules choose a ratio whose risk exceeds alpha: a count that looks fine, and a certificate.

    The table `wrong` (examples, m) of 0/1 losses is the whole population, so that the risks are known: 1,000 times n of
    its rows are drawn with replacement. See `plots.risk_laws`.
    """
    kinds, sizes = np.unique(wrong, axis=0, return_counts=True)  # examples that fail at the same ratios are alike
    risk = np.append(sizes @ kinds / sizes.sum(), np.nan)  # the last one: nothing was chosen

    def draw(alpha: float, n: int) -> Any:
        counts = np.random.default_rng(0).multinomial(n, sizes / sizes.sum(), size=1000) @ kinds
        p = pvalues.tight(np.arange(n + 1), n, alpha)[counts]
        rules = {"largest ratio whose count is fine": counts / n <= alpha, "certificate": fwer.fixed_sequence(p, delta)}
        last = {name: np.where(fine, np.arange(len(risk) - 1), -1).max(axis=1) for name, fine in rules.items()}
        laws = {name: risk[chosen] for name, chosen in last.items()}
        return plots.risk_laws(laws, alpha=alpha, title=f"True risk of the chosen network in 1,000 draws of n = {n:,}")

    explore(
        draw,
        alpha=log_slider("tolerated risk alpha", alpha, -2, -0.3),
        n=integer("examples n", n, 10, max(4000, n), 10),
    )


# Lesson 01


def weights_and_threshold(weights: Any, ratio: float = 0.9) -> None:
    """Move the pruning ratio from `ratio` on: which weights (arrays by name, sorted here once) go, which layer pays."""
    draw = functools.partial(plots.weights_and_threshold, plots.sort_weights(weights))
    explore(draw, ratio=slider("pruning ratio (share of all weights)", ratio, 0, max(0.99, ratio), 0.01))


# Lesson 02


def p_value_explorer(n: int = 100, alpha: float = 0.1, *, delta: float = 0.1, seed: int = 0) -> None:
    """`plots.p_values_by_mean` with controls for the examples, the tolerated risk and the variance of the losses."""
    explore(
        functools.partial(plots.p_values_by_mean, delta=delta, seed=seed),
        n=integer("examples n", n, 10, max(2000, n), 10),
        alpha=log_slider("tolerated risk alpha", alpha, -3, -0.3),
        variance=slider("variance / that of 0/1 losses", 1.0, 0.0, 1.0, 0.05),
    )


# Lesson 03


def error_budget(delta: float = 0.1) -> None:
    """Watch the budget flow: a procedure, a scenario of p-values, and the number of rejections made so far.

    See `plots.error_budget`; the scenarios scale with `delta`.
    """
    explore(
        functools.partial(plots.error_budget, delta=delta),
        procedure=menu("procedure", list(plots.BUDGET_PROCEDURES), "chain"),
        scenario=menu("scenario of p-values", list(plots.BUDGET_SCENARIOS), "A breaks early"),
        steps=integer("rejections made so far", 1, 0, len(plots.BUDGET_NAMES)),
    )


# Lesson 04


def sequence_explorer(delta: float = 0.1) -> None:
    """Step through one of `plots.SEQUENCES` by hand, see `plots.sequence`."""

    def draw(example: str, delta: float, step: int) -> Any:
        return plots.sequence(plots.SEQUENCES[example], delta=delta, step=step)

    explore(
        draw,
        example=menu("p-values", list(plots.SEQUENCES)),
        delta=slider("error budget delta", delta, 0.01, 0.5, 0.01),
        step=integer("tests made so far", 1, 0, 8),
    )


def calibration_explorer(
    alpha: float = 0.05,
    delta: float = 0.1,
    n: int = 1000,
    losses: Any = None,
    ratios: Any = None,
    *,
    loss_range: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Calibrate on the first n rows of a table of losses, see `plots.grid_of_tests`; default: `data.mnist_losses`.

    The table is read once; p-values are computed again only when n, alpha or the method changes.
    """
    losses, ratios = data.mnist_losses() if losses is None else (losses, ratios)
    population, m, binary = losses.mean(axis=0), len(ratios), losses.dtype.kind != "f"
    procedures: dict[str, Any] = {name: fwer.named(name) for name in fwer.PROCEDURES}
    procedures["multi_start, 4 starts"] = functools.partial(fwer.multi_start, starts=range(0, m, -(-m // 4)))

    @functools.cache
    def evidence(n: int, alpha: float, p_value: str) -> Any:
        return losses[:n].mean(axis=0), pvalues.p_values(*pvalues.rescale(losses[:n], alpha, *loss_range), p_value)

    def draw(alpha: float, delta: float, p_value: str, procedure: str, n: int) -> Any:
        means, p = evidence(n, alpha, p_value)
        rejected = procedures[procedure](p, delta)
        tested = np.cumsum(~rejected) <= 1 if procedure == "fixed_sequence" else np.full(m, True)
        found = {"ratios": ratios, "loss_means": means, "p_values": p, "rejected": rejected, "tested": tested}
        return plots.grid_of_tests(SimpleNamespace(**found, alpha=alpha, delta=delta, n=n), population)

    explore(
        draw,
        alpha=log_slider("tolerated risk alpha", alpha, -3, -0.5),
        delta=log_slider("error budget delta", delta, -3, -0.3),
        p_value=menu("p-value", [name for name in pvalues.METHODS if binary or name != "binomial"], "tight"),
        procedure=menu("procedure", list(procedures), "fixed_sequence"),
        n=integer("calibration examples n", n, 20, len(losses), 10),
    )


# Lesson 06


def selective_explorer(
    confidence: Any,
    losses: Any,
    ratios: Any,
    thresholds: Any = selective.THRESHOLDS,
    *,
    alpha: float = 0.01,
    delta: float = 0.1,
    procedure: str = "rows",
    start: float = 0.0,
) -> None:
    """Calibrate pairs of ratio and threshold on tables (n, m) that are there, see `plots.selective`.

    The controls are alpha, delta, the procedure and a coverage that is certified, too; a floor of 0 certifies none.
    Ratios from `start` on are drawn; the ring marks the most pruned certified pair.
    """
    calibrate = functools.partial(selective.calibrate_losses, confidence, losses, ratios, thresholds)

    def draw(alpha: float, delta: float, procedure: str, floor: float) -> Any:
        return calibrate(alpha=alpha, delta=delta, procedure=procedure, coverage=floor or None).plot(start=start)

    explore(
        draw,
        alpha=log_slider("tolerated selective risk alpha", alpha, -3, -0.5),
        delta=log_slider("error budget delta", delta, -3, -0.3),
        procedure=menu("procedure", [*procedures.BY_NAME, "split"], procedure),
        floor=slider("certified coverage (0: none)", 0.0, 0.0, 0.99, 0.01),
    )


# Lesson 07


def _videos_at_home(loss: str, seed: int) -> Any:
    """One recorded loss a video of the centres C1 to C5, in the random order of `seed`."""
    recorded = data.polyp_losses(loss)
    home = recorded.centre < 6
    videos = calibration.group_means(recorded.losses[home], recorded.group[home])
    return videos[np.random.default_rng(seed).permutation(len(videos))]


def polyp_explorer(
    frames: data.PolypFrames,
    *,
    alpha: float = 0.1,
    delta: float = 0.1,
    loss: str = "one_minus_dice_to_full",
    p_value: str = "betting",
    ratio: float = 0.4,
    seed: int = 0,
) -> None:
    """What the shipped UNet, pruned, finds on a frame, beside the certificate from its recorded losses.

    One loss a video of the centres C1 to C5, in the random order of `seed`, see `plots.frame_and_certificate`; `ratio`
    stands for the nearest recorded one. Weights are sorted once; masks and certificates are kept, so that only what a
    control changes is computed again.
    """
    import torch

    from confprune_edu import models, pruning
    from confprune_edu.engine.shared import Family

    model, ratios = models.load("polyp-unet"), data.polyp_losses(loss).ratios
    family = Family(model, ratios, pruning.global_rank(model, None))

    @functools.cache
    def found(i: int, j: int) -> Any:
        with torch.inference_mode():
            return (family.at(j)(frames.images[[i]]) > 0)[0, 0].numpy()

    @functools.cache
    def certified(loss: str, alpha: float) -> certificates.Calibration:
        videos = _videos_at_home(loss, seed)
        return calibration.calibrate_losses(videos, ratios, alpha=alpha, delta=delta, p_value=p_value)

    def draw(frame: str, ratio: float, loss: str, alpha: float) -> Any:
        i, j = int(frame.split()[0]), int(np.argmin(abs(ratios - ratio)))
        masks = {"truth": frames.masks[i, 0].numpy(), "full network": found(i, 0), "pruned network": found(i, j)}
        return plots.frame_and_certificate(frames.images[i], masks, certified(loss, alpha), float(ratios[j]))

    explore(
        draw,
        frame=menu("frame", [f"{i} of C{centre}" for i, centre in enumerate(frames.centre)]),
        ratio=slider("pruning ratio (share of all weights)", ratio, 0, float(ratios[-1]), 0.02),
        loss=menu("loss", list(data.POLYP_LOSSES), loss),
        alpha=log_slider("tolerated risk alpha", alpha, -2, -0.3),
    )
