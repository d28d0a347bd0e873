"""Options of rules, networks and neurons: what signatures tell is what constructors take."""

from __future__ import annotations

import inspect
from typing import Any, get_origin

import pytest
import torch
from typing_extensions import Never, Unpack, get_type_hints

from threefactor import clocked, events
from threefactor.errors import ConfigurationError
from threefactor.options import NO_DEFAULT, Option, options_of

RULES = [*clocked.RULES.values(), *events.RULES.values()]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda kind: kind.__module__)


def network_for(rule: Any) -> Any:
    if issubclass(rule, clocked.Rule):
        return clocked.fc(4, (5,), 3)
    return events.fc(4, (5,), 3, tau_s=0.1, thresholds=0.2, duration=0.2)


@every_rule
def test_a_rule_takes_all_its_options(rule: Any) -> None:
    options = options_of(rule)
    assert options.pop("network").default is NO_DEFAULT
    defaults = {name: option.default for name, option in options.items()}
    assert NO_DEFAULT not in defaults.values()
    assert rule(network_for(rule), **defaults).layer_sizes == {"lif1": 5}
    known = ", ".join(sorted(defaults))
    words = f"unknown option of {rule.__name__}: 'momentm'.*Known: {known}$"
    with pytest.raises(ConfigurationError, match=words):
        rule(network_for(rule), momentm=0.9)


@pytest.mark.parametrize("rule", [clocked.ZO, clocked.OPZO])
def test_a_rule_that_makes_its_noise_takes_no_other(rule: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"option of {rule.__name__}: 'perturbation'"):
        rule(network_for(rule), perturbation=clocked.Perturbation(0.1))


def test_an_option_that_another_rule_has_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="option of ZO: 'feedback_delay'"):
        clocked.ZO(network_for(clocked.ZO), feedback_delay=2)


def test_an_option_that_an_own_rule_passes_up_by_mistake_is_refused() -> None:
    class Own(clocked.DFA):
        def __init__(self, network: Any, *, share: float = 1.0, **options: Any) -> None:
            super().__init__(network, share=share, **options)  # type: ignore[call-arg]

    with pytest.raises(ConfigurationError, match="Own passes its own option 'share' on"):
        Own(network_for(Own))


def test_builders_and_neurons_refuse_what_they_do_not_take() -> None:
    makers: list[Any] = [
        clocked.LIF,
        clocked.CubaLIF,
        lambda **given: clocked.fc(4, (5,), 3, **given),
        lambda **given: clocked.conv5((3, 8, 8), 4, width=0.05, **given),
        lambda **given: clocked.nf_resnet34((3, 32, 32), 4, **given),
    ]
    for make in makers:
        with pytest.raises(ConfigurationError, match=r"unknown option of .*'leek'; did you mean"):
            make(leek=0.5)
    with pytest.raises(ConfigurationError, match="option of Layer: 'leek'"):
        events.fc(4, (5,), 3, tau_s=0.1, thresholds=0.2, duration=0.2, leek=0.5)  # type: ignore[call-arg]


@every_rule
def test_a_rule_hides_no_option(rule: Any) -> None:
    """Only the noise is not for the user to give, where a rule makes its own."""
    named: dict[str, Any] = {}
    for kind in reversed(rule.__mro__):
        if issubclass(kind, (clocked.Rule, events.Rule)) and "__init__" in vars(kind):
            types = get_type_hints(kind.__init__)
            for one in list(inspect.signature(kind.__init__).parameters.values())[1:]:
                if one.kind is not one.VAR_KEYWORD:
                    named[one.name] = Option(types[one.name], one.default)
    if rule in (clocked.ZO, clocked.OPZO):
        del named["perturbation"]
    assert options_of(rule) == named


@pytest.mark.parametrize("module", [clocked, events])
def test_no_signature_hides_its_options(module: Any) -> None:
    seen = 0
    for name in module.__all__:
        shown = getattr(module, name)
        make = shown.__init__ if isinstance(shown, type) else shown
        if not inspect.isfunction(make) or not make.__module__.startswith("threefactor"):
            continue
        for one in inspect.signature(make).parameters.values():
            if one.kind is one.VAR_KEYWORD:
                seen += 1
                annotated = get_type_hints(make)[one.name]
                assert annotated is Never or get_origin(annotated) is Unpack, name
    assert seen > 3


