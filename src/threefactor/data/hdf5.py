"""The three arrays of an HDF5 file of spikes, packed or not."""

from __future__ import annotations

import gzip
import importlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from threefactor.data.members import LIMIT, members, reading
from threefactor.data.safety import ADVICE
from threefactor.data.sources import Source, guess
from threefactor.errors import ConfigurationError, DataError

__all__ = ["read_arrays"]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK"
CHUNK = 1 << 20
# How an array of variable length is stored: its length, and where its values lie.
REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
LAYOUT = "expected spikes/times, spikes/units and labels, as in the Spiking Heidelberg Digits"


def read_arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Read the times, units and labels of a file in the layout of the SHD; see `read_shd_file`.

    Returns:
        Two arrays of N arrays each and the array of labels, all as they are in the file.

    Raises:
        ConfigurationError: h5py is not installed.
        DataError: the file is absent, damaged or of another layout.
    """
    h5py = _h5py()
    with _opened(path) as file:
        try:
            with h5py.File(file, "r") as root:
                times = _ragged(h5py, root, path, "spikes/times", file)
                units = _ragged(h5py, root, path, "spikes/units", file)
                labels = root.get("labels")
                if not isinstance(labels, h5py.Dataset):
                    raise _other_layout(root, path, "labels")
                return times, units, np.asarray(labels[()])
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path} is a damaged HDF5 file ({reason}); {ADVICE}") from error


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ConfigurationError(
            "reading HDF5 files needs h5py; install it with: pip install 'threefactor[data]'"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open the HDF5 file, which is unpacked in memory if need be."""
    with Source(path).open() as stream:
        start = stream.read(len(HDF5_MAGIC))
        stream.seek(0)
        if start.startswith(ZIP_MAGIC):
            yield io.BytesIO(_zipped(path))
            return
        if start != HDF5_MAGIC:
            raise DataError(
                f"{path} is no HDF5 file{guess(start)}: it begins with "
                f"{start.hex(' ') or 'nothing'}, expected {HDF5_MAGIC.hex(' ')}; {ADVICE}"
            )
        # Many small reads follow, back and forth, which gzip would be slow at.
        yield io.BytesIO(_unpacked(stream, path)) if isinstance(stream, gzip.GzipFile) else stream


def _zipped(path: Path) -> bytes:
    with reading(path, writes=False):
        found = [stream.read() for name, stream in members(path) if name.suffix == ".h5"]
    if len(found) != 1:
        raise DataError(f"{path} holds {len(found)} files that end in .h5; expected one")
    return found[0]


def _unpacked(stream: gzip.GzipFile, path: Path) -> bytearray:
    payload = bytearray()
    while chunk := stream.read(CHUNK):
        payload += chunk
        if len(payload) > LIMIT:
            raise DataError(
                f"{path} unpacks to more than {LIMIT:,} bytes; is it what it should be?"
            )
    return payload


def _ragged(h5py: Any, root: Any, path: Path, name: str, file: IO[bytes]) -> NDArray[Any]:
    found = root.get(name)
    if not isinstance(found, h5py.Dataset):
        raise _other_layout(root, path, name)
    if h5py.check_vlen_dtype(found.dtype) is None or found.ndim != 1:
        raise DataError(
            f"{path}: {name} has the type {found.dtype} and the shape {found.shape}; "
            f"expected one array of variable length per sample; {LAYOUT}"
        )
    _check_lengths(found, h5py.check_vlen_dtype(found.dtype).itemsize, path, file)
    return np.asarray(found[()])


def _check_lengths(found: Any, itemsize: int, path: Path, file: IO[bytes]) -> None:
    """Refuse lengths beyond the file's, for which HDF5 would take memory before it looks."""
    size = file.seek(0, io.SEEK_END)
    for offset, count in _stored(found):
        file.seek(offset)
        table = file.read(min(count, size))
        whole = len(table) // REFERENCE.itemsize
        lengths = np.frombuffer(table, REFERENCE, whole)["length"]
        taken = int(lengths.sum(dtype=np.int64)) * itemsize
        if taken > size:
            raise DataError(
                f"{path} is a damaged HDF5 file: the arrays in {found.name} would take {taken:,} "
                f"bytes, but the file has {size:,}; {ADVICE}"
            )


def _stored(found: Any) -> Iterator[tuple[int, int]]:
    """Yield offset and bytes of each stretch of references, unless compressed with a checksum."""
    if found.chunks is None:
        offset = found.id.get_offset()
        if offset is not None:
            yield offset, found.id.get_storage_size()
    elif found.id.get_create_plist().get_nfilters() == 0:
        for number in range(found.id.get_num_chunks()):
            chunk = found.id.get_chunk_info(number)
            yield chunk.byte_offset, chunk.size


def _other_layout(root: Any, path: Path, name: str) -> DataError:
    return DataError(f"{path} has no {name}, but {', '.join(root) or 'nothing'}; {LAYOUT}")
