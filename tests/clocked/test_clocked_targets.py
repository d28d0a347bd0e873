"""Targets for each time step, and time steps without a label."""

import copy

import pytest
import torch
from torch import nn

from threefactor import clocked
from threefactor.errors import InputError

STEPS = 5
RULES = {
    "spatial-bp": {},
    "dfa": {},
    "dkp": {},
    "zo": {"generator": 3},
    "opzo": {"generator": 3, "momentum": 0.9},
    "opzo, two points": {"generator": 3, "momentum": 0.9, "points": "two-point"},
}


def make(name, loss=None):
    torch.manual_seed(0)
    network = clocked.fc(6, (20,), 3, leak=0.6).double()
    options = dict(RULES[name])
    if "generator" in options:
        options["generator"] = torch.Generator().manual_seed(options["generator"])
    torch.manual_seed(1)
    return clocked.RULES[name.split(",")[0]](network, loss=loss, **options).double()


def data():
    generator = torch.Generator().manual_seed(2)
    inputs = 3 * torch.rand(STEPS, 4, 6, generator=generator, dtype=torch.float64)
    labels = [torch.randint(3, (4,), generator=generator) for _ in range(STEPS)]
    return inputs, labels


def grads(rule):
    return [p.grad for p in (*rule.network.parameters(), *rule.parameters())]


@pytest.mark.parametrize("name", RULES)
def test_targets_of_each_step_are_those_of_a_stream(name):
    inputs, labels = data()
    whole, stream = make(name), make(name)
    result = whole.step(inputs, labels)
    losses = [stream.observe(x, y, steps=STEPS).loss for x, y in zip(inputs, labels, strict=True)]
    torch.testing.assert_close(result.loss, sum(losses))
    assert next(iter(result.firing_rates.values())) > 0.05
    for ours, theirs in zip(grads(whole), grads(stream), strict=True):
        assert ours.abs().max() > 0
        torch.testing.assert_close(ours, theirs)
    same = make(name)
    same.step(inputs, [labels[0]] * STEPS)
    once = make(name)
    once.step(inputs, labels[0])
    assert all(map(torch.equal, grads(same), grads(once)))


def masked(output, targets):
    """The usual loss, times 0 where the label is below 0."""
    losses, errors = clocked.CrossEntropyMSE()(output, targets.clamp(min=0))
    known = (targets >= 0).to(output)
    return losses * known, errors * known[:, None]


@pytest.mark.parametrize("name", [n for n in RULES if not n.startswith(("zo", "opzo"))])
def test_a_step_without_a_label_teaches_nothing_and_is_remembered(name):
    """It is a step with an error of zero, written by hand as a loss of its own."""
    inputs, labels = data()
    labels[0] = labels[2] = None
    without, zero = make(name), make(name, masked)
    result = without.step(inputs, labels)
    by_hand = [torch.full((4,), -1) if y is None else y for y in labels]
    expected = zero.step(inputs, by_hand)
    torch.testing.assert_close(result.loss, expected.loss)
    torch.testing.assert_close(result.output, expected.output)
    for ours, theirs in zip(grads(without), grads(zero), strict=True):
        assert ours.abs().max() > 0
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", RULES)
def test_nothing_learns_without_labels(name):
    inputs, labels = data()
    rule = make(name)
    before = copy.deepcopy(rule.state_dict())
    result = rule.step(inputs, [None] * STEPS)
    assert result.loss is None and result.output.shape == (4, 3)
    assert rule.observe(inputs[0], None).loss is None
    assert all(g is None for g in grads(rule))
    assert all(torch.equal(v, before[k]) for k, v in rule.state_dict().items())
    # the state went on: a label later finds the traces of all steps
    fresh = make(name)
    rule.reset()
    for x in inputs[:-1]:
        rule.observe(x, None)
    rule.observe(inputs[-1], labels[-1])
    fresh.observe(inputs[-1], labels[-1])
    weights = [r.network.get_parameter("linear1.weight").grad for r in (rule, fresh)]
    assert not torch.allclose(*weights)


def test_a_wrong_number_of_targets_is_refused():
    inputs, labels = data()
    rule = make("dfa")
    with pytest.raises(InputError, match="list of 4 for 5 time steps; expected one tensor"):
        rule.step(inputs, labels[:4])
    with pytest.raises(InputError, match="targets are None"):
        rule.step(inputs, None)
    labels[3] = torch.tensor([0, 1, 2, 7])
    with pytest.raises(InputError, match="7"):
        rule.step(inputs, labels)
    assert all(p.grad is None for p in rule.network.parameters())


def test_targets_of_any_loss():
    """Regression on another value in every time step."""
    inputs, _ = data()
    wanted = [torch.randn(4, 3, dtype=torch.float64) for _ in range(STEPS)]
    loss = clocked.from_autograd(
        lambda o, y: nn.functional.mse_loss(o, y, reduction="none").mean(1)
    )
    rule = make("spatial-bp", loss)
    rule.step(inputs, wanted)
    bias = rule.network.get_parameter("readout.bias")
    by_hand = make("spatial-bp", loss).network.eval()
    expected = torch.zeros(3, dtype=torch.float64)
    for x, y in zip(inputs, wanted, strict=True):
        expected += (2 * (by_hand(x) - y) / 3).detach().mean(0) / STEPS
    torch.testing.assert_close(bias.grad, expected)
