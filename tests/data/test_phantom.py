"""Phantom polyps: format, one seed one result, exact masks, and centres that differ as measured on the real ones."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import binomtest

from confprune_edu import data, losses, models
from confprune_edu.data import bowel, centres, phantom_polyps, video
from confprune_edu.data.video import Video, lighting, look, rays_through

# Measured on the real frames of C1..C6, by other means than those of the module: red / green and red / blue of the mean
# colour inside the visible field, and the sd of the luminance there (grey levels).
REAL_RED_GREEN = (1.60, 1.51, 1.56, 1.59, 1.51, 1.47)
REAL_RED_BLUE = (2.33, 1.99, 2.00, 1.95, 2.13, 2.35)
REAL_CONTRAST = (43.4, 48.2, 41.2, 40.7, 38.8, 48.7)
REAL_MARGIN = (0, 0.05, 0.06, 0.235, 0.345, 0.09)  # of the frame, black on the left in every frame


def altered(monkeypatch, **changes):
    """All centres, with some of their habits changed."""
    for c, centre in centres.CENTRES.items():
        monkeypatch.setitem(centres.CENTRES, c, dataclasses.replace(centre, **changes))


@pytest.fixture(scope="module")
def frames():
    return phantom_polyps(36, seed=5)


@pytest.fixture(scope="module")
def crowd():
    """25 frames of each centre, each of its own video and with a polyp, the visible fields, and the luminance."""
    fields = {c: [] for c in centres.CENTRES}

    class Noted(Video):
        def __init__(self, rng, centre):
            super().__init__(rng, centre)
            fields[centre].append(self.field(128)[2])

    with pytest.MonkeyPatch.context() as patch:
        altered(patch, empty=0.0, frames=1, spread=(0.03, 0.03))  # less spread: 25 videos show what is typical
        patch.setattr(video, "Video", Noted)
        drawn = phantom_polyps(150, seed=1)
    seen = [fields[c][i // 6] for i, c in enumerate(drawn.centre)]
    luminance = (drawn.images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1).numpy()
    return drawn, np.stack(seen), luminance


def by_centre(drawn, values):
    return np.array(
        [np.mean([v for v, c in zip(values, drawn.centre, strict=True) if c == centre]) for centre in range(1, 7)]
    )


# Format


def test_format(frames):
    assert isinstance(frames, data.PolypFrames) and len(frames) == 36
    assert frames.images.shape == (36, 3, 128, 128) and frames.images.dtype == torch.float32
    assert frames.masks.shape == (36, 1, 128, 128) and frames.masks.dtype == torch.bool
    assert frames.images.min() >= 0 and frames.images.max() <= 1 and frames.images.max() > 0.9
    assert frames.centre.dtype == frames.group.dtype == np.int64
    assert frames.centre.tolist() == [1, 2, 3, 4, 5, 6] * 6
    assert frames.names[:7] == (*(f"phantom_C{c}_00000" for c in range(1, 7)), "phantom_C1_00001")
    assert len(set(frames.names)) == 36


def test_frames_of_one_video_share_a_group_and_a_name(frames):
    number = np.arange(36) // 6
    a_video = {1: 2, 2: 7, 3: 9, 4: 7, 5: 5, 6: 7}
    want = [f"P{c}/{k // a_video[c]:04d}" for c, k in zip(frames.centre, number, strict=True)]
    assert list(frames.videos) == want
    assert (
        len(set(zip(frames.group.tolist(), want, strict=True)))
        == len(set(want))
        == len(set(frames.group.tolist()))
        == 9
    )


@pytest.mark.parametrize("size", [32, 45, 100, 256])
def test_any_size_shows_the_same_scene(size, frames):
    other = phantom_polyps(12, seed=5, size=size)
    assert other.images.shape == (12, 3, size, size) and other.masks.shape == (12, 1, size, size)
    rows = ((np.arange(size) + 0.5) * 128 / size).astype(int)
    reference = frames.masks[:12][:, :, rows][..., rows]
    both, either = (other.masks & reference).sum(), (other.masks | reference).sum()
    assert both / either > 0.75
    wrong = (other.masks.roll(1, 0) & reference).sum() / (other.masks.roll(1, 0) | reference).sum()
    assert wrong < 0.4


@pytest.mark.parametrize("centres", [[3], (5, 2), {6, 1}, range(2, 5), iter([4, 4, 1])])
def test_centres_take_turns(centres):
    centres, again = (list(centres), None) if not isinstance(centres, list) else (centres, centres)
    got = phantom_polyps(7, seed=0, size=32, centres=again or iter(centres))
    allowed = sorted(set(centres))
    assert got.centre.tolist() == [allowed[i % len(allowed)] for i in range(7)]


# One seed, one result


def test_same_seed_same_frames(frames):
    again = phantom_polyps(36, seed=5)
    assert torch.equal(again.images, frames.images) and torch.equal(again.masks, frames.masks)
    assert again.names == frames.names and again.videos == frames.videos


def test_another_seed_another_frame_everywhere(frames):
    other = phantom_polyps(36, seed=6)
    assert ((other.images - frames.images).abs().mean(dim=(1, 2, 3)) > 0.02).all()


def test_frames_do_not_depend_on_how_many_or_on_the_other_centres(frames):
    fewer = phantom_polyps(8, seed=5)
    assert torch.equal(fewer.images, frames.images[:8]) and torch.equal(fewer.masks, frames.masks[:8])
    assert fewer.group.tolist() == frames.group[:8].tolist()
    alone = phantom_polyps(6, seed=5, centres=[3])
    third = frames[frames.centre == 3]
    assert torch.equal(alone.images, third.images) and alone.names == third.names and alone.videos == third.videos


def test_frames_of_one_video_differ_yet_show_the_same(frames):
    third = frames[frames.centre == 3]
    distance = [(a - b).abs().mean().item() for a, b in zip(third.images[:-1], third.images[1:], strict=True)]
    assert min(distance) > 0.005
    masks = third.masks.flatten(1).double()
    overlap = (masks[:-1] * masks[1:]).sum() / torch.maximum(masks[:-1], masks[1:]).sum()
    strangers = frames[frames.centre == 1].masks.flatten(1).double()[::2]
    apart = (strangers[:-1] * strangers[1:]).sum() / torch.maximum(strangers[:-1], strangers[1:]).sum()
    assert overlap > 2 * apart and overlap > 0.25


def test_no_global_state(unchanged):
    with unchanged(torch.nn.Linear(1, 1)):
        phantom_polyps(6, seed=0, size=32)


def test_drawing_runs_where_torch_is_missing():
    code = """
