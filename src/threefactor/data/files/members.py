"""The files in a .zip or .tar.gz archive, one after the other; of which nothing is trusted.

`zipfile` reads the one kind. `tarfile` is used for the headers of the other alone: what it makes of
extended headers, sparse files and damaged entries depends on Python's version, and takes hours,
or any amount of memory, with archives made for that. A set of data needs none of it.
"""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from threefactor.data.files.safety import ADVICE, Bounded, Checks, open_file
from threefactor.errors import DataError

__all__ = ["LIMIT", "Readable", "members"]

LIMIT = 4 << 30
"""Bytes that may be unpacked from one archive, unless the caller says otherwise."""

LONGEST_HEADER = 1 << 16  # bytes of what a .tar file says of an entry, its name above all
LONGEST_DIRECTORY = 32 << 20  # bytes of the names and sizes in a .zip file, kept in memory

GZIP, ZIP = b"\x1f\x8b", b"PK"
ZIP_END, ZIP_END_WITHIN = b"PK\5\6", (1 << 16) + 22  # may be followed by a comment
TAR_BLOCK = 512
SPARSE = "a sparse file, which may be of any size; expected whole ones"
NAME_HEADERS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
PAX_HEADERS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
DAMAGE = (
    *(EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError),
    *(struct.error, LookupError, ValueError, ArithmeticError, NotImplementedError, RuntimeError),
)


class Readable(Protocol):
    """What of a file in an archive can be used."""

    def read(self, size: int = -1, /) -> bytes: ...


Member = tuple[PurePosixPath, Readable]


def members(
    archive: Path, limit: int = LIMIT, wanted: Collection[PurePosixPath] | None = None
) -> Iterator[Member]:
    """Yield the name and an open stream of each file in an archive, in its order.

    A stream must be read before the next one is asked for. Run to its end, the loop has read
    the archive as far as its own checksums reach.

    Args:
        archive: a .zip or .tar.gz file, known by its first bytes.
        limit: bytes that may be unpacked; each file counts as one block of the disk at least.
        wanted: names to yield, None for all; the names of the others are checked nevertheless.

    Raises:
        DataError: a name leads out of the archive's folder or occurs twice, an entry is neither
            a file nor a folder, the limit is passed, the archive is absent, damaged, or none;
            here or when a stream is read.
    """
    with _damage_named(archive), open_file(archive) as file:
        start = file.read(len(GZIP))
        file.seek(0)
        if start == ZIP:
            found = _zip_members(file, archive, limit, wanted)
        elif start == GZIP:
            found = _tar_members(Bounded(file, archive, limit), archive, wanted)
        else:
            raise DataError(
                f"{archive} begins with {start.hex(' ') or 'nothing'}; "
                f"expected {ZIP.hex(' ')} (.zip) or {GZIP.hex(' ')} (.tar.gz); {ADVICE}"
            )
        for name, stream in found:
            yield name, _Guarded(stream, archive)


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into a DataError."""
    try:
        yield
    except DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{archive} is damaged, or no .zip or .tar.gz archive ({reason}); {ADVICE}"
        ) from error
    except MemoryError as error:
        raise DataError(f"{archive} does not fit into memory; is it what it should be?") from error
    except OSError as error:
        if error.filename is None:  # a place in the archive that is none
            raise DataError(
                f"{archive} is damaged, or cannot be read ({error.strerror or error}); {ADVICE}"
            ) from error
        raise DataError(
            f"{archive} cannot be read ({error.strerror or error}); check the path and rights"
        ) from error


class _Guarded:
    """A stream whose errors are those of the archive, so that they differ from the writer's."""

    def __init__(self, stream: Readable, archive: Path) -> None:
        self.stream, self.archive = stream, archive

    def read(self, size: int = -1) -> bytes:
        with _damage_named(self.archive):
            return self.stream.read(size)


