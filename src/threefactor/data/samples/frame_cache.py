"""Frames that are made once, kept on disk and mapped into memory."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from threefactor.data.encode.framing import LateEvents
from threefactor.data.files.source import open_file
from threefactor.errors import DataError

__all__ = ["CachedFrames", "cached_frames"]

VERSION = 4  # of the layout; others are made anew
PREFIX = ".making-"
LONGEST_ABOUT = 1 << 20  # bytes
CHUNK = 1 << 20
MakeSamples = Callable[[], Iterator[NDArray[Any]]]


class CachedFrames(NamedTuple):
    """Frames of N samples, (N, T, C, H, W), read-only and mapped, with mean and deviation.

    `late` are the events that are in no frame, as far as their maker counted them.
    """

    array: NDArray[Any]
    mean: float
    std: float
    late: LateEvents


def cached_frames(
    folder: Path,
    key: dict[str, Any],
    samples: int,
    make: MakeSamples,
    types: Sequence[str],
    late: LateEvents | None = None,
) -> CachedFrames:
    """Return the frames that `key` describes; they are made if they are not there, or damaged.

    They lie in a folder named by the key, as frames.npy and about.json. The folder is written under
    another name and gets its own when it is complete. It is removed and made anew if it does not
    fit the key, or if the length or the CRC-32 of frames.npy is not that of the frames as they
    were made.

    Args:
        folder: where the folders of all keys lie; made if it is not there.
        key: what the frames depend on, as JSON takes it: settings and a digest of the source.
        samples: N.
        make: gives the N arrays (T, C, H, W) in order.
        types: NumPy's names of types, the smallest first; the first that holds all values is
            taken.
        late: to which `make` adds what it leaves out.

    Raises:
        DataError: the folder cannot be written to, or the frames cannot be mapped.
    """
    key = json.loads(json.dumps({**key, "version": VERSION, "samples": samples}))
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    place = folder / digest
    found = _opened(place, key)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{digest}.lock"):  # another process may be making the same
            found = _opened(place, key)
            if found is None:
                _made(place, key, samples, make, types, late or LateEvents())
    except (OSError, NotImplementedError) as error:
        raise DataError(
            f"cannot keep samples in {folder}: {getattr(error, 'strerror', None) or error}; free "
            "some space, set its rights, or name another folder: cache_dir in Python, or the "
            "variable XDG_CACHE_HOME"
        ) from error
    found = found or _opened(place, key)
    if found is None:
        raise DataError(f"the frames in {place} cannot be mapped into memory; close other programs")
    return found


def _opened(place: Path, key: dict[str, Any]) -> CachedFrames | None:
    """Map what is there; None if it is absent, damaged or of another key."""
    try:
        with open_file(place / "about.json") as file:
            about = json.loads(file.read(LONGEST_ABOUT))
        mean, std = float(about["mean"]), float(about["std"])
        late = LateEvents(int(about["late"]), int(about["events"]))
        if about["key"] != key or not math.isfinite(mean + std):
            return None
        with open_file(place / "frames.npy") as file:
            if about["bytes"] != os.path.getsize(place / "frames.npy"):
                return None
            crc = 0
            while part := file.read(CHUNK):
                crc = zlib.crc32(part, crc)
        if about["crc32"] != crc:
            return None
        array = np.load(place / "frames.npy", mmap_mode="r")
        if [*array.shape] != about["shape"] or array.dtype.str != about["type"]:
            return None
        return CachedFrames(array, mean, std, late)
    except Exception:  # NumPy and json raise errors of many kinds
        return None


def _made(
    place: Path,
    key: dict[str, Any],
    samples: int,
    make: MakeSamples,
    types: Sequence[str],
    late: LateEvents,
) -> None:
    whole = place.with_name(PREFIX + place.name)
    shutil.rmtree(whole, ignore_errors=True)  # of a process that was killed
    try:
        for kind in types:
            whole.mkdir()
            late.late = late.of = 0
            about = _written(whole / "frames.npy", samples, make(), np.dtype(kind))
            if about is not None:
                break
            shutil.rmtree(whole)
        else:
            raise DataError(f"a frame holds values that {types[-1]} does not")
        size = os.path.getsize(whole / "frames.npy")
        with open(whole / "about.json", "w") as file:
            about.update(key=key, bytes=size, late=late.late, events=late.of)
            json.dump(about, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            shutil.rmtree(place)
        os.rename(whole, place)
    finally:
        shutil.rmtree(whole, ignore_errors=True)


def _written(
    path: Path, samples: int, sequences: Iterator[NDArray[Any]], kind: np.dtype[Any]
) -> dict[str, Any] | None:
    """Write the array and return what is known of it; None if `kind` does not hold a value.

    It is mapped only when all of it is on the disk: a full disk is an error of writing, whereas it
    ends a process that fills a mapped file.
    """
    high = np.finfo(kind).max if kind.kind == "f" else np.iinfo(kind).max
    total = squares = count = 0.0
    crc = 0
    shape: tuple[int, ...] | None = None
    with open(path, "wb") as file:
        for sequence in sequences:
            if shape is None:
                shape = (samples, *sequence.shape)
                about = {"descr": kind.str, "fortran_order": False, "shape": shape}
                header = io.BytesIO()
                np.lib.format.write_array_header_1_0(header, about)
                file.write(header.getvalue())
                crc = zlib.crc32(header.getvalue())
            assert sequence.shape == shape[1:], "all sequences have one length"
            if sequence.max() > high:
                return None
            values = np.ascontiguousarray(sequence, kind).data
            file.write(values)
            crc = zlib.crc32(values, crc)
            total += float(sequence.sum(dtype=np.float64))
            squares += float(np.square(sequence, dtype=np.float64).sum())
            count += sequence.size
        assert shape is not None and count == math.prod(shape), "no sequence is missing"
        file.flush()
        os.fsync(file.fileno())
    mean = total / count
    std = max(squares / count - mean**2, 0.0) ** 0.5
    return {"shape": shape, "type": kind.str, "crc32": crc, "mean": mean, "std": std}
