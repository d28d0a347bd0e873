"""Tables of a report and their cells: numbers are shown rounded and keep their exact value."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from threefactor.errors import InputError
from threefactor.readable import readable

__all__ = [
    "Cell",
    "Number",
    "Spread",
    "Table",
    "cell_data",
    "cell_text",
    "csv_text",
    "spread",
    "table_csv",
    "without_empty_columns",
]


# The first letters of a spreadsheet's formulas, wide ones included; none of them is the empty text.
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


@dataclass(frozen=True)
class Number:
    """A number with the way it is shown.

    >>> Number(-0.125, signed=True).text
    '−0.12'

    Attributes:
        value: the exact number.
        digits: digits after the point; None for four significant digits.
        signed: whether to show a plus sign.
    """

    value: float
    digits: int | None = 2
    signed: bool = False

    @property
    def text(self) -> str:
        sign = "+" if self.signed else ""
        kind = ".4g" if self.digits is None else f".{self.digits}f"
        return f"{self.value:{sign}{kind}}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Spread:
    """A mean over seeds with its standard deviation.

    >>> spread([98.5, 98.6, 98.7]).text
    '98.60 ± 0.10'
    >>> spread([98.5]).text
    '98.50 (1 seed)'

    Attributes:
        mean: mean.
        sd: sample standard deviation (n - 1); None for a single seed.
        n: number of seeds; None if unknown, as for some published numbers.
        digits: digits shown after the point.
    """

    mean: float
    sd: float | None
    n: int | None
    digits: int = 2

    @property
    def text(self) -> str:
        shown = f"{self.mean:.{self.digits}f}"
        if self.sd is not None:
            return f"{shown} ± {self.sd:.{self.digits}f}"
        return shown if self.n is None else f"{shown} (1 seed)"


Cell = str | int | Number | Spread | None
"""What a table may contain; None is an empty cell."""


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        title: what it shows.
        columns: their headings.
        rows: as many cells each as there are columns; the first is the row's heading.
        notes: sentences below it.

    Raises:
        InputError: if a row has another number of cells.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InputError(
                    f"table {self.title!r} has {len(self.columns)} columns and a row of {len(row)} "
                    f"cells: {row}"
                )


def spread(values: Sequence[float], digits: int = 2) -> Spread:
    """Return mean and sample standard deviation of at least one number."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), sd, len(values), digits)


def cell_text(cell: Cell) -> str:
    """Return the text of a cell."""
    if isinstance(cell, (Number, Spread)):
        return cell.text
    return "" if cell is None else str(cell)


def cell_data(cell: Cell) -> dict[str, float | int]:
    """Return the exact numbers of a cell by name: value; or mean, sd, n."""
    if isinstance(cell, Spread):
        found = {"mean": cell.mean, "sd": cell.sd, "n": cell.n}
        return {name: number for name, number in found.items() if number is not None}
    if isinstance(cell, Number):
        return {"value": cell.value}
    return {"value": cell} if isinstance(cell, int) else {}


def table_csv(table: Table) -> str:
    """Write a table as CSV with all digits; mean, sd and n of a spread get a column each."""
    widths = [
        max((len(_exact(row[i])) for row in table.rows), default=1)
        for i in range(len(table.columns))
    ]
    names = ("", ", sd", ", n")
    heading = [
        name + names[k] for name, w in zip(table.columns, widths, strict=True) for k in range(w)
    ]
    lines = [[_pad(_exact(c), w) for c, w in zip(row, widths, strict=True)] for row in table.rows]
    return csv_text([heading, *([x for part in line for x in part] for line in lines)])


def without_empty_columns(table: Table) -> Table:
    """Leave out empty columns."""
    kept = [i for i in range(len(table.columns)) if any(row[i] is not None for row in table.rows)]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return replace(table, columns=tuple(table.columns[i] for i in kept), rows=rows)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Write rows as CSV; numbers keep all their digits.

    Text that a spreadsheet would take for a formula starts with an apostrophe.

    >>> print(csv_text([["-0.5", "=1+1", -0.5]]), end="")
    -0.5,'=1+1,-0.5
    """
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[_harmless(x) for x in row] for row in rows])
    return stream.getvalue()


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = readable(value, keep="\n")
    return f"'{text}" if text.strip()[:1] in FORMULA and not _is_number(text) else text


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", text) is not None


def _exact(cell: Cell) -> list[Any]:
    if isinstance(cell, Spread):
        return [cell.mean, cell.sd, cell.n]
    return [cell.value if isinstance(cell, Number) else cell]


def _pad(values: list[Any], width: int) -> list[Any]:
    return values + [None] * (width - len(values))
