"""TODO"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset

from confprune_edu import _checks, pruning
from confprune_edu.engine import executors

Batches = Callable[[], Iterable[tuple[Any, Any, Any]]]  # a pass over (inputs, targets or None, mark or None)

# Numbers in one batch of inputs: larger batches leave the processor's cache and are slower, above all where each layer
# puts out many channels.
BATCH_ELEMENTS, CONVOLUTION_ELEMENTS = 2**20, 2**18


def _batches(data: Any, batch_size: int | None, elements: int) -> tuple[Batches, list[torch.Generator]]:
    """A function that starts a pass over the examples, and the generators that the pass draws from."""
    if batch_size is not None:
        _checks.positive_int(batch_size, "batch_size")
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size=batch_size or 256)
    if isinstance(data, DataLoader):
        loader: DataLoader[Any] = data
        owners = (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
        drawn_from = [getattr(owner, "generator", None) for owner in owners]
        generators = {id(g): g for g in drawn_from if isinstance(g, torch.Generator)}
        return lambda: ((*pair, _mark(pair[0])) for pair in map(_pair, loader)), list(generators.values())
    x, y = _rows(data)
    size = batch_size or _batch_rows(x, elements)
    rows = [slice(i, i + size) for i in range(0, len(x), size)]
    return lambda: ((x[r], None if y is None else y[r], None) for r in rows), []


def _rows(data: Any) -> tuple[Tensor, Tensor | None]:
    """Tensors of inputs and targets with one row an example."""
    inputs, targets = _pair(data)
    x = _tensor(inputs, "inputs")
    y = None if targets is None else _tensor(targets, "targets")
    if y is not None and (y.ndim == 0 or x.ndim == 0 or len(y) != len(x)):
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"inputs and targets must have one row an example, got shapes {shapes}")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError("data must hold at least one calibration example")
    return x, y


def _batch_rows(x: Tensor, elements: int) -> int:
    return min(max(elements * len(x) // max(x.numel(), 1), 1), 1280)


def _cut(data: Any, batch_size: int | None, convolves: bool) -> tuple[list[Any], int]:
    """Pieces of the examples, whole batches each, and the size of a batch."""
    if isinstance(data, (Dataset, DataLoader)):
        raise TypeError("data must be tensors or arrays where an executor shares them out, got a loader or a data set")
    x, y = _rows(data)
    size = batch_size or _batch_rows(x, CONVOLUTION_ELEMENTS if convolves else BATCH_ELEMENTS)
    step = size * -(-len(x) // (size * executors.PIECES))
    ends = [slice(i, i + step) for i in range(0, len(x), step)]
    # clones: a slice would travel with all of its tensor's memory
    return [x[r].clone() if y is None else (x[r].clone(), y[r].clone()) for r in ends], size


def _examples(data: Any) -> int:
    """How many examples there are, where the data tell."""
    if isinstance(data, DataLoader):
        return _examples(data.dataset)
    if isinstance(data, Dataset):
        if not hasattr(data, "__len__"):
            raise TypeError("data must tell its length for a table in a file")
        return len(data)
    return len(_rows(data)[0])


def _pair(batch: Any) -> tuple[Any, Any]:
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


def _mark(x: Any) -> Any:
    """Enough of a loader's batch to notice that another pass gave other examples."""
    tensors = [part for part in tree_leaves(x) if isinstance(part, Tensor)]
    return pruning.digest({str(i): tensor for i, tensor in enumerate(tensors)})
