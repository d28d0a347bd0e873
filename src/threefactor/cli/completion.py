"""What the Tab key offers."""

from __future__ import annotations

import glob
from collections.abc import Iterable

import typer

from threefactor import clocked, events, plugins
from threefactor.analysis.runs import ANALYSES
from threefactor.cli.plugins import load_quietly
from threefactor.data import DATASETS
from threefactor.recipes import RECIPES, is_recipe_file
from threefactor.reproduce import catalog

__all__ = ["analysis_names", "dataset_names", "exhibit_names", "recipe_names", "rule_names"]


def recipe_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Recipes that begin with what was typed, and files of recipes."""
    load_quietly(ctx)
    files = sorted(glob.glob(f"{glob.escape(incomplete)}*"))
    names = _beginning((*RECIPES, *plugins.entries("recipe")), incomplete)
    return [*names, *filter(is_recipe_file, files)]


def rule_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Rules of either engine that begin with what was typed."""
    load_quietly(ctx)
    return _beginning((*clocked.RULES, *events.RULES), incomplete)


def dataset_names(incomplete: str) -> list[str]:
    """Data sets that begin with what was typed."""
    return _beginning(DATASETS, incomplete)


def analysis_names(incomplete: str) -> list[str]:
    """Analyses of a run that begin with what was typed."""
    return _beginning(ANALYSES, incomplete)


def exhibit_names(incomplete: str) -> list[str]:
    """Tables and figures that begin with what was typed."""
    return _beginning((*catalog(), "all"), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
