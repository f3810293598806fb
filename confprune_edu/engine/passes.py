"""The two ways to evaluate ratios: with one set of weights, on each batch one after the other, or on a copy each."""

import contextlib
import functools
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from confprune_edu import _checks, pruning
from confprune_edu.engine import batches, first_layer, kernels, nested, proof, shared
from confprune_edu.losses import Loss, loss_range

NO_EXAMPLE = "data must hold at least one calibration example"

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
    family: pruning.Family | None = None

    def block(self, asked: int | None) -> int | None:
        """How many ratios are evaluated together: one, where the user's own function makes each network."""
        if asked is not None:
            _checks.positive_int(asked, "block")
        return asked if self.finish is None and self.family is None else 1


class Task(NamedTuple):
    """What is to be evaluated: checked arguments, and a copy of the full network in eval mode on its device."""

    model: nn.Module  # the caller's
    full: nn.Module
    grid: NDArray[np.float64]
    losses: Mapping[str, Loss]
    source: batches.Source
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

    def inputs(self, batch: batches.Batch) -> Any:
        """The inputs of a batch, on the device and in the memory format of the network."""
        return kernels.in_format_of(self.full, nested.moved(batch.inputs, self.device))

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """How networks are run; afterwards the random states are what they were."""
        with pruning.same_random_state(*self.source.generators), torch.inference_mode(), proof.eager():
            yield


class Answer(NamedTuple):
    """What the losses of a batch compare with, the full network's output and targets; and its length."""

    output: Any
    targets: Any
    examples: int | None


class Seen(NamedTuple):
    """A batch that the full network has answered, and what the pruned ones are then given."""

    answer: Answer
    state: tuple[Any, ...]  # of the random generators: the full network and each pruned one draw the same numbers
    given: Any  # a copy of the inputs; None if the network writes into it: each ratio needs a new one
    first: first_layer.Reached | None


def bar(total: int | None, progress: bool) -> Any:
    """A progress bar that shows after two seconds."""
    return tqdm(total=total, unit="ratio", delay=2, leave=False, disable=not progress)


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
    weights = [] if options.family is not None else list(pruning.prunable(model, options.weights))
    device = device_of(model, options.device)
    source = batches.Source(data, batch_size(model, data, options, device), options.target)
    full, shown = full_copy(model, device, weights, call)
    whole = options.target is not None
    return Task(model, full, grid, losses, source, device, options.progress, weights, call, shown, whole)


def device_of(model: nn.Module, asked: Any) -> torch.device:
    """Where to run: as asked, or where the model is."""
    try:
        return next(model.parameters()).device if asked is None else torch.device(asked)
    except (RuntimeError, TypeError) as problem:
        raise ValueError(f"device must be a torch.device or its name, got {asked!r}: {problem!s:.99}") from None


def batch_size(model: nn.Module, data: Any, options: Options, device: torch.device) -> int | None:
    """How many examples are evaluated together: what was asked for, or what a copy of the model shows; None: any."""
    if options.batch_size is not None:
        return options.batch_size
    trial, call = pruning.twin(model).to(device).eval(), options.call or operator.call
    with pruning.same_random_state(), torch.inference_mode(), proof.eager():
        try:
            return batches.fitting(lambda inputs: call(trial, nested.moved(inputs, device)), data, options.target)
        except Exception:  # whatever is wrong, the first batch will tell
            return None


@torch.inference_mode(False)  # else no network could ask for gradients
def full_copy(
    model: nn.Module, device: torch.device, weights: list[str], call: proof.Call
) -> tuple[nn.Module, proof.Proof]:
    """A copy of the full network in eval mode on its device, and the proof that it computes with its own weights."""
    full = pruning.twin(model).to(device).eval()
    kernels.use_fast_products(full)
    return full, proof.Proof(model, full, weights, call)


def by_batch(task: Task, order: Tensor) -> Iterator[Arrays]:
    """The rows of each batch in turn, of all ratios; `CannotShare` before those of a batch that shows it."""
    together, places = Together(task, order), range(len(task.grid))
    with bar(None, task.progress) as shown, task.evaluating():
        for k, batch in enumerate(task.source.once()):
            yield together.rows(batch, together.see(batch), places, watch=k == 0, bar=shown)
    task.proof.close()


