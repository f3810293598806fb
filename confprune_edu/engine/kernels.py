"""The fast kernels and memory formats of a processor."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# The operator that torch.compile puts in the place of `F.linear`; None where torch is built without oneDNN. It takes
# contiguous float32 alone and does not say so.
ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None, columns: bool = False) -> Tensor:
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


class Multiplied(nn.Linear):
    """A linear layer on a processor, by its fast kernel where that takes the call."""

    def forward(self, input: Tensor) -> Tensor:
        return (product if plain(input) else functional.linear)(input, self.weight, self.bias)


def quicken(network: nn.Module) -> None:
    """Let the linear layers of a network that is nobody else's take the fast kernel."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Multiplied


class _Passing(Multiplied):
    """A linear layer that passes columns on where it is given columns."""

    def forward(self, input: Tensor) -> Tensor:
        if not plain(input):
            return super().forward(input)
        return product(input, self.weight, self.bias, columns=True)


def pass_columns_on(network: nn.Module) -> None:
    for module in network.modules():
        if type(module) is Multiplied:
            module.__class__ = _Passing


def plain(inputs: Any) -> bool:
    """A batch of vectors on the processor, to be multiplied in the precision that it has?"""
    return (
        isinstance(inputs, Tensor)
        and inputs.ndim == 2
        and inputs.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
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