import sys
sys.modules.update(dict.fromkeys(["torch", "torchvision"]))
import numpy as np
from confprune_edu.data.video import Video
image, mask = Video(np.random.default_rng(0), 3).frame(np.random.default_rng(1), 32)
print(image.shape, image.dtype, mask.shape, mask.dtype)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "(32, 32, 3) float32 (32, 32) bool\n", done.stderr


# Masks


@pytest.mark.parametrize("size", [32, 61])
def test_a_polyp_is_seen_in_every_frame_that_has_one(monkeypatch, size):
    altered(monkeypatch, empty=0.0, extent=(-6.0, 0.0))  # tiny ones
    assert phantom_polyps(90, seed=3, size=size).masks.any(dim=3).any(dim=2).all()


def test_none_is_seen_where_there_is_none(monkeypatch):
    altered(monkeypatch, empty=1.0)
    assert not phantom_polyps(12, seed=3, size=32).masks.any()


def test_empty_frames_come_at_the_real_rates():
    real = {1: 5 / 256, 2: 31 / 301, 3: 1 / 457, 4: 81 / 227, 5: 2 / 208, 6: 5 / 88}
    for c, rate in real.items():
        assert abs(centres.CENTRES[c].empty - rate) < 0.005
    drawn = phantom_polyps(160, seed=2, size=32, centres=[2, 4])
    for c in (2, 4):
        empty = ~drawn.masks[torch.as_tensor(drawn.centre == c)].flatten(1).any(1)
        assert binomtest(int(empty.sum()), len(empty), real[c]).pvalue > 1e-4
        assert binomtest(int(empty.sum()), len(empty), {2: real[4], 4: real[2]}[c]).pvalue < 1e-4


