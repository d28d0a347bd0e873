"""Inputs of a data set: what the training loop needs of them, and what they may offer besides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.indexing import Index, positions

__all__ = [
    "Batched",
    "Inputs",
    "LoadsAhead",
    "Movable",
    "Selectable",
    "Varied",
    "batches",
    "read_ahead",
]

Self = TypeVar("Self")


@runtime_checkable
class Inputs(Protocol):
    """What the training loop needs: N samples, of which an index gives a batch.

    An index is a slice or a tensor of positions. Tensors and `SpikeBatch` are inputs, as are
    `Frames`, `ImageFiles` and `AugmentedInputs`.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...


@runtime_checkable
class Movable(Protocol):
    """Inputs whose batches can go to a device."""

    def to(self: Self, device: torch.device | str, /) -> Self: ...


@runtime_checkable
class LoadsAhead(Protocol):
    """Inputs that load the next batch while one is used, as `ImageFiles`.

    All randomness in what they load must come from the seed, because a checkpoint between two
    batches must not depend on what has been loaded ahead.
    """

    def batches(self, indices: Iterable[Any], seed: int) -> Iterator[Any]:
        """Yield a batch for each index; the seed differs between epochs."""


@runtime_checkable
class Selectable(Protocol):
    """Inputs of which some samples are inputs again, where an index would make a batch."""

    def first(self: Self, number: int | None) -> Self:
        """Return the first samples; None keeps all."""

    def choose(self: Self, index: Tensor) -> Self:
        """Return the samples at some positions."""


@runtime_checkable
class Varied(Protocol):
    """Inputs that differ each time they are taken for training, as random crops."""

    def for_testing(self: Self) -> Self:
        """Return the same samples as they are for testing."""


class Batched(ABC):
    """Inputs that make a batch when they are indexed: (B, C, H, W), or (T, B, C, H, W)."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, place: slice | NDArray[np.int64]) -> Tensor:
        """Return a batch of the samples at some positions, none of which is negative."""

    def __getitem__(self, index: Index) -> Tensor:
        """Return a batch; of one number one sample, without the dimension of the batch.

        Raises:
            IndexError: a number is out of range.
            InputError: the index has no meaning.
        """
        place = positions(index, len(self))
        if isinstance(place, int):
            batch = self.take(np.array([place]))
            return batch.select(batch.dim() - 4, 0)
        return self.take(place)


class Begun(Protocol):
    """A batch that is being read."""

    def result(self) -> Tensor: ...
    def cancel(self) -> object: ...


def read_ahead(indices: Iterable[Any], begin: Callable[[Any], Begun]) -> Iterator[Tensor]:
    """Yield a batch for each index, while the next one is being read.

    Args:
        indices: one for each batch.
        begin: begins to read a batch.
    """
    ahead: Begun | None = None
    try:
        for index in indices:
            batch = None if ahead is None else ahead.result()
            ahead = begin(index)
            if batch is not None:
                yield batch
        if ahead is not None:
            yield ahead.result()
    finally:
        if ahead is not None:
            ahead.cancel()


def batches(inputs: Inputs | LoadsAhead, indices: Iterable[Any], seed: int) -> Iterator[Any]:
    """Yield `inputs[index]` for each index; inputs that can load ahead do so.

    Args:
        inputs: of a data set, as the first of `data.train`.
        indices: one for each batch.
        seed: another one for each epoch.

    Example:
        >>> import torch
        >>> [part.tolist() for part in batches(torch.arange(5), [slice(0, 3), slice(3, 6)], 0)]
        [[0, 1, 2], [3, 4]]
    """
    if isinstance(inputs, LoadsAhead):
        yield from inputs.batches(indices, seed)
    else:
        for index in indices:
            yield inputs[index]
