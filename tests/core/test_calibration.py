"""The whole method against plain python, the promise by simulation, and certificates as objects, JSON and HTML."""

import dataclasses
import functools
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from confprune_edu import calibration, evaluation, fwer, losses, models, pruning, pvalues, selective
from confprune_edu.calibration import calibrate, calibrate_losses
from confprune_edu.certificates import Calibration
from confprune_edu.selective import SelectiveCalibration

RATIOS = [0.0, 0.5, 0.8, 0.9, 0.95, 0.99]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def errors(counts, n):
    """A loss table with these numbers of errors among n examples."""
    return np.arange(n)[:, None] < np.array(counts)


def evidence(wrong, trials, delta):
    """P-value against "the probability of an error is at most delta"."""
    return binomtest(wrong, trials, delta, alternative="greater").pvalue


# The method


def plain_binomial(column, alpha):
    n, k = len(column), sum(column)
    return math.fsum(math.comb(n, i) * alpha**i * (1 - alpha) ** (n - i) for i in range(k + 1))


def plain_hoeffding(column, alpha):
    mean = min(math.fsum(column) / len(column), alpha)
    h = (mean * math.log(mean / alpha) if mean else 0.0) + (1 - mean) * math.log((1 - mean) / (1 - alpha))
    return math.exp(-len(column) * h)


def plain_sequence(p, delta):
    return [all(q <= delta for q in p[: j + 1]) for j in range(len(p))]


def plain_holm(p, delta):
    passed, open_ = [False] * len(p), len(p)
    for j in sorted(range(len(p)), key=lambda j: p[j]):
        if p[j] > delta / open_:
            break
        passed[j], open_ = True, open_ - 1
    return passed


@pytest.mark.parametrize("p_value, plain_p", [("binomial", plain_binomial), ("hoeffding", plain_hoeffding)])
@pytest.mark.parametrize("procedure, plain", [("fixed_sequence", plain_sequence), ("holm", plain_holm)])
def test_whole_method_in_plain_python(p_value, plain_p, procedure, plain):
    rng, answers = np.random.default_rng(0), set()
    for _ in range(60):
        n, m, alpha, delta = (
            int(rng.integers(1, 80)),
            int(rng.integers(1, 8)),
            rng.uniform(0.05, 0.5),
            rng.uniform(0.05, 0.3),
        )
        table = (rng.random((n, m)) < np.sort(rng.uniform(0, 1.3 * alpha, m))).astype(int)
        ratios = np.sort(rng.uniform(0, 1, m)).tolist()
        got = calibrate_losses(table, ratios, alpha=alpha, delta=delta, p_value=p_value, procedure=procedure)
        columns = table.T.tolist()
        p = [plain_p(column, alpha) for column in columns]
        certified = [ratio for ratio, yes in zip(ratios, plain(p, delta), strict=True) if yes]
        assert got.ratio == (max(certified) if certified else None)
        assert got.rejected.tolist() == plain(p, delta) and got.p_values == pytest.approx(p, rel=1e-9)
        assert got.loss_means.tolist() == [sum(column) / n for column in columns]
        assert (got.alpha, got.delta, got.n, got.ratios.tolist()) == (alpha, delta, n, ratios)
        answers.add(None if not certified else len(certified))
    assert len(answers) > 4 and None in answers


PROCEDURES = {
    "fixed_sequence": "fixed_sequence",
    "holm": "holm",
    "bonferroni": "bonferroni",
    "function": fwer.fixed_sequence,
    "multi_start": functools.partial(fwer.multi_start, starts=[0, 3]),
    "chain": functools.partial(fwer.graphical, weights=[1, 0, 0, 0, 0, 0], transitions=np.eye(6, k=1)),
}


@pytest.fixture(scope="module")
def tables(digits):
    """Whole loss tables of 400 digits, by name of the loss."""
    data = tuple(part[1000:1400] for part in digits)
    model = models.load("mnist-mlp")
    named = (losses.degradation, losses.accuracy_drop)
    return data, {loss.__name__: evaluation.loss_table(model, data, RATIOS, loss) for loss in named}


@pytest.mark.parametrize("p_value", pvalues.METHODS)
@pytest.mark.parametrize("procedure", PROCEDURES)
def test_lazy_and_whole_calibration_agree(mlp, tables, p_value, procedure):
    data, whole = tables
    settings = dict(alpha=0.06, delta=0.1, p_value=p_value, procedure=PROCEDURES[procedure], ratios=RATIOS)
    lazy = calibrate(mlp, data, losses.degradation, **settings)
    full = calibrate_losses(whole["degradation"], **settings)
    assert lazy.ratio == full.ratio and lazy.rejected.tolist() == full.rejected.tolist()
    done = np.isfinite(lazy.p_values)
    starts = {"fixed_sequence": [0], "function": [0], "multi_start": [0, 3]}.get(procedure, range(6))
    assert done.tolist() == [j in starts or bool(full.rejected[j - 1]) for j in range(6)]
    np.testing.assert_allclose(lazy.p_values[done], full.p_values[done], rtol=1e-12)
    np.testing.assert_array_equal(lazy.loss_means[done], full.loss_means[done])
    assert np.isnan(lazy.loss_means[~done]).all() and np.isfinite(full.p_values).all()
    assert (lazy.n, lazy.alpha, lazy.delta, lazy.procedure) == (full.n, full.alpha, full.delta, full.procedure)


