"""DVS128 Gesture as Tonic leaves it on disk: each sample cut out, a table of numbers in a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from threefactor.data.dataset import EventSet, Files
from threefactor.data.files.source import ADVICE, listed
from threefactor.data.formats.events import LARGEST_RECORDING, Events, make_events
from threefactor.data.formats.npy import read_npy
from threefactor.data.samples.recordings import Recording
from threefactor.data.sets.dvs_gesture import DVS_GESTURE
from threefactor.errors import DataError

__all__ = ["DVS_GESTURE_TONIC", "read_tonic_gesture"]

SAMPLE = re.compile(r"[0-9]{1,3}\.npy")
COLUMNS = ("x", "y", "polarity", "time")


def tonic_recordings(
    entry: EventSet, folders: Sequence[Path]
) -> tuple[list[Recording], list[Recording]]:
    """List the samples: FOLDER/user01_fluorescent/3.npy is one of class 3.

    Args:
        entry: the set, of which the number of classes is used.
        folders: ibmGestureTrain and ibmGestureTest.

    Raises:
        DataError: a folder has no samples, or a file has the number of no class.
    """
    train, test = (_samples(folder, len(entry.classes)) for folder in folders)
    return train, test


def _samples(folder: Path, classes: int) -> list[Recording]:
    found = []
    for person in sorted(one for one in listed(folder) if one.is_dir()):
        files = [one for one in listed(person) if SAMPLE.fullmatch(one.name)]
        for file in sorted(files, key=lambda one: int(one.stem)):
            if int(file.stem) >= classes:
                raise DataError(
                    f"{file} has the number of no class; expected 0 to {classes - 1}; {ADVICE}"
                )
            found.append(Recording(file, int(file.stem)))
    if not found:
        raise DataError(f"{folder} has no samples as user01_fluorescent/0.npy; {ADVICE}")
    return found


def read_tonic_gesture(
    path: str | Path, sensor_size: tuple[int, int] = (128, 128), sort: bool = False
) -> Events:
    """Read a sample: (N, 4) numbers, which are x, y, polarity, and milliseconds.

    Args:
        path: the file.
        sensor_size: (height, width).
        sort: sort events that run backwards in time; otherwise they are an error.

    Returns:
        (N,) events of type `EVENT`, times in microseconds from the first event.

    Raises:
        DataError: the file is absent, damaged, or holds something else.
    """
    table = read_npy(Path(path), LARGEST_RECORDING)
    if table.ndim != 2 or table.shape[1] != len(COLUMNS) or table.dtype.kind not in "iuf":
        raise DataError(
            f"{path} holds {table.dtype} of the shape {table.shape}; expected numbers, (N, 4): "
            f"{', '.join(COLUMNS)}; {ADVICE}"
        )
    values = table.astype(np.float64)
    whole = np.rint(values[:, :3])
    if not (np.isfinite(values).all() and (values[:, :3] == whole).all()):
        raise DataError(f"{path} has x, y or a polarity that is no whole number; {ADVICE}")
    if not np.isin(whole[:, 2], (0, 1)).all() or np.abs(values[:, 3]).max(initial=0) >= 2**43:
        raise DataError(f"{path} has a polarity besides 0 and 1, or a time too far; {ADVICE}")
    x, y = (whole[:, n].astype(np.int64) for n in (0, 1))
    t = np.rint(values[:, 3] * 1000).astype(np.int64)
    found = make_events(
        path, x, y, t, whole[:, 2] > 0, sensor_size=sensor_size, offset=lambda n: n, sort=sort
    )
    found["t"] -= found["t"][0]
    return found


DVS_GESTURE_TONIC = replace(
    DVS_GESTURE,
    name="dvs-gesture-tonic",
    title="DVS128 Gesture in the 1077 + 264 samples that Tonic offers",
    train=1077,
    test=264,
    homepage="https://tonic.readthedocs.io",
    files=Files(
        own_folders=("ibmGestureTrain", "ibmGestureTest"),
        elsewhere=("DVSGesture",),
        by_hand="tonic.datasets.DVSGesture(save_to=DATA FOLDER) downloads it; give --data-dir with "
        "that folder",
    ),
    recordings=tonic_recordings,
    read=read_tonic_gesture,
)
