"""Recordings of event cameras with class labels, read one by one when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, overload

import torch
from torch import Tensor

from threefactor.data.event_array import Events
from threefactor.data.subset import check_numbers
from threefactor.errors import DataError

__all__ = ["EventData", "Recording", "Recordings"]


class Recording(NamedTuple):
    """Where a sample lies: in a file, from `start` on and before `stop`, in microseconds.

    The times of its events are counted from `start`. Without `stop` it is all of the file, and
    its times are as they are there.
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
        self.entries = entries
        self._read = lru_cache(maxsize=1)(read)

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Events: ...
    @overload
    def __getitem__(self, index: slice) -> Recordings: ...

    def __getitem__(self, index: int | slice) -> Events | Recordings:
        """Read the events of a sample, (N,) of type `EVENT`.

        Raises:
            DataError: the file is absent or damaged, or there is no event between start and stop.
        """
        if isinstance(index, slice):
            return Recordings(self.entries[index], self._read.__wrapped__)
        return _cut(self.entries[index], self._read(self.entries[index].path))

    @property
    def labels(self) -> Tensor:
        """(N,), torch.int64."""
        return torch.tensor([entry.label for entry in self.entries], dtype=torch.int64)


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
class EventData:
    """A data set of event recordings, split for training and testing.

    Args:
        train_events, test_events: N samples, each an array of type `EVENT` when indexed.
        train_labels, test_labels: (N,), torch.int64, between 0 and `outputs` - 1.
        classes: one name per label.
        name: the key of the set in `DATASETS`.
        sensor_size: (height, width) in pixels.
    """

    train_events: Recordings
    train_labels: Tensor
    test_events: Recordings
    test_labels: Tensor
    classes: tuple[str, ...]
    name: str
    sensor_size: tuple[int, int]

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def train(self) -> tuple[Recordings, Tensor]:
        """The recordings for training and their labels."""
        return self.train_events, self.train_labels

    @property
    def test(self) -> tuple[Recordings, Tensor]:
        """The recordings for testing and their labels."""
        return self.test_events, self.test_labels

    def subset(self, train: int | None = None, test: int | None = None) -> EventData:
        """Return the first `train` and `test` samples; None keeps all.

        Raises:
            InputError: a number is not between 1 and the number of samples there are.
        """
        check_numbers(self, train, test)
        return replace(
            self,
            train_events=self.train_events[:train],
            train_labels=self.train_labels[:train],
            test_events=self.test_events[:test],
            test_labels=self.test_labels[:test],
        )
