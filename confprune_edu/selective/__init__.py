"""Two hyper-parameters, one guarantee: how far to prune, and below which confidence to abstain.

A pruned classifier answers where its confidence (its largest class probability) is at least a threshold, and abstains
elsewhere. The method is that of `calibration`, with tables (m, t), a row a ratio and a column a threshold, in place of
rows (m,): losses, p-values, stop rule. To reject H_jk: E[loss | confidence >= threshold_k] > alpha certifies a pair.
"""

from confprune_edu.selective.certificate import Pair as Pair, SelectiveCalibration as SelectiveCalibration
from confprune_edu.selective.evidence import (
    Counts as Counts,
    counts as counts,
    coverage_p_values as coverage_p_values,
    risk_p_values as risk_p_values,
)
from confprune_edu.selective.procedures import (
    grid_graph as grid_graph,
    learned_path as learned_path,
    path as path,
    rows as rows,
    staircase as staircase,
)
from confprune_edu.selective.recipe import (
    THRESHOLDS as THRESHOLDS,
    calibrate as calibrate,
    calibrate_losses as calibrate_losses,
)
