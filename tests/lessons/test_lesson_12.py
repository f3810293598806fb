"""Lesson 12: its checkers, its explorer, and that it is a template: three cells put another network in its place."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from answers import right_and_wrong

from confprune_edu import plots, widgets
from confprune_edu.course import runner
from confprune_edu.validation import examples_needed

ROOT = Path(__file__).parents[2]
LESSON = ROOT / "notebooks" / "12_your_own_model.ipynb"

# Exercises: right answers


def fresh(calibration, used):
    return ~(calibration[:, None] == used[None]).all(axis=2).any(axis=1)


def zeros(*layers):
    return sum(int((w == 0).sum()) for w in layers)


def shown_zeros(layer):
    return [str(w) for w in layer.ravel().tolist()].count("0.0")


def wanted(a, b, ratio):
    return round(ratio * (a.size + b.size))


def changed(a, b):
    return (a.argmax(axis=1) != b.argmax(axis=1)).sum()


RIGHT = [
    ("fresh_rows", fresh),
    ("fresh_rows", lambda c, u: [row.tobytes() not in {r.tobytes() for r in u} for row in c]),
    ("fresh_rows", lambda c, u: (tuple(row) not in set(map(tuple, u)) for row in c)),
    ("zeros_missing", lambda a, b, r: max(0, wanted(a, b, r) - zeros(a, b))),
    (
        "zeros_missing",
        lambda a, b, r: max(0, wanted(a, b, r) - a.size - b.size + np.count_nonzero(a) + np.count_nonzero(b)),
    ),
    ("changed_decisions", changed),
    ("changed_decisions", lambda a, b: np.count_nonzero(np.argmax(a, 1) - np.argmax(b, 1))),
    (
        "changed_decisions",
        lambda a, b: sum(list(x).index(max(x)) != list(y).index(max(y)) for x, y in zip(a, b, strict=True)),
    ),
]

# Exercises: known wrong answers, and the misconception that the message must name

WRONG = [
    ("fresh_rows", lambda c, u: ~np.isin(c, u).all(axis=1), "the colleague's"),
    ("fresh_rows", lambda c, u: ~(c[:, None] == u).any(axis=(1, 2)), "one equal entry"),
    ("fresh_rows", lambda c, u: ~np.isin(c[:, 0], u[:, 0]), "one equal entry"),
    ("fresh_rows", lambda c, u: ~np.all([np.isin(c[:, k], u[:, k]) for k in (0, 1)], axis=0), "make no copy of any"),
    ("fresh_rows", lambda c, u: fresh(c, u) & (c[:, 1] != 9), "one equal entry makes no copy"),
    ("fresh_rows", lambda c, u: [i >= len(u) or (row != u[i]).any() for i, row in enumerate(c)], "in the same place"),
    ("fresh_rows", lambda c, u: fresh(np.sort(c, axis=1), np.sort(u, axis=1)), "in another order"),
    ("fresh_rows", lambda c, u: ~np.isin(c.sum(axis=1), u.sum(axis=1)), "in another order"),
    ("fresh_rows", lambda c, u: ~fresh(c, u), "not what is known"),
    ("fresh_rows", lambda c, u: fresh(c, u) & np.array([(c == r).all(axis=1).sum() == 1 for r in c]), "drawn twice"),
    ("fresh_rows", lambda c, u: c[fresh(c, u)], "want shape"),
    ("fresh_rows", lambda c, u: fresh(c, u).any(), "want shape"),
    ("fresh_rows", lambda c, u: np.ones(len(c), bool), "the second row was used"),
    ("fresh_rows", lambda c, u: fresh(c, u[-1:]), "may stand anywhere"),
    ("fresh_rows", lambda c, u: fresh(c, u) if fresh(c, u).any() else [True], "nothing is left"),
    ("zeros_missing", lambda a, b, r: max(0, wanted(a, b, r) - zeros(abs(a) // 0.001, abs(b) // 0.001)), "grew back"),
    ("zeros_missing", lambda a, b, r: sum(max(0, round(r * w.size) - zeros(w)) for w in (a, b)), "of all weights"),
    ("zeros_missing", lambda a, b, r: wanted(a, b, r) - zeros(a, b), "more zeros than certified"),
    ("zeros_missing", lambda a, b, r: zeros(a, b), "zeros that are there"),
    ("zeros_missing", lambda a, b, r: wanted(a, b, r), "not how many of them are missing"),
    ("zeros_missing", lambda a, b, r: max(0, wanted(a, b, r) - zeros(a)), "all zeros are there"),
    ("zeros_missing", lambda a, b, r: zeros(a, b) >= wanted(a, b, r), "two of which were to be zero"),
    ("zeros_missing", lambda a, b, r: max(0, wanted(a, b, r) - shown_zeros(a) - shown_zeros(b)), "minus zero is zero"),
    ("changed_decisions", lambda a, b: (abs(a - b).max(axis=1) > 0.01).sum(), "the colleague's"),
    ("changed_decisions", lambda a, b: (a != b).any(axis=1).sum(), "compare the classes"),
    ("changed_decisions", lambda a, b: (a.argmax(axis=0) != b.argmax(axis=0)).sum(), "the examples the rows"),
    ("changed_decisions", lambda a, b: int(changed(a, b) > 0), "not whether any"),
    ("changed_decisions", lambda a, b: changed(a, b) / len(a), "not which share"),
    ("changed_decisions", lambda a, b: len(a) - changed(a, b), "not those that stayed"),
    ("changed_decisions", lambda a, b: a.argmax(axis=1) != b.argmax(axis=1), "want shape ()"),
    ("changed_decisions", lambda a, b: changed(a.round(2), b.round(2)), "a thousandth"),
    ("changed_decisions", lambda a, b: 0, "the first example changes"),
    ("changed_decisions", lambda a, b: max(changed(a, b), 1), "outputs a hundred times"),
    ("changed_decisions", lambda a, b: changed(a, b) or int(np.array_equal(a, b)), "the answer is 0"),
]


(
    test_right_answers_are_accepted,
    test_wrong_answers_are_refused_by_name,
    test_every_misconception_of_a_checker_is_told_to_somebody,
) = right_and_wrong(RIGHT, WRONG)


# The explorer


def test_the_explorer_says_what_the_examples_reach(monkeypatch):
    kept = {}
    monkeypatch.setattr(widgets, "explore", lambda draw, **controls: kept.update(draw=draw, controls=controls))
    risks, ratios = [0.0, 0.01, 0.03, 0.2], [0.0, 0.3, 0.6, 0.9]
    widgets.planning_explorer(risks, ratios, alpha=0.05, delta=0.1, n=500)
    values = {name: control.value for name, control in kept["controls"].items()}
    for change in ({}, {"n": 2000}, {"power": 0.95, "n": 700}, {"alpha": 0.5}, {"delta": 0.001}):
        now = values | change
        needed = examples_needed(risks, now["alpha"], now["delta"], power=now["power"])
        reach = max(np.array(ratios)[needed <= now["n"]])
        assert kept["draw"](**now).alt.startswith(f"{now['n']:,} examples reach ratio {reach:g}. ")
    assert plots.examples_by_ratio([0.5], [np.inf], n=10).alt.startswith("10 examples reach no ratio.")


# The lesson as a template


YOURS = [
    """\
