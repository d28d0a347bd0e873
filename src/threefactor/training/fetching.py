"""Numbers of batches, fetched from their device for several batches at once.

To ask a GPU for a number makes the CPU wait until all work before it is done, and the GPU then
waits until the CPU has found new work for it. So losses, counts and checks of values stay on the
device for a few batches. On a CPU there is nothing to wait for, and each batch is looked at before
anything is learned from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threefactor.clocked import verdicts
from threefactor.training.scores import Tally

__all__ = ["Fetched", "Waiting", "numbers_of", "predictions_of", "put_together"]

TOGETHER = 8
"""Batches on a GPU whose numbers are fetched together."""
MOST_HELD = 256 * 2**20
"""Bytes of inputs and potentials that these batches may have: who finds NaN in them has to look at
them again."""


@dataclass
class Fetched:
    """The numbers of a batch's result, of either engine.

    Attributes:
        samples: how many there are in the batch.
        loss: mean over the batch.
        right: how many samples have their largest output at their label; 0 without labels.
        firing_rates: of each hidden layer.
        capped: as in the results of event-driven networks; empty for others.
        tallies: what `Tally.numbers` returned, with the number of samples that it is of; one for
            each process, none without a tally.
    """

    samples: int
    loss: float
    right: int
    firing_rates: dict[str, float]
    capped: dict[str, int]
    tallies: list[tuple[int, list[float]]]


@dataclass
class _Batch:
    samples: int
    own: int
    names: list[str]
    capped: dict[str, int]
    numbers: Tensor
    """Loss, firing rates, how many are right, and those of a tally."""
    checks: verdicts.Waiting


class Waiting:
    """Batches whose numbers are on their device still, in order.

    Args:
        device: of the batches.
        checks: whether checks of their values may wait, too. A batch with bad values then teaches
            before it is refused.
    """

    def __init__(self, device: torch.device, *, checks: bool = True) -> None:
        self.together = together_on(device)
        self._checks_wait = checks and self.together > 1
        self._checks = verdicts.Waiting()
        self._batches: list[_Batch] = []
        self._held = 0.0

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def full(self) -> bool:
        """Whether it is time to fetch the numbers."""
        return len(self) >= self.together or self._held > MOST_HELD

    @contextmanager
    def checks(self) -> Iterator[None]:
        """Let the checks of the batch that is run within wait with its numbers."""
        if not self._checks_wait:
            yield
            return
        with verdicts.held() as held:
            yield
        self._checks = held

    def add(
        self,
        result: Any,
        inputs: Any,
        targets: Tensor,
        samples: int,
        *,
        own: int,
        classes: bool,
        tally: Tally | None,
    ) -> None:
        """Add what was found of a batch.

        Args:
            result: of the batch, with a loss.
            inputs: of the batch; of several processes, those of this one.
            targets: likewise.
            samples: in the batch, in all processes.
            own: how many of the targets count here, the first ones; of a process that stands in
                for nobody's samples, 0.
            classes: whether the targets are class labels, of which some are right.
            tally: that takes in the predictions; None for none.
        """
        right = (result.output[:own].argmax(1) == targets[:own]).sum() if classes else 0
        values = [result.loss, *result.firing_rates.values(), right]
        device = result.output.device
        numbers = torch.stack([torch.as_tensor(v, device=device).detach().double() for v in values])
        if tally is not None:
            found = tally.numbers(predictions_of(result)[:own], targets[:own])
            numbers = torch.cat([numbers, found])
        names, capped = list(result.firing_rates), getattr(result, "capped", {})
        self._batches.append(_Batch(samples, own, names, capped, numbers, self._checks))
        self._held += self._checks.nbytes
        self._checks = verdicts.Waiting()
        if isinstance(inputs, Tensor):  # the same number in all processes
            self._held += inputs.nbytes / len(targets) * samples

    def fetch(self) -> Iterator[Fetched]:
        """Fetch the numbers of all batches, and yield those of each once its checks are passed.

        Raises:
            InputError: if a check was not passed, when the batch is reached.
        """
        batches = self._batches
        self.clear()
        if not batches:
            return
        sounds = [sound.double() for batch in batches for sound, _ in batch.checks]
        parts = [batch.numbers for batch in batches]
        if sounds:
            parts.append(torch.stack(sounds))
        values = iter(values_of(torch.cat(parts)))
        numbers = [[next(values) for _ in range(len(batch.numbers))] for batch in batches]
        for batch, (loss, *rest) in zip(batches, numbers, strict=True):
            for _, complain in batch.checks:
                if not next(values):
                    complain()
            rates = dict(zip(batch.names, rest, strict=False))
            right, *tally = rest[len(rates) :]
            tallies = [(batch.own, tally)] if tally else []
            yield Fetched(batch.samples, loss, int(right), rates, batch.capped, tallies)

    def clear(self) -> None:
        """Forget all batches."""
        self._batches, self._checks, self._held = [], verdicts.Waiting(), 0.0


def numbers_of(found: Sequence[Fetched]) -> list[float]:
    """Return what other processes need of batches of which each process has other samples."""
    return [
        number
        for one in found
        for number in (one.right, *(n for own, tally in one.tallies for n in (own, *tally)))
    ]


def put_together(found: Sequence[Fetched], numbers: Tensor) -> None:
    """Put into batches what all processes found.

    Args:
        found: of this process; changed.
        numbers: a row of `numbers_of` for each process, of the same batches.
    """
    for one, each in zip(found, numbers.chunk(len(found), 1), strict=True):
        one.right = int(each[:, 0].sum())
        if one.tallies:
            one.tallies = [(int(own), tally) for _, own, *tally in each.tolist()]


def together_on(device: torch.device) -> int:
    """Return how many batches of a device are fetched together."""
    return 1 if device.type == "cpu" else TOGETHER


def values_of(numbers: Tensor) -> list[float]:
    """Bring numbers to the CPU, which waits for the device: nothing else here does."""
    found: list[float] = numbers.tolist()
    return found


def predictions_of(result: Any) -> Tensor:
    """Return what a network says, (B, m): the mean of its output over the time steps, if any."""
    output: Tensor = result.output
    return output / getattr(result, "steps", 1)
