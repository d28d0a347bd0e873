"""Take files out of .zip and .tar.gz archives, none of which is trusted.

Nothing is written outside the folder that the caller names, nothing above a limit is unpacked, and
a file gets its name only after the whole archive has been read and checked. An archive is refused
as a whole if a name leads out of its folder or occurs twice, or if it holds a link, a device or a
sparse file.

`zipfile` reads the one kind. `tarfile` reads the headers of the other, one by one; its `TarFile`
and their filters are not used. In Python 3.10 to 3.13 these take a damaged header for the end of
the archive, look forever for an entry of 2^62 bytes, and take hours, or any amount of memory, for
extended headers and sparse files that were made for it. A `filter` is asked only after that.
"""

from __future__ import annotations

import filecmp
import io
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from threefactor.data.files.source import ADVICE, LARGEST, Source, Unpacked, open_file
from threefactor.errors import DataError

__all__ = [
    "LIMIT",
    "Member",
    "members",
    "read_member",
    "read_members",
    "unpack_files",
    "unpack_tree",
    "unpacked",
]

LIMIT = 4 << 30
"""Bytes that may be unpacked from one archive, unless the caller says otherwise."""

LARGEST_TREE = 32 << 30
"""Bytes that may be unpacked of one archive of events, the largest of which has a few GB."""

MOST_ENTRIES = 500_000  # files and folders, whose names are kept in memory
LONGEST_NAME = 255  # bytes, on all usual file systems
LONGEST_PATH, DEEPEST = 1024, 32  # bytes and folders of a name
BLOCK = 4096  # bytes that a file takes on disk at least, so that many empty files count as well
LONGEST_HEADER = 1 << 16  # bytes of what a .tar file says of an entry, its name above all
LONGEST_DIRECTORY = 32 << 20  # bytes of the names and sizes in a .zip file, kept in memory

CHUNK = 1 << 20
PREFIX = ".unpacking-"
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
UNSAFE = "nothing was unpacked: do not use this archive"

Found = Iterator[tuple[PurePosixPath, Iterator[bytes]]]


@dataclass(frozen=True)
class Member(Source):
    """A file in an archive, which is read without unpacking it to disk.

    Args:
        path: the archive.
        name: the full name in the archive, as "gzip/file".
    """

    name: str

    def __str__(self) -> str:
        return f"{self.path} ({self.name})"

    def _raw(self) -> IO[bytes]:
        return io.BytesIO(read_member(self.path, self.name))


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
    """Return the contents of some files in an archive, which is read once.

    Args:
        archive, limit: as in `read_member`.
        names: full names in the archive.

    Returns:
        The contents in the order of `names`.

    Raises:
        DataError: as in `read_member`.
    """
    found = {name: b"".join(chunks) for name, chunks in _chosen(archive, names, limit)}
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
        for name, chunks in _chosen(archive, names, limit):
            _write(chunks, Path(temporary) / name.name)
        new = [path for path in paths if not _same(Path(temporary) / path.name, path)]
        for path in new:
            os.replace(Path(temporary) / path.name, path)
    return paths


