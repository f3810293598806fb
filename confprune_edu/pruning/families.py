"""Families of another kind than weights at zero: a function makes the network of each ratio."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from confprune_edu.pruning.copies import Finish, twin
from confprune_edu.pruning.criteria import memory, parameters
from confprune_edu.pruning.state import repeatable

# family(model, ratio) -> the network at a ratio in [0, 1). It is given a copy of the model in eval mode, which it may
# change and give back. `family.knob` says in words what the ratio is.
Family = Callable[[nn.Module, float], nn.Module]


def member(model: nn.Module, ratio: float, family: Family, finish: Finish | None = None) -> nn.Module:
    """The network of a family at a ratio, finished; `model` stays as it is. One ratio always gives one network.

    Raises
    ------
    TypeError, ValueError
        `family` gives no Module, or one that holds a tensor of `model` itself.

    >>> def rounded(model, ratio):
    ...     model.weight.data = model.weight.round(decimals=round(4 * (1 - ratio)))
    ...     return model
    >>> layer = nn.Linear(1, 1)
    >>> layer.weight.data.fill_(0.6789)
    tensor([[0.6789]])
    >>> round(member(layer, 0.75, rounded).weight.item(), 4)
    0.7
    """
    given = twin(model).eval()
    with repeatable():
        made = family(given, ratio)
    if not isinstance(made, nn.Module):
        raise TypeError(f"family must give a torch.nn.Module, got {type(made).__name__} at ratio {ratio:g}")
    theirs = {memory(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    for tensor in (*made.parameters(), *made.buffers()):
        if memory(tensor) in theirs:
            raise ValueError(
                f"family must make its networks of the copy that it is given: at ratio {ratio:g} it gives one that "
                f"holds {theirs[memory(tensor)]} of the model itself"
            )
    if made is not given:
        made = twin(made, [model])  # it may be a network of the caller's, which stays as it is, too
    if finish is not None:
        with repeatable():
            finish(made.eval())
    return made.eval()


def channels_removed(example_inputs: Tensor, *, keep: Sequence[str]) -> Family:
    """A family of smaller networks: of every layer the ratio's share of channels is gone, those of smallest weights.

    Channels that depend on each other go together: through sums, concatenations and norms, and with the weights that
    read them. What is left is an ordinary network with smaller tensors: `savings` measures its seconds. That costs much
    unless a `finish` trains it on. Made by Torch-Pruning (`pip install "confprune_edu[structure]"`), which follows
    linear and convolution layers and most of what lies between.

    Parameters
    ----------
    example_inputs : tensor
        A batch, however small, on which the model is followed from layer to layer; its values do not matter.
    keep : list of str
        Names of layers that keep all of their channels: the last one, whose outputs are the network's, at least.

    Returns
    -------
    callable (model, ratio) -> Module, to be given as `family=`; the model stays as it is. Of a layer with c channels
    int(c * (1 - ratio)) stay, ordered by the norm of the weights that go with a channel; where that is 0, all of them.
    It raises ValueError where Torch-Pruning finds no channel in a model that may go, or what is left does not run:
    attention, recurrent layers.

    Source: Fang et al., DepGraph (2023), arXiv 2301.12900.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> channels_removed(torch.zeros(1, 4), keep=["2"])(model, 0.25)
    Sequential(
      (0): Linear(in_features=4, out_features=6, bias=True)
      (1): ReLU()
      (2): Linear(in_features=6, out_features=2, bias=True)
    )
    """
    if isinstance(keep, str):
        raise TypeError(f"keep must be a list of names of layers, got {keep!r}")

    def channels_removed(model: nn.Module, ratio: float) -> nn.Module:
        import torch_pruning

        smaller = twin(model).requires_grad_()  # layers are followed by the graph of their gradients
        norm = torch_pruning.importance.MagnitudeImportance(p=2)
        kept = [smaller.get_submodule(name) for name in keep]
        options = {"importance": norm, "pruning_ratio": ratio, "ignored_layers": kept}
        torch_pruning.pruner.MagnitudePruner(smaller, example_inputs, **options).step()
        for name, parameter in smaller.named_parameters():
            parameter.requires_grad_(model.get_parameter(name).requires_grad)
        if ratio > 0 and parameters(smaller) == parameters(model):
            raise ValueError(
                "channels_removed: Torch-Pruning finds no channel of this model that may go, or would leave none"
            )
        try:
            with torch.no_grad():
                smaller(example_inputs)
        except Exception as problem:  # whatever layers say to tensors of other shapes
            raise ValueError(f"channels_removed: the model does not run without them: {problem}") from problem
        return smaller

    channels_removed.knob = "share of channels removed"  # type: ignore[attr-defined]
    return channels_removed
