"""BibTeX of exactly what an experiment used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files

from threefactor import clocked, events
from threefactor.data.sets.catalog import DATASETS
from threefactor.errors import unknown_name
from threefactor.readable import readable
from threefactor.recipes import recipe as find_recipe
from threefactor.training.settings import Settings
from threefactor.version import __version__

__all__ = ["REFERENCES", "citation", "cite_settings", "references"]

_TRACES, _EXACT_TIMES, _OPZO = "xiao2022ottt", "bacho2023tradeoffs", "xiao2026opzo"

REFERENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "rule": {
        "spatial-bp": (),  # backpropagation within a time step, as in the paper of the traces
        "dfa": ("nokland2016dfa",),
        "dkp": ("webster2020dkp",),
        "zo": ("spall1992spsa", _OPZO),
        "opzo": (_OPZO,),
        "exact-bp": (),  # that of exact spike times themselves
        "sfdfa": ("bacho2024sfdfa",),
    },
    "network": {
        "fc": (),
        "conv5": ("brock2021signal",),
        "conv9": ("brock2021signal",),
        "nf-resnet34": ("brock2021signal",),
        "events-fc": (),
        "own-clocked": (),
        "own-events": (),
    },
}
"""Keys in `references.bib` of what rules and networks are built on, by name.

Those of a data set are in its description, `data.DATASETS[name].references`.
"""


def citation(rule: str | None = None, recipe: str | None = None) -> str:
    """Return the BibTeX of a rule, of a recipe with its rule, or of threefactor alone.

    It contains the papers of the rule, of the engine (OTTT for the traces on a time grid; exact
    spike times), of the network and of the data, and threefactor itself. Both engines have DFA;
    its engine is known only with a recipe.

    Args:
        rule: name of a rule; with a recipe, its own by default.
        recipe: name of a recipe.

    Raises:
        ConfigurationError: if a name is not known, or the rule does not train the recipe.

    Example:
        >>> print(citation("spatial-bp").splitlines()[0])
        @inproceedings{xiao2022ottt,
    """
    if recipe is not None:
        return cite_settings([find_recipe(recipe).settings_for(rule)])
    if rule is None:
        return _bibtex(["threefactor"])
    engines = {_TRACES: list(clocked.RULES), _EXACT_TIMES: list(events.RULES)}
    having = [key for key, rules in engines.items() if rule in rules]
    if not having:
        raise unknown_name("rule", rule, {**clocked.RULES, **events.RULES})
    known = REFERENCES["rule"].get(rule)
    keys = [*(known or ()), *(having if len(having) == 1 else ()), "threefactor"]
    return _foreign([] if known is not None else [f"rule {rule!r}"]) + _bibtex(keys)


def cite_settings(experiments: Iterable[Settings]) -> str:
    """Return the BibTeX of experiments, such as those of a report, with each entry once.

    A comment names rules and data that threefactor does not have: their author knows what to cite.
    """
    experiments = list(experiments)
    keys = dict.fromkeys(key for settings in experiments for key in _keys(settings))
    foreign = dict.fromkeys(name for settings in experiments for name in _own_parts(settings))
    return _foreign(list(foreign)) + _bibtex([*keys, "threefactor"])


@cache
def references() -> dict[str, str]:
    """Return all entries of `references.bib` by key."""
    text = files("threefactor.report").joinpath("references.bib").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=@)", text.strip())
    named = {entry[entry.index("{") + 1 : entry.index(",")]: entry.strip() for entry in entries}
    return {key: entry.replace("{VERSION}", f"{{{__version__}}}") for key, entry in named.items()}


def _keys(settings: Settings) -> Iterator[str]:
    yield from REFERENCES["rule"].get(settings.rule.name, ())
    if settings.rule.options.get("local_learning") is not None:
        yield "kaiser2020decolle"
    if settings.rule.options.get("local_learning") or settings.rule.options.get("intermediate"):
        yield _OPZO
    exact = settings.network.kind in ("events-fc", "own-events")
    yield _EXACT_TIMES if exact else _TRACES
    yield from REFERENCES["network"].get(settings.network.kind, ())
    entry = DATASETS.get(settings.data.name)
    yield from entry.references if entry is not None else ()


def _own_parts(settings: Settings) -> Iterator[str]:
    """Give what these settings use and threefactor does not have."""
    if settings.rule.name not in REFERENCES["rule"]:
        yield f"rule {settings.rule.name!r}"
    if settings.data.name not in DATASETS:
        yield f"data set {settings.data.name!r}"


def _foreign(parts: Sequence[str]) -> str:
    lines = (f"% {readable(part)} is not part of threefactor: ask its author.\n" for part in parts)
    return "".join(lines) + ("\n" if parts else "")


def _bibtex(keys: Iterable[str]) -> str:
    return "\n\n".join(references()[key] for key in keys)
