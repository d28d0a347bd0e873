"""Checks of what users give to functions of data: numbers, paths, types."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch

from threefactor.errors import InputError

__all__ = ["check_dtype", "check_number", "check_whole", "given_path"]

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_whole(name: str, value: object, least: int, most: int) -> None:
    """Refuse what is not a whole number within limits.

    Raises:
        InputError: it is not such a value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{name} is {value!r}; give a whole number from {least} to {most}")


def check_number(name: str, value: object, above: float, most: float) -> None:
    """Refuse what is not a number above one limit and up to another.

    Raises:
        InputError: it is not such a value.
    """
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (real and above < float(value) <= most):  # type: ignore[arg-type]
        bound = f"above {above:g} and up to {most:g}" if above > -math.inf else f"up to {most:g}"
        raise InputError(f"{name} is {value!r}; give a number {bound}")


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse what is not a type of floating point that images can have.

    Raises:
        InputError: it is not such a value.
    """
    if not any(dtype is each for each in DTYPES):
        known = ", ".join(str(each) for each in DTYPES)
        raise InputError(f"dtype is {dtype}; expected one of {known}")


def given_path(given: object) -> Path:
    """Return a path that the user gave, with ~ for the home folder.

    Raises:
        InputError: it is not a path, or the home folder does not exist.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"{given!r} is not a path; give a string or a pathlib.Path")
    try:
        return Path(given).expanduser()
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{given!r} is not a path ({error}); give the path of a file") from error
