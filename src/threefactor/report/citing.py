"""BibTeX of exactly what an experiment used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files

from threefactor import clocked, events
from threefactor.data.sets.catalog import DATASETS
from threefactor.errors import unknown_name
from threefactor.plugins.registry import entry
from threefactor.readable import readable
from threefactor.recipes import recipe as find_recipe
from threefactor.training.settings import (
    EventNetworkSettings,
    RegisteredLossSettings,
    RegisteredNetworkSettings,
    Settings,
)
from threefactor.version import __version__

__all__ = ["REFERENCES", "citation", "cite_settings", "references"]

_TRACES, _EXACT_TIMES, _OPZO = "xiao2022ottt", "bacho2023tradeoffs", "xiao2026opzo"

KINDS = {"data": "data set"}
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
    return _foreign([] if known is not None else [("rule", rule)], {}) + _bibtex(keys)


def cite_settings(
    experiments: Iterable[Settings], own: Mapping[tuple[str, str], str] | None = None
) -> str:
    """Return the BibTeX of experiments, such as those of a report, with each entry once.

    Parts that threefactor does not have come with the BibTeX that was registered with them, or else
    with a comment that names them: their author knows what to cite.

    Args:
        experiments: their settings.
        own: BibTeX of parts of a user's own, by kind and name, as run folders remember it; for
            parts that are not registered here.
    """
    experiments = list(experiments)
    own = own or {}
    keys = dict.fromkeys(key for settings in experiments for key in _keys(settings, own))
    foreign = dict.fromkeys(part for settings in experiments for part in _own_parts(settings, own))
    return _foreign(list(foreign), own) + _bibtex([*keys, "threefactor"])


@cache
def references() -> dict[str, str]:
    """Return all entries of `references.bib` by key."""
    text = files("threefactor.report").joinpath("references.bib").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=@)", text.strip())
    named = {entry[entry.index("{") + 1 : entry.index(",")]: entry.strip() for entry in entries}
    return {key: entry.replace("{VERSION}", f"{{{__version__}}}") for key, entry in named.items()}


def _keys(settings: Settings, own: Mapping[tuple[str, str], str]) -> Iterator[str]:
    if ("rule", settings.rule.name) not in own:
        yield from REFERENCES["rule"].get(settings.rule.name, ())
    if settings.rule.options.get("local_learning") is not None:
        yield "kaiser2020decolle"
    if settings.rule.options.get("local_learning") or settings.rule.options.get("intermediate"):
        yield _OPZO
    network = settings.network
    exact = network.kind == "own-events" or getattr(network, "engine", None) == "events"
    yield _EXACT_TIMES if exact or isinstance(network, EventNetworkSettings) else _TRACES
    yield from REFERENCES["network"].get(settings.network.kind, ())
    entry = DATASETS.get(settings.data.name)
    yield from entry.references if entry is not None else ()


def _own_parts(settings: Settings, own: Mapping[tuple[str, str], str]) -> Iterator[tuple[str, str]]:
    """Give what these settings use and threefactor does not have, by kind and name."""
    rule = ("rule", settings.rule.name)
    if settings.rule.name not in REFERENCES["rule"] or rule in own:
        yield rule
    if settings.data.name not in DATASETS:
        yield "data", settings.data.name
    if isinstance(settings.network, RegisteredNetworkSettings):
        yield "network", settings.network.kind
    loss = settings.loss
    if isinstance(loss, RegisteredLossSettings) and loss.kind not in clocked.TORCH_LOSSES:
        yield "loss", loss.kind
    recipe = ("recipe", settings.recipe)
    if recipe in own or entry(*recipe) is not None:
        yield recipe


def _foreign(parts: Sequence[tuple[str, str]], own: Mapping[tuple[str, str], str]) -> str:
    said, texts = "", dict[str, None]()
    for kind, name in parts:
        known = entry(kind, name)
        cite = own.get((kind, name)) or ("" if known is None else known.cite)
        if cite.strip():
            texts[cite.strip()] = None
        elif known is not None and known.provided:  # a kind of data of one's own
            said += f"% data of one's own ({readable(name)}): cite where they come from.\n"
        elif kind != "recipe":
            what = readable(f"{KINDS.get(kind, kind)} {name!r}")
            said += f"% {what} is not part of threefactor: ask its author.\n"
    return said + ("\n" if said else "") + "".join(f"{text}\n\n" for text in texts)


def _bibtex(keys: Iterable[str]) -> str:
    return "\n\n".join(references()[key] for key in keys)
