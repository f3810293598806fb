"""Is this machine ready for the course? `confprune doctor` answers in ten seconds.

Each check returns what it found, or raises `Unfit`: what is wrong, and what to do about it. Packages are imported where
a check needs them: on a machine that lacks one, the first check says so.
"""

import platform
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from confprune_edu import memory
from confprune_edu.course import runner
from confprune_edu.course.notebooks import LESSONS, WIDTH

PATIENCE = 60  # seconds for a kernel to start, to answer, to run a cell: a busy machine takes its time
REINSTALL = "mend what this line names, else: python -m pip install -e ."
NEW_KERNEL = "jupyter kernelspec remove -y python3; python -m ipykernel install --sys-prefix"
LESSON = """\
from confprune_edu import models, widgets
models.load("mnist-mlp")
widgets.calibration_explorer()"""


class Unfit(Exception):
    """The machine lacks something: `wrong` says what, `advice` what to do."""

    def __init__(self, wrong: str, advice: str) -> None:
        super().__init__(wrong)
        self.wrong, self.advice = wrong, advice


def versions() -> str:
    """Python, and the packages that confprune_edu requires, in versions that it can use."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        about = metadata.metadata("confprune_edu")
    except metadata.PackageNotFoundError as error:
        raise Unfit("confprune_edu is not installed", "in its folder: python -m pip install -e .") from error
    python = platform.python_version()
    if not SpecifierSet(about["Requires-Python"]).contains(python, prereleases=True):
        raise Unfit(f"Python {python}", f"install Python {about['Requires-Python']}")
    required = [Requirement(line) for line in metadata.requires("confprune_edu") or []]
    wanted = [requirement for requirement in required if not requirement.marker or requirement.marker.evaluate()]
    found = {requirement: version(requirement.name) for requirement in wanted}
    wrong = {r: have for r, have in found.items() if not have or not r.specifier.contains(have, prereleases=True)}
    if wrong:
        lacks = ", ".join(f"{requirement} (here: {have or 'none'})" for requirement, have in wrong.items())
        raise Unfit(f"needs {lacks}", "python -m pip install " + " ".join(f'"{requirement}"' for requirement in wrong))
    return ", ".join([f"Python {python}", *(f"{requirement.name} {have}" for requirement, have in found.items())])


def version(name: str) -> str | None:
    """The installed version of the distribution `name`, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def free_memory() -> str:
    """As much memory as the largest lesson may take."""
    left, most = memory.available_mb(), f"the largest lesson takes up to {runner.NOTEBOOK_MB / 1000:.1f} GB"
    if left is None:
        return f"not known here; {most}"
    if left < runner.NOTEBOOK_MB:
        light = ", ".join(lesson.name[:2] for lesson in LESSONS if not lesson.torch)
        advice = f"close other programs and the kernels of other notebooks; lessons {light} need no torch and take less"
        raise Unfit(f"{left / 1000:.1f} GB left, {most}", advice)
    return f"{left / 1000:.1f} GB left"


def cores() -> str:
    """How many cores this process may use: one is enough."""
    return f"{runner.cores()} (one is enough)"


def writing() -> str:
    """`confprune start` and `run` can leave their copies, kernels can be reached."""
    from jupyter_core.paths import jupyter_runtime_dir

    folders = {
        "this folder": (Path(), "change to a folder of your own, or name one: confprune start DIR"),
        "Jupyter's files": (Path(jupyter_runtime_dir()), "name another: export JUPYTER_RUNTIME_DIR=DIR"),
    }
    wrong, advices = [], []
    for name, (folder, advice) in folders.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            wrong.append(f"{name}: nothing can be written to {folder} ({error.strerror})")
            advices.append(advice)
    if wrong:
        raise Unfit("; ".join(wrong), "; ".join(advices))
    return ", ".join(folders)


def kernel() -> str:
    """The kernel `python3` starts, and it is this Python."""
    from jupyter_client.kernelspec import KernelSpecManager

    where = KernelSpecManager().find_kernel_specs().get("python3")
    if where is None:
        raise Unfit("there is no kernel named python3", "python -m ipykernel install --sys-prefix")
    try:
        prefix = prefix_of_kernel()
    except Exception as error:  # whatever a foreign kernel.json may lead to
        raise Unfit(f"the kernel in {where} does not start: {type(error).__name__}: {error}", NEW_KERNEL) from error
    if prefix != repr(sys.prefix):
        raise Unfit(f"the kernel in {where} belongs to another Python, {prefix}", NEW_KERNEL)
    return f"python3 in {where} starts"


def prefix_of_kernel() -> str:
    """What the kernel `python3` answers when it is asked for its `sys.prefix`."""
    from jupyter_client.manager import start_new_kernel

    silent = {"extra_arguments": ["--IPKernelApp.log_level=CRITICAL"], "stderr": subprocess.DEVNULL}
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=PATIENCE, **silent)
    try:
        question = {"prefix": "__import__('sys').prefix"}
        # with `reply`, the answer to this message: a slow kernel still owes others, to what was asked while it started
        answer = client.execute("", user_expressions=question, silent=True, reply=True, timeout=PATIENCE)
        return answer["content"]["user_expressions"]["prefix"]["data"]["text/plain"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def notebook() -> str:
    """A notebook with torch and a figure executes."""
    import nbformat

    with tempfile.TemporaryDirectory() as name:
        path, target = Path(name) / "lesson.ipynb", Path(name) / "executed"
        target.mkdir()
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LESSON)]), path)
        (outcome,) = runner.run_notebooks({path: {}}, target, timeout=PATIENCE)
        if outcome.failure:
            raise Unfit(" ".join(outcome.failure.split()), REINSTALL)
        outputs = nbformat.read(target / path.name, as_version=4).cells[-1].outputs
        if not any("image/png" in output.get("data", {}) for output in outputs):
            raise Unfit(
                "the notebook ran, but stored no figure", "python -m pip install --upgrade ipykernel matplotlib"
            )
    return f"executed in {outcome.seconds:.1f} s"


CHECKS: dict[str, Callable[[], str]] = {
    "versions": versions,
    "memory": free_memory,
    "cores": cores,
    "write access": writing,
    "kernel": kernel,
    "notebook": notebook,
}


def examine() -> int:
    """Print a line for each check, with what to do where one fails; the number of those that fail."""
    failed = 0
    for name, check in CHECKS.items():
        try:
            report = [line("ok", name, check())]
        except Exception as error:  # also what no check foresaw, a torn package or a full disk: never a traceback
            unforeseen = Unfit(f"{type(error).__name__}: {error}", REINSTALL)
            unfit = error if isinstance(error, Unfit) else unforeseen
            report = [line("FAIL", name, unfit.wrong), line("", "what to do:", unfit.advice)]
            failed += 1
        print(*report, sep="\n")
    print(f"{failed} of {len(CHECKS)} checks failed" if failed else "This machine is ready.")
    return failed


def line(mark: str, name: str, text: str) -> str:
    """A line of the report, wrapped below where its text begins."""
    return textwrap.fill(f"{mark:<6}{name:<14}{text}", WIDTH, subsequent_indent=" " * 20)
