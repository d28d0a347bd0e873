"""Late errors and labels with learned constants, recurrence, decays that differ, several inputs."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from reference import clocked as slow
from reference.branch_cases import SHAPES, OneInput, make_inputs
from reference.branch_cases import make as make_branches
from reference.clocked_cases import (
    BATCH,
    CASES,
    assert_alive,
    assert_same,
    learned,
    make_data,
    make_network,
    make_rule,
    matrices,
    replay_noise,
)
from torch import Tensor, nn
from torch.nn.utils import parametrize

from threefactor import clocked
from threefactor.errors import InputError

STEPS = 7
SIZES = (6, 5)
MODES: dict[str, dict[str, Any]] = {
    "current": {"feedback_meets": "current-eligibility"},
    "kept": {"feedback_meets": "kept-eligibility"},
    "delivered": {"feedback_meets": "kept-eligibility", "late_errors": "delivered"},
}
LEAKS = [torch.linspace(0.2, 0.9, 6), torch.linspace(0.95, 0.3, 5)]
THRESHOLDS = [torch.linspace(0.6, 1.4, 6), torch.linspace(1.2, 0.5, 5)]
ALPHAS = [torch.linspace(0.1, 0.7, 6), torch.linspace(0.8, 0.2, 5)]

# What the hidden layers are: class, a value for each neuron or one, learned or not, recurrent.
LAYERS: dict[str, tuple[type[clocked.LIF], bool, bool, bool]] = {
    "LIF, learned": (clocked.LIF, False, True, False),
    "LIF, learned by each": (clocked.LIF, True, True, False),
    "LIF that differ": (clocked.LIF, True, False, False),
    "CubaLIF": (clocked.CubaLIF, False, False, False),
    "CubaLIF, learned by each": (clocked.CubaLIF, True, True, False),
    "recurrent": (clocked.LIF, False, False, True),
    "recurrent CubaLIF, learned": (clocked.CubaLIF, False, True, True),
    "recurrent LIF, learned by each": (clocked.LIF, True, True, True),
}
every_kind = pytest.mark.parametrize("kind", LAYERS)


def network_of(kind: str) -> clocked.Network:
    """Two hidden layers whose constants differ, so that each trace has a decay of its own."""
    neuron, each, learns, recurrent = LAYERS[kind]
    torch.manual_seed(1)
    network = make_network(SIZES, recurrent=recurrent)
    for i in range(2):
        given: dict[str, Any] = {"leak": LEAKS[i], "threshold": THRESHOLDS[i]}
        if neuron is clocked.CubaLIF:
            given["synaptic_leak"] = ALPHAS[i]
        values = {n: v.double() if each else v.mean().item() for n, v in given.items()}
        layer = neuron(**values, **{f"learn_{n}": learns for n in given}).double()
        for name, value in values.items():  # in double precision, which the parameter has now
            setattr(layer, name, value)
        if recurrent:
            getattr(network, f"lif{i + 1}").neuron = layer
        else:
            network._modules[f"lif{i + 1}"] = layer
    return network


def rule_of(case: str, kind: str, **options: Any) -> Any:
    decay = "per-neuron" if LAYERS[kind][1] else None
    return make_rule(case, network_of(kind), trace_decay=decay, **options)


def neurons_of(network: nn.Module) -> list[Any]:
    return [m for m in network.modules() if isinstance(m, clocked.LIF)]


def close(actual: Any, expected: Any, name: str) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = np.abs(expected).max()
    assert scale > 0, f"{name}: the reference is all zero"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * scale, err_msg=name)


def plain(value: Any) -> Any:
    return value.numpy().copy() if isinstance(value, Tensor) else value


def slow_outcome(
    case: str, rule: Any, x: Tensor, y: Tensor, *, steps: int | None = None, **late: Any
) -> slow.Outcome:
    name, options = CASES[case]
    network, neurons = rule.network, neurons_of(rule.network)
    linear = [getattr(network, n) for n in ("linear1", "linear2", "readout")]
    back = [m.synapse for m in network if isinstance(m, clocked.Recurrent)]
    model = slow.Model(
        [layer.weight.detach().numpy().copy() for layer in linear],
        [layer.bias.detach().numpy().copy() for layer in linear],
        leak=[plain(layer.leak) for layer in neurons],
        threshold=[plain(layer.threshold) for layer in neurons],
        recurrent=[m.weight.detach().numpy().copy() for m in back],
    )
    if isinstance(neurons[0], clocked.CubaLIF):
        model.synaptic = [plain(layer.synaptic_leak) for layer in neurons]
    noise = None
    if "noise_scale" in options:
        drawn = replay_noise(SIZES, len(x), options)
        noise = [[z.numpy() for z in step] for step in drawn]
    return slow.train(
        name,
        model,
        x.numpy(),
        y.numpy(),
        [np.ones((BATCH, n)) for n in SIZES],
        noise=noise,
        feedback=[b.detach().t().numpy().copy() for b in matrices(rule)],
        **late,
        **options,
    )


def assert_slow(rule: Any, expected: slow.Outcome) -> None:
    network = rule.network
    for i, name in enumerate(("linear1", "linear2", "readout")):
        close(getattr(network, name).weight.grad, expected.weight_grads[i], f"{name}, weight")
        close(getattr(network, name).bias.grad, expected.bias_grads[i], f"{name}, bias")
    recurrent = [m for m in network if isinstance(m, clocked.Recurrent)]
    for i, layer in enumerate(recurrent):
        close(layer.synapse.weight.grad, expected.recurrent_grads[i], f"recurrent {i}")
    found = (
        ("leak", expected.leak_grads, lambda v: v * (1 - v)),
        ("threshold", expected.threshold_grads, lambda v: v),
        ("synaptic_leak", expected.synaptic_grads, lambda v: v * (1 - v)),
    )
    for i, layer in enumerate(neurons_of(network)):
        for name, grads, slope in found:
            if f"raw_{name}" in layer.learned:
                value = torch.as_tensor(getattr(layer, name), dtype=torch.float64)
                by_raw, grad = grads[i] * slope(value).numpy(), getattr(layer, f"raw_{name}").grad
                close(grad, by_raw if value.dim() else by_raw.sum(), f"{name} {i}")
    for i, b in enumerate(matrices(rule)):
        close(b.detach().t(), expected.feedback[i], f"feedback {i}")
        if b.requires_grad:
            close(b.grad.t(), expected.feedback_grads[i], f"feedback gradient {i}")


@pytest.mark.parametrize(
    ("delay", "mode"),
    [(0, "current"), *((d, mode) for d in (1, 2) for mode in MODES)],
)
@pytest.mark.parametrize("case", ["dfa", "dkp", "opzo-two-point-divided", "opzo-before"])
@every_kind
def test_delayed_feedback_equals_its_formulas(kind: str, case: str, delay: int, mode: str) -> None:
    x, y = make_data(STEPS)
    for static in (False, True) if delay == 2 else (False,):
        rule = rule_of(case, kind, feedback_delay=delay, **MODES[mode])
        seen = x[:1].expand(STEPS, -1, -1) if static else x
        late = {"delay": delay, "kept": mode != "current", "delivered": mode == "delivered"}
        expected = slow_outcome(case, rule, seen, y, **late)
        result = rule.step(x[0], y, steps=STEPS) if static else rule.step(x, y)
        if not static:
            assert_alive(result)
        close(result.loss, expected.loss, "loss")
        assert_slow(rule, expected)


@pytest.mark.parametrize(
    "case", ["spatial-bp", "dfa", "dkp", "zo-one-point", "zo-two-point", "opzo", "opzo-two-point"]
)
@every_kind
def test_late_labels_teach_what_the_formulas_say(kind: str, case: str) -> None:
    """Also with errors that come later still, of rules that have them."""
    x, y = make_data(STEPS)
    later = [0, 1] if case in ("dfa", "dkp") else [0]
    for labels, errors in [(1, 0), *((2, d) for d in later)]:
        given = {"feedback_delay": errors, **MODES["kept"]} if errors else {}
        rule = rule_of(case, kind, label_delay=labels, **given)
        expected = slow_outcome(case, rule, x, y)
        for t in range(STEPS + labels + errors):
            # What is seen after the last labelled step does not matter.
            told = labels <= t < STEPS + labels
            rule.observe(x[t % STEPS], y if told else None, steps=STEPS)
        assert_slow(rule, expected)


def test_modes_and_delays_tell_themselves_apart() -> None:
    """The comparisons above can fail: each delay and mode leaves other gradients everywhere."""
    x, y = make_data(STEPS)
    for kind in LAYERS:
        seen: list[dict[str, Tensor]] = []
        for options in ({}, *({"feedback_delay": d, **MODES[m]} for d in (1, 2) for m in MODES)):
            if options.get("late_errors") != "delivered":
                rule = rule_of("dfa", kind, **options)
                rule.step(x, y)
                seen.append(learned(rule))
        hidden = [n for n in seen[0] if n.startswith(("network.linear", "network.lif"))]
        assert len(hidden) >= 4
        for i, a in enumerate(seen):
            for b in seen[i + 1 :]:
                assert not any(torch.allclose(a[n], b[n], rtol=1e-3) for n in hidden)


# Weights and constants that change while an error is under way


def drift(network: nn.Module, t: int) -> None:
    """Change weights and constants in place, by the same in each stream."""
    generator = torch.Generator().manual_seed(100 + t)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise, alpha=0.05)
        for layer in neurons_of(network):
            layer.surrogate_width = 0.25 + 0.02 * t
            layer.scale = 1.0 + 0.1 * t
            if not layer.learned:
                layer.threshold = layer.threshold * 0.97


def gradients_by_step(rule: Any, x: Tensor, targets: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    found = []
    for t, (x_t, y) in enumerate(zip(x, targets, strict=True)):
        rule.network.zero_grad()
        rule.observe(x_t, y)
        grads = {n: p.grad for n, p in rule.network.named_parameters()}
        found.append({n: g.clone() for n, g in grads.items() if g is not None})
        drift(rule.network, t)
    return found


@every_kind
def test_kept_eligibility_is_that_of_its_step_though_all_changes(kind: str) -> None:
    """Feedback alignment: the hidden layers learn at t + d what they learn without delay at t."""
    x, y = make_data(STEPS)
    rules = [
        rule_of("dfa", kind, **given) for given in ({}, {"feedback_delay": 2, **MODES["kept"]})
    ]
    in_time, late = (gradients_by_step(rule, x, [y] * STEPS) for rule in rules)
    hidden = [n for n in in_time[0] if not n.startswith("readout")]
    assert len(hidden) == len(in_time[0]) - 2
    for t in range(STEPS - 2):
        for name in hidden:
            if t == 0 and ("synapse" in name or "leak" in name):  # from rest, nothing came back
                assert in_time[t][name].abs().max() == 0 == late[t + 2][name].abs().max()
            else:
                close(late[t + 2][name], in_time[t][name], name)


@every_kind
def test_current_eligibility_is_that_of_the_changed_layers(kind: str) -> None:
    """The error of step t meets the factors that an error of step t + d would meet."""
    x, y = make_data(STEPS)

    class Fixed(clocked.FeedbackRule):
        """Sends 1 from one step alone."""

        def __init__(self, network: nn.Module, at: int, delay: int) -> None:
            decay = "per-neuron" if LAYERS[kind][1] else None
            super().__init__(network, feedback_delay=delay, trace_decay=decay)
            self.at, self.asked = at, 0

        def layer_errors(self, step: clocked.TimeStep) -> list[Tensor]:
            factor = 1.0 if self.asked == self.at else 0.0
            self.asked += 1
            return [torch.full((BATCH, layer.size), factor).double() for layer in step.layers]

    seen = {}
    for delay in (0, 3):
        rule = Fixed(network_of(kind), at=4 - delay, delay=delay)
        seen[delay] = gradients_by_step(rule, x, [y] * STEPS)
    for name in seen[0][4]:
        if not name.startswith("readout"):
            close(seen[3][4][name], seen[0][4][name], name)


@pytest.mark.parametrize("kind", ["LIF, learned", "LIF, learned by each", "CubaLIF"])
@pytest.mark.parametrize("mode", MODES)
def test_a_constant_input_equals_its_sequence_while_all_changes(mode: str, kind: str) -> None:
    x, y = make_data(1)
    seen = []
    for static in (True, False):
        rule = rule_of("opzo", kind, feedback_delay=2, **MODES[mode])
        times = iter(range(STEPS))
        rule.step(
            x[0] if static else x.expand(STEPS, -1, -1),
            y,
            steps=STEPS if static else None,
            after_step=lambda rule=rule, times=times: drift(rule.network, next(times)),
        )
        seen.append(learned(rule))
    assert_same(*seen, 1e-12)


def test_late_labels_of_spatial_backpropagation_keep_the_constants_of_the_step() -> None:
    """One hidden layer, whose error passes the read-out's weights; these are held still."""
    x, y = make_data(STEPS)
    seen = []
    for delay in (0, 2):
        torch.manual_seed(1)
        network = make_network((6,))
        network._modules["lif1"] = clocked.LIF(learn_leak=True, learn_threshold=True).double()
        rule = clocked.SpatialBP(network, label_delay=delay)
        grads = []
        for t in range(STEPS):
            network.zero_grad()
            rule.observe(x[t], y if t >= delay else None)
            grads.append(copy.deepcopy({n: p.grad for n, p in network.named_parameters()}))
            with torch.no_grad():
                network.lif1.raw_leak.add_(0.1)
                network.lif1.raw_threshold.sub_(0.05)
                network.linear1.weight.mul_(1.05)
        seen.append(grads)
    for t in range(1, STEPS - 2):
        for name, grad in seen[0][t].items():
            close(seen[1][t + 2][name], grad, name)


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x


