"""Recurrent layers: gradients of all rules, state, what is refused, what measures say of them."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from reference import clocked as slow
from reference.clocked_cases import (
    BATCH,
    CASES,
    INPUTS,
    OUTPUTS,
    STEPS,
    assert_alive,
    assert_same,
    build,
    learned,
    make_data,
    make_network,
    make_rule,
    matrices,
    replay_noise,
    strengthen,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from threefactor import analysis, clocked
from threefactor.errors import InputError

every_case = pytest.mark.parametrize("case", CASES)
every_rule = pytest.mark.parametrize(
    "case", ["spatial-bp", "dfa", "dkp", "zo-one-point", "zo-two-point", "opzo", "opzo-two-point"]
)


def close(actual: Any, expected: Any, name: str) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = np.abs(expected).max()
    assert scale > 0, f"{name}: the reference is all zero"
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12 * scale, err_msg=name)


def recurrent_layers(network: nn.Module) -> list[clocked.Recurrent]:
    return [m for m in network.modules() if isinstance(m, clocked.Recurrent)]


def slow_model(network: clocked.Network, **settings: Any) -> slow.Model:
    layers = [m for m in network if isinstance(m, clocked.Linear)]
    back = [
        m.synapse.weight.detach().numpy().copy() if isinstance(m, clocked.Recurrent) else None
        for m in network
        if not isinstance(m, clocked.Linear)
    ]
    return slow.Model(
        [layer.weight.detach().numpy().copy() for layer in layers],
        [layer.bias.detach().numpy().copy() for layer in layers],
        recurrent=back,
        **settings,
    )


def record_masks(network: nn.Module) -> list[Any]:
    """The factor of each layer's activity, as it is drawn."""
    masks: list[Any] = []

    def keep(place: int, neuron: clocked.LIF, output: Tensor) -> None:
        gate = torch.full_like(output, neuron.scale) if neuron.gate is None else neuron.gate
        masks[place] = gate.clone().numpy()

    for i, m in enumerate(m for m in network.modules() if isinstance(m, clocked.LIF)):
        masks.append(None)
        m.register_forward_hook(lambda m, _, out, i=i: keep(i, m, out))
    return masks


SETTINGS: dict[str, dict[str, Any]] = {
    "both": {"recurrent": True},
    "first": {"recurrent": [True, False]},
    "last": {"recurrent": [False, True], "dropout": 0.3, "scale": 1.3},
    "reset to zero": {"recurrent": True, "reset": "zero", "leak": 0.8},
    "leaks that differ": {"recurrent": True, "leaks": [0.3, 0.9]},
}


@pytest.mark.parametrize("which", SETTINGS)
@pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])
@every_case
def test_gradients_equal_the_formulas(case: str, static: bool, which: str) -> None:
    options = dict(SETTINGS[which])
    leaks = options.pop("leaks", None)
    network, rule = build(case, **options)
    if leaks is not None:
        for layer, leak in zip(recurrent_layers(network), leaks, strict=True):
            layer.neuron.leak = leak
    x, y = make_data()
    if static:
        x = x[:1].expand(STEPS, -1, -1)
    kept = {k: options[k] for k in ("reset", "leak") if k in options}
    if leaks is not None:
        kept["leak"] = leaks
    model, masks = slow_model(network, **kept), record_masks(network)
    feedback = [b.detach().t().numpy().copy() for b in matrices(rule)]
    name, given = CASES[case]
    noise = None
    if "noise_scale" in given:
        sizes = [len(b) for b in model.biases[:-1]]
        noise = [[z.numpy() for z in step] for step in replay_noise(sizes, STEPS, given)]

    result = rule.step(x[0], y, steps=STEPS) if static else rule.step(x, y)

    assert_alive(result)
    expected = slow.train(
        name, model, x.numpy(), y.numpy(), masks, noise=noise, feedback=feedback, **given
    )
    close(result.loss, expected.loss, "loss")
    close(result.output, expected.output, "output")
    close(list(result.firing_rates.values()), expected.rates, "rates")
    for i, layer in enumerate(m for m in network if isinstance(m, clocked.Linear)):
        close(layer.weight.grad, expected.weight_grads[i], f"weight {i}")
        close(layer.bias.grad, expected.bias_grads[i], f"bias {i}")
    for i, layer in enumerate(m for m in network if not isinstance(m, clocked.Linear)):
        if isinstance(layer, clocked.Recurrent):
            close(layer.synapse.weight.grad, expected.recurrent_grads[i], f"recurrent {i}")
    for i, b in enumerate(matrices(rule)):
        close(b.detach().t(), expected.feedback[i], f"feedback {i}")
        if b.requires_grad:
            close(b.grad.t(), expected.feedback_grads[i], f"feedback gradient {i}")


