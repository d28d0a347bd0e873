"""Which plugins this user has loaded on this machine, so that run folders may use them again.

A run folder is data, and may come from anybody: it names its plugins with a path and a digest, and
whoever made it chose both. So the folder decides nothing. What decides is a note, in the user's
own cache folder, that the user loaded just this code from this place before.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["is_trusted", "remember"]


def remember(place: str, path: str, digest: str) -> None:
    """Note that the user loaded this code. Where nothing can be written, nothing is noted.

    Args:
        place: the path or the name of a module by which it was loaded.
        path: of the file or folder.
        digest: of the code in it.
    """
    note = _note(place, path, digest)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{digest} {place} {path}\n", encoding="utf-8", errors="replace")
    except OSError:  # then the plugin has to be named again
        return


def is_trusted(place: str, path: str, digest: str) -> bool:
    """Whether the user loaded this code from this place before."""
    return os.path.isfile(_note(place, path, digest))


def _note(place: str, path: str, digest: str) -> Path:
    import pooch  # slow to import

    name = hashlib.sha256(
        "\0".join((digest, place, path)).encode(errors="surrogateescape")
    ).hexdigest()
    return Path(pooch.os_cache("threefactor")) / "plugins" / name
