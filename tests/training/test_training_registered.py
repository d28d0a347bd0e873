"""Registered networks, data, losses and rules are trained, described and resumed as others are."""

import json
import shutil
import warnings

import pytest
import torch

import threefactor
from threefactor import clocked, data, events, plugins, training
from threefactor.errors import ConfigurationError, InputError
from threefactor.recipes import recipe
from threefactor.training.folder.run import Run
from threefactor.training.settings import RegisteredNetworkSettings

pytest_plugins = ["apart"]
pytestmark = pytest.mark.usefixtures("apart")
TINY = {"epochs": 1, "batch_size": 16}


@pytest.fixture
def loaded(plugin):
    return plugins.load(str(plugin))


def settings_for(rule=None, base="digits-fc", **changes):
    return recipe(base).settings_for(rule, {**TINY, **changes})


def own(**changes):
    parts = {"data.name": "coins", "network.kind": "narrow", "loss.kind": "focal"}
    return recipe("digits-fc").settings_for("half", {**TINY, **parts, **changes})


def test_all_options_are_written_out_and_given_by_group(loaded):
    settings = own(**{"data.sides": 5, "network.width": 6, "loss.gamma": 1.0, "rule.share": 0.1})
    assert settings.data.options == {"sides": 5, "samples": 48}
    assert settings.network == RegisteredNetworkSettings("narrow", "clocked", {"width": 6})
    assert settings.loss.options == {"gamma": 1.0}
    assert settings.rule.options["share"] == 0.1
    assert own(sides=5, width=6, gamma=1.0, share=0.1) == settings
    assert recipe("coins-fc").settings_for().data.options == {"sides": 4, "samples": 48}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network.widht": 3}, "did you mean 'network.width'|network.options.width"),
        ({"width": "3"}, "width is '3'; network 'narrow' does not take that"),
        ({"gamma": "a"}, "gamma is 'a'; loss 'focal' does not take that"),
        ({"data.sides": 1.5}, "sides is 1.5; data 'coins' does not take that"),
        ({"rule.share": "x"}, "share is 'x'; rule 'half' does not take that"),
        ({"network.kind": "narow"}, "network.kind = 'narow': give .*'narrow', or register one"),
        ({"loss.kind": "focl"}, "loss.kind = 'focl': give .*'focal', or register one"),
        ({"data.window": 0.2}, "data.window"),
        ({"data.sort": True}, "data.sort is True, which data 'coins' does not ask for"),
        ({"data.flip": True}, r"augment images, and the samples of 'coins' have the shape \(4,\)"),
    ],
)
def test_bad_options_are_refused_by_name(loaded, changes, message):
    with pytest.raises((ConfigurationError, InputError), match=message):
        training.build(own(**changes))


def test_a_run_says_what_was_trained(loaded, tmp_path):
    training.train(own(), tmp_path / "run")
    run = Run(tmp_path / "run")
    assert run.own_code["plugins"] == [loaded.record]
    parts = run.own_code["parts"]
    assert {kind: part["class"] for kind, part in parts.items()} == {
        "rule": "my.Half",
        "network": "my.narrow",
        "data": "my.coins",
        "loss": "my.focal",
    }
    assert {part["digest"] for part in parts.values()} == {loaded.digest}
    assert parts["rule"]["cite"].startswith("@article{half2026")
    assert run.code == {"my.py": loaded.digest}
    assert run.config["data"]["shape"] == [4]
    assert run.config["data"]["inputs"]  # a digest of all of them
    trainer = training.open_run(tmp_path / "run")
    assert trainer.evaluate().accuracy == run.metrics[-1]["test_accuracy"]


def test_a_run_of_the_library_says_nothing_of_such_code(tmp_path):
    settings = settings_for(hidden=[5], **{"data.train": 20, "data.test": 10})
    training.train(settings, tmp_path / "run")
    document = json.loads((tmp_path / "run" / "config.json").read_text())
    assert "own_code" not in document and "code" not in document["environment"]


def test_a_rule_of_a_script_is_told_too_even_in_the_place_of_the_librarys(tmp_path):
    class Other(clocked.DFA):
        """Not DFA."""

    clocked.RULES["dfa"] = Other
    settings = settings_for("dfa", hidden=[5], **{"data.train": 20, "data.test": 10})
    training.train(settings, tmp_path / "run")
    part = Run(tmp_path / "run").own_code["parts"]["rule"]
    assert (part["name"], part["file"]) == ("dfa", "test_training_registered.py")
    assert part["class"].endswith("Other")


def test_a_run_can_be_read_where_its_parts_are_not_known(loaded, tmp_path):
    training.train(own(), tmp_path / "run")
    for name in list(plugins.entries()):
        plugins.unregister(*name.split(" ", 1))
    run = Run(tmp_path / "run")
    assert run.settings.network.kind == "narrow"
    assert run.finished
    with pytest.raises(ConfigurationError, match="unknown rule 'half'"):
        training.open_run(tmp_path / "run")


