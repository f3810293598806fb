"""Two functions compared on the same examples."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from confprune_edu.evaluation import same_function


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def test_an_exported_program_is_the_same_function():
    model, inputs = network(), torch.randn(40, 6)
    program = torch.export.export(model, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    found = same_function(model, program.module(), (inputs, torch.zeros(40)), batch_size=16)
    assert found.examples == 40 and found.largest < 1e-5 and found.changed == 0


@pytest.mark.parametrize("loaded", [False, True])
def test_differences_and_changed_decisions_are_counted(loaded):
    inputs = torch.eye(3).repeat(5, 1)
    data = DataLoader(TensorDataset(inputs, torch.zeros(15)), batch_size=4) if loaded else inputs
    swapped = same_function(lambda x: x, lambda x: x[:, [1, 0, 2]], data)
    assert swapped == (15, 1.0, 10)
    assert same_function(lambda x: x, lambda x: 3 * x.numpy(), data) == (15, 2.0, 0)


def test_one_score_decides_by_its_sign_and_a_mask_changes_once_however_many_pixels_do():
    scores = torch.tensor([1.0, -1.0, 2.0])
    assert same_function(lambda x: x, lambda x: -x, scores).changed == 3
    masks = torch.ones(4, 1, 5, 5)
    masks[0] = 0
    assert same_function(lambda x: x, lambda x: 1 - 2 * x, masks).changed == 4
    assert same_function(lambda x: x, lambda x: x / 2, masks) == (4, 0.5, 0)


def test_equal_infinities_hide_no_difference_and_labels_are_decisions():
    def masked(x, shift=0.0):
        return torch.cat([x[:, :2] + shift, torch.full((len(x), 1), -torch.inf)], dim=1)

    found = same_function(masked, lambda x: masked(x, 1000.0), torch.zeros(4, 3))
    assert found == (4, 1000.0, 0)
    labels = torch.tensor([1, 2, 3])
    assert same_function(lambda x: x, lambda x: x + (x == 2), labels).changed == 1


def test_each_function_has_inputs_of_its_own():
    assert same_function(lambda x: x.mul_(2), lambda x: 2 * x, torch.ones(3, 2)).largest == 0


def test_other_shapes_and_nan_are_refused():
    for other in (lambda x: x[:, :1], lambda x: x * float("nan"), lambda x: x * 1j):
        with pytest.raises(ValueError, match="numbers of one shape"):
            same_function(lambda x: x, other, torch.ones(3, 2))
