"""Several figures as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from threefactor.report.drawing import HEIGHT, STYLE, WIDTH, draw, matplotlib
from threefactor.report.figures import Figure

__all__ = ["draw_picture"]


def draw_picture(rows: Mapping[str, Sequence[Figure]], path: Path) -> None:
    """Draw rows of figures into one file.

    Args:
        rows: figures side by side, equally many in each row, by the row's title.
        path: the picture to write; its suffix (.png, .svg, .pdf) gives the format.

    Raises:
        ConfigurationError: if matplotlib is not installed.
    """
    library = matplotlib()
    columns = max(map(len, rows.values()))
    with library.rc_context(STYLE):
        size = (WIDTH * columns, (HEIGHT + 0.5) * len(rows))
        canvas = library.figure.Figure(figsize=size, layout="constrained")
        parts = canvas.subfigures(len(rows), 1, squeeze=False)[:, 0]
        for part, (title, figures) in zip(parts, rows.items(), strict=True):
            part.suptitle(title)
            axes = part.subplots(1, columns, squeeze=False)[0]
            for figure, axis in zip(figures, axes, strict=True):
                draw(figure, axis)
        canvas.savefig(path, dpi=150)
