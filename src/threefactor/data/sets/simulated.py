"""Sequences of frames of simulated event recordings, made from any set of images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefactor.data.dataset import DataSet
from threefactor.data.encode.framing import FrameSettings, frames
from threefactor.data.encode.saccades import SaccadeSettings, simulate_saccades
from threefactor.data.samples.frame_cache import CachedFrames, cached_frames
from threefactor.data.samples.raw import RawImages
from threefactor.data.sets.catalog import DATASETS
from threefactor.data.sets.readers import READERS

__all__ = ["base_of", "simulated_parts"]

BLOCK = 32  # images that move at once: their pixels fit into the processor's cache
Parts = tuple[tuple[CachedFrames, NDArray[Any]], tuple[CachedFrames, NDArray[Any]]]


def base_of(name: str) -> DataSet | None:
    """Return the set of images that "simulated-NAME" is made from, or None if it is no such."""
    entry = DATASETS.get(name)
    return DATASETS[entry.base] if entry is not None and entry.base else None


def simulated_parts(
    entry: DataSet,
    data_dir: str | Path | None,
    folder: Path,
    settings: FrameSettings,
    types: tuple[str, ...],
) -> Parts:
    """Return frames and labels for training and for testing; see `load_frames`."""
    raw = READERS[entry.reader](entry, data_dir)
    saccades = SaccadeSettings()
    train = _cached(entry, raw, raw.train_images, folder, settings, saccades, types)
    test = _cached(entry, raw, raw.test_images, folder, settings, saccades, types)
    return (train, raw.train_labels), (test, raw.test_labels)


def _cached(
    entry: DataSet,
    raw: RawImages,
    images: NDArray[np.uint8],
    folder: Path,
    settings: FrameSettings,
    saccades: SaccadeSettings,
    types: tuple[str, ...],
) -> CachedFrames:
    def make() -> Iterator[NDArray[np.float32]]:
        sensor_size = (saccades.sensor, saccades.sensor)
        for start in range(0, len(images), BLOCK):
            block = images[start : start + BLOCK].astype(np.float32) / raw.peak
            for events in simulate_saccades(block, saccades):
                yield frames(events, sensor_size, settings)

    key = {
        "set": f"simulated-{entry.name}",
        "settings": asdict(settings),
        "saccades": asdict(saccades),
        "source": hashlib.sha256(np.ascontiguousarray(images).data).hexdigest(),
    }
    return cached_frames(folder, key, len(images), make, types)
