"""Two hyper-parameters, one guarantee: how far to prune, and below which confidence to abstain.

A pruned classifier answers where its confidence (its largest class probability) is at least a threshold, and abstains
elsewhere. The method is that of `calibration`, with tables (m, t), a row a ratio and a column a threshold, in place of
rows (m,): losses, p-values, stop rule. To reject H_jk: E[loss | confidence >= threshold_k] > alpha certifies a pair.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confprune_edu import _checks, calibration, grids
from confprune_edu.grids import (
    METHODS,
    Counts,
    counts,
    coverage_p_values,
    grid_graph,
    learned_path,
    path,
    risk_p_values,
    rows,
    staircase,
)

if TYPE_CHECKING:  # torch is imported where a network is at hand: `calibrate_losses` runs without it
    import torch
    from torch import Tensor, nn

    from confprune_edu import evaluation, pruning

__all__ = [
    "METHODS",
    "THRESHOLDS",
    "Counts",
    "Pair",
    "SelectiveCalibration",
    "calibrate",
    "calibrate_losses",
    "counts",
    "coverage_p_values",
    "grid_graph",
    "learned_path",
    "path",
    "risk_p_values",
    "rows",
    "staircase",
]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

# The doubt 1 - threshold grows from 1 % to 100 % in equal factors, since the confidences of a good network pile up near
# 1. In the middle stands 0.9; the last, 0, answers everything.
THRESHOLDS = tuple(round(1 - 10 ** (k / 25 - 2), 4) for k in range(51))


def confidence_name(function: evaluation.Loss) -> str:
    """What a certificate calls a confidence; "confidence" is `losses.confidence` and nothing else."""
    from confprune_edu import losses

    name = calibration.name_of(function)
    return name if name != "confidence" or function is losses.confidence else "custom confidence"


@dataclass(frozen=True)
class Pair:
    """One setting: prune to `ratio`, answer where the confidence is at least `threshold`.

    `coverage` and `risk` are estimates from the examples that tested; `row` and `column` its place in the grid;
    `confidence` names the function that was calibrated, None where only its values were seen.
    """

    ratio: float
    threshold: float
    coverage: float
    risk: float
    row: int
    column: int
    confidence: str | None = "confidence"

    def decide(self, outputs: Any, confidence: evaluation.Loss | None = None) -> Tensor:
        """The pruned network's answers, or that it gives none.

        Parameters
        ----------
        outputs : float tensor or array, shape (batch, classes)
            Logits of the pruned network.
        confidence : callable, optional
            The function that was calibrated. It may be left out where that was `losses.confidence`.

        Returns
        -------
        int64 tensor, shape (batch,): the class with the largest logit, or -1: it abstains.

        Raises
        ------
        ValueError
            `confidence` is not the one that was calibrated, by its name, or is left out where it was another.

        >>> Pair(0.5, 0.8, 0.9, 0.01, 50, 20).decide(np.array([[3.0, 0.0], [0.0, 1.0]])).tolist()
        [0, -1]
        """
        import torch

        from confprune_edu import losses

        function = confidence or losses.confidence
        if (confidence is None or self.confidence is not None) and self.confidence != confidence_name(function):
            used = self.confidence or "not known here: only its values were calibrated"
            got = "none" if confidence is None else confidence_name(function)
            raise ValueError(f"confidence must be the function that was calibrated ({used}), got {got}")
        logits = torch.as_tensor(outputs)
        values = function(logits, None, None)
        sure = torch.as_tensor(values).double() >= self.threshold  # in the precision of the calibration
        return torch.where(sure, logits.argmax(dim=1), -1)


@dataclass(frozen=True, eq=False, repr=False)
class SelectiveCalibration(calibration.Certificate):
    """A certificate: pairs of a pruning ratio and a threshold at which the network's answers may be trusted.

    With probability at least 1 - delta over the draw of the examples, every pair marked in `rejected` has a selective
    risk of at most alpha, and with a `floor` a coverage of at least that. All hold at once: to choose among them
    afterwards, by any criterion, costs nothing. Certifying nothing is no false claim.

    Attributes
    ----------
    rejected : bool array, shape (m, t)
        True where (ratios[j], thresholds[k]) is certified.
    p_values, coverage, risk : float64 arrays, shape (m, t)
        P-values; share of the testing examples that are answered, and their mean loss (NaN where there are none).
    ratios, thresholds : float64 arrays, shapes (m,) and (t,)
    alpha, delta : float
        Tolerated risk among the answered, in the units of the loss; tolerated probability of any false certificate.
    n, n_path : int
        Examples that test; examples that a "split" used before to learn its path, 0 otherwise.
    floor : float or None
        Certified coverage; None: coverage is estimated, not certified.
    p_value, procedure, loss : str
        What was used, by name.
    confidence : str or None
        The confidence, by name; None if only a table of its values was seen.
    loss_range, model_sha256, criterion, finished, scores_sha256, scores, finish
        As in `calibration.Calibration`.
    """

    rejected: Bools
    p_values: Floats
    coverage: Floats
    risk: Floats
    ratios: Floats
    thresholds: Floats
    alpha: float
    delta: float
    n: int
    floor: float | None
    p_value: str
    procedure: str
    n_path: int = 0
    loss: str = "loss"
    confidence: str | None = None
    loss_range: tuple[float, float] = (0.0, 1.0)
    model_sha256: str | None = None
    criterion: str = "unknown"
    finished: bool = False
    scores_sha256: str | None = None
    scores: Mapping[str, Tensor] | None = field(default=None)
    finish: pruning.Finish | None = field(default=None)

    schema = "confprune_edu.SelectiveCalibration"

    @property
    def frontier(self) -> Floats:
        """Largest coverage (an estimate) of a certified pair for each ratio, shape (m,); NaN where there is none."""
        largest = np.where(self.rejected, self.coverage, -1).max(axis=1)
        return np.where(largest < 0, np.nan, largest)

    def best(self, by: str = "ratio", min_coverage: float | None = None) -> Pair | None:
        """The certified pair with the largest ratio or coverage; None if there is none.

        Parameters
        ----------
        by : "ratio" or "coverage"
            What is made large first; then the other; of equals the stricter threshold is taken.
        min_coverage : float in [0, 1], optional
            Only pairs whose coverage on the testing examples is at least this. That is an estimate: only a `floor` is
            certified. The risk of the pair is certified whatever is chosen here.
        """
        found = pick(self.rejected, self.coverage, by, min_coverage)
        if found is None:
            return None
        row, column = found
        coverage, risk = float(self.coverage[found]), float(self.risk[found])
        ratio, threshold = float(self.ratios[row]), float(self.thresholds[column])
        return Pair(ratio, threshold, coverage, risk, row, column, self.confidence)

    def prune(
        self,
        model: nn.Module,
        pair: Pair | Literal["best"] | None = "best",
        scores: Mapping[str, Tensor] | None = None,
        finish: pruning.Finish | None = None,
    ) -> nn.Module:
        """The certified network of a pair; what it answers, `Pair.decide` tells.

        `pair` comes from `best(...)`; default: from `best()`. `scores` and `finish` as in `Calibration.prune`.

        Raises
        ------
        TypeError, ValueError
            `pair` is none, since nothing was certified or nothing as asked for, or is not certified here; `model`,
            scores or `finish` are not those that were calibrated.
        """
        if pair == "best":
            pair = self.best()
        if pair is None:
            raise ValueError("pair is None: nothing was certified, or nothing with the coverage that was asked for")
        if not isinstance(pair, Pair):
            raise TypeError(f"pair must be a Pair, as best(...) gives it, got {pair!r}")
        if not self.rejected[self.ratios == pair.ratio][:, self.thresholds == pair.threshold].any():
            raise ValueError(f"pair must be a certified one, got ratio {pair.ratio:g}, threshold {pair.threshold:g}")
        return self._pruned(model, pair.ratio, scores, finish)

    def plot(self, pair: Pair | Literal["best"] | None = "best", **options: Any) -> Any:
        """P-values, certified pairs and coverage over the grid; `pair` is marked (default: that of `best()`).

        Options as in `plots.selective`: `start`, the smallest ratio to draw, and `title`.
        """
        from confprune_edu.plots import selective as draw

        if pair == "best":
            pair = self.best()
        chosen = None if pair is None else (pair.row, pair.column)
        settings = {"alpha": self.alpha, "delta": self.delta, "floor": self.floor, "chosen": chosen} | options
        return draw(self.p_values, self.rejected, self.coverage, self.ratios, self.thresholds, **settings)

    @staticmethod
    def _checked(record: dict[str, Any]) -> dict[str, Any]:
        values = record | calibration.common_fields(record)
        values["thresholds"] = grids.check_thresholds(record["thresholds"])
        shape = (len(values["ratios"]), len(values["thresholds"]))
        for name in ("p_values", "coverage", "risk"):
            values[name] = np.array(record[name], dtype=np.float64)
        values["rejected"] = np.array(record["rejected"])
        if {values[name].shape for name in ("rejected", "p_values", "coverage", "risk")} != {shape}:
            raise ValueError("rejected, p_values, coverage and risk must have a row a ratio and a column a threshold")
        for name in ("p_values", "coverage"):
            _checks.within(_checks.numeric(values[name], name), name, 0, 1)
        answered = values["coverage"] > 0
        _checks.within(_checks.numeric(values["risk"][answered], "risk"), "risk", *values["loss_range"])
        if values["rejected"].dtype != bool or (values["rejected"] & ~answered).any():
            raise ValueError("rejected must hold true or false, and false where nothing is answered")
        if values["floor"] is not None:
            _checks.number(values["floor"], "floor")
        if type(record["n_path"]) is not int or record["n_path"] < 0:
            raise ValueError(f"n_path must be a count, got {record['n_path']!r}")
        if not isinstance(record["confidence"], str | None):
            raise ValueError(f"confidence must be a name or null, got {record['confidence']!r}")
        return values

    def _sentences(self) -> tuple[str, str, str]:
        return self._headline(), self._claim(), self._facts()

    def _headline(self) -> str:
        best = self.best()
        if best is not None:
            return f"Certified: {self.rejected.sum():,} pairs of ratio and threshold, ratios up to {best.ratio:g}"
        floor = "" if self.floor is None else f" and to answer at least {100 * self.floor:.4g} % of the examples"
        return (
            f"Nothing certified: no pair of ratio and threshold is shown to keep the {self.loss} risk "
            f"among the answers at most {self.alpha:g}{floor}"
        )

    def _claim(self) -> str:
        best = self.best()
        if best is None:
            return "This does not say that pruning is unsafe, only that these examples do not prove it safe."
        chance = "in the limit of many examples only, " if self.p_value == "clt" else ""
        floor = "" if self.floor is None else f", and it answers at least {100 * self.floor:.4g} % of the examples"
        return (
            f"With {100 * best.ratio:.4g} % of the prunable weights at zero, answering where the "
            f"{self.confidence or 'confidence'} is at least {best.threshold:g}, the network's {self.loss} risk among "
            f"its answers is at most {self.alpha:g}{floor}; likewise for every certified pair, all at once. Over draws "
            f"of the calibration examples, {chance}the recipe makes a false claim with probability at most "
            f"{self.delta:g}{self._proviso()}."
        )

    def _facts(self) -> str:
        best, widest = self.best(), self.best(by="coverage")
        learned = f", after {self.n_path} that learned the path" if self.n_path else ""
        facts = (
            f"n = {self.n}{learned}, {self.p_value} p-values, {self.procedure}; "
            f"{self.rejected.sum():,} of {self.rejected.size:,} pairs certified"
        )
        if best is None or widest is None:
            return f"{facts}; {self._shortfall()}"
        return (
            f"{facts}; coverage {best.coverage:.4f} and mean loss {best.risk:.4f} there; "
            f"largest coverage {widest.coverage:.4f}, at ratio {widest.ratio:g} and threshold {widest.threshold:g}"
        )

    def _shortfall(self) -> str:
        m, t = self.p_values.shape
        if self.procedure == "rows" and self.floor is None:
            p, bar = self.p_values[:, 0].min(), self.delta / m
            return (
                f"a row must begin with p <= delta / {m} = {bar:.3g}, the smallest first p-value is {p:.3g}, "
                f"with at most {self.coverage[:, 0].max():.1%} answered at threshold {self.thresholds[0]:g}"
            )
        if self.procedure == "path":
            first = self.p_values[0, t // 2]
            return f"the path must begin with p <= delta = {self.delta:g}, its first p-value is {first:.3g}"
        return f"the smallest p-value is {self.p_values.min():.3g}"


def pick(
    rejected: Bools, coverage: Floats, by: str = "ratio", min_coverage: float | None = None
) -> tuple[int, int] | None:
    """(row, column) of the pair that `SelectiveCalibration.best` names.

    >>> pick(np.array([[True, True], [True, False]]), np.array([[0.8, 1.0], [0.7, 0.9]]), min_coverage=0.75)
    (0, 1)
    """
    _checks.choice(by, "by", ("ratio", "coverage"))
    least = _checks.numeric(0.0 if min_coverage is None else min_coverage, "min_coverage")
    _checks.within(least, "min_coverage", 0, 1)
    row, column = np.nonzero(rejected & (coverage >= least))
    if len(row) == 0:
        return None
    share = coverage[row, column]
    last = np.lexsort((-column, share, row) if by == "ratio" else (-column, row, share))[-1]
    return int(row[last]), int(column[last])


def calibrate(
    model: nn.Module,
    data: Any,
    loss: evaluation.Loss | None = None,
    *,
    alpha: float,
    delta: float,
    ratios: Sequence[float] | NDArray[Any] = calibration.RATIOS,
    thresholds: Sequence[float] | NDArray[Any] = THRESHOLDS,
    confidence: evaluation.Loss | None = None,
    p_value: str = "binomial",
    procedure: grids.Procedure = "rows",
    coverage: float | None = None,
    split: float = 0.5,
    seed: int = 0,
    scores: Mapping[str, Tensor] | None = None,
    finish: pruning.Finish | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> SelectiveCalibration:
    """The pairs of ratio and threshold at which the answers of the pruned model have risk at most alpha.

    A false claim about any pair of the grid has probability at most delta over draws of `data`. The family is evaluated
    once, whole.

    Parameters
    ----------
    model, data, ratios, scores, finish, batch_size, device, progress
        As in `calibration.calibrate`. The examples must be fresh, and independent draws from the law of use. Everything
        else is fixed before they are seen.
    loss, confidence : callable, optional
        Called as loss(pruned, full, target); default: `losses.error` and `losses.confidence`, which takes logits. With
        `losses.disagreement`, data need no labels.
    alpha, delta, thresholds, p_value, procedure, coverage, split, seed
        As in `calibrate_losses`.

    Returns
    -------
    SelectiveCalibration

    Raises
    ------
    TypeError, ValueError
        As in `calibrate_losses` and `evaluation.loss_table`.

    >>> import torch
    >>> from confprune_edu.losses import disagreement
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> model.weight.data = torch.tensor([[5.0, 0.1], [0.1, 4.0]])
    >>> grid = {"ratios": [0.25, 0.5, 0.75], "thresholds": [0.9, 0.0]}
    >>> result = calibrate(model, torch.eye(2).repeat(50, 1), loss=disagreement, alpha=0.1, delta=0.1, **grid)
    >>> result.frontier.tolist()   # at 0.75 only the first input is answered with confidence
    [1.0, 1.0, 0.5]
    """
    from confprune_edu import evaluation
    from confprune_edu import losses as library

    loss, confidence = loss or library.error, confidence or library.confidence
    grid, taus = _checks.ratios(ratios), grids.check_thresholds(thresholds)
    recipe = Recipe(alpha, delta, p_value, procedure, coverage, split, evaluation.loss_range(loss))
    tables = evaluation.loss_tables(
        model,
        data,
        grid,
        {"confidence": confidence, "loss": loss},
        scores=scores,
        finish=finish,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    names = {"loss": calibration.name_of(loss), "confidence": confidence_name(confidence)}
    origin = calibration.provenance_of(model, scores, finish)
    whole = grids.Tables.of(tables["confidence"], tables["loss"], taus, *recipe.loss_range)
    return _certify(whole, grid, recipe, seed, **names, **origin)


def calibrate_losses(
    confidence: ArrayLike,
    losses: ArrayLike,
    ratios: Sequence[float] | NDArray[Any],
    thresholds: Sequence[float] | NDArray[Any] = THRESHOLDS,
    *,
    alpha: float,
    delta: float,
    p_value: str = "binomial",
    procedure: grids.Procedure = "rows",
    coverage: float | None = None,
    split: float = 0.5,
    seed: int = 0,
    loss_range: tuple[float, float] = (0.0, 1.0),
) -> SelectiveCalibration:
    """`calibrate` from tables of confidence and loss that are already there.

    The grids, alpha, delta, the p-value, the procedure and the coverage must be fixed before the losses *and the
    confidences* of these examples are seen: a path that follows the confidences breaks the promise, too.

    Parameters
    ----------
    confidence : float array, shape (n, m), in [0, 1]
    losses : bool, int or float array, shape (n, m), in `loss_range`
    ratios : float array, shape (m,), strictly increasing in [0, 1)
    thresholds : float array, shape (t,), strictly decreasing in [0, 1]
        From strict to lenient. For alpha below 0.01 the default begins too low: give stricter ones. "rows" and "graph"
        begin at the strictest, which must be reached by some log(m / delta) / alpha examples at least: for a network
        that is rarely so sure give lower ones.
    alpha : float in the range of the loss
        Tolerated risk among the answered examples.
    delta : float in (0, 1)
        Tolerated probability of any false certificate.
    p_value : str
        "binomial" for 0/1 losses; every other name of `METHODS` for losses in a range, see `risk_p_values`. "betting"
        needs examples in random order.
    procedure : str or callable
        "rows": Bonferroni over the ratios, in each a fixed sequence from strict to lenient. "graph": `grid_graph`, a
        shared budget, for few examples. "path": down the middle threshold of the grid, at the full delta. "split": a
        random part of the examples learns a path (`learned_path`), the others test along it. Or a function
        (p_values (m, t), delta) -> rejected (m, t) that itself keeps P[any false rejection] <= delta.
    coverage : float in (0, 1), optional
        Certify for each pair that it answers at least this share of the examples, too.
    split : float in (0, 1)
        Share of the examples that learn the path of "split"; they do not test.
    seed : int
        Seed of that random part.
    loss_range : (low, high)
        Range of the losses; losses and alpha are rescaled to [0, 1] together.

    Returns
    -------
    SelectiveCalibration

    Raises
    ------
    TypeError, ValueError
        An argument outside these ranges, named, or tables and grids of unequal size.

    >>> confidence = np.repeat([[0.9, 0.6], [0.6, 0.5]], [80, 20], axis=0)
    >>> wrong = np.repeat([[0, 0], [0, 1], [1, 1]], [90, 6, 4], axis=0)   # 4 and 10 errors
    >>> result = calibrate_losses(confidence, wrong, [0.5, 0.9], [0.8, 0.6, 0.0], alpha=0.1, delta=0.1)
    >>> result.rejected.tolist()
    [[True, True, True], [False, False, False]]
    >>> result.best(by="coverage")
    Pair(ratio=0.5, threshold=0.6, coverage=1.0, risk=0.04, row=0, column=1, confidence=None)
    """
    grid, ends = _checks.ratios(ratios), _checks.interval(loss_range, "loss_range")
    recipe = Recipe(alpha, delta, p_value, procedure, coverage, split, ends)
    return _certify(tables_of(confidence, losses, grid, thresholds, ends), grid, recipe, seed)


def tables_of(
    confidence: ArrayLike, losses: ArrayLike, grid: Floats, thresholds: ArrayLike, loss_range: tuple[float, float]
) -> grids.Tables:
    """`grids.Tables` with a column for each ratio of the grid."""
    tables = grids.Tables.of(confidence, losses, thresholds, *loss_range)
    _checks.columns(tables.losses, "confidence", grid)
    return tables


@dataclass(frozen=True)
class Recipe:
    """What is fixed, with the grids, before confidences and losses are seen; bad values are refused by name."""

    alpha: float
    delta: float
    p_value: str
    procedure: grids.Procedure
    floor: float | None
    split: float
    loss_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        calibration.settings(self.alpha, self.delta, self.p_value, *self.loss_range)
        if not callable(self.procedure):
            _checks.choice(self.procedure, "procedure", (*grids.PROCEDURES, "split"))
        if self.floor is not None:
            _checks.number(self.floor, "coverage")
        _checks.number(self.split, "split")

    def test(self, tables: grids.Tables, order: NDArray[np.int64]) -> Outcome:
        """Test these rows of the tables, in this order; of a split, the first ones learn the path for the others."""
        low, high = self.loss_range
        alpha, n_path, procedure = (self.alpha - low) / (high - low), 0, self.procedure
        if procedure == "split":
            n_path = self._learners(len(order))
            risk_p, found = tables.p_values(order[:n_path], alpha, self.p_value)
            first = grids.larger(risk_p, self._coverage_p(found, n_path))
            procedure = functools.partial(path, path=learned_path(first, found.selected))
        n = len(order) - n_path
        risk_p, found = tables.p_values(order[n_path:], alpha, self.p_value)
        coverage_p = self._coverage_p(found, n)
        rejected = grids.reject(procedure, risk_p, self.delta, coverage_p)
        if (rejected & (found.selected == 0)).any():
            raise ValueError("procedure must not certify a pair that answers nothing: its p-value is 1")
        return Outcome(rejected, grids.larger(risk_p, coverage_p), found, n, n_path)

    def _learners(self, n: int) -> int:
        n_path = round(self.split * n)
        if not 0 < n_path < n:
            raise ValueError(f"split must leave examples to learn and to test, got {self.split:g} of {n}")
        return n_path

    def _coverage_p(self, found: Counts, n: int) -> Floats | None:
        return None if self.floor is None else grids.answered_p_values(found.selected, n, self.floor)


class Outcome(NamedTuple):
    """What `n` examples certified, along a path from `n_path` others or none: tables (m, t)."""

    rejected: Bools
    p_values: Floats
    counts: Counts
    n: int
    n_path: int


def _certify(tables: grids.Tables, grid: Floats, recipe: Recipe, seed: int, **provenance: Any) -> SelectiveCalibration:
    size = len(tables.losses)
    at_random = recipe.procedure == "split"  # since the data may be sorted
    outcome = recipe.test(tables, np.random.default_rng(seed).permutation(size) if at_random else np.arange(size))
    return SelectiveCalibration(
        rejected=outcome.rejected,
        p_values=outcome.p_values,
        coverage=outcome.counts.selected / outcome.n,
        risk=outcome.counts.means(*recipe.loss_range),
        ratios=grid,
        thresholds=tables.thresholds,
        alpha=float(recipe.alpha),
        delta=float(recipe.delta),
        n=outcome.n,
        floor=None if recipe.floor is None else float(recipe.floor),
        p_value=recipe.p_value,
        procedure=calibration.name_of(recipe.procedure) if callable(recipe.procedure) else recipe.procedure,
        n_path=outcome.n_path,
        loss_range=recipe.loss_range,
        **provenance,
    )
