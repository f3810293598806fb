"""What a certificate says about how much of the model it is about, and about another model."""

import json
import re
import warnings

import pytest
import torch
from torch import nn

from confprune_edu import pruning, selective
from confprune_edu.calibration import Calibration, calibrate
from confprune_edu.losses import disagreement

X = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
SETTINGS = dict(alpha=0.4, delta=0.1, ratios=[0.1, 0.2], progress=False)


class Foreign(nn.Module):
    """A linear layer that torch does not know."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))

    def forward(self, x):
        return x @ self.weight


def mixed():
    torch.manual_seed(0)
    return nn.Sequential(Foreign(6, 20), nn.ReLU(), Foreign(20, 8), nn.Linear(8, 3))


def both(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield calibrate(model, X, disagreement, **SETTINGS, **options)
        yield selective.calibrate(model, X, disagreement, thresholds=[0.5, 0.0], **SETTINGS, **options)


def test_a_certificate_says_how_much_of_the_model_it_is_about():
    for result in both(mixed()):
        assert (result.prunable, result.matrix, result.zeros, result.weights) == (24, 304, 0, None)
        assert "prunable: 24 of the model's 304 matrix weights, none zero before" in " ".join(str(result).split())
        assert "24 of the model&#x27;s 304 matrix weights" in result._repr_html_()
        assert json.loads(result.to_json())["matrix"] == 304
    sparse = pruning.prune(mixed(), 0.5, weights=["*.weight"])
    for result in both(sparse, weights=["*.weight"]):
        assert (result.prunable, result.matrix, result.zeros) == (304, 304, 152)
        assert "by weights=: 304 of the model's 304 matrix weights, 152 zero before" in " ".join(str(result).split())


@pytest.mark.parametrize("procedure", ["fixed_sequence", "holm"])
def test_what_is_left_out_is_warned_of_by_name(procedure):
    with pytest.warns(UserWarning, match=r"24 of the model's 304 .*: 2\.weight, 0\.weight .*weights="):
        calibrate(mixed(), X, disagreement, procedure=procedure, **SETTINGS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate(mixed(), X, disagreement, weights=["3.weight"], **SETTINGS)


@pytest.mark.parametrize(
    "weights", [["0.weight", "2.weight"], lambda name, module, parameter: isinstance(module, Foreign)]
)
def test_the_chosen_weights_are_recorded_and_pruned(weights):
    model = mixed()
    for result in both(model, weights=weights):
        assert result.weights == ["0.weight", "2.weight"]
        kept = type(result).from_json(result.to_json())
        for certificate in (result, kept):
            pruned = certificate.prune(model)
            assert pruning.sparsity(pruned, ["0.weight", "2.weight"]) == 56 / 280
            assert torch.equal(pruned[3].weight, model[3].weight)
            certificate.prune(model, weights=weights)
            with pytest.raises(ValueError, match=r"weights must be those of this certificate: 0\.weight, 2\.weight"):
                certificate.prune(model, weights=["3.weight"])


def test_weights_that_are_the_usual_ones_may_be_named():
    result = next(both(mixed()))
    assert pruning.sparsity(result.prune(mixed(), weights=["3.weight"])) > 0
    with pytest.raises(ValueError, match="the usual"):
        result.prune(mixed(), weights=["0.weight"])


def named(prefix):
    torch.manual_seed(0)
    return nn.ModuleDict({prefix: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))})


def call(model, x):
    return next(iter(model.children()))(x)


def changed(tensor):
    model = named("module")
    model.state_dict()[tensor].add_(1)
    return model


def longer():
    model = named("module")
    model["module"].append(nn.Linear(3, 3))
    return model


@pytest.mark.parametrize(
    "other, words",
    [
        (named("net"), r"only names differ, module\.0\.weight is called net\.0\.weight here"),
        (changed("module.0.bias"), r"module\.0\.bias differs, the first of 1 tensors"),
        (changed("module.1.running_mean"), r"only buffers differ: module\.1\.running_mean differs"),
        (named("module").double(), r"module\.0\.weight differs"),
        (longer(), r"module\.2\.weight is new, the first of 2"),
    ],
)
def test_another_model_is_told_by_its_first_tensor_that_differs(other, words):
    result = calibrate(named("module"), X, disagreement, call=call, **SETTINGS)
    for certificate in (result, Calibration.from_json(result.to_json())):
        with pytest.raises(ValueError, match=words):
            certificate.prune(other)


def test_records_without_these_fields_are_still_read():
    result = calibrate(named("module"), X, disagreement, call=call, **SETTINGS)
    record = json.loads(result.to_json())
    for name in ("weights", "prunable", "matrix", "zeros", "tensors"):
        del record[name]
    old = Calibration.from_json(json.dumps(record))
    assert old.matrix is None and "matrix" not in str(old)
    with pytest.raises(ValueError, match=re.escape("its weights, buffers or dtype differ")):
        old.prune(named("net"))
    for odd in ({"zeros": result.prunable + 1}, {"matrix": result.prunable - 1}, {"zeros": -1}):
        with pytest.raises(ValueError, match="zeros, prunable and matrix"):
            Calibration.from_json(json.dumps(json.loads(result.to_json()) | odd))
    with pytest.raises(ValueError, match="prunable"):
        Calibration.from_json(json.dumps(record | {"prunable": "all"}))


def test_calibration_calls_the_model_as_it_is_told():
    model, labels = mixed(), torch.arange(200) % 3
    settings = SETTINGS | {"alpha": 0.9}

    def wrong(pruned, full, target):
        return pruned.argmax(1) != target

    for run in (calibrate, lambda *given, **options: selective.calibrate(*given, thresholds=[0.5, 0.0], **options)):
        hooks = dict(weights=["*.weight"])
        want = run(model, (X, labels), wrong, **settings, **hooks)
        hooks |= dict(call=lambda network, batch: network(batch[0]), target=lambda batch: batch[1])
        got = run(model, (X, labels), wrong, **settings, **hooks)
        assert (got.p_values == want.p_values).all() and got.data_sha256 is not None
