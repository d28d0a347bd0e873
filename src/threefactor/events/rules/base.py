"""The whole contract of a learning rule for event-driven networks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threefactor.clocked.kernels import keep_freed_memory
from threefactor.clocked.losses import Loss
from threefactor.errors import InputError, unknown_name
from threefactor.events.layer import Activity, Layer
from threefactor.events.losses import SpikeCount
from threefactor.events.network import Network, check_network
from threefactor.events.parallel import over
from threefactor.events.spikes import SpikeBatch
from threefactor.events.trial import Result, Trial

__all__ = ["Rule"]

LOCAL_GRADIENTS = ("modified", "exact")


class Rule(nn.Module, ABC):
    r"""A learning rule: a way to obtain the error of every spike by its time.

    Everything else is common to all rules: the forward pass, the local gradient of a spike time,
    the gradient of the weights,

    .. math:: \frac{dL}{dw_{ij}} = \sum_k q_k \frac{dt_k}{dw_{ij}}

    with q_k the error of spike k of neuron i. The network is no submodule: `rule.state_dict()`
    holds what the rule itself learns.

    Args:
        network: from `fc`, or a `Network` of `Layer`s.
        loss: (counts, targets) -> (losses, gradients); `SpikeCount()` by default.
        local_gradient: "modified", bounded (equation 18), or "exact" (equation 14), which
            diverges where a potential only just reaches the threshold.
        rate_penalty: strength of the firing-rate regularisation of hidden neurons.
        rate_target: spikes per sample to which it draws a neuron's mean count over the batch.

    Raises:
        InputError: if the network is of another kind, or a number out of its range.
        ConfigurationError: if a name is not known.

    Source: Bacho & Chu (SFDFA), equations 5, 12 to 18, 23.
    """

    perturbation: None = None
    """Event-driven rules add no noise to the spikes."""

    def __init__(
        self,
        network: Network,
        *,
        loss: Loss | None = None,
        local_gradient: str = "modified",
        rate_penalty: float = 0.0,
        rate_target: float = 0.0,
    ) -> None:
        super().__init__()
        check_network(network)
        if local_gradient not in LOCAL_GRADIENTS:
            raise unknown_name("local gradient", local_gradient, LOCAL_GRADIENTS)
        for name, value in (("rate_penalty", rate_penalty), ("rate_target", rate_target)):
            if not (math.isfinite(value) and value >= 0.0):
                raise InputError(f"{name} is {value}; give a number of at least 0")
        keep_freed_memory()
        self.loss = SpikeCount() if loss is None else loss
        self.local_gradient = local_gradient
        self.rate_penalty = rate_penalty
        self.rate_target = rate_target
        self.network: Network
        self.layers: list[Layer]
        named = network.layers
        # Registered modules would enter state_dict and parameters.
        object.__setattr__(self, "network", network)
        object.__setattr__(self, "layers", list(named.values()))
        *hidden, last = named.values()
        self.outputs = last.neurons
        self.layer_sizes = {name: layer.neurons for name, layer in zip(named, hidden, strict=False)}

    @abstractmethod
    def learn(self, trial: Trial) -> None:
        """Add the gradients of all layers to `.grad`, and learn what the rule itself owns."""

    def set_progress(self, progress: float) -> None:
        """Say how much of the training is done, 0 to 1; nothing here depends on it."""
        if not 0.0 <= progress <= 1.0:
            raise InputError(f"progress is {progress}; give a share between 0 and 1")

    @torch.no_grad()
    def step(self, inputs: SpikeBatch, targets: Tensor) -> Result:
        """Run a batch and add the gradients to `.grad`, as `backward` would.

        Args:
            inputs: the spikes of B samples.
            targets: (B,) class labels as int64, or what the loss expects.

        Returns:
            Result with loss, output spike counts, and spike statistics.

        Raises:
            InputError: if inputs or targets do not fit the network.
        """
        dtype = next(self.network.parameters()).dtype
        for name, buffer in self.named_buffers():
            if buffer.dtype != dtype:
                raise InputError(
                    f"{name} of the rule is {buffer.dtype} and the network {dtype}; "
                    f"use rule.to({dtype})"
                )
        trial = Trial(self.network, inputs, targets, self.loss)
        self.learn(trial)
        return trial.result()

    def rate_error(self, trial: Trial, layer: int) -> Tensor:
        """Return the error of each hidden neuron, (n_l,), from its firing rate (appendix A.1)."""
        counts = trial.counts[layer]
        return self.rate_penalty / len(counts) * (self.rate_target - counts.mean(0))

    def spike_weights(
        self, layer: Layer, activity: Activity, errors: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return v_k of every spike, decayed with tau_s and tau to the time of its parent.

        Args:
            layer: the layer.
            activity: what it did.
            errors: (spikes,) the error q_k of every spike.
        """
        spikes = activity.spikes
        fast, slow = np.empty_like(activity.currents), np.empty_like(activity.currents)
        over(
            "spike_weights", len(spikes), spikes.offsets, spikes.times, spikes.addresses,
            activity.currents, activity.ys, errors, layer.neurons, layer.theta, layer.tau,
            self.local_gradient == "exact", fast, slow,
        )  # fmt: skip
        return fast, slow

    def add_gradient(
        self, layer: Layer, activity: Activity, weights: tuple[NDArray[Any], NDArray[Any]]
    ) -> None:
        """Add the gradient of a layer's weights, given what `spike_weights` returned."""
        if not layer.weight.requires_grad:
            return
        grad, fresh = layer.grad_array()
        inputs, spikes = activity.inputs, activity.spikes
        over(
            "weight_gradient", layer.neurons, inputs.offsets, inputs.addresses, activity.decays,
            spikes.offsets, spikes.addresses, activity.parents, *weights, fresh, grad,
        )  # fmt: skip
