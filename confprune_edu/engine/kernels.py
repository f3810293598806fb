"""What is fast on a processor: the kernel that multiplies, the format in memory, memory that is kept."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from confprune_edu import pruning
from confprune_edu.engine import nested

# What torch.compile calls in place of `F.linear`; None if torch is built without oneDNN. It gives wrong results without
# an error for all but contiguous float32.
ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None, columns: bool = False) -> Tensor:
    """`F.linear` by oneDNN, never far from a processor's best; what torch takes instead can need twice the time.

    The outputs are row by row in memory; with `columns` they are column by column where the inputs are.
    """
    given = [inputs, weight] if bias is None else [inputs, weight, bias]
    if ONEDNN is None or inputs.shape[1] == 0 or any(tensor.dtype != torch.float32 for tensor in given):
        return functional.linear(inputs, weight, bias)
    if inputs.stride() == (1, len(inputs)) and not inputs.is_contiguous():  # `inputs.T` would be one operator more
        outputs = ONEDNN(weight.contiguous(), inputs, None, "none", [], "")
        outputs = outputs.T if bias is None else outputs.T.add_(bias)
        return outputs if columns else outputs.contiguous()
    inputs, weight, *rest = (tensor.contiguous() for tensor in given)
    return ONEDNN(inputs, weight, rest[0] if rest else None, "none", [], "")


def multiply(layer: nn.Linear, input: Tensor) -> Tensor:
    """The `forward` of a linear layer, by `product` where it can."""
    return (product if can_multiply(input) else functional.linear)(input, layer.weight, layer.bias)


def multiply_columns(layer: nn.Linear, input: Tensor) -> Tensor:
    """The same, but columns where it is given columns."""
    return product(input, layer.weight, layer.bias, columns=True) if can_multiply(input) else multiply(layer, input)


def forward_of(layer: nn.Module) -> Any:
    """The function by which a layer of torch, whose type stays what it is, computes; None for its usual one."""
    return getattr(vars(layer).get("forward"), "__func__", vars(layer).get("forward"))


def set_forward(layer: nn.Module, function: Callable[..., Tensor]) -> None:
    """Let a layer compute by `function`. A network may ask for the type of its layers: it stays the same."""
    layer.__dict__["forward"] = MethodType(function, layer)


def use_fast_products(network: nn.Module) -> None:
    """Let the linear layers of a network, which nobody else uses, multiply by `product`."""
    for module in network.modules():
        if type(module) is nn.Linear and forward_of(module) is None:
            set_forward(module, multiply)


def use_usual_products(network: nn.Module) -> None:
    """Undo that: such layers refer to themselves, so that their memory would be freed late."""
    for module in network.modules():
        if forward_of(module) is multiply:
            del module.__dict__["forward"]


def pass_columns_on(network: nn.Module) -> None:
    """Let those layers give columns where they are given columns."""
    for module in network.modules():
        if forward_of(module) is multiply:
            set_forward(module, multiply_columns)


def can_multiply(inputs: Any) -> bool:
    """Can `product` stand in for `F.linear`? For a batch of vectors on the processor.

    Not where autocast changes them, nor where a network asks for gradients, which `product` has not.
    """
    return (
        isinstance(inputs, Tensor)
        and inputs.ndim == 2
        and inputs.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.is_grad_enabled()
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
    example of `inputs`, one that calls `as_strided` has another answer: they keep the usual format.
    """
    if not _image(inputs) or not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        return
    if pruning.tied(network):  # another format would untie them
        return
    trial = pruning.twin(network).to(memory_format=torch.channels_last)  # of its own: it may keep what it computes
    state = pruning.random_state()
    try:
        answer = call(trial, in_format_of(trial, inputs[:1].clone()))
    except RuntimeError:  # or the inputs are wrong: the call that follows will say so
        return
    del trial
    pruning.set_random_state(state)
    if nested.close(answer, call(pruning.twin(network), inputs[:1].clone())):
        network.to(memory_format=torch.channels_last)


def in_format_of(network: nn.Module, inputs: Any) -> Any:
    """Images in the memory format of the network's convolutions; other inputs as they are."""
    return inputs.contiguous(memory_format=memory_format(network)) if _image(inputs) else inputs


def memory_format(network: nn.Module) -> torch.memory_format:
    """The memory format of a network's 2-d convolutions; contiguous if it has none."""
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    last = all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    last = last and not all(w.is_contiguous() for w in weights)  # of one channel they are both
    return torch.channels_last if last else torch.contiguous_format


def _image(inputs: Any) -> bool:
    """Is this a batch of images on the processor?"""
    return isinstance(inputs, Tensor) and inputs.ndim == 4 and inputs.device.type == "cpu"
