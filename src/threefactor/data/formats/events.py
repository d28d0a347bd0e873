"""Events of a camera as a structured array, checked when it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threefactor.data.arguments import check_whole
from threefactor.data.files.source import ADVICE
from threefactor.errors import DataError, InputError

__all__ = ["EVENT", "LARGEST_RECORDING", "Events", "check_sensor", "make_events"]

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.bool_)])
"""One event: column, row, microseconds, polarity (True is ON); field names as in Tonic."""

LARGEST_RECORDING = 512 << 20
"""Bytes that a recording may have, unpacked; the largest of the known sets has a tenth of it."""

Events = NDArray[np.void]
"""(N,) array of type `EVENT`, in the order of time."""


def check_sensor(size: object) -> None:
    """Refuse what is not the height and width of a sensor whose pixels `EVENT` can number.

    Raises:
        InputError: it is not such a value.
    """
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise InputError(f"sensor_size is {size!r}; give (height, width)")
    for name, value in zip(("height", "width"), size, strict=True):
        check_whole(f"{name} of the sensor", value, 1, 1 << 15)


def make_events(
    where: object,
    x: NDArray[Any],
    y: NDArray[Any],
    t: NDArray[Any],
    p: ArrayLike,
    *,
    sensor_size: tuple[int, int],
    offset: Callable[[int], int],
    sort: bool = False,
) -> Events:
    """Check events and put them into one array.

    Args:
        where: the file, for messages.
        x, y: (N,) column from the left, row from the top.
        t: (N,) microseconds.
        p: (N,) polarity, 1 for ON.
        sensor_size: (height, width).
        offset: gives the byte in the file at which the event of an index begins.
        sort: sort events that run backwards in time; otherwise they are an error.

    Returns:
        (N,) events of type `EVENT`.

    Raises:
        DataError: there are no events, or one lies outside the sensor or comes before the previous
            one; the message names the file, the event and its offset.
        InputError: `sensor_size` is not (height, width).
    """
    check_sensor(sensor_size)
    if not len(t):
        raise DataError(f"{where} holds no events; {ADVICE}")
    height, width = sensor_size
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    if outside.any():
        row = int(np.argmax(outside))
        raise DataError(
            f"{where}: event {row} at offset {offset(row)} lies at x = {x[row]}, y = {y[row]}, "
            f"outside the sensor; expected x from 0 to {width - 1}, y from 0 to {height - 1}; "
            f"{ADVICE}"
        )
    events = np.empty(len(t), dtype=EVENT)
    events["x"], events["y"], events["t"], events["p"] = x, y, t, p
    backwards = events["t"][1:] < events["t"][:-1]
    if backwards.any() and sort:
        return events[np.argsort(events["t"], kind="stable")]
    if backwards.any():
        row = int(np.argmax(backwards)) + 1
        raise DataError(
            f"{where}: event {row} at offset {offset(row)} comes at {t[row]} us, before the "
            f"previous one at {t[row - 1]} us; expected times that never run backwards; "
            f"{ADVICE}, or let the events be sorted with sort=True (in training: --set sort=true)"
        )
    return events
