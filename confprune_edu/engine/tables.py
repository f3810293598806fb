"""Loss tables from their parts: which way they are evaluated, here or by workers, and how they are put together."""

import contextlib
import functools
import os
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from confprune_edu import _checks, pruning
from confprune_edu.engine import batches, executors, passes, shared
from confprune_edu.engine.fingerprint import Fingerprinted
from confprune_edu.engine.passes import Arrays, Options, Task
from confprune_edu.losses import Loss

Rows = Generator[Arrays, None, None]  # to be closed: networks are run in inference mode between its parts

WRITES = (
    "model: it writes to {name}, but not on the first batch: its networks cannot share that, and a loader is read "
    "once; give data as tensors, or finish=lambda network: None, by which each ratio has a copy"
)
AUTOCAST = "executor: autocast holds for the thread that entered it, not for workers: enter it in `call` instead"
CHANGES = (
    "{name} gives another network each time: whatever it draws must come from the global random state of torch, numpy "
    "or python, which is the same at each call; a loader's own generator, or an iterator that goes on, is not"
)


def rows(
    model: nn.Module,
    data: Any,
    ratios: Any,
    losses: Mapping[str, Loss],
    options: Options,
    executor: Executor | None = None,
) -> Rows:
    """The rows of the tables, (some, m), one array a loss, in the order of the examples.

    Bad arguments are refused at once. The tables are filled batch by batch, all ratios on each; with `finish` or
    `family`, or where networks cannot share weights, ratio by ratio, each on a copy of its own.
    """
    grid, order = _checks.ratios(ratios), _order(model, options)
    if executor is not None:
        return _by_workers(executor, model, data, grid, losses, options)
    task = passes.prepare(model, data, grid, losses, options)
    return _by_batch_or_ratio(task, order, options)


