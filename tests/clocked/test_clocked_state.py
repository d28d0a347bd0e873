"""What a rule leaves in the network and what it keeps: state, copies, frozen layers."""

from __future__ import annotations

import copy

import pytest
import torch
from reference import clocked_cases
from reference.clocked_cases import (
    CASES,
    STEPS,
    assert_alive,
    assert_same,
    build,
    learned,
    make_data,
)
from torch import Tensor, nn

from threefactor import clocked
from threefactor.clocked.noise import DISTRIBUTIONS

every_case = pytest.mark.parametrize("case", CASES)
every_rule = pytest.mark.parametrize("case", ["spatial-bp", "dfa", "dkp", "zo-one-point", "opzo"])


def assert_at_rest(network: nn.Module) -> None:
    """No state, no mask, no pathway and no probe is left in the network."""
    layers = [m for m in network.modules() if isinstance(m, clocked.LIF | clocked.Linear)]
    assert layers
    for layer in layers:
        kinds = ("state", "gate", "probe", "pathway")
        assert all(getattr(layer, kind, None) is None for kind in kinds), layer


@every_case
def test_network_is_at_rest_after_a_step(case: str) -> None:
    network, rule = build(case, dropout=0.3)
    x, y = make_data()
    rule.step(x, y)
    assert_at_rest(network)
    rule.observe(x[0], y)
    assert network.lif1.state is not None and network.lif1.gate is not None
    assert network.lif1.probe is None and network.linear1.pathway is None
    rule.reset()
    assert_at_rest(network)


