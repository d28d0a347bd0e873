"""What an archive must not do: leave its folder, hold links, fill the disk."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from threefactor.errors import DataError

__all__ = ["ADVICE", "Bounded", "Checks"]

LONGEST_NAME = 255  # bytes, on all usual file systems
BLOCK = 4096  # bytes that a file takes on disk at least, so that many empty files count as well
ADVICE = "delete it and fetch the data set again, or put an intact copy in its place"


class Checks:
    """What an archive may hold, entry by entry."""

    def __init__(self, archive: Path, limit: int) -> None:
        self.archive, self.limit = archive, limit
        self.seen: set[str] = set()
        self.folders: set[str] = set()
        self.total = 0

    def name(self, given: str) -> PurePosixPath:
        path = PurePosixPath(given)
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
        self.total += max(given, BLOCK)
        if self.total > self.limit:
            raise _too_large(self.archive, self.limit)


class Bounded:
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
