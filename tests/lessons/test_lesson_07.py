"""Lesson 07: checkers, figures, the explorer, and what the prose says about the recorded losses."""

import numpy as np
import pytest
import torch
from answers import right_and_wrong

from confprune_edu import calibration, controls, data, exercises, models, plots, pruning, pvalues, widgets
from confprune_edu.calibration import calibrate_losses, group_means
from confprune_edu.validation import ErrorRate, repeated_splits


@pytest.fixture(autouse=True)
def _one_drawing(monkeypatch):
    monkeypatch.setenv("CONFPRUNE_STATIC", "1")


@pytest.fixture(scope="module")
def frames():
    return data.phantom_polyps(6, seed=0)


# Exercises


def by_torch(found, truth):
    a, b = torch.as_tensor(found), torch.as_tensor(truth)
    return 1.0 - float(2 * (a & b).sum() / (a.sum() + b.sum())) if (a | b).any() else 0.0


def dice_or(empty=0.0, one_empty=1.0):
    def answer(found, truth):
        if not found.any() and not truth.any():
            return empty
        return by_torch(found, truth) if found.any() and truth.any() else one_empty

    return answer


def iou_loss(found, truth):
    return 1 - (found & truth).sum() / (found | truth).sum() if (found | truth).any() else 0.0


def share_of(area):  # of the overlap in one of the two masks
    def answer(found, truth):
        if not found.any() or not truth.any():
            return float((found | truth).any())
        return 1 - (found & truth).sum() / area(found.sum(), truth.sum())

    return answer


def by_video(summary):
    return lambda losses, videos: np.stack(
        [np.atleast_1d(summary(losses[videos == v], axis=0)) for v in np.unique(videos)]
    )


def by_add_at(losses, videos):
    labels, at = np.unique(videos, return_inverse=True)
    total = np.zeros((len(labels), losses.shape[1]))
    np.add.at(total, at, losses)
    return total / np.bincount(at)[:, None]


def in_order_of_appearance(losses, videos):
    return np.array([losses[videos == v].mean(axis=0) for v in dict.fromkeys(videos.tolist())])


def neighbours_only(losses, videos):
    starts = np.flatnonzero(np.r_[True, np.diff(videos) != 0])
    return np.array([part.mean(axis=0) for part in np.split(losses, starts[1:])])


def walked(p, delta):
    return np.logical_and.accumulate(p <= delta)


RIGHT = [
    ("mask_loss", by_torch),
    ("mask_loss", dice_or()),
    ("video_means", by_add_at),
    ("video_means", lambda x, v: by_add_at(x, v).tolist()),
    ("video_means", lambda x, v: (row for row in by_add_at(x, v))),
    ("every_hospital", lambda p, delta: (hit for hit in walked(p.max(axis=0), delta))),
    ("every_hospital", lambda p, delta: walked(p.max(axis=0), delta)),
    ("every_hospital", lambda p, delta: np.all([walked(row, delta) for row in p], axis=0).tolist()),
]

