"""Open one file that may be anything, and read no more of it than such files have.

A FIFO would block its reader forever, and a device may never end. A small compressed file may
unpack to more than any memory holds.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from threefactor.errors import DataError

__all__ = ["ADVICE", "LARGEST", "Source", "Unpacked", "guess", "listed", "open_file"]

LARGEST = 1 << 30
"""Bytes that a file may have, unpacked, which is read into memory as a whole."""

ADVICE = "put an intact copy in its place; if downloaded, delete it and fetch the data set again"
GZIP_MAGIC = b"\x1f\x8b"
KINDS = {b"<": "a web page", b"vers": "a Git LFS pointer", b"PK": "a zip archive"}
CHUNK = 1 << 20
PACKED_CHUNK = 1 << 13  # small, as what is left of it is copied at the end of each gzip member
MOST_PADDING = 1 << 20  # zeros after a gzip member


@dataclass(frozen=True)
class Source:
    """A file to read, compressed by gzip or not.

    Args:
        path: the file.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open for reading; a gzip-compressed file, known by its first bytes, is unpacked.

        Raises:
            DataError: the file is absent, unreadable or damaged, there or on a later read.
        """
        try:
            with self._raw() as file:
                packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
                file.seek(0)
                yield Unpacked(file) if packed else file
        except (EOFError, zlib.error) as error:
            raise DataError(f"{self} is a damaged gzip file ({error}); {ADVICE}") from error
        except MemoryError as error:
            raise DataError(f"{self} does not fit into memory; close other programs") from error
        except OSError as error:
            reason = error.strerror or error
            raise DataError(
                f"{self} cannot be read ({reason}); check the path and rights"
            ) from error

    def read(self, limit: int = LARGEST) -> bytearray:
        """Return the contents, unpacked.

        Args:
            limit: the most bytes that may come.

        Raises:
            DataError: as of `open`; or there is more than `limit`, which is not read.
        """
        body = bytearray()
        with self.open() as stream:
            while chunk := stream.read(min(CHUNK, limit + 1 - len(body))):
                body += chunk
                if len(body) > limit:
                    raise DataError(
                        f"{self} has more than {limit:,} bytes, unpacked, far more than such files "
                        f"have; is it what it should be? Otherwise {ADVICE}"
                    )
        return body

    def _raw(self) -> IO[bytes]:
        return open_file(self.path)


def open_file(path: str | Path) -> IO[bytes]:
    """Open a regular file for reading.

    Raises:
        OSError: the file is absent or unreadable, its name is impossible, or it is a folder, FIFO,
            socket or device.
    """
    try:
        _check_regular(os.stat(path).st_mode, path)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except ValueError as error:  # NUL, or characters that no file name has
        raise OSError(errno.EINVAL, f"no name of a file: {error}", str(path)) from error
    try:
        _check_regular(os.fstat(file.fileno()).st_mode, path)  # it may have been exchanged
    except OSError:
        file.close()
        raise
    return file


def _check_regular(mode: int, path: str | Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a FIFO, socket or device and no file", str(path))


class Unpacked(io.BufferedReader):
    """A gzip file, unpacked as it is read.

    Python's `gzip` reads long names in headers, and zeros after the end, byte by byte, which takes
    minutes. Here zlib reads the former, and the latter are bounded.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(_Members(file))


class _Members(io.RawIOBase):
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.rest = b""  # read, and not yet unpacked
        self.member = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.member.eof or self._another():
            packed = self.rest or self.file.read(PACKED_CHUNK)
            found = self.member.decompress(packed, len(buffer))
            self.rest = self.member.unused_data or self.member.unconsumed_tail
            if found:
                buffer[: len(found)] = found
                return len(found)
            if not packed and not self.member.eof:
                raise EOFError("it ends before its end was marked")
        return 0

    def _another(self) -> bool:
        """Begin the next member, if there is one behind the zeros that may follow one."""
        zeros = 0
        while not (rest := self.rest.lstrip(b"\0")):
            zeros += len(self.rest)
            if zeros > MOST_PADDING:
                raise zlib.error(f"more than {MOST_PADDING:,} zeros follow its end")
            self.rest = self.file.read(PACKED_CHUNK)
            if not self.rest:
                return False
        self.rest, self.member = rest, zlib.decompressobj(zlib.MAX_WBITS | 16)
        return True


def listed(folder: Path) -> list[Path]:
    """Return what lies in a folder, but for hidden names, in order.

    Raises:
        DataError: the folder is absent or may not be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read ({error.strerror or error}); check the path and rights"
        ) from error


def guess(start: bytes) -> str:
    """Name what is often downloaded instead of the file, by its first bytes."""
    found = [kind for magic, kind in KINDS.items() if start.startswith(magic)]
    return f" but perhaps {found[0]}" if found else ""
