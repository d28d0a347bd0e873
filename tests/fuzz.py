"""Feed damaged and malicious input to everything that reads: files, checkpoints, run folders.

Usage: python tests/fuzz.py --count 100000 --seed 0 [--jobs N] [--targets NAME,...]
       python tests/fuzz.py --seed 0 --only INDEX      (one input again, with its traceback)

Small valid files are made in code and changed: flipped bits, cuts, splices, extreme numbers, other
types in JSON, deep nesting. An input is a function of seed and number alone. Faults are:

- an exception that is none of threefactor.errors,
- the end of the process by a signal,
- more than 5 seconds for one input,
- more than 1 GiB of memory, the largest file that is read as a whole.

Works where there is fork, as on Linux. A worker reads many inputs; what ends it or holds it up is
found by the process that watches it, which starts another one behind that input.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import math
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before what starts threads, which a fork does not have

import numpy as np

from threefactor import data, events, training
from threefactor.data.files import archives
from threefactor.data.formats import hdf5, hdf5_child
from threefactor.data.samples import frame_cache
from threefactor.data.sets import dvs_gesture as gesture
from threefactor.errors import ThreefactorError
from threefactor.recipes import recipe
from threefactor.report import collect, html_page, study_sections
from threefactor.report.runs import read_run
from threefactor.training.folder import checkpoint

SECONDS = 5.0
PATIENCE = 20  # times as long is waited for a process that does not get to work
MEMORY = 1 << 30
POLL = 0.05
SHARED = "/dev/shm"
EXTREMES = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63)


# Changes to bytes, text and JSON


def changed(chance: random.Random, body: bytes, other: bytes = b"") -> bytes:
    """Return bytes with one to four changes."""
    found = bytearray(body)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        chance.choice(CHANGES)(chance, found, other or body)
    return bytes(found)


def _place(chance: random.Random, body: bytearray) -> int:
    """Return a position, often near the start, where headers are."""
    near = min(len(body), chance.choice((16, 64, 512, 1 << 30)))
    return chance.randrange(max(near, 1))


def _flip(chance: random.Random, body: bytearray, other: bytes) -> None:
    if body:
        body[_place(chance, body)] ^= 1 << chance.randrange(8)


def _set(chance: random.Random, body: bytearray, other: bytes) -> None:
    place, length = _place(chance, body), chance.choice((1, 1, 2, 8, 30))
    byte = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    body[place : place + length] = bytes([byte]) * length


def _number(chance: random.Random, body: bytearray, other: bytes) -> None:
    size, order = chance.choice((2, 4, 8)), chance.choice(("little", "big"))
    value = chance.choice(EXTREMES) % (1 << 8 * size)
    place = _place(chance, body)
    body[place : place + size] = value.to_bytes(size, order)


def _cut(chance: random.Random, body: bytearray, other: bytes) -> None:
    del body[chance.randrange(len(body) + 1) :]


def _drop(chance: random.Random, body: bytearray, other: bytes) -> None:
    place = _place(chance, body)
    del body[place : place + chance.choice((1, 4, 64))]


def _splice(chance: random.Random, body: bytearray, other: bytes) -> None:
    start, place = chance.randrange(len(other) + 1), _place(chance, body)
    length = chance.choice((4, 64, 600))
    end = place if chance.random() < 0.5 else place + length
    body[place:end] = other[start : start + length]


def _repeat(chance: random.Random, body: bytearray, other: bytes) -> None:
    place = _place(chance, body)
    part = body[place : place + chance.choice((1, 8, 512))]
    body[place:place] = part * chance.choice((2, 10, 1000 // max(len(part), 1) + 1))


CHANGES = (_flip, _flip, _set, _number, _number, _cut, _drop, _splice, _repeat)

WORDS = (
    *("-1", "0", "1e400", "nan", "9" * 30, "9" * 5000, "", "/", "..", "../x", "\0", "\u0661", "ü"),
    *("a" * 300, "a" * 5000, "\r", "\x85", "\u2028", "true", "0x10", "1_0", " 1", "\ud800", "1.5"),
)


def changed_text(chance: random.Random, text: str) -> bytes:
    """Return text with other words in some places, or other bytes."""
    if chance.random() < 0.3:
        return changed(chance, text.encode())
    parts = text.replace(",", " , ").replace("\n", " \n ").split(" ")
    for _ in range(chance.choice((1, 2, 5))):
        parts[chance.randrange(len(parts))] = chance.choice(WORDS)
    return "".join(parts).encode(errors="surrogatepass")


def changed_json(chance: random.Random, text: str) -> bytes:
    """Return a JSON document of which values have other types or sizes."""
    if chance.random() < 0.15:
        return changed(chance, text.encode())
    if chance.random() < 0.03:
        depth, opening = chance.choice((500, 3000, 200_000)), chance.choice(("[", '{"a":'))
        return (opening * depth).encode()
    tree = json.loads(text)
    for _ in range(chance.choice((1, 1, 2, 4))):
        tree = _other(chance, tree)
    return json.dumps(tree).encode()


def _other(chance: random.Random, tree: Any) -> Any:
    """Return a tree with one node replaced, removed or doubled."""
    if not (isinstance(tree, (dict, list)) and tree) or chance.random() < 0.1:
        return _value(chance)
    key = chance.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
    act = chance.random()
    if act < 0.1:
        del tree[key]
    elif act < 0.2 and isinstance(tree, list):
        tree.append(tree[key])
    elif act < 0.2:
        tree[chance.choice(WORDS)] = tree.pop(key)
    else:
        tree[key] = _other(chance, tree[key])
    return tree


def _value(chance: random.Random) -> Any:
    deep: Any = []
    for _ in range(chance.choice((1, 50, 400))):
        deep = [deep]
    return chance.choice(
        (
            *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, -1e308),
            *(math.nan, math.inf, "", "x", "../../x", "x" * 3000, "\0", "\ud800", "nan", "1"),
            *([], {}, [1], {"a": 1}, [None], [[1, 2]], {"": {}}, deep),
        )
    )


# Small valid files


def idx(array: np.ndarray[Any, Any]) -> bytes:
    """Return an array of bytes as an idx file."""
    sizes = np.array(array.shape, dtype=">u4").tobytes()
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


def aedat2() -> bytes:
    """Return a recording of four events."""
    body = np.array([[2, 1], [259, 5], [1 << 14 | 7, 9], [1 << 15, 9]], ">u4")
    return b"#!AER-DAT2.0\r\n# text\r\n" + body.tobytes()


def aedat3() -> bytes:
    """Return a recording of two packets, one of polarity events."""
    words = np.array([[3 | 5 << 2 | 9 << 17, 10], [1, 20], [1 | 1 << 2, 30]], "<u4").tobytes()
    packet = struct.Struct("<hhiiiiii").pack
    other = packet(0, 1, 8, 4, 0, 1, 1, 1) + bytes(8)
    polarity = packet(1, 1, 8, 4, 0, 3, 3, 3) + words
    return b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n" + other + polarity


def nmnist() -> bytes:
    """Return a recording of twenty events."""
    return b"".join(bytes((i, 2 * i % 34, i % 2 << 7, i, 7)) for i in range(20))


def tables() -> dict[str, str]:
    """Return the two tables of DVS128 Gesture."""
    rows = "".join(f"{i},{i * 100},{i * 100 + 90}\n" for i in range(1, 6))
    return {
        "a_labels.csv": f"class,startTime_usec,endTime_usec\n{rows}",
        "trials.txt": "a.aedat\na.aedat\n",
    }


def members() -> dict[str, bytes]:
    """Return the files of an archive."""
    return {"set/a.bin": bytes(range(256)) * 4, "set/deep/b.bin": b"b" * 700, "set/c.txt": b""}


def tarred(files: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """Return a .tar file, not compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a .zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def spikes_file(chunks: tuple[int] | None = None, packed: bool = False) -> bytes:
    """Return an HDF5 file of spikes."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as root:
        for name, kind in (("times", np.float16), ("units", np.uint16)):
            column = root.create_dataset(
                f"spikes/{name}",
                (4,),
                dtype=h5py.vlen_dtype(np.dtype(kind)),
                chunks=chunks,
                compression="gzip" if packed else None,
            )
            for sample in range(4):
                column[sample] = np.arange(sample * 3).astype(kind)
        root["labels"] = np.arange(4, dtype=np.uint16)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    """Return a small picture in every format, also in those that are refused."""
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 255, (12, 20, 4), dtype=np.uint8)
    found = {}
    for form, mode in (
        *(("PNG", "RGB"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "I;16"), ("JPEG", "RGB")),
        *(("JPEG", "CMYK"), ("BMP", "RGB"), ("BMP", "P"), ("GIF", "P"), ("PPM", "RGB")),
        *(("TIFF", "RGB"), ("TIFF", "I;16"), ("WEBP", "RGB")),
    ):
        picture = Image.fromarray(values, "RGBA").convert("RGB")
        picture = picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)
        buffer = io.BytesIO()
        picture.save(buffer, form)
        found[f"{form} {mode}"] = buffer.getvalue()
    return found


def checked_png(body: bytes) -> bytes:
    """Return a PNG file with the right checksums, so that its changes get to the decoder."""
    found, place = bytearray(body[:8]), 8
    while place + 12 <= len(body):
        length = int.from_bytes(body[place : place + 4], "big")
        part = body[place + 4 : place + 8 + length]
        found += body[place : place + 4] + part + zlib.crc32(part).to_bytes(4, "big")
        place += 12 + length
    return bytes(found + body[place:])


# What is fed with them


class Material(NamedTuple):
    """All that is made once."""

    pictures: dict[str, bytes]
    spikes: list[bytes]
    runs: list[Path]


Target = Callable[[random.Random, Path, Material], object]


def read_idx(chance: random.Random, folder: Path, material: Material) -> None:
    """Idx files, plain and compressed."""
    valid = [idx(np.zeros((3, 4, 5), np.uint8)), idx(np.arange(7, dtype=np.uint8))]
    read_each(chance, folder, valid, data.read_idx)


def read_each(
    chance: random.Random, folder: Path, valid: list[bytes], *readers: Callable[[Path], object]
) -> None:
    """Give a changed file to readers, perhaps compressed, before or after."""
    body = changed(chance, chance.choice(valid), chance.choice(valid))
    way = chance.random()
    if way < 0.15:
        body = gzip.compress(body, 1)
    elif way < 0.25:
        body = changed(chance, gzip.compress(chance.choice(valid), 1))
    path = folder / "file"
    path.write_bytes(body)
    for reader in readers:
        survived(lambda reader=reader: reader(path))


def survived(call: Callable[[], object]) -> bool:
    """Make a call; tell whether it ended without an error of ours. Others pass."""
    try:
        call()
    except ThreefactorError:
        return False
    return True


def read_images(chance: random.Random, folder: Path, material: Material) -> None:
    """The four files of a set of idx files, one of which is changed."""
    names = [file.name for file in data.DATASETS["mnist"].files.published]
    arrays = [
        np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28),
        np.arange(4, dtype=np.uint8),
    ]
    bodies = {name: idx(arrays["labels" in name]) for name in names}
    which = chance.choice(names)
    bodies[which] = changed(chance, bodies[which])
    (folder / "mnist").mkdir()
    for name, body in bodies.items():
        (folder / "mnist" / name.removesuffix(".gz")).write_bytes(body)
    data.load("mnist", folder)


def read_cifar(chance: random.Random, folder: Path, material: Material) -> None:
    """CIFAR-10 in its archive or as files."""
    file = data.DATASETS["cifar10"].files.published[0]
    bodies = {name: bytes((i,)) + bytes(range(256)) * 12 for i, name in enumerate(file.members)}
    (folder / "cifar10").mkdir()
    if chance.random() < 0.5:
        for name, body in bodies.items():
            (folder / "cifar10" / Path(name).name).write_bytes(changed(chance, body))
    else:
        body = tar_gz(chance, tarred(bodies))
        (folder / "cifar10" / file.name).write_bytes(body)
    data.load("cifar10", folder)


def tar_gz(chance: random.Random, body: bytes) -> bytes:
    """Return a .tar.gz file changed before or after compression."""
    if chance.random() < 0.8:
        return gzip.compress(changed(chance, body), 1)
    return changed(chance, gzip.compress(body, 1))


def read_archive(chance: random.Random, folder: Path, material: Material) -> None:
    """Archives: nothing but what is asked for may appear."""
    files = members()
    if chance.random() < 0.3:
        files[chance.choice(WORDS) or "x"] = b"1" * chance.choice((0, 1, 3000))
    try:
        if chance.random() < 0.5:
            method = chance.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))
            body = changed(chance, zipped(files, method))
        else:
            form = chance.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT))
            long = {"set/" + "n" * 120: b"long"} if form == tarfile.GNU_FORMAT else {"set/ü": b"1"}
            body = tar_gz(chance, tarred(files | long, form))
    except (ValueError, IndexError):  # a name that this format cannot hold
        return
    archive = folder / "archive"
    archive.write_bytes(body)
    survived(lambda: archives.read_member(archive, "set/a.bin", 1 << 20))
    survived(lambda: archives.unpack_files(archive, ["set/a.bin"], folder / "out", 1 << 20))
    whole = survived(lambda: archives.unpack_tree(archive, folder / "tree", 1 << 20))
    there = {path.name for path in folder.iterdir()}
    if not there <= {"archive", "out", *(["tree"] if whole else [])}:
        raise AssertionError(f"unpacking left {sorted(there)}")


def read_spikes(chance: random.Random, folder: Path, material: Material) -> None:
    """HDF5 files of spikes; a fork stands for the process that reads them, which starts faster."""
    hdf5.child_code = forked_code
    read_each(chance, folder, material.spikes, data.read_shd_file)


def forked_code(file: Path, folder: Path, seconds: int, memory: int) -> int:
    """Do as `hdf5.child_code` does."""
    pid = os.fork()
    if pid == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        try:
            hdf5_child.limit(seconds, memory + pages * resource.getpagesize())
            os._exit(hdf5_child.run(str(file), str(folder)))
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def read_spikes_truly(chance: random.Random, folder: Path, material: Material) -> None:
    """HDF5 files of spikes in a process of their own."""
    hdf5.child_code = TRUE_CHILD
    read_each(chance, folder, material.spikes, data.read_shd_file)


TRUE_CHILD = hdf5.child_code


def read_recordings(chance: random.Random, folder: Path, material: Material) -> None:
    """Files of events, and frames of what is read."""
    sort = chance.random() < 0.5
    settings = data.FrameSettings(number=3, window=chance.choice((None, 10)))
    kinds = [
        (aedat2(), data.read_aedat2, (128, 128)),
        (aedat3(), data.read_aedat3, (128, 128)),
        (nmnist(), data.read_nmnist_file, (34, 34)),
    ]
    body, reader, sensor = chance.choice(kinds)
    read_each(
        chance,
        folder,
        [body],
        lambda path: data.frames(reader(path, sort=sort), sensor, settings),  # type: ignore[operator]
    )


def read_tables(chance: random.Random, folder: Path, material: Material) -> None:
    """The tables of DVS128 Gesture."""
    (folder / "a.aedat").write_bytes(aedat3())
    for name, text in tables().items():
        (folder / name).write_bytes(changed_text(chance, text))
    survived(lambda: gesture.read_label_table(folder / "a_labels.csv"))
    survived(lambda: gesture.listed_recordings(folder / "trials.txt", 11))
    (folder / "trials.txt").write_text("a.aedat\n")
    survived(lambda: list(_recordings(folder)))


def _recordings(folder: Path) -> Any:
    from threefactor.data.samples.recordings import Recordings

    return Recordings(gesture.listed_recordings(folder / "trials.txt", 11), data.read_aedat3)


def read_pictures(chance: random.Random, folder: Path, material: Material) -> None:
    """Image files."""
    names = list(material.pictures)
    name, other = chance.choice(names), chance.choice(names)
    body = changed(chance, material.pictures[name], material.pictures[other])
    if name.startswith("PNG") and chance.random() < 0.7:
        body = checked_png(body)
    path = folder / "file"
    path.write_bytes(body)
    settings = data.ImageSettings(size=8, resize=chance.choice((8, 256)))
    for training_part in (False, True):
        files = partial(data.ImageFiles, [str(path)], settings, training_part)
        survived(lambda files=files: files()[[0]])


def make_frames(chance: random.Random, folder: Path, material: Material) -> None:
    """Arrays of events of any type, as users load them from .npy files."""
    fields = [("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")]
    valid = np.zeros(5, fields)
    valid["t"] = np.arange(5)
    buffer = io.BytesIO()
    np.save(buffer, valid)
    (folder / "a.npy").write_bytes(changed(chance, buffer.getvalue()))
    try:
        found = np.load(folder / "a.npy")
    except Exception:  # NumPy's reader, and not ours
        found = valid.astype(
            [(name, chance.choice(("<i2", "<u8", "<f4", "?", "S3", "O"))) for name, _ in fields]
        )
    size = chance.choice(((2, 2), (34, 34), (0, 1), (10**6, 10**6), 5, None))
    number = chance.choice((1, 7, 10**6, 10**12))
    survived(lambda: data.frames(found, size, data.FrameSettings(number, chance.choice((None, 1)))))


def read_frames(chance: random.Random, folder: Path, material: Material) -> None:
    """Frames that are kept, one file of which is changed: they are as before or made anew."""

    def make() -> Iterator[Any]:
        return iter(np.arange(2 * 3 * 2 * 4 * 4, dtype=np.float32).reshape(2, 3, 2, 4, 4))

    key = {"set": "x"}
    before = frame_cache.cached_frames(folder, key, 2, make, ("uint8",))
    values = before.array.copy()  # it is mapped: a change of the file changes it
    place = next(folder.glob("*/frames.npy")).parent
    if chance.random() < 0.5:
        about = place / "about.json"
        about.write_bytes(changed_json(chance, about.read_text()))
    else:
        array = place / "frames.npy"
        array.write_bytes(changed(chance, array.read_bytes()))
    after = frame_cache.cached_frames(folder, key, 2, make, ("uint8",))
    if (after.array.shape, after.array.dtype) != (before.array.shape, before.array.dtype):
        raise AssertionError(f"frames of shape {after.array.shape}, {after.array.dtype}")
    if not np.array_equal(after.array, values):
        raise AssertionError("frames of other values")


def make_spikes(chance: random.Random, folder: Path, material: Material) -> None:
    """Arrays of spikes with other types, lengths and values."""
    arrays: list[Any] = [np.array([0, 2, 3]), np.array([0.1, 0.2, 0.0]), np.array([0, 1, 2])]
    for _ in range(chance.choice((1, 2))):
        which = chance.randrange(3)
        arrays[which] = _other_array(chance, arrays[which])
    size = chance.choice((3, 3, 3, 0, -1, 2**31, 2**62, 10**30, 2.5, None, True, "3"))
    survived(lambda: use_spikes(events.SpikeBatch(*arrays, size)))  # type: ignore[arg-type]
    survived(lambda: use_spikes(events.SpikeBatch.from_lists([arrays[1]], [arrays[2]], size)))
    batch = chance.choice((1, 3, 0, -1, 10**7, None))
    survived(
        lambda: use_spikes(
            events.SpikeBatch.from_arrays(arrays[2], arrays[1], arrays[2], size, batch)
        )
    )


def use_spikes(batch: events.SpikeBatch) -> None:
    """Do what users do with spikes."""
    if batch.size < 1 << 16 and len(batch) < 1 << 16:
        batch.counts()
        batch[0:1]
        for index in range(min(len(batch), 3)):
            batch.sample(index)


def _other_array(chance: random.Random, array: Any) -> Any:
    if not isinstance(array, np.ndarray) or not array.shape or not len(array):
        return array
    way = chance.randrange(6)
    if way == 0:
        kinds = ("f2", "f8", "i1", "u8", "?", "O", "S2", "c8", "M8[s]")
        # Not every value is a date.
        with np.errstate(all="ignore"), contextlib.suppress(RuntimeError, ValueError, TypeError):
            return array.astype(chance.choice(kinds))
    if way == 1:
        shapes = ((), (0,), (1, 3), (3, 1), (2,))
        return np.resize(array, chance.choice(shapes))
    if way == 2:
        changed_list: list[Any] = list(array)
        changed_list[chance.randrange(len(array))] = _value(chance)
        return changed_list
    if way == 3:
        return chance.choice((None, 3, "abc", [], [[1], [1, 2]], {"a": 1}, float("nan")))
    found = np.array(array)
    place = chance.randrange(len(found))
    if found.dtype.kind == "f":
        found[place] = chance.choice((np.nan, np.inf, -1.0, 1e308, 5e-324))
    else:
        with contextlib.suppress(OverflowError, ValueError, TypeError):  # of this type
            found[place] = chance.choice((-1, 2**31, 2**62, -(2**63), 3, 10**6))
    return found[:: chance.choice((1, -1, 2))] if way == 5 else found


def copy_of_run(chance: random.Random, folder: Path, material: Material) -> Path:
    """Copy a run and change one of its files, perhaps so that its sums are right again."""
    run = folder / "run"
    shutil.copytree(chance.choice(material.runs), run)
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size)
    path = chance.choice(files)
    if path.suffix == ".json":
        path.write_bytes(changed_json(chance, path.read_text()))
    elif path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        which = chance.randrange(len(lines))
        new = changed_json(chance, lines[which]).replace(b"\n", b" ")
        path.write_bytes(b"\n".join([*(line.encode() for line in lines[:which]), new, b""]))
        if chance.random() < 0.2:
            path.write_bytes(changed(chance, path.read_bytes()))
    else:
        path.write_bytes(changed(chance, path.read_bytes()))
    if path.parent != run and chance.random() < 0.7:
        agree(path.parent)
    return run


def agree(folder: Path) -> None:
    """Let the sums of a checkpoint be those of what is there, so that it is believed."""
    with contextlib.suppress(Exception):  # what is no longer a checkpoint at all
        document = json.loads((folder / "state.json").read_text())
        (tensors,) = folder.glob("*.safetensors")
        body = tensors.read_bytes()
        document["tensors"] |= {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        sealed = {"tensors": document["tensors"], "state": document["state"]}
        document["sha256"] = checkpoint._digest(sealed)
        (folder / "state.json").write_text(json.dumps(document))


def read_checkpoint(chance: random.Random, folder: Path, material: Material) -> None:
    """The files of a checkpoint."""
    run = copy_of_run(chance, folder, material)
    for name in ("last", "best"):
        survived(lambda name=name: checkpoint.load_state(run / name))


PARTS_OF_RUN = ("settings", "threads", "layer_sizes", "metrics", "tracked", "start", "problems")
PARTS_OF_RUN += ("finished", "finished_epochs", "checkpoints")


def read_folder(chance: random.Random, folder: Path, material: Material) -> None:
    """The files of a run, as `Run` and as a report reads them."""
    run = copy_of_run(chance, folder, material)
    for part in PARTS_OF_RUN:
        survived(lambda part=part: getattr(training.Run(run), part))
    read_run(run)


def report_folder(chance: random.Random, folder: Path, material: Material) -> None:
    """The files of a run, as a page."""
    run = copy_of_run(chance, folder, material)
    html_page("fuzz", study_sections(collect([run], unfinished=True)))


def open_folder(chance: random.Random, folder: Path, material: Material) -> None:
    """The files of a run from which network and rule are made again."""
    run = copy_of_run(chance, folder, material)
    for name in ("last", "best"):
        survived(lambda name=name: training.open_run(run, name))


TARGETS: dict[str, tuple[Target, float]] = {
    "idx": (read_idx, 10),
    "images": (read_images, 4),
    "cifar": (read_cifar, 4),
    "archive": (read_archive, 20),
    "hdf5": (read_spikes, 8),
    "hdf5-process": (read_spikes_truly, 0.3),
    "recordings": (read_recordings, 14),
    "tables": (read_tables, 6),
    "pictures": (read_pictures, 14),
    "frames": (make_frames, 4),
    "frame-cache": (read_frames, 2),
    "spikes": (make_spikes, 6),
    "checkpoint": (read_checkpoint, 5),
    "run": (read_folder, 4),
    "report": (report_folder, 0.5),
    "open": (open_folder, 0.7),
}
"""What is fed, and how often, in parts of all inputs."""


RUNS = (("digits-fc", "opzo", {}), ("digits-events", "sfdfa", {"thresholds": [0.1, 0.05]}))


def make_material(folder: Path) -> Material:
    """Make what takes long to make, once."""
    runs = []
    for name, rule, more in RUNS:
        changes = {"hidden": [6], "data.train": 60, "data.test": 30, "epochs": 2, **more}
        runs.append(folder / name)
        pid = os.fork()  # threads that training starts would be missing in the workers
        if pid == 0:
            training.train(recipe(name).settings_for(rule, changes), runs[-1])
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError(f"{name} was not trained")
    spikes = [spikes_file(), spikes_file((2,)), spikes_file((2,), True)]
    return Material(pictures(), spikes, runs)


# The processes


def feed(number: int, seed: int, names: list[str], material: Material, place: Path) -> str:
    """Make one input and read it; return the name of what was fed. Foreign errors pass."""
    chance = random.Random(f"{seed}:{number}")
    name = chance.choices(names, [TARGETS[each][1] for each in names])[0]
    folder = place / "input"
    folder.mkdir()
    try:
        survived(lambda: TARGETS[name][0](chance, folder, material))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return name


class Clock:
    """What a worker is at, seen by the process that watches it."""

    LAYOUT = struct.Struct("<qdd")

    def __init__(self) -> None:
        self.shared = mmap.mmap(-1, self.LAYOUT.size)

    def set(self, number: int) -> None:
        self.LAYOUT.pack_into(self.shared, 0, number, time.monotonic(), sum(os.times()[:4]))

    def get(self) -> tuple[int, float, float]:
        return self.LAYOUT.unpack_from(self.shared)  # type: ignore[return-value]


class Fault(NamedTuple):
    """What went wrong with an input."""

    number: int
    kind: str
    text: str


def work(numbers: list[int], given: argparse.Namespace, material: Material, clock: Clock) -> None:
    """Feed inputs until one makes a fault that ends this process; write down all faults."""
    warnings.simplefilter("ignore")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)  # what libraries in C say of damage
    place = Path(tempfile.mkdtemp(dir=given.folder))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        clock.set(number)
        try:
            feed(number, given.seed, given.targets, material, place)
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if "threefactor" in frame.filename] or frames
            where = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
            report(given, Fault(number, type(error).__name__, f"{where}: {str(error)[:150]}"))
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if used > MEMORY >> 10:
            report(given, Fault(number, "memory", f"{used >> 10} MiB"))
            os._exit(0)
    clock.set(-1)
    os._exit(0)


def report(given: argparse.Namespace, fault: Fault) -> None:
    with open(given.folder / "faults", "a", encoding="utf-8", errors="replace") as file:
        file.write(json.dumps(fault) + "\n")


def watch(numbers: list[int], given: argparse.Namespace, material: Material) -> None:
    """Let one worker after the other feed the inputs; each goes on behind what ended the last."""
    while numbers:
        clock = Clock()
        clock.set(numbers[0])
        pid = os.fork()
        if pid == 0:
            try:
                work(numbers, given, material, clock)
            finally:
                os._exit(1)
        status, hung = _end_of(pid, clock)
        number = clock.get()[0]
        if number < 0:
            return
        if hung:
            report(given, Fault(number, "hang", f"{hung:.1f} s of processor time"))
        elif os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            report(given, Fault(number, "crash", f"the process ended by {name}"))
        elif os.WEXITSTATUS(status):
            report(given, Fault(number, "crash", f"the process ended with {status}"))
        numbers = numbers[numbers.index(number) + 1 :]


def _end_of(pid: int, clock: Clock) -> tuple[int, float]:
    """Wait for a worker; end it if an input holds it up."""
    seen = clock.get()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status, 0.0
        before, seen = seen, clock.get()
        number, since, processor = seen
        waited = time.monotonic() - since
        # What is read while it is written is neither the old nor the new.
        if number >= 0 and waited > SECONDS and seen == before:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") - processor
            # On a busy machine a process may have had no time.
            if used > SECONDS or waited > SECONDS * PATIENCE:
                os.kill(pid, signal.SIGKILL)
                return os.waitpid(pid, 0)[1], used
        time.sleep(POLL)


def _faults(folder: Path) -> list[Fault]:
    path = folder / "faults"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return sorted(Fault(*json.loads(line)) for line in lines)


def run_all(given: argparse.Namespace, material: Material) -> int:
    """Feed all inputs on some processes; say what was found."""
    numbers = list(range(given.start, given.start + given.count))
    watchers = []
    for job in range(given.jobs):
        pid = os.fork()
        if pid == 0:
            try:
                watch(numbers[job :: given.jobs], given, material)
                os._exit(0)
            finally:
                os._exit(1)
        watchers.append(pid)
    ends = [os.waitpid(pid, 0)[1] for pid in watchers]
    found = _faults(given.folder)
    groups = Counter((fault.kind, fault.text.partition(": ")[0]) for fault in found)
    for (kind, where), count in groups.most_common():
        first = next(f for f in found if (f.kind, f.text.partition(": ")[0]) == (kind, where))
        print(f"{count} x {kind} {first.text}")
        print(f"    again: python tests/fuzz.py --seed {given.seed} --only {first.number}", end="")
        print(f" --targets {','.join(given.targets)}" if given.targets != [*TARGETS] else "")
    if any(ends):
        print("a process that watches has failed", file=sys.stderr)
    return 1 if found or any(ends) else 0


def main() -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--start", type=int, default=0, help="the number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--targets", default=",".join(TARGETS), help="names, with commas")
    parser.add_argument("--only", type=int, help="feed this input alone and show its traceback")
    given = parser.parse_args()
    given.targets = given.targets.split(",")
    start = time.monotonic()
    if os.access(SHARED, os.W_OK):
        tempfile.tempdir = SHARED  # in memory, where many small files cost nothing
    with tempfile.TemporaryDirectory(prefix="threefactor-fuzz-") as folder:
        given.folder = Path(folder)
        # HOME decides where caches go; no input may reach the user's.
        os.environ["XDG_CACHE_HOME"] = folder
        material = make_material(given.folder)
        if given.only is not None:
            print(feed(given.only, given.seed, given.targets, material, given.folder))
            return 0
        code = run_all(given, material)
    seconds = time.monotonic() - start
    print(f"{given.count} inputs, seed {given.seed}, {seconds:.0f} s: {'FAULTS' if code else 'ok'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
