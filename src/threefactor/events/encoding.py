"""Codes that turn values into spikes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from threefactor.errors import InputError
from threefactor.events.arrays import as_array, number, offsets_of
from threefactor.events.spikes import SpikeBatch

__all__ = ["latency_code"]


def latency_code(images: ArrayLike | Tensor, window: float = 0.1) -> SpikeBatch:
    r"""Encode each pixel as one spike: the brighter, the earlier.

    .. math:: t = T_w (1 - p)

    A pixel p = 0 gives no spike.

    Args:
        images: (B, ...) floating point values between 0 and 1, or unsigned bytes 0 to 255.
        window: T_w in seconds.

    Returns:
        A batch with one address per pixel of an image laid out flat.

    Raises:
        InputError: if a value is out of its range or NaN, or the window not above 0.

    Example:
        >>> batch = latency_code([[1.0, 0.5, 0.0]], window=0.1)
        >>> batch.times.tolist(), batch.addresses.tolist()
        ([0.0, 0.05], [0, 1])

    Source: Bacho & Chu (SFDFA), appendix A.
    """
    number("window", window, "seconds above 0")
    pixels = as_array(images)
    if pixels.ndim < 2:
        raise InputError(f"images have shape {pixels.shape}; expected (batch, ...)")
    if pixels.dtype.kind not in "uif" or (pixels.dtype.kind != "f" and pixels.dtype != np.uint8):
        raise InputError(f"images are {pixels.dtype}; expected floating point or uint8")
    peak = 255 if pixels.dtype == np.uint8 else 1
    if pixels[:1].size == 0 and 0 in pixels.shape[1:]:
        raise InputError(f"images have shape {pixels.shape}; expected at least one pixel")
    flat = pixels.reshape(len(pixels), math.prod(pixels.shape[1:]))
    if flat.size and not (flat.min() >= 0 and flat.max() <= peak):
        raise InputError(
            f"pixels lie between {flat.min()} and {flat.max()}; expected 0 to {peak}, "
            "that is images that are not normalised (threefactor.data.load(..., normalise=False))"
        )
    samples, addresses = np.nonzero(flat)
    times = window * (1.0 - flat[samples, addresses].astype(np.float64) / peak)
    offsets = offsets_of(np.bincount(samples, minlength=len(flat)))
    order = np.lexsort((addresses, times, samples))
    size = flat.shape[1]
    return SpikeBatch._trusted(offsets, times[order], addresses[order].astype(np.int32), size)
