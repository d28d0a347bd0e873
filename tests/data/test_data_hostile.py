"""Files made to hang, crash or fill their reader, each refused within bounds and in words."""

import contextlib
import gzip
import io
import os
import pickle
import stat
import struct
import tarfile
import time
import zipfile
import zlib

import numpy as np
import pytest
from data.image_folders import picture

from threefactor.data import (
    ImageFiles,
    ImageSettings,
    load_events,
    load_image_folder,
    read_aedat2,
    read_aedat3,
    read_idx,
    read_nmnist_file,
    read_shd_file,
)
from threefactor.data.files import archives
from threefactor.data.files import source as sources
from threefactor.data.formats import events as event_array
from threefactor.data.formats import hdf5
from threefactor.data.sets import dvs_gesture as gesture
from threefactor.data.sets import nmnist
from threefactor.errors import DataError, InputError

SIZE = ImageSettings(size=8, resize=8)


@pytest.fixture(autouse=True)
def in_time():
    """No file takes longer than five seconds of this process."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 5


# Files that are none


@pytest.mark.parametrize(
    "read", [read_idx, read_aedat2, read_aedat3, read_nmnist_file, read_shd_file]
)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "file")
    with pytest.raises(DataError, match=r"file cannot be read \(a FIFO, socket or device"):
        read(tmp_path / "file")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs devices")
def test_a_device_is_not_read(tmp_path):
    (tmp_path / "file").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="a FIFO, socket or device and no file"):
        read_aedat2(tmp_path / "file")
    with pytest.raises(DataError, match="a FIFO, socket or device and no file"):
        ImageFiles([str(tmp_path / "file")], SIZE, False)[[0]]


@pytest.mark.parametrize("name", ["a" * 5000, "a\0", "\ud800" * 3])
@pytest.mark.parametrize("read", [read_idx, read_aedat2, read_nmnist_file, read_shd_file])
def test_a_name_that_no_file_has_is_refused(name, read):
    with pytest.raises(DataError, match="cannot be read"):
        read(name)


@pytest.mark.parametrize("given", [None, 5, b"bytes", ["a"]])
@pytest.mark.parametrize("read", [read_idx, read_aedat3, read_shd_file, load_image_folder])
def test_what_is_no_path_is_refused(given, read):
    with pytest.raises(InputError, match="is not a path"):
        read(given)


# Archives


def entry(name, kind=tarfile.REGTYPE, size=0, body=b""):
    """One entry of a .tar file, of which the size may be a lie."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size or len(body)
    return info.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % 512)


def pax(*records):
    """An extended header with records that are well formed."""
    body = b""
    for key, value in records:
        text = b" " + key + b"=" + value + b"\n"
        length = next(n for n in range(99999) if n == len(str(n)) + len(text))
        body += str(length).encode() + text
    return entry("x", tarfile.XHDTYPE, body=body)


