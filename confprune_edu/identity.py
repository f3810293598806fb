"""What a function or a network is, so that a later run can tell whether it has the same: code, settings and data."""

import copyreg
import dis
import hashlib
import platform
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from confprune_edu import __version__
from confprune_edu.pruning import state

SHORT = 60  # characters of a text that stands for itself; of a longer one, a checksum does
ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...), np.generic)
# What is installed goes by its name and version.
PLACES = ("site-packages", "dist-packages")
ROOTS = ("<frozen", sysconfig.get_path("stdlib"), str(Path(__file__).parent))
STANDARD = sys.stdlib_module_names - {"builtins"}  # what `exec` makes says that it is of that module
HEAP = 1 << 9  # the flag of classes that are made while Python runs


def identity(value: Any, name: str) -> dict[str, str]:
    """What a value consists of, by its place in it: short texts, and checksums of the rest.

    Of a function: its byte code, and what it finds in its closure, its defaults and the globals that it uses; of an
    object its class and its attributes; of a tensor its entries. Functions and classes of Python, of this package and
    of installed ones go by name and version. What a function reads elsewhere, in files say, is not seen.

    Raises
    ------
    TypeError
        There is something in it that cannot be written down, a generator or an open file say, named by its place.

    >>> def loss_at(level):
    ...     return lambda pruned, full, target: (pruned - full).abs().amax(1) > level
    >>> one, other = (identity(loss_at(level), "loss") for level in (0.1, 0.2))
    >>> {place: text for place, text in one.items() if other[place] != text}
    {'loss.level': '0.1'}
    """
    found: dict[str, str] = {}
    seen: dict[int, tuple[str, Any]] = {}  # with the parts themselves, whose numbers must not be given to others
    waiting = [(name, value)]
    while waiting:
        place, part = waiting.pop()
        if not isinstance(part, ATOMS) and id(part) in seen:
            found[place] = f"as {seen[id(part)][0]}"
            continue
        seen[id(part)] = (place, part)
        try:
            text, inside = _read(part)
        except Exception as problem:  # whatever its class says
            raise TypeError(
                f"cache: {place} is a {type(part).__name__}, of which a later run cannot tell whether it has the same "
                f"({problem}): make it inside the function, or do without a cache"
            ) from None
        found[place] = text if len(text) <= SHORT else hashlib.sha256(text.encode()).hexdigest()[:16]
        waiting += [(f"{place}.{key}", inside[key]) for key in reversed(inside)]
    return found


