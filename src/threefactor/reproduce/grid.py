"""Train a grid of planned runs: use finished ones, resume interrupted ones, report failures.

A command `threefactor train RECIPE ... --out FOLDER` trains each run; one that dies takes no other
with it. An `Executor` starts it, as a process of this machine or as a job of a cluster. Run folders
are all that a grid knows: it can be killed at any moment and started again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from threefactor import plugins
from threefactor.data.sets.catalog import lookup
from threefactor.data.where import advice, find_files
from threefactor.errors import ConfigurationError, DataError, ThreefactorError
from threefactor.reproduce.planned import (
    PATIENCE,
    DataHere,
    PlannedRun,
    State,
    prepare,
    state_of,
)
from threefactor.training import Run
from threefactor.training.folder.lock import BusyError, only_one
from threefactor.training.stopping import OTHERS, WITH_PARENT, leave_if_asked

__all__ = [
    "STOPPED",
    "Child",
    "Command",
    "Executor",
    "Here",
    "Observer",
    "Outcome",
    "last_words",
    "missing_data",
    "run_grid",
]

POLL = 0.2  # seconds
STOPPED = (130, *(128 + number for number in OTHERS), -signal.SIGINT)  # exit codes
LEAST_ROOM = 2**16  # bytes of a disk that is not full
NO_DATA, FAILED, FINISHED, FOREIGN = "no data", "failed", "finished", "foreign"


@dataclass
class Outcome:
    """What became of a planned run.

    Attributes:
        run: the planned run.
        folder: its run folder, which is there if it is finished.
        kind: "finished", "failed", "no data", or "foreign" (see `State`).
        notes: for people: why it failed or was trained anew, how to get the data.
    """

    run: PlannedRun
    folder: Path
    kind: str
    notes: list[str] = field(default_factory=list)


class Observer:
    """Told how a grid gets on; does nothing itself."""

    def start(self, epochs: int, done: int) -> None:
        """Report how many epochs all runs have, and how many of them are done."""

    def progress(self, done: int, running: Mapping[str, float | None]) -> None:
        """Report how many epochs are done now, and which runs are being trained.

        `running` has for each of these runs the seconds it still needs if its epochs go on to take
        as long as its last one did; None before its first epoch.
        """

    def outcome(self, outcome: Outcome) -> None:
        """Report a run that has ended."""

    def note(self, text: str) -> None:
        """Report something else, in words."""


class Command(Protocol):
    """A command of `threefactor` that an executor started."""

    @property
    def code(self) -> int | None:
        """The exit code, another number if it has none; None while the command waits or runs."""

    @property
    def failure(self) -> str:
        """How the command ended, in a line, with its last words."""

    def ask_to_stop(self) -> None:
        """Let it stop in its own time, unless it goes on without this process."""

    def finish(self) -> None:
        """Let it stop and wait for it, unless it goes on without this process."""


class Executor(Protocol):
    """Starts commands, here or elsewhere."""

    @property
    def poll(self) -> float:
        """Seconds between two looks at all commands."""

    def start(self, words: Sequence[str], log: Path) -> Command:
        """Start `threefactor` with these arguments; all that it prints goes to a file."""

    def running(self, log: Path) -> Command | None:
        """Return the command that an earlier process started with this log, if it goes on."""

    def left(self, commands: Sequence[Any]) -> str | None:
        """Say which of its commands go on when this process ends, and how to stop them."""


class Here:
    """Starts commands as processes of this machine, which stop when this process ends."""

    @property
    def poll(self) -> float:
        return POLL

    def start(self, words: Sequence[str], log: Path) -> Command:
        return Child(words, log)

    def running(self, log: Path) -> Command | None:
        return None

    def left(self, commands: Sequence[Any]) -> str | None:
        return None


def run_grid(
    runs: Sequence[PlannedRun],
    root: str | Path,
    *,
    jobs: int = 1,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    threads: int = 1,
    observer: Observer | None = None,
    executor: Executor | None = None,
) -> list[Outcome]:
    """Train all runs to their end; return what became of each, in their order.

    Args:
        runs: what to train; equal ones are trained once.
        root: folder of the run folders, shared by all grids.
        jobs: how many runs train at once.
        data_dir: see `threefactor.data.data_folder`.
        device: where to train.
        threads: CPU threads of each run. Results repeat to the bit only with the same number.
        observer: told of the progress.
        executor: what starts the runs; by default `Here`, as processes of this machine.

    Raises:
        ConfigurationError: if `jobs` is below 1, a script made a recipe, or the executor takes no
            runs.
        CheckpointError: if another grid runs in the folder.
        KeyboardInterrupt: on Ctrl-C, after all runs of this machine have written a checkpoint.
    """
    if jobs < 1:
        raise ConfigurationError(f"jobs is {jobs}; give a whole number of at least 1")
    root = Path(root)
    for run in runs:
        run.command(root)  # refuses what no command trains
    options = ["--device", device, "--threads", str(threads)]
    if data_dir is not None:
        options += ["--data-dir", str(data_dir)]
    with only_one(root, PATIENCE):
        return _Grid(
            runs, root, jobs, data_dir, options, observer or Observer(), executor or Here()
        ).run()


def missing_data(name: str, data_dir: str | Path | None = None) -> str | None:
    """Return in a line how to get a data set that is not found, or None if it is there.

    Nobody can tell whether what a registered function loads is there.
    """
    if plugins.entry("data", name) is not None:
        return None
    entry = lookup(name)
    try:
        find_files(entry, data_dir)
    except DataError:
        return f"{name} was not found. {advice(entry, data_dir)[0]}"
    return None


@dataclass
class Child:
    """A command of `threefactor` in a process of its own, which stops when this process ends.

    Args:
        words: the arguments of `threefactor`.
        log: file for all that the process prints; made here.

    Raises:
        ThreefactorError: if the log cannot be written.
    """

    words: Sequence[str]
    log: Path

    def __post_init__(self) -> None:
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            output = self.log.open("w")
        except OSError as problem:
            raise ThreefactorError(
                f"cannot write {self.log}: {problem.strerror}; what is finished is kept: make "
                "room, then give the command again"
            ) from problem
        with output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "threefactor", *self.words],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, WITH_PARENT: "1"},
            )

    @property
    def code(self) -> int | None:
        """The exit code, or minus a signal; None while the process runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Let the process stop in its own time, a training with a checkpoint."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def finish(self) -> None:
        """Let the process stop and wait for it; remove its log unless it says why it failed."""
        self.ask_to_stop()
        if self.wait() in (0, *STOPPED):
            self.log.unlink(missing_ok=True)

    def wait(self) -> int:
        """Wait until the process ends; return its exit code."""
        return self._process.wait()

    @property
    def failure(self) -> str:
        """How the process ended, in a line, with its last words."""
        return last_words(self._process.returncode, self.log)


