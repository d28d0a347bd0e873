"""The training loop: epochs, evaluation, metrics, checkpoints, interruption and resumption."""

from __future__ import annotations

import math
import shlex
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor

from threefactor.clocked.losses import check_targets
from threefactor.data import Frames, ImageFiles, batches
from threefactor.data.inputs import Batched
from threefactor.data.samples.sequences import Sequences
from threefactor.data.samples.stored import Stored
from threefactor.errors import (
    CheckpointError,
    ConfigurationError,
    DeviceError,
    DivergenceError,
    InputError,
    ThreefactorError,
    warn_user,
)
from threefactor.events import SpikeBatch
from threefactor.modes import random_kept
from threefactor.processes import World
from threefactor.readable import clipped
from threefactor.training.best import stopped_early
from threefactor.training.build import check_parts
from threefactor.training.description import Description, describe
from threefactor.training.engines import engine_of
from threefactor.training.evaluation import (
    Evaluation,
    Sums,
    begin_sums,
    evaluate,
)
from threefactor.training.experiment import Experiment
from threefactor.training.fetching import Fetched, Waiting, numbers_of, put_together
from threefactor.training.folder import checkpoint
from threefactor.training.folder.lock import only_one
from threefactor.training.folder.run import check_trained_with
from threefactor.training.folder.writer import RunFolder
from threefactor.training.loggers import Loggers
from threefactor.training.memory import in_memory
from threefactor.training.optimizers import step_scheduler
from threefactor.training.own_code import code_digests
from threefactor.training.placing import place, placement_of
from threefactor.training.progress import Quiet, Watcher
from threefactor.training.scores import task_of
from threefactor.training.settings import Settings
from threefactor.training.state import (
    TOO_EARLY,
    Progress,
    Schedule,
    put_back,
    training_state,
)
from threefactor.training.stopping import StopRequest
from threefactor.training.tracking import Tracker, tracker_of

__all__ = ["InterruptedRunError", "Trainer", "progress_of"]

T = TypeVar("T")
_Told = tuple[float, float | None, int]
"""Mean loss and accuracy of the epoch so far, and the samples of a batch."""
BY_SAMPLE = (Tensor, SpikeBatch, ImageFiles, Frames, Stored)
"""Inputs of which a sample is the same whichever others are taken with it."""
PARTS = {"train": "training", "validation": "validation", "test": "testing"}


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
    """A stop was asked for during an evaluation, which cannot be resumed in its middle."""