class Spike(torch.autograd.Function):
    """A step forward, the derivative of a steep sigmoid backward."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u >= 1.0).to(u)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        p = torch.sigmoid((u - 1.0) / 0.25)
        return grad * p * (1 - p) / 0.25


def loss_of(output: Tensor, y: Tensor, steps: int) -> Tensor:
    onehot = F.one_hot(y, output.shape[1]).to(output)
    return (0.95 * F.cross_entropy(output, y) + 0.05 * F.mse_loss(output, onehot)) / steps


@pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])
def test_spatial_bp_equals_autograd_on_the_unrolled_network(static: bool) -> None:
    """One backward pass through all steps, in which spikes alone are detached where time goes on.

    Errors go back in time through the potentials, whose decay makes the traces. Biases, which have
    no trace, are left out, and so is the trace of the read-out, which has no leak.
    """
    torch.manual_seed(4)
    network = make_network((8,), recurrent=True, leak=0.7)
    for layer in (network.linear1, network.readout):
        layer.bias.requires_grad_(False).zero_()
    x, y = make_data(8)
    if static:
        x = x[:1].expand_as(x)
    w_in, w_back, w_out = (
        p.detach().clone().requires_grad_()
        for p in (network.linear1.weight, network.lif1.synapse.weight, network.readout.weight)
    )
    u, s, total = 0.0, torch.zeros(BATCH, 8).double(), 0.0
    for x_t in x:
        u = 0.7 * (u - s.detach()) + x_t @ w_in.t() + s.detach() @ w_back.t()
        s = Spike.apply(u)
        total = total + loss_of(s @ w_out.t(), y, len(x))
    total.backward()
    rule = clocked.SpatialBP(network, untraced=["readout"])
    result = rule.step(x[0], y, steps=8) if static else rule.step(x, y)
    assert_alive(result)
    close(result.loss, total.detach(), "loss")
    close(network.linear1.weight.grad, w_in.grad, "input weights")
    close(network.lif1.synapse.weight.grad, w_back.grad, "recurrent weights")
    close(network.readout.weight.grad, w_out.grad, "read-out")


def make_pictures_network(channels: int = 3, standardise: bool = False) -> clocked.Network:
    torch.manual_seed(6)
    back = clocked.Conv2d(channels, channels, 3, padding=1, standardise=standardise)
    layers: dict[str, nn.Module] = {
        "conv1": clocked.Conv2d(2, channels, 3, padding=1),
        "lif1": clocked.Recurrent(clocked.LIF(), back),
        "readout": clocked.Linear(channels * 9, OUTPUTS, pool=2),
    }
    network = clocked.Network(OrderedDict(layers), (2, 6, 6)).double()
    strengthen(network, 2.0)
    return network


@pytest.mark.parametrize("rule", [clocked.SpatialBP, clocked.DFA])
@pytest.mark.parametrize("channels", [3, 16], ids=["small", "winograd"])
def test_convolutions_come_back(rule: Any, channels: int) -> None:
    """Against one step after another under autograd, with the trace in the place of the input."""
    network = make_pictures_network(channels)
    network.float() if channels == 16 else network.double()
    trained = rule(network)
    first, back = network.conv1, network.lif1.synapse
    torch.manual_seed(3)
    x = torch.randn(STEPS, BATCH, 2, 6, 6).to(first.weight)
    y = torch.arange(BATCH) % OUTPUTS
    assert_alive(trained.step(x, y))
    weight, bias = back.weight.detach().clone().requires_grad_(), back.bias.detach()
    u = s = torch.zeros(BATCH, channels, 6, 6).to(x)
    trace: Any = torch.zeros_like(s)
    with torch.no_grad():
        currents = [F.conv2d(x_t, first.weight, first.bias, padding=1) for x_t in x]
    for current in currents:
        trace = 0.5 * trace + s
        on_trace = F.conv2d(trace, weight, padding=1)
        value = F.conv2d(s, weight.detach(), bias, padding=1) + current
        u = (0.5 * (u - s) + value + on_trace - on_trace.detach()).requires_grad_()
        s = Spike.apply(u)
        below = F.avg_pool2d(s, 2).flatten(1)
        output = F.linear(below, network.readout.weight.detach(), network.readout.bias.detach())
        loss = loss_of(output, y, STEPS)
        if rule is clocked.DFA:
            (e,) = torch.autograd.grad(loss, output, retain_graph=True)
            s.backward((e @ trained.feedback[0].matrix).view_as(s), inputs=[weight])
        else:
            loss.backward(inputs=[weight])
        u, s = u.detach(), s.detach()
    tight = {"rtol": 1e-12, "atol": 1e-15} if channels == 3 else {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(back.weight.grad, weight.grad, **tight)
    assert weight.grad.abs().max() > 1e-4


@pytest.mark.parametrize("local", ["same-weights", "learned"])
@pytest.mark.parametrize("case", ["dfa", "opzo", "opzo-two-point"])
def test_local_learning_teaches_recurrent_weights(case: str, local: str) -> None:
    """The gradient is that of the errors which the rule gives, times the reference's traces."""
    network, _ = build(case, recurrent=True)
    rule = make_rule(
        case, network, local_learning=local, local_scale=0.5, intermediate="lif2.neuron"
    )
    deltas: list[list[Tensor]] = []
    seen: list[list[Tensor]] = []
    answer = rule.layer_errors

    def listen(step: clocked.TimeStep) -> Any:
        errors = answer(step)
        deltas.append(
            [layer.delta(g).clone() for layer, g in zip(step.layers, errors, strict=True)]
        )
        seen.append([layer.activity.clone() for layer in step.layers])
        return errors

    rule.layer_errors = listen
    assert_alive(rule.step(*make_data()))
    for i, layer in enumerate(recurrent_layers(network)):
        trace = torch.zeros_like(seen[0][i])
        expected = torch.zeros_like(layer.synapse.weight)
        for t in range(STEPS):
            before = seen[t - 1][i] if t else torch.zeros_like(trace)
            trace = 0.5 * trace + before
            expected += deltas[t][i].t() @ trace
        close(layer.synapse.weight.grad, expected, f"layer {i}")
    plain, _ = build(case, recurrent=True)
    make_rule(case, plain).step(*make_data())
    ours, without = network.lif1.synapse.weight.grad, plain.lif1.synapse.weight.grad
    assert not torch.allclose(ours, without, rtol=1e-3)  # the local signals arrived


