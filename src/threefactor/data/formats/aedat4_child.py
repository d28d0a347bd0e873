"""The process that reads an AEDAT 4 file: the decoder ends its process at some damaged files.

Run as `python -I -S aedat4_child.py FILE OUT MOST SECONDS PATH...`. It writes the events as a .npy
file to OUT, and ends with the code 0; or with `NO_LIBRARY`; or it writes a reason to stdout and
ends with `REFUSED`. It imports nothing of threefactor, so that it starts quickly.
"""

from __future__ import annotations

import sys
from typing import Any

NO_LIBRARY, REFUSED = 3, 4


def main(file: str, out: str, most: int, seconds: int) -> int:
    """Read a file; return the code of the process."""
    try:
        import aedat
        import numpy as np
    except ImportError:
        return NO_LIBRARY
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    except (ImportError, OSError, ValueError):  # the parent waits for so long in any case
        pass
    parts: list[Any] = []
    count = 0
    try:
        decoder = aedat.Decoder(file)
        streams = [n for n, one in decoder.id_to_stream().items() if one["type"] == "events"]
        if len(streams) != 1:
            return _refuse(f"has {len(streams)} streams of events, and one is expected")
        for packet in decoder:
            if packet["stream_id"] == streams[0]:
                parts.append(packet["events"])
                count += len(parts[-1])
            if count > most:
                return _refuse(f"has more than {most:,} events; cut it into parts")
    except BaseException as problem:  # what damage makes the decoder raise has no common class
        return _refuse(f"cannot be read as AEDAT 4 ({problem})")
    if not count:
        return _refuse("holds no events")
    found = np.concatenate(parts)
    columns = [("x", "<i8"), ("y", "<i8"), ("t", "<u8"), ("p", "?")]
    events = np.empty(count, columns)
    events["x"], events["y"], events["t"] = found["x"], found["y"], found["t"]
    events["p"] = found["on"]
    np.save(out, events)
    return 0


def _refuse(reason: str) -> int:
    sys.stdout.write(reason)
    return REFUSED


if __name__ == "__main__":
    sys.path[:] = sys.argv[5:] + sys.path
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
