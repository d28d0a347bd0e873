"""What a folder or file of one's own data holds, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from threefactor.data.own import recordings as events
from threefactor.data.own import spikes, tensors
from threefactor.data.own.folder import (
    PARTS,
    Listing,
    Split,
    check_classes,
    list_folder,
    list_unsplit,
    named,
    part_names,
)
from threefactor.data.own.huggingface import read_rows
from threefactor.data.own.images import WHAT as IMAGES
from threefactor.data.own.images import read_each, sizes_of
from threefactor.data.own.kinds import recognise
from threefactor.data.samples.image_files import Header, header, opened
from threefactor.data.samples.image_folder import ENDINGS as IMAGE_ENDINGS
from threefactor.errors import ConfigurationError, DataError, InputError
from threefactor.events.spikes import SpikeBatch

__all__ = ["Example", "Survey", "survey"]

SHOWN = 6
"""Samples of each class that are kept to be shown."""


@dataclass(frozen=True)
class Example:
    """A sample to be shown.

    Attributes:
        label: the name of its class.
        picture: (H, W) or (H, W, 3) bytes; None for spikes.
        times, channels: of spikes, seconds and numbers; None for a picture.
    """

    label: str
    picture: NDArray[np.uint8] | None = None
    times: NDArray[np.float64] | None = None
    channels: NDArray[np.int64] | None = None


@dataclass
class Survey:
    """What was found.

    Attributes:
        kind: of the data, as "images".
        counts: samples of each class in each part; of one part "all" if nothing says how to split.
        facts: what else was found, in words.
        problems: what keeps a network from being trained with it, each with what to do.
        notes: what may be meant or not.
        examples: some samples of each class.
    """

    kind: str
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)


def survey(
    path: str | Path, kind: str | None = None, options: Mapping[str, Any] | None = None
) -> Survey:
    """Look at one's own data as training would, and go on where that would stop.

    Args:
        path: the folder or file.
        kind: "images", "events", "spikes", "tensors" or "huggingface"; by default as its files are
            named.
        options: those of its function in `KINDS` that say how it is split and read.

    Raises:
        ConfigurationError: if it may be several kinds, or two parts are the same.
        DataError: if it is absent, or none of them.
    """
    place, given = Path(path), dict(options or {})
    found = Survey(kind or recognise(place))
    train, validation, test = names = [given.get(f"{part}_part", part) for part in PARTS]
    part_names(train, validation, test, given.get("test_share"), given.get("split_seed", 0))
    if found.kind in ("images", "events"):
        endings = IMAGE_ENDINGS if found.kind == "images" else events.ENDINGS
        what = IMAGES if found.kind == "images" else events.WHAT
        listing = _listed(place, endings, what, names, given, found)
        if listing is not None:
            _note_classes(listing, place, what, found)
            look = _images if found.kind == "images" else _events
            look(listing, given, found)
    elif found.kind == "huggingface":
        _rows(place, names, given, found)
    elif found.kind == "spikes":
        _spikes(place, names, given, found)
    else:
        _tensors(place, names, given, found)
    return found


def _listed(
    place: Path,
    endings: Sequence[str],
    what: str,
    names: Sequence[str],
    given: Mapping[str, Any],
    found: Survey,
) -> Listing | None:
    """List the samples, with or without a split; None if that cannot be done."""
    train, validation, test = names
    share, seed = given.get("test_share"), given.get("split_seed", 0)
    split = Split(train, validation, test, share, seed)
    try:
        return list_folder(place, endings, split, what)
    except (ConfigurationError, DataError, InputError) as problem:
        found.problems.append(str(problem))
        if isinstance(problem, DataError):
            return None
    try:  # perhaps a folder for training and none for testing
        inner = place / split.train
        return list_unsplit(inner if inner.is_dir() else place, endings, what)
    except DataError as problem:
        found.problems.append(str(problem))
        return None


def _note_classes(listing: Listing, place: Path, what: str, found: Survey) -> None:
    found.counts = listing.counts
    found.facts["split"] = listing.split
    if "train" in listing.parts and "test" in listing.parts:
        try:
            check_classes(listing, place, what)
        except DataError as problem:
            found.problems.append(str(problem))
        for part in set(listing.parts) - {"train"}:
            absent = [name for name, count in listing.counts[part].items() if not count]
            if absent:
                found.notes.append(f"no {what} for {part} of the classes {named(absent)}")
    else:
        if len(listing.classes) < 2:
            found.problems.append(f"{place} holds one class only, {named(listing.classes)}")
        if listing.unlabelled:
            found.problems.append(
                f"{len(listing.unlabelled)} {what} lie in no folder of a class: "
                f"{named(listing.unlabelled)}; move each into the folder of its class"
            )
        found.problems.extend(f"{folder} holds no {what}" for folder in listing.empty)
    if listing.passed_over:
        found.notes.append(
            f"{len(listing.passed_over)} files are no {what} by their names, and are passed over: "
            f"{named(listing.passed_over)}"
        )
    largest, least = _extremes(found.counts)
    if least and largest >= 10 * least:
        found.notes.append(
            f"classes differ in size: {least} to {largest} samples for training; an accuracy says "
            "little about the rare ones"
        )


def _extremes(counts: Mapping[str, Mapping[str, int]]) -> tuple[int, int]:
    numbers = list((counts.get("train") or next(iter(counts.values()))).values())
    return max(numbers), min(numbers)


def _good(paths: Sequence[str], read: Any, found: Survey, what: str) -> list[tuple[str, Any]]:
    """Read all files; those that cannot be read are problems, each by its name."""
    results = read_each(paths, read, refuse=False)
    wrong = [one for one in results if isinstance(one, DataError)]
    if wrong:
        found.problems.append(f"{len(wrong)} of {len(paths)} {what} cannot be read")
        found.problems.extend(map(str, wrong))
    return [
        (path, one)
        for path, one in zip(paths, results, strict=True)
        if not isinstance(one, DataError)
    ]


def _paths(listing: Listing) -> list[str]:
    return [sample.path for part in listing.parts.values() for sample in part]


def _chosen(listing: Listing, good: set[str]) -> list[tuple[str, str]]:
    """Return some readable samples of each class, with its name."""
    found = []
    for label, name in enumerate(listing.classes):
        paths = [
            sample.path
            for part in listing.parts.values()
            for sample in part
            if sample.label == label and sample.path in good
        ]
        found += [(path, name) for path in paths[:SHOWN]]
    return found


def _rows(place: Path, names: Sequence[str], given: Mapping[str, Any], found: Survey) -> None:
    """Look at the pictures in tables of the library datasets."""
    keys = given.get("image_key", "image"), given.get("label_key", "label")
    parts = dict(zip(PARTS, names, strict=True))
    share, seed = given.get("test_share"), given.get("split_seed", 0)
    try:
        rows = read_rows(place, *keys, parts, share, seed)
    except (ConfigurationError, DataError, InputError) as problem:
        found.problems.append(str(problem))
        return
    _note_classes(rows.listing, place, IMAGES, found)
    if "test" not in rows.listing.parts:
        _note_share(given, found)
    _images(rows.listing, given, found, rows.head, rows.decoded)


def _images(
    listing: Listing,
    given: Mapping[str, Any],
    found: Survey,
    head_of: Callable[[str], Header] = header,
    decoded_of: Callable[[str, str], Any] = opened,
) -> None:
    def decoded(path: str) -> tuple[Header, int, int]:
        head = head_of(path)
        values = np.asarray(decoded_of(path, "L" if head.grey else "RGB"))
        return head, int(values.min()), int(values.max())

    good = _good(_paths(listing), decoded, found, IMAGES)
    if not good:
        return
    heads = [head for _, (head, _, _) in good]
    sizes = sizes_of(heads)
    common = ", ".join(f"{number} of {name}" for name, number in sizes.most_common(SHOWN))
    found.facts["sizes"] = f"{common} pixels (height x width)" + (
        f", and {len(sizes) - SHOWN} more sizes" if len(sizes) > SHOWN else ""
    )
    if len(sizes) > 1 and given.get("size") is None:
        found.problems.append(
            f"pictures have {len(sizes)} sizes; give the size to which all are resized, as --set "
            "size=64 or --set size=[48,64]"
        )
    greys = sum(head.grey for head in heads)
    found.facts["colours"] = f"{greys} in shades of grey, {len(heads) - greys} in colour"
    if 0 < greys < len(heads) and given.get("colour") is None:
        found.problems.append(
            "pictures are in shades of grey and in colour; give --set colour=grey or --set "
            "colour=rgb"
        )
    clear = sum(head.transparent for head in heads)
    if clear:
        found.notes.append(f"{clear} pictures have transparency, which is left out")
    low, high = min(one[1] for _, one in good), max(one[2] for _, one in good)
    found.facts["values"] = f"{low} to {high}, of 0 to 255"
    flat = [path for path, (_, least, most) in good if least == most]
    if flat:
        found.notes.append(f"{len(flat)} pictures have one value alone: {named(flat)}")
    if head_of is header:
        _note_twins(listing, {path for path, _ in good}, found)
    for path, name in _chosen(listing, {path for path, _ in good}):
        mode = "L" if head_of(path).grey else "RGB"
        picture = decoded_of(path, mode)
        picture.thumbnail((256, 256))
        found.examples.append(Example(name, picture=np.asarray(picture)))


def _note_twins(listing: Listing, good: set[str], found: Survey) -> None:
    """Note files that lie in two parts: a test on them says nothing."""
    seen: dict[str, dict[bytes, str]] = {}
    for part, samples in listing.parts.items():
        seen[part] = {
            hashlib.sha256(Path(sample.path).read_bytes()).digest(): sample.path
            for sample in samples
            if sample.path in good
        }
    for part in ("validation", "test"):
        both = set(seen.get(part, ())) & set(seen.get("train", ()))
        if both:
            names = named(seen[part][one] for one in sorted(both))
            found.notes.append(
                f"{len(both)} files for {part} are for training, too, byte by byte: {names}; "
                "remove them from one part"
            )


def _events(listing: Listing, given: Mapping[str, Any], found: Survey) -> None:
    read = partial(
        events.read_recording,
        time_unit=given.get("time_unit"),
        sort=given.get("sort", False),
        sensor=tuple(given.get("sensor") or events.LARGEST_SENSOR),
    )

    def facts(path: str) -> tuple[int, float, int, int, float]:
        one = read(path)
        height, width = int(one["y"].max()) + 1, int(one["x"].max()) + 1
        return len(one), float(one["t"][-1]) * 1e-6, height, width, float(one["p"].mean())

    good = _good(_paths(listing), facts, found, events.WHAT)
    if not good:
        return
    numbers = np.array([one for _, one in good])
    found.facts["sensor"] = f"{int(numbers[:, 2].max())}x{int(numbers[:, 3].max())} pixels used "
    found.facts["sensor"] += "(height x width)"
    found.facts["events"] = f"{_range(numbers[:, 0])} in a recording"
    found.facts["duration"] = f"{_range(numbers[:, 1])} s"
    if (numbers[:, 1] > 0).all():
        found.facts["rate"] = f"{_range(numbers[:, 0] / numbers[:, 1])} events/s"
    found.facts["polarity"] = f"{numbers[:, 4].mean():.0%} ON"
    still = [path for path, one in good if one[1] == 0]
    if still:
        found.notes.append(f"{len(still)} recordings have all events at one time: {named(still)}")
    _note_twins(listing, {path for path, _ in good}, found)
    width = int(numbers[:, 3].max())
    for path, name in _chosen(listing, {path for path, _ in good}):
        one = read(path)
        found.examples.append(
            Example(
                name, times=one["t"] * 1e-6, channels=one["y"].astype(np.int64) * width + one["x"]
            )
        )


def _range(values: NDArray[Any]) -> str:
    return f"{values.min():.6g} to {values.max():.6g} (median {np.median(values):.6g})"


def _spikes(place: Path, names: Sequence[str], given: Mapping[str, Any], found: Survey) -> None:
    try:
        files = spikes.files_of(place, dict(zip(PARTS, names, strict=True)))
        read = spikes.read_spike_files(files, given.get("channels"))
    except DataError as problem:
        found.problems.append(str(problem))
        return
    found.facts["channels"] = f"{read.channels}, as the largest unit needs"
    labels = {part: each for part, (_, each) in read.parts.items()}
    _note_labels(labels, given, found)
    counts = np.concatenate([np.diff(batch.offsets) for batch, _ in read.parts.values()])
    found.facts["spikes"] = f"{_range(counts)} in a sample"
    times = np.concatenate([batch.times for batch, _ in read.parts.values()])
    if len(times):
        found.facts["times"] = f"{_range(times)} s"
    if (counts == 0).any():
        found.notes.append(f"{int((counts == 0).sum())} samples have no spikes")
    batch, numbers = read.parts["train"]
    for label in sorted(set(numbers.tolist())):
        for place_of in torch.nonzero(numbers == label)[:SHOWN, 0].tolist():
            found.examples.append(_raster(batch, place_of, str(label)))


def _raster(batch: SpikeBatch, sample: int, label: str) -> Example:
    times, addresses = batch[sample]
    return Example(label, times=times, channels=addresses.astype(np.int64))


def _note_share(given: Mapping[str, Any], found: Survey) -> None:
    share = given.get("test_share")
    if share is None:
        found.problems.append(
            "nothing says which samples are for testing; give a share, as --set test_share=0.2"
        )
    else:
        found.facts["split"] = f"a share of {share:g} for testing"


def _note_labels(
    labels: Mapping[str, torch.Tensor], given: Mapping[str, Any], found: Survey
) -> None:
    size = max(int(each.max()) for each in labels.values()) + 1
    numbers = {part: torch.bincount(each, minlength=size) for part, each in labels.items()}
    found.counts = {
        part: {str(k): int(count) for k, count in enumerate(each)} for part, each in numbers.items()
    }
    if set(found.counts) == {"train"}:
        found.counts = {"all": found.counts["train"]}
        _note_share(given, found)
    missing = [str(k) for k in range(size) if not numbers["train"][k]]
    if missing:
        found.problems.append(
            f"no sample for training has the label {named(missing)}; number the classes from 0 on "
            "without gaps, and give samples of each"
        )
    if size < 2:
        found.problems.append("all labels are 0, one class only; give two at least")


def _tensors(place: Path, names: Sequence[str], given: Mapping[str, Any], found: Survey) -> None:
    keys = given.get("inputs_key", "inputs"), given.get("labels_key", "labels")
    kind: tensors.Targets = given.get("targets", "classes")
    try:
        parts, _ = tensors.read_parts(place, *keys, dict(zip(PARTS, names, strict=True)))
    except DataError as problem:
        found.problems.append(str(problem))
        return
    labels = {}
    for part, pair in parts.items():
        values = pair.inputs
        found.facts[f"inputs, {part}"] = (
            f"{values.dtype} of the shape {values.shape}, from {values.min():.6g} to "
            f"{values.max():.6g}, mean {values.mean(dtype=np.float64):.6g}"
        )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            found.problems.append(f"{pair.inputs_at}, holds NaN or infinite numbers")
        try:
            labels[part] = tensors.targets_of(pair, kind)
        except DataError as problem:
            found.problems.append(str(problem))
    if kind == "classes" and len(labels) == len(parts):
        low = min(int(each.min()) for each in labels.values())
        if low < 0:
            found.problems.append(f"the labels begin at {low}; number the classes from 0 on")
        else:
            _note_labels(labels, given, found)
    elif len(labels) == len(parts):
        found.counts = {part: {"samples": len(each)} for part, each in labels.items()}
        if "test" not in parts:
            _note_share(given, found)
    values = parts["train"].inputs
    if kind == "classes" and "train" in labels and values.ndim in (3, 4):
        _note_pictures(values, labels["train"], found)


def _note_pictures(values: NDArray[Any], labels: torch.Tensor, found: Survey) -> None:
    """Keep some inputs that may be pictures, (N, H, W) or (N, C, H, W), scaled to bytes."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all() or low == high:
        return
    if values.ndim == 4 and values.shape[1] not in (1, 3):
        return
    for label, count in Counter(labels.tolist()).items():
        for place in torch.nonzero(labels == label)[: min(count, SHOWN), 0].tolist():
            picture = (np.asarray(values[place], np.float64) - low) / (high - low) * 255
            if picture.ndim == 3:
                picture = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
            found.examples.append(Example(str(label), picture=picture.astype(np.uint8)))
