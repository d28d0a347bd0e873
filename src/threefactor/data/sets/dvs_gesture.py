"""The folder of DVS128 Gesture: recordings, their tables of labels, the two lists of the split."""

from __future__ import annotations

import os
import re
from pathlib import Path

from threefactor.data.files.source import ADVICE, Source
from threefactor.data.samples.recordings import Recording
from threefactor.errors import DataError

__all__ = ["gesture_recordings", "read_label_table", "read_trials"]

LARGEST_TABLE = 16 << 20  # bytes
LATEST = 1 << 62  # microseconds
HEADER = "class,startTime_usec,endTime_usec"
ROW = re.compile(r"\s*([0-9]{1,20})\s*,\s*([0-9]{1,20})\s*,\s*([0-9]{1,20})\s*")


def gesture_recordings(folder: Path, trials: str, classes: int) -> list[Recording]:
    """List the samples of one part of DVS128 Gesture, in the order of its list and tables.

    Args:
        folder: DvsGesture, which holds the recordings, their tables and both lists.
        trials: the list, trials_to_train.txt or trials_to_test.txt.
        classes: the number of classes.

    Raises:
        DataError: a list or table is absent or damaged, or names a file that is not there.
    """
    samples = []
    for path in read_trials(folder / trials):
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
    """Read when which gesture was made in a recording.

    The first line is a header, each further one: class from 1 on, start, end in microseconds.

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
        raise DataError(f"{path} is no text, at offset {error.start}; {ADVICE}") from error
