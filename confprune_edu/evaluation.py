"""TODO"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from confprune_edu import _checks, pruning
from confprune_edu.engine import executors, kernels, shared
from confprune_edu.engine.batches import _cut, _examples
from confprune_edu.engine.passes import Part, Task, _task, by_batch, by_ratio
from confprune_edu.losses import Loss


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
    executor: Executor | None = None,
    out: str | Path | None = None,
) -> NDArray[Any]:
    """Loss of every example (rows) under the model pruned to every ratio (columns).

    Parameters
    ----------
    model : torch.nn.Module
        The full network; called as model(inputs).
    data : (inputs, targets), inputs alone, a DataLoader or a Dataset
        Tensors or arrays with one example a row, or batches (inputs, targets) or inputs, of any type that the model
        takes. A loader is read once; with `finish`, and by `loss_columns`, once a ratio: it must then give the same
        examples in the same order each time, where shuffling by torch's generators is replayed.
    ratios : float array, shape (m,), strictly increasing in [0, 1)
        Fractions of the prunable weights to set to zero.
    loss : callable
        loss(pruned, full, target) -> (batch,), see `losses`.
    scores : dict from name to tensor, optional
        Pruning criterion; default: magnitude.
    finish : callable, optional
        finish(model) -> None, applied to each pruned copy before it is evaluated, see `pruning.family`.
    batch_size : int, optional
        Examples at a time, for tensors; default: as many as stay in the processor's cache, at most 1,280.
    device : optional
        Where to run; default: where the model is.
    progress : bool
        Show a progress bar if the work takes longer than two seconds.
    executor : concurrent.futures.Executor, optional
        Threads, processes, a Dask cluster (`Client(...).get_executor()`) or MPI (`mpi4py.futures`) to work on: tensors
        or arrays are cut by examples, and the model travels once with each piece. Where networks or losses draw random
        numbers, or with `finish`, take processes: threads share one random state.
    out : str or Path, optional
        File (.npy) that holds the table, for tables larger than memory; returned as a memory-mapped array.

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
    settings = (scores, finish, batch_size, device, progress, executor)
    if out is None:
        return _joined(_parts(model, data, ratios, {"losses": loss}, *settings), {"losses": loss})["losses"]
    return _filled(_parts(model, data, ratios, {"losses": loss}, *settings), _examples(data), Path(out))


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
    executor: Executor | None = None,
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
    return _joined(_parts(model, data, ratios, losses, scores, finish, batch_size, device, progress, executor), losses)


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
    columns = _columns(model, data, ratios, {"losses": loss}, scores, finish, batch_size, device, progress)
    return (column for (column,) in columns)


def _parts(
    model: nn.Module,
    data: Any,
    ratios: Sequence[float] | NDArray[Any],
    losses: Mapping[str, Loss],
    scores: Mapping[str, Tensor] | None,
    finish: pruning.Finish | None,
    batch_size: int | None,
    device: torch.device | str | None,
    progress: bool,
    executor: Executor | None = None,
) -> Iterator[Part]:
    """Whole rows, some examples at a time; ratios inside, except where each network is finished on its own."""
    grid = _checks.ratios(ratios)
    if executor is not None:
        pieces, size = _cut(data, batch_size, kernels.convolves(model))
        settings = (dict(losses), scores, finish, size, device)
        jobs = [(executors.Parcel(model, piece, grid, *settings),) for piece in pieces]
        pruning.global_rank(model, scores)  # refuses here what each worker would refuse
        return tqdm(
            executors.in_turn(executor, _piece, jobs),
            total=len(jobs),
            unit="piece",
            delay=2,
            leave=False,
            disable=not progress,
        )
    rank = pruning.global_rank(model, scores)
    task = _task(model, data, grid, losses, batch_size, device, progress)
    copies = functools.partial(pruning.family, model, grid, scores, finish)
    if finish is not None or pruning.fingerprint(task.full) != pruning.fingerprint(model):  # changed by `eval()`
        return _stacked(by_ratio(task, copies()))
    return _shared_or_not(task, rank, copies)


def _shared_or_not(task: Task, rank: Tensor, copies: Callable[[], Iterator[nn.Module]]) -> Iterator[Part]:
    """`by_batch`, or a copy a ratio where a network turns out to write into its own weights."""
    try:
        yield from by_batch(task, rank)
    except shared.Restless:  # found out on the first batch, before anything was given
        yield from _stacked(by_ratio(task, copies()))


def _stacked(columns: Iterator[Part]) -> Iterator[Part]:
    yield [np.column_stack(table) for table in zip(*columns, strict=True)]


def _piece(parcel: executors.Parcel) -> Part:
    """What a worker of an executor does."""
    model, data, grid, losses, scores, finish, size, device = parcel.arguments
    return list(_joined(_parts(model, data, grid, losses, scores, finish, size, device, False), losses).values())


def _joined(parts: Iterator[Part], losses: Mapping[str, Loss]) -> dict[str, NDArray[Any]]:
    found = list(parts)
    if not found:
        raise ValueError("data must hold at least one calibration example")
    return {name: np.concatenate(table) for name, table in zip(losses, zip(*found, strict=True), strict=True)}


def _filled(parts: Iterator[Part], n: int, out: Path) -> NDArray[Any]:
    """The first table of the parts, (n, m), in a file."""
    start, table = 0, None
    for part, *_ in parts:
        if table is None:
            table = np.lib.format.open_memmap(out, mode="w+", dtype=part.dtype, shape=(n, part.shape[1]))
        if start + len(part) > n or part.dtype != table.dtype:
            raise ValueError("data gave more examples than it has, or losses of two dtypes")
        table[start : start + len(part)] = part
        start += len(part)
    if table is None or start < n:
        raise ValueError(f"data must give all of its {n} examples, got {start}")
    table.flush()
    return table


def _columns(
    model: nn.Module,
    data: Any,
    ratios: Sequence[float] | NDArray[Any],
    losses: Mapping[str, Loss],
    scores: Mapping[str, Tensor] | None,
    finish: pruning.Finish | None,
    batch_size: int | None,
    device: torch.device | str | None,
    progress: bool,
) -> Iterator[list[NDArray[Any]]]:
    """Refuses bad arguments at once, then gives a column a loss for each ratio asked for, and evaluates no other."""
    grid = _checks.ratios(ratios)
    copies = pruning.family(model, grid, scores, finish)
    return by_ratio(_task(model, data, grid, losses, batch_size, device, progress), copies)
