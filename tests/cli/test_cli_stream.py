"""The command stream, run as a user would."""

import json

import pytest

from threefactor import training
from threefactor.recipes import recipe

SMALL = {"epochs": 1, "hidden": [20], "steps": 2, "data.train": 200, "data.test": 60}
SHORT = ("--samples", 40, "--every", 20, "--held-out", 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    training.train(recipe("digits-fc").settings_for("dfa", SMALL), path)
    return path


def test_the_command(folder, run, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "new" / "folder"
    code, text, _ = run(
        "stream", folder, *SHORT, "--labelled", 0.5, "--freeze", "linear1", "--out", out
    )
    assert code == 0
    assert "40 samples, 90 degrees: static" in text
    lines = [json.loads(line) for line in (out / "stream.jsonl").read_text().splitlines()]
    assert [line["samples"] for line in lines] == [20, 40]
    document = json.loads((out / "stream.json").read_text())
    assert document["stream"]["labelled"] == 0.5 and document["frozen"] == [["linear1"]]
    assert document["environment"]["command"].startswith("threefactor stream")
    assert "adapting by DFA" in (out / "stream.svg").read_text()
    code, _, err = run("stream", folder, *SHORT, "--out", out)
    assert code == 2 and "is there already" in " ".join(err.split())


def test_a_short_stream_has_one_line(folder, run, tmp_path):
    code, text, _ = run("stream", folder, "--samples", 30, "--held-out", 20, "--out", "short")
    assert code == 0 and "30 samples, 90 degrees: static" in text
    assert len((tmp_path / "short" / "stream.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--held-out", "20", "--freeze", "linear7"], 2, "'linear7'"),
        (["--labelled", "2"], 2, "share between 0 and 1"),
        (["--held-out", "60"], 1, "60 test pictures"),
        (["--held-out", "20", "--lr", "-1"], 2, "lr = -1.0"),
    ],
)
def test_errors_leave_nothing_behind(folder, run, tmp_path, arguments, code, message):
    out = tmp_path / "out"
    found, _, err = run("stream", folder, *arguments, "--out", out)
    assert found == code
    assert message in " ".join(err.split())
    assert not out.exists()


def test_a_stream_that_fails_before_its_first_line_leaves_the_folder_free(folder, run, tmp_path):
    out = tmp_path / "out"
    code, _, err = run("stream", folder, *SHORT, "--lr", 1e30, "--out", out)
    assert code == 1 and "holds NaN or infinity" in err
    assert list(out.iterdir()) == []
    assert run("stream", folder, *SHORT, "--out", out)[0] == 0


def test_of_two_streams_in_one_folder_the_second_is_refused(folder, run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stream.jsonl").touch()  # the first has not written a line yet
    code, _, err = run("stream", folder, *SHORT, "--out", tmp_path / "out")
    assert code == 2 and "is there already" in " ".join(err.split())
    assert (tmp_path / "out" / "stream.jsonl").read_bytes() == b""