WRONG = [
    ("mask_loss", iou_loss, "IoU"),
    ("mask_loss", lambda a, b: 1 - by_torch(a, b), "this is Dice"),
    ("mask_loss", lambda a, b: by_torch(a, b) / 2 + 0.5 if (a | b).any() else 0.0, "overlap counts twice"),
    ("mask_loss", dice_or(empty=1.0), "two empty masks agree"),
    ("mask_loss", dice_or(one_empty=0.0), "a false alarm on an empty frame is a total failure"),
    ("mask_loss", dice_or(empty=np.nan), "two empty masks agree"),
    ("mask_loss", lambda a, b: (a != b).mean(), "the share of wrong pixels"),
    (
        "mask_loss",
        lambda a, b: abs(int(a.sum()) - int(b.sum())) / max(a.sum() + b.sum(), 1),
        "the overlap is one pixel",
    ),
    ("mask_loss", lambda a, b: by_torch(a, b) if b.any() else 0.0, "a false alarm"),
    ("mask_loss", lambda a, b: by_torch(a, b) if a.any() else 0.0, "nothing found"),
    ("mask_loss", lambda a, b: 1.0 if a.any() and (a == b).all() else by_torch(a, b), "equal masks"),
    ("mask_loss", share_of(max), "area of the other"),
    ("mask_loss", share_of(min), "area of the other"),
    ("video_means", in_order_of_appearance, "sorted labels"),
    ("video_means", neighbours_only, "side by side"),
    ("video_means", lambda x, v: np.repeat(x.mean(axis=0)[None], len(set(v)), axis=0), "each video"),
    ("video_means", lambda x, v: by_add_at(x, v)[0], "a row a video"),
    ("video_means", lambda x, v: by_add_at(x, v) * np.bincount(v)[np.unique(v)][:, None], "each video"),
    ("video_means", by_video(np.median), "divided by their number"),
    ("video_means", by_video(lambda x, axis: (x.min(axis) + x.max(axis)) / 2), "divided by their number"),
    ("video_means", by_video(lambda x, axis: x.sum(axis) / min(len(x), 2)), "divided by their number"),
    ("video_means", by_video(lambda x, axis: x.mean()), "a row a video"),
    ("video_means", lambda x, v: {video: x[v == video].mean(axis=0) for video in v}, "a row a video"),
    ("video_means", lambda x, v: [[0.5], [0.5, 0.6]], "a row a video"),
    ("video_means", lambda x, v: by_add_at(x, v) if len(x) > 1 else x[0], "is a table (1, m)"),
    ("every_hospital", lambda p, delta: p.max(axis=0) > delta, "every hospital is refuted"),
    (
        "every_hospital",
        lambda p, delta: walked(p.max(axis=0), delta) if len(p) > 1 else p[0] <= delta,
        "one hospital is",
    ),
    ("every_hospital", lambda p, delta: walked(p.max(axis=0), delta / len(p)), "need not be shared"),
    ("every_hospital", lambda p, delta: walked(p.min(axis=0), delta), "without evidence"),
    ("every_hospital", lambda p, delta: walked(p.max(axis=0), delta / p.shape[1]), "not delta / m"),
    ("every_hospital", lambda p, delta: walked(p.max(axis=1), delta), "which are the rows"),
    ("every_hospital", lambda p, delta: walked(p.mean(axis=0), delta), "without evidence"),
    ("every_hospital", lambda p, delta: p.max(axis=0) <= delta, "after the first failure"),
    ("every_hospital", lambda p, delta: walked(p[0], delta), "without evidence"),
    ("every_hospital", lambda p, delta: np.logical_and.accumulate(p.max(axis=0) < delta), "equal to delta"),
    ("every_hospital", lambda p, delta: walked(p[:2].max(axis=0), delta), "more than two hospitals"),
    ("every_hospital", lambda p, delta: walked(p[[0, -1]].max(axis=0), delta), "more than two hospitals"),
    ("every_hospital", lambda p, delta: walked(p.max(axis=0), 0.1), "delta that is given"),
    ("every_hospital", lambda p, delta: walked(p.prod(axis=0), delta ** len(p)), "without evidence"),
]


(
    test_right_answers_are_accepted,
    test_wrong_answers_are_refused_by_name,
    test_every_misconception_of_a_checker_is_told_to_somebody,
) = right_and_wrong(RIGHT, WRONG)


def test_the_claim_about_every_hospital_needs_no_share_of_delta():
    rng = np.random.default_rng(0)
    p = np.where(np.arange(3)[:, None] == 0, rng.random((4000, 3, 1)), 0.0)  # one hospital is too bad, two are perfect
    false = sum(bool(exercises.EXERCISES["every_hospital"].solution(table, 0.1)[0]) for table in p)
    assert ErrorRate(false, 4000, 0.1).evidence > 1e-4
    assert ErrorRate(int((p.min(axis=1) <= 0.1).sum()), 4000, 0.1).evidence < 1e-4  # the smallest p-value is no answer


# Figures


def drawn(picture):
    picture.png()
    return picture


def test_overlays_outline_what_there_is_and_tint_what_was_found():
    truth = np.zeros((3, 8, 8), dtype=bool)
    found = truth.copy()
    truth[0, 2:5, 2:5], found[1, 4:6, 4:6] = True, True  # a polyp missed; a false alarm; nothing at all
    captions = ["missed", "false alarm", "empty"]
    picture = drawn(plots.overlays(np.full((3, 3, 8, 8), 0.5), truth, found, captions, columns=2))
    assert picture.alt == "Frames with the true and the found mask. missed; false alarm; empty."
    assert [len(ax.collections) for ax in picture.axes] == [1, 1, 0, 0]
    tinted = [(ax.images[0].get_array() != 0.5).any(axis=-1).sum() for ax in picture.axes[:3]]
    assert tinted == [0, 4, 0]