class Trainer:
    """Trains one experiment. It can stop at any batch and be resumed with the same bits.

    A module of the network that is in evaluation mode, such as a frozen dropout, stays in it. A
    network that is in evaluation mode as a whole is put into training mode.

    Args:
        experiment: the live objects, from `build`, or made by hand.
        run: where configuration, metrics and checkpoints go; None keeps nothing on disk.
        watcher: shown the progress.
        log: names of loggers that also get every number of a metrics line, of `LOGGERS`; none by
            default, or those that the run was logged with before.
        world: processes that train the same experiment together. Each takes its rows of every
            batch; the first alone has a run folder and a watcher. All stop together.

    Attributes:
        history: the metrics lines of the finished epochs.
        tracked: what was measured while training, line by line, as in `tracked.jsonl`.
        progress: how far the training is.
        placement: where the samples lie, and why.

    Raises:
        ConfigurationError: if the samples cannot lie where the settings want them; the settings
            ask for a measure that there is not, or that has no meaning for the rule or network; a
            logger is not installed; the parts of the experiment do not belong together, see
            `check_parts`; or there are more processes than samples in a batch.
        InputError: if there are no samples, or not one target for each.
    """

    def __init__(
        self,
        experiment: Experiment,
        run: RunFolder | None = None,
        watcher: Watcher | None = None,
        *,
        log: Sequence[str] | None = None,
        world: World | None = None,
    ) -> None:
        check_parts(experiment)
        self.experiment = experiment
        self._world = World(meet=False) if world is None else world
        self.run = run if self._world.is_first else None
        self.watcher = (watcher if self._world.is_first else None) or Quiet()
        self.progress = Progress()
        self.history: list[dict[str, Any]] = []
        self.tracked: list[dict[str, Any]] = []
        self._stop = StopRequest()
        self._stop_of_all: int | None = None
        """The signal that any of the processes got."""
        self._stands_at: Path | None = None
        """The checkpoint that this trainer wrote or read last."""
        self._halfway = False
        """Whether an error may have come in the middle of a batch or of the end of an epoch."""
        self._device = next(experiment.network.parameters()).device
        names = ["train", "test"]
        if getattr(experiment.data, "validation", None) is not None:
            names.append("validation")
        parts = {part: _checked(part, experiment.data) for part in names}
        inputs = [part[0] for part in parts.values()]
        self.placement = placement_of(inputs, experiment.settings.data.place, self._device)
        placed = {
            part: (place(x, self.placement.place, self._device), y.to(self._device))
            for part, (x, y) in parts.items()
        }
        self._train, self._test = placed["train"], placed["test"]
        self._validation = placed.get("validation")
        if self._validation is None and experiment.settings.stopping is not None:
            raise ConfigurationError(
                "stopping needs validation data: the test data must not decide when a training "
                "ends. Hold out some training samples, as with --set validation=0.1"
            )
        wanted = getattr(self._train[0], "batch_size", None)
        if wanted not in (None, experiment.settings.batch_size):
            raise ConfigurationError(
                f"the loader for training has batch_size {clipped(wanted)}, and the settings "
                f"{experiment.settings.batch_size}; give both the same"
            )
        loss = getattr(experiment.rule, "loss", None)
        for part in (self._train, self._test, self._validation):
            if part is not None and loss is not None:
                check_targets(loss, part[1], len(part[1]), experiment.outputs)
        self._task = task_of(loss, self._train[1], experiment.outputs)
        self._begin_sums()
        # What one process refuses, it has to tell the others in the step itself.
        self._waiting = Waiting(self._device, checks=self._world.size == 1)
        self._tracker = tracker_of(experiment, self._test)
        if self._world.size > 1:
            self._join()
        self._log = Loggers(log, None)
        self._first(lambda run: self._take_loggers(log, run))

    def _join(self) -> None:
        """Take in the other processes, and refuse what several cannot train together."""
        world, experiment = self._world, self.experiment
        smallest = min(experiment.settings.batch_size, len(self._train[1]))
        if smallest < world.size:
            raise ConfigurationError(
                f"a batch has {smallest} samples for {world.size} processes; give a larger "
                f"batch_size, or at most {smallest} processes"
            )
        if not callable(getattr(experiment.rule, "join", None)):
            raise ConfigurationError(
                f"the rule is a {type(experiment.rule).__name__}, which has no `join`, so that "
                "several processes cannot train it together; use one process"
            )
        world.check_same("the settings", experiment.settings)
        world.check_same("the plugins and other code", code_digests(experiment.settings))
        world.check_same("the data", self.described.data)
        experiment.rule.join(world)

    def _take_loggers(self, names: Sequence[str] | None, run: RunFolder) -> None:
        self._log = Loggers(names, run)

    def _first(self, act: Callable[[RunFolder], T]) -> T | None:
        """Let the process that has the run folder do something with it, if there is one."""
        return self._world.from_first(lambda: None if self.run is None else act(self.run))

    @cached_property
    def described(self) -> Description:
        """What the experiment was when this was asked for the first time: before any training."""
        return describe(self.experiment)

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return self.progress.epoch

    @property
    def _sums(self) -> Sums:
        return self.progress.sums

    def _begin_sums(self) -> None:
        self.progress.sums = begin_sums(self._task)

    def fit(self) -> list[dict[str, Any]]:
        """Train to the last epoch; return the metrics lines of all epochs.

        To resume a run, `load` its last checkpoint first. If a new one fails because the
        experiment is at fault, and no epoch was finished, nothing of it stays in the folder.

        Raises:
            ConfigurationError: if memory does not suffice.
            DeviceError: if a GPU fails.
            DivergenceError: if the loss becomes NaN or infinite.
            InterruptedRunError: on Ctrl-C, SIGTERM and the like, after a checkpoint was written.
            CheckpointError: if a checkpoint or metrics line cannot be written; the run folder holds
                a training that this trainer does not stand at the end of; another process or
                thread works in it; or an error ended `fit` in the middle of a batch before.
        """
        if self._halfway:
            raise CheckpointError(
                "an error stopped this trainer in the middle of a batch or epoch, part of which "
                "the network has learned already: go back to a checkpoint with load(...), such as "
                "run.last, or build the experiment again"
            )
        with ExitStack() as lock, self._stop:
            self._first(lambda run: lock.enter_context(only_one(run.path)))
            fresh = not self._first(lambda run: checkpoint.exists(run.last))
            self._first(lambda run: self._enter(run, fresh))
            self.history = self._world.from_first(lambda: self.history)
            try:
                with in_memory(
                    self._what_to_lower,
                    lambda: "" if fresh and not self.history else self._what_is_kept(),
                ):
                    return self._fit(fresh)
            except (ConfigurationError, DeviceError, DivergenceError, InputError):
                if self.run is not None and fresh and not self.history:
                    self.run.discard()  # the corrected experiment may want the same folder
                raise

    def _fit(self, fresh: bool) -> list[dict[str, Any]]:
        settings = self.experiment.settings
        if fresh and not self._batches_done and self.described.settings.start is not None:
            self._test_directly(self.described.settings.start)
        self._begin_tracking(fresh)
        if fresh:
            self._first(lambda run: self.save(run.last))
        self._log.begin(self.described.settings, self.history)
        try:
            return self._train_on()
        finally:
            self._log.end(finished=self._stopped_early or self.epoch >= settings.epochs)

    def _train_on(self) -> list[dict[str, Any]]:
        settings = self.experiment.settings
        if not self.experiment.network.training:
            self.experiment.network.train()
        with self.watcher:
            found = getattr(self.experiment.data, "found", None)
            if found:
                self.watcher.data(found)
            total = settings.epochs * self._batches_per_epoch
            self.watcher.start(settings.rule.name, self._batches_done, total)
            while self.epoch < settings.epochs and not self._stopped_early:
                self._run_epoch()
        return self.history

    def _enter(self, run: RunFolder, fresh: bool) -> None:
        """Begin in a run folder, or resume the run in it; no finished epoch is ever lost."""
        run.clear()
        if fresh:
            epochs = len(run.read().metrics)
            if epochs or checkpoint.exists(run.best):
                kept = f"the metrics of {epochs} epochs" if epochs else "the checkpoint best"
                raise CheckpointError(
                    f"{run.path} holds {kept}, but {run.last} is gone, so it cannot be resumed. "
                    "Put the checkpoint back, or train again in another folder"
                )
            if self._batches_done:
                raise CheckpointError(
                    f"this trainer has done {self._batches_done} batches, which {run.path} does "
                    "not hold; begin with a fresh experiment, or give no folder"
                )
            placement = asdict(self.placement)
            run.describe(self.described, str(self._device), placement, self._world.size)
            return
        if self._stands_at != run.last.resolve():
            raise CheckpointError(
                f"{run.path} already holds a training; call load(run.last) to resume it, or "
                "choose another folder"
            )
        there = run.read()
        there.check_settings(self.described.settings)
        there.check_data(self.described.data)
        self.history = run.keep_metrics(self.epoch)
        if not self._stopped_early and self.epoch < self.experiment.settings.epochs:
            at = self._batches_done / self._batches_per_epoch
            settings, device = self.described.settings, str(self._device)
            run.note_resumption(at, settings, device, self._world.size)

    @property
    def _stopped_early(self) -> bool:
        return stopped_early(self.history, self.experiment.settings.stopping)

    @property
    def test(self) -> tuple[Any, Tensor]:
        """Inputs and targets of the test data, on the device of the network."""
        return self._test

    def evaluate(self, seen: Callable[[Tensor, Tensor], object] | None = None) -> Evaluation:
        """Evaluate the network as it is on the test data.

        The noise of hardware, if there is any, is the same in all evaluations of all rules.

        Args:
            seen: called with the output (B, m) and the targets of each batch; of several processes,
                which all evaluate at the same time, with those of its own samples.
        """
        return self._evaluate(self._test, stoppable=False, seen=seen)

    def _evaluate(
        self,
        part: tuple[Any, Tensor],
        stoppable: bool,
        seen: Callable[[Tensor, Tensor], object] | None = None,
    ) -> Evaluation:
        experiment, engine = self.experiment, engine_of(self.experiment.settings)

        def run(x: Any, y: Tensor) -> Any:
            if stoppable and self._stop.number is not None:
                raise _StopAskedError
            return engine.run(experiment, x, y)

        with random_kept():
            torch.manual_seed(experiment.settings.seed)
            # Where numbers are drawn for the samples that are run, each process runs them all.
            drawn = experiment.settings.hardware_noise is not None
            shared = self._world if isinstance(part[0], BY_SAMPLE) and not drawn else None
            loss = getattr(experiment.rule, "loss", None)
            found = evaluate(experiment.network, *part, run, loss, shared, seen)
            # Decisions follow from it, which all processes have to take alike.
            return self._world.from_first(lambda: found)

    @property
    def _batches_per_epoch(self) -> int:
        return math.ceil(len(self._train[1]) / self.experiment.settings.batch_size)

    @property
    def _batches_done(self) -> int:
        """Batches since the start of the training."""
        return self.epoch * self._batches_per_epoch + self._batches_of_epoch

    @property
    def _batches_of_epoch(self) -> int:
        """Batches since the start of the epoch, those included whose numbers wait."""
        return self._sums.batch + len(self._waiting)

    def _begin_tracking(self, fresh: bool) -> None:
        """Drop measurements later than the checkpoint; at the very start make the first one.

        Measurements up to the moment of a checkpoint were written before it.
        """
        done = -1 if fresh else self._batches_done
        kept = self._first(lambda run: run.keep_tracked(done))
        self.tracked = self.tracked if kept is None else kept
        if fresh and not self._batches_done:
            self._track(None)

    def _track(self, accuracy: float | None) -> None:
        """Take the measures that the settings name; `accuracy` is that of the epoch so far."""
        if self._tracker is None:
            return
        done = self._batches_done
        line = {
            "epoch": done / self._batches_per_epoch,
            "batches": done,
            "train_accuracy": accuracy,
            **self._measured(self._tracker),
        }
        self.tracked.append(line)
        self._first(lambda run: run.append_tracked(line))

    def _measured(self, tracker: Tracker) -> dict[str, Any]:
        """Measure; each process does so by itself, with the same result."""
        rule = self.experiment.rule
        world = getattr(rule, "world", None)
        if world is None:
            return tracker.measure()
        rule.world = None
        try:
            return tracker.measure()
        finally:
            rule.world = world

    def _test_directly(self, start: str) -> None:
        """Report and write how the network of another run does before any learning."""
        found = self.evaluate()
        line = {
            "start": start,
            **found.line("test"),
            "firing_rates": found.firing_rates,
        }
        self._first(lambda run: run.write_start(line))
        self.watcher.direct_test(line)

    def _run_epoch(self) -> None:
        experiment, settings = self.experiment, self.experiment.settings
        experiment.rule.set_progress(progress_of(self.epoch, settings))
        whole, size = self._order(), settings.batch_size
        order = torch.split(whole.to(self._train[1].device), size)[self._batches_of_epoch :]
        # Inputs that look at an index do so on the CPU.
        on_device = not isinstance(self._train[0], (Batched, Sequences, Stored))
        places = order if on_device else torch.split(whole, size)[self._batches_of_epoch :]
        inputs = self._batches(places)
        for index in order:
            if self._asked_to_stop is not None:
                self._interrupt(self._asked_to_stop)
            self._run_batch(inputs, index)
            within = self._batches_of_epoch < self._batches_per_epoch  # its end is measured anyway
            if self._tracker is not None and within and self._tracker.due(self._batches_done):
                self._catch_up()
                self._track(self._sums.accuracy)
        self._catch_up()
        self._finish_epoch()

    @property
    def _asked_to_stop(self) -> int | None:
        """The signal that asked for a stop; of several processes, as known to all of them."""
        return self._stop.number if self._world.size == 1 else self._stop_of_all

    def _batches(self, order: Sequence[Tensor]) -> Iterator[Any]:
        """Yield the inputs of each batch; of several processes, the rows of this one."""
        inputs, world = self._train[0], self._world
        if world.size == 1 or isinstance(inputs, BY_SAMPLE):
            own = order if world.size == 1 else [index[self._rows(len(index))] for index in order]
            return batches(inputs, own, self._epoch_seed)
        # Others, such as those that augment, may draw random numbers for a whole batch.
        dim = 0 if self.experiment.frames is None else 1
        whole = zip(order, batches(inputs, order, self._epoch_seed), strict=True)
        return (_narrowed(x, dim, self._rows(len(index))) for index, x in whole)

    def _rows(self, count: int) -> slice:
        """Return this process's rows of a batch; one row if there are fewer than processes."""
        own = self._world.rows(count)
        return own if own.start < own.stop else slice(0, 1)

    @property
    def _epoch_seed(self) -> int:
        return self.experiment.settings.seed * 100_003 + self.epoch

    def _order(self) -> Tensor:
        """The order of the data: a function of seed and epoch alone."""
        generator = torch.Generator().manual_seed(self._epoch_seed)
        return torch.randperm(len(self._train[1]), generator=generator)

    def _run_batch(self, inputs: Iterator[Any], index: Tensor) -> None:
        experiment, settings = self.experiment, self.experiment.settings
        start = time.perf_counter()
        world, count = self._world, len(index)
        rows = self._rows(count)
        x, y = next(inputs), self._train[1][index if world.size == 1 else index[rows]]
        optimizer = experiment.optimizer
        self._halfway = True
        optimizer.zero_grad()

        def learn() -> None:
            self._clip()
            optimizer.step()
            optimizer.zero_grad()

        stands_in = world.rows(count).start == world.rows(count).stop
        try:
            with world.standing_in(stands_in), self._waiting.checks():
                result = engine_of(settings).step(experiment, x, y, learn)
        except DivergenceError as problem:
            where = self._place(self._batches_of_epoch)
            self._settle()  # a batch before it may have made the weights so
            self._diverge(f"{where}, {problem}", problem)
        sums, waiting = self._sums, self._waiting
        own, classes = 0 if stands_in else len(y), sums.correct is not None
        waiting.add(result, x, y, count, own=own, classes=classes, tally=sums.tally)
        told = self._settle() if waiting.full else []
        if settings.update == "sequence":
            self._clip()
            optimizer.step()
        sums.seconds += time.perf_counter() - start
        self._halfway = False
        self._tell(told)

    def _place(self, before: int) -> str:
        """Name a batch by how many of its epoch are before it."""
        return f"in epoch {self.epoch + 1} at batch {before + 1}"

    def _settle(self) -> list[_Told]:
        """Fetch the numbers of the batches that wait, and add them up; all processes do so at once.

        Returns:
            What the watcher is to be told of each batch.

        Raises:
            DivergenceError: if the loss of one is NaN or infinite, or a potential.
            InputError: if one had bad values.
        """
        found: list[Fetched] = []
        waiting = self._waiting.fetch()
        while True:
            where = self._place(self._sums.batch + len(found))
            try:
                one = next(waiting, None)
            except DivergenceError as problem:
                self._diverge(f"{where}, {problem}", problem)
            if one is None:
                break
            if not math.isfinite(one.loss):
                self._diverge(f"the loss became {one.loss} {where}")
            found.append(one)
        if self._world.size > 1:
            said = self._world.gather([self._stop.number or 0, *numbers_of(found)])
            self._stop_of_all = int(said[:, 0].max()) or None
            put_together(found, said[:, 1:])
        told: list[_Told] = []
        for one in found:
            self._sums.add(one)
            told.append((self._sums.mean_loss, self._sums.accuracy, one.samples))
        return told

    def _catch_up(self) -> None:
        """Settle what waits, so that sums and checkpoints know of all batches that were learned."""
        if not len(self._waiting):
            return
        start = time.perf_counter()
        self._halfway = True
        told = self._settle()
        self._sums.seconds += time.perf_counter() - start
        self._halfway = False
        self._tell(told)

    def _tell(self, told: Sequence[_Told]) -> None:
        for loss, accuracy, samples in told:
            self.watcher.batch(loss, accuracy, samples)

    def _clip(self) -> None:
        """Limit the gradients that the optimiser is about to use, as the settings say."""
        settings = self.experiment.settings
        if settings.clip_value is None and settings.clip_norm is None:
            return
        groups = self.experiment.optimizer.param_groups
        parameters = [p for group in groups for p in group["params"] if p.grad is not None]
        if settings.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, settings.clip_value)
        if settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)

    def _what_to_lower(self) -> str:
        """Name the settings by which less memory is needed."""
        settings, network = self.experiment.settings, self.experiment.settings.network
        less = [f"batch_size (it is {settings.batch_size})"]
        if settings.steps is not None:
            less.append(f"steps ({settings.steps})")
        sizes = {name: getattr(network, name, None) for name in ("hidden", "width")}
        less += [f"network.{name} ({value})" for name, value in sizes.items() if value is not None]
        text = f"less of {', '.join(less)}"
        if self._device.type != "cpu" and self.placement.place == "device":
            text += "; or --set data.place=host, which leaves the samples in the machine's memory"
        return text

    def _what_is_kept(self) -> str:
        """Say what is left after an error that ends the training."""
        if self.run is None or not checkpoint.exists(self.run.last):
            return ""
        return (
            f" The checkpoint in {self.run.last} is whole: {self._how_to_resume(self.run)} goes on "
            f"from it with the same settings, and --set start={shlex.quote(str(self.run.path))} "
            "begins another training with its weights."
        )

    def _diverge(self, what: str, reason: DivergenceError | None = None) -> NoReturn:
        kept = ""
        if self.run is not None and self.history:
            kept = f" The last good checkpoint is in {self.run.last}."
        problem = DivergenceError(
            f"{what}.{kept} Try a lower learning rate (--set lr=...) or another noise scale"
        )
        # All processes have the same weights. Numbers that outgrow them may do so in one alone.
        weights = self.experiment.network.parameters()
        alone = reason is not None and all(bool(w.isfinite().all()) for w in weights)
        problem.said_elsewhere = not (self._world.is_first or alone)
        raise problem from reason

    def _interrupt(self, number: int) -> NoReturn:
        self._catch_up()
        with self._stop.undisturbed():
            self._first(lambda run: self.save(run.last))
        how = self._first(self._how_to_resume)
        if how is None:
            message = "stopped; nothing was kept, because the run has no folder"
        else:
            where = f"in epoch {self.epoch + 1} after batch {self._sums.batch}"
            message = f"stopped {where}; resume with: {how}"
        problem = InterruptedRunError(message, number)
        problem.said_elsewhere = not self._world.is_first
        raise problem

    def _how_to_resume(self, run: RunFolder) -> str:
        if self.described.own is not None:
            return "load(run.last) and fit() of a Trainer of the same objects"
        return f"threefactor train --resume --out {shlex.quote(str(run.path))}"

    def _finish_epoch(self) -> None:
        experiment, sums = self.experiment, self._sums
        lr = experiment.optimizer.param_groups[0]["lr"]
        start = time.perf_counter()
        held = None
        try:
            # Several processes stop after a batch, which they begin together.
            stoppable = self._world.size == 1
            if self._validation is not None:
                held = self._evaluate(self._validation, stoppable)
            test = self._evaluate(self._test, stoppable)
        except _StopAskedError:  # all batches are done: a resumed run begins with this evaluation
            assert self._stop.number is not None
            self._interrupt(self._stop.number)
        except DivergenceError as problem:
            self._diverge(f"after epoch {self.epoch + 1}, {problem}", problem)
        if not math.isfinite(test.loss):
            self._diverge(f"the test loss became {test.loss} after epoch {self.epoch + 1}")
        if held is not None and not math.isfinite(held.loss):
            self._diverge(f"the validation loss became {held.loss} after epoch {self.epoch + 1}")
        self._halfway = True
        if experiment.scheduler is not None:
            with warnings.catch_warnings():
                # The optimiser's last step may have been in the process that was stopped here.
                warnings.filterwarnings("ignore", TOO_EARLY, UserWarning)
                step_scheduler(experiment.scheduler, sums.mean_loss if held is None else held.loss)
        self.progress.epoch += 1
        line = {
            "epoch": self.epoch,
            "train_loss": sums.mean_loss,
            "train_accuracy": sums.accuracy,
            **{f"train_{name}": value for name, value in sums.scores.items()},
            **({} if held is None else held.line("validation")),
            **test.line("test"),
            "seconds": sums.seconds + time.perf_counter() - start,
            "samples_per_second": sums.samples / sums.seconds,
            "lr": lr,
            "firing_rates": test.firing_rates,
        }
        if experiment.rule.perturbation is not None:
            line["noise_scale"] = experiment.rule.perturbation.scale
        if sums.capped:
            line["capped"] = sums.capped
        self._begin_sums()
        self._track(line["train_accuracy"])
        self._keep(line)
        self._halfway = False
        self.watcher.epoch(line, experiment.settings.epochs)

    def _keep(self, line: dict[str, Any]) -> None:
        self.history.append(line)
        better = self.progress.is_better(line)

        def write(run: RunFolder) -> None:
            run.append_metrics(line)
            if better:
                self.save(run.best)
            self.save(run.last)

        with self._stop.undisturbed():
            self._first(write)
        self._log.write(line)

    def save(self, folder: Path) -> None:
        """Write a checkpoint of everything that the rest of the run depends on."""
        self._catch_up()
        state = training_state(self.experiment, self.described.settings, self.progress)
        checkpoint.save_state(folder, state)
        self._stands_at = folder.resolve()

    def load(self, folder: str | Path, extended: Sequence[Mapping[str, Any]] = ()) -> None:
        """Go back to a checkpoint.

        Args:
            folder: of the checkpoint, such as `run.last`, from which `fit` then resumes.
            extended: when its run got more epochs, see `Run.extended`. A checkpoint from before
                goes on with the schedule of the learning rate that belongs to the new number.

        Raises:
            CheckpointError: if it is corrupt, or belongs to other settings or objects.
        """
        folder = Path(folder)
        described = self.described.settings  # before anything is changed
        state = self._world.from_first(lambda: checkpoint.load_state(folder))
        epochs = check_trained_with(folder, state, described, extended)
        schedule = Schedule(self.experiment)
        self.progress = put_back(self.experiment, state, self._batches_per_epoch, folder)
        if epochs != described.epochs:
            before, now = schedule.go_to(self.epoch)
            if self.epoch < described.epochs and before != now and self._world.is_first:
                warn_user(
                    f"{folder} was trained for {epochs} epochs, and is to have "
                    f"{described.epochs}: the learning rate goes from {before:g} to {now:g}, as "
                    f"the schedule of {described.epochs} epochs has it after {self.epoch}. That is "
                    "another training than one of so many epochs from the start"
                )
        self._stands_at, self._halfway = folder.resolve(), False
        self._waiting.clear()


