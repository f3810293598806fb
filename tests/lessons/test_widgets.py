"""Explorers without a browser: what is drawn and when, what a control says, and where it stops."""

import base64
import gc
import re
import threading

import ipywidgets
import matplotlib as mpl
import pytest

from confprune_edu import controls, plots, widgets

# Controls


def parts(widget, kind):
    """The widgets of one kind within a widget, in order."""
    inner = [part for child in getattr(widget, "children", ()) for part in parts(child, kind)]
    return [widget] * isinstance(widget, kind) + inner


class Made:
    """A control with what it told its explorer."""

    def __init__(self, control):
        self.told = []
        self.widget, self.put = control.make(self.told.append)
        self.buttons = parts(self.widget, ipywidgets.Button)
        self.fields = parts(self.widget, ipywidgets.FloatText) + parts(self.widget, ipywidgets.IntText)

    def said(self):
        """The line below a number."""
        (note,) = parts(self.widget, ipywidgets.HTML)
        return re.sub("<[^>]+>", "", note.value)


CONTROLS = {
    "share": widgets.number("share of the weights", 0.5, 0, 1, step=0.01, stops=widgets.TENTHS),
    "risk": widgets.number("tolerated risk", 0.05, 0.001, 0.3, step=0.01, stops=widgets.RISKS),
    "examples": widgets.number("examples", 100, 10, 2000, step=10),
    "rule": widgets.menu("procedure", ["holm", "bonferroni", "rows"], "bonferroni"),
}
FIRST = {"share": 0.5, "risk": 0.05, "examples": 100, "rule": "bonferroni"}


@pytest.mark.parametrize("name", ["share", "risk", "examples"])
def test_a_number_has_its_label_as_a_name_and_one_tab_stop(name):
    control = Made(CONTROLS[name])
    (field,) = control.fields
    assert field.description and field.value == FIRST[name] == CONTROLS[name].value
    assert [button.tabbable for button in control.buttons] == [False, False]
    assert [button.description for button in control.buttons] == ["−", "+"]


def test_buttons_go_from_stop_to_stop_or_by_a_step_and_end_at_the_limits():
    def pressed(name, which, times):
        control = Made(CONTROLS[name])
        for _ in range(times):
            control.buttons[which].click()
        assert control.fields[0].value == control.told[-1]
        return control.told, [button.disabled for button in control.buttons]

    assert pressed("risk", 0, 7) == ([0.02, 0.01, 0.005, 0.002, 0.001, 0.001, 0.001], [True, False])
    assert pressed("risk", 1, 3) == ([0.1, 0.2, 0.3], [False, True])
    assert pressed("share", 1, 6) == ([0.6, 0.7, 0.8, 0.9, 1, 1], [False, True])
    assert pressed("examples", 1, 2) == ([110, 120], [False, False])


def test_a_button_says_where_it_leads():
    control = Made(CONTROLS["risk"])
    assert [button.tooltip for button in control.buttons] == ["tolerated risk: 0.02", "tolerated risk: 0.1"]
    control.fields[0].value = 0.07
    assert [button.tooltip for button in control.buttons] == ["tolerated risk: 0.05", "tolerated risk: 0.1"]


def test_a_number_is_whole_where_its_step_is():
    control = Made(CONTROLS["examples"])
    control.fields[0].value = 123
    assert control.told == [123] and type(control.told[0]) is int
    assert isinstance(Made(CONTROLS["share"]).fields[0], ipywidgets.FloatText)


def test_a_typed_number_is_used_as_it_is_and_one_beyond_the_limits_becomes_the_limit_and_says_so():
    control = Made(CONTROLS["risk"])
    (field,) = control.fields
    for typed, used, said in [
        (0.0123, 0.0123, ""),
        (0.7, 0.3, "limited to 0.3"),
        (0.2, 0.2, ""),
        (-1, 0.001, "limited to 0.001"),
    ]:
        field.value = typed
        assert (control.told[-1], field.value, control.said()) == (used, used, said)
    field.value = -5  # where it is already
    assert (field.value, control.said()) == (0.001, "limited to 0.001")


def test_a_default_beyond_the_limits_moves_them():
    for value in (0.0004, 0.9):
        control = Made(widgets.number("tolerated risk", value, 0.001, 0.3, step=0.01))
        control.put(0.1)
        control.fields[0].value = value
        assert (control.told, control.said()) == ([value], "")


def test_a_menu_is_a_button_for_each_option_and_says_which_is_chosen():
    control = Made(CONTROLS["rule"])
    assert [button.description for button in control.buttons] == ["holm", "bonferroni", "rows"]
    control.buttons[2].click()
    assert control.told == ["rows"]
    assert [button.button_style for button in control.buttons] == ["", "", "primary"]
    assert [button.tooltip for button in control.buttons][1:] == ["procedure: bonferroni", "procedure: rows, chosen"]
    assert widgets.menu("any", [0, 1]).value == 0 and widgets.menu("any", [1, 0], 0).value == 0


# Explorers


@pytest.fixture
def shown(monkeypatch):
    """All that `explore` displays."""
    shown = []
    monkeypatch.setattr(controls, "display", shown.append)
    return shown


