"""Exercises of lesson 05."""

import numpy as np

from confprune_edu.exercises.checker import exercise


def _spoilt(table, full, labels):
    return (full == labels)[:, None] & (table != labels[:, None])


@exercise(
    mistakes={
        "the label belongs to the row, the digit: compare each column with labels[:, None]": (
            lambda table, full, labels: (full == labels) & (table != labels)
        ),
        "this is `disagreement`: where the pruned network is right and the full one was wrong, pruning broke nothing": (
            lambda table, full, labels: table != full[:, None]
        ),
        "this is `error`: what the full network reads wrongly, too, pruning did not break": (
            lambda table, full, labels: table != labels[:, None]
        ),
        "this counts what pruning mended: the full network was wrong and the pruned one is right": (
            lambda table, full, labels: (full != labels)[:, None] & (table == labels[:, None])
        ),
        "the loss is 1 for a failure, not for a success": lambda *args: ~_spoilt(*args),
        "where both networks are right, nothing is lost": (
            lambda table, full, labels: (full == labels)[:, None] & (table == labels[:, None])
        ),
    },
)
def degradation_table(pruned, full, labels):
    """Return a bool table (n, m): True where the full network was right and the pruned one is wrong."""
    table = np.zeros(pruned.shape, dtype=bool)
    for i in range(len(labels)):  # a row a digit
        for j in range(pruned.shape[1]):  # a column a ratio
            table[i, j] = full[i] == labels[i] and pruned[i, j] != labels[i]
    return table


def _false(rejected, risks, alpha):
    return (rejected & (risks > alpha)).any(axis=1)


@exercise(
    mistakes={
        "delta is a share of all repetitions, those that certify nothing included": (
            lambda rejected, risks, a: _false(rejected, risks, a).sum() / max(rejected.any(axis=1).sum(), 1)
        ),
        "certifying nothing breaks no promise": (
            lambda rejected, risks, a: (_false(rejected, risks, a) | ~rejected.any(axis=1)).mean()
        ),
        "a repetition is one chance, however many of its ratios are unsafe: any, not a mean over ratios": (
            lambda rejected, risks, a: (rejected & (risks > a)).mean()
        ),
        "this is the share of the certified ratios that are unsafe, not of the repetitions": (
            lambda rejected, risks, a: (rejected & (risks > a)).sum() / max(rejected.sum(), 1)
        ),
        "this is how often the promise was kept": lambda rejected, risks, a: 1 - _false(rejected, risks, a).mean(),
        "a share, not a count": lambda rejected, risks, a: _false(rejected, risks, a).sum(),
        "unsafe ratios that are not certified break no promise": (
            lambda rejected, risks, a: np.mean([(risks > a).any() for _ in rejected])
        ),
    },
)
def broken_share(rejected, risks, alpha):
    """Return a number, the share of the repetitions with a false certificate."""
    broken = 0
    for certified in rejected:  # a row a repetition
        broken += any(risk > alpha for risk in risks[certified])
    return broken / len(rejected)


def _writers(writer, used):
    return ~np.isin(writer, writer[used])


@exercise(
    mistakes={
        "a digit is not fresh if its writer is known: look at writers, not at digits": (
            lambda writer, uses: ~uses.any(axis=0)
        ),
        "training is not the only use: whatever chose anything saw its digits": (
            lambda writer, uses: _writers(writer, uses[0])
        ),
        "both at once: other uses than training count, and the other digits of a writer, too": (
            lambda writer, uses: ~uses[0]
        ),
        "one use is enough, not all of them": lambda writer, uses: _writers(writer, uses.all(axis=0)),
        "True marks what may calibrate, not what was used": lambda writer, uses: ~_writers(writer, uses.any(axis=0)),
    },
)
def may_calibrate(writer, uses):
    """Return a bool mask of shape (n,), True for each digit that may calibrate."""
    known = {w for w, used in zip(writer, uses.any(axis=0), strict=True) if used}
    return np.array([w not in known for w in writer])
