"""Explorers without a browser: what is drawn and when, how a control and its slider follow each other."""

import base64
import gc
import threading

import ipywidgets
import matplotlib as mpl
import pytest

from confprune_edu import plots, widgets

# Controls


def made(control):
    named, slider = control()
    return named, slider


CONTROLS = {
    "slider": widgets.slider("share of the weights", 0.5, 0, 1, 0.01),
    "log_slider": widgets.log_slider("tolerated risk", 0.05, -3, -0.3),
    "integer": widgets.integer("examples", 100, 10, 2000, 10),
    "menu": widgets.menu("procedure", ["holm", "bonferroni", "rows"], "bonferroni"),
}


@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_each_control_has_a_named_widget_that_holds_its_default_and_a_slider_in_the_same_place(control):
    named, slider = made(control)
    assert named.description and named.value == control.keywords["value"] == slider.value
    assert slider.description == "" and not slider.readout


@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_no_control_is_made_before_it_is_asked_for(control):
    assert not any(isinstance(value, ipywidgets.Widget) for value in control.keywords.values())


def test_a_slider_gives_numbers_that_are_used_as_they_are_shown():
    named, slider = made(CONTROLS["log_slider"])
    slider.value = 10**-1.45
    assert named.value == 0.0355
    named, slider = made(CONTROLS["slider"])
    slider.value = 0.1 + 0.2
    assert named.value == 0.3
    named, slider = made(CONTROLS["integer"])
    slider.value = 210
    assert named.value == 210 and type(named.value) is int


def test_a_typed_number_moves_the_slider_and_is_not_moved_by_it():
    for name, typed, step in [("log_slider", 0.02, 10**-1.7), ("slider", 0.123, 0.12), ("integer", 1234, 1230)]:
        named, slider = made(CONTROLS[name])
        named.value = typed
        assert slider.value == typed
        slider.value = step  # what the browser answers: the nearest step
        assert named.value == typed


def test_one_step_of_the_slider_is_a_step_from_the_typed_number():
    named, slider = made(CONTROLS["log_slider"])
    slider.value = 10**-1.3  # the browser's nearest step to 0.05
    slider.value = 10**-1.25
    assert named.value == 0.0562


def test_a_typed_number_beyond_the_limits_becomes_the_limit():
    named, slider = made(CONTROLS["integer"])
    named.value = 5000
    assert named.value == slider.value == 2000


def test_a_default_beyond_the_limits_of_a_log_slider_moves_them():
    for value in (0.0004, 0.9):
        named, slider = made(widgets.log_slider("tolerated risk", value, -3, -0.3))
        assert named.value == slider.value == value


def test_a_list_and_its_slider_follow_each_other():
    named, slider = made(CONTROLS["menu"])
    slider.index = 2
    assert named.value == "rows"
    named.value = "holm"
    assert slider.value == "holm"
    assert widgets.menu("any", [0, 1])()[0].value == 0
    assert widgets.menu("any", [1, 0], 0)()[0].value == 0


# Explorers


@pytest.fixture
def shown(monkeypatch):
    """All that `explore` displays."""
    shown = []
    monkeypatch.setattr(widgets, "display", lambda thing, **_: shown.append(thing))
    return shown


def test_without_a_reader_the_figure_is_drawn_once_at_the_defaults_and_no_widget_is_made(shown, monkeypatch):
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")
    monkeypatch.setattr(ipywidgets, "VBox", None)
    widgets.explore(lambda **values: values, **CONTROLS)
    assert shown == [{"slider": 0.5, "log_slider": 0.05, "integer": 100, "menu": "bonferroni"}]


def test_without_a_reader_an_error_fails_the_cell(monkeypatch):
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")
    with pytest.raises(ZeroDivisionError):
        widgets.explore(lambda n: 1 / n, n=widgets.integer("examples", 0, 0, 1))


def explorer(monkeypatch, shown, draw, **controls):
    """The box of a live explorer."""
    monkeypatch.setenv("CONFPRUNE_STATIC", "0")
    widgets.explore(draw, **controls)
    (box,) = [thing for thing in shown if isinstance(thing, ipywidgets.VBox)]
    return box


def test_with_a_reader_it_redraws_with_the_values_of_the_controls(shown, monkeypatch):
    box = explorer(monkeypatch, shown, lambda **values: values, **CONTROLS)
    rows = {name: row.children for name, row in zip(CONTROLS, box.children[:-1], strict=True)}
    rows["menu"][0].value = "holm"
    rows["slider"][1].value = 0.7
    drawn = [thing for thing in shown if isinstance(thing, dict)]
    assert drawn[0] == {"slider": 0.5, "log_slider": 0.05, "integer": 100, "menu": "bonferroni"}
    assert drawn[-1] == drawn[0] | {"slider": 0.7, "menu": "holm"} and len(drawn) == 3


def test_a_live_explorer_spares_the_collector_what_is_loaded(shown, monkeypatch):
    before = gc.get_freeze_count()
    try:
        explorer(monkeypatch, shown, lambda n: n, n=CONTROLS["integer"])
        assert gc.get_freeze_count() > max(before, len(gc.get_objects()))
    finally:
        gc.unfreeze()


@pytest.mark.parametrize(("seconds", "follows"), [(0.001, True), (1.0, False)])
def test_a_figure_follows_a_dragged_slider_if_it_is_quickly_drawn(shown, monkeypatch, seconds, follows):
    clock = iter(range(1000))
    monkeypatch.setattr(widgets.time, "perf_counter", lambda: next(clock) * seconds)
    box = explorer(monkeypatch, shown, lambda **_: "", n=CONTROLS["integer"], choice=CONTROLS["menu"])
    assert [row.children[1].continuous_update for row in box.children[:-1]] == [follows] * 2


def test_voila_has_readers_whose_front_end_does_not_say_so(monkeypatch):
    monkeypatch.delenv("CONFPRUNE_STATIC", raising=False)
    assert not widgets.is_live()
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5.13")
    assert widgets.is_live()
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")
    assert not widgets.is_live()


# Two threads: a cell runs while a control moves


def test_pictures_drawn_in_two_threads_are_those_of_one():
    """matplotlib's settings are global; without a lock some figures are drawn in another style, or leave it behind."""
    before = dict(mpl.rcParams)

    def draw(number):
        return plots.sequence(plots.SEQUENCES["an early failure"], delta=0.1, step=number % 3).png()

    want, got = [draw(number) for number in range(3)], {}
    threads = [threading.Thread(target=lambda k=k: got.update({(k, j): draw(j) for j in range(20)})) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 40
    assert [key for key, png in got.items() if png != want[key[1] % 3]] == []
    assert dict(mpl.rcParams) == before


def test_the_html_of_a_picture_holds_its_png():
    picture = plots.sequence(plots.SEQUENCES["an early failure"], delta=0.1)
    bundle = picture._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"])[:8] == b"\x89PNG\r\n\x1a\n"
    assert f"base64,{bundle['image/png']}" in bundle["text/html"] and picture.alt in bundle["text/html"]
