"""Other orders than magnitude: each gives one score a prunable weight, and small scores go first.

A certificate holds for any order that was fixed before the calibration examples were seen: a poor one costs ratio,
never validity. Those that look at data (`wanda`, `fisher`, `snip`) take training data, never calibration examples.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from confprune_edu import _checks
from confprune_edu.pruning.copies import checked_scores, own, twin
from confprune_edu.pruning.criteria import Weights, some
from confprune_edu.pruning.state import same_random_state

Scores = dict[str, Tensor]
TrainingLoss = Callable[[Any, Any], Tensor]  # (outputs, targets) -> a scalar, torch.nn.functional.cross_entropy say

ONE_PRODUCT = (nn.Linear, nn.modules.conv._ConvNd)  # layers that are linear in their input, bias aside


def layerwise(
    model: nn.Module, scores: Mapping[str, Tensor] | None = None, *, weights: Weights | None = None
) -> Scores:
    """The share of its layer's weights that go no later: the same share of every layer is pruned.

    Parameters
    ----------
    model : torch.nn.Module
    scores : dict from name to tensor, optional
        The order within a layer; default: `magnitude`. Equal scores go by position.
    weights : list of str, or callable, optional
        As in `prunable`.

    Returns
    -------
    dict from name to float64 tensor, in (0, 1].

    >>> layer = nn.Linear(4, 1)
    >>> layer.weight.data = torch.tensor([[0.1, -0.4, 0.2, -0.3]])
    >>> layerwise(layer)["weight"].tolist()
    [[0.25, 1.0, 0.5, 0.75]]
    """
    return {name: ranked({name: score})[name] for name, score in finite(model, scores, weights).items()}


def random(model: nn.Module, *, seed: int, weights: Weights | None = None) -> Scores:
    """Scores that know nothing, uniform in [0, 1): what a criterion has to be better than.

    >>> sorted(random(nn.Linear(2, 1), seed=0)) == ["weight"]
    True
    """
    generator = torch.Generator().manual_seed(_checks.whole(seed, "seed", 0, 2**64 - 1))
    return {
        name: torch.rand(weight.shape, generator=generator, dtype=torch.float64)
        for name, weight in some(model, weights).items()
    }


def lamp(model: nn.Module, scores: Mapping[str, Tensor] | None = None, *, weights: Weights | None = None) -> Scores:
    """LAMP: a weight's square over the sum of the squares of its layer that have not gone before it.

    The largest weight of every layer has score 1, so that no layer vanishes while more weights stay than there are
    layers, and layers of unequal scale are compared by what remains of them. Parameters as in `layerwise`; `scores` are
    squared in place of the weights.

    Returns
    -------
    dict from name to float64 tensor, in [0, 1].

    Source: Lee, Park, Mo, Ahn, Shin (2021), arXiv 2010.07611, equation 4.

    >>> layer = nn.Linear(3, 1)
    >>> layer.weight.data = torch.tensor([[2.0, -1.0, 1.0]])
    >>> lamp(layer)["weight"].round(decimals=3).tolist()   # 4 / 4, 1 / 6, 1 / 5
    [[1.0, 0.167, 0.2]]
    """
    result = {}
    for name, score in finite(model, scores, weights).items():
        squares = score.double().flatten() ** 2
        order = torch.argsort(squares, stable=True)
        left = squares[order].flip(0).cumsum(0).flip(0)
        ratio = torch.where(left > 0, squares[order] / left.clamp_min(torch.finfo(left.dtype).tiny), 0.0)
        result[name] = torch.empty_like(ratio).scatter_(0, order, ratio).view(score.shape)
    return result


def wanda(model: nn.Module, inputs: Any, *, weights: Weights | None = None) -> Scores:
    """Wanda: a weight's size times the norm of what it is multiplied with, over a batch of training inputs.

    The paper compares within each output of a layer, this dict over the whole network; `layerwise(model, wanda(...))`
    takes the same share of every layer.

    Parameters
    ----------
    model : torch.nn.Module
        Evaluated in eval mode as model(inputs), on a copy.
    inputs : tensor, shape (batch, ...)
        Training inputs, a few hundred.
    weights : list of str, or callable, optional
        As in `prunable`: weights of linear and convolution layers only.

    Returns
    -------
    dict from name to float64 tensor.

    Raises
    ------
    ValueError
        A prunable weight of another layer, or one that these inputs never meet.

    Source: Sun, Liu, Bair, Kolter (2023), arXiv 2306.11695, equation 1.

    >>> layer = nn.Linear(2, 1)
    >>> layer.weight.data = torch.tensor([[1.0, -2.0]])
    >>> wanda(layer, torch.tensor([[3.0, 0.5], [4.0, 0.0]]))["weight"].tolist()
    [[5.0, 1.0]]
    """
    names = list(some(model, weights))
    copied = twin(model).eval().requires_grad_(False)
    chosen = {id(copied.get_parameter(name)): name for name in names}
    squares: Scores = {}

    def see(module: nn.Module, given: tuple[Any, ...], more: dict[str, Any], output: Any) -> None:
        name = chosen[id(module.weight)]
        squares[name] = squares.get(name, 0) + _sums_of_squares(module, (*given, *more.values())[0])

    for module in copied.modules():
        if isinstance(module, ONE_PRODUCT) and id(module.weight) in chosen:
            module.register_forward_hook(see, with_kwargs=True)
    with same_random_state(), torch.no_grad():
        copied(own(inputs))
    if missing := [name for name in names if name not in squares]:
        raise ValueError(
            f"wanda: {missing[0]}, the first of {len(missing)}, is no weight of a linear or convolution layer that the "
            "inputs run through: leave it out with weights=, or take fisher"
        )
    return {name: model.get_parameter(name).detach().abs().double() * squares[name].sqrt() for name in names}


def fisher(model: nn.Module, data: tuple[Any, Any], loss: TrainingLoss, *, weights: Weights | None = None) -> Scores:
    """What zeroing a weight costs to second order: its square times the mean square of the loss's derivatives.

    The diagonal of the empirical Fisher matrix stands for that of the Hessian (optimal brain damage); summed over a
    filter this is Molchanov's Taylor criterion. One backward pass an example: a few hundred are enough.

    Parameters
    ----------
    model : torch.nn.Module
        Differentiated in eval mode, on a copy.
    data : (inputs, targets)
        Training examples, one a row; never calibration examples.
    loss : callable
        loss(outputs, targets) -> scalar, what the network was trained with.
    weights : list of str, or callable, optional
        As in `prunable`.

    Returns
    -------
    dict from name to tensor; a weight that does not move the loss has score 0.

    Source: LeCun, Denker, Solla, Optimal Brain Damage (1990); Molchanov et al. (2019), arXiv 1906.10771, equation 8.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[1.0, -2.0]])
    >>> def mean(outputs, targets): return outputs.mean()
    >>> fisher(layer, (torch.tensor([[1.0, 0.0], [3.0, 1.0]]), torch.zeros(2)), mean)["weight"].tolist()
    [[5.0, 2.0]]
    """
    return _to_order(2, model, data, loss, weights)


def snip(model: nn.Module, data: tuple[Any, Any], loss: TrainingLoss, *, weights: Weights | None = None) -> Scores:
    """SNIP: what zeroing a weight does to the mean loss to first order, a weight's size times the derivative's.

    Made for networks before training; near a minimum the derivatives of a trained one are small and say less than
    `fisher`. Parameters as in `fisher`.

    Source: Lee, Ajanthan, Torr (2019), arXiv 1810.02340.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[1.0, -2.0]])
    >>> def mean(outputs, targets): return outputs.mean()
    >>> snip(layer, (torch.tensor([[1.0, 0.0], [3.0, 1.0]]), torch.zeros(2)), mean)["weight"].tolist()
    [[2.0, 1.0]]
    """
    return _to_order(1, model, data, loss, weights)


def _sums_of_squares(layer: nn.Module, given: Tensor) -> Tensor:
    """For each weight, the sum of the squares of all that it is multiplied with, in float64.

    A layer that is linear in its input and in its weight gives it as the derivative of sum(layer(input ** 2)).
    """
    bare = copy.deepcopy(layer).double()
    bare._forward_hooks.clear()
    bare._forward_pre_hooks.clear()
    weight = bare.get_parameter("weight").requires_grad_()
    with torch.enable_grad():
        total = bare(given.detach().double() ** 2).sum()
    return torch.autograd.grad(total, weight)[0]


def finite(model: nn.Module, scores: Mapping[str, Tensor] | None, weights: Weights | None) -> Scores:
    """Scores that can be normalised, on the CPU; default: magnitude. Refused by name."""
    checked = checked_scores(model, scores, weights)
    if odd := [name for name, score in checked.items() if not score.isfinite().all()]:
        raise ValueError(f"scores must be finite, those of {odd[0]} are not (are there NaN weights in the model?)")
    return {name: score.detach().cpu() for name, score in checked.items()}


def ranked(scores: Mapping[str, Tensor]) -> Scores:
    """The share of all these scores that are no larger, in (0, 1]; equal scores go by position.

    >>> ranked({"a": torch.tensor([[3.0]]), "b": torch.tensor([1.0])})
    {'a': tensor([[1.]], dtype=torch.float64), 'b': tensor([0.5000], dtype=torch.float64)}
    """
    order = torch.argsort(torch.cat([score.flatten().double() for score in scores.values()]), stable=True)
    shares = torch.empty(len(order), dtype=torch.float64)
    shares[order] = torch.arange(1, len(order) + 1).double() / len(order)
    parts = torch.split(shares, [score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def _slopes(model: nn.Module, data: tuple[Any, Any], loss: TrainingLoss, weights: Weights | None) -> Iterator[Scores]:
    """The derivatives of every example's loss, by prunable weight; 0 where the loss does not depend on it."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"data must be (inputs, targets), got a {type(data).__name__}")
    if not callable(loss):
        raise TypeError(f"loss must be a function loss(outputs, targets), got {loss!r}")
    inputs, targets = data
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise ValueError(f"data must be inputs and as many targets, got {len(inputs)} and {len(targets)}")
    names = list(some(model, weights))
    copied = twin(model).eval().requires_grad_(False)
    chosen = [copied.get_parameter(name).requires_grad_() for name in names]
    for i in range(len(inputs)):
        with same_random_state(), torch.enable_grad():
            value = loss(copied(own(inputs[i : i + 1])), targets[i : i + 1])
            slopes = torch.autograd.grad(value, chosen, materialize_grads=True)
        yield {name: slope.double() for name, slope in zip(names, slopes, strict=True)}


def _to_order(
    order: int, model: nn.Module, data: tuple[Any, Any], loss: TrainingLoss, weights: Weights | None
) -> Scores:
    """|w| ** order times the absolute mean, over the examples, of the derivatives to the power of `order`."""
    totals: Scores = {}
    for slopes in _slopes(model, data, loss, weights):
        totals = {name: totals.get(name, 0) + slope**order for name, slope in slopes.items()}
    return {
        name: model.get_parameter(name).detach().abs().double() ** order * (total / len(data[0])).abs()
        for name, total in totals.items()
    }
