import contextlib
import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from threefactor.data import read_idx
from threefactor.errors import DataError

shapes = st.one_of(
    array_shapes(min_dims=1, max_dims=1, max_side=300),
    array_shapes(min_dims=3, max_dims=3, max_side=9),
)


def header(*sizes: int, kind: int = 8, dimensions: int | None = None) -> bytes:
    count = len(sizes) if dimensions is None else dimensions
    return bytes((0, 0, kind, count)) + b"".join(size.to_bytes(4, "big") for size in sizes)


@given(array=arrays(np.uint8, shapes), packed=st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read_back(encode_idx, array, packed):
    raw = encode_idx(array)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(gzip.compress(raw) if packed else raw)
        result = read_idx(path)
    assert result.dtype == np.uint8
    assert result.flags.writeable
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("name", ["plain.gz", "packed"])
def test_the_content_decides_on_compression_not_the_name(tmp_path, name):
    raw = header(3) + b"\1\2\3"
    path = tmp_path / name
    path.write_bytes(raw if name.endswith(".gz") else gzip.compress(raw))
    assert read_idx(str(path)).tolist() == [1, 2, 3]


GOOD = header(2, 2, 2) + bytes(range(8))

CORRUPT = {
    "empty": (b"", "is empty"),
    "png": (b"\x89PNG\r\n", "wrong magic number 89 50 4e 47.*expected 00 00 08 01"),
    "web page": (b"<html>404</html>", "perhaps a web page"),
    "git lfs": (b"version https://git-lfs", "perhaps a Git LFS pointer"),
    "two dimensions": (header(2, 2) + bytes(4), "wrong magic number 00 00 08 02"),
    "swapped magic": (b"\x03\x08\0\0" + bytes(12), "wrong magic number 03 08 00 00"),
    "floats": (header(1, kind=0x0D) + bytes(4), "type code 0x0d; expected 0x08"),
    "cut magic": (b"\0\0\x08", "ends within its header: 3 bytes found, at least 8 expected"),
    "no sizes": (header(dimensions=3), "4 bytes found, at least 16 expected"),
    "cut sizes": (GOOD[:10], "10 bytes found, at least 16 expected"),
    "cut data": (GOOD[:-1], r"cut short: 7 bytes of data found, 8 expected.*\(2, 2, 2\)"),
    "no data": (header(5), "cut short: 0 bytes of data found, 5 expected"),
    "long data": (GOOD + b"ab", "too long: 10 bytes of data found, 8 expected"),
    "no samples": (header(0), r"holds no values.*\(0,\)"),
    "no width": (header(4294967295, 4294967295, 0), "holds no values"),
    "absurd": (header(*[4294967295] * 3) + b"x", "should hold 79,228,162,458,924,105,385,300,"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(("raw", "message"), CORRUPT.values(), ids=list(CORRUPT))
def test_a_corrupt_file_is_named_with_what_was_found_and_what_to_do(tmp_path, raw, message, packed):
    path = tmp_path / "broken"
    path.write_bytes(gzip.compress(raw) if packed else raw)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "fetch the data set again" in str(caught.value)


def damaged_gzip() -> dict[str, bytes]:
    whole = gzip.compress(header(5000) + np.random.default_rng(0).bytes(5000))
    return {
        "magic only": whole[:2],
        "cut header": whole[:7],
        "cut": whole[: len(whole) // 2],
        "no trailer": whole[:-8],
        "wrong sum": whole[:-8] + bytes(8),
        "flipped": whole[:40] + bytes(20) + whole[60:],
        "wrong method": whole[:2] + b"\7" + whole[3:],
        "garbage behind": whole + b"garbage",
    }


@pytest.mark.parametrize("raw", damaged_gzip().values(), ids=list(damaged_gzip()))
def test_a_damaged_gzip_file_is_refused(tmp_path, raw):
    path = tmp_path / "broken.gz"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"broken\.gz is a damaged gzip file .*fetch .*again"):
        read_idx(path)


@given(raw=st.binary(max_size=40), packed=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_bytes_give_an_array_or_a_data_error(raw, packed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(gzip.compress(b"\0\0\x08" + raw) if packed else b"\0\0\x08" + raw)
        with contextlib.suppress(DataError):
            assert read_idx(path).size > 0


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a directory; expected an idx file"):
        read_idx(tmp_path)


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nothing cannot be read \(No such file"):
        read_idx(tmp_path / "nothing")


def test_a_file_beyond_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(GOOD)

    def out_of_memory(*args):
        raise MemoryError

    monkeypatch.setattr("threefactor.data.formats.idx._read_payload", out_of_memory)
    with pytest.raises(DataError, match="does not fit into memory"):
        read_idx(path)
