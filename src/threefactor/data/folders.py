"""Where the files of a data set lie, and how to get those that are missing."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from threefactor.data.registry import DataFile, DataSet, lookup
from threefactor.errors import DataError

__all__ = [
    "DATA_VARIABLE",
    "advice",
    "data_folder",
    "debian_advice",
    "find_files",
    "search_folders",
]

DATA_VARIABLE = "THREEFACTOR_DATA"
"""The environment variable that names the folder of all data sets."""


def data_folder(name: str, data_dir: str | Path | None = None) -> Path:
    """Return the folder of one data set, whether or not it exists.

    It is the subfolder `name` of `data_dir` if given, else of the folder in the environment
    variable THREEFACTOR_DATA if set and not empty, else of the user's cache folder.

    Raises:
        ConfigurationError: there is no data set of this name.
    """
    return (_named_folder(data_dir) or _cache()) / lookup(name).name


def _named_folder(data_dir: str | Path | None) -> Path | None:
    """Return the folder that the user named, as an argument or in the environment."""
    named = data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE) or None
    return None if named is None else Path(named).expanduser()


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("threefactor"))


def search_folders(entry: DataSet, data_dir: str | Path | None = None) -> list[Path]:
    """List the folders in which to look for a set, in order.

    A folder that the user named is the only one: a mistyped path must not lead to other data.
    """
    folders = [data_folder(entry.name, data_dir)]
    if _named_folder(data_dir) is None and entry.debian_folder is not None:
        folders.append(entry.debian_folder)
    return folders


def find_files(entry: DataSet, data_dir: str | Path | None = None) -> list[Path]:
    """Return the path of each of the set's files, in the order of `entry.files`.

    A folder counts only if it holds all the files, so that copies are never mixed. Each file
    may be compressed or not, and named as published or with a dot: the first that exists of
    `train-images-idx3-ubyte.gz`, `train-images-idx3-ubyte`, `train-images.idx3-ubyte.gz`,
    `train-images.idx3-ubyte`.

    Raises:
        DataError: no folder holds all the files; says where it looked and how to get them.
    """
    folders = search_folders(entry, data_dir)
    for folder in folders:
        paths = [_find_file(folder, file) for file in entry.files]
        found = [path for path in paths if path is not None]
        if len(found) == len(entry.files):
            return found
    raise DataError(_absence(entry, folders, data_dir))


def _find_file(folder: Path, file: DataFile) -> Path | None:
    plain = file.name.removesuffix(".gz")
    dotted = plain.replace("-idx", ".idx")
    for name in (f"{plain}.gz", plain, f"{dotted}.gz", dotted):
        # Unlike Path.is_file, this is False, not an error, in a folder that may not be read.
        if os.path.isfile(folder / name):
            return folder / name
    return None


def _absence(entry: DataSet, folders: list[Path], data_dir: str | Path | None) -> str:
    lines = [f"the data set {entry.name!r} was not found. Looked, for plain or .gz files, in:"]
    for folder in folders:
        missing = [file.name for file in entry.files if _find_file(folder, file) is None]
        lines.append(f"  {folder}: no {', '.join(missing)}")
    return "\n".join([*lines, *advice(entry, data_dir)])


def advice(entry: DataSet, data_dir: str | Path | None = None) -> list[str]:
    """List the ways of getting the files, one a line."""
    option = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
    lines = [f"To download it: threefactor data fetch {entry.name}{option}"]
    if _named_folder(data_dir) is None:
        lines.append(
            "If you have the files: name the folder above their folder "
            f"{entry.name!r} with --data-dir DIR or {DATA_VARIABLE}"
        )
    else:
        lines.append(f"If you have the files: place them in {data_folder(entry.name, data_dir)}")
    return lines + debian_advice(entry)


def debian_advice(entry: DataSet) -> list[str]:
    """Name Debian's package of the set, if there is one, in one line."""
    if entry.debian_package is None:
        return []
    return [
        f"On Debian or Ubuntu: apt install {entry.debian_package}, "
        f"then leave out --data-dir and {DATA_VARIABLE}"
    ]
