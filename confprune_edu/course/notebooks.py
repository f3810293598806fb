"""The notebooks of the course: which there are, and their parameters."""

import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from nbformat import NotebookNode

WIDTH = 96  # columns of everything that is printed


class Lesson(NamedTuple):
    """One lesson: the name of its notebook, the question that it answers, whether it needs torch."""

    name: str
    question: str
    torch: bool


# The list of lessons. tests/course/test_lessons.py compares with it the notebooks, the tables of lesson 00 and of the
# README, and every link from one lesson to the next.
LESSONS = (
    Lesson("00_start_here", "How many weights can a network lose, and how sure can we be?", torch=True),
    Lesson("01_magnitude_pruning", "Which weights can go?", torch=True),
    Lesson("02_p_values", "When are few errors evidence, and when are they luck?", torch=False),
    Lesson("03_family_wise_error", "Forty models, one promise: how many may be tested before luck wins?", torch=False),
    Lesson("04_fixed_sequence_testing", "Why may every test spend the whole error budget?", torch=False),
    Lesson("05_mnist", "How far can a real digit classifier be pruned, with a guarantee?", torch=True),
    Lesson("06_selective_classification", 'What if the pruned network may say "I do not know"?', torch=True),
    Lesson(
        "07_polypgen_unet", "How far can a UNet be pruned, and for whose patients does the promise hold?", torch=True
    ),
)


class Refused(Exception):
    """The command line asks for something that cannot be done; the message says what, and what could be."""


def notebooks_folder() -> Path:
    """The folder of the course's notebooks: inside an installed package, beside it in a checkout.

    Raises
    ------
    Refused
        Neither folder holds a notebook.
    """
    package = Path(__file__).resolve().parents[1]
    folders = [package / "notebooks", package.parent / "notebooks"]
    for folder in folders:
        if course_notebooks(folder):
            return folder
    raise Refused(f"no notebook found in {folders[0]} or {folders[1]}: is the installation complete?")


def course_notebooks(folder: Path) -> list[Path]:
    """The paths `NN_slug.ipynb` of `folder` in the order of the course; a reader's own notebooks are left out."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def choose(names: Iterable[str], notebooks: list[Path]) -> list[Path]:
    """The notebooks that `names` stand for, each once, in the order of `names`; without names, all of them.

    Parameters
    ----------
    names : list of str
        Full names or prefixes that fit one notebook only, with or without `.ipynb`.
    notebooks : list of Path
        What there is to choose from.

    Raises
    ------
    Refused
        A name fits no notebook, or several.

    >>> course = [Path("04_tests.ipynb"), Path("05_mnist.ipynb"), Path("05_mnist_again.ipynb")]
    >>> [path.stem for path in choose(["05_mnist", "04"], course)]
    ['05_mnist', '04_tests']
    """
    chosen: list[Path] = []
    for name in names:
        stem = name.removesuffix(".ipynb")
        fits = [path for path in notebooks if path.stem.startswith(stem)]
        exact = [path for path in fits if path.stem == stem]
        if len(exact or fits) != 1:
            choices = "".join(f"\n  {path.stem}" for path in fits or notebooks)
            raise Refused(f"{name!r} fits {'several notebooks' if fits else 'no notebook'}; choose from:{choices}")
        chosen += exact or fits
    return list(dict.fromkeys(chosen or notebooks))


def parameter_value(text: str) -> Any:
    """The value of a parameter typed on the command line, as papermill reads it; lists and mappings are YAML.

    >>> [parameter_value(text) for text in ["0.05", "1e-3", "20", "True", "None", "tight", "[0.1, 0.2]"]]
    [0.05, 0.001, 20, True, None, 'tight', [0.1, 0.2]]
    """
    import yaml
    from papermill.cli import _resolve_type
    from papermill.iorw import NoDatesSafeLoader

    try:
        value = yaml.load(text, Loader=NoDatesSafeLoader) if text.startswith(("[", "{")) else _resolve_type(text)
        json.dumps(value, allow_nan=False)  # the executed copy keeps it, as JSON
    except yaml.YAMLError as error:
        raise Refused(f"parameter value {text!r} is not valid YAML: {error}") from error
    except (ValueError, TypeError) as error:
        raise Refused(f"parameter value {text!r} must be a finite number, text, or a list of such: {error}") from error
    return value


def assign(parameters: Mapping[str, Any], notebooks: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """Give each notebook those of the parameters that it has: a dict of path to dict.

    Raises
    ------
    Refused
        A parameter that none of the notebooks has (papermill itself would only warn and run with the default).
    """
    from papermill import inspect_notebook

    known = {path: set(inspect_notebook(path)) if parameters else set() for path in notebooks}
    everywhere = sorted({name for names in known.values() for name in names})
    for name in parameters:
        if name not in everywhere:
            raise Refused(f"no chosen notebook has a parameter {name!r}; they have: {', '.join(everywhere) or 'none'}")
    return {path: {k: v for k, v in parameters.items() if k in names} for path, names in known.items()}


def read_notebook(path: Path) -> "NotebookNode":
    """The notebook at `path` in the current format.

    Raises
    ------
    Refused
        The file is not a notebook.
    """
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise Refused(f"{path} is not a notebook: {error}") from error


def code_cells(notebook: "NotebookNode") -> "list[NotebookNode]":
    """The cells of `notebook` that hold code to run, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def title_and_run_time(notebook: "NotebookNode") -> tuple[str, str]:
    """The first heading of `notebook` and the run time that it states; an empty string for what is missing."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    title = re.search(r"^#+ +(.+)$", text, re.MULTILINE)
    run_time = re.search(r"run time:\W*([^\n|;,·]+)", text, re.IGNORECASE)
    return title[1].strip() if title else "", run_time[1].split(". ")[0].strip(" .*") if run_time else ""


def listing(path: Path) -> str:
    """The entry of one notebook in `confprune list`: name, title, run time, then a line for each parameter."""
    from papermill import inspect_notebook

    title, run_time = title_and_run_time(read_notebook(path))
    lines = [f"{path.stem}  {title}"]
    if run_time:
        lines += [f"    run time: {run_time}"]
    for name, parameter in inspect_notebook(path).items():
        kind = parameter["inferred_type_name"].replace("None", "any type")
        definition = f"{name}: {kind} = {parameter['default']}"
        lines += [f"    {definition:<30}  {parameter['help']}".rstrip()]
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent=" " * 8) for line in lines)


def make_output_dir(output_dir: Path, folder: Path) -> Path:
    """Make the folder for the executed copies, unless it is `folder`: the course's own notebooks are never changed."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{output_dir} cannot be made: {error.strerror}") from error
    if output_dir.samefile(folder):
        raise Refused(f"{output_dir} is the notebooks' own folder; choose another")
    return output_dir
