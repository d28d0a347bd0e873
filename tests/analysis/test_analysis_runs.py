"""Analyses of run folders, by name, of both engines."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from threefactor import clocked, data, training
from threefactor.analysis.runs import ANALYSES, RunView, analyse
from threefactor.analysis.runs.analyses import _warmup
from threefactor.analysis.runs.rules import fresh_rules, makers
from threefactor.errors import ConfigurationError, InputError
from threefactor.recipes import recipe

COMMON = {"epochs": 3, "data.train": 96, "data.test": 32, "batch_size": 16}
HEAVY = {"measured-cost", "memory", "learning-curves"}
GRID_ONLY, EVENTS_ONLY = {"memory"}, {"hair-triggers", "learning-curves"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run folder of each engine."""
    root = tmp_path_factory.mktemp("runs")
    grid = recipe("digits-fc").settings_for("opzo", {**COMMON, "hidden": [20, 15]})
    spikes = {**COMMON, "hidden": [20, 15], "thresholds": [0.1, 0.05, 0.05]}
    training.train(grid, root / "grid")
    training.train(recipe("digits-events").settings_for("sfdfa", spikes), root / "events")
    return root


@pytest.mark.parametrize("kind", ["grid", "events"])
@pytest.mark.parametrize("name", sorted(ANALYSES.keys() - HEAVY))
def test_every_analysis_gives_plain_values_and_changes_nothing(runs, kind, name):
    trainer = training.open_run(runs / kind)
    view = RunView(trainer, samples=64, warmup=20)
    if kind == "grid" and name in EVENTS_ONLY:
        with pytest.raises(InputError, match="exact spike times"):
            analyse(name, view)
        return
    experiment = trainer.experiment
    experiment.network.train()
    before = [v.clone() for part in (experiment.network, experiment.rule)
              for v in part.state_dict().values() if isinstance(v, torch.Tensor)]  # fmt: skip
    random = torch.get_rng_state()
    found = analyse(name, view)
    assert torch.equal(random, torch.get_rng_state())
    assert json.loads(json.dumps(found, allow_nan=False)) == found and found
    after = [v for part in (experiment.network, experiment.rule)
             for v in part.state_dict().values() if isinstance(v, torch.Tensor)]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(module.training for module in experiment.network.modules())


def test_pictures_of_a_folder_are_analysed_as_they_are_for_testing(tmp_path):
    """Their parts are cut out at random while a network trains: each analysis would see others."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(256, size=(4, 20, 30, 3), dtype=np.uint8)
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]
    for path, values in zip(paths, pixels, strict=True):
        image.fromarray(values).save(path)
    files = data.ImageFiles(paths, data.ImageSettings(size=8, resize=10), training=True)
    samples = SimpleNamespace(train=(files, torch.arange(4)))
    experiment = SimpleNamespace(
        data=samples, settings=SimpleNamespace(batch_size=4), shaped=lambda x: x
    )
    view = RunView(SimpleNamespace(experiment=experiment))  # type: ignore[arg-type]
    seen = [x for _ in range(2) for x, _ in view.batches()]
    assert torch.equal(seen[0], seen[1]) and seen[0].abs().max() > 0
    assert torch.equal(seen[0], data.ImageFiles(paths, files.settings, training=False)[:4])
    assert not torch.equal(seen[0], files[:4])


def test_warm_up_counts_the_steps_of_several_inputs():
    sequence, labels = torch.rand(5, 4, 3), torch.zeros(4, dtype=torch.int64)
    for inputs in (sequence, (sequence, sequence), {"a": sequence, "b": sequence}):
        view = SimpleNamespace(
            warmup=12, rule=None, steps=None, batches=lambda x=inputs: iter([(x, labels)] * 2)
        )
        assert len([*_warmup(view)]) == 3  # of 5 steps each


def test_images_are_analysed_as_they_are(runs):
    """What a run augments while it trains is not what an analysis is about."""
    trainer = training.open_run(runs / "grid")
    samples, experiment = trainer.experiment.data, trainer.experiment
    augmentation = data.Augmentation(padding=2, flip=True, cutout=4)
    experiment.data = data.AugmentedData(samples, augmentation)
    (seen, labels), *_ = RunView(trainer).batches()
    assert torch.equal(seen, samples.train_images[:16])
    assert torch.equal(labels, samples.train_labels[:16])


def test_fresh_rules_have_the_noise_of_the_runs_rule():
    net = clocked.fc(4, (8,), 3)
    noise = {"noise_scale": 0.5, "noise_position": "before", "antithetic": False}
    for noisy in (False, True):
        rules = fresh_rules(clocked.OPZO(net, **noise), 20, noisy_hardware=noisy)
        for name, rule in rules.items():
            if not noisy and name in ("spatial-bp", "dfa", "dkp"):
                assert rule.perturbation is None
                continue
            given = rule.perturbation
            assert (given.scale, given.position, given.antithetic) == (0.5, "before", False)
            assert given.distribution == "gaussian"
    assert fresh_rules(clocked.DFA(net), 20)["zo"].perturbation.position == "after"


def test_rules_are_compared_with_the_traces_of_the_runs_rule():
    net = clocked.fc(4, (8,), 3)
    rule = clocked.DFA(net, trace_decay={"readout": 0.25}, untraced=["linear1"])
    made = {name: make(net) for name, make in makers(rule).items()}
    for other in (*fresh_rules(rule, 20).values(), *made.values()):
        assert other.trace_decays == rule.trace_decays
        assert other._session.untraced == ("linear1",)


def test_learning_curves_differ_in_the_local_gradient_alone(runs):
    trainer = training.open_run(runs / "events")
    found = analyse("learning-curves", RunView(trainer))
    assert set(found) == {"exact", "modified"} and len(found["exact"]) == 3
    assert found["exact"][-1]["train_loss"] != found["modified"][-1]["train_loss"]
    history = training.Run(runs / "events").metrics
    assert found["modified"][-1]["train_loss"] == history[-1]["train_loss"]
    with pytest.raises(ConfigurationError, match="two local gradients"):
        analyse("learning-curves", RunView(training.open_run(runs / "grid")))


def test_open_run_restores_network_rule_and_noise(runs):
    trainer = training.open_run(runs / "grid", "best")
    assert trainer.experiment.rule.feedback[0].matrix.abs().max() > 0
    lines = training.Run(runs / "grid").metrics
    line = lines[trainer.epoch - 1]
    assert trainer.experiment.rule.perturbation.scale == pytest.approx(line["noise_scale"])
    assert line["noise_scale"] < 0.2 or trainer.epoch == 1
    assert trainer.evaluate().accuracy == line["test_accuracy"] == max(
        row["test_accuracy"] for row in lines
    )  # fmt: skip
    assert training.open_run(runs / "grid").epoch == 3
    with pytest.raises(ConfigurationError, match="give last or best"):
        training.open_run(runs / "grid", "first")
