"""Gradients of spike times: against the slow recursion, sums over all paths, and differences."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from reference import events as slow
from reference.events_cases import (
    BATCH,
    DURATION,
    OUTPUTS,
    TAU_S,
    assert_alive,
    assert_near,
    chosen_errors,
    gradients,
    make_inputs,
    make_labels,
    make_network,
    margin,
    neurons,
    rule_of,
    set_weights,
    sound,
    trains,
    weights,
)

from threefactor import events

SIZES = {"one layer": (6, 3), "two layers": (6, 5, 3), "three layers": (6, 5, 4, 3)}
every_depth = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
every_local = pytest.mark.parametrize("local", ["exact", "modified"])
FEEDBACK = [name for name, rule in events.RULES.items() if issubclass(rule, events.FeedbackRule)]
every_feedback = pytest.mark.parametrize("name", FEEDBACK)
every_rule = pytest.mark.parametrize("name", events.RULES)
RATES: dict[str, Any] = {"rate_penalty": 0.7, "rate_target": 2.5}


def case(sizes: tuple[int, ...], seed: int) -> tuple[events.Network, events.SpikeBatch]:
    return make_network(sizes, seed=seed), make_inputs(seed=seed + 10)


def own_trains(result: events.Result) -> list[list[slow.Train]]:
    """For each sample, the train of each layer."""
    layers = [trains(spikes) for spikes in result.spikes.values()]
    return [list(sample) for sample in zip(*layers, strict=True)]


def errors_of_spikes(train: slow.Train, errors: np.ndarray) -> np.ndarray:
    return np.array([errors[i] for _, i in train])


def count_errors(result: events.Result, labels: torch.Tensor) -> np.ndarray:
    """e_o / B of each sample, by the reference."""
    rows = result.output.double().numpy()
    pairs = [slow.count_loss(row, int(y), 15.0, 3.0) for row, y in zip(rows, labels, strict=True)]
    assert float(result.loss) == pytest.approx(np.mean([p[0] for p in pairs]), rel=1e-5)
    return np.array([p[1] for p in pairs]) / len(rows)


def hidden_counts(runs: list[list[slow.Train]], net: events.Network) -> list[np.ndarray]:
    """(B, n_l) spike counts of each hidden layer."""
    sizes = [layer.neurons for layer in net.layers.values()][:-1]
    return [
        np.array([slow.count(sample[i], size) for sample in runs]) for i, size in enumerate(sizes)
    ]


# Against the reference


@every_depth
@every_local
@every_feedback
@pytest.mark.parametrize("traces", ["summed", "forward"])
@pytest.mark.parametrize("rates", [{}, RATES], ids=["", "rates"])
@pytest.mark.parametrize("by_count", [False, True], ids=["", "by count"])
def test_feedback_rules(
    sizes: tuple[int, ...],
    local: str,
    name: str,
    traces: str,
    rates: dict[str, Any],
    by_count: bool,
) -> None:
    """Each layer gets sum_b sum_k error_i dt_k/dw_ij, the recursion run forward in time.

    By count, each sample's sum over k is divided by the neuron's number of spikes.
    """
    net, inputs = case(sizes, seed=3)
    labels = make_labels()
    rule = rule_of(
        name, net, local_gradient=local, traces=traces, normalise_by_count=by_count, **rates
    )
    feedback = [b.matrix.numpy().T.copy() for b in rule.feedback]
    result = rule.step(inputs, labels)
    assert_alive(result)
    output_errors, runs = count_errors(result, labels), own_trains(result)
    counts = hidden_counts(runs, net)
    values, constants = weights(net), neurons(net)
    expected = [np.zeros(w.shape) for w in values]
    for b, train in enumerate(trains(inputs)):
        chain = [train, *runs[b]]
        for layer, (w, n) in enumerate(zip(values, constants, strict=True)):
            errors = output_errors[b]
            if layer < len(values) - 1:
                errors = feedback[layer] @ errors
                if rates:
                    r = slow.rate_errors(list(counts[layer]), **_named(rates))
                    errors = errors + r / len(runs)
            seen, own = chain[layer], chain[layer + 1]
            if by_count:
                part = slow.weight_gradient_by_count(seen, w, own, errors, n, local == "exact")
            else:
                q = errors_of_spikes(own, errors)
                part = slow.weight_gradient(seen, w, own, q, n, local == "exact")
            expected[layer] += part
    for actual, wanted in zip(gradients(net), expected, strict=True):
        assert_near(actual, wanted, 1e-9)


def _named(rates: dict[str, Any]) -> dict[str, float]:
    return {"penalty": rates["rate_penalty"], "target": rates["rate_target"]}


@every_depth
@every_local
@pytest.mark.parametrize("rates", [{}, RATES], ids=["", "rates"])
def test_exact_bp(sizes: tuple[int, ...], local: str, rates: dict[str, Any]) -> None:
    """The sum over every path from a weight to an output spike."""
    net, inputs = case(sizes, seed=3)
    labels = make_labels()
    rule = rule_of("exact-bp", net, local_gradient=local, **rates)
    result = rule.step(inputs, labels)
    output_errors, runs = count_errors(result, labels), own_trains(result)
    extra = None
    if rates:
        counts = hidden_counts(runs, net)
        extra = [slow.rate_errors(list(c), **_named(rates)) / len(runs) for c in counts]
    expected = [np.zeros(w.shape) for w in weights(net)]
    for b, train in enumerate(trains(inputs)):
        q = errors_of_spikes(runs[b][-1], output_errors[b])
        parts = slow.backpropagate(
            train, weights(net), runs[b], q, neurons(net), local == "exact", extra
        )
        for total, part in zip(expected, parts, strict=True):
            total += part
    for actual, wanted in zip(gradients(net), expected, strict=True):
        assert_near(actual, wanted, 1e-9)


# Against finite differences


def moments(net: events.Network, inputs: events.SpikeBatch, q: np.ndarray) -> tuple[float, Any]:
    """sum_b sum_k q_bo t_k over the output's spikes, and the spike counts of every layer."""
    result = events.run(net, inputs)
    last = result.spikes["readout"]
    samples = np.repeat(np.arange(len(last)), np.diff(last.offsets))
    counts = [spikes.counts() for spikes in result.spikes.values()]
    return float(np.sum(q[samples, last.addresses] * last.times)), counts


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_exact_bp_is_the_derivative_of_spike_times(depth: int) -> None:
    """d/dw of sum q_k t_k at fixed q, by central differences, through every layer."""
    sizes = (*(5, 4, 4)[:depth], OUTPUTS)
    q = np.random.default_rng(5).normal(size=(2, OUTPUTS))

    def make(seed: int) -> tuple[events.Network, events.SpikeBatch]:
        return make_network(sizes, seed=seed), make_inputs(2, 5, seed=seed + 20)

    deep = 0
    for seed in sound(make, 3e-3, 4):
        net, inputs = make(seed)
        rule = events.ExactBP(net, loss=chosen_errors(q))
        result = rule.step(inputs, make_labels(2))
        if min(len(s.times) for s in result.spikes.values()) < 4:
            continue
        deep += 1
        _, before = moments(net, inputs, q)
        h = 1e-7
        for weight, gradient in zip(net.parameters(), gradients(net), strict=True):
            numeric = np.zeros(weight.shape)
            with torch.no_grad():
                for at in np.ndindex(*weight.shape):
                    kept = float(weight[at])
                    values = []
                    for side in (h, -h):
                        weight[at] = kept + side
                        value, counts = moments(net, inputs, q)
                        assert all(map(np.array_equal, counts, before)), "a spike came or went"
                        values.append(value)
                    weight[at] = kept
                    numeric[at] = (values[0] - values[1]) / (2 * h)
            assert_near(gradient, numeric, 2e-6)
    assert deep >= 2, "hardly a network spikes in every layer: nothing is compared"


