"""Figures 9 and 10 of SFDFA: pages drawn from what was measured while the runs trained."""

import csv
import io
import json

import pytest

from threefactor import training
from threefactor.reproduce import experiment, reproduce

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Both pages, for embedded data alone; its runs are trained here, in this process."""
    folder = tmp_path_factory.mktemp("reproduction")
    cells = [c for c in experiment("sfdfa-figure9").cells("smoke") if c.recipe.startswith("digits")]
    for cell in cells:
        training.train(cell.settings, cell.folder(folder / "runs"))
    names = ["sfdfa-figure9", "sfdfa-figure10"]
    pages = reproduce(names, folder, budget="smoke", data_dir=folder / "no data")
    return folder, cells, dict(zip(names, pages, strict=True))


def lines_of(cell, folder):
    path = cell.folder(folder / "runs") / "tracked.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def points(path):
    rows = csv.DictReader(io.StringIO(path.read_text()))
    return [(r["series"], float(r["x"]), float(r["y"]) if r["y"] else None) for r in rows]


def test_the_curves_are_those_of_the_runs(made):
    folder, cells, _ = made
    labels = {"sfdfa": "SFDFA", "dfa": "DFA"}
    for figure, name, value in (
        ("sfdfa-figure9", "alignment-bp-lif2", lambda e: e["alignment"]["bp"]["lif2"]["angle"]),
        ("sfdfa-figure10", "feedback-lif3", lambda e: e["feedback"]["lif3"]["angle"]),
    ):
        file = folder / f"{figure}-smoke" / f"digits-events-deep-{name}"
        assert points(file.with_suffix(".csv")) == [
            (labels[cell.rule], line["epoch"], value(line))
            for cell in cells
            for line in lines_of(cell, folder)
        ]
        assert "<svg" in file.with_suffix(".svg").read_text()
    assert [line["batches"] for line in lines_of(cells[0], folder)] == [0, 1, 2, 3, 4]


def test_each_page_shows_its_measure_and_what_is_absent(made):
    _, _, pages = made
    angles, feedback = (page.read_text(encoding="utf-8") for page in pages.values())
    assert "alignment while training" in angles and "feedback while training" not in angles
    assert "feedback while training" in feedback and "alignment while" not in feedback
    for page in (angles, feedback):
        assert page.count("no data: threefactor data fetch mnist") == 4
        assert "digits-events-deep *" in page and "hidden weights times 0.1 *" in page
        assert "undefined at" in page, "SFDFA begins without feedback"
