"""Measuring while training: the right numbers, no effect on the training, no line lost or twice."""

import json
import os
import signal

import pytest
import torch

from threefactor import analysis, clocked, data, events, training
from threefactor.errors import CheckpointError, ConfigurationError, InputError
from threefactor.recipes import recipe
from threefactor.training.folder import checkpoint
from threefactor.training.loop import InterruptedRunError
from threefactor.training.progress import Watcher
from threefactor.training.settings import make_settings
from threefactor.training.tracking import MEASURES, check_measure

BATCHES = 7  # of 16 from 100 samples
TRACK = {"measures": ["alignment", "feedback", "firing"], "every": 3, "samples": 32}
ALONE = {**TRACK, "measures": ["alignment", "firing"]}
CLOCKED = [("spatial-bp", ALONE), ("dfa", TRACK), ("dkp", TRACK), ("zo", ALONE), ("opzo", TRACK)]
EVENTS = [("exact-bp", ALONE), ("dfa", TRACK), ("sfdfa", TRACK)]
VOLATILE = ("seconds", "samples_per_second")


def without_times(history):
    return [{k: v for k, v in line.items() if k not in VOLATILE} for line in history]


def text(run):
    return (run / "tracked.jsonl").read_text()


class At(Watcher):
    """Does something during one batch."""

    def __init__(self, batch, act):
        self.left, self.act = batch, act

    def batch(self, loss, accuracy, samples):
        self.left -= 1
        if self.left == 0:
            self.act()


def crash():
    raise RuntimeError("power cut")


def assert_undisturbed(settings, track):
    """Train without and with tracking; compare all that the training leaves, to the bit."""
    runs = []
    for given in (None, track):
        changed = make_settings({**vars(settings), "track": given})
        trainer = training.Trainer(training.build(changed))
        history = without_times(trainer.fit())
        experiment = trainer.experiment
        state = [experiment.network, experiment.rule, experiment.optimizer]
        runs.append((history, [part.state_dict() for part in state], torch.get_rng_state()))
        assert bool(trainer.tracked) == (given is not None)
    (first, states, random), (second, others, generator) = runs
    assert first == second
    assert torch.equal(random, generator)
    assert json.dumps(states, default=torch.Tensor.tolist) == json.dumps(
        others, default=torch.Tensor.tolist
    )
    return trainer.tracked


@pytest.mark.parametrize(("rule", "track"), CLOCKED)
def test_training_is_the_same_with_and_without(small, rule, track):
    dropout = {} if rule == "zo" else {"dropout": 0.3}
    lines = assert_undisturbed(small(rule, epochs=2, **dropout), track)
    angles = [layer["angle"] for layer in lines[-1]["alignment"]["bp"].values()]
    assert all(angle == 0 for angle in angles) == (rule == "spatial-bp"), "else nothing is measured"
    assert lines[-1]["firing"]["lif1"]["rate"] > 0


@pytest.mark.parametrize(
    ("rule", "track", "changes"),
    [
        *((rule, track, {}) for rule, track in EVENTS),
        ("sfdfa", TRACK, {"feedback_optimizer": "adam"}),
    ],
)
def test_event_driven_training_too(small_events, rule, track, changes):
    lines = assert_undisturbed(small_events(rule, epochs=2, **changes), track)
    found = lines[-1]["alignment"]
    assert found["bp_with_rates"]["lif1"]["angle"] > 0 or rule == "exact-bp"
    assert set(found["bp"]) == {"lif1", "lif2", "readout"}


def test_the_moments(small):
    trainer = training.Trainer(training.build(small("opzo", epochs=2, track=TRACK)))
    trainer.fit()
    assert [line["batches"] for line in trainer.tracked] == [0, 3, 6, 7, 9, 12, 14]
    assert all(line["epoch"] == line["batches"] / BATCHES for line in trainer.tracked)
    accuracies = [line["train_accuracy"] for line in trainer.tracked]
    assert accuracies[0] is None
    assert [accuracies[3], accuracies[6]] == [e["train_accuracy"] for e in trainer.history]
    once = training.Trainer(training.build(small("opzo", epochs=2, track={})))
    once.fit()
    assert [line["batches"] for line in once.tracked] == [0, BATCHES, 2 * BATCHES]
    assert set(once.tracked[0]) == {"epoch", "batches", "train_accuracy", "alignment", "feedback"}


def stopped(settings, folder, batch):
    """Train to a batch, then stop with a checkpoint; return the run as it is there."""
    with pytest.raises(InterruptedRunError):
        training.train(settings, folder, watcher=At(batch, stop_soon))
    return training.open_run(folder)


