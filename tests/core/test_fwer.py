"""Multiple testing against brute-force closed tests in exact fractions, and error rates where the truth is known."""

import math
from fractions import Fraction
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from confprune_edu.fwer import bonferroni, fixed_sequence, graph_step, graphical, holm, multi_start

DELTA = Fraction(1, 10)


def ring(m):
    """Equal weights; half of a budget goes to the next hypothesis, a quarter to the one after that."""
    transitions = np.roll(np.eye(m), 1, axis=1) / 2 + (np.roll(np.eye(m), 2, axis=1) / 4 if m > 2 else 0)
    return {"weights": np.full(m, 1 / m), "transitions": transitions if m > 1 else [[0]]}


def procedures(m):
    """All five for m hypotheses, as functions of (p_values, delta)."""
    return {
        "bonferroni": bonferroni,
        "holm": holm,
        "fixed_sequence": fixed_sequence,
        "multi_start": partial(multi_start, starts=range(0, m, 3)),
        "graphical": partial(graphical, **ring(m)),
    }


NAMES = tuple(procedures(1))
by_name = pytest.mark.parametrize("name", NAMES)


# --- closed testing: H_j falls when every intersection that contains j is rejected by a test at level delta ---


def closed_test(m, local_test):
    subsets = [s for size in range(1, m + 1) for s in combinations(range(m), size)]
    falls = {s: local_test(s) for s in subsets}
    return [all(falls[s] for s in subsets if j in s) for j in range(m)]


def remaining_weights(weights, transitions, keep):
    """Weights after all but `keep` are removed, one at a time (Bretz et al. 2009), in exact fractions."""
    w, g, left = list(weights), [list(row) for row in transitions], set(range(len(weights)))
    for j in sorted(left - set(keep), reverse=True):
        left.remove(j)
        old = [row.copy() for row in g]
        for k in left:
            w[k] += w[j] * old[j][k]
            for i in left:
                loop = old[k][j] * old[j][k]
                g[k][i] = (old[k][i] + old[k][j] * old[j][i]) / (1 - loop) if i != k and loop < 1 else Fraction(0)
    return {k: w[k] for k in keep}


def random_graph(rng, m):
    """Weights and transitions in twelfths; dense or sparse, some rows and the weights summing to less than 1."""

    def shares(size):
        parts = rng.multinomial(rng.choice([8, 12, 12]), rng.dirichlet(np.full(size, rng.choice([0.2, 2]))))
        return [Fraction(int(part), 12) for part in parts]

    rows = [shares(m - 1) if m > 1 else [] for _ in range(m)]
    return shares(m), [[*row[:j], Fraction(0), *row[j:]] for j, row in enumerate(rows)]


def random_p(rng, m):
    """Exact p-values: mostly on the lattice delta * k / 12, where ties with the thresholds abound; some 0, some 1."""
    return [DELTA * Fraction(int(k), 12) if k < 13 else Fraction(1) for k in rng.integers(0, 14, m)]


def floats(values):
    return np.array(values, dtype=float)


@pytest.mark.parametrize("m", range(1, 7))
def test_graphical_is_the_closed_test(m):
    rng = np.random.default_rng(m)
    for _ in range(25):
        weights, transitions = random_graph(rng, m)
        subsets = [s for size in range(1, m + 1) for s in combinations(range(m), size)]
        share = {s: remaining_weights(weights, transitions, s) for s in subsets}
        tables = [random_p(rng, m) for _ in range(20)]

        def local_test(s, p, share=share):
            return any(share[s][j] > 0 and p[j] <= share[s][j] * DELTA for j in s)

        want = [closed_test(m, partial(local_test, p=p)) for p in tables]
        got = graphical(floats(tables), float(DELTA), floats(weights), floats(transitions))
        assert got.tolist() == want, f"weights {weights}, transitions {transitions}"


@pytest.mark.parametrize("m", range(2, 7))
def test_graphical_does_not_depend_on_the_order_of_removal(m):
    rng = np.random.default_rng(10 + m)
    for _ in range(40):
        weights, transitions = map(floats, random_graph(rng, m))
        p, order = floats(random_p(rng, m)), rng.permutation(m)
        shuffled = graphical(p[order], 0.1, weights[order], transitions[np.ix_(order, order)])
        np.testing.assert_array_equal(shuffled, graphical(p, 0.1, weights, transitions)[order])


