"""Experiments of one's own: described as what they are, and gone on with."""

import copy
import dataclasses
import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from forked import output
from torch import nn

from threefactor import clocked, data, events, training
from threefactor.data.samples.own import OwnData
from threefactor.data.samples.sequences import Sequences
from threefactor.errors import CheckpointError, ConfigurationError, InputError
from threefactor.report import html_page, report_sections
from threefactor.report.citing import cite_settings
from threefactor.report.runs import read_run
from threefactor.training.description import PARTS
from threefactor.training.folder import checkpoint
from threefactor.training.loop import InterruptedRunError
from threefactor.training.progress import Watcher
from threefactor.training.settings import OwnLossSettings

VOLATILE = ("seconds", "samples_per_second")


def own(settings, seed=3):
    """Data, network, rule and optimiser of one's own, with settings that say something else."""
    generator = torch.Generator().manual_seed(7)
    images = torch.rand(90, 1, 8, 8, generator=generator)
    labels = torch.randint(2, (90,), generator=generator)
    images[labels == 1, :, :4] += 1.0
    samples = data.ImageData(
        images[:60], labels[:60], images[60:], labels[60:], ("dark", "bright"), "lamps", 0.0, 1.0
    )
    torch.manual_seed(seed)
    net = clocked.fc(64, (33, 7), 2)
    rule = clocked.OPZO(net, noise_scale=0.1, momentum=0.99)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    return training.Experiment(settings, samples, net, rule, optimizer, scheduler=None)


def config(run):
    return json.loads((run / "config.json").read_text())


def metrics(history):
    return [{k: v for k, v in line.items() if k not in VOLATILE} for line in history]


class StopAt(Watcher):
    def __init__(self, batch):
        self.left = batch

    def batch(self, loss, accuracy, samples):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


def test_the_configuration_says_what_was_trained(small, tmp_path):
    run = training.RunFolder(tmp_path / "run")
    run.create(small())  # as people do, who know the settings alone
    training.Trainer(own(small()), run).fit()
    found = config(run.path)
    said, network = found["settings"], found["settings"]["network"]
    assert said["recipe"].startswith("own-")
    assert (network["kind"], network["hidden"], network["outputs"]) == ("own-clocked", [33, 7], 2)
    assert network["parameters"] == 64 * 33 + 33 + 33 * 7 + 7 + 7 * 2 + 2
    assert said["data"]["name"] == "own"
    assert found["data"]["name"] == "lamps"
    assert found["data"]["shape"] == [1, 8, 8]
    assert (found["data"]["train"], found["data"]["classes"]) == (60, ["dark", "bright"])
    assert said["rule"]["name"] == "own OPZO"
    assert said["rule"]["options"]["momentum"] == 0.99
    assert said["optimizer"]["lr"] == 2e-3
    assert said["scheduler"]["name"] is None
    assert found["own"]["parts"] == list(PARTS)
    assert found["environment"]["device"] == "cpu"
    assert found["environment"]["torch_seed"] == 3
    assert found["environment"]["command"] is None


def test_a_report_shows_the_real_layers_and_no_published_number(small, tmp_path):
    run = training.RunFolder(tmp_path / "run")
    settings = small(**{"hidden": [24, 16]})
    training.Trainer(own(settings), run).fit()
    page = html_page("own", report_sections([run.path]))
    assert "1x8x8-33-7-2 neurons" in page or "64-33-7-2 neurons" in page
    assert "scikit-learn" not in page
    assert "digits-fc" not in page
    assert "published, %" not in page
    assert "it was made from Python" in page


