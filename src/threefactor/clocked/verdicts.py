"""Checks of values on a device: asked one by one on a CPU, and all at once elsewhere.

To ask a GPU for a value makes the CPU wait until all work before it is done. Within a step such
answers are gathered on the device, and read once, before anything that was learned is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor

from threefactor.errors import DivergenceError

__all__ = ["finite", "gathered", "gathering", "held", "judge", "read", "refuse_tensor"]

Complain = Callable[[], None]


class Waiting(list[tuple[Tensor, Complain]]):
    """Verdicts that nobody has read yet."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[object, tuple[Tensor, Complain]] = {}
        """Values that have to be finite; the last of each kind."""
        self.nbytes = 0
        """Of such values that are kept, for a complaint to look at."""


_NOTHING = nullcontext()
"""Made once: a step of a small network takes less than a millisecond."""
_gathering: ContextVar[Waiting | None] = ContextVar("verdicts", default=None)
_held: ContextVar[Waiting | None] = ContextVar("held", default=None)


def gathered(device: torch.device) -> AbstractContextManager[None]:
    """Gather the verdicts within, and read them at the end; on a CPU they are asked at once.

    After another error they are void.
    """
    if device.type == "cpu" and _gathering.get() is None:
        return _NOTHING
    return _gathered(device)


@contextmanager
def _gathered(device: torch.device) -> Iterator[None]:
    token = _gathering.set(None if device.type == "cpu" else Waiting())
    try:
        yield
        read()
    finally:
        _gathering.reset(token)


def gathering() -> bool:
    """Whether verdicts are gathered now."""
    return _gathering.get() is not None


def judge(sound: Tensor, complain: Complain) -> None:
    """Complain about values, at once or when the verdicts are read.

    Args:
        sound: a bool, on the device of the values; whether there is nothing to complain about.
        complain: looks at the values closely, and raises if they are bad.
    """
    waiting = _gathering.get()
    if sound.is_cpu or waiting is None:
        if not sound:
            complain()
        return
    waiting.append((sound, complain))


def finite(kind: object, values: Tensor, complain: Complain) -> None:
    """Complain about NaN and infinity.

    On a CPU, at once. Elsewhere the values of a kind take the place of those that wait, so that all
    time steps of a call cost one look: what makes them NaN stays, and so they are in the last.

    Args:
        kind: what the values are; the same in every time step.
        values: any shape.
        complain: looks at the values closely, and raises if they are bad.
    """
    waiting = _gathering.get()
    if not values.is_cpu and waiting is not None:
        waiting.values[kind] = values, complain
    # The sum is quick, and finite unless a value is not, or the sum itself overflows.
    elif not math.isfinite(values.sum().item()):
        complain()


def refuse_tensor(name: str, values: Tensor, *, infinite: bool = False) -> None:
    """Refuse a parameter or buffer that holds NaN or, if it may not be `infinite`, infinity.

    Raises:
        DivergenceError: naming it.
    """
    bad = int((values.isnan() if infinite else ~torch.isfinite(values)).sum())
    if bad:
        raise DivergenceError(
            f"{name} holds NaN or infinity ({bad} of {values.numel()} values); load or give "
            "others, or lower the learning rate, if learning made them so"
        )


@contextmanager
def held() -> Iterator[Waiting]:
    """Let nobody read the verdicts within; return them, for the caller to read later."""
    verdicts = Waiting()
    token = _held.set(verdicts)
    try:
        yield verdicts
    finally:
        _held.reset(token)


def read() -> None:
    """Read the verdicts that were gathered; the first bad one raises.

    The device "meta" has no values to judge.
    """
    waiting, kept = _gathering.get(), _held.get()
    if waiting is None:
        return
    for values, complain in waiting.values.values():
        waiting.append((torch.isfinite(values).all(), complain))
        if kept is not None:
            kept.nbytes += values.nbytes
    waiting.values.clear()
    if not waiting:
        return
    if kept is not None:
        kept.extend(waiting)
        waiting.clear()
        return
    found = torch.stack([sound for sound, _ in waiting])
    complaints = [complain for _, complain in waiting]
    waiting.clear()
    if found.is_meta:
        return
    for sound, complain in zip(found.tolist(), complaints, strict=True):
        if not sound:
            complain()
