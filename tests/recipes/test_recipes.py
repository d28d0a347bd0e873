"""Recipes hold the published settings."""

import pytest

from threefactor.recipes import RECIPES, recipe
from threefactor.training.engines import engine_of


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
    ],
)
def test_event_recipes_are_the_papers_experiments(
    name, hidden, tau_s, thresholds, duration, lr, epochs, rates
):
    s = recipe(name).settings_for("sfdfa")
    assert (s.network.hidden, s.network.tau_s, s.network.thresholds) == (hidden, tau_s, thresholds)
    assert (s.network.duration, s.network.max_spikes, s.data.window) == (duration, 30, 0.1)
    assert (s.optimizer.name, s.optimizer.lr, s.optimizer.options) == ("Adam", lr, {})
    assert (s.epochs, s.batch_size, s.scheduler.name, s.steps) == (epochs, 50, None, None)
    options = s.rule.options
    assert (options["rate_penalty"], options["rate_target"]) == rates
    assert (options["feedback_lr"], options["feedback_optimizer"]) == (1e-4, "sgd")
    assert (options["local_gradient"], options["traces"]) == ("modified", "summed")
    assert (s.loss.true, s.loss.false) == (15.0, 3.0)


def test_rivals_of_sfdfa_have_their_own_settings():
    dfa = recipe("mnist-events").settings_for("dfa")
    assert (dfa.rule.options["rate_penalty"], dfa.rule.options["rate_target"]) == (1.0, 0.4)
    bp = recipe("mnist-events").settings_for("exact-bp")
    assert (bp.network.thresholds, bp.epochs) == ((0.2, 1.3), 100)
    assert (bp.rule.options["local_gradient"], bp.rule.options["rate_penalty"]) == ("exact", 0.0)
    bp = recipe("fashion-mnist-events").settings_for("exact-bp")
    assert bp.network.thresholds == (0.13, 0.45, 0.7)
    assert (bp.batch_size, bp.optimizer.lr) == (5, 5e-4)


def test_the_users_changes_come_after_the_rules():
    s = recipe("mnist-events").settings_for("dfa", {"rate_penalty": 0.5})
    assert (s.rule.options["rate_penalty"], s.rule.options["rate_target"]) == (0.5, 0.4)
