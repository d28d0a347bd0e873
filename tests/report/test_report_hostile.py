"""Runs whose names and texts are code: pages, drawings and tables show them and do nothing else."""

import csv
import io
import json
import re
import unicodedata
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from threefactor.report import (
    Figure,
    Listing,
    Section,
    Series,
    Table,
    html_page,
    markdown_page,
    report_sections,
    write_figures,
)
from threefactor.report.markdown import fenced, in_line, paragraph
from threefactor.report.names import LONGEST, part_names, slug

NASTY = [
    'x"><script>alert(1)<!--',
    "'><img src=x onerror=alert(1)>",
    "</title></style></svg></pre><script>alert(1)</script>",
    "```\n</details><script>alert(1)</script>\n# head",
    "[click](javascript:alert(1)) ![i](http://a.b/c.png) <http://a.b> https://a.b www.a.b",
    "a|b\\|c `code` *b* _i_ ~s~ $x$ &lt;script&gt; | d",
    "$\\frac{$ _hidden",
    "\x00\x1b[31m\x07\u202e\ud800\udcff\ufffe",
    "=cmd|' /C calc'!A0",
    "{{ 7 * 7 }}{% raw %}",
    "日本語の実験",
    "a" * 5000,
    "\n\n---\n\n1. list\n\t\tcode",
]
PAGE = """
html head meta link title style body header h1 h2 h3 p nav ul li a main section div table thead
tbody tr th td figure figcaption details summary pre svg g path defs use rect text desc clippath
"""
ALLOWED = set(PAGE.split())


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes


def only_text(page):
    """Make sure that a page holds no more than a page of ours does."""
    found = Tags(page)
    assert found.tags <= ALLOWED, found.tags - ALLOWED
    for name, value in found.attributes:
        assert not name.startswith("on"), (name, value)
        if name in ("href", "src"):
            assert value.startswith(("#", "data:")), value
    assert not hidden(page)
    page.encode()


def hidden(text):
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"}


def same_markdown(text, plain):
    """Make sure that Markdown renders without links, pictures or tags of a run's own."""
    html = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    tags = Tags(html).tags
    assert tags <= ALLOWED | {"strong", "em", "code"}, tags
    assert not re.search(r"<(a|img|script)\b", html)
    assert not hidden(text)
    return plain


@pytest.fixture(params=range(len(NASTY)), ids=lambda i: f"nasty{i}")
def nasty_run(request, make_run, edit_config):
    text = NASTY[request.param]
    folder = make_run("run", [0.5, 0.6])
    lines = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
    for line in lines:
        line["firing_rates"] = {text: 0.25, "lif2": 0.5}
    folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def change(document):
        document["settings"]["recipe"] = text[:3000]
        document["settings"]["rule"]["name"] = text[:3000]
        document["settings"]["rule"]["options"][text[:3000]] = text
        document["environment"].update(dict.fromkeys(("command", "torch", "platform"), text))

    edit_config(folder, change)
    analysis = folder.path / "analysis"
    analysis.mkdir()
    found = {"analysis": text, "recipe": text, "rule": text, "seed": 1, "result": {}}
    found["result"] = {text: {"angle": 0.5, "note": text}, "other": {"angle": 1.5, "note": text}}
    (analysis / "a.json").write_text(json.dumps(found))
    (analysis / "b.json").write_text(json.dumps({**found, "analysis": "alignment"}))
    return folder


def test_pages_of_a_hostile_run(nasty_run, tmp_path):
    # Halves of characters are no text in JSON's settings, and the run is named and left out then.
    config = json.loads(nasty_run.config_path.read_text())
    if "\ud800" in config["settings"]["recipe"]:
        for key in ("recipe", "rule"):
            config["settings"][key] = "ok" if key == "recipe" else {"name": "ok", "options": {}}
        nasty_run.config_path.write_text(json.dumps(config))
    sections = report_sections([nasty_run.path])
    only_text(html_page(NASTY[0], sections))
    folder = tmp_path / "sub" / "figures"
    files = write_figures(sections, folder)
    assert len(files) > 6
    text = markdown_page(NASTY[4], sections, "sub/figures (1)")
    pictures = re.findall(r"!\[.*\]\(sub/figures%20%281%29/([a-z0-9-]+\.svg)\)", text)
    assert len(pictures) == sum(len(section.figures) for section in sections)
    assert set(pictures) <= {file.name for file in files}
    same_markdown(re.sub(r"^!\[.*\]\(sub/figures.*$", "", text, flags=re.M), None)
    assert {file.parent for file in files} == {folder}
    assert sorted(tmp_path.joinpath("sub").rglob("*")) == sorted([folder, *files])
    for file in files:
        assert re.fullmatch(r"[a-z0-9-]{1,110}\.(svg|csv)", file.name)
        content = file.read_text(encoding="utf-8")
        assert not hidden(content)
        if file.suffix == ".svg":
            tree = ElementTree.fromstring(content)
            used = {one.tag.rpartition("}")[2].lower() for one in tree.iter()}
            assert used <= ALLOWED, used
            assert all(not key.startswith("on") for one in tree.iter() for key in one.attrib)
        else:
            for row in csv.reader(io.StringIO(content)):
                for cell in row:
                    harmless = cell[:1] not in ("=", "+", "-", "@", "\t", "\r")
                    assert harmless or float(cell) is not None


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1+1", "-1+cmd", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1", "-", "+a"],
)
def test_a_formula_is_text(text, tmp_path):
    table = Table("T", ("name", text), ((text, 1), ("-0.5", -2)))
    figure = Figure("f", "F", "", "x", "y", (Series(text, [1], [-0.25]),))
    write_figures([Section("S", tables=(table,), figures=(figure,))], tmp_path)
    rows = list(csv.reader(io.StringIO((tmp_path / "t.csv").read_text(encoding="utf-8"))))
    for cell in (rows[0][1], rows[1][0]):
        assert cell[0] in "'\\" and cell.endswith(text.strip()[-1])
    assert rows[1][1] == "1" and rows[2] == ["-0.5", "-2"]
    points = list(csv.reader(io.StringIO((tmp_path / "f.csv").read_text(encoding="utf-8"))))
    assert points[1][0][0] in "'\\" and points[1][1:] == ["1", "-0.25"]


