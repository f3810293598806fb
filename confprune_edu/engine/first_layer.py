"""The first linear layer, updated from ratio to ratio instead of multiplied anew."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from confprune_edu import pruning
from confprune_edu.engine.kernels import Multiplied, plain, product

FRESH = 128  # ratios after which the first layer is multiplied anew, so that rounding errors do not add up

SPARSE = 1 / 16  # share of a layer's weights up to which adding a difference beats multiplying anew

PROBE = 8  # examples whose inputs are compared before an updated output is used


class FirstLayer:
    """The outputs of a linear layer on one batch, moved from ratio to ratio by what changes in its weights."""

    def __init__(self, layer: nn.Linear, dense: Tensor, steps: list[Tensor]) -> None:
        self.weight, self.bias = layer.weight, layer.bias  # the weight is pruned in place by `Family`
        self.updates = [_update(dense, gone) for gone in steps]
        self.inputs: Tensor | None = None  # both by columns: (features, batch) and (width, batch)
        self.outputs: Tensor | None = None
        self.probe: Tensor | None = None  # some of the inputs, by rows
        self.reached = -1
        self.by_columns = False  # the layout of what is given, see `Family.lay_out`

    def __deepcopy__(self, memo: Any) -> "FirstLayer":
        return self

    def see(self, inputs: Tensor | None, outputs: Tensor | None) -> None:
        """Begin with a batch, the full layer's inputs and outputs; None: there is nothing to stand in for."""
        self.inputs, self.outputs, self.reached = inputs, outputs, -1
        self.probe = None if inputs is None else _turned(inputs[:, :PROBE])

    def move_to(self, j: int) -> None:
        """Make the outputs those of ratio j, where a batch has been seen."""
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
        """The outputs (batch, width), a copy; None if these are not the inputs that were seen."""
        if self.inputs is None or self.outputs is None or self.probe is None:
            return None
        if inputs.shape != self.inputs.T.shape or not torch.equal(inputs[:PROBE], self.probe):
            return None
        return self.outputs.clone().T if self.by_columns else _turned(self.outputs)


def _update(dense: Tensor, gone: Tensor) -> tuple[Tensor, ...] | None:
    """What the zeros at the positions `gone` change in `dense`, by rows: columns, where each row begins, values.

    Empty where nothing changes; None where too much does.
    """
    if len(gone) > SPARSE * dense.numel():
        return None
    if len(gone) == 0:
        return ()
    starts = torch.arange(len(dense)) * dense.shape[1]
    return gone % dense.shape[1], torch.searchsorted(gone, starts), -dense.flatten()[gone]


def _turned(matrix: Tensor) -> Tensor:
    """The transpose, a copy, row by row."""
    return matrix.T.clone(memory_format=torch.contiguous_format)


class Updated(Multiplied):
    """A linear layer that takes its outputs from a `FirstLayer`, and multiplies where that has none."""

    first: FirstLayer

    def forward(self, input: Tensor) -> Tensor:
        outputs = self.first.of(input)
        return super().forward(input) if outputs is None else outputs


class FirstCall:
    """Notes which layer with prunable weights a network calls first, with what, and what it answers."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._forget()
        for owner in sorted({name.rpartition(".")[0] for name in pruning.prunable(network)}):
            layer = network.get_submodule(owner)
            layer.register_forward_pre_hook(self._note_inputs(owner))
            layer.register_forward_hook(self._note_outputs, prepend=True)  # as the layer gives them

    def of(self, inputs: Any) -> Any:
        """The network's outputs."""
        self._forget()
        return self.network(inputs)

    def _forget(self) -> None:
        self.called, self.name = False, ""
        self.inputs: Tensor | None = None  # by columns, of a linear layer for which `FirstLayer` can stand in
        self.outputs: Tensor | None = None

    def _note_inputs(self, owner: str) -> Any:
        def hook(layer: nn.Module, inputs: Any) -> None:
            if not self.called:
                self.name, self.called = owner, True
                self.inputs = _turned(inputs[0]) if _updatable(layer, inputs) else None

        return hook

    def _note_outputs(self, layer: nn.Module, inputs: Any, outputs: Any) -> None:
        if self.inputs is not None and self.outputs is None:  # the first layer has no other inside
            self.outputs = _turned(outputs)


def _updatable(layer: nn.Module, inputs: Any) -> bool:
    """Is this call one that `FirstLayer` can stand in for?"""
    return (
        type(layer) in (nn.Linear, Multiplied)
        and len(inputs) == 1
        and plain(inputs[0])
        and inputs[0].dtype == layer.weight.dtype
        and layer.weight.dtype in (torch.float32, torch.float64)
    )
