"""Selective classification against slow loops, scipy, the general graphical procedure, and laws of known risk."""

import functools
import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest

from confprune_edu import calibration, fwer, losses, pvalues, selective
from confprune_edu.evaluation import loss_tables
from confprune_edu.selective import procedures
from confprune_edu.selective.certificate import confidence_name
from confprune_edu.validation import selective_splits

TAUS = np.array([0.95, 0.8, 0.5, 0.0])


def tables(seed=0, n=60, m=4):
    """Confidences, some of them exactly thresholds, and 0/1 losses, (n, m)."""
    rng = np.random.default_rng(seed)
    confidence = rng.choice([0.0, 0.3, 0.5, 0.6, 0.8, 0.9, 0.95, 1.0], size=(n, m))
    return confidence, rng.random((n, m)) < 0.3 * (1 - confidence)


@pytest.fixture(scope="module")
def digit_tables():
    """Confidence and error of the shipped network on the shipped digits, pruned to 0, 1, ..., 99 per cent."""
    from confprune_edu import data, models

    wanted = {"confidence": losses.confidence, "error": losses.error}
    return loss_tables(models.load("mnist-mlp"), data.mnist5k(), calibration.RATIOS, wanted, progress=False)


# Counts and p-values


@pytest.mark.parametrize("kind", [bool, np.int8, float])
def test_counts_are_those_of_a_loop(kind):
    confidence, wrong = tables()
    table = np.random.default_rng(1).random(wrong.shape) if kind is float else wrong.astype(kind)
    selected, loss_sum = selective.counts(confidence, table, TAUS)
    for j in range(4):
        for k, tau in enumerate(TAUS):
            answered = [i for i in range(60) if confidence[i, j] >= tau]
            assert selected[j, k] == len(answered)
            assert loss_sum[j, k] == pytest.approx(sum(float(table[i, j]) for i in answered), abs=1e-12)
    assert loss_sum.dtype == (np.float64 if kind is float else np.int64)


def test_binomial_p_values_are_exact_tails_on_the_answered():
    confidence, wrong = tables(seed=3)
    p = selective.risk_p_values(confidence, wrong, TAUS, alpha=0.15)
    for j in range(4):
        for k, tau in enumerate(TAUS):
            answered = confidence[:, j] >= tau
            errors, n = int(wrong[answered, j].sum()), int(answered.sum())
            want = binomtest(errors, n, 0.15, alternative="less").pvalue if n else 1.0
            assert p[j, k] == pytest.approx(want, abs=1e-13)


@pytest.mark.parametrize("method", [m for m in pvalues.METHODS if m != "binomial"])
@pytest.mark.parametrize("fractional", [False, True])
def test_other_p_values_count_an_abstention_as_alpha(method, fractional):
    confidence, wrong = tables(seed=4)
    table = np.random.default_rng(2).beta(1, 9, wrong.shape) if fractional else wrong
    p = selective.risk_p_values(confidence, table, TAUS, alpha=0.2, method=method)
    for j in range(4):
        for k, tau in enumerate(TAUS):
            z = np.where(confidence[:, j] >= tau, table[:, j], 0.2)
            assert p[j, k] == pytest.approx(pvalues.p_values(z[:, None], 0.2, method)[0], abs=1e-9)


@pytest.mark.parametrize("method", pvalues.METHODS)
def test_nothing_answered_is_no_evidence(method):
    p = selective.risk_p_values(np.full((5, 1), 0.4), np.zeros((5, 1), dtype=bool), [0.9, 0.4], 0.3, method)
    assert p[0, 0] == 1.0  # silence is never certified ...
    assert p[0, 1] < 1.0  # ... but a confidence equal to the threshold is an answer


@pytest.mark.parametrize("method", pvalues.METHODS)
def test_answers_that_are_all_wrong_are_no_evidence(method):
    p = selective.risk_p_values(np.full((9, 1), 0.4), np.ones((9, 1), dtype=bool), [0.4], 0.3, method)
    assert p[0, 0] == pytest.approx(1.0)


def test_coverage_p_values_are_exact_tails():
    confidence, _ = tables(seed=5)
    p = selective.coverage_p_values(confidence, TAUS, floor=0.7)
    silent = 60 - (confidence[:, :, None] >= TAUS).sum(axis=0)
    assert p == pytest.approx(binom.cdf(silent, 60, 1 - 0.7), abs=1e-12)


# Procedures on a grid


