"""Which examples were read, and in which order: a checksum taken on the way."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from confprune_edu.pruning import state


class Fingerprinted:
    """Data whose SHA-256, in the order of the examples, is taken in the first whole pass over them.

    `sha256` is None before, and for batches that hold more than tensors, arrays, texts and numbers. How tensors are cut
    into batches does not matter.
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self.sha256: str | None = None

    def watched(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches, (inputs, targets, ...), as they come; looked at where no pass was whole before."""
        parts: dict[int, Any] | None = {} if self.sha256 is None else None
        for batch in batches:
            if parts is not None:
                parts = _with(parts, batch[:2])
            yield batch
        if parts:
            self.sha256 = hashlib.sha256("".join(part.hexdigest() for part in parts.values()).encode()).hexdigest()


def _with(parts: dict[int, Any], batch: Any) -> dict[int, Any] | None:
    """`parts`, a checksum for each leaf of a batch, with this batch; None if it has a leaf that can not be read."""
    for i, leaf in enumerate(tree_leaves(batch)):
        if leaf is None:
            continue
        if (raw := _raw(leaf)) is None:
            return None
        kind = f"{leaf.dtype} {tuple(leaf.shape[1:])}" if hasattr(leaf, "dtype") else type(leaf).__name__
        parts.setdefault(i, hashlib.sha256(kind.encode())).update(raw)
    return parts


def _raw(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.layout == torch.strided and not leaf.is_quantized:
        return state.raw(leaf)
    if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind != "O":
        return leaf.tobytes()
    return repr(leaf).encode() if isinstance(leaf, str | bytes | int | float) else None
