"""Run a sweep: train its cells with the grid engine, and write its page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threefactor.errors import ConfigurationError
from threefactor.readable import clipped
from threefactor.recipes import recipe
from threefactor.report import html_page, report_sections, write_figures
from threefactor.report.sweeps import SWEEP
from threefactor.reproduce.grid import FAILED, FOREIGN, Executor, Observer, Outcome, run_grid
from threefactor.sweeps.plan import Range, Sweep
from threefactor.training.folder.files import make_folder, read_json, write_atomically
from threefactor.training.folder.writer import command

__all__ = ["run_sweep", "write_description", "write_page"]


def run_sweep(
    sweep: Sweep,
    out: str | Path,
    *,
    jobs: int = 1,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    threads: int = 1,
    observer: Observer | None = None,
    executor: Executor | None = None,
) -> list[Outcome]:
    """Train all cells of a sweep; finished runs are used again, interrupted ones resumed.

    Args:
        sweep: what to train.
        out: its folder: runs are in OUT/runs, its description in OUT/sweep.json.
        jobs, data_dir, device, threads, observer, executor: see `run_grid`.

    Raises:
        ConfigurationError: see `Sweep.runs`; or the folder holds a sweep of another recipe.
        CheckpointError: see `run_grid`.
    """
    runs = sweep.runs()
    write_description(sweep, Path(out))
    outcomes = run_grid(
        runs,
        Path(out) / "runs",
        jobs=jobs,
        data_dir=data_dir,
        device=device,
        threads=threads,
        observer=observer,
        executor=executor,
    )
    write_description(sweep, Path(out), outcomes)
    return outcomes


def write_description(
    sweep: Sweep, out: Path, outcomes: Sequence[Outcome] = (), *, kind: str = "grid"
) -> None:
    """Write `sweep.json`: what the sweep is, its command, and which runs failed.

    Raises:
        ConfigurationError: if the folder holds another kind of sweep, or one of another recipe.
        CheckpointError: if it cannot be written.
    """
    name = recipe(sweep.recipe).settings.recipe
    path = out / SWEEP
    if path.exists():
        there: Any = read_json(path)
        before = (
            [there.get(key) for key in ("kind", "recipe")] if isinstance(there, dict) else there
        )
        if before != [kind, name]:
            raise ConfigurationError(
                f"{out} holds a sweep ({clipped(before)}), and this is a {kind} of the recipe "
                f"{name!r}; give another folder with --out"
            )
    grid = {
        key: {"low": values.low, "high": values.high, "log": values.log}
        if isinstance(values, Range)
        else list(values)
        for key, values in sweep.grid.items()
    }
    failed = [
        {"run": sweep.name_of(one.run), "why": "; ".join(one.notes)}
        for one in outcomes
        if one.kind in (FAILED, FOREIGN)
    ]
    document = {
        "kind": kind,
        "recipe": name,
        "rules": list(sweep.rules),
        "grid": grid,
        "set": dict(sweep.changes),
        "seeds": sweep.seeds,
        "command": command.get(),
        "failed": failed,
    }
    make_folder(out)
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())


def write_page(out: str | Path, title: str) -> Path:
    """Write OUT/sweep.html, and its figures and tables into OUT/sweep/; return the page.

    Raises:
        CheckpointError: if no run is finished.
        ConfigurationError: if what pages need is not installed.
    """
    sections = list(report_sections([Path(out)]))
    page = Path(out) / "sweep.html"
    write_atomically(page, html_page(title, sections).encode())
    write_figures(sections, Path(out) / "sweep")
    return page
