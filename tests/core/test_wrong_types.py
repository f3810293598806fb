"""What is of a wholly wrong type is refused by a TypeError or ValueError that names the argument."""

import itertools

import pytest
import torch
from torch import nn

from confprune_edu import certificates, data, evaluation, losses, models, pruning
from confprune_edu.calibration import calibrate

MODEL, INPUTS = nn.Linear(4, 3), torch.ones(20, 4)
LABELS = torch.zeros(20, dtype=torch.int64)
CROSS_ENTROPY = nn.functional.cross_entropy
OTHERS = [3, "text", None, [1], {"a": 1}, 1j, len]


def calibrated(model=MODEL, **options):
    options = {"alpha": 0.2, "delta": 0.1, "ratios": [0.2, 0.5], "progress": False} | options
    return calibrate(model, INPUTS, losses.disagreement, **options)


def table(**options):
    return evaluation.loss_table(MODEL, INPUTS, [0.2], losses.disagreement, progress=False, **options)


def certificate():
    return calibrated(alpha=0.9)


DOORS = {
    "scores": [
        lambda v: calibrated(scores=v),
        lambda v: table(scores=v),
        lambda v: pruning.prune(MODEL, 0.5, v),
        lambda v: pruning.lamp(MODEL, v),
    ],
    "model": [
        calibrated,
        lambda v: calibrated(v, family=lambda model, ratio: model),
        lambda v: certificate().prune(v),
        lambda v: certificate().save("certified.safetensors", v),
        lambda v: pruning.fisher(v, (INPUTS, LABELS), CROSS_ENTROPY),
        pruning.fingerprint,
    ],
    "executor": [lambda v: calibrated(executor=v), lambda v: table(executor=v)],
    "device": [lambda v: calibrated(device=v)],
    "out": [lambda v: table(out=v)],
    "cache": [lambda v: calibrated(cache=v)],
    "path": [lambda v: certificate().save(v, MODEL), certificates.load, certificates.verify],
    "root": [data.polypgen],
    "seed": [lambda v: pruning.random(MODEL, seed=v)],
    "data": [lambda v: pruning.fisher(MODEL, v, CROSS_ENTROPY)],
    "loss": [lambda v: pruning.snip(MODEL, (INPUTS, LABELS), v)],
    "a": [lambda v: evaluation.same_function(v, MODEL, INPUTS)],
    "b": [lambda v: evaluation.same_function(MODEL, v, INPUTS)],
    "name": [models.load],
}
RIGHT = {  # of these others
    "scores": [None],
    "executor": [None],
    "device": [3, None],  # a GPU
    "out": ["text", None],
    "cache": ["text", None],
    "path": ["text"],
    "root": ["text"],
    "seed": [3],
    "loss": [len],
    "a": [len],
    "b": [len],
}


@pytest.mark.parametrize("name", DOORS)
def test_a_value_of_another_type_is_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for door, value in itertools.product(DOORS[name], (v for v in OTHERS if v not in RIGHT.get(name, []))):
        with pytest.raises((TypeError, ValueError), match=rf"^{name} must"):
            door(value)
