"""Figures drawn with Matplotlib: as SVG in the colours of a page or of paper, or as one picture."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from threefactor.errors import ConfigurationError, InputError
from threefactor.readable import readable
from threefactor.report.figures import Figure, Series
from threefactor.report.names import slug
from threefactor.training.folder.files import write_atomically

__all__ = [
    "STYLE",
    "colour_variables",
    "draw",
    "draw_picture",
    "draw_side_by_side",
    "follow_page",
    "load_matplotlib",
    "on_paper",
    "svg",
]

# For colour-blind readers these hues are as far apart as those of Okabe and Ito, and they have a
# contrast of at least 3:1 to white. Each has a counterpart for dark ground. Dashes help in print.
SERIES = ("#0b6bab", "#c64f00", "#067d59", "#a53c89", "#866000", "#3a89ba", "#5d6472", "#8f2d2d")
_SERIES_DARK = (
    "#5bb0ea",
    "#ff9552",
    "#3ecb9f",
    "#e693cb",
    "#e3b341",
    "#9ad2f5",
    "#aab1be",
    "#ef8f8f",
)
DASHES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)), ":", (0, (3, 3)))
MARKERS = "os^Dv*PX"
INK, LINE = "#24292f", "#d3d8de"
_INK_DARK, _LINE_DARK = "#e4e8ed", "#3b424b"

STYLE = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
    "font.size": 10,
    "font.sans-serif": ["DejaVu Sans"],  # comes with Matplotlib; its letters are wide
    "text.parse_math": False,  # a dollar in a name is a dollar
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.columnspacing": 1.4,
    "legend.fontsize": 9.5,
    "legend.handletextpad": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
USUAL_LINES = 6  # of a legend, that all figures have room for
LINE_HEIGHT = 0.19  # inches, for each line more
USUAL_CELLS, CELL_HEIGHT = 10, 0.25  # rows of cells that all figures have room for
USUAL_BANDS, BAND_HEIGHT = 3, 0.8  # the same of layers in a raster
LEGEND_LETTERS = 58  # beside the widest numbers along the axis
WIDE = 1000  # a logarithmic axis over more than this has room for powers of ten alone
LONGEST_LABEL = 44  # letters of a line
LONGEST_TEXT, LONGEST_PLACE = 200, 40  # letters of a label, of a group of bars
FEW = 4  # points that are marked
SHADED = ("heatmap", "cells", "parallel", "pictures")  # colours stand for numbers: with a bar
MOST_NUMBERS, MOST_USUAL = 12, 8  # cells side by side with a number in each; of the usual size
FEW_POINTS, SMALL = 300, 2.5  # of a series, whose points are of the usual size; that of more
MOST_STROKES, MOST_MARKERS = 400, 4000  # spikes of a layer that are strokes; that are no pixels
WIDTH, HEIGHT = 5.2, 3.4  # inches: legible on a phone, where the page scales it to fit


def svg(figure: Figure) -> str:
    """Draw a figure. The same figure gives the same text.

    Args:
        figure: what to show.

    Returns:
        An SVG document with a view box, a title and a description, in the light colours.

    Raises:
        ConfigurationError: if matplotlib is not installed.
        InputError: if the points of a heatmap are not a complete grid.
    """
    library = load_matplotlib()
    figure = _shown(figure)
    panels = len(figure.series) if figure.kind in ("heatmap", "quiver") else 1
    with library.rc_context({**STYLE, "svg.hashsalt": figure.name}), warnings.catch_warnings():
        # Text stays text, and whoever shows it has the letters.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        size = (WIDTH, HEIGHT + _room_for_legend(figure))
        canvas = library.figure.Figure(figsize=size, layout="constrained")
        axes = canvas.subplots(1, panels, squeeze=False, sharey=True)[0]
        if panels == 1:
            _draw(figure, axes[0])
        else:
            for one, axis in zip(figure.series, axes, strict=True):
                _panel(figure, one, axis)
                axis.set(title=one.label, ylabel="")
            axes[0].set_ylabel(figure.y_label)
        if figure.kind in SHADED:
            canvas.colorbar(axes[-1].collections[0], ax=list(axes))
        stream = io.StringIO()
        canvas.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return _accessible(stream.getvalue(), figure)


def save_picture(canvas: Any, path: Path, dpi: int) -> None:
    """Write a figure of Matplotlib, whole or not at all.

    Args:
        canvas: the figure.
        path: its suffix gives the format.
        dpi: dots per inch of pictures that have any.

    Raises:
        CheckpointError: if it cannot be written.
    """
    content = io.BytesIO()
    canvas.savefig(content, dpi=dpi, format=path.suffix.lower().removeprefix("."))
    write_atomically(path, content.getvalue())


def draw_picture(rows: Mapping[str, Sequence[Figure]], path: Path) -> None:
    """Draw rows of figures into one file.

    Args:
        rows: figures side by side, equally many in each row, by the row's title.
        path: the picture to write; its suffix (.png, .svg, .pdf) gives the format.

    Raises:
        CheckpointError: if it cannot be written.
        ConfigurationError: if matplotlib is not installed.
    """
    library = load_matplotlib()
    columns = max(map(len, rows.values()))
    with library.rc_context(STYLE):
        size = (WIDTH * columns, (HEIGHT + 0.5) * len(rows))
        canvas = library.figure.Figure(figsize=size, layout="constrained")
        parts = canvas.subfigures(len(rows), 1, squeeze=False)[:, 0]
        for part, (title, figures) in zip(parts, rows.items(), strict=True):
            part.suptitle(title)
            axes = part.subplots(1, columns, squeeze=False)[0]
            for figure, axis in zip(figures, axes, strict=True):
                _draw(figure, axis)
        save_picture(canvas, path, 150)


def draw_side_by_side(figures: Sequence[Figure], path: Path) -> None:
    """Draw figures with their titles into one file, two in a row.

    Args:
        figures: at least one.
        path: as for `draw_picture`.

    Raises:
        CheckpointError: if it cannot be written.
        ConfigurationError: if matplotlib is not installed.
    """
    library = load_matplotlib()
    lines = -(-len(figures) // 2)
    with library.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        size = (2 * WIDTH, (HEIGHT + 0.6) * lines)
        canvas = library.figure.Figure(figsize=size, layout="constrained")
        parts = canvas.subfigures(lines, 2, squeeze=False).flat
        for figure, part in zip(map(_shown, figures), parts, strict=False):
            part.suptitle(textwrap.fill(figure.title, LONGEST_LABEL))
            axis = part.subplots()
            _draw(figure, axis)
            if figure.kind in SHADED:
                part.colorbar(axis.collections[0], ax=axis)
        save_picture(canvas, path, 150)


def draw(figure: Figure, axis: Any) -> None:
    """Draw a figure onto axes of one's own, with its legend above them; heatmaps of one series.

    Args:
        figure: what to show.
        axis: of Matplotlib, with the style that it has.

    Raises:
        ConfigurationError: if matplotlib is not installed.
        InputError: if the points of a heatmap are not a complete grid.
    """
    _draw(_shown(figure), axis)


def colour_variables(dark: bool) -> str:
    """Return the CSS declarations of all colours of figures, for light or dark ground."""
    colours = (*_SERIES_DARK, _INK_DARK, _LINE_DARK) if dark else (*SERIES, INK, LINE)
    return " ".join(f"{name}: {c};" for name, c in zip(_variables().values(), colours, strict=True))


def on_paper(svg: str) -> str:
    """Give a figure a white ground, for a file that may be shown on any ground."""
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return svg.replace("</desc>", f"</desc>\n {ground}", 1)


def follow_page(svg: str) -> str:
    """Replace the colours of a figure by CSS variables of the page around it."""
    names = _variables()
    pattern = re.compile("|".join(names), re.IGNORECASE)
    return pattern.sub(lambda found: f"var({names[found.group().lower()]})", svg)


def load_matplotlib() -> Any:
    """Import Matplotlib.

    Raises:
        ConfigurationError: if it is not installed.
    """
    try:
        import matplotlib.collections
        import matplotlib.figure
        import matplotlib.ticker
    except ImportError as problem:
        raise ConfigurationError(
            "drawing needs matplotlib; install it with: pip install 'threefactor[report]'"
        ) from problem
    return matplotlib


def _variables() -> dict[str, str]:
    series = {colour: f"--series-{i}" for i, colour in enumerate(SERIES, start=1)}
    return {**series, INK: "--ink", LINE: "--line"}


def _shown(figure: Figure) -> Figure:
    """Return a figure with a name that is valid in XML and texts that can be shown."""
    series = (replace(one, label=_short(one.label)) for one in figure.series)
    return replace(
        figure,
        name=slug(figure.name),
        title=readable(figure.title),
        caption=readable(figure.caption),
        x_label=_short(figure.x_label),
        y_label=_short(figure.y_label),
        series=tuple(series),
    )


def _short(text: str, longest: int = LONGEST_TEXT) -> str:
    shown = readable(text)
    return shown if len(shown) <= longest else f"{shown[:longest]}..."


def _draw(figure: Figure, axis: Any) -> None:
    """Draw a figure of one panel onto axes, with its legend above them."""
    if figure.kind in ("heatmap", "cells", "quiver"):
        _panel(figure, figure.series[0], axis)
        return
    axis.set(xlabel=figure.x_label, ylabel=figure.y_label)
    if figure.kind in OTHERS:
        OTHERS[figure.kind](figure, axis)
        return
    handles = _bars(figure, axis) if figure.kind == "bar" else _lines(figure, axis)
    _scales(figure, axis)
    if len(figure.series) > 1:
        labels, columns = _legend([one.label for one in figure.series])
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
        axis.legend(handles, labels, ncols=columns, borderaxespad=0.2, **place)


def _legend(labels: Sequence[str]) -> tuple[list[str], int]:
    """Return the labels broken into lines, and the number of columns."""
    broken = [textwrap.fill(label, LONGEST_LABEL) for label in labels]
    columns = _legend_columns([line for label in broken for line in label.split("\n")])
    return broken, min(columns, len(broken))


def _room_for_legend(figure: Figure) -> float:
    """Return how many inches a figure needs in addition for a long legend."""
    if figure.kind == "cells":
        return CELL_HEIGHT * max(0, len(figure.y_names) - USUAL_CELLS)
    if figure.kind == "raster":
        return BAND_HEIGHT * max(0, len(figure.series) - USUAL_BANDS)
    if figure.kind in ("heatmap", "parallel", "pictures", "quiver") or len(figure.series) < 2:
        return 0.0
    labels, columns = _legend([one.label for one in figure.series])
    rows = [labels[i : i + columns] for i in range(0, len(labels), columns)]
    lines = sum(max(label.count("\n") + 1 for label in row) for row in rows)
    return LINE_HEIGHT * max(0, lines - USUAL_LINES)


def _legend_columns(labels: Sequence[str]) -> int:
    """Return how many entries fit side by side."""
    return max(1, min(len(labels), LEGEND_LETTERS // (max(map(len, labels)) + 6)))


def _lines(figure: Figure, axis: Any) -> list[Any]:
    """Draw the series; return their handles for the legend."""
    handles = []
    for i, one in enumerate(figure.series):
        colour, dash = SERIES[i % len(SERIES)], DASHES[i % len(DASHES)]
        ys = np.asarray(one.ys, dtype=float)  # gaps become NaN
        marker = "o" if _has_lone_points(ys) else ""
        if figure.kind == "points":
            dash, marker = "none", MARKERS[i % len(MARKERS)]
        size = SMALL if len(ys) > FEW_POINTS and figure.kind == "points" else None
        look = {"color": colour, "linestyle": dash, "marker": marker, "markersize": size}
        handles += axis.plot(one.xs, ys, **look)
        if one.marked is not None:
            marks = np.flatnonzero(one.marked)
            xs = np.asarray(one.xs)[marks]
            axis.plot(xs, ys[marks], color=colour, linestyle="none", marker="o", markersize=4.5)
        if one.error is not None:
            error = np.asarray(one.error, dtype=float)
            # A mean minus its deviation may have no logarithm.
            low = np.maximum(ys - error, ys / 10) if figure.log_y else ys - error
            axis.fill_between(one.xs, low, ys + error, color=colour, alpha=0.18, linewidth=0)
    if figure.from_zero:
        axis.set_ylim(bottom=0)
    places = {x for one in figure.series for x in one.xs if not isinstance(x, str)}
    if len(places) == 1:  # Matplotlib would show a tenth of an epoch
        axis.set_xlim(min(places) - 1, min(places) + 1)
    return handles


def _has_lone_points(ys: Any) -> bool:
    """Whether a line would not show all points: it has few, or some lie between two gaps."""
    there = np.pad(np.isfinite(ys), 1)
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    return len(ys) <= FEW or bool(alone.any())


def _bars(figure: Figure, axis: Any) -> list[Any]:
    handles = []
    groups = list(dict.fromkeys(x for one in figure.series for x in one.xs))
    width = 0.8 / len(figure.series)
    for i, one in enumerate(figure.series):
        places = [groups.index(x) + (i + 0.5) * width - 0.4 for x in one.xs]
        colour = SERIES[i % len(SERIES)]
        error = None if one.error is None else np.asarray(one.error, dtype=float)
        bars = axis.bar(places, one.ys, width * 0.9, yerr=error, color=colour, ecolor=INK)
        handles.append(bars)
    axis.set_xticks(range(len(groups)), [_short(str(one), LONGEST_PLACE) for one in groups])
    axis.grid(False, axis="x")
    return handles


def _scales(figure: Figure, axis: Any) -> None:
    ticker = load_matplotlib().ticker
    if all(isinstance(x, int) for one in figure.series for x in one.xs):
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    for wanted, name, one in (
        (figure.log_x, "x", axis.xaxis),
        (figure.log_y, "y", axis.yaxis),
    ):
        if wanted:
            axis.set(**{f"{name}scale": "log"})
            low, high = one.get_view_interval()
            few = high < WIDE * low
            one.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if few else (1,), numticks=12))
            one.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
            one.set_minor_formatter(ticker.NullFormatter())


def _panel(figure: Figure, one: Series, axis: Any) -> None:
    axis.set(xlabel=figure.x_label, ylabel=figure.y_label)
    if figure.kind == "quiver":
        axis.quiver(one.xs, one.ys, one.us, one.vs, color=SERIES[0], angles="xy")
        return
    if figure.kind == "cells":
        _cells(figure, one, axis)
        return
    every = [value for other in figure.series for value in other.values or ()]
    _heatmap(one, axis, min(every), max(every))


def _heatmap(one: Series, axis: Any, low: float, high: float) -> None:
    xs, columns = np.unique(np.asarray(one.xs), return_inverse=True)
    ys, rows = np.unique(np.asarray(one.ys), return_inverse=True)
    if len({*zip(rows.tolist(), columns.tolist(), strict=True)}) != len(xs) * len(ys):
        raise InputError(
            f"heatmap {one.label!r} has {len(one.xs)} points; give each of the "
            f"{len(xs)} x {len(ys)} of its grid"
        )
    grid = np.empty((len(ys), len(xs)))
    grid[rows, columns] = one.values
    axis.pcolormesh(xs, ys, grid, vmin=low, vmax=high, shading="nearest", rasterized=True)
    axis.grid(False)


def _cells(figure: Figure, one: Series, axis: Any) -> None:
    """Draw named cells with their numbers; cells that are absent stay empty."""
    grid = np.full((len(figure.y_names), len(figure.x_names)), np.nan)
    grid[np.asarray(one.ys, dtype=int), np.asarray(one.xs, dtype=int)] = one.values
    mesh = axis.pcolormesh(grid, rasterized=True)
    few = len(figure.x_names) <= MOST_NUMBERS
    for (row, column), value in np.ndenumerate(grid):
        if few and np.isfinite(value):
            red, green, blue, _ = mesh.cmap(mesh.norm(value))
            colour = "#ffffff" if 0.3 * red + 0.6 * green + 0.1 * blue < 0.5 else "#000000"
            size = None if len(figure.x_names) <= MOST_USUAL else 7.5
            place = {"ha": "center", "va": "center", "fontsize": size}
            text = f"{value:.0f}" if value.is_integer() else f"{value:.4g}"  # a count is exact
            axis.text(column + 0.5, row + 0.5, text, color=colour, **place)
    for side, names in ((axis.xaxis, figure.x_names), (axis.yaxis, figure.y_names)):
        shown = [_short(name, LONGEST_PLACE) for name in names]
        side.set_ticks([place + 0.5 for place in range(len(names))], shown)
    if sum(len(name) + 2 for name in figure.x_names) > LEGEND_LETTERS:
        axis.tick_params("x", rotation=90)
    axis.grid(False)


def _raster(figure: Figure, axis: Any) -> None:
    """Draw a band of the same height for each layer, whatever its number of neurons."""
    for i, one in enumerate(figure.series):
        heights = i + 0.04 + 0.92 * (np.asarray(one.ys, dtype=float) + 0.5) / (one.size or 1)
        colour = SERIES[i % len(SERIES)]
        # Strokes would cover each other where they are many.
        marker, size = ("|", 5) if len(one.xs) <= MOST_STROKES else (".", 2)
        look = {"marker": marker, "markersize": size, "rasterized": len(one.xs) > MOST_MARKERS}
        axis.plot(one.xs, heights, color=colour, linestyle="none", **look)
        if not len(one.xs):
            place = {"transform": axis.get_yaxis_transform(), "ha": "center", "va": "center"}
            axis.text(0.5, i + 0.5, "no spikes", color=INK, **place)
        if i:
            axis.axhline(i, color=LINE, linewidth=0.8)
    names = [f"{one.label}\n({one.size:,})" for one in figure.series]
    axis.set_yticks([i + 0.5 for i in range(len(names))], names)
    axis.set_ylim(0, len(names))
    axis.grid(False, axis="y")
    if figure.x_range is not None:
        axis.set_xlim(*figure.x_range)


def _pictures(figure: Figure, axis: Any) -> None:
    """Draw pictures beside each other in one scale, with a gap between them."""
    tiles = []
    for one in figure.series:
        columns, rows = np.asarray(one.xs, dtype=int), np.asarray(one.ys, dtype=int)
        tile = np.full((int(rows.max()) + 1, int(columns.max()) + 1), np.nan)
        tile[rows, columns] = one.values
        tiles.append(tile)
    high, wide = (max(tile.shape[side] for tile in tiles) + 1 for side in (0, 1))
    lines = -(-len(tiles) // figure.columns)
    whole = np.full((lines * high - 1, figure.columns * wide - 1), np.nan)
    for i, tile in enumerate(tiles):
        top, left = (i // figure.columns) * high, (i % figure.columns) * wide
        whole[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    most = float(np.nanmax(np.abs(whole))) or 1.0
    axis.pcolormesh(whole, cmap="RdBu_r", vmin=-most, vmax=most, rasterized=True)
    axis.invert_yaxis()
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)


def _parallel(figure: Figure, axis: Any) -> None:
    """Draw a line for each series from axis to axis, and the texts of the places beside these."""
    library = load_matplotlib()
    names = [str(name) for name in figure.series[0].xs]
    lines = [list(enumerate(one.ys)) for one in figure.series]
    bundle = library.collections.LineCollection(lines, linewidths=1.2, alpha=0.8)
    bundle.set_array(np.array([(one.values or (0.0,))[0] for one in figure.series]))
    axis.add_collection(bundle)
    ground = {"facecolor": "#ffffff", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    for i, ticks in enumerate(figure.ticks):
        axis.axvline(i, color=INK, linewidth=0.8)
        last = i == len(names) - 1
        for place, text in ticks:
            side = {"ha": "right" if last else "left", "va": "center", "fontsize": 8.5}
            axis.text(
                i + (-0.05 if last else 0.05),
                place,
                _short(text, LONGEST_PLACE // 2),
                color="#000000",
                bbox=ground,
                **side,
            )
    shown = [textwrap.fill(_short(name, LONGEST_PLACE), 12) for name in names]
    axis.set_xticks(range(len(names)), shown)
    axis.set(xlim=(-0.1, len(names) - 0.9), ylim=(-0.06, 1.06), yticks=[])
    axis.grid(False)


OTHERS = {"parallel": _parallel, "pictures": _pictures, "raster": _raster}
"""What draws figures that are neither lines, bars nor panels."""


def _accessible(document: str, figure: Figure) -> str:
    """Give the picture a title and description for screen readers, and ids unique on a page."""
    text = re.sub(r"<metadata>.*?</metadata>", "", document[document.index("<svg") :], flags=re.S)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda id_: id_.group() if id_[1] in used else "", text)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{figure.name}-", text)
    head, rest = text.split(">", 1)
    names = f'role="img" aria-labelledby="{figure.name}-title {figure.name}-description"'
    title = f'<title id="{figure.name}-title">{escape(figure.title)}</title>'
    caption = f'<desc id="{figure.name}-description">{escape(figure.caption)}</desc>'
    return f"{head} {names}>\n {title}\n {caption}{rest}"
