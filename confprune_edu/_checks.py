"""The front door: every refusal of a number or an array names the argument, what it got and what it may be."""

import os
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def number(value: Any, name: str, low: float = 0.0, high: float = 1.0) -> float:
    """`value` as a float strictly between `low` and `high`."""
    got = value.item() if getattr(value, "ndim", None) == 0 else value  # of numpy or torch
    if isinstance(got, bool) or not isinstance(got, Real):
        raise TypeError(f"{name} must be a number in ({low:g}, {high:g}), got {value!r}")
    if not low < float(got) < high:
        raise ValueError(f"{name} must lie strictly between {low:g} and {high:g}, got {value!r}")
    return float(got)


def positive_int(value: Any, name: str) -> int:
    """`value` as an int that is at least 1."""
    return whole(value, name, 1, np.inf)


def whole(value: Any, name: str, low: int, high: float) -> int:
    """`value` as an int from `low` to `high`."""
    wanted = f"an integer of at least {low}" if high == np.inf else f"an integer from {low} to {high:g}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
    if not low <= int(value) <= high:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return int(value)


def calibration_size(value: Any, n: int) -> int:
    """`value` as a number of calibration examples that leaves some of n to test."""
    size = positive_int(value, "n_calibration")
    if size >= n:
        raise ValueError(f"n_calibration must leave examples to test: at most {n - 1}, got {size}")
    return size


def interval(value: Any, name: str) -> tuple[float, float]:
    """`value` as (low, high), finite, low < high."""
    try:
        low, high = (float(end) for end in value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be two numbers, low < high, got {value!r}") from None
    if not -np.inf < low < high < np.inf:
        raise ValueError(f"{name} must be two numbers, low < high, got {value!r}")
    return low, high


def choice(value: Any, name: str, options: Any) -> str:
    """`value`, one of the names in `options`."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}; got {value!r}")
    return value


def path(value: Any, name: str) -> Path:
    """`value`, text or a path, as a path."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {value!r}")
    return Path(value)


def numeric(values: Any, name: str) -> NDArray[Any]:
    """`values` as a bool, integer or float array without NaN or infinity."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got an array of dtype {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {_first(array, ~np.isfinite(array))}")
    return array


def within(array: NDArray[Any], name: str, low: float, high: float) -> NDArray[Any]:
    """`array`, all of whose entries lie in [low, high]."""
    if array.size and (array.min() < low or array.max() > high):
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {_first(array, (array < low) | (array > high))}")
    return array


def _first(array: NDArray[Any], bad: NDArray[np.bool_]) -> str:
    """The first bad entry and, where there are several entries, its position."""
    at = np.argwhere(bad)[0].tolist()
    return f"{array[tuple(at)]} at position {at}" if at else f"{array}"


def losses(
    values: Any, low: float = 0.0, high: float = 1.0, ndim: tuple[int, ...] = (1, 2), name: str = "losses"
) -> NDArray[Any]:
    """`values` as a loss array, (n,) or (n, m), with n >= 1 examples and entries in [low, high].

    Floats that are outside by rounding only, at most 1e-6 of the range, are moved to its end.
    """
    array = numeric(values, name)
    if array.ndim not in ndim:
        shapes = " or ".join(("()", "(n,)", "(n, m)")[d] for d in ndim)
        raise ValueError(f"{name} must have shape {shapes}, got {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one example and one candidate, got shape {array.shape}")
    slack = 1e-6 * (high - low)
    if array.dtype.kind == "f" and (array.min() < low or array.max() > high):
        beyond = (array < low - slack) | (array > high + slack)
        return within(array if beyond.any() else array.clip(low, high), name, low, high)
    return within(array, name, low, high)


def p_values(values: Any, *axes: str) -> NDArray[np.float64]:
    """`values` as p-values with these axes, (m,) say, or many such, (trials, m)."""
    array, k = numeric(values, "p_values").astype(np.float64, copy=False), len(axes)
    if array.ndim not in (k, k + 1) or 0 in array.shape[-k:]:
        one = ", ".join(axes)
        shapes = f"({one}{',' if k == 1 else ''}) or (trials, {one})"
        raise ValueError(f"p_values must have shape {shapes} with {one} >= 1, got {array.shape}")
    return within(array, "p_values", 0, 1)


def mask(values: Any, name: str, *shape: int) -> NDArray[np.bool_]:
    """`values` as a bool array of this shape."""
    array = np.asarray(values)
    if array.dtype != bool or array.shape != shape:
        raise ValueError(f"{name} must give a bool mask of shape {shape}, got {array.dtype} of shape {array.shape}")
    return array


def columns(table: NDArray[Any], name: str, grid: NDArray[Any]) -> None:
    """Refuse a table (n, m) that has not one column for each ratio of the grid."""
    if table.shape[1] != len(grid):
        raise ValueError(f"{name} must have one column a ratio, got {table.shape[1]} columns for {len(grid)} ratios")


def ratios(values: Any) -> NDArray[np.float64]:
    """`values` as a pruning grid, (m,) float64, strictly increasing in [0, 1)."""
    array = numeric(values, "ratios").astype(np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"ratios must be a non-empty list of pruning ratios, got shape {array.shape}")
    if array.min() < 0 or array.max() >= 1:
        raise ValueError(f"ratios must lie in [0, 1), got {array.min():g} to {array.max():g}")
    if (np.diff(array) <= 0).any():
        raise ValueError("ratios must be strictly increasing, from gentle to aggressive, before any loss is seen")
    return array
