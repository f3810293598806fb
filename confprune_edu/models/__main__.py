"""Train a shipped network again, or record its losses.

`python -m confprune_edu.models train NAME --data-root ROOT` trains the network NAME of `models.load`, and
`python -m confprune_edu.models record NAME-losses` records what pruning does to it; that of the UNet is polyp-losses.
"""

import argparse
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import update_bn

from confprune_edu import data, evaluation, losses, pruning
from confprune_edu.data.assets import size_and_checksum
from confprune_edu.models.networks import NETWORKS, load
from confprune_edu.models.training import mask_loss, quality_by_centre, train_classifier, train_polyp_unet, trained_on


def _digits(options):
    """Images and labels to train on, none of them in `mnist5k`, and others to test."""
    known = data.without_mnist5k(*data.mnist(options.data_root, download=options.download))
    return known, data.mnist(options.data_root, train=False)


def _words(options):
    """Letters and numbers of syllables to train on, and others to test; none of the words is in `words5k`."""
    words, syllables = data.cmudict(options.data_root / "cmudict.dict")
    letters, counts = torch.from_numpy(data.spell(words)), torch.from_numpy(syllables)
    tests, known = slice(5000, 10000), slice(10000, None)  # the first 5,000 ship
    return (letters[known], counts[known]), (letters[tests], counts[tests])


# Of each classifier: what gives its examples, passes through them, precision in which its weights are stored
CLASSIFIERS = {
    "mnist-mlp": (_digits, 20, torch.float32),
    "mnist-cnn": (_digits, 4, torch.float16),
    "mnist-vit": (_digits, 8, torch.float16),
    "mnist-gru": (_digits, 10, torch.float16),
    "words-gru": (_words, 5, torch.float16),
    "words-transformer": (_words, 12, torch.float16),
}


def _classifier(options):
    """Train on examples that do not ship, return the weights and the sentence about the accuracy on others."""
    examples, epochs, precision = CLASSIFIERS[options.name]
    known, (tests, truth) = examples(options)
    model = train_classifier(NETWORKS[options.name], *known, seed=options.seed, epochs=options.epochs or epochs)
    weights = _stored(model, precision)
    with torch.inference_mode():
        right = int((model(tests).argmax(1) == truth).sum())
    learned = f"trained on {len(known[0])} examples"
    return weights, f"{learned}; {right} of {len(truth)} others right: {right / len(truth):.2%}"


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
    weights = _stored(model, torch.float16)
    report = f"trained on {known.sum()} frames; on videos that it never saw:"
    return weights, f"{report}\n{quality_by_centre(model, frames[~known])}"


def _stored(model, precision):
    """The weights as they are stored; the model computes with these from now on, and is measured as it ships."""
    weights = {name: v.to(precision) if v.is_floating_point() else v for name, v in model.state_dict().items()}
    model.load_state_dict(weights)
    return weights


# options of the command -> weights, what they achieve
RECIPES = {**dict.fromkeys(CLASSIFIERS, _classifier), "polyp-unet": _polyp_unet}

RATIOS = np.arange(100) / 100  # of the recorded losses of classifiers


def _classifier_losses(name, options):
    """The arrays of NAME-losses.npz: FAMILY/LOSS, a table (5000, m) with eight rows in a byte, (625, m); `ratios`."""
    learned, _ = CLASSIFIERS[name][0](options)
    orders = _orders(load(name), tuple(part[:1000] for part in learned))
    examples = data.words5k()[:2] if name.startswith("words") else data.mnist5k()
    wanted = {loss: getattr(losses, loss) for loss in data.CLASSIFIER_LOSSES}
    stored: dict[str, np.ndarray] = {"ratios": RATIOS}
    for family in data.CLASSIFIER_FAMILIES[name]:
        tables = evaluation.loss_tables(load(name), examples, RATIOS, wanted, scores=orders[family]())
        stored |= {f"{family}/{loss}": np.packbits(table, axis=0) for loss, table in tables.items()}
    return stored


def _orders(model, learned):
    """The criteria that `data.CLASSIFIER_FAMILIES` names; three of them look at examples that the network learned."""
    return {
        "magnitude": partial(pruning.magnitude, model),
        "layerwise": partial(pruning.layerwise, model),
        "lamp": partial(pruning.lamp, model),
        "fisher": partial(pruning.fisher, model, learned, cross_entropy),
        "snip": partial(pruning.snip, model, learned, cross_entropy),
        "wanda": partial(pruning.wanda, model, learned[0]),
        "random": partial(pruning.random, model, seed=0),
        "product": lambda: product(pruning.lamp(model), pruning.fisher(model, learned, cross_entropy)),
    }


def product(one, other):
    """A score that is large where both are: neither LAMP nor Fisher alone goes as far on a transformer."""
    return {name: one[name] * other[name] for name in one}


TUNED_RATIOS = np.array([0.7, 0.8, 0.85, 0.9])


