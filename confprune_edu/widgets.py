"""Explorers: a function of `plots` with controls. Each is a thin layer; what is drawn is decided in `plots`.

Live (JupyterLab, VS Code, Colab) an explorer redraws when a control moves. Executed without a reader (papermill, nbval,
nbconvert) it draws once, at the defaults, as a plain output of the cell: the figure is stored, an error fails the cell.
"""

import os
from collections.abc import Callable
from typing import Any

import ipywidgets
from IPython import get_ipython
from IPython.display import display

LAYOUT: dict[str, Any] = {"style": {"description_width": "14em"}, "layout": {"width": "34em"}}


def explore(draw: Callable[..., Any], **controls: ipywidgets.ValueWidget) -> None:
    """Show `draw(**values)` and, live, redraw it when a control moves.

    Parameters
    ----------
    draw : callable
        Takes the values of the controls by name, returns what to display (a `plots.Picture`, say) and changes nothing.
    controls : ipywidgets
        Made by `slider`, `log_slider`, `integer` or `menu`, so that labels have units and are never cut off.

    >>> explore(lambda n: f"n = {n}", n=integer("examples", 50, 1, 100))
    n = 50
    """

    def show(**values: Any) -> None:
        display(draw(**values))

    if not is_live():
        show(**{name: control.value for name, control in controls.items()})
        return
    figure = ipywidgets.interactive_output(show, controls)
    display(ipywidgets.VBox([*controls.values(), figure]))


def is_live() -> bool:
    """Does a front end with a reader ask for this cell? CONFPRUNE_STATIC=1 or 0 in the environment decides before.

    Front ends say which cell they run; papermill, nbval and nbconvert do not.
    """
    if (static := os.environ.get("CONFPRUNE_STATIC")) is not None:
        return static != "1"
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent("shell").get("metadata"))


def slider(label: str, value: float, low: float, high: float, step: float, digits: int = 2) -> ipywidgets.FloatSlider:
    """A slider for a number; redraws when it is let go, or at each press of an arrow key."""
    return ipywidgets.FloatSlider(
        value,
        min=low,
        max=high,
        step=step,
        description=label,
        readout_format=f".{digits}f",
        continuous_update=False,
        **LAYOUT,
    )


def log_slider(label: str, value: float, low: float, high: float) -> ipywidgets.FloatLogSlider:
    """A slider over powers of ten, from 10**low to 10**high, twenty steps a power."""
    return ipywidgets.FloatLogSlider(
        value, min=low, max=high, step=0.05, description=label, readout_format=".3g", continuous_update=False, **LAYOUT
    )


def integer(label: str, value: int, low: int, high: int, step: int = 1) -> ipywidgets.IntSlider:
    """A slider for a whole number."""
    return ipywidgets.IntSlider(
        value, min=low, max=high, step=step, description=label, continuous_update=False, **LAYOUT
    )


def menu(label: str, options: Any, value: Any = None) -> ipywidgets.Dropdown:
    """A drop-down list; `options` as in `ipywidgets.Dropdown`."""
    return ipywidgets.Dropdown(options=options, value=value or next(iter(options)), description=label, **LAYOUT)
