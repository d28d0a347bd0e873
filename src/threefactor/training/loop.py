"""The training loop: epochs, evaluation, metrics, checkpoints, interruption and resumption."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from threefactor.data import batches
from threefactor.errors import (
    CheckpointError,
    DivergenceError,
    ThreefactorError,
)
from threefactor.training import checkpoint
from threefactor.training.build import Experiment
from threefactor.training.evaluation import Evaluation, Sums, evaluate
from threefactor.training.loggers import open_tensorboard
from threefactor.training.progress import Quiet, Watcher
from threefactor.training.run_folder import RunFolder
from threefactor.training.run_lock import only_one
from threefactor.training.settings import Settings
from threefactor.training.stopping import StopRequest
from threefactor.training.tracking import tracker_of

__all__ = ["InterruptedRunError", "Trainer", "progress_of"]


class InterruptedRunError(ThreefactorError):
    """The run was stopped, by Ctrl-C or another signal; it can be resumed.

    Args:
        message: what is said.
        number: of the signal; the exit code of commands is 128 more.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class _StopAskedError(Exception):
    """A stop was asked for within an evaluation, which leaves no state to go on from."""


class Trainer:
    """Trains one experiment, and can stop and go on at any batch with the same bits.

    Args:
        experiment: the live objects, from `build`, or made by hand.
        run: where configuration, metrics and checkpoints go; None keeps nothing on disk.
        watcher: shown the progress.

    Attributes:
        history: the metrics lines of the finished epochs.
        tracked: what was measured while training, line by line, as in `tracked.jsonl`.

    Raises:
        ConfigurationError: if the settings ask for a measure that there is not, or that has no
            meaning for the rule or network.
    """

    def __init__(
        self, experiment: Experiment, run: RunFolder | None = None, watcher: Watcher | None = None
    ) -> None:
        self.experiment = experiment
        self.run = run
        self.watcher = watcher or Quiet()
        self.epoch = 0
        self.best_accuracy = -1.0
        self.history: list[dict[str, Any]] = []
        self.tracked: list[dict[str, Any]] = []
        self._sums = Sums()
        self._stop = StopRequest()
        self._tensorboard: Any = None
        device = next(experiment.network.parameters()).device
        self._train = _place(experiment.data.train, device)
        self._test = _place(experiment.data.test, device)
        self._tracker = tracker_of(experiment, self._test)

    def fit(self) -> list[dict[str, Any]]:
        """Train to the last epoch; return the metrics lines of all epochs.

        Raises:
            DivergenceError: if the loss becomes NaN or infinite.
            InterruptedRunError: on Ctrl-C, SIGTERM or SIGHUP, after a checkpoint was written.
            CheckpointError: if a checkpoint or metrics line cannot be written, or another process
                or thread works in the run folder.
        """
        alone = nullcontext() if self.run is None else only_one(self.run.path)
        with alone, self._stop:
            return self._fit()

    def _fit(self) -> list[dict[str, Any]]:
        settings = self.experiment.settings
        fresh = self.run is None or not checkpoint.exists(self.run.last)
        if fresh and settings.start is not None:
            self._test_directly(settings.start)
        self._begin_tracking(fresh)
        if self.run is not None:
            self._tensorboard = open_tensorboard(self.run.path, self.epoch)
            if fresh:
                self.save(self.run.last)
        with self.watcher:
            total = settings.epochs * self._batches_per_epoch
            self.watcher.start(settings.rule.name, self._batches_done, total)
            while self.epoch < settings.epochs:
                self._run_epoch()
        return self.history

    def evaluate(self) -> Evaluation:
        """Evaluate the network as it is on the test data.

        The noise of hardware, if there is any, is the same in all evaluations of all rules.
        """
        return self._evaluate(stoppable=False)

    def _evaluate(self, stoppable: bool) -> Evaluation:
        experiment = self.experiment

        def run(x: Any, y: Tensor) -> Any:
            if stoppable and self._stop.number is not None:
                raise _StopAskedError
            return experiment.engine.run(
                experiment.network, x, y, experiment.settings, experiment.rule.loss
            )

        with torch.random.fork_rng():
            torch.manual_seed(experiment.settings.seed)
            return evaluate(experiment.network, *self._test, run)

    @property
    def _batches_per_epoch(self) -> int:
        return math.ceil(len(self._train[1]) / self.experiment.settings.batch_size)

    @property
    def _batches_done(self) -> int:
        """Batches since the start of the training."""
        return self.epoch * self._batches_per_epoch + self._sums.batch

    def _begin_tracking(self, fresh: bool) -> None:
        """Drop measurements that the checkpoint does not know; at the very start make one.

        Whatever was measured up to the moment of a checkpoint was written before it.
        """
        if self.run is not None:
            self.tracked = self.run.keep_tracked(-1 if fresh else self._batches_done)
        if fresh and not self._batches_done:
            self._track(None)

    def _track(self, accuracy: float | None) -> None:
        """Measure what the settings want; the training accuracy is that of the epoch so far."""
        if self._tracker is None:
            return
        done = self._batches_done
        line = {
            "epoch": done / self._batches_per_epoch,
            "batches": done,
            "train_accuracy": accuracy,
            **self._tracker.measure(),
        }
        self.tracked.append(line)
        if self.run is not None:
            self.run.append_tracked(line)

    def _test_directly(self, start: str) -> None:
        """Report and keep what the network of another run reaches before any learning."""
        found = self.evaluate()
        line = {
            "start": start,
            "test_loss": found.loss,
            "test_accuracy": found.accuracy,
            "firing_rates": found.firing_rates,
        }
        if self.run is not None:
            self.run.write_start(line)
        self.watcher.direct_test(line)

    def _run_epoch(self) -> None:
        experiment, settings = self.experiment, self.experiment.settings
        experiment.rule.set_progress(progress_of(self.epoch, settings))
        experiment.network.train()
        order = torch.split(self._order(), settings.batch_size)[self._sums.batch :]
        inputs = batches(self._train[0], order, self._epoch_seed)
        for index in order:
            if self._stop.number is not None:
                self._interrupt(self._stop.number)
            self._run_batch(inputs, index)
            within = self._sums.batch < self._batches_per_epoch  # its end is measured anyway
            if self._tracker is not None and within and self._tracker.due(self._batches_done):
                self._track(self._sums.accuracy)
        self._finish_epoch()

    @property
    def _epoch_seed(self) -> int:
        return self.experiment.settings.seed * 100_003 + self.epoch

    def _order(self) -> Tensor:
        """The order of the data: a function of seed and epoch alone."""
        generator = torch.Generator().manual_seed(self._epoch_seed)
        order = torch.randperm(len(self._train[1]), generator=generator)
        return order.to(self._train[1].device)

    def _run_batch(self, inputs: Iterator[Any], index: Tensor) -> None:
        experiment, settings = self.experiment, self.experiment.settings
        start = time.perf_counter()
        x, y = next(inputs), self._train[1][index]
        optimizer = experiment.optimizer
        optimizer.zero_grad()

        def learn() -> None:
            optimizer.step()
            optimizer.zero_grad()

        result = experiment.engine.step(experiment.rule, x, y, settings, learn)
        if not math.isfinite(float(result.loss)):
            self._diverge(float(result.loss))
        if settings.update == "sequence":
            optimizer.step()
        self._sums.add(result, y)
        self._sums.seconds += time.perf_counter() - start
        self.watcher.batch(self._sums.mean_loss, self._sums.accuracy, len(y))

    def _diverge(self, loss: float) -> None:
        kept = ""
        if self.run is not None:
            kept = f" The last good checkpoint is in {self.run.last}."
        raise DivergenceError(
            f"the loss became {loss} in epoch {self.epoch + 1} at batch {self._sums.batch + 1}."
            f"{kept} Try a lower learning rate (--set lr=...) or another noise scale"
        )

    def _interrupt(self, number: int) -> NoReturn:
        if self.run is None:
            message = "stopped; nothing was kept, since the run has no folder"
            raise InterruptedRunError(message, number)
        with self._stop.undisturbed():
            self.save(self.run.last)
        raise InterruptedRunError(
            f"stopped in epoch {self.epoch + 1} after batch {self._sums.batch}; "
            f"go on with: threefactor train --resume --out {self.run.path}",
            number,
        )

    def _finish_epoch(self) -> None:
        experiment, sums = self.experiment, self._sums
        lr = experiment.optimizer.param_groups[0]["lr"]
        start = time.perf_counter()
        try:
            test = self._evaluate(stoppable=True)
        except _StopAskedError:  # all batches are done: the run goes on with this evaluation
            assert self._stop.number is not None
            self._interrupt(self._stop.number)
        if experiment.scheduler is not None:
            experiment.scheduler.step()
        self.epoch += 1
        line = {
            "epoch": self.epoch,
            "train_loss": sums.mean_loss,
            "train_accuracy": sums.accuracy,
            "test_loss": test.loss,
            "test_accuracy": test.accuracy,
            "seconds": sums.seconds + time.perf_counter() - start,
            "samples_per_second": sums.samples / sums.seconds,
            "lr": lr,
            "firing_rates": test.firing_rates,
        }
        if experiment.rule.perturbation is not None:
            line["noise_scale"] = experiment.rule.perturbation.scale
        if sums.capped:
            line["capped"] = sums.capped
        self._sums = Sums()
        self._track(line["train_accuracy"])
        self._keep(line)
        self.watcher.epoch(line, experiment.settings.epochs)

    def _keep(self, line: dict[str, Any]) -> None:
        self.history.append(line)
        better = line["test_accuracy"] > self.best_accuracy
        self.best_accuracy = max(self.best_accuracy, line["test_accuracy"])
        if self.run is None:
            return
        with self._stop.undisturbed():
            self.run.append_metrics(line)
            if better:
                self.save(self.run.best)
            self.save(self.run.last)
        if self._tensorboard is not None:
            self._tensorboard.write(line)

    def save(self, folder: Path) -> None:
        """Write a checkpoint of everything that decides how the run goes on."""
        experiment = self.experiment
        scheduler = experiment.scheduler
        state = {
            "network": dict(experiment.network.state_dict()),
            "rule": dict(experiment.rule.state_dict()),
            "optimizer": experiment.optimizer.state_dict(),
            "scheduler": None if scheduler is None else _plain_state(scheduler.state_dict()),
            "random": checkpoint.random_state(),
            "epoch": self.epoch,
            "best_accuracy": self.best_accuracy,
            "sums": asdict(self._sums),
        }
        checkpoint.save_state(folder, state)

    def load(self, folder: Path) -> None:
        """Go back to a checkpoint.

        Raises:
            CheckpointError: if it is corrupt, or belongs to other settings.
        """
        state = checkpoint.load_state(folder)
        experiment = self.experiment
        try:
            experiment.network.load_state_dict(state["network"])
            experiment.rule.load_state_dict(state["rule"])
            experiment.optimizer.load_state_dict(state["optimizer"])
            if experiment.scheduler is not None:
                experiment.scheduler.load_state_dict(state["scheduler"])
            checkpoint.set_random_state(state["random"])
            self.epoch, self.best_accuracy = state["epoch"], state["best_accuracy"]
            self._sums = Sums(**state["sums"])
        except (RuntimeError, KeyError, TypeError, ValueError) as problem:
            raise CheckpointError(f"{folder} does not fit this run: {problem}") from problem


def _place(part: tuple[Any, Tensor], device: torch.device) -> tuple[Any, Tensor]:
    inputs, labels = part
    return inputs.to(device) if hasattr(inputs, "to") else inputs, labels.to(device)


def _plain_state(state: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a scheduler keeps that is no state, such as wrapped functions."""
    plain = (bool, int, float, str, list, dict, tuple, type(None), Tensor)
    return {key: value for key, value in state.items() if isinstance(value, plain)}


def progress_of(epoch: int, settings: Settings) -> float:
    """Return which share of the training an epoch, counted from 0, stands at: 0 to 1."""
    return epoch / (settings.epochs - 1) if settings.epochs > 1 else 0.0
