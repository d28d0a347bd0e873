"""Measured cost: what is there, what is kept, and that memory is that of a process of its own."""

import pickle
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from disturbed import session

from threefactor import clocked, events
from threefactor.analysis import measured, measured_cost, memory_against_steps
from threefactor.analysis.runs.rules import makers
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


def test_what_goes_wrong_in_the_process_that_measures_is_said():
    net = clocked.fc(30, (40,), 4)
    with pytest.raises(TypeError, match=r"int\(\) argument"):  # what was raised there
        memory_against_steps(net, int, BATCH, steps=(2,))
    with pytest.raises(InputError, match="the process that measures memory ended with code 1"):
        memory_against_steps(net, sys.exit, BATCH, steps=(2,))


MEASURE = """
import sys, torch
from threefactor import clocked
from threefactor.analysis import memory_against_steps

if __name__ == "__main__":
    batch = (torch.randn(8, 30), torch.randint(0, 4, (8,)))
    memory_against_steps(clocked.fc(30, (40,), 4), clocked.DFA, batch, steps=(10**7,))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_no_process_is_left_when_the_one_that_measures_is_killed(tmp_path):
    script = tmp_path / "measure.py"
    script.write_text(MEASURE)
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    end = time.monotonic() + 120
    # Itself, the resource tracker, the server of forks, and the one that measures.
    while len(session(process.pid)) < 4 and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    end = time.monotonic() + 30
    while (left := session(process.pid)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left