# State


@every_case
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_stream_equals_a_step(case: str, dropout: float) -> None:
    """While others work on the network between its steps: a run, another rule, a copy."""
    x, y = make_data()
    _, whole = build(case, recurrent=True, dropout=dropout)
    result = whole.step(x, y)
    network, stream = build(case, recurrent=True, dropout=dropout)
    with torch.random.fork_rng():
        other = clocked.DFA(network)
    losses = []
    for x_t in x:
        losses.append(stream.observe(x_t, y, steps=STEPS).loss)
        before = copy.deepcopy(learned(stream))
        with torch.random.fork_rng():
            clocked.run(network, -x)
            other.step(2 * x[:, :2], y[:2])
            other.observe(x[0, :3], y[:3])
        network.zero_grad()
        for name, parameter in network.named_parameters():
            if before.get(f"network.{name}") is not None:
                parameter.grad = before[f"network.{name}"]
    assert_same(learned(whole), learned(stream))
    torch.testing.assert_close(sum(losses), result.loss)


@every_rule
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_goes_on_with_the_stream(case: str, way: str) -> None:
    x, y = make_data()
    _, stream = build(case, recurrent=True)
    for x_t in x[:3]:
        stream.observe(x_t, y, steps=STEPS)
    stream.zero_grad()  # which is not copied
    stream.network.zero_grad()
    twin = copy.deepcopy(stream) if way == "deepcopy" else pickle.loads(pickle.dumps(stream))
    for rule in (stream, twin):
        for x_t in x[3:]:
            torch.manual_seed(8)
            rule.observe(x_t, y, steps=STEPS)
    assert_same(learned(stream), learned(twin))
    layers = recurrent_layers(stream.network), recurrent_layers(twin.network)
    for mine, copied in zip(*layers, strict=True):
        assert mine.previous is not None and mine.previous is not copied.previous
        torch.testing.assert_close(mine.previous, copied.previous)


