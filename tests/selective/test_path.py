"""A path that stops early is the path through the whole table, and evaluates at most one block beyond."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from confprune_edu import evaluation, losses, pruning, selective

RATIOS = [j / 40 for j in range(40)]
TAUS = [0.9, 0.7, 0.5, 0.4, 0.0]  # the path goes down 0.5


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3, bias=False))


INPUTS = 3 * torch.randn(400, 6, generator=torch.Generator().manual_seed(1))


class Counts:
    """A loss that counts the networks it is given: each answers all examples in one batch."""

    __name__ = "disagreement"

    def __init__(self):
        self.calls = 0

    def __call__(self, pruned, full, target):
        self.calls += 1
        return losses.disagreement(pruned, full, target)


def lazy(loss=losses.disagreement, **options):
    setting = {"alpha": 0.1, "delta": 0.1, "ratios": RATIOS, "thresholds": TAUS, "procedure": "path"} | options
    return selective.calibrate(network(), INPUTS, loss, progress=False, **setting)


def whole(**options):
    wanted = {"confidence": losses.confidence, "loss": losses.disagreement}
    tables = evaluation.loss_tables(network(), INPUTS, RATIOS, wanted, progress=False)
    setting = {"alpha": 0.1, "delta": 0.1, "procedure": "path"} | options
    return selective.calibrate_losses(tables["confidence"], tables["loss"], RATIOS, TAUS, **setting)


def end(result):
    """The place of the first failure of the path."""
    return int(np.argmin(result.rejected[:, 2]))


@pytest.mark.parametrize("options", [{}, {"alpha": 0.3}, {"coverage": 0.4}, {"p_value": "betting", "alpha": 0.2}])
@pytest.mark.parametrize("block", [None, 1, 7, 100])
def test_the_path_is_that_through_the_whole_table(options, block):
    result, want = lazy(block=block, **options), whole(**options)
    tested = end(want) + 1
    assert 1 < tested < 40
    assert (result.rejected == want.rejected).all()
    for name in ("p_values", "coverage", "risk"):
        mine, full = getattr(result, name), getattr(want, name)
        assert np.allclose(mine[:tested], full[:tested], rtol=1e-12, atol=0, equal_nan=True)
        assert np.isnan(mine[tested:]).all()
    assert result.best() == dataclasses.replace(want.best(), confidence="confidence")


@pytest.mark.parametrize("block", [None, 1, 3])
def test_at_most_one_block_is_evaluated_beyond(block):
    loss = Counts()
    result = lazy(loss, block=block)
    tested = end(result) + 1
    most = block or max(4, tested // 8)
    assert tested <= result.evaluated < tested + most and (block != 1 or result.evaluated == tested)
    assert result.evaluated <= loss.calls <= result.evaluated + 2 < 40  # two looks at the form of what it is given
    assert f"{result.evaluated} of 40 ratios evaluated" in " ".join(repr(result).split())
    one = lazy(block=1)
    assert dataclasses.replace(result, evaluated=one.evaluated, loss=one.loss).to_json() == one.to_json()


@pytest.mark.parametrize("family", [{"finish": lambda model: None}, {"family": pruning.prune}])
def test_with_finish_or_family_none_is_evaluated_beyond(family):
    result = lazy(**family)
    assert result.evaluated == end(result) + 1


@pytest.mark.parametrize("procedure", ["rows", "graph", "split"])
def test_other_procedures_need_the_whole_table(procedure):
    result = lazy(procedure=procedure, alpha=0.3)
    assert result.evaluated is None and np.isfinite(result.p_values).all()


def test_a_path_that_stops_is_written_drawn_and_read():
    result = lazy()
    again = selective.SelectiveCalibration.from_json(result.to_json())
    assert again.to_json() == result.to_json() and repr(again) == repr(result)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = result.plot()
    assert picture.alt.startswith(f"{result.rejected.sum()} of 200 pairs certified")


def test_nothing_certified_is_an_answer():
    result = lazy(alpha=0.001)
    assert result.best() is None and result.evaluated == 4 and np.isfinite(result.p_values[0]).all()
    assert selective.SelectiveCalibration.from_json(result.to_json()).evaluated == 4
    assert "the path must begin with p <= delta = 0.1" in " ".join(repr(result).split())


@pytest.mark.parametrize(
    "change",
    [
        {"evaluated": 1},
        {"evaluated": 41},
        {"evaluated": 2.5},
        {"procedure": "rows"},
        lambda record, last: record["p_values"].__setitem__(last, [None] * 5),
        lambda record, last: record["coverage"].__setitem__(last + 1, [0.5] * 5),
        lambda record, last: record["rejected"].__setitem__(last + 1, [False, False, True, False, False]),
        lambda record, last: record["rejected"][last].__setitem__(2, True),
    ],
)
def test_records_of_a_path_that_contradict_themselves_are_refused(change):
    result = lazy()
    record = json.loads(result.to_json())
    if callable(change):
        change(record, end(result))
    else:
        record |= change
    with pytest.raises(ValueError, match="contradicts itself"):
        selective.SelectiveCalibration.from_json(json.dumps(record))


@pytest.mark.parametrize("block", [0, -1, 1.5, True])
def test_a_block_that_is_none_is_refused(block):
    with pytest.raises((TypeError, ValueError), match="block"):
        lazy(block=block)
