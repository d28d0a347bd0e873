"""Code of users' own that an experiment is made of: what config.json says about it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threefactor.errors import ConfigurationError
from threefactor.plugins import registry
from threefactor.plugins.digest import code_digest
from threefactor.plugins.loading import Plugin, loaded
from threefactor.training.engines import engine_of
from threefactor.training.settings import Settings

__all__ = ["code_digests", "own_code"]

LIBRARY = "threefactor"


def own_code(settings: Settings) -> dict[str, Any] | None:
    """Return what an experiment has that the library has not; None if it has nothing.

    `parts` has each part that settings name: its name, class, plugin, digest of its code, BibTeX.
    `plugins` has the plugins that were loaded for it.
    """
    parts = {one.kind: _part(one) for one in _used(settings)}
    recipe = registry.entry("recipe", settings.recipe)
    if recipe is not None:
        parts["recipe"] = _part(recipe)
    plugins = [one.record for one in _plugins(settings)]
    return {"parts": parts, "plugins": plugins} if parts or plugins else None


def code_digests(settings: Settings) -> dict[str, str | None]:
    """Return the digest of all such code, by the name of its file or plugin.

    Recipes are left out: the settings say all of them.
    """
    found: dict[str, str | None] = {one.name: one.digest for one in _plugins(settings)}
    for one in _used(settings):
        if _plugin_of(one) is None:
            file = _file_of(one)
            found["a session" if file is None else file.name] = _digest(one)
    return found


def _used(settings: Settings) -> list[registry.Entry]:
    """Return the rule, network, data and loss of settings that are not the library's."""
    names: Mapping[registry.Kind, str] = {
        "network": settings.network.kind,
        "data": settings.data.name,
        "loss": settings.loss.kind,
    }
    found = [registry.entry(kind, name) for kind, name in names.items()]
    engine, name = engine_of(settings), settings.rule.name
    try:
        rule = engine.rule(name)
    except ConfigurationError:  # it has a description alone
        return [one for one in found if one is not None and not one.provided]
    # Whoever changes RULES by hand may even have replaced a rule of the library.
    if rule.__module__.split(".")[0] != LIBRARY:
        entry = registry.entry("rule", name)
        same = entry is not None and entry.made is rule
        found.append(entry if same else registry.Entry("rule", name, rule))
    return [one for one in found if one is not None and not one.provided]


def _plugins(settings: Settings) -> list[Plugin]:
    """Return the plugins that were named, and those installed ones that the settings use."""
    used = {
        one.plugin for one in (*_used(settings), registry.entry("recipe", settings.recipe)) if one
    }
    return [one for one in loaded() if not one.installed or one.path in used]


def _part(one: registry.Entry) -> dict[str, Any]:
    plugin, file = _plugin_of(one), _file_of(one)
    found: dict[str, Any] = {"name": one.name}
    if one.kind == "recipe":
        found["title"] = one.made[1]
    else:
        found["class"] = one.source
    found["file"] = plugin.name if plugin is not None else None if file is None else file.name
    found["digest"] = _digest(one)
    return {**found, "cite": one.cite} if one.cite else found


def _plugin_of(one: registry.Entry) -> Plugin | None:
    return next((plugin for plugin in loaded() if plugin.path == one.plugin), None)


def _digest(one: registry.Entry) -> str | None:
    plugin, file = _plugin_of(one), _file_of(one)
    if plugin is not None:
        return plugin.digest
    try:
        return None if file is None else code_digest(file)
    except OSError:
        return None


def _file_of(one: registry.Entry) -> Path | None:
    """Return the file that defines a part; None if it is none, as a cell of a notebook."""
    if one.kind == "recipe":
        return None if one.plugin is None else Path(one.plugin)
    try:
        file = inspect.getsourcefile(one.made)
    except TypeError:
        return None
    return Path(file) if file is not None and Path(file).is_file() else None
