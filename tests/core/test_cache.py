"""A calibration that was interrupted goes on, and no column is ever handed out for something else."""

import errno
import functools
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from confprune_edu import losses, pruning
from confprune_edu.calibration import calibrate
from confprune_edu.identity import identity

RATIOS = [j / 10 for j in range(10)]
LEVEL, SCALE = 0.4, 1


def network(seed=0, activation=nn.ReLU):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 3))


def examples(n=60, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)


def far(level):
    """A loss with a setting in its closure."""

    def loss(pruned, full, target):
        return (pruned - full).abs().amax(1) > level

    return loss


def by_global(pruned, full, target):
    return (pruned - full).abs().amax(1) > LEVEL


class Distance:
    """A loss with a setting of its own."""

    def __init__(self, level):
        self.level = level

    def __call__(self, pruned, full, target):
        return (pruned - full).abs().amax(1) > self.level


def scaled(by, model):
    model[2].bias.data *= by


def run(folder, model=None, data=None, loss=losses.disagreement, **options):
    options = {"alpha": 0.9, "delta": 0.1, "ratios": RATIOS, "progress": False, "cache": folder} | options
    return calibrate(network() if model is None else model, examples() if data is None else data, loss, **options)


def scaled_by_ratio(model, ratio):
    model[2].weight.data *= 1 - ratio * SCALE
    return model


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".npy")


class Stops:
    """A function that is interrupted at one of its calls, and notes at which sparsity it was called."""

    def __init__(self, at):
        self.at, self.calls = at, []

    def __call__(self, model):
        self.calls.append(round(pruning.sparsity(model), 1))
        if len(self.calls) == self.at:
            raise KeyboardInterrupt
        model[2].bias.data += 0.1


def same(one, other):
    return one.to_json() == other.to_json()


def flipped(path, place):
    body = bytearray(path.read_bytes())
    body[place] ^= 1
    path.write_bytes(body)


# Going on


@pytest.mark.parametrize("procedure", ["fixed_sequence", "holm"])
def test_an_interrupted_run_goes_on(tmp_path, procedure, unchanged):
    model, stops = network(), Stops(6)
    with pytest.raises(KeyboardInterrupt), unchanged(model):
        run(tmp_path, model, finish=stops, procedure=procedure)
    assert stops.calls == [0, 0, 0.1, 0.2, 0.3, 0.4]  # the first is made twice: does finish give one network?
    assert files(tmp_path) == [f"ratio-{ratio}.npy" for ratio in RATIOS[:4]]
    assert json.loads((tmp_path / "origin.json").read_text(encoding="utf-8"))["origin"]["finish"]["finish.at"] == "6"
    result = run(tmp_path, model, finish=stops, procedure=procedure)
    assert stops.calls[6:] == [0, 0, *RATIOS[4:]]  # none that is there, but for the look at finish itself
    assert same(result, run(None, finish=Stops(None), procedure=procedure))
    assert same(result, run(tmp_path, model, finish=stops, procedure=procedure)) and stops.calls[14:] == [0, 0]


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("block", [None, 1])
def test_a_loss_may_be_interrupted_at_any_batch(tmp_path, at, block):
    calls = []

    def loss(pruned, full, target):
        calls.append(None)
        if len(calls) == at:
            raise KeyboardInterrupt
        return (pruned - full).abs().amax(1).clamp(max=1)

    options = {"batch_size": 30, "alpha": 0.2, "block": block, "p_value": "betting"}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, loss=loss, **options)
    assert same(run(tmp_path, loss=loss, **options), run(None, loss=loss, **options))


def test_what_is_there_is_not_evaluated_again(tmp_path):
    calls = []

    def loss(pruned, full, target):
        calls.append(None)
        return losses.disagreement(pruned, full, target)

    first = run(tmp_path, loss=loss)
    calls.clear()
    assert same(run(tmp_path, loss=loss), first) and not calls
    assert same(
        run(tmp_path, loss=loss, delta=0.2, procedure="holm"), run(None, loss=loss, delta=0.2, procedure="holm")
    )
    more = run(tmp_path, loss=loss, ratios=[0.05, 0.1, 0.15, 0.2])
    assert same(more, run(None, loss=loss, ratios=[0.05, 0.1, 0.15, 0.2]))


