"""The method for pairs, in one call: what is fixed beforehand, and what the examples then certify."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confprune_edu import _checks, calibration, recipe as plain, records
from confprune_edu.provenance import counted, provenance_of
from confprune_edu.selective import evidence, procedures
from confprune_edu.selective.certificate import SelectiveCalibration, confidence_name
from confprune_edu.selective.evidence import Bools, Floats

if TYPE_CHECKING:  # torch is imported where a network is at hand: `calibrate_losses` runs without it
    import torch
    from torch import Tensor, nn

    from confprune_edu import pruning
    from confprune_edu.engine.batches import Target
    from confprune_edu.engine.proof import Call
    from confprune_edu.losses import Loss

# The doubt 1 - threshold grows from 1 % to 100 % in equal factors, since the confidences of a good network pile up near
# 1. In the middle stands 0.9; the last, 0, answers everything.
THRESHOLDS = tuple(round(1 - 10 ** (k / 25 - 2), 4) for k in range(51))


def calibrate(
    model: nn.Module,
    data: Any,
    loss: Loss | None = None,
    *,
    alpha: float,
    delta: float,
    ratios: Sequence[float] | NDArray[Any] = calibration.RATIOS,
    thresholds: Sequence[float] | NDArray[Any] = THRESHOLDS,
    confidence: Loss | None = None,
    p_value: str = "binomial",
    procedure: procedures.Procedure = "rows",
    coverage: float | None = None,
    split: float = 0.5,
    seed: int = 0,
    scores: Mapping[str, Tensor] | None = None,
    finish: pruning.Finish | None = None,
    weights: pruning.Weights | None = None,
    family: pruning.Family | None = None,
    call: Call | None = None,
    target: Target | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> SelectiveCalibration:
    """The pairs of ratio and threshold at which the answers of the pruned model have risk at most alpha.

    A false claim about any pair of the grid has probability at most delta over draws of `data`. The family is evaluated
    once, whole.

    Parameters
    ----------
    model, data, ratios, scores, finish, weights, family, call, target, batch_size, device, progress
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
    from confprune_edu import evaluation, losses as library
    from confprune_edu.engine.fingerprint import Fingerprinted

    loss, confidence = loss or library.error, confidence or library.confidence
    grid, taus = _checks.ratios(ratios), evidence.check_thresholds(thresholds)
    recipe = Recipe(alpha, delta, p_value, procedure, library.loss_range(loss), coverage, split, seed)
    networks: dict[str, Any] = {"scores": scores, "finish": finish, "weights": weights, "family": family}
    way = {"call": call, "target": target, "batch_size": batch_size, "device": device, "progress": progress}
    options = networks | way
    seen, wanted = Fingerprinted(data), {"confidence": confidence, "loss": loss}
    origin = provenance_of(model, **networks)
    tables = evaluation.loss_tables(model, seen, grid, wanted, **options)
    names = {"loss": plain.name_of(loss), "confidence": confidence_name(confidence)}
    whole = evidence.Tables.of(tables["confidence"], tables["loss"], taus, *recipe.loss_range)
    result = _certify(whole, grid, recipe, **names, **origin, data_sha256=seen.sha256)
    best = result.best()
    return counted(result, model, None if best is None else best.ratio)


