"""A training asks a GPU for numbers once in several batches, and loses nothing by it."""

import json
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from threefactor import clocked, training
from threefactor.clocked import verdicts
from threefactor.errors import CheckpointError, DivergenceError, InputError
from threefactor.training import evaluation, fetching, loop
from threefactor.training.folder import checkpoint
from threefactor.training.progress import Watcher

verdicts_finite = verdicts.finite


@pytest.fixture
def together(monkeypatch):
    """Let batches of this CPU wait for each other, as those of a GPU do."""

    def wait(batches):
        monkeypatch.setattr(fetching, "together_on", lambda device: batches)
        if batches > 1:  # potentials that are not finite are told later, too
            monkeypatch.setattr(verdicts, "finite", lambda *given: None)

    return wait


class Told(Watcher):
    """Keeps what it is told of each batch; does something after one."""

    def __init__(self, after=0, act=lambda: None):
        self.batches, self.after, self.act = [], after, act

    def batch(self, *told):
        self.batches.append(told)
        if len(self.batches) == self.after:
            self.act()


def plain(history):
    return [{k: v for k, v in line.items() if "second" not in k} for line in history]


def test_a_training_asks_once_in_some_batches(small, monkeypatch):
    """On "meta", which has no values: whoever asks for one fails, but where it is counted."""
    settings = small("opzo", **{"epochs": 2, "dropout": 0.2, "clip_norm": 1.0, "batch_size": 4})
    made = training.build(settings)
    described = loop.describe(made)
    monkeypatch.setattr(loop, "describe", lambda experiment: described)
    net, rule = made.network.to("meta"), made.rule.to("meta")
    optimizer = torch.optim.AdamW([*net.parameters(), *rule.parameters()])
    experiment = replace(made, optimizer=optimizer, scheduler=None, made=None)
    tasks, asked = [], []

    def task_of(*given):
        tasks.append(given)
        return "classes"

    monkeypatch.setattr(loop, "check_targets", lambda *given: None)
    monkeypatch.setattr(loop, "task_of", task_of)
    monkeypatch.setattr(evaluation, "task_of", task_of)
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 2)
    monkeypatch.setattr("threefactor.clocked.session.check_layers", lambda network: None)
    monkeypatch.setattr(fetching, "values_of", lambda n: asked.append(n) or [1.0] * len(n))
    trainer = training.Trainer(experiment)
    tasks.clear()
    history = trainer.fit()
    # 100 samples to learn from are 25 batches, 40 to test with 20: fetched by eights.
    assert [line["epoch"] for line in history] == [1, 2]
    assert len(asked) == 2 * (4 + 3)
    assert all(numbers.is_meta for numbers in asked)
    assert len(tasks) == 2  # what the test data is, which is asked once in an evaluation
    assert history[0]["train_loss"] == 1.0 and history[0]["train_accuracy"] == 25 / 100
    # Loss, rates of two layers, number of right ones; and checks, which wait, too.
    assert len(asked[0]) > 8 * 4


@pytest.mark.parametrize("changes", [{}, {"update": "step"}, {"clip_value": 0.1}])
def test_metrics_and_weights_are_those_of_batches_fetched_one_by_one(small, together, changes):
    found = []
    for batches in (1, 3, 100):
        together(batches)
        told = Told()
        trainer = training.Trainer(training.build(small(**changes)), watcher=told)
        history = plain(trainer.fit())
        found.append((history, told.batches, trainer.experiment.network.state_dict()))
    for history, batches, weights in found[1:]:
        assert history == found[0][0]
        assert batches == found[0][1] and len(batches) == 21
        assert all(torch.equal(value, found[0][2][name]) for name, value in weights.items())


