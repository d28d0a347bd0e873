"""Where the files of a data set lie, and how to get those that are missing."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pooch

from threefactor.data.arguments import given_path
from threefactor.data.dataset import DataSet, SimulatedSet
from threefactor.data.files.archives import Member
from threefactor.data.files.source import Source
from threefactor.data.formats.pickles import PickledRecords
from threefactor.data.sets.catalog import lookup
from threefactor.errors import DataError

__all__ = [
    "DATA_VARIABLE",
    "advice",
    "cache_folder",
    "data_folder",
    "debian_advice",
    "find_files",
    "found_in",
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
        InputError: `data_dir` is not a path.
    """
    return (_named_folder(data_dir) or cache_folder()) / lookup(name).name


def _named_folder(data_dir: str | Path | None) -> Path | None:
    """Return the folder that the user named, as an argument or in the environment."""
    named = data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE) or None
    return None if named is None else given_path(named)


def cache_folder() -> Path:
    """Return the user's cache folder of this library, on Linux ~/.cache/threefactor."""
    return Path(pooch.os_cache("threefactor"))


def search_folders(entry: DataSet, data_dir: str | Path | None = None) -> list[Path]:
    """List the folders in which to look for a set, in order.

    In a folder that the user named, the files may also lie where torchvision, Tonic or SpikingJelly
    leave them. There is no other place then: a mistyped path must not lead to other data.
    """
    folders, named = [data_folder(entry.name, data_dir)], _named_folder(data_dir)
    if named is not None:
        pickles = [named] if entry.files.pickles else []
        return [*folders, *(named / name for name in entry.files.elsewhere), *pickles]
    return folders + ([] if entry.files.debian is None else [entry.files.debian[1]])


def find_files(entry: DataSet, data_dir: str | Path | None = None) -> list[Source]:
    """Return each of the files that are read of a set, in the order of its `files.contents`.

    A folder is used only if it holds all the files, so copies are never mixed. Each file
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
            f"{folder} cannot be read ({reason}); set its rights, or name another folder"
        ) from error


def found_in(folder: Path, entry: DataSet) -> list[Source]:
    """Return the files of a set that lie in a folder, unpacked; none unless all are there."""
    if entry.files.folders:
        places = [folder / name for name in entry.files.folders]
        return [Source(place) for place in places] if all(map(os.path.isdir, places)) else []
    for place in (folder, *(folder / name for name in entry.files.subfolders)):
        _check_readable(place)
        paths = [_find_file(place, name, entry.files.endings) for name in entry.files.contents]
        found = [Source(path) for path in paths if path is not None]
        if len(found) == len(entry.files.contents):
            return found
    pickled: list[Source] = [
        PickledRecords(folder / name, md5)
        for name, md5 in entry.files.pickles
        if os.path.isfile(folder / name)
    ]
    return pickled if len(pickled) == len(entry.files.pickles) else []


def _in_archives(folder: Path, entry: DataSet) -> list[Source]:
    """Return the files of a set in their archives, or its folders, any of which may be packed."""
    published = entry.files.published
    if entry.files.folders:
        places = [_find_folder(folder, *names) for names in _folders_and_archives(entry)]
        found = [Source(place) for place in places if place is not None]
        return found if len(found) == len(places) else []
    archives = [folder / file.name for file in published if file.members]
    if len(archives) < len(published) or not all(map(os.path.isfile, archives)):
        return []
    return [Member(folder / file.name, member) for file in published for member in file.members]


def _find_file(folder: Path, name: str, endings: tuple[str, ...]) -> Path | None:
    plain = name.removesuffix(".gz")
    for stem in (plain, plain.replace("-idx", ".idx")):
        for ending in endings:
            path = folder / f"{stem}{ending}"
            # Unlike Path.is_file, this is False, not an error, in a folder that may not be read.
            if os.path.isfile(path):
                return path
    return None


def _find_folder(folder: Path, name: str, archive: str) -> Path | None:
    if os.path.isdir(folder / name):
        return folder / name
    return folder / archive if archive and os.path.isfile(folder / archive) else None


def _folders_and_archives(entry: DataSet) -> list[tuple[str, str]]:
    """Pair the folders of a set with the names of their archives, "" if it has none."""
    packed = [(file.folder, file.name) for file in entry.files.published]
    return packed or [(name, "") for name in entry.files.own_folders]


def _absence(entry: DataSet, folders: list[Path], data_dir: str | Path | None) -> str:
    """Say where the files were looked for, which are missing, and how to get them."""
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
            f"{name} or {archive}" if archive else name
            for name, archive in _folders_and_archives(entry)
            if _find_folder(folder, name, archive) is None
        ]
    contents, endings = entry.files.contents, entry.files.endings
    return [name for name in contents if _find_file(folder, name, endings) is None]


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
