"""Where the commands print: results to standard output, errors to standard error."""

from __future__ import annotations

import codecs
import errno
import functools
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from threefactor.readable import readable

__all__ = ["NOBODY_READS", "console", "fail", "flush", "prepare", "remark", "say", "show"]

NOBODY_READS = 128 + 13
"""Exit code once the reader of the output has gone, as `head` does: that of a broken pipe."""

_AS_IT_IS = {"markup": False, "emoji": False, "highlight": False}  # brackets are brackets

_WIDEST = 100_000  # columns; of a table in a file, which has no edge


@functools.cache
def console() -> Console:
    """Return the console of this command, as wide as the terminal was when the command began."""
    return Console(**_AS_IT_IS)  # type: ignore[arg-type]


def say(text: str) -> None:
    """Print lines of text as they are, however long."""
    console().print(Text(readable(text, keep="\n\t")), soft_wrap=True)


def remark(text: str) -> None:
    """Print a line that is no result, to standard error."""
    Console(stderr=True, **_AS_IT_IS).print(Text(readable(text)), soft_wrap=True)  # type: ignore[arg-type]


def fail(message: str) -> None:
    """Print an error as plain text, whatever brackets it contains."""
    text = Text(readable(f"error: {message}", keep="\n\t"), style="red")
    Console(stderr=True).print(text, soft_wrap=True)


def show(table: Table) -> None:
    """Print a table with nothing cut off, whatever the width.

    In a file or pipe it is as wide as it needs. On a terminal that is too narrow for its words,
    each row becomes a few lines.
    """
    for column in table.columns:
        column.overflow = "fold"
    here = console()
    options = here.options.update(max_width=_WIDEST)
    needed = Measurement.get(here, options, table)
    if not here.is_terminal:
        Console(width=needed.maximum, **_AS_IT_IS).print(table)  # type: ignore[arg-type]
    elif needed.minimum <= here.width:
        here.print(table)
    else:
        _show_rows(table)


def _show_rows(table: Table) -> None:
    if table.title:
        say(str(table.title))
    for first, *others in zip(*(list(column.cells) for column in table.columns), strict=True):
        say(str(first))
        for column, cell in zip(table.columns[1:], others, strict=True):
            if str(cell):
                say(f"  {column.header}: {cell}".replace("\n", "\n    "))
    if table.caption:
        say(str(table.caption))


def prepare() -> None:
    """Make the standard streams such that no text is an error, and a reader may go away.

    The console is made anew: what the environment says about it counts at the start of a command
    and not when this module was imported, perhaps by a program that runs several commands.
    """
    console.cache_clear()
    _fill_closed_streams()
    codecs.register_error(_plain.__name__, _plain)
    sys.stdout = _prepared(sys.stdout)
    sys.stderr = _prepared(sys.stderr)


def flush() -> None:
    """Write what is left to standard output, while an error of that can still be told."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _fill_closed_streams() -> None:
    """Give closed standard streams a number, which else the next file would get."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _prepared(stream: TextIO) -> TextIO:
    if type(stream) is io.TextIOWrapper:
        return _Output(stream)
    if isinstance(stream, io.TextIOWrapper):  # of somebody who listens in this process
        stream.reconfigure(errors=_plain.__name__)
    return stream


class _Output(io.TextIOWrapper):
    """A standard stream whose reader may go away, which ends the command without a word."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        stream.flush()
        self._replaced = stream  # which would close the file, were it forgotten
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors=_plain.__name__,
            line_buffering=stream.line_buffering,
        )

    def write(self, text: str) -> int:
        with self._watched():
            return super().write(text)

    def flush(self) -> None:
        with self._watched():
            super().flush()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # what is left must not fail again
            os.close(nowhere)
            if problem.errno == errno.EPIPE:
                raise SystemExit(NOBODY_READS) from None
            problem.filename = "the output"
            raise


_SIMPLER = {
    **dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}\N{EM DASH}\N{HORIZONTAL BAR}\u2010\u2011", "-"),
    **dict.fromkeys("\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}", "'"),
    **dict.fromkeys("\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}", '"'),
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{BULLET}": "*",
    "\N{MIDDLE DOT}": "*",
    "\N{DEGREE SIGN}": " degrees",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{LEFTWARDS ARROW}": "<-",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{LATIN SMALL LETTER SHARP S}": "ss",
}


def _plain(problem: UnicodeError) -> tuple[str, int]:
    """Write in plain letters what a terminal does not have."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    part = problem.object[problem.start : problem.end]
    return "".join(map(_simpler, part)), problem.end


def _simpler(letter: str) -> str:
    if letter in _SIMPLER:
        return _SIMPLER[letter]
    name = unicodedata.name(letter, "")
    if name.startswith("BOX DRAWINGS"):
        flat, upright = "HORIZONTAL" in name, "VERTICAL" in name
        return "-" if flat and not upright else "|" if upright and not flat else "+"
    if name.startswith("BRAILLE PATTERN"):  # the wheel that turns while something is done
        return "*"
    written = readable(letter)
    base = unicodedata.normalize("NFKD", written).encode("ascii", "ignore").decode()
    return base or letter.encode("ascii", "backslashreplace").decode()
