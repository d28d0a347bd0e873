"""The errors that users see. Each says what was given, what was expected and what to do."""

import difflib
import sys
import warnings
from collections.abc import Iterable, Sequence

from threefactor.readable import clipped

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "DeviceError",
    "DivergenceError",
    "InputError",
    "PlaceError",
    "ProcessError",
    "ThreefactorError",
    "plain_letters",
    "unknown_name",
    "warn_user",
]


class ThreefactorError(Exception):
    """Base of all errors raised on purpose. The command line prints it without a traceback."""

    exit_code = 1
    said_elsewhere = False
    """Whether another process says so, too, and better alone."""


class InputError(ThreefactorError, ValueError):
    """A tensor or argument that has no meaning here: shape, dtype, range, NaN."""


class PlaceError(InputError, IndexError):
    """An index beyond the samples that there are."""


class DivergenceError(InputError):
    """Weights, potentials, errors or the loss became NaN or infinite."""


class ConfigurationError(ThreefactorError, ValueError):
    """An unknown or invalid setting, rule, recipe or data set name."""

    exit_code = 2


class DataError(ThreefactorError):
    """A data file that is absent, corrupt or not what its checksum promises."""


class CheckpointError(ThreefactorError):
    """A run folder or checkpoint that cannot be used."""


class DeviceError(ThreefactorError):
    """A GPU failed, or went away, while it computed."""


class ProcessError(ThreefactorError):
    """Processes that train together lost each other."""


def unknown_name(
    kind: str, given: object, known: Iterable[str], meant: str | None = None
) -> ConfigurationError:
    """Build the error for a name that is not known, with the nearest known one.

    Args:
        kind: what it is the name of.
        given: the name.
        known: the names that there are.
        meant: the one that was meant, where somebody knows better than by its letters.

    >>> print(unknown_name("rule", "ozpo", ["dfa", "opzo"]))
    unknown rule 'ozpo'; did you mean 'opzo'? Known: dfa, opzo
    >>> print(unknown_name("data set", "MNIST", ["emnist-balanced", "mnist"]))
    unknown data set 'MNIST'; did you mean 'mnist'? Known: emnist-balanced, mnist
    """
    names = sorted(known)
    close = meant or _nearest(str(given), names)
    hint = f"; did you mean {close!r}?" if close else "."
    return ConfigurationError(f"unknown {kind} {clipped(given)}{hint} Known: {', '.join(names)}")


def plain_letters(name: str) -> str:
    """Return a name without what people write in different ways: case, hyphens, blanks."""
    return "".join(letter for letter in name.casefold() if letter not in "-_ ")


def _nearest(given: str, names: Sequence[str]) -> str | None:
    """Return the name that differs least: in spelling, by what is missing, by its letters."""
    letters = plain_letters(given)
    spelled = {name: plain_letters(name) for name in names}
    for name, other in spelled.items():
        if other == letters:
            return name
    holding = [name for name, other in spelled.items() if len(letters) > 1 and letters in other]
    if holding:
        return min(holding, key=len)
    found = difflib.get_close_matches(letters[:100], spelled.values(), n=1, cutoff=0.5)
    return next((name for name, other in spelled.items() if other in found), None)


def warn_user(message: str) -> None:
    """Warn, and name the line that called this library, however many calls lie between."""
    between = (__name__.partition(".")[0], "contextlib", "torch")
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in between:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
