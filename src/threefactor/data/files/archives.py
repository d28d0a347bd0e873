"""Take files out of .zip and .tar.gz archives, whatever else these hold.

Nothing is written outside the folder that the caller names, nothing above a limit is unpacked,
and a file gets its name only once the whole archive has been read and checked. An archive is
refused as a whole if one of its names leads out of the folder, or if it holds a link or a device.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from threefactor.data.files.members import LIMIT, Readable, members
from threefactor.data.files.safety import LARGEST
from threefactor.errors import DataError

__all__ = ["LIMIT", "read_member", "read_members", "unpack_files", "unpack_tree"]

CHUNK = 1 << 20
PREFIX = ".unpacking-"


def read_member(archive: Path, name: str, limit: int = LARGEST) -> bytes:
    """Return the contents of one file in an archive, without writing anything.

    Args:
        archive: a .zip or .tar.gz file.
        name: the full name in the archive, as "gzip/file".
        limit: bytes that may be unpacked.

    Raises:
        DataError: the archive is absent, damaged, unsafe or above the limit, or has no such file.
    """
    return read_members(archive, [name], limit)[0]


def read_members(archive: Path, names: Sequence[str], limit: int = LARGEST) -> list[bytes]:
    """Return the contents of some files in an archive, which is gone through once.

    Args:
        archive, limit: as in `read_member`.
        names: full names in the archive.

    Returns:
        The contents in the order of `names`.

    Raises:
        DataError: as in `read_member`.
    """
    found = {name: stream.read() for name, stream in _chosen(archive, names, limit)}
    return [found[PurePosixPath(name)] for name in names]


def unpack_files(
    archive: Path, names: Sequence[str], folder: Path, limit: int = LIMIT
) -> list[Path]:
    """Unpack some files of an archive, side by side, into a folder.

    Files of the same name and contents that are in the folder already are left alone.

    Args:
        archive: a .zip or .tar.gz file.
        names: full names in the archive; the last parts become the names in the folder.
        folder: where the files go; made if it is not there.
        limit: bytes that may be unpacked.

    Returns:
        The paths of the files, in the order of `names`.

    Raises:
        DataError: the archive is absent, damaged, unsafe or above the limit, or lacks a file;
            or a file of that name with other contents is there, which is left untouched.
        OSError: the folder cannot be written to.
    """
    paths = [folder / PurePosixPath(name).name for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder) as temporary:
        for name, stream in _chosen(archive, names, limit):
            _write(stream, Path(temporary) / name.name)
        new = [path for path in paths if not _same(Path(temporary) / path.name, path)]
        for path in new:
            os.replace(Path(temporary) / path.name, path)
    return paths


def unpack_tree(archive: Path, folder: Path, limit: int = LIMIT) -> Path:
    """Unpack a whole archive into a new folder, which appears only when it is complete.

    Args:
        archive: a .zip or .tar.gz file.
        folder: the new folder; the one above it is made if it is not there.
        limit: bytes that may be unpacked.

    Returns:
        The folder.

    Raises:
        DataError: the archive is absent, damaged, unsafe or above the limit; or something is
            at `folder` already, which is left untouched.
        OSError: the folder cannot be written to.
    """
    if folder.exists():
        raise DataError(f"{folder} is there already; it was left untouched: delete or rename it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder.parent) as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        for name, stream in members(archive, limit):
            path = whole / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(stream, path)
        os.rename(whole, folder)
    return folder


def _chosen(
    archive: Path, names: Sequence[str], limit: int
) -> Iterator[tuple[PurePosixPath, Readable]]:
    wanted = {PurePosixPath(name) for name in names}
    for name, stream in members(archive, limit, wanted):
        wanted.discard(name)
        yield name, stream
    if wanted:
        raise DataError(
            f"{archive} holds no {', '.join(sorted(map(str, wanted)))}; is it another archive? "
            "Expected the published one"
        )


def _write(stream: Readable, path: Path) -> None:
    with path.open("xb") as file:
        shutil.copyfileobj(stream, file, CHUNK)


def _same(fresh: Path, path: Path) -> bool:
    """Tell whether `path` holds what was unpacked; refuse to replace anything else."""
    if not os.path.lexists(path):
        return False
    if path.is_file() and filecmp.cmp(fresh, path, shallow=False):
        return True
    raise DataError(
        f"{path} is there already but differs from the file in the archive. It was left "
        "untouched; delete it, or name another folder"
    )
