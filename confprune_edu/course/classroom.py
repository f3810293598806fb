"""A class on the course, graded by nbgrader: instructors' notebooks, students' notebooks, an answer key, a plan.

Each exercise becomes a cell to fill in, worth a point where the checker of the course is content, and another where the
function is right on inputs that students do not see; the questions without code are graded by hand.
"""

import ast
import inspect
import os
import re
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nbformat import NotebookNode, write
from nbformat.v4 import new_code_cell, new_markdown_cell
from tqdm import tqdm

from confprune_edu.course.notebooks import Refused, course_notebooks, make_output_dir, read_notebook
from confprune_edu.exercises import EXERCISES

HERE = Path(__file__).parent
CONFIG = """\
import os

os.environ.setdefault("CONFPRUNE_STATIC", "1")  # explorers as plain figures
os.environ.setdefault("OMP_NUM_THREADS", "1")

c = get_config()
c.CourseDirectory.course_id = "confident_pruning"
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}
c.ExecutePreprocessor.timeout = 600
"""
ASIDE = """\
# The solutions of this copy are with your teacher.
from confprune_edu import exercises

exercises.keep_solutions()"""
ANSWER = re.compile(r"<details><summary>Answer[^<]*</summary>\s*(.*?)\s*</details>", re.DOTALL)


def build(folder: Path, out: Path) -> list[str]:
    """Write `out`: source/, release/ by nbgrader, the answer key, the plan; the names of the assignments.

    Raises
    ------
    Refused
        nbgrader is missing, or `out` holds something: what a teacher has changed is never overwritten.
    """
    try:
        from nbgrader.apps import NbGraderAPI
        from traitlets.config import PyFileConfigLoader
    except ImportError as error:
        raise Refused('the class needs nbgrader: python -m pip install -e ".[teach]"') from error
    if any(make_output_dir(out, folder).iterdir()):
        raise Refused(f"{out} is not empty; choose a folder that is new")
    (out / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    shutil.copy(HERE / "book" / "teach.md", out / "teach.md")
    key = ["# Answer key"]
    with patch.dict(os.environ):  # what is said to nbgrader is not said to this process
        # it calls alembic by its name, which may lie beside this Python alone
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        config = PyFileConfigLoader("nbgrader_config.py", path=str(out)).load_config()
        config.CourseDirectory.root = str(out.resolve())
        api = NbGraderAPI(config=config)
        for path in (bar := tqdm(course_notebooks(folder), unit="lesson")):
            bar.set_description(path.stem)
            notebook = instructors(read_notebook(path))
            (out / "source" / path.stem).mkdir(parents=True)
            write(notebook, out / "source" / path.stem / path.name)
            key.append(answers(notebook, path.stem))
            made = api.generate_assignment(path.stem, create=True)
            if not made["success"]:
                raise Refused(f"nbgrader could not make the students' copy of {path.stem}: {made['log']}")
    (out / "answer_key.md").write_text("\n\n".join(key) + "\n", encoding="utf-8")
    return [path.stem for path in course_notebooks(folder)]


def instructors(notebook: NotebookNode) -> NotebookNode:
    """A lesson as nbgrader wants it from an instructor: solutions and hidden tests between its marks, points."""
    cells: list[NotebookNode] = []
    reached = False
    for cell in notebook.cells:
        names = [tag.removeprefix("exercise:") for tag in cell.metadata.get("tags", []) if tag.startswith("exercise:")]
        reached = reached or (cell.cell_type == "markdown" and "## Exercises" in cell.source)
        if names:
            cells += exercise(names[0], cell.source)
        elif reached and cell.cell_type == "markdown":
            cells += questions(cell.source, sum("nbgrader" in one.metadata for one in cells))
        else:
            cells.append(cell)
    first = next(number for number, cell in enumerate(cells) if cell.cell_type == "code")
    cells.insert(first, new_code_cell(ASIDE))
    return NotebookNode(notebook, cells=cells)


def exercise(name: str, stub: str) -> Iterator[NotebookNode]:
    """The cells of one exercise: the solution, the check that students see, the inputs that they do not see."""
    task = EXERCISES[name]
    code = stub.replace(f"\n\n\nexercises.{name}({name})", "")
    region = f"    ### BEGIN SOLUTION\n{textwrap.indent(body(task.solution), '    ')}\n    ### END SOLUTION"
    yield marked(new_code_cell(code.replace("    raise NotImplementedError", region)), name, solution=True)
    attempt = f"exercises.grade({name!r}, {name}, {[task.cases[0][0]]!r})  # an untouched cell earns nothing"
    yield marked(new_code_cell(f"exercises.{name}({name})\n{hidden(attempt)}"), f"{name}-check", points=1)
    inputs = tomllib.loads((HERE / "hidden.toml").read_text(encoding="utf-8"))[name]
    lines = ",\n".join(f"    {one!r}" for one in inputs)
    test = hidden(f"exercises.grade({name!r}, {name}, [\n{lines},\n])")
    yield marked(new_code_cell(f"# Here your function is run on other inputs.\n{test}"), f"{name}-hidden", points=1)


def questions(text: str, before: int) -> Iterator[NotebookNode]:
    """The cells of a text: each folded answer becomes a cell in which students write, graded by hand.

    `before` is the number of nbgrader's cells so far, so that no two have one name.
    """
    for number, part in enumerate(ANSWER.split(text)):
        if number % 2:
            cell = new_markdown_cell(f"### BEGIN SOLUTION\n{part}\n### END SOLUTION")
            yield marked(cell, f"written-{before + number}", solution=True, points=2)
        elif part.strip():
            yield new_markdown_cell(part.strip())


def hidden(test: str) -> str:
    """A test that nbgrader takes out of the students' copies."""
    return f"### BEGIN HIDDEN TESTS\n{test}\n### END HIDDEN TESTS"


def marked(cell: NotebookNode, name: str, *, solution: bool = False, points: int = 0) -> NotebookNode:
    """The cell with nbgrader's metadata: to be filled in, or locked; graded where it has points."""
    mark: dict[str, Any] = {"schema_version": 3, "grade_id": name, "grade": points > 0, "solution": solution}
    cell.metadata["nbgrader"] = mark | {"locked": not solution, "task": False} | ({"points": points} if points else {})
    return cell


def body(solution: Any) -> str:
    """The lines of a function below its docstring, with the imports that they need."""
    source = inspect.getsource(solution)
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    lines = "\n".join(source.splitlines()[function.body[1].lineno - 1 :])
    needed = [line for line, use in (("import math", "math."), ("import numpy as np", "np.")) if use in lines]
    return "\n".join([*needed, textwrap.dedent(lines)])


def answers(notebook: NotebookNode, name: str) -> str:
    """The part of the answer key on one lesson, from what stands between the marks of its solutions."""
    parts = [f"## {name}"]
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        if mark.get("solution"):
            text = re.sub(r"^ *### (BEGIN|END) SOLUTION\n?", "", cell.source, flags=re.MULTILINE).rstrip()
            parts += [f"### {mark['grade_id']}", f"```python\n{text}\n```" if cell.cell_type == "code" else text]
    return "\n\n".join(parts)
