"""Augmentation: random crop, flip and cutout of whole batches of images or of frames."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from threefactor.data.arguments import check_number, check_whole
from threefactor.data.inputs import Batched
from threefactor.errors import InputError
from threefactor.readable import clipped

__all__ = [
    "Augmentation",
    "AugmentedData",
    "AugmentedInputs",
    "cutout",
    "random_crop",
    "random_flip",
]


LARGEST_SIDE = 1 << 15  # pixels


@dataclass(frozen=True)
class Augmentation:
    """Crop, flip and cutout, in this order, each if it is set.

    Args:
        padding: pixels added on each side before a crop of the old size.
        flip: exchange left and right of half the samples.
        cutout: side of a square that is blanked.
        fill: value of added and blanked pixels; 0 is the mean of normalised images.

    Raises:
        InputError: `padding` or `cutout` is not a whole number of at least 0, or `fill` is
            not a number.
    """

    padding: int = 0
    flip: bool = False
    cutout: int = 0
    fill: float = 0.0

    def __post_init__(self) -> None:
        check_whole("padding", self.padding, 0, LARGEST_SIDE)
        check_whole("cutout", self.cutout, 0, LARGEST_SIDE)
        check_number("fill", self.fill, -math.inf, sys.float_info.max)

    def check(self, height: int, width: int) -> None:
        """Refuse what may leave nothing of a picture.

        Raises:
            InputError: `padding` or `cutout` is not smaller than the picture.
        """
        for name in ("padding", "cutout"):
            value, side = getattr(self, name), min(height, width)
            if value >= side:
                raise InputError(
                    f"{name} is {value}, which may leave nothing of pictures of {height}x{width} "
                    f"pixels; give less than {side}"
                )

    def __call__(self, batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a batch of the same shape and type; see `random_crop` for the arguments."""
        if self.padding:
            batch = random_crop(batch, self.padding, self.fill, generator)
        if self.flip:
            batch = random_flip(batch, generator)
        if self.cutout:
            batch = cutout(batch, self.cutout, self.fill, generator)
        return batch


