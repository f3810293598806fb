"""TODO"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from tqdm.auto import tqdm

from confprune_edu import _checks, pruning
from confprune_edu.engine import first_layer, kernels, shared
from confprune_edu.engine.batches import BATCH_ELEMENTS, CONVOLUTION_ELEMENTS, Batches, _batches
from confprune_edu.losses import Loss, loss_range


class Task(NamedTuple):
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
) -> Task:
    for loss in losses.values():
        if not callable(loss):
            raise TypeError(f"loss must be a function loss(pruned, full, target), got {loss!r}")
    kernels.keep_freed_memory()
    elements = CONVOLUTION_ELEMENTS if kernels.convolves(model) else BATCH_ELEMENTS
    batches, generators = _batches(data, batch_size, elements)
    where = torch.device(device) if device is not None else next(model.parameters()).device
    full = pruning.twin(model).to(where).eval()
    kernels.quicken(full)
    return Task(full, grid, losses, batches, generators, where, progress)


Part = list[NDArray[Any]]  # tables of some examples, (some, m), one a loss


def by_batch(task: Task, rank: Tensor) -> Iterator[Part]:
    """Tables (batch, m), one a loss, for each batch: every ratio sees it before the next one is read."""
    family = None
    with task.bar(None) as bar, pruning.same_random_state(*task.generators), torch.inference_mode():
        for x, y, _ in task.batches():
            first = family is None
            if family is None:
                call, family = _begin(task, rank, x)
            inputs, targets = kernels.laid_out(_to(x, task.device), task.full), _to(y, task.device)
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


def _begin(task: Task, rank: Tensor, x: Any) -> tuple[first_layer.FirstCall, shared.Family]:
    with pruning.same_random_state():
        kernels.lay_out(task.full, _to(x, task.device))
    family = shared.Family(task.full, task.grid, rank)  # before there are hooks that its networks would inherit
    return first_layer.FirstCall(task.full), family


def by_ratio(task: Task, copies: Iterator[nn.Module]) -> Iterator[list[NDArray[Any]]]:
    known: list[tuple[tuple[Any, Any], Any]] = []
    with pruning.same_random_state(*task.generators), torch.inference_mode():
        for x, y, mark in task.batches():
            if not known:
                with pruning.same_random_state():
                    kernels.lay_out(task.full, _to(x, task.device))
            inputs = kernels.laid_out(_to(x, task.device), task.full)
            known.append(((_by_rows(_told(task.full, _own(inputs), task.full)), _to(y, task.device)), mark))
    if not known:
        raise ValueError("data must hold at least one calibration example")
    with task.bar(len(task.grid)) as bar:
        for ratio, candidate in zip(task.grid, copies, strict=True):
            candidate.to(task.device).to(memory_format=kernels.memory_format(task.full)).eval()
            kernels.quicken(candidate)
            with pruning.same_random_state(*task.generators), torch.inference_mode():
                parts = []
                for batch, pair in zip_longest(task.batches(), known):
                    if batch is None or pair is None or batch[2] != pair[1]:
                        raise ValueError(
                            "data gave other examples on its second pass: a loader must repeat them in the same order"
                        )
                    inputs = kernels.laid_out(_to(batch[0], task.device), task.full)
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


def _values(task: Task, output: Any, size: int | None, known: tuple[Any, Any], ratio: float) -> list[NDArray[Any]]:
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
