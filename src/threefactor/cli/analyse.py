"""`threefactor analyse`: measures of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from threefactor import training
from threefactor.analysis import runs
from threefactor.analysis.measured import LENGTHS
from threefactor.analysis.records import rows
from threefactor.cli.completion import analysis_names
from threefactor.cli.console import say, show
from threefactor.cli.data import DataDir
from threefactor.cli.plugins import Plugins, recall
from threefactor.cli.runs import Device, Threads, use
from threefactor.errors import unknown_name
from threefactor.readable import readable

__all__ = ["analyse"]


def analyse(
    name: Annotated[str, typer.Argument(help="What to measure.", autocompletion=analysis_names)],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", "--epoch", help="Which checkpoint: last or best.")
    ] = "last",
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training samples to use, at most: whole batches of the run's size. "
            "[default: all]",
        ),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Number of time steps for which `memory` measures; may be repeated. "
            f"[default: {', '.join(map(str, LENGTHS))}]",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    plugin: Plugins = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Measure a run. NAME is one of:

    {analyses}

    Prints a table. `--out FILE.json` writes all numbers, with the command and versions. Dropout is
    off, and the run folder is not changed. `variance` first lets feedback settle while the weights
    stay constant. `measured-cost` and `memory` start a process for each measurement.
    `learning-curves` trains twice.
    """
    if name not in runs.ANALYSES:
        raise unknown_name("analysis", name, runs.ANALYSES)
    recall(run)
    device = use(training.Run(run).settings, device, threads)
    trainer = training.open_run(run, checkpoint, data_dir=data_dir, device=device)
    view = runs.RunView(trainer, samples, checkpoint, data_dir, tuple(steps or LENGTHS))
    found = runs.analyse(name, view)
    show(_table(name, found))
    if out is not None:
        runs.write_analysis(out, name, view, found, device)
        say(f"all numbers are in {readable(str(out))}")


_LINES = "\n".join(
    f"- `{name}`: {(function.__doc__ or '').splitlines()[0]}"
    for name, function in runs.ANALYSES.items()
)
analyse.__doc__ = (analyse.__doc__ or "").replace("{analyses}", _LINES.replace("\n", "\n    "))


def _table(title: str, found: Mapping[str, Any]) -> Table:
    """Show nested results: a row for every dict, its numbers in columns; texts below the table."""
    body, texts = {" ".join(path): row for path, row in rows(found)}, {}
    columns = list(dict.fromkeys(key for row in body.values() for key in row))
    for key in list(columns):
        said = {row[key] for row in body.values() if isinstance(row.get(key), str)}
        if len(said) == 1:  # the same everywhere
            columns.remove(key)
            texts[key] = said.pop()
    caption = "; ".join(f"{key}: {text}" for key, text in texts.items() if text)
    table = Table("", *columns, title=title, caption=caption or None)
    for name, row in body.items():
        if row.keys() & columns:
            table.add_row(readable(name), *(readable(_text(row.get(key))) for key in columns))
    return table


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
