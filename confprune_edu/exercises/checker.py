"""One checker for all exercises: a reference that anyone can read, and a table of cases, easiest first.

`@exercise()` makes a checker of a reference, the slow and obvious function that is also shown as the solution:
`name(answer)` then compares the reader's function with it. What counts as equal goes by what the reference returns: a
number, a bool mask, an array, a set, several of them, or None. Hints and cases stand in a table beside the lesson's
module, lesson_NN.toml: in each case the arguments, and what a wrong answer has got wrong.
"""

import difflib
import functools
import inspect
import textwrap
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from confprune_edu.exercises.verdict import Fault, WrongAnswer, tell

Answer = Callable[..., Any]


class Exercise(NamedTuple):
    """All that a checker knows; see `exercise`."""

    hint: str
    solution: Answer
    cases: list[tuple[list[Any], str]]  # arguments as in the table, and the misconception
    mistakes: Mapping[str, Answer]
    parts: Sequence[str]
    given: Answer
    judge: Callable[[Answer], Fault | None]

    def outcomes(self, answer: Answer) -> list[Any]:
        """What an answer returns, case by case."""
        return [outcome(answer, self.given(*args)) for args, _ in self.cases]


class Trouble(str):
    """What happened in place of an answer."""


class Difference(NamedTuple):
    """How an answer differs from the right one; `form` if it is of another type or shape."""

    found: str
    form: bool = False


EXERCISES: dict[str, Exercise] = {}
_kept = False  # does a teacher keep the solutions?


@functools.cache
def _table(module: str) -> dict[str, Any]:
    return tomllib.loads(Path(module).with_suffix(".toml").read_text(encoding="utf-8"))


def arrays(*args: Any) -> list[Any]:
    """Arguments of a case in which lists have become arrays."""
    return [np.array(value) if isinstance(value, list) else value for value in args]


def exercise(
    mistakes: Mapping[str, Answer] | None = None,
    parts: Sequence[str] = (),
    given: Answer = arrays,
    judge: Callable[[Answer], Fault | None] = lambda answer: None,
) -> Callable[[Answer], Callable[[Answer], None]]:
    """Make a checker of a reference solution, with its hint and its cases from the table of the lesson.

    Parameters
    ----------
    mistakes : mapping from a misconception to a function that has it
        An answer that equals this function on every case is told this, in place of what the case would say.
    parts : sequence of str
        Names of the parts of the answer, if it has several; all that it may hold, if it is a set.
    given : callable
        Makes arguments of what the table says, anew for each call.
    judge : callable, answer -> Fault or None
        What else must hold, after the cases.

    Returns
    -------
    decorator; the decorated reference becomes `checker(answer)`, which raises an AssertionError if the answer is wrong.
    """

    def register(reference: Answer) -> Callable[[Answer], None]:
        name = reference.__name__
        entry = _table(reference.__code__.co_filename)[name]
        cases = [(args, why) for *args, why in entry["cases"]]
        task = EXERCISES[name] = Exercise(entry["hint"], reference, cases, mistakes or {}, parts, given, judge)

        def checker(answer: Answer) -> None:
            try:
                fault = _first_fault(answer, task) or judge(answer)
            except NotImplementedError:
                tell(name, task.hint, "not attempted yet")
            else:
                tell(name, task.hint, "not right yet" if fault else "correct", fault)

        checker.__name__ = checker.__qualname__ = name
        checker.__doc__ = f"Check `answer{inspect.signature(reference)}`. {reference.__doc__}"
        return checker

    return register


def hint(name: str) -> None:
    """Print a hint for the exercise `name`."""
    print(textwrap.fill(_known(name).hint, 96))


def solution(name: str) -> None:
    """Print the source of a solution of the exercise `name`, which needs numpy as np and math, or who has it."""
    source = inspect.getsource(_known(name).solution)
    with_teacher = f"Your teacher has the solution of {name}; exercises.hint({name!r}) helps."
    print(with_teacher if _kept else source[source.index("\ndef ") + 1 :])


def keep_solutions() -> None:
    """From now on `solution` says that the teacher has it: the first cell of the students' notebooks of a class."""
    global _kept
    _kept = True


def grade(name: str, answer: Answer, inputs: Sequence[Sequence[Any]]) -> None:
    """Raise an error unless `answer` solves the exercise `name` on these inputs, too.

    Parameters
    ----------
    name : str
        The exercise.
    answer : callable
        The student's function.
    inputs : list of lists of arguments
        Written as in the table of the lesson.

    Raises
    ------
    AssertionError
        The answer is wrong on one of `inputs`, or in what else the checker asks for.
    NotImplementedError
        Nothing was attempted.
    """
    task = _known(name)
    task = task._replace(cases=[(list(args), "an input that the checker does not show") for args in inputs])
    if fault := _first_fault(answer, task) or task.judge(answer):
        raise WrongAnswer(name, fault)


def _known(name: str) -> Exercise:
    if name not in EXERCISES:
        close = difflib.get_close_matches(str(name), EXERCISES, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"name must be one of {', '.join(EXERCISES)}; got {name!r}{meant}")
    return EXERCISES[name]


