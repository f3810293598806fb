"""Certified pairs of a pruning ratio and a confidence threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from confprune_edu import _checks, certificates, pvalues, records
from confprune_edu.provenance import pruned_as
from confprune_edu.recipe import Recipe, name_of
from confprune_edu.selective import evidence, procedures
from confprune_edu.selective.evidence import Bools, Floats

if TYPE_CHECKING:  # torch is imported where a network is at hand: `calibrate_losses` runs without it
    from torch import Tensor, nn

    from confprune_edu import pruning
    from confprune_edu.losses import Loss


def confidence_name(function: Loss) -> str:
    """What a certificate calls a confidence; "confidence" is `losses.confidence` and nothing else."""
    from confprune_edu import losses

    name = name_of(function)
    return name if name != "confidence" or function is losses.confidence else "custom confidence"


@dataclass(frozen=True)
class Pair:
    """One setting: prune to `ratio`, answer where the confidence is at least `threshold`.

    `coverage` and `risk` are estimates from the examples that tested; `row` and `column` its place in the grid;
    `confidence` names the function that was calibrated, None where only its values were seen.
    """

    ratio: float
    threshold: float
    coverage: float
    risk: float
    row: int
    column: int
    confidence: str | None = "confidence"

    def decide(self, outputs: Any, confidence: Loss | None = None) -> Tensor:
        """The pruned network's answers, or that it gives none.

        Parameters
        ----------
        outputs : float tensor or array, shape (batch, classes)
            Logits of the pruned network.
        confidence : callable, optional
            The function that was calibrated. It may be left out where that was `losses.confidence`.

        Returns
        -------
        int64 tensor, shape (batch,): the class with the largest logit, or -1: it abstains.

        Raises
        ------
        ValueError
            `confidence` is not the one that was calibrated, by its name, or is left out where it was another.

        >>> Pair(0.5, 0.8, 0.9, 0.01, 50, 20).decide(np.array([[3.0, 0.0], [0.0, 1.0]])).tolist()
        [0, -1]
        """
        import torch

        from confprune_edu import losses

        function = confidence or losses.confidence
        if (confidence is None or self.confidence is not None) and self.confidence != confidence_name(function):
            used = self.confidence or "not known here: only its values were calibrated"
            got = "none" if confidence is None else confidence_name(function)
            raise ValueError(f"confidence must be the function that was calibrated ({used}), got {got}")
        logits = torch.as_tensor(outputs)
        values = function(logits, None, None)
        sure = torch.as_tensor(values).double() >= self.threshold  # in the precision of the calibration
        return torch.where(sure, logits.argmax(dim=1), -1)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SelectiveCalibration(certificates.Certificate):
    """A certificate: pairs of a pruning ratio and a threshold at which the network's answers may be trusted.

    With probability at least 1 - delta over the draw of the examples, every pair marked in `rejected` has a selective
    risk of at most alpha, and with a `floor` a coverage of at least that. All hold at once: to choose among them
    afterwards, by any criterion, costs nothing. Certifying nothing is no false claim.

    Attributes
    ----------
    rejected : bool array, shape (m, t)
        True where (ratios[j], thresholds[k]) is certified.
    p_values, coverage, risk : float64 arrays, shape (m, t)
        P-values; share of the testing examples that are answered, and their mean loss (NaN where there are none). NaN
        in all three for ratios that a path did not reach.
    ratios, thresholds : float64 arrays, shapes (m,) and (t,)
    alpha, delta : float
        Tolerated risk among the answered, in the units of the loss; tolerated probability of any false certificate.
    n, n_path : int
        Examples that test; examples that a "split" used before to learn its path, 0 otherwise.
    floor : float or None
        Certified coverage; None: coverage is estimated, not certified.
    p_value, procedure, loss : str
        What was used, by name.
    confidence : str or None
        The confidence, by name; None if only a table of its values was seen.
    evaluated : int or None
        Ratios evaluated where a path stopped early, see `calibrate`; a few more than were tested.
    seed : int or None
        Seed of the random part that learned the path of a "split".
    loss_range, model_sha256, criterion, finished, scores_sha256, data_sha256, scores, finish, knob, parameters
        As in `certificates.Calibration`.
    """

    coverage: Floats
    risk: Floats
    thresholds: Floats
    floor: float | None
    n_path: int = 0
    confidence: str | None = None
    evaluated: int | None = field(default=None, metadata=records.LATER)

    schema = "confprune_edu.SelectiveCalibration"
    tables = ("coverage", "risk")
    keep_delta = frozenset({*procedures.BY_NAME, "split", *(f.__name__ for f in procedures.KEEP_DELTA)})
    stop_rules = procedures.BY_NAME

    @property
    def frontier(self) -> Floats:
        """Largest coverage (an estimate) of a certified pair for each ratio, shape (m,); NaN where there is none."""
        largest = np.where(self.rejected, self.coverage, -1).max(axis=1)
        return np.where(largest < 0, np.nan, largest)

    def best(self, by: str = "ratio", min_coverage: float | None = None) -> Pair | None:
        """The certified pair with the largest ratio or coverage; None if there is none.

        Parameters
        ----------
        by : "ratio" or "coverage"
            What is made large first; then the other; of equals the stricter threshold is taken.
        min_coverage : float in [0, 1], optional
            Only pairs whose coverage on the testing examples is at least this. That is an estimate: only a `floor` is
            certified. The risk of the pair is certified whatever is chosen here.
        """
        found = pick(self.rejected, self.coverage, by, min_coverage)
        if found is None:
            return None
        return self._pair(*found)

    def _pair(self, row: int, column: int) -> Pair:
        coverage, risk = float(self.coverage[row, column]), float(self.risk[row, column])
        ratio, threshold = float(self.ratios[row]), float(self.thresholds[column])
        return Pair(ratio, threshold, coverage, risk, row, column, self.confidence)

    def save(
        self,
        path: str | Path,
        model: nn.Module,
        pair: Pair | Literal["best"] | None = "best",
        *,
        network: str | None = None,
        date: str | None = None,
        plan: Mapping[str, Any] | None = None,
        scores: Mapping[str, Tensor] | None = None,
        finish: pruning.Finish | None = None,
        weights: pruning.Weights | None = None,
        family: pruning.Family | None = None,
    ) -> None:
        """The certified network of a pair and this certificate as one new file, as `Calibration.save` does."""
        chosen = self.best() if pair == "best" else pair
        pruned = self.prune(model, chosen, scores, finish, weights=weights, family=family)
        self._save(path, pruned, network, date, plan=plan, pair=chosen and [chosen.row, chosen.column])

    def saved_ratio(self) -> float | None:
        place = (self.saved or {}).get("pair")
        if not isinstance(place, list) or list(map(type, place)) != [int, int]:
            raise ValueError("saved must name a pair by its row and column")
        if not all(0 <= k < size for k, size in zip(place, self.rejected.shape, strict=True)):
            raise ValueError(f"saved names a pair outside the grid: {place}")
        return float(self.ratios[place[0]]) if self.rejected[tuple(place)] else None

    def prune(
        self,
        model: nn.Module,
        pair: Pair | Literal["best"] | None = "best",
        scores: Mapping[str, Tensor] | None = None,
        finish: pruning.Finish | None = None,
        *,
        weights: pruning.Weights | None = None,
        family: pruning.Family | None = None,
    ) -> nn.Module:
        """The certified network of a pair; what it answers, `Pair.decide` tells.

        `pair` comes from `best(...)`; default: from `best()`. `scores`, `finish`, `weights`, `family` as in
        `Calibration.prune`.

        Raises
        ------
        TypeError, ValueError
            `pair` is none, since nothing was certified or nothing as asked for, or is not certified here; `model`,
            scores, `finish`, `weights` or `family` are not those that were calibrated.
        """
        if pair == "best":
            pair = self.best()
        if pair is None:
            raise ValueError("pair is None: nothing was certified, or nothing with the coverage that was asked for")
        if not isinstance(pair, Pair):
            raise TypeError(f"pair must be a Pair, as best(...) gives it, got {pair!r}")
        if not self.rejected[self.ratios == pair.ratio][:, self.thresholds == pair.threshold].any():
            raise ValueError(f"pair must be a certified one, got ratio {pair.ratio:g}, threshold {pair.threshold:g}")
        return pruned_as(self, model, pair.ratio, scores, finish, weights, family)

    def plot(self, pair: Pair | Literal["best"] | None = "best", **options: Any) -> Any:
        """P-values, certified pairs and coverage over the grid; `pair` is marked (default: that of `best()`).

        Options as in `plots.selective`: `start`, the smallest ratio to draw, and `title`.
        """
        from confprune_edu.plots import selective as draw

        if pair == "best":
            pair = self.best()
        chosen = None if pair is None else (pair.row, pair.column)
        return draw(self, chosen=chosen, **options)

    @classmethod
    def _shape(cls, values: dict[str, Any]) -> tuple[int, ...]:
        values["thresholds"] = evidence.check_thresholds(values["thresholds"])
        return len(values["ratios"]), len(values["thresholds"])

    @classmethod
    def _implied(cls, values: dict[str, Any], recipe: Recipe) -> tuple[Any, Any, Bools]:
        tested = _tested(values)
        if tested < len(values["ratios"]):  # what the rows that were tested imply; of the others nothing is known
            tables = ("p_values", "coverage", "risk", "rejected", "ratios")
            rows = values | {name: values[name][:tested] for name in tables} | {"evaluated": None}
            rest = (0, len(values["ratios"]) - tested), (0, 0)
            return tuple(np.pad(part, rest) for part in cls._implied(rows, recipe))  # type: ignore[return-value]
        rule, method, n = values["procedure"], recipe.p_value, values["n"]
        found, p = _counts(values, *recipe.loss_range), _checks.numeric(values["p_values"], "p_values")

        def p_of(loss_sum: NDArray[Any]) -> Floats:
            return evidence.pair_p_values(evidence.Counts(found.selected, loss_sum), n, recipe.level, method)

        least, risk_p, most = np.zeros(p.shape), np.zeros(p.shape), np.ones(p.shape)
        if method in pvalues.FROM_SUM:
            least, risk_p, most = records.p_value_bounds(p_of, found.loss_sum, found.selected, method)
        if values["floor"] is None:
            silent_p = None
        else:
            silent_p = evidence.answered_p_values(found.selected, n, _checks.number(values["floor"], "floor"))
            least, most = np.maximum(least, silent_p * (1 - 1e-6)), np.maximum(most, silent_p * (1 + 1e-6))
        if rule not in cls.stop_rules:
            return least, most, records.at_most(p, recipe.delta) & values["rejected"]
        if silent_p is None or rule == "path":
            return least, most, procedures.reject(rule, p, recipe.delta)
        # for other methods a risk's p-value is known only where it is the larger of the two
        known = method in pvalues.FROM_SUM
        want = procedures.reject(rule, np.where(p > silent_p, p, risk_p), recipe.delta, silent_p)
        return least, most, want if known else want & values["rejected"]

    def _shown(self) -> Pair | None:
        """The pair that the words are about: that of the network in the file, else the best."""
        if self.saved is None:
            return self.best()
        return self._pair(*self.saved["pair"])

    def _headline(self) -> str:
        best = self.best()
        if best is not None:
            return f"Certified: {self.rejected.sum():,} pairs of ratio and threshold, ratios up to {best.ratio:g}"
        floor = "" if self.floor is None else f" and to answer at least {100 * self.floor:.4g} % of the examples"
        return (
            f"Nothing certified: no pair of ratio and threshold is shown to keep the {self.loss} risk "
            f"among the answers at most {self.alpha:g}{floor}"
        )

    def _certified(self) -> str:
        best = self._shown() or Pair(0, 0, 0, 0, 0, 0)
        floor = "" if self.floor is None else f", and it answers at least {100 * self.floor:.4g} % of the examples"
        return (
            f"{self._setting(best.ratio)}, answering where the "
            f"{self.confidence or 'confidence'} is at least {best.threshold:g}, the network's {self.loss} risk among "
            f"its answers is at most {self.alpha:g}{floor}; likewise for every certified pair, all at once."
        )

    def _facts(self) -> str:
        best, widest = self._shown(), self.best(by="coverage")
        learned = f", after {self.n_path} that learned the path" if self.n_path else ""
        reached = "" if self.evaluated is None else f", {self.evaluated} of {len(self.ratios)} ratios evaluated"
        facts = (
            f"n = {self.n}{learned}, {self.p_value} p-values, {self.procedure}; "
            f"{self.rejected.sum():,} of {self.rejected.size:,} pairs certified{reached}"
        )
        if best is None or widest is None:
            return f"{facts}; {self._shortfall()}"
        return (
            f"{facts}; coverage {best.coverage:.4f} and mean loss {best.risk:.4f} there; "
            f"largest coverage {widest.coverage:.4f}, at ratio {widest.ratio:g} and threshold {widest.threshold:g}"
        )

    def _shortfall(self) -> str:
        m, t = self.p_values.shape
        if self.procedure == "rows" and self.floor is None:
            p, bar = self.p_values[:, 0].min(), self.delta / m
            return (
                f"a row must begin with p <= delta / {m} = {bar:.3g}, the smallest first p-value is {p:.3g}, "
                f"with at most {self.coverage[:, 0].max():.1%} answered at threshold {self.thresholds[0]:g}"
            )
        if self.procedure == "path":
            first = self.p_values[0, t // 2]
            return f"the path must begin with p <= delta = {self.delta:g}, its first p-value is {first:.3g}"
        return f"the smallest p-value is {self.p_values.min():.3g}"


def _tested(values: dict[str, Any]) -> int:
    """How many ratios a record has p-values for; ValueError where a path would not have stopped there."""
    unknown = np.isnan(values["p_values"]).all(axis=1)
    tested, t = int((~unknown).sum()), len(values["thresholds"])
    if unknown.any():
        stopped = tested > 0 and not unknown[:tested].any() and not values["rejected"][tested - 1, t // 2]
        alike = all(np.isnan(values[name][tested:]).all() for name in ("coverage", "risk"))
        if values["procedure"] != "path" or not stopped or not alike:
            raise ValueError("p_values must be there for all ratios, or up to the first failure of a path")
    if values["evaluated"] is not None:
        _checks.whole(values["evaluated"], "evaluated", tested, len(unknown))
    return tested


def _counts(values: dict[str, Any], low: float, high: float) -> evidence.Counts:
    """What the coverages and risks of a record say of its examples; ValueError or TypeError where they can not be."""
    split = values["procedure"] == "split"
    share = _checks.within(_checks.numeric(values["coverage"], "coverage"), "coverage", 0, 1)
    selected = np.rint(share * values["n"]).astype(np.int64)
    if (np.abs(share * values["n"] - selected) > 1e-6).any() or (values["rejected"] & (selected == 0)).any():
        raise ValueError("coverage must be shares of n examples, and rejected false where nothing is answered")
    _checks.within(_checks.numeric(values["risk"][selected > 0], "risk"), "risk", low, high)
    if type(values["n_path"]) is not int or values["n_path"] < 0 or (values["n_path"] > 0) != split:
        raise ValueError(f"n_path must be a count, above 0 for a split only, got {values['n_path']!r}")
    if not isinstance(values["confidence"], str | None):
        raise ValueError(f"confidence must be a name or null, got {values['confidence']!r}")
    return evidence.Counts(selected, np.where(selected > 0, (values["risk"] - low) / (high - low) * selected, 0))


def pick(
    rejected: Bools, coverage: Floats, by: str = "ratio", min_coverage: float | None = None
) -> tuple[int, int] | None:
    """(row, column) of the pair that `SelectiveCalibration.best` names.

    >>> pick(np.array([[True, True], [True, False]]), np.array([[0.8, 1.0], [0.7, 0.9]]), min_coverage=0.75)
    (0, 1)
    """
    _checks.choice(by, "by", ("ratio", "coverage"))
    least = _checks.numeric(0.0 if min_coverage is None else min_coverage, "min_coverage")
    _checks.within(least, "min_coverage", 0, 1)
    row, column = np.nonzero(rejected & (coverage >= least))
    if len(row) == 0:
        return None
    share = coverage[row, column]
    last = np.lexsort((-column, share, row) if by == "ratio" else (-column, row, share))[-1]
    return int(row[last]), int(column[last])
