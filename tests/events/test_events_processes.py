"""Other processes: the kernels are built beforehand, and missing ones are said; forked children."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FIRST = """
import sys, time
import torch
start = time.process_time()
from threefactor import events

net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.05, duration=0.4, weight_ranges=((0.0, 2.0),))
inputs, labels = events.latency_code(torch.rand(3, 4)), torch.tensor([0, 2, 1])
spikes = int(events.SFDFA(net).step(inputs, labels).output.sum())
print(spikes, time.process_time() - start, "numba" in sys.modules)
"""

IMPORTS = """
import sys
import threefactor
import threefactor.events
from threefactor.events import SpikeBatch, latency_code, fc
batch = latency_code([[1.0, 0.5]])
assert len(batch.times) == 2
print("threefactor.events.kernels" in sys.modules)
"""

WITHOUT = """
import importlib.util
from importlib.machinery import ModuleSpec

find = importlib.util.find_spec

def found(name, package=None):
    if name != "threefactor.events.kernels._library":
        return find(name, package)
    origin = {origin!r}
    return None if origin is None else ModuleSpec(name, None, origin=origin)

importlib.util.find_spec = found
from threefactor import events
from threefactor.errors import ConfigurationError
batch = events.latency_code([[1.0, 0.5]])
for make in (
    lambda: events.fc(2, (), 3, tau_s=0.1, thresholds=0.2, duration=0.2),
    lambda: events.Layer(2, 3, tau_s=0.1, threshold=0.2, duration=0.2),
):
    try:
        make()
    except ConfigurationError as problem:
        print(problem)
"""


def python(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nobody_waits_for_a_compiler() -> None:
    """The first result takes the import and little more: a compiler would take many seconds."""
    spikes, seconds, numba = python(FIRST).split()
    assert int(spikes) > 0 and numba == "False"
    assert float(seconds) < 5.0


def test_imports_leave_the_kernels_alone() -> None:
    assert python(IMPORTS) == "False"


@pytest.mark.parametrize("origin", [None, __file__], ids=["none", "no library"])
def test_without_kernels(origin: str | None) -> None:
    """Spikes can be made; a network cannot, and the error says what to install."""
    lines = python(WITHOUT.format(origin=origin)).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "need compiled kernels" in line and "apt install gcc" in line
        assert ("was not built" in line) == (origin is None)


FORKED = """
import multiprocessing, torch
from threefactor import events

torch.set_num_threads(2)
events.parallel.SMALL = 0
net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.05, duration=0.4)
inputs = events.latency_code(torch.rand(6, 4))
expected = events.run(net, inputs).output

def child():
    assert torch.equal(events.run(net, inputs).output, expected)

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(5)
print("hangs" if process.is_alive() else process.exitcode)
process.kill()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_process() -> None:
    """A child that is forked after the first use of threads does without them."""
    assert python(FORKED) == "0"


COUNTED = """
import torch
from threefactor import events

def threads():
    with open("/proc/self/status") as file:
        return int(dict(line.split(":", 1) for line in file)["Threads"])

torch.set_num_threads(1)
events.parallel.SMALL = 0
net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.05, duration=0.4)
inputs = events.latency_code(torch.rand(9, 4))
events.run(net, inputs)
counts = [threads()]
for wanted in (2, 5):
    events.set_num_threads(wanted)
    events.run(net, inputs)
    counts.append(threads() - counts[0])
print(*counts[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in Linux's /proc")
def test_kernels_run_on_so_many_threads() -> None:
    """PyTorch's runtime keeps the threads that the kernels began to use."""
    assert python(COUNTED) == "1 4"
