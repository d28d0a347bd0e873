"""What a user may want to know of a data set before loading it."""

from __future__ import annotations

from pathlib import Path

from threefactor.data.folders import advice, find_files, search_folders
from threefactor.data.registry import DataSet, lookup
from threefactor.errors import DataError

__all__ = ["available", "describe"]


def available(name: str, data_dir: str | Path | None = None) -> bool:
    """Tell whether `load` would find the files of a data set; their contents are not read.

    Raises:
        ConfigurationError: there is no data set of this name.
    """
    try:
        find_files(lookup(name), data_dir)
    except DataError:
        return False
    return True


def describe(name: str, data_dir: str | Path | None = None) -> str:
    """Describe a data set in a few lines: what it is, whose, where it was found or is to be had.

    Raises:
        ConfigurationError: there is no data set of this name.
    """
    entry = lookup(name)
    shape = "x".join(str(size) for size in entry.shape)
    facts = {
        "samples": f"{entry.train} for training, {entry.test} for testing",
        "shape": f"{shape} (channels, height, width)",
        "classes": f"{len(entry.classes)}: {', '.join(entry.classes)}",
        "licence": entry.licence,
        "source": entry.source,
        "homepage": entry.homepage,
        "files": _whereabouts(entry, data_dir),
    }
    width = max(map(len, facts)) + 2
    return "\n".join([entry.title, *(f"  {key:{width}}{fact}" for key, fact in facts.items())])


def _whereabouts(entry: DataSet, data_dir: str | Path | None) -> str:
    if not entry.files:
        return "come with scikit-learn; nothing to download"
    try:
        return f"found in {find_files(entry, data_dir)[0].parent}"
    except DataError:
        folders = ", ".join(str(folder) for folder in search_folders(entry, data_dir))
        return "\n    ".join([f"not found in {folders}", *advice(entry, data_dir)])
