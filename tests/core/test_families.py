"""Families of another kind than weights at zero: each against networks made by hand, and what a certificate says."""

import copy
import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from confprune_edu import certificates, losses, pruning, selective, validation
from confprune_edu.calibration import Calibration, calibrate, calibrate_losses
from confprune_edu.course import card
from confprune_edu.evaluation import loss_columns, loss_table, loss_tables

GRID = [0.0, 0.25, 0.5, 0.75]


class Exits(nn.Module):
    """Three blocks, after each of which the head may answer."""

    def __init__(self):
        super().__init__()
        self.blocks, self.head, self.depth = nn.ModuleList(nn.Linear(6, 6) for _ in range(3)), nn.Linear(6, 4), 3

    def forward(self, x):
        for block in self.blocks[: self.depth]:
            x = block(x).relu()
        return self.head(x)


def rounded(model, ratio):
    """Weights of fewer bits: 8 at ratio 0, then 6, 4 and 2."""
    for weight in pruning.prunable(model).values():
        step = weight.detach().abs().max() / 2 ** (7 - 8 * ratio)
        weight.data = (weight.detach() / step).round() * step
    return model


def low_rank(model, ratio):
    """The largest singular values of each weight."""
    for weight in pruning.prunable(model).values():
        u, s, v = torch.linalg.svd(weight.detach(), full_matrices=False)
        s[round((1 - ratio) * len(s)) :] = 0
        weight.data = u @ s.diag() @ v
    return model


def early(model, ratio):
    """Fewer blocks."""
    model.depth = 3 - round(3 * ratio)
    return model


def narrow(model, ratio):
    """A new network, without the last hidden units of the first block."""
    first, second = model.blocks[:2]
    keep = round((1 - ratio) * len(first.weight))
    blocks = nn.Linear(6, keep), nn.Linear(keep, 6), model.blocks[2]
    with torch.no_grad():
        blocks[0].weight.copy_(first.weight[:keep]), blocks[0].bias.copy_(first.bias[:keep])
        blocks[1].weight.copy_(second.weight[:, :keep]), blocks[1].bias.copy_(second.bias)
    made = Exits()
    made.blocks, made.head = nn.ModuleList(blocks), model.head
    return made


narrow.knob = "share of hidden units removed"


