"""The networks of the course, their shipped weights, and how they were trained."""

from confprune_edu.models.networks import MLP, NETWORKS, UNet, load
from confprune_edu.models.training import quality, train_mnist_mlp, train_polyp_unet, trained_on

__all__ = ["MLP", "NETWORKS", "UNet", "load", "quality", "train_mnist_mlp", "train_polyp_unet", "trained_on"]
