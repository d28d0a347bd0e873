"""Hair triggers: the curves by hand, local gradients by finite differences of the reference."""

import numpy as np
import pytest
import torch
from reference import events as reference

from threefactor import analysis, clocked, events
from threefactor.analysis.single_neuron import FOUR_SPIKES
from threefactor.errors import InputError

TAU_S, THRESHOLD, DURATION = 0.020, 0.010, 0.200
NEURON = reference.Neuron(TAU_S, THRESHOLD, DURATION)
TRAIN = list(FOUR_SPIKES)


def test_factor_curves():
    """tau = 1, theta = 1: 1 / slope, and 1 / (slope + 1)."""
    found = analysis.hair_trigger_factors([1e-3, 1.0, 9.0], tau_s=0.5, threshold=1.0)
    assert found.exact == pytest.approx([1e3, 1.0, 1 / 9], rel=1e-6)
    assert found.modified == pytest.approx([1 / 1.001, 0.5, 0.1])
    assert max(found.modified) < found.bound == 1.0
    with pytest.raises(InputError, match="above 0"):
        analysis.hair_trigger_factors([0.0], tau_s=0.5, threshold=1.0)


def by_differences(weights):
    """The sum of dt_k / dw over the spikes of the reference's neuron."""
    weights, step = np.asarray(weights, float), 1e-6
    sides = []
    for j in range(2):
        pair = []
        for sign in (1, -1):
            moved = weights.copy()
            moved[j] += sign * step
            pair.append(reference.spikes_of_neuron(TRAIN, moved, NEURON).times)
        assert len(pair[0]) == len(pair[1])
        sides.append((np.array(pair[0]) - np.array(pair[1])) / (2 * step))
    return np.stack(sides, axis=1)


def test_gradient_field_by_differences():
    values = [-0.4, 0.73, 1.37]
    field = analysis.gradient_field(values)
    several = 0
    for i, first in enumerate(values):
        for j, second in enumerate(values):
            spikes = reference.spikes_of_neuron(TRAIN, np.array([first, second]), NEURON)
            assert field.spikes[i][j] == len(spikes.times)
            assert (field.nearest[i][j] is None) == (not spikes.times)
            several += len(spikes.times) > 1
            if spikes.times:
                expected = by_differences([first, second])
                assert field.exact[i][j] == pytest.approx(expected.sum(0), rel=1e-5)
                assert np.linalg.norm(field.modified[i][j]) < np.linalg.norm(field.exact[i][j])
    assert several >= 3


def test_neuron_trace_beside_the_reference():
    weights = np.array([0.73, 1.37])
    trace = analysis.neuron_trace(weights, points=57)
    times, w = np.array([t for t, _ in TRAIN]), weights[[j for _, j in TRAIN]]
    spikes = np.array(reference.spikes_of_neuron(TRAIN, weights, NEURON).times)
    assert len(spikes) > 1
    assert trace.spike_times == pytest.approx(spikes)
    for t, u, i in zip(trace.times, trace.potential, trace.current, strict=True):
        assert u == pytest.approx(reference.potential(t, times, w, spikes, NEURON), abs=1e-12)
        assert i == pytest.approx(reference.current(t, times, w, NEURON), abs=1e-12)
    expected = by_differences(weights)
    assert np.array(trace.exact_gradients) == pytest.approx(expected, rel=1e-5)
    theta, tau = NEURON.theta, NEURON.tau
    currents = [reference.current(t, times, w, NEURON) for t in spikes]
    assert trace.exact_factors == pytest.approx([tau / (i - theta) for i in currents])
    assert trace.modified_factors == pytest.approx([tau / i for i in currents])


def test_a_hair_trigger_is_found():
    """A single input spike whose potential peaks just above the threshold, at w / 4."""
    theta = THRESHOLD / (2 * TAU_S)
    weight = 4 * theta * (1 + 1e-6)
    trace = analysis.neuron_trace([weight], train=[(0.0, 0)])
    assert len(trace.spike_times) == 1
    assert trace.exact_factors[0] > 100 * trace.modified_factors[0]
    net = events.fc(1, (), 1, tau_s=TAU_S, thresholds=THRESHOLD, duration=DURATION).double()
    net.readout.weight.data.fill_(weight)
    batch = (events.SpikeBatch.from_lists([[0.0]], [[0]], 1), torch.tensor([0]))
    found = analysis.hair_triggers(net, [batch]).layers["readout"]
    assert (found.spikes, found.share) == (1, 1.0)
    assert found.nearest == pytest.approx(trace.spike_currents[0] / theta - 1)
    ratio = trace.exact_factors[0] / trace.modified_factors[0]
    assert found.largest_ratio == pytest.approx(ratio)
    assert found.gradient_ratio == pytest.approx(ratio)


def test_shares_by_hand(spiking):
    net, batches = spiking
    found = analysis.hair_triggers(net, batches, below=0.5)
    for i, (name, layer) in enumerate(found.layers.items()):
        margins = np.concatenate([net.run(x)[i].currents for x, _ in batches])
        margins = margins / net.layers[name].theta - 1
        assert layer.spikes == len(margins) > 0
        assert layer.share == pytest.approx((margins < 0.5).mean())
        assert layer.nearest == pytest.approx(margins.min())
        assert layer.gradient_ratio > 1
    silent = events.fc(6, (), 2, tau_s=0.1, thresholds=1e3, duration=0.2)
    assert analysis.hair_triggers(silent, batches).layers["readout"].to_dict() == {
        "spikes": 0, "share": None, "nearest": None, "largest_ratio": None, "gradient_ratio": None,
    }  # fmt: skip


def test_bad_input(spiking):
    net, batches = spiking
    with pytest.raises(InputError, match="hair triggers are of exact spike times"):
        analysis.hair_triggers(clocked.fc(2, (3,), 2), batches)
    with pytest.raises(InputError, match="below is 0"):
        analysis.hair_triggers(net, batches, below=0)
    with pytest.raises(InputError, match="no batch"):
        analysis.hair_triggers(net, [])
    with pytest.raises(InputError, match="weights are empty"):
        analysis.gradient_field([])


def test_a_lone_neuron_has_no_cap():
    """All spikes of a strong neuron are there, more than layers have by default."""
    expected = reference.spikes_of_neuron(
        TRAIN, np.array([8.0, 8.0]), reference.Neuron(TAU_S, THRESHOLD, DURATION, cap=1000)
    ).times
    assert len(expected) > 50
    trace = analysis.neuron_trace([8.0, 8.0])
    np.testing.assert_allclose(trace.spike_times, expected, atol=1e-9)
    assert max(trace.potential) < trace.theta * (1 + 1e-9)
    assert analysis.gradient_field([8.0]).spikes == [[len(expected)]]
    for use in (analysis.neuron_trace, analysis.gradient_field):
        with pytest.raises(InputError, match="spike more than 1000 times; give smaller weights"):
            use([300.0, 300.0])
