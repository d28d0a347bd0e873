"""AEDAT 4 recordings, of a file that iniVation's dv-processing wrote."""

import base64
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from threefactor.data.formats.aedat4 import read_aedat4
from threefactor.data.own.kinds import KINDS
from threefactor.errors import ConfigurationError, DataError

# dv.io.MonoCameraWriter, LZ4: event i at 1.7e15 + 1000 i us, x = i mod 12, y = i mod 10, ON if 3
# divides i.
WRITTEN = base64.b64decode(
    "IyFBRVItREFUNC4wDQokAwAAGAAAAElPSEUAAAAAAAAKABgABAAMAAgACgAAAAEAAAAQAAAAaQUAAAAAAAAAAAAA7Q"
    "IAADxkdiB2ZXJzaW9uPSIyLjAiPgogICAgPG5vZGUgbmFtZT0ib3V0SW5mbyIgcGF0aD0iL291dEluZm8vIj4KICAg"
    "ICAgICA8bm9kZSBuYW1lPSIwIiBwYXRoPSIvb3V0SW5mby8wLyI+CiAgICAgICAgICAgIDxhdHRyIGtleT0iY29tcH"
    "Jlc3Npb24iIHR5cGU9InN0cmluZyI+TFo0PC9hdHRyPgogICAgICAgICAgICA8YXR0ciBrZXk9Im9yaWdpbmFsTW9k"
    "dWxlTmFtZSIgdHlwZT0ic3RyaW5nIj5Nb25vQ2FtZXJhV3JpdGVyPC9hdHRyPgogICAgICAgICAgICA8YXR0ciBrZX"
    "k9Im9yaWdpbmFsT3V0cHV0TmFtZSIgdHlwZT0ic3RyaW5nIj5ldmVudHM8L2F0dHI+CiAgICAgICAgICAgIDxhdHRy"
    "IGtleT0idHlwZURlc2NyaXB0aW9uIiB0eXBlPSJzdHJpbmciPkN1c3RvbSBkYXRhIHR5cGUgb3V0cHV0LjwvYXR0cj"
    "4KICAgICAgICAgICAgPGF0dHIga2V5PSJ0eXBlSWRlbnRpZmllciIgdHlwZT0ic3RyaW5nIj5FVlRTPC9hdHRyPgog"
    "ICAgICAgICAgICA8bm9kZSBuYW1lPSJpbmZvIiBwYXRoPSIvb3V0SW5mby8wL2luZm8vIj4KICAgICAgICAgICAgIC"
    "AgIDxhdHRyIGtleT0ic2l6ZVgiIHR5cGU9ImludCI+MTI8L2F0dHI+CiAgICAgICAgICAgICAgICA8YXR0ciBrZXk9"
    "InNpemVZIiB0eXBlPSJpbnQiPjEwPC9hdHRyPgogICAgICAgICAgICAgICAgPGF0dHIga2V5PSJzb3VyY2UiIHR5cG"
    "U9InN0cmluZyI+dGVzdDwvYXR0cj4KICAgICAgICAgICAgPC9ub2RlPgogICAgICAgIDwvbm9kZT4KICAgIDwvbm9k"
    "ZT4KPC9kdj4KAAAAAAAAACsCAAAEIk0YQEDAHAIAAPIjPAMAABAAAABFVlRTAAAGAAgABAAGAAAABAAAADIAAAAAQB"
    "4YJAoGAAAAAAABAAAA6EMQABEBDgBCAADQRxAAMQIAAiQAIrhLEAAxAwADIgAioE8QABEEUgBCAACIUxAAMQUABTAA"
    "InBXEAAxBgAGMAAiWFsQADEHAAcgACJAXxAAMQgACBAAIihjEAAxCQAJMAAiEGcQABEKHgBCAAD4ahAAEQseAEIAAO"
    "BuEAAxAAACEgAiyHIQADEBAAMyACKwdhAAEwKgACKYehAAMQMABTAAIoB+EAACFgFCAABoghAAEwWgACJQhhAAMQYA"
    "CDAAIjiKEAAxBwAJYAAiII4QABEIDgBCAAAIkhAAEwlCASLwlRAAEwpAASLYmRAAEwugACLAnRAAMQAABGAAIqihEA"
    "ATAUABIpClEAARArYBQgAAeKkQADEDAAcwACJgrRAAEwRAASJIsRAAEwWgACIwtRAAEwbgASIYuRAAAj4AQgAAAL0Q"
    "ABMIoAAi6MAQABMJ4AEi0MQQABMKQAEiuMgQABMLoAAioMwQABMA4AEiiNAQABMBQAEicNQQABMCoAAiWNgQABMD4A"
    "EiQNwQABEEjQBCAAAo4BAAAp4BQgAAEOQQABMG4AEi+OcQABMHQAEi4OsQABMIoAAiyO8QABMJ4AEisPMQABMKQAEi"
    "mPcQABMLoAAigPsQABMA4AEiaP8QAIABAAkAAAAAAAAAAAAEIk0YQEDAWwAAAPEmXAAAABAAAABGVEFCAAAGAAgABA"
    "AGAAAABAAAAAEAAAAUAAAAAAAOACwADAAEABQAHAAkAA4UAIIAACsCAAA+Aw0AEjIHAPACAABAHhgkCgYAaP8eGCQK"
    "BgAAAAAA"
)


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "one.aedat4"
    path.write_bytes(WRITTEN)
    return path


