"""Evaluation: accuracy where there is one, and networks left in the modes that they had."""

import dataclasses

import pytest
import torch
from torch import nn

from threefactor import clocked, data, training
from threefactor.errors import DivergenceError, InputError
from threefactor.report import report_sections
from threefactor.report.page import html_page
from threefactor.report.runs import read_run
from threefactor.training.evaluation import evaluate
from threefactor.training.folder import checkpoint
from threefactor.training.progress import EpochLines, Watcher
from threefactor.training.scores import has_accuracy


@pytest.mark.parametrize(
    ("targets", "outputs", "has"),
    [
        (torch.tensor([0, 1, 2]), 3, True),
        (torch.tensor([1, 1, 1]), 3, True),
        (torch.tensor([0, 1], dtype=torch.uint8), 2, True),
        (torch.tensor([0, 0, 0]), 1, False),  # the largest of one output is always right
        (torch.tensor([0, 1, 3]), 3, False),
        (torch.tensor([0, -100]), 3, False),
        (torch.tensor([0.0, 1.0]), 2, False),
        (torch.tensor([0.5 + 1j]), 2, False),
        (torch.tensor([True, False]), 2, False),
        (torch.eye(3, dtype=torch.int64), 3, False),
        (torch.tensor([], dtype=torch.int64), 3, False),
    ],
)
def test_there_is_an_accuracy_only_with_labels_of_outputs(targets, outputs, has):
    assert has_accuracy(targets, outputs) is has


def squared(output, target):
    return (output - target).square().sum(1)


