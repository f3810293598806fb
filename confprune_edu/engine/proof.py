"""Proof that a copy of a model computes with its own weights, so that the zeros written into them count.

A function put in the place of `forward` stays bound to the original model, and a cache may keep what weights were: a
copy then answers with weights that nobody pruned, and every ratio looks perfect. So each operator that the full copy
applies is asked which memory it reads.
"""

import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from confprune_edu import pruning
from confprune_edu.engine import nested

Call = Callable[[nn.Module, Any], Any]  # how a network is called with the inputs of a batch

UNREAD = 0.1  # share of the prunable weights above which a warning says that the model does not read them

EXCHANGES = 4  # of a weight's entries before it counts as not used

OVERWRITE = ("copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_")  # operators that do not read their target

BOUND = (
    "model: a copy of it reads {name} of the original, so zeros in the copy would not count. A function in the place "
    "of `forward` (torch.no_grad()(m.forward), torch.compile(m.forward), a lambda over `self`), or a `call` that names "
    "the model, stays bound to the original: wrap the model in a module whose `forward` calls it, or take "
    "torch.compile(model)"
)
KEPT = (
    "model: {name} is not shown to be what the model computes with. Another value of it changes no output, and tensors "
    "are read that are neither parameters nor buffers: a cached or converted copy of it? Clear such a cache before "
    "calibration, or leave the weight out with weights="
)
STALE = "model: its pruned copies do not read {name}, as the full model does: a cache outside of it keeps old values"


