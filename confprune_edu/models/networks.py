"""The networks of the course, and their shipped weights."""

from collections.abc import Sequence

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from confprune_edu import data


class UNet(nn.Module):
    """Encoder, decoder and skip connections (Ronneberger et al., arXiv 1505.04597), batch norm; 1.13 million weights.

    Takes frames, shape (B, 3, H, W) with H and W multiples of 16; returns logits, shape (B, 1, H, W), positive where
    there is a polyp.

    >>> UNet()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1, 32, 32])
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128, 192)) -> None:
        super().__init__()
        *skipped, below = widths
        self.encoder = nn.ModuleList(map(_double_convolution, (3, *skipped), widths))
        self.decoder = nn.ModuleList()
        for width in reversed(skipped):
            out = max(width // 2, widths[0])
            self.decoder.append(_double_convolution(below + width, out))
            below = out
        self.head = nn.Conv2d(below, 1, kernel_size=1)

    def forward(self, frames: Tensor) -> Tensor:
        features = self.encoder[0](frames)
        skips = []
        for block in self.encoder[1:]:
            skips.append(features)
            features = block(max_pool2d(features, 2))
        for block in self.decoder:
            larger = interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
            features = block(torch.cat([larger, skips.pop()], dim=1))
        return self.head(features)


def _double_convolution(inputs: int, outputs: int) -> nn.Sequential:
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

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(784, 300)
        self.hidden2 = nn.Linear(300, 100)
        self.output = nn.Linear(100, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.hidden1(images.flatten(1)).relu()
        return self.output(self.hidden2(hidden).relu())


def load(name: str) -> nn.Module:
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


# the weights of NAME are the asset NAME.safetensors
NETWORKS: dict[str, type[nn.Module]] = {"mnist-mlp": MLP, "polyp-unet": UNet}