GOOD = entry("set/a.bin", body=b"good")
SPARSE = bytearray(entry("set/b.bin"))
SPARSE[156:157], SPARSE[386:410] = b"S", b"%011o\0%011o\0" % (0, 0)
SPARSE[483:495] = b"%011o\0" % (3 << 30)
SPARSE[148:156] = b"%06o\0 " % sum(bytes(SPARSE[:148]) + b" " * 8 + bytes(SPARSE[156:512]))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (entry("b", size=1 << 62), "would unpack to more than"),
        (entry("b", b"Z", 1 << 62), "neither a file nor a folder"),
        (entry("b", size=-1), "damaged|would unpack"),
        (entry("b", size=5000, body=b"short"), "bytes too early"),
        (bytes(SPARSE), "a sparse file"),
        (pax((b"GNU.sparse.major", b"1")) + entry("b"), "a sparse file"),
        (entry("x", tarfile.XHDTYPE, body=b"1" * 60_000), "not a list of names and values"),
        (entry("x", tarfile.XHDTYPE, body=b"0 a=b\n"), "not a list of names and values"),
        (entry("x", tarfile.XHDTYPE, body=b"1" * (1 << 17)), "a header of 131,072 bytes"),
        (entry("x", tarfile.XHDTYPE, size=1 << 40), "a header of 1,099,"),
        (entry("x", tarfile.XGLTYPE, body=b"10 path=b\n"), "gives all files one name"),
        (pax((b"path", b"../../evil")) + entry("b"), "leads out of its folder"),
        (pax((b"size", b"9" * 30)) + entry("b"), "damaged|would unpack"),
        (entry("/".join("d" * 40)), "40 folders deep"),
        (entry("b")[:100] + b"9" + entry("b")[101:], "bad checksum"),
    ],
)
def test_a_tar_file_that_is_a_trap_is_refused(tmp_path, body, message):
    archive = tmp_path / "archive"
    for place in (body + GOOD, GOOD + body):
        archive.write_bytes(gzip.compress(place + bytes(1024)))
        with pytest.raises(DataError, match=message):
            archives.read_member(archive, "set/a.bin")
        with pytest.raises(DataError, match=message):
            archives.unpack_tree(archive, tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_long_names_and_sizes_in_extended_headers_are_read(tmp_path):
    long = "set/" + "n" * 150 + "/ü.bin"
    files = (
        pax((b"mtime", b"12.5"), (b"path", long.encode()), (b"size", b"4"))
        + entry("x", body=b"long")
        + entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, body=b"set/" + b"m" * 140 + b"\0")
        + entry("short", body=b"gnu")
    )  # fmt: skip
    archive = tmp_path / "archive"
    archive.write_bytes(
        gzip.compress(entry("g", tarfile.XGLTYPE, body=b"11 comm=ab\n") + files + bytes(1024))
    )
    tree = archives.unpack_tree(archive, tmp_path / "tree")
    assert (tree / long).read_bytes() == b"long"
    assert (tree / "set" / ("m" * 140)).read_bytes() == b"gnu"


def test_a_zip_entry_without_a_name_is_refused(tmp_path):
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("x"), b"1")
    archive.write_bytes(archive.read_bytes().replace(b"\1\0\0\0x", b"\1\0\0\0\0"))
    name = zipfile.ZipInfo("")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, b"1")
    with pytest.raises(DataError, match=r"an entry without a name|is damaged"):
        archives.read_member(archive, "x")


@pytest.mark.parametrize("offset", [10**6, 2**32 - 2])
def test_wrong_places_in_a_zip_file_are_damage_and_no_lack_of_space(tmp_path, offset):
    (tmp_path / "nmnist").mkdir()
    archive = tmp_path / "nmnist" / "Train.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("Train/0/1.bin", b"hello")
    body = bytearray(archive.read_bytes())
    end = body.find(b"PK\5\6")
    body[end + 16 : end + 20] = struct.pack("<I", offset)
    for name in ("Train.zip", "Test.zip"):
        (tmp_path / "nmnist" / name).write_bytes(body)
    for call in (
        lambda: archives.unpack_files(archive, ["Train/0/1.bin"], tmp_path / "out"),
        lambda: load_events("nmnist", tmp_path),
    ):
        with pytest.raises(DataError, match="is damaged"):
            call()


def test_a_zip_directory_without_end_is_not_read(tmp_path, monkeypatch):
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a", b"1")
    monkeypatch.setattr(archives, "LONGEST_DIRECTORY", 10)
    with pytest.raises(DataError, match="has a directory of 47 bytes; expected at most 10"):
        archives.read_member(archive, "a")


def test_very_many_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_ENTRIES", 50)
    archive = tmp_path / "archive"
    archive.write_bytes(gzip.compress(b"".join(entry(f"f/{i}") for i in range(60)) + bytes(1024)))
    with pytest.raises(DataError, match="more than 50 names"):
        archives.read_member(archive, "f/1")


# What is compressed


