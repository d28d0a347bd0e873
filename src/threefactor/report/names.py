"""The names of learning rules for people, in the order of tables."""

from __future__ import annotations

import re

from threefactor.training.settings import Settings

__all__ = ["RULE_NAMES", "experiment_label", "rule_name"]

RULE_NAMES = {
    "spatial-bp": "spatial BP",
    "exact-bp": "exact BP",
    "opzo": "OPZO",
    "sfdfa": "SFDFA",
    "dkp": "DKP",
    "dfa": "DFA",
    "zo": "ZO",
}


def rule_name(rule: str) -> str:
    """Return a rule's name as papers write it; a rule of one's own keeps its name.

    >>> rule_name("spatial-bp"), rule_name("opzo (w/ LL)"), rule_name("mine")
    ('spatial BP', 'OPZO (w/ LL)', 'mine')
    """
    name, *more = re.split(r"(?=[ ,])", rule, maxsplit=1)
    return RULE_NAMES.get(name, name) + "".join(more)


def experiment_label(settings: Settings) -> str:
    """Return the rule's name with what makes it another method in the papers' tables.

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