def test_events_are_those_that_were_written(recording):
    pytest.importorskip("aedat")
    found = read_aedat4(recording, (10, 12))
    number = np.arange(50)
    assert found["t"].tolist() == (1_700_000_000_000_000 + 1000 * number).tolist()
    assert found["x"].tolist() == (number % 12).tolist()
    assert found["y"].tolist() == (number % 10).tolist()
    assert found["p"].tolist() == (number % 3 == 0).tolist()


def test_a_folder_of_them_can_be_trained_with(tmp_path):
    pytest.importorskip("aedat")
    for part in ("train", "test"):
        for label in ("left", "right"):
            folder = tmp_path / part / label
            folder.mkdir(parents=True)
            (folder / "a.aedat4").write_bytes(WRITTEN)
    data = KINDS["events"](path=str(tmp_path), steps=5)
    assert data.input_shape == (2, 10, 12)
    assert float(data.train[0][[0]].sum()) == 50


@pytest.mark.parametrize("cut", [12, 200, 700, 1200])
def test_damaged_files_are_named(recording, cut):
    pytest.importorskip("aedat")
    recording.write_bytes(WRITTEN[:cut])
    with pytest.raises(DataError, match=r"one\.aedat4"):
        read_aedat4(recording)


def test_changed_bytes_never_end_this_process(recording):
    pytest.importorskip("aedat")
    chance, kinds = random.Random(0), set()
    for _ in range(12):
        changed = bytearray(WRITTEN)
        for _ in range(8):
            changed[chance.randrange(10, len(changed))] = chance.randrange(256)
        recording.write_bytes(changed)
        try:
            kinds.add(len(read_aedat4(recording)))
        except DataError:
            kinds.add("refused")
    assert "refused" in kinds


def test_other_files_and_events_outside_are_named(recording):
    pytest.importorskip("aedat")
    with pytest.raises(DataError, match="outside the sensor"):
        read_aedat4(recording, (5, 5))
    recording.write_bytes(b"#!AER-DAT3.1" + WRITTEN)
    with pytest.raises(DataError, match=r"does not begin with #!AER-DAT4"):
        read_aedat4(recording)


def test_without_the_library_it_says_what_to_install_or_convert_with(recording, monkeypatch):
    libraries = [p for p in sys.path if not (Path(p) / "aedat").is_dir()]
    monkeypatch.setattr(sys, "path", libraries)
    with pytest.raises(ConfigurationError, match=r"threefactor\[aedat4\].*dv-processing"):
        read_aedat4(recording)