def test_between_steps_the_layer_shows_the_state_of_the_stream_as_neurons_do() -> None:
    """So a copy of the network alone goes on by hand as the stream would."""
    network, rule = build("dfa", recurrent=True)
    x, y = make_data()
    for x_t in x[:3]:
        rule.observe(x_t, y)
    twin = copy.deepcopy(network)
    expected = rule.observe(x[3], y).output
    torch.testing.assert_close(twin(x[3]).detach(), expected)
    twin.lif1.previous = None
    assert not torch.allclose(twin(x[3]).detach(), expected)
    rule.reset()
    for layer in recurrent_layers(network):
        assert layer.previous is None and layer.neuron.state is None


def test_what_a_user_left_in_the_network_is_there_after_a_step() -> None:
    network, rule = build("opzo-two-point", recurrent=True)
    x, y = make_data()
    with torch.no_grad():
        network(x[0, :2])
    layers = recurrent_layers(network)
    before = [(layer.previous, layer.neuron.state) for layer in layers]
    whole = rule.step(x, y)
    rule.observe(x[0], y)
    clocked.run(network, x)
    analysis.feedback.mean_jacobian(network, [x])
    for layer, (previous, state) in zip(layers, before, strict=True):
        assert layer.previous is previous and layer.neuron.state is state
        assert previous.shape[0] == 2
    _, fresh = build("opzo-two-point", recurrent=True)
    torch.testing.assert_close(fresh.step(x, y).loss, whole.loss)


@every_rule
def test_a_failed_step_leaves_nothing(case: str) -> None:
    network, rule = build(case, recurrent=True)
    x, y = make_data()
    fails = iter([False, False, True])

    def break_down(module: nn.Module, given: Any) -> None:
        if next(fails, False):
            raise OSError("out of paper")

    handle = network.linear2.register_forward_pre_hook(break_down)
    with pytest.raises(OSError, match="paper"):
        rule.step(x, y)
    handle.remove()
    assert all(p.grad is None for p in network.parameters())
    for layer in recurrent_layers(network):
        assert layer.previous is None and layer.synapse.pathway is None
    if case in ("spatial-bp", "dfa", "dkp"):  # rules without noise, which has gone on
        rule.step(x, y)
        _, fresh = build(case, recurrent=True)
        fresh.step(x, y)
        assert_same(learned(fresh), learned(rule))


def test_a_callback_may_run_the_network_and_other_rules() -> None:
    x, y = make_data()
    network, rule = build("dfa", recurrent=True)
    other = clocked.DFA(network)
    gradients = []

    def look() -> None:
        clocked.run(network, x[:2, :1])
        kept = [p.grad.clone() for p in network.parameters()]
        other.observe(x[0, :2], y[:2])
        for parameter, grad in zip(network.parameters(), kept, strict=True):
            parameter.grad = grad
        gradients.append(network.lif1.synapse.weight.grad.clone())

    rule.step(x, y, after_step=look)
    _, plain = build("dfa", recurrent=True)
    plain.step(x, y)
    assert_same(learned(plain), learned(rule))
    assert gradients[0].abs().max() == 0 < gradients[1].abs().max()  # nothing came back at first


def test_unlabelled_steps_advance_what_comes_back() -> None:
    x, y = make_data()
    for case in ("dfa", "opzo-two-point"):
        network, rule = build(case, recurrent=True)
        rule.step(x, [None, None, y, None, y])
        _, stream = build(case, recurrent=True)
        for t, x_t in enumerate(x):
            stream.observe(x_t, y if t in (2, 4) else None, steps=STEPS)
        assert_same(learned(stream), learned(rule))
        assert network.lif1.synapse.weight.grad.abs().max() > 0


