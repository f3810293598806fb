"""The pruned networks of a grid, which share one set of weights: a step to the next ratio sets a few more to zero."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from confprune_edu import pruning
from confprune_edu.engine import nested, proof
from confprune_edu.engine.first_layer import FirstCall, FirstLayer, updated
from confprune_edu.engine.kernels import pass_columns_on, set_forward

LARGE, MANY = 2**16, 1000  # bytes of a tensor and entries of a container that are shared, not copied, until written to

CHUNK = 2**18  # positions that are widened together

PLAIN = (str, bytes, int, float, bool, type(None))  # what nobody can write into


class CannotShare(Exception):
    """A network changes its weights when it is called, or keeps old values of them elsewhere."""


class Family:
    """Networks in eval mode, one for each ratio of a grid, that share one set of weights.

    `at(j)` gives the network of ratio j; its weights are right until the next call of `at` or `restore`. Each network
    has buffers and attributes of its own, so that none sees what another one remembers. What is large and is not
    pruned, they share with `full`; that nobody writes to it, `changed` tells. They share the pruned weights with it,
    too: it is right after `restore`.

    Parameters
    ----------
    model : torch.nn.Module
        Only read: its weights are what is restored.
    order : Tensor
        As `pruning.global_order` gives it. What goes at one ratio is sorted by position here, in place.
    full : torch.nn.Module, optional
        A copy of `model`, which nobody else uses.
    """

    @torch.inference_mode(False)  # copies made in that mode could not be asked for gradients
    def __init__(
        self,
        model: nn.Module,
        grid: NDArray[np.float64],
        order: Tensor,
        weights: pruning.Weights | None = None,
        full: nn.Module | None = None,
    ) -> None:
        full, names = pruning.twin(model) if full is None else full, list(pruning.prunable(model, weights))
        self.weights = [full.get_parameter(name) for name in names]
        self.dense = [
            model.get_parameter(name).detach().to(w.device) for name, w in zip(names, self.weights, strict=True)
        ]
        pruned = {memory for weight in self.weights for memory in proof.memories(weight)}
        self.common = _common(full, model, pruned)
        own = [weight for weight in full.parameters() if not pruned.isdisjoint(proof.memories(weight))]
        self.parts = own + [part for _, part, _ in self.common]
        self.template = pruning.twin(full, self.parts)  # of all networks; never called
        self.starts = np.cumsum([0, *(weight.numel() for weight in self.weights[:-1])])
        self.axes = [sorted(range(weight.ndim), key=weight.stride, reverse=True) for weight in self.weights]
        if not all(w.permute(axes).is_contiguous() for w, axes in zip(self.weights, self.axes, strict=True)):
            raise CannotShare("weights with gaps in memory")
        self.steps = _steps(order, grid, self.starts, self.weights)
        self.starts_full = not any(map(len, self.steps[0]))  # nothing is pruned at the first ratio
        self.networks: dict[int, nn.Module] = {}
        self.reached = -1  # the place in the grid at which the weights are
        self.first: FirstLayer | None = None  # outputs of the first linear layer, where they are updated
        self.begins = ""  # the name of that layer

    def changed(self) -> str:
        """The name of a part that is not pruned and that a network has written to; empty if there is none."""
        return next((name for name, part, before in self.common if not _equal(part, before)), "")

    def refuse_others(self) -> None:
        """Raise `CannotShare` if the weights are not those of the full network."""
        if not all(map(_equal, self.weights, self.dense)):
            raise CannotShare("weights that are pruned")

    @contextlib.contextmanager
    def refuse_writes(self, closely: bool = True) -> Iterator[None]:
        """Raise `CannotShare` if the block changes the pruned weights, which the networks share.

        So it does if a write is undone, as `FirstLayer` would not see it. Only to look closely shows writes to `.data`.
        """
        before = [(weight.data_ptr(), weight._version) for weight in self.weights]
        # a copy of the weights would take four times the memory
        gone = [_bits(weight) == 0 for weight in self.weights if closely]
        yield
        if before != [(weight.data_ptr(), weight._version) for weight in self.weights]:
            raise CannotShare("weights that are pruned")
        if not closely:
            return
        for bits, dense, zero in zip(map(_bits, self.weights), map(_bits, self.dense), gone, strict=True):
            if not (((bits == dense) | zero).all() and ((bits == 0) == zero).all()):
                raise CannotShare

    def see(self, call: "FirstCall") -> None:
        """Prepare for the batch on which `call` has just run the full network."""
        if self.first is None and call.reached is not None:
            self._update_from(call.name)
        if self.first is not None:
            self.first.on = call.reached if call.name == self.begins else None

    def try_columns(self, call: Callable[[nn.Module, Any], Any], inputs: Any) -> None:
        """Let the linear layers give their outputs column by column in memory, if the networks can work with that.

        The first layer's outputs are updated as columns, and to transpose them takes longer than to update them. But a
        network that calls `view`, say, needs rows: it fails on `inputs`, or has another answer, and gets rows.
        """
        if self.first is None:
            return
        self._move_to(0)
        usual, probe = self._copy(), self._copy()
        state, given = pruning.random_state(), nested.copied(inputs)
        with self.refuse_writes():
            answer = call(usual, inputs)
            self.first.gives_columns = True
            pass_columns_on(probe)
            pruning.set_random_state(state)
            try:
                same = nested.close(call(probe, given), answer)
            except Exception:  # the columns are to blame: with rows the same call has just succeeded
                same = False
        if same:
            pass_columns_on(self.template)
        self.first.gives_columns = same

    def _update_from(self, name: str) -> None:
        """Update the outputs of the linear layer `name`, the first one that is called, from ratio to ratio."""
        layer: Any = self.template.get_submodule(name)
        k = next((k for k, weight in enumerate(self.weights) if weight is layer.weight), None)
        if k is None or not layer.weight.is_contiguous():  # a weight that is computed from another one has no k
            return
        steps = [step[k] for step in self.steps]
        self.begins, self.first = name, FirstLayer(layer, self.dense[k], steps, int(self.starts[k]))
        layer.__dict__["first"] = self.first
        set_forward(layer, updated)

    @torch.inference_mode(False)
    def _copy(self) -> nn.Module:
        """A network that shares what is shared."""
        network = copy.deepcopy(self.template, pruning.sharing([*self.template.parameters(), *self.parts]))
        if not {id(own) for own in network.parameters()}.issuperset(map(id, self.weights)):
            raise CannotShare("its weights, as its __deepcopy__ has it")
        return network

    def forget(self) -> None:
        """From now on none of the ratios asked for so far is asked for."""
        self.networks.clear()

    @torch.no_grad()
    def restore(self) -> None:
        """Make the weights those of the full network."""
        for weight, dense in zip(self.weights, self.dense, strict=True):
            weight.copy_(dense)
        self.reached = -1

    def at(self, j: int) -> nn.Module:
        """The network of ratio j; fastest if ratios are asked for in their order."""
        self._move_to(j)
        if self.first is not None:
            self.first.move_to(j)
        if j not in self.networks:
            self.networks[j] = self._copy()
        return self.networks[j]

    @torch.no_grad()
    def _move_to(self, j: int) -> None:
        """Make the weights those of ratio j."""
        for i in (*range(self.reached, j, -1), *range(self.reached + 1, j + 1)):
            for weight, dense, axes, start, step in zip(
                self.weights, self.dense, self.axes, self.starts, self.steps[i], strict=True
            ):
                memory = weight.permute(axes).view(-1)
                before = dense.permute(axes).flatten() if i > j else None
                for gone in step.split(CHUNK):
                    at = (gone - start).long().to(weight.device)
                    if before is not None:
                        memory.index_copy_(0, at, before[at])
                    else:
                        memory.index_fill_(0, at, 0)
        self.reached = j


def _common(full: nn.Module, model: nn.Module, pruned: set[Any]) -> list[tuple[str, Any, Any]]:
    """What the networks of a family may share besides the `pruned` memory: its place, in `full` and in `model`.

    All parameters, and what is large: buffers, other tensors, containers of nothing but texts and numbers.
    """
    before = dict(_parts(model))
    found = []
    for name, part in _parts(full):
        parameter = isinstance(part, nn.Parameter)
        own = not isinstance(part, Tensor) or pruned.isdisjoint(proof.memories(part))
        if own and (parameter or _large(part)) and name in before and _equal(part, before[name]):
            found.append((name, part, before[name]))
    return found


def _parts(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Dense tensors, and containers of nothing but texts and numbers, by their place in the model."""
    waiting: list[tuple[str, Any]] = [("model", model)]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if not nn.parameter.is_lazy(value) and pruning.plain(value):
                yield name, value
        elif type(value) in (dict, list, set, tuple):
            entries = [*value, *value.values()] if isinstance(value, dict) else value
            if all(type(entry) in PLAIN for entry in entries):
                yield name, value
            elif type(value) is not set:
                keys = value if isinstance(value, dict) else range(len(value))
                waiting += [(f"{name}[{key!r}]", value[key]) for key in keys]
        elif hasattr(value, "__dict__") and not isinstance(value, (type, FunctionType, ModuleType)):
            waiting += [(f"{name}.{key}", part) for key, part in vars(value).items()]