def _tuned_losses(options):
    """The arrays of tuned-losses.npz: NAME, degradation after pruning and a little training, packed (625, m)."""
    (images, labels), _ = _digits(options)
    batches = list(zip(images[1000:51000].split(250), labels[1000:51000].split(250), strict=True))
    tune = pruning.fine_tune(batches, cross_entropy, steps=200)
    stored = {"ratios": TUNED_RATIOS}
    for name in data.TUNED:
        scores = _orders(load(name), (images[:1000], labels[:1000]))["product"]()
        how: dict[str, Any] = {"scores": scores, "finish": tune}
        table = evaluation.loss_table(load(name), data.mnist5k(), TUNED_RATIOS, losses.degradation, **how)
        stored[name] = np.packbits(table, axis=0)
    return stored


POLYP_RATIOS = np.arange(50) / 50  # of the recorded losses on frames


def _polyp_losses(options):
    """The arrays of polyp-losses.npz: FAMILY/LOSS float16 (n, m), `ratios` (m,), and centre, group, names (n,)."""
    frames, model = data.polypgen(options.data_root), load("polyp-unet")
    known = trained_on(frames)
    unseen = frames[~known]
    wanted = {name: _polyp_loss(name) for name in data.POLYP_LOSSES}
    families: dict[str, dict[str, Any]] = {
        "magnitude": {},
        "batch-norm": {"finish": partial(update_bn, frames.images[known][::4].split(32))},
        "layerwise": {"scores": {name: rank(weight) for name, weight in pruning.magnitude(model).items()}},
    }
    tables: dict[str, np.ndarray] = {}
    for family, how in families.items():
        some = evaluation.loss_tables(model, (unseen.images, unseen.masks), POLYP_RATIOS, wanted, **how)
        tables |= {f"{family}/{loss}": half_up(table) for loss, table in some.items()}
    return {
        "ratios": POLYP_RATIOS,
        "centre": unseen.centre.astype(np.int8),
        "group": unseen.group.astype(np.int16),
        "names": np.array(unseen.names),
        **tables,
    }


ORDER_RATIOS = np.arange(4, 8) / 10  # of the recorded orders of the UNet's weights
STEPS = 80  # of training


def _polyp_orders(options):
    """The arrays of polyp-orders.npz: FAMILY, `dice_degradation` float16 (n, m), its ratios and zeros by layer (L, m).

    `rows` are those of polyp-losses.npz, see `_few_frames`.
    """
    model, learned, (images, masks), rows = _few_frames(options)
    wake = pruning.batch_norm(model, learned.images[::8].split(8))
    families = {
        name: pruning.family(model, ORDER_RATIOS, scores, wake) for name, scores in _polyp_scores(model, learned)
    }
    families["fine-tuned"] = _tuned(model, learned.images, wake)  # at the last ratio alone
    full, stored = _logits(model, images), {"rows": rows.astype(np.int16)}
    for name, networks in families.items():
        columns, zeros = [], []
        for network in networks:
            columns.append(losses.dice_degradation(_logits(network, images), full, masks).numpy())
            zeros.append([float((w == 0).float().mean()) for w in pruning.prunable(network).values()])
        stored |= {name: half_up(np.array(columns).T), f"{name}/zeros": np.array(zeros, dtype=np.float16).T}
        stored[f"{name}/ratios"] = ORDER_RATIOS[-len(columns) :]
    return stored


TUNING = ((266, 1e-3), (134, 2e-4))  # steps of training, and their learning rate
CHANNELS = {"one-shot": (0.125, 0.25, 0.375, 0.5), "trained": (0.375,)}  # shares that are removed


def _polyp_channels(options):
    """The arrays of polyp-channels.npz: of each entry of CHANNELS `dice_degradation` float16 (n, m), and its ratios."""
    model, learned, (images, masks), rows = _few_frames(options)
    family = pruning.channels_removed(images[:1], keep=["head"])
    full, taught = _logits(model, images), _logits(model, learned.images).sigmoid()
    anew = partial(update_bn, learned.images[::8].split(8))

    def trained(network):
        batches = _flipped(learned.images, taught)
        for steps, rate in TUNING:
            pruning.fine_tune(list(islice(batches, steps)), mask_loss, steps=steps, learning_rate=rate)(network)
        anew(network)

    stored = {"rows": rows.astype(np.int16)}
    finishes: dict[str, pruning.Finish] = {"one-shot": anew, "trained": trained}
    for name, finish in finishes.items():
        networks = (pruning.member(model, ratio, family, finish) for ratio in CHANNELS[name])
        columns = [losses.dice_degradation(_logits(network, images), full, masks).numpy() for network in networks]
        stored |= {name: half_up(np.array(columns).T), f"{name}/ratios": np.array(CHANNELS[name])}
    return stored


SHIFT_RATIOS = np.array([0, 0.2, 0.3, 0.4, 0.5, 0.6])  # of the recorded shifts of quality


