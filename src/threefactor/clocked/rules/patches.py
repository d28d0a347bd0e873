"""Feedback that neighbouring neurons of a channel share, for pictures with many outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from threefactor.errors import InputError

__all__ = ["checked_patch", "gather", "patches", "spread"]


def checked_patch(side: int) -> int:
    """Return the side of the squares that share feedback, or refuse it."""
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise InputError(f"feedback_patch is {side}; give a whole number of at least 1")
    return side


def patches(shape: Sequence[int], side: int) -> int:
    """Count the feedback rows of a layer: C ceil(H / side) ceil(W / side) for (C, H, W)."""
    if len(shape) != 3:
        return math.prod(shape)
    channels, height, width = shape
    return channels * -(-height // side) * -(-width // side)


def gather(x: Tensor, side: int) -> Tensor:
    """Average (B, C, H, W) over the patches: (B, p). Layers of other shapes have no patches.

    Patches that the border cuts off are smaller; the mean is over the neurons that they have.
    """
    if x.dim() != 4 or side == 1:
        return x.flatten(1)
    square = (min(side, x.shape[2]), min(side, x.shape[3]))
    means = F.avg_pool2d(x, square, ceil_mode=True, count_include_pad=False)
    return means.flatten(1)


def spread(values: Tensor, shape: Sequence[int], side: int) -> Tensor:
    """Give each neuron of a layer of `shape` (without batch) its patch's value: (B, n)."""
    if len(shape) != 3 or side == 1:
        return values
    channels, height, width = shape
    rows, columns = -(-height // side), -(-width // side)
    high, wide = min(side, height), min(side, width)  # a patch may be larger than the layer
    blocks = values.view(-1, channels, rows, 1, columns, 1)
    full = blocks.expand(-1, -1, -1, high, -1, wide).reshape(
        len(values), channels, rows * high, columns * wide
    )
    return full[:, :, :height, :width].flatten(1)
