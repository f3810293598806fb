"""How an exercise is checked, and its hint and solution told."""

import functools
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

EXERCISES: dict[str, tuple[str, Callable[..., Any]]] = {}  # name -> (hint, reference solution)


def exercise(
    hint: str, solution: Callable[..., Any], none_is_an_answer: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a checker of a function that asserts: register hint and solution, report what came of it."""

    def register(check: Callable[..., None]) -> Callable[..., None]:
        EXERCISES[check.__name__] = (hint, solution)

        @functools.wraps(check)
        def checker(answer: Callable[..., Any]) -> None:
            try:
                check(answer if none_is_an_answer else _returning(answer))
            except NotImplementedError:
                print(f"{check.__name__}: not attempted yet")
            else:
                print(f"{check.__name__}: correct")

        return checker

    return register


def _returning(answer: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(answer)
    def checked(*args: Any, **kwargs: Any) -> Any:
        got = answer(*args, **kwargs)
        assert got is not None, "got None: is there a return at the end?"
        return got

    return checked


def hint(name: str) -> None:
    """Print a hint for the exercise `name`."""
    print(textwrap.fill(_known(name)[0], 96))


def solution(name: str) -> None:
    """Print the source of a solution of the exercise `name`; it needs numpy as np and math."""
    answer = _known(name)[1]
    print(inspect.getsource(answer).replace(f"def {answer.__name__}(", f"def {name}("))


def _known(name: str) -> tuple[str, Callable[..., Any]]:
    if name not in EXERCISES:
        raise ValueError(f"name must be one of {', '.join(EXERCISES)}; got {name!r}")
    return EXERCISES[name]


def near(given: Any, right: Any) -> bool:
    """Do two arrays have one shape and, up to rounding, the same finite numbers?"""
    try:
        array = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        return False
    return array.shape == np.shape(right) and bool(np.allclose(array, right, rtol=1e-9, atol=1e-12))


def shown(values: Any) -> str:
    """Numbers as a short list; anything else as it is."""
    try:
        return str(np.round(np.asarray(values, dtype=float), 4).tolist())
    except (TypeError, ValueError):
        return repr(values)


# Lesson 02

Case = tuple[float, ...]


def compare(
    answer: Callable[..., Any],
    right: Callable[..., float],
    names: str,
    cases: Mapping[Case, str],
    mistakes: Mapping[str, Callable[..., float]],
) -> None:
    """Assert that `answer` equals `right` on every case; name the mistake that gives the same numbers, if one does."""
    for case, case_hint in cases.items():
        got, want = _number(answer, case), right(*case)
        if not _same(got, want):
            known = (
                text for text, wrong in mistakes.items() if all(_same(_number(answer, c), wrong(*c)) for c in cases)
            )
            given = ", ".join(f"{name} = {value}" for name, value in zip(names.split(), case, strict=True))
            raise AssertionError(f"{given}: want {want:.6g}, got {got} ({next(known, case_hint)})")


def _number(answer: Callable[..., Any], case: Case) -> float | str:
    """The answer as a float, whatever its type; as words, if it is no number."""
    try:
        value = answer(*case)
        with np.errstate(all="ignore"):
            return float(np.asarray(value, dtype=float).item()) if value is not None else "nothing: is there a return?"
    except NotImplementedError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _same(got: float | str, want: float | str) -> bool:
    if isinstance(got, str) or isinstance(want, str):
        return got == want
    return bool(np.isclose(got, want, rtol=1e-6, atol=1e-12, equal_nan=True))


def binomial_solution(errors, n, alpha):
    # every outcome with at most `errors` errors, each with its probability under risk alpha
    return sum(math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(errors + 1))


def pmf(k: int, n: int, alpha: float) -> float:
    return math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k)


def as_mask(values: Any, m: int) -> list[bool]:
    """A student's mask as a list; says what is wrong with another form."""
    assert values is not None, f"return a bool mask of shape ({m},); got None (is there a return at the end?)"
    array = np.asarray(values)
    assert array.shape == (m,), f"return a bool mask of shape ({m},), one entry a p-value; got shape {array.shape}"
    assert array.dtype.kind in "biu" or set(array.tolist()) <= {0.0, 1.0}, (
        f"return True or False a test; got {values!r}"
    )
    return array.astype(bool).tolist()