@dataclass
class _Job:
    run: PlannedRun
    folder: Path
    child: Command
    notes: list[str]


class _Grid:
    """The runs that wait, the runs in training, and what became of the others."""

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        root: Path,
        jobs: int,
        data_dir: str | Path | None,
        options: Sequence[str],
        observer: Observer,
        executor: Executor,
    ) -> None:
        self.runs, self.root, self.jobs, self.data_dir = runs, root, jobs, data_dir
        self.options, self.observer, self.executor = options, observer, executor
        self.outcomes: dict[Path, Outcome] = {}
        self.states: dict[Path, State] = {}
        self.waiting: list[PlannedRun] = []
        self.training: list[_Job] = []

    def run(self) -> list[Outcome]:
        self._sort()
        left = sum(run.settings.epochs - self._look(run).epochs for run in self.waiting)
        self.observer.start(self._done + left, self._done)
        try:
            while self.waiting or self.training:
                while len(self.training) < self.jobs and (run := self._next()) is not None:
                    self._start(run)
                time.sleep(self.executor.poll)
                leave_if_asked()
                self._collect()
        finally:
            for job in self.training:
                job.child.ask_to_stop()
            for job in self.training:
                job.child.finish()
            goes_on = self.executor.left([job.child for job in self.training])
            if goes_on is not None:
                self.observer.note(goes_on)
        return [self.outcomes[run.folder(self.root)] for run in self.runs]

    def _sort(self) -> None:
        """Separate the runs that need training from those that need none or cannot be trained."""
        data = DataHere(self.data_dir)
        for run in self._distinct().values():
            folder, state = run.folder(self.root), state_of(run, self.root)
            missing = missing_data(run.settings.data.name, self.data_dir)
            if state.kind == "finished" and missing is None:
                differs = data.difference(Run(folder))
                if differs is not None:
                    state = State("foreign", reason=f"trained on other data ({differs})")
            if state.kind == "finished":
                self.states[folder] = state
                with contextlib.suppress(OSError):  # of a grid that was killed before it looked
                    _log_of(folder).unlink(missing_ok=True)
                self._end(Outcome(run, folder, FINISHED))
            elif state.kind == "foreign":
                note = f"{folder}: {state.reason}; remove it, or give another folder with --out"
                self._end(Outcome(run, folder, FOREIGN, [note]))
            elif missing is not None:
                self._end(Outcome(run, folder, NO_DATA, [missing]))
            else:
                self.waiting.append(run)

    def _distinct(self) -> dict[Path, PlannedRun]:
        """Return every run once, each after the one that it starts from."""
        found: dict[Path, PlannedRun] = {}
        for run in self.runs:
            chain = [run]
            while chain[0].start is not None:
                chain.insert(0, chain[0].start)
            for each in chain:
                found.setdefault(each.folder(self.root), each)
        return found

    def _next(self) -> PlannedRun | None:
        """Take the first run whose start is finished; end those whose start failed."""
        for run in list(self.waiting):
            if run.start is None:
                self.waiting.remove(run)
                return run
            before = self.outcomes.get(run.start.folder(self.root))
            if before is None:
                continue
            self.waiting.remove(run)
            if before.kind == FINISHED:
                return run
            why = f"{run.start.name}, which it starts from: {before.kind}"
            self._end(Outcome(run, run.folder(self.root), before.kind, [why, *before.notes]))
        return None

    def _look(self, run: PlannedRun, *, training: bool = False) -> State:
        """Take note of the state of a run."""
        state = self.states[run.folder(self.root)] = state_of(run, self.root, training=training)
        return state

    @property
    def _done(self) -> int:
        """Epochs of all runs that are done."""
        return sum(state.epochs for state in self.states.values())

    def _start(self, run: PlannedRun) -> None:
        folder = run.folder(self.root)
        child, notes = self.executor.running(_log_of(folder)), list[str]()
        if child is None:
            try:
                words, notes = prepare(run, self.root)
            except BusyError as problem:
                self._end(Outcome(run, folder, FAILED, [str(problem)]))
                return
            # What starts the command may have to start it again.
            words = [*words, *self.options, "--resume-or-start", "--out", str(folder)]
            child = self.executor.start(words, _log_of(folder))
        self.training.append(_Job(run, folder, child, notes))

    def _collect(self) -> None:
        """Take note of progress, and of runs that have ended."""
        running: dict[str, float | None] = {}
        for job in list(self.training):
            if job.child.code is None:
                state = self._look(job.run, training=True)
                left = (job.run.settings.epochs - state.epochs) * state.epoch_seconds
                running[f"{job.run.recipe} {job.run.name}"] = left if state.epochs else None
                continue
            self.training.remove(job)
            state = self._look(job.run)
            if job.child.code != 0:
                job.child.ask_to_stop()  # it has ended, and its log is kept
                self._end(Outcome(job.run, job.folder, FAILED, [job.child.failure]))
                continue
            job.child.finish()
            if state.kind == "finished":
                self._end(Outcome(job.run, job.folder, FINISHED, job.notes))
            else:
                why = f"its folder is {state.kind} after the training: {state.reason}"
                self._end(Outcome(job.run, job.folder, FAILED, [why]))
        self.observer.progress(self._done, running)

    def _end(self, outcome: Outcome) -> None:
        self.outcomes[outcome.folder] = outcome
        self.observer.outcome(outcome)


def last_words(code: int, log: Path) -> str:
    """Say how a process ended, in a line, with the last line of its log."""
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    try:
        said = log.read_text(errors="replace").splitlines()
    except OSError:
        said = []
    last = said[-1].removeprefix("error: ") if said else _silence(log.parent)
    return f"{how}: {last} (all of it: {log})"


def _log_of(folder: Path) -> Path:
    """Where the process of a run writes what it prints, until the run is finished."""
    return folder.with_name(folder.name + ".log")


def _silence(folder: Path) -> str:
    """Say why a process may have printed nothing: its log is on the disk of the runs."""
    full = shutil.disk_usage(folder).free < LEAST_ROOM
    return "the disk is full; make room, then give the command again" if full else "it said nothing"
