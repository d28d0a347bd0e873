"""NaN and infinity in weights, constants and feedback: refused at once, with nothing changed.

A neuron whose potential is NaN never fires, and the loss of the network stays finite.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.clocked_cases import (
    INPUTS,
    OUTPUTS,
    build,
    make_conv,
    make_data,
    make_network,
    make_pictures,
    make_residual,
    make_rule,
)
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor import clocked
from threefactor.clocked import kernels, products, verdicts
from threefactor.errors import DivergenceError, InputError

NAN, INF = float("nan"), float("inf")
VALUES = pytest.mark.parametrize("value", [NAN, INF, -INF])


def recurrent() -> nn.Module:
    return nn.Sequential(
        clocked.Linear(INPUTS, 6),
        clocked.Recurrent(clocked.LIF(), clocked.Linear(6, 6, bias=False)),
        clocked.Linear(6, OUTPUTS),
    )


def synaptic() -> nn.Module:
    neuron = clocked.CubaLIF(learn_leak=True, learn_synaptic_leak=True, learn_threshold=True)
    return nn.Sequential(clocked.Linear(INPUTS, 6), neuron, clocked.Linear(6, OUTPUTS))


def per_neuron() -> nn.Module:
    neuron = clocked.LIF(threshold=torch.linspace(0.5, 1.5, 6), reset="zero")
    return nn.Sequential(clocked.Linear(INPUTS, 6), neuron, nn.Linear(6, OUTPUTS))


class Tanh(clocked.Neuron):
    """A graded neuron of a user's own."""

    def advance(self, current: Tensor, noise: Tensor | None = None) -> Tensor:
        given = current if noise is None else current + noise
        kept = given if self.state is None else 0.5 * self.state[0] + given
        self.state = (kept,)
        return kept.tanh()

    def modulate(self, error: Tensor, state: tuple[Tensor, ...], gate: Tensor | float) -> Tensor:
        return error * gate * (1.0 - state[0].tanh().square())


def graded() -> nn.Module:
    return nn.Sequential(clocked.Linear(INPUTS, 6), Tanh(), clocked.Linear(6, OUTPUTS))


def adopted(neuron: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, 6), neuron(), nn.Linear(6, OUTPUTS))


def of_snntorch() -> nn.Module:
    snn = pytest.importorskip("snntorch")
    return adopted(lambda: snn.Leaky(0.6, init_hidden=True, spike_grad=snn.surrogate.atan()))


def of_spikingjelly() -> nn.Module:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    return adopted(lambda: neuron.LIFNode(v_reset=None))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "fc": lambda: make_network((6, 5), dtype=torch.float32),
    "fc in float64": make_network,
    "conv": lambda: make_conv().float(),
    "residual": lambda: make_residual().float(),
    "recurrent": recurrent,
    "synaptic": synaptic,
    "per neuron": per_neuron,
    "graded": graded,
    "snntorch": of_snntorch,
    "spikingjelly": of_spikingjelly,
}


def data_of(network: nn.Module) -> tuple[Tensor, Tensor]:
    dtype = next(network.parameters()).dtype
    pictures = any(isinstance(m, nn.Conv2d) for m in network.modules())
    return make_pictures(dtype=dtype) if pictures else make_data(dtype=dtype)


def everything(rule: Any) -> dict[str, Tensor]:
    """All that may not change when a step is refused."""
    network = rule.network
    named = {f"network.{k}": v for k, v in network.state_dict().items()}
    named |= {f"rule.{k}": v for k, v in rule.state_dict().items()}
    for name, p in [*network.named_parameters(), *rule.named_parameters(prefix="rule")]:
        named[f"{name}.grad"] = torch.zeros(0) if p.grad is None else p.grad
    return {name: value.clone() for name, value in named.items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value.nan_to_num(7.7), other[name].nan_to_num(7.7)), name


