"""The arrows of the house: who imports whom is what pyproject.toml says, and what breaks it is seen."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

from confprune_edu.course.notebooks import LESSONS

ROOT = Path(__file__).parents[2]
CONTRACTS = [
    c["name"]
    for c in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
]
VIOLATIONS = {  # one a contract, but the first, which several of them break
    "pvalues.py": "def lazily():\n    import torch\n",
    "plots/picture.py": "from confprune_edu import certificates\n",
    "selective/evidence.py": "from confprune_edu.selective import recipe\n",
    "__init__.py": "from confprune_edu.course import notebooks\n",
}


def lint(folder):
    command = "from importlinter.cli import lint_imports_command as main; main()"
    options = ["--no-cache", "--no-logo"]
    return subprocess.run([sys.executable, "-c", command, *options], cwd=folder, capture_output=True, text=True)


def copy_with(folder, additions):
    """A copy of the package's code in `folder`, with lines added to some of its files."""
    only_code = shutil.ignore_patterns("assets", "__pycache__", "*.ipynb")
    shutil.copytree(ROOT / "confprune_edu", folder / "confprune_edu", ignore=only_code)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, code in additions.items():
        with (folder / "confprune_edu" / name).open("a") as file:
            file.write(f"\n\n{code}")
    return folder


def test_the_contracts_are_kept():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


def test_every_contract_can_be_broken(tmp_path):
    done = lint(copy_with(tmp_path, VIOLATIONS))
    assert done.returncode == 1
    assert [name for name in CONTRACTS if f"{name} BROKEN" not in done.stdout] == []


def test_a_new_room_needs_its_place(tmp_path):
    done = lint(copy_with(tmp_path, {"attic.py": ""}))
    assert done.returncode == 1 and "attic" in done.stdout


@pytest.mark.parametrize("room", ["plots", "exercises"])
def test_lessons_are_numbered_as_in_the_list_and_import_no_other(room):
    graph = grimp.build_graph("confprune_edu", cache_dir=None)
    lessons = {module for module in graph.modules if module.startswith(f"confprune_edu.{room}.lesson_")}
    assert lessons <= {f"confprune_edu.{room}.lesson_{lesson.name[:2]}" for lesson in LESSONS}
    assert [lesson for lesson in lessons if graph.find_upstream_modules(lesson) & lessons] == []
