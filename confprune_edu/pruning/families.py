"""Families of another kind than weights at zero: a function makes the network of each ratio."""

from collections.abc import Callable

from torch import nn

from confprune_edu.pruning.copies import Finish, twin
from confprune_edu.pruning.criteria import memory
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
    if finish is not None:
        with repeatable():
            finish(made.eval())
    return made.eval()
