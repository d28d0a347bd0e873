"""Load a data set of event recordings by its name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from threefactor.data.aedat import read_aedat2, read_aedat3
from threefactor.data.archives import unpacked
from threefactor.data.dvs_cifar10 import cifar10_recordings
from threefactor.data.entry import DataSet
from threefactor.data.event_array import Events
from threefactor.data.event_data import EventData, Recording, Recordings
from threefactor.data.finding import find_files
from threefactor.data.gesture import gesture_recordings
from threefactor.data.nmnist import nmnist_recordings, read_nmnist_file
from threefactor.data.registry import DATASETS, lookup
from threefactor.data.sources import ADVICE
from threefactor.errors import ConfigurationError, DataError

__all__ = ["load_events"]


def load_events(name: str, data_dir: str | Path | None = None, sort: bool = False) -> EventData:
    """Load a data set of event recordings, each of which is read when it is indexed.

    An archive that was not unpacked yet is unpacked once, into the folder in which it lies.

    Args:
        name: "nmnist", "dvs-gesture" or "dvs-cifar10".
        data_dir: the folder above the set's own; see `data_folder`.
        sort: put events that run backwards in time into order, which else are an error.

    Returns:
        Recordings and labels. Times are microseconds: of `nmnist` and `dvs-cifar10` as in the
        files, of `dvs-gesture` since the start of the sample.

    Raises:
        ConfigurationError: there is no data set of this name, or it is not one of events.
        DataError: files are absent or damaged. Whether a recording is so comes out when it is
            read.
    """
    entry = lookup(name)
    if entry.kind != "events":
        known = ", ".join(each.name for each in DATASETS.values() if each.kind == "events")
        given = "simulated events" if entry.kind == "simulated" else entry.kind
        raise ConfigurationError(
            f"{name!r} holds {given}, not recorded events of a camera. Sets of events: {known}"
        )
    sources = find_files(entry, data_dir)
    folders = [
        unpacked(source.path, tree) for source, tree in zip(sources, entry.trees, strict=True)
    ]
    parts, read = EVENT_READERS[entry.reader](entry, folders)
    for part, samples in zip(("training", "testing"), parts, strict=True):
        if not samples:
            raise DataError(f"{folders[0].parent} holds no recordings of {name!r} for {part}")
    train, test = (Recordings(samples, partial(read, sort=sort)) for samples in parts)
    sensor_size = entry.shape[1], entry.shape[2]
    return EventData(train, train.labels, test, test.labels, entry.classes, name, sensor_size)


Parts = tuple[list[Recording], list[Recording]]
FileReader = Callable[..., Events]


def _nmnist(entry: DataSet, folders: list[Path]) -> tuple[Parts, FileReader]:
    train, test = (nmnist_recordings(folder, len(entry.classes)) for folder in folders)
    return (train, test), read_nmnist_file


def _gesture(entry: DataSet, folders: list[Path]) -> tuple[Parts, FileReader]:
    train, test = (
        gesture_recordings(folders[0], f"trials_to_{part}.txt", len(entry.classes))
        for part in ("train", "test")
    )
    both = {sample.path for sample in train} & {sample.path for sample in test}
    if both:
        raise DataError(
            f"{folders[0] / 'trials_to_train.txt'} names {min(both).name} for training, and "
            f"trials_to_test.txt for testing; {ADVICE}"
        )
    return (train, test), read_aedat3


def _cifar10(entry: DataSet, folders: list[Path]) -> tuple[Parts, FileReader]:
    return cifar10_recordings(folders, entry.classes), read_aedat2


EVENT_READERS: dict[str, Callable[[DataSet, list[Path]], tuple[Parts, FileReader]]] = {
    "nmnist": _nmnist,
    "dvs-gesture": _gesture,
    "dvs-cifar10": _cifar10,
}
"""What lists the recordings of each kind of set, and the reader of one file."""