@pytest.mark.parametrize("name", FEEDBACK)
def test_exact_local_gradient_is_the_derivative_of_hidden_spike_times(name: str) -> None:
    """What a feedback rule gives a layer is d/dw of sum error_i t_k with its inputs fixed."""
    net, inputs = case((6, 5, 3), seed=3)
    rule = rule_of(name, net, local_gradient="exact")
    labels = make_labels()
    result = rule.step(inputs, labels)
    errors = count_errors(result, labels) @ rule_of(name, net).feedback[0].matrix.numpy()
    layer, h = net.lif1, 1e-7
    numeric = np.zeros(layer.weight.shape)
    with torch.no_grad():
        for at in np.ndindex(*layer.weight.shape):
            values = []
            for side in (h, -2 * h):
                layer.weight[at] += side
                spikes = layer(inputs)
                samples = np.repeat(np.arange(BATCH), np.diff(spikes.offsets))
                values.append(np.sum(errors[samples, spikes.addresses] * spikes.times))
            layer.weight[at] += h
            numeric[at] = (values[0] - values[1]) / (2 * h)
    assert_near(gradients(net)[0], numeric, 1e-5)


# Properties


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-10), (torch.float32, 1e-5)],
    ids=["double", "single"],
)
@every_local
@every_feedback
def test_forward_traces_equal_summed(
    name: str, local: str, dtype: torch.dtype, tolerance: float
) -> None:
    """Eligibility traces that run forward, and sums over later spikes, are one number."""
    found = []
    for traces in ("summed", "forward"):
        net = make_network((20, 30, 17, 5), dtype=dtype, shift=0.1, gain=0.9, max_spikes=200)
        inputs, labels = make_inputs(8, 20, seed=4), make_labels(8, 5)
        rule = rule_of(name, net, traces=traces, local_gradient=local)
        assert_alive(rule.step(inputs, labels))
        found.append(gradients(net))
    for summed, forward in zip(*found, strict=True):
        assert_near(forward, summed, tolerance)


