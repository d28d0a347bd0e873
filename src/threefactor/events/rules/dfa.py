"""Direct feedback alignment: fixed random feedback."""

from __future__ import annotations

from typing_extensions import Unpack

from threefactor.events.arrays import number
from threefactor.events.network import Network
from threefactor.events.rules.feedback import FeedbackOptions, FeedbackRule

__all__ = ["DFA"]


class DFA(FeedbackRule):
    r"""Direct feedback alignment with exact spike times.

    .. math:: \mathrm{error}_i = \sum_o B_{io} e_o

    with B random and fixed.

    Args:
        network: see `Rule`.
        feedback_scale: B is uniform in [-feedback_scale, feedback_scale].
        **options: see `FeedbackRule` and `Rule`.

    Raises:
        InputError: if the scale is not above 0.

    Example:
        >>> from threefactor import events
        >>> net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.2, duration=0.2)
        >>> events.DFA(net).feedback[0].matrix.shape
        torch.Size([3, 8])

    Source: Bacho & Chu (SFDFA), equations 6 and 12.
    """

    def __init__(
        self, network: Network, *, feedback_scale: float = 1.0, **options: Unpack[FeedbackOptions]
    ) -> None:
        super().__init__(network, **options)
        number("feedback_scale", feedback_scale, "a number above 0")
        self.feedback = self.make_feedback(feedback_scale)
