"""Average pooling and its way back, against the library's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from threefactor.clocked import kernels
from threefactor.clocked.pooling import average


@pytest.mark.parametrize("pool", [2, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (9, 11), (4, 7)])
def test_values_and_gradients_are_those_of_the_library(pool: int, size: tuple[int, int]) -> None:
    torch.manual_seed(pool)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    ours, library = average(x, pool, nn.Identity()), F.avg_pool2d(x, pool)
    torch.testing.assert_close(ours, library)
    error = torch.randn_like(library)
    expected = torch.autograd.grad(library, x, error)
    torch.testing.assert_close(torch.autograd.grad(ours, x, error), expected)


@pytest.mark.parametrize("pool", [2, 3, 5])
@pytest.mark.parametrize("size", [(8, 8), (9, 11), (5, 7), (6, 4100)])
def test_the_kernel_gives_the_bits_of_sums_of_slices(
    pool: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(pool)
    x = torch.randn(3, 5, *size)
    found = kernels.average(x, pool)
    torch.testing.assert_close(found.double(), F.avg_pool2d(x.double(), pool), rtol=0, atol=1e-6)
    monkeypatch.setattr(kernels, "_library", None)
    assert torch.equal(found, kernels.average(x, pool))
