"""What an index of samples means, the same for every container of samples."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.errors import InputError, PlaceError

__all__ = ["Index", "positions"]

Index = Tensor | slice | list[int] | NDArray[Any] | int


def positions(index: Any, length: int) -> int | slice | NDArray[np.int64]:
    """Return which of `length` samples an index means, as with a tensor's first dimension.

    Args:
        index: a whole number, a slice, or some positions: a list, array or tensor of whole
            numbers or of `length` truth values. Negative numbers count from the end.
        length: how many samples there are.

    Returns:
        A number from 0 on, a slice that goes forward within the samples, or an array of numbers
        from 0 on.

    Raises:
        PlaceError: a number is out of range; it is an IndexError, by which the loops of Python
            end.
        InputError: the index is none of these, or one that tensors and arrays read in different
            ways: a tuple, or a tensor of bytes.
    """
    if isinstance(index, slice):
        return _stretch(index, length)
    if _is_whole(index):
        place = operator.index(index)
        _check_range(place, place, length)
        return place % length
    if isinstance(index, (tuple, np.ma.MaskedArray)):
        raise _no_index(index)
    if isinstance(index, Tensor) and index.dtype is torch.uint8:
        raise InputError(
            "a tensor of torch.uint8 is not an index of samples: PyTorch reads it as truth values, "
            "NumPy as numbers; give one of torch.int64 or of torch.bool"
        )
    try:
        found = np.asarray(index.detach().cpu() if isinstance(index, Tensor) else index)
    except (ValueError, TypeError, RuntimeError) as error:
        raise _no_index(index) from error
    if found.dtype == np.bool_ and found.ndim == 1:
        if len(found) != length:
            raise InputError(
                f"a mask of shape {found.shape} is not an index of samples; expected ({length},)"
            )
        return np.flatnonzero(found)
    if found.size == 0 and found.ndim == 1:
        return np.empty(0, np.int64)
    if found.dtype.kind not in "iu" or found.ndim > 1:
        raise _no_index(index)
    low, high = int(found.min()), int(found.max())
    _check_range(low, high, length)
    chosen = found.astype(np.int64)
    if low < 0:
        chosen = np.where(chosen < 0, chosen + length, chosen)
    return int(chosen) if found.ndim == 0 else chosen


def _stretch(index: slice, length: int) -> slice | NDArray[np.int64]:
    try:
        start, stop, step = index.indices(length)
    except (TypeError, ValueError) as error:
        raise InputError(f"{index} is not an index of samples: {error}") from error
    if step < 0:  # which tensors have not
        return np.arange(start, stop, step)
    return slice(start, max(start, stop), step)


def _is_whole(index: object) -> bool:
    kinds = (bool, np.bool_, np.ndarray, Tensor)
    return hasattr(type(index), "__index__") and not isinstance(index, kinds)


def _check_range(low: int, high: int, length: int) -> None:
    if not -length <= low <= high < length:
        raise PlaceError(
            f"position {high if high >= length else low} is out of range; there are {length} "
            f"samples, from 0 to {length - 1}"
        )


def _no_index(index: object) -> InputError:
    shape = getattr(index, "shape", None)
    given = f"an array of shape {tuple(shape)}" if shape is not None else repr(index)[:60]
    return InputError(
        f"{given} is not an index of samples; give a whole number, a slice, or a list, array or "
        "tensor of whole numbers in one dimension"
    )
