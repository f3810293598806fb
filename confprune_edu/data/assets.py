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
    "mnist-mlp.safetensors": (1066920, "53796b03eb1bca45a6147d24c7b611b8e7cb2dab44cfcd03455c22b23ffb37ed"),
    "mnist-cnn.safetensors": (431308, "8e5e73e6d2b40c8c75b97ac46364f8569db474f20c8a9f487e2c4ba8a74478c4"),
    "mnist-vit.safetensors": (282580, "07b66e3f8062b3085ce5134262c41866350eb625d335788b03be8bdd5c5fc0e5"),
    "mnist-gru.safetensors": (124396, "9ac1562c6d3cd2b85789424d16fe40b8798657ad016f479b1ae1faef7602340d"),
    "words-gru.safetensors": (155102, "89631dc775e6a053c13bb947aaf747916bc3c5a9daccbe15b588a6e3bb19f605"),
    "words-transformer.safetensors": (211150, "748c6b3db9fb291590252066a809f7c6786d008e2ac71cd8ea6857b0316a9f4b"),
    "polyp-unet.safetensors": (2281842, "4d73d98bfea98daea975c755cae31b6370f7b8b1203d92e4b0a654b35a11409e"),
    "mnist-mlp-losses.npz": (193604, "317b81c6a348011ed81d49829857ebde5e124201bd72ce6934c3c327fb8b5d49"),
    "mnist-cnn-losses.npz": (66017, "777841cfb14bed2c34b0131810613c4a318f8dd16419a8fc7795eede27397acb"),
    "mnist-vit-losses.npz": (119082, "9c15ac159cb487988c5ab7f3ecec73905fbf661260fb9841ed7d04e63d9d0949"),
    "mnist-gru-losses.npz": (191517, "4b875c66126aacd7082dd2942b48091962f2bb02a8f18f1362880013c659aaef"),
    "words-gru-losses.npz": (93983, "37a992f7875109148ea20d9589a5bdeb299a9d00ce649a87542c28c9f2f30781"),
    "words-transformer-losses.npz": (157786, "e53199f0f6ca4fe84d175dabeccbf976617aa8cbbb6cc6b584be30a8513155d2"),
    "polyp-losses.npz": (508892, "6c8e6ea5c25d49ceb2019d7ac64dc6d8d03784b68bca3cda83f61e7850a8d866"),
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
