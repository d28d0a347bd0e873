"""The residual network of spiking neurons without normalisation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from threefactor.clocked.conv import Conv2d
from threefactor.clocked.convnets import (
    check_outputs,
    checked_shape,
    is_count,
    scaled,
    widen,
)
from threefactor.clocked.network import Network
from threefactor.clocked.neuron import LIF, NeuronOptions
from threefactor.clocked.synapse import Linear
from threefactor.errors import InputError

__all__ = ["ResidualBlock", "nf_resnet34"]

DEPTHS = (3, 4, 6, 3)
STAGES = (64, 128, 256, 512)


class ResidualBlock(nn.Module):
    r"""A residual block of spiking neurons without normalisation, on a stream of currents.

    .. math:: h = \mathrm{LIF}(x / \beta), \qquad
              y = 0.2 \, \gamma \, \mathrm{conv2}(\mathrm{LIF}(\mathrm{conv1}(h))) + x

    gamma is learned and starts at 0; its gradient is that of the time step, without a trace. Where
    the shape changes, conv1 has a stride, and a convolution 1 x 1 of h takes the place of x.
    (B, C, H, W) currents in, (B, C', H', W') currents out.

    Args:
        channels: C.
        out_channels: C'.
        stride: of conv1.
        beta: square root of the expected variance of x.
        **neuron: options of the neurons, see `LIF`.

    Source: Brock et al. 2021 (NF-ResNets), with spiking neurons as in Xiao et al. 2022 (OTTT).
    """

    SHARE = 0.2

    def __init__(
        self,
        channels: int,
        out_channels: int,
        stride: int,
        beta: float,
        **neuron: Unpack[NeuronOptions],
    ) -> None:
        super().__init__()
        self.beta = beta
        self.lif1 = LIF(**neuron)
        self.conv1 = Conv2d(channels, out_channels, 3, stride, padding=1, standardise=True)
        self.lif2 = LIF(**neuron)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1, standardise=True)
        self.shortcut: Conv2d | None = None
        if stride != 1 or channels != out_channels:
            self.shortcut = Conv2d(channels, out_channels, 1, stride, standardise=True)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        h = self.lif1(x / self.beta)
        out = self.conv2(self.lif2(self.conv1(h)))
        identity = x if self.shortcut is None else self.shortcut(h)
        return torch.add(identity, out * self.gain, alpha=self.SHARE)


def nf_resnet34(
    input_shape: Sequence[int] = (3, 224, 224),
    out_features: int = 1000,
    *,
    width: float = 1.0,
    depths: Sequence[int] = DEPTHS,
    **neuron: Unpack[NeuronOptions],
) -> Network:
    """Build the spiking ResNet-34 without normalisation.

    A convolution 7 x 7 of stride 2 and average pooling 3 x 3 of stride 2; four stages of residual
    blocks with 64, 128, 256 and 512 channels; global average pooling and a linear read-out. The
    first block of stages 2 to 4 halves height and width.

    Args:
        input_shape: channels, height and width of one sample at one time step.
        out_features: number of outputs m.
        width: factor of the number of channels, rounded, at least 1 channel.
        depths: number of blocks of each of the four stages; smaller ones for smaller networks.
        **neuron: options of the neurons, see `conv5`.

    Raises:
        InputError: if a setting is out of its range.

    Example:
        >>> net = nf_resnet34((3, 32, 32), 10, width=0.125, depths=(1, 1, 1, 1))
        >>> net(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])

    Source: Brock et al. 2021; Xiao et al. 2022 (OTTT); Xiao et al. 2026 (OPZO), appendix C.2.2.
    """
    _check_depths(depths)
    check_outputs(out_features)
    given, _, _ = checked_shape(input_shape)
    neuron = scaled(neuron)
    channels = widen(STAGES[0], width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = Conv2d(given, channels, 7, 2, padding=3, standardise=True)
    layers["stem_pool"] = nn.AvgPool2d(3, 2, padding=1)
    variance = 1.0
    for stage, (wanted, depth) in enumerate(zip(STAGES, depths, strict=True), start=1):
        for i in range(1, depth + 1):
            out_channels = widen(wanted, width)
            stride = 2 if stage > 1 and i == 1 else 1
            block = ResidualBlock(channels, out_channels, stride, variance**0.5, **neuron)
            layers[f"stage{stage}_block{i}"] = block
            variance = (variance if block.shortcut is None else 1.0) + block.SHARE**2
            channels = out_channels
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["readout"] = Linear(channels, out_features)
    return Network(layers, input_shape)


def _check_depths(depths: Sequence[int]) -> None:
    if len(depths) != len(STAGES) or not all(is_count(n) for n in depths):
        raise InputError(f"depths is {depths}; give four whole numbers of at least 1")