def test_masks_stay_inside_the_visible_field(monkeypatch):
    altered(monkeypatch, empty=0.0, extent=(-0.7, 0.0))  # huge ones, which would cover the borders
    drawn = phantom_polyps(48, seed=4, size=64)
    assert drawn.masks.double().mean() > 0.1
    for c in range(1, 7):
        here = drawn[drawn.centre == c]
        margin = int(REAL_MARGIN[c - 1] * 64)
        assert not here.masks[..., :margin].any()
        corners = here.images[..., [0, 0, -1, -1], [0, -1, 0, -1]].amax(dim=1)
        assert not here.masks[..., [0, 0, -1, -1], [0, -1, 0, -1]].any()
        dark = corners[:, [1, 3]] if c in (2, 4, 5) else corners  # a box may lie in a left corner
        assert dark.max() < 0.15
    at = np.abs((np.arange(64) + 0.5) / 32 - 1)
    outside = at + at[:, None] > 1.62  # the octagon of C1
    assert not drawn[drawn.centre == 1].masks[:, 0, torch.as_tensor(outside)].any()
    assert drawn[drawn.centre == 1].images[:, :, torch.as_tensor(at + at[:, None] > 1.7)].max() < 0.15


def test_masks_leave_out_boxes_and_tools(monkeypatch):
    altered(monkeypatch, empty=0.0, frames=1, extent=(-0.7, 0.0), chances=(0, 0, 0, 1, 0))
    boxed = phantom_polyps(24, seed=4, size=64, centres=[4])
    assert not boxed.masks[..., 42:, :18].any()
    green = boxed.images[..., 45:60, 9:15].mean(dim=(0, 2, 3))
    assert green[1] > green[0] + 0.3 and green[1] > green[2] + 0.05
    altered(monkeypatch, chances=(0, 0, 0, 0, 0))
    free = phantom_polyps(12, seed=4, size=64, centres=[4])
    altered(monkeypatch, chances=(0, 1, 0, 0, 0))
    hidden = phantom_polyps(12, seed=4, size=64, centres=[4])
    assert (free.masks | ~hidden.masks).all() and hidden.masks.sum() < free.masks.sum()


@pytest.mark.parametrize("centre", [1, 4])
def test_a_mask_is_where_the_polyp_is_nearer_than_the_wall(centre):
    video = Video(np.random.default_rng(centre), centre)
    u, v, tissue, _ = video.field(64)
    rays = video.camera.T @ rays_through(u[tissue], v[tissue])
    points, _, on, _ = look(video.polyp, True, video.origin, rays)
    assert on.any() and not on.all()
    np.testing.assert_array_equal(on, video.polyp.body(points) < video.tube.gap(points))
    assert np.quantile(np.abs(video.polyp.gap(points)), 0.9) < 0.02  # the points lie on the tissue, outlines apart


@pytest.mark.parametrize("size", [32, 100])
def test_the_moved_scope_sees_the_polyps_foot_in_the_middle_of_a_pixel(size):
    rng = np.random.default_rng(0)
    video = Video(rng, 5)
    x0, x1, y0, y1 = video.border[:4]
    for loose in (1, 0):
        origin, camera, aim = video.moved(rng, loose, size)
        foot = camera @ bowel.unit(video.polyp.base - origin)
        np.testing.assert_allclose(foot, rays_through(*aim[:, None]), atol=1e-4)
        pixel = (np.array([x0, y0]) + (aim + 1) / 2 * np.array([x1 - x0, y1 - y0])) * size - 0.5
        np.testing.assert_allclose(pixel, pixel.round(), atol=1e-4)
    np.testing.assert_array_equal(origin, video.origin)
    assert np.abs(aim - video.aim).max() < 2 / size / min(x1 - x0, y1 - y0)


