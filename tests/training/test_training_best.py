"""Validation data, early stopping, limits of gradients, and more epochs for a finished run."""

import json
import warnings
from dataclasses import replace

import pytest
import torch

from threefactor import training
from threefactor.data.samples.labelled import held_out
from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.recipes import recipe
from threefactor.training.best import chosen_by, stopped_early
from threefactor.training.folder.run import Run
from threefactor.training.progress import Watcher
from threefactor.training.settings import StoppingSettings

SMALL = {"data.train": 120, "data.test": 60, "hidden": [16], "epochs": 3, "batch_size": 20}


def settings(rule="dfa", **changes):
    return recipe("digits-fc").settings_for(rule, {**SMALL, **changes})


def lines(*values, key="validation_accuracy"):
    return [
        {"validation_loss": 1 - v, "validation_accuracy": v if key.endswith("y") else None}
        for v in values
    ]


def weights(trainer):
    return {name: p.clone() for name, p in trainer.experiment.network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in other)


def test_held_out_samples_are_of_the_training_samples_class_by_class():
    whole = training.build(settings()).data
    data = training.build(settings(validation=0.25)).data
    held, labels = data.validation
    assert len(labels) + len(data.train[1]) == 120
    rows = {tuple(row.flatten().tolist()) for row in whole.train[0]}
    kept = {tuple(row.flatten().tolist()) for row in data.train[0]}
    chosen = {tuple(row.flatten().tolist()) for row in held}
    assert chosen
    assert not chosen & kept
    assert chosen | kept == rows
    for label in range(10):
        count = int((whole.train[1] == label).sum())
        assert int((labels == label).sum()) == round(count / 4)
    assert torch.equal(data.test[0], whole.test[0])
    other = training.build(settings(validation=0.25, validation_seed=1)).data
    assert not torch.equal(other.validation[0], held)


def test_classes_of_which_nothing_is_held_out_are_counted():
    """A tenth of four samples is none: the held samples say nothing of that class."""
    labels = torch.tensor([0] * 20 + [1] * 4 + [2] * 30 + [3])
    with pytest.warns(UserWarning, match="of 2 of 4 classes no sample is held out"):
        kept, held = held_out(labels, 0.1, 0)
    assert labels[held].tolist() == [0] * 2 + [2] * 3 and len(kept) == 50


def test_augmentation_leaves_validation_samples_alone():
    data = training.build(settings(validation=0.25, padding=2, flip=True)).data
    plain = training.build(settings(validation=0.25)).data
    assert torch.equal(data.validation[0], plain.validation[0])
    assert not torch.equal(data.train[0][:8], plain.train[0][:8])


def test_validation_data_choose_the_best_checkpoint(tmp_path):
    training.train(settings(validation=0.25, epochs=5, lr=0.01), tmp_path / "run")
    run = Run(tmp_path / "run")
    best = run.checkpoint("best", tensors=False)
    accuracies = [line["validation_accuracy"] for line in run.metrics]
    assert best["best_by"] == "validation_accuracy"
    assert best["epoch"] == accuracies.index(max(accuracies)) + 1
    assert run.config["data"]["validation"] > 0
    trainer = training.open_run(tmp_path / "run", "best")
    found = trainer._evaluate(trainer._validation, stoppable=False)
    assert found.accuracy == max(accuracies)


def test_a_run_with_validation_data_is_resumed_to_the_bit(tmp_path):
    chosen = settings(validation=0.25)
    training.train(chosen, tmp_path / "whole")
    run = tmp_path / "stopped"

    class Stop(Watcher):
        batches = 0

        def batch(self, loss, accuracy, samples):
            self.batches += 1
            if self.batches == 7:
                trainer._stop.number = 2

    experiment = training.build(chosen)
    trainer = training.Trainer(experiment, training.RunFolder(run), Stop())
    with pytest.raises(training.InterruptedRunError):
        trainer.fit()
    training.resume(run)
    whole, parts = training.open_run(tmp_path / "whole"), training.open_run(run)
    assert same(weights(whole), weights(parts))
    with pytest.raises(CheckpointError, match=r"data\.validation: 0\.25 there, 0\.5 asked"):
        training.resume(run, settings=settings(validation=0.5))


def test_the_metric_that_chooses():
    assert chosen_by({"test_accuracy": 0.5}) == "test_accuracy"
    assert chosen_by({"test_accuracy": None}) == "test_loss"
    assert chosen_by({"validation_loss": 1, "validation_accuracy": 0.5, "test_accuracy": None}) == (
        "validation_accuracy"
    )
    assert chosen_by({"validation_loss": 1, "validation_accuracy": None}) == "validation_loss"


@pytest.mark.parametrize(
    ("values", "patience", "least", "stops"),
    [
        ((0.5, 0.5, 0.5), 2, 0.0, True),
        ((0.5, 0.5), 2, 0.0, False),
        ((0.5, 0.4, 0.6, 0.6), 2, 0.0, False),
        ((0.5, 0.51, 0.52), 2, 0.05, True),
        ((0.5, 0.53, 0.56), 2, 0.05, False),
        ((), 1, 0.0, False),
    ],
)
@pytest.mark.parametrize("key", ["validation_accuracy", "validation_loss"])
def test_patience_is_counted_in_epochs_without_a_better_one(values, patience, least, stops, key):
    assert stopped_early(lines(*values, key=key), StoppingSettings(patience, least)) is stops


