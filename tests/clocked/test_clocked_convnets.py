"""Builders of convolutional and residual networks: shapes, sizes, settings, bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from threefactor import clocked
from threefactor.errors import InputError

TINY: dict[str, tuple[Callable[..., clocked.Network], dict[str, Any]]] = {
    "conv5": (clocked.conv5, {"width": 0.03}),
    "conv9": (clocked.conv9, {"width": 0.03}),
    "nf_resnet34": (clocked.nf_resnet34, {"width": 0.06}),
}
every_builder = pytest.mark.parametrize("name", TINY)


def plan(network: clocked.Network) -> str:
    """The network in the paper's notation."""
    words = []
    for layer in network:
        if isinstance(layer, (clocked.Conv2d, clocked.Linear)) and layer.pool > 1:
            words.append(f"AP{layer.pool}")
        if isinstance(layer, clocked.Conv2d):
            words.append(f"{layer.out_channels}C{layer.kernel_size[0]}")
        elif isinstance(layer, clocked.Linear):
            words.append("FC")
    return "-".join(words)


def test_plans() -> None:
    assert plan(clocked.conv5()) == "128C3-AP2-256C3-AP2-512C3-AP2-512C3-FC"
    assert (
        plan(clocked.conv9(width=0.5))
        == "32C3-64C3-AP2-128C3-128C3-AP2-256C3-256C3-AP2-256C3-256C3-FC"
    )
    full = clocked.conv9()
    assert plan(full) == "64C3-128C3-AP2-256C3-256C3-AP2-512C3-512C3-AP2-512C3-512C3-FC"
    assert full.readout.in_features == 512 * 4 * 4
    assert all(m.scale == 2.74 for m in full if isinstance(m, clocked.LIF))


def test_nf_resnet34_plan() -> None:
    network = clocked.nf_resnet34(width=1 / 16)
    blocks = [m for m in network if isinstance(m, clocked.ResidualBlock)]
    assert [b.conv1.out_channels for b in blocks] == [4] * 3 + [8] * 4 + [16] * 6 + [32] * 3
    changes = [b.shortcut is not None for b in blocks]
    assert [i for i, change in enumerate(changes) if change] == [3, 7, 13]
    assert all(b.conv1.stride == ((2, 2) if b.shortcut else (1, 1)) for b in blocks)
    squares = [b.beta**2 for b in blocks]
    first, second = [1.0, 1.04, 1.08, 1.12], [1.04, 1.08, 1.12, 1.16]
    third, fourth = [1.04, 1.08, 1.12, 1.16, 1.20, 1.24], [1.04, 1.08]
    assert squares == pytest.approx(first + second + third + fourth)
    convolutions = [m for m in network.modules() if isinstance(m, clocked.Conv2d)]
    assert len(convolutions) == 1 + 2 * 16 + 3
    assert all(c.gain is not None and c.bias is not None for c in convolutions)
    assert all(b.gain.item() == 0.0 for b in blocks)


def test_block_starts_as_the_identity() -> None:
    block = clocked.ResidualBlock(3, 3, 1, 1.0)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(block(x), x)


@every_builder
@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 34, 21), (3, 48, 48)])
def test_any_picture(name: str, shape: tuple[int, int, int]) -> None:
    make, options = TINY[name]
    network = make(shape, 7, **options)
    assert network.input_shape == shape
    result = clocked.run(network, torch.randn(2, *shape), steps=2)
    assert result.output.shape == (2, 7)
    layers = sum(isinstance(m, clocked.LIF) for m in network.modules())
    assert layers == {"conv5": 4, "conv9": 8, "nf_resnet34": 32}[name] == len(result.firing_rates)


@every_builder
@pytest.mark.parametrize("rule", clocked.RULES)
def test_every_rule_trains_every_network(name: str, rule: str) -> None:
    """Gradients of the right shape, finite, and not zero where a neuron's error can reach."""
    torch.manual_seed(0)
    make, options = TINY[name]
    network = make((2, 16, 16), 5, dropout=0.1, **options)
    for key, parameter in network.named_parameters():
        if key.endswith("gain"):  # such narrow layers are silent otherwise
            torch.nn.init.constant_(parameter, 4.0)
    chain = "within-layers" if name == "nf_resnet34" else "none"
    built = clocked.RULES[rule](network, chain=chain)
    built.step(torch.randn(3, 2, 16, 16), torch.tensor([0, 1, 4]), steps=2)
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.shape == parameter.shape
    assert network[0].weight.grad.abs().max() > 0
    assert network.readout.weight.grad.abs().max() > 0


def test_settings_reach_the_neurons() -> None:
    given = {"leak": 0.8, "threshold": 0.7, "dropout": 0.2, "scale": 1.5, "surrogate_width": 0.4}
    for make, options in TINY.values():
        network = make((1, 8, 8), 3, **options, **given)
        for module in network.modules():
            if isinstance(module, clocked.LIF):
                assert {key: getattr(module, key) for key in given} == given


@every_builder
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_shape": (3, 32)}, "channels, height and width"),
        ({"input_shape": (3, 0, 32)}, "channels, height and width"),
        ({"out_features": 0}, "out_features is 0"),
        ({"width": 0.0}, "width is 0.0"),
        ({"width": float("nan")}, "width is nan"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"leak": 1.5}, "leak is 1.5"),
    ],
)
def test_bad_settings(name: str, changes: dict[str, Any], message: str) -> None:
    make, options = TINY[name]
    with pytest.raises(InputError, match=message):
        make(**{"input_shape": (3, 8, 8), **options, **changes})


def test_pictures_too_small_to_pool() -> None:
    for make in (clocked.conv5, clocked.conv9):
        with pytest.raises(InputError, match=r"nothing is left .* 3 times"):
            make((3, 7, 32), width=0.1)


@pytest.mark.parametrize("depths", [(3, 4, 6), (1, 0, 1, 1), (1, 1.5, 1, 1)])
def test_bad_depths(depths: Any) -> None:
    with pytest.raises(InputError, match="depths is"):
        clocked.nf_resnet34((3, 8, 8), depths=depths)
