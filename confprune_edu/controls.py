"""Controls of a figure: numbers with buttons, menus of buttons, a reset; and `explore`, which redraws when they move.

They are plain ipywidgets that have names for screen readers, and wrap on a narrow page. Sliders are not among them:
nothing names their handles.
"""

import gc
import html
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ipywidgets
from IPython import get_ipython
from IPython.core.formatters import DisplayFormatter
from IPython.display import HTML, display

from confprune_edu import plots

Tell = Callable[[Any], None]


class Control(NamedTuple):
    """A control: its first value, what makes its widgets (without a reader none is made), the options of a menu.

    `make(moved)` gives what to show and a function that puts a value in; it calls `moved` with each value of a reader.
    """

    value: Any
    make: Callable[[Tell], tuple[ipywidgets.Widget, Tell]]
    options: Sequence[Any] = ()


def explore(draw: Callable[..., Any], **controls: Control) -> None:
    """Show `draw(**values)` and, live, redraw it when a control moves.

    A picture's alternative text stands below it, where screen readers hear of its changes. An error of `draw` is shown
    in place of the figure, until a control moves again.

    Parameters
    ----------
    draw : callable
        Takes the values of the controls by name, returns what to display (a `plots.Picture`, say, or a list of such)
        and changes nothing.
    controls
        Made by `number` or `menu`.

    >>> explore(lambda n: f"n = {n}", n=number("examples", 50, 1, 100, step=1))
    n = 50
    """
    first = {name: control.value for name, control in controls.items()}
    if not is_live():
        display(*_things(draw(**first)))
        return
    _settle()
    values, figure, readout = dict(first), ipywidgets.Output(), ipywidgets.HTML()

    def drawn() -> list[Any]:
        things = _things(draw(**values))
        readout.value = _heard(" ".join(getattr(thing, "alt", "") for thing in things))
        return [HTML(thing.svg()) if isinstance(thing, plots.Picture) else thing for thing in things]

    def redraw(**moved: Any) -> None:
        if moved.items() <= values.items():
            return
        values.update(moved)
        readout.value = _heard("")
        with figure:  # which shows an error, and goes on
            figure.clear_output(wait=True)
            display(*drawn())

    def follow(name: str) -> Tell:
        return lambda value: redraw(**{name: value})

    made = {name: control.make(follow(name)) for name, control in controls.items()}

    def reset(_: Any) -> None:
        for name, (_, put) in made.items():
            put(first[name])
        redraw(**first)

    again = ipywidgets.Button(
        description="Reset", tooltip="all controls as they were at first", layout=_fit(align_self="flex-end")
    )
    again.on_click(reset)
    # put there, not shown within it, for which voila now and then waits for ever
    bundles = map(DisplayFormatter().format, drawn())
    figure.outputs = tuple({"output_type": "display_data", "data": d, "metadata": m} for d, m in bundles)
    row = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start", grid_gap="0 24px")
    shown = [ipywidgets.Box([*(widget for widget, _ in made.values()), again], layout=row), figure, readout]
    display(ipywidgets.VBox(shown).add_class("confprune-explorer"))


def _things(drawn: Any) -> list[Any]:
    """What is to be displayed, one below the other."""
    return drawn if isinstance(drawn, list) else [drawn]


def _heard(text: str) -> str:
    """Text that a screen reader says when it changes."""
    return f'<div role="status" aria-live="polite" style="line-height: 1.4">{html.escape(text)}</div>'


def _fit(**layout: str) -> ipywidgets.Layout:
    """As wide as its text, up to the width of the page."""
    return ipywidgets.Layout(width="auto", max_width="100%", **layout)


def _settle() -> None:
    """Spare the garbage collector what is in memory by now: with torch loaded, one round through it takes 0.2 s.

    Such a round would hold up a redraw now and then. What becomes garbage later is found when the next explorer opens.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def is_live() -> bool:
    """Does a front end with a reader ask for this cell? CONFPRUNE_STATIC=1 or 0 in the environment decides before.

    Front ends say which cell they run; papermill, nbval and nbconvert do not. Voila does not either, but has readers.
    """
    if (static := os.environ.get("CONFPRUNE_STATIC")) is not None:
        return static != "1"
    if os.environ.get("SERVER_SOFTWARE", "").startswith("voila"):
        return True
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent("shell").get("metadata"))


def number(label: str, value: float, low: float, high: float, *, step: float, stops: Sequence[float] = ()) -> Control:
    """A number from `low` to `high`: typed, moved by `step` with the arrow keys, or from stop to stop with buttons.

    Whole if `step` is; a `value` beyond the limits moves them. Without `stops` a button moves by one step. A number
    that is typed beyond the limits becomes the limit, and a line below says so.
    """
    low, high = min(low, value), max(high, value)
    whole = isinstance(step, int)
    last = value

    def make(moved: Tell) -> tuple[ipywidgets.Widget, Tell]:
        kind = ipywidgets.IntText if whole else ipywidgets.FloatText
        above = _fit(flex_flow="column", align_items="flex-start", height="auto")
        field = kind(value, description=label, step=step, layout=above, style={"description_width": "initial"})
        buttons = [ipywidgets.Button(description=sign, tabbable=False, layout=_fit()) for sign in "−+"]
        note = ipywidgets.HTML()

        def next_to(value: float) -> list[float]:
            below = [stop for stop in stops if stop < value] or [low if stops else value - step]
            above = [stop for stop in stops if stop > value] or [high if stops else value + step]
            return [within(max(below)), within(min(above))]

        def within(value: float) -> float:
            return min(max(round(value, 10), low), high)

        def put(value: float, said: str = "") -> None:
            nonlocal last
            last, field.value, note.value = value, value, said and _heard(said)
            for button, goal in zip(buttons, next_to(value), strict=True):
                button.disabled, button.tooltip = goal == value, f"{label}: {goal:g}"

        def typed(change: Any) -> None:
            if (asked := change["new"]) != last:
                put(within(asked), "" if within(asked) == asked else f"limited to {within(asked):.3g}")
                moved(last)

        def pressed(button: ipywidgets.Button) -> None:
            put(next_to(last)[buttons.index(button)])
            moved(last)

        field.observe(typed, "value")
        for button in buttons:
            button.on_click(pressed)
        put(value)
        row = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-end")
        return ipywidgets.VBox([ipywidgets.HBox([field, *buttons], layout=row), note]), put

    return Control(value, make)


def menu(label: str, options: Sequence[Any], value: Any = None) -> Control:
    """A button for each option, the chosen one filled; the first is chosen unless `value` says another."""

    def make(moved: Tell) -> tuple[ipywidgets.Widget, Tell]:
        buttons = {option: ipywidgets.Button(description=str(option), layout=_fit()) for option in options}

        def put(value: Any) -> None:
            for option, button in buttons.items():
                button.button_style = "primary" if option == value else ""
                button.tooltip = f"{label}: {option}" + (", chosen" if option == value else "")

        def press(option: Any) -> None:
            put(option)
            moved(option)

        for option, button in buttons.items():
            button.on_click(lambda _, option=option: press(option))
        put(first)
        row = ipywidgets.Box(list(buttons.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
        return ipywidgets.VBox([ipywidgets.Label(label), row]), put

    first = options[0] if value is None else value
    return Control(first, make, options)