def checksum(value: Any, name: str) -> str:
    """The same as one short checksum."""
    return hashlib.sha256(repr(identity(value, name)).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of what gives numbers, and writes byte code."""
    return {"confprune_edu": __version__, "python": platform.python_version(), "torch": torch.__version__}


def _read(part: Any) -> tuple[str, dict[str, Any]]:
    """A text about a value, and what is inside it, by name."""
    kind = type(part).__name__
    if isinstance(part, ATOMS):
        return repr(part), {}
    if isinstance(part, Tensor):
        return f"{part.dtype} {tuple(part.shape)} {state.digest({'': part})}", {}
    if isinstance(part, np.ndarray) and part.dtype.kind != "O":
        return f"{part.dtype} {part.shape} {hashlib.sha256(part.tobytes()).hexdigest()}", {}
    if isinstance(part, dict):
        return f"{kind} {list(map(repr, part))}", {repr(key): entry for key, entry in part.items()}
    if isinstance(part, (list, tuple)):
        return f"{kind} of {len(part)}", {str(k): entry for k, entry in enumerate(part)}
    if isinstance(part, (set, frozenset)):
        return f"{kind} {sorted(checksum(entry, 'entry') for entry in part)}", {}
    if isinstance(part, FunctionType):
        return _function(part)
    if isinstance(part, type):
        return _class(part)
    if isinstance(part, ModuleType):
        return _named(part.__name__, "", _is_installed(part)), {}
    return _object(part)


def _function(function: FunctionType) -> tuple[str, dict[str, Any]]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    inside = {name: cell.cell_contents for name, cell in cells} | vars(function)
    installed = _is_installed(function)
    text = _named(function.__module__, function.__qualname__, installed)
    if not installed:
        text += _written(function.__code__)
        inside |= {"defaults": (function.__defaults__, function.__kwdefaults__)} | _globals(function)
    return text, inside


def _globals(function: FunctionType) -> dict[str, Any]:
    """The globals that a function uses, by name; of a module that is not installed, what it may take from it."""
    known, found = function.__globals__, {}
    for code in _codes(function.__code__):
        for name in (i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")):
            if name in known:
                found[name] = value = known[name]
                if isinstance(value, ModuleType) and not _is_installed(value):
                    found |= {f"{name}.{a}": getattr(value, a) for a in code.co_names if hasattr(value, a)}
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The byte code of a function and of those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _written(code: CodeType) -> str:
    """Byte code as text, without the lines and the file that it comes from."""
    constants = [c for c in code.co_consts if not isinstance(c, CodeType)]
    texts = [sorted(map(repr, c)) if isinstance(c, frozenset) else repr(c) for c in constants]
    own = (code.co_code, code.co_exceptiontable, code.co_names, code.co_varnames, code.co_freevars, texts)
    return repr(own) + "".join(_written(c) for c in code.co_consts if isinstance(c, CodeType))


def _class(kind: type) -> tuple[str, dict[str, Any]]:
    installed = _is_installed(kind)
    text = _named(kind.__module__, kind.__qualname__, installed)
    if installed:
        return text, {}
    inside: dict[str, Any] = {f"base {k}": base for k, base in enumerate(kind.__bases__)}
    for name, value in vars(kind).items():
        wrapped = next((getattr(value, a) for a in ("__func__", "fget", "func") if hasattr(value, a)), value)
        ours = not name.startswith("__") and name != "_abc_impl" and not isinstance(value, MemberDescriptorType)
        if isinstance(wrapped, FunctionType) or ours:
            inside[name] = wrapped
    return text, inside


def _object(part: Any) -> tuple[str, dict[str, Any]]:
    """As `copy` and `pickle` take it apart."""
    reduced = copyreg.dispatch_table.get(type(part), lambda value: value.__reduce_ex__(4))(part)
    if isinstance(reduced, str):  # known by its name alone
        wrapped = {"wrapped": part.__wrapped__} if hasattr(part, "__wrapped__") else {}
        return f"{type(part).__qualname__} {reduced}", wrapped
    make, arguments, attributes, items, entries = (*reduced, None, None, None)[:5]
    inside: dict[str, Any] = {"class": type(part)}
    if getattr(make, "__name__", "") != "__newobj__" or len(arguments) > 1:
        inside["from"] = (make, arguments)
    if items is not None or entries is not None:
        inside["items"] = (list(items or ()), list(entries or ()))
    if isinstance(attributes, dict):
        left_out = {"training"} if isinstance(part, nn.Module) else set()  # networks are evaluated in eval mode
        inside |= {str(name): value for name, value in attributes.items() if name not in left_out}
    elif attributes is not None:
        inside["state"] = attributes
    return type(part).__qualname__, inside


def _named(module: str | None, name: str, installed: bool) -> str:
    top = sys.modules.get((module or "").partition(".")[0])
    version = getattr(top, "__version__", "") if installed else ""
    return f"{module} {name} {version}".strip()


def _is_installed(part: FunctionType | type | ModuleType) -> bool:
    """Is it a part of Python, of this package or of an installed one? Functions tell by their file, not their name."""
    if isinstance(part, FunctionType):
        return _in_place(part.__code__.co_filename)
    module = part.__name__ if isinstance(part, ModuleType) else part.__module__
    top = module.partition(".")[0]
    own = isinstance(part, type) and not part.__flags__ & HEAP
    return own or top in STANDARD or _in_place(getattr(sys.modules.get(top), "__file__", None) or "")


def _in_place(file: str) -> bool:
    return file.startswith(ROOTS) or any(place in file for place in PLACES)
