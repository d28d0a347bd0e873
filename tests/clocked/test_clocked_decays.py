"""Decays of the presynaptic traces where leaks differ between layers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from reference.clocked_cases import (
    BATCH,
    STEPS,
    assert_alive,
    assert_close,
    assert_slow,
    build,
    make_data,
    make_network,
    make_rule,
    matrices,
    slow_outcome,
    strengthen,
)
from reference.foreign import filtered
from torch import Tensor, nn

from threefactor import analysis, clocked
from threefactor.errors import ConfigurationError, InputError

LEAKS = [0.9, 0.3, 0.6]
EVERY_KIND = ["spatial-bp", "dfa", "dkp", "zo-two-point", "opzo", "opzo-two-point"]


def layered(leaks: list[float], case: str, **options: Any) -> tuple[clocked.Network, clocked.Rule]:
    torch.manual_seed(1)
    network = make_network((6, 5, 4)[: len(leaks)])
    for i, leak in enumerate(leaks, start=1):
        network.get_submodule(f"lif{i}").leak = leak
    return network, make_rule(case, network, **options)


@pytest.mark.parametrize("case", EVERY_KIND)
def test_each_trace_has_the_leak_of_the_neurons_behind(case: str) -> None:
    network, rule = layered(LEAKS, case)
    wanted = slow_outcome(case, network, rule, leak=LEAKS)
    assert_alive(rule.step(*make_data()))
    assert_slow(network, rule, wanted)
    assert rule.trace_decays == {"linear1": 0.9, "linear2": 0.3, "linear3": 0.6, "readout": 0.6}
    other = slow_outcome(case, network, rule, leak=LEAKS, trace_decays=[0.6] * 4)
    assert not np.allclose(network.linear1.weight.grad, other.weight_grads[0], rtol=1e-2)


@pytest.mark.parametrize("case", EVERY_KIND)
def test_a_constant_input_and_a_stream_have_the_same_decays(case: str) -> None:
    x, y = make_data()
    found = []
    for way in ("constant", "sequence", "stream"):
        network, rule = layered(LEAKS, case)
        if way == "constant":
            rule.step(x[0], y, steps=STEPS)
        elif way == "sequence":
            rule.step(x[:1].repeat(STEPS, 1, 1), y)
        else:
            for _ in range(STEPS):
                rule.observe(x[0], y, steps=STEPS)
        found.append([p.grad for p in network.parameters()])
    for grad, one, other in zip(*found, strict=True):
        assert_close(one, grad)
        assert_close(other, grad)


def test_numbers_for_some_layers() -> None:
    network, rule = layered(LEAKS, "dkp", trace_decay={"linear2": 0.8, "readout": 0.0})
    wanted = slow_outcome("dkp", network, rule, leak=LEAKS, trace_decays=[0.9, 0.8, 0.6, 0.0])
    rule.step(*make_data())
    assert_slow(network, rule, wanted)  # the feedback's own traces have the leaks, too
    assert rule.trace_decays == {"linear1": 0.9, "linear2": 0.8, "linear3": 0.6, "readout": 0.0}


def test_a_number_for_the_activity_of_a_hidden_layer() -> None:
    grads = {}
    for decay in (0.6, 0.1):
        network, rule = layered(LEAKS, "dkp", trace_decay={"lif3": decay})
        rule.step(*make_data())
        grads[decay] = [matrix.grad for matrix in matrices(rule)]
        readout = network.readout.weight.grad
    assert torch.equal(grads[0.6][0], grads[0.1][0])
    assert not torch.allclose(grads[0.6][2], grads[0.1][2], rtol=1e-2)
    assert_close(
        grads[0.6][2], readout
    )  # both are sums of errors times the trace of the last layer


def test_equal_leaks_give_what_one_number_gives_to_the_bit() -> None:
    grads = []
    for options in ({}, {"trace_decay": 0.5}, {"trace_decay": {"readout": 0.5}}):
        network, rule = build("opzo", **options.pop("network", {}))
        rule = make_rule("opzo", network, **options)
        rule.step(*make_data())
        grads.append([p.grad for p in network.parameters()])
    for one, two, three in zip(*grads, strict=True):
        assert one.abs().max() > 0 and torch.equal(one, two) and torch.equal(one, three)


class Branch(nn.Module):
    """One synapse layer feeds two layers of neurons; the read-out sees both."""

    input_shape = (7,)

    def __init__(self, leaks: tuple[float, float], skips: bool = False) -> None:
        super().__init__()
        self.linear = clocked.Linear(7, 6)
        self.a, self.b = clocked.LIF(leaks[0]), clocked.LIF(leaks[1])
        self.readout = clocked.Linear(12, 3)
        self.skips = skips
        self.double()
        strengthen(self)

    def forward(self, x: Tensor) -> Tensor:
        current = self.linear(x)
        below = torch.zeros_like(current) if self.skips and not self.training else current
        return self.readout(torch.cat([self.a(current), self.b(below)], 1))


def test_a_branch_into_different_leaks_needs_a_number() -> None:
    with pytest.raises(InputError, match=r"'linear'.*0\.5 of 'a', 0\.9 of 'b'.*trace_decay=\{'lin"):
        clocked.DFA(Branch((0.5, 0.9)))
    with pytest.raises(InputError, match=r"'readout' .*0\.5 of 'a', 0\.9 of 'b'"):
        clocked.DFA(Branch((0.5, 0.9)), trace_decay={"linear": 0.7})
    rule = clocked.DFA(Branch((0.5, 0.9)), trace_decay={"linear": 0.7, "readout": 0.2})
    assert_alive(rule.step(*make_data()))
    assert rule.trace_decays == {"linear": 0.7, "readout": 0.2}
    assert clocked.DFA(Branch((0.5, 0.5))).trace_decays == {"linear": 0.5, "readout": 0.5}


def test_a_branch_that_only_training_has_is_found() -> None:
    network = Branch((0.5, 0.9), skips=True)
    rule = clocked.DFA(network, trace_decay={"readout": 0.5})
    assert rule.trace_decays["linear"] == 0.5
    with pytest.raises(InputError, match=r"'linear'.*0\.5 of 'a', 0\.9 of 'b'"):
        rule.step(*make_data())
    assert network.linear.weight.grad is None
    rule.reset()
    network.eval()
    rule.step(*make_data())


def test_weights_without_neurons_between_have_the_leak_behind_both() -> None:
    network = clocked.Network(
        OrderedDict(
            first=clocked.Linear(7, 6),
            second=clocked.Linear(6, 6),
            lif1=clocked.LIF(0.8),
            third=clocked.Linear(6, 6),
            lif2=clocked.LIF(0.4),
            readout=clocked.Linear(6, 5),
            last=clocked.Linear(5, 3),
        ),
        (7,),
    )
    rule = clocked.SpatialBP(network)
    assert rule.trace_decays == {
        "first": 0.8, "second": 0.8, "third": 0.4, "readout": 0.4, "last": 0.4
    }  # fmt: skip


def test_neurons_at_the_output_count_as_any() -> None:
    layers = [clocked.Linear(7, 6), clocked.LIF(0.8), clocked.Linear(6, 3), clocked.LIF(0.4)]
    rule = clocked.DFA(nn.Sequential(*layers), input_shape=(7,))
    assert rule.trace_decays == {"0": 0.8, "2": 0.4}


class Triangle(nn.Module):
    """A neuron of a user's own with a synaptic current, in plain PyTorch."""

    def __init__(self, leak: float, synaptic_leak: float | None = None) -> None:
        super().__init__()
        self.leak, self.synaptic_leak = leak, synaptic_leak
        self.u: Tensor | None = None
        self.i: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.synaptic_leak is not None:
            x = x if self.i is None else self.synaptic_leak * self.i + x
            self.i = x.detach()
        u = x if self.u is None else self.leak * self.u + x
        soft = torch.clamp(u, 0.0, 2.0) - 0.5 * torch.clamp(u - 1.0, 0.0, 1.0)
        spikes = (u >= 1.0).to(x) + soft - soft.detach()
        self.u = (u - spikes).detach()
        return spikes


