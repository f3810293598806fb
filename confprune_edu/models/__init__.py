"""The networks of the course, their shipped weights, and how they were trained."""

from confprune_edu.models.networks import MLP as MLP, NETWORKS as NETWORKS, UNet as UNet, load as load
from confprune_edu.models.training import (
    quality as quality,
    train_mnist_mlp as train_mnist_mlp,
    train_polyp_unet as train_polyp_unet,
    trained_on as trained_on,
)
