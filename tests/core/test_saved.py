"""The file that travels: what was written is read, and whatever was changed since is refused by name."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from confprune_edu import certificates, saved, selective
from confprune_edu.calibration import Calibration, calibrate, calibrate_losses
from confprune_edu.losses import disagreement


class Network(nn.Module):
    """A tied weight, a buffer, a norm and an integer buffer: all that a state may hold."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.norm, self.head = nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.register_buffer("scale", torch.ones(6))

    def forward(self, x):
        return self.head(self.norm(self.second(self.first(x * self.scale).relu())))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def result(network):
    inputs = torch.randn(600, 6, generator=torch.Generator().manual_seed(1))
    return calibrate(network, inputs, disagreement, alpha=0.2, delta=0.1, progress=False)


@pytest.fixture
def file(network, result, tmp_path):
    path = tmp_path / "network.safetensors"
    result.save(path, network, network="tied", date="2026-11-25")
    return path


def read(path):
    with safetensors.safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    return safetensors.torch.load_file(path), metadata


def test_what_was_written_is_verified_and_says_what_it_is(file, network, result):
    back = certificates.verify(file)
    assert isinstance(back, Calibration) and back.ratio == result.ratio > 0.1
    assert (back.saved["network"], back.saved["date"]) == ("tied", "2026-11-25")
    assert json.loads(back.to_json())["version"] == 2 and json.loads(result.to_json())["version"] == 1
    assert Calibration.from_json(back.to_json()).to_json() == back.to_json()
    assert str(certificates.load(file)) == str(result)


def test_the_plain_library_loads_the_certified_network(file, network, result):
    fresh = Network()
    safetensors.torch.load_model(fresh, file)
    with pytest.raises(ValueError, match=r"^model: it is in training mode"):
        certificates.verify(file, fresh)
    fresh.eval()
    inputs = torch.randn(50, 6)
    assert torch.equal(fresh(inputs), result.prune(network)(inputs))
    assert certificates.verify(file, fresh).ratio == result.ratio


def test_the_network_that_was_not_pruned_is_refused(file, network):
    with pytest.raises(ValueError, match=r"^model: first\.weight has other values"):
        certificates.verify(file, network)


def flip(tensors, record):
    tensors["norm.running_var"].view(torch.uint8)[0] ^= 1


def cast(tensors, record):
    tensors["head.weight"] = tensors["head.weight"].bfloat16()


def swap(tensors, record):
    tensors["first.bias"], tensors["second.bias"] = tensors["second.bias"], tensors["first.bias"]


def reshape(tensors, record):
    tensors["scale"] = tensors["scale"].view(2, 3)


def drop(tensors, record):
    del tensors["scale"]


def rename(tensors, record):
    tensors["scale2"] = tensors.pop("scale")


def add(tensors, record):
    tensors["extra"] = torch.zeros(1)


def regrow(tensors, record):
    tensors["first.weight"][tensors["first.weight"] == 0] = 1e-3


def negative_zero(tensors, record):
    tensors["first.weight"][tensors["first.weight"] == 0] = -0.0


def count(tensors, record):
    tensors["norm.num_batches_tracked"] += 1


TENSORS = [flip, cast, swap, reshape, drop, rename, add, regrow, negative_zero, count]


@pytest.mark.parametrize("change", TENSORS, ids=lambda change: change.__name__)
def test_a_changed_tensor_is_refused_by_its_name(file, change):
    tensors, metadata = read(file)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors, metadata)
    safetensors.torch.save_file(tensors, file, metadata)
    changed = {
        name
        for name in before.keys() | tensors.keys()
        if name not in before
        or name not in tensors
        or before[name].dtype != tensors[name].dtype
        or before[name].numpy().tobytes() != tensors[name].numpy().tobytes()
        or before[name].shape != tensors[name].shape
    }
    with pytest.raises(ValueError) as refusal:
        certificates.verify(file)
    assert any(str(refusal.value).startswith(f"{name} ") for name in changed)


def test_a_bit_flipped_anywhere_is_refused(file):
    """But in the entry for other tools, "format", which is no part of what is certified."""
    whole = file.read_bytes()
    place = whole.index(b'"format":"pt"')
    places = set(range(8)) | set(np.random.default_rng(0).integers(len(whole), size=200).tolist())
    for k in sorted(places - set(range(place, place + 13))):
        bent = bytearray(whole)
        bent[k] ^= 1 << (k % 8)
        file.write_bytes(bent)
        with pytest.raises(ValueError):
            certificates.verify(file)


