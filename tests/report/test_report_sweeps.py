"""The page of a sweep: ranked, drawn, and readable with a hundred runs."""

import itertools
import json
import time
from dataclasses import replace

import browser
import pytest

from threefactor.errors import CheckpointError, InputError
from threefactor.report import collect, html_page, markdown_page, report_sections
from threefactor.report.drawing import svg
from threefactor.report.figures import Figure, Series, figure_csv
from threefactor.report.sweeps import ranked, ranking_table, sweep_sections
from threefactor.report.values import cell_text


@pytest.fixture
def sweep(make_run, tmp_path):
    """Write a sweep whose accuracies follow from its settings; return its folder."""

    def make(rules=("opzo", "dfa"), seeds=2, **failed):
        number = 0
        for rule, lr, dropout in itertools.product(rules, (1e-3, 1e-2), (0.0, 0.2)):
            for seed in range(seeds):
                last = 0.5 + 20 * lr + dropout / 2 + (0.1 if rule == "dfa" else 0) + seed / 100
                changes = {"lr": lr, "dropout": dropout}
                make_run(f"{number}", [0.9, last], rule, seed, **changes)
                number += 1
        document = {"recipe": "digits-fc", "command": "threefactor sweep x", "failed": []}
        (tmp_path / "sweep.json").write_text(json.dumps({**document, **failed}))
        return tmp_path

    return make


def test_cells_are_ranked_by_their_mean(sweep):
    study = collect([sweep()], split=True)
    table = ranking_table("digits-fc", study.groups)
    assert table.columns == (
        *("rank", "rule", "dropout", "lr", "seeds", "last epoch, %", "best epoch, %"),
    )
    rows = [[cell_text(cell) for cell in row] for row in table.rows]
    assert rows[0] == ["1", "DFA", "0.2", "0.01", "2", "90.50 ± 0.71", "90.50 ± 0.71"]
    assert rows[-1][:6] == ["8", "OPZO", "0", "0.001", "2", "52.50 ± 0.71"]
    means = [row[5].mean for row in table.rows]
    assert means == sorted(means, reverse=True)
    assert any("looks at the test data" in note for note in table.notes)


def test_equal_cells_have_the_same_rank(make_run, tmp_path):
    for number, last in enumerate([0.7, 0.9, 0.8, 0.9]):
        make_run(f"{number}", [0.5, last], lr=10.0 ** -(number + 1))
    table = ranking_table("digits-fc", collect([tmp_path], split=True).groups)
    ranks = [(row[0], round(row[4].mean)) for row in table.rows]
    assert ranks == [(1, 90), (1, 90), (3, 80), (4, 70)]


def test_a_lone_cell_has_no_deviation(make_run, tmp_path):
    """It is not one of 0: lr=0.1 is in two cells, the other rates in one each."""
    for number, (lr, dropout) in enumerate([(0.1, 0.0), (0.1, 0.2), (0.2, 0.0), (0.3, 0.2)]):
        make_run(f"{number}", [0.5, 0.6 + number / 10], lr=lr, dropout=dropout)
    groups = collect([tmp_path], split=True).groups
    figures = sweep_sections("digits-fc", groups)[0].figures
    (against,) = [figure for figure in figures if figure.title.endswith("against lr")]
    (series,) = against.series
    assert series.error == [pytest.approx(50**0.5), None, None]
    assert "nan" not in figure_csv(against) and svg(against)
    assert svg(replace(against, kind="bar")).count("nan") == 0


def test_without_accuracy_the_lowest_loss_is_first(sweep, tmp_path):
    folder = sweep(rules=("dfa",), seeds=1)
    for number, file in enumerate(sorted((tmp_path / "runs").glob("*/metrics.jsonl"))):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            line["test_accuracy"], line["test_loss"] = None, 5.0 - number
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    groups = collect([folder], split=True).groups
    assert [group.runs[0].path.name for group in ranked(groups)] == ["3", "2", "1", "0"]
    table = ranking_table("digits-fc", groups)
    assert table.columns[-1] == "test loss"
    assert "test loss by dropout and lr" in html_page("Sweep", report_sections([folder]))


