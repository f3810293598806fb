"""Networks of a whole grid that share one set of weights."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from confprune_edu import pruning
from confprune_edu.engine.first_layer import FirstCall, FirstLayer, Updated
from confprune_edu.engine.kernels import pass_columns_on


class Restless(Exception):
    """A network writes into its own weights: it cannot share them with others."""


class Family:
    """Networks pruned to the ratios of a grid, in eval mode, that share one set of weights.

    `at(j)` gives the network of ratio j, and its weights are right until the next call. Everything else, buffers and
    attributes, each network has for itself, so that what one of them remembers no other sees.
    """

    def __init__(self, model: nn.Module, grid: NDArray[np.float64], rank: Tensor) -> None:
        own = pruning.twin(model)
        self.weights = [own.get_parameter(name) for name in pruning.prunable(model)]
        self.zeros = [weight.new_zeros(()) for weight in self.weights]
        self.dense = [weight.detach().clone() for weight in self.weights]
        self.steps = _steps(rank, grid, [weight.numel() for weight in self.weights])
        self.starts_full = not any(map(len, self.steps[0]))  # nothing is pruned at the first ratio
        self.parameters = list(own.parameters())
        self.shared = {id(parameter): parameter for parameter in self.parameters} | _unused_hooks(own)
        self.networks = [copy.deepcopy(own, dict(self.shared)) for _ in grid]
        self.reached = -1
        self.first: FirstLayer | None = None
        self.begins = ""

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Raise `Restless` if the block changes a weight that the networks share."""
        before = [parameter.detach().clone() for parameter in self.parameters]
        yield
        if not all(map(torch.equal, self.parameters, before)):
            raise Restless

    def see(self, call: "FirstCall") -> None:
        """Begin with a batch on which the full network has been called."""
        if self.first is None and call.inputs is not None:
            self._update_from(call.name)
        if self.first is not None:
            self.first.see(*((call.inputs, call.outputs) if call.name == self.begins else (None, None)))

    def lay_out(self, inputs: Any) -> None:
        """Let the linear layers pass on columns, as the first one's outputs are updated, if the networks take them.

        Turning them would cost more than updating them, but what follows may insist on rows, as a `view` does.
        """
        if self.first is None:
            return
        probe = copy.deepcopy(self.at(0), dict(self.shared))
        self.first.by_columns = True
        pass_columns_on(probe)
        try:
            probe(inputs)
        except Exception:  # with rows the same call has just been answered
            self.first.by_columns = False
        else:
            for network in self.networks:
                pass_columns_on(network)

    def _update_from(self, name: str) -> None:
        """Let the linear layer `name`, the first with prunable weights, be updated from ratio to ratio."""
        layer: Any = self.networks[0].get_submodule(name)
        k = next(k for k, weight in enumerate(self.weights) if weight is layer.weight)
        self.begins, self.first = name, FirstLayer(layer, self.dense[k], [step[k] for step in self.steps])
        for network in self.networks:
            layer = network.get_submodule(name)
            layer.__class__, layer.__dict__["first"] = Updated, self.first

    @torch.no_grad()
    def at(self, j: int) -> nn.Module:
        """The network of ratio j; cheapest for ratios in turn."""
        if j < self.reached:
            for weight, dense in zip(self.weights, self.dense, strict=True):
                weight.copy_(dense)
            self.reached = -1
        for step in self.steps[self.reached + 1 : j + 1]:
            for weight, zero, gone in zip(self.weights, self.zeros, step, strict=True):
                weight.put_(gone.to(weight.device), zero.expand(len(gone)))
        self.reached = j
        if self.first is not None:
            self.first.move_to(j)
        return self.networks[j]


def _unused_hooks(network: nn.Module) -> dict[int, Any]:
    """The empty registers of hooks, a dozen a module and most of what a copy would have to copy, by their id."""
    registers = (value for module in network.modules() for name, value in vars(module).items() if "hooks" in name)
    return {id(register): register for register in registers if not register}


def _steps(rank: Tensor, grid: NDArray[np.float64], sizes: list[int]) -> list[list[Tensor]]:
    """For each ratio the positions, weight by weight, that are pruned there and not before."""
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
