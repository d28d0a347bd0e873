"""What a run remembers of its data, so that it never goes on with other samples unnoticed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["describe_data", "difference"]

PROBES = 8
"""How many of the first inputs are looked at."""
TOLERANCE = 1e-4
"""Statistics of inputs agree to this on all machines; those of a recompressed copy do not."""


def describe_data(samples: Any) -> dict[str, Any]:
    """Return numbers of samples, a digest of all labels, and a number for each of a few inputs.

    Args:
        samples: a data set with `train` and `test`, pairs of inputs and labels, as a run uses them.
            Augmentation is left out.
    """
    samples = getattr(samples, "data", samples)
    (inputs, train), (_, test) = samples.train, samples.test
    labels = torch.cat([train.cpu(), test.cpu()]).to(torch.int64)
    return {
        "train": len(train),
        "test": len(test),
        "labels": hashlib.sha256(labels.numpy().tobytes()).hexdigest()[:16],
        "first_inputs": _probe(inputs, len(train)),
    }


def _probe(inputs: Any, available: int) -> list[float]:
    """Return a number for each of the first inputs that tells it from others."""
    if hasattr(inputs, "batches"):  # files of images are cropped anew each time they are read
        return []
    found = []
    for i in range(min(PROBES, available)):
        one = inputs[torch.tensor([i])]
        values = one if isinstance(one, Tensor) else torch.as_tensor(one.times)
        found.append(float(values.double().square().sum().sqrt()))
    return found


def difference(there: Mapping[str, Any] | None, here: Mapping[str, Any]) -> str | None:
    """Say how the data of a run differs from that at hand; None if it does not, or is not known."""
    if there is None:  # written by an earlier version
        return None
    for part in ("train", "test"):
        if there[part] != here[part]:
            return f"{there[part]} samples for {part}ing there, {here[part]} here"
    if there["labels"] != here["labels"]:
        return "the labels are others"
    pairs = zip(there["first_inputs"], here["first_inputs"], strict=False)
    if not all(math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for a, b in pairs):
        return "the inputs are others"
    return None