class ByBlock:
    """Columns of some ratios at a time, in the order of the grid. The networks share one set of weights.

    What the next ratios need of a batch is kept if there is room: else the first layer is multiplied for each.
    """

    def __init__(self, task: Task, order: Tensor) -> None:
        self.task, self.together, self.seen = task, Together(task, order), list[Seen]()

    def __call__(self, places: Sequence[int]) -> list[Arrays]:
        """The rows (batch, places) of each batch; CannotShare if these networks cannot share their weights."""
        task, first, parts = self.task, not self.seen, []
        with task.evaluating():
            for k, batch in enumerate(task.source.again()):
                if first:
                    self.seen.append(self._kept(self.together.see(batch)))
                if k == 0:
                    self.together.family.forget()
                parts.append(self.together.rows(batch, self.seen[k], places, watch=k == 0))
        if first:
            task.proof.close()
        return parts

    def _kept(self, seen: Seen) -> Seen:
        """The same, as far as there is room; a random state that is that of the batch before is no new one."""
        if self.seen and _same_state(seen.state, self.seen[-1].state):
            seen = seen._replace(state=self.seen[-1].state)
        if not self.task.source.in_memory:
            seen = seen._replace(answer=seen.answer._replace(targets=nested.copied(seen.answer.targets)))
        first = () if seen.first is None else (seen.first.inputs, seen.first.outputs)
        return seen if self.task.source.room.takes(seen.given, *first) else seen._replace(given=None, first=None)


class Together:
    """The networks of all ratios, which share one set of weights. What they do to it is watched.

    Raises
    ------
    shared.CannotShare
        A network writes to what is shared, or does not read it.
    """

    def __init__(self, task: Task, order: Tensor) -> None:
        self.task, self.order = task, order
        self.family: Any = None  # made on the first batch
        self.given: tuple[Tensor, int] | None = None  # the last inputs that networks share, and how often written to
        self.watched = 0  # pruned networks so far, of those that are watched
        self.warns = True

    def see(self, batch: batches.Batch) -> Seen:
        """The full network's answer."""
        task, first = self.task, self.family is None
        if first:
            _choose_format(task, batch)
            # before `call`, whose hooks it must not copy
            self.family = shared.Family(task.model, task.grid, self.order, task.weights, task.full)
            self.call = first_layer.FirstCall(task.full, task.weights, task.run)
        self.family.restore()
        inputs, state = task.inputs(batch), pruning.random_state()
        with torch.inference_mode(False), torch.no_grad():  # in that mode torch would not count the writes
            given = nested.copied(inputs)
        with self.family.refuse_writes(closely=False):
            answer = _answer(task, self.call.of, given, batch)
        self.family.refuse_others()
        self._refuse_writes_to_inputs()
        self.family.see(self.call)
        if first:
            self._refuse_writes()
            with pruning.same_random_state():
                self.family.try_columns(task.run, nested.copied(inputs))
        reached = None if self.family.first is None else self.family.first.on
        kept = given if nested.untouched(given, inputs) else None
        self.given = None if kept is None else (kept, kept._version)
        return Seen(answer, state, kept, reached)

    def rows(self, batch: batches.Batch, seen: Seen, places: Sequence[int], *, watch: bool, bar: Any = None) -> Arrays:
        """Losses (batch, places) of the networks of some ratios, in the order of the grid."""
        task, family, columns = self.task, self.family, []
        if family.first is not None:
            family.first.on = seen.first
        inputs = task.inputs(batch) if self.warns or seen.given is None else None
        for j in places:
            if j == 0 and family.starts_full:  # the full network has answered, and drawn what it draws
                output = seen.answer.output
            else:
                pruning.set_random_state(seen.state)
                given = nested.copied(inputs) if seen.given is None else seen.given
                output = nested.row_major(self._watched(j, given) if watch else self._run(j, given))
            if self.warns:
                _warn_of_second_input(task, inputs, output, seen.answer)
                self.warns = False
            columns.append(_losses(task, output, seen.answer, task.grid[j]))
            if bar is not None:
                bar.update()
        self._refuse_writes()
        return [np.column_stack(table) for table in zip(*columns, strict=True)]

    def _run(self, j: int, inputs: Any) -> Any:
        network = self.family.at(j)
        with self.family.refuse_writes(closely=False):
            return self.task.run(network, inputs)

    def _watched(self, j: int, inputs: Any) -> Any:
        """The output of network j, which does not write to its weights, and reads all of them."""
        task, network, first = self.task, self.family.at(j), self.family.first
        updated = None if first is None else first.weight
        wanted = [name for name in task.proof.named("read") if network.get_parameter(name) is not updated]
        run, shown = (
            functools.partial(task.run, network),
            self.watched >= 2,
        )  # the second could see what the first keeps
        with self.family.refuse_writes():
            derived = None if first is None else first.on
            output, unread = (run(inputs), []) if shown else proof.unread(network, wanted, run, inputs, derived)
        if unread:
            raise shared.CannotShare
        if not shown:
            self._refuse_writes()
        self.watched += 1
        return output

    def _refuse_writes(self) -> None:
        if name := self.family.changed():
            raise shared.CannotShare(name)
        self._refuse_writes_to_inputs()

    def _refuse_writes_to_inputs(self) -> None:
        if self.given is not None and self.given[0]._version != self.given[1]:
            raise shared.CannotShare("inputs that it has kept")


