"""Checkers, hints and solutions for the exercises of the notebooks.

A notebook holds a stub that raises NotImplementedError and then calls the checker of the same name:

    from confprune_edu import exercises
    exercises.binomial_p_value(my_function)

A checker answers with one quiet line while the stub is untouched, with "correct", or with an AssertionError that names
the smallest failing input and the misconception behind it; in a notebook the verdict is a card. `hint(name)` and
`solution(name)` help along. In a class (`confprune classroom`) `keep_solutions` and `grade` serve the teacher.
"""

from confprune_edu.exercises.checker import (
    EXERCISES as EXERCISES,
    grade as grade,
    hint as hint,
    keep_solutions as keep_solutions,
    solution as solution,
)
from confprune_edu.exercises.lesson_00 import (
    RECORD as RECORD,
    certificate_flaws as certificate_flaws,
    digits_needed as digits_needed,
)
from confprune_edu.exercises.lesson_01 import (
    csr_break_even as csr_break_even,
    global_mask as global_mask,
    loop_amounts as loop_amounts,
)
from confprune_edu.exercises.lesson_02 import (
    binomial_p_value as binomial_p_value,
    examples_needed as examples_needed,
    hoeffding_p_value as hoeffding_p_value,
    tight_p_value as tight_p_value,
)
from confprune_edu.exercises.lesson_03 import (
    adjusted_p_values as adjusted_p_values,
    best_of_many as best_of_many,
    graph_step as graph_step,
)
from confprune_edu.exercises.lesson_04 import (
    certified_ratio as certified_ratio,
    fixed_sequence as fixed_sequence,
    multi_start as multi_start,
    two_way as two_way,
)
from confprune_edu.exercises.lesson_05 import (
    broken_share as broken_share,
    degradation_table as degradation_table,
    may_calibrate as may_calibrate,
)
from confprune_edu.exercises.lesson_06 import (
    best_pair as best_pair,
    certified_rows as certified_rows,
    selective_p_value as selective_p_value,
)
from confprune_edu.exercises.lesson_07 import (
    every_hospital as every_hospital,
    mask_loss as mask_loss,
    video_means as video_means,
)
from confprune_edu.exercises.lesson_08 import (
    best_order as best_order,
    lamp_scores as lamp_scores,
    peeking_steps as peeking_steps,
)
from confprune_edu.exercises.lesson_09 import (
    cheap_delta as cheap_delta,
    costs as costs,
    read_off as read_off,
)
from confprune_edu.exercises.lesson_10 import (
    exact_end as exact_end,
    fair_failures as fair_failures,
    networks_evaluated as networks_evaluated,
)
from confprune_edu.exercises.lesson_11 import (
    watch as watch,
    weighted_losses as weighted_losses,
    which_notice as which_notice,
)
from confprune_edu.exercises.lesson_12 import (
    changed_decisions as changed_decisions,
    fresh_rows as fresh_rows,
    zeros_missing as zeros_missing,
)
