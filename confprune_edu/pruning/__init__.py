"""Which weights go first, and the pruned copies of a network."""

from confprune_edu.pruning.copies import (
    Finish as Finish,
    checked_scores as checked_scores,
    family as family,
    global_order as global_order,
    plain as plain,
    prune as prune,
    pruned_copy as pruned_copy,
    same as same,
    sharing as sharing,
    sparsity as sparsity,
    tied as tied,
    twin as twin,
)
from confprune_edu.pruning.cost import Saving as Saving, Savings as Savings, savings as savings
from confprune_edu.pruning.criteria import (
    Extent as Extent,
    Weights as Weights,
    extent as extent,
    magnitude as magnitude,
    memory as memory,
    parameters as parameters,
    prunable as prunable,
)
from confprune_edu.pruning.families import (
    Family as Family,
    channels_removed as channels_removed,
    member as member,
)
from confprune_edu.pruning.finishes import batch_norm as batch_norm, fine_tune as fine_tune, keep_zeros as keep_zeros
from confprune_edu.pruning.scores import (
    fisher as fisher,
    lamp as lamp,
    layerwise as layerwise,
    random as random,
    snip as snip,
    wanda as wanda,
)
from confprune_edu.pruning.state import (
    checked_network as checked_network,
    difference as difference,
    digest as digest,
    digests as digests,
    fingerprint as fingerprint,
    random_state as random_state,
    repeatable as repeatable,
    same_random_state as same_random_state,
    set_random_state as set_random_state,
)
from confprune_edu.pruning.structure import blockwise as blockwise, by_channel as by_channel
