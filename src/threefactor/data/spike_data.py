"""Spike trains with class labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from threefactor.data.subset import check_numbers

if TYPE_CHECKING:
    from threefactor.events.spikes import SpikeBatch

__all__ = ["SpikeData"]


@dataclass(frozen=True, eq=False)
class SpikeData:
    """A data set of spike trains, split for training and testing.

    Args:
        train_spikes, test_spikes: `SpikeBatch` of N samples, times in seconds since the start of
            the sample, addresses from 0 to the number of channels - 1.
        train_labels, test_labels: (N,), torch.int64, between 0 and `outputs` - 1.
        classes: one name per label.
        name: the key of the set in `DATASETS`.
    """

    train_spikes: SpikeBatch
    train_labels: Tensor
    test_spikes: SpikeBatch
    test_labels: Tensor
    classes: tuple[str, ...]
    name: str

    @property
    def input_shape(self) -> tuple[int]:
        """(size,): the number of input channels."""
        return (self.train_spikes.size,)

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def train(self) -> tuple[SpikeBatch, Tensor]:
        """The spikes for training and their labels."""
        return self.train_spikes, self.train_labels

    @property
    def test(self) -> tuple[SpikeBatch, Tensor]:
        """The spikes for testing and their labels."""
        return self.test_spikes, self.test_labels

    def subset(self, train: int | None = None, test: int | None = None) -> SpikeData:
        """Return the first `train` and `test` samples; None keeps all.

        Spikes and labels are views of these.

        Raises:
            InputError: a number is not between 1 and the number of samples there are.
        """
        check_numbers(self, train, test)
        return replace(
            self,
            train_spikes=self.train_spikes[:train],
            train_labels=self.train_labels[:train],
            test_spikes=self.test_spikes[:test],
            test_labels=self.test_labels[:test],
        )
