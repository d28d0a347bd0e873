"""What a rule keeps and what it leaves in the network: state, copies, saving and resuming."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from reference.events_cases import make_inputs, make_labels, make_network, rule_of

from threefactor import events

every_rule = pytest.mark.parametrize("name", events.RULES)
OPTIMIZERS = pytest.mark.parametrize("optimizer", ["sgd", "adam"])
SIZES = (6, 5, 4, 3)


def step(rule: events.Rule, number: int) -> events.Result:
    torch.manual_seed(100 + number)
    return rule.step(make_inputs(seed=20 + number), make_labels(seed=number))


def train(rule: events.Rule, numbers: range) -> None:
    """A user's own loop, with plain descent, so that the rule alone holds state."""
    optimizer = torch.optim.SGD(rule.network.parameters(), lr=0.02)
    for number in numbers:
        optimizer.zero_grad()
        result = step(rule, number)
        assert all(len(s.times) > 0 for s in result.spikes.values())
        optimizer.step()


def saved(*modules: torch.nn.Module) -> list[Any]:
    """State dicts that went through a file; no pickled objects are let back in."""
    file = io.BytesIO()
    torch.save([m.state_dict() for m in modules], file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same_tensors(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, b[key]), key


@every_rule
def test_state_holds_only_what_the_rule_learns(name: str) -> None:
    net = make_network(SIZES, seed=3)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    rule = rule_of(name, net)
    step(rule, 1)
    feedback = ["feedback.0.matrix", "feedback.1.matrix"]
    expected = {"exact-bp": [], "dfa": feedback, "sfdfa": ["_extra_state", *feedback]}
    assert list(rule.state_dict()) == expected[name]
    assert list(rule.parameters()) == [] and net not in rule.modules()
    assert list(net.state_dict()) == ["lif1.weight", "lif2.weight", "readout.weight"]
    assert_same_tensors(before, net.state_dict())
    assert [tuple(w.shape) for w in net.parameters()] == [(6, 5), (5, 4), (4, 3)]
    assert rule.layer_sizes == {"lif1": 5, "lif2": 4} and rule.outputs == 3


@every_rule
def test_only_the_network_gets_gradients(name: str) -> None:
    """Weights stay as they are, their gradients are of their shape and kind."""
    net = make_network(SIZES, seed=3, dtype=torch.float32)
    before = [w.detach().clone() for w in net.parameters()]
    result = step(rule_of(name, net), 1)
    for w, old in zip(net.parameters(), before, strict=True):
        assert torch.equal(w, old)
        assert w.grad.shape == w.shape and w.grad.dtype == torch.float32
        assert not w.grad.requires_grad and w.grad.abs().max() > 0
    assert not result.output.requires_grad and result.output.dtype == torch.float32


@OPTIMIZERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sfdfa_resumes_to_the_bit(optimizer: str, dtype: torch.dtype) -> None:
    """Five steps, or three, a file and two: the same weights, feedback and optimiser."""

    def make() -> events.Rule:
        net = make_network(SIZES, seed=3, dtype=dtype)
        return events.SFDFA(net, feedback_optimizer=optimizer, feedback_lr=0.05)

    through, first, second = make(), make(), make()
    train(through, range(5))
    train(first, range(3))
    network_state, rule_state = saved(first.network, first)
    train(second, range(7, 9))  # something else, to be overwritten
    second.network.load_state_dict(network_state)
    second.load_state_dict(rule_state)
    train(second, range(3, 5))
    assert_same_tensors(through.network.state_dict(), second.network.state_dict())
    assert_same_tensors(through.state_dict(), second.state_dict())
    assert through.feedback[0].matrix.abs().max() > 0
    states = [r.state_dict()["_extra_state"]["state"] for r in (through, second)]
    assert states[0].keys() == states[1].keys()
    for key, entry in states[0].items():
        for k, value in entry.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, states[1][key][k]), (key, k)
    assert optimizer == "sgd" or set(states[0][0]) == {"step", "exp_avg", "exp_avg_sq"}


def test_forgetting_the_optimiser_would_show() -> None:
    """The resumed run above is no empty comparison: without Adam's state it ends elsewhere."""
    ends = []
    for forget in (False, True):
        net = make_network(SIZES, seed=3)
        rule = events.SFDFA(net, feedback_optimizer="adam", feedback_lr=0.05)
        train(rule, range(3))
        if forget:
            rule.optimizer.state.clear()
        train(rule, range(3, 5))
        ends.append(rule.feedback[0].matrix.clone())
    assert not torch.equal(*ends)


