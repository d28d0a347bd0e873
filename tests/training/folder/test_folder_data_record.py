"""What a run remembers of its data: enough to tell other samples, and no more than others share."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from threefactor import data, training
from threefactor.errors import CheckpointError
from threefactor.recipes import recipe
from threefactor.training.folder.data_record import describe_data, difference

DIGITS = data.load("digits").subset(40, 20)


def others():
    """The same set, in each way in which another copy of it may differ."""
    labels = DIGITS.train_labels
    yield "40 samples for training there, 39 here", DIGITS.subset(39, 20)
    yield "20 samples for testing there, 19 here", DIGITS.subset(40, 19)
    yield "the labels differ", replace(DIGITS, train_labels=labels.roll(1))
    yield "the labels differ", replace(DIGITS, test_labels=DIGITS.test_labels.roll(1))
    lossy = (DIGITS.train_images * 10).round() / 10
    yield "the inputs differ", replace(DIGITS, train_images=lossy)


@pytest.mark.parametrize(("said", "samples"), list(others()))
def test_other_samples_are_told(said, samples):
    assert difference(describe_data(DIGITS), describe_data(samples)) == said


def test_the_same_samples_are_the_same():
    here = describe_data(DIGITS)
    assert here == json.loads(json.dumps(here)) and len(here["first_inputs"]) == 8
    rounded = replace(DIGITS, train_images=DIGITS.train_images * (1 + 1e-6))
    assert difference(here, describe_data(rounded)) is None
    augmented = data.AugmentedData(DIGITS, data.Augmentation(padding=2, flip=True))
    random = torch.get_rng_state()
    assert describe_data(augmented) == here
    assert torch.equal(torch.get_rng_state(), random)
    assert difference(None, here) is None


def test_every_kind_of_inputs_has_numbers():
    spikes = data.load_spikes("digits").subset(40, 20)
    assert len(set(describe_data(spikes)["first_inputs"])) == 8
    assert describe_data(spikes)["labels"] == describe_data(DIGITS)["labels"]


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    changes = {"epochs": 1, "data.train": 40, "data.test": 20, "hidden": [8]}
    training.train(recipe("digits-fc").settings_for("dfa", changes), tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    document = json.loads(path.read_text())
    assert document["data"] == describe_data(DIGITS)
    training.resume(tmp_path / "run")
    document["data"]["train"] = 41
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"other data .*41 samples for training there, 40"):
        training.resume(tmp_path / "run")
    del document["data"]  # as written by an earlier version
    path.write_text(json.dumps(document))
    training.resume(tmp_path / "run")