def stop_soon():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("batch", [3, 9])
def test_numbers_are_those_of_the_analyses_on_the_checkpoint(small_events, tmp_path, batch):
    trainer = stopped(small_events("sfdfa", track=TRACK), tmp_path / "run", batch)
    line = training.Run(tmp_path / "run").tracked[-1]
    assert line["batches"] == batch
    rule = trainer.experiment.rule
    x, y = trainer.experiment.data.test
    batches = [(x[:16], y[:16]), (x[16:32], y[16:32])]
    with_rates = analysis.alignment(rule, batches).to_dict()["layers"]
    rule.rate_penalty = 0.0
    bounded = events.ExactBP(rule.network, local_gradient="modified", loss=rule.loss)
    assert line["alignment"] == {
        "bp": analysis.alignment(rule, batches).to_dict()["layers"],
        "modified_bp": analysis.alignment(rule, batches, reference=bounded).to_dict()["layers"],
        "bp_with_rates": with_rates,
    }
    assert line["feedback"] == analysis.feedback_alignment(rule).to_dict()["layers"]
    assert line["firing"] == analysis.firing(rule.network, batches).to_dict()["layers"]
    assert 0 < line["alignment"]["bp"]["lif2"]["angle"] != with_rates["lif2"]["angle"]


def test_numbers_are_those_of_the_analyses_on_a_time_grid(small, tmp_path):
    settings = small("opzo", track=TRACK, dropout=0.3, seed=3)
    trainer = stopped(settings, tmp_path / "run", 6)
    line = training.Run(tmp_path / "run").tracked[-1]
    rule, net = trainer.experiment.rule, trainer.experiment.network.eval()
    x, y = trainer.experiment.data.test
    batches = [(x[:16], y[:16]), (x[16:32], y[16:32])]
    torch.manual_seed(3)  # the rule's noise
    expected = analysis.alignment(rule, batches, steps=settings.steps).to_dict()["layers"]
    assert line["alignment"] == {"bp": expected} and expected["linear1"]["angle"] > 0
    assert line["feedback"] == analysis.feedback_alignment(rule).to_dict()["layers"]
    firing = analysis.firing(net, batches, steps=settings.steps)
    assert line["firing"] == firing.to_dict()["layers"]


def test_few_samples_are_one_batch(small):
    track = {"measures": ["alignment"], "samples": 10}
    trainer = training.Trainer(training.build(small("dfa", epochs=1, track=track)))
    trainer.fit()
    assert trainer.tracked[0]["alignment"]["bp"]["linear1"]["batches"] == 1


