"""Simulated event recordings: an image moves before a model of an event camera."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from threefactor.data.arguments import check_number, check_whole
from threefactor.data.formats.events import EVENT, Events
from threefactor.errors import InputError

__all__ = ["SaccadeSettings", "simulate_saccades"]

CORNERS = ((-1.0, -1.0), (0.0, 1.0), (1.0, -1.0), (-1.0, -1.0))  # of the triangle, x and y
DARK = 0.1  # of full intensity: what the camera sees of a black pixel, which log needs
ROUNDING = 1e-6  # of a threshold: a change that reaches it but for rounding


@dataclass(frozen=True)
class SaccadeSettings:
    """How images are moved and seen.

    Args:
        intensity: "log" or "linear": what must change for an event, log(I + 0.1) or I, of an
            intensity I from 0 to 1.
        threshold: by how much. The default with "log" gives MNIST's digits about 4500 events each,
            on average; N-MNIST has 4100.
        sensor: pixels on each side of the camera.
        picture: pixels on each side to which images are resized, the others are black.
        reach: pixels by which the picture moves to each side.
        saccade: microseconds of each of the three movements.
        steps: in how many pictures each movement is taken apart.

    Raises:
        InputError: a value has no meaning.
    """

    intensity: str = "log"
    threshold: float = 0.46
    sensor: int = 34
    picture: int = 28
    reach: float = 3.0
    saccade: int = 100_000
    steps: int = 50

    def __post_init__(self) -> None:
        if self.intensity not in ("log", "linear"):
            raise InputError(f"intensity is {self.intensity!r}; expected 'log' or 'linear'")
        for name, most in (("sensor", 4096), ("picture", 4096), ("steps", 10_000)):
            check_whole(name, getattr(self, name), 1, most)
        check_whole("saccade", self.saccade, 1, 1 << 40)
        check_number("reach", self.reach, 0.0, 1e6)
        check_number("threshold", self.threshold, 0.0, 1e6)


def simulate_saccades(
    images: Tensor | NDArray[Any], settings: SaccadeSettings | None = None
) -> list[Events]:
    r"""Turn images into simulated event recordings like those of N-MNIST.

    The picture moves along the three sides of a triangle and comes back to where it began, each
    side in `saccade` microseconds, slowly at its ends. A pixel keeps the value at which it last
    had an event; whenever :math:`\log(I + 0.1)`, or :math:`I`, is a threshold above it or below
    it, there is an ON or an OFF event, at the time found by linear interpolation between two
    steps, and the value moves by the threshold. As the path is closed, each pixel has as many ON
    as OFF events. There is no noise.

    These are not recordings of a camera: always call them simulated.

    Args:
        images: (N, C, H, W), from 0 to 1; channels are averaged.
        settings: how.

    Returns:
        N arrays of events with the fields x, y, t (microseconds), p, in the order of time; see
        `EVENT`. An image of one grey all over the sensor has none.

    Raises:
        InputError: `images` has another shape or a value outside 0 to 1.

    Source: G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor 2015, for the movement;
    P. Lichtsteiner, C. Posch, T. Delbruck 2008, for the pixel.

    Example:
        >>> recordings = simulate_saccades(torch.eye(28)[None, None])
        >>> int(recordings[0]["p"].sum()) * 2 == len(recordings[0]) > 0
        True
    """
    settings = settings or SaccadeSettings()
    if not isinstance(settings, SaccadeSettings):
        raise InputError(f"settings are a {type(settings).__name__}; give SaccadeSettings")
    try:
        given = torch.as_tensor(images)
        if given.is_complex():
            raise ValueError("they are complex")
        pictures = given.detach().cpu().to_dense().float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"images are not an array of numbers ({error}); give (N, C, H, W)"
        ) from error
    if pictures.dim() != 4 or not pictures.numel():
        raise InputError(f"images have the shape {tuple(pictures.shape)}; expected (N, C, H, W)")
    if not (float(pictures.min()) >= 0.0 and float(pictures.max()) <= 1.0):
        raise InputError("images hold values outside 0 to 1; give them without normalisation")
    pictures = pictures.mean(1, keepdim=True)
    if pictures.shape[2:] != (settings.picture,) * 2:
        pictures = interpolate(
            pictures, (settings.picture,) * 2, mode="bilinear", antialias=True
        ).clamp_(0.0, 1.0)
    return _recordings(pictures, settings)


def _recordings(pictures: Tensor, settings: SaccadeSettings) -> list[Events]:
    """Let the camera's pixels follow the movement; sort the events by sample and time."""
    found: list[tuple[NDArray[Any], ...]] = []
    interval = settings.saccade / settings.steps
    views = _views(pictures, settings)
    before = next(views)
    kept = before.copy()
    for step, now in enumerate(views):
        gap = (now - kept) / settings.threshold
        number = np.floor(np.abs(gap) + ROUNDING).astype(np.int64)
        sample, pixel = np.nonzero(number)
        each = number[sample, pixel]
        sign = np.sign(gap[sample, pixel])
        order = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each) + 1
        sample, pixel, up = (np.repeat(values, each) for values in (sample, pixel, sign))
        level = kept[sample, pixel] + up * order * settings.threshold
        start, change = before[sample, pixel], (now - before)[sample, pixel]
        share = np.clip((level - start) / change, 0.0, 1.0)
        t = np.minimum((step + share) * interval, len(CORNERS[1:]) * settings.saccade - 1)
        found.append((sample, t.astype(np.int64), pixel, up > 0))
        kept += np.sign(gap) * number * settings.threshold
        before = now
    return _split(found, len(pictures), settings.sensor)


def _split(found: list[tuple[NDArray[Any], ...]], samples: int, sensor: int) -> list[Events]:
    sample, t, pixel, p = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((pixel, t, sample))
    events = np.empty(len(order), dtype=EVENT)
    events["y"], events["x"] = np.divmod(pixel[order], sensor)
    events["t"], events["p"] = t[order], p[order]
    return np.split(events, np.searchsorted(sample[order], np.arange(1, samples)))


def _views(pictures: Tensor, settings: SaccadeSettings) -> Iterator[NDArray[np.float64]]:
    """Yield what the camera sees at each step, (N, pixels), the start included."""
    half = settings.sensor / 2
    # Positions on the sensor in units of half a picture, from its middle.
    axis = (torch.arange(settings.sensor) + 0.5 - half) / (settings.picture / 2)
    for x, y in _path(settings):
        columns, rows = (axis - 2 * shift / settings.picture for shift in (x, y))
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        seen = grid_sample(pictures, grid.expand(len(pictures), -1, -1, -1), align_corners=False)
        flat = seen.flatten(1).double()
        yield (torch.log(flat + DARK) if settings.intensity == "log" else flat).numpy()


def _path(settings: SaccadeSettings) -> Iterator[tuple[float, float]]:
    """Yield the picture's shift at each step in pixels, x and y."""
    yield CORNERS[0][0] * settings.reach, CORNERS[0][1] * settings.reach
    for start, end in itertools.pairwise(CORNERS):
        for step in range(1, settings.steps + 1):
            done = 0.5 - 0.5 * math.cos(math.pi * step / settings.steps)
            x, y = (a + done * (b - a) for a, b in zip(start, end, strict=True))
            yield x * settings.reach, y * settings.reach
