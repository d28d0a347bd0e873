"""The data sets of images: what they are, whose they are, where they come from."""

from __future__ import annotations

from pathlib import Path

from threefactor.data.dataset import DataFile, DataSet
from threefactor.data.sets.cifar_sets import CIFAR_10, CIFAR_100

__all__ = ["IMAGE_SETS"]

DIGIT_NAMES = tuple(str(digit) for digit in range(10))
# Upper and lower case of the other letters look alike and are one class.
BALANCED_NAMES = (*DIGIT_NAMES, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"abdefghnqrt")


def _idx_names(train: str, test: str) -> tuple[str, ...]:
    """Name training images, training labels, test images, test labels as is customary."""
    kinds = ("images-idx3", "labels-idx1")
    return tuple(f"{part}-{kind}-ubyte.gz" for part in (train, test) for kind in kinds)


def _idx_files(*sums: str) -> tuple[DataFile, ...]:
    """Pair the four file names that MNIST made customary with their MD5 sums."""
    names = _idx_names("train", "t10k")
    return tuple(DataFile(name, md5, limit=64 << 20) for name, md5 in zip(names, sums, strict=True))


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
    origin="they come with scikit-learn",
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

EMNIST_BALANCED = DataSet(
    name="emnist-balanced",
    title="EMNIST, balanced split: handwritten digits and letters",
    reader="emnist",
    shape=(1, 28, 28),
    train=112_800,
    test=18_800,
    classes=BALANCED_NAMES,
    licence="no licence file is published; derived from NIST Special Database 19",
    source=(
        "G. Cohen, S. Afshar, J. Tapson, A. van Schaik 2017, EMNIST: extending MNIST to "
        "handwritten letters, IJCNN 2017, 2921-2926"
    ),
    homepage="https://www.nist.gov/itl/products-and-services/emnist-dataset",
    files=(
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
)

IMAGE_SETS = (DIGITS, MNIST, FASHION_MNIST, EMNIST_BALANCED, CIFAR_10, CIFAR_100)
"""The sets that `load` gives as images and `load_spikes` as one spike per pixel."""