def random_crop(
    batch: Tensor, padding: int, fill: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """Move each sample by -padding to +padding pixels, down and to the right, each as likely.

    Args:
        batch: (B, C, H, W), or (T, B, C, H, W), of which all steps of a sample move alike.
        padding: pixels.
        fill: what comes in from outside.
        generator: where chance comes from, on the CPU; by default PyTorch's global one, which
            checkpoints save.

    Returns:
        A batch of the same shape and type.
    """
    check_whole("padding", padding, 0, LARGEST_SIDE)
    check_number("fill", fill, -math.inf, math.inf)
    _check_generator(generator)
    samples = _samples(batch)
    count, planes, height, width = samples.shape
    shifts = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    down, right = shifts.to(batch.device)
    rows = torch.arange(height, device=batch.device) + down
    columns = torch.arange(width, device=batch.device) + right
    wide = pad(samples, (padding,) * 4, value=fill)
    places = rows[:, :, None] * wide.shape[-1] + columns[:, None, :]
    index = places.view(count, 1, -1).expand(-1, planes, -1)
    return _as_before(wide.flatten(2).gather(2, index), batch)


def random_flip(batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Exchange left and right of each sample with probability one half; see `random_crop`."""
    _check_generator(generator)
    samples = _samples(batch)
    flipped = torch.rand(len(samples), 1, 1, 1, generator=generator) < 0.5
    return _as_before(torch.where(flipped.to(batch.device), samples.flip(-1), samples), batch)


def cutout(
    batch: Tensor, size: int, fill: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """Blank a square of each sample, in all its channels; see `random_crop` for the arguments.

    Its centre is anywhere in the picture, so that a part of it may lie outside.

    Source: T. DeVries, G. W. Taylor 2017, Improved Regularization of Convolutional Neural Networks
    with Cutout, arXiv:1708.04552.
    """
    check_whole("size", size, 0, LARGEST_SIDE)
    check_number("fill", fill, -math.inf, math.inf)
    _check_generator(generator)
    samples = _samples(batch)
    count, _, height, width = samples.shape
    hidden = []
    for length in (height, width):
        start = torch.randint(0, length, (count, 1), generator=generator) - size // 2
        place = torch.arange(length)
        hidden.append(((place >= start) & (place < start + size)).to(batch.device))
    square = hidden[0][:, None, :, None] & hidden[1][:, None, None, :]
    return _as_before(samples.masked_fill(square, fill), batch)


def _check_generator(generator: object) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(f"generator is {clipped(generator)}; give a torch.Generator, or None")


def _samples(batch: Tensor) -> Tensor:
    """Return (B, K, H, W) with all planes of a sample, those of all steps if there are any."""
    if not isinstance(batch, Tensor):
        raise InputError(f"the batch is a {type(batch).__name__}; give a tensor")
    if batch.dim() not in (4, 5):
        raise InputError(
            f"the batch has the shape {tuple(batch.shape)}; expected (B, C, H, W) or "
            "(T, B, C, H, W)"
        )
    if batch.dim() == 4:
        return batch
    return batch.transpose(0, 1).flatten(1, 2)


def _as_before(samples: Tensor, batch: Tensor) -> Tensor:
    if batch.dim() == 4:
        return samples.view(batch.shape)
    steps, count, *shape = batch.shape
    return samples.view(count, steps, *shape).transpose(0, 1).contiguous()


class AugmentedInputs(Batched):
    """Inputs whose batches are augmented, differently each time they are taken.

    Args:
        inputs: images (N, C, H, W), or `Frames`.
        augmentation: what is done to `inputs[index]`.
        generator: see `random_crop`.
    """

    def __init__(
        self, inputs: Any, augmentation: Augmentation, generator: torch.Generator | None = None
    ) -> None:
        self.inputs, self.augmentation, self.generator = inputs, augmentation, generator

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, place: slice | NDArray[np.int64]) -> Tensor:
        """Return a batch, augmented."""
        index = place if isinstance(place, slice) else torch.from_numpy(place)
        return self.augmentation(self.inputs[index], self.generator)

    def to(self, device: torch.device | str) -> AugmentedInputs:
        """Return the same, whose batches are on another device."""
        return AugmentedInputs(self.inputs.to(device), self.augmentation, self.generator)


@dataclass(frozen=True, eq=False)
class AugmentedData:
    """A data set whose training inputs are augmented, batch by batch; all else is as it was.

    Args:
        data: an `ImageData` or `FrameData`.
        augmentation: what is done to batches for training.

    Raises:
        InputError: it is not an `Augmentation`, or may leave nothing of a picture.
    """

    data: Any
    augmentation: Augmentation

    def __post_init__(self) -> None:
        if not isinstance(self.augmentation, Augmentation):
            raise InputError(
                f"the augmentation is a {type(self.augmentation).__name__}; give an Augmentation"
            )
        self.augmentation.check(*self.data.input_shape[-2:])

    def __getattr__(self, name: str) -> Any:
        if name == "data":  # not there yet, as while it is copied
            raise AttributeError(name)
        return getattr(self.data, name)

    @property
    def train(self) -> tuple[AugmentedInputs, Tensor]:
        """The inputs for training, augmented, and their labels."""
        inputs, labels = self.data.train
        return AugmentedInputs(inputs, self.augmentation), labels

    def subset(self, train: int | None = None, test: int | None = None) -> AugmentedData:
        """Return the first `train` and `test` samples; None keeps all."""
        return AugmentedData(self.data.subset(train, test), self.augmentation)

    def fold(self, number: int, folds: int) -> AugmentedData:
        """Return one fold of the training samples for testing; see `LabelledData.fold`."""
        return AugmentedData(self.data.fold(number, folds), self.augmentation)
