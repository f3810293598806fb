"""Every loss against a loop over examples and positions, and what the losses refuse."""

import functools
from itertools import product

import numpy as np
import pytest
import torch

from confprune_edu import losses

CLASSIFICATION = ("disagreement", "error", "degradation", "accuracy_drop")
MASKS = ("one_minus_iou", "one_minus_dice", "false_negative_rate", "dice_degradation")


def scores(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def decided(scores):
    """Position of the largest of a list."""
    return max(range(len(scores)), key=lambda c: scores[c])


def one_decision(name, pruned, full, target):
    """The loss of one decision, from the class scores of two networks."""
    a, b = decided(pruned), decided(full)
    return {
        "disagreement": a != b,
        "error": a != target,
        "degradation": b == target and a != target,
        "accuracy_drop": (a != target) - (b != target),
    }[name]


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_one_decision_an_example(name):
    pruned, full = scores(200, 3, seed=0), scores(200, 3, seed=1)
    target = torch.randint(3, (200,), generator=torch.Generator().manual_seed(2))
    got = getattr(losses, name)(pruned, full, target)
    want = [one_decision(name, *row) for row in zip(pruned.tolist(), full.tolist(), target.tolist(), strict=True)]
    assert got.tolist() == want
    assert got.dtype == (torch.float64 if name == "accuracy_drop" else torch.bool)
    assert len(set(want)) == (3 if name == "accuracy_drop" else 2)


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_many_decisions_an_example(name):
    pruned, full = scores(5, 3, 4, 6, seed=0), scores(5, 3, 4, 6, seed=1)
    target = torch.randint(3, (5, 4, 6), generator=torch.Generator().manual_seed(2))
    got = getattr(losses, name)(pruned, full, target)
    want = [
        sum(
            one_decision(name, pruned[i, :, y, x].tolist(), full[i, :, y, x].tolist(), int(target[i, y, x]))
            for y, x in product(range(4), range(6))
        )
        / 24
        for i in range(5)
    ]
    assert got.dtype == torch.float64 and got.tolist() == pytest.approx(want, abs=1e-15)


def test_accuracy_drop_counts_mended_decisions_and_states_its_range():
    pruned, full = torch.tensor([[1.0, 0], [1, 0], [1, 0]]), torch.tensor([[0.0, 1], [1, 0], [0, 1]])
    assert losses.accuracy_drop(pruned, full, torch.tensor([0, 0, 1])).tolist() == [-1, 0, 1]
    assert losses.accuracy_drop.range == (-1, 1)
    assert not any(hasattr(getattr(losses, name), "range") for name in ("error", "disagreement", *MASKS))


def dice(a, b):
    both, sizes = sum(x and y for x, y in zip(a, b, strict=True)), sum(a) + sum(b)
    return 2 * both / sizes if sizes else 1.0


def one_mask(name, a, full, b):
    """The loss of one mask, from lists of bools: the pruned network's, the full network's, the truth."""
    both = sum(x and y for x, y in zip(a, b, strict=True))
    either = sum(x or y for x, y in zip(a, b, strict=True))
    return {
        "one_minus_iou": 1 - (both / either if either else 1),
        "one_minus_dice": 1 - dice(a, b),
        "false_negative_rate": 1 - (both / sum(b) if sum(b) else 1),
        "dice_degradation": max(0, dice(full, b) - dice(a, b)),
    }[name]


def masks():
    """Logits (40, 5, 7) of two networks and true masks; the first eight hold each combination of empty ones."""
    pruned, full, truth = (scores(40, 5, 7, seed=seed) for seed in (0, 1, 2))
    for i, empty in enumerate(product([False, True], repeat=3)):
        for logits, gone in zip((pruned, full, truth), empty, strict=True):
            if gone:
                logits[i] = -1
    return pruned, full, truth > 0


def flat(logits):
    return [[value > 0 for value in row] for row in logits.flatten(1).tolist()]


@pytest.mark.parametrize("name", MASKS)
def test_masks(name):
    pruned, full, truth = masks()
    want = [one_mask(name, *row) for row in zip(flat(pruned), flat(full), flat(truth), strict=True)]
    loss = getattr(losses, name)
    for target in (truth, truth.float(), truth.to(torch.uint8), truth[:, None], truth.numpy()):
        assert loss(pruned, full, target).tolist() == pytest.approx(want, abs=1e-15)
    got = loss(pruned[:, None], full[:, None], truth[:, None])
    assert got.shape == (40,) and got.dtype == torch.float64 and got.min() >= 0 and got.max() <= 1
    assert got.tolist() == pytest.approx(want, abs=1e-15)


@pytest.mark.parametrize("name", MASKS[:3])
def test_masks_against_the_full_network_need_no_labels(name):
    pruned, full, _ = masks()
    loss = functools.partial(getattr(losses, name), against="full")
    want = [one_mask(name, a, b, b) for a, b in zip(flat(pruned), flat(full), strict=True)]
    assert loss(pruned, full, None).tolist() == pytest.approx(want, abs=1e-15)


@pytest.mark.parametrize(
    "pruned, truth, iou, fnr",
    [([0, 0], [0, 0], 0, 0), ([1, 0], [0, 0], 1, 0), ([0, 0], [1, 0], 1, 1), ([1, 1], [1, 1], 0, 0)],
)
def test_empty_masks(pruned, truth, iou, fnr):
    a, b = torch.tensor([[pruned]]) - 0.5, torch.tensor([[truth]])
    assert losses.one_minus_iou(a, None, b).item() == losses.one_minus_dice(a, None, b).item() == iou
    assert losses.false_negative_rate(a, None, b).item() == fnr


def test_a_logit_of_zero_is_outside_the_mask():
    assert losses.one_minus_iou(torch.zeros(1, 2, 2), None, torch.zeros(1, 2, 2)).item() == 0


def test_half_precision_counts_exactly():
    logits, truth = torch.ones(1, 70, 70, dtype=torch.float16), torch.ones(1, 70, 70, dtype=torch.bool)
    truth[0, 0, 0] = False  # areas of 4,899 and 4,900 are one number in float16
    assert losses.one_minus_iou(logits, None, truth).item() == pytest.approx(1 / 4900, abs=1e-15)


SCORES, LABELS = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([1, 0])
NAN = torch.tensor([[0.0, 1.0], [torch.nan, 0.0]])


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize(
    "bad, problem, words",
    [
        ((SCORES, SCORES), TypeError, "tuple"),
        ({"logits": SCORES}, TypeError, "dict"),
        (SCORES[:, :1], ValueError, "at least two classes"),
        (SCORES[:, 0], ValueError, "at least two classes"),
        (NAN, ValueError, "NaN"),
    ],
    ids=["tuple", "dict", "one column", "one axis", "NaN"],
)
def test_outputs_that_are_no_class_scores_are_refused(name, bad, problem, words):
    loss = getattr(losses, name)
    with pytest.raises(problem, match="pruned") as caught:
        loss(bad, SCORES, LABELS)
    assert words in str(caught.value)
    if name != "error":
        with pytest.raises(problem, match="full"):
            loss(SCORES, bad, LABELS)


@pytest.mark.parametrize("name", CLASSIFICATION[1:])
@pytest.mark.parametrize(
    "target",
    [None, LABELS.float(), LABELS.bool(), torch.eye(2, dtype=torch.int64), LABELS[:1], LABELS[:, None]],
    ids=["missing", "float", "bool", "one-hot", "short", "column"],
)
def test_targets_that_are_no_class_indices_are_refused(name, target):
    with pytest.raises(ValueError, match="target"):
        getattr(losses, name)(SCORES, SCORES, target)


def test_error_does_not_need_the_full_network_nor_disagreement_the_labels():
    assert losses.error(SCORES, None, np.array([1, 1])).tolist() == [False, True]
    assert losses.disagreement(SCORES, SCORES.flip(1)).tolist() == [True, True]


LOGITS = torch.tensor([[[1.0, -1.0], [1.0, -1.0]]])


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    "pruned, target, problem, words",
    [
        (LOGITS, None, ValueError, "target"),
        (LOGITS, 255 * (LOGITS > 0), ValueError, "target"),
        (LOGITS, torch.full((1, 2, 2), 0.5), ValueError, "target"),
        (LOGITS, torch.full((1, 2, 2), torch.nan), ValueError, "target"),
        (LOGITS, LOGITS[:, :1] > 0, ValueError, "target"),
        (LOGITS, LOGITS[0] > 0, ValueError, "target"),
        (LOGITS[0], LOGITS > 0, ValueError, "pruned"),
        (torch.ones(1, 2, 2, 2), LOGITS > 0, ValueError, "pruned"),
        (LOGITS * torch.nan, LOGITS > 0, ValueError, "pruned"),
        ((LOGITS, LOGITS), LOGITS > 0, TypeError, "pruned"),
    ],
    ids=["none", "0/255", "grey", "NaN truth", "shape", "no batch", "2 axes", "2 channels", "NaN", "tuple"],
)
def test_masks_of_another_kind_are_refused(name, pruned, target, problem, words):
    with pytest.raises(problem, match=words):
        getattr(losses, name)(pruned, LOGITS, target)


