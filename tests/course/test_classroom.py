"""A class from nothing to marks: what `confprune classroom` makes, and what nbgrader makes of it."""

import csv
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest.mock import patch

import nbformat
import pytest

from confprune_edu import exercises
from confprune_edu.course import command, notebooks

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = [path.stem for path in notebooks.course_notebooks(FOLDER)]
HIDDEN = tomllib.loads((FOLDER.parent / "confprune_edu" / "course" / "hidden.toml").read_text(encoding="utf-8"))
GRADED = "04_fixed_sequence_testing"  # needs no torch
# answers to the first exercise of that lesson, the others return None: only what the checker shows is known by heart
BY_HEART = """\
def fixed_sequence(p_values, delta):
    task = exercises.EXERCISES["fixed_sequence"]
    for (shown, level), _ in task.cases:
        if (shown, level) == (p_values.tolist(), delta):
            return task.solution(p_values, delta)
    return p_values < 0"""


@pytest.fixture(scope="module")
def monday(tmp_path_factory):
    """The folder of a class, made without an activated environment; for what this process does next nothing changes."""
    folder = tmp_path_factory.mktemp("class") / "monday"
    with patch.dict(os.environ, PATH=os.defpath):
        before = dict(os.environ)
        assert command.main(["classroom", str(folder)]) == 0
        assert dict(os.environ) == before
    return folder


def read(folder, name):
    return nbformat.read(folder / name / f"{name}.ipynb", as_version=4)


def marked(notebook):
    """The cells that nbgrader knows, by their names in it."""
    return {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}


def exercises_of(name):
    tags = [tag for cell in read_lesson(name).cells for tag in cell.metadata.get("tags", [])]
    return [tag.removeprefix("exercise:") for tag in tags if tag.startswith("exercise:")]


def read_lesson(name):
    return notebooks.read_notebook(FOLDER / f"{name}.ipynb")


@pytest.mark.parametrize("name", NAMES)
def test_students_see_no_outputs_no_solutions_and_no_hidden_inputs(monday, name):
    source, release = read(monday / "source", name), read(monday / "release", name)
    assert not any(cell.get("outputs") for cell in release.cells)
    text = "\n".join(cell.source for cell in release.cells)
    assert "BEGIN SOLUTION" not in text and "HIDDEN" not in text and "exercises.grade(" not in text
    lesson = "\n".join(cell.source for cell in read_lesson(name).cells)
    folded = lesson[lesson.index("## Exercises") :].count("<details><summary>Answer")
    after = text[text.index("## Exercises") :]
    assert "<details><summary>Answer" not in after and after.count("YOUR ANSWER HERE") == folded
    students = marked(release)
    assert list(students) == list(marked(source))
    for exercise in exercises_of(name):
        assert students[exercise].source.endswith("    raise NotImplementedError")
        assert students[f"{exercise}-check"].source == f"exercises.{exercise}({exercise})"
        assert students[f"{exercise}-check"].metadata.nbgrader.locked
        assert "### BEGIN HIDDEN TESTS\nexercises.grade(" in marked(source)[f"{exercise}-hidden"].source
    assert nbformat.validate(release) is None


@pytest.mark.parametrize("name", NAMES)
def test_the_solutions_of_the_source_stand_alone_and_earn_every_point(monday, name):
    cells = marked(read(monday / "source", name))
    for exercise in exercises_of(name):
        names = {"exercises": exercises}
        exec(cells[exercise].source, names)
        for test in ("check", "hidden"):
            exec(cells[f"{exercise}-{test}"].source, names)
        names[exercise] = untouched
        for test in ("check", "hidden"):
            with pytest.raises(NotImplementedError):
                exec(cells[f"{exercise}-{test}"].source, names)


def untouched(*args):
    raise NotImplementedError


