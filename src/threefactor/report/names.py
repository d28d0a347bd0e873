"""Names of rules for people, and names of the parts of a page for files and addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from threefactor.training.settings import Settings

__all__ = ["RULE_NAMES", "experiment_label", "part_names", "rule_name", "slug"]

RULE_NAMES = {
    "spatial-bp": "spatial BP",
    "exact-bp": "exact BP",
    "opzo": "OPZO",
    "sfdfa": "SFDFA",
    "dkp": "DKP",
    "dfa": "DFA",
    "zo": "ZO",
}
LONGEST = 100  # letters; file systems allow 255, with the ending
_DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)\d")  # no file of such a name on Windows


def rule_name(rule: str) -> str:
    """Return the name of a rule as papers write it; other rules keep their name.

    >>> rule_name("spatial-bp"), rule_name("opzo (w/ LL)"), rule_name("mine")
    ('spatial BP', 'OPZO (w/ LL)', 'mine')
    """
    name, *more = re.split(r"(?=[ ,])", rule, maxsplit=1)
    return RULE_NAMES.get(name, name) + "".join(more)


def experiment_label(settings: Settings) -> str:
    """Return the rule's name with the options that make it a method of its own in the papers.

    "w/ LL" is local learning, "IGL" intermediate global learning; noise is that of the hardware;
    folds are those that the training samples are split into.
    """
    options = settings.rule.options
    local, middle = options.get("local_learning"), options.get("intermediate")
    parts = ["LL" if local == "same-weights" else f"LL, {local}"] if local else []
    parts += ["IGL"] if middle else []
    label = rule_name(settings.rule.name) + (f" (w/ {'&'.join(parts)})" if parts else "")
    if settings.hardware_noise is not None:
        label += f", noise {settings.hardware_noise:g}"
    if settings.data.folds is not None:
        label += f", {settings.data.folds} folds"
    return label


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
        titles: parts with their titles, in order. A part with the name of an earlier one gets a
            number.
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
