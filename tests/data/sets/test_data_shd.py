"""Spikes in HDF5 files, written here in the layout of the Spiking Heidelberg Digits."""

import contextlib
import gzip
import hashlib
import io
import sys
import zipfile

import numpy as np
import pytest
import torch
from data.described import with_files

from threefactor.data import DATASETS, DataFile, available, describe, fetch, load_spikes
from threefactor.data import read_shd_file as read
from threefactor.data.formats import hdf5
from threefactor.errors import ConfigurationError, DataError, InputError

h5py = pytest.importorskip("h5py")


def f16(*values):
    return np.array(values, np.float16)


def u16(*values):
    return np.array(values, np.uint16)


@pytest.fixture
def write(tmp_path, encode_shd):
    """A function that writes one file of a few samples, some of which may be replaced."""

    def function(times=None, units=None, labels=None):
        times = [f16(0.25, 0.5), f16(0.125)] if times is None else times
        units = [u16(3, 699), u16(0)] if units is None else units
        labels = u16(19, 0) if labels is None else labels
        path = tmp_path / "own.h5"
        path.write_bytes(encode_shd(times, units, labels))
        return path

    return function


def check(spikes, labels, rows):
    """As many spikes, each in its sample, at its time and unit; sorted by time, then unit."""
    times, units, expected = rows
    assert len(spikes) == len(times)
    for b in range(len(times)):
        got = list(zip(*spikes.sample(b), strict=True))
        assert got == sorted(zip(times[b].astype(float), units[b], strict=True))
    np.testing.assert_array_equal(labels.numpy(), expected)
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("ending", [".h5", ".h5.gz", ".h5.zip"])
def test_the_published_layout_is_read(tmp_path, place_shd, recordings, ending):
    place_shd(tmp_path / "shd", ending)
    assert available("shd", tmp_path)
    data = load_spikes("shd", tmp_path)
    check(data.train_spikes, data.train_labels, recordings["train"])
    check(data.test_spikes, data.test_labels, recordings["test"])
    assert (data.input_shape, data.outputs, data.name) == ((700,), 20, "shd")
    assert (data.classes[0], data.classes[9], data.classes[10], data.classes[15]) == (
        "zero", "nine", "null", "fünf",
    )  # fmt: skip


def test_files_of_ones_own_have_a_name_of_their_own(tmp_path, place_shd, recordings):
    folder = place_shd(tmp_path / "shd-like")
    for part in ("train", "test"):
        (folder / f"shd_{part}.h5").rename(folder / f"{part}.h5")
    data = load_spikes("shd-like", tmp_path)
    check(data.test_spikes, data.test_labels, recordings["test"])
    assert (data.name, data.input_shape, data.outputs) == ("shd-like", (700,), 20)
    assert not available("shd", tmp_path)
    with pytest.raises(ConfigurationError, match=r"write train\.h5 and test\.h5"):
        fetch("shd-like", tmp_path)
    with pytest.raises(DataError, match=r"no train\.h5\.gz.*\n.*write train\.h5"):
        load_spikes("shd-like", tmp_path / "elsewhere")


def test_times_are_not_changed_by_a_window(tmp_path, place_shd):
    place_shd(tmp_path / "shd")
    short, long = (load_spikes("shd", tmp_path, window) for window in (0.1, 5.0))
    np.testing.assert_array_equal(short.train_spikes.times, long.train_spikes.times)
    assert short.train_spikes.times.max() > 0.1


def test_the_unpacked_file_is_preferred(tmp_path, place_shd):
    folder = place_shd(tmp_path / "shd", ".h5")
    for part in ("train", "test"):
        (folder / f"shd_{part}.h5.gz").write_bytes(b"never opened")
    assert len(load_spikes("shd", tmp_path).test_spikes) == 5


def test_both_files_are_fetched_and_read(tmp_path, place_shd, server, mirror, monkeypatch):
    paths = place_shd(tmp_path / "published", ".h5.gz").iterdir()
    bodies = {path.name: path.read_bytes() for path in sorted(paths, reverse=True)}
    server.bodies.update(bodies)
    files = tuple(DataFile(name, hashlib.md5(body).hexdigest()) for name, body in bodies.items())
    assert [file.name for file in files] == [file.name for file in DATASETS["shd"].files.published]
    monkeypatch.setitem(DATASETS, "shd", with_files(DATASETS["shd"], *files))
    folder = fetch("shd", tmp_path, mirrors=[mirror("wrong"), mirror("good")])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == bodies
    assert len(load_spikes("shd", tmp_path).train_spikes) == 12
    assert fetch("shd", tmp_path, mirrors=[mirror("404")]) == folder


