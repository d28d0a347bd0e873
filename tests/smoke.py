"""Run every table and figure at the budget smoke, and a sweep; look at the pages: `make smoke`.

Usage: python tests/smoke.py [FOLDER] [--need-browser]

Without a browser the pages are made and not looked at, which is said; with --need-browser, as in
the gate, that is an error.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import browser

from threefactor.reproduce import catalog

BUDGET = "smoke"
AT_ONCE = "2"
WARNING = 'class="warning"'
PROGRAM = [sys.executable, "-m", "threefactor"]
TINY = ("epochs=1", "data.train=64", "data.test=32", "hidden=[20]")
SWEEP = ("lr=1e-3,1e-2", "leak=0.25,0.5", "dropout=0.0,0.2")


def make_pages(folder: Path) -> list[str]:
    """Run everything as a user would; return what went wrong."""
    sweep, page = folder / "sweep", folder / "sweep-spikes.html"
    grid = [part for one in SWEEP for part in ("--grid", one)]
    settings = [part for one in TINY for part in ("--set", one)]
    commands = (
        ["reproduce", "all", "--budget", BUDGET, "--jobs", AT_ONCE, "--out", str(folder)],
        ["sweep", "digits-fc", *grid, *settings, "--jobs", AT_ONCE, "--out", str(sweep)],
        ["report", str(sweep), "--spikes", "--out", str(page)],
    )
    wrong = []
    for command in commands:
        code = subprocess.run([*PROGRAM, *command], check=False).returncode
        wrong += [f"threefactor {command[0]} ended with code {code}"] if code else []
    return wrong


def flaws(page: Path) -> list[str]:
    """Return what is wrong with a page: also that it tells of a run that failed."""
    if not page.exists():
        return [f"{page} is missing"]
    text = page.read_text(encoding="utf-8")
    found = ["it has a warning"] if WARNING in text else []
    if browser.browser() is not None:
        found += browser.problems(browser.see(text, window=browser.NARROW))
    return [f"{page}: {one}" for one in found]


def main() -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("smoke"))
    parser.add_argument("--need-browser", action="store_true")
    given = parser.parse_args()
    seen = browser.browser()
    if given.need_browser and seen is None:
        print(f"no browser is installed: {' or '.join(browser.NAMES)}", file=sys.stderr)
        return 1
    start = time.monotonic()
    wrong = make_pages(given.folder)
    made = time.monotonic()
    pages = [given.folder / f"{name}-{BUDGET}.html" for name in catalog()]
    pages += [given.folder / "sweep" / "sweep.html", given.folder / "sweep-spikes.html"]
    with ThreadPoolExecutor(int(AT_ONCE)) as pool:
        wrong += [one for found in pool.map(flaws, pages) for one in found]
    print(f"{len(pages)} pages in {made - start:.0f} s; ", end="")
    if seen is None:
        print("NOT LOOKED AT, since no browser is installed (Debian: apt-get install chromium)")
    else:
        print(f"looked at in {time.monotonic() - made:.0f} s with {seen}")
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
