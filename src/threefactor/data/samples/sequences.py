"""Sequences in memory, of which batches are taken with time first."""

from __future__ import annotations

import torch
from torch import Tensor

from threefactor.indexing import Index, positions

__all__ = ["Sequences"]


class Sequences:
    """N sequences of T steps in memory, of which `sequences[index]` gives a batch (T, B, ...).

    Args:
        values: (N, T, ...) numbers of any type.
        dtype: of the batches.
    """

    def __init__(self, values: Tensor, dtype: torch.dtype) -> None:
        self.values, self.dtype = values, dtype

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Index) -> Tensor:
        """Return a batch, (T, B, ...); of one number one sequence, (T, ...).

        Raises:
            IndexError: a number is out of range.
            InputError: the index has no meaning.
        """
        place = positions(index, len(self))
        if isinstance(place, int):
            return self.values[place].to(self.dtype)
        chosen = self.values[place if isinstance(place, slice) else torch.from_numpy(place)]
        return chosen.transpose(0, 1).to(self.dtype).contiguous()

    def first(self, number: int | None) -> Sequences:
        """Return the first sequences; None keeps all."""
        return Sequences(self.values[:number], self.dtype)

    def choose(self, index: Tensor) -> Sequences:
        """Return the sequences at some positions."""
        return Sequences(self.values[torch.as_tensor(index)], self.dtype)

    def to(self, device: torch.device | str) -> Sequences:
        """Return the same sequences on another device."""
        return Sequences(self.values.to(device), self.dtype)
