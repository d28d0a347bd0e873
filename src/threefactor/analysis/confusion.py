"""Which classes a network takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from threefactor.analysis.records import Record
from threefactor.errors import InputError
from threefactor.readable import clipped

__all__ = ["Confusion", "confusion"]


@dataclass(frozen=True)
class Confusion(Record):
    """Predictions beside labels.

    Attributes:
        classes: the name of each class.
        counts: counts[i][j] is the number of samples of class i that were taken for class j.
        samples: of each class.
        recall: share of the samples of each class that were taken for it, its accuracy; None where
            there is no sample.
        precision: share of the samples taken for each class that are of it; None where there is
            none.
        accuracy: share of all samples that were taken for their class.
    """

    classes: list[str]
    counts: list[list[int]]
    samples: list[int]
    recall: list[float | None]
    precision: list[float | None]
    accuracy: float


def confusion(output: Tensor, labels: Tensor, classes: Sequence[str] = ()) -> Confusion:
    """Count which classes are taken for which. The largest output is the prediction.

    Args:
        output: (N, m) of a network.
        labels: (N,) class labels, 0 to m - 1.
        classes: a name for each output; their numbers by default. One that occurs several times,
            as "crane" in ImageNet, gets the number of the class.

    Raises:
        InputError: if these are no classes, as for regression and for several labels a sample.

    Example:
        >>> output = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
        >>> confusion(output, torch.tensor([0, 1, 1])).counts
        [[1, 0], [1, 1]]
    """
    for name, values in (("output", output), ("labels", labels)):
        if not isinstance(values, Tensor) or values.is_meta:
            raise InputError(f"the {name} is {clipped(values)}; give a torch.Tensor with values")
    if isinstance(classes, str | Tensor) or not isinstance(classes, Sequence):
        raise InputError(f"classes are {clipped(classes)}; give a list of names")
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not whole or labels.dim() != 1:
        raise InputError(
            f"the targets are {labels.dtype} of shape {tuple(labels.shape)}, and no class labels, "
            "so that there is no class that could be taken for another"
        )
    if output.dim() != 2 or len(output) != len(labels) or not len(labels):
        raise InputError(
            f"the output has shape {tuple(output.shape)}, and there are {len(labels)} labels; give "
            "an output (N, m) with a label for each sample, and one sample at least"
        )
    outputs = output.shape[1]
    if outputs < 2:
        raise InputError(
            "the network has one output, which is always the largest; there are none "
            "of the classes that a confusion matrix compares"
        )
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= outputs:
        raise InputError(
            f"labels lie between {low} and {high}, and the network has {outputs} outputs, 0 to "
            f"{outputs - 1}"
        )
    if not bool(torch.isfinite(output).all()):
        raise InputError("outputs are not finite, so there is no largest; the training diverged")
    if classes and len(classes) != outputs:
        raise InputError(
            f"there are {len(classes)} names of classes ({clipped(list(classes))}) for {outputs} "
            "outputs; give one for each"
        )
    names = [str(one) for one in classes]
    names = [f"{one} ({i})" if names.count(one) > 1 else one for i, one in enumerate(names)]
    predicted = output.argmax(1)
    pairs = labels.long() * outputs + predicted.to(labels.device)
    counts = torch.bincount(pairs, minlength=outputs**2).view(outputs, outputs).cpu()
    right, samples, taken = counts.diag(), counts.sum(1), counts.sum(0)
    return Confusion(
        names or [str(i) for i in range(outputs)],
        counts.tolist(),
        samples.tolist(),
        _shares(right, samples),
        _shares(right, taken),
        int(right.sum()) / len(labels),
    )


def _shares(part: Tensor, whole: Tensor) -> list[float | None]:
    return [p / w if w else None for p, w in zip(part.tolist(), whole.tolist(), strict=True)]
