"""Every exercise: its stub is quiet, its printed solution can be pasted and is right, its hint says something."""

import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from confprune_edu import exercises, fwer
from confprune_edu.exercises import verdict

NAMES = sorted(exercises.EXERCISES)


def stub(*args):
    raise NotImplementedError


@pytest.mark.parametrize("name", NAMES)
def test_an_untouched_exercise_is_quiet(name, capsys):
    getattr(exercises, name)(stub)
    assert capsys.readouterr().out == f"{name}: not attempted yet\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_solution_can_be_pasted(name, capsys):
    exercises.solution(name)
    pasted = {"np": np, "math": math}
    exec(capsys.readouterr().out, pasted)
    getattr(exercises, name)(pasted[name])
    assert capsys.readouterr().out == f"{name}: correct\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_forgotten_return_is_named(name):
    with pytest.raises(AssertionError, match=r"return|None"):
        getattr(exercises, name)(lambda *args: None)


@pytest.mark.parametrize("name", NAMES)
def test_there_is_a_hint(name, capsys):
    exercises.hint(name)
    assert len(capsys.readouterr().out) > 40


@pytest.mark.parametrize("help_with", [exercises.hint, exercises.solution])
def test_an_unknown_exercise_is_refused_by_name(help_with):
    with pytest.raises(ValueError, match=r"got 'binomial_pvalue'; did you mean 'binomial_p_value'\?$"):
        help_with("binomial_pvalue")
    with pytest.raises(ValueError, match=r"binomial_p_value, .*; got 'nonsense'$"):
        help_with("nonsense")


# The verdict in a notebook


@pytest.fixture
def cards(monkeypatch):
    """What a notebook would display."""
    displayed = []
    monkeypatch.delenv("CONFPRUNE_STATIC", raising=False)
    monkeypatch.setattr(verdict, "get_ipython", lambda: SimpleNamespace(kernel=True))
    monkeypatch.setattr(verdict, "display", displayed.append)
    return displayed


@pytest.mark.parametrize(("answer", "state"), [(stub, "not attempted yet"), (fwer.fixed_sequence, "correct")])
def test_a_notebook_shows_a_card_and_elsewhere_it_is_a_line(answer, state, cards, capsys):
    exercises.fixed_sequence(answer)
    (card,) = cards
    assert repr(card) == f"fixed_sequence: {state}" and state in card._repr_html_()
    assert capsys.readouterr().out == ""


def test_a_wrong_answer_gets_a_card_with_everything_and_one_line_of_traceback(cards):
    with pytest.raises(AssertionError) as refused:
        exercises.fixed_sequence(lambda p, delta: p <= delta)
    (card,) = cards
    for part in ("p_values = [0.05, 0.5, 0.02], delta = 0.1", "want [True, False, False], got", "Stop at the first"):
        assert part in card._repr_html_()
    assert "<details><summary>Hint</summary>Walk through" in card._repr_html_()
    assert str(refused.value) in repr(card)
    assert refused.value._render_traceback_() == ["fixed_sequence: not right yet"]


def test_what_a_reader_returns_cannot_break_the_card(cards):
    with pytest.raises(AssertionError):
        exercises.fixed_sequence(lambda p, delta: "<script>")
    assert "&lt;script&gt;" in cards[0]._repr_html_() and "<script>" not in cards[0]._repr_html_()


def test_static_notebooks_get_plain_text(cards, monkeypatch, capsys):
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")
    exercises.fixed_sequence(fwer.fixed_sequence)
    with pytest.raises(AssertionError) as refused:
        exercises.fixed_sequence(lambda p, delta: p <= delta)
    assert capsys.readouterr().out == "fixed_sequence: correct\n" and cards == []
    (line,) = refused.value._render_traceback_()
    assert line.startswith("fixed_sequence: p_values = [0.05, 0.5, 0.02]") and "stop at the first failure" in line


@pytest.mark.parametrize("static", ["0", "1"])
def test_ipython_shows_no_source_of_a_checker(static, monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setenv("CONFPRUNE_STATIC", static)
    shown = []
    shell = InteractiveShell()
    monkeypatch.setattr(shell, "_showtraceback", lambda kind, value, lines: shown.append((kind, lines)))
    shell.run_cell("from confprune_edu import exercises\nexercises.fixed_sequence(lambda p, delta: p <= delta)")
    ((kind, lines),) = shown
    assert issubclass(kind, AssertionError) and len(lines) == 1


def test_an_error_in_an_answer_is_told_with_its_line():
    def answer(p_values, delta):
        return p_values[len(p_values)] <= delta

    with pytest.raises(AssertionError, match=r"IndexError: .* in line \d+: return p_values"):
        exercises.fixed_sequence(answer)


def test_exercises_need_no_torch():
    code = "import sys; sys.modules['torch'] = None; from confprune_edu import exercises; exercises.hint('two_way')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "union bound" in done.stdout, done.stderr
