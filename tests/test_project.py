"""What the README, the citation and the Binder environment say is what the package does."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import confprune_edu

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def fenced(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_on_your_own_model_runs_and_prints_what_the_readme_shows(capsys):
    example, shown = fenced("python")[0], fenced("text")[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    names = {}
    exec(example, names)
    assert capsys.readouterr().out.splitlines()[:2] == shown.splitlines()[:2]
    assert confprune_edu.pruning.sparsity(names["smaller"]) == pytest.approx(names["result"].ratio, abs=1e-3)


def test_the_example_that_abstains_follows_the_first_one():
    own, abstaining, _ = fenced("python")
    names = {}
    exec(own, names)
    exec(abstaining, names)
    pair = names["pair"]
    assert confprune_edu.pruning.sparsity(names["smaller"]) == pytest.approx(pair.ratio, abs=1e-3)
    assert pair.threshold > 0 and 0.5 <= pair.coverage < 1
    assert set(names["answers"].tolist()) <= {-1, 0, 1, 2}


def test_the_statistics_example_prints_its_comment(capsys):
    example = fenced("python")[-1]
    exec(example, {})
    assert capsys.readouterr().out.strip() == example.rsplit("# ", 1)[1].strip()


def test_the_two_commands_are_in_the_readme_and_ci_calls_the_second():
    commands = "".join(fenced("bash"))
    assert "python -m pip install -e . && confprune run\n" in commands
    assert 'python -m pip install -e ".[test]" && pytest\n' in commands
    assert "grep -m1 -F 'pip install -e \".[test]\"' README.md" in (ROOT / ".ci" / "run").read_text()


def test_local_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) >= 3
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_notebook_has_a_row_in_the_readme():
    notebooks = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks == sorted(re.findall(r"\(notebooks/([^)]+)\)", README))


def test_every_public_name_in_the_readme_exists():
    import importlib

    for room, names in re.findall(r"`(\w+)`: ((?:`\w+`[^`|]*)+)", README):
        module = importlib.import_module(f"confprune_edu.{room}")
        assert [name for name in re.findall(r"`(\w+)`", names) if not hasattr(module, name)] == []
    rooms = {path.stem for path in (ROOT / "confprune_edu").glob("*.py")}
    for room, name in re.findall(r"`(\w+)\.(\w+)`", README):
        if room in rooms:
            assert hasattr(importlib.import_module(f"confprune_edu.{room}"), name), f"{room}.{name}"


def test_binder_installs_the_dependencies_of_the_package():
    environment = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text())
    renamed = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}
    found = []
    for line in environment["dependencies"]:
        name = re.split(r"[<>=]", line)[0]
        found.append(renamed.get(name, name) + line[len(name) :])
    assert sorted(set(found) - {"python=3.12", "pip"}) == sorted(PROJECT["dependencies"])


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == confprune_edu.__version__