@pytest.mark.parametrize("starts", [[0], [0, 5, 25]])
def test_ratios_evaluated_beyond_a_failure_change_no_number(starts):
    """Losses grow with the ratio up to 0.4 and again from 0.5 on: sequences that begin there fail twice."""
    grid, model = np.arange(50) / 50, nn.Linear(20, 5)
    evaluated: list[float] = []

    def loss(pruned, full, target):
        ratio = round(pruned[0, 0].item() * 100)
        evaluated.append(ratio)
        return torch.arange(400) < 400 * (ratio / 100 if ratio < 50 else ratio / 100 - 0.5)

    def of(model, inputs):  # the share of zeros, in the first output
        return torch.full((len(inputs), 5), float((model.weight == 0).double().mean()))

    settings = dict(alpha=0.2, delta=0.1, procedure=functools.partial(fwer.multi_start, starts=starts), ratios=grid)
    data = torch.randn(400, 20)
    results = {}
    for block in (1, None, 7, 50):
        evaluated.clear()
        results[block] = calibrate(model, data, loss, block=block, call=of, weights=["weight"], **settings)
        assert results[block].evaluated == len(set(evaluated))
    alone = results.pop(1)
    assert alone.evaluated == np.isfinite(alone.p_values).sum() < 30
    assert strict(Calibration.from_json(alone.to_json()).to_json()) == strict(alone.to_json())
    for result in results.values():
        record, want = strict(result.to_json()), strict(alone.to_json())
        assert record.pop("evaluated") > want.pop("evaluated") and record == want
    for more, words in (
        (1, "1 more was evaluated along the way and does"),
        (3, "3 more were evaluated along the way and do"),
    ):
        said = dataclasses.replace(alone, evaluated=int(alone.tested.sum()) + more)
        assert f"({words} not count)" in repr(said).replace("\n", " ")
    assert results[None].evaluated - alone.evaluated <= 4 * len(starts)


def test_a_ratio_beyond_the_failure_whose_losses_are_none_is_not_missed(mlp, digits):
    def loss(pruned, full, target):
        wrong = (pruned.argmax(1) != full.argmax(1)).double()
        return wrong if wrong.mean() < 0.5 else wrong * torch.nan

    settings = dict(alpha=0.05, delta=0.1, ratios=np.arange(90, 100) / 100)
    result = calibrate(mlp, digits[0][:300], loss, **settings)
    assert np.isfinite(result.p_values).sum() == result.rejected.sum() + 1
    with pytest.raises(ValueError, match="ratio"):
        calibrate(mlp, digits[0][:300], loss, procedure="holm", **settings)


@pytest.mark.parametrize("p_value", sorted(set(pvalues.METHODS) - {"binomial"}))
def test_signed_losses_are_rescaled_together_with_alpha(mlp, tables, p_value):
    data, whole = tables
    table, settings = whole["accuracy_drop"], dict(delta=0.1, p_value=p_value)
    assert table.min() == -1
    lazy = calibrate(mlp, data, losses.accuracy_drop, ratios=RATIOS, alpha=0.15, **settings)
    full = calibrate_losses(table, RATIOS, alpha=0.15, loss_range=(-1, 1), **settings)
    rescaled = calibrate_losses((table + 1) / 2, RATIOS, alpha=1.15 / 2, **settings)
    assert lazy.ratio == full.ratio == rescaled.ratio is not None
    assert lazy.rejected.tolist() == full.rejected.tolist() == rescaled.rejected.tolist()
    np.testing.assert_allclose(full.p_values, rescaled.p_values, rtol=1e-12)
    np.testing.assert_allclose(full.loss_means, table.mean(axis=0), rtol=1e-12)
    assert (lazy.alpha, lazy.loss_range, full.loss_range) == (0.15, (-1, 1), (-1, 1))


def test_alpha_of_a_signed_loss_may_be_zero_or_negative():
    gain = np.full((200, 1), -0.5)
    assert calibrate_losses(gain, [0.5], alpha=0.0, delta=0.1, loss_range=(-1, 1)).ratio == 0.5
    assert calibrate_losses(gain, [0.5], alpha=-0.3, delta=0.1, loss_range=(-1, 1)).ratio == 0.5
    assert calibrate_losses(gain, [0.5], alpha=-0.6, delta=0.1, loss_range=(-1, 1)).ratio is None


# Grids and answers


def test_last_certified_and_not_first_failed():
    ratios = [0.1, 0.3, 0.5, 0.7, 0.9]
    for certified in range(6):
        table = errors([1] * certified + [30] * (5 - certified), 200)
        got = calibrate_losses(table, ratios, alpha=0.1, delta=0.1)
        assert got.ratio == ([None, *ratios][certified]) and got.rejected.sum() == certified


@pytest.mark.parametrize("counts, ratio", [([0, 0], 0.6), ([0, 50], 0.2), ([50, 0], None), ([50, 50], None)])
def test_grid_of_two(counts, ratio):
    assert calibrate_losses(errors(counts, 50), [0.2, 0.6], alpha=0.1, delta=0.1).ratio == ratio


@pytest.mark.parametrize("procedure", ["fixed_sequence", "holm", "bonferroni"])
def test_grid_of_one(procedure):
    settings = dict(alpha=0.1, delta=0.1, procedure=procedure)
    assert calibrate_losses(errors([0], 100), [0.0], **settings).ratio == 0.0
    assert calibrate_losses(errors([9], 100), [0.0], **settings).ratio is None


