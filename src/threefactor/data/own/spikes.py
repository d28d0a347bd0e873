"""Files of spike trains in the layout of the Spiking Heidelberg Digits, of any size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.data.files.rows import FileRows
from threefactor.data.formats.hdf5 import read_arrays
from threefactor.data.own.folder import named, part_names
from threefactor.data.own.made import place_of
from threefactor.data.samples.frame_cache import cached_frames
from threefactor.data.samples.labelled import held_out
from threefactor.data.samples.own import OwnData
from threefactor.data.samples.sequences import Sequences
from threefactor.data.samples.spikes import spikes_digest
from threefactor.data.samples.stored import Stored
from threefactor.data.sets.shd import spikes_of
from threefactor.data.where import cache_folder
from threefactor.errors import ConfigurationError, DataError
from threefactor.events.spikes import SpikeBatch

__all__ = ["ENDINGS", "SpikeFiles", "files_of", "read_spike_files", "spikes"]

ENDINGS = (".h5", ".h5.gz", ".h5.zip", ".hdf5")
MOST_CHANNELS, MOST_CLASSES = 1 << 24, 100_000
MOST_BYTES = 8 << 30
"""Of the counts of all spikes in steps."""


def spikes(
    *,
    path: str = "",
    channels: int | None = None,
    duration: float | None = None,
    train_part: str = "train",
    validation_part: str = "validation",
    test_part: str = "test",
    test_share: float | None = None,
    split_seed: int = 0,
    data_dir: Path | None = None,
    steps: int | None = None,
    dtype: torch.dtype = torch.float32,
    room: int | None = None,
) -> OwnData:
    """Load HDF5 files with spikes/times, spikes/units and labels, see `data.read_shd_file`.

    Either a folder with train.h5, test.h5 and perhaps validation.h5 (or .h5.gz, .h5.zip), or one
    file and a share for testing.

    Args:
        path: the folder or file; below `data_dir`, if that is given and the path is relative.
        channels: how many there are; by default as many as the largest unit needs.
        duration: seconds that the `steps` of a network on a time grid cover together; by default
            until the last spike for training. Later spikes are left out. Event-driven networks
            take no such option: they have a duration of their own.
        train_part, validation_part, test_part: names of the files, without their endings.
        test_share: share of each class that is chosen at random for testing.
        split_seed: of that choice.
        data_dir, steps, dtype: of the experiment. Without `steps`, spikes keep their times; with
            them, they are counted in so many steps of one length.
        room: bytes that these counts may take in memory; more are kept in a file in the user's
            cache folder, from which batches are read. None for no limit but 8 GiB.

    Raises:
        ConfigurationError: nothing says how to split; the duration has no meaning; or h5py is not
            installed.
        DataError: a file cannot be read, or a class is missing; files and samples are named.
    """
    place = place_of(path, data_dir, "spikes")
    if duration is not None and steps is None:
        raise ConfigurationError(
            f"data.duration is {duration:g}, which the steps of a network on a time grid cover; "
            "an event-driven network has none: leave it out, or give network.duration"
        )
    if duration is not None and not 0 < duration < math.inf:
        raise ConfigurationError(f"data.duration is {duration:g}; give seconds, above 0")
    names = part_names(train_part, validation_part, test_part, test_share, split_seed)
    files = files_of(place, names)
    found = read_spike_files(files, channels)
    parts, split = found.parts, f"by the files {', '.join(p.name for p in files.values())}"
    if "test" not in parts:
        if test_share is None:
            raise ConfigurationError(
                f"{place} is one file, and nothing says which samples are for testing; give a "
                "share, as --set test_share=0.2"
            )
        batch, labels = parts["train"]
        kept, held = held_out(labels, test_share, split_seed)
        parts = {
            "train": (batch[kept], labels[kept]),
            "test": (batch[held], labels[held]),
        }
        split = f"a share of {test_share:g} of each class for testing, seed {split_seed}"
    elif test_share is not None:
        raise ConfigurationError(
            f"{place} has a file for testing, and test_share is {test_share:g}; leave it out"
        )
    classes = _classes(place, {part: labels for part, (_, labels) in parts.items()})
    facts: dict[str, Any] = {"path": str(place), "split": split}
    facts["samples"] = {
        part: dict(
            zip(classes, torch.bincount(labels, minlength=len(classes)).tolist(), strict=True)
        )
        for part, (_, labels) in parts.items()
    }
    said = "as given" if channels is not None else "the largest unit that spikes, and one"
    facts["channels"] = f"{found.channels} ({said})"
    latest = max(float(batch.times.max(initial=0.0)) for batch, _ in parts.values())
    facts["latest spike"] = f"{latest:.6g} s"
    taken: Mapping[str, Any] = {part: batch for part, (batch, _) in parts.items()}
    if steps is not None:
        last = float(parts["train"][0].times.max(initial=0.0))
        span = last if duration is None else duration
        if not span > 0:
            raise DataError(f"no spike in {place} comes after time 0; give --set duration=SECONDS")
        late = sum(int((batch.times > span).sum()) for batch, _ in parts.values())
        facts["steps"] = f"{steps} of {span / steps:.6g} s" + (
            f"; {late} later spikes are left out" if late else ""
        )
        size = sum(len(batch) for batch, _ in parts.values()) * steps * found.channels
        if room is not None and size > room:
            taken = {
                part: Stored(_in_file(batch, steps, span, place), dtype, sequences=True, raw=True)
                for part, (batch, _) in parts.items()
            }
        else:
            taken = {
                part: Sequences(_counted(batch, steps, span, place), dtype)
                for part, (batch, _) in parts.items()
            }
    held_pair = (taken["validation"], parts["validation"][1]) if "validation" in parts else None
    return OwnData(
        train_samples=taken["train"],
        train_labels=parts["train"][1],
        test_samples=taken["test"],
        test_labels=parts["test"][1],
        name="spikes",
        input_shape=(found.channels,),
        output_count=len(classes),
        classes=classes,
        steps=steps,
        validation=held_pair,
        found=facts,
    )


@dataclass(frozen=True)
class SpikeFiles:
    """The spikes and labels of each part, and how many channels there are."""

    parts: dict[str, tuple[SpikeBatch, Tensor]]
    channels: int


def read_spike_files(files: Mapping[str, Path], channels: int | None = None) -> SpikeFiles:
    """Read the file of each part.

    Args:
        files: by part.
        channels: how many there are; by default as many as the largest unit needs.

    Raises:
        ConfigurationError: h5py is not installed.
        DataError: a file cannot be read.
    """
    arrays = {part: read_arrays(path) for part, path in files.items()}
    if channels is None:
        most = max(int(units.values.max(initial=0)) for _, units, _ in arrays.values())
        channels = min(max(most + 1, 1), MOST_CHANNELS)
    return SpikeFiles(
        {
            part: spikes_of(files[part], times, units, labels, channels, MOST_CLASSES)
            for part, (times, units, labels) in arrays.items()
        },
        channels,
    )


def files_of(place: Path, names: Mapping[str, str]) -> dict[str, Path]:
    """Return the file of each part; one file alone is that for training.

    Raises:
        DataError: if the folder has no file for training or testing.
    """
    if not place.is_dir():
        return {"train": place}
    found = {}
    for part, name in names.items():
        there = [place / f"{name}{end}" for end in ENDINGS if (place / f"{name}{end}").is_file()]
        if there:
            found[part] = there[0]
        elif part != "validation":
            raise DataError(
                f"{place} has no {name}.h5; put it there, or name the file for {part}ing without "
                f"its ending, as --set {part}_part=shd_{part}"
            )
    return found


def _classes(place: Path, labels: Mapping[str, Tensor]) -> tuple[str, ...]:
    high = max(int(each.max()) for each in labels.values())
    missing = sorted(set(range(high + 1)) - set(labels["train"].tolist()))
    if missing:
        raise DataError(
            f"no sample for training in {place} has the label {named(map(str, missing))}, of 0 to "
            f"{high}; number the classes from 0 on without gaps, and give samples of each"
        )
    if high == 0:
        raise DataError(f"all labels in {place} are 0, one class only; give two at least")
    return tuple(map(str, range(high + 1)))


def _counted(batch: SpikeBatch, steps: int, span: float, place: Path) -> Tensor:
    """Count spikes in steps of one length: (N, T, channels)."""
    size = len(batch) * steps * batch.size
    if size > MOST_BYTES:
        raise DataError(
            f"{place} has {len(batch)} samples, which take {size:,} bytes in {steps} steps of "
            f"{batch.size} channels, more than {MOST_BYTES:,}; give fewer steps, or --set "
            "data.place=disk"
        )
    counts = np.zeros(size, np.uint8)
    inside = batch.times <= span
    step = np.minimum((batch.times * (steps / span)).astype(np.int64), steps - 1)
    cell = ((batch.samples * steps + step) * batch.size + batch.addresses)[inside]
    cells, number = np.unique(cell, return_counts=True)
    if number.max(initial=0) > 255:
        raise DataError(
            f"a channel of {place} spikes {number.max()} times in one step, 255 at most; give more "
            "steps"
        )
    counts[cells] = number
    shaped: NDArray[np.uint8] = counts.reshape(len(batch), steps, batch.size)
    return torch.from_numpy(shaped)


def _in_file(batch: SpikeBatch, steps: int, span: float, place: Path) -> FileRows:
    """Count spikes in steps as `_counted`, sample by sample into a file."""
    key: dict[str, Any] = {"set": "spikes", "steps": steps, "span": span, "channels": batch.size}
    key["source"] = spikes_digest(batch)

    def make() -> Iterator[NDArray[np.uint8]]:
        for b in range(len(batch)):
            yield _counted(batch[b : b + 1], steps, span, place)[0].numpy()

    found = cached_frames(cache_folder() / "own-spikes", key, len(batch), make, ("uint8",))
    return FileRows.of(found.array)
