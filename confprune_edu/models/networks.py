"""The networks of the course, and their shipped weights."""

from collections.abc import Sequence

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from confprune_edu import _checks, data


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


class CNN(nn.Sequential):
    """Two convolutions of 5 x 5 and two linear layers: 215,370 parameters.

    Takes images, shape (B, 1, 28, 28); returns logits, shape (B, 10).

    >>> CNN()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )


class VisionTransformer(nn.Module):
    """16 patches of 7 x 7 pixels, four transformer blocks, their mean (Dosovitskiy et al., arXiv 2010.11929).

    Takes images, shape (B, 1, 28, 28); returns logits, shape (B, 10). 139,000 parameters.

    >>> VisionTransformer()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, kernel_size=7, stride=7)
        self.positions = nn.Embedding(16, WIDTH)
        self.blocks = nn.Sequential(*[_block() for _ in range(4)])
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.patches(images).flatten(2).transpose(1, 2) + self.positions.weight
        return self.output(self.norm(self.blocks(features)).mean(1))


class RowGRU(nn.Module):
    """A recurrent network that reads an image row by row, and answers after the last one.

    Takes images, shape (B, 1, 28, 28); returns logits, shape (B, 10). 62,000 parameters.

    >>> RowGRU()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.GRU(28, 128, batch_first=True)
        self.output = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        states, _ = self.rows(images.squeeze(1))
        return self.output(states[:, -1])


class LetterGRU(nn.Module):
    """Two recurrent networks that read a word's letters, one from either end: how many syllables has it?

    Takes letters as `data.spell` gives them, shape (B, 16); returns logits, shape (B, 7), of 0 to 6 syllables. 77,000
    parameters.

    >>> LetterGRU()(torch.tensor(data.spell(["zebra"]))).shape
    torch.Size([1, 7])
    """

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(27, 32)
        self.reader = nn.GRU(32, 96, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * 96, 7)

    def forward(self, letters: Tensor) -> Tensor:
        _, last = self.reader(self.letters(letters))
        return self.output(last.transpose(0, 1).flatten(1))


class LetterTransformer(nn.Module):
    """Three transformer blocks over the letters of a word, whose features are added up: how many syllables has it?

    Takes letters as `data.spell` gives them, shape (B, 16); returns logits, shape (B, 7), of 0 to 6 syllables. 104,000
    parameters.

    >>> LetterTransformer()(torch.tensor(data.spell(["zebra"]))).shape
    torch.Size([1, 7])
    """

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(27, WIDTH)
        self.positions = nn.Embedding(16, WIDTH)
        self.blocks = nn.ModuleList([_block() for _ in range(3)])
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, 7)

    def forward(self, letters: Tensor) -> Tensor:
        empty = letters == 0
        features = self.letters(letters) + self.positions.weight
        for block in self.blocks:
            features = block(features, src_key_padding_mask=empty)
        # a sum, not a mean: what is counted grows with the word
        return self.output(self.norm(features).masked_fill(empty[..., None], 0).sum(1) / 16)


WIDTH = 64  # of the transformers


def _block() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        WIDTH, nhead=4, dim_feedforward=2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
    )


def load(name: str) -> nn.Module:
    """A network of the course with its shipped weights, ready to be evaluated.

    Parameters
    ----------
    name : str
        "mnist-mlp" (an `MLP`), "mnist-cnn" (`CNN`), "mnist-vit" (`VisionTransformer`), "mnist-gru" (`RowGRU`): trained
        on the 55,000 MNIST training images that are not in `data.mnist5k`;
        "words-gru" (`LetterGRU`), "words-transformer" (`LetterTransformer`): trained on 105,722 words of
        `data.cmudict`, none of them in `data.words5k`;
        "polyp-unet": a `UNet` for frames of 128 x 128, trained on the PolypGen videos of `trained_on`.
        All but the first are stored in half precision and computed in float32.

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
    _checks.choice(name, "name", NETWORKS)
    stored = safetensors.torch.load(data.read_asset(f"{name}.safetensors"))
    weights = {key: v.float() if v.is_floating_point() else v for key, v in stored.items()}
    with torch.device("meta"):  # shapes only: initial weights would be drawn from the global generator
        model = NETWORKS[name]()
    model.load_state_dict(weights, assign=True)
    return model.eval()


# the weights of NAME are the asset NAME.safetensors
NETWORKS: dict[str, type[nn.Module]] = {
    "mnist-mlp": MLP,
    "mnist-cnn": CNN,
    "mnist-vit": VisionTransformer,
    "mnist-gru": RowGRU,
    "words-gru": LetterGRU,
    "words-transformer": LetterTransformer,
    "polyp-unet": UNet,
}