def test_state_is_not_saved_and_can_be_reset() -> None:
    network, rule = build("dfa", recurrent=True)
    names = set(network.state_dict())
    x, y = make_data()
    first = network(x[0])
    second = network(x[0])
    assert set(network.state_dict()) == names and not torch.equal(first, second)
    for again in (network.reset, lambda: clocked.reset_state(network)):
        again()
        torch.testing.assert_close(network(x[0]), first)
    for layer in recurrent_layers(network):
        layer.reset()
        assert layer.previous is None and layer.neuron.state is None
    rule.observe(x[0], y)
    network.reset()
    with pytest.raises(InputError, match="reset or run from outside in the middle of a stream"):
        rule.observe(x[1], y)


def test_a_batch_of_another_size_needs_a_reset() -> None:
    network, rule = build("dfa", recurrent=True)
    x, y = make_data()
    network(x[0, :1])
    for size in (4, 2):  # one sample would be broadcast
        with pytest.raises(InputError, match=r"\(1, 6\); call reset\(\) before a batch of another"):
            network(x[0, :size])
    rule.step(x, y)
    rule.step(x[:, :2], y[:2])
    rule.observe(x[0], y)
    with pytest.raises(InputError, match="call reset"):
        rule.observe(x[0, :2], y[:2])


def test_the_layer_alone_learns_within_a_step_and_never_across() -> None:
    torch.manual_seed(0)
    layer = clocked.Recurrent(clocked.LIF(), clocked.Linear(3, 3, bias=False)).double()
    current = torch.rand(2, 3).double().add(1).requires_grad_()
    first = layer(current)
    second = layer(current)
    assert first.requires_grad and not layer.previous.requires_grad
    (grad,) = torch.autograd.grad(second.sum(), layer.synapse.weight)
    p = torch.sigmoid((layer.neuron.state[0] - 1) / 0.25)
    torch.testing.assert_close(grad, (p * (1 - p) / 0.25).detach().t() @ first.detach())


def test_what_comes_back_is_what_the_next_layer_saw() -> None:
    """With dropout, scale and noise; writing to the activity later does not change it."""
    network = make_network((6,), recurrent=True, dropout=0.5, scale=1.3)
    rule = clocked.OPZO(network, noise_scale=0.3)
    back, forth = [], []
    network.lif1.synapse.register_forward_pre_hook(lambda m, given: back.append(given[0].clone()))
    network.readout.register_forward_pre_hook(lambda m, given: forth.append(given[0].clone()))
    network.readout.register_forward_pre_hook(lambda m, given: given[0].detach().fill_(9.0))
    rule.step(*make_data())
    assert back[0].abs().max() == 0
    for seen, again in zip(forth, back[1:], strict=False):
        assert torch.equal(seen, again)
    assert len(set(forth[1].flatten().tolist())) > BATCH * 5  # the noise is in it


def test_a_layer_that_takes_the_place_of_another_has_managed_state_too() -> None:
    """With the same neurons and weights inside, so that the rule goes on."""
    x, y = make_data()
    network, rule = build("dfa", recurrent=True)
    expected = rule.step(x, y).loss
    network.lif1 = clocked.Recurrent(network.lif1.neuron, network.lif1.synapse)
    for _ in range(2):
        torch.testing.assert_close(rule.step(x, y).loss, expected)
        assert network.lif1.previous is None
    torch.testing.assert_close(clocked.run(network, x, targets=y).loss, expected)


def test_state_of_inference_mode_may_be_learned_from() -> None:
    network = make_network((6,), recurrent=True)
    x, _ = make_data()
    with torch.inference_mode():
        network(x[0])
    network(x[1]).sum().backward()
    assert network.lif1.synapse.weight.grad.abs().max() > 0


def test_the_second_pass_has_its_own_activity_of_the_step_before() -> None:
    network = make_network((6,), recurrent=True)
    rule = clocked.ZO(network, points="two-point", noise_scale=0.3)
    back: list[Tensor] = []
    network.lif1.synapse.register_forward_pre_hook(lambda m, given: back.append(given[0].clone()))
    rule.step(*make_data())
    first, second = back[0::2], back[1::2]
    assert len(first) == len(second) == STEPS and first[0].abs().max() == 0
    spikes = [((a + b) / 2) for a, b in zip(first, second, strict=True)]  # the noise cancels
    assert all(
        torch.isin(s.mul(2).round(decimals=9), torch.tensor([0.0, 1, 2])).all() for s in spikes
    )
    assert not any(torch.equal(a, b) for a, b in zip(first[1:], second[1:], strict=True))


