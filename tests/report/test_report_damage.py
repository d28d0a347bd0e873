"""One damaged file does not end a report of many runs: it is named, and the others are shown."""

import json

import pytest

from threefactor.report import collect, html_page, report_sections
from threefactor.report.analyses import find_analyses
from threefactor.training import train

DEEP = "[" * 50_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The files of a small run that measured while it trained, by name."""
    from threefactor.recipes import recipe

    changes = {"epochs": 2, "data.train": 40, "data.test": 20, "hidden": [6, 5], "seed": 7}
    track = {"measures": ["alignment", "feedback", "firing"], "samples": 10}
    folder = tmp_path_factory.mktemp("trained")
    train(recipe("digits-fc").settings_for("opzo", {**changes, "track": track}), folder)
    names = ("config.json", "metrics.jsonl", "tracked.jsonl")
    return {name: (folder / name).read_text() for name in names}


def put(path, keys, value):
    """Change one value in the last line of a file."""
    *others, last = path.read_text().splitlines()
    document = place = json.loads(last)
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text("\n".join([*others, json.dumps(document)]) + "\n")


BP = ("alignment", "bp", "linear1")
DAMAGE = {
    "deep metrics": ("metrics.jsonl", None, DEEP),
    "deep measurements": ("tracked.jsonl", None, DEEP + "\n"),
    "nested metrics": (
        "metrics.jsonl",
        ["firing_rates", "lif1"],
        json.loads("[" * 300 + "]" * 300),
    ),
    "other layers": ("metrics.jsonl", ["firing_rates"], {"x": 1.0}),
    "no layers": ("metrics.jsonl", ["firing_rates"], []),
    "accuracy beyond 1": ("metrics.jsonl", ["test_accuracy"], 10**300),
    "accuracy beyond floats": ("metrics.jsonl", ["test_accuracy"], 10**400),
    "loss as a truth": ("metrics.jsonl", ["train_loss"], True),
    "no measure": ("tracked.jsonl", ["alignment"], None),
    "no kinds": ("tracked.jsonl", ["alignment", "bp"], []),
    "no layer": ("tracked.jsonl", BP, {}),
    "angle as a word": ("tracked.jsonl", [*BP, "angle"], "x"),
    "no angle and no note": ("tracked.jsonl", BP, {"angle": None}),
    "a layer more": ("tracked.jsonl", ["firing", "x"], {"rate": 0.5}),
    "rate beyond floats": ("tracked.jsonl", ["firing", "lif1", "rate"], 10**400),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_left_out_and_named(make_run, trained, tmp_path, damage):
    make_run("good", [0.5, 0.9])
    bad = tmp_path / "runs" / "bad"
    bad.mkdir()
    for name, text in trained.items():
        (bad / name).write_text(text)
    name, keys, value = DAMAGE[damage]
    if keys is None:
        (bad / name).write_text(value)
    else:
        put(bad / name, keys, value)
    study = collect([tmp_path])
    assert [run.path.name for run in study.runs] == ["good"]
    (left,) = study.left_out
    assert left.path == bad and name.split(".")[0] in left.reason


def test_a_run_of_other_layers_than_its_like_is_left_out(make_run, tmp_path):
    runs = [make_run(f"run{seed}", [0.5], seed=seed) for seed in range(3)]
    put(runs[1].metrics_path, ["firing_rates"], {"x": 0.5})
    study = collect([tmp_path])
    assert [run.settings.seed for run in study.runs] == [0, 2]
    assert "firing rates are of ['x'], others have ['lif1', 'lif2']" in study.left_out[0].reason


@pytest.mark.parametrize(
    "change",
    [
        {"rule": 5},
        {"rule": None},
        {"analysis": None},
        {"recipe": []},
        {"seed": True},
        {"result": []},
        {"result": {"a": {"variance": 10**400}}},
        {"result": {"a": {"variance": float("nan")}}},
        {"result": json.loads('{"a":' * 300 + "1" + "}" * 300)},
    ],
)
def test_a_damaged_analysis_is_left_out_and_named(make_run, tmp_path, change):
    folder = make_run("good", [0.9]).path / "analysis"
    folder.mkdir()
    whole = {"analysis": "variance", "recipe": "r", "rule": "opzo", "seed": 0}
    whole["result"] = {"a": {"variance": 1.0}}
    (folder / "whole.json").write_text(json.dumps(whole))
    (folder / "bad.json").write_text(json.dumps({**whole, **change}))
    (folder / "deep.json").write_text(DEEP)
    found, left_out = find_analyses([tmp_path])
    assert [one.path.name for one in found] == ["whole.json"]
    assert [one.path.name for one in left_out] == ["bad.json", "deep.json"]
    assert "bad.json" in html_page("Trial", report_sections([tmp_path]))


def test_an_analysis_of_strange_form_is_shown_as_it_is(make_run, tmp_path):
    folder = make_run("good", [0.9]).path / "analysis"
    folder.mkdir()
    whole = {"analysis": "variance", "recipe": "r", "rule": "opzo", "seed": 0}
    whole["result"] = {"a": "x", "b": {"variance": "x"}}
    (folder / "strange.json").write_text(json.dumps(whole))
    assert "variance" in html_page("Trial", report_sections([tmp_path])).lower()