@pytest.mark.parametrize(
    "options", [{"feedback_delay": 2, **MODES["delivered"]}, {"label_delay": 2}]
)
@pytest.mark.parametrize("case", ["spatial-bp", "dfa"])
def test_a_computed_constant(case: str, options: dict[str, Any]) -> None:
    x, y = make_data(STEPS)
    if case == "spatial-bp" and "feedback_delay" in options:
        options = {"label_delay": 1}
    seen = []
    for given in ({}, options):
        network = network_of("LIF, learned")
        parametrize.register_parametrization(network.lif1, "raw_leak", Halved())
        rule = make_rule(case, network, **given)
        late = rule.label_delay
        if late:
            for t in range(STEPS + late):
                rule.observe(x[t % STEPS], y if t >= late else None, steps=STEPS)
        else:
            rule.step(x, y)
        seen.append(learned(rule))
    assert "network.lif1.parametrizations.raw_leak.original" in seen[0]
    assert_same(*seen, 1e-12)


@pytest.mark.parametrize(
    "options", [{"feedback_delay": 1, **MODES["kept"]}, {"label_delay": 1}, {"feedback_delay": 1}]
)
def test_frozen_weights_let_constants_learn(options: dict[str, Any]) -> None:
    """And frozen constants let weights learn."""
    x, y = make_data(STEPS)
    whole = rule_of("dfa", "LIF, learned", **options)
    parts = []
    for frozen in ("raw", "linear"):
        rule = rule_of("dfa", "LIF, learned", **options)
        for name, parameter in rule.network.named_parameters():
            parameter.requires_grad_(frozen not in name)
        parts.append(rule)
    for t in range(STEPS):
        for rule in (whole, *parts):
            late = rule.label_delay
            rule.observe(x[t], y if t >= late else None)
    both = {**learned(parts[0]), **learned(parts[1])}
    assert_same(learned(whole), both, 1e-12)


