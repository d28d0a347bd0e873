"""An interrupted run that is resumed ends with the bits of one that never stopped."""

import json
import os
import signal
import time

import pytest
import torch
from forked import output, python

from threefactor import training
from threefactor.errors import CheckpointError
from threefactor.training.folder import checkpoint
from threefactor.training.loop import InterruptedRunError
from threefactor.training.progress import Watcher

VOLATILE = ("seconds", "samples_per_second")


def assert_same_run(a, b):
    """Compare everything that the rest of a run depends on, to the bit."""
    first, second = (checkpoint.load_state(run / "last") for run in (a, b))
    for part in ("network", "rule", "optimizer"):
        assert_same(first[part], second[part])
    assert first["scheduler"] == second["scheduler"]
    assert torch.equal(first["random"]["cpu"], second["random"]["cpu"])
    assert metrics(a) == metrics(b)


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def metrics(run):
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in VOLATILE} for line in lines]


class StopAt(Watcher):
    """Presses Ctrl-C during one batch."""

    def __init__(self, batch):
        self.left = batch

    def batch(self, loss, accuracy, samples):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("rule", ["spatial-bp", "dfa", "dkp", "zo", "opzo"])
@pytest.mark.parametrize("batch", [1, 7, 10])
def test_ctrl_c_then_resume_is_the_same_to_the_bit(small, tmp_path, rule, batch):
    settings = small(rule, **({} if rule == "zo" else {"dropout": 0.3}))
    training.train(settings, tmp_path / "whole")
    with pytest.raises(InterruptedRunError, match="resume with: threefactor train --resume --out"):
        training.train(settings, tmp_path / "parts", watcher=StopAt(batch))
    training.resume(tmp_path / "parts", settings=settings)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("exact-bp", {}),
        ("dfa", {"traces": "forward"}),
        ("sfdfa", {}),
        ("sfdfa", {"feedback_optimizer": "adam"}),
    ],
)
@pytest.mark.parametrize("batch", [1, 9])
def test_event_driven_runs_resume_to_the_bit_too(small_events, tmp_path, rule, changes, batch):
    settings = small_events(rule, **changes)
    training.train(settings, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        training.train(settings, tmp_path / "parts", watcher=StopAt(batch))
    training.resume(tmp_path / "parts", settings=settings)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("rule", ["spatial-bp", "opzo"])
def test_recurrent_networks_resume_to_the_bit_too(small, tmp_path, rule):
    settings = small(rule, recurrent=[True, False], dropout=0.3)
    training.train(settings, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        training.train(settings, tmp_path / "parts", watcher=StopAt(7))
    training.resume(tmp_path / "parts", settings=settings)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert "lif1.synapse.weight" in checkpoint.load_state(tmp_path / "whole" / "last")["network"]


def test_several_interruptions_too(small, tmp_path):
    settings = small()
    training.train(settings, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        training.train(settings, tmp_path / "parts", watcher=StopAt(3))
    for batch in (2, 5):
        with pytest.raises(InterruptedRunError):
            training.resume(tmp_path / "parts", watcher=StopAt(batch))
    training.resume(tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_kill_9_then_resume_is_the_same_to_the_bit(tmp_path):
    options = ["--set", "hidden=[24, 16]", "--set", "data.train=200", "--epochs", 60]
    train = ["-m", "threefactor", "train", "--threads", 1]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    output([*train, "digits-fc", *options, "--out", whole])
    process = python([*train, "digits-fc", *options, "--out", parts])
    deadline = time.monotonic() + 120
    folder = training.RunFolder(parts)
    while len(folder.read().metrics) < 2:  # a line that is being written is left out
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(folder.read().metrics) < 60
    output([*train, "--resume", "--out", parts])
    assert_same_run(whole, parts)


def test_a_metrics_line_that_the_checkpoint_does_not_know_is_dropped(small, tmp_path):
    settings = small()
    training.train(settings, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        training.train(settings, tmp_path / "parts", watcher=StopAt(8))
    with open(tmp_path / "parts/metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "test_acc')
    training.resume(tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_resuming_a_finished_run_changes_nothing(small, tmp_path):
    history = training.train(small(), tmp_path / "run")
    before = checkpoint.load_state(tmp_path / "run/last")["network"]
    assert training.resume(tmp_path / "run") == history
    after = checkpoint.load_state(tmp_path / "run/last")["network"]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_run_of_another_configuration_is_refused_by_name(small, tmp_path):
    training.train(small(), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"optimizer.lr: 0.005 there, 0.5 asked"):
        training.resume(tmp_path / "run", settings=small(**{"optimizer.lr": 0.5}))


@pytest.mark.parametrize("content", [None, "", "{", '{"settings": {}}'])
def test_a_folder_without_a_run_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match="holds no run"):
        training.resume(tmp_path)


def test_a_checkpoint_cut_short_is_refused(small, tmp_path):
    training.train(small(), tmp_path / "run")
    (file,) = (tmp_path / "run/last").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="cut short"):
        training.resume(tmp_path / "run")


def test_an_epoch_is_finished_with_its_metrics_line_and_its_checkpoint(small, tmp_path):
    run = training.RunFolder(tmp_path / "run")
    assert run.read().finished_epochs == 0
    training.train(small(), run.path)
    assert run.read().finished_epochs == 3
    lines = run.metrics_path.read_text().splitlines()
    run.metrics_path.write_text("\n".join(lines[:2]) + "\n")  # a line is lost
    assert run.read().finished_epochs == 2
    run.metrics_path.write_text("\n".join([*lines, lines[-1].replace('"epoch": 3', '"epoch": 4')]))
    assert run.read().finished_epochs == 3  # the checkpoint of the fourth is not there
