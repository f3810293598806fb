"""Step 1 of the method: the loss of every calibration example at every pruning ratio.

How these tables are made fast is told in `engine/README.md`.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from confprune_edu import _checks, pruning
from confprune_edu.engine import batches, nested, tables
from confprune_edu.engine.passes import Options
from confprune_edu.engine.proof import Call
from confprune_edu.losses import Loss, loss_range as loss_range


def loss_table(
    model: nn.Module,
    data: Any,
    ratios: Sequence[float] | NDArray[Any],
    loss: Loss,
    *,
    scores: Mapping[str, Tensor] | None = None,
    finish: pruning.Finish | None = None,
    weights: pruning.Weights | None = None,
    family: pruning.Family | None = None,
    call: Call | None = None,
    target: batches.Target | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    executor: Executor | None = None,
    out: str | Path | None = None,
) -> NDArray[Any]:
    """Loss of every example (rows) under the model pruned to every ratio (columns).

    Parameters
    ----------
    model : torch.nn.Module
        The full network; called as model(inputs), see `call`. Its copies must read their own weights: a function in the
        place of `forward`, which stays bound to the original, is refused.
    data : (inputs, targets), inputs alone, a DataLoader or a Dataset
        Tensors, arrays or dicts of them with one example a row; or batches (inputs, targets) or inputs, of any type
        that the model takes; a list of texts is inputs. A loader is read once; with `finish` or `family`, and by
        `loss_columns`, once a ratio: it must then give the same examples in the same order each time, where shuffling
        by torch's generators is replayed.
    ratios : float array, shape (m,), strictly increasing in [0, 1)
        Fractions of the prunable weights to set to zero, or what `family` makes of them.
    loss : callable
        loss(pruned, full, target) -> (batch,), see `losses`.
    scores : dict from name to tensor, optional
        Pruning criterion; default: magnitude.
    finish : callable, optional
        finish(model) -> None, applied to each pruned copy before it is evaluated, see `pruning.family`.
    weights : list of str, or callable, optional
        Which parameters may go: name patterns, or a function (name, module, parameter) -> bool, see `pruning.prunable`.
    family : callable, optional
        family(model, ratio) -> the network at this ratio, in place of `scores` and `weights`: fewer bits or channels,
        an earlier exit. It is given a copy of the model in eval mode, which it may change and give back; losses compare
        with the model itself, at ratio 0, too. `family.knob = "share of channels removed"` says what the ratio is.
    call : callable, optional
        call(model, inputs) -> the output that the loss sees, in place of model(inputs):
        `lambda model, batch: model(**batch).logits`.
    target : callable, optional
        target(batch) -> its targets, or None. All of a batch, or of a tuple of tensors, is then inputs: two inputs
        without labels are `call=lambda model, batch: model(*batch), target=lambda batch: None`.
    batch_size : int, optional
        Examples at a time, for tensors; default: at most 1,280, and fewer if they are large or what layers give is,
        which is measured on four; a Dataset is read 256 at a time.
    device : optional
        Where to run; default: where the model is.
    progress : bool
        Show a progress bar if the work takes longer than two seconds.
    executor : concurrent.futures.Executor, optional
        Threads, processes, a Dask cluster (`Client(...).get_executor()`) or MPI (`mpi4py.futures`) to work on: tensors
        or arrays are cut by examples, and the model travels once with each piece. Where networks or losses draw random
        numbers or keep something outside of themselves (what a hook stores), or with `finish`, take processes, as
        threads share all of that. `ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))` keeps
        threads from waiting for one another.
    out : str or Path, optional
        File (.npy) that holds the table, for tables larger than memory; returned as a memory-mapped array. It appears
        when the table is complete: until then it ends in `.part`. To replace a file, delete it first.

    Returns
    -------
    bool array, shape (n, m), if the loss is boolean; float64 otherwise.

    Raises
    ------
    TypeError, ValueError
        Data, ratios or scores of another form; no example; losses that are NaN, outside the loss's range or not one an
        example.
    OSError
        `out` exists, or the disk has no place for it.

    >>> model, inputs = nn.Linear(4, 3), torch.ones(5, 4)
    >>> from confprune_edu.losses import disagreement
    >>> loss_table(model, inputs, [0.0, 0.5], disagreement)[:, 0].tolist()
    [False, False, False, False, False]
    """
    options = Options(scores, finish, batch_size, device, progress, weights, call, target, family)
    rows = tables.rows(model, data, ratios, {"losses": loss}, options, executor)
    if out is not None:
        return tables.filed(rows, batches.count(data), _checks.path(out, "out"))
    return tables.joined(rows, {"losses": loss})["losses"]


def loss_tables(
    model: nn.Module,
    data: Any,
    ratios: Sequence[float] | NDArray[Any],
    losses: Mapping[str, Loss],
    *,
    scores: Mapping[str, Tensor] | None = None,
    finish: pruning.Finish | None = None,
    weights: pruning.Weights | None = None,
    family: pruning.Family | None = None,
    call: Call | None = None,
    target: batches.Target | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    executor: Executor | None = None,
) -> dict[str, NDArray[Any]]:
    """Several tables from one pass over the pruned family: `loss_table` for each of `losses`, by name.

    Parameters and errors as in `loss_table`; `losses` maps a name of yours to a loss.

    >>> from confprune_edu.losses import confidence, disagreement
    >>> wanted = {"confidence": confidence, "disagreement": disagreement}
    >>> tables = loss_tables(nn.Linear(4, 3), torch.ones(5, 4), [0.0, 0.5], wanted)
    >>> {name: table.shape for name, table in tables.items()}
    {'confidence': (5, 2), 'disagreement': (5, 2)}
    """
    if not isinstance(losses, Mapping) or not losses:
        raise ValueError(f"losses must map at least one name to a loss, got {losses!r}")
    options = Options(scores, finish, batch_size, device, progress, weights, call, target, family)
    return tables.joined(tables.rows(model, data, ratios, losses, options, executor), losses)


def loss_columns(
    model: nn.Module,
    data: Any,
    ratios: Sequence[float] | NDArray[Any],
    loss: Loss,
    *,
    scores: Mapping[str, Tensor] | None = None,
    finish: pruning.Finish | None = None,
    weights: pruning.Weights | None = None,
    family: pruning.Family | None = None,
    call: Call | None = None,
    target: batches.Target | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Iterator[NDArray[Any]]:
    """The columns of `loss_table` one by one, each evaluated when it is asked for: stop asking, and no more is done.

    Parameters and errors as in `loss_table`; yields arrays of shape (n,). Until the last one the model must stay as it
    is: ValueError if its parameters or buffers have changed.

    >>> from confprune_edu.losses import disagreement
    >>> next(loss_columns(nn.Linear(4, 3), torch.ones(2, 4), [0.0, 0.5], disagreement)).tolist()
    [False, False]
    """
    options = Options(scores, finish, batch_size, device, progress, weights, call, target, family)
    return _one_by_one(
        model, tables.Columns(model, data, ratios, {"losses": loss}, options), pruning.fingerprint(model)
    )


def _one_by_one(model: nn.Module, columns: tables.Columns, known: str) -> Iterator[NDArray[Any]]:
    with contextlib.closing(columns):
        for j in range(len(columns.grid)):
            if pruning.fingerprint(model) != known:
                raise ValueError("model has changed since loss_columns was called: copy it, and change the copy")
            yield columns.at([j])[0][:, 0]


class Comparison(NamedTuple):
    """How two functions differ on some examples, see `same_function`."""

    examples: int
    largest: float  # difference of any two outputs
    changed: int  # examples with another decision


def same_function(a: Any, b: Any, data: Any, *, batch_size: int | None = None) -> Comparison:
    """How far two functions agree on the same examples: a certified network and its export to another runtime, say.

    A certificate is about the function that was evaluated. Where no decision of the calibration examples changes, every
    loss that looks at decisions alone is what it was, and so are the p-values.

    Parameters
    ----------
    a, b : callable
        From a batch of inputs to outputs (batch, ...), tensors or arrays: networks in eval mode, `torch.export`'s
        `program.module()`, or a function around another runtime's session.
    data
        As in `loss_table`; targets are not used.
    batch_size : int, optional
        Examples at a time.

    Returns
    -------
    Comparison
        `.examples`, `.largest` difference, and how many examples `.changed` their decision: the class with the largest
        score (classes are the second axis, as in `losses`), the sign of a single score, as in a mask, or the label.

    Raises
    ------
    ValueError
        Outputs that differ in shape, are complex or NaN; no example.

    >>> model, rounded = nn.Linear(4, 3), nn.Linear(4, 3)
    >>> _ = rounded.load_state_dict({name: w.bfloat16().float() for name, w in model.state_dict().items()})
    >>> same_function(model, rounded, torch.zeros(5, 4)).largest < 0.01
    True
    """
    for name, function in (("a", a), ("b", b)):
        if not callable(function):
            raise TypeError(f"{name} must be a function from inputs to outputs, got {function!r}")
    source = batches.Source(data, batch_size)
    examples, largest, changed = 0, 0.0, 0
    with torch.no_grad():
        for batch in source.once():
            one, other = (torch.as_tensor(f(nested.copied(batch.inputs))).cpu() for f in (a, b))
            odd = any(x.is_complex() or bool(x.isnan().any()) for x in (one, other))
            if one.shape != other.shape or odd:
                raise ValueError(f"a and b must give numbers of one shape, got {one.shape} and {other.shape}, or NaN")
            differs = torch.ne(*map(_decided, (one, other)))
            examples += len(one)
            apart = torch.where(one == other, 0.0, (one.double() - other.double()).abs())
            largest = max(largest, float(apart.max()))
            changed += int(differs.reshape(len(one), -1).any(dim=1).sum())
    if examples == 0:
        raise ValueError("data must hold at least one example")
    return Comparison(examples, largest, changed)


def _decided(output: Tensor) -> Tensor:
    """The decision in each output: a label as it is, the class with the largest score, the sign of a single score."""
    if not output.is_floating_point():
        return output
    return output.argmax(1) if output.ndim > 1 and output.shape[1] > 1 else output > 0
