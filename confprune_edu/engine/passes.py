"""The two ways to fill a loss table: batch by batch, all ratios on each, or ratio by ratio, all batches on each."""

import functools
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from confprune_edu import _checks, pruning
from confprune_edu.engine import batches, first_layer, kernels, nested, proof, shared
from confprune_edu.losses import Loss, loss_range

Arrays = list[NDArray[Any]]  # one a loss: columns (n,), or rows of the table, (some, m)


class Options(NamedTuple):
    """The options of `evaluation.loss_table`, by its names."""

    scores: Mapping[str, Tensor] | None
    finish: pruning.Finish | None
    batch_size: int | None
    device: torch.device | str | None
    progress: bool
    weights: pruning.Weights | None = None
    call: proof.Call | None = None
    target: batches.Target | None = None


class Task(NamedTuple):
    """What is to be evaluated: checked arguments, and a copy of the full network in eval mode on its device."""

    full: nn.Module
    grid: NDArray[np.float64]
    losses: Mapping[str, Loss]
    read: batches.Pass
    generators: list[torch.Generator]
    device: torch.device
    progress: bool
    weights: list[str]
    call: proof.Call
    proof: proof.Proof
    whole: bool  # `target` finds the targets, so that a whole batch is the inputs

    def run(self, network: nn.Module, inputs: Any) -> Any:
        """The output of a network."""
        torch.clear_autocast_cache()  # which keeps weights as they were, in some versions of torch
        return self.proof.guarded(functools.partial(self.call, network), inputs)

    def bar(self, total: int | None) -> Any:
        """A progress bar that shows after two seconds."""
        return tqdm(total=total, unit="ratio", delay=2, leave=False, disable=not self.progress)

    def inputs(self, batch: batches.Batch) -> Any:
        """The inputs of a batch, on the device and in the memory format of the network."""
        return kernels.in_format_of(self.full, nested.moved(batch.inputs, self.device))


class Answer(NamedTuple):
    """What the losses of a batch compare with, the full network's output and targets; its length, and its digest."""

    output: Any
    targets: Any
    examples: int | None
    digest: str | None


def prepare(
    model: nn.Module, data: Any, grid: NDArray[np.float64], losses: Mapping[str, Loss], options: Options
) -> Task:
    """Check losses and data, and copy the model."""
    for loss in losses.values():
        if not callable(loss):
            raise TypeError(f"loss must be a function loss(pruned, full, target), got {loss!r}")
    kernels.keep_freed_memory()
    call = options.call or operator.call
    for name, function in (("call", call), ("target", options.target or call)):
        if not callable(function):
            raise TypeError(f"{name} must be a function, got {function!r}")
    read, generators = batches.reader(data, options.batch_size, batches.elements(model), options.target)
    weights = list(pruning.prunable(model, options.weights))
    device = next(model.parameters()).device if options.device is None else torch.device(options.device)
    full = pruning.twin(model).to(device).eval()
    kernels.use_fast_products(full)
    shown = proof.Proof(model, full, weights, call)
    return Task(
        full, grid, losses, read, generators, device, options.progress, weights, call, shown, options.target is not None
    )


def by_batch(task: Task, rank: Tensor) -> Iterator[Arrays]:
    """The rows of each batch in turn. The networks of all ratios share one set of weights.

    Raises
    ------
    shared.CannotShare
        On the first batch: these networks cannot share their weights.
    """
    family = None
    with task.bar(None) as bar, pruning.same_random_state(*task.generators), torch.inference_mode(), proof.eager():
        for batch in task.read():
            watch = family is None
            if family is None:
                _choose_format(task, batch)
                # before `call`, whose hooks it must not copy
                family = shared.Family(task.full, task.grid, rank, task.weights)
                call = first_layer.FirstCall(task.full, task.weights, task.run)
            yield _rows(task, family, call, batch, watch, bar)
    task.proof.close()


def _rows(
    task: Task, family: shared.Family, call: first_layer.FirstCall, batch: batches.Batch, watch: bool, bar: Any
) -> Arrays:
    """Losses (batch, m) of all networks on one batch; `watch` also checks what they do to inputs and shared weights."""
    inputs, state = task.inputs(batch), pruning.random_state()
    given = nested.copied(inputs)
    answer = _answer(task, call.of, given, batch)
    family.see(call)
    fresh = not nested.untouched(given, inputs)  # the network writes into its inputs: each ratio needs a copy
    if watch:
        with pruning.same_random_state():
            family.try_columns(task.run, nested.copied(inputs))
    columns = []
    for j, ratio in enumerate(task.grid):
        if j == 0 and family.starts_full:  # the full network has answered, and drawn what it draws
            output = nested.copied(answer.output)
        else:
            pruning.set_random_state(state)  # the full network and each pruned one draw the same numbers
            given = nested.copied(inputs) if fresh else given
            network = family.at(j)
            # the first that could see values which another one keeps; the full network is one, too
            second = j == min(family.starts_full + 1, len(task.grid) - 1)
            output = _shown_to_share(task, family, network, given, second) if watch else task.run(network, given)
            output = nested.row_major(output)
        if watch and j == 0:
            _warn_of_second_input(task, inputs, output, answer)
        columns.append(_losses(task, output, answer, ratio))
        bar.update()
    return [np.column_stack(table) for table in zip(*columns, strict=True)]


