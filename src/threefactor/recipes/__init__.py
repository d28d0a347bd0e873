"""The settings of each published experiment, and of small ones, by name; and one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from threefactor.errors import ConfigurationError, unknown_name
from threefactor.plugins import registry
from threefactor.readable import clipped
from threefactor.recipes.clocked import CLOCKED
from threefactor.recipes.events import EVENTS
from threefactor.recipes.files import ENDINGS, from_document, read_document, recipe_toml
from threefactor.recipes.finetuning import finetuning
from threefactor.recipes.recipe import Recipe
from threefactor.training.settings import Settings

__all__ = [
    "RECIPES",
    "Recipe",
    "all_recipes",
    "finetuning",
    "is_recipe_file",
    "read_recipe",
    "recipe",
    "recipe_toml",
]

RECIPES: dict[str, Recipe] = {**CLOCKED, **EVENTS}
"""The recipes of the library."""
registry.reserve("recipe", RECIPES)


def recipe(name: str) -> Recipe:
    """Return a recipe by name; or that in a file, see `read_recipe`.

    Raises:
        ConfigurationError: with the nearest known name; or says what is wrong with the recipe.
    """
    if is_recipe_file(name):
        return read_recipe(name)
    registered = registry.entry("recipe", name)
    if registered is not None:
        return _registered(registered)
    if not isinstance(name, str) or name not in RECIPES:
        raise unknown_name("recipe", name, [*RECIPES, *registry.entries("recipe")])
    return RECIPES[name]


def all_recipes() -> dict[str, Recipe]:
    """Return the recipes of the library, and those that are registered, by name."""
    return {**RECIPES, **{name: recipe(name) for name in registry.entries("recipe")}}


def is_recipe_file(name: Any) -> bool:
    """Whether this is the name of a recipe file, by its ending."""
    return isinstance(name, (str, Path)) and Path(name).suffix.lower() in ENDINGS


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a file, and register it under its name.

    The file is TOML (`.toml`), or YAML (`.yaml`, `.yml`) where PyYAML is installed. It has settings
    by group, as `threefactor recipes --show NAME` prints them; what is left out has the default of
    `Settings`, or the value of the recipe `base`: a name, or a file, whose path counts from the
    folder of this one. In TOML "null" stands for no value. YAML is read as YAML 1.2.

    Args:
        path: of the file.

    Raises:
        ConfigurationError: names the file, and what is wrong: a key, a value, or a name that
            another recipe has.
    """
    return _read(Path(path), ())


def _read(file: Path, above: tuple[Path, ...]) -> Recipe:
    """Read a recipe, which is the base of those above."""
    if file.resolve() in above:
        raise ConfigurationError(f"recipe {file} is its own base; give another base")
    document = read_document(file)
    within = (*above, file.resolve())

    def find(base: str) -> Recipe:
        return _read(file.parent / base, within) if is_recipe_file(base) else recipe(base)

    name, made = from_document(document, find, str(file))
    if RECIPES.get(name) == made:
        return RECIPES[name]
    if name in RECIPES:
        raise ConfigurationError(
            f"recipe {file} is called {name!r}, and differs from the recipe of that name: give it "
            'a name of its own, as recipe = "my-recipe", or rename the file'
        )
    registry.register_recipe_file(name, made.settings, made.title, made.per_rule, file.resolve())
    return made


def _registered(one: registry.Entry) -> Recipe:
    settings, title, per_rule = one.made
    if isinstance(settings, Settings):
        return Recipe(title, replace(settings, recipe=one.name), per_rule)
    if not isinstance(settings, Mapping):
        raise ConfigurationError(
            f"recipe {one.name!r} is {clipped(settings)}; register Settings, or a mapping of them"
        )
    document = {"title": title, "per_rule": per_rule, **settings, "recipe": one.name}
    return from_document(document, recipe, repr(one.name))[1]
