"""Recipes hold the published settings."""

import pytest
import torch

from threefactor import events, training
from threefactor.recipes import RECIPES, recipe
from threefactor.training.engines import engine_of
from threefactor.training.loop import progress_of
from threefactor.training.optimizers import make_scheduler


def test_mnist_fc_is_the_papers_experiment():
    # Appendix C.2.2 of the OPZO paper.
    s = recipe("mnist-fc").settings_for("opzo")
    assert (s.epochs, s.batch_size, s.steps, s.update) == (50, 128, 6, "sequence")
    assert (s.network.hidden, s.network.dropout) == ((800, 800), 0.2)
    assert (s.network.leak, s.network.threshold, s.network.surrogate_width) == (0.5, 1.0, 0.25)
    assert (s.optimizer.name, s.optimizer.lr) == ("AdamW", 2e-4)
    assert s.optimizer.options == {"weight_decay": 2e-4}
    assert s.scheduler.name == "CosineAnnealingLR"
    assert s.loss.mse_weight == 0.05


@pytest.mark.parametrize("name", ["mnist-fc", "fashion-mnist-fc"])
def test_zo_goes_without_dropout_and_learns_slowly(name):
    s = recipe(name).settings_for("zo")
    assert (s.optimizer.lr, s.network.dropout) == (2e-5, 0.0)


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, rule) for name, r in RECIPES.items() for rule in engine_of(r.settings).rules],
)
def test_every_recipe_has_settings_for_every_rule(name, rule):
    settings = recipe(name).settings_for(rule)
    assert settings.recipe == name
    assert settings.rule.name == rule


# The table in section 2 of the methods: network, tau_s, theta_hat, duration, lr, epochs, rates.
@pytest.mark.parametrize(
    ("name", "hidden", "tau_s", "thresholds", "duration", "lr", "epochs", "rates"),
    [
        ("mnist-events", (800,), 0.130, (0.2, 0.7), 0.2, 3e-3, 30, (0.1, 0.2)),
        ("emnist-events", (800,), 0.130, (0.2, 0.7), 0.2, 3e-3, 30, (0.3, 0.2)),
        ("fashion-mnist-events", (400, 400), 0.130, (0.2, 0.2, 0.7), 0.2, 3e-3, 50, (0.3, 0.4)),
        ("shd-events", (128,), 0.100, (1.0, 1.2), 1.0, 1e-3, 150, (0.03, 2.0)),
        ("shd-like-events", (128,), 0.100, (1.0, 1.2), 1.0, 1e-3, 150, (0.03, 2.0)),
    ],
)
def test_event_recipes_are_the_papers_experiments(
    name, hidden, tau_s, thresholds, duration, lr, epochs, rates
):
    s = recipe(name).settings_for("sfdfa")
    assert (s.network.hidden, s.network.tau_s, s.network.thresholds) == (hidden, tau_s, thresholds)
    shd = name.startswith("shd")
    assert (s.network.duration, s.data.window) == (duration, 0.1)
    assert s.network.max_spikes == ((30, 15) if shd else 30)
    assert s.network.weight_ranges == ((-1.0, 1.0), *([(-0.9, 1.1)] if shd else []))
    assert (s.optimizer.name, s.optimizer.lr, s.optimizer.options) == ("Adam", lr, {})
    assert (s.epochs, s.batch_size, s.scheduler.name, s.steps) == (epochs, 50, None, None)
    options = s.rule.options
    assert (options["rate_penalty"], options["rate_target"]) == rates
    assert (options["feedback_lr"], options["feedback_optimizer"]) == (1e-4, "sgd")
    assert (options["local_gradient"], options["traces"]) == ("modified", "summed")
    assert options["normalise_by_count"] is False
    changed = name == "emnist-events"
    assert options["feedback_lr_change"] == ([1 / 3, 2.7e-3] if changed else None)
    assert (s.loss.true, s.loss.false) == (15.0, 3.0)


