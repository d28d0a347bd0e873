"""Firing rates, silent and saturated neurons."""

import pytest
import torch

from threefactor import clocked, events
from threefactor.analysis import firing
from threefactor.errors import InputError


def test_by_hand():
    """Neuron 0 spikes at every step, 1 never, 2 at every second step, 3 for one sample alone."""
    net = clocked.fc(2, (4,), 2, leak=1.0, dropout=0.5)
    net.linear1.weight.data = torch.tensor([[9.0, 0.0], [-9.0, 0.0], [0.5, 0.0], [0.0, 9.0]])
    net.linear1.bias.data.zero_()
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    found = firing(net, [(x, torch.zeros(2))], steps=4)
    layer = found.layers["lif1"]
    assert layer.rate == found.total_rate == pytest.approx((4 + 0 + 2 + 2) / 16)
    assert (layer.silent, layer.saturated) == (0.25, 0.25)
    assert layer.silent_samples == (2 + 1) / 8
    assert net.training and found.unit == "spikes per neuron and step"
    assert not net.lif1._forward_hooks
    # In another batch the silent neuron spikes, and the saturated one does not.
    both = firing(net, [(x, torch.zeros(2)), (-x, torch.zeros(2))], steps=4).layers["lif1"]
    assert (both.silent, both.saturated) == (0.0, 0.0)


def test_the_total_counts_every_neuron_once(grid):
    net, batches = grid
    found = firing(net, batches, steps=4)
    one, two = found.layers["lif1"], found.layers["lif2"]
    assert (one.neurons, two.neurons) == (12, 9)
    assert found.total_rate == pytest.approx((12 * one.rate + 9 * two.rate) / 21)
    rates = [clocked.run(net, x, steps=4).firing_rates["lif1"] for x, _ in batches]
    assert one.rate == pytest.approx(float(sum(rates)) / 4)


def test_sequences_of_several_lengths_count_by_their_steps():
    torch.manual_seed(0)
    net = clocked.fc(3, (5,), 2, threshold=0.3)
    batches = [
        (torch.rand(length, size, 3), torch.zeros(size)) for length, size in ((4, 2), (9, 3))
    ]
    sums, steps = 0.0, 0
    for x, _ in batches:
        for sample in range(x.shape[1]):
            rate = clocked.run(net, x[:, [sample]]).firing_rates["lif1"]
            sums, steps = sums + float(rate) * len(x), steps + len(x)
    assert steps == 2 * 4 + 3 * 9
    for given in (batches, batches[::-1]):
        found = firing(net, given)
        assert found.layers["lif1"].rate == found.total_rate == pytest.approx(sums / steps)


def test_layers_that_never_run_are_left_out():
    net = clocked.fc(3, (5,), 2, threshold=0.3)
    net.spare = clocked.LIF()
    net.forward = lambda x: net.readout(net.lif1(net.linear1(x)))
    assert list(clocked.run(net, torch.rand(2, 3), steps=2).firing_rates) == ["lif1"]
    assert list(firing(net, [(torch.rand(2, 3), torch.zeros(2))], steps=2).layers) == ["lif1"]


def test_exact_spike_times(spiking):
    net, batches = spiking
    found = firing(net, batches)
    for i, (name, layer) in enumerate(found.layers.items()):
        counts = torch.cat([torch.tensor(net.run(x)[i].spikes.counts()) for x, _ in batches])
        most = net.layers[name].max_spikes
        assert layer.rate == pytest.approx(float(counts.double().mean()))
        assert layer.silent == pytest.approx(float((counts == 0).all(0).double().mean()))
        assert layer.saturated == pytest.approx(float((counts == most).all(0).double().mean()))
        assert layer.silent_samples == pytest.approx(float((counts == 0).double().mean()))
    assert any(layer.silent_samples > 0 for layer in found.layers.values())


def test_saturation_of_exact_spike_times():
    net = events.fc(1, (2,), 1, tau_s=0.1, thresholds=0.001, duration=0.2, max_spikes=3)
    net.lif1.weight.data = torch.tensor([[5.0, -5.0]])
    batch = (events.SpikeBatch.from_lists([[0.0]], [[0]], 1), torch.tensor([0]))
    layer = firing(net, [batch]).layers["lif1"]
    assert (layer.saturated, layer.silent, layer.rate) == (0.5, 0.5, 1.5)


def test_bad_input(grid, spiking):
    with pytest.raises(InputError, match="no batch"):
        firing(grid[0], [], steps=4)
    with pytest.raises(InputError, match="no time grid"):
        firing(spiking[0], spiking[1], steps=4)
