"""Phantom polyps: drawn frames that imitate the colonoscopies of six centres, with exact masks; no data needed."""

from collections.abc import Iterable

import numpy as np

from confprune_edu import _checks
from confprune_edu.data.centres import CENTRES
from confprune_edu.data.polyps import PolypFrames, some_centres


def phantom_polyps(n: int, *, seed: int, size: int = 128, centres: Iterable[int] | None = None) -> PolypFrames:
    """Drawn frames that imitate colonoscopy, with exact masks, in the format of `data.polypgen`.

    Six centres differ as the real ones do: colour cast, contrast, blur, borders, size of the polyps, share of frames
    without any. Frames of one video show one polyp and one bowel from slightly different places.

    Parameters
    ----------
    n : int, n >= 1
        Frames; the centres take turns. A frame depends on `seed`, its centre and its number there, not on `n`.
    seed : int, seed >= 0
        One seed, one machine, one result; the global random state stays as it was.
    size : int, 32 to 256
        Height and width.
    centres : iterable of int, optional
        Which of the centres 1..6 (default: all).

    Returns
    -------
    PolypFrames of n frames, named "phantom_C3_00012", of videos named "P3/0001".

    Raises
    ------
    TypeError, ValueError
        `n`, `seed`, `size` or `centres` of another type or range.

    >>> frames = phantom_polyps(12, seed=0, size=64)
    >>> frames.images.shape, frames.centre.tolist(), frames.videos[:2], frames.names[7]
    (torch.Size([12, 3, 64, 64]), [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6], ('P1/0000', 'P2/0000'), 'phantom_C2_00001')
    """
    from confprune_edu.data.video import Video  # loads scipy.ndimage

    n, seed = _checks.positive_int(n, "n"), _checks.whole(seed, "seed", 0, np.inf)
    size = _checks.whole(size, "size", 32, 256)
    allowed = np.array(some_centres(CENTRES if centres is None else centres), dtype=np.int64)
    centre, number = np.resize(allowed, n), np.arange(n) // len(allowed)
    video = number // np.array([CENTRES[c].frames for c in centre.tolist()])
    images, masks = np.empty((n, 3, size, size), np.float32), np.empty((n, 1, size, size), bool)
    for c, v in sorted(set(zip(centre.tolist(), video.tolist(), strict=True))):
        drawn = Video(np.random.default_rng([seed, c, v]), c)
        for i in np.flatnonzero((centre == c) & (video == v)):
            image, mask = drawn.frame(np.random.default_rng([seed, c, v, number[i]]), size)
            images[i], masks[i, 0] = image.transpose(2, 0, 1), mask
    return _frames(images, masks, centre, video, number)


def _frames(images, masks, centre, video, number):
    import torch

    videos = tuple(f"P{c}/{v:04d}" for c, v in zip(centre, video, strict=True))
    first = {key: group for group, key in enumerate(dict.fromkeys(videos))}
    return PolypFrames(
        images=torch.from_numpy(images),
        masks=torch.from_numpy(masks),
        centre=centre,
        group=np.array([first[key] for key in videos], np.int64),
        names=tuple(f"phantom_C{c}_{k:05d}" for c, k in zip(centre, number, strict=True)),
        videos=videos,
    )
