"""Which network was calibrated, and which pruned family of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch is imported where a network is at hand
    from torch import Tensor, nn

    from confprune_edu import pruning

LEFT_OUT = 0.1  # share of a model's matrix weights above which a warning says that they are not prunable


def provenance_of(
    model: nn.Module,
    scores: Mapping[str, Tensor] | None,
    finish: pruning.Finish | None,
    weights: pruning.Weights | None = None,
) -> dict[str, Any]:
    """The fields of a certificate that tell which network was calibrated, and which pruned family of it.

    A warning names the largest matrices that the usual rule leaves out, if they hold more than a tenth.
    """
    from confprune_edu import pruning

    extent = pruning.extent(model, weights)
    if weights is None and sum(extent.left_out.values()) > LEFT_OUT * extent.matrix:
        most = ", ".join(sorted(extent.left_out, key=lambda name: -extent.left_out[name])[:3])
        warnings.warn(
            f"the ratio is about {extent.prunable:,} of the model's {extent.matrix:,} matrix weights: {most} "
            "(the largest) are not prunable by default; weights= chooses which are",
            stacklevel=3,
        )
    return {
        "model_sha256": pruning.fingerprint(model),
        "tensors": pruning.digests(model),
        "criterion": "magnitude" if scores is None else "custom",
        "finished": finish is not None,
        "scores": None if scores is None else {name: score.detach().clone() for name, score in scores.items()},
        "scores_sha256": None if scores is None else pruning.digest(scores),
        "finish": finish,
        "weights": None if weights is None else list(pruning.prunable(model, weights)),
        "prunable": extent.prunable,
        "matrix": extent.matrix,
        "zeros": extent.zeros,
    }