@every_rule
def test_state_of_another_seed_is_taken_over(name: str) -> None:
    one = rule_of(name, make_network(SIZES, seed=3), seed=1)
    other = rule_of(name, make_network(SIZES, seed=3), seed=2)
    if name != "exact-bp":
        assert not torch.equal(one.feedback[0].matrix, other.feedback[0].matrix)
    other.load_state_dict(saved(one)[0])
    for rule in (one, other):
        step(rule, 4)
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    assert_same_tensors(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", ["dfa", "sfdfa"])
def test_loading_other_sizes_fails(name: str) -> None:
    state = rule_of(name, make_network((6, 9, 4, 3))).state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for feedback\.0\.matrix"):
        rule_of(name, make_network(SIZES)).load_state_dict(state)


@every_rule
def test_deep_copy_of_network_and_rule(name: str) -> None:
    """A copy learns on its own, as the original does."""
    rule = rule_of(name, make_network(SIZES, seed=3))
    step(rule, 1)
    twin = copy.deepcopy(rule)
    assert twin.network is not rule.network and twin.layers[0] is twin.network.lif1
    for r in (rule, twin):
        r.network.zero_grad()
        step(r, 2)
    for a, b in zip(rule.network.parameters(), twin.network.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad) and a.data_ptr() != b.data_ptr()
    assert_same_tensors(rule.state_dict(), twin.state_dict())


def test_network_is_pickled_and_copied() -> None:
    net, inputs = make_network(SIZES, seed=3), make_inputs(seed=13)
    output = events.run(net, inputs).output
    assert output.sum() > 0
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(events.run(twin, inputs).output, output)
        assert list(twin.state_dict()) == list(net.state_dict())


@every_rule
def test_train_and_evaluation_mode_are_the_same(name: str) -> None:
    net, inputs = make_network(SIZES, seed=3), make_inputs(seed=13)
    outputs = [events.run(net.train(mode), inputs).output for mode in (True, False)]
    outputs.append(rule_of(name, net).step(inputs, make_labels()).output)
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


def test_runs_do_not_learn() -> None:
    net, inputs = make_network(SIZES, seed=3), make_inputs(seed=13)
    result = events.run(net, inputs, targets=make_labels())
    assert all(w.grad is None for w in net.parameters()) and not result.loss.requires_grad
    assert result.capped == dict.fromkeys(net.layers, 0)
    for name, spikes in list(result.spikes.items())[:-1]:
        assert float(result.firing_rates[name]) == pytest.approx(spikes.counts().mean())


def test_generator_of_sfdfa() -> None:
    """Perturbations come from the generator given, and from it alone."""
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        rule = events.SFDFA(
            make_network(SIZES, seed=3), feedback_lr=0.1,
            generator=torch.Generator().manual_seed(5),
        )  # fmt: skip
        before = torch.get_rng_state()
        rule.step(make_inputs(seed=13), make_labels())
        assert torch.equal(torch.get_rng_state(), before)
        found.append(rule.feedback[0].matrix.clone())
    assert torch.equal(*found) and found[0].abs().max() > 0


@every_rule
def test_users_own_optimiser_and_loop(name: str) -> None:
    """The loss falls."""
    net = make_network((6, 40, 3), seed=3, gain=0.6, shift=0.2)
    rule = rule_of(name, net, loss=events.SpikeCount(5, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)
    inputs, labels = make_inputs(6, seed=13), make_labels(6)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        losses.append(float(rule.step(inputs, labels).loss))
        optimizer.step()
    assert min(losses[-5:]) < 0.5 * losses[0], losses


# Known weaknesses


@pytest.mark.parametrize("how", ["double", "assign"])
def test_sfdfa_learns_after_its_feedback_is_replaced(how: str) -> None:
    """`rule.double()` and `load_state_dict(assign=True)` put new tensors in place of the old."""
    net = make_network(SIZES, seed=3, dtype=torch.float32)
    rule = events.SFDFA(net, feedback_lr=0.1)
    if how == "double":
        net.double()
        rule.double()
    else:
        rule.load_state_dict(copy.deepcopy(rule.state_dict()), assign=True)
    step(rule, 1)
    assert rule.feedback[0].matrix.abs().max() > 0


@every_rule
@pytest.mark.parametrize("frozen", ["lif1", "lif2", "readout"])
def test_frozen_layers(name: str, frozen: str) -> None:
    """A frozen layer gets no gradient; the others get what they got before."""
    free, fixed = make_network(SIZES, seed=3), make_network(SIZES, seed=3)
    fixed.get_submodule(frozen).weight.requires_grad_(False)
    for net in (free, fixed):
        step(rule_of(name, net), 1)
    for layer, net in fixed.layers.items():
        if layer == frozen:
            assert net.weight.grad is None
        else:
            assert torch.equal(net.weight.grad, free.get_submodule(layer).weight.grad)
