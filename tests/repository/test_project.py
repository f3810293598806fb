"""What the README, the citation and the Binder environment say is what the package does."""

import ast
import importlib
import json
import os
import pkgutil
import re
import shutil
import site
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import confprune_edu
from confprune_edu.course import decks, notebooks

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BOOK = ROOT / "confprune_edu" / "course" / "book"
OWN_MODEL = (BOOK / "own_model.md").read_text(encoding="utf-8")
API = (BOOK / "api.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def fenced(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_example_on_your_own_model_runs_and_prints_what_the_readme_shows(capsys):
    example, shown = fenced("python")[0], fenced("text")[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    names = {}
    exec(example, names)
    assert capsys.readouterr().out.splitlines()[:2] == shown.splitlines()[:2]
    assert confprune_edu.pruning.sparsity(names["smaller"]) == pytest.approx(names["result"].ratio, abs=1e-3)


def test_the_example_that_abstains_follows_the_first_one():
    own, abstaining, *_ = fenced("python", OWN_MODEL)
    assert own == fenced("python")[0] and fenced("text", OWN_MODEL)[:1] == fenced("text")
    names = {}
    exec(own, names)
    exec(abstaining, names)
    pair = names["pair"]
    assert confprune_edu.pruning.sparsity(names["smaller"]) == pytest.approx(pair.ratio, abs=1e-3)
    assert pair.threshold > 0 and 0.5 <= pair.coverage < 1
    assert set(names["answers"].tolist()) <= {-1, 0, 1, 2}


def test_the_examples_of_families_follow_and_the_forest_prints_what_is_shown(capsys):
    own, _, bits, forest = fenced("python", OWN_MODEL)
    names = {}
    exec(own + bits, names)
    assert names["coarse"].ratio > 0 and names["coarse"].knob == "share of eight bits left out"
    capsys.readouterr()
    exec(forest, names)
    assert capsys.readouterr().out == fenced("text", OWN_MODEL)[1]


def test_the_statistics_example_prints_its_comment(capsys):
    example = fenced("python")[-1]
    exec(example, {})
    assert capsys.readouterr().out.strip() == example.rsplit("# ", 1)[1].strip()


def test_the_two_commands_are_in_the_readme_and_ci_calls_the_second():
    commands = "".join(fenced("bash"))
    start = commands.splitlines()[:3]  # clone, install, start, on a Debian that is new, too
    assert start[0] == f"git clone {PROJECT['urls']['Repository']} && cd confprune_edu"
    assert start[1] == "python3 -m venv .venv && . .venv/bin/activate && python -m pip install -e ."
    assert start[2] == "confprune start lessons"
    assert "python -m pip install -e . && confprune run\n" in commands
    assert 'python -m pip install -e ".[test]" && pytest\n' in commands
    assert "grep -m1 -F 'pip install -e \".[test]\"' README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_local_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) >= 3
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_on_the_page_of_an_index_every_link_and_the_picture_are_whole():
    text = README
    for change in PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(change["pattern"], change["replacement"], text)
    local = re.findall(r"(!?)\[[^]]*\]\((?!https?:|#)([^)]+)\)", README)
    assert ("!", "notebooks/cover.png") in local and re.findall(r"\]\((?!https?:|#)", text) == []
    where = {"": "blob", "!": "raw"}
    assert all(f"]({PROJECT['urls']['Repository']}/{where[sign]}/HEAD/{link})" in text for sign, link in local)


def test_the_readme_is_short_and_its_picture_is_that_of_lesson_00(tmp_path):
    assert len(README.splitlines()) <= 120
    shutil.copy(ROOT / "notebooks" / "00_start_here.ipynb", tmp_path)
    made = decks.cover(tmp_path).read_bytes()
    assert made == (ROOT / "notebooks" / "cover.png").read_bytes(), "make it again: see CONTRIBUTING.md"
    (headline,) = re.findall(r"counting (\d+)%, certificate ([\d.]+)%", "".join(printed("00_start_here", "headline")))
    assert set(re.findall(r"([\d.]+) %\*{0,2}\s+(?:of the draws|\(lower)", README)) == set(headline)
    (alternative,) = re.findall(r"!\[(.*?)\]", README)
    assert re.findall(r"in ([\d.]+) %", alternative) == list(headline)


def printed(name, tag):
    """What the cells with this tag print in a lesson."""
    cells = notebooks.read_notebook(ROOT / "notebooks" / f"{name}.ipynb").cells
    return [out.text for cell in cells if tag in cell.metadata.get("tags", []) for out in cell.outputs]


def test_the_readme_says_how_long_the_lessons_take():
    firsts = [notebooks.read_notebook(path).cells[0].source for path in notebooks.course_notebooks(ROOT / "notebooks")]
    first, *others = [int(re.search(r"Study time:\W*about (\d+) min", text)[1]) for text in firsts]
    assert "in an hour; each of the others takes one to two hours with its exercises" in README
    assert first == 60 and all(60 <= minutes <= 120 for minutes in others)


def test_the_licence_is_that_of_every_file_that_ships():
    assets = (ROOT / "confprune_edu" / "assets" / "README.md").read_text(encoding="utf-8")
    named = {f"{name.replace(' ', '-')}-{version}" for name, version in re.findall(r"(CC BY(?:-SA)?) (\d\.\d)", assets)}
    named |= set(re.findall("BSD-2-Clause", assets))
    assert set(PROJECT["license"].split(" AND ")) == {"MIT", *named} and len(named) == 4
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == PROJECT["license"].split(" AND ")


@pytest.mark.parametrize("text", [README, OWN_MODEL, API], ids=["readme", "own_model", "api"])
def test_every_public_name_exists(text):
    for room, names in re.findall(r"`(\w+)`: ((?:`\w+`[^`|]*)+)", text):
        module = importlib.import_module(f"confprune_edu.{room}")
        assert [name for name in re.findall(r"`(\w+)`", names) if not hasattr(module, name)] == []
    rooms = {module.name for module in pkgutil.iter_modules(confprune_edu.__path__)}
    assert {"pvalues", "selective"} <= rooms
    for room, name in re.findall(r"`(\w+)\.(\w+)`", text):
        if room in rooms:
            assert hasattr(importlib.import_module(f"confprune_edu.{room}"), name), f"{room}.{name}"


def test_binder_installs_the_dependencies_of_the_package():
    environment = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text(encoding="utf-8"))
    renamed = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}
    found = []
    for line in environment["dependencies"]:
        name = re.split(r"[<>=]", line)[0]
        found.append(renamed.get(name, name) + line[len(name) :])
    assert sorted(set(found) - {"python=3.12", "pip"}) == sorted(PROJECT["dependencies"])


