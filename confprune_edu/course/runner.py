"""Notebooks run side by side, each in a kernel of its own, with its time, memory and failure."""

import asyncio
import os
import re
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confprune_edu.course.notebooks import WIDTH, Refused, code_cells, read_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

NOTEBOOK_MB = 1200  # what a notebook may take
DIED = (  # a kernel that the system ends leaves no message
    "; mostly for want of memory: a lesson takes up to 1.2 GB, `confprune run --jobs 1` runs one at a time, and other "
    "kernels that are open take theirs"
)
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

Kernels = dict[Path, Any]  # the kernel manager of each notebook
Values = Mapping[str, Any]  # of parameters


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


# One kernel


def kernel_environment() -> dict[str, str]:
    """The environment of a kernel: figures stay in the notebook, widgets are drawn once, as plain outputs.

    An MPLBACKEND set for scripts would make `plt.show()` store nothing. Live widgets make nbclient stall now and then
    (jupyter/nbclient#312), and the errors of their callbacks pass unseen. One thread, unless the environment says
    otherwise: for networks as small as the course's, two gain little, and wait long for each other on a busy machine.
    """
    kept = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {"OMP_NUM_THREADS": "1"} | kept | {"CONFPRUNE_STATIC": "1"}


def peak_memory_mb(pid: int | None) -> float | None:
    """The most memory that process `pid` has held resident so far, in MB; None where Linux's /proc does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    high_water = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(high_water[1]) * 1024 / 1e6 if high_water else None


def kernel_manager_class(path: Path, kernels: Kernels) -> type:
    """A class of kernel managers for papermill, for the notebook at `path`.

    A manager gives its kernel the environment, registers itself as `kernels[path]` and, before the kernel ends, keeps
    the peak memory as `peak_mb`.
    """
    from jupyter_client.manager import AsyncKernelManager

    class CourseKernelManager(AsyncKernelManager):
        peak_mb: float | None = None

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            kernels[path] = self
            await super().start_kernel(**options, env=kernel_environment())

        async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:  # type: ignore[override]
            self.peak_mb = peak_memory_mb(getattr(self.provisioner, "pid", None))
            await super().shutdown_kernel(now=now, restart=restart)

    return CourseKernelManager


def kill(kernels: Kernels) -> None:
    """End the processes of all `kernels` at once; those that have ended are left alone."""
    for manager in list(kernels.values()):
        if manager.provisioner is not None:
            asyncio.run(manager.provisioner.kill())


# One notebook


def run_notebook(
    path: Path, output_dir: Path, parameters: Values, *, timeout: int, kernels: Kernels, tick: Callable[[], object]
) -> Outcome:
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
    import nbformat
    import papermill

    target = output_dir.resolve() / path.name
    settings: dict[str, Any] = {
        "kernel_name": "python3",
        "language": "python",
        "progress_bar": False,
        "execution_timeout": timeout,
        "kernel_manager_class": kernel_manager_class(path, kernels),
        # papermill's own `cwd` changes the directory of the whole process, which threads share
        "resources": {"metadata": {"path": str(path.resolve().parent)}},
        # the kernel's own log would cross the bar: unencrypted TCP on this machine, the interrupt before its end
        "extra_arguments": ["--IPKernelApp.log_level=CRITICAL"],
        "on_cell_executed": lambda **_: tick(),
    }
    error: Exception | None = None
    start = time.perf_counter()
    try:
        target.unlink(missing_ok=True)  # what is read below must be this run's
        papermill.execute_notebook(path.resolve(), target, parameters, **settings)
        executed = read_notebook(target)
    except Exception as raised:
        # where nothing can be written, what lies there may be of another run; a cell's time-out is an OSError, too
        blank = isinstance(raised, OSError) and not isinstance(raised, TimeoutError)
        error, executed = raised, nbformat.v4.new_notebook() if blank else partial_copy(target)
    seconds = time.perf_counter() - start
    return Outcome(
        name=path.stem,
        seconds=seconds,
        peak_mb=getattr(kernels.get(path), "peak_mb", None),
        headline=headline(executed),
        failure=cell_failure(executed, error) if error else widget_failure(executed),
    )


def partial_copy(target: Path) -> "NotebookNode":
    """The executed copy of a run that failed; without cells where there is none, or where a full disk cut it off."""
    from nbformat.v4 import new_notebook

    try:
        return read_notebook(target) if target.exists() else new_notebook()
    except Refused:
        return new_notebook()


def headline(executed: "NotebookNode") -> str:
    """What the last cell tagged `headline` prints or shows last, on one line; empty if there is none."""
    tagged = [cell for cell in code_cells(executed) if "headline" in cell.metadata.get("tags", [])]
    if not tagged or not tagged[-1].outputs:
        return ""
    *before, last = tagged[-1].outputs
    if last.output_type == "stream":  # on a busy machine what a cell prints comes in pieces
        return " ".join("".join(output.text for output in [*before, last] if "text" in output).split())
    return " ".join(last.get("data", {}).get("text/plain", "").split())


def cell_failure(executed: "NotebookNode", error: Exception) -> str:
    """Describe the exception that ended a run: an error in a cell, a time-out, a dead kernel.

    The cell is the one that holds an error, else the last that was started.
    """
    first_line = str(error).partition("\n")[0]
    message = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', first_line)}"
    message += DIED if type(error).__name__ == "DeadKernelError" else ""
    cells = code_cells(executed)
    raised = [cell for cell in cells if any(output.output_type == "error" for output in cell.outputs)]
    started = [cell for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    return failure_text(message, executed, *(raised[:1] or started[-1:]))


def widget_failure(executed: "NotebookNode") -> str:
    """Describe the first error of a widget's callback, which neither nbclient nor papermill reports; empty if none."""
    models = executed.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for name, model in models.items():
        for output in model["state"].get("outputs", []):
            if output["output_type"] == "error":
                shown = [cell for cell in code_cells(executed) if name in displayed_models(cell, models)]
                message = f"{output['ename']}: {output['evalue']} (in a widget's callback)"
                return failure_text(message, executed, *shown[:1])
    return ""