# What rules and measures say of it


def test_describe_tells_what_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    network = clocked.fc(INPUTS, (6, 5), OUTPUTS, recurrent=[True, False])
    clocked.DFA(network).describe()
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("lif1.neuron (6 neurons, recurrent) B e") for line in lines)
    assert any(line.startswith("lif2 (5 neurons) B e") for line in lines)
    assert "lif1.synapse.weight error of lif1.neuron; trace of the layer's activity" in lines
    assert "linear2.weight error of lif2; trace of the input" in lines
    clocked.DFA(network, untraced=["lif1.synapse"]).describe()
    said = " ".join(capsys.readouterr().out.split())
    assert "lif1.synapse.weight error of lif1.neuron; activity of the step before, no trace" in said


def test_recurrent_weights_without_a_trace() -> None:
    """They learn from the activity of the step before alone, all others as before."""
    x, y = make_data()
    found = {}
    for name, options in {
        "traced": {},
        "none": {"trace_decay": 0.0},
        "mixed": {"untraced": ["lif1.synapse"]},
    }.items():
        network, _ = build("spatial-bp", recurrent=True)
        assert_alive(clocked.SpatialBP(network, **options).step(x, y))
        found[name] = {key: p.grad for key, p in network.named_parameters()}
    for key, grad in found["mixed"].items():
        same_as = "none" if key == "lif1.synapse.weight" else "traced"
        torch.testing.assert_close(grad, found[same_as][key], rtol=1e-12, atol=1e-15)
    key = "lif1.synapse.weight"
    assert not torch.allclose(found["mixed"][key], found["traced"][key], rtol=0.05)


def test_feed_forward_weights_learn_as_without_recurrence_if_nothing_comes_back() -> None:
    """To the bit, for the constant input's shortcut too; so does a network built without."""
    x, y = make_data()
    for static in (False, True):
        seen = []
        for options in (
            {},
            {"recurrent": False},
            {"recurrent": [False, False]},
            {"recurrent": True},
        ):
            network, _ = build("dfa")
            twin = clocked.fc(INPUTS, (6, 5), OUTPUTS, **options).double()
            twin.load_state_dict(network.state_dict(), strict=False)
            for layer in recurrent_layers(twin):
                nn.init.zeros_(layer.synapse.weight)
            rule = make_rule("dfa", twin)
            rule.step(x[0], y, steps=STEPS) if static else rule.step(x, y)
            seen.append({k: p.grad for k, p in twin.named_parameters() if "synapse" not in k})
        for other in seen[1:]:
            assert all(torch.equal(seen[0][k], other[k]) for k in seen[0])
    assert any(layer.synapse.weight.grad.abs().max() > 0 for layer in recurrent_layers(twin))


def test_feedback_has_the_size_of_the_layers_and_not_of_what_comes_back() -> None:
    network = clocked.fc(INPUTS, (6, 5), OUTPUTS, recurrent=True)
    rule = clocked.DFA(network, local_learning="learned", intermediate="lif2.neuron")
    assert rule.layer_sizes == {"lif1.neuron": 6, "lif2.neuron": 5}
    assert [tuple(b.matrix.shape) for b in rule.feedback] == [(3, 6), (3, 5)]


def test_measures_count_the_recurrent_synapse() -> None:
    torch.manual_seed(1)
    network = make_network(recurrent=[True, False], dtype=torch.float32)
    x, y = make_data(dtype=torch.float32)
    found = analysis.sizes.sizes(network)
    back = found.synapses["lif1.synapse"]
    assert (back.weights, back.dense, back.received, back.hidden_input) == (36, 36, 6, False)
    assert found.hidden == {"lif1.neuron": 6, "lif2": 5}
    seen: list[Tensor] = []
    network.lif1.synapse.register_forward_pre_hook(lambda m, given: seen.append(given[0].clone()))
    counted = analysis.operations(network, [(x, y)])
    spikes = float(sum((s != 0).sum() for s in seen[:STEPS]))
    assert spikes > 0
    layer = counted.layers["lif1.synapse"]
    assert layer.effective_acs == layer.spike_operations == 6 * spikes / BATCH
    assert layer.dense == 36 * STEPS and layer.effective_macs == 0
    rates = analysis.firing(network, [(x, y)])
    result = clocked.run(network, x)
    for name, one in rates.layers.items():
        assert one.rate == pytest.approx(float(result.firing_rates[name]))
    added = analysis.training_operations(clocked.SpatialBP(network))
    plain = analysis.training_operations(clocked.SpatialBP(clocked.fc(INPUTS, (6, 5), OUTPUTS)))
    assert added.forward - plain.forward == added.added.weights - plain.added.weights == 36
    assert added.added.traces - plain.added.traces == 6
    assert added.added.feedback == plain.added.feedback  # no error goes back through it


