"""In which folders the files of a data set lie, and how to get those that are missing."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from threefactor.data.arguments import given_path
from threefactor.data.dataset import DataSet
from threefactor.data.sets.catalog import lookup

__all__ = [
    "DATA_VARIABLE",
    "advice",
    "cache_folder",
    "data_folder",
    "debian_advice",
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
        InputError: `data_dir` is no path.
    """
    return (_named_folder(data_dir) or cache_folder()) / lookup(name).name


def _named_folder(data_dir: str | Path | None) -> Path | None:
    """Return the folder that the user named, as an argument or in the environment."""
    named = data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE) or None
    return None if named is None else given_path(named)


def cache_folder() -> Path:
    """Return the user's cache folder of this library, on Linux ~/.cache/threefactor."""
    import pooch

    return Path(pooch.os_cache("threefactor"))


def search_folders(entry: DataSet, data_dir: str | Path | None = None) -> list[Path]:
    """List the folders in which to look for a set, in order.

    A folder that the user named is the only one: a mistyped path must not lead to other data.
    """
    folders = [data_folder(entry.name, data_dir)]
    if _named_folder(data_dir) is None and entry.files.debian is not None:
        folders.append(entry.files.debian[1])
    return folders


def advice(entry: DataSet, data_dir: str | Path | None = None) -> list[str]:
    """List the ways of getting the files, one a line."""
    option = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
    lines = [f"To download it: threefactor data fetch {entry.name}{option}"]
    if entry.files.by_hand:
        lines = [f"No program may download it: {entry.files.by_hand}"]
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
    if entry.files.debian is None:
        return []
    return [
        f"On Debian or Ubuntu: apt install {entry.files.debian[0]}, "
        f"then leave out --data-dir and {DATA_VARIABLE}"
    ]
