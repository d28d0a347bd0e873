"""Settings: overriding by name, and what a wrong name or value gets."""

import dataclasses
import json

import pytest

from threefactor.errors import ConfigurationError
from threefactor.recipes import recipe
from threefactor.training.build import build
from threefactor.training.overrides import parse_assignment
from threefactor.training.settings import ConvNetworkSettings, make_settings


def changed(rule="opzo", **changes):
    return recipe("mnist-fc").settings_for(rule, changes)


def test_a_bare_name_reaches_the_one_field_that_has_it():
    settings = changed(dropout=0.1, lr=1e-3, hidden=[50, 40, 30], epochs=7)
    assert settings.network.dropout == 0.1
    assert settings.optimizer.lr == 1e-3
    assert settings.network.hidden == (50, 40, 30)
    assert settings.epochs == 7


def test_options_of_rule_optimizer_and_scheduler_are_reached_by_name():
    settings = changed(momentum=0.9, weight_decay=0.5, T_max=3)
    assert settings.rule.options["momentum"] == 0.9
    assert settings.optimizer.options == {"weight_decay": 0.5}
    assert settings.scheduler.options == {"T_max": 3}


def test_all_options_of_the_rule_are_written_out():
    options = changed().rule.options
    assert options["momentum"] == 0.99999
    assert options["noise_scale"] == [0.2, 0.01]
    assert options["noise_position"] == "after"


def test_leaks_and_thresholds_that_learn():
    changes = {"learn_leak": True, "network.learn_threshold": True, "trace_decay": {"readout": 0.1}}
    settings = recipe("digits-fc").settings_for("dfa", changes)
    plain = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert make_settings(plain) == settings
    experiment = build(settings)
    names = {name for name, _ in experiment.network.named_parameters()}
    taught = {"lif1.raw_leak", "lif1.raw_threshold", "lif2.raw_leak", "lif2.raw_threshold"}
    assert taught <= names
    assert experiment.rule.trace_decays == {"linear1": 0.5, "linear2": 0.5, "readout": 0.1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"droput": 0.1}, "unknown setting 'droput'; did you mean 'dropout'"),
        ({"network.droput": 0.1}, "did you mean 'network.dropout'"),
        ({"momentun": 0.1}, "did you mean 'momentum'"),
        ({"name": "x"}, "not unique; write one of data.name, rule.name"),
        ({"dropout": 1.0}, "network.dropout = 1.0"),
        ({"epochs": 0}, "epochs = 0"),
        ({"epochs": "many"}, "epochs = 'many'"),
        ({"steps": 0}, "steps = 0"),
        ({"lr": float("nan")}, "optimizer.lr"),
        ({"update": "never"}, "update = 'never'"),
        ({"seed": -1}, "seed = -1"),
        ({"validation_seed": 5}, "data.validation_seed is 5 and data.validation null"),
        ({"data": {"trai": 5}}, "unknown setting 'data.trai'; did you mean 'data.train'?"),
        ({"loss": {"kind": "cross-entropy", "mse": 0}}, "did you mean 'loss.mse_weight'?"),
        ({"track": {"measure": ["firing"]}}, "did you mean 'track.measures'?"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ConfigurationError) as caught:
        changed(**changes)
    assert message in str(caught.value)


def test_the_options_of_another_rule_are_unknown():
    with pytest.raises(ConfigurationError, match="unknown setting 'momentum'"):
        changed("dfa", momentum=0.9)


def test_unknown_recipe_and_rule_name_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'mnist-fc'"):
        recipe("mnist_fc")
    with pytest.raises(ConfigurationError, match="did you mean 'opzo'"):
        changed("ozpo")


def test_settings_survive_json(tmp_path):
    import dataclasses

    settings = changed("zo", seed=3)
    assert make_settings(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1", ("a", 1)),
        ("a=1e-3", ("a", 1e-3)),
        ("a=[1, 2]", ("a", [1, 2])),
        ("a=null", ("a", None)),
        ("a=None", ("a", None)),
        ("a=true", ("a", True)),
        ("a=False", ("a", False)),
        ("a=word", ("a", "word")),
        ("a=x=y", ("a", "x=y")),
    ],
)
def test_assignments(text, expected):
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["a", "=1", ""])
def test_what_is_no_assignment(text):
    with pytest.raises(ConfigurationError, match="--set key=value"):
        parse_assignment(text)


