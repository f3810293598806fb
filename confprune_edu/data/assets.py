"""Shipped files, read safely: no pickle, checksums verified, the fault of a damaged file named."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np

ASSETS = Path(__file__).resolve().parents[1] / "assets"

# Every shipped file: size in bytes and sha256. A file that is remade needs its new line here, and in assets/README.md.
CHECKSUMS = {
    "mnist5k.npz": (833294, "94070d1b085fe6e6249704fd8c8c5a69cfda438896d706c382e582798edd0ae9"),
    "words5k.npz": (38717, "148ae2bd26eed675bd26b7c02982affd64a466bb89a6daf8f76872dfd6aefafc"),
    "word-usage.npz": (7507, "2256d51a92dcbf3851e6859fbeb867648f18554b5ce8b7230a2cadab38752aaf"),
    "mnist-mlp.safetensors": (1066920, "53796b03eb1bca45a6147d24c7b611b8e7cb2dab44cfcd03455c22b23ffb37ed"),
    "mnist-cnn.safetensors": (431308, "8e5e73e6d2b40c8c75b97ac46364f8569db474f20c8a9f487e2c4ba8a74478c4"),
    "mnist-vit.safetensors": (282580, "07b66e3f8062b3085ce5134262c41866350eb625d335788b03be8bdd5c5fc0e5"),
    "mnist-gru.safetensors": (124396, "e2bc54aa4c47278315f03b062f8d952ab625c2252e12c4fbf621ceff79ae3b3c"),
    "words-gru.safetensors": (155102, "89631dc775e6a053c13bb947aaf747916bc3c5a9daccbe15b588a6e3bb19f605"),
    "words-transformer.safetensors": (211150, "748c6b3db9fb291590252066a809f7c6786d008e2ac71cd8ea6857b0316a9f4b"),
    "polyp-unet.safetensors": (2281842, "4d73d98bfea98daea975c755cae31b6370f7b8b1203d92e4b0a654b35a11409e"),
    "mnist-mlp-losses.npz": (210753, "e74b3abea77840719a2ed48d3d1c6f1a4ff04bf07ea082491a980e886ad68ea2"),
    "mnist-cnn-losses.npz": (131488, "ef47e98c130e58f7df9d3523f14bf7c5d281a7be6093396a2e51a47e34fd30f6"),
    "mnist-vit-losses.npz": (255188, "7c7703672c104c29bfcb8ccdbfe0e57d04d425d139af3248b3a823d3dcf5956a"),
    "mnist-gru-losses.npz": (244547, "41d317c78e0b800266e1423d779f97f5261e770b06c4c757fed021e59702bfa2"),
    "words-gru-losses.npz": (155396, "eda55f887c1e079e48154c924603497d62af3896c462c96507e73be32a068def"),
    "words-transformer-losses.npz": (233433, "409650f1a9513bf9227a6274066faf049c5b2d1fb4f6bcc4bc9f0dc3cc5275a9"),
    "tuned-losses.npz": (1613, "68528a6e7c3e142e7a43d87593b4b5b76c3b25a0cb20445e43c23454c34cf322"),
    "polyp-losses.npz": (508892, "6c8e6ea5c25d49ceb2019d7ac64dc6d8d03784b68bca3cda83f61e7850a8d866"),
    "polyp-orders.npz": (11941, "5bf99b1e1726bb4dc9d5c5cd9b2e5539c71ee1bcdf30a939e42e25900e5ed4db"),
    "polyp-channels.npz": (3032, "a4f3a5056e31ac67cb0fc8c69f8f31aeb9987f41248a8778367db014b5074825"),
    "polyp-shifts.npz": (49801, "3078a52415343f0b7f4990cc49dbd2f747b10b91eacb038923531e684106a2ee"),
}


def read_asset(name: str) -> bytes:
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
    if len(content) != size:
        fault = "truncated or another file" if len(content) < size else "another file"
        raise ValueError(f"{path} is {fault}: {len(content)} bytes instead of {size}")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} is altered: its size is right but its sha256 is not the one on record")
    return content


def read_arrays(name: str) -> Any:
    """The arrays of a shipped .npz file by their names, verified as in `read_asset`; each is unpacked when asked for.

    >>> read_arrays("mnist5k.npz")["labels"].shape
    (5000,)
    """
    return np.load(io.BytesIO(read_asset(name)), allow_pickle=False)


def size_and_checksum(path: Path) -> str:
    """What `CHECKSUMS` needs to know of a file that was made again, in words."""
    content = path.read_bytes()
    return f"{path}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}"
