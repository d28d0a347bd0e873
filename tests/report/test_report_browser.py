"""A page in a real browser: nothing on its console, every figure drawn, no sideways scrolling."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from threefactor.report import html_page, report_sections

RESULTS = Path(__file__).parents[2] / "results"
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MEASURE = """
<script>
const size = (one) => { const b = one.getBoundingClientRect(); return [b.width, b.height]; };
const drawn = [...document.querySelectorAll("figure > svg")].map((svg) => ({
  size: size(svg),
  curves: [...svg.querySelectorAll("path, use")]
    .filter((p) => p.getAttribute("style")?.includes("--series"))
    .map((p) => { const b = p.getBBox(); return [b.width, b.height]; }),
  colours: [...svg.querySelectorAll("text")].map((t) => getComputedStyle(t).fill),
}));
const measured = {
  drawn, ground: getComputedStyle(document.body).backgroundColor,
  width: document.documentElement.scrollWidth, window: innerWidth,
};
const note = document.createElement("pre");
note.id = "measured";
note.textContent = JSON.stringify(measured);
document.body.append(note);
</script>
"""


@pytest.fixture(scope="module")
def page():
    return html_page("Results", report_sections([RESULTS / "digits-fc"]))


def load(page, folder, *options):
    """Load the page, its policy opened for the one script that measures it."""
    policy = "default-src 'none';"
    assert policy in page
    text = page.replace(policy, f"{policy} script-src 'unsafe-inline';")
    (folder / "page.html").write_text(text.replace("</body>", MEASURE + "</body>"))
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--enable-logging=stderr", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", *options, (folder / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.S)
    return json.loads(html.unescape(found.group(1))), done.stderr


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
@pytest.mark.parametrize("look", ["light-on-a-narrow-screen", "dark-on-a-wide-screen"])
def test_every_figure_is_drawn(page, look, tmp_path):
    narrow = look.endswith("narrow-screen")
    options = ["--window-size=500,900"] if narrow else ["--window-size=1400,900"]
    if look.startswith("dark"):
        options += ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]
    measured, log = load(page, tmp_path, *options)
    assert "CONSOLE" not in log, log
    assert len(measured["drawn"]) == page.count("<figure") == 4
    for figure in measured["drawn"]:
        width, height = figure["size"]
        assert width > 300 and height > 150
        assert len(figure["curves"]) >= 2
        assert all(max(box) > 0 for box in figure["curves"])
    assert measured["width"] <= measured["window"]
    dark = measured["ground"] == "rgb(20, 24, 29)"
    assert dark == look.startswith("dark")
    texts = {colour for figure in measured["drawn"] for colour in figure["colours"]}
    assert texts == {"rgb(228, 232, 237)" if dark else "rgb(36, 41, 47)"}
