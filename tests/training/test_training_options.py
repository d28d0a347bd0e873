"""Every value of every setting and option: refused by name when it is given, or of use."""

import copy
import dataclasses
import json
import math
import pickle

import pytest
import torch

from threefactor import clocked, events, training
from threefactor.errors import ConfigurationError, DivergenceError, ThreefactorError
from threefactor.recipes import RECIPES, Recipe, recipe
from threefactor.training import make_settings
from threefactor.training.engines import engine_of
from threefactor.training.folder.run import plain_settings
from threefactor.training.memory import available_memory, check_memory
from threefactor.training.optimizers import LEFT_OUT
from threefactor.training.settings import ClockedNetworkSettings, Settings

NAN, INF = float("nan"), float("inf")
NO_NUMBERS = [True, "", "many", "5", {}, {"a": 1}, NAN, INF, -INF, 10**400, "a" * 5000, b"x"]
NUMBERS = [-1, 0, -0.5, 2.5, 1e-300, 1e300, 10**12, 10**30, 2**31]
LISTS = [[], [1, 2, 3], [NAN], [0], [-1], [True], ["a"], [[1]], [10**12]]
VALUES = [None, False, *NO_NUMBERS, *NUMBERS, *LISTS]
TINY = {"data.train": 12, "data.test": 6, "epochs": 1, "hidden": [5]}
BY_OTHER_NAMES = {
    "name": ("data set", "rule", "optimizer", "scheduler"),
    "local_learning": ("local learning",),
    "intermediate": ("hidden layer",),
    "noise_scale": ("noise scale",),
    "noise_distribution": ("noise distribution",),
    "noise_position": ("noise position",),
    "local_gradient": ("local gradient",),
    "feedback_optimizer": ("feedback optimiser",),
    "traces": ("trace",),
    "points": ("number of points",),
    "dkp": (),
}


def names(message, key):
    last = key.rpartition(".")[2]
    return any(name in message for name in (last, *BY_OTHER_NAMES.get(last, ())))


def put(values, key, value):
    *groups, last = key.split(".")
    for group in groups:
        values = values[group]
    values[last] = value


def plain(settings):
    return json.loads(json.dumps(dataclasses.asdict(settings)))


@pytest.mark.parametrize("name", RECIPES)
def test_a_setting_takes_what_it_is_or_an_error_names_it(name):
    settings = recipe(name).settings
    taken = {}
    for key in plain_settings(settings):
        if ".options." in key:
            continue
        for value in VALUES:
            values = plain(settings)
            put(values, key, copy.deepcopy(value))
            try:
                made = make_settings(values)
            except ConfigurationError as problem:
                said = str(problem)
            else:
                said = None
            if said is not None:
                assert names(said, key) and len(said) < 3000, (key, value, said)
                continue
            taken.setdefault(key, []).append(value)
            assert make_settings(plain(made)) == made, (key, value)
    for key in ("epochs", "batch_size", "seed", "optimizer.lr"):
        assert not any(value is one for value in taken.get(key, []) for one in NO_NUMBERS)
    assert taken["optimizer.lr"] == [0, 2.5, 10**12, 10**30, 2**31]
    assert set(taken.get("epochs", [])) <= {2**31 - 1}


ALL_RULES = [("digits-fc", rule) for rule in clocked.RULES]
ALL_RULES += [("digits-events", rule) for rule in events.RULES]


