"""The pages are true where a machine can tell: code runs, links and file names exist."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "results" / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
NOTE = r"<!-- (?P<note>(?:(?!-->).)*?) -->"
BLOCK = re.compile(rf"(?:^{NOTE}\n)?^```python\n(?P<code>.*?)^```$", re.M | re.S)
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)(?P<target>[^)#\s]+)(?:#[^)]*)?\)")
ANCHOR = re.compile(r"\]\((?!https?:)(?P<target>[^)#\s]*)#(?P<anchor>[^)\s]+)\)")
FILE = re.compile(r"`(?P<path>[\w.-]+(?:/[\w.-]+)+\.(?:py|md|toml|c))`")
NEEDS = re.compile(r"# needs (?P<names>.*)\n")
ONLY_COMPILED = {
    "data.md": "its blocks load MNIST, and quote a definition",
    "ten-tasks.md": "test_docs_ten_tasks.py runs its blocks, and its commands between them",
}

every_page = pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES]
)


class Block(NamedTuple):
    line: int
    note: str
    code: str

    @property
    def padded(self) -> str:
        """The code at its own line numbers, for tracebacks."""
        return "\n" * self.line + self.code


def blocks(text: str) -> list[Block]:
    return [
        Block(text.count("\n", 0, found.start("code")), found["note"] or "", found["code"])
        for found in BLOCK.finditer(text)
    ]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> list[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = [line.lstrip("#") for line in prose(page).splitlines() if line.startswith("#")]
    return [re.sub(r"[^\w -]", "", one.strip().lower()).replace(" ", "-") for one in headings]


@every_page
def test_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block after block in one namespace, with embedded data only.

    A block that begins with `# needs NAME, NAME` runs where these packages are installed.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THREEFACTOR_DATA", str(tmp_path / "no-data"))
    text = page.read_text()
    found = blocks(text)
    assert len(found) == text.count("```python"), "a block that the pattern does not see"
    names: dict[str, object] = {"__name__": "page"}
    for block in found:
        code = compile(block.padded, str(page), "exec", dont_inherit=True)
        if page.name not in ONLY_COMPILED and not block.note.startswith("not run: "):
            needed = NEEDS.match(block.code)
            if needed is None or all(map(find_spec, needed["names"].split(", "))):
                exec(code, names)


@every_page
def test_quotations_are_exact(page: Path) -> None:
    """A block after `<!-- from FILE -->` stands in that file word for word."""
    for block in blocks(page.read_text()):
        if block.note.startswith("from "):
            assert block.code in (ROOT / block.note.removeprefix("from ")).read_text()


def test_the_page_on_rules_quotes_its_example() -> None:
    notes = [block.note for block in blocks((ROOT / "docs" / "adding-a-rule.md").read_text())]
    assert "from examples/own_rule.py" in notes


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    targets = [found["target"] for found in LINK.finditer(prose(page))]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@every_page
def test_links_lead_to_headings(page: Path) -> None:
    missing = [
        found[0].lstrip("](")
        for found in ANCHOR.finditer(prose(page))
        if found["anchor"]
        not in anchors(page.parent / found["target"] if found["target"] else page)
    ]
    assert not missing


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    """Named from the root, or, as in a page that says so, from src/threefactor."""
    names = {found["path"] for found in FILE.finditer(prose(page))}
    places = (ROOT, ROOT / "src" / "threefactor")
    missing = [name for name in names if not any((place / name).exists() for place in places)]
    assert not missing


def test_first_steps_lists_every_extra() -> None:
    page = (ROOT / "docs" / "first-steps.md").read_text()
    table = page.split("| extra |")[1].split("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"`([\w-]+)`", row[:50])}
    project = (ROOT / "pyproject.toml").read_text()
    offered = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^([\w-]+) = \[", offered, re.M))
    assert named == extras - {"bench", "dev", "events"}  # ours, and one that brings nothing


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    linked = {found["target"] for found in LINK.finditer(index)}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked
    assert {f"../examples/{path.name}" for path in (ROOT / "examples").glob("*.py")} <= linked
