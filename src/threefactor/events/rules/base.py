"""The whole contract of a learning rule for event-driven networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import Never, TypedDict

from threefactor import processes
from threefactor.clocked.kernels import keep_freed_memory
from threefactor.clocked.losses import Loss
from threefactor.clocked.torch_losses import checked_loss
from threefactor.clocked.verdicts import finite, refuse_tensor
from threefactor.errors import InputError, unknown_name, warn_user
from threefactor.events.arrays import as_array, for_kernels, number
from threefactor.events.delivery import can_learn, collected, give
from threefactor.events.layer import Activity, Layer
from threefactor.events.losses import SpikeCount
from threefactor.events.network import Network, check_network
from threefactor.events.parallel import alone, over
from threefactor.events.spikes import SpikeBatch
from threefactor.events.trial import Result, Trial, in_full
from threefactor.options import refuse_unknown
from threefactor.processes import Share, World

__all__ = ["Rule", "RuleOptions"]

LOCAL_GRADIENTS = ("modified", "exact")
NOT_NEGATIVE = "a number of at least 0"


class RuleOptions(TypedDict, total=False):
    """Options that all rules share; see `Rule`."""

    loss: Loss | None
    local_gradient: str
    rate_penalty: float
    rate_target: float


class Rule(nn.Module, ABC):
    r"""A learning rule: a way to obtain the error of every spike by its time.

    Everything else is common to all rules: the forward pass, the local gradient of a spike time,
    the gradient of the weights,

    .. math:: \frac{dL}{dw_{ij}} = \sum_k q_k \frac{dt_k}{dw_{ij}}

    with q_k the error of spike k of neuron i. The network is not a submodule: `rule.state_dict()`
    holds what the rule itself learns. Layers may be replaced, moved or frozen after the rule was
    built, and its loss and settings changed: each step takes them as they are, or refuses them.
    Hooks of weights see the gradients.

    Args:
        network: from `fc`, or a `Network` of `Layer`s.
        loss: (output, targets) -> (losses, gradients); `SpikeCount()` by default.
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
    world: World | None = None
    """The processes that share the batches of this rule; see `join`."""

    def __init__(
        self,
        network: Network,
        *,
        loss: Loss | None = None,
        local_gradient: str = "modified",
        rate_penalty: float = 0.0,
        rate_target: float = 0.0,
        **unknown: Never,
    ) -> None:
        super().__init__()
        refuse_unknown(type(self), unknown)
        check_network(network)
        keep_freed_memory()
        self.loss = SpikeCount() if loss is None else checked_loss(loss)
        self.local_gradient = local_gradient
        self.rate_penalty = number("rate_penalty", rate_penalty, NOT_NEGATIVE, zero=True)
        self.rate_target = number("rate_target", rate_target, NOT_NEGATIVE, zero=True)
        self.network: Network
        # A registered module would enter state_dict and parameters.
        object.__setattr__(self, "network", network)
        Rule.check(self, network.layers)
        self._warned_of_silence = False

    @property
    def layers(self) -> list[Layer]:
        """The network's layers as they are now, first to last."""
        return list(self.network.layers.values())

    @property
    def layer_sizes(self) -> dict[str, int]:
        """The neurons of each hidden layer, by its name."""
        return {name: layer.neurons for name, layer in list(self.network.layers.items())[:-1]}

    @property
    def outputs(self) -> int:
        """The number of output neurons m."""
        return self.layers[-1].neurons

    def join(self, world: World) -> None:
        """Train together with the same rule in other processes; see `clocked.Rule.join`."""
        processes.join(self, world)

    def synchronise(self, share: Share) -> None:
        """Make what the rule learned without the optimiser the same in all processes.

        Called after `learn`; see `clocked.Rule.synchronise`.
        """

    @abstractmethod
    def learn(self, trial: Trial) -> None:
        """Add the gradients of all layers to `.grad`, and learn what the rule itself owns."""

    def set_progress(self, progress: float) -> None:
        """Say how much of the training is done, 0 to 1; nothing here depends on it."""
        if number("progress", progress, "a share between 0 and 1", zero=True) > 1.0:
            raise InputError(f"progress is {progress}; give a share between 0 and 1")

    def step(self, inputs: SpikeBatch, targets: Tensor) -> Result:
        """Run a batch and add the gradients to `.grad`, as `backward` would.

        Several threads may call it; those that share weights take turns. After an error, Ctrl-C
        included, the gradients and what the rule learned are as before.

        Args:
            inputs: the spikes of B samples.
            targets: (B,) class labels as int64, or what the loss expects.

        Returns:
            Result with loss, output spike counts, and spike statistics.

        Raises:
            InputError: if inputs or targets do not fit the network, or the network has changed so
                that the rule cannot train it.
            DivergenceError: if weights or feedback hold NaN or infinity.
        """
        if targets is None:
            raise InputError("targets are None; give what the loss expects, such as class labels")
        layers = self.network.layers
        weights = [p for layer in layers.values() for p in layer._parameters.values()]
        with in_full(), torch.no_grad(), alone(self, *weights), processes.step_of(self.world):
            self.check(layers)
            trial = Trial(self.network, inputs, targets, self.loss)
            named = self.named_buffers() if self._modules else self._buffers.items()
            buffers = {name: buffer for name, buffer in named if buffer is not None}
            _check_values(trial, buffers)
            if self.world is not None:
                trial.take_share(self.world.share(self, len(inputs)))
            self._warn_of_silence(trial)
            result = trial.result()
            restore = self.saved(buffers)
            versions = [buffer._version for buffer in buffers.values()]
            try:
                with collected(self.world):
                    self.learn(trial)
                    if trial.share is not None:
                        if versions != [buffer._version for buffer in buffers.values()]:
                            processes.check_synchronised(self, Rule)
                        self.synchronise(trial.share)
            except BaseException:
                restore()
                raise
            return result

    def check(self, layers: dict[str, Layer]) -> None:
        """Refuse a network that the rule cannot train as it is now, and settings without meaning.

        Args:
            layers: the network's layers by name.
        """
        checked_loss(self.loss)
        if self.local_gradient not in LOCAL_GRADIENTS:
            raise unknown_name("local gradient", self.local_gradient, LOCAL_GRADIENTS)
        for name in ("rate_penalty", "rate_target"):
            number(name, getattr(self, name), NOT_NEGATIVE, zero=True)
        for name, layer in layers.items():
            if layer._backward_hooks or layer._backward_pre_hooks:
                raise InputError(
                    f"{name} has backward hooks of a module, which exact spike times never reach; "
                    "put them on its parameters (weight.register_hook)"
                )
            if layer._parameters.keys() == {"weight"} and not layer._modules:
                continue
            others = [
                key for key, p in layer.named_parameters() if p.requires_grad and key != "weight"
            ]
            if others:
                raise InputError(
                    f"{name} has the parameters {others}, which no rule trains: rules train weight "
                    "alone, and it may not be computed from others (prune, parametrize). Make it a "
                    'plain parameter (prune.remove(layer, "weight")); a hook can keep pruned '
                    "weights at 0: layer.weight.register_hook(lambda gradient: gradient * mask)"
                )

    def saved(self, buffers: dict[str, Tensor]) -> Callable[[], None]:
        """Return what puts the rule's own state back as it is now.

        Args:
            buffers: the rule's buffers by name.
        """
        before = [(buffer, buffer.clone()) for buffer in buffers.values()]

        def restore() -> None:
            for buffer, values in before:
                buffer.copy_(values)

        return restore

    def _warn_of_silence(self, trial: Trial) -> None:
        """Say once that the output layer is silent in a whole batch, until it spikes again."""
        silent = len(trial.activities[-1].spikes._raw.times) == 0
        if silent and not self._warned_of_silence:
            advice = _unseen(trial.activities[0]) or (
                "without spikes it gets no gradient and cannot recover by itself, and with ExactBP "
                "neither can the layers before it. Raise its weights, or lower its threshold or "
                "the learning rate"
            )
            warn_user(
                f"no neuron of the output layer {trial.names[-1]!r} spiked in a batch of "
                f"{len(trial.output)}: {advice}"
            )
        self._warned_of_silence = silent

    def rate_error(self, trial: Trial, layer: int) -> Tensor:
        """Return the error of each hidden neuron, (n_l,), from its firing rate (appendix A.1)."""
        counts, share = trial.counts[layer], trial.share
        weight = self.rate_penalty / len(counts)
        if share is not None:
            weight = self.rate_penalty / share.total if share.counts else 0.0
        return weight * (self.rate_target - trial.mean_counts(layer))

    def spike_weights(
        self, layer: Layer, activity: Activity, errors: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return v_k of every spike, decayed with tau_s and tau to the time of its parent.

        Args:
            layer: the layer.
            activity: what it did.
            errors: (spikes,) the error q_k of every spike.

        Raises:
            InputError: if there is not one error per spike, or the activity is that of another
                layer.
        """
        _check_layer(layer, activity)
        raw = activity._raw
        errors = _per_spike("errors", errors, activity)
        fast, slow = np.empty_like(raw.currents), np.empty_like(raw.currents)
        over(
            "spike_weights", len(activity.spikes), *activity.spikes._raw, raw.currents, raw.ys,
            errors, activity.spikes.size, activity.theta, activity.tau,
            self.local_gradient == "exact", fast, slow,
        )  # fmt: skip
        return fast, slow

    def add_gradient(
        self, layer: Layer, activity: Activity, weights: tuple[NDArray[Any], NDArray[Any]]
    ) -> None:
        """Add the gradient of a layer's weights to `.grad`; within `step`, when all are there.

        Args:
            layer: the layer.
            activity: what it did.
            weights: what `spike_weights` returned.

        Raises:
            InputError: if there is not one weight of each kind per spike, no gradient can reach
                the parameters behind the layer's weights, or the activity is another layer's.
        """
        _check_layer(layer, activity)
        if not isinstance(weights, (tuple, list)) or len(weights) != 2:
            raise InputError("weights are not what spike_weights returned, a pair of arrays")
        fast, slow = (_per_spike("weights", values, activity) for values in weights)
        if not can_learn(activity):
            return
        inputs, spikes, raw = activity.inputs._raw, activity.spikes._raw, activity._raw
        gradient = torch.empty_like(activity._weight, requires_grad=False)
        over(
            "weight_gradient", activity.spikes.size, inputs.offsets, inputs.addresses, raw.decays,
            spikes.offsets, spikes.addresses, raw.parents, fast, slow, gradient.numpy(),
        )  # fmt: skip
        give(activity, gradient)


def _check_values(trial: Trial, buffers: dict[str, Tensor]) -> None:
    """Refuse a network or rule of mixed precision, and feedback that is NaN or infinite."""
    dtype = trial.counts[0].dtype
    for name, counts in zip(trial.names, trial.counts, strict=True):
        if counts.dtype != dtype:
            raise InputError(
                f"{trial.names[0]} is {dtype} and {name} {counts.dtype}; a rule needs one "
                f"precision, use network.to({dtype})"
            )
    for name, buffer in buffers.items():
        if buffer.dtype != dtype and buffer.is_floating_point():
            raise InputError(
                f"{name} of the rule is {buffer.dtype} and the network {dtype}; "
                f"use rule.to({dtype})"
            )
        if buffer.is_floating_point():
            infinite = "." not in name  # such as the best loss of a rule of one's own
            finding = partial(refuse_tensor, f"{name} of the rule", buffer, infinite=infinite)
            finite(name, buffer, finding)


def _unseen(activity: Activity) -> str:
    """Say why a layer saw no input spike; an empty text if it saw some."""
    times, duration = activity.inputs._raw.times, activity.layer.duration
    if not len(times):
        return "the batch holds no input spike"
    first = float(times.min())
    if first < duration:
        return ""
    return (
        f"all {len(times)} input spikes come at or after the end of the simulation, the first at "
        f"{first:.4g} s, the end at {duration:.4g} s, and are not seen. Times are in seconds: give "
        "them so, or simulate longer"
    )


def _check_layer(layer: Layer, activity: Activity) -> None:
    if activity.layer is not layer:
        raise InputError("the activity is that of another layer than the one given")


def _per_spike(name: str, values: NDArray[Any], activity: Activity) -> NDArray[Any]:
    """Return values as the kernels take them, one for each spike of a layer."""
    wanted = activity._raw.currents
    found = as_array(values)
    if found.shape != wanted.shape or found.dtype.kind not in "fui":
        raise InputError(
            f"{name} are {found.dtype} of shape {found.shape}; expected {wanted.shape}, a number "
            "for each spike of the layer"
        )
    return for_kernels(found, wanted.dtype)