def regression(settings, targets=None):
    """Two numbers out of each image."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(60, 1, 8, 8, generator=generator)
    if targets is None:
        targets = images.flatten(1)[:, :2] * 2
    samples = data.ImageData(
        images[:40], targets[:40], images[40:], targets[40:], ("a", "b"), "own", 0.0, 1.0
    )
    torch.manual_seed(0)
    net = clocked.fc(64, (20,), 2)
    rule = clocked.DFA(net, loss=clocked.from_autograd(squared))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    return training.Experiment(settings, samples, net, rule, optimizer, None)


def test_continuous_targets_have_no_accuracy_and_the_best_is_that_of_the_test_loss(small, tmp_path):
    run = training.RunFolder(tmp_path / "run")
    trainer = training.Trainer(regression(small(epochs=6)), run)
    history = trainer.fit()
    assert all(line["train_accuracy"] is line["test_accuracy"] is None for line in history)
    assert trainer.evaluate().accuracy is None
    losses = [line["test_loss"] for line in history]
    assert losses[-1] < losses[0]
    best = checkpoint.load_state(run.best)
    assert (best["best_by"], best["best"]) == ("test_loss", min(losses))
    assert best["epoch"] == losses.index(min(losses)) + 1


def test_class_labels_choose_the_best_by_accuracy(small, tmp_path):
    history = training.train(small(), tmp_path / "run")
    accuracies = [line["test_accuracy"] for line in history]
    best = checkpoint.load_state(tmp_path / "run/best")
    assert (best["best_by"], best["best"]) == ("test_accuracy", max(accuracies))
    assert best["epoch"] == accuracies.index(max(accuracies)) + 1


def test_it_is_resumed_without_an_accuracy(small, tmp_path):
    run = training.RunFolder(tmp_path / "run")
    whole = training.Trainer(regression(small()), run).fit()
    trainer = training.Trainer(regression(small()), run)
    trainer.load(run.last)
    assert trainer.progress.best_by == "test_loss"
    assert trainer.fit() == whole


def test_pages_and_the_terminal_show_a_dash(small, tmp_path, capsys):
    from rich.console import Console

    run = training.RunFolder(tmp_path / "run")
    training.Trainer(regression(small()), run, EpochLines(Console(width=200))).fit()
    assert "accuracy -  test loss" in capsys.readouterr().out
    found = read_run(run.path)
    assert found.last is found.best is found.best_epoch is None
    sections = report_sections([run.path])
    tables = {table.title: table for section in sections for table in section.tables}
    (table,) = (table for title, table in tables.items() if title.endswith(": test accuracy"))
    assert table.rows[0][table.columns.index("last epoch, %")] == "\N{EN DASH}"
    figures = [figure.title for section in sections for figure in section.figures]
    assert not any("error" in title for title in figures)
    assert any("training loss" in title for title in figures)
    page = html_page("x", [next(iter(sections))])
    assert "0.00" not in page.split("<table")[1].split("</table>")[0]


def test_labels_beyond_the_outputs_have_none_under_a_loss_that_takes_them(small):
    labels = torch.arange(60) % 5  # of a network with 2 outputs
    experiment = regression(small(), labels)
    experiment.rule.loss = clocked.from_autograd(lambda o, y: (o[:, 0] - y).square())
    history = training.Trainer(experiment).fit()
    assert history[-1]["test_accuracy"] is None
    assert [line["train_accuracy"] for line in history] == [None, None, None]


def test_samples_and_targets_must_belong_together(small):
    experiment = training.build(small())
    short = dataclasses.replace(experiment.data, train_labels=experiment.data.train_labels[:-1])
    with pytest.raises(InputError, match=r"training there are 100 inputs and 99 targets"):
        training.Trainer(dataclasses.replace(experiment, data=short))
    none = dataclasses.replace(
        experiment.data,
        test_images=experiment.data.test_images[:0],
        test_labels=experiment.data.test_labels[:0],
    )
    with pytest.raises(InputError, match="testing there are 0 inputs"):
        training.Trainer(dataclasses.replace(experiment, data=none))


def test_evaluation_restores_the_mode_of_every_module(small):
    experiment = training.build(small(dropout=0.3))
    experiment.network.lif1.eval()
    trainer = training.Trainer(experiment)
    trainer.evaluate()
    assert experiment.network.training
    assert not experiment.network.lif1.training
    assert experiment.network.lif2.training
    trainer.fit()  # nor does an epoch of training begin with dropout switched on again
    assert not experiment.network.lif1.training
    assert experiment.network.lif2.training


def test_a_network_in_evaluation_mode_is_put_into_training_mode(small):
    experiment = training.build(small(dropout=0.3))
    whole = training.Trainer(training.build(small(dropout=0.3))).fit()
    experiment = training.build(small(dropout=0.3))
    experiment.network.eval()
    assert training.Trainer(experiment).fit()[-1]["train_loss"] == whole[-1]["train_loss"]


def test_modes_are_restored_after_an_error_too(small):
    network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())

    def fails(x, y):
        assert not network[0].training
        raise RuntimeError("no result")

    with pytest.raises(RuntimeError, match="no result"):
        evaluate(network, torch.rand(3, 2), torch.tensor([0, 1, 0]), fails)
    assert network.training
    assert [module.training for module in network] == [True, False]
    with pytest.raises(InputError, match="no samples to evaluate"):
        evaluate(network, torch.rand(0, 2), torch.tensor([]), fails)


class SpoilAt(Watcher):
    """Breaks a weight after a batch, whose own loss is known by then."""

    def __init__(self, network, batch):
        self.network, self.left = network, batch

    def batch(self, loss, accuracy, samples):
        self.left -= 1
        if self.left == 0:
            self.network.readout.weight.data.fill_(float("nan"))


def test_a_test_loss_that_is_no_number_ends_the_run_before_it_is_written(small, tmp_path):
    experiment = training.build(small("dfa", epochs=2))
    run = training.RunFolder(tmp_path / "run")
    last_of_all = 2 * 7
    trainer = training.Trainer(experiment, run, SpoilAt(experiment.network, last_of_all))
    with pytest.raises(DivergenceError, match="after epoch 2, the output holds NaN"):
        trainer.fit()
    assert len(run.read().metrics) == run.read().finished_epochs == 1