def test_the_certificate_of_another_file_is_refused(file, network, result, tmp_path):
    other = tmp_path / "other"
    inputs = torch.randn(600, 6, generator=torch.Generator().manual_seed(1))
    calibrate(network, inputs, disagreement, alpha=0.3, delta=0.1, progress=False).save(other, network)
    (mine, _), (_, its) = read(file), read(other)
    safetensors.torch.save_file(mine, other, its)
    with pytest.raises(ValueError, match=r"^first\.weight has other values"):
        certificates.verify(other)


def edited(file, sign=True, **changes):
    """Write the file's record with other entries; `sign` makes the checksum fit, as a careful forger would."""
    tensors, metadata = read(file)
    record = json.loads(metadata["certificate"])
    for name, change in changes.items():
        record[name] = change(record[name])
    metadata["certificate"] = json.dumps(record)
    if sign:
        metadata["certificate_sha256"] = hashlib.sha256(metadata["certificate"].encode()).hexdigest()
    safetensors.torch.save_file(tensors, file, metadata)


EDITS = {
    "a smaller alpha": {"alpha": lambda a: a / 2},
    "a smaller delta": {"delta": lambda d: d / 1000},
    "more examples": {"n": lambda n: 10 * n},
    "a larger ratio": {"ratio": lambda r: r + 0.2},
    "all certified": {"rejected": lambda mask: [True] * len(mask)},
    "smaller p-values": {"p_values": lambda p: [q and q / 2 for q in p]},
    "smaller losses": {"loss_means": lambda m: [q and q / 2 for q in m]},
    "another grid": {"ratios": lambda r: [min(x + 0.005, 0.999) for x in r]},
    "another p-value": {"p_value": lambda p: "hoeffding"},
    "another schema": {"schema": lambda s: "confprune_edu.Other"},
    "the first version": {"version": lambda v: 1},
    "no tensors": {"saved": lambda s: s | {"tensors": {}}},
    "no file": {"saved": lambda s: None},
    "a weight that nobody knows": {"saved": lambda s: s | {"prunable": ["ghost"]}},
    "another kind of entry": {"saved": lambda s: s | {"tensors": {name: [1, 2] for name in s["tensors"]}}},
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_record_is_refused_though_its_checksum_fits(file, name):
    edited(file, **EDITS[name])
    with pytest.raises(ValueError):
        certificates.verify(file)


def test_an_edit_that_contradicts_nothing_is_seen_by_the_checksum(file):
    edited(file, sign=False, loss=lambda _: "error")
    with pytest.raises(ValueError, match="was edited"):
        certificates.load(file)


def test_fewer_zeros_than_certified_are_refused(file, network, tmp_path):
    forged = tmp_path / "dense.safetensors"
    record, dense = json.loads(read(file)[1]["certificate"]), saved.tensors_of(network)
    record["saved"]["tensors"] = saved.described(dense)
    saved.write(forged, dense, json.dumps(record))
    with pytest.raises(ValueError, match="prunable weights are zero, fewer than the certified ratio"):
        certificates.verify(forged)


def test_files_without_a_certificate_or_in_pieces_are_refused(file, network, tmp_path):
    plain = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, plain)
    with pytest.raises(ValueError, match="holds no certificate"):
        certificates.verify(plain)
    whole = file.read_bytes()
    for piece in (whole[:-1], whole[:20], b"", whole + b"0", b"{}"):
        file.write_bytes(piece)
        with pytest.raises(ValueError, match="no safetensors file, or a damaged one"):
            certificates.verify(file)
    with pytest.raises(FileNotFoundError):
        certificates.verify(tmp_path / "none.safetensors")


def test_no_file_is_replaced_and_none_is_left_half_written(file, network, result):
    before = file.read_bytes()
    with pytest.raises(FileExistsError):
        result.save(file, network)
    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == [file.name]


def test_nothing_certified_and_another_network_write_no_file(network, result, tmp_path):
    with pytest.raises(ValueError, match="nothing was certified"):
        calibrate_losses(np.ones((50, 1)), [0.5], alpha=0.1, delta=0.1).save(tmp_path / "a", network)
    torch.manual_seed(9)
    with pytest.raises(ValueError, match="not the one that was calibrated"):
        result.save(tmp_path / "a", Network().eval())
    assert not list(tmp_path.iterdir())


