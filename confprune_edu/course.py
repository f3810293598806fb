"""The `confprune` command: list the course's notebooks, run them, open them in JupyterLab.

    confprune list
    confprune run 05 -p alpha 0.05
    confprune lab
    confprune html --out site
    confprune doctor

Nothing imports this module. It imports papermill where notebooks are read, so that `confprune --help` answers at once.
"""

import argparse
import asyncio
import importlib.util
import logging
import os
import re
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from confprune_edu import __version__
from confprune_edu.memory import available_mb

WIDTH = 96  # columns of everything that is printed
NOTEBOOK_MB = 1200  # what a notebook may take
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Refused(Exception):
    """The command line asks for something that cannot be done; the message says what, and what could be."""


@dataclass(frozen=True)
class Outcome:
    """What one notebook's run came to.

    Attributes
    ----------
    name : str
        The notebook's name without `.ipynb`.
    seconds : float
        Wall-clock time, start and end of the kernel included.
    peak_mb : float or None
        The most memory that the kernel's process held resident, in MB of 10**6 bytes; None where it is not known.
    headline : str
        The text of the cell tagged `headline`; empty without one.
    failure : str
        Cell, error and source, ready to print; empty when the notebook ran to its end.
    """

    name: str
    seconds: float
    peak_mb: float | None
    headline: str
    failure: str


# The notebooks and their parameters


def notebooks_folder():
    """The folder of the course's notebooks: inside an installed package, beside it in a checkout.

    Raises
    ------
    Refused
        Neither folder holds a notebook.
    """
    package = Path(__file__).resolve().parent
    folders = [package / "notebooks", package.parent / "notebooks"]
    for folder in folders:
        if course_notebooks(folder):
            return folder
    raise Refused(f"no notebook found in {folders[0]} or {folders[1]}: is the installation complete?")