def _first_fault(answer: Answer, task: Exercise) -> Fault | None:
    for args, why in task.cases:
        mine = task.given(*args)
        got = outcome(answer, mine)
        names = inspect.signature(task.solution).parameters
        given = ", ".join(f"{name} = {shown(value)}" for name, value in zip(names, args, strict=True))
        if difference := _difference(got, outcome(task.solution, task.given(*args)), task.parts):
            if difference.form and (args, why) == task.cases[0]:  # later, the form was right before
                why = (task.solution.__doc__ or "").rstrip(".")
            known = None if isinstance(got, Trouble) else _known_mistake(answer, task)
            return Fault(given, difference.found, known or why)
        for name, after, before in zip(names, mine, task.given(*args), strict=True):
            if repr(after) != repr(before):
                why = "leave the arguments as they were: the answer is something new"
                return Fault(given, f"{name} is now {shown(after)}", why)
    return None


def _known_mistake(answer: Answer, task: Exercise) -> str | None:
    """What is known of an answer that is wrong in this way on all cases."""
    gots = task.outcomes(answer)
    if all(got is None for got in gots):
        return "the function returns None: is there a return at the end?"
    for text, wrong in task.mistakes.items():
        pairs = zip(gots, task.outcomes(wrong), strict=True)
        if all(isinstance(got, Trouble) or isinstance(bad, Trouble) or not _difference(got, bad) for got, bad in pairs):
            return text
    return None


def outcome(answer: Answer, args: Sequence[Any]) -> Any:
    """What an answer returns; the `Trouble`, if it raises an error."""
    try:
        with np.errstate(all="ignore"):
            return _plain(answer(*args))
    except NotImplementedError:
        raise
    except Exception as error:
        calls = [call for call in traceback.extract_tb(error.__traceback__) if call.filename != __file__]
        own = [call for call in calls if call.filename == calls[0].filename]  # the reader's code, not what it called
        where = f" in line {own[-1].lineno}: {own[-1].line}".rstrip(": ") if own else ""
        return Trouble(f"{type(error).__name__}: {error}{where}")


def _plain(value: Any) -> Any:
    """An answer with its generators made lists."""
    return [_plain(item) for item in value] if isinstance(value, Iterator | list | tuple) else value


def _difference(got: Any, want: Any, parts: Sequence[str] = ()) -> Difference | None:
    """How an answer differs from the right one, None if it does not; what counts as equal goes by the right one."""
    if isinstance(got, Trouble):
        return Difference(got)
    if got is None or want is None:
        return None if got is want else _wanted(want, got)
    if isinstance(want, set):
        return _set_difference(got, want, parts)
    if not isinstance(want, list):
        return _array_difference(got, want)
    if not (isinstance(got, list) or getattr(got, "ndim", False)) or len(got) != len(want):
        return Difference(f"want {len(want)} values, got {shown(got)}", form=True)
    for number, (mine, right) in enumerate(zip(got, want, strict=True)):
        if difference := _difference(mine, right):
            name = parts[number] if parts else f"answer[{number}]"
            return difference._replace(found=f"{name}: {difference.found}")
    return None


def _set_difference(got: Any, want: set[str], legal: Sequence[str]) -> Difference | None:
    try:
        mine = {got} if isinstance(got, str) else set(got)
    except TypeError:
        return Difference(f"want a set, got {shown(got)}", form=True)
    if strangers := sorted(mine - set(legal), key=str):
        return Difference(f"{strangers[0]!r} is none of {', '.join(map(repr, legal))}", form=True)
    return None if mine == want else _wanted(sorted(want), sorted(mine))


def _array_difference(got: Any, want: Any) -> Difference | None:
    right = np.asarray(want)
    try:
        mine = np.asarray(got)
        if mine.dtype.kind not in "biufO":
            raise TypeError
        mine = mine.astype(float).reshape(() if right.ndim == 0 and mine.size == 1 else mine.shape)
    except (TypeError, ValueError):
        return Difference(f"want {'a number' if right.ndim == 0 else 'numbers'}, got {shown(got)}", form=True)
    if mine.shape != right.shape:
        return Difference(f"want shape {right.shape}, got shape {mine.shape}", form=True)
    if right.dtype == bool and not np.isin(mine, (0, 1)).all():
        return Difference(f"want True or False for each, got {shown(got)}", form=True)
    relative, absolute = (1e-6, 1e-12) if right.dtype.kind == "f" else (0, 1e-9)
    return None if np.allclose(mine, right, relative, absolute) else _wanted(want, got)


def _wanted(want: Any, got: Any) -> Difference:
    return Difference(f"want {shown(want)}, got {shown(got)}")


def shown(value: Any) -> str:
    """A value as short text; a dict is what differs from the record of lesson 00."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ("RECORD with " if value else "RECORD") + ", ".join(f"{key} = {x}" for key, x in value.items())
    if not isinstance(value, list | tuple):
        return repr(value)
    text = f"[{', '.join(map(shown, value))}]"
    return text if len(text) < 200 else f"{text[:80]} ... {text[-40:]}"
