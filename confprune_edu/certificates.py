"""What was certified: the claim in words, as JSON and back, and the pruned network that it is about."""

from __future__ import annotations

import functools
import hashlib
import html
import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from confprune_edu import _checks, fwer, pvalues

if TYPE_CHECKING:  # torch is imported where a network is at hand: `calibrate_losses` runs without it
    from torch import Tensor, nn

    from confprune_edu import pruning


VERSION = 1  # of the JSON records
LATER = {"later": True}  # marks fields that records of version 1 may lack


@dataclass(frozen=True)
class Recipe:
    """What is fixed before the losses are seen, with the grid and the examples' order; refused by name where it is bad.

    >>> Recipe(alpha=0.1, delta=0.1, p_value="tight", procedure="holm", loss_range=(-1, 1)).level
    0.55
    """

    alpha: float
    delta: float
    p_value: str
    procedure: Any
    loss_range: tuple[float, float] = (0.0, 1.0)

    own: ClassVar[tuple[Callable[..., Any], ...]] = fwer.KEEP_DELTA  # procedures that keep delta, and their names
    names: ClassVar[frozenset[str]] = frozenset(f.__name__ for f in fwer.KEEP_DELTA)

    def __post_init__(self) -> None:
        low, high = _checks.interval(self.loss_range, "loss_range")
        alpha, delta = _checks.number(self.alpha, "alpha", low, high), _checks.number(self.delta, "delta")
        vars(self).update(alpha=alpha, delta=delta, loss_range=(low, high))  # plain floats, whatever was given
        _checks.choice(self.p_value, "p_value", pvalues.METHODS)
        self.check_procedure()

    def check_procedure(self) -> None:
        """ValueError if `procedure` is neither a function nor a name that is known."""
        fwer.named(self.procedure)

    @property
    def procedure_name(self) -> str:
        """What a certificate calls the procedure: a function from outside never has a name of `names`."""
        if isinstance(self.procedure, str):
            return self.procedure
        function, name = self.procedure, name_of(self.procedure)
        while isinstance(function, functools.partial):
            function = function.func
        own = any(function is known for known in self.own)
        return f"custom {name}" if not own and name.split("(")[0] in self.names else name

    @property
    def level(self) -> float:
        """alpha, moved to [0, 1] together with the losses."""
        return (self.alpha - self.loss_range[0]) / (self.loss_range[1] - self.loss_range[0])

    def recorded(self) -> dict[str, Any]:
        """The fields of a certificate."""
        same = {name: getattr(self, name) for name in ("alpha", "delta", "p_value", "loss_range")}
        return same | {"procedure": self.procedure_name}

    def p_values(self, losses: NDArray[Any]) -> NDArray[np.float64]:
        """`pvalues.p_values` of losses in `loss_range`."""
        return pvalues.p_values(*pvalues.rescale(losses, self.alpha, *self.loss_range), self.p_value)

    def reject(self, p_values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The mask of the procedure, from p-values (m,) or (trials, m)."""
        return fwer.named(self.procedure)(p_values, self.delta)


def p_value_bounds(
    p_of: Callable[[NDArray[Any]], NDArray[np.float64]], sums: NDArray[np.float64], n: NDArray[Any], method: str
) -> list[NDArray[np.float64]]:
    """The least, the likely and the largest p-values of sums of n losses in [0, 1] that are known up to rounding.

    >>> bounds = p_value_bounds(lambda s: s / 10, np.array([2.9999999]), np.array([10]), "binomial")
    >>> [p.round(3).tolist() for p in bounds]
    [[0.3], [0.3], [0.3]]
    """
    slack, whole = 1e-6 + 1e-9 * n, np.rint(sums).astype(np.int64)
    if method == "binomial":
        if (np.abs(sums - whole) > slack).any():
            raise ValueError("mean losses are not those of 0/1 losses")
        slack = 0 * n
    near = whole if method == "binomial" else sums
    least, likely, most = (p_of(np.clip(near + error, 0, n)) for error in (-slack, 0 * n, slack))
    return [least * (1 - 1e-6), likely, most * (1 + 1e-6)]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Certificate:
    """What every certificate holds and can do: prune as it was calibrated, JSON and back, and say what it claims.

    A class of certificates names its schema, the tables of its record beside p-values, the procedures that keep delta,
    by the names under which they are recorded, and those among them that can be repeated when a record is read.
    """

    schema: ClassVar[str]
    tables: ClassVar[tuple[str, ...]]
    keep_delta: ClassVar[frozenset[str]]
    stop_rules: ClassVar[Mapping[str, Callable[..., NDArray[np.bool_]]]]

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
    scores: Mapping[str, Tensor] | None = field(default=None)
    finish: pruning.Finish | None = field(default=None)

    @classmethod
    def _implied(cls, values: dict[str, Any], recipe: Recipe) -> tuple[Any, Any, NDArray[np.bool_]]:
        """The least and the largest p-values that the rest of a record allows, and the mask that they allow.

        ValueError or TypeError where the rest contradicts itself.
        """
        raise NotImplementedError

    @classmethod
    def _shape(cls, values: dict[str, Any]) -> tuple[int, ...]:
        return values["ratios"].shape

    @classmethod
    def _checked(cls, record: dict[str, Any]) -> dict[str, Any]:
        """The fields of a record as arguments of the class; ValueError or TypeError if they contradict each other."""
        recipe = Recipe(record["alpha"], record["delta"], record["p_value"], at_most, record["loss_range"])
        _checks.positive_int(record["n"], "n")
        kinds: dict[str, Any] = dict.fromkeys(("procedure", "loss", "criterion"), str) | {"finished": bool}
        kinds |= dict.fromkeys(("model_sha256", "scores_sha256", "data_sha256"), str | None) | {"seed": int | None}
        if odd := [name for name, kind in kinds.items() if not isinstance(record[name], kind)]:
            raise ValueError(f"{', '.join(odd)} of another type")
        numbers = {name: np.array(record[name], dtype=np.float64) for name in ("ratios", "p_values", *cls.tables)}
        values = record | numbers | {"loss_range": recipe.loss_range, "ratios": _checks.ratios(numbers["ratios"])}
        shape = cls._shape(values)
        values["rejected"] = _checks.mask(record["rejected"], "rejected", *shape)
        if odd := [name for name in ("p_values", *cls.tables) if values[name].shape != shape]:
            raise ValueError(f"{', '.join(odd)} must have shape {shape}, as rejected has")
        p = values["p_values"]
        _checks.within(p[~np.isnan(p)], "p_values", 0, 1)
        least, most, rejected = cls._implied(values, recipe)
        if (wrong := (p < least) | (p > most)).any():
            raise ValueError(f"p_values must follow from the means, n, alpha and p_value; not so {p[wrong][0]:g}")
        if (values["rejected"] != rejected).any():
            raise ValueError("rejected must follow from p_values, delta and procedure")
        return values

    def _proviso(self) -> str:
        name = self.procedure.split("(")[0]  # no function from outside is recorded under a name of the package's
        known = name in self.keep_delta
        return "" if known else f", provided that {name} keeps its own chance of any false rejection at that"

    @classmethod
    def _json_fields(cls) -> dict[str, bool]:
        """The names of a record's fields, and whether records may lack them."""
        return {f.name: "later" in f.metadata for f in fields(cls) if f.name not in ("scores", "finish")}

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

    def _sentences(self) -> tuple[str, str, str]:
        return self._headline(), self._claim(), self._facts()

    def _claim(self) -> str:
        if not self.rejected.any():
            return "This does not say that pruning is unsafe, only that these examples do not prove it safe."
        chance = "in the limit of many examples only, " if self.p_value == "clt" else ""
        return (
            f"{self._certified()} Over draws of the calibration examples, {chance}the recipe makes a false claim with "
            f"probability at most {self.delta:g}{self._proviso()}."
        )

    def _headline(self) -> str:
        raise NotImplementedError

    def _certified(self) -> str:
        raise NotImplementedError

    def _facts(self) -> str:
        raise NotImplementedError

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
        if missing := [name for name, later in cls._json_fields().items() if not later and name not in record]:
            raise ValueError(f"the calibration record lacks {', '.join(missing)}")
        try:
            return cls(**cls._checked({name: record.get(name) for name in cls._json_fields()}))
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
    data_sha256 : str or None
        Fingerprint of the examples in their order, of the loss table where only losses were seen: two certificates that
        share it rest on the same examples, and do not hold together at 1 - delta. None if the data can not be read so.
    seed : int or None
        Seed of a random split of the examples, where one was made.
    """

    ratio: float | None
    loss_means: NDArray[np.float64]

    schema = "confprune_edu.Calibration"
    tables = ("loss_means",)
    keep_delta = Recipe.names
    stop_rules = fwer.PROCEDURES

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

    @classmethod
    def _implied(cls, values: dict[str, Any], recipe: Recipe) -> tuple[Any, Any, NDArray[np.bool_]]:
        p, means, n, (low, high) = values["p_values"], values["loss_means"], values["n"], recipe.loss_range
        tested = ~np.isnan(p)
        count = int(tested.sum())
        if count == 0 or tested[count:].any() or (np.isnan(means) == tested).any():
            raise ValueError("p_values and loss_means must be null for the same ratios, the last ones")
        _checks.within(means[tested], "loss_means", low, high)
        if values["ratio"] != largest(values["ratios"], values["rejected"]):
            raise ValueError(f"ratio {values['ratio']} is not the largest certified one")
        rule, want = cls.stop_rules.get(values["procedure"], at_most), np.zeros(len(p), dtype=bool)
        want[:count] = rule(p[:count], recipe.delta)
        if count < len(p) and (rule is not fwer.fixed_sequence or want[count - 1]):
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
        return f"Certified pruning ratio: {self.ratio:g}"

    def _certified(self) -> str:
        return (
            f"With {100 * (self.ratio or 0):.4g} % of the prunable weights at zero, the {self.loss} risk is at most "
            f"{self.alpha:g}."
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


def largest(grid: NDArray[np.float64], rejected: NDArray[np.bool_]) -> float | None:
    """The largest certified ratio; None if there is none.

    >>> largest(np.array([0.2, 0.5]), np.array([True, False]))
    0.2
    """
    return float(grid[rejected].max()) if rejected.any() else None


def at_most(p_values: NDArray[np.float64], delta: float) -> NDArray[np.bool_]:
    """What no procedure goes beyond: p <= delta, and no correction.

    >>> at_most(np.array([0.05, 0.2]), 0.1).tolist()
    [True, False]
    """
    return p_values <= delta


def table_sha256(*tables: NDArray[Any]) -> str:
    """SHA-256 of tables: their dtypes, shapes and entries.

    >>> table_sha256(np.zeros((3, 2))) == table_sha256(np.zeros((2, 3)))
    False
    """
    sha = hashlib.sha256()
    for table in tables:
        sha.update(f"{table.dtype} {table.shape}".encode())
        sha.update(np.ascontiguousarray(table).data)
    return sha.hexdigest()


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
