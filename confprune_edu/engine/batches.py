"""Examples, in whatever form they come, as batches that stay in the processor's cache."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from confprune_edu import _checks
from confprune_edu.engine import nested
from confprune_edu.engine.fingerprint import Fingerprinted

# Numbers in one batch of inputs. A larger batch leaves the cache and is slower, above all in a convolution, whose
# outputs are often larger than its inputs.
BATCH_ELEMENTS, CONVOLUTION_ELEMENTS = 2**20, 2**18

MOST_EXAMPLES = 1280  # in one batch, however small they are


class Batch(NamedTuple):
    """Some examples. `digest` is that of a loader's inputs, by which the next pass notices that it gives others."""

    inputs: Any
    targets: Any
    digest: str | None


Pass = Callable[[], Iterable[Batch]]  # starts a pass over all examples


def reader(data: Any, batch_size: int | None, elements: int) -> tuple[Pass, list[torch.Generator]]:
    """A function that starts a pass over the examples, and the random generators that a pass draws from."""
    if isinstance(data, Fingerprinted):
        read, generators = reader(data.data, batch_size, elements)
        return lambda: data.watched(read()), generators
    if batch_size is not None:
        _checks.positive_int(batch_size, "batch_size")
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size=batch_size or 256)
    if isinstance(data, DataLoader):
        return lambda: _loaded(data), _generators(data)
    x, y = _in_memory(data)
    size = batch_size or _fitting(x, elements)
    rows = [slice(i, i + size) for i in range(0, len(x), size)]
    return lambda: (Batch(x[r], None if y is None else y[r], None) for r in rows), []


def elements(model: nn.Module) -> int:
    """How many numbers the inputs of one batch should hold for this model."""
    convolves = any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules())
    return CONVOLUTION_ELEMENTS if convolves else BATCH_ELEMENTS


def cut(data: Any, batch_size: int | None, elements: int, most: int) -> tuple[list[Any], int]:
    """At most `most` pieces of the examples, each of whole batches, and the size of a batch."""
    if isinstance(data, (Dataset, DataLoader)):
        raise TypeError("data must be tensors or arrays where an executor shares them out, got a loader or a data set")
    if batch_size is not None:
        _checks.positive_int(batch_size, "batch_size")
    x, y = _in_memory(data)
    size = batch_size or _fitting(x, elements)
    step = size * -(-len(x) // (size * most))
    ends = [slice(i, i + step) for i in range(0, len(x), step)]
    # clones: a slice would travel with all of its tensor's memory
    return [x[r].clone() if y is None else (x[r].clone(), y[r].clone()) for r in ends], size


def count(data: Any) -> int:
    """How many examples there are, if the data tell."""
    if isinstance(data, DataLoader):
        return count(data.dataset)
    if isinstance(data, Dataset):
        if not hasattr(data, "__len__"):
            raise TypeError("data must tell its length for a table in a file")
        return len(data)
    return len(_in_memory(data)[0])


def _loaded(loader: "DataLoader[Any]") -> Iterator[Batch]:
    for inputs, targets in map(_pair, loader):
        yield Batch(inputs, targets, nested.digest(inputs))


def _generators(loader: "DataLoader[Any]") -> list[torch.Generator]:
    owners = (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(generator): generator for generator in found if isinstance(generator, torch.Generator)}.values())


def _in_memory(data: Any) -> tuple[Tensor, Tensor | None]:
    """Inputs and targets as tensors with one row an example."""
    inputs, targets = _pair(data)
    x = _tensor(inputs, "inputs")
    y = None if targets is None else _tensor(targets, "targets")
    if y is not None and (y.ndim == 0 or x.ndim == 0 or len(y) != len(x)):
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"inputs and targets must have one row an example, got shapes {shapes}")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError("data must hold at least one calibration example")
    return x, y


def _fitting(x: Tensor, elements: int) -> int:
    """How many examples have together this many elements."""
    return min(max(elements * len(x) // max(x.numel(), 1), 1), MOST_EXAMPLES)


def _pair(batch: Any) -> tuple[Any, Any]:
    """Inputs and targets; None for targets that are not there."""
    if not isinstance(batch, (tuple, list)):
        return batch, None
    if len(batch) == 1:
        return batch[0], None
    if len(batch) != 2:
        raise ValueError(f"data must be inputs or (inputs, targets), got {len(batch)} parts: wrap them in one input")
    return batch[0], batch[1]


def _tensor(values: Any, name: str) -> Tensor:
    if not isinstance(values, (Tensor, np.ndarray)):
        raise TypeError(f"{name} must be a tensor or an array, or data a DataLoader; got {type(values).__name__}")
    return torch.as_tensor(np.require(values, requirements=["C", "W"]) if isinstance(values, np.ndarray) else values)
