"""The benchmark scripts run; what they measure is nobody's test."""

import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import output

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script, *options):
    return output([BENCHMARKS / script, *options])


def test_step_times_are_measured_and_written(tmp_path):
    file = tmp_path / "step.json"
    out = run("clocked_step.py", "--rounds", 1, "--repeats", 1, "--batch", 4, "--json", file)
    rows = json.loads(file.read_text())["rows"]
    for rule in ("spatial-bp", "dfa", "dkp", "zo", "opzo"):
        assert rows[f"threefactor {rule}"]["median_ms"] > 0
        assert f"threefactor {rule}" in out


SMALL_CONV5 = ("--network", "conv5", "--width", 0.05, "--batch", 2, "--steps", 2, "--repeats", 1)


def test_step_times_of_a_convolutional_network(tmp_path):
    file = tmp_path / "step.json"
    run("clocked_step.py", *SMALL_CONV5, "--rounds", 1, "--json", file)
    rows = json.loads(file.read_text())["rows"]
    for rule in ("spatial-bp", "dfa", "dkp", "zo", "opzo", "opzo, local learning"):
        assert rows[f"threefactor {rule}"]["median_ms"] > 0


def test_shares_of_a_step_add_up_to_the_whole(tmp_path):
    file = tmp_path / "shares.json"
    run("clocked_step.py", *SMALL_CONV5, "--rules", "opzo", "--profile", "--json", file)
    shares = json.loads(file.read_text())["rows"]["threefactor opzo"]
    assert abs(sum(shares.values()) - 1) < 1e-6
    assert [part for part, share in shares.items() if not share > 0] == []


