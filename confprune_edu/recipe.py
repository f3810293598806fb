"""What is fixed before the losses are seen."""

import functools
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from confprune_edu import _checks, fwer, pvalues


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

    # the procedures of the package that keep delta, and their names
    own: ClassVar[tuple[Callable[..., Any], ...]] = fwer.KEEP_DELTA
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

    def chains(self, m: int) -> tuple[list[int], float] | None:
        """Where sequences begin that stop at their first failure, and how large a p-value is none; else None.

        >>> from functools import partial
        >>> Recipe(0.1, 0.2, "tight", partial(fwer.multi_start, starts=[0, 5])).chains(10)
        ([0, 5], 0.1)
        """
        if self.procedure_name == "fixed_sequence":
            return [0], self.delta
        if isinstance(self.procedure, functools.partial) and self.procedure.func is fwer.multi_start:
            starts, *other = (*self.procedure.args, *self.procedure.keywords.values())
            if not other and "starts" in self.procedure.keywords:
                self.reject(np.ones(m))  # refuses starts that are none
                return sorted(starts), self.delta / len(starts)
        return None

    def reject(self, p_values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The mask of the procedure, from p-values (m,) or (trials, m)."""
        return fwer.named(self.procedure)(p_values, self.delta)


def ahead(tested: int) -> int:
    """How many ratios are evaluated together where a sequence may stop, after so many that were tested.

    >>> ahead(0), ahead(80)
    (4, 10)
    """
    return max(4, tested // 8)


def until_failures(
    evidence: Callable[[Sequence[int]], Iterable[tuple[Any, float]]],
    chains: tuple[list[int], float] | None,
    m: int,
    block: int | None = None,
) -> tuple[dict[int, tuple[Any, float]], int | None]:
    """Sequences of m tests that end at their first failure: what was tested, by place, and how many were evaluated.

    `evidence` gives, for each of some places, what is kept of it and its p-value; `chains` are those of
    `Recipe.chains`; where there are none, all is tested. `block` places are evaluated together, by default as many as
    `ahead` says.

    >>> found, evaluated = until_failures(lambda places: [(None, j / 10) for j in places], ([0], 0.15), m=100)
    >>> found, evaluated
    ({0: (None, 0.0), 1: (None, 0.1), 2: (None, 0.2)}, 4)
    """
    starts, level = chains or (list(range(m)), 0.0)
    ready: dict[int, tuple[Any, float]] = {}
    tested: dict[int, tuple[Any, float]] = {}
    evaluated = 0
    for j in range(m):
        if j not in starts and (j - 1 not in tested or tested[j - 1][1] > level):
            continue
        if j not in ready:
            places = range(j, min(j + (block or ahead(len(tested))), m))
            try:
                found = evidence(places)
            except ValueError:  # perhaps the losses of a ratio that would not have been tested
                places = places[:1]
                found = evidence(places)
            ready = dict(zip(places, found, strict=True))
            evaluated += len(places)
        tested[j] = ready[j]
    return tested, evaluated if chains else None


def name_of(function: Any) -> str:
    """What a certificate calls a function: its name, with the arguments that a `functools.partial` fixes."""
    if isinstance(function, functools.partial):
        given = [*map(str, function.args), *(f"{k}={v}" for k, v in function.keywords.items())]
        short = ", ".join(textwrap.shorten(text, 40, placeholder=" ...") for text in given)
        return f"{name_of(function.func)}({short})"
    return getattr(function, "__name__", type(function).__name__)