CHANGES = {
    "leak": ("network", lambda e: setattr(e.network.lif1, "leak", 0.9)),
    "weights": ("network", lambda e: e.network.readout.weight.data.mul_(2)),
    "frozen weights": ("network", lambda e: e.network.readout.weight.requires_grad_(False)),
    "a dropout that is off": ("network", lambda e: e.network.lif1.eval()),
    "momentum": ("rule", lambda e: setattr(e.rule, "momentum", 0.5)),
    "noise": ("rule", lambda e: setattr(e.rule.perturbation, "antithetic", False)),
    "loss": ("loss", lambda e: setattr(e.rule, "loss", clocked.CrossEntropyMSE(0.5))),
    "learning rate": ("optimizer", lambda e: e.optimizer.param_groups[0].update(lr=1.0)),
    "a late image": ("data", lambda e: e.data.train_images[-1].mul_(2)),
    "a test label": ("data", lambda e: e.data.test_labels[:1].add_(1).remainder_(10)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_after_it_was_built_is_ones_own(small, change):
    part, do = CHANGES[change]
    experiment = training.build(small())
    do(experiment)
    described = training.Trainer(experiment).described
    assert described.own["parts"] == [part]
    assert described.settings != small()
    is_comparable = part in ("rule", "loss", "optimizer")  # on the recipe's data, with its network
    assert (described.settings.recipe == "digits-fc") is is_comparable


@pytest.mark.parametrize(
    "change", [lambda e: e, copy.deepcopy, lambda e: e.network.eval() and e, lambda e: e.rule and e]
)
def test_what_is_not_changed_is_the_recipes(small, change):
    experiment = change(training.build(small("dkp")))
    described = training.Trainer(experiment).described
    assert described.own is None
    assert described.settings == small("dkp")


def test_settings_put_in_place_of_others_do_not_change_what_was_built(small):
    experiment = training.build(small())
    other = dataclasses.replace(experiment, settings=small(seed=5))
    assert training.Trainer(other).described.own["parts"] == ["network"]
    other = dataclasses.replace(experiment, settings=small(batch_size=7))
    assert training.Trainer(other).described.own is None


def squared(output, target):
    return (output - target).square().sum(1)


@pytest.mark.parametrize(
    ("loss", "name"),
    [(clocked.from_autograd(squared), "from_autograd(squared)"), (nn.MSELoss(), "MSELoss")],
)
def test_a_loss_of_ones_own_is_named(small, loss, name):
    experiment = training.build(small())
    experiment.rule.loss = loss
    described = training.Trainer(experiment).described
    assert isinstance(described.settings.loss, OwnLossSettings)
    assert described.settings.loss.name == name


def test_spikes_and_networks_of_exact_times_are_described_too(small_events, tmp_path):
    experiment = training.build(small_events())
    spikes, labels = experiment.data.train
    samples = data.SpikeData(spikes[:40], labels[:40], spikes[40:60], labels[40:60], "0123456789",
                             "own")  # fmt: skip
    torch.manual_seed(1)
    net = events.fc(64, (9,), 10, tau_s=0.130, thresholds=(0.1, 0.1), duration=0.2)
    rule = events.SFDFA(net, rate_penalty=0.3)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    mine = training.Experiment(small_events(), samples, net, rule, optimizer, None)
    run = training.RunFolder(tmp_path / "run")
    training.Trainer(mine, run).fit()
    said = config(run.path)["settings"]
    assert (said["network"]["kind"], said["network"]["hidden"]) == ("own-events", [9])
    assert said["rule"]["options"]["rate_penalty"] == 0.3
    assert read_run(run.path).settings.steps is None
    assert "bacho2023tradeoffs" in cite_settings([read_run(run.path).settings])


def test_a_stopped_training_goes_on_with_all_epochs_and_to_the_bit(small, tmp_path):
    whole = training.Trainer(own(small()), training.RunFolder(tmp_path / "whole")).fit()
    run = training.RunFolder(tmp_path / "parts")
    with pytest.raises(InterruptedRunError):
        training.Trainer(own(small()), run, StopAt(6)).fit()
    for _ in range(2):  # the second time, nothing is left to do
        trainer = training.Trainer(own(small()), run)
        trainer.load(run.last)
        assert metrics(trainer.fit()) == metrics(whole)
        assert metrics(run.read().metrics) == metrics(whole)


def test_a_trainer_goes_on_after_it_was_stopped_itself(small, tmp_path):
    whole = training.Trainer(own(small())).fit()
    run = training.RunFolder(tmp_path / "run")
    trainer = training.Trainer(own(small()), run, StopAt(6))
    with pytest.raises(InterruptedRunError):
        trainer.fit()
    assert metrics(trainer.fit()) == metrics(whole) == metrics(run.read().metrics)


def test_a_trainer_that_was_not_loaded_does_not_touch_the_run(small, tmp_path):
    run = training.RunFolder(tmp_path / "run")
    training.Trainer(own(small()), run).fit()
    before = run.metrics_path.read_bytes()
    with pytest.raises(CheckpointError, match=r"already holds a training; call load\(run.last\)"):
        training.Trainer(own(small()), run).fit()
    trainer = training.Trainer(own(small()), run)
    trainer.load(run.best)
    with pytest.raises(CheckpointError, match="already holds a training"):
        trainer.fit()
    assert run.metrics_path.read_bytes() == before


def another_network(experiment):
    torch.manual_seed(3)
    net = clocked.fc(64, (33, 8), 2)
    rule = clocked.OPZO(net, noise_scale=0.1, momentum=0.99)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    return dataclasses.replace(experiment, network=net, rule=rule, optimizer=optimizer)


def another_rule(experiment):
    rule = clocked.OPZO(experiment.network, noise_scale=0.1, momentum=0.9)
    return dataclasses.replace(experiment, rule=rule)


def other_images(experiment):
    samples = experiment.data
    images = samples.train_images.clone()
    images[-1] += 1
    return dataclasses.replace(experiment, data=dataclasses.replace(samples, train_images=images))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (another_network, r"network\.hidden: \[33, 7\] when it was trained, \[33, 8\] now"),
        (another_rule, r"rule\.options\.momentum: 0\.99 when it was trained, 0\.9 now"),
        (other_images, "recipe: 'own-"),
    ],
)
def test_other_objects_do_not_go_on_with_a_run(small, tmp_path, change, said):
    run = training.RunFolder(tmp_path / "run")
    with pytest.raises(InterruptedRunError):
        training.Trainer(own(small()), run, StopAt(6)).fit()
    with pytest.raises(CheckpointError, match=said):
        training.Trainer(change(own(small())), run).load(run.last)


