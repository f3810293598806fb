"""Loss tables from their parts: which way they are evaluated, here or by workers, and how they are put together."""

import functools
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from confprune_edu import _checks, pruning
from confprune_edu.engine import batches, executors, passes, shared
from confprune_edu.engine.passes import Arrays, Options, Task
from confprune_edu.losses import Loss


def rows(
    model: nn.Module,
    data: Any,
    ratios: Any,
    losses: Mapping[str, Loss],
    options: Options,
    executor: Executor | None = None,
) -> Iterator[Arrays]:
    """The rows of the tables, (some, m), one array a loss, in the order of the examples.

    Bad arguments are refused at once. The tables are filled batch by batch, all ratios on each; with `finish`, or where
    networks cannot share weights, ratio by ratio, each on a copy of its own.
    """
    grid, rank = _checks.ratios(ratios), pruning.global_rank(model, options.scores, options.weights)
    if executor is not None:
        return _by_workers(executor, model, data, grid, losses, options)
    one_by_one = functools.partial(columns, model, data, grid, losses, options)
    if options.finish is not None:
        return _whole(one_by_one())
    task = passes.prepare(model, data, grid, losses, options)
    changed_by_eval = pruning.fingerprint(task.full) != pruning.fingerprint(model)
    untied = pruning.tied(model) and not pruning.tied(task.full)  # on its way to another device
    return _whole(one_by_one()) if changed_by_eval or untied else _by_batch_or_ratio(task, rank, one_by_one)


def columns(model: nn.Module, data: Any, ratios: Any, losses: Mapping[str, Loss], options: Options) -> Iterator[Arrays]:
    """The columns of the tables, (n,), one array a loss. Bad arguments are refused at once."""
    grid = _checks.ratios(ratios)
    copies = pruning.family(model, grid, options.scores, options.finish, weights=options.weights)
    return passes.by_ratio(passes.prepare(model, data, grid, losses, options), copies)


def joined(parts: Iterator[Arrays], losses: Mapping[str, Loss]) -> dict[str, NDArray[Any]]:
    """The tables (n, m) in memory, by the names of their losses."""
    found = list(parts)
    if not found:
        raise ValueError("data must hold at least one calibration example")
    return {name: np.concatenate(table) for name, table in zip(losses, zip(*found, strict=True), strict=True)}


def filed(parts: Iterator[Arrays], n: int, out: Path) -> NDArray[Any]:
    """The first of the tables, (n, m), in a file, which has its name once it is complete and replaces no other."""
    _refuse_existing(out)
    beside = out.with_name(f"{out.name}.{secrets.token_hex(4)}.part")
    beside.touch(exist_ok=False)  # refuses here a folder that cannot be written to
    try:
        _fill(parts, n, beside)
        _refuse_existing(out)
        beside.rename(out)
    finally:
        beside.unlink(missing_ok=True)
    return np.load(out, mmap_mode="r+")


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise FileExistsError(f"out: {out} exists; to replace it, delete it first, or name another file")


def _fill(parts: Iterator[Arrays], n: int, path: Path) -> None:
    start, table = 0, None
    for part, *_ in parts:
        if table is None:
            table = _reserved(path, part.dtype, (n, part.shape[1]))
        if start + len(part) > n or part.dtype != table.dtype:
            raise ValueError("data gave more examples than it has, or losses of two dtypes")
        table[start : start + len(part)] = part
        start += len(part)
    if table is None or start < n:
        raise ValueError(f"data must give all of its {n} examples, got {start}")
    table.flush()


def _reserved(path: Path, dtype: np.dtype[Any], shape: tuple[int, int]) -> np.memmap[Any, Any]:
    """A table in a file that has its place on the disk: OSError where there is none.

    Without its place, the write that finds the disk full would end the process (SIGBUS).
    """
    table = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return table


def _by_batch_or_ratio(task: Task, rank: Tensor, one_by_one: Callable[[], Iterator[Arrays]]) -> Iterator[Arrays]:
    try:
        yield from passes.by_batch(task, rank)
    except shared.CannotShare:  # noticed on the first batch, before any row was given
        yield from _whole(one_by_one())  # with copies that have seen no batch yet


def _whole(columns: Iterator[Arrays]) -> Iterator[Arrays]:
    """Whole tables from their columns, as one part."""
    yield [np.column_stack(table) for table in zip(*columns, strict=True)]


def _by_workers(
    executor: Executor,
    model: nn.Module,
    data: Any,
    grid: NDArray[np.float64],
    losses: Mapping[str, Loss],
    options: Options,
) -> Iterator[Arrays]:
    """The rows of each piece of the data, evaluated on the executor."""
    pieces, size = batches.cut(data, options.batch_size, batches.elements(model), executors.PIECES, options.target)
    same = options._replace(batch_size=size, progress=False)
    jobs = [(executors.Parcel(model, piece, grid, dict(losses), same),) for piece in pieces]
    done = executors.in_turn(executor, _work, jobs)
    return tqdm(done, total=len(jobs), unit="piece", delay=2, leave=False, disable=not options.progress)


def _work(parcel: executors.Parcel) -> Arrays:
    """What a worker does with its piece of the data."""
    model, data, grid, losses, options = parcel.arguments
    return list(joined(rows(model, data, grid, losses, options), losses).values())