def displayed_models(cell: "NotebookNode", models: Mapping[str, Any]) -> list[Any]:
    """The names of the widget models that the outputs of `cell` show, with all that they contain."""
    names = [output.get("data", {}).get(WIDGET_VIEW, {}).get("model_id") for output in cell.outputs]
    for name in names:  # grows as containers are opened
        children = models[name]["state"].get("children", []) if name in models else []
        names += [child.removeprefix("IPY_MODEL_") for child in children]
    return names


def failure_text(message: str, executed: "NotebookNode", cell: "NotebookNode | None" = None) -> str:
    """The lines to print about a failure: error, number of the cell in the executed copy, source of the cell."""
    lines = textwrap.wrap(textwrap.shorten(message, 3 * WIDTH), WIDTH - 2)
    if cell is not None:
        number = cell.execution_count or 1 + code_cells(executed).index(cell)  # a dying kernel may not tell the count
        lines += [f"in cell [{number}]:"]
        lines += [f"| {line}"[: WIDTH - 2] for line in cell.source.splitlines()]
    return textwrap.indent("\n".join(lines), "  ")


# All of them


def run_notebooks(
    assigned: Mapping[Path, Values], output_dir: Path, *, timeout: int = 600, jobs: int = 1
) -> list[Outcome]:
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

    kernels: Kernels = {}
    started: list[Path] = []
    executed: list[Path] = []

    def run(path: Path) -> Outcome:
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


def show_progress(
    futures: Sequence[Future[Outcome]], started: Sequence[Path], executed: Sequence[Path], cells: int
) -> None:
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


def stop(futures: Sequence[Future[Outcome]], kernels: Kernels) -> None:
    """Begin no other notebook and end the kernels of those that run; return when all is quiet."""
    for future in futures:
        future.cancel()
    while wait(futures, timeout=0.2).not_done:
        kill(kernels)  # again and again: a kernel may be starting just now


def summary(outcomes: Sequence[Outcome]) -> str:
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


def cores() -> int:
    """How many cores this process may use: a job's share where the system gives it one, else the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(free_mb: float | None) -> int:
    """How many notebooks to run at once: one a core, while each may take the most that a notebook takes; at least one.

    `free_mb` is the memory that is left; None, where that is not known, gives one.
    """
    return max(1, min(cores(), int((free_mb or 0) // NOTEBOOK_MB)))
