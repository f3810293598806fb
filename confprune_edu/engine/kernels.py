"""What is fast on a processor: columns, the memory format of convolutions, freed memory that is kept."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from confprune_edu import pruning


class ColumnLinear(nn.Linear):
    """A linear layer that gives columns where it is given columns, which lie one after the other in memory."""

    def forward(self, input: Tensor) -> Tensor:
        if not is_batch_of_vectors(input) or input.is_contiguous() or not input.T.is_contiguous():
            return super().forward(input)
        return transposed_product(self.weight, input.T, self.bias).T


def pass_columns_on(network: nn.Module) -> None:
    """Turn the linear layers of a network, which nobody else uses, into `ColumnLinear` layers."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = ColumnLinear


def transposed_product(weight: Tensor, inputs: Tensor, bias: Tensor | None) -> Tensor:
    """The outputs (width, batch) of a linear layer for inputs (features, batch), both by rows in memory."""
    return torch.mm(weight, inputs) if bias is None else torch.addmm(bias[:, None], weight, inputs)


def is_batch_of_vectors(inputs: Any) -> bool:
    """Is this a matrix on the processor, whose precision autocast does not change?"""
    return (
        isinstance(inputs, Tensor)
        and inputs.ndim == 2
        and inputs.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next request: to get new pages from the system takes longer.

    glibc decides by the largest block freed so far (of at most 32 MB): up to twice its size is kept. So one large block
    is freed here. It is never written to and so takes no memory; other C libraries ignore it.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


def choose_format(network: nn.Module, inputs: Any, call: Callable[[nn.Module, Any], Any]) -> None:
    """Store the weights of 2-d convolutions channels last, which is faster on a processor, if the network allows it.

    The outputs of a convolution are then channels last, too. A network that calls `view` on them fails on the first
    example of `inputs`, and keeps the usual format.
    """
    if not _image(inputs) or not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        return
    trial = pruning.twin(network).to(memory_format=torch.channels_last)  # of its own: it may keep what it computes
    try:
        call(trial, in_format_of(trial, inputs[:1].clone()))
    except RuntimeError:  # or the inputs are wrong: the call that follows will say so
        return
    network.to(memory_format=torch.channels_last)


def in_format_of(network: nn.Module, inputs: Any) -> Any:
    """Images in the memory format of the network's convolutions; other inputs as they are."""
    return inputs.contiguous(memory_format=memory_format(network)) if _image(inputs) else inputs


def memory_format(network: nn.Module) -> torch.memory_format:
    """The memory format of a network's 2-d convolutions; contiguous if it has none."""
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    last = bool(weights) and all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    return torch.channels_last if last else torch.contiguous_format


def _image(inputs: Any) -> bool:
    """Is this a batch of images on the processor?"""
    return isinstance(inputs, Tensor) and inputs.ndim == 4 and inputs.device.type == "cpu"