# Streams


@pytest.mark.parametrize("mode", ["current", "kept"])
@pytest.mark.parametrize("case", ["dkp", "opzo-two-point"])
@pytest.mark.parametrize(
    "kind", ["CubaLIF, learned by each", "recurrent CubaLIF, learned", "LIF that differ"]
)
def test_a_stream_equals_a_step_while_others_work(kind: str, case: str, mode: str) -> None:
    """A run and two other rules use the network between its steps."""
    x, y = make_data(STEPS)
    whole = rule_of(case, kind, feedback_delay=2, **MODES[mode])
    whole.step(x, y)
    stream = rule_of(case, kind, feedback_delay=2, **MODES[mode])
    network, decay = stream.network, stream.trace_decay
    with torch.random.fork_rng():
        others = [
            clocked.DFA(network, trace_decay=decay, feedback_delay=1, **MODES["kept"]),
            clocked.SpatialBP(network, trace_decay=decay, label_delay=1),
        ]
    for x_t in x:
        stream.observe(x_t, y, steps=STEPS)
        before = {n: p.grad for n, p in network.named_parameters()}
        for parameter in network.parameters():
            parameter.grad = None
        with torch.random.fork_rng():
            clocked.run(network, -x)
            others[0].observe(2 * x_t[:2], y[:2])
            others[1].observe(-x_t[:3], None)
        for name, parameter in network.named_parameters():
            parameter.grad = before[name]
    assert_same(learned(whole), learned(stream), 1e-12)


