"""Names of the parts of a page: of files and addresses, safe on every system, none twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

__all__ = ["part_names", "slug"]

LONGEST = 100  # letters; file systems allow 255, with the ending
_DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)\d")  # no file of such a name on Windows


def slug(title: str) -> str:
    """Return a title as part of an address or file name.

    >>> slug("MNIST: test accuracy (%)")
    'mnist-test-accuracy'
    >>> slug("../../etc/passwd"), slug("日本"), slug("NUL")
    ('etc-passwd', 'part', 'part-nul')
    """
    found = re.sub(r"[^a-z0-9]+", "-", title.lower())[:LONGEST].strip("-")
    return f"part-{found}".strip("-") if _DEVICES.fullmatch(found) or not found else found


def part_names(titles: Sequence[tuple[Any, str]]) -> dict[int, str]:
    """Return a name for each part of a page, by the part's `id`.

    Args:
        titles: parts with what they are called, in order; one that is called as an earlier one
            gets a number.
    """
    found: dict[int, str] = {}
    used: set[str] = set()
    for part, title in titles:
        name = base = slug(title)
        number = 2
        while name in used:
            ending = f"-{number}"
            name, number = base[: LONGEST - len(ending)].strip("-") + ending, number + 1
        used.add(name)
        found[id(part)] = name
    return found
