"""Tensors, alone or in whatever holds them: lists, tuples, dicts, and objects with attributes."""

import copy
import hashlib
import math
import pickle
from collections import deque
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from confprune_edu import pruning


def tensors(value: Any) -> list[Tensor]:
    """The tensors in a structure, in its order."""
    if isinstance(value, Tensor):
        return [value]
    return [leaf for _, leaf in _leaves(value, "", set()) if isinstance(leaf, Tensor)]


def copied(value: Any) -> Any:
    """A copy, into which a network or a loss may write; TypeError if there is none."""
    if isinstance(value, Tensor):
        return value.clone()
    try:
        return copy.deepcopy(value, {id(tensor): tensor.clone() for tensor in tensors(value)})
    except Exception as problem:
        raise TypeError(
            f"data: a {type(value).__name__} cannot be copied, so that every ratio sees the same: {problem}"
        ) from problem


def moved(value: Any, device: torch.device) -> Any:
    """The same on `device`: tensors, and all else that has a method `to`, of which a copy is moved."""

    def to(part: Any) -> Any:
        if isinstance(part, Tensor):
            return part if part.device == device else part.to(device)  # torch 2.6 moves no ragged tensor
        elsewhere = hasattr(part, "to") and any(tensor.device != device for tensor in tensors(part))
        return copied(part).to(device) if elsewhere else part

    return tree_map(to, value, is_leaf=lambda part: hasattr(part, "to"))


def row_major(value: Any) -> Any:
    """The same structure with its tensors row by row in memory, so that a loss may apply `view` to them."""
    return tree_map_only(Tensor, lambda t: t.contiguous() if _dense(t) else t, value)


def untouched(given: Any, inputs: Any) -> bool:
    """Is `given`, a copy of `inputs`, unchanged? False where that is not sure: no dense tensor, or a NaN in it."""
    return isinstance(given, Tensor) and _dense(given) and torch.equal(given, inputs)


def close(one: Any, other: Any) -> bool:
    """Are the tensors of two structures equal, up to a thousandth of the largest number?"""
    own, others = ([part.detach() for t in tensors(value) for part in _strided(t)] for value in (one, other))
    return len(own) == len(others) and all(map(_near, own, others))


def _near(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or not one.numel():
        return one.shape == other.shape
    a, b = one.to(torch.complex128), other.to(torch.complex128)
    slack = 1e-3 * b.abs().nan_to_num(0, 0).max()
    return bool(((a == b) | (a.isnan() & b.isnan()) | ((a - b).abs() <= slack)).all())


def examples(inputs: Any) -> int | None:
    """How many examples a batch has; None if its form does not tell."""
    if isinstance(inputs, Tensor):
        return inputs.size(0) if inputs.ndim else None
    if isinstance(inputs, Mapping):
        found = {examples(value) for value in inputs.values()}
        return found.pop() if len(found) == 1 else None
    return len(inputs) if isinstance(inputs, (list, tuple)) and all(isinstance(x, str) for x in inputs) else None


def digest(value: Any) -> str:
    """A checksum of the tensors, arrays, texts and numbers in a structure, and of where they stand."""
    found = dict(_leaves(value, "", set()))
    strided = {name: _strided(leaf) for name, leaf in found.items()}
    parts = {f"{name} {k}": part for name, own in strided.items() for k, part in enumerate(own)}
    rest = {name: _written(leaf) for name, leaf in found.items() if not strided[name]}
    return hashlib.sha256(f"{pruning.digest(parts)} {sorted(rest.items())}".encode()).hexdigest()


def size(value: Any) -> float:
    """How many bytes a structure takes, about; infinity where that can not be told."""
    return sum(_leaf_size(leaf) for _, leaf in _leaves(value, "", set()))


def _leaf_size(leaf: Any) -> float:
    if parts := _strided(leaf):
        return sum(part.nbytes for part in parts)
    try:
        return len(pickle.dumps(leaf))
    except Exception:  # whatever its class says
        return math.inf


def _written(leaf: Any) -> str:
    """What is no tensor, as text; of what cannot be written down, only that it is there."""
    if isinstance(leaf, (str, bytes, int, float, type(None))):
        return repr(leaf)
    try:
        return hashlib.sha256(pickle.dumps(leaf)).hexdigest()
    except Exception:  # whatever its class says
        return type(leaf).__name__


def _dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested


def _strided(leaf: Any) -> list[Tensor]:
    """The strided tensors that a leaf consists of."""
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc":
        return [torch.as_tensor(np.ascontiguousarray(leaf))]
    if not isinstance(leaf, Tensor):
        return []
    if _dense(leaf):
        return [leaf]
    if leaf.is_nested:
        return list(leaf.unbind())
    return [leaf.to_sparse_coo().coalesce().indices(), leaf.to_sparse_coo().coalesce().values()]


def _leaves(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """What a structure ends in, and where; objects count by their attributes."""
    if isinstance(value, Mapping):
        parts = [(f"{name}[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        parts = [(f"{name}[{k}]", part) for k, part in enumerate(value)]
    elif isinstance(value, (Tensor, nn.Module, type, FunctionType, ModuleType)):
        yield name, value
        return
    elif attributes := _attributes(value):
        parts = [(f"{name}.{key}", part) for key, part in attributes.items()]
    else:
        yield name, value
        return
    if id(value) not in seen:
        for place, part in parts:
            yield from _leaves(part, place, seen | {id(value)})


def _attributes(value: Any) -> dict[str, Any]:
    """What an object holds, in a dict of its own or in slots."""
    slots = [slot for kind in type(value).__mro__ for slot in _names(vars(kind).get("__slots__", ()))]
    return {slot: getattr(value, slot) for slot in slots if hasattr(value, slot)} | getattr(value, "__dict__", {})


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