def test_absent_files_are_listed_with_every_way_of_having_them(tmp_path):
    with pytest.raises(DataError, match=r"Looked, for plain, \.gz or \.zip files") as caught:
        load_spikes("shd", tmp_path)
    assert "no shd_train.h5.gz, shd_test.h5.gz" in str(caught.value)
    assert "threefactor[data]" in describe("shd", tmp_path)


def test_a_file_of_ones_own_may_have_other_sizes(write):
    spikes, labels = read(str(write()), size=700, classes=20)
    assert (len(spikes), spikes.size, labels.tolist()) == (2, 700, [19, 0])
    assert len(read(write(labels=np.array([2, 2])), size=1000, classes=3)[0]) == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", ">f8"])
def test_times_of_higher_precision_or_another_byte_order_are_kept(write, dtype):
    times = [np.array([0.3, 0.1], dtype), np.array([1e-7], dtype)]
    units = [np.array([3, 699], ">u2"), np.array([0], ">u2")]
    spikes, _ = read(write(times=times, units=units))
    assert spikes.times.tolist() == [*map(float, np.sort(times[0])), float(times[1][0])]
    assert spikes.addresses.tolist() == [699, 3, 0]


def test_samples_without_spikes_and_simultaneous_spikes_are_kept(write):
    times = [np.array([0.5, 0.5, 0.5], np.float16), np.array([], np.float16)]
    units = [np.array([7, 5, 7], np.uint16), np.array([], np.uint16)]
    spikes, _ = read(write(times=times, units=units))
    assert spikes.offsets.tolist() == [0, 3, 3]
    assert spikes.addresses.tolist() == [5, 7, 7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times": [f16(0.1, 0.2), f16(-0.5)]}, r"sample 1 .*has the time -0\.5; expected finite"),
        ({"times": [f16(0.1, np.nan), f16(0.1)]}, "sample 0 .*has the time nan; expected finite"),
        ({"times": [f16(0.1, 0.2), f16(np.inf)]}, "sample 1 .*has the time inf"),
        ({"times": [f16(0.1), f16(0.2)]}, "sample 0 .*has 1 times but 2 units"),
        (
            {"units": [u16(0, 1), u16(700)]},
            "sample 1 .*has units from 700 to 700; expected 0 to 69",
        ),
        ({"units": [np.array([0, -1]), np.array([1])]}, "sample 0 .*has units from -1 to 0"),
        ({"times": [np.array([1, 2]), np.array([3])]}, "times of type int64"),
        ({"units": [f16(0, 1), f16(2)]}, "units of type float16"),
        ({"labels": u16(3, 20)}, r"sample 1 .*has the label 20; expected 0 to 19"),
        ({"labels": np.array([-1, 2])}, "sample 0 .*has the label -1"),
        ({"labels": f16(1, 2)}, "labels of type float16"),
        ({"labels": u16(1, 2, 3)}, "2 arrays of times, 2 of units and 3 labels"),
        ({"times": [f16(0.1, 0.2)]}, "1 arrays of times, 2 of units and 2 labels"),
        ({"labels": np.zeros((2, 1), np.uint16)}, r"shape \(2, 1\)"),
    ],
)
def test_values_out_of_range_are_refused_with_the_sample(write, changes, message):
    path = write(**changes)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_files_of_another_layout_are_refused_with_what_they_hold(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as root:
        root["images"] = np.zeros(3)
    with pytest.raises(DataError, match=r"no spikes/times, but images; expected spikes/times"):
        read(path)
    with h5py.File(path, "a") as root:
        root["spikes/times"] = np.zeros((2, 3))
        root["spikes/units"] = np.zeros((2, 3))
    with pytest.raises(
        DataError, match=r"spikes/times has .*float64.*\(2, 3\); expected one array"
    ):
        read(path)
    with h5py.File(path, "w") as root:
        for name, dtype in (("times", np.float16), ("units", np.uint16)):
            root.create_dataset(f"spikes/{name}", (2,), dtype=h5py.vlen_dtype(dtype))
    with pytest.raises(DataError, match="has no labels, but spikes"):
        read(path)
    with h5py.File(path, "w") as root:
        root.create_group("labels")
        root.create_dataset("spikes/times", (0,), dtype=h5py.vlen_dtype(np.float16))
        root.create_group("spikes/units")
    with pytest.raises(DataError, match="has no spikes/units"):
        read(path)


@pytest.mark.parametrize("ending", [".h5", ".h5.gz", ".h5.zip"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.98])
def test_truncated_files_are_refused(tmp_path, place_shd, ending, part):
    path = place_shd(tmp_path / "shd", ending) / f"shd_test{ending}"
    body = path.read_bytes()
    path.write_bytes(body[: int(len(body) * part)])
    with pytest.raises(DataError, match=r"damaged|is not an HDF5 file") as caught:
        load_spikes("shd", tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("position", range(8, 3000, 60))
def test_a_damaged_file_is_an_error_and_not_a_crash(write, position):
    path = write()
    body = bytearray(path.read_bytes())
    body[position : position + 30] = b"\1" * 30  # larger values make HDF5 ask for gigabytes
    path.write_bytes(body)
    with contextlib.suppress(DataError):
        assert read(path)[0].size == 700


@pytest.mark.parametrize(
    ("chunks", "which", "length"),
    [
        *((None, "times", 1 << 31), ((1,), "units", (1 << 31) - 1), ((2,), "times", 1 << 28)),
        *((None, "units", 1 << 20), ((2,), "times", 10_000)),
    ],
)
def test_a_damaged_length_is_refused(tmp_path, chunks, which, length):
    """HDF5 asks for memory, up to 16 gigabytes, before it finds that no array is so long."""
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as root:
        for name, rows in (("times", [f16(0.25, 0.5, 0.75), f16(0.5)]), ("units", [u16(7)] * 2)):
            kind = h5py.vlen_dtype(rows[0].dtype)
            column = root.create_dataset(f"spikes/{name}", (2,), dtype=kind, chunks=chunks)
            column[0], column[1] = rows
        root["labels"] = u16(1, 2)
        column = root[f"spikes/{which}"]
        offset = column.id.get_chunk_info(0).byte_offset if chunks else column.id.get_offset()
    body = bytearray(path.read_bytes())
    assert body[offset : offset + 4] == bytes([3 if which == "times" else 1, 0, 0, 0])
    body[offset : offset + 4] = length.to_bytes(4, "little")
    path.write_bytes(body)
    with pytest.raises(DataError, match="is a damaged HDF5 file"):
        read(path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is not an HDF5 file: it begins with nothing"),
        (b"<html>404</html>", "perhaps a web page"),
        (gzip.compress(b"not this"), "begins with 6e 6f 74"),
        (b"PK\5\6" + bytes(18), r"holds 0 files that end in \.h5; expected one"),
    ],
    ids=["empty", "web page", "gzip of something", "empty zip"],
)
def test_what_is_no_such_file_is_refused(tmp_path, body, message):
    path = tmp_path / "file.h5"
    path.write_bytes(body)
    with pytest.raises(DataError, match=message):
        read(path)


def test_an_archive_with_two_files_or_a_way_out_is_refused(tmp_path):
    path = tmp_path / "file.zip"
    for names, message in (
        (("a.h5", "b.h5"), "holds 2 files that end in"),
        (("a.h5", "../b.h5"), "leads out of its folder"),
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in names:
                archive.writestr(name, b"")
        path.write_bytes(buffer.getvalue())
        with pytest.raises(DataError, match=message):
            read(path)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, place_shd, monkeypatch):
    place_shd(tmp_path / "shd", ".h5.gz")
    monkeypatch.setattr(hdf5, "LIMIT", 1000)
    with pytest.raises(DataError, match="unpacks to more than 1,000 bytes"):
        load_spikes("shd", tmp_path)


def test_absent_files_and_folders_are_refused(tmp_path):
    for path, reason in ((tmp_path / "none.h5", "No such file"), (tmp_path, "directory")):
        with pytest.raises(DataError, match=f"cannot be read .*{reason}"):
            read(path)


@pytest.mark.parametrize("arguments", [{"size": 0}, {"size": 7.0}, {"classes": True}])
def test_sizes_that_are_no_numbers_are_refused(write, arguments):
    with pytest.raises(InputError, match="give a whole number from 1 to"):
        read(write(), **arguments)


def test_without_h5py_the_extra_is_named(tmp_path, place_shd, monkeypatch):
    place_shd(tmp_path / "shd")
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert available("shd", tmp_path)
    with pytest.raises(ConfigurationError, match=r"pip install 'threefactor\[data\]'"):
        load_spikes("shd", tmp_path)
