"""Files of tensors: .npz and .safetensors with inputs and labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load
from torch import Tensor

from threefactor.data.files.rows import FileRows
from threefactor.data.files.source import LARGEST, Source
from threefactor.data.formats.npy import read_npz
from threefactor.data.formats.unread import unread
from threefactor.data.own.folder import named, part_names
from threefactor.data.own.made import place_of
from threefactor.data.samples.labelled import held_out
from threefactor.data.samples.own import OwnData
from threefactor.data.samples.sequences import Sequences
from threefactor.data.samples.stored import Stored, chunks, moments
from threefactor.errors import ConfigurationError, DataError
from threefactor.events.encoding import latency_code

__all__ = ["ENDINGS", "Pair", "Targets", "read_parts", "targets_of", "tensors"]

ENDINGS = (".npz", ".safetensors")
Targets = Literal["classes", "values", "labels"]
MOST_CLASSES = 100_000
FIX = {
    "strings": "number the classes from 0 on: numpy.unique(labels, return_inverse=True)[1]",
    "one-hot": "give the number of the class of each sample: labels.argmax(1)",
    "floats": "give integers for classes: labels.astype('int64'); for regression --set "
    "data.targets=values",
}


def tensors(
    *,
    path: str = "",
    inputs_key: str = "inputs",
    labels_key: str = "labels",
    targets: Targets = "classes",
    sequences: bool = False,
    train_part: str = "train",
    validation_part: str = "validation",
    test_part: str = "test",
    test_share: float | None = None,
    split_seed: int = 0,
    normalise: bool = False,
    data_dir: Path | None = None,
    steps: int | None = None,
    dtype: torch.dtype = torch.float32,
    window: float = 0.1,
    room: int | None = None,
) -> OwnData:
    """Load files of tensors.

    Either a folder with train.npz, test.npz and perhaps validation.npz, each with the arrays
    `inputs` and `labels`. Or one file with `train_inputs`, `train_labels`, `test_inputs` and so on
    (or inputs_train, ...). Or one file with `inputs` and `labels`, and a share for testing. Files
    may be .npz or .safetensors.

    Args:
        path: the folder or file; below `data_dir`, if that is given and the path is relative.
        inputs_key, labels_key: names of the arrays.
        targets: what `labels` are: "classes", (N,) integers from 0 on; "labels", (N, K) of 0 and 1,
            each of which may be right; "values", (N,) or (N, K) numbers to be approximated.
        sequences: whether inputs are (N, T, ...), sequences of T time steps.
        train_part, validation_part, test_part: names of the parts.
        test_share: share that is chosen at random for testing, of each class if there are any.
        split_seed: of that choice.
        normalise: subtract the mean of all training inputs and divide by their deviation.
        data_dir, steps, dtype, window: of the experiment. Without `steps`, inputs from 0 to 1 are
            coded as spikes within `window` seconds, see `events.latency_code`.
        room: bytes that they may take in memory; of larger ones, batches are read from the files,
            which must not be compressed then. None for no limit but 8 GiB a file.

    Raises:
        ConfigurationError: nothing says how to split, or options do not fit each other.
        DataError: a file cannot be read, or an array is missing or of another kind than expected;
            file and key are named.
    """
    place = place_of(path, data_dir, "tensors")
    names = part_names(train_part, validation_part, test_part, test_share, split_seed)
    room = room if steps is not None else None  # spikes are kept in memory
    parts, split = read_parts(place, inputs_key, labels_key, names, room, dtype)
    if "test" not in parts:
        if test_share is None:
            raise ConfigurationError(
                f"{place} has inputs and labels, and nothing says which are for testing; give a "
                "share, as --set test_share=0.2"
            )
        checked = targets_of(parts["train"], targets)
        kept, held = held_out(checked, test_share, split_seed)
        whole = parts.pop("train")
        parts = {"train": whole.chosen(kept.numpy()), "test": whole.chosen(held.numpy()), **parts}
        split = f"a share of {test_share:g} for testing, seed {split_seed}"
    elif test_share is not None:
        raise ConfigurationError(
            f"{place} has a part for testing, and test_share is {test_share:g}; leave it out"
        )
    labels = {part: targets_of(pair, targets) for part, pair in parts.items()}
    shape = _check_alike(parts, labels)
    classes = _classes(place, labels) if targets == "classes" else ()
    count = len(classes) or labels["train"].shape[1]
    inputs = {part: _inputs(pair, dtype) for part, pair in parts.items()}
    facts: dict[str, Any] = {"path": str(place), "split": split}
    facts["samples"] = {
        part: _counts(each, classes) if classes else len(each) for part, each in labels.items()
    }
    facts["inputs"] = f"shape {shape}, " + ", ".join(
        f"{part} from {_range(each)}" for part, each in inputs.items()
    )
    facts["targets"] = f"{count} {'classes' if classes else targets}"
    if normalise:
        mean, std = moments(inputs["train"])
        if not std:
            raise DataError(f"all inputs for training in {place} are equal; leave out normalise")
        inputs = {part: _scaled(each, mean, std) for part, each in inputs.items()}
        facts["normalised"] = f"mean {mean:.6g}, deviation {std:.6g}"
    taken: Mapping[str, Any] = inputs
    if steps is None:
        if sequences or normalise:
            raise ConfigurationError(
                "an event-driven network gets tensors as spikes, from 0 to 1: leave out sequences "
                "and normalise"
            )
        taken = {
            part: latency_code(each, window)
            for part, each in inputs.items()
            if isinstance(each, Tensor)
        }
        facts["coded"] = f"as one spike for each value above 0, within {window:g} s"
        shape = (int(np.prod(shape)),)
    elif sequences:
        if len(shape) < 2:
            raise DataError(
                f"{place}: inputs have the shape (N, {', '.join(map(str, shape))}), and "
                "sequences is true; give (N, T, ...)"
            )
        taken = {
            part: replace(each, sequences=True)
            if isinstance(each, Stored)
            else Sequences(each, dtype)
            for part, each in inputs.items()
        }
        shape = shape[1:]
    length = int(inputs["train"].shape[1]) if sequences else None
    held_pair = (taken["validation"], labels["validation"]) if "validation" in taken else None
    return OwnData(
        train_samples=taken["train"],
        train_labels=_as_dtype(labels["train"], dtype),
        test_samples=taken["test"],
        test_labels=_as_dtype(labels["test"], dtype),
        name="tensors",
        input_shape=shape,
        output_count=count,
        classes=classes,
        steps=length,
        validation=None if held_pair is None else (held_pair[0], _as_dtype(held_pair[1], dtype)),
        found=facts,
    )


class Pair:
    """Inputs and targets of a part, as they are in a file.

    Args:
        inputs: an array, or rows in a file.
        labels: an array.
        inputs_at, labels_at: file and key of each, for messages.
    """

    def __init__(self, inputs: Any, labels: NDArray[Any], inputs_at: str, labels_at: str) -> None:
        self.inputs, self.labels = inputs, labels
        self.inputs_at, self.labels_at = inputs_at, labels_at

    def chosen(self, index: NDArray[np.int64]) -> Pair:
        """Return some of the samples."""
        rows = self.inputs
        inputs = rows.choose(index) if isinstance(rows, FileRows) else rows[index]
        return Pair(inputs, self.labels[index], self.inputs_at, self.labels_at)


def read_parts(
    place: Path,
    inputs_key: str,
    labels_key: str,
    names: Mapping[str, str],
    room: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, Pair], str]:
    """Read the parts that a folder or file has; a file without parts is all for training.

    Args:
        place: the folder or file.
        inputs_key, labels_key: names of the arrays.
        names: of the parts.
        room: bytes that all files, and their numbers as `dtype`, may take in memory; inputs in
            larger ones stay unread. None for no limit.
        dtype: of the samples.

    Raises:
        DataError: a file cannot be read, or has no such arrays.
    """
    if place.is_dir():
        files = {
            part: [place / f"{name}{end}" for end in ENDINGS if (place / f"{name}{end}").is_file()]
            for part, name in names.items()
        }
        for part in ("train", "test"):
            if not files[part]:
                raise DataError(
                    f"{place} has no {names[part]}.npz and no {names[part]}.safetensors; put it "
                    f"there, or name the file for {part}ing without its ending, as --set "
                    f"{part}_part=NAME"
                )
        for found in files.values():
            if len(found) > 1:
                raise DataError(f"{place} has both {found[0].name} and {found[1].name}; remove one")
        parts = {}
        read = partial(
            _read, unread_too=_is_large([f[0] for f in files.values() if f], room, dtype)
        )
        for part, found in files.items():
            if found:
                arrays = read(found[0])
                parts[part] = _pair(found[0], arrays, inputs_key, labels_key)
        return parts, f"by the files {', '.join(f[0].name for f in files.values() if f)}"
    arrays = _read(place, _is_large([place], room, dtype))
    if inputs_key in arrays:
        return {"train": _pair(place, arrays, inputs_key, labels_key)}, "not split"
    parts = {}
    for part, name in names.items():
        for pattern in ("{part}_{key}", "{key}_{part}"):
            keys = [pattern.format(part=name, key=key) for key in (inputs_key, labels_key)]
            if keys[0] in arrays:
                parts[part] = _pair(place, arrays, *keys)
    if not {"train", "test"} <= parts.keys():
        raise DataError(
            f"{place} holds the arrays {named(arrays)}; expected {inputs_key!r} and "
            f"{labels_key!r}, or {names['train']}_{inputs_key}, {names['train']}_{labels_key}, "
            f"{names['test']}_{inputs_key} and {names['test']}_{labels_key}. Other names are given "
            "by --set inputs_key=x, --set labels_key=y"
        )
    return parts, f"by the arrays of {place.name}"


def _is_large(paths: Sequence[Path], room: int | None, dtype: torch.dtype) -> bool:
    """Whether files need more memory than there is room for: as they are, and as `dtype`."""
    if not room:
        return room == 0
    try:
        size = sum(path.stat().st_size for path in paths)
        if size * (1 + dtype.itemsize) <= room:  # even if it is of bytes
            return False
        arrays = [rows for path in paths for rows in unread(path).values()]
    except (OSError, DataError):  # what cannot be read in part is read as a whole, or refused
        return False
    return size + sum(math.prod(rows.shape) for rows in arrays) * dtype.itemsize > room


def _read(path: Path, unread_too: bool = False) -> Mapping[str, NDArray[Any] | FileRows]:
    if unread_too and path.suffix in ENDINGS:
        return unread(path)
    if path.suffix == ".npz":
        return read_npz(path)
    if path.suffix != ".safetensors":
        raise DataError(f"{path} does not end in .npz or .safetensors; save the tensors as one")
    try:
        return load(bytes(Source(path).read(8 * LARGEST)))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is a damaged .safetensors file, or holds a type that NumPy lacks ({error}); "
            "save it again, bfloat16 as float32"
        ) from error


def _pair(path: Path, arrays: Mapping[str, Any], inputs_key: str, labels_key: str) -> Pair:
    for key in (inputs_key, labels_key):
        if key not in arrays:
            raise DataError(
                f"{path} has no array {key!r}, but {named(arrays)}; name it with --set "
                f"{'inputs' if key == inputs_key else 'labels'}_key=NAME"
            )
    inputs, labels = arrays[inputs_key], arrays[labels_key]
    if isinstance(labels, FileRows):
        labels = labels[:]
    at = f"{path}, array {inputs_key!r}"
    if inputs.dtype.kind not in "buif" or len(inputs.shape) < 2:
        raise DataError(
            f"{at}, has the type {inputs.dtype} and the shape {inputs.shape}; expected numbers, "
            "(N, ...)"
        )
    if labels.ndim < 1 or len(labels) != len(inputs) or not len(inputs):
        raise DataError(
            f"{path} has {len(inputs)} samples in {inputs_key!r} and labels of the shape "
            f"{labels.shape} in {labels_key!r}; expected one for each, and one at least"
        )
    return Pair(inputs, labels, at, f"{path}, array {labels_key!r}")


def targets_of(pair: Pair, kind: Targets) -> Tensor:
    """Return targets of the kind that was asked for, and nothing else."""
    labels, at = pair.labels, pair.labels_at
    if labels.dtype.kind in "USO":
        raise DataError(
            f"{at}, holds strings ({named(map(str, labels.flat[:3]))}); {FIX['strings']}"
        )
    if labels.dtype.kind not in "buif":
        raise DataError(f"{at}, holds {labels.dtype}; give numbers")
    if kind == "classes":
        if labels.ndim == 2 and labels.shape[1] == 1 and labels.dtype.kind in "ui":
            raise DataError(f"{at}, has the shape {labels.shape}; give (N,): labels[:, 0]")
        if labels.ndim == 2 and np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all():
            raise DataError(f"{at}, is one-hot, of shape {labels.shape}; {FIX['one-hot']}")
        if labels.ndim != 1:
            raise DataError(
                f"{at}, has the shape {labels.shape}; give (N,), the class of each sample; several "
                "labels of each are --set data.targets=labels, numbers --set data.targets=values"
            )
        if labels.dtype.kind not in "ui":
            raise DataError(f"{at}, holds {labels.dtype}; {FIX['floats']}")
        return torch.from_numpy(labels.astype(np.int64))
    found = labels.astype(np.float64)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or not np.isfinite(found).all():
        raise DataError(f"{at}, has the shape {labels.shape}; give finite numbers, (N,) or (N, K)")
    if kind == "labels" and not np.isin(found, (0, 1)).all():
        raise DataError(
            f"{at}, holds other numbers than 0 and 1; give 1 for each label that is right"
        )
    return torch.from_numpy(found)


def _check_alike(parts: Mapping[str, Pair], labels: Mapping[str, Tensor]) -> tuple[int, ...]:
    shape, columns = parts["train"].inputs.shape[1:], labels["train"].shape[1:]
    for part, pair in parts.items():
        if pair.inputs.shape[1:] != shape:
            raise DataError(
                f"{pair.inputs_at}, has samples of shape {pair.inputs.shape[1:]}, and those for "
                f"training {shape}; give all of one shape"
            )
        if (pair.inputs.dtype.kind == "f") != (parts["train"].inputs.dtype.kind == "f"):
            raise DataError(
                f"{pair.inputs_at}, holds {pair.inputs.dtype}, and those for training "
                f"{parts['train'].inputs.dtype}, which may be other units, as 0 to 1 and 0 to 255; "
                "save both as one type"
            )
        if labels[part].shape[1:] != columns:
            raise DataError(
                f"{pair.labels_at}, has targets of shape {tuple(labels[part].shape[1:])}, and "
                f"those for training {tuple(columns)}; give all of one shape"
            )
    return tuple(shape)


def _classes(place: Path, labels: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Name the classes by their numbers, once all of them can be learned."""
    low = min(int(each.min()) for each in labels.values())
    high = max(int(each.max()) for each in labels.values())
    if low < 0 or high >= MOST_CLASSES:
        raise DataError(
            f"the labels in {place} are from {low} to {high}; give 0 to the number of classes - 1"
        )
    missing = sorted(set(range(high + 1)) - set(labels["train"].tolist()))
    if missing:
        raise DataError(
            f"no sample for training in {place} has the label {named(map(str, missing))}, of 0 to "
            f"{high}; number the classes from 0 on without gaps, and give samples of each"
        )
    if high == 0:
        raise DataError(f"all labels in {place} are 0, one class only; give two at least")
    return tuple(map(str, range(high + 1)))


