import errno
import re
import sys

import pooch
import pytest
from data.described import with_files

from threefactor.data import DATASETS, available, data_folder, fetch, load
from threefactor.errors import ConfigurationError, DataError


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_files_arrive_and_are_not_fetched_twice(tmp_path, tiny, packed, server, mirror, capfd):
    folder = fetch("mnist", tmp_path, mirrors=[mirror("good")])
    assert folder == tmp_path / "mnist"
    assert contents(folder) == packed
    assert len(server.requests) == 4
    assert fetch("mnist", tmp_path, mirrors=[mirror("good")]) == folder
    assert len(server.requests) == 4
    assert len(load("mnist", tmp_path).train_labels) == 40
    assert capfd.readouterr() == ("", "")


def test_only_what_is_missing_is_fetched(tmp_path, tiny, packed, server, mirror):
    folder = fetch("mnist", tmp_path, mirrors=[mirror("good")])
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    fetch("mnist", tmp_path, mirrors=[mirror("good")])
    assert server.requests[4:] == ["/good/t10k-labels-idx1-ubyte.gz"]
    assert contents(folder) == packed


def test_the_entrys_mirrors_and_the_cache_are_the_default(tiny, mirror, monkeypatch, tmp_path):
    monkeypatch.setitem(
        DATASETS, "mnist", with_files(tiny, *tiny.files.published, mirrors=(mirror("good"),))
    )
    assert fetch("mnist") == data_folder("mnist")
    assert available("mnist")
    monkeypatch.setenv("THREEFACTOR_DATA", str(tmp_path / "sets"))
    assert fetch("mnist") == tmp_path / "sets" / "mnist"


def test_one_mirror_may_be_given_without_its_last_slash(tmp_path, tiny, packed, mirror):
    assert contents(fetch("mnist", tmp_path, mirrors=mirror("good").rstrip("/"))) == packed


def test_fetched_files_may_be_read_by_others(tmp_path, tiny, mirror):
    folder = fetch("mnist", tmp_path, mirrors=[mirror("good")])
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["404", "500", "cut", "wrong"])
def test_the_next_mirror_steps_in_and_is_kept(tmp_path, tiny, packed, server, mirror, kind):
    folder = fetch("mnist", tmp_path, mirrors=[mirror(kind), mirror("good")])
    assert contents(folder) == packed
    assert [path.split("/")[1] for path in server.requests] == [kind, *["good"] * 4]


def test_a_dead_mirror_is_passed_over(tmp_path, tiny, packed, mirror):
    dead = "http://127.0.0.1:9/"
    assert contents(fetch("mnist", tmp_path, mirrors=[dead, mirror("good")])) == packed


def test_when_all_mirrors_fail_each_reason_is_told_and_nothing_stays(tmp_path, tiny, mirror):
    kinds = ("404", "500", "cut", "wrong")
    with pytest.raises(DataError) as caught:
        fetch("mnist", tmp_path, mirrors=[mirror(kind) for kind in kinds])
    text = str(caught.value)
    assert "no mirror delivered train-images-idx3-ubyte.gz of the data set 'mnist'" in text
    reasons = ("404 Client Error", "500 Server Error", ".*", ".*hash")
    for kind, reason in zip(kinds, reasons, strict=True):
        assert re.search(f"(?m)^  {mirror(kind)}: {reason}", text)
    assert f"in {tmp_path / 'mnist'}" in text and "by hand" in text
    assert contents(tmp_path / "mnist") == {}


def test_a_file_with_other_contents_is_refused_and_left_alone(tmp_path, tiny, server, mirror):
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match="delete it or name another folder") as caught:
        fetch("mnist", tmp_path, mirrors=[mirror("good")])
    assert str(path) in str(caught.value) and "left untouched" in str(caught.value)
    assert contents(path.parent) == {path.name: b"mine"}
    assert server.requests == []


def test_a_directory_in_a_files_place_is_refused(tmp_path, tiny, mirror):
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").mkdir(parents=True)
    with pytest.raises(DataError, match="it is not a file"):
        fetch("mnist", tmp_path, mirrors=[mirror("good")])


@pytest.mark.parametrize(
    ("failure", "expected", "message"),
    [
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
        (OSError(errno.ENOSPC, "No space left on device"), DataError, "No space left .*--data-dir"),
    ],
    ids=["interrupt", "full disk"],
)
def test_nothing_half_written_stays_behind(tmp_path, tiny, monkeypatch, failure, expected, message):
    def break_off(self, url, output_file, pooch, check_only=False):
        with open(output_file, "wb") as file:
            file.write(b"half")
        raise failure

    monkeypatch.setattr(sys.modules["threefactor.data.fetch"]._Download, "__call__", break_off)
    with pytest.raises(expected, match=message):
        fetch("mnist", tmp_path, mirrors=["http://127.0.0.1/"])
    assert contents(tmp_path / "mnist") == {}


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, tiny, mirror):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot keep 'mnist' in .*file"):
        fetch("mnist", tmp_path / "file", mirrors=[mirror("good")])


def test_progress_is_shown_on_standard_error(tmp_path, tiny, packed, mirror, capfd):
    folder = fetch("mnist", tmp_path, progress=True, mirrors=[mirror("cut"), mirror("good")])
    assert contents(folder) == packed
    out, err = capfd.readouterr()
    assert out == ""
    assert "t10k-labels-idx1-ubyte.gz" in err


def test_poochs_log_level_is_restored(tmp_path, tiny, mirror):
    level = pooch.get_logger().level
    fetch("mnist", tmp_path, mirrors=[mirror("good")])
    assert pooch.get_logger().level == level


def test_digits_need_no_fetch(tmp_path):
    with pytest.raises(ConfigurationError, match="'digits' needs no download"):
        fetch("digits", tmp_path)


def test_an_unknown_name_and_an_empty_list_of_mirrors_are_refused(tmp_path, tiny):
    with pytest.raises(ConfigurationError, match="did you mean 'mnist'"):
        fetch("minst", tmp_path)
    with pytest.raises(ConfigurationError, match="mirrors is empty"):
        fetch("mnist", tmp_path, mirrors=[])
    with pytest.raises(ConfigurationError, match="mirrors is empty"):
        fetch("mnist", tmp_path)
