"""The losses of a whole table at the machine's speed: examples outside, ratios inside, one set of weights.

A batch stays in the processor's cache while every ratio sees it. Weights are not copied but set to zero in place, each
ratio adding the few that it prunes more than the last. A network that begins with a linear layer does not multiply its
inputs again for each ratio: the layer's output is updated by the sparse difference. All of it is checked against
pruned copies, which it equals up to rounding, and measured by `python -m confprune_edu.benchmark`.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from confprune_edu import pruning

FRESH = 128  # ratios after which the first layer is multiplied anew, so that rounding errors do not add up
SPARSE = 1 / 16  # share of a layer's weights up to which adding a difference beats multiplying anew
PROBE = 8  # examples whose inputs are compared before an updated output is used

# The operator that torch.compile puts in the place of `F.linear`; None where torch is built without oneDNN. It takes
# contiguous float32 alone and does not say so.
ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


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
        _pass_columns_on(probe)
        try:
            probe(inputs)
        except Exception:  # with rows the same call has just been answered
            self.first.by_columns = False
        else:
            for network in self.networks:
                _pass_columns_on(network)

    def _update_from(self, name: str) -> None:
        """Let the linear layer `name`, the first with prunable weights, be updated from ratio to ratio."""
        layer: Any = self.networks[0].get_submodule(name)
        k = next(k for k, weight in enumerate(self.weights) if weight is layer.weight)
        self.begins, self.first = name, FirstLayer(layer, self.dense[k], [step[k] for step in self.steps])
        for network in self.networks:
            layer = network.get_submodule(name)
            layer.__class__, layer.__dict__["first"] = _Updated, self.first

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
            self.outputs = _product(self.inputs.T, self.weight, self.bias, columns=True).T.contiguous()
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


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None, columns: bool = False) -> Tensor:
    """`F.linear` by oneDNN, which is never far from a processor's best; what `F.linear` takes can be half as fast.

    With `columns`, inputs that lie column by column give outputs that do; all else gives rows.
    """
    given = [inputs, weight] if bias is None else [inputs, weight, bias]
    if ONEDNN is None or inputs.shape[1] == 0 or any(tensor.dtype != torch.float32 for tensor in given):
        return functional.linear(inputs, weight, bias)
    if inputs.T.is_contiguous() and not inputs.is_contiguous():
        outputs = ONEDNN(weight.contiguous(), inputs, None, "none", [], "")
        outputs = outputs.T if bias is None else outputs.T.add_(bias)
        return outputs if columns else outputs.contiguous()
    inputs, weight, *rest = (tensor.contiguous() for tensor in given)
    return ONEDNN(inputs, weight, rest[0] if rest else None, "none", [], "")


class _Multiplied(nn.Linear):
    """A linear layer on a processor, by its fast kernel where that takes the call."""

    def forward(self, input: Tensor) -> Tensor:
        return (_product if _plain(input) else functional.linear)(input, self.weight, self.bias)


def quicken(network: nn.Module) -> None:
    """Let the linear layers of a network that is nobody else's take the fast kernel."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = _Multiplied


class _Passing(_Multiplied):
    """A linear layer that passes columns on where it is given columns."""

    def forward(self, input: Tensor) -> Tensor:
        if not _plain(input):
            return super().forward(input)
        return _product(input, self.weight, self.bias, columns=True)


def _pass_columns_on(network: nn.Module) -> None:
    for module in network.modules():
        if type(module) is _Multiplied:
            module.__class__ = _Passing


class _Updated(_Multiplied):
    """A linear layer that takes its outputs from a `FirstLayer`, and multiplies where that has none."""

    first: FirstLayer

    def forward(self, input: Tensor) -> Tensor:
        outputs = self.first.of(input)
        return super().forward(input) if outputs is None else outputs


def _plain(inputs: Any) -> bool:
    """A batch of vectors on the processor, to be multiplied in the precision that it has?"""
    return (
        isinstance(inputs, Tensor)
        and inputs.ndim == 2
        and inputs.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


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
        type(layer) in (nn.Linear, _Multiplied)
        and len(inputs) == 1
        and _plain(inputs[0])
        and inputs[0].dtype == layer.weight.dtype
        and layer.weight.dtype in (torch.float32, torch.float64)
    )


def keep_freed_memory() -> None:
    """Have the C library hold on to freed blocks: fetching their pages from the system again costs more than their use.

    glibc keeps what is freed up to twice the largest block that it has given back so far, counting blocks of at most
    32 MB. This one is never written to, so it takes no memory; other libraries do not mind it.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


def convolves(model: nn.Module) -> bool:
    """Does the model have a convolution?"""
    return any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules())


def lay_out(network: nn.Module, inputs: Any) -> None:
    """Give the weights of 2-d convolutions the memory format that is fast on a processor, if the network takes it.

    Channels last is up to twice as fast there. Outputs then have that format, too, which a `view` in the network may
    refuse: it keeps the usual format.
    """
    if not _image(inputs) or not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        return
    network.to(memory_format=torch.channels_last)
    try:
        network(laid_out(inputs[:1].clone(), network))
    except RuntimeError:  # also raised for wrong inputs, of which the call that follows will tell
        network.to(memory_format=torch.contiguous_format)


def laid_out(inputs: Any, network: nn.Module) -> Any:
    """The inputs in the memory format of the network's convolutions."""
    return inputs.contiguous(memory_format=memory_format(network)) if _image(inputs) else inputs


def memory_format(network: nn.Module) -> torch.memory_format:
    """That of its 2-d convolutions; contiguous where there are none."""
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    last = bool(weights) and all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    return torch.channels_last if last else torch.contiguous_format


def _image(inputs: Any) -> bool:
    return isinstance(inputs, Tensor) and inputs.ndim == 4 and inputs.device.type == "cpu"
