"""Arrays in .npz and .safetensors files, of which only the headers are read."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from threefactor.data.files.rows import FileRows
from threefactor.data.files.source import ADVICE, open_file
from threefactor.data.formats.npy import LONGEST_HEADER
from threefactor.errors import DataError

__all__ = ["unread"]

MOST_HEADER = 1 << 24
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member of a zip archive: its mark, two lengths
TYPES = {
    "BOOL": "?",
    **{f"{kind}{bits}": f"<{kind.lower()}{bits // 8}" for kind in "IUF" for bits in (16, 32, 64)},
    "I8": "i1",
    "U8": "u1",
}
"""NumPy's names of the types of .safetensors."""


def unread(path: Path) -> dict[str, FileRows]:
    """Return the arrays of a file, of numbers, by name.

    Raises:
        DataError: the file is absent or damaged; or an array is compressed, lies column by column,
            or is not of numbers, so that its rows cannot be read one by one.
    """
    with _damage_named(path), open_file(path) as file:
        places = _npz(path, file) if path.suffix == ".npz" else _safetensors(path, file)
        found = {}
        for name, offset, shape, kind in places:
            if len(shape) < 1 or kind.kind not in "buif" or not kind.isnative:
                raise DataError(
                    f"{path}, {name!r}, has the type {kind} and the shape {shape}; expected "
                    "numbers as this machine has them, (N, ...)"
                )
            found[name] = FileRows(path, offset, tuple(shape), kind)
        return found


def _npz(path: Path, file: IO[bytes]) -> Iterator[tuple[str, int, Any, np.dtype[Any]]]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = PurePosixPath(member.filename)
            if member.compress_type != zipfile.ZIP_STORED:
                raise DataError(
                    f"{path} is compressed, so its samples cannot be read one by one; save it with "
                    "numpy.savez, or as .safetensors"
                )
            file.seek(member.header_offset)
            mark, *lengths = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
            if mark != b"PK\3\4" or name.suffix != ".npy":
                raise DataError(f"{path} holds {str(name)!r}; expected arrays alone, NAME.npy")
            start = file.seek(sum(lengths), 1)
            version = npy.read_magic(file)
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, by_column, kind = read(file, max_header_size=LONGEST_HEADER)
            if by_column and len(shape) > 1:
                raise DataError(
                    f"{path}, {str(name)!r}, lies column by column, so its samples cannot be read "
                    "one by one; save numpy.ascontiguousarray of it"
                )
            offset = file.tell()
            if kind.hasobject:
                raise DataError(f"{path}, {str(name)!r}, holds Python objects; expected numbers")
            if offset - start + int(np.prod(shape)) * kind.itemsize != member.file_size:
                raise DataError(f"{path}, {str(name)!r}, is a damaged .npy file; {ADVICE}")
            yield str(name.with_suffix("")), offset, shape, kind


def _safetensors(path: Path, file: IO[bytes]) -> Iterator[tuple[str, int, Any, np.dtype[Any]]]:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MOST_HEADER:
        raise ValueError(f"a header of {length:,} bytes")
    header = json.loads(file.read(length))
    for name, about in header.items():
        if name == "__metadata__":
            continue
        if about["dtype"] not in TYPES:
            raise DataError(
                f"{path}, {name!r}, has the type {about['dtype']}, which NumPy lacks; save it "
                "again, bfloat16 as float32"
            )
        kind, shape = np.dtype(TYPES[about["dtype"]]), tuple(map(int, about["shape"]))
        start, stop = map(int, about["data_offsets"])
        if min(start, *shape, 0) < 0 or stop - start != int(np.prod(shape)) * kind.itemsize:
            raise ValueError(f"{name!r} is of another size than its shape says")
        yield name, 8 + length + start, shape, kind


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); {ADVICE}") from error
    except Exception as error:  # what damage makes parsers raise is of many kinds
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path} is damaged ({why}); {ADVICE}") from error
