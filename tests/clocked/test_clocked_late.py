"""Errors that reach the hidden layers late, and labels that come late."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from reference import clocked as slow
from reference import clocked_conv as slow_conv
from reference.clocked_cases import (
    BATCH,
    CASES,
    LOCAL_CASES,
    assert_alive,
    assert_same,
    build,
    build_pictures,
    learned,
    make_data,
    make_network,
    make_pictures,
    make_rule,
    matrices,
    replay_noise,
)
from reference.clocked_local import Readouts
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from threefactor import clocked
from threefactor.errors import ConfigurationError, InputError
from threefactor.options import Option, options_of

STEPS = 7
MODES: dict[str, dict[str, Any]] = {
    "current": {"feedback_meets": "current-eligibility"},
    "kept": {"feedback_meets": "kept-eligibility"},
    "delivered": {"feedback_meets": "kept-eligibility", "late_errors": "delivered"},
}
FEEDBACK = ["dfa", "dkp", "opzo", "opzo-two-point-divided", "opzo-before", "opzo-independent"]
DELAYS = [(0, "current"), *((d, mode) for d in (1, 2, 5) for mode in ("current", "kept"))]
every_mode = pytest.mark.parametrize("mode", MODES)
every_delay = pytest.mark.parametrize(("delay", "mode"), [*DELAYS, (5, "delivered")])


def close(actual: Any, expected: Any, name: str) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = np.abs(expected).max()
    assert scale > 0, f"{name}: the reference is all zero"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * scale, err_msg=name)


def make(case: str, **options: Any) -> Any:
    torch.manual_seed(1)
    return make_rule(case, make_network(), **options)


@every_delay
@pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])
@pytest.mark.parametrize("case", FEEDBACK)
def test_delayed_feedback_equals_its_formulas(
    case: str, static: bool, delay: int, mode: str
) -> None:
    rule = make(case, feedback_delay=delay, **MODES[mode])
    x, y = make_data(STEPS)
    if static:
        x = x[:1].expand(STEPS, -1, -1)
    layers = [m for m in rule.network if isinstance(m, clocked.Linear)]
    model = slow.Model(
        [layer.weight.detach().numpy().copy() for layer in layers],
        [layer.bias.detach().numpy().copy() for layer in layers],
    )
    feedback = [b.detach().t().numpy().copy() for b in matrices(rule)]
    result = rule.step(x[0], y, steps=STEPS) if static else rule.step(x, y)
    assert_alive(result)

    name, options = CASES[case]
    noise = None
    if "noise_scale" in options:
        noise = [[z.numpy() for z in step] for step in replay_noise((6, 5), STEPS, options)]
    expected = slow.train(
        name,
        model,
        x.numpy(),
        y.numpy(),
        [np.ones((BATCH, 6)), np.ones((BATCH, 5))],
        noise=noise,
        feedback=feedback,
        delay=delay,
        kept=mode != "current",
        delivered=mode == "delivered",
        **options,
    )
    close(result.loss, expected.loss, "loss")
    for i, layer in enumerate(layers):
        close(layer.weight.grad, expected.weight_grads[i], f"weight {i}")
        close(layer.bias.grad, expected.bias_grads[i], f"bias {i}")
    for i, b in enumerate(matrices(rule)):
        close(b.detach().t(), expected.feedback[i], f"feedback {i}")
        if b.requires_grad:
            close(b.grad.t(), expected.feedback_grads[i], f"feedback gradient {i}")


@every_delay
@pytest.mark.parametrize("kind", ["conv", "residual"])
@pytest.mark.parametrize(
    ("case", "local"),
    [
        ("dkp", None),
        ("dfa", "learned"),
        ("opzo", "middle-and-local"),
        ("opzo-two-point", "middle-and-learned"),
    ],
)
def test_convolutions_and_local_learning_equal_autograd(
    case: str, local: str | None, kind: str, delay: int, mode: str
) -> None:
    network, _ = build_pictures(case, kind)
    twin = copy.deepcopy(network)
    middles = {"conv": "lif2", "residual": "block2.lif1"}
    given = dict(LOCAL_CASES[local]) if local else {}
    if "intermediate" in given:
        given["intermediate"] = middles[kind]
    rule: Any = make_rule(case, network, feedback_delay=delay, **MODES[mode], **given)
    name, options = CASES[case]
    extra = None
    if local:
        middle = None
        if "intermediate" in given:
            middle = list(rule.layer_sizes).index(given["intermediate"])
            middle = (middle, [b.matrix.t().numpy().copy() for b in rule.intermediate])
        backward = {r.layer: r.feedback for r in rule.readouts if r.feedback is not None}
        scale = given.get("local_scale", 0.01)
        weights = {r.layer: r.weight for r in rule.readouts}
        extra = Readouts(name, weights, backward, scale, middle, options)
    feedback = [b.detach().t().numpy().copy() for b in matrices(rule)]
    x, y = make_pictures(STEPS)
    assert_alive(rule.step(x, y))
    sizes = list(rule.layer_sizes.values())
    noise = replay_noise(sizes, STEPS, options) if "noise_scale" in options else None
    masks = {k: torch.tensor(1.7, dtype=torch.float64) for k in rule.layer_sizes}
    copied, expected = slow_conv.train(
        name,
        twin,
        x,
        y,
        masks,
        noise=noise,
        feedback=feedback,
        extra=extra,
        delay=delay,
        kept=mode != "current",
        delivered=mode == "delivered",
        **options,
    )
    for key, grad in slow_conv.gradients(copied).items():
        close(network.get_parameter(key).grad, grad, key)
    for i, b in enumerate(matrices(rule)):
        close(b.detach().t(), expected.feedback[i], f"feedback {i}")
        if b.requires_grad:
            close(b.grad.t(), expected.feedback_grads[i], f"feedback gradient {i}")
    if extra:
        for readout in rule.readouts:
            close(readout.weight.grad, extra.readouts[readout.layer].grad, "read-out")
        for j, b in enumerate(rule.intermediate):
            close(b.matrix.t(), extra.outcome.feedback[j], f"intermediate {j}")


def test_modes_and_delays_tell_themselves_apart() -> None:
    """The comparisons above can fail: each delay and mode leaves other gradients."""
    x, y = make_data(STEPS)
    seen = {}
    for mode in ("current", "kept"):
        for delay in (1, 2, 5):
            rule = make("opzo", feedback_delay=delay, **MODES[mode])
            rule.step(x, y)
            seen[mode, delay] = rule.network.linear1.weight.grad
    names = list(seen)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not torch.allclose(seen[a], seen[b], rtol=1e-3), (a, b)


@pytest.mark.parametrize("delay", [1, 5, 2 * STEPS])
@pytest.mark.parametrize("case", ["dfa", "dkp", "opzo", "opzo-two-point"])
def test_delivered_errors_on_the_kept_eligibility_are_errors_in_time(case: str, delay: int) -> None:
    x, y = make_data(STEPS)
    in_time = make(case)
    in_time.step(x, y)
    late = make(case, feedback_delay=delay, **MODES["delivered"])
    late.step(x, y)
    assert_same(learned(in_time), learned(late), 1e-12)


# Streams


@pytest.mark.parametrize("mode", ["current", "kept"])
@pytest.mark.parametrize("case", ["dfa", "dkp", "opzo", "opzo-two-point"])
def test_a_stream_equals_a_step_whose_late_errors_are_lost(case: str, mode: str) -> None:
    x, y = make_data(STEPS)
    whole = make(case, feedback_delay=2, **MODES[mode])
    whole.step(x, y)
    stream = make(case, feedback_delay=2, **MODES[mode])
    for x_t in x:
        stream.observe(x_t, y, steps=STEPS)
    assert_same(learned(whole), learned(stream), 1e-12)
    stream.network.zero_grad()
    stream.reset()
    stream.observe(x[0], y)
    hidden = stream.network.linear1.weight.grad
    assert hidden is None, "an error of before the reset arrived"


@pytest.mark.parametrize("mode", ["current", "kept"])
def test_errors_arrive_in_steps_without_a_label(mode: str) -> None:
    x, y = make_data(STEPS)
    rule = make("dfa", feedback_delay=2, **MODES[mode])
    names = ("linear1.weight", "linear2.weight", "readout.weight")

    def taught() -> list[bool]:
        grads = [rule.network.get_parameter(name).grad for name in names]
        rule.network.zero_grad()
        return [g is not None and bool(g.abs().max() > 0) for g in grads]

    seen = []
    for t in range(6):
        result = rule.observe(x[t], y if t in (1, 3) else None)
        assert (result.loss is not None) == (t in (1, 3))
        seen.append(taught())
    output, hidden = [False, False, True], [True, True, False]
    assert seen == [[False] * 3, output, [False] * 3, [True] * 3, [False] * 3, hidden]


def normed(*, affine: bool = True) -> nn.Module:
    """Norms between weights and neurons, so that a graph of autograd lies between the two."""
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Linear(7, 6),
        nn.BatchNorm1d(6, affine=affine),
        clocked.LIF(),
        nn.Linear(6, 5),
        nn.LayerNorm(5, elementwise_affine=affine),
        clocked.LIF(),
        nn.Linear(5, 3),
    ).double()
    with torch.no_grad():
        network[0].bias.add_(0.5)
    return network


class Scaled(nn.Module):
    """A factor for each neuron, seen through a view of the parameter."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(1.0, 2.0, n))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor.view(1, -1)


