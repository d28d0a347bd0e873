"""`threefactor show`: pictures of a trained network at work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from threefactor import training
from threefactor.cli.console import say, show
from threefactor.cli.data import DataDir
from threefactor.cli.plugins import Plugins, recall
from threefactor.cli.runs import Device, Threads, use
from threefactor.errors import ConfigurationError
from threefactor.readable import readable
from threefactor.report import Section, html_page, write_tables
from threefactor.report.drawing import draw_side_by_side
from threefactor.report.names import rule_name
from threefactor.report.spikes import spike_sections
from threefactor.report.values import cell_text
from threefactor.training.folder.files import write_atomically

__all__ = ["show_run"]

PICTURES = (".png", ".svg", ".pdf")
SHOWN = 20
"""Classes that the terminal shows."""


def show_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    checkpoint: Annotated[str, typer.Option(help="Which checkpoint: last or best.")] = "last",
    sample: Annotated[
        int, typer.Option(help="Test sample whose spikes and potentials are shown, from 0.")
    ] = 0,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Layer whose spikes and potentials are shown; may be repeated."),
    ] = None,
    neuron: Annotated[
        list[int] | None,
        typer.Option(
            help="Neuron whose potential is shown; may be repeated. [default: the most, middling "
            "and least active]"
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="What to write: a page (.html) or a picture (.png, .svg, .pdf)."),
    ] = Path("show.html"),
    csv: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for all data as CSV.")
    ] = None,
    plugin: Plugins = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """
    Show a trained network at work.

    Spikes and membrane potentials of a test sample, the confusion matrix and the accuracy of each
    class over all test data, the weights of the first layer, and feedback against weights. What a
    run does not have is named with the reason. The run may be unfinished; it is not changed.
    """
    ending = out.suffix.lower()
    if ending not in (".html", *PICTURES):
        raise ConfigurationError(
            f"--out is {readable(str(out))!r}; give a name that ends in .html, or in "
            f"{', '.join(PICTURES)} for a picture"
        )
    recall(run)
    found = training.Run(run)
    device = use(found.settings, device, threads)
    trainer = training.open_run(run, checkpoint, data_dir=data_dir, device=device)
    settings = found.settings
    title = f"{settings.recipe}, {rule_name(settings.rule.name)}, seed {settings.seed}"
    sections = spike_sections(
        trainer, title, sample=sample, layers=layer or None, neurons=neuron or None
    )
    for section in sections:
        for line in section.text:
            say(line)
    _show_classes(sections[0])
    out.parent.mkdir(parents=True, exist_ok=True)
    if ending == ".html":
        page = html_page(f"{title}: {checkpoint} checkpoint", sections)
        write_atomically(out, page.encode())
    else:
        draw_side_by_side([one for section in sections for one in section.figures], out)
    if csv is not None:
        say(f"{len(write_tables(sections, csv))} tables are in {readable(str(csv))}")
    say(f"all pictures are in {readable(str(out))}")


def _show_classes(accuracy: Section) -> None:
    for found in accuracy.tables[:1]:
        table = Table(*found.columns, title=found.title)
        for row in found.rows[:SHOWN]:
            table.add_row(*(readable(cell_text(cell)) for cell in row))
        if len(found.rows) > SHOWN:
            table.add_row(f"... of {len(found.rows)}", *("" for _ in found.columns[1:]))
        show(table)
