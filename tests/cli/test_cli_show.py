"""The command show, run as a user would; and networks at work in a report."""

import csv
import json
import shutil

import browser
import numpy as np
import pytest
import torch

from threefactor import clocked, training
from threefactor.recipes import recipe
from threefactor.report import html_page, report_sections
from threefactor.report.spikes import confusion_of, recording_of, spike_sections

pytest.importorskip("matplotlib")
SMALL = {"epochs": 1, "data.train": 96, "data.test": 32, "batch_size": 16, "hidden": [20]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run folder of each engine, and what may be wrong with one."""
    root = tmp_path_factory.mktemp("runs")
    two = {**SMALL, "hidden": [20, 10], "epochs": 2}
    training.train(recipe("digits-fc").settings_for("opzo", two), root / "grid")
    training.train(recipe("digits-events").settings_for("sfdfa", SMALL), root / "events")
    for name in ("gone", "cut", "begun"):
        shutil.copytree(root / "grid", root / name)
    shutil.rmtree(root / "gone/last")
    (file,) = (root / "cut/last").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    begun = training.RunFolder(root / "begun")
    begun.metrics_path.write_text(begun.metrics_path.read_text().splitlines()[0] + "\n")
    return root


def test_a_page_and_tables(runs, run, tmp_path):
    before = sorted(path.name for path in (runs / "grid").iterdir())
    code, text, _ = run("show", runs / "grid", "--csv", "data", "--sample", 3)
    assert code == 0 and "all pictures are in show.html" in text
    trainer = training.open_run(runs / "grid")
    accuracy = trainer.evaluate().accuracy
    assert f"After epoch 2 of 2, on the test data. {100 * accuracy:.2f} % of 32" in text
    assert "Sample 3 of the test data, of class" in text
    page = (tmp_path / "show.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 7
    names = {
        path.name.removeprefix("digits-fc-opzo-seed-0-") for path in (tmp_path / "data").iterdir()
    }
    assert {"confusion-matrix.csv", "classes.csv", "potentials-of-lif2.csv"} <= names
    (file,) = (tmp_path / "data").glob("*confusion-matrix.csv")
    with open(file, newline="") as lines:
        rows = list(csv.DictReader(lines))
    counts = np.zeros((10, 10))
    x, y = trainer.test
    with torch.no_grad():
        trainer.experiment.network.eval()
        output = clocked.run(trainer.experiment.network, x, steps=trainer.experiment.steps).output
    for row, label in zip(output.tolist(), y.tolist(), strict=True):
        counts[label, row.index(max(row))] += 1
    for row in rows:
        assert float(row["value"]) == counts[int(row["y"]), int(row["x"])]
    assert sorted(path.name for path in (runs / "grid").iterdir()) == before


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_picture(runs, run, tmp_path, ending):
    code, _, _ = run("show", runs / "events", "--out", f"a/b.{ending}", "--layer", "readout")
    assert code == 0 and (tmp_path / f"a/b.{ending}").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "holds no run"),
        (["gone"], 1, "gone/last"),
        (["cut"], 1, "cut short"),
        (["grid", "--checkpoint", "first"], 2, "give last or best"),
        (["grid", "--sample", "32"], 1, "the test data has 32: give a whole number from 0 to 31"),
        (["grid", "--layer", "lif3"], 1, "give one of lif1, lif2"),
        (["grid", "--neuron", "10"], 1, "neuron 10 is not in layer 'lif2'"),
        (["grid", "--out", "show.doc"], 2, "ends in .html, or in .png"),
    ],
)
def test_errors_of_the_command(runs, run, tmp_path, arguments, code, message):
    folder, *rest = arguments
    found, _, err = run("show", runs / folder, *rest)
    assert found == code and message in " ".join(err.split())
    assert not [path for path in tmp_path.iterdir() if path.suffix]


def test_an_unfinished_run_says_where_it_stands(runs, run):
    run_ = training.RunFolder(runs / "begun")
    document = run_.read().config
    document["settings"]["epochs"] = 2
    state = json.loads((run_.last / "state.json").read_text())
    assert state
    code, text, _ = run("show", runs / "begun", "--checkpoint", "best")
    assert code == 0 and "of 2, on the test data" in text


def test_own_data_that_are_gone_are_named(run, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "mine.npz",
        inputs=rng.random((60, 6, 6), dtype=np.float32),
        labels=rng.integers(0, 3, 60),
    )
    options = ["--set", "test_share=0.2", "--set", "batch_size=8", "--set", "hidden=[9]"]
    code, _, err = run(
        "train", "digits-fc", "--data", "tensors:mine.npz", *options, "--epochs", 1, "--out", "own"
    )
    assert code == 0, err
    code, _, err = run("show", "own", "--csv", "data")
    assert code == 0, err
    (tmp_path / "mine.npz").unlink()
    code, _, err = run("show", "own")
    assert code == 1 and "mine.npz" in err


def test_a_report_shows_networks_at_work_and_names_those_it_cannot(runs, run):
    sections = report_sections([runs / "grid", runs / "events"], spikes=True)
    assert len(sections.spikes) == 6 and not any(one.warning for one in sections.spikes)
    titles = [one.title for one in sections]
    assert titles.index("digits-fc, OPZO, seed 0: spikes") < titles.index("Runs")
    page = html_page("Both", sections)
    if browser.browser() is not None:
        assert browser.problems(browser.see(page, window=browser.NARROW)) == []
    (section,) = report_sections([runs / "gone"], spikes=True).spikes
    assert section.warning and "gone cannot be shown: " in section.text[0]
    assert report_sections([runs / "gone"]).spikes == ()


def test_targets_that_are_no_classes_are_refused_and_the_rest_is_shown(runs):
    trainer = training.open_run(runs / "grid")
    trainer.evaluate = lambda seen: seen(torch.rand(4, 3), torch.rand(4, 3))
    accuracy, spikes, weights = spike_sections(trainer, "mine")
    assert "Not shown: the targets are torch.float32" in accuracy.text[1]
    assert not accuracy.figures and len(spikes.figures) == 3 and len(weights.figures) == 2
    assert confusion_of(training.open_run(runs / "grid")).classes[3] == "3"


@pytest.mark.parametrize("rule", ["zo", "dfa"])
def test_networks_of_convolutions_with_and_without_feedback(rule):
    changes = {"data.train": 32, "data.test": 20, "batch_size": 16, "epochs": 1}
    settings = recipe("digits-fc").settings_for(
        rule, {**changes, "network.kind": "conv5", "network.width": 0.05}
    )
    trainer = training.Trainer(training.build(settings))
    _, spikes, weights = spike_sections(trainer, "conv")
    assert len(spikes.figures[0].series) == 4 and len(spikes.figures) == 5
    assert weights.figures[0].kind == "pictures"
    if rule == "zo":
        assert any("ZO has no feedback" in line for line in weights.text)
    else:
        assert "angle between the two" in weights.figures[1].caption


def test_first_spikes_decide_what_a_sample_is_taken_for(tmp_path):
    """All outputs spike once: by their counts, each sample would be of the first class."""
    changes = {"epochs": 1, "data.train": 300, "data.test": 40, "data.name": "yin-yang"}
    settings = recipe("yin-yang-events").settings_for("exact-bp", changes)
    training.train(settings, tmp_path / "first")
    trainer = training.open_run(tmp_path / "first")
    counts = np.zeros((3, 3), int)
    for sample in range(40):
        recording, label = recording_of(trainer, sample)
        counts[int(label), int(recording.output.argmax())] += 1
    found = confusion_of(trainer)
    assert counts.tolist() == found.counts
    assert counts[:, 1:].sum() > 0