@pytest.mark.parametrize("batches", [2, 100])
def test_a_stop_comes_after_the_batches_that_were_learned(small, together, tmp_path, batches):
    whole = training.train(small(), tmp_path / "whole")
    together(batches)

    def learn(*given):
        if len(steps) == 9:
            signal.raise_signal(signal.SIGINT)
        steps.append(1)
        return real(*given)

    steps, engine = [], loop.engine_of(small())
    real = engine.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "step", learn)
        with pytest.raises(loop.InterruptedRunError, match="in epoch 2 after batch 3;"):
            training.train(small(), tmp_path / "run")
    state = checkpoint.load_state(tmp_path / "run" / "last")
    assert (state["epoch"], state["sums"]["batch"], state["sums"]["samples"]) == (1, 3, 48)
    assert plain(training.resume(tmp_path / "run")) == plain(whole)


def test_measurements_know_of_all_batches(small, together, tmp_path):
    tracked = []
    for batches in (1, 4):
        together(batches)
        run = tmp_path / f"run{batches}"
        training.train(small(**{"track.measures": ["firing"], "track.every": 3}), run)
        tracked.append((run / "tracked.jsonl").read_text())
    assert tracked[0] == tracked[1]
    assert [json.loads(line)["batches"] for line in tracked[0].splitlines()][:3] == [0, 3, 6]


def spoiled(engine, monkeypatch, batch):
    """Let the loss of a batch be NaN, and the weights after it."""
    real, count = engine.step, []

    def step(experiment, *given):
        count.append(1)
        result = real(experiment, *given)
        if len(count) == batch:
            with torch.no_grad():
                for parameter in experiment.network.parameters():
                    parameter.grad.fill_(torch.nan)
            result = replace(result, loss=result.loss * torch.nan)
        return result

    monkeypatch.setattr(engine, "step", step)
    return count


@pytest.mark.parametrize("potentials", [False, True])
def test_a_loss_that_is_nan_stops_before_it_reaches_a_checkpoint(
    small, together, tmp_path, monkeypatch, potentials
):
    together(4)
    if potentials:
        monkeypatch.setattr(verdicts, "finite", verdicts_finite)
    count = spoiled(loop.engine_of(small()), monkeypatch, 9)
    with pytest.raises(DivergenceError, match="loss became nan in epoch 2 at batch 2"):
        training.train(small(), tmp_path)
    assert len(count) == (10 if potentials else 11)  # the batch in which, or whose fetch, it showed
    state = checkpoint.load_state(tmp_path / "last")
    assert (state["epoch"], state["sums"]["batch"]) == (1, 0)
    for part in ("network", "rule"):
        assert all(value.isfinite().all() for value in state[part].values())
    monkeypatch.undo()
    assert len(training.resume(tmp_path)) == 3


@pytest.mark.parametrize("how", ["interrupted", "measured", "saved", "end of an epoch"])
def test_whatever_writes_or_measures_looks_at_the_losses_first(
    small, together, tmp_path, monkeypatch, how
):
    together(100)
    changes = {"track.measures": ["firing"], "track.every": 3} if how == "measured" else {}
    engine = loop.engine_of(small())
    count = spoiled(engine, monkeypatch, 9)
    run = training.RunFolder(tmp_path / "run")
    trainer = training.Trainer(training.build(small(**changes)), run)
    spoiling = engine.step

    def step(*given):
        if len(count) == 10:
            if how == "interrupted":
                signal.raise_signal(signal.SIGTERM)
            if how == "saved":
                trainer.save(tmp_path / "mine")
        return spoiling(*given)

    monkeypatch.setattr(engine, "step", step)
    with pytest.raises(DivergenceError, match="loss became nan in epoch 2 at batch 2"):
        trainer.fit()
    assert len(count) == {"interrupted": 11, "measured": 9, "saved": 10, "end of an epoch": 14}[how]
    assert checkpoint.load_state(run.last)["epoch"] == 1
    assert not (tmp_path / "mine").exists()
    assert all(
        value.isfinite().all() for value in checkpoint.load_state(run.last)["network"].values()
    )
    with pytest.raises(CheckpointError, match="an error stopped this trainer in the middle"):
        trainer.fit()
    monkeypatch.undo()
    trainer.load(run.last)
    assert len(trainer.fit()) == 3


