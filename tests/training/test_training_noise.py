"""Training from another run's network, and under the noise of hardware."""

import json

import pytest
import torch

from threefactor import clocked, training
from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.recipes import finetuning, recipe
from threefactor.training import RunFolder
from threefactor.training.folder import checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that has learned the digits without noise."""
    out = tmp_path_factory.mktemp("runs") / "trained"
    settings = recipe("digits-fc").settings_for(
        "spatial-bp", {"hidden": [64, 64], "epochs": 4, "data.train": 600, "dropout": 0.0}
    )
    training.train(settings, out)
    return out


def weights(folder):
    return checkpoint.load_state(folder)["network"]


def test_hardware_noise_is_added_to_the_potential_at_every_step():
    """Three steps of one layer, by hand."""
    torch.manual_seed(0)
    net = clocked.fc(4, (30,), 3).double().eval()
    x = 4 * torch.rand(6, 4, dtype=torch.float64)
    given = torch.Generator().manual_seed(3)
    noise = clocked.Perturbation(0.7, position="before", antithetic=False, generator=given)
    result = clocked.run(net, x, steps=3, perturbation=noise)
    same = torch.Generator().manual_seed(3)
    drawn = clocked.Perturbation(0.7, position="before", antithetic=False, generator=same)
    u = s = torch.zeros(6, 30, dtype=torch.float64)
    total, z = 0, None
    for t in range(3):
        z = drawn.draw(z, u, t)
        u = 0.5 * (u - s) + net.linear1(x) + z
        s = (u >= 1).double()
        total = total + net.readout(s)
    assert torch.allclose(result.output, total)
    assert not torch.allclose(result.output, clocked.run(net, x, steps=3).output)


@pytest.mark.parametrize("rule", ["spatial-bp", "dfa", "dkp"])
def test_rules_without_noise_are_trained_under_that_of_the_hardware(rule):
    settings = recipe("digits-fc").settings_for(rule, {"hardware_noise": 0.3})
    built = training.build(settings)
    noise = built.rule.perturbation
    assert (noise.scale, noise.position, noise.antithetic) == (0.3, "before", False)
    assert "noise_scale" not in settings.rule.options


@pytest.mark.parametrize("rule", ["opzo", "zo"])
def test_rules_with_noise_learn_from_that_of_the_hardware(rule):
    settings = recipe("digits-fc").settings_for(rule, {"hardware_noise": 0.3})
    assert settings.rule.options["noise_scale"] == 0.3
    noise = training.build(settings).rule.perturbation
    assert (noise.scale, noise.position, noise.antithetic) == (0.3, "before", False)
    assert noise.distribution == "gaussian"


def test_noise_of_the_rule_beside_that_of_the_hardware_is_refused():
    settings = recipe("digits-fc").settings_for("zo", {"hardware_noise": 0.3, "noise_scale": 0.1})
    with pytest.raises(ConfigurationError, match=r"noise_scale is 0.1 and hardware_noise 0.3"):
        training.build(settings)


@pytest.mark.parametrize("value", [0, -0.1, float("nan")])
def test_a_noise_without_meaning_is_refused(value):
    with pytest.raises(ConfigurationError, match="hardware_noise"):
        recipe("digits-fc").settings_for("opzo", {"hardware_noise": value})


def test_event_driven_networks_have_no_time_step_for_it():
    with pytest.raises(ConfigurationError, match="event-driven network has none"):
        recipe("digits-events").settings_for("sfdfa", {"hardware_noise": 0.1})


def test_fine_tuning_begins_with_the_network_of_the_run(trained, tmp_path):
    settings = finetuning(trained, 0.5, "opzo", {"epochs": 1, "lr": 0.0})
    training.train(settings, tmp_path / "run")
    before, after = weights(trained / "last"), weights(tmp_path / "run/last")
    assert all(torch.equal(before[key], after[key]) for key in before)
    start = json.loads((tmp_path / "run/start.json").read_text())
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text())
    assert start["start"] == str(trained)
    # Nothing was learned, and the noise of all tests is the same.
    assert start["test_accuracy"] == line["test_accuracy"]


def test_settings_of_fine_tuning_are_the_published_ones(trained):
    settings = finetuning(trained, 0.1, "dfa")
    assert settings.optimizer.lr == pytest.approx(2e-5)  # 2e-3 in the run
    assert settings.optimizer.options == {"weight_decay": 0.0}
    assert (settings.epochs, settings.hardware_noise) == (5, 0.1)
    assert finetuning(trained, 0.1).epochs == 1
    assert finetuning(trained, 0.1, "zo").optimizer.lr == pytest.approx(2e-6)


def test_noise_hurts_and_fine_tuning_heals(trained, tmp_path):
    """The effect of table 4, with bounds that four seeds kept with room to spare."""
    noise, found = 1.0, {}
    for rule in ("spatial-bp", "opzo"):
        settings = finetuning(trained, noise, rule, {"epochs": 4, "lr": 1e-3, "data.train": 600})
        history = training.train(settings, tmp_path / rule)
        found[rule] = history[-1]["test_loss"]
        start = json.loads((tmp_path / rule / "start.json").read_text())["test_loss"]
        assert found[rule] < 0.95 * start
    clean = training.Run(trained).metrics[-1]["test_loss"]
    assert start > 1.1 * clean


def test_an_interrupted_start_is_taken_up_again(trained, tmp_path):
    """Between making the folder and the first checkpoint, the weights are still those asked for."""
    settings = finetuning(trained, 0.5, "dfa", {"epochs": 2})
    whole = training.train(settings, tmp_path / "whole")
    training.RunFolder(tmp_path / "cut").create(settings)
    again = training.resume(tmp_path / "cut")
    assert [line["test_loss"] for line in again] == [line["test_loss"] for line in whole]


def test_evaluation_of_a_noisy_run_repeats(trained):
    built = training.build(finetuning(trained, 0.5, "dfa"))
    trainer = training.Trainer(built)
    state = torch.get_rng_state()
    first, second = trainer.evaluate(), trainer.evaluate()
    assert first == second
    assert torch.equal(state, torch.get_rng_state())


def test_a_start_that_is_no_run_is_refused_and_leaves_nothing(tmp_path):
    settings = recipe("digits-fc").settings_for("dfa", {"start": str(tmp_path / "none")})
    with pytest.raises(CheckpointError, match="holds no trained run"):
        training.train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_start_of_another_network_is_refused(trained, tmp_path):
    settings = recipe("digits-fc").settings_for("dfa", {"start": str(trained)})
    with pytest.raises(CheckpointError, match="is not the one of these settings"):
        training.train(settings, tmp_path / "run")


def test_fine_tuning_again_or_from_zo_does_not_compound_rates(trained, tmp_path):
    for name in ("dfa", "zo"):
        RunFolder(tmp_path / name).create(finetuning(trained, 0.5, name))
    rates = {
        (first, then): finetuning(tmp_path / first, 0.2, then).optimizer.lr
        for first in ("dfa", "zo")
        for then in ("opzo", "zo")
    }
    assert rates == pytest.approx(
        {("dfa", "opzo"): 2e-5, ("zo", "opzo"): 2e-5, ("dfa", "zo"): 2e-6, ("zo", "zo"): 2e-6}
    )
    RunFolder(tmp_path / "from zo").create(recipe("digits-fc").settings_for("zo"))  # 2e-4
    assert finetuning(tmp_path / "from zo", 0.2, "dfa").optimizer.lr == pytest.approx(2e-5)
    RunFolder(tmp_path / "plain").create(recipe("digits-fc").settings_for("dfa"))
    assert finetuning(tmp_path / "plain", 0.2, "zo").network.dropout == 0.0
    assert finetuning(tmp_path / "plain", 0.2, "dfa").network.dropout == 0.2
