"""What was certified: the claim in words, and the pruned network that it is about."""

from __future__ import annotations

import functools
import html
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from confprune_edu import _checks, fwer, pvalues
from confprune_edu.provenance import pruned_as
from confprune_edu.recipe import Recipe
from confprune_edu.records import (
    LATER,
    Record,
    at_most,
    checked_plan,
    p_value_bounds,
    plan_sha256 as plan_sha256,
    read,
)

if TYPE_CHECKING:  # torch is imported where a network is at hand: `calibrate_losses` runs without it
    from torch import Tensor, nn

    from confprune_edu import pruning


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Certificate(Record):
    """What every certificate holds, and can do: prune as it was calibrated, and say what it claims and on what."""

    rejected: NDArray[np.bool_]
    p_values: NDArray[np.float64]
    ratios: NDArray[np.float64]
    alpha: float
    delta: float
    n: int
    p_value: str
    procedure: str
    loss: str = "loss"
    loss_range: tuple[float, float] = (0.0, 1.0)
    model_sha256: str | None = None
    criterion: str = "unknown"
    finished: bool = False
    scores_sha256: str | None = None
    data_sha256: str | None = field(default=None, metadata=LATER)
    seed: int | None = field(default=None, metadata=LATER)
    weights: list[str] | None = field(default=None, metadata=LATER)
    prunable: int | None = field(default=None, metadata=LATER)
    matrix: int | None = field(default=None, metadata=LATER)
    zeros: int | None = field(default=None, metadata=LATER)
    tensors: dict[str, str] | None = field(default=None, metadata=LATER)
    importance: float | None = field(default=None, metadata=LATER)
    knob: str | None = field(default=None, metadata=LATER)
    parameters: list[int] | None = field(default=None, metadata=LATER)
    saved: dict[str, Any] | None = field(default=None, metadata=LATER)
    scores: Mapping[str, Tensor] | None = field(default=None)
    finish: pruning.Finish | None = field(default=None)
    family: pruning.Family | None = field(default=None)

    def _proviso(self) -> str:
        name = self.procedure.split("(")[0]  # no function from outside is recorded under a name of the package's
        known = name in self.keep_delta
        return "" if known else f", provided that {name} keeps its own chance of any false rejection at that"

    def _save(self, path: str | Path, pruned: nn.Module, network: str | None, date: str | None, **setting: Any) -> None:
        """Write the pruned network with this certificate, which from here on names it."""
        from confprune_edu import pruning, saved

        if setting["plan"] is not None:
            setting["plan"] = checked_plan(setting["plan"], json.loads(self.to_json()))
        tensors = saved.tensors_of(pruned)
        names = [] if self.knob is not None else list(pruning.prunable(pruned, self.weights))
        about = saved.about(pruned, tensors, names, network, date) | setting
        saved.write(_checks.path(path, "path"), tensors, replace(self, saved=about).to_json())

    def saved_ratio(self) -> float | None:
        """The pruning ratio of the network in the file that this certificate comes from."""
        raise NotImplementedError

    def _sentences(self) -> tuple[str, str, str]:
        plan = (self.saved or {}).get("plan")
        planned = f"; plan {plan_sha256(plan)[:16]}" if plan else ""
        return self._headline(), self._claim(), self._facts() + self._extent() + planned

    def _claim(self) -> str:
        if not self.rejected.any():
            what = "pruning" if self.knob is None else "the family"
            return f"This does not say that {what} is unsafe, only that these examples do not prove it safe."
        chance = "in the limit of many examples only, " if self.p_value == "clt" else ""
        return (
            f"{self._certified()} Over draws of the calibration examples, {chance}the recipe makes a false claim with "
            f"probability at most {self.delta:g}{self._proviso()}."
        )

    def _extent(self) -> str:
        """How much of the model the ratio is about."""
        if self.model_sha256 is None and self.saved is not None:
            return "; which network the losses are of was not recorded"
        if self.knob is not None:
            left = "" if self.parameters is None else ", {1:,} of {0:,} parameters left".format(*self.parameters)
            return "" if self.criterion == "unknown" else f"; family {self.criterion}{left}"
        if self.prunable is None or self.matrix is None:
            return ""
        chosen = "" if self.weights is None else " by weights="
        return (
            f"; prunable{chosen}: {self.prunable:,} of the model's {self.matrix:,} matrix weights, "
            f"{f'{self.zeros:,}' if self.zeros else 'none'} zero before"
        )

    def _setting(self, ratio: float) -> str:
        """What was done to the network at a ratio, as the beginning of a sentence."""
        if self.knob is not None:
            return f"At {self.knob} = {ratio:g}"
        return f"With {100 * ratio:.4g} % of the prunable weights at zero"

    def _headline(self) -> str:
        raise NotImplementedError

    def _certified(self) -> str:
        raise NotImplementedError

    def _facts(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(textwrap.fill(part, 96) for part in self._sentences())

    def _repr_html_(self) -> str:
        headline, claim, facts = (html.escape(part) for part in self._sentences())
        colour = "#0072B2" if self.rejected.any() else "#767676"
        return (
            f'<div style="border-left: 6px solid {colour}; padding: 0.4em 1em; max-width: 44em">'
            f'<div style="font-size: 1.25em; font-weight: 600">{headline}</div>'
            f'<div style="margin: 0.3em 0">{claim}</div><div style="opacity: 0.75">{facts}</div></div>'
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Calibration(Certificate):
    """A certificate: how far the model may be pruned, and all that the claim rests on.

    With probability at least 1 - delta over the draw of the calibration examples, every ratio marked in `rejected`
    has risk at most alpha; `ratio` is the largest of them, and certifying nothing is no false claim. The claim is
    about new examples from the law of the calibration examples (i.i.d.), and about the function that was evaluated.

    Attributes
    ----------
    ratio : float or None
        Largest certified ratio; None if nothing was certified.
    rejected : bool array, shape (m,)
        True where H_j: risk_j > alpha was rejected, that is, where ratios[j] is certified.
    p_values, loss_means : float64 arrays, shape (m,)
        NaN where sequences stopped before: those ratios were not tested.
    ratios : float64 array, shape (m,)
    alpha, delta : float
        Tolerated risk, in the units of the loss; tolerated probability of any false certificate.
    n : int
        Calibration examples.
    evaluated : int or None
        Ratios evaluated; more than were tested where sequences stopped within a block, see `calibration.calibrate`.
    p_value, procedure, loss : str
        What was used, by name.
    loss_range : (float, float)
        Range of the loss; p-values are computed from losses and alpha rescaled to [0, 1].
    model_sha256 : str or None
        Fingerprint of the calibrated network's parameters and buffers; None if only losses were seen.
    criterion, scores_sha256, finished : str, str or None, bool
        "magnitude", "custom", "unknown" or the name of a `family`; fingerprint of custom scores; was there a `finish`?
    knob, parameters : str or None, list of int or None
        Of a `family` only: what its ratio is, in words; parameters of the model and of the network at `ratio`.
    data_sha256 : str or None
        Fingerprint of the examples in their order, of the loss table where only losses were seen: two certificates that
        share it rest on the same examples, and do not hold together at 1 - delta. None if the data can not be read so.
    seed : int or None
        Seed of a random split of the examples, where one was made.
    prunable, matrix, zeros : int or None
        Entries of the prunable weights, of all of the model's matrix weights (see `pruning.extent`), and those of the
        prunable ones that were zero before: the ratio counts them.
    weights : list of str or None
        Names of the prunable weights, if the caller chose them.
    saved : dict or None
        From a file: the network's name, date and plan, versions, and each tensor's dtype, shape, zeros and SHA-256.
    importance : float or None
        Bound of the importance weights, where there were any: the risk is that of the law which they describe, and
        `loss_means` are those of weight times loss.
    tensors : dict from name to str, or None
        Short checksums of the network's parameters and buffers: what differs in another model is told by name.
    """

    ratio: float | None
    loss_means: NDArray[np.float64]
    evaluated: int | None = field(default=None, metadata=LATER)

    schema = "confprune_edu.Calibration"
    tables = ("loss_means",)
    keep_delta = Recipe.names
    stop_rules = fwer.PROCEDURES

    @property
    def tested(self) -> NDArray[np.bool_]:
        """Which ratios were tested, (m,): a fixed sequence stops at its first failure, whatever was computed beyond."""
        seen: NDArray[np.bool_] = np.isfinite(self.p_values)
        return seen & (np.cumsum(~self.rejected) <= 1) if self.procedure == "fixed_sequence" else seen

    def prune(
        self,
        model: nn.Module,
        scores: Mapping[str, Tensor] | None = None,
        finish: pruning.Finish | None = None,
        *,
        weights: pruning.Weights | None = None,
        family: pruning.Family | None = None,
    ) -> nn.Module:
        """The certified network: a copy of `model` pruned to `ratio`, finished as it was evaluated, in eval mode.

        `scores`, `finish`, `weights` and `family` are remembered by `calibrate`; give them again for a certificate made
        by `calibrate_losses` from a table that used them, and all but weights for one read from JSON, which knows a
        finish only by its being there, and a family by its name.

        Raises
        ------
        ValueError
            Nothing was certified; `model`, scores, `finish`, `weights` or `family` are not those that were calibrated.
        """
        if self.ratio is None:
            raise ValueError("nothing was certified: there is no certified network")
        return pruned_as(self, model, self.ratio, scores, finish, weights, family)

    def save(
        self,
        path: str | Path,
        model: nn.Module,
        *,
        network: str | None = None,
        date: str | None = None,
        plan: Mapping[str, Any] | None = None,
        scores: Mapping[str, Tensor] | None = None,
        finish: pruning.Finish | None = None,
        weights: pruning.Weights | None = None,
        family: pruning.Family | None = None,
    ) -> None:
        """The certified network and this certificate, as metadata, in one new safetensors file.

        `safetensors.torch.load_model(model, path)` loads the weights into a network of the same class and shapes.

        Parameters
        ----------
        path : str or Path
            A file that does not exist.
        model : torch.nn.Module
            The network that was calibrated, not pruned yet.
        network, date : str, optional
            What the certificate calls the network (default: its class), and when it was made.
        plan : dict, optional
            What was fixed before the first loss was seen, kept in `saved`. An entry with the name of a field of the
            certificate (alpha, ratios, loss, n, ...) must be what that field is. When it was written, no file can show:
            that needs somebody who was given its `plan_sha256` before.
        scores, finish, weights, family
            As in `prune`.

        Raises
        ------
        FileExistsError, ValueError
            `path` exists; `plan` says otherwise; as in `prune`.
        """
        pruned = self.prune(model, scores, finish, weights=weights, family=family)
        self._save(path, pruned, network, date, plan=plan)

    def saved_ratio(self) -> float | None:
        return self.ratio

    def plot(self, **options: Any) -> Any:
        """Risk and p-values against the ratio, see `plots.certificate`."""
        from confprune_edu.plots import certificate as draw

        return draw(self, **options)

    @classmethod
    def _implied(cls, values: dict[str, Any], recipe: Recipe) -> tuple[Any, Any, NDArray[np.bool_]]:
        p, means, n, (low, high) = values["p_values"], values["loss_means"], values["n"], recipe.loss_range
        tested = ~np.isnan(p)
        count = int(tested.sum())
        starts = values["procedure"].startswith("multi_start(")  # sequences that leave gaps
        if count == 0 or (tested[count:].any() and not starts) or (np.isnan(means) == tested).any():
            raise ValueError("p_values and loss_means must be null for the same ratios, the last ones")
        if values["evaluated"] is not None and not count <= _checks.whole(values["evaluated"], "evaluated", 1, len(p)):
            raise ValueError(f"evaluated must count the {count} ratios with a p-value, too")
        _checks.within(means[tested], "loss_means", low, high)
        if values["ratio"] != largest(values["ratios"], values["rejected"]):
            raise ValueError(f"ratio {values['ratio']} is not the largest certified one")
        rule, want = cls.stop_rules.get(values["procedure"], at_most), np.zeros(len(p), dtype=bool)
        want[tested] = rule(p[tested], recipe.delta)
        if count < len(p) and not starts and (rule is not fwer.fixed_sequence or want[count - 1]):
            raise ValueError("p_values must be there for all ratios, or up to the first failure of a fixed sequence")
        if rule is at_most:  # of other procedures no more is known
            want &= values["rejected"]
        if recipe.p_value not in pvalues.FROM_SUM:
            return 0, 1, want
        sums = n * np.where(tested, (means - low) / (high - low), 1)
        p_of = functools.partial(pvalues.FROM_SUM[recipe.p_value], n=n, alpha=recipe.level)
        least, _, most = p_value_bounds(p_of, sums, np.array(n), recipe.p_value)
        return least, most, want

    def _headline(self) -> str:
        if self.ratio is None:
            return (
                f"Nothing certified: no ratio of the grid is shown to keep the {self.loss} risk at most {self.alpha:g}"
            )
        return f"Certified {self.knob or 'pruning ratio'}: {self.ratio:g}"

    def _certified(self) -> str:
        where = "" if self.importance is None else " under the law that the importance weights describe"
        return f"{self._setting(self.ratio or 0)}, the {self.loss} risk{where} is at most {self.alpha:g}."

    def _facts(self) -> str:
        certified, tested = int(self.rejected.sum()), int(self.tested.sum())
        more = 0 if self.evaluated is None else self.evaluated - tested
        also = "was evaluated along the way and does" if more == 1 else "were evaluated along the way and do"
        beyond = f" ({more} more {also} not count)" if more else ""
        if self.ratio is None:
            mean = f"; at the first the mean loss is {self.loss_means[0]:.4f}, p = {self.p_values[0]:.3g}"
        else:
            mean = f"; mean loss there {self.loss_means[self.ratios == self.ratio][0]:.4f}"
        return (
            f"n = {self.n}, {self.p_value} p-values, {self.procedure}; "
            f"{certified} of {tested} tested ratios certified, {len(self.ratios)} in the grid{beyond}{mean}"
        )


def load(path: str | Path) -> Any:
    """The certificate in a file that `save` wrote: a `Calibration` or a `selective.SelectiveCalibration`.

    What it claims is computed anew from what it rests on; of the weights in the file it knows nothing: see `verify`.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, a damaged one, or one without certificate; a certificate that was edited or contradicts itself.
    """
    return _read(path)[0]


def verify(path: str | Path, model: nn.Module | None = None) -> Any:
    """The certificate in a file, if every tensor beside it is the one that was certified, bit for bit.

    Parameters
    ----------
    path : str or Path
        What `save` wrote.
    model : torch.nn.Module, optional
        A network in memory that must have these tensors, too: the one that is about to be used.

    Returns
    -------
    Calibration or selective.SelectiveCalibration

    Raises
    ------
    FileNotFoundError, ValueError
        As in `load`; a tensor that is missing, new, cast, reshaped or changed, by name; fewer zeros than certified.

    That shows changes, accidents above all. It is no signature, and settings that are no tensors are the class's own.
    Of a `family` the tensors are checked, not that the family gives them at this ratio.

    >>> import pathlib, tempfile
    >>> import torch
    >>> from confprune_edu.calibration import calibrate
    >>> from confprune_edu.losses import disagreement
    >>> model = torch.nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.tensor([[5.0, 0.1], [0.1, 4.0]])
    >>> result = calibrate(model, torch.eye(2).repeat(50, 1), disagreement, alpha=0.1, delta=0.1, ratios=[0.25, 0.5])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "model.safetensors")
    ...     result.save(file, model)
    ...     print(verify(file).ratio)
    ...     verify(file, model)
    Traceback (most recent call last):
    ValueError: model: weight has other values than the tensor that was certified
    """
    from confprune_edu import saved

    certificate, tensors = _read(path)
    saved.check(tensors, certificate.saved["tensors"])
    if certificate.knob is None:
        saved.check_zeros(certificate.saved, certificate.saved_ratio(), certificate.prunable)
    if model is not None:
        if model.training:
            raise ValueError("model: it is in training mode, and was evaluated in eval mode: call model.eval()")
        saved.check(saved.tensors_of(model), certificate.saved["tensors"], "model: ")
        saved.check(saved.buffers_of(model), certificate.saved["buffers"], "model: ")
    return certificate


def _read(path: str | Path) -> tuple[Any, dict[str, Tensor]]:
    from confprune_edu import saved

    text, tensors = saved.read(_checks.path(path, "path"))
    certificate: Any = read(text)
    if certificate.saved is None:
        raise ValueError(f"the certificate in {Path(path).name} names no tensor: it was not written by save")
    return certificate, tensors


def largest(grid: NDArray[np.float64], rejected: NDArray[np.bool_]) -> float | None:
    """The largest certified ratio; None if there is none.

    >>> largest(np.array([0.2, 0.5]), np.array([True, False]))
    0.2
    """
    return float(grid[rejected].max()) if rejected.any() else None
