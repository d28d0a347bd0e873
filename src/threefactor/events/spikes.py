"""Batches of spike trains in one flat, sorted layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from threefactor.errors import InputError

__all__ = ["SpikeBatch", "latency_code"]


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
        self.size = _whole("size", size)
        self.times = _times(times)
        self.addresses = _integers("addresses", addresses, np.int32)
        self.offsets = _integers("offsets", offsets, np.int64)
        _check_parts(self.offsets, self.times, self.addresses)
        _check_range(self.addresses, self.size)
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
        rows = [_array(row).reshape(-1) for row in times]
        columns = [_array(row).reshape(-1) for row in addresses]
        for b, (row, column) in enumerate(zip(rows, columns, strict=True)):
            if len(row) != len(column):
                raise InputError(
                    f"sample {b} has {len(row)} times and {len(column)} addresses; "
                    "give as many of each"
                )
        return cls(_offsets([len(row) for row in rows]), _joined(rows), _joined(columns), size)

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
        which = _integers("samples", samples, np.int64)
        batch = _whole("batch", batch)
        seconds, channels = _times(times), _integers("addresses", addresses, np.int32)
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
        offsets = _offsets(np.bincount(which, minlength=batch))
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
        sizes = [_whole("sensor_size", size) for size in (*sizes, 1, 1)][:3]
        if not (math.isfinite(time_unit) and time_unit > 0):
            raise InputError(f"time_unit is {time_unit}; give seconds per unit of time, above 0")
        times = [_field(r, "t").astype(np.float64) * time_unit for r in recordings]
        addresses = [_pixel(r, sizes, b) for b, r in enumerate(recordings)]
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
        chosen = _choice(index, len(self))
        lengths = np.diff(self.offsets)[chosen]
        offsets = _offsets(lengths)
        spikes = np.repeat(self.offsets[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return self._trusted(offsets, self.times[spikes], self.addresses[spikes], self.size)

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


def latency_code(images: ArrayLike | Tensor, window: float = 0.1) -> SpikeBatch:
    r"""Encode each pixel as one spike: the brighter, the earlier.

    .. math:: t = T_w (1 - p)

    A pixel p = 0 gives no spike.

    Args:
        images: (B, ...) floating point values between 0 and 1, or unsigned bytes 0 to 255.
        window: T_w in seconds.

    Returns:
        A batch with one address per pixel of an image laid out flat.

    Raises:
        InputError: if a value is out of its range or NaN, or the window not above 0.

    Example:
        >>> batch = latency_code([[1.0, 0.5, 0.0]], window=0.1)
        >>> batch.times.tolist(), batch.addresses.tolist()
        ([0.0, 0.05], [0, 1])

    Source: Bacho & Chu (SFDFA), appendix A.
    """
    if not (math.isfinite(window) and window > 0):
        raise InputError(f"window is {window}; give seconds above 0")
    pixels = _array(images)
    if pixels.ndim < 2:
        raise InputError(f"images have shape {pixels.shape}; expected (batch, ...)")
    if pixels.dtype.kind not in "uif" or (pixels.dtype.kind != "f" and pixels.dtype != np.uint8):
        raise InputError(f"images are {pixels.dtype}; expected floating point or uint8")
    peak = 255 if pixels.dtype == np.uint8 else 1
    if pixels[:1].size == 0 and 0 in pixels.shape[1:]:
        raise InputError(f"images have shape {pixels.shape}; expected at least one pixel")
    flat = pixels.reshape(len(pixels), math.prod(pixels.shape[1:]))
    if flat.size and not (flat.min() >= 0 and flat.max() <= peak):
        raise InputError(
            f"pixels lie between {flat.min()} and {flat.max()}; expected 0 to {peak}, "
            "that is images that are not normalised (threefactor.data.load(..., normalise=False))"
        )
    samples, addresses = np.nonzero(flat)
    times = window * (1.0 - flat[samples, addresses].astype(np.float64) / peak)
    offsets = _offsets(np.bincount(samples, minlength=len(flat)))
    order = np.lexsort((addresses, times, samples))
    size = flat.shape[1]
    return SpikeBatch._trusted(offsets, times[order], addresses[order].astype(np.int32), size)


def _offsets(lengths: ArrayLike) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))])


def _joined(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    filled = [row for row in rows if len(row)]
    return np.concatenate(filled) if filled else np.zeros(0, dtype=np.int64)


def _array(values: ArrayLike | Tensor) -> NDArray[Any]:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    # NumPy has no bfloat16; float32 holds its values exactly.
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _times(values: ArrayLike) -> NDArray[np.float64]:
    times = _array(values)
    if times.ndim != 1 or times.dtype.kind not in "uif":
        raise InputError(
            f"times are {times.dtype} of shape {times.shape}; expected (spikes,) seconds"
        )
    times = np.require(times, np.float64, ["C", "W"])
    # One comparison finds NaN, infinite and negative times alike.
    wrong = ~((times >= 0) & (times < math.inf))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise InputError(
            f"times hold {int(wrong.sum())} values that are NaN, infinite or negative, the first "
            f"is times[{first}] = {times[first]}; give seconds since the start of the sample"
        )
    return times


def _integers(name: str, values: ArrayLike, dtype: type) -> NDArray[Any]:
    array = _array(values)
    if array.size == 0:
        array = array.astype(dtype)
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise InputError(
            f"{name} are {array.dtype} of shape {array.shape}; expected one-dimensional integers"
        )
    limits = np.iinfo(dtype)
    if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
        raise InputError(
            f"{name} lie between {array.min()} and {array.max()}; "
            f"expected integers that fit {np.dtype(dtype)}"
        )
    return np.require(array, dtype, ["C", "W"])


def _whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} is {value!r}; give a whole number of at least 1")
    return int(value)


def _check_parts(
    offsets: NDArray[np.int64], times: NDArray[np.float64], addresses: NDArray[np.int32]
) -> None:
    if len(times) != len(addresses):
        raise InputError(
            f"there are {len(times)} times and {len(addresses)} addresses; give one of each a spike"
        )
    rising = len(offsets) > 0 and bool(np.all(np.diff(offsets) >= 0))
    if not rising or offsets[0] != 0 or offsets[-1] != len(times):
        raise InputError(
            f"offsets are {offsets[:3]}...{offsets[-1:]}; expected batch + 1 integers that do not "
            f"fall, from 0 to the number of spikes, {len(times)}"
        )


def _check_range(addresses: NDArray[np.int32], size: int) -> None:
    if len(addresses) and not 0 <= addresses.min() <= addresses.max() < size:
        raise InputError(
            f"addresses lie between {addresses.min()} and {addresses.max()}; "
            f"with size={size}, expected 0 to {size - 1}"
        )


def _choice(index: Any, length: int) -> NDArray[np.int64]:
    if isinstance(index, slice):
        return np.arange(length)[index]
    array = np.atleast_1d(_array(index))
    if array.dtype == bool:
        if array.shape != (length,):
            raise InputError(f"the mask has shape {array.shape}; expected ({length},)")
        return np.flatnonzero(array)
    chosen: NDArray[np.int64] = _integers("indices", array, np.int64)
    if len(chosen) and not -length <= chosen.min() <= chosen.max() < length:
        raise InputError(
            f"indices lie between {chosen.min()} and {chosen.max()}; "
            f"a batch of {length} has samples 0 to {length - 1}"
        )
    return np.where(chosen < 0, chosen + length, chosen)


def _field(recording: NDArray[Any], name: str) -> NDArray[Any]:
    names = getattr(getattr(recording, "dtype", None), "names", None) or ()
    if name not in names:
        raise InputError(
            f"the recording has the fields {list(names)}; expected a structured array with "
            f"{name!r}, as Tonic gives it"
        )
    return recording[name]


def _pixel(recording: NDArray[Any], sizes: Sequence[int], b: int) -> NDArray[np.int64]:
    address = np.zeros(len(recording), dtype=np.int64)
    width, height, polarities = sizes
    for name, size in (("p", polarities), ("y", height), ("x", width)):
        # Tonic gives recordings without polarity, such as SHD's, a "p" that is always 1.
        if size == 1 and (name == "p" or name not in (recording.dtype.names or ())):
            continue
        value = _field(recording, name).astype(np.int64)
        if len(value) and not 0 <= value.min() <= value.max() < size:
            raise InputError(
                f"sample {b} has {name} between {value.min()} and {value.max()}; "
                f"sensor_size={tuple(sizes)} allows 0 to {size - 1}"
            )
        address = address * size + value
    return address