def random_grids(trials=300, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        m, t = rng.integers(1, 5, size=2)
        yield np.round(rng.random((m, t)) ** 3 / 4, 3), rng


def test_rows_are_one_bonferroni_share_each():
    for p, _ in random_grids():
        m, t = p.shape
        want = [[all(p[j, i] <= 0.2 / m for i in range(k + 1)) for k in range(t)] for j in range(m)]
        assert selective.rows(p, 0.2).tolist() == want


def test_a_path_is_a_fixed_sequence_and_certifies_nothing_beside_it():
    for p, rng in random_grids(seed=1):
        m, t = p.shape
        cells = rng.permutation(m * t)[: rng.integers(0, m * t + 1)]
        way = np.column_stack(np.divmod(cells, t))
        want = np.zeros((m, t), dtype=bool)
        for j, k in way:
            if p[j, k] > 0.15:
                break
            want[j, k] = True
        assert (selective.path(p, 0.15, way) == want).all()


def lattice(m, t, down, weights):
    """Weights (m t,) and transitions (m t, m t) of the grid's graph, cell by cell."""
    w, g = np.zeros(m * t), np.zeros((m * t, m * t))
    for j in range(m):
        w[j * t] = weights[j]
        for k in range(t):
            below, along = j + 1 < m, k + 1 < t
            if below:
                g[j * t + k, (j + 1) * t + k] = down if along else 1
            if along:
                g[j * t + k, j * t + k + 1] = 1 - down if below else 1
    return w, g


def test_the_grid_graph_is_the_graphical_procedure():
    rejections = 0
    for p, rng in random_grids(seed=2):
        m, t = p.shape
        weights, down = rng.dirichlet(np.ones(m)), float(rng.choice([0, 0.2, 0.5, 1]))
        got = selective.grid_graph(p, 0.3, weights=weights, down=down)
        want = fwer.graphical(p.ravel(), 0.3, *lattice(m, t, down, weights)).reshape(m, t)
        assert (got == want).all()
        rejections += int(got.sum())
    assert rejections > 200


def test_the_default_budget_of_the_grid_graph_enters_every_tenth_part():
    p = np.full((40, 3), 0.5)
    p[[0, 4, 5], 0] = 0.01  # shares of delta = 0.1: a tenth each at rows 0, 4, 8, ...
    assert np.argwhere(selective.grid_graph(p, 0.1)).tolist() == [[0, 0], [4, 0]]  # row 5 is sent only 0.2 * 0.01
    p[5, 0] = 0.002
    assert selective.grid_graph(p, 0.1)[5, 0]


def test_many_grids_at_once_are_each_grid_alone():
    p = np.random.default_rng(3).random((20, 6, 5)) ** 4
    way = selective.staircase(6, 5, start=(0, 0), end=(5, 4))
    for procedure in (selective.rows, selective.grid_graph, lambda q, delta: selective.path(q, delta, way)):
        assert (procedure(p, 0.2) == np.array([procedure(q, 0.2) for q in p])).all()


def test_a_staircase_takes_unit_steps_and_stays_near_the_straight_line():
    way = selective.staircase(8, 6, start=(7, 1), end=(2, 5))
    assert (way[0].tolist(), way[-1].tolist()) == ([7, 1], [2, 5])
    assert (np.abs(np.diff(way, axis=0)).sum(axis=1) == 1).all()
    line = 1 + 4 * (7 - way[:, 0]) / 5
    assert np.abs(way[:, 1] - line).max() <= 1


def test_a_learned_path_holds_exactly_the_pairs_that_nothing_beats():
    for p, rng in random_grids(seed=4):
        m, t = p.shape
        coverage = np.sort(rng.integers(0, 4, size=(m, t)), axis=1)

        def beats(a, b, p=p, coverage=coverage):
            at_least = a[0] >= b[0] and coverage[a] >= coverage[b] and p[a] <= p[b]
            return at_least and (a[0] > b[0] or coverage[a] > coverage[b] or p[a] < p[b])

        cells = [(j, k) for j in range(m) for k in range(t)]
        front = {b for b in cells if not any(beats(a, b) for a in cells)}
        learned = [tuple(pair) for pair in selective.learned_path(p, coverage).tolist()]

        def values(a, p=p, coverage=coverage):
            return a[0], coverage[a], p[a]

        assert set(learned) <= front and len(set(learned)) == len(learned)
        assert {values(a) for a in learned} == {values(a) for a in front}  # of equals, one
        assert [p[a] for a in learned] == sorted(p[a] for a in learned)


def test_a_certified_floor_halves_the_budget_of_rows_and_graph():
    risk_p, coverage_p = np.array([[0.04, 0.06]]), np.array([[0.051, 0.05]])
    assert procedures.reject("rows", risk_p, 0.1, coverage_p).tolist() == [
        [False, False]
    ]  # neither passes both at 0.05
    risk_p[0, 1] = 0.05
    for name in ("rows", "graph"):
        assert procedures.reject(name, risk_p, 0.1, coverage_p).tolist() == [[False, True]]
    two = np.array([[0.001, 0.001], [0.001, 0.001]])
    share = np.array([[0.1, 0.026], [0.1, 0.025]])  # delta / (2 m) = 0.025 for the coverages of a row
    assert procedures.reject("rows", two, 0.1, share).tolist() == [[False, False], [False, True]]


# Family-wise error where the selective risk is known


def known_law(rng, n, rate, risks):
    """Confidence (n, m): 0.9 with probability `rate`, else 0.4; wrong with the given risks, and where unsure with 0.9.

    Columns share one uniform an example: errors are nested, as in pruning.
    """
    sure = rng.random((n, 1)) < rate
    wrong = rng.random((n, 1)) < np.where(sure, risks, 0.9)
    return np.where(np.broadcast_to(sure, wrong.shape), 0.9, 0.4), wrong


def false_grids(procedure, *, rate, risks, n, delta, alpha, method="binomial", trials=2000, seed=0):
    """Trials with a false certificate; the pairs of risk above alpha are false, the lenient threshold always is."""
    rng, count = np.random.default_rng(seed), 0
    for _ in range(trials):
        confidence, wrong = known_law(rng, n, rate, risks)
        p = selective.risk_p_values(confidence, wrong, [0.9, 0.6, 0.1], alpha, method)
        rejected = procedure(p, delta)
        count += bool(rejected[risks > alpha].any() or rejected[:, 2].any())
    return count


def never_exceeds(count, trials, delta):
    return binomtest(count, trials, delta, alternative="greater").pvalue >= 1e-4


BORDER = np.full(12, 0.1 + 1e-9)  # every ratio just too risky: each rejection is false
PROCEDURES = {
    "rows": selective.rows,
    "graph": selective.grid_graph,
    "path": lambda p, delta: selective.path(p, delta, selective.staircase(*p.shape[-2:])),
}


@pytest.mark.long
@pytest.mark.parametrize("name", PROCEDURES)
@pytest.mark.parametrize("rate", [0.05, 0.5])  # 20 of 400 answered: selection is rare
def test_the_family_wise_error_is_held(name, rate):
    count = false_grids(PROCEDURES[name], rate=rate, risks=BORDER, n=400, delta=0.1, alpha=0.1)
    assert never_exceeds(count, 2000, 0.1)


@pytest.mark.long
@pytest.mark.parametrize("method", ["tight", "hoeffding_bentkus"])
def test_the_family_wise_error_is_held_by_the_bounded_form(method):
    count = false_grids(selective.rows, rate=0.5, risks=BORDER[:2], n=200, delta=0.2, alpha=0.1, method=method)
    assert never_exceeds(count, 2000, 0.2)


def independent_grids(procedure, trials=2000, m=12, n=200, alpha=0.1):
    """As `false_grids`, with independent columns, where testing many pairs costs most."""
    rng, count = np.random.default_rng(1), 0
    for _ in range(trials):
        wrong = rng.random((n, m)) < alpha + 1e-9
        p = selective.risk_p_values(np.full((n, m), 0.9), wrong, [0.9], alpha)
        count += bool(procedure(p, 0.1).any())
    return count


@pytest.mark.long
def test_testing_every_pair_at_delta_breaks_the_promise():
    assert never_exceeds(independent_grids(selective.rows), 2000, 0.1)
    assert never_exceeds(independent_grids(selective.grid_graph), 2000, 0.1)
    assert not never_exceeds(independent_grids(lambda p, delta: p <= delta), 2000, 0.1)


@pytest.mark.long
def test_a_path_must_be_learned_from_other_examples():
    def peeking(p, delta):
        return selective.path(p, delta, selective.learned_path(p, np.ones(p.shape)))

    assert not never_exceeds(independent_grids(peeking), 2000, 0.1)
    rng, count = np.random.default_rng(2), 0
    for _ in range(2000):
        wrong = rng.random((200, 12)) < 0.1 + 1e-9
        result = selective.calibrate_losses(
            np.full((200, 12), 0.9), wrong, np.arange(12) / 12, [0.9], alpha=0.1, delta=0.1, procedure="split"
        )
        count += bool(result.rejected.any())
    assert never_exceeds(count, 2000, 0.1)


@pytest.mark.long
@pytest.mark.parametrize("procedure", ["rows", "graph", "path", "split"])
def test_a_certified_floor_is_held(procedure):
    rng, count = np.random.default_rng(3), 0
    for _ in range(2000):  # no errors at all, but each pair answers slightly too little
        confidence = np.where(rng.random((80, 1)) < 0.8 - 1e-9, 0.9, 0.1).repeat(3, axis=1)
        result = selective.calibrate_losses(
            confidence,
            np.zeros((80, 3), bool),
            [0, 0.3, 0.6],
            [0.9],
            alpha=0.3,
            delta=0.2,
            procedure=procedure,
            coverage=0.8,
        )
        count += bool(result.rejected.any())
    assert never_exceeds(count, 2000, 0.2)
    assert count > 0


# Certificates


def certificate(**options):
    confidence, wrong = tables(seed=7, n=400)
    settings = {"alpha": 0.1, "delta": 0.1, **options}
    return selective.calibrate_losses(confidence, wrong & (confidence < 0.6), [0, 0.2, 0.5, 0.9], TAUS, **settings)


def test_a_certificate_reports_what_its_examples_did():
    confidence, wrong = tables(seed=7, n=400)
    wrong &= confidence < 0.6
    result = certificate()
    for j in range(4):
        for k, tau in enumerate(TAUS):
            answered = confidence[:, j] >= tau
            assert result.coverage[j, k] == pytest.approx(answered.mean())
            assert result.risk[j, k] == pytest.approx(wrong[answered, j].mean())
    assert (result.rejected == selective.rows(result.p_values, 0.1)).all() and result.rejected.any()
    assert result.n == 400 and result.n_path == 0
    expected = np.where(result.rejected, result.coverage, -1).max(axis=1)
    assert np.nan_to_num(result.frontier, nan=-1).tolist() == expected.tolist()


def certified(mask, coverage):
    mask, coverage = np.array(mask), np.array(coverage)
    m, t = mask.shape
    return selective.SelectiveCalibration(
        rejected=mask,
        p_values=np.where(mask, 0.0, 1.0),
        coverage=coverage,
        risk=np.zeros((m, t)),
        ratios=np.arange(m) / 10,
        thresholds=np.linspace(0.9, 0.1, t),
        alpha=0.1,
        delta=0.1,
        n=100,
        floor=None,
        p_value="binomial",
        procedure="rows",
    )


def test_best_maximises_one_and_breaks_ties_by_the_other():
    result = certified([[True, True], [True, False], [False, False]], [[0.5, 0.9], [0.7, 0.8], [0.6, 0.9]])
    best = result.best()
    assert (best.ratio, best.threshold, best.coverage, best.row, best.column) == (0.1, 0.9, 0.7, 1, 0)
    assert (result.best("coverage").row, result.best("coverage").column) == (0, 1)
    assert result.best("ratio", min_coverage=0.8).row == 0
    assert result.best("ratio", min_coverage=0.95) is None
    tie = certified([[True, True], [True, True]], [[0.5, 0.5], [0.5, 0.5]])
    assert (tie.best("coverage").row, tie.best("coverage").column) == (1, 0)  # the more pruned, then the stricter
    assert (tie.best("ratio").row, tie.best("ratio").column) == (1, 0)


def test_nothing_certified_is_an_answer():
    result = certificate(alpha=1e-4)
    assert not result.rejected.any() and result.best() is None and result.best("coverage") is None
    assert np.isnan(result.frontier).all()
    assert "othing" in repr(result) and "othing" in result._repr_html_()
    with pytest.raises(ValueError, match="pair is None: nothing was certified"):
        result.prune(torch.nn.Linear(2, 2))


def test_a_pair_decides_as_its_threshold_says():
    pair = selective.Pair(ratio=0.5, threshold=0.8, coverage=0.5, risk=0.0, row=0, column=0)
    logits = torch.log(torch.tensor([[0.7, 0.3], [0.1, 0.9], [0.8, 0.2]], dtype=torch.float64))
    assert pair.decide(logits)[:2].tolist() == [-1, 1]


def margin(pruned, full, target):
    """The difference of the two largest logits, squeezed into [0, 1], in the precision of the network."""
    top = pruned.topk(2, dim=1).values
    return 1 - torch.exp(top[:, 1] - top[:, 0])


def test_a_pair_asks_for_the_confidence_that_was_calibrated():
    model, inputs = torch.nn.Linear(2, 2, bias=False), torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    model.weight.data = torch.tensor([[5.0, 0.1], [0.1, 4.0]])
    options = {"alpha": 0.2, "delta": 0.1, "ratios": [0.0, 0.25], "thresholds": [0.3, 0.1], "progress": False}
    pair = selective.calibrate(model, inputs, losses.disagreement, confidence=margin, **options).best()
    outputs = model(inputs).detach()
    answered = pair.decide(outputs, margin) >= 0
    assert answered.tolist() == (margin(outputs, None, None) >= pair.threshold).tolist()
    with pytest.raises(ValueError, match=r"confidence must be the function that was calibrated .margin., got none"):
        pair.decide(outputs)
    with pytest.raises(ValueError, match=r"calibrated .margin., got confidence"):
        pair.decide(outputs, losses.confidence)


def test_only_the_softmax_is_called_confidence():
    def confidence(pruned, full, target):
        return margin(pruned, full, target)

    assert confidence_name(confidence) == "custom confidence"
    assert confidence_name(losses.confidence) == "confidence"
    with pytest.raises(ValueError, match=r"calibrated .confidence., got custom confidence"):
        selective.Pair(0.5, 0.8, 0.5, 0.0, 0, 0).decide(torch.eye(2), confidence)


def test_tables_alone_do_not_tell_how_to_decide():
    pair = certificate().best()
    with pytest.raises(ValueError, match="only its values were calibrated"):
        pair.decide(torch.eye(2))
    assert pair.decide(9 * torch.eye(2), losses.confidence).tolist() == [0, 1]


def test_a_confidence_in_single_precision_is_compared_as_it_was_calibrated():
    taus = np.array(selective.THRESHOLDS)
    values = torch.tensor(taus, dtype=torch.float32)  # half of them rounded to below their threshold

    def nearest(pruned, full, target):
        return pruned[:, 2].float()

    outputs = torch.column_stack([torch.ones(len(taus)), torch.zeros(len(taus)), values])
    calibrated = values.double().numpy() >= taus
    decided = [
        selective.Pair(0.5, tau, 1.0, 0.0, 0, 0, "nearest").decide(outputs[[k]], nearest).item() >= 0
        for k, tau in enumerate(taus)
    ]
    assert decided == calibrated.tolist()
    assert not calibrated.all()  # ties that a comparison in single precision would answer


def test_no_pair_is_not_the_best_pair():
    model = torch.nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[5.0, 0.1], [0.1, 4.0]])
    options = {"alpha": 0.2, "delta": 0.1, "ratios": [0.25], "thresholds": [0.9, 0.6], "progress": False}
    inputs = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    result = selective.calibrate(model, inputs, losses.disagreement, **options)
    assert result.prune(model).weight.count_nonzero() == 3  # that of best()
    with pytest.raises(ValueError, match="pair is None"):
        result.prune(model, result.best(min_coverage=1.0))
    with pytest.raises(TypeError, match=r"pair must be a Pair, .* got 0.25"):
        result.prune(model, 0.25)