def lattice(rng, shape, delta=0.1):
    """P-values with many ties: on the thresholds delta / i, just beside them, 0, 1, or uniform."""
    on = delta / rng.integers(1, 8, shape)
    values = [on, np.nextafter(on, 0), on * (1 + 1e-9), np.zeros(shape), np.ones(shape), rng.random(shape) * 2 * delta]
    return np.choose(rng.integers(0, len(values), shape), values)


@pytest.mark.parametrize("m", range(1, 7))
def test_holm_and_fixed_sequence_are_closed_tests(m):
    for p in lattice(np.random.default_rng(m), (200, m)):
        assert holm(p, 0.1).tolist() == closed_test(m, lambda s, p=p: any(p[j] <= 0.1 / len(s) for j in s))
        assert fixed_sequence(p, 0.1).tolist() == closed_test(m, lambda s, p=p: p[s[0]] <= 0.1)


@pytest.mark.parametrize("method", [bonferroni, holm], ids=lambda f: f.__name__)
@pytest.mark.parametrize("m", [2, 7, 50])
def test_bonferroni_and_holm_equal_statsmodels(method, m):
    for p in lattice(np.random.default_rng(m), (4, m)):  # few: each call of statsmodels collects garbage
        np.testing.assert_array_equal(method(p, 0.1), multipletests(p, alpha=0.1, method=method.__name__)[0])


@pytest.mark.parametrize("m", [1, 2, 3, 7])
def test_equal_weights_that_pass_on_in_equal_shares_are_holm(m):
    p = lattice(np.random.default_rng(20 + m), (500, m))
    equal = (np.ones((m, m)) - np.eye(m)) / max(m - 1, 1)
    np.testing.assert_array_equal(graphical(p, 0.1, np.full(m, 1 / m), equal), holm(p, 0.1))


@pytest.mark.parametrize("m", [1, 2, 3, 7])
def test_all_weight_on_the_first_of_a_chain_is_the_fixed_sequence(m):
    p = lattice(np.random.default_rng(30 + m), (500, m))
    np.testing.assert_array_equal(graphical(p, 0.1, np.eye(m)[0], np.eye(m, k=1)), fixed_sequence(p, 0.1))


def test_no_budget_no_rejection_even_at_p_zero():
    chain = np.eye(3, k=1)
    assert graphical([0.5, 0, 0], 0.1, [1, 0, 0], chain).tolist() == [False, False, False]
    assert graphical([0, 0.5, 0], 0.1, [1, 0, 0], chain).tolist() == [True, False, False]
    assert graphical([0, 0, 0], 0.1, [0, 0, 0], chain).tolist() == [False, False, False]


def test_a_nearly_closed_loop_creates_no_budget():
    transitions = [[0, 1, 0], [1 - 1e-13, 0, 1e-12], [0, 0, 0]]  # the middle row sums to 1, up to rounding
    assert graphical([0.001, 0.001, 0.9], 0.1, [0.5, 0.5, 0], transitions).tolist() == [True, True, False]


# --- graphs whose loops are closed but for very little, against exact fractions ---


def exact_step(weights, transitions, j):
    """Algorithm 1 of Bretz et al. (2009) as it is printed, in fractions."""
    w, g, m = list(weights), [list(row) for row in transitions], range(len(weights))
    for k in m:
        w[k] = weights[k] + weights[j] * transitions[j][k] if k != j else Fraction(0)
        for i in m:
            loop = transitions[i][j] * transitions[j][i]
            kept = i != k and j not in (i, k) and loop < 1
            g[i][k] = (transitions[i][k] + transitions[i][j] * transitions[j][k]) / (1 - loop) if kept else Fraction(0)
    return w, g


def exact_graphical(p, delta, weights, transitions):
    w, g, rejected = weights, transitions, [False] * len(p)
    while ready := [j for j, q in enumerate(p) if not rejected[j] and w[j] > 0 and q <= w[j] * delta]:
        rejected[ready[0]] = True
        w, g = exact_step(w, g, ready[0])
    return rejected


def subtracting_step(weights, transitions, j):
    """The twin that must fail: the printed formula in floating point."""
    w, g = np.array(weights, dtype=float), np.array(transitions, dtype=float)
    loop = g[:, j] * g[j]
    w, g = w + w[j] * g[j], (g + np.outer(g[:, j], g[j])) / np.where(loop < 1, 1 - loop, np.inf)[:, None]
    w[j] = g[:, j] = g[j] = g[np.diag_indices_from(g)] = 0
    return w, g