def test_risk_that_is_not_monotone():
    table, ratios = errors([1, 30, 1, 30], 100), [0.1, 0.2, 0.3, 0.4]
    assert calibrate_losses(table, ratios, alpha=0.1, delta=0.1).ratio == 0.1
    holm = calibrate_losses(table, ratios, alpha=0.1, delta=0.1, procedure="holm")
    assert holm.ratio == 0.3 and holm.rejected.tolist() == [True, False, True, False]


def test_risk_far_above_alpha_and_a_single_example():
    for p_value in pvalues.METHODS:
        for n in (1, 100):
            got = calibrate_losses(errors([n], n), [0.5], alpha=0.1, delta=0.1, p_value=p_value)
            assert got.ratio is None and got.p_values.tolist() == [1]
    assert calibrate_losses([[0]], [0.5], alpha=0.1, delta=0.1).ratio is None
    assert calibrate_losses([[0]], [0.5], alpha=0.95, delta=0.1, p_value="binomial").ratio == 0.5
    assert calibrate_losses([[0.0]] * 22, [0.5], alpha=0.1, delta=0.1).ratio == 0.5
    assert calibrate_losses([[0.0]] * 21, [0.5], alpha=0.1, delta=0.1).ratio is None


def test_p_equal_to_delta_is_certified():
    p = calibrate_losses(errors([3], 100), [0.5], alpha=0.1, delta=0.5).p_values[0]
    assert calibrate_losses(errors([3], 100), [0.5], alpha=0.1, delta=p).ratio == 0.5
    assert calibrate_losses(errors([3], 100), [0.5], alpha=0.1, delta=np.nextafter(p, 0)).ratio is None

    def loss(pruned, full, target):
        return torch.arange(100) < 3

    lazy = dict(model=nn.Linear(3, 3), data=torch.ones(100, 3), loss=loss, ratios=[0.2, 0.5], alpha=0.1)
    assert calibrate(delta=p, **lazy).ratio == 0.5
    assert calibrate(delta=np.nextafter(p, 0), **lazy).ratio is None


@pytest.mark.parametrize("dtype", [bool, int, np.uint8, np.int8, np.float16, np.float32, float])
def test_type_of_the_table_does_not_matter(dtype):
    table = errors([3, 5, 130, 300], 1000)  # 130 and 300 do not fit into eight bits
    want = calibrate_losses(table, [0.1, 0.2, 0.3, 0.4], alpha=0.2, delta=0.1, procedure="holm")
    got = calibrate_losses(table.astype(dtype), [0.1, 0.2, 0.3, 0.4], alpha=0.2, delta=0.1, procedure="holm")
    assert got.p_values.tolist() == want.p_values.tolist() and got.loss_means.tolist() == want.loss_means.tolist()
    assert want.ratio == 0.3


def test_inputs_are_not_changed():
    table, ratios = errors([3, 50], 100).astype(float), np.array([0.1, 0.2])
    copies = table.copy(), ratios.copy()
    got = calibrate_losses(table, ratios, alpha=0.1, delta=0.1, loss_range=(-1, 1))
    got.ratios[0] = 0.7
    assert (table == copies[0]).all() and (ratios == copies[1]).all()


def test_default_grid_is_every_per_cent():
    assert list(calibration.RATIOS) == [j / 100 for j in range(100)]


def test_own_procedure_can_not_change_the_recorded_p_values():
    def sorting(p, delta):
        p.sort()
        return p <= delta

    table = errors([50, 0], 100)
    want = calibrate_losses(table, [0.1, 0.2], alpha=0.1, delta=0.1, procedure="holm").p_values
    got = calibrate_losses(table, [0.1, 0.2], alpha=0.1, delta=0.1, procedure=sorting).p_values
    assert got.tolist() == want.tolist()


# The promise


def false_certificates(draw, certify, trials=2000, seed=0):
    """How many of `trials` tables lead to a certificate; nothing may be certified."""
    rng = np.random.default_rng(seed)
    return sum(bool(certify(draw(rng))) for _ in range(trials))


def signed(rng):
    """100 losses of -1, 0 or 1 with mean exactly 0.05."""
    return rng.choice([-1.0, 0.0, 1.0], p=[0.4, 0.15, 0.45], size=(100, 1))


@pytest.mark.long
def test_signed_losses_keep_the_promise():
    def certify(table):
        return calibrate_losses(table, [0.5], alpha=0.05, delta=0.1, loss_range=(-1, 1)).rejected.any()

    wrong = false_certificates(signed, certify)
    assert evidence(wrong, 2000, 0.1) >= 1e-4 and wrong > 20


def test_signed_losses_without_rescaling_break_the_promise():
    def raw(table):
        return pvalues.tight(table.sum(axis=0).clip(0), len(table), 0.05) <= 0.1

    assert evidence(false_certificates(signed, raw), 2000, 0.1) < 1e-4


def at_the_null(rng):
    """100 losses for each of two ratios, both with risk exactly alpha = 0.1, independent."""
    return rng.random((100, 2)) < 0.1


def test_the_order_fixed_beforehand_keeps_the_promise():
    def certify(table):
        return calibrate_losses(table, [0.2, 0.6], alpha=0.1, delta=0.12, p_value="binomial").rejected.any()

    wrong = false_certificates(at_the_null, certify)  # P[Bin(100, 0.1) <= 6] = 0.117
    assert evidence(wrong, 2000, 0.12) >= 1e-4 and wrong > 180


