"""Recipes hold the published settings."""

import pytest

from threefactor.clocked import RULES
from threefactor.recipes import RECIPES, recipe


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


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("rule", RULES)
def test_every_recipe_has_settings_for_every_rule(name, rule):
    settings = recipe(name).settings_for(rule)
    assert settings.recipe == name
    assert settings.rule.name == rule
