"""The networks of the course, their shipped weights, and how they were trained (`models.training`)."""

from confprune_edu.models.networks import (
    CNN as CNN,
    MLP as MLP,
    LetterGRU as LetterGRU,
    LetterTransformer as LetterTransformer,
    RowGRU as RowGRU,
    UNet as UNet,
    VisionTransformer as VisionTransformer,
    load as load,
)
from confprune_edu.models.training import trained_on as trained_on
