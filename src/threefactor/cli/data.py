"""`threefactor data`: list, fetch, info, check."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from threefactor import data
from threefactor.cli.command import Command
from threefactor.cli.completion import dataset_names
from threefactor.cli.console import console, say, show
from threefactor.data.own.kinds import KINDS, recognise
from threefactor.data.own.survey import Survey, survey
from threefactor.errors import ConfigurationError, DataError, unknown_name
from threefactor.options import options_of
from threefactor.plugins.registry import GIVEN_TO_DATA
from threefactor.readable import clipped, readable
from threefactor.report.sheets import draw_sheet
from threefactor.training.arguments import checked_arguments
from threefactor.training.overrides import parse_assignment

__all__ = ["DataDir", "app"]

MOST_CLASSES = 30
"""Classes that the table shows."""

app = typer.Typer(
    no_args_is_help=True,
    help="""
List, download and describe data sets; check your own.

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


@app.command("list", cls=Command)
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


@app.command(cls=Command)
def fetch(name: Name, data_dir: DataDir = None) -> None:
    """Download a data set, checksums checked, and unpack it. Files that are there are kept."""
    folder = data.fetch(name, data_dir, progress=console().is_terminal)
    say(f"{name} is in {readable(str(folder))}")


@app.command(cls=Command)
def info(name: Name, data_dir: DataDir = None) -> None:
    """Describe a data set: samples, shape, licence, source, where it lies."""
    say(data.describe(name, data_dir))


@app.command(cls=Command)
def check(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Folder or file of your own data, or KIND:PATH.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            help="images, events, spikes, tensors or huggingface. [default: as files are named]"
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="OPTION=VALUE",
            help="How it is split and read, as for training: test_share=0.2, size=32; may be "
            "repeated.",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Draw some samples of each class into this picture, as sheet.png."),
    ] = None,
) -> None:
    """
    Say what data of your own holds, and what keeps it from being trained with.

    Counts for each class, shapes and values, rates and durations of events, files that cannot be
    read or have no label. Nothing is changed. The command fails if there are problems.
    """
    kind, path = _kind_and_path(kind, path)
    options: dict[str, Any] = {}
    for key, value in map(parse_assignment, assignments or []):
        name = key.removeprefix("data.options.").removeprefix("data.")
        if options.get(name, value) != value:
            raise ConfigurationError(
                f"{name} is given twice, as {clipped(options[name])} and as {clipped(value)}"
            )
        options[name] = value
    found = survey(path, _known_kind(kind, options, path), options)
    say(f"{readable(str(path))}: {found.kind}")
    _show_counts(found)
    for name, text in found.facts.items():
        say(f"{name}: {text}")
    for note in found.notes:
        say(f"note: {note}")
    for problem in found.problems:
        say(f"problem: {problem}")
    if sheet is not None:
        classes = draw_sheet(found.examples, sheet)
        say(f"samples of {classes} classes are in {readable(str(sheet))}")
    if found.problems:
        raise DataError(f"{len(found.problems)} problems, see above")
    command = ["threefactor", "train", "RECIPE", "--data", f"{found.kind}:{path}"]
    command += [part for one in assignments or [] for part in ("--set", one)]
    say(f"it can be trained with: {shlex.join(command)}")


def _kind_and_path(kind: str | None, path: Path) -> tuple[str | None, Path]:
    """Read a place that is given with its kind, as for training: images:FOLDER."""
    before, colon, after = str(path).partition(":")
    if not colon or before not in KINDS or path.exists():
        return kind, path
    if kind not in (None, before):
        raise ConfigurationError(f"the kind is given twice, as {before!r} and as {kind!r}")
    return before, Path(after)


def _known_kind(kind: str | None, options: Mapping[str, Any], path: Path) -> str:
    """Return the kind of data, once it is known to take the options."""
    if kind is not None and kind not in KINDS:
        raise unknown_name("kind of data", kind, KINDS)
    found = kind or recognise(path)
    taken = options_of(KINDS[found])
    known = {name: one for name, one in taken.items() if name not in {*GIVEN_TO_DATA, "path"}}
    known |= {name: taken[name] for name in ("sort",) if name in taken}
    checked_arguments(f"data {found!r}", options, known)
    return found


def _show_counts(found: Survey) -> None:
    if not found.counts:
        return
    classes = list(next(iter(found.counts.values())))
    table = Table("class", *found.counts)
    for name in classes[:MOST_CLASSES]:
        table.add_row(readable(name), *(str(part.get(name, 0)) for part in found.counts.values()))
    if len(classes) > MOST_CLASSES:
        table.add_row(f"... of {len(classes)}", *("" for _ in found.counts))
    table.add_row("all", *(str(sum(part.values())) for part in found.counts.values()))
    show(table)
