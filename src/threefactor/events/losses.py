"""The loss on output spike counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from threefactor.clocked.losses import check_labels
from threefactor.errors import InputError

__all__ = ["SpikeCount"]


class SpikeCount:
    r"""Half the squared distance of the output's spike counts from their targets.

    .. math:: \ell = \frac{1}{2} \sum_o (T_o - n_o)^2

    T_o is `true` for the sample's class and `false` for the others.

    Args:
        true, false: target counts; the authors' runs used 15 and 3, their text says 10 and 3.

    Raises:
        InputError: if a target is negative or not finite.

    Source: Bacho & Chu (SFDFA), equation 10.
    """

    def __init__(self, true: float = 15.0, false: float = 3.0) -> None:
        for name, value in (("true", true), ("false", false)):
            if not (math.isfinite(value) and value >= 0.0):
                raise InputError(f"{name} is {value}; give a number of spikes of at least 0")
        self.true, self.false = float(true), float(false)

    def check_targets(self, targets: Tensor, samples: int, outputs: int) -> None:
        """Refuse targets that are not `samples` integer class labels below `outputs`."""
        check_labels(targets, samples, outputs)

    def __call__(self, counts: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, (B,), and their gradients by the counts, (B, m)."""
        wanted = torch.full_like(counts, self.false)
        wanted.scatter_(1, targets.unsqueeze(1), self.true)
        gradient = counts - wanted
        return 0.5 * gradient.square().sum(1), gradient
