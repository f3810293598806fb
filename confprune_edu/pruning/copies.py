"""Pruned copies of a network: scores, one global order, exactly round(ratio * N) weights at zero."""

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from confprune_edu import _checks
from confprune_edu.pruning.criteria import magnitude, prunable, some
from confprune_edu.pruning.state import same_random_state

Finish = Callable[[nn.Module], None]


def prune(model: nn.Module, ratio: float, scores: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A copy of `model` whose round(ratio * N) prunable weights with the smallest scores are zero.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is; the copy has its training mode, device and dtype.
    ratio : float in [0, 1)
        Fraction of the N prunable weights to set to zero. Halves round to even, as `round` does in Python and in
        torch.nn.utils.prune; `sparsity` tells what was achieved.
    scores : dict from name to tensor, optional
        One score a prunable weight, of its shape, without NaN; default `magnitude(model)`. Equal scores go by position.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    TypeError, ValueError
        `ratio` outside [0, 1), no prunable weight, or scores whose names or shapes do not fit.

    Source: Han et al. (2015), arXiv 1506.02626; global order as in Alvarez, arXiv 2408.04759.

    >>> layer = nn.Linear(4, 1)
    >>> layer.weight.data = torch.tensor([[0.1, -0.4, 0.2, -0.3]])
    >>> prune(layer, 0.5).weight.tolist() == [[0.0, layer.weight[0, 1].item(), 0.0, layer.weight[0, 3].item()]]
    True
    """
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float, np.integer, np.floating)):
        raise TypeError(f"ratio must be a number in [0, 1), got {ratio!r}")
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio must lie in [0, 1), got {ratio!r}: it is a fraction, not a number of weights")
    return next(family(model, [float(ratio)], scores))


def family(
    model: nn.Module,
    ratios: Sequence[float] | np.ndarray,
    scores: Mapping[str, Tensor] | None = None,
    finish: Finish | None = None,
) -> Iterator[nn.Module]:
    """Yield the pruned copy at each ratio in turn; the scores are sorted once. Parameters as in `prune`.

    `finish(copy)` is applied to each copy, in eval mode and under a fixed seed, so that one ratio always gives one
    network; it may change anything (batch-norm statistics, biases) but must leave pruned weights at zero. The global
    random state is what it was.

    >>> [round(sparsity(m), 2) for m in family(nn.Linear(10, 10), [0.0, 0.25, 0.9])]
    [0.0, 0.25, 0.9]
    """
    grid = _checks.ratios(ratios)
    rank = global_rank(model, scores)  # checked now, not at the first `next`
    return (_pruned_copy(model, rank, round(ratio * len(rank)), finish) for ratio in grid.tolist())


def sparsity(model: nn.Module) -> float:
    """Fraction of the prunable weights that are zero, in [0, 1].

    >>> round(sparsity(prune(nn.Linear(8, 8), 0.3)), 3)   # 19 of 64
    0.297
    """
    weights = some(prunable(model))
    return sum(int((w == 0).sum()) for w in weights.values()) / sum(w.numel() for w in weights.values())


def global_rank(model: nn.Module, scores: Mapping[str, Tensor] | None) -> Tensor:
    """Rank of every prunable weight, int64 (N,) in the order of `prunable`: 0 is the first to go."""
    weights = some(prunable(model))
    scores = magnitude(model) if scores is None else scores
    if not isinstance(scores, Mapping) or not all(isinstance(s, Tensor) for s in scores.values()):
        raise TypeError("scores must be a dict from the names of prunable(model) to tensors")
    if set(scores) != set(weights):
        odd = sorted(set(scores) ^ set(weights))
        raise ValueError(f"scores must have the names of prunable(model); missing or unknown: {', '.join(odd)}")
    for name, weight in weights.items():
        if scores[name].shape != weight.shape:
            raise ValueError(f"scores[{name!r}] must have shape {tuple(weight.shape)}, got {tuple(scores[name].shape)}")
    mixed = len({score.dtype for score in scores.values()}) > 1  # torch.cat would round int64 to a neighbour's float16
    parts = [scores[name].detach().flatten().cpu() for name in weights]
    flat = torch.cat([part.double() for part in parts] if mixed else parts)
    if flat.isnan().any():
        raise ValueError("scores must not be NaN (are there NaN weights in the model?)")
    rank = torch.empty(len(flat), dtype=torch.int64)
    rank[_ascending(flat)] = torch.arange(len(flat))
    return rank


def _ascending(scores: Tensor) -> Tensor:
    """Positions by ascending score, ties by position.

    Numbers of up to 32 bits are sorted as whole numbers, in which the position is the lower half: ten times as fast.
    """
    if scores.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return torch.argsort(scores, stable=True)
    bits = (scores.float() + 0.0).numpy().view(np.int32).astype(np.int64)  # + 0.0 makes zeros of both signs equal
    keys = (bits ^ (bits >> 31 & 0x7FFFFFFF)) << 32 | np.arange(len(bits))  # the larger, the smaller below zero
    keys.sort()
    return torch.from_numpy(keys & 0xFFFFFFFF)


@torch.no_grad()
def _pruned_copy(model: nn.Module, rank: Tensor, zeros: int, finish: Finish | None) -> nn.Module:
    pruned = twin(model)
    weights = [pruned.get_parameter(name) for name in prunable(model)]
    gone = torch.split(rank < zeros, [w.numel() for w in weights])
    for weight, mask in zip(weights, gone, strict=True):
        weight.masked_fill_(mask.view(weight.shape).to(weight.device), 0)
    if finish is not None:
        _finish(pruned, finish)
        if any(bool(w.cpu().flatten()[mask].any()) for w, mask in zip(weights, gone, strict=True)):
            raise ValueError("finish changed pruned weights: they must stay zero")
    return pruned


def twin(model: nn.Module) -> nn.Module:
    """A deep copy in which parameters that share memory (weights tied through `.data`) still do."""
    first: dict[Any, nn.Parameter] = {}
    copied = copy.deepcopy(model)
    for name, weight in model.named_parameters(remove_duplicate=False):
        key = (weight.data_ptr(), weight.shape, weight.stride())
        twin = copied.get_parameter(name)
        if weight.numel() and not weight.is_meta:
            twin.data = first.setdefault(key, twin).data
    return copied


def _finish(pruned: nn.Module, finish: Finish) -> None:
    pruned.eval()
    with same_random_state(), torch.enable_grad():
        torch.default_generator.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        finish(pruned)
