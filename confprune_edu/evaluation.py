"""Losses of a pruned family on calibration examples: whole, as a table (n, m), or one ratio at a time.

The networks run in eval mode under `torch.inference_mode()`, as copies: the model, its training mode and buffers, and
the global random state are what they were, also after an exception or an interrupt.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from confprune_edu import _checks, engine, pruning, shards

Loss = Callable[[Any, Any, Any], Tensor]
Batches = Callable[[], Iterable[tuple[Any, Any, Any]]]  # a pass over (inputs, targets or None, mark or None)

# Numbers in one batch of inputs: larger batches leave the processor's cache and are slower, above all where each layer
# puts out many channels.
BATCH_ELEMENTS, CONVOLUTION_ELEMENTS = 2**20, 2**18


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


def loss_range(loss: Loss) -> tuple[float, float]:
    """The interval that holds the values of `loss`: its attribute `range`, or (0, 1).

    >>> from confprune_edu.losses import accuracy_drop, error
    >>> loss_range(accuracy_drop), loss_range(error)
    ((-1.0, 1.0), (0.0, 1.0))
    """
    inner = getattr(loss, "func", None)  # of a functools.partial
    return _checks.interval(getattr(loss, "range", getattr(inner, "range", (0.0, 1.0))), "loss.range")


class _Task(NamedTuple):
    """Checked arguments: the full network, the grid, losses by name, and how to pass over the examples."""

    full: nn.Module
    grid: NDArray[np.float64]
    losses: Mapping[str, Loss]
    batches: Batches
    generators: list[torch.Generator]
    device: torch.device
    progress: bool

    def bar(self, total: int | None) -> Any:
        return tqdm(total=total, unit="ratio", delay=2, leave=False, disable=not self.progress)


def _task(
    model: nn.Module,
    data: Any,
    grid: NDArray[np.float64],
    losses: Mapping[str, Loss],
    batch_size: int | None,
    device: torch.device | str | None,
    progress: bool,
) -> _Task:
    for loss in losses.values():
        if not callable(loss):
            raise TypeError(f"loss must be a function loss(pruned, full, target), got {loss!r}")
    engine.keep_freed_memory()
    elements = CONVOLUTION_ELEMENTS if engine.convolves(model) else BATCH_ELEMENTS
    batches, generators = _batches(data, batch_size, elements)
    where = torch.device(device) if device is not None else next(model.parameters()).device
    full = pruning.twin(model).to(where).eval()
    engine.quicken(full)
    return _Task(full, grid, losses, batches, generators, where, progress)


Part = list[NDArray[Any]]  # tables of some examples, (some, m), one a loss


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
        pieces, size = _cut(data, batch_size, engine.convolves(model))
        settings = (dict(losses), scores, finish, size, device)
        jobs = [(shards.Parcel(model, piece, grid, *settings),) for piece in pieces]
        pruning.global_rank(model, scores)  # refuses here what each worker would refuse
        return tqdm(
            shards.in_turn(executor, _piece, jobs),
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
        return _stacked(_by_ratio(task, copies()))
    return _shared_or_not(task, rank, copies)


def _shared_or_not(task: _Task, rank: Tensor, copies: Callable[[], Iterator[nn.Module]]) -> Iterator[Part]:
    """`_by_batch`, or a copy a ratio where a network turns out to write into its own weights."""
    try:
        yield from _by_batch(task, rank)
    except engine.Restless:  # found out on the first batch, before anything was given
        yield from _stacked(_by_ratio(task, copies()))


def _stacked(columns: Iterator[Part]) -> Iterator[Part]:
    yield [np.column_stack(table) for table in zip(*columns, strict=True)]


def _piece(parcel: shards.Parcel) -> Part:
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


def _by_batch(task: _Task, rank: Tensor) -> Iterator[Part]:
    """Tables (batch, m), one a loss, for each batch: every ratio sees it before the next one is read."""
    family = None
    with task.bar(None) as bar, pruning.same_random_state(*task.generators), torch.inference_mode():
        for x, y, _ in task.batches():
            first = family is None
            if family is None:
                call, family = _begin(task, rank, x)
            inputs, targets = engine.laid_out(_to(x, task.device), task.full), _to(y, task.device)
            state, given = pruning.random_state(), _own(inputs)
            known = _by_rows(_told(call.of, given, task.full)), targets
            family.see(call)
            written = not _equal(given, inputs)
            if first:
                with family.watched(), pruning.same_random_state():
                    family.lay_out(_own(inputs))
            rows = []
            for j, ratio in enumerate(task.grid):
                if j == 0 and family.starts_full:  # the full network has answered, and drawn what it draws
                    output = _own(known[0])
                else:
                    pruning.set_random_state(state)  # the full network and each pruned one draw the same numbers
                    if written:  # and see the same inputs
                        given = _own(inputs)
                    network = family.at(j)
                    with family.watched() if first else contextlib.nullcontext():
                        output = _by_rows(network(given))
                rows.append(_values(task, output, _size(inputs), known, ratio))
                bar.update()
            yield [np.column_stack(table) for table in zip(*rows, strict=True)]


def _begin(task: _Task, rank: Tensor, x: Any) -> tuple[engine.FirstCall, engine.Family]:
    with pruning.same_random_state():
        engine.lay_out(task.full, _to(x, task.device))
    family = engine.Family(task.full, task.grid, rank)  # before there are hooks that its networks would inherit
    return engine.FirstCall(task.full), family


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
    return _by_ratio(_task(model, data, grid, losses, batch_size, device, progress), copies)


def _by_ratio(task: _Task, copies: Iterator[nn.Module]) -> Iterator[list[NDArray[Any]]]:
    known: list[tuple[tuple[Any, Any], Any]] = []
    with pruning.same_random_state(*task.generators), torch.inference_mode():
        for x, y, mark in task.batches():
            if not known:
                with pruning.same_random_state():
                    engine.lay_out(task.full, _to(x, task.device))
            inputs = engine.laid_out(_to(x, task.device), task.full)
            known.append(((_by_rows(_told(task.full, _own(inputs), task.full)), _to(y, task.device)), mark))
    if not known:
        raise ValueError("data must hold at least one calibration example")
    with task.bar(len(task.grid)) as bar:
        for ratio, candidate in zip(task.grid, copies, strict=True):
            candidate.to(task.device).to(memory_format=engine.memory_format(task.full)).eval()
            engine.quicken(candidate)
            with pruning.same_random_state(*task.generators), torch.inference_mode():
                parts = []
                for batch, pair in zip_longest(task.batches(), known):
                    if batch is None or pair is None or batch[2] != pair[1]:
                        raise ValueError(
                            "data gave other examples on its second pass: a loader must repeat them in the same order"
                        )
                    inputs = engine.laid_out(_to(batch[0], task.device), task.full)
                    output = _by_rows(candidate(_own(inputs)))
                    parts.append(_values(task, output, _size(inputs), pair[0], ratio))
            bar.update()
            yield [np.concatenate(column) for column in zip(*parts, strict=True)]


def _told(call: Callable[[Any], Any], inputs: Any, network: nn.Module) -> Any:
    """`call(inputs)`; an error of torch then tells what the inputs were."""
    try:
        return call(inputs)
    except RuntimeError as problem:
        seen = ", ".join(f"{t.dtype} {tuple(t.shape)}" for t in tree_leaves(inputs) if isinstance(t, Tensor))
        problem.add_note(
            f"data: a batch of inputs is {seen}; the model's weights are {next(network.parameters()).dtype}"
        )
        raise


def _values(task: _Task, output: Any, size: int | None, known: tuple[Any, Any], ratio: float) -> list[NDArray[Any]]:
    """Losses (batch,) of one network's outputs on one batch, in the order of `task.losses`, checked."""
    values = []
    for k, (name, loss) in enumerate(task.losses.items()):
        own = output if k == len(task.losses) - 1 else _own(output)  # a loss may write into what it is given
        value = torch.as_tensor(loss(own, _own(known[0]), _own(known[1])))
        if value.ndim != 1 or size not in (None, len(value)):
            raise ValueError(
                f"loss must give one value an example, shape ({size or 'batch'},), got {tuple(value.shape)}: "
                "average over positions, not over the batch"
            )
        column = value.cpu().numpy()
        if column.dtype != bool:
            column = _checks.losses(column.astype(np.float64), *loss_range(loss), name=f"{name} at ratio {ratio:g}")
        values.append(column)
    return values