def test_a_selective_certificate_travels_with_its_pair(network, tmp_path):
    inputs = torch.randn(600, 6, generator=torch.Generator().manual_seed(1))
    settings = dict(alpha=0.2, delta=0.1, ratios=[0.1, 0.9], thresholds=[0.4, 0.0], progress=False)
    result = selective.calibrate(network, inputs, disagreement, **settings)
    pair = result.best()
    path = tmp_path / "pair.safetensors"
    result.save(path, network, pair)
    back = certificates.verify(path)
    assert isinstance(back, selective.SelectiveCalibration) and back.saved["pair"] == [pair.row, pair.column]
    words = " ".join(str(back).split())
    assert f"With {100 * pair.ratio:.4g} % of" in words and f"is at least {pair.threshold:g}," in words
    strict = replace(pair, column=0, threshold=0.4)
    result.save(tmp_path / "strict.safetensors", network, strict)
    words = " ".join(str(certificates.verify(tmp_path / "strict.safetensors")).split())
    assert "is at least 0.4," in words and pair.threshold == 0.0
    other = (~result.rejected).nonzero()
    edited(path, saved=lambda s: s | {"pair": [int(other[0][0]), int(other[1][0])]})
    with pytest.raises(ValueError, match="fewer than the certified ratio"):
        certificates.verify(path)