def test_layers_are_drawn_from_input_to_output():
    picture = drawn(plots.by_layer({"a": [0.5, 0.2, 0.9], "b": [0, 0, 0]}, list("xyz"), xlabel="share", line=1))
    (ax,) = picture.axes
    assert ax.lines[0].get_xydata().tolist() == [[0.5, 0], [0.2, 1], [0.9, 2]]
    low, high = ax.get_ylim()
    assert low > high  # the first layer is on top
    assert picture.alt == "Share by layer. A: from 0.2 (y) to 0.9 (z); b: from 0 (x) to 0 (x)."


def test_variances_are_told_as_shares_of_the_largest():
    picture = drawn(plots.variance_shares([0, 0.5, 0.9], [0, 0.5, 0.1], {"a": [0, 0.05, 0.045]}))
    assert picture.alt.endswith("A: 0.2 of the largest possible at ratio 0.5, 0.5 at 0.9.")
    assert picture.axes[0].lines[0].get_ydata() == pytest.approx([0, 0.25, 0.09])


def test_the_frame_stands_beside_the_certificate():
    result = calibrate_losses(np.repeat([[0, 1]], 60, axis=0), [0.2, 0.6], alpha=0.1, delta=0.1)
    square = np.zeros((4, 4), dtype=bool)
    square[:2, :2] = True
    masks = {"truth": square, "full": square, "pruned": np.zeros((4, 4), dtype=bool)}
    picture = drawn(plots.frame_and_certificate(np.zeros((3, 4, 4)), masks, result, 0.2))
    left, right = picture.axes
    assert len(left.collections) == 2  # an empty mask has no outline
    assert right.get_title(loc="left") == "Ratio 0.2: certified"
    assert [line.get_xdata().tolist() for line in right.lines[:2]] == [[0.2], [0.6]]
    assert picture.alt == (
        "Ratio 0.2: certified. Dice of the pruned with the truth 0.00, full 0.00; alpha = 0.1, certified up to 0.2."
    )
    assert plots.frame_and_certificate(np.zeros((3, 4, 4)), masks, result, 0.6).alt.startswith("Ratio 0.6: not cert")


# The explorer


def test_the_explorer_shows_the_network_and_the_recorded_certificate(frames, monkeypatch):
    shown = []
    monkeypatch.setattr(controls, "display", shown.append)
    widgets.polyp_explorer(frames, ratio=0.5, alpha=0.2, seed=3)
    model = models.load("polyp-unet")
    with torch.inference_mode():
        full, pruned = (network(frames.images[:1]) > 0 for network in (model, pruning.prune(model, 0.5)))
    recorded = data.polyp_losses("one_minus_dice_to_full")
    home = recorded.centre < 6
    videos = group_means(recorded.losses[home], recorded.group[home])
    videos = videos[np.random.default_rng(3).permutation(len(videos))]
    result = calibrate_losses(videos, recorded.ratios, alpha=0.2, delta=0.1, p_value="betting")
    masks = {"truth": frames.masks[0, 0], "full network": full[0, 0], "pruned network": pruned[0, 0]}
    masks = {name: mask.numpy() for name, mask in masks.items()}
    alt = plots.frame_and_certificate(frames.images[0], masks, result, 0.5).alt
    assert shown[0].alt == f"Frame 0, of centre C{frames.centre[0]}. {alt}"


def test_every_control_of_the_explorer_changes_the_picture(frames, monkeypatch):
    kept = {}
    monkeypatch.setattr(widgets, "explore", lambda draw, **controls: kept.update(draw=draw, controls=controls))
    widgets.polyp_explorer(frames)
    values = {name: control.value for name, control in kept["controls"].items()}
    assert values == {"frame": 0, "ratio": 0.4, "loss": "one_minus_dice_to_full", "alpha": 0.1}
    changes = [{"frame": 1}, {"ratio": 0.7}, {"loss": "dice_degradation"}, {"alpha": 0.3}]
    alts = [kept["draw"](**values | change).alt for change in [{}, *changes]]
    assert len(set(alts)) == 5


