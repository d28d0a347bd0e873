"""Events summed into frames."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from threefactor.data.arguments import check_whole
from threefactor.data.formats.events import Events, check_sensor
from threefactor.errors import InputError, warn_user
from threefactor.events.spikes import SpikeBatch

__all__ = ["FrameSettings", "LateEvents", "frames", "microseconds", "spike_frames"]

MOST_FRAMES, LONGEST_WINDOW, LARGEST_SIDE = 1_000_000, 1 << 60, 4096
LATEST = float(1 << 62)  # microseconds, which 64 bits hold
MOST_VALUES = 1 << 28  # of the frames of one recording, 1 GiB
MODES = ("bilinear", "area", "nearest")
MOST_LATE = 0.1
"""Share of events or spikes that may come too late without a warning; some do in published sets."""


@dataclass(frozen=True)
class FrameSettings:
    """How the events of a recording, or the spikes of a sample, become frames.

    Args:
        number: T, how many frames.
        window: microseconds of each frame, from time 0 of the recording on; events after the last
            frame are left out. None gives every frame as many events: of N, N // T each, the last
            one the rest.
        size: (height, width) to which frames are resized; None leaves them as they are.
        mode: how they are resized: "bilinear", "area" or "nearest", as in
            `torch.nn.functional.interpolate` (without alignment of corners).

    Raises:
        InputError: a value has no meaning.
    """

    number: int
    window: int | None = None
    size: tuple[int, int] | None = None
    mode: str = "bilinear"

    def __post_init__(self) -> None:
        check_whole("number", self.number, 1, MOST_FRAMES)
        if self.window is not None:
            check_whole("window", self.window, 1, LONGEST_WINDOW)
        if self.size is not None:
            if not isinstance(self.size, (tuple, list)) or len(self.size) != 2:
                raise InputError(f"size is {self.size!r}; give (height, width)")
            for name, value in zip(("height", "width"), self.size, strict=True):
                check_whole(name, value, 1, LARGEST_SIDE)
        if self.mode not in MODES:
            raise InputError(f"mode is {self.mode!r}; expected one of {', '.join(MODES)}")


@dataclass
class LateEvents:
    """How many events, of how many, come after the last frame and are left out."""

    late: int = 0
    of: int = 0

    def add(self, t: NDArray[Any], settings: FrameSettings) -> None:
        """Count events at these times, in microseconds."""
        self.of += len(t)
        if settings.window is not None:
            self.late += int(np.count_nonzero(t >= settings.number * settings.window))

    def __add__(self, other: LateEvents) -> LateEvents:
        return LateEvents(self.late + other.late, self.of + other.of)

    def told(self, settings: FrameSettings) -> str:
        """Return in words what was left out; warn if it is much."""
        if not self.late:
            return ""
        share = f"{self.late} of {self.of} events ({self.late / self.of:.1%})"
        if self.late > MOST_LATE * self.of:
            warn_user(
                f"{share} come after the last of {settings.number} frames of {settings.window} us "
                "and are left out: give more frames (steps), a longer window (frame_window in "
                "settings), or no window, which gives all frames as many events"
            )
        return f"; {share} come later and are left out"


def frames(
    events: Events, sensor_size: tuple[int, int], settings: FrameSettings
) -> NDArray[np.float32]:
    """Sum the events of one recording into frames.

    Args:
        events: (N,) with the fields x, y, t (microseconds), p, in the order of time; see `EVENT`.
        sensor_size: (height, width).
        settings: how.

    Returns:
        (T, 2, H, W): the numbers of OFF and of ON events of each pixel, resized if so set.

    Raises:
        InputError: `events` are of another type or empty; there would be more than 2^28
            values; or an event lies outside the sensor, has another polarity than 0
            or 1, or comes before time 0 or the event before it.

    Source: Fang et al. 2021, Incorporating Learnable Membrane Time Constant to Enhance Learning of
    Spiking Neural Networks, ICCV 2021, for equal numbers of events.

    Example:
        >>> from threefactor.data import EVENT
        >>> events = np.array([(0, 1, 5, True), (0, 1, 9, True), (1, 0, 12, False)], dtype=EVENT)
        >>> frames(events, (2, 2), FrameSettings(number=2, window=10))[0, 1]
        array([[0., 0.],
               [2., 0.]], dtype=float32)
    """
    height, width = _checked(events, sensor_size, settings)
    x, y = events["x"].astype(np.int64), events["y"].astype(np.int64)
    if not len(x):
        raise InputError("there are no events; a recording has at least one")
    if not (min(x.min(), y.min()) >= 0 and x.max() < width and y.max() < height):
        raise InputError(f"events lie outside the sensor of {width}x{height} pixels")
    t, p = events["t"].astype(np.int64), events["p"].astype(np.int64)
    if p.min() < 0 or p.max() > 1:
        raise InputError(f"p is from {p.min()} to {p.max()}; give 0 for OFF and 1 for ON")
    if t[0] < 0 or (t[1:] < t[:-1]).any():
        raise InputError("events run backwards in time, or begin before 0; sort them by t")
    frame = _frame_of(t, settings)
    place = ((frame * 2 + p) * height + y) * width + x
    inside = (frame >= 0) & (frame < settings.number)
    shape = (settings.number, 2, height, width)
    counts = np.bincount(place[inside], minlength=int(np.prod(shape))).reshape(shape)
    return _resized(counts.astype(np.float32), settings)


def spike_frames(spikes: SpikeBatch, settings: FrameSettings) -> Iterator[NDArray[np.float32]]:
    """Yield the spikes of each sample, summed into frames.

    Times, in seconds, are rounded to microseconds. A sample without spikes gives frames of zeros.

    Args:
        spikes: N samples of n channels.
        settings: how. A size is (1, channels).

    Yields:
        (T, 1, 1, n): the number of spikes of each channel, resized if so set.

    Raises:
        InputError: there would be more than 2^28 values.

    Example:
        >>> from threefactor.events import SpikeBatch
        >>> spikes = SpikeBatch.from_lists([[0.001, 0.012, 0.019]], [[0, 2, 2]], size=3)
        >>> next(spike_frames(spikes, FrameSettings(number=2, window=10_000)))[:, 0, 0]
        array([[1., 0., 0.],
               [0., 0., 2.]], dtype=float32)
    """
    n, width = spikes.size, (settings.size or (1, spikes.size))[1]
    if settings.number * max(n, width) > MOST_VALUES:
        raise InputError(
            f"{settings.number} frames of {max(n, width)} channels are too many; give fewer, "
            f"{MOST_VALUES:,} values at most"
        )
    for begin, end in itertools.pairwise(spikes.offsets):
        frame = _frame_of(microseconds(spikes.times[begin:end]), settings)
        inside = frame < settings.number
        place = frame[inside] * n + spikes.addresses[begin:end][inside]
        counts = np.bincount(place, minlength=settings.number * n)
        yield _resized(counts.reshape(settings.number, 1, 1, n).astype(np.float32), settings)


def microseconds(times: NDArray[Any]) -> NDArray[np.int64]:
    """Return times in seconds as whole microseconds."""
    whole: NDArray[np.int64] = np.rint(np.minimum(times * 1e6, LATEST)).astype(np.int64)
    return whole


def _checked(
    events: object, sensor_size: tuple[int, int], settings: FrameSettings
) -> tuple[int, int]:
    """Return height and width of the sensor, if all that was given has a meaning."""
    names = events.dtype.names if isinstance(events, np.ndarray) else None
    if not isinstance(events, np.ndarray) or not {"x", "y", "t", "p"} <= set(names or ()):
        raise InputError(
            f"events are {getattr(events, 'dtype', type(events).__name__)}; expected a NumPy array "
            "with the fields x, y, t and p, of the type threefactor.data.EVENT"
        )
    if any(events.dtype[name].kind not in "iub" for name in "xytp") or events.ndim != 1:
        raise InputError(f"events are {events.dtype}; expected whole numbers, one event each")
    if not isinstance(settings, FrameSettings):
        raise InputError(f"settings are a {type(settings).__name__}; give FrameSettings")
    check_sensor(sensor_size)
    for height, width in (sensor_size, settings.size or (1, 1)):
        if settings.number * 2 * height * width > MOST_VALUES:
            raise InputError(
                f"{settings.number} frames of {height} x {width} pixels are too many; give fewer "
                f"or smaller ones, {MOST_VALUES:,} values at most"
            )
    return sensor_size[0], sensor_size[1]


def _frame_of(t: NDArray[np.int64], settings: FrameSettings) -> NDArray[np.int64]:
    """Return the frame of each event; some may have none."""
    if settings.window is not None:
        return t // settings.window
    each = max(len(t) // settings.number, 1)
    return np.minimum(np.arange(len(t)) // each, settings.number - 1)


def _resized(counts: NDArray[np.float32], settings: FrameSettings) -> NDArray[np.float32]:
    if settings.size is None or settings.size == counts.shape[2:]:
        return counts
    corners = False if settings.mode == "bilinear" else None
    resized = interpolate(
        torch.from_numpy(counts), settings.size, mode=settings.mode, align_corners=corners
    )
    found: NDArray[np.float32] = resized.numpy()
    return found
