"""Runs compiled kernels on ranges of samples or neurons, beside each other on several threads."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from threefactor.errors import ConfigurationError, InputError

__all__ = ["get_num_threads", "kernels", "over", "product", "set_num_threads"]


@functools.cache
def kernels() -> Any:
    """Import the compiled kernels, which need Numba; only when a network is made.

    Raises:
        ConfigurationError: if Numba is not installed.
    """
    try:
        from threefactor.events import kernels as compiled
    except ImportError as problem:
        raise ConfigurationError(
            f"event-driven networks need Numba ({problem}); "
            "install it with: pip install 'threefactor[events]'"
        ) from problem
    return compiled


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="threefactor-events")


if hasattr(os, "register_at_fork"):  # a forked child has the pool, but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


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
    if threads is not None and (isinstance(threads, bool) or threads < 1):
        raise InputError(f"threads is {threads}; give a number of at least 1, or None")
    _threads = threads


def get_num_threads() -> int:
    """Return on how many threads the kernels run."""
    return torch.get_num_threads() if _threads is None else _threads


def over(name: str, total: int, *args: Any) -> None:
    """Call a kernel on 0 to total - 1, cut into one range for each thread."""
    kernel = getattr(kernels(), name)
    parts = min(get_num_threads(), total)
    if parts <= 1:
        kernel(0, total, *args)
        return
    cuts = [total * i // parts for i in range(parts + 1)]
    pool = _pool(parts)
    others = [pool.submit(kernel, cuts[i], cuts[i + 1], *args) for i in range(1, parts)]
    kernel(cuts[0], cuts[1], *args)
    for other in others:
        other.result()
