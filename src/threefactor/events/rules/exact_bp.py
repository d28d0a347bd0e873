"""Backpropagation of exact spike times through all spikes and layers."""

from __future__ import annotations

import numpy as np
from typing_extensions import Never

from threefactor.clocked.losses import Loss
from threefactor.events.network import Network
from threefactor.events.parallel import over
from threefactor.events.rules.base import Rule
from threefactor.events.trial import Trial

__all__ = ["ExactBP"]


class ExactBP(Rule):
    r"""Exact backpropagation through spike times.

    .. math:: q_z = \sum_i \sum_{t_k > t_z} \lambda_k F_k w_{ij}
              \left( y_k e^{t_z/\tau_s}/\tau_s - e^{t_z/\tau}/\tau \right)

    An output spike carries q = e_o, a hidden spike the sum over the later spikes that it helped to
    cause; lam_k accounts for the resets of the spike's own neuron. Neither local nor online: the
    reference for the other rules.

    Args:
        network: see `Rule`.
        local_gradient: "exact" by default; "modified" bounds the factor F_k in every layer.
        loss, rate_penalty, rate_target: see `Rule`.

    Example:
        >>> import torch
        >>> from threefactor import events
        >>> net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.01, duration=0.2)
        >>> rule = events.ExactBP(net)
        >>> result = rule.step(events.latency_code(torch.rand(2, 4)), torch.tensor([0, 2]))
        >>> net.lif1.weight.grad.shape
        torch.Size([4, 8])

    Source: Bacho & Chu 2023, Exploring trade-offs in spiking neural networks.
    """

    def __init__(
        self,
        network: Network,
        *,
        loss: Loss | None = None,
        local_gradient: str = "exact",
        rate_penalty: float = 0.0,
        rate_target: float = 0.0,
        **unknown: Never,
    ) -> None:
        super().__init__(
            network,
            loss=loss,
            local_gradient=local_gradient,
            rate_penalty=rate_penalty,
            rate_target=rate_target,
            **unknown,
        )

    def learn(self, trial: Trial) -> None:
        errors = trial.per_spike(-1, trial.error)
        for i, activity in reversed(list(enumerate(trial.activities))):
            weights = self.spike_weights(activity.layer, activity, errors)
            self.add_gradient(activity.layer, activity, weights)
            if i == 0:
                return
            inputs, spikes, raw = activity.inputs._raw, activity.spikes._raw, activity._raw
            errors = np.empty(len(inputs.times), raw.currents.dtype)
            over(
                "input_errors", len(activity.inputs), inputs.offsets, inputs.addresses, raw.decays,
                spikes.offsets, spikes.addresses, raw.parents, *weights, activity._weights,
                activity.tau, errors,
            )  # fmt: skip
            if self.rate_penalty > 0.0:
                errors += trial.per_spike(i - 1, self.rate_error(trial, i - 1))
