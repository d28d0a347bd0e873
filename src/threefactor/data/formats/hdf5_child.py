"""A process that reads the arrays of an HDF5 file and writes them as plain ones, within limits.

Usage: python -I -S hdf5_child.py FILE FOLDER SECONDS BYTES PLACES_OF_MODULES...

It imports h5py and NumPy and nothing of this library, so that it starts at once. HDF5 offers much
that a data set does not need and that reads other files or takes any amount of memory: links,
external and virtual storage, filters from anywhere, huge shapes. All of it is refused before it is
read.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from typing import Any

REFUSED, NO_LIBRARY = 3, 4  # codes at the end; the reason is in the file "refused"

MOST_SAMPLES = 1_000_000
MOST_IN_CHUNK = 64 << 20  # bytes
AT_ONCE = 256  # samples
FILTERS = (1, 2, 3)  # deflate, shuffle, checksums: HDF5's own
LAYOUT = "expected spikes/times, spikes/units and labels, as in the Spiking Heidelberg Digits"


class RefusedError(Exception):
    """What is wrong with the file, to be said after its name."""


def limit(seconds: int, size: int) -> None:
    """Keep this process from taking more processor time or memory, where there are limits."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = math.ceil(used.ru_utime + used.ru_stime) + seconds
    for kind, value in (("CPU", end), ("AS", size), ("FSIZE", size), ("CORE", 0)):
        _, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (value, hard))


def read(path: str, folder: str) -> None:
    """Read the file and write times, units and labels into the folder.

    Raises:
        RefusedError: it has another layout, or something that is not read.
    """
    import h5py
    import numpy as np

    with h5py.File(path, "r", rdcc_nbytes=MOST_IN_CHUNK) as root:
        columns, types = {}, []
        for name in ("times", "units"):
            columns[name] = found = dataset(h5py, root, f"spikes/{name}")
            base = h5py.check_vlen_dtype(found.dtype)
            if not isinstance(base, np.dtype) or base.kind not in "iuf" or found.ndim != 1:
                raise RefusedError(
                    f": spikes/{name} has the type {found.dtype} and the shape {found.shape}; "
                    f"expected one array of variable length per sample; {LAYOUT}"
                )
            types.append(base.str)
        labels = dataset(h5py, root, "labels")
        if labels.dtype.kind not in "iuf":
            raise RefusedError(f" has labels of type {labels.dtype}; expected integers")
        for name, found in columns.items():
            write_ragged(np, found, os.path.join(folder, name), path)
        np.save(os.path.join(folder, "labels.npy"), np.asarray(labels[()]))
        np.save(os.path.join(folder, "types.npy"), np.array(types))


def dataset(h5py: Any, root: Any, name: str) -> Any:
    """Return an array that lies in this file as a whole and has a modest size."""
    place, parts = root, name.split("/")
    for part in parts:
        link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
        if link is None:
            break
        if not isinstance(link, h5py.HardLink):
            raise RefusedError(
                f" has {name} by way of a link, maybe to another file; expected it there"
            )
        place = place[part]
    else:
        if isinstance(place, h5py.Dataset):
            check_storage(place, name)
            return place
    listed = [each for each, _ in zip(root, range(10), strict=False)]
    raise RefusedError(f" has no {name}, but {', '.join(listed) or 'nothing'}; {LAYOUT}")


def check_storage(found: Any, name: str) -> None:
    """Refuse data from other files, filters from anywhere, and sizes without end."""
    if found.is_virtual or found.external:
        kind = "virtual" if found.is_virtual else "external"
        raise RefusedError(
            f" has {name} in {kind} storage, that is in other files; expected it there"
        )
    if found.shape is None or math.prod(found.shape) > MOST_SAMPLES:
        raise RefusedError(
            f" has {name} of the shape {found.shape}; expected one entry per sample, "
            f"{MOST_SAMPLES:,} at most"
        )
    plan = found.id.get_create_plist()
    filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    if not set(filters) <= set(FILTERS):
        raise RefusedError(
            f" has {name} packed by the filters {filters}; expected some of {FILTERS}"
        )
    if found.chunks and math.prod(found.chunks) * found.id.get_type().get_size() > MOST_IN_CHUNK:
        raise RefusedError(
            f" has {name} in chunks of the shape {found.chunks}; expected smaller ones"
        )


def write_ragged(np: Any, found: Any, target: str, path: str) -> None:
    """Write the values of all samples, and their numbers, which together fit into the file."""
    size = os.path.getsize(path)
    check_lengths(np, found, path, size)
    total = 0
    with open(f"{target}.values", "xb") as values, open(f"{target}.lengths", "xb") as lengths:
        for start in range(0, len(found), AT_ONCE):
            rows = [np.asarray(row) for row in found[start : start + AT_ONCE]]
            total += sum(row.nbytes for row in rows)
            if total > size:
                raise too_long(found, total, size)
            values.write(b"".join(row.tobytes() for row in rows))
            lengths.write(np.array([len(row) for row in rows], np.int64).tobytes())


def check_lengths(np: Any, found: Any, path: str, size: int) -> None:
    """Refuse lengths beyond the file's, for which HDF5 would take memory before it looks."""
    # How an array of variable length is stored: its length, and where its values lie.
    reference = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
    itemsize = found.id.get_type().get_super().get_size()
    taken = 0
    with open(path, "rb") as file:
        for offset, count in stored(found):
            file.seek(offset)
            table = file.read(min(count, size))
            whole = len(table) // reference.itemsize
            lengths = np.frombuffer(table, reference, whole)["length"]
            taken += int(lengths.sum(dtype=np.int64)) * itemsize
            if taken > size:
                raise too_long(found, taken, size)


def too_long(found: Any, taken: int, size: int) -> RefusedError:
    """Say that arrays have more bytes than there are."""
    return RefusedError(
        f" is a damaged HDF5 file: the arrays in {found.name} would take {taken:,} bytes, "
        f"but the file has {size:,}"
    )


def stored(found: Any) -> Iterator[tuple[int, int]]:
    """Yield offset and bytes of each stretch of references, unless packed."""
    if found.chunks is None:
        offset = found.id.get_offset()
        if offset is not None:
            yield offset, found.id.get_storage_size()
    elif found.id.get_create_plist().get_nfilters() == 0:
        for number in range(found.id.get_num_chunks()):
            chunk = found.id.get_chunk_info(number)
            yield chunk.byte_offset, chunk.size


def run(path: str, folder: str) -> int:
    """Read a file; return the code of this process at its end."""
    try:
        read(path, folder)
    except RefusedError as error:
        reason = str(error)
    except Exception as error:  # h5py's errors are of many kinds
        text = " ".join(str(error).split()) or type(error).__name__
        reason = f" is a damaged HDF5 file ({text[:500]})"
    else:
        return 0
    with open(os.path.join(folder, "refused"), "w", encoding="utf-8", errors="replace") as file:
        file.write(reason)
    return REFUSED


def main() -> int:
    """Run the process; return its code at the end."""
    path, folder, seconds, size, *places = sys.argv[1:]
    sys.path[:] = places
    try:
        import h5py  # noqa: F401
    except ImportError:
        return NO_LIBRARY
    limit(int(seconds), int(size))
    return run(path, folder)


if __name__ == "__main__":
    os._exit(main())  # without the end of the interpreter, where HDF5 closes what may be damaged
