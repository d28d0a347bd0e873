"""Weights with an eligibility of their own, for neurons that differ in their leaks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from threefactor.clocked.pathway import Pathway
from threefactor.clocked.synapse import Linear, accumulate
from threefactor.errors import InputError

__all__ = ["PerNeuronPathway"]


class PerNeuronPathway(Pathway):
    r"""The presynaptic side of a linear layer in front of neurons with leaks one by one.

    .. math:: e_{ij}[t] = \lambda_i e_{ij}[t-1] + s_j[t], \qquad
              \nabla W_{ij} = \sum_t \delta_i[t] e_{ij}[t]

    No presynaptic trace is a factor of it, so it is B x n_out x n_in numbers, in place of B x n_in.
    With a synaptic current, :math:`c_{ij}[t] = \alpha_i c_{ij}[t-1] + s_j[t]` is in the place of s.
    While the input is constant, e is a number for each neuron times the input, and only that is
    kept.

    Args:
        synapse: the layer.
        *given, **options: see `Pathway`.

    Raises:
        InputError: if the layer is not linear; when called, if its input is not (B, n_in).
    """

    def __init__(self, synapse: Any, *given: Any, **options: Any) -> None:
        super().__init__(synapse, *given, **options)
        if not isinstance(synapse, Linear):
            raise InputError(
                f"the neurons behind layer {self.name!r}, a {type(synapse).__name__}, differ in "
                "their leaks, and only linear layers can keep an eligibility for each weight; give "
                f"trace_decay={{{self.name!r}: ...}}, a number"
            )

    def reset(self) -> None:
        super().reset()
        self._gains: float | Tensor = 0.0
        self._current_gains: float | Tensor = 0.0

    @property
    def _may_be_constant(self) -> bool:
        return True

    def _shape_seen(self) -> torch.Size | None:
        if self.trace is None:
            return super()._shape_seen()
        batch, _, inputs = self.trace.shape
        return torch.Size((batch, inputs))

    def _follow(self, x: Tensor, constant: bool) -> None:
        if x.dim() != 2:
            raise InputError(
                f"layer {self.name!r} got an input of shape {tuple(x.shape)}; with an eligibility "
                "for each weight it has to be (batch, inputs)"
            )
        leak, alpha = self.decay, self.synaptic_decay
        if constant:
            self._current_gains = 1.0 if alpha is None else alpha * self._current_gains + 1.0
            self._gains = leak * self._gains + self._current_gains
            return
        if not self._varies:
            self._varies = True
            if self._input is not None:
                self.trace = self._spread(self._gains, self._input)
                if alpha is not None:
                    self._current_trace = self._spread(self._current_gains, self._input)
        fresh = x.unsqueeze(1)
        if alpha is not None:
            if self._current_trace is None:
                self._current_trace = self._spread(1.0, x)
            else:
                self._current_trace.mul_(_column(alpha)).add_(fresh)
            fresh = self._current_trace
        if self.trace is None:
            self.trace = self._spread(1.0, x) if alpha is None else fresh.clone()
        else:
            self.trace.mul_(_column(leak)).add_(fresh)

    def _spread(self, gains: float | Tensor, x: Tensor) -> Tensor:
        """Return the input of each weight, (B, n_out, n_in), times a number of each neuron."""
        ones = x.new_ones(len(self.synapse.weight), 1)
        return x.unsqueeze(1) * (ones * _column(gains))

    def learn(self, delta: Tensor, constant: bool) -> None:
        self.synapse.add_bias_grad(delta)
        if constant:
            weighted = delta * self._gains
            self._delta_sum = weighted if self._delta_sum is None else self._delta_sum + weighted
        elif self.synapse.plastic is not None:
            assert self.trace is not None
            grad = torch.einsum("bi,bij->ij", delta, self.trace)
            accumulate(self.synapse.held("weight"), grad)


def _column(value: float | Tensor) -> float | Tensor:
    """Let values of the neurons behind meet (B, n_out, n_in)."""
    return value.unsqueeze(1) if isinstance(value, Tensor) else value
