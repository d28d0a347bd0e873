"""The options of a class or function: what it takes by name, with types and defaults."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typing_extensions

from threefactor.errors import ConfigurationError, InputError, unknown_name

__all__ = [
    "NO_DEFAULT",
    "Option",
    "as_flag",
    "as_number",
    "in_range",
    "options_of",
    "refuse_unknown",
]

NO_DEFAULT: Any = inspect.Parameter.empty
"""Stands for the default of an option that has none."""
SMALLEST, LARGEST = 2.0**-126, 2.0**126
"""Between them single precision has numbers with all of their digits, and their double, too."""
_UNPACK = (typing_extensions.Unpack, getattr(typing, "Unpack", typing_extensions.Unpack))


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        type: as annotated; Any without an annotation that can be read.
        default: its value if it is not given, or `NO_DEFAULT`.
    """

    type: Any
    default: Any


def options_of(kind: Callable[..., Any]) -> dict[str, Option]:
    """Return what a function, or the constructor of a class, takes by name.

    `**options: Unpack[Group]`, with a TypedDict `Group`, stands for the options of the group, whose
    defaults are those of the class above. `**options` of any other type stands for all options of
    the class above, and `**unknown: Never` for none.

    Args:
        kind: any class or function.

    Returns:
        Options by name, those of the class above first.

    >>> from threefactor import clocked
    >>> options_of(clocked.DFA)["local_scale"]
    Option(type=<class 'float'>, default=0.01)
    >>> "noise_scale" in options_of(clocked.DFA)
    False
    """
    if isinstance(kind, type):
        return _options(kind.__mro__)
    return _named(inspect.signature(kind).parameters.values(), _types(kind))


def refuse_unknown(kind: type, given: Iterable[str]) -> None:
    """Refuse options that a class does not take, for its `__init__(..., **unknown: Never)`.

    Args:
        kind: the class.
        given: names of options.

    Raises:
        ConfigurationError: naming the first of them, and the options that there are.
    """
    for name in given:
        options = options_of(kind)
        if name in options:
            raise ConfigurationError(
                f"{kind.__name__} passes its own option {name!r} on to the class above, which does "
                "not take it; leave it out of super().__init__(...)"
            )
        known = [key for key, option in options.items() if option.default is not NO_DEFAULT]
        raise unknown_name(f"option of {kind.__name__}:", name, known)


def as_number(name: str, value: object) -> float:
    """Return an option as a float.

    Raises:
        InputError: if it is no number, such as a text; True and False are none.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} is {value!r:.80}, a {type(value).__name__}; give a number")
    return float(value)


def in_range(name: str, value: float) -> float:
    """Return a size, or refuse one that single precision would take for 0 or infinity.

    0, infinity and NaN themselves pass: whoever asks knows what they mean. Shares, such as a leak,
    may be as small as they like: for them 0 is nothing special.

    Raises:
        InputError: if it is too small or too large.
    """
    size = abs(value)
    if SMALLEST <= size <= LARGEST or size == 0.0 or not size < math.inf:
        return value
    raise InputError(
        f"{name} is {value:g}, which single precision takes for {0 if size < 1 else 'infinity'}; "
        f"give one between {SMALLEST:.2g} and {LARGEST:.2g} in size"
    )


def as_flag(name: str, value: object) -> bool:
    """Return an option that is True or False.

    Raises:
        InputError: if it is anything else, such as "no", which Python takes for True.
    """
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r:.80}; give True or False")
    return value


def _options(kinds: Sequence[type]) -> dict[str, Option]:
    place = next((i for i, kind in enumerate(kinds) if "__init__" in vars(kind)), None)
    if place is None or kinds[place] is object:
        return {}
    make = vars(kinds[place])["__init__"]
    types = _types(make)
    _self, *parameters = inspect.signature(make).parameters.values()
    own = _named(parameters, types)
    others = next((one for one in parameters if one.kind is one.VAR_KEYWORD), None)
    group = None if others is None else types.get(others.name)
    if others is None or group is typing_extensions.Never:
        return own
    above = _options(kinds[place + 1 :])
    if typing_extensions.get_origin(group) not in _UNPACK:
        return {**above, **own}
    passed_on = {
        name: Option(type_, above[name].default if name in above else NO_DEFAULT)
        for name, type_ in _types(typing_extensions.get_args(group)[0]).items()
    }
    return {**passed_on, **own}


def _named(parameters: Iterable[inspect.Parameter], types: Mapping[str, Any]) -> dict[str, Option]:
    return {
        one.name: Option(types.get(one.name, Any), one.default)
        for one in parameters
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }


def _types(annotated: Any) -> Mapping[str, Any]:
    """Return the types that annotations name; none if one of them cannot be read."""
    try:
        return _read_types(annotated)
    except (NameError, TypeError, AttributeError):
        return {}


@functools.lru_cache(maxsize=256)  # it keeps no exception: a name that is missing may come later
def _read_types(annotated: Any) -> Mapping[str, Any]:
    """Evaluate annotations, which takes much longer than all else that settings need."""
    types: Mapping[str, Any] = typing_extensions.get_type_hints(annotated)
    return types
