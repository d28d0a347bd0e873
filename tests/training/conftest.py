"""A small experiment on the embedded digits, in seconds."""

import pytest

from threefactor.recipes import recipe

SMALL = {
    "hidden": [24, 16],
    "data.train": 100,
    "data.test": 40,
    "batch_size": 16,
    "epochs": 3,
    "optimizer.lr": 5e-3,
}


EVENTS = {
    "hidden": [24, 16],
    "thresholds": [0.1, 0.05, 0.05],
    "data.train": 100,
    "data.test": 40,
    "batch_size": 16,
    "epochs": 3,
}


@pytest.fixture
def small_events():
    def settings(rule="sfdfa", **changes):
        return recipe("digits-events").settings_for(rule, {**EVENTS, **changes})

    return settings


@pytest.fixture
def small():
    def settings(rule="opzo", **changes):
        return recipe("digits-fc").settings_for(rule, {**SMALL, **changes})

    return settings
