"""Yin-Yang: points of the plane, the part of the symbol they lie in, and their code of spikes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.data.arguments import check_whole
from threefactor.data.dataset import Files, SpikeSet
from threefactor.data.files.source import Source
from threefactor.events.spikes import SpikeBatch

__all__ = ["YIN_YANG", "Points", "code_points", "yin_yang"]

BIG, SMALL = 0.5, 0.1  # radii of the symbol and of its two dots
# In units of the window, which is the latest time of 2.0 synaptic time constants in Göltz et al.
EARLIEST = 0.15 / 2.0
BIAS = 0.9 / 2.0
TRAIN_SEED, TEST_SEED = 42, 40  # of the authors
YIN, YANG, DOT = 0, 1, 2


class Points(NamedTuple):
    """Points between 0 and 1 and their classes: (N, D) floating point and (N,) integers."""

    values: NDArray[np.float64]
    labels: NDArray[np.int64]


def yin_yang(samples: int, seed: int) -> Points:
    r"""Draw samples of the Yin-Yang data set; the same seed always gives the same samples.

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
    check_whole("samples", samples, 1, 1 << 32)
    check_whole("seed", seed, 0, (1 << 32) - 1)
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
    samples, inputs = values.shape
    times = np.full((samples, inputs + 1), BIAS)
    times[:, :inputs] = EARLIEST + (1.0 - EARLIEST) * values
    order = np.argsort(times, axis=1, kind="stable")
    offsets = np.arange(samples + 1) * (inputs + 1)
    sorted_times = np.take_along_axis(times, order, axis=1) * window
    return SpikeBatch(offsets, sorted_times.reshape(-1), order.reshape(-1), inputs + 1)


def _read(
    entry: SpikeSet, sources: Sequence[Source], window: float
) -> tuple[tuple[SpikeBatch, Tensor], tuple[SpikeBatch, Tensor]]:
    train, test = (
        (code_points(points.values, window), torch.from_numpy(points.labels))
        for points in (yin_yang(entry.train, TRAIN_SEED), yin_yang(entry.test, TEST_SEED))
    )
    return train, test


YIN_YANG = SpikeSet(
    name="yin-yang",
    title="Yin-Yang: which part of the symbol a point lies in",
    shape=(5,),
    train=5000,
    test=1000,
    classes=("yin", "yang", "dot"),
    licence="nothing is copied: samples are drawn anew from the published definition",
    source="L. Kriener, J. Göltz, M. A. Petrovici 2022, The Yin-Yang dataset, NICE 2022, 107-111",
    references=("kriener2022yinyang",),
    homepage="https://github.com/lkriener/yin_yang_data_set",
    files=Files(not_needed="there are none, as samples are generated from the definition"),
    read=_read,
)
