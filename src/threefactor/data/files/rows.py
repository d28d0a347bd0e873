"""Rows of an array in a file, which are read when they are asked for."""

from __future__ import annotations

import math
import os
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from threefactor.data.files.source import ADVICE, open_file
from threefactor.errors import DataError

__all__ = ["FileRows"]


class FileRows:
    """The rows of an array in a file, of which only those that are asked for are read.

    Rows are read and not mapped: memory stays as it is, and a file that is cut short is an error
    and not the end of the process. A file that is changed in its place after it was opened is an
    error, too. One that is replaced by another of its name is read on as it was.

    Args:
        path: of the file.
        offset: bytes before the first row.
        shape: (N, ...).
        dtype: of the numbers; PyTorch has it.
        chosen: which rows of the file these are; None for all.

    Raises:
        DataError: the file is absent, or too short.
    """

    def __init__(
        self,
        path: Path,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chosen: NDArray[np.int64] | None = None,
    ) -> None:
        self.path, self.offset, self.dtype, self.chosen = Path(path), offset, dtype, chosen
        self._whole = shape
        self._row = math.prod(shape[1:]) * dtype.itemsize
        self._open()
        if self._state[0] < offset + shape[0] * self._row:
            raise DataError(f"{path} is cut short; {ADVICE}")

    def _open(self) -> None:
        try:
            self._file = open_file(self.path)
            self._state = self._now()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror}); {ADVICE}") from error

    @classmethod
    def of(cls, array: NDArray[Any]) -> FileRows:
        """Return the rows of an array that is mapped from a file."""
        assert isinstance(array, np.memmap) and array.filename is not None
        return cls(Path(array.filename), array.offset, array.shape, array.dtype)

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def __len__(self) -> int:
        return self._whole[0] if self.chosen is None else len(self.chosen)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._whole[1:])

    def choose(self, place: slice | NDArray[np.int64]) -> FileRows:
        """Return some of the rows, unread."""
        before = np.arange(self._whole[0]) if self.chosen is None else self.chosen
        made = object.__new__(FileRows)
        made.__dict__.update(self.__dict__)
        made.chosen = before[place]
        return made

    def __getitem__(self, place: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Read rows.

        Raises:
            DataError: the file cannot be read, or was changed since it was opened.
        """
        if self.chosen is not None:
            place = self.chosen[place]
        if isinstance(place, slice):
            start, stop, step = place.indices(self._whole[0])
            numbers = np.arange(start, stop, step)
        else:
            numbers = place
        rows = np.empty((len(numbers), *self._whole[1:]), self.dtype)
        if not rows.size:
            return rows
        flat: Any = rows.reshape(len(numbers), -1).view(np.uint8)
        # Rows that follow one another are read together.
        ends = np.flatnonzero(np.diff(numbers) != 1) + 1
        for part in np.split(np.arange(len(numbers)), ends):
            into = memoryview(flat[part[0] : part[-1] + 1]).cast("B")
            self._read(into, int(numbers[part[0]]))
        if self._now() != self._state:
            raise DataError(
                f"{self.path} was changed while it was in use: the samples are no longer those "
                "that the training began with. Put them back, or begin again with the new ones"
            )
        return rows

    def _read(self, into: memoryview, row: int) -> None:
        at, done = self.offset + row * self._row, 0
        try:
            while done < len(into):
                read = _read_at(self._file, into[done:], at + done)
                if not read:
                    raise DataError(f"{self.path} was cut short while it was in use; {ADVICE}")
                done += read
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror}); {ADVICE}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        before = self._state
        self._open()
        if self._state != before:
            raise DataError(f"{self.path} was changed since it was opened; begin again")


def _read_at(file: IO[bytes], into: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), [into], offset)
    with _seeking:  # Windows
        file.seek(offset)
        return len(into) if file.readinto(into) == len(into) else 0  # type: ignore[attr-defined]


_seeking = Lock()
