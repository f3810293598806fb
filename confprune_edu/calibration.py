"""The method in one call: losses, p-values, stop rule, and the largest certified pruning ratio.

1. losses: L_ij, example i under the model pruned to ratio_j, for a grid fixed beforehand, gentle to aggressive;
2. p-values: p_j, evidence against H_j: R(ratio_j) > alpha;
3. stop rule: a procedure of `fwer` rejects some H_j, with P[any false rejection] <= delta.

The answer is the largest ratio whose H_j is rejected, or None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confprune_edu import _checks, fwer, pvalues
from confprune_edu.certificates import Calibration as Calibration, largest
from confprune_edu.provenance import counted, provenance_of
from confprune_edu.recipe import Recipe, name_of, until_failures
from confprune_edu.records import table_sha256

if TYPE_CHECKING:  # torch is imported where a network is at hand: `calibrate_losses` runs without it
    from concurrent.futures import Executor

    import torch
    from torch import Tensor, nn

    from confprune_edu import pruning
    from confprune_edu.engine.batches import Target
    from confprune_edu.engine.passes import Options
    from confprune_edu.engine.proof import Call
    from confprune_edu.losses import Loss

CERTAIN = 1e-6  # chance at which right importance weights would be refused
RATIOS = tuple(j / 100 for j in range(100))  # the default grid: 0, 1, ..., 99 per cent


def calibrate(
    model: nn.Module,
    data: Any,
    loss: Loss,
    *,
    alpha: float,
    delta: float,
    ratios: Sequence[float] | NDArray[Any] = RATIOS,
    p_value: str = "tight",
    procedure: fwer.Procedure = "fixed_sequence",
    scores: Mapping[str, Tensor] | None = None,
    finish: pruning.Finish | None = None,
    weights: pruning.Weights | None = None,
    family: pruning.Family | None = None,
    call: Call | None = None,
    target: Target | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    executor: Executor | None = None,
    block: int | None = None,
    cache: str | Path | None = None,
) -> Calibration:
    """The largest pruning ratio shown to have risk at most alpha, by a recipe that errs with probability at most delta.

    A false claim about any ratio of the grid has probability at most delta over draws of `data`. The fixed sequence and
    `fwer.multi_start` evaluate some ratios at a time and stop where they fail, see `block`; other procedures evaluate
    the whole grid. A loader is read once where its batches fit into a quarter of the free memory.

    Parameters
    ----------
    model, data, loss, ratios, scores, finish, weights, family, call, target, batch_size, device, progress, executor
        As in `evaluation.loss_table`. The examples must be independent draws from the law of use, and fresh: not used
        to train the model or to choose the grid, the loss, alpha, delta, the p-value, the procedure or the pruning
        criterion. Their order, a seed and a split are choices, too: the best of several is chosen by the losses.
    alpha : float in the loss's range, (0, 1) for most
        Tolerated risk.
    delta : float in (0, 1)
        Tolerated probability of any false certificate.
    p_value : str
        A name of `pvalues`: "tight" is never larger than "hoeffding", "bentkus" or "prw"; "binomial" is smaller, for
        0/1 losses only; "betting" wins at low variance and needs examples in a random order that is drawn once.
    procedure : str or callable
        "fixed_sequence", "holm", "bonferroni", or a function (p_values (m,), delta) -> rejected (m,) that itself keeps
        P[any false rejection] <= delta, `functools.partial(fwer.multi_start, starts=[0, 50])` for example. Never choose
        it after seeing the losses.
    block : int, optional
        How many ratios are evaluated together, which is faster, where a sequence may stop at any of them. Those beyond
        the first that fails are not tested: they have no p-value and change no number of the certificate, which counts
        them in `evaluated`. Default: an eighth of those tested so far, and at least 4; 1 evaluates none beyond. With
        `finish` or `family` it is always 1.
    cache : str or Path, optional
        Folder where the losses of each ratio are kept as soon as they are known: a run that was interrupted goes on
        when it is begun again. Its `origin.json` tells what they belong to, and a folder of another model, data, loss,
        batch size, scores, finish, family ... is refused: the code, settings and data in these are compared, and the
        network that finish gives at the first ratio. What a loss reads in files is not. A loader is read once more.

    Returns
    -------
    Calibration

    Raises
    ------
    TypeError, ValueError
        An argument outside these ranges, named; a cache of something else; see also `evaluation.loss_table`.
    OSError
        `cache` cannot be written to, or the disk is full.

    Source: Angelopoulos et al., Learn then Test, arXiv 2110.01052; Alvarez, arXiv 2408.04759.

    >>> import torch
    >>> from torch import nn
    >>> from confprune_edu.losses import disagreement
    >>> model = nn.Linear(2, 2, bias=False)
    >>> model.weight.data = torch.tensor([[5.0, 0.1], [0.1, 4.0]])
    >>> inputs = torch.eye(2).repeat(50, 1)
    >>> calibrate(model, inputs, disagreement, alpha=0.1, delta=0.1, ratios=[0.25, 0.5, 0.75]).ratio
    0.5

    In a folder, the losses of each ratio outlast the run:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = {"alpha": 0.1, "delta": 0.1, "ratios": [0.25, 0.5], "cache": folder}
    ...     first, again = (calibrate(model, inputs, disagreement, **options) for _ in range(2))
    ...     print(sorted(path.name for path in Path(folder).iterdir()), again.ratio)
    ['origin.json', 'ratio-0.25.npy', 'ratio-0.5.npy'] 0.5
    """
    from confprune_edu import losses
    from confprune_edu.engine.fingerprint import Fingerprinted
    from confprune_edu.engine.passes import Options

    grid = _checks.ratios(ratios)
    recipe = Recipe(alpha, delta, p_value, procedure, losses.loss_range(loss))
    options = Options(scores, finish, batch_size, device, progress, weights, call, target, family)
    seen = Fingerprinted(data)
    origin = provenance_of(model, scores, finish, weights, family) | {"loss": name_of(loss)}
    found = _evaluated(model, seen, grid, loss, recipe, options, executor, block, cache)
    result = _certify(*found, grid, recipe, **origin, data_sha256=seen.sha256)
    return counted(result, model, result.ratio)


def calibrate_losses(
    losses: ArrayLike,
    ratios: Sequence[float] | NDArray[Any],
    *,
    alpha: float,
    delta: float,
    p_value: str = "tight",
    procedure: fwer.Procedure = "fixed_sequence",
    loss_range: tuple[float, float] = (0.0, 1.0),
    importance: ArrayLike | None = None,
    bound: float | None = None,
    knob: str | None = None,
) -> Calibration:
    """`calibrate` from a table of losses that is already there.

    Parameters
    ----------
    losses : bool, int or float array, shape (n, m), in `loss_range`
        Loss of each of n calibration examples (rows) under the model pruned to each of m ratios (columns).
    ratios : float array, shape (m,), strictly increasing in [0, 1)
    alpha, delta, p_value, procedure
        As in `calibrate`.
    loss_range : (low, high)
        Range of the losses; losses and alpha are rescaled to [0, 1] together.
    importance : float array, shape (n,), in [0, bound], optional
        For examples from another law than that of use: how many times as likely each is there, known before the losses
        are seen (class shares there / class shares here, say). What is certified is then the risk under the law of use,
        the mean of importance * loss, at the price of a sample worth some `bound` times less. Weights whose mean is
        certainly not 1 are refused; a bound that examples which were not drawn exceed is not seen.
    bound : float of at least 1
        The largest weight that any example can have, those that were not drawn included.
    knob : str, optional
        What the ratio is, where the table is not about weights at zero: "share of trees dropped".

    Returns
    -------
    Calibration

    Raises
    ------
    TypeError, ValueError
        An argument outside these ranges, named, or tables and grids of unequal length.

    Source of importance weighting: Tibshirani et al. (2019), arXiv 1904.06019; Park et al. (2022), arXiv 2106.09848.

    >>> losses = np.repeat([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]], [1, 4, 5, 90], axis=0)   # 1, 5 and 10 errors
    >>> calibrate_losses(losses, [0.2, 0.5, 0.8], alpha=0.1, delta=0.1).ratio
    0.5

    The first ten examples are a group that is twice as frequent in use, where its failures weigh twice:

    >>> there = np.where(np.arange(100) < 10, 0.2 / 0.1, 0.8 / 0.9)
    >>> calibrate_losses(losses, [0.2, 0.5, 0.8], alpha=0.1, delta=0.1, importance=there, bound=2.0).ratio
    0.2
    """
    grid = _checks.ratios(ratios)
    origin: dict[str, Any] = {"knob": knob}
    low, high = _checks.interval(loss_range, "loss_range")
    table = _checks.losses(losses, low, high, ndim=(2,))
    _checks.columns(table, "losses", grid)
    if importance is not None or bound is not None:
        _checks.number(alpha, "alpha", low, high)
        weights, top = _importance(importance, bound, len(table))
        table, low, high = weights[:, None] * table, min(top * low, 0), max(top * high, 0)
        origin["importance"] = top
    if not isinstance(knob, str | None):
        raise TypeError(f"knob must say in words what the ratio is, got {knob!r}")
    recipe = Recipe(alpha, delta, p_value, procedure, (low, high))
    tested = range(len(grid)), table, recipe.p_values(table), None
    return _certify(*tested, grid, recipe, **origin, data_sha256=table_sha256(table))


def _importance(weights: Any, bound: Any, n: int) -> tuple[NDArray[np.float64], float]:
    """Importance weights (n,) and their bound; ValueError where they cannot be the ratio of two laws."""
    if weights is None or bound is None:
        raise ValueError("importance needs bound, the largest weight that any example can have, and bound importance")
    top = _checks.number(bound, "bound", 0, np.inf)
    if top < 1:
        raise ValueError(f"bound must be at least 1, since importance weights have mean 1, got {bound!r}")
    array = _checks.within(_checks.numeric(weights, "importance").astype(np.float64), "importance", 0, top)
    if array.shape != (n,):
        raise ValueError(f"importance must hold one weight an example, shape ({n},), got {array.shape}")
    if abs(array.mean() - 1) > top * np.sqrt(np.log(2 / CERTAIN) / (2 * n)):  # Hoeffding (1963), theorem 2
        raise ValueError(f"importance must have mean 1 over the law of the examples, got {array.mean():.3g}")
    return array, top


def group_means(losses: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """One loss a group: the mean over its examples, where examples of one group are not independent.

    Frames of one video, say, or records of one patient. Where the groups are independent draws, so are these means, and
    `calibrate_losses` of them certifies their risk: the mean loss of a new group, in which a large group counts no more
    than a small one.

    Parameters
    ----------
    losses : bool, int or float array, shape (n, m)
        Loss of each of n examples (rows) under the model pruned to each of m ratios (columns).
    groups : int or str array, shape (n,)
        Label of the group of each example.

    Returns
    -------
    float64 array, shape (g, m): a row a group, in the order of their first examples.

    Raises
    ------
    TypeError, ValueError
        Losses that are not numbers or hold NaN, no example, or not one label an example.

    >>> group_means([[0.0], [0.4], [1.0]], ["video 2", "video 2", "video 1"]).tolist()
    [[0.2], [1.0]]
    """
    table = _checks.losses(losses, -np.inf, np.inf, ndim=(2,))
    labels = np.asarray(groups)
    if labels.shape != (len(table),) or labels.dtype.kind not in "iuUb":
        raise ValueError(
            f"groups must hold a label for each of {len(table)} examples, got {labels.dtype}, {labels.shape}"
        )
    _, first, group = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[group]
    sums = np.zeros((len(first), table.shape[1]))
    np.add.at(sums, rank, table.astype(np.float64))
    return np.clip(sums / np.bincount(rank)[:, None], table.min(), table.max())


def _evaluated(
    model: nn.Module,
    data: Any,
    grid: NDArray[np.float64],
    loss: Loss,
    recipe: Recipe,
    options: Options,
    executor: Executor | None,
    block: int | None,
    cache: str | Path | None,
) -> tuple[Sequence[int], NDArray[Any], ArrayLike, int | None]:
    """The places of the grid that are tested, their losses and p-values; how many a sequence evaluated."""
    from confprune_edu import cache as files, evaluation

    block = options.block(block)
    chains = recipe.chains(len(grid))
    if cache is None and chains is None:
        table = evaluation.loss_table(model, data, grid, loss, executor=executor, **options._asdict())
        return range(len(grid)), table, recipe.p_values(table), None

    def evidence(places: Sequence[int]) -> Any:
        (losses,) = columns(places)
        return zip(losses.T, recipe.p_values(losses).tolist(), strict=True)

    with files.columns(model, data, grid, loss, options, executor, cache) as columns:
        tested, evaluated = until_failures(evidence, chains, len(grid), block)
    kept, p_values = zip(*tested.values(), strict=True)
    return list(tested), np.column_stack(kept), p_values, evaluated


def _certify(
    tested: Sequence[int],
    losses: NDArray[Any],
    p_values: ArrayLike,
    evaluated: int | None,
    grid: NDArray[np.float64],
    recipe: Recipe,
    **provenance: Any,
) -> Calibration:
    """The certificate from the losses of the ratios that were tested; those that no sequence reached fail."""
    p, means = np.full(len(grid), np.nan), np.full(len(grid), np.nan)
    p[tested], means[tested] = p_values, pvalues.loss_sums(losses) / len(losses)
    rejected = recipe.reject(np.where(np.isnan(p), 1, p))
    return Calibration(
        ratio=largest(grid, rejected),
        rejected=rejected,
        p_values=p,
        loss_means=means,
        ratios=grid,
        n=len(losses),
        evaluated=evaluated,
        **recipe.recorded(),
        **provenance,
    )
