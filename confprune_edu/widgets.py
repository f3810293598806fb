"""Explorers: a function of `plots` with controls. Each is a thin layer; what is drawn is decided in `plots`.

Live (JupyterLab, VS Code, Colab) an explorer redraws when a control moves. Executed without a reader (papermill, nbval,
nbconvert) it draws once, at the defaults, as a plain output of the cell: the figure is stored, an error fails the cell.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from IPython.display import HTML

from confprune_edu import calibration, certificates, data, fwer, planning, plots, pvalues, selective, validation
from confprune_edu.controls import explore as explore, is_live as is_live, menu as menu, number as number
from confprune_edu.selective import procedures

# where the buttons of a number stop
RISKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
TENTHS = tuple(round(0.1 * k, 1) for k in range(10))

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
        alpha=number("tolerated risk alpha", alpha, 0.01, 0.5, step=0.01, stops=RISKS),
        n=number("examples n", n, 10, 4000, step=10, stops=SIZES),
    )


# Lesson 01


def weights_and_threshold(weights: Any, ratio: float = 0.9) -> None:
    """Move the pruning ratio from `ratio` on: which weights (arrays by name, sorted here once) go, which layer pays."""
    draw = functools.partial(plots.weights_and_threshold, plots.sort_weights(weights))
    explore(draw, ratio=number("pruning ratio", ratio, 0, 0.99, step=0.01, stops=TENTHS))


# Lesson 02


def p_value_explorer(n: int = 100, alpha: float = 0.1, *, delta: float = 0.1, seed: int = 0) -> None:
    """`plots.p_values_by_mean` with controls for the examples, the tolerated risk and the variance of the losses."""
    explore(
        functools.partial(plots.p_values_by_mean, delta=delta, seed=seed),
        n=number("examples n", n, 10, 2000, step=10, stops=SIZES),
        alpha=number("tolerated risk alpha", alpha, 0.001, 0.5, step=0.01, stops=RISKS),
        variance=number("variance / that of 0/1 losses", 1.0, 0.0, 1.0, step=0.05),
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
        steps=number("rejections made so far", 1, 0, len(plots.BUDGET_NAMES), step=1),
    )


# Lesson 04


def sequence_explorer(delta: float = 0.1) -> None:
    """Step through one of `plots.SEQUENCES` by hand, see `plots.sequence`."""

    def draw(example: str, delta: float, step: int) -> Any:
        return plots.sequence(plots.SEQUENCES[example], delta=delta, step=step)

    explore(
        draw,
        example=menu("p-values", list(plots.SEQUENCES)),
        delta=number("error budget delta", delta, 0.001, 0.5, step=0.01, stops=RISKS),
        step=number("tests made so far", 1, 0, 8, step=1),
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
        alpha=number("tolerated risk alpha", alpha, 0.001, 0.3, step=0.01, stops=RISKS),
        delta=number("error budget delta", delta, 0.001, 0.5, step=0.01, stops=RISKS),
        p_value=menu("p-value", [name for name in pvalues.METHODS if binary or name != "binomial"], "tight"),
        procedure=menu("procedure", list(procedures), "fixed_sequence"),
        n=number("calibration examples n", n, 20, len(losses), step=10, stops=SIZES),
    )


MEANING = {
    "tight": "how likely so few failures are at most, if the risk were alpha: a sharp bound, for any losses in [0, 1]",
    "hoeffding": "an older and larger bound on the same chance",
    "binomial": "the same chance exactly, for losses that are 0 or 1",
    "fixed_sequence": "from gentle to aggressive, each ratio is tested with all of delta, up to the first failure",
    "holm": "all ratios share delta, smallest p-value first; what is certified hands its share on",
    "bonferroni": "all ratios share delta equally",
}


def certificate_explorer(alpha: float = 0.05, delta: float = 0.1, n: int = 1000) -> None:
    """The certificate from the first n of the recorded `data.mnist_losses`, in words, with what its terms mean.

    Pruning to ratio 0 breaks nothing: nothing is certified only where n is too small, which is then said.
    """
    losses, ratios = data.mnist_losses()

    def draw(alpha: float, delta: float, n: int, p_value: str, procedure: str) -> Any:
        setting: dict[str, Any] = {"alpha": alpha, "delta": delta, "p_value": p_value, "procedure": procedure}
        found = calibration.calibrate_losses(losses[:n], ratios, **setting)
        level = delta if procedure == "fixed_sequence" else delta / len(ratios)
        needed = validation.examples_needed(0.0, alpha, level)
        why = f"n = {n:,} is too few: it needs n of at least {needed:,.0f}, even if no digit fails."
        lines = [] if found.rejected.any() else [why]
        lines += [f"<b>{name}</b>: {MEANING[name]}." for name in (p_value, procedure)]
        card = HTML(found._repr_html_() + "".join(f'<p style="max-width: 46em">{line}</p>' for line in lines))
        return [plots.grid_of_tests(found, losses.mean(axis=0)), card]

    explore(
        draw,
        alpha=number("tolerated risk alpha", alpha, 0.001, 0.3, step=0.01, stops=RISKS),
        delta=number("error budget delta", delta, 0.001, 0.5, step=0.01, stops=RISKS),
        n=number("calibration digits n", n, 10, len(losses), step=10, stops=SIZES),
        p_value=menu("p-value", ["tight", "hoeffding", "binomial"]),
        procedure=menu("procedure", list(fwer.PROCEDURES), "fixed_sequence"),
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
    coverage: float = 0.0,
    start: float = 0.0,
) -> None:
    """Calibrate pairs of ratio and threshold on tables (n, m) that are there, see `plots.selective`.

    The controls are alpha, delta, the procedure and a `coverage` that is certified, too; 0 certifies none.
    Ratios from `start` on are drawn; the ring marks the most pruned certified pair.
    """
    calibrate = functools.partial(selective.calibrate_losses, confidence, losses, ratios, thresholds)

    def draw(alpha: float, delta: float, procedure: str, floor: float) -> Any:
        return calibrate(alpha=alpha, delta=delta, procedure=procedure, coverage=floor or None).plot(start=start)

    explore(
        draw,
        alpha=number("selective risk alpha", alpha, 0.001, 0.3, step=0.01, stops=RISKS),
        delta=number("error budget delta", delta, 0.001, 0.5, step=0.01, stops=RISKS),
        procedure=menu("procedure", [*procedures.BY_NAME, "split"], procedure),
        floor=number("certified coverage (0: none)", coverage, 0.0, 0.99, step=0.01, stops=TENTHS),
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
    family = Family(model, ratios, pruning.global_order(model, None))

    @functools.cache
    def found(i: int, j: int) -> Any:
        with torch.inference_mode():
            return (family.at(j)(frames.images[[i]]) > 0)[0, 0].numpy()

    @functools.cache
    def certified(loss: str, alpha: float) -> certificates.Calibration:
        videos = _videos_at_home(loss, seed)
        return calibration.calibrate_losses(videos, ratios, alpha=alpha, delta=delta, p_value=p_value)

    def draw(frame: int, ratio: float, loss: str, alpha: float) -> Any:
        i, j = frame, int(np.argmin(abs(ratios - ratio)))
        masks = {"truth": frames.masks[i, 0].numpy(), "full network": found(i, 0), "pruned network": found(i, j)}
        picture = plots.frame_and_certificate(frames.images[i], masks, certified(loss, alpha), float(ratios[j]))
        picture.alt = f"Frame {i}, of centre C{frames.centre[i]}. {picture.alt}"
        return picture

    explore(
        draw,
        frame=number("frame", 0, 0, len(frames.names) - 1, step=1),
        ratio=number("pruning ratio", ratio, 0, float(ratios[-1]), step=0.02, stops=TENTHS),
        loss=menu("loss", list(data.POLYP_LOSSES), loss),
        alpha=number("tolerated risk alpha", alpha, 0.01, 0.5, step=0.01, stops=RISKS),
    )


# Lesson 08


def order_explorer(
    network: str = "mnist-vit", *, alpha: float = 0.05, delta: float = 0.1, n: int = 1000, seed: int = 0
) -> None:
    """Certificates of a network under each recorded order of its weights, from n examples in the order of `seed`.

    With "shared" each of the K orders has delta / K, so that the best may be kept; see `plots.orders_compared`.
    """
    rows = np.random.default_rng(seed).permutation(5000)
    read = functools.cache(functools.partial(data.classifier_losses, loss="degradation"))

    def draw(network: str, alpha: float, delta: float, n: int, budget: str) -> Any:
        orders = data.CLASSIFIER_FAMILIES[network]
        rule: dict[str, Any] = {"alpha": alpha, "delta": delta / len(orders) if budget == "shared" else delta}
        found = {}
        for order in orders:
            losses, ratios = read(network, family=order)
            found[order] = calibration.calibrate_losses(losses[rows[:n]], ratios, **rule)
        reach = {order: result.ratio or 0.0 for order, result in found.items()}
        best = max(reach, key=lambda order: reach[order])
        return plots.orders_compared(found, title=f"{network}, n = {n:,}: {best} reaches furthest, {reach[best]:g}")

    explore(
        draw,
        network=menu("network", list(data.CLASSIFIERS), network),
        alpha=number("tolerated risk alpha", alpha, 0.001, 0.3, step=0.01, stops=RISKS),
        delta=number("error budget delta", delta, 0.001, 0.5, step=0.01, stops=RISKS),
        n=number("examples n", n, 20, 5000, step=10, stops=SIZES),
        budget=menu("delta is", ["spent on each order", "shared"], "shared"),
    )


# Lesson 09


def sensitivity_explorer(
    network: str = "mnist-mlp", alpha: float = 0.05, delta: float = 0.1, n: int = 3000, *, family: str = "magnitude"
) -> None:
    """The ratio to expect from a network's risk curve against alpha, and what a stricter promise costs.

    Beside it the certificate from the first n recorded examples, see `plots.sensitivity`. A criterion that was not
    recorded for a network stands for magnitude.
    """
    alphas = np.geomspace(0.005, 0.3, 25)

    def draw(network: str, family: str, alpha: float, delta: float, n: int) -> Any:
        known = family if family in data.CLASSIFIER_FAMILIES[network] else "magnitude"
        losses, ratios = data.classifier_losses(network, family=known)
        expect = functools.partial(planning.expected_ratio, losses.mean(axis=0), ratios, n=n)
        curves = {
            f"delta = {d:.3g}": [expect(alpha=a, delta=d) for a in alphas]
            for d in (min(5 * delta, 0.5), delta, delta / 10)
        }
        now = expect(alpha=alpha, delta=delta)
        costs = {
            "half of alpha": expect(alpha=alpha / 2, delta=delta) - now,
            "a tenth of delta": expect(alpha=alpha, delta=delta / 10) - now,
        }
        found = calibration.calibrate_losses(losses[:n], ratios, alpha=alpha, delta=delta)
        picture = plots.sensitivity(alphas, curves, alpha=alpha, delta=delta, gains=costs, ratio=found.ratio or 0.0)
        picture.alt = f"{network}, {known}, n = {n}. {picture.alt}"
        return picture

    explore(
        draw,
        network=menu("network", list(data.CLASSIFIERS), network),
        family=menu("criterion", list(data.CLASSIFIER_FAMILIES["mnist-mlp"]), family),
        alpha=number("tolerated risk alpha", alpha, 0.005, 0.3, step=0.005, stops=RISKS),
        delta=number("error budget delta", delta, 0.001, 0.5, step=0.01, stops=RISKS),
        n=number("calibration examples n", n, 20, 5000, step=10, stops=SIZES),
    )


# Lesson 10


def rule_explorer(
    play: Callable[[str, str, int, float], tuple[Any, ...]],
    rules: Sequence[str],
    networks: Sequence[str],
    *,
    n: int = 1000,
    alpha: float = 0.05,
) -> None:
    """What a rule chooses, and how often that is a false claim: see `plots.rule_laws`.

    `play(rule, network, n, alpha)` gives the chosen ratios and their true risks, (trials,) each, first.
    """

    def draw(rule: str, network: str, n: int, alpha: float) -> Any:
        ratio, risk, *_ = play(rule, network, n, alpha)
        return plots.rule_laws(ratio, risk, alpha=alpha, title=f"{rule}: {network}, n = {n:,}")

    explore(
        draw,
        rule=menu("rule", list(rules)),
        network=menu("network", list(networks)),
        n=number("examples n", n, 20, 10_000, step=10, stops=SIZES),
        alpha=number("tolerated risk alpha", alpha, 0.01, 0.5, step=0.01, stops=RISKS),
    )


# Lesson 11


def shift_explorer(
    shifted: Mapping[str, Sequence[Mapping[str, Any]]],
    ratios: Any,
    *,
    alpha: float = 0.05,
    delta: float = 0.1,
    n: int = 1000,
    trials: int = 1000,
    seed: int = 0,
) -> None:
    """What becomes of certificates from home when the world shifts, see `plots.home_and_there`.

    `shifted[shift]` is a list of tables (examples, m) by loss, the first at home, then with growing strength. The table
    at home is the population: `trials` calibrations on n of its rows, drawn with replacement, are kept for each loss
    and alpha.
    """
    ratios, longest = np.asarray(ratios), min(map(len, shifted.values())) - 1
    home = next(iter(shifted.values()))[0]

    @functools.cache
    def certified(loss: str, alpha: float) -> Any:
        rule: dict[str, Any] = {"alpha": alpha, "delta": delta, "trials": trials, "seed": seed, "replace": True}
        found = validation.repeated_splits(home[loss], ratios, n_calibration=n, **rule).ratio
        return np.nan_to_num(found, nan=-1)[:, None] == ratios  # (trials, m): the largest certified ratio

    def draw(shift: str, strength: int, loss: str, alpha: float) -> Any:
        largest, there = certified(loss, alpha), shifted[shift][strength][loss].mean(axis=0)
        false = largest & (np.maximum.accumulate(there) > alpha)  # a sequence certifies all ratios before it, too
        risks = home[loss].mean(axis=0), there
        return plots.home_and_there(ratios, *risks, largest.mean(axis=0), alpha=alpha, false=false.any(axis=1).mean())

    explore(
        draw,
        shift=menu("shift", list(shifted)),
        strength=number("strength (0: none)", min(2, longest), 0, longest, step=1),
        loss=menu("loss", list(home)),
        alpha=number("tolerated risk alpha", alpha, 0.001, 0.3, step=0.01, stops=RISKS),
    )


# Lesson 12


def planning_explorer(risks: Any, ratios: Any, *, alpha: float = 0.05, delta: float = 0.1, n: int = 2000) -> None:
    """How many examples certify each ratio, from a guess of the risks (m,); see `plots.examples_by_ratio`."""

    def draw(alpha: float, delta: float, power: float, n: int) -> Any:
        needed = validation.examples_needed(risks, alpha, delta, power=power)
        return plots.examples_by_ratio(ratios, needed, n=n)

    explore(
        draw,
        alpha=number("tolerated risk alpha", alpha, 0.001, 0.5, step=0.01, stops=RISKS),
        delta=number("error budget delta", delta, 0.001, 0.5, step=0.01, stops=RISKS),
        power=number("chance of success", 0.8, 0.5, 0.99, step=0.01, stops=(0.5, 0.8, 0.9, 0.95, 0.99)),
        n=number("examples n", n, 10, 10_000, step=10, stops=(*SIZES, 10_000)),
    )
