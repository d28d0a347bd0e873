"""A file to read, on its own or in an archive, and what is said when it cannot be read."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from threefactor.data.files.archives import read_member
from threefactor.data.files.safety import ADVICE, LARGEST, Unpacked, open_file, read_whole
from threefactor.errors import DataError

__all__ = ["ADVICE", "GZIP_MAGIC", "Source", "guess", "listed"]

GZIP_MAGIC = b"\x1f\x8b"
KINDS = {b"<": "a web page", b"vers": "a Git LFS pointer", b"PK": "a zip archive"}


class Source(NamedTuple):
    """A file, or a member of an archive, which is read without unpacking it to disk.

    Args:
        path: the file, or the archive.
        member: the full name of the member, None for the file itself.
    """

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path} ({self.member})"

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
        with self.open() as stream:
            return read_whole(stream, self, limit)

    def _raw(self) -> IO[bytes]:
        if self.member is None:
            return open_file(self.path)
        return io.BytesIO(read_member(self.path, self.member, LARGEST))


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
    """Name what commonly ends up in place of a downloaded file, by its first bytes."""
    found = [kind for magic, kind in KINDS.items() if start.startswith(magic)]
    return f" but perhaps {found[0]}" if found else ""
