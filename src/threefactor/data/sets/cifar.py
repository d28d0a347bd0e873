"""CIFAR-10 and CIFAR-100 in their binary version: records of labels and pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from threefactor.data.dataset import DataFile, Files, ImageSet
from threefactor.data.files.archives import Member, read_members
from threefactor.data.files.source import ADVICE, Source
from threefactor.data.samples.augmented import Augmentation
from threefactor.data.samples.images import RawImages
from threefactor.errors import DataError

__all__ = ["CIFAR_10", "CIFAR_100"]

COARSE = 20  # superclasses of CIFAR-100, whose labels come before those of the classes
TEN = "airplane automobile bird cat deer dog frog horse ship truck"
HUNDRED = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def read_cifar10(entry: ImageSet, sources: Sequence[Source]) -> RawImages:
    """Read the six files of CIFAR-10; the last is for testing. Each may hold any number of images.

    A record is a label from 0 to 9, then 3 x 32 x 32 pixels: red, green and blue, row by row.

    Returns:
        (N, 3, 32, 32) images in the order of the files, and (N,) labels.

    Raises:
        DataError: a file is absent, cut short, empty, or has a label out of range; the message
            names the file and the offset.

    Source: A. Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
    """
    return _read(entry, sources, (len(entry.classes),))


def read_cifar100(entry: ImageSet, sources: Sequence[Source]) -> RawImages:
    """Read the two files of CIFAR-100; its records have a coarse label before the fine one.

    The fine labels, 0 to 99, are returned; the coarse ones, 0 to 19, are only checked. All else
    is as in `read_cifar10`.
    """
    return _read(entry, sources, (COARSE, len(entry.classes)))


def _read(entry: ImageSet, sources: Sequence[Source], ranges: Sequence[int]) -> RawImages:
    """Read all files; `ranges` are those of a record's labels."""
    *train, test = (
        _records(source, body, entry.shape, ranges) for source, body in _bodies(sources)
    )
    images = np.concatenate([part[0] for part in train])
    labels = np.concatenate([part[1] for part in train])
    return RawImages(images, labels, np.array(test[0]), np.array(test[1]))


def _bodies(sources: Sequence[Source]) -> Iterator[tuple[Source, bytes | bytearray]]:
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
        fault = "is cut short, or another file" if body else "is empty"
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


CIFAR_10 = ImageSet(
    name="cifar10",
    title="CIFAR-10: small colour photographs",
    shape=(3, 32, 32),
    train=50_000,
    test=10_000,
    classes=tuple(TEN.split()),
    licence="no licence is published; the authors ask for their report to be cited",
    source="A. Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images, tech report",
    references=("krizhevsky2009cifar",),
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    files=Files(
        (
            DataFile(
                "cifar-10-binary.tar.gz",
                "c32a1d4ab5d03f1284b67883e8d87530",
                members=(
                    *(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
                    "cifar-10-batches-bin/test_batch.bin",
                ),
                limit=512 << 20,
            ),
        ),
        mirrors=("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"),
        endings=("", ".gz"),
        pickles=tuple(
            (f"cifar-10-batches-py/{name}", md5)
            for name, md5 in (
                ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
                ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
                ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
                ("data_batch_4", "634d18415352ddfa80567beed471001a"),
                ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
                ("test_batch", "40351d587109b95175f43aff81a1287e"),
            )
        ),
    ),
    read=read_cifar10,
    augmentation=Augmentation(padding=4, flip=True, cutout=16),
)

CIFAR_100 = replace(
    CIFAR_10,
    name="cifar100",
    title="CIFAR-100: small colour photographs of a hundred classes",
    classes=tuple(HUNDRED.split()),
    files=replace(
        CIFAR_10.files,
        published=(
            DataFile(
                "cifar-100-binary.tar.gz",
                "03b5dce01913d631647c71ecec9e9cb8",
                members=("cifar-100-binary/train.bin", "cifar-100-binary/test.bin"),
                limit=512 << 20,
            ),
        ),
        pickles=(
            ("cifar-100-python/train", "16019d7e3df5f24257cddd939b257f8d"),
            ("cifar-100-python/test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        ),
    ),
    read=read_cifar100,
)
