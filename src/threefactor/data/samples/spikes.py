"""Spike trains with class labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from threefactor.data.samples.labelled import LabelledData
from threefactor.events.spikes import SpikeBatch

__all__ = ["SpikeData", "spikes_digest"]


def spikes_digest(spikes: SpikeBatch) -> str:
    """Return a digest of all spikes and of which sample has which, as Recordings.digest does."""
    digest = hashlib.sha256()
    for array in (spikes.offsets, spikes.times, spikes.addresses):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class SpikeData(LabelledData[SpikeBatch]):
    """A data set of spike trains, split for training and testing.

    Args:
        train_spikes, test_spikes: `SpikeBatch` of N samples, times in seconds since the start of
            the sample, addresses from 0 to the number of channels - 1.
        train_labels, test_labels: (N,), torch.int64, between 0 and `outputs` - 1.
        classes: one name per label.
        name: the key of the set in `DATASETS`.
    """

    inputs: ClassVar[str] = "spikes"
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
