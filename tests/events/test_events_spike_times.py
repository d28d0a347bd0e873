"""Spike times of the compiled kernels against slow solutions of the neuron's equation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from reference import events as slow
from reference.events_cases import (
    TAU_S,
    assert_alive,
    assert_equal_spikes,
    make_inputs,
    make_network,
    margin,
    neurons,
    set_weights,
    sound,
    trains,
    weights,
)

from threefactor import events

Runs = list[list[slow.LayerRun]]
SIZES = {"one layer": (6, 3), "two layers": (6, 5, 3), "three layers": (6, 5, 4, 3)}
LONG_SPANS = [(1, 1), (2, 4), (3, 4)]
every_depth = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
search = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


def reference_runs(net: events.Network, inputs: events.SpikeBatch) -> Runs:
    return [slow.run_network(train, weights(net), neurons(net)) for train in trains(inputs)]


def assert_spikes(result: events.Result, runs: Runs, tolerance: float) -> int:
    """Every neuron of every sample spikes as in the reference; returns how many spikes that is."""
    compared = 0
    for layer, spikes in enumerate(result.spikes.values()):
        for b, run in enumerate(runs):
            times, addresses = spikes.sample(b)
            assert np.all(np.diff(times) >= 0)
            for i, expected in enumerate(run[layer].neurons):
                actual = times[addresses == i]
                assert len(actual) == len(expected.times), f"layer {layer}, {b=}, neuron {i}"
                np.testing.assert_allclose(actual, expected.times, rtol=0, atol=tolerance)
                compared += len(actual)
    capped = [sum(run[layer].capped for run in runs) for layer in range(len(runs[0]))]
    assert list(result.capped.values()) == capped
    return compared


# The reference itself


@pytest.mark.parametrize("seed", range(1, 7))
def test_reference_solves_the_differential_equation(seed: int) -> None:
    """Bracketing on the formula gives what the integrated differential equation gives."""
    net, inputs = make_network((6, 3), seed=seed), make_inputs(seed=seed)
    (n,), (weight,) = neurons(net), weights(net)
    compared = 0
    for train in trains(inputs):
        for w in weight.T:
            found = slow.spikes_of_neuron(train, w, n)
            assert found.margin > 1e-6
            np.testing.assert_allclose(found.times, slow.spikes_by_ode(train, w, n), atol=1e-10)
            for k, t in enumerate(found.times):
                times, addresses = zip(*train, strict=True)
                u = slow.potential(
                    t, np.array(times), w[list(addresses)], np.array(found.times[:k]), n
                )
                assert u == pytest.approx(n.theta, rel=1e-9)
            compared += len(found.times)
    assert compared > 10


# Random networks


@every_depth
@pytest.mark.parametrize("seed", range(1, 5))
def test_random_networks(sizes: tuple[int, ...], seed: int) -> None:
    net, inputs = make_network(sizes, seed=seed), make_inputs(seed=seed + 10)
    assert margin(net, inputs) > 1e-5
    result = events.run(net, inputs)
    assert_alive(result)
    assert assert_spikes(result, reference_runs(net, inputs), 1e-10) > 10


@st.composite
def cases(draw: Any) -> tuple[events.Network, events.SpikeBatch]:
    """Any network, with ties, silent and strong synapses, empty samples and long gaps."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    tau_s = draw(st.sampled_from([0.001, 0.02, 0.13, 1.0]))
    span = draw(st.sampled_from([1.0, 3.0, 8.0, 2000.0]))
    thresholds = [2 * tau_s * draw(st.floats(0.05, 0.6)) for _ in sizes[1:]]
    first, *hidden, last = sizes
    net = events.fc(
        first, hidden, last, tau_s=tau_s, thresholds=thresholds, duration=tau_s * span,
        max_spikes=draw(st.sampled_from([3, 30])),
    ).double()  # fmt: skip
    value = st.floats(-1.0, 3.0) | st.sampled_from([0.0, 1.0, -1.0, 2.5])
    values = [
        [[draw(value) for _ in range(n_out)] for _ in range(n_in)]
        for n_in, n_out in itertools.pairwise(sizes)
    ]
    set_weights(net, values)
    moment = st.floats(0.0, 8.0) | st.sampled_from([0.0, 0.5, 1.0, 1000.0, 1000.5])
    spike = st.tuples(moment, st.integers(0, first - 1))
    samples = draw(st.lists(st.lists(spike, max_size=10), min_size=1, max_size=3))
    inputs = events.SpikeBatch.from_lists(
        [[tau_s * t for t, _ in sample] for sample in samples],
        [[j for _, j in sample] for sample in samples],
        first,
    )
    return net, inputs


