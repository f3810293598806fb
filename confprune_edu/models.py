"""The networks of the course and their shipped weights.

`python -m confprune_edu.models train mnist-mlp --data-root ROOT` trains the shipped network again, and
`python -m confprune_edu.models record mnist-losses` its losses on the shipped digits.
"""

import argparse
import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate, max_pool2d
from torch.optim.swa_utils import update_bn
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask

from confprune_edu import data, evaluation, losses, pruning


class UNet(nn.Module):
    """Encoder, decoder and skip connections (Ronneberger et al., arXiv 1505.04597), batch norm; 1.13 million weights.

    Takes frames, shape (B, 3, H, W) with H and W multiples of 16; returns logits, shape (B, 1, H, W), positive where
    there is a polyp.

    >>> UNet()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1, 32, 32])
    """

    def __init__(self, widths=(16, 32, 64, 128, 192)):
        super().__init__()
        *skipped, below = widths
        self.encoder = nn.ModuleList(map(_double_convolution, (3, *skipped), widths))
        self.decoder = nn.ModuleList()
        for width in reversed(skipped):
            out = max(width // 2, widths[0])
            self.decoder.append(_double_convolution(below + width, out))
            below = out
        self.head = nn.Conv2d(below, 1, kernel_size=1)

    def forward(self, frames):
        features = self.encoder[0](frames)
        skips = []
        for block in self.encoder[1:]:
            skips.append(features)
            features = block(max_pool2d(features, 2))
        for block in self.decoder:
            larger = interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
            features = block(torch.cat([larger, skips.pop()], dim=1))
        return self.head(features)


def _double_convolution(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class MLP(nn.Module):
    """784 - 300 - 100 - 10 with ReLU: 266,200 weights in three linear layers, and 410 biases.

    Takes images, shape (B, 1, 28, 28) or any other with 784 values each; returns logits, shape (B, 10).

    >>> MLP()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self):
        super().__init__()
        self.hidden1 = nn.Linear(784, 300)
        self.hidden2 = nn.Linear(300, 100)
        self.output = nn.Linear(100, 10)

    def forward(self, images):
        hidden = self.hidden1(images.flatten(1)).relu()
        return self.output(self.hidden2(hidden).relu())


def load(name):
    """A network of the course with its shipped weights, ready to be evaluated.

    Parameters
    ----------
    name : str
        "mnist-mlp": an `MLP` trained on the 55,000 MNIST training images that are not in `data.mnist5k`;
        "polyp-unet": a `UNet` for frames of 128 x 128, trained on the PolypGen videos of `trained_on`, stored in half
        precision and computed in float32.

    Returns
    -------
    Module in eval mode, float32, on the CPU; the global random state stays as it was.

    Raises
    ------
    FileNotFoundError
        The shipped weights are missing.
    ValueError
        No network of this name, or its weights are truncated, altered or another file.

    >>> images, labels = data.mnist5k()
    >>> model = load("mnist-mlp")
    >>> with torch.inference_mode():
    ...     (model(images).argmax(1) != labels).sum().item()  # errors among the 5,000
    80
    """
    if name not in NETWORKS:
        raise ValueError(f"name is {name!r}; the networks are {', '.join(NETWORKS)}")
    stored = safetensors.torch.load(data.read_asset(f"{name}.safetensors"))
    weights = {key: v.float() if v.is_floating_point() else v for key, v in stored.items()}
    with torch.device("meta"):  # shapes only: initial weights would be drawn from the global generator
        model = NETWORKS[name]()
    model.load_state_dict(weights, assign=True)
    return model.eval()


def train_mnist_mlp(images, labels, *, seed=0, epochs=20):
    """Train an `MLP` with Adam, cosine learning rate and weight decay, which keeps the weights small and so prunable.

    Parameters
    ----------
    images : float32 tensor, shape (n, 1, 28, 28), in [0, 1]
    labels : int64 tensor, shape (n,), in 0..9
    seed : int
        Of the initial weights and the batches. One seed, one machine, one result; the global random state stays.
    epochs : int
        Passes through the images; 20 take about half a minute on two cores.

    Returns
    -------
    MLP in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        model = MLP()
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(images) // 256))
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(256):
                optimizer.zero_grad()
                cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def train_polyp_unet(frames, *, seed=0, epochs=140, report=None):
    """Train a `UNet` on polyp frames: AdamW, one cycle, cross-entropy plus Dice, frames turned, scaled, recoloured.

    Parameters
    ----------
    frames : data.PolypFrames
    seed : int
        Of the initial weights, batches and augmentation. One seed, one machine, one result; the global state stays.
    epochs : int
        Passes through the frames; one of 870 frames at 128 x 128 takes about 20 s on one core.
    report : callable, optional
        report(epoch, model) after each epoch.

    Returns
    -------
    UNet in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = UNet().to(memory_format=torch.channels_last)
        steps = -(-len(frames.images) // 16)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, epochs=epochs, steps_per_epoch=steps)
        augment = _augmentation()
        for epoch in range(epochs):
            for batch in torch.randperm(len(frames.images)).split(16):
                pairs = [augment(Image(frames.images[i]), Mask(frames.masks[i])) for i in batch]
                images, masks = (torch.stack(part) for part in zip(*pairs, strict=True))
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    logits = model(images.contiguous(memory_format=torch.channels_last))
                _mask_loss(logits.float(), masks.float()).backward()
                optimizer.step()
                schedule.step()
            if report:
                report(epoch, model)
                model.train()
    return model.to(memory_format=torch.contiguous_format).eval()


def _augmentation():
    """Any orientation, a little turn, zoom and shift, other light: what another video may look like."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomAffine(
                degrees=25, translate=(0.1, 0.1), scale=(0.8, 1.25), interpolation=v2.InterpolationMode.BILINEAR
            ),
            v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25, hue=0.03),
        ]
    )