def test_a_procedure_that_certifies_silence_is_refused():
    def everything(p_values, delta):
        return np.ones_like(p_values, dtype=bool)

    confidence, wrong = tables()
    with pytest.raises(ValueError, match="procedure must not certify a pair that answers nothing"):
        selective.calibrate_losses(
            confidence * 0.9, wrong, [0.1, 0.2, 0.3, 0.4], TAUS, alpha=0.2, delta=0.1, procedure=everything
        )


def test_the_claim_of_a_procedure_from_outside_is_conditional():
    def own_rule(p_values, delta):
        return selective.rows(p_values, delta)

    confidence, wrong = np.full((99, 1), 0.9), np.zeros((99, 1), dtype=bool)
    tested = functools.partial(selective.calibrate_losses, confidence, wrong, [0.5], [0.8], alpha=0.1, delta=0.1)
    assert "provided that own_rule keeps its own chance of any false rejection" in repr(tested(procedure=own_rule))
    for known in ("rows", selective.rows, functools.partial(selective.grid_graph, down=0.5)):
        assert "provided" not in repr(tested(procedure=known))


def test_nothing_certified_says_what_was_missing():
    confidence, wrong = np.full((20, 2), 0.9), np.zeros((20, 2), dtype=bool)
    tested = functools.partial(selective.calibrate_losses, confidence, wrong, [0.5, 0.6], [0.8], alpha=0.1, delta=0.1)
    first = 0.9**20
    assert f"p <= delta / 2 = 0.05, the smallest first p-value is {first:.3g}, with at most 100.0%" in " ".join(
        repr(tested()).split()
    )
    told = " ".join(repr(tested(procedure="path")).split())
    assert f"p <= delta = 0.1, its first p-value is {first:.3g}" in told


