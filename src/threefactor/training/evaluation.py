"""Loss, accuracy and firing rates over a data set, and the running sums of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from threefactor.data import batches
from threefactor.errors import InputError
from threefactor.modes import evaluating
from threefactor.processes import World

__all__ = ["Evaluation", "Sums", "correct_of", "evaluate", "evaluation_batch", "has_accuracy"]

EVALUATION_BATCH = 500
EVALUATION_VALUES = 10_000_000
"""Input values of a time step, all samples of a batch together, that are evaluated at once.

The activities of a network grow with its pictures: nf_resnet34 takes 74 MB, noise included, for one
of 3 x 224 x 224.
"""


@dataclass
class Evaluation:
    """Loss, accuracy (a fraction) and firing rates over a whole data set.

    The accuracy is None where there is none; see `has_accuracy`.
    """

    loss: float
    accuracy: float | None
    firing_rates: dict[str, float]


@dataclass
class Sums:
    """Running sums of an epoch; part of a checkpoint, so that a resumed epoch ends the same.

    `correct` is None where there is no accuracy.
    """

    batch: int = 0
    samples: int = 0
    correct: int | None = 0
    loss: float = 0.0
    seconds: float = 0.0
    spikes: dict[str, float] = field(default_factory=dict)
    capped: dict[str, int] = field(default_factory=dict)

    def add(self, result: Any, labels: Tensor) -> None:
        """Add the result of a batch, of either engine."""
        right = 0 if self.correct is None else correct_of(result, labels)
        self.add_counted(result, len(labels), right)

    def add_counted(self, result: Any, n: int, right: int) -> None:
        """Add the result of a batch of n samples, of which so many were answered rightly."""
        self.batch += 1
        self.samples += n
        if self.correct is not None:
            self.correct += right
        self.loss += float(result.loss) * n
        for name, rate in result.firing_rates.items():
            self.spikes[name] = self.spikes.get(name, 0.0) + float(rate) * n
        for name, count in getattr(result, "capped", {}).items():  # event-driven networks only
            self.capped[name] = self.capped.get(name, 0) + count

    def add_up(self, world: World) -> None:
        """Add up the sums of several processes, each of other samples."""
        own = [self.samples, self.correct or 0, self.loss, *self.spikes.values()]
        samples, correct, self.loss, *spikes = world.gather(own).sum(0).tolist()
        self.samples = int(samples)
        self.correct = None if self.correct is None else int(correct)
        self.spikes = dict(zip(self.spikes, spikes, strict=True))

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.samples, 1)

    @property
    def accuracy(self) -> float | None:
        return None if self.correct is None else self.correct / max(self.samples, 1)


def correct_of(result: Any, labels: Tensor) -> int:
    """Count the samples of a batch whose largest output is that of their label."""
    return int((result.output.argmax(1) == labels).sum())


def has_accuracy(targets: Tensor, outputs: int) -> bool:
    """Whether the data has an accuracy.

    It has one if the targets are one class label for each sample, every label has an output, and
    there are at least two outputs. With a single output the largest is always right.

    Args:
        targets: of a whole data set, (N, ...).
        outputs: of the network.
    """
    labels = not (
        targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool
    )
    if not labels or targets.dim() != 1 or not len(targets) or outputs < 2:
        return False
    low, high = (int(value) for value in targets.aminmax())
    return low >= 0 and high < outputs


@torch.no_grad()
def evaluate(
    network: nn.Module,
    inputs: Any,
    labels: Tensor,
    run: Callable[[Any, Tensor], Any],
    world: World | None = None,
) -> Evaluation:
    """Run a network over a data set without noise, dropout or learning.

    Args:
        network: the network; the training mode of each of its modules is restored afterwards.
        inputs: N samples that can be sliced.
        labels: (N,) class labels, or what the loss of `run` expects; see `has_accuracy`.
        run: (inputs, labels) of a batch -> result with loss, output and firing rates.
        world: processes that share the samples and all get the same result; None for no others.

    Raises:
        InputError: if there are no samples.
    """
    if not len(labels):
        raise InputError("there are no samples to evaluate; give at least one")
    sums = Sums()
    size = evaluation_batch(network)
    if world is not None and not 1 < world.size <= len(labels):
        world = None
    own = slice(0, len(labels)) if world is None else world.rows(len(labels))
    starts = range(own.start, own.stop, size)
    parts = [slice(start, min(start + size, own.stop)) for start in starts]
    with evaluating(network):
        loaded = batches(inputs, parts, seed=0)
        for x, y in zip(loaded, map(labels.__getitem__, parts), strict=True):
            result = run(x, y)
            if not (sums.batch or has_accuracy(labels, result.output.shape[1])):
                sums.correct = None
            sums.add(result, y)
    if world is not None:
        sums.add_up(world)
    rates = {name: total / sums.samples for name, total in sums.spikes.items()}
    return Evaluation(sums.mean_loss, sums.accuracy, rates)


def evaluation_batch(network: nn.Module) -> int:
    """Return how many samples are evaluated at once."""
    values = math.prod(getattr(network, "input_shape", None) or (1,))
    return max(1, min(EVALUATION_BATCH, EVALUATION_VALUES // values))
