"""Which network was calibrated, and which family of it; and the network of a certificate, made again."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from confprune_edu.recipe import name_of

if TYPE_CHECKING:  # torch is imported where a network is at hand
    from torch import Tensor, nn

    from confprune_edu import pruning

Certified = TypeVar("Certified")

LEFT_OUT = 0.1  # share of a model's matrix weights above which a warning says that they are not prunable


def provenance_of(
    model: nn.Module,
    scores: Mapping[str, Tensor] | None,
    finish: pruning.Finish | None,
    weights: pruning.Weights | None = None,
    family: pruning.Family | None = None,
) -> dict[str, Any]:
    """The fields of a certificate that tell which network was calibrated, and which pruned family of it.

    A warning names the largest matrices that the usual rule leaves out, if they hold more than a tenth.
    """
    from confprune_edu import pruning

    same = {
        "model_sha256": pruning.fingerprint(model),
        "tensors": pruning.digests(model),
        "finished": finish is not None,
        "finish": finish,
    }
    if family is not None:
        knob = getattr(family, "knob", "ratio")
        if not isinstance(knob, str):
            raise TypeError(f"family.knob must say in words what the ratio is, got {knob!r}")
        return same | {"criterion": name_of(family), "family": family, "knob": knob}
    extent = pruning.extent(model, weights)
    if weights is None and sum(extent.left_out.values()) > LEFT_OUT * extent.matrix:
        most = ", ".join(sorted(extent.left_out, key=lambda name: -extent.left_out[name])[:3])
        warnings.warn(
            f"the ratio is about {extent.prunable:,} of the model's {extent.matrix:,} matrix weights: {most} "
            "(the largest) are not prunable by default; weights= chooses which are",
            stacklevel=3,
        )
    scores = None if scores is None else pruning.checked_scores(model, scores, weights)
    return same | {
        "criterion": "magnitude" if scores is None else "custom",
        "scores": None if scores is None else {name: score.detach().clone() for name, score in scores.items()},
        "scores_sha256": None if scores is None else pruning.digest(scores),
        "weights": None if weights is None else list(pruning.prunable(model, weights)),
        "prunable": extent.prunable,
        "matrix": extent.matrix,
        "zeros": extent.zeros,
    }


def counted(certificate: Certified, model: nn.Module, ratio: float | None) -> Certified:
    """The certificate; if it is about a family, it now says how many parameters the network at a ratio has."""
    from confprune_edu import pruning

    known: Any = certificate
    if known.family is None or ratio is None:
        return certificate
    sizes = [pruning.parameters(network) for network in (model, pruning.member(model, ratio, known.family))]
    return dataclasses.replace(known, parameters=sizes)


def pruned_as(
    certificate: Any,
    model: nn.Module,
    ratio: float,
    scores: Mapping[str, Tensor] | None,
    finish: pruning.Finish | None,
    weights: pruning.Weights | None,
    family: pruning.Family | None,
) -> nn.Module:
    """The member of the calibrated family at `ratio`; ValueError if this is another network or another family."""
    from confprune_edu import pruning

    if certificate.model_sha256 not in (None, pruning.fingerprint(model)):
        how = "its weights, buffers or dtype differ"
        if certificate.tensors is not None:
            how = pruning.difference(certificate.tensors, model)
        raise ValueError(f"model is not the one that was calibrated: {how}")
    known, own = not _of_a_table(certificate), certificate.finish
    finish = own if finish is None else finish
    if known and ((finish is not None) != certificate.finished or (own is not None and finish is not own)):
        raise ValueError(f"finish must be {'the one that' if certificate.finished else 'None: none'} was calibrated")
    if certificate.knob is not None or family is not None:
        if scores is not None or weights is not None:
            raise ValueError("scores and weights must be None where a family takes their place")
        return pruning.member(model, ratio, _same_family(certificate, family), finish)
    scores = certificate.scores if scores is None else scores
    weights = certificate.weights if weights is None else list(pruning.prunable(model, weights))
    if known:
        _refuse_others(certificate, model, None if scores is None else pruning.digest(scores), weights)
    return next(pruning.family(model, [ratio], scores, finish, weights=weights)).eval()


def _of_a_table(certificate: Any) -> bool:
    """Were only losses seen? A family, too, may be called unknown."""
    return (certificate.criterion, certificate.model_sha256) == ("unknown", None)


def _same_family(certificate: Any, family: pruning.Family | None) -> pruning.Family:
    own = certificate.family
    found = own if family is None else family
    if certificate.knob is None:
        raise ValueError("family must be None: this certificate is about weights at zero")
    other = not _of_a_table(certificate) and certificate.criterion != name_of(found)
    if found is None or own not in (None, found) or other:
        raise ValueError(f"family must be the one that was calibrated, {certificate.criterion}")
    return found


def _refuse_others(
    certificate: Any, model: nn.Module, scores_sha256: str | None, weights: pruning.Weights | None
) -> None:
    """ValueError if scores or weights are not those that were calibrated."""
    from confprune_edu import pruning

    if scores_sha256 != certificate.scores_sha256:
        used = "magnitude" if certificate.scores_sha256 is None else "the scores that it was calibrated with"
        raise ValueError(f"scores differ from those of this certificate, which is about {used}")
    if list(pruning.prunable(model, weights)) != list(pruning.prunable(model, certificate.weights)):
        own = ", ".join(certificate.weights or ["the usual ones"])
        raise ValueError(f"weights must be those of this certificate: {own}")
