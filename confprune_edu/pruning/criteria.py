"""Which weights may go, and in which order: a criterion gives a score to each prunable weight."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor, nn

from confprune_edu.pruning.state import checked_network

# Which weights may go: patterns of parameter names, or a function (name, module, parameter) -> bool.
Weights = Sequence[str] | Callable[[str, nn.Module, nn.Parameter], bool]

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def prunable(model: nn.Module, weights: Weights | None = None) -> dict[str, nn.Parameter]:
    """Weights that may be pruned, by name: those of linear, convolution, recurrent and attention layers.

    Biases, norms and embeddings are left alone. A tensor that several layers share appears once, under its first name;
    one that an embedding shares is an embedding.

    Parameters
    ----------
    model : torch.nn.Module
    weights : list of str, or callable, optional
        In place of that rule: patterns of parameter names (`"*.c_fc.weight"`), or a function (name, module,
        parameter) -> bool that is asked about every parameter of two or more dimensions, those of embeddings and of
        layers unknown to torch included. Names are patterns, too: `[name for name in prunable(model) if ...]` leaves
        some of the usual ones out.

    Returns
    -------
    dict from name to parameter, in the order of the model; empty if there is none.

    Raises
    ------
    TypeError
        `model` is not a Module; `weights` is of another type.
    ValueError
        A weight is not a plain parameter with values: re-parametrised (weight norm, masks of torch.nn.utils.prune),
        lazy, on the meta device, quantised, or in TorchScript. Zeros written into it would be lost. Or a pattern names
        no parameter of two or more dimensions.

    >>> model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    >>> list(prunable(model)), list(prunable(model, ["[01].weight"]))
    (['1.weight', '3.weight'], ['0.weight', '1.weight'])
    """
    checked_network(model)
    if weights is None:
        embedded = [m._parameters.get("weight") for m in model.modules() if isinstance(m, EMBEDDINGS)]
        seen, picked = {memory(w) for w in embedded if w is not None}, _usual(model)
    else:
        seen, picked = set(), _named(model, weights)
    found = {}
    for name, weight in picked:
        if weight.numel() and memory(weight) not in seen:
            seen.add(memory(weight))
            found[name] = weight
    return found


def magnitude(model: nn.Module, weights: Weights | None = None) -> dict[str, Tensor]:
    """`|w|`, the score of magnitude pruning: small weights go first. One tensor a prunable weight, of its shape.

    Any other criterion is such a dict too. `weights` as in `prunable`.

    >>> import torch
    >>> layer = nn.Linear(2, 1)
    >>> layer.weight.data = torch.tensor([[-3.0, 2.0]])
    >>> magnitude(layer)
    {'weight': tensor([[3., 2.]])}
    """
    return {name: weight.detach().abs() for name, weight in prunable(model, weights).items()}


class Extent(NamedTuple):
    """How much of a model its prunable weights are."""

    prunable: int  # entries of the prunable weights
    matrix: int  # entries of all parameters of two or more dimensions, embeddings and norms left aside
    zeros: int  # prunable entries that are zero already
    left_out: dict[str, int]  # entries of each of those parameters that is not prunable, by name


def extent(model: nn.Module, weights: Weights | None = None) -> Extent:
    """How many of the model's matrix weights are prunable, and what is left out.

    Matrix weights are the entries of all parameters of two or more dimensions, embeddings and norms left aside, and of
    quantised layers, which keep theirs elsewhere.

    >>> extent(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2)), ["0.*"])
    Extent(prunable=12, matrix=18, zeros=0, left_out={'2.weight': 6})
    """
    chosen = some(model, weights)
    sizes = {memory(weight): (name, weight.numel()) for name, weight in chosen.items()}
    aside = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, EMBEDDINGS + NORMS))
    embedded = {memory(p) for name, _, p in _parameters(model) if f"{name}.".startswith(aside)}
    for name, _, parameter in _parameters(model):
        if parameter.ndim > 1 and memory(parameter) not in embedded:
            sizes.setdefault(memory(parameter), (name, parameter.numel()))
    left_out = {name: size for name, size in sizes.values() if name not in chosen} | _packed(model)
    n = sum(weight.numel() for weight in chosen.values())
    return Extent(n, n + sum(left_out.values()), sum(int((w == 0).sum()) for w in chosen.values()), left_out)


def parameters(model: nn.Module) -> int:
    """Entries of a model's parameters, and of the weights that quantised layers keep in a form of their own.

    >>> parameters(nn.Linear(4, 3))
    15
    """
    return sum(parameter.numel() for parameter in model.parameters()) + sum(_packed(model).values())


def some(model: nn.Module, weights: Weights | None = None) -> dict[str, nn.Parameter]:
    """`prunable`, of which there must be one at least."""
    found = prunable(model, weights)
    if not found:
        seen = Counter(
            type(module).__name__ for module in model.modules() if dict(module.named_parameters(recurse=False))
        )
        layers = ", ".join(f"{kind} ({times})" for kind, times in seen.most_common(8)) or "none"
        raise ValueError(
            "model has no prunable weight: no linear, convolution, recurrent or attention layer of torch in it; "
            f"its layers with parameters: {layers}; name the weights of others with weights="
        )
    return found


def weights_of(module: nn.Module) -> list[str]:
    """Names of a layer's own weights that are prunable by default; none for layers of other kinds."""
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


