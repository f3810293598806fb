"""Columns of losses that are kept as files, so that a calibration that was interrupted goes on.

What the losses of a folder come from, its `origin.json` tells: model, data, loss and the pruned family. Each column is
a file, `ratio-0.25.npy`, which ends in a checksum of itself and of that text.
"""

import contextlib
import hashlib
import io
import json
import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from confprune_edu import _checks, pruning
from confprune_edu.engine import batches, nested, passes, tables
from confprune_edu.engine.fingerprint import Fingerprinted
from confprune_edu.engine.passes import Options
from confprune_edu.identity import checksum, identity, precision, versions
from confprune_edu.losses import Loss

Columns = Callable[[Sequence[int]], list[NDArray[Any]]]  # from places in the grid to tables (n, places), one a loss
Origin = dict[str, dict[str, str]]  # by argument, and by place in it

ABOUT = "Losses of confprune_edu.calibration.calibrate, a file a ratio; of use for these arguments only."
ORIGIN = "origin.json"
MISSING, VARIES = "missing", "varies"  # in place of the text about a part
TRIED = "network at ratio"  # that finish or family gave there
DIGEST = 32  # bytes of SHA-256
FREE = ("batch_size", "progress")  # options that are no part of the origin: of the batches, what they come to is


@contextlib.contextmanager
def columns(
    model: nn.Module,
    data: Fingerprinted,
    grid: NDArray[np.float64],
    loss: Loss,
    options: Options,
    executor: Executor | None,
    folder: str | Path | None,
) -> Iterator[Columns]:
    """`engine.tables.Columns.at`, by way of the files in a folder where there is one."""
    kept = None
    if folder is not None:
        size = passes.batch_size(model, data, options, passes.device_of(model, options.device))
        options = options._replace(batch_size=size)
        cut = _read_once(data, options)
        kept = Kept(_checks.path(folder, "cache"), model, data, cut, grid, {"loss": loss} | options._asdict())
        options = options._replace(**kept.noting)
    with contextlib.closing(tables.Columns(model, data, grid, {"losses": loss}, options, executor)) as found:
        yield found.at if kept is None else kept.before(found.at)


