"""Read idx files, the format in which MNIST and the sets modelled on it are published."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from threefactor.data.arguments import given_path
from threefactor.data.files.source import ADVICE, LARGEST, Source, guess
from threefactor.errors import DataError

__all__ = ["read_idx", "read_idx_source"]

UNSIGNED_BYTE = 0x08
DIMENSIONS = (1, 3)
CHUNK = 1 << 20


def read_idx(path: str | Path) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, plain or gzip-compressed.

    The first bytes decide whether the file is compressed; its name does not matter. The sizes in
    the header are believed only once as many bytes have been read: memory use is bounded by
    what the file really holds, 1 GiB at most.

    Args:
        path: an idx1 file (labels) or an idx3 file (images).

    Returns:
        A writable uint8 array, (N,) for idx1 or (N, height, width) for idx3.

    Raises:
        DataError: the file is absent, unreadable, empty, damaged, or of another kind.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database", section on file formats.
    """
    path = given_path(path)
    if os.path.isdir(path):
        raise DataError(f"{path} is a directory; expected an idx file, plain or .gz")
    return read_idx_source(Source(path))


def read_idx_source(source: Source) -> NDArray[np.uint8]:
    """Read an idx file that may be a member of an archive; see `read_idx`."""
    with source.open() as stream:
        shape = _read_shape(stream, source)
        payload = _read_payload(stream, math.prod(shape), source, shape)
        return np.frombuffer(payload, dtype=np.uint8).reshape(shape)


def _read_shape(stream: IO[bytes], path: Source) -> tuple[int, ...]:
    """Read the header: two zero bytes, type code, number of dimensions, then their sizes."""
    start = stream.read(4)
    if not start:
        raise DataError(f"{path} is empty; expected an idx file; {ADVICE}")
    _check_start(start, path)
    sizes = stream.read(4 * start[3]) if len(start) == 4 else b""
    expected = 4 + 4 * start[3] if len(start) == 4 else 8
    if len(start) + len(sizes) < expected:
        raise DataError(
            f"{path} ends within its header: {len(start) + len(sizes)} bytes found, "
            f"at least {expected} expected; {ADVICE}"
        )
    shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    if 0 in shape:
        raise DataError(f"{path} holds no values: its header gives the shape {shape}; {ADVICE}")
    return shape


def _check_start(start: bytes, path: Source) -> None:
    """Refuse a first word that is not 00 00 08 01 or 00 00 08 03; a cut one may pass."""
    if start[:2] != b"\0\0"[: len(start)] or (len(start) == 4 and start[3] not in DIMENSIONS):
        raise DataError(
            f"{path} has the wrong magic number {start.hex(' ')}; expected 00 00 08 01 (labels) "
            f"or 00 00 08 03 (images), so this is not such an idx file{guess(start)}; {ADVICE}"
        )
    if len(start) > 2 and start[2] != UNSIGNED_BYTE:
        raise DataError(
            f"{path} has type code 0x{start[2]:02x}; "
            f"expected 0x{UNSIGNED_BYTE:02x}, unsigned bytes; {ADVICE}"
        )


def _read_payload(stream: IO[bytes], size: int, path: Source, shape: tuple[int, ...]) -> bytearray:
    """Read exactly `size` bytes, and to the end of the stream, which checks gzip's own sum."""
    if size > LARGEST:
        raise DataError(
            f"{path} should hold {size:,} bytes by the shape {shape} in its header; expected at "
            f"most {LARGEST:,}; {ADVICE}"
        )
    payload = bytearray()
    while len(payload) < size and (chunk := stream.read(min(CHUNK, size - len(payload)))):
        payload += chunk
    found = len(payload)
    if chunk := stream.read(CHUNK):
        found += len(chunk)
    if found != size:
        fault = "is cut short" if found < size else "is too long"
        more = " or more" if len(chunk) == CHUNK else ""
        raise DataError(
            f"{path} {fault}: {found} bytes of data{more} found, "
            f"{size} expected from the shape {shape} in its header; {ADVICE}"
        )
    return payload
