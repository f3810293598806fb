"""The same table on threads, processes and a Dask cluster, also when a worker dies."""

import errno
import importlib.util
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from confprune_edu import calibration, evaluation, losses
from confprune_edu.engine import batches, executors

RATIOS = [0.0, 0.5, 0.9, 0.95]


@pytest.fixture(scope="module")
def local(digits):
    from confprune_edu import models

    return evaluation.loss_table(models.load("mnist-mlp"), digits, RATIOS, losses.error)


def until_killed(marker, pruned, full, target):
    """`losses.error`, by a worker that kills its own process if it is the first."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return losses.error(pruned, full, target)
    os.kill(os.getpid(), 9)


def always_killed(pruned, full, target):
    os.kill(os.getpid(), 9)


def spawned(workers):
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def processes():
    with spawned(2) as executor:
        yield executor


def test_weights_that_share_memory_still_do_when_they_arrive(processes):
    model = nn.Sequential(nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 20))
    model[2].weight.data = model[0].weight.data.T
    x = torch.randn(60, 20)
    want = evaluation.loss_table(model, x, RATIOS, distance)
    np.testing.assert_allclose(evaluation.loss_table(model, x, RATIOS, distance, executor=processes), want, atol=1e-5)


def distance(pruned, full, target):
    return 1 - (pruned - full).abs().sum(1).neg().exp()


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.mark.parametrize("pool", ["threads", pytest.param("processes", marks=pytest.mark.long)])
def test_other_workers_give_the_same_table(pool, request, mlp, digits, local, unchanged):
    executor = request.getfixturevalue(pool)
    with unchanged(mlp):
        table = evaluation.loss_table(mlp, digits, RATIOS, losses.error, executor=executor)
        tables = evaluation.loss_tables(mlp, digits, RATIOS, {"a": losses.error}, executor=executor)
    np.testing.assert_array_equal(table, local)
    np.testing.assert_array_equal(tables["a"], local)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_tables_are_the_same_bit_by_bit_whatever_the_number_of_workers(workers, mlp, digits):
    some, ratios = digits[0][:420], np.arange(40) / 40
    want = evaluation.loss_table(mlp, some, ratios, distance, batch_size=60)
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)) as pool:
        got = evaluation.loss_table(mlp, some, ratios, distance, batch_size=60, executor=pool)
    np.testing.assert_array_equal(got, want)


def test_workers_do_not_have_the_autocast_of_this_thread(mlp, digits, threads):
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="executor: autocast"):
        evaluation.loss_table(mlp, digits, RATIOS, losses.error, executor=threads)
    with torch.autocast("cpu", torch.bfloat16):
        want = evaluation.loss_table(mlp, digits[0][:60], RATIOS, distance)

    def half(model, inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return model(inputs)

    got = evaluation.loss_table(mlp, digits[0][:60], RATIOS, distance, call=half, executor=threads)
    np.testing.assert_allclose(got, want, atol=1e-2)


@pytest.mark.parametrize("pool", ["threads", pytest.param("processes", marks=pytest.mark.long)])
@pytest.mark.parametrize("procedure", ["fixed_sequence", "holm"])
def test_other_workers_give_the_same_certificate(pool, procedure, request, mlp, digits):
    settings = dict(alpha=0.1, delta=0.1, ratios=np.arange(80, 100, 2) / 100, procedure=procedure)
    here = calibration.calibrate(mlp, digits, losses.error, **settings)
    there = calibration.calibrate(mlp, digits, losses.error, executor=request.getfixturevalue(pool), **settings)
    assert there.to_json() == here.to_json() and here.ratio is not None


@pytest.mark.long
def test_inputs_alone_scores_and_finish_travel(mlp, digits, processes):
    scores = {
        name: torch.rand(w.shape, generator=torch.Generator().manual_seed(0)) for name, w in mlp.named_parameters()
    }
    scores = {name: score for name, score in scores.items() if name.endswith("weight")}
    how = {"scores": scores, "finish": partial(nn.Module.requires_grad_, requires_grad=False)}
    want = evaluation.loss_table(mlp, digits[0][:300], RATIOS, losses.disagreement, batch_size=16, **how)
    how["executor"] = processes
    got = evaluation.loss_table(mlp, digits[0][:300], RATIOS, losses.disagreement, batch_size=16, **how)
    np.testing.assert_array_equal(got, want)


@pytest.mark.long
def test_a_dask_cluster_survives_the_death_of_a_worker(mlp, digits, local, tmp_path):
    import dask
    from distributed import Client, LocalCluster

    quiet = {"distributed.admin.large-graph-warning-threshold": "1GB", "distributed.logging.distributed": "critical"}
    # a worker that imports torch in the middle of its work does not answer meanwhile, and is given up on a busy machine
    how = dict(threads_per_worker=1, host="127.0.0.1", dashboard_address=None, preload="confprune_edu.evaluation")
    with dask.config.set(quiet), LocalCluster(n_workers=2, silence_logs=50, **how) as two, Client(two) as client:
        pids = set(client.run(os.getpid).values())
        deadly = partial(until_killed, str(tmp_path / "marker"))
        table = evaluation.loss_table(mlp, digits, RATIOS, deadly, executor=client.get_executor(pure=False))
        assert set(client.run(os.getpid).values()) != pids  # one was killed, and another took its place
    np.testing.assert_array_equal(table, local)


@pytest.mark.long
def test_a_broken_process_pool_is_reported(mlp, digits):
    with spawned(1) as executor, pytest.raises(RuntimeError, match=r"piece 1 of .* or the executor is broken"):
        evaluation.loss_table(mlp, digits, RATIOS, always_killed, executor=executor)


FORKED = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import nn

from confprune_edu import evaluation, losses

torch.set_num_threads(2)
model, inputs = nn.Sequential(nn.Linear(300, 500), nn.ReLU(), nn.Linear(500, 5)), torch.randn(2000, 300)
model(inputs)  # OpenMP has two threads from here on
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor:
    table = evaluation.loss_table(model, inputs, [0.0, 0.9], losses.disagreement, executor=executor)
assert (table == evaluation.loss_table(model, inputs, [0.0, 0.9], losses.disagreement)).all()
print(torch.get_num_threads())
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_forked_workers_do_not_wait_for_the_threads_of_their_parent():
    command = [sys.executable, "-W", "ignore", "-c", FORKED]  # Python 3.12 warns of any fork with threads
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr


class Homeless(nn.Linear):
    """A network that only a notebook defines."""


def test_what_a_worker_cannot_find_is_named(monkeypatch):
    monkeypatch.setattr(Homeless, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Homeless", Homeless, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # no cloudpickle, which sends the class itself
    with spawned(1) as executor, pytest.raises(TypeError, match=r"'Homeless'.* into a module of its own"):
        evaluation.loss_table(Homeless(4, 3), torch.ones(8, 4), [0.5], losses.disagreement, executor=executor)
    with spawned(1) as executor, pytest.raises(TypeError, match=r"lambda.* into a module of its own"):
        evaluation.loss_table(nn.Linear(4, 3), torch.ones(8, 4), [0.5], lambda p, f, t: p[:, 0] > 9, executor=executor)


class Unlucky(Executor):
    """Loses the first `deaths` jobs that it is given."""

    def __init__(self, deaths, problem):
        self.deaths, self.problem, self.given = deaths, problem, 0

    def submit(self, work, *job):
        self.given += 1
        future = Future()
        if self.given <= self.deaths:
            future.set_exception(self.problem)
        else:
            try:
                future.set_result(work(*job))
            except Exception as problem:
                future.set_exception(problem)
        return future


@pytest.mark.parametrize(
    "problem", [BrokenExecutor(), ConnectionResetError(), type("KilledWorker", (Exception,), {})()]
)
def test_a_job_whose_worker_died_is_given_once_more(problem):
    executor = Unlucky(2, problem)
    assert list(executors.in_turn(executor, pow, [(2, 3), (3, 2), (5, 1)])) == [8, 9, 5]
    assert executor.given == 5
    with pytest.raises(RuntimeError, match="piece 1 of 1"):
        list(executors.in_turn(Unlucky(2, problem), pow, [(2, 3)]))


def test_the_exceptions_of_a_job_are_its_own():
    executor = Unlucky(0, None)
    with pytest.raises(ZeroDivisionError):
        list(executors.in_turn(executor, divmod, [(1, 0)]))
    assert executor.given == 1  # not tried again
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match=r"must lie in"):
        evaluation.loss_table(nn.Linear(2, 2), torch.ones(9, 2), [0.5], lambda p, f, t: p[:, 0] * 0 + 7, executor=pool)


def test_pieces_are_whole_batches_and_few(digits):
    pieces, size = batches.cut(digits, 7, executors.PIECES)
    sizes = [len(x) for x, _ in pieces]
    assert size == 7 and sum(sizes) == 5000 and len(pieces) <= executors.PIECES
    assert all(s % 7 == 0 for s in sizes[:-1])
    assert torch.equal(torch.cat([x for x, _ in pieces]), digits[0])
    assert all(x.untyped_storage().nbytes() == 4 * x.numel() for x, _ in pieces)  # no more than itself travels
    assert len(batches.cut(digits[0][:3], None, executors.PIECES)[0]) == 1


@pytest.mark.parametrize("data", [DataLoader(torch.ones(9, 2)), TensorDataset(torch.ones(9, 2))])
def test_loaders_cannot_be_cut(data):
    with ThreadPoolExecutor(1) as pool, pytest.raises(TypeError, match="data must be tensors or arrays"):
        evaluation.loss_table(nn.Linear(2, 2), data, [0.5], losses.disagreement, executor=pool)


# Tables in a file


class Endless(IterableDataset):
    def __iter__(self):
        return iter(torch.ones(9, 784))


@pytest.mark.parametrize("form", ["tensors", "loader", "executor", "finish"])
@pytest.mark.parametrize("loss", [losses.error, losses.accuracy_drop])
def test_a_table_in_a_file_is_the_same_table(form, loss, mlp, digits, tmp_path):
    some = tuple(part[:700] for part in digits)
    want = evaluation.loss_table(mlp, some, RATIOS, loss)
    data = DataLoader(TensorDataset(*some), batch_size=128) if form == "loader" else some
    how = {"finish": lambda network: None} if form == "finish" else {}
    with ThreadPoolExecutor(1) as pool:
        how |= {"executor": pool} if form == "executor" else {}
        table = evaluation.loss_table(mlp, data, RATIOS, loss, out=tmp_path / "table.npy", **how)
    assert isinstance(table, np.memmap) and table.dtype == want.dtype
    np.testing.assert_array_equal(table, want)
    np.testing.assert_array_equal(np.load(tmp_path / "table.npy"), want)


def test_a_table_in_a_file_needs_the_number_of_examples(mlp, tmp_path):
    with pytest.raises(TypeError, match="data must tell its length"):
        evaluation.loss_table(mlp, DataLoader(Endless()), RATIOS, losses.disagreement, out=Path(tmp_path, "t.npy"))
    short = DataLoader(torch.ones(9, 784), batch_size=4, drop_last=True)
    with pytest.raises(ValueError, match="all of its 9 examples, got 8"):
        evaluation.loss_table(mlp, short, RATIOS, losses.disagreement, out=Path(tmp_path, "t.npy"))


def test_a_table_in_a_file_replaces_no_other(mlp, digits, tmp_path):
    out = tmp_path / "table.npy"
    out.write_text("kept", encoding="utf-8")
    with pytest.raises(FileExistsError, match="delete it first"):
        evaluation.loss_table(mlp, digits[0][:9], RATIOS, losses.disagreement, out=out)

    def written_meanwhile(pruned, full, target):
        (tmp_path / "other.npy").write_text("kept", encoding="utf-8")
        return losses.disagreement(pruned, full, target)

    with pytest.raises(FileExistsError, match=r"other\.npy exists"):
        evaluation.loss_table(mlp, digits[0][:9], RATIOS, written_meanwhile, out=tmp_path / "other.npy")
    assert {path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {"kept"}


def test_a_folder_that_is_not_there_is_named(mlp, digits, tmp_path):
    out = tmp_path / "nowhere" / "table.npy"
    with pytest.raises(FileNotFoundError, match=rf"out: No such file or directory: '{out}'"):
        evaluation.loss_table(mlp, digits[0][:9], RATIOS, losses.disagreement, out=out)


@pytest.mark.parametrize("end", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_table_leaves_no_file(end, mlp, digits, tmp_path):
    seen = []

    def interrupted(pruned, full, target):
        if len(seen) == len(RATIOS):  # the first batch is written
            assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
            raise end
        seen.append(0)
        return losses.disagreement(pruned, full, target)

    with pytest.raises(end):
        evaluation.loss_table(mlp, digits[0][:40], RATIOS, interrupted, batch_size=10, out=tmp_path / "table.npy")
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, sys
import torch
from confprune_edu import evaluation, losses

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
evaluation.loss_table(torch.nn.Linear(2, 2), torch.ones(5000, 2), [0.5], losses.disagreement, out=sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the place cannot be reserved here")
def test_a_table_without_a_place_on_the_disk_is_an_oserror(mlp, digits, tmp_path, monkeypatch):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "t.npy")], capture_output=True, text=True)
    assert done.returncode == 1 and "OSError: [Errno 27]" in done.stderr  # an end by a signal would be below 0

    def full(descriptor, start, length):
        assert length == 128 + 4 * 9  # npy's header and the table
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        evaluation.loss_table(mlp, digits[0][:9], RATIOS, losses.disagreement, out=tmp_path / "t.npy")
    assert not torch.is_inference_mode_enabled()
    assert list(tmp_path.iterdir()) == []
