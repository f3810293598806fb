"""Frames of colonoscopy with masks of polyps: PolypGen, read from the official download.

Ali et al., *A multi-centre polyp detection and segmentation dataset for generalisability assessment*, Scientific Data
10:75 (2023), doi 10.1038/s41597-023-01981-y; CC BY 4.0. Images come as torch tensors; torch is imported when they do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from confprune_edu import _checks

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "PolypGen2021_MultiCenterData_v3"
CENTRES = range(1, 7)
READER_VERSION = "2"  # part of the cache's key: to be raised when the same files give other arrays


@dataclass(frozen=True, eq=False)
class PolypFrames:
    """Frames of colonoscopy with their masks; `frames[which]`, for a mask, a slice or indices, is a part of them.

    Attributes
    ----------
    images : float32 tensor, shape (N, 3, size, size), in [0, 1]
    masks : bool tensor, shape (N, 1, size, size)
        True inside a polyp; a mask may be empty.
    centre : int64 array, shape (N,), 1..6
    group : int64 array, shape (N,)
        Frames of one number may show the same polyp: keep them on one side of a split.
    names : tuple of str, length N
        File names.
    videos : tuple of str, length N
        What the groups are called, "C1/176OLCV1" say: one name a number.

    >>> from confprune_edu.data import phantom_polyps
    >>> frames = phantom_polyps(6, seed=0, size=32, centres=[3, 6])
    >>> of_c6 = frames[frames.centre == 6]
    >>> len(of_c6), of_c6.centre.tolist(), tuple(of_c6.masks.shape)
    (3, [6, 6, 6], (3, 1, 32, 32))
    """

    images: Tensor
    masks: Tensor
    centre: NDArray[np.int64]
    group: NDArray[np.int64]
    names: tuple[str, ...]
    videos: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, which: Any) -> PolypFrames:
        rows = np.array(np.arange(len(self))[which], ndmin=1)  # a copy: torch refuses negative strides
        names, videos = (tuple(part[i] for i in rows) for part in (self.names, self.videos))
        return PolypFrames(self.images[rows], self.masks[rows], self.centre[rows], self.group[rows], names, videos)


def polypgen(
    root: str | Path,
    *,
    size: int = 128,
    centres: Iterable[int] | None = None,
    strict: bool = True,
    cache: str | Path | bool = True,
) -> PolypFrames:
    """The single frames of PolypGen with their masks, resized, from a folder of the official download.

    Videos: in centres C1 and C4 the name of a frame begins with that of its video. Elsewhere it carries only a running
    number, and neighbours often show the same polyp: ten consecutive numbers (0..9, 10..19, ...) count as one video.

    Parameters
    ----------
    root : str or Path
        The folder PolypGen2021_MultiCenterData_v3, or the one that holds it (nested twice, as some archives unpack).
    size : int
        Height and width of the result; images are interpolated, masks take the nearest pixel of grey level > 127.
    centres : iterable of int in 1..6, optional
        Default: all that are there.
    strict : bool
        Refuse a folder with a frame that cannot be used (mask or image missing, damaged, of unequal size); False
        skips such frames, with a warning that names them.
    cache : bool, str or Path
        Folder that keeps the resized arrays, by a hash of size and file contents. True: $CONFPRUNE_CACHE, else
        ~/.cache/confprune_edu; False: none. Nothing is kept where a frame was skipped.

    Returns
    -------
    PolypFrames, by centre, in the order of the file names.

    Raises
    ------
    FileNotFoundError
        No such data in `root`, or not of a centre that was asked for.
    ValueError
        A frame that cannot be used, named; `size` or `centres` out of range.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     for kind in ("images_C3", "masks_C3"):
    ...         Path(root, "data_C3", kind).mkdir(parents=True)
    ...     Image.new("RGB", (100, 80)).save(Path(root, "data_C3", "images_C3", "C3_0001.jpg"))
    ...     Image.new("L", (100, 80), 255).save(Path(root, "data_C3", "masks_C3", "C3_0001_mask.jpg"))
    ...     frames = polypgen(root, size=32, cache=False)
    >>> tuple(frames.images.shape), bool(frames.masks.all()), frames.videos
    ((1, 3, 32, 32), True, ('C3/0000',))
    """
    size = _checks.positive_int(size, "size")
    pairs, problems = _pairs(*_centre_folders(_checks.path(root, "root"), centres))
    file = _cache_file(cache, size, pairs) if not problems else None
    stored = _read_cache(file, (len(pairs), size))
    if stored is None:
        with ThreadPoolExecutor() as pool:
            read = list(pool.map(lambda pair: _read(pair[1], pair[2], size), pairs))
        problems += [one for one in read if isinstance(one, str)]
        _refuse_or_warn(problems, strict)
        kept = [pair for pair, one in zip(pairs, read, strict=True) if not isinstance(one, str)]
        good = [one for one in read if not isinstance(one, str)]
        if not good:
            raise ValueError(f"{root} holds no frame that can be used")
        stored = {"images": np.stack([image for image, _ in good]), "masks": np.stack([mask for _, mask in good])}
        if not problems:
            _write_cache(file, stored)
        pairs = kept
    return _frames(stored, [centre for centre, *_ in pairs], [image.name for _, image, _ in pairs])


def _frames(stored: dict[str, NDArray[Any]], centres: list[int], names: list[str]) -> PolypFrames:
    import torch

    videos = tuple(_video(centre, name) for centre, name in zip(centres, names, strict=True))
    return PolypFrames(
        images=torch.from_numpy(stored["images"]).float().div_(255),
        masks=torch.from_numpy(stored["masks"])[:, None].bool(),
        centre=np.array(centres, dtype=np.int64),
        group=np.unique(np.array(videos), return_inverse=True)[1].reshape(-1).astype(np.int64),
        names=tuple(names),
        videos=videos,
    )


def _video(centre: int, name: str) -> str:
    stem = Path(name).stem
    if centre in (1, 4):
        return f"C{centre}/{stem.split('_')[0]}"
    number = re.search(r"(\d+)\D*$", stem)
    return f"C{centre}/{int(number[1]) // 10:04d}" if number else f"C{centre}/{stem}"


def _centre_folders(root: Path, centres: Iterable[int] | None) -> tuple[Path, list[int]]:
    """The folder that holds data_C1, ... and the centres to read there."""
    wanted = None if centres is None else some_centres(centres)
    for folder in (root, root / FOLDER, root / FOLDER / FOLDER):
        found = [c for c in CENTRES if (folder / f"data_C{c}").is_dir()]
        if not found:
            continue
        if absent := [c for c in wanted or found if c not in found]:
            raise FileNotFoundError(f"{folder} lacks data_C{absent[0]}; it holds the centres {found}")
        return folder, wanted or found
    raise FileNotFoundError(f"{root} is not PolypGen: it holds neither {FOLDER} nor data_C1 to data_C6")


def some_centres(centres: Iterable[int]) -> list[int]:
    """`centres`, some of 1..6, each once and in order; TypeError or ValueError where they are something else.

    >>> some_centres([4, 1, 4])
    [1, 4]
    """
    if not isinstance(centres, Iterable):
        raise TypeError(f"centres must be several of 1..6, got {centres!r}")
    given = list(centres)
    if not given or not all(isinstance(c, Integral) and not isinstance(c, bool) and c in CENTRES for c in given):
        raise ValueError(f"centres must be some of 1..6, got {given}")
    return sorted({int(c) for c in given})


def _pairs(folder: Path, centres: list[int]) -> tuple[list[tuple[int, Path, Path]], list[str]]:
    """(centre, image, mask) for each frame, and a sentence about each file that has no partner."""
    pairs: list[tuple[int, Path, Path]] = []
    problems: list[str] = []
    for centre in centres:
        images, masks = (_jpegs(folder / f"data_C{centre}" / f"{kind}_C{centre}") for kind in ("images", "masks"))
        by_stem: dict[str, Path] = {}
        for mask in masks:
            first = by_stem.setdefault(re.sub("_mask$", "", mask.stem, flags=re.IGNORECASE), mask)
            if first is not mask:
                problems.append(f"{mask} is a second mask, beside {first.name}")
        for image in images:
            stem = image.stem if image.stem in by_stem else image.stem.rstrip("_")
            if stem in by_stem:
                pairs.append((centre, image, by_stem.pop(stem)))
            else:
                problems.append(f"{image} has no mask")
        problems += [f"{mask} has no image" for mask in by_stem.values()]
    return pairs, problems


def _jpegs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing")
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in (".jpg", ".jpeg") and not f.name.startswith("."))


def _read(image: Path, mask: Path, size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | str:
    """The resized image (3, size, size) and mask (size, size), or a sentence that says why there is none."""
    try:
        with Image.open(image) as opened:
            colours = opened.convert("RGB")
    except OSError as problem:
        return f"{image} cannot be read ({problem})"
    try:
        with Image.open(mask) as opened:
            inside = Image.fromarray(np.asarray(opened.convert("L")) > 127)
    except OSError as problem:
        return f"{mask} cannot be read ({problem})"
    if colours.size != inside.size:
        return f"{mask} is of another size than its image: {inside.size} and {colours.size}"
    resized = np.asarray(colours.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    return np.ascontiguousarray(resized), np.asarray(inside.resize((size, size), Image.Resampling.NEAREST))


def _refuse_or_warn(problems: list[str], strict: bool) -> None:
    if not problems:
        return
    if strict:
        some = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise ValueError(f"{len(problems)} files cannot be used (strict=False skips and names them): {some}")
    warnings.warn(f"skipped {len(problems)} files that cannot be used: {'; '.join(problems)}", stacklevel=3)


def _cache_file(cache: str | Path | bool, size: int, pairs: list[tuple[int, Path, Path]]) -> Path | None:
    """Where the arrays of these files at this size are kept; None where a file cannot be read, as `_read` will say."""
    if cache is False:
        return None
    try:
        folder = os.environ.get("CONFPRUNE_CACHE", Path.home() / ".cache" / "confprune_edu") if cache is True else cache
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(_digest_of_file, [file for _, *both in pairs for file in both]))
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    key = hashlib.sha256(f"{READER_VERSION} {size} ".encode() + b"".join(digests))
    return Path(folder, f"polypgen-{size}-{key.hexdigest()[:32]}.safetensors")


def _digest_of_file(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


def digest(arrays: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Safetensors notices a file cut short, not a changed byte."""
    key = hashlib.sha256(arrays["images"].data)
    key.update(arrays["masks"].data)
    return np.frombuffer(key.digest(), np.uint8)