def test_without_a_reader_the_figure_is_drawn_once_at_the_defaults_and_no_widget_is_made(shown, monkeypatch):
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")
    monkeypatch.setattr(ipywidgets, "VBox", None)
    widgets.explore(lambda **values: values, **CONTROLS)
    assert shown == [FIRST]


def test_without_a_reader_an_error_fails_the_cell(monkeypatch):
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")
    with pytest.raises(ZeroDivisionError):
        widgets.explore(lambda n: 1 / n, n=widgets.number("examples", 0, 0, 1, step=1))


def explorer(monkeypatch, shown, draw, **controls):
    """The box of a live explorer."""
    monkeypatch.setenv("CONFPRUNE_STATIC", "0")
    widgets.explore(draw, **controls)
    (box,) = [thing for thing in shown if isinstance(thing, ipywidgets.VBox)]
    return box


def first_figure(box):
    """What an explorer shows before a control has moved, by MIME type."""
    (output,) = parts(box, ipywidgets.Output)[0].outputs
    return output["data"]


def test_with_a_reader_it_redraws_with_the_values_of_the_controls(shown, monkeypatch):
    box = explorer(monkeypatch, shown, lambda **values: values, **CONTROLS)
    (whole,), share = parts(box, ipywidgets.IntText), parts(box, ipywidgets.FloatText)[0]
    press = {button.description: button.click for button in parts(box, ipywidgets.Button)}
    press["holm"]()
    share.value = 0.7
    whole.value = 9999  # becomes 2,000: one figure
    whole.value = 5000  # becomes 2,000 again: none
    press["holm"]()  # as it is: none
    press["Reset"]()
    press["Reset"]()
    assert (share.value, whole.value) == (0.5, 100)
    moved = FIRST | {"rule": "holm"}
    drawn = [thing for thing in shown if isinstance(thing, dict)]
    assert first_figure(box) == {"text/plain": repr(FIRST)}
    assert drawn == [moved, moved | {"share": 0.7}, moved | {"share": 0.7, "examples": 2000}, FIRST]


def test_a_picture_is_shown_as_svg_and_its_alternative_text_is_heard(shown, monkeypatch):
    def draw(step):
        if step == 2:
            raise ValueError("two")
        return plots.sequence(plots.SEQUENCES["an early failure"], delta=0.1, step=step)

    box = explorer(monkeypatch, shown, draw, step=widgets.number("tests", 1, 0, 8, step=1))
    readout = box.children[-1]
    assert first_figure(box)["text/html"] == draw(1).svg()
    assert readout.value.startswith('<div role="status" aria-live="polite"') and draw(1).alt in readout.value
    with pytest.raises(ValueError, match="two"):  # in a notebook it is shown in place of the figure
        parts(box, ipywidgets.IntText)[0].value = 2


@pytest.mark.parametrize("procedure", ["fixed_sequence", "holm", "bonferroni"])
@pytest.mark.parametrize("alpha", [0.02, 0.2])
def test_the_certificate_in_words_says_how_many_digits_it_needs_at_least(monkeypatch, alpha, procedure):
    kept = {}
    monkeypatch.setattr(widgets, "explore", lambda draw, **controls: kept.update(draw=draw, controls=controls))
    widgets.certificate_explorer(alpha, delta=0.05)
    values = {name: control.value for name, control in kept["controls"].items()} | {"procedure": procedure}
    assert set(kept["controls"]["p_value"].options) | set(kept["controls"]["procedure"].options) == set(widgets.MEANING)
    for p_value in kept["controls"]["p_value"].options:
        words = kept["draw"](**values | {"n": 10, "p_value": p_value})[1].data
        assert "Nothing certified" in words and all(widgets.MEANING[name] in words for name in (p_value, procedure))
        needed = int(re.search(r"needs n of at least ([\d,]+), even", words)[1].replace(",", ""))
        for n, certified in ((needed - 1, False), (needed, True)):
            picture, card = kept["draw"](**values | {"n": n, "p_value": p_value})
            assert ("Certified pruning ratio" in card.data) == certified == ("needs n" not in card.data)
            assert "ertified" in picture.alt


def test_a_live_explorer_spares_the_collector_what_is_loaded(shown, monkeypatch):
    before = gc.get_freeze_count()
    try:
        explorer(monkeypatch, shown, lambda examples: examples, examples=CONTROLS["examples"])
        assert gc.get_freeze_count() > max(before, len(gc.get_objects()))
    finally:
        gc.unfreeze()


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


def test_an_svg_has_a_name_takes_its_colours_from_the_page_and_is_the_same_twice():
    picture = plots.sequence([0.01, 0.3], delta=0.1)
    text = picture.svg()
    assert text.startswith(f'<svg role="img" aria-label="{picture.alt}" viewBox="0 0 504 230.4"')
    assert text == plots.sequence([0.01, 0.3], delta=0.1).svg()
    colours = set(re.findall(r'(?:fill|stroke): ([^;"]+)', text))
    assert "currentColor" in colours and "#000000" not in colours  # letters, axes
    assert not {"#ffffff", "white", "#e6e6e6"} & colours  # no paper, no lines that glare on a dark page
    assert "#0072b2" in colours  # the blue of a certified point
