"""The benchmark scripts run; what they measure is nobody's test."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script, *options):
    command = [sys.executable, str(BENCHMARKS / script), *map(str, options)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_step_times_are_measured_and_written(tmp_path):
    file = tmp_path / "step.json"
    out = run("clocked_step.py", "--rounds", 1, "--repeats", 1, "--batch", 4, "--json", file)
    rows = json.loads(file.read_text())["rows"]
    for rule in ("spatial-bp", "dfa", "dkp", "zo", "opzo"):
        assert rows[f"threefactor {rule}"]["median_ms"] > 0
        assert f"threefactor {rule}" in out


def test_memory_is_measured_and_written(tmp_path):
    file = tmp_path / "memory.json"
    run("clocked_memory.py", "--steps", 12, "--batch", 4, "--rules", "opzo", "--json", file)
    row = json.loads(file.read_text())["rows"]["opzo"]
    assert row["peak_mib_long"] > 50
    assert 0.5 < row["ratio"] < 2
