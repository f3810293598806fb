"""What pruning saves: bytes on disk, multiply-adds, seconds."""

import statistics
import time
import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from confprune_edu import _checks
from confprune_edu.pruning.copies import own, twin
from confprune_edu.pruning.criteria import Weights, plain, some, weights_of
from confprune_edu.pruning.state import raw, same_random_state


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
    """The report of `savings`: one `Saving` a layer, their `total`, and seconds a batch (None: not measured)."""

    layers: tuple[Saving, ...]
    seconds: float | None = None
    full_seconds: float | None = None

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
        if self.seconds is None or self.full_seconds is None:
            return "\n".join([*lines, note])
        times = f"{1000 * self.seconds:.3g} ms, the full network's {1000 * self.full_seconds:.3g}"
        faster = f"A batch takes {times} ms: {self.full_seconds / self.seconds:.2f} x as fast, here and now."
        return "\n".join([*lines, note, faster])

    __repr__ = __str__


def savings(
    model: nn.Module,
    inputs: Any = None,
    *,
    weights: Weights | None = None,
    full: nn.Module | None = None,
    repetitions: int = 11,
) -> Savings:
    """What pruning really saves: non-zeros, bytes dense / CSR / compressed, multiply-adds, seconds.

    Parameters
    ----------
    model : torch.nn.Module
        Pruned or not; left as it is.
    inputs : tensor, shape (batch, ...), optional
        A batch to run through the model: how often each weight is used depends on it. Without it multiply-adds are
        None, as they are for layers that torch does not know.
    weights : list of str, or callable, optional
        Which parameters are counted, see `prunable`.
    full : torch.nn.Module, optional
        The network that `model` was made of: both are timed on `inputs`, in turn, so that they meet the same machine.
    repetitions : int
        Of which the median counts.

    Returns
    -------
    Savings
        `.layers`, one `Saving` a prunable weight, and `.total`; prints as a table. `csr` counts values, 4-byte columns
        and 4-byte row pointers of the weight as a matrix (outputs, rest); `compressed` is zlib's size of the dense
        bytes. Biases and norms are not counted. Fewer non-zero multiply-adds save time only with a kernel that skips
        zeros. `seconds` and `full_seconds` a batch are those of this machine, its threads, its other work and this size
        of batch: their quotient says more than either, and is another one elsewhere.

    >>> from confprune_edu.pruning import prune
    >>> print(savings(prune(nn.Linear(300, 100), 0.9), torch.ones(1, 300)).total.nonzero)
    3000
    """
    chosen = some(model, weights)
    uses = {} if inputs is None else _uses(model, inputs, list(chosen))
    layers = tuple(_saving(name, weight.detach().cpu(), uses.get(name)) for name, weight in chosen.items())
    if full is None:
        return Savings(layers)
    if inputs is None:
        raise ValueError("full: the two networks are timed on inputs, which must be given")
    return Savings(layers, *_seconds([model, full], inputs, _checks.positive_int(repetitions, "repetitions")))


def _seconds(networks: list[nn.Module], inputs: Any, repetitions: int) -> list[float]:
    """The median time of each network on a batch, after a call that warms it up; the networks take turns."""
    copies = [twin(network).eval() for network in networks]
    found: list[list[float]] = [[] for _ in copies]
    with same_random_state(), torch.inference_mode():
        for turn in range(repetitions + 1):
            for times, network in zip(found, copies, strict=True):
                given, begin = own(inputs), _clock()
                network(given)
                times.extend([_clock() - begin] if turn else [])
    return [statistics.median(times) for times in found]


def _clock() -> float:
    """Seconds, once the device has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:,}"


def _saving(name: str, weight: Tensor, uses: float | None) -> Saving:
    nonzero, size = int(weight.count_nonzero()), weight.element_size()
    dense = weight.numel() * size
    compressed = len(zlib.compress(raw(weight)))
    csr = nonzero * (size + 4) + (weight.shape[0] + 1) * 4
    work = () if uses is None else (round(weight.numel() * uses), round(nonzero * uses))
    return Saving(name, weight.numel(), nonzero, dense, csr, compressed, *work)


def _uses(model: nn.Module, inputs: Any, chosen: list[str]) -> dict[str, float]:
    """How often each weight is multiplied for one example of `inputs`, by parameter name."""
    probe = twin(model).eval()
    names = {probe.get_parameter(name).data_ptr(): name for name in chosen}
    known = {name for name in chosen if name.rpartition(".")[2] in weights_of(_owner(probe, name))}
    uses = dict.fromkeys(known, 0.0)

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        for weight, times in _times_used(module, args, kwargs, output):
            if names.get(weight.data_ptr()) in known:
                uses[names[weight.data_ptr()]] += times / len(inputs)

    for module in probe.modules():
        module.register_forward_hook(count, with_kwargs=True)
    with same_random_state(), torch.inference_mode():
        probe(own(inputs))
    return uses


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _times_used(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> list[tuple[Tensor, float]]:
    """The weights of `module` and how often one call multiplies each of their entries, over the whole batch."""
    weights = [plain(module, attribute, attribute) for attribute in weights_of(module)]
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
