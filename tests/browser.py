"""What a real browser makes of a page of a report: shared by the tests and by `make smoke`."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NARROW, WIDE = (360, 800), (1400, 900)
QUIET = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--dump-dom",
]  # fmt: skip
LEAST = 500  # pixels: Chromium has no narrower window, so a phone's is made by zooming the page
SECONDS = 300
POLICY = "default-src 'none';"
MEASURE = """
<script>
document.documentElement.style.zoom = ZOOM;
const box = (b) => [b.x, b.y, b.width, b.height].map((length) => length / ZOOM);
const drawn = [...document.querySelectorAll("figure > svg")].map((svg) => ({
  title: svg.querySelector("title").textContent,
  size: box(svg.getBoundingClientRect()),
  curves: [...svg.querySelectorAll("path, use, image")]
    .filter((p) => p.tagName === "image" || p.getAttribute("style")?.includes("--series"))
    .map((p) => box(p.getBBox())),
  texts: [...svg.querySelectorAll("text")]
    .map((t) => [t.textContent, box(t.getBoundingClientRect())]),
  colours: [...svg.querySelectorAll("text")].map((t) => getComputedStyle(t).fill),
}));
const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
const edge = document.documentElement.clientWidth;
const cut = [...document.querySelectorAll("tbody th, td, pre")].filter((one) => {
  const b = one.getBoundingClientRect();
  return b.width > 2 && (b.right > edge + 1 || one.scrollWidth > one.clientWidth + 1);
});
const measured = {
  cut: cut.map((one) => one.textContent.slice(0, 40)),
  drawn, twice: ids.filter((id, i) => ids.indexOf(id) !== i),
  ground: getComputedStyle(document.body).backgroundColor,
  width: Math.round(document.documentElement.scrollWidth / ZOOM),
  window: Math.round(document.documentElement.clientWidth / ZOOM),
};
const note = document.createElement("pre");
note.id = "measured";
note.textContent = JSON.stringify(measured);
document.body.append(note);
</script>
"""


@dataclass(frozen=True)
class Seen:
    """A page as the browser shows it.

    Attributes:
        measured: what the script above measured, lengths in CSS pixels.
        console: the lines on the browser's console.
        figures: how many the page holds.
    """

    measured: dict[str, Any]
    console: list[str]
    figures: int


def browser() -> str | None:
    """Return the path of a Chromium, or None if none is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def see(page: str, *options: str, window: tuple[int, int] = WIDE) -> Seen:
    """Show a page, its policy opened for the one script that measures it.

    Args:
        page: the HTML.
        options: more of the browser's.
        window: width and height in CSS pixels.
    """
    assert POLICY in page, "the page forbids nothing"
    text = page.replace(POLICY, f"{POLICY} script-src 'unsafe-inline';")
    zoom = max(1.0, LEAST / window[0])
    size = ",".join(str(round(zoom * length)) for length in window)
    script = MEASURE.replace("ZOOM", str(zoom))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "page.html"
        file.write_text(text.replace("</body>", script + "</body>"), encoding="utf-8")
        command = [browser() or NAMES[0], *QUIET, f"--window-size={size}", *options]
        command += [f"--user-data-dir={folder}/profile", file.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    found = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.S)
    assert found is not None, f"the page was not shown: {done.stderr}"
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(json.loads(html.unescape(found.group(1))), console, page.count("<figure"))


def problems(seen: Seen) -> list[str]:
    """Return what is wrong with a page, in words; nothing if all is well."""
    measured, drawn = seen.measured, seen.measured["drawn"]
    found = [f"on the console: {line}" for line in seen.console]
    if len(drawn) != seen.figures:
        found.append(f"{len(drawn)} of {seen.figures} figures are there")
    if measured["width"] > measured["window"]:
        found.append(f"{measured['width']} pixels wide, in a window of {measured['window']}")
    if measured["window"] <= NARROW[0]:  # a wider window may scroll its tables
        found += [f"{one!r} is cut off" for one in measured["cut"]]
    found += [f"the id {one!r} is there twice" for one in measured["twice"]]
    return found + [f"{one['title']}: {what}" for one in drawn for what in _flaws(one)]


def _flaws(figure: dict[str, Any]) -> list[str]:
    """Return what is wrong with a figure."""
    x, y, width, height = figure["size"]
    found = [] if width > 250 and height > 150 else [f"only {width} x {height} pixels"]
    if not any(max(box[2:]) > 0 for box in figure["curves"]):
        found.append("nothing is drawn")
    for text, (left, top, wide, high) in figure["texts"]:
        outside = (x - left, y - top, left + wide - x - width, top + high - y - height)
        if max(outside) > 1:
            found.append(f"{text!r} is cut off")
    return found