BINDER = ROOT / "binder"


def test_binder_starts_what_it_is_given_with_one_thread():
    bash = ["bash", str(BINDER / "start"), "bash", "-c", 'echo "$OMP_NUM_THREADS $1"; exit 7', "-", "two words"]
    done = subprocess.run(bash, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("1 two words\n", 7)
    assert os.access(BINDER / "start", os.X_OK) and os.access(BINDER / "postBuild", os.X_OK)


def test_binder_builds_what_binder_describes():
    """repo2docker makes a Dockerfile of it: environment.yml, postBuild, start."""
    pytest.importorskip("repo2docker")
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in (
        '--file "binder/environment.yml"',
        "RUN ./binder/postBuild",
        'R2D_ENTRYPOINT="${REPO_DIR}/binder/start"',
    ):
        assert line in done.stdout
    assert "python=3.12" in done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A fresh environment after postBuild, which sees the other packages of this one; the environment, the copy."""
    root = tmp_path_factory.mktemp("binder")
    ignored = shutil.ignore_patterns(".*", "build", "dist", "executed", "*.egg-info", "screenshots")
    copy = shutil.copytree(ROOT, root / "repository", ignore=ignored)
    subprocess.run([sys.executable, "-m", "venv", str(root / "env")], check=True)
    (packages,) = (root / "env").glob("lib/python*/site-packages")
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    # the package itself is not to be found anywhere else
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment["PATH"] = f"{root / 'env' / 'bin'}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(["./binder/postBuild"], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "env", copy, environment


@pytest.mark.skipif(sys.platform == "win32", reason="Binder runs on Linux")
def test_binder_installs_the_package_and_its_settings(built):
    env, copy, environment = built
    where = "import confprune_edu; print(confprune_edu.__file__)"
    python = [str(env / "bin" / "python")]
    found = subprocess.run([*python, "-c", where], cwd=env, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(copy / "confprune_edu" / "__init__.py")
    assert list((copy / "confprune_edu" / "__pycache__").glob("evaluation.*.pyc"))
    settings = json.loads((env / "etc/jupyter/labconfig/default_setting_overrides.json").read_text(encoding="utf-8"))
    assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    loaded = "print('confprune_edu.memory' in get_ipython().extension_manager.loaded)"
    environment = environment | {"IPYTHONDIR": str(env / "ipython")}
    ipython = [*python, "-m", "IPython", "--no-banner", "-c", loaded]
    done = subprocess.run(ipython, cwd=env, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("True")


def test_one_repository_is_named_everywhere():
    repository = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", repository)
    patterns = ("*.*", "notebooks/*", "binder/*", "confprune_edu/**/*.*")
    for path in [path for pattern in patterns for path in ROOT.glob(pattern)]:
        if path.is_file() and path.suffix not in (".npz", ".safetensors", ".pyc", ".png"):
            text = path.read_text(encoding="utf-8")
            assert set(re.findall(r"https://github\.com/([\w.-]+/confprune_edu)\b", text)) <= {repository}, path


def test_the_linters_of_the_hooks_are_those_of_the_tests():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"  # nothing is cloned
    pinned = {pin for hook in repository["hooks"] for pin in hook.get("additional_dependencies", [])}
    assert all("==" in pin for pin in pinned)
    assert pinned <= set(PROJECT["optional-dependencies"]["test"])
    programs = {hook["entry"].split()[0] for hook in repository["hooks"]}
    assert programs == {"nbstripout", "ruff", "mypy", "lint-imports"}
    assert programs - {"nbstripout"} <= set((ROOT / ".ci" / "run").read_text(encoding="utf-8").split())


@pytest.mark.parametrize("folder", ["tests", "confprune_edu"])
def test_text_is_read_and_written_in_one_encoding_everywhere(folder):
    calls = [
        (path, node)
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("read_text", "write_text")
    ]
    without = [f"{path}:{n.lineno}" for path, n in calls if all(word.arg != "encoding" for word in n.keywords)]
    assert calls and without == []


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == confprune_edu.__version__
