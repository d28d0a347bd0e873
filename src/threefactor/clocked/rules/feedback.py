"""Direct feedback connections from the output to every hidden layer, shared by several rules."""

from __future__ import annotations

import torch
from torch import Tensor

from threefactor.clocked.rules.base import Rule
from threefactor.errors import InputError

__all__ = ["FeedbackRule"]


class FeedbackRule(Rule):
    """A rule that owns one feedback matrix per hidden layer, kept as `feedback_0`, `feedback_1`...

    Each is stored as (m, n_l), the transpose of the formulas' (n_l, m): a batch of errors (B, m)
    times it gives (B, n_l), and its update writes memory in order.
    """

    def _feedback_like(self, n: int) -> Tensor:
        """An empty matrix for a layer of n neurons, with the network's dtype and device."""
        weight = next(self.network.parameters())
        return torch.empty(self.outputs, n, dtype=weight.dtype, device=weight.device)

    def _random_feedback(self, n: int, scale: float | None) -> Tensor:
        """Uniform values whose bound defaults to that of a fresh read-out's weights, 1/sqrt(n)."""
        if scale is not None and not scale > 0.0:
            raise InputError(f"feedback_scale is {scale}; give a number above 0")
        bound = n**-0.5 if scale is None else scale
        return self._feedback_like(n).uniform_(-bound, bound)

    @property
    def feedback(self) -> list[Tensor]:
        """The feedback matrices, (m, n_l) each, first hidden layer first."""
        return [getattr(self, f"feedback_{i}") for i in range(len(self.layer_sizes))]
