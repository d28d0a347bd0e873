"""Spiking forward direct feedback alignment: feedback learned from graded spikes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from threefactor.errors import InputError, unknown_name
from threefactor.events.network import Network
from threefactor.events.parallel import over, product
from threefactor.events.rules.feedback import FeedbackRule
from threefactor.events.trial import Trial

__all__ = ["SFDFA"]

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


class SFDFA(FeedbackRule):
    r"""Spiking forward direct feedback alignment.

    .. math:: B_{io} \leftarrow B_{io} - \eta\, \overline{B_{io} - p_i G_o}

    Each hidden neuron draws p ~ N(0, 1) per sample and puts it on its first spike as a grade. A
    neuron gathers the weighted grades of the spikes that reach it and passes the sum on with its
    own spike, after which it starts from 0. G_o is the sum of the grades that output neuron o
    emits; the bar is the mean over the samples in which hidden neuron i fired. With one hidden
    layer p_i G_o estimates the weight from i to o without bias (equation 9). B starts at 0, and
    the errors of a batch use B as it was before.

    Args:
        network: see `Rule`.
        feedback_lr: eta.
        feedback_optimizer: "sgd", plain descent as in the authors' runs, or "adam" as in their
            text.
        generator: source of p; PyTorch's global one by default.
        **common: `traces` of `FeedbackRule`; `loss`, `local_gradient`, `rate_penalty`,
            `rate_target` of `Rule`.

    Raises:
        InputError: if the learning rate is negative or not finite.
        ConfigurationError: if a name is not known.

    Example:
        >>> from threefactor import events
        >>> net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.2, duration=0.2)
        >>> rule = events.SFDFA(net, local_gradient="modified")
        >>> spikes = events.latency_code(torch.rand(2, 4), window=0.1)
        >>> result = rule.step(spikes, torch.tensor([0, 2]))
        >>> result.output.shape
        torch.Size([2, 3])

    Source: Bacho & Chu (SFDFA), section 2.2, equations 7 to 9.
    """

    def __init__(
        self,
        network: Network,
        *,
        feedback_lr: float = 1e-4,
        feedback_optimizer: str = "sgd",
        generator: torch.Generator | None = None,
        **common: Any,
    ) -> None:
        super().__init__(network, **common)
        if feedback_optimizer not in OPTIMIZERS:
            raise unknown_name("feedback optimiser", feedback_optimizer, OPTIMIZERS)
        if not (math.isfinite(feedback_lr) and feedback_lr >= 0.0):
            raise InputError(f"feedback_lr is {feedback_lr}; give a number of at least 0")
        self.generator = generator
        for i, n in enumerate(self.layer_sizes.values()):
            self.register_buffer(f"feedback_{i}", self.feedback_like(n).zero_())
        kind = OPTIMIZERS[feedback_optimizer]
        self.optimizer = kind(self.feedback, lr=feedback_lr) if self.feedback else None

    def learn(self, trial: Trial) -> None:
        super().learn(trial)
        if self.optimizer is None:
            return
        perturbations = [self._perturbation(counts) for counts in trial.counts[:-1]]
        total = self.output_grades(trial, perturbations)
        for b, p, counts in zip(self.feedback, perturbations, trial.counts, strict=False):
            times = torch.from_numpy(np.count_nonzero(counts.numpy() != 0, axis=0)).to(b.dtype)
            b.grad = b * (times > 0) - product(total.t(), p) / times.clamp(min=1)
        self._follow_buffers()
        self.optimizer.step()

    def _perturbation(self, counts: Tensor) -> Tensor:
        """Draw p, (B, n_l), for the neurons that fired; the others' would meet no spike."""
        fired = counts.numpy() != 0
        number = int(np.count_nonzero(fired))
        drawn = torch.randn(number, dtype=counts.dtype, generator=self.generator)
        p = np.zeros(fired.shape, drawn.numpy().dtype)
        p[fired] = drawn.numpy()
        return torch.from_numpy(p)

    def _follow_buffers(self) -> None:
        """Let the optimiser train the feedback as it is now: `to` and the like replace it."""
        assert self.optimizer is not None
        group = self.optimizer.param_groups[0]
        for old, new in zip(group["params"], self.feedback, strict=True):
            if old is not new and old in self.optimizer.state:
                state = self.optimizer.state.pop(old)
                self.optimizer.state[new] = {
                    key: value.to(new.dtype) if value.dim() else value
                    for key, value in state.items()
                }
        group["params"] = self.feedback

    def output_grades(self, trial: Trial, perturbations: list[Tensor]) -> Tensor:
        """Return G, (B, m): the summed grades of each output neuron's spikes.

        Args:
            trial: the pass of the batch.
            perturbations: p of every hidden neuron and sample, (B, n_l) for each layer.
        """
        given = np.zeros(len(trial.activities[0].inputs.times), trial.output.numpy().dtype)
        none = torch.zeros_like(trial.output)
        for layer, activity, p in zip(
            self.layers, trial.activities, [*perturbations, none], strict=True
        ):
            spikes = activity.spikes
            emitted = np.empty_like(activity.currents)
            over(
                "grades", len(spikes), activity.inputs.offsets, activity.inputs.addresses, given,
                spikes.offsets, spikes.addresses, activity.parents, layer.weight_array(),
                p.numpy(), emitted,
            )  # fmt: skip
            given = emitted
        total = np.empty(none.shape)
        over("summed", len(spikes), spikes.offsets, spikes.addresses, given, total)
        return torch.from_numpy(total).to(none.dtype)

    def get_extra_state(self) -> dict[str, Any]:
        """The state of the feedback's optimiser, for `state_dict`."""
        return {} if self.optimizer is None else self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` returned."""
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state)