def unpack_tree(archive: Path, folder: Path, limit: int = LIMIT, inner: str = "") -> Path:
    """Unpack an archive into a new folder, which appears only when it is complete.

    Args:
        archive: a .zip or .tar.gz file.
        folder: the new folder; the one above it is made if it is not there.
        limit: bytes that may be unpacked.
        inner: a folder in the archive that becomes the new one; all else is dropped.

    Returns:
        The folder.

    Raises:
        DataError: the archive is absent, damaged, unsafe or above the limit, or has no such
            folder; or something is at `folder` already, which is left untouched.
        OSError: the folder cannot be written to.
    """
    if folder.exists():
        raise DataError(f"{folder} is there already; it was left untouched: delete or rename it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder.parent) as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        for name, chunks in members(archive, limit):
            path = whole / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(chunks, path)
        if not (whole / inner).is_dir():
            raise DataError(f"{archive} holds no folder {inner}; expected the published archive")
        os.rename(whole / inner, folder)
    return folder


def unpacked(path: Path, tree: str) -> Path:
    """Return a folder; unpack it beside the archive if `path` is one.

    Several processes may do so at once: each unpacks apart, and the first that is ready names it.

    Args:
        path: the folder, or a .zip or .tar.gz archive.
        tree: the folder in the archive, all else of which is dropped.

    Raises:
        DataError: the archive is damaged, unsafe or too large, or has no such folder; or there is
            no space or right to unpack it.
    """
    folder = path if path.is_dir() else path.parent / tree
    if folder.is_dir():
        return folder
    try:
        return unpack_tree(path, folder, LARGEST_TREE, tree)
    except OSError as error:
        if folder.is_dir():  # it appears only when it is complete
            return folder
        raise DataError(
            f"cannot unpack {path} into {path.parent}: {error.strerror or error}; "
            "free some space, set its rights, or unpack it elsewhere yourself"
        ) from error


def members(
    archive: Path, limit: int = LIMIT, wanted: Collection[PurePosixPath] | None = None
) -> Found:
    """Yield the name and the contents, in chunks, of each file in an archive, in its order.

    Contents must be read before the next file is asked for. When the loop ends, the archive has
    been read as far as its own checksums reach.

    Args:
        archive: a .zip or .tar.gz file, known by its first bytes.
        limit: bytes that may be unpacked; each file counts as one block of the disk at least.
        wanted: names to yield, None for all; the names of the others are checked nevertheless.

    Raises:
        DataError: a name leads out of the archive's folder or occurs twice, an entry is neither
            a file nor a folder, the limit is passed, the archive is absent, damaged, or none;
            here or when contents are read.
    """
    checks = _Checks(archive, limit)
    with _damage_named(archive), open_file(archive) as file:
        start = file.read(len(GZIP))
        file.seek(0)
        if start not in (ZIP, GZIP):
            raise DataError(
                f"{archive} begins with {start.hex(' ') or 'nothing'}; "
                f"expected {ZIP.hex(' ')} (.zip) or {GZIP.hex(' ')} (.tar.gz); {ADVICE}"
            )
        read = _zip_members if start == ZIP else _tar_members
        for name, chunks in read(file, checks, wanted):
            yield name, _guarded(chunks, archive)


def _chosen(archive: Path, names: Sequence[str], limit: int) -> Found:
    wanted = {PurePosixPath(name) for name in names}
    for name, chunks in members(archive, limit, wanted):
        wanted.discard(name)
        yield name, chunks
    if wanted:
        raise DataError(
            f"{archive} holds no {', '.join(sorted(map(str, wanted)))}; is it another archive? "
            "Expected the published one"
        )


def _write(chunks: Iterable[bytes], path: Path) -> None:
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)


def _same(fresh: Path, path: Path) -> bool:
    """Return whether `path` holds what was unpacked; refuse to replace anything else."""
    if not os.path.lexists(path):
        return False
    if path.is_file() and filecmp.cmp(fresh, path, shallow=False):
        return True
    raise DataError(
        f"{path} is there already but differs from the file in the archive. It was left "
        "untouched; delete it, or name another folder"
    )


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


def _guarded(chunks: Iterator[bytes], archive: Path) -> Iterator[bytes]:
    """Yield the chunks; their errors are those of the archive, and differ from the writer's."""
    with _damage_named(archive):
        yield from chunks


class _Checks:
    """What an archive may hold, checked entry by entry."""

    def __init__(self, archive: Path, limit: int) -> None:
        self.archive, self.limit = archive, limit
        self.files: set[str] = set()
        self.folders: set[str] = set()
        self.total = 0

    def entry(self, given: str, folder: bool, regular: bool) -> PurePosixPath:
        """Take note of a file or folder; return its name, or refuse it."""
        name = PurePosixPath(given)
        if fault := self._fault(given, name, folder or (regular and name.parts != ())):
            raise DataError(f"{self.archive} holds {fault}; {UNSAFE}")
        # Some file systems tell "a" from "A", others would overwrite one with the other.
        folded = str(name).casefold()
        places = {str(place).casefold(): place for place in name.parents}
        if folder:
            places[folded] = name
        elif folded in self.files:
            raise DataError(f"{self.archive} holds {name} twice; {UNSAFE}")
        both = [places[each] for each in places.keys() & self.files]
        if both or (not folder and folded in self.folders):
            raise DataError(
                f"{self.archive} holds {(both or [name])[0]} both as a file and as a folder; "
                f"{UNSAFE}"
            )
        self.folders.update(places)
        if not folder:
            self.files.add(folded)
        return name

    def _fault(self, given: str, name: PurePosixPath, possible: bool) -> str:
        """Say what is wrong with a name or with what it stands for, "" if nothing is."""
        if len(self.files) + len(self.folders) >= MOST_ENTRIES:
            return f"more than {MOST_ENTRIES:,} names"
        if not given:
            return "an entry without a name"
        for part, most in ((given, LONGEST_PATH), *((part, LONGEST_NAME) for part in name.parts)):
            if len(part.encode(errors="replace")) > most:
                return f"a name of {len(part)} characters, {part[:40]}...; expected at most {most}"
        if len(name.parts) > DEEPEST:
            depth = f"{len(name.parts)} folders deep"
            return f"{given[:40]}..., {depth}; expected at most {DEEPEST}"
        outside = name.is_absolute() or ".." in name.parts or PureWindowsPath(given).drive
        if outside or "\\" in given or "\0" in given:
            return f"the name {given!r}, which leads out of its folder"
        if not possible:
            return f"{name}, which is neither a file nor a folder"
        return ""

    def size(self, given: int) -> None:
        """Count the bytes of a file towards the limit."""
        self.total += max(given, BLOCK)
        if self.total > self.limit:
            raise self.too_large()

    def too_large(self) -> DataError:
        return DataError(
            f"{self.archive} would unpack to more than {self.limit:,} bytes, far more than the "
            f"data set; {UNSAFE}"
        )


