"""Batches in an order that is known before, so that those to come can be loaded meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["batches"]


def batches(inputs: Any, indices: Iterable[Any], seed: int) -> Iterator[Any]:
    """Yield `inputs[index]` for each index; inputs that can load ahead do so.

    These are those that have a method `batches(indices, seed)`, as `ImageFiles`. Whatever chance
    there is in what they load must come from the seed alone, as a checkpoint between two batches
    must not depend on what has been loaded ahead.

    Args:
        inputs: of a data set, as the first of `data.train`.
        indices: one for each batch.
        seed: another one for each epoch.

    Example:
        >>> import torch
        >>> [part.tolist() for part in batches(torch.arange(5), [slice(0, 3), slice(3, 6)], 0)]
        [[0, 1, 2], [3, 4]]
    """
    if hasattr(inputs, "batches"):
        yield from inputs.batches(indices, seed)
    else:
        for index in indices:
            yield inputs[index]