def contrast(masks, luminance, seen):
    """Luminance inside each mask minus that of the ring of tissue around it."""
    out = []
    for mask, grey, field in zip(masks, luminance, seen, strict=True):
        ring = ndimage.binary_dilation(mask, iterations=6) & ~ndimage.binary_dilation(mask) & field
        if mask.any() and ring.any():
            out.append(grey[mask].mean() - grey[ring].mean())
    return np.array(out)


def test_polyps_are_brighter_than_what_surrounds_them(crowd):
    drawn, seen, luminance = crowd
    masks = drawn.masks[:, 0].numpy()
    inside = contrast(masks, luminance, seen)
    assert len(inside) > 140
    assert 0.05 < inside.mean() < 0.2  # 0.10 to 0.18 by centre on the real frames
    assert (inside > 0).mean() > 0.75
    elsewhere = contrast(np.roll(masks, 6, axis=0) & seen, luminance, seen)  # masks of other frames of the centre
    assert elsewhere.mean() < inside.mean() / 2


# Centres differ as the real ones do


def test_colour_casts_are_the_real_ones(crowd):
    drawn, seen, _ = crowd
    means = np.array([image[:, field].mean(1) for image, field in zip(drawn.images.numpy(), seen, strict=True)])
    red, green, blue = np.array([by_centre(drawn, means[:, k]) for k in range(3)])
    np.testing.assert_allclose(red / green, REAL_RED_GREEN, rtol=0.1)
    np.testing.assert_allclose(red / blue, REAL_RED_BLUE, rtol=0.15)
    assert set(np.argsort(red / blue)[-2:]) == {0, 5}  # C1 and C6 have the warmest cast
    np.testing.assert_allclose(red * 255, [170, 150, 162, 161, 151, 168], rtol=0.08)


def test_between_videos_the_cast_turns_from_warm_to_pale(monkeypatch):
    altered(monkeypatch, frames=1, spread=(0.0, 0.1), chances=(0, 0, 0, 0, 0))
    tissue = Video(np.random.default_rng(0), 1).field(32)[2]
    means = phantom_polyps(40, seed=0, size=32, centres=[1]).images[:, :, torch.as_tensor(tissue)].mean(2).numpy()
    red_green, red_blue = np.log(means[:, 0] / means[:, 1]), np.log(means[:, 0] / means[:, 2])
    assert 0.06 < red_green.std() < 0.14 and 0.1 < red_blue.std() < 0.24
    assert np.corrcoef(red_green, red_blue)[0, 1] > 0.8


def test_light_falls_off_with_distance_angle_and_at_the_polyps_foot():
    towards = np.array([[0], [0], [1.0]])
    near, gloss = lighting(towards, 2 * towards, np.array([99.0]))
    far, _ = lighting(towards, 4 * towards, np.array([99.0]))
    assert 3.5 < near / far < 4
    steep, matt = lighting(bowel.unit(np.array([[2], [0], [1.0]])), 2 * towards, np.array([99.0]))
    assert 0.4 < steep / near < 0.8 and matt < gloss / 10
    assert lighting(towards, 2 * towards, np.array([0.0]))[0] == pytest.approx(0.65 * near)


def test_brightness_spreads_as_in_the_real_frames(crowd):
    drawn, seen, luminance = crowd
    spread = by_centre(drawn, [255 * grey[field].std() for grey, field in zip(luminance, seen, strict=True)])
    np.testing.assert_allclose(spread, REAL_CONTRAST, rtol=0.2)
    assert set(np.argsort(spread)[-2:]) == {1, 5}  # C2 and C6 have the harshest light


def test_polyps_are_as_large_as_the_real_ones(crowd):
    drawn, _, _ = crowd
    share = by_centre(drawn, drawn.masks.double().mean(dim=(1, 2, 3)).log().numpy())
    np.testing.assert_allclose(share, [-2.79, -2.79, -2.92, -3.28, -3.45, -3.12], atol=0.5)
    assert share[[0, 1]].min() > share[[3, 4]].max()  # large in C1 and C2, small in C4 and C5


