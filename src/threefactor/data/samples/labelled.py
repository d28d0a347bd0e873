"""What data sets of all kinds have in common once they are loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from threefactor.data.inputs import Inputs, Selectable
from threefactor.errors import InputError, warn_user

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LabelledData", "held_out"]

InputsT = TypeVar("InputsT", bound=Inputs)


class LabelledData(Generic[InputsT]):
    """A data set, split for training and testing. Its subclasses are frozen dataclasses.

    A subclass names its inputs: if `inputs` is "images", it has the fields `train_images` and
    `test_images`, and `train_labels` and `test_labels`, (N,), torch.int64, between 0 and
    `outputs` - 1.
    """

    inputs: ClassVar[str]
    if TYPE_CHECKING:  # fields of the subclasses, each of which has an order of its own

        @property
        def train_labels(self) -> Tensor: ...
        @property
        def test_labels(self) -> Tensor: ...
        @property
        def classes(self) -> tuple[str, ...]: ...

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def train(self) -> tuple[InputsT, Tensor]:
        """The inputs for training and their labels."""
        return getattr(self, f"train_{self.inputs}"), self.train_labels

    @property
    def test(self) -> tuple[InputsT, Tensor]:
        """The inputs for testing and their labels."""
        return getattr(self, f"test_{self.inputs}"), self.test_labels

    def subset(self, train: int | None = None, test: int | None = None) -> Self:
        """Return the first `train` and `test` samples, as views; None keeps all.

        Statistics of the whole set, such as its mean, stay.

        Raises:
            InputError: a number is not between 1 and the number of samples there are.
        """
        fields: dict[str, Any] = {}
        for part, number in (("train", train), ("test", test)):
            inputs, labels = getattr(self, part)
            _check_number(part, number, len(labels))
            # A slice of some inputs is a batch.
            first = inputs.first(number) if isinstance(inputs, Selectable) else inputs[:number]
            fields[f"{part}_{self.inputs}"] = first
            fields[f"{part}_labels"] = labels[:number]
        return replace(self, **fields)  # type: ignore[type-var]

    def fold(self, number: int, folds: int) -> Self:
        """Return one fold of the training samples for testing, and all others for training.

        The test samples are left out. The folds are random but always the same, and have the
        classes in the proportions of the training samples (scikit-learn's `StratifiedKFold`);
        targets that are no classes are divided as a whole (`KFold`).

        Args:
            number: which fold to test on, from 0 to `folds` - 1.
            folds: how many, at least 2 and at most as many as the rarest class has samples, or as
                there are samples if these have no classes.

        Raises:
            InputError: a number is out of its range.
        """
        from sklearn.model_selection import KFold, StratifiedKFold

        inputs, labels = self.train
        by_class = _are_classes(labels)
        rarest = len(labels)
        if by_class:
            rarest = int(np.unique(labels.numpy(), return_counts=True)[1].min())
        whole = all(type(value) is int for value in (number, folds))
        if not (whole and 2 <= folds <= rarest and 0 <= number < folds):
            what = "the rarest class has" if by_class else "there are"
            raise InputError(
                f"fold {number!r} of {folds!r} was asked for; give 2 to {rarest} folds ({what} "
                f"{rarest} samples), and the number of one, counted from 0"
            )
        kind = StratifiedKFold if by_class else KFold
        split = kind(folds, shuffle=True, random_state=0).split(labels, labels)
        parts = dict(zip(("train", "test"), list(split)[number], strict=True))
        fields: dict[str, Any] = {}
        for part, places in parts.items():
            index = torch.from_numpy(places)
            chosen = inputs.choose(index) if isinstance(inputs, Selectable) else inputs[index]
            fields[f"{part}_{self.inputs}"] = chosen
            fields[f"{part}_labels"] = labels[index]
        return replace(self, **fields)  # type: ignore[type-var]


def held_out(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide samples at random into those that are kept and those that are held out.

    Class labels are divided class by class, so that both parts have the classes in their
    proportions; at least one sample of each class is kept. Other targets are divided as a whole.
    Both parts come in the order of the samples.

    Args:
        labels: (N,) class labels, or other targets (N, ...).
        share: of the samples that is held out, above 0 and below 1.
        seed: of the choice, which is the same on all machines and versions.

    Returns:
        The positions of the kept and of the held samples.

    Raises:
        InputError: if the share has no meaning, nothing is held out, or nothing kept.

    Warns:
        UserWarning: if nothing is held out of some classes, which have few samples.
    """
    real = isinstance(share, (int, float)) and not isinstance(share, bool)
    if not (real and 0 < share < 1):
        raise InputError(f"the share is {share!r}; give a number above 0 and below 1")
    chance = np.random.RandomState(seed)  # its numbers never change between versions of NumPy
    by_class = _are_classes(labels)
    groups = [np.arange(len(labels))]
    if by_class:
        values = labels.cpu().numpy()
        groups = [np.flatnonzero(values == one) for one in np.unique(values)]
    parts = [
        chance.permutation(one)[: min(round(share * len(one)), len(one) - 1)] for one in groups
    ]
    held = np.concatenate(parts)
    if not len(held):
        raise InputError(
            f"a share of {share:g} of {len(labels)} samples of {len(groups)} classes is none; give "
            "a larger share, or more samples"
        )
    without = sum(not len(part) for part in parts)
    if without:
        warn_user(
            f"of {without} of {len(groups)} classes no sample is held out, since they have too few "
            f"for a share of {share:g}: what is measured on the samples that are held out says "
            "nothing of these classes. Give a larger share, or more samples of them"
        )
    kept = np.setdiff1d(np.arange(len(labels)), held)
    return torch.from_numpy(kept), torch.from_numpy(np.sort(held))


def _are_classes(labels: Tensor) -> bool:
    return labels.dim() == 1 and not labels.is_floating_point()


def _check_number(part: str, number: Any, available: int) -> None:
    if number is None:
        return
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= available:
        raise InputError(
            f"{part} is {number!r}; expected a whole number of samples from 1 to {available}, "
            "or None for all"
        )
