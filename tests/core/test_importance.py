"""Importance weights: the certificate is about the law of use, and one without weights is false there."""

import numpy as np
import pytest
from scipy.stats import binomtest

from confprune_edu.calibration import Calibration, calibrate_losses

RATIOS, HERE, THERE = [0.2, 0.5, 0.8], 0.5, 0.8  # share of the second class where examples are drawn, and in use
FIRST, SECOND = np.array([0.01, 0.02, 0.025]), np.array([0.02, 0.0575, 0.0700])  # risks in the classes
ALPHA, BOUND = 0.06, THERE / HERE


def draw(rng, n):
    """Losses (n, 3) and the weights of their classes."""
    second = rng.random(n) < HERE
    losses = rng.random((n, 1)) < np.where(second[:, None], SECOND, FIRST)
    return losses, np.where(second, THERE / HERE, (1 - THERE) / (1 - HERE))


def false_certificates(trials, n, weighted):
    rng, wrong = np.random.default_rng(0), 0
    bad = (1 - THERE) * FIRST + THERE * SECOND > ALPHA
    assert bad.tolist() == [False, False, True] and ((1 - HERE) * FIRST + HERE * SECOND < ALPHA).all()
    for _ in range(trials):
        losses, weights = draw(rng, n)
        more = {"importance": weights, "bound": BOUND} if weighted else {}
        wrong += (calibrate_losses(losses, RATIOS, alpha=ALPHA, delta=0.1, **more).rejected & bad).any()
    return int(wrong)


@pytest.mark.long
def test_weighted_certificates_keep_delta_under_the_law_of_use():
    assert binomtest(false_certificates(2000, 2000, True), 2000, 0.1, alternative="greater").pvalue > 1e-4


def test_without_weights_they_are_false():
    assert binomtest(false_certificates(200, 1000, False), 200, 0.1, alternative="greater").pvalue < 1e-4


@pytest.mark.parametrize("cut, holds", [(10.0, True), (5.0, False)])
def test_a_bound_below_the_largest_weight_breaks_the_promise(cut, holds):
    rng, wrong, trials = np.random.default_rng(5), 0, 200
    for _ in range(trials):
        rare = rng.random(4000) < 0.02  # a fifth in use, and wrong in a quarter of the cases: a risk of 0.05 there
        losses = rare & (rng.random(4000) < 0.25)
        weights = np.minimum(np.where(rare, 0.2 / 0.02, 0.8 / 0.98), cut)
        got = calibrate_losses(losses[:, None], [0.5], alpha=0.04, delta=0.1, importance=weights, bound=cut)
        wrong += got.ratio is not None
    assert (binomtest(wrong, trials, 0.1, alternative="greater").pvalue > 1e-4) == holds


def test_a_weighted_table_is_a_loss_of_its_own_in_zero_to_bound():
    losses, weights = draw(np.random.default_rng(1), 500)
    got = calibrate_losses(losses, RATIOS, alpha=ALPHA, delta=0.1, importance=weights, bound=BOUND)
    want = calibrate_losses(weights[:, None] * losses / BOUND, RATIOS, alpha=ALPHA / BOUND, delta=0.1)
    np.testing.assert_allclose(got.p_values, want.p_values, rtol=1e-12)
    np.testing.assert_allclose(got.loss_means, want.loss_means * BOUND)
    signed = calibrate_losses(
        losses.astype(float), RATIOS, alpha=ALPHA, delta=0.1, importance=weights, bound=BOUND, loss_range=(-1, 1)
    )
    assert signed.loss_range == (-BOUND, BOUND)


def test_weights_of_one_change_nothing():
    losses, _ = draw(np.random.default_rng(2), 300)
    plain = calibrate_losses(losses, RATIOS, alpha=ALPHA, delta=0.1)
    same = calibrate_losses(losses, RATIOS, alpha=ALPHA, delta=0.1, importance=np.ones(300), bound=1)
    np.testing.assert_allclose(plain.p_values, same.p_values, rtol=1e-12)


def test_the_record_keeps_the_bound_and_the_claim_names_the_law():
    losses, weights = draw(np.random.default_rng(3), 3000)
    result = calibrate_losses(losses, RATIOS, alpha=ALPHA, delta=0.1, importance=weights, bound=BOUND)
    again = Calibration.from_json(result.to_json())
    assert again.importance == BOUND and again.to_json() == result.to_json()
    assert "under the law that the importance weights describe" in " ".join(str(again).split())


@pytest.mark.parametrize(
    "match, more",
    [
        ("importance needs bound", {"importance": np.ones(100)}),
        ("importance needs bound", {"bound": 2.0}),
        ("importance must lie in", {"importance": np.full(100, 3.0), "bound": 2.0}),
        ("importance must lie in", {"importance": np.full(100, -1.0), "bound": 2.0}),
        ("importance must hold one weight", {"importance": np.ones(99), "bound": 2.0}),
        ("importance must have mean 1", {"importance": np.full(100, 0.1), "bound": 2.0}),
        ("importance must be finite", {"importance": np.full(100, np.nan), "bound": 2.0}),
        ("bound must be at least 1", {"importance": np.full(100, 0.5), "bound": 0.5}),
        ("alpha must lie", {"importance": np.ones(100), "bound": 2.0, "alpha": 1.5}),
        ("bound must lie", {"importance": np.ones(100), "bound": 0.0}),
    ],
)
def test_weights_that_cannot_be_are_refused_by_name(match, more):
    with pytest.raises(ValueError, match=f"^{match}"):
        calibrate_losses(np.zeros((100, 3)), RATIOS, **{"alpha": 0.1, "delta": 0.1, **more})


def test_a_binomial_of_weighted_losses_is_refused():
    losses, weights = draw(np.random.default_rng(4), 100)
    with pytest.raises(TypeError, match="0/1"):
        calibrate_losses(losses, RATIOS, alpha=0.1, delta=0.1, p_value="binomial", importance=weights, bound=BOUND)