def test_sharp_and_blurred_centres_are_the_real_ones(crowd):
    drawn, seen, luminance = crowd
    sharpness = []
    for grey, field in zip(luminance, seen, strict=True):
        field = ndimage.binary_erosion(field, iterations=6)
        smooth = ndimage.gaussian_filter(grey, 1)
        sharpness.append((grey - smooth)[field].std() / (smooth - ndimage.gaussian_filter(grey, 3))[field].std())
    sharpness = by_centre(drawn, sharpness)
    np.testing.assert_allclose(sharpness, [0.715, 0.587, 0.652, 0.665, 0.641, 0.574], rtol=0.2)
    assert np.argmin(sharpness) in (1, 5) and sharpness[[0, 2, 3]].min() > sharpness[[1, 5]].max()


def test_the_table_is_what_the_real_masks_say():
    if "CONFPRUNE_DATA" not in os.environ:
        pytest.skip("needs the environment variable CONFPRUNE_DATA: a folder that contains polypgen_256")
    real = data.polypgen(Path(os.environ["CONFPRUNE_DATA"], "polypgen_256"), cache=False)
    share = real.masks.double().mean(dim=(1, 2, 3)).numpy()
    for c, centre in centres.CENTRES.items():
        here = share[real.centre == c]
        log = np.log(here[here > 0])
        np.testing.assert_allclose(centre.extent, (log.mean(), log.std()), atol=0.03)
        assert abs(centre.empty - (here == 0).mean()) < 0.005
        a_video = len(here) / len(set(real.group[real.centre == c].tolist()))
        assert abs(centre.frames - a_video) <= 0.5


def test_a_network_trained_on_real_frames_finds_them():
    drawn = phantom_polyps(48, seed=7)
    with torch.inference_mode():
        logits = torch.cat([models.load("polyp-unet")(batch) for batch in drawn.images.split(16)])
    some = drawn.masks.flatten(1).any(1)
    found = 1 - losses.one_minus_dice(logits, None, drawn.masks)
    assert found[some].mean() > 0.45
    elsewhere = 1 - losses.one_minus_dice(logits.roll(1, 0), None, drawn.masks)  # of another frame
    assert elsewhere[some].mean() < found[some].mean() / 2


# Refusals


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"n": 0}, ValueError, "n must"),
        ({"n": -3}, ValueError, "n must"),
        ({"n": 2.0}, TypeError, "n must"),
        ({"n": True}, TypeError, "n must"),
        ({"seed": -1}, ValueError, "seed must"),
        ({"seed": 0.5}, TypeError, "seed must"),
        ({"seed": None}, TypeError, "seed must"),
        ({"size": 31}, ValueError, "size must.* 32 to 256, got 31"),
        ({"size": 257}, ValueError, "size must.*got 257"),
        ({"size": 64.0}, TypeError, "size must"),
        ({"centres": []}, ValueError, r"centres must be some of 1\.\.6"),
        ({"centres": [0]}, ValueError, r"centres.*\[0\]"),
        ({"centres": [1, 7]}, ValueError, "centres.*7"),
        ({"centres": ["C3"]}, ValueError, "centres.*C3"),
        ({"centres": 3}, TypeError, "centres.*3"),
    ],
)
def test_refusals_name_the_argument(changes, error, words):
    with pytest.raises(error, match=words):
        phantom_polyps(**{"n": 1, "seed": 0, "size": 32, **changes})


# The drawn bowel, against formulas


def ball(points):
    """From inside a ball of radius 2 around the origin: how far the wall is."""
    return 2 - np.sqrt((points**2).sum(0))


def directions(n=200):
    return bowel.unit(np.random.default_rng(0).normal(size=(3, n)).astype(np.float32))


