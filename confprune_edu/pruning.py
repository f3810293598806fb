"""Pruned copies of a network: scores, one global order, exactly round(ratio * N) weights at zero.

The N prunable weights of the whole network are sorted once by score, ties by position; the network at a ratio is a copy
in which the first round(ratio * N) of that order are zero. So the pruned networks are nested: what is zero at one ratio
is zero at every larger one. The network itself is never changed.
"""

import contextlib
import copy
import hashlib
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from confprune_edu import _checks

Finish = Callable[[nn.Module], None]


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights that may be pruned, by name: those of linear, convolution, recurrent and attention layers.

    Biases, norms and embeddings are left alone. A tensor that several layers share appears once, under its first name;
    one that an embedding shares is an embedding.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    dict from name to parameter, in the order of the model; empty if there is none.

    Raises
    ------
    TypeError
        `model` is not a Module.
    ValueError
        A weight is not a plain parameter with values: re-parametrised (weight norm, masks of torch.nn.utils.prune),
        lazy, or on the meta device. Zeros written into it would be lost.

    >>> list(prunable(nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))))
    ['1.weight', '3.weight']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    modules = list(model.named_modules())
    seen = {m.weight.data_ptr() for _, m in modules if isinstance(m, (nn.Embedding, nn.EmbeddingBag))}
    found = {}
    for prefix, module in modules:
        for attribute in _weights_of(module):
            name = f"{prefix}.{attribute}".lstrip(".")
            weight = _plain(module, attribute, name)
            if weight.numel() and weight.data_ptr() not in seen:
                seen.add(weight.data_ptr())
                found[name] = weight
    return found


def magnitude(model: nn.Module) -> dict[str, Tensor]:
    """|w|, the score of magnitude pruning: small weights go first. One tensor a prunable weight, of its shape.

    Any other criterion is such a dict too.

    >>> layer = nn.Linear(2, 1)
    >>> layer.weight.data = torch.tensor([[-3.0, 2.0]])
    >>> magnitude(layer)
    {'weight': tensor([[3., 2.]])}
    """
    return {name: weight.detach().abs() for name, weight in prunable(model).items()}


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
    weights = _some(prunable(model))
    return sum(int((w == 0).sum()) for w in weights.values()) / sum(w.numel() for w in weights.values())


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


def _weights_of(module: nn.Module) -> list[str]:
    if isinstance(module, (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd)):
        return ["weight"]
    if isinstance(module, nn.RNNCellBase):
        return ["weight_ih", "weight_hh"]
    if isinstance(module, nn.RNNBase):
        return [name for name in module._flat_weights_names if name.startswith("weight")]
    if isinstance(module, nn.MultiheadAttention):
        names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return [name for name in names if getattr(module, name, None) is not None]
    return []


def _plain(module: nn.Module, attribute: str, name: str) -> nn.Parameter:
    weight = module._parameters.get(attribute)
    if weight is None:
        raise ValueError(
            f"model: {name} is computed from other tensors (weight norm, spectral norm, torch.nn.utils.prune): "
            "make it a plain parameter first, with parametrize.remove_parametrizations or prune.remove"
        )
    if isinstance(weight, nn.parameter.UninitializedParameter) or weight.is_meta:
        raise ValueError(
            f"model: {name} has no values yet: run one batch through a lazy model, load a meta model first"
        )
    return weight


