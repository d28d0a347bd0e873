"""Run folders with given accuracies, made without training."""

import json

import pytest

from threefactor.recipes import recipe
from threefactor.training import RunFolder


def metrics_line(epoch, accuracy, layers=("lif1", "lif2")):
    return {
        "epoch": epoch,
        "train_loss": 2.0 / epoch,
        "train_accuracy": accuracy,
        "test_loss": 3.0 / epoch,
        "test_accuracy": accuracy,
        "seconds": 1.5 * epoch,
        "samples_per_second": 100.0,
        "lr": 0.1,
        "firing_rates": {name: 0.1 * i + 0.01 * epoch for i, name in enumerate(layers, start=1)},
    }


@pytest.fixture
def make_run(tmp_path):
    """Write a run of digits-fc: its test accuracies, epoch by epoch."""

    def make(name, accuracies, rule="opzo", seed=0, base="digits-fc", **changes):
        settings = recipe(base).settings_for(
            rule, {"seed": seed, "epochs": len(accuracies), **changes}
        )
        folder = RunFolder(tmp_path / "runs" / name)
        folder.create(settings)
        lines = [metrics_line(i, a) for i, a in enumerate(accuracies, start=1)]
        folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return make


@pytest.fixture
def edit_config():
    """Change the config.json of a run."""

    def edit(folder, change):
        document = json.loads(folder.config_path.read_text())
        change(document)
        folder.config_path.write_text(json.dumps(document))

    return edit
