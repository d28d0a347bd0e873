"""Measured cost: what is there, what is kept, and that memory is that of a process of its own."""

import pickle
from functools import partial

import pytest
import torch

from threefactor import clocked, events
from threefactor.analysis import measured, measured_cost, memory_against_steps
from threefactor.analysis.comparison import makers
from threefactor.errors import InputError

BATCH = (torch.randn(8, 30), torch.randint(0, 4, (8,)))


def test_two_rules_side_by_side(monkeypatch):
    net = clocked.fc(30, (40,), 4)
    before = [p.clone() for p in net.parameters()]
    monkeypatch.setattr(measured, "_peak_of", lambda *given: (100.0, 107.5))
    rules = {"bp": clocked.SpatialBP, "opzo": partial(clocked.OPZO, points="two-point")}
    found = measured_cost(net, rules, BATCH, steps=6, samples=20, repeats=3)
    assert found["bp"].relative_time == 1.0
    assert found["opzo"].seconds_per_batch >= found["opzo"].fastest > 0
    assert found["opzo"].seconds_per_epoch == pytest.approx(3 * found["opzo"].seconds_per_batch)
    assert (found["bp"].state_bytes, found["opzo"].state_bytes) == (0, 4 * 40 * 4)
    assert found["bp"].growth_mebibytes == 7.5
    assert all(torch.equal(a, p) for a, p in zip(before, net.parameters(), strict=True))
    assert all(p.grad is None for p in net.parameters())


def test_convolutional_networks_are_also_measured_with_local_learning():
    net = clocked.conv5((2, 8, 8), 4, width=0.02)
    found = makers(clocked.OPZO(net))
    assert found.keys() - clocked.RULES.keys() == {"dfa (w/ LL)", "opzo (w/ LL)"}
    rule = pickle.loads(pickle.dumps(found["opzo (w/ LL)"]))(net)
    x, y = torch.rand(3, 2, 8, 8), torch.tensor([0, 1, 2])
    assert torch.isfinite(rule.step(x, y, steps=2).loss)
    assert len(list(rule.parameters())) > len(list(found["opzo"](net).parameters()))
    assert makers(clocked.DFA(clocked.fc(30, (40,), 4))).keys() == clocked.RULES.keys()


def test_memory_of_a_process_of_its_own():
    """A fresh process imports PyTorch and trains: more than it has at the start."""
    net = clocked.fc(30, (40,), 4)
    found = memory_against_steps(net, partial(clocked.OPZO, momentum=0.5), BATCH, steps=(2,))
    assert found.steps == [2]
    assert found.peak_mebibytes[0] > found.growth_mebibytes[0] >= 0
    assert found.peak_mebibytes[0] > 50  # PyTorch alone


def test_bad_input(spiking):
    net = clocked.fc(30, (40,), 4)
    with pytest.raises(InputError, match="at least one"):
        measured_cost(net, {}, BATCH)
    with pytest.raises(InputError, match="at least 1"):
        memory_against_steps(net, clocked.DFA, BATCH, steps=(0,))
    with pytest.raises(InputError, match="no time steps"):
        memory_against_steps(spiking[0], events.DFA, spiking[1][0])


def test_a_batch_does_not_bring_the_data_set_along():
    """A slice of a tensor is pickled with all of it: here 400 MB, and a batch of 8 samples."""
    pictures, labels = torch.zeros(130_000, 784), torch.zeros(130_000, dtype=torch.long)
    net = clocked.fc(784, (50,), 10)
    (found,) = measured_cost(
        net, {"dfa": clocked.DFA}, (pictures[:8], labels[:8]), steps=2, repeats=1
    ).values()
    (alone,) = measured_cost(
        net, {"dfa": clocked.DFA}, (torch.zeros(8, 784), labels[:8].clone()), steps=2, repeats=1
    ).values()
    assert abs(found.peak_mebibytes - alone.peak_mebibytes) < 100
