"""Loss, accuracy and firing rates over a data set, and the running sums of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from threefactor.data import batches

__all__ = ["Evaluation", "Sums", "evaluate", "evaluation_batch"]

EVALUATION_BATCH = 500
EVALUATION_VALUES = 10_000_000
"""Input values of a time step, all samples of a batch together, that are evaluated at once.

The activities of a network grow with its pictures: nf_resnet34 takes 74 MB, noise included, for one
of 3 x 224 x 224.
"""


@dataclass
class Evaluation:
    """Loss, accuracy (fractions) and firing rates over a whole data set."""

    loss: float
    accuracy: float
    firing_rates: dict[str, float]


@dataclass
class Sums:
    """Running sums of an epoch; part of a checkpoint, so that a resumed epoch ends the same."""

    batch: int = 0
    samples: int = 0
    correct: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    spikes: dict[str, float] = field(default_factory=dict)
    capped: dict[str, int] = field(default_factory=dict)

    def add(self, result: Any, labels: Tensor) -> None:
        """Add the result of a batch, of either engine."""
        n = len(labels)
        self.batch += 1
        self.samples += n
        self.correct += int((result.output.argmax(1) == labels).sum())
        self.loss += float(result.loss) * n
        for name, rate in result.firing_rates.items():
            self.spikes[name] = self.spikes.get(name, 0.0) + float(rate) * n
        for name, count in getattr(result, "capped", {}).items():  # event-driven networks only
            self.capped[name] = self.capped.get(name, 0) + count

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.samples, 1)

    @property
    def accuracy(self) -> float:
        return self.correct / max(self.samples, 1)


@torch.no_grad()
def evaluate(
    network: nn.Module, inputs: Any, labels: Tensor, run: Callable[[Any, Tensor], Any]
) -> Evaluation:
    """Run a network over a data set without noise, dropout or learning.

    Args:
        network: the network; its training mode is restored afterwards.
        inputs: N samples that can be sliced.
        labels: (N,) class labels.
        run: (inputs, labels) of a batch -> result with loss, output and firing rates.
    """
    training = network.training
    network.eval()
    sums = Sums()
    size = evaluation_batch(network)
    parts = [slice(start, start + size) for start in range(0, len(labels), size)]
    for x, y in zip(batches(inputs, parts, seed=0), map(labels.__getitem__, parts), strict=True):
        sums.add(run(x, y), y)
    network.train(training)
    rates = {name: total / sums.samples for name, total in sums.spikes.items()}
    return Evaluation(sums.mean_loss, sums.accuracy, rates)


def evaluation_batch(network: nn.Module) -> int:
    """Return how many samples are evaluated at once."""
    values = math.prod(getattr(network, "input_shape", None) or (1,))
    return max(1, min(EVALUATION_BATCH, EVALUATION_VALUES // values))
