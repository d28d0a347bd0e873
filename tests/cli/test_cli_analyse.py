"""The command analyse, run as a user would."""

import json

import pytest

from threefactor import training
from threefactor.analysis.runs import ANALYSES
from threefactor.recipes import recipe

SMALL = {"epochs": 1, "data.train": 96, "data.test": 32, "batch_size": 16, "hidden": [20]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run folder of each engine."""
    root = tmp_path_factory.mktemp("runs")
    training.train(recipe("digits-fc").settings_for("opzo", SMALL), root / "grid")
    training.train(recipe("digits-events").settings_for("sfdfa", SMALL), root / "events")
    return root


def test_the_command(runs, run, tmp_path):
    out = tmp_path / "new" / "angles.json"
    code, text, _ = run(
        "analyse", "alignment", runs / "grid", "--samples", 64, "--epoch", "best", "--out", out
    )
    assert code == 0
    assert "linear1" in text and "angle_of_means" in text
    document = json.loads(out.read_text())
    assert document["analysis"] == "alignment" and document["checkpoint"] == "best"
    assert document["rule"] == "opzo" and document["samples"] == 64
    assert 0 < document["result"]["layers"]["linear1"]["angle"] < 180
    code, text, _ = run("analyse", "cost", runs / "events")
    assert code == 0 and "sequential" in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["variances", "grid"], 2, "did you mean 'variance'"),
        (["cost", "nowhere"], 1, "holds no run"),
        (["cost", "grid", "--checkpoint", "first"], 2, "give last or best"),
        (["hair-triggers", "grid"], 1, "exact spike times"),
        (["alignment", "grid", "--samples", "8"], 1, "cannot be cut from 8 samples"),
    ],
)
def test_errors_of_the_command(runs, run, arguments, code, message):
    name, folder, *rest = arguments
    found, _, err = run("analyse", name, runs / folder, *rest)
    assert found == code
    assert message in " ".join(err.split())


def test_the_help_lists_every_analysis(run):
    code, text, _ = run("analyse", "--help")
    assert code == 0
    assert all(f"{name}:" in text for name in ANALYSES)
