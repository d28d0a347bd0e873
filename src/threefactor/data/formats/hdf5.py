"""The three arrays of an HDF5 file of spikes, packed or not, read in a process of its own.

HDF5's C code crashes on some damaged files and reads others forever. So a child process reads them:
`hdf5_child.py`.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from threefactor.data.files.archives import LIMIT, members
from threefactor.data.files.source import ADVICE, Source, Unpacked, guess
from threefactor.data.formats.hdf5_child import NO_LIBRARY, REFUSED
from threefactor.errors import ConfigurationError, DataError

__all__ = ["Ragged", "read_arrays"]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK"
CHUNK = 1 << 20

SECONDS, BYTES_PER_SECOND = 3, 4 << 20
"""Processor time that reading may take, and the part of a file for which it gets a second more."""

WAITING = 20  # seconds that may pass for each of these, on a busy machine
MEMORY, MEMORY_PER_BYTE = 2 << 30, 2  # address space, on Linux, and for each byte of the file
CHILD_SETTINGS = {
    "HDF5_PLUGIN_PRELOAD": "::",  # no code that a file asks for
    "HDF5_USE_FILE_LOCKING": "FALSE",  # which fails on file systems of clusters
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class Ragged(NamedTuple):
    """Arrays of different lengths, one after the other: `values`, and N `lengths`."""

    values: NDArray[Any]
    lengths: NDArray[np.int64]


def read_arrays(path: Path) -> tuple[Ragged, Ragged, NDArray[Any]]:
    """Read the times, units and labels of a file in the layout of the SHD; see `read_shd_file`.

    Returns:
        N times, N units and the array of labels, all as they are in the file.

    Raises:
        ConfigurationError: h5py is not installed.
        DataError: the file is absent, damaged or of another layout, takes data from other files,
            or takes longer or more memory to read than one of its size should.
    """
    if importlib.util.find_spec("h5py") is None:
        raise _no_library()
    with tempfile.TemporaryDirectory(prefix="threefactor-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        _run_child(path, _unpacked(path, folder), folder)
        try:
            times, units = (
                Ragged(np.load(folder / f"{name}.npy"), np.load(folder / f"{name}_lengths.npy"))
                for name in ("times", "units")
            )
            return times, units, np.load(folder / "labels.npy")
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}); {ADVICE}") from error


def _no_library() -> ConfigurationError:
    return ConfigurationError(
        "reading HDF5 files needs h5py; install it with: pip install 'threefactor[data]'"
    )


def _unpacked(path: Path, folder: Path) -> Path:
    """Return the path of the HDF5 file, which is unpacked into a folder if need be."""
    with Source(path).open() as stream:
        start = stream.read(len(HDF5_MAGIC))
        if not start.startswith(ZIP_MAGIC) and start != HDF5_MAGIC:
            raise DataError(
                f"{path} is not an HDF5 file{guess(start)}: it begins with "
                f"{start.hex(' ') or 'nothing'}, expected {HDF5_MAGIC.hex(' ')}; {ADVICE}"
            )
        if start == HDF5_MAGIC and not isinstance(stream, Unpacked):
            return path
        try:
            with (folder / "unpacked.h5").open("xb") as target:
                _unpack(path, start, stream, target)
        except OSError as error:
            if error.filename == str(path):
                raise
            raise DataError(
                f"cannot unpack {path} into {folder}: {error.strerror or error}; free some "
                "space, set TMPDIR to another folder, or unpack it yourself"
            ) from error
    return folder / "unpacked.h5"


def _unpack(path: Path, start: bytes, stream: IO[bytes], target: IO[bytes]) -> None:
    if start.startswith(ZIP_MAGIC):
        found = 0
        for name, member in members(path):
            if name.suffix == ".h5":
                found += 1
                target.truncate(target.seek(0))
                target.writelines(member)
        if found != 1:
            raise DataError(f"{path} holds {found} files that end in .h5; expected one")
        return
    target.write(start)
    while chunk := stream.read(CHUNK):
        if target.tell() + len(chunk) > LIMIT:
            raise DataError(
                f"{path} unpacks to more than {LIMIT:,} bytes; is it what it should be?"
            )
        target.write(chunk)


def _run_child(path: Path, file: Path, folder: Path) -> None:
    size = os.path.getsize(file)
    seconds = SECONDS + size // BYTES_PER_SECOND
    try:
        code = child_code(file, folder, seconds, MEMORY + MEMORY_PER_BYTE * size)
    except subprocess.TimeoutExpired as error:
        raise _endless(path, seconds * WAITING) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: the process that reads HDF5 files does not start "
            f"({error.strerror or error}); close other programs"
        ) from error
    if code == NO_LIBRARY:
        raise _no_library()
    if code == REFUSED:
        reason = (folder / "refused").read_text(encoding="utf-8", errors="replace")
        raise DataError(f"{path}{reason}; {ADVICE}")
    if hasattr(signal, "SIGXCPU") and code == -signal.SIGXCPU:
        raise _endless(path, seconds)
    if code:
        raise DataError(
            f"{path} is a damaged HDF5 file (the process that read it ended with the code {code}); "
            f"{ADVICE}"
        )


def child_code(file: Path, folder: Path, seconds: int, memory: int) -> int:
    """Let a process read a file within limits; return its code at the end, or minus a signal."""
    script = Path(__file__).with_name("hdf5_child.py")
    command = [sys.executable, "-I", "-S", script, os.path.abspath(file), folder, seconds, memory]
    return subprocess.run(
        [str(each) for each in (*command, *filter(None, sys.path))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | CHILD_SETTINGS,
        timeout=seconds * WAITING,
        check=False,
    ).returncode


def _endless(path: Path, seconds: int) -> DataError:
    return DataError(
        f"{path} is a damaged HDF5 file (reading it had not ended after {seconds} seconds, far "
        f"more than a file of its size takes); {ADVICE}"
    )
