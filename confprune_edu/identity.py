"""What a function or a network is, so that a later run can tell whether it has the same: code, settings and data."""

import copyreg
import dis
import functools
import hashlib
import os
import platform
import sys
import sysconfig
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from confprune_edu import __version__
from confprune_edu.pruning import state

SHORT = 60  # characters of a text that stands for itself; of a longer one, a checksum does
ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...))
# Classes of a user's own, which derive from these, too, are objects: their code counts.
WRAPPERS = {staticmethod: "__func__", classmethod: "__func__", property: "fget", functools.cached_property: "func"}
# What is installed goes by its name and version.
PLACES = {"site-packages", "dist-packages"}
ROOTS = ("<frozen", *(f"{folder}{os.sep}" for folder in (sysconfig.get_path("stdlib"), Path(__file__).parent)))
MAKERS = ("builtins", "types")  # what `exec` and `types.new_class` make says that it is of these modules
ANNOTATIONS = ("__annotate__", "__annotate_func__")  # what types a class names: since Python 3.14 by a function
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
        if not _is_atom(part) and id(part) in seen:
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


def precision() -> dict[str, str]:
    """What torch is told to compute in, outside of networks and losses."""
    on = [f"{kind} {torch.get_autocast_dtype(kind)}" for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return {"autocast": ", ".join(on) or "off"}


def _is_atom(part: Any) -> bool:
    return type(part) in ATOMS or isinstance(part, np.generic)


def _read(part: Any) -> tuple[str, dict[str, Any]]:
    """A text about a value, and what is inside it, by name."""
    kind = type(part).__name__
    if _is_atom(part):
        return repr(part), {}
    if isinstance(part, Tensor):
        return f"{part.dtype} {tuple(part.shape)} {state.digest({'': part})}", {}
    if type(part) in (np.ndarray, np.memmap) and part.dtype.kind != "O":
        return f"{part.dtype} {part.shape} {hashlib.sha256(part.tobytes()).hexdigest()}", {}
    if type(part) in (dict, OrderedDict):
        return f"{kind} {list(map(repr, part))}", {repr(key): entry for key, entry in part.items()}
    if type(part) in (list, tuple):
        return f"{kind} of {len(part)}", {str(k): entry for k, entry in enumerate(part)}
    if type(part) in (set, frozenset):
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
    inside = {name: cell.cell_contents for name, cell in cells}
    installed = _is_installed(function)
    text = _named(function.__module__, function.__qualname__, installed)
    if not installed:
        text += _written(function.__code__)
        inside |= _globals(function)
        inside |= _taken(inside, {name for code in _codes(function.__code__) for name in code.co_names})
        inside["its defaults"] = (function.__defaults__, function.__kwdefaults__)
    return text, inside | {f"its {name}": value for name, value in vars(function).items()}


def _globals(function: FunctionType) -> dict[str, Any]:
    """The globals that a function uses, by name."""
    used = (i for code in _codes(function.__code__) for i in dis.get_instructions(code))
    names = {i.argval: None for i in used if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return {name: function.__globals__[name] for name in names if name in function.__globals__}


def _taken(known: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """What code that uses these names may take from the modules that are not installed, and from those in them."""
    found: dict[str, Any] = {}
    waiting = list(known.items())
    seen = set()
    for place, value in waiting:
        if isinstance(value, ModuleType) and value not in seen and not _is_installed(value):
            seen.add(value)
            inside = {f"{place}.{name}": getattr(value, name) for name in sorted(names) if hasattr(value, name)}
            found |= inside
            waiting += inside.items()
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
    form = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return repr((form, own)) + "".join(_written(c) for c in code.co_consts if isinstance(c, CodeType))


def _class(kind: type) -> tuple[str, dict[str, Any]]:
    installed = _is_installed(kind)
    text = _named(kind.__module__, kind.__qualname__, installed)
    if installed:
        return text, {}
    inside: dict[str, Any] = {f"base {k}": base for k, base in enumerate(kind.__bases__)}
    for name, value in vars(kind).items():
        wrapped = next((getattr(value, inner) for sort, inner in WRAPPERS.items() if isinstance(value, sort)), value)
        ours = not name.startswith("__") and name != "_abc_impl" and not isinstance(value, MemberDescriptorType)
        runs = (callable(wrapped) or isinstance(wrapped, functools.partialmethod)) and name not in ANNOTATIONS
        if ours or runs:
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
    if isinstance(part, type) and not part.__flags__ & HEAP:
        return True
    if isinstance(part, type) and module in MAKERS:
        return getattr(sys.modules[module], part.__name__, None) is part
    top = module.partition(".")[0]  # `__main__` may be a tool of Python that runs a script, a profiler say
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return top != "__main__" and (top in sys.stdlib_module_names or _in_place(file))


def _in_place(file: str) -> bool:
    return file.startswith(ROOTS) or not PLACES.isdisjoint(Path(file).parts)
