"""Direct Kolen-Pollack learning: direct feedback that learns like the forward weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import Unpack

from threefactor.clocked.noise import Perturbation
from threefactor.clocked.rules.base import TimeStep
from threefactor.clocked.rules.feedback import FeedbackOptions, FeedbackRule, checked_scale
from threefactor.clocked.synapse import accumulate

__all__ = ["DKP"]


class DKP(FeedbackRule):
    r"""Direct Kolen-Pollack learning, with traces instead of activations.

    .. math:: g_l[t] = B_l e[t], \qquad \nabla B_l = \sum_t \hat a_l[t] e[t]^T

    B_l is a parameter: give `rule.parameters()` to the optimiser together with the network's, so
    that weights and feedback share its step size and weight decay.

    Args:
        network: see `Rule`.
        feedback_scale: B_l starts uniform in [-feedback_scale, feedback_scale];
            1/sqrt(n_l) by default.
        perturbation: noise on the hidden layers, or None.
        **options: see `FeedbackRule` and `Rule`.

    Warns:
        UserWarning: once, if the feedback has gradients but no optimiser changes it.

    Example:
        >>> import torch
        >>> from threefactor import clocked
        >>> net = clocked.fc(4, (8,), 3)
        >>> rule = clocked.DKP(net)
        >>> optimizer = torch.optim.AdamW([*net.parameters(), *rule.parameters()])

    Source: Webster et al. 2020; Xiao et al. 2026 (OPZO), appendix D.4.
    """

    keeps_layer_traces = True
    signal = "B e, feedback from the output that learns by the optimiser"

    def __init__(
        self,
        network: nn.Module,
        *,
        feedback_scale: float | None = None,
        perturbation: Perturbation | None = None,
        **options: Unpack[FeedbackOptions],
    ) -> None:
        super().__init__(network, perturbation=perturbation, **options)
        self.feedback = self.make_feedback(checked_scale(feedback_scale), trainable=True)

    def layer_errors(self, step: TimeStep) -> Sequence[Tensor]:
        if step.layers and step.layers[0].steps == 1:
            self.warn_if_idle("feedback", self.feedback[0].matrix)
        errors = []
        for connection, layer in zip(self.feedback, step.layers, strict=True):
            assert layer.trace is not None
            errors.append(connection(step.error))
            if connection.matrix.requires_grad:
                accumulate(
                    connection.matrix, step.error.t() @ layer.trace.reshape(len(step.error), -1)
                )
        return errors
