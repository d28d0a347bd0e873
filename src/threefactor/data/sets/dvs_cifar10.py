"""The folders of DVS-CIFAR10, and the split that its authors left open."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from threefactor.data.files.source import ADVICE, listed
from threefactor.data.samples.recordings import Recording
from threefactor.errors import DataError

__all__ = ["cifar10_recordings", "held_out"]

PER_CLASS, PER_CLASS_TEST = 1000, 100


def held_out(label: int) -> frozenset[int]:
    """Return the numbers of the 100 recordings of a class, of its 1000, that are for testing.

    They are the first hundred of `numpy.random.RandomState(label).permutation(1000)`, whose
    numbers NumPy keeps as they are for ever: 9000 recordings for training and 1000 for testing,
    balanced. Recordings that follow one another resemble each other, so that a split into the
    first 900 and the last 100, also common, gives other accuracies.

    Example:
        >>> sorted(held_out(0))[:5], len(held_out(0))
        ([1, 14, 27, 31, 45], 100)
    """
    order = np.random.RandomState(label).permutation(PER_CLASS)
    return frozenset(order[:PER_CLASS_TEST].tolist())


def cifar10_recordings(
    folders: Sequence[Path], classes: Sequence[str]
) -> tuple[list[Recording], list[Recording]]:
    """List the recordings for training and for testing, class after class of each number.

    Args:
        folders: one of each class, which holds cifar10_CLASS_NUMBER.aedat, NUMBER from 0 to 999.
        classes: the names of the classes.

    Raises:
        DataError: a folder holds no recording, one of another name, or two of one number; or it
            cannot be read.
    """
    found = []
    for label, (folder, name) in enumerate(zip(folders, classes, strict=True)):
        testing = held_out(label)
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
            f"{path} is no recording of the set: expected cifar10_{name}_NUMBER.aedat with "
            f"NUMBER from 0 to {PER_CLASS - 1}, by which the sets for training and testing are "
            f"told apart; {ADVICE}"
        )
    return int(match[1])