def test_memory_is_measured_and_written(tmp_path):
    """In a process that is small itself: Linux counts the memory of who starts another one."""
    file = tmp_path / "memory.json"
    script, options = BENCHMARKS / "clocked_memory.py", ["--steps", "12", "--batch", "4"]
    command = [sys.executable, str(script), *options, "--rules", "opzo", "--json", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    row = json.loads(file.read_text())["rows"]["opzo"]
    assert row["peak_mib_long"] > 50
    assert 0.5 < row["ratio"] < 2


def test_growth_is_measured_and_written(tmp_path):
    file = tmp_path / "growth.json"
    options = ["--axes", "samples", "--points", "2", "--rounds", "1", "--json", str(file)]
    command = [sys.executable, str(BENCHMARKS / "growth.py"), *options]
    subprocess.run(command, check=True, capture_output=True)
    samples = json.loads(file.read_text())["axes"]["samples"]
    assert samples["x"] == [32, 64]
    assert all(value > 0 for value in samples["ms"] + samples["mib"])
    assert samples["time"]["off"] < 1e-6, "two points lie on a line"


def test_steps_of_several_processes_are_measured_and_written(tmp_path):
    file = tmp_path / "processes.json"
    options = ["--networks", "fc", "--rules", "dfa", "--rounds", "1", "--json", str(file)]
    command = [sys.executable, str(BENCHMARKS / "processes.py"), *options]
    subprocess.run(command, check=True, capture_output=True)
    row = json.loads(file.read_text())["rows"]["fc dfa"]
    assert row["ratio"] == row["each_ms"] / row["alone_ms"] > 0.3


def test_streams_are_measured_and_written(tmp_path):
    file = tmp_path / "stream.json"
    run("stream.py", "--long", 1000, "--rounds", 1, "--repeats", 1, "--json", file)
    document = json.loads(file.read_text())
    assert [row["steps"] for row in document["stream"]] == [1000]
    assert document["stream"][0]["median_us"] > 0 and document["stream"][0]["resident_mib"] > 50
    for table in document["tables"].values():
        assert table["threefactor opzo"]["min_ms"] > 0


def test_events_are_measured_and_written(tmp_path):
    file = tmp_path / "events.json"
    options = ["--rounds", 1, "--repeats", 1, "--batch", 4, "--widths", 20, 40, "--inputs", 30]
    options += ["--thresholds", 0.2, 0.1, "--threads", 1, 2, "--memory-samples", 80]
    options += ["--growth", 1, 2]
    out = run("events_step.py", *options, "--yin-yang-samples", 128, "--json", file)
    found = json.loads(file.read_text())
    kinds = ["forward", "exact-bp", "dfa", "sfdfa"]
    assert [row["what"] for row in found["inputs"]] == kinds
    assert [row["threads"] for row in found["rules"]] == [1, 2] * 4
    assert [row["width"] for row in found["widths"]] == [20, 40] * 4
    for row in found["rules"] + found["widths"] + found["inputs"] + found["rates"]:
        assert 0 < row["min_ns"] <= row["median_ns"]
        assert row["hidden_spikes_per_neuron"] > 0, "a layer that never spikes measures nothing"
    assert set(found["fit"]) == set(kinds)
    assert len(found["growth"]) == 10
    for rows in found["growth"].values():
        assert len(rows) in (2, 4) and all(row["min_s"] > 0 for row in rows)
        assert rows[-1]["times_work"] > 1.0 or rows[-1]["threshold"] < rows[0]["threshold"]
    assert found["memory"][1]["spikes"] > 5 * found["memory"][0]["spikes"]
    assert found["yin-yang"]["threefactor"]["hidden_spikes_per_sample"] > 50
    assert all(kind in out for kind in kinds)


def test_a_section_of_the_events_benchmark_alone(tmp_path):
    file = tmp_path / "section.json"
    options = ["--yin-yang-samples", 128, "--rounds", 1, "--repeats", 1, "--json", file]
    run("events_step.py", "--only", "yin-yang", *options)
    found = json.loads(file.read_text())
    assert found["yin-yang"]["threefactor"]["hidden_spikes_per_sample"] > 50
    assert "rules" not in found and "memory" not in found


def test_loading_is_measured_beside_training(tmp_path):
    file = tmp_path / "loading.json"
    recipes = ["digits-fc", "digits-events", "mnist-fc"]
    options = ["--batches", 2, "--data-dir", tmp_path, "--json", file, "--recipes", *recipes]
    assert "its data was not found" in run("loading.py", *options)
    rows = json.loads(file.read_text())["rows"]
    assert rows.keys() == {"digits-fc", "digits-events"}
    assert all(0 < row["ratio"] == row["loading_ms"] / row["step_ms"] for row in rows.values())


def test_recurrence_is_searched_and_tested(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "shd-like").mkdir()
    generator = np.random.default_rng(0)
    for part, samples in (("train", 60), ("test", 20)):
        with h5py.File(tmp_path / "shd-like" / f"{part}.h5", "w") as root:
            for name, kind in (("times", np.float32), ("units", np.uint16)):
                column = root.create_dataset(f"spikes/{name}", (samples,), h5py.vlen_dtype(kind))
                for i in range(samples):
                    high = 0.7 if name == "times" else 699
                    column[i] = (generator.random(60) * high).astype(kind)
            root["labels"] = np.arange(samples, dtype=np.uint16) % 20
            root["extra/speaker"] = np.arange(samples, dtype=np.uint16) % 7
    file = tmp_path / "recurrence.json"
    options = ["--data-dir", tmp_path, "--rules", "spatial-bp", "--frames", 4, "--hidden", 5]
    run("recurrence.py", *options, "--epochs", 1, "--seeds", 2, "--json", file)
    found = json.loads(file.read_text())
    assert found["samples"] == {"train": 60, "test": 20}
    networks = found["rules"]["spatial-bp"]
    assert networks.keys() == {"feed-forward", "recurrent"}
    for network in networks.values():
        assert len(network["search"]) == 8 and [one["seed"] for one in network["test"]] == [0, 1]
        best = max(network["search"], key=lambda one: one["accuracy"])
        assert all(network[name] == best[name] for name in ("leak", "lr", "dropout"))
        assert all(0 <= one["accuracy"] <= 1 < one["loss"] for one in network["test"])
    losses = [[one["loss"] for one in network["search"]] for network in networks.values()]
    assert losses[0] != losses[1]


def test_the_script_for_gpus_is_rehearsed(tmp_path):
    file = tmp_path / "gpu.json"
    run("gpu.py", "--device", "cpu", "--quick", "--json", file)
    found = json.loads(file.read_text())
    assert [len(found[part]) > 0 for part in ("right", "quiet", "step", "epoch", "grow")] == [
        True
    ] * 5
    for row in found["right"]:
        assert row["right"] is True
        assert 0 < row["float32 kernels"] < 1e-4 and row["float64 operations"] < 1e-9
    assert not any("failed" in row for part in ("step", "epoch", "grow") for row in found[part])
    assert all(row["tera_per_s"] > 0 for row in found["step"])
    assert found["epoch"][0]["whole"] and found["about"]["device"] == "cpu"


def test_graphs_are_compared_with_steps_as_usual(monkeypatch):
    """What the rehearsal leaves out, as graphs are of GPUs."""
    spec = importlib.util.spec_from_file_location("gpu", BENCHMARKS / "gpu.py")
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    here, network = torch.device("cpu"), gpu.SMALL["fc"]
    assert gpu.graph_is_right(network, "opzo", here) == {}
    monkeypatch.setattr(gpu.Captured, "device_type", "cpu")

    class Fast:
        device_type, reason, factor = "cpu", None, 1.0

        def __init__(self, rule):
            self.rule = rule

        def step(self, x, y, *, steps):
            return self.rule.step(self.factor * x, y, steps=steps)

    real = gpu.Captured
    monkeypatch.setattr(gpu, "Captured", Fast)
    assert gpu.graph_is_right(network, "opzo", here) == {"graph apart": 0.0, "graph": True}
    monkeypatch.setattr(Fast, "factor", 1.3)
    found = gpu.graph_is_right(network, "opzo", here)
    assert found["graph"] == "other numbers" and found["graph apart"] > 0.01

    class Refusing:
        def __init__(self, generators):
            pass

        def capture(self, work):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(gpu, "Captured", lambda rule: real(rule, Refusing))
    monkeypatch.setattr(gpu.Captured, "device_type", "cpu", raising=False)
    said = "not replayed: capture failed: operation not permitted when stream is capturing"
    assert gpu.graph_is_right(network, "opzo", here) == {"graph": said}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_script_for_gpus_says_that_there_is_none(tmp_path):
    script, file = BENCHMARKS / "gpu.py", tmp_path / "gpu.json"
    command = [sys.executable, str(script), "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and not file.exists()
    assert "there is no GPU that PyTorch" in done.stderr and "Traceback" not in done.stderr


def test_the_script_for_gpus_needs_pytorch_alone(tmp_path):
    """On a bare machine none of the package's other dependencies are there; nor is a GPU here."""
    lines = """
        import runpy, sys
        class Bare:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ABSENT:
                    raise ModuleNotFoundError(name, name=name)
        import importlib.util
        ABSENT = {"pydantic", "typer", "rich", "sklearn", "pooch", "safetensors", "h5py"}
        real = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *a: None if name in ABSENT else real(name, *a)
        sys.meta_path.insert(0, Bare())
        script = sys.argv[1]
        sys.argv[1:] = ["--device", "cpu", "--quick", "--seconds", "0"]
        runpy.run_path(script, run_name="__main__")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(lines), str(BENCHMARKS / "gpu.py")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "left_out=no time" in done.stdout