def test_a_small_file_that_unpacks_to_much_is_broken_off(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(b"#!AER-DAT2.0\r\n" + bytes(3 << 20)))
    for module in ("formats.aedat", "sets.nmnist"):
        monkeypatch.setattr(f"threefactor.data.{module}.LARGEST_RECORDING", 1 << 20)
    for read in (read_aedat2, read_nmnist_file):
        with pytest.raises(DataError, match="has more than 1,048,576 bytes, unpacked"):
            read(path)
    monkeypatch.setattr(gesture, "LARGEST_TABLE", 1 << 20)
    with pytest.raises(DataError, match="has more than 1,048,576 bytes"):
        gesture.read_label_table(path)
    assert nmnist.LARGEST_RECORDING < event_array.LARGEST_RECORDING < sources.LARGEST


@pytest.fixture
def sizes():
    """Draws numbers, to cut streams into parts."""
    return np.random.default_rng(5).integers(1, 3000, 1000).tolist()


def test_gzip_files_of_several_members_are_read_whole(sizes):
    parts = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    packed = b"".join(
        gzip.compress(part) + b"\0" * (number % 3) for number, part in enumerate(parts)
    )
    stream, found = sources.Unpacked(io.BytesIO(packed)), []
    while part := stream.read(sizes[len(found) % len(sizes)]):
        found.append(part)
    assert b"".join(found) == b"".join(parts)
    assert sources.Unpacked(io.BytesIO(packed)).read() == b"".join(parts)


INNER = b"\0\0\x08\x01" + struct.pack(">I", 2) + b"\1\2"
NAMED = b"\x1f\x8b\x08\x08" + b"\0" * 6 + b"a" * (1 << 26)  # a name that does not end


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (NAMED, "damaged gzip file .it ends before"),
        (gzip.compress(INNER) + b"\0" * (1 << 26), "more than 1,048,576 zeros follow its end"),
        (gzip.compress(INNER)[:-9], "damaged gzip file .it ends before"),
        (gzip.compress(INNER)[:-1], "damaged gzip file .it ends before"),
        (gzip.compress(INNER)[:-8] + b"\0" * 8, "damaged gzip file .*incorrect data check"),
        (gzip.compress(INNER) + b"more", "damaged gzip file .*incorrect header"),
    ],
    ids=["name", "padding", "cut", "cut in its sum", "other sum", "rest"],
)
def test_gzip_files_that_are_traps_or_damaged_are_refused(tmp_path, body, message):
    (tmp_path / "labels.gz").write_bytes(body)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "labels.gz")


def test_the_sizes_in_an_idx_header_are_bounded(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 2000, 1000, 1000) + bytes(9)))
    with pytest.raises(DataError, match=r"should hold 2,000,000,000 bytes by the shape \(2000, 1"):
        read_idx(path)


def test_a_line_that_is_no_name_is_refused(tmp_path):
    path = tmp_path / "trials_to_train.txt"
    for line in ("a" * 300, "/", "..", "x/../a", "a\0b"):
        path.write_text(f"{line}\n")
        with pytest.raises(DataError, match="row 1 names"):
            gesture.read_trials(path)


@pytest.mark.parametrize(
    "row", ["1_0,0,5", "\uff11,0,5", "1,0,5\x0c2,6,9", "1,0,+5", "1,0," + "9" * 30]
)
def test_a_row_of_other_numbers_is_refused(tmp_path, row):
    (tmp_path / "a_labels.csv").write_text(f"{gesture.HEADER}\n1,0,5\n{row}\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 3 is"):
        gesture.read_label_table(tmp_path / "a_labels.csv")


def test_a_header_of_lines_without_end_is_refused(tmp_path):
    (tmp_path / "a.aedat").write_bytes(b"#!AER-DAT2.0\r\n" + b"#\n" * (1 << 22))
    with pytest.raises(DataError, match="a header of more than 1,048,576 bytes"):
        read_aedat2(tmp_path / "a.aedat")


def test_times_beyond_all_clocks_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    for number in ("9" * 30, "9" * 5000):
        path.write_text(f"class,startTime_usec,endTime_usec\n1,1,{number}\n")
        with pytest.raises(DataError, match="row 2 is"):
            gesture.read_label_table(path)


# HDF5


h5py = pytest.importorskip("h5py")


