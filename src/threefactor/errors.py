"""The errors that users see. Each says what was given, what was expected and what to do."""

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "DivergenceError",
    "InputError",
    "PlaceError",
    "ThreefactorError",
    "unknown_name",
]


class ThreefactorError(Exception):
    """Base of all errors raised on purpose. The command line prints it without a traceback."""

    exit_code = 1


class InputError(ThreefactorError, ValueError):
    """A tensor or argument that has no meaning here: shape, dtype, range, NaN."""


class PlaceError(InputError, IndexError):
    """An index beyond the samples that there are."""


class ConfigurationError(ThreefactorError, ValueError):
    """An unknown or invalid setting, rule, recipe or data set name."""

    exit_code = 2


class DataError(ThreefactorError):
    """A data file that is absent, corrupt or not what its checksum promises."""


class CheckpointError(ThreefactorError):
    """A run folder or checkpoint that cannot be used."""


class DivergenceError(ThreefactorError):
    """The loss became NaN or infinite."""


def unknown_name(kind: str, given: str, known: Iterable[str]) -> ConfigurationError:
    """Build the error for a name that is not known, with the nearest known one.

    >>> print(unknown_name("rule", "ozpo", ["dfa", "opzo"]))
    unknown rule 'ozpo'; did you mean 'opzo'? Known: dfa, opzo
    """
    names = sorted(known)
    close = [name for name in names if given.lower() in name]
    close = close or difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return ConfigurationError(f"unknown {kind} {given!r}{hint} Known: {', '.join(names)}")
