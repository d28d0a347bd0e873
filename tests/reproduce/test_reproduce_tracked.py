"""Figures 9 and 10 of SFDFA: pages drawn from what was measured while the runs trained."""

import json

import pytest

from threefactor import training
from threefactor.report import write_figures
from threefactor.reproduce import exhibit
from threefactor.reproduce.grid import run_grid
from threefactor.reproduce.pages import exhibit_sections

LABELS = {"sfdfa": "SFDFA", "dfa": "DFA"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The sections of both pages, for embedded data alone; its runs are trained in this process."""
    root = tmp_path_factory.mktemp("runs")
    every = exhibit("sfdfa-figure9").runs("smoke")
    runs = [run for run in every if run.recipe == "digits-events-deep"]
    for run in runs:
        training.train(run.settings, run.folder(root))
    outcomes = {one.folder: one for one in run_grid(every, root, data_dir=root / "no data")}
    assert [one.kind for one in outcomes.values()].count("finished") == len(runs) == 2
    pages = {
        number: exhibit_sections(exhibit(f"sfdfa-figure{number}"), "smoke", outcomes, root)
        for number in (9, 10)
    }
    lines = {}
    for run in runs:
        text = (run.folder(root) / "tracked.jsonl").read_text()
        lines[LABELS[run.rule]] = [json.loads(line) for line in text.splitlines()]
    return pages, lines


def test_the_curves_are_those_of_the_runs(made):
    pages, lines = made
    assert [line["batches"] for line in lines["DFA"]] == [0, 1, 2, 3, 4]
    for number, name, value in (
        (9, "alignment-bp-lif2", lambda line: line["alignment"]["bp"]["lif2"]["angle"]),
        (10, "feedback-lif3", lambda line: line["feedback"]["lif3"]["angle"]),
    ):
        figures = {figure.name: figure for section in pages[number] for figure in section.figures}
        curves = figures[f"digits-events-deep-{name}"].series
        assert {one.label: list(zip(one.xs, one.ys, strict=True)) for one in curves} == {
            rule: [(line["epoch"], value(line)) for line in own] for rule, own in lines.items()
        }
        assert curves[0].ys[0] is None, "SFDFA begins without feedback"


def test_each_page_shows_its_measure_and_what_is_absent(made):
    pages, _ = made
    shown = {
        number: [one.title.partition(": ")[2] for one in sections if "-deep: " in one.title]
        for number, sections in pages.items()
    }
    assert shown == {9: ["alignment while training"], 10: ["feedback while training"]}
    for sections in pages.values():
        (table,) = sections[0].tables
        rows = table.rows
        assert [row[-1] for row in rows[:4]] == ["no data"] * 4
        assert any("No data: mnist was not found. To download it:" in note for note in table.notes)
        names = [row[0] for row in rows[::2]]
        scaled = "mnist-events-deep, hidden weights times 0.1 *"
        assert names == ["mnist-events-deep", scaled, "digits-events-deep *"]


def test_figures_become_svg_and_csv(made, tmp_path):
    pytest.importorskip("matplotlib")
    pages, _ = made
    write_figures([one for one in pages[10] if "-deep: " in one.title], tmp_path)
    file = tmp_path / "digits-events-deep-feedback-lif3.csv"
    assert file.read_text().splitlines()[:2] == ["series,x,y", "SFDFA,0.0,"]
    assert "<svg" in file.with_suffix(".svg").read_text()