def course_notebooks(folder):
    """The paths `NN_slug.ipynb` of `folder` in the order of the course; a reader's own notebooks are left out."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def choose(names, notebooks):
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
    chosen = []
    for name in names:
        stem = name.removesuffix(".ipynb")
        fits = [path for path in notebooks if path.stem.startswith(stem)]
        exact = [path for path in fits if path.stem == stem]
        if len(exact or fits) != 1:
            choices = "".join(f"\n  {path.stem}" for path in fits or notebooks)
            raise Refused(f"{name!r} fits {'several notebooks' if fits else 'no notebook'}; choose from:{choices}")
        chosen += exact or fits
    return list(dict.fromkeys(chosen or notebooks))


def parameter_value(text):
    """The value of a parameter typed on the command line, as papermill reads it; lists and mappings are YAML.

    >>> [parameter_value(text) for text in ["0.05", "1e-3", "20", "True", "None", "tight", "[0.1, 0.2]"]]
    [0.05, 0.001, 20, True, None, 'tight', [0.1, 0.2]]
    """
    import yaml
    from papermill.cli import _resolve_type
    from papermill.iorw import NoDatesSafeLoader

    if not text.startswith(("[", "{")):
        return _resolve_type(text)
    try:
        return yaml.load(text, Loader=NoDatesSafeLoader)
    except yaml.YAMLError as error:
        raise Refused(f"parameter value {text!r} is not valid YAML: {error}") from error


def assign(parameters, notebooks):
    """Give each notebook those of the parameters that it has: a dict of path to dict.

    Raises
    ------
    Refused
        A parameter that none of the notebooks has (papermill itself would only warn and run with the default).
    """
    from papermill import inspect_notebook

    known = {path: inspect_notebook(path) if parameters else {} for path in notebooks}
    everywhere = sorted({name for names in known.values() for name in names})
    for name in parameters:
        if name not in everywhere:
            raise Refused(f"no chosen notebook has a parameter {name!r}; they have: {', '.join(everywhere) or 'none'}")
    return {path: {k: v for k, v in parameters.items() if k in known[path]} for path in notebooks}


def read_notebook(path):
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


def code_cells(notebook):
    """The cells of `notebook` that hold code to run, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def title_and_run_time(notebook):
    """The first heading of `notebook` and the run time that it states; an empty string for what is missing."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    title = re.search(r"^#+ +(.+)$", text, re.MULTILINE)
    run_time = re.search(r"run time:\W*([^\n|;,·]+)", text, re.IGNORECASE)
    return title[1].strip() if title else "", run_time[1].split(". ")[0].strip(" .*") if run_time else ""


# One kernel


def kernel_environment():
    """The environment of a kernel: figures stay in the notebook, widgets are drawn once, as plain outputs.

    An MPLBACKEND set for scripts would make `plt.show()` store nothing. Live widgets make nbclient stall now and then
    (jupyter/nbclient#312), and the errors of their callbacks pass unseen. One thread, unless the environment says
    otherwise: for networks as small as the course's, two gain little, and wait long for each other on a busy machine.
    """
    kept = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {"OMP_NUM_THREADS": "1"} | kept | {"CONFPRUNE_STATIC": "1"}


def peak_memory_mb(pid):
    """The most memory that process `pid` has held resident so far, in MB; None where Linux's /proc does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    high_water = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(high_water[1]) * 1024 / 1e6 if high_water else None


def kernel_manager_class(path, kernels):
    """A kernel manager class for the notebook at `path`, to be handed to papermill.

    It gives the kernel its environment, registers itself as `kernels[path]` and, before the kernel ends, keeps the
    peak memory as `peak_mb`.
    """
    from jupyter_client.manager import AsyncKernelManager

    class CourseKernelManager(AsyncKernelManager):
        peak_mb: float | None = None

        async def start_kernel(self, **options):  # type: ignore[override]
            kernels[path] = self
            await super().start_kernel(**options, env=kernel_environment())

        async def shutdown_kernel(self, now=False, restart=False):  # type: ignore[override]
            self.peak_mb = peak_memory_mb(getattr(self.provisioner, "pid", None))
            await super().shutdown_kernel(now=now, restart=restart)

    return CourseKernelManager


def kill(kernels):
    """End the processes of all `kernels` at once; those that have ended are left alone."""
    for manager in list(kernels.values()):
        if manager.provisioner is not None:
            asyncio.run(manager.provisioner.kill())


# One notebook


def run_notebook(path, output_dir, parameters, *, timeout, kernels, tick):
    """Run the notebook at `path` in its own folder and leave the executed copy in `output_dir`.

    Parameters
    ----------
    path : Path
        The notebook, which is only read.
    output_dir : Path
        An existing folder.
    parameters : dict
        Values for its `parameters` cell.
    timeout : int
        Seconds that one cell may take.
    kernels : dict
        Filled with the kernel manager, under `path`.
    tick : callable
        Called after each code cell.

    Returns
    -------
    Outcome; a notebook that fails is an outcome too, not an exception.
    """
    target = output_dir.resolve() / path.name
    target.unlink(missing_ok=True)  # what is read below must be this run's
    error = None
    start = time.perf_counter()
    try:
        execute(path.resolve(), target, parameters, timeout, kernel_manager_class(path, kernels), tick)
    except Exception as raised:
        error = raised
    seconds = time.perf_counter() - start
    executed = read_notebook(target) if target.exists() else None
    return Outcome(
        name=path.stem,
        seconds=seconds,
        peak_mb=getattr(kernels.get(path), "peak_mb", None),
        headline=headline(executed) if executed else "",
        failure=cell_failure(executed, error) if error else widget_failure(executed),
    )


def execute(path, target, parameters, timeout, manager_class, tick):
    """Have papermill run `path` into `target`, both absolute, with settings that hold for every notebook."""
    import papermill

    papermill.execute_notebook(
        path,
        target,
        parameters,
        kernel_name="python3",
        language="python",
        progress_bar=False,
        execution_timeout=timeout,
        kernel_manager_class=manager_class,
        # papermill's own `cwd` changes the directory of the whole process, which threads share
        resources={"metadata": {"path": str(path.parent)}},
        # the kernel's own log would cross the bar: unencrypted TCP on this machine, the interrupt before its end
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        on_cell_executed=lambda **_: tick(),
    )


def headline(executed):
    """The text of the last output of the last cell tagged `headline`, on one line; empty if there is none."""
    tagged = [cell for cell in code_cells(executed) if "headline" in cell.metadata.get("tags", [])]
    if not tagged or not tagged[-1].outputs:
        return ""
    output = tagged[-1].outputs[-1]
    return " ".join(output.get("text", output.get("data", {}).get("text/plain", "")).split())


def cell_failure(executed, error):
    """Describe the exception that ended a run: an error in a cell, a time-out, a dead kernel.

    The cell is the one that holds an error, else the last that was started.
    """
    if hasattr(error, "ename"):
        message = f"{error.ename}: {error.evalue}"
    else:
        message = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    cells = code_cells(executed) if executed else []
    raised = [cell for cell in cells if any(output.output_type == "error" for output in cell.outputs)]
    started = [cell for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    return failure_text(message, executed, *(raised[:1] or started[-1:]))


def widget_failure(executed):
    """Describe the first error of a widget's callback, which neither nbclient nor papermill reports; empty if none."""
    models = executed.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for name, model in models.items():
        for output in model["state"].get("outputs", []):
            if output["output_type"] == "error":
                shown = [cell for cell in code_cells(executed) if name in displayed_models(cell, models)]
                message = f"{output['ename']}: {output['evalue']} (in a widget's callback)"
                return failure_text(message, executed, *shown[:1])
    return ""


def displayed_models(cell, models):
    """The names of the widget models that the outputs of `cell` show, with all that they contain."""
    names = [output.get("data", {}).get(WIDGET_VIEW, {}).get("model_id") for output in cell.outputs]
    for name in names:  # grows as containers are opened
        children = models[name]["state"].get("children", []) if name in models else []
        names += [child.removeprefix("IPY_MODEL_") for child in children]
    return names


def failure_text(message, executed, cell=None):
    """The lines to print about a failure: error, number of the cell in the executed copy, source of the cell."""
    lines = textwrap.wrap(textwrap.shorten(message, 3 * WIDTH), WIDTH - 2)
    if cell is not None:
        number = cell.execution_count or 1 + code_cells(executed).index(cell)  # a dying kernel may not tell the count
        lines += [f"in cell [{number}]:"]
        lines += [f"| {line}"[: WIDTH - 2] for line in cell.source.splitlines()]
    return textwrap.indent("\n".join(lines), "  ")


# All of them


def run_notebooks(assigned, output_dir, *, timeout=600, jobs=1):
    """Execute notebooks, `jobs` at a time, under one progress bar.

    Parameters
    ----------
    assigned : dict of Path to dict
        The parameters of each notebook.
    output_dir : Path
        An existing folder for the executed copies.
    timeout : int
        Seconds that one cell may take.
    jobs : int, jobs >= 1
        Notebooks run side by side, each with its own kernel.

    Returns
    -------
    list of Outcome, in the order of `assigned`. An interrupt ends the kernels first, then is passed on.
    """
    from jupyter_core.utils import ensure_event_loop

    kernels: dict = {}
    started: list = []
    executed: list = []

    def run(path):
        started.append(path)
        with closing(ensure_event_loop()):  # nbclient leaves the loop of this thread open
            tick = partial(executed.append, path)
            return run_notebook(path, output_dir, assigned[path], timeout=timeout, kernels=kernels, tick=tick)

    cells = sum(len(code_cells(read_notebook(path))) + bool(values) for path, values in assigned.items())
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run, path) for path in assigned]
        try:
            show_progress(futures, started, executed, cells)
        except BaseException:  # Ctrl-C, or nobody reads the bar any more
            stop(futures, kernels)
            raise
    return [future.result() for future in futures]


