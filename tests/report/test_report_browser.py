"""A page in a real browser: nothing on its console, every figure drawn, no sideways scrolling."""

from pathlib import Path

import browser
import pytest

from threefactor.report import html_page, report_sections

RESULTS = Path(__file__).parents[2] / "results"
DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")


@pytest.fixture(scope="module")
def page():
    return html_page("Results", report_sections([RESULTS / "digits-fc"]))


@pytest.mark.skipif(browser.browser() is None, reason="no chromium is installed")
@pytest.mark.parametrize("look", ["light-on-a-narrow-screen", "dark-on-a-wide-screen"])
def test_every_figure_is_drawn(page, look):
    dark, window = look.startswith("dark"), browser.WIDE if "wide" in look else browser.NARROW
    seen = browser.see(page, *(DARK if dark else ()), window=window)
    assert browser.problems(seen) == []
    assert seen.figures == 4
    assert window[0] - 20 <= seen.measured["window"] <= window[0]  # a scroll bar may take some
    for figure in seen.measured["drawn"]:
        assert len(figure["curves"]) >= 2
        assert all(max(box[2:]) > 0 for box in figure["curves"])
    assert (seen.measured["ground"] == "rgb(20, 24, 29)") == dark
    texts = {colour for figure in seen.measured["drawn"] for colour in figure["colours"]}
    assert texts == {"rgb(228, 232, 237)" if dark else "rgb(36, 41, 47)"}


FINE = {"title": "Waves", "size": [0, 0, 400, 300], "curves": [[0, 0, 9, 0]], "texts": []}
GOOD = {"drawn": [FINE], "twice": [], "cut": [], "width": 360, "window": 360}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, None),
        ({"drawn": []}, "0 of 1 figures"),
        ({"width": 500}, "500 pixels wide, in a window of 360"),
        ({"cut": ["98.5"]}, "'98.5' is cut off"),
        ({"twice": ["runs"]}, "'runs' is there twice"),
        ({"drawn": [{**FINE, "curves": [[5, 5, 0, 0]]}]}, "Waves: nothing is drawn"),
        ({"drawn": [{**FINE, "size": [0, 0, 20, 300]}]}, "Waves: only 20 x 300"),
        ({"drawn": [{**FINE, "texts": [["epoch", [390, 9, 30, 9]]]}]}, "'epoch' is cut off"),
    ],
)
def test_what_is_wrong_with_a_page_is_said(change, word):
    found = browser.problems(browser.Seen({**GOOD, **change}, [], 1))
    assert [word in one for one in found] == ([] if word is None else [True])
    loud = browser.problems(browser.Seen(GOOD, ["CONSOLE: oh"], 1))
    assert loud == ["on the console: CONSOLE: oh"]
