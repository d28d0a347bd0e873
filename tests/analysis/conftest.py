"""Small networks that spike, and data for them."""

import pytest
import torch

from threefactor import clocked, events


@pytest.fixture
def grid():
    """A clocked network in double precision, and four batches that make it spike."""
    torch.manual_seed(0)
    net = clocked.fc(6, (12, 9), 4).double()
    with torch.no_grad():
        for layer in (net.linear1, net.linear2, net.readout):
            layer.weight.mul_(3.0)
    batches = [
        (torch.randn(5, 6, dtype=torch.float64) + 0.5, torch.randint(0, 4, (5,))) for _ in range(4)
    ]
    rates = clocked.run(net, batches[0][0], steps=4).firing_rates
    assert all(0.05 < rate < 0.95 for rate in rates.values())
    return net, batches


@pytest.fixture
def spiking():
    """A network of exact spike times in double precision, and three batches that make it spike."""
    torch.manual_seed(0)
    net = events.fc(6, (10, 8), 4, tau_s=0.1, thresholds=(0.03, 0.1, 0.1), duration=0.2).double()
    with torch.no_grad():
        for layer in net.layers.values():
            layer.weight.add_(0.2)
    batches = [
        (events.latency_code(torch.rand(5, 6), window=0.1), torch.randint(0, 4, (5,)))
        for _ in range(3)
    ]
    assert all(activity.spikes.counts().mean() > 0.3 for activity in net.run(batches[0][0]))
    return net, batches
