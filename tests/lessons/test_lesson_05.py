"""Lesson 05: its checkers accept every right form and refuse each misconception; its explorer and its claims."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from answers import right_and_wrong

from confprune_edu import widgets
from confprune_edu.calibration import calibrate_losses
from confprune_edu.pvalues import METHODS, binomial

# Exercises: right answers


def spoilt(table, full, labels):
    return (full == labels)[:, None] & (table != labels[:, None])


def false(rejected, risks, alpha):
    return (rejected & (risks > alpha)).any(axis=1)


def fresh(writer, used):
    return ~np.isin(writer, writer[used])


RIGHT = [
    ("degradation_table", spoilt),
    ("degradation_table", lambda t, f, y: spoilt(t, f, y).astype(float)),
    (
        "degradation_table",
        lambda t, f, y: (np.where(a == b, row != b, False) for row, a, b in zip(t, f, y, strict=True)),
    ),
    ("degradation_table", lambda t, f, y: np.maximum((t != y[:, None]) * 1 - (f != y)[:, None], 0)),
    ("broken_share", lambda r, risks, a: false(r, risks, a).mean()),
    ("broken_share", lambda r, risks, a: sum(max(risks[row], default=0) > a for row in r) / len(r)),
    (
        "broken_share",
        lambda r, risks, a: np.where(r, risks, 0).max(axis=1) > a if len(r) == 1 else false(r, risks, a).mean(),
    ),
    ("may_calibrate", lambda writer, uses: fresh(writer, uses.any(axis=0))),
    ("may_calibrate", lambda writer, uses: [not any(uses[:, writer == w].ravel()) for w in writer]),
    ("may_calibrate", lambda writer, uses: (uses.sum(axis=0)[writer == w].sum() == 0 for w in writer)),
]

# Exercises: known wrong answers, and the misconception that the message must name

WRONG = [
    ("degradation_table", lambda t, f, y: (f == y) & (t != y), "belongs to the row"),
    ("degradation_table", lambda t, f, y: t != f[:, None], "this is `disagreement`"),
    ("degradation_table", lambda t, f, y: t != y[:, None], "this is `error`"),
    ("degradation_table", lambda t, f, y: (f != y)[:, None] & (t == y[:, None]), "mended"),
    ("degradation_table", lambda t, f, y: ~spoilt(t, f, y), "1 for a failure"),
    ("degradation_table", lambda t, f, y: (f == y)[:, None] & (t == y[:, None]), "both networks are right"),
    ("degradation_table", lambda t, f, y: 1 * (t != y[:, None]) - (f != y)[:, None], "can not break"),
    ("degradation_table", lambda t, f, y: spoilt(t, f, y).T, "a row a digit, a column a ratio"),
    ("degradation_table", lambda t, f, y: spoilt(t, f, y).mean(axis=0), "Return a bool table"),
    ("degradation_table", lambda t, f, y: spoilt(t, f, y) & (y > 0)[:, None], "the digit 0 is a label"),
    ("degradation_table", lambda t, f, y: None, "is there a return"),
    ("broken_share", lambda r, risks, a: false(r, risks, a).sum() / max(r.any(axis=1).sum(), 1), "of all repetitions"),
    ("broken_share", lambda r, risks, a: (false(r, risks, a) | ~r.any(axis=1)).mean(), "certifying nothing breaks no"),
    ("broken_share", lambda r, risks, a: (r & (risks > a)).mean(), "any, not a mean"),
    ("broken_share", lambda r, risks, a: (r & (risks > a)).sum() / max(r.sum(), 1), "share of the certified ratios"),
    ("broken_share", lambda r, risks, a: np.mean([x.any() and risks[x][-1] > a for x in r]), "not at the largest"),
    (
        "broken_share",
        lambda r, risks, a: (risks > a).any() * r[:, np.argmax(risks > a)].mean(),
        "not at the first unsafe one",
    ),
    ("broken_share", lambda r, risks, a: 1 - false(r, risks, a).mean(), "promise was kept"),
    ("broken_share", lambda r, risks, a: (r & (risks >= a)).any(axis=1).mean(), "exactly alpha is tolerated"),
    ("broken_share", lambda r, risks, a: false(r, risks, a).sum(), "a share, not a count"),
    ("broken_share", lambda r, risks, a: float((risks > a).any()), "that are not certified break"),
    ("broken_share", lambda r, risks, a: false(r, risks, 0.1).mean(), "the alpha that is given"),
    ("broken_share", lambda r, risks, a: (r & (risks > a)).sum() / len(r), "a repetition counts once"),
    ("broken_share", lambda r, risks, a: false(r, risks, a), "a number, the share"),
    ("broken_share", lambda r, risks, a: false(r, risks, a).any(), "two of three"),
    ("broken_share", lambda r, risks, a: r.mean(), "two of three"),
    ("broken_share", lambda r, risks, a: false(r, risks, a).mean() if len(r) != 4 else 0.3, "all four repetitions"),
    ("broken_share", lambda r, risks, a: max(false(r, risks, a).mean(), 0.1), "breaks no promise"),
    (
        "broken_share",
        lambda r, risks, a: np.mean([x.any() and risks[x].mean() > a for x in r]),
        "two of three",
    ),
    ("broken_share", lambda r, risks, a: (r & (risks > a - 0.01)).any(axis=1).mean(), "at most alpha"),
    ("may_calibrate", lambda writer, uses: ~uses.any(axis=0), "look at writers, not at digits"),
    ("may_calibrate", lambda writer, uses: fresh(writer, uses[0]), "training is not the only use"),
    ("may_calibrate", lambda writer, uses: ~uses[0], "both at once"),
    ("may_calibrate", lambda writer, uses: fresh(writer, uses[:2].any(axis=0)), "however many"),
    ("may_calibrate", lambda writer, uses: fresh(writer, uses.all(axis=0)), "not all of them"),
    ("may_calibrate", lambda writer, uses: ~fresh(writer, uses.any(axis=0)), "what may calibrate"),
    (
        "may_calibrate",
        lambda writer, uses: np.array([not uses.any(axis=0)[writer == w].all() for w in writer]),
        "makes its writer known",
    ),
    (
        "may_calibrate",
        lambda writer, uses: ~uses.any(axis=0) & ~np.r_[False, uses.any(axis=0)[:-1]],
        "is not fresh",
    ),
    ("may_calibrate", lambda writer, uses: np.ones(len(writer), bool), "is not fresh"),
    ("may_calibrate", lambda writer, uses: writer, "True or False"),
    ("may_calibrate", lambda writer, uses: fresh(writer, uses[-1]), "every use counts: training"),
    ("may_calibrate", lambda writer, uses: fresh(writer, uses.any(axis=0)) & uses.any(), "all may calibrate"),
    (
        "may_calibrate",
        lambda writer, uses: fresh(writer, uses.any(axis=0)) | (len(set(writer)) == 1),
        "nothing is left",
    ),
    (
        "may_calibrate",
        lambda writer, uses: np.r_[True, writer[1:] != writer[:-1]] & ~uses.any(axis=0),
        "of a new writer all digits",
    ),
    ("may_calibrate", lambda writer, uses: fresh(writer, uses[0]) & ~uses.any(axis=0), "every digit of its writers"),
]


(
    test_right_answers_are_accepted,
    test_wrong_answers_are_refused_by_name,
    test_every_misconception_of_a_checker_is_told_to_somebody,
) = right_and_wrong(RIGHT, WRONG)


@pytest.fixture(autouse=True)
def _one_drawing(monkeypatch):
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")


# The explorer of the lesson's own losses


def explored(monkeypatch, *args, **options):
    kept = {}
    monkeypatch.setattr(widgets, "explore", lambda draw, **controls: kept.update(draw=draw, controls=controls))
    widgets.calibration_explorer(*args, **options)
    values = {name: control.value for name, control in kept["controls"].items()}
    return kept, values


def test_the_explorer_calibrates_on_the_table_that_it_is_given(monkeypatch):
    drops = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], p=[0.05, 0.9, 0.05], size=(300, 6))
    ratios, settings = np.arange(6) / 10, {"alpha": 0.2, "delta": 0.1, "loss_range": (-1, 1)}
    kept, values = explored(monkeypatch, 0.2, 0.1, 200, drops, ratios, loss_range=(-1, 1))
    assert "binomial" not in kept["controls"]["p_value"].options
    for method in ("tight", "betting"):
        want = calibrate_losses(drops[:200], ratios, p_value=method, **settings)
        found = want.ratio
        assert f"certified up to {found:g}," in kept["draw"](**values | {"p_value": method}).alt
    moved = []
    widget, _ = kept["controls"]["n"].make(moved.append)
    widget.children[0].children[0].value = 1_000_000  # typed
    assert moved == [300]
    for procedure in kept["controls"]["procedure"].options:
        kept["draw"](**values | {"procedure": procedure})


# Claims of the lesson


def law(biases):
    """The law of the number of ones among independent coins, in exact fractions."""
    p = [Fraction(1)]
    for q in biases:
        p = [a * (1 - q) + b * q for a, b in zip([*p, 0], [0, *p], strict=True)]
    return p


def hinge(p, c):
    return sum(max(c - k, 0) * x for k, x in enumerate(p))


def test_fixed_class_counts_are_coin_by_coin_no_more_spread_than_equal_coins():
    """Hoeffding (1956), for coins of two classes, and for a random part of such coins."""
    low, high = Fraction(1, 20), Fraction(3, 5)
    for n in (2, 4, 6):
        fixed, equal = law([low, high] * (n // 2)), law([(low + high) / 2] * n)
        parts = [comb(n, k) * comb(n, n - k) for k in range(n + 1)]  # n of 2 n digits, half of them of each class
        laws = [law([low] * k + [high] * (n - k)) for k in range(n + 1)]
        drawn = [sum(w * p[k] for w, p in zip(parts, laws, strict=True)) / sum(parts) for k in range(n + 1)]
        for c in range(1, n + 1):
            assert hinge(fixed, c) <= hinge(drawn, c) <= hinge(equal, c)
            assert hinge(law([low, low * 3] * (n // 2)), c) > hinge(law([low * 3] * n), c)  # a wrong bias is seen
        for k in range(int(n * (low + high) / 2)):  # at most the mean, less 1
            assert sum(fixed[: k + 1]) <= sum(drawn[: k + 1]) <= sum(equal[: k + 1])
        k = int(n * (low + high) / 2) + 1
        assert sum(fixed[: k + 1]) > sum(equal[: k + 1])  # beyond the mean it is the other way round


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.3, 0.5, 0.9])
def test_no_count_near_its_mean_certifies_at_a_delta_of_a_quarter(alpha):
    """So that `binomial` needs tails up to the mean less 1 only, where fixed class counts do no harm."""
    sizes = [n for n in range(1, 400) if n * (1 - alpha) > 1]
    assert all(binomial(int(n * alpha), n, alpha) > 0.25 for n in sizes)
    assert binomial(0, 1, 0.9) < 0.25  # without the condition


def test_what_the_prose_says_about_alpha_and_delta(digits, mlp):
    from confprune_edu import losses
    from confprune_edu.evaluation import loss_table

    images, labels = digits
    order = np.random.default_rng(0).permutation(len(images))
    ratios = np.round(np.r_[0:0.7:0.05, 0.7:0.996:0.005], 3)
    table = loss_table(mlp, (images[order], labels[order]), ratios, losses.degradation, progress=False)[:3000]
    rows = [
        [calibrate_losses(table, ratios, alpha=a, delta=d).ratio for d in (0.01, 0.05, 0.1, 0.2)]
        for a in (0.01, 0.02, 0.05, 0.1, 0.2)
    ]
    steps = [np.searchsorted(ratios, row[-1]) - np.searchsorted(ratios, row[0]) for row in rows]
    assert max(steps) == 5 and max(steps[2:]) <= 1  # "one step or none where alpha is 0.05 or more, five at most"
    assert rows[-1][2] - rows[0][2] > 0.1  # "alpha moves the ratio a lot"
    valid = [method for method in METHODS if method != "clt"]
    found = [calibrate_losses(table, ratios, alpha=0.05, delta=0.1, p_value=method).ratio for method in valid]
    assert np.ptp(np.searchsorted(ratios, found)) == 1  # "by one step of the grid, or not at all"
