"""`confprune doctor` on machines that lack something, and the hint when memory runs low."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from confprune_edu import memory
from confprune_edu.course import command, doctor

# The command


def test_a_machine_that_runs_these_tests_is_ready(capsys):
    assert command.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "This machine is ready."
    assert [line.split("  ")[0] for line in lines if line.startswith("ok")] == ["ok"] * len(doctor.CHECKS)
    assert max(map(len, lines)) <= 96


def test_a_failing_check_says_what_to_do_and_the_others_go_on(monkeypatch, capsys):
    def broken():
        raise doctor.Unfit("it is broken " * 12, "mend it")

    monkeypatch.setattr(doctor, "CHECKS", {"first": broken, "second": lambda: "fine"})
    assert command.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("FAIL  first         it is broken")
    assert lines[-3:] == ["      what to do:   mend it", "ok    second        fine", "1 of 2 checks failed"]
    assert max(map(len, lines)) <= 96


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyError("user_expressions"), ImportError()])
def test_what_no_check_foresaw_is_a_line_too(monkeypatch, capsys, error):
    def broken():
        raise error

    monkeypatch.setattr(doctor, "CHECKS", {"first": broken, "second": lambda: "fine"})
    assert command.main(["doctor"]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(f"FAIL  first         {type(error).__name__}: {error}".rstrip())
    assert "what to do:   mend" in printed.out and "ok    second" in printed.out and printed.err == ""


def test_the_doctor_comes_where_packages_are_missing():
    absent = ["jupyter_client", "jupyter_core", "nbformat", "papermill", "packaging", "numpy", "torch"]
    script = f"""
import sys
sys.modules.update(dict.fromkeys({absent}))
from confprune_edu.course import main
sys.exit(main(["doctor"]))"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == ""
    assert re.match("FAIL  versions .*packaging", done.stdout)
    assert done.stdout.endswith(f"4 of {len(doctor.CHECKS)} checks failed\n")


def unfit(check):
    """What `check` finds wrong, and what it advises."""
    with pytest.raises(doctor.Unfit) as raised:
        check()
    return raised.value.wrong, raised.value.advice


# The checks


def test_versions_that_are_missing_or_too_old(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda _: ["numpy>=99", "nowhere-to-be-found", "pip; extra == 'test'"])
    wrong, advice = unfit(doctor.versions)
    assert wrong == f"needs numpy>=99 (here: {metadata.version('numpy')}), nowhere-to-be-found (here: none)"
    assert advice == 'python -m pip install "numpy>=99" "nowhere-to-be-found"'


def test_a_python_that_is_too_old(monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.1")
    assert unfit(doctor.versions) == ("Python 3.9.1", "install Python >=3.11")


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(metadata, "metadata", lambda _: metadata.distribution("nowhere-to-be-found"))
    assert unfit(doctor.versions) == ("confprune_edu is not installed", "in its folder: python -m pip install -e .")


@pytest.mark.parametrize(("left", "enough"), [(None, True), (1200.0, True), (1199.0, False)])
def test_memory(monkeypatch, left, enough):
    monkeypatch.setattr(memory, "available_mb", lambda: left)
    if enough:
        assert ("1.2 GB" in doctor.free_memory()) is True
    else:
        wrong, advice = unfit(doctor.free_memory)
        assert wrong.startswith("1.2 GB left") and "close other programs" in advice and "02, 03, 04" in advice


def test_no_write_access(monkeypatch, tmp_path):
    """A folder below a file: nobody can write there, root neither."""
    closed = tmp_path / "file"
    closed.touch()
    file = doctor.tempfile.TemporaryFile

    def only_elsewhere(dir):
        if dir == Path():
            raise NotADirectoryError(20, "Not a directory")
        return file(dir=dir)

    for name, patch in {
        "this folder": lambda: monkeypatch.setattr(doctor.tempfile, "TemporaryFile", only_elsewhere),
        "Jupyter's files": lambda: monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(closed / "runtime")),
    }.items():
        with monkeypatch.context():
            patch()
            wrong, advice = unfit(doctor.writing)
        monkeypatch.undo()
        assert wrong.startswith(f"{name}: nothing can be written to ") and wrong.count("(Not a directory)") == 1
        assert advice


