"""The notebooks of the course: which there are, and their parameters."""

import json
import operator
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
    Lesson("08_which_weights", "Which weights, really?", torch=True),
    Lesson("09_sensitivity", "How sensitive is the answer to alpha and to delta?", torch=True),
    Lesson("10_certificate_or_validation", "A certificate, or a validation set?", torch=True),
    Lesson("11_when_the_world_shifts", "What is left of a certificate when the world shifts?", torch=True),
    Lesson("12_your_own_model", "How do you certify a network of your own, so that others can check it?", torch=True),
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
        raise Refused(f"parameter value {text!r:.99} is not valid YAML: {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused(
            f"parameter value {text!r:.99} must be a finite number, text, or a list of such: {error}"
        ) from error
    return value


def assign(parameters: Mapping[str, Any], notebooks: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """Give each notebook those of the parameters that it has: a dict of path to dict.

    Raises
    ------
    Refused
        A parameter that none of the notebooks has (papermill itself would only warn and run with the default), or a
        value that a notebook does not take, see `check_value`.
    """
    from papermill import inspect_notebook

    known = {path: inspect_notebook(path) if parameters else {} for path in notebooks}
    everywhere = sorted({name for entries in known.values() for name in entries})
    for name in parameters:
        if name not in everywhere:
            raise Refused(f"no chosen notebook has a parameter {name!r}; they have: {', '.join(everywhere) or 'none'}")
    assigned = {path: {k: v for k, v in parameters.items() if k in entries} for path, entries in known.items()}
    for path, values in assigned.items():
        for name, value in values.items():
            check_value(path.stem, known[path][name], value)
    return assigned


TYPES: dict[str, tuple[type, ...]] = {"float": (float, int), "int": (int,), "str": (str,), "bool": (bool,)}
LIMITS = {"above": operator.gt, "at least": operator.ge, "below": operator.lt, "at most": operator.le}


def check_value(notebook: str, parameter: Mapping[str, str], value: Any) -> None:
    """Refuse a value that is not of the parameter's type, or not what the comment beside it says that it may be.

    Parameters
    ----------
    notebook : str
        The notebook's name, for the message.
    parameter : mapping
        What papermill found: `name`, `inferred_type_name`, and `help`, the comment. Of a comment the words "above",
        "at least", "below" and "at most" before a number are read, and a list after "one of", see `choices`.
    value
        As `parameter_value` gives it.

    >>> alpha = {"name": "alpha", "inferred_type_name": "float", "help": "tolerated risk; above 0, below 1"}
    >>> check_value("05_mnist", alpha, 0.05)
    >>> check_value("05_mnist", alpha, 5)
    Traceback (most recent call last):
    confprune_edu.course.notebooks.Refused: 05_mnist: alpha must be above 0, below 1; got 5
    """
    kind, comment = parameter["inferred_type_name"], parameter["help"]
    options = choices(comment)
    limits = re.findall(rf"({'|'.join(LIMITS)}) (\d[\d,]*(?:\.\d+)?)", comment)
    if kind in TYPES and type(value) not in TYPES[kind]:
        wanted = f"of type {kind}"
    elif options and value not in options:
        wanted = f"one of {', '.join(options)}"
    elif not all(LIMITS[word](value, float(number.replace(",", ""))) for word, number in limits):
        wanted = ", ".join(f"{word} {number.rstrip(',')}" for word, number in limits)
    else:
        return
    raise Refused(f"{notebook}: {parameter['name']} must be {wanted}; got {value!r}")


def choices(comment: str) -> list[str]:
    """The names that stand after "one of" in the comment on a parameter, or in the table of `data` named there.

    >>> choices("one of mnist-mlp, path; the rule"), choices("tolerated risk"), choices("one of data.POLYP_LOSSES")[:2]
    (['mnist-mlp', 'path'], [], ['one_minus_iou', 'one_minus_dice'])
    """
    found = re.search(r"one of (?:data\.(\w+)|([\w-]+(?:, [\w-]+)*))", comment)
    if found and found[1]:
        from confprune_edu import data

        return list(getattr(data, found[1]))
    return found[2].split(", ") if found else []


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
        comment = re.sub(r"data\.\w+", ", ".join(choices(parameter["help"])), parameter["help"])
        lines += [f"    {definition:<30}  {comment}".rstrip()]
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent=" " * 8) for line in lines)


def make_output_dir(output_dir: Path, folder: Path) -> Path:
    """Make the folder for copies, unless it is `folder`: the course's own notebooks are never changed."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{output_dir} cannot be made: {error.strerror}") from error
    if output_dir.samefile(folder):
        raise Refused(f"{output_dir} is the notebooks' own folder; choose another")
    return output_dir


def copy_lessons(folder: Path, copies: Path) -> list[Path]:
    """Copy the notebooks of `folder` that `copies` lacks, without outputs; the paths of the new ones.

    A copy that is there is the reader's own, and stays as it is.
    """
    import nbformat

    missing = {path: copies / path.name for path in course_notebooks(folder) if not (copies / path.name).exists()}
    for path, copy in missing.items():
        notebook = read_notebook(path)
        for cell in code_cells(notebook):
            cell.outputs, cell.execution_count = [], None
        beside = copy.with_suffix(".part")  # a part of a lesson would count as the reader's own
        nbformat.write(notebook, beside)
        beside.replace(copy)
    return list(missing.values())
