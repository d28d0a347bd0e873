"""Small networks, data and one row per rule and option, shared by the tests of clocked rules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from reference import clocked as slow
from torch import Tensor, nn

from threefactor import clocked
from threefactor.clocked.noise import DISTRIBUTIONS

INPUTS, OUTPUTS, BATCH, STEPS = 7, 3, 4, 5
ALPHA = 0.3
ZO_DEFAULTS: dict[str, Any] = {"points": "one-point", "noise_scale": ALPHA}
OPZO_DEFAULTS: dict[str, Any] = {**ZO_DEFAULTS, "momentum": 0.9, "divide_by_scale": False}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "spatial-bp": ("spatial-bp", {}),
    "dfa": ("dfa", {}),
    "dfa-scaled": ("dfa", {"feedback_scale": 1.7}),
    "dkp": ("dkp", {}),
    "zo-one-point": ("zo", ZO_DEFAULTS),
    "zo-one-sided": ("zo", {**ZO_DEFAULTS, "points": "one-sided"}),
    "zo-two-point": ("zo", {**ZO_DEFAULTS, "points": "two-point"}),
    "zo-before": ("zo", {**ZO_DEFAULTS, "noise_position": "before"}),
    "zo-two-point-before": (
        "zo",
        {**ZO_DEFAULTS, "points": "two-point", "noise_position": "before"},
    ),
    "zo-independent": ("zo", {**ZO_DEFAULTS, "antithetic": False}),
    "zo-rademacher": ("zo", {**ZO_DEFAULTS, "noise_distribution": "rademacher"}),
    "zo-sphere": ("zo", {**ZO_DEFAULTS, "noise_distribution": "sphere"}),
    "opzo": ("opzo", OPZO_DEFAULTS),
    "opzo-divided": ("opzo", {**OPZO_DEFAULTS, "divide_by_scale": True}),
    "opzo-two-point": ("opzo", {**OPZO_DEFAULTS, "points": "two-point"}),
    "opzo-two-point-divided": (
        "opzo",
        {**OPZO_DEFAULTS, "points": "two-point", "divide_by_scale": True},
    ),
    "opzo-before": ("opzo", {**OPZO_DEFAULTS, "noise_position": "before"}),
    "opzo-two-point-before": (
        "opzo",
        {**OPZO_DEFAULTS, "points": "two-point", "noise_position": "before"},
    ),
    "opzo-independent": ("opzo", {**OPZO_DEFAULTS, "antithetic": False}),
    "opzo-no-momentum": ("opzo", {**OPZO_DEFAULTS, "momentum": 0.0}),
    "opzo-rademacher": ("opzo", {**OPZO_DEFAULTS, "noise_distribution": "rademacher"}),
    "opzo-sphere": ("opzo", {**OPZO_DEFAULTS, "noise_distribution": "sphere"}),
}
"""Rule name and options, by the name of the case. Adding a rule is adding a row."""

LOCAL_CASES: dict[str, dict[str, Any]] = {
    "same-weights": {"local_learning": "same-weights", "local_scale": 0.5},
    "fixed": {"local_learning": "fixed", "local_scale": 0.5, "readout_scale": 0.4},
    "learned": {"local_learning": "learned"},
    "middle": {"intermediate": True},
    "middle-and-local": {"intermediate": True, "local_learning": "same-weights"},
    "middle-and-learned": {"intermediate": True, "local_learning": "learned"},
}
"""Options of local learning by name; `intermediate` stands for a layer of the network in use."""


def strengthen(network: nn.Module, gain: float = 2.5) -> None:
    """Scale fresh weights up, so that neurons of such small layers really spike."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(gain)


def make_network(
    hidden: Sequence[int] = (6, 5), *, dtype: torch.dtype = torch.float64, **options: Any
) -> clocked.Network:
    network = clocked.fc(INPUTS, hidden, OUTPUTS, **options).to(dtype)
    strengthen(network)
    return network


