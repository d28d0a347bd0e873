"""Loggers: what they get is what the metrics say, and none of them costs a training."""

import importlib.util
import json
import os
import signal
import struct
import sys
import time

import pytest

from threefactor import training
from threefactor.errors import CheckpointError, ConfigurationError, DivergenceError
from threefactor.training import loggers
from threefactor.training.loop import InterruptedRunError
from threefactor.training.progress import Watcher

installed = importlib.util.find_spec


class Stop(Watcher):
    """Stops a training in its second epoch."""

    def __init__(self):
        self.epochs = 0

    def epoch(self, line, epochs):
        self.epochs += 1

    def batch(self, loss, accuracy, samples):
        if self.epochs == 1:
            os.kill(os.getpid(), signal.SIGINT)


def stopped_and_resumed(settings, out, log, pause=0.0):
    with pytest.raises(InterruptedRunError):
        training.train(settings, out, log=log, watcher=Stop())
    time.sleep(pause)
    return training.resume(out)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_nothing_is_logged_unless_asked_for(small, tmp_path, monkeypatch):
    for name in ("torch.utils.tensorboard", "wandb", "mlflow"):  # an import would be an error
        monkeypatch.setitem(sys.modules, name, None)
    training.train(small(epochs=1), tmp_path / "run")
    found = files(tmp_path / "run")
    assert not {"log.json", "tensorboard", "wandb"} & set(found)
    assert training.Run(tmp_path / "run").log == {}