def test_all_folders_that_cannot_be_written_are_named(monkeypatch, tmp_path):
    closed = tmp_path / "file"
    closed.touch()
    monkeypatch.setattr(doctor, "Path", lambda *names: closed.joinpath(*names) if names else closed / "here")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(closed / "runtime"))
    wrong, advice = unfit(doctor.writing)
    assert f"{closed / 'here'} (Not" in wrong and f"{closed / 'runtime'} (Not" in wrong
    assert advice.count(";") == 1 and "confprune start DIR" in advice and "JUPYTER_RUNTIME_DIR" in advice


@pytest.fixture
def kernels(monkeypatch, tmp_path):
    """A function that puts a kernel.json of one's own before those of this Python."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    def put(*argv):
        folder = tmp_path / "kernels" / "python3"
        folder.mkdir(parents=True)
        specification = {"argv": list(argv), "display_name": "Python 3", "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(specification), encoding="utf-8")
        return folder

    return put


def test_a_kernel_whose_program_is_gone(kernels):
    folder = kernels("/gone/python", "-m", "ipykernel_launcher", "-f", "{connection_file}")
    wrong, advice = unfit(doctor.kernel)
    assert f"the kernel in {folder} does not start" in wrong and "/gone/python" in wrong
    assert "python -m ipykernel install" in advice


def test_a_kernel_that_takes_its_time(kernels):
    """It is asked again and again whether it is up, and answers all of it before the one question."""
    slowly = "import time; time.sleep(3); from ipykernel import kernelapp; kernelapp.launch_new_instance()"
    folder = kernels(sys.executable, "-c", slowly, "-f", "{connection_file}")
    assert doctor.kernel() == f"python3 in {folder} starts"


def test_a_kernel_that_never_answers(kernels, monkeypatch):
    monkeypatch.setattr(doctor, "PATIENCE", 2)
    kernels(sys.executable, "-c", "import time; time.sleep(60)", "{connection_file}")
    assert "does not start: RuntimeError: Kernel didn't respond in 2 seconds" in unfit(doctor.kernel)[0]


def test_a_kernel_that_ends_at_once(kernels):
    kernels(sys.executable, "-c", "raise SystemExit(3)", "{connection_file}")
    assert "does not start: RuntimeError: Kernel died" in unfit(doctor.kernel)[0]


def test_a_kernel_of_another_python(kernels):
    elsewhere = (
        "import sys; sys.prefix = '/another/python'; from ipykernel import kernelapp; kernelapp.launch_new_instance()"
    )
    kernels(sys.executable, "-c", elsewhere, "-f", "{connection_file}")
    wrong, advice = unfit(doctor.kernel)
    assert wrong.endswith("belongs to another Python, '/another/python'")
    assert "jupyter kernelspec remove -y python3" in advice


def test_no_kernel_at_all(monkeypatch):
    monkeypatch.setattr(KernelSpecManager, "find_kernel_specs", lambda self: {"ir": "/somewhere"})
    assert unfit(doctor.kernel)[0] == "there is no kernel named python3"


def test_a_notebook_that_fails(monkeypatch):
    monkeypatch.setattr(doctor, "LESSON", "import nowhere_to_be_found")
    assert "No module named 'nowhere_to_be_found'" in unfit(doctor.notebook)[0]
    monkeypatch.setattr(doctor, "LESSON", "1 + 1")
    assert unfit(doctor.notebook)[0] == "the notebook ran, but stored no figure"


# Memory


def machine(root, **files):
    """A folder with Linux's files: `machine(root, meminfo=..., v2=(limit, usage, inactive), v1=...)`."""
    (root / "proc").mkdir()
    (root / "proc" / "meminfo").write_text(
        f"MemTotal: 99 kB\nMemAvailable:   {files['meminfo']} kB\nCached: 5 kB\n", encoding="utf-8"
    )
    for version, (folder, limit, usage, inactive) in zip(("v2", "high", "v1"), memory.CONTROL_GROUPS, strict=True):
        if version in files:
            group = root / folder
            group.mkdir(parents=True)
            for name, value in zip((limit, usage), files[version], strict=False):
                (group / name).write_text(f"{value}\n", encoding="utf-8")
            (group / "memory.stat").write_text(
                f"anon 7\n{inactive} {files[version][2]}\nactive_file 3\n", encoding="utf-8"
            )
    return root