def test_any_network() -> None:
    seen = {"spikes": 0, "several in one interval": 0, "final interval": 0, "capped": 0, "tied": 0}
    deep: set[int] = set()

    @search
    @given(cases())
    def check(case: tuple[events.Network, events.SpikeBatch]) -> None:
        net, inputs = case
        runs = reference_runs(net, inputs)
        assume(min(layer.margin for run in runs for layer in run) > 1e-3)
        tau_s = net.readout.tau_s
        # Far from zero, times themselves are known to some 1e-13 of the duration.
        tolerance = 1e-7 * tau_s + 1e-12 * net.readout.duration
        result = events.run(net, inputs)
        compared = assert_spikes(result, runs, tolerance)
        seen["spikes"] += compared
        if compared:
            deep.add(sum(len(s.times) > 0 for s in result.spikes.values()))
        seen["tied"] += int(np.sum(np.diff(inputs.times) == 0))
        for train, run in zip(trains(inputs), runs, strict=True):
            within = sum(t < net.readout.duration for t, _ in train)
            for neuron in run[0].neurons:
                parents = neuron.parents
                seen["several in one interval"] += len(parents) - len(set(parents))
                seen["final interval"] += sum(z == within - 1 for z in parents)
            seen["capped"] += sum(layer.capped for layer in run)

    check()
    assert seen["spikes"] > 300 and min(seen.values()) > 10, seen
    assert deep == {1, 2, 3}


# Where rounding could tip a spike over


@st.composite
def lone_neurons(draw: Any) -> tuple[slow.Train, np.ndarray, float]:
    """A neuron, its inputs and the largest potential that they raise in it."""
    size = draw(st.integers(1, 5))
    weights = st.floats(0.2, 2.0) | st.floats(-0.5, 2.0).filter(lambda w: abs(w) > 1e-6)
    w = np.array([draw(weights) for _ in range(size)])
    times = draw(st.lists(st.floats(0.0, 4.0), min_size=size, max_size=12))
    train = sorted((TAU_S * t, z % size) for z, t in enumerate(times))
    peak = slow.highest_potential(train, w, slow.Neuron(TAU_S, 1.0, 8 * TAU_S))
    assume(peak > 0.03 * sum(abs(w[j]) for _, j in train))
    return train, w, peak


@pytest.mark.parametrize("distance", [1e-6, 1e-8, 1e-10, 1e-12])
@pytest.mark.parametrize("side", ["above", "below"])
def test_hair_triggers(distance: float, side: str) -> None:
    """A peak that passes the threshold by a hair makes a spike, one that misses it none."""
    touched = []

    @settings(search, max_examples=40)
    @given(lone_neurons())
    def check(case: tuple[slow.Train, np.ndarray, float]) -> None:
        train, w, peak = case
        theta = peak * (1 - distance if side == "above" else 1 + distance)
        n = slow.Neuron(TAU_S, theta * 2 * TAU_S, 8 * TAU_S)
        net = events.fc(
            len(w), (), 1, tau_s=TAU_S, thresholds=n.threshold, duration=n.duration
        ).double()  # fmt: skip
        set_weights(net, [w[:, None]])
        inputs = events.SpikeBatch.from_lists(
            [[t for t, _ in train]], [[j for _, j in train]], len(w)
        )
        spikes = net(inputs)
        expected = slow.spikes_of_neuron(train, w, n).times
        assert len(expected) == 0 if side == "below" else len(expected) >= 1
        assert len(spikes.times) == len(expected)
        np.testing.assert_allclose(spikes.times, expected, rtol=0, atol=1e-7 * TAU_S)
        touched.append(len(train))

    check()
    assert len(touched) >= 30 and max(touched) > 3


def border_case(second: float, weight: float) -> tuple[events.Network, events.SpikeBatch]:
    net = make_network((2, 1), threshold=0.2 * 2 * TAU_S)
    set_weights(net, [[[1.0], [weight]]])
    return net, events.SpikeBatch.from_lists([[0.0, second]], [[0, 1]], 2)


def first_spike() -> float:
    """When a neuron at threshold 0.2 spikes after a lone input of weight 1: y - y^2 = 0.2."""
    return -2 * TAU_S * math.log((1 + math.sqrt(1 - 0.8)) / 2)


