"""What must not change unnoticed: the values of a network, and the global random states."""

import contextlib
import hashlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of a network's parameters and buffers.

    >>> fingerprint(nn.Linear(2, 2)) == fingerprint(nn.Linear(2, 2))
    False
    """
    return digest(dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors: names, dtypes, shapes and bytes, in the order of the names.

    >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(2, 1)})
    False
    """
    sha = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(_bytes(value))
    return sha.hexdigest()


@contextlib.contextmanager
def same_random_state(*generators: torch.Generator) -> Iterator[None]:
    """Give the global random states of torch, numpy and python (and these generators) back as they were."""
    before, states = random_state(), [g.get_state() for g in generators]
    try:
        yield
    finally:
        set_random_state(before)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def random_state() -> tuple[Any, ...]:
    """The global random states of torch, numpy and python: a model, a loss or a data set may draw from them."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), cuda, np.random.get_state(), random.getstate()  # noqa: NPY002


def set_random_state(state: tuple[Any, ...]) -> None:
    """Make the global random states what `random_state` gave."""
    torch.set_rng_state(state[0])
    if torch.cuda.is_initialized():
        torch.cuda.set_rng_state_all(state[1])
    np.random.set_state(state[2])  # noqa: NPY002
    random.setstate(state[3])


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
