"""Recordings of event cameras with class labels, each read when it is indexed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, overload

import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.data.files.source import ADVICE
from threefactor.data.formats.events import Events
from threefactor.data.samples.labelled import LabelledData
from threefactor.errors import DataError
from threefactor.indexing import Index, positions

__all__ = ["EventData", "Recording", "Recordings"]


class Recording(NamedTuple):
    """Where a sample lies: in a file, from `start` on and before `stop`, in microseconds.

    The times of its events count from `start`. Without `stop`, the sample is the whole file, and
    its times are those of the file. `where` names the entry that says so, for messages.
    """

    path: Path
    label: int
    start: int = 0
    stop: int | None = None
    where: str = ""


class Recordings(Sequence[Events]):
    """Samples, each read from its file when it is indexed; slices are views.

    The last file is kept in memory, as samples of one file follow one another.

    Args:
        entries: where the samples lie.
        read: reads a file.
    """

    def __init__(self, entries: Sequence[Recording], read: Callable[[Path], Events]) -> None:
        self.entries, self._read = entries, read
        self._last: tuple[Path, Events] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}  # others read it themselves

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Events: ...
    @overload
    def __getitem__(self, index: slice | Tensor | list[int] | NDArray[Any]) -> Recordings: ...

    def __getitem__(self, index: Index) -> Events | Recordings:
        """Read the events of a sample, (N,) of type `EVENT`; or return several, unread.

        Raises:
            DataError: the file is absent or damaged, or there is no event between start and stop.
            IndexError: a number is out of range.
            InputError: the index is not valid.
        """
        place = positions(index, len(self))
        if isinstance(place, slice):
            return Recordings(self.entries[place], self._read)
        if not isinstance(place, int):
            return Recordings([self.entries[i] for i in place.tolist()], self._read)
        entry, last = self.entries[place], self._last
        if last is None or last[0] != entry.path:
            self._last = last = entry.path, self._read(entry.path)
        return _cut(entry, last[1])

    @property
    def labels(self) -> Tensor:
        """(N,), torch.int64."""
        return torch.tensor([entry.label for entry in self.entries], dtype=torch.int64)

    def digest(self) -> str:
        """Return a SHA-256 sum of the files' names, sizes and times of change, and of the samples.

        Raises:
            DataError: a file cannot be seen.
        """
        try:
            files = {entry.path: entry.path.stat() for entry in self.entries}
        except OSError as error:
            raise DataError(
                f"{error.filename} cannot be read ({error.strerror}); check the path, or {ADVICE}"
            ) from error
        text = "\n".join(
            f"{path.parent.name}/{path.name} {stat.st_size} {stat.st_mtime_ns} "
            f"{label} {start} {stop}"
            for path, label, start, stop, _ in self.entries
            for stat in (files[path],)
        )
        return hashlib.sha256(text.encode()).hexdigest()


def _cut(entry: Recording, events: Events) -> Events:
    if entry.stop is None:
        return events.copy()
    first, last = events["t"].searchsorted([entry.start, entry.stop])
    if first == last:
        raise DataError(
            f"{entry.path} has no events from {entry.start} to {entry.stop} us, "
            f"where {entry.where} has one recording; do both files belong together?"
        )
    part = events[first:last].copy()
    part["t"] -= entry.start
    return part


@dataclass(frozen=True, eq=False)
class EventData(LabelledData[Recordings]):
    """A data set of event recordings, split for training and testing.

    Args:
        train_events, test_events: N samples, each an array of type `EVENT` when indexed.
        train_labels, test_labels: (N,), torch.int64, between 0 and `outputs` - 1.
        classes: one name per label.
        name: the key of the set in `DATASETS`.
        sensor_size: (height, width) in pixels.
    """

    inputs: ClassVar[str] = "events"
    train_events: Recordings
    train_labels: Tensor
    test_events: Recordings
    test_labels: Tensor
    classes: tuple[str, ...]
    name: str
    sensor_size: tuple[int, int]
