"""A sheet of samples of each class: pictures, or rasters of spikes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threefactor.data.own.survey import Example
from threefactor.errors import InputError
from threefactor.readable import readable
from threefactor.report.drawing import STYLE, load_matplotlib, save_picture

__all__ = ["draw_sheet"]

MOST_CLASSES = 20
SIDE = 1.3  # inches of a sample
DPI = 110


def draw_sheet(examples: Sequence[Example], path: str | Path) -> int:
    """Draw samples, a row for each class, into one picture.

    Args:
        examples: samples; those of one class follow one another.
        path: of the picture, whose ending says its format, as .png.

    Returns:
        The number of classes that are shown: 20 at most.

    Raises:
        CheckpointError: if the file cannot be written.
        ConfigurationError: if matplotlib is not installed.
        InputError: if there are no samples, or matplotlib does not write such files.
    """
    if not examples:
        raise InputError("there are no samples to show; see what `threefactor data check` says")
    matplotlib, place = load_matplotlib(), Path(path)
    known = matplotlib.figure.Figure().canvas.get_supported_filetypes()
    ending = place.suffix.lower().removeprefix(".")
    if ending not in known:
        raise InputError(
            f"the sheet is {place.name!r}; give a name that ends in .png, .svg or .pdf"
        )
    rows: dict[str, list[Example]] = {}
    for one in examples:
        rows.setdefault(one.label, []).append(one)
    shown = list(rows.items())[:MOST_CLASSES]
    columns = max(len(row) for _, row in shown)
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(
            (SIDE * columns + 0.8, SIDE * len(shown)), layout="constrained"
        )
        grid = figure.subplots(len(shown), columns, squeeze=False)
        for axes, (label, row) in zip(grid, shown, strict=True):
            for place_of, one in zip(axes, row, strict=False):
                _draw(place_of, one)
            for place_of in axes[len(row) :]:
                place_of.set_axis_off()
            axes[0].set_ylabel(readable(label)[:20])
        save_picture(figure, place, DPI)
    return len(shown)


def _draw(axes: Any, one: Example) -> None:
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    if one.picture is not None:
        axes.imshow(one.picture, cmap="gray" if one.picture.ndim == 2 else None, vmin=0, vmax=255)
    else:
        axes.plot(one.times, one.channels, ",", color="black")
        axes.set_box_aspect(1)