@pytest.fixture(scope="module")
def exits():
    torch.manual_seed(0)
    network = Exits().eval()
    for weight in pruning.prunable(network).values():
        weight.data *= 3  # so that classes depend on the inputs more than on the biases
    return network


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(300, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", [rounded, low_rank, early, narrow])
def test_tables_are_those_of_networks_made_by_hand(family, exits, inputs, unchanged):
    with unchanged(exits):
        table = loss_table(exits, inputs, GRID, losses.disagreement, family=family, batch_size=70)
        columns = list(loss_columns(exits, inputs, GRID, losses.disagreement, family=family))
    with torch.no_grad():
        full = exits(inputs).argmax(1)
        want = [family(copy.deepcopy(exits), r)(inputs).argmax(1) != full for r in GRID]
    assert table.T.tolist() == [column.tolist() for column in want] == [c.tolist() for c in columns]
    assert table[:, -1].any()


def test_a_family_of_pruned_copies_is_what_scores_give(mlp, digits):
    data, grid = (digits[0][:400], digits[1][:400]), np.arange(0.8, 1, 0.02)
    wanted = {"loss": losses.disagreement, "confidence": losses.confidence}
    shared = loss_tables(mlp, data, grid, wanted)
    copies = loss_tables(mlp, data, grid, wanted, family=pruning.prune)
    assert (shared["loss"] == copies["loss"]).all()
    np.testing.assert_allclose(shared["confidence"], copies["confidence"], atol=1e-5)
    plan = dict(alpha=0.1, delta=0.1, ratios=grid, progress=False)
    one = calibrate(mlp, data, losses.disagreement, block=1, **plan)
    other = calibrate(mlp, data, losses.disagreement, family=pruning.prune, **plan)
    for name in ("ratio", "n", "evaluated", "data_sha256", "model_sha256"):
        assert getattr(one, name) == getattr(other, name), name
    np.testing.assert_array_equal(one.p_values, other.p_values)
    assert pruning.fingerprint(one.prune(mlp)) == pruning.fingerprint(other.prune(mlp))
    pairs = [
        selective.calibrate(mlp, data, family=f, alpha=0.1, delta=0.1, ratios=grid, progress=False)
        for f in (None, pruning.prune)
    ]
    assert (pairs[0].rejected == pairs[1].rejected).all() and pairs[0].rejected.any()
    one, other = (p.prune(mlp) for p in pairs)
    assert pruning.fingerprint(one) == pruning.fingerprint(other)


def test_ratio_0_need_not_be_the_full_network(exits, inputs):
    table = loss_table(exits, inputs, GRID, losses.disagreement, family=lambda model, ratio: low_rank(model, 0.6))
    assert table[:, 0].any() and (table == table[:, :1]).all()


def test_finish_comes_after_the_family(exits, inputs):
    seen = []

    def finish(model):
        seen.append((len(model.blocks[0].weight), torch.is_grad_enabled(), model.training, float(torch.rand(1))))
        model.head.bias.data.fill_(0)

    result = calibrate(
        exits, inputs, losses.disagreement, alpha=0.5, delta=0.1, ratios=[0.0, 0.5], family=narrow, finish=finish
    )
    assert {units for units, *_ in seen} == {6, 3} and len(
        {rest for _, *rest in map(tuple, seen) for rest in [tuple(rest)]}
    ) == 1
    assert result.finished and not result.prune(exits).head.bias.any() and exits.head.bias.all()


class Wrapped(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return self.inside(x)[:, :2]


def stubborn(model):
    """The model itself, whatever the family is given."""
    return lambda given, ratio: model


DRAWS = torch.Generator().manual_seed(0)


def unsteady(model, ratio):
    model.head.bias.data += ratio * torch.rand(4, generator=DRAWS)
    return model


REFUSED = {
    "number": (dict(family=0.5), TypeError, r"^family must be a function family\(model, ratio\)"),
    "scores": (dict(family=narrow, scores={}), ValueError, "^family takes the place of scores"),
    "weights": (dict(family=narrow, weights=["head.weight"]), ValueError, "^family takes the place of weights"),
    "nothing": (dict(family=lambda model, ratio: None), TypeError, "^family must give a torch.nn.Module, got NoneType"),
    "shape": (
        dict(family=lambda model, ratio: Wrapped(model)),
        ValueError,
        r"^family must give networks whose outputs have the form of the model's, \(300, 4\).* \(300, 2\)",
    ),
    "unsteady": (dict(family=unsteady), ValueError, "^family gives another network each time"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("way", ["table", "calibrate", "selective"])
def test_what_is_no_family_is_refused_by_name(case, way, exits, inputs, unchanged):
    options, problem, words = REFUSED[case]
    plan = dict(alpha=0.2, delta=0.1, ratios=GRID)
    with unchanged(exits), pytest.raises(problem, match=words):
        if way == "table":
            loss_table(exits, inputs, GRID, losses.disagreement, **options)
        elif way == "calibrate":
            calibrate(exits, inputs, losses.disagreement, **plan, **options)
        else:
            selective.calibrate(exits, inputs, losses.disagreement, **plan, **options)


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapped, lambda model: nn.Sequential(model)])
def test_a_network_that_holds_the_original_is_refused(wrap, exits, inputs):
    family = stubborn(wrap(exits))
    with pytest.raises(ValueError, match=r"^family must make its networks of the copy .* blocks.0.weight of the model"):
        loss_table(exits, inputs, GRID, losses.disagreement, family=family)


def test_a_network_that_reads_the_original_out_of_sight_is_refused(exits, inputs):
    class Hiding(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = [exits]

        def forward(self, x):
            return self.inside[0](x)

    with pytest.raises(ValueError, match=r"reads blocks.0.weight of the original"):
        loss_table(exits, inputs, GRID, losses.disagreement, family=lambda model, ratio: Hiding())


def test_a_family_that_draws_from_the_global_state_is_repeatable(exits, inputs, unchanged):
    def drawn(model, ratio):
        model.head.bias.data += ratio * torch.rand(4) * np.random.rand()  # noqa: NPY002
        return model

    with unchanged(exits):
        result = calibrate(exits, inputs, losses.disagreement, alpha=0.6, delta=0.1, ratios=GRID, family=drawn)
        twice = [pruning.fingerprint(result.prune(exits)) for _ in range(2)]
    assert twice[0] == twice[1] != pruning.fingerprint(exits) and result.ratio > 0


def test_networks_that_were_there_before_stay_as_they_are(exits, inputs, unchanged):
    made = {ratio: copy.deepcopy(exits).train() for ratio in GRID}
    before = {ratio: [dict(vars(m)) for m in network.modules()] for ratio, network in made.items()}
    with unchanged(made[0.5]):
        result = calibrate(
            exits, inputs, losses.disagreement, alpha=0.5, delta=0.1, ratios=GRID, family=lambda _, ratio: made[ratio]
        )
    assert result.ratio == GRID[-1]
    assert {ratio: [vars(m) for m in network.modules()] for ratio, network in made.items()} == before


def test_a_model_of_layers_that_torch_does_not_know(inputs):
    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.slopes = nn.Parameter(torch.randn(4, 6))

        def forward(self, x):
            return x @ self.slopes.T

    def cut(model, ratio):
        model.slopes.data[:, : round(6 * ratio)] = 0
        return model

    table = loss_table(Foreign(), inputs, GRID, losses.disagreement, family=cut)
    assert not table[:, 0].any() and table[:, 1:].any()


# what a certificate says


@pytest.fixture(scope="module")
def result(exits, inputs):
    grid = [0.0, 0.17, 0.34, 0.5]
    return calibrate(exits, inputs, losses.disagreement, alpha=0.5, delta=0.1, ratios=grid, family=narrow)


def test_a_certificate_speaks_of_the_knob(result, exits):
    assert (result.criterion, result.knob, result.prunable) == ("narrow", "share of hidden units removed", None)
    made = narrow(copy.deepcopy(exits), result.ratio)
    assert result.parameters == [sum(p.numel() for p in m.parameters()) for m in (exits, made)]
    text = " ".join(str(result).split())
    before, after = result.parameters
    assert text.startswith(f"Certified share of hidden units removed: {result.ratio:g} ")
    assert f"At share of hidden units removed = {result.ratio:g}, the disagreement risk is at most 0.5." in text
    assert text.endswith(f"family narrow, {after} of {before} parameters left") and "zero" not in text
    alt = result.plot().alt
    assert alt.startswith(f"Certified up to share of hidden units removed = {result.ratio:g}.") and "%" not in alt
    pruned = result.prune(exits)
    assert len(pruned.blocks[0].weight) == len(made.blocks[0].weight) < 6 and not pruned.training


def test_a_family_without_a_word_for_its_knob(exits, inputs):
    result = calibrate(exits, inputs, losses.disagreement, alpha=1e-3, delta=0.1, ratios=GRID, family=partial(low_rank))
    assert (result.criterion, result.knob, result.parameters) == ("low_rank()", "ratio", None)
    assert "This does not say that the family is unsafe" in str(result) and "family low_rank()" in str(result)


def test_json_keeps_the_knob_and_needs_the_family_again(result, exits):
    back = Calibration.from_json(result.to_json())
    assert str(back) == str(result) and back.to_json() == result.to_json() and back.family is None
    assert pruning.fingerprint(back.prune(exits, family=narrow)) == pruning.fingerprint(result.prune(exits))
    for family in (None, low_rank):
        with pytest.raises(ValueError, match=r"^family must be the one that was calibrated, narrow"):
            back.prune(exits, family=family)
    with pytest.raises(ValueError, match=r"^family must be the one that was calibrated"):
        result.prune(exits, family=lambda model, ratio: model)
    with pytest.raises(ValueError, match=r"^scores and weights must be None"):
        result.prune(exits, weights=["head.weight"])
    with pytest.raises(ValueError, match=r"^finish must be None: none was calibrated"):
        result.prune(exits, finish=nn.Module.eval)
    with pytest.raises(ValueError, match=r"^model is not the one that was calibrated: head\.bias differs"):
        other = copy.deepcopy(exits)
        other.head.bias.data += 1
        result.prune(other)


def test_a_family_called_unknown_is_not_any_family(exits, inputs):
    def unknown(model, ratio):
        return model

    result = calibrate(exits, inputs, losses.disagreement, alpha=0.5, delta=0.1, ratios=GRID, family=unknown)
    back = Calibration.from_json(result.to_json())
    with pytest.raises(ValueError, match=r"^family must be the one that was calibrated, unknown"):
        back.prune(exits, family=narrow)


def test_a_cache_is_that_of_its_family(result, exits, inputs, tmp_path):
    def by(share):
        return lambda model, ratio: narrow(model, share * ratio)

    def run(family):
        plan = dict(alpha=0.5, delta=0.1, ratios=result.ratios, cache=tmp_path)
        return calibrate(exits, inputs, losses.disagreement, family=family, **plan)

    for _ in range(2):
        np.testing.assert_array_equal(run(by(1)).loss_means, result.loss_means)
    with pytest.raises(ValueError, match=r"^cache: .* is of another family: family.share was 1 and is 0.5"):
        run(by(0.5))


@pytest.mark.parametrize(
    "change",
    [dict(knob=3), dict(parameters=[3]), dict(parameters=[3, -1]), dict(parameters=[3, "2"]), dict(knob=None)],
)
def test_records_that_contradict_themselves_are_refused(result, change):
    record = json.loads(result.to_json()) | change
    with pytest.raises(ValueError, match=r"knob|parameters"):
        Calibration.from_json(json.dumps(record))


def test_a_certificate_about_zeros_takes_no_family(exits, inputs):
    result = calibrate(exits, inputs, losses.disagreement, alpha=0.5, delta=0.1, ratios=[0.0, 0.1])
    with pytest.raises(ValueError, match=r"^family must be None: this certificate is about weights at zero"):
        result.prune(exits, family=narrow)


def test_the_file_holds_the_smaller_network(result, exits, tmp_path):
    path = tmp_path / "narrow.safetensors"
    result.save(path, exits)
    back = certificates.verify(path)
    pruned = result.prune(exits)
    assert certificates.verify(path, pruned).ratio == back.ratio == result.ratio
    assert back.saved["tensors"]["blocks.0.weight"][1] == list(pruned.blocks[0].weight.shape) != [6, 6]
    assert [str(line) for line in str(back).splitlines()] == str(result).splitlines()
    with pytest.raises(ValueError, match=r"^model: blocks\.0\.weight has shape \[6, 6\] and was certified with"):
        certificates.verify(path, exits)
    page = card.page(back)
    assert '<th scope="row">share of hidden units removed</th>' in page and "blocks.0.weight" in page
    assert "{1} of the full network&#x27;s {0}".format(*result.parameters) in page and "prunable" not in page


def test_a_selective_certificate_of_a_family_travels(exits, inputs, tmp_path):
    grid = dict(ratios=[0.0, 0.17, 0.34], thresholds=[0.4, 0.3, 0.0])
    pairs = selective.calibrate(exits, inputs, losses.disagreement, alpha=0.3, delta=0.1, family=narrow, **grid)
    best = pairs.best()
    assert f"At share of hidden units removed = {best.ratio:g}, answering where" in " ".join(str(pairs).split())
    pairs.save(tmp_path / "pair.safetensors", exits)
    back = certificates.verify(tmp_path / "pair.safetensors", pairs.prune(exits))
    assert back.parameters == pairs.parameters is not None
    assert "share of hidden units removed" in card.page(back)


def test_a_table_may_be_about_anything_that_has_a_knob():
    table = np.repeat([[0, 1], [0, 0]], [10, 190], axis=0)
    result = calibrate_losses(table, [0.5, 0.9], alpha=0.05, delta=0.1, knob="share of trees dropped")
    assert str(result).startswith(
        "Certified share of trees dropped: 0.5\nAt share of trees dropped = 0.5, the loss risk"
    )
    assert "unknown" not in str(result) and Calibration.from_json(result.to_json()).knob == "share of trees dropped"
    with pytest.raises(TypeError, match=r"^knob must say in words"):
        calibrate_losses(table, [0.5, 0.9], alpha=0.05, delta=0.1, knob=3)
    assert calibrate_losses(table, [0.5, 0.9], alpha=0.05, delta=0.1).knob is None


# the promise


ALPHA, BAD = 0.02, 101  # of 5,000 examples that the bad networks of `back_and_forth` lose: a risk of 0.0202


@pytest.fixture(scope="module")
def wavy():
    """Losses (5000, 20) of a family that is good at every other ratio, and at the others a little too bad.

    There it prefers one of the ten classes so much that BAD examples go over to it.
    """
    from confprune_edu import data, models

    images, network = data.mnist5k()[0], models.load("mnist-mlp")
    with torch.no_grad():
        logits = network(images)
    gaps = logits.max(1, keepdim=True).values - logits
    others = [gap[gap > 0].sort().values for gap in gaps.T]

    def back_and_forth(model, ratio):
        j = round(20 * ratio)
        if j % 2:
            model.output.bias.data[j // 2] += others[j // 2][BAD - 1 : BAD + 1].mean()
        return model

    return loss_table(network, images, np.arange(20) / 20, losses.disagreement, family=back_and_forth)


@pytest.mark.parametrize(
    "procedure, keeps", [("fixed_sequence", True), ("holm", True), (lambda p, delta: p <= delta, False)]
)
def test_a_family_that_is_not_monotone_keeps_the_promise_and_each_test_alone_breaks_it(procedure, keeps, wavy):
    assert wavy.sum(0).tolist() == 10 * [0, BAD]
    plan = dict(n_calibration=600, alpha=ALPHA, delta=0.1, p_value="binomial", trials=2000, replace=True)
    splits = validation.repeated_splits(wavy, np.arange(20) / 20, procedure=procedure, **plan)
    assert (validation.ErrorRate(int(splits.wrong.sum()), 2000, 0.1).evidence > 1e-4) == keeps
    assert np.isfinite(splits.ratio).all()
