"""SpatialBP against plain autograd, on rows of layers and on a network with skip connections."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference.clocked_cases import (
    STEPS,
    assert_alive,
    assert_same,
    build,
    learned,
    make_data,
    make_rule,
    strengthen,
)
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor import clocked

LEAK, THRESHOLD, WIDTH = 0.5, 1.0, 0.25


class Spike(torch.autograd.Function):
    """A step forward, the derivative of a steep sigmoid backward."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u >= THRESHOLD).to(u)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        p = torch.sigmoid((u - THRESHOLD) / WIDTH)
        return grad * p * (1 - p) / WIDTH


class Traced(nn.Module):
    """A linear layer whose value comes from s and whose weight gradient comes from the trace."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(source.weight.detach().clone())
        self.bias = None if source.bias is None else nn.Parameter(source.bias.detach().clone())
        self.trace: Tensor | float = 0.0

    def forward(self, s: Tensor) -> Tensor:
        self.trace = LEAK * self.trace + s.detach()
        through_weight = F.linear(self.trace, self.weight)
        value = F.linear(s, self.weight.detach(), self.bias)
        return value + through_weight - through_weight.detach()


class Plain(nn.Module):
    """LIF neurons under ordinary autograd, cut between the time steps."""

    def __init__(self, mask: Tensor | float = 1.0) -> None:
        super().__init__()
        self.u: Tensor | float = 0.0
        self.s: Tensor | float = 0.0
        self.mask = mask

    def forward(self, current: Tensor) -> Tensor:
        u = LEAK * (self.u - THRESHOLD * self.s) + current
        s = Spike.apply(u)
        self.u, self.s = u.detach(), s.detach()
        return s * self.mask


class Skip(nn.Module):
    """Two hidden layers; the input jumps to the second, and the first to the read-out."""

    input_shape = (7,)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lif1 = clocked.Linear(7, 6), clocked.LIF()
        self.second, self.lif2 = clocked.Linear(6, 5), clocked.LIF()
        self.across = clocked.Linear(7, 5, bias=False)
        self.readout, self.jump = clocked.Linear(5, 3), clocked.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = self.lif1(self.first(x))
        b = self.lif2(self.second(a) + self.across(x))
        return self.readout(b) + self.jump(a)


def loss_of(output: Tensor, y: Tensor, steps: int) -> Tensor:
    onehot = F.one_hot(y, output.shape[1]).to(output)
    return (0.95 * F.cross_entropy(output, y) + 0.05 * F.mse_loss(output, onehot)) / steps


def to_autograd(network: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """The same network made of this file's layers."""
    for name, layer in list(network.named_children()):
        if isinstance(layer, clocked.Linear):
            setattr(network, name, Traced(layer))
        else:
            setattr(network, name, Plain(masks.get(name, 1.0)))
    return network