@pytest.mark.parametrize("name", MASKS[:3])
def test_against_is_target_or_full(name):
    with pytest.raises(ValueError, match="against"):
        getattr(losses, name)(LOGITS, LOGITS, LOGITS > 0, against="truth")
    with pytest.raises(ValueError, match="full"):
        getattr(losses, name)(LOGITS, LOGITS[:, :1], None, against="full")
    with pytest.raises(TypeError, match="full"):
        getattr(losses, name)(LOGITS, None, None, against="full")


@pytest.mark.parametrize("loss", [losses.error, losses.degradation, losses.accuracy_drop])
@pytest.mark.parametrize("labels", [[1, 2, 3], [0, 1, -100]])
def test_labels_outside_the_classes_are_refused(loss, labels):
    scores = torch.eye(3)
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.2"):
        loss(scores, scores, torch.tensor(labels))


def test_probabilities_are_not_taken_for_logits():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.3, 0.1, 0.2]])
    with pytest.warns(UserWarning, match="pruned seems to hold probabilities"):
        losses.confidence(logits.softmax(dim=1))
    losses.confidence(logits)  # a warning would be an error here
    losses.confidence(logits.log_softmax(dim=1))
    losses.confidence(torch.tensor([[0.7, 0.3], [0.5, 0.9]]))  # only one row of these sums to 1


def test_infinite_scores_are_scores():
    scores = torch.tensor([[torch.inf, -torch.inf], [0.0, 1.0]])
    assert losses.error(scores, None, torch.tensor([0, 0])).tolist() == [False, True]
    with pytest.raises(ValueError, match="NaN"):
        losses.error(torch.tensor([[torch.inf, -torch.inf], [torch.nan, 1.0]]), None, torch.tensor([0, 0]))
