"""Losses of pruned networks that were recorded once, so that a lesson can start from the table. No torch needed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from confprune_edu import _checks
from confprune_edu.data.assets import read_arrays
from confprune_edu.data.quality import POLYP_SHIFTS

_ORDERS = ("magnitude", "layerwise", "lamp", "fisher", "snip", "random")

# of each classifier; `pruning.wanda` knows linear and convolution layers alone
CLASSIFIER_FAMILIES: dict[str, tuple[str, ...]] = {
    "mnist-mlp": (*_ORDERS, "wanda", "product"),
    "mnist-cnn": ("magnitude", "layerwise", "lamp", "fisher", "snip", "wanda", "product"),
    "mnist-vit": ("magnitude", "layerwise", "lamp", "fisher", "snip", "product"),
    "mnist-gru": ("magnitude", "layerwise", "lamp", "fisher", "snip", "product"),
    "words-gru": ("magnitude", "layerwise", "lamp", "fisher", "product"),
    "words-transformer": ("magnitude", "layerwise", "lamp", "fisher", "snip", "product"),
}

CLASSIFIERS = tuple(CLASSIFIER_FAMILIES)

CLASSIFIER_LOSSES = MNIST_LOSSES = ("degradation", "error", "disagreement")


def classifier_losses(
    network: str = "mnist-mlp", loss: str = "degradation", family: str = "magnitude"
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Losses of a shipped network on shipped examples, pruned to 0, 1, ..., 99 per cent: a real table.

    Recorded once with `evaluation.loss_tables`, so that calibration can be studied on real losses without torch.

    Parameters
    ----------
    network : str
        One of `CLASSIFIERS`, see `models.load`.
    loss : str
        "degradation" (the full network was right, the pruned one is wrong), "error" or "disagreement", see `losses`.
    family : str
        One of `CLASSIFIER_FAMILIES[network]`, the criteria of `pruning` over all prunable weights: "magnitude",
        "layerwise", "lamp", "fisher", "snip", "random" (seed 0), "wanda", or "product" (LAMP times Fisher). Those that
        look at data saw 1,000 training examples.

    Returns
    -------
    losses : bool array, shape (5000, 100)
        One row a digit, in the order of `mnist5k`, or a word, in that of `words5k`; one column a ratio.
    ratios : float64 array, shape (100,)
        0.00, 0.01, ..., 0.99: fractions of the prunable weights set to zero.

    Raises
    ------
    FileNotFoundError, ValueError
        Another network, loss or family; the shipped file is missing or damaged, see `read_asset`.

    >>> losses, ratios = classifier_losses("words-transformer")
    >>> losses.shape, ratios[50], int(losses[:, 50].sum())   # words that pruning to 50 % broke
    ((5000, 100), np.float64(0.5), 71)
    """
    _checks.choice(network, "network", CLASSIFIERS)
    _checks.choice(loss, "loss", CLASSIFIER_LOSSES)
    _checks.choice(family, "family", CLASSIFIER_FAMILIES[network])
    with read_arrays(f"{network}-losses.npz") as stored:
        return np.unpackbits(stored[f"{family}/{loss}"], axis=0).astype(bool), stored["ratios"]


