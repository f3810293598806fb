"""The benchmark compares ways that give the same table, and prints what it measured. No time is tested."""

import re

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from confprune_edu import data, evaluation, losses, models, pruning
from confprune_edu.course import benchmark, command


def test_the_usual_way_gives_the_same_table(mlp, digits):
    some, ratios = tuple(part[:500] for part in digits), [0.0, 0.5, 0.9, 0.95]
    usual = benchmark.usual_table(mlp, lambda: DataLoader(TensorDataset(*some), batch_size=64), ratios, losses.error)
    np.testing.assert_array_equal(usual, evaluation.loss_table(mlp, some, ratios, losses.error))
    assert usual[:, -1].mean() > usual[:, 0].mean()


def test_the_usual_way_gives_the_same_table_of_masks():
    model, frames = models.load("polyp-unet"), data.phantom_polyps(12, seed=0, size=64)
    for weight in pruning.prunable(model).values():  # stored in half precision: ties, which torch breaks otherwise
        weight.data *= 1 + 1e-3 * torch.rand(weight.shape, generator=torch.Generator().manual_seed(0))
    pair, ratios = (frames.images, frames.masks), [0.0, 0.3, 0.6]
    usual = benchmark.usual_table(model, lambda: [pair], ratios, losses.one_minus_dice)
    table = evaluation.loss_table(model, pair, ratios, losses.one_minus_dice)
    assert np.abs(usual - table).max() < 0.02 and np.abs(usual - table).mean() < 1e-3  # a pixel at 0 may turn
    assert table.std() > 0.1


@pytest.mark.parametrize("name", [*benchmark.BATCHED, "polyp-unet"])
def test_calibrate_and_the_table_it_is_compared_with_evaluate_the_same(name):
    first, *others = benchmark.calibrate_ways(name, 12, 6, 0.6).items()
    table = first[1]()
    for how, way in others:
        result = way()
        seen = np.isfinite(result.p_values)
        assert how != "calibrate" or result.evaluated == table.shape[1]
        np.testing.assert_allclose(result.loss_means[seen], table.mean(axis=0)[: seen.sum()], atol=1e-6)


@pytest.mark.parametrize("ways", [benchmark.denormal_ways, benchmark.thread_ways])
def test_these_ways_give_one_table_each_time_and_leave_the_threads_alone(ways):
    threads, (first, *others) = torch.get_num_threads(), ways(300, 6).values()
    for other in others:
        np.testing.assert_array_equal(other(), first())
    assert torch.get_num_threads() == threads


def test_all_ways_take_turns_and_the_first_turn_does_not_count():
    calls = []
    result = benchmark.race("turns", {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert list(result.seconds) == ["a", "b"] and all(s >= 0 for s in result.seconds.values())


def test_a_race_is_told_as_multiples_of_its_first_way():
    lines = str(benchmark.Race("title", {"bound": 0.5, "a longer name": 2.0})).splitlines()
    assert lines[0] == "title" and lines[1].split() == ["median", "of", "bound"]
    assert [line.split()[-2] for line in lines[2:]] == ["1.00", "4.00"]
    assert len({len(line) for line in lines[2:]}) == 1


def test_the_benchmark_runs(capsys, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        benchmark,
        "race",
        lambda title, ways, rounds=5: (
            asked.append((title, len(ways), rounds)) or benchmark.Race(title, dict.fromkeys(ways, 1.0))
        ),
    )
    assert command.main(["bench", "--chart", str(tmp_path / "chart.png")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"\d+ cores, \d+ threads, torch", printed)
    tables = [title.split(":")[0] for title, *_ in asked if ":" in title]
    once, last = ["MLP", "UNet", "UNet", "Splits", "Growth"], ["Grid", "Denormal weights", "Threads"]
    assert tables == [*once, *["Calibrate"] * 5, *["Batches"] * 6, *last]
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_the_quick_benchmark_measures(capsys):
    assert command.main(["bench", "--quick"]) == 0
    printed = capsys.readouterr().out
    assert "loss_table" in printed and "one matrix product" in printed
    assert all(float(x) > 0 for x in re.findall(r"([\d.]+) x$", printed, re.MULTILINE))


def test_the_bound_multiplies_no_denormals(mlp, monkeypatch):
    seen, linear = [], torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w: seen.extend([x, w]) or linear(x, w))
    benchmark.mlp_ways(20, 2)["dense products"]()

    def denormals(tensor):
        return int(((tensor != 0) & (tensor.abs() < torch.finfo(tensor.dtype).tiny)).sum())

    plain = [tensor for tensor in seen if not tensor.is_mkldnn]
    assert len(plain) >= 6 and not any(map(denormals, plain))
    assert all(map(denormals, pruning.prunable(mlp).values()))  # the shipped weights have some


def test_races_are_drawn_as_multiples():
    picture = benchmark.races({"one": {"bound": 2.0, "way": 1.0}, "two": {"bound": 1.0, "way": 30.0}})
    assert [bar.get_width() for bar in picture.axes[0].patches] == [1.0, 0.5]
    assert picture.alt.endswith("One: bound 1 x, way 0.5 x; Two: bound 1 x, way 30 x.")
