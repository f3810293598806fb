"""Pruned copies of a network: scores, one global order, exactly round(ratio * N) weights at zero."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from confprune_edu import _checks
from confprune_edu.pruning.criteria import Weights, extent, magnitude, memory, some
from confprune_edu.pruning.state import digest, repeatable

Finish = Callable[[nn.Module], None]

SINGLE = (torch.float32, torch.float16, torch.bfloat16)  # floats of at most 32 bits
CHUNK = 2**16  # entries that are looked at together, where all of them would take memory


def prune(
    model: nn.Module, ratio: float, scores: Mapping[str, Tensor] | None = None, *, weights: Weights | None = None
) -> nn.Module:
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
    weights : list of str, or callable, optional
        Which parameters may go, see `prunable`.

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
    return next(family(model, [float(ratio)], scores, weights=weights))


def family(
    model: nn.Module,
    ratios: Sequence[float] | np.ndarray,
    scores: Mapping[str, Tensor] | None = None,
    finish: Finish | None = None,
    *,
    weights: Weights | None = None,
) -> Iterator[nn.Module]:
    """Yield the pruned copy at each ratio in turn; the scores are sorted once. Parameters as in `prune`.

    `finish(copy)` is applied to each copy, in eval mode and under a fixed seed, so that one ratio always gives one
    network; it may change anything (batch-norm statistics, biases) but must leave pruned weights at zero. The global
    random state is what it was.

    >>> [round(sparsity(m), 2) for m in family(nn.Linear(10, 10), [0.0, 0.25, 0.9])]
    [0.0, 0.25, 0.9]
    """
    grid = _checks.ratios(ratios)
    order = global_order(model, scores, weights)  # checked now, not at the first `next`
    names = list(some(model, weights))
    return (pruned_copy(model, names, order, round(ratio * len(order)), finish) for ratio in grid.tolist())


def sparsity(model: nn.Module, weights: Weights | None = None) -> float:
    """Fraction of the prunable weights that are zero, in [0, 1]. `weights` as in `prunable`.

    >>> round(sparsity(prune(nn.Linear(8, 8), 0.3)), 3)   # 19 of 64
    0.297
    """
    found = extent(model, weights)
    return found.zeros / found.prunable


def global_order(model: nn.Module, scores: Mapping[str, Tensor] | None, weights: Weights | None = None) -> Tensor:
    """The positions of all prunable weights, from the first to go to the last; equal scores go by position.

    Positions count through the weights in the order of `prunable`: int32 (N,), beyond 2^31 of them int64.

    >>> layer = nn.Linear(3, 1)
    >>> global_order(layer, {"weight": torch.tensor([[0.3, 0.1, 0.3]])}).tolist()
    [1, 0, 2]
    """
    given = dict(some(model, weights)) if scores is None else checked_scores(model, scores, weights)
    of = torch.abs if scores is None else torch.detach

    def pieces() -> Iterator[Tensor]:  # all magnitudes together are as large as the model
        for score in given.values():
            for piece in score.detach().flatten().split(CHUNK):
                piece = of(piece).cpu()
                if piece.isnan().any():
                    raise ValueError("scores must not be NaN (are there NaN weights in the model?)")
                yield piece

    dtypes = {of(score.new_empty(0)).dtype for score in given.values()}
    n = sum(score.numel() for score in given.values())
    if n < 2**31 and dtypes.issubset(SINGLE):
        return _by_keys(pieces(), n)
    common = dtypes.pop() if len(dtypes) == 1 else torch.float64  # torch.cat would round int64 to float16 beside it
    order = torch.argsort(torch.cat([piece.to(common) for piece in pieces()]), stable=True)
    return order.int() if n < 2**31 else order


def _by_keys(pieces: Iterable[Tensor], n: int) -> Tensor:
    """The stable order of n scores in a third of the time of `argsort`: NumPy sorts integers by vector instructions.

    The bits of a float, those of negative numbers turned, stand in the order of the floats; before the position, in
    one number, they make a key that no other score has. Nothing else is kept: the positions take the place of the keys.
    """
    keys, stop = np.empty(n, np.int64), 0
    for piece in pieces:
        start, stop = stop, stop + len(piece)
        bits = piece.float().view(torch.int32).long()
        bits = torch.where(bits < 0, -(2**31) - bits, bits)  # -0.0 becomes 0
        keys[start:stop] = (bits * 2**32 + torch.arange(start, stop)).numpy()
    keys.sort()
    for start in range(0, n, CHUNK):
        places = keys[start : start + CHUNK] & (2**32 - 1)
        keys.view(np.int32)[start : start + len(places)] = places
    keys.resize((n + 1) // 2, refcheck=False)
    return torch.from_numpy(keys.view(np.int32)[:n])


def checked_scores(
    model: nn.Module, scores: Mapping[str, Tensor] | None, weights: Weights | None = None
) -> dict[str, Tensor]:
    """One score a prunable weight, in the order of `prunable`; magnitude if there are none. Refused by name."""
    chosen = some(model, weights)
    scores = magnitude(model, weights) if scores is None else scores
    if not isinstance(scores, Mapping) or not all(isinstance(s, Tensor) for s in scores.values()):
        raise TypeError("scores must be a dict from the names of prunable(model) to tensors")
    if set(scores) != set(chosen):
        odd = sorted(set(scores) ^ set(chosen))
        raise ValueError(f"scores must have the names of prunable(model); missing or unknown: {', '.join(odd)}")
    for name, weight in chosen.items():
        if scores[name].shape != weight.shape:
            raise ValueError(f"scores[{name!r}] must have shape {tuple(weight.shape)}, got {tuple(scores[name].shape)}")
    return {name: scores[name] for name in chosen}


@torch.no_grad()
def pruned_copy(model: nn.Module, names: list[str], order: Tensor, zeros: int, finish: Finish | None) -> nn.Module:
    """A copy of `model` in which the first `zeros` of the named weights, in that order, are zero; finished."""
    pruned = twin(model)
    weights = [pruned.get_parameter(name) for name in names]
    mask = torch.zeros(len(order), dtype=torch.bool)
    for places in order[:zeros].split(CHUNK):
        mask[places.long()] = True
    gone = mask.split([w.numel() for w in weights])
    for weight, mask in zip(weights, gone, strict=True):
        weight.masked_fill_(mask.view(weight.shape).to(weight.device), 0)
    if finish is not None:
        pruned.eval()
        with repeatable():
            finish(pruned)
        if any(bool(w.cpu().flatten()[mask].any()) for w, mask in zip(weights, gone, strict=True)):
            raise ValueError("finish changed pruned weights: they must stay zero")
    return pruned


def twin(model: nn.Module, shared: Iterable[Any] = ()) -> nn.Module:
    """A deep copy in which tensors that share memory, weights tied through `.data` for example, still do.

    The parts `shared` are not copied: both models hold them.

    Raises
    ------
    ValueError
        Something in the model cannot be copied, or its copy shares weights with it or has others.
    """
    first: dict[Any, nn.Parameter] = {}
    common = list(shared)
    kept = set(map(id, common))
    try:
        copied = copy.deepcopy(model, _copies(model, sharing(common)))
    except Exception as problem:
        raise ValueError(f"model cannot be copied: {_culprit(model)}: {problem}") from problem
    own = dict(copied.named_parameters(remove_duplicate=False))
    for name, weight in model.named_parameters(remove_duplicate=False):
        if nn.parameter.is_lazy(weight) or id(weight) in kept:
            continue
        twin = own.get(name)
        if twin is None or (plain(weight) and not same(twin, weight)):
            raise ValueError(f"model: a deep copy of it has another {name}, as its __deepcopy__ has it")
        if weight.numel() and memory(twin) == memory(weight):
            raise ValueError(
                f"model: a deep copy shares {name} with it, as its __deepcopy__ has it: pruning would change both"
            )
        if weight.numel() and not weight.is_meta:
            key = (memory(weight), weight.shape, weight.stride())
            twin.data = first.setdefault(key, twin).data  # where a `__deepcopy__` has untied them
    return copied


def own(inputs: Any) -> Any:
    """A copy, since a network may write into its inputs."""
    return inputs.clone() if isinstance(inputs, Tensor) else copy.deepcopy(inputs)


def tied(model: nn.Module) -> bool:
    """Do some of its parameters share memory, beside those that are one?"""
    own = list(filter(plain, model.parameters()))
    return len({weight.untyped_storage()._cdata for weight in own}) < len(own)


def sharing(parts: Iterable[Any]) -> dict[Any, Any]:
    """The memo for `copy.deepcopy` under which a copy shares these parts, and whatever lies in the tensors' memory."""
    shared = list(parts)
    storages = {w.untyped_storage()._cdata: w.untyped_storage() for w in shared if isinstance(w, Tensor) and plain(w)}
    return {id(part): part for part in shared} | {"torch": storages}  # where torch's own `__deepcopy__` looks


