"""What a pruned network may get wrong: one loss an example, in [0, 1].

Every loss is called as loss(pruned, full, target): the outputs of the pruned and of the full network on a batch, and
the batch's targets (None for data without labels); it ignores what it does not need and returns a tensor of shape
(batch,). Its mean over the distribution of the data is the risk that a calibration bounds. A loss of your own is any
such function; one with another range says so in an attribute, `my_loss.range = (low, high)`.

Classifiers give scores (batch, classes), or (batch, classes, ...) with one decision a position, whose loss is the share
of wrong positions. Segmentation networks give logits (batch, 1, height, width) or (batch, height, width), positive
inside the mask.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from confprune_edu import _checks


def disagreement(pruned: Tensor, full: Tensor, target: Any = None) -> Tensor:
    """1{y_pruned != y_full}: does pruning change the decision? Needs no labels.

    Parameters
    ----------
    pruned, full : float tensors, shape (batch, classes) or (batch, classes, ...)
        Scores; the decision is the class with the largest.
    target
        Ignored.

    Returns
    -------
    bool tensor, shape (batch,); float64, the share of changed positions, where there are several an example.

    Raises
    ------
    TypeError, ValueError
        Outputs that are not class scores (a tuple, a single column, NaN).

    >>> disagreement(torch.tensor([[2., 1.], [0., 1.]]), torch.tensor([[3., 1.], [1., 0.]])).tolist()
    [False, True]
    """
    return _share(_decision(pruned, "pruned") != _decision(full, "full"))


def error(pruned: Tensor, full: Any, target: Tensor) -> Tensor:
    """1{y_pruned != y}: is the pruned network wrong?

    `target` holds class indices, int tensor of shape (batch,) or (batch, ...); otherwise as in `disagreement`.

    >>> error(torch.tensor([[2., 1.], [0., 1.]]), None, torch.tensor([0, 0])).tolist()
    [False, True]
    """
    return _share(_wrong(pruned, "pruned", target))


def degradation(pruned: Tensor, full: Tensor, target: Tensor) -> Tensor:
    """1{y_full = y != y_pruned}: does pruning break a right decision? Parameters as in `error`.

    >>> full, pruned = torch.tensor([[2., 1.], [2., 1.]]), torch.tensor([[0., 1.], [0., 1.]])
    >>> degradation(pruned, full, torch.tensor([0, 1])).tolist()
    [True, False]
    """
    return _share(_wrong(pruned, "pruned", target) & ~_wrong(full, "full", target))


def accuracy_drop(pruned: Tensor, full: Tensor, target: Tensor) -> Tensor:
    """1{y_pruned != y} - 1{y_full != y}, the net drop in accuracy, in [-1, 1]. Parameters as in `error`.

    Decisions that pruning mends count against those that it breaks. Returns float64; the range stands in `.range`.

    >>> full, pruned = torch.tensor([[2., 1.], [2., 1.]]), torch.tensor([[0., 1.], [0., 1.]])
    >>> accuracy_drop(pruned, full, torch.tensor([0, 1])).tolist(), accuracy_drop.range
    ([1.0, -1.0], (-1.0, 1.0))
    """
    return error(pruned, None, target).double() - _share(_wrong(full, "full", target)).double()


accuracy_drop.range = (-1.0, 1.0)  # type: ignore[attr-defined]


def confidence(pruned: Tensor, full: Any = None, target: Any = None) -> Tensor:
    """The pruned network's largest class probability: not a loss, but what a selective classifier abstains by.

    It is called like a loss, so that `evaluation.loss_tables` gives it beside one. `pruned` holds logits, float tensor
    of shape (batch, classes); `full` and `target` are ignored. Returns float64, shape (batch,), in [1 / classes, 1].
    A network that gives probabilities needs a confidence of its own: a warning says so where they are noticed.

    >>> confidence(torch.tensor([[0.0, 0.0], [2.0, 0.0]])).round(decimals=4).tolist()
    [0.5, 0.8808]
    """
    logits = _class_scores(pruned, "pruned")
    if logits.ndim != 2:
        raise ValueError(f"pruned must hold one decision an example, shape (batch, classes), got {tuple(logits.shape)}")
    logits = logits.double()
    if (logits >= 0).all() and torch.allclose(logits.sum(dim=1), logits.new_ones(()), atol=1e-3):
        warnings.warn(
            "pruned seems to hold probabilities, but confidence takes logits: calibrate the confidence "
            "`def largest(pruned, full, target): return pruned.amax(dim=1)`",
            stacklevel=2,
        )
    return logits.softmax(dim=1).amax(dim=1)


def one_minus_iou(pruned: Tensor, full: Any, target: Any, *, against: str = "target") -> Tensor:
    """`1 - |A and B| / |A or B|` of the pruned network's mask A; 0 is a perfect overlap, 1 none.

    Parameters
    ----------
    pruned, full : float tensors, shape (batch, 1, height, width) or (batch, height, width)
        Logits; positive inside the mask.
    target : bool or 0/1 tensor of that shape
        The true mask.
    against : "target" or "full"
        What B is: the truth, or the full network's mask, which needs no labels (`functools.partial` sets it).

    Returns
    -------
    float64 tensor, shape (batch,), in [0, 1]; two empty masks overlap perfectly (0), one empty mask does not (1).

    Raises
    ------
    TypeError, ValueError
        Masks of another type, shape or value; no target where one is needed.

    >>> one_minus_iou(torch.tensor([[[1., 1., -1.]]]), None, torch.tensor([[[True, False, False]]])).tolist()
    [0.5]
    """
    a, b = _mask_pair(pruned, full, target, against)
    return 1 - _ratio(_area(a & b), _area(a | b))


def one_minus_dice(pruned: Tensor, full: Any, target: Any, *, against: str = "target") -> Tensor:
    """`1 - 2 |A and B| / (|A| + |B|)` of the pruned network's mask A; everything else as in `one_minus_iou`.

    >>> one_minus_dice(torch.tensor([[[1., 1., -1.]]]), None, torch.tensor([[[True, False, False]]])).round(decimals=4)
    tensor([0.3333], dtype=torch.float64)
    """
    return 1 - _dice(*_mask_pair(pruned, full, target, against))


def false_negative_rate(pruned: Tensor, full: Any, target: Any, *, against: str = "target") -> Tensor:
    """Share of the true mask that the pruned network misses; 0 where there is nothing to miss. As `one_minus_iou`.

    >>> false_negative_rate(torch.tensor([[[1., -1., -1.]]]), None, torch.tensor([[[True, True, False]]])).tolist()
    [0.5]
    """
    a, b = _mask_pair(pruned, full, target, against)
    return 1 - _ratio(_area(a & b), _area(b))


def dice_degradation(pruned: Tensor, full: Tensor, target: Tensor) -> Tensor:
    """max(0, Dice of the full network - Dice of the pruned one), both against the truth. As `one_minus_iou`.

    >>> full, pruned = torch.tensor([[[1., 1., -1.]]]), torch.tensor([[[1., -1., -1.]]])
    >>> dice_degradation(pruned, full, torch.tensor([[[True, True, False]]])).round(decimals=4)
    tensor([0.3333], dtype=torch.float64)
    """
    a, b = _mask(pruned, "pruned"), _mask(full, "full")
    truth = _truth(target, a)
    return (_dice(b, truth) - _dice(a, truth)).clamp_min(0)


def _scores(output: Any, name: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise TypeError(
            f"{name} must be a tensor, but the model returned a {type(output).__name__}: "
            "wrap the model, or write a loss that picks the tensor, so that the loss sees scores"
        )
    if output.sum().isnan() and output.isnan().any():  # the sum is quick, but inf - inf is NaN, too
        raise ValueError(f"{name} must hold no NaN: the network's output is not defined for every example")
    return output


def _class_scores(output: Any, name: str) -> Tensor:
    output = _scores(output, name)
    if output.ndim < 2 or output.shape[1] < 2:
        raise ValueError(
            f"{name} must hold scores of at least two classes, shape (batch, classes, ...), got {tuple(output.shape)}: "
            "give a binary network two scores, or write a loss of your own"
        )
    return output


def _decision(output: Any, name: str) -> Tensor:
    return _class_scores(output, name).argmax(dim=1)


def _wrong(output: Any, name: str, target: Any) -> Tensor:
    decision = _decision(output, name)
    if target is None:
        raise ValueError("target is missing: this loss needs labels, data must be (inputs, targets)")
    target = torch.as_tensor(target, device=decision.device)
    if target.is_floating_point() or target.dtype == torch.bool or target.shape != decision.shape:
        raise ValueError(
            f"target must hold class indices, integers of shape {tuple(decision.shape)}, "
            f"got {target.dtype} of shape {tuple(target.shape)}"
        )
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < output.shape[1]:
        raise ValueError(
            f"target must lie in 0..{output.shape[1] - 1}, the classes that {name} scores, "
            f"got {int(target.min())} to {int(target.max())}: with labels shifted by one nothing would seem to degrade"
        )
    return decision != target


def _share(wrong: Tensor) -> Tensor:
    return wrong if wrong.ndim == 1 else wrong.flatten(1).double().mean(dim=1)


def _mask(output: Any, name: str) -> Tensor:
    output = _scores(output, name)
    if output.ndim == 4 and output.shape[1] == 1:
        output = output[:, 0]
    if output.ndim != 3:
        raise ValueError(
            f"{name} must have shape (batch, 1, height, width) or (batch, height, width), got {tuple(output.shape)}"
        )
    return output if output.dtype == torch.bool else output > 0


def _truth(target: Any, like: Tensor) -> Tensor:
    if target is None:
        raise ValueError("target is missing: this loss needs true masks, or against='full'")
    target = torch.as_tensor(target, device=like.device)
    if target.dtype != torch.bool and not ((target == 0) | (target == 1)).all():
        raise ValueError("target must be a mask of False and True, or of 0 and 1: threshold grey levels first")
    return _mask(target, "target")


def _mask_pair(pruned: Any, full: Any, target: Any, against: str) -> tuple[Tensor, Tensor]:
    if against not in ("target", "full"):
        raise ValueError(f"against must be 'target' or 'full', got {against!r}")
    a = _mask(pruned, "pruned")
    b = _truth(target, a) if against == "target" else _mask(full, "full")
    if a.shape != b.shape:
        raise ValueError(f"{against} must have the shape of pruned, {tuple(a.shape)}, got {tuple(b.shape)}")
    return a, b


def _area(mask: Tensor) -> Tensor:
    return mask.flatten(1).sum(dim=1).double()


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp_min(1), 1.0)


def _dice(a: Tensor, b: Tensor) -> Tensor:
    if a.shape != b.shape:
        raise ValueError(f"target must have the shape of the outputs, {tuple(a.shape)}, got {tuple(b.shape)}")
    return _ratio(2 * _area(a & b), _area(a) + _area(b))


Loss = Callable[[Any, Any, Any], Tensor]


def loss_range(loss: Loss) -> tuple[float, float]:
    """The interval that holds the values of `loss`: its attribute `range`, or (0, 1).

    >>> from confprune_edu.losses import accuracy_drop, error
    >>> loss_range(accuracy_drop), loss_range(error)
    ((-1.0, 1.0), (0.0, 1.0))
    """
    inner = getattr(loss, "func", None)  # of a functools.partial
    return _checks.interval(getattr(loss, "range", getattr(inner, "range", (0.0, 1.0))), "loss.range")
