"""A training that begins with weights out of a file."""

import copy
import json
import os

import pytest
import torch
from safetensors.torch import save_file

from threefactor import training
from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.recipes import recipe
from threefactor.recipes.finetuning import finetuning
from threefactor.training.build import begin
from threefactor.training.progress import Watcher
from threefactor.training.weights import load_weights


def settings(**changes):
    small = {"data.train": 40, "data.test": 30, "hidden": [8], "epochs": 1, "batch_size": 20}
    return recipe("digits-fc").settings_for("dfa", {**small, **changes})


@pytest.fixture
def state():
    """Weights of another seed, in double precision."""
    torch.manual_seed(5)
    network = training.build(settings(seed=7)).network
    return {name: value.double().contiguous() for name, value in network.state_dict().items()}


def saved(state, path):
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth"])
def test_a_network_gets_the_weights_of_a_file(tmp_path, state, ending):
    file = saved(state, tmp_path / f"weights{ending}")
    network = training.build(settings()).network
    digest = training.load_weights(network, file)
    assert len(digest) == 64
    assert all(torch.equal(p.double(), state[n]) for n, p in network.state_dict().items())
    assert next(network.parameters()).dtype == torch.float32


def test_a_run_says_what_it_began_with(tmp_path, state):
    file = saved(state, tmp_path / "w.safetensors")
    chosen = settings(start=str(file), lr=0.0, **{"optimizer.options": {"weight_decay": 0.0}})
    history = training.train(chosen, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    network = training.build(settings()).network
    assert config["start"] == {"file": str(file), "sha256": load_weights(network, file)}
    started = json.loads((tmp_path / "run" / "start.json").read_text())
    assert started["test_accuracy"] == history[0]["test_accuracy"]  # nothing was learned
    ended = training.open_run(tmp_path / "run").experiment.network.state_dict()
    assert all(torch.equal(value.double(), state[name]) for name, value in ended.items())


class StopAt(Watcher):
    def batch(self, loss, accuracy, samples):
        self.trainer._stop.number = 2


def test_a_run_is_resumed_without_the_file_once_it_has_a_checkpoint(tmp_path, state):
    file = saved(state, tmp_path / "w.pt")
    whole = training.train(settings(start=str(file)), tmp_path / "whole")
    experiment = training.build(settings(start=str(file)))
    begin(experiment)
    trainer = training.Trainer(experiment, training.RunFolder(tmp_path / "run"), StopAt())
    trainer.watcher.trainer = trainer
    with pytest.raises(training.InterruptedRunError):
        trainer.fit()
    file.unlink()
    resumed = training.resume(tmp_path / "run")
    assert resumed[-1]["test_loss"] == whole[-1]["test_loss"]


def test_before_the_first_checkpoint_a_changed_file_is_refused(tmp_path, state):
    file = saved(state, tmp_path / "w.pt")
    training.train(settings(start=str(file)), tmp_path / "run")
    for name in ("last", "best"):
        for one in (tmp_path / "run" / name).iterdir():
            os.unlink(one)
    for name in ("metrics.jsonl", "start.json"):
        (tmp_path / "run" / name).unlink()
    kept = copy.deepcopy(state)
    kept["layers.0.weight" if "layers.0.weight" in kept else next(iter(kept))] += 1
    saved(kept, file)
    with pytest.raises(CheckpointError, match="was changed since"):
        training.resume(tmp_path / "run")
    saved(state, file)


def test_a_prefix_is_taken_off_only_if_said(tmp_path, state):
    file = saved({f"module.{k}": v for k, v in state.items()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"missing there: .*start_prefix=module\."):
        training.train(settings(start=str(file)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (line,) = training.train(settings(start=str(file), start_prefix="module."))
    assert line["epoch"] == 1
    plain = saved(state, tmp_path / "plain.pth")
    with pytest.raises(CheckpointError, match=r"without the prefix .module\.. there"):
        training.train(settings(start=str(plain), start_prefix="module."))
    with pytest.raises(ConfigurationError, match=r"start_prefix is .module\.. and start null"):
        settings(start_prefix="module.")


def changed(state, what):
    given = dict(state)
    first = next(iter(given))
    if what == "missing":
        del given[first]
    elif what == "more":
        given["feedback.0.weight"] = torch.zeros(3)
    elif what == "shape":
        given[first] = given[first][:-1]
    elif what == "integers":
        given[first] = given[first].long()
    elif what == "nan":
        given[first] = given[first] * float("nan")
    return given


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "missing there: "),
        ("more", "not known here: feedback.0.weight"),
        ("shape", r"of other shapes: .* is \(7, 64\), and \(8, 64\) here"),
        ("integers", "is torch.int64, and torch.float32 here"),
        ("nan", "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_change_nothing(tmp_path, state, what, message):
    network = training.build(settings()).network
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_weights(network, saved(changed(state, what), tmp_path / "w.pt"))
    assert all(torch.equal(before[n], p) for n, p in network.state_dict().items())


def test_files_that_are_no_weights(tmp_path, state):
    network = training.build(settings()).network
    whole = tmp_path / "whole.pt"
    torch.save(network, whole)
    nested = saved({"epoch": 3, "model": state}, tmp_path / "nested.pt")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
    cases = {
        whole: "may run any code",
        nested: "epoch, model .*perhaps 'model'",
        saved([1, 2], tmp_path / "list.pt"): "holds a list",
        broken: "damaged .safetensors",
        tmp_path / "absent.pt": "cannot be read",
        tmp_path / "w.bin": "ends in .safetensors, .pt, .pth",
    }
    for path, message in cases.items():
        with pytest.raises(CheckpointError, match=message):
            load_weights(network, path)


def test_a_run_that_began_with_a_file_is_fine_tuned_at_a_hundredth_of_its_rate(tmp_path, state):
    file = saved(state, tmp_path / "w.pt")
    training.train(settings(start=str(file)), tmp_path / "run")
    training.train(settings(), tmp_path / "fresh")
    rates = [finetuning(tmp_path / name, 0.1).optimizer.lr for name in ("run", "fresh")]
    assert rates[0] == rates[1]
