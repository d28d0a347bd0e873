"""Batches of spike trains in one flat, sorted layout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from threefactor.errors import InputError
from threefactor.events.arrays import (
    as_array,
    as_integers,
    as_times,
    check_parts,
    check_range,
    field,
    joined,
    number,
    offsets_of,
    pixel_addresses,
    read_only,
    whole,
)
from threefactor.indexing import positions

__all__ = ["Raw", "SpikeBatch"]

Sample = tuple[NDArray[np.float64], NDArray[np.int32]]
MOST_EMPTY = 100_000_000
"""Samples that `from_arrays` is asked for by a number alone, of 16 bytes each."""


class Raw(NamedTuple):
    """The arrays of a batch as the kernels take them."""

    offsets: NDArray[np.int64]
    times: NDArray[np.float64]
    addresses: NDArray[np.int32]


class SpikeBatch:
    """Spikes of B samples, flat: sample b owns the spikes `offsets[b]` to `offsets[b + 1] - 1`.

    Spikes are kept sorted by sample, time and address, so that the order in which simultaneous
    spikes are given never changes a result. A sample may be empty. An address may spike several
    times at once: each spike counts.

    Args:
        offsets: (B + 1,) integers, not falling, from 0 to S.
        times: (S,) seconds since the start of the sample, finite and not negative; of any order.
        addresses: (S,) integers, 0 to size - 1: which input channel or neuron spiked.
        size: the number of addresses.

    A batch does not change: it keeps copies, and its arrays are read-only.

    `batch[i]` is one sample, its times and addresses; a slice, a list, an array of integers or a
    mask gives a batch. So it is a sequence of samples: `len`, `for`, `zip` and `batch[-1]` work,
    and `SpikeBatch.from_lists(*zip(*samples), size=size)` puts samples together again.

    Raises:
        InputError: if a time is negative, NaN or infinite, an address out of range, or the
            offsets do not describe S spikes.

    Example:
        >>> batch = SpikeBatch.from_lists([[0.02, 0.01], []], [[3, 0], []], size=4)
        >>> len(batch), batch.times.tolist(), batch.addresses.tolist()
        (2, [0.01, 0.02], [0, 3])
        >>> [times.tolist() for times, addresses in batch]
        [[0.01, 0.02], []]
    """

    __slots__ = ("_raw", "_samples", "_size")

    _samples: NDArray[np.int64] | None

    def __init__(
        self, offsets: ArrayLike, times: ArrayLike, addresses: ArrayLike, size: int
    ) -> None:
        self._fill(
            as_integers("offsets", offsets, np.int64),
            as_times(times),
            as_integers("addresses", addresses, np.int32),
            size,
        )

    @classmethod
    def _trusted(
        cls,
        offsets: NDArray[np.int64],
        times: NDArray[np.float64],
        addresses: NDArray[np.int32],
        size: int,
    ) -> SpikeBatch:
        """Wrap arrays that are known to be valid, sorted and nobody else's."""
        batch = cls.__new__(cls)
        batch._raw, batch._size, batch._samples = Raw(offsets, times, addresses), size, None
        return batch

    def _fill(
        self,
        offsets: NDArray[np.int64],
        times: NDArray[np.float64],
        addresses: NDArray[np.int32],
        size: int,
    ) -> None:
        """Check and sort arrays that are nobody else's."""
        self._size, self._samples = whole("size", size), None
        check_parts(offsets, times, addresses)
        check_range(addresses, self._size)
        self._raw = _sorted(Raw(offsets, times, addresses))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self._raw, self._size)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(B + 1,) where each sample begins and ends; read-only."""
        return read_only(self._raw.offsets)

    @property
    def times(self) -> NDArray[np.float64]:
        """(S,) seconds since the start of the sample; read-only."""
        return read_only(self._raw.times)

    @property
    def addresses(self) -> NDArray[np.int32]:
        """(S,) which input channel or neuron spiked; read-only."""
        return read_only(self._raw.addresses)

    @property
    def size(self) -> int:
        """The number of addresses."""
        return self._size

    @classmethod
    def from_lists(
        cls, times: Sequence[ArrayLike], addresses: Sequence[ArrayLike], size: int
    ) -> SpikeBatch:
        """Make a batch of one sequence of times and one of addresses per sample."""
        for name, values in (("times", times), ("addresses", addresses)):
            if not hasattr(values, "__len__"):
                raise InputError(
                    f"{name} are a {type(values).__name__}; give one sequence a sample"
                )
        if len(times) != len(addresses):
            raise InputError(
                f"times are of {len(times)} samples and addresses of {len(addresses)}; "
                "give one sequence of each per sample"
            )
        rows = [as_array(row).reshape(-1) for row in times]
        columns = [as_array(row).reshape(-1) for row in addresses]
        for b, (row, column) in enumerate(zip(rows, columns, strict=True)):
            if len(row) != len(column):
                raise InputError(
                    f"sample {b} has {len(row)} times and {len(column)} addresses; "
                    "give as many of each"
                )
        batch = cls.__new__(cls)
        batch._fill(
            offsets_of([len(row) for row in rows]),
            as_times(joined(rows), copy=False),  # joined already by copying
            as_integers("addresses", joined(columns), np.int32, copy=False),
            size,
        )
        return batch

    @classmethod
    def from_arrays(
        cls, samples: ArrayLike, times: ArrayLike, addresses: ArrayLike, size: int, batch: int
    ) -> SpikeBatch:
        """Make a batch of flat arrays in any order.

        Args:
            samples: (S,) which sample each spike belongs to, 0 to batch - 1.
            times, addresses, size: see `SpikeBatch`.
            batch: B, the number of samples.
        """
        which = as_integers("samples", samples, np.int64, copy=False)
        batch = whole("batch", batch)
        if batch > MOST_EMPTY:
            raise InputError(f"batch is {batch}; give at most {MOST_EMPTY:,} samples")
        seconds = as_times(times, copy=False)
        channels = as_integers("addresses", addresses, np.int32, copy=False)
        if not len(which) == len(seconds) == len(channels):
            raise InputError(
                f"there are {len(which)} samples, {len(seconds)} times and {len(channels)} "
                "addresses; give one of each per spike"
            )
        if len(which) and not 0 <= which.min() <= which.max() < batch:
            raise InputError(
                f"samples lie between {which.min()} and {which.max()}; "
                f"a batch of {batch} has samples 0 to {batch - 1}"
            )
        order = np.argsort(which, kind="stable")
        offsets = offsets_of(np.bincount(which, minlength=batch))
        made = cls.__new__(cls)
        made._fill(offsets, seconds[order], channels[order], size)
        return made

    @classmethod
    def from_events(
        cls,
        recordings: Sequence[NDArray[Any]],
        sensor_size: Sequence[int] | int,
        time_unit: float = 1e-6,
    ) -> SpikeBatch:
        """Make a batch of structured event arrays with the fields that Tonic uses.

        Args:
            recordings: one structured array per sample with the field "t" and either "x", "y" and
                "p", or "x" alone (as Tonic's SHD); "y" and "p" may be left out where the sensor
                has one row or one polarity.
            sensor_size: (width, height, polarities), or the number of channels.
            time_unit: seconds per unit of "t"; Tonic's are microseconds.

        An event at (x, y) of polarity p gets the address (p * height + y) * width + x, as in a
        frame (polarities, height, width) laid out flat.
        """
        if not hasattr(recordings, "__iter__"):
            raise InputError(
                f"recordings are a {type(recordings).__name__}; give one structured array a sample"
            )
        sizes: list[Any] = list(np.atleast_1d(as_array(sensor_size)))
        if not 1 <= len(sizes) <= 3:
            raise InputError(
                f"sensor_size is {sensor_size}; give (width, height, polarities) or one number"
            )
        sizes = [whole("sensor_size", size) for size in (*sizes, 1, 1)][:3]
        number("time_unit", time_unit, "seconds per unit of time, above 0")
        recordings = list(recordings)
        times = [field(r, "t", "uif").astype(np.float64) * time_unit for r in recordings]
        addresses = [pixel_addresses(r, sizes, b) for b, r in enumerate(recordings)]
        return cls.from_lists(times, addresses, math.prod(sizes))

    def __len__(self) -> int:
        return len(self._raw.offsets) - 1

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Sample: ...
    @overload
    def __getitem__(self, index: slice | ArrayLike | Tensor) -> SpikeBatch: ...

    def __getitem__(self, index: Any) -> SpikeBatch | Sample:
        """Return one sample, or the chosen ones as a batch, in the order of the index.

        Raises:
            InputError: if there is no such sample (then also an IndexError), or the index is
                not valid.
        """
        chosen = positions(index, len(self))
        if isinstance(chosen, int):
            return self.sample(chosen)
        raw = self._raw
        if isinstance(chosen, slice) and chosen.step == 1:
            offsets = raw.offsets[chosen.start : chosen.stop + 1]
            part = slice(offsets[0], offsets[-1])
            return self._trusted(
                offsets - offsets[0], raw.times[part], raw.addresses[part], self._size
            )
        if isinstance(chosen, slice):
            chosen = np.arange(chosen.start, chosen.stop, chosen.step)
        starts = raw.offsets.take(chosen)
        lengths = raw.offsets.take(chosen + 1) - starts
        offsets = offsets_of(lengths)
        spikes = np.arange(offsets[-1])
        spikes += np.repeat(starts - offsets[:-1], lengths)
        return self._trusted(
            offsets, raw.times.take(spikes), raw.addresses.take(spikes), self._size
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self.sample(b) for b in range(len(self)))

    def __repr__(self) -> str:
        return f"SpikeBatch({len(self)} samples, {len(self._raw.times)} spikes, size={self._size})"

    def sample(self, b: int) -> Sample:
        """Return times and addresses of one sample; -1 is the last.

        Raises:
            InputError: if there is no such sample; it is an IndexError, too.
        """
        place = positions(b, len(self))
        if not isinstance(place, int):
            raise InputError(f"the sample is {b!r}; give one integer")
        part = slice(*self._raw.offsets[place : place + 2])
        return self.times[part], self.addresses[part]

    @property
    def samples(self) -> NDArray[np.int64]:
        """(S,) the sample of each spike; read-only."""
        found = self._samples
        if found is None:
            found = self._samples = _samples(self._raw)
        return read_only(found)

    def counts(self) -> NDArray[np.int64]:
        """Return the number of spikes of each address in each sample, (B, size).

        Raises:
            InputError: if that are more numbers than fit into memory.
        """
        wanted = len(self) * self._size
        try:
            flat = np.bincount(self.samples * self._size + self._raw.addresses, minlength=wanted)
        except (MemoryError, ValueError) as problem:
            raise InputError(
                f"the counts of {len(self)} samples and {self._size} addresses do not fit into "
                "memory; take fewer samples, as batch[:100]"
            ) from problem
        return flat.reshape(len(self), self._size)


def _samples(raw: Raw) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(raw.offsets) - 1), np.diff(raw.offsets))


def _sorted(raw: Raw) -> Raw:
    """Sort the spikes by sample, time and address."""
    which = _samples(raw)
    later = np.diff(raw.times) > 0
    tied = (np.diff(raw.times) == 0) & (np.diff(raw.addresses) >= 0)
    if np.all(later | tied | (np.diff(which) > 0)):
        return raw
    order = np.lexsort((raw.addresses, raw.times, which))
    return Raw(raw.offsets, raw.times[order], raw.addresses[order])
