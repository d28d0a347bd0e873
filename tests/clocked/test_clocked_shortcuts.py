"""What is computed once must equal what is computed at every step, on any network."""

from __future__ import annotations

import copy
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
        network.t = 1
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


class Rewriting(nn.Module):
    """A stream of currents that neurons look at before it is added to, in place or not."""

    input_shape = (WIDTH,)

    def __init__(self, in_place: bool, what: str) -> None:
        super().__init__()
        self.in_place, self.what = in_place, what
        self.stem, self.branch = clocked.Linear(WIDTH, WIDTH), clocked.Linear(WIDTH, WIDTH)
        self.lif1, self.lif2 = clocked.LIF(), clocked.LIF()
        self.readout = clocked.Linear(WIDTH, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.stem(x)
        activity = self.lif1(stream)
        if self.what == "activity":
            activity = activity.add_(0.5) if self.in_place else activity + 0.5
        current = self.branch(activity)
        if self.what == "current":
            stream = stream.add_(current) if self.in_place else stream + current
        elif self.what == "dropped":
            stream = stream.zero_() if self.in_place else torch.zeros_like(stream)
        elif self.what == "data":
            stream = stream * 1.5 + current
            if self.in_place:
                current.data.mul_(0)  # nobody looks at it any more
        return self.readout(self.lif2(stream if self.what != "activity" else stream + current))


@pytest.mark.parametrize("what", ["current", "dropped", "activity", "data"])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("case", sorted(CASES))
def test_what_neurons_took_may_be_changed_later(case: str, constant: bool, what: str) -> None:
    found = []
    for in_place in (True, False):
        torch.manual_seed(1)
        network = Rewriting(in_place, what).double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(3.0)
        rule = make_rule(case, network)
        x = torch.randn(STEPS, BATCH, WIDTH, dtype=torch.float64)
        inputs, steps = (x[0], STEPS) if constant else (x, None)
        rule.step(inputs, torch.tensor([0, 1, 2]), steps=steps)
        # A gradient of zeros may be none at all.
        found.append({k: v for k, v in learned(rule).items() if v.abs().max() > 0})
    assert_equal(found[1], found[0])
    behind = "readout" if what == "dropped" and case == "spatial-bp" else "stem"
    assert found[0][f"network.{behind}.bias"].abs().max() > 0


def test_a_local_readout_needs_the_activity_as_it_was() -> None:
    rule = make_rule("dfa", Rewriting(True, "activity"), local_learning="same-weights")
    with pytest.raises(InputError, match=r"activity of hidden layer 'lif1' in place"):
        rule.step(torch.rand(BATCH, WIDTH), torch.tensor([0, 1, 2]), steps=2)


class Masked(nn.Module):
    """DropConnect: other weights at every time step, written by the network itself."""

    input_shape = (WIDTH,)

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.shape = nn.Unflatten(1, (1, 2, 2))
        self.conv = clocked.Conv2d(1, WIDTH, 2, standardise=kind == "standardised")
        self.lif, self.readout = clocked.LIF(), clocked.Linear(WIDTH, OUTPUTS)
        self.t = 0

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.t += 1
            self.conv.weight.mul_(1.0 + 0.2 * (-1) ** self.t)
        return self.readout(self.lif(self.conv(self.shape(x)).flatten(1)))


@pytest.mark.parametrize("kind", ["plain", "standardised"])
def test_weights_that_change_at_every_step(kind: str) -> None:
    """A run uses those of each step, and so do rules where the gradient does not ask for them."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, WIDTH, dtype=torch.float64) * 4
    made = Masked(kind).double()
    constant, sequence = copy.deepcopy(made), copy.deepcopy(made)
    one = clocked.run(constant, x, steps=STEPS).output
    other = clocked.run(sequence, [x.clone() for _ in range(STEPS)]).output
    plain = sum(made(x).detach() for _ in range(STEPS))
    torch.testing.assert_close(one, plain)
    torch.testing.assert_close(other, plain)
    if kind == "plain":
        found = []
        for network, inputs, steps in (
            (constant, x, STEPS), (sequence, [x.clone() for _ in range(STEPS)], None)
        ):  # fmt: skip
            torch.manual_seed(2)
            rule = clocked.DFA(network)
            rule.step(inputs, torch.tensor([0, 1, 2]), steps=steps)
            found.append(learned(rule))
        assert_equal(*found)
    else:
        with pytest.raises(InputError, match=r"weights of layer 'conv' changed in the middle"):
            clocked.DFA(constant).step(x, torch.tensor([0, 1, 2]), steps=STEPS)


class Delayed(nn.Module):
    """The current of the step before is added, with its graph or without."""

    input_shape = (WIDTH,)

    def __init__(self, detach: bool) -> None:
        super().__init__()
        self.detach, self.before = detach, None
        self.first, self.lif = clocked.Linear(WIDTH, WIDTH), clocked.LIF()
        self.readout = clocked.Linear(WIDTH, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        current = self.first(x)
        total = current if self.before is None else current + self.before
        self.before = current.detach() if self.detach else current
        return self.readout(self.lif(total))


clocked.register_state(Delayed, ("before",))


@pytest.mark.parametrize("case", ["spatial-bp", "dfa", "opzo"])
def test_graphs_that_are_kept_over_steps_are_refused(case: str) -> None:
    for detach in (True, False):
        network = Delayed(detach).double()
        rule = make_rule(case, network)
        network.before = None
        x = torch.randn(STEPS, BATCH, WIDTH, dtype=torch.float64)
        if detach:
            rule.step(x, torch.tensor([0, 1, 2]))
        else:
            with pytest.raises(InputError, match=r"earlier time step.*detach"):
                rule.step(x, torch.tensor([0, 1, 2]))


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