def first_factors(
    net: events.Network, inputs: events.SpikeBatch, local: str
) -> tuple[np.ndarray, events.Activity]:
    """F_k / y_k of the only spike of every neuron: lam_k is 1 for the error 1."""
    rule = events.ExactBP(net, local_gradient=local)
    (activity,) = net.run(inputs)
    _, slow_part = rule.spike_weights(
        rule.layers[0], activity, np.ones_like(activity.currents)
    )  # fmt: skip
    samples = np.repeat(np.arange(len(inputs)), np.diff(activity.spikes.offsets))
    parents = inputs.times[inputs.offsets[samples] + activity.parents]
    age = activity.spikes.times - parents
    return slow_part / np.exp(-age / rule.layers[0].tau), activity


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_modified_factor_is_bounded(dtype: torch.dtype) -> None:
    """F_k / y_k = tau / I_k is at most tau / theta, and the exact one always above it."""
    net = make_network((20, 200), dtype=dtype, threshold=0.03, max_spikes=1, seed=4)
    layer, inputs = net.readout, make_inputs(20, 20, seed=4)
    modified, activity = first_factors(net, inputs, "modified")
    exact, _ = first_factors(net, inputs, "exact")
    assert len(modified) > 500
    bound = layer.tau / layer.theta
    assert np.all(modified > 0) and np.all(modified <= bound * (1 + 1e-6))
    assert modified.max() > 0.85 * bound, "none is near the bound: nothing is tested"
    assert np.all(exact > modified)
    np.testing.assert_allclose(modified, layer.tau / activity.currents, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("distance", [1e-4, 1e-7, 1e-10, 0.0])
def test_gradient_of_a_hair_trigger(distance: float, dtype: torch.dtype) -> None:
    """The modified gradient stays bounded; the exact one is large, but a number."""
    n = slow.Neuron(TAU_S, 1.0, DURATION)
    train = [(0.0, 0), (0.004, 1)]
    peak = slow.highest_potential(train, np.array([1.0, 0.5]), n)
    inputs = events.SpikeBatch.from_lists([[0.0, 0.004]], [[0, 1]], 2)
    found = {}
    for local in ("exact", "modified"):
        net = make_network((2, 1), threshold=peak * (1 - distance) * 2 * TAU_S)
        set_weights(net, [[[1.0], [0.5]]])
        if len(net.to(dtype)(inputs).times) == 0:
            assert distance < 1e-6 and (distance == 0 or dtype == torch.float32)
            return
        events.ExactBP(net, local_gradient=local, loss=chosen_errors([[1.0]])).step(
            inputs, torch.zeros(1, dtype=torch.int64)
        )
        found[local] = gradients(net)[0]
    bound = net.readout.tau / net.readout.theta
    assert np.all(np.abs(found["modified"]) <= bound)
    assert np.all(np.isfinite(found["exact"]))
    assert np.all(np.abs(found["exact"]) > 10 * np.abs(found["modified"]))
    assert np.abs(found["exact"]).max() <= bound / 1e-6
    if dtype == torch.float64 and distance >= 1e-10:
        theta = slow.Neuron(TAU_S, net.readout.threshold, DURATION)
        times = slow.spikes_of_neuron(train, np.array([1.0, 0.5]), theta).times
        expected = slow.local_gradients(train, np.array([1.0, 0.5]), times, theta, True)
        assert_near(found["exact"][:, 0], expected[0], 1e-15 / distance + 1e-9)


@every_rule
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@every_local
def test_bursts_far_apart_do_not_know_of_each_other(
    name: str, dtype: torch.dtype, local: str
) -> None:
    """Over 1,000 s the gradient is the sum of the gradients of the bursts alone."""
    rng = np.random.default_rng(3)
    bursts = [(rng.uniform(0, 0.05, 14), rng.integers(6, size=14)) for _ in range(3)]
    starts = [0.0, 400.0, 999.0]

    def gradient_of(inputs: events.SpikeBatch) -> tuple[list[np.ndarray], events.Result]:
        net = make_network(seed=3, duration=1000.0, max_spikes=1000, dtype=dtype)
        rule = rule_of(
            name, net, local_gradient=local, loss=chosen_errors(np.ones((len(inputs), OUTPUTS)))
        )
        result = rule.step(inputs, make_labels(len(inputs)))
        return gradients(net), result

    together = events.SpikeBatch.from_lists(
        [np.concatenate([s + t for s, (t, _) in zip(starts, bursts, strict=True)])],
        [np.concatenate([a for _, a in bursts])],
        6,
    )
    apart = events.SpikeBatch.from_lists([t for t, _ in bursts], [a for _, a in bursts], 6)
    (whole, result), (parts, separate) = gradient_of(together), gradient_of(apart)
    assert np.array_equal(result.output[0], separate.output.sum(0))
    assert result.spikes["lif1"].times.max() > 999 and len(result.spikes["readout"].times) > 6
    # Times near 1,000 s are rounded to 1e-13 s.
    for a, b in zip(whole, parts, strict=True):
        assert_near(a, b, 1e-8 if dtype == torch.float64 else 2e-3)


def rounded_case(seed: int) -> tuple[events.Network, events.SpikeBatch]:
    """A case whose weights are the same in single precision."""
    net, inputs = make_network((6, 5, 3), seed=seed), make_inputs(2, seed=seed + 10)
    set_weights(net, [w.astype(np.float32) for w in weights(net)])
    return net, inputs


@functools.cache
def sound_seeds() -> list[int]:
    return sound(rounded_case, 4e-3, 3)


@every_rule
@every_local
def test_single_precision(name: str, local: str) -> None:
    """Where no spike is near a hair trigger, single precision gives the same gradient."""
    for seed in sound_seeds():
        net, inputs = rounded_case(seed)
        single = rounded_case(seed)[0].float()
        for n in (net, single):
            rule = rule_of(name, n, local_gradient=local)
            if isinstance(rule, events.FeedbackRule):
                rule.feedback[0].matrix.copy_(torch.linspace(-1, 1, 15).view(3, 5))
            result = rule.step(inputs, make_labels(2))
        assert len(result.spikes["readout"].times) > 3
        for a, b in zip(gradients(single), gradients(net), strict=True):
            assert_near(a, b, 1e-3)


@every_rule
def test_gradients_add_up(name: str) -> None:
    """`.grad` grows as by `backward`: twice is twice, and twice anew is the same to the bit."""
    found = []
    for steps in (1, 2, 1):
        net, inputs = case((6, 5, 3), seed=3)
        rule = rule_of(name, net, **({"feedback_lr": 0.0} if name == "sfdfa" else {}))
        for _ in range(steps):
            rule.step(inputs, make_labels())
        found.append(gradients(net))
    for once, twice, again in zip(*found, strict=True):
        assert_near(twice, 2 * once, 1e-14)
        assert np.array_equal(once, again)


@every_rule
def test_zeroing_gradients(name: str) -> None:
    """Both ways of `zero_grad` give the gradient of the next batch alone."""
    net, inputs = case((6, 5, 3), seed=3)
    rule = rule_of(name, net, **({"feedback_lr": 0.0} if name == "sfdfa" else {}))
    rule.step(inputs, make_labels())
    first = gradients(net)
    for to_none in (True, False):
        net.zero_grad(set_to_none=to_none)
        rule.step(inputs, make_labels())
        assert all(map(np.array_equal, gradients(net), first))


@every_rule
@pytest.mark.parametrize("samples", [1, 3])
def test_batch_without_spikes(name: str, samples: int) -> None:
    """Nothing spikes, nothing is learned, and the loss is that of zero counts."""
    net = make_network()
    rule = rule_of(name, net, **RATES)
    before = {k: v.clone() for k, v in rule.state_dict().items() if isinstance(v, torch.Tensor)}
    labels = make_labels(samples)
    result = rule.step(events.SpikeBatch.from_lists([[]] * samples, [[]] * samples, 6), labels)
    assert result.output.abs().sum() == 0
    assert float(result.loss) == pytest.approx((15**2 + 2 * 3**2) / 2)
    assert all(np.all(g == 0) for g in gradients(net))
    for key, value in before.items():
        assert torch.equal(rule.state_dict()[key], value)


@every_rule
def test_empty_samples_among_others(name: str) -> None:
    """An empty sample adds nothing to the gradient but its share in the mean."""
    net, inputs = case((6, 5, 3), seed=3)
    padded = events.SpikeBatch.from_lists(
        [[], *(inputs.sample(b)[0] for b in range(4)), [], [], []],
        [[], *(inputs.sample(b)[1] for b in range(4)), [], [], []],
        6,
    )
    labels = make_labels(4)
    found = []
    for batch, y in ((inputs, labels), (padded, torch.cat([labels[:1], labels, labels[:3]]))):
        net.zero_grad()
        rule = rule_of(name, net)
        result = rule.step(batch, y)
        found.append(gradients(net))
    assert result.output[[0, 5, 6, 7]].abs().sum() == 0
    for alone, among in zip(*found, strict=True):
        assert_near(2 * among, alone, 1e-14)


@every_rule
def test_inputs_after_the_end_are_not_seen(name: str) -> None:
    """Spikes at or after the duration change nothing to the bit, gradients included."""
    net, inputs = case((6, 5, 3), seed=3)
    late = [DURATION, DURATION, DURATION * 1.5, 1e6]
    longer = events.SpikeBatch.from_lists(
        [np.concatenate([inputs.sample(b)[0], late]) for b in range(BATCH)],
        [np.concatenate([inputs.sample(b)[1], [0, 1, 2, 3]]) for b in range(BATCH)],
        6,
    )
    found = []
    for batch in (inputs, longer):
        for traces in ("summed", "forward"):
            net.zero_grad()
            options = {} if name == "exact-bp" else {"traces": traces}
            result = rule_of(name, net, **options).step(batch, make_labels())
            found.append((traces, result.output, gradients(net)))
    for (_, output, gradient), (_, with_late, other) in zip(found[:2], found[2:], strict=True):
        assert torch.equal(output, with_late) and output.sum() > 5
        assert all(map(np.array_equal, gradient, other))


def test_margins_of_the_cases() -> None:
    """The networks compared above are no hair triggers, where references differ by rounding."""
    for sizes in SIZES.values():
        assert margin(*case(sizes, 3)) > 1e-5
