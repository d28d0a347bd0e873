"""Run experiments by name, and write their pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from threefactor.data.sets.catalog import DATASETS
from threefactor.errors import ThreefactorError, unknown_name
from threefactor.report.page import html_page, write_figures
from threefactor.reproduce.analysed import analysed
from threefactor.reproduce.budgets import BUDGETS
from threefactor.reproduce.catalog import catalog, experiment
from threefactor.reproduce.experiments import Experiment
from threefactor.reproduce.grid import FINISHED, Outcome, Watcher, missing_data, run_grid
from threefactor.reproduce.pages import experiment_sections
from threefactor.training.checkpoint import write_atomically

__all__ = ["Entry", "listing", "reproduce"]

Analyse = Callable[[str, Path], Path]


@dataclass(frozen=True)
class Entry:
    """What `reproduce --list` shows of an experiment.

    Attributes:
        experiment: the table or figure.
        at_hand, absent: names of the data sets that it needs.
        seconds: estimate of the runs whose data is at hand, on one core, by budget.
    """

    experiment: Experiment
    at_hand: tuple[str, ...]
    absent: tuple[str, ...]
    seconds: dict[str, float]


def listing(data_dir: str | Path | None = None) -> list[Entry]:
    """Return all experiments with what they need."""
    here = {name for name in DATASETS if missing_data(name, data_dir) is None}
    return [
        Entry(
            one,
            tuple(name for name in one.data if name in here),
            tuple(name for name in one.data if name not in here),
            {budget: one.seconds(budget, here) for budget in BUDGETS},
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
    watcher: Watcher | None = None,
) -> list[Path]:
    """Run tables and figures as far as the data at hand allows; return their pages.

    Runs are kept in OUT/runs and shared by all experiments; what is finished is used again, and
    what was interrupted goes on. Each experiment gets OUT/NAME-BUDGET.html and a folder of the same
    name with every figure as SVG and all data as CSV: as soon as its runs have ended, or, if some
    of them are analysed, which takes time, when all runs have.

    Args:
        names: of experiments, keys of `catalog()`.
        out: the folder.
        budget: "smoke", "quick" or "paper".
        jobs, data_dir, device, threads, watcher: see `run_grid`.

    Raises:
        ConfigurationError: if a name is not known, or another process works in the folder.
        ThreefactorError: if a page cannot be made; all others are.
    """
    if budget not in BUDGETS:
        raise unknown_name("budget", budget, BUDGETS)
    chosen = [experiment(name) for name in names]
    out, root = Path(out), Path(out) / "runs"
    cells = [cell for one in chosen for cell in one.cells(budget)]

    def analyse(name: str, folder: Path) -> Path:
        return analysed(name, folder, budget, data_dir=data_dir, device=device, threads=threads)

    pages = _Pages(chosen, budget, out, analyse, watcher or Watcher())
    run_grid(
        cells, root, jobs=jobs, data_dir=data_dir, device=device, threads=threads, watcher=pages
    )
    return pages.finish()


class _Pages(Watcher):
    """Writes the page of each experiment when its last run has ended; tells another watcher."""

    def __init__(
        self,
        experiments: Sequence[Experiment],
        budget: str,
        out: Path,
        analyse: Analyse,
        watcher: Watcher,
    ) -> None:
        self.budget, self.out, self.analyse, self.watcher = budget, out, analyse, watcher
        # By name, each with the folders of its runs.
        self._waiting = {one.name: (one, self._folders(one)) for one in experiments}
        self._outcomes: dict[Path, Outcome] = {}
        self._paths: dict[str, Path] = {}
        self._problems: list[str] = []
        self._order = [one.name for one in experiments]

    def start(self, epochs: int, done: int) -> None:
        self.watcher.start(epochs, done)

    def progress(self, done: int, running: Sequence[str], left: float) -> None:
        self.watcher.progress(done, running, left)

    def outcome(self, outcome: Outcome) -> None:
        self._outcomes[outcome.folder] = outcome
        self.watcher.outcome(outcome)
        for one, folders in list(self._waiting.values()):
            if outcome.folder in folders and folders <= self._outcomes.keys() and not one.analyses:
                self._write(one)

    def finish(self) -> list[Path]:
        """Write the pages that are left; return all, in the order of the experiments."""
        for one, _ in list(self._waiting.values()):
            self._write(one)
        if self._problems:
            raise ThreefactorError("; ".join(self._problems))
        return [self._paths[name] for name in self._order]

    def _folders(self, one: Experiment) -> set[Path]:
        return {cell.folder(self.out / "runs") for cell in one.cells(self.budget)}

    def _write(self, one: Experiment) -> None:
        del self._waiting[one.name]
        try:
            self._paths[one.name] = _page(one, self.budget, self._outcomes, self.out, self.analyse)
        except (ThreefactorError, OSError) as problem:
            self._problems.append(f"there is no page of {one.name}: {problem}")


def _page(
    one: Experiment,
    budget: str,
    outcomes: dict[Path, Outcome],
    out: Path,
    analyse: Analyse,
) -> Path:
    root = out / "runs"
    own = {cell.folder(root): outcomes[cell.folder(root)] for cell in one.cells(budget)}
    files, problems = _analyse(one, budget, own, root, analyse)
    sections = experiment_sections(one, budget, own, root, files, problems)
    path = out / f"{one.name}-{budget}.html"
    write_atomically(path, html_page(one.title, sections).encode())
    write_figures(sections, path.with_suffix(""))
    return path


def _analyse(
    one: Experiment,
    budget: str,
    outcomes: dict[Path, Outcome],
    root: Path,
    analyse: Analyse,
) -> tuple[list[Path], list[str]]:
    """Analyse what the experiment wants analysed; return the files, and what went wrong."""
    files, problems = [], []
    for row in one.rows:
        folder = row.cells(budget)[0].folder(root)
        if outcomes[folder].kind != FINISHED:
            continue
        for name in one.analyses.get(row.method, ()):
            try:
                files.append(analyse(name, folder))
            except ThreefactorError as problem:
                problems.append(f"analysis {name!r} of {row.data}, {row.method}: {problem}")
    return files, problems