def test_splitting_tests_on_the_examples_that_did_not_learn():
    result = certificate(procedure="split", split=0.25)
    assert (result.n_path, result.n) == (100, 300)
    again = certificate(procedure="split", split=0.25)
    assert (again.p_values == result.p_values).all()
    other = certificate(procedure="split", split=0.25, seed=1)
    assert (other.p_values != result.p_values).any()


def test_a_loss_of_another_range_is_rescaled_with_alpha():
    confidence, wrong = tables(seed=8, n=300)
    kept = {"delta": 0.1, "p_value": "tight"}
    plain = selective.calibrate_losses(confidence, wrong, [0, 0.1, 0.2, 0.3], TAUS, alpha=0.2, **kept)
    wide = selective.calibrate_losses(
        confidence, 4.0 * wrong - 2, [0, 0.1, 0.2, 0.3], TAUS, alpha=-1.2, loss_range=(-2, 2), **kept
    )
    assert wide.p_values == pytest.approx(plain.p_values, abs=1e-12)
    assert wide.risk == pytest.approx(4 * plain.risk - 2, nan_ok=True)


def test_json_gives_the_certificate_back():
    result = certificate(coverage=0.1)
    again = selective.SelectiveCalibration.from_json(result.to_json())
    for name in ("rejected", "p_values", "coverage", "risk", "ratios", "thresholds"):
        assert np.array_equal(getattr(again, name), getattr(result, name), equal_nan=name == "risk")
    assert (again.floor, again.n, again.procedure) == (0.1, 400, "rows") and repr(again) == repr(result)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "other"),
        ("version", 2),
        ("rejected", [[True]]),
        ("p_values", None),
        ("thresholds", [0.1, 0.2, 0.3, 0.4]),
        ("delta", 2),
        ("n", -1),
        ("n", 10**30),
        ("n_path", 5),
        ("floor", 0.99),
        ("confidence", 1),
    ],
)
def test_a_damaged_record_is_refused(field, value):
    record = json.loads(certificate().to_json())
    record[field] = value
    with pytest.raises(ValueError, match="record"):
        selective.SelectiveCalibration.from_json(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confidence": np.full((60, 4), 1.1)}, "confidence"),
        ({"confidence": np.full((60, 4), np.nan)}, "confidence"),
        ({"confidence": np.zeros((60, 3))}, "confidence"),
        ({"losses": np.full((60, 4), 2)}, "losses"),
        ({"losses": np.full((60, 4), 0.5)}, "binomial|losses|integer"),
        ({"thresholds": [0.1, 0.5]}, r"0.1 and then 0.5 at position 1; thresholds\[::-1\] is"),
        ({"thresholds": [0.6, 0.5, 0.5]}, "thresholds must be strictly decreasing.* position 2$"),
        ({"thresholds": [1.5, 0.5]}, "thresholds"),
        ({"thresholds": []}, "thresholds"),
        ({"ratios": [0, 0.1, 0.2]}, "ratio"),
        ({"alpha": 0}, "alpha"),
        ({"delta": 1}, "delta"),
        ({"coverage": 1.0}, "coverage"),
        ({"p_value": "t-test"}, "p_value"),
        ({"procedure": "columns"}, "procedure"),
        ({"procedure": lambda p, delta: p[0] <= delta}, "procedure"),
        ({"procedure": "split", "split": 0.001}, "split"),
    ],
)
def test_bad_input_is_refused_by_name(change, message):
    confidence, wrong = tables()
    settings = {"confidence": confidence, "losses": wrong, "ratios": [0, 0.1, 0.2, 0.3], "thresholds": TAUS}
    with pytest.raises((TypeError, ValueError), match=message):
        selective.calibrate_losses(**{**settings, "alpha": 0.1, "delta": 0.1, **change})