@pytest.mark.parametrize("options", [{"feedback_delay": 2, **MODES["kept"]}, {"feedback_delay": 2},
                                     {"label_delay": 2}])  # fmt: skip
@every_kind
def test_copies_and_pickles_of_a_stream_go_on_alike(kind: str, options: dict[str, Any]) -> None:
    x, y = make_data(STEPS)
    rule = rule_of("dkp", kind, **options)
    for t in range(4):
        rule.observe(x[t], y if t >= rule.label_delay else None)
    for module in (rule, rule.network):  # PyTorch does not copy gradients
        module.zero_grad()
    if LAYERS[kind][3] and options != {"feedback_delay": 2}:
        advice = "call" if rule.label_delay else "let the errors arrive"
        with pytest.raises(InputError, match=rf"has recurrent layers.* copied or saved: {advice}"):
            copy.deepcopy(rule)
        if rule.label_delay:
            rule.reset()
            copy.deepcopy(rule)
            return
        for _ in range(2):  # all that is under way arrives, without a new error
            rule.observe(x[0], None)
        rule.zero_grad()
        rule.network.zero_grad()
    copies = [copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))]
    for one in (rule, *copies):
        for x_t in x[4:]:
            one.observe(x_t, y)
    for one in copies:
        assert_same(learned(rule), learned(one), 1e-12)


