"""Every figure of the course, by lesson; those that several lessons share are in `results`.

Each function returns a `Picture`: a matplotlib figure that carries its alternative text. Certified points are filled,
others hollow; alpha and delta are dashed grey lines with their name on the line; no meaning rests on colour alone.
Nothing global is touched: no pyplot state, no rcParams.
"""

from confprune_edu.plots.lesson_00 import risk_laws as risk_laws
from confprune_edu.plots.lesson_01 import (
    pixel_maps as pixel_maps,
    sort_weights as sort_weights,
    weight_histograms as weight_histograms,
    weights_and_threshold as weights_and_threshold,
)
from confprune_edu.plots.lesson_02 import (
    chord as chord,
    error_counts as error_counts,
    examples_needed as examples_needed,
    majorants as majorants,
    p_value_laws as p_value_laws,
    p_value_map as p_value_map,
    p_values_by_mean as p_values_by_mean,
    wealth as wealth,
)
from confprune_edu.plots.lesson_03 import (
    BUDGET_NAMES as BUDGET_NAMES,
    BUDGET_PROCEDURES as BUDGET_PROCEDURES,
    BUDGET_SCENARIOS as BUDGET_SCENARIOS,
    budget_graphs as budget_graphs,
    chance_of_any as chance_of_any,
    error_budget as error_budget,
    family_wise_errors as family_wise_errors,
    holm_stairs as holm_stairs,
    lucky_models as lucky_models,
    ratio_against_m as ratio_against_m,
)
from confprune_edu.plots.lesson_04 import (
    SEQUENCES as SEQUENCES,
    certified_against as certified_against,
    chains as chains,
    orders as orders,
    sequence as sequence,
)
from confprune_edu.plots.lesson_06 import (
    by_class as by_class,
    certified_regions as certified_regions,
    frontiers as frontiers,
    mean_ratios as mean_ratios,
    rescue as rescue,
    risk_coverage as risk_coverage,
    routes as routes,
    selective as selective,
    selective_splits as selective_splits,
)
from confprune_edu.plots.lesson_07 import (
    by_layer as by_layer,
    frame_and_certificate as frame_and_certificate,
    overlays as overlays,
    variance_shares as variance_shares,
)
from confprune_edu.plots.lesson_08 import (
    orders_compared as orders_compared,
    ratios_by_order as ratios_by_order,
    seconds_and_risk as seconds_and_risk,
)
from confprune_edu.plots.lesson_09 import (
    by_ratio as by_ratio,
    by_setting as by_setting,
    margins as margins,
    predictions as predictions,
    read_off as read_off,
    sensitivity as sensitivity,
)
from confprune_edu.plots.lesson_10 import (
    costs as costs,
    rates_against_alpha as rates_against_alpha,
    rule_laws as rule_laws,
    rule_rates as rule_rates,
    rules_against_n as rules_against_n,
)
from confprune_edu.plots.lesson_11 import (
    against_strength as against_strength,
    delays as delays,
    home_and_there as home_and_there,
)
from confprune_edu.plots.lesson_12 import examples_by_ratio as examples_by_ratio
from confprune_edu.plots.picture import Picture as Picture
from confprune_edu.plots.results import (
    certificate as certificate,
    digits as digits,
    error_intervals as error_intervals,
    grid_of_tests as grid_of_tests,
    p_value_curves as p_value_curves,
    ratio_table as ratio_table,
    risk_curves as risk_curves,
    splits as splits,
)