class Kept:
    """The columns in a folder; ValueError where they come from something else."""

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        data: Fingerprinted,
        cut: str,
        grid: NDArray[np.float64],
        given: dict[str, Any],
    ) -> None:
        self.folder, self.ratios = folder, list(map(repr, grid.tolist()))
        with tables.on_disk(folder, "cache"):
            folder.mkdir(parents=True, exist_ok=True)
        self.given = {name: given[name] for name in ("family", *given) if name not in FREE}
        weights = [] if given["family"] is not None else list(pruning.prunable(model, given["weights"]))
        self.given |= {"weights": weights, "device": str(given["device"])}
        self.fixed = {
            "model": {"model": checksum(model, "model")},
            "data": {"data": str(data.sha256), "batches": cut},
        }
        self.origin = self._origin()
        own = [name for name in ("family", "finish") if callable(given[name])]  # others are refused by the engine
        self.noting: dict[str, Any] = {name: Noting(given[name]) for name in own}
        self.text: str | None = None  # of the folder's origin
        self._look()

    def before(self, evaluate: Columns) -> Columns:
        """Columns from files; those that are not there are evaluated, and kept."""
        if tried := [(noting.ratio or self.ratios[0], noting.network) for noting in self.noting.values()]:
            ratio, network = tried[0][0], tried[-1][1]  # the engine has tried them: finish comes after family
            if network:  # not on workers
                self.origin[TRIED] = {ratio: network}
                self._look()

        def at(places: Sequence[int]) -> list[NDArray[Any]]:
            found = {j: column for j in places if (column := self._read(j)) is not None}
            if missing := [j for j in places if j not in found]:
                (table,) = evaluate(missing)
                self._begin()
                for j, column in zip(missing, table.T, strict=True):
                    self._keep(j, column)
                    found[j] = column
            return [np.column_stack([found[j] for j in places])]

        return at

    def _origin(self) -> Origin:
        around = {"versions": versions(), "precision": precision()}
        return self.fixed | around | {name: identity(v, name) for name, v in self.given.items()}

    def _look(self) -> None:
        """Read what the folder's columns come from, if it has any; ValueError names the first argument that differs."""
        path = self.folder / ORIGIN
        if not path.exists():
            return
        try:
            text = path.read_text(encoding="utf-8")
            there = {name: dict(parts) for name, parts in json.loads(text)["origin"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"cache: {path} tells of no losses that calibrate kept: name another folder") from None
        for name, parts in there.items():
            own = self.origin.get(name, {})
            for place in parts | own:
                was, now = parts.get(place, MISSING), own.get(place, MISSING)
                if was != now and not (MISSING in (was, now) if name == TRIED else _varies(place, parts)):
                    what = f"{place} was {was} and is {now}"
                    raise ValueError(f"cache: {self.folder} is of another {name}: {what}; name another folder")
        self.text = text

    def _begin(self) -> None:
        """Write the origin; what has changed while columns were evaluated counts no more: a counter is no setting."""
        if self.text is None:
            self._look()  # another process may have begun
        if self.text is None:
            now = self.origin | self._origin()
            steady = {
                name: {k: now[name][k] if parts.get(k) == now[name].get(k) else VARIES for k in parts | now[name]}
                for name, parts in self.origin.items()
            }
            text = json.dumps({"about": ABOUT, "origin": steady}, indent=1)
            self._write(ORIGIN, text.encode())
            self.text = text

    def _read(self, j: int) -> NDArray[Any] | None:
        """The column of ratio j; None where there is none. A damaged one is as good as none, and a warning tells."""
        name = self._name(j)
        if self.text is None or not (self.folder / name).exists():
            return None
        whole = (self.folder / name).read_bytes()
        body, digest = whole[:-DIGEST], whole[-DIGEST:]
        if digest != self._digest(name, body):
            warnings.warn(f"cache: {self.folder / name} is damaged: the ratio is evaluated again", stacklevel=6)
            return None
        column: NDArray[Any] = np.load(io.BytesIO(body), allow_pickle=False)
        return column

    def _keep(self, j: int, column: NDArray[Any]) -> None:
        name, file = self._name(j), io.BytesIO()
        np.save(file, column, allow_pickle=False)
        self._write(name, file.getvalue() + self._digest(name, file.getvalue()))

    def _name(self, j: int) -> str:
        return f"ratio-{self.ratios[j]}.npy"

    def _digest(self, name: str, body: bytes) -> bytes:
        return hashlib.sha256(f"{self.text}{name}".encode() + body).digest()

    def _write(self, name: str, body: bytes) -> None:
        """A file that is there as a whole or not at all."""
        path, beside = self.folder / name, self.folder / f"{name}.{secrets.token_hex(4)}.part"
        with tables.on_disk(path, "cache"):
            try:
                beside.write_bytes(body)
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)


class Noting:
    """A finish or a family that notes which network it gave last."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.ratio = self.network = ""

    def __call__(self, model: nn.Module, *ratio: float) -> Any:
        """What the function gives."""
        made = self.function(model, *ratio)
        self.ratio = "".join(map(repr, ratio))
        self.network = pruning.fingerprint(made if isinstance(made, nn.Module) else model)
        return made


def _varies(place: str, parts: dict[str, str]) -> bool:
    """Has it changed while columns were evaluated, or is it new in something that has?"""
    if place in parts:
        return parts[place] == VARIES
    return any(text == VARIES and place.startswith(f"{part}.") for part, text in parts.items())


def _read_once(data: Fingerprinted, options: Options) -> str:
    """Take the checksum of the examples, TypeError where there is none; how many batches they make, and how large.

    What a network gives for an example may depend on the others of its batch.
    """
    source = batches.Source(data, options.batch_size, options.target)
    with pruning.same_random_state(*source.generators):
        sizes = [str(nested.examples(batch.inputs)) for batch in source.once()]
    if data.sha256 is None:
        raise TypeError("cache: data must be tensors, arrays, texts and numbers, and at least one example")
    return f"{len(sizes)} of {', '.join(sorted(set(sizes)))}"
