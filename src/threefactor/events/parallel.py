"""Loads the compiled kernels, and runs them on as many threads as wanted."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from threefactor.errors import ConfigurationError
from threefactor.events.arrays import whole

__all__ = ["alone", "get_num_threads", "kernels", "over", "product", "set_num_threads"]


@functools.cache
def kernels() -> Any:
    """Load the compiled kernels; only when a network is made.

    Raises:
        ConfigurationError: if they were not built, or cannot be used.
    """
    try:
        from threefactor.events import kernels as compiled
    except ImportError as problem:
        raise ConfigurationError(
            f"networks of exact spike times need compiled kernels ({problem}). They are built when "
            "threefactor is installed where there is a C compiler (Debian and Ubuntu: apt install "
            "gcc libc6-dev; macOS: xcode-select --install; Windows: the C++ build tools of Visual "
            "Studio): install one, then repeat the installation with pip's options "
            "--force-reinstall --no-deps --no-cache-dir, or take a wheel that was built elsewhere"
        ) from problem
    return compiled


_guard = threading.Lock()
_locks: WeakValueDictionary[int, Any] = WeakValueDictionary()
_is_forked = False


@contextmanager
def alone(*objects: Any) -> Iterator[None]:
    """Keep all other threads from what changes any of these objects; calls may be nested."""
    locks, taken = [], 0
    with _guard:
        for key in sorted(set(map(id, objects))):  # in one order: no two wait for each other
            lock = _locks.get(key)
            if lock is None:
                lock = _locks[key] = threading.RLock()
            locks.append(lock)
    try:
        for lock in locks:
            lock.acquire()
            taken += 1
        yield
    finally:
        for lock in locks[:taken]:
            lock.release()


def _forked() -> None:
    """Forget what belongs to threads that a forked child does not have."""
    global _guard, _is_forked
    _is_forked = True
    _guard = threading.Lock()
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply two matrices; the result has the same bits for any number of threads."""
    out = a.new_empty(a.shape[0], b.shape[1])
    over("product", len(out), a.contiguous().numpy(), b.contiguous().numpy(), out.numpy())
    return out


_threads: int | None = None


def set_num_threads(threads: int | None) -> None:
    """Say on how many threads the kernels run; None for as many as PyTorch uses.

    Results do not depend on it. The threads are those of PyTorch's OpenMP runtime. The kernels keep
    to one where it has none to give (PyTorch for Windows), and in a process that was forked.

    Raises:
        InputError: if the number is below 1.
    """
    global _threads
    _threads = None if threads is None else whole("threads", threads)


def get_num_threads() -> int:
    """Return on how many threads the kernels run."""
    return torch.get_num_threads() if _threads is None else _threads


SMALL = 20_000
"""Numbers that one thread has looked at before another has begun."""


def over(name: str, total: int, *args: Any) -> None:
    """Call a kernel on 0 to total - 1, cut into one range for each thread if there is enough."""
    threads = 1 if _is_forked else min(get_num_threads(), total)
    if threads > 1 and sum(a.size for a in args if isinstance(a, np.ndarray)) < SMALL:
        threads = 1
    getattr(kernels(), name)(total, threads, *args)