@pytest.mark.parametrize("part", ["network", "loss", "data"])
def test_a_part_that_is_not_registered_is_named(loaded, part):
    settings = own()
    name = {"network": "narrow", "loss": "focal", "data": "coins"}[part]
    plugins.unregister(part, name)
    with pytest.raises(ConfigurationError, match=f"{name}.* not registered here"):
        training.build(settings)


def test_changed_code_is_told_when_a_run_is_resumed_and_opened(loaded, tmp_path, monkeypatch):
    settings = own(epochs=2)
    stopped = training.Trainer(training.build(settings), training.RunFolder(tmp_path / "run"))
    stop_after(stopped, 1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    quiet = training.resume(tmp_path / "copy")
    assert Run(tmp_path / "copy").resumed == []
    document = json.loads((tmp_path / "run" / "config.json").read_text())
    document["environment"]["code"] = {"my.py": "0" * 16}
    (tmp_path / "run" / "config.json").write_text(json.dumps(document))
    with pytest.warns(UserWarning, match="resumed in another environment .code"):
        told = training.resume(tmp_path / "run")
    assert [line["test_loss"] for line in told] == [line["test_loss"] for line in quiet]
    (change,) = Run(tmp_path / "run").resumed
    assert change["code"] == {"my.py": loaded.digest}
    training.open_run(tmp_path / "run")  # with the code of the resumption: nothing to say
    document["resumed"] = []
    (tmp_path / "run" / "config.json").write_text(json.dumps(document))
    with pytest.warns(UserWarning, match="was trained with other code of your own"):
        training.open_run(tmp_path / "run")


def stop_after(trainer, epochs, monkeypatch):
    """Be killed after an epoch."""
    run = trainer._run_epoch

    def once():
        if trainer.epoch == epochs:
            raise KeyboardInterrupt
        run()

    monkeypatch.setattr(trainer, "_run_epoch", once)


def test_a_registered_loss_is_that_of_autograd_by_hand(loaded):
    experiment = training.build(own(gamma=3.0))
    output = torch.randn(5, 4, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 3, 0])
    losses, errors = experiment.rule.loss(output, targets)
    p = torch.softmax(output, 1)[torch.arange(5), targets]
    assert torch.allclose(losses, -((1 - p) ** 3) * p.log())
    step = 1e-6
    for i in range(5):
        for j in range(4):
            shifted = [output.clone(), output.clone()]
            shifted[0][i, j] -= step
            shifted[1][i, j] += step
            low, high = (experiment.rule.loss(one, targets)[0][i] for one in shifted)
            assert errors[i, j] == pytest.approx(float(high - low) / (2 * step), abs=1e-6)


def test_a_class_of_losses_keeps_its_own_errors():
    @threefactor.register_loss("square")
    class Square:
        def __init__(self, *, scale: float = 1.0):
            self.scale = scale

        def __call__(self, output, targets):
            error = self.scale * (output - torch.nn.functional.one_hot(targets, output.shape[1]))
            return error.square().sum(1) / (2 * self.scale), error

    small = {"hidden": [5], "data.train": 20, "data.test": 10}
    settings = settings_for("dfa", **{"loss.kind": "square", "loss.scale": 2.0, **small})
    assert training.build(settings).rule.loss.scale == 2.0
    assert len(training.train(settings)) == 1


def test_a_network_and_data_of_exact_spike_times():
    @threefactor.register_network("timed", engine="events")
    def timed(input_shape, outputs, *, hidden: int = 6):
        return events.fc(
            input_shape[0], (hidden,), outputs, tau_s=0.1, thresholds=(0.05, 0.1), duration=0.2
        )

    @threefactor.register_data("clicks")
    def spikes(window, *, samples: int = 24):
        y = torch.arange(samples) % 3
        x = 0.2 + 0.5 * torch.nn.functional.one_hot(y, 6).float()
        coded = events.latency_code(x, window=window)
        return (coded, y), (coded[:6], y[:6])

    settings = settings_for(
        base="digits-events", **{"network.kind": "timed", "hidden": 7, "data.name": "clicks"}
    )
    assert settings.network.engine == "events"
    experiment = training.build(settings)
    assert experiment.data.input_shape == (6,)
    assert experiment.rule.layer_sizes == {"lif1": 7}
    assert len(training.train(settings)) == 1