def test_gradients_beside_those_of_backpropagation() -> None:
    torch.manual_seed(1)
    network = make_network(recurrent=True, dtype=torch.float32)
    x, y = make_data(dtype=torch.float32)
    same = analysis.alignment(clocked.SpatialBP(network), [(x, y)])
    angles = {name: layer.angle for name, layer in same.layers.items()}
    assert angles.keys() >= {"lif1.synapse", "lif2.synapse"}
    assert all(value == pytest.approx(0.0, abs=1e-3) for value in angles.values())
    other = analysis.alignment(clocked.DFA(network), [(x, y)])
    assert other.layers["lif1.synapse"].angle > 10
    jacobian = analysis.mean_jacobian(network, [x])
    torch.testing.assert_close(jacobian["lif2.neuron"], network.readout.weight.detach())


class Straight(clocked.Neuron):
    """Its activity is its current, so that expectations of noise can be written down."""

    def advance(self, current: Tensor, noise: Tensor | None = None) -> Tensor:
        self.state = (current,)
        return current if noise is None else current + noise

    def modulate(self, error: Tensor, state: Any, gate: Any) -> Tensor:
        return error * gate


@pytest.mark.parametrize("antithetic", [False, True])
def test_what_opzo_gathers_where_noise_comes_back(antithetic: bool) -> None:
    """Independent noise: the Jacobian R of the output. Pairs: R at even steps, R - R W_r at odd.

    In the second step of a pair, the noise that comes back is that of the step, negated.
    """
    torch.manual_seed(0)
    back = clocked.Linear(3, 3, bias=False)
    layers = {"in": clocked.Linear(2, 3), "r": clocked.Recurrent(Straight(), back)}
    layers["readout"] = clocked.Linear(3, 2)
    network = clocked.Network(OrderedDict(layers), (2,)).double()
    rule = clocked.OPZO(network, noise_scale=1.0, momentum=0.0, antithetic=antithetic)
    x, y = torch.zeros(60_000, 2).double(), torch.zeros(60_000, dtype=torch.int64)
    readout = network.readout.weight.detach()
    through = readout @ back.weight.detach()
    assert through.abs().max() > 0.2
    for step in range(4):
        rule.observe(x, y)
        expected = readout - through if antithetic and step % 2 else readout
        assert (rule.feedback[0].matrix - expected).abs().max() < 0.03, step


# What is refused


def linear(n: int = 6) -> clocked.Linear:
    return clocked.Linear(n, n, bias=False)