def test_an_order_chosen_by_the_losses_breaks_the_promise():
    def peek(table):
        order = np.argsort(table.mean(axis=0))
        return calibrate_losses(table[:, order], [0.2, 0.6], alpha=0.1, delta=0.12, p_value="binomial").rejected.any()

    assert evidence(false_certificates(at_the_null, peek), 2000, 0.12) < 1e-4


# Refusals

GOOD = dict(losses=[[0.0, 0.5]] * 9, ratios=[0.2, 0.6], alpha=0.1, delta=0.1)


@pytest.mark.parametrize(
    "name, value",
    [
        *(("losses", v) for v in ([[0.0, np.nan]], [[0.0, 1.01]], [[-0.01, 0.0]], [0.0, 1.0], [[0.0]], [[]], [], 0.5)),
        *(("losses", v) for v in (np.zeros((0, 2)), np.zeros((9, 2, 1)), [[np.inf, 0.0]], [[2, 0]])),
        *(("alpha", v) for v in (0, 1, 0.0, 1.0, -0.1, 1.1, np.nan, np.inf, "0.1", None, True, [0.1])),
        *(("delta", v) for v in (0, 1, 0.0, 1.0, -0.1, 1.1, np.nan, np.inf, "0.1", None, True, [0.1])),
        *(("ratios", v) for v in ([0.6, 0.2], [0.2, 0.2], [0.2, 1.0], [-0.1, 0.2], [], [[0.2, 0.6]], 0.5)),
        *(("ratios", v) for v in ([0.2, np.nan], ["a", "b"], [0.1, 0.2, 0.3], [0.1], None)),
        *(("p_value", v) for v in ("t-test", None, pvalues.tight, "")),
        *(("procedure", v) for v in ("graphical", None, "", 5)),
        *(("loss_range", v) for v in ((1, 0), (0, 0), (0, np.inf), (np.nan, 1), (0,), 5, None, (0, 1, 2))),
        *(("procedure", lambda p, d, v=v: v) for v in (None, [1, 0], [True], [[True, False]], True, [0.2, 0.5])),
    ],
)
def test_bad_arguments_are_refused_by_name(name, value):
    with pytest.raises((TypeError, ValueError), match=name):
        calibrate_losses(**(GOOD | {name: value}))


@pytest.mark.parametrize(
    "name, value",
    [("alpha", 1.5), ("delta", 0), ("ratios", [1.0]), ("p_value", "t"), ("procedure", "x"), ("loss", "error")],
)
def test_calibrate_refuses_by_name(name, value):
    good = dict(model=nn.Linear(3, 3), data=torch.ones(9, 3), loss=losses.disagreement, alpha=0.1, delta=0.1)
    with pytest.raises((TypeError, ValueError), match=name):
        calibrate(**(good | {name: value}))


@pytest.mark.parametrize("alpha", [-1, 1, -1.5, 1.5])
def test_alpha_outside_the_range_of_the_loss_is_refused(alpha):
    data = (torch.ones(9, 3), torch.zeros(9, dtype=torch.int64))
    with pytest.raises(ValueError, match="alpha"):
        calibrate(nn.Linear(3, 3), data, losses.accuracy_drop, alpha=alpha, delta=0.1)
    with pytest.raises(ValueError, match="alpha"):
        calibrate_losses([[0.5]], [0.5], alpha=alpha, delta=0.1, loss_range=(-1, 1))


def test_binomial_refuses_losses_that_are_not_0_or_1():
    with pytest.raises(TypeError, match="binomial"):
        calibrate_losses([[0.0], [0.5]], [0.5], alpha=0.1, delta=0.1, p_value="binomial")


# JSON


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def same(a, b):
    for field in dataclasses.fields(Calibration):
        if field.name in ("scores", "finish", "family"):
            continue
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert type(x) is type(y), field.name
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
        else:
            assert x == y


def certificates():
    rng = np.random.default_rng(0)
    table, grid = rng.random((50, 4)) * [0.01, 0.05, 0.3, 0.9], np.sort(rng.random(4))
    linear, x = nn.Linear(4, 4), torch.randn(50, 4)
    own = functools.partial(fwer.multi_start, starts=[0, 2])
    return {
        "losses": calibrate_losses(table, grid, alpha=0.2, delta=1 / 3),
        "nothing": calibrate_losses(table, grid, alpha=1e-3, delta=0.1),
        "callable": calibrate_losses(table, grid, alpha=0.2, delta=0.1, procedure=own),
        "lambda": calibrate_losses(table, grid, alpha=0.2, delta=0.1, procedure=lambda p, d: p <= d),
        "signed": calibrate_losses(table, grid, alpha=np.float32(0.2), delta=0.1, loss_range=(-1, 1)),
        "lazy": calibrate(linear, x, losses.disagreement, alpha=0.3, delta=0.1),
        "custom": calibrate(
            linear,
            x,
            losses.disagreement,
            alpha=0.3,
            delta=0.1,
            scores=pruning.magnitude(linear),
            finish=nn.Module.eval,
        ),
    }