def _read_cache(file: Path | None, shape: tuple[int, int]) -> dict[str, NDArray[Any]] | None:
    """The kept arrays of `shape` (frames, size), or None where there are none, or others than were written."""
    if file is None or not os.path.isfile(file):  # unlike Path.is_file, False in a folder that may not be read
        return None
    import safetensors.numpy  # here: a browser, in which some lessons run, lacks it

    n, size = shape
    try:
        arrays = safetensors.numpy.load_file(file)
        if arrays["images"].shape != (n, 3, size, size) or arrays["masks"].shape != (n, size, size):
            raise ValueError("other shapes")
        if not np.array_equal(arrays.pop("sha256"), digest(arrays)):
            raise ValueError("other contents than were written")
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as problem:
        warnings.warn(f"{file} is damaged and is made again ({problem})", stacklevel=3)
        return None
    return arrays


def _write_cache(file: Path | None, arrays: dict[str, NDArray[Any]]) -> None:
    if file is None:
        return
    import safetensors.numpy

    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file({**arrays, "sha256": digest(arrays)}, part)
        os.replace(part, file)
    except (OSError, safetensors.SafetensorError) as problem:  # the latter where the folder exists but is read-only
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        warnings.warn(f"the frames are not kept for the next time: {problem}", stacklevel=3)
