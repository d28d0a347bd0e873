"""What no file may do: block its reader, fill memory or disk, lead out of its folder."""

from __future__ import annotations

import errno
import io
import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from threefactor.errors import DataError

__all__ = ["ADVICE", "LARGEST", "Bounded", "Checks", "Unpacked", "open_file", "read_whole"]

LARGEST = 1 << 30
"""Bytes that a file may have, unpacked, which is read into memory as a whole."""

CHUNK = 1 << 20
PACKED_CHUNK = 1 << 13  # small, as what is left of it is copied at the end of each gzip member
MOST_PADDING = 1 << 20  # zeros after a gzip member
LONGEST_NAME = 255  # bytes, on all usual file systems
LONGEST_PATH, DEEPEST = 1024, 32  # bytes and folders of a name in an archive
MOST_ENTRIES = 500_000  # of an archive, whose names are kept in memory
BLOCK = 4096  # bytes that a file takes on disk at least, so that many empty files count as well
ADVICE = "delete it and fetch the data set again, or put an intact copy in its place"


def open_file(path: str | Path) -> IO[bytes]:
    """Open a regular file for reading. A FIFO would block for ever, a device may never end.

    Raises:
        OSError: the file is absent or unreadable, its name is none, or it is no regular file.
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


def read_whole(stream: IO[bytes], where: object, limit: int = LARGEST) -> bytearray:
    """Read a stream to its end, which has to come before `limit` bytes.

    Raises:
        DataError: it does not; names `where`.
    """
    body = bytearray()
    while chunk := stream.read(min(CHUNK, limit + 1 - len(body))):
        body += chunk
        if len(body) > limit:
            raise DataError(
                f"{where} has more than {limit:,} bytes, unpacked, far more than such files "
                f"have; is it what it should be? Otherwise {ADVICE}"
            )
    return body


class Unpacked(io.BufferedReader):
    """A gzip file, unpacked as it is read.

    `gzip` takes minutes for long names in headers and for zeros after the end, byte by byte. Here
    the former are zlib's, and the latter bounded.
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


class Checks:
    """What an archive may hold, entry by entry."""

    def __init__(self, archive: Path, limit: int) -> None:
        self.archive, self.limit = archive, limit
        self.seen: set[str] = set()
        self.folders: set[str] = set()
        self.total = 0

    def name(self, given: str) -> PurePosixPath:
        if len(self.seen) + len(self.folders) >= MOST_ENTRIES:
            raise DataError(
                f"{self.archive} holds more than {MOST_ENTRIES:,} names; nothing was unpacked: "
                "do not use this archive"
            )
        path = PurePosixPath(given)
        if not given or len(given.encode(errors="replace")) > LONGEST_PATH:
            what = f"a name of {len(given)} characters"
            raise DataError(
                f"{self.archive} holds {what if given else 'an entry without a name'}; expected "
                f"1 to {LONGEST_PATH}; nothing was unpacked: do not use this archive"
            )
        if len(path.parts) > DEEPEST:
            raise DataError(
                f"{self.archive} holds {given[:40]}..., {len(path.parts)} folders deep; expected "
                f"at most {DEEPEST}; nothing was unpacked: do not use this archive"
            )
        outside = path.is_absolute() or ".." in path.parts or PureWindowsPath(given).drive
        if outside or "\\" in given or "\0" in given:
            raise DataError(
                f"{self.archive} holds the name {given!r}, which leads out of its folder; "
                "nothing was unpacked: do not use this archive"
            )
        longest = max(path.parts, key=lambda part: len(part.encode(errors="replace")), default="")
        if len(longest.encode(errors="replace")) > LONGEST_NAME:
            raise DataError(
                f"{self.archive} holds a name of {len(longest)} characters, {longest[:40]}...; "
                f"expected at most {LONGEST_NAME}; nothing was unpacked: do not use this archive"
            )
        return path

    def folder(self, name: PurePosixPath) -> None:
        """Take note of a folder, and of those that it lies in."""
        for place in (name, *name.parents):
            folded = str(place).casefold()
            if folded in self.seen:
                raise self._both(place)
            self.folders.add(folded)

    def kind(self, name: PurePosixPath, regular: bool) -> None:
        # Some file systems tell "a" from "A", others would overwrite one with the other.
        folded = str(name).casefold()
        if not regular or not name.parts or folded in self.seen:
            fault = "twice" if folded in self.seen else "which is neither a file nor a folder"
            raise DataError(
                f"{self.archive} holds {name} {fault}; nothing was unpacked: "
                "do not use this archive"
            )
        if folded in self.folders:
            raise self._both(name)
        self.folder(name.parent)
        self.seen.add(folded)

    def _both(self, name: PurePosixPath) -> DataError:
        return DataError(
            f"{self.archive} holds {name} both as a file and as a folder; nothing was unpacked: "
            "do not use this archive"
        )

    def method(self, name: PurePosixPath, given: int) -> None:
        if given not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{self.archive} holds {name} compressed by method {given}; expected 0 (stored) "
                "or 8 (deflated), as data sets are published: pack it anew"
            )

    def size(self, given: int) -> None:
        """Count the bytes of a file towards the limit."""
        self.total += max(given, BLOCK)
        if self.total > self.limit:
            raise _too_large(self.archive, self.limit)


class Bounded:
    """A gzip file, unpacked, that ends in an error after `limit` bytes."""

    def __init__(self, file: IO[bytes], archive: Path, limit: int) -> None:
        self.stream = Unpacked(file)
        self.archive, self.limit = archive, limit
        self.count = 0

    def read(self, size: int) -> bytes:
        part = self.stream.read(min(size, CHUNK))
        self.count += len(part)
        if self.count > self.limit:
            raise _too_large(self.archive, self.limit)
        return part

    def exactly(self, size: int) -> bytes:
        """Read so many bytes, which are few."""
        found = b""
        while len(found) < size:
            part = self.read(size - len(found))
            if not part:
                raise EOFError(f"it ends {size - len(found)} bytes too early")
            found += part
        return found

    def skip(self, size: int) -> None:
        """Read so many bytes and drop them."""
        while size:
            part = self.read(min(size, CHUNK))
            if not part:
                raise EOFError(f"it ends {size:,} bytes too early")
            size -= len(part)


def _too_large(archive: Path, limit: int) -> DataError:
    return DataError(
        f"{archive} would unpack to more than {limit:,} bytes, far more than the data set; "
        "nothing was unpacked: do not use this archive"
    )
