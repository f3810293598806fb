"""Orders by structure: whole channels, units and heads go together, or the same number out of each few weights.

Zeros that lie so are those that kernels can skip, and channels are what a physically smaller network lacks; scattered
zeros save no time in dense kernels.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from confprune_edu import _checks
from confprune_edu.pruning.criteria import Weights
from confprune_edu.pruning.scores import Scores, finite, ranked


def by_channel(
    model: nn.Module, scores: Mapping[str, Tensor] | None = None, *, weights: Weights | None = None
) -> Scores:
    """The mean score of the output channel, hidden unit or attention head that a weight belongs to: these go together.

    The ratio still counts weights, so that at most ratios one group is cut in part. A mean, not a sum: a group should
    go early if it costs little for each weight that goes with it.

    Parameters
    ----------
    model : torch.nn.Module
    scores : dict from name to tensor, optional
        Of single weights; default: `magnitude`.
    weights : list of str, or callable, optional
        As in `prunable`.

    Returns
    -------
    dict from name to float64 tensor. Of a linear or convolution layer the group is an output, of a recurrent one a
    hidden unit in all of its gates, from inputs and from states; of `torch.nn.MultiheadAttention` a head with its
    queries, keys, values and its part of the output layer. Of other layers it is a row.

    Source: Li et al. (2017), arXiv 1608.08710; for heads Michel, Levy, Neubig (2019), arXiv 1905.10650.

    >>> layer = nn.Linear(2, 3)
    >>> layer.weight.data = torch.tensor([[4.0, -2.0], [0.0, 1.0], [5.0, 0.0]])
    >>> by_channel(layer)["weight"].tolist()
    [[3.0, 3.0], [0.5, 0.5], [2.5, 2.5]]
    """
    checked = finite(model, scores, weights)
    groups = {name: _groups(model, name, score.shape) for name, score in checked.items()}
    sums, sizes = dict[str, Tensor](), dict[str, Tensor]()
    for name, (family, labels) in groups.items():
        flat = labels.flatten()
        sums[family] = torch.bincount(flat, checked[name].double().flatten()) + sums.get(family, 0)
        sizes[family] = torch.bincount(flat) + sizes.get(family, 0)
    return {name: (sums[family] / sizes[family])[labels] for name, (family, labels) in groups.items()}


def blockwise(
    model: nn.Module, scores: Mapping[str, Tensor] | None = None, *, m: int = 4, weights: Weights | None = None
) -> Scores:
    """A weight's place in its block of m in a row, then its score: at ratio k / m exactly k of each m are zero.

    With m = 4, ratio 0.5 is the pattern 2:4 whose zeros some devices skip (`torch.sparse.to_sparse_semi_structured`).
    Between such ratios some blocks lack one weight more than others.

    Parameters
    ----------
    model : torch.nn.Module
    scores : dict from name to tensor, optional
        The order within a block, and of equal places over the network; default: `magnitude`.
    m : int of at least 2
        Weights in a block, by which the number of weights in each row must be divisible.
    weights : list of str, or callable, optional
        As in `prunable`.

    Returns
    -------
    dict from name to float64 tensor, in (0, m].

    Raises
    ------
    ValueError
        Rows that are not whole blocks, by name.

    Source: Mishra et al. (2021), arXiv 2104.08378.

    >>> layer = nn.Linear(4, 1)
    >>> layer.weight.data = torch.tensor([[0.1, -0.4, 0.2, -0.3]])
    >>> blockwise(layer)["weight"].tolist()
    [[0.25, 4.0, 1.5, 2.75]]
    """
    _checks.whole(m, "m", 2, 2**20)
    checked = finite(model, scores, weights)
    for name, score in checked.items():
        if score[0].numel() % m:
            raise ValueError(
                f"{name} has {score[0].numel()} weights in a row, no multiple of {m}: leave it out by weights="
            )
    shares = ranked(checked)
    return {
        name: score.reshape(-1, m).argsort(dim=1, stable=True).argsort(1).view(score.shape) + shares[name]
        for name, score in checked.items()
    }


def _groups(model: nn.Module, name: str, shape: torch.Size) -> tuple[str, Tensor]:
    """The group of each entry of a weight, by number, and a name for them that other tensors of theirs share."""
    prefix, _, attribute = name.rpartition(".")
    module, outer = model.get_submodule(prefix), prefix.rpartition(".")[0]
    row = torch.arange(shape[0]).view(-1, *(1 for _ in shape[1:])).expand(shape)
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and attribute.startswith(("weight_ih", "weight_hh")):
        return f"{prefix} {attribute[len('weight_ih') :]}", row % module.hidden_size
    if isinstance(module, nn.MultiheadAttention):
        return f"{prefix} heads", row % module.embed_dim // module.head_dim
    attention = model.get_submodule(outer)
    if isinstance(attention, nn.MultiheadAttention):
        return f"{outer} heads", (torch.arange(shape[1]) // attention.head_dim).expand(shape)
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        column = torch.arange(shape[1]).view(-1, *(1 for _ in shape[2:])).expand(shape)
        return name, row * module.groups // shape[0] * shape[1] + column
    return name, row