@pytest.mark.parametrize("name", ["losses", "nothing", "callable", "lambda", "signed", "lazy", "custom"])
def test_json_gives_the_certificate_back(name):
    certificate = certificates()[name]
    text = certificate.to_json()
    record = strict(text)
    assert (record["schema"], record["version"]) == ("confprune_edu.Calibration", 1)
    back = Calibration.from_json(text)
    same(certificate, back)
    assert (
        back.to_json() == text and repr(back) == repr(certificate) and back._repr_html_() == certificate._repr_html_()
    )


def test_json_of_a_lazy_certificate_has_null_where_nothing_was_evaluated():
    certificate = certificates()["lazy"]
    assert None in strict(certificate.to_json())["p_values"] and np.isnan(certificate.p_values).any()


def edited(**changes):
    record = json.loads(calibrate_losses(errors([0, 0, 90], 100), [0.1, 0.2, 0.3], alpha=0.1, delta=0.1).to_json())
    record.update(changes)
    return json.dumps({key: value for key, value in record.items() if value != "drop"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        "<b>",
        edited()[:-20],
        *(edited(**{key: "drop"}) for key in ("schema", "version", "ratio", "alpha", "p_values", "rejected", "n")),
    ],
)
def test_texts_that_are_no_record_are_refused(text):
    with pytest.raises(ValueError, match="calibration record"):
        Calibration.from_json(text)


def test_a_record_comes_as_text():
    record = calibrate_losses(np.zeros((9, 1)), [0.5], alpha=0.5, delta=0.1).to_json()
    with pytest.raises(TypeError, match="text must be what to_json gave, got dict"):
        Calibration.from_json(json.loads(record))
    with pytest.raises(ValueError, match="its text is needed, not a path"):
        Calibration.from_json("certificate.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "other"},
        {"version": 2},
        {"version": "1"},
        {"ratio": 0.3},
        {"ratio": None},
        {"ratio": 0.1},
        {"ratio": "0.2"},
        {"rejected": [True, True]},
        {"rejected": [True, True, True]},
        {"rejected": ["true", "true", ""]},
        {"p_values": [0.0, 0.0]},
        {"p_values": {"a": 1}},
        {"p_values": "abc"},
        {"p_values": [0.0, 0.0, 1.5]},
        {"p_values": [None, 0.0, 1.0]},
        {"ratios": [0.3, 0.2, 0.1]},
        {"ratios": [[0.1, 0.2, 0.3]]},
        {"ratios": None},
        {"alpha": None},
        {"alpha": "0.1"},
        {"alpha": 5},
        {"delta": None},
        {"delta": 5},
        {"n": "many"},
        {"n": 0},
        {"n": -1},
        {"loss_range": None},
        {"loss_range": 5},
        {"loss_range": []},
        {"loss": None},
        {"p_value": "t-test"},
        {"procedure": None},
        {"finished": "no"},
        {"model_sha256": 5},
    ],
    ids=str,
)
def test_records_that_contradict_themselves_are_refused(changes):
    with pytest.raises(ValueError, match="calibration record"):
        Calibration.from_json(edited(**changes))


# before data_sha256 and seed
OLD = json.loads((Path(__file__).parent / "records" / "version_1.json").read_text(encoding="utf-8"))
SUMMED = [name for name, record in OLD.items() if record["p_value"] in pvalues.FROM_SUM and name != "nothing"]


def kind(record):
    return SelectiveCalibration if "Selective" in record["schema"] else Calibration


def read(record):
    return kind(record).from_json(json.dumps(record))


@pytest.mark.parametrize("name", OLD)
def test_records_of_before_are_read(name):
    certificate = read(OLD[name])
    assert certificate.rejected.tolist() == OLD[name]["rejected"] and certificate.data_sha256 is None
    again = json.loads(certificate.to_json())
    assert {key: again[key] for key in OLD[name]} == OLD[name]


def shifted(values, by):
    """A list (of lists) of numbers, each that is there moved by `by` and kept in [0, 1]."""
    if isinstance(values, list):
        return [shifted(value, by) for value in values]
    return values if values is None else min(max(values + by, 0.0), 1.0)


@pytest.mark.parametrize("name", SUMMED)
def test_hostile_records_are_refused_as_values(name):
    record, whole = OLD[name], json.dumps(OLD[name])
    hostile = {
        "contradicts itself: ": json.dumps(record | {"alpha": 10**400}),
        "contradicts itself: loss longer than": json.dumps(record | {"loss": "x" * 10**7}),
        "contradicts itself: p_value must be one of": json.dumps(record | {"p_value": "x" * 10**7}),
        "contradicts itself: data_sha256 longer than": json.dumps(record | {"data_sha256": "x" * 10**7}),
        "contradicts itself: weights longer than": json.dumps(record | {"weights": ["x" * 10**7]}),
        "surrogates not allowed": json.dumps(record | {"loss": "half \ud83d"}),
        "not a calibration record .* alpha stands there twice": whole[:-1] + ', "alpha": 0.9}',
        "not a calibration record .* while decoding a JSON array": "[" * 10**5 + "]" * 10**5,
    }
    for match, text in hostile.items():
        with pytest.raises(ValueError, match=match) as refused:
            kind(record).from_json(text)
        assert len(str(refused.value)) < 1000
    for field in ("ratios", "p_values"):
        with pytest.raises(ValueError, match="contradicts itself"):
            read(record | {field: [10**400] * len(record[field])})