def test_the_explorer_shows_the_network_of_each_ratio_in_whatever_order_they_are_visited(frames, monkeypatch):
    kept, shown = {}, []
    monkeypatch.setattr(widgets, "explore", lambda draw, **controls: kept.update(draw=draw))

    def drawn(_, masks, __, ratio):
        shown.append((masks, ratio))
        return plots.Picture()

    monkeypatch.setattr(plots, "frame_and_certificate", drawn)
    widgets.polyp_explorer(frames)
    for asked in (0.6, 0.3, 0.0, 0.7, 0.511, 0.3):
        kept["draw"](frame=3, ratio=asked, loss="dice_degradation", alpha=0.1)
    assert [ratio for _, ratio in shown] == pytest.approx([0.6, 0.3, 0, 0.7, 0.52, 0.3])  # the nearest recorded one
    model = models.load("polyp-unet")
    with torch.inference_mode():
        for masks, ratio in shown:
            for name, share in (("full network", 0.0), ("pruned network", ratio)):
                assert (masks[name] == (pruning.prune(model, share)(frames.images[[3]]) > 0)[0, 0].numpy()).all()
    found = [masks["pruned network"].sum() for masks, _ in shown]
    assert len(set(found)) > 2 and (shown[2][0]["pruned network"] == shown[2][0]["full network"]).all()


def test_the_explorer_computes_only_what_a_control_changes(frames, monkeypatch):
    kept, calls = {}, []

    def counted(module, name):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **kwargs: calls.append(name) or original(*args, **kwargs))

    counted(models.UNet, "forward")
    counted(pruning, "global_order")
    counted(calibration, "calibrate_losses")
    monkeypatch.setattr(widgets, "explore", lambda draw, **controls: kept.update(draw=draw))
    widgets.polyp_explorer(frames)
    assert calls == ["global_order"]  # sorted once, and nothing else before it is asked for
    values = {"frame": 0, "ratio": 0.4, "loss": "dice_degradation", "alpha": 0.1}
    fresh = [
        ({}, ["forward", "forward", "calibrate_losses"]),
        ({"ratio": 0.5}, ["forward"]),
        ({"alpha": 0.2}, ["calibrate_losses"]),
        ({"loss": "one_minus_iou"}, ["calibrate_losses"]),
        ({"frame": 1}, ["forward", "forward"]),
        ({}, []),
    ]
    for change, want in fresh:
        calls.clear()
        kept["draw"](**values | change)
        assert calls == want, change


# Claims of the lesson


def home_videos(loss, family="magnitude"):
    recorded = data.polyp_losses(loss, family)
    home = recorded.centre < 6
    return group_means(recorded.losses[home], recorded.group[home]), recorded.ratios


@pytest.mark.long
@pytest.mark.parametrize("loss", data.POLYP_LOSSES)
@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_repeated_splits_by_video_keep_the_promise(loss, alpha):
    videos, ratios = home_videos(loss)
    rule = {"n_calibration": 40, "alpha": alpha, "delta": 0.1, "trials": 1000}
    splits = repeated_splits(videos, ratios, **rule)
    assert ErrorRate(round(1000 * splits.any_broken), 1000, 0.1).evidence > 1e-4


@pytest.mark.long
def test_splits_by_video_see_a_rule_that_breaks_the_promise():
    videos, ratios = home_videos("one_minus_dice_to_full")
    splits = repeated_splits(videos, ratios, n_calibration=40, alpha=0.1, delta=0.1, procedure=lambda p, d: p < 1)
    assert ErrorRate(round(1000 * splits.any_broken), 1000, 0.1).evidence < 1e-4


def clustered(trials=2000, videos=40, frames=10, alpha=0.1, seed=5):
    """0/1 losses whose mean is a hair above alpha; the frames of a video share its difficulty."""
    rng = np.random.default_rng(seed)
    hair = 1.001 * alpha
    return rng.random((trials, videos, frames)) < rng.beta(hair / 2, (1 - hair) / 2, size=(trials, videos, 1))


def test_frames_of_one_video_are_not_independent_examples():
    missed = clustered()
    by_frame = pvalues.binomial(missed.sum(axis=(1, 2)), 400, 0.1)
    by_video = np.array(
        [pvalues.tight(group_means(x.reshape(-1, 1), np.repeat(range(40), 10)).sum(), 40, 0.1) for x in missed]
    )
    rates = [ErrorRate(int((p <= 0.1).sum()), len(missed), 0.1) for p in (by_frame, by_video)]
    assert rates[0].evidence < 1e-4 < rates[1].evidence