def make_rule(case: str, network: nn.Module, *, seed: int = 1, **extra: Any) -> clocked.Rule:
    """The rule of a case; its noise comes from a generator of its own."""
    name, options = CASES[case]
    options = {**options, **extra}
    if any(isinstance(module, clocked.ResidualBlock) for module in network.modules()):
        # The read-out of a residual network sees currents, with no neurons between.
        options = {"chain": "within-layers", **options}
    if name in ("zo", "opzo"):
        options["generator"] = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    return clocked.RULES[name](network, **options)


def build(case: str, hidden: Sequence[int] = (6, 5), *, seed: int = 1, **options: Any) -> Any:
    """A fresh network and rule; equal seeds give equal ones. The global seed is set, too."""
    torch.manual_seed(seed)
    network = make_network(hidden, **options)
    rule = make_rule(case, network, seed=seed)
    torch.manual_seed(seed + 1)
    return network, rule


def make_conv(dropout: float = 0.0) -> clocked.Network:
    """Two convolutions, the second behind pooling; pooling before the read-out, too."""
    layers: dict[str, nn.Module] = {
        "conv1": clocked.Conv2d(2, 3, 3, padding=1, standardise=True),
        "lif1": clocked.LIF(dropout=dropout, scale=1.7),
        "conv2": clocked.Conv2d(3, 4, 3, padding=1, standardise=True, pool=2),
        "lif2": clocked.LIF(dropout=dropout, scale=1.7),
        "readout": clocked.Linear(4, OUTPUTS, pool=3),
    }
    return _lively(clocked.Network(OrderedDict(layers), PICTURE))


def make_residual(dropout: float = 0.0) -> clocked.Network:
    """A block that keeps the shape and one that halves it; the read-out sees the stream itself."""
    neuron = {"dropout": dropout, "scale": 1.7}
    layers: dict[str, nn.Module] = {
        "stem": clocked.Conv2d(2, 3, 3, padding=1, standardise=True),
        "stem_pool": nn.AvgPool2d(3, 2, padding=1),
        "block1": clocked.ResidualBlock(3, 3, 1, 0.9, **neuron),
        "block2": clocked.ResidualBlock(3, 4, 2, 0.8, **neuron),
        "pool": nn.AdaptiveAvgPool2d(1),
        "readout": clocked.Linear(4, OUTPUTS),
    }
    return _lively(clocked.Network(OrderedDict(layers), PICTURE))


def _lively(network: clocked.Network) -> clocked.Network:
    """Float64, and parameters that let neurons of such small layers spike; no gain stays at 0."""
    with torch.no_grad():
        for name, parameter in network.double().named_parameters():
            if name.endswith("gain"):
                parameter.uniform_(2.0, 4.0)
            elif name.endswith("bias"):
                parameter.uniform_(0.0, 0.8)
    return network


PICTURE = (2, 6, 6)
PICTURE_NETWORKS: dict[str, Callable[..., clocked.Network]] = {
    "conv": make_conv,
    "residual": make_residual,
}


def build_pictures(
    case: str,
    kind: str,
    *,
    dropout: float = 0.0,
    seed: int = 1,
    dtype: torch.dtype = torch.float64,
) -> Any:
    """As `build`, for one of `PICTURE_NETWORKS`."""
    torch.manual_seed(seed)
    network = PICTURE_NETWORKS[kind](dropout).to(dtype)
    rule = make_rule(case, network, seed=seed)
    torch.manual_seed(seed + 1)
    return network, rule


