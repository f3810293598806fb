"""How fast are `loss_table` and `calibrate`? Measured on your machine, against the usual ways and the least possible.

    confprune bench [--quick] [--chart FILE]

Each table is one run: all ways take turns, five rounds, and medians are compared. Absolute times differ from machine to
machine; the ratios are what can be compared. The bound of the first table is the dense matrix products alone, by the
fastest of the kernels that torch has for them. Weights so small that they are denormal count as zeros there: some
kernels take many times as long over them, and the bound shall not.
"""

import copy
import functools
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.prune import L1Unstructured, global_unstructured
from torch.utils.data import DataLoader, TensorDataset

from confprune_edu import calibration, data, evaluation, losses, models, pruning, validation
from confprune_edu.course.runner import cores
from confprune_edu.engine.kernels import ONEDNN
from confprune_edu.plots.picture import BLUE, GREY, Picture, blank, capital, styled, tell

Ways = Mapping[str, Callable[[], Any]]
Plan = list[tuple[str, Callable[..., Ways], tuple[Any, ...]]]  # a table's title, its ways, and their sizes


@dataclass(frozen=True)
class Race:
    """Median seconds of some ways to do one thing, by name; the first is what the others are compared with."""

    title: str
    seconds: dict[str, float]

    def __str__(self) -> str:
        (first, unit), width = next(iter(self.seconds.items())), max(map(len, self.seconds))
        lines = [f"{name:<{width}}  {s:>9.3f} s  {s / unit:>8.2f} x" for name, s in self.seconds.items()]
        return "\n".join([self.title, f"{'':<{width}}  {'median':>11}  {'of ' + first:>10}", *lines])


