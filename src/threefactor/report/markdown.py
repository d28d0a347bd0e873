"""Any text as GitHub's Markdown that shows just this text."""

from __future__ import annotations

import re
from html import escape
from urllib.parse import quote

from threefactor.readable import readable

__all__ = ["address", "fenced", "in_line", "paragraph", "plain_html"]

# What starts or ends a link, emphasis, code, a formula, a cell or a tag; an underscore within a
# word does nothing.
_MARKS = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|(?<=\w):(?=//)|(?<=\bwww)\.", re.I)
_BLOCK = re.compile(r"([#>+=-]|\d+(?=[.)]\s))")


def in_line(text: str) -> str:
    r"""Return text for a heading, a cell or the middle of a line.

    >>> in_line("a|b <i>`c`</i> [d](e) test_loss")
    'a\\|b &lt;i>\\`c\\`&lt;/i> \\[d\\](e) test_loss'
    """
    shown = _MARKS.sub(r"\\\g<0>", _one_line(text))
    return re.sub(r"&(?=#?\w+;)", "&amp;", shown).replace("<", "&lt;")


def paragraph(text: str) -> str:
    r"""Return text for the beginning of a line.

    >>> paragraph("# no heading"), paragraph("1. no list")
    ('\\# no heading', '1\\. no list')
    """
    shown = in_line(text)
    found = _BLOCK.match(shown)
    if found is None:
        return shown
    place = found.end() if found[0].isdigit() else found.start()
    return f"{shown[:place]}\\{shown[place:]}"


def plain_html(text: str) -> str:
    """Return text for the inside of an HTML tag on one line."""
    return escape(_one_line(text))


def fenced(text: str) -> str:
    """Return text as a block of code, with a fence that the text does not contain."""
    shown = readable(text, keep="\n\t")
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{shown}\n{fence}"


def address(path: str) -> str:
    """Return a path as the target of a link.

    >>> address("my figures/a(1).svg")
    'my%20figures/a%281%29.svg'
    """
    return quote(path.encode(errors="surrogateescape"))


def _one_line(text: str) -> str:
    return readable(" ".join(text.split()))
