"""How much of an experiment is run: in under a minute, in some minutes, or as published."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from threefactor.data.registry import DATASETS
from threefactor.recipes import recipe
from threefactor.training.engines import engine_of
from threefactor.training.settings import EventNetworkSettings

__all__ = ["BUDGETS", "changes_for", "seconds_for", "seeds_for"]

BUDGETS: Mapping[str, str] = MappingProxyType(
    {
        "smoke": "does it run? one epoch on few samples; its numbers mean nothing",
        "quick": "what two cores do in some 20 minutes: fewer samples, epochs, channels; one seed",
        "paper": "the published settings and seeds",
    }
)
OPZO_SEEDS, SFDFA_SEEDS = (2022, 0, 1), (0, 1, 2)

# Milliseconds per training sample and rule, on one core; an order of magnitude.
_MILLISECONDS = {"fc": 0.3, "conv5": 90.0, "conv9": 140.0, "nf-resnet34": 4000.0, "events-fc": 0.25}
_USUAL_STEPS = 6


def seeds_for(name: str, budget: str) -> tuple[int, ...]:
    """Return the seeds of a recipe's runs."""
    if budget != "paper":
        return (0,)
    exact = isinstance(recipe(name).settings.network, EventNetworkSettings)
    return SFDFA_SEEDS if exact else OPZO_SEEDS


def changes_for(name: str, budget: str) -> dict[str, Any]:
    """Return what a budget changes of a recipe's settings, by full name."""
    settings = recipe(name).settings
    if budget == "paper":
        return {}
    wide = hasattr(settings.network, "width")
    if budget == "smoke":
        changes = {"epochs": 1, "batch_size": 25, "data.train": 100, "data.test": 100}
        if settings.track is not None:  # three moments within the only epoch
            changes["track.every"] = 1
        return {**changes, "network.width": 0.03} if wide else changes
    entry = DATASETS[settings.data.name]
    if not entry.files and not entry.by_hand:  # embedded data is small
        return {}
    changes = {"epochs": min(settings.epochs, 3)}
    if not wide:
        return changes
    return {**changes, "data.train": 2000, "data.test": 2000, "network.width": 0.25}


def seconds_for(name: str, rule: str, changes: Mapping[str, Any]) -> float:
    """Estimate how long a run takes on one core: right in the order of magnitude."""
    settings = recipe(name).settings_for(rule, changes)
    per_sample = _MILLISECONDS[settings.network.kind] / 1000
    if isinstance(settings.network, EventNetworkSettings):
        per_sample *= max(len(settings.network.hidden), 1)
    if hasattr(settings.network, "width"):
        # The first layer's share does not fall with the square of the width.
        per_sample *= 0.05 * settings.network.width + 0.95 * settings.network.width**2
    if engine_of(settings).rate_unit.endswith("step"):
        per_sample *= (settings.steps or _USUAL_STEPS) / _USUAL_STEPS
    samples = settings.data.train or DATASETS[settings.data.name].train
    return 2.0 + settings.epochs * samples * per_sample
