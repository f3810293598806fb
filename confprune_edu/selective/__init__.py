"""Two hyper-parameters, one guarantee: how far to prune, and below which confidence to abstain.

A pruned classifier answers where its confidence (its largest class probability) is at least a threshold, and abstains
elsewhere. The method is that of `calibration`, with tables (m, t), a row a ratio and a column a threshold, in place of
rows (m,): losses, p-values, stop rule. To reject H_jk: E[loss | confidence >= threshold_k] > alpha certifies a pair.
"""

from confprune_edu.selective.certificate import Pair, SelectiveCalibration
from confprune_edu.selective.evidence import METHODS, Counts, counts, coverage_p_values, risk_p_values
from confprune_edu.selective.procedures import grid_graph, learned_path, path, rows, staircase
from confprune_edu.selective.recipe import THRESHOLDS, calibrate, calibrate_losses

__all__ = [
    "METHODS",
    "THRESHOLDS",
    "Counts",
    "Pair",
    "SelectiveCalibration",
    "calibrate",
    "calibrate_losses",
    "counts",
    "coverage_p_values",
    "grid_graph",
    "learned_path",
    "path",
    "risk_p_values",
    "rows",
    "staircase",
]
