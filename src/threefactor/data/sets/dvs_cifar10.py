"""DVS-CIFAR10: images of CIFAR-10, moved before an event camera, and a split of our own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from threefactor.data.dataset import DataFile, EventSet, Files
from threefactor.data.encode.framing import FrameSettings
from threefactor.data.files.source import ADVICE, listed
from threefactor.data.formats.aedat import read_aedat2
from threefactor.data.samples.augmented import Augmentation
from threefactor.data.samples.recordings import Recording
from threefactor.errors import DataError

__all__ = ["DVS_CIFAR10", "numbers_for_testing"]

PER_CLASS, PER_CLASS_TEST = 1000, 100
FIGSHARE = "https://ndownloader.figshare.com/files/"
# Name of the class, number of its archive on figshare, MD5 sum.
ARCHIVES = (
    ("airplane", 7712788, "0afd5c4bf9ae06af762a77b180354fdd"),
    ("automobile", 7712791, "8438dfeba3bc970c94962d995b1b9bdd"),
    ("bird", 7712794, "a9c207c91c55b9dc2002dc21c684d785"),
    ("cat", 7712812, "52c63c677c2b15fa5146a8daf4d56687"),
    ("deer", 7712815, "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
    ("dog", 7712818, "f379ebdf6703d16e0a690782e62639c3"),
    ("frog", 7712842, "cad6ed91214b1c7388a5f6ee56d08803"),
    ("horse", 7712851, "e7cbbf77bec584ffbf913f00e682782a"),
    ("ship", 7712836, "41c7bd7d6b251be82557c6cce9a7d5c9"),
    ("truck", 7712839, "89f3922fd147d9aeff89e76a2b0b70a7"),
)


def numbers_for_testing(label: int) -> frozenset[int]:
    """Return the numbers of the 100 recordings of a class, of its 1000, that are for testing.

    They are the first hundred of `numpy.random.RandomState(label).permutation(1000)`, whose
    numbers NumPy guarantees never to change: 9000 recordings for training and 1000 for testing,
    balanced. Recordings that follow one another resemble each other, so that a split into the
    first 900 and the last 100, also common, gives other accuracies.

    Example:
        >>> sorted(numbers_for_testing(0))[:5], len(numbers_for_testing(0))
        ([1, 14, 27, 31, 45], 100)
    """
    order = np.random.RandomState(label).permutation(PER_CLASS)
    return frozenset(order[:PER_CLASS_TEST].tolist())


def cifar10_recordings(
    entry: EventSet, folders: Sequence[Path]
) -> tuple[list[Recording], list[Recording]]:
    """List the recordings for training and for testing, number after number, class after class.

    Args:
        entry: the set, of which the names of the classes are used.
        folders: one of each class, which holds cifar10_CLASS_NUMBER.aedat, NUMBER from 0 to 999.

    Raises:
        DataError: a folder holds no recording, one of another name, or two of one number; or it
            cannot be read.
    """
    found = []
    for label, (folder, name) in enumerate(zip(folders, entry.classes, strict=True)):
        testing = numbers_for_testing(label)
        paths = [path for path in listed(folder) if path.suffix == ".aedat"]
        if not paths:
            raise DataError(f"{folder} holds no recordings, cifar10_{name}_NUMBER.aedat; {ADVICE}")
        numbers: dict[int, Path] = {}
        for path in paths:
            number = _number(path, name)
            if numbers.setdefault(number, path) != path:
                raise DataError(f"{numbers[number]} and {path} are of the same number; {ADVICE}")
            found.append((number in testing, number, Recording(path, label)))
    found.sort(key=lambda item: (item[1], item[2].label))
    train, test = ([item[2] for item in found if item[0] is part] for part in (False, True))
    return train, test


def _number(path: Path, name: str) -> int:
    match = re.fullmatch(rf"cifar10_{name}_(\d+)\.aedat", path.name)
    if not match or int(match[1]) >= PER_CLASS:
        raise DataError(
            f"{path} is not a recording of the set: expected cifar10_{name}_NUMBER.aedat with "
            f"NUMBER from 0 to {PER_CLASS - 1}, by which the sets for training and testing are "
            f"told apart; {ADVICE}"
        )
    return int(match[1])


DVS_CIFAR10 = EventSet(
    name="dvs-cifar10",
    title="DVS-CIFAR10 (CIFAR10-DVS): images of CIFAR-10, moved before an event camera",
    shape=(2, 128, 128),
    train=9000,
    test=1000,
    classes=tuple(name for name, _, _ in ARCHIVES),
    licence="CC BY 4.0",
    source=(
        "H. Li, H. Liu, X. Ji, G. Li, L. Shi 2017, CIFAR10-DVS: An Event-Stream Dataset for Object "
        "Classification, Frontiers in Neuroscience 11:309"
    ),
    references=("li2017cifar10dvs",),
    homepage="https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
    files=Files(
        tuple(
            DataFile(f"{name}.zip", md5, folder=name, url=f"{FIGSHARE}{number}")
            for name, number, md5 in ARCHIVES
        ),
        elsewhere=("extract",),
    ),
    recordings=cifar10_recordings,
    read=read_aedat2,
    frames=FrameSettings(number=10, size=(48, 48)),
    normalise=True,
    augmentation=Augmentation(padding=4),
)