def scaled() -> nn.Module:
    torch.manual_seed(6)
    layers = (nn.Linear(7, 6), Scaled(6), clocked.LIF(), nn.Linear(6, 5), Scaled(5), clocked.LIF())
    network = nn.Sequential(*layers, nn.Linear(5, 3)).double()
    with torch.no_grad():
        for layer in (network[0], network[3]):
            layer.weight.mul_(2.5)
    return network


class Own(nn.Module):
    """A neuron that the library does not know, with its own surrogate."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        v = x if self.v is None else 0.7 * self.v + x
        steep = torch.sigmoid(4 * (v - 1.0))
        spikes = (v >= 1.0).to(x) + steep - steep.detach()
        self.v = v - spikes.detach()
        return spikes


clocked.register_neuron(Own, state=("v",), leak=0.7)


def foreign() -> nn.Module:
    torch.manual_seed(4)
    layers = (nn.Linear(7, 6), Own(), nn.Linear(6, 5), Own(), nn.Linear(5, 3))
    network = nn.Sequential(*layers).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.5)
    return network


def plain() -> nn.Module:
    torch.manual_seed(2)
    return make_network()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "norms": normed,
    "scaled": scaled,
    "foreign": foreign,
}


def drift(network: nn.Module, t: int) -> None:
    """Change all parameters in place, by the same in each stream."""
    generator = torch.Generator().manual_seed(100 + t)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise, alpha=0.05)


def gradients_by_step(
    rule: Any, x: Tensor, targets: Sequence[Tensor | None], changes: bool
) -> list[dict[str, Tensor]]:
    found = []
    for t, (x_t, y) in enumerate(zip(x, targets, strict=True)):
        rule.network.zero_grad()
        rule.observe(x_t, y)
        grads = {n: p.grad for n, p in rule.network.named_parameters()}
        found.append({n: g.clone() for n, g in grads.items() if g is not None})
        if changes:
            drift(rule.network, t)
    return found


@pytest.mark.parametrize("changes", [False, True], ids=["same weights", "weights change"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_kept_eligibility_is_that_of_its_step_though_the_weights_change(
    kind: str, changes: bool
) -> None:
    """Feedback alignment: the hidden layers learn at t + d what they learn without delay at t."""
    x, y = make_data(STEPS)
    rules = [
        clocked.DFA(NETWORKS[kind](), input_shape=(7,), **options)
        for options in ({}, {"feedback_delay": 2, **MODES["kept"]})
    ]
    for connection, other in zip(rules[0].feedback, rules[1].feedback, strict=True):
        other.matrix.copy_(connection.matrix)
    in_time, late = (gradients_by_step(rule, x, [y] * STEPS, changes) for rule in rules)
    output = [name for name in late[0] if name in ("readout.weight", "4.weight", "6.weight")]
    assert len(output) == 1 and len(late[2]) == len(in_time[0])
    for t in range(STEPS):
        close(late[t][output[0]], in_time[t][output[0]], "output")
        for name in in_time[t]:
            hidden = not name.startswith(output[0].split(".")[0])
            if hidden and t + 2 < STEPS:
                close(late[t + 2][name], in_time[t][name], name)


def test_current_eligibility_is_that_of_the_changed_weights() -> None:
    """The error of step t meets the factors that an error of step t + d would meet."""
    x, y = make_data(STEPS)
    seen = {}

    class Fixed(clocked.FeedbackRule):
        """Sends 1 from step 1 alone, or from the step that is asked for."""

        def __init__(self, network: nn.Module, at: int, delay: int) -> None:
            super().__init__(network, feedback_delay=delay)
            self.at, self.asked = at, 0

        def layer_errors(self, step: clocked.TimeStep) -> list[Tensor]:
            factor = 1.0 if self.asked == self.at else 0.0
            self.asked += 1
            return [torch.full((BATCH, layer.size), factor).double() for layer in step.layers]

    for delay in (0, 3):
        torch.manual_seed(1)
        rule = Fixed(make_network(), at=4 - delay, delay=delay)
        seen[delay] = gradients_by_step(rule, x, [y] * STEPS, changes=True)
    for name in ("linear1.weight", "linear2.weight"):
        close(seen[3][4][name], seen[0][4][name], name)


@pytest.mark.parametrize("mode", ["current", "kept"])
def test_the_optimiser_may_step_in_each_time_step(mode: str) -> None:
    """Learning in each step, with computed weights, in the middle of a sequence."""
    x, y = make_data(STEPS)
    rule = make("opzo", feedback_delay=2, **MODES[mode])
    parametrizations.weight_norm(rule.network.linear2)
    optimizer = torch.optim.SGD(rule.network.parameters(), 0.1)
    before = copy.deepcopy(rule.network.state_dict())
    rule.step(x, y, after_step=lambda: (optimizer.step(), optimizer.zero_grad()))
    moved = [k for k, v in rule.network.state_dict().items() if not torch.equal(v, before[k])]
    assert len(moved) == len(before)


@pytest.mark.parametrize("mode", ["current", "kept"])
@pytest.mark.parametrize("case", ["dfa", "opzo", "opzo-two-point"])
def test_copies_and_pickles_of_a_stream_go_on_alike(case: str, mode: str) -> None:
    x, y = make_data(STEPS)
    rule = make(case, feedback_delay=2, **MODES[mode])
    fresh = make(case)
    assert rule.state_dict().keys() == fresh.state_dict().keys()
    for x_t in x[:4]:
        rule.observe(x_t, y)
    for module in (rule, rule.network):  # PyTorch does not copy gradients
        module.zero_grad()
    copies = [copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))]
    for one in (rule, *copies):
        torch.manual_seed(7)
        for x_t in x[4:]:
            one.observe(x_t, None if case == "dfa" else y)
    for one in copies:
        assert_same(learned(rule), learned(one), 1e-12)


def test_a_stream_with_graphs_under_way_cannot_be_copied() -> None:
    x, y = make_data(STEPS)
    rule = clocked.DFA(normed(), input_shape=(7,), feedback_delay=1, **MODES["kept"])
    rule.observe(x[0], y)
    with pytest.raises(InputError, match="cannot be copied or saved: let the errors arrive"):
        copy.deepcopy(rule)
    rule.observe(x[1], None)  # the error arrives; this step is on its way without one
    copy.deepcopy(rule)


@pytest.mark.parametrize("mode", ["current", "kept"])
def test_a_failed_step_leaves_nothing_behind(mode: str) -> None:
    x, y = make_data(STEPS)
    rule = make("opzo", feedback_delay=2, **MODES[mode])
    real, calls = rule.loss, 0

    def loss(output: Tensor, targets: Tensor) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise ZeroDivisionError
        return real(output, targets)

    rule.loss = loss
    with pytest.raises(ZeroDivisionError):
        rule.step(x, y)
    assert all(p.grad is None for p in rule.network.parameters())
    assert all(b.abs().max() == 0 for b in matrices(rule))
    rule.loss = real
    rule.perturbation.generator.manual_seed(1)
    rule.step(x, y)
    expected = make("opzo", feedback_delay=2, **MODES[mode])
    expected.step(x, y)
    assert_same(learned(rule), learned(expected), 1e-12)


def test_a_refused_input_does_not_move_what_is_under_way() -> None:
    x, y = make_data(STEPS)
    rules = [make("dfa", feedback_delay=2, **MODES["kept"]) for _ in range(2)]
    for t in range(STEPS):
        for rule in rules:
            rule.observe(x[t], y)
        with pytest.raises(InputError, match="NaN"):
            rules[1].observe(x[t] * float("nan"), y)
    assert_same(*map(learned, rules), 1e-12)


def test_no_more_steps_are_kept_than_are_under_way() -> None:
    x, y = make_data(1)
    rule = clocked.DFA(normed(), input_shape=(7,), feedback_delay=2, **MODES["kept"])
    sizes = []
    for _ in range(30):
        rule.observe(x[0], y)
        sizes.append(_graph_nodes(rule))
    assert sizes[5] == sizes[-1] > 0


def _graph_nodes(rule: Any) -> int:
    """Count the nodes of the graphs that hidden layers are kept with."""
    heads = [layer.head for _, kept in filter(None, rule._late._under_way) for layer in kept.layers]
    seen: set[Any] = set()
    waiting = [h.grad_fn for h in heads if isinstance(h, Tensor)]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(n for n, _ in node.next_functions)
    return len(seen)


class Rewrites(nn.Module):
    """Changes in place what an earlier step needs for its error."""

    input_shape = (7,)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.lif, self.b = nn.Linear(7, 6), clocked.LIF(), nn.Linear(6, 3)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        current = self.a(x)
        if self.training and self.kept is not None:
            self.kept.add_(1.0)
        factor = current.detach().clone()
        if self.training:
            self.kept = factor
        return self.b(self.lif(current * factor))


def test_what_a_kept_step_needs_may_not_be_changed_in_place() -> None:
    x, y = make_data(2)
    clocked.register_state(Rewrites, ("kept",))
    rule = clocked.DFA(Rewrites().double(), feedback_delay=1, **MODES["kept"])
    rule.observe(x[0], y)
    with pytest.raises(InputError, match="changed in place before the error of that step arrived"):
        rule.observe(x[1], y)
    with pytest.raises(InputError, match="failed half-way"):
        rule.observe(x[1], y)


# Labels that come later


@pytest.mark.parametrize("delay", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_late_labels_teach_what_labels_in_time_teach(case: str, delay: int) -> None:
    x, _ = make_data(STEPS)
    generator = torch.Generator().manual_seed(8)
    labels: list[Tensor | None] = [
        torch.randint(3, (BATCH,), generator=generator) for _ in range(STEPS)
    ]
    labels[2] = None  # one never comes
    in_time, late = make(case), make(case, label_delay=delay)
    losses = [in_time.observe(x_t, y).loss for x_t, y in zip(x, labels, strict=True)]
    for t in range(STEPS + delay):
        # What is seen after the last labelled step does not matter.
        result = late.observe(x[t % STEPS], labels[t - delay] if t >= delay else None)
        wanted = losses[t - delay] if t >= delay else None
        assert (result.loss is None) == (wanted is None)
        if wanted is not None:
            torch.testing.assert_close(result.loss, wanted, rtol=1e-12, atol=0)
    assert_same(learned(in_time), learned(late), 1e-12)


@pytest.mark.parametrize("kind", ["conv", "residual"])
@pytest.mark.parametrize("case", ["spatial-bp", "dkp", "zo-two-point", "opzo"])
def test_late_labels_of_pictures(case: str, kind: str) -> None:
    x, y = make_pictures(STEPS)
    network, in_time = build_pictures(case, kind)
    twin = copy.deepcopy(network)
    late = make_rule(case, twin, label_delay=2)
    for t in range(STEPS + 2):
        if t < STEPS:
            in_time.observe(x[t], y)
        late.observe(x[t % STEPS], y if t >= 2 else None)
    assert_same(learned(in_time), learned(late), 1e-12)


@pytest.mark.parametrize("rule", ["spatial-bp", "dfa"])
@pytest.mark.parametrize("kind", ["norms", "scaled", "foreign"])
def test_late_labels_of_other_layers(kind: str, rule: str) -> None:
    x, y = make_data(STEPS)
    networks = [NETWORKS[kind]() for _ in range(2)]
    rules: list[Any] = []
    for network, options in zip(networks, ({}, {"label_delay": 2}), strict=True):
        torch.manual_seed(0)
        rules.append(clocked.RULES[rule](network, input_shape=(7,), **options))
    for t in range(STEPS):
        rules[0].observe(x[t], y)
    for t in range(STEPS + 2):
        rules[1].observe(x[t % STEPS], y if t >= 2 else None)
    assert_same(*map(learned, rules), 1e-12)


def test_late_labels_and_late_errors_add_up() -> None:
    x, y = make_data(STEPS)
    rules = [
        make("opzo", feedback_delay=5, **MODES["kept"]),
        make("opzo", feedback_delay=2, label_delay=3, **MODES["kept"]),
    ]
    for t in range(STEPS):
        rules[0].observe(x[t], y)
        rules[1].observe(x[t], y if t >= 3 else None)
    hidden = [{k: v for k, v in learned(r).items() if "readout" not in k} for r in rules]
    assert_same(*hidden, 1e-12)


def test_output_neurons_learn_from_late_labels() -> None:
    x, y = make_data(STEPS)
    rules = []
    for options in ({}, {"label_delay": 2}):
        torch.manual_seed(5)
        layers = (nn.Linear(7, 6), clocked.LIF(), nn.Linear(6, 3), clocked.LIF())
        network = nn.Sequential(*layers).double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(2.5)
        torch.manual_seed(6)
        rules.append(clocked.DFA(network, input_shape=(7,), **options))
    for t in range(STEPS + 2):
        if t < STEPS:
            rules[0].observe(x[t], y)
        rules[1].observe(x[t % STEPS], y if t >= 2 else None)
    assert_same(*map(learned, rules), 1e-12)


class LeavesOut(nn.Module):
    """Does not call its second hidden layer while it trains."""

    input_shape = (7,)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.lif1 = clocked.Linear(7, 6), clocked.LIF()
        self.b, self.lif2 = clocked.Linear(6, 6), clocked.LIF()
        self.readout = clocked.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lif1(self.a(x))
        return self.readout(h if self.training else self.lif2(self.b(h)))


@pytest.mark.parametrize(
    "options", [{"feedback_delay": 1}, {"feedback_delay": 1, **MODES["kept"]}, {"label_delay": 1}]
)
def test_a_layer_that_is_left_out_is_refused_at_once(options: dict[str, Any]) -> None:
    x, y = make_data(1)
    rule = clocked.DFA(LeavesOut().double(), **options)
    with pytest.raises(InputError, match="leaves out hidden layer 'lif2'"):
        rule.observe(x[0], None if "label_delay" in options else y)


@every_mode
def test_a_constant_input_equals_its_sequence_while_the_weights_change(mode: str) -> None:
    x, y = make_data(1)
    seen = []
    for static in (True, False):
        rule = make("opzo", feedback_delay=2, **MODES[mode])
        times = iter(range(STEPS))
        given = x[0] if static else x.expand(STEPS, -1, -1)
        rule.step(
            given,
            y,
            steps=STEPS if static else None,
            after_step=lambda rule=rule, times=times: drift(rule.network, next(times)),
        )
        seen.append(learned(rule))
    assert_same(*seen, 1e-12)


@pytest.mark.parametrize(
    "options", [{"feedback_delay": 2, **MODES["delivered"]}, {"label_delay": 2}]
)
def test_computed_weights(options: dict[str, Any]) -> None:
    x, y = make_data(STEPS)
    seen = []
    for given in ({}, options):
        network = plain()
        parametrizations.weight_norm(network.linear2)
        prune.l1_unstructured(network.linear1, "weight", amount=0.3)
        rule = make_rule("opzo", network, **given)
        late = rule.label_delay
        if late or not given:
            for t in range(STEPS + late):
                rule.observe(x[t % STEPS], y if t >= late else None, steps=STEPS)
        else:
            rule.step(x, y)
        seen.append(learned(rule))
    assert_same(*seen, 1e-12)


# What OPZO's feedback gathers


class Tanh(clocked.Neuron):
    """A smooth activation without memory."""

    def advance(self, current: Tensor, noise: Tensor | None = None) -> Tensor:
        self.state = (current.clone() if noise is None else current + noise,)
        return self.state[0].tanh()

    def modulate(self, error: Tensor, state: tuple[Tensor, ...], gate: Tensor | float) -> Tensor:
        return error * gate * (1 - state[0].tanh() ** 2)


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("mode", ["current", "kept"])
def test_delayed_feedback_is_not_biased(mode: str, antithetic: bool) -> None:
    """M estimates the transposed read-out weights, as without delay.

    The noise that the layer has when the output arrives would give minus that for antithetic pairs,
    and 0 for independent noise.
    """
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), Tanh(), nn.Linear(4, 2)).double()
    rule = clocked.OPZO(
        network,
        input_shape=(3,),
        noise_scale=0.2,
        momentum=0.0,
        antithetic=antithetic,
        divide_by_scale=True,
        feedback_delay=1,
        feedback_meets=MODES[mode]["feedback_meets"],
        generator=torch.Generator().manual_seed(2),
        trace_decay=0.5,
    )
    x, y = torch.randn(4000, 3).double(), torch.randint(2, (4000,))
    rows = []
    for _ in range(24):
        rule.step(x, y, steps=2)  # the output of step 0 arrives in step 1
        rows.append(rule.feedback[0].matrix.clone())
    found, truth = torch.stack(rows), network[2].weight.detach()
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - truth).abs() / error).max() < 5
    for wrong in (-truth, 0 * truth, truth / 2):
        assert ((found.mean(0) - wrong).abs() / error).max() > 10


@pytest.mark.parametrize("mode", ["current", "kept"])
def test_a_message_meets_the_scale_of_its_own_noise(mode: str) -> None:
    """The noise scale moves while messages are under way."""
    x, y = make_data(STEPS)

    def gathered(**options: Any) -> list[Tensor]:
        rule = make("opzo", noise_scale=lambda p: 0.3 - 0.2 * p, antithetic=False, **options)
        for t in range(STEPS):
            rule.set_progress(t / STEPS)
            late = t >= STEPS - 2 and not options
            rule.observe(x[t], None if late else y)
        return matrices(rule)

    for a, b in zip(gathered(), gathered(feedback_delay=2, **MODES[mode]), strict=True):
        close(b, a, "feedback")


# Words and refusals


def test_describe_tells_the_delay() -> None:
    options: dict[str, Any] = {"feedback_delay": 2, "local_learning": "same-weights"}
    said = make("dfa", **options).describe()
    assert "from the output, 2 time steps later, on the eligibility that it finds then; " in said
    assert "0.01 times the error of its own read-out, at once" in said
    said = make("dkp", feedback_delay=1, **MODES["kept"]).describe()
    assert "1 time step later, on the eligibility of its own step" in said
    assert "of the time step 3 before" in make("zo-one-point", label_delay=3).describe()
    assert "later" not in make("opzo").describe() and "labels" not in make("opzo").describe()


@pytest.mark.parametrize("name", ["feedback_delay", "label_delay"])
@pytest.mark.parametrize("given", [-1, 1.5, "2", True, None])
def test_a_delay_is_a_whole_number(name: str, given: Any) -> None:
    with pytest.raises(InputError, match=f"{name} is {given!r}; give a whole number of time steps"):
        make("dfa", **{name: given})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"feedback_meets": "kept-eligibilty"},
            "'kept-eligibilty'; did you mean 'kept-eligibility'",
        ),
        ({"late_errors": "drop", **MODES["kept"]}, "unknown value of late_errors: 'drop'"),
        ({"late_errors": "delivered"}, 'needs feedback_meets="kept-eligibility"'),
        ({"label_delay": 1}, "label_delay together with feedback_delay needs"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make("opzo", feedback_delay=2, **options)


@pytest.mark.parametrize("mode", ["current", "kept"])
@pytest.mark.parametrize("delay", [STEPS, STEPS + 4])
def test_a_sequence_in_which_no_error_arrives_is_refused(delay: int, mode: str) -> None:
    x, y = make_data(STEPS)
    rule = make("opzo", feedback_delay=delay, **MODES[mode])
    message = rf"feedback_delay is {delay}, .* \(T = 7\): all errors would be lost"
    with pytest.raises(InputError, match=message):
        rule.step(x, y)
    with pytest.raises(InputError, match=message):
        rule.step(x[0], y, steps=STEPS)
    late = make("opzo", feedback_delay=2, **MODES[mode])
    with pytest.raises(InputError, match="ends 2 time steps after its first label"):
        late.step(x, [None] * (STEPS - 2) + [y] * 2)
    late.step(x, [None] * (STEPS - 3) + [y] * 3)
    assert late.network.linear1.weight.grad.abs().max() > 0


def test_delays_are_options_that_settings_know() -> None:
    for kind in (clocked.DFA, clocked.DKP, clocked.OPZO):
        found = options_of(kind)
        assert found["feedback_delay"] == Option(int, 0)
        assert found["feedback_meets"] == Option(str, "current-eligibility")
        assert found["late_errors"] == Option(str, "lost")
    for kind in clocked.RULES.values():
        assert options_of(kind)["label_delay"] == Option(int, 0)
    assert "feedback_delay" not in options_of(clocked.SpatialBP)


def test_labels_of_no_step_are_refused() -> None:
    x, y = make_data(STEPS)
    rule = make("dfa", label_delay=2)
    with pytest.raises(InputError, match=r"give None in its first 2 steps"):
        rule.observe(x[0], y)
    rule.observe(x[0], None)
    rule.observe(x[1], None)
    assert rule.observe(x[2], y).loss is not None
    rule.reset()
    with pytest.raises(InputError, match="label_delay is 2"):
        rule.observe(x[0], y)
    with pytest.raises(InputError, match="label_delay is 2, which is for streams"):
        rule.step(x, y)


def test_a_stream_goes_on_after_its_first_input_was_refused() -> None:
    x, y = make_data(2)
    rule = make("dfa")
    with pytest.raises(InputError, match="classes 0 to 2"):
        rule.observe(x[0], y + 9)
    rule.observe(x[0], y)
    expected = make("dfa")
    expected.observe(x[0], y)
    assert_same(learned(rule), learned(expected))


def test_no_delay_is_the_rule_as_it_was_to_the_bit() -> None:
    x, y = make_data(STEPS)
    for case in FEEDBACK:
        _, plain = build(case)
        plain.step(x, y)
        for mode in MODES.values():
            rule = make_rule(case, build(case)[0], feedback_delay=0, **mode)
            rule.step(x, y)
            for key, value in learned(plain).items():
                assert torch.equal(value, learned(rule)[key])
