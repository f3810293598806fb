"""Does the promise for pairs hold? Repeated splits of real tables of confidence and loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confprune_edu import _checks, pvalues
from confprune_edu.selective import evidence, procedures
from confprune_edu.selective.certificate import pick
from confprune_edu.selective.evidence import Floats
from confprune_edu.selective.recipe import THRESHOLDS, Recipe, tables_of


@dataclass(frozen=True, eq=False)
class SelectiveSplits:
    """What `trials` random splits of one pair of tables gave; one entry a split.

    Attributes
    ----------
    ratio, threshold : float64 arrays, shape (trials,)
        The pair that was chosen among the certified ones; NaN where there was none to choose.
    risk, coverage : float64 arrays, shape (trials,)
        Its selective risk and coverage over the whole tables, the population that is split; NaN likewise.
    wrong : bool array, shape (trials,)
        Whether any certified pair, chosen or not, breaks alpha or the floor.
    alpha, delta : float
    floor : float or None
        Coverage that was to be certified, too.
    """

    ratio: Floats
    threshold: Floats
    risk: Floats
    coverage: Floats
    wrong: NDArray[np.bool_]
    alpha: float
    delta: float
    floor: float | None = None

    @property
    def broken(self) -> float:
        """Share of the splits whose chosen pair breaks alpha or the floor: the promise is at most delta."""
        return float(_breaks(self.risk, self.coverage, self.alpha, self.floor).mean())

    @property
    def any_broken(self) -> float:
        """Share of the splits in which any certified pair breaks alpha or the floor: the promise is at most delta."""
        return float(self.wrong.mean())

    @property
    def abstained(self) -> float:
        """Share of the splits in which there was no pair to choose."""
        return float(np.isnan(self.ratio).mean())


def selective_splits(
    confidence: ArrayLike,
    losses: ArrayLike,
    ratios: Sequence[float] | NDArray[Any],
    thresholds: Sequence[float] | NDArray[Any] = THRESHOLDS,
    *,
    n_calibration: int,
    alpha: float,
    delta: float,
    p_value: str = "binomial",
    procedure: procedures.Procedure = "rows",
    coverage: float | None = None,
    split: float = 0.5,
    by: str = "ratio",
    min_coverage: float | None = None,
    trials: int = 1000,
    seed: int = 0,
    loss_range: tuple[float, float] = (0.0, 1.0),
    replace: bool = False,
) -> SelectiveSplits:
    """`selective.calibrate_losses` on `trials` random parts of two tables, and the truth about what it certified.

    The rows of the tables are the population, as in `validation.repeated_splits`, which also says what drawing without
    replacement means for the p-values.

    Parameters
    ----------
    confidence, losses, ratios, thresholds, alpha, delta, p_value, procedure, coverage, split, loss_range
        As in `selective.calibrate_losses`; "split" draws anew which examples learn its path.
    n_calibration : int in 1..n-1
        Examples drawn for each calibration, those that learn a path included.
    by, min_coverage
        How the pair is chosen, as in `SelectiveCalibration.best`.
    trials, seed : int
        Number of splits, and their seed.
    replace : bool
        Draw with replacement (the bootstrap): draws are independent.

    Returns
    -------
    SelectiveSplits

    Raises
    ------
    TypeError, ValueError
        An argument outside these ranges, named, or tables and grids of unequal size.

    >>> rng = np.random.default_rng(0)
    >>> confidence = rng.random((500, 1))
    >>> wrong = rng.random((500, 2)) < (1 - confidence) * [0.1, 0.4]
    >>> settings = {"n_calibration": 200, "alpha": 0.1, "delta": 0.1, "trials": 50}
    >>> splits = selective_splits(np.repeat(confidence, 2, axis=1), wrong, [0.5, 0.9], [0.5, 0.0], **settings)
    >>> float(np.nanmax(splits.ratio)), splits.any_broken
    (0.5, 0.0)
    """
    grid = _checks.ratios(ratios)
    plan = Recipe(alpha, delta, p_value, procedure, loss_range, coverage, split)
    tables = tables_of(confidence, losses, grid, thresholds, plan.loss_range)
    size = _checks.calibration_size(n_calibration, len(tables.losses))
    whole = evidence.tally(tables.cells, tables.losses, len(tables.thresholds))
    true = whole.means(*plan.loss_range), whole.selected / len(tables.losses)
    false = _breaks(*true, plan.alpha, plan.floor)
    rng, wrong, chosen = np.random.default_rng(seed), [], []
    for _ in range(_checks.positive_int(trials, "trials")):
        n = len(tables.losses)
        outcome = plan.test(tables, rng.integers(n, size=size) if replace else rng.permutation(n)[:size])
        share = outcome.counts.selected / outcome.n
        wrong.append((outcome.rejected & false).any())
        chosen.append(pick(outcome.rejected, share, by, min_coverage) or (-1, -1))
    row, column = np.array(chosen).T
    ratio, threshold, risk, share = (
        np.where(row < 0, np.nan, values)
        for values in (grid[row], tables.thresholds[column], *(table[row, column] for table in true))
    )
    return SelectiveSplits(ratio, threshold, risk, share, np.array(wrong), plan.alpha, plan.delta, plan.floor)


def _breaks(risk: Floats, coverage: Floats, alpha: float, floor: float | None) -> NDArray[np.bool_]:
    """Where alpha or the floor is broken; NaN, no pair, breaks nothing."""
    return (risk > alpha + pvalues.ROUNDING) | (coverage < (floor or 0) - pvalues.ROUNDING)
