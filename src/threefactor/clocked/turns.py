"""Whose turn it is to work on a network, where several threads, rules or callbacks share it."""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import nn
from typing_extensions import ParamSpec

from threefactor.errors import InputError

__all__ = ["Alone", "Turn", "uncompiled"]

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function run as it is where `torch.compile` has compiled what calls it.

    It puts pathways and probes into the network, which a compiler cannot follow.
    """
    aside: list[Callable[P, R]] = []

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        if "torch._dynamo" not in sys.modules:  # the import takes longer than that of this package
            return function(*args, **named)
        if not aside:
            aside.append(torch.compiler.disable(function))  # type: ignore[no-untyped-call]
        return aside[0](*args, **named)

    return call


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
                "of the network made before. torch.utils.checkpoint calls layers again, too: "
                "leave it out, since no rule keeps a graph over time"
            )


class Alone:
    """Keeps other threads from working on layers; the same thread may come in again.

    A callback must not wait for another thread that works on the same layers: each would wait for
    the other.

    Args:
        layers: which ones; they stay the same.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._layers = tuple(dict.fromkeys(layers))
        self._held: list[threading.RLock] = []
        self._made_in = -1

    def __enter__(self) -> None:
        if self._made_in != _process:
            # Always in one order: two networks that share layers cannot wait for each other.
            with _making:
                self._held = [
                    _locks.setdefault(layer, threading.RLock())
                    for layer in sorted(self._layers, key=id)
                ]
            self._made_in = _process
        taken = 0
        try:
            for lock in self._held:
                lock.acquire()
                taken += 1
        except BaseException:
            for lock in reversed(self._held[:taken]):
                lock.release()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for lock in reversed(self._held):
            lock.release()

    def __getstate__(self) -> dict[str, Any]:
        """A copy is of other layers, and locks cannot be copied."""
        return {**self.__dict__, "_held": [], "_made_in": -1}


_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_making = threading.Lock()
_process = 0
"""How often the process was forked on its way here."""


def _forget_locks() -> None:
    """In a forked child, the threads that held a lock are gone."""
    global _making, _process
    _locks.clear()
    _making = threading.Lock()
    _process += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