@pytest.mark.parametrize("way", [[[0, 0], [0, 0]], [[2, 0]], [[0, -1]], [[0.0, 1.0]], [0, 1]])
def test_a_path_that_is_none_is_refused(way):
    with pytest.raises(ValueError, match="path"):
        selective.path(np.zeros((2, 2)), 0.1, way)


# The shipped digits


def test_abstaining_certifies_what_plain_calibration_must_refuse(digit_tables):
    first = {name: table[:3000] for name, table in digit_tables.items()}
    plain = calibration.calibrate_losses(first["error"], calibration.RATIOS, alpha=0.01, delta=0.1)
    assert plain.ratio is None
    for procedure in ("rows", "graph", "path", "split"):
        result = selective.calibrate_losses(
            first["confidence"], first["error"], calibration.RATIOS, alpha=0.01, delta=0.1, procedure=procedure
        )
        assert result.best(min_coverage=0.9).ratio >= 0.75
        floor = selective.calibrate_losses(
            first["confidence"],
            first["error"],
            calibration.RATIOS,
            alpha=0.01,
            delta=0.1,
            procedure=procedure,
            coverage=0.9,
        )
        assert floor.best().ratio >= 0.75


def test_without_labels_the_answers_agree_with_the_full_network(digits, mlp, unchanged):
    images = digits[0][:600]
    with unchanged(mlp):
        result = selective.calibrate(
            mlp, images, loss=losses.disagreement, ratios=[0.5, 0.8, 0.9], alpha=0.05, delta=0.1, progress=False
        )
    pair = result.best(min_coverage=0.5)
    with torch.inference_mode():
        outputs = result.prune(mlp, pair)(images)
        same = outputs.argmax(1) == mlp(images).argmax(1)
    answers = pair.decide(outputs)
    assert float((answers >= 0).float().mean()) == pytest.approx(pair.coverage)
    assert 1 - float(same[answers >= 0].float().mean()) == pytest.approx(pair.risk)
    assert (answers[answers >= 0] == outputs.argmax(1)[answers >= 0]).all()
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with pytest.raises(ValueError, match="model"):
        result.prune(other, pair)
    (row, column) = np.argwhere(~result.rejected)[0] if not result.rejected.all() else (0, 0)
    assert not result.rejected[row, column]
    refused = selective.Pair(result.ratios[row], result.thresholds[column], 0.5, 0.0, int(row), int(column))
    with pytest.raises(ValueError, match="pair"):
        result.prune(mlp, refused)


