"""Spatial backpropagation with surrogate derivatives: the reference that the others approach."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from threefactor.clocked.rules.base import Rule, TimeStep

__all__ = ["SpatialBP"]


class SpatialBP(Rule):
    r"""Backpropagation through the layers within a time step, never across steps (OTTT).

    .. math:: g_l[t] = W_{l+1}^T \delta_{l+1}[t]

    Needs symmetric backward weights and a backward phase, which hardware lacks. Gradients are
    exact for the instantaneous loss up to the surrogate derivative. Memory does not grow with T.

    Args:
        network: see `Rule`.
        loss, trace_decay, untraced, perturbation, input_shape, chain, label_delay: see `Rule`.

    Example:
        >>> import torch
        >>> from threefactor import clocked
        >>> net = clocked.fc(4, (8,), 3)
        >>> rule = clocked.SpatialBP(net)
        >>> result = rule.step(torch.rand(2, 4), torch.tensor([0, 2]), steps=6)
        >>> net.linear1.weight.grad.shape
        torch.Size([8, 4])

    Source: Xiao et al. 2022, Online Training Through Time; method "Spatial BP & SG" of
    Xiao et al. 2026 (OPZO).
    """

    couples_layers = True
    signal = "the chain rule through the layers after it, within the time step"

    def layer_errors(self, step: TimeStep) -> Sequence[Tensor]:
        """Not asked: the chain rule carries the error through the graph of the step."""
        return ()