def mnist_losses(loss: str = "degradation") -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Losses of "mnist-mlp" on the digits of `mnist5k`, pruned by magnitude: `classifier_losses("mnist-mlp", loss)`.

    >>> losses, ratios = mnist_losses()
    >>> losses.shape, ratios[90], int(losses[:, 90].sum())   # digits that pruning to 90 % broke
    ((5000, 100), np.float64(0.9), 150)
    """
    return classifier_losses("mnist-mlp", loss)


TUNED = ("mnist-gru", "mnist-vit")


def tuned_losses(network: str = "mnist-vit") -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """`classifier_losses` where each pruned network was then trained for 200 steps: degradation, at a few ratios.

    Pruned in the order "product", trained on 50,000 digits that the network had learned, none of them in `mnist5k`.

    >>> losses, ratios = tuned_losses("mnist-gru")
    >>> losses.shape, ratios.tolist()
    ((5000, 4), [0.7, 0.8, 0.85, 0.9])
    """
    _checks.choice(network, "network", TUNED)
    with read_arrays("tuned-losses.npz") as stored:
        return np.unpackbits(stored[network], axis=0).astype(bool), stored["ratios"]


POLYP_LOSSES = (
    "one_minus_iou",
    "one_minus_dice",
    "false_negative_rate",
    "dice_degradation",
    "one_minus_iou_to_full",
    "one_minus_dice_to_full",
)

POLYP_FAMILIES = ("magnitude", "batch-norm", "layerwise")


@dataclass(frozen=True, eq=False)
class PolypLosses:
    """Recorded losses of a pruned UNet on real frames that it never saw, with what groups the frames.

    Attributes
    ----------
    losses : float64 array, shape (n, m), in [0, 1]
        One row a frame, one column a ratio.
    ratios : float64 array, shape (m,)
        Fractions of the prunable weights set to zero.
    centre, group : int64 arrays, shape (n,)
        Centre 1..6; frames with one group number come from one video (or from neighbouring frame numbers).
    names : tuple of str, length n
        File names in PolypGen.
    zeros : float64 array, shape (layers, m), or None
        Share of each layer's weights at zero, from input to output, where it was recorded.
    """

    losses: np.ndarray
    ratios: np.ndarray
    centre: np.ndarray
    group: np.ndarray
    names: tuple[str, ...]
    zeros: np.ndarray | None = None


def polyp_losses(loss: str = "one_minus_dice", family: str = "magnitude") -> PolypLosses:
    """Losses of the shipped UNet on real PolypGen frames, pruned to many ratios: the recorded experiment.

    Recorded once with `evaluation.loss_tables` on the videos that the UNet was not trained on, those of centre C6
    among them, so that everyone can calibrate on real losses; the frames themselves do not ship.

    Parameters
    ----------
    loss : str
        "one_minus_iou", "one_minus_dice" or "false_negative_rate" against the true masks, "dice_degradation",
        "one_minus_iou_to_full" or "one_minus_dice_to_full" (against the full network's masks), see `losses`.
    family : str
        "magnitude": the globally smallest weights go; "batch-norm": the same, and the statistics of the batch
        norms are estimated anew on training frames; "layerwise": the same share of the smallest weights in every layer.

    Returns
    -------
    PolypLosses

    Raises
    ------
    FileNotFoundError, ValueError
        Another loss or family; the shipped file is missing or damaged, see `read_asset`.

    >>> recorded = polyp_losses("dice_degradation")
    >>> recorded.losses.shape == (len(recorded.names), len(recorded.ratios)), float(recorded.losses[:, 0].max())
    (True, 0.0)
    """
    _checks.choice(loss, "loss", POLYP_LOSSES)
    _checks.choice(family, "family", POLYP_FAMILIES)
    with read_arrays("polyp-losses.npz") as stored:
        return PolypLosses(
            losses=stored[f"{family}/{loss}"].astype(np.float64),
            ratios=stored["ratios"],
            centre=stored["centre"].astype(np.int64),
            group=stored["group"].astype(np.int64),
            names=tuple(stored["names"].tolist()),
        )


POLYP_ORDERS = ("magnitude", "layerwise", "lamp", "wanda", "fisher", "snip", "fine-tuned")


def polyp_orders(order: str = "lamp") -> PolypLosses:
    """`dice_degradation` of the shipped UNet under several orders, its batch norms corrected: `pruning.batch_norm`.

    Recorded on at most two frames of each video of the centres C1 to C5: one loss a video needs no more.

    Parameters
    ----------
    order : str
        A criterion of `pruning`: "magnitude", "layerwise", "lamp", "wanda", "fisher", "snip"; or "fine-tuned": pruned
        by LAMP and trained a little, at the last ratio alone. What looks at data saw frames that
        the network was trained on.

    Returns
    -------
    PolypLosses

    Raises
    ------
    FileNotFoundError, ValueError
        Another order; a shipped file is missing or damaged, see `read_asset`.

    >>> recorded = polyp_orders("lamp")
    >>> recorded.losses.shape, len(set(recorded.group)), sorted(set(recorded.centre.tolist()))
    ((207, 4), 123, [1, 2, 3, 4, 5])
    """
    _checks.choice(order, "order", POLYP_ORDERS)
    return _of_few_frames("polyp-orders.npz", order)


POLYP_CHANNELS = ("one-shot", "trained")


def polyp_channels(finish: str = "trained") -> PolypLosses:
    """`dice_degradation` of the shipped UNet without some of its channels, on the frames of `polyp_orders`.

    Parameters
    ----------
    finish : str
        "one-shot": the statistics of the batch norms are estimated anew; "trained": after 400 steps of training towards
        the full network's masks. Both looked at frames that the network was trained on.

    Returns
    -------
    PolypLosses, whose `ratios` are the shares of channels removed, of every layer but the last.

    Raises
    ------
    FileNotFoundError, ValueError
        Another finish; a shipped file is missing or damaged, see `read_asset`.

    >>> polyp_channels("one-shot").ratios.tolist(), polyp_channels("trained").ratios.tolist()
    ([0.125, 0.25, 0.375, 0.5], [0.375])
    """
    _checks.choice(finish, "finish", POLYP_CHANNELS)
    return _of_few_frames("polyp-channels.npz", finish)


POLYP_SHIFT_LOSSES = ("one_minus_dice", "one_minus_dice_to_full", "dice_degradation")


def polyp_shifts(shift: str, strength: float = 0, loss: str = "one_minus_dice") -> PolypLosses:
    """Losses of the shipped UNet, pruned by magnitude, on the frames of `polyp_orders` after they were made worse.

    Parameters
    ----------
    shift : str
        "out of focus", "dark" or "compression", see `degraded`.
    strength : float
        0, the frames as they are, or one of `POLYP_SHIFTS[shift]`.
    loss : str
        One of `POLYP_SHIFT_LOSSES`, as in `polyp_losses`. The true masks stay; the full network sees the worse frame,
        too.

    Returns
    -------
    PolypLosses

    Raises
    ------
    FileNotFoundError, ValueError
        Another shift, strength or loss; a shipped file is missing or damaged, see `read_asset`.

    >>> polyp_shifts("dark", 0.8).losses.shape, polyp_shifts("dark").ratios.tolist()
    ((207, 6), [0.0, 0.2, 0.3, 0.4, 0.5, 0.6])
    >>> [round(float(polyp_shifts("out of focus", s).losses[:, 0].mean()), 2) for s in (0, 2, 6)]   # not pruned
    [0.27, 0.44, 0.89]
    """
    _checks.choice(shift, "shift", tuple(POLYP_SHIFTS))
    if strength not in (0, *POLYP_SHIFTS[shift]):
        raise ValueError(f"strength of {shift!r} must be 0 or one of {POLYP_SHIFTS[shift]}, got {strength!r}")
    _checks.choice(loss, "loss", POLYP_SHIFT_LOSSES)
    frames = polyp_losses(loss)
    with read_arrays("polyp-shifts.npz") as stored:
        rows, ratios = stored["rows"], stored["ratios"]
        if strength:
            losses = stored[f"{shift}/{strength:g}/{loss}"].astype(np.float64)
        else:
            losses = frames.losses[np.ix_(rows, np.searchsorted(frames.ratios, ratios - 1e-9))]
    return _part(frames, rows, losses, ratios)


def _of_few_frames(file: str, table: str) -> PolypLosses:
    with read_arrays(file) as stored:
        zeros = f"{table}/zeros"
        return _part(
            polyp_losses("dice_degradation"),
            stored["rows"],
            stored[table].astype(np.float64),
            stored[f"{table}/ratios"],
            stored[zeros].astype(np.float64) if zeros in stored else None,
        )


def _part(
    frames: PolypLosses, rows: np.ndarray, losses: np.ndarray, ratios: np.ndarray, zeros: np.ndarray | None = None
) -> PolypLosses:
    names = tuple(frames.names[i] for i in rows)
    return PolypLosses(losses, ratios, frames.centre[rows], frames.group[rows], names, zeros)