def autograd_grads(network: nn.Module, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    total = sum(loss_of(network(x_t), y, len(x)) for x_t in x)
    total.backward()
    return {f"network.{k}": v.grad for k, v in network.named_parameters()}, total.detach()


def make_skip() -> Skip:
    torch.manual_seed(2)
    network = Skip().double()
    strengthen(network, 2.0)
    return network


@pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("hidden", [(6,), (6, 5), (6, 5, 4)])
def test_row_of_layers(hidden: tuple[int, ...], dropout: float, static: bool) -> None:
    network, rule = build("spatial-bp", hidden, dropout=dropout)
    masks: dict[str, Tensor] = {}
    for name, layer in network.named_children():
        if isinstance(layer, clocked.LIF) and dropout:
            hook = lambda m, _, __, name=name: masks.update({name: m.gate})  # noqa: E731
            layer.register_forward_hook(hook)
    x, y = make_data()
    result = rule.step(x[0], y, steps=STEPS) if static else rule.step(x, y)
    assert_alive(result)
    copy = to_autograd(build("spatial-bp", hidden)[0], masks)
    sequence = x[:1].expand_as(x) if static else x
    expected, loss = autograd_grads(copy, sequence, y)
    assert_same(expected, learned(rule))
    torch.testing.assert_close(result.loss, loss)
    assert len(masks) == (len(hidden) if dropout else 0)


@pytest.mark.parametrize("decay", [None, LEAK])
def test_no_hidden_layer(decay: float | None) -> None:
    """Without neurons there is no leak to take the decay from: by default nothing is traced."""
    network, _ = build("spatial-bp", ())
    x, y = make_data()
    rule = clocked.SpatialBP(network, trace_decay=decay)
    rule.step(x, y)
    copy = build("spatial-bp", ())[0]
    expected, _ = autograd_grads(copy if decay is None else to_autograd(copy, {}), x, y)
    assert_same(expected, learned(rule))


def test_skip_connections() -> None:
    network = make_skip()
    rule = clocked.SpatialBP(network)
    x, y = make_data()
    assert_alive(rule.step(x, y))
    expected, _ = autograd_grads(to_autograd(make_skip(), {}), x, y)
    assert len(expected) == 8
    assert_same(expected, learned(rule))


@pytest.mark.parametrize("skip", [False, True], ids=["row", "skip"])
def test_one_step_is_ordinary_backpropagation(skip: bool) -> None:
    """With T = 1 the trace is the input itself: `loss.backward()` gives the same gradients."""
    network = make_skip() if skip else build("spatial-bp")[0]
    rule = clocked.SpatialBP(network)
    x, y = make_data(1)
    assert_alive(rule.step(x, y))
    by_rule = learned(rule)
    network.zero_grad()
    loss_of(network(x[0]), y, 1).backward()
    assert_same(by_rule, learned(rule))


def test_without_traces_it_is_backpropagation_at_every_step() -> None:
    """A trace that decays at once leaves the network's own gradient within each step."""
    network, _ = build("spatial-bp")
    rule = clocked.SpatialBP(network, trace_decay=0.0)
    x, y = make_data()
    rule.step(x, y)
    by_rule = learned(rule)
    network.zero_grad()
    sum(loss_of(network(x_t), y, STEPS) for x_t in x).backward()
    assert_same(by_rule, learned(rule))


@pytest.mark.parametrize("constant", [False, True], ids=["sequence", "constant"])
@pytest.mark.parametrize("layers", [["linear1"], ["linear1", "readout"]])
def test_layers_without_a_trace(layers: list[str], constant: bool) -> None:
    """They learn from their input at each step, all others as before."""
    x, y = make_data()
    found = {}
    for name, options in {
        "traced": {},
        "untraced": {"trace_decay": 0.0},
        "mixed": {"untraced": layers},
    }.items():
        network, _ = build("spatial-bp")
        rule = clocked.SpatialBP(network, **options)
        assert_alive(rule.step(x[0], y, steps=STEPS) if constant else rule.step(x, y))
        found[name] = {key: p.grad for key, p in network.named_parameters()}
    for key, grad in found["mixed"].items():
        same_as = "untraced" if key.rpartition(".")[0] in layers else "traced"
        torch.testing.assert_close(grad, found[same_as][key], rtol=1e-12, atol=1e-15)
    key = "linear1.weight"
    assert not torch.allclose(found["mixed"][key], found["traced"][key], rtol=0.05)


def test_untraced_layers_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    network, _ = build("spatial-bp")
    clocked.SpatialBP(network, untraced=["linear1"]).describe()
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    said = {name: text for name, text in lines if name.startswith("linear")}
    assert said["linear1.weight"].endswith("; input of the time step, no trace")
    assert said["linear1.bias"].endswith("; no trace, a bias has no input")
    assert said["linear2.weight"].endswith("; trace of the input")


def test_traces_matter() -> None:
    network, rule = build("spatial-bp")
    x, y = make_data()
    rule.step(x, y)
    with_traces = network.linear2.weight.grad.clone()
    network.zero_grad()
    clocked.SpatialBP(network, trace_decay=0.0).step(x, y)
    assert not torch.allclose(with_traces, network.linear2.weight.grad, rtol=0.05)


@pytest.mark.parametrize("case", ["dfa", "dkp", "zo-one-point", "opzo", "opzo-before"])
def test_other_rules_train_skip_connections(case: str) -> None:
    """Every layer gets a gradient of its shape, and the read-outs exactly e[t] a_hat[t]^T."""
    network = make_skip()
    rule = make_rule(case, network)
    assert rule.layer_sizes == {"lif1": 6, "lif2": 5} and rule.outputs == 3
    x, y = make_data()
    assert_alive(rule.step(x, y))
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.shape == parameter.shape and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_two_pass_rules_train_skip_connections() -> None:
    for case in ("zo-one-sided", "zo-two-point", "opzo-two-point"):
        network = make_skip()
        assert_alive(make_rule(case, network).step(*make_data()))
        assert all(p.grad.abs().max() > 0 for p in network.parameters()), case


def test_readout_gradient_does_not_depend_on_the_rule() -> None:
    """DFA leaves the forward pass as it is, so both read-outs learn as under SpatialBP."""
    x, y = make_data()
    grads = {}
    for case in ("spatial-bp", "dfa"):
        network = make_skip()
        make_rule(case, network).step(x, y)
        grads[case] = {k: v.grad for k, v in network.named_parameters()}
    for name in ("readout.weight", "readout.bias", "jump.weight"):
        torch.testing.assert_close(grads["dfa"][name], grads["spatial-bp"][name])
    assert not torch.allclose(grads["dfa"]["first.weight"], grads["spatial-bp"]["first.weight"])
