"""Data of users' own, of any kind, with what was found in their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from threefactor.data.inputs import LoadsAhead, Movable, Selectable, Varied
from threefactor.data.samples.labelled import LabelledData, held_out
from threefactor.errors import InputError
from threefactor.events.spikes import SpikeBatch

__all__ = ["OwnData", "hold_out"]


@dataclass(frozen=True, eq=False)
class OwnData(LabelledData[Any]):
    """Data of any kind, split for training and testing, and perhaps for validation.

    Args:
        train_samples, test_samples: inputs, as `data.Inputs` says.
        train_labels, test_labels: targets, one for each sample.
        name: of the data.
        input_shape: of one sample at one time step.
        output_count: number of outputs of a network for them.
        classes: a name for each output; empty if there are none.
        steps: T, if samples are sequences; else None.
        validation: inputs and targets that choose the best epoch; None for none.
        found: what was found in the files, in words, for people and for config.json.
    """

    inputs: ClassVar[str] = "samples"
    train_samples: Any
    train_labels: Tensor
    test_samples: Any
    test_labels: Tensor
    name: str
    input_shape: tuple[int, ...]
    output_count: int
    classes: tuple[str, ...] = ()
    steps: int | None = None
    validation: tuple[Any, Tensor] | None = None
    found: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """The number of outputs of a network for these targets."""
        return self.output_count

    def subset(self, train: int | None = None, test: int | None = None) -> OwnData:
        """Return the first `train` and `test` samples; None keeps all."""
        if train is None and test is None:  # inputs that load ahead stay what they are
            return self
        return super(OwnData, self._selectable()).subset(train, test)

    def fold(self, number: int, folds: int) -> OwnData:
        """Return one fold of the training samples for testing; see `LabelledData.fold`."""
        return super(OwnData, self._selectable()).fold(number, folds)

    def _selectable(self) -> OwnData:
        """Return the same data, of whose inputs some are inputs again."""
        return replace(
            self,
            train_samples=_selectable(self.train_samples),
            test_samples=_selectable(self.test_samples),
        )


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some samples of inputs that only give batches; inputs again."""

    inputs: Any
    positions: Tensor

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Any) -> Any:
        return self.inputs[self.positions[index]]

    def to(self, device: torch.device | str) -> Chosen:
        """Return the samples with the inputs on a device, if they can go there."""
        moved = self.inputs.to(device) if isinstance(self.inputs, Movable) else self.inputs
        return Chosen(moved, self.positions)

    def first(self, number: int | None) -> Chosen:
        """Return the first samples; None keeps all."""
        return Chosen(self.inputs, self.positions[:number])

    def choose(self, index: Tensor) -> Chosen:
        """Return the samples at some positions."""
        return Chosen(self.inputs, self.positions[index])


def _selectable(inputs: Any) -> Any:
    if isinstance(inputs, (Tensor, SpikeBatch, Selectable)):
        return inputs
    if isinstance(inputs, LoadsAhead):
        raise InputError(
            f"{type(inputs).__name__} loads ahead, and does not say which samples are the first: "
            "give it the methods of data.inputs.Selectable, or leave out data.train, data.test, "
            "data.validation and data.folds"
        )
    return Chosen(inputs, torch.arange(len(inputs)))


def hold_out(samples: LabelledData[Any], share: float, seed: int) -> OwnData:
    """Hold out a share of the training samples for validation; see `labelled.held_out`.

    Samples for validation are as they are for testing: without random crops.

    Args:
        samples: a data set without validation samples.
        share: above 0 and below 1.
        seed: of the choice.

    Raises:
        InputError: if nothing would be held out, or nothing be left.
    """
    inputs, labels = samples.train
    kept, held = held_out(labels, share, seed)
    chosen = {}
    for part, index in (("train", kept), ("validation", held)):
        plain: Any = (
            inputs.for_testing() if part != "train" and isinstance(inputs, Varied) else inputs
        )
        plain = _selectable(plain)
        chosen[part] = plain.choose(index) if isinstance(plain, Selectable) else plain[index]
    test_inputs, test_labels = samples.test
    return OwnData(
        train_samples=chosen["train"],
        train_labels=labels[kept],
        test_samples=test_inputs,
        test_labels=test_labels,
        name=getattr(samples, "name", ""),
        input_shape=tuple(samples.input_shape),  # type: ignore[attr-defined]
        output_count=samples.outputs,
        classes=tuple(getattr(samples, "classes", ())),
        steps=getattr(samples, "steps", None),
        validation=(chosen["validation"], labels[held]),
        found=getattr(samples, "found", {}),
    )
