"""Samples in host memory or in a file, of which batches are read and go to a device."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.data.files.rows import FileRows
from threefactor.data.inputs import read_ahead
from threefactor.indexing import Index, positions

__all__ = ["Stored", "chunks", "moments"]

CHUNK = 1 << 22
"""Bytes that are looked at together."""


@dataclass(frozen=True, eq=False)
class Stored:
    """N samples, of which `stored[index]` gives a batch: (B, ...), or (T, B, ...) of sequences.

    A batch is taken, turned into `dtype`, scaled, and moved to the device. Training and evaluation
    take the next batch while they work on one. The numbers are those of samples that were scaled
    and moved as a whole before.

    Args:
        rows: (N, ...) a tensor, or rows in a file.
        dtype, device: of the batches.
        sequences: whether samples are (T, ...), and batches have time first.
        peak: all numbers are divided by it,
        mean: this is then subtracted,
        std: and the result divided by this; each is left out if it changes nothing.
        raw: whether a digest of the samples is one of the rows as they lie there, and not of the
            numbers that are made of them.
    """

    rows: Tensor | FileRows
    dtype: torch.dtype
    device: torch.device | str = "cpu"
    sequences: bool = False
    peak: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    raw: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...), as they lie there."""
        return tuple(self.rows.shape)

    @property
    def in_file(self) -> bool:
        """Whether the samples are read from a file."""
        return isinstance(self.rows, FileRows)

    def __getitem__(self, index: Index) -> Tensor:
        """Return a batch; of one number one sample.

        Raises:
            DataError: the file cannot be read, or was changed.
            IndexError: a number is out of range.
            InputError: the index has no meaning.
        """
        place = positions(index, len(self))
        if isinstance(place, int):
            batch = self._take(np.array([place]))
            return batch.select(1 if self.sequences else 0, 0)
        return self._take(place)

    def _take(self, place: slice | NDArray[np.int64]) -> Tensor:
        if isinstance(self.rows, FileRows):
            batch = torch.from_numpy(self.rows[place])
        else:
            batch = self.rows[place if isinstance(place, slice) else torch.from_numpy(place)]
        if self.sequences:
            batch = batch.transpose(0, 1)
        batch = torch.empty(batch.shape, dtype=self.dtype, device=batch.device).copy_(batch)
        if self.peak != 1.0:
            batch.div_(self.peak)
        if self.mean != 0.0:
            batch.sub_(self.mean)
        if self.std != 1.0:
            batch.div_(self.std)
        if (
            torch.device(self.device).type == "cuda" and batch.device.type == "cpu"
        ):  # from locked memory it goes while others run
            batch = batch.pin_memory()
        return batch.to(self.device, non_blocking=True)

    def batches(self, indices: Iterable[Index], seed: int) -> Iterator[Tensor]:
        """Take batch after batch, each while the one before is used; the seed has no effect."""
        yield from read_ahead(indices, lambda index: _pool().submit(self.__getitem__, index))

    def first(self, number: int | None) -> Stored:
        """Return the first samples; None keeps all."""
        return self._of(slice(number))

    def choose(self, index: Tensor) -> Stored:
        """Return the samples at some positions; those in a file stay there."""
        place = positions(index, len(self))
        assert not isinstance(place, int)
        return self._of(place)

    def _of(self, place: slice | NDArray[np.int64]) -> Stored:
        if isinstance(self.rows, FileRows):
            return replace(self, rows=self.rows.choose(place))
        whole = place if isinstance(place, slice) else torch.from_numpy(place)
        return replace(self, rows=self.rows[whole])

    def to(self, device: torch.device | str, *, rows: bool = False) -> Stored:
        """Return the same samples, whose batches go to another device; with `rows` all at once."""
        moved = self.rows
        if rows and isinstance(moved, Tensor):
            moved = moved.to(device)
        return replace(self, rows=moved, device=device)

    def scaled(self, mean: float, std: float) -> Stored:
        """Return the samples less their mean, divided by their deviation."""
        return replace(self, mean=mean, std=std)


def chunks(samples: Any) -> Iterator[Any]:
    """Yield all samples of a tensor, an array or rows in a file in order, a part at a time."""
    size = math.prod(samples.shape[1:]) * samples.dtype.itemsize
    step = max(1, CHUNK // max(1, size))
    for start in range(0, len(samples), step):
        yield samples[start : start + step]


def moments(samples: Tensor | Stored) -> tuple[float, float]:
    """Return mean and population deviation of all numbers, in double precision.

    They are added up chunk by chunk, whatever holds the samples, so all get the same bits.
    """
    count = math.prod(samples.shape)
    parts = [float(part.double().sum()) for part in chunks(samples)]
    mean = math.fsum(parts) / count
    squares = [float((part.double() - mean).square().sum()) for part in chunks(samples)]
    return mean, math.sqrt(math.fsum(squares) / count)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="threefactor-samples")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has no threads