@pytest.fixture
def spikes(tmp_path):
    """A function that opens a file with two samples of spikes and no labels."""

    def write(**options):
        root = h5py.File(tmp_path / "file.h5", "w", libver="latest")
        for name, kind in (("times", np.float16), ("units", np.uint16)):
            column = root.create_dataset(
                f"spikes/{name}", (2,), dtype=h5py.vlen_dtype(np.dtype(kind)), **options
            )
            for sample in range(2):
                column[sample] = np.zeros(1, kind)
        return root

    return write


def test_labels_in_other_files_are_not_read(tmp_path, spikes):
    (tmp_path / "secret").write_bytes(bytes([7, 3]))
    with spikes() as root:
        secret = [(str(tmp_path / "secret"), 0, 2)]
        root.create_dataset("labels", (2,), np.uint8, external=secret)
    with pytest.raises(DataError, match="labels in external storage"):
        read_shd_file(tmp_path / "file.h5")
    with spikes() as root:
        layout = h5py.VirtualLayout((2,), np.uint16)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "labels", shape=(2,))
        root.create_virtual_dataset("labels", layout, fillvalue=5)
    with pytest.raises(DataError, match="labels in virtual storage"):
        read_shd_file(tmp_path / "file.h5")


@pytest.mark.parametrize("link", [h5py.SoftLink("/spikes/units"), h5py.ExternalLink("o.h5", "/l")])
@pytest.mark.parametrize("name", ["labels", "spikes"])
def test_links_are_not_followed(tmp_path, spikes, link, name):
    with h5py.File(tmp_path / "o.h5", "w") as other:
        other["l"] = np.arange(2)
    with spikes() as root:
        if name == "spikes":
            del root["spikes"]
        root[name] = link
    with pytest.raises(DataError, match="by way of a link"):
        read_shd_file(tmp_path / "file.h5")


@pytest.mark.parametrize("options", [{}, {"chunks": (1 << 20,), "compression": "gzip"}])
def test_shapes_without_end_are_refused_before_memory_is_taken(tmp_path, spikes, options):
    with spikes() as root:
        root.create_dataset("labels", (1 << 40,), np.uint8, fillvalue=1, **options)
    with pytest.raises(DataError, match=r"shape \(1099511627776,\)"):
        read_shd_file(tmp_path / "file.h5")
    with spikes() as root:
        root["labels"] = np.arange(2)
        del root["spikes/times"]
        kind = h5py.vlen_dtype(np.dtype(np.float16))
        root.create_dataset("spikes/times", (1 << 40,), kind, **options)
    with pytest.raises(DataError, match=r"shape \(1099511627776,\)"):
        read_shd_file(tmp_path / "file.h5")


def test_huge_chunks_and_other_filters_are_refused(tmp_path, spikes):
    with spikes() as root:
        root.create_dataset(
            "labels", (2,), np.uint64, maxshape=(None,), chunks=(1 << 25,), compression="gzip"
        )
    with pytest.raises(DataError, match="in chunks of the shape"):
        read_shd_file(tmp_path / "file.h5")
    with spikes() as root:
        root.create_dataset("labels", (2,), np.uint64, compression="lzf")
    with pytest.raises(DataError, match=r"packed by the filters \[32000\]"):
        read_shd_file(tmp_path / "file.h5")


def test_many_samples_that_share_their_values_do_not_add_up(tmp_path, spikes):
    """A reference of 16 bytes may stand for any number of values, again and again."""
    many = 2000
    with spikes(chunks=(2,), maxshape=(None,), compression="gzip") as root:
        root["labels"] = np.zeros(many, np.uint8)
        for name in ("times", "units"):
            column = root[f"spikes/{name}"]
            column[0] = np.zeros(30_000, column.dtype.metadata["vlen"])
            column.resize((many,))
            _, raw = column.id.read_direct_chunk((0,))
            entry = zlib.decompress(raw)[:16]
            for start in range(0, many, 2):
                column.id.write_direct_chunk((start,), zlib.compress(entry * 2))
    with pytest.raises(DataError, match=r"would take .* bytes, but the file has"):
        read_shd_file(tmp_path / "file.h5")


