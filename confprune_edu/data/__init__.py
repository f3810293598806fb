"""Data of the course: digits, recorded losses, PolypGen and drawn frames like it.

Importing this package and reading recorded losses needs no torch; images come as torch tensors.
"""

from confprune_edu.data.assets import ASSETS, CHECKSUMS, read_asset
from confprune_edu.data.digits import MNIST_MD5, mnist, mnist5k, without_mnist5k
from confprune_edu.data.phantom import phantom_polyps
from confprune_edu.data.polyps import PolypFrames, polypgen
from confprune_edu.data.recorded import (
    MNIST_LOSSES,
    POLYP_FAMILIES,
    POLYP_LOSSES,
    PolypLosses,
    mnist_losses,
    polyp_losses,
)

__all__ = [
    "ASSETS",
    "CHECKSUMS",
    "MNIST_LOSSES",
    "MNIST_MD5",
    "POLYP_FAMILIES",
    "POLYP_LOSSES",
    "PolypFrames",
    "PolypLosses",
    "mnist",
    "mnist5k",
    "mnist_losses",
    "phantom_polyps",
    "polyp_losses",
    "polypgen",
    "read_asset",
    "without_mnist5k",
]
