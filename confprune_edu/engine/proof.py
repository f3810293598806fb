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

GUARDED, EVERY = 256, 7  # calls that are all looked at, and which ones of those that follow

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
    number of its elements and bits: numbers in plain attributes or closures, and what was computed out of sight. Of
    `weights` it is followed where all of their entries go, until they meet the `data`.
    """

    def __init__(
        self, known: Iterable[Tensor] = (), data: Iterable[Tensor] = (), weights: Iterable[Tensor] = ()
    ) -> None:
        super().__init__()
        self.read: set[StorageWeakRef] = set()
        self.foreign: dict[StorageWeakRef, tuple[int, int]] = {}
        self.data = {memory for tensor in data for memory in memories(tensor)}
        self.sizes = {memory: weight.numel() for weight in weights for memory in memories(weight)}
        self.whole = {memory: {memory} for memory in self.sizes}  # which weights lie there with all of their entries
        self.met: set[StorageWeakRef] = set()
        self.inside = {memory for tensor in known for memory in memories(tensor)} | self.data | set(self.sizes)

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
            sources = [tensor for tensor in operands if not any(tensor is other for other in target)]
            self.note(sources)
            self._follow(sources, nested.tensors(result))
        if not name.startswith(("empty", "new_empty")):  # whose memory holds nothing before it is written to
            self.inside |= made - given
        self.inside.update(memory for tensor in target for memory in memories(tensor))
        return result

    def note(self, tensors: Iterable[Tensor]) -> None:
        """Note that these are read."""
        for tensor in tensors:
            for memory in memories(tensor):
                self.read.add(memory)
                if memory not in self.inside:  # whole numbers and masks are rarely a weight, unless as many
                    bits = 0 if tensor.dtype in (torch.bool, torch.int64) else 8 * tensor.element_size()
                    size = (tensor.numel(), bits * tensor.numel())
                    self.foreign[memory] = max(self.foreign.get(memory, (0, 0)), size)

    def _follow(self, sources: list[Tensor], results: list[Tensor]) -> None:
        given = {memory for tensor in sources for memory in memories(tensor)}
        weights = set().union(*(self.whole.get(memory, ()) for memory in given))
        met = not given.isdisjoint(self.data)
        self.met |= weights if met else set()
        for tensor in results:
            for memory in memories(tensor):
                if met:
                    self.data.add(memory)
                elif memory not in self.sizes:
                    self.whole[memory] = {weight for weight in weights if tensor.numel() >= self.sizes[weight]}

    def reads(self, weight: Tensor) -> bool:
        """Was it read?"""
        return not self.read.isdisjoint(memories(weight))

    def shows(self, weight: Tensor) -> bool:
        """Is it what the data meet? Then no copy of it is; nor where it is read and nothing else can hold a copy."""
        return not self.met.isdisjoint(memories(weight)) or (self.reads(weight) and not self.may_hold(weight))

    def may_hold(self, weight: Tensor) -> bool:
        """Could what came from outside hold a copy of this weight: as many numbers, or one bit for each?"""
        n, sizes = weight.numel(), self.foreign.values()
        return any(own == n for own, _ in sizes) or sum(bits for _, bits in sizes) >= n


class Guard(TorchDispatchMode):
    """Notes in `found` the names of those tensors, known by their address, that operators inside the block read."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        self.found: set[str] = set()

    _should_skip_dynamo = Operands._should_skip_dynamo

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in (*args, *(kwargs or {}).values()):
            for operand in value if isinstance(value, (list, tuple)) else (value,):
                name = self.names.get(_address(operand)) if isinstance(operand, Tensor) else None
                if name and _address(operand) not in map(_address, nested.tensors(result)):  # else a view
                    self.found.add(name)
        return result


