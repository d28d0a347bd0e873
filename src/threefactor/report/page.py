"""Pages out of sections: one HTML file that needs nothing else, or Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threefactor.errors import ConfigurationError
from threefactor.report.drawing import svg
from threefactor.report.figures import Figure, figure_csv
from threefactor.report.theme import colour_variables, follow_page, on_paper
from threefactor.report.values import Table, cell_data, cell_text, table_csv
from threefactor.training.files import make_folder, write_atomically
from threefactor.version import __version__

__all__ = ["Listing", "Section", "html_page", "markdown_page", "slug", "write_figures"]


@dataclass(frozen=True)
class Listing:
    """Text to be shown as it is: settings, commands, BibTeX; folded away on a page."""

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading, unique on the page.
        text: paragraphs below it.
        tables: the first is the main one and comes before the figures, the others after them.
        figures: side by side where there is room.
        listings: at the end.
        warning: whether it tells of something that went wrong.
    """

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    listings: tuple[Listing, ...] = ()
    warning: bool = False


def html_page(title: str, sections: Sequence[Section]) -> str:
    """Make one HTML file: no network, no script, light and dark, for screens small and large.

    Args:
        title: of the page.
        sections: its parts, in order.

    Raises:
        ConfigurationError: if jinja2 or matplotlib is not installed.

    Example:
        >>> page = html_page("Trial", [Section("Result", ("It works.",))])
        >>> "<h2" in page and "It works." in page
        True
    """
    return _render("page.html", title, sections)


def markdown_page(title: str, sections: Sequence[Section], figures: str | None = None) -> str:
    """Make a page of GitHub's Markdown.

    Args:
        title: of the page.
        sections: its parts, in order.
        figures: the folder of `write_figures`, as seen from the page; None leaves figures out.

    Raises:
        ConfigurationError: if jinja2 is not installed.
    """
    return re.sub(r"\n{3,}", "\n\n", _render("page.md", title, sections, figures=figures))


def write_figures(sections: Sequence[Section], folder: str | Path) -> list[Path]:
    """Write every figure as SVG on white ground, and the data of figures and tables as CSV.

    Args:
        sections: of a page.
        folder: where to; it is made if need be.

    Returns:
        The files.

    Raises:
        ConfigurationError: if matplotlib is not installed.
        CheckpointError: if a file cannot be written.
    """
    contents: dict[str, str] = {}
    for section in sections:
        for figure in section.figures:
            contents[f"{figure.name}.svg"] = on_paper(svg(figure))
            contents[f"{figure.name}.csv"] = figure_csv(figure)
        for table in section.tables:
            contents[f"{slug(table.title)}.csv"] = table_csv(table)
    make_folder(Path(folder))
    files = [Path(folder) / name for name in contents]
    for file, text in zip(files, contents.values(), strict=True):
        write_atomically(file, text.encode())
    return files


def slug(title: str) -> str:
    """Return a title as part of an address or file name.

    >>> slug("MNIST: test accuracy (%)")
    'mnist-test-accuracy'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _render(template: str, title: str, sections: Sequence[Section], **more: Any) -> str:
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as problem:
        raise ConfigurationError(
            "pages need jinja2; install it with: pip install 'threefactor[report]'"
        ) from problem

    def drawn(figure: Figure) -> dict[str, Any]:
        picture = svg(figure)
        return {
            "inline": Markup(follow_page(picture)),  # the drawing escapes what it contains
            "svg": _address(picture, "image/svg+xml"),
            "csv": _address(figure_csv(figure), "text/csv"),
        }

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("threefactor.report"),
        autoescape=template.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        text=cell_text,
        data=cell_data,
        slug=slug,
        drawn=drawn,
        table_csv=lambda table: _address(table_csv(table), "text/csv"),
        has_numbers=lambda table, i: any(cell_data(row[i]) for row in table.rows),
        cell=lambda cell: cell_text(cell).replace("|", "\\|").replace("\n", " "),
    )
    return environment.get_template(template).render(
        title=title,
        sections=sections,
        version=__version__,
        light=Markup(colour_variables(dark=False)),
        dark=Markup(colour_variables(dark=True)),
        **more,
    )


def _address(text: str, kind: str) -> str:
    """Return an address that holds the text itself."""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
