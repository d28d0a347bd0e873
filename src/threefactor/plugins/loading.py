"""Plugins: code of users' own that registers rules, networks, data, losses and recipes.

A plugin is a file (`my.py`), a folder with an `__init__.py`, or a module that Python finds
(`mylib`). To load it is to run it. An installed distribution may name plugins in the group
`threefactor.plugins` of its entry points.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from threefactor import clocked, events
from threefactor.clocked.foreign.neurons import registered_kinds
from threefactor.errors import ConfigurationError, warn_user
from threefactor.plugins import registry, trust
from threefactor.plugins.digest import code_digest
from threefactor.readable import clipped

__all__ = ["GROUP", "Plugin", "load", "load_installed", "loaded", "name_of_rule", "recall", "told"]

GROUP = "threefactor.plugins"
ADVICE = "see docs/plugins.md"


@dataclass(frozen=True)
class Plugin:
    """A plugin that is loaded.

    Attributes:
        name: as its user gave it, such as "my.py"; a file's without its folder.
        path: of the file, or of the folder of a package.
        module: its name in Python.
        digest: of its code.
        by_path: whether it was given as a path, not as the name of a module.
        installed: whether an installed distribution names it in its entry points.
        version: of the distribution that it came with, if any.
        registers: what it registered, such as "rule mine".
    """

    name: str
    path: str
    module: str
    digest: str
    by_path: bool = True
    installed: bool = False
    version: str | None = None
    registers: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where another process finds it: the path of a file, the name of a module."""
        return self.path if self.by_path else self.module

    @property
    def specs(self) -> tuple[str, ...]:
        """What another process loads, with the classes that were named by their place."""
        return _specs(self.place, self.registers)

    @property
    def record(self) -> dict[str, Any]:
        """What a run folder remembers of it."""
        found = {
            "plugin": self.name,
            "place": self.place,
            "path": self.path,
            "digest": self.digest,
            "registers": list(self.registers),
        }
        return found if self.version is None else {**found, "version": self.version}


_LOADED: dict[str, Plugin] = {}
_SAID: set[str] = set()
"""Entry points that could not be loaded, which is said once."""


def loaded() -> tuple[Plugin, ...]:
    """Return the plugins that are loaded, in order."""
    return tuple(_LOADED.values())


def load(spec: str) -> Plugin:
    """Load a plugin: import it, which runs it, and note what it registers.

    Whoever calls this trusts the code. A run folder that names the plugin may use it again on this
    machine, as long as the code does not change.

    Args:
        spec: `my.py`, a folder, or the name of a module; `:MyRule` after it registers a class of
            rules by its place.

    Raises:
        ConfigurationError: names the plugin: if it is not found, fails, registers nothing, or a
            name that is taken; or if its code was changed since it was loaded.

    Example:
        >>> load("no_such_module")
        Traceback (most recent call last):
        ...
        threefactor.errors.ConfigurationError: plugin 'no_such_module' was not found: there is no \
such module; give a file as --plugin my.py, or install the module
    """
    plugin = _load(spec)
    trust.remember(plugin.place, plugin.path, plugin.digest)
    return plugin


def load_installed() -> None:
    """Load what installed distributions name as plugins of this library.

    Warns:
        UserWarning: names a plugin that cannot be loaded; the others are.
    """
    for point in metadata.entry_points(group=GROUP):
        what = f"{point.name} = {point.value}"
        if what in _SAID:
            continue
        try:
            _load(point.value, point)
        except ConfigurationError as problem:
            _SAID.add(what)
            dist = "" if point.dist is None else f" of {point.dist.name}"
            warn_user(f"the entry point {what}{dist} in the group {GROUP} is left out: {problem}")


def name_of_rule(spec: str) -> str:
    """Return the name of a rule; one that is given by its place, as `mylib:MyRule`, is loaded.

    Raises:
        ConfigurationError: see `load`.
    """
    _place, class_name = _split(spec)
    if not class_name or registry.entry("rule", spec) is not None:
        return spec
    plugin = load(spec)
    made = getattr(sys.modules[plugin.module], class_name)
    return next(name for name, one in registry.entries("rule").items() if one.made is made)