def race(title: str, ways: Ways, rounds: int = 5) -> Race:
    """Let all ways take turns, `rounds` times, after a turn that does not count.

    >>> list(race("nothing", {"a": lambda: None, "b": lambda: None}, rounds=2).seconds)
    ['a', 'b']
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                taken[name].append(time.perf_counter() - start)
    return Race(title, {name: statistics.median(times) for name, times in taken.items()})


def usual_table(
    model: nn.Module, batches: Callable[[], Iterable[Any]], ratios: Iterable[float], loss: losses.Loss
) -> NDArray[Any]:
    """The loss table as it is usually written: a copy a ratio, torch's global pruning, batch after batch."""
    columns = []
    with torch.inference_mode():
        full = [model(x) for x, _ in batches()]
    for ratio in ratios:
        pruned = copy.deepcopy(model).eval()
        layers = [(m, "weight") for m in pruned.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        global_unstructured(layers, L1Unstructured, amount=float(ratio))
        with torch.inference_mode():
            columns.append(torch.cat([loss(pruned(x), f, y) for (x, y), f in zip(batches(), full, strict=True)]))
    return torch.stack(columns, dim=1).numpy()


def mlp_ways(n: int, m: int) -> Ways:
    """The digits and their network: the dense products, `loss_table` and three usual ways."""
    model, digits = models.load("mnist-mlp"), tuple(part[:n] for part in data.mnist5k())
    ratios, stored = np.arange(m) / m, TensorDataset(*digits)

    def usual(batches: Callable[[], Iterable[Any]]) -> Callable[[], Any]:
        return lambda: usual_table(model, batches, ratios, losses.error)

    return {
        "dense products": _dense_products(model, n, m),
        "loss_table": lambda: evaluation.loss_table(model, digits, ratios, losses.error, progress=False),
        "usual, one batch in memory": usual(lambda: [digits]),
        "usual, DataLoader of 256": usual(lambda: DataLoader(stored, batch_size=256)),
        "usual, DataLoader of 64": usual(lambda: DataLoader(stored, batch_size=64)),
    }


def _dense_products(model: nn.Module, n: int, m: int) -> Callable[[], None]:
    """The products of all linear layers at all ratios, by the kernel that is the fastest here."""
    weights = [weight.detach() for weight in pruning.prunable(model).values()]
    weights = [weight * (weight.abs() >= torch.finfo(weight.dtype).tiny) for weight in weights]  # without denormals
    inputs = [torch.rand(n, weight.shape[1]) for weight in weights]
    kernels: list[Callable[[Tensor, Tensor], Tensor]] = [nn.functional.linear]
    if ONEDNN is not None:
        kernels.append(lambda x, w: nn.functional.linear(x.to_mkldnn(), w.to_mkldnn()).to_dense())
        kernels.append(lambda x, w: ONEDNN(x, w, None, "none", [], ""))  # what torch.compile takes

    def products(kernel: Callable[[Tensor, Tensor], Tensor], times: int) -> None:
        with torch.inference_mode():
            for x, w in [*zip(inputs, weights, strict=True)] * times:
                kernel(x, w)

    once = race("kernels", {str(k): functools.partial(products, kernel, 1) for k, kernel in enumerate(kernels)}, 3)
    fastest = kernels[int(min(once.seconds, key=lambda name: once.seconds[name]))]
    return functools.partial(products, fastest, m)


def unet_ways(size: int, n: int, m: int) -> Ways:
    """Drawn frames of this size and the UNet: its own dense passes, `loss_table` and the usual way."""
    model, frames = models.load("polyp-unet"), data.phantom_polyps(n, seed=0, size=size)
    pair, ratios = (frames.images, frames.masks), np.arange(m) / m
    stored = TensorDataset(*pair)

    def dense() -> None:
        with torch.inference_mode():
            for _ in range(m):
                for x in frames.images.split(64):
                    model(x)

    return {
        "dense passes, batches of 64": dense,
        "loss_table": lambda: evaluation.loss_table(model, pair, ratios, losses.one_minus_dice, progress=False),
        "usual, DataLoader of 64": lambda: usual_table(
            model, lambda: DataLoader(stored, batch_size=64), ratios, losses.one_minus_dice
        ),
    }


def splits_ways(trials: int) -> Ways:
    """1,000 repeated splits, p-values and procedure included, against the one product that they need."""
    table, ratios = data.mnist_losses()
    drawn, floats = np.random.default_rng(0).random((trials, len(table))), table.astype(np.float64)
    rule: dict[str, Any] = {"n_calibration": 3000, "alpha": 0.05, "delta": 0.1, "trials": trials}
    return {
        "one matrix product": lambda: drawn @ floats,
        "repeated_splits": lambda: validation.repeated_splits(table, ratios, **rule),
    }


def growth_ways(n: int, m: int) -> Ways:
    """`loss_table` with twice the examples, the ratios, the width."""
    grid = np.arange(m) / m

    def way(n: int, grid: NDArray[Any], width: int) -> Callable[[], Any]:
        model = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
        inputs = torch.rand(n, 784)
        return lambda: evaluation.loss_table(model, inputs, grid, losses.disagreement, progress=False)

    return {
        f"n = {n}, m = {m}, width 300": way(n, grid, 300),
        "n doubled": way(2 * n, grid, 300),
        "m doubled": way(n, np.arange(2 * m) / (2 * m), 300),
        "width doubled": way(n, grid, 600),
    }


def subject(name: str, n: int) -> tuple[nn.Module, Any, losses.Loss]:
    """A shipped network, `n` examples and a loss."""
    model = models.load(name)
    if name == "polyp-unet":
        frames = data.phantom_polyps(n, seed=0, size=64)
        return model, (frames.images, frames.masks), losses.one_minus_dice
    inputs, labels, *_ = data.words5k() if name.startswith("words") else data.mnist5k()
    return model, (inputs[:n], labels[:n]), losses.error


def calibrate_ways(name: str, n: int, m: int, alpha: float) -> Ways:
    """`calibrate`, which may stop at any ratio, and `loss_table` of the same ratios."""
    model, examples, loss = subject(name, n)
    grid = np.arange(m) / m
    rule: dict[str, Any] = {"alpha": alpha, "delta": 0.1, "ratios": grid, "progress": False}

    def certified(**options: Any) -> calibration.Calibration:
        return calibration.calibrate(model, examples, loss, **rule, **options)

    @functools.cache
    def same() -> NDArray[Any]:
        return grid[: certified().evaluated]

    return {
        "loss_table, the same ratios": lambda: evaluation.loss_table(model, examples, same(), loss, progress=False),
        "calibrate": certified,
        "calibrate, block=1": functools.partial(certified, block=1),
    }


def batch_ways(name: str, n: int, m: int) -> Ways:
    """The default batch and others."""
    model, examples, loss = subject(name, n)

    def way(size: int | None) -> Callable[[], Any]:
        grid = np.arange(m) / m
        return lambda: evaluation.loss_table(model, examples, grid, loss, batch_size=size, progress=False)

    return {"default": way(None)} | {f"batches of {size}": way(size) for size in (8, 32, 128, 512) if size <= n}


def digits_way(model: nn.Module, n: int, grid: NDArray[Any], **options: Any) -> Callable[[], Any]:
    """`loss_table` of this network on digits."""
    digits = tuple(part[:n] for part in data.mnist5k())
    return lambda: evaluation.loss_table(model, digits, grid, losses.error, progress=False, **options)


def grid_ways(n: int, m: int) -> Ways:
    """As many ratios, as far apart, from 0 and from 0.2 on."""
    model, steps = models.load("mnist-mlp"), 0.8 * np.arange(m) / m
    return {f"from {first:g}": digits_way(model, n, first + steps) for first in (0, 0.2)}


def denormal_ways(n: int, m: int) -> Ways:
    """The shipped network, of whose weights a tenth is denormal, and one that has zeros there."""
    model = models.load("mnist-mlp")
    zeros, grid = copy.deepcopy(model), np.arange(m) / m
    with torch.no_grad():
        for weight in pruning.prunable(zeros).values():
            weight[weight.abs() < torch.finfo(weight.dtype).tiny] = 0
    return {"zeros": digits_way(zeros, n, grid), "denormal": digits_way(model, n, grid)}


def thread_ways(n: int, m: int) -> Ways:
    """One thread, torch's threads, and as many workers of one thread each."""
    model, grid, threads = models.load("mnist-mlp"), np.arange(m) / m, torch.get_num_threads()
    table = digits_way(model, n, grid)

    def one_thread() -> Any:
        torch.set_num_threads(1)
        try:
            return table()
        finally:
            torch.set_num_threads(threads)

    def workers() -> Any:
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                return digits_way(model, n, grid, executor=pool)()
        finally:
            torch.set_num_threads(threads)  # for threads to come

    return {"one thread": one_thread, f"threads of torch: {threads}": table, f"workers: {threads}": workers}


def machine() -> str:
    """What the numbers were measured on, in words."""
    return f"{platform.machine()}, {cores()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


BATCHED = ("mnist-mlp", "mnist-cnn", "mnist-gru", "words-gru", "words-transformer")

FULL: Plan = [
    ("MLP: 784-300-100-10, 5,000 digits, 100 ratios", mlp_ways, (5000, 100)),
    ("UNet: 64 x 64, 100 frames, 10 ratios", unet_ways, (64, 100, 10)),
    ("UNet: 128 x 128, 40 frames, 10 ratios", unet_ways, (128, 40, 10)),
    ("Splits: 1,000 of a table 5,000 x 100", splits_ways, (1000,)),
    ("Growth: linear layers 784-width-10", growth_ways, (2000, 50)),
    ("Calibrate: MLP, 5,000 digits", calibrate_ways, ("mnist-mlp", 5000, 100, 0.1)),
    ("Calibrate: convolutions, 1,000 digits", calibrate_ways, ("mnist-cnn", 1000, 50, 0.5)),
    ("Calibrate: GRU, 1,000 digits", calibrate_ways, ("mnist-gru", 1000, 50, 0.5)),
    ("Calibrate: transformer, 1,000 words", calibrate_ways, ("words-transformer", 1000, 50, 0.5)),
    ("Calibrate: UNet, 64 x 64, 40 frames", calibrate_ways, ("polyp-unet", 40, 20, 0.6)),
    *((f"Batches: {name}, 10 ratios", batch_ways, (name, 2560, 10)) for name in BATCHED),
    ("Batches: polyp-unet, 64 x 64, 64 frames, 3 ratios", batch_ways, ("polyp-unet", 64, 3)),
    ("Grid: 5,000 digits, 100 ratios", grid_ways, (5000, 100)),
    ("Denormal weights: 5,000 digits, 100 ratios", denormal_ways, (5000, 100)),
    ("Threads: 5,000 digits, 100 ratios", thread_ways, (5000, 100)),
]
QUICK: Plan = [
    ("MLP: quick", mlp_ways, (200, 5)),
    ("UNet: quick", unet_ways, (32, 6, 2)),
    ("Splits: quick", splits_ways, (20,)),
    ("Growth: quick", growth_ways, (100, 5)),
    *((f"Calibrate: quick, {name}", calibrate_ways, (name, 8, 5, 0.9)) for name in (*BATCHED, "polyp-unet")),
    ("Batches: quick", batch_ways, ("words-transformer", 40, 2)),
    ("Grid: quick", grid_ways, (100, 5)),
    ("Denormal weights: quick", denormal_ways, (100, 5)),
    ("Threads: quick", thread_ways, (100, 5)),
]


def run(quick: bool = False) -> Iterator[Race]:
    """The tables one by one; `quick` takes sizes that only show that it works."""
    for title, ways, sizes in QUICK if quick else FULL:
        yield race(title, ways(*sizes), rounds=1 if quick else 5)


def measure(quick: bool = False, chart: Path | None = None) -> None:
    """Print the tables and, if a file is named, draw them into it, as PNG."""
    print(machine())
    tables = {}
    for table in run(quick):
        print(f"\n{table}", flush=True)
        tables[table.title] = table.seconds
    if chart is not None:
        chart.write_bytes(races(tables).png())


@styled
def races(tables: Mapping[str, Mapping[str, float]]) -> Picture:
    """Seconds by way, a panel a table, as multiples of the table's first way.

    >>> races({"table": {"bound": 0.5, "usual": 2.0}}).alt
    'Times as multiples of the first way. Table: bound 1 x, usual 4 x.'
    """
    rows = [len(ways) for ways in tables.values()]
    height = 0.6 * len(rows) + 0.3 * sum(rows)
    picture, axes = blank(7, height, len(rows), height_ratios=[1 + count for count in rows])
    notes = []
    for ax, (title, ways) in zip(axes, tables.items(), strict=True):
        multiples = np.array(list(ways.values())) / next(iter(ways.values()))
        bars = ax.barh(range(len(ways)), multiples, color=[GREY] + [BLUE] * (len(ways) - 1), height=0.6)
        ax.bar_label(bars, fmt="{:.2g} x", padding=4, fontsize=9)
        ax.set(title=title, xlim=(0, 1.12 * multiples.max()), xticks=[])
        ax.set_yticks(range(len(ways)), list(ways))
        ax.invert_yaxis()
        told = ", ".join(f"{name} {multiple:.2g} x" for name, multiple in zip(ways, multiples, strict=True))
        notes.append(f"{capital(title)}: {told}")
    return tell(picture, "Times as multiples of the first way.", notes)
