"""Orders other than magnitude against slow loops and formulas; what they leave of the model; finishes."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from confprune_edu import pruning
from confprune_edu.evaluation import loss_table
from confprune_edu.losses import disagreement


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


def examples(n=12):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)


CRITERIA = {
    "layerwise": lambda model: pruning.layerwise(model),
    "random": lambda model: pruning.random(model, seed=0),
    "lamp": lambda model: pruning.lamp(model),
    "wanda": lambda model: pruning.wanda(model, examples()[0]),
    "fisher": lambda model: pruning.fisher(model, examples(), functional.cross_entropy),
    "snip": lambda model: pruning.snip(model, examples(), functional.cross_entropy),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_gives_scores_that_prune_and_leaves_model_and_random_state(name):
    model, state = network(), torch.get_rng_state()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    scores = CRITERIA[name](model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad and not p._backward_hooks for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert pruning.sparsity(pruning.prune(model, 0.5, scores)) == pytest.approx(22 / 45, abs=1e-9)
    assert all((score >= 0).all() for score in scores.values())


def test_lamp_is_its_formula():
    model = network()
    for name, weight in pruning.prunable(model).items():
        w, got = weight.detach().double().flatten().tolist(), pruning.lamp(model)[name].flatten().tolist()
        want = [x**2 / sum(y**2 for y in w if abs(y) >= abs(x)) for x in w]
        np.testing.assert_allclose(got, want, rtol=1e-12)
    assert all(score.max() == 1 for score in pruning.lamp(model).values())


def test_lamp_of_zeros_and_ties_is_defined():
    model = nn.Linear(4, 1)
    model.weight.data = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert pruning.lamp(model)["weight"].tolist() == [[0.0, 0.0, 0.5, 1.0]]
    model.weight.data.zero_()
    assert pruning.lamp(model)["weight"].tolist() == [[0.0] * 4]


def test_layerwise_takes_the_same_share_of_every_layer():
    pruned = pruning.prune(network(), 0.6, pruning.layerwise(network()))
    shares = [float((layer.weight == 0).float().mean()) for layer in (pruned[0], pruned[2])]
    np.testing.assert_allclose(shares, 0.6, atol=0.04)


def slopes(model, inputs, targets):
    """Derivatives of one example's loss, by central differences in double precision."""
    model = model.double()
    found = {}
    for name, weight in pruning.prunable(model).items():
        flat, slope = weight.data.view(-1), torch.zeros(weight.numel(), dtype=torch.float64)
        for i in range(len(flat)):
            values = []
            for step in (1e-6, -1e-6):
                flat[i] += step
                values.append(functional.cross_entropy(model(inputs.double()), targets).item())
                flat[i] -= step
            slope[i] = (values[0] - values[1]) / 2e-6
        found[name] = slope.view(weight.shape)
    return found


