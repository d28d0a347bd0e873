"""Data sets whose training batches are augmented when they are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from threefactor.data.samples.augmentation import Augmentation
from threefactor.errors import InputError
from threefactor.indexing import Index, positions

__all__ = ["AugmentedData", "AugmentedInputs"]


class AugmentedInputs:
    """Inputs of which each batch that is taken is augmented anew.

    Args:
        inputs: images (N, C, H, W), or `Frames`.
        augmentation: what is done to `inputs[index]`.
        generator: see `random_crop`.
    """

    def __init__(
        self, inputs: Any, augmentation: Augmentation, generator: torch.Generator | None = None
    ) -> None:
        self.inputs, self.augmentation, self.generator = inputs, augmentation, generator

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: Index) -> Tensor:
        """Return a batch, augmented, or one sample.

        Raises:
            IndexError: a number is out of range.
            InputError: the index is none.
        """
        place = positions(index, len(self))
        if isinstance(place, int):
            batch = self[[place]]
            return batch.select(batch.dim() - 4, 0)  # of images first, of sequences second
        given = torch.from_numpy(place) if isinstance(place, np.ndarray) else place
        return self.augmentation(self.inputs[given], self.generator)

    def to(self, device: torch.device | str) -> AugmentedInputs:
        """Return the same, whose batches are on another device."""
        return AugmentedInputs(self.inputs.to(device), self.augmentation, self.generator)


@dataclass(frozen=True, eq=False)
class AugmentedData:
    """A data set whose training inputs are augmented, batch by batch; all else is as it was.

    Args:
        data: an `ImageData` or `FrameData`.
        augmentation: what is done to batches for training.

    Raises:
        InputError: if it is none, or may leave nothing of a picture.
    """

    data: Any
    augmentation: Augmentation

    def __post_init__(self) -> None:
        if not isinstance(self.augmentation, Augmentation):
            raise InputError(
                f"the augmentation is a {type(self.augmentation).__name__}; give an Augmentation"
            )
        self.augmentation.check(*self.data.input_shape[-2:])

    def __getattr__(self, name: str) -> Any:
        if name == "data":  # not there yet, as while it is copied
            raise AttributeError(name)
        return getattr(self.data, name)

    @property
    def train(self) -> tuple[AugmentedInputs, Tensor]:
        """The inputs for training, augmented, and their labels."""
        inputs, labels = self.data.train
        return AugmentedInputs(inputs, self.augmentation), labels

    def subset(self, train: int | None = None, test: int | None = None) -> AugmentedData:
        """Return the first `train` and `test` samples; None keeps all."""
        return AugmentedData(self.data.subset(train, test), self.augmentation)

    def fold(self, number: int, folds: int) -> AugmentedData:
        """Return one fold of the training samples for testing; see `LabelledData.fold`."""
        return AugmentedData(self.data.fold(number, folds), self.augmentation)
