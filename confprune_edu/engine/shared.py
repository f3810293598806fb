"""The pruned networks of a grid, which share one set of weights: a step to the next ratio sets a few more to zero."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from confprune_edu import pruning
from confprune_edu.engine.first_layer import FirstCall, FirstLayer, updated
from confprune_edu.engine.kernels import pass_columns_on, set_forward


class CannotShare(Exception):
    """A network changes its weights when it is called, or keeps old values of them elsewhere."""


class Family:
    """Networks in eval mode, one for each ratio of a grid, that share one set of weights.

    `at(j)` gives the network of ratio j; its weights are right until the next call of `at`. Each network has buffers
    and attributes of its own, so that none sees what another one remembers.
    """

    @torch.inference_mode(False)  # copies made in that mode could not be asked for gradients
    def __init__(
        self, model: nn.Module, grid: NDArray[np.float64], rank: Tensor, weights: pruning.Weights | None = None
    ) -> None:
        own = pruning.twin(model)
        self.weights = [own.get_parameter(name) for name in pruning.prunable(model, weights)]
        self.dense = [weight.detach().clone() for weight in self.weights]
        self.steps = _steps(rank, grid, [weight.numel() for weight in self.weights])
        self.places = [_places(weight) for weight in self.weights]
        self.starts_full = not any(map(len, self.steps[0]))  # nothing is pruned at the first ratio
        self.parameters = list(own.parameters())
        self.networks = [self._copy(own) for _ in grid]
        self.reached = -1  # the place in the grid at which the weights are
        self.first: FirstLayer | None = None  # outputs of the first linear layer, where they are updated
        self.begins = ""  # the name of that layer

    @torch.inference_mode(False)
    def _copy(self, network: nn.Module) -> nn.Module:
        """A copy that shares the weights."""
        found = copy.deepcopy(network, pruning.sharing(self.parameters))
        if not {id(own) for own in found.parameters()}.issuperset(map(id, self.parameters)):
            raise CannotShare  # its `__deepcopy__` has another way
        return found

    @contextlib.contextmanager
    def refuse_writes(self) -> Iterator[None]:
        """Raise `CannotShare` if the block changes the weights, which the networks share."""
        before = [parameter.detach().clone() for parameter in self.parameters]
        yield
        if not all(map(torch.equal, self.parameters, before)):
            raise CannotShare

    def see(self, call: "FirstCall") -> None:
        """Prepare for the batch on which `call` has just run the full network."""
        if self.first is None and call.inputs is not None:
            self._update_from(call.name)
        if self.first is not None:
            self.first.see(*((call.inputs, call.outputs) if call.name == self.begins else (None, None)))

    def try_columns(self, call: Callable[[nn.Module, Any], Any], inputs: Any) -> None:
        """Let the linear layers give their outputs column by column in memory, if the networks can work with that.

        The first layer's outputs are updated as columns, and to transpose them takes longer than to update them. But a
        network that calls `view`, say, needs rows; it fails on `inputs`, and gets rows.
        """
        if self.first is None:
            return
        probe = self._copy(self.at(0))
        self.first.gives_columns = True
        pass_columns_on(probe)
        with self.refuse_writes():
            try:
                call(probe, inputs)
            except Exception:  # the columns are to blame: with rows the same call has just succeeded
                self.first.gives_columns = False
                return
        for network in self.networks:
            pass_columns_on(network)

    def _update_from(self, name: str) -> None:
        """Update the outputs of the linear layer `name`, the first one that is called, from ratio to ratio."""
        layer: Any = self.networks[0].get_submodule(name)
        k = next((k for k, weight in enumerate(self.weights) if weight is layer.weight), None)
        if k is None:  # another parameter of the layer is pruned, from which its weight is computed
            return
        self.begins, self.first = name, FirstLayer(layer, self.dense[k], [step[k] for step in self.steps])
        for network in self.networks:
            layer = network.get_submodule(name)
            layer.__dict__["first"] = self.first
            set_forward(layer, updated)

    @torch.no_grad()
    def at(self, j: int) -> nn.Module:
        """The network of ratio j; fastest if ratios are asked for in their order."""
        if j < self.reached:
            for weight, dense in zip(self.weights, self.dense, strict=True):
                weight.copy_(dense)
            self.reached = -1
        for step in self.steps[self.reached + 1 : j + 1]:
            for weight, places, gone in zip(self.weights, self.places, step, strict=True):
                memory = weight.as_strided((weight.numel(),), (1,))
                memory.index_fill_(0, (gone if places is None else places[gone]).to(weight.device), 0)
        self.reached = j
        if self.first is not None:
            self.first.move_to(j)
        return self.networks[j]


def _places(weight: Tensor) -> Tensor | None:
    """Where in memory the entries of a weight lie, in their order; None if they lie in order."""
    if weight.is_contiguous():
        return None
    return torch.arange(weight.numel()).as_strided(weight.shape, weight.stride()).flatten()


def _steps(rank: Tensor, grid: NDArray[np.float64], sizes: list[int]) -> list[list[Tensor]]:
    """For each ratio the flat positions, in each weight, that are pruned there and not at the ratio before."""
    starts = np.cumsum([0, *sizes[:-1]])
    order = np.empty(len(rank), np.int64)
    order[rank.numpy()] = np.arange(len(rank))
    steps, before = [], 0
    for ratio in grid.tolist():
        zeros = round(ratio * len(rank))
        gone = np.sort(order[before:zeros])
        parts = np.split(gone, np.searchsorted(gone, starts[1:]))
        steps.append([torch.from_numpy(part - start) for part, start in zip(parts, starts, strict=True)])
        before = zeros
    return steps
