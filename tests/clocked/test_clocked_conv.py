"""`Conv2d`: products by loops, gradients by autograd, the chain through the standardisation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from reference.clocked_conv import Conv, Dense, pooled, standardised
from torch import Tensor

from threefactor import clocked
from threefactor.clocked.conv import standardise, standardise_backward
from threefactor.clocked.pathway import Pathway
from threefactor.errors import InputError

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 3, "padding": 1},
    "pooled": {"kernel_size": 3, "padding": 1, "pool": 2},
    "strided": {"kernel_size": 3, "padding": 1, "stride": 2},
    "no-padding": {"kernel_size": 2},
    "uneven": {"kernel_size": (3, 1), "padding": (1, 0), "stride": (1, 2)},
    "dilated": {"kernel_size": 2, "dilation": 2, "padding": 1},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 2},
    "stem": {"kernel_size": 7, "stride": 2, "padding": 3},
    "no-bias": {"kernel_size": 3, "padding": 1, "bias": False},
    "point": {"kernel_size": 1, "stride": 2, "pool": 3},
}
every_shape = pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
both_weights = pytest.mark.parametrize("standardised_weights", [False, True])


def make(options: dict[str, Any], standardised_weights: bool) -> clocked.Conv2d:
    torch.manual_seed(0)
    layer = clocked.Conv2d(4, 6, **options, standardise=standardised_weights).double()
    if layer.gain is not None:
        with torch.no_grad():
            layer.gain.uniform_(0.5, 2.0)
    return layer


def pictures(steps: int = 3) -> Tensor:
    return torch.randn(steps, 2, 4, 7, 6, dtype=torch.float64)


def by_loops(layer: clocked.Conv2d, x: Tensor) -> np.ndarray:
    """Every product of a weight with a pixel, one by one."""
    weight = layer.weight.detach()
    if layer.gain is not None:
        weight = standardised(weight, layer.gain.detach())
    a, w, p = x.numpy(), weight.numpy(), layer.pool
    a = np.stack([
        a[:, :, i * p : (i + 1) * p, j * p : (j + 1) * p].mean((2, 3))
        for i, j in itertools.product(range(a.shape[2] // p), range(a.shape[3] // p))
    ], -1).reshape(*a.shape[:2], a.shape[2] // p, a.shape[3] // p)  # fmt: skip
    (sy, sx), (py, px), (dy, dx) = layer.stride, layer.padding, layer.dilation
    a = np.pad(a, ((0, 0), (0, 0), (py, py), (px, px)))
    rows = (a.shape[2] - dy * (w.shape[2] - 1) - 1) // sy + 1
    columns = (a.shape[3] - dx * (w.shape[3] - 1) - 1) // sx + 1
    out = np.zeros((len(a), len(w), rows, columns))
    per_group, out_per_group = w.shape[1], len(w) // layer.groups
    for o, y, x_, c, i, j in np.ndindex(len(w), rows, columns, *w.shape[1:]):
        source = (o // out_per_group) * per_group + c
        out[:, o, y, x_] += w[o, c, i, j] * a[:, source, y * sy + i * dy, x_ * sx + j * dx]
    return out if layer.bias is None else out + layer.bias.detach().numpy()[:, None, None]


@every_shape
@both_weights
def test_current_equals_loops(options: dict[str, Any], standardised_weights: bool) -> None:
    layer, x = make(options, standardised_weights), pictures(1)[0]
    expected = by_loops(layer, x)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(Pathway(layer, 0.5)(x).detach().numpy(), expected, rtol=1e-10,
                               atol=1e-12)  # fmt: skip


@every_shape
@both_weights
@pytest.mark.parametrize("constant", [False, True], ids=["sequence", "constant"])
def test_gradients_equal_autograd(
    options: dict[str, Any], standardised_weights: bool, constant: bool
) -> None:
    """Weights, gain and bias over three steps with traces; the input's error within each step."""
    layer, x = make(options, standardised_weights), pictures()
    if constant:
        x = x[:1].expand_as(x)
    slow = Conv(layer, 0.7)
    pathway, whole = Pathway(layer, 0.7), x[0].contiguous()
    pathway.constant_inputs = (whole,) if constant else ()
    for x_t in x:
        pathway.used = False
        leaf, other = x_t.clone().requires_grad_(), x_t.clone().requires_grad_()
        current = pathway(whole if constant else leaf)
        delta = torch.randn_like(current)
        current.backward(delta)
        slow(other).backward(delta)
        if not constant:
            torch.testing.assert_close(leaf.grad, other.grad)
            assert leaf.grad.abs().max() > 0.1
    pathway.flush()
    for name, parameter in slow.source.named_parameters():
        assert parameter.grad.abs().max() > 0.1, name
        torch.testing.assert_close(layer.get_parameter(name).grad, parameter.grad)


