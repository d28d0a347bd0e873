"""Loss, accuracy and firing rates over a data set, and the running sums of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from threefactor.data import batches
from threefactor.errors import InputError, warn_user
from threefactor.modes import evaluating
from threefactor.processes import World
from threefactor.training.fetching import Fetched, Waiting, predictions_of
from threefactor.training.memory import out_of_memory
from threefactor.training.scores import Tally, mean_average_precision, task_of

__all__ = [
    "Evaluation",
    "Sums",
    "begin_sums",
    "evaluate",
    "evaluation_batch",
]

EVALUATION_BATCH = 500
EVALUATION_VALUES = 10_000_000
"""Input values of a time step, all samples of a batch together, that are evaluated at once.

The activities of a network grow with its pictures: nf_resnet34 takes 74 MB, noise included, for one
of 3 x 224 x 224.
"""


@dataclass
class Evaluation:
    """Loss, accuracy (a fraction) and firing rates over a whole data set.

    The accuracy is None where there is none, see `scores.has_accuracy`; `scores` are those of other
    tasks, by name.
    """

    loss: float
    accuracy: float | None
    firing_rates: dict[str, float]
    scores: dict[str, float | None] = field(default_factory=dict)

    def line(self, part: str) -> dict[str, float | None]:
        """Return loss and scores as in metrics.jsonl, where `part` is "test" or "validation"."""
        found = {"loss": self.loss, "accuracy": self.accuracy, **self.scores}
        return {f"{part}_{name}": value for name, value in found.items()}


@dataclass
class Sums:
    """Running sums of an epoch; part of a checkpoint, so that a resumed epoch ends the same.

    `correct` is None where there is no accuracy; `tally` is that of other tasks.
    """

    batch: int = 0
    samples: int = 0
    correct: int | None = 0
    loss: float = 0.0
    seconds: float = 0.0
    spikes: dict[str, float] = field(default_factory=dict)
    capped: dict[str, int] = field(default_factory=dict)
    tally: Tally | None = None

    def add(self, found: Fetched) -> None:
        """Add what was found of a batch."""
        n = found.samples
        self.batch += 1
        self.samples += n
        if self.correct is not None:
            self.correct += found.right
        self.loss += found.loss * n
        for name, rate in found.firing_rates.items():
            self.spikes[name] = self.spikes.get(name, 0.0) + rate * n
        for name, count in found.capped.items():
            self.capped[name] = self.capped.get(name, 0) + count
        if self.tally is not None:
            for samples, numbers in found.tallies:
                self.tally.add(numbers, samples)

    def take(self, waiting: Waiting) -> None:
        """Add what was found of all batches that wait."""
        for found in waiting.fetch():
            self.add(found)

    def add_up(self, world: World) -> None:
        """Add up the sums of several processes, each of other samples."""
        own = [self.samples, self.correct or 0, self.loss, *self.spikes.values()]
        samples, correct, self.loss, *spikes = world.gather(own).sum(0).tolist()
        self.samples = int(samples)
        self.correct = None if self.correct is None else int(correct)
        self.spikes = dict(zip(self.spikes, spikes, strict=True))
        if self.tally is not None:
            self.tally.add_up(world)

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.samples, 1)

    @property
    def accuracy(self) -> float | None:
        return None if self.correct is None else self.correct / max(self.samples, 1)

    @property
    def scores(self) -> dict[str, float | None]:
        return {} if self.tally is None else self.tally.scores()


def begin_sums(task: str | None) -> Sums:
    """Return the sums of an epoch that begins, see `scores.task_of`."""
    others = task in ("values", "labels")
    return Sums(
        correct=0 if task == "classes" else None, tally=Tally(str(task)) if others else None
    )


@torch.no_grad()
def evaluate(
    network: nn.Module,
    inputs: Any,
    labels: Tensor,
    run: Callable[[Any, Tensor], Any],
    loss: Any = None,
    world: World | None = None,
    seen: Callable[[Tensor, Tensor], object] | None = None,
) -> Evaluation:
    """Run a network over a data set without noise, dropout or learning.

    Args:
        network: the network; the training mode of each of its modules is restored afterwards.
        inputs: N samples that can be sliced.
        labels: (N,) class labels, or what the loss of `run` expects; see `scores.task_of`.
        run: (inputs, labels) of a batch -> result with loss, output and firing rates.
        loss: that of `run`, which may say what targets are that are no classes.
        world: processes that share the samples and all get the same result; None for no others.
        seen: called with the output (B, m) and the labels of each batch.

    Raises:
        InputError: if there are no samples.

    Warns:
        UserWarning: if memory suffices only for fewer samples at once than usual. Those that are
            left are then evaluated in smaller batches.
    """
    if not len(labels):
        raise InputError("there are no samples to evaluate; give at least one")
    kept: list[Tensor] = []
    size = evaluation_batch(network)
    parts = [slice(n, min(n + size, len(labels))) for n in range(0, len(labels), size)]
    # The batches are those of one process, so that equal outputs stay equal, to the last digit.
    of_each = [parts] if world is None else [parts[rows] for rows in world.all_rows(len(parts))]
    rank = 0 if world is None else world.rank
    left = of_each[rank] or [slice(0, 1)]  # there are fewer batches than processes
    counts = bool(of_each[rank])
    task = sums = None
    waiting = Waiting(labels.device)
    with evaluating(network):
        while left:
            now = left
            loaded = batches(inputs, now, seed=0)
            done = True
            try:
                for part in now:
                    done = False  # until the batch is run, nothing is known of it
                    x, y = next(loaded), labels[part]
                    with waiting.checks():
                        result = run(x, y)
                    done = True
                    left = left[1:]
                    if seen is not None and counts:
                        seen(result.output, y)
                    if sums is None:
                        task = task_of(loss, labels, result.output.shape[1])
                        sums = begin_sums(task)
                    n = len(y) if counts else 0
                    waiting.add(result, x, y, n, own=n, classes=task == "classes", tally=sums.tally)
                    if task == "labels":
                        kept.append(predictions_of(result)[:n])
                    if waiting.full:
                        sums.take(waiting)
            except (MemoryError, RuntimeError) as problem:
                size = max(part.stop - part.start for part in left) if left else 1
                if done or size == 1 or not out_of_memory(problem):
                    raise
                size = max(1, size // 2)
                left = [
                    slice(n, min(n + size, part.stop))
                    for part in left
                    for n in range(part.start, part.stop, size)
                ]
                warn_user(
                    f"memory does not suffice to evaluate more samples at once: from here on there "
                    f"are {size} in a batch"
                )
    assert sums is not None
    sums.take(waiting)
    gathered = None
    if world is not None:
        sums.add_up(world)
        numbers = [sum(part.stop - part.start for part in theirs) for theirs in of_each]
        gathered = partial(world.gather_parts, sizes=numbers)
    rates = {name: total / sums.samples for name, total in sums.spikes.items()}
    scores = sums.scores
    if task == "labels":
        logits = torch.cat(kept).cpu()
        found = mean_average_precision(logits, labels.cpu(), gathered)
        scores["mean_average_precision"] = found
    return Evaluation(sums.mean_loss, sums.accuracy, rates, scores)


def evaluation_batch(network: nn.Module) -> int:
    """Return how many samples are evaluated at once."""
    values = math.prod(getattr(network, "input_shape", None) or (1,))
    return max(1, min(EVALUATION_BATCH, EVALUATION_VALUES // values))
