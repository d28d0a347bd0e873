"""Options of rules, optimisers and registered parts: checked against their declared types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from threefactor import clocked
from threefactor.errors import ConfigurationError, unknown_name
from threefactor.options import Option
from threefactor.readable import clipped

__all__ = ["checked_arguments", "checked_value", "plain_defaults"]

_EXACT = ConfigDict(strict=True, arbitrary_types_allowed=True)  # the string "no" is not a bool


def plain_defaults(options: Mapping[str, Option]) -> dict[str, Any]:
    """Return options with their defaults, as values of config.json.

    Options without a default are left out, and those whose default cannot stand there.
    """
    found = {key: _plain(one.default) for key, one in options.items()}
    return {key: value for key, value in found.items() if _is_plain(value)}


def checked_arguments(
    what: str, given: Mapping[str, Any], known: Mapping[str, Option]
) -> dict[str, Any]:
    """Return options once their names and types are checked.

    Args:
        what: the rule, network or other part, for the error.
        given: as in the settings.
        known: what the part takes.

    Raises:
        ConfigurationError: names the option, what was given and what is expected.
    """
    for key in given:
        if key not in known:
            raise unknown_name(f"option of {what}:", key, known)
    return {k: checked_value(what, k, value, known[k].type) for k, value in given.items()}


def checked_value(what: str, key: str, value: Any, kind: Any) -> Any:
    """Return the value of an option if it has the declared type; a list may stand for a tuple.

    Args:
        what: the rule, optimiser or scheduler, for the error.
        key: name of the option.
        value: as given.
        kind: the declared type. A value of a type that cannot be checked is returned as it is.

    Raises:
        ConfigurationError: names what was given and what is expected.
    """
    for candidate in (value, tuple(value) if isinstance(value, list) else value):
        try:
            TypeAdapter(kind, config=_EXACT).validate_python(candidate)
        except ValidationError as problem:
            errors = problem.errors()
        except Exception:  # such as a type that pydantic has no schema for
            return value
        else:
            return candidate
    why = "; ".join(dict.fromkeys(error["msg"].lower() for error in errors))
    raise ConfigurationError(f"{key} is {clipped(value)}; {what} does not take that ({why})")


def _plain(value: Any) -> Any:
    """Return a default as config.json gives it back."""
    if isinstance(value, clocked.LinearSchedule):
        return [value.start, value.end]
    return list(value) if isinstance(value, tuple) else value


def _is_plain(value: Any) -> bool:
    """Whether a value can stand in config.json."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
