"""How the files of each set of images become arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threefactor.data.dataset import DataSet
from threefactor.data.files.source import Source
from threefactor.data.formats.idx import read_idx_source
from threefactor.data.samples.raw import BYTE_PEAK, RawImages
from threefactor.data.sets.cifar import read_cifar10, read_cifar100
from threefactor.data.where import find_files
from threefactor.errors import DataError

__all__ = ["READERS", "RawImages"]

DIGITS_PEAK = 16


def read_digits(entry: DataSet, data_dir: str | Path | None = None) -> RawImages:
    """Read scikit-learn's digits, in a split of their own that never changes.

    scikit-learn ships one part only. `entry.test` samples are set aside for testing by its
    `train_test_split`, stratified by class, with seed 0. `data_dir` is not used.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.uint8)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=entry.test, random_state=0, stratify=labels
    )
    return RawImages(images[train], labels[train], images[test], labels[test], DIGITS_PEAK)


def read_idx_pairs(entry: DataSet, data_dir: str | Path | None = None) -> RawImages:
    """Read two pairs of idx files, of any number of samples, and check that they fit together.

    Raises:
        DataError: a file is absent or damaged, or the files do not fit together.
    """
    train_images, train_labels, test_images, test_labels = find_files(entry, data_dir)
    train = _read_pair(entry, train_images, train_labels)
    test = _read_pair(entry, test_images, test_labels)
    return RawImages(*train, *test, BYTE_PEAK)


def read_emnist(entry: DataSet, data_dir: str | Path | None = None) -> RawImages:
    """Read idx files in which rows and columns are exchanged, and set the images upright.

    Raises:
        DataError: a file is absent or damaged, or the files do not fit together.
    """
    raw = read_idx_pairs(entry, data_dir)
    train, test = (
        np.ascontiguousarray(images.swapaxes(2, 3))
        for images in (raw.train_images, raw.test_images)
    )
    return raw._replace(train_images=train, test_images=test)


def _read_pair(
    entry: DataSet, image_path: Source, label_path: Source
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images, labels = read_idx_source(image_path), read_idx_source(label_path)
    _check_shapes(entry, image_path, images.shape, label_path, labels.shape)
    high = int(labels.max())
    if high >= len(entry.classes):
        raise DataError(
            f"{label_path} holds the label {high}; {entry.name!r} has labels "
            f"0 to {len(entry.classes) - 1}; put the set's own file in its place"
        )
    return images[:, None], labels


def _check_shapes(
    entry: DataSet,
    image_path: Source,
    images: tuple[int, ...],
    label_path: Source,
    labels: tuple[int, ...],
) -> None:
    size = entry.shape[1:]
    if images[1:] != size:
        raise DataError(
            f"{image_path} holds an array of shape {images}; expected images of "
            f"{size[0]}x{size[1]} pixels, (N, {size[0]}, {size[1]}); "
            "put the set's own file in its place"
        )
    if len(labels) != 1:
        raise DataError(
            f"{label_path} holds an array of shape {labels}; expected labels, (N,); "
            "are the names of two files swapped?"
        )
    if images[0] != labels[0]:
        raise DataError(
            f"{image_path} holds {images[0]} images but {label_path} holds {labels[0]} labels; "
            "these do not belong together: put both of the same set there"
        )


Reader = Callable[[DataSet, "str | Path | None"], RawImages]

READERS: dict[str, Reader] = {
    "digits": read_digits,
    "idx": read_idx_pairs,
    "emnist": read_emnist,
    "cifar-10": read_cifar10,
    "cifar-100": read_cifar100,
}
"""The reader of each kind of images, by the name that the registry gives it."""
