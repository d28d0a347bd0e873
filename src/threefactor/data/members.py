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
from pathlib import Path, PurePosixPath
from typing import IO

from threefactor.data.safety import ADVICE, Bounded, Checks
from threefactor.errors import DataError

__all__ = ["LIMIT", "members", "reading"]

LIMIT = 4 << 30
"""Bytes that may be unpacked from one archive, unless the caller says otherwise."""

LONGEST_HEADER = 1 << 20
"""Bytes of what a .tar file says of an entry, its name above all, which is read at once."""

GZIP, ZIP = b"\x1f\x8b", b"PK"
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
            yield from _tar_members(Bounded(file, archive, limit), archive, wanted)
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
    check = Checks(archive, limit)
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


class _Header(tarfile.TarInfo):
    """An entry that is no file of its own, but says something of the next, has to be short."""

    OF_OTHERS = (
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    )

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in cls.OF_OTHERS and header.size > LONGEST_HEADER:
            raise tarfile.ReadError(
                f"a header of {header.size:,} bytes; expected at most {LONGEST_HEADER:,}"
            )
        return header


def _tar_members(
    stream: Bounded, archive: Path, wanted: Collection[PurePosixPath] | None
) -> Iterator[Member]:
    check = Checks(archive, stream.limit)
    # A pipe is never rewound: each byte is unpacked once, and counted once.
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as opened:  # type: ignore[call-overload]
        for info in opened:
            name = check.name(info.name)
            if info.isdir():
                check.folder(name)
                continue
            check.kind(name, info.isreg())
            if wanted is None or name in wanted:
                check.size(info.size)
                member = opened.extractfile(info)
                assert member is not None, "a regular file has contents"
                yield name, member
    while stream.read(io.DEFAULT_BUFFER_SIZE):
        pass  # gzip compares its checksum at the end
