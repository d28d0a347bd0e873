"""What is registered by name, and what is refused."""

import pytest
import torch
from torch import nn

import threefactor
import threefactor.recipes
from threefactor import clocked, events, plugins
from threefactor.errors import ConfigurationError

pytest_plugins = ["apart"]
pytestmark = pytest.mark.usefixtures("apart")


def test_a_rule_is_known_to_its_engine():
    @threefactor.register_rule("mine")
    class Mine(clocked.DFA):
        pass

    @threefactor.register_rule("timed")
    class Timed(events.DFA):
        pass

    assert clocked.RULES["mine"] is Mine
    assert events.RULES["timed"] is Timed
    assert plugins.entry("rule", "mine").engine == "clocked"
    assert plugins.entry("rule", "timed").engine == "events"
    plugins.unregister("rule", "mine")
    assert "mine" not in clocked.RULES
    with pytest.raises(ConfigurationError, match="unknown registered rule 'mine'"):
        plugins.unregister("rule", "mine")


def test_a_cell_of_a_notebook_may_be_run_again():
    def define():
        @threefactor.register_rule("mine")
        class Mine(clocked.DFA):
            pass

        return Mine

    first, second = define(), define()
    assert clocked.RULES["mine"] is second is not first


def test_a_neuron_is_registered_as_the_function_of_clocked_does():
    assert threefactor.register_neuron is clocked.register_neuron

    @threefactor.register_neuron(state=("v",), leak=0.5)
    class Mine(nn.Module):
        v = None

        def forward(self, x):
            v = x if self.v is None else 0.5 * self.v + x
            spikes = (v >= 1.0).to(x) + torch.sigmoid(v) - torch.sigmoid(v).detach()
            self.v = v - spikes.detach()
            return spikes

    network = nn.Sequential(nn.Linear(4, 5), Mine(), nn.Linear(5, 3))
    rule = clocked.DFA(network, input_shape=(4,))
    rule.step(3 * torch.rand(2, 4), torch.tensor([0, 2]), steps=3)
    assert network[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["", "own", "own-x", "a b", "a/b", "../a", "a" * 61, 5, None, "é"])
def test_a_name_is_fit_for_files_and_commands(name):
    with pytest.raises(ConfigurationError, match="rule is to be called"):
        threefactor.register_rule(name)(type("Mine", (clocked.DFA,), {}))
    assert plugins.entries() == {}


@pytest.mark.parametrize(
    ("register", "name"),
    [
        (threefactor.register_rule, "opzo"),
        (threefactor.register_rule, "sfdfa"),  # of the other engine
        (threefactor.register_network, "conv5"),
        (threefactor.register_loss, "cross-entropy"),
        (threefactor.register_data, "mnist"),
    ],
)
def test_names_of_the_library_are_taken(register, name):
    import threefactor.recipes

    made = type("Mine", (clocked.DFA,), {}) if register is threefactor.register_rule else _anything
    with pytest.raises(ConfigurationError, match=f"name '{name}' is taken by threefactor"):
        register(name)(made)
    assert plugins.entries() == {}


def _anything(*given, **options):
    return None


def test_a_recipe_name_of_the_library_is_taken():
    import threefactor.recipes

    with pytest.raises(ConfigurationError, match="recipe name 'digits-fc' is taken by threefactor"):
        threefactor.register_recipe("digits-fc", {"base": "digits-fc"})


def test_a_name_that_others_registered_is_taken():
    threefactor.register_loss("mine")(lambda output, targets: output.sum(1))

    def other(output, targets):
        return output.sum(1)

    with pytest.raises(ConfigurationError, match=r"loss name 'mine' is taken by .*lambda"):
        threefactor.register_loss("mine")(other)
    clocked.RULES["by-hand"] = clocked.DFA
    with pytest.raises(ConfigurationError, match="'by-hand' is taken by an entry of RULES"):
        threefactor.register_rule("by-hand")(type("Mine", (clocked.DFA,), {}))


class Abstract(clocked.Rule):
    """Lacks layer_errors."""


@pytest.mark.parametrize(
    ("register", "made", "message"),
    [
        (
            threefactor.register_rule,
            nn.Linear,
            "register a subclass of clocked.Rule or events.Rule",
        ),
        (threefactor.register_rule, 5, "register a subclass"),
        (threefactor.register_rule, Abstract, "lacks layer_errors; define that"),
        (threefactor.register_network, 5, r"takes \(input_shape, outputs, \*\*options\)"),
        (threefactor.register_network, lambda x: x, "does not take"),
        (threefactor.register_loss, lambda output: output, "does not take"),
        (threefactor.register_data, "coins", "register a function or class"),
    ],
)
def test_what_cannot_be_called_is_refused(register, made, message):
    with pytest.raises(ConfigurationError, match=message):
        register("mine")(made)
    assert plugins.entries() == {}


def test_a_network_is_of_one_of_the_engines():
    with pytest.raises(ConfigurationError, match="engine is 'gpu'; give 'clocked' or 'events'"):
        threefactor.register_network("mine", engine="gpu")
    with pytest.raises(ConfigurationError, match="cite of loss 'mine' is 5; give BibTeX"):
        threefactor.register_loss("mine", cite=5)(lambda output, targets: output)
