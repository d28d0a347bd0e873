"""A short run of the fuzzer, `tests/fuzz.py`; the long one is a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the fuzzer needs fork")


def fuzz(*options):
    return subprocess.run(
        [sys.executable, str(FUZZ), *options], capture_output=True, text=True, check=False
    )


def test_changed_inputs_give_errors_of_ours_and_nothing_else():
    done = fuzz("--count", "900", "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "900 inputs, seed 3" in done.stdout


FAULTS = """
import os, sys, time
sys.path.insert(0, {folder!r})
import fuzz
from threefactor.errors import DataError

KINDS = {{
    0: lambda: (_ for _ in ()).throw(DataError("ours")),
    1: lambda: [][1],
    2: lambda: os.abort(),
    3: lambda: busy(),
    4: lambda: bytearray(fuzz.MEMORY + (64 << 20)),
    5: lambda: sys.exit(3),
}}

def busy():
    while True:
        pass

numbers = iter(range(6))
fuzz.SECONDS = 3.0
fuzz.make_material = lambda folder: None
fuzz.feed = lambda number, *rest: KINDS[number]() if number else fuzz.survived(KINDS[0])
sys.argv = ["fuzz.py", "--count", "6"]
sys.exit(fuzz.main())
"""


def test_every_kind_of_fault_is_found():
    """A fuzzer that finds nothing proves nothing."""
    code = FAULTS.format(folder=str(FUZZ.parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stdout.splitlines() if " x " in line]
    assert len(lines) == 5
    for kind in (
        "IndexError",
        "crash the process ended by SIGABRT",
        "hang",
        "memory",
        "SystemExit",
    ):
        assert sum(f" x {kind}" in line for line in lines) == 1
    for number in range(1, 6):
        assert f"--seed 0 --only {number}" in done.stdout
