"""What analyses return: frozen dataclasses of plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

__all__ = ["Record", "rows"]


class Record:
    """Base of results, each a frozen dataclass of numbers, strings, lists and dicts.

    Undefined numbers are None, never NaN: JSON has no NaN.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the result as nested plain values, ready for JSON."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]


def rows(
    result: Mapping[Any, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Flatten a result into the rows of a table: one for each dict that holds plain values.

    Args:
        result: nested dicts and lists; the items of a list are numbered from 1.
        path: names of the dicts that lead to the result.

    Yields:
        The path of a dict, and its plain values by name.

    Example:
        >>> list(rows({"layers": {"lif1": {"rate": 0.1}}, "samples": 5}))
        [((), {'samples': 5}), (('layers', 'lif1'), {'rate': 0.1})]
    """
    own = {str(key): value for key, value in result.items() if not isinstance(value, (dict, list))}
    if own:
        yield path, own
    for key, value in result.items():
        if isinstance(value, list):
            yield from rows(dict(enumerate(value, start=1)), (*path, str(key)))
        elif isinstance(value, dict):
            yield from rows(value, (*path, str(key)))
