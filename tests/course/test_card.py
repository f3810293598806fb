"""`confprune verify` and `confprune card`: what a reader of a file is told."""

import json

import pytest
import torch
from torch import nn

from confprune_edu import selective
from confprune_edu.calibration import calibrate
from confprune_edu.certificates import plan_sha256
from confprune_edu.course.command import main
from confprune_edu.losses import disagreement

NAME = "<b>mine</b>"
PLAN = {"alpha": 0.15, "examples": "as they came"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A certificate of each kind, in files, and a damaged one."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    inputs = torch.randn(800, 6, generator=torch.Generator().manual_seed(1))
    result = calibrate(model, inputs, disagreement, alpha=0.15, delta=0.1, progress=False)
    result.save(folder / "one.safetensors", model, network=NAME, date="2026-11-25")
    grid = dict(ratios=[0.1, 0.2], thresholds=[0.4, 0.0])
    pairs = selective.calibrate(model, inputs, disagreement, alpha=0.15, delta=0.1, progress=False, **grid)
    pairs.save(folder / "pair.safetensors", model, plan=PLAN)
    (folder / "bad.safetensors").write_bytes((folder / "one.safetensors").read_bytes()[:-1])
    return folder, result


def test_verify_prints_the_claim_and_says_what_does_not_hold(files, capsys):
    folder, result = files
    assert main(["verify", str(folder / "one.safetensors")]) == 0
    assert str(result) in capsys.readouterr().out
    assert main(["verify", str(folder / "one.safetensors"), str(folder / "bad.safetensors")]) == 1
    out = capsys.readouterr().out
    assert f"{folder / 'one.safetensors'}: verified, {NAME}" in out
    assert f"{folder / 'bad.safetensors'}: DOES NOT HOLD: bad.safetensors is no safetensors file" in out


def test_verify_as_json(files, capsys):
    folder, _ = files
    names = ["one", "pair", "bad", "none"]
    assert main(["verify", "--json", *(str(folder / f"{name}.safetensors") for name in names)]) == 2
    assert [row["holds"] for row in json.loads(capsys.readouterr().out)] == [True, True, False, None]


def test_verify_does_not_judge_a_file_that_it_cannot_read(files, capsys):
    folder, _ = files
    for missing in (folder / "none.safetensors", folder):
        assert main(["verify", str(missing), str(folder / "bad.safetensors")]) == 2
        out = capsys.readouterr().out
        assert f"{missing}: NOT READ: there is no such file\n" in out and out.count("DOES NOT HOLD") == 1


@pytest.mark.parametrize("kind", ["one", "pair"])
def test_the_card_is_one_page_with_everything_that_the_claim_rests_on(files, tmp_path, kind):
    folder, result = files
    out = tmp_path / "card.html"
    assert main(["card", str(folder / f"{kind}.safetensors"), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    wanted = ["Model details", "Intended use", "Metrics", "Evaluation data", "Quantitative analyses", "Caveats"]
    assert [text.count(f"<h2>{heading}") for heading in wanted] == [1] * len(wanted)
    assert 'alt="' in text and "http" not in text.replace("xmlns", "")
    assert result.data_sha256 in text and torch.__version__ in text and "0.weight" in text
    if kind == "one":
        assert "&lt;b&gt;mine&lt;/b&gt;" in text and NAME not in text and "2026-11-25" in text
    assert [plan_sha256(PLAN) in text, "as they came" in text] == [kind == "pair"] * 2 and "plan: alpha" not in text


def test_no_card_of_a_file_that_does_not_hold(files, tmp_path, capsys):
    folder, _ = files
    assert main(["card", str(folder / "bad.safetensors"), "--out", str(tmp_path / "card.html")]) == 2
    assert "damaged" in capsys.readouterr().err and not list(tmp_path.iterdir())
