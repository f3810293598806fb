"""Right and wrong answers to exercises: the tests that all lessons share."""

import pytest

from confprune_edu import exercises


def right_and_wrong(right, wrong):
    """Three tests of a lesson's checkers.

    Parameters
    ----------
    right : list of (name, answer)
        Right answers of many forms.
    wrong : list of (name, answer, words)
        Wrong answers, each with words that its refusal must hold.
    """
    names = list(dict.fromkeys(name for name, *_ in wrong))

    @pytest.mark.parametrize(("name", "answer"), right)
    def test_right_answers_are_accepted(name, answer, capsys):
        getattr(exercises, name)(answer)
        assert capsys.readouterr().out == f"{name}: correct\n"

    @pytest.mark.parametrize(("name", "answer", "words"), wrong)
    def test_wrong_answers_are_refused_by_name(name, answer, words):
        said = refusal(name, answer)
        assert words in said, said

    @pytest.mark.parametrize("name", names)
    def test_every_misconception_of_a_checker_is_told_to_somebody(name):
        told = "\n".join(refusal(name, answer) for other, answer, _ in wrong if other == name)
        exercise = exercises.EXERCISES[name]
        untold = [why for why in [*(why for _, why in exercise.cases), *exercise.mistakes] if why not in told]
        assert untold == [], untold

    return (
        test_right_answers_are_accepted,
        test_wrong_answers_are_refused_by_name,
        test_every_misconception_of_a_checker_is_told_to_somebody,
    )


def refusal(name, answer):
    """What a checker says to a wrong answer."""
    with pytest.raises(AssertionError) as refused:
        getattr(exercises, name)(answer)
    assert type(refused.value).__name__ == "WrongAnswer"  # not an assertion that failed inside of the checker
    return str(refused.value)
