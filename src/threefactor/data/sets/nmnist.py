"""N-MNIST: MNIST's digits, recorded by an event camera that moves in three saccades."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from threefactor.data.arguments import given_path
from threefactor.data.dataset import DataFile, EventSet, Files
from threefactor.data.encode.framing import FrameSettings
from threefactor.data.files.source import ADVICE, Source, listed
from threefactor.data.formats.events import LARGEST_RECORDING, Events, make_events
from threefactor.data.samples.recordings import Recording
from threefactor.errors import DataError

__all__ = ["NMNIST", "read_nmnist_file"]

EVENT_BYTES = 5
MENDELEY = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files/"


def read_nmnist_file(
    path: str | Path, sensor_size: tuple[int, int] = (34, 34), sort: bool = False
) -> Events:
    """Read a recording of N-MNIST.

    An event has five bytes: column, row, then big-endian one bit of polarity (1 is ON) and 23
    bits of microseconds since the start of the recording.

    Args:
        path: a .bin file.
        sensor_size: (height, width), at most 256 each.
        sort: sort events that run backwards in time; otherwise they are an error.

    Returns:
        (N,) events with the fields x, y, t (microseconds), p; see `EVENT`.

    Raises:
        DataError: the file is absent, empty or cut short; or an event lies outside the sensor or
            runs backwards in time. Names the file and the offset.

    Source: G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor 2015, Converting Static Image Datasets
    to Spiking Neuromorphic Datasets Using Saccades, Frontiers in Neuroscience 9:437.
    """
    path = given_path(path)
    body = Source(path).read(LARGEST_RECORDING)
    whole, rest = divmod(len(body), EVENT_BYTES)
    if rest:
        raise DataError(
            f"{path} is cut short: after {whole} events of {EVENT_BYTES} bytes, {rest} bytes "
            f"are left at offset {whole * EVENT_BYTES}; {ADVICE}"
        )
    table = np.frombuffer(body, dtype=np.uint8).reshape(-1, EVENT_BYTES)
    x, y, high, middle, low = table.T.astype(np.int32)
    t = (high & 0x7F) << 16 | middle << 8 | low
    return make_events(
        *(path, x, y, t, high >> 7),
        sensor_size=sensor_size,
        offset=lambda row: row * EVENT_BYTES,
        sort=sort,
    )


def nmnist_recordings(
    entry: EventSet, folders: Sequence[Path]
) -> tuple[list[Recording], list[Recording]]:
    """List the recordings in the folders Train and Test, in the order of MNIST's images.

    Raises:
        DataError: a class has no folder or no recording, or a file is not named by a number of
            its own.
    """
    train, test = (_recordings(folder, len(entry.classes)) for folder in folders)
    return train, test


def _recordings(folder: Path, classes: int) -> list[Recording]:
    """List the recordings of a part: a folder 0, 1, ... for each class, with files NUMBER.bin.

    NUMBER is that of the image in MNIST, as 00002. Hidden files are passed over.
    """
    found = []
    for label in range(classes):
        place = folder / str(label)
        if not place.is_dir():
            raise DataError(
                f"{folder} has no folder {label!s}; expected one for each of the {classes} "
                f"classes; {ADVICE}"
            )
        paths = [path for path in listed(place) if path.suffix == ".bin"]
        if not paths:
            raise DataError(f"{place} holds no recordings, NUMBER.bin; {ADVICE}")
        found += [Recording(path, label) for path in paths]
    numbers: dict[int, Path] = {}
    for path in (recording.path for recording in found):
        if not (path.stem.isascii() and path.stem.isdigit()):
            raise DataError(f"{path} is not named by a number, as 00002.bin; {ADVICE}")
        other = numbers.setdefault(int(path.stem), path)
        if other != path:
            raise DataError(f"{other} and {path} are of the same image of MNIST; {ADVICE}")
    return sorted(found, key=lambda recording: int(recording.path.stem))


NMNIST = EventSet(
    name="nmnist",
    title="N-MNIST: MNIST's digits, seen by an event camera that moves in three saccades",
    shape=(2, 34, 34),
    train=60_000,
    test=10_000,
    classes=tuple("0123456789"),
    licence="CC BY-SA 4.0",
    source=(
        "G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor 2015, Converting Static Image Datasets to "
        "Spiking Neuromorphic Datasets Using Saccades, Frontiers in Neuroscience 9:437"
    ),
    references=("orchard2015nmnist",),
    homepage="https://www.garrickorchard.com/datasets/n-mnist",
    files=Files(
        (
            DataFile(
                "Train.zip",
                "20959b8e626244a1b502305a9e6e2031",
                folder="Train",
                url=f"{MENDELEY}39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
            ),
            DataFile(
                "Test.zip",
                "69ca8762b2fe404d9b9bad1103e97832",
                folder="Test",
                url=f"{MENDELEY}05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
            ),
        ),
        elsewhere=("NMNIST", "extract"),
    ),
    recordings=nmnist_recordings,
    read=read_nmnist_file,
    frames=FrameSettings(number=30, window=10_000),
)
