"""What must be the same to the bit: threads, orders of spikes, company in the batch, repetition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from reference.events_cases import (
    assert_equal_spikes,
    chosen_errors,
    make_inputs,
    make_labels,
    make_network,
    rule_of,
)
from torch import Tensor

from threefactor import events
from threefactor.events import parallel

every_rule = pytest.mark.parametrize("name", events.RULES)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
OUTPUTS, SPIKES = 5, 110


@pytest.fixture(autouse=True)
def _threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(parallel, "SMALL", 0)  # else one thread does what is as little as here
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def network(hidden: tuple[int, ...], dtype: torch.dtype, inputs: int = 12) -> events.Network:
    """Weights that keep layers of any width alive."""
    net = make_network(
        (inputs, *hidden, OUTPUTS), dtype=dtype, threshold=0.012, gain=1.0, shift=0.2, seed=4,
        max_spikes=60,
    )  # fmt: skip
    with torch.no_grad():
        for layer in list(net.layers.values())[1:]:
            layer.weight.mul_(4 / layer.in_features)
    return net


def learned(
    name: str, net: events.Network, inputs: events.SpikeBatch, labels: Tensor, **options: Any
) -> tuple[events.Result, list[Tensor]]:
    """Two steps; gradients, feedback, and counts."""
    rule = rule_of(name, net, **options)
    torch.manual_seed(11)
    for _ in range(2):
        result = rule.step(inputs, labels)
    states = [v for v in rule.state_dict().values() if isinstance(v, Tensor)]
    assert all(1 < s.counts().mean() < 12 for s in result.spikes.values()) and not sum(
        result.capped.values()
    )
    return result, [*(w.grad for w in net.parameters()), *states]


def assert_identical(
    a: tuple[events.Result, list[Tensor]], b: tuple[events.Result, list[Tensor]]
) -> None:
    for name, spikes in a[0].spikes.items():
        assert_equal_spikes(b[0].spikes[name], spikes)
    assert torch.equal(a[0].loss, b[0].loss)
    assert len(a[1]) == len(b[1]) and all(map(torch.equal, a[1], b[1]))
    assert all(x.abs().max() > 0 for x in a[1])


def learned_with_threads(
    name: str, hidden: tuple[int, ...], dtype: torch.dtype, **options: Any
) -> list[tuple[events.Result, list[Tensor]]]:
    inputs, labels = make_inputs(7, 12, seed=5), make_labels(7, OUTPUTS)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(learned(name, network(hidden, dtype), inputs, labels, **options))
    return found


def all_options(name: str) -> list[dict[str, Any]]:
    return [{}] if name == "exact-bp" else [{}, {"traces": "forward"}]


every_width = pytest.mark.parametrize("hidden", [(10,), (33,), (800,), (33, 10)], ids=str)


@every_rule
@every_dtype
@every_width
def test_kernels_on_any_number_of_threads(
    name: str, dtype: torch.dtype, hidden: tuple[int, ...]
) -> None:
    """One output at a time has an error, so that no product of matrices takes part."""
    errors = np.zeros((7, OUTPUTS))
    errors[np.arange(7), np.arange(7) % OUTPUTS] = np.linspace(-1, 1.3, 7)
    for options in all_options(name):
        if name == "sfdfa":
            options["feedback_lr"] = 0.0
        one, *others = learned_with_threads(
            name, hidden, dtype, loss=chosen_errors(errors), **options
        )
        for other in others:
            assert_identical(one, other)


@every_rule
@every_dtype
@every_width
def test_any_number_of_threads(name: str, dtype: torch.dtype, hidden: tuple[int, ...]) -> None:
    """Everything a rule leaves behind, what SFDFA learned included."""
    for options in all_options(name):
        if name == "sfdfa":
            options["feedback_lr"] = 0.1
        one, *others = learned_with_threads(name, hidden, dtype, **options)
        for other in others:
            assert_identical(one, other)


@every_rule
def test_more_threads_than_work(name: str) -> None:
    """One sample, three outputs, eight threads."""
    found = []
    for threads in (1, 8):
        torch.set_num_threads(threads)
        net = make_network(seed=3)
        rule = rule_of(name, net)
        torch.manual_seed(1)
        rule.step(make_inputs(seed=13)[1:2], make_labels(1))
        found.append([w.grad for w in net.parameters()])
    assert all(map(torch.equal, *found)) and found[0][0].abs().max() > 0


def tied_spikes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(samples, times, addresses) with many ties, within an address, too."""
    samples = rng.integers(5, size=SPIKES)
    times = rng.integers(12, size=SPIKES) * 0.007
    return samples, times, rng.integers(12, size=SPIKES)


