"""Whose turn it is to work on a network, where several threads, rules or callbacks share it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from threefactor.errors import InputError

__all__ = ["Turn", "alone"]


class Turn:
    """Whose turn it is to run an attached network: the thread in the middle of a forward pass.

    Layers that a rule works on hold the rule's pathways and probes. A call from elsewhere, another
    thread or a callback between two time steps, would mix with the rule's pass; it is refused.
    """

    def __init__(self) -> None:
        self.thread: int | None = None

    def check(self) -> None:
        """Refuse a call that is not part of the forward pass in progress.

        Raises:
            InputError: naming what to do.
        """
        if self.thread != threading.get_ident():
            raise InputError(
                "the network is called while a rule or clocked.run works on it; call "
                "clocked.run(network, ...), which waits and disturbs nothing, or a copy.deepcopy "
                "of the network made before"
            )


@contextmanager
def alone(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Keep other threads from working on layers; the same thread may come in again.

    A callback must not wait for another thread that works on the same layers: each would wait for
    the other.
    """
    with ExitStack() as stack:
        # Always in one order: two networks that share layers cannot wait for each other.
        for layer in sorted(set(layers), key=id):
            with _making:
                lock = _locks.setdefault(layer, threading.RLock())
            stack.enter_context(lock)
        yield


_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def _forget_locks() -> None:
    """In a forked child, the threads that held a lock are gone."""
    global _making
    _locks.clear()
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