def steep_graph(rng, m, leak=False):
    """Weights and transitions from 1 down to 1e-12, in fractions; each sums to 1 exactly, or to less where it leaks.

    Half of the rows send nearly all to their neighbour, which makes loops that are nearly closed.
    """

    def shares(size, neighbour=None):
        exponents = rng.integers(0, 13, size + 1)
        if neighbour is not None and neighbour < size and rng.random() < 0.5:
            exponents = np.where(np.arange(size + 1) == neighbour, 0, rng.integers(rng.integers(3, 12), 13, size + 1))
        parts = [Fraction(int(rng.integers(1, 10)), 10 ** int(k)) for k in exponents]
        return [part / sum(parts[: size + leak]) for part in parts[:size]]

    rows = [shares(m - 1, j - j % 2) for j in range(m)]
    return shares(m), [[*row[:j], Fraction(0), *row[j:]] for j, row in enumerate(rows)]


def worst_of_steps(step, trials=150):
    """The largest relative error of any weight or transition, when hypotheses fall in random order."""
    rng, worst = np.random.default_rng(70), 0.0
    for _ in range(trials):
        m = int(rng.integers(2, 7))
        exact = steep_graph(rng, m)
        graph = tuple(map(floats, exact))
        for j in rng.permutation(m)[:-1]:
            graph, exact = step(*graph, int(j)), exact_step(*exact, int(j))
            for got, want in zip(graph, map(floats, exact), strict=True):
                worst = max(worst, (np.abs(got - want) / np.where(want > 0, want, 1)).max())
    return worst


def test_graph_step_loses_no_digit():
    assert worst_of_steps(graph_step) < 1e-13


def test_twin_a_step_that_subtracts_is_found():
    assert worst_of_steps(subtracting_step, trials=50) > 1e-6


@pytest.mark.parametrize("leak", [False, True])
def test_graphical_equals_exact_fractions_on_steep_graphs_whatever_the_labels(leak):
    rng, rejections, sharp = np.random.default_rng(80), 0, 0
    margin = Fraction(1, 100) if leak else Fraction(1, 10**11)  # a float row knows what it leaks to 1e-16 only
    for _ in range(300):
        m = int(rng.integers(2, 7))
        weights, transitions = steep_graph(rng, m, leak)
        p = [Fraction(float(10.0 ** -rng.uniform(0, 14 if q else 2))) for q in rng.random(m) < 0.7]
        graph, order = (floats(weights), floats(transitions)), rng.permutation(m)
        got = graphical(floats(p), 0.1, *graph)
        least = exact_graphical([q * (1 + margin) for q in p], DELTA, weights, transitions)
        most = exact_graphical([q * (1 - margin) for q in p], DELTA, weights, transitions)
        assert (np.array(least) <= got).all() and (got <= np.array(most)).all(), f"{weights}, {transitions}, {p}"
        other = graphical(floats(p)[order], 0.1, graph[0][order], graph[1][np.ix_(order, order)])
        np.testing.assert_array_equal(other, got[order])
        rejections, sharp = rejections + got.sum(), sharp + (least == most)
    assert rejections > 300 and sharp > 290


EPSILONS = pytest.mark.parametrize("epsilon", [1e-3, 1e-9, 1e-10, 1e-12])


@EPSILONS
def test_the_improved_fallback_passes_its_last_epsilon_on(epsilon):
    transitions = [[0, 1, 0], [1 - epsilon, 0, epsilon], [1, 0, 0]]
    assert graphical([0.01, 0.02, 0.045], 0.05, [1 / 3] * 3, transitions).tolist() == [True, True, True]
    assert graphical([0.01, 0.02, 0.051], 0.05, [1 / 3] * 3, transitions).tolist() == [True, True, False]


@EPSILONS
def test_improved_parallel_gatekeeping_returns_what_the_secondary_hypotheses_leave(epsilon):
    e = epsilon
    transitions = [[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5], [e, 0, 0, 1 - e], [0, e, 1 - e, 0]]
    halves = [0.5, 0.5, 0, 0]
    assert graphical([0.02, 0.049, 0.012, 0.02], 0.05, halves, transitions).tolist() == [True, True, True, True]
    assert graphical([0.02, 0.051, 0.012, 0.02], 0.05, halves, transitions).tolist() == [True, False, True, True]


def test_three_loops_that_are_nearly_closed_create_no_budget():
    a, b, x = 1.1e-9, 1e-12, 4e-8
    transitions = [[0, 1 - b, b, 0], [1 - a, 0, a, 0], [0.1, 0.9 - x, 0, x], [0, 0, 0, 0]]
    assert graphical([0, 0, 0, 0.1], 0.1, [0.25] * 4, transitions).tolist() == [True] * 4  # all of delta, and no more
    assert graphical([0, 0, 0, 0.1001], 0.1, [0.25] * 4, transitions).tolist() == [True, True, True, False]