def make_pictures(
    steps: int = STEPS, *, dtype: torch.dtype = torch.float64, seed: int = 5
) -> tuple[Tensor, Tensor]:
    """A sequence (T, B, C, H, W) and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((steps, BATCH, *PICTURE), generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randint(OUTPUTS, (BATCH,), generator=generator)


def make_data(
    steps: int = STEPS, batch: int = BATCH, *, dtype: torch.dtype = torch.float64, seed: int = 5
) -> tuple[Tensor, Tensor]:
    """A sequence (T, B, n) and labels; one step of it serves as a constant input."""
    generator = torch.Generator().manual_seed(seed)
    shape = (steps, batch, INPUTS)
    inputs = torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(OUTPUTS, (batch,), generator=generator)
    return inputs.to(dtype), labels


def replay_noise(
    sizes: Sequence[int], steps: int, options: dict[str, Any], *, batch: int = BATCH, seed: int = 1
) -> list[list[Tensor]]:
    """The noise that a rule of `make_rule` draws: layer by layer within each step."""
    fill = DISTRIBUTIONS[options.get("noise_distribution", "gaussian")]
    generator = torch.Generator().manual_seed(seed)
    drawn: list[list[Tensor]] = []
    for t in range(steps):
        if options.get("antithetic", True) and t % 2 == 1:
            drawn.append([-z for z in drawn[-1]])
            continue
        shapes = [torch.empty(batch, n, dtype=torch.float64) for n in sizes]
        drawn.append([fill(z, options["noise_scale"], generator) for z in shapes])
    return drawn


def matrices(rule: clocked.Rule) -> list[Tensor]:
    """The matrices of the rule's feedback, first layer first; none without feedback."""
    return [connection.matrix for connection in getattr(rule, "feedback", [])]


def learned(rule: clocked.Rule) -> dict[str, Tensor]:
    """Copies of all gradients and of all feedback, by name."""
    parts = {f"network.{k}": v.grad for k, v in rule.network.named_parameters()}
    parts |= {f"rule.{k}": v.grad for k, v in rule.named_parameters()}
    parts |= {f"state.{k}": v for k, v in rule.state_dict().items()}
    return {k: v.detach().clone() for k, v in parts.items() if v is not None}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], rtol: float = 1e-9) -> None:
    """Equal up to rounding, and nothing of it absent or all zero."""
    assert a.keys() == b.keys() and a
    for key, value in a.items():
        assert value.abs().max() > 0, f"{key} is all zero: nothing is compared"
        scale = float(value.abs().max())
        torch.testing.assert_close(b[key], value, rtol=rtol, atol=rtol * scale, msg=lambda m: m)


def assert_alive(result: clocked.Result) -> None:
    """The network really spikes, in every layer, and is not saturated."""
    for name, rate in result.firing_rates.items():
        assert 0.02 < float(rate) < 0.98, f"{name} fires at {float(rate):.3f}"


def slow_outcome(
    case: str, network: clocked.Network, rule: clocked.Rule, **model: Any
) -> slow.Outcome:
    """What the slow version makes of `make_data`; `model` holds settings of `slow.Model`."""
    name, options = CASES[case]
    layers = [m for m in network if isinstance(m, clocked.Linear)]
    copy = slow.Model(
        [layer.weight.detach().numpy().copy() for layer in layers],
        [layer.bias.detach().numpy().copy() for layer in layers],
        **model,
    )
    sizes = [len(b) for b in copy.biases[:-1]]
    noise = None
    if "noise_scale" in options:
        noise = [[z.numpy() for z in step] for step in replay_noise(sizes, STEPS, options)]
    feedback = [b.detach().t().numpy().copy() for b in matrices(rule)]
    x, y = make_data()
    masks = [np.ones((BATCH, n)) for n in sizes]
    return slow.train(
        name, copy, x.numpy(), y.numpy(), masks, noise=noise, feedback=feedback, **options
    )


def assert_close(actual: Any, wanted: Any) -> None:
    """Equal to 1e-9 of the largest value, which is not 0."""
    wanted = np.asarray(wanted)
    scale = np.abs(wanted).max()
    assert scale > 0, "the reference is all zero"
    np.testing.assert_allclose(np.asarray(actual), wanted, rtol=1e-9, atol=1e-11 * scale)


def assert_slow(network: clocked.Network, rule: clocked.Rule, wanted: slow.Outcome) -> None:
    """Gradients and feedback are those of the slow version."""
    layers = [m for m in network if isinstance(m, clocked.Linear)]
    for i, layer in enumerate(layers):
        assert_close(layer.weight.grad, wanted.weight_grads[i])
        assert_close(layer.bias.grad, wanted.bias_grads[i])
    for i, matrix in enumerate(matrices(rule)):
        assert_close(matrix.detach().t(), wanted.feedback[i])
        if matrix.requires_grad:
            assert_close(matrix.grad.t(), wanted.feedback_grads[i])
