"""Synaptic operations of the forward pass, by NeuroBench's definitions (OPZO, table 7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from threefactor import clocked, events
from threefactor.analysis.batches import NO_BATCH, Batch, check_no_steps, pairs
from threefactor.analysis.records import Record
from threefactor.analysis.sizes import fan_out, raw_fan_out
from threefactor.clocked.foreign import layers_of
from threefactor.clocked.synapse import Synapse
from threefactor.errors import InputError
from threefactor.modes import evaluating

__all__ = ["LayerOperations", "Operations", "operations"]


@dataclass(frozen=True)
class LayerOperations(Record):
    """Operations of one synapse layer per sample, summed over time steps, without biases.

    Attributes:
        effective_macs: pairs of an input and a weight, both other than zero, in time steps in which
            some input of the batch is not -1, 0 or 1. NeuroBench calls them "Effective_MACs".
        effective_acs: the same pairs in all other time steps. NeuroBench: "Effective_ACs".
        dense: all pairs, zeros included. NeuroBench: "Dense". None without a time grid.
        spike_operations: weights other than zero that the incoming spikes reach, the "SynOp" of
            table 7. On neuromorphic hardware, energy is proportional to them. Inputs count as
            spikes if, before any pooling of the layer itself, all of them are zero or have one
            common value up to rounding (a scale of the activity folds into the weights). Other
            inputs count 0, also the averages of spikes that a pooling layer of PyTorch makes.
    """

    effective_macs: float
    effective_acs: float
    dense: float | None
    spike_operations: float


@dataclass(frozen=True)
class Operations(Record):
    """Operations per sample.

    Attributes:
        layers: by name of the synapse layer.
        total: summed over the layers.
        samples: number of samples that were measured.
        steps: T; None without a time grid, or if batches had different numbers of steps, over
            which the operations are then a mean.
    """

    layers: dict[str, LayerOperations]
    total: LayerOperations
    samples: int
    steps: int | None


@dataclass
class _Counts:
    macs: float = 0.0
    acs: float = 0.0
    dense: float = 0.0
    spikes: float = 0.0


@dataclass
class _Counter:
    """Counts one synapse layer's operations while the network runs."""

    layer: Synapse
    counts: _Counts = field(default_factory=_Counts)
    fan: Tensor | None = None
    raw_fan: Tensor | None = None
    all_weights: float = 0.0

    def __call__(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        layer, x = self.layer, given[0].detach()
        received = layer.receive(x)
        if self.fan is None:
            self.fan = fan_out(layer, received.shape)
            self.raw_fan = raw_fan_out(layer, self.fan, x.shape)
            self.all_weights = float(fan_out(layer, received.shape, dense=True).sum())
        assert self.raw_fan is not None
        operations = _met(received, self.fan)
        if bool(((received == 0) | (received.abs() == 1)).all()):
            self.counts.acs += operations
        else:
            self.counts.macs += operations
        self.counts.dense += self.all_weights * len(x)
        if _are_spikes(x):
            self.counts.spikes += _met(x, self.raw_fan)


def _met(x: Tensor, fan: Tensor) -> float:
    """Return how many weights meet the values of a batch that are not zero."""
    return float(((x != 0).sum(0).double() * fan).sum())


def _are_spikes(x: Tensor) -> bool:
    # A surrogate that is added and taken off again leaves a spike that is 1 up to rounding.
    top, rounding = x.max(), 8 * torch.finfo(x.dtype).eps
    return bool(((x == 0) | ((x - top).abs() <= rounding * top.abs())).all())


def operations(
    network: nn.Module, batches: Iterable[Batch], *, steps: int | None = None
) -> Operations:
    """Count the synaptic operations of the forward pass, without dropout or noise.

    On a time grid the definitions are NeuroBench's. Operations are counted at every time step, also
    the product of a constant input. Pooling is part of a synapse layer here. Effective operations
    are counted after it, on the values that the weights see. With exact spike times, an input spike
    before the end of the simulation is one AC for every weight other than zero that it meets, and
    there is no dense count.

    Args:
        network: of either engine.
        batches: pairs of inputs and targets; the targets are not used.
        steps: T, for constant inputs of clocked networks.

    Raises:
        InputError: if there is no batch, or it does not fit the network.

    Example:
        >>> import torch
        >>> from threefactor import clocked
        >>> net = clocked.fc(4, (8,), 3)
        >>> found = operations(net, [(torch.rand(5, 4) + 1, torch.zeros(5))], steps=6)
        >>> found.layers["linear1"].effective_macs, found.total.dense
        (192.0, 336.0)

    Source: NeuroBench 2.3, metric SynapticOperations; Xiao et al. 2026 (OPZO), table 7.
    """
    if isinstance(network, events.Network):
        check_no_steps(steps)
        return _of_events(network, batches)
    counters = {n: _Counter(m) for n, m in layers_of(network) if isinstance(m, Synapse)}
    hooks = [network.get_submodule(n).register_forward_pre_hook(c) for n, c in counters.items()]
    samples, lengths = 0, set[int]()
    try:
        with evaluating(network):
            for inputs, _ in pairs(batches):
                result = clocked.run(network, inputs, steps=steps)
                samples += len(result.output)
                lengths.add(result.steps)
    finally:
        for hook in hooks:
            hook.remove()
    return _summary({name: c.counts for name, c in counters.items()}, samples, lengths)


def _of_events(network: events.Network, batches: Iterable[Batch]) -> Operations:
    counts = {name: _Counts() for name in network.layers}
    samples = 0
    for inputs, _ in pairs(batches):
        samples += len(inputs)
        activities = network.run(inputs)
        for (name, layer), activity in zip(network.layers.items(), activities, strict=True):
            seen = activity.inputs.times < layer.duration
            spikes = np.bincount(activity.inputs.addresses[seen], minlength=layer.in_features)
            met = float(spikes @ np.count_nonzero(activity.weights, axis=1))
            counts[name].acs += met
            counts[name].spikes += met
    return _summary(counts, samples, None)


def _summary(counts: dict[str, _Counts], samples: int, lengths: set[int] | None) -> Operations:
    """Return means over the samples; `lengths` are the numbers of steps, None without a grid."""
    if not samples:
        raise InputError(NO_BATCH)
    layers = {
        name: LayerOperations(
            c.macs / samples,
            c.acs / samples,
            None if lengths is None else c.dense / samples,
            c.spikes / samples,
        )
        for name, c in counts.items()
    }
    every = layers.values()
    total = LayerOperations(
        sum(n.effective_macs for n in every),
        sum(n.effective_acs for n in every),
        None if lengths is None else sum(n.dense or 0.0 for n in every),
        sum(n.spike_operations for n in every),
    )
    steps = None if lengths is None or len(lengths) != 1 else min(lengths)
    return Operations(layers, total, samples, steps)