def test_what_is_undefined_is_none_with_a_note(small_events):
    trainer = training.Trainer(training.build(small_events("sfdfa", epochs=1, track=TRACK)))
    trainer.fit()
    start = trainer.tracked[0]
    assert start["feedback"]["lif2"]["angle"] is None
    assert start["alignment"]["bp"]["lif1"]["angle"] is None
    assert "the rule's gradient is zero" in start["alignment"]["bp"]["lif1"]["note"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted, with its settings."""
    changes = {"hidden": [24, 16], "thresholds": [0.1, 0.05, 0.05], "batch_size": 16, "epochs": 2}
    changes |= {"data.train": 100, "data.test": 40, "track": TRACK}
    settings = recipe("digits-events").settings_for("sfdfa", changes)
    folder = tmp_path_factory.mktemp("tracking") / "whole"
    training.train(settings, folder)
    return settings, folder


def assert_same(one, other):
    assert text(one) == text(other)
    states = [checkpoint.load_state(run / "last") for run in (one, other)]
    weights, others = (state["network"]["lif1.weight"] for state in states)
    assert torch.equal(weights, others)
    first, second = (without_times(training.Run(run).metrics) for run in (one, other))
    assert first == second


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_ctrl_c_then_resume_gives_the_same_lines(whole, tmp_path, batch):
    settings, folder = whole
    stopped(settings, tmp_path / "parts", batch)
    training.resume(tmp_path / "parts", settings=settings)
    assert_same(folder, tmp_path / "parts")


@pytest.mark.parametrize("batch", [2, 10])
def test_a_crash_between_checkpoints_loses_and_doubles_no_line(whole, tmp_path, batch):
    settings, folder = whole
    with pytest.raises(RuntimeError):
        training.train(settings, tmp_path / "parts", watcher=At(batch, crash))
    with (tmp_path / "parts" / "tracked.jsonl").open("a") as file:
        file.write('{"epoch": 0.9, "bat')  # it was being written
    training.resume(tmp_path / "parts")
    assert_same(folder, tmp_path / "parts")


@pytest.mark.parametrize("write", [1, 2, 3])  # of the start; of best and last after an epoch
def test_a_crash_before_a_checkpoint_is_written_too(whole, tmp_path, monkeypatch, write):
    settings, folder = whole
    left = [write]
    save = training.Trainer.save

    def fail(trainer, folder):
        left[0] -= 1
        if not left[0]:
            raise RuntimeError("power cut")
        save(trainer, folder)

    monkeypatch.setattr(training.Trainer, "save", fail)
    with pytest.raises(RuntimeError):
        training.train(settings, tmp_path / "parts")
    monkeypatch.setattr(training.Trainer, "save", save)
    assert len(text(tmp_path / "parts").splitlines()) == {1: 1, 2: 4, 3: 4}[write]
    training.resume(tmp_path / "parts")
    assert_same(folder, tmp_path / "parts")


@pytest.mark.parametrize(
    ("rule", "track", "message"),
    [
        ("dfa", {"measures": ["alignmnet"]}, "unknown measure 'alignmnet'; did you mean 'alignm"),
        ("dfa", {"measures": []}, "track.measures"),
        ("dfa", {"measures": "alignment"}, "track.measures = 'alignment'"),
        ("dfa", {"samples": 0}, "track.samples = 0"),
        ("dfa", {"every": 0}, "track.every = 0"),
        ("dfa", {"evry": 1}, "track.evry"),
        ("exact-bp", {}, "measure 'feedback' has no meaning here: ExactBP has no feedback"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    small_events, tmp_path, rule, track, message
):
    with pytest.raises(ConfigurationError) as caught:
        training.train(small_events(rule, track=track), tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_rule_of_ones_own_cannot_be_measured(small):
    class Own(torch.nn.Module):
        pass

    experiment = training.build(small("dfa", track={}))
    experiment.rule = Own()
    with pytest.raises(ConfigurationError, match="Own, which is not a rule of threefactor"):
        training.Trainer(experiment)


def test_sequences_are_measured_too():
    changes = {"network.width": 0.03, "data.train": 20, "data.test": 20, "epochs": 1}
    track = {"measures": ["alignment", "firing"], "samples": 10}
    settings = recipe("digits-saccades-conv").settings_for("dfa", {**changes, "track": track})
    trainer = training.Trainer(training.build(settings))
    trainer.fit()
    assert data.has_frames(settings.data.name)
    layers = trainer.tracked[-1]["alignment"]["bp"]
    assert any((layer["angle"] or 0) > 0 for layer in layers.values())
    assert isinstance(trainer.experiment.rule, clocked.DFA)


def test_tracking_is_set_by_name():
    settings = recipe("digits-fc").settings_for("opzo", {"track.every": 5})
    assert (settings.track.every, settings.track.samples) == (5, 100)
    assert recipe("digits-fc").settings_for("opzo").track is None
    deep = recipe("digits-events-deep")
    assert deep.settings_for("dfa", {"every": None, "samples": 7}).track.samples == 7
    assert deep.settings_for("dfa", {"track": None}).track is None


def test_runs_from_before_there_was_tracking_can_be_read_and_gone_on_with(small, tmp_path):
    settings = small("dfa", epochs=2)
    stopped(settings, tmp_path / "run", 3)
    path = tmp_path / "run" / "config.json"
    document = json.loads(path.read_text())
    assert document["settings"].pop("track") is None
    path.write_text(json.dumps(document))
    assert len(training.resume(tmp_path / "run", settings=settings)) == 2
    assert not (tmp_path / "run" / "tracked.jsonl").exists()


def test_measurements_after_a_damaged_line_are_not_lost(small, tmp_path):
    run = training.RunFolder(tmp_path / "run")
    training.train(small(track={"measures": ["firing"], "samples": 10}), run.path)
    found = run.tracked_path.read_text().splitlines()
    damaged = "\n".join([found[0], found[1][:20], *found[2:]]) + "\n"
    run.tracked_path.write_text(damaged)
    with pytest.raises(CheckpointError, match=r"line 2 of .*tracked\.jsonl is damaged"):
        training.resume(run.path)
    assert run.tracked_path.read_text() == damaged


def event_rule():
    torch.manual_seed(0)
    net = events.fc(64, (10,), 10, tau_s=0.13, thresholds=(0.05, 0.1), duration=0.2)
    return events.DFA(net, rate_penalty=0.5, rate_target=1.0)


def test_the_rate_penalty_is_back_afterwards_whatever_happens():
    rule = event_rule()
    digits = data.load_spikes("digits")
    batch = (digits.test_spikes[:20], digits.test_labels[:20])
    found = MEASURES["alignment"](rule, [batch], None)
    assert rule.rate_penalty == 0.5
    assert found["bp"]["lif1"]["angle"] != found["bp_with_rates"]["lif1"]["angle"]
    with pytest.raises(InputError):
        MEASURES["alignment"](rule, [], None)
    assert rule.rate_penalty == 0.5


def test_feedback_needs_output_weights_of_its_shape():
    net = torch.nn.Sequential(
        clocked.Conv2d(1, 4, 3, padding=1), clocked.LIF(), clocked.Linear(4, 3, pool=4)
    )
    rule = clocked.DFA(net, input_shape=(1, 4, 4))
    check_measure("alignment", rule)
    with pytest.raises(ConfigurationError) as caught:
        check_measure("feedback", rule)
    said = "the last synapse layer has weights of shape (3, 4); expected (3, 64)"
    assert said in str(caught.value)
    assert str(caught.value).endswith("leave it out of track.measures")


def test_measures_without_meaning_or_name():
    with pytest.raises(ConfigurationError, match="did you mean 'feedback'"):
        check_measure("feedbak", event_rule())
    without = events.ExactBP(event_rule().network)
    with pytest.raises(ConfigurationError, match="ExactBP has no feedback"):
        check_measure("feedback", without)
    check_measure("firing", without)
