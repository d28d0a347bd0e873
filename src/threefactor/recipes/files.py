"""Recipes as files: TOML, or YAML where a reader of it is installed."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from threefactor.errors import ConfigurationError, unknown_name
from threefactor.readable import clipped
from threefactor.recipes.recipe import Recipe
from threefactor.training.build import rule_options
from threefactor.training.engines import engine_of
from threefactor.training.settings import Settings, make_settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ENDINGS", "NULL", "from_document", "read_document", "recipe_toml"]

ENDINGS = (".toml", ".yaml", ".yml")
NULL = "null"
"""Stands for no value in TOML, which has none."""
OTHER_KEYS = ("recipe", "title", "base", "per_rule")
NAMES = {"data": "name", "network": "kind", "rule": "name", "loss": "kind"}
NAMES.update(optimizer="name", scheduler="name")
"""The setting that says what a group is about; if it is another one, the base's does not count."""
LARGEST = 1 << 20  # bytes
YAML_WORDS = (
    ("null", re.compile(r"(null|Null|NULL|~|)$"), [*"nN~", ""]),
    ("bool", re.compile(r"([tT]rue|TRUE|[fF]alse|FALSE)$"), [*"tTfF"]),
    ("int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), [*"-+0123456789"]),
    (
        "float",
        re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$"),
        [*"-+.0123456789"],
    ),
)
"""What is no text in YAML 1.2, with its first letters. In YAML 1.1, as PyYAML reads it, 010 is 8,
1:30 is 90, no is false and 1e-3 a text."""


def read_document(path: Path) -> dict[str, Any]:
    """Read a recipe file; its name is the file's if it does not say one.

    Raises:
        ConfigurationError: if it cannot be read; names file and line.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigurationError(f"{path} is larger than a recipe can be; give another file")
        text = path.read_text(encoding="utf-8-sig")  # some editors on Windows begin with a mark
    except (OSError, UnicodeDecodeError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise ConfigurationError(f"recipe {path} cannot be read: {why}") from problem
    try:
        is_toml = path.suffix.lower() == ".toml"
        found = _without_null(tomllib.loads(text)) if is_toml else _yaml(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as problem:
        raise ConfigurationError(f"recipe {path} cannot be read: {problem}") from problem
    if not (isinstance(found, dict) and found):
        raise ConfigurationError(f"recipe {path} holds {clipped(found)}; give settings by name")
    return {"recipe": path.stem, **found}


def from_document(
    document: Mapping[str, Any], find: Callable[[str], Recipe], where: str
) -> tuple[str, Recipe]:
    """Make a recipe of what a file holds; return it with its name.

    Args:
        document: settings by group, as in config.json; and `recipe` (the name), `title`, `base`
            (the name of a recipe whose settings count where the file has none), and `per_rule`
            (what is different for some rules).
        find: finds the base.
        where: the file, for messages.

    Raises:
        ConfigurationError: names the file, and the key or value that is wrong.
    """
    try:
        return _from_document(document, find)
    except ConfigurationError as problem:
        raise ConfigurationError(f"recipe {where}: {problem}") from problem


def recipe_toml(recipe: Recipe) -> str:
    """Return a recipe as TOML, from which `read_document` makes the same recipe again."""
    values = json.loads(json.dumps(dataclasses.asdict(recipe.settings)))
    document = {
        "recipe": values.pop("recipe"),
        "title": recipe.title,
        **{key: value for key, value in values.items() if not isinstance(value, dict)},
        **{key: value for key, value in values.items() if isinstance(value, dict)},
    }
    if recipe.per_rule:
        document["per_rule"] = {rule: dict(each) for rule, each in recipe.per_rule.items()}
    return "\n".join(_tables(document)).strip() + "\n"


def _from_document(
    document: Mapping[str, Any], find: Callable[[str], Recipe]
) -> tuple[str, Recipe]:
    fields = [field.name for field in dataclasses.fields(Settings)]
    for key in document:
        if key not in (*fields, *OTHER_KEYS):
            raise unknown_name("key", key, {*fields, *OTHER_KEYS})
    name, title = document.get("recipe"), document.get("title", "")
    for key, value in (("recipe", name), ("title", title)):
        if not isinstance(value, str):
            raise ConfigurationError(f"{key} is {clipped(value)}; give a text")
    given = {key: value for key, value in document.items() if key in fields}
    values, per_rule = given, dict[str, dict[str, Any]]()
    if document.get("base") is not None:
        base = find(document["base"])
        values = _merged(dataclasses.asdict(base.settings), given)
        per_rule = {rule: dict(each) for rule, each in base.per_rule.items()}
        title = title or base.title
    changes = document.get("per_rule") or {}
    if not (isinstance(changes, Mapping) and all(isinstance(v, Mapping) for v in changes.values())):
        raise ConfigurationError(f"per_rule is {clipped(changes)}; give settings by rule")
    for key, each in changes.items():
        per_rule[key] = {**per_rule.get(key, {}), **dict(_flat(each))}
    made = Recipe(title, make_settings(values), per_rule)
    rule = made.settings.rule
    known = engine_of(made.settings).rule_options(rule.name)
    for key in rule.options:
        if key not in known:
            raise unknown_name(f"rule.options of {rule.name!r}:", key, known)
    rule_options(made.settings_for())
    for name_of_rule in changes:
        try:
            rule_options(made.settings_for(name_of_rule))
        except ConfigurationError as problem:
            raise ConfigurationError(f"per_rule.{name_of_rule}: {problem}") from problem
    return str(name), made


def _merged(base: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those of a file in the place of the base's."""
    merged = dict(base)
    for key, value in given.items():
        there = base.get(key)
        if not (isinstance(value, Mapping) and isinstance(there, dict)):
            merged[key] = value
            continue
        name = NAMES.get(key)
        if name is not None and value.get(name, there.get(name)) != there.get(name):
            # Another network or loss has other fields; another rule or data set other options.
            kept = {} if name == "kind" else {k: v for k, v in there.items() if k != "options"}
            merged[key] = {**kept, **value}
        else:
            merged[key] = {**there, **value}
            if isinstance(value.get("options"), Mapping):
                merged[key]["options"] = {**there.get("options", {}), **value["options"]}
    return merged


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give settings by full name; TOML makes tables of a name with dots that is not in quotes."""
    for key, value in values.items():
        if isinstance(value, Mapping) and "." not in key:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_null(one) for one in value]
    return None if value == NULL else value


def _tables(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the lines of a TOML table: its values, then the tables within it."""
    if path:
        yield f"\n[{'.'.join(map(_key, path))}]"
    inner = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    for key, value in values.items():
        if key not in inner:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in inner.items():
        yield from _tables(value, (*path, key))


def _key(name: str) -> str:
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isalnum() and name.isascii() else json.dumps(name)


def _value(value: Any) -> str:
    if value is None:
        return json.dumps(NULL)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)  # strings, numbers and truth values are written alike


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as problem:
        raise ConfigurationError(
            "recipes in YAML need PyYAML; install it with: pip install 'threefactor[yaml]', or "
            "write the recipe in TOML"
        ) from problem

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """PyYAML's without aliases, which can make a small file huge, and without keys given twice,
        of which it would keep the last. Words and numbers are those of YAML 1.2."""

        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("a recipe cannot have aliases (*name); write the value again")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key in keys:
                if not isinstance(key, str) or keys.count(key) > 1:
                    line = node.start_mark.line + 1
                    raise ValueError(f"line {line}: key {key!r} is no text, or there twice")
            return super().construct_mapping(node, deep)

    for kind, pattern, first in YAML_WORDS:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", pattern, first)
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as problem:
        raise ValueError(" ".join(str(problem).split())) from problem
