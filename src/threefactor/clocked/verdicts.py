"""Checks of values on a device: asked one by one on a CPU, and all at once elsewhere.

To ask a GPU for a value makes the CPU wait until all work before it is done. Within a step such
answers are gathered on the device, and read once, before anything that was learned is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["gathered", "gathering", "held", "judge", "read"]

Complain = Callable[[], None]
Waiting = list[tuple[Tensor, Complain]]
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
    token = _gathering.set(None if device.type == "cpu" else [])
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


@contextmanager
def held() -> Iterator[Waiting]:
    """Let nobody read the verdicts within; return them, for the caller to read later."""
    verdicts: Waiting = []
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