# YOURS 1 of 3
import torchvision

torch.manual_seed(0)
network, inputs = torchvision.models.shufflenet_v2_x0_5(num_classes=5).eval(), torch.randn(260, 3, 32, 32)
with torch.no_grad():
    network.fc.bias -= network(inputs).mean(0)  # random weights, of which none decides alone
targets, names = torch.randint(5, (260,)), np.array([f"image {i}" for i in range(260)])
""",
    "# YOURS 2 of 3\nused_before = torch.randn(40, 3, 32, 32)",
    """\
# YOURS 3 of 3
plan = {
    "question": "which images change their class?",
    "date": "2026-11-26",
    "loss": loss,
    "alpha": alpha,
    "delta": delta,
    "ratios": [0.0, 0.05, 0.1, 0.2],
    "p_value": p_value,
    "procedure": "fixed_sequence",
    "n": len(calibration),
}
""",
]


@pytest.mark.long
def test_three_cells_put_a_torchvision_network_in_the_words_place(tmp_path):
    notebook = nbformat.read(LESSON, as_version=4)
    mine = [cell for cell in notebook.cells if cell.source.startswith("# YOURS")]
    assert [cell.source[:14] for cell in mine] == [text[:14] for text in YOURS]
    for cell, text in zip(mine, YOURS, strict=True):
        cell.source = text
    nbformat.write(notebook, tmp_path / LESSON.name)
    copies = tmp_path / "executed"
    copies.mkdir()
    parameters = {"loss": "disagreement", "alpha": 0.2, "n_pilot": 60, "n_calibration": 200}
    (outcome,) = runner.run_notebooks({tmp_path / LESSON.name: parameters}, copies)
    assert outcome.failure == "" and outcome.headline.endswith("certified (disagreement <= 0.2, delta 0.1, n 200)")
    cells = nbformat.read(copies / LESSON.name, as_version=4).cells
    printed = "".join(out.get("text", "") for cell in cells if cell.cell_type == "code" for out in cell.outputs)
    assert re.findall(r"^\w+ is (refused|accepted)", printed, re.MULTILINE) == ["refused"] * 5
    assert "0 of 200 calibration examples were used before" in printed
    assert "torch.export: Comparison(examples=200" in printed


def rubric(text):
    return re.findall(r"^\| (\d+) \| \*\*(\w[\w ]*)\.\*\* (.+?) \| .+ \|$", text, re.MULTILINE)


def test_teachers_grade_by_the_ten_points_of_the_lesson():
    cells = nbformat.read(LESSON, as_version=4).cells
    lesson = rubric("\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))
    teach = (ROOT / "confprune_edu" / "course" / "book" / "teach.md").read_text(encoding="utf-8")
    assert [number for number, *_ in lesson] == [str(k) for k in range(1, 11)]
    assert rubric(teach) == lesson
