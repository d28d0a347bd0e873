"""Direct feedback alignment: fixed random feedback."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import Unpack

from threefactor.clocked.noise import Perturbation
from threefactor.clocked.probe import Probe
from threefactor.clocked.rules.feedback import Feedback, checked_scale
from threefactor.clocked.rules.local import LocalLearningOptions, LocalLearningRule

__all__ = ["DFA"]


class DFA(LocalLearningRule):
    r"""Direct feedback alignment.

    .. math:: g_l[t] = B_l e[t]

    with B_l random and fixed. Cheap and parallel over the layers; its gradient is aligned with
    the true one only as far as the forward weights learn to fit B_l, which fails in convolutions.

    Args:
        network: see `Rule`.
        feedback_scale: B_l is uniform in [-feedback_scale, feedback_scale];
            1/sqrt(n_l) by default, as in a fresh read-out.
        perturbation: noise on the hidden layers, or None.
        **options: see `LocalLearningRule`, `FeedbackRule` and `Rule`.

    Example:
        >>> import torch
        >>> from threefactor import clocked
        >>> rule = clocked.DFA(clocked.fc(4, (8,), 3))
        >>> rule.feedback[0].matrix.shape
        torch.Size([3, 8])

    Source: Nokland 2016; Xiao et al. 2026 (OPZO), table 1.
    """

    signal = "B e, fixed random feedback from the output"

    def __init__(
        self,
        network: nn.Module,
        *,
        feedback_scale: float | None = None,
        perturbation: Perturbation | None = None,
        **options: Unpack[LocalLearningOptions],
    ) -> None:
        super().__init__(network, perturbation=perturbation, **options)
        self.start_feedback(checked_scale(feedback_scale))

    def moves(self, buffer: str) -> bool:
        return False

    def send_back(
        self,
        feedback: Sequence[Feedback],
        layers: Sequence[Probe],
        output: Tensor,
        error: Tensor,
    ) -> list[Tensor]:
        return [connection(error) for connection in feedback]
