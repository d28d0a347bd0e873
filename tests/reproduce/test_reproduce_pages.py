"""Pages of experiments: what was run, what was not, and that the numbers are those of the runs."""

import json
import re

import pytest

from threefactor.cli.reproduce import GridBar
from threefactor.errors import CheckpointError, ConfigurationError, ThreefactorError
from threefactor.reproduce import Observer, Outcome, exhibit, reproduce, reproduction
from threefactor.reproduce.reproduction import _Pages
from threefactor.training import Run
from threefactor.training.folder.lock import LOCK

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two small experiments, run for embedded data alone."""
    folder = tmp_path_factory.mktemp("reproduction")
    names = ["sfdfa-figure4", "opzo-figure2", "sfdfa-figure3"]
    pages = reproduce(
        names, folder, budget="smoke", jobs=2, data_dir=folder / "no data", device="cpu"
    )
    return folder, dict(zip(names, pages, strict=True))


def test_each_experiment_has_a_page_with_its_figures(made):
    folder, pages = made
    assert [page.name for page in pages.values()] == [f"{name}-smoke.html" for name in pages]
    assert (folder / "sfdfa-figure3-smoke" / "sfdfa-figure3-potential.svg").exists()
    assert (folder / "sfdfa-figure3-smoke" / "sfdfa-figure3-potential.csv").exists()
    for page in pages.values():
        content = page.read_text(encoding="utf-8")
        assert "<svg" in content
        assert (
            "http://" not in re.sub(r'(xmlns[:\w]*|rdf:\w+)="[^"]*"', "", content).split("<h2")[0]
        )


def test_absent_data_is_said_to_be_and_nothing_takes_its_place(made):
    _, pages = made
    text = text_of(pages["sfdfa-figure4"])
    assert len(re.findall(r"gradient 0 ([\d.]+ ± [\d.]+ SFDFA, table 1 )?no data", text)) == 2
    advice = "No data: mnist was not found. To download it: threefactor data fetch mnist"
    assert text.count(f"{advice} --data-dir") == 1  # the folder that was looked in
    assert "digits-events *" in text
    assert "Rows marked * are not in the paper" in text


def test_numbers_are_those_of_the_runs(made):
    folder, pages = made
    text = text_of(pages["sfdfa-figure4"])
    for row in exhibit("sfdfa-figure4").rows:
        if row.in_paper:
            continue
        run = Run(row.runs("smoke")[0].folder(folder / "runs"))
        accuracy = 100 * run.metrics[-1]["test_accuracy"]
        assert f"{row.method} 1 {accuracy:.2f} (1 seed)" in text


def test_analyses_are_kept_beside_their_runs_and_used_again(made):
    folder, _ = made
    (run,) = exhibit("opzo-figure2").rows[1].runs("smoke")
    path = run.folder(folder / "runs") / "analysis" / "variance-smoke.json"
    found = json.loads(path.read_text())["result"]["rules"]
    assert {"spatial-bp", "zo"} <= found.keys()
    written = path.stat().st_mtime_ns
    reproduce(["opzo-figure2"], folder, budget="smoke", data_dir=folder / "no data")
    assert path.stat().st_mtime_ns == written


def test_names_and_budgets_that_there_are_not(tmp_path):
    with pytest.raises(ConfigurationError, match="did you mean 'opzo-figure2'"):
        reproduce(["opzo-figure22"], tmp_path / "out")
    with pytest.raises(ConfigurationError, match="unknown budget 'large'"):
        reproduce(["opzo-figure2"], tmp_path / "out", budget="large")
    assert not (tmp_path / "out").exists()


def absent(run, root):
    return Outcome(run, run.folder(root), "no data", ["it was not found. To download it: ..."])


def test_a_page_is_there_when_its_runs_have_ended_and_one_that_fails_stops_no_other(
    tmp_path, monkeypatch
):
    names = ("opzo-figure2", "sfdfa-figure4", "sfdfa-figure5", "sfdfa-figure1")
    chosen = [exhibit(name) for name in names]
    pages = _Pages(chosen, "smoke", tmp_path, lambda name, folder: folder, Observer())
    paths = {name: tmp_path / f"{name}-smoke.html" for name in names}
    for run in chosen[1].runs("smoke"):
        assert not paths["sfdfa-figure4"].exists()
        pages.outcome(absent(run, tmp_path / "runs"))
    assert paths["sfdfa-figure4"].exists()
    for run in [*chosen[0].runs("smoke"), *chosen[2].runs("smoke")]:
        pages.outcome(absent(run, tmp_path / "runs"))
    assert paths["sfdfa-figure5"].exists()
    assert not paths["opzo-figure2"].exists()  # it is analysed, when all runs have ended
    make = reproduction.exhibit_sections

    def sections(one, *given):
        if one.name == "opzo-figure2":
            raise CheckpointError("metrics.jsonl is damaged")
        return make(one, *given)

    monkeypatch.setattr(reproduction, "exhibit_sections", sections)
    with pytest.raises(ThreefactorError, match=r"no page of opzo-figure2: metrics\.jsonl"):
        pages.finish()
    assert paths["sfdfa-figure1"].exists()


def test_without_a_terminal_the_progress_is_a_line_once_in_a_while(capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    bar = GridBar()
    bar.start(10, 2)
    bar.progress(2, {"digits-fc opzo-seed0": None})
    now[0] += 61
    bar.progress(3, {"digits-fc opzo-seed0": 250.0, "digits-fc dfa-seed0": None})
    bar.progress(3, {"digits-fc opzo-seed0": 249.0})
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["3 of 10 epochs: digits-fc opzo-seed0 (about 4 min left), digits-fc dfa-seed0"]


def test_a_full_disk_while_a_page_is_written_is_said(tmp_path):
    """A limit on the size of files stands in for the disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(
            ThreefactorError, match=r"no page of sfdfa-figure1: cannot write .*html"
        ):
            reproduce(["sfdfa-figure1"], tmp_path, budget="smoke")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in tmp_path.rglob("*")} == {"runs", LOCK}
    assert reproduce(["sfdfa-figure1"], tmp_path, budget="smoke")[0].exists()
