"""Regression and several labels: scores, what is best by them, and that they resume exactly."""

import json

import numpy as np
import pytest
import torch
from sklearn import metrics

import threefactor
from threefactor import plugins, training
from threefactor.errors import InputError
from threefactor.recipes import recipe
from threefactor.report import report_sections
from threefactor.report.page import html_page, markdown_page
from threefactor.report.runs import read_run
from threefactor.report.study import collect
from threefactor.report.sweeps import ranked
from threefactor.training.best import chosen_by, is_better, stopped_early
from threefactor.training.folder.run import Run
from threefactor.training.progress import describe_epoch
from threefactor.training.scores import Tally, leading, mean_average_precision, shown, task_of
from threefactor.training.settings import StoppingSettings


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    x = np.random.default_rng(0).random((90, 12)).astype(np.float32)
    np.savez(folder / "values.npz", inputs=x, labels=(x @ numbers(1, 12, 2)).astype(np.float32))
    np.savez(folder / "labels.npz", inputs=x, labels=(x @ numbers(2, 12, 3) > 0).astype(np.int64))
    return folder


LOSSES = {"values": "SmoothL1Loss", "labels": "BCEWithLogitsLoss"}


def settings(files, task, **changes):
    small = {"hidden": [12], "batch_size": 16, "epochs": 3, "optimizer.lr": 5e-3}
    data = {"data.name": "tensors", "data.options.path": str(files / f"{task}.npz")}
    options = {"data.options.test_share": 0.3, "data.options.targets": task}
    given = {**small, **data, **options, "loss.kind": LOSSES[task], **changes}
    return recipe("digits-fc").settings_for("opzo", given)


def slow_values(p, y):
    """Sums over samples and outputs, one number after the other."""
    absolute = squared = 0.0
    r2 = []
    for k in range(y.shape[1]):
        mean = sum(y[:, k]) / len(y)
        about = sum((one - mean) ** 2 for one in y[:, k])
        errors = [a - b for a, b in zip(p[:, k], y[:, k], strict=True)]
        absolute += sum(map(abs, errors))
        squared += sum(e**2 for e in errors)
        r2.append(1 - sum(e**2 for e in errors) / about)
    return {
        "rmse": (squared / y.size) ** 0.5,
        "mae": absolute / y.size,
        "r2": sum(r2) / len(r2),
    }


def tallied(task, p, y, size=7):
    tally = Tally(task)
    for start in range(0, len(y), size):
        part = slice(start, start + size)
        numbers = tally.numbers(torch.from_numpy(p[part]), torch.from_numpy(y[part]))
        tally.add(numbers.tolist(), len(y[part]))
    return tally.scores()


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_scores_of_values_are_those_of_slow_sums_and_of_scikit_learn(offset):
    p, y = numbers(3, 40, 3) + offset, numbers(4, 40, 3) + offset
    found = tallied("values", p, y)
    assert found == pytest.approx(slow_values(p - offset, y - offset), rel=1e-6)
    assert found["r2"] == pytest.approx(metrics.r2_score(y, p), rel=1e-6)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(y, p))
    assert found["rmse"] == pytest.approx(metrics.mean_squared_error(y, p) ** 0.5)


def test_no_r2_where_all_targets_are_equal():
    y = np.full((20, 2), 0.1)
    y[:, 1] = numbers(5, 20)
    assert tallied("values", numbers(6, 20, 2), y)["r2"] is None


def slow_f1(said, right):
    both = sum(bool(a and b) for a, b in zip(said, right, strict=True))
    return 2 * both / (sum(said) + sum(right)) if sum(said) + sum(right) else 0.0


def test_scores_of_labels_are_those_of_slow_counts_and_of_scikit_learn():
    p = numbers(7, 40, 4)
    y = (numbers(8, 40, 4) > 0.3).astype(np.float64)
    p[:, 3], y[:, 3] = -1.0, 0.0  # never right, never said
    found = tallied("labels", p, y)
    said, right = p > 0, y > 0
    assert found["f1_macro"] == pytest.approx(
        sum(slow_f1(said[:, k], right[:, k]) for k in range(4)) / 4
    )
    assert found["f1_micro"] == pytest.approx(slow_f1(said.ravel(), right.ravel()))
    exact = sum(all(a == b) for a, b in zip(said, right, strict=True)) / 40
    assert 0 < found["exact_match"] == pytest.approx(exact)
    for average in ("macro", "micro"):
        theirs = metrics.f1_score(right, said, average=average, zero_division=0)
        assert found[f"f1_{average}"] == pytest.approx(theirs)


