"""Files of JSON lines: `metrics.jsonl` and `tracked.jsonl`."""

import errno
import os
from pathlib import Path

import pytest

from threefactor.errors import CheckpointError
from threefactor.training.folder.files import append_line, read_lines, write_atomically, write_lines


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_lines_come_back(tmp_path):
    path = tmp_path / "tracked.jsonl"
    assert read_lines(path) == ([], "")
    for i in range(3):
        append_line(path, {"batches": i})
    assert read_lines(path) == ([{"batches": 0}, {"batches": 1}, {"batches": 2}], "")
    write_lines(path, [{"batches": 7}])
    assert read_lines(path) == ([{"batches": 7}], "")


def test_what_was_cut_short_is_left_out(tmp_path):
    path = tmp_path / "tracked.jsonl"
    path.write_text('{"batches": 0}\n{"batches": 1, "fir')
    found, torn = read_lines(path)
    assert found == [{"batches": 0}] and torn.startswith("line 2 of tracked.jsonl is cut short")


def test_what_follows_a_damaged_line_is_not_left_out(tmp_path):
    """A kill cuts the last line alone; lines after another would be lost when the file is kept."""
    path = tmp_path / "tracked.jsonl"
    path.write_text('{"batches": 0}\n{"batches": 1, "fir\n{"batches": 2}\n')
    with pytest.raises(CheckpointError, match=r"line 2 of .*tracked\.jsonl is damaged"):
        read_lines(path)


def test_what_is_no_object_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n5\n')
    with pytest.raises(CheckpointError, match=r"line 2 of .*metrics\.jsonl is damaged"):
        read_lines(path)


@pytest.mark.parametrize("before", [0, 2])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch, before):
    path = tmp_path / "tracked.jsonl"
    for i in range(before):
        append_line(path, {"batches": i})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)  # the bytes are in the file already
        with pytest.raises(CheckpointError, match=r"tracked\.jsonl: No space left.*resumed"):
            append_line(path, {"batches": before})
    assert len(read_lines(path)[0]) == before
    append_line(path, {"batches": before})
    assert len(read_lines(path)[0]) == before + 1


def test_a_disk_too_full_for_a_new_file_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(CheckpointError, match="No space left"):
        append_line(tmp_path / "tracked.jsonl", {})


def test_what_a_link_names_is_written_and_the_link_stays(tmp_path):
    (tmp_path / "shared").mkdir()
    real, link = tmp_path / "shared" / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(Path("shared", "real.json"))
    write_atomically(link, b"new")
    assert link.is_symlink() and real.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == ["link.json", "real.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_or_device_is_written_to_and_not_replaced(tmp_path):
    """A root user's /dev/stdout would become a file for everybody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, b"lines")
    assert os.read(reader, 100) == b"lines"
    os.close(reader)
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]
    write_atomically(pipe, b"kept")  # nobody reads it now: nobody is waited for
    assert pipe.read_bytes() == b"kept" and list(tmp_path.iterdir()) == [pipe]


def test_a_folder_and_a_name_that_is_too_long_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot write \.: Is a directory"):
        write_atomically(Path("."), b"")
    with pytest.raises(CheckpointError, match="File name too long"):
        write_atomically(Path("a" * 300), b"")
    write_atomically(Path("\N{CJK UNIFIED IDEOGRAPH-65E5}" * 80), b"")  # 240 bytes
    assert len(list(tmp_path.iterdir())) == 1
