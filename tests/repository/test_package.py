"""What importing the package costs: the statistics lessons start in a second and run without torch."""

import subprocess
import sys

import pytest

STATISTICS = ("confprune_edu", "confprune_edu.pvalues", "confprune_edu.fwer")


def run(code):
    """The output of `code` in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", STATISTICS)
def test_importing_the_statistics_loads_nothing_heavy(module):
    loaded = run(f"import sys, {module}; print(*sys.modules)").split()
    assert module in loaded
    heavy = {"torch", "torchvision", "matplotlib", "IPython", "ipywidgets", "scipy.stats", "scipy.optimize", "pandas"}
    assert heavy.isdisjoint(loaded)


def test_a_lesson_loads_neither_torchvision_nor_the_compiler_of_torch():
    """They would take 170 MB more, of the 2 GB that Binder gives all kernels together."""
    rooms = "calibration, data, evaluation, exercises, losses, models, plots, pruning, selective, validation, widgets"
    loaded = run(f"import sys; from confprune_edu import {rooms}; print(*sys.modules)").split()
    assert "torch" in loaded and {"torchvision", "torch._dynamo"}.isdisjoint(loaded)


def test_the_statistics_run_where_torch_is_missing():
    code = """
import sys
sys.modules.update(dict.fromkeys(["torch", "torchvision", "matplotlib", "ipywidgets", "scipy.stats"]))
try:
    import torch
except ImportError:
    from confprune_edu.fwer import fixed_sequence
    from confprune_edu.pvalues import p_values
    print(fixed_sequence(p_values([[0, 1]] * 50, 0.1), 0.1).tolist())
"""
    assert run(code) == "[True, False]\n"


def test_importing_changes_no_global_state():
    code = """
import random, warnings
import numpy as np, scipy.special
filters, errors, options = list(warnings.filters), np.geterr(), np.get_printoptions()
states = random.getstate(), np.random.get_state()[1].tolist()
import confprune_edu.fwer, confprune_edu.pvalues
assert (list(warnings.filters), np.geterr(), np.get_printoptions()) == (filters, errors, options)
assert (random.getstate(), np.random.get_state()[1].tolist()) == states
"""
    assert run(code) == ""


def test_importing_the_statistics_costs_less_than_half_a_second_beyond_numpy():
    code = """
import time
import numpy
start = time.process_time()
import confprune_edu.fwer, confprune_edu.pvalues
print(time.process_time() - start)
"""
    assert min(float(run(code)) for _ in range(5)) < 0.5