@every_rule
@every_dtype
def test_any_order_of_spikes(name: str, dtype: torch.dtype) -> None:
    """However the spikes are given, simultaneous ones included, the result is the same."""
    rng = np.random.default_rng(6)
    samples, times, addresses = tied_spikes(rng)
    labels, found = make_labels(5, OUTPUTS), []
    for _ in range(4):
        inputs = events.SpikeBatch.from_arrays(samples, times, addresses, 12, 5)
        assert np.any((np.diff(inputs.times) == 0) & (np.diff(inputs.addresses) == 0))
        found.append(learned(name, network((17,), dtype), inputs, labels))
        order = rng.permutation(SPIKES)
        samples, times, addresses = samples[order], times[order], addresses[order]
    for other in found[1:]:
        assert_identical(found[0], other)


@every_dtype
def test_order_within_a_constructor_of_lists(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(6)
    times = rng.integers(12, size=(3, 40)) * 0.007
    addresses = rng.integers(12, size=(3, 40))
    expected = events.SpikeBatch.from_lists(list(times), list(addresses), 12)
    for _ in range(5):
        orders = [rng.permutation(40) for _ in range(3)]
        again = events.SpikeBatch.from_lists(
            [t[o] for t, o in zip(times, orders, strict=True)],
            [a[o] for a, o in zip(addresses, orders, strict=True)],
            12,
        )
        assert_equal_spikes(again, expected)


@every_dtype
def test_company_in_the_batch(dtype: torch.dtype) -> None:
    """A sample spikes the same alone, in any batch, and at any place in it."""
    net = network((33,), dtype)
    inputs = make_inputs(9, 12, seed=5)
    whole = events.run(net, inputs)
    assert whole.output.sum() > 20
    chosen = [[3], [8, 0, 4], list(range(9))[::-1], [2, 2, 2, 5], list(range(9)) * 3]
    for samples in chosen:
        part = events.run(net, inputs[samples])
        for name, spikes in whole.spikes.items():
            assert_equal_spikes(part.spikes[name], spikes[samples])


@every_dtype
def test_place_of_a_neuron(dtype: torch.dtype) -> None:
    """A neuron spikes the same wherever it stands in its layer, and however wide that is."""
    net, inputs = network((41,), dtype), make_inputs(6, 12, seed=5)
    expected = net.lif1(inputs)
    order = np.random.default_rng(0).permutation(41)
    for columns in (order, order[:7], np.concatenate([order, order, order[:3]])):
        layer = events.Layer(
            12,
            len(columns),
            tau_s=net.lif1.tau_s,
            threshold=0.012,
            duration=net.lif1.duration,
            max_spikes=60,
        ).to(dtype)
        with torch.no_grad():
            layer.weight.copy_(net.lif1.weight[:, columns])
        spikes = layer(inputs)
        for place, column in enumerate(columns):
            assert np.array_equal(
                spikes.times[spikes.addresses == place],
                expected.times[expected.addresses == column],
            )
    assert len(expected.times) > 100


@every_rule
def test_twice_the_same(name: str) -> None:
    """A fresh network and rule give the same again; so does the same network."""
    inputs, labels = make_inputs(7, 12, seed=5), make_labels(7, OUTPUTS)
    first = learned(name, network((17,), torch.float32), inputs, labels)
    assert_identical(first, learned(name, network((17,), torch.float32), inputs, labels))
    net = network((17,), torch.float32)
    for batch in (inputs, make_inputs(3, 12, seed=8), inputs):
        result = events.run(net, batch)
    for layer, spikes in first[0].spikes.items():
        assert_equal_spikes(result.spikes[layer], spikes)


def test_spikes_are_sorted_by_time_and_neuron() -> None:
    """Twin neurons spike together; the lower address comes first."""
    net = make_network((6, 8), seed=2)
    with torch.no_grad():
        net.readout.weight[:, 5] = net.readout.weight[:, 2]
        net.readout.weight[:, 7] = net.readout.weight[:, 2]
    spikes = net(make_inputs(seed=12))
    ties = 0
    for b in range(len(spikes)):
        times, addresses = spikes.sample(b)
        order = np.lexsort((addresses, times))
        assert np.array_equal(order, np.arange(len(times)))
        ties += int(np.sum(np.diff(times) == 0))
    assert ties >= 2 * spikes.counts()[:, 2].sum() > 0
