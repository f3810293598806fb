"""The types that a user's script sees: `mypy --strict` passes on it, and finds what is wrong in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """\
import numpy as np
import torch
from torch import nn

from confprune_edu import data, evaluation, fwer, losses, models, plots, pruning, pvalues, selective, validation
from confprune_edu.calibration import Calibration, calibrate, calibrate_losses, group_means

alpha, delta = 0.1, 0.1
ratios = [0.0, 0.5, 0.9]
images, labels = data.mnist5k()
model = models.load("mnist-mlp")


def squared(pruned: torch.Tensor, full: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return ((pruned - full) ** 2).mean(1).clamp(max=1)


result: Calibration = calibrate(model, (images, labels), losses.error, alpha=alpha, delta=delta, ratios=ratios)
smaller: nn.Module = result.prune(model)
record = Calibration.from_json(result.to_json())
picture: plots.Picture = result.plot()
certified: float | None = record.ratio
print(result, picture.alt, pruning.sparsity(smaller), certified)

table = evaluation.loss_table(model, images, ratios, squared, scores=pruning.magnitude(model))
several = evaluation.loss_tables(model, (images, labels), ratios, {"error": losses.error, "change": squared})
again = calibrate_losses(table, ratios, alpha=alpha, delta=delta, p_value="betting", procedure=fwer.holm)
means = group_means(table, np.arange(len(table)) // 10)
p = pvalues.p_values(means, alpha, "tight")
print(fwer.fixed_sequence(p, delta).tolist(), again.rejected, several["error"].mean(0))

pairs = selective.calibrate(model, (images, labels), alpha=alpha, delta=delta, ratios=ratios, thresholds=[0.9, 0.5])
best = pairs.best(min_coverage=0.5)
if best is not None:
    print(best.ratio, best.threshold, best.decide(model(images)))

recorded, grid = data.mnist_losses()
splits = validation.repeated_splits(recorded, grid, n_calibration=1000, alpha=alpha, delta=delta, trials=100, seed=0)
print(splits.broken, plots.risk_curves(ratios, {"change": table.mean(0)}, alpha=alpha).alt)
frames = data.phantom_polyps(4, seed=0)
trained = models.trained_on(frames)
copies: nn.Module = pruning.prune(models.load("polyp-unet"), 0.5)
print(copies, trained, pruning.savings(smaller))
"""


@pytest.fixture(scope="module")
def complaints(tmp_path_factory):
    """What mypy says about the script, and about the script with one wrong line more."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "right.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "wrong.py").write_text(f"{SCRIPT}\nwrong: str = result.ratio\nmodels.load(7)\n", encoding="utf-8")
    options = ["--strict", "--follow-imports=silent", "--ignore-missing-imports", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, f"--cache-dir={ROOT / '.mypy_cache' / 'user'}"]
    done = subprocess.run(
        [*command, "right.py", "wrong.py"],
        cwd=folder,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_strict_mypy_passes_on_a_users_script(complaints):
    assert [line for line in complaints if line.startswith("right.py")] == []


def test_strict_mypy_knows_the_types(complaints):
    wrong = [line for line in complaints if line.startswith("wrong.py")]
    assert len(wrong) == 2 and '"float | None"' in wrong[0] and 'expected "str"' in wrong[1]


def test_the_marker_lies_beside_the_package():
    """hatchling ships every file of the package's folder."""
    assert (ROOT / "confprune_edu" / "py.typed").is_file()