@pytest.mark.parametrize(("name", "rule"), ALL_RULES)
def test_an_option_of_a_rule_trains_or_an_error_names_it(name, rule):
    options = engine_of(recipe(name).settings).rule_options(rule)
    refused = 0
    for key in options:
        for value in VALUES:
            said, line = "", None
            try:
                settings = recipe(name).settings_for(rule, {**TINY, key: value})
                line = training.train(settings)[-1]
            except DivergenceError:
                continue
            except ThreefactorError as problem:
                said = str(problem)
            if line is None:
                assert names(said, key), (key, value, said)
                refused += 1
            else:
                assert math.isfinite(line["train_loss"]), (key, value)
    assert refused > 20 * len(options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer.options": {"lr": 1}}, "AdamW' gets its learning rate from optimizer.lr"),
        ({"optimizer.options": {"what": 1}}, "unknown option of optimizer 'AdamW': 'what'"),
        ({"optimizer.options": {"betas": [0.9, 0.9, 0.9]}}, r"betas is \[0.9, 0.9, 0.9\]"),
        ({"optimizer.options": {"betas": 0.9}}, "betas is 0.9"),
        ({"optimizer.options": {"amsgrad": "no"}}, "amsgrad is 'no'"),
        ({"optimizer.options": {"weight_decay": NAN}}, "optimizer.options.weight_decay is nan"),
        ({"optimizer.options": {"weight_decay": -1}}, "[Ii]nvalid weight_decay value: -1"),
        ({"optimizer.options": {"foreach": True, "fused": True}}, "AdamW' does not accept"),
        ({"optimizer.options": {"eps": {}}}, "eps is {}"),
        ({"scheduler.options": {"what": 1}}, "unknown option of scheduler 'CosineAnnealingLR'"),
        ({"scheduler.options": {"T_max": True}}, "T_max is True"),
        ({"scheduler.options": {"T_max": 3, "eta_min": -1.0}}, "makes the learning rate -"),
        ({"scheduler": {"name": "StepLR", "options": {"step_size": 2, "gamma": "x"}}}, "gamma is"),
        ({"scheduler": {"name": "BoundedStepLR", "options": {"step_size": 0}}}, "step_size is 0"),
        ({"scheduler": {"name": "ExponentialLR", "options": {"gamma": 1e30}}}, "rate inf after"),
        (
            {"scheduler": {"name": "OneCycleLR", "options": {"max_lr": 1, "total_steps": 2}}},
            "total steps is 2",
        ),
        ({"scheduler.name": None, "scheduler.options": {"T_max": 3}}, "scheduler.name is null"),
    ],
)
def test_options_of_optimizer_and_scheduler_are_tried_for_all_epochs(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        training.build(recipe("digits-fc").settings_for("dfa", {**TINY, "epochs": 20, **changes}))


@pytest.mark.parametrize("name", sorted(set(dir(torch.optim)) - set(LEFT_OUT)))
def test_every_optimizer_of_pytorch_trains_or_is_refused_at_once(name, tmp_path):
    changes = {"optimizer.name": name, "optimizer.options": {}}
    try:
        history = training.train(
            recipe("digits-fc").settings_for("dfa", {**TINY, **changes}), tmp_path / "run"
        )
    except ConfigurationError:
        assert not (tmp_path / "run").exists()
    else:
        assert math.isfinite(history[-1]["train_loss"])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("digits-fc", {"hidden": [10**9]}, "a network of 74,000,000,000 weights needs more than"),
        ("digits-events", {"hidden": [10**9]}, "weights needs more than"),
        ("digits-fc", {"hidden": [10**6] * 3}, "network.hidden"),
        ("digits-saccades-conv", {"width": 100}, "network.width"),
        ("digits-saccades-conv", {"steps": 2**31 - 1}, "batch_size=.* needs more"),
    ],
)
def test_what_does_not_fit_into_memory_is_refused_before_it_is_made(name, changes, message):
    if (available_memory() or 0) > 200 * 2**30:
        pytest.skip("this machine may have room for it")
    settings = recipe(name).settings_for("dfa", {"data.train": 12, "data.test": 6, **changes})
    if name != "digits-saccades-conv":
        with pytest.raises(ConfigurationError, match=message):
            training.build(settings)
        return

    class Samples:  # events are long to simulate, and no matter here
        input_shape, outputs, train = (2, 34, 34), 10, (None, range(4000))

    with pytest.raises(ConfigurationError, match=message):
        check_memory(settings, Samples())


def test_memory_that_ends_while_training_is_said(monkeypatch, tmp_path):
    def ends(*_args, **_options):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr(clocked.DFA, "step", ends)
    settings = recipe("digits-fc").settings_for("dfa", TINY)
    with pytest.raises(ConfigurationError, match="memory does not suffice"):
        training.train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_learned_nothing_leaves_its_folder_to_the_corrected_command(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    wrong = recipe("digits-events").settings_for("dfa", {**TINY, "loss.true": 1e30})
    with pytest.raises(DivergenceError) as caught:
        training.train(wrong, folder)
    assert "checkpoint" not in str(caught.value)
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]
    training.train(recipe("digits-events").settings_for("dfa", TINY), folder)
    assert (folder / "config.json").exists()


@pytest.mark.parametrize(
    "device", ["meta", "hpu", "cuda:99", "tpu0", "", "cpu:x", "mps:7", "a" * 999]
)
def test_devices_that_are_not_there_are_refused(device):
    with pytest.raises(ConfigurationError, match=r"device .* cannot be used: .*; give one of them"):
        training.build(recipe("digits-fc").settings_for("dfa", TINY), device=device)