# Repeated splits


def test_splits_know_the_risk_of_the_population():
    confidence, wrong = tables(seed=9, n=400)
    wrong &= confidence < 0.6
    ratios = [0, 0.2, 0.5, 0.9]
    splits = selective_splits(confidence, wrong, ratios, TAUS, n_calibration=150, alpha=0.15, delta=0.1, trials=40)
    assert not np.isnan(splits.ratio).all()
    for ratio, threshold, risk, coverage in zip(
        splits.ratio, splits.threshold, splits.risk, splits.coverage, strict=True
    ):
        if np.isnan(ratio):
            assert np.isnan([threshold, risk, coverage]).all()
            continue
        answered = confidence[:, ratios.index(ratio)] >= threshold
        errors = Fraction(int(wrong[answered, ratios.index(ratio)].sum()), int(answered.sum()))
        assert (risk, coverage) == (pytest.approx(float(errors)), pytest.approx(answered.mean()))
    assert splits.broken == np.mean(splits.risk > 0.15) and splits.abstained == np.isnan(splits.ratio).mean()


@pytest.mark.long
def test_splits_see_a_procedure_that_does_not_correct(digit_tables):
    some = {name: table[:, 60:] for name, table in digit_tables.items()}
    shares = {}
    for name, procedure in {"rows": "rows", "none": lambda p, delta: p <= delta}.items():
        splits = selective_splits(
            some["confidence"],
            some["error"],
            calibration.RATIOS[60:],
            n_calibration=1000,
            alpha=0.01,
            delta=0.1,
            procedure=procedure,
            trials=300,
        )
        shares[name] = splits.any_broken
        assert splits.broken <= splits.any_broken
    assert shares["rows"] <= 0.1 < shares["none"]
