"""How a process stops on Ctrl-C and on other signals.

Batch systems send SIGTERM, SIGUSR1 or SIGUSR2 before they kill; a terminal that closes sends
SIGHUP.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = [
    "WITH_PARENT",
    "StopRequest",
    "StoppedBySignal",
    "leave_if_asked",
    "leave_on_signals",
    "leave_with_parent",
]

NAMES = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
OTHERS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
AT_ONCE = 1.0
"""Seconds; two signals within less count as one: a terminal and a parent may both send it."""


WITH_PARENT = "THREEFACTOR_STOPS_WITH_PARENT"
"""Environment variable of commands that another process starts; see `leave_with_parent`."""


class StoppedBySignal(SystemExit):
    """A signal other than Ctrl-C ends this process: through every `finally`, with its exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


def leave_on_signals() -> None:
    """Let `OTHERS` clean up as Ctrl-C does: nothing half-written, no process left.

    One that is ignored, as SIGHUP by `nohup`, still is.
    """
    for number in OTHERS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)
    if sys.unraisablehook is not _tell:
        _told.append(sys.unraisablehook)
        sys.unraisablehook = _tell


def leave_with_parent() -> None:
    """Leave when the process that started this one ends or closes our standard input.

    Only if that process set `WITH_PARENT`; it has the other end of the pipe that is our standard
    input. It also decides about Ctrl-C, which a terminal sends to both: a training then takes note
    of it, and nothing else does.
    """
    if os.environ.pop(WITH_PARENT, None) is None:  # not for processes that this one starts
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_at_end_of_input, daemon=True).start()


def _leave_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    if hasattr(signal, "pthread_kill"):  # ends whatever the main thread waits for
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        signal.raise_signal(signal.SIGTERM)


_asked: list[int] = []  # signals that `_leave` was called for


def _leave(number: int, frame: FrameType | None) -> None:
    _asked.append(number)
    raise StoppedBySignal(number)


_told: list[Any] = []  # hooks that report exceptions nobody can catch


def _tell(problem: sys.UnraisableHookArgs) -> None:
    """Tell of an exception that was swallowed, unless it is a stop, which `leave_if_asked` sees."""
    if not issubclass(problem.exc_type, StoppedBySignal):
        _told[-1](problem)


def leave_if_asked() -> None:
    """Leave if a signal asked for it, but came while C code ran that swallows what is raised.

    Raises:
        StoppedBySignal: if so.
    """
    if _asked:
        raise StoppedBySignal(_asked[0])


class StopRequest:
    """Notes signals that ask for a stop while it is entered, so that work ends at a good moment.

    Ctrl-C for the second time raises KeyboardInterrupt, but not within `undisturbed`. Signals that
    the user's program handles itself or ignores are left to it, but for Ctrl-C. Outside the main
    thread nothing is noticed.

    Attributes:
        number: of the signal, None if there was none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._interrupted: float | None = None  # when Ctrl-C was first pressed
        self._busy = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        leave_if_asked()
        self.number = self._interrupted = None
        if threading.current_thread() is threading.main_thread():
            ours = [n for n in OTHERS if signal.getsignal(n) in (signal.SIG_DFL, _leave)]
            for number in (signal.SIGINT, *ours):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *problem: object) -> None:
        for number, handler in self._before.items():
            if handler is None:  # it was not set from Python, and cannot be put back
                handler = signal.SIG_DFL
            signal.signal(number, handler)
        self._before.clear()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Let what is being written be written, however often Ctrl-C is pressed."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
        elif now - self._interrupted >= AT_ONCE and not self._busy:
            raise KeyboardInterrupt
