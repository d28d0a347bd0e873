"""Small event-driven networks and inputs, shared by their tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from reference import events as slow
from torch import Tensor

from threefactor import events

TAU_S = 0.02
DURATION = 0.12
INPUTS, OUTPUTS, BATCH = 6, 3, 4


def make_network(
    sizes: Sequence[int] = (INPUTS, 5, OUTPUTS),
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 1,
    tau_s: float = TAU_S,
    threshold: Sequence[float] | float | None = None,
    duration: float = DURATION,
    max_spikes: int = 30,
    gain: float = 1.5,
    shift: float = 0.4,
) -> events.Network:
    """A network whose weights are uniform in shift +- gain, so that every layer spikes."""
    first, *hidden, last = sizes
    if threshold is None:
        threshold = [0.012] + [0.035] * len(hidden)
    net = events.fc(
        first, hidden, last, tau_s=tau_s, thresholds=threshold, duration=duration,
        max_spikes=max_spikes,
    ).to(dtype)  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            random = torch.rand(weight.shape, generator=generator, dtype=torch.float64)
            weight.copy_(shift + gain * (2.0 * random - 1.0))
    return net


def make_inputs(
    batch: int = BATCH, size: int = INPUTS, *, seed: int = 2, per_address: float = 2.0
) -> events.SpikeBatch:
    """Poisson numbers of spikes, uniform over the first three quarters of the simulation."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(per_address * size, batch)
    times = [rng.uniform(0.0, 0.75 * DURATION, k) for k in counts]
    return events.SpikeBatch.from_lists(times, [rng.integers(size, size=k) for k in counts], size)


def make_labels(batch: int = BATCH, outputs: int = OUTPUTS, seed: int = 3) -> Tensor:
    return torch.randint(outputs, (batch,), generator=torch.Generator().manual_seed(seed))


def trains(batch: events.SpikeBatch) -> list[slow.Train]:
    """The batch as the reference takes it."""
    rows = [batch.sample(b) for b in range(len(batch))]
    return [list(zip(t.tolist(), a.tolist(), strict=True)) for t, a in rows]


def neurons(net: events.Network) -> list[slow.Neuron]:
    """The constants of a network's layers."""
    return [
        slow.Neuron(layer.tau_s, layer.threshold, layer.duration, layer.max_spikes)
        for layer in net.layers.values()
    ]


def weights(net: events.Network) -> list[np.ndarray]:
    return [w.detach().double().numpy().copy() for w in net.parameters()]


def set_weights(net: events.Network, values: Sequence[ArrayLike]) -> None:
    with torch.no_grad():
        for weight, value in zip(net.parameters(), values, strict=True):
            weight.copy_(torch.as_tensor(np.asarray(value)))


def gradients(net: events.Network) -> list[np.ndarray]:
    """Copies of the gradients in double precision."""
    return [w.grad.double().numpy().copy() for w in net.parameters()]


def margin(net: events.Network, inputs: events.SpikeBatch) -> float:
    """How near any neuron comes to another spike train: see `reference.events.Spikes`."""
    runs = [slow.run_network(train, weights(net), neurons(net)) for train in trains(inputs)]
    return min(layer.margin for run in runs for layer in run)


def sound(net_of: Callable[[int], Any], least: float, wanted: int) -> list[int]:
    """The first seeds for which `net_of(seed)`, (network, inputs), is `least` from other spikes."""
    found: list[int] = []
    for seed in range(1, 200):
        if len(found) == wanted:
            break
        net, inputs = net_of(seed)
        if margin(net, inputs) > least:
            found.append(seed)
    assert len(found) == wanted
    return found


def assert_alive(result: events.Result, least: float = 0.3, most: float = 25.0) -> None:
    """Every layer spikes, some neuron several times, and none is at the cap."""
    for name, spikes in result.spikes.items():
        counts = spikes.counts()
        assert least < counts.mean() < most, f"{name}: {counts.mean():.2f} spikes a neuron"
        assert counts.max() >= 3, f"no neuron of {name} spikes three times"
    assert not any(result.capped.values()), result.capped


def assert_equal_spikes(a: events.SpikeBatch, b: events.SpikeBatch) -> None:
    """The same to the bit."""
    assert np.array_equal(a.offsets, b.offsets)
    assert np.array_equal(a.times, b.times)
    assert np.array_equal(a.addresses, b.addresses)


def assert_near(actual: ArrayLike, expected: ArrayLike, tolerance: float) -> None:
    """Near in proportion to the largest value, which must not be zero."""
    expected = np.asarray(expected)
    scale = np.abs(expected).max()
    assert scale > 0, "all zero: nothing is compared"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def chosen_errors(errors: ArrayLike) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A loss that sends `errors`, (B, m), to the output: the error of each of its spikes."""

    def loss(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        wanted = torch.as_tensor(np.asarray(errors)).to(output.dtype)
        return torch.zeros(len(output), dtype=output.dtype), -len(output) * wanted

    return loss


def rule_of(name: str, net: events.Network, *, seed: int = 7, **options: Any) -> events.Rule:
    """A rule with all the randomness that it starts from fixed; SFDFA's feedback is not zero."""
    torch.manual_seed(seed)
    rule = events.RULES[name](net, **options)
    if isinstance(rule, events.SFDFA):
        for b in rule.feedback:
            b.matrix.uniform_(-1.0, 1.0)
    return rule