def test_what_is_sent_to_a_closed_loop_is_lost():
    transitions = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0.5, 0, 0.5], [0, 0, 0, 0]]
    assert graphical([0, 0, 0, 0.05], 0.1, [0, 0.5, 0.5, 0], transitions).tolist() == [True, True, True, False]
    assert graphical([0, 0, 0, 0.025], 0.1, [0, 0.5, 0.5, 0], transitions).tolist() == [True] * 4


@pytest.mark.parametrize("j", [-1, 2, 0.0, True, None])
def test_graph_step_refuses_a_hypothesis_that_is_not_there(j):
    with pytest.raises((TypeError, ValueError), match=r"^j must be an integer from 0 to 1"):
        graph_step([0.5, 0.5], [[0, 1], [1, 0]], j)


@pytest.mark.parametrize("starts", [[0], [0, 3], [4, 1], [0, 2, 4], range(6), np.array([5])], ids=str)
def test_multi_start_equals_plain_loops(starts):
    for p in lattice(np.random.default_rng(40), (200, 6)):
        want = [False] * 6
        for start in starts:
            for j in range(start, 6):
                if p[j] > 0.1 / len(starts):
                    break
                want[j] = True
        assert multi_start(p, 0.1, starts).tolist() == want


def test_one_start_at_the_front_is_the_fixed_sequence_and_all_starts_are_bonferroni():
    p = lattice(np.random.default_rng(50), (300, 5))
    np.testing.assert_array_equal(multi_start(p, 0.1, [0]), fixed_sequence(p, 0.1))
    np.testing.assert_array_equal(multi_start(p, 0.1, range(5)), bonferroni(p, 0.1))


# --- shapes ---


@by_name
@pytest.mark.parametrize("m", [1, 2, 8])
def test_rows_are_treated_one_by_one_and_left_alone(name, m):
    procedure, p = procedures(m)[name], lattice(np.random.default_rng(60), (40, m))
    before = p.copy()
    got = procedure(p, 0.1)
    assert got.shape == p.shape
    assert got.dtype == bool
    np.testing.assert_array_equal(got, [procedure(row, 0.1) for row in p])
    np.testing.assert_array_equal(p, before)
    np.testing.assert_array_equal(procedure(p[0].tolist(), 0.1), got[0])


@by_name
@pytest.mark.parametrize("m", [1, 2, 8])
def test_all_or_none(name, m):
    procedure = procedures(m)[name]
    assert procedure(np.full(m, 1e-9), 0.1).tolist() == [True] * m
    assert procedure(np.zeros(m), 0.1).tolist() == [True] * m
    assert procedure(np.full(m, 0.2), 0.1).tolist() == [False] * m
    assert procedure(np.ones(m), 0.1).tolist() == [False] * m


@by_name
def test_no_trials_give_no_rows(name):
    got = procedures(4)[name](np.ones((0, 4)), 0.1)
    assert got.shape == (0, 4)
    assert got.dtype == bool


def test_graph_is_left_alone():
    graph = ring(5)
    before = {key: value.copy() for key, value in graph.items()}
    graphical(np.zeros(5), 0.1, **graph)
    for key, value in graph.items():
        np.testing.assert_array_equal(value, before[key])


# --- the promise: P[any false rejection] <= delta ---

TRIALS = 6000
TRUE = np.array([0, 0, 1, 0, 1, 1, 0, 1], dtype=bool)  # H_j true: candidate j is too bad, its p-value is uniform


def normal_p(correlation, true, seed=0):
    """One-sided p-values of equicorrelated normals, (TRIALS, m): uniform where `true`, small elsewhere."""
    rng = np.random.default_rng(seed)
    shared, own = rng.standard_normal((TRIALS, 1)), rng.standard_normal((TRIALS, len(true)))
    return ndtr(math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own - np.where(true, 0, 3.5))


def disjoint_p(m, seed=0):
    """Uniform p-values that are never small together: the worst dependence for equal shares of delta."""
    return (np.random.default_rng(seed).random((TRIALS, 1)) + np.arange(m) / m) % 1


def exceeds(hits, trials, level):
    """Is P[hit] > level, beyond doubt? One-sided exact binomial test at 1e-4."""
    return binomtest(int(hits), trials, level, alternative="greater").pvalue < 1e-4