def recall(records: Any, run: str | Path) -> None:
    """Load the plugins that a run folder remembers, as far as this user trusts them.

    The folder may come from anybody, and could name any code. So a plugin is imported only if its
    user loaded just this code, in this place, before; what installed distributions name as plugins
    is loaded anyway.

    Args:
        records: of the plugins, from config.json.
        run: the folder, for messages.

    Raises:
        ConfigurationError: names the plugin that is gone, was changed, or was never loaded here by
            this user; and says how to load it.
    """
    load_installed()
    here = loaded()
    for record in _checked(records, run):
        name, place, path = record["plugin"], record["place"], record["path"]
        if any(one.digest == record["digest"] for one in here):
            continue
        if any(place == one.place or name == one.name for one in here):
            continue  # it was changed since, and given all the same: a warning says so later
        said = f"{run} was trained with the plugin {clipped(name)} ({clipped(path)})"
        try:
            now = code_digest(Path(path))
        except (OSError, ValueError):
            raise ConfigurationError(
                f"{said}, which is gone; give the place of the same code as --plugin PATH"
            ) from None
        if now != record["digest"]:
            raise ConfigurationError(
                f"{said}, which was changed since (digest {clipped(record['digest'])} then, {now} "
                f"now); put it back as it was, or add --plugin {place} to use it as it is now"
            )
        if not trust.is_trusted(place, path, now):
            raise ConfigurationError(
                f"{said}. That is code which this command would run, and a run folder may come "
                f"from anybody: look at it, then add --plugin {place}"
            )
        for spec in _specs(place, record["registers"]):
            _load(spec)


def _specs(place: str, registers: Iterable[str]) -> tuple[str, ...]:
    classes = [one.partition(":")[2] for one in registers if one.startswith("rule ") and ":" in one]
    return tuple(f"{place}:{name}" for name in classes) or (place,)


class _Record(TypedDict):
    """What config.json says of a plugin."""

    plugin: str
    place: str
    path: str
    digest: str
    registers: list[str]


_RECORDS = TypeAdapter(list[_Record], config=ConfigDict(strict=True))


def _checked(records: Any, run: str | Path) -> list[_Record]:
    try:
        return _RECORDS.validate_python(records)
    except ValidationError:
        raise ConfigurationError(
            f"config.json of {run} is damaged: its plugins are {clipped(records)}"
        ) from None


def _load(spec: str, point: metadata.EntryPoint | None = None) -> Plugin:
    if not isinstance(spec, str) or not spec.strip():
        raise ConfigurationError(f"plugin is {clipped(spec)}; give a file or the name of a module")
    place, class_name = _split(spec)
    path, module, is_file = _find(place)
    try:
        digest = code_digest(path)
    except OSError as problem:
        raise ConfigurationError(f"plugin {place!r} cannot be read: {problem.strerror}") from None
    there = _LOADED.get(str(path))
    if there is not None and there.digest != digest:
        raise ConfigurationError(
            f"plugin {place!r} was changed since this process loaded it; start a new process"
        )
    if there is not None and not class_name:
        return there
    before = _registered()
    with registry.loaded_by(str(path)), _undone(path):
        module = _import(place, path, module, is_file) if there is None else there.module
        if class_name:
            _register_class(place, module, class_name)
        _refuse_replaced(place, before)
        registry.adopt(str(path), module)
        registered = [k for k, one in registry.entries().items() if one.plugin == str(path)]
        after = _registered()
        registered += sorted(f"neuron {name}" for name in after["neuron"] - before["neuron"])
        if there is not None:
            registered = list(dict.fromkeys((*there.registers, *registered)))
        if not registered:
            raise ConfigurationError(
                f"plugin {place!r} registers nothing; put @threefactor.register_rule('name') above "
                f"a class in it, or another of these, or name a rule as {place}:MyRule; {ADVICE}"
            )
    name = Path(place).name if is_file else place
    dist = None if point is None else point.dist
    version = dist.version if dist is not None else None if is_file else _version(module)
    plugin = Plugin(
        name, str(path), module, digest, is_file, point is not None, version, tuple(registered)
    )
    _LOADED[str(path)] = plugin
    return plugin


def _split(spec: str) -> tuple[str, str]:
    """Separate a plugin from the name of a class in it, which may be empty."""
    place, colon, name = spec.rpartition(":")
    return (place, name) if colon and place and name.isidentifier() else (spec, "")