class Operands(TorchDispatchMode):
    """Notes which memory the operators inside the block read: all of it, and what came from outside.

    What is `known`, or was written by an operator inside the block, comes from inside. `foreign` is the rest, with the
    number of its elements and bits: numbers in plain attributes or closures, and what was computed out of sight.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.read: set[StorageWeakRef] = set()
        self.foreign: dict[StorageWeakRef, tuple[int, int]] = {}
        self.inside = {memory for tensor in known for memory in memories(tensor)}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip it would import torch's compiler, which takes seconds; under a mode nothing is compiled

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.rpartition(":")[2]
        operands = nested.tensors((args, kwargs))
        target = nested.tensors((kwargs or {}).get("out", args[0] if name in OVERWRITE else None))
        given = {memory for tensor in operands for memory in memories(tensor)}
        made = {memory for tensor in nested.tensors(result) for memory in memories(tensor)}
        if not made or made - given or func._schema.is_mutable:  # else a view, which reads nothing
            self.note(tensor for tensor in operands if not any(tensor is other for other in target))
        if not name.startswith(("empty", "new_empty")):  # whose memory holds nothing before it is written to
            self.inside |= made - given
        self.inside.update(memory for tensor in target for memory in memories(tensor))
        return result

    def note(self, tensors: Iterable[Tensor]) -> None:
        """Note that these are read."""
        for tensor in tensors:
            for memory in memories(tensor):
                self.read.add(memory)
                if memory not in self.inside and tensor.dtype not in (torch.bool, torch.int64):  # masks and indices
                    size = (tensor.numel(), 8 * tensor.numel() * tensor.element_size())
                    self.foreign[memory] = max(self.foreign.get(memory, (0, 0)), size)

    def reads(self, weight: Tensor) -> bool:
        """Was it read?"""
        return not self.read.isdisjoint(memories(weight))

    def may_hold(self, weight: Tensor) -> bool:
        """Could what came from outside be a copy of this weight?

        It has as many entries if the weight was read, and at least one bit for each entry if it was not.
        """
        if self.reads(weight):
            return any(n == weight.numel() for n, _ in self.foreign.values())
        return sum(bits for _, bits in self.foreign.values()) >= weight.numel()


class Proof:
    """Watches the answers of the full copy of a model until the use of each prunable weight is shown.

    A weight that is not read at all may be a head that eval mode leaves out. Then nothing else that is read may be
    large enough to hold it; if something is, another value of the weight must change the output.
    """

    def __init__(self, model: nn.Module, full: nn.Module, weights: Iterable[str], call: Call) -> None:
        self.model, self.full, self.call = model, full, call
        self.theirs = {memory: name for name, tensor in _tensors(model) for memory in memories(tensor)}
        self.status = dict.fromkeys(weights, "unread")  # or "read", "shown" (another value changes the output), "doubt"
        self.first = True

    def watched(self, answer: Callable[[Any], Any], inputs: Any) -> Any:
        """`answer(inputs)`, the full copy's output.

        Raises
        ------
        ValueError
            A tensor of the original model was read.
        """
        if not {"unread", "doubt"} & set(self.status.values()):
            return answer(inputs)
        state, same = pruning.random_state(), nested.copied(inputs)
        with Operands([*_lasting(self.full), *nested.tensors(inputs)]) as seen:
            output = answer(inputs)
        seen.note(nested.tensors(output))
        if theirs := [name for memory, name in self.theirs.items() if memory in seen.read]:
            raise ValueError(BOUND.format(name=theirs[0]))
        for name in self.named("unread", "doubt"):
            weight = self.full.get_parameter(name)
            if not seen.may_hold(weight):
                self.status[name] = "read" if seen.reads(weight) else self.status[name]
            elif self.first:
                self.status[name] = "shown" if self._matters(name, same, state) else "doubt"
        self.first = False
        return output

    def named(self, *status: str) -> list[str]:
        """The weights of this status."""
        return [name for name, own in self.status.items() if own in status]

    def close(self) -> None:
        """After the last batch: ValueError if a weight is in doubt, a warning if much of the model was not read."""
        for name in self.named("doubt"):
            raise ValueError(KEPT.format(name=name))
        sizes = {name: self.full.get_parameter(name).numel() for name in self.status}
        unread = self.named("unread")
        if not self.first and sum(sizes[name] for name in unread) > UNREAD * sum(sizes.values()):
            largest = ", ".join(sorted(unread, key=lambda name: -sizes[name])[:3])
            warnings.warn(
                f"the model does not read {largest} on these examples: zeros there cost nothing, and the ratio counts "
                "them; leave them out with weights=",
                stacklevel=2,
            )

    def _matters(self, name: str, inputs: Any, state: tuple[Any, ...]) -> bool:
        """Does the output change with this weight, in copies that have never been called before?

        Its entries are exchanged, so that one that is read for its size or its norm alone does not count as used.
        """

        def answered(change: Callable[[Tensor], Any]) -> str:
            copy = pruning.twin(self.model).to(next(self.full.parameters()).device).eval()
            change(copy.get_parameter(name))
            pruning.set_random_state(state)
            return nested.digest(self.call(copy, nested.copied(inputs)))

        with pruning.same_random_state():
            plain = {answered(lambda weight: None) for _ in range(2)}
            changed = {answered(_exchange) for _ in range(EXCHANGES)}
        return len(plain) == 1 and not changed <= plain


def _exchange(weight: Tensor) -> None:
    """Put the entries into another order; other numbers in the place of equal ones."""
    flat = weight.flatten()
    other = flat[torch.randperm(len(flat), device=flat.device)]
    weight.copy_((torch.randn_like(flat) if (flat == flat[0]).all() else other).view(weight.shape))


def unread(
    network: nn.Module, weights: Iterable[str], run: Callable[[Any], Any], inputs: Any, known: Any = None
) -> tuple[Any, list[str]]:
    """What `run(inputs)` gives, and those of the network's weights that it does not read, or has a copy of.

    The tensors in `known` are no such copies.
    """
    with Operands([*_lasting(network), *nested.tensors((inputs, known))]) as seen:
        output = run(inputs)
    found = {name: network.get_parameter(name) for name in weights}
    return output, [name for name, w in found.items() if not seen.reads(w) or seen.may_hold(w)]


def eager() -> AbstractContextManager[Any]:
    """Run what torch.compile would run as it is written: kernels compiled anew for each copy would take minutes."""
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):  # since torch 2.6
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


def memories(tensor: Tensor) -> list[StorageWeakRef]:
    """Where the numbers of a tensor lie."""
    if tensor.layout == torch.sparse_coo:
        return [memory for part in (tensor._indices(), tensor._values()) for memory in memories(part)]
    if hasattr(tensor, "__tensor_flatten__"):  # a tensor that consists of others
        return [memory for name in tensor.__tensor_flatten__()[0] for memory in memories(getattr(tensor, name))]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = (tensor.crow_indices(), tensor.col_indices(), tensor.values())
        return [memory for part in parts for memory in memories(part)]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
        return [memory for part in parts for memory in memories(part)]
    return [StorageWeakRef(tensor.untyped_storage())] if tensor.layout == torch.strided and tensor.numel() else []


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters and buffers of a model, by name."""
    found = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tensor) for name, tensor in found if not nn.parameter.is_lazy(tensor)]


def _lasting(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers, without those buffers that are computed anew after loading, as a cache is."""
    passing = {id(m._buffers[name]) for m in model.modules() for name in m._non_persistent_buffers_set}
    return [tensor for _, tensor in _tensors(model) if id(tensor) not in passing]