def _mask_loss(logits, masks):
    """Cross-entropy of the pixels plus 1 - Dice of each frame, so that small polyps and empty frames count as much."""
    inside = logits.sigmoid()
    both, either = (inside * masks).sum(dim=(1, 2, 3)), (inside + masks).sum(dim=(1, 2, 3))
    return binary_cross_entropy_with_logits(logits, masks) + (1 - (2 * both + 1) / (either + 1)).mean()


def trained_on(frames):
    """Which frames belong to the videos that the shipped UNet learned from: about 60 % of those of centres C1 to C5.

    Calibrate and test on the others. A video's name alone decides (by a hash), so that the answer is the same whatever
    else was loaded, and frames of one video stay together.

    Parameters
    ----------
    frames : data.PolypFrames, read by `data.polypgen`

    Returns
    -------
    bool array, shape (N,).
    """
    draws = [int.from_bytes(hashlib.sha256(video.encode()).digest()[:4], "big") / 2**32 for video in frames.videos]
    return (np.asarray(frames.centre) <= 5) & (np.array(draws) < 0.6)


NETWORKS = {"mnist-mlp": MLP, "polyp-unet": UNet}  # the weights of NAME are the asset NAME.safetensors


def _mnist_mlp(options):
    """Train on the MNIST images that do not ship, return the weights and the sentence about the test accuracy."""
    images, labels = data.without_mnist5k(*data.mnist(options.data_root, download=options.download))
    model = train_mnist_mlp(images, labels, seed=options.seed, epochs=options.epochs or 20)
    tests, truth = data.mnist(options.data_root, train=False)
    with torch.inference_mode():
        right = int((model(tests).argmax(1) == truth).sum())
    return (
        model.state_dict(),
        f"trained on {len(images)} images; {right} of {len(truth)} test images right: {right / len(truth):.2%}",
    )


def _polyp_unet(options):
    """Train on the videos of `trained_on`, return half-precision weights and their quality on the other videos."""
    frames = data.polypgen(options.data_root)
    known = trained_on(frames)
    epochs = options.epochs or 140
    model = train_polyp_unet(
        frames[known],
        seed=options.seed,
        epochs=epochs,
        report=lambda epoch, _: print(f"epoch {epoch + 1} of {epochs}", end="\r", flush=True),
    )
    weights = {name: v.half() if v.is_floating_point() else v for name, v in model.state_dict().items()}
    model.load_state_dict(weights)
    return weights, f"trained on {known.sum()} frames; on videos that it never saw:\n" + quality(model, frames[~known])


def quality(model, frames):
    """Mean Dice and IoU of the frames by centre, as lines of text.

    Parameters
    ----------
    model : Module, frames (B, 3, size, size) -> logits (B, 1, size, size)
    frames : data.PolypFrames

    Returns
    -------
    str, one line a centre.

    >>> empty = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    >>> one = np.array([2]), np.array([0]), ("a.jpg",), ("C2/0001",)   # centre, group, name, video
    >>> frames = data.PolypFrames(torch.zeros(1, 3, 16, 16), empty, *one)
    >>> print(quality(lambda images: images[:, :1] - 1, frames))   # finds nothing where there is nothing
    centre  frames   Dice    IoU
    C2           1  1.000  1.000
    all          1  1.000  1.000
    """
    with torch.inference_mode():
        logits = torch.cat([model(images) for images in frames.images.split(32)])
    dice = 1 - losses.one_minus_dice(logits, None, frames.masks)
    iou = 1 - losses.one_minus_iou(logits, None, frames.masks)
    lines = ["centre  frames   Dice    IoU"]
    for centre in np.unique(frames.centre):
        here = torch.as_tensor(frames.centre == centre)
        lines.append(f"C{centre}     {int(here.sum()):>7}  {dice[here].mean():.3f}  {iou[here].mean():.3f}")
    return "\n".join([*lines, f"all    {len(dice):>7}  {dice.mean():.3f}  {iou.mean():.3f}"])


