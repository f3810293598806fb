"""Examples, in whatever form they come, as batches of a size that is fast and takes little memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

from confprune_edu import _checks, memory
from confprune_edu.engine import nested
from confprune_edu.engine.fingerprint import Fingerprinted

# Numbers in the largest tensor of a batch, the inputs or what an operator gives: with more, memory grows and caches
# overflow, with much less the calls cost most.
BATCH_ELEMENTS = 2**21

LEAST = 8  # examples, if they hold at most twice that: deep layers have little to do for each

# Operators that hold more than they give: queries, keys and values.
INSIDE = {"aten::_transformer_encoder_layer_fwd": 3, "aten::_native_multi_head_attention": 3}

MOST_EXAMPLES = 1280  # in one batch, however small they are

FEW = 32  # examples that are one batch without being measured

KEPT_SHARE = 1 / 4  # of the memory that is free: may hold what would have to be read or computed again
KEPT_UNKNOWN = 512  # MB for that where the system does not tell how much is free


class Batch(NamedTuple):
    """Some examples."""

    inputs: Any
    targets: Any


Target = Callable[[Any], Any]  # the targets in a batch
Pass = Callable[[], Iterable[Batch]]  # starts a pass over all examples


class Room:
    """Memory for what is kept, so that it need not be read or computed again."""

    def __init__(self) -> None:
        free = memory.available_mb()
        self.left = 1e6 * (KEPT_UNKNOWN if free is None else KEPT_SHARE * free)

    def takes(self, *values: Any) -> bool:
        """Is there room for these? Then it is taken."""
        size = sum(map(nested.size, values))
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits


class Source:
    """Examples as batches, for one pass or for several.

    Of several passes, the first reads a loader; the batches are kept if there is room for all of them. Else the loader
    is read in each pass, and must give the same examples in the same order, which checksums tell.
    """

    def __init__(self, data: Any, batch_size: int | None, target: Target | None = None) -> None:
        self.once, self.generators, self.in_memory = _reader(data, batch_size, target)
        self.room = Room()
        self.kept: list[Batch] | None = None
        self.digests: list[str] | None = None  # of each batch, known after a pass; of batches that are not kept

    def again(self) -> Iterable[Batch]:
        """A pass, which may be one of several."""
        if self.in_memory:
            return self.once()
        if self.kept is not None:
            return self.kept
        return self._first_pass() if self.digests is None else self._same(self.digests)

    def _first_pass(self) -> Iterator[Batch]:
        kept: list[Batch] | None = []
        digests: list[str] = []
        for batch in self.once():
            if kept is not None and self.room.takes(batch):
                kept.append(nested.copied(batch))  # the loader may fill the same memory again
            elif kept is not None:
                digests = [nested.digest(other.inputs) for other in kept]
                self.room.left += sum(map(nested.size, kept))
                kept = None
            if kept is None:
                digests.append(nested.digest(batch.inputs))
            yield batch
        self.kept, self.digests = kept, digests

    def _same(self, digests: list[str]) -> Iterator[Batch]:
        for batch, digest in zip_longest(self.once(), digests):
            if batch is None or digest != nested.digest(batch.inputs):
                raise ValueError(
                    "data gave other examples on its second pass: a loader must repeat them in the same order"
                )
            yield batch


def _reader(data: Any, batch_size: int | None, target: Target | None) -> tuple[Pass, list[torch.Generator], bool]:
    """A function that starts a pass, the random generators that it draws from, and whether all is in memory."""
    if isinstance(data, Fingerprinted):
        read, generators, in_memory = _reader(data.data, batch_size, target)
        return lambda: data.watched(read()), generators, in_memory
    if batch_size is not None:
        _checks.positive_int(batch_size, "batch_size")
    if isinstance(data, Dataset) or hasattr(data, "__getitems__"):  # Hugging Face's data sets have it
        data = DataLoader(data, batch_size=batch_size or 256)
    if isinstance(data, DataLoader):
        return lambda: (Batch(*_split(batch, target)) for batch in data), _generators(data), False
    parts = _in_memory(data, target)
    n, size = _length(parts), batch_size or _fitting(parts[0])
    rows = [slice(i, i + size) for i in range(0, n, size)]
    return lambda: (Batch(*_split(_one([_cut(part, r) for part in parts]), target)) for r in rows), [], True


def fitting(answer: Callable[[Any], Any], data: Any, target: Target | None = None) -> int | None:
    """How many examples a batch should have, by the largest tensor in `answer(inputs)`, measured on a few.

    None for a loader, whose batches are what they are, and for a few examples.
    """
    data = data.data if isinstance(data, Fingerprinted) else data
    if isinstance(data, (DataLoader, Dataset)) or hasattr(data, "__getitems__") or count(data) <= FEW:
        return None
    two, four = (next(iter(Source(data, n, target).once())) for n in (2, 4))
    sizes = []
    for batch in (two, four):
        with Sizes() as seen:
            answer(nested.copied(batch.inputs))
        sizes.append([sum(x.numel() for x in nested.tensors(batch.inputs)), *seen.found])
    each = max(more - less for less, more in zip(*sizes, strict=True)) // 2  # what does not grow is a weight
    return _examples(each)


class Sizes(TorchDispatchMode):
    """Notes how many numbers each operator inside the block gives, or holds."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip it would import torch's compiler, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = max((x.numel() for x in nested.tensors(result)), default=0)
        self.found.append(given * INSIDE.get(func._schema.name, 1))
        return result