def _polyp_shifts(options):
    """The arrays of polyp-shifts.npz: SHIFT/STRENGTH/LOSS float16 (n, m), `ratios` (m,), `rows` of `_few_frames`."""
    model, _, (images, masks), rows = _few_frames(options)
    networks = list(pruning.family(model, SHIFT_RATIOS))
    stored = {"rows": rows.astype(np.int16), "ratios": SHIFT_RATIOS}
    for shift, strengths in data.POLYP_SHIFTS.items():
        for strength in strengths:
            seen = data.degraded(images, shift, strength)
            full, *pruned = (_logits(network, seen) for network in networks)
            for loss in data.POLYP_SHIFT_LOSSES:
                table = torch.stack([_polyp_loss(loss)(logits, full, masks) for logits in (full, *pruned)], dim=1)
                stored[f"{shift}/{strength:g}/{loss}"] = half_up(table.numpy())
    return stored


def _few_frames(options):
    """The UNet, the frames that it learned from, and few others with their masks and rows in polyp-losses.npz.

    One loss a video needs few frames: at most two of each video of C1 to C5.
    """
    model = load("polyp-unet").to(memory_format=torch.channels_last)  # 8 frames at a time, a third of the time
    frames = data.polypgen(options.data_root)
    known = trained_on(frames)
    learned, unseen = frames[known], frames[~known]
    rows = two_of_each(unseen.group, unseen.centre < 6)
    return model, learned, (unseen.images[rows], unseen.masks[rows]), rows


def two_of_each(group, among):
    """Rows of the mask `among`, at most two of each group, a third of the way from either end."""
    chosen = []
    for video in np.unique(group[among]):
        rows = np.flatnonzero(among & (group == video))
        chosen += [rows[len(rows) // 3], rows[2 * len(rows) // 3]] if len(rows) > 2 else [*rows]
    return np.sort(chosen)


def _logits(network, images):
    with torch.inference_mode():
        return torch.cat([network(some) for some in images.split(8)])


def _polyp_scores(model, learned):
    """The orders that `data.POLYP_ORDERS` names; three of them look at a few frames that the network learned."""
    few = learned.images[::16], learned.masks[::16].float()
    yield "magnitude", pruning.magnitude(model)
    yield "layerwise", pruning.layerwise(model)
    yield "lamp", pruning.lamp(model)
    yield "wanda", pruning.wanda(model, learned.images[::32])
    yield "fisher", pruning.fisher(model, few, mask_loss)
    yield "snip", pruning.snip(model, few, mask_loss)


def _tuned(model, images, wake):
    """Pruned by LAMP to the last ratio, then trained a little towards the full network's masks of training frames."""
    batches = list(islice(_flipped(images, _logits(model, images).sigmoid()), STEPS))
    tune = pruning.fine_tune(batches, mask_loss, steps=STEPS, learning_rate=5e-5)
    network = pruning.prune(model, ORDER_RATIOS[-1], pruning.lamp(model))
    tune(network)
    wake(network)
    yield network


def _flipped(images, taught):
    """Frames in random order, 8 at a time, in a random orientation, with what is to be learned of them; without end."""
    generator = torch.Generator().manual_seed(0)
    while True:
        for some in torch.randperm(len(images), generator=generator).split(8):
            batch = images[some], taught[some]
            for side in (2, 3):
                if torch.rand((), generator=generator) < 0.5:
                    batch = tuple(part.flip(side) for part in batch)
            yield batch


def _polyp_loss(name):
    """The loss that `data.POLYP_LOSSES` calls by this name; "_to_full" compares with the full network's mask."""
    loss, to_full, _ = name.partition("_to_full")
    return partial(getattr(losses, loss), against="full") if to_full else getattr(losses, loss)


def rank(scores):
    """Share of the layer's weights that are at most as large, in (0, 1]: pruning by it takes as much of every layer."""
    return scores.flatten().argsort().argsort().reshape(scores.shape).add(1) / scores.numel()


def half_up(table):
    """The losses in half precision, rounded up: what is recorded never understates a loss."""
    half = table.astype(np.float16)
    return np.where(half < table, np.nextafter(half, np.float16(1)), half)


# options of the command -> arrays to store
RECORDS: dict[str, Callable] = {
    **{f"{name}-losses": partial(_classifier_losses, name) for name in CLASSIFIERS},
    "tuned-losses": _tuned_losses,
    "polyp-losses": _polyp_losses,
    "polyp-orders": _polyp_orders,
    "polyp-channels": _polyp_channels,
    "polyp-shifts": _polyp_shifts,
}


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
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--epochs", type=int, help="passes through the data (default: as shipped)")
    train.set_defaults(run=_train, suffix=".safetensors")
    record = commands.add_parser("record", help="losses of a shipped network on examples that it never saw")
    record.add_argument("name", choices=list(RECORDS))
    record.set_defaults(run=_record, suffix=".npz")
    for command in (train, record):
        command.add_argument(
            "--data-root", type=Path, required=True, help="folder that holds MNIST/raw, cmudict.dict or PolypGen"
        )
        command.add_argument("--download", action="store_true", help="fetch what is missing of MNIST there")
        command.add_argument("--out", type=Path, help="file to write (default: NAME with its suffix)")
    options = parser.parse_args(arguments)
    out = options.out or Path(f"{options.name}{options.suffix}")
    if not out.parent.is_dir():
        parser.error(f"--out: there is no folder {out.parent}")
    options.run(options, out)
    print(size_and_checksum(out))


if __name__ == "__main__":
    main()
