"""Average pooling of a synapse layer's input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor.clocked import kernels
from threefactor.errors import InputError

__all__ = ["average", "checked_pool"]


def checked_pool(pool: int) -> int:
    """Return the side of the pooling squares, or refuse it."""
    if isinstance(pool, bool) or not isinstance(pool, int) or pool < 1:
        raise InputError(f"pool is {pool}; give a whole number of at least 1")
    return pool


def average(x: Tensor, pool: int, synapse: nn.Module) -> Tensor:
    """Average (B, C, H, W) over squares of side `pool`; a row or column left over is dropped.

    Raises:
        InputError: if the input is not a batch of pictures, or smaller than a square; the message
            names the synapse.
    """
    if pool == 1:
        return x
    if x.dim() != 4 or min(x.shape[2:]) < pool:
        raise InputError(
            f"{synapse} averages over squares of {pool} x {pool}, but its input has shape "
            f"{tuple(x.shape)}; expected (batch, channels, height, width) of at least that size"
        )
    if not x.is_cpu:
        return F.avg_pool2d(x, pool)
    return _Average.apply(x, pool)  # type: ignore[no-any-return,no-untyped-call]


class _Average(torch.autograd.Function):
    """Pooling in a fraction of the library's time on a CPU, both ways."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pool: int) -> Tensor:
        ctx.pool, ctx.shape = pool, x.shape
        return kernels.average(x.detach(), pool)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor, None]:
        pool, (height, width) = ctx.pool, ctx.shape[2:]
        spread = (error * (1.0 / pool**2)).unsqueeze(-1).expand(*error.shape, pool).flatten(-2)
        result = error.new_empty(ctx.shape)
        rows, columns = error.shape[2] * pool, error.shape[3] * pool
        if (rows, columns) != (height, width):
            result.zero_()
        for i in range(pool):
            result[:, :, i:rows:pool, :columns] = spread
        return result, None
