"""Images with class labels, as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from threefactor.data.samples.labelled import LabelledData
from threefactor.errors import InputError

__all__ = ["ImageData", "check_dtype"]

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_dtype(dtype: torch.dtype) -> None:
    """Check that images can have a type.

    Raises:
        InputError: it is none of floating point.
    """
    if dtype not in DTYPES:
        known = ", ".join(str(each) for each in DTYPES)
        raise InputError(f"dtype is {dtype}; expected one of {known}")


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
