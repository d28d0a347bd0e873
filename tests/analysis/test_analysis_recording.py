"""What a network does for a sample, beside simulations that are written out line by line."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from threefactor import analysis, clocked, events
from threefactor.errors import InputError


def simulated(weights, inputs, leak, threshold, reset, synaptic=None):
    """One layer of LIF neurons, neuron by neuron and step by step: potentials and spikes."""
    steps, neurons = len(inputs), len(weights)
    potentials, spikes = np.zeros((steps, neurons)), np.zeros((steps, neurons), bool)
    for i in range(neurons):
        u, fired, kept = 0.0, False, 0.0
        for t in range(steps):
            current = sum(float(w) * float(x) for w, x in zip(weights[i], inputs[t], strict=True))
            if synaptic is not None:
                kept = synaptic * kept + current
                current = kept
            if fired:
                u = 0.0 if reset == "zero" else u - threshold
            u = leak * u + current
            fired = u >= threshold
            potentials[t, i], spikes[t, i] = u, fired
    return potentials, spikes


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("cuba", [False, True])
def test_potentials_and_spikes_are_those_of_a_simulation(reset, cuba):
    torch.manual_seed(0)
    options = {"leak": 0.7, "threshold": 0.6, "reset": reset, "dropout": 0.5, "scale": 2.0}
    neuron = clocked.CubaLIF(synaptic_leak=0.5, **options) if cuba else clocked.LIF(**options)
    first = clocked.Linear(5, 9, bias=False)
    network = nn.Sequential(first, neuron, clocked.Linear(9, 3)).double()
    inputs = (torch.rand(8, 4, 5) < 0.4).double() * 2
    found = analysis.record(network, inputs, sample=2)
    weights = first.weight.detach().numpy()
    wanted, fired = simulated(weights, inputs[:, 2].numpy(), 0.7, 0.6, reset, 0.5 if cuba else None)
    assert 5 < fired.sum() < fired.size - 5
    layer = found.layers["1"]
    seen = layer.membranes(range(9))
    np.testing.assert_allclose(seen.potentials, wanted, atol=1e-12)
    assert (seen.spikes == fired).all() and (seen.thresholds == 0.6).all() and not seen.foreign
    assert seen.times.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    spikes = [(t + 1, i) for t in range(8) for i in range(9) if fired[t, i]]
    assert list(zip(layer.times, layer.addresses, strict=True)) == spikes
    assert layer.counts().tolist() == fired.sum(0).tolist()
    shown = found.layers["input"]  # two spikes at once are there twice
    assert len(shown.times) == inputs[:, 2].sum() and found.unit == "time step"
    assert neuron.state is None and network.training


def test_thresholds_of_each_neuron_are_shown():
    levels = torch.tensor([0.5, 1.0, 1.5])
    network = nn.Sequential(
        clocked.Linear(2, 3), clocked.LIF(threshold=levels), clocked.Linear(3, 2)
    )
    found = analysis.record(network, torch.rand(1, 2), steps=4)
    assert found.layers["1"].membranes([2, 0]).thresholds.tolist() == [[1.5, 0.5]] * 4
    assert "input" not in found.layers  # a constant current


def test_layers_of_pictures_and_recurrent_layers_are_recorded():
    torch.manual_seed(0)
    back = clocked.Recurrent(clocked.LIF(threshold=0.2), clocked.Linear(6, 6, bias=False))
    conv = clocked.Conv2d(1, 3, 3, padding=1)
    network = nn.Sequential(
        conv, clocked.LIF(threshold=0.1), nn.Flatten(), clocked.Linear(48, 6), back,
        clocked.Linear(6, 2),
    )  # fmt: skip
    x = torch.rand(2, 1, 4, 4)
    found = analysis.record(network, x, steps=5)
    assert {name: one.neurons for name, one in found.layers.items()} == {"1": 48, "4.neuron": 6}
    with torch.no_grad():  # the first step by hand: a neuron of channel 2, row 1, column 3
        wanted = conv(x)[0, 2, 1, 3]
    seen = found.layers["1"].membranes([2 * 16 + 1 * 4 + 3])
    assert seen.potentials[0, 0] == pytest.approx(float(wanted), rel=1e-6)
    assert found.layers["4.neuron"].membranes([0]).potentials.shape == (5, 1)


def integrated(weights, times, addresses, theta, tau, duration, dt=4e-6):
    """Neurons of exact spike times by Euler steps of the differential equation."""
    steps, neurons = round(duration / dt), weights.shape[1]
    due = np.round(np.asarray(times) / dt).astype(int)
    current, u = np.zeros(neurons), np.zeros(neurons)
    course, spikes = np.zeros((steps, neurons)), []
    for step in range(steps):
        for j in addresses[due == step]:
            current += weights[j]
        u = u + dt * (current - u) / tau
        current = current - dt * current * 2 / tau
        course[step] = u
        for i in np.flatnonzero(u >= theta):
            spikes.append((step * dt, i))
            u[i] = 0.0
    return course, spikes


def test_exact_potentials_are_those_of_the_differential_equation():
    torch.manual_seed(0)
    network = events.fc(
        6, (5,), 3, tau_s=0.02, thresholds=0.008, duration=0.1, weight_ranges=((-0.2, 1.0),)
    )
    inputs = events.latency_code(torch.rand(3, 6), window=0.05)
    found = analysis.record(network, inputs, sample=1)
    layer, first = network.layers["lif1"], found.layers["lif1"]
    weights = layer.weight.detach().double().numpy()
    course, spikes = integrated(weights, *inputs[1], layer.theta, layer.tau, 0.1)
    assert len(spikes) == len(first.times) > 5
    assert sorted(first.addresses) == sorted(i for _, i in spikes)
    for time, neuron in spikes:
        assert np.abs(first.times[first.addresses == neuron] - time).min() < 5e-5
    seen = first.membranes(range(5))
    apart = [min([1.0, *(abs(t - time) for time, _ in spikes)]) for t in seen.times]
    free = (np.array(apart) > 2e-4) & (seen.times < 0.1 - 4e-6)
    assert free.sum() > 300
    places = np.round(seen.times[free] / 4e-6).astype(int)
    np.testing.assert_allclose(seen.potentials[free], course[places], atol=0.01 * layer.theta)
    np.testing.assert_allclose(seen.potentials[seen.spikes], layer.theta, rtol=1e-4)
    after = np.roll(seen.spikes, 1, axis=0)
    assert np.abs(seen.potentials[after]).max() < 1e-4 * layer.theta
    assert found.output.tolist() == network(inputs).counts()[1].tolist()
    assert list(found.layers) == ["input", "lif1", "readout"] and found.unit == "s"
    with pytest.raises(InputError, match="spikes from outside"):
        found.layers["input"].membranes([0])


def test_what_is_no_spike_has_no_raster():
    class Rate(clocked.LIF):
        def activity(self, raw, noise=None):
            return 0.3 * super().activity(raw, noise)

    class Silent(clocked.Neuron):
        def advance(self, current, noise=None):
            self.state = (current.clone(),)
            return torch.zeros_like(current)

        def modulate(self, error, state, gate):
            return error * gate

    network = nn.Sequential(
        clocked.Linear(3, 4), Rate(threshold=1e-3), clocked.Linear(4, 4), Silent(),
        clocked.Linear(4, 2),
    )  # fmt: skip
    found = analysis.record(network, torch.ones(1, 3), steps=2)
    with pytest.raises(InputError, match=r"layer '1' has activities such as 0\.3"):
        found.layers["1"].check_spikes()
    assert math.isfinite(found.layers["1"].membranes([0]).potentials[0, 0])
    assert not len(found.layers["3"].times)
    with pytest.raises(InputError, match=r"'3' there are no potentials: Silent does not say"):
        found.layers["3"].membranes([0])
    for wrong in ([4], [-1], [True], ["a"]):
        with pytest.raises(InputError, match="is not in layer '1'"):
            found.layers["1"].membranes(wrong)


@pytest.mark.parametrize("sample", [2, -1, 0.0, True])
def test_samples_that_are_not_there_are_refused(sample):
    with pytest.raises(InputError, match=r"sample is .*; the batch has 2"):
        analysis.record(clocked.fc(3, (4,), 2), torch.rand(2, 3), steps=2, sample=sample)
    network = events.fc(3, (4,), 2, tau_s=0.1, thresholds=0.1, duration=0.2)
    with pytest.raises(InputError, match=r"sample is .*; the batch has 2"):
        analysis.record(network, events.latency_code(torch.rand(2, 3)), sample=sample)
    with pytest.raises(InputError, match="no time grid"):
        analysis.record(network, events.latency_code(torch.rand(2, 3)), steps=4)


LEVEL = 0.125


def foreign_neuron(kind):
    if kind == "snntorch":
        return pytest.importorskip("snntorch").Leaky(beta=0.8, threshold=LEVEL, init_hidden=True)
    if kind == "spikingjelly":
        neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
        return neuron.LIFNode(tau=2.0, v_threshold=LEVEL)
    if kind == "norse":
        norse = pytest.importorskip("norse.torch")
        # At its usual constants a tenth of the current reaches the potential in a step.
        return norse.LIFBoxCell(norse.LIFBoxParameters(v_th=torch.as_tensor(LEVEL)))
    sinabs = pytest.importorskip("sinabs.layers")
    return sinabs.IAF(spike_threshold=torch.tensor(LEVEL))


class Adopted(nn.Module):
    def __init__(self, neuron):
        super().__init__()
        self.first, self.neuron, self.last = nn.Linear(3, 4), neuron, nn.Linear(4, 2)
        self.state = None

    def forward(self, x):
        given = self.neuron(self.first(x))
        return self.last(given[0] if isinstance(given, tuple) else given)


@pytest.mark.parametrize("kind", ["snntorch", "spikingjelly", "norse", "sinabs"])
def test_layers_of_other_libraries_show_what_they_keep(kind):
    torch.manual_seed(0)
    neuron = foreign_neuron(kind)
    network = Adopted(neuron)
    torch.nn.init.uniform_(network.first.weight, 0.1, 0.9)
    x = torch.rand(2, 3) + 0.5
    found = analysis.record(network, x, steps=6, sample=1)
    seen = found.layers["neuron"].membranes([0, 1, 2, 3])
    assert seen.foreign and seen.spikes.any() and (seen.thresholds == LEVEL).all()
    # Step by step by the layer itself.
    current, memory = network.first(x).detach(), None
    for t in range(6):
        if kind == "norse":
            spikes, memory = neuron(current, memory)
            potential = memory.v
        elif kind == "sinabs":
            spikes = neuron(current.unsqueeze(1)).squeeze(1)
            potential = neuron.v_mem
        else:
            spikes = neuron(current)
            potential = neuron.mem if kind == "snntorch" else neuron.v
        np.testing.assert_allclose(seen.potentials[t], potential[1].detach(), atol=1e-6)
        assert (seen.spikes[t] == (spikes[1] != 0).numpy()).all()


def test_one_state_of_a_registered_neuron_is_its_potential():
    class Own(nn.Module):
        def __init__(self, names):
            super().__init__()
            for name in names:
                setattr(self, name, None)

        def forward(self, x):
            self.v = x if self.v is None else 0.5 * self.v + x
            spikes = (self.v >= 1).to(x) + torch.sigmoid(self.v) - torch.sigmoid(self.v).detach()
            if hasattr(self, "w"):
                self.w = self.v.detach()
            return spikes

    class Two(Own):
        pass

    clocked.register_neuron(Own, state=("v",), leak=0.5)
    clocked.register_neuron(Two, state=("v", "w"), leak=0.5)
    x = torch.rand(1, 3)
    found = analysis.record(Adopted(Own(("v",))), x, steps=3).layers["neuron"].membranes([0])
    assert np.isnan(found.thresholds).all() and np.isfinite(found.potentials).all()
    with pytest.raises(InputError, match="Two keeps its state in v, w, and it is not known"):
        analysis.record(Adopted(Two(("v", "w"))), x, steps=3).layers["neuron"].membranes([0])


def test_a_recording_stays_when_the_network_learns():
    """Potentials are computed when they are asked for: with the weights that the spikes met."""
    torch.manual_seed(0)
    network = events.fc(4, (3,), 2, tau_s=0.02, thresholds=0.01, duration=0.1)
    inputs = events.latency_code(torch.rand(2, 4), window=0.05)
    layer = analysis.record(network, inputs).layers["lif1"]
    before = layer.membranes([0, 1]).potentials
    with torch.no_grad():
        network.lif1.weight.add_(1.0)
    assert np.array_equal(layer.membranes([0, 1]).potentials, before) and before.any()


def test_the_output_is_what_the_loss_reads():
    network = events.fc(1, (), 2, tau_s=0.02, thresholds=0.001, duration=0.1).double()
    network.readout.weight.data = torch.tensor([[1.0, 2.0]]).double()
    network.readout.max_spikes = 1
    inputs = events.SpikeBatch.from_lists([[0.05], [0.01]], [[0], [0]], 1)
    assert analysis.record(network, inputs, sample=1).output.tolist() == [1, 1]
    found = analysis.record(network, inputs, sample=1, loss=events.FirstSpike(0.02, 0.04))
    assert found.output.tolist() == (-network(inputs)[1][0][::-1]).tolist()
    assert found.output.argmax() == 1 and found.output[1] > found.output[0] > -0.03