@pytest.mark.parametrize("mode", ["current", "kept"])
@every_kind
def test_a_failed_step_leaves_nothing_behind(kind: str, mode: str) -> None:
    x, y = make_data(STEPS)
    rule = rule_of("dkp", kind, feedback_delay=2, **MODES[mode])
    real, asked = rule.layer_errors, 0

    def fails(step: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise ZeroDivisionError
        return real(step)

    rule.layer_errors = fails
    with pytest.raises(ZeroDivisionError):
        rule.step(x, y)
    assert all(p.grad is None for p in (*rule.network.parameters(), *rule.parameters()))
    rule.step(x, y)
    expected = rule_of("dkp", kind, feedback_delay=2, **MODES[mode])
    expected.step(x, y)
    assert_same(learned(rule), learned(expected), 1e-12)


# Pictures


@pytest.mark.parametrize(
    "options", [{"feedback_delay": 2, **MODES["delivered"]}, {"label_delay": 2}]
)
def test_channels_that_learn_their_constants(options: dict[str, Any]) -> None:
    """Recurrent convolutions with dropout, and read-outs of hidden layers beside the feedback."""
    seen = []
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(BATCH, 2, 6, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (BATCH,), generator=generator)
    for given in ({}, options):
        torch.manual_seed(0)
        learns = {"learn_leak": True, "learn_threshold": True, "learn_synaptic_leak": True}
        neuron = clocked.CubaLIF(leak=torch.full((3,), 0.3), dropout=0.2, **learns)
        network = nn.Sequential(
            clocked.Conv2d(2, 3, 3, padding=1, standardise=True),
            clocked.Recurrent(neuron, clocked.Conv2d(3, 3, 3, padding=1, bias=False)),
            clocked.Conv2d(3, 4, 3, padding=1, pool=2),
            clocked.LIF(learn_threshold=True),
            clocked.Linear(36, 3),
        ).double()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith(("gain", "bias")):
                    parameter.uniform_(0.5, 2.0)
        rule = clocked.OPZO(
            network,
            input_shape=(2, 6, 6),
            trace_decay=dict.fromkeys(("0", "1.synapse", "1.neuron", "2"), 0.5),
            local_learning="learned",
            generator=torch.Generator().manual_seed(3),
            **given,
        )
        torch.manual_seed(9)
        if late := rule.label_delay:
            for t in range(STEPS + late):
                rule.observe(x, y if t >= late else None, steps=STEPS)
        else:
            rule.step(x, y, steps=STEPS)
        seen.append(learned(rule))
    assert {f"network.1.neuron.{n}" for n in neuron.learned} < seen[0].keys()
    assert_same(*seen, 1e-12)


# Several inputs


@pytest.mark.parametrize("options", [
    {"feedback_delay": 2}, {"feedback_delay": 2, **MODES["kept"]},
    {"feedback_delay": 2, **MODES["delivered"]},
])  # fmt: skip
@pytest.mark.parametrize("case", ["dfa", "dkp", "opzo", "opzo-two-point"])
def test_several_inputs_learn_as_one_row_of_both(case: str, options: dict[str, Any]) -> None:
    image, audio, y = make_inputs()
    rule = make_rule(case, make_branches("skip to the read-out"), input_shape=SHAPES, **options)
    rule.step({"image": image, "audio": audio}, y)
    row = make_rule(case, OneInput(make_branches("skip to the read-out")), **options)
    row.step(torch.cat([image.flatten(2), audio], 2), y)
    assert_same(learned(rule), {k.replace("branches.", ""): v for k, v in learned(row).items()})
    if "late_errors" in options:
        in_time = make_rule(case, make_branches("skip to the read-out"), input_shape=SHAPES)
        in_time.step({"image": image, "audio": audio}, y)
        assert_same(learned(rule), learned(in_time), 1e-12)


@pytest.mark.parametrize("give", [lambda i, a: {"audio": a, "image": i}, lambda i, a: (i, a)],
                         ids=["dict", "tuple"])  # fmt: skip
@pytest.mark.parametrize("case", ["spatial-bp", "dkp", "zo-two-point", "opzo-two-point"])
def test_late_labels_of_several_inputs(case: str, give: Callable[..., Any]) -> None:
    image, audio, y = make_inputs()
    steps = len(image)
    shapes = SHAPES if isinstance(give(0, 0), dict) else tuple(SHAPES.values())
    in_time, late = (
        make_rule(
            case, make_branches("skip to the read-out"), input_shape=shapes, label_delay=delay
        )
        for delay in (0, 2)
    )
    for t in range(steps):
        in_time.observe(give(image[t], audio[t]), y)
    for t in range(steps + 2):
        late.observe(give(image[t % steps], audio[t % steps]), y if t >= 2 else None)
    assert_same(learned(in_time), learned(late), 1e-12)


# Words


def test_describe_tells_both_the_delay_and_what_a_layer_learns() -> None:
    rule = rule_of("dfa", "recurrent LIF, learned by each", feedback_delay=2, **MODES["kept"])
    said = rule.describe()
    assert "2 time steps later, on the eligibility of its own step" in said
    assert "lif1.neuron.raw_leak" in said and "eligibility of the neurons" in said
    assert "trace of the layer's activity, decays by the leak of each neuron behind" in said
    assert (
        "of the time step 3 before" in rule_of("zo-one-point", "CubaLIF", label_delay=3).describe()
    )


def test_labels_of_a_recurrent_stream_are_refused_as_any() -> None:
    x, y = make_data(2)
    rule = rule_of("dfa", "recurrent", label_delay=1)
    with pytest.raises(InputError, match="give None in its first 1 steps"):
        rule.observe(x[0], y)