def test_frames_have_the_steps_of_the_settings():
    class Frames:
        def __init__(self, values):
            self.values = values

        def __len__(self):
            return len(self.values)

        def __getitem__(self, index):
            return self.values[index].transpose(0, 1)

    class Movie:
        input_shape, outputs = (3,), 2

        def __init__(self, steps):
            self.steps = steps
            y = torch.arange(12) % 2
            x = Frames(torch.rand(12, steps, 3) + y[:, None, None])
            self.train = self.test = (x, y)

    threefactor.register_data("movie")(lambda steps: Movie(steps))
    threefactor.register_data("fixed")(lambda: Movie(4))
    small = {"hidden": [5], "steps": 3}
    experiment = training.build(settings_for("dfa", **small, **{"data.name": "movie"}))
    assert (experiment.frames, experiment.steps) == (3, None)
    assert len(training.train(settings_for("dfa", **small, **{"data.name": "movie"}))) == 1
    some = {"data.name": "movie", "data.train": 6, "data.test": 2, "data.folds": 2}
    part = training.build(settings_for("dfa", **small, **some)).data
    assert part.train[0][torch.tensor([1, 0])].shape == (3, 2, 3)
    assert [len(part.train[1]), len(part.test[1])] == [6, 2]
    with pytest.raises(ConfigurationError, match="has 4 frames a sample, and steps is 3; give"):
        training.build(settings_for("dfa", **small, **{"data.name": "fixed"}))


X, Y = torch.rand(8, 4), torch.arange(8) % 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, r"gave int; return \(\(inputs, targets\), \(inputs, targets\)\)"),
        (((X, Y),), "gave tuple"),
        ((X, Y), "train of data 'bad' is Tensor; give a pair"),
        (((X, Y), X), "test of data 'bad' is Tensor; give a pair"),
        (((X, [0, 1]), (X, Y)), "targets of train of data 'bad' are list"),
        (((X.numpy(), Y), (X, Y)), "inputs of train of data 'bad' are ndarray"),
        (((X, Y), (X[:3], Y)), "test of data 'bad' has 3 inputs and 8 targets"),
        (((X[:0], Y[:0]), (X, Y)), "one input at least"),
        (((range(8), Y), (range(8), Y)), "does not say the shape of a sample"),
    ],
)
def test_data_that_do_not_fit_the_contract(given, message):
    threefactor.register_data("bad")(lambda: given)
    with pytest.raises(InputError, match=message):
        training.build(settings_for("dfa", **{"data.name": "bad", "hidden": [5]}))


@pytest.mark.parametrize(("first", "step", "missing"), [(1, 1, "'0'"), (0, 2, "'1', '3'")])
def test_labels_that_leave_outputs_unlearned_are_told(first, step, missing):
    """As labels that are counted from 1; how many outputs are meant may be said."""
    labels = first + step * (torch.arange(30) % 3)
    pairs = (torch.rand(20, 5), labels[:20]), (torch.rand(10, 5), labels[20:])
    threefactor.register_data("counted")(lambda: pairs)
    settings = settings_for(**{"data.name": "counted"})
    with pytest.warns(UserWarning, match=rf"of data 'counted' has the label {missing}, so of"):
        built = training.build(settings)
    assert built.data.outputs == first + 2 * step + 1

    class Said:
        train, test = pairs
        outputs, input_shape = 7, (5,)

    threefactor.register_data("said")(Said)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert training.build(settings_for(**{"data.name": "said"})).data.outputs == 7


def test_an_error_in_ones_own_code_is_named_with_its_line(loaded):
    @threefactor.register_data("broken")
    def broken():
        raise KeyError("x")

    with pytest.raises(ConfigurationError, match=r"data 'broken' failed: KeyError: 'x' \(.*line"):
        training.build(settings_for("dfa", **{"data.name": "broken"}))
    threefactor.register_network("nothing")(lambda shape, outputs: None)
    with pytest.raises(ConfigurationError, match="network 'nothing' gave None; return a"):
        training.build(settings_for("dfa", **{"network.kind": "nothing"}))


def test_subsets_and_folds_of_registered_data(loaded):
    experiment = training.build(own(**{"data.train": 20, "data.test": 5}))
    assert [len(part[1]) for part in (experiment.data.train, experiment.data.test)] == [20, 5]
    assert experiment.data.train[0].dtype == torch.float32  # the plugin gives float64
    folded = training.build(own(**{"data.folds": 3, "data.fold": 1}))
    assert len(folded.data.train[1]) == 32


def test_an_object_of_the_library_stays_as_it_is():
    made = data.load("digits").subset(30, 10)
    threefactor.register_data("some-digits")(lambda: made)
    small = {"hidden": [5], "data.name": "some-digits"}
    assert training.build(settings_for("dfa", **small)).data.train[0] is not None
    assert len(training.train(settings_for("dfa", **small, **{"data.padding": 1}))) == 1


def test_another_data_set_drops_the_options_of_the_first(loaded):
    changed = training.override(own(), {"data.name": "digits"})
    assert changed.data.options == {}
    stale = {"name": "digits", "options": {"sides": 3}}
    with pytest.raises(ConfigurationError, match=r"data\.options are .'sides': 3."):
        training.build(settings_for("dfa", data=stale))
