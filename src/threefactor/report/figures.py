"""Figures as values: they say what is shown, and not how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from threefactor.errors import ConfigurationError, InputError
from threefactor.report.values import csv_text

__all__ = ["Figure", "Series", "figure_csv"]

Kind = Literal[
    "line", "points", "bar", "raster", "parallel", "heatmap", "cells", "pictures", "quiver"
]
Points = Sequence[float] | Sequence[str]
Column = Points | Sequence[float | None]


@dataclass(frozen=True)
class Series:
    """One curve, group of bars, or panel; all sequences have one entry per point.

    Attributes:
        label: its name in the legend.
        xs: places; strings for the groups of a bar chart.
        ys: heights; for heatmaps and arrows the places along the other axis. None leaves a gap in
            a line.
        error: half the height of a band or bar of error, or None.
        values: what a heatmap shows, one per point of a complete grid.
        us, vs: components of arrows.
        marked: which points of a line are marked, such as the spikes of a potential.
        size: how many neurons the layer of a raster has, which `ys` count from 0.

    Raises:
        InputError: if the lengths differ, or a number is not finite.
    """

    label: str
    xs: Points
    ys: Sequence[float | None]
    error: Sequence[float | None] | None = None
    values: Sequence[float] | None = None
    us: Sequence[float] | None = None
    vs: Sequence[float] | None = None
    marked: Sequence[bool] | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        for name, numbers in self.columns().items():
            if len(numbers) != len(self.xs):
                raise InputError(
                    f"series {self.label!r} has {len(self.xs)} xs and {len(numbers)} {name}; "
                    "give one for each point"
                )
            if any(isinstance(n, (int, float)) and not math.isfinite(n) for n in numbers):
                raise InputError(
                    f"{name} of series {self.label!r} hold a number that is not finite"
                )

    @property
    def positive(self) -> bool:
        """Whether all heights are above zero, as a logarithmic axis needs."""
        return all(y is not None and y > 0 for y in self.ys)

    def columns(self) -> dict[str, Column]:
        """Return what is given, by the name in a CSV file."""
        every: dict[str, Column | None] = {
            "x": self.xs,
            "y": self.ys,
            "error": self.error,
            "value": self.values,
            "u": self.us,
            "v": self.vs,
            "marked": None if self.marked is None else [int(one) for one in self.marked],
        }
        return {name: numbers for name, numbers in every.items() if numbers is not None}


NEEDED = {
    **{"line": (), "points": (), "bar": (), "raster": ()},
    "parallel": ("value",),
    **{"heatmap": ("value",), "cells": ("value",), "pictures": ("value",), "quiver": ("u", "v")},
}


@dataclass(frozen=True)
class Figure:
    """A figure of a report.

    Attributes:
        name: of its files, such as "mnist-fc-test-error"; unique on a page.
        title: what it shows.
        caption: what readers need to know.
        x_label, y_label: of the axes, with units.
        series: at least one. Heatmaps and arrows get a panel for each.
        kind: "line", "points", "bar" (grouped), "raster" (bands of spikes, the first series at the
            bottom), "parallel" (lines from axis to axis, coloured by their values), "heatmap",
            "cells" (a heatmap of one series with names along its axes and numbers in its cells, any
            of which may be absent), "pictures" (small pictures, all in one scale around 0, row by
            row) or "quiver" (arrows).
        log_x, log_y: whether an axis is logarithmic.
        from_zero: whether the heights of lines begin at 0.
        x_names, y_names: of cells: what the places 0, 1, ... along the axes stand for.
        x_range: where a raster begins and ends; None for its first and last spike.
        columns: of pictures: how many stand side by side.
        ticks: of parallel axes: for each the places, 0 to 1, and their texts.

    Raises:
        InputError: if there is no series, or a series lacks what the kind needs, or has gaps and
            is not a line.
    """

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    kind: Kind = "line"
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = False
    x_names: tuple[str, ...] = ()
    y_names: tuple[str, ...] = ()
    x_range: tuple[float, float] | None = None
    columns: int = 1
    ticks: tuple[tuple[tuple[float, str], ...], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in NEEDED:
            raise InputError(f"kind of figure is {self.kind!r}; give one of {', '.join(NEEDED)}")
        silent = self.kind == "raster"  # a layer without spikes is shown as such
        if not self.series or not all(len(one.xs) or silent for one in self.series):
            raise InputError(f"figure {self.name!r} has nothing to show; give it series of points")
        for one in self.series:
            missing = [name for name in NEEDED[self.kind] if name not in one.columns()]
            if missing:
                raise InputError(f"series {one.label!r} of a {self.kind} lacks {missing[0]}")
            if self.kind != "line" and None in one.ys:
                raise InputError(f"series {one.label!r} of a {self.kind} has gaps; leave them out")
            if self.kind == "raster" and any(not 0 <= y < (one.size or 0) for y in one.ys if y):
                raise InputError(
                    f"series {one.label!r} of a raster has neurons outside of its {one.size}; give "
                    "the number of neurons as size"
                )

    def rows(self) -> list[dict[str, Any]]:
        """Return the data, a dict for each point: the label of its series, and its numbers.

        >>> line = Series("OPZO", [1, 2], [0.5, 0.25])
        >>> Figure("error", "Error", "", "epoch", "error", (line,)).rows()
        [{'series': 'OPZO', 'x': 1, 'y': 0.5}, {'series': 'OPZO', 'x': 2, 'y': 0.25}]
        """
        axes = {"x": self.x_names, "y": self.y_names}

        def shown(name: str, value: Any) -> Any:
            return axes[name][value] if axes.get(name) else value

        names = self._names()
        found = []
        for one in self.series:
            columns = one.columns()
            for i in range(len(one.xs)):
                values = {n: shown(n, columns[n][i]) if n in columns else None for n in names}
                found.append({"series": one.label, **values})
        return found

    def to_pandas(self) -> Any:
        """Return `rows` as a DataFrame.

        Raises:
            ConfigurationError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as problem:
            raise ConfigurationError(
                "a DataFrame needs pandas; install it with: pip install pandas, or use rows()"
            ) from problem
        return pandas.DataFrame(self.rows(), columns=["series", *self._names()])

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for one in self.series for name in one.columns()))


def figure_csv(figure: Figure) -> str:
    """Write the data of a figure as CSV, one line per point, all digits kept.

    >>> line = Series("OPZO", [1, 2], [0.5, 0.25])
    >>> print(figure_csv(Figure("error", "Error", "", "epoch", "error", (line,))), end="")
    series,x,y
    OPZO,1,0.5
    OPZO,2,0.25
    """
    names = ["series", *figure._names()]
    return csv_text([names, *(list(row.values()) for row in figure.rows())])