class ByRatio:
    """Columns of some ratios at a time, each on a copy of its own, one after the other."""

    def __init__(self, task: Task, copy_at: Callable[[int], nn.Module], of_one_shape: bool) -> None:
        self.task, self.copy_at, self.answers = task, copy_at, list[Answer]()
        self.of_one_shape = of_one_shape  # are outputs of another form than the full network's refused?
        self.warns = True

    def __call__(self, places: Sequence[int]) -> list[Arrays]:
        """The columns (n, places), as one part."""
        if not self.answers:
            self._answer_all()
        columns = [self._column(self.copy_at(j), self.task.grid[j]) for j in places]
        return [[np.column_stack(table) for table in zip(*columns, strict=True)]]

    def _answer_all(self) -> None:
        task = self.task
        full = functools.partial(task.run, task.full)
        with task.evaluating():
            for batch in task.source.again():
                if not self.answers:
                    _choose_format(task, batch)
                answer = _answer(task, full, nested.copied(task.inputs(batch)), batch)
                self.answers.append(answer._replace(targets=nested.copied(answer.targets)))
        if not self.answers:
            raise ValueError(NO_EXAMPLE)
        task.proof.close()

    def _column(self, pruned: nn.Module, ratio: float) -> Arrays:
        """Losses (n,) of one network on all batches."""
        task, parts = self.task, list[Arrays]()
        pruned.to(task.device).to(memory_format=kernels.memory_format(task.full)).eval()
        kernels.use_fast_products(pruned)
        with task.evaluating():
            for batch, answer in zip(task.source.again(), self.answers, strict=True):
                inputs, run = nested.copied(task.inputs(batch)), functools.partial(task.run, pruned)
                wanted = [] if parts else task.proof.named("read")
                output, unread = proof.unread(pruned, wanted, run, inputs) if wanted else (run(inputs), [])
                if unread:
                    raise ValueError(proof.STALE.format(name=unread[0]))
                if self.of_one_shape:
                    _refuse_another_shape(output, answer.output, ratio)
                output = nested.row_major(output)
                if self.warns:
                    _warn_of_second_input(task, task.inputs(batch), output, answer)
                    self.warns = False
                parts.append(_losses(task, output, answer, ratio))
        kernels.use_usual_products(pruned)
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _refuse_another_shape(output: Any, full: Any, ratio: float) -> None:
    form, wanted = (tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in (output, full))
    if form != wanted:
        raise ValueError(
            f"family must give networks whose outputs have the form of the model's, {wanted}; at ratio {ratio:g} it is "
            f"{form}: call= may say what of an output counts"
        )


def _same_state(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Are two states of the random generators the same?"""
    same = torch.equal(one[0], other[0]) and one[3] == other[3]
    return same and all(map(np.array_equal, one[2], other[2])) and all(map(torch.equal, one[1], other[1]))


def _choose_format(task: Task, batch: batches.Batch) -> None:
    with pruning.same_random_state():
        kernels.choose_format(task.full, nested.moved(batch.inputs, task.device), task.run)


def _answer(task: Task, full: Callable[[Any], Any], inputs: Any, batch: batches.Batch) -> Answer:
    """The full network's answer; if torch refuses the inputs, the error also says what they were."""
    examples = nested.examples(inputs)
    try:
        # a copy: the network may write later to where it lies, in the memory of inputs or weights say
        output = nested.copied(nested.row_major(task.proof.watched(full, inputs)))
    except RuntimeError as problem:
        seen = ", ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in nested.tensors(inputs))
        dtype = next(task.full.parameters()).dtype
        problem.add_note(f"data: a batch of inputs is {seen}; the model's weights are {dtype}")
        raise
    targets = nested.moved(batch.targets, task.device)
    if examples is None and isinstance(targets, Tensor):
        examples = nested.examples(targets)
    return Answer(output, targets, examples)


def _warn_of_second_input(task: Task, inputs: Any, output: Any, answer: Answer) -> None:
    """Warn if no loss looks at targets that have the form of inputs: they may be a second input."""
    targets = answer.targets
    if task.whole or not isinstance(inputs, Tensor) or not isinstance(targets, Tensor) or targets.ndim < 2:
        return
    if targets.dtype != inputs.dtype and targets.shape != inputs.shape:
        return
    try:
        with pruning.same_random_state():
            given = _losses(task, output, answer, task.grid[0])
            without = _losses(task, output, answer._replace(targets=None), task.grid[0])
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
    for name, loss in task.losses.items():
        # a loss may write into what it is given, and an output may lie in the memory of inputs or weights
        value = loss(*map(nested.copied, (output, answer.output, answer.targets)))
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
