"""Files of JSON, one object a line, that grow line by line and outlive a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from threefactor.errors import CheckpointError
from threefactor.training.files import (
    TOO_DEEP,
    parse_json,
    read_bytes,
    shorten,
    sync_folder,
    write_atomically,
)

__all__ = ["append", "read", "write"]

MOST_BYTES = 256 * 2**20


def read(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the lines, and a remark if a last one was cut short, which is left out.

    A kill, a full disk or a power cut may leave a part of the last line; nothing else is forgiven.

    Returns:
        The lines, none if there is no file; and the remark, else an empty string.

    Raises:
        CheckpointError: if the file cannot be read or has more than `MOST_BYTES`, or a line is not
            an object of JSON, though others follow it.
    """
    try:
        content = read_bytes(path, MOST_BYTES)
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


def append(path: Path, line: Mapping[str, Any]) -> None:
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
    """Make a file as long as it was; if the disk does not even take that, readers cope."""
    try:
        if path.exists():  # a new file may not have been made at all
            os.truncate(path, size or 0)
    except OSError:
        return


def write(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Put these lines in the place of the file, all or none."""
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
