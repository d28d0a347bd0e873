"""The published numbers, as data: tables 1 to 8 of OPZO and table 1 of SFDFA."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from threefactor.errors import unknown_name
from threefactor.report.values import Spread

__all__ = ["Published", "PublishedTable", "find_published", "published_table", "published_tables"]


@dataclass(frozen=True)
class Line:
    """A column or row of a published table.

    Attributes:
        title: its heading as published.
        match: settings of the runs that belong to it; None if no run of this library does.
        layer: the network's name of the layer that the numbers belong to, or "total".
    """

    title: str
    match: dict[str, Any] | None
    layer: str | None = None


@dataclass(frozen=True)
class Value:
    """A number as printed, with its standard deviation; or a formula as text."""

    mean: float | None = None
    sd: float | None = None
    text: str | None = None


@dataclass(frozen=True)
class Published:
    """A published number to compare runs with.

    Attributes:
        mean, sd: as printed, in `unit`; sd is None if it was not given.
        unit: of mean and sd.
        table: its name, such as "opzo-table1".
        source: paper and table, such as "OPZO, table 1".
        key: of the paper in `references.bib`.
        layer: the layer that it belongs to, or None.
        stands_for: full names of the settings by which a run is compared with this number.
        epoch: "best" if it is the highest test accuracy of all epochs of each run, else "last".
    """

    mean: float
    sd: float | None
    unit: str
    table: str
    source: str
    key: str
    layer: str | None
    stands_for: frozenset[str]
    epoch: Literal["last", "best"] = "last"

    @property
    def cell(self) -> Spread:
        """The number as a cell of a table."""
        return Spread(self.mean, self.sd, None)


@dataclass(frozen=True)
class PublishedTable:
    """A table as published.

    Attributes:
        name: such as "opzo-table1".
        paper: "opzo" or "sfdfa".
        where: number of the table in the paper.
        quantity: what the numbers are, such as "test accuracy".
        unit: of the numbers.
        note: what readers should know about the numbers.
        match: settings of all runs of this table, by full name.
        columns, rows: headings, with the settings of each.
        values: one list per row, one entry per column; None where nothing was published.
        epoch: which epoch of each run the numbers are of; "last" where the paper does not say.
    """

    name: str
    paper: str
    where: str
    quantity: str
    unit: str
    note: str
    match: dict[str, Any]
    columns: list[Line]
    rows: list[Line]
    values: list[list[Value | None]] = field(repr=False)
    epoch: Literal["last", "best"] = "last"

    def value(self, row: str, column: str) -> Value | None:
        """Return the value in a row and column, by their published headings.

        Raises:
            ConfigurationError: if there is no such row or column.
        """
        return self.values[_index("row", row, self.rows)][_index("column", column, self.columns)]


@dataclass(frozen=True)
class _Document:
    papers: dict[str, dict[str, str]]
    tables: list[PublishedTable]


@cache
def _document() -> _Document:
    text = files("threefactor.report").joinpath("published.json").read_text(encoding="utf-8")
    return TypeAdapter(_Document).validate_python(json.loads(text))


def published_tables() -> dict[str, PublishedTable]:
    """Return all tables by name."""
    return {table.name: table for table in _document().tables}


def published_table(name: str) -> PublishedTable:
    """Return a table by name.

    >>> published_table("opzo-table1").value("OPZO", "MNIST").mean
    98.34

    Raises:
        ConfigurationError: with the nearest known name.
    """
    if name not in published_tables():
        raise unknown_name("table", name, published_tables())
    return published_tables()[name]


def find_published(
    settings: Mapping[str, Any], quantity: str = "test accuracy"
) -> tuple[Published, ...]:
    """Return the published numbers of an experiment, that of the main table first.

    Args:
        settings: of a run, by full name, with all options of the rule; see `plain_settings`.
        quantity: "test accuracy" or "firing rate".
    """
    tables = (table for table in _document().tables if table.quantity == quantity)
    return tuple(found for table in tables for found in _matching(table, settings))


def _matching(table: PublishedTable, settings: Mapping[str, Any]) -> Iterator[Published]:
    if not _fits(table.match, settings):
        return
    for row, values in zip(table.rows, table.values, strict=True):
        for column, value in zip(table.columns, values, strict=True):
            if value is None or value.mean is None:
                continue
            if _fits(row.match, settings) and _fits(column.match, settings):
                paper = _document().papers[table.paper]
                source = f"{paper['title']}, {table.where}"
                keys = frozenset({*table.match, *(row.match or ()), *(column.match or ())})
                yield Published(
                    mean=value.mean,
                    sd=value.sd,
                    unit=table.unit,
                    table=table.name,
                    source=source,
                    key=paper["source"],
                    layer=column.layer,
                    stands_for=keys,
                    epoch=table.epoch,
                )


def _fits(match: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> bool:
    return match is not None and all(settings.get(key) == wanted for key, wanted in match.items())


def _index(kind: str, title: str, lines: list[Line]) -> int:
    titles = [line.title for line in lines]
    if title not in titles:
        raise unknown_name(kind, title, titles)
    return titles.index(title)
