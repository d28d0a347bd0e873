"""Files of events: read back as written, and refused with file and offset if damaged."""

from pathlib import Path

import numpy as np
import pytest
from data.event_files import (
    AEDAT2,
    AEDAT3,
    aedat2_bytes,
    aedat3_bytes,
    nmnist_bytes,
    packet,
    random_events,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from threefactor.data import EVENT, read_aedat2, read_aedat3, read_nmnist_file
from threefactor.errors import DataError, InputError

SAMPLES = Path(__file__).parents[1] / "real"
# reader, writer, sensor, first byte of event k of a file with three events
FORMATS = {
    "nmnist": (read_nmnist_file, nmnist_bytes, 34, lambda k: 5 * k),
    "aedat2": (read_aedat2, aedat2_bytes, 128, lambda k: len(AEDAT2) + 8 * k),
    # Before the packet of pixels comes another one, of two events.
    "aedat3": (read_aedat3, aedat3_bytes, 128, lambda k: len(AEDAT3) + 28 + 16 + 28 + 8 * k),
}


def events(*rows):
    return np.array(list(rows), dtype=EVENT)


@pytest.fixture(params=FORMATS)
def kind(request):
    return request.param


@pytest.fixture
def save(tmp_path):
    def write(body):
        path = tmp_path / "recording.bin"
        path.write_bytes(body)
        return path

    return write


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 2**32), st.integers(1, 200))
def test_any_events_come_back(tmp_path_factory, kind, seed, count):
    read, encode, size, _ = FORMATS[kind]
    generator = np.random.default_rng(seed)
    written = random_events(generator, count, size, start=int(generator.integers(0, 2**22)))
    path = tmp_path_factory.mktemp("events") / "file"
    path.write_bytes(encode(written))
    found = read(path)
    assert found.dtype == EVENT
    np.testing.assert_array_equal(found, written)


def test_real_recordings_of_n_mnist_are_read():
    """A zero and a one: number of events, duration, balance, and the shape of the digit."""
    zero = read_nmnist_file(SAMPLES / "nmnist-train-0-00002.bin")
    one = read_nmnist_file(SAMPLES / "nmnist-test-1-00003.bin")
    for recording in (zero, one):
        assert 290_000 < recording["t"][-1] < 340_000
        assert 0.45 < recording["p"].mean() < 0.55
    width = [recording["x"].std() for recording in (zero, one)]
    assert width[0] > 1.3 * width[1], "a one is narrower"


def test_the_bits_of_n_mnist(save):
    path = save(bytes([3, 33, 0x80, 0x00, 0x05, 0, 1, 0x7F, 0xFF, 0xFF]))
    expected = events((3, 33, 5, True), (0, 1, 2**23 - 1, False))
    np.testing.assert_array_equal(read_nmnist_file(path), expected)


def test_the_bits_of_aedat_2(save):
    # Row 127 of the camera is column 0 of the picture, its column 0 is row 127; bit 0 means OFF.
    path = save(AEDAT2 + bytes([0, 0, 0x7F, 0x00, 0, 0, 1, 0, 0, 0, 0x00, 0xFF, 0, 0, 1, 1]))
    expected = events((0, 127, 256, True), (127, 0, 257, False))
    np.testing.assert_array_equal(read_aedat2(path), expected)


def test_marks_of_the_camera_are_no_events(save):
    mark = bytes([0, 0, 0x80, 0, 0, 0, 0, 9])
    written = events((5, 6, 10, True))
    np.testing.assert_array_equal(
        read_aedat2(save(AEDAT2 + mark + aedat2_bytes(written, b""))), written
    )


def test_aedat_3_skips_other_packets_and_invalid_events(save):
    words = np.array([[5 << 17 | 6 << 2 | 2 | 1, 70], [1 << 17, 71]], dtype="<u4")
    body = packet(1, 8, 0, words.tobytes(), valid=1) + packet(3, 36, 0, bytes(72))
    np.testing.assert_array_equal(read_aedat3(save(AEDAT3 + body)), events((5, 6, 70, True)))


def test_aedat_3_adds_the_overflow(save):
    written = events((1, 2, 2**31 - 5, True), (3, 4, 2**31 + 7, False), (3, 4, 2**33, False))
    np.testing.assert_array_equal(read_aedat3(save(aedat3_bytes(written))), written)


