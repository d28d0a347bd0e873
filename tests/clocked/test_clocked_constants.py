"""Leak and threshold of neurons: one for a layer, one for each neuron, or learned by every rule."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from reference.clocked_cases import (
    BATCH,
    CASES,
    INPUTS,
    LOCAL_CASES,
    OUTPUTS,
    STEPS,
    assert_alive,
    assert_close,
    assert_slow,
    learned,
    make_data,
    make_network,
    make_rule,
    slow_outcome,
    strengthen,
)
from torch import Tensor, nn
from torch.nn.utils import parametrize

from threefactor import analysis, clocked
from threefactor.clocked import constants
from threefactor.errors import InputError

SIZES = (6, 5)
LEAKS = [torch.linspace(0.2, 0.9, 6).double(), torch.linspace(0.95, 0.3, 5).double()]
THRESHOLDS = [torch.linspace(0.6, 1.4, 6).double(), torch.linspace(1.2, 0.5, 5).double()]
ALPHAS = [torch.linspace(0.1, 0.7, 6).double(), torch.linspace(0.8, 0.2, 5).double()]
KINDS = ["spatial-bp", "dfa", "dkp", "zo-two-point", "zo-before", "opzo", "opzo-two-point"]


def network_of(kind: str, *, each: bool, reset: str = "subtract", learn: bool = True) -> Any:
    """Two hidden layers with constants that differ, all of them learned."""
    torch.manual_seed(1)
    network = make_network(SIZES)
    for i in range(2):
        given: dict[str, Any] = {
            "leak": LEAKS[i] if each else LEAKS[i].mean().item(),
            "threshold": THRESHOLDS[i] if each else THRESHOLDS[i].mean().item(),
        }
        options: dict[str, Any] = {"reset": reset, "learn_leak": learn, "learn_threshold": learn}
        if kind == "CubaLIF":
            given["synaptic_leak"] = ALPHAS[i] if each else ALPHAS[i].mean().item()
            options["learn_synaptic_leak"] = learn
        layer = getattr(clocked, kind)(**given, **options).double()
        for name, value in given.items():  # in double precision, which the parameter has now
            setattr(layer, name, value)
        network._modules[f"lif{i + 1}"] = layer
    return network


def slow_settings(network: clocked.Network, reset: str = "subtract") -> dict[str, Any]:
    """The constants of the layers for `slow.Model`."""
    layers = [network.lif1, network.lif2]
    found: dict[str, Any] = {"reset": reset}
    for name, key in (("leak", "leak"), ("threshold", "threshold"), ("synaptic_leak", "synaptic")):
        if hasattr(layers[0], name):
            values = [getattr(layer, name) for layer in layers]
            found[key] = [v.numpy() if isinstance(v, Tensor) else v for v in values]
    return found


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let numbers that layers learn stay in tensors, as on a GPU, which is not asked for them."""
    monkeypatch.setattr(constants, "_at_hand", lambda value: False)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
@pytest.mark.parametrize("case", KINDS)
@pytest.mark.usefixtures("elsewhere")
def test_every_rule_teaches_one_constant_that_stays_on_its_device(
    case: str, kind: str, reset: str
) -> None:
    test_every_rule_teaches_the_constants(case, kind, False, reset)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("each", [False, True], ids=["one", "each"])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
@pytest.mark.parametrize("case", KINDS)
def test_every_rule_teaches_the_constants(case: str, kind: str, each: bool, reset: str) -> None:
    network = network_of(kind, each=each, reset=reset)
    rule = make_rule(case, network, trace_decay="per-neuron" if each else None)
    wanted = slow_outcome(case, network, rule, **slow_settings(network, reset))
    assert_alive(rule.step(*make_data()))
    assert_slow(network, rule, wanted)
    for i, layer in enumerate((network.lif1, network.lif2)):
        natural = {
            "leak": (wanted.leak_grads[i], lambda v: v * (1 - v)),
            "threshold": (wanted.threshold_grads[i], lambda v: v),
            "synaptic_leak": (wanted.synaptic_grads[i], lambda v: v * (1 - v)),
        }
        for name in layer.learned:
            grad, slope = natural[name.removeprefix("raw_")]
            value = getattr(layer, name.removeprefix("raw_"))
            factor = slope(torch.as_tensor(value, dtype=torch.float64))
            by_raw = torch.as_tensor(grad) * factor
            assert_close(getattr(layer, name).grad, by_raw if each else by_raw.sum())
        assert len(layer.learned) == (2 if kind == "LIF" else 3)


