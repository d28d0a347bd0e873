"""Analyses beside runs become tables and figures."""

import json

from threefactor.report import html_page, markdown_page, report_sections
from threefactor.report.analyses import analysis_sections, find_analyses
from threefactor.report.names import slug

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


COST = {
    "bp": {"memory": 648_000, "operations": 648_000, "sequential": 2},
    "zo": {"memory": 1, "operations": 1600, "sequential": 1},
}
MEASURED = {
    name: {
        "seconds_per_batch": seconds / 10,
        "fastest": 0.1,
        "seconds_per_epoch": seconds,
        "relative_time": seconds / 5.0,
        "peak_mebibytes": peak,
        "growth_mebibytes": peak - 200.0,
        "state_bytes": state,
    }
    for name, seconds, peak, state in (
        ("dfa", 5.0, 300.0, 64),
        ("spatial-bp", 10.0, 400.0, 0),
        ("opzo (w/ LL)", 15.0, 500.0, 128),
    )
}
MEMORY = {
    "opzo": {"steps": [6, 60], "peak_mebibytes": [300.0, 301.5], "growth_mebibytes": [9.0, 10.5]},
    "dfa": {"steps": [6, 60], "peak_mebibytes": [310.0, 310.0], "growth_mebibytes": [19.0, 19.0]},
}


def test_counted_cost_stands_beside_the_formulas_of_table_5(tmp_path):
    write(tmp_path, "cost", COST)
    ((table,),) = (section.tables for section in analysis_sections(find_analyses([tmp_path])[0]))
    assert table.columns[1:5] == (
        "memory, formula",
        "memory, here",
        "operations, formula",
        "operations, here",
    )
    assert table.rows == (
        ("BP", "(N-1)n^2 + mn", 648_000, "(N-1)n^2 + mn", 648_000, 2),
        ("ZO", "1", 1, "Nn", 1600, 1),
    )


def test_measured_cost_stands_beside_table_6_relative_to_spatial_bp(tmp_path):
    write(tmp_path, "measured-cost", MEASURED)
    ((time, memory),) = (s.tables for s in analysis_sections(find_analyses([tmp_path])[0]))
    times = {row[0]: [c and c.value for c in row[1:]] for row in time.rows}
    assert times["DFA"] == [5.0, 0.5, 0.5, 44, 44 / 45]
    assert times["spatial BP"] == [10.0, 1.0, 1.0, 45, 1.0]
    assert times["OPZO (w/ LL)"] == [15.0, 1.5, 1.5, 51, 51 / 45]
    assert times["Spatial BP & SG"] == [None, None, None, 49, 49 / 45]
    assert {"ZO", "OPZO", "DFA (w/ LL)"} < times.keys()  # published, and not measured here
    sizes = {row[0]: row[1:] for row in memory.rows}
    assert [c.value for c in sizes["DFA"][:3]] == [300.0, 0.75, 100.0]
    assert sizes["DFA"][3] == 64
    assert [c.value for c in sizes["DFA"][4:]] == [2.8, 2.8 / 2.9]
    assert "one RTX 3090" in memory.notes[1] and "only ratios can be compared" in memory.notes[1]


def test_rules_of_exact_spike_times_have_no_published_cost(tmp_path):
    events = {"exact-bp": MEASURED["spatial-bp"], "sfdfa": MEASURED["dfa"]}
    write(tmp_path, "measured-cost", events)
    ((time, _),) = (s.tables for s in analysis_sections(find_analyses([tmp_path])[0]))
    assert time.columns[-1] == "\N{MULTIPLICATION SIGN} exact BP"
    assert [row[-1].value for row in time.rows] == [1.0, 0.5]


def test_memory_against_steps_is_a_table_and_lines_from_zero(tmp_path):
    write(tmp_path, "memory", MEMORY)
    (section,) = analysis_sections(find_analyses([tmp_path])[0])
    (table,), (figure,) = section.tables, section.figures
    assert table.columns[1:3] == ("T = 6, MiB", "T = 60, MiB")
    assert [cell.text for cell in table.rows[0][1:]] == ["300.0", "301.5", "+1.5"]
    assert (figure.kind, figure.log_x, figure.from_zero) == ("line", True, True)
    lines = {one.label: (list(one.xs), list(one.ys)) for one in figure.series}
    assert lines["OPZO"] == ([6, 60], [300.0, 301.5])
    assert figure.name != slug(table.title)  # they are ids of one page, and files of one folder
    page = html_page("Memory", [section])
    assert "Memory against time steps: digits-fc, OPZO, seed 3" in page


def test_files_made_by_hand_are_shown_as_they_are(tmp_path):
    for name in ("cost", "measured-cost", "memory"):
        write(tmp_path, name, {"found": {"x": 1.5}})
    for section in analysis_sections(find_analyses([tmp_path])[0]):
        assert not section.figures
    write(tmp_path, "memory", {})
    assert analysis_sections(find_analyses([tmp_path])[0])


def test_two_analyses_of_one_run_are_told_apart(tmp_path):
    for name in ("memory", "memory-quick"):
        write(tmp_path, name, MEMORY, analysis="memory")
    (section,) = analysis_sections(find_analyses([tmp_path])[0])
    assert len({table.title for table in section.tables}) == 2
    assert len({figure.name for figure in section.figures}) == 2


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
