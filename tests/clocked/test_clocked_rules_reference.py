"""Every rule and option against the slow NumPy version: all that a training step leaves behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference import clocked as slow
from reference.clocked_cases import (
    BATCH,
    CASES,
    STEPS,
    assert_alive,
    build,
    make_data,
    matrices,
    replay_noise,
)

from threefactor import clocked

NETWORKS = {"one-hidden": (6,), "two-hidden": (6, 5), "three-hidden": (6, 5, 4)}


def close(actual: Any, expected: Any, name: str) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert np.abs(expected).max() > 0, f"{name}: the reference is all zero"
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11 * scale, err_msg=name)


def slow_model(network: clocked.Network) -> slow.Model:
    layers = [m for m in network if isinstance(m, clocked.Linear)]
    return slow.Model(
        [layer.weight.detach().numpy().copy() for layer in layers],
        [layer.bias.detach().numpy().copy() for layer in layers],
    )


def record_masks(network: clocked.Network) -> dict[str, Any]:
    """Dropout masks as they are drawn, by layer; a layer without one gets ones."""
    masks: dict[str, Any] = {}

    def keep(name: str, layer: clocked.LIF, output: torch.Tensor) -> None:
        gate = torch.ones_like(output) if layer.gate is None else layer.gate
        masks.setdefault(name, gate.clone().numpy())
        np.testing.assert_array_equal(masks[name], gate.numpy())  # held over the steps

    for name, layer in network.named_children():
        if isinstance(layer, clocked.LIF):
            layer.register_forward_hook(lambda m, _, out, name=name: keep(name, m, out))
    return masks


def slow_outcome(
    case: str, model: slow.Model, x: Any, y: Any, masks: list[Any], feedback: list[Any]
) -> slow.Outcome:
    name, options = CASES[case]
    noise = None
    if "noise_scale" in options:
        sizes = [len(b) for b in model.biases[:-1]]
        noise = [[z.numpy() for z in step] for step in replay_noise(sizes, STEPS, options)]
    return slow.train(
        name, model, x.numpy(), y.numpy(), masks, noise=noise, feedback=feedback, **options
    )


@pytest.mark.parametrize("hidden", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["plain", "dropout"])
@pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])
@pytest.mark.parametrize("case", CASES)
def test_rule_equals_its_formulas(
    case: str, static: bool, dropout: float, hidden: tuple[int, ...]
) -> None:
    network, rule = build(case, hidden, dropout=dropout)
    x, y = make_data()
    if static:
        x = x[:1].expand(STEPS, -1, -1)
    model, masks = slow_model(network), record_masks(network)
    feedback = [b.detach().t().numpy().copy() for b in matrices(rule)]

    result = rule.step(x[0], y, steps=STEPS) if static else rule.step(x, y)

    assert any((m == 0).any() for m in masks.values()) == (dropout > 0)
    expected = slow_outcome(case, model, x, y, list(masks.values()), feedback)
    assert_alive(result)
    compare(network, rule, result, expected)


def compare(
    network: clocked.Network, rule: clocked.Rule, result: clocked.Result, expected: slow.Outcome
) -> None:
    close(result.loss, expected.loss, "loss")
    close(result.output, expected.output, "output")
    close(list(result.firing_rates.values()), expected.rates, "rates")
    layers = [m for m in network if isinstance(m, clocked.Linear)]
    for i, layer in enumerate(layers):
        close(layer.weight.grad, expected.weight_grads[i], f"weight {i}")
        close(layer.bias.grad, expected.bias_grads[i], f"bias {i}")
    for i, b in enumerate(matrices(rule)):
        close(b.detach().t(), expected.feedback[i], f"feedback {i}")
        if b.requires_grad:
            close(b.grad.t(), expected.feedback_grads[i], f"feedback gradient {i}")


def test_every_registered_rule_has_a_case() -> None:
    assert {name for name, _ in CASES.values()} == set(clocked.RULES)


@pytest.mark.parametrize("leak", [0.8, 1.0], ids=["lif", "if"])
@pytest.mark.parametrize("case", CASES)
def test_reset_to_zero_equals_its_formulas(case: str, leak: float) -> None:
    network, rule = build(case, leak=leak, reset="zero", dropout=0.3)
    x, y = make_data()
    model, masks = slow_model(network), record_masks(network)
    model.reset, model.leak = "zero", leak
    feedback = [b.detach().t().numpy().copy() for b in matrices(rule)]
    result = rule.step(x, y)
    assert_alive(result)
    compare(network, rule, result, slow_outcome(case, model, x, y, list(masks.values()), feedback))
    model.reset = "subtract"
    other = slow_outcome(case, model, x, y, list(masks.values()), feedback)
    assert not np.allclose(network.linear1.weight.grad, other.weight_grads[0], rtol=1e-3)


def test_other_neuron_and_loss_settings() -> None:
    """Leak, threshold, surrogate width and share of the squared error that differ from defaults."""
    torch.manual_seed(3)
    network = clocked.fc(7, (6, 5), 3, leak=0.8, threshold=0.7, surrogate_width=0.4).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    model = slow_model(network)
    model.leak, model.threshold, model.width, model.mse_weight = 0.8, 0.7, 0.4, 0.3
    x, y = make_data()
    rule = clocked.SpatialBP(network, loss=clocked.CrossEntropyMSE(0.3))
    result = rule.step(x, y)
    masks = [np.ones((BATCH, 6)), np.ones((BATCH, 5))]
    expected = slow.train("spatial-bp", model, x.numpy(), y.numpy(), masks)
    assert_alive(result)
    compare(network, rule, result, expected)


def test_reference_tells_rules_apart() -> None:
    """The comparison above can fail: neighbouring rules and options differ by far more."""
    torch.manual_seed(0)
    seen: dict[str, np.ndarray] = {}
    for case in CASES:
        network, rule = build(case)
        x, y = make_data()
        rule.step(x, y)
        seen[case] = network.linear1.weight.grad.numpy()
    names = list(seen)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            same = np.allclose(seen[a], seen[b], rtol=1e-3)
            # DKP's first gradient is DFA's: they differ in what happens to B.
            assert same == ({a, b} == {"dfa", "dkp"}), (a, b)