def test_a_reader_that_never_ends_is_ended(tmp_path, spikes, monkeypatch):
    with spikes() as root:
        root["labels"] = np.arange(2)
    script = tmp_path / "endless.py"
    script.write_text("import signal, resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 2))\n"
                      "while True: pass\n")  # fmt: skip
    read = hdf5.Path.with_name
    monkeypatch.setattr(
        hdf5.Path, "with_name", lambda self, name: script if "child" in name else read(self, name)
    )
    with pytest.raises(DataError, match="had not ended after 3 seconds"):
        read_shd_file(tmp_path / "file.h5")
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    with pytest.raises(DataError, match="ended with the code -11"):
        read_shd_file(tmp_path / "file.h5")
    script.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(hdf5, "WAITING", 0.3)
    with pytest.raises(DataError, match=r"had not ended after 0\.8"):
        read_shd_file(tmp_path / "file.h5")


def test_a_heap_that_refers_to_itself_ends(tmp_path, spikes, monkeypatch):
    """Objects of no size make HDF5 go round for ever."""
    monkeypatch.setattr(hdf5, "SECONDS", 1)
    with spikes() as root:
        root["labels"] = np.arange(2)
    body = bytearray((tmp_path / "file.h5").read_bytes())
    heap = body.find(b"GCOL")
    for place in (16, 28, 52, 64, 76):  # sizes and numbers of its objects
        damaged = bytearray(body)
        damaged[heap + place : heap + place + 8] = bytes(8)
        (tmp_path / "damaged.h5").write_bytes(damaged)
        with contextlib.suppress(DataError):
            assert len(read_shd_file(tmp_path / "damaged.h5")[0]) == 2


# Pictures

pytest.importorskip("PIL")


def png(width, height, bits=8, colour=2, rows=b""):
    def chunk(kind, body):
        sum_ = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + sum_

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(bits):
    """An RGB picture of 1 x 1 pixels, its values at the end."""
    tags = [
        *((256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, 210), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 3 * bits // 8)),
    ]
    body = b"II*\0" + struct.pack("<IH", 8, len(tags))
    body += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return body.ljust(200, b"\0") + struct.pack("<3H", bits, bits, bits) + bytes(4) + bytes(6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        png(2, 2, 16, 2, (b"\0" + struct.pack(">3H", 255, 256, 65535) * 2) * 2),
        png(2, 2, 16, 4, (b"\0" + struct.pack(">2H", 255, 65535) * 2) * 2),
        png(2, 2, 16, 6, (b"\0" + struct.pack(">4H", 255, 256, 257, 65535) * 2) * 2),
        b"P6 1 1 65535\n" + bytes(6),
        b"P6 1 1 1023\n" + bytes(6),
        b"P3 1 1 1023\n 5 1023 7\n",
        tiff(16),
    ],
    ids=["rgb", "grey and alpha", "rgba", "ppm", "ppm of 10 bits", "ppm in text", "tiff"],
)
def test_more_than_eight_bits_a_channel_are_refused(tmp_path, body, training):
    (tmp_path / "a").write_bytes(body)
    with pytest.raises(DataError, match=r"is a picture of 1[06] bits a channel"):
        ImageFiles([str(tmp_path / "a")], SIZE, training)[[0]]


@pytest.mark.parametrize(
    "body", [png(1, 1, 8, 2, bytes(4)), b"P6 1 1 255\n\0\0\0", b"P6 1 1 15\n\0\0\0", tiff(8)]
)
def test_eight_bits_or_less_are_read(tmp_path, body):
    (tmp_path / "a").write_bytes(body)
    assert ImageFiles([str(tmp_path / "a")], SIZE, False)[[0]].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (20_000, 20_000, "pixels"),
        ((1 << 31) - 1, 1, "pixels"),
        (1, 50_000_000, "would be resized to 256 x 12800000000"),
        (0, 5, "damaged|0 x 5 pixels"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_size_in_a_header_is_bounded(tmp_path, width, height, message, monkeypatch):
    (tmp_path / "a.png").write_bytes(png(width, height, 1, 0))
    files = ImageFiles([str(tmp_path / "a.png")], ImageSettings(size=8), False)
    if "resized" in message:  # its header and not its pixels is what is looked at
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: None)
        monkeypatch.setattr("PIL.Image.Image.convert", lambda self, mode: self)
    with pytest.raises(DataError, match=message):
        files[[0]]


