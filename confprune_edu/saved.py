"""A network and its certificate in one safetensors file: weights as ever, the record in the file's metadata.

What is kept here shows that a file has changed. It is no signature: who can write a file can also certify another.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from confprune_edu import __version__, pruning
from confprune_edu.engine.tables import new_file

RECORD, CHECKSUM = "certificate", "certificate_sha256"  # names in the metadata


class Kept(NamedTuple):
    """What a record says of one tensor of its file."""

    dtype: str
    shape: list[int]
    zeros: int
    sha256: str


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The state of a network, by name; a tensor that has several names under its first one.

    >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> model[1].weight = model[0].weight
    >>> list(tensors_of(model))
    ['0.weight']
    """
    first: dict[Any, str] = {}
    state = {plain_name(name): value for name, value in model.state_dict().items()}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.dtype == torch.complex128:
            raise ValueError(f"model: {name} is of a type that safetensors files do not hold")
        first.setdefault((pruning.memory(tensor), tensor.shape, tensor.stride()), name)
    return {name: state[name].detach().cpu().contiguous().clone() for name in first.values()}


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that are no part of a network's state: no file holds them, and what the network computes needs them.

    >>> buffers_of(nn.BatchNorm1d(2))
    {}
    """
    state = {plain_name(name) for name in model.state_dict()}
    return {plain_name(name): b for name, b in model.named_buffers() if plain_name(name) not in state}


def plain_name(name: str) -> str:
    """The name of a tensor in a network that torch.compile has not wrapped."""
    return name.replace("_orig_mod.", "")


def described(tensors: Mapping[str, Tensor]) -> dict[str, Kept]:
    """What a record says of these tensors, by name."""
    return {
        name: Kept(str(tensor.dtype), list(tensor.shape), int((tensor == 0).sum()), pruning.digest({"": tensor}))
        for name, tensor in tensors.items()
    }


def about(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    prunable: Sequence[str],
    network: str | None,
    date: str | None,
) -> dict[str, Any]:
    """What a record says of the pruned network in its file, whose `tensors_of` it gives."""
    if not all(isinstance(text, str | None) for text in (network, date)):
        raise TypeError(f"network and date must be text, got {network!r} and {date!r}")
    return {
        "network": network or type(model).__name__,
        "date": date,
        "versions": {"confprune_edu": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "prunable": [plain_name(name) for name in prunable],
        "tensors": described(tensors),
        "buffers": described(buffers_of(model)),
    }


def write(path: Path, tensors: Mapping[str, Tensor], record: str) -> None:
    """Tensors and record as one new file; FileExistsError where there is one already."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: there is no folder {path.parent}")
    metadata = {"format": "pt", RECORD: record, CHECKSUM: hashlib.sha256(record.encode()).hexdigest()}
    with new_file(path, "path") as beside:
        safetensors.torch.save_file(dict(tensors), beside, metadata)


def read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Record and tensors of a file; ValueError where it is damaged, or its record is missing or was edited."""
    if not path.is_file():
        raise FileNotFoundError(f"path: there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, NotImplementedError, KeyError) as problem:
        raise ValueError(f"{path.name} is no safetensors file, or a damaged one: {problem}") from None
    if RECORD not in metadata:
        raise ValueError(f"{path.name} holds no certificate: its metadata lack {RECORD!r}")
    if metadata.get(CHECKSUM) != hashlib.sha256(metadata[RECORD].encode()).hexdigest():
        raise ValueError(f"the certificate in {path.name} was edited: its checksum is another")
    return metadata[RECORD], tensors


def check(tensors: Mapping[str, Tensor], known: Mapping[str, Any], where: str = "") -> None:
    """ValueError that names the first tensor which is not the one that was certified."""
    if missing := [name for name in known if name not in tensors]:
        raise ValueError(f"{where}{missing[0]} is missing, the first of {len(missing)} tensors that are")
    if new := [name for name in tensors if name not in known]:
        raise ValueError(f"{where}{new[0]} is new, the first of {len(new)} tensors that the certificate does not know")
    for name, now in described(tensors).items():
        then = Kept(*known[name])
        if now.dtype != then.dtype:
            raise ValueError(
                f"{where}{name} is {now.dtype} and was certified as {then.dtype}: that is another function"
            )
        if now.shape != then.shape:
            raise ValueError(f"{where}{name} has shape {now.shape} and was certified with {then.shape}")
        if now != then:
            raise ValueError(f"{where}{name} has other values than the tensor that was certified")


def check_zeros(about: Mapping[str, Any], ratio: float | None, prunable: int | None) -> None:
    """ValueError where a file's record tells of fewer zeros than the ratio that was certified, or of other weights."""
    kept = [Kept(*about["tensors"][name]) for name in about["prunable"]]
    zeros, entries = sum(k.zeros for k in kept), sum(math.prod(k.shape) for k in kept)
    if prunable not in (None, entries):
        raise ValueError(f"the certificate is about {prunable:,} prunable weights, and the file has {entries:,}")
    if ratio is None or zeros < round(ratio * entries):
        raise ValueError(f"{zeros:,} of {entries:,} prunable weights are zero, fewer than the certified ratio {ratio}")
