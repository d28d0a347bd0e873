"""Tables and figures by name: train what they need, analyse it, write their pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from threefactor.data.sets.catalog import DATASETS
from threefactor.errors import CheckpointError, ThreefactorError, unknown_name
from threefactor.report.page import html_page, write_figures
from threefactor.reproduce.budgets import BUDGETS
from threefactor.reproduce.catalog import catalog, exhibit
from threefactor.reproduce.exhibits import Exhibit
from threefactor.reproduce.grid import (
    FINISHED,
    Executor,
    Here,
    Observer,
    Outcome,
    missing_data,
    run_grid,
)
from threefactor.reproduce.pages import exhibit_sections
from threefactor.training import Run
from threefactor.training.devices import AUTO
from threefactor.training.folder.files import read_json, write_atomically
from threefactor.training.stopping import leave_if_asked

__all__ = ["Analyser", "Entry", "listing", "reproduce"]


@dataclass(frozen=True)
class Entry:
    """What `reproduce --list` shows of a table or figure.

    Attributes:
        exhibit: the table or figure.
        found, absent: names of the data sets that it needs.
    """

    exhibit: Exhibit
    found: tuple[str, ...]
    absent: tuple[str, ...]


def listing(data_dir: str | Path | None = None) -> list[Entry]:
    """Return all tables and figures with the data that they need."""
    here = {name for name in DATASETS if missing_data(name, data_dir) is None}
    return [
        Entry(
            one,
            tuple(name for name in one.data if name in here),
            tuple(name for name in one.data if name not in here),
        )
        for one in catalog().values()
    ]


def reproduce(
    names: Sequence[str],
    out: str | Path,
    *,
    budget: str = "quick",
    jobs: int = 1,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    threads: int = 1,
    observer: Observer | None = None,
    executor: Executor | None = None,
) -> list[Path]:
    """Run tables and figures as far as there is data for them; return their pages.

    Runs are kept in OUT/runs and shared by all tables and figures. Finished runs are used again,
    interrupted ones are resumed. Each table or figure gets OUT/NAME-BUDGET.html and a folder of the
    same name with every figure as SVG and all data as CSV. They are written as soon as the runs
    have ended; those with analyses, which take time, when the runs of all have ended.

    Args:
        names: keys of `catalog()`.
        out: the folder.
        budget: "smoke", "quick" or "paper".
        jobs, data_dir, device, threads, observer, executor: see `run_grid`. The executor also
            starts the analyses, one after the other.

    Raises:
        ConfigurationError: if a name is not known, or another process works in the folder.
        ThreefactorError: if a page cannot be made; all others are.
    """
    if budget not in BUDGETS:
        raise unknown_name("budget", budget, BUDGETS)
    chosen = [exhibit(name) for name in names]
    runs = [run for one in chosen for run in one.runs(budget)]
    executor = executor or Here()
    analyser = Analyser(budget, data_dir, device, threads, executor)
    pages = _Pages(chosen, budget, Path(out), analyser, observer or Observer())
    run_grid(
        runs,
        Path(out) / "runs",
        jobs=jobs,
        data_dir=data_dir,
        device=device,
        threads=threads,
        observer=pages,
        executor=executor,
    )
    return pages.finish()


@dataclass(frozen=True)
class Analyser:
    """Analyses finished runs with `threefactor analyse`; keeps the results beside them.

    Attributes:
        budget: decides how many samples are used.
        data_dir, device, threads: as in training.
        executor: what starts the commands.
    """

    SAMPLES: ClassVar = {"quick": 1280}
    """Training samples that an analysis uses at most."""
    STEPS: ClassVar = {"smoke": (2, 20)}
    """Numbers of time steps at which memory is measured, if not the usual ones."""
    MEASURED: ClassVar = ("measured-cost", "memory")
    """Analyses whose result depends on the device and the threads."""

    budget: str
    data_dir: str | Path | None = None
    device: str = "cpu"
    threads: int = 1
    executor: Executor = field(default_factory=Here)

    def __call__(self, name: str, folder: Path) -> Path:
        """Analyse a run, unless that was done; return the file of the result.

        Args:
            name: of the analysis.
            folder: the run folder.

        Raises:
            ThreefactorError: if the run cannot be read or analysed.
        """
        path = folder / "analysis" / f"{name}-{self.budget}.json"
        log = path.with_suffix(".log")
        if self._is_done(name, path, len(Run(folder).metrics)):
            log.unlink(missing_ok=True)  # of a process that was killed before it looked
            return path
        words = ["analyse", name, str(folder), "--out", str(path)]
        words += ["--device", self.device, "--threads", str(self.threads)]
        if self.data_dir is not None:
            words += ["--data-dir", str(self.data_dir)]
        if self.budget in self.SAMPLES:
            words += ["--samples", str(self.SAMPLES[self.budget])]
        if name == "memory":
            for steps in self.STEPS.get(self.budget, ()):
                words += ["--steps", str(steps)]
        child = self.executor.running(log) or self.executor.start(words, log)
        try:
            while child.code is None:
                time.sleep(self.executor.poll)
                leave_if_asked()
            if child.code:
                raise ThreefactorError(child.failure)
        finally:
            child.finish()
        return path

    def _is_done(self, name: str, path: Path, epochs: int) -> bool:
        """Whether there is a result of the trained network, measured under these conditions."""
        try:
            document = read_json(path)
            made = {key: document[key] for key in ("device", "threads")}
            done = "result" in document and document["epoch"] == epochs
        except (OSError, CheckpointError, LookupError, TypeError):
            return False
        same = made["threads"] == self.threads and self.device in (AUTO, made["device"])
        return done and (same or name not in self.MEASURED)


class _Pages(Observer):
    """Writes each page when its last run has ended; passes all news on to another observer."""

    def __init__(
        self,
        exhibits: Sequence[Exhibit],
        budget: str,
        out: Path,
        analyse: Callable[[str, Path], Path],
        observer: Observer,
    ) -> None:
        self.budget, self.out, self.analyse, self.observer = budget, out, analyse, observer
        self._root = out / "runs"
        # By name, each with the folders of its runs.
        self._waiting = {one.name: (one, self._folders(one)) for one in exhibits}
        self._outcomes: dict[Path, Outcome] = {}
        self._paths: dict[str, Path] = {}
        self._problems: list[str] = []
        self._order = [one.name for one in exhibits]

    def start(self, epochs: int, done: int) -> None:
        self.observer.start(epochs, done)

    def progress(self, done: int, running: Mapping[str, float | None]) -> None:
        self.observer.progress(done, running)

    def note(self, text: str) -> None:
        self.observer.note(text)

    def outcome(self, outcome: Outcome) -> None:
        self._outcomes[outcome.folder] = outcome
        self.observer.outcome(outcome)
        for one, folders in list(self._waiting.values()):
            ended = outcome.folder in folders and set(folders) <= self._outcomes.keys()
            if ended and not one.analyses:
                self._write(one)

    def finish(self) -> list[Path]:
        """Write the pages that are left; return all, in the order of their names as given."""
        for one, _ in list(self._waiting.values()):
            self._write(one)
        if self._problems:
            raise ThreefactorError("; ".join(self._problems))
        return [self._paths[name] for name in self._order]

    def _folders(self, one: Exhibit) -> list[Path]:
        return [run.folder(self._root) for run in one.runs(self.budget)]

    def _write(self, one: Exhibit) -> None:
        del self._waiting[one.name]
        path = self.out / f"{one.name}-{self.budget}.html"
        try:
            own = {folder: self._outcomes[folder] for folder in self._folders(one)}
            analyses, problems = self._analyse(one)
            sections = exhibit_sections(one, self.budget, own, self._root, analyses, problems)
            write_atomically(path, html_page(one.title, sections).encode())
            write_figures(sections, path.with_suffix(""))
            self._paths[one.name] = path
        except (ThreefactorError, OSError) as problem:
            self._problems.append(f"there is no page of {one.name}: {problem}")

    def _analyse(self, one: Exhibit) -> tuple[list[Path], list[str]]:
        """Analyse the first run of each row; return the files, and what went wrong."""
        files, problems = [], []
        for row in one.rows:
            folder = row.runs(self.budget)[0].folder(self._root)
            if self._outcomes[folder].kind != FINISHED:
                continue
            for name in one.analyses.get(row.method, ()):
                try:
                    files.append(self.analyse(name, folder))
                except ThreefactorError as problem:
                    problems.append(f"analysis {name!r} of {row.data}, {row.method}: {problem}")
        return files, problems
