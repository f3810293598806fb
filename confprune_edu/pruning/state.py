"""What must not change unnoticed: the values of a network, and the global random states."""

import contextlib
import hashlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def checked_network(model: Any) -> nn.Module:
    """`model`, which must be a network."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return model


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of a network's parameters and buffers.

    >>> fingerprint(nn.Linear(2, 2)) == fingerprint(nn.Linear(2, 2))
    False
    """
    checked_network(model)
    return digest(dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors: names, dtypes, shapes and bytes, in the order of the names.

    >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(2, 1)})
    False
    """
    sha = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(raw(value))
    return sha.hexdigest()


def digests(model: nn.Module) -> dict[str, str]:
    """A short checksum of each parameter and buffer of a network, by name.

    >>> digests(nn.Linear(2, 2).half())["bias"] == digests(nn.Linear(2, 2))["bias"]
    False
    """
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: digest({"": tensor})[:16] for name, tensor in named}


def difference(known: Mapping[str, str], model: nn.Module) -> str:
    """In what a model differs from one that had these `digests`, in words.

    >>> difference(digests(nn.Linear(2, 2)), nn.Linear(3, 2))
    'weight differs, the first of 2 tensors that do'
    """
    own, buffers = digests(model), dict(model.named_buffers())
    names = [name for name in {**known, **own} if known.get(name) != own.get(name)]
    first = names[0] if names else ""
    if sorted(known.values()) == sorted(own.values()):
        one, other = (next((name for name in part if name in names), "") for part in (known, own))
        return f"only names differ, {one} is called {other} here"
    what = "differs" if first in known and first in own else "is new" if first in own else "is missing"
    only = "only buffers differ: " if all(name in buffers for name in names) else ""
    return f"{only}{first} {what}, the first of {len(names)} tensors that do"


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


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Draw the same numbers each time from the global random states, with gradients on; the states stay as they were.

    >>> with repeatable():
    ...     first = torch.rand(1)
    >>> with repeatable():
    ...     print(bool(torch.rand(1) == first))
    True
    """
    with same_random_state(), torch.enable_grad():
        torch.default_generator.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        yield


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


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a dense tensor, entry after entry.

    >>> bytes(raw(torch.tensor([1, 2], dtype=torch.uint8)))
    b'\\x01\\x02'
    """
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8).numpy().data
