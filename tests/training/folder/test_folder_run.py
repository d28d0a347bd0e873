"""`Run` reads a folder by one set of rules: what is damage, what is a problem, what is neither."""

import json
import shutil

import pytest

from threefactor import training
from threefactor.errors import CheckpointError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from threefactor.recipes import recipe

    small = {"hidden": [6, 5], "data.train": 60, "data.test": 20, "batch_size": 16, "epochs": 3}
    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = recipe("digits-fc").settings_for("dfa", {**small, "track": {"measures": ["firing"]}})
    return folder, training.train(settings, folder)


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    return training.Run(tmp_path / "run")


def edit(path, change):
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_finished_run_is_read_back(trained, run):
    assert run.metrics == trained[1]
    assert run.settings.epochs == run.finished_epochs == 3 and run.finished
    assert run.layer_sizes == {"lif1": 6, "lif2": 5}
    assert run.checkpoints == ("last", "best")
    assert [line["batches"] for line in run.tracked] == [0, 4, 8, 12]
    assert run.start is None and run.resumed == [] and run.problems == ()
    assert run.environment["threads"] == run.threads


def test_a_folder_without_a_run(tmp_path):
    run = training.Run(tmp_path / "none")
    assert run.metrics == run.tracked == run.remains() == []
    assert run.checkpoints == () and run.finished_epochs == 0
    with pytest.raises(CheckpointError, match="holds no run"):
        _ = run.settings


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines.pop(0), "line 1 .* not that of epoch 1"),
        (lambda lines: lines.pop(1), "line 2 .* not that of epoch 2"),
        (lambda lines: lines.insert(1, lines[0]), "line 2 .* not that of epoch 2"),
        (lambda lines: lines[0].update(epoch=True), "line 1 .* not that of epoch 1"),
        (lambda lines: lines[2].update(test_loss=float("inf")), "line 3 .* test_loss is inf"),
        (lambda lines: lines[1].update(seconds="x"), "line 2 .* seconds is 'x'"),
        (lambda lines: lines[1].update(train_accuracy=-0.1), "line 2 .* train_accuracy is -0.1"),
        (lambda lines: lines[1].pop("test_accuracy"), "line 2 .* test_accuracy is 'missing'"),
        (lambda lines: lines[1].update(firing_rates=[]), r"line 2 .* firing_rates is \[\]"),
        (lambda lines: lines[1]["firing_rates"].update(lif1=None), "line 2 .* firing_rates"),
        (lambda lines: lines[1]["firing_rates"].pop("lif1"), "line 2 .* other layers"),
    ],
)
def test_damaged_metrics_are_named_line_by_line(run, change, said):
    edit(run.metrics_path, change)
    with pytest.raises(CheckpointError, match=said):
        _ = run.metrics


def test_a_measurement_comes_after_the_one_before_it(run):
    edit(run.tracked_path, lambda lines: lines.insert(2, lines[1]))
    with pytest.raises(CheckpointError, match=r"line 3 of .*tracked\.jsonl is damaged"):
        _ = run.tracked


@pytest.mark.parametrize("sizes", [5, [6, 5], {"lif1": "x"}, {"lif1": -1}])
def test_damaged_layer_sizes_are_named(run, sizes):
    run.config["layer_sizes"] = sizes
    with pytest.raises(CheckpointError, match="layer_sizes is"):
        _ = run.layer_sizes


@pytest.mark.parametrize("start", ["{}", '{"test_accuracy": 2}', '{"test_accuracy": NaN}', "[1]"])
def test_a_damaged_direct_test_is_named(run, start):
    run.start_path.write_text(start)
    with pytest.raises(CheckpointError, match=r"start\.json is damaged"):
        _ = run.start


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def more_epochs(run):
    edit(run.metrics_path, lambda lines: lines.append({**lines[0], "epoch": 4}))


def other_rate(run):
    document = json.loads(run.config_path.read_text())
    document["settings"]["optimizer"]["lr"] = 9.0
    run.config_path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: cut(run.metrics_path), "line 3 of metrics.jsonl is cut short"),
        (lambda run: cut(run.tracked_path), "line 4 of tracked.jsonl is cut short"),
        (lambda run: run.metrics_path.unlink(), "metrics.jsonl cannot be read"),
        (more_epochs, "metrics.jsonl has 4 epochs, and config.json says 3"),
        (other_rate, "made with other settings (optimizer.lr"),
    ],
)
def test_what_keeps_a_run_out_of_reports_is_a_problem(run, change, said):
    change(run)
    (problem,) = run.problems
    assert said in problem


def test_checkpoints_are_no_part_of_what_is_reported(run):
    shutil.rmtree(run.last)
    assert run.checkpoints == ("best",)
    assert run.problems == () and run.finished and run.finished_epochs == 0
