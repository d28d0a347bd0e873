"""Input that has no meaning: every error says what was given, what was expected, what to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference.events_cases import make_inputs, make_labels, make_network, rule_of
from torch import Tensor, nn

from threefactor import clocked, events
from threefactor.errors import ConfigurationError, DivergenceError, InputError
from threefactor.events import SpikeBatch

nan, inf = math.nan, math.inf
every_rule = pytest.mark.parametrize("name", events.RULES)


def batch(times: Any = (0.1, 0.2), addresses: Any = (0, 1), size: Any = 4) -> SpikeBatch:
    return SpikeBatch([0, len(times)], np.asarray(times), np.asarray(addresses), size)


def one(time: float) -> Callable[[], SpikeBatch]:
    return lambda: batch([0.1, time, 0.3], [0, 1, 2])


def lists(times: Any, addresses: Any) -> Callable[[], SpikeBatch]:
    return lambda: SpikeBatch.from_lists(times, addresses, 4)


def arrays(which: Any, number: Any, times: Any = (0.1, 0.2)) -> Callable[[], SpikeBatch]:
    return lambda: SpikeBatch.from_arrays(which, times, [0, 1], 4, number)


def recorded(*fields: str, sensor: Any, unit: float = 1e-6, **values: int) -> Callable[[], Any]:
    row = np.zeros(2, dtype=[(name, np.int64) for name in fields])
    for name, value in values.items():
        row[name] = value
    return lambda: SpikeBatch.from_events([row[:0], row], sensor, unit)


WRONG_TIME = r"times hold 1 values .*NaN, infinite or negative.*times\[1\] = {}; give seconds"

BAD_SPIKES: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN time": (one(nan), WRONG_TIME.format("nan")),
    "infinite time": (one(inf), WRONG_TIME.format("inf")),
    "minus infinite time": (one(-inf), WRONG_TIME.format("-inf")),
    "negative time": (one(-1e-9), WRONG_TIME.format("-1e-09")),
    "times with two dimensions": (
        lambda: SpikeBatch([0, 1], [[0.1]], [0], 4),
        r"times are float64 of shape \(1, 1\); expected \(spikes,\) seconds",
    ),
    "complex times": (lambda: batch([1j, 0.2]), r"times are complex128"),
    "text times": (lambda: batch(["a", "b"]), r"times are <U1"),
    "boolean times": (lambda: batch([True, False]), r"times are bool"),
    "address too large": (
        lambda: batch(addresses=(0, 4)),
        r"addresses lie between 0 and 4; with size=4, expected 0 to 3",
    ),
    "negative address": (lambda: batch(addresses=(-1, 1)), r"between -1 and 1; with size=4"),
    "fractional addresses": (
        lambda: batch(addresses=(0.0, 1.0)),
        r"addresses are float64 of shape \(2,\); expected one-dimensional integers",
    ),
    "boolean addresses": (lambda: batch(addresses=(True, False)), r"addresses are bool"),
    "address beyond 32 bits": (
        lambda: batch(addresses=(0, 2**32)),
        r"addresses lie between 0 and 4294967296; expected integers that fit int32",
    ),
    "address beyond 64 bits": (
        lambda: batch(addresses=np.array([0, 2**64 - 1], np.uint64)),
        r"expected integers that fit int32",
    ),
    "more times than addresses": (
        lambda: batch([0.1, 0.2, 0.3]),
        r"there are 3 times and 2 addresses; give one of each a spike",
    ),
    "offsets too short": (
        lambda: SpikeBatch([0, 1], [0.1, 0.2], [0, 1], 4),
        r"offsets are .*expected batch \+ 1 integers that do not fall, from 0 to .* 2$",
    ),
    "offsets that fall": (lambda: SpikeBatch([0, 2, 1, 2], [0.1, 0.2], [0, 1], 4), "do not fall"),
    "offsets that start late": (lambda: SpikeBatch([1, 2], [0.1, 0.2], [0, 1], 4), "from 0 to"),
    "no offsets": (lambda: SpikeBatch([], [], [], 4), r"expected batch \+ 1 integers"),
    "fractional offsets": (lambda: SpikeBatch([0.0, 2.0], [0.1, 0.2], [0, 1], 4), "offsets are fl"),
    "size 0": (lambda: batch(size=0), r"size is 0; give a whole number of at least 1"),
    "negative size": (lambda: batch(size=-4), r"size is -4; give a whole number"),
    "fractional size": (lambda: batch(size=4.0), r"size is 4.0; give a whole number"),
    "boolean size": (lambda: batch(size=True), r"size is True; give a whole number"),
    "lists of different numbers of samples": (
        lists([[0.1], []], [[0]]),
        r"times are of 2 samples and addresses of 1; give one sequence of each per sample",
    ),
    "lists of different lengths": (
        lists([[0.1], [0.2]], [[0], [1, 2]]),
        r"sample 1 has 1 times and 2 addresses; give as many of each",
    ),
    "lists with a NaN": (lists([[0.1], [nan]], [[0], [1]]), WRONG_TIME.format("nan")),
    "lists with an address too large": (lists([[0.1]], [[9]]), "between 9 and 9; with size=4"),
    "sample out of range": (
        arrays([0, 2], 2),
        r"samples lie between 0 and 2; a batch of 2 has samples 0 to 1",
    ),
    "negative sample": (arrays([0, -1], 2), r"samples lie between -1 and 0"),
    "arrays of different lengths": (
        arrays([0, 1, 1], 2),
        r"there are 3 samples, 2 times and 2 addresses; give one of each per spike",
    ),
    "batch 0": (arrays([0, 0], 0), r"batch is 0; give a whole number"),
    "arrays with a negative time": (arrays([0, 0], 1, (0.1, -0.2)), r"times\[1\] = -0.2"),
    "recording without fields": (
        lambda: SpikeBatch.from_events([np.zeros((3, 4))], 700),
        r"has the fields \[\] and the shape \(3, 4\); expected a structured array .* 't', as Tonic",
    ),
    "recording without time": (recorded("x", sensor=7), r"fields \['x'\] .*; expected .* 't'"),
    "recording without rows": (recorded("t", "x", sensor=(7, 4, 1)), r"expected .*'y'"),
    "recording without polarity": (recorded("t", "x", "y", sensor=(7, 4, 2)), r"expected .*'p'"),
    "recordings in a table": (
        lambda: SpikeBatch.from_events([np.zeros((2, 3), [("t", int), ("x", int)])], 7),
        r"fields \['t', 'x'\] and the shape \(2, 3\); expected .* of one dimension",
    ),
    "one recording in place of several": (
        lambda: SpikeBatch.from_events(np.zeros(3, [("t", int), ("x", int)]), 7),
        r"and the shape \(\); expected",
    ),
    "events between pixels": (
        lambda: SpikeBatch.from_events([np.full(2, 0.5, [("t", float), ("x", float)])], 7),
        r"x of a recording is float64; expected whole numbers",
    ),
    "times as text": (
        lambda: SpikeBatch.from_events([np.zeros(2, [("t", "U3"), ("x", int)])], 7),
        r"t of a recording is <U3; expected numbers",
    ),
    "records as addresses": (
        lambda: SpikeBatch([0, 0], [], np.zeros(0, [("a", int), ("b", float)]), 4),
        r"addresses are .*expected one-dimensional integers",
    ),
    "more samples than memory": (arrays([0, 0], 2**31 - 1), r"give at most 100,000,000 samples"),
    "more counts than memory": (
        lambda: SpikeBatch([0] * 10, [], [], 2**31 - 1).counts(),
        r"the counts of 9 samples and 2147483647 addresses do not fit into memory",
    ),
    "event beyond the sensor": (
        recorded("t", "x", "y", "p", sensor=(7, 4, 2), x=7),
        r"sample 1 has x between 7 and 7; sensor_size=\(7, 4, 2\) allows 0 to 6",
    ),
    "event before the sensor": (
        recorded("t", "x", "y", "p", sensor=(7, 4, 2), y=-1),
        r"sample 1 has y between -1 and -1; .* allows 0 to 3",
    ),
    "event before the start": (recorded("t", "x", sensor=7, t=-1), r"times hold 2 values"),
    "time unit 0": (recorded("t", "x", sensor=7, unit=0.0), r"time_unit is 0.0; give seconds per"),
    "time unit NaN": (recorded("t", "x", sensor=7, unit=nan), r"time_unit is nan; give seconds"),
    "sample beyond the batch": (
        lambda: batch()[1],
        r"position 1 is out of range; there are 1 samples, from 0 to 0",
    ),
    "sample before the batch": (lambda: batch()[[0, -2]], r"position -2 is out of range"),
    "fractional index": (lambda: batch()[0.0], r"0.0 is not an index of samples"),
    "text as an index": (lambda: batch()["a"], r"'a' is not an index of samples"),
    "mask of another length": (
        lambda: batch()[[True, False]],
        r"a mask of shape \(2,\) is not an index of samples; expected \(1,\)",
    ),
    "index of two dimensions": (lambda: batch()[[[0]]], r"in one dimension"),
}


@pytest.mark.parametrize(("make", "message"), BAD_SPIKES.values(), ids=BAD_SPIKES)
def test_bad_spikes(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def code(values: Any, **options: Any) -> Callable[[], Any]:
    return lambda: events.latency_code(values, **options)


BAD_IMAGES: dict[str, tuple[Callable[[], Any], str]] = {
    "above 1": (
        code([[0.5, 1.01]]),
        r"pixels lie between 0.5 and 1.01; expected 0 to 1, that is images .* normalise=False",
    ),
    "below 0": (code([[0.5, -0.01]]), r"pixels lie between -0.01 and 0.5; expected 0 to 1"),
    "NaN": (code([[0.5, nan]]), r"pixels lie between nan and nan"),
    "infinite": (code([[0.5, inf]]), r"pixels lie between 0.5 and inf"),
    "bytes as floats": (code([[255.0, 3.0]]), r"between 3.0 and 255.0; expected 0 to 1"),
    "long integers": (
        code(np.array([[0, 255]])),
        r"images are int64; expected floating point or uint8",
    ),
    "boolean": (code(np.array([[True]])), r"images are bool"),
    "one image without a batch": (code([0.5]), r"shape \(1,\); expected \(batch, ...\)"),
    "a number": (code(0.5), r"shape \(\); expected \(batch, ...\)"),
    "window 0": (code([[0.5]], window=0.0), r"window is 0.0; give seconds above 0"),
    "negative window": (code([[0.5]], window=-1.0), r"window is -1.0; give seconds above 0"),
    "window NaN": (code([[0.5]], window=nan), r"window is nan; give seconds above 0"),
    "infinite window": (code([[0.5]], window=inf), r"window is inf; give seconds above 0"),
}


@pytest.mark.parametrize(("make", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_images(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def fc(*sizes: Any, **options: Any) -> Callable[[], Any]:
    given = {"tau_s": 0.1, "thresholds": 0.2, "duration": 0.2, **options}
    first, hidden, last = sizes or (4, (5,), 3)
    return lambda: events.fc(first, hidden, last, **given)


BAD_NETWORKS: dict[str, tuple[Callable[[], Any], str]] = {
    **{
        f"{name} {value!r}": (fc(**{name: value}), rf"{name} is {value!r}; give seconds, above 0")
        for name in ("tau_s", "duration")
        for value in (0.0, -0.1, nan, inf, "0.1", None, True)
    },
    **{
        f"threshold {value!r}": (
            fc(thresholds=value),
            rf"threshold is {value!r}; give a potential times seconds, above 0 and finite",
        )
        for value in (0.0, -0.1, nan, inf, True)
    },
    "one bad threshold of two": (fc(thresholds=(0.2, -1.0)), r"threshold is -1.0"),
    "too many thresholds": (
        fc(thresholds=(0.2, 0.2, 0.2)),
        r"thresholds are \(0.2, 0.2, 0.2\) for 2 layers; give one per layer, or two",
    ),
    "no thresholds": (fc(thresholds=()), r"thresholds are \(\) for 2 layers"),
    "too few thresholds": (
        fc(4, (5, 5, 5), 3, thresholds=(0.2, 0.2, 0.3)),
        r"for 4 layers; give one per layer",
    ),
    "cap 0": (fc(max_spikes=0), r"max_spikes is 0; give a whole number of at least 1"),
    "negative cap": (fc(max_spikes=-1), r"max_spikes is -1; give a whole number"),
    "fractional cap": (fc(max_spikes=3.0), r"max_spikes is 3.0; give a whole number"),
    "cap NaN": (fc(max_spikes=nan), r"max_spikes is nan; give a whole number"),
    "no inputs": (fc(0, (5,), 3), r"in_features is 0; give a whole number of at least 1"),
    "fractional inputs": (fc(4.0, (5,), 3), r"in_features is 4.0; give a whole number"),
    "empty layer": (fc(4, (0,), 3), r"neurons is 0; give a whole number of at least 1"),
    "no outputs": (fc(4, (5,), 0), r"neurons is 0; give a whole number"),
}


@pytest.mark.parametrize(("make", "message"), BAD_NETWORKS.values(), ids=BAD_NETWORKS)
def test_bad_networks(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_thresholds_as_given() -> None:
    """One for all, two for hidden and output, or one per layer."""
    for given, expected in (
        (0.2, [0.2, 0.2, 0.2]),
        ([0.2], [0.2, 0.2, 0.2]),
        ((0.2, 0.7), [0.2, 0.2, 0.7]),
        ((0.1, 0.2, 0.3), [0.1, 0.2, 0.3]),
        (np.array([0.1, 0.2, 0.3]), [0.1, 0.2, 0.3]),
        (1, [1.0, 1.0, 1.0]),
    ):
        net = fc(4, (5, 5), 3, thresholds=given)()
        assert [layer.threshold for layer in net.layers.values()] == expected
        assert list(net.layers) == ["lif1", "lif2", "readout"]
        assert net.lif1.theta == pytest.approx(expected[0] / 0.2) and net.lif1.tau == 0.2


# What a network or rule is given


def put_to_use(use: str, net: events.Network, inputs: Any, labels: Any) -> None:
    if use == "run":
        events.run(net, inputs, targets=labels)
    else:
        events.RULES[use](net).step(inputs, labels)


def altered(change: Callable[[events.Network], Any]) -> events.Network:
    net = make_network()
    with torch.no_grad():
        change(net)
    return net


def set_value(value: float) -> Callable[[events.Network], Any]:
    return lambda net: net.lif1.weight[2, 1].fill_(value)


def transposed(net: events.Network) -> None:
    net.lif1.weight = nn.Parameter(torch.rand(5, 6).double().t())


def with_meta(net: events.Network) -> None:
    net.readout.to("meta")


BAD_STATES: dict[str, tuple[Callable[[events.Network], Any], str]] = {
    "half": (lambda n: n.half(), r"weight is torch.float16; expected float32 or float64"),
    "bfloat16": (lambda n: n.bfloat16(), r"weight is torch.bfloat16; expected float32 or float64"),
    "other device": (with_meta, r"weight is on meta; .*run on the CPU: use network.to\('cpu'\)"),
    "transposed": (transposed, r"weight has the strides \(1, 6\); use .contiguous\(\)"),
    "NaN": (set_value(nan), r"the weights hold NaN or .*; lower the learning rate"),
    "infinite": (set_value(inf), r"the weights hold NaN or infinite values"),
    "both infinities": (
        lambda n: n.lif1.weight[0].copy_(torch.tensor([inf, -inf, 0.0, 0.0, 0.0])),
        r"the weights hold NaN or infinite values",
    ),
    "huge": (lambda n: n.float().lif1.weight[2, 1].fill_(2e16), r"the weights .* some beyond 1e16"),
    "huge and negative": (
        lambda n: n.float().readout.weight[2, 1].fill_(-3e38),
        r"the weights .* some beyond 1e16",
    ),
    "huge in float64": (
        lambda n: n.double().lif1.weight[0, 0].fill_(2e150),
        r"the weights .* some beyond 1e16 \(1e150 in float64\)",
    ),
    "NaN in the read-out": (
        lambda n: n.readout.weight[0, 0].fill_(nan),
        r"the weights hold NaN or infinite values",
    ),
}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("use", ["run", *events.RULES])
@pytest.mark.parametrize(("change", "message"), BAD_STATES.values(), ids=BAD_STATES)
def test_bad_weights(use: str, change: Callable[[events.Network], Any], message: str) -> None:
    net = altered(change)
    with pytest.raises(InputError, match=message):
        put_to_use(use, net, make_inputs(), make_labels())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("name", ["dfa", "sfdfa"])
def test_bad_feedback(name: str, value: float) -> None:
    net = make_network()
    rule = rule_of(name, net)
    rule.step(make_inputs(), make_labels())
    kept = [p.grad.clone() for p in net.parameters()]
    rule.feedback[0].matrix[1, 2] = value
    before = {k: v.clone() for k, v in rule.named_buffers()}
    with pytest.raises(DivergenceError, match=r"feedback\.0\.matrix of the rule holds NaN"):
        rule.step(make_inputs(), make_labels())
    assert all(map(torch.equal, kept, [p.grad for p in net.parameters()]))
    for key, value_then in before.items():
        now = rule.get_buffer(key)
        torch.testing.assert_close(now, value_then, rtol=0.0, atol=0.0, equal_nan=True)


def test_the_largest_weights_do_not_overflow() -> None:
    """An infinite square would make a neuron silent: single and double precision agree."""
    found = []
    for dtype in (torch.float32, torch.float64):
        net = make_network((6, 3), dtype=dtype)
        with torch.no_grad():
            net.readout.weight.fill_(1e16)
            net.readout.weight[::2] *= -0.5
        found.append(net(make_inputs()).counts())
    assert found[0].max() > 1
    np.testing.assert_array_equal(found[0], found[1])


BAD_INPUTS: dict[str, tuple[Any, str]] = {
    "tensor": (torch.rand(4, 6), r"is a Tensor; expected a threefactor.events.SpikeBatch \(for im"),
    "array": (np.zeros((4, 6)), r"the input is a ndarray; expected a .*SpikeBatch"),
    "list": ([[0.1], [0.2]], r"the input is a list; expected a .*SpikeBatch"),
    "nothing": (None, r"the input is a NoneType; expected a .*SpikeBatch"),
    "too many addresses": (
        make_inputs(size=7),
        r"the input has 7 addresses; this layer expects 6",
    ),
    "too few addresses": (make_inputs(size=5), r"the input has 5 addresses; this layer expects 6"),
    "no sample": (
        make_inputs()[:0],
        r"the batch holds no sample; give at least one, which may be empty",
    ),
}


@pytest.mark.parametrize("use", ["run", *events.RULES])
@pytest.mark.parametrize(("inputs", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_inputs(use: str, inputs: Any, message: str) -> None:
    net = make_network()
    with pytest.raises(InputError, match=message):
        put_to_use(use, net, inputs, make_labels())
    assert all(p.grad is None for p in net.parameters())


BAD_LABELS: dict[str, tuple[Any, str]] = {
    "too large": (
        torch.tensor([0, 1, 2, 3]),
        r"targets lie between 0 and 3; a network with 3 outputs knows classes 0 to 2",
    ),
    "negative": (torch.tensor([0, -1, 2, 0]), r"targets lie between -1 and 2"),
    "too few": (torch.zeros(3, dtype=torch.int64), r"shape \(3,\); .* shape \(4,\)"),
    "one-hot": (torch.eye(4, 3), r"targets have shape \(4, 3\); expected one class label"),
    "floats": (torch.zeros(4), r"targets are torch.float32; .*use targets.long\(\)"),
    "int32": (torch.zeros(4, dtype=torch.int32), r"targets are torch.int32; expected .*int64"),
    "array": (np.zeros(4, np.int64), r"targets are a ndarray; expected a torch.Tensor"),
    "list": ([0, 1, 2, 0], r"targets are a list; expected a torch.Tensor"),
}


@pytest.mark.parametrize("use", ["run", *events.RULES])
@pytest.mark.parametrize(("labels", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_labels(use: str, labels: Any, message: str) -> None:
    net = make_network()
    with pytest.raises(InputError, match=message):
        put_to_use(use, net, make_inputs(), labels)
    assert all(p.grad is None for p in net.parameters())


def test_layers_that_do_not_fit_each_other() -> None:
    common = {"tau_s": 0.02, "threshold": 0.012, "duration": 0.12}
    net = events.Network(events.Layer(6, 5, **common), events.Layer(4, 3, **common))
    with pytest.raises(InputError, match="the input has 5 addresses; this layer expects 4"):
        net(make_inputs())


BAD_MODULES: dict[str, tuple[Callable[[], Any], str]] = {
    "clocked network": (
        lambda: clocked.fc(4, (5,), 3),
        r"the network is a threefactor.clocked.*; expected one of threefactor.events, such as",
    ),
    "linear layer": (lambda: nn.Linear(4, 3), r"the network is a torch.nn.*Linear; expected one"),
    "layer alone": (
        lambda: events.Layer(4, 3, tau_s=0.1, threshold=0.2, duration=0.2),
        r"the network is a threefactor.events.layer.Layer; expected one of",
    ),
    "nothing": (lambda: None, r"the network is a .*NoneType; expected one of threefactor.events"),
    "no layers": (events.Network, r"the network's parts are \[\]"),
    "other layers": (
        lambda: events.Network(nn.Linear(4, 3)),
        r"parts are \['0'\], of which \['0'\] are not threefactor.events.Layer; build it of such",
    ),
}


@every_rule
@pytest.mark.parametrize(("make", "message"), BAD_MODULES.values(), ids=BAD_MODULES)
def test_bad_modules(name: str, make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        events.RULES[name](make())


# Settings of rules

BAD_SETTINGS: dict[str, tuple[str, dict[str, Any], str]] = {
    **{
        f"{rule}: {name} {value}": (rule, {name: value}, rf"{name} is {value}; give a number of at")
        for rule in events.RULES
        for name in ("rate_penalty", "rate_target")
        for value in (-1.0, nan, inf)
    },
    **{
        f"feedback_scale {value}": (
            "dfa",
            {"feedback_scale": value},
            rf"feedback_scale is {value}; give a number above 0",
        )
        for value in (0.0, -1.0, nan, inf)
    },
    **{
        f"feedback_lr {value}": (
            "sfdfa",
            {"feedback_lr": value},
            rf"feedback_lr is {value}; give a number of at least 0",
        )
        for value in (-1.0, nan, inf)
    },
}


@pytest.mark.parametrize(("name", "options", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        events.RULES[name](make_network(), **options)


UNKNOWN: dict[str, tuple[str, dict[str, Any], str]] = {
    **{
        f"local gradient of {rule}": (
            rule,
            {"local_gradient": "modifed"},
            r"unknown local gradient 'modifed'; did you mean 'modified'\? Known: exact, modified",
        )
        for rule in events.RULES
    },
    **{
        f"traces of {rule}": (
            rule,
            {"traces": "sumed"},
            r"unknown kind of traces 'sumed'; did you mean 'summed'\? Known: forward, summed",
        )
        for rule in ("dfa", "sfdfa")
    },
    "feedback optimiser": (
        "sfdfa",
        {"feedback_optimizer": "adamw"},
        r"unknown feedback optimiser 'adamw'; did you mean 'adam'\? Known: adam, sgd",
    ),
}


@pytest.mark.parametrize(("name", "options", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_names(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        events.RULES[name](make_network(), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (0.5, r"feedback_lr_change is 0.5; give a pair"),
        ([0.5], r"feedback_lr_change is \[0.5\]; give a pair"),
        ([1.5, 1e-3], r"feedback_lr_change\[0\] is 1.5; give a share between 0 and 1"),
        ([nan, 1e-3], r"feedback_lr_change\[0\] is nan"),
        ([0.5, -1e-3], r"feedback_lr_change\[1\] is -0.001"),
        ([0.5, "fast"], r"feedback_lr_change\[1\] is 'fast'"),
    ],
)
def test_bad_changes_of_the_feedback_rate(change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        events.SFDFA(make_network(), feedback_lr_change=change)


@pytest.mark.parametrize("name", ["dfa", "sfdfa"])
def test_first_spikes_have_no_eligibility_to_divide(name: str) -> None:
    loss = events.FirstSpike(0.05, 0.1)
    with pytest.raises(InputError, match="normalise_by_count is True and the loss reads first"):
        events.RULES[name](make_network(), loss=loss, normalise_by_count=True)


@pytest.mark.parametrize("value", [-1.0, nan, inf])
@pytest.mark.parametrize("name", ["true", "false"])
def test_bad_target_counts(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"{name} is {value}; give a number of spikes of at lea"):
        events.SpikeCount(**{name: value})


@every_rule
@pytest.mark.parametrize("value", [-0.1, 1.1, nan])
def test_bad_progress(name: str, value: float) -> None:
    rule = events.RULES[name](make_network())
    for good in (0.0, 0.5, 1.0):
        rule.set_progress(good)
    with pytest.raises(InputError, match=rf"progress is {value}; give a share between 0 and 1"):
        rule.set_progress(value)


@every_rule
def test_gradient_of_another_layout(name: str) -> None:
    """A gradient that the kernels cannot add to is refused, not silently replaced."""
    net = make_network(seed=3)
    net.lif1.weight.grad = torch.zeros(5, 6, dtype=torch.float64).t()
    with pytest.raises(InputError, match=r"weight.grad has the strides \(1, 6\)"):
        events.RULES[name](net).step(make_inputs(seed=13), make_labels())


# Right answers that look like bad input


def test_empty_batch_through_a_layer() -> None:
    """A layer without a rule maps no sample to no sample."""
    spikes = make_network()(make_inputs()[:0])
    assert len(spikes) == 0 and spikes.size == 3


def test_unsorted_spikes_are_sorted() -> None:
    net = make_network((6, 3), seed=2)
    inputs = make_inputs(seed=12)
    flipped = SpikeBatch.from_lists(
        [inputs.sample(b)[0][::-1] for b in range(4)],
        [inputs.sample(b)[1][::-1] for b in range(4)],
        6,
    )
    assert np.array_equal(net(inputs).times, net(flipped).times) and len(net(inputs).times) > 10


@pytest.mark.parametrize("later", [0.0, 1e-9, 5.0])
def test_inputs_at_or_after_the_end(later: float) -> None:
    net = make_network((6, 3), seed=2)
    late = np.full(3, net.readout.duration + later)
    assert len(net(SpikeBatch([0, 3], late, [0, 1, 2], 6)).times) == 0


# Refused with an error that helps

ODD: dict[str, Callable[[], Any]] = {
    "images without a pixel": lambda: events.latency_code(np.zeros((3, 0))),
    "sensor of four sizes": recorded("t", "x", sensor=(7, 1, 1, 9)),
    "sensor without sizes": recorded("t", "x", sensor=()),
    "hidden layers as a number": fc(4, 5, 3),
    "threshold in single precision": fc(thresholds=np.float32(nan)),
    "network of another kind": lambda: events.run(nn.Sequential(nn.Linear(6, 3)), make_inputs()),
    "a threshold without a square": fc(thresholds=1e-30),
}


def test_bfloat16_is_read_exactly() -> None:
    times = torch.tensor([0.1, 0.3]).bfloat16()
    assert SpikeBatch([0, 2], times, [0, 1], 4).times.tolist() == times.tolist()
    images = torch.tensor([[1.0, 0.0, 0.25]]).bfloat16()
    assert events.latency_code(images).addresses.tolist() == [0, 2]


def test_no_images_give_no_samples() -> None:
    batch = events.latency_code(np.zeros((0, 784)))
    assert (len(batch), batch.size) == (0, 784)


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_odd_arguments_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(InputError):
        make()


def test_network_of_another_dtype_than_the_rule() -> None:
    net = make_network(dtype=torch.float32)
    rule = rule_of("dfa", net)
    net.double()
    with pytest.raises(InputError):
        rule.step(make_inputs(), make_labels())


def test_loss_of_another_dtype() -> None:
    def loss(counts: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        return counts.sum(1).double(), counts.double()

    net = make_network(dtype=torch.float32, seed=3)
    rule_of("dfa", net, loss=loss).step(make_inputs(seed=13), make_labels())
