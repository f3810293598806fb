"""The UNet for polyps: what ships, how it was made, and the recorded losses on real frames that it never saw."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch.optim.swa_utils import update_bn

from confprune_edu import data, evaluation, losses, models, pruning
from confprune_edu.data import assets, polyps
from confprune_edu.models import __main__, training


def squares(n, seed=0, size=32):
    """Dark frames with one bright square each, as PolypFrames: a task that a UNet learns at once."""
    rng, masks, side = np.random.default_rng(seed), np.zeros((n, 1, size, size), bool), size * 3 // 8
    for mask in masks:
        y, x = rng.integers(0, size - side, 2)
        mask[0, y : y + side, x : x + side] = True
    images = np.clip(masks * 0.6 + rng.random((n, 3, size, size)) * 0.4, 0, 1).astype(np.float32)
    names = tuple(f"{i}.jpg" for i in range(n))
    centre, group = np.ones(n, int), np.arange(n)
    return data.PolypFrames(torch.tensor(images), torch.tensor(masks), centre, group, names, names)


def test_what_ships_is_small_and_half_precise():
    content = data.read_asset("polyp-unet.safetensors")
    assert len(content) < 3_000_000
    floats = [v for v in safetensors.torch.load(content).values() if v.is_floating_point()]
    assert {v.dtype for v in floats} == {torch.float16}
    model = models.load("polyp-unet")
    assert {p.dtype for p in model.parameters()} == {torch.float32} and not model.training
    assert sum(w.numel() for w in pruning.prunable(model).values()) == 1_131_712


def test_skips_bring_the_detail_back():
    model = models.load("polyp-unet")
    with torch.inference_mode():
        frame = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        moved = frame.clone()
        moved[..., 40, 40] = 1 - moved[..., 40, 40]
        change = (model(moved) - model(frame)).abs()[0, 0]
    assert change[40, 40] > 0 and change.shape == (64, 64)
    assert change[36:45, 36:45].mean() > 5 * change[:20, :20].mean()  # one pixel matters most where it lies


def test_training_is_deterministic_and_leaves_the_random_state():
    frames, before = squares(20, size=16), torch.get_rng_state()
    one, other, third = (training.train_polyp_unet(frames, seed=seed, epochs=1) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)]
    assert all(same) and not torch.equal(one.head.weight, third.head.weight)
    assert not one.training


@pytest.mark.long
def test_training_learns():
    model = training.train_polyp_unet(squares(32, size=16), epochs=10)
    fresh = squares(16, seed=1, size=16)
    with torch.inference_mode():
        found = 1 - losses.one_minus_dice(model(fresh.images), None, fresh.masks)
    assert found.mean() > 0.8


def test_quality_is_by_centre_and_over_all_frames():
    frames = squares(4)
    frames.centre[:] = [2, 2, 2, 5]
    logits = torch.where(frames.masks, 1.0, -1.0)
    logits[0] = -1.0  # the first square is missed
    lines = training.quality_by_centre(lambda images: logits, frames).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["C2", "3", "0.667", "0.667"],
        ["C5", "1", "1.000", "1.000"],
        ["all", "4", "0.750", "0.750"],
    ]


def test_records_never_understate_a_loss():
    table = np.random.default_rng(0).random((50, 3))
    half = __main__.half_up(table)
    assert half.dtype == np.float16 and (half >= table).all() and (half - table).max() < 1e-3
    assert __main__.half_up(np.array([0.0, 1.0])).tolist() == [0, 1]


def test_ranks_by_layer_prune_every_layer_alike():
    model = models.load("polyp-unet")
    ranks = {name: __main__.rank(weight) for name, weight in pruning.magnitude(model).items()}
    pruned = pruning.prune(model, 0.4, ranks)
    shares = [float((w == 0).float().mean()) for w in pruning.prunable(pruned).values() if w.numel() > 100]
    assert max(abs(share - 0.4) for share in shares) < 0.01


def small_polypgen(root):
    """Twelve noisy frames of three centres in the layout of the download; some videos are trained on, some not."""
    rng = np.random.default_rng(0)
    for centre in (2, 3, 6):
        for kind in ("images", "masks"):
            (root / polyps.FOLDER / f"data_C{centre}" / f"{kind}_C{centre}").mkdir(parents=True)
        for k in range(4):
            folder, stem = root / polyps.FOLDER / f"data_C{centre}", f"EndoCV2021_C{centre}_{k}00"
            pixels = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"images_C{centre}" / f"{stem}.jpg")
            Image.fromarray(pixels[..., 0]).save(folder / f"masks_C{centre}" / f"{stem}_mask.jpg")
    return root


def install(name, out, printed, monkeypatch):
    """Let the package read the file that a command wrote, whose sha256 it printed last, as the shipped one."""
    monkeypatch.setattr(assets, "ASSETS", out.parent)
    monkeypatch.setitem(data.CHECKSUMS, name, (out.stat().st_size, printed.split()[-1]))


@pytest.mark.long
def test_commands_train_record_and_write_what_the_package_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONFPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(__main__, "POLYP_RATIOS", np.array([0.0, 0.5]))
    monkeypatch.setattr(__main__, "SHIFT_RATIOS", np.array([0.0, 0.5]))
    root, name = small_polypgen(tmp_path), "polyp-unet.safetensors"
    arguments = ["--data-root", str(root), "--out"]
    __main__.main(["train", "polyp-unet", "--epochs", "1", *arguments, str(tmp_path / name)])
    printed = capsys.readouterr().out
    assert "on videos that it never saw:" in printed and "C6" in printed
    install(name, tmp_path / name, printed, monkeypatch)
    __main__.main(["record", "polyp-losses", *arguments, str(tmp_path / "polyp-losses.npz")])
    install("polyp-losses.npz", tmp_path / "polyp-losses.npz", capsys.readouterr().out, monkeypatch)
    frames = data.polypgen(root)
    unseen = frames[~models.trained_on(frames)]
    recorded = data.polyp_losses("one_minus_iou", "layerwise")
    assert recorded.names == unseen.names and recorded.centre.tolist() == unseen.centre.tolist()
    assert recorded.losses.shape == (len(unseen), 2) and recorded.ratios.tolist() == [0, 0.5]
    assert data.polyp_losses("one_minus_dice_to_full").losses[:, 0].max() == 0
    __main__.main(["record", "polyp-shifts", *arguments, str(tmp_path / "polyp-shifts.npz")])
    install("polyp-shifts.npz", tmp_path / "polyp-shifts.npz", capsys.readouterr().out, monkeypatch)
    home, dark = (data.polyp_shifts("dark", strength, "one_minus_dice_to_full") for strength in (0, 0.9))
    assert home.names == dark.names and home.losses.shape == dark.losses.shape == (len(dark.names), 2)
    assert set(dark.names) < set(unseen.names) and dark.losses[:, 0].max() == 0


def test_recording_frames_needs_the_frames(tmp_path, capsys):
    with pytest.raises(SystemExit):
        __main__.main(["record", "polyp-losses", "--out", str(tmp_path / "x.npz")])
    assert "required: --data-root" in capsys.readouterr().err


@pytest.mark.parametrize(("loss", "family"), [("error", "magnitude"), ("one_minus_iou", "random")])
def test_unknown_records_are_refused(loss, family):
    with pytest.raises(ValueError, match=r"loss must be one of|family must be one of"):
        data.polyp_losses(loss, family)


def test_recorded_losses_are_consistent():
    to_full = data.polyp_losses("one_minus_dice_to_full")
    n, m = to_full.losses.shape
    assert len(to_full.names) == len(set(to_full.names)) == len(to_full.centre) == len(to_full.group) == n
    assert len(to_full.ratios) == m and (to_full.losses[:, 0] == 0).all()
    assert (
        data.polyp_losses("one_minus_dice_to_full", "batch-norm").losses[:, 0].mean() > 0.01
    )  # another network at once
    for loss in data.POLYP_LOSSES:
        table = data.polyp_losses(loss).losses
        assert table.shape == (n, m) and table.min() >= 0 and table.max() <= 1
    dice, iou = (data.polyp_losses(loss).losses for loss in ("one_minus_dice", "one_minus_iou"))
    assert np.abs(iou - (1 - (1 - dice) / (1 + dice))).max() < 2e-3  # IoU = Dice / (2 - Dice)


@pytest.mark.parametrize("shift", data.POLYP_SHIFTS)
def test_worse_frames_are_what_their_dial_says(shift):
    frames = data.phantom_polyps(4, seed=0, size=64).images
    worse = [data.degraded(frames, shift, strength) for strength in (0, *data.POLYP_SHIFTS[shift])]
    assert all(some.shape == frames.shape and some.dtype == torch.float32 for some in worse)
    assert all(some.min() >= 0 and some.max() <= 1 for some in worse)
    assert torch.equal(worse[0], frames) and worse[0].data_ptr() != frames.data_ptr()
    away = [float((some - frames).square().mean()) for some in worse]
    assert away == sorted(away) and away[1] > 0
    assert torch.equal(data.degraded(frames[1:2], shift, 0.5), data.degraded(frames, shift, 0.5)[1:2])  # one by one


def test_a_blur_spreads_one_point_as_a_bell():
    point = torch.zeros(1, 3, 33, 33)
    point[0, 1, 16, 16] = 1
    spread = data.degraded(point, "out of focus", 2).double()
    bell = torch.exp(-((torch.arange(33) - 16.0) ** 2) / 8)
    torch.testing.assert_close(
        spread[0, 1], torch.outer(bell, bell) / bell.sum() ** 2, rtol=0, atol=1e-4, check_dtype=False
    )
    assert spread[0, [0, 2]].max() == 0


@pytest.mark.parametrize(
    ("shift", "strength"),
    [("fog", 1), ("dark", 1.1), ("compression", 100), ("out of focus", -1), ("dark", np.nan), ("dark", "a little")],
)
def test_other_frames_are_refused(shift, strength):
    with pytest.raises((TypeError, ValueError), match=r"^shift must be one of|^strength must "):
        data.degraded(torch.zeros(1, 3, 8, 8), shift, strength)


@pytest.mark.parametrize("other", [{"shift": "fog"}, {"strength": 3}, {"loss": "one_minus_iou"}])
def test_unknown_shifts_are_refused(other):
    with pytest.raises(ValueError, match=r"must be 0 or one of|must be one of"):
        data.polyp_shifts(**{"shift": "dark", "strength": 0.4} | other)


def test_recorded_shifts_begin_with_the_frames_as_they_are():
    few, rows = data.polyp_orders("lamp"), {name: i for i, name in enumerate(data.polyp_losses().names)}
    for shift, strengths in data.POLYP_SHIFTS.items():
        for loss in data.POLYP_SHIFT_LOSSES:
            home, record = data.polyp_shifts(shift, loss=loss), data.polyp_losses(loss)
            assert home.names == few.names and home.ratios.tolist() == [0, 0.2, 0.3, 0.4, 0.5, 0.6]
            columns = [0, 10, 15, 20, 25, 30]
            known = record.losses[np.ix_([rows[name] for name in home.names], columns)]
            np.testing.assert_array_equal(home.losses, known)
            for strength in strengths:
                away = data.polyp_shifts(shift, strength, loss)
                assert away.names == few.names and away.losses.shape == home.losses.shape
                assert away.losses.min() >= 0 and away.losses.max() <= 1
                assert (away.losses[:, 0] == 0).all() == (loss != "one_minus_dice")
                assert (away.losses != home.losses).any()


@pytest.fixture(scope="module")
def unseen():
    """The real frames that the shipped UNet never saw, and the frames that it learned from."""
    if "CONFPRUNE_DATA" not in os.environ:
        pytest.skip("needs the environment variable CONFPRUNE_DATA: a folder that contains polypgen_256/")
    frames = data.polypgen(Path(os.environ["CONFPRUNE_DATA"], "polypgen_256"), cache=False)
    known = models.trained_on(frames)
    return frames[~known], frames.images[known]


@pytest.mark.long
def test_the_shipped_network_finds_polyps_of_unseen_videos(unseen):
    here = unseen[0][unseen[0].centre <= 5][::3]
    model = models.load("polyp-unet")
    with torch.inference_mode():
        logits = torch.cat([model(images) for images in here.images.split(16)])
    assert (1 - losses.one_minus_dice(logits, None, here.masks)).mean() > 0.7


@pytest.mark.long
def test_recorded_losses_are_those_of_the_shipped_network(unseen):
    frames, known = unseen
    rows, model = np.arange(5, len(frames), 30), models.load("polyp-unet")
    some = frames[rows]
    families = {
        "magnitude": {},
        "batch-norm": {"finish": partial(update_bn, known[::4].split(32))},
        "layerwise": {"scores": {name: __main__.rank(w) for name, w in pruning.magnitude(model).items()}},
    }
    wanted = {"one_minus_dice": losses.one_minus_dice, "false_negative_rate": losses.false_negative_rate}
    for family, how in families.items():
        columns = [0, 10, 20, 35] if family == "magnitude" else [20]
        record = data.polyp_losses("one_minus_dice", family)
        ratios = record.ratios[columns]
        got = evaluation.loss_tables(model, (some.images, some.masks), ratios, wanted, progress=False, **how)
        assert [record.names[i] for i in rows] == list(some.names)
        for loss, table in got.items():
            recorded = data.polyp_losses(loss, family).losses[np.ix_(rows, columns)]
            assert np.abs(recorded - table).max() < 1e-3


@pytest.mark.long
def test_recorded_shifts_are_those_of_the_shipped_network(unseen):
    frames, _ = unseen
    where, record = {name: i for i, name in enumerate(frames.names)}, data.polyp_shifts("dark", 0.8)
    rows = np.arange(3, len(record.names), 30)
    some = frames[[where[record.names[i]] for i in rows]]
    for shift, strength in (("out of focus", 2), ("dark", 0.8), ("compression", 80)):
        worse = data.degraded(some.images, shift, strength)
        got = evaluation.loss_tables(
            models.load("polyp-unet"),
            (worse, some.masks),
            [0, 0.4],
            {"one_minus_dice": losses.one_minus_dice, "dice_degradation": losses.dice_degradation},
            progress=False,
        )
        for loss, table in got.items():
            assert np.abs(data.polyp_shifts(shift, strength, loss).losses[rows][:, [0, 3]] - table).max() < 3e-3