def test_what_the_prose_says_about_pruning_a_unet():
    certified = {
        (loss, family, method): calibrate_losses(
            home_videos(loss, family)[0], ratios, alpha=0.1, delta=0.1, p_value=method
        )
        for loss in ("one_minus_dice_to_full", "dice_degradation")
        for family in data.POLYP_FAMILIES
        for method, ratios in (("tight", data.polyp_losses().ratios), ("hoeffding_bentkus", data.polyp_losses().ratios))
    }
    ratio = {key: result.ratio or 0.0 for key, result in certified.items()}
    assert 0 < ratio["one_minus_dice_to_full", "magnitude", "hoeffding_bentkus"] < 0.5  # only a little
    for loss in ("one_minus_dice_to_full", "dice_degradation"):
        assert ratio[loss, "layerwise", "tight"] < ratio[loss, "magnitude", "tight"]
    assert ratio["dice_degradation", "batch-norm", "tight"] > ratio["dice_degradation", "magnitude", "tight"]
    assert ratio["one_minus_dice_to_full", "batch-norm", "tight"] == 0  # new statistics change masks from ratio 0 on
    missed, centre = data.polyp_losses("false_negative_rate").losses, data.polyp_losses().centre
    assert (missed[centre == 6].mean(axis=0) > missed[centre < 6].mean(axis=0))[:20].all()  # C6 is the harder one


def test_what_the_prose_says_about_frames_and_hospitals():
    settings = {"delta": 0.1, "p_value": "tight"}
    gains = []
    for loss, alpha in (("one_minus_dice_to_full", 0.1), ("false_negative_rate", 0.3), ("dice_degradation", 0.1)):
        recorded = data.polyp_losses(loss)
        tables = recorded.losses[recorded.centre < 6], home_videos(loss)[0]
        frames, videos = (calibrate_losses(t, recorded.ratios, alpha=alpha, **settings).ratio for t in tables)
        gains.append(frames - videos)
    assert (round(min(gains), 2), round(max(gains), 2)) == (0.04, 0.1)  # "more by four to ten points"
    for loss in ("one_minus_iou_to_full", "one_minus_dice_to_full", "dice_degradation"):
        recorded, home = data.polyp_losses(loss), data.polyp_losses(loss).centre < 6
        at = recorded.losses[:, np.argmin(abs(recorded.ratios - 0.3))]
        assert abs(at[home].mean() - at[~home].mean()) < 0.01  # "hardly a difference"


def test_zeros_fall_on_the_wide_layers_in_the_middle():
    pruned = pruning.prunable(pruning.prune(models.load("polyp-unet"), 0.7))
    zeros = {name: float((w == 0).float().mean()) for name, w in pruned.items()}
    assert max(zeros, key=zeros.get) == "decoder.0.0.weight" and zeros["decoder.0.0.weight"] > 0.7
    assert zeros["encoder.0.0.weight"] < 0.3 and zeros["head.weight"] < 0.1


# One loss a group


def test_group_means_are_those_of_a_loop_in_the_order_of_first_examples():
    rng = np.random.default_rng(0)
    labels = rng.choice(["b", "a", "d", "c"], size=50)
    table = rng.random((50, 7))
    order = list(dict.fromkeys(labels.tolist()))
    want = [
        [np.mean([x for x, label in zip(column, labels, strict=True) if label == g]) for column in table.T]
        for g in order
    ]
    assert group_means(table, labels) == pytest.approx(np.array(want), abs=1e-15)
    assert group_means(table > 0.5, labels).dtype == np.float64
    alone = group_means(table, np.arange(50)[::-1])
    assert (alone == table).all()  # groups of one change nothing, not even the order


def test_group_means_stay_in_the_range_of_the_losses():
    table = np.full((3, 1), 0.1)  # 0.1 + 0.1 + 0.1 is more than 0.3
    assert group_means(table, [1, 1, 1]).item() == 0.1


@pytest.mark.parametrize(
    ("table", "labels", "message"),
    [
        ([[0.1], [0.2]], [1], "groups must hold a label for each of 2 examples"),
        ([[0.1], [0.2]], [[1], [2]], "groups must hold a label"),
        ([[0.1], [0.2]], [0.5, 1.5], "groups must hold a label"),
        ([[0.1], [np.nan]], [1, 2], "losses must be finite"),
        ([0.1, 0.2], [1, 2], r"losses must have shape \(n, m\)"),
        (np.zeros((0, 1)), [], "at least one example"),
    ],
)
def test_bad_groups_are_refused(table, labels, message):
    with pytest.raises(ValueError, match=message):
        calibration.group_means(table, labels)
