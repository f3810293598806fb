"""What a checker says: a card in a notebook, a line elsewhere, and an AssertionError for a wrong answer."""

import html
import os
from dataclasses import dataclass
from typing import NamedTuple

from IPython import get_ipython
from IPython.display import display


class Fault(NamedTuple):
    """Why an answer is wrong: the smallest input on which it fails, what came of it, and the misconception."""

    given: str
    found: str
    why: str

    def __str__(self) -> str:
        return f"{self.given}: {self.found} ({self.why})"


class WrongAnswer(AssertionError):
    """The answer is wrong, and the message says why. IPython shows one line of it, and no source of a checker."""

    def __init__(self, name: str, fault: Fault) -> None:
        super().__init__(str(fault))
        self.name = name

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [f"{self.name}: not right yet" if has_cards() else f"{self.name}: {self}"]


# colours that are read on white and on black; the sign says the same without them
STATES = {
    "not attempted yet": ("○", "#808080"),
    "correct": ("✓", "#2e9e5b"),
    "not right yet": ("✗", "#d9534f"),
}


@dataclass(frozen=True)
class Card:
    """The verdict on one exercise: a coloured panel where HTML is shown, a line of text elsewhere."""

    name: str
    state: str  # one of STATES
    hint: str
    fault: Fault | None = None

    def __repr__(self) -> str:
        return f"{self.name}: {self.state}" + (f"\n{self.fault}" if self.fault else "")

    def _repr_html_(self) -> str:
        sign, colour = STATES[self.state]
        title = f'<b><span style="color:{colour}">{sign}</span> {html.escape(self.name)}: {self.state}</b>'
        return (
            f'<div role="status" style="border-left:5px solid {colour};background:{colour}1a;padding:8px 14px;'
            f'max-width:820px;line-height:1.5">{title}{self._details()}</div>'
        )

    def _details(self) -> str:
        if self.fault is None:
            return ""
        given, found, why = (html.escape(text) for text in self.fault)
        code = '<div style="font-family:monospace;white-space:pre-wrap;margin:4px 0">'
        return (
            f"{code}{given}</div>{code}{found}</div><div>{why[:1].upper() + why[1:]}.</div>"
            f"<details><summary>Hint</summary>{html.escape(self.hint)}</details>"
        )


def has_cards() -> bool:
    """Does a notebook show what is displayed? CONFPRUNE_STATIC=1 asks for plain text."""
    return hasattr(get_ipython(), "kernel") and os.environ.get("CONFPRUNE_STATIC") != "1"


def tell(name: str, hint: str, state: str, fault: Fault | None = None) -> None:
    """Show a verdict, and raise it if the answer is wrong."""
    if has_cards():
        display(Card(name, state, hint, fault))
    elif fault is None:
        print(f"{name}: {state}")
    if fault is not None:
        raise WrongAnswer(name, fault)