class Surrogate(torch.autograd.Function):
    """A spike whose derivative is the surrogate's, for backpropagation through time."""

    @staticmethod
    def forward(ctx: Any, over: Tensor) -> Tensor:
        ctx.save_for_backward(over)
        return (over >= 0).to(over)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> Tensor:
        (over,) = ctx.saved_tensors
        s = torch.sigmoid(over / 0.25)
        return error * s * (1 - s) / 0.25


def through_time(network: Any, x: Tensor, y: Tensor, reset: str) -> tuple[dict[str, Tensor], float]:
    """Gradients of one hidden layer by backpropagation through time, with spikes held in resets."""
    layer = network.lif1
    values = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}
    leak, threshold = values["lif1.raw_leak"].sigmoid(), values["lif1.raw_threshold"].exp()
    alpha = (
        values["lif1.raw_synaptic_leak"].sigmoid() if "raw_synaptic_leak" in layer.learned else 0
    )
    u = s = current = torch.zeros(BATCH, 6, dtype=x.dtype)
    total, spikes = torch.zeros((), dtype=x.dtype), 0.0
    loss = clocked.CrossEntropyMSE()
    for x_t in x:
        fresh = x_t @ values["linear1.weight"].t() + values["linear1.bias"]
        current = alpha * current + fresh
        held = s.detach()
        kept = u * (1 - held) if reset == "zero" else u - threshold * held
        u = leak * kept + current
        s = Surrogate.apply(u - threshold)
        output = s @ values["readout.weight"].t() + values["readout.bias"]
        errors = loss(output.detach(), y)[1] / (BATCH * len(x))
        total = total + (output * errors).sum()
        spikes += s.sum().item()
    total.backward()
    return {n: v.grad for n, v in values.items()}, spikes


def one_hidden(kind: str, each: bool, reset: str) -> clocked.Network:
    torch.manual_seed(2)
    network = make_network((6,))
    network._modules["lif1"] = network_of(kind, each=each, reset=reset).lif1
    return network


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("each", [False, True], ids=["one", "each"])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_constants_learn_as_through_time(kind: str, each: bool, reset: str) -> None:
    """One hidden layer: no error passes another layer, so that all of it is exact."""
    network = one_hidden(kind, each, reset)
    x, y = make_data(steps=8)
    rule = clocked.SpatialBP(network, trace_decay="per-neuron" if each else None)
    rule.step(x, y)
    wanted, spikes = through_time(network, x, y, reset)
    assert spikes > 20
    for name in network.lif1.learned:
        assert_close(getattr(network.lif1, name).grad, wanted[f"lif1.{name}"])


@pytest.mark.parametrize("each", [False, True], ids=["one", "each"])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_neurons_that_never_spike_learn_all_as_through_time(kind: str, each: bool) -> None:
    network = one_hidden(kind, each, "subtract")
    x, y = make_data(steps=8)
    with torch.no_grad():
        network.linear1.weight.mul_(0.05)
        network.linear1.bias.mul_(0.05)
    rule = clocked.SpatialBP(network, trace_decay="per-neuron" if each else None)
    rule.step(x, y)
    wanted, spikes = through_time(network, x, y, "subtract")
    assert spikes == 0
    for name in ("linear1.weight", *(f"lif1.{n}" for n in network.lif1.learned)):
        assert_close(network.get_parameter(name).grad, wanted[name])


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_within_a_step_as_by_finite_differences(kind: str, reset: str) -> None:
    """Used on its own: the derivative of u - V by each constant, the state before held."""
    layer = network_of(kind, each=True, reset=reset).lif1
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.rand(BATCH, 6, generator=generator, dtype=torch.float64)

    state = [draw(), (draw() > 0.5).double()] + [draw()] * (kind == "CubaLIF")
    current, error = draw(), draw()

    def over() -> Tensor:
        layer.state = tuple(part.clone() for part in state)
        layer.advance(current)
        return layer.state[0] - layer.threshold

    u = over()
    layer.state = tuple(part.clone() for part in state)
    layer(current).backward(error)
    s = torch.sigmoid(u / 0.25)
    delta = error * s * (1 - s) / 0.25
    for name in layer.learned:
        raw = getattr(layer, name)
        with torch.no_grad():
            raw.add_(1e-6)
            up = over()
            raw.sub_(2e-6)
            down = over()
            raw.add_(1e-6)
        slope = (up - down) / 2e-6
        torch.testing.assert_close(raw.grad, (delta * slope).sum(0), rtol=1e-6, atol=1e-9)
        assert raw.grad.abs().max() > 0


