"""The data sets that the library knows: what they are, whose they are, where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from threefactor.errors import unknown_name

__all__ = ["DATASETS", "DataFile", "DataSet", "lookup"]

DIGIT_NAMES = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class DataFile:
    """One file of a data set as it is published.

    Args:
        name: the published file name.
        md5: the MD5 sum of the published file, 32 hexadecimal digits.
    """

    name: str
    md5: str


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set without having it.

    Args:
        name: the name that users type, also that of the set's subfolder.
        title: the full name.
        reader: the key in `threefactor.data.readers.READERS` of the function that reads the files.
        shape: (C, H, W) of one sample.
        train, test: number of samples published for training and for testing.
        classes: one name per label, in the order of the labels.
        licence: under which terms the data may be used, as far as is known.
        source: the publication to cite.
        homepage: where to read more.
        files: the published files, none if the set comes with an installed package. Sets of
            idx files list training images, training labels, test images, test labels.
        mirrors: base URLs under each of which all the files lie, best first.
        debian_package, debian_folder: Debian's package of the set and where it installs the files.
    """

    name: str
    title: str
    reader: str
    shape: tuple[int, ...]
    train: int
    test: int
    classes: tuple[str, ...]
    licence: str
    source: str
    homepage: str
    files: tuple[DataFile, ...] = ()
    mirrors: tuple[str, ...] = ()
    debian_package: str | None = None
    debian_folder: Path | None = None


def lookup(name: str) -> DataSet:
    """Return the entry of a data set.

    Raises:
        ConfigurationError: there is no data set of this name.
    """
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]


def _idx_files(*sums: str) -> tuple[DataFile, ...]:
    """Pair the four file names that MNIST made customary with their MD5 sums."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(DataFile(f"{name}-ubyte.gz", md5) for name, md5 in zip(names, sums, strict=True))


DIGITS = DataSet(
    name="digits",
    title="Optical recognition of handwritten digits (test part, as shipped with scikit-learn)",
    reader="digits",
    shape=(1, 8, 8),
    train=1437,
    test=360,
    classes=DIGIT_NAMES,
    licence="CC BY 4.0 (UCI); the copy in scikit-learn comes under BSD-3-Clause",
    source="E. Alpaydin, C. Kaynak 1998, UCI Machine Learning Repository, doi:10.24432/C50P49",
    homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
)

MNIST = DataSet(
    name="mnist",
    title="MNIST database of handwritten digits",
    reader="idx",
    shape=(1, 28, 28),
    train=60_000,
    test=10_000,
    classes=DIGIT_NAMES,
    licence="no licence file is published; commonly given as CC BY-SA 3.0, by some as MIT",
    source=(
        "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner 1998, Gradient-based learning applied to "
        "document recognition, Proceedings of the IEEE 86(11), 2278-2324"
    ),
    homepage="http://yann.lecun.com/exdb/mnist/",
    files=_idx_files(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)

FASHION_MNIST = DataSet(
    name="fashion-mnist",
    title="Fashion-MNIST, Zalando's article images",
    reader="idx",
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
    homepage="https://github.com/zalandoresearch/fashion-mnist",
    files=_idx_files(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    debian_package="dataset-fashion-mnist",
    debian_folder=Path("/usr/share/datasets/fashion-mnist"),
)

DATASETS: dict[str, DataSet] = {entry.name: entry for entry in (DIGITS, MNIST, FASHION_MNIST)}
"""All known data sets by name."""