def _shown_to_share(task: Task, family: shared.Family, network: nn.Module, inputs: Any, second: bool) -> Any:
    """The network's output; CannotShare if it writes to its weights or, where `second`, does not read all of them."""
    updated = None if family.first is None else family.first.weight
    wanted = [name for name in task.proof.named("read") if network.get_parameter(name) is not updated]
    run = functools.partial(task.run, network)
    with family.refuse_writes():
        output, unread = proof.unread(network, wanted, run, inputs, family.first) if second else (run(inputs), [])
    if unread:
        raise shared.CannotShare
    return output


def by_ratio(task: Task, copies: Iterator[nn.Module]) -> Iterator[Arrays]:
    """The column of each of `copies` in turn, evaluated when it is asked for."""
    answers: list[Answer] = []
    full = functools.partial(task.run, task.full)
    with pruning.same_random_state(*task.generators), torch.inference_mode(), proof.eager():
        for batch in task.read():
            if not answers:
                _choose_format(task, batch)
            answers.append(_answer(task, full, nested.copied(task.inputs(batch)), batch))
    if not answers:
        raise ValueError("data must hold at least one calibration example")
    task.proof.close()
    with task.bar(len(task.grid)) as bar:
        for ratio, pruned in zip(task.grid, copies, strict=True):
            columns = _columns(task, pruned, ratio, answers)
            bar.update()
            yield columns


def _columns(task: Task, pruned: nn.Module, ratio: float, answers: list[Answer]) -> Arrays:
    """Losses (n,) of one network on all batches."""
    pruned.to(task.device).to(memory_format=kernels.memory_format(task.full)).eval()
    kernels.use_fast_products(pruned)
    parts: list[Arrays] = []
    with pruning.same_random_state(*task.generators), torch.inference_mode(), proof.eager():
        for batch, answer in zip_longest(task.read(), answers):
            if batch is None or answer is None or batch.digest != answer.digest:
                raise ValueError(
                    "data gave other examples on its second pass: a loader must repeat them in the same order"
                )
            inputs, run = nested.copied(task.inputs(batch)), functools.partial(task.run, pruned)
            output, unread = (run(inputs), []) if parts else proof.unread(pruned, task.proof.named("read"), run, inputs)
            if unread:
                raise ValueError(proof.STALE.format(name=unread[0]))
            output = nested.row_major(output)
            if not parts and ratio == task.grid[0]:
                _warn_of_second_input(task, task.inputs(batch), output, answer)
            parts.append(_losses(task, output, answer, ratio))
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _choose_format(task: Task, batch: batches.Batch) -> None:
    with pruning.same_random_state():
        kernels.choose_format(task.full, nested.moved(batch.inputs, task.device), task.run)


def _answer(task: Task, full: Callable[[Any], Any], inputs: Any, batch: batches.Batch) -> Answer:
    """The full network's answer; if torch refuses the inputs, the error also says what they were."""
    examples = nested.examples(inputs)
    try:
        output = nested.row_major(task.proof.watched(full, inputs))
    except RuntimeError as problem:
        seen = ", ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in nested.tensors(inputs))
        dtype = next(task.full.parameters()).dtype
        problem.add_note(f"data: a batch of inputs is {seen}; the model's weights are {dtype}")
        raise
    targets = nested.moved(batch.targets, task.device)
    if examples is None and isinstance(targets, Tensor):
        examples = nested.examples(targets)
    return Answer(output, targets, examples, batch.digest)


def _warn_of_second_input(task: Task, inputs: Any, output: Any, answer: Answer) -> None:
    """Warn if no loss looks at targets that have the form of inputs: they may be a second input."""
    targets = answer.targets
    if task.whole or not isinstance(inputs, Tensor) or not isinstance(targets, Tensor) or targets.ndim < 2:
        return
    if targets.dtype != inputs.dtype and targets.shape != inputs.shape:
        return
    try:
        with pruning.same_random_state():
            given = _losses(task, nested.copied(output), answer, task.grid[0])
            without = _losses(task, nested.copied(output), answer._replace(targets=None), task.grid[0])
    except Exception:  # whatever a loss that needs targets says without them
        return
    if all(map(np.array_equal, given, without)):
        warnings.warn(
            f"data: the second part, {targets.dtype} {tuple(targets.shape)}, counts as targets, which the loss ignores;"
            " a second input is given by call=lambda model, batch: model(*batch), target=lambda batch: None",
            stacklevel=2,
        )


def _losses(task: Task, output: Any, answer: Answer, ratio: float) -> Arrays:
    """Checked losses (batch,) of one network's output on one batch, in the order of `task.losses`."""
    found = []
    for k, (name, loss) in enumerate(task.losses.items()):
        mine = output if k == len(task.losses) - 1 else nested.copied(output)  # a loss may write into what it is given
        value = loss(mine, nested.copied(answer.output), nested.copied(answer.targets))
        if value is None:
            raise TypeError(f"loss must give one value an example, but {name} gives None: does it lack a `return`?")
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as problem:
            raise TypeError(
                f"loss must give a tensor or an array, but {name} gives {type(value).__name__}"
            ) from problem
        if value.is_complex() or value.layout != torch.strided:
            raise TypeError(f"loss must give dense real numbers, {name} gives {value.dtype}, {value.layout}")
        if value.ndim != 1 or answer.examples not in (None, len(value)):
            raise ValueError(
                f"loss must give one value an example, shape ({answer.examples or 'batch'},), "
                f"got {tuple(value.shape)}: average over positions, not over the batch"
            )
        column = (value.double() if value.is_floating_point() else value).cpu().numpy()
        if column.dtype != bool:
            column = _checks.losses(column.astype(np.float64), *loss_range(loss), name=f"{name} at ratio {ratio:g}")
        found.append(column)
    return found
