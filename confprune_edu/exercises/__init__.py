"""Checkers, hints and solutions for the exercises of the notebooks.

A notebook holds a stub that raises NotImplementedError and then calls the checker of the same name:

    from confprune_edu import exercises
    exercises.binomial_p_value(my_function)

A checker answers with one quiet line while the stub is untouched, with "correct", or with an AssertionError that names
the smallest failing input and the misconception behind it. `hint(name)` and `solution(name)` help along.
"""

from confprune_edu.exercises.checker import EXERCISES, Case, exercise, hint, solution
from confprune_edu.exercises.lesson_00 import FLAW_CASES, RECORD, certificate_flaws, digits_needed
from confprune_edu.exercises.lesson_01 import MASK_CASES, csr_break_even, global_mask, loop_amounts
from confprune_edu.exercises.lesson_02 import binomial_p_value, examples_needed, hoeffding_p_value, tight_p_value
from confprune_edu.exercises.lesson_03 import (
    ADJUSTED_CASES,
    BEST_CASES,
    GRAPH_CASES,
    adjusted_p_values,
    best_of_many,
    graph_step,
)
from confprune_edu.exercises.lesson_04 import (
    RATIO_CASES,
    SEQUENCE_CASES,
    STARTS_CASES,
    certified_ratio,
    fixed_sequence,
    multi_start,
    two_way,
)
from confprune_edu.exercises.lesson_06 import (
    BEST_PAIR_CASES,
    PAIR_CASES,
    ROWS_CASES,
    best_pair,
    certified_rows,
    selective_p_value,
)
from confprune_edu.exercises.lesson_07 import (
    HOSPITAL_CASES,
    OVERLAP_CASES,
    VIDEO_CASES,
    every_hospital,
    mask_loss,
    video_means,
)

__all__ = [
    "ADJUSTED_CASES",
    "BEST_CASES",
    "BEST_PAIR_CASES",
    "EXERCISES",
    "FLAW_CASES",
    "GRAPH_CASES",
    "HOSPITAL_CASES",
    "MASK_CASES",
    "OVERLAP_CASES",
    "PAIR_CASES",
    "RATIO_CASES",
    "RECORD",
    "ROWS_CASES",
    "SEQUENCE_CASES",
    "STARTS_CASES",
    "VIDEO_CASES",
    "Case",
    "adjusted_p_values",
    "best_of_many",
    "best_pair",
    "binomial_p_value",
    "certificate_flaws",
    "certified_ratio",
    "certified_rows",
    "csr_break_even",
    "digits_needed",
    "every_hospital",
    "examples_needed",
    "exercise",
    "fixed_sequence",
    "global_mask",
    "graph_step",
    "hint",
    "hoeffding_p_value",
    "loop_amounts",
    "mask_loss",
    "multi_start",
    "selective_p_value",
    "solution",
    "tight_p_value",
    "two_way",
    "video_means",
]
