"""The kinds of one's own data by name, and which of them a folder or file may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from threefactor.data.arguments import given_path
from threefactor.data.files.source import listed
from threefactor.data.files.tree import files_below
from threefactor.data.own import recordings, spikes, tensors
from threefactor.data.own.huggingface import FILES, huggingface
from threefactor.data.own.images import images
from threefactor.data.samples.image_folder import ENDINGS as IMAGE_ENDINGS
from threefactor.data.samples.own import OwnData
from threefactor.errors import ConfigurationError, DataError

__all__ = ["KINDS", "recognise"]

KINDS: Mapping[str, Callable[..., OwnData]] = {
    "images": images,
    "events": recordings.recordings,
    "spikes": spikes.spikes,
    "tensors": tensors.tensors,
    "huggingface": huggingface,
}
"""Functions that load one's own data; settings name them as `data.name`."""
IN_FOLDERS = {"images": IMAGE_ENDINGS, "events": recordings.ENDINGS}
AS_FILES = {"spikes": spikes.ENDINGS, "tensors": tensors.ENDINGS}


def recognise(path: str | Path) -> str:
    """Return which kind of data a folder or file is, by the names of its files.

    A folder of folders holds images or events, and a folder of files spikes or tensors. One that
    Hugging Face's library datasets wrote has a file that says so.

    Raises:
        ConfigurationError: if it may be several kinds.
        DataError: if it is absent, or none.
    """
    place = given_path(path)
    if any((place / name).is_file() for name in FILES):
        return "huggingface"
    if place.is_dir():
        folders = any(one.is_dir() for one in listed(place))
        names = files_below(place) if folders else [str(one) for one in listed(place)]
        kinds = IN_FOLDERS if folders else AS_FILES
    elif place.is_file():
        names, kinds = [str(place)], AS_FILES
    else:
        raise DataError(f"{place} is neither a folder nor a file; check the path")
    counts = {
        kind: sum(name.lower().endswith(endings) for name in names)
        for kind, endings in kinds.items()
    }
    found = [kind for kind, count in counts.items() if count]
    if len(found) > 1:
        raise ConfigurationError(
            f"{place} holds files of several kinds ({', '.join(f'{counts[k]} {k}' for k in found)}"
            f"); say which one, as {found[0]}:{place}"
        )
    if not found:
        known = "; ".join(
            f"{kind}: {', '.join(ends)}" for kind, ends in (IN_FOLDERS | AS_FILES).items()
        )
        raise DataError(
            f"{place} holds none of the known files. In folders of classes, or files: {known}"
        )
    return found[0]