@pytest.mark.parametrize("dtype", [bool, float])
def test_a_loader_of_the_same_examples_may_go_on(tmp_path, dtype):
    loss = losses.disagreement if dtype is bool else losses.accuracy_drop
    first = run(tmp_path, loss=loss, alpha=0.5)
    loader = DataLoader(TensorDataset(*examples()), batch_size=60)
    assert same(run(tmp_path, data=loader, loss=loss, alpha=0.5), first)
    shuffled = DataLoader(TensorDataset(*examples()), batch_size=60, shuffle=True)
    with pytest.raises(ValueError, match="of another data"):
        run(tmp_path, data=shuffled, loss=loss, alpha=0.5)


class Centred(nn.Module):
    """What it gives for an example depends on the others of its batch."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, inputs):
        return self.inner(inputs - inputs.mean(0))


def test_batches_of_another_size_may_be_another_function(tmp_path):
    first = run(tmp_path, model=Centred(), batch_size=20)
    assert not np.array_equal(first.p_values, run(None, model=Centred(), batch_size=30).p_values, equal_nan=True)
    again = DataLoader(TensorDataset(*examples()), batch_size=20)
    assert same(run(tmp_path, model=Centred(), data=again), first)
    other = DataLoader(TensorDataset(*examples()), batch_size=30)
    for options in ({}, {"batch_size": 30}, {"data": other}):
        with pytest.raises(ValueError, match=r"of another data: batches was 3 of 20 and is"):
            run(tmp_path, model=Centred(), **options)


PROCESS = """
import sys, torch
sys.path[:0] = sys.argv[2:]
from test_cache import Stops, run
print(run(sys.argv[1], finish=Stops(None), p_value="hoeffding").to_json())
"""


@pytest.mark.long
def test_two_processes_at_once(tmp_path):
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "cache"), str(Path(__file__).parent), *sys.path]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") for _ in range(2)]
    one, other = (process.communicate(timeout=300)[0] for process in both)
    assert one == other == run(None, finish=Stops(None), p_value="hoeffding").to_json() + "\n"
    assert len(files(tmp_path / "cache")) == 10 and not list((tmp_path / "cache").glob("*.part"))


# Damage


@pytest.mark.parametrize("place", [*range(0, 220, 20), -32, -1])
def test_a_flipped_bit_is_seen(tmp_path, place):
    want = run(tmp_path)
    flipped(tmp_path / "ratio-0.4.npy", place)
    with pytest.warns(UserWarning, match=r"ratio-0\.4\.npy is damaged: the ratio is evaluated again"):
        assert same(run(tmp_path), want)
    assert same(run(tmp_path), want)  # mended, and no warning


@pytest.mark.parametrize("length", [0, 10, 31, 100])
def test_half_a_column_is_none(tmp_path, length):
    want = run(tmp_path)
    path = tmp_path / "ratio-0.4.npy"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.warns(UserWarning, match="damaged"):
        assert same(run(tmp_path), want)


def test_a_column_of_another_ratio_or_another_folder_is_none(tmp_path):
    want = run(tmp_path / "one")
    run(tmp_path / "other", loss=far(0.2))
    shutil.copy(tmp_path / "one" / "ratio-0.9.npy", tmp_path / "one" / "ratio-0.1.npy")
    shutil.copy(tmp_path / "other" / "ratio-0.2.npy", tmp_path / "one")
    with pytest.warns(UserWarning, match="damaged") as warned:
        assert same(run(tmp_path / "one"), want)
    assert len(warned) == 2


def test_what_a_killed_process_leaves_behind_does_no_harm(tmp_path):
    (tmp_path / "ratio-0.0.npy.0123abcd.part").write_bytes(b"half")
    assert same(run(tmp_path), run(None))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"origin": 1}', '{"origin": {"loss": 1}}'])
def test_an_origin_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "origin.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"cache: .*origin\.json tells of no losses"):
        run(tmp_path)


def test_a_full_disk_is_an_error_that_says_so(tmp_path, monkeypatch):
    write, stops = Path.write_bytes, Stops(None)

    def full(self, body):
        if self.name.startswith("ratio-0.2"):
            write(self, body[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, body)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"cache: No space left on device: .*ratio-0\.2\.npy"):
            run(tmp_path, finish=stops)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["origin.json", "ratio-0.0.npy", "ratio-0.1.npy"]
    assert same(run(tmp_path, finish=stops), run(None, finish=Stops(None)))


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(OSError, match="cache: "):
        run(tmp_path / "file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


# Something else


def turned(model, inputs):
    return -model(inputs)


OTHERS = {
    "model": {"model": network(1)},
    "model, the function": {"model": network(0, nn.GELU)},
    "data": {"data": examples(seed=2)},
    "data, the order": {"data": tuple(part.flip(0) for part in examples())},
    "data, labels": {"data": (examples()[0], examples(seed=2)[1])},
    "loss": {"loss": losses.error},
    "scores": {"scores": pruning.random(network(), seed=0)},
    "finish": {"finish": functools.partial(scaled, 2.0)},
    "weights": {"weights": ["0.weight"]},
    "family": {"family": scaled_by_ratio},
    "call": {"call": turned},
    "target": {"target": lambda batch: batch[1]},
    "device": {"device": "cpu"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_cache_of_something_else_is_refused_by_name(tmp_path, name):
    run(tmp_path)
    argument = "data" if name == "target" else name.split(",")[0]  # all of a batch is input then
    with pytest.raises(ValueError, match=f"cache: .* is of another {argument}: .*; name another folder"):
        run(tmp_path, **OTHERS[name])


SETTINGS = {
    "closure": (far(0.1), far(0.2), "loss.level was 0.1 and is 0.2"),
    "partial": (functools.partial(far(0.1)), functools.partial(far(0.2)), "level was 0.1 and is 0.2"),
    "object": (Distance(0.1), Distance(0.2), "loss.level was 0.1 and is 0.2"),
    "code": (lambda p, f, t: p[:, 0] > 1, lambda p, f, t: p[:, 0] > 2, "loss was"),
    "order": (lambda p, f, t: p[:, 0] > f[:, 0], lambda p, f, t: f[:, 0] > p[:, 0], "loss was"),
    "default": (
        lambda p, f, t, k=0: p[:, k] > 0,
        lambda p, f, t, k=1: p[:, k] > 0,
        "loss.its defaults.0.0 was 0 and is 1",
    ),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_another_setting_of_a_loss_is_refused(tmp_path, kind):
    one, other, words = SETTINGS[kind]
    run(tmp_path, loss=one)
    with pytest.raises(ValueError, match=f"of another loss: .*{words}"):
        run(tmp_path, loss=other)


def test_a_global_of_a_loss_is_a_setting(tmp_path, monkeypatch):
    run(tmp_path, loss=by_global)
    monkeypatch.setitem(globals(), "LEVEL", 0.5)
    with pytest.raises(ValueError, match=r"of another loss: loss\.LEVEL was 0\.4 and is 0\.5"):
        run(tmp_path, loss=by_global)


def test_what_is_new_in_a_loss_is_another_setting(tmp_path):
    def loss(pruned, full, target):
        seen.setdefault("level", 0.1)
        return (pruned - full).abs().amax(1) > getattr(loss, "level", seen["level"])

    seen = {}
    first = run(tmp_path, loss=loss)
    seen["more"] = 1  # in what has changed before
    assert same(run(tmp_path, loss=loss), first)
    loss.level = 0.5
    with pytest.raises(ValueError, match=r"of another loss: loss\.its level was missing and is 0\.5"):
        run(tmp_path, loss=loss)


def test_a_base_class_whose_setting_is_overridden_is_another_loss(tmp_path):
    class Mine(Distance):
        pass

    run(tmp_path, loss=Mine(0.1))
    Mine.scale = 2
    with pytest.raises(ValueError, match=r"of another loss: loss\.class\.scale was missing and is 2"):
        run(tmp_path, loss=Mine(0.1))


def test_another_precision_is_refused(tmp_path):
    with torch.autocast("cpu"):
        run(tmp_path)
    with pytest.raises(ValueError, match=r"of another precision: autocast was cpu torch\.bfloat16 and is off"):
        run(tmp_path)


@pytest.mark.parametrize("name", ["family", "finish"])
def test_what_is_no_function_is_refused_as_without_a_cache(tmp_path, name):
    with pytest.raises(TypeError, match=f"^{name} must be a function"):
        run(tmp_path, **{name: 3})


def test_training_data_of_a_fine_tune_are_a_setting(tmp_path):
    def tune(seed):
        batches = DataLoader(TensorDataset(*examples(seed=seed)), batch_size=20, shuffle=True)
        return pruning.fine_tune(batches, nn.functional.cross_entropy, steps=4)

    first = run(tmp_path, finish=tune(2))
    assert same(run(tmp_path, finish=tune(2)), first)
    with pytest.raises(ValueError, match=r"of another finish: finish\.batches\.dataset\.tensors\.0"):
        run(tmp_path, finish=tune(3))


def test_what_a_finish_reads_elsewhere_is_seen_at_the_first_ratio(tmp_path):
    file = tmp_path / "bias.txt"

    def finish(model):
        model[2].bias.data += float(file.read_text(encoding="utf-8"))

    file.write_text("0.1", encoding="utf-8")
    run(tmp_path / "cache", finish=finish)
    file.write_text("0.2", encoding="utf-8")
    with pytest.raises(ValueError, match=r"of another network at ratio: 0\.0 was"):
        run(tmp_path / "cache", finish=finish)


def test_a_family_of_another_kind_is_kept_too(tmp_path, monkeypatch):
    first = run(tmp_path, family=scaled_by_ratio)
    assert same(run(tmp_path, family=scaled_by_ratio), first)
    assert same(run(None, family=scaled_by_ratio), first)
    monkeypatch.setitem(globals(), "SCALE", 0.5)
    with pytest.raises(ValueError, match=r"of another family: family\.SCALE was 1 and is 0\.5"):
        run(tmp_path, family=scaled_by_ratio)


def test_what_cannot_be_compared_is_refused_before_anything_is_evaluated(tmp_path):
    steps = (k for k in range(10))

    def finish(model):
        raise AssertionError(next(steps))

    with pytest.raises(TypeError, match=r"cache: finish\.steps is a generator.*make it inside the function"):
        run(tmp_path, finish=finish)
    odd = DataLoader(range(4), collate_fn=lambda rows: (torch.ones(1, 6), object()))
    with pytest.raises(TypeError, match="cache: data must be tensors"):
        run(tmp_path, data=odd)
    assert list(tmp_path.iterdir()) == []


# What a function is


def made(source, name="f", **known):
    exec(source, known)
    return known[name]


def test_where_code_stands_and_how_often_it_ran_does_not_matter():
    source = "def f(x):\n    return [y + 1 for y in x if y in {'a', 'b', 1}]\n"
    one, other = made(source), made("\n\n# moved\n" + source.replace("   ", "      "))
    for _ in range(1000):  # Python specialises code that runs often
        other([1, 2])
    assert identity(one, "f") == identity(other, "f") != identity(made(source.replace("1", "2")), "f")


def test_a_borrowed_name_hides_no_code():
    def near(k):
        return functools.wraps(losses.error)(lambda pruned, full, target: pruned[:, 0] > k)

    one, other = identity(near(1), "f"), identity(near(2), "f")
    assert one["f"] == other["f"] != identity(losses.error, "f")["f"] and one["f.k"] != other["f.k"]


def test_functions_that_a_function_calls_belong_to_it():
    inner = [made(f"def g(x):\n    return x + {k}\n", "g") for k in (1, 1, 2)]
    one, same_, other = (identity(made("def f(x):\n    return (lambda: g(x))()\n", g=g), "f") for g in inner)
    assert one == same_ != other


def test_what_a_module_of_ones_own_gives_belongs_to_a_function():
    settings = types.ModuleType("settings")
    f = made("def f(x):\n    return x > settings.level\n", settings=settings)
    settings.level = 1
    before = identity(f, "f")
    settings.level, settings.other = 2, 3
    after = identity(f, "f")
    assert [place for place in after if before.get(place) != after[place]] == ["f.settings.level"]


def test_what_such_a_module_has_inside_belongs_to_a_function():
    package, package.losses = types.ModuleType("package"), types.ModuleType("package.losses")

    def in_closure(x):
        return package.losses.wrong(x)

    functions = in_closure, made("def f(x):\n    return package.losses.wrong(x)\n", package=package)
    package.losses.wrong = made("def wrong(x): return x > 1\n", "wrong")
    before = [identity(f, "f") for f in functions]
    package.losses.wrong = made("def wrong(x): return x > 2\n", "wrong")
    after = [identity(f, "f") for f in functions]
    for one, other in zip(before, after, strict=True):
        assert [place for place in other if one.get(place) != other[place]] == ["f.package.losses.wrong"]


CODE = "import functools, types\nfrom typing import NamedTuple\ndef above(x, k=0): return x > k\n"
HIDDEN = {
    "partial in a class": "class A:\n    f = functools.partial(above, k=1)\nf = A()",
    "partial method": "class A:\n    __call__ = functools.partialmethod(lambda self, k, x: x > k, 1)\nf = A()",
    "named tuple": "class A(NamedTuple):\n    a: int = 0\n    def __call__(self, x): return x > 1\nf = A()",
    "dict": "class A(dict):\n    def __call__(self, x): return x > 1\nf = A()",
    "float": "class A(float):\n    def __call__(self, x): return x > 1\nf = A(0)",
    "new class": "f = types.new_class('A', (), exec_body=lambda names: names.update(g=lambda self, x: x > 1))()",
    "closure": "def make(defaults):\n    return lambda x: x > defaults\nf = make(1)",
    "attribute": "def make(k):\n    def f(x): return x > k\n    f.k = 0\n    return f\nf = make(1)",
    "form": "f = lambda *x: x[1]",
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_no_setting_and_no_code_hides(kind):
    source = CODE + HIDDEN[kind]
    changed = CODE + (HIDDEN[kind].replace("*x", "x") if kind == "form" else HIDDEN[kind].replace("1", "2"))
    assert identity(made(source), "f") == identity(made(source), "f") != identity(made(changed), "f")


@pytest.mark.parametrize("beside", [Path(pruning.__file__).parents[1], Path(functools.__file__).parent])
def test_a_folder_beside_an_installed_one_is_not_installed(beside):
    def found(k):
        known = {}
        exec(compile(f"def f(x): return x > {k}", f"{beside}-mine/site-packages.py", "exec"), known)
        return identity(known["f"], "f")

    assert found(1) != found(2)


def test_classes_of_a_script_are_its_own_under_a_profiler(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__file__", functools.__file__, raising=False)
    source = "class f:\n    def __call__(self, x): return x > 1\n"
    one, other = (made(text, __name__="__main__") for text in (source, source.replace("1", "2")))
    assert identity(one, "f") != identity(other, "f")


def test_methods_of_a_class_belong_to_it():
    source = "class A:\n    k = 1\n    @staticmethod\n    def h(): return 1\n    def f(self): return self.h()\n"
    sources = source, source.replace("return 1", "return 2"), source.replace("k", "l")
    one, other, third = (made(text, "A") for text in sources)
    assert identity(one(), "A") != identity(other(), "A")
    assert identity(one(), "A") != identity(third(), "A")
    assert identity(one().f, "A") == identity(made(source, "A")().f, "A")


def test_rings_end_and_sets_have_no_order():
    ring = [1]
    ring.append(ring)
    assert identity(ring, "ring")["ring.1"] == "as ring"
    assert identity({"a", "b", "c"}, "s") == identity({"c", "b", "a"}, "s") != identity({"a", "b"}, "s")


def test_arrays_by_their_entries_and_kinds():
    parts = [
        np.ones(3),
        np.ones(3, np.float32),
        torch.ones(3),
        torch.ones(3, 1),
        torch.ones(3).half(),
        [1.0] * 3,
        "1",
        1,
    ]
    found = [repr(identity(part, "part")) for part in parts]
    assert len(set(found)) == len(parts)
    assert found == [repr(identity(part, "part")) for part in parts]
