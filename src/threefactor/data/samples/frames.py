"""Sequences of frames with class labels, of which batches are taken with time first."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.data.arguments import check_dtype, check_number
from threefactor.data.inputs import Batched
from threefactor.data.samples.labelled import LabelledData
from threefactor.errors import DataError, InputError
from threefactor.indexing import positions

__all__ = ["FrameData", "Frames"]


class Frames(Batched):
    """N sequences of frames on disk, of which `frames[index]` gives a batch with time first.

    An index is a slice, a tensor of positions or a list. The batch is a new tensor
    (T, B, C, H, W): `x_t` of step t is `batch[t]`, which the rules of `clocked` take as a
    sequence. One number gives one sequence, (T, C, H, W), and so do loops. Only what is asked for
    is read. A pickle of frames that are mapped into memory holds the path of their file, which is
    mapped again: processes share it.

    Args:
        array: (N, T, C, H, W), of numbers, perhaps mapped into memory.
        mean, std: subtracted from and divided out of every value.
        dtype, device: of the batches; a type of floating point.

    Raises:
        InputError: the array has other dimensions or holds no real numbers, `std` is not above 0,
            or `dtype` none of floating point.
    """

    def __init__(
        self,
        array: NDArray[Any],
        mean: float = 0.0,
        std: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.array: Any = np.asarray(array)  # a map of memory is slower to index
        if self.array.ndim != 5 or self.array.dtype.kind not in "buif":
            raise InputError(
                f"frames are {self.array.dtype} of shape {self.array.shape}; expected numbers, "
                "(N, T, C, H, W)"
            )
        if not self.array.dtype.isnative:  # which PyTorch does not take
            self.array = self.array.astype(self.array.dtype.newbyteorder("="))
        check_number("mean", mean, -math.inf, sys.float_info.max)
        check_number("std", std, 0.0, sys.float_info.max)
        check_dtype(dtype)
        self.mean, self.std = mean, std
        self.dtype, self.device = dtype, torch.device(device)

    def __len__(self) -> int:
        return len(self.array)

    def take(self, place: slice | NDArray[np.int64]) -> Tensor:
        """Return a batch, (T, B, C, H, W)."""
        chosen = self.array[place]
        if isinstance(place, slice):
            chosen = chosen.copy()  # a view of memory that is read-only
        rows = torch.from_numpy(chosen).transpose(0, 1)
        batch = torch.empty(rows.shape, dtype=self.dtype).copy_(rows)
        if (self.mean, self.std) != (0.0, 1.0):
            batch.sub_(self.mean).div_(self.std)
        return batch.to(self.device)

    @property
    def steps(self) -> int:
        """T."""
        return int(self.array.shape[1])

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one frame."""
        channels, height, width = self.array.shape[2:]
        return channels, height, width

    def first(self, number: int | None) -> Frames:
        """Return the first sequences, as a view; None keeps all."""
        return Frames(self.array[:number], self.mean, self.std, self.dtype, self.device)

    def choose(self, index: Tensor) -> Frames:
        """Return the sequences at some positions, as a copy in memory."""
        chosen = self.array[positions(index, len(self))]
        return Frames(chosen, self.mean, self.std, self.dtype, self.device)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        file = _mapped_file(self.array)
        if file is not None:
            state["array"] = file
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.array, _File):
            self.array = self.array.mapped()

    def to(self, device: torch.device | str) -> Frames:
        """Return the same frames, whose batches go to another device."""
        return Frames(self.array, self.mean, self.std, self.dtype, device)


class _File(NamedTuple):
    """Where the array lies that a process maps into its memory."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def mapped(self) -> NDArray[Any]:
        try:
            found = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}, which holds frames, cannot be mapped into memory ({error}); load "
                "the data set anew"
            ) from error
        return np.asarray(found)


def _mapped_file(array: NDArray[Any]) -> _File | None:
    """Return the file of an array that begins where a map of a file does, or None."""
    base: Any = array
    while base is not None and not isinstance(base, np.memmap):
        base = getattr(base, "base", None)
    if base is None or not base.filename or not array.flags.c_contiguous or not array.size:
        return None
    if array.__array_interface__["data"][0] != base.__array_interface__["data"][0]:
        return None
    return _File(str(base.filename), base.offset, array.shape, array.dtype.str)


@dataclass(frozen=True, eq=False)
class FrameData(LabelledData[Frames]):
    """A data set of sequences of frames, split for training and testing.

    Args:
        train_frames, test_frames: N sequences, of which an index gives (T, B, C, H, W).
        train_labels, test_labels: (N,), torch.int64, between 0 and `outputs` - 1.
        classes: one name per label.
        name: the key of the set in `DATASETS`.
        mean, std: of all values of the whole training set, of all steps and pixels; the standard
            deviation is the population's.
    """

    inputs: ClassVar[str] = "frames"
    train_frames: Frames
    train_labels: Tensor
    test_frames: Frames
    test_labels: Tensor
    classes: tuple[str, ...]
    name: str
    mean: float
    std: float

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one frame."""
        return self.train_frames.sample_shape

    @property
    def steps(self) -> int:
        """T, the number of frames of a sample."""
        return self.train_frames.steps