def test_a_loss_that_is_nan_in_a_test_is_found(small, together, monkeypatch):
    together(3)
    engine = loop.engine_of(small())
    real = engine.run
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 8)

    def run(*given):
        result = real(*given)
        return replace(result, loss=result.loss * torch.nan)

    monkeypatch.setattr(engine, "run", run)
    with pytest.raises(DivergenceError, match="the test loss became nan after epoch 1"):
        training.train(small())


def test_checks_of_values_wait_with_their_batches(small, together, tmp_path, monkeypatch):
    """As on a GPU, bad inputs are told when the numbers of their batch are fetched."""
    together(4)
    real = verdicts.gathered

    def judge(sound, complain):
        verdicts._gathering.get().append((sound, complain))

    monkeypatch.setattr(verdicts, "gathered", lambda device: real(torch.device("meta")))
    monkeypatch.setattr("threefactor.clocked.inputs.judge", judge)
    experiment = training.build(small("dfa"))
    run = training.RunFolder(tmp_path / "run")
    trainer = training.Trainer(experiment, run)
    trainer.fit()
    assert len(trainer.history) == 3 and trainer.history[-1]["train_loss"] > 0
    seen = []
    inputs = experiment.data.train[0]

    class Bad:
        """Inputs of which the sixth batch holds infinity."""

        def __len__(self):
            return len(inputs)

        def __getitem__(self, index):
            seen.append(index)
            batch = inputs[index].clone()
            if len(seen) == 6:
                batch.view(-1)[0] = torch.inf
            return batch

    trainer = training.Trainer(training.build(small("dfa")), training.RunFolder(tmp_path / "bad"))
    trainer._train = (Bad(), trainer._train[1])
    with pytest.raises(InputError, match="inputs hold 1 NaN or infinite values"):
        trainer.fit()
    assert len(seen) == 7  # the end of the epoch, where all that waits is fetched
    assert not (tmp_path / "bad").exists()  # nothing was finished


def test_inputs_that_wait_are_limited_in_memory(monkeypatch):
    net = clocked.fc(4, (5,), 3)
    x, y = torch.rand(6, 4), torch.randint(3, (6,))
    result = clocked.run(net.eval(), x, steps=2, targets=y)
    waiting = fetching.Waiting(torch.device("meta"))
    monkeypatch.setattr(fetching, "MOST_HELD", 2 * x.nbytes)
    for batch in range(3):
        assert not waiting.full, batch
        waiting.add(result, x, y, len(y), own=len(y), classes=True, tally=None)
    assert waiting.full and len(waiting) == 3
    found = list(waiting.fetch())
    assert len(found) == 3 and not len(waiting) and not waiting.full
    right = int((result.output.argmax(1) == y).sum())
    assert {(one.loss, one.right, one.samples) for one in found} == {(float(result.loss), right, 6)}
    rates = {name: float(rate) for name, rate in result.firing_rates.items()}
    assert found[0].firing_rates == rates and len(rates) == 1
    assert list(waiting.fetch()) == []


def test_a_process_that_alone_outgrows_its_numbers_says_so(small):
    trainer = training.Trainer(training.build(small()))
    trainer._world = SimpleNamespace(is_first=False)
    reason = DivergenceError("potentials are infinite")
    for given, elsewhere in ((None, True), (reason, False)):
        with pytest.raises(DivergenceError) as found:
            trainer._diverge("it became so", given)
        assert found.value.said_elsewhere == elsewhere
    with torch.no_grad():
        next(trainer.experiment.network.parameters()).fill_(torch.nan)
    with pytest.raises(DivergenceError) as found:
        trainer._diverge("it became so", reason)
    assert found.value.said_elsewhere  # all have these weights