@VALUES
@pytest.mark.parametrize("kind", NETWORKS)
def test_one_bad_value_of_any_parameter_is_refused_and_named(kind: str, value: float) -> None:
    torch.manual_seed(3)
    network = NETWORKS[kind]()
    x, y = data_of(network)
    chain = "within-layers" if kind == "residual" else "none"
    rule = clocked.OPZO(
        network,
        input_shape=x.shape[2:],
        chain=chain,
        generator=torch.Generator().manual_seed(1),
    )
    rule.step(x, y)
    parameters = dict(network.named_parameters())
    assert sum(p.grad is not None for p in parameters.values()) >= 4
    for name, parameter in parameters.items():
        with torch.no_grad():
            kept = parameter.flatten()[-1].clone()
            parameter.view(-1)[-1] = value
        before = everything(rule)
        calls: list[Callable[[], object]] = [
            lambda: rule.step(x, y),
            lambda: rule.step(x[0], y, steps=3),
            lambda: rule.observe(x[0], y),
            lambda: rule.observe(x[0], None),
            lambda: clocked.run(network, x, input_shape=x.shape[2:]),
        ]
        named = name.rpartition(".")[2] if "raw_" in name else re.escape(f"{name!r} (1 of")
        for call in calls:
            rule.reset()
            with pytest.raises(DivergenceError, match=named):
                call()
            assert_same(everything(rule), before)
        with torch.no_grad():
            parameter.view(-1)[-1] = kept
    rule.reset()
    torch.manual_seed(1)
    assert rule.step(x, y).loss.isfinite()


@VALUES
@pytest.mark.parametrize("case", ["dfa", "dkp", "opzo", "opzo-two-point"])
def test_feedback_is_refused_and_named(case: str, value: float) -> None:
    network, rule = build(case, dtype=torch.float32)
    x, y = make_data(dtype=torch.float32)
    rule.step(x, y)
    rule.feedback[1].matrix.data[2, 3] = value
    before = everything(rule)
    for call in (lambda: rule.step(x, y), lambda: rule.observe(x[0], y)):
        with pytest.raises(DivergenceError, match=r"feedback\.1\.matrix holds .*1 of 15"):
            call()
        assert_same(everything(rule), before)
    clocked.run(network, x)  # which has no feedback


def test_a_read_out_of_local_learning_is_refused() -> None:
    network = make_network(dtype=torch.float32)
    rule = clocked.DFA(network, local_learning="learned", feedback_delay=1)
    with torch.no_grad():
        next(rule.parameters())[0, 0] = NAN
    with pytest.raises(DivergenceError, match="the rule's readouts"):
        rule.step(*make_data(dtype=torch.float32))


def test_an_update_in_mid_sequence_is_seen_before_the_next() -> None:
    network, rule = build("opzo", dtype=torch.float32)
    x, y = make_data(dtype=torch.float32)
    updates: list[int] = []

    def update() -> None:
        updates.append(1)
        if len(updates) == 2:
            network.linear2.weight.data[3] = NAN

    with pytest.raises(DivergenceError, match=r"lif2.*linear2\.weight' .6 of 30 values"):
        rule.step(x, y, after_step=update)
    assert len(updates) == 2
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_a_stream_has_to_begin_again_and_then_has_the_numbers_of_a_fresh_one() -> None:
    network, rule = build("dfa", dtype=torch.float32)
    other, fresh = build("dfa", dtype=torch.float32)
    x, y = make_data(dtype=torch.float32)
    rule.observe(x[0], y)
    good = {k: v.clone() for k, v in network.state_dict().items()}
    bad = {k: torch.full_like(v, NAN) if k == "linear1.bias" else v for k, v in good.items()}
    network.load_state_dict(bad)
    with pytest.raises(DivergenceError, match=r"linear1\.bias"):
        rule.observe(x[1], y)
    network.load_state_dict(good)
    with pytest.raises(InputError, match="failed half-way"):
        rule.observe(x[1], y)
    rule.reset()
    network.zero_grad()
    rule.step(x, y)
    fresh.step(x, y)
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad) and float(a.grad.abs().max()) > 0


