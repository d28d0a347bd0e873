"""Inputs that are not spikes, coded in the times of spikes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from threefactor.errors import InputError

if TYPE_CHECKING:
    from threefactor.events.spikes import SpikeBatch

__all__ = ["check_window", "code_images", "code_points"]

BYTE_PEAK = 255
LONGEST_WINDOW = 1e9
BLOCK = 2048  # images that are coded at once: their index arrays are many times their size
# In units of the window, which is the latest time of 2.0 synaptic time constants in Göltz et al.
EARLIEST = 0.15 / 2.0
BIAS = 0.9 / 2.0


def check_window(window: float) -> None:
    """Check that a coding window is a positive number of seconds.

    Raises:
        InputError: it is not.
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
    from threefactor.events.encoding import latency_code
    from threefactor.events.spikes import SpikeBatch

    blocks = [images[start : start + BLOCK] for start in range(0, len(images), BLOCK)]
    parts = [latency_code(block if peak == BYTE_PEAK else block / peak, window) for block in blocks]
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    times = np.concatenate([part.times for part in parts])
    addresses = np.concatenate([part.addresses for part in parts])
    return SpikeBatch(offsets, times, addresses, parts[0].size)


def code_points(values: NDArray[np.float64], window: float) -> SpikeBatch:
    r"""Code each of D values as one spike, the larger the later, beside one spike of a bias.

    .. math:: t_d = T_w (0.075 + 0.925 v_d), \qquad t_{bias} = 0.45 T_w

    Args:
        values: (N, D), between 0 and 1.
        window: T_w in seconds, the latest time.

    Returns:
        A batch with D + 1 addresses, the last of which is the bias.

    Source: J. Göltz, L. Kriener et al. 2021, Fast and energy-efficient neuromorphic deep learning
    with first-spike times, Nature Machine Intelligence 3, 823-835, and its program: inputs
    between 0.15 and 2.0, the bias at 0.9 synaptic time constants.
    """
    from threefactor.events.spikes import SpikeBatch

    samples, inputs = values.shape
    times = np.full((samples, inputs + 1), BIAS)
    times[:, :inputs] = EARLIEST + (1.0 - EARLIEST) * values
    order = np.argsort(times, axis=1, kind="stable")
    offsets = np.arange(samples + 1) * (inputs + 1)
    sorted_times = np.take_along_axis(times, order, axis=1) * window
    return SpikeBatch(offsets, sorted_times.reshape(-1), order.reshape(-1), inputs + 1)