def _copies(model: nn.Module, memo: dict[Any, Any]) -> dict[Any, Any]:
    """The memo with copies of the plain parameters: torch's own way would give each of them memory of its own."""
    for weight in filter(plain, model.parameters()):
        if id(weight) not in memo:
            memo[id(weight)] = nn.Parameter(copy.deepcopy(weight.detach(), memo), weight.requires_grad)
    return memo


def same(one: Tensor, other: Tensor) -> bool:
    """Equal in all, NaN included."""
    alike = one.dtype == other.dtype and one.shape == other.shape
    return alike and (torch.equal(one, other) or digest({"": one}) == digest({"": other}))


def plain(weight: Tensor) -> bool:
    """Has it memory of its own, in which no entry is there twice?"""
    usual = type(weight) in (nn.Parameter, Tensor) and type(weight.data) is Tensor and weight.layout == torch.strided
    return usual and not weight.is_meta and 0 not in weight.stride()


def _culprit(model: nn.Module) -> str:
    """The first attribute of the model that cannot be copied, and what to do about it."""
    for prefix, module in model.named_modules():
        own = {name: value for name, value in vars(module).items() if name != "_modules"}
        for name, value in (own | own.pop("_parameters") | own.pop("_buffers")).items():
            try:
                copy.deepcopy(value)
            except Exception:  # whatever it is, this is where it comes from
                return (
                    f"{f'{prefix}.{name}'.lstrip('.')}, a {type(value).__name__}, cannot; delete it or set it to None "
                    "before calibration (a cached activation: detach it), or leave it out in `__getstate__`"
                )
    return "no attribute alone is to blame"