def false_rejections(procedure, p, true, delta=0.1):
    """Trials with any false rejection; rejecting nothing is no error."""
    return (procedure(p, delta) & true).any(axis=1).sum()


@pytest.mark.long
@by_name
@pytest.mark.parametrize("true", [TRUE, ~TRUE, np.ones(8, bool)], ids=["mixed", "mirrored", "all true"])
@pytest.mark.parametrize("correlation", [0, 0.5, 0.9999])
def test_the_budget_is_kept(name, true, correlation):
    hits = false_rejections(procedures(8)[name], normal_p(correlation, true), true)
    assert not exceeds(hits, TRIALS, 0.1)


@pytest.mark.long
@by_name
def test_the_budget_is_kept_under_the_worst_dependence(name):
    hits = false_rejections(procedures(4)[name], disjoint_p(4), np.ones(4, bool))
    assert not exceeds(hits, TRIALS, 0.1)
    assert exceeds(hits, TRIALS, 0.08)  # and nearly all of it is spent


def peeking(p, delta):
    """A fixed sequence whose order is read off the p-values."""
    order = np.argsort(p, axis=1)
    return np.take_along_axis(
        fixed_sequence(np.take_along_axis(p, order, axis=1), delta), np.argsort(order, axis=1), axis=1
    )


BROKEN = {
    "no correction": lambda p, delta: p <= delta,
    "order by peeking": peeking,
    "the full delta at every start": lambda p, delta: multi_start(p, min(3 * delta, 0.99), [0, 3, 6]),
    "one share too few": lambda p, delta: p <= delta / (p.shape[1] - 1),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_twin_the_same_check_finds_broken_procedures(broken):
    p = disjoint_p(4) if broken == "one share too few" else normal_p(0, np.ones(8, bool))
    assert exceeds(false_rejections(BROKEN[broken], p, np.ones(p.shape[1], bool)), TRIALS, 0.1)


# --- refusals name the argument ---


@by_name
@pytest.mark.parametrize(
    "p",
    [
        [0.1, math.nan, 0.2],
        [0.1, -0.1, 0],
        [0, 1, 1.001],
        [math.inf, 0, 0],
        [],
        np.ones((3, 0)),
        np.ones((2, 2, 3)),
        0.1,
    ],
    ids=str,
)
def test_p_values_are_refused(name, p):
    with pytest.raises(ValueError, match=r"^p_values must"):
        procedures(3)[name](p, 0.1)


@by_name
def test_p_values_that_are_no_numbers_are_refused(name):
    with pytest.raises(TypeError, match=r"^p_values must hold numbers"):
        procedures(3)[name](["0.1", "0.2", "0.3"], 0.1)


@by_name
@pytest.mark.parametrize(
    ("delta", "error"),
    [(bad, ValueError) for bad in (0, 1, -0.1, 1.1, math.nan)] + [(bad, TypeError) for bad in ("0.1", None, True)],
)
def test_delta_is_refused(name, delta, error):
    with pytest.raises(error, match=r"^delta must"):
        procedures(3)[name]([0.1, 0.2, 0.3], delta)


@pytest.mark.parametrize("starts", [[], [0, 0], [3], [-1], [0.0], [True, False], [[0, 1]], 0, None, ["0"]], ids=repr)
def test_starts_are_refused(starts):
    with pytest.raises((TypeError, ValueError), match=r"^starts must"):
        multi_start([0.1, 0.2, 0.3], 0.1, starts)


@pytest.mark.parametrize("weights", [[-0.1, 1], [0.6, 0.5], [0.5], [[0.5, 0.5]], [math.nan, 0], ["a", "b"]], ids=repr)
def test_weights_are_refused(weights):
    with pytest.raises((TypeError, ValueError), match=r"^weights "):
        graphical([0.1, 0.2], 0.1, weights, [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    "transitions",
    [[[0.5, 0.5], [1, 0]], [[0, 1.1], [1, 0]], [[0, -1], [1, 0]], [0, 1], np.zeros((3, 3)), [[0, math.nan], [0, 0]]],
    ids=str,
)
def test_transitions_are_refused(transitions):
    with pytest.raises(ValueError, match=r"transitions .*must|^transitions must"):
        graphical([0.1, 0.2], 0.1, [0.5, 0.5], transitions)


def test_a_row_that_passes_on_more_than_it_has_is_refused():
    with pytest.raises(ValueError, match=r"each row of transitions may sum to 1"):
        graphical([0.1, 0.2, 0.3], 0.1, [0.5, 0.5, 0], [[0, 0.6, 0.6], [0, 0, 1], [1, 0, 0]])