def test_weights_of_inputs_that_are_always_zero_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse products leave zeros out, and dense ones turn NaN times zero into NaN."""
    calls: list[bool] = []
    real = products._sparse

    def sparse(*args: Any, **options: Any) -> Tensor | None:
        found = real(*args, **options)
        calls.append(found is not None)
        return found

    monkeypatch.setattr(products, "_sparse", sparse)
    network = clocked.fc(200, (160,), 3)
    x = torch.zeros(64, 200)
    x[:, :20] = 1.0
    y = torch.zeros(64, dtype=torch.int64)
    rule = clocked.DFA(network)
    rule.step(x.expand(2, 64, 200), y)
    assert any(calls) or not products.available()
    for value in (NAN, INF, -INF):
        with torch.no_grad():
            network.linear1.weight[5, 150] = value
        with pytest.raises(DivergenceError, match=r"linear1\.weight"):
            rule.step(x.expand(2, 64, 200), y)
        with torch.no_grad():
            network.linear1.weight[5, 150] = 0.0
    assert rule.step(x.expand(2, 64, 200), y).loss is not None


class Masked(nn.Module):
    """Leaves one class out, and one hidden neuron, by -infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.lif = clocked.Linear(INPUTS, 6), clocked.LIF()
        self.readout = clocked.Linear(6, OUTPUTS)
        self.input_shape = (INPUTS,)

    def forward(self, x: Tensor) -> Tensor:
        current = self.linear(x).masked_fill(torch.arange(6) == 4, -INF)
        return self.readout(self.lif(current)).masked_fill(torch.arange(OUTPUTS) == 1, -INF)


