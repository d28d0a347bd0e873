"""The live objects of one experiment, and what they were when `build` had made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from threefactor.training.settings import Settings

__all__ = ["Experiment", "Made"]


@dataclass(frozen=True)
class Made:
    """Fingerprints of the parts of an experiment when `build` had made them."""

    settings: Settings
    parts: Mapping[str, str]
    samples: Any
    record: Mapping[str, Any]


@dataclass
class Experiment:
    """The live objects of one experiment.

    Any of them may be the user's own: replace what `build` made (`dataclasses.replace`), or make
    all of them by hand. The run folder then says so.
    """

    settings: Settings
    data: Any
    network: nn.Module
    rule: Any
    optimizer: torch.optim.Optimizer
    scheduler: lr_scheduler.LRScheduler | None
    made: Made | None = field(default=None, repr=False, compare=False)
    start: Mapping[str, str] | None = field(default=None, repr=False, compare=False)
    """File and digest of the weights that the network began with, if they came from a file."""

    @property
    def layer_sizes(self) -> dict[str, int]:
        """Number of neurons of each hidden layer, by its name in the network, if the rule says."""
        return getattr(self.rule, "layer_sizes", {})

    @property
    def outputs(self) -> int:
        """Number of outputs of the network; if the rule does not say, of classes of the data."""
        outputs: Any = getattr(self.rule, "outputs", None)
        return int(getattr(self.data, "outputs", 0) if outputs is None else outputs)

    @property
    def frames(self) -> int | None:
        """T, if the inputs are sequences of frames, with time first in a batch; else None."""
        return getattr(getattr(self.data, "data", self.data), "steps", None)

    @property
    def steps(self) -> int | None:
        """For how many steps an input is held; None if it is a sequence, or there is no grid."""
        return None if self.frames is not None else self.settings.steps

    def shaped(self, x: Any) -> Any:
        """Return a batch of inputs such that a sequence of a single sample is taken for one.

        Where a network takes pictures flat, one frame after the other of one sample could as well
        be a batch of pictures without time, which networks refuse. It gets its own shape here.
        """
        sample = getattr(self.rule, "sample_shape", None)
        if self.frames is None or not isinstance(x, Tensor) or not isinstance(sample, torch.Size):
            return x
        if x.dim() < 3 or x.shape[1] != 1 or x.shape[2:].numel() != sample.numel():
            return x
        return x.reshape(*x.shape[:2], *sample)
