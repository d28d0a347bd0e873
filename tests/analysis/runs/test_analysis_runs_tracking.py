"""Which measures can be taken while training, and that they leave the rule as it was."""

import pytest
import torch

from threefactor import clocked, data, events
from threefactor.analysis.runs.tracking import MEASURES, check_measure
from threefactor.errors import ConfigurationError, InputError


def event_rule():
    torch.manual_seed(0)
    net = events.fc(64, (10,), 10, tau_s=0.13, thresholds=(0.05, 0.1), duration=0.2)
    return events.DFA(net, rate_penalty=0.5, rate_target=1.0)


def test_the_rate_penalty_is_back_afterwards_whatever_happens():
    rule = event_rule()
    digits = data.load_spikes("digits")
    batch = (digits.test_spikes[:20], digits.test_labels[:20])
    found = MEASURES["alignment"](rule, [batch], None)
    assert rule.rate_penalty == 0.5
    assert found["bp"]["lif1"]["angle"] != found["bp_with_rates"]["lif1"]["angle"]
    with pytest.raises(InputError):
        MEASURES["alignment"](rule, [], None)
    assert rule.rate_penalty == 0.5


def test_feedback_needs_output_weights_of_its_shape():
    net = torch.nn.Sequential(
        clocked.Conv2d(1, 4, 3, padding=1), clocked.LIF(), clocked.Linear(4, 3, pool=4)
    )
    rule = clocked.DFA(net, input_shape=(1, 4, 4))
    check_measure("alignment", rule)
    with pytest.raises(ConfigurationError) as caught:
        check_measure("feedback", rule)
    said = "the last synapse layer has weights of shape (3, 4); expected (3, 64)"
    assert said in str(caught.value)
    assert str(caught.value).endswith("leave it out of track.measures")


def test_measures_without_meaning_or_name():
    with pytest.raises(ConfigurationError, match="did you mean 'feedback'"):
        check_measure("feedbak", event_rule())
    without = events.ExactBP(event_rule().network)
    with pytest.raises(ConfigurationError, match="ExactBP has no feedback"):
        check_measure("feedback", without)
    check_measure("firing", without)
