"""What the Tab key offers."""

from __future__ import annotations

from threefactor import clocked, events
from threefactor.analysis.runs import ANALYSES
from threefactor.data import DATASETS
from threefactor.recipes import RECIPES
from threefactor.reproduce import catalog

__all__ = ["analysis_names", "dataset_names", "exhibit_names", "recipe_names", "rule_names"]


def recipe_names(incomplete: str) -> list[str]:
    """Recipes that begin with what was typed."""
    return [name for name in RECIPES if name.startswith(incomplete)]


def rule_names(incomplete: str) -> list[str]:
    """Rules of either engine that begin with what was typed."""
    return [name for name in {**clocked.RULES, **events.RULES} if name.startswith(incomplete)]


def dataset_names(incomplete: str) -> list[str]:
    """Data sets that begin with what was typed."""
    return [name for name in DATASETS if name.startswith(incomplete)]


def analysis_names(incomplete: str) -> list[str]:
    """Analyses of a run that begin with what was typed."""
    return [name for name in ANALYSES if name.startswith(incomplete)]


def exhibit_names(incomplete: str) -> list[str]:
    """Tables and figures that begin with what was typed."""
    return [name for name in (*catalog(), "all") if name.startswith(incomplete)]
