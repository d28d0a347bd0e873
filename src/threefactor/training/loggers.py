"""Loggers: the numbers of each epoch, also for TensorBoard, Weights & Biases and MLflow.

They are off unless asked for. `metrics.jsonl` has all numbers in any case, so a logger that fails
is left out with a warning, and the training goes on. `log.json` in the run folder says which
loggers there are, which of their runs belongs to this one, and how many epochs each was given. That
is written before an epoch is handed over: a kill in between costs a point, and never doubles one.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from threefactor.errors import ConfigurationError, ThreefactorError, unknown_name, warn_user
from threefactor.readable import clipped
from threefactor.training.folder.files import write_atomically
from threefactor.training.folder.run import plain_settings
from threefactor.training.folder.writer import RunFolder
from threefactor.training.settings import Settings

__all__ = ["LOGGERS", "Loggers"]

PROJECT = "threefactor"
"""The project or experiment, unless the logger's own variable names another one."""
MOST_PARAMETERS, LONGEST_PARAMETER = 100, 500
"""What MLflow takes at once, and of one value in all its versions."""


class Logger(ABC):
    """One logger of a run.

    Args:
        run: the folder of the run.

    Attributes:
        name: as people give it, also that of the extra.
        title: as messages name it.
        rewinds: whether later epochs vanish when a run goes back to an earlier one.

    Raises:
        ConfigurationError: if it is not installed, or cannot log this run.
    """

    name: str
    title: str
    rewinds = False

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        try:
            self.load()
        except ImportError as problem:
            raise ConfigurationError(
                f"{self.title} is not installed: pip install 'threefactor[{self.name}]', or leave "
                f"{self.name} out"
            ) from problem

    @abstractmethod
    def load(self) -> None:
        """Import what is needed."""

    @abstractmethod
    def begin(self, settings: Settings, known: str | None, epochs: int) -> str | None:
        """Open the log of the run.

        Args:
            settings: of the run.
            known: what an earlier call returned; None for a new log.
            epochs: how many it has been given.

        Returns:
            By what name it is found again.
        """

    @abstractmethod
    def write(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers of an epoch."""

    @abstractmethod
    def end(self, *, finished: bool) -> None:
        """Close the log."""


class TensorBoard(Logger):
    """Scalars in the folder `tensorboard` of the run."""

    name, title, rewinds = "tensorboard", "TensorBoard", True

    def load(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make = SummaryWriter
        try:
            str(self.run.tensorboard).encode()
        except UnicodeEncodeError as problem:
            raise ConfigurationError(
                f"TensorBoard cannot write to {str(self.run.tensorboard)!r}, since the name is not "
                "Unicode; choose another folder with --out, or leave tensorboard out"
            ) from problem

    def begin(self, settings: Settings, known: str | None, epochs: int) -> str | None:
        purge = epochs + 1 if epochs else None  # hides what an interrupted run wrote after that
        self._writer: Any = self._make(str(self.run.tensorboard), purge_step=purge)
        return None

    def write(self, epoch: int, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, epoch)
        self._writer.flush()

    def end(self, *, finished: bool) -> None:
        self._writer.close()


class WeightsAndBiases(Logger):
    """A run of Weights & Biases; with WANDB_MODE=offline in the folder `wandb` of the run."""

    name, title = "wandb", "Weights & Biases"

    def load(self) -> None:
        import wandb

        self._wandb = wandb

    def begin(self, settings: Settings, known: str | None, epochs: int) -> str | None:
        identity = known or uuid.uuid4().hex[:8]
        self._log: Any = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self.run.path.resolve().name,
            id=identity,
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(self.run.path)),
            config=plain_settings(settings),
            settings=self._wandb.Settings(console="off"),  # the terminal stays ours
        )
        return identity

    def write(self, epoch: int, numbers: Mapping[str, float]) -> None:
        self._log.log({"epoch": epoch, **numbers}, step=epoch)

    def end(self, *, finished: bool) -> None:
        self._log.finish(exit_code=0 if finished else 1)


class MLflow(Logger):
    """A run of MLflow, where MLFLOW_TRACKING_URI says."""

    name, title = "mlflow", "MLflow"

    def load(self) -> None:
        import mlflow.entities

        self._mlflow: Any = mlflow

    def begin(self, settings: Settings, known: str | None, epochs: int) -> str | None:
        self._client: Any = self._mlflow.MlflowClient()
        if known is not None:
            self._client.update_run(known, status="RUNNING")
            self._id = known
            return known
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        there = self._client.get_experiment_by_name(name)
        of = there.experiment_id if there else self._client.create_experiment(name)
        self._id = self._client.create_run(of, run_name=self.run.path.resolve().name).info.run_id
        make = self._mlflow.entities.Param
        parameters = [
            make(key, str(value)[:LONGEST_PARAMETER])
            for key, value in plain_settings(settings).items()
        ]
        for start in range(0, len(parameters), MOST_PARAMETERS):
            part = parameters[start : start + MOST_PARAMETERS]
            self._client.log_batch(self._id, params=part)
        return str(self._id)

    def write(self, epoch: int, numbers: Mapping[str, float]) -> None:
        now = round(1000 * time.time())
        make = self._mlflow.entities.Metric
        found = [make(key, value, now, epoch) for key, value in numbers.items()]
        self._client.log_batch(self._id, metrics=found)

    def end(self, *, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


LOGGERS: dict[str, type[Logger]] = {
    kind.name: kind for kind in (TensorBoard, WeightsAndBiases, MLflow)
}
"""The loggers by name."""


class Loggers:
    """The loggers of a run.

    Args:
        names: which ones; None for those that the run has been logged with, as far as they are
            installed now.
        run: its folder; None logs nothing.

    Raises:
        ConfigurationError: names a logger that there is not, or is not installed.
    """

    def __init__(self, names: Sequence[str] | None, run: RunFolder | None) -> None:
        self._run = run
        self._active: list[Logger] = []
        self._record: dict[str, dict[str, Any]] = {}
        if isinstance(names, str):
            raise ConfigurationError(f"log is {names!r}; give names in a list, as [{names!r}]")
        for name in names or ():
            if name not in LOGGERS:
                raise unknown_name("logger", name, LOGGERS)
        if run is None:
            return
        if names is not None:
            self._active = [LOGGERS[name](run) for name in dict.fromkeys(names)]
            return
        for name in self._read():
            try:
                self._active.append(LOGGERS[name](run))
            except ConfigurationError as problem:
                warn_user(f"{run.path} was logged before, and now is not: {problem}")

    def _read(self) -> dict[str, dict[str, Any]]:
        """Return what was written down about the logs of the run."""
        assert self._run is not None
        if not self._run.log_path.exists():
            return {}
        try:
            found = self._run.read().log
        except ThreefactorError as problem:
            warn_user(f"{problem}; the logs begin anew")
            return {}
        return {name: one for name, one in found.items() if name in LOGGERS}

    def begin(self, settings: Settings, history: Sequence[Mapping[str, Any]]) -> None:
        """Open the logs, and give them the epochs that they lack."""
        if self._run is None or not self._active:
            return
        self._record = self._read()
        done = len(history)
        for logger in list(self._active):
            known = self._record.get(logger.name, {"epochs": 0})
            epochs = known["epochs"]
            if epochs > done and logger.rewinds:
                epochs = done
            elif epochs > done:
                warn_user(
                    f"{logger.title} has {epochs} epochs of {self._run.path}, which goes on after "
                    f"{done}; those between are not logged again"
                )
            with self._trying(logger):
                found = logger.begin(settings, known.get("id"), epochs)
                self._record[logger.name] = {"id": found, "epochs": epochs}
                self._write_record()
        for line in history:
            self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Log the metrics line of an epoch, unless a log has it."""
        epoch, numbers = line["epoch"], dict(_numbers(line))
        for logger in list(self._active):
            known = self._record[logger.name]
            if epoch <= known["epochs"]:
                continue
            with self._trying(logger):
                before, known["epochs"] = known["epochs"], epoch
                try:
                    self._write_record()
                except ThreefactorError:
                    known["epochs"] = before
                    raise
                logger.write(epoch, numbers)

    def end(self, *, finished: bool) -> None:
        """Close the logs."""
        for logger in list(self._active):
            with self._trying(logger):
                logger.end(finished=finished)

    def _write_record(self) -> None:
        assert self._run is not None
        text = json.dumps(self._record, indent=1) + "\n"
        write_atomically(self._run.log_path, text.encode())

    @contextmanager
    def _trying(self, logger: Logger) -> Iterator[None]:
        """Leave a logger out that fails, with a warning: none may cost a training."""
        try:
            yield
        except Exception as problem:
            self._active.remove(logger)
            first = next(iter(str(problem).splitlines()), type(problem).__name__)
            warn_user(
                f"{logger.title} failed ({clipped(first)}). The training goes on without it, and "
                "metrics.jsonl has all numbers; once that is mended, --resume with --log "
                f"{logger.name} gives it the epochs that it lacks"
            )


def _numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Give the numbers of a metrics line by name; those of layers as name/layer."""
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", float(number)) for name, number in value.items())
        elif key != "epoch" and isinstance(value, int | float):
            yield key, float(value)
