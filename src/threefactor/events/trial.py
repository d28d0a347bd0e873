"""One pass of a batch through a network, with or without a loss."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.clocked.losses import Loss, check_targets
from threefactor.clocked.torch_losses import checked_loss
from threefactor.errors import InputError
from threefactor.events.arrays import as_array, for_kernels
from threefactor.events.layer import Activity
from threefactor.events.losses import FirstSpike, SpikeCount, losses_of, reads_first_spikes
from threefactor.events.network import Network, check_network
from threefactor.events.parallel import over
from threefactor.events.spikes import SpikeBatch
from threefactor.processes import Share

__all__ = ["Result", "Trial", "in_full", "run"]


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
        share: which rows of a whole batch these samples are, if several processes share it; errors
            are then divided by the samples of the whole.
    """

    def __init__(
        self, network: Network, inputs: SpikeBatch, targets: Tensor | None, loss: Loss
    ) -> None:
        check_network(network)
        if isinstance(inputs, SpikeBatch) and len(inputs) == 0:
            raise InputError("the batch holds no sample; give at least one, which may be empty")
        self.names = list(network.layers)
        with torch.enable_grad():  # for weights that are computed from parameters
            self.activities: list[Activity] = network.run(inputs)
        self.counts = [torch.from_numpy(activity._raw.counts) for activity in self.activities]
        self.first_only = reads_first_spikes(loss)
        self.output = self._first_times(network) if self.first_only else self.counts[-1]
        self.losses: Tensor | None = None
        self.share: Share | None = None
        if targets is not None:
            _check_dense(targets)
            check_targets(loss, targets, *self.output.shape)
            if isinstance(loss, FirstSpike):
                loss.check_end(self.activities[-1].layer.duration)
            self.losses, gradient = losses_of(loss, self.output, targets)
            self.error = gradient.to(self.counts[-1].dtype) / -len(self.output)

    def take_share(self, share: Share) -> None:
        """Let the samples be these rows of a batch that several processes share."""
        self.share = share
        self.error = self.error * (len(self.output) / share.total if share.counts else 0.0)

    def result(self) -> Result:
        """Sum up, over all processes that share the batch; output and spikes are one's own."""
        layers = list(zip(self.names, self.activities, strict=True))
        rates = {name: _rate(activity) for name, activity in layers[:-1]}
        capped = {name: activity.capped for name, activity in layers}
        loss = None if self.losses is None else self.losses.mean()
        if self.share is not None:
            assert loss is not None
            *means, loss = self.share.mean([*rates.values(), loss])
            rates = dict(zip(rates, means, strict=True))
            own = [n if self.share.counts else 0 for n in capped.values()]
            sums = self.share.world.gather(own).sum(0).tolist()
            capped = {name: int(total) for name, total in zip(capped, sums, strict=True)}
        spikes = {name: activity.spikes for name, activity in layers}
        return Result(self.output, rates, capped, spikes, loss)

    def mean_counts(self, layer: int) -> Tensor:
        """Return the mean spike count of each neuron, (n_l,), over the whole batch."""
        counts = self.counts[layer]
        if self.share is None:
            return counts.mean(0)
        mean = counts.mean(0) * self.share.weight
        self.share.world.add([mean])
        return mean

    def per_spike(self, layer: int, errors: Tensor) -> NDArray[Any]:
        """Give every spike of a layer the error, (B, n_l), of its neuron in its sample.

        Of the outputs' spikes only those get one that the loss reads.
        """
        activity = self.activities[layer]
        raw = activity.spikes._raw
        first_only = self.first_only and activity is self.activities[-1]
        given = np.empty_like(activity._raw.currents)
        over(
            "per_spike", len(activity.spikes), raw.offsets, raw.addresses,
            self.by_neuron(activity, errors), first_only, given,
        )  # fmt: skip
        return given

    def by_neuron(self, activity: Activity, errors: Tensor) -> NDArray[Any]:
        """Return errors of a layer's neurons as (B, n_l), in the precision of its weights.

        Raises:
            InputError: if they are not real numbers, or cannot be expanded to that shape.
        """
        counts = activity._raw.counts
        found = as_array(errors)
        try:
            if found.dtype.kind not in "uif":
                raise ValueError("no numbers")
            whole = found if found.shape == counts.shape else np.broadcast_to(found, counts.shape)
            return for_kernels(whole, counts.dtype)
        except ValueError as problem:
            raise InputError(
                f"errors are {found.dtype} of shape {found.shape}; expected real numbers, "
                f"{counts.shape}, one per sample and neuron"
            ) from problem

    def _first_times(self, network: Network) -> Tensor:
        """Return minus the time of each output's first spike, (B, m)."""
        duration = list(network.layers.values())[-1].duration
        spikes, times = self.activities[-1].spikes, torch.empty_like(self.counts[-1])
        over("first_times", len(spikes), *spikes._raw, float(duration), times.numpy())
        return times.neg_()


def _rate(activity: Activity) -> Tensor:
    """Return the spikes per neuron and sample."""
    counts = activity._raw.counts
    mean = len(activity.spikes._raw.times) / max(counts.size, 1)
    return torch.from_numpy(np.array(mean, counts.dtype))


def _check_dense(targets: Any) -> None:
    """Refuse a tensor of targets that has no values here; other kinds are the loss's to judge."""
    if isinstance(targets, Tensor) and (
        targets.device.type != "cpu" or targets.layout is not torch.strided
    ):
        raise InputError(
            f"targets are {targets.layout} on {targets.device}; give a dense tensor on the CPU"
        )


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
        InputError: if input or targets do not fit the network, or the loss is none.

    Example:
        >>> from threefactor import events
        >>> net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.2, duration=0.2)
        >>> events.run(net, events.latency_code(torch.rand(2, 4))).output.shape
        torch.Size([2, 3])
    """
    chosen = SpikeCount() if loss is None else checked_loss(loss)
    with in_full(), torch.no_grad():
        return Trial(network, inputs, targets, chosen).result()


def in_full() -> AbstractContextManager[object]:
    """Compute in the network's precision, with tensors that can learn, whatever is set around."""
    autocast, inference = torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()
    if not (autocast or inference):
        return nullcontext()
    stack = ExitStack()
    stack.enter_context(torch.autocast("cpu", enabled=False))
    stack.enter_context(torch.inference_mode(False))
    return stack
