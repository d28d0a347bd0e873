"""Firing rates, silent neurons and saturated neurons, of both engines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from threefactor import clocked, events
from threefactor.analysis.batches import NO_BATCH, Batch, check_no_steps, pairs
from threefactor.analysis.records import Record
from threefactor.clocked.foreign import layers_of
from threefactor.clocked.neuron import Neuron
from threefactor.errors import InputError
from threefactor.modes import evaluating

__all__ = ["Firing", "LayerFiring", "firing"]


@dataclass(frozen=True)
class LayerFiring(Record):
    """Firing of one layer. Shares are fractions, 0 to 1.

    Attributes:
        neurons: number of neurons.
        rate: spikes per neuron and time step, all steps of all samples counted alike; with exact
            spike times, per neuron and sample.
        silent: share of the neurons that spike in no sample. With exact spike times these get no
            gradient.
        saturated: share of the neurons that spike at every time step of every sample; with exact
            spike times, share of those that reach their maximum of spikes in every sample.
        silent_samples: share of the pairs of a neuron and a sample without a spike.
    """

    neurons: int
    rate: float
    silent: float
    saturated: float
    silent_samples: float


@dataclass(frozen=True)
class Firing(Record):
    """Firing of all layers.

    Attributes:
        layers: by name. On a time grid these are the layers of neurons that ran; with exact spike
            times all layers, since the outputs spike, too.
        total_rate: mean rate of all neurons of these layers.
        unit: of the rates.
        samples: number of samples that were measured.
    """

    layers: dict[str, LayerFiring]
    total_rate: float
    unit: str
    samples: int


class _Tally:
    """Spikes of one layer: their sum, who ever spiked, and who ever stayed below the maximum."""

    def __init__(self) -> None:
        self.samples = 0
        self.times = 0  # samples, each as often as it has time steps
        self.spikes = 0.0
        self.empty = 0
        self.fired: Any = False
        self.missed: Any = False

    def add(self, counts: Tensor, most: int, steps: int = 1) -> None:
        """Add the spike counts of a batch, (B, n), each at most `most`, in so many time steps."""
        self.samples += len(counts)
        self.times += len(counts) * steps
        self.spikes += float(counts.sum(dtype=torch.float64))
        self.empty += int((counts == 0).sum())
        self.fired = self.fired | (counts > 0).any(0)
        self.missed = self.missed | (counts < most).any(0)

    def summary(self) -> LayerFiring:
        n = len(self.fired)
        return LayerFiring(
            n,
            self.spikes / (self.times * n),
            int((~self.fired).sum()) / n,
            int((~self.missed).sum()) / n,
            self.empty / (self.samples * n),
        )


def firing(network: nn.Module, batches: Iterable[Batch], *, steps: int | None = None) -> Firing:
    """Measure firing rates, silent and saturated neurons, without dropout or noise.

    Args:
        network: of either engine. If you wrote the neurons, every activity other than zero counts
            as a spike; several spikes in one step, as neurons of sinabs give, count as one.
        batches: pairs of inputs and targets; the targets are not used.
        steps: T, for constant inputs of clocked networks.

    Raises:
        InputError: if there is no batch, or it does not fit the network.

    Example:
        >>> from threefactor import clocked
        >>> net = clocked.fc(4, (8,), 3, threshold=100.0)
        >>> firing(net, [(torch.rand(5, 4), torch.zeros(5))], steps=6).layers["lif1"].silent
        1.0

    Source: Xiao et al. 2026 (OPZO), table 7.
    """
    if isinstance(network, events.Network):
        check_no_steps(steps)
        tallies, samples = _of_events(network, batches)
        unit = "spikes per neuron and sample"
    else:
        tallies, samples = _on_grid(network, batches, steps)
        unit = "spikes per neuron and step"
    if not samples:
        raise InputError(NO_BATCH)
    layers = {name: tally.summary() for name, tally in tallies.items() if tally.samples}
    neurons = sum(layer.neurons for layer in layers.values())
    total = sum(layer.rate * layer.neurons for layer in layers.values()) / max(neurons, 1)
    return Firing(layers, total, unit, samples)


def _on_grid(
    network: nn.Module, batches: Iterable[Batch], steps: int | None
) -> tuple[dict[str, _Tally], int]:
    counts: dict[str, Tensor] = {}

    def count(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, given: Any) -> None:
            activity = given[0] if isinstance(given, tuple) else given  # beside its state
            fired = (activity.detach() != 0).reshape(len(activity), -1)
            counts[name] = counts[name].add_(fired) if name in counts else fired.int()

        return hook

    neurons = {name: m for name, m in layers_of(network) if isinstance(m, Neuron)}
    hooks = [
        getattr(neuron, "module", neuron).register_forward_hook(count(name))
        for name, neuron in neurons.items()
    ]
    tallies = {name: _Tally() for name in neurons}
    samples = 0
    try:
        with evaluating(network):
            for inputs, _ in pairs(batches):
                counts.clear()
                result = clocked.run(network, inputs, steps=steps)
                samples += len(result.output)
                for name, spikes in counts.items():
                    tallies[name].add(spikes, result.steps, result.steps)
    finally:
        for hook in hooks:
            hook.remove()
    return tallies, samples


def _of_events(network: events.Network, batches: Iterable[Batch]) -> tuple[dict[str, _Tally], int]:
    tallies = {name: _Tally() for name in network.layers}
    samples = 0
    for inputs, _ in pairs(batches):
        samples += len(inputs)
        for (name, layer), activity in zip(
            network.layers.items(), network.run(inputs), strict=True
        ):
            counts = torch.from_numpy(activity.spikes.counts().astype(np.int64))
            tallies[name].add(counts, layer.max_spikes)
    return tallies, samples