def test_figures_9_and_10_have_the_authors_settings():
    s = recipe("mnist-events-deep").settings_for("sfdfa")
    assert (s.network.hidden, s.network.tau_s, s.network.duration) == ((800,) * 3, 0.010, 0.2)
    assert s.network.thresholds == (0.03, 0.08) and s.network.weight_ranges == ((-1.0, 1.0),)
    assert (s.epochs, s.batch_size, s.optimizer.lr) == (30, 50, 3e-3)
    # The notes in the authors' scripts train_fc_3_layers.py and train_fc_dfa_3_layers.py.
    for rule, penalty in (("sfdfa", 0.02), ("dfa", 1.2)):
        options = recipe("mnist-events-deep").settings_for(rule).rule.options
        assert (options["rate_penalty"], options["rate_target"]) == (penalty, 0.25)
        assert options["normalise_by_count"] is True
    assert (s.rule.options["feedback_optimizer"], s.rule.options["feedback_lr"]) == ("adam", 1e-4)


def test_the_scaled_deep_network_differs_in_what_its_committed_runs_had():
    scaled = recipe("mnist-events-deep-scaled").settings_for("sfdfa")
    between = {"network.thresholds": [0.03, 0.003, 0.003, 0.08]}
    between["network.weight_ranges"] = [[-1, 1], [-0.1, 0.1], [-0.1, 0.1], [-1, 1]]
    between |= {"rate_penalty": 1.0, "normalise_by_count": False, "feedback_optimizer": "sgd"}
    changed = {**between, "recipe": "mnist-events-deep-scaled"}
    assert scaled == recipe("mnist-events-deep").settings_for("sfdfa", changed)


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if r.settings.track])
def test_recipes_that_track_do_so_with_every_rule(name):
    for rule in events.RULES:
        s = recipe(name).settings_for(rule, {"data.name": "digits", "hidden": [5, 5, 5]})
        training.Trainer(training.build(s))  # refuses measures without meaning