class Extra(clocked.RuleOptions, total=False):
    noise: float


class Plain(clocked.DFA):
    def __init__(self, network: Any, *, keep: float = 0.9, **options: Any) -> None:
        super().__init__(network, **options)


class Grouped(clocked.SpatialBP):
    def __init__(self, network: Any, keep: int, **options: Unpack[Extra]) -> None:
        options.pop("noise", None)
        super().__init__(network, **options)


class Closed(clocked.DFA):
    def __init__(self, network: Any, *, loss: clocked.CrossEntropyMSE) -> None:
        super().__init__(network, loss=loss)


class Unreadable(Plain):
    def __init__(self, network: NoSuchType, *, more: int = 1, **options: Any) -> None:  # noqa: F821
        super().__init__(network, **options)


class Inherited(Unreadable):
    pass


def test_rules_of_ones_own() -> None:
    plain = options_of(Plain)
    assert plain == {**options_of(clocked.DFA), "network": Option(Any, NO_DEFAULT),
                     "keep": Option(float, 0.9)}  # fmt: skip
    grouped = options_of(Grouped)
    assert set(grouped) == {*get_type_hints(clocked.RuleOptions), "network", "keep", "noise"}
    assert grouped["keep"] == Option(int, NO_DEFAULT)
    assert grouped["noise"] == Option(float, NO_DEFAULT)
    assert grouped["chain"] == Option(str, "none")
    assert list(options_of(Closed)) == ["network", "loss"]
    assert options_of(Inherited) == {**plain, "more": Option(Any, 1)}
    assert options_of(object) == {}


def test_defaults_of_networks_are_those_of_their_neurons() -> None:
    neuron = options_of(clocked.LIF)
    assert {n: o.type for n, o in neuron.items()} == get_type_hints(clocked.NeuronOptions)
    for build in (clocked.fc, clocked.conv5, clocked.conv9, clocked.nf_resnet34):
        assert get_type_hints(build)["neuron"] == Unpack[clocked.NeuronOptions]
    lif = clocked.fc(4, (5,), 3).lif1
    kept = {"reset": "reset_mode"}  # reset() is a method
    assert {n: getattr(lif, kept.get(n, n)) for n in neuron if not n.startswith("learn_")} == {
        n: o.default for n, o in neuron.items() if not n.startswith("learn_")
    }
    assert not lif.learned and not neuron["learn_leak"].default
    lif = clocked.conv5((1, 8, 8), 2, width=0.02, leak=0.25).lif1
    assert (lif.leak, lif.threshold, lif.scale) == (0.25, 1.0, 2.74)
    assert clocked.conv5((1, 8, 8), 2, width=0.02, scale=1.5).lif1.scale == 1.5
    assert clocked.fc(4, (5,), 3, scale=1.5).lif1.scale == 1.5


def test_layers_share_their_options() -> None:
    layer = options_of(events.Layer)
    for name, type_ in get_type_hints(events.LayerOptions).items():
        assert layer[name].type is type_
    net = events.fc(4, (5,), 3, thresholds=0.2, tau_s=0.1, duration=0.2)
    assert net.readout.max_spikes == layer["max_spikes"].default == 30


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_unknown_options_of_networks_are_refused(hidden: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="lek"):
        clocked.fc(4, hidden, 3, lek=0.5)
    with pytest.raises(ConfigurationError, match="width"):
        clocked.fc(4, hidden, 3, width=0.5)
    with pytest.raises(ConfigurationError, match="tau_m"):
        events.fc(4, hidden, 3, tau_s=0.1, thresholds=0.2, duration=0.2, tau_m=0.1)
    with pytest.raises(TypeError, match="duration"):
        events.fc(4, hidden, 3, tau_s=0.1, thresholds=0.2)
    with pytest.raises(ValueError, match="leak is 2"):
        clocked.fc(4, hidden, 3, leak=2.0)
    assert torch.is_tensor(clocked.fc(4, hidden, 3, leak=0.3)(torch.zeros(1, 4)))
