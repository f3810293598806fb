"""The lessons that run in a browser: they import what it has and no more, and `confprune lite` builds their folder.

That a browser runs them is not tested: it fetches Python itself from the network.
"""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest

from confprune_edu.course import command, lite, notebooks

PACKAGE = Path(notebooks.__file__).parents[1]
LIGHT = [lesson.name for lesson in notebooks.LESSONS if not lesson.torch]

# A kernel as a browser has it: nothing can be imported but the distributions named and what they require, the standard
# library and the wheel; no thread starts.
BROWSER = """
import importlib.metadata, json, re, sys, threading
from packaging.requirements import Requirement
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell

names, path = json.loads(sys.argv[1])
there = set()
while names:
    name = re.sub("[-_.]+", "-", names.pop()).lower()
    if name not in there:
        there.add(name)
        required = map(Requirement, importlib.metadata.requires(name) or [])
        names += [r.name for r in required if not r.marker or r.marker.evaluate({"extra": ""})]
owners = importlib.metadata.packages_distributions()
owners.pop("confprune_edu", None)

class Blocker:
    def find_spec(self, name, path=None, target=None):
        owned = {re.sub("[-_.]+", "-", owner).lower() for owner in owners.get(name.partition(".")[0], [])}
        if owned and not owned & there:
            raise ModuleNotFoundError(f"{name} is not in the browser", name=name)

def no_thread(self):
    raise RuntimeError("can't start new thread")

HistoryManager.enabled = False
sys.meta_path.insert(0, Blocker())
threading.Thread.start = no_thread
shell = InteractiveShell.instance()
for source in json.load(open(path, encoding="utf-8")):
    shell.run_cell(source).raise_error()
import confprune_edu
print(confprune_edu.__file__)
"""


def in_the_browser(tmp_path, cells):
    """Run cells in such a kernel, on the wheel; the finished process."""
    wheel = lite.make_wheel(PACKAGE, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "cells.json").write_text(json.dumps(cells), encoding="utf-8")
    argument = json.dumps([list(lite.BROWSER), str(tmp_path / "cells.json")])
    own = {"PYTHONPATH": str(tmp_path / "site"), "IPYTHONDIR": str(tmp_path / "ipython"), "CONFPRUNE_STATIC": "1"}
    others = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}  # IPython would look there
    line = [sys.executable, "-c", BROWSER, argument]
    return subprocess.run(line, cwd=tmp_path, env=others | own, capture_output=True, text=True)


@pytest.mark.long
@pytest.mark.parametrize("name", LIGHT)
def test_a_lesson_without_torch_runs_where_only_the_browsers_packages_are(tmp_path, name):
    notebook = notebooks.read_notebook(notebooks.notebooks_folder() / f"{name}.ipynb")
    done = in_the_browser(tmp_path, [cell.source for cell in notebooks.code_cells(notebook)])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == str(tmp_path / "site" / "confprune_edu" / "__init__.py")


@pytest.mark.parametrize("cell", ["import torch", "import safetensors.numpy", "import papermill"])
def test_what_the_browser_lacks_is_blocked(tmp_path, cell):
    done = in_the_browser(tmp_path, [cell])
    assert done.returncode != 0 and "is not in the browser" in done.stderr + done.stdout


def test_the_light_lessons_are_02_to_04():
    assert [name[:2] for name in LIGHT] == ["02", "03", "04"]


def test_a_wheel_lists_its_files(tmp_path):
    with zipfile.ZipFile(lite.make_wheel(PACKAGE, tmp_path)) as archive:
        names = archive.namelist()
        (listed,) = [name for name in names if name.endswith(".dist-info/RECORD")]
        lines = archive.read(listed).decode().splitlines()
        assert [line.split(",")[0] for line in lines] == names
        assert lines[-1] == f"{listed},,"
        assert all(int(line.split(",")[2]) == len(archive.read(line.split(",")[0])) for line in lines[:-1])
        assert not [name for name in names if name.endswith((".safetensors", ".ipynb"))]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3.1e6  # a browser fetches it


@pytest.mark.long
def test_the_folder_holds_the_lessons_the_wheel_and_what_shows_widgets(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "config"))
    assert command.main(["lite", str(tmp_path / "lite")]) == 0
    assert str(tmp_path / "lite") in capsys.readouterr().out
    files = tmp_path / "lite" / "files"
    assert sorted(path.stem for path in files.glob("*.ipynb")) == LIGHT
    for path in files.glob("*.ipynb"):
        cells = notebooks.code_cells(nbformat.read(path, 4))
        assert cells[0].source == lite.INSTALL and not any(cell.outputs for cell in cells)
    index = json.loads((tmp_path / "lite" / "pypi" / "all.json").read_text(encoding="utf-8"))
    ((release,),) = index["confprune-edu"]["releases"].values()
    wheel = tmp_path / "lite" / "pypi" / release["filename"]
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == release["digests"]["sha256"]
    settings = json.loads((tmp_path / "lite" / "jupyter-lite.json").read_text(encoding="utf-8"))
    extensions = {entry["name"] for entry in settings["jupyter-config-data"]["federated_extensions"]}
    assert {"@jupyterlite/pyodide-kernel-extension", "@jupyter-widgets/jupyterlab-manager"} <= extensions


def test_without_jupyterlite_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None if "lite" in name else find_spec(name))
    assert command.main(["lite", str(tmp_path / "lite")]) == 2
    assert "python -m pip install jupyterlite-core jupyterlite-pyodide-kernel" in capsys.readouterr().err
    assert not (tmp_path / "lite").exists()
