"""Load a data set by its name, scaled and normalised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.data.dataset import DataSet
from threefactor.data.samples.image_folder import ImageFolderData, load_image_folder
from threefactor.data.samples.images import ImageData, check_dtype
from threefactor.data.sets.catalog import DATASETS, lookup
from threefactor.data.sets.readers import READERS, RawImages
from threefactor.data.where import find_files
from threefactor.errors import ConfigurationError, DataError

__all__ = ["load"]

LOADERS = {
    "spikes": ("load_spikes", "of exact spike times"),
    "events": ("load_frames", "on a time grid"),
    "simulated": ("load_frames", "on a time grid"),
}
BLOCK = 1024  # images whose pixels are counted at once


@overload
def load(  # type: ignore[overload-overlap]
    name: Literal["imagenet"],
    data_dir: str | Path | None = None,
    normalise: bool = True,
    dtype: torch.dtype = torch.float32,
) -> ImageFolderData: ...
@overload
def load(
    name: str,
    data_dir: str | Path | None = None,
    normalise: bool = True,
    dtype: torch.dtype = torch.float32,
) -> ImageData: ...


def load(
    name: str,
    data_dir: str | Path | None = None,
    normalise: bool = True,
    dtype: torch.dtype = torch.float32,
) -> ImageData | ImageFolderData:
    """Load a data set of images; those of image files are read batch by batch.

    Args:
        name: a key of `DATASETS`.
        data_dir: the folder above the set's own; see `data_folder`. Not used for `digits`.
        normalise: subtract the training images' mean from all images and divide by their
            standard deviation; else the pixels are just scaled to 0..1. Each channel of image
            files has its own mean and deviation, published for ImageNet.
        dtype: of the images: torch.float16, bfloat16, float32 or float64.

    Returns:
        An `ImageData`; of a set of image files, as `imagenet`, an `ImageFolderData`.

    Raises:
        ConfigurationError: there is no data set of this name, or it is one of spikes or
            events; or Pillow, which reads image files, is not installed.
        DataError: a file is absent or damaged, or the files do not fit together.
        InputError: `dtype` is none of these.
    """
    entry = lookup(name)
    _check_kind(entry)
    check_dtype(dtype)
    if entry.kind == "image files":
        folder = find_files(entry, data_dir)[0].path.parent
        return load_image_folder(folder, normalise=normalise, dtype=dtype, name=name)
    raw = READERS[entry.reader](entry, data_dir)
    mean, std = _statistics(raw, name)
    train_images, test_images = (
        _scale(images, raw.peak, mean, std, normalise, dtype)
        for images in (raw.train_images, raw.test_images)
    )
    return ImageData(
        train_images=train_images,
        train_labels=torch.from_numpy(raw.train_labels.astype(np.int64)),
        test_images=test_images,
        test_labels=torch.from_numpy(raw.test_labels.astype(np.int64)),
        classes=entry.classes,
        name=name,
        mean=mean,
        std=std,
    )


def _check_kind(entry: DataSet) -> None:
    if entry.kind in LOADERS:
        images = ", ".join(each.name for each in DATASETS.values() if each.kind not in LOADERS)
        loader, networks = LOADERS[entry.kind]
        raise ConfigurationError(
            f"{entry.name!r} holds {entry.kind}, not images; use "
            f"threefactor.data.{loader}({entry.name!r}), for networks {networks}. "
            f"Sets of images: {images}"
        )


def _statistics(raw: RawImages, name: str) -> tuple[float, float]:
    """Return the mean and population standard deviation of the training pixels over `peak`.

    They come from the exact numbers of each pixel value, without a copy in floating point.
    """
    counts = np.zeros(256, dtype=np.int64)
    for block in _blocks(raw.train_images):
        counts += np.bincount(block.reshape(-1), minlength=256)
    values = np.arange(256) / raw.peak
    mean = float(np.average(values, weights=counts))
    std = float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))
    if std == 0.0:
        raise DataError(
            f"all pixels of the training images of {name!r} are equal; "
            "these are not the published files: delete them and fetch the data set again"
        )
    return mean, std


def _blocks(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(images), BLOCK):
        yield images[start : start + BLOCK]


def _scale(
    images: NDArray[np.uint8],
    peak: int,
    mean: float,
    std: float,
    normalise: bool,
    dtype: torch.dtype,
) -> Tensor:
    scaled = torch.from_numpy(images).to(dtype).div_(peak)
    return scaled.sub_(mean).div_(std) if normalise else scaled
