"""How much of an experiment is run: in under a minute, in some minutes, or as published."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from threefactor.data.sets.catalog import DATASETS
from threefactor.recipes import recipe
from threefactor.reproduce.estimates import USUAL_STEPS
from threefactor.training.settings import (
    ClockedNetworkSettings,
    EventNetworkSettings,
    ResNetSettings,
    Settings,
)

__all__ = ["BUDGETS", "changes_for", "seeds_for"]

BUDGETS: Mapping[str, str] = MappingProxyType(
    {
        "smoke": "does it run? one epoch on few samples; its numbers mean nothing",
        "quick": "what two cores do in some 20 minutes: fewer samples, epochs, channels; one seed",
        "paper": "the published settings and seeds",
    }
)
# Of the budget quick: training samples of 6 time steps, for a network without convolutions, with
# them, and of residual blocks at the size of ImageNet's pictures.
QUICK_SAMPLES, QUICK_PICTURES, QUICK_LARGE_PICTURES = 30000, 1500, 100
OPZO_SEEDS, SFDFA_SEEDS = (2022, 0, 1), (0, 1, 2)


def seeds_for(name: str, budget: str) -> tuple[int, ...]:
    """Return the seeds of a recipe's runs."""
    if budget != "paper":
        return (0,)
    exact = isinstance(recipe(name).settings.network, EventNetworkSettings)
    return SFDFA_SEEDS if exact else OPZO_SEEDS


def changes_for(name: str, budget: str, rule: str) -> dict[str, Any]:
    """Return what a budget changes of a recipe's settings for a rule, by full name."""
    settings = recipe(name).settings_for(rule)
    if budget == "paper":
        return {}
    wide = hasattr(settings.network, "width")
    if budget == "smoke":
        changes = {"epochs": 1, "batch_size": 25, "data.train": 100, "data.test": 100}
        if settings.track is not None:  # three moments within the only epoch
            changes["track.every"] = 1
        return {**changes, "network.width": 0.03} if wide else changes
    entry = DATASETS[settings.data.name]
    if entry.files.not_needed:  # embedded data is small
        return {}
    changes = {"epochs": min(settings.epochs, 3)}
    if isinstance(settings.network, EventNetworkSettings):
        return changes
    samples = _quick_samples(settings)
    if samples < entry.train:
        changes["data.train"] = samples
    if not wide:
        return changes
    return {**changes, "data.test": samples, "network.width": 0.25}


def _quick_samples(settings: Settings) -> int:
    """Return how many training samples all networks on a time grid have about the same time for."""
    special = {ClockedNetworkSettings: QUICK_SAMPLES, ResNetSettings: QUICK_LARGE_PICTURES}
    most = special.get(type(settings.network), QUICK_PICTURES)
    return most * USUAL_STEPS // (settings.steps or USUAL_STEPS)
