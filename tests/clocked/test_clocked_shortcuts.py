"""What is computed once must equal what is computed at every step, on any network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.clocked_cases import CASES, learned, make_rule
from torch import Tensor, nn

from threefactor import clocked
from threefactor.errors import InputError

STEPS, BATCH, WIDTH, OUTPUTS = 6, 3, 4, 3

SHOWN: dict[str, Any] = {
    "always": lambda x, t: x,
    "first steps only": lambda x, t: x if t < 3 else torch.zeros_like(x),
    "late": lambda x, t: x if t >= 2 else torch.zeros_like(x),
    "every other step": lambda x, t: x if t % 2 else x * 0,
    "scaled late": lambda x, t: x if t < 4 else x * 0.5,
    "scaled": lambda x, t: x * 1.5,
    "masked": lambda x, t: x * (torch.arange(WIDTH) < 2),
    "viewed": lambda x, t: x.view(len(x), 2, 2).flatten(1),
    "turned": lambda x, t: x.flip(1),
    "detached": lambda x, t: x.detach(),
}
IN_PLACE: dict[str, Any] = {
    "nothing": lambda h: h,
    "mul_": lambda h: h.mul_(1.5),
    "clamp_": lambda h: h.clamp_(-2.0, 2.0),
    "relu_": lambda h: h.relu_(),
    "add_": lambda h: h.add_(0.25),
    "functional": lambda h: torch.tanh(h),
}
OUT_OF_PLACE: dict[str, Any] = {
    **IN_PLACE,
    "mul_": lambda h: h * 1.5,
    "clamp_": lambda h: h.clamp(-2.0, 2.0),
    "relu_": lambda h: h.relu(),
    "add_": lambda h: h + 0.25,
}


@dataclass(frozen=True)
class Block:
    """A hidden layer: where its one or two synapse layers look, and what happens to their sum.

    A source is a way to show the input, or the number of an earlier block (modulo what there is).
    """

    sources: tuple[str | int, ...]
    summed_in_place: bool
    operation: str


class Generated(nn.Module):
    """Blocks with skips; the read-out sees the last block and, maybe, an earlier one."""

    input_shape = (WIDTH,)

    def __init__(self, blocks: list[Block], jump: bool, operations: dict[str, Any]) -> None:
        super().__init__()
        self.blocks, self.jump, self.operations, self.t = blocks, jump, operations, 0
        self.synapses = nn.ModuleList(
            nn.ModuleList(clocked.Linear(WIDTH, WIDTH) for _ in b.sources) for b in blocks
        )
        self.neurons = nn.ModuleList(clocked.LIF(dropout=0.2) for _ in blocks)
        self.readout = clocked.Linear(WIDTH, OUTPUTS)
        self.across = clocked.Linear(WIDTH, OUTPUTS) if jump else None

    def forward(self, x: Tensor) -> Tensor:
        t, self.t = self.t, self.t + 1
        seen: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            total: Tensor | None = None
            for source, synapse in zip(block.sources, self.synapses[i], strict=True):
                if isinstance(source, int) and seen:
                    current = synapse(seen[source % len(seen)])
                else:
                    current = synapse(SHOWN[source if isinstance(source, str) else "always"](x, t))
                if total is None:
                    total = current
                elif block.summed_in_place and self.operations is IN_PLACE:
                    total += current
                else:
                    total = total + current
            seen.append(self.neurons[i](self.operations[block.operation](total)))
        output = self.readout(seen[-1])
        if self.across is not None:
            output = output + self.across(seen[0])
        return output


sources = st.one_of(st.sampled_from(sorted(SHOWN)), st.integers(0, 3))
networks = st.tuples(
    st.lists(
        st.builds(
            Block,
            st.lists(sources, min_size=1, max_size=2).map(tuple),
            st.booleans(),
            st.sampled_from(sorted(IN_PLACE)),
        ),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)


def train(
    case: str, plan: Any, *, constant: bool, operations: dict[str, Any]
) -> tuple[dict[str, Tensor], clocked.Result]:
    torch.manual_seed(3)
    network = Generated(*plan, operations).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4.0)
    x = torch.randn(BATCH, WIDTH, dtype=torch.float64)
    rule = make_rule(case, network)
    network.t = 0
    y = torch.tensor([0, 1, 2])
    if constant:
        result = rule.step(x, y, steps=STEPS)
    else:
        result = rule.step([x.clone() for _ in range(STEPS)], y)
    return learned(rule), result


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Equal to 1e-12; what is zero in one is zero in the other."""
    assert a.keys() == b.keys() and a
    for key, value in a.items():
        scale = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(b[key], value, rtol=1e-12, atol=1e-12 * scale, msg=lambda m: m)


