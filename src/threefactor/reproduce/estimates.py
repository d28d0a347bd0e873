"""How long a run takes on one core: calibrated with the runs in `results/`, and rough.

The numbers are milliseconds of an epoch, its evaluation included, per training sample. Those of
convolutions are of `results/benchmarks/clocked_step_conv5.json`, but for the residual network,
which is a guess.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from threefactor.data.sets.catalog import DATASETS
from threefactor.recipes import recipe
from threefactor.training.settings import (
    ClockedNetworkSettings,
    ConvNetworkSettings,
    EventNetworkSettings,
    ResNetSettings,
    Settings,
)

__all__ = ["milliseconds_per_sample", "seconds_for", "seconds_per_epoch"]

START = 4.0  # seconds until a process trains
USUAL_STEPS = 6
SOME = 2000  # samples of a data set whose size is not known
# On a time grid: a part that every network has, and one per weight; then what a rule adds.
FIXED, PER_WEIGHT = 0.105, 1.95e-7
GRID_RULES = {"spatial-bp": 1.3, "dfa": 1.0, "dkp": 1.05, "zo": 1.05, "opzo": 1.05}
# Of full width; narrower ones are slower than the square of the width.
CONVOLUTIONS = {"conv5": 75.0, "conv9": 120.0, "nf-resnet34": 4000.0}
LINEAR = 0.3
LOCAL_LEARNING = 1.3
# With exact spike times: with one hidden layer, two, and three or more, which decides less than how
# often neurons fire. Exact BP walks back through them; with three it was not measured.
EVENT_RULES = {"dfa": (0.18, 0.38, 0.8), "sfdfa": (0.2, 0.37, 0.44), "exact-bp": (0.2, 1.9, 4.0)}


def seconds_for(name: str, rule: str, changes: Mapping[str, Any]) -> float:
    """Estimate how long a run takes on one core that does nothing else.

    Args:
        name: of the recipe.
        rule: its name.
        changes: to the recipe's settings, by full name.
    """
    settings = recipe(name).settings_for(rule, changes)
    return START + settings.epochs * seconds_per_epoch(settings)


def seconds_per_epoch(settings: Settings) -> float:
    """Estimate the time of an epoch on one core that does nothing else."""
    samples = settings.data.train or DATASETS[settings.data.name].train or SOME
    return samples * milliseconds_per_sample(settings) / 1000


def milliseconds_per_sample(settings: Settings) -> float:
    """Estimate the time that an epoch takes on one core, by training sample."""
    network, rule = settings.network, settings.rule
    if isinstance(network, EventNetworkSettings):
        by_depth = EVENT_RULES.get(rule.name, EVENT_RULES["dfa"])
        return by_depth[min(len(network.hidden), len(by_depth)) - 1]
    factor = GRID_RULES.get(rule.name, 1.0) * (settings.steps or USUAL_STEPS) / USUAL_STEPS
    if rule.options.get("local_learning"):
        factor *= LOCAL_LEARNING
    if isinstance(network, ClockedNetworkSettings):
        return factor * (FIXED + PER_WEIGHT * _weights(settings.data.name, network.hidden))
    assert isinstance(network, (ConvNetworkSettings, ResNetSettings))
    width = network.width
    return factor * CONVOLUTIONS[network.kind] * (LINEAR * width + (1 - LINEAR) * width**2)


def _weights(data: str, hidden: tuple[int, ...]) -> int:
    sizes = [math.prod(DATASETS[data].shape), *hidden]
    return sum(a * b for a, b in itertools.pairwise(sizes))
