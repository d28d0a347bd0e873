"""NumPy's .npy and .npz files, read within limits and without pickles."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from threefactor.data.files.archives import members
from threefactor.data.files.source import ADVICE, LARGEST, Source
from threefactor.errors import DataError

__all__ = ["read_npy", "read_npz"]

LONGEST_HEADER = 10_000


def read_npy(path: Path, limit: int = LARGEST) -> NDArray[Any]:
    """Read one array.

    Args:
        path: an .npy file.
        limit: the most bytes that it may have.

    Raises:
        DataError: the file is absent, damaged, too large, or holds objects.
    """
    return _array(bytes(Source(path).read(limit)), str(path))


def read_npz(path: Path, limit: int = 8 * LARGEST) -> dict[str, NDArray[Any]]:
    """Read all arrays of an .npz file, by their names.

    Raises:
        DataError: the file is absent, damaged, too large, or holds objects or something else than
            arrays.
    """
    found = {}
    for name, chunks in members(path, limit):
        body = b"".join(chunks)
        if name.suffix != ".npy":
            raise DataError(f"{path} holds {str(name)!r}; expected arrays alone, NAME.npy")
        found[str(name.with_suffix(""))] = _array(body, f"{path}, {str(name)!r},")
    if not found:
        raise DataError(f"{path} holds no arrays; {ADVICE}")
    return found


def _array(body: bytes, where: str) -> NDArray[Any]:
    stream = io.BytesIO(body)
    try:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, by_column, kind = read(stream, max_header_size=LONGEST_HEADER)
    except KeyError as error:
        raise DataError(f"{where} is of NumPy's format {error}, which is not known") from error
    except Exception as error:  # what damage makes NumPy's parser raise is of many kinds
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{where} is a damaged .npy file, or none ({why}); {ADVICE}") from error
    if kind.hasobject:
        raise DataError(
            f"{where} holds Python objects, which only pickle reads, and a pickle may run code; "
            "save it as a plain array of numbers"
        )
    size, left = math.prod(shape) * kind.itemsize, len(body) - stream.tell()
    if size != left or any(length < 0 for length in shape):
        raise DataError(
            f"{where} has {left:,} bytes of data, and its header says {size:,} ({kind}, {shape}); "
            f"{ADVICE}"
        )
    found = np.frombuffer(body, kind, offset=stream.tell()) if size else np.empty(0, kind)
    return found.reshape(shape, order="F" if by_column else "C")
