"""Tensors, alone or in the lists, tuples and dicts that a network takes and gives."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from confprune_edu import pruning


def tensors(value: Any) -> list[Tensor]:
    """The tensors in a structure, in its order."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def copied(value: Any) -> Any:
    """The same structure with copies of its tensors, into which a network or a loss may write."""
    return value.clone() if isinstance(value, Tensor) else tree_map_only(Tensor, Tensor.clone, value)


def moved(value: Any, device: torch.device) -> Any:
    """The same structure with its tensors on `device`."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), value)


def row_major(value: Any) -> Any:
    """The same structure with its tensors row by row in memory, so that a loss may apply `view` to them."""
    return tree_map_only(Tensor, lambda t: t.contiguous() if t.layout == torch.strided else t, value)


def equal(one: Any, other: Any) -> bool:
    """Do two structures hold equal tensors? NaN equals nothing."""
    return all(map(torch.equal, tensors(one), tensors(other)))


def examples(inputs: Any) -> int | None:
    """How many examples a batch has; None if its form does not tell."""
    if isinstance(inputs, dict):
        return examples(next(iter(inputs.values()), None))
    return len(inputs) if isinstance(inputs, Tensor) and inputs.ndim else None


def digest(value: Any) -> str:
    """A checksum of the tensors in a structure."""
    return pruning.digest({str(i): tensor for i, tensor in enumerate(tensors(value))})
