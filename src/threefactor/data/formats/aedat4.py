"""AEDAT 4, the format of iniVation's cameras, read with the library aedat in a child process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from threefactor.data.arguments import given_path
from threefactor.data.files.source import ADVICE, open_file
from threefactor.data.formats.aedat4_child import NO_LIBRARY, REFUSED
from threefactor.data.formats.events import EVENT, LARGEST_RECORDING, Events, make_events
from threefactor.errors import ConfigurationError, DataError

__all__ = ["read_aedat4"]

MAGIC = b"#!AER-DAT4"
MOST_EVENTS = LARGEST_RECORDING // EVENT.itemsize
SECONDS, BYTES_PER_SECOND = 20, 1 << 20
LATEST = 1 << 62  # microseconds


def read_aedat4(
    path: str | Path, sensor_size: tuple[int, int] = (1 << 15, 1 << 15), sort: bool = False
) -> Events:
    """Read the events of an AEDAT 4 file; pictures and other streams in it are left out.

    Args:
        path: the file, with one stream of events.
        sensor_size: (height, width).
        sort: sort events that run backwards in time; otherwise they are an error.

    Raises:
        ConfigurationError: the library aedat is not installed.
        DataError: the file is absent or damaged, has no events or several streams of them, or an
            event lies outside the sensor.
    """
    place = given_path(path)
    try:
        with open_file(place) as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise DataError(
            f"{place} cannot be read ({error.strerror or error}); check the path and rights"
        ) from error
    if start != MAGIC:
        raise DataError(f"{place} does not begin with {MAGIC.decode()}; {ADVICE}")
    with tempfile.TemporaryDirectory(prefix="threefactor-") as folder:
        out = Path(folder) / "events.npy"
        _run_child(place, out)
        found = np.load(out, allow_pickle=False)
    if int(found["t"].max()) >= LATEST:
        raise DataError(f"{place} has an event at {found['t'].max()} us; {ADVICE}")
    return make_events(
        place,
        found["x"],
        found["y"],
        found["t"].astype(np.int64),
        found["p"],
        sensor_size=sensor_size,
        offset=lambda event: event,
        sort=sort,
    )


def _run_child(place: Path, out: Path) -> None:
    """Let a process read the file, which damage may end."""
    seconds = SECONDS + place.stat().st_size // BYTES_PER_SECOND
    script = Path(__file__).with_name("aedat4_child.py")
    command = [sys.executable, "-I", "-S", script, os.path.abspath(place), out, MOST_EVENTS]
    try:
        ended = subprocess.run(
            [str(each) for each in (*command, seconds, *filter(None, sys.path))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=3 * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as problem:
        raise DataError(
            f"{place} is a damaged AEDAT 4 file (reading it took too long); {ADVICE}"
        ) from problem
    except OSError as problem:
        raise DataError(
            f"{place} cannot be read: the process that reads AEDAT 4 does not start "
            f"({problem.strerror or problem}); close other programs"
        ) from problem
    if ended.returncode == NO_LIBRARY:
        raise ConfigurationError(
            f"{place} is AEDAT 4, which needs aedat: pip install 'threefactor[aedat4]'; "
            "or convert it, as with dv-processing, to .npy files of structured arrays with the "
            "fields x, y, t and p"
        )
    if ended.returncode == REFUSED:
        raise DataError(f"{place} {ended.stdout.decode(errors='replace')[:300]}; {ADVICE}")
    if ended.returncode:
        raise DataError(
            f"{place} is a damaged AEDAT 4 file (the process that read it ended with the code "
            f"{ended.returncode}); {ADVICE}"
        )
