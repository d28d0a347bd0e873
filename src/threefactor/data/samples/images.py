"""Images in memory: as bytes as they are published, and as tensors with labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.data.files.rows import FileRows
from threefactor.data.samples.labelled import LabelledData
from threefactor.errors import DataError

__all__ = ["ImageData", "RawImages", "image_data", "pixel_statistics"]

BLOCK = 1024  # images whose pixels are counted at once


def pixel_statistics(pixels: NDArray[np.uint8] | FileRows, peak: int) -> tuple[float, float]:
    """Return mean and population standard deviation of pixels over `peak`.

    They come from exact counts of each pixel value, without a copy in floating point.

    Args:
        pixels: (N, C, H, W), unsigned bytes.
        peak: the pixel value that stands for 1.
    """
    counts = np.zeros(256, dtype=np.int64)
    for start in range(0, len(pixels), BLOCK):
        counts += np.bincount(pixels[start : start + BLOCK].reshape(-1), minlength=256)
    values = np.arange(256) / peak
    mean = float(np.average(values, weights=counts))
    return mean, float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))


class RawImages(NamedTuple):
    """Images as they are published: (N, C, H, W) and (N,) arrays of unsigned bytes.

    `peak` is the pixel value that stands for 1.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    peak: int = 255

    def statistics(self, name: str) -> tuple[float, float]:
        """Return mean and population standard deviation of the training pixels over `peak`.

        Args:
            name: of the data set, for the message.

        Raises:
            DataError: all pixels are equal.
        """
        mean, std = pixel_statistics(self.train_images, self.peak)
        if std == 0.0:
            raise DataError(
                f"all pixels of the training images of {name!r} are equal; "
                "these are not the published files: delete them and fetch the data set again"
            )
        return mean, std


@dataclass(frozen=True, eq=False)
class ImageData(LabelledData[Tensor]):
    """A data set of images, split for training and testing.

    Args:
        train_images, test_images: (N, C, H, W), floating point.
        train_labels, test_labels: (N,), torch.int64, between 0 and `outputs` - 1.
        classes: one name per label.
        name: the key of the set in `DATASETS`.
        mean, std: of all pixels of the whole training set scaled to 0..1; the standard deviation
            is the population's (divided by the number of pixels, not by one less).
    """

    inputs: ClassVar[str] = "images"
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    name: str
    mean: float
    std: float

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width


def image_data(
    raw: RawImages, classes: tuple[str, ...], name: str, normalise: bool, dtype: torch.dtype
) -> ImageData:
    """Scale images to 0..1 and normalise them by the statistics of those for training."""
    mean, std = raw.statistics(name)

    def scaled(images: NDArray[np.uint8]) -> Tensor:
        found = torch.from_numpy(images).to(dtype).div_(raw.peak)
        return found.sub_(mean).div_(std) if normalise else found

    return ImageData(
        train_images=scaled(raw.train_images),
        train_labels=torch.from_numpy(raw.train_labels.astype(np.int64)),
        test_images=scaled(raw.test_images),
        test_labels=torch.from_numpy(raw.test_labels.astype(np.int64)),
        classes=classes,
        name=name,
        mean=mean,
        std=std,
    )
