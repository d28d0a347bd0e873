"""The record of a run's data, so that a run is never resumed with other samples unnoticed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from threefactor.data import Frames, LoadsAhead
from threefactor.data.samples.sequences import Sequences
from threefactor.data.samples.stored import Stored, chunks
from threefactor.errors import CheckpointError
from threefactor.events import SpikeBatch
from threefactor.plugins import registry
from threefactor.training.settings import Settings

__all__ = ["describe_data", "describe_own_data", "difference", "record_of", "shape_of"]

PROBES = 8
"""How many of the first inputs are looked at."""
TOLERANCE = 1e-4
"""Statistics of inputs agree to this on all machines; those of a recompressed copy do not."""
LARGEST = 2**31
"""Bytes of own inputs up to which the record has a digest of all of them."""


def describe_data(samples: Any) -> dict[str, Any]:
    """Return numbers of samples, a digest of all labels, and a number for each of a few inputs.

    Args:
        samples: a data set with `train` and `test`, pairs of inputs and labels, as a run uses them.
            Augmentation is left out.
    """
    samples = getattr(samples, "data", samples)
    (inputs, train), (_, test) = samples.train, samples.test
    held = getattr(samples, "validation", None)
    parts = (train, test) if held is None else (train, test, held[1])
    return {
        "train": len(train),
        "test": len(test),
        **({} if held is None else {"validation": len(held[1])}),
        "labels": _digest(map(_label_bytes, parts)),
        "first_inputs": _probe(inputs, len(train)),
    }


def record_of(settings: Settings, samples: Any) -> dict[str, Any]:
    """Return the record of a run's samples: of registered data, which only its user has, more."""
    registered = registry.entry("data", settings.data.name) is not None
    return describe_own_data(samples) if registered else describe_data(samples)


def describe_own_data(samples: Any) -> dict[str, Any]:
    """Return what `describe_data` does, and more, for data that only the user has.

    `inputs` is a digest of all inputs, None where they are files or too large.
    """
    found = describe_data(samples)
    samples = getattr(samples, "data", samples)
    classes = getattr(samples, "classes", None)
    found["class"] = type(samples).__qualname__
    found["name"] = str(getattr(samples, "name", ""))
    found["shape"] = list(shape_of(samples))
    found["classes"] = None if classes is None else [str(name) for name in classes]
    held = getattr(samples, "validation", None)
    parts = [samples.train, samples.test, *([] if held is None else [held])]
    values = [_values(part[0]) for part in parts]
    small = all(one is not None and one[0] <= LARGEST for one in values)
    found["inputs"] = _digest(x for one in values if one for x in one[1]) if small else None
    if getattr(samples, "found", None):
        found["found"] = dict(samples.found)
    return found


def shape_of(samples: Any) -> tuple[int, ...]:
    """Return the shape of one input, as far as it can be told; of a frame, if there are several."""
    try:
        return tuple(samples.input_shape)
    except (AttributeError, TypeError, ValueError):  # a set filled with inputs of another kind
        inputs = samples.train[0]
        return tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else ()


def _digest(parts: Any) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:16]


def _label_bytes(labels: Tensor) -> Any:
    """Return class labels as int64, whatever integers they are; other targets as they are."""
    whole = not (labels.is_floating_point() or labels.is_complex())
    return _bytes(labels.to(torch.int64) if whole else labels)


def _bytes(values: Tensor) -> Any:
    flat = values.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy()  # numpy knows not all types, such as bfloat16


def _values(inputs: Any) -> tuple[int, Iterable[Any]] | None:
    """Return how many bytes the values of inputs have, and these; None for unknown inputs."""
    if isinstance(inputs, Sequences):
        inputs = inputs.values
    if isinstance(inputs, Tensor):
        return inputs.numel() * inputs.element_size(), [_bytes(inputs)]
    if isinstance(inputs, Stored):  # those of the tensor that stands for them in memory
        values: Any = inputs.rows if inputs.raw else replace(inputs, sequences=False)
        dtype: Any = values.dtype
        made = (_bytes(torch.as_tensor(part)) for part in chunks(values))
        return math.prod(inputs.shape) * int(dtype.itemsize), made
    arrays: list[Any] = []
    if isinstance(inputs, SpikeBatch):
        arrays = [inputs.offsets, inputs.times, inputs.addresses]
    elif isinstance(inputs, Frames) and inputs.array.flags["C_CONTIGUOUS"]:
        arrays = [inputs.array]
    if not arrays:
        return None
    return sum(array.nbytes for array in arrays), map(memoryview, arrays)


def _probe(inputs: Any, available: int) -> list[float]:
    """Return a number for each of the first inputs that tells it from others."""
    cropped = isinstance(inputs, LoadsAhead) and not isinstance(inputs, Stored)
    if cropped:  # files of images, anew each time they are read
        return []
    found = []
    for i in range(min(PROBES, available)):
        one = inputs[torch.tensor([i])]
        values = one if isinstance(one, Tensor) else torch.from_numpy(one.times.copy())
        found.append(float(values.double().square().sum().sqrt()))
    return found


def difference(there: Any, here: Mapping[str, Any]) -> str | None:
    """Say how the data of a run differs from other data; None if it does not, or is not known.

    Args:
        there: the record in config.json, which anybody may have changed.
        here: what `describe_data` or `describe_own_data` returned.

    Raises:
        CheckpointError: if `there` is not such a record.
    """
    if there is None:  # written by an earlier version
        return None
    _check(there)
    for part, what in (("train", "training"), ("test", "testing"), ("validation", "validation")):
        if there.get(part) != here.get(part):
            counts = [record.get(part) or "no" for record in (there, here)]
            return f"{counts[0]} samples for {what} there, {counts[1]} here"
    if there["labels"] != here["labels"]:
        return "the labels differ"
    pairs = zip(there["first_inputs"], here["first_inputs"], strict=False)
    if not all(math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for a, b in pairs):
        return "the inputs differ"
    for part in ("shape", "classes", "inputs"):
        if part in there and part in here and there[part] != here[part]:
            return f"the {part} differ" if part != "shape" else "the shape differs"
    return None


def _check(there: Any) -> None:
    """Refuse what is not a record of data."""
    for problem in _problems(there):
        raise CheckpointError(
            f"the record of the data in config.json is damaged: {problem}; put it back as it was, "
            "or train again in another folder with --out"
        )


def _problems(there: Any) -> Iterator[str]:
    if not isinstance(there, Mapping):
        yield f"it is {there!r:.80}"
        return
    kinds: Mapping[str, type] = {"train": int, "test": int, "labels": str, "first_inputs": list}
    for key, kind in kinds.items():
        if type(there.get(key)) is not kind:
            yield f"{key} is {there.get(key)!r:.80}"
    if isinstance(there.get("first_inputs"), list):
        for number in there["first_inputs"]:
            if type(number) not in (int, float) or not abs(number) < 1e300:
                yield f"first_inputs holds {number!r:.80}"