@pytest.mark.parametrize(
    ("files", "megabytes"),
    [
        ({}, 1024.0),
        ({"v2": (2_000_000_000, 1_500_000_000, 300_000_000)}, 800.0),  # what the cache holds can be given back
        ({"v2": (9_000_000_000, 1_000_000_000, 0)}, 1024.0),  # the machine has less than the container may take
        ({"v2": ("max", 1_000_000_000, 0)}, 1024.0),
        ({"v1": (2_000_000_000, 1_500_000_000, 0)}, 500.0),
    ],
)
def test_available_memory_is_that_of_the_machine_or_the_container(tmp_path, files, megabytes):
    assert memory.available_mb(machine(tmp_path, meminfo=1_000_000, **files)) == megabytes


NESTED = {  # lines of /proc/self/cgroup, the group that they name, and the entry of CONTROL_GROUPS
    "v2": ("0::/system.slice/slurm/job_7/step_0\n", "system.slice/slurm/job_7", 0),
    "v2, high": ("0::/user.slice/app.scope\n", "user.slice", 1),
    "v1": ("11:cpu,cpuacct:/other\n5:hugetlb,memory:/slurm/uid_0/job_7\n0::/\n", "slurm/uid_0", 2),
    "outside": ("0::/../../job_7\n", "", 0),  # seen from a container: what lies around it is not there
}


@pytest.mark.parametrize("version", NESTED)
def test_available_memory_is_that_of_any_group_around_the_process(tmp_path, version):
    root = machine(tmp_path, meminfo=24_000_000)
    line, limited, entry = NESTED[version]
    (root / "proc" / "self").mkdir()
    (root / "proc" / "self" / "cgroup").write_text(line, encoding="utf-8")
    folder, limit, usage, inactive = memory.CONTROL_GROUPS[entry]
    group = root / folder / limited
    group.mkdir(parents=True)
    for name, text in {limit: "2000000000", usage: "700000000", "memory.stat": f"{inactive} 100000000"}.items():
        (group / name).write_text(text, encoding="utf-8")
    assert memory.available_mb(root) == 1400.0
    (group / limit).write_text("max", encoding="utf-8")
    assert memory.available_mb(root) == 24_576.0


def test_memory_that_nothing_tells_of(tmp_path):
    assert memory.available_mb(tmp_path) is None
    assert memory.hint(tmp_path) == ""


def test_the_hint_is_given_when_little_is_left(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "free").mkdir()
    assert re.match("Only 205 MB of memory are left", memory.hint(machine(tmp_path / "full", meminfo=200_000)))
    assert memory.hint(machine(tmp_path / "free", meminfo=300_000)) == ""


def test_the_extension_prints_the_hint_after_a_cell(monkeypatch, capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    left = iter([1000.0, 100.0, 100.0])
    monkeypatch.setattr(memory, "available_mb", lambda root=None: next(left))
    shell.run_line_magic("load_ext", "confprune_edu.memory")
    shell.run_cell("pass")
    assert capsys.readouterr().out == ""
    shell.run_cell("pass")
    assert capsys.readouterr().out.startswith("Only 100 MB")
    shell.run_line_magic("unload_ext", "confprune_edu.memory")
    shell.run_cell("pass")
    assert capsys.readouterr().out == "" and next(left) == 100.0
