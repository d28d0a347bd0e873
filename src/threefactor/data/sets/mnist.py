"""MNIST, and the sets published in its format: Fashion-MNIST and EMNIST."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threefactor.data.dataset import DataFile, Files, ImageSet
from threefactor.data.files.source import Source
from threefactor.data.formats.idx import read_idx_source
from threefactor.data.samples.images import RawImages
from threefactor.errors import DataError

__all__ = ["EMNIST_BALANCED", "FASHION_MNIST", "MNIST"]

DIGIT_NAMES = tuple("0123456789")


def read_idx_pairs(entry: ImageSet, sources: Sequence[Source]) -> RawImages:
    """Read training images, training labels, test images and test labels, of any number.

    Raises:
        DataError: a file is absent or damaged, or the files do not fit together.
    """
    train_images, train_labels, test_images, test_labels = sources
    train = _read_pair(entry, train_images, train_labels)
    test = _read_pair(entry, test_images, test_labels)
    return RawImages(*train, *test)


def read_emnist(entry: ImageSet, sources: Sequence[Source]) -> RawImages:
    """Read idx files in which rows and columns are exchanged, and set the images upright.

    Raises:
        DataError: a file is absent or damaged, or the files do not fit together.
    """
    raw = read_idx_pairs(entry, sources)
    train, test = (
        np.ascontiguousarray(images.swapaxes(2, 3))
        for images in (raw.train_images, raw.test_images)
    )
    return raw._replace(train_images=train, test_images=test)


def _read_pair(
    entry: ImageSet, image_path: Source, label_path: Source
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images, labels = read_idx_source(image_path), read_idx_source(label_path)
    size = entry.shape[1:]
    if images.shape[1:] != size:
        raise DataError(
            f"{image_path} holds an array of shape {images.shape}; expected images of "
            f"{size[0]}x{size[1]} pixels, (N, {size[0]}, {size[1]}); "
            "put the set's own file in its place"
        )
    if labels.ndim != 1:
        raise DataError(
            f"{label_path} holds an array of shape {labels.shape}; expected labels, (N,); "
            "are the names of two files swapped?"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{image_path} holds {len(images)} images but {label_path} holds {len(labels)} "
            "labels; these do not belong together: put both of the same set there"
        )
    high = int(labels.max())
    if high >= len(entry.classes):
        raise DataError(
            f"{label_path} holds the label {high}; {entry.name!r} has labels "
            f"0 to {len(entry.classes) - 1}; put the set's own file in its place"
        )
    return images[:, None], labels


def _idx_names(train: str, test: str) -> tuple[str, ...]:
    """Name training images, training labels, test images, test labels as MNIST does."""
    kinds = ("images-idx3", "labels-idx1")
    return tuple(f"{part}-{kind}-ubyte.gz" for part in (train, test) for kind in kinds)


def _idx_files(*sums: str) -> tuple[DataFile, ...]:
    """Pair MNIST's four file names with MD5 sums."""
    names = _idx_names("train", "t10k")
    return tuple(DataFile(name, md5, limit=64 << 20) for name, md5 in zip(names, sums, strict=True))


MNIST = ImageSet(
    name="mnist",
    title="MNIST database of handwritten digits",
    shape=(1, 28, 28),
    train=60_000,
    test=10_000,
    classes=DIGIT_NAMES,
    licence="no licence file is published; commonly given as CC BY-SA 3.0, by some as MIT",
    source=(
        "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner 1998, Gradient-based learning applied to "
        "document recognition, Proceedings of the IEEE 86(11), 2278-2324"
    ),
    references=("lecun1998gradient",),
    homepage="http://yann.lecun.com/exdb/mnist/",
    files=Files(
        _idx_files(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        elsewhere=("MNIST/raw",),
    ),
    read=read_idx_pairs,
)

FASHION_MNIST = ImageSet(
    name="fashion-mnist",
    title="Fashion-MNIST, Zalando's article images",
    shape=(1, 28, 28),
    train=60_000,
    test=10_000,
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    licence="MIT, Zalando SE 2017",
    source=(
        "H. Xiao, K. Rasul, R. Vollgraf 2017, Fashion-MNIST: a novel image dataset for "
        "benchmarking machine learning algorithms, arXiv:1708.07747"
    ),
    references=("xiao2017fashion",),
    homepage="https://github.com/zalandoresearch/fashion-mnist",
    files=Files(
        _idx_files(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        elsewhere=("FashionMNIST/raw",),
        debian=("dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist")),
    ),
    read=read_idx_pairs,
)

EMNIST_BALANCED = ImageSet(
    name="emnist-balanced",
    title="EMNIST, balanced split: handwritten digits and letters",
    shape=(1, 28, 28),
    train=112_800,
    test=18_800,
    # Upper and lower case of the other letters look alike and are one class.
    classes=(*DIGIT_NAMES, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"abdefghnqrt"),
    licence="no licence file is published; derived from NIST Special Database 19",
    source=(
        "G. Cohen, S. Afshar, J. Tapson, A. van Schaik 2017, EMNIST: extending MNIST to "
        "handwritten letters, IJCNN 2017, 2921-2926"
    ),
    references=("cohen2017emnist",),
    homepage="https://www.nist.gov/itl/products-and-services/emnist-dataset",
    files=Files(
        (
            DataFile(
                "gzip.zip",
                "58c8d27c78d21e728a6bc7b3cc06412e",
                members=tuple(
                    f"gzip/{name}"
                    for name in _idx_names("emnist-balanced-train", "emnist-balanced-test")
                ),
                limit=1 << 30,
            ),
        ),
        mirrors=(
            "https://biometrics.nist.gov/cs_links/EMNIST/",
            "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/",
        ),
        elsewhere=("EMNIST/raw",),
    ),
    read=read_emnist,
)
