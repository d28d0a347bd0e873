"""Text from anywhere, such as the names of folders, so that it can be shown."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["clipped", "readable"]

# Control characters, marks that turn the direction of writing, ends of lines, halves of characters
# (which is what becomes of bytes in a file's name that are not UTF-8), and what XML does not allow.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_LONGEST = 200


def readable(text: str, keep: str = "") -> str:
    r"""Write out characters that cannot be seen or shown, as Python would.

    Args:
        text: any text.
        keep: characters that are left as they are, such as the end of a line.

    >>> print(readable("red\x1b[31m\nname"))
    red\x1b[31m\nname
    """

    def written(found: re.Match[str]) -> str:
        letter, number = found[0], ord(found[0])
        if letter in keep:
            return letter
        if 0xDC80 <= number <= 0xDCFF:  # a byte of a file's name
            return f"\\x{number - 0xDC00:02x}"
        return letter.encode("unicode_escape").decode()

    return _HIDDEN.sub(written, text)


def clipped(value: Any) -> str:
    """Return what was given, for a message; of a long value only its beginning.

    >>> clipped("a" * 1000)[-20:]
    'aa... (1002 letters)'
    """
    try:
        text = repr(value)
    except (RecursionError, ValueError) as problem:  # nested too deeply, or too many digits
        return f"a {type(value).__name__} ({problem})"
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}... ({len(text)} letters)"
