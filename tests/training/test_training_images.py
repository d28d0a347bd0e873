"""Training on image files that are loaded ahead: the same bits as without, and when resumed."""

from types import SimpleNamespace

import pytest
import torch
from data.image_folders import write_folder
from torch import nn
from training.test_training_resume import StopAt, assert_same_run

from threefactor import clocked, training
from threefactor.data import ImageFiles, load_image_folder
from threefactor.training.evaluation import evaluate, evaluation_batch
from threefactor.training.loop import InterruptedRunError


@pytest.fixture
def settings(small):
    """24 images in batches of 5, three epochs of five batches each."""
    changes = {"data.name": "imagenet", "data.train": 24, "data.test": None, "batch_size": 5}
    return small(**changes, hidden=[8], dropout=0.3, steps=2)


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "data/imagenet", train=8)
    return tmp_path / "data"


@pytest.mark.parametrize("batch", [1, 4, 5, 8])
def test_an_interrupted_run_resumes_to_the_bit(settings, folder, tmp_path, batch):
    training.train(settings, tmp_path / "whole", data_dir=folder)
    parts, stop = tmp_path / "parts", StopAt(batch)
    with pytest.raises(InterruptedRunError):
        training.train(settings, parts, data_dir=folder, watcher=stop)
    training.resume(tmp_path / "parts", data_dir=folder)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_loading_ahead_changes_nothing(settings, folder, tmp_path, monkeypatch):
    training.train(settings, tmp_path / "ahead", data_dir=folder)
    real = ImageFiles.batches

    def one_by_one(self, indices, seed):
        for index in indices:
            yield from real(self, [index], seed)

    monkeypatch.setattr(ImageFiles, "batches", one_by_one)
    training.train(settings, tmp_path / "alone", data_dir=folder)
    assert_same_run(tmp_path / "ahead", tmp_path / "alone")


def test_each_epoch_has_other_parts_of_the_pictures(settings, folder, monkeypatch):
    seeds, real = [], ImageFiles.batches

    def recorded(self, indices, seed):
        if self.training:
            seeds.append(seed)
        return real(self, indices, seed)

    monkeypatch.setattr(ImageFiles, "batches", recorded)
    training.train(settings, data_dir=folder)
    assert len(seeds) == len(set(seeds)) == 3


def test_evaluation_sees_every_image_once_with_its_label(folder, monkeypatch):
    monkeypatch.setattr("threefactor.training.evaluation.EVALUATION_BATCH", 4)
    inputs, labels = load_image_folder(folder / "imagenet").test
    seen = []

    class Result:
        loss, firing_rates = 0.0, {}

        def __init__(self, y):
            self.output = torch.eye(3)[y]

    def run(x, y):
        seen.append(x)
        return Result(y)

    assert evaluate(torch.nn.Linear(1, 1), inputs, labels, run).accuracy == 1
    assert [len(x) for x in seen] == [4, 4, 1]
    assert torch.equal(torch.cat(seen), inputs[:])


def test_large_pictures_are_evaluated_in_smaller_batches():
    """What a network needs for one of 3x224x224 is some 74 MB with nf_resnet34."""
    networks = {
        500: [clocked.fc(784, (5,), 2), clocked.conv5(width=0.1), nn.Linear(2, 2)],
        66: [clocked.nf_resnet34(width=0.05)],
        1: [clocked.conv5((3, 2000, 2000), width=0.02)],
    }
    for size, ones in networks.items():
        assert [evaluation_batch(one) for one in ones] == [size] * len(ones)
    parts = []

    def run(x, y):
        parts.append(len(x))
        return SimpleNamespace(output=torch.zeros(len(x), 2), loss=1.0, firing_rates={})

    net = clocked.conv5((3, 224, 224), 2, width=0.02)
    evaluate(net, torch.zeros(150, 1), torch.zeros(150, dtype=torch.long), run)
    assert parts == [66, 66, 18]