@pytest.mark.parametrize("name", SUMMED)
def test_edited_records_are_refused_by_name(name):
    record = OLD[name]
    read(record)
    means = "risk" if "risk" in record else "loss_means"
    for field, value in {
        "alpha": record["alpha"] + 0.05,
        "n": 2 * record["n"],
        means: shifted(record[means], -0.005),
        "p_values": shifted(record["p_values"], -1e-4),
    }.items():
        with pytest.raises(ValueError, match=r"contradicts itself: (p_values must follow|mean losses|rejected must)"):
            read(record | {field: value})
    if np.any(record["rejected"]):
        with pytest.raises(ValueError, match="contradicts itself: rejected must follow"):
            read(record | {"delta": 1e-200})


@pytest.mark.parametrize("name", OLD)
def test_more_than_the_procedure_rejects_is_refused(name):
    record = OLD[name]
    p, mask = np.array(record["p_values"], dtype=float), np.array(record["rejected"])
    for place in map(tuple, np.argwhere(~mask & ~(p <= record["delta"]))):
        more = mask.copy()
        more[place] = True
        changed = record | {"rejected": more.tolist()}
        if "ratio" in record:
            changed["ratio"] = max(r for r, yes in zip(record["ratios"], more, strict=True) if yes)
        with pytest.raises(ValueError, match=r"contradicts itself: (rejected must follow|coverage must)"):
            read(changed)


def test_a_certificate_at_p_1_and_mean_1_is_refused():
    sure = {"p_values": [1.0] * 3, "loss_means": [1.0] * 3, "rejected": [True] * 3, "ratio": 0.3}
    with pytest.raises(ValueError, match="rejected must follow from p_values, delta and procedure"):
        Calibration.from_json(edited(**sure))
    with pytest.raises(ValueError, match="rejected must follow"):
        Calibration.from_json(edited(**sure, procedure="mine", p_value="betting"))


def test_a_known_stop_rule_is_repeated():
    record = edited(p_values=[0.0, 0.5, 0.0], loss_means=[0.0] * 3, rejected=[True, False, True], ratio=0.3)
    for procedure, fine in (("fixed_sequence", False), ("holm", True), ("mine", True), ("custom holm", True)):
        text = json.dumps(json.loads(record) | {"procedure": procedure, "p_value": "betting"})
        if fine:
            assert Calibration.from_json(text).ratio == 0.3
        else:
            with pytest.raises(ValueError, match="rejected must follow"):
                Calibration.from_json(text)


@pytest.mark.parametrize("procedure, p", [("holm", [0.0, 0.0, None]), ("fixed_sequence", [0.0, None, None])])
def test_only_a_sequence_that_failed_leaves_ratios_out(procedure, p):
    means = [0.0 if q is not None else None for q in p]
    rejected = [q is not None for q in p]
    changes = {"p_values": p, "loss_means": means, "rejected": rejected, "ratio": 0.1 * sum(rejected)}
    with pytest.raises(ValueError, match="contradicts itself: p_values must be there for all ratios"):
        Calibration.from_json(edited(**changes, procedure=procedure, p_value="betting"))


def test_sums_of_many_losses_survive_the_rounding_of_their_mean():
    rng = np.random.default_rng(3)
    for p_value in pvalues.FROM_SUM:
        for low, high in ((0, 1), (-1, 2), (0, 0.3), (-7, 700)):
            table = low + (high - low) * (rng.random((20_000, 4)) < [0.05, 0.09, 0.1, 0.101])
            if p_value != "binomial":
                table[::7] = low + (high - low) * rng.random((len(table[::7]), 4)) ** 9
            alpha = low + 0.1 * (high - low)
            options = dict(alpha=alpha, delta=0.3, p_value=p_value, procedure="holm", loss_range=(low, high))
            certificate = calibrate_losses(table, [0.1, 0.2, 0.3, 0.4], **options)
            assert Calibration.from_json(certificate.to_json()).n == 20_000


# Which examples, and whose procedure


def test_the_same_examples_in_the_same_order_are_noticed():
    table = errors([1, 5], 100)
    fixed = dict(ratios=[0.1, 0.2], alpha=0.1, delta=0.1)
    one, two = calibrate_losses(table, **fixed), calibrate_losses(table, **fixed | {"alpha": 0.2})
    assert one.data_sha256 == two.data_sha256 == Calibration.from_json(one.to_json()).data_sha256
    shuffled = calibrate_losses(table[::-1], **fixed)
    assert shuffled.p_values.tolist() == one.p_values.tolist() and shuffled.data_sha256 != one.data_sha256


def test_the_fingerprint_is_that_of_the_examples_however_they_are_read():
    x, y = torch.randn(50, 4), torch.randint(0, 3, (50,))
    fixed = dict(loss=losses.error, alpha=0.95, delta=0.1, ratios=[0.0, 0.5], progress=False)
    whole = TensorDataset(x, y)
    forms = [(x, y), (x.numpy(), y.numpy()), whole, DataLoader(whole, batch_size=7)]
    found = [calibrate(nn.Linear(4, 3), data, **fixed).data_sha256 for data in forms]
    found += [calibrate(nn.Linear(4, 3), (x, y), **fixed | {"procedure": "holm", "batch_size": 9}).data_sha256]
    found += [selective.calibrate(nn.Linear(4, 3), (x, y), **fixed).data_sha256]
    assert len(set(found)) == 1 and len(found[0]) == 64
    others = [
        (x.flip(0), y.flip(0)),
        (x, y.flip(0)),
        (x.double(), y),
        (x[:49], y[:49]),
        (x.reshape(50, 4) + 0.0, y + 0),
    ]
    seen = [calibrate(nn.Linear(4, 3).to(data[0].dtype), data, **fixed).data_sha256 for data in others]
    assert len(set(seen[:4]) | set(found)) == 5 and seen[4] == found[0]


