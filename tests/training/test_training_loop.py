"""The training loop: what it learns, writes, and does when something goes wrong."""

import errno
import json
import math
import os
import signal

import pytest
import torch

from threefactor import clocked, training
from threefactor.errors import CheckpointError, ConfigurationError, DivergenceError
from threefactor.training.folder import checkpoint
from threefactor.training.loop import InterruptedRunError
from threefactor.training.progress import EpochLines, Watcher


def test_a_run_folder_holds_configuration_metrics_and_checkpoints(small, tmp_path):
    history = training.train(small(), tmp_path / "run")
    lines = [json.loads(t) for t in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines == history
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    wanted = {"train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"}
    assert wanted | {"samples_per_second", "lr", "firing_rates", "noise_scale"} <= set(lines[0])
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["settings"]["rule"]["options"]["momentum"] == 0.99999
    assert config["environment"]["torch"] == torch.__version__
    assert checkpoint.exists(tmp_path / "run/last")
    assert checkpoint.exists(tmp_path / "run/best")


def test_it_learns(small):
    larger = {"hidden": [64], "data.train": 300, "epochs": 8}
    history = training.train(small("opzo", **larger))
    assert history[0]["train_accuracy"] < 0.6
    assert history[-1]["train_accuracy"] > 0.9
    assert 0.02 < history[-1]["firing_rates"]["lif1"] < 0.98


def test_the_noise_scale_and_learning_rate_follow_their_schedules(small):
    history = training.train(small(epochs=3))
    assert [line["noise_scale"] for line in history] == pytest.approx([0.2, 0.105, 0.01])
    cosine = [5e-3 * (1 + math.cos(math.pi * e / 3)) / 2 for e in range(3)]
    assert [line["lr"] for line in history] == pytest.approx(cosine)


def test_an_update_at_every_step_differs_from_one_per_sequence(small):
    one = training.train(small("dfa"))
    each = training.train(small("dfa", update="step"))
    assert one[-1]["train_loss"] != each[-1]["train_loss"]
    assert each[-1]["train_loss"] < each[0]["train_loss"]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer.name": "SGD", "optimizer.lr": 0.1, "optimizer.options": {"momentum": 0.9}},
        {"optimizer.name": "RMSprop", "optimizer.options": {}},
        {"scheduler.name": None, "scheduler.options": {}},
        {"scheduler.name": "StepLR", "scheduler.options": {"step_size": 1}},
        {"scheduler.name": "BoundedStepLR", "scheduler.options": {"step_size": 1}},
        {"dtype": "float64"},
        {"hidden": []},
        {"batch_size": 1000},
    ],
)
def test_other_optimizers_schedulers_and_shapes(small, changes):
    history = training.train(small("dfa", **changes))
    assert history[-1]["train_loss"] < history[0]["train_loss"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer.name": "AdamV"}, r"unknown optimizer 'AdamV'; did you mean 'Adam"),
        (
            {"optimizer.options": {"beta": 1}},
            "unknown option of optimizer 'AdamW': 'beta'; did you mean 'betas'",
        ),
        ({"scheduler.name": "Cosine"}, "unknown scheduler"),
        ({"rule.options": {"speed": 1}}, "unknown option of rule 'opzo': 'speed'"),
        ({"rule.options": {"momentum": "x"}}, "momentum is 'x'; rule 'opzo' does not take that"),
        ({"rule.options": {"noise_scale": [1, 2, 3]}}, "give a number above 0, or two as"),
    ],
)
def test_wrong_names_and_options_are_refused_before_training(small, changes, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        training.train(small(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_rules_own_bad_value_names_it(small):
    with pytest.raises(ValueError, match=r"momentum is 1\.5"):
        training.train(small(momentum=1.5))


def test_a_loss_that_turns_nan_stops_the_run_and_keeps_the_last_good_checkpoint(small, tmp_path):
    run = tmp_path / "run"
    experiment = training.build(small("dfa"))
    folder = training.RunFolder(run)
    folder.create(experiment.settings)
    trainer = training.Trainer(experiment, folder, Spoiler(experiment.network, batch=9))
    with pytest.raises(DivergenceError, match=r"in epoch 2 at batch 4, .* holds NaN.*last"):
        trainer.fit()
    kept = checkpoint.load_state(run / "last")
    assert kept["epoch"] == 1
    assert all(torch.isfinite(w).all() for w in kept["network"].values())
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1


class Spoiler(Watcher):
    """Breaks a weight after some batches."""

    def __init__(self, network, batch):
        self.network, self.left = network, batch + 1

    def batch(self, loss, accuracy, samples):
        self.left -= 1
        if self.left == 0:
            with torch.no_grad():
                self.network.readout.weight.fill_(float("nan"))


def test_evaluation_is_a_plain_run_over_the_test_data(small):
    trainer = training.Trainer(training.build(small()))
    trainer.fit()
    data, net = trainer.experiment.data, trainer.experiment.network
    net.eval()
    output = clocked.run(net, data.test_images, steps=6).output
    right = (output.argmax(1) == data.test_labels).float().mean()
    assert trainer.history[-1]["test_accuracy"] == pytest.approx(float(right))
    assert trainer.evaluate().accuracy == pytest.approx(float(right))


def test_a_second_run_does_not_overwrite_the_first(small, tmp_path):
    training.train(small(), tmp_path / "run")
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="already holds a run; add --resume"):
        training.train(small(seed=1), tmp_path / "run")
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_a_full_disk_while_writing_metrics_keeps_whole_lines(small, tmp_path, monkeypatch):
    folder = training.RunFolder(tmp_path)
    whole = {"epoch": 1, "train_loss": 1.0, "test_loss": 1.0, "seconds": 1.0, "firing_rates": {}}
    whole |= {"train_accuracy": None, "test_accuracy": None}
    folder.append_metrics(whole)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        folder.append_metrics({"epoch": 2})
    assert folder.read().metrics == [whole]


def test_a_folder_that_cannot_be_made(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot make"):
        training.train(small(), tmp_path / "file" / "run")


def test_without_a_folder_an_interrupt_says_that_nothing_was_kept(small):
    class Stop(Watcher):
        def batch(self, loss, accuracy, samples):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRunError, match="nothing was kept"):
        training.train(small(), watcher=Stop())


def test_the_progress_lines_say_what_is_left(small, capsys):
    from rich.console import Console

    training.train(small(), watcher=EpochLines(Console()))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("epoch   1/3  train loss ")
    for word in ("accuracy", "samples/s", "left"):
        assert word in lines[0]
