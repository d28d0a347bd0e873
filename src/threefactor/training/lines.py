"""Files of JSON, one object a line, that grow line by line and outlive a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from threefactor.errors import CheckpointError
from threefactor.training.checkpoint import write_atomically

__all__ = ["append", "read", "write"]


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines; one that was cut short, and what follows it, is left out.

    Raises:
        CheckpointError: if a line is whole and holds something else than an object.
    """
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    for content in path.read_bytes().splitlines():
        try:
            line = json.loads(content.decode())
        except ValueError:
            break
        if not isinstance(line, dict):
            raise CheckpointError(f"line {len(lines) + 1} of {path} is damaged: it is no object")
        lines.append(line)
    return lines


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add one line, on the disk when this returns.

    Raises:
        CheckpointError: if the disk is full; the file is then as it was.
    """
    size = path.stat().st_size if path.exists() else 0
    try:
        with open(path, "ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        if path.exists():  # a new file may not have been made at all
            os.truncate(path, size)
        raise CheckpointError(
            f"cannot write {path}: {problem.strerror}; the run can be resumed when there is room"
        ) from problem


def write(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Put these lines in the place of the file, all or none."""
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