class Proof:
    """Watches the answers of the full copy of a model until the use of each prunable weight is shown.

    A weight that is not read at all may be a head that eval mode leaves out. Then nothing else that is read may be
    large enough to hold it; if something is, another value of the weight must change the output.
    """

    def __init__(self, model: nn.Module, full: nn.Module, weights: Iterable[str], call: Call) -> None:
        self.model, self.full, self.call = model, full, call
        self.theirs = {_address(tensor): name for name, tensor in _tensors(model) if _address(tensor)}
        self.status = dict.fromkeys(weights, "unread")  # or "read", "shown" (another value changes the output), "doubt"
        self.first = True
        self.calls = 0

    def guarded(self, answer: Callable[[Any], Any], inputs: Any, always: bool = False) -> Any:
        """`answer(inputs)`, what a copy gives; looked at in the first calls and, as that takes time, some later ones.

        Raises
        ------
        ValueError
            A tensor of the original model was read.
        """
        self.calls += 1
        if self.calls > GUARDED and self.calls % EVERY and not always:
            return answer(inputs)
        with Guard(self.theirs) as guard:
            output = answer(inputs)
        if guard.found:
            raise ValueError(BOUND.format(name=next(name for name in self.theirs.values() if name in guard.found)))
        return output

    def watched(self, answer: Callable[[Any], Any], inputs: Any) -> Any:
        """`answer(inputs)`, the full copy's output; ValueError if a tensor of the original model was read."""
        if not {"unread", "doubt"} & set(self.status.values()):
            return self.guarded(answer, inputs, always=True)
        state, same = pruning.random_state(), nested.copied(inputs)
        weights = {name: self.full.get_parameter(name) for name in self.status}
        with Operands(_lasting(self.full), nested.tensors(inputs), weights.values()) as seen:
            output = self.guarded(answer, inputs, always=True)
        seen.note(nested.tensors(output))
        self._suspect(seen, inputs)
        for name in self.named("unread", "doubt"):
            if seen.shows(weights[name]):
                self.status[name] = "read"
            elif seen.may_hold(weights[name]) and self.first:
                self.status[name] = "shown" if self._matters(name, same, state) else "doubt"
        self.first = False
        return output

    def _suspect(self, seen: Operands, inputs: Any) -> None:
        """What was computed out of sight for each example may come from a weight of any size."""
        examples = nested.examples(inputs) or (len(inputs) if isinstance(inputs, (list, tuple)) else 2)
        stored = nested.tensors([vars(module) for module in self.full.modules()])
        kept = {memory for tensor in stored for memory in memories(tensor)}
        for memory, (n, bits) in seen.foreign.items():
            if memory not in kept and bits and n >= max(examples, 2):
                seen.foreign[memory] = (n, sys.maxsize)

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

        Its entries are exchanged within rows, then within columns, so that one that is read for its size, its norm or
        the range of each row alone does not count as used.
        """

        def answered(along: int | None) -> str:
            copy = pruning.twin(self.model).to(next(self.full.parameters()).device).eval()
            if along is not None:
                _exchange(copy.get_parameter(name), along)
            pruning.set_random_state(state)
            return nested.digest(self.call(copy, nested.copied(inputs)))

        with pruning.same_random_state():
            plain = {answered(None) for _ in range(2)}
            changes = (any(answered(along) not in plain for _ in range(EXCHANGES)) for along in (0, 1))
            return len(plain) == 1 and all(changes)


def _exchange(weight: Tensor, along: int) -> None:
    """Put the entries of each column, or row, into another order; other numbers in the place of equal ones."""
    table = weight.reshape(len(weight), -1)
    other = table.gather(along, torch.rand_like(table, dtype=torch.float32).argsort(along))
    weight.copy_((torch.randn_like(table) if torch.equal(other, table) else other).view(weight.shape))


def unread(
    network: nn.Module, weights: Iterable[str], run: Callable[[Any], Any], inputs: Any, derived: Any = None
) -> tuple[Any, list[str]]:
    """What `run(inputs)` gives, and those of the network's weights that it does not read, or has a copy of.

    The tensors in `derived` were computed from the inputs.
    """
    found = {name: network.get_parameter(name) for name in weights}
    with Operands(_lasting(network), nested.tensors((inputs, derived)), found.values()) as seen:
        output = run(inputs)
    return output, [name for name, weight in found.items() if not seen.shows(weight)]


def eager() -> AbstractContextManager[Any]:
    """Run what torch.compile would run as it is written: kernels compiled anew for each copy would take minutes."""
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):  # since torch 2.6
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


def _address(tensor: Tensor) -> int:
    """Where the numbers of a plain tensor begin in memory; 0 for others, and where there are none."""
    plain = type(tensor) in (Tensor, nn.Parameter, nn.Buffer) and tensor.layout == torch.strided
    return tensor.untyped_storage().data_ptr() if plain and not tensor.is_meta else 0


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
