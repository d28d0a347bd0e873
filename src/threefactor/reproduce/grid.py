"""Run a grid of cells: what is finished is used, what was interrupted goes on, what fails is told.

Each cell trains in a process of its own, so that one that dies takes no other with it. Its folder
is an ordinary run folder, and all that the grid knows: kill it at any moment and start it again.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from threefactor.data.sets.catalog import lookup
from threefactor.data.where import advice, find_files
from threefactor.errors import ConfigurationError, DataError, ThreefactorError
from threefactor.reproduce.cells import Cell, State, state_of
from threefactor.reproduce.estimates import seconds_per_epoch
from threefactor.reproduce.same_data import DataAtHand
from threefactor.reproduce.worker import NOTE, PATIENCE, PROGRAM
from threefactor.training import RunFolder
from threefactor.training.run_lock import only_one
from threefactor.training.stopping import leave_if_asked

__all__ = ["Outcome", "Watcher", "missing_data", "run_grid"]

POLL = 0.2  # seconds
STOPPED = (130, 143)  # exit codes
LEAST_ROOM = 2**16  # bytes of a disk that is not full
NO_DATA, FAILED, FINISHED, FOREIGN = "no data", "failed", "finished", "foreign"


@dataclass
class Outcome:
    """What became of a cell.

    Attributes:
        kind: "finished", "failed", "no data", or "foreign" (see `State`).
        folder: its run folder, which is there if it is finished.
        notes: what the user should know: why it failed or was redone, how to get the data.
    """

    cell: Cell
    folder: Path
    kind: str
    notes: list[str] = field(default_factory=list)


class Watcher:
    """Told how a grid gets on; does nothing itself."""

    def start(self, epochs: int, done: int) -> None:
        """Say how many of the epochs of all cells are done."""

    def progress(self, done: int, running: Sequence[str], left: float) -> None:
        """Say how many are done now, which cells are being trained, and the time left in s."""

    def outcome(self, outcome: Outcome) -> None:
        """Report a cell that has come to its end."""


@dataclass
class _Job:
    cell: Cell
    folder: Path
    process: subprocess.Popen[str]
    output: Path


def run_grid(
    cells: Sequence[Cell],
    root: str | Path,
    *,
    jobs: int = 1,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    threads: int = 1,
    watcher: Watcher | None = None,
) -> list[Outcome]:
    """Bring all cells to their end; return what became of each, in their order.

    Args:
        cells: what to train; equal ones are trained once.
        root: folder of the run folders, shared by all grids.
        jobs: how many cells train at once.
        data_dir: see `threefactor.data.data_folder`.
        device: where to train.
        threads: CPU threads of each cell. Results repeat to the bit only with the same number.
        watcher: told of progress.

    Raises:
        ConfigurationError: if `jobs` is below 1.
        CheckpointError: if another grid is being run in the folder.
        KeyboardInterrupt: on Ctrl-C, after all cells have written a checkpoint.
    """
    if jobs < 1:
        raise ConfigurationError(f"jobs is {jobs}; give a whole number of at least 1")
    root, watcher = Path(root), watcher or Watcher()
    options = ["--device", device, "--threads", str(threads)]
    if data_dir is not None:
        options += ["--data-dir", str(data_dir)]
    with only_one(root, PATIENCE):
        return _Grid(cells, root, jobs, data_dir, options, watcher).run()


def missing_data(name: str, data_dir: str | Path | None = None) -> str | None:
    """Return in a line how to get a data set that is not found, or None if it is there."""
    entry = lookup(name)
    try:
        find_files(entry, data_dir)
    except DataError:
        return f"{name} was not found. {advice(entry, data_dir)[0]}"
    return None


class _Grid:
    """The cells that wait, those that train, and what became of the others."""

    def __init__(
        self,
        cells: Sequence[Cell],
        root: Path,
        jobs: int,
        data_dir: str | Path | None,
        options: Sequence[str],
        watcher: Watcher,
    ) -> None:
        self.cells, self.root, self.jobs, self.data_dir = cells, root, jobs, data_dir
        self.options, self.watcher = options, watcher
        self.outcomes: dict[Path, Outcome] = {}
        self.states: dict[Path, State] = {}
        self._estimates = {
            folder: seconds_per_epoch(cell.settings) for folder, cell in self._distinct().items()
        }
        self.waiting: list[Cell] = []
        self.running: list[_Job] = []

    def run(self) -> list[Outcome]:
        self._sort()
        left = sum(cell.settings.epochs - self._look(cell).epochs for cell in self.waiting)
        self.watcher.start(self._done + left, self._done)
        try:
            while self.waiting or self.running:
                while len(self.running) < self.jobs and (cell := self._next()) is not None:
                    self.running.append(self._start(cell))
                time.sleep(POLL)
                leave_if_asked()
                self._collect()
        finally:
            for job in self.running:
                assert job.process.stdin is not None
                job.process.stdin.close()  # which stops it, with a checkpoint
            for job in self.running:
                if job.process.wait() in STOPPED:
                    job.output.unlink(missing_ok=True)
        return [self.outcomes[cell.folder(self.root)] for cell in self.cells]

    def _sort(self) -> None:
        """Tell cells that need training from those that need none or cannot be trained."""
        here = DataAtHand(self.data_dir)
        for cell in self._distinct().values():
            folder, state = cell.folder(self.root), state_of(cell, self.root)
            missing = missing_data(cell.settings.data.name, self.data_dir)
            if state.kind == "finished" and missing is None:
                differs = here.difference(RunFolder(folder))
                if differs is not None:
                    state = State("foreign", reason=f"trained on other data ({differs})")
            if state.kind == "finished":
                self.states[folder] = state
                with contextlib.suppress(OSError):  # of a grid that was killed before it looked
                    _log_of(folder).unlink(missing_ok=True)
                self._end(Outcome(cell, folder, FINISHED))
            elif state.kind == "foreign":
                note = f"{folder}: {state.reason}; remove it, or give another folder with --out"
                self._end(Outcome(cell, folder, FOREIGN, [note]))
            elif missing is not None:
                self._end(Outcome(cell, folder, NO_DATA, [missing]))
            else:
                self.waiting.append(cell)

    def _distinct(self) -> dict[Path, Cell]:
        """Return every cell once, each after the one that it starts from."""
        found: dict[Path, Cell] = {}
        for cell in self.cells:
            chain = [cell]
            while chain[0].start is not None:
                chain.insert(0, chain[0].start)
            for each in chain:
                found.setdefault(each.folder(self.root), each)
        return found

    def _next(self) -> Cell | None:
        """Take the first cell that waits for no other; end those that wait in vain."""
        for cell in list(self.waiting):
            if cell.start is None:
                self.waiting.remove(cell)
                return cell
            before = self.outcomes.get(cell.start.folder(self.root))
            if before is None:
                continue
            self.waiting.remove(cell)
            if before.kind == FINISHED:
                return cell
            why = f"{cell.start.name}, which it starts from: {before.kind}"
            self._end(Outcome(cell, cell.folder(self.root), before.kind, [why, *before.notes]))
        return None

    def _look(self, cell: Cell, *, training: bool = False) -> State:
        """Take note of the state of a cell."""
        state = self.states[cell.folder(self.root)] = state_of(cell, self.root, training=training)
        return state

    @property
    def _done(self) -> int:
        """Epochs of all cells that are done."""
        return sum(state.epochs for state in self.states.values())

    def _left(self) -> float:
        """Estimate the time that is left, s: this machine is so many times as fast as estimated."""
        estimated = self._estimates
        expected = sum(one.epochs * estimated[folder] for folder, one in self.states.items())
        taken = sum(state.seconds for state in self.states.values())
        factor = taken / expected if expected > 0 else 1.0
        todo = [*self.waiting, *(job.cell for job in self.running)]
        wanted = sum(
            (cell.settings.epochs - self.states[folder].epochs) * estimated[folder]
            for cell in todo
            if (folder := cell.folder(self.root)) in self.states
        )
        return factor * wanted / max(1, min(self.jobs, len(todo)))

    def _start(self, cell: Cell) -> _Job:
        folder = cell.folder(self.root)
        output = _log_of(folder)
        order = {
            "settings": asdict(cell.settings_in(self.root)),
            "command": cell.command(self.root, self.options),
        }
        with _log(output) as log:
            process = subprocess.Popen(
                [*PROGRAM, str(folder), *self.options],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead already, and its log says why
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        return _Job(cell, folder, process, output)

    def _collect(self) -> None:
        """Take note of cells that have come to their end."""
        for job in self.running:
            self._look(job.cell, training=True)
        for job in [job for job in self.running if job.process.poll() is not None]:
            self.running.remove(job)
            self._look(job.cell)
            self._end(_outcome(job, self.root))
        names = [f"{job.cell.recipe} {job.cell.name}" for job in self.running]
        self.watcher.progress(self._done, names, self._left())

    def _end(self, outcome: Outcome) -> None:
        self.outcomes[outcome.folder] = outcome
        self.watcher.outcome(outcome)


def _log_of(folder: Path) -> Path:
    """Where the process of a cell writes what it says, until the cell is finished."""
    return folder.with_name(folder.name + ".log")


def _log(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w")
    except OSError as problem:
        raise ThreefactorError(
            f"cannot write {path}: {problem.strerror}; what is finished is kept: make room, then "
            "give the command again"
        ) from problem


def _outcome(job: _Job, root: Path) -> Outcome:
    """Read what a process left."""
    lines = job.output.read_text(errors="replace").splitlines()
    finished = job.process.returncode == 0 and state_of(job.cell, root).kind == "finished"
    if finished:
        job.output.unlink()
        notes = [line.removeprefix(NOTE) for line in lines if line.startswith(NOTE)]
        return Outcome(job.cell, job.folder, FINISHED, notes)
    code = job.process.returncode
    last = lines[-1] if lines else _silence(root)
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return Outcome(job.cell, job.folder, FAILED, [f"{how}: {last} (all of it: {job.output})"])


def _silence(root: Path) -> str:
    """Say why a process may have left no word: its log lies on the disk of the runs."""
    full = shutil.disk_usage(root).free < LEAST_ROOM
    return "the disk is full; make room, then give the command again" if full else "no word is left"
