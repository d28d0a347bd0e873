"""What analyses return: frozen dataclasses of plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

__all__ = ["Record"]


class Record:
    """Base of results, each a frozen dataclass of numbers, strings, lists and dicts.

    Undefined numbers are None, never NaN: JSON has no NaN.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the result as nested plain values, ready for JSON."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]
