"""Batches of spike trains in one flat, sorted layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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
    choice_of,
    field,
    joined,
    offsets_of,
    pixel_addresses,
    whole,
)

__all__ = ["SpikeBatch"]


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

    Arrays of the right type that are sorted already are not copied: do not change them later.

    Raises:
        InputError: if a time is negative, NaN or infinite, an address out of range, or the
            offsets do not describe S spikes.

    Example:
        >>> batch = SpikeBatch.from_lists([[0.02, 0.01], []], [[3, 0], []], size=4)
        >>> len(batch), batch.times.tolist(), batch.addresses.tolist()
        (2, [0.01, 0.02], [0, 3])
    """

    __slots__ = ("_samples", "addresses", "offsets", "size", "times")

    def __init__(
        self, offsets: ArrayLike, times: ArrayLike, addresses: ArrayLike, size: int
    ) -> None:
        self.size = whole("size", size)
        self.times = as_times(times)
        self.addresses = as_integers("addresses", addresses, np.int32)
        self.offsets = as_integers("offsets", offsets, np.int64)
        check_parts(self.offsets, self.times, self.addresses)
        check_range(self.addresses, self.size)
        self._samples: NDArray[np.int64] | None = None
        self._sort()

    @classmethod
    def _trusted(
        cls,
        offsets: NDArray[np.int64],
        times: NDArray[np.float64],
        addresses: NDArray[np.int32],
        size: int,
    ) -> SpikeBatch:
        """Wrap arrays that are known to be valid and sorted."""
        batch = cls.__new__(cls)
        batch.offsets, batch.times, batch.addresses, batch.size = offsets, times, addresses, size
        batch._samples = None
        return batch

    @classmethod
    def from_lists(
        cls, times: Sequence[ArrayLike], addresses: Sequence[ArrayLike], size: int
    ) -> SpikeBatch:
        """Make a batch of one sequence of times and one of addresses per sample."""
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
        return cls(offsets_of([len(row) for row in rows]), joined(rows), joined(columns), size)

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
        which = as_integers("samples", samples, np.int64)
        batch = whole("batch", batch)
        seconds, channels = as_times(times), as_integers("addresses", addresses, np.int32)
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
        return cls(offsets, seconds[order], channels[order], size)

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
        single = isinstance(sensor_size, (int, np.integer))
        sizes = [sensor_size] if single else list(sensor_size)  # type: ignore[arg-type]
        if not 1 <= len(sizes) <= 3:
            raise InputError(
                f"sensor_size is {sensor_size}; give (width, height, polarities) or one number"
            )
        sizes = [whole("sensor_size", size) for size in (*sizes, 1, 1)][:3]
        if not (math.isfinite(time_unit) and time_unit > 0):
            raise InputError(f"time_unit is {time_unit}; give seconds per unit of time, above 0")
        times = [field(r, "t").astype(np.float64) * time_unit for r in recordings]
        addresses = [pixel_addresses(r, sizes, b) for b, r in enumerate(recordings)]
        return cls.from_lists(times, addresses, math.prod(sizes))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int | slice | ArrayLike | Tensor) -> SpikeBatch:
        """Return the chosen samples as a batch, in the order of the index."""
        if isinstance(index, slice) and index.step in (None, 1):
            start, stop, _ = index.indices(len(self))
            stop = max(start, stop)
            offsets = self.offsets[start : stop + 1]
            part = slice(offsets[0], offsets[-1])
            return self._trusted(
                offsets - offsets[0], self.times[part], self.addresses[part], self.size
            )
        chosen = choice_of(index, len(self))
        starts = self.offsets.take(chosen)
        lengths = self.offsets.take(chosen + 1) - starts
        offsets = offsets_of(lengths)
        spikes = np.arange(offsets[-1])
        spikes += np.repeat(starts - offsets[:-1], lengths)
        return self._trusted(
            offsets, self.times.take(spikes), self.addresses.take(spikes), self.size
        )

    def __repr__(self) -> str:
        return f"SpikeBatch({len(self)} samples, {len(self.times)} spikes, size={self.size})"

    def sample(self, b: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Return times and addresses of one sample."""
        part = slice(self.offsets[b], self.offsets[b + 1])
        return self.times[part], self.addresses[part]

    @property
    def samples(self) -> NDArray[np.int64]:
        """(S,) the sample of each spike."""
        if self._samples is None:
            self._samples = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return self._samples

    def counts(self) -> NDArray[np.int64]:
        """Return the number of spikes of each address in each sample, (B, size)."""
        flat = np.bincount(
            self.samples * self.size + self.addresses, minlength=len(self) * self.size
        )
        return flat.reshape(len(self), self.size)

    def _sort(self) -> None:
        which = self.samples
        later = np.diff(self.times) > 0
        tied = (np.diff(self.times) == 0) & (np.diff(self.addresses) >= 0)
        if np.all(later | tied | (np.diff(which) > 0)):
            return
        order = np.lexsort((self.addresses, self.times, which))
        self.times, self.addresses = self.times[order], self.addresses[order]
