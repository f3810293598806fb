"""Which weights may go, and in which order: a criterion gives a score to each prunable weight."""

from torch import Tensor, nn


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
        for attribute in weights_of(module):
            name = f"{prefix}.{attribute}".lstrip(".")
            weight = _plain(module, attribute, name)
            if weight.numel() and weight.data_ptr() not in seen:
                seen.add(weight.data_ptr())
                found[name] = weight
    return found


def magnitude(model: nn.Module) -> dict[str, Tensor]:
    """|w|, the score of magnitude pruning: small weights go first. One tensor a prunable weight, of its shape.

    Any other criterion is such a dict too.

    >>> import torch
    >>> layer = nn.Linear(2, 1)
    >>> layer.weight.data = torch.tensor([[-3.0, 2.0]])
    >>> magnitude(layer)
    {'weight': tensor([[3., 2.]])}
    """
    return {name: weight.detach().abs() for name, weight in prunable(model).items()}


def weights_of(module: nn.Module) -> list[str]:
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


def some(weights: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    if not weights:
        raise ValueError("model has no prunable weight: no linear, convolution, recurrent or attention layer in it")
    return weights
