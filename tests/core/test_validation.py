"""Repeated splits against a loop, and the promise for every law, p-value and procedure, with methods that break it."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest, hypergeom

from confprune_edu import pvalues, validation
from confprune_edu.calibration import calibrate_losses
from confprune_edu.validation import error_rate, repeated_splits, selective_splits

LAWS = {
    law.__name__: law for law in (validation.bernoulli, validation.independent, validation.beta, validation.two_point)
}
VALID = sorted(set(pvalues.METHODS) - {"clt"})
ZERO_ONE = ("bernoulli", "independent")


def evidence(wrong, trials, delta):
    """P-value against "the probability of an error is at most delta"."""
    return binomtest(wrong, trials, delta, alternative="greater").pvalue


def anywhere(p_values, delta):
    """No correction: whatever is at most delta. Broken on purpose."""
    return np.asarray(p_values) <= delta


# Repeated splits


def population(kind="bool", rows=60):
    """Losses of `rows` examples under four ratios, from harmless to useless."""
    draws = np.random.default_rng(1).random((rows, 4))
    return draws ** [30, 6, 3, 0.1] if kind == "float" else (draws < [0.03, 0.1, 0.25, 0.9]).astype(kind)


def subsets(n, size, trials, rng):
    """The random subsets of `repeated_splits`, as bool masks, a hundred at a time."""
    for start in range(0, trials, 100):
        order = np.argsort(rng.random((min(100, trials - start), n)), axis=1)
        drawn = np.zeros(order.shape, dtype=bool)
        np.put_along_axis(drawn, order[:, :size], True, axis=1)
        yield drawn


@pytest.mark.parametrize(
    "kind, p_value",
    [
        *(
            (kind, p_value)
            for kind in ("bool", "float")
            for p_value in ("tight", "hoeffding_bentkus", "betting", "clt")
        ),
        *((kind, "binomial") for kind in ("bool", "int8")),
    ],
)
@pytest.mark.parametrize("procedure", ["fixed_sequence", "holm"])
def test_splits_are_a_loop_of_calibrations(kind, p_value, procedure):
    table, ratios, settings = population(kind), [0.2, 0.4, 0.6, 0.8], dict(alpha=0.3, delta=0.2, p_value=p_value)
    got = repeated_splits(table, ratios, n_calibration=35, trials=130, seed=5, procedure=procedure, **settings)
    rng, want = np.random.default_rng(5), []
    for chunk in subsets(60, 35, 130, rng):
        for drawn in chunk:
            rows = rng.permutation(np.flatnonzero(drawn)) if p_value in ("betting", "clt") else drawn
            ratio = calibrate_losses(table[rows], ratios, procedure=procedure, **settings).ratio
            column = table[:, 0] * np.nan if ratio is None else table[:, ratios.index(ratio)]
            want.append((np.nan if ratio is None else ratio, column.mean(), column[~drawn].mean()))
    np.testing.assert_allclose(np.column_stack([got.ratio, got.risk, got.test_risk]), want, rtol=1e-9)
    assert not np.isnan(got.ratio).all()


def test_every_row_is_drawn_equally_often_and_every_subset_has_its_size():
    table = 0.5 ** np.arange(1, 21)[:, None]  # the sum over the rows that are left tells, bit by bit, which these are
    got = repeated_splits(table, [0.5], n_calibration=7, trials=4000, seed=0, alpha=0.9, delta=0.1)
    left = np.rint(got.test_risk * 13 * 2**20).astype(int)
    drawn = 1 - (left[:, None] >> np.arange(20) & 1)
    assert (drawn.sum(axis=1) == 7).all()
    assert len(np.unique(drawn, axis=0)) > 3500  # of 77,520
    together = drawn.T @ drawn / 4000
    off = together[~np.eye(20, dtype=bool)]
    assert abs(np.diag(together) - 7 / 20).max() < 5 * np.sqrt(0.35 * 0.65 / 4000)
    assert abs(off - 7 * 6 / (20 * 19)).max() < 5 * np.sqrt(0.11 * 0.89 / 4000)


def test_a_table_whose_every_split_is_known():
    table = np.column_stack([np.zeros(50), np.full(50, 0.25), np.ones(50)])
    got = repeated_splits(table, [0.1, 0.5, 0.9], n_calibration=40, alpha=0.5, delta=0.1, trials=7)
    assert got.ratio.tolist() == [0.5] * 7 and got.risk.tolist() == got.test_risk.tolist() == [0.25] * 7
    assert (got.broken, got.test_broken, got.abstained, got.alpha, got.delta) == (0, 0, 0, 0.5, 0.1)
    got = repeated_splits(table[:, 2:], [0.9], n_calibration=40, alpha=0.5, delta=0.1, trials=7)
    assert np.isnan([got.ratio, got.risk, got.test_risk]).all() and got.abstained == 1 and got.broken == 0


def test_broken_counts_false_certificates_only():
    risk = np.array([0.1, 0.2, 0.3, np.nan])
    wrong = np.array([False, True, True, False])
    splits = validation.Splits(np.array([0.5, 0.6, 0.7, np.nan]), risk, risk[::-1], 0.2, 0.1, wrong)
    assert (splits.broken, splits.any_broken, splits.test_broken, splits.abstained) == (0.25, 0.5, 0.25, 0.25)


@pytest.mark.parametrize("p_value", ["tight", "betting"])
def test_splits_of_signed_losses_are_those_of_rescaled_ones(p_value):
    table = 2 * population("float") - 1
    settings = dict(ratios=[0.2, 0.4, 0.6, 0.8], n_calibration=35, delta=0.2, trials=50, p_value=p_value)
    got = repeated_splits(table, alpha=-0.4, loss_range=(-1, 1), **settings)
    want = repeated_splits(population("float"), alpha=0.3, **settings)
    np.testing.assert_array_equal(got.ratio, want.ratio)
    np.testing.assert_allclose(got.risk, 2 * want.risk - 1, rtol=1e-9)
    np.testing.assert_allclose(got.test_risk, 2 * want.test_risk - 1, rtol=1e-9)
    assert got.alpha == -0.4 and not np.isnan(got.ratio).all()
    with pytest.raises(ValueError, match="losses"):
        repeated_splits(table, alpha=0.3, **settings)


def test_one_seed_one_result():
    settings = dict(ratios=[0.2, 0.4, 0.6, 0.8], n_calibration=30, alpha=0.3, delta=0.2, trials=50)
    for p_value in ("tight", "betting"):
        one, two, other = (repeated_splits(population("float"), seed=s, p_value=p_value, **settings) for s in (3, 3, 4))
        np.testing.assert_array_equal(one.test_risk, two.test_risk)
        assert not np.array_equal(one.test_risk, other.test_risk, equal_nan=True)


def test_splits_leave_the_table_and_the_global_random_state():
    table = population("float")
    copy, state = table.copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    repeated_splits(table, [0.2, 0.4, 0.6, 0.8], n_calibration=30, alpha=0.3, delta=0.2, trials=5, p_value="betting")
    assert (table == copy).all() and (np.random.get_state()[1] == state).all()  # noqa: NPY002


@pytest.mark.parametrize("p_value", ["binomial", "tight"])
def test_zero_one_losses_may_be_floats(p_value):
    settings = dict(ratios=[0.2, 0.4, 0.6, 0.8], n_calibration=30, alpha=0.4, delta=0.2, trials=50, p_value=p_value)
    want = repeated_splits(population("bool"), **settings)
    got = repeated_splits(population("bool").astype(float), **settings)
    np.testing.assert_array_equal(got.ratio, want.ratio)


def one_by_one(p_values, delta):
    """The fixed sequence as a reader would write it, for p-values of shape (m,)."""
    rejected = np.zeros(len(p_values), dtype=bool)
    for j in range(len(p_values)):
        if p_values[j] > delta:
            break
        rejected[j] = True
    return rejected


@pytest.mark.parametrize("own", [one_by_one, lambda p, delta: np.logical_and.accumulate(p <= delta)])
def test_own_procedures_see_one_calibration_at_a_time(own):
    settings = dict(ratios=[0.2, 0.4, 0.6, 0.8], n_calibration=30, alpha=0.4, delta=0.2, trials=50)
    want = repeated_splits(population(), **settings)
    got = repeated_splits(population(), procedure=own, **settings)
    np.testing.assert_array_equal(got.ratio, want.ratio)
    settings = dict(risks=[0.05, 0.11, 0.11], n=40, alpha=0.1, delta=0.2, trials=200)
    assert error_rate(validation.independent, procedure=own, **settings) == error_rate(
        validation.independent, **settings
    )


def at_the_edge():
    """Losses of 2,000 examples: one ratio with risk 0.025, eight with 0.101, one with 0.2; alpha is 0.1."""
    table = np.arange(2000)[:, None] < np.array([50, *[202] * 8, 400])
    return np.random.default_rng(0).permuted(table, axis=0)


EDGES = dict(ratios=np.arange(10) / 10, n_calibration=200, alpha=0.1, delta=0.1, trials=2000)


@pytest.mark.long
@pytest.mark.parametrize("procedure", ["fixed_sequence", "holm", "bonferroni"])
@pytest.mark.parametrize("p_value", ["tight", "binomial", "hoeffding_bentkus"])
def test_splits_of_a_population_at_the_edge_keep_the_promise(procedure, p_value):
    splits = repeated_splits(at_the_edge(), p_value=p_value, procedure=procedure, **EDGES)
    assert evidence(round(splits.any_broken * 2000), 2000, 0.1) >= 1e-4
    assert splits.abstained < 0.5


def test_splits_show_that_no_correction_breaks_the_promise():
    splits = repeated_splits(at_the_edge(), p_value="binomial", procedure=anywhere, **EDGES)
    assert evidence(round(splits.broken * 2000), 2000, 0.1) < 1e-4


def test_a_false_certificate_below_the_largest_is_seen():
    """The risk dips: nearly every split certifies the last ratio, rightly, and too many the first eight, wrongly."""
    table = np.random.default_rng(0).permuted(np.arange(2000)[:, None] < np.array([*[202] * 8, 20]), axis=0)
    options = dict(ratios=np.arange(9) / 10, n_calibration=200, alpha=0.1, delta=0.1, trials=2000, p_value="binomial")
    splits = repeated_splits(table, procedure=anywhere, **options)
    assert splits.broken == 0 and evidence(round(splits.any_broken * 2000), 2000, 0.1) < 1e-4
    kept = repeated_splits(table, procedure="holm", **options)
    assert kept.broken == 0 and evidence(round(kept.any_broken * 2000), 2000, 0.1) >= 1e-4
    risks = [0.101] * 8 + [0.01]
    rate = error_rate(
        validation.independent, risks, n=200, alpha=0.1, delta=0.1, p_value="binomial", procedure=anywhere
    )
    assert rate.evidence < 1e-4


# With replacement the errors among n draws are binomial, without it they are hypergeometric

WRONG = np.random.default_rng(0).permutation(np.arange(200) < 24)[:, None]  # a risk of 0.12
CHANCES = {True: binom(60, 0.12).cdf, False: hypergeom(200, 24, 60).cdf}


def by_plain(**settings):
    return repeated_splits(WRONG, [0.5], **settings)


def by_pairs(**settings):
    return selective_splits(np.ones_like(WRONG, dtype=float), WRONG, [0.5], [0.9], **settings)


@pytest.mark.parametrize("splits", [by_plain, by_pairs])
@pytest.mark.parametrize("replace", [True, False])
def test_the_law_of_the_draws_is_known(splits, replace):
    settings = dict(n_calibration=60, alpha=0.1, delta=0.15, p_value="binomial", trials=4000, seed=2)
    certified = round((1 - splits(replace=replace, **settings).abstained) * 4000)
    most = int(binom.ppf(0.15, 60, 0.1)) - 1  # errors with which 0.12 is certified
    assert binom.cdf(most, 60, 0.1) <= 0.15 < binom.cdf(most + 1, 60, 0.1)
    assert binomtest(certified, 4000, CHANCES[replace](most)).pvalue > 1e-4
    assert binomtest(certified, 4000, CHANCES[not replace](most)).pvalue < 1e-4


def test_an_example_that_came_twice_counts_twice_and_the_others_are_left():
    table = 0.25 ** np.arange(1, 13)[:, None]
    settings = dict(n_calibration=3, trials=300, alpha=0.9, delta=0.9, seed=1, replace=True)
    got = repeated_splits(table, [0.5], **settings)
    again = repeated_splits(table, [0.5], p_value="betting", **settings)
    draws = np.random.default_rng(1)
    rows = np.concatenate([draws.integers(12, size=(100, 3)) for _ in range(3)])
    left = [np.setdiff1d(np.arange(12), row) for row in rows]
    np.testing.assert_allclose(got.test_risk, [table[rest].mean() for rest in left], rtol=1e-12)
    assert {len(rest) for rest in left} > {9} and np.isfinite(again.ratio).all()
    p = [repeated_splits(table, [0.5], **settings | {"delta": d}).abstained for d in (0.001, 0.01)]
    want = pvalues.tight(table[rows, 0].sum(axis=1), 3, 0.9)
    assert p == [np.mean(want > 0.001), np.mean(want > 0.01)]


def excess_without_replacement(alpha, level, least=1):
    """max of P[p <= u] - u over u up to `level`, exactly, for the least dangerous populations of up to 14 examples."""
    worst = -1.0
    for size in range(least + 1, 15):
        wrong = min(int(np.floor(size * alpha)) + 1, size)  # the fewest errors with a risk above alpha
        for n in range(least, size):
            counts = np.arange(n + 1)
            p, chance = pvalues.binomial(counts, n, alpha), hypergeom.cdf(counts, size, wrong, n)
            worst = max(worst, (chance - p)[p <= level].max(initial=-1.0))
    return worst


def test_binomial_without_replacement_holds_for_alpha_and_levels_up_to_a_half():
    alphas = [0.05, 0.1, 1 / 7 - 1e-9, 0.2, 0.25, 0.3, 3 / 8 - 1e-9, 0.4, 0.5]
    assert max(excess_without_replacement(alpha, 0.5) for alpha in alphas) <= 1e-12
    assert excess_without_replacement(0.4, 1.0) > 1e-3  # beyond 1/2 it fails
    assert excess_without_replacement(13 / 14 - 1e-9, 0.5) > 1e-3  # and for larger alpha


def test_binomial_without_replacement_holds_for_levels_up_to_a_quarter_as_proved():
    alphas = [0.05, 1 / 7 - 1e-9, 0.3, 0.5, 0.6, 5 / 7 - 1e-9, 0.75, 0.8, 6 / 7 - 1e-9, 0.9]
    assert max(excess_without_replacement(a, 0.25, int(1 / (1 - a)) + 1) for a in alphas) <= 1e-12  # alpha < 1 - 1/n
    assert excess_without_replacement(0.8, 0.5, 6) > 1e-3  # beyond a quarter it may fail


SPLITS = dict(losses=np.zeros((9, 2)), ratios=[0.2, 0.6], n_calibration=5, alpha=0.1, delta=0.1, trials=3)


@pytest.mark.parametrize(
    "name, value",
    [
        *(
            ("losses", v)
            for v in ([[0.0, np.nan]] * 9, [[0.0, 2.0]] * 9, [[-0.1, 0.0]] * 9, [0.0] * 9, [[0.0]] * 9, [])
        ),
        *(("ratios", v) for v in ([0.6, 0.2], [0.2, 1.0], [0.2, 0.2], [], [0.1, 0.2, 0.3])),
        *(("n_calibration", v) for v in (0, 9, 10, -1, 2.5, "5", True)),
        *(("alpha", v) for v in (0, 1, np.nan, "0.1")),
        *(("delta", v) for v in (0, 1, np.nan, "0.1")),
        *(("p_value", v) for v in ("t-test", None)),
        *(("procedure", v) for v in ("graphical", None)),
        *(("procedure", lambda p, d, v=v: v) for v in (None, True, [1, 0], [True])),
        *(("trials", v) for v in (0, -1, 1.5)),
        *(("loss_range", v) for v in ((1, 0), (0, 0), (0, np.inf), (0,), 5)),
    ],
)
def test_splits_refuse_bad_arguments_by_name(name, value):
    with pytest.raises((TypeError, ValueError), match=name):
        repeated_splits(**(SPLITS | {name: value}))


# Laws


@pytest.mark.parametrize("name", LAWS)
def test_laws_have_the_stated_means(name):
    risks, n = np.array([0.02, 0.1, 0.5, 0.97]), 40_000
    losses = LAWS[name](risks, n, np.random.default_rng(0))
    assert losses.shape == (n, 4) and losses.min() >= 0 and losses.max() <= 1
    assert losses.dtype == (bool if name in ZERO_ONE else float)
    z = (losses.mean(axis=0) - risks) / (losses.std(axis=0) / np.sqrt(n))
    assert np.abs(z).max() < 4.5


def test_laws_have_the_stated_dependence_and_values():
    risks, rng = np.array([0.1, 0.4, 0.8]), np.random.default_rng(0)
    nested = validation.bernoulli(risks, 1000, rng)
    assert (nested[:, 0] <= nested[:, 1]).all() and (nested[:, 1] <= nested[:, 2]).all()
    for law in (validation.independent, validation.beta):
        assert abs(np.corrcoef(law(risks, 20_000, rng).T.astype(float))[np.triu_indices(3, 1)]).max() < 0.04
    two = validation.two_point(risks, 1000, rng)
    for j, risk in enumerate(risks):
        assert sorted(set(two[:, j])) == pytest.approx([risk / 2, (1 + risk) / 2])
    spread = validation.beta(np.array([0.3]), 40_000, rng).var()
    assert spread == pytest.approx(0.3 * 0.7 / 5, rel=0.05)  # the variance of Beta(4 r, 4 (1 - r))


# Error rate

EDGE = [0.06, 0.101, 0.1001, 0.3]  # the second and third are barely false at alpha = 0.1


@pytest.mark.long
@pytest.mark.parametrize("procedure", ["fixed_sequence", "holm", "bonferroni"])
@pytest.mark.parametrize("p_value", VALID)
@pytest.mark.parametrize("name", LAWS)
def test_every_valid_method_keeps_the_promise(name, p_value, procedure):
    settings = dict(n=50, alpha=0.1, delta=0.1, p_value=p_value, procedure=procedure, trials=2000)
    if p_value == "binomial" and name not in ZERO_ONE:
        with pytest.raises(TypeError, match="binomial"):
            error_rate(LAWS[name], EDGE, **settings)
        return
    result = error_rate(LAWS[name], EDGE, **settings)
    assert result.trials == 2000 and result.evidence >= 1e-4


def test_an_exact_method_uses_the_promise_up():
    """P[Bin(100, 0.101) <= 6] = 0.112: a rate far below it would mean that false certificates are missed."""
    result = error_rate(validation.bernoulli, [0.101], n=100, alpha=0.1, delta=0.12, p_value="binomial")
    assert 0.112 - 4 * 0.0071 < result.rate < 0.112 + 4 * 0.0071


@pytest.mark.parametrize("p_value", ["tight", "binomial", "betting"])
def test_no_correction_is_refuted(p_value):
    settings = dict(n=50, alpha=0.1, delta=0.1, p_value=p_value)
    assert error_rate(validation.independent, [0.101] * 8, procedure=anywhere, **settings).evidence < 1e-4
    assert error_rate(validation.independent, [0.101] * 8, **settings).evidence >= 1e-4


def test_clt_is_refuted_on_rare_losses():
    rare = dict(n=20, alpha=0.1, delta=0.05)
    assert error_rate(validation.bernoulli, [0.101], p_value="clt", **rare).evidence < 1e-4
    assert error_rate(validation.bernoulli, [0.101], p_value="tight", **rare).evidence >= 1e-4


def test_only_risks_above_alpha_can_be_certified_falsely():
    settings = dict(n=200, alpha=0.1, delta=0.1, trials=50)
    assert error_rate(validation.bernoulli, [0.001, 0.01], **settings).errors == 0
    assert error_rate(validation.bernoulli, [0.1], procedure=lambda p, d: p <= 1, **settings).errors == 0
    assert error_rate(validation.bernoulli, [0.01, 0.11], procedure=lambda p, d: p <= 1, **settings).errors == 50
    assert error_rate(validation.bernoulli, [0.9, 0.95], **settings).errors == 0


def test_error_rate_is_a_loop_of_calibrations():
    risks, rng, wrong = np.array([0.06, 0.11, 0.13]), np.random.default_rng(8), 0
    for _ in range(300):
        losses = validation.independent(risks, 40, rng)
        wrong += calibrate_losses(losses, [0.1, 0.2, 0.3], alpha=0.1, delta=0.3).rejected[1:].any()
    result = error_rate(validation.independent, risks, n=40, alpha=0.1, delta=0.3, trials=300, seed=8)
    assert (result.errors, result.trials, result.delta) == (wrong, 300, 0.3) and wrong > 5


@pytest.mark.parametrize("errors", [0, 1, 90, 100, 150, 1000])
def test_evidence_is_the_exact_binomial_test(errors):
    result = validation.ErrorRate(errors, 1000, 0.1)
    assert result.rate == errors / 1000 and result.evidence == pytest.approx(evidence(errors, 1000, 0.1), rel=1e-9)


def test_error_rate_is_reproducible():
    rates = [error_rate(validation.beta, EDGE, n=50, alpha=0.1, delta=0.4, trials=300, seed=s) for s in (1, 1, 2)]
    assert rates[0] == rates[1] != rates[2]


RATE = dict(law=validation.bernoulli, risks=[0.1, 0.2], n=20, alpha=0.1, delta=0.1, trials=3)


@pytest.mark.parametrize(
    "name, value",
    [
        *(("risks", v) for v in ([np.nan], [-0.1], [1.1], [], 0.1, [[0.1, 0.2]], ["a"])),
        *(("n", v) for v in (0, -1, 2.5, "20", True)),
        *(("alpha", v) for v in (0, 1, np.nan, "0.1")),
        *(("delta", v) for v in (0, 1, np.nan, "0.1")),
        *(("p_value", v) for v in ("t-test", None)),
        *(("procedure", v) for v in ("graphical", None)),
        *(("procedure", lambda p, d, v=v: v) for v in (None, True, [1, 0], [True])),
        *(("trials", v) for v in (0, -1, 1.5)),
        *(
            ("law", law)
            for law in (
                lambda r, n, g: np.zeros((n, 3)),
                lambda r, n, g: np.zeros((n + 1, 2)),
                lambda r, n, g: np.zeros(n),
                lambda r, n, g: np.full((n, 2), 1.5),
                lambda r, n, g: np.full((n, 2), np.nan),
            )
        ),
    ],
)
def test_error_rate_refuses_bad_arguments_by_name(name, value):
    word = "law|losses" if name == "law" else rf"\b{name}\b"
    with pytest.raises((TypeError, ValueError), match=word):
        error_rate(**(RATE | {name: value}))
