"""The colours of figures, on light and on dark ground."""

from __future__ import annotations

import re

__all__ = ["DASHES", "INK", "LINE", "SERIES", "colour_variables", "follow_page", "on_paper"]

# Hues as far apart for colour-blind readers as Okabe and Ito's, but with a contrast of at least
# 3:1 to white; beside each the same hue for dark ground. Dashes tell them apart in print, too.
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
INK, LINE = "#24292f", "#d3d8de"
_INK_DARK, _LINE_DARK = "#e4e8ed", "#3b424b"


def _names() -> dict[str, str]:
    series = {colour: f"--series-{i}" for i, colour in enumerate(SERIES, start=1)}
    return {**series, INK: "--ink", LINE: "--line"}


def colour_variables(dark: bool) -> str:
    """Return the CSS declarations of all colours of figures, for one kind of ground."""
    colours = (*_SERIES_DARK, _INK_DARK, _LINE_DARK) if dark else (*SERIES, INK, LINE)
    return " ".join(f"{name}: {c};" for name, c in zip(_names().values(), colours, strict=True))


def on_paper(svg: str) -> str:
    """Give a figure a white ground of its own, for a file that may be shown on any."""
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return svg.replace("</desc>", f"</desc>\n {ground}", 1)


def follow_page(svg: str) -> str:
    """Let a figure that was drawn in the light colours take those of the page around it."""
    names = _names()
    pattern = re.compile("|".join(names), re.IGNORECASE)
    return pattern.sub(lambda found: f"var({names[found.group().lower()]})", svg)