def validated(folder, change):
    """Give the runs of a folder validation data, whose numbers follow from those of the test."""
    for file in sorted((folder / "runs").glob("*/metrics.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            line |= change(line)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_validation_data_rank_where_there_are_some(sweep, tmp_path):
    folder = sweep()
    validated(
        folder,
        lambda line: {
            "validation_accuracy": 0.99 - line["test_accuracy"] / 2,
            "validation_loss": line["test_loss"],
        },
    )
    groups = collect([folder], split=True).groups
    means = [group.percent(lambda run: run.last).mean for group in ranked(groups)]
    assert means == sorted(means) and means[0] < means[-1]  # the lowest on the test data is first
    table = ranking_table("digits-fc", groups)
    assert table.columns[-3:] == ("seeds", "validation accuracy, %", "last epoch, %")
    first = [cell_text(cell) for cell in table.rows[0]]
    assert first[-2:] == ["72.75 ± 0.35", "52.50 ± 0.71"]  # of 52 and 53 %
    assert table.notes[0] == "Ranked by validation accuracy after the last epoch."
    assert "had no part" in table.notes[1]
    sections = report_sections([folder]).recipes[0]
    assert sections.text[0] == "8 cells, 16 runs, ranked by validation accuracy."
    assert all("validation accuracy" in figure.title for figure in sections.figures)


def test_without_accuracy_the_lowest_validation_loss_is_first(sweep):
    folder = sweep(rules=("dfa",), seeds=1)
    validated(
        folder,
        lambda line: {
            **{"test_accuracy": None, "validation_accuracy": None},
            "validation_loss": line["test_accuracy"],
        },
    )
    groups = collect([folder], split=True).groups
    losses = [group.runs[0].history[-1]["validation_loss"] for group in ranked(groups)]
    assert losses == sorted(losses) and len(set(losses)) == 4
    columns = ranking_table("digits-fc", groups).columns
    assert columns[-2:] == ("validation loss", "test loss")


def test_three_settings_are_parallel_axes(make_run, tmp_path):
    for i, (lr, leak, hidden) in enumerate(
        itertools.product((1e-4, 1e-3, 1e-2), (0.25, 0.5), ([20], [20, 20]))
    ):
        make_run(f"{i}", [0.5 + i / 100], lr=lr, leak=leak, hidden=hidden)
    make_run("d", [0.99], "zo", lr=1e-3)
    (tmp_path / "sweep.json").write_text('{"command": null, "failed": []}')
    study = collect([tmp_path], split=True)
    figure = next(f for f in report_sections([tmp_path]).recipes[0].figures if f.kind == "parallel")
    names = ("rule", "leak", "hidden", "lr", "test accuracy (%)")
    assert set(figure.series[0].xs) == set(names) and len(figure.series) == 13
    best, places = figure.series[-1], dict(zip(figure.series[0].xs, figure.ticks, strict=True))
    assert best.label == "rank 1" and list(best.values) == [pytest.approx(99.0)] * 5
    assert ranked(study.groups)[0].runs[0].settings.rule.name == "zo"
    rows = {row["x"]: row["y"] for row in figure.rows() if row["series"] == "rank 1"}
    assert rows["lr"] == pytest.approx(0.5) and rows["test accuracy (%)"] == 1.0  # of logarithms
    assert [text for _, text in places["rule"]] == ["OPZO", "ZO"]
    drawn = svg(figure)
    assert "[20, 20]" in drawn and "0.0001" in drawn


def test_settings_that_a_rule_does_not_have_are_empty(make_run, tmp_path):
    for i, scale in enumerate((0.1, 0.2)):
        make_run(f"o{i}", [0.5], noise_scale=scale)
        make_run(f"d{i}", [0.6 + i / 10], "dfa", lr=0.1 * (i + 1))
    rows = ranking_table("digits-fc", collect([tmp_path], split=True).groups).rows
    shown = {tuple(cell_text(cell) for cell in row[1:4]) for row in rows}
    assert {row for row in shown if row[0] == "DFA"} == {("DFA", "0.1", ""), ("DFA", "0.2", "")}


def test_the_report_of_the_folder_is_the_page_of_the_sweep(sweep):
    sections = report_sections([sweep()])
    assert [section.title for section in sections] == [
        *("digits-fc", "digits-fc: the best", "Runs", "How to cite"),
    ]
    first = sections.recipes[0]
    assert first.text[:2] == (
        "8 cells, 16 runs, ranked by test accuracy.",
        "Made by: threefactor sweep x",
    )
    assert [figure.kind for figure in first.figures] == ["line", "line", "cells", "cells"]
    opzo = first.figures[2]
    (series,) = opzo.series
    place = list(zip(series.xs, series.ys, strict=True)).index((1, 0))
    assert (opzo.x_names, opzo.y_names) == (("0", "0.2"), ("0.001", "0.01"))
    assert series.values[place] == pytest.approx(62.5)  # dropout 0.2, lr 0.001: 62 and 63 %
    assert "0.2,0.001,62.5" in figure_csv(opzo)


def test_failures_and_damage_are_named(sweep, tmp_path):
    failed = [{"run": f"dfa, lr={i}", "why": "diverged"} for i in range(7)]
    text = report_sections([sweep(failed=failed)]).recipes[0].text
    assert any("7 of its runs failed" in line and "; and 2 more." in line for line in text)
    for damage in ("{", "[]", '{"command": 1}', '{"command": "a", "failed": [1]}'):
        (tmp_path / "sweep.json").write_text(damage)
        with pytest.raises(CheckpointError, match=r"sweep\.json"):
            report_sections([tmp_path])


def test_many_groups_of_a_usual_report_are_ranked_too(make_run, tmp_path):
    for i in range(21):
        make_run(str(i), [i / 100], lr=(i + 1) / 1000)
    (first, *_) = report_sections([tmp_path], split=True).recipes
    assert [figure.kind for figure in first.figures] == ["points"]
    assert first.tables[0].title == "digits-fc: ranking"


@pytest.mark.skipif(browser.browser() is None, reason="no chromium is installed")
def test_a_hundred_runs_are_one_page_that_fits_a_phone(make_run, tmp_path):
    number = 0
    every = ((1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (0.0, 0.1), (0.25, 0.5))
    for rule in ("opzo", "dfa"):
        for lr, dropout, leak in itertools.product(*every):
            for seed in range(3):
                changes = {"lr": lr, "dropout": dropout, "leak": leak}
                make_run(f"{number}", [0.3, 0.5 + number / 999], rule, seed, **changes)
                number += 1
    document = {"recipe": "digits-fc", "command": None, "failed": []}
    (tmp_path / "sweep.json").write_text(json.dumps(document))
    start = time.process_time()
    sections = report_sections([tmp_path])
    page = html_page("Sweep", sections)
    assert number == 120 and time.process_time() - start < 20
    seen = browser.see(page, window=browser.NARROW)
    assert browser.problems(seen) == []
    assert seen.figures == 13
    assert "120 runs" in markdown_page("Sweep", sections)


def test_cells_may_be_absent_and_have_names():
    one = Series("accuracy", [0, 1, 1], [0, 0, 1], values=[90.0, 91.5, 80.0])
    names = {"x_names": ("a", "b"), "y_names": ("<c>", "d")}
    figure = Figure("cells", "Cells", "", "x", "y", (one,), "cells", **names)
    drawn = svg(figure)
    assert ">91.5<" in drawn and "&lt;c&gt;" in drawn and "<c>" not in drawn
    assert figure_csv(figure).splitlines()[1:] == [
        *("accuracy,a,<c>,90.0", "accuracy,b,<c>,91.5", "accuracy,b,d,80.0"),
    ]
    with pytest.raises(InputError, match="lacks value"):
        Figure("cells", "", "", "", "", (Series("a", [0], [0]),), "cells")
