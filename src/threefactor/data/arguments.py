"""What users give to functions of data: numbers, paths and positions of samples, checked."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from threefactor.errors import InputError

__all__ = ["Index", "check_number", "check_whole", "given_path", "positions"]

Index = Tensor | slice | list[int] | NDArray[Any] | int


def check_whole(name: str, value: object, least: int, most: int) -> None:
    """Refuse what is not a whole number within limits.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{name} is {value!r}; give a whole number from {least} to {most}")


def check_number(name: str, value: object, above: float, most: float) -> None:
    """Refuse what is not a number above one limit and up to another.

    Raises:
        InputError: it is not.
    """
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (real and above < value <= most):  # type: ignore[operator]
        bound = f"above {above:g} and up to {most:g}" if above > -math.inf else f"up to {most:g}"
        raise InputError(f"{name} is {value!r}; give a number {bound}")


def given_path(given: object) -> Path:
    """Return a path that the user gave, with ~ for the home folder.

    Raises:
        InputError: it is no path, or there is no such home folder.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"{given!r} is no path; give a text or a pathlib.Path")
    try:
        return Path(given).expanduser()
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{given!r} is no path ({error}); give the path of a file") from error


def positions(index: Any, length: int) -> int | slice | NDArray[np.int64]:
    """Return which of `length` samples an index means, as with a tensor's first dimension.

    Args:
        index: a whole number, a slice, or some positions: a list, array or tensor of whole
            numbers or of `length` truth values. Negative numbers count from the end.
        length: how many samples there are.

    Returns:
        A number from 0 on, a slice, or an array of numbers from 0 on.

    Raises:
        IndexError: a number is out of range; the loops of Python end by it.
        InputError: the index is none of these.
    """
    if isinstance(index, slice):
        return index
    try:
        found = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
    except (ValueError, TypeError, RuntimeError) as error:
        raise _no_index(index) from error
    if found.dtype == np.bool_ and found.shape == (length,):
        return np.flatnonzero(found)
    if found.size == 0 and found.ndim == 1:
        return np.empty(0, np.int64)
    if found.dtype.kind not in "iu" or found.ndim > 1:
        raise _no_index(index)
    low, high = int(found.min()), int(found.max())
    if low < -length or high >= length:
        raise IndexError(
            f"position {high if high >= length else low} is out of range; there are {length} "
            f"samples, from 0 to {length - 1}"
        )
    wrapped = found.astype(np.int64)
    wrapped = np.where(wrapped < 0, wrapped + length, wrapped)
    return int(wrapped) if found.ndim == 0 else wrapped


def _no_index(index: object) -> InputError:
    shape = getattr(index, "shape", None)
    given = f"an array of shape {tuple(shape)}" if shape is not None else repr(index)[:60]
    return InputError(
        f"{given} is no index of samples; give a whole number, a slice, or a list, array or tensor "
        "of whole numbers in one dimension"
    )
