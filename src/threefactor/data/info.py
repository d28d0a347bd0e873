"""Whether the files of a data set are there, and a description of it for users."""

from __future__ import annotations

from pathlib import Path

from threefactor.data.dataset import DataSet, FramedSet, ImageFolderSet, SimulatedSet, SpikeSet
from threefactor.data.sets.catalog import lookup
from threefactor.data.where import advice, find_files, search_folders
from threefactor.errors import DataError

__all__ = ["available", "describe"]


def available(name: str, data_dir: str | Path | None = None) -> bool:
    """Return whether the files of a data set are found; their contents are not read.

    Raises:
        ConfigurationError: there is no data set of this name.
    """
    try:
        find_files(lookup(name), data_dir)
    except DataError:
        return False
    return True


def describe(name: str, data_dir: str | Path | None = None) -> str:
    """Describe a data set in a few lines: samples, licence, source, and where its files are.

    Raises:
        ConfigurationError: there is no data set of this name.
    """
    entry = lookup(name)
    samples = f"{entry.train} for training, {entry.test} for testing"
    classes = f"{len(entry.classes)}: {', '.join(entry.classes)}"
    if isinstance(entry, ImageFolderSet):
        classes = f"{entry.class_folders}: named by their folders"
    facts = {
        "samples": samples if entry.train else "as many as your files hold",
        "shape": _shape(entry),
        "classes": classes,
        "licence": entry.licence,
        "source": entry.source,
        "homepage": entry.homepage,
        "files": _whereabouts(entry, data_dir),
    }
    if entry.needs:
        facts["needs"] = entry.needs
    width = max(map(len, facts)) + 2
    return "\n".join([entry.title, *(f"  {key:{width}}{fact}" for key, fact in facts.items())])


def _shape(entry: DataSet) -> str:
    if isinstance(entry, SpikeSet):
        return f"{entry.shape[0]} channels (spike times in seconds)"
    if isinstance(entry, FramedSet):
        return f"{entry.shape[2]}x{entry.shape[1]} pixels, OFF and ON (times in microseconds)"
    return f"{'x'.join(str(size) for size in entry.shape)} (channels, height, width)"


def _whereabouts(entry: DataSet, data_dir: str | Path | None) -> str:
    if isinstance(entry, SimulatedSet):
        loader = f"made by threefactor.data.load_frames({entry.name!r}) from {entry.base.name}"
        return f"{loader}: {_whereabouts(entry.base, data_dir)}"
    if not entry.files.contents:
        return f"{entry.files.not_needed}; nothing to download"
    try:
        return f"found in {find_files(entry, data_dir)[0].path.parent}"
    except DataError:
        folders = ", ".join(str(folder) for folder in search_folders(entry, data_dir))
        return "\n    ".join([f"not found in {folders}", *advice(entry, data_dir)])
