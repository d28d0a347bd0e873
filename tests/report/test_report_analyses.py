"""Analyses beside runs become tables and figures."""

import json

from threefactor.report import markdown_page, report_sections
from threefactor.report.analyses import analysis_sections, find_analyses

LAYER = {"elements": 10, "variance": 0.5, "relative": None, "vacuous": False}
VARIANCE = {
    "rules": {
        "opzo": {"linear1": LAYER, "linear2": {**LAYER, "variance": 0.25}},
        "zo": {"linear1": {**LAYER, "variance": 50.0}, "linear2": {**LAYER, "variance": 40.0}},
    }
}
FIRING = {
    "layers": {"lif1": {"rate": 0.25, "silent": 0.5}},
    "total_rate": 0.25,
    "unit": "spikes per neuron and step",
}
ALIGNMENT = {
    "layers": {
        "linear1": {"angle": 45.5, "note": "measured"},
        "linear2": {"angle": None, "note": "measured"},
    }
}


def write(folder, name, result, **more):
    file = folder / "analysis" / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    run = {"recipe": "digits-fc", "rule": "opzo", "seed": 3}
    file.write_text(json.dumps({"analysis": name, **run, "result": result, **more}))


def test_variance_is_a_table_and_bars(tmp_path):
    write(tmp_path, "variance", VARIANCE)
    (section,) = analysis_sections(find_analyses([tmp_path])[0])
    (table,) = section.tables
    assert table.title == "Variance: digits-fc, OPZO, seed 3"
    assert [row[0] for row in table.rows] == [
        "rules, opzo, linear1",
        "rules, opzo, linear2",
        "rules, zo, linear1",
        "rules, zo, linear2",
    ]
    (figure,) = section.figures
    assert figure.kind == "bar" and figure.log_y
    bars = {one.label: dict(zip(one.xs, one.ys, strict=True)) for one in figure.series}
    assert bars == {
        "OPZO": {"linear1": 0.5, "linear2": 0.25},
        "ZO": {"linear1": 50.0, "linear2": 40.0},
    }


def test_numbers_that_are_missing_or_common(tmp_path):
    write(tmp_path, "alignment", ALIGNMENT)
    write(tmp_path, "firing", FIRING)
    alignment, firing = analysis_sections(find_analyses([tmp_path])[0])
    (table,) = alignment.tables
    assert table.notes == ("note: measured",)
    assert [row[1].value if row[1] else None for row in table.rows] == [45.5, None]
    assert alignment.figures[0].series[0].xs == ["linear1"]
    assert firing.figures[0].series[0].ys == [0.25]


def test_an_analysis_stands_in_the_report_of_its_run(make_run, tmp_path):
    folder = make_run("a0", [0.9])
    write(folder.path, "variance", VARIANCE)
    write(folder.path, "unheard-of", {"x": 1.5})
    (folder.path / "analysis" / "broken.json").write_text('{"analysis": "variance"')
    sections = report_sections([tmp_path])
    titles = [section.title for section in sections]
    assert titles[-4:-2] == ["Analysis: unheard of", "Analysis: variance"]
    text = markdown_page("With analyses", sections)
    assert "broken.json: it holds no analysis of a run" in text
    assert "| all | 1.5 |" in text
