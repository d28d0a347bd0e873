"""Read the binary version of CIFAR-10 and CIFAR-100: records of labels and pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threefactor.data.archives import Member, read_members
from threefactor.data.entry import DataSet
from threefactor.data.finding import find_files
from threefactor.data.raw import BYTE_PEAK, RawImages
from threefactor.data.sources import ADVICE, Source
from threefactor.errors import DataError

__all__ = ["read_cifar10", "read_cifar100"]

COARSE = 20  # superclasses of CIFAR-100, whose labels come before those of the classes
Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def read_cifar10(entry: DataSet, data_dir: str | Path | None = None) -> RawImages:
    """Read the six files of CIFAR-10, of any number of images each.

    A record is a label from 0 to 9, then 3 x 32 x 32 pixels: red, green and blue, row by row.

    Returns:
        (N, 3, 32, 32) images in the order of the files, and (N,) labels.

    Raises:
        DataError: a file is absent, cut short, empty, or has a label out of range; the message
            names the file and the offset.

    Source: A. Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
    """
    return _read(entry, data_dir, (len(entry.classes),))


def read_cifar100(entry: DataSet, data_dir: str | Path | None = None) -> RawImages:
    """Read the two files of CIFAR-100; its records have a coarse label before the fine one.

    The fine labels, 0 to 99, are returned; the coarse ones, 0 to 19, are only checked. All else
    is as in `read_cifar10`.
    """
    return _read(entry, data_dir, (COARSE, len(entry.classes)))


def _read(entry: DataSet, data_dir: str | Path | None, ranges: Sequence[int]) -> RawImages:
    """Read all files, the last of which is for testing; `ranges` are of a record's labels."""
    sources = find_files(entry, data_dir)
    *train, test = (
        _records(source, body, entry.shape, ranges) for source, body in _bodies(sources)
    )
    images = np.concatenate([part[0] for part in train])
    labels = np.concatenate([part[1] for part in train])
    return RawImages(images, labels, np.array(test[0]), np.array(test[1]), BYTE_PEAK)


def _bodies(sources: list[Source]) -> Iterator[tuple[Source, bytes | bytearray]]:
    """Yield the contents of the files, going through an archive once."""
    members = [source.name for source in sources if isinstance(source, Member)]
    if members:
        yield from zip(sources, read_members(sources[0].path, members), strict=True)
        return
    for source in sources:
        yield source, source.read()


def _records(
    source: Source, body: bytes | bytearray, shape: tuple[int, ...], ranges: Sequence[int]
) -> Part:
    """Take a file apart: views of its images and of the last of the labels of each."""
    columns, size = len(ranges), len(ranges) + int(np.prod(shape))
    if not body or len(body) % size:
        fault = "is cut short, or no such file" if body else "is empty"
        whole, rest = divmod(len(body), size)
        raise DataError(
            f"{source} {fault}: {len(body)} bytes, that is {whole} records of {size} bytes "
            f"and {rest} bytes from offset {whole * size} on; {ADVICE}"
        )
    table = np.frombuffer(body, dtype=np.uint8).reshape(-1, size)
    for column, high in enumerate(ranges):
        wrong = table[:, column] >= high
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"{source} holds the label {table[row, column]} at offset {row * size + column} "
                f"(record {row}, counted from 0); expected 0 to {high - 1}; {ADVICE}"
            )
    return table[:, columns:].reshape(-1, *shape), table[:, columns - 1]