def _checked(part: str, samples: Any) -> tuple[Any, Tensor]:
    """Return inputs and targets of a part of the data."""
    pair = getattr(samples, part, None)
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[1], Tensor)):
        raise InputError(
            f"{part} of the data ({type(samples).__name__}) is not a pair of inputs and a tensor "
            "of targets; give one, such as (torch.rand(60, 64), torch.randint(10, (60,)))"
        )
    inputs, targets = pair
    if isinstance(inputs, (list, tuple, np.ndarray)):
        raise InputError(
            f"the inputs of {part} are a {type(inputs).__name__}, from which no batch can be "
            "taken; give a tensor, a SpikeBatch, or an object that a tensor of positions can index"
        )
    number = len(inputs) if isinstance(inputs, Sized) else len(targets)
    if not number or number != len(targets):
        raise InputError(
            f"for {PARTS[part]} there are {number} inputs and {len(targets)} targets; give one "
            "target for each input, and one input at least"
        )
    return inputs, targets


def _narrowed(batch: Any, dim: int, rows: slice) -> Tensor:
    """Return some rows of a batch that was made whole."""
    if not isinstance(batch, Tensor):
        raise InputError(
            f"a batch is a {type(batch).__name__}, of which several processes cannot take rows; "
            "give inputs whose batches are tensors, or use one process"
        )
    return batch.narrow(dim, rows.start, rows.stop - rows.start)


def progress_of(epoch: int, settings: Settings) -> float:
    """Return the share of the training done at an epoch, counted from 0: 0 to 1."""
    return epoch / (settings.epochs - 1) if settings.epochs > 1 else 0.0