def calibrate_losses(
    confidence: ArrayLike,
    losses: ArrayLike,
    ratios: Sequence[float] | NDArray[Any],
    thresholds: Sequence[float] | NDArray[Any] = THRESHOLDS,
    *,
    alpha: float,
    delta: float,
    p_value: str = "binomial",
    procedure: procedures.Procedure = "rows",
    coverage: float | None = None,
    split: float = 0.5,
    seed: int = 0,
    loss_range: tuple[float, float] = (0.0, 1.0),
) -> SelectiveCalibration:
    """`calibrate` from tables of confidence and loss that are already there.

    The grids, alpha, delta, the p-value, the procedure, the coverage, the order of the examples, the split and its seed
    must be fixed before the losses *and the confidences* of these examples are seen: a path that follows the
    confidences, or the best of several seeds, breaks the promise, too.

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
        "binomial" for 0/1 losses; every other name of `pvalues.METHODS` for losses in a range, see `risk_p_values`.
        "betting" needs examples in a random order that is drawn once.
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
        Seed of that random part; one, fixed beforehand.
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
    grid = _checks.ratios(ratios)
    recipe = Recipe(alpha, delta, p_value, procedure, loss_range, coverage, split, seed)
    tables = tables_of(confidence, losses, grid, thresholds, recipe.loss_range)
    origin = {"data_sha256": records.table_sha256(tables.confidence, tables.losses)}
    return _certify(tables, grid, recipe, **origin)


def tables_of(
    confidence: ArrayLike, losses: ArrayLike, grid: Floats, thresholds: ArrayLike, loss_range: tuple[float, float]
) -> evidence.Tables:
    """`evidence.Tables` with a column for each ratio of the grid."""
    tables = evidence.Tables.of(confidence, losses, thresholds, *loss_range)
    _checks.columns(tables.losses, "confidence", grid)
    return tables


@dataclass(frozen=True)
class Recipe(plain.Recipe):
    """What is fixed, with the grids and the examples' order, before confidences and losses are seen."""

    floor: float | None = None
    split: float = 0.5
    seed: int = 0

    own = procedures.KEEP_DELTA
    names = SelectiveCalibration.keep_delta

    def check_procedure(self) -> None:
        """ValueError or TypeError where the procedure, the floor or the split is not what it may be."""
        if not callable(self.procedure):
            _checks.choice(self.procedure, "procedure", (*procedures.BY_NAME, "split"))
        floor = None if self.floor is None else _checks.number(self.floor, "coverage")
        vars(self).update(floor=floor, split=_checks.number(self.split, "split"))

    def test(self, tables: evidence.Tables, order: NDArray[np.int64]) -> Outcome:
        """Test these rows of the tables, in this order; of a split, the first ones learn the path for the others."""
        alpha, n_path, procedure = self.level, 0, self.procedure
        if procedure == "split":
            n_path = self._learners(len(order))
            risk_p, found = tables.p_values(order[:n_path], alpha, self.p_value)
            first = procedures.larger(risk_p, self._coverage_p(found, n_path))
            procedure = functools.partial(procedures.path, path=procedures.learned_path(first, found.selected))
        n = len(order) - n_path
        risk_p, found = tables.p_values(order[n_path:], alpha, self.p_value)
        coverage_p = self._coverage_p(found, n)
        rejected = procedures.reject(procedure, risk_p, self.delta, coverage_p)
        if (rejected & (found.selected == 0)).any():
            raise ValueError("procedure must not certify a pair that answers nothing: its p-value is 1")
        return Outcome(rejected, procedures.larger(risk_p, coverage_p), found, n, n_path)

    def _learners(self, n: int) -> int:
        n_path = round(self.split * n)
        if not 0 < n_path < n:
            raise ValueError(f"split must leave examples to learn and to test, got {self.split:g} of {n}")
        return n_path

    def _coverage_p(self, found: evidence.Counts, n: int) -> Floats | None:
        return None if self.floor is None else evidence.answered_p_values(found.selected, n, self.floor)


class Outcome(NamedTuple):
    """What `n` examples certified, along a path from `n_path` others or none: tables (m, t)."""

    rejected: Bools
    p_values: Floats
    counts: evidence.Counts
    n: int
    n_path: int


def _certify(tables: evidence.Tables, grid: Floats, recipe: Recipe, **provenance: Any) -> SelectiveCalibration:
    size = len(tables.losses)
    at_random = recipe.procedure == "split"  # since the data may be sorted
    order = np.random.default_rng(recipe.seed).permutation(size) if at_random else np.arange(size)
    outcome = recipe.test(tables, order)
    return SelectiveCalibration(
        rejected=outcome.rejected,
        p_values=outcome.p_values,
        coverage=outcome.counts.selected / outcome.n,
        risk=outcome.counts.means(*recipe.loss_range),
        ratios=grid,
        thresholds=tables.thresholds,
        n=outcome.n,
        floor=recipe.floor,
        n_path=outcome.n_path,
        seed=recipe.seed if at_random else None,
        **recipe.recorded(),
        **provenance,
    )