@pytest.mark.parametrize("origin", [(0, 0, 0), (0.5, -1, 1)])
def test_march_meets_a_ball_where_the_formula_says(origin):
    origin, rays = np.array(origin, np.float32)[:, None], directions()
    far = bowel.march(ball, origin, rays, 0.05, 30)
    along = (origin * rays).sum(0)
    np.testing.assert_allclose(far, -along + np.sqrt(along**2 + 4 - (origin**2).sum()), atol=5e-3)


def test_march_ends_at_stop_where_nothing_is_met():
    rays, stop = directions(50), np.linspace(0.5, 1.5, 50, dtype=np.float32)
    np.testing.assert_array_equal(bowel.march(ball, np.zeros((3, 1), np.float32), rays, 0.05, stop), stop)


def test_normals_point_into_the_lumen():
    points = 2 * directions()
    np.testing.assert_allclose(bowel.normals(ball, points, 0.01), -points / 2, atol=0.01)


def test_fetch_is_bilinear_and_repeats():
    rng = np.random.default_rng(0)
    tables, at = rng.normal(size=(2, 16, 32)), rng.uniform(-40, 70, (2, 500))
    want = [ndimage.map_coordinates(table, at, order=1, mode="grid-wrap") for table in tables]
    np.testing.assert_allclose(bowel.fetch(tables, *at), want, atol=1e-9)


def test_turned_is_the_rotation_between_two_directions():
    onto, towards = directions(2).T.astype(float)
    turn = bowel.turned(onto, towards)
    np.testing.assert_allclose(turn @ onto, towards, atol=1e-5)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(turn) == pytest.approx(1, abs=1e-5)
    axis = np.cross(onto, towards)
    np.testing.assert_allclose(turn @ axis, axis, atol=1e-5)  # the shortest turn


def test_noise_has_unit_variance_and_only_the_waves_asked_for():
    noise = bowel.noise(np.random.default_rng(0), (64, 128), 1.0, 5, 20)
    assert noise.std() == pytest.approx(1, abs=1e-3) and abs(noise.mean()) < 1e-3
    power = np.abs(np.fft.fft2(noise)) ** 2
    waves = np.hypot(np.fft.fftfreq(64, 1 / 64)[:, None], np.fft.fftfreq(128, 1 / 128))
    kept = (waves >= 5) & (waves <= 20)
    assert power[~kept].sum() < 1e-6 * power.sum()
    assert power[kept & (waves < 8)].mean() > power[kept & (waves > 15)].mean()


@pytest.mark.parametrize("seed", range(8))
def test_a_polyp_stands_on_its_foot(seed):
    rng = np.random.default_rng(seed)
    tube = bowel.Tube(rng)
    wall = bowel.march(tube.gap, np.zeros((3, 1), np.float32), directions(1), 0.05, 30) * directions(1)
    normal = bowel.normals(tube.gap, wall, 0.05)[:, 0]
    polyp = bowel.Polyp(rng, tube, wall[:, 0], normal, np.float32(0.2))
    up = np.array([0.0, 0.1, 5], np.float32) * 0.2
    heights = wall + normal[:, None] * up
    assert polyp.body(heights[:, :2]).max() < 0 < polyp.body(heights[:, 2:])[0]
    np.testing.assert_allclose(polyp.local(heights)[2], [0, 0.1, 5], atol=1e-3)
    points = wall + rng.normal(0, 0.4, (3, 500)).astype(np.float32)
    assert (polyp.gap(points) <= np.minimum(tube.gap(points), polyp.body(points)) + 1e-6).all()
    far = np.sqrt(((points - wall) ** 2).sum(0))
    assert (polyp.body(points)[far > polyp.reach] > 0).all()


def test_vessels_are_thin_and_repeat():
    drawn = bowel.vessels(np.random.default_rng(0))
    assert drawn.shape == (256, 256) and drawn.min() >= 0 and drawn.max() <= 1.5
    assert 0.02 < (drawn > 0.5).mean() < 0.4
    seam, inside = np.abs(drawn[:, 0] - drawn[:, -1]).mean(), np.abs(np.diff(drawn, axis=1)).mean()
    assert seam < 3 * inside