def test_a_file_cut_short_names_the_offset(kind, save):
    read, encode, *_ = FORMATS[kind]
    body = encode(events((1, 2, 3, True), (4, 5, 6, False)))
    for missing in (1, 3):
        path = save(body[:-missing])
        with pytest.raises(DataError, match=r"recording\.bin is cut short.*offset \d+"):
            read(path)


def test_a_file_without_events_is_refused(kind, save):
    read, encode, *_ = FORMATS[kind]
    with pytest.raises(DataError, match=r"recording\.bin holds no events"):
        read(save(encode(events())))


@pytest.mark.parametrize("kind", ["nmnist", "aedat3"], indirect=True)
@pytest.mark.parametrize("field", ["x", "y"])
def test_events_outside_the_sensor_are_refused(kind, save, field):
    read, encode, size, offset = FORMATS[kind]
    wrong = events((1, 2, 3, True), (4, 5, 6, False), (0, 0, 7, True))
    wrong[field][2] = size
    message = rf"recording\.bin: event 2 at offset {offset(2)} lies at .*{field} = {size}"
    with pytest.raises(DataError, match=message):
        read(save(encode(wrong)))


def test_an_aedat_2_address_of_a_larger_camera_is_refused(save):
    body = AEDAT2 + bytes([0, 1, 0, 0, 0, 0, 0, 9])
    with pytest.raises(DataError, match=rf"event 0 at offset {len(AEDAT2)} .*outside the sensor"):
        read_aedat2(save(body))


def test_times_that_run_backwards_are_refused_or_sorted(kind, save):
    read, encode, _, offset = FORMATS[kind]
    wrong = events((1, 2, 30, True), (4, 5, 29, False), (6, 7, 30, True))
    path = save(encode(wrong))
    message = rf"event 1 at offset {offset(1)} comes at 29 us, before .* at 30 us.*sort=True"
    with pytest.raises(DataError, match=message):
        read(path)
    np.testing.assert_array_equal(read(path, sort=True), wrong[[1, 0, 2]])


@pytest.mark.parametrize("read", [read_aedat2, read_aedat3])
@pytest.mark.parametrize("body", [b"", b"#!AER-DAT1.0\r\n", b"<!DOCTYPE html>", bytes(64)])
def test_a_wrong_magic_number_is_refused(save, read, body):
    with pytest.raises(DataError, match=r"recording\.bin is not such an AEDAT file.*at offset 0"):
        read(save(body))


def test_the_versions_are_told_apart(save):
    some = events((1, 2, 3, True))
    with pytest.raises(DataError, match="AER-DAT3"):
        read_aedat2(save(aedat3_bytes(some)))
    with pytest.raises(DataError, match="AER-DAT2"):
        read_aedat3(save(aedat2_bytes(some)))


@pytest.mark.parametrize("change", [{"number": -1}, {"number": 1, "valid": 2}, {"size": 0}])
def test_a_packet_of_impossible_sizes_is_refused(save, change):
    size = change.pop("size", 8)
    body = packet(1, size, 0, b"", **{"number": 0, **change})
    with pytest.raises(DataError, match=rf"packet at offset {len(AEDAT3)} has type 1"):
        read_aedat3(save(AEDAT3 + body))


def test_a_packet_that_claims_too_much_is_cut_short(save):
    body = packet(1, 8, 0, bytes(16), number=2**30)
    with pytest.raises(
        DataError, match=rf"bytes of the packet at offset {len(AEDAT3)} are missing"
    ):
        read_aedat3(save(AEDAT3 + body))
    with pytest.raises(DataError, match="has no line #!END-HEADER"):
        read_aedat3(save(b"#!AER-DAT3.1\r\n#Format: RAW\r\n"))


def test_an_absent_file_is_named(kind, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.bin cannot be read"):
        FORMATS[kind][0](tmp_path / "nowhere.bin")


@pytest.mark.parametrize("size", [34, (34,), (34.0, 34), ("34", 34), (0, 34), (1 << 16, 34), None])
def test_sensors_without_meaning_are_refused(tmp_path, size):
    (tmp_path / "00001.bin").write_bytes(b"\1\1\0\0\1")
    with pytest.raises(InputError, match="sensor"):
        read_nmnist_file(tmp_path / "00001.bin", size)
