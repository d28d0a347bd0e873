"""Builders of convolutional networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn
from typing_extensions import Unpack

from threefactor.clocked.conv import Conv2d
from threefactor.clocked.network import Network
from threefactor.clocked.neuron import LIF, NeuronOptions
from threefactor.clocked.synapse import Linear
from threefactor.errors import InputError

__all__ = ["ACTIVITY_SCALE", "conv5", "conv9"]

ACTIVITY_SCALE = 2.74
"""Keeps the variance from layer to layer for threshold 1 and leak 0.5 (Xiao et al. 2022, OTTT)."""

Plan = Sequence[tuple[int, int]]
"""Channels of each convolution, and the side of the squares that its input is averaged over."""

CONV5: Plan = ((128, 1), (256, 2), (512, 2), (512, 2))
CONV9: Plan = (
    (64, 1), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 2), (512, 1),
)  # fmt: skip


def conv5(
    input_shape: Sequence[int] = (3, 32, 32),
    out_features: int = 10,
    *,
    width: float = 1.0,
    **neuron: Unpack[NeuronOptions],
) -> Network:
    """Build 128C3-AP2-256C3-AP2-512C3-AP2-512C3-FC.

    Convolutions of kernel 3 and padding 1 with scaled weight standardisation, each followed by LIF
    neurons; average pooling 2 x 2 is part of the convolution behind it. The read-out neither spikes
    nor resets.

    Args:
        input_shape: channels, height and width of one sample at one time step.
        out_features: number of outputs m.
        width: factor of the number of channels, rounded, at least 1 channel.
        **neuron: `leak`, `threshold`, `dropout`, `scale`, `surrogate_width`, `reset`,
            `learn_leak` and `learn_threshold` of the neurons, see `LIF`; `scale` is 2.74 by
            default.

    Raises:
        InputError: if a setting is out of its range, or the picture too small to be pooled.

    Example:
        >>> import torch
        >>> net = conv5((2, 16, 16), 4, width=0.05)
        >>> net(torch.zeros(5, 2, 16, 16)).shape
        torch.Size([5, 4])

    Source: Xiao et al. 2026 (OPZO), appendix C.2.2.
    """
    return _row(CONV5, input_shape, out_features, width, scaled(neuron))


def conv9(
    input_shape: Sequence[int] = (3, 32, 32),
    out_features: int = 10,
    *,
    width: float = 1.0,
    **neuron: Unpack[NeuronOptions],
) -> Network:
    """Build 64C3-128C3-AP2-256C3-256C3-AP2-512C3-512C3-AP2-512C3-512C3-FC.

    Layers, arguments and errors are those of `conv5`. The middle layer of intermediate global
    learning is "lif4".

    Example:
        >>> import torch
        >>> net = conv9((3, 8, 8), 10, width=0.02)
        >>> net(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 10])

    Source: Xiao et al. 2026 (OPZO), appendices C.1 and C.2.2.
    """
    return _row(CONV9, input_shape, out_features, width, scaled(neuron))


def scaled(neuron: NeuronOptions) -> NeuronOptions:
    """Return options of neurons with the scale that suits convolutions, if none is given."""
    return {"scale": ACTIVITY_SCALE, **neuron}


def _row(
    plan: Plan,
    input_shape: Sequence[int],
    out_features: int,
    width: float,
    neuron: NeuronOptions,
) -> Network:
    channels, height, columns = checked_shape(input_shape)
    check_outputs(out_features)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (wanted, pool) in enumerate(plan, start=1):
        height, columns = height // pool, columns // pool
        given, channels = channels, widen(wanted, width)
        layers[f"conv{i}"] = Conv2d(given, channels, 3, padding=1, standardise=True, pool=pool)
        layers[f"lif{i}"] = LIF(**neuron)
    if not (height and columns):
        raise InputError(
            f"input_shape is {tuple(input_shape)}: nothing is left of such a picture after "
            f"{sum(pool > 1 for _, pool in plan)} times average pooling 2 x 2"
        )
    layers["readout"] = Linear(channels * height * columns, out_features)
    return Network(layers, input_shape)


def widen(channels: int, width: float) -> int:
    """Return a number of channels times a factor, at least 1."""
    if not 0.0 < width < float("inf"):
        raise InputError(f"width is {width}; give a number above 0")
    return max(1, round(channels * width))


def checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return channels, height and width, or refuse them."""
    sizes = tuple(shape)
    if len(sizes) != 3 or not all(is_count(n) for n in sizes):
        raise InputError(
            f"input_shape is {sizes}; give channels, height and width, whole numbers of at least 1"
        )
    return sizes


def check_outputs(out_features: int) -> None:
    """Refuse a number of outputs that has no meaning."""
    if not is_count(out_features):
        raise InputError(f"out_features is {out_features}; give a whole number of at least 1")


def is_count(n: object) -> bool:
    """Return whether this is a whole number of at least 1."""
    return isinstance(n, int) and not isinstance(n, bool) and n >= 1
