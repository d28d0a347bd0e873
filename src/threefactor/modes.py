"""Training and evaluation mode of a network, and random numbers that are drawn aside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["evaluating", "random_kept"]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and every module back into its own mode at the end."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def random_kept() -> Iterator[None]:
    """Put PyTorch's random generators back at the end: that of the CPU, and of GPUs if any is used.

    `torch.random.fork_rng()` alone would begin to use every GPU of the machine, and say so.
    """
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpus = range(torch.cuda.device_count()) if used else ()
    with torch.random.fork_rng(gpus):
        yield
