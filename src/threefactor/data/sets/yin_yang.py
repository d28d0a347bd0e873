"""The Yin-Yang data set: points of the plane, and the part of the symbol they lie in."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from threefactor.errors import InputError

__all__ = ["Points", "yin_yang"]

BIG, SMALL = 0.5, 0.1  # radii of the symbol and of its two dots
YIN, YANG, DOT = 0, 1, 2


class Points(NamedTuple):
    """Points between 0 and 1 and their classes: (N, D) floating point and (N,) integers."""

    values: NDArray[np.float64]
    labels: NDArray[np.int64]


def yin_yang(samples: int, seed: int) -> Points:
    r"""Draw samples of the Yin-Yang data set; the same seed gives the same samples for ever.

    In the unit square lies a disc of radius R = 0.5 with two dots of radius r = 0.1 on its
    horizontal diameter, at distance R/2 from the centre. With :math:`d_l` and :math:`d_r` the
    distances from the centre of the left and of the right dot, a point of the disc is of class

    .. math::
        \text{dot (2)} &: d_l < r \;\text{or}\; d_r < r \\
        \text{yang (1)} &: \text{no dot, and}\; d_l \le R/2 \;\text{or}\;
            (y > R \;\text{and}\; d_r > R/2) \\
        \text{yin (0)} &: \text{else}

    For each sample a class is drawn first, each as likely as the others, then points of the
    square until one lies in the disc and is of this class. The numbers come from
    `numpy.random.RandomState(seed)` in this order, as in the authors' own program, so that the
    samples are theirs.

    Args:
        samples: how many, at least 1.
        seed: from 0 to 2**32 - 1; the authors use 42 for training, 41 for validation, 40 for
            testing.

    Returns:
        values (N, 4): x, y, 1 - x, 1 - y; labels (N,): 0 yin, 1 yang, 2 dot.

    Raises:
        InputError: `samples` or `seed` is out of its range.

    Example:
        >>> values, labels = yin_yang(3, seed=42)
        >>> labels.tolist(), values[0].round(3).tolist()
        ([2, 1, 2], [0.68, 0.45, 0.32, 0.55])

    Source: L. Kriener, J. Göltz, M. A. Petrovici 2022, The Yin-Yang dataset, NICE 2022.
    """
    _check("samples", samples, 1, 1 << 32)
    _check("seed", seed, 0, (1 << 32) - 1)
    generator = np.random.RandomState(seed)
    points = np.empty((samples, 2))
    labels = np.empty(samples, dtype=np.int64)
    for i in range(samples):
        labels[i] = generator.randint(3)
        points[i] = _draw(generator, int(labels[i]))
    return Points(np.concatenate([points, 1.0 - points], axis=1), labels)


def _draw(generator: np.random.RandomState, wanted: int) -> tuple[float, float]:
    while True:
        x, y = (generator.rand(2) * 2.0 * BIG).tolist()
        inside = math.sqrt((x - BIG) ** 2 + (y - BIG) ** 2) <= BIG
        if inside and _part(x, y) == wanted:
            return x, y


def _part(x: float, y: float) -> int:
    left = math.sqrt((x - 0.5 * BIG) ** 2 + (y - BIG) ** 2)
    right = math.sqrt((x - 1.5 * BIG) ** 2 + (y - BIG) ** 2)
    if left < SMALL or right < SMALL:
        return DOT
    in_left_half_disc = left <= 0.5 * BIG
    above_right_half_disc = y > BIG and right > 0.5 * BIG
    return YANG if in_left_half_disc or above_right_half_disc else YIN


def _check(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name} is {value!r}; expected a whole number from {low} to {high}")
