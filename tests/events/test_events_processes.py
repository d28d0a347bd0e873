"""Other processes: what is compiled once is not compiled again, and Numba is an extra."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMPILE = """
import json, torch
from threefactor import events
from threefactor.events import kernels

net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.05, duration=0.4)
with torch.no_grad():
    for weight in net.parameters():
        weight.copy_(weight.abs() * 4)
inputs = events.latency_code(torch.linspace(0.1, 1, 8).view(2, 4))
labels = torch.tensor([0, 2])
spikes = [int(events.run(net, inputs[:1]).output.sum())]
events.ExactBP(net).step(inputs, labels)
events.SFDFA(net).step(inputs[[1, 0]], labels)
events.DFA(net, traces="forward").step(inputs[1:], labels[1:])
events.ExactBP(net, loss=events.FirstSpike(0.1, 0.2)).step(inputs, labels)
found = {}
for name in kernels.__all__:
    stats = getattr(kernels, name).stats
    found[name] = [sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]
print(json.dumps([spikes, found]))
"""

IMPORTS = """
import sys
import threefactor
import threefactor.events
from threefactor.events import SpikeBatch, latency_code, fc
batch = latency_code([[1.0, 0.5]])
assert len(batch.times) == 2
print(sorted(name for name in sys.modules if name.split(".")[0] in ("numba", "llvmlite")))
"""

WITHOUT = """
import sys
sys.modules["numba"] = None
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


def python(script: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_is_compiled_in_a_second_process(tmp_path: Path) -> None:
    """Numba's cache serves every kernel the second time, for all rules and sizes."""
    runs: list[Any] = [json.loads(python(COMPILE, NUMBA_CACHE_DIR=str(tmp_path))) for _ in range(2)]
    (spikes, first), (same_spikes, second) = runs
    assert spikes == same_spikes and spikes[0] > 0
    assert first.keys() == second.keys() and len(first) >= 7
    for name in first:
        assert first[name] == [0, 1], f"{name} is compiled for several kinds of arguments"
        assert second[name] == [1, 0], f"{name} is compiled again"


def test_kernels_of_other_sources_are_never_loaded(tmp_path: Path) -> None:
    """What a kernel calls from another file counts: all lie in a folder that every source names."""
    from threefactor.events import compiling, dynamics, kernels

    here = compiling.digest(compiling.HERE)
    for function in (dynamics.factor, *(getattr(kernels, name) for name in kernels.__all__)):
        assert f"kernels-{here}" in function.stats.cache_path
    copy = tmp_path / "events"
    shutil.copytree(compiling.HERE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert compiling.digest(copy) == here
    sources = [copy / "compiling.py", copy / "dynamics.py", *(copy / "kernels").glob("*.py")]
    found = {here}
    for source in sources:
        source.write_text(source.read_text() + "\n# changed\n")
        found.add(compiling.digest(copy))
    assert len(found) == len(sources) + 1 >= 9


def test_imports_leave_numba_alone() -> None:
    assert python(IMPORTS) == "[]"


def test_without_numba() -> None:
    """Spikes can be made; a network cannot, and the error names the extra."""
    lines = python(WITHOUT).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "need Numba" in line and "pip install 'threefactor[events]'" in line


FORKED = """
import multiprocessing, torch
from threefactor import events

torch.set_num_threads(2)
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
    """A child that is forked after the first use of threads can use them, too."""
    assert python(FORKED) == "0"