RATIOS = np.arange(100) / 100  # of the recorded losses on digits
RECIPES = {"mnist-mlp": _mnist_mlp, "polyp-unet": _polyp_unet}  # options of the command -> weights, what they achieve


def _mnist_losses(options):
    """The arrays of mnist-losses.npz: by loss, the table (5000, m) with eight digits in a byte, (625, m); `ratios`."""
    wanted = {loss: getattr(losses, loss) for loss in data.MNIST_LOSSES}
    tables = evaluation.loss_tables(load("mnist-mlp"), data.mnist5k(), RATIOS, wanted)
    return {"ratios": RATIOS, **{loss: np.packbits(table, axis=0) for loss, table in tables.items()}}


POLYP_RATIOS = np.arange(50) / 50  # of the recorded losses on frames


def _polyp_losses(options):
    """The arrays of polyp-losses.npz: FAMILY/LOSS float16 (n, m), `ratios` (m,), and centre, group, names (n,)."""
    if options.data_root is None:
        raise SystemExit("polyp-losses needs --data-root, the folder that holds PolypGen")
    frames, model = data.polypgen(options.data_root), load("polyp-unet")
    known = trained_on(frames)
    unseen = frames[~known]
    wanted: dict[str, evaluation.Loss] = {
        "one_minus_iou": losses.one_minus_iou,
        "one_minus_dice": losses.one_minus_dice,
        "false_negative_rate": losses.false_negative_rate,
        "dice_degradation": losses.dice_degradation,
        "one_minus_iou_to_full": partial(losses.one_minus_iou, against="full"),
        "one_minus_dice_to_full": partial(losses.one_minus_dice, against="full"),
    }
    families: dict[str, dict[str, Any]] = {
        "magnitude": {},
        "batch-norm": {"finish": partial(update_bn, frames.images[known][::4].split(32))},
        "layerwise": {"scores": {name: _rank(weight) for name, weight in pruning.magnitude(model).items()}},
    }
    tables: dict[str, np.ndarray] = {}
    for family, how in families.items():
        some = evaluation.loss_tables(model, (unseen.images, unseen.masks), POLYP_RATIOS, wanted, **how)
        tables |= {f"{family}/{loss}": _half_up(table) for loss, table in some.items()}
    return {
        "ratios": POLYP_RATIOS,
        "centre": unseen.centre.astype(np.int8),
        "group": unseen.group.astype(np.int16),
        "names": np.array(unseen.names),
        **tables,
    }


def _rank(scores):
    """Share of the layer's weights that are at most as large, in (0, 1]: pruning by it takes as much of every layer."""
    return scores.flatten().argsort().argsort().reshape(scores.shape).add(1) / scores.numel()


def _half_up(table):
    """The losses in half precision, rounded up: what is recorded never understates a loss."""
    half = table.astype(np.float16)
    return np.where(half < table, np.nextafter(half, np.float16(1)), half)


RECORDS = {"mnist-losses": _mnist_losses, "polyp-losses": _polyp_losses}  # options of the command -> arrays to store


def _train(options, out):
    weights, report = RECIPES[options.name](options)
    out.write_bytes(safetensors.torch.save(weights))
    print(report)


def _record(options, out):
    arrays = RECORDS[options.name](options)
    with out.open("wb") as file:
        np.savez_compressed(file, **arrays)


def main(arguments=None):
    """Make a shipped file again: train a network, or record the losses of a shipped one."""
    parser = argparse.ArgumentParser(prog="python -m confprune_edu.models", description=main.__doc__)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train a network")
    train.add_argument("name", choices=list(RECIPES))
    train.add_argument("--data-root", type=Path, required=True, help="folder that holds MNIST/raw, or PolypGen")
    train.add_argument("--download", action="store_true", help="fetch what is missing of MNIST there")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--epochs", type=int, help="passes through the data (default: as shipped)")
    train.set_defaults(run=_train, suffix=".safetensors")
    record = commands.add_parser("record", help="losses of a shipped network on examples that it never saw")
    record.add_argument("name", choices=list(RECORDS))
    record.add_argument("--data-root", type=Path, help="folder that holds PolypGen, for the losses on its frames")
    record.set_defaults(run=_record, suffix=".npz")
    for command in (train, record):
        command.add_argument("--out", type=Path, help="file to write (default: NAME with its suffix)")
    options = parser.parse_args(arguments)
    out = options.out or Path(f"{options.name}{options.suffix}")
    if not out.parent.is_dir():
        parser.error(f"--out: there is no folder {out.parent}")
    options.run(options, out)
    content = out.read_bytes()
    print(f"{out}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