@every_case
@pytest.mark.parametrize("fails_in", ["layer", "callback"])
def test_network_is_at_rest_after_an_exception(case: str, fails_in: str) -> None:
    network, rule = build(case, dropout=0.3)
    x, y = make_data()
    calls = []

    def fail(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("on purpose")

    hook = network.lif2.register_forward_hook(fail) if fails_in == "layer" else None
    with pytest.raises(KeyError):
        rule.step(x, y, after_step=None if hook else fail)
    assert_at_rest(network)
    if hook:
        hook.remove()
    network.zero_grad()
    rule.zero_grad()
    rule.step(x, y)
    assert_at_rest(network)


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_run_equals_a_plain_loop(hidden: tuple[int, ...], static: bool) -> None:
    network, _ = build("dfa", hidden)
    x, _ = make_data()
    if static:
        x = x[:1].expand_as(x)
    result = clocked.run(network, x[0] if static else x, steps=STEPS if static else None)
    assert_at_rest(network)
    assert_alive(result)
    spikes: dict[str, list[Tensor]] = {name: [] for name in result.firing_rates}
    output = torch.zeros_like(result.output)
    for x_t in x:
        output += network(x_t).detach()
        for name, seen in spikes.items():
            seen.append(getattr(network, name).state[1].clone())
    torch.testing.assert_close(result.output, output)
    rates = {name: torch.stack(seen).mean() for name, seen in spikes.items()}
    torch.testing.assert_close(result.firing_rates, rates)
    assert result.loss is None and result.steps == STEPS and not result.output.requires_grad


@pytest.mark.parametrize("static", [True, False])
def test_run_gives_the_loss_of_a_rule(static: bool) -> None:
    network, rule = build("dfa")
    x, y = make_data()
    inputs, steps = (x[0], STEPS) if static else (x, None)
    expected = rule.step(inputs, y, steps=steps)
    result = clocked.run(network, inputs, steps=steps, targets=y, loss=rule.loss)
    assert float(expected.loss) > 0.1
    torch.testing.assert_close(result.loss, expected.loss)
    torch.testing.assert_close(result.output, expected.output)


@every_case
def test_network_state_dict_is_not_touched(case: str) -> None:
    torch.manual_seed(1)
    network = clocked_cases.make_network(dropout=0.3)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    rule = clocked_cases.make_rule(case, network)
    rule.step(*make_data())
    after = network.state_dict()
    assert list(after) == list(before) and len(before) == 6
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert not set(rule.state_dict()) & set(before)
    assert network.training


@every_case
def test_rule_state_round_trip(case: str) -> None:
    _, rule = build(case)
    x, y = make_data()
    rule.step(x, y)
    state = rule.state_dict()
    names = [f"feedback.{i}.matrix" for i in range(2)]
    assert list(state) == ([] if case.startswith(("spatial", "zo")) else names)
    assert [n for n, _ in rule.named_parameters()] == (names if case == "dkp" else [])
    _, other = build(case, seed=8)
    other.network.load_state_dict(rule.network.state_dict())
    assert not state or not torch.equal(other.state_dict()[names[0]], state[names[0]])
    other.load_state_dict(copy.deepcopy(state))
    for r in (rule, other):
        r.network.zero_grad()
        r.zero_grad()
        if r.perturbation is not None:
            r.perturbation.generator.manual_seed(3)
        r.step(x, y)
    assert_same(learned(rule), learned(other))


@every_rule
def test_deepcopy_after_training(case: str) -> None:
    network, rule = build(case)
    x, y = make_data()
    rule.step(x, y)
    rule.observe(x[0], y)  # in the middle of a stream, too
    twin = copy.deepcopy(network)
    assert torch.equal(twin.lif1.state[0], network.lif1.state[0])
    rule.reset()
    twin.reset()
    a, b = clocked.run(network, x), clocked.run(twin, x)
    assert torch.equal(a.output, b.output)
    assert twin.linear1.weight.data_ptr() != network.linear1.weight.data_ptr()


FROZEN = {
    "weight": ["linear2.weight"],
    "bias": ["linear1.bias"],
    "first layer": ["linear1.weight", "linear1.bias"],
    "middle layer": ["linear2.weight", "linear2.bias"],
    "read-out": ["readout.weight", "readout.bias"],
    "all but the first": ["linear2.weight", "linear2.bias", "readout.weight", "readout.bias"],
    "everything": list(clocked.fc(1, (1, 1), 1).state_dict()),
}


@pytest.mark.parametrize("case", ["spatial-bp", "dfa", "dkp", "zo-two-point", "opzo"])
@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
def test_frozen_layers(case: str, static: bool, frozen: list[str]) -> None:
    """A frozen parameter gets no gradient; the others get what they got before."""
    x, y = make_data()
    x, steps = (x[0], STEPS) if static else (x, None)
    _, free = build(case)
    free.step(x, y, steps=steps)
    network, rule = build(case)
    for name in frozen:
        network.get_parameter(name).requires_grad_(False)
    rule.step(x, y, steps=steps)
    assert all(network.get_parameter(name).grad is None for name in frozen)
    expected = {k: v for k, v in learned(free).items() if k[len("network.") :] not in frozen}
    if expected:
        assert_same(expected, learned(rule))
    else:
        assert not learned(rule)


def hand_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the noise the same in single and double precision."""
    generator = torch.Generator().manual_seed(4)

    def fill(out: Tensor, scale: float, _: object = None) -> Tensor:
        values = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        return out.copy_(values * scale)

    monkeypatch.setitem(DISTRIBUTIONS, "gaussian", fill)


@pytest.mark.parametrize("case", [c for c in CASES if not c.endswith(("rademacher", "sphere"))])
def test_single_precision_is_close_to_double(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results, gradients = [], []
    for dtype in (torch.float64, torch.float32):
        hand_out(monkeypatch)
        network, rule = build(case)
        network, rule = network.to(dtype), rule.to(dtype)
        x, y = make_data(dtype=dtype)
        results.append(rule.step(x, y))
        gradients.append(learned(rule))
    assert all(v.dtype == torch.float32 for v in gradients[1].values())
    assert_alive(results[0])
    for name, rate in results[0].firing_rates.items():
        assert float(rate) == pytest.approx(float(results[1].firing_rates[name]), rel=1e-6)
    assert_same(gradients[0], {k: v.double() for k, v in gradients[1].items()}, rtol=2e-4)
