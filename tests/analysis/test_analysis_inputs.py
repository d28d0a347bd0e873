"""Measures of a network with several inputs, beside the same network with one."""

import dataclasses
import pickle

import pytest
import torch
from reference.branch_cases import SHAPES, OneInput, make, make_inputs
from reference.clocked_cases import learned, make_rule

from threefactor import analysis, clocked
from threefactor.analysis import measured
from threefactor.analysis.sizes import sizes
from threefactor.errors import InputError


def twins():
    several = make("skip to the read-out")
    several.input_shape = SHAPES
    one = OneInput(make("skip to the read-out"))
    image, audio, labels = make_inputs(3)
    batches = [({"image": i, "audio": a}, labels) for i, a in zip(image, audio, strict=True)]
    rows = [(torch.cat([x["image"].flatten(1), x["audio"]], 1), y) for x, y in batches]
    return several, batches, one, rows


def numbers(found, name=""):
    """All values of a record, by the names of the layers in the network with two inputs."""
    if dataclasses.is_dataclass(found):
        found = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    if not isinstance(found, dict):
        return {name: found}
    parts = {f"{name}/{key}".replace("branches.", ""): value for key, value in found.items()}
    return {k: v for key, value in parts.items() for k, v in numbers(value, key).items()}


MEASURES = {
    "firing": lambda net, data: analysis.firing(net, data, steps=4),
    "operations": lambda net, data: analysis.operations(net, data, steps=4),
    "sizes": lambda net, data: sizes(net),
    "cost": lambda net, data: analysis.cost(net),
    "training operations": lambda net, data: analysis.training_operations(clocked.OPZO(net)),
    "mean jacobian": lambda net, data: analysis.mean_jacobian(net, (x for x, _ in data), steps=4),
    "alignment": lambda net, data: analysis.alignment(clocked.DFA(net), data, steps=4),
    "variance": lambda net, data: analysis.gradient_variance(
        {"bp": clocked.SpatialBP(net)}, data, steps=4
    ),
    "feedback": lambda net, data: analysis.feedback_alignment(clocked.DKP(net), data, steps=4),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_the_same_numbers_as_with_one_input(measure):
    several, batches, one, rows = twins()
    rates = analysis.firing(several, batches, steps=4).layers
    assert all(0.02 < layer.rate < 0.98 for layer in rates.values())
    found = []
    for network, data in ((several, batches), (one, rows)):
        torch.manual_seed(3)
        found.append(numbers(MEASURES[measure](network, data)))
    assert found[0].keys() == found[1].keys() and len(found[0]) > 2
    for name, value in found[0].items():
        if isinstance(value, float | torch.Tensor):
            torch.testing.assert_close(value, found[1][name], msg=name)
        else:
            assert value == found[1][name], name
    assert all(p.grad is None for p in several.parameters())


def test_batches_of_several_inputs():
    image, audio = torch.arange(14.0).view(7, 2), torch.arange(7.0)
    labels = torch.arange(7)
    for inputs, first, second in (
        ((image, audio), 0, 1),
        ({"image": image, "audio": audio}, "image", "audio"),
    ):
        found = list(analysis.cut(inputs, labels, 3))
        assert len(found) == 2
        for i, (x, y) in enumerate(found):
            assert type(x) is type(inputs)
            assert torch.equal(y, labels[3 * i : 3 * i + 3])
            assert torch.equal(x[first], image[3 * i : 3 * i + 3])
            assert torch.equal(x[second], audio[3 * i : 3 * i + 3])


def test_memory_is_measured_with_several_inputs():
    several, batches, *_ = twins()
    for steps, length in ((3, None), (None, 3)):
        given = pickle.dumps((several, clocked.DFA, batches[0], steps, length, 1))
        _, peak = measured._train_alone(given)
        assert peak is None or peak > 1.0


def test_several_inputs_that_nobody_declared():
    several, batches, *_ = twins()
    del several.input_shape
    for measure in ("firing", "operations", "mean jacobian"):
        with pytest.raises(InputError, match=r"takes several inputs, \(image, audio\)"):
            MEASURES[measure](several, batches)
    with pytest.raises(InputError, match="several inputs"):
        sizes(several)
    assert sizes(several, SHAPES).hidden == {"lif1": 32, "lif2": 6, "lif3": 7}
    assert analysis.cost(several, SHAPES)["dfa"].memory == 3 * (32 + 6 + 7)


def test_measures_leave_a_stream_alone():
    streams = []
    for measured_between in (False, True):
        network, batches, *_ = twins()
        rule = make_rule("opzo", network)
        for x, labels in batches:
            rule.observe(x, labels)
            for name in ("firing", "operations", "sizes", "mean jacobian", "alignment"):
                if measured_between:
                    MEASURES[name](network, batches[:1])
        streams.append(learned(rule))
    assert streams[0].keys() == streams[1].keys()
    assert all(torch.equal(value, streams[1][key]) for key, value in streams[0].items())
    assert streams[0]["network.mix.weight"].abs().max() > 0