@pytest.mark.parametrize("case", KINDS)
def test_a_stream_is_a_sequence(case: str) -> None:
    x, y = make_data()
    found = []
    for stream in (False, True):
        network = network_of("CubaLIF", each=True)
        rule = make_rule(case, network, trace_decay="per-neuron")
        if stream:
            for x_t in x:
                rule.observe(x_t, y, steps=STEPS)
                clocked.run(network, x, steps=None)  # others may use the network between
        else:
            rule.step(x, y)
        found.append(learned(rule))
    for name, value in found[0].items():
        assert_close(found[1][name], value)


def test_steps_without_a_label_advance_the_eligibility() -> None:
    x, y = make_data()
    network = network_of("LIF", each=False)
    rule = clocked.DFA(network)
    rule.step(x, [None] * (STEPS - 1) + [y])
    last = network.lif1.raw_leak.grad.clone()
    network.zero_grad()
    rule.step(x, [y] * STEPS)
    assert last != 0 and last != network.lif1.raw_leak.grad
    network.zero_grad()
    rule.step(x[-1:], y)
    assert last != network.lif1.raw_leak.grad / STEPS


def test_a_failed_step_leaves_gradients_as_they_were() -> None:
    x, y = make_data()
    network = network_of("CubaLIF", each=True)
    rule = clocked.OPZO(network, trace_decay="per-neuron")
    rule.step(x, y)
    before = learned(rule)
    calls = []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("in the middle")

    handle = network.readout.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        rule.step(x, y)
    handle.remove()
    for name, value in learned(rule).items():
        assert torch.equal(value, before[name]), name
    fresh = network_of("CubaLIF", each=True)
    assert not network.lif1.state and not any(p.eligible for p in rule._session.probes)
    network.zero_grad()
    rule = clocked.SpatialBP(network, trace_decay="per-neuron")
    rule.step(x, y)
    other = clocked.SpatialBP(fresh, trace_decay="per-neuron")
    other.step(x, y)
    assert torch.equal(network.lif1.raw_leak.grad, fresh.lif1.raw_leak.grad)


def test_streams_of_two_rules_take_turns() -> None:
    x, y = make_data()
    network, alone = network_of("LIF", each=False), network_of("LIF", each=False)
    one, two = clocked.DFA(network), clocked.SpatialBP(network)
    only = clocked.DFA(alone)
    only.load_state_dict(one.state_dict())
    for x_t in x:
        network.zero_grad()
        one.observe(x_t, y)
        mixed = network.lif2.raw_leak.grad.clone()
        two.observe(x_t.flip(0), y)
        alone.zero_grad()
        only.observe(x_t, y)
        assert torch.equal(alone.lif2.raw_leak.grad, mixed)


@pytest.mark.parametrize("case", KINDS)
def test_constants_learn_where_all_weights_are_frozen(case: str) -> None:
    whole = network_of("LIF", each=False)
    make_rule(case, whole).step(*make_data())
    network = network_of("LIF", each=False)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("raw" in name)
    make_rule(case, network).step(*make_data())
    for layer in ("lif1", "lif2"):
        for name in ("raw_leak", "raw_threshold"):
            wanted = whole.get_submodule(layer).get_parameter(name).grad
            assert_close(network.get_submodule(layer).get_parameter(name).grad, wanted)
    assert all(p.grad is None for n, p in network.named_parameters() if "raw" not in n)


@pytest.mark.parametrize("case", ["spatial-bp", "dfa"])
def test_parameters_that_are_frozen_have_hooks_or_are_computed(case: str) -> None:
    whole = network_of("LIF", each=False)
    make_rule(case, whole).step(*make_data())
    wanted = whole.lif1.raw_leak.grad
    network = network_of("LIF", each=False)
    network.lif2.raw_leak.requires_grad_(False)
    network.lif1.raw_leak.register_hook(lambda grad: 3 * grad)
    make_rule(case, network).step(*make_data())
    assert network.lif2.raw_leak.grad is None
    assert_close(network.lif1.raw_leak.grad, 3 * wanted)

    class Double(nn.Module):
        def forward(self, half: Tensor) -> Tensor:
            return 2 * half

        def right_inverse(self, value: Tensor) -> Tensor:
            return value / 2

    network = network_of("LIF", each=False)
    parametrize.register_parametrization(network.lif1, "raw_leak", Double())
    rule = make_rule(case, network)
    rule.step(*make_data())
    assert_close(network.lif1.parametrizations.raw_leak.original.grad, 2 * wanted)
    assert "lif1.parametrizations.raw_leak.original" in rule.describe()


