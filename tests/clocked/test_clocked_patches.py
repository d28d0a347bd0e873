"""Feedback shared by squares of pixels: rules against loops over neurons, learning, bad input."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from reference.clocked_cases import (
    assert_alive,
    assert_same,
    build_pictures,
    learned,
    make_pictures,
    make_rule,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from threefactor import clocked
from threefactor.clocked.rules import base
from threefactor.errors import InputError

RULES = ["dfa", "opzo", "opzo-before", "opzo-two-point-divided"]
SIDES = [2, 4, 2**40]


def shared(matrix: Tensor, shape: Sequence[int], side: int) -> tuple[Tensor, Tensor]:
    """Averages (m, p) of the columns that share, neuron by neuron; each neuron's column number."""
    channels, height, width = shape
    seen: dict[tuple[int, int, int], int] = {}
    column = []
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                column.append(seen.setdefault((c, i // side, j // side), len(seen)))
    owner = torch.tensor(column)
    means = [matrix[:, owner == p].mean(1) for p in range(len(seen))]
    return torch.stack(means, 1), owner


class Looped(clocked.OPZO):
    """OPZO with a column for every neuron, averaged over the squares before each use."""

    side = 1

    def send_back(self, feedback, layers, output, error):  # type: ignore[no-untyped-def]
        super().send_back(feedback, layers, output, error)
        errors = []
        for connection, shape in zip(feedback, self.layer_shapes.values(), strict=True):
            means, owner = shared(connection.matrix, shape, self.side)
            errors.append(error @ means[:, owner])
        return errors


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", ["conv", "residual"])
@pytest.mark.parametrize("case", RULES)
def test_sharing_equals_averages_over_neurons(
    case: str, kind: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, _ = build_pictures(case, kind)
    rule = make_rule(case, network, feedback_patch=side)
    twin, _ = build_pictures(case, kind)
    if case != "dfa":
        monkeypatch.setitem(clocked.RULES, "opzo", Looped)
        monkeypatch.setattr(Looped, "side", side)
    reference = make_rule(case, twin)
    for i, shape in enumerate(rule.layer_shapes.values()):
        if case == "dfa":
            _, owner = shared(reference.feedback[i].matrix, shape, side)
            reference.feedback[i].matrix.copy_(rule.feedback[i].matrix[:, owner])
    x, y = make_pictures()
    for _ in range(2):
        assert_alive(rule.step(x, y))
        reference.step(x, y)
    grads = {name: p.grad for name, p in twin.named_parameters()}
    assert_same(grads, {name: p.grad for name, p in network.named_parameters()})
    for i, shape in enumerate(rule.layer_shapes.values()):
        means, _ = shared(reference.feedback[i].matrix, shape, side)
        torch.testing.assert_close(rule.feedback[i].matrix, means)


def test_one_pixel_is_a_row_of_its_own() -> None:
    x, y = make_pictures()
    found = []
    for options in ({}, {"feedback_patch": 1}):
        network, _ = build_pictures("opzo", "conv")
        rule = make_rule("opzo", network, **options)
        rule.step(x, y)
        assert [b.matrix.shape[1] for b in rule.feedback] == list(rule.layer_sizes.values())
        found.append(learned(rule))
    assert_same(*found)


def test_feedback_of_the_middle_layer_is_shared_too() -> None:
    network, _ = build_pictures("opzo", "conv")
    rule = make_rule("opzo", network, feedback_patch=2, intermediate="lif2")
    x, y = make_pictures()
    assert_alive(rule.step(x, y))
    channels, height, width = rule.layer_shapes["lif1"]
    assert rule.intermediate[0].matrix.shape[1] == channels * (height // 2) * (width // 2)
    assert rule.intermediate[0].matrix.abs().max() > 0


def test_fully_connected_layers_share_nothing() -> None:
    with pytest.raises(InputError, match=r"feedback_patch is 3, and no hidden layer .* picture"):
        clocked.DFA(clocked.fc(4, (6,), 3), feedback_patch=3)


def cosine_with_spatial_bp(side: int) -> float:
    """Train with OPZO; then compare its gradient of all hidden weights but the last's with BP's."""
    torch.manual_seed(0)
    net = clocked.conv5((1, 8, 8), 10, width=0.06)
    rule = clocked.OPZO(net, feedback_patch=side, noise_scale=0.2, momentum=0.99)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    pictures, losses, grads = torch.randn(10, 1, 8, 8), [], []
    for _ in range(80):
        y = torch.randint(0, 10, (32,))
        optimizer.zero_grad()
        x = pictures[y] + 0.3 * torch.randn(32, 1, 8, 8)
        losses.append(rule.step(x, y, steps=2).loss.item())
        optimizer.step()
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5]), "nothing was learned"
    for teacher in (rule, clocked.SpatialBP(net)):
        net.zero_grad()
        teacher.step(x, y, steps=2)
        weights = (net.conv1.weight, net.conv2.weight, net.conv3.weight)
        grads.append(torch.cat([w.grad.flatten() / w.grad.norm() for w in weights]))
    return float(torch.cosine_similarity(*grads, dim=0))


def test_shared_feedback_comes_closer_to_the_gradient() -> None:
    """An average over a patch has less noise; the loss falls with either."""
    alone, together = cosine_with_spatial_bp(1), cosine_with_spatial_bp(4)
    assert together > 0.2 and together > alone + 0.05


@pytest.mark.parametrize("side", [0, -1, 1.5, True])
def test_a_side_without_meaning_is_refused(side: object) -> None:
    with pytest.raises(InputError, match="feedback_patch is"):
        clocked.OPZO(clocked.fc(4, (6,), 3), feedback_patch=side)


class Sizes(TorchDispatchMode):
    """Number of elements of the largest tensor that an operation made, views and in-place aside."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.untyped_storage().data_ptr() not in given:
            self.largest = max(self.largest, out.numel())
        return out


@pytest.mark.parametrize("case", ["dfa", "opzo"])
def test_no_second_copy_of_the_feedback_is_made(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small feedback is copied, to be put back if a step fails.
    monkeypatch.setattr(base, "MAX_KEPT_BYTES", 100_000)
    net = clocked.fc(4, (50,), 1000)
    rule = make_rule(case, net)
    places = [b.matrix.data_ptr() for b in rule.feedback]
    for parameter in net.readout.parameters():
        parameter.requires_grad_(False)  # its gradient is as large as the feedback
    with Sizes() as sizes:
        rule.step(torch.rand(3, 4), torch.tensor([0, 2, 999]), steps=2)
    assert 3 * 1000 <= sizes.largest < rule.feedback[0].matrix.numel() / 2
    assert [b.matrix.data_ptr() for b in rule.feedback] == places