@pytest.mark.parametrize("name", loggers.LOGGERS)
def test_a_missing_package_is_named_before_anything_is_made(small, tmp_path, monkeypatch, name):
    module = {"tensorboard": "torch.utils.tensorboard"}.get(name, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.entities", None)
    with pytest.raises(ConfigurationError, match=rf"pip install 'threefactor\[{name}\]', or leave"):
        training.train(small(), tmp_path / "run", log=[name])
    assert not list(tmp_path.iterdir())


def test_unknown_loggers_are_refused(small, tmp_path):
    with pytest.raises(ConfigurationError, match="tensorboard"):
        training.train(small(), tmp_path / "run", log=["tensorbord"])
    with pytest.raises(ConfigurationError, match="give names in a list"):
        training.train(small(), tmp_path / "run", log="wandb")
    assert not list(tmp_path.iterdir())
    training.train(small(epochs=1), log=["tensorboard"])  # no folder, nothing to log into


def test_a_name_that_tensorboard_cannot_write_is_refused_before_anything_is_made(small, tmp_path):
    out = tmp_path / "run\udcff"
    with pytest.raises(ConfigurationError, match=r"TensorBoard cannot write to .*not Unicode"):
        training.train(small(), out, log=["tensorboard"])
    assert not list(tmp_path.iterdir())


def test_tensorboard_shows_each_epoch_once_after_a_resumption(small, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = stopped_and_resumed(small(), tmp_path / "run", ["tensorboard"])
    events = accumulator.EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    found = events.Scalars("test_accuracy")
    assert [one.step for one in found] == [1, 2, 3]
    wanted = [line["test_accuracy"] for line in history]
    assert [one.value for one in found] == pytest.approx(wanted)
    assert "firing_rates/lif1" in events.Tags()["scalars"]
    assert training.Run(tmp_path / "run").log == {"tensorboard": {"id": None, "epochs": 3}}


def wandb_records(file):
    """Read an offline log: LevelDB's format of records, in blocks."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, found, place = file.read_bytes(), b"", 7  # behind the name of the format
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        found += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(found)
            found = b""
            yield record


def all_records(file):
    """Wait for the last record, which wandb's own process writes when it likes."""
    for _ in range(100):
        found = list(wandb_records(file))
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.1)
    raise AssertionError(f"{file} does not end")


@pytest.mark.skipif(not installed("wandb"), reason="wandb is not installed")
def test_wandb_offline_has_each_epoch_once_in_one_run(small, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    history = stopped_and_resumed(
        small(), tmp_path / "run", ["wandb"], 1.1
    )  # seconds name its files
    points, names = [], set()
    for file in sorted((tmp_path / "run/wandb").glob("offline-run-*/*.wandb")):
        for record in all_records(file):
            if record.WhichOneof("record_type") == "run":
                names.add(record.run.run_id)
            if record.WhichOneof("record_type") == "history":
                items = {
                    i.key or "/".join(i.nested_key): json.loads(i.value_json)
                    for i in record.history.item
                }
                points.append((items["epoch"], items["test_loss"], items["firing_rates/lif1"]))
    assert points == [
        (line["epoch"], line["test_loss"], line["firing_rates"]["lif1"]) for line in history
    ]
    assert len(points) == 3
    assert names == {training.Run(tmp_path / "run").log["wandb"]["id"]}


@pytest.mark.skipif(
    not (installed("mlflow") and installed("sqlalchemy")), reason="mlflow is not installed"
)
def test_mlflow_has_each_epoch_once_in_one_run(small, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "digits")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        history = stopped_and_resumed(small(), tmp_path / "run", ["mlflow"])
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name("digits")
        (found,) = client.search_runs([experiment.experiment_id])
        points = client.get_metric_history(found.info.run_id, "test_loss")
        assert [(p.step, p.value) for p in points] == [
            (line["epoch"], line["test_loss"]) for line in history
        ]
        assert found.data.params["rule.name"] == "opzo" and found.info.status == "FINISHED"
        assert found.info.run_id == training.Run(tmp_path / "run").log["mlflow"]["id"]
    finally:
        mlflow.set_tracking_uri(before)


class Fragile(loggers.Logger):
    """Fails where it is told to, and keeps what it is given."""

    name, title = "fragile", "Fragile"
    fails_at: str | int | None = None
    given: list[int] = []  # noqa: RUF012

    def load(self):
        pass

    def begin(self, settings, known, epochs):
        if self.fails_at == "begin":
            raise ConnectionError("no network\nTraceback")
        return known or "one"

    def write(self, epoch, numbers):
        if self.fails_at == epoch:
            raise OSError(28, "No space left on device")
        self.given.append(epoch)

    def end(self, *, finished):
        if self.fails_at == "end":
            raise TimeoutError


@pytest.fixture
def fragile(monkeypatch):
    monkeypatch.setitem(loggers.LOGGERS, "fragile", Fragile)
    monkeypatch.setattr(Fragile, "given", [])
    monkeypatch.setattr(Fragile, "fails_at", None)
    return Fragile


@pytest.mark.parametrize(
    ("fails_at", "word"),
    [("begin", "no network"), (2, "No space left"), ("end", "TimeoutError")],
)
def test_a_logger_that_fails_costs_no_training(small, tmp_path, fragile, fails_at, word):
    plain = training.train(small(), tmp_path / "plain")
    fragile.fails_at = fails_at
    with pytest.warns(UserWarning, match=rf"Fragile failed .*{word}.*--log fragile"):
        history = training.train(small(), tmp_path / "run", log=["fragile"])
    for line, other in zip(plain, history, strict=True):
        assert line["test_loss"] == other["test_loss"]
    fragile.fails_at = None
    before = list(fragile.given)
    training.resume(tmp_path / "run", log=["fragile"])  # finished: what is missing is made up for
    rest = {"begin": [1, 2, 3], 2: [3], "end": []}[fails_at]
    assert fragile.given == [*before, *rest]  # a point that failed is lost, and never doubled


def test_a_run_is_logged_on_unless_it_is_told_not_to(small, tmp_path, fragile):
    history = stopped_and_resumed(small(), tmp_path / "run", ["fragile"])
    assert fragile.given == [1, 2, 3] and len(history) == 3
    training.resume(tmp_path / "run", epochs=4, log=[])
    assert fragile.given == [1, 2, 3]
    training.resume(tmp_path / "run", epochs=5)
    assert fragile.given == [1, 2, 3, 4, 5]


def test_a_logger_that_is_gone_is_said_and_the_run_goes_on(small, tmp_path, fragile, monkeypatch):
    training.train(small(epochs=1), tmp_path / "run", log=["fragile"])

    def gone(self):
        raise ImportError("gone")

    monkeypatch.setattr(fragile, "load", gone)
    with pytest.warns(UserWarning, match=r"was logged before, and now is not: Fragile is not inst"):
        assert len(training.resume(tmp_path / "run", epochs=2)) == 2


@pytest.mark.parametrize("damage", ["{", "[]", '{"fragile": 1}', '{"fragile": {"epochs": "a"}}'])
def test_a_damaged_record_costs_no_training(small, tmp_path, fragile, damage):
    training.train(small(epochs=1), tmp_path / "run", log=["fragile"])
    (tmp_path / "run/log.json").write_text(damage)
    with pytest.raises(CheckpointError, match=r"log\.json"):
        _ = training.Run(tmp_path / "run").log
    with pytest.warns(UserWarning, match="the logs begin anew"):
        assert len(training.resume(tmp_path / "run", epochs=2, log=["fragile"])) == 2
    assert fragile.given == [1, 1, 2]


def test_a_run_that_goes_back_says_which_epochs_are_not_logged_again(small, tmp_path, fragile):
    run = training.RunFolder(tmp_path / "run")
    training.train(small(), run.path, log=["fragile"])
    run.log_path.write_text('{"fragile": {"id": "one", "epochs": 7}}')
    with pytest.warns(UserWarning, match="Fragile has 7 epochs .* goes on after 3"):
        training.resume(run.path, epochs=8)
    assert fragile.given == [1, 2, 3, 8]


def test_a_failed_start_leaves_no_log(small, tmp_path, fragile):
    run = tmp_path / "run"
    with pytest.raises(ConfigurationError):
        training.train(small(**{"optimizer.lr": -1.0}), run, log=["fragile"])
    settings = small(**{"optimizer.lr": 1e30})
    with pytest.raises(DivergenceError):
        training.train(settings, run, log=["fragile", "tensorboard"])
    assert not run.exists()
