"""Data of the course: digits, words, recorded losses, PolypGen and drawn frames like it.

Importing this package and reading words and recorded losses needs no torch; images come as torch tensors.
"""

from confprune_edu.data.assets import ASSETS as ASSETS, CHECKSUMS as CHECKSUMS, read_asset as read_asset
from confprune_edu.data.digits import (
    mnist as mnist,
    mnist5k as mnist5k,
    without_mnist5k as without_mnist5k,
)
from confprune_edu.data.phantom import phantom_polyps as phantom_polyps
from confprune_edu.data.polyps import PolypFrames as PolypFrames, polypgen as polypgen
from confprune_edu.data.quality import POLYP_SHIFTS as POLYP_SHIFTS, degraded as degraded
from confprune_edu.data.recorded import (
    CLASSIFIER_FAMILIES as CLASSIFIER_FAMILIES,
    CLASSIFIER_LOSSES as CLASSIFIER_LOSSES,
    CLASSIFIERS as CLASSIFIERS,
    MNIST_LOSSES as MNIST_LOSSES,
    POLYP_CHANNELS as POLYP_CHANNELS,
    POLYP_FAMILIES as POLYP_FAMILIES,
    POLYP_LOSSES as POLYP_LOSSES,
    POLYP_ORDERS as POLYP_ORDERS,
    POLYP_SHIFT_LOSSES as POLYP_SHIFT_LOSSES,
    TUNED as TUNED,
    classifier_losses as classifier_losses,
    mnist_losses as mnist_losses,
    polyp_channels as polyp_channels,
    polyp_losses as polyp_losses,
    polyp_orders as polyp_orders,
    polyp_shifts as polyp_shifts,
    tuned_losses as tuned_losses,
)
from confprune_edu.data.words import (
    cmudict as cmudict,
    spell as spell,
    word_usage as word_usage,
    words5k as words5k,
)
