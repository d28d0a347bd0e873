"""Run folders: what is left of a run, changed files, other environments; nothing is lost."""

import json
import os
import shutil
import signal

import pytest
import torch

from threefactor import training
from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.recipes import recipe
from threefactor.report.runs import read_run
from threefactor.training.folder import checkpoint
from threefactor.training.folder.writer import command, environment
from threefactor.training.loop import InterruptedRunError
from threefactor.training.progress import Watcher


class StopAt(Watcher):
    def __init__(self, batch):
        self.left = batch

    def batch(self, loss, accuracy, samples):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


def stopped(settings, path, batch=9, **options):
    """A run of 7 batches an epoch that was stopped: in its second epoch, if nothing is said."""
    with pytest.raises(InterruptedRunError):
        training.train(settings, path, watcher=StopAt(batch), **options)
    return training.RunFolder(path)


def change(path, edit):
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def everything(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_a_run_whose_checkpoint_is_gone_keeps_its_metrics(small, tmp_path):
    training.train(small(), tmp_path / "run")
    shutil.rmtree(tmp_path / "run/last")
    before = everything(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"metrics of 3 epochs, but .*last is gone"):
        training.resume(tmp_path / "run")
    assert everything(tmp_path / "run") == before


def test_a_run_killed_before_its_first_checkpoint_begins_anew(small, tmp_path):
    whole = training.train(small(), tmp_path / "whole")
    training.RunFolder(tmp_path / "run").create(small())
    history = training.resume(tmp_path / "run")
    assert [line["test_loss"] for line in history] == [line["test_loss"] for line in whole]


def test_what_is_left_of_a_run_is_neither_taken_up_nor_overwritten(small, tmp_path):
    training.train(small(), tmp_path / "run")
    (tmp_path / "run/config.json").unlink()
    before = everything(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"left of a run .*metrics\.jsonl, last, best"):
        training.train(small(seed=1), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"holds no run.*put its config\.json back"):
        training.resume(tmp_path / "run")
    trainer = training.Trainer(training.build(small()), training.RunFolder(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="already holds a training"):
        trainer.fit()
    assert everything(tmp_path / "run") == before


def test_what_is_left_of_a_run_is_set_aside_if_that_is_asked_for(small, tmp_path):
    wanted = training.train(small(seed=1, epochs=4), tmp_path / "clean")
    run = tmp_path / "run"
    training.train(small(), run)
    before = everything(run)
    (run / "config.json").unlink()
    history = training.train(small(seed=1, epochs=4), run, set_aside=True)
    assert [line["test_loss"] for line in history] == [line["test_loss"] for line in wanted]
    assert training.Run(run).metrics == history
    kept = everything(run / "remains-1")
    assert {str(path) for path in kept} >= {"metrics.jsonl", "last/state.json", "best/state.json"}
    assert all(before[path] == content for path, content in kept.items())
    (run / "config.json").unlink()
    assert training.RunFolder(run).set_aside() == run / "remains-2"
    assert everything(run / "remains-1") == kept
    assert training.RunFolder(run).set_aside() is None


EDITS = {
    "optimizer.lr": lambda s: s["optimizer"].update(lr=1e-9),
    "rule.name": lambda s: s["rule"].update(name="dfa", options={}),
    "network.threshold": lambda s: s["network"].update(threshold=0.5),
    "epochs": lambda s: s.update(epochs=30),
    "seed": lambda s: s.update(seed=4),
}


@pytest.mark.parametrize("name", EDITS)
def test_settings_that_were_changed_since_are_named(small, tmp_path, name):
    run = stopped(small(), tmp_path / "run")
    before = run.metrics_path.read_bytes()
    change(run.config_path, lambda document: EDITS[name](document["settings"]))
    for use in (training.resume, training.open_run):
        with pytest.raises(CheckpointError, match=rf"{name}: .* when it was trained, .* now"):
            use(run.path)
    assert run.metrics_path.read_bytes() == before


def test_a_network_to_start_from_is_one_of_its_settings(small, tmp_path):
    training.train(small("dfa"), tmp_path / "before")
    after = small("dfa", start=str(tmp_path / "before"), epochs=1)
    assert len(training.train(after)) == 1
    change(tmp_path / "before/config.json", lambda d: d["settings"]["network"].update(leak=0.9))
    with pytest.raises(CheckpointError, match=r"network\.leak: 0\.5 when it was trained, 0\.9 now"):
        training.train(after)


@pytest.mark.parametrize("data", [{}, [], 5, "x", {"train": "x"}, {"first_inputs": None}])
def test_a_damaged_record_of_the_data_is_an_error_of_ours(small, tmp_path, data):
    run = stopped(small(), tmp_path / "run")
    whole = run.read().config["data"]
    given = {**whole, **data} if isinstance(data, dict) and data else data
    change(run.config_path, lambda document: document.update(data=given))
    with pytest.raises(CheckpointError, match=r"record of the data in config\.json is damaged"):
        training.resume(run.path)


@pytest.mark.parametrize(
    "content",
    ["[" * 50_000, '{"a":' * 50_000, "9" * 5000, "[]", "null", '{"settings": 5, "environment": {}}',
     '{"settings": {}, "environment": []}', "\x00", '"' + "a" * 2**24 + '"'],
)  # fmt: skip
def test_a_configuration_that_is_none_is_an_error_of_ours(small, tmp_path, content):
    run = stopped(small(), tmp_path / "run")
    run.config_path.write_text(content)
    for use in (training.resume, training.open_run, lambda path: run.read().settings):
        with pytest.raises(CheckpointError, match="holds no run"):
            use(run.path)


@pytest.mark.parametrize("settings", [{}, {"recipe": 5}, {"recipe": "x", "network": []}])
def test_settings_that_are_none_are_an_error_of_ours(small, tmp_path, settings):
    run = stopped(small(), tmp_path / "run")
    change(run.config_path, lambda document: document.update(settings=settings))
    with pytest.raises(ConfigurationError, match="invalid settings"):
        training.resume(run.path)


@pytest.mark.parametrize("depth", [500, 900, 950, 980])
def test_settings_nested_deep_are_an_error_of_ours(small, tmp_path, depth):
    run = stopped(small(), tmp_path / "run")
    deep = '{"recipe": ' + "[" * depth + "]" * depth + "}"
    run.config_path.write_text('{"settings": ' + deep + ', "environment": {}}')
    with pytest.raises((CheckpointError, ConfigurationError)):
        _ = run.read().settings


@pytest.mark.parametrize(
    "change_of_line",
    [
        {"test_accuracy": "x"},
        {"test_accuracy": 10**400},
        {"test_accuracy": 1.5},
        {"train_loss": None},
        {"train_loss": float("nan")},
        {"seconds": []},
    ],
)
def test_a_metrics_line_without_numbers_is_an_error_of_ours(small, tmp_path, change_of_line):
    run = stopped(small(), tmp_path / "run")
    change(run.metrics_path, lambda line: line.update(change_of_line))
    run.metrics_path.write_text(run.metrics_path.read_text() + "\n")
    before = run.metrics_path.read_bytes()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged"):
        training.resume(run.path)
    assert run.metrics_path.read_bytes() == before


LINES = [
    "{}",
    '{"batches": "x", "epoch": 1}',
    '{"batches": 1.5, "epoch": 1}',
    '{"batches": -1, "epoch": 1}',
    '{"batches": 1, "epoch": null}',
    '{"batches": 1, "epoch": NaN}',
    '{"batches": true, "epoch": 1}',
    "5",
    "[" * 50_000,
]


@pytest.mark.parametrize("line", LINES)
def test_a_damaged_measurement_is_an_error_of_ours(small, tmp_path, line):
    track = {"measures": ["firing"], "samples": 16}
    run = stopped(small(track=track), tmp_path / "run")
    with open(run.tracked_path, "a") as file:
        file.write(line + "\n")
    with pytest.raises(CheckpointError, match=r"of .*tracked\.jsonl is damaged"):
        training.resume(run.path)


def put(path, value):
    """A change of the state of a checkpoint."""

    def edit(state):
        *groups, last = path
        for group in groups:
            state = state[group]
        if value is KeyError:
            del state[last]
        else:
            state[last] = value

    return edit


NAN = torch.tensor(float("nan"))
DAMAGES = {
    "epoch of text": put(["epoch"], "x"),
    "epoch below 0": put(["epoch"], -1),
    "epoch beyond the last": put(["epoch"], 99),
    "epoch that is true": put(["epoch"], True),
    "huge epoch": put(["epoch"], 10**400),
    "no epoch": put(["epoch"], KeyError),
    "no network": put(["network"], None),
    "network of numbers": put(["network", "linear1.weight"], 5),
    "network of NaN": put(["network", "readout.bias"], torch.full((10,), float("nan"))),
    "network of another shape": put(["network", "readout.bias"], torch.zeros(9)),
    "network of another type": put(["network", "readout.bias"], torch.zeros(10).double()),
    "network without a layer": put(["network", "readout.bias"], KeyError),
    "network with one more": put(["network", "more"], torch.zeros(1)),
    "rule without feedback": put(["rule"], {}),
    "feedback of another shape": put(["rule", "feedback.0.matrix"], torch.zeros(1)),
    "no optimiser": put(["optimizer"], None),
    "optimiser of text": put(["optimizer"], "x"),
    "optimiser without groups": put(["optimizer", "param_groups"], []),
    "optimiser without a state": put(["optimizer", "state"], None),
    "moment of another shape": put(["optimizer", "state", 0, "exp_avg"], torch.zeros(5, 5)),
    "moment of NaN": put(["optimizer", "state", 0, "exp_avg"], NAN),
    "rate of text": put(["optimizer", "param_groups", 0, "lr"], "x"),
    "rate of NaN": put(["optimizer", "param_groups", 0, "lr"], float("nan")),
    "parameters of text": put(["optimizer", "param_groups", 0, "params"], "x"),
    "scheduler that is none": put(["scheduler"], None),
    "a method of the scheduler": put(["scheduler", "step"], 5),
    "scheduler's epoch of text": put(["scheduler", "last_epoch"], "x"),
    "no random state": put(["random"], {}),
    "random state of zeros": put(["random", "cpu"], torch.zeros(3, dtype=torch.uint8)),
    "random state of text": put(["random", "cpu"], "x"),
    "sums of text": put(["sums"], "x"),
    "another sum": put(["sums", "other"], 1),
    "samples of text": put(["sums", "samples"], "x"),
    "batch beyond the epoch": put(["sums", "batch"], 1000),
    "more right than there are": put(["sums", "correct"], 10**6),
    "loss of NaN": put(["sums", "loss"], float("nan")),
    "spikes of text": put(["sums", "spikes"], {"lif1": "x"}),
    "best of text": put(["best"], "x"),
    "best by another measure": put(["best_by"], "luck"),
    "no settings": put(["settings"], KeyError),
    "settings of another kind": put(["settings"], [1]),
}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    from threefactor.recipes import recipe

    small = {"hidden": [6], "data.train": 100, "data.test": 20, "batch_size": 16, "epochs": 3}
    settings = recipe("digits-fc").settings_for("opzo", small)
    return stopped(settings, tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("name", DAMAGES)
def test_a_state_that_proves_itself_and_does_not_fit_is_an_error_of_ours(whole_run, tmp_path, name):
    run = training.RunFolder(shutil.copytree(whole_run.path, tmp_path / "run"))
    state = checkpoint.load_state(run.last)
    DAMAGES[name](state)
    checkpoint.save_state(run.last, state)
    before = run.metrics_path.read_bytes()
    for use in (training.open_run, training.resume):
        with pytest.raises(CheckpointError, match=r"does not fit this run|is damaged"):
            use(run.path)
    assert run.metrics_path.read_bytes() == before


def test_what_a_kill_left_half_written_is_cleared_at_the_next_start(small, tmp_path):
    whole = training.train(small(), tmp_path / "whole")
    run = stopped(small(), tmp_path / "run")
    left = [run.path / ".config.json.0123abcd", run.last / ".state.json.0123abcd"]
    left += [run.last / "tensors-0123456789ab.safetensors", run.best / ".x.89abcdef"]
    for path in left:
        path.write_bytes(b"half")
    history = training.resume(run.path)
    assert not any(path.exists() for path in left)
    assert [line["test_loss"] for line in history] == [line["test_loss"] for line in whole]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_going_on_in_another_environment_is_said_and_written_down(small, tmp_path, threads):
    threads(1)
    run = stopped(small(), tmp_path / "run")
    assert run.read().threads == 1
    threads(2)
    with (
        pytest.warns(UserWarning, match=r"threads 1 before, 2 now.*not have the bits"),
        pytest.raises(InterruptedRunError),
    ):
        training.resume(run.path, watcher=StopAt(1))
    assert run.read().config["environment"]["threads"] == 1
    assert run.read().config["resumed"] == [{"epoch": pytest.approx(9 / 7), "threads": 2}]
    assert run.read().threads == 2
    training.resume(run.path)  # as before: nothing to be said
    assert len(run.read().config["resumed"]) == 1
    threads(1)
    training.resume(run.path)  # it is finished, so nothing goes on
    assert len(run.read().config["resumed"]) == 1


def test_the_environment_is_that_of_the_engine(small, small_events, threads):
    from threefactor import events

    threads(1)
    events.set_num_threads(2)
    try:
        assert environment(small())["threads"] == 1
        assert environment(small_events())["threads"] == 2
    finally:
        events.set_num_threads(None)


def test_the_command_line_goes_on_with_as_many_threads_as_before(small, tmp_path, threads):
    from typer.testing import CliRunner

    from threefactor.cli.app import app

    threads(2)
    run = stopped(small(), tmp_path / "run")
    threads(1)
    done = CliRunner().invoke(app, ["train", "--resume", "--out", str(run.path)])
    assert done.exit_code == 0, done.output
    assert "resumed" not in run.read().config
    assert torch.get_num_threads() == 2


def test_finished_epochs_need_their_checkpoint(small, tmp_path):
    run = stopped(small(), tmp_path / "run")
    assert run.read().finished_epochs == len(run.read().metrics) == 1
    run.append_metrics({**run.read().metrics[0], "epoch": 2})
    assert run.read().finished_epochs == 1
    (file,) = run.last.glob("*.safetensors")
    os.truncate(file, 10)
    with pytest.raises(CheckpointError, match="cut short"):
        _ = run.read().finished_epochs


@pytest.mark.parametrize("name", ["", "a\0b", 5])
def test_what_names_no_folder_is_refused(small, name):
    with pytest.raises(CheckpointError, match="names no folder"):
        training.train(small(), name)


def test_the_command_that_went_on_is_not_the_one_that_made_the_run(small, tmp_path):
    run = training.RunFolder(tmp_path / "run")
    token = command.set("threefactor train digits-fc")
    try:
        run.create(small())  # killed here
        command.set("threefactor train --resume --out run")
        training.resume(run.path)
    finally:
        command.reset(token)
    assert run.read().config["environment"]["command"] == "threefactor train digits-fc"


def test_a_report_leaves_out_a_run_whose_settings_were_edited(small, tmp_path):
    run = training.RunFolder(tmp_path / "run")
    training.train(small(), run.path)
    assert read_run(run.path).finished
    document = run.read().config
    document["settings"]["rule"] = {"name": "dfa", "options": {}}
    run.config_path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"other settings .*rule\.name: 'opzo' when"):
        read_run(run.path)
    shutil.rmtree(run.last)  # nobody can tell any more
    assert read_run(run.path).settings.rule.name == "dfa"


@pytest.mark.parametrize(("name", "rule"), [("digits-fc", "dfa"), ("digits-events", "sfdfa")])
def test_a_run_from_before_an_option_of_its_rule_has_the_default(tmp_path, name, rule):
    settings = recipe(name).settings_for(rule)
    run = training.RunFolder(tmp_path / "run")
    run.create(settings)
    config = json.loads(run.config_path.read_text())
    for option in ("untraced", "normalise_by_count", "feedback_lr_change", "feedback_first"):
        config["settings"]["rule"]["options"].pop(option, None)
    run.config_path.write_text(json.dumps(config))
    assert run.read().differences(settings) == ""
    option = {"untraced": ["linear1"]} if rule == "dfa" else {"normalise_by_count": True}
    (name_of_option,) = option
    changed = recipe(name).settings_for(rule, option)
    assert f"rule.options.{name_of_option}" in run.read().differences(changed)
