"""Files of a run folder, which outlive kills, full disks and power cuts.

A file is written whole or not at all. A file of lines, one object of JSON each, grows by whole
lines. Readers trust neither sizes nor contents.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from threefactor.errors import CheckpointError

__all__ = [
    "append_line",
    "clear_unfinished",
    "make_folder",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_lines",
    "sync_folder",
    "write_atomically",
    "write_lines",
]

MOST_BYTES = 16 * 2**20
"""The largest JSON file that is read; those written here have some thousand bytes."""
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}
"""Errors of file systems that cannot sync a folder."""
MOST_BYTES_OF_LINES = 256 * 2**20
DEEPEST = 250
TOO_DEEP = f"it is nested deeper than {DEEPEST}"
UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}")
"""Names of files that are being written."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also in case of a power cut.

    A link is followed: the file that it names is written. So are devices, and pipes that somebody
    reads, as /dev/stdout, which have no old content that could be lost.

    Raises:
        CheckpointError: if it cannot be written; a file that was there before stays.
    """
    place = Path(os.path.realpath(path))
    temporary = place.with_name(f".{place.name[:60]}.{uuid.uuid4().hex[:8]}")
    try:
        if path.exists() and not path.is_file() and _passed_on(path, content):
            return
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
        sync_folder(place.parent)
    except OSError as problem:
        _remove(temporary)
        raise CheckpointError(
            f"cannot write {path}: {problem.strerror}; what was saved before is still there. "
            "Make room or choose another folder, then give the command again"
        ) from problem


def _passed_on(path: Path, content: bytes) -> bool:
    """Write to a pipe or a device; return whether anybody reads it. A folder is an error."""
    at_once = getattr(os, "O_NONBLOCK", 0)  # Windows has none
    try:
        descriptor = os.open(path, os.O_WRONLY | at_once)
    except OSError as problem:
        if problem.errno == errno.ENXIO:  # a pipe without a reader, for whom a write would wait
            return False
        raise
    with open(descriptor, "wb") as file:
        if at_once:
            os.set_blocking(descriptor, True)
        file.write(content)
    return True


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk, where the system can."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        if problem.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, if they are not there.

    Raises:
        CheckpointError: if it cannot be made.
    """
    if folder.is_dir():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
    except OSError as problem:
        raise CheckpointError(f"cannot make {folder}: {problem.strerror}") from problem


def clear_unfinished(folder: Path) -> None:
    """Remove what a kill left of files that were being written.

    Call it only where nobody else writes to the folder.
    """
    try:
        left = [path for path in folder.iterdir() if UNFINISHED.fullmatch(path.name)]
    except OSError:  # there is no folder yet
        return
    for path in left:
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a file that is not needed; if that fails, it stays."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def read_bytes(path: Path, most: int) -> bytes:
    """Read a regular file of at most so many bytes.

    Raises:
        FileNotFoundError: if it is not there.
        CheckpointError: if it is larger, not a file (a folder, a pipe, a device), or not readable.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise CheckpointError(f"{path} is not a file")
        if about.st_size > most:
            raise CheckpointError(f"{path} has {about.st_size} bytes; at most {most} are read")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as problem:  # ValueError: a name with a zero byte
        raise CheckpointError(f"{path} cannot be read: {problem}") from problem
    except MemoryError as problem:
        raise CheckpointError(
            f"{path} has {about.st_size} bytes, for which there is no memory"
        ) from problem


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """Read a file of JSON, whatever it holds.

    Raises:
        FileNotFoundError: if it is not there.
        CheckpointError: if it is too large, or not JSON.
    """
    content = read_bytes(path, most)
    try:
        return parse_json(content)
    except ValueError as problem:
        raise CheckpointError(f"{path} does not hold JSON: {shorten(problem)}") from problem


def parse_json(content: bytes | str) -> Any:
    """Parse JSON, and refuse what is nested too deep for other code.

    Raises:
        ValueError: if it is not JSON, or nested deeper than `DEEPEST`.
    """
    try:
        found = json.loads(content)
    except RecursionError as problem:
        raise ValueError(TOO_DEEP) from problem
    level = [found]
    for _ in range(DEEPEST):
        level = [x for part in level if isinstance(part, (dict, list)) for x in _inside(part)]
    if level:
        raise ValueError(TOO_DEEP)
    return found


def _inside(part: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return part.values() if isinstance(part, dict) else part


def shorten(problem: BaseException) -> str:
    """Return in one line what an error says."""
    said = str(problem).splitlines()
    return said[0][:200] if said else type(problem).__name__


def read_lines(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the lines, and a remark if a last one was cut short, which is left out.

    A kill, a full disk or a power cut may leave a part of the last line; nothing else is forgiven.

    Returns:
        The lines, none if there is no file; and the remark, else an empty string.

    Raises:
        CheckpointError: if the file cannot be read, has more than `MOST_BYTES_OF_LINES`, or has a
            line that is not an object of JSON and is not such a last one.
    """
    try:
        content = read_bytes(path, MOST_BYTES_OF_LINES)
    except FileNotFoundError:
        return [], ""
    lines: list[dict[str, Any]] = []
    texts = content.splitlines()
    for number, text in enumerate(texts, start=1):
        try:
            line = parse_json(text)
        except ValueError as problem:
            if str(problem) != TOO_DEEP and number == len(texts):
                return lines, f"line {number} of {path.name} is cut short ({shorten(problem)})"
            raise _damaged(path, number, shorten(problem)) from problem
        if not isinstance(line, dict):
            raise _damaged(path, number, "it is not an object")
        lines.append(line)
    return lines, ""


def _damaged(path: Path, number: int, why: str) -> CheckpointError:
    return CheckpointError(
        f"line {number} of {path} is damaged: {why}. Put the file back as it was"
    )


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Add one line, on the disk when this returns.

    Raises:
        CheckpointError: if the disk is full; the file is then as it was.
    """
    size = path.stat().st_size if path.exists() else None
    try:
        with open(path, "ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if size is None:
            sync_folder(path.parent)
    except OSError as problem:
        _take_back(path, size)
        raise CheckpointError(
            f"cannot write {path}: {problem.strerror}; the run can be resumed when there is room"
        ) from problem


def _take_back(path: Path, size: int | None) -> None:
    """Cut a file back to its old length; if that fails, too, readers leave the cut line out."""
    try:
        if path.exists():  # a new file may not have been made at all
            os.truncate(path, size or 0)
    except OSError:
        return


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace the lines of a file, all or none."""
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
