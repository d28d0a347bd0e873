"""Event files and data sets in the official layouts, written from arrays of events."""

import io
import struct
import tarfile
import zipfile

import numpy as np

from threefactor.data import DATASETS, EVENT

AEDAT2 = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# created 2016\r\n"
AEDAT3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def random_events(generator, count, size, start=0, span=300_000):
    """Events at random, in the order of time."""
    events = np.empty(count, dtype=EVENT)
    events["x"], events["y"] = generator.integers(0, size, (2, count))
    events["t"] = np.sort(generator.integers(start, start + span, count))
    events["p"] = generator.integers(0, 2, count)
    return events


def nmnist_bytes(events):
    return b"".join(
        bytes([e["x"], e["y"]]) + (int(e["p"]) << 23 | int(e["t"])).to_bytes(3, "big")
        for e in events
    )


def aedat2_bytes(events, header=AEDAT2):
    body = [header]
    for e in events:
        row, column = 127 - int(e["x"]), 127 - int(e["y"])
        address = row << 8 | column << 1 | (not e["p"])
        body.append(struct.pack(">II", address, e["t"]))
    return b"".join(body)


def packet(kind, size, overflow, body, number=None, valid=None):
    number = len(body) // size if number is None else number
    valid = number if valid is None else valid
    header = (kind, 1, size, 4, overflow, number, number, valid)
    return struct.pack("<hhiiiiii", *header) + body


def aedat3_bytes(events, header=AEDAT3, per_packet=50):
    parts = [header, packet(0, 8, 0, bytes(16))]  # special events, which are no pixels
    for overflow in np.unique(events["t"] >> 31):
        part = events[events["t"] >> 31 == overflow]
        for first in range(0, len(part), per_packet):
            words = [
                struct.pack(
                    "<Ii",
                    int(e["x"]) << 17 | int(e["y"]) << 2 | int(e["p"]) << 1 | 1,
                    int(e["t"]) & 0x7FFFFFFF,
                )
                for e in part[first : first + per_packet]
            ]
            parts.append(packet(1, 8, int(overflow), b"".join(words)))
    return b"".join(parts)


def nmnist_files(generator, train=25, test=12):
    """Relative path -> (events, bytes); labels are spread over the classes."""
    files = {}
    for part, count in (("Train", train), ("Test", test)):
        for number in range(1, count + 1):
            label = int(generator.permutation(10)[0]) if number > 10 else number - 1
            events = random_events(generator, int(generator.integers(20, 60)), 34)
            files[f"{part}/{label}/{number:05d}.bin"] = (events, nmnist_bytes(events))
    return files


def cifar10_files(generator, numbers=(1, 2, 3, 14)):
    files = {}
    for name in DATASETS["dvs-cifar10"].classes:
        for number in numbers:
            events = random_events(generator, 40, 128)
            files[f"{name}/cifar10_{name}_{number}.aedat"] = (events, aedat2_bytes(events))
    return files


def gesture_files(generator, users=("user01_led", "user02_lab"), held_out=("user24_led",)):
    """Relative path -> bytes, and by recording the samples (label, start, stop, events)."""
    files, samples = {}, {}
    for name in (*users, *held_out):
        events, rows = [], []
        for k in range(5):
            start = 1_000_000 * k + 500
            label = int(generator.integers(1, 12))
            part = random_events(generator, 60, 128, start, 800_000)
            rows.append((label, start, start + 800_000, part))
            noise = random_events(generator, 5, 128, start + 800_000, 100_000)
            events += [part, noise]
        samples[name] = rows
        table = "class,startTime_usec,endTime_usec\n" + "".join(
            f"{label},{start},{stop}\n" for label, start, stop, _ in rows
        )
        files[f"DvsGesture/{name}.aedat"] = aedat3_bytes(np.concatenate(events))
        files[f"DvsGesture/{name}_labels.csv"] = table.encode()
    for part, names in (("train", users), ("test", held_out)):
        lines = "".join(f"{name}.aedat\n" for name in names)
        files[f"DvsGesture/trials_to_{part}.txt"] = lines.encode()
    return files, samples


def write(folder, files):
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def tarred(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()
