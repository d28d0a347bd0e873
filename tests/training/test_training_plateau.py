"""A learning rate that falls when the loss does not improve."""

import dataclasses

import pytest
import torch

from threefactor import training
from threefactor.errors import ConfigurationError
from threefactor.recipes import recipe
from threefactor.training.progress import Watcher

OPTIONS = {"factor": 0.5, "patience": 1, "threshold": 0.05}


def settings(**changes):
    small = {"data.train": 60, "data.test": 30, "hidden": [8], "epochs": 8, "batch_size": 20}
    given = {"scheduler": {"name": "ReduceLROnPlateau", "options": OPTIONS}, **changes}
    return recipe("digits-fc").settings_for("dfa", {**small, "optimizer.lr": 0.1, **given})


def rates_of(losses, lr=0.1):
    """The rate of each epoch, by PyTorch's own rule, line by line."""
    best, bad, found = float("inf"), 0, []
    for loss in losses:
        found.append(lr)
        if loss < best * (1 - OPTIONS["threshold"]):
            best, bad = loss, 0
        else:
            bad += 1
        if bad > OPTIONS["patience"]:
            lr, bad = lr * OPTIONS["factor"], 0
    return found


@pytest.mark.parametrize("part", ["validation", "train"])
def test_the_rate_falls_by_the_validation_loss_or_else_the_training_loss(part):
    changes = {"validation": 0.3} if part == "validation" else {}
    history = training.train(settings(**changes))
    rates = [line["lr"] for line in history]
    assert rates == pytest.approx(rates_of([line[f"{part}_loss"] for line in history]))
    assert rates[-1] < rates[0]


class StopAt(Watcher):
    def __init__(self, number):
        self.number, self.trainer = number, None

    def batch(self, loss, accuracy, samples):
        self.number -= 1
        if not self.number:
            self.trainer._stop.number = 2


@pytest.mark.parametrize("batch", [1, 13])
def test_a_resumed_run_goes_on_waiting(tmp_path, batch):
    training.train(settings(validation=0.3), tmp_path / "whole")
    watcher = StopAt(batch)
    experiment = training.build(settings(validation=0.3))
    trainer = training.Trainer(experiment, training.RunFolder(tmp_path / "run"), watcher)
    watcher.trainer = trainer
    with pytest.raises(training.InterruptedRunError):
        trainer.fit()
    training.resume(tmp_path / "run")
    one, other = (training.open_run(tmp_path / name).experiment for name in ("whole", "run"))
    assert one.scheduler.state_dict() == other.scheduler.state_dict()
    theirs = other.network.state_dict()
    assert all(torch.equal(p, theirs[n]) for n, p in one.network.state_dict().items())


def test_more_epochs_have_the_bits_of_a_longer_training(tmp_path):
    training.train(settings(), tmp_path / "whole")
    training.train(settings(epochs=5), tmp_path / "run")
    history = training.resume(tmp_path / "run", epochs=8)
    assert len(history) == 8
    one, other = (training.open_run(tmp_path / name).experiment for name in ("whole", "run"))
    theirs = other.network.state_dict()
    assert all(torch.equal(p, theirs[n]) for n, p in one.network.state_dict().items())


def test_options_that_have_no_meaning_are_refused():
    for options in ({"mode": "max"}, {"factor": 1.5}, {"patients": 3}):
        with pytest.raises(ConfigurationError, match="ReduceLROnPlateau"):
            training.build(settings(scheduler={"name": "ReduceLROnPlateau", "options": options}))
    experiment = training.build(settings())
    upwards = torch.optim.lr_scheduler.ReduceLROnPlateau(experiment.optimizer, mode="max")
    with pytest.raises(ConfigurationError, match="mode='min'"):
        training.Trainer(dataclasses.replace(experiment, scheduler=upwards))