def show_progress(futures, started, executed, cells):
    """Draw one bar until all `futures` are done: `executed` has an entry for each of the `cells` that was run.

    Only this thread draws. An interrupted tqdm keeps its lock, on which other threads, its monitor too, would wait.
    """
    from tqdm import tqdm

    tqdm.monitor_interval = 0
    with tqdm(total=cells, unit="cell") as bar:
        while wait(futures, timeout=0.5).not_done:
            bar.n = len(executed)
            bar.set_description(started[-1].stem if started else None)
        bar.n = len(executed)


def stop(futures, kernels):
    """Begin no other notebook and end the kernels of those that run; return when all is quiet."""
    for future in futures:
        future.cancel()
    while wait(futures, timeout=0.2).not_done:
        kill(kernels)  # again and again: a kernel may be starting just now


def summary(outcomes):
    """The table of a run, then the failures, as text.

    >>> print(summary([Outcome("05_mnist", 12.34, 410.2, "certified: 62 % of the weights", "")]))
    notebook   seconds   peak MB  headline
    05_mnist      12.3       410  certified: 62 % of the weights
    """
    width = max(8, *(len(outcome.name) for outcome in outcomes))
    lines = [f"{'notebook':{width}}  {'seconds':>8}  {'peak MB':>8}  headline"]
    for outcome in outcomes:
        peak = "n/a" if outcome.peak_mb is None else f"{outcome.peak_mb:.0f}"
        start = f"{outcome.name:{width}}  {outcome.seconds:8.1f}  {peak:>8}  "
        last = "FAILED" if outcome.failure else outcome.headline
        wrapped = textwrap.fill(last, WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
        lines += [wrapped or start.rstrip()]
    for outcome in outcomes:
        if outcome.failure:
            lines += ["", f"FAILED {outcome.name}", outcome.failure]
    return "\n".join(lines)


def listing(path):
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


def lab_command(folder, port=None, extra=()):
    """The command line that opens JupyterLab on `folder`, on this machine only, its token left on.

    >>> lab_command(Path("notebooks"), port=8890, extra=["--no-browser"])[1:]
    ['-m', 'jupyterlab', '--ServerApp.root_dir=notebooks', '--ServerApp.ip=127.0.0.1', '--ServerApp.port=8890',
     '--no-browser']
    """
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}", "--ServerApp.ip=127.0.0.1"]
    return command + ([] if port is None else [f"--ServerApp.port={port}"]) + list(extra)