def _zip_members(
    file: IO[bytes], archive: Path, limit: int, wanted: Collection[PurePosixPath] | None
) -> Iterator[Member]:
    check = Checks(archive, limit)
    _check_directory(file, archive)
    with zipfile.ZipFile(file) as opened:
        entries = [(check.name(info.filename), info) for info in opened.infolist()]
        for name, info in entries:
            # Zip files made on Unix carry the type of an entry in the upper half; others have 0.
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                check.folder(name)
                continue
            check.kind(name, kind in (0, stat.S_IFREG))
            if wanted is None or name in wanted:
                check.size(info.file_size)
                check.method(name, info.compress_type)
                with opened.open(info) as stream:
                    yield name, stream


def _check_directory(file: IO[bytes], archive: Path) -> None:
    """Refuse a directory that `zipfile` would take gigabytes for, wherever its end is found."""
    file.seek(max(0, file.seek(0, io.SEEK_END) - ZIP_END_WITHIN))
    tail = file.read(ZIP_END_WITHIN)
    file.seek(0)
    place = tail.find(ZIP_END)
    while place >= 0:
        size = int.from_bytes(tail[place + 12 : place + 16], "little")
        if size > LONGEST_DIRECTORY:
            raise DataError(
                f"{archive} has a directory of {size:,} bytes; expected at most "
                f"{LONGEST_DIRECTORY:,}; nothing was unpacked: do not use this archive"
            )
        place = tail.find(ZIP_END, place + 1)


def _tar_members(
    stream: Bounded, archive: Path, wanted: Collection[PurePosixPath] | None
) -> Iterator[Member]:
    check = Checks(archive, stream.limit)
    said: dict[str, bytes] = {}  # what headers of their own say of the entry that follows
    while any(block := stream.exactly(TAR_BLOCK)):
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type in (*NAME_HEADERS, *PAX_HEADERS):
            said |= _header(info, stream)
            continue
        given = said["path"].decode(errors="surrogateescape") if "path" in said else info.name
        name, size, said = check.name(given), int(said.get("size", info.size)), {}
        if info.isdir():
            check.folder(name)
            continue
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(SPARSE)
        check.kind(name, info.isreg())
        if size < 0:
            raise tarfile.ReadError(f"{name} has {size} bytes")
        check.size(size)
        body = _Body(stream, size)
        if wanted is None or name in wanted:
            yield name, body
        stream.skip(body.left + -size % TAR_BLOCK)
    while stream.read(io.DEFAULT_BUFFER_SIZE):
        pass  # gzip compares its checksum at the end


class _Body:
    """The bytes of one file in a .tar file."""

    def __init__(self, stream: Bounded, size: int) -> None:
        self.stream, self.left = stream, size

    def read(self, size: int = -1) -> bytes:
        wanted = self.left if size < 0 else min(size, self.left)
        found = bytearray()
        while len(found) < wanted:
            part = self.stream.read(wanted - len(found))
            if not part:
                raise EOFError(f"it ends {self.left - len(found):,} bytes too early")
            found += part
        self.left -= len(found)
        return bytes(found)


def _header(info: tarfile.TarInfo, stream: Bounded) -> dict[str, bytes]:
    """Read what an entry that is no file says of the next: "path" and "size", or neither."""
    if not 0 <= info.size <= LONGEST_HEADER:
        raise tarfile.ReadError(
            f"a header of {info.size:,} bytes; expected at most {LONGEST_HEADER:,}"
        )
    body = stream.exactly(info.size)
    stream.skip(-info.size % TAR_BLOCK)
    if info.type in NAME_HEADERS:
        name = body.partition(b"\0")[0]
        return {"path": name} if info.type == tarfile.GNUTYPE_LONGNAME else {}
    found = _records(body)
    if any(key.startswith("GNU.sparse") for key in found):
        raise tarfile.ReadError(SPARSE)
    if info.type == tarfile.XGLTYPE and found.keys() & {"path", "size"}:
        raise tarfile.ReadError("a header that gives all files one name or size")
    return {key: found[key] for key in ("path", "size") if key in found}


def _records(body: bytes) -> dict[str, bytes]:
    """Take a pax header apart: records "LENGTH KEY=VALUE" and a new line, one after the other."""
    found, place = {}, 0
    while place < len(body):
        digits = body[place : place + 8].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = body[place : place + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not (equals and record.endswith(b"\n")):
            raise tarfile.ReadError("a header that is no list of names and values")
        found[key.decode(errors="replace")] = value
        place += length
    return found
