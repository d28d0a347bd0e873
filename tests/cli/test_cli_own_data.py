"""Data of one's own, from the command line."""

import json
import re
import warnings

import numpy as np
import pytest
from PIL import Image

SMALL = ("--set", "hidden=[8]", "--epochs", "1")


@pytest.fixture
def pictures(tmp_path):
    chance = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(6):
            picture = Image.fromarray(chance.integers(0, 255, (5, 4), dtype=np.uint8))
            picture.save(tmp_path / "pets" / name / f"{number}.png")
    return tmp_path / "pets"


@pytest.mark.parametrize("given", ["images:pets", "pets"])
def test_pictures_are_trained_with_and_resumed(run, pictures, given):
    share = ("--set", "test_share=0.33")
    code, out, _ = run("train", "digits-fc", "--data", given, *share, *SMALL, "--out", "r")
    assert code == 0
    assert "data: train: 8 samples of 2 classes: cat 4, dog 4" in out
    config = json.loads((pictures.parent / "r" / "config.json").read_text())
    assert config["settings"]["data"]["name"] == "images"
    assert config["settings"]["data"]["options"]["path"] == "pets"
    assert config["data"]["classes"] == ["cat", "dog"]
    assert config["data"]["found"]["samples"]["test"] == {"cat": 2, "dog": 2}
    assert "own_code" not in config
    code, out, _ = run("train", "--resume", "--out", "r", "--epochs", "2")
    assert code == 0
    assert "after 2 epochs" in out
    assert run("evaluate", "r")[0] == 0
    assert run("analyse", "firing", "r", "--out", "f.json")[0] == 0  # fewer samples than a batch
    assert json.loads((pictures.parent / "f.json").read_text())["result"]["samples"] == 8
    code, out, _ = run("show", "r", "--sample", "1")
    assert code == 0
    assert re.search("Sample 1 of the test data, of class dog, taken for (cat|dog)", out)
    assert run("report", "r", "--out", "page.html")[0] == 0
    Image.fromarray(np.zeros((5, 4), np.uint8)).save(pictures / "cat" / "0.png")
    code, _, err = run("train", "--resume", "--out", "r")
    assert code == 1
    assert "trained on other data" in err


def test_data_that_were_changed_do_not_test_a_run_without_a_word(run, pictures):
    """A share is drawn of what is there: without a file, another one is for testing."""
    share = ("--set", "test_share=0.33")
    assert run("train", "digits-fc", "--data", "pets", *share, *SMALL, "--out", "r")[0] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run("evaluate", "r")[0] == 0
    (pictures / "cat" / "0.png").unlink()
    for words in (("evaluate", "r"), ("show", "r"), ("analyse", "firing", "r")):
        with pytest.warns(UserWarning, match=r"other data than what was found \(8 samples for tr"):
            assert run(*words)[0] == 0
    with pytest.warns(UserWarning, match="the start 'r' was trained on other data than what is"):
        assert run("finetune", "r", "--noise", "0.1", "--epochs", "1", "--out", "f")[0] == 0
    (pictures / "dog" / "0.png").unlink()  # another set is another set
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = ("--data", "digits", "--set", "data.train=20", "--set", "data.test=20")
        code, _, err = run("train", "digits-fc", *other, *SMALL, "--start", "r", "--out", "s")
    assert code == 1 and "is not the one of these settings" in err


def test_a_run_finds_its_data_below_the_data_folder(run, pictures, tmp_path):
    place = tmp_path / "elsewhere"
    place.mkdir()
    pictures.rename(place / "pets")
    options = ("--data-dir", place, "--set", "test_share=0.33", *SMALL)
    assert run("train", "digits-fc", "--data", "pets", *options, "--out", "r")[0] == 0
    place.rename(tmp_path / "moved")
    again = ("train", "--resume", "--out", "r", "--epochs", "2", "--data-dir", tmp_path / "moved")
    code, out, _ = run(*again)
    assert code == 0
    assert "after 2 epochs" in out


def test_events_networks_and_sets_by_name(run, pictures):
    share = ("--set", "test_share=0.33")
    assert run("train", "digits-events", "--data", "pets", *share, *SMALL, "--out", "r")[0] == 0
    few = ("--set", "data.train=20", "--set", "data.test=20")
    assert run("train", "digits-fc", "--data", "digits", *few, *SMALL, "--out", "s")[0] == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--data", "petz"), 2, "unknown data 'petz'"),
        (("--data", "./petz"), 1, "neither a folder nor a file"),
        (("--data", "pets"), 2, "--set test_share=0.2"),
        (("--data", "pets", "--set", "test_sahre=0.3"), 2, "did you mean 'test_share'?"),
        (("--data", "pets", "--set", "test_share=two"), 2, "test_share is 'two'"),
        (("--data", "pets", "--set", "test_share=0.3", "--set", "window=1"), 2, "data.window"),
        (("--data", "tensors:pets", "--set", "test_share=0.3"), 1, "has no train.npz"),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(run, pictures, options, code, message):
    found, out, err = run("train", "digits-fc", *options, *SMALL, "--out", "r")
    assert found == code
    assert message in " ".join((out + err).split())
    assert not (pictures.parent / "r").exists()


def test_the_check_says_what_there_is_and_what_is_wrong(run, pictures):
    code, out, _ = run("data", "check", "pets", "--set", "test_share=0.33", "--sheet", "s.png")
    assert code == 0
    assert "5x4 pixels" in out
    assert "threefactor train RECIPE --data images:pets --set test_share=0.33" in out
    assert Image.open(pictures.parent / "s.png").width > 100
    code, out, _ = run("data", "check", "images:pets", "--set", "data.test_share=0.33")
    assert code == 0 and "pets: images" in out and "--set data.test_share=0.33" in out
    (pictures / "cat" / "bad.png").write_bytes(b"nothing")
    (pictures / "stray.png").write_bytes(b"nothing")
    code, out, err = run("data", "check", "pets", "--set", "test_share=0.33")
    assert code == 1
    assert "bad.png" in out
    assert "stray.png" in out
    assert "problems, see above" in err
    assert run("data", "check", "pets", "--set", "shape=3")[0] == 2
    assert run("data", "check", "nowhere")[0] == 1
    twice = ("--set", "test_share=0.2", "--set", "data.test_share=0.3")
    code, _, err = run("data", "check", "pets", *twice)
    assert code == 2 and "test_share is given twice, as 0.2 and as 0.3" in err
    assert run("data", "check", "images:pets", "--kind", "events")[0] == 2
    assert run("data", "check", "pets", "--set", "options.test_share=0.2")[0] == 2


def test_a_sweep_takes_data_of_ones_own(run, pictures):
    options = ("--set", "test_share=0.33", "--set", "hidden=[8]", "--epochs", "1")
    code, _, _ = run("sweep", "digits-fc", "--data", "pets", *options, "--grid", "lr=1e-3,1e-4")
    assert code == 0
    runs = list((pictures.parent / "sweeps").rglob("config.json"))
    assert len(runs) == 2
    assert all('"images"' in one.read_text() for one in runs)