def memory(weight: Tensor) -> int:
    """A key that is equal for parameters that share memory."""
    return id(weight) if type(weight.data) is not Tensor or weight.is_meta else weight.data_ptr() or id(weight)


def _usual(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for prefix, module in model.named_modules():
        for attribute in weights_of(module):
            name = f"{prefix}.{attribute}".lstrip(".")
            yield name, plain(module, attribute, name)


def _named(model: nn.Module, weights: Weights) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that the caller means, each under the first of its names."""
    patterns: set[str] = set()
    if not callable(weights):
        if isinstance(weights, str) or not isinstance(weights, Sequence) or {str} != set(map(type, weights)):
            raise TypeError(f"weights must be a list of name patterns or a function, got {weights!r}")
        patterns = set(weights)
    first: dict[int, str] = {}
    unused = set(patterns)
    for name, module, parameter in _parameters(model):
        first.setdefault(memory(parameter), name)
        if parameter.ndim < 2:
            continue
        matching = {pattern for pattern in patterns if name == pattern or fnmatchcase(name, pattern)}
        unused -= matching
        if weights(name, module, parameter) if callable(weights) else matching:
            yield first[memory(parameter)], plain(module, name.rpartition(".")[2], name)
    if unused:
        raise ValueError(f"weights: no parameter of two or more dimensions is called {', '.join(sorted(unused))}")


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Every parameter that has a shape, under all of its names."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():
            if parameter is not None and not nn.parameter.is_lazy(parameter):
                yield f"{prefix}.{attribute}".lstrip("."), module, parameter


def _packed(model: nn.Module) -> dict[str, int]:
    """Entries of the weights that quantised layers keep as buffers or in a form of their own, by name."""
    buffers = {name: b.numel() for name, b in model.named_buffers() if b.ndim > 1 and name.endswith("weight")}
    layers = {name: m for name, m in model.named_modules() if callable(getattr(type(m), "weight", None))}
    return buffers | {f"{name}.weight".lstrip("."): layer.weight().numel() for name, layer in layers.items()}


def plain(module: nn.Module, attribute: str, name: str) -> nn.Parameter:
    """The parameter of that name; ValueError if it has no values of its own to be set to zero."""
    weight = dict(module.named_parameters(recurse=False, remove_duplicate=False)).get(attribute)
    if weight is None:
        raise ValueError(
            f"model: {name} is computed from other tensors (weight norm, spectral norm, torch.nn.utils.prune): "
            "make it a plain parameter first, with parametrize.remove_parametrizations or prune.remove"
        )
    if nn.parameter.is_lazy(weight) or weight.is_meta:
        raise ValueError(
            f"model: {name} has no values yet: run one batch through a lazy model, load a meta model first"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(f"model: {name} is in TorchScript: take the module that was scripted or traced")
    numbers = weight.is_floating_point() or weight.is_complex()
    if type(weight.data) is not Tensor or not numbers or weight.element_size() < 2:
        raise ValueError(
            f"model: {name} is quantised or of a type of its own ({type(weight.data).__name__}, {weight.dtype}): "
            "choose other weights with weights="
        )
    return weight
