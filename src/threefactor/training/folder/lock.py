"""One process, and one thread of it, in a folder at a time: a lock that dies with its owner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from threefactor.errors import CheckpointError, warn_user

__all__ = ["LOCK", "BusyError", "only_one"]

LOCK = ".lock"
"""Name of the file that is locked. It stays: the lock counts, not that the file is there."""


class BusyError(CheckpointError):
    """Another process or thread works in the folder."""


@contextmanager
def only_one(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keep other processes and threads out of a folder while the context lasts.

    The system holds the lock, and frees it when the process ends, however that happens. The thread
    that has it may take it again. Who only reads the folder does not need it.

    Args:
        folder: made if it is not there.
        patience: how long to wait for another one to leave, s.

    Raises:
        BusyError: if another one does not leave.
        CheckpointError: if the folder cannot be made or written.

    Warns:
        UserWarning: where the file system has no locks, as some network file systems: then nobody
            is kept out.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise CheckpointError(f"cannot make {folder}: {problem.strerror}") from problem
    path = folder.resolve() / LOCK
    lock = FileLock(path, is_singleton=True)  # one object for all that lock it in this process
    try:
        lock.acquire(timeout=patience, poll_interval=0.1)
    except Timeout:
        raise BusyError(
            f"{folder} is being worked on by another process or thread{_owner(path)}; wait for "
            "it, stop it, or choose another folder with --out"
        ) from None
    except (OSError, NotImplementedError) as problem:
        if not os.access(path, os.W_OK):  # it was opened before it was to be locked
            raise CheckpointError(
                f"cannot write to {folder} ({problem}); set its rights, make room, or choose "
                "another folder with --out"
            ) from problem
        warn_user(f"{folder} cannot be locked ({problem}): see to it that nobody else works in it")
    try:
        yield
    finally:
        if lock.is_locked:
            lock.release()


def _owner(path: Path) -> str:
    """Name the process that has a lock, as far as Linux tells."""
    try:
        inode = str(path.stat().st_ino)
        entries = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        owners = {entry[4] for entry in entries if entry[5].rpartition(":")[2] == inode}
        for pid in owners:  # other file systems have files of the same number
            if any(os.path.samefile(file, path) for file in Path(f"/proc/{pid}/fd").iterdir()):
                return f", PID {pid}" if int(pid) != os.getpid() else ", a thread of this one"
    except (OSError, IndexError):
        pass
    return ""
