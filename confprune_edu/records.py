"""Certificates as JSON and back: a record that contradicts itself is refused."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from confprune_edu import _checks
from confprune_edu.recipe import Recipe

VERSIONS = {False: 1, True: 2}  # of the JSON records: with `saved`, the second
ROOMS = {  # where a record of this schema is read
    "confprune_edu.Calibration": "confprune_edu.certificates",
    "confprune_edu.SelectiveCalibration": "confprune_edu.selective",
}
LATER = {"later": True}  # marks fields that records of version 1 may lack
NONE = ("knob", "importance", "floor")  # fields whose null says that there was none; of others, that it is not known
LONGEST_NAME = 10_000  # characters of a procedure, a loss, a checksum, a weight
OWN = ("scores", "finish", "family")  # fields that stay with the certificate in memory


class Record:
    """What makes a frozen dataclass a record: its JSON, and the checks of what is read.

    A subclass gives its `schema`, its `tables` besides the p-values, the names of the procedures that keep delta, and
    which of those reading a record can repeat.
    """

    saved: dict[str, Any] | None
    schema: ClassVar[str]
    tables: ClassVar[tuple[str, ...]]
    keep_delta: ClassVar[frozenset[str]]
    stop_rules: ClassVar[Mapping[str, Callable[..., NDArray[np.bool_]]]]

    def to_json(self) -> str:
        """The certificate as JSON text, with a schema version; `from_json` reads it back. NaN becomes null."""
        record: dict[str, Any] = {"schema": self.schema, "version": VERSIONS[self.saved is not None]}
        for name in self._json_fields():
            value = getattr(self, name)
            record[name] = _nulls(value) if isinstance(value, np.ndarray) else value
        return json.dumps(record, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text of `to_json`; TypeError or ValueError names what is wrong with it."""
        return cls._of(_parsed(text))

    @classmethod
    def _of(cls, record: Any) -> Self:
        found = (record.get("schema"), record.get("version")) if isinstance(record, dict) else type(record).__name__
        version = VERSIONS[isinstance(record, dict) and record.get("saved") is not None]
        if found != (cls.schema, version):
            raise ValueError(
                f"not a calibration record that {cls.__name__} reads ({cls.schema}, {version}): got {found!s:.99}"
            )
        if missing := [name for name, later in cls._json_fields().items() if not later and name not in record]:
            raise ValueError(f"the calibration record lacks {', '.join(missing)}")
        try:
            return cls(**cls._checked({name: record.get(name) for name in cls._json_fields()}))
        except (TypeError, ValueError, OverflowError) as problem:
            raise ValueError(f"the calibration record contradicts itself: {problem!s:.900}") from None

    @classmethod
    def _json_fields(cls) -> dict[str, bool]:
        """The names of a record's fields, and whether records may lack them."""
        return {f.name: "later" in f.metadata for f in fields(cls) if f.name not in OWN}  # type: ignore[arg-type]

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
        _checks.whole(record["n"], "n", 1, 10**10)
        kinds: dict[str, Any] = dict.fromkeys(("procedure", "loss", "criterion"), str) | {"finished": bool}
        kinds |= dict.fromkeys(("model_sha256", "scores_sha256", "data_sha256", "knob"), str | None)
        kinds |= dict.fromkeys(("seed", "prunable", "matrix", "zeros"), int | None)
        kinds |= dict.fromkeys(("weights", "parameters"), list | None) | dict.fromkeys(
            ("tensors", "saved"), dict | None
        )
        kinds["importance"] = float | None
        if odd := [name for name, kind in kinds.items() if not isinstance(record[name], kind)]:
            raise ValueError(f"{', '.join(odd)} of another type")
        own = [record[name] for name in ("zeros", "prunable", "matrix")]
        if None not in own and (sorted(own) != own or own[0] < 0):
            raise ValueError("zeros, prunable and matrix must be numbers of entries, the later not below the earlier")
        _check_family(record["knob"], record["parameters"], record["prunable"])
        if long := [name for name, value in record.items() if any(len(text) > LONGEST_NAME for text in _texts(value))]:
            raise ValueError(f"{', '.join(long)} longer than {LONGEST_NAME:,} characters")
        if record["importance"] is not None:
            _checks.number(record["importance"], "importance", 0, np.inf)
        if record["saved"] is not None:
            if not _names_tensors(**record["saved"]):
                raise ValueError("saved must say dtype, shape, zeros and SHA-256 of each tensor")
            checked_plan(record["saved"].get("plan") or {}, record)
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


