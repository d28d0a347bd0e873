"""Figures: drawn in every kind, well formed, the same each time, their data complete."""

import csv
import io
import re
import xml.etree.ElementTree as ET

import pytest

from threefactor.errors import ConfigurationError, InputError
from threefactor.report.drawing import _INK_DARK, _SERIES_DARK, INK, SERIES, follow_page, svg
from threefactor.report.figures import Figure, Series, figure_csv

SVG = "{http://www.w3.org/2000/svg}"
GRID = {"xs": [0, 1, 0, 1], "ys": [0, 0, 2, 2]}
KINDS = {
    "line": (Series("a", [1, 2, 3], [1.0, 0.5, 0.1], error=[0.2, 0.6, 0.05]),),
    "points": (Series("a", [1, 3], [1.0, 0.5]), Series("b", [2], [0.1])),
    "bar": (Series("a", ["l1", "l2"], [1.0, 2.0], error=[0.1, 0.2]), Series("b", ["l2"], [3.0])),
    "heatmap": (Series("a", **GRID, values=[1, 2, 3, 4]), Series("b", **GRID, values=[4, 3, 2, 1])),
    "quiver": (Series("a", **GRID, us=[1, 0, -1, 0], vs=[0, 1, 0, -1]),),
}


def figure(kind, **more):
    return Figure("f", "Title & more", "A caption.", "x", "y", KINDS[kind], kind=kind, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn(kind):
    text = svg(figure(kind))
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox") and root.get("role") == "img"
    assert root.find(f"{SVG}title").text == "Title & more"
    assert root.find(f"{SVG}desc").text == "A caption."
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids)) and all(one.startswith("f-") for one in ids)
    assert text == svg(figure(kind))


def test_the_curve_is_where_the_numbers_are():
    one = Figure("f", "", "", "x", "y", (Series("a", [0, 1, 2], [0.0, 10.0, 10.0]),))
    lines = [
        node.get("d")
        for node in ET.fromstring(svg(one)).iter(f"{SVG}path")
        if f"stroke: {SERIES[0]}" in (node.get("style") or "")
    ]
    numbers = [float(part) for part in lines[0].replace("M", "").replace("L", "").split()]
    (x0, x1, x2), (y0, y1, y2) = numbers[::2], numbers[1::2]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=1e-4)
    assert y1 == pytest.approx(y2) and y0 > y1 + 100  # downwards is positive in SVG


def curve_of(ys):
    text = svg(Figure("f", "", "", "x", "y", (Series("a", list(range(len(ys))), ys),)))
    assert "nan" not in text.lower()
    styled = (node for node in ET.fromstring(text).iter() if SERIES[0] in node.get("style", ""))
    return [node.get("d", node.tag) for node in styled]


def test_what_is_none_is_a_gap_and_a_point_between_gaps_is_seen():
    (path,) = curve_of([1.0, 2.0, None, 3.0, 4.0])
    assert path.count("M") == 2 and path.count("L") == 2
    assert len(curve_of([1.0, 2.0, None, 3.0, None])) > 1, "markers"
    one = Series("a", [0, 1], [None, 2.0], error=[None, 0.5])
    assert not one.positive
    assert figure_csv(Figure("f", "", "", "x", "y", (one,))).splitlines()[1:] == [
        "a,0,,",
        "a,1,2.0,0.5",
    ]


def test_a_deviation_as_large_as_the_mean_fits_a_logarithmic_axis():
    text = svg(figure("line", log_y=True))
    assert "nan" not in text.lower() and "inf" not in text.lower()


def test_colours_are_left_to_the_page():
    inline = follow_page(svg(figure("line")))
    assert "stroke: var(--series-1)" in inline and "fill: var(--ink)" in inline
    for colour in (*SERIES, INK):
        assert colour not in inline.lower()


def contrast(colour, ground):
    def luminance(text):
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(colour), luminance(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_on_both_grounds():
    for colour in (*SERIES, INK):
        assert contrast(colour, "#ffffff") >= 3, colour
    for colour in (*_SERIES_DARK, _INK_DARK):
        assert contrast(colour, "#14181d") >= 3, colour


def test_csv_is_complete():
    rows = list(csv.DictReader(io.StringIO(figure_csv(figure("bar")))))
    assert [(r["series"], r["x"], float(r["y"]), r["error"]) for r in rows] == [
        ("a", "l1", 1.0, "0.1"),
        ("a", "l2", 2.0, "0.2"),
        ("b", "l2", 3.0, ""),
    ]
    rows = list(csv.DictReader(io.StringIO(figure_csv(figure("quiver")))))
    assert [rows[2][name] for name in ("x", "y", "u", "v")] == ["0", "2", "-1", "0"]


def test_bad_figures():
    with pytest.raises(InputError, match="2 xs and 1 y"):
        Series("a", [1, 2], [1])
    with pytest.raises(InputError, match="y of series 'a' hold a number that is not finite"):
        Series("a", [1.0], [float("nan")])
    with pytest.raises(InputError, match="nothing to show"):
        Figure("f", "", "", "", "", ())
    with pytest.raises(InputError, match="'pie'; give one of line, points, bar, raster, parallel"):
        Figure("f", "", "", "", "", KINDS["line"], kind="pie")
    with pytest.raises(InputError, match="series 'a' of a heatmap lacks value"):
        Figure("f", "", "", "", "", KINDS["line"], kind="heatmap")
    with pytest.raises(InputError, match="series 'a' of a bar has gaps; leave them out"):
        Figure("f", "", "", "", "", (Series("a", ["l1", "l2"], [1, None]),), kind="bar")
    holes = Series("a", [0, 1, 0], [0, 0, 2], values=[1, 2, 3])
    with pytest.raises(InputError, match="has 3 points; give each of the 2 x 2"):
        svg(Figure("f", "", "", "", "", (holes,), kind="heatmap"))


def test_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'threefactor\[report\]'"):
        svg(figure("line"))


@pytest.mark.filterwarnings("error")
def test_a_long_legend_leaves_the_curves_their_room():
    """Twenty labels of two lines each: the picture grows, and that of few labels does not."""
    labels = [f"OPZO, noise position before, noise distribution rademacher, {i}" for i in range(20)]
    boxes = []
    for count in (3, 20):
        series = tuple(Series(label, [1, 2, 3], [3.0, 2.0, 1.0]) for label in labels[:count])
        text = svg(Figure("legend", "Many", "Of them.", "epoch", "error", series))
        boxes.append(float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', text).group(1)))
    assert boxes[0] == pytest.approx(3.4 * 72, abs=1)
    assert boxes[1] > 3.4 * 72 + 20 * 12
