"""What test_polyps.py leaves open: odd pairs, borders of groups, what the cache depends on, the real numbers."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from confprune_edu import data
from confprune_edu.data import polyps


def draw(root, centre, stem, *, ending=".jpg", mask=None, size=(24, 20)):
    """An image of one grey and a mask whose left half is inside; returns both paths. `mask` is an image of its own."""
    paths = []
    inside = np.zeros(size[::-1], np.uint8)
    inside[:, : size[0] // 2] = 255
    for kind, picture, name in (
        ("images", Image.new("RGB", size, (200, 100, 50)), stem),
        ("masks", mask or Image.fromarray(inside), stem.rstrip("_") + "_mask"),
    ):
        folder = root / f"data_C{centre}" / f"{kind}_C{centre}"
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{name}{ending}", format="PNG" if picture.mode in "1P" else "JPEG")
        paths.append(folder / f"{name}{ending}")
    return paths


@pytest.fixture
def root(tmp_path):
    return tmp_path / polyps.FOLDER


def load(root, **options):
    return data.polypgen(root, **{"size": 8, "cache": False, **options})


def test_ten_numbers_are_a_group_and_a_centre_ends_it(root):
    for stem in ("EndoCV2021_000009", "EndoCV2021_000010", "EndoCV2021_000019", "EndoCV2021_000020"):
        draw(root, 2, stem)
        draw(root, 5, stem)
    frames = load(root)
    assert frames.videos == tuple(f"C{c}/{k}" for c in (2, 5) for k in ("0000", "0001", "0001", "0002"))
    assert frames.group.tolist() == [0, 1, 1, 2, 3, 4, 4, 5] and frames.group.dtype == np.int64


def test_a_video_is_named_alike_whatever_else_is_loaded(root):
    for centre in (1, 4):
        draw(root, centre, "7_x_1")
        draw(root, centre, "8_x_1")
    every, some = load(root), load(root, centres=iter(np.array([4])))
    assert every.videos[2:] == some.videos == ("C4/7", "C4/8")
    assert some.group.tolist() == [0, 1] and every.group.tolist() == [0, 1, 2, 3]
    assert load(root, centres=[4, 1, 4]).names == every.names and every.centre.tolist() == [1, 1, 4, 4]


@pytest.mark.parametrize("mode", ["1", "P"])
def test_masks_of_one_bit_and_with_a_palette(root, mode):
    inside = np.zeros((20, 24), np.uint8)
    inside[:, :12] = 255
    draw(root, 3, "a_1", mask=Image.fromarray(inside).convert(mode))
    assert load(root).masks[0, 0].tolist() == [[True] * 4 + [False] * 4] * 8


@pytest.mark.parametrize(("grey", "inside"), [(127, False), (128, True)])
def test_a_mask_begins_above_127(root, grey, inside):
    draw(root, 3, "a_1", mask=Image.new("L", (24, 20), grey))  # one grey: JPEG keeps it exactly
    assert load(root).masks.unique().tolist() == [inside]


@pytest.mark.parametrize("ending", [".jpeg", ".JPEG", ".Jpg"])
def test_every_ending_of_a_jpeg_is_read(root, ending):
    draw(root, 3, "a_1", ending=ending)
    assert load(root).names == (f"a_1{ending}",)


def test_masks_in_capitals_are_found(root):
    _, mask = draw(root, 3, "A_1")
    mask.rename(mask.with_name("A_1_MASK.JPG"))
    assert load(root).names == ("A_1.jpg",)


def test_an_exact_name_wins_over_one_with_an_underscore(root):
    _, mask = draw(root, 3, "a_1")
    extra = mask.parents[1] / "images_C3" / "a_1_.jpg"
    Image.new("RGB", (24, 20)).save(extra)
    with pytest.raises(ValueError, match=r"a_1_\.jpg has no mask"):
        load(root)
    mask.with_name("a_1__mask.jpg").write_bytes(mask.read_bytes())
    assert load(root).names == ("a_1.jpg", "a_1_.jpg")


def test_a_centre_without_its_folder_of_masks_is_refused(root):
    _, mask = draw(root, 3, "a_1")
    mask.unlink()
    mask.parent.rmdir()
    with pytest.raises(FileNotFoundError, match="masks_C3 is missing"):
        load(root)


def test_many_problems_are_counted(root):
    draw(root, 3, "good_99")
    for k in range(12):
        draw(root, 3, f"a_{k:02d}")[1].unlink()
    with pytest.raises(ValueError, match=r"^12 files.*a_00.*and 2 more"):
        load(root)
    with pytest.raises(ValueError, match=r"a_09\.jpg has no mask; and 2 more$"):  # ten are named
        load(root)
    with pytest.warns(UserWarning, match=r"^skipped 12 files.*a_00.*a_11") as told:
        assert load(root, strict=False).names == ("good_99.jpg",)
    assert len(told) == 1  # which names them all


def test_nothing_that_can_be_used_is_an_error_even_when_bad_frames_are_skipped(root):
    draw(root, 3, "a_1")[0].write_bytes(b"")
    with pytest.warns(UserWarning, match="skipped 1"), pytest.raises(ValueError, match="no frame"):
        load(root, strict=False)


def test_a_file_that_is_cut_anywhere_is_refused(root):
    image, _ = draw(root, 3, "a_1")
    whole = image.read_bytes()
    for left in [*range(0, len(whole), 37), len(whole) - 1]:
        image.write_bytes(whole[:left])
        with pytest.raises(ValueError, match=r"a_1\.jpg cannot be read"):
            load(root)


def test_the_cache_depends_on_masks_and_on_which_files_there_are(root, tmp_path):
    kept = tmp_path / "kept"
    draw(root, 3, "a_1")
    draw(root, 3, "b_2")
    load(root, cache=kept)
    draw(root, 3, "a_1", mask=Image.new("L", (24, 20), 255))
    assert load(root, cache=kept).masks[0].all()
    draw(root, 3, "c_3")
    assert len(load(root, cache=kept)) == 3
    for kind, stem in (("images", "a_1"), ("masks", "a_1_mask")):
        (root / "data_C3" / f"{kind}_C3" / f"{stem}.jpg").unlink()
    frames = load(root, cache=kept)
    assert frames.names == ("b_2.jpg", "c_3.jpg") and not frames.masks[0].all()


def test_another_reader_does_not_trust_an_older_cache(root, tmp_path, monkeypatch):
    draw(root, 3, "a_1")
    load(root, cache=tmp_path / "kept")
    monkeypatch.setattr(polyps, "READER_VERSION", "another")
    load(root, cache=tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2  # and no unfinished file


def test_a_result_may_be_changed_without_changing_the_next(root, tmp_path):
    draw(root, 3, "a_1")
    for _ in range(2):
        frames = load(root, cache=tmp_path / "kept")
        assert frames.images.max() > 0.5 and frames.masks.any()
        frames.images.zero_()
        frames.masks.zero_()


def test_importing_the_data_imports_neither_torch_nor_what_draws():
    code = "import sys, confprune_edu.data; print({'torch', 'scipy.ndimage'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")


# The 1,537 real frames


@pytest.fixture(scope="module")
def folder():
    if "CONFPRUNE_DATA" not in os.environ:
        pytest.skip("needs the environment variable CONFPRUNE_DATA: a folder that contains polypgen_256/")
    return Path(os.environ["CONFPRUNE_DATA"], "polypgen_256")


@pytest.fixture(scope="module")
def real(folder):
    return data.polypgen(folder, cache=False)


def test_the_real_empty_masks_are_those_on_record(real):
    empty = ~real.masks.flatten(1).any(1).numpy()
    # 31 of the original masks of C2 are empty; that of EndoCV2021_001010.jpg has two pixels, which the resizing drops.
    assert [int(empty[real.centre == c].sum()) for c in range(1, 7)] == [5, 32, 1, 81, 2, 5]
    assert empty[real.names.index("EndoCV2021_001010.jpg")]


def test_the_real_polyps_are_as_large_as_in_the_original_masks(real, folder):
    with (folder / "manifest.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == sorted(real.names)
    assert [f"C{c}" for c in real.centre] == [rows[name]["centre"] for name in real.names]
    want = np.array([float(rows[name]["foreground_fraction"]) for name in real.names])
    got = real.masks.float().mean((1, 2, 3)).numpy()
    # The originals were resized twice to the nearest pixel: each time the outline moves by up to half a pixel of 1/128.
    assert np.abs(got - want).max() < 0.005 and abs((got - want).mean()) < 1e-4


def test_the_real_frames_are_resized_as_the_rule_says(real, folder):
    for i in range(0, len(real), 97):
        image = next(folder.rglob(f"images_C{real.centre[i]}/{real.names[i]}"))
        with Image.open(image) as opened:
            want = np.asarray(opened.convert("RGB").resize((128, 128), Image.Resampling.BILINEAR))
        assert torch.equal((real.images[i] * 255).round().byte(), torch.tensor(want).permute(2, 0, 1))


def test_the_real_duplicates_are_in_one_group(real):
    number = {name: i for i, name in enumerate(real.names)}
    for one, other in ((140, 141), (284, 285)):
        i, j = (number[f"EndoCV2021_C5_50000{k}.jpg"] for k in (one, other))
        assert torch.equal(real.images[i], real.images[j]) and real.videos[i] == real.videos[j]


def test_the_real_names_are_unique_and_a_group_is_a_video(real):
    assert len(set(real.names)) == 1537
    pairs = set(zip(real.group.tolist(), real.videos, strict=True))
    assert len(pairs) == len(set(real.group.tolist())) == len(set(real.videos))
    assert all(video.startswith(f"C{centre}/") for video, centre in zip(real.videos, real.centre, strict=True))


# What the patch of the loader mends


def test_a_changed_byte_in_the_cache_is_noticed(root, tmp_path):
    draw(root, 3, "a_1")
    first = load(root, cache=tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    whole = file.read_bytes()
    for place in (-1, -100, -200):  # arrays and digest lie at the end
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        with pytest.warns(UserWarning, match="damaged"):
            again = load(root, cache=tmp_path / "kept")
        assert torch.equal(first.images, again.images) and torch.equal(first.masks, again.masks)
        assert file.read_bytes() == whole


@pytest.mark.parametrize(
    ("images", "masks", "signed"),
    [
        ((1, 3, 8, 8), (1, 8, 8), False),
        ((1, 3, 8, 8), None, False),
        ((2, 3, 8, 8), (2, 8, 8), True),
        ((1, 3, 4, 4), (1, 8, 8), True),
        ((1, 3, 8, 8), (1, 4, 4), True),
    ],
)
def test_a_cache_with_other_arrays_is_made_again(root, tmp_path, images, masks, signed):
    draw(root, 3, "a_1")
    first = load(root, cache=tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    arrays = {"images": np.zeros(images, np.uint8)} | ({"masks": np.zeros(masks, bool)} if masks else {})
    safetensors.numpy.save_file(arrays | ({"sha256": polyps.digest(arrays)} if signed else {}), file)
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(first.images, load(root, cache=tmp_path / "kept").images)


def test_a_read_only_cache_folder_does_not_stop_the_reader(root, tmp_path, monkeypatch):
    def refuse(*_):  # what safetensors raises there, which is no OSError; root may write everywhere
        raise safetensors.SafetensorError("Permission denied")

    draw(root, 3, "a_1")
    monkeypatch.setattr(safetensors.numpy, "save_file", refuse)
    with pytest.warns(UserWarning, match="not kept"):
        assert len(load(root, cache=tmp_path / "kept")) == 1


def test_an_unfinished_cache_is_taken_away(root, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no space left")

    draw(root, 3, "a_1")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.warns(UserWarning, match="not kept"):
        load(root, cache=tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize("how", ["dangling link", "folder"])
def test_a_file_that_cannot_be_opened_is_skipped_with_a_cache_too(root, tmp_path, how):
    draw(root, 3, "b_2")
    image, _ = draw(root, 3, "a_1")
    image.unlink()
    if how == "folder":
        image.mkdir()
    else:
        image.symlink_to(tmp_path / "nowhere.jpg")
    with pytest.warns(UserWarning, match=r"skipped 1 file.*a_1\.jpg"):
        assert load(root, strict=False, cache=tmp_path / "kept").names == ("b_2.jpg",)
    with pytest.raises(ValueError, match=r"a_1\.jpg"):
        load(root, cache=tmp_path / "kept")


@pytest.mark.parametrize(
    ("centres", "error"), [(3, TypeError), ([3.0], ValueError), ([True], ValueError), ([1, "a"], ValueError)]
)
def test_centres_of_another_type_are_refused(root, centres, error):
    draw(root, 1, "a_1")
    draw(root, 3, "a_1")
    with pytest.raises(error, match="centres must be"):
        load(root, centres=centres)


def test_frames_can_be_turned_round(root):
    draw(root, 3, "a_1")
    draw(root, 3, "b_2")
    assert load(root)[::-1].names == ("b_2.jpg", "a_1.jpg")


def test_two_masks_of_one_image_are_a_problem(root):
    _, mask = draw(root, 3, "a_1")
    mask.with_suffix(".jpeg").write_bytes(mask.read_bytes())
    with pytest.raises(ValueError, match=r"a_1_mask\.jpg is a second mask, beside a_1_mask\.jpeg"):
        load(root)
