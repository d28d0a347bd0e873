"""The NF-ResNet of the OTTT authors' code, layer by layer, with the names of its tensors.

Nothing here is shared with the library. Names, order of operations and constants are theirs: the
variance of weight standardisation divides by N - 1, and with `wrapped`, as in their training on
ImageNet, the convolutions of blocks are wrapped in a module that adds "op" to their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ALPHA, SCALE = 0.2, 2.74
LAYERS = ("layer1", "layer2", "layer3", "layer4")


class ScaledWSConv2d(nn.Conv2d):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding, bias=True)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        fan_in = self.weight[0].numel()
        mean = torch.mean(self.weight, dim=(1, 2, 3), keepdim=True)
        var = torch.var(self.weight, dim=(1, 2, 3), keepdim=True)  # divides by fan_in - 1
        weight = (self.weight - mean) / ((var * fan_in + 1e-4) ** 0.5)
        return F.conv2d(x, weight * self.gain, self.bias, self.stride, self.padding)


class Wrapped(nn.Module):
    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Neuron(nn.Module):
    """tau = 2, threshold 1, soft reset after the spike."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Any = None
        self.spikes: Any = None  # of the last step, for tests

    def forward(self, x: Tensor) -> Tensor:
        self.v = x if self.v is None else self.v * (1 - 1 / 2.0) + x
        spike = (self.v - 1.0 >= 0).to(x)
        self.v = self.v - spike
        self.spikes = spike
        return spike


class Block(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int, beta: float, wrapped: bool) -> None:
        super().__init__()
        wrap: Any = Wrapped if wrapped else (lambda op: op)
        self.conv1 = wrap(ScaledWSConv2d(inputs, planes, 3, stride, 1))
        self.conv2 = wrap(ScaledWSConv2d(planes, planes, 3, 1, 1))
        self.sn1, self.sn2 = Neuron(), Neuron()
        self.downsample = None
        if stride != 1 or inputs != planes:
            self.downsample = wrap(ScaledWSConv2d(inputs, planes, 1, stride, 0))
        self.beta = beta
        self.skipinit_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        out = self.sn1(x / self.beta) * SCALE
        identity = x if self.downsample is None else self.downsample(out)
        out = self.conv1(out)
        out = self.sn2(out) * SCALE
        out = self.conv2(out)
        return out * self.skipinit_gain * ALPHA + identity


class NFResNet(nn.Module):
    """`channels` is 64 and `depths` (3, 4, 6, 3) in the released network."""

    def __init__(
        self, channels: int, depths: Sequence[int], classes: int, wrapped: bool = True
    ) -> None:
        super().__init__()
        self.conv1 = ScaledWSConv2d(3, channels, 7, 2, 3)
        self.pool = nn.AvgPool2d(3, 2, 1)
        inputs, var = channels, 1.0
        for stage, (name, depth) in enumerate(zip(LAYERS, depths, strict=True)):
            planes = channels * 2**stage
            blocks = []
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                changes = stride != 1 or inputs != planes
                blocks.append(Block(inputs, planes, stride, var**0.5, wrapped))
                var = 1.0 + ALPHA**2 if changes else var + ALPHA**2
                inputs = planes
            setattr(self, name, nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x))
        for name in LAYERS:
            x = getattr(self, name)(x)
        return self.fc(x.mean((2, 3)))
