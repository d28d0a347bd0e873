"""Where samples lie: the same numbers everywhere, and memory that does not grow with the data."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from threefactor import data, training
from threefactor.data.samples.stored import Stored
from threefactor.errors import ConfigurationError, DataError
from threefactor.recipes import recipe
from threefactor.training import memory, placing
from threefactor.training.placing import Placement, place, placement_of
from threefactor.training.progress import Watcher

SMALL = {"hidden": [12], "epochs": 2, "batch_size": 16, "validation": 0.2, "steps": 3}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tensors(folder, chance):
    arrays = {
        "inputs": chance.random((90, 20), np.float32),
        "labels": np.arange(90) % 3,
    }
    np.savez(folder / "a.npz", **arrays)
    return {"data.name": "tensors", "data.path": str(folder / "a.npz"), "normalise": True}


def safetensors(folder, chance):
    for part, number in (("train", 60), ("test", 30)):
        labels = np.arange(number) % 3
        save_file(
            {"inputs": chance.integers(0, 9, (number, 3, 20)), "labels": labels},
            folder / f"{part}.safetensors",
        )
    return {"data.name": "tensors", "data.path": str(folder), "sequences": True}


def images(folder, chance):
    image = pytest.importorskip("PIL.Image")
    for number in range(90):
        place = folder / "pictures" / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = chance.integers(0, 256, (6, 5), np.uint8)
        image.fromarray(pixels).save(place / f"{number}.png")
    return {"data.name": "images", "data.path": str(folder / "pictures")}


def spikes(folder, chance):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "a.h5", "w") as file:
        for name, kind in (("times", "f4"), ("units", "i4")):
            made = file.create_dataset(f"spikes/{name}", (90,), h5py.vlen_dtype(kind))
            for sample in range(90):
                made[sample] = np.sort(
                    chance.random(30) if name == "times" else chance.integers(0, 20, 30)
                ).astype(kind)
        file["labels"] = np.arange(90) % 3
    return {"data.name": "spikes", "data.path": str(folder / "a.h5")}


def events(folder, chance):
    for number in range(90):
        place = folder / "recordings" / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        made = np.zeros(40, data.EVENT)
        made["t"] = np.sort(chance.integers(0, 1000, 40))
        made["x"], made["y"] = chance.integers(0, 5, (2, 40))
        made["p"] = chance.integers(0, 2, 40)
        np.save(place / f"{number}.npy", made)
    return {"data.name": "events", "data.path": str(folder / "recordings")}


def digits(folder, chance):
    return {"data.train": 200, "data.test": 60}


def augmented(folder, chance):
    return {**digits(folder, chance), "data.padding": 1}


KINDS = [tensors, safetensors, images, spikes, events, digits, augmented]


def settings_of(changes, where):
    if changes.get("data.name") in ("images", "spikes", "events") or "a.npz" in str(
        changes.get("data.path")
    ):
        changes = {**changes, "test_share": 0.3}
    return recipe("digits-fc").settings_for("opzo", {**SMALL, **changes, "data.place": where})


@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_are_the_same_wherever_the_samples_lie(tmp_path, kind):
    changes = kind(tmp_path, np.random.default_rng(0))
    weights, records = [], []
    for where in ("device", "host", "disk"):
        out = tmp_path / where
        training.train(settings_of(changes, where), out)
        config = json.loads((out / "config.json").read_text())
        assert config["placement"] == {"place": where, "why": "as the settings say"}
        weights.append(training.Run(out).checkpoint("last")["network"])
        records.append(config["data"])
    for other in weights[1:]:
        assert all(torch.equal(weights[0][key], other[key]) for key in weights[0])
    assert records[0] == records[1] == records[2]


def test_a_run_is_resumed_from_disk_with_the_same_bits(tmp_path):
    settings = settings_of(tensors(tmp_path, np.random.default_rng(0)), "disk")

    class Stop(Watcher):
        left = 4

        def batch(self, loss, accuracy, samples):
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), 15)

    training.train(settings, tmp_path / "whole")
    with pytest.raises(training.InterruptedRunError):
        training.train(settings, tmp_path / "cut", watcher=Stop())
    training.resume(tmp_path / "cut")
    states = [training.Run(tmp_path / n).checkpoint("last")["network"] for n in ("whole", "cut")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_file_that_changes_during_a_training_ends_it(tmp_path):
    settings = settings_of(tensors(tmp_path, np.random.default_rng(0)), "disk")

    class Change(Watcher):
        def batch(self, loss, accuracy, samples):
            with (tmp_path / "a.npz").open("r+b") as file:
                file.seek(1000)
                file.write(b"\1\2\3")

    with pytest.raises(DataError, match="was changed while it was in use"):
        training.train(settings, tmp_path / "out", watcher=Change())


def test_what_has_no_room_in_memory_stays_on_disk(tmp_path, monkeypatch):
    changes = images(tmp_path, np.random.default_rng(0))
    settings = settings_of(changes, "auto")
    assert training.Trainer(training.build(settings)).placement.place == "device"
    monkeypatch.setattr(placing, "available_memory", lambda device="cpu": 12_000)
    experiment = training.build(settings)
    assert experiment.data.train[0].in_file
    found = training.Trainer(experiment).placement
    assert found == Placement("disk", "they take more than half of the free memory of this machine")


def test_samples_stay_in_host_memory_if_the_device_has_no_room(monkeypatch):
    """The device "meta" stands for one: it has no values, but where a batch is can be seen."""
    device, inputs = torch.device("meta"), torch.rand(100, 8)
    for free, expected in ((10_000, "device"), (6_000, "host")):
        monkeypatch.setattr(placing, "available_memory", lambda name, free=free: free)
        found = placement_of([inputs], "auto", device)
        assert found.place == expected
        assert "and meta has 0.00 GiB free" in found.why
        placed = place(inputs, found.place, device)
        assert placed[torch.tensor([1, 2])].device.type == "meta"
        held = placed.rows if isinstance(placed, Stored) else placed
        assert held.device.type == ("meta" if expected == "device" else "cpu")


@pytest.mark.parametrize("where", ["ram", 3, None, True])
def test_places_that_there_are_not(where):
    with pytest.raises(ConfigurationError, match=r"data\.place"):
        settings_of({}, where)


def test_what_cannot_lie_there_is_refused(tmp_path):
    events_settings = recipe("digits-events").settings_for("sfdfa", {"data.place": "disk"})
    with pytest.raises(ConfigurationError, match=r"data\.place is 'disk'.* spike trains are kept"):
        training.Trainer(training.build(events_settings))
    own = replace(training.build(settings_of({}, "disk")), data=data.load("digits"))
    with pytest.raises(ConfigurationError, match="whatever loads them keeps in memory"):
        training.Trainer(own)
    path = tmp_path / "a.npz"
    chance = np.random.default_rng(0)
    np.savez_compressed(path, inputs=chance.random((30, 4)), labels=np.arange(30) % 3)
    changes = {"data.name": "tensors", "data.path": str(path)}
    with pytest.raises(DataError, match="is compressed, so its samples cannot be read one by one"):
        training.build(settings_of(changes, "disk"))


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file in its place")
    with pytest.raises(DataError, match="cannot keep samples in"):
        training.build(settings_of(images(tmp_path, np.random.default_rng(0)), "disk"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_stays_flat_on_disk(tmp_path):
    """Of a set of 240 MB, a training from disk needs no more than one of 60 MB."""
    for number in (3_000, 12_000):
        with (tmp_path / f"{number}.safetensors").open("wb") as file:
            size = number * 5000 * 4
            offsets = {"inputs": [0, size], "labels": [size, size + 8 * number]}
            header = json.dumps(
                {
                    "inputs": {
                        "dtype": "F32",
                        "shape": [number, 5000],
                        "data_offsets": offsets["inputs"],
                    },
                    "labels": {
                        "dtype": "I64",
                        "shape": [number],
                        "data_offsets": offsets["labels"],
                    },
                }
            ).encode()
            file.write(len(header).to_bytes(8, "little") + header)
            part = np.random.default_rng(0).random((1000, 5000), np.float32)
            for _ in range(number // 1000):
                file.write(part.tobytes())
            file.write((np.arange(number) % 3).tobytes())
    script = """
import sys
from threefactor import training
from threefactor.recipes import recipe
place, path = sys.argv[1:]
settings = recipe("digits-fc").settings_for("dfa", {
    "hidden": [4], "epochs": 1, "batch_size": 100, "steps": 1, "data.name": "tensors",
    "data.path": path, "test_share": 0.2, "data.place": place})
training.train(settings)
print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1])
"""
    peaks = {}
    for where, number in (("disk", 3_000), ("disk", 12_000), ("host", 12_000)):
        words = [sys.executable, "-c", script, where, str(tmp_path / f"{number}.safetensors")]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks[where, number] = int(done.stdout) / 1024  # MiB
    assert peaks["disk", 12_000] < peaks["disk", 3_000] + 90
    assert peaks["host", 12_000] > peaks["disk", 12_000] + 150
    assert memory.available_memory() is not None
