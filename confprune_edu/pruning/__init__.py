"""Which weights go first, and the pruned copies of a network."""

from confprune_edu.pruning.copies import Finish, family, global_rank, prune, sparsity, twin
from confprune_edu.pruning.cost import Saving, Savings, savings
from confprune_edu.pruning.criteria import magnitude, prunable
from confprune_edu.pruning.state import digest, fingerprint, random_state, same_random_state, set_random_state

__all__ = [
    "Finish",
    "Saving",
    "Savings",
    "digest",
    "family",
    "fingerprint",
    "global_rank",
    "magnitude",
    "prunable",
    "prune",
    "random_state",
    "same_random_state",
    "savings",
    "set_random_state",
    "sparsity",
    "twin",
]
