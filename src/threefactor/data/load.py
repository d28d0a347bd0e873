"""Load a data set by its name: as images, spikes, recordings of events, or frames of events."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.data.arguments import check_dtype, given_path
from threefactor.data.dataset import (
    DataSet,
    EventSet,
    FramedSet,
    ImageFolderSet,
    ImageSet,
    SimulatedSet,
    SpikeSet,
)
from threefactor.data.encode.framing import (
    FrameSettings,
    LateEvents,
    frames,
    microseconds,
    spike_frames,
)
from threefactor.data.encode.latency import check_window, code_images
from threefactor.data.files.archives import unpacked
from threefactor.data.files.rows import FileRows
from threefactor.data.formats.events import Events
from threefactor.data.samples.frame_cache import CachedFrames, cached_frames
from threefactor.data.samples.frames import FrameData, Frames
from threefactor.data.samples.image_folder import ImageFolderData, load_image_folder
from threefactor.data.samples.images import ImageData, image_data
from threefactor.data.samples.recordings import EventData, Recordings
from threefactor.data.samples.spikes import SpikeData, spikes_digest
from threefactor.data.samples.stored import Stored
from threefactor.data.sets.catalog import DATASETS, lookup
from threefactor.data.sets.simulated import SACCADES, simulated_events
from threefactor.data.where import cache_folder, data_folder, find_files
from threefactor.errors import ConfigurationError, DataError, InputError
from threefactor.events.spikes import SpikeBatch
from threefactor.readable import clipped

__all__ = ["frame_settings", "has_frames", "load", "load_events", "load_frames", "load_spikes"]

WHOLE_TYPES, BROKEN_TYPES = ("uint8", "uint16", "float32"), ("float16", "float32")


@overload
def load(  # type: ignore[overload-overlap]
    name: Literal["imagenet"],
    data_dir: str | Path | None = None,
    normalise: bool = True,
    dtype: torch.dtype = torch.float32,
    room: int | None = None,
) -> ImageFolderData: ...
@overload
def load(
    name: str,
    data_dir: str | Path | None = None,
    normalise: bool = True,
    dtype: torch.dtype = torch.float32,
    room: int | None = None,
) -> ImageData: ...


def load(
    name: str,
    data_dir: str | Path | None = None,
    normalise: bool = True,
    dtype: torch.dtype = torch.float32,
    room: int | None = None,
) -> ImageData | ImageFolderData:
    """Load a data set of images; image files are read batch by batch.

    Args:
        name: a key of `DATASETS`.
        data_dir: the folder above the set's own; see `data_folder`. Not used for `digits`.
        normalise: subtract the training images' mean from all images and divide by their
            standard deviation; otherwise the pixels are only scaled to 0..1. Each channel of image
            files has its own mean and deviation, published for ImageNet.
        dtype: of the images: torch.float16, bfloat16, float32 or float64.
        room: bytes that the images may take in memory; more are kept as bytes in a file in the
            user's cache folder, from which batches are read. None for no limit.

    Returns:
        An `ImageData`; of a set of image files, as `imagenet`, an `ImageFolderData`.

    Raises:
        ConfigurationError: there is no data set of this name, or it is one of spikes or
            events; or Pillow, which reads image files, is not installed.
        DataError: a file is absent or damaged, or the files do not fit together.
        InputError: `dtype` is not one of these, or `normalise` is not a bool.
    """
    entry = lookup(name)
    if not isinstance(entry, (ImageSet, ImageFolderSet)):
        loader, networks = "load_frames", "on a time grid"
        if isinstance(entry, SpikeSet):
            loader, networks = "load_spikes", "of exact spike times"
        raise ConfigurationError(
            f"{name!r} holds {entry.kind}, not images; use threefactor.data.{loader}({name!r}), "
            f"for networks {networks}. Sets of images: {_names(ImageSet, ImageFolderSet)}"
        )
    check_dtype(dtype)
    if not isinstance(normalise, bool):
        raise InputError(f"normalise is {clipped(normalise)}; give True or False")
    sources = find_files(entry, data_dir)
    if isinstance(entry, ImageFolderSet):
        folder = sources[0].path.parent
        return load_image_folder(folder, normalise=normalise, dtype=dtype, name=name)
    raw = entry.read(entry, sources)
    images = raw.train_images, raw.test_images
    if room is None or sum(part.size for part in images) * dtype.itemsize <= room:
        return image_data(raw, entry.classes, name, normalise, dtype)
    mean, std = raw.statistics(name)
    train, test = (
        Stored(
            _pixels_in_file(name, part),
            dtype,
            peak=raw.peak,
            mean=mean if normalise else 0.0,
            std=std if normalise else 1.0,
        )
        for part in images
    )
    found: Any = (train, test)
    return ImageData(
        train_images=found[0],
        train_labels=torch.from_numpy(raw.train_labels.astype(np.int64)),
        test_images=found[1],
        test_labels=torch.from_numpy(raw.test_labels.astype(np.int64)),
        classes=entry.classes,
        name=name,
        mean=mean,
        std=std,
    )


def _pixels_in_file(name: str, images: NDArray[np.uint8]) -> FileRows:
    digest = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    key = {"set": name, "shape": list(images.shape), "source": digest}
    folder = cache_folder() / name / "pixels"
    found = cached_frames(folder, key, len(images), lambda: iter(images), ("uint8",))
    return FileRows.of(found.array)


def load_spikes(name: str, data_dir: str | Path | None = None, window: float = 0.1) -> SpikeData:
    """Load images or spikes as spikes.

    Images are coded by latency, one spike per pixel that is not 0, the brighter the earlier:
    see `threefactor.events.latency_code`. The points of `yin-yang` are coded in the times of
    five spikes. Recorded spikes, those of `shd`, keep their times.

    Args:
        name: a key of `DATASETS`.
        data_dir: the folder above the set's own; see `data_folder`. Not used for sets that need
            no files.
        window: seconds over which images and points are coded. Not used for recorded spikes.

    Raises:
        ConfigurationError: there is no data set of this name, or it holds events or image
            files; or h5py, which reads `shd`, is not installed.
        DataError: a file is absent or damaged, or the files do not fit together.
        InputError: `window` is not a number above 0.

    Example:
        >>> digits = load_spikes("digits", window=0.1)
        >>> digits.input_shape, float(digits.train_spikes.times.min())
        ((64,), 0.0)
    """
    entry = lookup(name)
    check_window(window)
    if isinstance(entry, SpikeSet):
        train, test = entry.read(entry, find_files(entry, data_dir), window)
        return SpikeData(*train, *test, classes=entry.classes, name=name)
    if not isinstance(entry, ImageSet):
        what, loaders = "events of a camera", ["load_frames", "load_events"]
        if isinstance(entry, SimulatedSet):
            what, loaders = "simulated events", ["load_frames"]
        elif isinstance(entry, ImageFolderSet):
            what, loaders = "image files, too many to be coded as spikes", ["load"]
        given = " or ".join(f"threefactor.data.{loader}({name!r})" for loader in loaders)
        raise ConfigurationError(f"{name!r} holds {what}; use {given}, for networks on a time grid")
    raw = entry.read(entry, find_files(entry, data_dir))

    def coded(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[SpikeBatch, Tensor]:
        return code_images(images, raw.peak, window), torch.from_numpy(labels.astype(np.int64))

    train = coded(raw.train_images, raw.train_labels)
    test = coded(raw.test_images, raw.test_labels)
    return SpikeData(*train, *test, classes=entry.classes, name=name)


def load_events(name: str, data_dir: str | Path | None = None, sort: bool = False) -> EventData:
    """Load a data set of event recordings, each of which is read when it is indexed.

    An archive that was not unpacked yet is unpacked once, into the folder in which it lies.

    Args:
        name: "nmnist", "dvs-gesture", "dvs-gesture-tonic" or "dvs-cifar10".
        data_dir: the folder above the set's own; see `data_folder`.
        sort: sort events that run backwards in time; otherwise they are an error.

    Returns:
        Recordings and labels. Times are microseconds: of `nmnist` and `dvs-cifar10` as in the
        files, of `dvs-gesture` since the start of the sample.

    Raises:
        ConfigurationError: there is no data set of this name, or it is not one of events.
        DataError: files are absent or damaged. A damaged recording is an error when it is read.
    """
    entry = lookup(name)
    if not isinstance(entry, EventSet):
        given = "simulated events" if isinstance(entry, SimulatedSet) else entry.kind
        raise ConfigurationError(
            f"{name!r} holds {given}, not recorded events of a camera. Sets of events: "
            f"{_names(EventSet)}"
        )
    sources = find_files(entry, data_dir)
    folders = [
        unpacked(source.path, folder)
        for source, folder in zip(sources, entry.files.folders, strict=True)
    ]
    parts = entry.recordings(entry, folders)
    for part, samples in zip(("training", "testing"), parts, strict=True):
        if not samples:
            raise DataError(f"{folders[0].parent} holds no recordings of {name!r} for {part}")
    train, test = (Recordings(samples, partial(entry.read, sort=sort)) for samples in parts)
    sensor_size = entry.shape[1], entry.shape[2]
    return EventData(train, train.labels, test, test.labels, entry.classes, name, sensor_size)


def has_frames(name: str) -> bool:
    """Return whether `load_frames` gives the data set of this name."""
    known = DATASETS.get(name) if isinstance(name, str) else None
    return getattr(known, "frames", None) is not None


def frame_settings(name: str) -> FrameSettings:
    """Return how the frames of a set of events or recorded spikes are made if nothing is said.

    Raises:
        ConfigurationError: there is no data set of this name, or no frames can be made of it.
    """
    return _framed_set(name)[1]


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
    """Load a data set of recorded or simulated events, or recorded spikes, as sequences of frames.

    The frames are made once, kept on disk and mapped into memory from then on. They are made anew
    if settings or recordings have changed, or if what is kept is damaged. Counts are kept as whole
    numbers, resized frames as float16, which has 11 significant bits.

    Args:
        name: "nmnist", "dvs-gesture", "dvs-gesture-tonic" or "dvs-cifar10"; or "simulated-" and the
            name of a set of images, as "simulated-digits", which `simulate_saccades` turns into
            events; or "shd" and "shd-like", whose frames have the shape (1, 1, channels).
        data_dir: the folder above the set's own; see `data_folder`.
        settings: how frames are made; by default as `frame_settings(name)`.
        normalise: subtract the mean of all values for training and divide by their standard
            deviation; by default only for dvs-cifar10, as published.
        dtype: of the batches: torch.float16, bfloat16, float32 or float64.
        cache_dir: where the frames are kept; by default the folder `frames` in the set's own, or
            in the user's cache folder if that cannot be written to.
        sort: sort events that run backwards in time; otherwise they are an error.

    Raises:
        ConfigurationError: there is no data set of this name, or no frames can be made of it.
        DataError: a recording is absent or damaged, or the frames cannot be kept.
        InputError: `settings`, `dtype` or a path is not valid.

    Warns:
        UserWarning: if more than a tenth of the events come after the last frame.
    """
    entry, usual = _framed_set(name)
    check_dtype(dtype)
    settings = settings or usual
    if not isinstance(settings, FrameSettings):
        raise InputError(f"settings are a {type(settings).__name__}; give FrameSettings")
    if cache_dir is not None:
        folder = given_path(cache_dir)
    else:
        own = data_folder(name, data_dir)
        writable = os.access(own if own.exists() else own.parent, os.W_OK)
        folder = (own if writable else cache_folder() / name) / "frames"
    types = WHOLE_TYPES if settings.size is None else BROKEN_TYPES

    def framed(part: _Frames) -> CachedFrames:
        key = {"set": name, "settings": asdict(settings), **part.key}
        late = LateEvents()
        return cached_frames(folder, key, len(part.labels), partial(part.make, late), types, late)

    if isinstance(entry, SpikeSet):
        parts = _spikes(name, data_dir, settings)
    elif isinstance(entry, SimulatedSet):
        parts = _simulated(entry, data_dir, settings)
    else:
        parts = _recorded(entry, data_dir, sort, settings)
    train, test = map(framed, parts)
    (train.late + test.late).told(settings)
    published = not isinstance(entry, SpikeSet) and entry.normalise
    scaled = published if normalise is None else normalise
    mean, std = (train.mean, train.std or 1.0) if scaled else (0.0, 1.0)
    return FrameData(
        train_frames=Frames(train.array, mean, std, dtype),
        train_labels=parts[0].labels,
        test_frames=Frames(test.array, mean, std, dtype),
        test_labels=parts[1].labels,
        classes=entry.classes,
        name=name,
        mean=train.mean,
        std=train.std,
    )


class _Frames(NamedTuple):
    """The frames of the samples for training or for testing, and what they depend on."""

    make: Callable[[LateEvents], Iterator[NDArray[np.float32]]]
    labels: Tensor
    key: dict[str, Any]


def _recorded(
    entry: FramedSet, data_dir: str | Path | None, sort: bool, settings: FrameSettings
) -> tuple[_Frames, _Frames]:
    data = load_events(entry.name, data_dir, sort)

    def part(recordings: Recordings, labels: Tensor) -> _Frames:
        key: dict[str, Any] = {"source": recordings.digest()}
        if sort:  # frames in a cache would hide the error of events that run backwards
            key["sort"] = True

        def make(late: LateEvents) -> Iterator[NDArray[np.float32]]:
            return _framed(recordings, entry, settings, late)

        return _Frames(make, labels, key)

    return part(*data.train), part(*data.test)


def _simulated(
    entry: SimulatedSet, data_dir: str | Path | None, settings: FrameSettings
) -> tuple[_Frames, _Frames]:
    raw = entry.base.read(entry.base, find_files(entry.base, data_dir))

    def part(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> _Frames:
        digest = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
        key = {"saccades": asdict(SACCADES), "source": digest}

        def make(late: LateEvents) -> Iterator[NDArray[np.float32]]:
            return _framed(simulated_events(images, raw.peak), entry, settings, late)

        return _Frames(make, torch.from_numpy(labels.astype(np.int64)), key)

    return part(raw.train_images, raw.train_labels), part(raw.test_images, raw.test_labels)


def _spikes(
    name: str, data_dir: str | Path | None, settings: FrameSettings
) -> tuple[_Frames, _Frames]:
    data = load_spikes(name, data_dir)

    def part(spikes: SpikeBatch, labels: Tensor) -> _Frames:
        def make(late: LateEvents) -> Iterator[NDArray[np.float32]]:
            late.add(microseconds(spikes.times), settings)
            return spike_frames(spikes, settings)

        return _Frames(make, labels, {"source": spikes_digest(spikes)})

    return part(*data.train), part(*data.test)


def _framed(
    recordings: Iterable[Events], entry: FramedSet, settings: FrameSettings, late: LateEvents
) -> Iterator[NDArray[np.float32]]:
    sensor_size = entry.shape[1], entry.shape[2]
    for events in recordings:
        late.add(events["t"], settings)
        yield frames(events, sensor_size, settings)


def _framed_set(name: str) -> tuple[FramedSet | SpikeSet, FrameSettings]:
    entry = lookup(name)
    if isinstance(entry, (FramedSet, SpikeSet)) and entry.frames is not None:
        return entry, entry.frames
    known = ", ".join(filter(has_frames, DATASETS))
    raise ConfigurationError(
        f"{name!r} holds {entry.kind}, not events or recorded spikes. Sets of frames: {known}"
    )


def _names(*kinds: type[DataSet]) -> str:
    return ", ".join(entry.name for entry in DATASETS.values() if isinstance(entry, kinds))
