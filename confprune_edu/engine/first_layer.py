"""The first layer's outputs, updated from ratio to ratio instead of multiplied anew.

All networks of a grid give their first layer the same inputs, and from one ratio to the next few of its weights become
zero: what these contributed is subtracted.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from confprune_edu.engine.kernels import can_multiply, forward_of, multiply, product

FRESH = 128  # ratios after which the first layer is multiplied anew, so that rounding errors stay small

SPARSE = 1 / 16  # share of the layer's weights up to which an update is faster than a product

PROBE = 8  # examples whose inputs are compared before an updated output is used


class Reached:
    """The first layer's inputs and outputs on one batch, and the ratio whose outputs these are."""

    def __init__(self, inputs: Tensor, outputs: Tensor) -> None:
        self.inputs, self.outputs = inputs, outputs  # transposed, (features, batch) and (width, batch)
        self.probe = _turned(inputs[:, :PROBE])
        self.ratio = -1  # by its place in the grid; -1: the full layer


class FirstLayer:
    """A linear layer's outputs on one batch after the other, updated as its weights are pruned."""

    def __init__(self, layer: nn.Linear, dense: Tensor, steps: list[Tensor], start: int) -> None:
        self.weight, self.bias = layer.weight, layer.bias  # the weight is pruned in place by `Family`
        self.dense, self.steps, self.start = dense.flatten(), steps, start
        self.rows = start + torch.arange(len(dense), dtype=steps[0].dtype) * dense.shape[1]  # where each row begins
        self.changed = np.cumsum([0, *map(len, steps)]) / max(dense.numel(), 1)  # share that is zero before each ratio
        self.memory = layer.weight.data_ptr()  # a network may have other weights for the time of a call
        self.on: Reached | None = None  # the batch; None if its outputs cannot be updated
        self.gives_columns = False  # are outputs given as they are kept, column by column? See `Family.try_columns`

    def __deepcopy__(self, memo: Any) -> "FirstLayer":
        return self

    def move_to(self, j: int) -> None:
        """Make the outputs those of ratio j."""
        on = self.on
        if on is None or j == on.ratio:
            return
        changed = self.changed[j + 1] - self.changed[on.ratio + 1]
        if j < on.ratio or (j + 1) // FRESH > (on.ratio + 1) // FRESH or changed > SPARSE:
            on.outputs = product(on.inputs.T, self.weight, self.bias, columns=True).T.contiguous()
        else:
            for gone in filter(len, self.steps[on.ratio + 1 : j + 1]):
                on.outputs -= self._given(gone, on.inputs)
        on.ratio = j

    def _given(self, gone: Tensor, inputs: Tensor) -> Tensor:
        """What the weights at these positions, row after row, give to the outputs, by a sparse product."""
        places = gone - self.start
        begins = torch.searchsorted(gone, self.rows, out_int32=gone.dtype == torch.int32)
        columns, values = places % self.weight.shape[1], self.dense.index_select(0, places)
        return functional.embedding_bag(columns, inputs, begins, mode="sum", per_sample_weights=values)

    def of(self, inputs: Tensor) -> Tensor | None:
        """A copy of the outputs (batch, width); None if these are not the inputs on this batch, or not the weights."""
        on = self.on
        if (
            on is None
            or self.weight.data_ptr() != self.memory
            or inputs.shape != on.inputs.shape[::-1]
            or not torch.equal(inputs[:PROBE], on.probe)
        ):
            return None
        return on.outputs.clone().T if self.gives_columns else _turned(on.outputs)


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
        self.inputs: Tensor | None = None  # transposed; None if the outputs cannot be updated
        self.reached: Reached | None = None

    def _note_inputs(self, owner: str) -> Any:
        def hook(layer: nn.Module, inputs: Any) -> None:
            if not self.called:
                self.name, self.called = owner, True
                self.inputs = _turned(inputs[0]) if updatable(layer, inputs) else None

        return hook

    def _note_outputs(self, layer: nn.Module, inputs: Any, outputs: Any) -> None:
        # the first layer has no other inside; from infinity nothing can be subtracted
        if self.inputs is not None and self.reached is None and outputs.isfinite().all():
            self.reached = Reached(self.inputs, _turned(outputs))


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
