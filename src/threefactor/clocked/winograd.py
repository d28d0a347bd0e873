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
from collections.abc import Iterator

import torch
from torch import Tensor

from threefactor.clocked import kernels, products

__all__ = ["applies", "convolve", "input_error", "transform_kernel", "weight_gradient"]

LIBRARY_NAME = "threefactor.clocked._winograd"
VERSION = 2
TILE, POINTS, LANES = 4, 36, 16
FEWEST_CHANNELS = 32  # with fewer, the transforms take longer than the products they save
MOST_WASTE = 1.5  # pixels of whole tiles, per pixel of the picture
CHUNK_BYTES, CHUNK_TILES = 7 * 2**19, 48  # of what is transformed at a time, for the caches
PART_BYTES = 16 * 2**20  # of kernels: more is asked of the system anew each time, page by page
FEWEST_TILES = 32  # for a kernel of several parts; fewer do not pay for the memory it takes
_G = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # times 24
_SIGNATURES = {
    "tf_winograd_input": "nnnnppnp",
    "tf_winograd_error": "nnnnppnp",
    "tf_winograd_output": "nnnnppnpp",
    "tf_winograd_input_error": "nnnnppnp",
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
    tiles = _tiles(height, width)
    return (
        min(channels, x.shape[1]) >= FEWEST_CHANNELS
        and TILE * TILE * tiles <= MOST_WASTE * height * width
        and (len(x) * tiles >= FEWEST_TILES or _planes_of_a_part(channels, x.shape[1]) >= POINTS)
    )


def transform_kernel(kernel: Tensor) -> tuple[Tensor, ...]:
    """Return G w G^T of a kernel (C_out, C_in, 3, 3), as (36, C_in, C_out), cut into parts."""
    outputs, inputs = kernel.shape[:2]
    values = kernel.transpose(0, 1).reshape(-1, 9).t()
    parts = torch.split(_both_sides(kernel), _planes_of_a_part(inputs, outputs))
    return tuple((part @ values).view(-1, inputs, outputs) for part in parts)


def convolve(x: Tensor, transformed: tuple[Tensor, ...], bias: Tensor | None) -> Tensor:
    """Convolve (B, C_in, H, W) with a transformed kernel; (B, C_out, H, W) out."""
    out = x.new_empty((len(x), transformed[0].shape[2], *x.shape[2:]))
    shift = None if bias is None else bias.data_ptr()
    for part, result in _chunks(x, out):
        product = _multiply(_planes("tf_winograd_input", part), transformed)
        _call("tf_winograd_output", result, product, shift)
    return out


def input_error(delta: Tensor, transformed: tuple[Tensor, ...]) -> Tensor:
    """Carry errors (B, C_out, H, W) of the output back to the input, (B, C_in, H, W)."""
    out = delta.new_empty((len(delta), transformed[0].shape[1], *delta.shape[2:]))
    # Made anew in every call: kept, it would take as much memory as the transformed kernel itself.
    back = tuple(products.transposed(part) for part in transformed)
    for part, result in _chunks(delta, out):
        product = _multiply(_planes("tf_winograd_error", part), back)
        _call("tf_winograd_input_error", result, product)
    return out


@torch.no_grad()
def weight_gradient(delta: Tensor, x: Tensor) -> Tensor:
    """Return the kernel's gradient (C_out, C_in, 3, 3) for errors `delta` of the output."""
    outputs, inputs = delta.shape[1], x.shape[1]
    parts = torch.split(_both_sides(x), _planes_of_a_part(inputs, outputs))
    totals = [x.new_zeros((len(part), outputs, inputs)) for part in parts]
    for errors, seen in _chunks(delta, x):
        right = _planes("tf_winograd_input", seen)
        left = _planes("tf_winograd_error", errors).transpose(1, 2)
        first = 0
        for total in totals:
            here = slice(first, first := first + len(total))
            if not products.planes(left[here], right[here], total, add=True):
                total.baddbmm_(left[here], right[here])
    flat = x.new_zeros((9, outputs * inputs))
    for part, total in zip(parts, totals, strict=True):
        products.add_product_(flat, part.t(), total.flatten(1), beta=1.0, alpha=1.0)
    return flat.t().reshape(outputs, inputs, 3, 3)


def _planes_of_a_part(inputs: int, outputs: int) -> int:
    """Count the planes of a kernel, of 36, that one tensor holds."""
    return min(POINTS, max(1, PART_BYTES // (4 * inputs * outputs)))


def _tiles(height: int, width: int) -> int:
    return -(-height // TILE) * -(-width // TILE)


def _both_sides(like: Tensor) -> Tensor:
    """The matrix (36, 9) that makes G w G^T of a kernel in a row."""
    one = like.new_tensor(_G) / 24
    return torch.kron(one, one)


def _chunks(one: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut two batches of pictures of one size into parts of whole samples."""
    tiles = _tiles(*one.shape[2:])
    each = POINTS * (one.shape[1] + other.shape[1]) * one.element_size()
    samples = max(1, max(CHUNK_TILES, CHUNK_BYTES // each) // tiles)
    return zip(torch.split(one, samples), torch.split(other, samples), strict=True)


def _planes(function: str, x: Tensor) -> Tensor:
    """Return the tiles of pictures (B, C, H, W), transformed: (36, tiles, C)."""
    out = _empty_planes(len(x) * _tiles(*x.shape[2:]), x.shape[1])
    _call(function, x, out)
    return out


def _multiply(seen: Tensor, transformed: tuple[Tensor, ...]) -> Tensor:
    """Return the 36 products of tiles and a transformed kernel."""
    out = _empty_planes(seen.shape[1], transformed[0].shape[2])
    first = 0
    for part in transformed:
        here = slice(first, first := first + len(part))
        if not products.planes(seen[here], part, out[here]):
            torch.bmm(seen[here], part, out=out[here])
    return out


def _call(function: str, pictures: Tensor, planes: Tensor, *more: int | None) -> None:
    """Let the library write transformed tiles of pictures, or pictures made of such tiles."""
    height, width = pictures.shape[2:]
    rows, columns = -(-height // TILE), -(-width // TILE)
    size = (TILE * rows + 8) * (TILE * columns + 2) * LANES
    room = torch.empty(size, dtype=torch.float32, device="cpu")
    arguments = (pictures.data_ptr(), planes.data_ptr(), planes.stride(0), room.data_ptr())
    getattr(_library, function)(*pictures.shape, *arguments, *more)


def _empty_planes(tiles: int, channels: int) -> Tensor:
    """An empty (36, tiles, channels); a gap keeps the 36 from sharing places in the cache."""
    row = -(-channels // LANES) * LANES
    plane = tiles * row + LANES
    whole = torch.empty(POINTS * plane, dtype=torch.float32, device="cpu")
    return whole.as_strided((POINTS, tiles, channels), (plane, row, 1))
