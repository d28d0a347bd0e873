"""Read the AEDAT files of two data sets: version 2 of DVS-CIFAR10, 3.1 of DVS128 Gesture."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from threefactor.data.arguments import given_path
from threefactor.data.files.source import ADVICE, Source, guess
from threefactor.data.formats.events import LARGEST_RECORDING, Events, make_events
from threefactor.errors import DataError

__all__ = ["read_aedat2", "read_aedat3"]

SENSOR = (128, 128)
EVENT_BYTES = 8
LONGEST_HEADER = 1 << 20
PACKET = struct.Struct("<hhiiiiii")  # type, source, size, ts offset, overflow, capacity, number...
POLARITY = 1
END = b"#!END-HEADER\r\n"


def read_aedat2(path: str | Path, sort: bool = False) -> Events:
    """Read a recording of a DVS128 camera in AEDAT 2.0, as DVS-CIFAR10 is published.

    After header lines that begin with #, an event is two big-endian words of 32 bits: address and
    microseconds. In the address, bit 0 is the polarity (0 is ON), bits 1 to 7 count the columns
    and bits 8 to 14 the rows of the camera. Events with bit 15 are marks of the camera, and are
    left out. The recordings lie on their side; as is customary, x = 127 - row and
    y = 127 - column, so that the pictures stand upright.

    Args:
        path: an .aedat file.
        sort: sort events that run backwards in time; otherwise they are an error.

    Returns:
        (N,) events with the fields x, y, t (microseconds), p; see `EVENT`.

    Raises:
        DataError: the file is absent, of another kind, cut short or without events; or an event
            lies outside the sensor or runs backwards in time. Names the file and the offset.

    Source: iniVation, AEDAT file formats, section 2.0; the SpikingJelly project for the turn.
    """
    path = given_path(path)
    body = _body(path, b"#!AER-DAT2")
    start = _lines(path, body)
    whole, rest = divmod(len(body) - start, EVENT_BYTES)
    if rest:
        raise _cut(path, f"{whole} events of 8 bytes, {rest} bytes are", len(body) - rest)
    table = np.frombuffer(body, ">u4", offset=start).reshape(-1, 2).astype(np.int64)
    index = np.flatnonzero(table[:, 0] >> 15 != 1)
    address, t = table[index].T
    # A bit above 15 makes the row larger than 127, outside the sensor.
    row, column = address >> 8, address >> 1 & 0x7F
    return make_events(
        *(path, 127 - row, 127 - column, t, address & 1 == 0),
        sensor_size=SENSOR,
        offset=lambda event: start + EVENT_BYTES * int(index[event]),
        sort=sort,
    )


def read_aedat3(
    path: str | Path, sensor_size: tuple[int, int] = SENSOR, sort: bool = False
) -> Events:
    """Read a recording in AEDAT 3.1, as DVS128 Gesture is published.

    After a header of lines that ends in #!END-HEADER come packets, all little-endian: 28 bytes
    that tell type, size and number of their events, then these. Of type 1, polarity, an event is
    two words of 32 bits: in the first, bit 0 is set if the event is valid, bit 1 if it is ON,
    bits 2 to 16 are y and 17 to 31 x; the second is microseconds, to which the packet's overflow
    adds multiples of 2^31. Other types, and events marked as not valid, are left out.

    Args:
        path: an .aedat file.
        sensor_size: (height, width).
        sort: sort events that run backwards in time; otherwise they are an error.

    Returns:
        (N,) events with the fields x, y, t (microseconds), p; see `EVENT`.

    Raises:
        DataError: the file is absent, of another kind, cut short, without events, or has a packet
            of impossible sizes; or an event lies outside the sensor or runs backwards in time.
            Names the file and the offset.

    Source: iniVation, AEDAT file formats, section 3.1, and libcaer's events/common.h.
    """
    path = given_path(path)
    body = _body(path, b"#!AER-DAT3.1")
    start = body.find(END) + len(END)
    if start < len(END):
        raise DataError(f"{path} has no line {END.decode().strip()}; {ADVICE}")
    packets = list(_packets(path, body, start))
    words = [_words(body, packet) for packet in packets]
    address, t, offsets = np.concatenate([np.empty((3, 0), dtype=np.int64), *words], axis=1)
    return make_events(
        *(path, address >> 17, address >> 2 & 0x7FFF, t, address >> 1 & 1),
        sensor_size=sensor_size,
        offset=lambda event: int(offsets[event]),
        sort=sort,
    )


def _body(path: Path, magic: bytes) -> bytearray:
    body = Source(path).read(LARGEST_RECORDING)
    if not body.startswith(magic):
        found = bytes(body[: len(magic)])
        raise DataError(
            f"{path} is not such an AEDAT file{guess(found)}: it begins with "
            f"{found!r} at offset 0, expected {magic!r}; {ADVICE}"
        )
    return body


def _lines(path: Path, body: bytearray) -> int:
    """Return where the lines that begin with # end."""
    start = 0
    while body[start : start + 1] == b"#":
        start = body.find(b"\n", start) + 1 or len(body)
        if start > LONGEST_HEADER:
            raise DataError(f"{path} has a header of more than {LONGEST_HEADER:,} bytes; {ADVICE}")
    return start


class _Packet(NamedTuple):
    offset: int  # of its first event
    number: int
    overflow: int


def _packets(path: Path, body: bytearray, start: int) -> Iterator[_Packet]:
    """Go through the packets and yield those of polarity events."""
    while start < len(body):
        first = start + PACKET.size
        if first > len(body):
            raise _cut(path, f"whole packets, {len(body) - start} bytes are", start)
        kind, _, size, _, overflow, capacity, number, valid = PACKET.unpack_from(body, start)
        possible = size > 0 and 0 <= valid <= number <= capacity and overflow >= 0
        if not possible or (kind == POLARITY and size != EVENT_BYTES):
            raise DataError(
                f"{path}: the packet at offset {start} has type {kind}, events of {size} bytes, "
                f"capacity {capacity}, number {number}, of which {valid} valid; expected valid <= "
                f"number <= capacity, and 8 bytes for events of type 1; {ADVICE}"
            )
        start = first + capacity * size
        if start > len(body):
            missing = start - len(body)
            raise DataError(
                f"{path} is cut short: {missing} bytes of the packet at offset "
                f"{first - PACKET.size} are missing; {ADVICE}"
            )
        if kind == POLARITY:
            yield _Packet(first, number, overflow)


def _words(body: bytearray, packet: _Packet) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return addresses, microseconds and offsets, (3, n), of the valid events of a packet."""
    table = np.frombuffer(body, "<u4", 2 * packet.number, packet.offset).reshape(-1, 2)
    offsets = packet.offset + EVENT_BYTES * np.arange(packet.number)
    times = table[:, 1].astype(np.int64) + (packet.overflow << 31)
    words = np.stack([table[:, 0].astype(np.int64), times, offsets])
    return words[:, words[0] & 1 == 1]


def _cut(path: Path, after: str, offset: int) -> DataError:
    return DataError(f"{path} is cut short: after {after} left at offset {offset}; {ADVICE}")