def _inputs(pair: Pair, dtype: torch.dtype) -> Tensor | Stored:
    if isinstance(pair.inputs, FileRows):
        if pair.inputs.dtype.kind == "u" and pair.inputs.dtype.itemsize > 1:
            raise DataError(
                f"{pair.inputs_at}, holds {pair.inputs.dtype}, which PyTorch lacks; save it as "
                "int32, or as bytes"
            )
        for part in chunks(pair.inputs):
            if not np.isfinite(part).all():
                raise DataError(
                    f"{pair.inputs_at}, holds NaN or infinite numbers; give finite ones"
                )
        return Stored(pair.inputs, dtype)
    values = torch.from_numpy(np.array(pair.inputs, dtype=_native(pair.inputs)))
    if values.is_floating_point() and not bool(values.isfinite().all()):
        raise DataError(f"{pair.inputs_at}, holds NaN or infinite numbers; give finite ones")
    return values.to(dtype)


def _native(array: NDArray[Any]) -> Any:
    """Return a type of the same numbers that PyTorch has."""
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return np.int64
    return array.dtype.newbyteorder("=")


def _range(values: Tensor | Stored) -> str:
    """Name the lowest and the highest value."""
    low, high = math.inf, -math.inf
    for part in chunks(values):
        low, high = min(low, part.min().item()), max(high, part.max().item())
    return f"{low:.6g} to {high:.6g}"


def _as_dtype(labels: Tensor, dtype: torch.dtype) -> Tensor:
    return labels.to(dtype) if labels.is_floating_point() else labels


def _counts(labels: Tensor, classes: tuple[str, ...]) -> dict[str, int]:
    return dict(zip(classes, torch.bincount(labels, minlength=len(classes)).tolist(), strict=True))


def _scaled(values: Tensor | Stored, mean: float, std: float) -> Tensor | Stored:
    return values.scaled(mean, std) if isinstance(values, Stored) else (values - mean) / std
