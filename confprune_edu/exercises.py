"""Checkers, hints and solutions for the exercises of the notebooks.

A notebook holds a stub that raises NotImplementedError and then calls the checker of the same name:

    from confprune_edu import exercises
    exercises.binomial_p_value(my_function)

A checker answers with one quiet line while the stub is untouched, with "correct", or with an AssertionError that names
the smallest failing input and the misconception behind it. `hint(name)` and `solution(name)` help along.
"""

import functools
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.special import ndtr, rel_entr

from confprune_edu.validation import ErrorRate

EXERCISES: dict[str, tuple[str, Callable[..., Any]]] = {}  # name -> (hint, reference solution)


def exercise(
    hint: str, solution: Callable[..., Any], none_is_an_answer: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a checker of a function that asserts: register hint and solution, report what came of it."""

    def register(check: Callable[..., None]) -> Callable[..., None]:
        EXERCISES[check.__name__] = (hint, solution)

        @functools.wraps(check)
        def checker(answer: Callable[..., Any]) -> None:
            try:
                check(answer if none_is_an_answer else _returning(answer))
            except NotImplementedError:
                print(f"{check.__name__}: not attempted yet")
            else:
                print(f"{check.__name__}: correct")

        return checker

    return register


def _returning(answer: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(answer)
    def checked(*args: Any, **kwargs: Any) -> Any:
        got = answer(*args, **kwargs)
        assert got is not None, "got None: is there a return at the end?"
        return got

    return checked


def hint(name: str) -> None:
    """Print a hint for the exercise `name`."""
    print(textwrap.fill(_known(name)[0], 96))


def solution(name: str) -> None:
    """Print the source of a solution of the exercise `name`; it needs numpy as np and math."""
    answer = _known(name)[1]
    print(inspect.getsource(answer).replace(f"def {answer.__name__}(", f"def {name}("))


def _known(name: str) -> tuple[str, Callable[..., Any]]:
    if name not in EXERCISES:
        raise ValueError(f"name must be one of {', '.join(EXERCISES)}; got {name!r}")
    return EXERCISES[name]


# Lesson 03


def _adjusted_solution(p_values):
    m, p = len(p_values), np.asarray(p_values, dtype=float)
    bonferroni, holm = np.minimum(1, m * p), np.empty(m)
    needed = 0.0
    for rank, j in enumerate(np.argsort(p)):
        needed = max(needed, (m - rank) * p[j])  # all smaller p-values must have passed, too
        holm[j] = min(1, needed)
    return bonferroni, holm


ADJUSTED_CASES = {
    (0.03,): "with one hypothesis nothing is corrected: both are p itself",
    (0.01, 0.20): "Bonferroni multiplies by m; Holm by m for the smallest p-value, by 1 for the largest",
    (0.20, 0.01): "the answer is in the order of p_values, not in sorted order",
    (0.02, 0.021, 0.30): "Holm is a step-down: no adjusted value may be smaller than that of a smaller p-value",
    (0.60, 0.70): "a p-value is at most 1: cap m p there",
    (0.04, 0.04): "equal p-values have equal adjusted values: either they are both certified or neither is",
}


@exercise(
    hint="Bonferroni certifies j if m p_j <= delta. Holm's i-th smallest p-value must satisfy (m - i + 1) p <= delta, "
    "and so must all the smaller ones before it: what is the smallest delta that satisfies all of these?",
    solution=_adjusted_solution,
)
def adjusted_p_values(answer: Callable[..., Any]) -> None:
    """Check `answer(p_values)`, which returns the adjusted p-values (bonferroni, holm), each of shape (m,)."""
    for p, misconception in ADJUSTED_CASES.items():
        want, got = _adjusted_solution(p), answer(np.array(p))
        assert len(got) == 2, f"return two arrays, bonferroni and holm; got {got!r}"
        for name, right, given in zip(("bonferroni", "holm"), want, got, strict=True):
            assert _near(given, right), (
                f"p_values = {list(p)}: {name} must be {_shown(right)}, got {_shown(given)} ({misconception})"
            )


def _graph_step_solution(weights, transitions, j):
    w, g, m = np.array(weights, dtype=float), np.array(transitions, dtype=float), len(weights)
    new_w, new_g = np.zeros(m), np.zeros((m, m))
    others = [k for k in range(m) if k != j]
    for k in others:
        new_w[k] = w[k] + w[j] * g[j, k]
        loop = g[k, j] * g[j, k]
        for i in others:
            if i != k and loop < 1:
                new_g[k, i] = (g[k, i] + g[k, j] * g[j, i]) / (1 - loop)
    return new_w, new_g


GRAPH_CASES: dict[tuple[Any, Any, int], str] = {
    ((1, 0), ((0, 1), (0, 0)), 0): "the rejected hypothesis keeps nothing: its budget and its arrows become 0",
    ((0.5, 0.5), ((0, 1), (0, 0)), 0): "what arrives is added to what a hypothesis already holds: w_k + w_j g_jk",
    ((0.5, 0.5), ((0, 0.5), (0, 0)), 0): "only the fraction g_jk of the budget w_j travels to k",
    ((0.5, 0.5), ((0, 0.5), (0.5, 0)), 0): "no node points at itself, also not through the one that was rejected",
    (
        (1, 0, 0),
        ((0, 1, 0), (0, 0, 1), (0, 0, 0)),
        1,
    ): "an arrow into the rejected node goes on to where that node pointed: g_kj g_jl is added to g_kl",
    ((1, 0, 0), ((0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)), 2): "what would return to its sender "
    "is shared out again: divide by 1 - g_kj g_jk",
    (
        (0.5, 0.5, 0),
        ((0, 1, 0), (1, 0, 0), (0, 0, 0)),
        0,
    ): "two nodes that point only at each other: g_kj g_jk = 1 leaves no arrow, not a division by zero",
    (
        (0.2, 0.3, 0.5),
        ((0, 0.2, 0.6), (0.4, 0, 0.5), (0.3, 0.7, 0)),
        0,
    ): "compute every new fraction from the old graph; do not overwrite what is still needed",
}


@exercise(
    hint="Two rules for the nodes k, l that stay: w_k + w_j g_jk, and (g_kl + g_kj g_jl) / (1 - g_kj g_jk). Everything "
    "that touches j is 0 afterwards, and so is the diagonal.",
    solution=_graph_step_solution,
)
def graph_step(answer: Callable[..., Any]) -> None:
    """Check `answer(weights, transitions, j)`: weights (m,) and transitions (m, m) after hypothesis j is rejected."""
    for (weights, transitions, j), misconception in GRAPH_CASES.items():
        w, g = np.array(weights, dtype=float), np.array(transitions, dtype=float)
        want, got = _graph_step_solution(w, g, j), answer(w.copy(), g.copy(), j)
        assert len(got) == 2, f"return weights and transitions; got {got!r}"
        for name, right, given in zip(("weights", "transitions"), want, got, strict=True):
            assert _near(given, right), (
                f"weights {_shown(w)}, transitions {_shown(g)}, rejected {j}: new {name} must be {_shown(right)}, "
                f"got {_shown(given)} ({misconception})"
            )


def _best_of_many_solution(p_values):
    best = int(np.argmin(p_values))
    return best, min(1.0, len(p_values) * float(p_values[best]))


BEST_CASES = {
    (0.04,): "a single test needs no correction",
    (0.30, 0.02, 0.50): "the best of m tests is as if all m were reported: m times its p-value, not the p-value itself",
    (0.01, 0.90, 0.95, 1.00): "every model that was tested counts, also those that never looked promising",
    (0.20, 0.30, 0.25): "1 - (1 - p)^m needs independent tests, and shared examples rule that out; m p holds",
    (0.40, 0.90, 0.60): "a p-value is at most 1",
}


@exercise(
    hint="Reporting the best of m tests is a family of m tests. Which correction holds whatever their dependence, and "
    "for how many tests do you pay?",
    solution=_best_of_many_solution,
)
def best_of_many(answer: Callable[..., Any]) -> None:
    """Check `answer(p_values)`, which returns (index of the reported model, the p-value that its report may state)."""
    for p, misconception in BEST_CASES.items():
        best, stated = _best_of_many_solution(p)
        got = answer(np.array(p))
        assert len(got) == 2, f"return an index and a p-value; got {got!r}"
        assert int(got[0]) == best, (
            f"p_values = {list(p)}: the report speaks of model {best}, the smallest p-value; got {got[0]!r}"
        )
        assert _near(got[1], stated), (
            f"p_values = {list(p)}: the honest p-value is {stated:.4g}, got {_shown(got[1])} ({misconception})"
        )


def _near(given: Any, right: Any) -> bool:
    """Do two arrays have one shape and, up to rounding, the same finite numbers?"""
    try:
        array = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        return False
    return array.shape == np.shape(right) and bool(np.allclose(array, right, rtol=1e-9, atol=1e-12))


def _shown(values: Any) -> str:
    """Numbers as a short list; anything else as it is."""
    try:
        return str(np.round(np.asarray(values, dtype=float), 4).tolist())
    except (TypeError, ValueError):
        return repr(values)


# Lesson 00

RECORD: dict[str, Any] = {
    "trained_on": range(0, 500),
    "calibrated_on": range(1000, 2000),
    "ratios_chosen": "before",
    "calibrations": 1,
    "delta_each": 0.1,
    "delta": 0.1,
    "calibrated_dtype": "float32",
    "shipped_dtype": "float32",
    "alpha": 0.05,
    "ratio": 0.88,
    "test_mean": 0.046,
}


def _certificate_flaws_solution(record):
    flaws = set()
    if set(record["trained_on"]) & set(record["calibrated_on"]):
        flaws.add("not fresh")
    if record["ratios_chosen"] == "after":
        flaws.add("chosen after")
    if record["calibrations"] * record["delta_each"] > record["delta"]:
        flaws.add("best of several")
    if record["calibrated_dtype"] != record["shipped_dtype"]:
        flaws.add("another function")
    return flaws


FLAW_CASES: list[tuple[dict[str, Any], set[str], str]] = [
    ({}, set(), "this record has none of the four flaws: the answer is the empty set"),
    ({"calibrated_on": range(0, 500)}, {"not fresh"}, "digits that trained the network flatter it"),
    ({"calibrated_on": range(499, 1499)}, {"not fresh"}, "one shared digit is enough: look for any overlap"),
    ({"ratios_chosen": "after"}, {"chosen after"}, "a grid made to fit the losses is not fixed beforehand"),
    ({"shipped_dtype": "bfloat16"}, {"another function"}, "another precision is another function"),
    ({"calibrations": 10}, {"best of several"}, "the best of ten errs with probability up to 10 x delta_each"),
    ({"calibrations": 10, "delta_each": 0.01}, set(), "ten calibrations at delta / 10 each keep the promise"),
    ({"ratio": None, "test_mean": None}, set(), "nothing certified is an answer, not a flaw"),
    ({"test_mean": 0.056}, set(), "a test mean is noisy: slightly above alpha it refutes nothing"),
    ({"calibrated_on": range(1000, 1050), "ratio": 0.4}, set(), "few digits cost ratio, not validity"),
    (
        {"calibrated_on": range(400, 900), "shipped_dtype": "float16"},
        {"not fresh", "another function"},
        "a certificate can have more than one flaw: collect them all",
    ),
]


@exercise(
    hint="Four independent questions, one `if` each. Digits are numbered: two ranges overlap if their sets do. Of K "
    "claims that each err with probability at most delta_each some claim errs with probability at most K x delta_each.",
    solution=_certificate_flaws_solution,
)
def certificate_flaws(answer: Callable[..., Any]) -> None:
    """Check `answer(record)`, which returns the set of flaws of a certificate."""
    for change, want, misconception in FLAW_CASES:
        got = answer(dict(RECORD) | change)
        got = {got} if isinstance(got, str) else set(got)
        record = ", ".join(f"{key} = {value}" for key, value in change.items()) or "the record as shown"
        assert got == want, f"{record}: want {sorted(want)}, got {sorted(got, key=str)} ({misconception})"


def _digits_needed_solution(alpha, delta):
    n = 1
    while (1 - alpha) ** n > delta:
        n += 1
    return n


@exercise(
    hint="A network whose risk is exactly alpha reads one digit right with probability 1 - alpha, and n digits in a "
    "row with (1 - alpha) to the power n. How large must n be for this to be at most delta?",
    solution=_digits_needed_solution,
)
def digits_needed(answer: Callable[..., Any]) -> None:
    """Check `answer(alpha, delta)`, the smallest n whose digits, all read right, can certify anything."""
    for alpha, delta in ((0.1, 0.1), (0.5, 0.25), (0.2, 0.5), (0.01, 0.1), (0.001, 0.01)):
        want, got = _digits_needed_solution(alpha, delta), np.asarray(answer(alpha, delta)).item()
        known = {
            int(np.ceil(np.log(1 / delta) / alpha)): "exp(-alpha n) only bounds (1 - alpha)^n: take the power itself",
            int(np.ceil(1 / alpha)): "1 / alpha digits hold one mistake on average; ask for the chance of none",
            int(np.ceil(np.log(delta) / np.log(alpha))): "a digit is read right with probability 1 - alpha, not alpha",
            want - 1: "too few by one: round up",
            want + 1: "at most delta: a chance equal to delta is small enough, and no digit more is needed",
        }
        why = known.get(got, "no mistake among n digits has probability (1 - alpha)^n if the risk is alpha")
        assert got == want, f"alpha = {alpha}, delta = {delta}: want {want}, got {got} ({why})"


# Lesson 01


def _global_mask_solution(weights, ratio):
    flat = np.concatenate([np.abs(w).ravel() for w in weights])
    gone = np.zeros(len(flat), dtype=bool)
    gone[np.argsort(flat, kind="stable")[: round(ratio * len(flat))]] = True
    ends = np.cumsum([w.size for w in weights])[:-1]
    return [part.reshape(w.shape) for part, w in zip(np.split(gone, ends), weights, strict=True)]


MASK_CASES: list[tuple[list[Any], float, str]] = [
    ([[1, 2, 3, 4]], 0.25, "True marks the weights that go, the smallest"),
    ([[-3, 1, 2, -4]], 0.5, "the size of a weight is |w|: -4 is large"),
    ([[1, 2], [3, 4]], 0.5, "one order for all layers together, not a share of each layer"),
    ([[2, 2, 2, 2]], 0.5, "exactly round(ratio * N) weights go; among equal ones the first by position"),
    ([[1, 2, 3, 4, 5, 6, 7]], 0.4, "round(0.4 * 7) = 3 weights go: round, do not cut off"),
    ([[3, 4], [1, 2]], 0.0, "ratio 0 removes nothing"),
    ([[[1, 4], [3, 2]], [5, 6]], 0.5, "each mask has the shape of its weights"),
    ([[1.0] * 40, [1.0] * 60], 0.7, "ties go by position: sort with kind='stable'"),
]


@exercise(
    hint="Put all |w| into one long array, find the places of the round(ratio * N) smallest with a stable argsort, "
    "mark them in one long mask, and cut that into the shapes of the layers.",
    solution=_global_mask_solution,
)
def global_mask(answer: Callable[..., Any]) -> None:
    """Check `answer(weights, ratio)`, a list of bool masks, one a layer, True where a weight goes."""
    for layers, ratio, misconception in MASK_CASES:
        want = [m.tolist() for m in _global_mask_solution([np.array(layer, float) for layer in layers], ratio)]
        masks = [np.asarray(mask) for mask in answer([np.array(layer, float) for layer in layers], ratio)]
        got = [np.asarray(mask, dtype=bool).tolist() for mask in masks]
        where = f"weights = {layers}" if len(layers[0]) < 9 else f"{sum(map(len, layers))} equal weights in two layers"
        detail = f": want {want}, got {got}" if len(layers[0]) < 9 else ""
        assert got == want, f"{where}, ratio = {ratio}{detail} ({misconception})"


def _loop_amounts_solution(ratios):
    amounts, reached = [], 0.0
    for ratio in ratios:
        amounts.append((ratio - reached) / (1 - reached))
        reached = ratio
    return amounts


@exercise(
    hint="Before a step the share `reached` is zero, so 1 - reached is left. Removing a fraction a of what is left "
    "adds a (1 - reached) to the zeros. Solve for a.",
    solution=_loop_amounts_solution,
)
def loop_amounts(answer: Callable[..., Any]) -> None:
    """Check `answer(ratios)`: what each step of a loop on one model must remove of what is left to reach the ratios."""
    for ratios in ((0.5,), (0.1, 0.2), (0.1, 0.2, 0.3), (0.5, 0.5, 0.9), (0.0, 0.2)):
        want, got = _loop_amounts_solution(ratios), [float(a) for a in answer(list(ratios))]
        known = (
            (ratios, "these compound: each amount is a share of what is left, not of all weights"),
            (np.diff(ratios, prepend=0.0), "differences are shares of all weights; divide by the share that is left"),
            ([(b - a) / b if b else 0 for a, b in zip((0, *ratios), ratios, strict=False)],
             "divide by what is left before the step, 1 - reached, not by the goal"),
        )  # fmt: skip
        near = [why for wrong, why in known if len(got) == len(wrong) and np.allclose(got, wrong)]
        why = near[0] if near else "one amount a ratio: the step removes amount * (1 - reached)"
        assert len(got) == len(want) and np.allclose(got, want), (
            f"ratios = {list(ratios)}: want {np.round(want, 4).tolist()}, got {np.round(got, 4).tolist()} ({why})"
        )


def _csr_break_even_solution(rows, columns):
    weights = rows * columns
    for zeros in range(weights + 1):
        if (weights - zeros) * (4 + 4) + (rows + 1) * 4 < weights * 4:
            return zeros
    return None


@exercise(
    hint="Dense: 4 bytes a weight, zero or not. CSR: 8 bytes a non-zero weight and 4 bytes for each of rows + 1 "
    "pointers. Write down both sizes and find the first number of zeros for which CSR is strictly smaller.",
    solution=_csr_break_even_solution,
    none_is_an_answer=True,
)
def csr_break_even(answer: Callable[..., Any]) -> None:
    """Check `answer(rows, columns)`: the smallest number of zeros for which CSR is smaller than dense, or None."""
    for rows, columns in ((4, 10), (1, 10), (1, 1), (100, 30)):
        want, got, n = _csr_break_even_solution(rows, columns), answer(rows, columns), rows * columns
        known = {
            None: "enough zeros always help, unless the matrix is too small for its pointers",
            1: "a single zero saves nothing: CSR pays 8 bytes for each weight that is left",
            n // 2 + 1: "do not forget the rows + 1 pointers",
            (want or 0) - 1: "at equality nothing is saved: CSR must be smaller",
            n - (want or 0): "count the zeros, not the weights that are left",
        }
        why = "it may never pay: then the answer is None" if want is None else known.get(got, "compare the two sizes")
        assert got == want, f"{rows} x {columns}: want {want}, got {got} ({why})"


# Lesson 02

Case = tuple[float, ...]


def _compare(
    answer: Callable[..., Any],
    right: Callable[..., float],
    names: str,
    cases: Mapping[Case, str],
    mistakes: Mapping[str, Callable[..., float]],
) -> None:
    """Assert that `answer` equals `right` on every case; name the mistake that gives the same numbers, if one does."""
    for case, case_hint in cases.items():
        got, want = _number(answer, case), right(*case)
        if not _same(got, want):
            known = (
                text for text, wrong in mistakes.items() if all(_same(_number(answer, c), wrong(*c)) for c in cases)
            )
            given = ", ".join(f"{name} = {value}" for name, value in zip(names.split(), case, strict=True))
            raise AssertionError(f"{given}: want {want:.6g}, got {got} ({next(known, case_hint)})")


def _number(answer: Callable[..., Any], case: Case) -> float | str:
    """The answer as a float, whatever its type; as words, if it is no number."""
    try:
        value = answer(*case)
        with np.errstate(all="ignore"):
            return float(np.asarray(value, dtype=float).item()) if value is not None else "nothing: is there a return?"
    except NotImplementedError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _same(got: float | str, want: float | str) -> bool:
    if isinstance(got, str) or isinstance(want, str):
        return got == want
    return bool(np.isclose(got, want, rtol=1e-6, atol=1e-12, equal_nan=True))


def _binomial_solution(errors, n, alpha):
    # every outcome with at most `errors` errors, each with its probability under risk alpha
    return sum(math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(errors + 1))


@exercise(
    hint="P[exactly k errors] = comb(n, k) alpha**k (1 - alpha)**(n - k). Which k are no worse than what you saw?",
    solution=_binomial_solution,
)
def binomial_p_value(answer: Callable[..., Any]) -> None:
    """Check `answer(errors, n, alpha)`, the exact p-value of 0/1 losses."""
    cases: dict[Case, str] = {
        (0, 2, 0.5): "of the four outcomes of two examples, one has no error",
        (1, 3, 0.25): "sum the probabilities of 0, 1, ... up to `errors` errors under risk alpha",
        (5, 100, 0.1): "exact, not approximate: sum the binomial probabilities",
        (3, 3, 0.1): "no outcome is worse than all wrong, so that p = 1",
    }
    mistakes: dict[str, Callable[..., float]] = {
        "at most `errors` errors includes `errors` itself": lambda k, n, a: sum(_pmf(i, n, a) for i in range(k)),
        "the p-value is the probability of so few errors or fewer, not of exactly so many": lambda k, n, a: _pmf(
            k, n, a
        ),
        "few errors are the evidence: sum from 0 up, not from `errors` on": (
            lambda k, n, a: sum(_pmf(i, n, a) for i in range(k, n + 1))
        ),
        "the null speaks of risk alpha, not of the observed mean": lambda k, n, a: _binomial_solution(k, n, k / n),
        "this is the normal approximation, which guarantees nothing at finite n": (
            lambda k, n, a: ndtr((k - n * a) / math.sqrt(n * a * (1 - a)))
        ),
    }
    _compare(answer, _binomial_solution, "errors n alpha", cases, mistakes)


def _pmf(k: int, n: int, alpha: float) -> float:
    return math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k)


def _hoeffding_solution(loss_sum, n, alpha):
    mean = min(loss_sum / n, alpha)  # beyond alpha there is no evidence: p = 1
    entropy = (1 - mean) * math.log((1 - mean) / (1 - alpha))
    if mean > 0:  # 0 log 0 = 0
        entropy += mean * math.log(mean / alpha)
    return math.exp(-n * entropy)


@exercise(
    hint="exp(-n h1(a, alpha)) with a = min(loss_sum / n, alpha) and "
    "h1(a, b) = a log(a / b) + (1 - a) log((1 - a) / (1 - b)). What is 0 log 0?",
    solution=_hoeffding_solution,
)
def hoeffding_p_value(answer: Callable[..., Any]) -> None:
    """Check `answer(loss_sum, n, alpha)`, Hoeffding's p-value with the relative entropy."""
    cases: dict[Case, str] = {
        (5, 100, 0.1): "exp(-n h1(a, alpha)) with a = loss_sum / n",
        (2.5, 50, 0.2): "sums may be fractional: round nothing",
        (20, 100, 0.1): "a mean loss above alpha is no evidence: p = 1",
        (0, 20, 0.1): "0 log 0 is 0, its limit, so that p = (1 - alpha)**n",
    }
    mistakes: dict[str, Callable[..., float]] = {
        "this is the weaker exp(-2 n gap**2); the relative entropy gives more": (
            lambda s, n, a: math.exp(-2 * n * max(a - s / n, 0) ** 2)
        ),
        "h1(mean, alpha), the mean first: relative entropy is not symmetric": (
            lambda s, n, a: math.exp(-n * _entropy(a, min(s / n, a))) if s else 0.0
        ),
        "n examples: the relative entropy counts n times": lambda s, n, a: math.exp(-_entropy(min(s / n, a), a)),
        "a mean loss above alpha is no evidence for `risk <= alpha`: p = 1, cap the mean at alpha": (
            lambda s, n, a: math.exp(-n * _entropy(s / n, a))
        ),
    }
    _compare(answer, _hoeffding_solution, "loss_sum n alpha", cases, mistakes)


def _entropy(a: float, b: float) -> float:
    return float(rel_entr(a, b) + rel_entr(1 - a, 1 - b))


def _tight_solution(loss_sum, n, alpha):
    def hinge(c):  # E(c - B)+ for B ~ Bin(n, alpha)
        return sum((c - k) * math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(c))

    return min(1, *(hinge(c) / (c - loss_sum) for c in range(math.floor(loss_sum) + 1, n + 1)))


@exercise(
    hint="For each integer c from floor(s) + 1 to n: E(c - B)+ is a sum over k < c of (c - k) P[B = k]. "
    "Divide by c - s, take the smallest, and cap it at 1.",
    solution=_tight_solution,
)
def tight_p_value(answer: Callable[..., Any]) -> None:
    """Check `answer(loss_sum, n, alpha)` for one 0 <= loss_sum < n, the best bound of a hinge."""
    cases: dict[Case, str] = {
        (0, 2, 0.5): "the candidates are c = 1 and c = 2; c = s is none, it would divide by zero",
        (5, 100, 0.1): "min over every integer c > s of E(c - B)+ / (c - s)",
        (5.2, 100, 0.1): "s need not be an integer: c starts above it, and c - s keeps its fraction",
        (3, 20, 0.2): "the smallest over all c, not over the first few",
        (0.9, 2, 0.5): "c = n is a candidate, too",
        (20, 100, 0.1): "a probability needs no bound above 1: cap it",
    }
    mistakes: dict[str, Callable[..., float]] = {
        "this is one hinge, c = floor(s) + 1; others may be lower": (
            lambda s, n, a: min(1, _hinge(math.floor(s) + 1, n, a) / (math.floor(s) + 1 - s))
        ),
        "(c - B)+ is never negative: where B exceeds c it counts as 0": (
            lambda s, n, a: min(1, *((c - n * a) / (c - s) for c in range(math.floor(s) + 1, n + 1)))
        ),
        "s need not be an integer: rounding it down claims evidence that is not there": (
            lambda s, n, a: _tight_solution(math.floor(s), n, a)
        ),
        "s need not be an integer: rounding it up is valid but gives evidence away": (
            lambda s, n, a: _tight_solution(math.ceil(s), n, a)
        ),
        "c = n is a candidate, too: range(a, b) stops before b": (
            lambda s, n, a: min([1, *(_hinge(c, n, a) / (c - s) for c in range(math.floor(s) + 1, n))])
        ),
        "a probability needs no bound above 1: cap it": (
            lambda s, n, a: min(_hinge(c, n, a) / (c - s) for c in range(math.floor(s) + 1, n + 1))
        ),
    }
    _compare(answer, _tight_solution, "loss_sum n alpha", cases, mistakes)


def _hinge(c: int, n: int, alpha: float) -> float:
    return sum((c - k) * _pmf(k, n, alpha) for k in range(c))


def _examples_needed_solution(errors, alpha, delta):
    n = max(errors, 1)
    while sum(math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(errors + 1)) > delta:
        n += 1  # more examples with the same errors: better evidence
    return n


@exercise(
    hint="Without an error the p-value is (1 - alpha)**n: solve for n. With errors there is no formula: start at "
    "n = errors and count upwards until the binomial p-value is at most delta.",
    solution=_examples_needed_solution,
)
def examples_needed(answer: Callable[..., Any]) -> None:
    """Check `answer(errors, alpha, delta)`, the smallest n at which so many errors certify by the binomial p-value."""
    cases: dict[Case, str] = {
        (0, 0.5, 0.25): "without an error p = (1 - alpha)**n, and 0.5**2 is at most 0.25",
        (0, 0.5, 0.3): "n is a whole number, the first with p <= delta",
        (0, 0.1, 0.1): "without an error p = (1 - alpha)**n",
        (1, 0.1, 0.1): "P[Bin(n, alpha) <= errors] must be at most delta",
        (4, 0.1, 0.05): "P[Bin(n, alpha) <= errors] must be at most delta",
    }

    def exact(delta: float, alpha: float) -> float:  # examples needed without an error, before rounding
        return math.log(delta) / math.log(1 - alpha)

    mistakes: dict[str, Callable[..., float]] = {
        "p equal to delta is still a rejection": (
            lambda k, a, d: _first(lambda n: _binomial_solution(k, n, a) < d, max(k, 1))
        ),
        "one example too few: the last n that does not certify": (
            lambda k, a, d: _examples_needed_solution(k, a, d) - 1
        ),
        "n is a whole number of examples: round up": lambda k, a, d: exact(d, a),
        "every error costs examples: this is the answer for no error at all": (
            lambda k, a, d: _examples_needed_solution(0, a, d)
        ),
        "log(1 / delta) / alpha is a rule of thumb, safe but too large, and knows no errors": (
            lambda k, a, d: math.ceil(math.log(1 / d) / a)
        ),
        "a mean below alpha is no evidence yet: it may be luck": lambda k, a, d: math.floor(k / a) + 1,
        "at most `errors` errors includes `errors` itself": (
            lambda k, a, d: _first(lambda n: sum(_pmf(i, n, a) for i in range(k)) <= d, max(k, 1))
        ),
    }
    _compare(answer, _examples_needed_solution, "errors alpha delta", cases, mistakes)


def _first(accept: Callable[[int], bool], start: int) -> int:
    n = start
    while not accept(n):
        n += 1
    return n


# Lesson 04


def _fixed_sequence_solution(p_values, delta):
    rejected = np.zeros(len(p_values), dtype=bool)
    for j, p in enumerate(p_values):
        if p > delta:
            break
        rejected[j] = True
    return rejected


SEQUENCE_CASES = {
    (0.05, 0.06, 0.07): "every test may spend all of delta, not delta / m",
    (0.01, 0.02, 0.20): "the test that fails is not certified: the last certified one comes before it",
    (0.05, 0.50, 0.02): "stop at the first failure in the given order; later p-values no longer count",
    (0.10, 0.20, 0.30): "p equal to delta is still a rejection",
    (0.05, 0.01, 0.03): "compare each p-value with delta, not with the one before: p-values need not rise",
    (0.90, 0.90, 0.90): "rejecting nothing is a legal answer: a mask without any True",
}


@exercise(
    hint="Walk through the p-values in the given order. What do you do at the first one above delta?",
    solution=_fixed_sequence_solution,
)
def fixed_sequence(answer: Callable[..., Any], delta: float = 0.1) -> None:
    """Check `answer(p_values, delta)`, which returns a bool mask of shape (m,)."""
    for p, misconception in SEQUENCE_CASES.items():
        want, got = _fixed_sequence_solution(p, delta).tolist(), _as_mask(answer(np.array(p), delta), len(p))
        assert got == want, f"p = {list(p)}, delta = {delta}: want {want}, got {got} ({misconception})"


def _certified_ratio_solution(p_values, ratios, delta):
    certified = None
    for p, ratio in zip(p_values, ratios, strict=True):
        if p > delta:
            break
        certified = float(ratio)
    return certified


RATIO_CASES = {
    (0.01, 0.02, 0.03): "if every test passes, the answer is the last ratio of the grid",
    (
        0.01,
        0.02,
        0.30,
    ): "return the last ratio that passed, not the first that failed (and the ratio, not its position)",
    (0.01, 0.50, 0.60): "a certified ratio of 0 is an answer, not the same as None: ask `is None`, not for truth",
    (0.01, 0.30, 0.02): "stop at the first failure, also where a later p-value is small again",
    (0.01, 0.10, 0.40): "p equal to delta is still a rejection",
    (
        0.30,
        0.40,
        0.50,
    ): "nothing certified is None, not 0, -1, NaN or the first ratio: to use a ratio of 0 is a claim, too",
}


@exercise(
    hint="Start with certified = None, and overwrite it with each ratio whose test passes, until one fails.",
    solution=_certified_ratio_solution,
    none_is_an_answer=True,
)
def certified_ratio(answer: Callable[..., Any], delta: float = 0.1) -> None:
    """Check `answer(p_values, ratios, delta)`: the largest ratio that the fixed sequence certifies, or None."""
    ratios = np.array([0.0, 0.5, 0.8])
    for p, misconception in RATIO_CASES.items():
        want = _certified_ratio_solution(p, ratios, delta)
        try:
            got = answer(np.array(p), ratios, delta)
        except ValueError as problem:
            raise AssertionError(
                f"p = {list(p)}: {problem} (nothing passed: return None before a maximum)"
            ) from problem
        right = got is None if want is None else got is not None and _near(got, want)
        assert right, f"p = {list(p)}, ratios = {ratios.tolist()}: want {want}, got {got!r} ({misconception})"


def _multi_start_solution(p_values, delta, starts):
    rejected = np.zeros(len(p_values), dtype=bool)
    for start in starts:
        for j in range(start, len(p_values)):
            if p_values[j] > delta / len(starts):
                break
            rejected[j] = True
    return rejected


STARTS_CASES: dict[tuple[Any, Any], str] = {
    ((0.09, 0.08, 0.50), (0,)): "one start is the fixed sequence at the full delta",
    ((0.01, 0.02, 0.01, 0.02), (0, 2)): "certified by any chain is certified: take the union",
    ((0.50, 0.02, 0.01, 0.60), (0, 1)): "a start that fails ends its own chain only, not the others",
    ((0.08, 0.50, 0.01, 0.07), (0, 2)): "each of k starts may spend delta / k, not delta",
    ((0.03, 0.50, 0.01, 0.02), (0, 2)): "the share is delta / (number of starts), not delta / m",
    ((0.01, 0.70, 0.02, 0.03), (0, 1)): "each chain stops at its first failure; what comes after it does not count",
    ((0.90, 0.90, 0.90, 0.90), (0, 2)): "rejecting nothing is a legal answer",
}


@exercise(
    hint="Two loops: over the starts, and from each start to the end or the first p-value above delta / len(starts).",
    solution=_multi_start_solution,
)
def multi_start(answer: Callable[..., Any], delta: float = 0.1) -> None:
    """Check `answer(p_values, delta, starts)`, which returns a bool mask of shape (m,)."""
    for (p, starts), misconception in STARTS_CASES.items():
        want = _multi_start_solution(p, delta, starts).tolist()
        got = _as_mask(answer(np.array(p), delta, list(starts)), len(p))
        assert got == want, (
            f"p = {list(p)}, starts = {list(starts)}, delta = {delta}: want {want}, got {got} ({misconception})"
        )


def _two_way_solution(p_values, delta):
    p = np.asarray(p_values)
    forward = np.logical_and.accumulate(p <= delta / 2)  # two chains, fixed beforehand: half of delta for each
    backward = np.logical_and.accumulate(p[::-1] <= delta / 2)[::-1]
    return forward | backward


@exercise(
    hint="A false certificate needs a small p-value at one end OR at the other. What does the union bound say if both "
    "directions are always walked, and how much of delta may each of them spend?",
    solution=_two_way_solution,
)
def two_way(answer: Callable[..., Any], delta: float = 0.1) -> None:
    """Check `answer(p_values, delta)`: a bool mask (m,), valid whichever ends are bad, useful whichever end is good."""
    trials, rng = 2000, np.random.default_rng(0)
    for good, end in (((0.0, 0.0, 0.9, 0.9), "first"), ((0.9, 0.9, 0.0, 0.0), "last")):
        got = _as_mask(answer(np.array(good), delta), 4)
        assert any(got), (
            f"p = {list(good)}: the two candidates at the {end} end are clearly safe, and none is certified (a "
            "direction fixed beforehand is valid, but blind at its other end: give both directions a share of delta)"
        )
        assert not any(mask and p > delta for mask, p in zip(got, good, strict=True)), (
            f"p = {list(good)}: a p-value of 0.9 was certified (the candidate that fails is not part of the chain)"
        )
    bad = np.array([True, False, False, True])
    p = np.where(bad, rng.random((trials, 4)), 0.0)  # both ends unsafe: their p-values are uniform, the worst case
    rate = ErrorRate(sum((np.array(_as_mask(answer(row, delta), 4)) & bad).any() for row in p), trials, delta)
    assert rate.evidence > 1e-4, (
        f"both ends unsafe: {rate.rate:.1%} of {trials} certificates are false, {delta:.0%} are allowed "
        "(whoever lets the p-values choose the direction has tried both: two chances at delta each, about 2 delta)"
    )


def _as_mask(values: Any, m: int) -> list[bool]:
    """A student's mask as a list; says what is wrong with another form."""
    assert values is not None, f"return a bool mask of shape ({m},); got None (is there a return at the end?)"
    array = np.asarray(values)
    assert array.shape == (m,), f"return a bool mask of shape ({m},), one entry a p-value; got shape {array.shape}"
    assert array.dtype.kind in "biu" or set(array.tolist()) <= {0.0, 1.0}, (
        f"return True or False a test; got {values!r}"
    )
    return array.astype(bool).tolist()


# Lesson 06


def _selective_p_value_solution(confidence, wrong, threshold, alpha):
    answered = confidence >= threshold
    n, errors = int(answered.sum()), int(wrong[answered].sum())  # of the answered digits only
    # no answer is no evidence: the sum below is then P[Bin(0, alpha) <= 0] = 1
    return sum(math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(errors + 1))


PAIR_CASES: dict[Any, str] = {
    ((0.9, 0.8, 0.4), (0, 0, 1), 0.6, 0.1): "two digits are answered, both rightly: p = 0.9**2",
    ((0.9, 0.5, 0.4), (0, 0, 0), 0.5, 0.2): "confidence equal to the threshold is an answer",
    ((0.9, 0.8, 0.7, 0.6, 0.2), (0, 1, 0, 0, 1), 0.5, 0.5): "P[Bin(answered, alpha) <= errors among the answered]",
    ((0.4, 0.3), (1, 0), 0.5, 0.1): "nothing answered is no evidence: p = 1",
    ((0.9, 0.8), (1, 1), 0.5, 0.1): "no outcome is worse than all wrong, so that p = 1",
}


@exercise(
    hint="Keep the digits with confidence >= threshold. How many are they, and how many of them are wrong? Then it is "
    "the binomial p-value of lesson 02, at that number of digits. What is it if there are none?",
    solution=_selective_p_value_solution,
)
def selective_p_value(answer: Callable[..., Any]) -> None:
    """Check `answer(confidence, wrong, threshold, alpha)`, the exact p-value of one pair, from arrays of shape (n,)."""

    def arrays(confidence: Any, wrong: Any, threshold: float, alpha: float) -> Any:
        return answer(np.array(confidence), np.array(wrong, dtype=bool), threshold, alpha)

    mistakes: dict[str, Callable[..., float]] = {
        "a declined digit is not a digit that is right: the number of examples is that of the answered ones": (
            lambda c, w, t, a: _binomial_solution(_answered(c, w, t)[1], len(c), a)
        ),
        "the errors of declined digits do not count": (
            lambda c, w, t, a: _binomial_solution(min(sum(w), _answered(c, w, t)[0]), _answered(c, w, t)[0], a)
        ),
        "confidence equal to the threshold is an answer": (
            lambda c, w, t, a: _binomial_solution(*_answered(c, w, t, strict=True)[::-1], a)
        ),
        "an answer needs a confidence of at least the threshold, not below it": (
            lambda c, w, t, a: _binomial_solution(*_answered([-x for x in c], w, -t, strict=True)[::-1], a)
        ),
        "the p-value is the probability of so few errors or fewer, not of exactly so many": (
            lambda c, w, t, a: _pmf(*_answered(c, w, t)[::-1], a)
        ),
    }
    _compare(arrays, _pair_p_value, "confidence wrong threshold alpha", PAIR_CASES, mistakes)


def _pair_p_value(confidence: Any, wrong: Any, threshold: float, alpha: float) -> float:
    return _binomial_solution(*_answered(confidence, wrong, threshold)[::-1], alpha)


def _answered(confidence: Any, wrong: Any, threshold: float, strict: bool = False) -> tuple[int, int]:
    """Answered examples, and the errors among them."""
    kept = [bool(w) for c, w in zip(confidence, wrong, strict=True) if c > threshold or (c == threshold and not strict)]
    return len(kept), sum(kept)


def _certified_rows_solution(p_values, delta):
    rejected = np.zeros(p_values.shape, dtype=bool)
    for j in range(len(p_values)):
        for k in range(p_values.shape[1]):  # strict to lenient
            if p_values[j, k] > delta / len(p_values):
                break
            rejected[j, k] = True
    return rejected


ROWS_CASES: dict[Any, str] = {
    ((0.09, 0.08),): "one row is a fixed sequence at the full delta: only the rows share it, not the thresholds",
    ((0.03, 0.04), (0.08, 0.09)): "each of m rows may spend delta / m, not delta",
    ((0.03, 0.04, 0.02), (0.04, 0.01, 0.04)): "delta / m, not delta / (m t): inside a row every test spends it again",
    ((0.01, 0.60), (0.02, 0.70)): "from the first column on, the strictest threshold, not from the lenient end",
    ((0.01, 0.60, 0.01), (0.01, 0.01, 0.01)): "a row stops at its first failure; what comes after it does not count",
    ((0.60, 0.01), (0.01, 0.02)): "a row that fails ends itself only, not the rows after it",
    ((0.05, 0.30), (0.01, 0.05)): "p equal to delta / m is still a rejection",
    ((0.90, 0.90), (0.90, 0.90)): "rejecting nothing is a legal answer: a mask without any True",
}


@exercise(
    hint="Bonferroni over the rows, and inside each row the fixed sequence of lesson 04, at the row's share of delta. "
    "`np.logical_and.accumulate(..., axis=1)` walks along all rows at once.",
    solution=_certified_rows_solution,
)
def certified_rows(answer: Callable[..., Any], delta: float = 0.1) -> None:
    """Check `answer(p_values, delta)` for p-values (m, t), which returns a bool mask of that shape."""
    for rows, misconception in ROWS_CASES.items():
        p = np.array(rows)
        want, got = _certified_rows_solution(p, delta), np.asarray(answer(p.copy(), delta))
        assert got.shape == p.shape, (
            f"return a bool mask of shape {p.shape}, one entry a pair; got shape {got.shape} (is there a return?)"
        )
        given = np.reshape(_as_mask(got.ravel(), p.size), p.shape)
        assert (given == want).all(), (
            f"p = {p.tolist()}, delta = {delta}: want {want.tolist()}, got {given.tolist()} ({misconception})"
        )


def _best_pair_solution(rejected, ratios, thresholds, coverage, min_coverage):
    best = None
    for j in range(len(ratios)):  # gentle to aggressive: a later row overwrites an earlier one
        fine = [k for k in range(len(thresholds)) if rejected[j, k] and coverage[j, k] >= min_coverage]
        if fine:
            best = (float(ratios[j]), float(thresholds[max(fine, key=lambda k: coverage[j, k])]))
    return best


BEST_PAIR_CASES: list[tuple[Any, Any, float, str]] = [
    (
        ((1, 1), (1, 1)),
        ((0.6, 0.8), (0.5, 0.7)),
        0.0,
        "the largest ratio, and of its thresholds the one that answers most; values, not positions",
    ),
    (((1, 0), (0, 0)), ((0.6, 0.8), (0.5, 0.7)), 0.0, "a pair that is not certified is no answer, however good it is"),
    (
        ((1, 0), (1, 1)),
        ((0.9, 0.95), (0.5, 0.7)),
        0.8,
        "the largest ratio among the pairs that cover enough: a smaller one may be the answer",
    ),
    (((1, 1), (1, 1)), ((0.6, 0.8), (0.5, 0.7)), 0.7, "coverage equal to min_coverage is enough"),
    (((1, 1), (0, 0)), ((0.6, 1.0), (0.5, 1.0)), 0.9, "a ratio of 0 and a threshold of 0 are answers, not None"),
    (((1, 1), (1, 1)), ((0.6, 0.8), (0.5, 0.7)), 0.9, "no certified pair covers so much: None, not the nearest one"),
    (((0, 0), (0, 0)), ((0.6, 0.8), (0.5, 0.7)), 0.0, "nothing certified is None"),
]


@exercise(
    hint="Which pairs are certified and cover at least min_coverage? Their largest ratio; then, in that row, the "
    "largest coverage. Check first whether there is any such pair.",
    solution=_best_pair_solution,
    none_is_an_answer=True,
)
def best_pair(answer: Callable[..., Any]) -> None:
    """Check `answer(rejected, ratios, thresholds, coverage, min_coverage)`: (ratio, threshold) or None."""
    ratios, thresholds = np.array([0.0, 0.8]), np.array([0.9, 0.0])
    for rejected, coverage, floor, misconception in BEST_PAIR_CASES:
        mask, share = np.array(rejected, dtype=bool), np.array(coverage)
        want = _best_pair_solution(mask, ratios, thresholds, share, floor)
        case = f"rejected = {mask.tolist()}, coverage = {share.tolist()}, min_coverage = {floor}"
        try:
            got = answer(mask, ratios, thresholds, share, floor)
        except (IndexError, ValueError) as problem:
            raise AssertionError(f"{case}: {problem} (no pair is left: return None before a maximum)") from problem
        right = got is None if want is None else got is not None and _near(got, want)
        assert right, (
            f"{case}, ratios {ratios.tolist()}, thresholds {thresholds.tolist()}: want {want}, got {got!r} "
            f"({misconception})"
        )


# Lesson 07


def _mask_loss_solution(found, truth):
    total = found.sum() + truth.sum()
    return 1 - 2 * (found & truth).sum() / total if total else 0.0  # two empty masks agree perfectly


OVERLAP_CASES: dict[Any, str] = {
    ((1, 1, 0, 0), (1, 0, 0, 0)): "1 - 2 * overlap / (area of one + area of the other)",
    ((0, 1, 1, 0), (0, 0, 1, 1)): "the overlap is one pixel, the areas are two and two: 1 - 2 / 4",
    ((0, 0, 0, 0), (0, 0, 0, 0)): "two empty masks agree perfectly: the loss is 0, not 0 / 0",
    ((0, 1, 0, 0), (0, 0, 0, 0)): "a false alarm on an empty frame is a total failure: the loss is 1",
    ((0, 0, 0, 0), (1, 1, 0, 0)): "nothing found of a polyp is a total failure: the loss is 1",
    ((1, 0, 1, 0), (1, 0, 1, 0)): "equal masks have no loss",
}


@exercise(
    hint="Count pixels: those in both masks, those in the one, those in the other. And what do you divide by when both "
    "masks are empty?",
    solution=_mask_loss_solution,
)
def mask_loss(answer: Callable[..., Any]) -> None:
    """Check `answer(found, truth)`, which returns 1 - Dice of two bool masks of one shape."""

    def masks(found: Any, truth: Any) -> Any:
        return answer(*(np.array(mask, dtype=bool).reshape(2, 2) for mask in (found, truth)))

    mistakes: dict[str, Callable[..., float]] = {
        "this is 1 - IoU: Dice divides twice the overlap by the sum of the areas": (
            lambda a, b: 1 - _overlap(a, b) / (sum(a) + sum(b) - _overlap(a, b) or math.inf) - (not any(a + b))
        ),
        "this is Dice: the loss is 1 - Dice": lambda a, b: 1 - _dice_loss(a, b),
        "the overlap counts twice": lambda a, b: 1 - _overlap(a, b) / (sum(a) + sum(b)) if any(a + b) else 0.0,
        "two empty masks agree perfectly: the loss is 0": lambda a, b: _dice_loss(a, b) if any(a + b) else 1.0,
        "an empty and a non-empty mask do not agree at all: the loss is 1": (
            lambda a, b: _dice_loss(a, b) if any(a) and any(b) else 0.0
        ),
    }
    _compare(masks, _dice_loss, "found truth", OVERLAP_CASES, mistakes)


def _overlap(a: Any, b: Any) -> int:
    return sum(map(min, a, b))


def _dice_loss(a: Any, b: Any) -> float:
    return 1 - 2 * _overlap(a, b) / (sum(a) + sum(b)) if any(a + b) else 0.0


def _video_means_solution(losses, videos):
    return np.array([losses[videos == v].mean(axis=0) for v in sorted(set(videos))])


VIDEO_CASES: list[tuple[Any, Any, str]] = [
    (
        ((0.0, 0.2), (0.4, 0.6), (1.0, 1.0)),
        (7, 7, 9),
        "a row a video: for each video the mean over its frames, by column",
    ),
    (((0.0,), (0.0,), (0.9,), (0.5,)), (4, 4, 4, 6), "the sum over the frames of a video, divided by their number"),
    (((0.0,), (1.0,), (0.5,)), (1, 2, 1), "the frames of a video need not stand side by side"),
    (((0.3,), (0.9,)), (5, 2), "in the order of the sorted labels, not of their first frames"),
    (((0.2, 0.4),), (3,), "one video of one frame is a table (1, m)"),
    (((0.6,), (0.6,), (0.0,)), (1, 1, 0), "a video with more frames counts no more than one with few"),
]


@exercise(
    hint="Which labels are there? `np.unique`. For each of them: the rows of its frames, and their mean over axis 0.",
    solution=_video_means_solution,
)
def video_means(answer: Callable[..., Any]) -> None:
    """Check `answer(losses, videos)`, which returns one row of mean losses a video."""
    for losses, videos, misconception in VIDEO_CASES:
        table, labels = np.array(losses), np.array(videos)
        want, got = _video_means_solution(table, labels), answer(table.copy(), labels.copy())
        assert _near(got, want), (
            f"losses {table.tolist()}, videos {list(videos)}: want {_shown(want)}, got {_shown(got)} ({misconception})"
        )


def _every_hospital_solution(p_values, delta):
    worst = p_values.max(axis=0)  # "too bad in some hospital" is refuted where it is refuted for the worst
    return np.logical_and.accumulate(worst <= delta)


HOSPITAL_CASES: dict[Any, str] = {
    ((0.01, 0.02), (0.03, 0.04)): "every hospital is refuted for both ratios",
    (
        (0.01, 0.01),
        (0.15, 0.01),
    ): "one hospital without evidence is enough to refuse, however good the others are, and a sequence stops there",
    ((0.08, 0.20), (0.09, 0.01)): "delta need not be shared among the hospitals: the claim is false as soon as one of "
    "them is too bad, and that one would have to pass by luck",
    ((0.60, 0.01), (0.70, 0.01)): "a ratio after the first failure is not certified",
    ((0.10, 0.30), (0.10, 0.30)): "p equal to delta is still a rejection",
    ((0.04, 0.12, 0.03),): "one hospital is a fixed sequence",
    ((0.01, 0.01), (0.01, 0.02), (0.01, 0.50)): "there may be more than two hospitals: each has its say",
    ((0.01, 0.01), (0.01, 0.50), (0.01, 0.02)): "there may be more than two hospitals: each has its say",
}


@exercise(
    hint="H: the risk is above alpha in at least one hospital. If H is true, that hospital's p-value is small with "
    "probability at most delta, so how large may the largest of the p-values be? Lesson 06 did that with risk and "
    "coverage. Then walk from gentle to aggressive.",
    solution=_every_hospital_solution,
)
def every_hospital(answer: Callable[..., Any], delta: float = 0.1) -> None:
    """Check `answer(p_values, delta)` for p-values (c, m), which returns a bool mask (m,)."""
    given = [(np.array(table), delta, misconception) for table, misconception in HOSPITAL_CASES.items()]
    given += [(p / 2, delta / 2, "compare with the delta that is given") for p, *_ in given]
    for p, budget, misconception in given:
        want = _every_hospital_solution(p, budget).tolist()
        got = _as_mask(answer(p.copy(), budget), p.shape[1])
        assert got == want, f"p = {p.tolist()}, delta = {budget}: want {want}, got {got} ({misconception})"
