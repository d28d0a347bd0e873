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
    "field",
    "for_kernels",
    "joined",
    "number",
    "offsets_of",
    "pixel_addresses",
    "read_only",
    "whole",
]

LARGEST = 2**31 - 1
"""The kernels count in 32 bits."""


def offsets_of(lengths: ArrayLike) -> NDArray[np.int64]:
    """Return where each sample begins and ends, given how many spikes it has."""
    array = np.asarray(lengths, dtype=np.int64)
    offsets = np.zeros(len(array) + 1, np.int64)
    array.cumsum(out=offsets[1:])
    return offsets


def joined(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join sequences of one per sample; empty ones have no type of their own."""
    filled = [row for row in rows if len(row)]
    return np.concatenate(filled) if filled else np.zeros(0, dtype=np.int64)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return the same memory as an array that cannot be made writable."""
    memory: Any = array  # NumPy does not say so in its types
    return np.asarray(memoryview(memory).toreadonly())


def as_array(values: ArrayLike | Tensor) -> NDArray[Any]:
    """Return any array or tensor as a NumPy array on the CPU.

    Raises:
        InputError: if it has no plain values: sparse, on meta, masked, rows of several lengths.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise InputError("the array is masked; leave the masked values out, then give .data")
    try:
        if not isinstance(values, Tensor):
            return np.asarray(values)
        values = values.detach().cpu()
        # NumPy has no bfloat16; float32 holds its values exactly.
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    except (TypeError, ValueError, RuntimeError) as problem:
        what = f"a {type(values).__name__}"
        if isinstance(values, Tensor):
            what = f"a {values.dtype} tensor, {values.layout}, on {values.device}"
        raise InputError(
            f"{what} cannot be read as an array ({str(problem).splitlines()[0]}); "
            "give a dense array or tensor of numbers"
        ) from problem


def for_kernels(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array as the kernels take them: of the type, in order, and not read-only."""
    flags = array.flags
    if array.dtype == dtype and flags.c_contiguous and flags.writeable and flags.aligned:
        return array
    return np.array(array, dtype, order="C")


def as_times(values: ArrayLike, copy: bool = True) -> NDArray[np.float64]:
    """Return times in seconds as float64, finite and not negative; as a new array, or if needed."""
    times = as_array(values)
    if times.ndim != 1 or times.dtype.kind not in "uif":
        raise InputError(
            f"times are {times.dtype} of shape {times.shape}; expected (spikes,) seconds"
        )
    times = np.array(times, np.float64, copy=copy or None, order="C")
    # One comparison finds NaN, infinite and negative times alike.
    wrong = ~((times >= 0) & (times < math.inf))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise InputError(
            f"times hold {int(wrong.sum())} values that are NaN, infinite or negative, the first "
            f"is times[{first}] = {times[first]}; give seconds since the start of the sample"
        )
    return times


def as_integers(name: str, values: ArrayLike, dtype: type, copy: bool = True) -> NDArray[Any]:
    """Return one-dimensional integers of the given type; as a new array, or only if needed."""
    array = as_array(values)
    if array.size == 0 and array.dtype.kind == "f":  # as of an empty list
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
    return np.array(array, dtype, copy=copy or None, order="C")


def whole(name: str, value: Any) -> int:
    """Return a whole number of at least 1 that the kernels can count to."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} is {value!r}; give a whole number of at least 1")
    if value > LARGEST:
        raise InputError(f"{name} is above {LARGEST}; give a whole number up to that")
    return int(value)


def number(name: str, value: Any, wanted: str = "a number", *, zero: bool = False) -> float:
    """Return a finite number above 0, or of at least 0, as a float."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    try:
        found = float(value) if real else math.nan
    except OverflowError:  # an integer beyond the largest float
        found = math.inf
    if not math.isfinite(found) or found < 0.0 or (found == 0.0 and not zero):
        raise InputError(f"{name} is {value!r}; give {wanted}")
    return found


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


def field(recording: NDArray[Any], name: str, kinds: str = "uib") -> NDArray[Any]:
    """Return a field of a structured array, of one of NumPy's kinds of numbers."""
    names = getattr(getattr(recording, "dtype", None), "names", None) or ()
    if name not in names or recording.ndim != 1:
        raise InputError(
            f"the recording has the fields {list(names)} and the shape "
            f"{getattr(recording, 'shape', ())}; expected a structured array of one dimension with "
            f"{name!r}, as Tonic gives it"
        )
    found = recording[name]
    if found.dtype.kind not in kinds:
        wanted = "numbers" if "f" in kinds else "whole numbers"
        raise InputError(f"{name} of a recording is {found.dtype}; expected {wanted}")
    return found


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
