"""The `confprune` command, on small notebooks made here."""

import ast
import errno
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from confprune_edu import __version__, data, pvalues
from confprune_edu.course import command, notebooks, runner
from confprune_edu.selective import procedures

PYTHON = {"kernelspec": {"name": "elsewhere", "display_name": "Elsewhere", "language": "python"}}


def code(source, *tags):
    return new_code_cell(source, metadata={"tags": list(tags)})


def write(folder, name, *cells):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=list(cells), metadata=PYTHON), path)
    return path


def printed(path):
    """All that the code cells of an executed notebook wrote to stdout."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return "".join(o.text for cell in cells for o in cell.outputs if o.get("name") == "stdout")


def rows(table):
    """The table of a run: name -> (seconds, peak MB, last column), as text."""
    return {r[1]: r.groups()[1:] for r in re.finditer(r"^(\d\d_\w+) +([\d.]+) +(\S+) *(.*)$", table, re.MULTILINE)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty notebooks' folder, which the command takes for the course's."""
    monkeypatch.setattr(notebooks, "notebooks_folder", lambda: tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "notebooks"


# One run of seven notebooks, looked at from all sides


PARAMETERS = """\
alpha: float = 0.1  # tolerated risk
n: int = 100  # examples
grid: list = [0.5]
name: str = "tight"
loud: bool = False
seed: int = 1"""
SETTINGS = {"alpha": "5e-2", "n": "7", "grid": "[0.1, 0.2]", "loud": "True", "seed": "3", "name": "exact"}
INTERACT = """\
import ipywidgets
@ipywidgets.interact(a=(0, 3))
def draw(a=1):
    raise ValueError("callback broke")"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """`confprune run` on a course in which much goes wrong, with MPLBACKEND=Agg in the environment."""
    root = tmp_path_factory.mktemp("course")
    folder, output_dir = root / "notebooks", root / "executed"
    shown = code("print((alpha, n, grid, name, loud, seed))", "headline")
    write(folder, "01_ok", code(PARAMETERS, "parameters"), shown)
    write(folder, "02_fails", code("x = 1"), code("y = 2\nx / 0"), code("print('not reached')"))
    write(folder, "03_figure", code("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"))
    write(folder, "04_widget", code(INTERACT), code("print('goes on')"))
    small = "import os, time\ntime.sleep(1)\nprint(os.getcwd(), os.environ['CONFPRUNE_STATIC'])"
    write(folder, "05_small", code(small))
    write(folder, "06_big", code("print('first')\nblock = bytearray(300_000_000)\ndel block\n6 * 7", "headline"))
    write(folder, "07_dies", code("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    where, out, start = os.getcwd(), StringIO(), time.perf_counter()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setattr(notebooks, "notebooks_folder", lambda: folder)
        patch.setenv("MPLBACKEND", "Agg")
        options = ["--jobs", "2", "--timeout", "120", "--output-dir", str(output_dir)]
        exit_code = command.main(["run", *options, *(word for pair in SETTINGS.items() for word in ("-p", *pair))])
        assert os.getcwd() == where
    return SimpleNamespace(
        exit_code=exit_code,
        seconds=time.perf_counter() - start,
        text=out.getvalue(),
        rows=rows(out.getvalue()),
        folder=folder,
        out=output_dir,
        before=before,
    )


def test_run_reports_every_notebook_and_exits_1(whole):
    assert whole.exit_code == 1
    assert list(whole.rows) == [name.removesuffix(".ipynb") for name in sorted(whole.before)]
    failed = {name for name, row in whole.rows.items() if row[2] == "FAILED"}
    assert failed == {"02_fails", "04_widget", "07_dies"}
    assert max(map(len, whole.text.splitlines()[:-1])) <= 100


def test_run_says_where_the_copies_are(whole):
    assert whole.text.endswith(f"\n\nThe executed copies are in {whole.out.resolve()}\n")


def test_run_leaves_the_sources_byte_identical(whole):
    assert {path.name: path.read_bytes() for path in whole.folder.iterdir()} == whole.before


def test_run_shows_the_failing_cell(whole):
    assert "FAILED 02_fails\n  ZeroDivisionError: division by zero\n  in cell [2]:\n  | y = 2\n" in whole.text
    assert "not reached" not in printed(whole.out / "02_fails.ipynb")


def test_run_finds_errors_in_widget_callbacks(whole):
    assert "FAILED 04_widget\n  ValueError: callback broke (in a widget's callback)\n  in cell [1]:\n" in whole.text
    assert "  | @ipywidgets.interact(a=(0, 3))\n" in whole.text
    assert printed(whole.out / "04_widget.ipynb") == "goes on\n"


def test_run_names_the_cell_in_which_a_kernel_died(whole):
    failed = whole.text.partition("FAILED 07_dies\n")[2]
    assert failed.startswith("  DeadKernelError: Kernel died; mostly for want of memory: a lesson takes up to 1.2 GB")
    assert "in cell [1]:\n  | import os, signal\n" in failed
    assert whole.rows["07_dies"][1] == "n/a"


def test_run_passes_typed_parameters_and_shows_the_headline(whole):
    assert whole.rows["01_ok"][2] == "(0.05, 7, [0.1, 0.2], 'exact', True, 3)"


def test_headline_is_empty_without_the_tag_and_the_last_output_with_it(whole):
    assert whole.rows["03_figure"][2] == ""
    assert whole.rows["06_big"][2] == "42"


def test_a_headline_that_came_in_pieces_is_put_together():
    cell = code("print()", "headline")
    cell.outputs = [new_output("stream", name="stdout", text=text) for text in ("0.68 certified", "\n", "of all", "\n")]
    assert runner.headline(new_notebook(cells=[cell])) == "0.68 certified of all"


def test_run_stores_figures_whatever_mplbackend_says(whole):
    outputs = nbformat.read(whole.out / "03_figure.ipynb", 4).cells[0].outputs
    assert ["image/png" in output.get("data", {}) for output in outputs].count(True) == 1


def test_kernels_work_in_the_notebooks_folder_with_static_widgets(whole):
    assert printed(whole.out / "05_small.ipynb") == f"{whole.folder} 1\n"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_is_the_kernels_own(whole):
    small, big = (float(whole.rows[name][1]) for name in ("05_small", "06_big"))
    assert 20 < small < 200  # a bare kernel; megabytes, not kilobytes
    assert 280 < big - small < 350  # 300 MB; the bare kernel's own peak differs by a few MB from run to run


def test_seconds_are_those_of_the_notebook(whole):
    seconds = [float(row[0]) for row in whole.rows.values()]
    assert float(whole.rows["05_small"][0]) > 1
    assert max(seconds) < whole.seconds < sum(seconds)  # two at a time


def test_a_long_headline_is_shown_whole_within_the_columns():
    headline = "certified: " + "0.5 " * 40
    table = runner.summary([runner.Outcome("05_mnist", 1.0, None, headline, "")])
    assert " ".join(table.split()).endswith(f"05_mnist 1.0 n/a {headline.strip()}")
    assert max(map(len, table.splitlines())) <= 100


# Time-outs, several at once, an interrupt


def test_a_cell_may_not_take_longer_than_the_timeout(folder, capsys, caplog):
    write(folder, "01_hangs", code("1 + 1"), code("import time\ntime.sleep(600)"), code("2 + 2"))
    start = time.perf_counter()
    assert command.main(["run", "--timeout", "5"]) == 1  # a busy machine takes more than one for 1 + 1
    assert time.perf_counter() - start < 300
    out = capsys.readouterr().out
    assert "CellTimeoutError: A cell timed out" in out
    assert "in cell [2]:\n  | import time\n" in out
    assert not caplog.records  # nothing is reported twice


def test_a_full_disk_is_told_of_the_notebook_that_it_cut_off(folder, capsys, monkeypatch):
    write(folder, "01_cut", code("1"))
    write(folder, "02_whole", code("6 * 7", "headline"))
    execute = papermill.execute_notebook

    def on_a_full_disk(path, target, *others, **settings):
        if path.stem == "02_whole":
            return execute(path, target, *others, **settings)
        target.write_text('{"cells": [', encoding="utf-8")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(papermill, "execute_notebook", on_a_full_disk)
    assert command.main(["run"]) == 1
    out = capsys.readouterr().out
    assert {name: row[2] for name, row in rows(out).items()} == {"01_cut": "FAILED", "02_whole": "42"}
    assert "FAILED 01_cut\n  OSError: [Errno 28] No space left on device\n" in out


def test_a_copy_that_cannot_be_written_fails_alone(folder, capsys):
    write(folder, "01_blocked", code("1"))
    write(folder, "02_whole", code("6 * 7", "headline"))
    Path("executed", "01_blocked.ipynb").mkdir(parents=True)
    assert command.main(["run"]) == 1
    out = capsys.readouterr().out
    assert {name: row[2] for name, row in rows(out).items()} == {"01_blocked": "FAILED", "02_whole": "42"}
    assert "01_blocked.ipynb" in out.partition("FAILED 01_blocked\n")[2]


def test_jobs_are_as_many_as_cores_and_memory_allow(monkeypatch):
    monkeypatch.setattr(runner, "cores", lambda: 4)
    left = {None: 1, 100: 1, 2399: 1, 2400: 2, 4000: 3, 50_000: 4}
    assert {mb: runner.side_by_side(mb) for mb in left} == left


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux gives a process some of the cores")
def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8})
    assert runner.cores() == 3 == runner.side_by_side(1e6)


def test_jobs_run_side_by_side(folder, capsys):
    meet = (
        "import pathlib, time\npathlib.Path({!r}).touch()\nwhile not pathlib.Path({!r}).exists():\n    time.sleep(0.05)"
    )
    write(folder, "01_left", code(meet.format("left", "right")))
    write(folder, "02_right", code(meet.format("right", "left")))
    assert command.main(["run", "--jobs", "2", "--timeout", "120"]) == 0
    assert list(rows(capsys.readouterr().out)) == ["01_left", "02_right"]
    gc.collect()  # an event loop left open would warn here, and fail the test


def test_the_kernel_is_silent_and_one_bar_counts_the_cells(folder, capfd):
    write(folder, "01_ok", code("1"), new_markdown_cell("text"), code("2"), code(" "))
    assert command.main(["run"]) == 0
    err = capfd.readouterr().err
    assert "2/2" in err
    assert "IPKernelApp" not in err and "Executing" not in err  # the kernel's log, papermill's bar


INTERRUPTED = """\
import pathlib, signal, sys
from confprune_edu.course import command, notebooks
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background, where it is ignored
notebooks.notebooks_folder = lambda: pathlib.Path("notebooks").resolve()
sys.exit(command.main(["run", "--jobs", "1"]))"""


@pytest.fixture
def long_run(folder):
    """A process of its own with a `confprune run` of two notebooks, within a long cell; its kernel must end with it."""
    sleep = "import os, time\nprint(os.getpid(), file=open('pid', 'w'), flush=True)\ntime.sleep(60)"
    write(folder, "01_long", code(sleep))
    write(folder, "02_next", code("1"))
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stderr=subprocess.PIPE, text=True)
    try:
        kernel = int(
            wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text(encoding="utf-8").strip())
        )
        yield process
        assert not Path("executed/02_next.ipynb").exists()
        with pytest.raises(ProcessLookupError):
            os.kill(kernel, 0)
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_an_interrupt_ends_the_kernels_and_exits_130(long_run):
    long_run.send_signal(signal.SIGINT)
    _, err = long_run.communicate(timeout=20)
    assert long_run.returncode == 130
    assert err.endswith("confprune: interrupted; the kernels have ended\n") and "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_closed_terminal_ends_the_kernels(long_run):
    long_run.stderr.close()  # the next drawing of the bar fails
    assert long_run.wait(20) != 0


def wait_for(condition, seconds=30):
    """The first true value of `condition()`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise TimeoutError(f"nothing within {seconds} s")


# What is refused before anything runs


def refusal(capsys, *argv):
    assert command.main(list(argv)) == 2
    assert not Path("executed").exists()
    return capsys.readouterr().err


def test_names(folder):
    names = ["04_tests", "05_mnist", "05_mnist_again", "06_polyps"]
    course_notebooks = [write(folder, name) for name in names]
    write(folder, "Untitled")  # a reader's own
    assert notebooks.course_notebooks(folder) == course_notebooks

    def chosen(*names):
        return [path.stem for path in notebooks.choose(names, course_notebooks)]

    assert chosen() == names
    assert chosen("06", "04_tests.ipynb", "04") == ["06_polyps", "04_tests"]
    assert chosen("05_mnist") == ["05_mnist"]
    assert chosen("05_mnist_") == ["05_mnist_again"]


def test_an_unknown_or_ambiguous_name_lists_the_choices(folder, capsys):
    for name in ("04_tests", "05_mnist", "05_other"):
        write(folder, name)
    assert "'7' fits no notebook; choose from:\n  04_tests\n  05_mnist\n  05_other\n" in refusal(capsys, "run", "7")
    assert refusal(capsys, "run", "05").endswith("several notebooks; choose from:\n  05_mnist\n  05_other\n")


def test_an_unknown_parameter_is_refused(folder, capsys):
    write(folder, "01_one", code("alpha: float = 0.1", "parameters"))
    write(folder, "02_two", code("n: int = 10", "parameters"))
    assert "no chosen notebook has a parameter 'alhpa'; they have: alpha, n" in refusal(
        capsys, "run", "-p", "alhpa", "1"
    )
    for form in (["n", "1"], ["n=1"], ["n=1=2"]):
        assert "a parameter 'n'; they have: alpha" in refusal(capsys, "run", "01", "-p", *form)
    assert "not valid YAML" in refusal(capsys, "run", "-p", "n", "[1, 2")
    for text in ("nan", "inf", "1e400", "[1, .nan]", "[" * 3000):
        assert "must be a finite number" in refusal(capsys, "run", "-p", "n", text)


def test_a_parameter_goes_to_the_notebooks_that_have_it(folder):
    one = write(folder, "01_one", code("alpha: float = 0.1", "parameters"))
    two = write(folder, "02_two", code("n: int = 10", "parameters"), code("alpha = 0.3"))
    assert notebooks.assign({"alpha": 0.2}, [one, two]) == {one: {"alpha": 0.2}, two: {}}


TYPED = """\
alpha: float = 0.1  # tolerated risk; above 0, below 1
n: int = 100  # examples; at least 1, at most 4,000: the others test
share: float = 0.5  # at least 0, at most 1
loss: str = "error"  # one of error, accuracy_drop
video: str = "one_minus_iou"  # one of data.POLYP_LOSSES
loud: bool = False"""
REFUSED = {
    ("alpha", "1"): "alpha must be above 0, below 1; got 1",
    ("alpha", "0.0"): "alpha must be above 0, below 1; got 0.0",
    ("alpha", "small"): "alpha must be of type float; got 'small'",
    ("alpha", "True"): "alpha must be of type float; got True",
    ("alpha", "[0.1, 0.2]"): "alpha must be of type float; got [0.1, 0.2]",
    ("n", "0"): "n must be at least 1, at most 4,000; got 0",
    ("n", "4001"): "n must be at least 1, at most 4,000; got 4001",
    ("n", "50.0"): "n must be of type int; got 50.0",
    ("share", "1.1"): "share must be at least 0, at most 1; got 1.1",
    ("loss", "wrongname"): "loss must be one of error, accuracy_drop; got 'wrongname'",
    ("loss", "None"): "loss must be of type str; got None",
    ("video", "error"): f"video must be one of {', '.join(data.POLYP_LOSSES)}; got 'error'",
    ("loud", "1"): "loud must be of type bool; got 1",
}


@pytest.mark.parametrize(("setting", "why"), REFUSED.items())
def test_a_value_that_the_comment_rules_out_is_refused_before_anything_runs(folder, capsys, setting, why):
    write(folder, "01_one", code(TYPED, "parameters"))
    assert refusal(capsys, "run", "-p", *setting) == f"confprune: 01_one: {why}\n"


def test_values_at_the_limits_are_taken(folder):
    one = write(folder, "01_one", code(TYPED, "parameters"))
    values = {"alpha": 0.999, "n": 4000, "share": 1, "loss": "accuracy_drop", "video": "one_minus_dice", "loud": True}
    assert notebooks.assign(values, [one]) == {one: values}
    assert notebooks.assign({"n": 1, "share": 0.0}, [one]) == {one: {"n": 1, "share": 0.0}}


CHOICES = {
    "p_value": pvalues.METHODS,
    "procedure": (*procedures.BY_NAME, "split"),
    "loss": ("degradation", "disagreement", "error", "accuracy_drop", *data.POLYP_LOSSES),
}


@pytest.mark.parametrize("lesson", notebooks.LESSONS, ids=lambda lesson: lesson.name)
def test_the_comments_of_the_lessons_allow_their_defaults_and_name_what_exists(lesson):
    path = notebooks.notebooks_folder() / f"{lesson.name}.ipynb"
    for name, parameter in papermill.inspect_notebook(path).items():
        notebooks.check_value(lesson.name, parameter, ast.literal_eval(parameter["default"]))
        if name in CHOICES:
            found = notebooks.choices(parameter["help"])
            assert len(found) > 1 and set(found) <= set(CHOICES[name])
        elif parameter["inferred_type_name"] not in ("str", "bool"):
            assert re.search("above|at least", parameter["help"]), f"{name}: no limit"


def test_the_notebooks_folder_is_no_output_dir(folder, capsys):
    source = write(folder, "01_one", code("1"))
    before = source.read_bytes()
    for spelling in (str(folder), "notebooks/../notebooks/"):
        assert "is the notebooks' own folder" in refusal(capsys, "run", "--output-dir", spelling)
    assert "cannot be made: File exists" in refusal(capsys, "run", "--output-dir", str(source))
    assert source.read_bytes() == before


def test_a_file_that_is_no_notebook_is_refused(folder, capsys):
    write(folder, "01_one")
    (folder / "02_torn.ipynb").write_text('{"cells": [', encoding="utf-8")
    assert command.main(["run"]) == 2
    assert "02_torn.ipynb is not a notebook" in capsys.readouterr().err


MALFORMED = {
    ("run", "--jobs", "0"): "--jobs: must be a whole number from 1 on, got '0'",
    ("run", "--timeout", "x"): "--timeout: must be a whole number from 1 on, got 'x'",
    ("start", "--port", "65536"): "--port: must be a whole number from 0 to 65535, got '65536'",
    ("app", "--port", "-5"): "--port: must be a whole number from 0 to 65535, got '-5'",
    ("run", "-p", "alpha"): "-p: expected 2 arguments",
    ("lift",): "invalid choice: 'lift'",
}


@pytest.mark.parametrize(("argv", "why"), MALFORMED.items())
def test_a_malformed_command_line_exits_2(argv, why, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(argv)
    assert stop.value.code == 2 and why in capsys.readouterr().err


def test_what_the_disk_refuses_is_one_sentence(folder, replaced, capsys, monkeypatch):
    executed(folder, "00_zero")

    def full(notebook, path):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(nbformat, "write", full)
        assert command.main(["start"]) == 2
    assert capsys.readouterr().err.startswith("confprune: [Errno 28] No space left on device: ")
    assert command.main(["start"]) is None and len(replaced) == 1
    assert "1 of 1 lessons copied" in capsys.readouterr().out  # what the full disk cut off was no copy


def test_a_chart_that_cannot_be_drawn_is_refused_before_anything_is_measured(folder, capsys):
    assert "nowhere/chart.png" in refusal(capsys, "bench", "--chart", "nowhere/chart.png")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX pipes")
def test_nobody_has_to_read_to_the_end():
    read, write_end = os.pipe()
    os.close(read)
    line = [sys.executable, "-c", "import sys; from confprune_edu.course import main; sys.exit(main(['list']))"]
    done = subprocess.run(line, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


# list, help, version


def test_list(folder, capsys):
    about = new_markdown_cell("# How many errors?\n\n**Run time:** about 20 s. Needs torch: no\n\n## Later")
    write(folder, "02_errors", about, code("alpha: float = 0.1  # tolerated risk\nseed = 0", "parameters"))
    write(folder, "01_first", code("# Not a title"), new_markdown_cell("## Hello"))
    assert command.main(["list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "01_first  Hello",
        "02_errors  How many errors?",
        "    run time: about 20 s",
        "    alpha: float = 0.1              tolerated risk",
        "    seed: any type = 0",
    ]


def test_the_list_is_shown_on_a_terminal_that_knows_ascii_only():
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    line = [sys.executable, "-c", "from confprune_edu.course import main; main(['list'])"]
    done = subprocess.run(line, capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"") and b"00_start_here" in done.stdout


def test_long_lines_of_the_list_are_wrapped(folder, capsys):
    write(folder, "01_long", code(f"alpha: float = 0.1  # {'very ' * 40}long", "parameters"))
    command.main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 100


def test_the_folder_is_in_the_package_or_beside_it(tmp_path, monkeypatch):
    package = tmp_path / "confprune_edu"
    package.mkdir()
    monkeypatch.setattr(notebooks, "__file__", str(package / "course" / "notebooks.py"))
    with pytest.raises(notebooks.Refused, match=r"no notebook found in .*is the installation complete"):
        notebooks.notebooks_folder()
    write(tmp_path / "notebooks", "01_checkout")
    assert notebooks.notebooks_folder() == tmp_path / "notebooks"
    write(package / "notebooks", "01_installed")
    assert notebooks.notebooks_folder() == package / "notebooks"


def test_no_command_prints_help_and_version_the_version(capsys):
    assert command.main([]) == 0
    assert "usage: confprune" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        command.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"confprune {__version__}\n"


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'papermill', 'nbformat', 'matplotlib', 'scipy', 'numpy'}"
    script = f"import sys\nfrom confprune_edu.course import main\nmain([])\nsys.exit(str({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stderr == "set()\n"


# A reader's own copy, in JupyterLab


@pytest.fixture
def replaced(monkeypatch):
    """The command lines by which this process would have been replaced."""
    lines = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "execv", lambda program, argv: lines.append(argv))
    for name in ("OMP_NUM_THREADS", "JUPYTER_CONFIG_PATH"):
        monkeypatch.setenv(name, "")  # what the command sets is put back after the test
        monkeypatch.delenv(name)
    return lines


def executed(folder, name, source="6 * 7"):
    """A notebook with a stored output."""
    path = write(folder, name, new_markdown_cell("# Guess first"), code(source, "exercise:answer"))
    notebook = nbformat.read(path, 4)
    notebook.cells[1].execution_count = 1
    notebook.cells[1].outputs = [new_output("execute_result", {"text/plain": "42"}, execution_count=1)]
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize("name", ["start", "lab"])
def test_start_opens_a_copy_without_outputs_and_leaves_the_originals(folder, replaced, capsys, name):
    sources = [executed(folder, "00_zero"), executed(folder, "01_one")]
    before = [path.read_bytes() for path in sources]
    command.main([name, "mine", "--port", "0", "--", "--no-browser", "--debug"])
    root = Path("mine").resolve()
    settings = [f"--ServerApp.root_dir={root}", "--LabApp.default_url=/lab/tree/00_zero.ipynb"]
    settings += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"]
    assert replaced == [[sys.executable, "-m", "jupyterlab", *settings, "--no-browser", "--debug"]]
    assert [path.read_bytes() for path in sources] == before
    for path in sources:
        original, copy = nbformat.read(path, 4), nbformat.read(root / path.name, 4)
        assert [(cell.source, cell.metadata, cell.id) for cell in copy.cells] == [
            (cell.source, cell.metadata, cell.id) for cell in original.cells
        ]
        assert (copy.cells[1].outputs, copy.cells[1].execution_count) == ([], None)
    assert capsys.readouterr().out.startswith(f"{root}: 2 of 2 lessons copied; what was there stays")


def test_a_second_start_keeps_the_readers_work_and_brings_what_is_missing(folder, replaced, capsys):
    executed(folder, "00_zero"), executed(folder, "01_one")
    command.main(["start"])
    mine = Path("lessons")
    executed(mine, "00_zero", "my own answer")
    (mine / "notes.txt").write_text("mine", encoding="utf-8")
    (mine / "01_one.ipynb").unlink()
    before = (mine / "00_zero.ipynb").read_bytes()
    capsys.readouterr()
    command.main(["start"])
    assert replaced[0] == replaced[1]
    assert (mine / "00_zero.ipynb").read_bytes() == before and (mine / "notes.txt").exists()
    assert nbformat.read(mine / "01_one.ipynb", 4).cells[1].source == "6 * 7"
    assert "1 of 2 lessons copied; what was there stays" in capsys.readouterr().out


@pytest.mark.parametrize(("user", "extra", "told"), [(0, [], 1), (0, ["--", "--allow-root"], 0), (1000, [], 0)])
def test_start_tells_root_what_jupyterlab_will_ask_for(folder, replaced, capsys, monkeypatch, user, extra, told):
    executed(folder, "00_zero")
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    command.main(["start", *extra])
    assert len(replaced) == 1 and capsys.readouterr().out.count("-- --allow-root") == told


def test_start_never_opens_the_originals(folder, replaced, capsys):
    source = executed(folder, "00_zero")
    before = source.read_bytes()
    assert command.main(["start", str(folder)]) == 2
    assert "is the notebooks' own folder" in capsys.readouterr().err
    assert command.main(["start", str(source)]) == 2
    assert "cannot be made" in capsys.readouterr().err
    assert source.read_bytes() == before and replaced == []


def test_kernels_take_one_thread_unless_the_environment_says_otherwise(folder, replaced, monkeypatch):
    write(folder, "01_one")
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: name)
    for argv in (["start"], ["app"]):
        os.environ.pop("OMP_NUM_THREADS", None)
        command.main(argv)
        assert os.environ["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "own")
    command.main(["start"])
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["JUPYTER_CONFIG_PATH"].endswith(f"{os.pathsep}own")


def test_options_are_handed_on_where_something_is_opened_only(capsys):
    with pytest.raises(SystemExit):
        command.main(["run", "--", "05"])
    assert "only start and app hand on what follows --" in capsys.readouterr().err


# The dashboard


def test_app_becomes_voila_on_the_one_notebook_of_the_package(monkeypatch, replaced):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: name)
    command.main(["app", "--port", "8866", "--", "--no-browser"])
    notebook = Path(command.__file__).parent / "app.ipynb"
    line = [sys.executable, "-m", "voila", str(notebook), "--Voila.ip=127.0.0.1", "--port=8866", "--no-browser"]
    assert replaced == [line]
    assert "certificate_explorer" in notebooks.code_cells(notebooks.read_notebook(notebook))[0].source


def test_app_without_voila_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    assert command.main(["app"]) == 2
    assert 'python -m pip install "voila>=0.5.8"' in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="the process is replaced on POSIX only")
