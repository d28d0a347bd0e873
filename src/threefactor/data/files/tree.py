"""The files below a folder, each once, whatever links lie between."""

from __future__ import annotations

import os
from pathlib import Path

from threefactor.errors import DataError

__all__ = ["files_below"]


def files_below(folder: str | Path) -> list[str]:
    """Return the paths of all files below a folder, in order; links to folders are followed.

    Names that begin with a dot are passed over.

    Raises:
        DataError: a folder may not be read, or is met twice by way of links.
    """
    found: list[str] = []
    seen: dict[tuple[int, int], str] = {}
    waiting = [str(folder)]
    while waiting:
        place = waiting.pop()
        try:
            about = os.stat(place)
            with os.scandir(place) as entries:
                shown = sorted(
                    (entry.name, entry.is_dir()) for entry in entries if entry.name[0] != "."
                )
        except OSError as error:
            raise DataError(
                f"{error.filename or place} cannot be read ({error.strerror}), so that samples "
                "would be missing; set its rights, or move it out of the folder of its class"
            ) from error
        other = seen.setdefault((about.st_dev, about.st_ino), place)
        if other != place:
            raise DataError(
                f"{place} is the same folder as {other}, by way of a link, so that its samples "
                "would count more than once; remove the link"
            )
        found += [os.path.join(place, name) for name, deep in shown if not deep]
        waiting += [os.path.join(place, name) for name, deep in reversed(shown) if deep]
    return found