@pytest.mark.parametrize("case", ["spatial-bp", "opzo"])
def test_an_optimiser_moves_them_and_the_traces_follow(case: str) -> None:
    network = network_of("LIF", each=False)
    rule = make_rule(case, network)
    optimizer = torch.optim.SGD(network.parameters(), lr=5.0)
    before = network.lif1.leak, network.lif1.threshold
    for _ in range(3):
        optimizer.zero_grad()
        rule.step(*make_data())
        optimizer.step()
    assert network.lif1.leak != before[0] and network.lif1.threshold != before[1]
    assert 0.0 < network.lif1.leak < 1.0 and network.lif1.threshold > 0.0
    network.zero_grad()
    rule.step(*make_data())
    assert rule.trace_decays["linear1"] == network.lif1.leak
    assert rule.trace_decays["readout"] == network.lif2.leak
    if case == "spatial-bp":
        grad = network.linear1.weight.grad.clone()
        network.zero_grad()
        fresh = clocked.SpatialBP(network)
        wanted = slow_outcome("spatial-bp", network, fresh, **slow_settings(network))
        assert_close(grad, wanted.weight_grads[0])


WAYS: dict[str, tuple[dict[str, Any], str]] = {
    "sequence": ({}, "sequence"),
    "constant input": ({}, "constant"),
    "constant, then another": ({}, "both"),
    "stream": ({}, "stream"),
    "local learning": (LOCAL_CASES["learned"], "sequence"),
    "late errors": (
        {"feedback_delay": 2, "feedback_meets": "kept-eligibility", "late_errors": "delivered"},
        "both",
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_numbers_on_a_device_are_those_at_hand(
    kind: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In traces and potentials, with constant inputs, too, which traces of numbers shorten."""
    options, how = WAYS[way]
    found = []
    for at_hand in (True, False):
        monkeypatch.setattr(constants, "_at_hand", lambda value, at_hand=at_hand: at_hand)
        network = network_of(kind, each=False)
        torch.manual_seed(4)
        rule = clocked.OPZO(network, noise_scale=0.2, **options)
        x, y = make_data(steps=6)
        torch.manual_seed(5)
        if how == "sequence":
            results = [rule.step(x, y)]
        elif how == "constant":
            results = [rule.step(x[0], y, steps=6)]
        elif how == "both":
            results = [rule.step([x[0], x[0], x[0], *x[3:]], y)]
        else:
            results = [rule.observe(x_t, y) for x_t in x]
        decays = list(rule.trace_decays.values())
        assert all(isinstance(decay, float) is at_hand for decay in decays)
        grads = {name: p.grad for name, p in network.named_parameters()}
        found.append((results[-1], grads, dict(rule.named_buffers())))
    (result, grads, buffers), (other, other_grads, other_buffers) = found
    assert_alive(result)
    assert torch.allclose(result.output, other.output, rtol=1e-12, atol=1e-12)
    for name, grad in grads.items():
        assert_close(other_grads[name], grad)
        assert float(grad.abs().max()) > 0, name
    for name, value in buffers.items():
        assert_close(other_buffers[name], value)


@pytest.mark.usefixtures("elsewhere")
def test_a_number_on_a_device_is_told_and_refused_as_any() -> None:
    network = network_of("CubaLIF", each=False)
    rule = make_rule("opzo", network)
    assert "0.55 a step, after a first trace by 0.4" in rule.describe()
    x, y = make_data()
    with torch.no_grad():
        network.lif2.raw_threshold.fill_(float("nan"))
    with pytest.raises(InputError, match="raw_threshold of layer 'lif2' holds NaN or infinity"):
        rule.step(x, y)
    assert isinstance(network.lif1.leak, float)


def test_one_leak_for_a_learned_layer_is_a_float_and_kernels_are_in_use() -> None:
    fixed, taught = clocked.LIF(0.5, 1.0), clocked.LIF(0.5, 1.0, learn_leak=True)
    x = torch.randn(6, 4, 9)
    with torch.no_grad():
        for x_t in x:
            assert torch.equal(fixed(x_t), taught(x_t))
    assert isinstance(taught.leak, float) and taught.leak == 0.5
    assert torch.equal(fixed.state[0], taught.state[0])


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_neurons_with_constants_of_their_own_are_layers_of_one(kind: str, reset: str) -> None:
    layer = network_of(kind, each=True, reset=reset, learn=False).lif1
    x = torch.randn(7, BATCH, 6, dtype=torch.float64).add_(0.5)
    whole = torch.stack([layer(x_t) for x_t in x])
    assert 0.1 < whole.mean() < 0.9
    for i in range(6):
        options = {"synaptic_leak": ALPHAS[0][i].item()} if kind == "CubaLIF" else {}
        alone = getattr(clocked, kind)(
            LEAKS[0][i].item(), threshold=THRESHOLDS[0][i].item(), reset=reset, **options
        )
        single = torch.stack([alone(x_t[:, i : i + 1]) for x_t in x])
        assert torch.equal(whole[..., i : i + 1], single)
    buffers = {"leak_values", "threshold_values"}
    assert set(layer.state_dict()) == buffers | (
        {"synaptic_leak_values"} if kind != "LIF" else set()
    )


def test_values_of_channels_reach_all_pixels() -> None:
    leak, threshold = torch.tensor([0.2, 0.9]), torch.tensor([1.0, 0.5])
    layer = clocked.LIF(leak, threshold)
    spread = clocked.LIF(
        leak.view(2, 1, 1).expand(2, 3, 2).clone(), threshold.view(2, 1, 1).clone()
    )
    x = torch.randn(6, 4, 2, 3, 2) + 0.4
    for x_t in x:
        assert torch.equal(layer(x_t), spread(x_t))
    first, second = clocked.LIF(0.2, 1.0), clocked.LIF(0.9, 0.5)
    layer.reset()
    for x_t in x:
        parts = torch.stack([first(x_t[:, 0].contiguous()), second(x_t[:, 1].contiguous())], 1)
        assert torch.equal(layer(x_t), parts)


@pytest.mark.parametrize("shape", [(3,), (1, 2), (2, 3, 2, 1)])
def test_values_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    layer = clocked.LIF(torch.full(shape, 0.5).mul_(torch.rand(shape)))
    with pytest.raises(InputError, match=r"leak has shape .*the neurons have \(2, 3, 2\)"):
        layer(torch.zeros(4, 2, 3, 2))
    assert layer.state is None or not layer.state[0].any()


def test_neurons_that_differ_need_a_choice() -> None:
    network = network_of("LIF", each=True, learn=False)
    with pytest.raises(
        InputError, match=r"neurons of layer 'lif1' differ in their leak.*per-neuron"
    ):
        clocked.DFA(network)
    rule = clocked.DFA(network, trace_decay=0.5)  # an approximation that the user asks for
    wanted = slow_outcome("dfa", network, rule, **slow_settings(network), trace_decays=[0.5] * 3)
    rule.step(*make_data())
    assert_slow(network, rule, wanted)
    same = make_network(SIZES)
    same.lif1.leak = torch.full((6,), 0.5).double()  # one leak, written six times
    assert clocked.DFA(same).trace_decays["linear1"] == 0.5
    taught = make_network(SIZES)
    taught._modules["lif1"] = clocked.LIF(torch.full((6,), 0.5), learn_leak=True).double()
    with pytest.raises(InputError, match=r"may come to differ"):
        clocked.DFA(taught)


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_an_eligibility_for_each_weight_with_a_constant_input(kind: str) -> None:
    x, y = make_data()
    grads = []
    for way in ("constant", "sequence", "half"):
        network = network_of(kind, each=True, learn=False)
        rule = clocked.SpatialBP(network, trace_decay="per-neuron")
        if way == "constant":
            rule.step(x[0], y, steps=STEPS)
        elif way == "sequence":
            rule.step(x[:1].repeat(STEPS, 1, 1), y)
        else:  # the first layer stops to see the constant input in mid-sequence
            calls = iter(range(STEPS))
            network.linear1.register_forward_pre_hook(
                lambda _, args, calls=calls: (args[0].clone(),) if next(calls) >= 2 else None
            )
            rule.step(x[0], y, steps=STEPS)
        grads.append([p.grad for p in network.parameters()])
    for one, two, three in zip(*grads, strict=True):
        assert_close(two, one)
        assert_close(three, one)


def test_what_cannot_keep_an_eligibility_for_each_weight() -> None:
    def conv() -> clocked.Network:
        layer = clocked.LIF(torch.tensor([0.2, 0.9]))
        return nn.Sequential(clocked.Conv2d(1, 2, 3), layer, nn.Flatten(), clocked.Linear(8, 3))

    with pytest.raises(InputError, match=r"behind layer '0', a Conv2d.*only linear layers"):
        clocked.DFA(conv(), input_shape=(1, 4, 4), trace_decay="per-neuron")
    network = conv()
    given = {"0": 0.5, "3": "per-neuron"}  # the read-out's trace has a decay for each input
    rule = clocked.SpatialBP(network, input_shape=(1, 4, 4), trace_decay=given)
    rule.step(torch.rand(2, 1, 4, 4), torch.tensor([0, 2]), steps=3)
    assert rule.trace_decays["3"].tolist() == pytest.approx([0.2] * 4 + [0.9] * 4)

    mixed = nn.Sequential(
        clocked.Linear(4, 6), nn.Unflatten(1, (2, 3)), nn.MaxPool1d(3), nn.Flatten(),
        clocked.LIF(torch.tensor([0.2, 0.9])), clocked.Linear(2, 3),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"layer '4' differ.*synapse layer '0' may mix them"):
        clocked.DFA(mixed, input_shape=(4,), trace_decay="per-neuron")
    later = make_network(SIZES)
    rule = clocked.DFA(later, trace_decay="per-neuron")
    assert rule.trace_decays["linear1"] == 0.5  # nothing differs yet
    later.lif1.leak = LEAKS[0]
    with pytest.raises(InputError, match="build the rule again"):
        rule.step(*make_data())


def test_branches_with_learned_leaks_need_a_number() -> None:
    class Fork(nn.Module):
        input_shape = (INPUTS,)

        def __init__(self) -> None:
            super().__init__()
            self.linear = clocked.Linear(INPUTS, 6)
            self.a, self.b = clocked.LIF(learn_leak=True), clocked.LIF()
            self.readout = clocked.Linear(6, OUTPUTS)

        def forward(self, x: Tensor) -> Tensor:
            current = self.linear(x)
            return self.readout(self.a(current) + self.b(current))

    with pytest.raises(InputError, match=r"'linear' .*'a', 'b', may come to differ"):
        clocked.DFA(Fork())
    network = Fork()
    rule = clocked.DFA(network, trace_decay=0.5)
    rule.step(torch.randn(BATCH, INPUTS), torch.arange(BATCH) % OUTPUTS, steps=4)
    assert network.a.raw_leak.grad != 0


@pytest.mark.parametrize("each", [False, True], ids=["one", "each"])
@pytest.mark.parametrize("learn", [False, True], ids=["fixed", "learned"])
def test_constants_are_saved_copied_and_moved(learn: bool, each: bool) -> None:
    network = network_of("CubaLIF", each=each, learn=learn)
    x, _ = make_data()
    wanted = clocked.run(network, x).output
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(clocked.run(twin, x).output, wanted)
    other = make_network(SIZES)
    for name, value in (("lif1", 6), ("lif2", 5)):
        start = torch.full((value,), 0.5) if each else 0.5
        options = dict.fromkeys(("learn_leak", "learn_threshold", "learn_synaptic_leak"), learn)
        layer = clocked.CubaLIF(start, start, start, **options).double()
        other._modules[name] = layer
    if not learn and not each:  # numbers are settings, as they always were
        assert set(other.state_dict()) == set(make_network(SIZES).state_dict())
        return
    other.load_state_dict(network.state_dict())
    assert torch.equal(clocked.run(other, x).output, wanted)
    assert network.float().lif1.leak is not None
    clocked.run(network, x.float())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: clocked.LIF(0.0, learn_leak=True),
            r"leak is 0; with learn_leak, .*more than 0",
        ),
        (lambda: clocked.LIF(1.0, learn_leak=True), r"leak is 1; with learn_leak"),
        (
            lambda: clocked.LIF(torch.tensor([0.5, 1.2])),
            r"leak is a tensor \(2,\) from 0\.5 to 1\.2",
        ),
        (lambda: clocked.LIF(torch.tensor([0.5, float("nan")])), "leak is a tensor"),
        (
            lambda: clocked.LIF(threshold=torch.tensor([0.5, 0.0])),
            r"threshold is a tensor.*above 0",
        ),
        (lambda: clocked.LIF(torch.tensor([1, 0])), r"of torch\.int64; give a floating-point"),
        (lambda: clocked.LIF(torch.zeros(0)), r"leak is a tensor \(0,\)"),
        (lambda: clocked.CubaLIF(synaptic_leak=1.5), r"synaptic_leak is 1\.5"),
        (lambda: clocked.LIF("0.5"), "leak is '0.5'; give a number"),
    ],
)
def test_bad_constants(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_constant_that_learns_is_set_by_its_value() -> None:
    layer = network_of("LIF", each=False).lif1
    layer.leak, layer.threshold = 0.25, torch.tensor(1.5)
    assert layer.leak == pytest.approx(0.25) and layer.threshold == pytest.approx(1.5)
    for bad in (1.0, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"with learn_leak, give more than 0 and less than 1"):
            layer.leak = bad
    assert layer.leak == pytest.approx(0.25)


def test_a_parameter_that_became_nan_is_refused() -> None:
    network = network_of("LIF", each=False)
    rule = clocked.DFA(network)
    with torch.no_grad():
        network.lif1.raw_leak.fill_(float("nan"))
    with pytest.raises(InputError, match="raw_leak of layer 'lif1' holds NaN"):
        rule.step(*make_data())


class Slope(clocked.Neuron):
    """A graded neuron of a user's own that learns its gain: tanh of g u, u as LIF without reset."""

    learned = ("gain",)

    def __init__(self) -> None:
        super().__init__()
        self.leak = 0.5
        self.gain = nn.Parameter(torch.tensor(1.5))

    def advance(self, current: Tensor, noise: Tensor | None = None) -> Tensor:
        before = torch.zeros_like(current) if self.state is None else self.state[0]
        u = self.leak * before + current
        self.state = (u if noise is None else u + noise,)
        return torch.tanh(self.gain.detach() * self.state[0])

    def modulate(self, error: Tensor, state: tuple[Tensor, ...], gate: Tensor | float) -> Tensor:
        gain = self.gain.detach()
        return error * gate * gain * (1 - torch.tanh(gain * state[0]) ** 2)

    def eligibilities(self, before: dict[str, Tensor], current: Tensor) -> dict[str, Tensor]:
        # d tanh(g u) / dg is the derivative by u times u / g
        u = torch.zeros_like(current) if self.state is None else self.state[0]
        return {"gain": (self.leak * u + current) / self.gain.detach()}


def test_a_neuron_of_ones_own_learns_what_it_says() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(clocked.Linear(INPUTS, 6), Slope(), clocked.Linear(6, OUTPUTS)).double()
    strengthen(network, 0.7)
    x, y = make_data()
    rule = clocked.SpatialBP(network, input_shape=(INPUTS,))
    rule.step(x, y)
    gain = network[1].gain.detach().clone().requires_grad_()
    u, total = torch.zeros(BATCH, 6, dtype=torch.float64), 0.0
    for x_t in x:
        u = 0.5 * u + network[0](x_t).detach()
        output = network[2](torch.tanh(gain * u))
        error = clocked.CrossEntropyMSE()(output.detach(), y)[1] / (BATCH * STEPS)
        total = total + (output * error).sum()
    total.backward()
    assert_close(network[1].gain.grad, gain.grad)


def test_every_case_teaches_something() -> None:
    for case in CASES:
        network = network_of("LIF", each=False)
        make_rule(case, network).step(*make_data())
        for layer in (network.lif1, network.lif2):
            assert layer.raw_leak.grad != 0 and layer.raw_threshold.grad != 0


def test_what_they_add_to_training_is_counted() -> None:
    network = network_of("LIF", each=True)
    added = analysis.training_operations(clocked.DFA(network, trace_decay="per-neuron")).added
    plain = analysis.training_operations(clocked.DFA(make_network(SIZES))).added
    assert plain.local == 11 and added.local == 11 + 2 * 2 * 11
    assert plain.traces == 7 + 6 + 5 and added.traces == 7 * 6 + 6 * 5 + 5
