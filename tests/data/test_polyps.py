"""The PolypGen loader on folders with every trap of the official download, and on the real frames where they are."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from confprune_edu import data, models
from confprune_edu.data import polyps


def draw(folder, centre, name, *, mode="L", size=(60, 40), mask_name=None, box=(6, 4, 30, 20)):
    """A grey ramp with a white box in its mask, both JPEG; returns the paths of image and mask."""
    images, masks = (folder / f"data_C{centre}" / f"{kind}_C{centre}" for kind in ("images", "masks"))
    for one in (images, masks):
        one.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 255, size[0] * size[1]).reshape(size[1], size[0]).astype(np.uint8)
    image, mask = images / name, masks / (mask_name or f"{Path(name).stem}_mask.jpg")
    Image.fromarray(ramp).convert("RGB").save(image, quality=95)
    inside = np.zeros((size[1], size[0]), np.uint8)
    if box:
        inside[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(inside).convert(mode).save(mask, quality=60)  # rings: grey levels between 0 and 255
    return image, mask


@pytest.fixture
def folder(tmp_path):
    """A small PolypGen with the names, modes and by-catch of the real one."""
    root = tmp_path / "download" / polyps.FOLDER
    draw(root, 1, "176OLCV1_100H0739.jpg", mode="RGB")
    draw(root, 1, "176OLCV1_100H0745.jpg", size=(30, 90))
    draw(root, 1, "100H0050.jpg")
    draw(root, 3, "C3_EndoCV2021_00489_.jpg", mask_name="C3_EndoCV2021_00489_mask.jpg")
    draw(root, 3, "C3_EndoCV2021_00490.JPG")
    draw(root, 4, "31_endocv2021_positive_329 2.jpg")
    draw(root, 4, "31_endocv2021_negative_7.jpg", box=None)
    (root / "data_C3" / "images_C3" / ".DS_Store").write_bytes(b"x")
    (root / "data_C3" / "images_C3" / "._C3_EndoCV2021_00490.jpg").write_bytes(b"x")
    (root / "data_C3" / "images_C3" / "Thumbs.db").write_bytes(b"x")
    for extra in ("data_C1/bbox_C1", "data_C1/bbox_image_C1", "sequenceData", "imagesAll_positive"):
        (root / extra).mkdir(parents=True)
        (root / extra / "other.jpg").write_bytes(b"x")
    return root


def load(root, **options):
    return data.polypgen(root, **{"size": 32, "cache": False, **options})


def test_every_pair_is_found_in_order(folder):
    frames = load(folder)
    assert frames.names == (
        "100H0050.jpg",
        "176OLCV1_100H0739.jpg",
        "176OLCV1_100H0745.jpg",
        "C3_EndoCV2021_00489_.jpg",
        "C3_EndoCV2021_00490.JPG",
        "31_endocv2021_negative_7.jpg",
        "31_endocv2021_positive_329 2.jpg",
    )
    assert frames.centre.tolist() == [1, 1, 1, 3, 3, 4, 4]
    assert frames.videos == ("C1/100H0050", "C1/176OLCV1", "C1/176OLCV1", "C3/0048", "C3/0049", "C4/31", "C4/31")
    assert [frames.group.tolist().index(g) for g in frames.group] == [0, 1, 1, 3, 4, 5, 5]
    assert (frames.images.shape, frames.images.dtype) == ((7, 3, 32, 32), torch.float32)
    assert (frames.masks.shape, frames.masks.dtype) == ((7, 1, 32, 32), torch.bool)
    assert 0 <= frames.images.min() < 0.05 and 0.95 < frames.images.max() <= 1


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_root_may_be_nested(folder, depth):
    root = folder
    if depth == 2:
        inner = folder.parent / "outer" / polyps.FOLDER
        inner.mkdir(parents=True)
        folder.rename(inner / polyps.FOLDER)
        root = inner.parent
    elif depth == 1:
        root = folder.parent
    assert len(load(root)) == 7


def test_masks_are_thresholded_in_the_middle_not_at_white(folder):
    frames = load(folder, size=120, centres=[1])  # 60 x 40 pixels become 120 x 120: each is 2 x 3
    want = torch.zeros(120, 120, dtype=torch.bool)
    want[12:60, 12:60] = True
    assert (frames.masks[0, 0] == want).all() and (frames.masks[1, 0] == want).all()  # grey and RGB alike
    stored = np.asarray(Image.open(folder / "data_C1" / "masks_C1" / "100H0050_mask.jpg"))
    assert len(np.unique(stored)) > 2  # the JPEG does ring
    assert not load(folder).masks[5].any()


def test_images_are_interpolated_to_the_square(folder):
    image = Image.open(folder / "data_C1" / "images_C1" / "176OLCV1_100H0745.jpg").convert("RGB")
    want = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert (load(folder).images[2].numpy() * 255).round().astype(int).tolist() == want.tolist()


def test_a_part_of_the_frames_keeps_what_belongs_together(folder):
    frames = load(folder)
    part = frames[frames.centre == 4]
    assert part.names == frames.names[5:] and part.videos == ("C4/31", "C4/31") and len(part) == 2
    assert torch.equal(part.images, frames.images[5:]) and part.group.tolist() == frames.group[5:].tolist()
    assert frames[-1].names == frames.names[-1:] and frames[[2, 0]].names == (frames.names[2], frames.names[0])


def test_centres_are_chosen_or_refused(folder):
    assert set(load(folder, centres=[4, 1]).centre) == {1, 4}
    with pytest.raises(FileNotFoundError, match=r"lacks data_C2.*\[1, 3, 4\]"):
        load(folder, centres=[1, 2])
    for bad in ([], [0], [7]):
        with pytest.raises(ValueError, match="centres"):
            load(folder, centres=bad)
    with pytest.raises(ValueError, match="size"):
        load(folder, size=0)
    with pytest.raises(FileNotFoundError, match="not PolypGen"):
        load(folder / "data_C1")


def spoil(folder, how):
    image, mask = draw(folder, 3, "C3_EndoCV2021_00500.jpg")
    if how == "no mask":
        mask.unlink()
        return image
    if how == "no image":
        image.unlink()
        return mask
    if how == "truncated":
        image.write_bytes(image.read_bytes()[:400])
        return image
    if how == "no jpeg":
        mask.write_bytes(b"not a picture")
        return mask
    Image.open(mask).resize((61, 40)).save(mask)
    return mask


@pytest.mark.parametrize("how", ["no mask", "no image", "truncated", "no jpeg", "other size"])
def test_a_bad_pair_is_refused_or_skipped_by_name(folder, how):
    bad = spoil(folder, how)
    with pytest.raises(ValueError, match=bad.name):
        load(folder)
    with pytest.warns(UserWarning, match=rf"skipped 1 file.*{bad.name}") as caught:
        frames = load(folder, strict=False)
    assert len(caught) == 1
    assert len(frames) == 7 and "C3_EndoCV2021_00500.jpg" not in frames.names


def test_several_bad_pairs_are_one_complaint(folder):
    for how, centre in (("a", 1), ("b", 3)):
        image, mask = draw(folder, centre, f"{how}_1.jpg")
        (mask if how == "a" else image).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"2 files.*a_1_mask\.jpg.*b_1\.jpg"):
        load(folder)


def test_the_cache_gives_the_same_frames_without_decoding(folder, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    first = load(folder, cache=kept)
    monkeypatch.setattr(polyps, "_read", None)  # decoding again would fail
    second = load(folder, cache=kept)
    assert torch.equal(first.images, second.images) and torch.equal(first.masks, second.masks)
    assert first.names == second.names and first.videos == second.videos
    monkeypatch.setenv("CONFPRUNE_CACHE", str(kept))
    assert len(load(folder, cache=True)) == 7


def test_the_cache_notices_new_contents_other_sizes_and_fewer_centres(folder, tmp_path):
    kept = tmp_path / "kept"
    load(folder, cache=kept)
    assert load(folder, cache=kept, size=16).images.shape[-1] == 16
    assert len(load(folder, cache=kept, centres=[4])) == 2
    image = folder / "data_C1" / "images_C1" / "100H0050.jpg"
    before = image.stat()
    Image.new("RGB", (60, 40), "white").save(image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load(folder, cache=kept).images[0].min() > 0.9


def test_a_damaged_cache_is_made_again(folder, tmp_path):
    first = load(folder, cache=tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="damaged"):
        again = load(folder, cache=tmp_path / "kept")
    assert torch.equal(first.images, again.images)
    assert len(load(folder, cache=tmp_path / "kept")) == 7  # without a warning, which would be an error


def test_a_folder_that_cannot_be_written_does_not_stop_the_reader(folder, tmp_path):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.warns(UserWarning, match="not kept"):
        assert len(load(folder, cache=tmp_path / "file" / "kept")) == 7


def test_frames_that_were_skipped_leave_no_cache(folder, tmp_path):
    spoil(folder, "truncated")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(folder, strict=False, cache=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


@pytest.fixture(scope="module")
def real():
    """All real frames at 64 x 64."""
    if "CONFPRUNE_DATA" not in os.environ:
        pytest.skip("needs the environment variable CONFPRUNE_DATA: a folder that contains polypgen_256/")
    return data.polypgen(Path(os.environ["CONFPRUNE_DATA"], "polypgen_256"), size=64, cache=False)


def test_the_real_frames_are_those_of_the_paper(real):
    assert np.bincount(real.centre).tolist() == [0, 256, 301, 457, 227, 208, 88]
    videos = [len(set(real.group[real.centre == c])) for c in range(1, 7)]
    assert (videos[0], videos[3]) == (161, 31)
    names = dict(zip(real.names, real.group, strict=True))
    pairs = [("50000140", "50000141"), ("50000284", "50000285")]  # exact duplicates
    for one, other in pairs:
        assert names[f"EndoCV2021_C5_{one}.jpg"] == names[f"EndoCV2021_C5_{other}.jpg"]
    assert len(set(zip(real.group, real.centre, strict=True))) == real.group.max() + 1  # no group in two centres


def test_the_training_videos_are_fixed_by_their_names(real):
    known = models.trained_on(real)
    assert known.sum() == 930 and not known[real.centre == 6].any()
    assert not set(real.group[known]) & set(real.group[~known])
    part = real[real.centre == 2]
    assert (models.trained_on(part) == known[real.centre == 2]).all()
