"""Short runs of the scripts that kill and that let the disk fail; see there for long ones."""

import os
import subprocess
import sys
from pathlib import Path

import faults
import pytest

TESTS = Path(__file__).parent
CALM = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(script, *options):
    command = [sys.executable, str(TESTS / script), *options]
    done = subprocess.run(command, env=CALM, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_kills_at_random_moments():
    assert "0 faults" in run("kills.py", "--count", "8", "--seed", "1")


def test_a_disk_that_fails():
    reason = faults.reason_not_to_run()
    if reason is not None:
        pytest.skip(reason)
    said = run("faults.py", "--every", "150", "--seed", "1")
    assert "0 faults" in said
    assert "failed, with words" in said and "killed" in said
