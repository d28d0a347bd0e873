"""DVS128 Gesture: hand and arm gestures, in recordings with tables of labels."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from threefactor.data.dataset import DataFile, EventSet, Files
from threefactor.data.encode.framing import FrameSettings
from threefactor.data.files.source import ADVICE, Source
from threefactor.data.formats.aedat import read_aedat3
from threefactor.data.samples.recordings import Recording
from threefactor.errors import DataError

__all__ = ["DVS_GESTURE", "listed_recordings", "read_label_table", "read_trials"]

LARGEST_TABLE = 16 << 20  # bytes
LATEST = 1 << 62  # microseconds
HEADER = "class,startTime_usec,endTime_usec"
ROW = re.compile(r"\s*([0-9]{1,20})\s*,\s*([0-9]{1,20})\s*,\s*([0-9]{1,20})\s*")


def gesture_recordings(
    entry: EventSet, folders: Sequence[Path]
) -> tuple[list[Recording], list[Recording]]:
    """List the samples for training and for testing, in the order of their lists and tables.

    Args:
        entry: the set, of which the number of classes is used.
        folders: only DvsGesture. It holds the recordings, their tables of labels, and the lists
            trials_to_train.txt and trials_to_test.txt.

    Raises:
        DataError: a list or table is absent or damaged, or names a file that is not there; or both
            lists name one recording.
    """
    (folder,) = folders
    train, test = (
        listed_recordings(folder / f"trials_to_{part}.txt", len(entry.classes))
        for part in ("train", "test")
    )
    both = {sample.path for sample in train} & {sample.path for sample in test}
    if both:
        raise DataError(
            f"{folder / 'trials_to_train.txt'} names {min(both).name} for training, and "
            f"trials_to_test.txt for testing; {ADVICE}"
        )
    return train, test


def listed_recordings(trials: Path, classes: int) -> list[Recording]:
    """List the samples of the recordings that a list names, in the order of list and tables.

    Raises:
        DataError: the list or a table is absent or damaged, or names a file that is not there.
    """
    samples: list[Recording] = []
    for path in read_trials(trials):
        table = path.with_name(f"{path.stem}_labels.csv")
        samples += [
            Recording(path, label, start, stop, f"row {row} of {table}")
            for row, (label, start, stop) in enumerate(read_label_table(table, classes), 2)
        ]
    return samples


def read_trials(path: Path) -> list[Path]:
    """Read a list of recordings, one file name a line, all in the folder of the list.

    Raises:
        DataError: the list is absent or empty, or names a recording twice, or one that is not
            there or whose table of labels is not; names the line.
    """
    found: list[Path] = []
    for row, line in enumerate(_lines(path), 1):
        name = line.strip()
        if not name:
            continue
        recording = path.parent / name
        if Path(name).name != name:
            raise DataError(
                f"{path}: row {row} names {name[:60]}; expected a file beside this list; {ADVICE}"
            )
        for needed in (recording, recording.with_name(f"{recording.stem}_labels.csv")):
            # Unlike Path.is_file, this is False, not an error, of names that cannot be.
            if not os.path.isfile(needed):
                raise DataError(
                    f"{path}: row {row} names {name[:60]}, but {needed.name[:80]} is not there; "
                    f"{ADVICE}"
                )
        if recording in found:
            raise DataError(
                f"{path}: row {row} names {name[:60]} for the second time, so that its samples "
                f"would count twice; {ADVICE}"
            )
        found.append(recording)
    if not found:
        raise DataError(f"{path} names no recordings; {ADVICE}")
    return found


def read_label_table(path: Path, classes: int = 11) -> list[tuple[int, int, int]]:
    """Read the table of a recording: which gesture was made from when to when.

    The first line is a header. Each further line has a class, counted from 1, and a start and an
    end in microseconds.

    Returns:
        Class counted from 0, start and end of each sample, in the order of the table. Samples
        may overlap, as a few do in the published tables.

    Raises:
        DataError: the table is absent or empty, or has another header or a row without meaning;
            names the row.
    """
    header, *lines = _lines(path)
    if header.strip().replace(" ", "") != HEADER:
        raise DataError(f"{path}: row 1 is {header[:60]!r}; expected {HEADER!r}; {ADVICE}")
    rows = [_row(path, row, line, classes) for row, line in enumerate(lines, 2) if line.strip()]
    if not rows:
        raise DataError(f"{path} has no rows below its header; {ADVICE}")
    return rows


def _row(path: Path, row: int, line: str, classes: int) -> tuple[int, int, int]:
    match = ROW.fullmatch(line)  # `int` alone would take 1_0 for ten
    label, start, stop = map(int, match.groups()) if match else (0, 0, 0)
    if not (1 <= label <= classes and 0 <= start < stop < LATEST):
        raise DataError(
            f"{path}: row {row} is {line[:60]!r}; expected a class from 1 to {classes}, "
            f"a start and a later end in microseconds; {ADVICE}"
        )
    return label - 1, start, stop


def _lines(path: Path) -> list[str]:
    body = Source(path).read(LARGEST_TABLE)
    try:
        return body.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text, at offset {error.start}; {ADVICE}") from error


DVS_GESTURE = EventSet(
    name="dvs-gesture",
    title="DVS128 Gesture: hand and arm gestures of 29 people under three lights",
    shape=(2, 128, 128),
    train=1176,
    test=288,
    classes=(
        *("hand clapping", "right hand wave", "left hand wave"),
        *("right arm clockwise", "right arm counter clockwise"),
        *("left arm clockwise", "left arm counter clockwise"),
        *("arm roll", "air drums", "air guitar", "other gestures"),
    ),
    licence="CC BY 4.0",
    source=(
        "A. Amir, B. Taba, D. Berg, T. Melano et al. 2017, A Low Power, Fully Event-Based Gesture "
        "Recognition System, CVPR 2017, 7388-7397"
    ),
    references=("amir2017gesture",),
    homepage="https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8",
    files=Files(
        (DataFile("DvsGesture.tar.gz", "8a5c71fb11e24e5ca5b11866ca6c00a1", folder="DvsGesture"),),
        elsewhere=("extract",),
    ),
    recordings=gesture_recordings,
    read=read_aedat3,
    frames=FrameSettings(number=20, size=(48, 48)),
)
