"""Checkers, hints and solutions for the exercises of the notebooks.

A notebook holds a stub that raises NotImplementedError and then calls the checker of the same name:

    from confprune_edu import exercises
    exercises.binomial_p_value(my_function)

A checker answers with one quiet line while the stub is untouched, with "correct", or with an AssertionError that names
the smallest failing input and the misconception behind it. `hint(name)` and `solution(name)` help along.
"""

import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

EXERCISES: dict[str, tuple[str, Callable[..., Any]]] = {}  # name -> (hint, reference solution)


def exercise(hint: str, solution: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a checker of a function that asserts: register hint and solution, report what came of it."""

    def register(check: Callable[..., None]) -> Callable[..., None]:
        EXERCISES[check.__name__] = (hint, solution)

        @functools.wraps(check)
        def checker(answer: Callable[..., Any]) -> None:
            try:
                check(answer)
            except NotImplementedError:
                print(f"{check.__name__}: not attempted yet")
            else:
                print(f"{check.__name__}: correct")

        return checker

    return register


def hint(name: str) -> None:
    """Print a hint for the exercise `name`."""
    print(textwrap.fill(_known(name)[0], 96))


def solution(name: str) -> None:
    """Print the source of a solution of the exercise `name`."""
    print(textwrap.dedent(inspect.getsource(_known(name)[1])))


def _known(name: str) -> tuple[str, Callable[..., Any]]:
    if name not in EXERCISES:
        raise ValueError(f"name must be one of {', '.join(EXERCISES)}; got {name!r}")
    return EXERCISES[name]
