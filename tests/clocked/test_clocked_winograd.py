"""Fast convolutions against PyTorch's in double precision."""

from __future__ import annotations

import runpy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from threefactor import clocked
from threefactor.clocked import kernels, winograd

needs_library = pytest.mark.skipif(not winograd.available(), reason="there is no compiler")
SHAPES = [(3, 4, 4), (2, 7, 7), (2, 14, 13), (70, 8, 8), (1, 32, 32)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_near(found: Tensor, exact: Tensor) -> None:
    assert found.dtype == torch.float32 and found.shape == exact.shape
    assert (found - exact).abs().max() < 3e-5 * exact.abs().max()


def lively_conv5() -> clocked.Network:
    """All layers spike at the first step."""
    torch.manual_seed(0)
    net = clocked.conv5((2, 16, 16), 4, width=0.25)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(4.0)
    return net


@needs_library
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("given", "wanted"), [(32, 40), (33, 32)])
def test_every_product_of_a_layer(shape: tuple[int, int, int], given: int, wanted: int) -> None:
    batch, height, width = shape
    torch.manual_seed(height)
    layer = clocked.Conv2d(given, wanted, 3, padding=1)
    x = torch.randn(batch, given, height, width)
    delta = torch.randn(batch, wanted, height, width)
    assert winograd.applies(x, wanted)
    exact = layer.weight.detach().double().requires_grad_()
    bias = layer.bias.detach().double()
    leaf = x.double().requires_grad_()
    output = F.conv2d(leaf, exact, bias, padding=1)
    output.backward(delta.double())
    layer.pathway = clocked.pathway.Pathway(layer, 0.5)
    with torch.no_grad():
        assert_near(layer.transmit(x), output)
        assert_near(layer.input_error(delta, x.shape), leaf.grad)
        layer.add_weight_grad(delta, x)
    assert_near(layer.weight.grad, exact.grad)
    assert_near(winograd.weight_gradient(delta, x), exact.grad)


@needs_library
@pytest.mark.parametrize(("part", "chunk"), [(3 * 4 * 33 * 40, 1), (1, 2**20)])
def test_parts_of_a_kernel_and_chunks_of_a_batch_change_nothing(
    part: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x, delta, kernel = torch.randn(9, 33, 8, 6), torch.randn(9, 40, 8, 6), torch.randn(40, 33, 3, 3)

    def everything(parts: int) -> list[Tensor]:
        transformed = winograd.transform_kernel(kernel)
        assert len(transformed) == parts
        convolved = winograd.convolve(x, transformed, None)
        back = winograd.input_error(delta, transformed)
        return [convolved, back, winograd.weight_gradient(delta, x)]

    whole = everything(1)
    monkeypatch.setattr(winograd, "PART_BYTES", part)
    monkeypatch.setattr(winograd, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(winograd, "CHUNK_TILES", 1)
    for one, other in zip(whole, everything(12 if part > 1 else 36), strict=True):
        assert_near(other, one.double())


@needs_library
def test_transformed_kernels_follow_the_weights() -> None:
    """A rule's second step works with the weights that the optimiser left."""
    net = lively_conv5()
    rule = clocked.SpatialBP(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    x, y = torch.rand(4, 2, 16, 16), torch.tensor([0, 1, 2, 3])
    for _ in range(3):
        optimizer.zero_grad()
        rule.step(x, y, steps=2, after_step=optimizer.step)
    result = clocked.run(net, x, steps=2)
    found = result.output
    assert all(rate > 0 for rate in result.firing_rates.values())
    expected = clocked.run(net.double(), x.double(), steps=2).output
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("local_learning", [None, "same-weights"])
def test_a_fused_optimizer_takes_the_same_step(local_learning: str | None) -> None:
    """It reads gradients in the order of memory, and so has to find them as the weights lie."""
    moved = []
    for fused in (True, False):
        net = lively_conv5()
        rule = clocked.DFA(net, local_learning=local_learning)
        parameters = [*net.parameters(), *rule.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=1e-2, fused=fused)
        for _ in range(2):
            optimizer.zero_grad()
            torch.manual_seed(1)
            rule.step(torch.rand(4, 2, 16, 16), torch.tensor([0, 1, 2, 3]), steps=3)
            for parameter in parameters:
                assert parameter.grad.stride() == parameter.stride()
            optimizer.step()
        moved.append([p.detach().clone() for p in parameters])
    for fused_one, plain_one in zip(*moved, strict=True):
        torch.testing.assert_close(fused_one, plain_one, rtol=1e-3, atol=1e-3)


@needs_library
@pytest.mark.parametrize("rule_name", ["spatial-bp", "dfa"])
def test_gradients_of_a_step_with_and_without(
    rule_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grads, calls = [], []
    whole = winograd.weight_gradient
    monkeypatch.setattr(
        winograd, "weight_gradient", lambda *given: calls.append(1) or whole(*given)
    )
    for library in (winograd._library, None):
        monkeypatch.setattr(winograd, "_library", library)
        net = lively_conv5()
        rule = clocked.RULES[rule_name](net)
        torch.manual_seed(1)
        rule.step(torch.rand(4, 2, 16, 16), torch.tensor([0, 1, 2, 3]), steps=1)
        grads.append({name: p.grad for name, p in net.named_parameters()})
        assert calls, "the fast way was not taken"
    assert len(calls) == 2, "conv2 and conv3; conv4 has pictures of 2 x 2"
    for name, grad in grads[0].items():
        assert grad.abs().max() > 0, name
        difference = (grad - grads[1][name]).norm() / grad.norm()
        assert difference < 1e-4, (name, difference)


def test_what_is_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(2, 32, 8, 8)
    assert winograd.applies(x, 32) == winograd.available()
    assert not winograd.applies(x.double(), 32)
    assert not winograd.applies(x, 31)
    assert not winograd.applies(x[:, :31], 32)
    assert not winograd.applies(x[..., :7], 32), "not contiguous"
    assert not winograd.applies(torch.zeros(2, 32, 5, 5), 32), "mostly border"
    late = torch.zeros(8, 512, 8, 8)
    assert winograd.applies(late, 512) == winograd.available()
    assert not winograd.applies(late[:7], 512), "a large kernel for few tiles"
    assert winograd.applies(late[:1], 128) == winograd.available()
    torch.set_num_threads(2)
    assert not winograd.applies(x, 32)
    torch.set_num_threads(1)
    for options in ({"stride": 2}, {"padding": 0}, {"dilation": 2}, {"groups": 2}):
        layer = clocked.Conv2d(64, 64, 3, **{"padding": 1, **options})
        assert not layer._fast(torch.zeros(2, 64, 8, 8), 64)
    monkeypatch.setattr(winograd, "_library", None)
    assert not winograd.available() and not winograd.applies(x, 32)


@pytest.mark.parametrize("variable", ["THREEFACTOR_WINOGRAD", "THREEFACTOR_KERNELS"])
def test_it_can_be_switched_off(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (runpy.run_path(winograd.__file__)["_library"] is None) != winograd.available()
    monkeypatch.setenv(variable, "0")
    assert runpy.run_path(winograd.__file__)["_library"] is None


def test_a_library_of_another_version_is_left_alone() -> None:
    name, signatures = winograd.LIBRARY_NAME, winograd._SIGNATURES
    assert kernels.load(name, -1, signatures) is None
    assert kernels.load("threefactor.clocked._absent", 1, signatures) is None
