"""How the shipped networks were trained, and how good they are."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from confprune_edu import losses
from confprune_edu.data import PolypFrames
from confprune_edu.models.networks import UNet


def train_classifier(
    network: Callable[[], nn.Module], inputs: Tensor, targets: Tensor, *, epochs: int, seed: int = 0
) -> nn.Module:
    """Train a network with Adam, cosine learning rate and weight decay, which keeps the weights small and so prunable.

    Parameters
    ----------
    network : callable
        Makes the network: `CNN`, say.
    inputs : tensor, shape (n, ...)
    targets : int64 tensor, shape (n,)
        Which of the network's outputs should be the largest.
    epochs : int
        Passes through the inputs.
    seed : int
        Of the initial weights and the batches. One seed, one machine, one result; the global random state stays.

    Returns
    -------
    Module in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(inputs) // 256))
        for _ in range(epochs):
            for batch in torch.randperm(len(inputs)).split(256):
                optimizer.zero_grad()
                cross_entropy(model(inputs[batch]), targets[batch]).backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def train_polyp_unet(
    frames: PolypFrames, *, seed: int = 0, epochs: int = 140, report: Callable[[int, nn.Module], object] | None = None
) -> UNet:
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
                pairs = [augment(frames.images[i], frames.masks[i]) for i in batch]
                images, masks = (torch.stack(part) for part in zip(*pairs, strict=True))
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    logits = model(images.contiguous(memory_format=torch.channels_last))
                mask_loss(logits.float(), masks.float()).backward()
                optimizer.step()
                schedule.step()
            if report:
                report(epoch, model)
                model.train()
    return model.to(memory_format=torch.contiguous_format).eval()


def _augmentation() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Changes (image, mask): any orientation, a little turn, zoom and shift, other light, as another video may have."""
    from torchvision.transforms import v2  # loads torch's compiler: 170 MB that no lesson needs
    from torchvision.tv_tensors import Image, Mask

    change = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomAffine(
                degrees=25, translate=(0.1, 0.1), scale=(0.8, 1.25), interpolation=v2.InterpolationMode.BILINEAR
            ),
            v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25, hue=0.03),
        ]
    )
    return lambda image, mask: change(Image(image), Mask(mask))


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of the pixels plus 1 - Dice of each frame, so that small polyps and empty frames count as much."""
    inside = logits.sigmoid()
    both, either = (inside * masks).sum(dim=(1, 2, 3)), (inside + masks).sum(dim=(1, 2, 3))
    return binary_cross_entropy_with_logits(logits, masks) + (1 - (2 * both + 1) / (either + 1)).mean()


def trained_on(frames: PolypFrames) -> NDArray[np.bool_]:
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


def quality_by_centre(model: Callable[[Tensor], Tensor], frames: PolypFrames) -> str:
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
    >>> from confprune_edu.data import PolypFrames
    >>> frames = PolypFrames(torch.zeros(1, 3, 16, 16), empty, *one)
    >>> print(quality_by_centre(lambda images: images[:, :1] - 1, frames))   # finds nothing where there is nothing
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
