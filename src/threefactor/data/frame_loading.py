"""Load recorded or simulated events as sequences of frames."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from threefactor.data.arguments import given_path
from threefactor.data.event_data import EventData, Recordings
from threefactor.data.event_loading import load_events
from threefactor.data.finding import cache_folder, data_folder
from threefactor.data.frame_cache import CachedFrames, cached_frames
from threefactor.data.frame_data import FrameData, Frames
from threefactor.data.framing import FrameSettings, frames
from threefactor.data.images import check_dtype
from threefactor.data.registry import lookup
from threefactor.data.simulated import base_of, simulated_parts
from threefactor.data.sources import ADVICE
from threefactor.errors import DataError, InputError

__all__ = ["FRAME_SETTINGS", "frame_settings", "has_frames", "load_frames"]

Parts = tuple[tuple[CachedFrames, NDArray[Any]], tuple[CachedFrames, NDArray[Any]]]

FRAME_SETTINGS = {
    "nmnist": FrameSettings(number=30, window=10_000),
    "dvs-gesture": FrameSettings(number=20, size=(48, 48)),
    "dvs-cifar10": FrameSettings(number=10, size=(48, 48)),
}
"""How the published figures make frames of each set of recordings."""

NORMALISED = {"dvs-cifar10"}
WHOLE_TYPES, BROKEN_TYPES = ("uint8", "uint16", "float32"), ("float16", "float32")


def has_frames(name: str) -> bool:
    """Tell whether `load_frames` gives the data set of this name."""
    return name in FRAME_SETTINGS or base_of(name) is not None


def frame_settings(name: str) -> FrameSettings:
    """Return how frames of a set are made if nothing else is said; simulated ones as N-MNIST's."""
    return FRAME_SETTINGS[name if name in FRAME_SETTINGS else "nmnist"]


def load_frames(
    name: str,
    data_dir: str | Path | None = None,
    settings: FrameSettings | None = None,
    *,
    normalise: bool | None = None,
    dtype: torch.dtype = torch.float32,
    cache_dir: str | Path | None = None,
    sort: bool = False,
) -> FrameData:
    """Load a data set of recorded or simulated events as sequences of frames.

    The frames are made once, kept on disk and mapped into memory from then on; see
    `threefactor.data.frame_cache`. They are made anew if settings or recordings have changed.
    Counts are kept as whole numbers, resized frames as float16, which has 11 significant bits.

    Args:
        name: "nmnist", "dvs-gesture" or "dvs-cifar10"; or "simulated-" and the name of a set of
            images, as "simulated-digits", which `simulate_saccades` turns into events.
        data_dir: the folder above the set's own; see `data_folder`.
        settings: how to make frames; by default `frame_settings(name)`.
        normalise: subtract the mean of all values for training and divide by their standard
            deviation; by default for dvs-cifar10 alone, as published.
        dtype: of the batches: torch.float16, bfloat16, float32 or float64.
        cache_dir: where the frames are kept; by default the folder `frames` in the set's own, or
            in the user's cache folder if that cannot be written to.
        sort: put events that run backwards in time into order, which else are an error.

    Raises:
        ConfigurationError: there is no data set of this name, or it is not one of events.
        DataError: a recording is absent or damaged, or the frames cannot be kept.
        InputError: `settings`, `dtype` or a path is none.
    """
    lookup(name)
    check_dtype(dtype)
    settings = settings or frame_settings(name)
    if not isinstance(settings, FrameSettings):
        raise InputError(f"settings are a {type(settings).__name__}; give FrameSettings")
    folder = given_path(cache_dir) if cache_dir is not None else _folder(name, data_dir)
    types = WHOLE_TYPES if settings.size is None else BROKEN_TYPES
    base = base_of(name)
    if base is None:
        classes = lookup(name).classes
        parts = _recorded(load_events(name, data_dir, sort), folder, settings, types, sort)
    else:
        classes = base.classes
        parts = simulated_parts(base, data_dir, folder, settings, types)
    (train, train_labels), (test, test_labels) = parts
    scaled = name in NORMALISED if normalise is None else normalise
    mean, std = (train.mean, train.std or 1.0) if scaled else (0.0, 1.0)
    return FrameData(
        train_frames=Frames(train.array, mean, std, dtype),
        train_labels=torch.from_numpy(train_labels.astype(np.int64)),
        test_frames=Frames(test.array, mean, std, dtype),
        test_labels=torch.from_numpy(test_labels.astype(np.int64)),
        classes=classes,
        name=name,
        mean=train.mean,
        std=train.std,
    )


def _folder(name: str, data_dir: str | Path | None) -> Path:
    own = data_folder(name, data_dir)
    present = own if own.exists() else own.parent
    return (own if os.access(present, os.W_OK) else cache_folder() / name) / "frames"


def _recorded(
    data: EventData,
    folder: Path,
    settings: FrameSettings,
    types: tuple[str, ...],
    sort: bool,
) -> Parts:
    train, test = (
        (_cached(folder, data, part, settings, types, sort), labels.numpy())
        for part, labels in (data.train, data.test)
    )
    return train, test


def _cached(
    folder: Path,
    data: EventData,
    part: Recordings,
    settings: FrameSettings,
    types: tuple[str, ...],
    sort: bool,
) -> CachedFrames:
    def make() -> Iterator[NDArray[np.float32]]:
        return (frames(events, data.sensor_size, settings) for events in part)

    key: dict[str, Any] = {"set": data.name, "settings": asdict(settings), "source": _digest(part)}
    if sort:  # else events that run backwards are an error, which frames from a cache would hide
        key["sort"] = True
    return cached_frames(folder, key, len(part), make, types)


def _digest(part: Recordings) -> str:
    """Sum up names, sizes and times of change of the files, and the samples cut out of them."""
    try:
        files = {entry.path: entry.path.stat() for entry in part.entries}
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}); check the path, or {ADVICE}"
        ) from error
    text = "\n".join(
        f"{path.parent.name}/{path.name} {stat.st_size} {stat.st_mtime_ns} {label} {start} {stop}"
        for path, label, start, stop, _ in part.entries
        for stat in (files[path],)
    )
    return hashlib.sha256(text.encode()).hexdigest()
