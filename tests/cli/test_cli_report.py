"""The commands report and cite, run as a user would."""

import json

from threefactor.recipes import recipe
from threefactor.training import RunFolder


def make(name, seed, **changes):
    settings = recipe("digits-fc").settings_for("dfa", {"seed": seed, "epochs": 1, **changes})
    folder = RunFolder(name)
    folder.create(settings)
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds")
    line = {"epoch": 1, **dict.fromkeys(names, 0.5), "firing_rates": {"lif1": 0.1, "lif2": 0.2}}
    folder.metrics_path.write_text(json.dumps(line) + "\n")


def test_a_page_a_text_and_pictures(run, tmp_path):
    make("runs/a0", 0)
    make("runs/a1", 1)
    code, out, _ = run("report", "runs", "--title", "Two seeds")
    assert (code, "the report is in report.html" in out) == (0, True)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>Two seeds</h1>" in page and "50.00 ± 0.00" in page
    (tmp_path / "runs/a1/metrics.jsonl").unlink()
    arguments = ["--format", "markdown", "--out", "text/page.md", "--figures", "pictures"]
    code, out, _ = run("report", "runs", *arguments)
    assert code == 0
    assert "left out: runs/a1: metrics.jsonl cannot be read" in out
    text = (tmp_path / "text/page.md").read_text(encoding="utf-8")
    assert "50.00 (1 seed)" in text and "](../pictures/digits-fc-test-error.svg)" in text
    assert (tmp_path / "pictures/digits-fc-test-error.csv").exists()


def test_what_bad_input_gets(run, tmp_path):
    make("runs/a0", 0)
    make("runs/a1", 1, leak=0.25)
    (tmp_path / "file").write_text("")
    for arguments, code, message in (
        (["report"], 2, "Missing argument"),
        (["report", "nowhere"], 1, "nowhere is not a folder; give run folders"),
        (["report", "runs"], 2, "network.leak is 0.5 in runs/a0 but 0.25 in runs/a1"),
        (["report", "runs", "--format", "pdf"], 2, "'pdf' is not one of"),
        (["report", "runs/a0", "--out", "file/page.html"], 1, "file"),
        (["cite", "--rule", "ozpo"], 2, "did you mean 'opzo'"),
        (["cite", "--recipe", "digits-events", "--rule", "opzo"], 2, "unknown rule 'opzo'"),
    ):
        got, _, err = run(*arguments)
        assert got == code, err
        assert message in " ".join(err.split())
    assert run("report", "runs", "--split")[0] == 0


def test_cite(run):
    code, out, _ = run("cite", "--rule", "sfdfa", "--recipe", "shd-events")
    assert code == 0
    for key in ("bacho2024sfdfa", "bacho2023tradeoffs", "cramer2022shd", "threefactor"):
        assert f"{{{key}," in out
    assert "xiao" not in out
