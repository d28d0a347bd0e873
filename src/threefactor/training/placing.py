"""Where the samples lie while a network trains: on its device, in host memory, or on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from threefactor.data import AugmentedInputs, Frames, ImageFiles, Movable
from threefactor.data.samples.sequences import Sequences
from threefactor.data.samples.stored import Stored
from threefactor.errors import ConfigurationError
from threefactor.events import SpikeBatch
from threefactor.readable import clipped
from threefactor.training.memory import available_memory

__all__ = ["Placement", "place", "placement_of", "room_for"]

SHARE = 0.5
"""Of the free memory that samples may take; the rest is for the network and what it computes."""


@dataclass(frozen=True)
class Placement:
    """Where the samples of a run lie, and why, as config.json says it.

    Attributes:
        place: "device", "host" or "disk"; of a network on the CPU, the host is the device.
        why: in words.
    """

    place: str
    why: str


def room_for(wanted: str) -> int | None:
    """Return how many bytes samples may take in host memory; None for any number.

    Args:
        wanted: the setting `data.place`.
    """
    if wanted == "disk":
        return 0
    free = available_memory() if wanted == "auto" else None
    return None if free is None else int(SHARE * free)


def placement_of(inputs: Sequence[Any], wanted: str, device: torch.device) -> Placement:
    """Decide where samples lie.

    Args:
        inputs: of each part of the data, as they were loaded.
        wanted: the setting `data.place`.
        device: of the network.

    Raises:
        ConfigurationError: if they cannot lie there.
    """
    plain = [_inner(one) for one in inputs]
    if wanted == "auto":
        return _found(plain, device)
    for one in plain:
        if isinstance(one, ImageFiles) and wanted != "disk":
            raise _refusal(wanted, one, "files of pictures are read batch by batch; leave it out")
        if wanted == "disk" and not _on_disk(one):
            why = "which whatever loads them keeps in memory; leave it out"
            if isinstance(one, SpikeBatch):
                why = "and spike trains are kept in memory; leave it out"
            raise _refusal(wanted, one, why)
        if not isinstance(one, (Tensor, SpikeBatch, Sequences, Stored, Frames, ImageFiles)):
            raise _refusal(wanted, one, "which decide themselves where they lie; leave it out")
    return Placement(wanted, "as the settings say")


def place(inputs: Any, where: str, device: torch.device) -> Any:
    """Return inputs whose samples lie at a place, and whose batches are on a device."""
    if isinstance(inputs, AugmentedInputs):
        inner = place(inputs.inputs, where, device)
        return AugmentedInputs(inner, inputs.augmentation, inputs.generator)
    if isinstance(inputs, Frames) and where != "disk":
        values = torch.from_numpy(np.array(inputs.array))
        mean, std = inputs.mean, inputs.std
        inputs = Stored(values, inputs.dtype, sequences=True, mean=mean, std=std)
    if where == "host" and device.type != "cpu":
        if isinstance(inputs, Tensor):
            return Stored(inputs, inputs.dtype, device)
        if isinstance(inputs, Sequences):
            return Stored(inputs.values, inputs.dtype, device, sequences=True)
    if where == "device" and isinstance(inputs, Stored) and isinstance(inputs.rows, Tensor):
        return inputs.to(device, rows=True)
    return inputs.to(device) if isinstance(inputs, Movable) else inputs


def _found(inputs: Sequence[Any], device: torch.device) -> Placement:
    """Take the first place that has room."""
    if all(_on_disk(one) for one in inputs):
        if any(isinstance(one, (Frames, ImageFiles)) for one in inputs):
            return Placement("disk", "this kind of data is read from files batch by batch")
        return Placement("disk", "they take more than half of the free memory of this machine")
    if device.type == "cpu":
        return Placement("device", "they fit into half of the free memory of this machine")
    size, free = sum(map(_bytes, inputs)), available_memory(str(device))
    text = f"they take {size / 2**30:.2f} GiB, and {device} has "
    if free is None:
        return Placement("device", "nobody says how much memory is free")
    text += f"{free / 2**30:.2f} GiB free, of which half are for samples"
    return Placement("device" if size <= SHARE * free else "host", text)


def _inner(inputs: Any) -> Any:
    return _inner(inputs.inputs) if isinstance(inputs, AugmentedInputs) else inputs


def _on_disk(inputs: Any) -> bool:
    return isinstance(inputs, (Frames, ImageFiles)) or getattr(inputs, "in_file", False)


def _bytes(inputs: Any) -> int:
    values = inputs.values if isinstance(inputs, Sequences) else inputs
    if isinstance(values, Stored):
        return 0 if values.in_file else math.prod(values.shape) * values.rows.dtype.itemsize
    return values.nbytes if isinstance(values, Tensor) else 0


def _refusal(wanted: str, inputs: Any, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"data.place is {wanted!r} and the inputs are {clipped(type(inputs).__name__)}: {why}"
    )
