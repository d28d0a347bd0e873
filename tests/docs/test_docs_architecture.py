"""The page on architecture is true: its tree names every file, and imports point one way."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "threefactor"
FILES = sorted(PACKAGE.rglob("*.py"))
HELPERS = ("version", "readable", "errors", "options", "modes", "indexing", "processes")
ROOMS = (
    *HELPERS,
    *("clocked", "events", "plugins", "data", "analysis", "training", "analysis.runs"),
    *("recipes", "interop", "report", "plot", "reproduce", "sweeps", "cli", "__main__"),
)
"""From the lowest floor up: a room imports only what is before it."""


def room_of(module: str) -> str:
    """The room of a module, such as "data" of `threefactor.data.sets.mnist`."""
    _, *parts = module.split(".")
    return "analysis.runs" if parts[:2] == ["analysis", "runs"] else parts[0]


def imported(file: Path) -> Iterator[str]:
    """The modules of this package that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "threefactor":
            yield from (f"threefactor.{name.name}" for name in node.names)
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("threefactor."):
            yield str(node.module)


def test_the_tree_names_every_file_once_in_its_folder() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page.split("```text\n")[1].split("```")[0]
    folders: list[str] = []
    named: list[str] = []
    for line in tree.splitlines()[1:]:
        if not line.startswith(" "):
            continue
        depth = (len(line) - len(line.lstrip())) // 4
        if found := re.match(r" +([a-z]+)/ ", line + " "):
            folders[depth - 1 :] = [found[1]]
        else:  # the first column, or several names in a row; what a name is for may follow
            for name in re.findall(r"(?<![\w.])_*\w+\.(?:py|c)\b(?=\s|$)", line.split(": ")[0]):
                named.append("/".join([*folders[: depth - 1], name]))
    there = [str(file.relative_to(PACKAGE)) for file in FILES if file.stem != "__init__"]
    there += [str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.c")]
    assert sorted({*there, "__init__.py"}) == sorted(set(named))


def test_imports_point_one_way() -> None:
    upward = [
        f"{file.relative_to(PACKAGE)} imports {module}"
        for file in FILES
        if file != PACKAGE / "__init__.py"
        for module in imported(file)
        if ROOMS.index(room_of(module)) > ROOMS.index(room_of(_module(file)))
    ]
    assert not upward


def _module(file: Path) -> str:
    return ".".join(("threefactor", *file.relative_to(PACKAGE).with_suffix("").parts))
