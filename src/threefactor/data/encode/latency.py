"""Images coded in the times of spikes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threefactor.errors import InputError
from threefactor.events.arrays import offsets_of
from threefactor.events.encoding import latency_code
from threefactor.events.spikes import SpikeBatch

__all__ = ["check_window", "code_images"]

BYTE_PEAK = 255
LONGEST_WINDOW = 1e9
BLOCK = 2048  # images that are coded at once: their index arrays are many times their size


def check_window(window: float) -> None:
    """Check that a coding window is a positive number of seconds.

    Raises:
        InputError: it is not such a value.
    """
    real = isinstance(window, (int, float)) and not isinstance(window, bool)
    if not (real and 0 < window <= LONGEST_WINDOW):
        raise InputError(
            f"window is {window!r}; give a number of seconds above 0, {LONGEST_WINDOW:g} at most"
        )


def code_images(images: NDArray[np.uint8], peak: int, window: float) -> SpikeBatch:
    """Code each pixel as one spike, the brighter the earlier; see `events.latency_code`.

    Args:
        images: (N, ...) unsigned bytes.
        peak: the pixel value that stands for 1, whose spike comes at time 0.
        window: seconds; the spike of a pixel near 0 comes at its end, that of 0 never.

    Returns:
        A batch with one address per pixel of an image laid out flat.
    """
    blocks = [images[start : start + BLOCK] for start in range(0, len(images), BLOCK)]
    parts = [latency_code(block if peak == BYTE_PEAK else block / peak, window) for block in blocks]
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    times = np.concatenate([part.times for part in parts])
    addresses = np.concatenate([part.addresses for part in parts])
    return SpikeBatch(offsets_of(lengths), times, addresses, parts[0].size)