@pytest.mark.filterwarnings("ignore:.*since no error reaches them")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=st.sampled_from(sorted(CASES)), plan=networks)
def test_constant_input_equals_its_sequence(case: str, plan: Any) -> None:
    constant, one = train(case, plan, constant=True, operations=IN_PLACE)
    sequence, other = train(case, plan, constant=False, operations=IN_PLACE)
    assert_equal(sequence, constant)
    torch.testing.assert_close(one.output, other.output, rtol=1e-12, atol=1e-12)
    assert any(v.abs().max() > 0 for v in sequence.values())


@pytest.mark.filterwarnings("ignore:.*since no error reaches them")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=st.sampled_from(["spatial-bp", "dfa", "opzo"]), plan=networks, constant=st.booleans())
def test_currents_changed_in_place_equal_new_tensors(case: str, plan: Any, constant: bool) -> None:
    inside, one = train(case, plan, constant=constant, operations=IN_PLACE)
    outside, other = train(case, plan, constant=constant, operations=OUT_OF_PLACE)
    assert_equal(outside, inside)
    torch.testing.assert_close(one.output, other.output, rtol=1e-12, atol=1e-12)


class Skipping(nn.Module):
    """The second synapse layer is called in some time steps only."""

    input_shape = (WIDTH,)

    def __init__(self, called: tuple[bool, ...]) -> None:
        super().__init__()
        self.called, self.t = called, 0
        self.first, self.second = clocked.Linear(WIDTH, WIDTH), clocked.Linear(WIDTH, WIDTH, False)
        self.lif, self.readout = clocked.LIF(), clocked.Linear(WIDTH, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        t, self.t = self.t, self.t + 1
        current = self.first(x)
        if self.called[t]:
            current = current + self.second(x)
        return self.readout(self.lif(current))


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("case", ["spatial-bp", "opzo"])
def test_a_layer_that_is_no_longer_called_is_refused(case: str, constant: bool) -> None:
    """Its trace would get no error. A layer that joins late has no trace to miss."""
    for called in ((True, True, False, True), (False, False, True, True)):
        torch.manual_seed(0)
        network = Skipping((True, *called)).double()  # the first is for building the rule
        rule = make_rule(case, network)
        x = torch.randn(BATCH, WIDTH, dtype=torch.float64)
        inputs, steps = (x, 4) if constant else (x.expand(4, *x.shape), None)
        if called[0]:
            with pytest.raises(InputError, match="'second' is not called in this time step"):
                rule.step(inputs, torch.tensor([0, 1, 2]), steps=steps)
            assert all(p.grad is None for p in network.parameters())
        else:
            rule.step(inputs, torch.tensor([0, 1, 2]), steps=steps)
            assert network.second.weight.grad.abs().max() > 0
        network.t = 1
        assert clocked.run(network, inputs, steps=steps).steps == 4


def test_recorded_currents_are_not_overwritten() -> None:
    """A hook that keeps a layer's outputs sees those of each step, whatever comes later."""
    torch.manual_seed(0)
    network = clocked.fc(WIDTH, (5,), OUTPUTS)
    kept: list[Tensor] = []
    copies: list[Tensor] = []
    network.readout.register_forward_hook(lambda m, i, out: kept.append(out.detach()))
    network.readout.register_forward_hook(lambda m, i, out: copies.append(out.detach().clone()))
    x = torch.randn(STEPS, BATCH, WIDTH) * 5
    for use in (
        lambda: clocked.run(network, x),
        lambda: clocked.SpatialBP(network).step(x, torch.tensor([0, 1, 2])),
    ):
        kept.clear()
        copies.clear()
        use()
        assert len(kept) >= STEPS and not torch.equal(copies[-1], copies[-2])
        assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