def test_settings_cannot_make_it_again(small, tmp_path):
    run = training.RunFolder(tmp_path / "run")
    training.Trainer(own(small()), run).fit()
    for use in (training.open_run, training.resume):
        with pytest.raises(ConfigurationError, match=r"parts of the user's own \(network 'own Net"):
            use(run.path)


def test_frames_of_ones_own_are_sequences_whatever_the_settings_say(small):
    array = torch.rand(30, 4, 2, 5, 5).numpy()
    labels = torch.arange(30) % 3
    frames = data.Frames(array[:20]), data.Frames(array[20:])
    samples = data.FrameData(
        frames[0], labels[:20], frames[1], labels[20:], ("a", "b", "c"), "own", 0.0, 1.0
    )
    net = clocked.fc(50, (8,), 3)
    rule = clocked.DFA(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    experiment = training.Experiment(small("dfa"), samples, net, rule, optimizer, None)
    trainer = training.Trainer(experiment)
    assert trainer.described.settings.steps == 4
    assert len(trainer.fit()) == 3
    inputs, targets = samples.test
    wanted = clocked.run(net.eval(), inputs[:], targets=targets, loss=rule.loss)
    assert trainer.history[-1]["test_loss"] == pytest.approx(float(wanted.loss))


def test_frames_of_a_single_sample_are_no_batch_of_pictures(small):
    """As in a last batch of one: a network that takes pictures flat might take them for that."""
    values, labels = torch.rand(10, 4, 2, 5, 5), torch.arange(10) % 3
    names = ("a", "b", "c")

    def history(samples):
        torch.manual_seed(0)
        net = clocked.fc(50, (8,), 3)
        rule = clocked.OPZO(net)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        changes = {"batch_size": 4, "track": {"measures": ["alignment", "firing"], "samples": 1}}
        given = small("opzo", **changes)
        trainer = training.Trainer(training.Experiment(given, samples, net, rule, optimizer, None))
        kept = {"seconds", "samples_per_second"}
        lines = [{k: v for k, v in line.items() if k not in kept} for line in trainer.fit()]
        return lines, trainer.tracked

    frames = [data.Frames(part.numpy()) for part in (values[:9], values[9:])]
    pictures = data.FrameData(frames[0], labels[:9], frames[1], labels[9:], names, "own", 0.0, 1.0)
    flat = [Sequences(part.flatten(2), torch.float32) for part in (values[:9], values[9:])]
    rows = OwnData(flat[0], labels[:9], flat[1], labels[9:], "own", (50,), 3, names, 4)
    assert history(pictures) == history(rows)


def command_of(run):
    return config(run)["environment"]["command"]


def test_a_command_is_kept_that_makes_the_run_again_and_none_for_python(tmp_path):
    small = ["--epochs", 1, "--set", "hidden=[4, 4]", "--set", "data.train=40"]
    output(["-m", "threefactor", "train", "digits-fc", *small, "--out", "a run"], cwd=tmp_path)
    assert command_of(tmp_path / "a run") == (
        "threefactor train digits-fc --epochs 1 --set 'hidden=[4, 4]' --set data.train=40 "
        "--out 'a run'"
    )
    script = tmp_path / "mine.py"
    script.write_text(
        "from threefactor import training\nfrom threefactor.recipes import recipe\n"
        "small = {'epochs': 1, 'data.train': 40}\n"
        "training.train(recipe('digits-fc').settings_for('dfa', small), 'made')\n"
    )
    subprocess.run([sys.executable, script, "--my", "option"], cwd=tmp_path, check=True)
    assert command_of(tmp_path / "made") is None


def _another_network(experiment):
    return dataclasses.replace(experiment, network=copy.deepcopy(experiment.network))


def _optimizer_of_another_network(experiment):
    net = copy.deepcopy(experiment.network)
    return dataclasses.replace(experiment, network=net, rule=clocked.OPZO(net))


def _another_head(experiment):
    experiment.network.readout = type(experiment.network.readout)(16, 10)
    return dataclasses.replace(experiment, rule=clocked.OPZO(experiment.network))


def _scheduler_of_another(experiment):
    optimizer = torch.optim.SGD(experiment.network.parameters(), lr=0.1)
    return dataclasses.replace(experiment, optimizer=optimizer)


def _no_parameters(experiment):
    return dataclasses.replace(experiment, network=nn.Identity())


class _Two(nn.Module):
    """Takes the image and one more number."""

    input_shape = ((64,), (1,))

    def __init__(self):
        super().__init__()
        self.fc = clocked.Linear(64, 10)

    def forward(self, image, factor):
        return self.fc(image * factor)


def _several_inputs(experiment):
    network = _Two()
    return dataclasses.replace(experiment, network=network, rule=clocked.DFA(network))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_several_inputs, r"takes several inputs \(2\), and this training loop gives one"),
        (_another_network, "the rule was built on another network"),
        (_optimizer_of_another_network, "the optimiser has 6 parameters that belong neither"),
        (_another_head, "the optimiser has 2 parameters that belong neither"),
        (_scheduler_of_another, "the scheduler was made for another optimiser"),
        (_no_parameters, "the network Identity has no parameters"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(small, tmp_path, change, said):
    """What is trained would not be what is tested, and nobody would know."""
    run = training.RunFolder(tmp_path / "run")
    with pytest.raises(ConfigurationError, match=said):
        training.Trainer(change(training.build(small())), run)
    assert not run.path.exists()


def test_parameters_that_the_optimizer_does_not_have_are_named(small):
    experiment = own(small())
    head = experiment.network.readout.parameters()
    part = dataclasses.replace(experiment, optimizer=torch.optim.SGD(head, lr=0.1))
    with pytest.warns(UserWarning, match=r"does not have linear1\.weight, .*they stay as they are"):
        training.Trainer(part)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (None, "train of the data .* is not a pair"),
        ((torch.rand(6, 64), [0] * 6), "train of the data .* is not a pair"),
        (([torch.rand(64)] * 6, torch.zeros(6, dtype=torch.long)), "inputs of train are a list"),
        ((torch.rand(6, 64), torch.zeros(5, dtype=torch.long)), "for training there are 6 inputs"),
    ],
)
def test_data_that_gives_no_batches_is_refused(small, train, said):
    class Mine:
        input_shape, outputs = (64,), 10

    samples = Mine()
    samples.train, samples.test = train, (torch.rand(6, 64), torch.zeros(6, dtype=torch.long))
    experiment = dataclasses.replace(training.build(small()), data=samples)
    with pytest.raises(InputError, match=said):
        training.Trainer(experiment)


