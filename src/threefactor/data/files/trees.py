"""Archives that are used as whole folders, unpacked once and never by half."""

from __future__ import annotations

import os
import tempfile
from itertools import zip_longest
from pathlib import Path

from threefactor.data.dataset import DataSet
from threefactor.data.files.archives import PREFIX, unpack_tree
from threefactor.data.files.source import Source
from threefactor.errors import DataError

__all__ = ["find_tree", "find_trees", "tree_archives", "unpacked"]

LIMIT = 32 << 30
"""Bytes that may be unpacked of one archive of events, the largest of which has a few GB."""


def find_trees(folder: Path, entry: DataSet, archives: bool = True) -> list[Source]:
    """Return the folders of a set that are in `folder`, or else their archives.

    Returns:
        One for each of `entry.files.folders`, in their order; none unless all are there.
    """
    paths = [
        find_tree(folder, tree, archive if archives else "")
        for tree, archive in tree_archives(entry)
    ]
    found = [Source(path) for path in paths if path is not None]
    return found if len(found) == len(entry.files.folders) else []


def tree_archives(entry: DataSet) -> list[tuple[str, str]]:
    """Pair the folders of a set with the names of their archives, "" if it has none."""
    archives = [file.name for file in entry.files.published]
    return list(zip_longest(entry.files.folders, archives, fillvalue=""))


def find_tree(folder: Path, tree: str, archive: str) -> Path | None:
    """Return a folder in `folder`, or else its archive, or None."""
    if os.path.isdir(folder / tree):
        return folder / tree
    return folder / archive if archive and os.path.isfile(folder / archive) else None


def unpacked(path: Path, tree: str) -> Path:
    """Return a folder; unpack it beside the archive if `path` is one.

    The folder gets its name only when it is complete.

    Args:
        path: the folder, or a .zip or .tar.gz archive.
        tree: the folder in the archive, all else of which is dropped.

    Raises:
        DataError: the archive is damaged, unsafe or too large, or has no such folder; or there is
            no space or right to unpack it.
    """
    if path.is_dir():
        return path
    target = path.parent / tree
    try:
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=path.parent) as temporary:
            whole = unpack_tree(path, Path(temporary) / "whole", LIMIT)
            if not (whole / tree).is_dir():
                raise DataError(f"{path} holds no folder {tree}; expected the published archive")
            os.rename(whole / tree, target)
    except OSError as error:
        raise DataError(
            f"cannot unpack {path} into {path.parent}: {error.strerror or error}; "
            "free some space, set its rights, or unpack it elsewhere yourself"
        ) from error
    return target
