"""Every exercise: its stub is quiet, its printed solution can be pasted and is right, its hint says something."""

import math

import numpy as np
import pytest

from confprune_edu import exercises

NAMES = sorted(exercises.EXERCISES)


@pytest.mark.parametrize("name", NAMES)
def test_an_untouched_exercise_is_quiet(name, capsys):
    def stub(*args):
        raise NotImplementedError

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
    with pytest.raises(ValueError, match="binomial_p_value"):
        help_with("binomial")


def test_a_maximum_over_nothing_is_explained():
    def answer(p, ratios, delta):
        return ratios[np.logical_and.accumulate(p <= delta)].max()

    with pytest.raises(AssertionError, match="return None before"):
        exercises.certified_ratio(answer)
