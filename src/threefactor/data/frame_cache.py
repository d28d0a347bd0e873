"""Arrays that are made once and then mapped into memory: whole, or not there."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from threefactor.data.safety import open_file
from threefactor.errors import DataError

__all__ = ["CachedFrames", "cached_frames"]

VERSION = 2  # of the layout; others are made anew
PREFIX = ".making-"
LONGEST_ABOUT = 1 << 20  # bytes
Sequences = Callable[[], Iterator[NDArray[np.float32]]]


class CachedFrames(NamedTuple):
    """Frames of N samples, (N, T, C, H, W), read-only and mapped, with mean and deviation."""

    array: NDArray[Any]
    mean: float
    std: float


def cached_frames(
    folder: Path, key: dict[str, Any], samples: int, make: Sequences, types: Sequence[str]
) -> CachedFrames:
    """Return the frames that `key` describes, made now if they are not there, whole and valid.

    They lie in a folder named by the key, as frames.npy and about.json. It is written under
    another name and gets its own when all is there. What does not fit the key or the length that
    it should have is removed and made anew.

    Args:
        folder: where the folders of all keys lie; made if it is not there.
        key: what the frames depend on, as JSON takes it: settings and a digest of the source.
        samples: N.
        make: gives the N arrays (T, C, H, W) in order.
        types: NumPy's names of types, the smallest first; the first that holds all values is
            taken.

    Raises:
        DataError: the folder cannot be written to.
    """
    key = json.loads(json.dumps({**key, "version": VERSION, "samples": samples}))
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    place = folder / digest
    found = _opened(place, key)
    if found is None:
        try:
            _made(place, key, samples, make, types)
        except OSError as error:
            raise DataError(
                f"cannot keep frames in {folder}: {error.strerror or error}; free some space, set "
                "its rights, or name another folder with cache_dir"
            ) from error
        found = _opened(place, key)
        assert found is not None, "what was just made is valid"
    return found


def _opened(place: Path, key: dict[str, Any]) -> CachedFrames | None:
    """Map what is there; None if it is absent, damaged or of another key."""
    try:
        with open_file(place / "about.json") as file:
            about = json.loads(file.read(LONGEST_ABOUT))
        mean, std = float(about["mean"]), float(about["std"])
        with open_file(place / "frames.npy"):
            size = os.path.getsize(place / "frames.npy")
        if about["key"] != key or about["bytes"] != size or not math.isfinite(mean + std):
            return None
        array = np.load(place / "frames.npy", mmap_mode="r")
        if [*array.shape] != about["shape"] or array.dtype.str != about["type"]:
            return None
        return CachedFrames(array, mean, std)
    except Exception:  # NumPy and json raise errors of many kinds
        return None


def _made(
    place: Path, key: dict[str, Any], samples: int, make: Sequences, types: Sequence[str]
) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=place.parent) as temporary:
        whole = Path(temporary) / "whole"
        for kind in types:
            whole.mkdir()
            about = _written(whole / "frames.npy", samples, make(), np.dtype(kind))
            if about is not None:
                break
            shutil.rmtree(whole)
        else:
            raise DataError(f"a frame holds values that {types[-1]} does not")
        about |= {"key": key, "bytes": os.path.getsize(whole / "frames.npy")}
        with (whole / "about.json").open("x") as file:
            json.dump(about, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.rename(whole, place)
        except OSError:
            if _opened(place, key) is None:  # else another process was faster
                shutil.rmtree(place)
                os.rename(whole, place)


def _written(
    path: Path, samples: int, sequences: Iterator[NDArray[np.float32]], kind: np.dtype[Any]
) -> dict[str, Any] | None:
    """Write the array and return what is known of it; None if `kind` does not hold a value."""
    high = np.finfo(kind).max if kind.kind == "f" else np.iinfo(kind).max
    total = squares = count = 0.0
    # Not through a map of memory: a full disk would end the process there.
    with path.open("xb") as file:
        for sequence in sequences:
            if not count:
                shape = (samples, *sequence.shape)
                head = {"descr": kind.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, head)
            if sequence.max() > high:
                return None
            file.write(sequence.astype(kind).data)
            total += float(sequence.sum(dtype=np.float64))
            squares += float(np.square(sequence, dtype=np.float64).sum())
            count += sequence.size
        file.flush()
        os.fsync(file.fileno())
    mean = total / count
    std = max(squares / count - mean**2, 0.0) ** 0.5
    return {"shape": shape, "type": kind.str, "mean": mean, "std": std}