def cut(data: Any, batch_size: int | None, most: int, target: Target | None = None) -> tuple[list[Any], int]:
    """At most `most` pieces of the examples, each of whole batches, and the size of a batch."""
    if isinstance(data, (Dataset, DataLoader)):
        raise TypeError("data must be tensors or arrays where an executor shares them out, got a loader or a data set")
    if batch_size is not None:
        _checks.positive_int(batch_size, "batch_size")
    parts = _in_memory(data, target)
    n, size = _length(parts), batch_size or _fitting(parts[0])
    step = size * -(-n // (size * most))
    # copies: a slice would travel with all of its tensor's memory
    return [_one([nested.copied(_cut(part, slice(i, i + step))) for part in parts]) for i in range(0, n, step)], size


def count(data: Any) -> int:
    """How many examples there are, if the data tell."""
    if isinstance(data, DataLoader):
        return count(data.dataset)
    if isinstance(data, Dataset) or hasattr(data, "__getitems__"):
        if not hasattr(data, "__len__"):
            raise TypeError("data must tell its length for a table in a file")
        return len(data)
    return _length(_in_memory(data, None))


def _generators(loader: "DataLoader[Any]") -> list[torch.Generator]:
    owners = (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(generator): generator for generator in found if isinstance(generator, torch.Generator)}.values())


def _in_memory(data: Any, target: Target | None) -> list[Any]:
    """The parts of the data, tensors or dicts of tensors with one row an example: inputs, or inputs and targets."""
    if target is None:
        inputs, targets = _pair(data)
        named = {"inputs": inputs} if targets is None else {"inputs": inputs, "targets": targets}
    else:
        whole = data if isinstance(data, (tuple, list)) else [data]
        named = {f"part {k} of data": part for k, part in enumerate(whole)}
    found: dict[str, Tensor] = {}
    parts = [_tensors(part, name, found) for name, part in named.items()]
    if len({len(tensor) if tensor.ndim else None for tensor in found.values()}) > 1:
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in found.values())
        raise ValueError(f"{' and '.join(found)} must have one row an example, got shapes {shapes}")
    if not found or next(iter(found.values())).ndim == 0 or _length(parts) == 0:
        raise ValueError("data must hold at least one calibration example")
    return parts


def _tensors(values: Any, name: str, found: dict[str, Tensor]) -> Any:
    """A tensor or an array, or those in a dict, as tensors, which are also put into `found` by name."""
    if isinstance(values, Mapping):
        return {key: _tensors(value, f"{name}[{key!r}]", found) for key, value in values.items()}
    found[name] = _tensor(values, name)
    return found[name]


def _length(parts: list[Any]) -> int:
    return len(nested.tensors(parts)[0])


def _cut(part: Any, rows: slice) -> Any:
    return {key: _cut(value, rows) for key, value in part.items()} if isinstance(part, dict) else part[rows]


def _one(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else tuple(parts)


def _fitting(part: Any) -> int:
    """How many examples a batch has by its inputs alone."""
    found = nested.tensors(part)
    each = sum(x.numel() for x in found) // len(found[0])
    return _examples(each)


def _examples(each: int) -> int:
    """How many examples a batch has if so many numbers are in the largest tensor of each."""
    fitting = BATCH_ELEMENTS // max(each, 1)
    return min(max(fitting, min(LEAST, 2 * fitting), 1), MOST_EXAMPLES)


def _split(batch: Any, target: Target | None) -> tuple[Any, Any]:
    """Inputs and targets of a batch, which is all input where a function finds the targets."""
    return _pair(batch) if target is None else (batch, target(batch))


def _pair(batch: Any) -> tuple[Any, Any]:
    """Inputs and targets; None for targets that are not there. A list of texts is inputs, as is a packed sequence."""
    texts = isinstance(batch, (tuple, list)) and len(batch) > 0 and all(isinstance(part, str) for part in batch)
    if not isinstance(batch, (tuple, list)) or texts or hasattr(batch, "to"):
        return batch, None
    if len(batch) == 1:
        return batch[0], None
    if len(batch) != 2:
        raise ValueError(
            f"data must be inputs or (inputs, targets), got {len(batch)} parts: say which is what, "
            "call=lambda model, batch: model(*batch[:-1]), target=lambda batch: batch[-1] for example"
        )
    return batch[0], batch[1]


def _tensor(values: Any, name: str) -> Tensor:
    if not isinstance(values, (Tensor, np.ndarray)):
        raise TypeError(
            f"{name} must be a tensor, an array or a dict of them, or data a DataLoader; got {type(values).__name__}"
        )
    if isinstance(values, Tensor) and values.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, or data a DataLoader of such batches; got {values.layout}")
    return torch.as_tensor(np.require(values, requirements=["C", "W"]) if isinstance(values, np.ndarray) else values)