class Columns:
    """The columns of the tables, some ratios at a time, evaluated when they are asked for.

    Bad arguments are refused at once. With `finish` or `family`, or where networks cannot share weights, each ratio is
    evaluated on a copy of its own; with an executor, each time on all of its workers.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        ratios: Any,
        losses: Mapping[str, Loss],
        options: Options,
        executor: Executor | None = None,
    ) -> None:
        self.grid, order = _checks.ratios(ratios), _order(model, options)
        self.losses, self.bar = losses, passes.bar(len(self.grid), options.progress)
        options = options._replace(progress=False)
        if executor is not None:
            work = functools.partial(_by_workers, executor, model, data, losses=losses, options=options)
            self._rows: Callable[[Sequence[int]], Any] = lambda places: work(grid=self.grid[list(places)])
            self._task = None
            return
        task = passes.prepare(model, data, self.grid, losses, options)
        self._by_ratio = functools.partial(_by_ratio, order=order, options=options)
        self._by_block = functools.partial(passes.ByBlock, order=order)
        self._task, self._begin = task, self._by_ratio if _needs_copies(task, options) else self._by_block
        self._rows = self._begin(task)

    def at(self, places: Sequence[int]) -> Arrays:
        """The columns (n, places), one array a loss; no place is asked for after a later one."""
        try:
            found = joined(iter(self._rows(places)), self.losses)
        except shared.CannotShare:
            self._begin = self._by_ratio
            self._begin_anew()
            found = joined(iter(self._rows(places)), self.losses)
        except Exception:
            self._begin_anew()
            raise
        self.bar.update(len(places))
        return list(found.values())

    def _begin_anew(self) -> None:
        """Go on with a full network that has seen no batch."""
        if self._task is not None:
            self._rows = self._begin(_fresh(self._task))

    def close(self) -> None:
        """After the last of them."""
        self.bar.close()


def joined(parts: Iterator[Arrays], losses: Mapping[str, Loss]) -> dict[str, NDArray[Any]]:
    """The tables (n, m) in memory, by the names of their losses."""
    found = list(parts)
    if not found:
        raise ValueError(passes.NO_EXAMPLE)
    return {name: np.concatenate(table) for name, table in zip(losses, zip(*found, strict=True), strict=True)}


def filed(parts: Rows, n: int, out: Path) -> NDArray[Any]:
    """The first of the tables, (n, m), in a file, which has its name once it is complete and replaces no other."""
    with new_file(out, "out") as beside, contextlib.closing(parts):
        _fill(parts, n, beside)
    return np.load(out, mmap_mode="r+")


@contextlib.contextmanager
def new_file(path: Path, argument: str) -> Iterator[Path]:
    """A file beside `path` to write to, which has that name once the block has ended, and replaces no other.

    Raises
    ------
    OSError
        `path` exists, or its folder cannot be written to.
    """
    _refuse_existing(path, argument)
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    with on_disk(path, argument):
        beside.touch(exist_ok=False)  # refuses here a folder that cannot be written to
    try:
        yield beside
        _refuse_existing(path, argument)
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def on_disk(path: Path, argument: str) -> Iterator[None]:
    """Errors of the disk, a full one say, name the argument and the file."""
    try:
        yield
    except OSError as problem:
        raise OSError(problem.errno, f"{argument}: {problem.strerror}", str(path)) from None


def _refuse_existing(path: Path, argument: str) -> None:
    if path.exists():
        raise FileExistsError(f"{argument}: {path} exists; to replace it, delete it first, or name another file")


def _fill(parts: Iterator[Arrays], n: int, path: Path) -> None:
    start, table = 0, None
    for part, *_ in parts:
        if table is None:
            with on_disk(path, "out"):
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


def _order(model: nn.Module, options: Options) -> Tensor:
    """The order in which weights go; empty for a family of another kind."""
    if not (options.finish is None or callable(options.finish)):
        raise TypeError(f"finish must be a function finish(network) -> None, got {options.finish!r}")
    if options.family is None:
        return pruning.global_order(model, options.scores, options.weights)
    if not callable(options.family):
        raise TypeError(f"family must be a function family(model, ratio) -> network, got {options.family!r}")
    if given := [name for name in ("scores", "weights") if getattr(options, name) is not None]:
        raise ValueError(f"family takes the place of {' and '.join(given)}: give one or the other")
    pruning.checked_network(model)
    return torch.empty(0, dtype=torch.int64)


def _needs_copies(task: Task, options: Options) -> bool:
    """Does each ratio need a copy, since networks are finished, or change on their way to eval mode and the device?"""
    if options.finish is not None or options.family is not None:
        return True
    untied = pruning.tied(task.model) and not pruning.tied(task.full)
    return untied or pruning.fingerprint(task.full) != pruning.fingerprint(task.model)


def _fresh(task: Task) -> Task:
    """The same task with a full network that has seen no batch."""
    full, shown = passes.full_copy(task.model, task.device, task.weights, task.call)
    return task._replace(full=full, proof=shown)


def _by_ratio(task: Task, order: Tensor, options: Options) -> passes.ByRatio:
    made: dict[int, nn.Module] = {}
    family, finish = options.family, options.finish

    def copy_at(j: int) -> nn.Module:
        if j in made:
            return made.pop(j)
        if family is not None:
            return pruning.member(task.model, float(task.grid[j]), family, finish)
        return pruning.pruned_copy(task.model, task.weights, order, round(task.grid[j] * len(order)), finish)

    if tried := [name for name in ("family", "finish") if getattr(options, name) is not None]:
        j = min(1, len(task.grid) - 1) if family is not None else 0  # at the first a family may do nothing
        once, again = pruning.fingerprint(copy_at(j)), copy_at(j)
        if pruning.fingerprint(again) != once:
            raise ValueError(CHANGES.format(name=" or ".join(tried)))
        made[j] = again  # a finish may take minutes
    return passes.ByRatio(task, copy_at, of_one_shape=family is not None)


def _by_batch_or_ratio(task: Task, order: Tensor, options: Options) -> Rows:
    done, places = 0, range(len(task.grid))
    if _needs_copies(task, options):
        yield from _by_ratio(task, order, options)(places)
        return
    try:
        for part in passes.by_batch(task, order):
            yield part
            done += len(part[0])
    except shared.CannotShare as problem:  # noticed before any row of this batch was given
        if done and not task.source.in_memory:
            raise ValueError(WRITES.format(name=problem)) from None
        for whole in _by_ratio(_fresh(task), order, options)(places):
            yield [table[done:] for table in whole]


def _by_workers(
    executor: Executor,
    model: nn.Module,
    data: Any,
    grid: NDArray[np.float64],
    losses: Mapping[str, Loss],
    options: Options,
) -> Rows:
    """The rows of each piece of the data, evaluated on the executor."""
    if not isinstance(executor, Executor):
        raise TypeError(f"executor must be a concurrent.futures.Executor, got {executor!r}")
    if any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
        raise ValueError(AUTOCAST)
    seen, data = (data, data.data) if isinstance(data, Fingerprinted) else (None, data)
    fitting = passes.batch_size(model, data, options, torch.device("cpu"))
    pieces, size = batches.cut(data, fitting, executors.PIECES, options.target)
    if seen is not None and seen.sha256 is None:
        for _ in batches.Source(seen, size, options.target).once():
            pass
    same = options._replace(batch_size=size, progress=False)
    jobs = [(executors.Parcel(model, piece, grid, dict(losses), same),) for piece in pieces]
    done = executors.in_turn(executor, _work, jobs)
    return tqdm(done, total=len(jobs), unit="piece", delay=2, leave=False, disable=not options.progress)


def _work(parcel: executors.Parcel) -> Arrays:
    """What a worker does with its piece of the data."""
    model, data, grid, losses, options = parcel.arguments
    return list(joined(rows(model, data, grid, losses, options), losses).values())
