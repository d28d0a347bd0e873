"""The Spiking Heidelberg Digits, and spike trains of your own in their layout."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.data.arguments import check_whole, given_path
from threefactor.data.dataset import DataFile, Files, SpikeSet
from threefactor.data.encode.framing import FrameSettings
from threefactor.data.files.source import Source
from threefactor.data.formats.hdf5 import Ragged, read_arrays
from threefactor.errors import DataError
from threefactor.events.arrays import offsets_of
from threefactor.events.spikes import SpikeBatch

__all__ = ["SHD", "SHD_LIKE", "read_shd_file", "spikes_of"]

LARGEST_SIZE = (1 << 31) - 1
ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GERMAN = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")


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
        ConfigurationError: h5py is not installed; the extra `threefactor[data]` installs it.
        DataError: the file is absent or damaged or of another layout; or a time is negative or
            not finite, a unit or label out of its range, in the sample that the message names.
        InputError: `size` or `classes` is not a whole number of at least 1.

    Source: B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke 2022, The Heidelberg Spiking Data Sets
    for the Systematic Evaluation of Spiking Neural Networks.
    """
    check_whole("size", size, 1, LARGEST_SIZE)
    check_whole("classes", classes, 1, LARGEST_SIZE)
    path = given_path(path)
    return spikes_of(path, *read_arrays(path), size, classes)


def spikes_of(
    path: Path, times: Ragged, units: Ragged, labels: NDArray[Any], size: int, classes: int
) -> tuple[SpikeBatch, Tensor]:
    """Make spikes and labels of the arrays of a file; see `read_shd_file`."""
    _check_labels(path, labels, len(times.lengths), len(units.lengths), classes)
    offsets = offsets_of(times.lengths)
    _check_spikes(path, times, units, offsets, size)
    seconds, channels = times.values.astype(np.float64), units.values.astype(np.int32)
    for start, stop in itertools.pairwise(offsets.tolist()):  # faster than to sort all at once
        part = slice(start, stop)
        order = np.lexsort((channels[part], seconds[part]))
        seconds[part], channels[part] = seconds[part][order], channels[part][order]
    batch = SpikeBatch(offsets, seconds, channels, size)
    return batch, torch.from_numpy(labels.astype(np.int64))


def _check_spikes(
    path: Path, times: Ragged, units: Ragged, offsets: NDArray[np.int64], size: int
) -> None:
    def where(sample: int) -> str:
        return f"{path}: sample {sample} (of spikes/times and spikes/units, counted from 0)"

    if times.values.dtype.kind != "f" or units.values.dtype.kind not in "ui":
        raise DataError(
            f"{where(0)} has times of type {times.values.dtype} and units of type "
            f"{units.values.dtype}; expected floating point seconds and integers"
        )
    other = times.lengths != units.lengths
    if other.any():
        sample = int(np.argmax(other))
        raise DataError(
            f"{where(sample)} has {times.lengths[sample]} times but {units.lengths[sample]} "
            "units; expected as many"
        )
    wrong = ~((times.values >= 0) & np.isfinite(times.values))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise DataError(
            f"{where(_sample_of(offsets, place))} has the time {times.values[place]}; expected "
            "finite seconds, 0 or above"
        )
    outside = (units.values < 0) | (units.values >= size)
    if outside.any():
        sample = _sample_of(offsets, int(np.argmax(outside)))
        found = units.values[offsets[sample] : offsets[sample + 1]]
        raise DataError(
            f"{where(sample)} has units from {found.min()} to {found.max()}; expected 0 to "
            f"{size - 1}"
        )


def _sample_of(offsets: NDArray[np.int64], place: int) -> int:
    return int(offsets.searchsorted(place, "right")) - 1


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


def _read(
    entry: SpikeSet, sources: Sequence[Source], window: float
) -> tuple[tuple[SpikeBatch, Tensor], tuple[SpikeBatch, Tensor]]:
    train, test = (
        read_shd_file(source.path, entry.shape[0], len(entry.classes)) for source in sources
    )
    return train, test


SHD = SpikeSet(
    name="shd",
    title="Spiking Heidelberg Digits: spoken digits through a model of the inner ear",
    shape=(700,),
    train=8156,
    test=2264,
    classes=(*ENGLISH, *GERMAN),
    licence="CC BY 4.0",
    source=(
        "B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke 2022, The Heidelberg Spiking Data Sets for "
        "the Systematic Evaluation of Spiking Neural Networks, IEEE Transactions on Neural "
        "Networks and Learning Systems 33(7), 2744-2757, doi:10.1109/TNNLS.2020.3044364"
    ),
    references=("cramer2022shd",),
    homepage="https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/",
    files=Files(
        (
            DataFile("shd_train.h5.gz", "d47c9825dee33347913e8ce0f2be08b0", limit=512 << 20),
            DataFile("shd_test.h5.gz", "3062a80ec0c5719404d5b02e166543b1", limit=512 << 20),
        ),
        mirrors=("https://zenkelab.org/datasets/", "https://compneuro.net/datasets/"),
        # The unpacked file is the fastest to load. The MD5 sums of the .zip files
        # are f3252aeb598ac776c1b526422d90eecb (train) and 1503a5064faa34311c398fb0a1ed0a6f (test).
        endings=("", ".gz", ".zip"),
        elsewhere=("SHD", "extract"),
    ),
    needs="h5py (pip install 'threefactor[data]')",
    frames=FrameSettings(number=100, window=14_000),
    read=_read,
)

SHD_LIKE = replace(
    SHD,
    name="shd-like",
    title="Spike trains of your own in the layout and size of the Spiking Heidelberg Digits",
    train=0,
    test=0,
    licence="that of your files",
    source=f"your files, in the layout of {SHD.source}",
    references=(),
    files=Files(
        own_files=("train.h5.gz", "test.h5.gz"),
        endings=SHD.files.endings,
        by_hand=(
            "write train.h5 and test.h5 with spikes/times (seconds), spikes/units (0 to 699) and "
            "labels (0 to 19), as docs/data.md describes"
        ),
    ),
)
