"""Recurrent networks by settings, from the command line, stopped and resumed."""

from __future__ import annotations

import dataclasses
import json

import pytest

from threefactor import clocked, training
from threefactor.errors import ConfigurationError, InputError
from threefactor.recipes import RECIPES, recipe
from threefactor.training.memory import counts
from threefactor.training.settings import ClockedNetworkSettings, make_settings

SMALL = {"data.train": 40, "data.test": 20, "hidden": [9, 7], "epochs": 2, "steps": 4}


def settings(rule="opzo", **changes):
    return recipe("digits-fc").settings_for(rule, {**SMALL, **changes})


@pytest.mark.parametrize(
    ("given", "expected"),
    [(False, [False, False]), (True, [True, True]), ([False, True], [False, True])],
)
def test_settings_say_which_layers_are_recurrent(given, expected):
    made = settings(recurrent=given)
    network = training.build(made).network
    found = [
        isinstance(m, clocked.Recurrent) for name, m in network.named_children() if "lif" in name
    ]
    assert found == expected
    assert make_settings(json.loads(json.dumps(dataclasses.asdict(made)))) == made


def test_networks_are_feed_forward_if_nothing_is_said():
    assert settings().network.recurrent is False
    spoken = {
        name for name in RECIPES if getattr(RECIPES[name].settings.network, "recurrent", False)
    }
    assert spoken == {"shd-fc", "shd-like-fc"}


@pytest.mark.parametrize("given", ["yes", 1, [1, 0], [True, "no"], None, {"lif1": True}])
def test_answers_that_are_none_are_refused(given):
    with pytest.raises(ConfigurationError, match=r"network\.recurrent"):
        settings(recurrent=given)
    with pytest.raises(ConfigurationError, match="recurrent"):
        ClockedNetworkSettings(recurrent=given)


def test_a_list_for_other_layers_is_refused():
    with pytest.raises(InputError, match=r"recurrent is \(True,\) and there are 2 hidden layers"):
        training.build(settings(recurrent=[True]))


def test_recurrent_weights_need_memory():
    class Samples:
        input_shape, outputs = (8, 8), 10

    for again, more in ((False, 0), (True, 9 * 9 + 7 * 7), ([False, True], 7 * 7)):
        weights, neurons = counts(settings(recurrent=again), Samples)
        assert (weights, neurons) == (64 * 9 + 9 * 7 + 7 * 10 + more, 9 + 7 + 10)
    with pytest.raises(ConfigurationError, match="weights needs more than"):
        training.build(settings(recurrent=True, hidden=[10**6, 5]))
