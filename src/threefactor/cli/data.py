"""`threefactor data`: list, fetch, info."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from threefactor import data
from threefactor.cli.completion import dataset_names
from threefactor.cli.console import console, say, show
from threefactor.readable import readable

__all__ = ["DataDir", "app"]

app = typer.Typer(
    no_args_is_help=True,
    help="""
List, download and describe data sets.

A data set lies in a subfolder of its name below `--data-dir`, the variable `THREEFACTOR_DATA`, or
the user's cache folder, whichever is given first. Sets of images serve all networks, sets of
spikes those of exact spike times, all others those on a time grid.
""",
)

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder with one subfolder per data set. [default: THREEFACTOR_DATA, or a cache]",
        show_default=False,
    ),
]
Name = Annotated[str, typer.Argument(help="Data set.", autocompletion=dataset_names)]


@app.command("list")
def list_(data_dir: DataDir = None) -> None:
    """List the data sets, and whether they are found on this machine."""
    table = Table(Column("name", no_wrap=True), "title", "kind", "training", "test", "found")
    for name, entry in data.DATASETS.items():
        here = "yes" if data.available(name, data_dir) else "no"
        counts = (f"{count:,}" if count else "any" for count in (entry.train, entry.test))
        row = (name, entry.title, entry.kind, *counts, here)
        table.add_row(*map(readable, row))
    show(table)
    say("To download one: threefactor data fetch NAME")


@app.command()
def fetch(name: Name, data_dir: DataDir = None) -> None:
    """Download a data set, checksums checked, and unpack it. Files that are there are kept."""
    folder = data.fetch(name, data_dir, progress=console().is_terminal)
    say(f"{name} is in {readable(str(folder))}")


@app.command()
def info(name: Name, data_dir: DataDir = None) -> None:
    """Describe a data set: samples, shape, licence, source, where it lies."""
    say(data.describe(name, data_dir))
