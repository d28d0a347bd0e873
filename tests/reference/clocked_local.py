"""Read-outs of hidden layers under autograd: the signals of local and intermediate learning.

Each read-out hangs on a detached copy of its layer's activity, so that autograd gives the signal
that reaches this layer alone. Its value comes from the activity, its weight gradient from the
trace.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from reference import clocked as slow
from reference.clocked_conv import Plain
from torch import Tensor
from torch.nn import functional as F


class Readouts:
    """Stands in for `extra` of `reference.clocked_conv.train`.

    Args:
        rule: name of the rule that sends the middle layer's error back.
        readouts: A_l (m, n_l) by number of layer.
        backward: C_l^T by number of layer; absent ones share the read-out's weights.
        scale: factor of the local signal; 0 without local learning.
        middle: number of the middle layer and the (n_j, m) feedback of the layers before it.
        options: of the rule.
    """

    def __init__(
        self,
        rule: str,
        readouts: dict[int, Tensor],
        backward: dict[int, Tensor],
        scale: float,
        middle: tuple[int, list[np.ndarray]] | None,
        options: dict[str, Any],
    ) -> None:
        self.rule, self.scale, self.middle, self.options = rule, scale, middle, options
        self.readouts = {i: a.detach().clone().requires_grad_() for i, a in readouts.items()}
        self.backward = {i: c.detach().clone() for i, c in backward.items()}
        feedback = [] if middle is None else middle[1]
        self.outcome = slow.Outcome([], [], feedback, [])
        self.second: dict[int, Tensor] = {}

    def at_once(
        self, neurons: list[Plain], now: slow.Moment, y: Tensor, steps: int
    ) -> tuple[list[Tensor], slow.Moment | None]:
        signals = [torch.zeros_like(n.activity.detach().flatten(1)) for n in neurons]
        message = None
        for i, weight in self.readouts.items():
            leaf = neurons[i].activity.detach().flatten(1).requires_grad_()
            through_weight = neurons[i].trace.flatten(1) @ weight.t()
            output = leaf @ weight.detach().t() + through_weight - through_weight.detach()
            output.retain_grad()
            onehot = F.one_hot(y, output.shape[1]).to(output)
            loss = 0.95 * F.cross_entropy(output, y) + 0.05 * F.mse_loss(output, onehot)
            (loss / steps).backward()
            local = output.grad @ self.backward[i] if i in self.backward else leaf.grad
            signals[i] += self.scale * local
            if self.middle is not None and i == self.middle[0]:
                message = self._message(neurons[i], output, i, now)
        self.sizes = [signal.shape for signal in signals]
        return signals, message

    def on_arrival(self, message: slow.Moment | None) -> list[Tensor]:
        signals = [torch.zeros(size, dtype=torch.float64) for size in self.sizes]
        if message is not None:
            nothing = slow.Model([], [])
            sent = slow.RULES[self.rule](message, nothing, [], self.outcome, self.options)
            for j, signal in enumerate(sent):
                signals[j] += torch.from_numpy(signal)
        return signals

    def _message(self, neuron: Plain, output: Tensor, i: int, now: slow.Moment) -> slow.Moment:
        second = None
        if now.second_output is not None:
            second = (neuron.second_activity.flatten(1) @ self.readouts[i].t()).detach().numpy()
        noise = None if now.noise is None else now.noise[:i]
        return slow.Moment(
            output.detach().numpy(), now.losses, output.grad.numpy(), second, None, [], [], noise
        )
