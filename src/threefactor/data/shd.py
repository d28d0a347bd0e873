"""Spikes in the layout of the Spiking Heidelberg Digits, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.data.hdf5 import read_arrays
from threefactor.errors import DataError, InputError

if TYPE_CHECKING:
    from threefactor.events.spikes import SpikeBatch

__all__ = ["read_shd_file"]


def read_shd_file(
    path: str | Path, size: int = 700, classes: int = 20
) -> tuple[SpikeBatch, Tensor]:
    """Read a file of spikes in the layout of the Spiking Heidelberg Digits.

    Such an HDF5 file holds, for N samples, any number of which is allowed: `spikes/times`, N
    arrays of seconds since the start of the sample, in any order; `spikes/units`, N arrays of the
    channels that spiked, as long as those of the times; `labels`, N classes. What else it holds,
    such as the `extra` of the published files, is not read. These have their times as float16,
    that is in steps of about a millisecond at the end of a second.

    Args:
        path: an .h5 file, or one compressed as .h5.gz, or a .zip that holds one. The first bytes
            tell which; the name does not matter.
        size: the number of channels.
        classes: the number of classes.

    Returns:
        The spikes, a batch of N samples with `size` addresses; and (N,) labels, torch.int64.

    Raises:
        ConfigurationError: h5py, which the extra `threefactor[data]` installs, is not there.
        DataError: the file is absent or damaged or of another layout; or a time is negative or
            not finite, a unit or label out of its range, in the sample that the message names.
        InputError: `size` or `classes` is not a whole number of at least 1.

    Source: B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke 2022, The Heidelberg Spiking Data Sets
    for the Systematic Evaluation of Spiking Neural Networks.
    """
    from threefactor.events.spikes import SpikeBatch

    for name, value in (("size", size), ("classes", classes)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}; expected a whole number of at least 1")
    path = Path(path)
    times, units, labels = read_arrays(path)
    _check_labels(path, labels, len(times), len(units), classes)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in times])])
    seconds, channels = np.empty(offsets[-1]), np.empty(offsets[-1], dtype=np.int32)
    for sample, row in enumerate(zip(times, units, strict=True)):
        part = slice(offsets[sample], offsets[sample + 1])
        seconds[part], channels[part] = _sample(path, sample, *row, size)
    batch = SpikeBatch(offsets, seconds, channels, size)
    return batch, torch.from_numpy(labels.astype(np.int64))


def _sample(
    path: Path, sample: int, times: NDArray[Any], units: NDArray[Any], size: int
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Check the spikes of one sample and sort them, which is faster than sorting all at once."""
    where = f"{path}: sample {sample} (of spikes/times and spikes/units, counted from 0)"
    if times.shape != units.shape:
        raise DataError(f"{where} has {len(times)} times but {len(units)} units; expected as many")
    if times.dtype.kind != "f" or units.dtype.kind not in "ui":
        raise DataError(
            f"{where} has times of type {times.dtype} and units of type {units.dtype}; "
            "expected floating point seconds and integers"
        )
    seconds = times.astype(np.float64)
    wrong = ~((seconds >= 0) & np.isfinite(seconds))
    if wrong.any():
        raise DataError(
            f"{where} has the time {seconds[wrong][0]}; expected finite seconds, 0 or above"
        )
    if len(units) and not 0 <= units.min() <= units.max() < size:
        raise DataError(
            f"{where} has units from {units.min()} to {units.max()}; expected 0 to {size - 1}"
        )
    order = np.lexsort((units, seconds))
    return seconds[order], units[order]


def _check_labels(path: Path, labels: NDArray[Any], times: int, units: int, classes: int) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        raise DataError(
            f"{path} has labels of type {labels.dtype} and shape {labels.shape}; "
            "expected integers, one per sample"
        )
    if not times == units == len(labels) or not times:
        raise DataError(
            f"{path} holds {times} arrays of times, {units} of units and {len(labels)} labels; "
            "expected as many of each, one per sample, and at least one"
        )
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise DataError(
            f"{path}: sample {np.argmax(wrong)} (counted from 0) has the label "
            f"{labels[wrong][0]}; expected 0 to {classes - 1}"
        )