def test_a_training_that_stops_early_is_finished(tmp_path):
    chosen = settings(
        validation=0.25,
        epochs=30,
        lr=0.0,
        scheduler={"name": None, "options": {}},
        patience=2,
    )
    assert chosen.stopping.patience == 2
    history = training.train(chosen, tmp_path / "run")
    assert len(history) == 3  # the first is the best, two more are not better
    run = Run(tmp_path / "run")
    assert run.finished
    assert training.resume(tmp_path / "run") == history
    assert len(Run(tmp_path / "run").metrics) == 3
    with pytest.raises(CheckpointError, match="stopped after 3 of 30 epochs"):
        training.resume(tmp_path / "run", epochs=40)


def test_stopping_needs_validation_data(tmp_path):
    with pytest.raises(ConfigurationError, match="test data must not decide"):
        training.train(settings(patience=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_gradients_are_limited_before_each_step():
    """The first step of plain SGD is lr times the gradient, limited."""
    plain = {"optimizer": {"name": "SGD", "lr": 1.0, "options": {}}, "epochs": 1, "dropout": 0.0}
    plain |= {"batch_size": 120, "scheduler": {"name": None, "options": {}}}
    changes = {}
    for name, limit in (
        ("none", {}),
        ("norm", {"clip_norm": 0.01}),
        ("value", {"clip_value": 1e-3}),
    ):
        trainer = training.Trainer(training.build(settings(**plain, **limit)))
        before = weights(trainer)
        trainer.fit()
        after = weights(trainer)
        changes[name] = torch.cat([(after[k] - before[k]).flatten().double() for k in before])
    free = changes["none"]
    assert float(free.norm()) > 0.02
    expected = free * (0.01 / free.norm())
    torch.testing.assert_close(changes["norm"], expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(changes["value"], free.clamp(-1e-3, 1e-3), rtol=1e-3, atol=1e-6)
    assert float(changes["value"].abs().max()) < float(free.abs().max())


def test_gradients_are_limited_at_every_time_step():
    changes = {"update": "step", "clip_norm": 1e-4, "epochs": 1, "batch_size": 120, "steps": 4}
    changes["scheduler"] = {"name": None, "options": {}}
    trainer = training.Trainer(training.build(settings(**changes)))
    norms = []
    optimizer = trainer.experiment.optimizer
    step = optimizer.step

    def watched():
        grads = [p.grad.flatten() for g in optimizer.param_groups for p in g["params"]]
        norms.append(float(torch.cat(grads).norm()))
        return step()

    optimizer.step = watched
    trainer.fit()
    assert len(norms) == 4
    assert all(0 < norm <= 1.0001e-4 for norm in norms)


CONSTANT = {"scheduler": {"name": "StepLR", "options": {"step_size": 2}}}


def test_more_epochs_are_those_of_a_longer_training_if_no_schedule_depends_on_them(tmp_path):
    training.train(settings("opzo", **CONSTANT, noise_scale=0.2), tmp_path / "short")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = training.resume(tmp_path / "short", epochs=5)
    longer = training.train(settings("opzo", **CONSTANT, noise_scale=0.2, epochs=5), tmp_path / "l")
    assert [line["test_loss"] for line in history] == [line["test_loss"] for line in longer]
    assert [line["lr"] for line in history] == [line["lr"] for line in longer]
    assert same(
        weights(training.open_run(tmp_path / "short")), weights(training.open_run(tmp_path / "l"))
    )
    config = json.loads((tmp_path / "short" / "config.json").read_text())
    assert config["extended"] == [{"epoch": 3, "epochs": 5}]
    assert Run(tmp_path / "short").problems == ()
    training.open_run(tmp_path / "short", "best")


def test_a_schedule_that_ended_goes_on_as_that_of_the_new_number_of_epochs(tmp_path):
    training.train(settings(), tmp_path / "run")
    with pytest.warns(UserWarning, match=r"learning rate goes from 0 to 0\.00069"):
        history = training.resume(tmp_path / "run", epochs=5)
    longer = training.Trainer(training.build(settings(epochs=5))).fit()
    rates = [line["lr"] for line in longer]
    assert [line["lr"] for line in history][3:] == pytest.approx(rates[3:])
    again = training.resume(tmp_path / "run", epochs=5)  # the same command once more
    assert again == history


def test_more_epochs_can_be_interrupted_before_their_first_checkpoint(tmp_path):
    for name in ("one", "two"):
        training.train(settings(**CONSTANT), tmp_path / name)
    training.resume(tmp_path / "one", epochs=5)
    training.RunFolder(tmp_path / "two").extend(5)  # and then the process was killed
    training.resume(tmp_path / "two")
    assert same(
        weights(training.open_run(tmp_path / "one")), weights(training.open_run(tmp_path / "two"))
    )


def test_epochs_that_cannot_be_added_change_nothing(tmp_path):
    training.train(settings(), tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(CheckpointError, match="has 3 epochs, and 2 are asked for"):
        training.resume(tmp_path / "run", epochs=2)
    path = tmp_path / "run" / "metrics.jsonl"
    lines_there = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines_there[:2]))
    with pytest.raises(CheckpointError, match="has finished 2 of 3 epochs"):
        training.resume(tmp_path / "run", epochs=5)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_a_checkpoint_of_other_settings_is_refused_though_epochs_were_added(tmp_path):
    training.train(settings(), tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    config["settings"]["epochs"] = 7  # by hand, without a word in `extended`
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="epochs: 3 when it was trained, 7 now"):
        training.resume(tmp_path / "run")
    config["extended"] = "soon"
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="extended is 'soon'"):
        training.resume(tmp_path / "run")


def test_own_objects_may_bring_validation_data():
    experiment = training.build(settings())
    inputs, labels = experiment.data.train

    class Own:
        train, test, validation = (inputs, labels), experiment.data.test, (inputs[:9], labels[:9])
        outputs, input_shape = 10, experiment.data.input_shape

    trainer = training.Trainer(replace(experiment, data=Own()))
    assert "validation_accuracy" in trainer.fit()[0]
