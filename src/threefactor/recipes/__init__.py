"""The settings of each published experiment, and of small ones, by name."""

from __future__ import annotations

from threefactor.errors import unknown_name
from threefactor.recipes.clocked import CLOCKED
from threefactor.recipes.events import EVENTS
from threefactor.recipes.finetuning import finetuning
from threefactor.recipes.recipe import Recipe

__all__ = ["RECIPES", "Recipe", "finetuning", "recipe"]

RECIPES: dict[str, Recipe] = {**CLOCKED, **EVENTS}


def recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        ConfigurationError: with the nearest known name.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]
