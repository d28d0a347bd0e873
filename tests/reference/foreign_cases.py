"""Neurons of other libraries, and of one's own, that do what `clocked.LIF()` does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from threefactor import clocked


class Same(nn.Module):
    """`clocked.LIF` in plain PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.u: Tensor | None = None
        self.s: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        u = x if self.u is None else 0.5 * (self.u - self.s) + x
        soft = torch.sigmoid(4.0 * (u - 1.0))
        spikes = (u >= 1.0).to(x) + (soft - soft.detach())
        self.u, self.s = u.detach(), (u >= 1.0).to(x)
        return spikes


clocked.register_neuron(Same, state=("u", "s"), leak=0.5)


def jelly() -> Any:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
    return neuron.LIFNode(
        tau=2.0, decay_input=False, v_reset=None, surrogate_function=surrogate.Sigmoid(4.0)
    )


def leaky() -> Any:
    """Equal while potentials stay below twice the threshold; in single precision, always."""
    snn = pytest.importorskip("snntorch")
    return snn.Leaky(
        beta=0.5, init_hidden=True, reset_delay=False, spike_grad=snn.surrogate.sigmoid(4)
    )


NEURONS = {"own": Same, "spikingjelly": jelly, "snntorch": leaky}
