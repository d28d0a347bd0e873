r"""Convolutions 3 x 3 with a quarter of the multiplications, for float32 on one thread of a CPU.

Winograd's F(4x4, 3x3). A tile of 4 x 4 pixels of the output, y, depends on 6 x 6 of the input, d:

.. math:: y = A^T \big[ (G w G^T) \odot (B^T d B) \big] A, \qquad
          \nabla w = G^T \Big[ \sum_{tiles} (A \, \nabla y \, A^T) \odot (B^T d B) \Big] G

The products in brackets, summed over channels or tiles, are 36 products of matrices. The transforms
of tiles are in a small C library, built on installation if there is a compiler. `applies` decides
whether a convolution is made this way; PyTorch's is used for all others.

Results agree with PyTorch's to about 1e-5 of the largest value. Set the environment variable
THREEFACTOR_WINOGRAD=0 before the import to leave all to PyTorch, or THREEFACTOR_KERNELS=0, which
switches the other kernels off, too.

Source: Winograd 1980; Lavin and Gray 2016, *Fast Algorithms for Convolutional Neural Networks*.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from threefactor.clocked import kernels, products

__all__ = ["applies", "convolve", "transform_kernel", "weight_gradient"]

LIBRARY_NAME = "threefactor.clocked._winograd"
VERSION = 1
TILE, POINTS = 4, 36
FEWEST_CHANNELS = 32  # with fewer, the transforms take longer than the products they save
MOST_WASTE = 1.5  # pixels of whole tiles, per pixel of the picture
CHUNK = 128  # tiles at a time: their transforms stay in the cache, and memory stays bounded
_G = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # times 24
_SIGNATURES = {
    "tf_winograd_input": "nnnnppn",
    "tf_winograd_error": "nnnnppn",
    "tf_winograd_output": "nnnnpnpp",
}

_library = (
    None
    if os.environ.get("THREEFACTOR_WINOGRAD") == "0"
    else kernels.load(LIBRARY_NAME, VERSION, _SIGNATURES)
)


def available() -> bool:
    """Return whether the compiled transforms are there and switched on."""
    return _library is not None


def applies(x: Tensor, channels: int) -> bool:
    """Return whether to convolve (B, C, H, W) to or from `channels` this way.

    The kernel has to be 3 x 3 with stride 1 and padding 1; that is for the caller to know.
    """
    if _library is None or torch.get_num_threads() != 1 or not kernels.usable(x):
        return False
    height, width = x.shape[2:]
    whole = TILE * TILE * _tiles(height, width)
    return min(channels, x.shape[1]) >= FEWEST_CHANNELS and whole <= MOST_WASTE * height * width


def transform_kernel(kernel: Tensor) -> Tensor:
    """Return G w G^T of a kernel (C_out, C_in, 3, 3), as (36, C_out, C_in)."""
    values = kernel.reshape(-1, 9)
    return (_both_sides(kernel) @ values.t()).view(POINTS, *kernel.shape[:2])


def convolve(x: Tensor, transformed: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve (B, C_in, H, W) with a transformed kernel; (B, C_out, H, W) out."""
    assert _library is not None
    channels, (height, width) = transformed.shape[1], x.shape[2:]
    out = x.new_empty((len(x), channels, height, width))
    shift = None if bias is None else bias.data_ptr()
    for first, part in _chunks(x):
        seen = _transform("tf_winograd_input", part)
        product = _planes(channels, seen.shape[2])
        if not products.planes(transformed, seen, product):
            torch.bmm(transformed, seen, out=product)
        _library.tf_winograd_output(
            len(part), channels, height, width,
            product.data_ptr(), product.stride(0), shift, out[first:].data_ptr(),
        )  # fmt: skip
    return out


def weight_gradient(delta: Tensor, x: Tensor) -> Tensor:
    """Return the kernel's gradient (C_out, C_in, 3, 3) for errors `delta` of the output."""
    total = x.new_zeros((POINTS, delta.shape[1], x.shape[1]))
    for (_, errors), (_, part) in zip(_chunks(delta), _chunks(x), strict=True):
        seen = _transform("tf_winograd_input", part)
        wanted = _transform("tf_winograd_error", errors)
        if not products.planes(wanted, products.transposed(seen), total, add=True):
            total.baddbmm_(wanted, seen.transpose(1, 2))
    flat = _both_sides(x).t() @ total.view(POINTS, -1)
    return flat.t().reshape(delta.shape[1], x.shape[1], 3, 3)


def _tiles(height: int, width: int) -> int:
    return -(-height // TILE) * -(-width // TILE)


def _both_sides(like: Tensor) -> Tensor:
    """The matrix (36, 9) that makes G w G^T of a kernel in a row."""
    one = like.new_tensor(_G) / 24
    return torch.kron(one, one)


def _chunks(x: Tensor) -> list[tuple[int, Tensor]]:
    """Cut a batch into parts of about `CHUNK` tiles; each with the number of its first sample."""
    samples = max(1, CHUNK // _tiles(*x.shape[2:]))
    return [(i, x[i : i + samples]) for i in range(0, len(x), samples)]


def _transform(function: str, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    out = _planes(channels, batch * _tiles(height, width))
    arguments = (batch, channels, height, width, x.data_ptr(), out.data_ptr(), out.stride(0))
    getattr(_library, function)(*arguments)
    return out


def _planes(channels: int, tiles: int) -> Tensor:
    """An empty (36, channels, tiles); a gap keeps the 36 from sharing places in the cache."""
    plane = channels * tiles + 16
    whole = torch.empty(POINTS * plane, dtype=torch.float32, device="cpu")
    return whole.as_strided((POINTS, channels, tiles), (plane, tiles, 1))
