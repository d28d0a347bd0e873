"""The page of ten tasks: each is short, and all of it works as it stands, in order."""

from __future__ import annotations

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from forked import output

from threefactor import plugins

PAGE = Path(__file__).parents[2] / "docs" / "ten-tasks.md"
BLOCK = re.compile(r"^```(?P<kind>python|console)\n(?P<code>.*?)^```$", re.M | re.S)
TASKS = (
    *("images", "events", "DataLoader", "rule", "neuron", "loss", "sweep", "stream", "analysis"),
    "recipe file",
)


def sections() -> dict[str, str]:
    _, *parts = PAGE.read_text().split("\n## ")
    return {title: text for title, _, text in (part.partition("\n") for part in parts)}


def test_each_task_is_one_command_or_fifteen_lines() -> None:
    assert tuple(sections()) == tuple(f"Own {task}" for task in TASKS)
    for title, text in sections().items():
        found = [block.group("kind", "code") for block in BLOCK.finditer(text)]
        assert len(found) == 1, title
        kind, code = found[0]
        lines = [line for line in code.splitlines() if line.strip()]
        shown = [line for line in lines if line.startswith("$ threefactor recipes --show")]
        assert len(lines) <= 15 if kind == "python" else len(lines) - len(shown) == 1, title


@pytest.mark.skipif(find_spec("PIL") is None, reason="the page draws pictures with Pillow")
def test_all_tasks_work_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: dict[str, object] = {"__name__": "page"}
    try:
        for block in BLOCK.finditer(PAGE.read_text()):
            if block["kind"] == "python":
                exec(compile(block["code"], str(PAGE), "exec", dont_inherit=True), names)
                continue
            for line in block["code"].splitlines():
                command, _, file = line.removeprefix("$ threefactor ").partition(" > ")
                said = output(["-m", "threefactor", *shlex.split(command)])
                if file:
                    Path(file).write_text(said)
    finally:
        if "signs" in plugins.entries("rule"):
            plugins.unregister("rule", "signs")
    for folder, lines in (("run-images", 5), ("run-events", 5), ("run-recipe", 1)):
        found = Path(folder, "metrics.jsonl").read_text().splitlines()
        assert len(found) == lines, folder
        assert json.loads(found[-1])["test_accuracy"] > 0.8, folder
    assert len(list(Path("sweep/runs").rglob("metrics.jsonl"))) == 4