@pytest.mark.parametrize("value", ['{"lr": 1, "lr": 2}', '[{"a": {"lr": 1, "b": 1, "lr": 1}}]'])
def test_a_name_that_is_there_twice_has_no_value(value):
    with pytest.raises(ConfigurationError, match="'lr' is given twice; give it once"):
        parse_assignment(f"optimizer={value}")


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        ("opzo", {"divide_by_scale": "no"}, "divide_by_scale is 'no'; rule 'opzo' does not take"),
        ("opzo", {"antithetic": 1}, "antithetic is 1"),
        ("opzo", {"local_scale": "abc"}, "local_scale is 'abc'"),
        ("opzo", {"feedback_patch": 2.5}, "feedback_patch is 2.5"),
        ("opzo", {"noise_scale": [0.2, "a"]}, r"noise_scale is \[0.2, 'a'\]"),
        ("opzo", {"noise_scale": [0.2, None]}, r"noise_scale is \[0.2, None\]"),
        ("opzo", {"noise_scale": [0.2, 0]}, r"noise_scale is \[0.2, 0\]; give a number above 0"),
        ("zo", {"noise_scale": [0.2, -0.2]}, "give a number above 0, or two"),
        ("dfa", {"feedback_scale": "x"}, "feedback_scale is 'x'"),
        ("dfa", {"trace_decay": True}, "trace_decay is True"),
        ("dfa", {"scheduler.options": {"T_max": 0}}, "scheduler 'CosineAnnealingLR' does not acc"),
        ("dfa", {"scheduler.options": {"T_max": "x"}}, "scheduler 'CosineAnnealingLR' does not"),
        ("dfa", {"scheduler.options.T_maxx": 3}, "option of scheduler .*; did you mean 'T_max'"),
        ("dfa", {"optimizer.options.momentum": 0.9}, "option of optimizer 'AdamW': 'momentum'"),
        ("dfa", {"sort": True}, "data.sort is True, of which data 'digits' makes no use"),
        ("dfa", {"scheduler.name": "LambdaLR"}, "unknown scheduler"),
        ("dfa", {"optimizer.name": "LBFGS"}, "unknown optimizer"),
        ("dfa", {"optimizer.options": {"betas": [0.9]}}, "betas is .*AdamW. does not take"),
    ],
)
def test_values_that_a_rule_or_optimizer_cannot_take_are_refused_at_once(rule, changes, message):
    settings = recipe("digits-fc").settings_for(rule, changes)
    with pytest.raises(ConfigurationError, match=message):
        build(settings)


@pytest.mark.parametrize("name", ["OneCycleLR", "ExponentialLR", "CosineAnnealingWarmRestarts"])
def test_schedulers_of_all_kinds_are_tried_without_an_effect(name):
    options = {
        "OneCycleLR": {"max_lr": 0.1, "total_steps": 40},
        "ExponentialLR": {"gamma": 0.5},
        "CosineAnnealingWarmRestarts": {"T_0": 3},
    }[name]
    changes = {"scheduler.name": name, "scheduler.options": options}
    built = build(recipe("digits-fc").settings_for("dfa", changes))
    assert built.scheduler.last_epoch == 0
    expected = 0.1 / 25 if name == "OneCycleLR" else 2e-3
    assert built.optimizer.param_groups[0]["lr"] == pytest.approx(expected)


@pytest.mark.parametrize("order", [1, -1])
def test_a_field_counts_before_its_group_in_whatever_order(order):
    group = {"name": "SGD", "options": {"momentum": 0.5}}
    given = {"lr": 0.1, "optimizer.options.nesterov": True, "optimizer": group, "batch_size": 8}
    settings = changed(**dict([*given.items()][::order]))
    assert (settings.optimizer.name, settings.optimizer.lr) == ("SGD", 0.1)
    assert settings.optimizer.options == {"momentum": 0.5, "nesterov": True}
    assert group["options"] == {"momentum": 0.5}  # what was given stays as it was


def test_any_option_of_optimizer_and_scheduler_has_a_full_name():
    given = {"optimizer.name": "SGD", "scheduler.name": "StepLR", "scheduler.options.step_size": 3}
    given |= {"optimizer.options.momentum": 0.9, "optimizer.options.nesterov": True}
    built = build(recipe("digits-fc").settings_for("opzo", given))
    (group,) = built.optimizer.param_groups
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 2e-4)
    assert built.scheduler.step_size == 3
    assert built.rule.momentum == 0.99999  # which the bare name means


def test_another_scheduler_is_given_by_its_name_alone():
    settings = recipe("digits-fc").settings_for("dfa", {"scheduler.name": "ReduceLROnPlateau"})
    assert settings.scheduler.options == {}
    build(settings)
    assert changed().scheduler.options == {"T_max": "epochs"}
    both = {"scheduler.name": "CosineAnnealingLR", "scheduler.options": {"T_max": 3}}
    assert changed(**both).scheduler.options == {"T_max": 3}


def test_a_new_kind_of_network_keeps_what_both_have():
    settings = changed(**{"network.kind": "conv5", "width": 0.5, "dropout": 0.1, "leak": 0.25})
    assert settings.network == ConvNetworkSettings(kind="conv5", width=0.5, leak=0.25, dropout=0.1)
    kept = recipe("cifar10-conv5").settings_for("dfa", {"network.kind": "fc", "hidden": [5]})
    assert kept.network.hidden == (5,) and kept.network.leak == 0.5
    loss = recipe("digits-events").settings_for("sfdfa", {"loss.kind": "first-spike"}).loss
    assert (loss.true, loss.false) == (0.075, 0.095)
    with pytest.raises(ConfigurationError, match=r"network.kind = 'conv6': give 'fc'"):
        changed(**{"network.kind": "conv6"})