@pytest.mark.parametrize(
    ("neuron", "synapse", "message"),
    [
        (clocked.LIF, linear(), "neuron of a recurrent layer is <class"),
        (clocked.LIF(), None, "synapse of a recurrent layer is None"),
        (nn.ReLU(), linear(), "is a ReLU, which is not one layer of neurons"),
        (nn.Sequential(linear(), clocked.LIF()), linear(), "is a Sequential, which is not one"),
        (clocked.LIF(), nn.Identity(), "is a Identity without weights"),
        (clocked.LIF(), nn.Sequential(linear(), clocked.LIF()), "Sequential with neurons inside"),
    ],
)
def test_parts_that_make_no_recurrent_layer(neuron: Any, synapse: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clocked.Recurrent(neuron, synapse)


class Doubles(clocked.LIF):
    def activity(self, raw: Tensor, noise: Tensor | None = None) -> Tensor:
        return torch.cat([raw, raw], 1)


class WithState(clocked.LIF):
    def forward(self, current: Tensor) -> Any:
        return super().forward(current), self.state


@pytest.mark.parametrize(
    ("neuron", "synapse", "message"),
    [
        (
            clocked.LIF(),
            nn.Linear(6, 5),
            r"activity of shape \(4, 6\) into a current of .*\(4, 5\)",
        ),
        (Doubles(), linear(), r"returned an activity of shape \(4, 12\)"),
        (WithState(), linear(), "returned a tuple; expected their activity alone"),
    ],
)
def test_shapes_that_do_not_fit(neuron: Any, synapse: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clocked.Recurrent(neuron, synapse)(torch.rand(4, 6))


@pytest.mark.parametrize("recurrent", [None, 1, "yes", [True], [1, 0], (True, False, True)])
def test_builders_refuse_what_is_no_answer_for_each_layer(recurrent: Any) -> None:
    with pytest.raises(InputError, match=r"recurrent is .* there are 2 hidden layers"):
        clocked.fc(INPUTS, (6, 5), OUTPUTS, recurrent=recurrent)
    with pytest.raises(InputError, match="there are 0 hidden layers"):
        clocked.fc(INPUTS, (), OUTPUTS, recurrent=True)


def test_one_synapse_cannot_serve_two_layers() -> None:
    shared = nn.Linear(6, 6)
    network = nn.Sequential(
        nn.Linear(INPUTS, 6), clocked.Recurrent(clocked.LIF(), shared), shared, clocked.LIF()
    )
    with pytest.raises(InputError, match="used twice in one time step"):
        clocked.DFA(network, input_shape=(INPUTS,))


def test_errors_through_two_synapses_in_a_row_are_asked_for() -> None:
    two = nn.Sequential(clocked.Linear(6, 2), clocked.Linear(2, 6))
    layers = {"linear": linear(), "r": clocked.Recurrent(clocked.LIF(), two), "out": linear()}
    network = clocked.Network(OrderedDict(layers), (6,))
    with pytest.raises(InputError, match=r"'r.synapse.1' gets its input from layer 'r.synapse.0'"):
        clocked.DFA(network)
    rule = clocked.DFA(network, chain="within-layers")
    rule.step(3 * torch.rand(STEPS, BATCH, 6), torch.arange(BATCH))
    assert two[0].weight.grad.abs().max() > 0


# Other layers


@pytest.mark.parametrize("kind", ["pruned", "parametrised", "frozen"])
def test_computed_and_frozen_recurrent_weights(kind: str) -> None:
    x, y = make_data()
    plain, rule = build("dfa", recurrent=True)
    mask = (torch.arange(36).view(6, 6) % 3 > 0).double()
    with torch.no_grad():
        plain.lif1.synapse.weight.mul_(mask)
    assert_alive(rule.step(x, y))
    expected = plain.lif1.synapse.weight.grad
    network, _ = build("dfa", recurrent=True)
    synapse = network.lif1.synapse
    if kind == "parametrised":
        parametrize.register_parametrization(synapse, "weight", Masked(mask))
    elif kind == "pruned":
        prune.custom_from_mask(synapse, "weight", mask)
    else:
        with torch.no_grad():
            synapse.weight.mul_(mask).requires_grad_(False)
    make_rule("dfa", network).step(x, y)
    torch.testing.assert_close(network.linear1.weight.grad, plain.linear1.weight.grad)
    if kind == "frozen":
        assert synapse.weight.grad is None
    else:
        learner = next(iter(synapse.parameters()))
        torch.testing.assert_close(learner.grad, expected * mask)


class Masked(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def test_standardised_convolutions_come_back() -> None:
    network = make_pictures_network(standardise=True)
    x = torch.randn(STEPS, BATCH, 2, 6, 6).double()
    assert_alive(clocked.OPZO(network).step(x, torch.arange(BATCH) % OUTPUTS))
    assert network.lif1.synapse.gain.grad.abs().max() > 0


def test_output_neurons_may_be_recurrent() -> None:
    layers = {
        "linear": clocked.Linear(INPUTS, 3),
        "out": clocked.Recurrent(clocked.LIF(), linear(3)),
    }
    torch.manual_seed(0)
    network = clocked.Network(OrderedDict(layers), (INPUTS,)).double()
    strengthen(network)
    rule = clocked.DFA(network)
    assert rule.layer_sizes == {}
    rule.step(*make_data())
    assert network.out.synapse.weight.grad.abs().max() > 0