@pytest.mark.parametrize("weight", [2.0, 0.1, -0.1])
@pytest.mark.parametrize("shift", [0.0, 1e-15, -1e-15, 1e-14, -1e-14, 1e-12, -1e-12, 1e-9, -1e-9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_spike_at_the_border_of_an_interval(
    weight: float, shift: float, dtype: torch.dtype
) -> None:
    """An input at the moment of a spike neither swallows nor doubles it."""
    net, inputs = border_case(first_spike() + shift * TAU_S, weight)
    (run,) = reference_runs(net, inputs)
    spikes = net.to(dtype)(inputs)
    exact = dtype == torch.float64
    expected = run[0].neurons[0].times
    assert len(spikes.times) == len(expected) >= 1
    np.testing.assert_allclose(spikes.times, expected, rtol=0, atol=1e-13 if exact else 1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shift", [0.0, 1e-16, -1e-16, 3e-8, -3e-8])
def test_no_spike_is_lost_between_two_intervals(shift: float, dtype: torch.dtype) -> None:
    """Inputs without weight at the moments of 1,000 neurons' spikes change nothing.

    Rounding may put a crossing after the end of one interval and before the start of the next.
    """
    net = make_network((2, 1000), threshold=0.2 * 2 * TAU_S, duration=0.4, dtype=dtype)
    w = np.random.default_rng(9).uniform(0.9, 3.0, 1000)
    set_weights(net, [[w, np.zeros(1000)]])
    lone = events.SpikeBatch.from_lists([[0.0]], [[0]], 2)
    expected = net(lone)
    times = np.sort(expected.times * (1 + shift))
    crowded = events.SpikeBatch.from_lists([[0.0, *times]], [[0] + [1] * len(times)], 2)
    spikes = net(crowded)
    assert len(expected.times) > 2000
    assert np.array_equal(spikes.counts(), expected.counts())
    for i in range(0, 1000, 50):
        np.testing.assert_allclose(
            spikes.times[spikes.addresses == i], expected.times[expected.addresses == i],
            rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-4 * TAU_S,
        )  # fmt: skip


@pytest.mark.parametrize(("shift", "count"), [(1e-9, 1), (-1e-9, 0)])
def test_strong_inhibition_just_after_or_before_a_spike(shift: float, count: int) -> None:
    net, inputs = border_case(first_spike() * (1 + shift), -50.0)
    assert len(net(inputs).times) == count


@pytest.mark.parametrize(("shift", "count"), [(1e-9, 1), (-1e-9, 0)])
def test_spike_just_before_or_after_the_end(shift: float, count: int) -> None:
    net, inputs = border_case(10.0, 1.0)
    net.readout.duration = first_spike() * (1 + shift)
    assert len(net(inputs).times) == count


@pytest.mark.parametrize("step", [1e-3, 1e-6, 1e-9])
def test_crowded_inputs(step: float) -> None:
    """Intervals far shorter than the time constant: a spike is near a border whatever happens."""
    rng = np.random.default_rng(4)
    times = np.cumsum(rng.uniform(0, 2 * step * TAU_S, 400)) + 0.3 * TAU_S
    addresses = rng.integers(2, size=400)
    net = make_network((3, 2), threshold=0.2 * 2 * TAU_S)
    set_weights(net, [[[0.02, 0.01], [-0.01, 0.03], [0.79, 0.79]]])
    inputs = events.SpikeBatch.from_lists([[0.0, *times]], [[2, *addresses]], 3)
    runs = reference_runs(net, inputs)
    assert margin(net, inputs) > 0 and assert_spikes(events.run(net, inputs), runs, 1e-10) >= 2
    assert_spikes(events.run(net.float(), inputs), runs, 1e-3 * TAU_S)


# Single precision


@every_depth
def test_single_precision(sizes: tuple[int, ...]) -> None:
    """Where no spike is near a hair trigger, single precision gives the same spikes."""

    def make(seed: int) -> tuple[events.Network, events.SpikeBatch]:
        return make_network(sizes, seed=seed), make_inputs(2, seed=seed + 10)

    for seed in sound(make, 2e-3, 4):
        net, inputs = make(seed)
        runs = reference_runs(net, inputs)
        set_weights(net, [w.astype(np.float32) for w in weights(net)])
        assert assert_spikes(events.run(net.float(), inputs), runs, 5e-4 * TAU_S) > 3


def long_span(depth: int, seed: int) -> tuple[events.Network, events.SpikeBatch]:
    """Bursts of a few milliseconds, minutes apart, at time constants of 1 ms."""
    tau_s, duration = 0.001, 1000.0
    sizes = (4, 4, 3, 3)[: depth + 1]
    rng = np.random.default_rng(seed)
    bursts = [0.0, *rng.uniform(1.0, 999.0, 3), duration - 0.004]
    times = np.concatenate([start + rng.uniform(0, 0.003, 6) for start in bursts])
    addresses = rng.integers(4, size=len(times))
    net = make_network(
        sizes, threshold=[0.0003, 0.0007, 0.0007][:depth], tau_s=tau_s, duration=duration,
        seed=seed, max_spikes=1000, shift=0.4, gain=0.6,
    )  # fmt: skip
    set_weights(net, [w.astype(np.float32) for w in weights(net)])
    inputs = events.SpikeBatch.from_lists(
        [times, times[:12], []], [addresses, addresses[:12], []], 4
    )
    return net, inputs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("depth", "seed"), LONG_SPANS)
def test_long_spans(depth: int, seed: int, dtype: torch.dtype) -> None:
    """1,000 seconds: exp(t / tau_s), taken at its word, would be exp(1,000,000)."""
    net, inputs = long_span(depth, seed)
    assert margin(net, inputs) > 2e-3, "choose another seed"
    runs = reference_runs(net, inputs)
    result = events.run(net.to(dtype), inputs)
    compared = assert_spikes(result, runs, 1e-9 if dtype == torch.float64 else 1e-6)
    last = result.spikes["readout"].times
    assert compared > 20 and last.max() > 999 and last.min() < 1


# The cap


@every_depth
@pytest.mark.parametrize("cap", [1, 2, 5])
def test_cap(sizes: tuple[int, ...], cap: int) -> None:
    """Later spikes are missing, and neurons that would have spiked on are counted."""
    net, inputs = make_network(sizes, seed=2, max_spikes=cap), make_inputs(seed=11)
    runs = reference_runs(net, inputs)
    assert min(layer.margin for run in runs for layer in run) > 1e-6
    result = events.run(net, inputs)
    assert assert_spikes(result, runs, 1e-10) > 5 * cap
    assert all(s.counts().max() <= cap for s in result.spikes.values())
    free = make_network(sizes, seed=2, max_spikes=10_000)
    (first, *_), (uncut, *_) = result.spikes.values(), events.run(free, inputs).spikes.values()
    over = int(np.sum(uncut.counts() > cap))
    assert over > 2 and next(iter(result.capped.values())) == over
    for b in range(len(inputs)):
        (times, addresses), (all_times, all_addresses) = first.sample(b), uncut.sample(b)
        for i in range(sizes[1]):
            expected = all_times[all_addresses == i][:cap]
            assert np.array_equal(times[addresses == i], expected)


def test_no_cap_is_reported_at_exactly_the_cap() -> None:
    """A neuron that spikes as often as it may, and would not again, is not capped."""
    free, inputs = make_network((6, 3)), make_inputs(seed=11)
    counts = free(inputs).counts()
    most = int(counts.max())
    assert most > 3
    exact = events.run(make_network((6, 3), max_spikes=most), inputs)
    assert exact.capped == {"readout": 0}
    short = events.run(make_network((6, 3), max_spikes=most - 1), inputs)
    assert short.capped == {"readout": int(np.sum(counts == most))}


# Room


@every_depth
def test_more_spikes_than_the_first_guess_of_memory(sizes: tuple[int, ...]) -> None:
    """The working memory grows with the spikes, and none is lost."""
    settings: dict[str, Any] = {"shift": 0.6, "threshold": 0.012, "seed": 2, "max_spikes": 1000}
    few, many = make_inputs(2, per_address=0.5, seed=4), make_inputs(3, per_address=2, seed=5)
    net = make_network(sizes, **settings)
    fresh = events.run(net, many)
    most = [int(np.diff(s.offsets).max()) for s in fresh.spikes.values()]
    assert all(k > 1.3 * 2 * n for k, n in zip(most, sizes[1:], strict=True)), most
    if len(sizes) < 4:
        assert assert_spikes(fresh, reference_runs(net, many), 1e-9) > 90
    other = make_network(sizes, **settings)
    for batch in (few[:1], many, few, many):
        result = events.run(other, batch)
        expected = fresh if batch is many else events.run(make_network(sizes, **settings), batch)
        for name, spikes in expected.spikes.items():
            assert_equal_spikes(result.spikes[name], spikes)


def test_rounding_puts_no_spike_behind_its_interval() -> None:
    """Single precision; one spike of 200,000 came behind one of the next interval, and its layer's
    output was refused by the next layer."""
    random = np.random.default_rng(842)
    layer = events.Layer(6, 300, tau_s=0.02, threshold=0.005, duration=0.1, max_spikes=200)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(random.uniform(0, 2.3, (6, 300))))
    times = np.round(np.sort(random.random((4, 100)), 1) * 0.1, 3)
    inputs = events.SpikeBatch.from_lists(list(times), list(random.integers(6, size=(4, 100))), 6)
    activity = layer.run(inputs)
    next_layer = events.Layer(300, 3, tau_s=0.02, threshold=0.005, duration=0.1)
    assert len(next_layer(activity.spikes)) == 4
    moved = 0
    for b in range(4):
        given, found = inputs.sample(b)[0], activity.spikes.sample(b)[0]
        parents = activity.parents[slice(*activity.spikes.offsets[b : b + 2])]
        until = np.append(given[1:], 0.1)[parents]
        assert np.all(np.diff(found) >= 0) and np.all(found >= given[parents])
        assert np.all(found <= until + 1e-8)
        moved += int(np.sum((np.diff(found) == 0) & (np.diff(parents) > 0)))
    assert moved == 1
