"""Every rule and option on a convolutional and a residual network, against the slow version."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch
from reference import clocked_conv as slow
from reference.clocked_cases import (
    CASES,
    PICTURE_NETWORKS,
    STEPS,
    assert_alive,
    assert_same,
    build_pictures,
    learned,
    make_pictures,
    make_rule,
    matrices,
    replay_noise,
)
from torch import Tensor, nn

from threefactor import clocked
from threefactor.clocked.noise import DISTRIBUTIONS

every_case = pytest.mark.parametrize("case", CASES)
every_network = pytest.mark.parametrize("kind", PICTURE_NETWORKS)
both_inputs = pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])


def record_masks(network: nn.Module) -> dict[str, Tensor]:
    """What the raw output of each layer is multiplied by, as it is drawn."""
    masks: dict[str, Tensor] = {}

    def keep(name: str, layer: clocked.LIF, output: Tensor) -> None:
        gate = torch.full_like(output, layer.scale) if layer.gate is None else layer.gate.clone()
        assert torch.equal(masks.setdefault(name, gate), gate)  # held over the steps

    for name, layer in network.named_modules():
        if isinstance(layer, clocked.LIF):
            layer.register_forward_hook(lambda m, _, out, name=name: keep(name, m, out))
    return masks


@every_case
@every_network
@both_inputs
@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["plain", "dropout"])
def test_rule_equals_its_formulas(case: str, kind: str, static: bool, dropout: float) -> None:
    network, rule = build_pictures(case, kind, dropout=dropout)
    x, y = make_pictures()
    if static:
        x = x[:1].expand_as(x)
    twin, masks = build_pictures(case, kind, dropout=dropout)[0], record_masks(network)
    feedback = [b.detach().t().numpy().copy() for b in matrices(rule)]
    torch.manual_seed(9)
    result = rule.step(x[0], y, steps=STEPS) if static else rule.step(x, y)
    assert_alive(result)
    assert any((m == 0).any() for m in masks.values()) == (dropout > 0)

    name, options = CASES[case]
    sizes = list(rule.layer_sizes.values())
    noise = replay_noise(sizes, STEPS, options) if "noise_scale" in options else None
    copied, expected = slow.train(name, twin, x, y, masks, noise=noise, feedback=feedback,
                                  **options)  # fmt: skip
    np.testing.assert_allclose(float(result.loss), expected.loss, rtol=1e-9)
    np.testing.assert_allclose(result.output.numpy(), expected.output, rtol=1e-9, atol=1e-11)
    grads = {k: p.grad for k, p in network.named_parameters()}
    assert_same(slow.gradients(copied), grads)
    for i, b in enumerate(matrices(rule)):
        np.testing.assert_allclose(b.detach().t(), expected.feedback[i], rtol=1e-9, atol=1e-12)
        if b.requires_grad:
            scale = np.abs(expected.feedback_grads[i]).max()
            assert scale > 0
            np.testing.assert_allclose(b.grad.t(), expected.feedback_grads[i], rtol=1e-9,
                                       atol=1e-11 * scale)  # fmt: skip


@every_network
def test_feedback_has_a_row_per_unit(kind: str) -> None:
    """Pooling belongs to the synapse behind, so a layer is known at its full size."""
    _, rule = build_pictures("opzo", kind)
    sizes = {"conv": [108, 36], "residual": [27, 27, 27, 16]}[kind]
    assert list(rule.layer_sizes.values()) == sizes
    assert [tuple(b.matrix.shape) for b in rule.feedback] == [(3, n) for n in sizes]


@every_network
def test_one_step_is_ordinary_backpropagation(kind: str) -> None:
    network, rule = build_pictures("spatial-bp", kind)
    x, y = make_pictures(1)
    assert_alive(rule.step(x, y))
    by_rule = learned(rule)
    network.zero_grad()
    losses = clocked.CrossEntropyMSE()
    output = network(x[0])
    output.backward(losses(output.detach(), y)[1] / len(y))
    assert_same(by_rule, learned(rule))


@every_network
def test_stream_equals_sequence(kind: str) -> None:
    x, y = make_pictures()
    grads = []
    for stream in (False, True):
        _, rule = build_pictures("opzo", kind)
        if stream:
            for x_t in x:
                rule.observe(x_t, y, steps=len(x))
        else:
            rule.step(x, y)
        grads.append(learned(rule))
    assert_same(*grads)


def test_constant_picture_meets_the_first_kernel_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, rule = build_pictures("opzo-two-point", "conv")
    calls: dict[str, int] = {}
    for name in ("conv1", "conv2"):
        layer = network.get_submodule(name)

        def counted(x: Tensor, *, name: str = name, layer: Any = layer) -> Tensor:
            calls[name] = calls.get(name, 0) + 1
            return clocked.Conv2d.transmit(layer, x)

        monkeypatch.setattr(layer, "transmit", counted)
    x, y = make_pictures()
    rule.step(x[0].flatten(1), y, steps=STEPS)  # flat pictures are the same constant
    assert calls == {"conv1": 1, "conv2": 2 * STEPS}


class ScaledCurrent(nn.Module):
    """A learned factor on a current: autograd needs the current after a second pass, too."""

    input_shape = (7,)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lif = clocked.Linear(7, 6), clocked.LIF()
        self.factor, self.readout = nn.Parameter(torch.tensor(1.5)), clocked.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.lif(self.first(x) * self.factor)) * self.factor


@pytest.mark.parametrize("case", ["zo-one-sided", "zo-two-point", "opzo-two-point", "opzo"])
def test_learned_factor_on_a_current(case: str) -> None:
    torch.manual_seed(1)
    network = ScaledCurrent().double()
    torch.nn.init.uniform_(network.first.bias, 0.2, 1.0)
    twin = slow.copy.deepcopy(network)
    rule = make_rule(case, network)
    x, y = torch.randn(5, 4, 7, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    assert_alive(rule.step(x, y))
    name, options = CASES[case]
    feedback = [np.zeros((6, 3))]
    noise = replay_noise([6], 5, options)
    copied, _ = slow.train(name, twin, x, y, {"lif": torch.ones(())}, noise=noise,
                           feedback=feedback, **options)  # fmt: skip
    assert_same(slow.gradients(copied), {k: p.grad for k, p in network.named_parameters()})


@pytest.mark.parametrize("case", ["spatial-bp", "dfa", "dkp", "zo-two-point", "opzo"])
@every_network
@both_inputs
def test_memory_does_not_grow_with_time(case: str, kind: str, static: bool) -> None:
    _, rule = build_pictures(case, kind, dropout=0.3)
    x, y = make_pictures(20)
    held: list[int] = []
    gc.collect()
    gc.freeze()  # older objects are not walked
    try:
        count = lambda: held.append(_tensor_bytes())  # noqa: E731
        rule.step(x[0] if static else x, y, steps=20 if static else None, after_step=count)
    finally:
        gc.unfreeze()
    assert held[3] > 10_000
    assert max(held[5:]) <= 1.02 * max(held[2:5])


def _tensor_bytes() -> int:
    gc.collect()
    tensors = (o for o in gc.get_objects() if issubclass(type(o), Tensor))
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values()
    )


@pytest.mark.parametrize("case", ["spatial-bp", "dfa", "dkp", "zo-two-point", "opzo"])
@every_network
@both_inputs
def test_channels_may_come_last_in_memory(
    case: str, kind: str, static: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers, and convolutions meet traces and deltas in the layout of the weights."""
    met: dict[str, list[bool]] = {"trace": [], "delta": []}
    real = clocked.Conv2d.add_weight_grad

    def watch(self: clocked.Conv2d, delta: Tensor, trace: Tensor) -> None:
        for name, part in (("trace", trace), ("delta", delta)):
            met[name].append(part.is_contiguous(memory_format=torch.channels_last))
        real(self, delta, trace)

    def fill(out: Tensor, scale: float, generator: torch.Generator | None) -> Tensor:
        """Noise that does not depend on the layout."""
        return out.copy_(torch.randn(out.shape, generator=generator, dtype=out.dtype) * scale)

    monkeypatch.setitem(DISTRIBUTIONS, "gaussian", fill)
    x, y = make_pictures()

    def left(layout: torch.memory_format) -> dict[str, Tensor]:
        network, rule = build_pictures(case, kind)
        network.to(memory_format=layout)
        given = [p.contiguous(memory_format=layout) for p in x]
        if static:
            rule.step(given[0], y, steps=STEPS)
        else:
            rule.step(iter(given), y, steps=STEPS)
        return learned(rule)

    expected = left(torch.contiguous_format)
    monkeypatch.setattr(clocked.Conv2d, "add_weight_grad", watch)
    found = left(torch.channels_last)
    assert met["trace"] and (all(met["trace"]) or static)  # a constant input stays as it is
    # The pooling behind the residual blocks gives errors in the usual layout.
    assert all(met["delta"]) or kind == "residual"
    assert_close(found, expected)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        size = float(value.abs().max())
        assert size > 0, name
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11 * size)
