"""`threefactor report` and `threefactor cite`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from threefactor.cli.completion import recipe_names, rule_names
from threefactor.cli.console import say
from threefactor.cli.data import DataDir
from threefactor.cli.plugins import Plugins
from threefactor.plugins import name_of_rule
from threefactor.readable import readable
from threefactor.report import (
    Section,
    citation,
    html_page,
    markdown_page,
    report_sections,
    write_figures,
)
from threefactor.training.folder.files import write_atomically

__all__ = ["cite", "report"]


class Format(str, Enum):
    """What a report may be written as."""

    HTML = "html"
    MARKDOWN = "markdown"


ENDINGS = {Format.HTML: ".html", Format.MARKDOWN: ".md"}


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Run folders, or folders that hold some."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write. [default: report.html or report.md]")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="Kind of page.")] = Format.HTML,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for every figure as SVG and all data as CSV.")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Report",
    split: Annotated[
        bool, typer.Option("--split", help="Give runs of differing settings a row each.")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Take in runs before their last epoch, marked.")
    ] = False,
    spikes: Annotated[
        bool,
        typer.Option(
            "--spikes",
            help="Show networks at work, too, as `threefactor show`; needs checkpoints and data.",
        ),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """
    Report runs as one page: tables beside published numbers, figures, settings, what to cite.

    `threefactor report runs` reads every run below the folder runs and writes report.html, one
    file that needs nothing else. Runs that differ only in their seed become mean and standard
    deviation; runs that differ in more are refused, with the difference, unless `--split` is
    given. Damaged and unfinished runs are named on the page and left out.
    """
    sections = report_sections(
        paths, unfinished=unfinished, split=split, spikes=spikes, data_dir=data_dir
    )
    target = out or Path(f"report{ENDINGS[format_]}")
    page = _page(format_, title, sections, target, figures)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, page.encode())
    if sections.left_out is not None:
        for line in sections.left_out.text:
            say(f"left out: {readable(line)}")
    if figures is not None:
        count = len(write_figures(sections, figures))
        say(f"{count} files are in {readable(str(figures))}")
    say(f"the report is in {readable(str(target))}")


def _page(
    kind: Format, title: str, sections: Iterable[Section], target: Path, figures: Path | None
) -> str:
    if kind is Format.HTML:
        return html_page(title, sections)
    folder = None if figures is None else Path(os.path.relpath(figures, target.parent)).as_posix()
    return markdown_page(title, sections, folder)


def cite(
    rule: Annotated[
        str | None, typer.Option(help="Learning rule.", autocompletion=rule_names)
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe.", autocompletion=recipe_names)] = None,
    plugin: Plugins = None,
) -> None:
    """
    Print BibTeX of what was used, and of nothing else.

    `threefactor cite --rule opzo --recipe cifar10-conv5` names the papers of the rule, of the
    engine, of the network and of the data, and threefactor. Without options: threefactor alone.
    """
    rule = None if rule is None else name_of_rule(rule)
    say(citation(rule, recipe))
