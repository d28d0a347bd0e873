"""Random crop, flip and cutout of whole batches of images or of sequences of frames."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from threefactor.data.arguments import check_number, check_whole
from threefactor.errors import InputError

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
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
        InputError: `padding` or `cutout` is not a whole number, 0 or above; or `fill` no number.
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


AUGMENTATIONS = {
    "cifar10": Augmentation(padding=4, flip=True, cutout=16),
    "cifar100": Augmentation(padding=4, flip=True, cutout=16),
    "dvs-cifar10": Augmentation(padding=4),
}
"""Those of the published figures, by name of the data set."""


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
    samples = _samples(batch)
    count, _, height, width = samples.shape
    hidden = []
    for length in (height, width):
        start = torch.randint(0, length, (count, 1), generator=generator) - size // 2
        place = torch.arange(length)
        hidden.append(((place >= start) & (place < start + size)).to(batch.device))
    square = hidden[0][:, None, :, None] & hidden[1][:, None, None, :]
    return _as_before(samples.masked_fill(square, fill), batch)


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
