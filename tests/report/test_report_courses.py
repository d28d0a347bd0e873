"""What was measured while training becomes curves with gaps, and a table of the last moment."""

import json

import pytest

from threefactor.errors import CheckpointError
from threefactor.report import collect, html_page, markdown_page, report_sections
from threefactor.report.courses import tracked_sections
from threefactor.report.figures import figure_csv
from threefactor.report.values import Number

TRACK = {"measures": ["alignment", "feedback"], "every": None, "samples": 40}
ZERO = "undefined in 2 of 2 batches: the rule's gradient is zero"


def layer(angle):
    return {"angle": angle, "note": ZERO if angle is None else ""}


def line(batches, first, last, cosine):
    note = "undefined: the feedback is zero" if cosine is None else ""
    return {
        "epoch": batches / 10,
        "batches": batches,
        "train_accuracy": 0.5,
        "alignment": {
            "bp": {"lif1": layer(first), "readout": layer(last)},
            "modified_bp": {"lif1": layer(first), "readout": layer(0.0)},
        },
        "feedback": {"lif1": {"angle": cosine and 60.0, "cosine": cosine, "note": note}},
    }


@pytest.fixture
def tracked_run(make_run):
    def make(name, lines, **more):
        track = more.pop("track", TRACK)
        folder = make_run(name, [0.5, 0.9], track=track, **more)
        folder.tracked_path.write_text("".join(json.dumps(one) + "\n" for one in lines))
        return folder

    return make


@pytest.fixture
def sections(tracked_run, tmp_path):
    tracked_run("a0", [line(0, None, 3.0, None), line(5, 80.0, 4.0, 0.1), line(10, 40.0, 5.0, 0.5)])
    tracked_run(
        "a1",
        [line(0, 50.0, 5.0, None), line(5, 84.0, 4.0, 0.3), line(10, 44.0, 5.0, 0.7)],
        seed=1,
    )
    tracked_run("b0", [line(0, 90.0, 3.0, 0.0), line(10, 88.0, 5.0, 0.0)], rule="dfa")
    return {one.title: one for one in report_sections([tmp_path])}


def test_angles_are_curves_by_layer_rules_side_by_side(sections):
    section = sections["digits-fc: alignment while training"]
    assert "first 40 test samples" in section.text[0]
    figures = {figure.name: figure for figure in section.figures}
    assert set(figures) == {
        f"digits-fc-alignment-{kind}-{name}"
        for kind in ("bp", "modified-bp")
        for name in ("lif1", "readout")
    }
    figure = figures["digits-fc-alignment-bp-lif1"]
    opzo, dfa = figure.series
    assert (opzo.label, dfa.label) == ("OPZO", "DFA")
    assert (opzo.xs, opzo.ys) == ((0.0, 0.5, 1.0), [None, 82.0, 42.0])
    assert opzo.error == [None, pytest.approx(8**0.5), pytest.approx(8**0.5)]
    assert (dfa.xs, dfa.ys, dfa.error) == ((0.0, 1.0), [90.0, 88.0], None)
    assert "Gaps" in figure.caption and "band" in figure.caption
    assert figure_csv(figure).splitlines()[:2] == ["series,x,y,error", "OPZO,0.0,,"]


def test_the_table_shows_the_last_moment_and_why_there_are_gaps(sections):
    (table,) = sections["digits-fc: alignment while training"].tables
    rows = {row[0]: row[1:] for row in table.rows}
    epoch, bp, modified = rows["OPZO, lif1"]
    assert epoch == Number(1.0, digits=None)
    assert (bp.mean, bp.n, modified.mean) == (42.0, 2, 42.0)
    assert table.notes == (
        "OPZO, lif1: undefined at 1 of 3 moments, first at epoch 0: the rule's gradient is zero.",
    )
    (table,) = sections["digits-fc: feedback while training"].tables
    assert table.rows[0][3].mean == pytest.approx(0.6)
    assert table.notes == (
        "OPZO, lif1: undefined at 1 of 3 moments, first at epoch 0: the feedback is zero.",
    )


def test_pages_draw_the_gaps(sections):
    pytest.importorskip("jinja2")
    chosen = [sections["digits-fc: feedback while training"]]
    page = html_page("Tracked", chosen)
    assert page.count("<svg") == 1 and "nan" not in page.lower()
    assert "Gaps: undefined" in markdown_page("Tracked", chosen, "figures")


def test_one_measure_alone_or_none(sections, make_run, tmp_path):
    groups = collect([tmp_path]).groups
    assert [s.title for s in tracked_sections("digits-fc", groups, "feedback")] == [
        "digits-fc: feedback while training"
    ]
    assert tracked_sections("digits-fc", groups, "firing") == []
    make_run("plain", [0.5], base="mnist-fc")
    assert not any("mnist-fc: " in title for title in sections)


def test_a_layer_that_never_has_an_angle_has_no_curve(tracked_run):
    tracked_run("a0", [line(0, None, 3.0, None), line(10, None, 3.0, None)])
    folder = tracked_run("b0", [line(0, None, 3.0, None)], rule="dfa")
    groups = collect([folder.path.parent]).groups
    alignment, feedback = tracked_sections("digits-fc", groups)
    assert {figure.title for figure in alignment.figures} == {
        "digits-fc: angle to BP, readout",
        "digits-fc: angle to BP by the modified local gradient, readout",
    }
    assert feedback.figures == () and len(feedback.tables[0].notes) == 2
    assert feedback.tables[0].rows[0][2:] == (None, None)


def test_tracking_makes_no_other_experiment(tracked_run, make_run, tmp_path):
    tracked_run("a0", [line(0, 80.0, 3.0, 0.1), line(10, 70.0, 3.0, 0.2)])
    make_run("a1", [0.5, 0.9], seed=1)
    sections = {one.title: one for one in report_sections([tmp_path])}
    (accuracy, *_) = sections["digits-fc"].tables
    assert accuracy.rows[0][1] == 2, "both seeds make one mean"
    assert not any("track" in note for note in accuracy.notes)
    (figure, *_) = sections["digits-fc: alignment while training"].figures
    assert figure.series[0].ys == [80.0, 70.0]


@pytest.mark.parametrize(
    "lines", [[line(5, 1.0, 1.0, 0.5), line(5, 1.0, 1.0, 0.5)], [{"epoch": 0.0}], [[1, 2]]]
)
def test_damaged_measurements_are_named(tracked_run, lines):
    folder = tracked_run("a0", lines)
    with pytest.raises(CheckpointError, match=r"tracked\.jsonl"):
        collect([folder.path])
