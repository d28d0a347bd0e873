"""Runs compiled kernels on ranges of samples or neurons, beside each other on several threads."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
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


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="threefactor-events")


_guard = threading.Lock()
_locks: WeakValueDictionary[int, Any] = WeakValueDictionary()


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
    global _guard
    _pool.cache_clear()
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

    Results do not depend on it. PyTorch's own threads stay awake for a while after each of its
    operations and take the cores from the kernels: `torch.set_num_threads(1)` beside this is
    faster than leaving both alone.

    Raises:
        InputError: if the number is below 1.
    """
    global _threads
    _threads = None if threads is None else whole("threads", threads)


def get_num_threads() -> int:
    """Return on how many threads the kernels run."""
    return torch.get_num_threads() if _threads is None else _threads


SMALL = 200_000
"""Numbers that one thread has looked at before another has woken up."""


def over(name: str, total: int, *args: Any) -> None:
    """Call a kernel on 0 to total - 1, cut into one range for each thread if there is enough."""
    kernel = getattr(kernels(), name)
    parts = min(get_num_threads(), total)
    if parts > 1 and sum(a.size for a in args if isinstance(a, np.ndarray)) < SMALL:
        parts = 1
    if parts <= 1:
        kernel(0, total, *args)
        return
    cuts = [total * i // parts for i in range(parts + 1)]
    pool = _pool(get_num_threads())
    others: list[Future[None]] = []
    try:
        for i in range(1, parts):
            try:
                others.append(pool.submit(kernel, cuts[i], cuts[i + 1], *args))
            except RuntimeError:  # no thread is to be had, as when the interpreter ends
                kernel(cuts[i], cuts[i + 1], *args)
        kernel(cuts[0], cuts[1], *args)
    finally:
        _finish(others)
    for other in others:
        other.result()


def _finish(others: list[Future[None]]) -> None:
    """Wait for kernels, which write into memory until they end; Ctrl-C waits for them, too."""
    interrupted: BaseException | None = None
    while not all(other.done() for other in others):
        try:
            wait(others)
        except BaseException as problem:
            interrupted = problem
    if interrupted is not None:
        raise interrupted