def test_minus_infinity_may_be_meant() -> None:
    torch.manual_seed(0)
    network = Masked().double()
    x, _ = make_data()
    y = torch.tensor([0, 2, 0, 2])
    rule = clocked.SpatialBP(network, loss=nn.CrossEntropyLoss())
    result = rule.step(x, y)
    # A loop over time, with the output cut from the hidden layer: the read-out's gradient.
    with torch.no_grad():
        trace, loss = torch.zeros(4, 6, dtype=torch.float64), 0.0
        network.lif.reset()
        grad = torch.zeros_like(network.readout.weight)
        for x_t in x:
            a = network.lif(network.linear(x_t).masked_fill(torch.arange(6) == 4, -INF))
            trace = 0.5 * trace + a
            kept = torch.tensor([0, 2])
            o = network.readout(a)[:, kept]
            loss += F.cross_entropy(o, y // 2) / len(x)
            error = (o.softmax(1) - F.one_hot(y // 2, 2)) / (4 * len(x))
            grad[kept] += error.t() @ trace
    assert float(trace.abs().max()) > 0 and not trace[:, 4].any()
    torch.testing.assert_close(result.loss, loss, rtol=1e-9, atol=0)
    torch.testing.assert_close(network.readout.weight.grad, grad, rtol=1e-9, atol=1e-12)
    assert 0.0 < result.firing_rates["lif"] < 1.0
    assert result.output[:, 1].eq(-INF).all()
    with torch.no_grad():
        network.readout.bias[1] = -INF  # a weight is not meant to be
    with pytest.raises(DivergenceError, match=r"readout\.bias"):
        rule.step(x, y)


def test_numbers_that_grow_too_large_are_refused_in_words() -> None:
    network, rule = build("dfa", dtype=torch.float32)
    with torch.no_grad():
        network.linear1.weight.fill_(3e38)
    x = torch.full((4, INPUTS), 3.0)
    with pytest.raises(DivergenceError, match=r"all parameters are finite.*outgrew torch\.float32"):
        rule.step(x, torch.tensor([0, 1, 2, 0]), steps=2)


def test_a_division_by_zero_in_a_computed_weight_is_refused() -> None:
    network = make_network(dtype=torch.float32)
    nn.utils.parametrizations.weight_norm(network.linear1)
    with torch.no_grad():
        network.linear1.parametrizations.weight.original1[2] = 0.0
    with pytest.raises(DivergenceError, match=r"lif1.*division by zero"):
        clocked.DFA(network).step(*make_data(dtype=torch.float32))


def test_an_error_that_a_loss_of_ones_own_makes_nan_is_refused() -> None:
    loss = clocked.from_autograd(lambda o, y: (o * 0).abs().sum(1).sqrt() + o.sum(1))
    network = make_network(dtype=torch.float32)
    rule = clocked.DFA(network, loss=loss)
    with pytest.raises(DivergenceError, match="the error of the loss holds NaN"):
        rule.step(*make_data(dtype=torch.float32))
    assert all(p.grad is None for p in network.parameters())


class Sentinel(clocked.DFA):
    """Keeps the best loss in a buffer, which begins at infinity."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.register_buffer("best", torch.tensor(INF))


def test_a_buffer_of_ones_own_rule_may_be_infinite_and_not_nan() -> None:
    rule = Sentinel(make_network(dtype=torch.float32))
    rule.step(*make_data(dtype=torch.float32))
    rule.best.fill_(NAN)
    with pytest.raises(DivergenceError, match="the rule's best holds NaN"):
        rule.step(*make_data(dtype=torch.float32))


def test_constants_of_other_libraries_are_refused() -> None:
    network = of_snntorch()
    rule = clocked.DFA(network, input_shape=(INPUTS,))
    x, y = make_data(dtype=torch.float32)
    rule.step(x, y)
    network[1].threshold.fill_(NAN)
    for call in (
        lambda: rule.step(x, y),
        lambda: clocked.run(network, x, input_shape=(INPUTS,)),
    ):
        with pytest.raises(DivergenceError, match="threshold of neuron layer '1' holds NaN"):
            call()


def test_settings_of_other_libraries_are_refused() -> None:
    network = of_spikingjelly()
    network[1].v_threshold = NAN
    with pytest.raises(InputError, match="v_threshold of neuron layer '1' is NaN"):
        clocked.DFA(network, input_shape=(INPUTS,))


def test_a_surrogate_that_is_nan_is_refused() -> None:
    snn = pytest.importorskip("snntorch")
    sigmoid = snn.surrogate.sigmoid(25)
    network = adopted(lambda: snn.Leaky(0.6, init_hidden=True, spike_grad=sigmoid))
    with torch.no_grad():
        network[0].bias[1] = -20.0
    x, y = make_data(dtype=torch.float32)
    for rule in (clocked.DFA, clocked.SpatialBP):
        with pytest.raises(
            DivergenceError, match=r"derivative of neuron layer '1', a Leaky, is NaN"
        ):
            rule(network, input_shape=(INPUTS,)).step(x, y)
    assert all(p.grad is None for p in network.parameters())


def test_a_network_without_values_yet_can_be_given_to_a_rule() -> None:
    network = make_network(dtype=torch.float32)
    values = {k: v.clone() for k, v in network.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(NAN)
    rule = make_rule("dfa", network)
    network.load_state_dict(values)
    other = make_network(dtype=torch.float32)
    other.load_state_dict(values)
    fresh = make_rule("dfa", other)
    data = make_data(dtype=torch.float32)
    assert rule.step(*data).loss == fresh.step(*data).loss


OVERFLOWS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "noise": ("opzo", {"noise_scale": 1e30}, {}, r"1e\+30 \(the noise scale\)"),
    "noise without feedback": ("zo-one-point", {"noise_scale": 1e25}, {}, r"the noise scale"),
    "read-outs": (
        "dfa",
        {"local_learning": "fixed", "readout_scale": 1e30},
        {},
        r"e\+29 \(the rule's readouts\.[01]\.",
    ),
    "activity": ("spatial-bp", {}, {"scale": 1e30}, r"1e\+30 \(the scale of layer 'lif1'\)"),
}


@pytest.mark.parametrize("call", ["step", "after step", "observe"])
@pytest.mark.parametrize(
    ("case", "options", "neurons", "largest"), OVERFLOWS.values(), ids=OVERFLOWS
)
def test_a_gradient_that_outgrows_the_precision_is_refused(
    case: str, options: dict[str, Any], neurons: dict[str, Any], largest: str, call: str
) -> None:
    """Potentials and outputs are finite, and so is the error of each output."""
    torch.manual_seed(3)
    network = make_network(dtype=torch.float32, **neurons)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    rule = make_rule(case, network, **options)
    x, y = make_data(dtype=torch.float32)
    before = everything(rule)
    calls: dict[str, Callable[[], object]] = {
        "step": lambda: rule.step(x, y),
        "after step": lambda: rule.step(x, y, after_step=lambda: 1 / 0),
        "observe": lambda: [rule.observe(x_t, y) for x_t in x],
    }
    message = r"gradient of '.*' holds NaN or infinity \(.*" + largest
    if call == "step":
        with pytest.raises(DivergenceError, match=message):
            calls[call]()
        assert_same(everything(rule), before)
        return
    with pytest.raises((DivergenceError, ZeroDivisionError)):  # a first step may be finite
        calls[call]()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_large_gradients_whose_sum_overflows_pass() -> None:
    network = clocked.fc(INPUTS, (60,), OUTPUTS)
    rule = clocked.DFA(network)
    rule.feedback[0].matrix[0] = 1e38
    rule.step(torch.rand(4, INPUTS), torch.zeros(4, dtype=torch.int64), steps=3)
    grad = network.linear1.weight.grad
    assert grad.isfinite().all() and not grad.sum().isfinite()


@pytest.mark.parametrize("size", [1e300, 1e-300, 1e-40])
def test_sizes_that_single_precision_does_not_have_are_refused(size: float) -> None:
    network = make_network(dtype=torch.float32)
    for make in (
        lambda: clocked.DFA(network, feedback_scale=size),
        lambda: clocked.DKP(network, feedback_scale=size),
        lambda: clocked.DFA(network, local_learning="fixed", local_scale=size),
        lambda: clocked.OPZO(network, local_learning="fixed", readout_scale=size),
        lambda: clocked.LIF(scale=size),
        lambda: clocked.LIF(surrogate_width=size),
        lambda: clocked.DFA(network, loss=nn.HuberLoss(delta=size)),
        lambda: clocked.DFA(network, loss=nn.SmoothL1Loss(beta=size)),
        lambda: clocked.DFA(
            network, loss=nn.BCEWithLogitsLoss(torch.full((3,), size, dtype=torch.float64))
        ),
    ):
        with pytest.raises(InputError, match=r"single precision takes for|give numbers of at"):
            make()
    for threshold in (size, torch.full((6,), size, dtype=torch.float64)):
        with pytest.raises(InputError, match="above 0 that single precision has"):
            clocked.LIF(threshold=threshold)
    with pytest.raises(InputError, match="noise scale is"):
        clocked.OPZO(network, noise_scale=size)
    clocked.LIF(leak=min(size, 1.0), dropout=min(size, 0.5))  # shares


@pytest.mark.parametrize("size", [1, 16, 513, 40_001])
@VALUES
def test_the_kernel_counts_only_what_is_finite(size: int, value: float) -> None:
    if not kernels.available():
        pytest.skip("the kernels were not built")
    u, s, current = torch.zeros(size), torch.zeros(size), torch.full((size,), 1.5)
    given = kernels.lif_activity(u, s, current, 0.5, 1.0, 1.0, None, None)
    assert given is not None and type(given[1]) is int and given[1] == size
    u.fill_(3.4e38)  # the largest values are finite
    s.zero_()
    given = kernels.lif_activity(u, s, current, 1.0, 1.0, 1.0, None, None)
    assert given is not None and type(given[1]) is int
    for at in {0, size // 2, size - 1}:
        u, s, spoilt = torch.zeros(size), torch.zeros(size), current.clone()
        spoilt[at] = value
        given = kernels.lif_activity(u, s, spoilt, 0.5, 1.0, 1.0, None, None)
        assert given is not None and isinstance(given[1], Tensor)
        assert int(given[1]) == size - (value != INF)


@pytest.mark.parametrize("way", ["step", "stream", "run"])
def test_a_device_is_asked_once_a_call(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does: values wait, those of the last time step in place of those before."""
    waited: list[int] = []
    real_gathered, real_read = verdicts.gathered, verdicts.read

    def finite(kind: object, values: Tensor, complain: Callable[[], None]) -> None:
        waiting = verdicts._gathering.get()
        assert waiting is not None
        waiting.values[kind] = values, complain

    def read() -> None:
        waiting = verdicts._gathering.get()
        waited.append(0 if waiting is None else len(waiting.values))
        real_read()

    monkeypatch.setattr(verdicts, "gathered", lambda device: real_gathered(torch.device("meta")))
    monkeypatch.setattr(verdicts, "finite", finite)
    monkeypatch.setattr(verdicts, "read", read)
    monkeypatch.setattr(kernels, "_library", None)
    network, rule = build("dfa", dtype=torch.float32)
    x, y = make_data(dtype=torch.float32)
    with torch.no_grad():
        network.linear2.bias[0] = NAN
    before = everything(rule)
    calls: dict[str, Callable[[], object]] = {
        "step": lambda: rule.step(x, y),
        "stream": lambda: rule.observe(x[0], y),
        "run": lambda: clocked.run(network, x),
    }
    with pytest.raises(DivergenceError, match=r"lif2.*linear2\.bias' .1 of 5 values"):
        calls[way]()
    assert_same(everything(rule), before)
    learners = len(list(network.parameters()))
    assert [n for n in waited if n] == [3 if way == "run" else 5 + learners]
