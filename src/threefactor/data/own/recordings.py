"""Folders of recordings of event cameras by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from threefactor.data.arguments import check_whole
from threefactor.data.encode.framing import FrameSettings, LateEvents, frames
from threefactor.data.files.source import LARGEST, Source
from threefactor.data.formats.aedat import read_aedat2, read_aedat3
from threefactor.data.formats.aedat4 import read_aedat4
from threefactor.data.formats.events import LARGEST_RECORDING, Events, make_events
from threefactor.data.formats.npy import read_npy, read_npz
from threefactor.data.own.folder import Listing, Sample, Split, check_classes, list_folder
from threefactor.data.own.images import read_each
from threefactor.data.own.made import labelled, place_of
from threefactor.data.samples.frame_cache import CachedFrames, cached_frames
from threefactor.data.samples.frames import Frames
from threefactor.data.samples.own import OwnData
from threefactor.data.samples.recordings import Recording, Recordings
from threefactor.data.sets.nmnist import read_nmnist_file
from threefactor.data.where import cache_folder
from threefactor.errors import ConfigurationError, DataError
from threefactor.events.spikes import SpikeBatch

__all__ = ["ENDINGS", "LARGEST_SENSOR", "WHAT", "TimeUnit", "read_recording", "recordings"]

WHAT = "recordings"
ENDINGS = (".npy", ".npz", ".aedat", ".aedat4", ".bin")
TimeUnit = Literal["s", "ms", "us", "ns"]
UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}  # microseconds
LARGEST_SENSOR = (1 << 15, 1 << 15)
TYPES = ("uint8", "uint16", "float32"), ("float16", "float32")
AEDAT2 = b"#!AER-DAT2"


def recordings(
    *,
    path: str = "",
    sensor: tuple[int, int] | None = None,
    time_unit: TimeUnit | None = None,
    frame_window: int | None = None,
    frame_size: tuple[int, int] | None = None,
    sort: bool = False,
    train_part: str = "train",
    validation_part: str = "validation",
    test_part: str = "test",
    test_share: float | None = None,
    split_seed: int = 0,
    data_dir: Path | None = None,
    steps: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> OwnData:
    """Load a folder of recordings of event cameras, a folder for each class.

    Recordings are .npy files of structured arrays with the fields x, y, t and p; .npz files with
    arrays of these names; .aedat files of version 2.0 (of a DVS128, turned upright as those of
    DVS-CIFAR10) or 3.1; .aedat4 files; or .bin files as those of N-MNIST.

    Args:
        path: the folder; below `data_dir`, if that is given and the path is relative.
        sensor: (height, width) in pixels; by default as many as the events need, for which all
            recordings are read before.
        time_unit: of t in .npy and .npz files: "s", "ms", "us" or "ns". Whole numbers are
            microseconds by default; others must say.
        frame_window: microseconds of each of the `steps` frames for a network on a time grid;
            events after the last frame are left out. By default all frames have as many events.
        frame_size: (height, width) to which frames are resized.
        sort: sort events that run backwards in time; otherwise they are an error.
        train_part, validation_part, test_part: folders in it that hold the classes, or text files
            that list samples, one path from the folder a line.
        test_share: share of each class that is chosen at random for testing, if nothing else says
            which are.
        split_seed: of that choice.
        data_dir, steps, dtype: of the experiment. Without `steps`, each event is a spike at its
            time since the first event, of the address (p * height + y) * width + x.

    Raises:
        ConfigurationError: nothing says how to split, the library aedat is not installed, or an
            option has no effect.
        DataError: the folder or a recording cannot be read, or a class is missing; files and
            classes are named.
    """
    folder = place_of(path, data_dir, "events")
    split = Split(train_part, validation_part, test_part, test_share, split_seed)
    listing = list_folder(folder, ENDINGS, split, WHAT)
    check_classes(listing, folder, WHAT)
    if time_unit is not None and not _say_no_unit(listing):
        raise ConfigurationError(
            f"time_unit is {time_unit!r}, and no file in {folder} is .npy or .npz: the others say "
            "themselves what their times are; leave it out"
        )
    read = partial(read_recording, time_unit=time_unit, sort=sort)
    said = "as given"
    if sensor is None:
        sensor, said = _sensor_of([s for part in listing.parts.values() for s in part], read)
    for name, value in zip(("height of the sensor", "width of the sensor"), sensor, strict=True):
        check_whole(name, value, 1, 4096)
    height, width = sensor
    facts: dict[str, Any] = {"sensor": f"{height}x{width} pixels (height x width; {said})"}
    if steps is None:
        if frame_window is not None or frame_size is not None:
            raise ConfigurationError(
                "frame_window and frame_size are of frames, and an event-driven network gets every "
                "event as a spike; leave them out"
            )
        taken: dict[str, Any] = {
            part: _spikes([one.path for one in samples], read, sensor)
            for part, samples in listing.parts.items()
        }
        facts["coded"] = "as one spike for each event, times since the first event"
        return labelled("events", folder, listing, taken, (2 * height * width,), facts)
    settings = FrameSettings(number=steps, window=frame_window, size=frame_size)
    made = {
        part: _frames(samples, read, sensor, settings, {"unit": time_unit, "sort": sort})
        for part, samples in listing.parts.items()
        if samples
    }
    taken = {part: Frames(found.array, dtype=dtype) for part, found in made.items()}
    late = sum((found.late for found in made.values()), LateEvents())
    length = f"of {frame_window} us" if frame_window else "with as many events each"
    facts["frames"] = f"{steps} {length}{late.told(settings)}"
    shape = (2, *(frame_size or sensor))
    return labelled("events", folder, listing, taken, shape, facts, steps)


def _say_no_unit(listing: Listing) -> bool:
    """Whether some recordings have times of which they do not say the unit."""
    paths = [one.path for samples in listing.parts.values() for one in samples]
    return any(path.lower().endswith((".npy", ".npz")) for path in paths)


def read_recording(
    path: str | Path,
    sensor: tuple[int, int] = LARGEST_SENSOR,
    time_unit: TimeUnit | None = None,
    sort: bool = False,
) -> Events:
    """Read a recording of any of the known formats, times since its first event.

    Args:
        path: an .npy, .npz, .aedat, .aedat4 or .bin file.
        sensor: (height, width); an event outside is an error.
        time_unit, sort: see `recordings`.

    Raises:
        DataError: the file is absent or damaged, or has other fields than expected.
    """
    place = Path(path)
    ending = place.suffix.lower()
    if ending == ".bin":
        found = read_nmnist_file(place, tuple(min(256, side) for side in sensor), sort)  # type: ignore[arg-type]
    elif ending == ".aedat4":
        found = read_aedat4(place, sensor, sort)
    elif ending == ".aedat":
        with Source(place).open() as stream:
            second = stream.read(len(AEDAT2)) == AEDAT2
        found = read_aedat2(place, sort) if second else read_aedat3(place, sensor, sort)
    else:
        columns = _columns(place)
        found = make_events(
            place,
            columns["x"],
            columns["y"],
            _microseconds(place, columns["t"], time_unit),
            _polarity(place, columns["p"]),
            sensor_size=sensor,
            offset=lambda event: event,
            sort=sort,
        )
    height, width = sensor
    if int(found["x"].max()) >= width or int(found["y"].max()) >= height:
        raise DataError(
            f"{place} has events at x up to {found['x'].max()} and y up to {found['y'].max()}, "
            f"outside the sensor of {height}x{width} pixels (height x width); give a larger one, "
            "as --set sensor=[128,128]"
        )
    found["t"] -= found["t"][0]
    return found


def _columns(path: Path) -> dict[str, NDArray[Any]]:
    if path.suffix.lower() == ".npz":
        arrays = read_npz(path, LARGEST)
        if len(arrays) == 1:  # of a structured array
            (array,) = arrays.values()
            arrays = _fields(path, array)
    else:
        arrays = _fields(path, read_npy(path, LARGEST_RECORDING))
    missing = [name for name in "xytp" if name not in arrays]
    if missing:
        raise DataError(
            f"{path} has the fields {', '.join(arrays) or 'none'} and lacks {', '.join(missing)}; "
            "give x, y, t and p"
        )
    lengths = {arrays[name].shape for name in "xytp"}
    if len(lengths) > 1 or any(arrays[name].ndim != 1 for name in "xytp"):
        raise DataError(f"{path} has x, y, t and p of the shapes {lengths}; give (N,) of each")
    for name in "xyp":
        if arrays[name].dtype.kind not in "iub":
            raise DataError(f"{path} has {name} of type {arrays[name].dtype}; give whole numbers")
    return {name: arrays[name] for name in "xytp"}


def _fields(path: Path, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    if array.dtype.names is None:
        raise DataError(
            f"{path} holds {array.dtype} of the shape {array.shape}, whose columns have no names; "
            "save a structured array with the fields x, y, t and p, as "
            "threefactor.data.EVENT"
        )
    return {name: array[name] for name in array.dtype.names}


def _microseconds(path: Path, t: NDArray[Any], unit: TimeUnit | None) -> NDArray[np.int64]:
    if t.dtype.kind not in "iuf":
        raise DataError(f"{path} has t of type {t.dtype}; give numbers")
    if t.dtype.kind == "f":
        if unit is None:
            raise DataError(
                f"{path} has t of type {t.dtype}, which may be any unit; say it, as "
                "--set time_unit=s"
            )
        if not np.isfinite(t).all():
            raise DataError(f"{path} has a t that is NaN or infinite; give finite times")
    if unit in (None, "us") and t.dtype.kind != "f":
        return t.astype(np.int64)
    scaled = t.astype(np.float64) * UNITS[unit or "us"]
    if len(scaled) and np.abs(scaled).max() >= 2**53:
        raise DataError(f"{path} has a t of {t[np.abs(scaled).argmax()]} {unit}; is that the unit?")
    return np.rint(scaled).astype(np.int64)


def _polarity(path: Path, p: NDArray[Any]) -> NDArray[Any]:
    """Return 1 for ON and 0 for OFF, which many files have as -1."""
    values = set(np.unique(p).tolist())
    if not (values <= {0, 1} or values <= {-1, 1}):
        raise DataError(
            f"{path} has p of {sorted(values)[:5]}; give 0 (or -1) for OFF and 1 for ON"
        )
    return p > 0


def _sensor_of(
    samples: Sequence[Sample], read: Callable[..., Events]
) -> tuple[tuple[int, int], str]:
    def extent(path: str) -> tuple[int, int]:
        events = read(path)
        return int(events["y"].max()) + 1, int(events["x"].max()) + 1

    sizes: list[Any] = read_each([one.path for one in samples], extent)
    height, width = map(max, zip(*sizes, strict=True))
    return (height, width), "as the events need; --set sensor=[H,W] says another"


def _frames(
    samples: Sequence[Sample],
    read: Callable[..., Events],
    sensor: tuple[int, int],
    settings: FrameSettings,
    options: dict[str, Any],
) -> CachedFrames:
    entries = [Recording(Path(one.path), one.label) for one in samples]
    source = Recordings(entries, partial(read, sensor=sensor))
    key = {
        "set": "events",
        "settings": asdict(settings),
        "sensor": list(sensor),
        "source": source.digest(),
        "folders": str(Path(samples[0].path).parent),
        **options,
    }

    late = LateEvents()

    def make() -> Iterator[NDArray[np.float32]]:
        for events in source:
            late.add(events["t"], settings)
            yield frames(events, sensor, settings)

    types = TYPES[settings.size is not None]
    folder = cache_folder() / "own-events"
    return cached_frames(folder, key, len(samples), make, types, late)


def _spikes(
    paths: Sequence[str], read: Callable[..., Events], sensor: tuple[int, int]
) -> SpikeBatch:
    height, width = sensor
    found: list[Any] = read_each(list(paths), partial(read, sensor=sensor))
    return SpikeBatch.from_events(found, (width, height, 2))
