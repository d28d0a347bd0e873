"""One pass of a batch through a network, with or without a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.clocked.losses import Loss, check_targets
from threefactor.errors import InputError
from threefactor.events.layer import Activity
from threefactor.events.losses import SpikeCount, reads_first_spikes
from threefactor.events.network import Network, check_network
from threefactor.events.parallel import over
from threefactor.events.spikes import SpikeBatch

__all__ = ["Result", "Trial", "run"]


@dataclass
class Result:
    """What came of running a network on a batch.

    Attributes:
        output: (B, m) spike counts of the output neurons, or minus the times of their first
            spikes if that is what the loss reads; the argmax is the predicted class.
        firing_rates: spikes per neuron and sample of each hidden layer, by its name.
        capped: for each layer, how many neurons, summed over the samples, reached the threshold
            once more after their last permitted spike.
        spikes: the spikes of each layer.
        loss: mean loss over the batch; None without targets.
    """

    output: Tensor
    firing_rates: dict[str, Tensor]
    capped: dict[str, int]
    spikes: dict[str, SpikeBatch]
    loss: Tensor | None = None


class Trial:
    """What a rule may use to answer which error reaches each spike.

    B samples, m outputs. The error is already divided by B, so that gradients summed over the
    batch are those of the mean loss.

    Attributes:
        activities: what each layer did, first to last.
        counts: for each layer, its (B, n_l) spike counts.
        output: (B, m) spike counts of the output, or what else the loss reads.
        losses: (B,) loss of each sample; None without targets.
        error: (B, m) minus the gradient of the loss by the output: with `SpikeCount`, target
            minus count. A later spike means fewer spikes: it is the gradient by a spike's time.
    """

    def __init__(
        self, network: Network, inputs: SpikeBatch, targets: Tensor | None, loss: Loss
    ) -> None:
        check_network(network)
        if isinstance(inputs, SpikeBatch) and len(inputs) == 0:
            raise InputError("the batch holds no sample; give at least one, which may be empty")
        self.names = list(network.layers)
        self.activities: list[Activity] = network.run(inputs)
        self.counts = [torch.from_numpy(activity.counts) for activity in self.activities]
        self.first_only = reads_first_spikes(loss)
        self.output = self._first_times(network) if self.first_only else self.counts[-1]
        self.losses: Tensor | None = None
        if targets is not None:
            check_targets(loss, targets, *self.output.shape)
            self.losses, gradient = loss(self.output, targets)
            self.error = gradient.to(self.counts[-1].dtype) / -len(self.output)

    def result(self) -> Result:
        """Sum up."""
        layers = list(zip(self.names, self.activities, strict=True))
        return Result(
            self.output,
            {name: _rate(activity) for name, activity in layers[:-1]},
            {name: activity.capped for name, activity in layers},
            {name: activity.spikes for name, activity in layers},
            None if self.losses is None else self.losses.mean(),
        )

    def per_spike(self, layer: int, errors: Tensor) -> NDArray[Any]:
        """Give every spike of a layer the error, (B, n_l), of its neuron in its sample.

        Of the outputs' spikes only those get one that the loss reads.
        """
        activity = self.activities[layer]
        spikes = activity.spikes
        first_only = self.first_only and activity is self.activities[-1]
        given = np.empty_like(activity.currents)
        over(
            "per_spike", len(spikes), spikes.offsets, spikes.addresses,
            errors.expand(*activity.counts.shape).contiguous().numpy(), first_only, given,
        )  # fmt: skip
        return given

    def _first_times(self, network: Network) -> Tensor:
        """Return minus the time of each output's first spike, (B, m)."""
        duration = list(network.layers.values())[-1].duration
        spikes, times = self.activities[-1].spikes, torch.empty_like(self.counts[-1])
        over(
            "first_times", len(spikes), spikes.offsets, spikes.times, spikes.addresses, duration,
            times.numpy(),
        )  # fmt: skip
        return times.neg_()


def _rate(activity: Activity) -> Tensor:
    """Return the spikes per neuron and sample."""
    counts = torch.from_numpy(activity.counts)
    return counts.new_tensor(len(activity.spikes.times) / max(counts.numel(), 1))


def run(
    network: Network,
    inputs: SpikeBatch,
    *,
    targets: Tensor | None = None,
    loss: Loss | None = None,
) -> Result:
    """Run a network on a batch without learning.

    Args:
        network: built by `fc`, or a `Network` of `Layer`s.
        inputs: the spikes of B samples.
        targets: (B,) class labels as int64, or what the loss expects; with them, the result has
            a loss.
        loss: `SpikeCount()` by default.

    Raises:
        InputError: if the input does not fit the network.

    Example:
        >>> from threefactor import events
        >>> net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.2, duration=0.2)
        >>> events.run(net, events.latency_code(torch.rand(2, 4))).output.shape
        torch.Size([2, 3])
    """
    with torch.no_grad():
        return Trial(network, inputs, targets, loss or SpikeCount()).result()