clocked.register_neuron(
    Triangle, state=("u", "i"), leak=lambda m: m.leak, synaptic_leak=lambda m: m.synaptic_leak
)


def foreign_network() -> nn.Sequential:
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Linear(7, 6), Triangle(0.8), nn.Linear(6, 5), Triangle(0.5, 0.7), nn.Linear(5, 3)
    ).double()
    strengthen(network)
    return network


def test_foreign_neurons_with_leaks_of_their_own() -> None:
    """Deltas are read off the bias of each time step; weights are then summed up by hand."""
    x, y = make_data()
    network = foreign_network()
    torch.manual_seed(0)
    rule = clocked.DKP(network, input_shape=(7,))
    activities: list[list[Tensor]] = [list(x), [], []]
    network[1].register_forward_hook(lambda m, _, out: activities[1].append(out.detach().clone()))
    network[3].register_forward_hook(lambda m, _, out: activities[2].append(out.detach().clone()))
    for x_t in x:
        rule.observe(x_t, y, steps=STEPS)
    found = [network[i].weight.grad.clone() for i in (0, 2, 4)]
    feedback = [m.grad.clone() for m in matrices(rule)]

    # once more, one sample at a time, with the gradient of a step told apart by its bias
    wanted = [torch.zeros_like(g) for g in found]
    wanted_feedback = [torch.zeros_like(m) for m in feedback]
    decays = [(0.8, None), (0.5, 0.7), (0.5, 0.7)]
    own_decays = [(0.8, None), (0.5, 0.7)]
    for b in range(BATCH):
        torch.manual_seed(0)
        alone = foreign_network()
        alone_rule = clocked.DKP(alone, input_shape=(7,))
        alone_rule.load_state_dict(rule.state_dict())
        for t in range(STEPS):
            for p in alone.parameters():
                p.grad = None
            alone_rule.observe(x[t, b : b + 1], y[b : b + 1], steps=STEPS * BATCH)
            for k, place in enumerate((0, 2, 4)):
                delta = alone[place].bias.grad
                past = [a[b] for a in activities[k][: t + 1]]
                wanted[k] += torch.outer(delta, filtered(past, *decays[k]))
            error = alone[4].bias.grad
            for k in range(2):
                past = [a[b] for a in activities[k + 1][: t + 1]]
                wanted_feedback[k] += torch.outer(error, filtered(past, *own_decays[k]))
    for one, other in zip((*found, *feedback), (*wanted, *wanted_feedback), strict=True):
        assert_close(one, other)