def test_a_loader_is_read_no_oftener_for_its_fingerprint():
    class Counted(TensorDataset):
        reads = 0

        def __getitem__(self, i):
            Counted.reads += 1
            return super().__getitem__(i)

    fixed = dict(alpha=0.95, delta=0.1, ratios=[0.0, 0.5], procedure="holm", progress=False)
    data = Counted(torch.randn(30, 4))
    assert calibrate(nn.Linear(4, 3), data, losses.disagreement, **fixed).data_sha256 is not None
    assert Counted.reads == 30


def holm(p_values, delta):
    """Not Holm's procedure."""
    return p_values <= delta


def test_a_procedure_is_known_by_identity_and_not_by_name():
    options = dict(losses=errors([1, 2], 100), ratios=[0.1, 0.2], alpha=0.1, delta=0.1)
    for own in (holm, functools.partial(holm)):
        certificate = calibrate_losses(**options, procedure=own)
        for one in (certificate, Calibration.from_json(certificate.to_json())):
            assert "provided that custom holm keeps its own chance" in unwrapped(one)
    for known in ("holm", fwer.holm, functools.partial(fwer.holm), functools.partial(fwer.multi_start, starts=[0])):
        assert "provided" not in unwrapped(calibrate_losses(**options, procedure=known))


def test_settings_may_be_scalars_of_torch_or_numpy():
    plain = calibrate_losses(errors([1, 2], 100), [0.1, 0.2], alpha=0.125, delta=0.0625)
    for kind in (torch.tensor, np.float32, np.float64, np.array):
        got = calibrate_losses(errors([1, 2], 100), [0.1, 0.2], alpha=kind(0.125), delta=kind(0.0625))
        same(got, plain)


# Texts


def unwrapped(certificate):
    return " ".join(repr(certificate).split())


def test_texts_name_the_answer_and_the_settings():
    certificate = calibrate_losses(errors([0, 1, 90], 100), [0.125, 0.25, 0.375], alpha=0.15, delta=0.07)
    for text in (unwrapped(certificate), certificate._repr_html_()):
        for words in ("0.25", "0.15", "0.07", "n = 100", "tight", "fixed_sequence", "2 of 3", "0.0100"):
            assert words in text
        assert "nothing" not in text.lower()


def test_texts_say_when_nothing_was_certified():
    certificate = calibrate_losses(errors([90], 100), [0.125], alpha=0.15, delta=0.07)
    for text in (unwrapped(certificate), certificate._repr_html_()):
        assert "Nothing certified" in text and "does not say that pruning is unsafe" in text
        assert "None" not in text and "0.125" not in text


def test_texts_of_clt_do_not_promise_a_finite_sample_guarantee():
    settings = dict(ratios=[0.5], alpha=0.15, delta=0.07)
    table = errors([1], 100)
    assert "in the limit" in unwrapped(calibrate_losses(table, p_value="clt", **settings))
    assert "in the limit" not in unwrapped(calibrate_losses(table, **settings))


def test_html_escapes_names():
    def evil(pruned, full, target):
        return losses.disagreement(pruned, full)

    evil.__name__ = '<b onload="x">&'

    def procedure(p, delta):
        return p <= delta

    procedure.__name__ = "<script>"
    for alpha in (0.5, 0.001):
        card = calibrate(
            nn.Linear(3, 3), torch.ones(20, 3), evil, alpha=alpha, delta=0.1, ratios=[0.0], procedure=procedure
        )._repr_html_()
        assert "&lt;b onload=&quot;x&quot;&gt;&amp;" in card and "&lt;script&gt;" in card
        assert "<b" not in card and "<script" not in card


def test_names_of_losses_and_procedures():
    class Own:
        def __call__(self, pruned, full, target):
            return losses.disagreement(pruned, full)

    settings = dict(alpha=0.5, delta=0.1, ratios=[0.0])
    model, x = nn.Linear(3, 3), torch.ones(20, 3)
    assert calibrate(model, x, Own(), **settings).loss == "Own"
    assert calibrate(model, x, losses.disagreement, **settings).loss == "disagreement"
    assert "disagreement" in calibrate(model, x, functools.partial(losses.disagreement), **settings).loss
    own = functools.partial(fwer.multi_start, starts=[0])
    assert calibrate(model, x, losses.disagreement, procedure=own, **settings).procedure == "multi_start(starts=[0])"


# The certified network


def conv_net():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, stride=3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(6 * 64, 10)
    )


def test_prune_gives_the_network_that_was_evaluated(mlp, digits):
    images, labels = (part[1000:1400] for part in digits)
    certificate = calibrate(mlp, (images, labels), losses.error, alpha=0.15, delta=0.1, ratios=RATIOS)
    pruned = certificate.prune(mlp)
    with torch.no_grad():
        wrong = (pruned(images).argmax(1) != labels).double().mean().item()
    assert certificate.ratio == 0.9
    assert wrong == certificate.loss_means[certificate.ratios == certificate.ratio][0]
    assert abs(pruning.sparsity(pruned) - certificate.ratio) < 1e-5 and not pruned.training


