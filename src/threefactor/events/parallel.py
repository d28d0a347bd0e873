"""Runs compiled kernels on ranges of samples or neurons, beside each other on several threads."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from threefactor.errors import ConfigurationError

__all__ = ["kernels", "over"]


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


def over(name: str, total: int, *args: Any) -> None:
    """Call a kernel on 0 to total - 1, cut into one range for each of PyTorch's threads."""
    kernel = getattr(kernels(), name)
    parts = min(torch.get_num_threads(), total)
    if parts <= 1:
        kernel(0, total, *args)
        return
    cuts = [total * i // parts for i in range(parts + 1)]
    pool = _pool(parts)
    others = [pool.submit(kernel, cuts[i], cuts[i + 1], *args) for i in range(1, parts)]
    kernel(cuts[0], cuts[1], *args)
    for other in others:
        other.result()
