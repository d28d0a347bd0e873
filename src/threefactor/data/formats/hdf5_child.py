"""A process that reads the arrays of an HDF5 file and writes them as plain ones, within limits.

Usage: python -I -S hdf5_child.py FILE FOLDER SECONDS BYTES PLACES_OF_MODULES...

It imports h5py and NumPy and nothing of this library, so that it starts at once. h5py does all the
reading. HDF5 offers much that a data set does not need and that reads other files or takes any
amount of memory: links, external and virtual storage, filters from anywhere, huge shapes. All of it
is refused before it is read. Damage that these checks miss ends at the limits of this process.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

REFUSED, NO_LIBRARY = 3, 4  # codes at the end; the reason is in the file "refused"

MOST_SAMPLES = 1_000_000
MOST_IN_CHUNK = 64 << 20  # bytes
AT_ONCE = 16  # samples, each of which may claim to have as many bytes as the file
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
    """Read the file; write its labels, times and units into the folder, and their lengths.

    Raises:
        RefusedError: it has another layout, or something that is not read.
    """
    import h5py
    import numpy as np

    with h5py.File(path, "r", rdcc_nbytes=MOST_IN_CHUNK) as root:
        columns = {}
        for name in ("times", "units"):
            found = dataset(h5py, root, f"spikes/{name}")
            base = h5py.check_vlen_dtype(found.dtype)
            if not isinstance(base, np.dtype) or base.kind not in "iuf" or found.ndim != 1:
                raise RefusedError(
                    f": spikes/{name} has the type {found.dtype} and the shape {found.shape}; "
                    f"expected one array of variable length per sample; {LAYOUT}"
                )
            columns[name] = found, base
        labels = dataset(h5py, root, "labels")
        if labels.dtype.kind not in "iuf":
            raise RefusedError(f" has labels of type {labels.dtype}; expected integers")
        arrays = {"labels": np.asarray(labels[()])}
        for name, column in columns.items():
            values, lengths = ragged(np, *column, os.path.getsize(path))
            arrays |= {name: values, f"{name}_lengths": lengths}
        for name, array in arrays.items():
            np.save(os.path.join(folder, f"{name}.npy"), array)


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


def ragged(np: Any, found: Any, base: Any, size: int) -> tuple[Any, Any]:
    """Return the values of all samples, one after the other, and how many each has.

    Together they cannot have more bytes than the file, unless they share them.
    """
    rows, total = [np.empty(0, base)], 0
    for start in range(0, len(found), AT_ONCE):
        # h5py gives rows of the file's byte order, but their type says that of the machine.
        batch = [np.asarray(row).view(base) for row in found[start : start + AT_ONCE]]
        rows += batch
        total += sum(row.nbytes for row in batch)
        if total > size:
            raise RefusedError(
                f" is a damaged HDF5 file: the arrays in {found.name} would take {total:,} bytes, "
                f"but the file has {size:,}"
            )
    return np.concatenate(rows), np.array([len(row) for row in rows[1:]], np.int64)


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
