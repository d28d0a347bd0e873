"""Firing rates, silent and saturated neurons of both engines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from threefactor import clocked, events
from threefactor.analysis.batches import Batch, check_no_steps, evaluating
from threefactor.analysis.records import Record
from threefactor.clocked.neuron import Neuron
from threefactor.errors import InputError

__all__ = ["Firing", "LayerFiring", "firing"]


@dataclass(frozen=True)
class LayerFiring(Record):
    """What the neurons of one layer do.

    Attributes:
        neurons: number of neurons.
        rate: spikes per neuron and time step, or, with exact spike times, per neuron and sample.
        silent: share of the neurons that spike in no sample: they learn nothing.
        saturated: share of the neurons that spike at every time step of every sample, or, with
            exact spike times, use up their permitted spikes in every sample.
        silent_samples: share of (neuron, sample) pairs without a spike.
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
        layers: by name: hidden layers on a time grid; all layers with exact spike times, where
            the outputs spike too.
        total_rate: over all neurons of these layers, each counted once.
        unit: of the rates.
        samples: on how many samples they were counted.
    """

    layers: dict[str, LayerFiring]
    total_rate: float
    unit: str
    samples: int


class _Tally:
    """Spikes of one layer's neurons: summed, and whether all or none."""

    def __init__(self) -> None:
        self.samples = 0
        self.spikes = 0.0
        self.empty = 0
        self.fired: Any = False
        self.missed: Any = False

    def add(self, counts: Tensor, most: int) -> None:
        """Take in the (B, n) spike counts of a batch, of which `most` are possible."""
        self.samples += len(counts)
        self.spikes += float(counts.sum(dtype=torch.float64))
        self.empty += int((counts == 0).sum())
        self.fired = self.fired | (counts > 0).any(0)
        self.missed = self.missed | (counts < most).any(0)

    def summary(self, steps: int) -> LayerFiring:
        n = len(self.fired)
        return LayerFiring(
            n,
            self.spikes / (self.samples * n * steps),
            int((~self.fired).sum()) / n,
            int((~self.missed).sum()) / n,
            self.empty / (self.samples * n),
        )


def firing(network: nn.Module, batches: Iterable[Batch], *, steps: int | None = None) -> Firing:
    """Measure firing rates, and find silent and saturated neurons, without dropout or noise.

    Args:
        network: of either engine. For neurons of a kind of your own, whatever is not zero counts
            as a spike.
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
        tallies, samples, count = *_of_events(network, batches), 1
        unit = "spikes per neuron and sample"
    else:
        tallies, samples, count = _on_grid(network, batches, steps)
        unit = "spikes per neuron and step"
    if not samples:
        raise InputError("there was no batch; give at least one pair of inputs and targets")
    layers = {name: tally.summary(count) for name, tally in tallies.items()}
    neurons = sum(layer.neurons for layer in layers.values())
    total = sum(layer.rate * layer.neurons for layer in layers.values()) / max(neurons, 1)
    return Firing(layers, total, unit, samples)


def _on_grid(
    network: nn.Module, batches: Iterable[Batch], steps: int | None
) -> tuple[dict[str, _Tally], int, int]:
    counts: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(_count(name, counts))
        for name, module in network.named_modules()
        if isinstance(module, Neuron)
    ]
    tallies = {name: _Tally() for name, m in network.named_modules() if isinstance(m, Neuron)}
    samples, done = 0, 0
    try:
        with evaluating(network):
            for inputs, _ in batches:
                counts.clear()
                result = clocked.run(network, inputs, steps=steps)
                samples, done = samples + len(result.output), result.steps
                for name, spikes in counts.items():
                    tallies[name].add(spikes, done)
    finally:
        for hook in hooks:
            hook.remove()
    return tallies, samples, done


def _count(name: str, counts: dict[str, Tensor]) -> Any:
    def hook(module: nn.Module, inputs: Any, activity: Tensor) -> None:
        fired = (activity.detach() != 0).flatten(1)
        counts[name] = counts[name].add_(fired) if name in counts else fired.int()

    return hook


def _of_events(network: events.Network, batches: Iterable[Batch]) -> tuple[dict[str, _Tally], int]:
    tallies = {name: _Tally() for name in network.layers}
    samples = 0
    for inputs, _ in batches:
        samples += len(inputs)
        for (name, layer), activity in zip(
            network.layers.items(), network.run(inputs), strict=True
        ):
            counts = torch.from_numpy(activity.spikes.counts().astype(np.int64))
            tallies[name].add(counts, layer.max_spikes)
    return tallies, samples
