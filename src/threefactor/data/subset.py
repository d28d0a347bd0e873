"""The first samples of a data set, whatever its inputs are."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from threefactor.errors import InputError

__all__ = ["check_numbers"]


class _Labelled(Protocol):
    @property
    def train_labels(self) -> Tensor: ...
    @property
    def test_labels(self) -> Tensor: ...


def check_numbers(data: _Labelled, train: Any, test: Any) -> None:
    """Check that `train` and `test` are numbers of samples that `data` has, or None for all.

    Raises:
        InputError: a number is not between 1 and the number of samples there are.
    """
    _check_number("train", train, len(data.train_labels))
    _check_number("test", test, len(data.test_labels))


def _check_number(part: str, number: Any, available: int) -> None:
    if number is None:
        return
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= available:
        raise InputError(
            f"{part} is {number!r}; expected a whole number of samples from 1 to {available}, "
            "or None for all"
        )
