"""Figures as values: they say what is shown, and not how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from threefactor.errors import InputError
from threefactor.report.values import csv_text

__all__ = ["Figure", "Series", "figure_csv"]

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
        }
        return {name: numbers for name, numbers in every.items() if numbers is not None}


NEEDED = {
    **{"line": (), "points": (), "bar": ()},
    **{"heatmap": ("value",), "cells": ("value",), "quiver": ("u", "v")},
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
        kind: "line", "points", "bar" (grouped), "heatmap", "cells" (a heatmap of one series with
            names along its axes and numbers in its cells, any of which may be absent) or "quiver"
            (arrows).
        log_x, log_y: whether an axis is logarithmic.
        from_zero: whether the heights of lines begin at 0.
        x_names, y_names: of cells: what the places 0, 1, ... along the axes stand for.

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
    kind: Literal["line", "points", "bar", "heatmap", "cells", "quiver"] = "line"
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = False
    x_names: tuple[str, ...] = ()
    y_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in NEEDED:
            raise InputError(f"kind of figure is {self.kind!r}; give one of {', '.join(NEEDED)}")
        if not self.series or not all(len(one.xs) for one in self.series):
            raise InputError(f"figure {self.name!r} has nothing to show; give it series of points")
        for one in self.series:
            missing = [name for name in NEEDED[self.kind] if name not in one.columns()]
            if missing:
                raise InputError(f"series {one.label!r} of a {self.kind} lacks {missing[0]}")
            if self.kind != "line" and None in one.ys:
                raise InputError(f"series {one.label!r} of a {self.kind} has gaps; leave them out")


def figure_csv(figure: Figure) -> str:
    """Write the data of a figure as CSV, one line per point, all digits kept.

    >>> line = Series("OPZO", [1, 2], [0.5, 0.25])
    >>> print(figure_csv(Figure("error", "Error", "", "epoch", "error", (line,))), end="")
    series,x,y
    OPZO,1,0.5
    OPZO,2,0.25
    """
    names = list(dict.fromkeys(name for one in figure.series for name in one.columns()))
    axes = {"x": figure.x_names, "y": figure.y_names}

    def shown(name: str, value: Any) -> Any:
        return axes[name][value] if axes.get(name) else value

    rows: list[list[object]] = [["series", *names]]
    for one in figure.series:
        columns = one.columns()
        for i in range(len(one.xs)):
            values = (shown(n, columns[n][i]) if n in columns else None for n in names)
            rows.append([one.label, *values])
    return csv_text(rows)
