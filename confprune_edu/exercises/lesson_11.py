"""Exercises of lesson 11."""

import numpy as np

from confprune_edu.exercises.checker import exercise


def _weighted(weights, bound):
    """An answer that weighs by weights(groups, here, there) and divides by bound(groups, here, there)."""

    def answer(losses, groups, here, there):
        top = bound(groups, here, there)
        return weights(groups, here, there)[:, None] * losses / top, top

    return answer


def _w(groups, here, there):
    return (there / here)[groups]


def _b(groups, here, there):
    return (there / here).max()


@exercise(
    parts=("losses", "bound"),
    mistakes={
        "the bound holds for every example that could come: the largest weight of any group, drawn or not": (
            _weighted(_w, lambda *given: _w(*given).max())
        ),
        "upside down: what is more frequent in use than here must count for more": (
            _weighted(lambda g, here, there: (here / there)[g], lambda g, here, there: (here / there).max())
        ),
        "divide by the bound, so that the new losses are in [0, 1]": (
            lambda losses, *given: (_w(*given)[:, None] * losses, _b(*given))
        ),
        "the shares here are those of the law, which are known beforehand, not those of this sample": (
            _weighted(
                lambda g, here, there: there[g] * len(g) / np.bincount(g, minlength=len(here))[g],
                lambda g, here, there: (there * len(g) / np.maximum(np.bincount(g, minlength=len(here)), 1)).max(),
            )
        ),
        "weights that are made to have mean 1 in this sample depend on all of its examples: leave them as they are": (
            _weighted(lambda *given: _w(*given) / _w(*given).mean(), _b)
        ),
        "weigh with the share in use divided by the share here": _weighted(
            lambda g, here, there: there[g], lambda g, here, there: there.max()
        ),
    },
)
def weighted_losses(losses, groups, here, there):
    """Return the new losses (n, m), w * loss / B, and B; the shares of the groups are here (k,) and there (k,)."""
    weight = there / here  # of each group
    bound = weight.max()
    return np.array([weight[g] * row / bound for g, row in zip(groups, losses, strict=True)]), bound


LOSSES = ("error", "disagreement", "degradation", "accuracy_drop")


@exercise(parts=LOSSES)
def which_notice(pruned, full, labels, alpha):
    """Return the set of the names of the losses whose mean over these examples is above alpha."""
    wrong, full_wrong = pruned != labels, full != labels
    means = {
        "error": np.mean(wrong),
        "disagreement": np.mean(pruned != full),
        "degradation": np.mean(wrong & ~full_wrong),
        "accuracy_drop": np.mean(wrong) - np.mean(full_wrong),
    }
    return {name for name, mean in means.items() if mean > alpha}


def _first(reached):
    return int(np.argmax(reached)) + 1 if np.any(reached) else None


def _watch(wealth, alarm=lambda wealth, delta: _first(wealth >= 1 / delta)):
    """An answer with the wealth of wealth(losses, alpha, stake) and the alarm of alarm(wealth, delta)."""

    def answer(losses, alpha, delta, stake):
        owned = wealth(losses, alpha, stake)
        return owned, alarm(owned, delta)

    return answer


def _owned(losses, alpha, stake):
    return np.cumprod(1 + stake * (losses - alpha))


@exercise(
    parts=("wealth", "alarm"),
    mistakes={
        "this gambler wins when losses are small, as in lesson 02; a monitor bets that the risk is above alpha": (
            _watch(lambda x, alpha, stake: np.cumprod(1 + stake * (alpha - x)))
        ),
        "gains are multiplied, since all that is owned is staked again": (
            _watch(lambda x, alpha, stake: 1 + np.cumsum(stake * (x - alpha)))
        ),
        "the stake is a share of what is owned, on loss - alpha, not on the loss": (
            _watch(lambda x, alpha, stake: np.cumprod(1 + stake * x))
        ),
        "one wealth for each loss: what is owned after it, not before": (
            _watch(lambda x, alpha, stake: np.r_[1.0, _owned(x, alpha, stake)[:-1]])
        ),
        "the alarm is the number of losses seen by then, which begins with 1": (
            _watch(
                _owned,
                lambda wealth, delta: None if _first(wealth >= 1 / delta) is None else _first(wealth >= 1 / delta) - 1,
            )
        ),
        "1 / delta, not 1 / alpha or delta, is what the wealth reaches with probability at most delta": (
            _watch(_owned, lambda wealth, delta: _first(wealth >= delta))
        ),
        "an alarm stays: look at the first moment, not only at the last": (
            _watch(_owned, lambda wealth, delta: len(wealth) if wealth[-1] >= 1 / delta else None)
        ),
    },
)
def watch(losses, alpha, delta, stake):
    """Return the wealth after each loss, (n,), and how many losses had been seen at the alarm, or None."""
    owned, wealth, alarm = 1.0, [], None
    for seen, loss in enumerate(losses, start=1):
        owned = owned * (1 + stake * (loss - alpha))
        wealth.append(owned)
        if alarm is None and owned >= 1 / delta:
            alarm = seen
    return np.array(wealth), alarm
