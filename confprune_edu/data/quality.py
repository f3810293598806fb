"""Frames of bad quality: out of focus, dark, compressed; each with a dial that begins at 0, the frame as it is."""

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from confprune_edu import _checks

if TYPE_CHECKING:
    from torch import Tensor

# of the recorded losses, `data.polyp_shifts`: the strengths beyond 0
POLYP_SHIFTS: dict[str, tuple[float, ...]] = {
    "out of focus": (1, 2, 4, 6),
    "dark": (0.4, 0.6, 0.8, 0.9),
    "compression": (50, 80, 90, 95),
}


def degraded(images: "Tensor", shift: str, strength: float) -> "Tensor":
    """Frames as a worse instrument would give them; strength 0 leaves them as they are.

    Parameters
    ----------
    images : float32 tensor, shape (n, 3, height, width), in [0, 1]
    shift : str
        "out of focus": blurred, `strength` is the standard deviation in pixels; "dark": `strength` is the share of the
        light that is lost; "compression": stored as JPEG, `strength` is 100 - quality.
    strength : float
        At least 0; less than 1 for "dark", less than 100 for "compression".

    Returns
    -------
    float32 tensor of the shape of `images`, in [0, 1].

    Raises
    ------
    TypeError, ValueError
        Another shift, or a strength that is no number or outside its range.

    >>> from confprune_edu.data import phantom_polyps
    >>> frames = phantom_polyps(2, seed=0, size=32).images
    >>> [round(float(degraded(frames, shift, 0.5).sum() / frames.sum()), 2) for shift in ("dark", "out of focus")]
    [0.5, 1.0]
    """
    _checks.choice(shift, "shift", tuple(POLYP_SHIFTS))
    if strength == 0:
        return images.clone()
    strength = _checks.number(strength, "strength", 0, {"out of focus": np.inf, "dark": 1, "compression": 100}[shift])
    if shift == "dark":
        return (1 - strength) * images
    import torch

    pixels = images.numpy()
    if shift == "compression":
        return torch.from_numpy(np.stack([_jpeg(image, 100 - strength) for image in pixels]))
    from scipy.ndimage import gaussian_filter

    return torch.from_numpy(gaussian_filter(pixels, (0, 0, strength, strength)))


def _jpeg(image: np.ndarray, quality: float) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray((255 * image.transpose(1, 2, 0)).round().astype(np.uint8)).save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file), dtype=np.float32).transpose(2, 0, 1) / 255