def _some(weights: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    if not weights:
        raise ValueError("model has no prunable weight: no linear, convolution, recurrent or attention layer in it")
    return weights


def global_rank(model: nn.Module, scores: Mapping[str, Tensor] | None) -> Tensor:
    """Rank of every prunable weight, int64 (N,) in the order of `prunable`: 0 is the first to go."""
    weights = _some(prunable(model))
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


@dataclass(frozen=True)
class Saving:
    """What the zeros of one weight tensor are worth; sizes in bytes, multiply-adds per example (None: not measured)."""

    name: str
    weights: int
    nonzero: int
    dense: int
    csr: int
    compressed: int
    multiply_adds: int | None = None
    nonzero_multiply_adds: int | None = None


@dataclass(frozen=True)
class Savings:
    """The report of `savings`: one `Saving` a layer, and their `total`."""

    layers: tuple[Saving, ...]

    @property
    def total(self) -> Saving:
        def add(field: str) -> Any:
            values = [getattr(layer, field) for layer in self.layers]
            return None if None in values else sum(values)

        fields = ("weights", "nonzero", "dense", "csr", "compressed", "multiply_adds", "nonzero_multiply_adds")
        return Saving("total", *map(add, fields))

    def __str__(self) -> str:
        head = ("", "weights", "non-zero", "dense", "CSR", "zlib", "mult-adds", "non-zero")
        rows = [head, *((s.name, *map(_cell, list(vars(s).values())[1:])) for s in (*self.layers, self.total))]
        width = [max(len(row[i]) for row in rows) for i in range(len(head))]
        form = "  ".join(f"{{:{'>' if i else '<'}{w}}}" for i, w in enumerate(width))
        lines = [form.format(*row) for row in rows]
        t = self.total
        note = (
            f"A mask alone shrinks nothing: with {1 - t.nonzero / t.weights:.1%} zeros, stored dense they still take\n"
            f"{t.dense:,} bytes, and a dense kernel still does every multiply-add. As CSR they take\n"
            f"{t.csr / t.dense:.2f} x of that, compressed {t.compressed / t.dense:.2f} x."
        )
        return "\n".join([*lines, note])

    __repr__ = __str__


def savings(model: nn.Module, inputs: Any = None) -> Savings:
    """What pruning really saves: non-zeros, bytes dense / CSR / compressed, multiply-adds.

    Parameters
    ----------
    model : torch.nn.Module
        Pruned or not; left as it is.
    inputs : tensor, shape (batch, ...), optional
        A batch to run through the model: how often each weight is used depends on it. Without it multiply-adds are
        None.

    Returns
    -------
    Savings
        `.layers`, one `Saving` a prunable weight, and `.total`; prints as a table. `csr` counts values, 4-byte columns
        and 4-byte row pointers of the weight as a matrix (outputs, rest); `compressed` is zlib's size of the dense
        bytes. Biases and norms are not counted. Fewer non-zero multiply-adds save time only with a kernel that skips
        zeros.

    >>> print(savings(prune(nn.Linear(300, 100), 0.9), torch.ones(1, 300)).total.nonzero)
    3000
    """
    weights = _some(prunable(model))
    uses = {} if inputs is None else _uses(model, inputs)
    return Savings(tuple(_saving(name, weight.detach().cpu(), uses.get(name)) for name, weight in weights.items()))


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:,}"


def _saving(name: str, weight: Tensor, uses: float | None) -> Saving:
    nonzero, size = int(weight.count_nonzero()), weight.element_size()
    dense = weight.numel() * size
    compressed = len(zlib.compress(_bytes(weight)))
    csr = nonzero * (size + 4) + (weight.shape[0] + 1) * 4
    work = () if uses is None else (round(weight.numel() * uses), round(nonzero * uses))
    return Saving(name, weight.numel(), nonzero, dense, csr, compressed, *work)


def _uses(model: nn.Module, inputs: Any) -> dict[str, float]:
    """How often each weight is multiplied for one example of `inputs`, by parameter name."""
    probe = twin(model).eval()
    names = {weight.data_ptr(): name for name, weight in prunable(probe).items()}
    uses = dict.fromkeys(names.values(), 0.0)

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        for weight, times in _times_used(module, args, kwargs, output):
            if weight.data_ptr() in names:
                uses[names[weight.data_ptr()]] += times / len(inputs)

    for module in probe.modules():
        module.register_forward_hook(count, with_kwargs=True)
    with same_random_state(), torch.inference_mode():
        probe(inputs)
    return uses


def _times_used(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> list[tuple[Tensor, float]]:
    """The weights of `module` and how often one call multiplies each of their entries, over the whole batch."""
    weights = [_plain(module, attribute, attribute) for attribute in _weights_of(module)]
    if isinstance(module, nn.MultiheadAttention):
        given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        tokens = [given[name].numel() / given[name].shape[-1] for name in ("query", "key", "value")]
        times = [sum(tokens) / 3] if module.in_proj_weight is not None else tokens
        return [*zip(weights, times, strict=True), (module.out_proj.weight, tokens[0])]
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        steps = next(iter((*args, *kwargs.values()))).data  # a PackedSequence keeps its steps there, a tensor itself
        return [(w, steps.numel() / steps.shape[-1]) for w in weights]
    transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
    rows = next(iter((*args, *kwargs.values()))) if transposed else output
    return [(w, rows.numel() / w.shape[0]) for w in weights]