# The command line


def list_command(arguments):
    """`confprune list`: print every notebook."""
    print("\n".join(listing(path) for path in course_notebooks(notebooks_folder())))
    return 0


def run_command(arguments):
    """`confprune run`: refuse what cannot be done, run, print the table; 1 if a notebook failed."""
    folder = notebooks_folder()
    chosen = choose(arguments.names, course_notebooks(folder))
    assigned = assign({name: parameter_value(text) for name, text in arguments.parameters}, chosen)
    output_dir = make_output_dir(arguments.output_dir, folder)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # it reports failures a second time, across the bar
    jobs = side_by_side(available_mb()) if arguments.jobs is None else arguments.jobs
    outcomes = run_notebooks(assigned, output_dir, timeout=arguments.timeout, jobs=jobs)
    print(summary(outcomes))
    return int(any(outcome.failure for outcome in outcomes))


def side_by_side(free_mb):
    """How many notebooks to run at once: one a core, while each may take the most that a notebook takes; at least one.

    `free_mb` is the memory that is left; None, where that is not known, gives one.
    """
    return max(1, min(os.cpu_count() or 1, int((free_mb or 0) // NOTEBOOK_MB)))


def make_output_dir(output_dir, folder):
    """Make the folder for the executed copies, unless it is `folder`: the course's own notebooks are never changed."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{output_dir} cannot be made: {error.strerror}") from error
    if output_dir.samefile(folder):
        raise Refused(f"{output_dir} is the notebooks' own folder; choose another")
    return output_dir


def lab(arguments):
    """`confprune lab`: become JupyterLab."""
    return become(lab_command(notebooks_folder(), arguments.port, arguments.extra))


def become(command):
    """Replace this process by `command`, so that Ctrl-C and signals reach it directly."""
    if sys.platform == "win32":  # exec on Windows splits paths at their spaces and gives the prompt back at once
        return subprocess.call(command)
    os.execv(command[0], command)


def bench(arguments):
    """`confprune bench`."""
    from confprune_edu import benchmark

    chart = [] if arguments.chart is None else ["--chart", arguments.chart]
    return benchmark.main(["--quick"] * arguments.quick + chart)


def doctor_command(arguments):
    """`confprune doctor`: 1 if this machine is not ready."""
    from confprune_edu import doctor

    return int(doctor.examine() > 0)


def html_command(arguments):
    """`confprune html`: write the static site and say where it begins."""
    from confprune_edu import site

    folder = arguments.source or notebooks_folder()
    if not course_notebooks(folder):
        raise Refused(f"no notebook found in {folder}")
    index, *pages = site.build(folder, make_output_dir(arguments.out, folder))
    print(f"{len(pages)} pages; the course begins at {index}")
    return 0


def app_command(folder, port=None, extra=()):
    """The command line that serves the calibration explorer alone, without code, on this machine only.

    >>> app_command(Path("confprune_edu"), port=8866)[1:]
    ['-m', 'voila', 'confprune_edu/app.ipynb', '--Voila.ip=127.0.0.1', '--port=8866']
    """
    command = [sys.executable, "-m", "voila", str(folder / "app.ipynb"), "--Voila.ip=127.0.0.1"]
    return command + ([] if port is None else [f"--port={port}"]) + list(extra)


def app(arguments):
    """`confprune app`: become voila."""
    if importlib.util.find_spec("voila") is None:
        raise Refused('the dashboard needs voila: python -m pip install "voila>=0.5"')
    return become(app_command(Path(__file__).resolve().parent, arguments.port, arguments.extra))


def positive(text):
    """An int of at least 1, for argparse."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def build_parser():
    """The parser of the whole command line; each subcommand sets `command`, a function of the arguments."""
    parser = argparse.ArgumentParser(
        prog="confprune", description="The notebooks on confident pruning: list them, run them, open them."
    )
    parser.add_argument("--version", action="version", version=f"confprune {__version__}")
    commands = parser.add_subparsers(title="commands")
    listed = commands.add_parser("list", help="the notebooks, their run times and their parameters")
    listed.set_defaults(command=list_command)
    run = commands.add_parser("run", help="execute notebooks; the originals stay as they are")
    run.set_defaults(command=run_command)
    add = run.add_argument
    add("names", nargs="*", metavar="NAME", help="a notebook or the start of its name, such as 05; default: all")
    add("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="set a parameter")
    add("--output-dir", type=Path, default=Path("executed"), help="folder of the executed copies (%(default)s)")
    add("--jobs", type=positive, metavar="N", help="notebooks run side by side (one a core, while memory allows)")
    add("--timeout", type=positive, default=600, metavar="S", help="seconds that one cell may take (%(default)s)")
    measured = commands.add_parser("bench", help="how fast a loss table is here, against the usual ways")
    measured.set_defaults(command=bench)
    measured.add_argument("--quick", action="store_true", help="small sizes, one round: does it work?")
    measured.add_argument("--chart", metavar="FILE", help="PNG file to draw the tables into")
    doors = {"lab": (lab, "open JupyterLab on the notebooks"), "app": (app, "one explorer as a web page, with voila")}
    for name, (command, what) in doors.items():
        opened = commands.add_parser(name, help=what)
        opened.set_defaults(command=command)
        opened.add_argument("--port", type=int, help="port on 127.0.0.1; 0: any free one")
        opened.add_argument("extra", nargs="*", metavar="-- OPTION", help="options handed on")
    site = commands.add_parser("html", help="write the executed course as a static site, with slides")
    site.set_defaults(command=html_command)
    site.add_argument("--out", type=Path, default=Path("site"), metavar="DIR", help="folder of the site (%(default)s)")
    site.add_argument("--source", type=Path, metavar="DIR", help="folder of executed notebooks; default: as shipped")
    ready = commands.add_parser("doctor", help="is this machine ready for the course?")
    ready.set_defaults(command=doctor_command)
    return parser


def main(argv=None):
    """Run the `confprune` command.

    Returns
    -------
    int, the exit code: 0 all is well, 1 a notebook failed, 2 refused before anything ran, 130 interrupted.
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if "command" not in arguments:
        parser.print_help()
        return 0
    try:
        return arguments.command(arguments)
    except Refused as refusal:
        print(f"confprune: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("confprune: interrupted; the kernels have ended", file=sys.stderr)
        return 130