def _zip_members(
    file: IO[bytes], checks: _Checks, wanted: Collection[PurePosixPath] | None
) -> Found:
    _check_directory(file, checks.archive)
    with zipfile.ZipFile(file) as opened:
        found = []
        for info in opened.infolist():
            # Zip files made on Unix carry the type of an entry in the upper half; others have 0.
            regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            name = checks.entry(info.filename, info.is_dir(), regular)
            if info.is_dir() or (wanted is not None and name not in wanted):
                continue
            checks.size(info.file_size)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(
                    f"{checks.archive} holds {name} compressed by method {info.compress_type}; "
                    "expected 0 (stored) or 8 (deflated), as data sets are published: pack it anew"
                )
            found.append((name, info))
        for name, info in found:
            with opened.open(info) as stream:
                yield name, iter(partial(stream.read, CHUNK), b"")


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
                f"{LONGEST_DIRECTORY:,}; {UNSAFE}"
            )
        place = tail.find(ZIP_END, place + 1)


def _tar_members(
    file: IO[bytes], checks: _Checks, wanted: Collection[PurePosixPath] | None
) -> Found:
    stream = _Bounded(file, checks)
    said: dict[str, bytes] = {}  # what headers of their own say of the entry that follows
    while any(block := stream.exactly(TAR_BLOCK)):
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type in (*NAME_HEADERS, *PAX_HEADERS):
            said |= _header(info, stream)
            continue
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(SPARSE)
        given = said["path"].decode(errors="surrogateescape") if "path" in said else info.name
        size, said = int(said.get("size", info.size)), {}
        name = checks.entry(given, info.isdir(), info.isreg())
        if info.isdir():
            continue
        if size < 0:
            raise tarfile.ReadError(f"{name} has {size} bytes")
        checks.size(size)
        body = stream.chunks(size)
        if wanted is None or name in wanted:
            yield name, body
        for _ in chain(body, stream.chunks(-size % TAR_BLOCK)):
            pass  # what was not read, and the rest of its last block
    while stream.read(CHUNK):
        pass  # gzip compares its checksum at the end


class _Bounded:
    """A gzip file, unpacked, that ends in an error after as many bytes as an archive may have."""

    def __init__(self, file: IO[bytes], checks: _Checks) -> None:
        self.stream, self.checks = Unpacked(file), checks
        self.left = checks.limit

    def read(self, size: int) -> bytes:
        part = self.stream.read(min(size, CHUNK))
        self.left -= len(part)
        if self.left < 0:
            raise self.checks.too_large()
        return part

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield exactly so many bytes."""
        while size:
            part = self.read(size)
            if not part:
                raise EOFError(f"it ends {size:,} bytes too early")
            size -= len(part)
            yield part

    def exactly(self, size: int) -> bytes:
        return b"".join(self.chunks(size))


def _header(info: tarfile.TarInfo, stream: _Bounded) -> dict[str, bytes]:
    """Read what a header entry says of the next entry: "path" and "size", or neither.

    A pax header is a list of records "LENGTH KEY=VALUE" and a new line.
    """
    if not 0 <= info.size <= LONGEST_HEADER:
        raise tarfile.ReadError(
            f"a header of {info.size:,} bytes; expected at most {LONGEST_HEADER:,}"
        )
    body = stream.exactly(info.size + -info.size % TAR_BLOCK)[: info.size]
    if info.type in NAME_HEADERS:
        name = body.partition(b"\0")[0]
        return {"path": name} if info.type == tarfile.GNUTYPE_LONGNAME else {}
    found, place = {}, 0
    while place < len(body):
        digits = body[place : place + 8].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = body[place : place + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not (equals and record.endswith(b"\n")):
            raise tarfile.ReadError("a header that is not a list of names and values")
        if key.startswith(b"GNU.sparse"):
            raise tarfile.ReadError(SPARSE)
        if key in (b"path", b"size"):
            found[key.decode()] = value
        place += length
    if info.type == tarfile.XGLTYPE and found:
        raise tarfile.ReadError("a header that gives all files one name or size")
    return found
