"""Exercises of lesson 09."""

import math

import numpy as np

from confprune_edu.exercises.checker import exercise


def _margin(alpha, delta, n):
    return math.sqrt(2 * alpha * (1 - alpha) * math.log(1 / delta) / n)


def _largest(ratios, risks, level):
    return max((r for r, risk in zip(ratios, risks, strict=True) if risk <= level), default=0.0)


def _read(risks, ratios, level):
    return float(_largest(ratios, np.maximum.accumulate(risks), level))


def _costs(half, tenth, margin=_margin):
    """An answer to `costs` from what it puts in place of (alpha, delta), first and second."""

    def answer(risks, ratios, alpha, delta, n):
        now, first, second = (
            _read(risks, ratios, a - margin(a, d, n))
            for a, d in ((alpha, delta), half(alpha, delta), tenth(alpha, delta))
        )
        return [now - first, now - second]

    return answer


def _half(a, d):
    return a / 2, d


def _enough(apart, power=2.0, whole=math.ceil):
    """An answer to `cheap_delta` from what it takes for the difference of the roots."""
    return lambda alpha, delta, share: whole(2 * (1 - alpha) / alpha * (apart(delta) / share) ** power)


def _apart(delta, log=math.log):
    return math.sqrt(log(10 / delta)) - math.sqrt(log(1 / delta))


@exercise(
    mistakes={
        "the difference of two roots, not the root of the difference": _enough(lambda d: math.sqrt(math.log(10))),
        "logarithms are natural ones, not of base 10": _enough(lambda d: _apart(d, math.log10)),
        "n stands under a root: square": _enough(_apart, power=1),
        "a whole number of examples: round up": _enough(_apart, whole=float),
        "a share of alpha: the margin is compared with share * alpha": (
            lambda alpha, delta, share: math.ceil(2 * alpha * (1 - alpha) * (_apart(delta) / share) ** 2)
        ),
        "this makes the whole margin small; only its change counts": _enough(lambda d: math.sqrt(math.log(10 / d))),
    },
)
def cheap_delta(alpha, delta, share):
    """Return the smallest n for which a tenth of delta lowers the level by at most share * alpha, a whole number."""
    # sqrt(2 alpha (1 - alpha) / n) * apart <= share * alpha, solved for n
    apart = math.sqrt(math.log(10 / delta)) - math.sqrt(math.log(1 / delta))
    return math.ceil(2 * (1 - alpha) / alpha * (apart / share) ** 2)


@exercise(
    mistakes={
        "a dip does not help: the sequence stops at the first risk above the level": (
            lambda risks, ratios, level: _largest(ratios, risks, level)
        ),
        "this is the first ratio that fails, not the last that is still fine": (
            lambda risks, ratios, level: ratios[min((np.maximum.accumulate(risks) <= level).sum(), len(ratios) - 1)]
        ),
        "a risk equal to the level is still fine": (
            lambda risks, ratios, level: max(
                (r for r, risk in zip(ratios, np.maximum.accumulate(risks), strict=True) if risk < level), default=0.0
            )
        ),
        "the ratio, not how many ratios are fine": (
            lambda risks, ratios, level: (np.maximum.accumulate(risks) <= level).sum()
        ),
    },
)
def read_off(risks, ratios, level):
    """Return the largest ratio up to which every risk is at most the level, a number; 0 if there is none."""
    answer = 0.0
    for risk, ratio in zip(risks, ratios, strict=True):
        if risk > level:
            break
        answer = ratio
    return answer


@exercise(
    parts=("half of alpha", "a tenth of delta"),
    mistakes={
        "a tenth of delta, not a half": _costs(_half, lambda a, d: (a, d / 2)),
        "one thing at a time: alpha stays where delta changes": _costs(_half, lambda a, d: (a / 2, d / 10)),
        "there is a margin below alpha": _costs(_half, lambda a, d: (a, d / 10), lambda a, d, n: 0.0),
        "the margin of alpha / 2 is another than that of alpha": (
            lambda risks, ratios, a, d, n: [
                _read(risks, ratios, a - _margin(a, d, n)) - _read(risks, ratios, a / 2 - _margin(a, d, n)),
                _read(risks, ratios, a - _margin(a, d, n)) - _read(risks, ratios, a - _margin(a, d / 10, n)),
            ]
        ),
        "a cost is what is lost: the ratio before, minus the ratio after": (
            lambda *given: [-cost for cost in _costs(_half, lambda a, d: (a, d / 10))(*given)]
        ),
    },
)
def costs(risks, ratios, alpha, delta, n):
    """Return what half of alpha and what a tenth of delta cost, two differences of ratios."""

    def ratio(a, d):
        level = a - math.sqrt(2 * a * (1 - a) * math.log(1 / d) / n)  # the mean loss that is still certified
        fine = np.maximum.accumulate(risks) <= level
        return max(np.array(ratios)[fine], default=0.0)

    return [ratio(alpha, delta) - ratio(alpha / 2, delta), ratio(alpha, delta) - ratio(alpha, delta / 10)]