def _large(part: Any) -> bool:
    return part.nbytes >= LARGE if isinstance(part, Tensor) else len(part) >= MANY


def _equal(part: Any, before: Any) -> bool:
    """Are they the same, bit by bit?"""
    if isinstance(part, Tensor):
        return pruning.same(part, before.to(part.device))
    return part is before or part == before


def _bits(weight: Tensor) -> Any:
    """Its numbers as integers, on the processor in NumPy's hands, which compares them much faster than torch."""
    weight = weight.detach().resolve_conj().resolve_neg()
    real = torch.view_as_real(weight) if weight.is_complex() else weight
    bits = real.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[real.element_size()])
    return bits.numpy() if bits.device.type == "cpu" else bits


def _steps(
    order: Tensor, grid: NDArray[np.float64], starts: NDArray[np.int64], weights: list[Any]
) -> list[list[Tensor]]:
    """For each ratio the places, in each weight, that are pruned there and not at the ratio before, sorted in place.

    They are parts of `order`, and take no memory of their own where a weight lies row by row in memory.
    """
    positions, steps, before = order.numpy(), [], 0
    for ratio in grid.tolist():
        zeros = round(ratio * len(positions))
        gone = positions[before:zeros]
        gone.sort()
        parts = np.split(gone, np.searchsorted(gone, starts[1:].astype(gone.dtype)))
        placed = map(_placed, parts, starts.tolist(), weights)
        steps.append([torch.from_numpy(part) for part in placed])
        before = zeros
    return steps


def _placed(gone: NDArray[Any], start: int, weight: Tensor) -> NDArray[Any]:
    """Positions in a weight, counted from `start`, by its place in memory: to compute them for each batch takes longer.

    Positions count row by row, so that most weights have them as they are.
    """
    if weight.is_contiguous():
        return gone
    places = np.empty_like(gone)
    for begin in range(0, len(gone), CHUNK):
        some = slice(begin, begin + CHUNK)
        at = np.unravel_index(gone[some] - start, tuple(weight.shape))
        places[some] = start + sum(i * stride for i, stride in zip(at, weight.stride(), strict=True))
    places.sort()
    return places
