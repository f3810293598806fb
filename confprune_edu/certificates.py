"""What was certified: the claim in words, as JSON and back, and the pruned network that it is about."""

from __future__ import annotations

import functools
import html
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from confprune_edu import _checks, fwer, pvalues

if TYPE_CHECKING:  # torch is imported where a network is at hand: `calibrate_losses` runs without it
    from torch import Tensor, nn

    from confprune_edu import pruning


VERSION = 1  # of the JSON records

# Procedures of this package by name: of any other, the caller promises that it holds delta.
PROCEDURES = (*fwer.PROCEDURES, "multi_start", "graphical", "rows", "middle", "path", "graph", "grid_graph", "split")


class Certificate:
    """What every certificate can do: prune as it was calibrated, be read and written as JSON, and say what it claims.

    A certificate is a frozen dataclass with these fields. It names its schema, checks a record that was read, and says
    in three sentences what was certified, what that means, and what it rests on.
    """

    schema: ClassVar[str]
    rejected: NDArray[np.bool_]
    procedure: str
    model_sha256: str | None
    criterion: str
    finished: bool
    scores_sha256: str | None
    scores: Mapping[str, Tensor] | None
    finish: pruning.Finish | None

    @staticmethod
    def _checked(record: dict[str, Any]) -> dict[str, Any]:
        """The fields of a record as arguments of the class; ValueError or TypeError if they contradict each other."""
        raise NotImplementedError

    def _sentences(self) -> tuple[str, str, str]:
        raise NotImplementedError

    def _proviso(self) -> str:
        own = self.procedure.split("(")[0]  # a caller's function is known by name only
        return "" if own in PROCEDURES else f", provided that {own} keeps its own chance of any false rejection at that"

    @classmethod
    def _json_fields(cls) -> list[str]:
        return [f.name for f in fields(cls) if f.name not in ("scores", "finish")]  # type: ignore[arg-type]

    def _pruned(
        self, model: nn.Module, ratio: float, scores: Mapping[str, Tensor] | None, finish: pruning.Finish | None
    ) -> nn.Module:
        """The member of the calibrated family at `ratio`; ValueError if this is another network or another family."""
        from confprune_edu import pruning

        if self.model_sha256 not in (None, pruning.fingerprint(model)):
            raise ValueError("model is not the one that was calibrated: its weights, buffers or dtype differ")
        scores = self.scores if scores is None else scores
        finish = self.finish if finish is None else finish
        if self.criterion != "unknown":
            self._same_family(None if scores is None else pruning.digest(scores), finish)
        return next(pruning.family(model, [ratio], scores, finish)).eval()

    def _same_family(self, scores_sha256: str | None, finish: pruning.Finish | None) -> None:
        if scores_sha256 != self.scores_sha256:
            used = "magnitude" if self.scores_sha256 is None else "the scores that it was calibrated with"
            raise ValueError(f"scores differ from those of this certificate, which is about {used}")
        if (finish is not None) != self.finished:
            raise ValueError(f"finish must be {'the one that' if self.finished else 'None: none'} was calibrated")

    def to_json(self) -> str:
        """The certificate as JSON text, with a schema version; `from_json` reads it back. NaN becomes null."""
        record: dict[str, Any] = {"schema": self.schema, "version": VERSION}
        for name in self._json_fields():
            value = getattr(self, name)
            record[name] = _nulls(value) if isinstance(value, np.ndarray) else value
        return json.dumps(record, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text of `to_json`; TypeError or ValueError names what is wrong with it."""
        if not isinstance(text, str | bytes):
            raise TypeError(f"text must be what to_json gave, got {type(text).__name__}")
        try:
            record = json.loads(text)
        except json.JSONDecodeError as problem:
            raise ValueError(f"not a calibration record (its text is needed, not a path): {problem}") from None
        if not isinstance(record, dict) or (record.get("schema"), record.get("version")) != (cls.schema, VERSION):
            found = (record.get("schema"), record.get("version")) if isinstance(record, dict) else type(record).__name__
            raise ValueError(
                f"not a calibration record that {cls.__name__} reads ({cls.schema}, {VERSION}): got {found}"
            )
        if missing := [name for name in cls._json_fields() if name not in record]:
            raise ValueError(f"the calibration record lacks {', '.join(missing)}")
        try:
            return cls(**cls._checked({name: record[name] for name in cls._json_fields()}))
        except (TypeError, ValueError) as problem:
            raise ValueError(f"the calibration record contradicts itself: {problem}") from None

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


@dataclass(frozen=True, eq=False, repr=False)
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
        NaN where the lazy fixed sequence stopped before: those ratios were not evaluated.
    ratios : float64 array, shape (m,)
    alpha, delta : float
        Tolerated risk, in the units of the loss; tolerated probability of any false certificate.
    n : int
        Calibration examples.
    p_value, procedure, loss : str
        What was used, by name.
    loss_range : (float, float)
        Range of the loss; p-values are computed from losses and alpha rescaled to [0, 1].
    model_sha256 : str or None
        Fingerprint of the calibrated network's parameters and buffers; None if only losses were seen.
    criterion, scores_sha256, finished : str, str or None, bool
        "magnitude", "custom" or "unknown"; fingerprint of custom scores; whether a `finish` was part of the family.
    """

    ratio: float | None
    rejected: NDArray[np.bool_]
    p_values: NDArray[np.float64]
    loss_means: NDArray[np.float64]
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
    scores: Mapping[str, Tensor] | None = field(default=None)
    finish: pruning.Finish | None = field(default=None)

    schema = "confprune_edu.Calibration"

    def prune(
        self,
        model: nn.Module,
        scores: Mapping[str, Tensor] | None = None,
        finish: pruning.Finish | None = None,
    ) -> nn.Module:
        """The certified network: a copy of `model` pruned to `ratio`, finished as it was evaluated, in eval mode.

        `scores` and `finish` are remembered by `calibrate`; give them again for a certificate read from JSON or made by
        `calibrate_losses` from a table that used them.

        Raises
        ------
        ValueError
            Nothing was certified; `model`, scores or `finish` are not those that were calibrated.
        """
        if self.ratio is None:
            raise ValueError("nothing was certified: there is no certified network")
        return self._pruned(model, self.ratio, scores, finish)

    def plot(self, **options: Any) -> Any:
        """Risk and p-values against the ratio, see `plots.certificate`."""
        from confprune_edu.plots import certificate as draw

        return draw(self, **options)

    def _sentences(self) -> tuple[str, str, str]:
        return self._headline(), self._claim(), self._facts()

    @staticmethod
    def _checked(record: dict[str, Any]) -> dict[str, Any]:
        values = dict(record) | common_fields(record)
        grid, (low, high) = values["ratios"], values["loss_range"]
        for name in ("p_values", "loss_means"):
            values[name] = np.array(record[name], dtype=np.float64)
        p, means = values["p_values"], values["loss_means"]
        values["rejected"] = _checks.mask(record["rejected"], "rejected", len(grid))
        if p.shape != grid.shape or means.shape != grid.shape:
            raise ValueError("p_values, loss_means and ratios differ in length")
        _checks.within(p[~np.isnan(p)], "p_values", 0, 1)
        _checks.within(means[~np.isnan(means)], "loss_means", low, high)
        if np.isnan(p[values["rejected"]]).any() or record["ratio"] != _largest(grid, values["rejected"]):
            raise ValueError(f"ratio {record['ratio']} is not the largest certified one")
        return values

    def _headline(self) -> str:
        if self.ratio is None:
            return (
                f"Nothing certified: no ratio of the grid is shown to keep the {self.loss} risk at most {self.alpha:g}"
            )
        return f"Certified pruning ratio: {self.ratio:g}"

    def _claim(self) -> str:
        if self.ratio is None:
            return "This does not say that pruning is unsafe, only that these examples do not prove it safe."
        chance = "in the limit of many examples only, " if self.p_value == "clt" else ""
        return (
            f"With {100 * self.ratio:.4g} % of the prunable weights at zero, the {self.loss} risk is at most "
            f"{self.alpha:g}. Over draws of the calibration examples, {chance}the recipe makes a false claim with "
            f"probability at most {self.delta:g}{self._proviso()}."
        )

    def _facts(self) -> str:
        certified, tested = int(self.rejected.sum()), int(np.isfinite(self.p_values).sum())
        if self.ratio is None:
            mean = f"; at the first the mean loss is {self.loss_means[0]:.4f}, p = {self.p_values[0]:.3g}"
        else:
            mean = f"; mean loss there {self.loss_means[self.ratios == self.ratio][0]:.4f}"
        return (
            f"n = {self.n}, {self.p_value} p-values, {self.procedure}; "
            f"{certified} of {tested} tested ratios certified, {len(self.ratios)} in the grid{mean}"
        )


def common_fields(record: dict[str, Any]) -> dict[str, Any]:
    """What every certificate's record holds, checked: settings, grid and provenance; the grid and range as arrays."""
    low, high = _checks.interval(record["loss_range"], "loss_range")
    settings(record["alpha"], record["delta"], record["p_value"], low, high)
    _checks.positive_int(record["n"], "n")
    kinds = dict.fromkeys(("procedure", "loss", "criterion"), str) | {"finished": bool}
    optional = dict.fromkeys(("model_sha256", "scores_sha256"), (str, type(None)))
    if odd := [name for name, kind in (kinds | optional).items() if not isinstance(record[name], kind)]:
        raise ValueError(f"{', '.join(odd)} of another type")
    return {"loss_range": (low, high), "ratios": _checks.ratios(np.array(record["ratios"], dtype=np.float64))}


def settings(alpha: float, delta: float, p_value: str, low: float, high: float) -> None:
    """Refuse an alpha outside the loss's range, a delta outside (0, 1) and an unknown p-value."""
    _checks.number(alpha, "alpha", low, high)
    _checks.number(delta, "delta")
    _checks.choice(p_value, "p_value", pvalues.METHODS)


def provenance_of(
    model: nn.Module, scores: Mapping[str, Tensor] | None, finish: pruning.Finish | None
) -> dict[str, Any]:
    """The fields of a certificate that tell which network was calibrated, and which pruned family of it."""
    from confprune_edu import pruning

    return {
        "model_sha256": pruning.fingerprint(model),
        "criterion": "magnitude" if scores is None else "custom",
        "finished": finish is not None,
        "scores": None if scores is None else {name: score.detach().clone() for name, score in scores.items()},
        "scores_sha256": None if scores is None else pruning.digest(scores),
        "finish": finish,
    }


def _largest(grid: NDArray[np.float64], rejected: NDArray[np.bool_]) -> float | None:
    return float(grid[rejected].max()) if rejected.any() else None


def name_of(function: Any) -> str:
    """What a certificate calls a function: its name, with the arguments that a `functools.partial` fixes."""
    if isinstance(function, functools.partial):
        given = [*map(str, function.args), *(f"{k}={v}" for k, v in function.keywords.items())]
        short = ", ".join(textwrap.shorten(text, 40, placeholder=" ...") for text in given)
        return f"{name_of(function.func)}({short})"
    return getattr(function, "__name__", type(function).__name__)


def _nulls(values: NDArray[Any]) -> list[Any]:
    entries = values.astype(object)
    entries[values != values] = None
    return entries.tolist()
