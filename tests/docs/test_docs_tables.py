"""What `make tables` writes from the JSON in results/ is what is committed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "results" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_files_are_those_made_from_the_json(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures by their data: versions of Matplotlib draw differently."""
    monkeypatch.chdir(tmp_path)
    tables.main(["--out", str(tmp_path)])
    made = [file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()]
    figures = [file for file in made if file.parent.name == "figures"]
    assert len(figures) == 2 * (len(tables.FIGURES) + len(tables.DRAWN))
    assert len(made) == len(tables.PAGES) + 2 + len(figures)
    compared = [file for file in made if file not in figures or file.suffix == ".csv"]
    old = [
        str(file)
        for file in compared
        if (tmp_path / file).read_bytes() != (ROOT / file).read_bytes()
    ]
    assert not old, "run `make tables` and commit what it changes"


def test_every_table_stands_on_a_page(tables: ModuleType) -> None:
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in tables.PAGES)
    assert all(f"{tables.BEGIN}{name}{tables.CLOSE}" in text for name in tables.TABLES)


def test_a_number_that_was_changed_by_hand_is_put_right(tables: ModuleType) -> None:
    page = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert "98.27 %" in page
    assert tables.fill(page.replace("98.27 %", "98.72 %")) == page
    assert "-->98.59 %<!--/-->" in page
    assert tables.fill(page.replace("-->98.59 %<!--/-->", "-->98.95 %<!--/-->")) == page


GENERATED = re.compile(r"<!-- table: .*?<!-- end -->|<!--= .*?<!--/-->", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
RESULT = re.compile(r"\d\.\d+ ?(?:%|points|MiB|times)|\d\.\d+ ± \d")


def test_no_result_is_written_by_hand(tables: ModuleType) -> None:
    """Shares, points, memory and times with decimals are what was measured: a file has them."""
    pages = [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "results" / "README.md"]
    found = []
    for page in pages:
        text = CODE.sub("", GENERATED.sub("", page.read_text(encoding="utf-8")))
        found += [f"{page.name}: {line}" for line in text.splitlines() if RESULT.search(line)]
    counted = {  # what follows from the sizes of a network or a set, or is a limit
        "analysis.md: BP to send errors back, and 0.6 times its memory.",
        "README.md: sample is 0.28 points.",
    }
    assert set(found) == counted


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ("<!-- table: mnits -->\n\n<!-- end -->\n", KeyError),
        ("<!-- table: mnist -->\n\n", ValueError),
        ("It ends at <!--= mnits -->98 %<!--/-->.\n", NameError),
        ("It ends at <!--= mnist -->98 %.\n", ValueError),
        ("It ends at <!--= mnist -->98\n%<!--/-->.\n", ValueError),
        ("<!--= mnist -->98 %<!--/--> at its end.\n", ValueError),
        ("- <!--= mnist -->98 %<!--/--> at its end.\n", ValueError),
    ],
)
def test_a_page_that_asks_for_no_table_or_number_is_refused(
    tables: ModuleType, page: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"mnits|mnist|a number needs"):
        tables.fill(page)


def test_runs_that_are_missing_are_refused(tables: ModuleType) -> None:
    with pytest.raises(FileNotFoundError, match="results/mnist-fc/opzo-seed7"):
        tables.last("mnist-fc", "opzo-seed7")


def test_the_picture_is_drawn_and_described(tables: ModuleType) -> None:
    picture = ElementTree.fromstring(tables.picture())
    bars = [one for one in picture.iter() if one.get("class") in ("ours", "other")]
    described = next(one.text for one in picture.iter() if one.tag.endswith("desc"))
    assert len(bars) == 10
    assert all(name in described for name in ("OPZO", "spatial BP", "SpikingJelly, BPTT"))
