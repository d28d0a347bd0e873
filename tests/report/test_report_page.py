"""The numbers of a page are those of the runs, and a page needs nothing but itself."""

import csv
import io
import json
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path

import pytest

from threefactor.errors import ConfigurationError, InputError
from threefactor.report import (
    Figure,
    Listing,
    Number,
    Section,
    Series,
    Spread,
    Table,
    html_page,
    markdown_page,
    report_sections,
    write_figures,
)

RESULTS = Path(__file__).parents[2] / "results"
NASTY = "<script>alert('1|2')</script> & \"so\""


class Page(HTMLParser):
    """All tags, and the cells of every table by its label: (attributes, text)."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.cell = [], {}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        if tag == "table":
            self.rows = self.tables[values["aria-label"]] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.cell = (values, [])
            self.rows[-1].append(self.cell)

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell[1].append(data)


@pytest.fixture(scope="module")
def committed():
    return report_sections([RESULTS / "mnist-fc", RESULTS / "digits-events"])


@pytest.fixture(scope="module")
def page(committed):
    return html_page("Results", committed)


def metrics(recipe, rule):
    files = (RESULTS / recipe).glob(f"{rule}-seed*/metrics.jsonl")
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


RULES = {"mnist-fc": ("spatial-bp", "opzo", "dkp", "dfa", "zo")}
RULES["digits-events"] = ("exact-bp", "sfdfa", "dfa")


@pytest.mark.parametrize("recipe", RULES)
def test_accuracies_equal_the_metrics(page, recipe):
    heading, *rows = Page(page).tables[f"{recipe}: test accuracy"]
    names = ["".join(text) for _, text in heading]
    assert len(rows) == len(RULES[recipe])
    for rule, row in zip(RULES[recipe], rows, strict=True):
        runs = metrics(recipe, rule)
        series = {
            "last epoch, %": [100 * run[-1]["test_accuracy"] for run in runs],
            "best epoch, % (biased)": [100 * max(e["test_accuracy"] for e in run) for run in runs],
        }
        for name, values in series.items():
            attributes, text = row[names.index(name)]
            mean = statistics.fmean(values)
            assert float(attributes["data-mean"]) == pytest.approx(mean, rel=1e-12)
            if len(values) == 1:
                assert "".join(text) == f"{mean:.2f} (1 seed)"
                assert "data-sd" not in attributes
            else:
                sd = statistics.stdev(values)
                assert float(attributes["data-sd"]) == pytest.approx(sd, rel=1e-9)
                assert "".join(text) == f"{mean:.2f} ± {sd:.2f}"
        assert int(row[names.index("seeds")][0]["data-value"]) == len(runs)


def test_published_and_difference(page):
    heading, _, opzo, *_ = Page(page).tables["mnist-fc: test accuracy"]
    names = ["".join(text) for _, text in heading]
    published, text = opzo[names.index("published, %")]
    assert (float(published["data-mean"]), "".join(text)) == (98.34, "98.34 ± 0.10")
    mean = statistics.fmean(100 * run[-1]["test_accuracy"] for run in metrics("mnist-fc", "opzo"))
    difference, text = opzo[names.index("ours \N{MINUS SIGN} published")]
    assert float(difference["data-value"]) == pytest.approx(mean - 98.34)
    assert "".join(text) == "+0.21"
    assert "OPZO: also published as 98.44 (OPZO, table 8)." in page


def test_firing_rates_equal_the_metrics(page):
    title = "mnist-fc: firing rates, spikes per neuron and step"
    _, _, opzo, *_ = Page(page).tables[title]
    last = [run[-1]["firing_rates"] for run in metrics("mnist-fc", "opzo")]
    for cell, layer in zip(opzo[2:4], ("lif1", "lif2"), strict=True):
        mean = statistics.fmean(rates[layer] for rates in last)
        assert float(cell[0]["data-mean"]) == pytest.approx(mean)
    both = statistics.fmean((rates["lif1"] + rates["lif2"]) / 2 for rates in last)
    assert float(opzo[4][0]["data-mean"]) == pytest.approx(both)  # layers of equal size


def test_curves_equal_the_metrics(committed):
    figures = {figure.name: figure for section in committed for figure in section.figures}
    curve = figures["digits-events-test-error"].series[1]
    runs = metrics("digits-events", "sfdfa")
    assert curve.label == "SFDFA"
    assert list(curve.xs) == list(range(1, 31))
    errors = [[100 - 100 * line["test_accuracy"] for line in run] for run in runs]
    assert curve.ys == pytest.approx([statistics.fmean(p) for p in zip(*errors, strict=True)])
    assert curve.error == pytest.approx([statistics.stdev(p) for p in zip(*errors, strict=True)])


def test_the_page_needs_nothing_else(page):
    for tag, attributes in Page(page).tags:
        assert tag not in ("script", "iframe", "img", "object")
        for name in ("href", "src", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, value[:80])
    assert "@import" not in page and "url(http" not in page
    assert "default-src 'none'" in page


def test_ids_are_unique_and_references_met(page):
    ids = [values["id"] for _, values in Page(page).tags if "id" in values]
    assert len(ids) == len(set(ids)) > 50
    wanted = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    wanted += " ".join(re.findall(r'aria-labelledby="([^"]+)"', page)).split()
    assert set(wanted) <= set(ids)


def test_settings_commands_and_citations_are_there(page):
    for text in (
        "rule.options.momentum = 0.99999",
        "threefactor train mnist-fc --rule opzo --seed 2022",
        "2.13.0+cpu",
        "@inproceedings{xiao2026opzo,",
        "@article{lecun1998gradient,",
        "@misc{bacho2024sfdfa,",
    ):
        assert text in page
    assert "webster2020dkp" in page
    assert "orchard2015nmnist" not in page


def test_changed_settings_are_said(make_run, tmp_path):
    make_run("a0", [0.9, 0.8])
    text = markdown_page("Changed", report_sections([tmp_path]))
    assert "settings other than the recipe's: epochs = 2 (recipe: 30)" in text


def test_networks_of_several_sizes(make_run, tmp_path):
    make_run("a0", [0.9, 0.95], hidden=[100, 300])
    make_run("a1", [0.9, 0.95], hidden=[300, 100], seed=1)
    sections = report_sections([tmp_path], split=True)
    figure = next(f for s in sections for f in s.figures if f.name.endswith("neuron-and-step"))
    totals = {one.label: one.ys[-1] for one in figure.series}
    # 0.12 in the first layer and 0.22 in the second
    assert totals["OPZO, hidden=[100, 300]"] == pytest.approx(0.195)
    assert totals["OPZO, hidden=[300, 100]"] == pytest.approx(0.145)


def test_a_network_without_hidden_layers(make_run, tmp_path):
    folder = make_run("a0", [0.9], hidden=[])
    line = json.loads(folder.metrics_path.read_text())
    folder.metrics_path.write_text(json.dumps({**line, "firing_rates": {}}) + "\n")
    sections = report_sections([tmp_path])
    assert [f.name for s in sections for f in s.figures] == [
        "digits-fc-test-error",
        "digits-fc-training-loss",
    ]


def test_left_out_runs_are_on_the_page(make_run, tmp_path):
    make_run("a0", [0.9])
    make_run("a1", [0.9], seed=1).metrics_path.unlink()
    page = html_page("Some", report_sections([tmp_path]))
    assert 'class="warning"' in page
    assert "a1: metrics.jsonl cannot be read" in page


def test_markdown_has_the_same_numbers(committed):
    text = markdown_page("Results", committed, "pictures")
    assert "| OPZO | 3 | 50 | 98.55 ± 0.04 | 98.60 ± 0.02 | 98.34 ± 0.10 | +0.21 |" in text
    assert "](pictures/mnist-fc-test-error.svg)" in text
    assert "svg" not in markdown_page("Results", committed)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert len(tables) == sum(len(section.tables) for section in committed)
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_whatever_names_hold_is_text():
    figure = Figure("nasty", NASTY, NASTY, NASTY, NASTY, (Series(NASTY, [1, 2], [3, 4]),) * 2)
    table = Table(NASTY, (NASTY, "n"), ((NASTY, 3),), (NASTY,))
    section = Section(NASTY, (NASTY,), (table,), (figure,), (Listing(NASTY, NASTY),))
    page = html_page(NASTY, [section] * 3)
    assert "<script" not in page
    assert Page(page).tables[NASTY][1][0][1] == [NASTY]
    rows = [line for line in markdown_page(NASTY, [section]).splitlines() if line[:1] == "|"]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)


def test_files_hold_all_digits(committed, tmp_path):
    files = write_figures([s for s in committed if s.title == "mnist-fc"], tmp_path / "pictures")
    names = {file.name for file in files}
    assert {"mnist-fc-test-error.svg", "mnist-fc-test-error.csv"} <= names
    picture = (tmp_path / "pictures/mnist-fc-test-error.svg").read_text()
    assert picture.index('<rect width="100%" height="100%" fill="#ffffff"/>') < picture.index("<g>")
    text = (tmp_path / "pictures/mnist-fc-test-accuracy.csv").read_text()
    row = list(csv.DictReader(io.StringIO(text)))[1]
    values = [100 * run[-1]["test_accuracy"] for run in metrics("mnist-fc", "opzo")]
    assert float(row["last epoch, %"]) == statistics.fmean(values)
    assert float(row["last epoch, %, sd"]) == statistics.stdev(values)
    assert (row["last epoch, %, n"], row["rule"]) == ("3", "OPZO")


def test_cells():
    assert Number(-1.5).text == "\N{MINUS SIGN}1.50"
    assert Number(0.000123456, digits=None).text == "0.0001235"
    assert Spread(98.34, None, None).text == "98.34"  # published without a deviation
    with pytest.raises(InputError, match="2 columns and a row of 1"):
        Table("t", ("a", "b"), (("x",),))


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'threefactor\[report\]'"):
        html_page("t", [])
