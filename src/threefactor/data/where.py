"""Find the files of a data set among the folders in which they may lie."""

from __future__ import annotations

import os
from pathlib import Path

from threefactor.data.dataset import DataSet, SimulatedSet
from threefactor.data.files.source import Source
from threefactor.data.files.trees import find_tree, find_trees, tree_archives
from threefactor.data.folders import advice, search_folders
from threefactor.errors import DataError

__all__ = ["find_files", "found_in"]


def find_files(entry: DataSet, data_dir: str | Path | None = None) -> list[Source]:
    """Return each of the files that are read of a set, in the order of its `files.contents`.

    A folder counts only if it holds all the files, so that copies are never mixed. Each file
    may be compressed or not, and named as published or with a dot: the first that exists of
    `train-images-idx3-ubyte.gz`, `train-images-idx3-ubyte`, `train-images.idx3-ubyte.gz`,
    `train-images.idx3-ubyte`. If they are published in an archive, a folder may also hold them
    in the subfolder that the archive has for them, or the archive itself.

    A set of whole folders has these, or the archives that they are unpacked from. A simulated set
    has those of the set that it is made from. A set that needs no files has none.

    Raises:
        DataError: no folder holds all the files; says where it looked and how to get them.
    """
    if isinstance(entry, SimulatedSet):
        return find_files(entry.base, data_dir)
    if not entry.files.contents:
        return []
    folders = search_folders(entry, data_dir)
    for folder in folders:
        _check_readable(folder)
        found = found_in(folder, entry) or _in_archives(folder, entry)
        if found:
            return found
    raise DataError(_absence(entry, folders, data_dir))


def _check_readable(folder: Path) -> None:
    """Refuse a folder whose files cannot be seen; one that is absent is another matter."""
    try:
        with os.scandir(folder):
            pass
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{folder} cannot be looked into ({reason}); set its rights, or name another folder"
        ) from error


def found_in(folder: Path, entry: DataSet) -> list[Source]:
    """Return the files of a set that lie in a folder, unpacked; none unless all are there."""
    if entry.files.folders:
        return find_trees(folder, entry, archives=False)
    for place in (folder, *(folder / name for name in entry.files.subfolders)):
        _check_readable(place)
        paths = [_find_file(place, name, entry.files.endings) for name in entry.files.contents]
        found = [Source(path) for path in paths if path is not None]
        if len(found) == len(entry.files.contents):
            return found
    return []


def _in_archives(folder: Path, entry: DataSet) -> list[Source]:
    if entry.files.folders:
        return find_trees(folder, entry)
    archives = [folder / file.name for file in entry.files.published if file.members]
    if len(archives) < len(entry.files.published) or not all(map(os.path.isfile, archives)):
        return []
    return [
        Source(folder / file.name, member)
        for file in entry.files.published
        for member in file.members
    ]


def _find_file(folder: Path, name: str, endings: tuple[str, ...]) -> Path | None:
    plain = name.removesuffix(".gz")
    for stem in (plain, plain.replace("-idx", ".idx")):
        for ending in endings:
            path = folder / f"{stem}{ending}"
            # Unlike Path.is_file, this is False, not an error, in a folder that may not be read.
            if os.path.isfile(path):
                return path
    return None


def _absence(entry: DataSet, folders: list[Path], data_dir: str | Path | None) -> str:
    *others, last = [ending or "plain" for ending in sorted(entry.files.endings)]
    kinds = f"{', '.join(others)} or {last} files"
    if entry.files.folders:
        kinds = "folders or archives" if entry.files.published else "folders"
    lines = [f"the data set {entry.name!r} was not found. Looked, for {kinds}, in:"]
    archives = "".join(f", nor {file.name}" for file in entry.files.published if file.members)
    for folder in folders:
        lines.append(f"  {folder}: no {', '.join(_missing(folder, entry))}{archives}")
    return "\n".join([*lines, *advice(entry, data_dir)])


def _missing(folder: Path, entry: DataSet) -> list[str]:
    if entry.files.folders:
        return [
            f"{tree} or {archive}" if archive else tree
            for tree, archive in tree_archives(entry)
            if find_tree(folder, tree, archive) is None
        ]
    return [
        name
        for name in entry.files.contents
        if _find_file(folder, name, entry.files.endings) is None
    ]