def test_rivals_of_sfdfa_have_their_own_settings():
    dfa = recipe("mnist-events").settings_for("dfa")
    assert (dfa.rule.options["rate_penalty"], dfa.rule.options["rate_target"]) == (1.0, 0.4)
    bp = recipe("mnist-events").settings_for("exact-bp")
    assert (bp.network.thresholds, bp.epochs) == ((0.2, 1.3), 100)
    assert (bp.rule.options["local_gradient"], bp.rule.options["rate_penalty"]) == ("exact", 0.0)
    bp = recipe("emnist-events").settings_for("exact-bp")
    assert (bp.network.thresholds, bp.epochs) == ((0.2, 1.3), 100)
    bp = recipe("fashion-mnist-events").settings_for("exact-bp")
    assert (bp.network.thresholds, bp.network.max_spikes) == ((0.13, 0.45, 0.7), (5, 5, 20))
    assert (bp.batch_size, bp.optimizer.lr, bp.epochs) == (5, 5e-4, 100)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], bp.optimizer.lr)
    scheduler = make_scheduler(bp, optimizer)
    rates = []
    for _ in range(bp.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([5e-4] * 10 + [2.5e-4] * 10 + [1.25e-4] * 10 + [1e-4] * 70)


@pytest.mark.parametrize(
    ("name", "penalty"),
    [("emnist-events", 4.0), ("fashion-mnist-events", 1.0), ("shd-events", 0.1)],
)
def test_dfa_has_the_penalties_of_the_authors_scripts(name, penalty):
    options = recipe(name).settings_for("dfa").rule.options
    ours = recipe(name).settings_for("sfdfa").rule.options
    assert options["rate_penalty"] == penalty
    assert options["rate_target"] == ours["rate_target"]


def test_the_feedback_of_emnist_learns_faster_from_epoch_11():
    settings = recipe("emnist-events").settings_for("sfdfa")
    net = events.fc(4, (3,), 2, tau_s=0.1, thresholds=0.1, duration=0.2)
    rule = events.SFDFA(net, **settings.rule.options)
    rates = []
    for epoch in range(settings.epochs):
        rule.set_progress(progress_of(epoch, settings))
        rates.append(rule.optimizer.param_groups[0]["lr"])
    assert rates == [1e-4] * 10 + [2.7e-3] * 20


def test_the_users_changes_come_after_the_rules():
    s = recipe("mnist-events").settings_for("dfa", {"rate_penalty": 0.5})
    assert (s.rule.options["rate_penalty"], s.rule.options["rate_target"]) == (0.5, 0.4)


# Table and columns, and appendix C.2.2, of the OPZO paper.
@pytest.mark.parametrize(
    ("name", "kind", "data", "steps", "batch", "dropout", "mse_weight", "momentum"),
    [
        ("cifar10-conv5", "conv5", "cifar10", 6, 128, 0.0, 0.05, 0.99999),
        ("cifar100-conv5", "conv5", "cifar100", 6, 128, 0.0, 0.05, 0.99999),
        ("dvs-cifar10-conv5", "conv5", "dvs-cifar10", 10, 128, 0.1, 0.001, 0.99999),
        ("dvs-gesture-conv5", "conv5", "dvs-gesture", 20, 16, 0.0, 0.001, 0.999999),
        ("cifar100-conv9", "conv9", "cifar100", 6, 128, 0.0, 0.05, 0.99999),
        ("dvs-gesture-conv9", "conv9", "dvs-gesture", 20, 16, 0.0, 0.001, 0.999999),
    ],
)
def test_convolutional_recipes_are_the_papers_experiments(
    name, kind, data, steps, batch, dropout, mse_weight, momentum
):
    s = recipe(name).settings_for("opzo")
    assert (s.network.kind, s.network.width, s.network.scale) == (kind, 1.0, 2.74)
    assert (s.data.name, s.steps, s.batch_size, s.epochs) == (data, steps, batch, 300)
    assert (s.network.dropout, s.loss.mse_weight) == (dropout, mse_weight)
    assert s.rule.options["momentum"] == momentum
    assert (s.optimizer.lr, s.optimizer.options) == (2e-4, {"weight_decay": 2e-4})
    zo = recipe(name).settings_for("zo")
    assert zo.optimizer.lr == (2e-4 if data == "dvs-gesture" else 2e-5)
    assert zo.network.dropout == 0.0


def test_nmnist_has_its_own_steps_and_loss_and_zo_the_common_rate():
    s = recipe("nmnist-fc").settings_for("opzo")
    assert (s.steps, s.epochs, s.batch_size, s.loss.mse_weight) == (30, 50, 128, 0.001)
    assert (s.network.hidden, s.network.dropout) == ((800, 800), 0.2)
    zo = recipe("nmnist-fc").settings_for("zo")
    assert (zo.optimizer.lr, zo.network.dropout) == (2e-4, 0.0)


def test_only_the_sets_that_the_paper_augments_are_augmented():
    def augmented(name):
        data = recipe(name).settings.data
        return data.padding, data.flip, data.cutout

    assert augmented("cifar10-conv5") == augmented("cifar100-conv9") == (4, True, 16)
    assert augmented("dvs-cifar10-conv5") == (4, False, 0)
    assert augmented("dvs-gesture-conv5") == augmented("mnist-fc") == (0, False, 0)


def test_the_deeper_networks_learn_locally_and_from_the_middle():
    for rule in ("opzo", "dfa"):
        options = recipe("cifar100-conv9").settings_for(rule).rule.options
        assert (options["local_learning"], options["intermediate"]) == ("same-weights", "lif4")
    changed = {"intermediate": None}
    options = recipe("cifar100-conv9").settings_for("opzo", changed).rule.options
    assert (options["local_learning"], options["intermediate"]) == ("same-weights", None)


@pytest.mark.parametrize("name", ["imagenet-nfresnet34-noise", "cifar10-conv5-small-noise"])
def test_fine_tuning_recipes_are_table_4(name):
    s = recipe(name).settings_for("opzo")
    assert s.epochs == 5
    assert s.optimizer.options == {"weight_decay": 0.0}
    assert s.rule.options["noise_scale"] == s.hardware_noise
    assert (s.rule.options["noise_position"], s.rule.options["antithetic"]) == ("before", False)
    assert recipe(name).settings_for("spatial-bp").epochs == 1
    zo = recipe(name).settings_for("zo")
    assert zo.epochs == 5
    assert zo.optimizer.lr == pytest.approx(s.optimizer.lr / 10)


def test_imagenet_is_fine_tuned_as_published():
    s = recipe("imagenet-nfresnet34-noise").settings_for("opzo", {"hardware_noise": 0.15})
    assert (s.optimizer.lr, s.batch_size, s.network.kind) == (2e-6, 64, "nf-resnet34")
    assert s.rule.options["noise_scale"] == s.hardware_noise == 0.15