def test_what_no_state_holds_is_compared_in_a_model(tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.register_buffer("scale", torch.ones(3), persistent=False)

        def forward(self, x):
            return self.layer(x) * self.scale

    model, inputs, path = Scaled().eval(), torch.randn(300, 6), tmp_path / "scaled.safetensors"
    model.scale = torch.tensor([1.0, -1.0, 5.0])
    result = calibrate(model, inputs, disagreement, alpha=0.5, delta=0.1, ratios=[0.1, 0.2], progress=False)
    result.save(path, model)
    fresh = Scaled().eval()
    safetensors.torch.load_model(fresh, path)
    with pytest.raises(ValueError, match=r"^model: scale has other values"):
        certificates.verify(path, fresh)
    fresh.scale = model.scale
    assert certificates.verify(path, fresh).ratio == result.ratio


def test_another_finish_is_refused(network, tmp_path):
    def one(copied):
        copied.head.bias.data += 0.1

    def other(copied):
        copied.head.bias.data += 1e6

    settings = dict(alpha=0.5, delta=0.1, ratios=[0.0, 0.1], progress=False)
    result = calibrate(network, torch.randn(300, 6), disagreement, finish=one, **settings)
    result.save(tmp_path / "one", network, finish=one)
    with pytest.raises(ValueError, match=r"^finish must be the one"):
        result.save(tmp_path / "other", network, finish=other)


def test_a_table_names_no_network_and_the_claim_says_so(network, tmp_path):
    calibrate_losses(np.zeros((100, 2)), [0.1, 0.3], alpha=0.1, delta=0.1).save(tmp_path / "table", network)
    words = " ".join(str(certificates.verify(tmp_path / "table")).split())
    assert "which network the losses are of was not recorded" in words


def test_what_a_file_cannot_hold_is_refused_before_it_is_written(network, result, tmp_path):
    class Odd(nn.Linear):
        def get_extra_state(self):
            return {}

        def set_extra_state(self, state):
            assert state == {}

    odd = Odd(6, 3).eval()
    certified = calibrate(odd, torch.randn(300, 6), disagreement, alpha=0.5, delta=0.1, ratios=[0.1], progress=False)
    with pytest.raises(ValueError, match=r"^model: _extra_state is of a type"):
        certified.save(tmp_path / "odd", odd)
    with pytest.raises(FileNotFoundError, match="no folder"):
        result.save(tmp_path / "none" / "a", network)
    with pytest.raises(TypeError, match="must be text"):
        result.save(tmp_path / "a", network, date=2026)


def test_a_compiled_network_is_saved_under_plain_names(network, tmp_path):
    compiled = torch.compile(network, backend="eager")
    inputs = torch.randn(300, 6)
    result = calibrate(compiled, inputs, disagreement, alpha=0.5, delta=0.1, ratios=[0.0, 0.1], progress=False)
    result.save(tmp_path / "compiled", compiled)
    fresh = Network()
    safetensors.torch.load_model(fresh, tmp_path / "compiled")
    assert certificates.verify(tmp_path / "compiled", fresh.eval()).ratio == result.ratio


MALFORMED = {
    "pair outside": {"pair": [99, 0]},
    "pair of text": {"pair": ["a", 0]},
    "pair between": {"pair": [1.5, 0]},
    "no pair": {"pair": None},
    "versions": {"versions": [1]},
    "plan of text": {"plan": "alpha"},
    "twice": {"prunable": ["first.weight", "first.weight"]},
    "fewer prunable": {"prunable": ["head.weight"]},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_part_about_the_file_is_a_value_error(network, tmp_path, name):
    inputs = torch.randn(600, 6, generator=torch.Generator().manual_seed(1))
    settings = dict(alpha=0.4, delta=0.1, ratios=[0.1], thresholds=[0.4, 0.0], progress=False)
    path = tmp_path / "pair.safetensors"
    selective.calibrate(network, inputs, disagreement, **settings).save(path, network)
    edited(path, saved=lambda s: s | MALFORMED[name])
    with pytest.raises(ValueError):
        certificates.verify(path)


def test_a_record_nested_too_deeply_is_a_value_error(file):
    tensors, metadata = read(file)
    metadata["certificate"] = "[" * 100_000 + "]" * 100_000
    metadata["certificate_sha256"] = hashlib.sha256(metadata["certificate"].encode()).hexdigest()
    safetensors.torch.save_file(tensors, file, metadata)
    with pytest.raises(ValueError):
        certificates.verify(file)


def plan_of(result):
    return {"question": "a new decision", "alpha": 0.2, "n": 600, "ratios": result.ratios, "p_value": "tight"}


def test_a_plan_travels_with_its_fingerprint(network, result, tmp_path):
    plan, path = plan_of(result), tmp_path / "planned"
    result.save(path, network, plan=plan)
    back = certificates.verify(path)
    assert back.saved["plan"] == plan | {"ratios": result.ratios.tolist()}
    published = certificates.plan_sha256(plan)
    assert certificates.plan_sha256(back.saved["plan"]) == published
    assert certificates.plan_sha256(dict(reversed(plan.items()))) == published != certificates.plan_sha256({})
    assert f"plan {published[:16]}" in " ".join(str(back).split()) and "plan" not in str(result)
    edited(path, saved=lambda s: s | {"plan": s["plan"] | {"question": "another"}})
    forged = certificates.verify(path)  # no file shows when its plan was written: the published fingerprint does
    assert certificates.plan_sha256(forged.saved["plan"]) != published


OTHERWISE = {"alpha": 0.1, "n": 599, "ratios": [0.1, 0.2], "p_value": "binomial", "procedure": "holm", "loss": "error"}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_plan_that_says_otherwise_is_refused_when_it_is_saved_and_when_it_is_read(network, result, tmp_path, name):
    plan, path = plan_of(result), tmp_path / "planned"
    with pytest.raises(ValueError, match=f"^plan: {name} was to be .*, and is"):
        result.save(path, network, plan=plan | {name: OTHERWISE[name]})
    assert not path.exists()
    result.save(path, network, plan=plan)
    edited(path, saved=lambda s: s | {"plan": s["plan"] | {name: OTHERWISE[name]}})
    with pytest.raises(ValueError, match=f"plan: {name} was to be"):
        certificates.verify(path)


NOT_DONE = {"knob": "bits", "importance": 3.0, "weights": ["head.weight"], "scores_sha256": 64 * "a"}


@pytest.mark.parametrize("name", NOT_DONE)
def test_a_plan_of_what_was_not_done_is_refused(network, result, tmp_path, name):
    with pytest.raises(ValueError, match=f"^plan: {name} was to be .*, and is None"):
        result.save(tmp_path / "planned", network, plan={name: NOT_DONE[name]})


def test_a_plan_speaks_of_coverage_as_calibrate_does(network, tmp_path):
    inputs = torch.randn(600, 6, generator=torch.Generator().manual_seed(1))
    settings = dict(alpha=0.4, delta=0.1, ratios=[0.1], thresholds=[0.4, 0.0], progress=False)
    some = selective.calibrate(network, inputs, disagreement, coverage=0.5, **settings)
    some.save(tmp_path / "some", network, plan={"coverage": 0.5})
    assert certificates.verify(tmp_path / "some").saved["plan"] == {"coverage": 0.5}
    every = selective.calibrate(network, inputs, disagreement, **settings)
    for result, share in ((some, 0.6), (every, 0.5)):
        with pytest.raises(ValueError, match=rf"^plan: coverage was to be {share}, and is"):
            result.save(tmp_path / "other", network, plan={"coverage": share})


@pytest.mark.parametrize("plan", ["text", {"loss": disagreement}, {"alpha": float("nan")}, {1: 2, "a": 3}])
def test_a_plan_that_is_no_json_is_refused(network, result, tmp_path, plan):
    with pytest.raises(TypeError, match=r"^plan must be a dict of text, numbers and lists"):
        result.save(tmp_path / "planned", network, plan=plan)
    with pytest.raises(TypeError, match=r"^plan must be"):
        certificates.plan_sha256(plan)
