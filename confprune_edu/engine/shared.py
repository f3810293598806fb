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

MANY_WEIGHTS = 2**24  # from here on their positions are kept in half the memory, and widened at each use

PLAIN = (str, bytes, int, float, bool, type(None))  # what nobody can write into


class CannotShare(Exception):
    """A network changes its weights when it is called, or keeps old values of them elsewhere."""


class Family:
    """Networks in eval mode, one for each ratio of a grid, that share one set of weights.

    `at(j)` gives the network of ratio j; its weights are right until the next call of `at`. Each network has buffers
    and attributes of its own, so that none sees what another one remembers. What is large and is not pruned, they share
    with `full`; that nobody writes to it, `changed` tells.
    """

    @torch.inference_mode(False)  # copies made in that mode could not be asked for gradients
    def __init__(
        self,
        full: nn.Module,
        grid: NDArray[np.float64],
        rank: Tensor,
        weights: pruning.Weights | None = None,
        model: nn.Module | None = None,
    ) -> None:
        names = list(pruning.prunable(full, weights))
        self.common = _common(full, full if model is None else model, [full.get_parameter(name) for name in names])
        self.parts = [part for _, part, _ in self.common]
        self.template = pruning.twin(full, self.parts)  # of all networks; never called
        self.weights = [self.template.get_parameter(name) for name in names]
        self.dense = [weight.detach().clone() for weight in self.weights]
        self.steps = _steps(rank, grid, [weight.numel() for weight in self.weights])
        self.places = [_places(weight) for weight in self.weights]
        self.starts_full = not any(map(len, self.steps[0]))  # nothing is pruned at the first ratio
        self.networks: dict[int, nn.Module] = {}
        self.reached = self.base = -1  # the places in the grid at which the weights and `dense` are
        self.first: FirstLayer | None = None  # outputs of the first linear layer, where they are updated
        self.begins = ""  # the name of that layer

    def changed(self) -> str:
        """The name of a part that is not pruned and that a network has written to; empty if there is none."""
        return next((name for name, part, before in self.common if not _equal(part, before)), "")

    @contextlib.contextmanager
    def refuse_writes(self) -> Iterator[None]:
        """Raise `CannotShare` if the block changes the pruned weights, which the networks share."""
        before = [weight.detach().clone() for weight in self.weights]
        yield
        if not all(map(_equal, self.weights, before)):
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
        if k is None:  # another parameter of the layer is pruned, from which its weight is computed
            return
        self.begins, self.first = name, FirstLayer(layer, self.dense[k], [step[k] for step in self.steps])
        layer.__dict__["first"] = self.first
        set_forward(layer, updated)

    @torch.inference_mode(False)
    def _copy(self) -> nn.Module:
        """A network that shares what is shared."""
        network = copy.deepcopy(self.template, pruning.sharing([*self.template.parameters(), *self.parts]))
        if not {id(own) for own in network.parameters()}.issuperset(map(id, self.weights)):
            raise CannotShare("its weights, as its __deepcopy__ has it")
        return network

    def begin(self, j: int) -> None:
        """From now on no ratio before j is asked for."""
        self._move_to(j)
        for weight, dense in zip(self.weights, self.dense, strict=True):
            dense.copy_(weight)
        self.base = j
        self.networks.clear()

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
        if j < self.reached:
            for weight, dense in zip(self.weights, self.dense, strict=True):
                weight.copy_(dense)
            self.reached = self.base
        for step in self.steps[self.reached + 1 : j + 1]:
            for weight, places, gone in zip(self.weights, self.places, step, strict=True):
                memory = weight.as_strided((weight.numel(),), (1,))
                memory.index_fill_(0, (gone.long() if places is None else places[gone]).to(weight.device), 0)
        self.reached = j


def _common(full: nn.Module, model: nn.Module, pruned: list[nn.Parameter]) -> list[tuple[str, Any, Any]]:
    """What the networks of a family may share besides the pruned weights: its place, in `full` and in `model`.

    All parameters, and what is large: buffers, other tensors, containers of nothing but texts and numbers.
    """
    known = {memory for weight in pruned for memory in proof.memories(weight)}
    before = dict(_parts(model))
    found = []
    for name, part in _parts(full):
        parameter = isinstance(part, nn.Parameter)
        own = not isinstance(part, Tensor) or known.isdisjoint(proof.memories(part))
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


def _places(weight: Tensor) -> Tensor | None:
    """Where in memory the entries of a weight lie, in their order; None if they lie in order."""
    if weight.is_contiguous():
        return None
    return torch.arange(weight.numel()).as_strided(weight.shape, weight.stride()).flatten()


def _steps(rank: Tensor, grid: NDArray[np.float64], sizes: list[int]) -> list[list[Tensor]]:
    """For each ratio the flat positions, in each weight, that are pruned there and not at the ratio before."""
    starts = np.cumsum([0, *sizes[:-1]])
    order = np.empty(len(rank), np.int32 if MANY_WEIGHTS < len(rank) < 2**31 else np.int64)
    order[rank.numpy()] = np.arange(len(rank), dtype=order.dtype)
    steps, before = [], 0
    for ratio in grid.tolist():
        zeros = round(ratio * len(rank))
        gone = np.sort(order[before:zeros])
        parts = np.split(gone, np.searchsorted(gone, starts[1:]))
        steps.append(
            [torch.from_numpy(part - order.dtype.type(start)) for part, start in zip(parts, starts, strict=True)]
        )
        before = zeros
    return steps
