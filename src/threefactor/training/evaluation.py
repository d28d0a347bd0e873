"""Loss, accuracy and firing rates over a data set, and the running sums of an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from threefactor import clocked
from threefactor.clocked.losses import Loss

__all__ = ["Evaluation", "Sums", "evaluate"]

EVALUATION_BATCH = 500


@dataclass
class Evaluation:
    """Loss, accuracy (fractions) and spikes per neuron and step over a whole data set."""

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

    def add(self, result: clocked.Result, labels: Tensor) -> None:
        n = len(labels)
        assert result.loss is not None
        self.batch += 1
        self.samples += n
        self.correct += int((result.output.argmax(1) == labels).sum())
        self.loss += float(result.loss) * n
        for name, rate in result.firing_rates.items():
            self.spikes[name] = self.spikes.get(name, 0.0) + float(rate) * n

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.samples, 1)

    @property
    def accuracy(self) -> float:
        return self.correct / max(self.samples, 1)


@torch.no_grad()
def evaluate(
    network: nn.Module, inputs: Tensor, labels: Tensor, steps: int, loss: Loss
) -> Evaluation:
    """Run a network over a data set without noise, dropout or learning.

    Args:
        network: the network; its training mode is restored afterwards.
        inputs: (N, ...) constant inputs.
        labels: (N,) class labels.
        steps: T.
        loss: the loss to report.
    """
    training = network.training
    network.eval()
    sums = Sums()
    for start in range(0, len(labels), EVALUATION_BATCH):
        y = labels[start : start + EVALUATION_BATCH]
        x = inputs[start : start + EVALUATION_BATCH]
        sums.add(clocked.run(network, x, steps=steps, targets=y, loss=loss), y)
    network.train(training)
    rates = {name: total / sums.samples for name, total in sums.spikes.items()}
    return Evaluation(sums.mean_loss, sums.accuracy, rates)
