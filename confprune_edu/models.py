"""The networks of the course and their shipped weights.

`python -m confprune_edu.models train mnist-mlp --data-root ROOT` trains the shipped network again, and
`python -m confprune_edu.models record mnist-losses` its losses on the shipped digits.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from confprune_edu import data, evaluation, losses


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
        "mnist-mlp": an `MLP` trained on the 55,000 MNIST training images that are not in `data.mnist5k`.

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
    weights = safetensors.torch.load(data.read_asset(f"{name}.safetensors"))
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


NETWORKS = {"mnist-mlp": MLP}  # the weights of NAME are the asset NAME.safetensors


def _mnist_mlp(options):
    """Train on the MNIST images that do not ship, return the model and the sentence about its test accuracy."""
    images, labels = data.without_mnist5k(*data.mnist(options.data_root, download=options.download))
    model = train_mnist_mlp(images, labels, seed=options.seed, epochs=options.epochs)
    tests, truth = data.mnist(options.data_root, train=False)
    with torch.inference_mode():
        right = int((model(tests).argmax(1) == truth).sum())
    return (
        model,
        f"trained on {len(images)} images; {right} of {len(truth)} test images right: {right / len(truth):.2%}",
    )


RATIOS = np.arange(100) / 100  # of the recorded losses
RECIPES = {"mnist-mlp": _mnist_mlp}  # each: options of the command -> model, sentence about its test accuracy


def _mnist_losses(ratios):
    """The arrays of mnist-losses.npz: by loss, the table (5000, m) with eight digits in a byte, (625, m); `ratios`."""
    tables = {
        loss: evaluation.loss_table(load("mnist-mlp"), data.mnist5k(), ratios, getattr(losses, loss))
        for loss in data.MNIST_LOSSES
    }
    return {"ratios": ratios, **{loss: np.packbits(table, axis=0) for loss, table in tables.items()}}


def _train(options, out):
    model, report = RECIPES[options.name](options)
    out.write_bytes(safetensors.torch.save(model.state_dict()))
    print(report)


def _record(options, out):
    with out.open("wb") as file:
        np.savez_compressed(file, **_mnist_losses(RATIOS))


def main(arguments=None):
    """Make a shipped file again: train a network, or record the losses of the shipped one on the shipped digits."""
    parser = argparse.ArgumentParser(prog="python -m confprune_edu.models", description=main.__doc__)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train a network on MNIST")
    train.add_argument("name", choices=list(RECIPES))
    train.add_argument("--data-root", type=Path, required=True, help="folder that holds MNIST/raw")
    train.add_argument("--download", action="store_true", help="fetch what is missing there")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--epochs", type=int, default=20)
    train.set_defaults(run=_train, suffix=".safetensors")
    record = commands.add_parser("record", help="losses of a shipped network on the shipped digits")
    record.add_argument("name", choices=["mnist-losses"])
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
