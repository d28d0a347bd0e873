"""Go through the files of a zip or .tar.gz archive, of which nothing is trusted."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from threefactor.errors import DataError

__all__ = ["ADVICE", "LIMIT", "members", "reading"]

LIMIT = 4 << 30
"""Bytes that may be unpacked from one archive, unless the caller says otherwise."""

BLOCK = 4096  # bytes that a file takes on disk at least, so that many empty files count as well
GZIP, ZIP = b"\x1f\x8b", b"PK"
ADVICE = "delete it and fetch the data set again, or put an intact copy in its place"
DAMAGE = (
    *(EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError),
    *(struct.error, ValueError, OverflowError, NotImplementedError, RuntimeError),
)

Member = tuple[PurePosixPath, IO[bytes]]


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
            a file nor a folder, the limit is passed, or this is no such archive. Damage is
            raised as the error of the module that found it; see `reading`.
    """
    with archive.open("rb") as file:
        start = file.read(len(GZIP))
        file.seek(0)
        if start == ZIP:
            yield from _zip_members(file, archive, limit, wanted)
        elif start == GZIP:
            yield from _tar_members(_Bounded(file, archive, limit), archive, wanted)
        else:
            raise DataError(
                f"{archive} begins with {start.hex(' ') or 'nothing'}; "
                f"expected {ZIP.hex(' ')} (.zip) or {GZIP.hex(' ')} (.tar.gz); {ADVICE}"
            )


@contextmanager
def reading(archive: Path, writes: bool = True) -> Iterator[None]:
    """Turn what a damaged archive raises into a DataError.

    Args:
        archive: named in the message.
        writes: if files are written meanwhile, whose errors pass as they are.
    """
    try:
        yield
    except DAMAGE as error:
        raise DataError(
            f"{archive} is damaged, or no .zip or .tar.gz archive ({error}); {ADVICE}"
        ) from error
    except MemoryError as error:
        raise DataError(f"{archive} does not fit into memory; is it what it should be?") from error
    except OSError as error:
        if writes and error.filename != str(archive):
            raise
        raise DataError(
            f"{archive} cannot be read ({error.strerror or error}); check the path and rights"
        ) from error


def _zip_members(
    file: IO[bytes], archive: Path, limit: int, wanted: Collection[PurePosixPath] | None
) -> Iterator[Member]:
    check = _Check(archive, limit)
    with zipfile.ZipFile(file) as opened:
        entries = [(check.name(info.filename), info) for info in opened.infolist()]
        for name, info in entries:
            # Zip files made on Unix carry the type of an entry in the upper half; others have 0.
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                continue
            check.kind(name, kind in (0, stat.S_IFREG))
            if wanted is None or name in wanted:
                check.size(info.file_size)
                check.method(name, info.compress_type)
                with opened.open(info) as stream:
                    yield name, stream


def _tar_members(
    stream: _Bounded, archive: Path, wanted: Collection[PurePosixPath] | None
) -> Iterator[Member]:
    check = _Check(archive, stream.limit)
    # A pipe is never rewound: each byte is unpacked once, and counted once.
    with tarfile.open(fileobj=stream, mode="r|") as opened:  # type: ignore[call-overload]
        for info in opened:
            name = check.name(info.name)
            if info.isdir():
                continue
            check.kind(name, info.isreg())
            if wanted is None or name in wanted:
                check.size(info.size)
                member = opened.extractfile(info)
                assert member is not None, "a regular file has contents"
                yield name, member
    while stream.read(io.DEFAULT_BUFFER_SIZE):
        pass  # gzip compares its checksum at the end


class _Check:
    """What an archive may hold, entry by entry."""

    def __init__(self, archive: Path, limit: int) -> None:
        self.archive, self.limit = archive, limit
        self.seen: set[str] = set()
        self.total = 0

    def name(self, given: str) -> PurePosixPath:
        path = PurePosixPath(given)
        outside = path.is_absolute() or ".." in path.parts or PureWindowsPath(given).drive
        if outside or "\\" in given or "\0" in given:
            raise DataError(
                f"{self.archive} holds the name {given!r}, which leads out of its folder; "
                "nothing was unpacked: do not use this archive"
            )
        return path

    def kind(self, name: PurePosixPath, regular: bool) -> None:
        folded = str(name).casefold()
        if not regular or folded in self.seen:
            fault = "twice" if regular else "as a link or device"
            raise DataError(
                f"{self.archive} holds {name} {fault}; nothing was unpacked: "
                "do not use this archive"
            )
        self.seen.add(folded)

    def method(self, name: PurePosixPath, given: int) -> None:
        if given not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{self.archive} holds {name} compressed by method {given}; expected 0 (stored) "
                "or 8 (deflated), as data sets are published: pack it anew"
            )

    def size(self, given: int) -> None:
        self.total += max(given, BLOCK)
        if self.total > self.limit:
            raise _too_large(self.archive, self.limit)


class _Bounded:
    """A gzip file, unpacked, that ends in an error after `limit` bytes."""

    def __init__(self, file: IO[bytes], archive: Path, limit: int) -> None:
        self.stream = gzip.GzipFile(fileobj=file)
        self.archive, self.limit = archive, limit
        self.count = 0

    def read(self, size: int) -> bytes:
        part = self.stream.read(size)
        self.count += len(part)
        if self.count > self.limit:
            raise _too_large(self.archive, self.limit)
        return part


def _too_large(archive: Path, limit: int) -> DataError:
    return DataError(
        f"{archive} would unpack to more than {limit:,} bytes, far more than the data set; "
        "nothing was unpacked: do not use this archive"
    )