@pytest.mark.parametrize("name", sorted(exercises.EXERCISES))
def test_what_is_known_by_heart_fails_on_the_hidden_inputs(name):
    task = exercises.EXERCISES[name]
    shown = [args for args, _ in task.cases]
    assert len(HIDDEN[name]) >= 2 and not any(args in shown for args in HIDDEN[name])
    assert len({str(task.solution(*task.given(*args))) for args in HIDDEN[name]}) >= 2  # no constant is right
    by_heart = task.solution(*task.given(*shown[0]))
    with pytest.raises(AssertionError):
        exercises.grade(name, lambda *args: by_heart, HIDDEN[name])


def test_a_class_of_three_from_the_students_copies_to_the_marks(monday):
    """Right, known by heart, untouched."""
    source, students = marked(read(monday / "source", GRADED)), {}
    for student in ("right", "by_heart", "untouched"):
        notebook = read(monday / "release", GRADED)
        for name in exercises_of(GRADED):
            cell = marked(notebook)[name]
            if student == "right":
                cell.source = source[name].source
            elif student == "by_heart":
                cell.source = BY_HEART if name == "fixed_sequence" else cell.source.replace("raise Not", "return  # ")
        students[student] = notebook
        folder = monday / "submitted" / student / GRADED
        folder.mkdir(parents=True)
        nbformat.write(notebook, folder / f"{GRADED}.ipynb")
    for step in (["autograde", GRADED, "--create"], ["generate_feedback", GRADED], ["export"]):
        line = [sys.executable, "-W", "ignore", "-m", "nbgrader", *step]
        done = subprocess.run(line, cwd=monday, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    with open(monday / "grades.csv", newline="", encoding="utf-8") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file) if row["assignment"] == GRADED}
    worth = 2 * len(exercises_of(GRADED))
    assert {name: float(row["score"]) for name, row in rows.items()} == {"right": worth, "by_heart": 1, "untouched": 0}
    assert {float(row["max_score"]) for row in rows.values()} == {worth + 2}  # the question on paper, graded by hand
    feedback = (monday / "feedback" / "by_heart" / GRADED / f"{GRADED}.html").read_text(encoding="utf-8")
    assert "fixed_sequence" in feedback


def test_the_answer_key_and_the_plan_speak_of_every_lesson(monday):
    key, plan = ((monday / name).read_text(encoding="utf-8") for name in ("answer_key.md", "teach.md"))
    for name in NAMES:
        assert f"## {name}\n" in key and all(f"### {exercise}\n" in key for exercise in exercises_of(name))
        assert f"\n| {name[:2]} |" in plan
    assert "SOLUTION" not in key


def test_the_plan_names_sections_that_there_are_and_an_explorer_in_its_own(monday):
    plan = (monday / "teach.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d) \| ([\d, ]+) \| (\d+): [^|]+ \| ([\d, ]+) \|", plan, re.MULTILINE)
    assert [number for number, *_ in rows] == [name[:2] for name in NAMES]
    for name, (_, first, explorer, second) in zip(NAMES, rows, strict=True):
        text = "\n".join(cell.source for cell in read_lesson(name).cells)
        sections = dict(re.findall(r"^## (\d+) · (.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
        assert {*first.split(", "), explorer, *second.split(", ")} <= set(sections)
        assert re.search(r"^widgets\.\w+\(", sections[explorer], re.MULTILINE)


def test_in_a_students_copy_the_teacher_has_the_solution(monday):
    first = next(cell for cell in read(monday / "release", GRADED).cells if cell.cell_type == "code")
    code = f"{first.source}\nexercises.solution('two_way')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Your teacher has the solution of two_way") and "def " not in done.stdout


def test_what_a_teacher_has_written_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("", encoding="utf-8")
    assert command.main(["classroom", str(tmp_path)]) == 2
    assert "is not empty; choose a folder that is new" in capsys.readouterr().err
    assert command.main(["classroom", str(tmp_path / "mine.txt")]) == 2
    assert "mine.txt cannot be made: File exists" in capsys.readouterr().err


def test_without_nbgrader_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nbgrader.apps", None)
    importlib.invalidate_caches()
    assert command.main(["classroom", str(tmp_path / "new")]) == 2
    assert 'the class needs nbgrader: python -m pip install -e ".[teach]"' in capsys.readouterr().err