def slow_precision(scores, right):
    """For every threshold: how many above it, how many of these are right."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        above = [r for s, r in zip(scores, right, strict=True) if s >= threshold]
        recall = sum(above) / sum(right)
        total += (recall - before) * sum(above) / len(above)
        before = recall
    return total


@pytest.mark.parametrize("digits", [8, 0])
def test_average_precision_counts_equal_logits_together(digits):
    logits = numbers(9, 60, 3).round(digits)
    y = (numbers(10, 60, 3) > 0.5).astype(np.float64)
    found = mean_average_precision(torch.from_numpy(logits), torch.from_numpy(y))
    slow = [slow_precision(logits[:, k], y[:, k]) for k in range(3)]
    assert found == pytest.approx(sum(slow) / 3)
    assert found == pytest.approx(metrics.average_precision_score(y, logits, average="macro"))


def test_labels_that_are_never_right_have_no_average_precision():
    logits, y = torch.rand(6, 2), torch.zeros(6, 2)
    assert mean_average_precision(logits, y) is None
    y[2, 1] = 1.0
    alone = mean_average_precision(logits[:, 1:], y[:, 1:])
    assert mean_average_precision(logits, y) == alone


def test_the_loss_says_what_numbers_are_and_targets_whether_they_are_classes():
    values, classes = torch.rand(5, 3), torch.arange(5) % 3

    class Says:
        predicts = "values"

    assert task_of(Says(), values, 3) == "values"
    assert task_of(Says(), values, 4) is None
    assert task_of(Says(), classes, 3) == "classes"
    assert task_of(object(), values, 3) is None


@pytest.mark.parametrize("task", ["values", "labels"])
def test_a_run_has_the_scores_of_its_task(files, tmp_path, task):
    chosen = settings(files, task, validation=0.2)
    history = training.train(chosen, tmp_path / "run")
    trainer = training.open_run(tmp_path / "run")
    inputs, targets = trainer.experiment.data.test
    net = trainer.experiment.network.eval()
    output = threefactor.clocked.run(net, inputs, steps=chosen.steps).output / chosen.steps
    p, y = output.double().numpy(), targets.double().numpy()
    last = history[-1]
    assert last["test_accuracy"] is None
    if task == "values":
        wanted = slow_values(p, y)
        assert {k: last[f"test_{k}"] for k in wanted} == pytest.approx(wanted, rel=1e-4)
        assert chosen_by(last) == "validation_rmse"
    else:
        wanted = metrics.average_precision_score(y, p, average="macro")
        assert last["test_mean_average_precision"] == pytest.approx(wanted)
        assert last["test_exact_match"] == pytest.approx(((p > 0) == (y > 0)).all(1).mean())
        assert chosen_by(last) == "validation_mean_average_precision"
    assert f"train_{'rmse' if task == 'values' else 'f1_macro'}" in last
    state = Run(tmp_path / "run").checkpoint("best", tensors=False)
    every = [line[chosen_by(last)] for line in history]
    best = min(every) if task == "values" else max(every)
    assert (state["best_by"], state["best"]) == (chosen_by(last), best)
    assert state["epoch"] == every.index(best) + 1


class StopAt(training.progress.Watcher):
    """Stops a training after a batch."""

    def __init__(self, trainer_of, number):
        self.trainer_of, self.number = trainer_of, number

    def batch(self, loss, accuracy, samples):
        self.number -= 1
        if not self.number:
            self.trainer_of()._stop.number = 2


@pytest.mark.parametrize("task", ["values", "labels"])
def test_a_run_stopped_in_an_epoch_ends_with_the_same_scores(files, tmp_path, task):
    chosen = settings(files, task, epochs=2)
    whole = training.train(chosen, tmp_path / "whole")
    experiment = training.build(chosen)
    watcher = StopAt(lambda: trainer, 2)
    trainer = training.Trainer(experiment, training.RunFolder(tmp_path / "run"), watcher)
    with pytest.raises(training.InterruptedRunError):
        trainer.fit()
    resumed = training.resume(tmp_path / "run")

    def plain(lines):
        return [{k: v for k, v in line.items() if "second" not in k} for line in lines]

    assert plain(resumed) == plain(whole)


def test_a_damaged_tally_is_named(files, tmp_path):
    for changed in ({"samples": -1}, {"task": "x"}, {"sums": {"absolute": [1.0]}}, {"hits": 9}):
        tally = Tally(**{"task": "values", "samples": 3, "hits": 0, "sums": {}, **changed})
        assert list(tally.damage())
    fine = Tally("values")
    fine.add(fine.numbers(torch.rand(3, 2), torch.rand(3, 2)).tolist(), 3)
    assert not list(fine.damage())


def test_what_people_see_has_no_percent_for_errors(files, tmp_path):
    history = training.train(settings(files, "values", validation=0.2), tmp_path / "run")
    text = describe_epoch(history[-1], 3) + shown(history[-1], "test")
    assert "RMSE" in text
    assert "R²" in text
    assert "%" not in text
    assert "accuracy" not in text
    sections = report_sections([tmp_path / "run"])
    page = markdown_page("Values", sections)
    table = page.partition("test RMSE")[2].partition("firing rates")[0]
    assert f"{history[-1]['test_rmse']:.4f}" in table
    assert "%" not in table
    assert "lowest RMSE is the best" in table
    assert "test RMSE" in html_page("Values", sections)


def line(epoch, rmse, loss=1.0):
    return {"epoch": epoch, "test_loss": loss, "test_accuracy": None, "test_rmse": rmse}


def test_lower_errors_are_better_everywhere(tmp_path):
    assert leading(line(1, 0.5), "test") == "rmse"
    assert is_better("test_rmse", 0.4, 0.5)
    assert not is_better("test_rmse", 0.6, 0.5)
    assert is_better("validation_mean_average_precision", 0.6, 0.5)
    lines = [line(1, 0.5), line(2, 0.7), line(3, 0.9)]
    assert stopped_early(lines, StoppingSettings(patience=2))
    assert not stopped_early(lines[::-1], StoppingSettings(patience=2))


def test_sweeps_rank_errors_from_the_lowest(files, tmp_path):
    rmse = {}
    for lr in (1e-4, 3e-2, 5e-3):
        history = training.train(
            settings(files, "values", **{"optimizer.lr": lr}), tmp_path / f"lr{lr}"
        )
        rmse[lr] = history[-1]["test_rmse"]
    study = collect([tmp_path], split=True)
    order = [group.runs[0].settings.optimizer.lr for group in ranked(study.groups)]
    assert order == sorted(rmse, key=rmse.get)
    run = read_run(tmp_path / "lr0.03")
    assert run.best_of(run.score) == min(one["test_rmse"] for one in run.history)


def test_metrics_that_are_no_scores_are_damage(files, tmp_path):
    training.train(settings(files, "labels", epochs=1), tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    good = json.loads(path.read_text())
    for key, value in (("test_exact_match", 1.5), ("test_f1_macro", "x")):
        path.write_text(json.dumps({**good, key: value}) + "\n")
        with pytest.raises(Exception, match=f"{key} is .*not a share"):
            _ = Run(tmp_path / "run").metrics


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("values", {"loss.kind": "CrossEntropyLoss"}, "one class label per sample"),
        ("values", {"loss.kind": "cross-entropy"}, "one class label per sample"),
        ("values", {"loss.kind": "BCEWithLogitsLoss"}, "numbers from 0 to 1"),
    ],
)
def test_a_loss_that_does_not_fit_the_targets_is_refused_before_a_folder_is_made(
    files, tmp_path, task, changes, message
):
    with pytest.raises(InputError, match=message):
        training.train(settings(files, task, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_of_ones_own_says_that_it_predicts_values(files, tmp_path):
    @threefactor.register_loss("squared-values")
    def squared(output, targets, *, scale: float = 1.0):
        return scale * (output - targets).square().sum(1)

    squared.predicts = "values"
    try:
        changes = {"loss.kind": "squared-values", "loss.scale": 0.5, "epochs": 1}
        (found,) = training.train(settings(files, "values", **changes))
        assert found["test_rmse"] > 0
    finally:
        plugins.unregister("loss", "squared-values")


def test_folds_of_values_are_parts_of_the_whole(files):
    samples = [
        training.build(settings(files, "values", **{"data.folds": 3, "data.fold": k})).data
        for k in range(3)
    ]
    rows = torch.cat([one.test[1] for one in samples])
    whole = training.build(settings(files, "values")).data.train[1]
    assert sorted(rows[:, 0].tolist()) == sorted(whole[:, 0].tolist())
