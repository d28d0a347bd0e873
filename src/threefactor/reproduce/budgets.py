"""How much of a table or figure is run: whether it works, a quick look, or as published."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from threefactor.data.sets.catalog import DATASETS
from threefactor.recipes import recipe
from threefactor.training.engines import CONVOLUTIONAL
from threefactor.training.settings import (
    ClockedNetworkSettings,
    EventNetworkSettings,
    ResNetSettings,
    Settings,
)

__all__ = ["BUDGETS", "changes_for", "seeds_for"]

BUDGETS: Mapping[str, str] = MappingProxyType(
    {
        "smoke": "does it run? one epoch on few samples; the numbers mean nothing",
        "quick": "a quick look: fewer samples, epochs and channels; one seed",
        "paper": "the published settings and seeds",
    }
)
# Training samples of the budget quick at 6 time steps: for networks without convolutions, with
# convolutions, and with residual blocks on images of ImageNet's size.
QUICK_SAMPLES, QUICK_PICTURES, QUICK_LARGE_PICTURES = 30000, 1500, 100
USUAL_STEPS = 6
OPZO_SEEDS, SFDFA_SEEDS = (2022, 0, 1), (0, 1, 2)


def seeds_for(name: str, budget: str) -> tuple[int, ...]:
    """Return the seeds of a recipe's runs."""
    if budget != "paper":
        return (0,)
    exact = isinstance(recipe(name).settings.network, EventNetworkSettings)
    return SFDFA_SEEDS if exact else OPZO_SEEDS


def changes_for(name: str, budget: str, rule: str) -> dict[str, Any]:
    """Return the settings of a recipe and rule that a budget changes, by full name."""
    settings = recipe(name).settings_for(rule)
    if budget == "paper":
        return {}
    wide = settings.network.kind in CONVOLUTIONAL
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
    """Return how many training samples a network gets: fewer, the more time steps they have."""
    special = {ClockedNetworkSettings: QUICK_SAMPLES, ResNetSettings: QUICK_LARGE_PICTURES}
    most = special.get(type(settings.network), QUICK_PICTURES)
    return most * USUAL_STEPS // (settings.steps or USUAL_STEPS)