def read(text: str) -> Record:
    """The certificate in the text of any `to_json`, of the class that its schema names; errors as in `from_json`.

    >>> read('{"schema": "other"}')  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: no calibration record: its schema is none of ...
    """
    record = _parsed(text)
    room = ROOMS.get(str(record.get("schema"))) if isinstance(record, dict) else None
    if room is None:
        raise ValueError(f"no calibration record: its schema is none of {', '.join(ROOMS)}")
    return getattr(import_module(room), record["schema"].rpartition(".")[2])._of(record)


def _parsed(text: str) -> Any:
    if not isinstance(text, str | bytes):
        raise TypeError(f"text must be what to_json gave, got {type(text).__name__}")
    try:
        record = json.loads(text, object_pairs_hook=_each_once)
        json.dumps(record, ensure_ascii=False).encode()  # half of a surrogate pair is no text, and cannot be printed
        return record
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"not a calibration record (its text is needed, not a path): {problem}") from None


def plan_sha256(plan: Mapping[str, Any]) -> str:
    """Fingerprint of a plan, to be given to somebody before the first loss is seen.

    Parameters
    ----------
    plan : dict
        What is fixed beforehand, by name: text, numbers, arrays or lists of them. Their order does not matter.

    Returns
    -------
    str: SHA-256 of the plan as JSON. A certificate that was saved with this plan shows the same.

    Raises
    ------
    TypeError
        The plan holds something else, a function say: write its name.

    >>> plan_sha256({"alpha": 0.1, "loss": "error"}) == plan_sha256({"loss": "error", "alpha": 0.1})
    True
    """
    return hashlib.sha256(json.dumps(_plain(plan), sort_keys=True).encode()).hexdigest()


def checked_plan(plan: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """A plan as JSON keeps it; ValueError where an entry has the name of a field of the record, and says otherwise.

    >>> checked_plan({"alpha": 0.1, "order": "as drawn"}, {"alpha": 0.2})
    Traceback (most recent call last):
    ValueError: plan: alpha was to be 0.1, and is 0.2
    """
    plain = _plain(plan)
    known = {name: value for name, value in record.items() if value is not None or name in NONE}
    if record.get("model_sha256") is not None:  # else only losses were seen
        known |= {name: record[name] for name in ("weights", "scores_sha256")}
    if "floor" in record:  # by the name that it has as an argument
        known["coverage"] = record["floor"]
    for name, value in plain.items():
        if name in known and known[name] != value:
            raise ValueError(f"plan: {name} was to be {value!s:.99}, and is {known[name]!s:.99}")
    return plain


def _plain(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan as reading its JSON gives it."""
    try:
        return json.loads(json.dumps(dict(plan), allow_nan=False, sort_keys=True, default=lambda x: x.tolist()))
    except (TypeError, ValueError, AttributeError) as problem:
        raise TypeError(f"plan must be a dict of text, numbers and lists of them: {problem}") from None


def _names_tensors(
    tensors: Any,
    buffers: Any,
    prunable: Any,
    network: Any,
    date: Any,
    versions: Any,
    plan: Any = None,
    **setting: Any,
) -> bool:
    """Whether the part of a record about its file says of every tensor what `saved.Kept` holds."""
    whole = [(tensors, dict), (buffers, dict), (prunable, list), (network, str), (date, str | None), (versions, dict)]
    whole += [(plan, dict | None)]
    if not all(isinstance(value, kind) for value, kind in whole) or len(prunable) > len(set(map(str, prunable))):
        return False
    kinds = (str, list, int, str)
    kept = [*tensors.values(), *buffers.values()]
    return all(len(entry) == len(kinds) and all(map(isinstance, entry, kinds)) for entry in kept) and all(
        name in tensors for name in map(str, prunable)
    )


def _check_family(knob: str | None, parameters: list[Any] | None, prunable: int | None) -> None:
    if parameters is None:
        return
    if knob is None or prunable is not None:
        raise ValueError("parameters are counted where a family has a knob, and prunable weights where it has none")
    for size in parameters:
        _checks.whole(size, "parameters", 0, np.inf)
    if len(parameters) != 2:
        raise ValueError("parameters must be two numbers: of the model, of the network at the certified ratio")


def _texts(value: Any) -> list[str]:
    """The texts that a field is, or lists."""
    return [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str)]


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    times = Counter(name for name, _ in pairs)
    if twice := [name for name in times if times[name] > 1]:
        raise ValueError(f"{twice[0]:.99} stands there twice")
    return dict(pairs)


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


def _nulls(values: NDArray[Any]) -> list[Any]:
    entries = values.astype(object)
    entries[values != values] = None
    return entries.tolist()