def _batches(data: Any, batch_size: int | None, elements: int) -> tuple[Batches, list[torch.Generator]]:
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
    x, y = _rows(data)
    size = batch_size or _batch_rows(x, elements)
    rows = [slice(i, i + size) for i in range(0, len(x), size)]
    return lambda: ((x[r], None if y is None else y[r], None) for r in rows), []


def _rows(data: Any) -> tuple[Tensor, Tensor | None]:
    """Tensors of inputs and targets with one row an example."""
    inputs, targets = _pair(data)
    x = _tensor(inputs, "inputs")
    y = None if targets is None else _tensor(targets, "targets")
    if y is not None and (y.ndim == 0 or x.ndim == 0 or len(y) != len(x)):
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"inputs and targets must have one row an example, got shapes {shapes}")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError("data must hold at least one calibration example")
    return x, y


def _batch_rows(x: Tensor, elements: int) -> int:
    return min(max(elements * len(x) // max(x.numel(), 1), 1), 1280)


def _cut(data: Any, batch_size: int | None, convolves: bool) -> tuple[list[Any], int]:
    """Pieces of the examples, whole batches each, and the size of a batch."""
    if isinstance(data, (Dataset, DataLoader)):
        raise TypeError("data must be tensors or arrays where an executor shares them out, got a loader or a data set")
    x, y = _rows(data)
    size = batch_size or _batch_rows(x, CONVOLUTION_ELEMENTS if convolves else BATCH_ELEMENTS)
    step = size * -(-len(x) // (size * shards.PIECES))
    ends = [slice(i, i + step) for i in range(0, len(x), step)]
    # clones: a slice would travel with all of its tensor's memory
    return [x[r].clone() if y is None else (x[r].clone(), y[r].clone()) for r in ends], size


def _examples(data: Any) -> int:
    """How many examples there are, where the data tell."""
    if isinstance(data, DataLoader):
        return _examples(data.dataset)
    if isinstance(data, Dataset):
        if not hasattr(data, "__len__"):
            raise TypeError("data must tell its length for a table in a file")
        return len(data)
    return len(_rows(data)[0])


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
    return value.clone() if isinstance(value, Tensor) else tree_map_only(Tensor, Tensor.clone, value)


def _by_rows(value: Any) -> Any:
    """Outputs as a loss expects them, to which it may apply `view`, whatever the memory format of the layers."""
    return tree_map_only(Tensor, lambda t: t.contiguous() if t.layout == torch.strided else t, value)


def _equal(one: Any, other: Any) -> bool:
    """Do two structures hold equal tensors? NaN equals nothing."""
    return all(map(torch.equal, *([x for x in tree_leaves(part) if isinstance(x, Tensor)] for part in (one, other))))


def _size(x: Any) -> int | None:
    """Examples in a batch, None where the form of the inputs does not tell."""
    if isinstance(x, dict):
        return _size(next(iter(x.values()), None))
    return len(x) if isinstance(x, Tensor) and x.ndim else None


def _mark(x: Any) -> Any:
    """Enough of a loader's batch to notice that another pass gave other examples."""
    tensors = [part for part in tree_leaves(x) if isinstance(part, Tensor)]
    return pruning.digest({str(i): tensor for i, tensor in enumerate(tensors)})
