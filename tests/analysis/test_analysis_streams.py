"""Streams of pictures that turn: what adapts and what does not, at which cost."""

import copy
import dataclasses
import gc
import math

import pytest
import torch

from threefactor import clocked, training
from threefactor.analysis.runs import Drift, adapt, turned
from threefactor.errors import ConfigurationError, DataError, InputError
from threefactor.recipes import recipe

SMALL = {"epochs": 3, "hidden": [40], "steps": 3, "data.test": 120}
SHORT = Drift(samples=60, held_out=40, every=25, window=30)


@pytest.fixture(scope="module")
def trainer():
    trained = training.Trainer(training.build(recipe("digits-fc").settings_for("opzo", SMALL)))
    trained.fit()
    return trained


def test_a_quarter_turn_is_exact():
    picture = torch.rand(2, 3, 6, 6)
    for quarters in (0, 1, 2, 3, 4):
        torch.testing.assert_close(
            turned(picture, 90.0 * quarters), torch.rot90(picture, quarters, (2, 3))
        )


def test_sides_that_differ_keep_their_scale():
    """A point right of the centre goes up by its distance in pixels; corners get the ground."""
    picture = torch.full((1, 1, 5, 9), -2.0)
    picture[0, 0, 2, 5] = 1.0
    found = turned(picture, 90.0)
    assert found[0, 0].argmax() == 1 * 9 + 4
    assert found[0, 0, 1, 4] == pytest.approx(1.0, abs=1e-5)
    assert found.min() == pytest.approx(-2.0)


def test_lines_of_a_stream(trainer):
    weights = copy.deepcopy(trainer.experiment.network.state_dict())
    before = torch.random.get_rng_state()
    lines = list(adapt(trainer, SHORT, frozen=[("linear1",)]))
    assert [line["samples"] for line in lines] == [25, 50, 60]
    assert lines[-1]["angle"] == 90.0 and lines[-1]["labelled"] == 60
    names = ["static", "adapting", "linear1 frozen"]
    assert all(list(line["accuracy"]) == names for line in lines)
    assert torch.equal(before, torch.random.get_rng_state())
    for name, value in trainer.experiment.network.state_dict().items():
        assert torch.equal(value, weights[name])
    again = list(adapt(trainer, SHORT, frozen=[("linear1",)]))
    assert [a["accuracy"] for a in lines] == [b["accuracy"] for b in again]
    assert [a["held_out"] for a in lines] == [b["held_out"] for b in again]


def test_without_drift_the_static_network_keeps_its_accuracy(trainer):
    """All test pictures that are not held out pass once: a count, made here in one batch."""
    drift = Drift(samples=80, angle=0.0, held_out=40, every=80, window=80)
    (line,) = adapt(trainer, drift)
    data, net = trainer.experiment.data, trainer.experiment.network
    mode = net.training
    output = clocked.run(net.eval(), data.test_images, steps=3).output
    net.train(mode)
    right = int((output.argmax(1) == data.test_labels).sum())
    assert right == round(80 * line["accuracy"]["static"] + 40 * line["held_out"]["static"])


def test_learning_helps_and_needs_labels(trainer):
    drift = Drift(samples=400, angle=60.0, held_out=40, every=400, window=100)
    (full,) = adapt(trainer, drift, lr=1e-3)
    assert full["accuracy"]["adapting"] > full["accuracy"]["static"] + 0.15
    blind = Drift(samples=60, labelled=0.0, held_out=40, every=60)
    (none,) = adapt(trainer, blind, lr=1e-3)
    assert none["labelled"] == 0
    assert none["held_out"]["adapting"] == none["held_out"]["static"]  # nothing learned
    (some,) = adapt(trainer, Drift(samples=60, labelled=0.5, held_out=40, every=60))
    assert 15 < some["labelled"] < 45


def test_no_tensor_is_kept(trainer):
    """Between the 40th and the 80th sample."""
    lines = adapt(trainer, Drift(samples=80, held_out=20, every=40, window=25))

    def values():
        gc.collect()
        return sum(o.numel() for o in gc.get_objects() if type(o) is torch.Tensor)

    next(lines)
    before = values()
    next(lines)
    assert values() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples is 0"),
        ({"samples": 2.5}, "samples is 2.5; give a whole number"),
        ({"window": True}, "window is True; give a whole number"),
        ({"labelled": 1.5}, "share between 0 and 1"),
        ({"labelled": math.nan}, "share between 0 and 1"),
        ({"labelled": "all"}, "labelled is 'all'; give a share"),
        ({"labelled": True}, "labelled is True; give a share"),
        ({"angle": math.inf}, "number of degrees"),
        ({"angle": "90"}, "angle is '90'; give a number of degrees"),
        ({"samples": 10, "every": 20}, "more than the 10 samples"),
    ],
)
def test_numbers_out_of_range(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Drift(**change)


def test_pictures_turn_whatever_holds_them(trainer):
    """As where some of those for training are held out, or of one's own."""
    settings = recipe("digits-fc").settings_for("opzo", {**SMALL, "validation": 0.2})
    held = training.Trainer(training.build(settings))
    network = held.experiment.network
    network.load_state_dict(trainer.experiment.network.state_dict())
    expected, lines = (list(adapt(one, SHORT)) for one in (trainer, held))
    static = [[line["accuracy"]["static"] for line in each] for each in (expected, lines)]
    assert static[0] == static[1]
    flat = dataclasses.replace(held.experiment.data, test_samples=torch.rand(120, 64))
    other = training.Trainer(dataclasses.replace(held.experiment, data=flat))
    with pytest.raises(DataError, match=r"a Tensor of the shape \(120, 64\); .* needs pictures"):
        adapt(other, SHORT)


def test_what_cannot_be_a_stream(trainer):
    with pytest.raises(DataError, match="120 test pictures"):
        adapt(trainer, Drift(held_out=120))
    with pytest.raises(ConfigurationError, match="they are linear1, readout"):
        adapt(trainer, SHORT, frozen=[("lif1",)])
    with pytest.raises(ConfigurationError, match="nothing learns"):
        adapt(trainer, SHORT, frozen=[("linear1", "readout")])
    late = training.build(recipe("digits-fc").settings_for("opzo", {**SMALL, "label_delay": 1}))
    with pytest.raises(ConfigurationError, match="label_delay of the rule is 1"):
        adapt(training.Trainer(late), SHORT)
    tiny = {"hidden": [5], "data.train": 32, "data.test": 16}
    events = training.Trainer(training.build(recipe("digits-events").settings_for("dfa", tiny)))
    with pytest.raises(InputError, match="exact spike times"):
        adapt(events, SHORT)
