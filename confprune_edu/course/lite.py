"""The lessons without torch as a JupyterLite folder: Python runs in the reader's browser, nothing is installed.

The folder can be put on any web server. A browser that opens it fetches Pyodide, which is Python with numpy, scipy and
matplotlib for browsers, and ipywidgets from the network. What is tested here is the folder, and that these lessons run
where nothing else can be imported; that a browser runs them is not, since it needs the network.
"""

import base64
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import nbformat

from confprune_edu import __version__
from confprune_edu.course.notebooks import LESSONS, Refused, copy_lessons, make_output_dir

BROWSER = ("numpy", "scipy", "matplotlib", "pillow", "ipywidgets")  # what a lesson for the browser may import
INSTALL = "%pip install -q confprune_edu"
WHEEL = "Wheel-Version: 1.0\nGenerator: confprune\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def build(folder: Path, out: Path) -> list[str]:
    """Write JupyterLite with the package and the lessons of `folder` that need no torch into `out`; their names.

    Raises
    ------
    Refused
        JupyterLite could not build; its own words follow.
    """
    names = [lesson.name for lesson in LESSONS if not lesson.torch]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        wheel = make_wheel(Path(__file__).resolve().parents[1], place)
        lessons = make_output_dir(place / "lessons", folder)
        for copy in copy_lessons(folder, lessons):
            if copy.stem in names:
                begin_with(copy, INSTALL)
            else:
                copy.unlink()
        where = {"contents": lessons, "lite-dir": place, "output-dir": out.resolve(), "piplite-wheels": wheel}
        options = [f"--{option}={path}" for option, path in where.items()]
        options += [f"--LiteBuildConfig.federated_extensions={path}" for path in extensions()]
        command = [sys.executable, "-m", "jupyterlite_core", "build", "--ignore-sys-prefix", "--apps=lab", *options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=place)  # it leaves a file where it runs
    if done.returncode:
        raise Refused(f"JupyterLite could not build:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return names


def extensions() -> list[Path]:
    """Where the two parts of JupyterLab that the browser needs are installed: its kernel, and what shows widgets."""
    from jupyter_core.paths import jupyter_path

    found = []
    for name in ("@jupyterlite/pyodide-kernel-extension", "@jupyter-widgets/jupyterlab-manager"):
        places = [Path(folder, name) for folder in jupyter_path("labextensions") if Path(folder, name).is_dir()]
        if not places:
            raise Refused(f"JupyterLab's extension {name} is not installed here")
        found.append(places[0])
    return found


def begin_with(path: Path, source: str) -> None:
    """Put a code cell before all others of the notebook at `path`."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(source))
    nbformat.write(notebook, path)


def make_wheel(package: Path, folder: Path) -> Path:
    """A wheel of the package as it is installed, without networks and notebooks, that asks for `BROWSER` only."""
    unwanted = (".safetensors", ".ipynb", ".pyc")
    files = sorted(path for path in package.rglob("*") if path.is_file() and path.suffix not in unwanted)
    named = [(path.relative_to(package.parent).as_posix(), path.read_bytes()) for path in files]
    requires = "".join(f"Requires-Dist: {name}\n" for name in BROWSER)
    about = f"Metadata-Version: 2.1\nName: confprune_edu\nVersion: {__version__}\n{requires}"
    info = f"confprune_edu-{__version__}.dist-info"
    named += [(f"{info}/METADATA", about.encode()), (f"{info}/WHEEL", WHEEL.encode())]
    named += [(f"{info}/RECORD", record(named, f"{info}/RECORD"))]
    wheel = folder / f"confprune_edu-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in named:
            archive.writestr(name, content)
    return wheel


def record(named: Iterable[tuple[str, bytes]], itself: str) -> bytes:
    """The wheel's list of its files: name, checksum and length of each."""
    lines = []
    for name, content in named:
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{itself},,\n"]).encode()
