"""`make verify` makes committed results again, and sees when they are not those of the code."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from threefactor.recipes import recipe
from threefactor.training import train

SCRIPT = Path(__file__).parents[2] / "results" / "verify.py"
SPEC = importlib.util.spec_from_file_location("verify", SCRIPT)
verify = importlib.util.module_from_spec(SPEC)
sys.modules["verify"] = verify  # dataclasses look there
SPEC.loader.exec_module(verify)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two cells of one recipe, the dearer of which is damaged, and one whose data is absent."""
    folder = tmp_path_factory.mktemp("results")
    for rule, seeds in (("dfa", (0, 1)), ("opzo", (0,))):
        for seed in seeds:
            changes = {"epochs": 1, "seed": seed, "data.train": 300, "data.test": 100}
            settings = recipe("digits-fc").settings_for(rule, changes)
            train(settings, folder / "digits-fc" / f"{rule}-seed{seed}")
    dear = folder / "digits-fc" / "opzo-seed0" / "metrics.jsonl"
    change(dear, seconds=1e6)
    absent = recipe("mnist-fc").settings_for("opzo", {"epochs": 1, "seed": 0})
    other = folder / "mnist-fc" / "opzo-seed0"
    other.mkdir(parents=True)
    for name in ("config.json", "metrics.jsonl"):
        text = (folder / "digits-fc" / "dfa-seed0" / name).read_text()
        (other / name).write_text(text)
    config = json.loads((other / "config.json").read_text())
    config["settings"] = verify.Run(folder / "digits-fc" / "dfa-seed0").config["settings"]
    config["settings"]["recipe"] = absent.recipe
    config["settings"]["data"]["name"] = "mnist"
    (other / "config.json").write_text(json.dumps(config))
    change(other / "metrics.jsonl", seconds=1e-3)
    return folder


def change(metrics, **values):
    lines = [{**json.loads(line), **values} for line in metrics.read_text().splitlines()]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_cheapest_cell_of_each_recipe_is_made_again(results, tmp_path, capsys):
    status = verify.main(
        ["--results", str(results), "--cells", "1", "--data-dir", str(tmp_path / "none")]
    )
    skipped, made = capsys.readouterr().out.splitlines()
    assert skipped.startswith("mnist-fc, dfa: skipped, ")
    assert made.startswith("digits-fc, dfa: ") and "(2 seeds)" in made
    assert made.endswith("agrees, every run to the last digit")
    assert status == 0


def test_runs_of_plugins_and_of_other_runs_are_left_out() -> None:
    """Their code, or their start, is not in the folder of results."""
    taken = {run.path for cell in verify.cells(SCRIPT.parent) for run in cell.runs}
    kept = {
        "mnist-fc-authors-weights",
        "digits-own-rule/sign-feedback",
        "cifar10-conv5-small/noise",
    }
    assert taken and not [path for path in taken if any(name in str(path) for name in kept)]
    assert not [path for path in taken if verify.Run(path).own_code]


def test_other_numbers_are_seen(results, tmp_path, capsys):
    for metrics in results.glob("digits-fc/dfa-seed*/metrics.jsonl"):
        change(metrics, test_accuracy=0.999)
    options = ["--results", str(results), "--cells", "1", "--data-dir", str(tmp_path / "none")]
    assert verify.main(options) == 1
    assert "DOES NOT AGREE" in capsys.readouterr().out


def test_fewer_cells_than_asked_for_are_no_success(results, tmp_path, capsys):
    options = ["--results", str(results), "--cells", "9", "--data-dir", str(tmp_path / "none")]
    assert verify.main(options) == 1
    assert "8 more cells were asked for" in capsys.readouterr().out
