"""Pages made of sections: one self-contained HTML file, or Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from threefactor.errors import ConfigurationError
from threefactor.readable import readable
from threefactor.report.drawing import colour_variables, follow_page, on_paper, svg
from threefactor.report.figures import Figure, figure_csv
from threefactor.report.markdown import address, fenced, in_line, paragraph, plain_html
from threefactor.report.names import part_names
from threefactor.report.values import Table, cell_data, cell_text, table_csv
from threefactor.training.folder.files import make_folder, write_atomically
from threefactor.version import __version__

__all__ = [
    "Listing",
    "Section",
    "html_page",
    "markdown_page",
    "write_figures",
    "write_tables",
]


@dataclass(frozen=True)
class Listing:
    """Text shown unchanged, such as settings, commands or BibTeX; a page folds it away."""

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading, unique on the page.
        text: paragraphs below the heading.
        tables: the first comes before the figures, the others after them.
        figures: side by side where there is room.
        listings: at the end.
        warning: whether it reports something that went wrong.
    """

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    listings: tuple[Listing, ...] = ()
    warning: bool = False


def html_page(title: str, sections: Iterable[Section]) -> str:
    """Make one HTML file without scripts that loads nothing; it has a light and a dark theme.

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


def markdown_page(title: str, sections: Iterable[Section], figures: str | None = None) -> str:
    """Make a page in GitHub's Markdown.

    Args:
        title: of the page.
        sections: its parts, in order.
        figures: the folder of `write_figures`, as seen from the page; None leaves figures out.

    Raises:
        ConfigurationError: if jinja2 is not installed.
    """
    return re.sub(r"\n{3,}", "\n\n", _render("page.md", title, sections, figures=figures))


def write_figures(sections: Iterable[Section], folder: str | Path) -> list[Path]:
    """Write every figure as SVG on a white ground, and the data of figures and tables as CSV.

    Args:
        sections: of a page.
        folder: where to write; created if it is missing. Files are named after the figures' names
            and the tables' titles, in letters and digits that are safe on every system.

    Returns:
        The paths of the files.

    Raises:
        ConfigurationError: if matplotlib is not installed.
        CheckpointError: if a file cannot be written.
    """
    sections = list(sections)
    names = _names(sections)
    drawn = {
        f"{names[id(figure)]}.svg": on_paper(svg(replace(figure, name=names[id(figure)])))
        for section in sections
        for figure in section.figures
    }
    return _write({**drawn, **_tables(sections)}, Path(folder))


def write_tables(sections: Iterable[Section], folder: str | Path) -> list[Path]:
    """Write the data of figures and tables as CSV, all digits kept; nothing is drawn.

    Args:
        sections, folder: as for `write_figures`.

    Returns:
        The paths of the files.

    Raises:
        CheckpointError: if a file cannot be written.
    """
    return _write(_tables(list(sections)), Path(folder))


def _tables(sections: Sequence[Section]) -> dict[str, str]:
    """Return the data of figures and tables by the names of their files."""
    names = _names(sections)
    found: dict[str, str] = {}
    for section in sections:
        for figure in section.figures:
            found[f"{names[id(figure)]}.csv"] = figure_csv(figure)
        for table in section.tables:
            found[f"{names[id(table)]}.csv"] = table_csv(table)
    return found


def _write(contents: Mapping[str, str], folder: Path) -> list[Path]:
    make_folder(folder)
    files = [folder / name for name in contents]
    for file, text in zip(files, contents.values(), strict=True):
        write_atomically(file, text.encode())
    return files


def _render(template: str, title: str, sections: Iterable[Section], **more: Any) -> str:
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as problem:
        raise ConfigurationError(
            "pages need jinja2; install it with: pip install 'threefactor[report]'"
        ) from problem

    sections = list(sections)
    names = _names(sections)

    def drawn(figure: Figure) -> dict[str, Any]:
        picture = svg(replace(figure, name=names[id(figure)]))
        return {
            "inline": Markup(follow_page(picture)),  # the drawing escapes what it contains
            "svg": _address(picture, "image/svg+xml"),
            "csv": _address(figure_csv(figure), "text/csv"),
        }

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("threefactor.report"),
        autoescape=template.endswith(".html"),
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        text=cell_text,
        data=cell_data,
        name=lambda part: names[id(part)],
        drawn=drawn,
        table_csv=lambda table: _address(table_csv(table), "text/csv"),
        has_numbers=lambda table, i: any(cell_data(row[i]) for row in table.rows),
        cell=lambda cell: in_line(cell_text(cell)),
        in_line=in_line,
        paragraph=paragraph,
        plain_html=plain_html,
        fenced=fenced,
        address=address,
    )
    return environment.get_template(template).render(
        title=title,
        sections=sections,
        version=__version__,
        light=Markup(colour_variables(dark=False)),
        dark=Markup(colour_variables(dark=True)),
        **more,
    )


def _names(sections: Iterable[Section]) -> dict[int, str]:
    """Return the names of all parts of a page by Python's `id` of the part."""
    parts: list[tuple[Any, str]] = []
    for section in sections:
        parts.append((section, section.title))
        parts += [(figure, figure.name) for figure in section.figures]
        parts += [(table, table.title) for table in section.tables]
    return part_names(parts)


def _shown(value: Any) -> Any:
    """Write control characters out; text in a drawing was treated before it was drawn."""
    return readable(value, keep="\n\t") if type(value) is str else value


def _address(text: str, kind: str) -> str:
    """Return a data URL that contains the text."""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
