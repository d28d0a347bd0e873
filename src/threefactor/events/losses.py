"""Losses on the output's spikes: their counts, or the time of the first."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.clocked.losses import Loss, check_labels
from threefactor.errors import InputError
from threefactor.events.spikes import SpikeBatch

__all__ = ["FirstSpike", "SpikeCount", "first_spikes", "reads_first_spikes"]


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


class FirstSpike:
    r"""Cross entropy on the times of the outputs' first spikes: the class spikes first.

    .. math:: \ell = -\log \frac{e^{-t_y / \xi}}{\sum_o e^{-t_o / \xi}}
              + \alpha \left( e^{t_y / \beta} - 1 \right)

    t_o is the time of the first spike of output o, the end of the simulation if there is none.
    The error reaches first spikes alone; an output that does not spike gets none. The second term
    draws the class's spike forward, lest it be lost.

    Args:
        temperature: xi in seconds; about a fifth of tau_s is usual.
        early: alpha, the strength of the second term; 0 leaves it out.
        early_time: beta in seconds.

    Raises:
        InputError: if a time is not above 0 and finite, or the strength negative or not finite.

    Source: Goeltz et al. 2021, Fast and energy-efficient neuromorphic deep learning with
    first-spike times, equation 3.
    """

    reads_first_spikes = True
    """Whether the output is minus the time of the first spike, in seconds, not the count."""

    def __init__(
        self, temperature: float = 0.02, early: float = 0.0, early_time: float = 0.1
    ) -> None:
        for name, value in (("temperature", temperature), ("early_time", early_time)):
            if not (math.isfinite(value) and value > 0.0):
                raise InputError(f"{name} is {value}; give seconds above 0")
        if not (math.isfinite(early) and early >= 0.0):
            raise InputError(f"early is {early}; give a number of at least 0")
        self.temperature = float(temperature)
        self.early, self.early_time = float(early), float(early_time)

    def check_targets(self, targets: Tensor, samples: int, outputs: int) -> None:
        """Refuse targets that are not `samples` integer class labels below `outputs`."""
        check_labels(targets, samples, outputs)

    def __call__(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, (B,), and their gradients by minus the first times, (B, m)."""
        logits = output / self.temperature
        chosen = targets.unsqueeze(1)
        lateness = self.early * torch.exp(-output.gather(1, chosen) / self.early_time)
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        gradient = logits.softmax(1).scatter_add(1, chosen, torch.full_like(lateness, -1.0))
        gradient = gradient / self.temperature
        gradient.scatter_add_(1, chosen, -lateness / self.early_time)
        return losses + lateness.squeeze(1) - self.early, gradient


def reads_first_spikes(loss: Loss) -> bool:
    """Whether a loss reads the times of first spikes; any other reads counts."""
    return bool(getattr(loss, "reads_first_spikes", False))


def first_spikes(spikes: SpikeBatch) -> NDArray[np.int64]:
    """Return the places of the first spike of every neuron in every sample, in rising order."""
    # Spikes are sorted by time, and `unique` finds the first place of each.
    _, first = np.unique(spikes.samples * spikes.size + spikes.addresses, return_index=True)
    return np.sort(first)