def test_app_serves_the_explorer(tmp_path):
    pytest.importorskip("voila")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = f"from confprune_edu.course import main; main(['app', '--port', '{port}', '--', '--no-browser'])"
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("RUNTIME", "CONFIG", "DATA")}
    server = subprocess.Popen([sys.executable, "-c", line], env=os.environ | own, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port), seconds=120)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=120) as reply:
            page = reply.read().decode()
        assert "<title>How far can a digit classifier be pruned, with a guarantee?</title>" in page
        assert "application/vnd.jupyter.widget-view+json" in page  # the notebook ran, and drew its controls
        assert "certificate_explorer" not in page and "Traceback" not in page
    finally:
        server.terminate()
        server.wait(20)


LAB = """\
import pathlib
from confprune_edu.course import command, notebooks
notebooks.notebooks_folder = lambda: pathlib.Path("notebooks").resolve()
command.main(["start", "mine", "--port", "0", "--", "--no-browser", "--allow-root"])"""


@pytest.mark.skipif(sys.platform == "win32", reason="the process is replaced on POSIX only")
def test_start_serves_the_copies_on_this_machine_behind_a_token_without_news(folder):
    write(folder, "01_one")
    write(folder, "Untitled")
    own = {f"JUPYTER_{kind}_DIR": str(folder.parent / kind) for kind in ("RUNTIME", "CONFIG", "DATA")}
    environment = {name: value for name, value in os.environ.items() if name != "JUPYTER_TOKEN"} | own
    server = subprocess.Popen([sys.executable, "-c", LAB], env=environment, stderr=subprocess.DEVNULL)
    try:
        info = wait_for(lambda: read_json(folder.parent / "RUNTIME" / f"jpserver-{server.pid}.json"), seconds=120)
        assert info["url"].startswith(("http://127.0.0.1:", "http://localhost:"))
        wait_for(lambda: listens(info["port"]))  # it writes the file just before
        contents = f"{info['url']}api/contents"
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(contents)
        refused.value.close()
        with urllib.request.urlopen(f"{contents}?token={info['token']}") as reply:
            assert [entry["name"] for entry in json.load(reply)["content"]] == ["01_one.ipynb"]
        plugin = f"{info['url']}lab/api/settings/@jupyterlab/apputils-extension:notification"
        with urllib.request.urlopen(f"{plugin}?token={info['token']}") as reply:
            assert json.load(reply)["schema"]["properties"]["fetchNews"]["default"] == "false"
    finally:
        server.terminate()
        server.wait(20)


def listens(port):
    """Whether something on this machine accepts connections to `port`."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def read_json(path):
    """The content of a JSON file; None while it is not there, or half written."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