def fail_at(call):
    """Return a function that raises at one of its calls."""
    calls = iter(range(1, 1000))

    def act(*_):
        if next(calls) == call:
            raise KeyboardInterrupt

    return act


@pytest.mark.parametrize("where", ["batch", "end of an epoch"])
def test_a_trainer_does_not_learn_a_batch_twice(small, tmp_path, monkeypatch, where):
    """Ctrl-C for the second time comes anywhere, and notebooks call `fit` again."""
    whole = training.Trainer(training.build(small()))
    whole.fit()
    experiment = training.build(small())
    trainer = training.Trainer(experiment, training.RunFolder(tmp_path / "run"))
    if where == "batch":  # learned by the network, and not yet counted
        experiment.optimizer.register_step_post_hook(fail_at(9))
    else:
        monkeypatch.setattr(trainer, "_track", fail_at(3))  # once at the start
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    with pytest.raises(CheckpointError, match=r"in the middle of a batch or epoch.*load"):
        trainer.fit()
    trainer.load(str(trainer.run.last.resolve()))
    trainer.fit()
    assert metrics(trainer.history) == metrics(whole.history)
    for key, value in whole.experiment.network.state_dict().items():
        assert torch.equal(trainer.experiment.network.state_dict()[key], value)


def test_a_best_checkpoint_is_not_begun_over(small, tmp_path):
    run = training.RunFolder(tmp_path / "run")
    training.Trainer(own(small()), run).fit()
    shutil.rmtree(run.last)
    run.metrics_path.unlink()
    with pytest.raises(CheckpointError, match=r"holds the checkpoint best, but .*last is gone"):
        training.Trainer(own(small()), run).fit()
    assert checkpoint.exists(run.best)


def test_what_an_experiment_at_fault_leaves_does_not_block_the_corrected_one(small, tmp_path):
    run = training.RunFolder(tmp_path / "run")
    experiment = own(small())
    wrong = clocked.OPZO(experiment.network, loss=lambda output, target: output.mean())
    with pytest.raises(InputError, match="the loss gave"):
        training.Trainer(dataclasses.replace(experiment, rule=wrong), run).fit()
    assert not run.path.exists()
    assert len(training.Trainer(own(small()), run).fit()) == 3
