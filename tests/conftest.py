"""What several test files share: digits, the shipped network, the full MNIST, and a witness that nothing changed."""

import contextlib
import io
import os
import pickle
import random
import shutil
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests and kernels run side by side: more threads would only wait


def pytest_terminal_summary(terminalreporter):
    """Print the times that tests/repository/test_browser.py recorded: a benchmark, on which no test depends."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    kept = [value for report in reports for key, value in report.user_properties if key == "milliseconds"]
    if times := sorted(time for times in kept for time in times):
        median, worst = times[len(times) // 2], times[-1]
        terminalreporter.write_line(f"key to new figure: median {median:.0f} ms, worst {worst:.0f} ms of {len(times)}")


@pytest.fixture(autouse=True)
def environment():
    """What a test, or what it calls, puts into the environment does not reach the next test."""
    with patch.dict(os.environ):
        yield


@pytest.fixture(autouse=True)
def torch_seed():
    """The same draws from torch whatever ran before, as pytest-randomly sees to it for random and numpy.

    Nor does a test leave torch without gradients.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    yield
    if "torch" in sys.modules:
        assert sys.modules["torch"].is_grad_enabled() and not sys.modules["torch"].is_inference_mode_enabled()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The book and the decks of the course, and what the command printed to its progress bar and below."""
    from confprune_edu.course import command

    out, told = tmp_path_factory.mktemp("site") / "out", io.StringIO()
    with contextlib.redirect_stderr(told):
        assert command.main(["html", "--out", str(out)]) == 0
    return out, told.getvalue()


@pytest.fixture(scope="session")
def real_mnist(tmp_path_factory):
    """A folder with the four official .gz of MNIST in MNIST/raw."""
    if "CONFPRUNE_DATA" not in os.environ:
        pytest.skip("needs the environment variable CONFPRUNE_DATA: a folder that contains mnist/*.gz")
    raw = tmp_path_factory.mktemp("real") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in Path(os.environ["CONFPRUNE_DATA"], "mnist").glob("*.gz"):
        shutil.copyfile(packed, raw / packed.name)
    return raw.parents[1]


@pytest.fixture(scope="session")
def digits():
    """Images (5000, 1, 28, 28) and labels (5000,) of the shipped MNIST; not to be changed."""
    from confprune_edu import data

    return data.mnist5k()


@pytest.fixture
def mlp():
    """The shipped MNIST network."""
    from confprune_edu import models

    return models.load("mnist-mlp")


@pytest.fixture
def unchanged():
    """`with unchanged(model, generators...):` fails if the block, however it ends, leaves anything changed behind."""

    @contextlib.contextmanager
    def watch(model, *generators):
        before = _state(model, generators)
        try:
            yield
        finally:
            after = _state(model, generators)
            assert [name for name in before if before[name] != after[name]] == []

    return watch


def _state(model, generators):
    import torch

    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "identity": {name: (id(t), t.data_ptr()) for name, t in tensors.items()},
        "values": {name: _bytes(t) for name, t in tensors.items()},
        "grads": {name: _bytes(t.grad) for name, t in tensors.items()},
        "requires_grad": {name: t.requires_grad for name, t in tensors.items()},
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": {name: len(module._forward_hooks) for name, module in model.named_modules()},
        "torch": _bytes(torch.get_rng_state()),
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "generators": [_bytes(g.get_state()) for g in generators],
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def _bytes(tensor):
    return None if tensor is None else tensor.detach().cpu().resolve_neg().numpy().tobytes()
