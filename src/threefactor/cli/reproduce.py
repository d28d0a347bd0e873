"""`threefactor reproduce`: tables and figures of the papers by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer
from rich import box
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from threefactor.cli import batch
from threefactor.cli.completion import exhibit_names
from threefactor.cli.console import console, say, show
from threefactor.cli.data import DataDir
from threefactor.cli.runs import Device
from threefactor.errors import ConfigurationError, ThreefactorError
from threefactor.readable import readable
from threefactor.reproduce import Observer, Outcome, catalog, listing
from threefactor.reproduce import reproduce as run_exhibits
from threefactor.reproduce.grid import FAILED, FOREIGN
from threefactor.reproduce.planned import PlannedRun
from threefactor.training.devices import AUTO, check_device
from threefactor.training.engines import ENGINES, check_threads

__all__ = ["reproduce"]


QUIET = 60.0
"""Seconds between lines on the progress, where there is no terminal to draw a bar on."""


class GridBar(Observer):
    """A bar over the epochs of all runs, and a line for each run that has ended.

    Without a terminal the progress is a line once in a while.

    Args:
        name: what a run is called; by default its recipe, rule and seed.
    """

    def __init__(self, name: Callable[[PlannedRun], str] | None = None) -> None:
        self._name = name or (lambda run: f"{run.recipe} {run.name}")
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f} of {task.total:.0f} epochs"),
            TimeElapsedColumn(),
            console=console(),
            transient=True,
            disable=not console().is_terminal,
        )
        self._task: Any = None
        self._total = 0
        self._told = time.monotonic()
        self.failed = 0

    def __enter__(self) -> GridBar:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def start(self, epochs: int, done: int) -> None:
        self._total = epochs
        if self._task is not None:  # of the grid before
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task("waiting", total=epochs, completed=done)

    def progress(self, done: int, running: Mapping[str, float | None]) -> None:
        names = ", ".join(
            name if left is None else f"{name} (about {_duration(left)} left)"
            for name, left in running.items()
        )
        self._bar.update(self._task, completed=done, description=names)
        if self._bar.disable and running and time.monotonic() - self._told >= QUIET:
            self._told = time.monotonic()
            say(f"{done} of {self._total} epochs: {names}")

    def outcome(self, outcome: Outcome) -> None:
        self.failed += outcome.kind in (FAILED, FOREIGN)
        notes = "; ".join(note.split("\n")[0] for note in outcome.notes)
        line = f"{outcome.kind}: {self._name(outcome.run)}{': ' if notes else ''}{notes}"
        say(readable(line))

    def note(self, text: str) -> None:
        say(readable(text))


def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME...",
            help="Tables and figures; all of them: all.",
            autocompletion=exhibit_names,
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List what there is, and stop.")] = False,
    budget: Annotated[str, typer.Option(help="smoke, quick or paper.")] = "quick",
    out: Annotated[Path, typer.Option(help="Folder of runs and pages.")] = Path("reproduction"),
    jobs: batch.Jobs = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each run.")] = 1,
    data_dir: DataDir = None,
    device: Device = "cpu",
    executor: batch.ExecutorName = None,
    partition: batch.Partition = None,
    time_limit: batch.TimeLimit = None,
    gpus: batch.Gpus = None,
    cpus: batch.Cpus = None,
    memory: batch.Memory = None,
    sbatch: batch.Sbatch = None,
) -> None:
    """
    Reproduce tables and figures of the papers, as far as there is data for them.

    `threefactor reproduce opzo-table1 --budget quick` trains every rule on every data set that it
    finds, at a reduced size, and writes a page with the published numbers beside the measured ones.
    `--budget paper` uses the published settings and seeds. You can stop the command at any time:
    given again, it resumes and arrives at the same numbers. The page names the data that is absent.
    """  # fmt: skip
    if show:
        _list(data_dir)
        return
    if not names:
        raise ConfigurationError(
            "give the names of tables or figures, or all; `threefactor reproduce --list` lists them"
        )
    check_threads(threads)
    jobs_of = batch.executor_of(
        out / "batch",
        executor,
        threads=threads,
        device=device,
        partition=partition,
        time=time_limit,
        gpus=gpus,
        cpus=cpus,
        memory=memory,
        sbatch=sbatch,
    )
    if executor != "slurm" and device != AUTO:  # each run picks; jobs have other devices
        check_device(device, ENGINES["fc"])
    chosen = list(catalog()) if names == ["all"] else names
    with GridBar() as bar:
        pages = run_exhibits(
            chosen,
            out,
            budget=budget,
            jobs=batch.jobs_at_once(jobs, jobs_of),
            data_dir=data_dir,
            device=device,
            threads=threads,
            observer=bar,
            executor=jobs_of,
        )
    for page in pages:
        say(readable(str(page)))
    if bar.failed:
        raise ThreefactorError(
            f"{bar.failed} of the runs could not be made or used: see above, and the pages. "
            "Once that is mended, give the same command again"
        )


def _list(data_dir: Path | None) -> None:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("name", min_width=max(len(name) for name in catalog()))
    table.add_column("shows")
    table.add_column("data found", overflow="fold")
    table.add_column("data absent", overflow="fold")
    for one in listing(data_dir):
        shows = one.exhibit.title.partition(": ")[2]
        table.add_row(one.exhibit.name, shows, ", ".join(one.found), ", ".join(one.absent))
    show(table)
    say("`threefactor data info NAME` says how to get data.")


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