@pytest.mark.parametrize(
    "name",
    [
        "../../up",
        "/absolute",
        "C:\\x",
        "a\0b",
        "n" * 5000,
        "CON",
        "nul.svg",
        "com1",
        "..",
        "",
        "日本",
    ],
)
def test_files_have_safe_names_in_the_folder_asked_for(name, tmp_path):
    def figure(kind):
        return Figure(kind, "F", "", "x", "y", (Series("s", [1, 2], [1, 2]),))

    names = (name, name.upper(), name.lower(), f"{name}!")
    section = Section("S", figures=tuple(figure(one) for one in names), tables=())
    files = write_figures([section], tmp_path / "figures")
    assert len(files) == len({file.name.lower() for file in files}) == 2 * len(names)
    assert sorted(tmp_path.rglob("*.*")) == sorted(files)
    for file in files:
        assert re.fullmatch(rf"[a-z0-9-]{{1,{LONGEST + 10}}}", file.stem)
        assert not re.fullmatch(r"con|prn|aux|nul|(com|lpt)\d", file.stem)
    page = html_page("P", [section])
    ids = [value for key, value in Tags(page).attributes if key == "id"]
    assert len(ids) == len(set(ids))


def test_names_are_as_they_were_where_nothing_forces_another():
    assert slug("mnist-fc test error") == "mnist-fc-test-error"
    parts = [(object(), title) for title in ("a b", "A-B", "a-b-2", "c")]
    assert list(part_names(parts).values()) == ["a-b", "a-b-2", "a-b-2-2", "c"]


@pytest.mark.parametrize("text", NASTY)
def test_markdown_shows_the_text_itself(text):
    html = MarkdownIt("gfm-like", {"linkify": False}).render(f"# {in_line(text)}\n")
    assert Tags(html).tags == {"h1"}
    html = MarkdownIt("gfm-like", {"linkify": False}).render(f"{paragraph(text)}\n")
    assert Tags(html).tags <= {"p"}
    html = MarkdownIt("gfm-like", {"linkify": False}).render(f"- {paragraph(text)}\n")
    assert Tags(html).tags <= {"ul", "li"}
    cells = f"| a | b |\n| --- | --- |\n| {in_line(text)} | 1 |\n"
    html = MarkdownIt("gfm-like", {"linkify": False}).render(cells)
    assert Tags(html).tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert html.count("<td>") == 2
    html = MarkdownIt("gfm-like", {"linkify": False}).render(f"{fenced(text)}\n\nafter\n")
    assert Tags(html).tags == {"pre", "code", "p"}


def test_plain_words_stay_plain():
    text = "98.5 ± 0.1 (1 seed), train_loss, +0.21, a - b: 50 %"
    assert in_line(text) == paragraph(text) == text


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": ["a"]},
        {"rule": None},
        {"seed": "0"},
        {"analysis": 3},
        {"result": []},
        {"seed": True},
    ],
)
def test_an_analysis_of_other_types_is_named_and_left_out(make_run, change):
    folder = make_run("run", [0.5]).path
    (folder / "analysis").mkdir()
    good = {"analysis": "firing", "recipe": "r", "rule": "dfa", "seed": 0, "result": {}}
    (folder / "analysis" / "a.json").write_text(json.dumps({**good, **change}))
    (folder / "analysis" / "deep.json").write_text("[" * 100_000)
    page = html_page("P", report_sections([folder]))
    assert page.count("it holds no analysis of a run") == 2


def test_a_label_that_begins_with_an_underscore_is_in_the_legend(tmp_path):
    series = tuple(Series(label, [1, 2], [1, 2]) for label in ("_mine", "_nolegend_", ""))
    for kind in ("line", "bar"):
        figure = Figure("f", "F", "", "x", "y", series, kind=kind)
        write_figures([Section("S", figures=(figure,))], tmp_path)
        drawn = (tmp_path / "f.svg").read_text(encoding="utf-8")
        assert ">_mine<" in drawn and ">_nolegend_<" in drawn


def test_text_that_is_shown_as_it_is_stays_whole():
    page = html_page("P", [Section("S", listings=(Listing("L", "a\n\tb\x1b"),))])
    assert "a\n\tb\\x1b</pre>" in page
