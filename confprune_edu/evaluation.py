"""Losses of a pruned family on calibration examples: whole, as a table (n, m), or one ratio at a time.

The networks run in eval mode under `torch.inference_mode()`, as copies: the model, its training mode and buffers, and
the global random state are what they were, also after an exception or an interrupt.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from confprune_edu import _checks, pruning

Loss = Callable[[Any, Any, Any], Tensor]
Batches = Callable[[], Iterable[tuple[Any, Any, Any]]]  # a pass over (inputs, targets or None, mark or None)

BATCH_ELEMENTS = 2**20  # inputs in one batch: larger ones leave the processor's cache and are slower


def loss_table(
    model: nn.Module,
    data: Any,
    ratios: Sequence[float] | NDArray[Any],
    loss: Loss,
    *,
    scores: Mapping[str, Tensor] | None = None,
    finish: pruning.Finish | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> NDArray[Any]:
    """Loss of every example (rows) under the model pruned to every ratio (columns).

    Parameters
    ----------
    model : torch.nn.Module
        The full network; called as model(inputs).
    data : (inputs, targets), inputs alone, a DataLoader or a Dataset
        Tensors or arrays with one example a row, or batches (inputs, targets) or inputs, of any type that the model
        takes. A loader is read once a ratio and must give the same examples in the same order each time; shuffling by
        torch's generators is replayed.
    ratios : float array, shape (m,), strictly increasing in [0, 1)
        Fractions of the prunable weights to set to zero.
    loss : callable
        loss(pruned, full, target) -> (batch,), see `losses`.
    scores : dict from name to tensor, optional
        Pruning criterion; default: magnitude.
    finish : callable, optional
        finish(model) -> None, applied to each pruned copy before it is evaluated, see `pruning.family`.
    batch_size : int, optional
        Examples at a time, for tensors; default: as many as stay in the processor's cache, at most 1,024.
    device : optional
        Where to run; default: where the model is.
    progress : bool
        Show a progress bar if the work takes longer than two seconds.

    Returns
    -------
    bool array, shape (n, m), if the loss is boolean; float64 otherwise.

    Raises
    ------
    TypeError, ValueError
        Data, ratios or scores of another form; no example; losses that are NaN, outside the loss's range or not one an
        example.

    >>> model, inputs = nn.Linear(4, 3), torch.ones(5, 4)
    >>> from confprune_edu.losses import disagreement
    >>> loss_table(model, inputs, [0.0, 0.5], disagreement)[:, 0].tolist()
    [False, False, False, False, False]
    """
    columns = _pruned_losses(model, data, ratios, {"losses": loss}, scores, finish, batch_size, device, progress)
    return np.column_stack([column for (column,) in columns])


def loss_tables(
    model: nn.Module,
    data: Any,
    ratios: Sequence[float] | NDArray[Any],
    losses: Mapping[str, Loss],
    *,
    scores: Mapping[str, Tensor] | None = None,
    finish: pruning.Finish | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> dict[str, NDArray[Any]]:
    """Several tables from one pass over the pruned family: `loss_table` for each of `losses`, by name.

    Parameters and errors as in `loss_table`; `losses` maps a name of yours to a loss.

    >>> from confprune_edu.losses import confidence, disagreement
    >>> wanted = {"confidence": confidence, "disagreement": disagreement}
    >>> tables = loss_tables(nn.Linear(4, 3), torch.ones(5, 4), [0.0, 0.5], wanted)
    >>> {name: table.shape for name, table in tables.items()}
    {'confidence': (5, 2), 'disagreement': (5, 2)}
    """
    if not isinstance(losses, Mapping) or not losses:
        raise ValueError(f"losses must map at least one name to a loss, got {losses!r}")
    columns = _pruned_losses(model, data, ratios, losses, scores, finish, batch_size, device, progress)
    return {name: np.column_stack(table) for name, table in zip(losses, zip(*columns, strict=True), strict=True)}


def loss_columns(
    model: nn.Module,
    data: Any,
    ratios: Sequence[float] | NDArray[Any],
    loss: Loss,
    *,
    scores: Mapping[str, Tensor] | None = None,
    finish: pruning.Finish | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Iterator[NDArray[Any]]:
    """The columns of `loss_table` one by one, each evaluated when it is asked for: stop asking, and no more is done.

    Parameters and errors as in `loss_table`; yields arrays of shape (n,).

    >>> from confprune_edu.losses import disagreement
    >>> next(loss_columns(nn.Linear(4, 3), torch.ones(2, 4), [0.0, 0.5], disagreement)).tolist()
    [False, False]
    """
    columns = _pruned_losses(model, data, ratios, {"losses": loss}, scores, finish, batch_size, device, progress)
    return (column for (column,) in columns)


def loss_range(loss: Loss) -> tuple[float, float]:
    """The interval that holds the values of `loss`: its attribute `range`, or (0, 1).

    >>> from confprune_edu.losses import accuracy_drop, error
    >>> loss_range(accuracy_drop), loss_range(error)
    ((-1.0, 1.0), (0.0, 1.0))
    """
    inner = getattr(loss, "func", None)  # of a functools.partial
    return _checks.interval(getattr(loss, "range", getattr(inner, "range", (0.0, 1.0))), "loss.range")


def _pruned_losses(
    model: nn.Module,
    data: Any,
    ratios: Sequence[float] | NDArray[Any],
    losses: Mapping[str, Loss],
    scores: Mapping[str, Tensor] | None,
    finish: pruning.Finish | None,
    batch_size: int | None,
    device: torch.device | str | None,
    progress: bool,
) -> Iterator[tuple[NDArray[Any], ...]]:
    """The front door: refuses bad arguments at once, then gives one column a loss for each ratio asked for."""
    grid = _checks.ratios(ratios)
    copies = pruning.family(model, grid, scores, finish)
    for loss in losses.values():
        if not callable(loss):
            raise TypeError(f"loss must be a function loss(pruned, full, target), got {loss!r}")
    batches, generators = _batches(data, batch_size)
    where = torch.device(device) if device is not None else next(model.parameters()).device
    full = copy.deepcopy(model).to(where).eval()
    return _columns(full, copies, grid, losses, batches, generators, where, progress)


def _columns(
    full: nn.Module,
    copies: Iterator[nn.Module],
    grid: NDArray[np.float64],
    losses: Mapping[str, Loss],
    batches: Batches,
    generators: list[torch.Generator],
    device: torch.device,
    progress: bool,
) -> Iterator[tuple[NDArray[Any], ...]]:
    with pruning.same_random_state(*generators), torch.inference_mode():
        reference = [(full(_own(_to(x, device))), _to(y, device), mark) for x, y, mark in batches()]
    if not reference:
        raise ValueError("data must hold at least one calibration example")
    ranges = [loss_range(loss) for loss in losses.values()]
    bar = tqdm(
        zip(grid, copies, strict=True), total=len(grid), unit="ratio", delay=2, leave=False, disable=not progress
    )
    for ratio, candidate in bar:
        candidate.to(device).eval()
        with pruning.same_random_state(*generators), torch.inference_mode():
            parts = [
                _batch_losses(candidate, tuple(losses.values()), batch, known, device)
                for batch, known in zip_longest(batches(), reference)
            ]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        yield tuple(
            column
            if column.dtype == bool
            else _checks.losses(column.astype(np.float64), *ends, name=f"{name} at ratio {ratio:g}")
            for name, column, ends in zip(losses, columns, ranges, strict=True)
        )


def _batch_losses(
    candidate: nn.Module, losses: tuple[Loss, ...], batch: Any, known: Any, device: torch.device
) -> list[NDArray[Any]]:
    if batch is None or known is None or batch[2] != known[2]:
        raise ValueError("data gave other examples on its second pass: a loader must repeat them in the same order")
    output, size = candidate(_own(_to(batch[0], device))), _size(batch[0])
    values = []
    for k, loss in enumerate(losses):
        own = output if k == len(losses) - 1 else _own(output)  # a loss may write into what it is given
        value = torch.as_tensor(loss(own, _own(known[0]), _own(known[1])))
        if value.ndim != 1 or size not in (None, len(value)):
            raise ValueError(
                f"loss must give one value an example, shape ({size or 'batch'},), got {tuple(value.shape)}: "
                "average over positions, not over the batch"
            )
        values.append(value.cpu().numpy() if value.dtype == torch.bool else value.double().cpu().numpy())
    return values


def _batches(data: Any, batch_size: int | None) -> tuple[Batches, list[torch.Generator]]:
    """A function that starts a pass over the examples, and the generators that the pass draws from."""
    if batch_size is not None:
        _checks.positive_int(batch_size, "batch_size")
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size=batch_size or 256)
    if isinstance(data, DataLoader):
        loader: DataLoader[Any] = data
        owners = (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
        drawn_from = [getattr(owner, "generator", None) for owner in owners]
        generators = {id(g): g for g in drawn_from if isinstance(g, torch.Generator)}
        return lambda: ((*pair, _mark(pair[0])) for pair in map(_pair, loader)), list(generators.values())
    inputs, targets = _pair(data)
    x = _tensor(inputs, "inputs")
    y = None if targets is None else _tensor(targets, "targets")
    if y is not None and (y.ndim == 0 or x.ndim == 0 or len(y) != len(x)):
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"inputs and targets must have one row an example, got shapes {shapes}")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError("data must hold at least one calibration example")
    size = batch_size or min(max(BATCH_ELEMENTS * len(x) // max(x.numel(), 1), 1), 1024)
    rows = [slice(i, i + size) for i in range(0, len(x), size)]
    return lambda: ((x[r], None if y is None else y[r], None) for r in rows), []


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, (tuple, list)):
        return batch, None
    if len(batch) == 1:
        return batch[0], None
    if len(batch) != 2:
        raise ValueError(f"data must be inputs or (inputs, targets), got {len(batch)} parts: wrap them in one input")
    return batch[0], batch[1]


def _tensor(values: Any, name: str) -> Tensor:
    if not isinstance(values, (Tensor, np.ndarray)):
        raise TypeError(f"{name} must be a tensor or an array, or data a DataLoader; got {type(values).__name__}")
    return torch.as_tensor(np.require(values, requirements=["C", "W"]) if isinstance(values, np.ndarray) else values)


def _to(value: Any, device: torch.device) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), value)


def _own(value: Any) -> Any:
    """A copy that a network or a loss may write into."""
    return tree_map_only(Tensor, Tensor.clone, value)


def _size(x: Any) -> int | None:
    """Examples in a batch, None where the form of the inputs does not tell."""
    if isinstance(x, dict):
        return _size(next(iter(x.values()), None))
    return len(x) if isinstance(x, Tensor) and x.ndim else None


def _mark(x: Any) -> Any:
    """Enough of a loader's batch to notice that another pass gave other examples."""
    tensors = [part for part in tree_leaves(x) if isinstance(part, Tensor)]
    return pruning.digest({str(i): tensor for i, tensor in enumerate(tensors)})
