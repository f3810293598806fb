"""The first layer's outputs, updated from ratio to ratio instead of multiplied anew.

All networks of a grid give their first layer the same inputs, and from one ratio to the next few of its weights become
zero: what these contributed is subtracted.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from confprune_edu.engine.kernels import can_multiply, forward_of, multiply, product

FRESH = 128  # ratios after which the first layer is multiplied anew, so that rounding errors stay small

SPARSE = 1 / 16  # share of the layer's weights up to which an update is faster than a product

PROBE = 8  # examples whose inputs are compared before an updated output is used


class FirstLayer:
    """A linear layer's outputs on one batch, updated as its weights are pruned."""

    def __init__(self, layer: nn.Linear, dense: Tensor, steps: list[Tensor]) -> None:
        self.weight, self.bias = layer.weight, layer.bias  # the weight is pruned in place by `Family`
        self.updates = [_update(dense, gone) for gone in steps]
        self.inputs: Tensor | None = None  # transposed, (features, batch)
        self.outputs: Tensor | None = None  # transposed, (width, batch)
        self.probe: Tensor | None = None  # the first few inputs, (PROBE, features)
        self.reached = -1  # the ratio, by its place in the grid, whose outputs these are; -1: the full layer's
        self.gives_columns = False  # are outputs given as they are kept, column by column? See `Family.try_columns`

    def __deepcopy__(self, memo: Any) -> "FirstLayer":
        return self

    def see(self, inputs: Tensor | None, outputs: Tensor | None) -> None:
        """Start with a batch: the full layer's inputs and outputs, transposed; None if they cannot be updated."""
        self.inputs, self.outputs, self.reached = inputs, outputs, -1
        self.probe = None if inputs is None else _turned(inputs[:, :PROBE])

    def move_to(self, j: int) -> None:
        """Make the outputs those of ratio j."""
        if self.inputs is None or self.outputs is None or j == self.reached:
            return
        updates = self.updates[self.reached + 1 : j + 1]
        if j < self.reached or (j + 1) // FRESH > (self.reached + 1) // FRESH or None in updates:
            self.outputs = product(self.inputs.T, self.weight, self.bias, columns=True).T.contiguous()
        else:
            for columns, begins, values in filter(None, updates):
                self.outputs += functional.embedding_bag(
                    columns, self.inputs, begins, mode="sum", per_sample_weights=values
                )
        self.reached = j

    def of(self, inputs: Tensor) -> Tensor | None:
        """A copy of the outputs (batch, width); None if these are not the inputs of `see`."""
        if self.inputs is None or self.outputs is None or self.probe is None:
            return None
        if inputs.shape != self.inputs.T.shape or not torch.equal(inputs[:PROBE], self.probe):
            return None
        return self.outputs.clone().T if self.gives_columns else _turned(self.outputs)


def _update(dense: Tensor, gone: Tensor) -> tuple[Tensor, ...] | None:
    """What to add to the weights `dense` so that those at the flat positions `gone` become zero, as a sparse matrix.

    The arguments of `embedding_bag`: the column of each entry, the number of entries before each row, and the entries.
    () if nothing changes, None if so much changes that a product is faster.
    """
    if len(gone) > SPARSE * dense.numel():
        return None
    if len(gone) == 0:
        return ()
    starts = torch.arange(len(dense)) * dense.shape[1]
    return gone % dense.shape[1], torch.searchsorted(gone, starts), -dense.flatten()[gone]


def _turned(matrix: Tensor) -> Tensor:
    """A copy of the transpose, row by row in memory."""
    return matrix.T.clone(memory_format=torch.contiguous_format)


def updated(layer: Any, input: Tensor) -> Tensor:
    """The `forward` of a linear layer: the outputs of its `FirstLayer`, or a product where that has none."""
    outputs = layer.first.of(input)
    return multiply(layer, input) if outputs is None else outputs


class FirstCall:
    """Calls a network, and notes which layer with prunable weights was called first, its inputs and its outputs."""

    def __init__(self, network: nn.Module, weights: list[str], call: Callable[[nn.Module, Any], Any]) -> None:
        self.network, self.call = network, call
        self._forget()
        for owner in sorted({name.rpartition(".")[0] for name in weights}):
            layer = network.get_submodule(owner)
            layer.register_forward_pre_hook(self._note_inputs(owner))
            layer.register_forward_hook(self._note_outputs, prepend=True)  # as the layer gives them

    def of(self, inputs: Any) -> Any:
        """The network's output for these inputs."""
        self._forget()
        return self.call(self.network, inputs)

    def _forget(self) -> None:
        self.called, self.name = False, ""
        self.inputs: Tensor | None = None  # transposed, (features, batch); None if they cannot be updated
        self.outputs: Tensor | None = None  # transposed, (width, batch)

    def _note_inputs(self, owner: str) -> Any:
        def hook(layer: nn.Module, inputs: Any) -> None:
            if not self.called:
                self.name, self.called = owner, True
                self.inputs = _turned(inputs[0]) if updatable(layer, inputs) else None

        return hook

    def _note_outputs(self, layer: nn.Module, inputs: Any, outputs: Any) -> None:
        if self.inputs is not None and self.outputs is None:  # the first layer has no other inside
            self.outputs = _turned(outputs)


def updatable(layer: nn.Module, inputs: Any) -> bool:
    """Can a `FirstLayer` give the outputs of this call?"""
    return (
        type(layer) is nn.Linear
        and forward_of(layer) in (None, multiply)
        and len(inputs) == 1
        and can_multiply(inputs[0])
        and inputs[0].dtype == layer.weight.dtype
        and layer.weight.dtype in (torch.float32, torch.float64)
    )