@every_shape
def test_layer_alone_is_differentiable(options: dict[str, Any]) -> None:
    layer, x = make(options, True), pictures(1)[0].requires_grad_()
    slow = Conv(layer, 0.0)
    weights = torch.randn_like(layer(x))
    (layer(x) * weights).sum().backward()
    by_layer, x.grad = x.grad, None
    (slow(x) * weights).sum().backward()
    torch.testing.assert_close(by_layer, x.grad)
    torch.testing.assert_close(layer.weight.grad, slow.source.weight.grad)


def test_standardisation_chain_equals_autograd() -> None:
    torch.manual_seed(1)
    weight = torch.randn(5, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    gain = torch.rand(5, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(standardise, (weight, gain))
    with torch.no_grad():
        weight[0].mul_(1e-3)  # where the 1e-4 under the root counts
    grad = torch.randn_like(weight)
    expected = torch.autograd.grad(standardised(weight, gain), (weight, gain), grad)
    actual = standardise_backward(grad, weight.detach(), gain.detach())
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_standardised_channels() -> None:
    """Mean 0, squares that sum to gain^2, also after the weights were scaled and shifted."""
    weight, gain = torch.randn(4, 8, 3, 3), torch.tensor([1.0, 2.0, 0.5, 0.0]).view(4, 1, 1, 1)
    for w in (weight, 7.0 * weight + 3.0):
        hat = standardise(w, gain)
        torch.testing.assert_close(hat.mean((1, 2, 3)), torch.zeros(4), atol=1e-6, rtol=0)
        torch.testing.assert_close(hat.square().sum((1, 2, 3)), gain.flatten() ** 2, rtol=1e-4,
                                   atol=1e-6)  # fmt: skip


def test_frozen_parts_get_no_gradient() -> None:
    for frozen in (("weight",), ("gain",), ("weight", "gain"), ("bias",)):
        layer = make(SHAPES["plain"], True)
        for name in frozen:
            layer.get_parameter(name).requires_grad_(False)
        pathway = Pathway(layer, 0.5)
        pathway(pictures(1)[0]).sum().backward()
        pathway.flush()
        for name, parameter in layer.named_parameters():
            assert (parameter.grad is None) == (name in frozen), (name, frozen)


def test_pathway_sees_changed_weights_after_flush() -> None:
    """The standardised weights are kept for a run of steps, and no longer."""
    layer, x = make(SHAPES["plain"], True), pictures(1)[0]
    pathway = Pathway(layer, 0.5)
    layer.pathway = pathway
    before = layer(x).detach().clone()
    pathway.used = False
    layer.weight.data.add_(torch.randn_like(layer.weight))
    assert torch.equal(layer(x).detach(), before)
    pathway.flush()
    pathway.used = False
    assert not torch.allclose(layer(x).detach(), before)


def test_linear_takes_pictures() -> None:
    """Flattened, after pooling where asked; gradients as under autograd."""
    torch.manual_seed(0)
    x = torch.randn(3, 2, 4, 6, 4, dtype=torch.float64)
    for pool, features in ((1, 96), (2, 24)):
        layer = clocked.Linear(features, 3, pool=pool).double()
        slow, pathway = Dense(layer, 0.5), Pathway(layer, 0.5)
        for x_t in x:
            pathway.used = False
            leaf, other = x_t.clone().requires_grad_(), x_t.clone().requires_grad_()
            current, expected = pathway(leaf), slow(other)
            torch.testing.assert_close(current, expected)
            current.sum().backward()
            expected.sum().backward()
            torch.testing.assert_close(leaf.grad, other.grad)
        pathway.flush()
        torch.testing.assert_close(layer.weight.grad, slow.source.weight.grad)
        torch.testing.assert_close(layer(x[0]), pooled(x[0], pool).flatten(1) @ layer.weight.t()
                                   + layer.bias)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"kernel_size": 5}, (2, 4, 4, 9), "larger than the picture: it spans 5 pixels.*has 4"),
        ({"kernel_size": 3, "dilation": 3}, (2, 4, 9, 6), "spans 7 pixels"),
        ({"kernel_size": 3, "pool": 4}, (2, 4, 9, 9), "larger than the picture"),
        ({"kernel_size": 1, "pool": 4}, (2, 4, 3, 9), "squares of 4 x 4"),
        ({"kernel_size": 1}, (2, 3, 9, 9), r"expected \(batch, 4, height, width\)"),
        ({"kernel_size": 1}, (2, 36), r"expected \(batch, 4, height, width\)"),
    ],
)
def test_pictures_that_do_not_fit(
    options: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    layer = clocked.Conv2d(4, 6, **options)
    with pytest.raises(InputError, match=message):
        layer(torch.zeros(shape))


def test_arguments_that_have_no_meaning() -> None:
    with pytest.raises(InputError, match="padding is 'same'"):
        clocked.Conv2d(3, 4, 3, padding="same")
    for pool in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="pool is"):
            clocked.Conv2d(3, 4, 3, pool=pool)
        with pytest.raises(InputError, match="pool is"):
            clocked.Linear(3, 4, pool=pool)
    with pytest.raises(InputError, match="squares of 2 x 2"):
        clocked.Linear(3, 4, pool=2)(torch.zeros(1, 3, 1, 1))