def test_fisher_and_snip_are_their_formulas():
    inputs, targets = examples(4)
    model = network()
    each = [slopes(network(), inputs[i : i + 1], targets[i : i + 1]) for i in range(4)]
    fisher = pruning.fisher(model, (inputs, targets), functional.cross_entropy)
    snip = pruning.snip(model, (inputs, targets), functional.cross_entropy)
    for name, weight in pruning.prunable(model).items():
        w, g = weight.detach().double(), torch.stack([one[name] for one in each])
        torch.testing.assert_close(fisher[name], w**2 * (g**2).mean(0), rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(snip[name], (w * g.mean(0)).abs(), rtol=1e-4, atol=1e-7)


def test_wanda_is_its_formula_for_linear_layers():
    model, (inputs, _) = network(), examples()
    hidden = model[1](model[0](inputs))
    got = pruning.wanda(model, inputs)
    for name, x in (("0.weight", inputs), ("2.weight", hidden)):
        want = model.get_parameter(name).detach().abs() * x.detach().pow(2).sum(0).sqrt()
        torch.testing.assert_close(got[name].float(), want)


def test_wanda_of_convolutions_counts_what_each_weight_meets():
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    inputs = torch.randn(3, 4, 8, 8)
    patches = functional.unfold(inputs, 3, stride=2, padding=1).pow(2).sum((0, 2)).view(4, 3, 3).sqrt()
    norms = torch.cat([patches[:2].expand(3, 2, 3, 3), patches[2:].expand(3, 2, 3, 3)])
    torch.testing.assert_close(pruning.wanda(layer, inputs)["weight"].float(), layer.weight.detach().abs() * norms)


class Residual(nn.Module):
    """Writes into what its layer was given, after the layer has seen it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        hidden = x * 1
        hidden += 100 * self.layer(input=hidden)
        return hidden


def test_wanda_sees_inputs_as_the_layer_did_and_its_own_hooks_once():
    torch.manual_seed(0)
    model, inputs = Residual(), torch.randn(7, 2)
    want = model.layer.weight.detach().abs() * inputs.pow(2).sum(0).sqrt()
    torch.testing.assert_close(pruning.wanda(model, inputs)["layer.weight"].float(), want)
    model.layer.register_forward_hook(lambda module, given, output: output.relu())
    torch.testing.assert_close(pruning.wanda(model, inputs)["layer.weight"].float(), want)
    model.layer.register_forward_pre_hook(lambda module, given: (2 * given[0],) if given else None)
    torch.testing.assert_close(pruning.wanda(model.layer, inputs)["weight"].float(), 2 * want)


def test_half_precision_neither_overflows_nor_stalls():
    layer = nn.Conv2d(3, 4, 3).half()
    assert pruning.wanda(layer, 10 * torch.randn(200, 3, 32, 32).half())["weight"].isfinite().all()
    line = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.ones_(line.weight)
    data = (torch.ones(1000, 1).bfloat16(), torch.zeros(1000))
    assert pruning.fisher(line, data, lambda outputs, targets: outputs.sum())["weight"].item() == 1.0


def test_inputs_stay_as_they_are_though_the_first_layer_writes_into_them():
    model = nn.Sequential(nn.ReLU(inplace=True), network())
    inputs, targets = examples()
    before = inputs.clone()
    pruning.wanda(model, inputs)
    pruning.fisher(model, (inputs, targets), functional.cross_entropy)
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("normalised", [pruning.layerwise, pruning.lamp])
def test_scores_that_are_no_numbers_are_refused(normalised):
    model = network()
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"^scores must be finite, those of 0\.weight"):
        normalised(model)


def test_wanda_names_the_layers_that_it_does_not_know():
    with pytest.raises(ValueError, match=r"^wanda: weight_ih_l0, the first of 2"):
        pruning.wanda(nn.GRU(3, 4), torch.ones(2, 3))


@pytest.mark.parametrize("layer", [nn.GRU(6, 4, batch_first=True), nn.LSTM(6, 4, batch_first=True)])
def test_fisher_of_recurrent_layers(layer):
    def last(outputs, targets):
        return functional.cross_entropy(outputs[0][:, -1], targets)

    inputs, targets = torch.randn(5, 7, 6), torch.randint(4, (5,))
    scores = pruning.fisher(layer, (inputs, targets), last)
    assert set(scores) == {"weight_ih_l0", "weight_hh_l0"} and all((s > 0).any() for s in scores.values())


def test_other_scores_can_be_normalised():
    model = network()
    base = pruning.fisher(model, examples(), functional.cross_entropy)
    want = {name: score.sqrt() for name, score in base.items()}
    order = [scores["0.weight"].flatten().argsort(stable=True) for scores in (pruning.layerwise(model, base), base)]
    assert torch.equal(*order)
    assert pruning.lamp(model, want)["2.weight"].max() == 1
    with pytest.raises(ValueError, match=r"^scores must have the names"):
        pruning.lamp(model, {"0.weight": base["0.weight"]})


def test_data_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"^data must be inputs and as many targets"):
        pruning.fisher(network(), (torch.ones(2, 6), torch.zeros(3)), functional.cross_entropy)


# Finishes


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_zeros_are_kept_by_every_usual_optimiser(optimiser):
    model = pruning.prune(network(), 0.5).train()
    zeros = {name: weight == 0 for name, weight in pruning.prunable(model).items()}
    before = model[0].weight.detach().clone()
    momentum = {"momentum": 0.9} if optimiser is torch.optim.SGD else {}
    handles, steps = pruning.keep_zeros(model), optimiser(model.parameters(), lr=0.05, weight_decay=0.1, **momentum)
    inputs, targets = examples()
    for _ in range(10):
        steps.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        steps.step()
    assert all((weight[zeros[name]] == 0).all() for name, weight in pruning.prunable(model).items())
    assert not torch.equal(before, model[0].weight)
    [handle.remove() for handle in handles]
    functional.cross_entropy(model(inputs), targets).backward()
    assert (model[0].weight.grad[zeros["0.weight"]] != 0).any()


def test_a_tuned_family_is_one_network_a_ratio_and_fits_better():
    model, (inputs, targets) = network(), examples(200)
    finish = pruning.fine_tune(
        list(zip(inputs.split(50), targets.split(50), strict=True)), functional.cross_entropy, steps=30
    )
    plain, tuned, again = (next(pruning.family(model, [0.6], finish=f)).eval() for f in (None, finish, finish))
    assert all(torch.equal(a, b) for a, b in zip(tuned.state_dict().values(), again.state_dict().values(), strict=True))
    assert pruning.sparsity(tuned) == pruning.sparsity(plain)
    cost = [functional.cross_entropy(m(inputs), targets).item() for m in (plain, tuned)]
    assert cost[1] < cost[0]
    table = loss_table(model, inputs, [0.0, 0.6], disagreement, finish=finish, progress=False)
    assert (table[:, 1] == disagreement(tuned(inputs), model(inputs)).numpy()).all()


def test_no_batch_to_tune_on_is_refused():
    with pytest.raises(ValueError, match=r"^batches must hold"):
        pruning.fine_tune([], functional.cross_entropy, steps=1)(network())


def test_zeros_of_weights_that_share_memory_are_kept():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight.data = model[0].weight.data
    model[0].weight.data[0] = 0
    pruning.keep_zeros(model)
    model(torch.ones(2, 4)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert (model[0].weight[0] == 0).all() and (model[1].weight[0] == 0).all()


def test_frozen_parameters_stay_and_networks_that_cannot_be_tuned_are_refused():
    inputs, targets = examples()
    finish = pruning.fine_tune([(inputs, targets)], functional.cross_entropy, steps=2)
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    finish(model)
    assert torch.equal(model[0].weight, before) and not model[0].weight.requires_grad
    for bad in (network().requires_grad_(False), network().half()):
        with pytest.raises(ValueError, match=r"^fine_tune needs parameters"):
            finish(bad)


def test_a_finish_that_goes_on_elsewhere_each_time_is_refused():
    inputs, targets = examples(40)
    batches = itertools.cycle(zip(inputs.split(8), targets.split(8), strict=True))
    finish = pruning.fine_tune(batches, functional.cross_entropy, steps=3)
    with pytest.raises(ValueError, match=r"^finish gives another network each time"):
        loss_table(network(), inputs, [0.1, 0.5], disagreement, finish=finish, progress=False)


# Batch norms corrected


def normed(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))
    for norm in (model[1], model[4]):  # as training with other examples may have left them
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return model.eval()


def test_corrected_batch_norms_change_nothing_where_nothing_was_pruned():
    model, images = normed(), torch.rand(32, 1, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    finish = pruning.batch_norm(model, images.split(8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    same = pruning.twin(model)
    finish(same)
    assert not same.training and torch.allclose(same(images), model(images), atol=1e-5)
    anew = pruning.twin(model)
    torch.optim.swa_utils.update_bn(images.split(8), anew)
    assert not torch.allclose(anew(images), model(images), atol=1e-2)  # statistics anew do change something


def test_corrected_batch_norms_undo_what_a_layer_lost_in_scale_and_offset():
    model, images = normed(), torch.rand(32, 1, 8, 8)
    finish = pruning.batch_norm(model, images.split(8))
    faint = pruning.twin(model)
    with torch.no_grad():
        faint[0].weight.mul_(0.5)
        faint[0].bias.mul_(0.5).add_(3)
    assert not torch.allclose(faint(images), model(images), atol=1e-1)
    finish(faint)
    assert torch.allclose(faint(images), model(images), atol=1e-3)  # eps is left in the variance


def test_dropout_before_a_batch_norm_is_no_change():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3)).eval(), torch.rand(64, 3)
    model[1].running_mean.uniform_(-1, 1)
    same = pruning.twin(model)
    finish = pruning.batch_norm(model, [inputs])
    with pruning.repeatable():  # as a finish is
        finish(same)
    assert torch.allclose(same(inputs), model(inputs), atol=1e-5)


def test_batches_that_are_none_or_used_up_correct_nothing_unseen():
    model, images = normed(), torch.rand(32, 1, 8, 8)
    with pytest.raises(ValueError, match=r"^batches must hold at least one batch, and be readable again"):
        pruning.batch_norm(model, [])
    finish = pruning.batch_norm(model, iter(images.split(8)))
    with pytest.raises(ValueError, match=r"^batches must hold at least one batch, and be readable again"):
        finish(pruning.twin(model))


def test_a_network_of_fewer_channels_has_no_batch_norms_to_correct():
    finish = pruning.batch_norm(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), [torch.rand(8, 2)])
    with pytest.raises(ValueError, match=r"^batch_norm: the batch norms have not as many channels"):
        finish(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


def test_corrected_batch_norms_need_batch_norms():
    with pytest.raises(ValueError, match="batch norms that keep statistics"):
        pruning.batch_norm(nn.Linear(2, 1), [torch.ones(2, 2)])
