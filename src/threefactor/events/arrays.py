"""What users give as spikes becomes arrays of the right kind, or an error that helps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from threefactor.errors import InputError

__all__ = [
    "as_array",
    "as_integers",
    "as_times",
    "check_parts",
    "check_range",
    "choice_of",
    "field",
    "joined",
    "offsets_of",
    "pixel_addresses",
    "whole",
]


def offsets_of(lengths: ArrayLike) -> NDArray[np.int64]:
    """Return where each sample begins and ends, given how many spikes it has."""
    array = np.asarray(lengths, dtype=np.int64)
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(array, out=offsets[1:])
    return offsets


def joined(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join sequences of one per sample; empty ones have no type of their own."""
    filled = [row for row in rows if len(row)]
    return np.concatenate(filled) if filled else np.zeros(0, dtype=np.int64)


def as_array(values: ArrayLike | Tensor) -> NDArray[Any]:
    """Return any array or tensor as a NumPy array on the CPU."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    # NumPy has no bfloat16; float32 holds its values exactly.
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def as_times(values: ArrayLike) -> NDArray[np.float64]:
    """Return times in seconds as float64, finite and not negative."""
    times = as_array(values)
    if times.ndim != 1 or times.dtype.kind not in "uif":
        raise InputError(
            f"times are {times.dtype} of shape {times.shape}; expected (spikes,) seconds"
        )
    times = np.require(times, np.float64, ["C", "W"])
    # One comparison finds NaN, infinite and negative times alike.
    wrong = ~((times >= 0) & (times < math.inf))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise InputError(
            f"times hold {int(wrong.sum())} values that are NaN, infinite or negative, the first "
            f"is times[{first}] = {times[first]}; give seconds since the start of the sample"
        )
    return times


def as_integers(name: str, values: ArrayLike, dtype: type) -> NDArray[Any]:
    """Return one-dimensional integers of the given type."""
    array = as_array(values)
    if array.size == 0:
        array = array.astype(dtype)
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise InputError(
            f"{name} are {array.dtype} of shape {array.shape}; expected one-dimensional integers"
        )
    if array.size and array.dtype != dtype:
        limits = np.iinfo(dtype)
        if not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
            raise InputError(
                f"{name} lie between {array.min()} and {array.max()}; "
                f"expected integers that fit {np.dtype(dtype)}"
            )
    return np.require(array, dtype, ["C", "W"])


def whole(name: str, value: int) -> int:
    """Return a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} is {value!r}; give a whole number of at least 1")
    return int(value)


def check_parts(
    offsets: NDArray[np.int64], times: NDArray[np.float64], addresses: NDArray[np.int32]
) -> None:
    """Refuse offsets that do not describe the spikes."""
    if len(times) != len(addresses):
        raise InputError(
            f"there are {len(times)} times and {len(addresses)} addresses; give one of each a spike"
        )
    rising = len(offsets) > 0 and bool(np.all(np.diff(offsets) >= 0))
    if not rising or offsets[0] != 0 or offsets[-1] != len(times):
        raise InputError(
            f"offsets are {offsets[:3]}...{offsets[-1:]}; expected batch + 1 integers that do not "
            f"fall, from 0 to the number of spikes, {len(times)}"
        )


def check_range(addresses: NDArray[np.int32], size: int) -> None:
    """Refuse addresses outside 0 to size - 1."""
    if len(addresses) and not 0 <= addresses.min() <= addresses.max() < size:
        raise InputError(
            f"addresses lie between {addresses.min()} and {addresses.max()}; "
            f"with size={size}, expected 0 to {size - 1}"
        )


def choice_of(index: Any, length: int) -> NDArray[np.int64]:
    """Return the places that an index, slice or mask chooses, as integers from 0."""
    if isinstance(index, slice):
        return np.arange(length)[index]
    array = np.atleast_1d(as_array(index))
    if array.dtype == bool:
        if array.shape != (length,):
            raise InputError(f"the mask has shape {array.shape}; expected ({length},)")
        return np.flatnonzero(array)
    chosen: NDArray[np.int64] = as_integers("indices", array, np.int64)
    if len(chosen) == 0:
        return chosen
    low, high = int(chosen.min()), int(chosen.max())
    if not -length <= low <= high < length:
        raise InputError(
            f"indices lie between {low} and {high}; "
            f"a batch of {length} has samples 0 to {length - 1}"
        )
    return chosen if low >= 0 else np.where(chosen < 0, chosen + length, chosen)


def field(recording: NDArray[Any], name: str) -> NDArray[Any]:
    """Return a field of a structured array."""
    names = getattr(getattr(recording, "dtype", None), "names", None) or ()
    if name not in names:
        raise InputError(
            f"the recording has the fields {list(names)}; expected a structured array with "
            f"{name!r}, as Tonic gives it"
        )
    return recording[name]


def pixel_addresses(recording: NDArray[Any], sizes: Sequence[int], b: int) -> NDArray[np.int64]:
    """Return the address of every event of recording b on a sensor of three sizes."""
    address = np.zeros(len(recording), dtype=np.int64)
    width, height, polarities = sizes
    for name, size in (("p", polarities), ("y", height), ("x", width)):
        # Tonic gives recordings without polarity, such as SHD's, a "p" that is always 1.
        if size == 1 and (name == "p" or name not in (recording.dtype.names or ())):
            continue
        value = field(recording, name).astype(np.int64)
        if len(value) and not 0 <= value.min() <= value.max() < size:
            raise InputError(
                f"sample {b} has {name} between {value.min()} and {value.max()}; "
                f"sensor_size={tuple(sizes)} allows 0 to {size - 1}"
            )
        address = address * size + value
    return address
