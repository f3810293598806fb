"""What may be done to each pruned copy before it is evaluated, and how zeros survive further training."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.optim.swa_utils
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from confprune_edu import _checks
from confprune_edu.pruning.copies import Finish, twin
from confprune_edu.pruning.criteria import Weights, some
from confprune_edu.pruning.state import repeatable

NO_BATCH = "batches must hold at least one batch, and be readable again and again"


def keep_zeros(model: nn.Module, weights: Weights | None = None) -> list[RemovableHandle]:
    """Train on, and what is zero stays zero: the derivatives there become zero, too.

    For optimisers that move a weight by its own derivatives alone (SGD, Adam and AdamW, momentum and weight decay
    included), begun after this call. `remove()` of the handles that are returned ends it. A certificate is about the
    weights that were evaluated: train first, then calibrate on fresh examples.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> model.weight.data = torch.tensor([[0.0, 1.0]])
    >>> handles = keep_zeros(model)
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> model.weight.grad.tolist()
    [[0.0, 1.0]]
    """
    memories = {weight.untyped_storage().data_ptr() for weight in some(model, weights).values()}
    sharing = [p for p in model.parameters() if p.untyped_storage().data_ptr() in memories and p.requires_grad]
    masks = [parameter.detach() == 0 for parameter in sharing]
    return [
        parameter.register_hook(lambda slope, mask=mask: slope.masked_fill(mask, 0))
        for parameter, mask in zip(sharing, masks, strict=True)
    ]


def fine_tune(
    batches: Iterable[tuple[Any, Any]],
    loss: Callable[[Any, Any], Tensor],
    *,
    steps: int,
    learning_rate: float = 1e-3,
    weights: Weights | None = None,
) -> Finish:
    """A `finish` that trains each pruned copy a little, its zeros kept: the same steps at every ratio.

    Frozen parameters (without `requires_grad`) stay as they are.

    The pruned and tuned networks are the family that is then certified. The batches are training data, or data kept
    aside for this, never calibration examples.

    Parameters
    ----------
    batches : list or DataLoader of (inputs, targets)
        Taken in turn, and again from the beginning: the same at every ratio. A loader that shuffles by torch's global
        random state does so, since a `finish` runs under a fixed seed; one with a generator of its own is refused.
    loss : callable
        loss(outputs, targets) -> scalar, torch.nn.functional.cross_entropy say.
    steps : int
        Steps of Adam, one a batch.
    learning_rate : float
    weights : list of str, or callable, optional
        Which zeros are kept, as in `prunable`: what was pruned.

    Returns
    -------
    callable, to be given as `finish=`

    Source: Han et al. (2015), arXiv 1506.02626.

    >>> batches = [(torch.ones(4, 2), torch.zeros(4, 1))]
    >>> model = nn.Linear(2, 1)
    >>> model.weight.data = torch.tensor([[0.0, 1.0]])
    >>> fine_tune(batches, nn.functional.mse_loss, steps=5)(model)
    >>> model.weight[0, 0].item(), model.weight[0, 1].item() < 1
    (0.0, True)
    """
    count = _checks.positive_int(steps, "steps")

    def tuned(model: nn.Module) -> None:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trained or any(parameter.element_size() < 4 for parameter in trained):
            raise ValueError("fine_tune needs parameters that require gradients, in float32 or float64")
        handles = keep_zeros(model, weights)
        model.train()
        optimiser = torch.optim.Adam(trained, lr=learning_rate)
        for (inputs, targets), _ in zip(_again(batches), range(count), strict=False):
            optimiser.zero_grad()
            loss(model(inputs), targets).backward()
            optimiser.step()
        for handle in handles:
            handle.remove()
        model.eval()

    return tuned


def batch_norm(model: nn.Module, batches: Iterable[Any]) -> Finish:
    """A `finish` that corrects the statistics of batch norms by as much as pruning has changed them.

    A pruned layer puts out less, and its batch norm goes on dividing by the old spread. Statistics estimated anew
    (torch.optim.swa_utils.update_bn) mend that, but change the outputs where nothing is pruned, too: those of training
    were estimated otherwise. Here both networks are measured on the same batches, and only the change counts.

    Parameters
    ----------
    model : torch.nn.Module
        The full network, left as it is.
    batches : list or DataLoader of inputs, or of (inputs, ...)
        Training data, a hundred examples or more; never calibration examples.

    Returns
    -------
    callable, to be given as `finish=`

    >>> full = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1)).eval()
    >>> _ = nn.init.ones_(full[0].weight)
    >>> weaker, x = twin(full), torch.tensor([[1.0], [2.0], [4.0]])
    >>> weaker[0].weight.data *= 0.1
    >>> batch_norm(full, [x])(weaker)
    >>> torch.allclose(weaker(x), full(x), atol=1e-3)
    True
    """
    kept = [(norm.running_mean, norm.running_var + norm.eps) for norm in _norms(model)]
    with repeatable():  # as a finish is: both networks draw the same numbers
        before = _measured(twin(model), batches)

    def corrected(pruned: nn.Module) -> None:
        after = _measured(pruned, batches)
        if [len(mean) for mean, _ in after] != [len(mean) for mean, _ in before]:
            raise ValueError("batch_norm: the batch norms have not as many channels as those of the full network")
        for norm, (mean, var), (mean0, var0), (mean1, var1) in zip(_norms(pruned), kept, before, after, strict=True):
            change = var1 / var0
            norm.running_mean.copy_(mean1 + (mean - mean0) * change.sqrt())
            norm.running_var.copy_(var * change - norm.eps)

    return corrected


def _norms(model: nn.Module) -> list[Any]:
    """The batch norms that keep statistics."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_var is not None]
    if not norms:
        raise ValueError("batch_norm needs a model with batch norms that keep statistics")
    return norms


def _measured(model: nn.Module, batches: Iterable[Any]) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance (plus eps) of what comes into each batch norm of the model, whose statistics they become."""
    torch.optim.swa_utils.update_bn(batches, model)
    norms = _norms(model)
    if not any(norm.num_batches_tracked for norm in norms):
        raise ValueError(NO_BATCH)
    return [(norm.running_mean.clone(), norm.running_var + norm.eps) for norm in norms]


def _again(batches: Iterable[Any]) -> Iterable[Any]:
    """The batches over and over; ValueError if there is none."""
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError(NO_BATCH)