# Folders


@pytest.fixture
def folder(tmp_path):
    for part in ("train", "val"):
        for name in "ab":
            (tmp_path / part / name / "more").mkdir(parents=True)
            picture(0).save(tmp_path / part / name / "1.png")
            picture(1).save(tmp_path / part / name / "more" / "2.png")
    return tmp_path


@pytest.mark.parametrize("target", [".", "..", "more"])
def test_folders_that_are_met_twice_are_refused(folder, target):
    (folder / "train" / "a" / "link").symlink_to(target)
    with pytest.raises(DataError, match=r"is the same folder as .* by way of a link"):
        load_image_folder(folder / "train" / ".." if target == "." else folder, SIZE)


def test_links_to_folders_elsewhere_are_followed(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    picture(2).save(other / "3.png")
    (folder / "train" / "a" / "link").symlink_to(other)
    assert len(load_image_folder(folder, SIZE).train_images) == 5


def test_a_fifo_among_pictures_is_named(folder):
    os.mkfifo(folder / "train" / "a" / "x.png")
    data = load_image_folder(folder, SIZE, threads=1)
    with pytest.raises(DataError, match=r"x\.png cannot be read \(a FIFO"):
        data.train_images[:]


@pytest.fixture
def locked(folder):
    """A folder in that of a class that this user may not look into; as root, another one does."""
    place = folder / "train" / "a" / "more"
    place.chmod(0)
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and path != folder.anchor and path.name:
            path.chmod(path.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    yield place
    place.chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs another user in a process of its own")
def test_a_folder_that_may_not_be_read_is_an_error(folder, locked):
    pid = os.fork()
    if pid == 0:
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            load_image_folder(folder, SIZE)
        except DataError as error:
            os._exit(0 if f"{locked} cannot be read (Permission denied)" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_data_set_in_a_folder_that_may_not_be_read_is_not_called_absent(tmp_path, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path) == str(tmp_path / "nmnist"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"nmnist cannot be read \(Permission denied\)"):
        load_events("nmnist", tmp_path)


def test_files_of_pictures_pickle(folder):
    data = load_image_folder(folder, SIZE)
    again = pickle.loads(pickle.dumps(data))
    assert again.test_images[:].equal(data.test_images[:])


@pytest.mark.parametrize(
    ("start", "size", "message"),
    [
        (b"P5 #" + b"a" * (1 << 20), 0, "it has no end"),
        (b"\xff\xd8\xff\xe0", 1 << 28, "a damaged image file"),
        (b"\xff\xd8\xff\xe0", 1 << 40, "has 1,099,511,627,776 bytes; expected at most"),
        (b"RIFF\xff\xff\xff\x3fWEBPVP8X", 1 << 28, "a damaged image file"),
    ],
    ids=["comment", "padding", "size", "one chunk"],
)
def test_pictures_without_end_are_refused(tmp_path, start, size, message):
    with open(tmp_path / "a.ppm", "wb") as file:
        file.write(start)
        file.truncate(max(size, len(start)))  # zeros that take no room on the disk
    with pytest.raises(DataError, match=message):
        ImageFiles([str(tmp_path / "a.ppm")], SIZE, training=False)[0]


@pytest.mark.parametrize("comment", [b"", b"# 300 pixels\n", b"#\n#\n"])
def test_large_files_of_ppm_are_read(tmp_path, comment):
    (tmp_path / "a.pgm").write_bytes(b"P5\n" + comment + b"300 300\n255\n" + b"\xff" * 90000)
    files = ImageFiles([str(tmp_path / "a.pgm")], SIZE, training=False, normalise=False)
    assert files[0].eq(1).all()


@pytest.mark.parametrize("seed", [-1, 1.5, True, 1 << 63])
def test_seeds_without_meaning_are_refused(folder, seed):
    files = load_image_folder(folder).train_images
    with pytest.raises(InputError, match="seed is"):
        next(files.batches([[0]], seed))
