"""How many frames a recording becomes: another number of them still covers the whole of it."""

import dataclasses
import pickle

import pytest
import torch

from threefactor import training
from threefactor.data import DATASETS, frame_settings
from threefactor.data.samples.images import RawImages
from threefactor.data.sets.digits import read_digits
from threefactor.recipes import recipe
from threefactor.training.engines import _framing


@pytest.mark.parametrize("steps", [1, 7, 10, 30, 45, 300])
@pytest.mark.parametrize("name", ["nmnist", "simulated-digits"])
def test_frames_of_fixed_time_become_longer_or_shorter(name, steps):
    usual = frame_settings(name)
    settings = recipe("nmnist-fc").settings_for("dfa", {"data.name": name, "steps": steps})
    framing = _framing(settings)
    assert framing.number == steps
    covered = framing.number * framing.window
    assert usual.number * usual.window <= covered < usual.number * usual.window + steps
    if steps == usual.number:
        assert framing == usual


@pytest.mark.parametrize("steps", [5, 40])
def test_frames_of_equally_many_events_need_no_time(steps):
    settings = recipe("dvs-gesture-conv5").settings_for("dfa", {"steps": steps})
    assert (_framing(settings).number, _framing(settings).window) == (steps, None)


def test_fewer_frames_hold_the_same_events(tmp_path, monkeypatch):
    def few(entry, sources):
        raw = read_digits(entry, sources)
        parts = (raw.train_images, raw.train_labels, raw.test_images, raw.test_labels)
        return RawImages(*(part[:20] for part in parts), raw.peak)

    entry = DATASETS["simulated-digits"]
    base = dataclasses.replace(entry.base, train=20, test=20, read=few)
    monkeypatch.setitem(DATASETS, entry.name, dataclasses.replace(entry, base=base))
    monkeypatch.setenv("THREEFACTOR_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small = {"data.train": 6, "data.test": 4}
    totals = []
    for steps in (30, 10, 7):
        settings = recipe("digits-saccades-conv").settings_for("dfa", {**small, "steps": steps})
        frames, _ = training.build(settings).data.train
        assert frames.steps == steps
        totals.append(frames[:].sum((0, 2, 3, 4)))
    assert torch.equal(totals[0], totals[1])
    assert torch.equal(totals[0], totals[2])
    assert totals[0].min() > 100


@pytest.mark.parametrize(
    ("name", "rule"), [("digits-fc", "opzo"), ("digits-events", "sfdfa"), ("digits-fc", "dkp")]
)
def test_what_a_training_holds_goes_into_another_process(name, rule):
    small = {"data.train": 20, "data.test": 10, "hidden": [4], "epochs": 1}
    trainer = training.Trainer(training.build(recipe(name).settings_for(rule, small)))
    trainer.fit()
    experiment = trainer.experiment
    parts = {
        "settings": experiment.settings,
        "data": experiment.data,
        "inputs": experiment.data.train[0],
        "network": experiment.network,
        "run": training.RunFolder("run"),
        "evaluation": trainer.evaluate(),
        "progress": trainer.progress,
        "history": trainer.history,
        "description": trainer.described,
    }
    for what, part in parts.items():
        again = pickle.loads(pickle.dumps(part))
        assert type(again) is type(part), what
    assert pickle.loads(pickle.dumps(experiment.settings)) == experiment.settings
    assert pickle.loads(pickle.dumps(trainer.described)).own is None