def test_prune_repeats_finish_exactly(digits, unchanged):
    images = digits[0][:200]

    def statistics(model):
        model[1].reset_running_stats()
        model.train()
        model(images[torch.randperm(200)[:100]])

    def seen(pruned, full, target):
        outputs.append(pruned.double().sum().item())
        return losses.disagreement(pruned, full)

    model, outputs, x = conv_net(), [], digits[0][1000:1200]
    with unchanged(model):
        certificate = calibrate(
            model, x, seen, alpha=0.999, delta=0.5, ratios=[0.0, 0.3, 0.6], finish=statistics, batch_size=200
        )
    torch.rand(5)
    random.random()
    one, two = certificate.prune(model), certificate.prune(model)
    with torch.no_grad():
        assert one(x).double().sum().item() == pytest.approx(outputs[-1], rel=1e-6)  # another order of memory
    assert certificate.ratio == 0.6 and certificate.finished and not one.training
    assert all(torch.equal(v, two.state_dict()[name]) for name, v in one.state_dict().items())
    assert not torch.equal(one[1].running_mean, pruning.prune(model, 0.6)[1].running_mean)
    back = Calibration.from_json(certificate.to_json())
    with pytest.raises(ValueError, match="finish"):
        back.prune(model)
    again = back.prune(model, finish=statistics)
    assert all(torch.equal(v, again.state_dict()[name]) for name, v in one.state_dict().items())


def certified(model, **options):
    return calibrate(model, torch.ones(50, 8), losses.disagreement, alpha=0.9, delta=0.1, ratios=[0.0, 0.5], **options)


def test_prune_leaves_the_model_alone(unchanged):
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)).train()
    certificate = certified(model)
    with unchanged(model):
        pruned = certificate.prune(model)
    assert not any(m.training for m in pruned.modules()) and pruning.sparsity(pruned) == 0.5


def test_nothing_certified_prunes_nothing():
    with pytest.raises(ValueError, match="nothing was certified"):
        calibrate_losses(errors([90], 100), [0.5], alpha=0.1, delta=0.1).prune(nn.Linear(3, 3))


class Hidden(nn.Linear):
    """A linear layer with a buffer that its state dict does not show."""

    def __init__(self):
        super().__init__(8, 3)
        self.register_buffer("shift", torch.zeros(3), persistent=False)

    def forward(self, x):
        return super().forward(x) + self.shift


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.weight.data[0, 0].add_(1e-3),
        lambda m: m.bias.data.neg_(),
        lambda m: m.shift.add_(1),
        lambda m: m.bfloat16(),
        lambda m: m.double(),
        lambda m: m.weight.data.neg_(),
    ],
    ids=["weight", "bias", "buffer", "bfloat16", "float64", "signs"],
)
def test_another_model_is_refused(change):
    model = Hidden()
    certificate = certified(model)
    certificate.prune(model)
    change(model)
    for one in (certificate, Calibration.from_json(certificate.to_json())):
        with pytest.raises(ValueError, match="model"):
            one.prune(model)


def test_another_architecture_is_refused_and_a_copy_accepted():
    model = nn.Linear(8, 3)
    certificate = certified(model)
    with pytest.raises(ValueError, match="model"):
        certificate.prune(nn.Sequential(model))
    twin = nn.Linear(8, 3)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(certificate.prune(twin).weight, pruning.prune(model, 0.5).weight)


def test_custom_scores_are_remembered_and_needed_after_json():
    model = nn.Linear(8, 3)
    scores = {"weight": torch.rand(3, 8)}
    certificate = certified(model, scores=scores)
    want = pruning.prune(model, 0.5, scores).weight
    assert torch.equal(certificate.prune(model).weight, want)
    back = Calibration.from_json(certificate.to_json())
    with pytest.raises(ValueError, match="scores"):
        back.prune(model)
    assert torch.equal(back.prune(model, scores).weight, want)


def test_scores_that_change_afterwards_change_no_certificate():
    model = nn.Linear(8, 3)
    scores = {"weight": torch.rand(3, 8)}
    want = pruning.prune(model, 0.5, scores).weight
    certificate = certified(model, scores=scores)
    scores["weight"].neg_()
    assert torch.equal(certificate.prune(model).weight, want)


@pytest.mark.parametrize("custom", [True, False])
def test_scores_other_than_those_that_were_calibrated_are_refused(custom):
    model = nn.Linear(8, 3)
    certificate = certified(model, scores={"weight": torch.rand(3, 8)} if custom else None)
    for one in (certificate, Calibration.from_json(certificate.to_json())):
        with pytest.raises(ValueError, match="scores"):
            one.prune(model, {"weight": torch.rand(3, 8)})


def test_a_finish_that_was_not_calibrated_is_refused():
    model = nn.Linear(8, 3)
    with pytest.raises(ValueError, match="finish"):
        certified(model).prune(model, finish=lambda m: nn.init.zeros_(m.bias))


def test_certificate_from_losses_prunes_any_model_by_magnitude():
    certificate = calibrate_losses(errors([0], 100), [0.5], alpha=0.1, delta=0.1)
    model = nn.Linear(8, 3)
    assert certificate.model_sha256 is None and certificate.criterion == "unknown"
    assert torch.equal(certificate.prune(model).weight, pruning.prune(model, 0.5).weight)
    scores = {"weight": torch.rand(3, 8)}
    assert torch.equal(certificate.prune(model, scores).weight, pruning.prune(model, 0.5, scores).weight)