def _find(place: str) -> tuple[Path, str, bool]:
    """Return the path of a plugin, its name in Python, and whether it was given as a path.

    Raises:
        ConfigurationError: if it is not found.
    """
    given = Path(place).expanduser()
    if given.suffix == ".py" or os.sep in place or "/" in place:
        file = given / "__init__.py" if given.is_dir() else given
        if not file.is_file():
            what = "a folder without __init__.py" if given.is_dir() else "not a file"
            raise ConfigurationError(f"plugin {place!r} was not found: {clipped(place)} is {what}")
        path = file.resolve()
        stem = path.parent.name if file.name == "__init__.py" else path.stem
        return (path.parent if file.name == "__init__.py" else path), stem, True
    if given.is_file():
        raise ConfigurationError(
            f"plugin {place!r} is a file that does not end in .py; give Python code (a recipe file "
            "is given in the place of a recipe's name)"
        )
    try:
        found = importlib.util.find_spec(place)
    except Exception as problem:  # a package above it, which this imports, may fail in any way
        raise ConfigurationError(
            f"plugin {place!r} cannot be loaded: {type(problem).__name__}: {problem}"
        ) from problem
    if found is None:
        beside = [name for name in (f"{place}.py", f"{place}/__init__.py") if Path(name).is_file()]
        hint = "give a file as --plugin my.py, or install the module"
        if beside:
            hint = f"there is {beside[0]} here: give --plugin ./{beside[0].split('/')[0]}"
        raise ConfigurationError(f"plugin {place!r} was not found: there is no such module; {hint}")
    folders = list(found.submodule_search_locations or ())
    where = folders[0] if folders else found.origin
    if where is None or not os.path.exists(where):
        raise ConfigurationError(f"plugin {place!r} has no file; give a module that has one")
    return Path(where).resolve(), place, False


@contextmanager
def _undone(path: Path) -> Iterator[None]:
    """Forget on an error what was imported from the folder of a plugin, and that folder."""
    modules, places = set(sys.modules), list(sys.path)
    try:
        yield
    except BaseException:
        folder = _folder(path)
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
                del sys.modules[name]
        sys.path[:] = places
        raise


def _folder(path: Path) -> str:
    return str(path if path.is_dir() else path.parent) + os.sep


def _import(place: str, path: Path, module: str, is_file: bool) -> str:
    """Import a plugin; return its name in Python."""
    try:
        if not is_file:
            importlib.import_module(module)
            return module
        return _import_file(path, module)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # a script may end the program, and code may fail in any way
        raise ConfigurationError(
            f"plugin {place!r} cannot be loaded: {told(problem, _folder(path))}"
        ) from problem


def _import_file(path: Path, stem: str) -> str:
    name = stem
    while name in sys.modules or not name.isidentifier():  # such as torch.py, or 2nd-rule.py
        name = "plugin_" + "".join(c if c.isalnum() else "_" for c in name)
    inner = [str(path)] if path.is_dir() else None
    file = path / "__init__.py" if path.is_dir() else path
    found = importlib.util.spec_from_file_location(name, file, submodule_search_locations=inner)
    assert found is not None and found.loader is not None
    made = importlib.util.module_from_spec(found)
    sys.modules[name] = made
    with _beside(path.parent):
        found.loader.exec_module(made)
    return name


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Let a file import what lies beside it: first while it is imported, last ever after."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def told(problem: BaseException, folder: str = "") -> str:
    """Say what went wrong in code of a user's own, and in which line.

    Args:
        problem: what it raised.
        folder: of the code; by default that of the innermost frame counts.
    """
    if isinstance(problem, SystemExit):
        what = "it ended the program, as a script does: put that under if __name__ == '__main__'"
    elif isinstance(problem, ConfigurationError):
        what = str(problem)
    else:
        what = f"{type(problem).__name__}: {str(problem) or 'without a word'}"
    lines = [
        f"{Path(frame.filename).name}, line {frame.lineno}"
        for frame in traceback.extract_tb(problem.__traceback__)
        if frame.filename.startswith(folder)
    ]
    return f"{what} ({lines[-1]})" if lines else what


def _register_class(place: str, module: str, class_name: str) -> None:
    made = getattr(sys.modules[module], class_name, None)
    if made is None:
        raise ConfigurationError(f"plugin {place!r} has no class {class_name!r}")
    if any(one.made is made for one in registry.entries("rule").values()):
        return
    stem = Path(place).stem if place.endswith(".py") else Path(place).name
    registry.register_rule(f"{stem}:{class_name}")(made)


def _registered() -> dict[str, Any]:
    neurons = {f"{kind.__module__}.{kind.__qualname__}" for kind in registered_kinds()}
    rules = [dict(room.RULES) for room in (clocked, events)]
    return {"neuron": neurons, "rules": rules}


def _refuse_replaced(place: str, before: Mapping[str, Any]) -> None:
    """Refuse a plugin that put something else in the place of a rule."""
    for room, rules in zip((clocked, events), before["rules"], strict=True):
        for name, kind in rules.items():
            if room.RULES.get(name) is not kind:
                raise ConfigurationError(
                    f"plugin {place!r} replaces the rule {name!r} in RULES; register its own under "
                    "another name"
                )


def _version(module: str) -> str | None:
    """Return the version of the distribution that a module came with, if there is one."""
    top = module.partition(".")[0]
    names = metadata.packages_distributions().get(top, ())
    return metadata.version(names[0]) if names else None
