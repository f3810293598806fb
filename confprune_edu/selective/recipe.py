"""The method for pairs, in one call: what is fixed beforehand, and what the examples then certify."""

from __future__ import annotations

import contextlib
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
    from confprune_edu.engine.passes import Options
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
    block: int | None = None,
) -> SelectiveCalibration:
    """The pairs of ratio and threshold at which the answers of the pruned model have risk at most alpha.

    A false claim about any pair of the grid has probability at most delta over draws of `data`. The family is evaluated
    once; with "path" only as far as the path goes, some ratios at a time, see `block`.

    Parameters
    ----------
    model, data, ratios, scores, finish, weights, family, call, target, batch_size, device, progress, block
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
    from confprune_edu import losses as library
    from confprune_edu.engine.fingerprint import Fingerprinted
    from confprune_edu.engine.passes import Options

    loss, confidence = loss or library.error, confidence or library.confidence
    grid, taus = _checks.ratios(ratios), evidence.check_thresholds(thresholds)
    recipe = Recipe(alpha, delta, p_value, procedure, library.loss_range(loss), coverage, split, seed)
    options = Options(scores, finish, batch_size, device, progress, weights, call, target, family)
    seen, wanted = Fingerprinted(data), {"confidence": confidence, "loss": loss}
    names = {"loss": plain.name_of(loss), "confidence": confidence_name(confidence)}
    origin = provenance_of(model, scores, finish, weights, family) | names
    outcome, evaluated = _evaluated(model, seen, grid, wanted, options, taus, recipe, block)
    result = _certify(outcome, evaluated, grid, taus, recipe, **origin, data_sha256=seen.sha256)
    return counted(result, model, getattr(result.best(), "ratio", None))


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
    return _certify(recipe.test(tables), None, grid, tables.thresholds, recipe, **origin)


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

    def chains(self, m: int) -> tuple[list[int], float] | None:
        """As for ratios alone: down a path that keeps its threshold, the p-values are those of a sequence."""
        return ([0], self.delta) if self.procedure == "path" else None

    def test(self, tables: evidence.Tables, order: NDArray[np.int64] | None = None) -> Outcome:
        """Test these examples of the tables, in this order; of a split, the first ones learn the path for the others.

        Without an order, all as they stand; of a split in a random order, since data may be sorted.
        """
        alpha, n_path, procedure = self.level, 0, self.procedure
        if order is None:
            order, rng = np.arange(len(tables.losses)), np.random.default_rng(self.seed)
            order = rng.permutation(order) if procedure == "split" else order
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


def _evaluated(
    model: nn.Module,
    data: Any,
    grid: Floats,
    wanted: Mapping[str, Loss],
    options: Options,
    taus: Floats,
    recipe: Recipe,
    block: int | None,
) -> tuple[Outcome, int | None]:
    """The outcome of the whole grid; down a path, of the ratios that it tests, and how many were evaluated."""
    from confprune_edu import evaluation
    from confprune_edu.engine import tables as engine

    block = options.block(block)
    if (chains := recipe.chains(len(grid))) is None:
        confidence, losses = evaluation.loss_tables(model, data, grid, wanted, **options._asdict()).values()
        return recipe.test(evidence.Tables.of(confidence, losses, taus, *recipe.loss_range)), None

    def rows(places: Sequence[int]) -> list[tuple[Any, float]]:
        confidence, losses = columns.at(places)
        found = recipe.test(evidence.Tables.of(confidence, losses, taus, *recipe.loss_range))
        parts = zip(found.rejected, found.p_values, *found.counts, strict=True)
        return [((found.n, *row), float(row[1][len(taus) // 2])) for row in parts]

    with contextlib.closing(engine.Columns(model, data, grid, wanted, options)) as columns:
        tested, evaluated = plain.until_failures(rows, chains, len(grid), block)
    (n, *_), *kept = zip(*(row for row, _ in tested.values()), strict=True)
    rejected, p_values, selected, loss_sum = map(np.array, kept)
    return Outcome(rejected, p_values, evidence.Counts(selected, loss_sum), n, 0), evaluated


def _certify(
    outcome: Outcome, evaluated: int | None, grid: Floats, taus: Floats, recipe: Recipe, **provenance: Any
) -> SelectiveCalibration:
    """The certificate; of ratios that a path did not reach nothing is known."""

    def whole(rows: NDArray[Any], unknown: Any = np.nan) -> NDArray[Any]:
        return np.pad(rows, ((0, len(grid) - len(rows)), (0, 0)), constant_values=unknown)

    return SelectiveCalibration(
        rejected=whole(outcome.rejected, False),
        p_values=whole(outcome.p_values),
        coverage=whole(outcome.counts.selected / outcome.n),
        risk=whole(outcome.counts.means(*recipe.loss_range)),
        ratios=grid,
        thresholds=taus,
        n=outcome.n,
        evaluated=evaluated,
        floor=recipe.floor,
        n_path=outcome.n_path,
        seed=recipe.seed if recipe.procedure == "split" else None,
        **recipe.recorded(),
        **provenance,
    )
