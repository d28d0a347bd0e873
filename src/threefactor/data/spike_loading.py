"""Load a data set by its name as spikes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from threefactor.data.dataset import DataSet
from threefactor.data.encode.latency import check_window, code_images, code_points
from threefactor.data.samples.spikes import SpikeData
from threefactor.data.sets.catalog import lookup
from threefactor.data.sets.readers import READERS
from threefactor.data.sets.shd import read_shd_file
from threefactor.data.sets.yin_yang import yin_yang
from threefactor.data.where import find_files
from threefactor.errors import ConfigurationError

if TYPE_CHECKING:
    from threefactor.events.spikes import SpikeBatch

__all__ = ["load_spikes"]

Part = tuple["SpikeBatch", Tensor]

OTHER_KINDS = {
    "events": ("events of a camera", ("load_frames", "load_events")),
    "simulated": ("simulated events", ("load_frames",)),
    "image files": ("image files, too many to be coded as spikes", ("load",)),
}
YIN_YANG_SEEDS = (42, 40)  # of the authors' training and test set


def load_spikes(name: str, data_dir: str | Path | None = None, window: float = 0.1) -> SpikeData:
    """Load images or spikes as spikes.

    Images are coded by latency, one spike per pixel that is not 0, the brighter the earlier:
    see `threefactor.events.latency_code`. The points of `yin-yang` are coded in the times of
    five spikes. Recorded spikes, those of `shd`, keep their times.

    Args:
        name: a key of `DATASETS`.
        data_dir: the folder above the set's own; see `data_folder`. Not used for sets that need
            no files.
        window: seconds over which images and points are coded. Not used for recorded spikes.

    Raises:
        ConfigurationError: there is no data set of this name, or it holds events or image
            files; or h5py, which reads `shd`, is not installed.
        DataError: a file is absent or damaged, or the files do not fit together.
        InputError: `window` is not a number above 0.

    Example:
        >>> digits = load_spikes("digits", window=0.1)
        >>> digits.input_shape, float(digits.train_spikes.times.min())
        ((64,), 0.0)
    """
    entry = lookup(name)
    check_window(window)
    if entry.kind in OTHER_KINDS:
        what, loaders = OTHER_KINDS[entry.kind]
        given = " or ".join(f"threefactor.data.{loader}({name!r})" for loader in loaders)
        raise ConfigurationError(f"{name!r} holds {what}; use {given}, for networks on a time grid")
    if entry.kind == "images":
        train, test = _images(entry, data_dir, window)
    else:
        train, test = SPIKE_READERS[entry.reader](entry, data_dir, window)
    return SpikeData(*train, *test, classes=entry.classes, name=name)


def _images(entry: DataSet, data_dir: str | Path | None, window: float) -> tuple[Part, Part]:
    raw = READERS[entry.reader](entry, data_dir)
    train, test = (
        (code_images(images, raw.peak, window), torch.from_numpy(labels.astype(np.int64)))
        for images, labels in (
            (raw.train_images, raw.train_labels),
            (raw.test_images, raw.test_labels),
        )
    )
    return train, test


def _shd(entry: DataSet, data_dir: str | Path | None, window: float) -> tuple[Part, Part]:
    train, test = (
        read_shd_file(source.path, entry.shape[0], len(entry.classes))
        for source in find_files(entry, data_dir)
    )
    return train, test


def _yin_yang(entry: DataSet, data_dir: str | Path | None, window: float) -> tuple[Part, Part]:
    train, test = (
        (code_points(values, window), torch.from_numpy(labels))
        for values, labels in map(yin_yang, (entry.train, entry.test), YIN_YANG_SEEDS)
    )
    return train, test


SpikeReader = Callable[[DataSet, "str | Path | None", float], tuple[Part, Part]]

SPIKE_READERS: dict[str, SpikeReader] = {"shd": _shd, "yin-yang": _yin_yang}
"""The reader of each kind of spikes, by the name that the registry gives it."""
