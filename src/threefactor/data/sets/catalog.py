"""The data sets that the library knows, by name."""

from __future__ import annotations

from threefactor.data.dataset import DataSet, ImageSet
from threefactor.data.sets.cifar import CIFAR_10, CIFAR_100
from threefactor.data.sets.digits import DIGITS
from threefactor.data.sets.dvs_cifar10 import DVS_CIFAR10
from threefactor.data.sets.dvs_gesture import DVS_GESTURE
from threefactor.data.sets.dvs_gesture_tonic import DVS_GESTURE_TONIC
from threefactor.data.sets.imagenet import IMAGENET
from threefactor.data.sets.mnist import EMNIST_BALANCED, FASHION_MNIST, MNIST
from threefactor.data.sets.nmnist import NMNIST
from threefactor.data.sets.shd import SHD, SHD_LIKE
from threefactor.data.sets.simulated import simulated
from threefactor.data.sets.yin_yang import YIN_YANG
from threefactor.errors import ConfigurationError, unknown_name

__all__ = ["DATASETS", "lookup"]

SETS: tuple[DataSet, ...] = (
    *(DIGITS, MNIST, FASHION_MNIST, EMNIST_BALANCED, CIFAR_10, CIFAR_100),
    IMAGENET,
    *(SHD, SHD_LIKE, YIN_YANG),
    *(NMNIST, DVS_GESTURE, DVS_GESTURE_TONIC, DVS_CIFAR10),
)

DATASETS: dict[str, DataSet] = {
    entry.name: entry
    for entry in (*SETS, *(simulated(each) for each in SETS if isinstance(each, ImageSet)))
}
"""All known data sets by name."""


def lookup(name: str) -> DataSet:
    """Return the description of a data set.

    Raises:
        ConfigurationError: there is no data set of this name.
    """
    if not isinstance(name, str):
        raise ConfigurationError(
            f"{name!r} is not the name of a data set; give a string, such as 'mnist'"
        )
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]