@pytest.mark.parametrize("threads", [0, -1, 5000, 10**6, 2**31, 2**70, True, 1.5])
def test_threads_have_bounds(threads):
    before = torch.get_num_threads()
    for name in ("digits-fc", "digits-events"):
        with pytest.raises(ConfigurationError, match=r"threads is .* cores: give a whole number"):
            engine_of(recipe(name).settings).use_threads(threads)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("learning_rate", "lr"),
        ("learning-rate", "lr"),
        ("optimizer.learning_rate", "optimizer.lr"),
        ("LR", "lr"),
        ("batchsize", "batch_size"),
        ("Batch-Size", "batch_size"),
        ("bs", "batch_size"),
        ("epoch", "epochs"),
        ("num_epochs", "epochs"),
        ("Hidden", "hidden"),
        ("layers", "hidden"),
        ("weightdecay", "weight_decay"),
        ("wd", "weight_decay"),
        ("T", "steps"),
        ("timesteps", "steps"),
        ("vth", "threshold"),
        ("precision", "dtype"),
        ("noise-scale", "noise_scale"),
    ],
)
def test_a_setting_by_a_name_from_elsewhere(given, meant):
    with pytest.raises(ConfigurationError, match=f"did you mean {meant!r}"):
        recipe("mnist-fc").settings_for("opzo", {given: 1})


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("MNIST", "mnist"),
        ("Mnist", "mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("Cifar", "cifar10"),
    ],
)
def test_a_data_set_in_another_spelling(given, meant):
    with pytest.raises(ConfigurationError, match=f"did you mean {meant!r}"):
        training.build(recipe("mnist-fc").settings_for("opzo", {"data.name": given}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 1.0, "optimizer.lr": 0.1}, "optimizer.lr is given twice, as 'lr' and as 'optim"),
        ({"loss": 5, "loss.mse_weight": 0.1}, "loss is 5, which has no mse_weight"),
        ({"rule.options": [1], "momentum": 0.1}, "options is .1., which has no momentum"),
        ({"track": "all", "every": 5}, "track is 'all', which has no every"),
        ({"rule.name": "dfa"}, "the rule is 'opzo' and rule.name 'dfa'; give one of them"),
        ({"data.fold": 2}, "data.fold is 2 and data.folds null"),
        ({"window": 0.05}, "data.window is 0.05; it is the time over which an event-driven"),
        ({"rule.options": {"momentum": object()}}, "momentum is <object .*cannot be written to"),
        ({"rule.options": {1: 2}}, "give options by name"),
    ],
)
def test_changes_that_contradict_each_other_or_have_no_effect(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        recipe("mnist-fc").settings_for("opzo", changes)


def test_a_bare_name_that_two_groups_have_is_not_unique():
    changes = {"optimizer": {"name": "SGD", "lr": 0.1, "options": {"momentum": 0.9}}}
    mine = Recipe("mine", recipe("digits-fc").settings_for("opzo", changes))
    with pytest.raises(ConfigurationError, match=r"not unique; write one of rule.options.momentum"):
        mine.settings_for("opzo", {"momentum": 0.5})
    made = mine.settings_for("opzo", {"rule.options.momentum": 0.5})
    assert (made.rule.options["momentum"], made.optimizer.options["momentum"]) == (0.5, 0.9)


def test_the_name_of_a_rule_among_the_changes_brings_that_rules_options():
    made = recipe("digits-fc").settings_for(changes={"rule.name": "dfa"})
    assert made == recipe("digits-fc").settings_for("dfa")


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, rule) for name, one in RECIPES.items() for rule in engine_of(one.settings).rules],
)
def test_settings_and_recipes_are_values(name, rule):
    settings = recipe(name).settings_for(rule)
    assert make_settings(plain(settings)) == settings
    assert pickle.loads(pickle.dumps(settings)) == copy.deepcopy(settings) == settings
    again = pickle.loads(pickle.dumps(recipe(name)))
    assert again == copy.deepcopy(recipe(name)) == recipe(name)
    assert again.settings_for(rule) == settings


def test_options_given_as_tuples_are_those_that_a_run_folder_gives_back():
    changes = {"noise_scale": (0.2, 0.01), "optimizer.options": {"betas": (0.9, 0.99)}}
    settings = recipe("digits-fc").settings_for("opzo", changes)
    assert make_settings(plain(settings)) == settings
    assert training.build(settings).optimizer.defaults["betas"] == (0.9, 0.99)


def test_a_rule_of_ones_own_may_have_any_constructor(monkeypatch):
    class Mine(clocked.DFA):
        def __init__(self, network, strength, hook=print, *rest, share: float = 0.5, **more):
            super().__init__(network, **more)
            self.strength, self.hook, self.share = strength, hook, share

    monkeypatch.setitem(clocked.RULES, "mine", Mine)
    made = recipe("digits-fc").settings_for("mine", {**TINY, "strength": 3})
    assert made.rule.options["share"] == 0.5 and "hook" not in made.rule.options
    assert training.build(made).rule.strength == 3
    with pytest.raises(ConfigurationError, match=r"'mine' does not accept its options: .*strength"):
        training.build(recipe("digits-fc").settings_for("mine", TINY))
    monkeypatch.setitem(clocked.RULES, "mine", len)
    with pytest.raises(ConfigurationError, match="register a subclass of threefactor"):
        recipe("digits-fc").settings_for("mine")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClockedNetworkSettings(hidden=5), "hidden = 5: Input should be a valid tuple"),
        (
            lambda: ClockedNetworkSettings(hiden=(5,)),
            "unknown setting 'hiden'; did you mean 'hidden'. Known: dropout, hidden",
        ),
        (lambda: dataclasses.replace(recipe("digits-fc").settings, epochs=0), "epochs = 0"),
        (lambda: Settings(), "recipe: "),
        (lambda: Settings("mine", network=5), "network = 5"),
        (lambda: Settings("mine", steps=None), "steps is None; give the number of time steps"),
        (lambda: make_settings(None), "settings are None; give them by name"),
        (lambda: training.build({"recipe": "digits-fc"}), "give Settings, as of recipe"),
        (lambda: recipe(None), "unknown recipe None"),
        (lambda: recipe("digits-fc").settings_for(5), "unknown rule 5"),
    ],
)
def test_settings_made_in_python_are_refused_with_the_same_words(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()
