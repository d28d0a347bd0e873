"""`threefactor analyse`: measures of a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from threefactor import training
from threefactor.analysis.measured import LENGTHS
from threefactor.analysis.of_runs import ANALYSES, RunView
from threefactor.analysis.of_runs import analyse as analyse_run
from threefactor.cli.completion import analysis_names
from threefactor.cli.console import say, show
from threefactor.cli.data import DataDir
from threefactor.cli.runs import Device, Threads, use
from threefactor.errors import unknown_name
from threefactor.readable import readable
from threefactor.training.checkpoint import write_atomically
from threefactor.training.run_folder import environment

__all__ = ["analyse"]


def analyse(
    name: Annotated[str, typer.Argument(help="What to measure.", autocompletion=analysis_names)],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", "--epoch", help="Which checkpoint: last or best.")
    ] = "last",
    samples: Annotated[
        int | None, typer.Option(min=1, help="Training samples to use. [default: all]")
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Number of time steps at which `memory` measures; may be repeated. "
            f"[default: {', '.join(map(str, LENGTHS))}]",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Measure a run. NAME is one of:

    {analyses}

    Prints a table; `--out FILE.json` writes all numbers, with the command and versions. Dropout is
    off, and the run folder is not changed. `variance` first lets feedback settle with the weights
    at rest, `measured-cost` and `memory` start a process for each measurement, `learning-curves`
    trains twice.
    """
    if name not in ANALYSES:
        raise unknown_name("analysis", name, ANALYSES)
    use(training.RunFolder(run).settings(), device, threads)
    trainer = training.open_run(run, checkpoint, data_dir=data_dir, device=device)
    found = analyse_run(name, RunView(trainer, samples, data_dir, tuple(steps or LENGTHS)))
    settings = trainer.experiment.settings
    document = {
        "analysis": name,
        "recipe": settings.recipe,
        "rule": settings.rule.name,
        "seed": settings.seed,
        "checkpoint": checkpoint,
        "epoch": trainer.epoch,
        "samples": samples,
        "environment": environment(settings, device),
        "result": found,
    }
    show(_table(name, found))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        write_atomically(out, text.encode())
        say(f"all numbers are in {readable(str(out))}")


_LINES = "\n".join(
    f"- `{name}`: {(function.__doc__ or '').splitlines()[0]}" for name, function in ANALYSES.items()
)
analyse.__doc__ = (analyse.__doc__ or "").replace("{analyses}", _LINES.replace("\n", "\n    "))


def _table(title: str, found: Any) -> Table:
    """Show nested results: a row for every dict, its numbers in columns; texts below the table."""
    rows, texts = dict(_rows(found, "")), {}
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    for key in list(columns):
        said = {row[key] for row in rows.values() if isinstance(row.get(key), str)}
        if len(said) == 1:  # the same everywhere
            columns.remove(key)
            texts[key] = said.pop()
    caption = "; ".join(f"{key}: {text}" for key, text in texts.items() if text)
    table = Table("", *columns, title=title, caption=caption or None)
    for name, row in rows.items():
        if row.keys() & columns:
            table.add_row(readable(name), *(readable(_text(row.get(key))) for key in columns))
    return table


def _rows(found: Any, name: str) -> list[tuple[str, dict[str, Any]]]:
    parts: dict[Any, Any] = found
    if isinstance(found, list):
        parts = dict(enumerate(found, start=1))
    nested = {k: v for k, v in parts.items() if isinstance(v, (dict, list))}
    own = {k: v for k, v in parts.items() if k not in nested}
    rows = [(name, own)] if own else []
    for key, part in nested.items():
        rows += _rows(part, f"{name} {key}".strip())
    return rows


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
