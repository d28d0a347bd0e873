"""Images as they come out of the files, before anything is done to them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["BYTE_PEAK", "RawImages"]

BYTE_PEAK = 255


class RawImages(NamedTuple):
    """Images as they are published: (N, C, H, W) and (N,) arrays of unsigned bytes.

    `peak` is the pixel value that stands for 1.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    peak: int