class Graded(clocked.Neuron):
    """No memory, and no attribute leak."""

    def advance(self, current: Tensor, noise: Tensor | None = None) -> Tensor:
        self.state = (current.clone() if noise is None else current + noise,)
        return self.state[0].tanh()

    def modulate(self, error: Tensor, state: tuple[Tensor, ...], gate: Tensor | float) -> Tensor:
        return error * gate * (1 - state[0].tanh() ** 2)


def test_neurons_that_say_no_leak() -> None:
    def row(*layers: nn.Module) -> nn.Sequential:
        return nn.Sequential(*layers)

    silent = row(clocked.Linear(7, 6), Graded(), clocked.Linear(6, 3))
    assert clocked.DFA(silent, input_shape=(7,)).trace_decays == {"0": 0.0, "2": 0.0}
    mixed = row(
        clocked.Linear(7, 6), clocked.LIF(), clocked.Linear(6, 5), Graded(), clocked.Linear(5, 3)
    )
    with pytest.raises(InputError, match=r"layer '3', a Graded, has no attribute leak.*0\.0"):
        clocked.DFA(mixed, input_shape=(7,))
    mixed[3].leak = 0.0
    rule = clocked.DFA(mixed, input_shape=(7,))
    assert rule.trace_decays == {"0": 0.5, "2": 0.0, "4": 0.0}
    del mixed[3].leak
    given = {"2": 0.1, "4": 0.2}
    rule = clocked.DFA(mixed, input_shape=(7,), trace_decay=given)
    assert rule.trace_decays == {"0": 0.5, **given}
    with pytest.raises(InputError, match="layer '3'"):  # DKP's feedback has a trace of the layer
        clocked.DKP(mixed, input_shape=(7,), trace_decay=given)
    clocked.DKP(mixed, input_shape=(7,), trace_decay={**given, "3": 0.2})


def test_a_synapse_that_meets_no_neurons_at_all() -> None:
    class Aside(nn.Module):
        input_shape = (7,)

        def __init__(self) -> None:
            super().__init__()
            self.first, self.lif1 = clocked.Linear(7, 6), clocked.LIF(0.5)
            self.second, self.lif2 = clocked.Linear(6, 6), clocked.LIF(0.9)
            self.readout, self.direct = clocked.Linear(6, 3), clocked.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.readout(self.lif2(self.second(self.lif1(self.first(x))))) + self.direct(x)

    with pytest.raises(InputError, match=r"'direct' .*different leaks"):
        clocked.DFA(Aside())
    assert clocked.DFA(Aside(), trace_decay={"direct": 0.0}).trace_decays["direct"] == 0.0


def test_leaks_that_change_are_followed() -> None:
    network, rule = layered([0.5, 0.5], "dfa")
    rule.step(*make_data())
    network.zero_grad()
    network.lif2.leak = 0.25
    wanted = slow_outcome("dfa", network, rule, leak=[0.5, 0.25])
    rule.step(*make_data())
    assert_slow(network, rule, wanted)


def test_describe_tells_each_decay(capsys: pytest.CaptureFixture[str]) -> None:
    _, rule = layered(LEAKS, "dfa")
    rows = {line.split()[0]: line for line in rule.describe().splitlines() if line.strip()}
    assert rows["linear1.weight"].endswith("trace of the input, decays by 0.9 a step")
    assert rows["readout.weight"].endswith(
        "error of output; trace of the input, decays by 0.6 a step"
    )
    _, plain = layered([0.5, 0.5], "dfa")
    assert "parameters, traces decay by 0.5 a step\n" in plain.describe()


def test_backpropagation_beside_a_rule_has_its_traces() -> None:
    _, rule = layered(LEAKS, "dfa", trace_decay={"linear1": 0.1})
    assert analysis.backpropagation(rule).trace_decays == rule.trace_decays


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"linear1": 1.5}, r"trace_decay of 'linear1' is 1\.5; give a number between 0 and 1"),
        ({"linear1": True}, r"trace_decay of 'linear1' is True"),
        ({"linear1": float("nan")}, r"trace_decay of 'linear1' is nan"),
        ("0.5", r"trace_decay is '0\.5'"),
        (True, r"trace_decay is True"),
    ],
)
def test_bad_decays(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clocked.DFA(make_network(), trace_decay=given)


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"layer in trace_decay: 'linear7'.*linear1"):
        clocked.DFA(make_network(), trace_decay={"linear7": 0.5})
