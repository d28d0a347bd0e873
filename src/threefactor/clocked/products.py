"""Products of matrices in float32 on a CPU, by compiled kernels where they are faster.

PyTorch's library for matrix products uses 512-bit vectors on Intel's processors alone; on others it
reaches half of what they can do. And spikes are mostly zeros: a product with them needs a fraction
of the multiplications. For both there is a small C library, built on installation if there is a
compiler, for processors with AVX-512 that are not Intel's. `applies` decides whether a product is
made this way; PyTorch makes all others.

The kernels sum in the order of the inner dimension with fused multiply-adds. So the bits are the
same for any number of threads, and whether zeros were left out or not; PyTorch's differ by
rounding. A product that leaves zeros out also leaves out what NaN and infinity times zero would
give.

Set the environment variable THREEFACTOR_PRODUCTS=0 before the import to leave all products to
PyTorch, or THREEFACTOR_KERNELS=0, which switches the other kernels off, too.
"""

from __future__ import annotations

import ctypes
import math
import os

import torch
from torch import Tensor, nn

from threefactor.clocked import kernels

__all__ = [
    "add_product_",
    "applies",
    "linear",
    "planes",
    "product",
    "transposed",
    "weight_gradient",
]

LIBRARY_NAME = "threefactor.clocked._products"
VERSION = 2
FEWEST_COLUMNS = 16  # of a result: a vector
FEWEST_ROWS = 32  # of an input, for which a transposed copy of the weights pays
LEAST_WORK = 2**20  # multiplications below which a call costs more than it gains
MOST_FORWARD, MOST_BACKWARD = 0.25, 0.2  # shares of values that are not zero, for sparse products
_VECTORS, _BFLOAT16, _INTEL = 1, 2, 4
_SIGNATURES = {
    "tf_dense": "nnnnpnnnpnnppnnfi",
    "tf_sparse": "nnnpinppppppi",
    "tf_transpose": "nnnpnp",
}

_library = (
    None
    if os.environ.get("THREEFACTOR_PRODUCTS") == "0"
    else kernels.load(LIBRARY_NAME, VERSION, _SIGNATURES)
)
_processor = 0
if _library is not None:
    _library.tf_sparse.restype = ctypes.c_int32
    _processor = int(_library.tf_processor())
if not _processor & _VECTORS or _processor & _INTEL:
    _library = None


def available() -> bool:
    """Return whether the compiled products are there, switched on and for this processor."""
    return _library is not None


def applies(*tensors: Tensor) -> bool:
    """Return whether the kernels may read these tensors, and no graph is made of the product."""
    if _library is None or torch.is_grad_enabled():
        return False
    if _processor & _BFLOAT16 and torch.get_float32_matmul_precision() != "highest":
        return False  # the user asks for units that are faster and less exact
    return all(
        t.dtype is torch.float32
        and t.is_cpu
        and type(t) in (Tensor, nn.Parameter)
        and t.layout is torch.strided
        and not t.is_neg()
        for t in tensors
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, kept: dict[str, Tensor]) -> Tensor:
    """Return x W^T + b, as `torch.nn.functional.linear`, without a graph.

    Args:
        x: (B, n_in).
        weight: (n_out, n_in).
        bias: (n_out,) or None.
        kept: has the transposed weights afterwards, and their sum; for the caller to drop when they
            change.
    """
    given = (x, weight) if bias is None else (x, weight, bias)
    worthwhile = (
        x.dim() == 2
        and len(x) >= FEWEST_ROWS
        and len(weight) >= FEWEST_COLUMNS
        and len(x) * weight.numel() >= LEAST_WORK
        and x.shape[1] == weight.shape[1]
    )
    if not (worthwhile and applies(*given) and x.is_contiguous() and weight.is_contiguous()):
        return torch.nn.functional.linear(x, weight, bias)
    if "transposed" not in kept:
        kept["transposed"], kept["sum"] = transposed(weight), weight.sum()
    if bias is not None:
        bias = bias.contiguous()
    found = None
    if math.isfinite(kept["sum"].item()):
        found = _sparse(x, kept["transposed"], bias, MOST_FORWARD)
    return product(x, kept["transposed"], bias) if found is None else found


def weight_gradient(delta: Tensor, trace: Tensor) -> Tensor:
    """Return delta^T trace, (n_out, n_in), of (B, n_out) and (B, n_in), without a graph."""
    worthwhile = (
        delta.shape[1] >= FEWEST_COLUMNS
        and delta.numel() * trace.shape[1] >= LEAST_WORK
        and delta.is_contiguous()
        and trace.is_contiguous()
    )
    if worthwhile and applies(delta, trace) and math.isfinite(delta.sum().item()):
        found = _sparse(trace, delta, None, MOST_BACKWARD, by_columns=True)
        if found is not None:
            return transposed(found)
    return product(delta.t(), trace)


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a b + bias, of (m, k), or more dimensions without a bias, and (k, n); no graph."""
    rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[1]
    worthwhile = a.dim() == 2 and columns >= FEWEST_COLUMNS and rows * inner * columns >= LEAST_WORK
    if not (worthwhile and applies(a, b) and b.is_contiguous()):
        return a @ b if bias is None else torch.addmm(bias, a, b)
    assert _library is not None
    out = a.new_empty((rows, columns))
    _library.tf_dense(
        1, rows, inner, columns,
        a.data_ptr(), *a.stride(), 0,
        b.data_ptr(), columns, 0,
        None if bias is None else bias.data_ptr(),
        out.data_ptr(), columns, 0,
        0.0, torch.get_num_threads(),
    )  # fmt: skip
    return out


def add_product_(matrix: Tensor, a: Tensor, b: Tensor, *, beta: float, alpha: float) -> None:
    """Write beta times the matrix, plus alpha a b, to the matrix; no graph."""
    (rows, inner), columns = a.shape, b.shape[1]
    worthwhile = columns >= FEWEST_COLUMNS and rows * inner * columns >= LEAST_WORK
    if not (worthwhile and applies(matrix, a, b) and matrix.is_contiguous() and b.is_contiguous()):
        matrix.addmm_(a, b, beta=beta, alpha=alpha)
        return
    assert _library is not None
    a = a * alpha
    _library.tf_dense(
        1, rows, inner, columns,
        a.data_ptr(), *a.stride(), 0,
        b.data_ptr(), columns, 0,
        None,
        matrix.data_ptr(), columns, 0,
        beta, torch.get_num_threads(),
    )  # fmt: skip
    torch.autograd.graph.increment_version(matrix)


def planes(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> bool:
    """Write (or add) the products of (p, m, k) and (p, k, n) to (p, m, n), if the kernels may.

    The values of a row of b and out lie side by side.

    Returns:
        Whether they did.
    """
    count, rows, inner = a.shape
    columns = b.shape[2]
    if columns < FEWEST_COLUMNS or not applies(a, b, out):
        return False
    assert _library is not None
    _library.tf_dense(
        count, rows, inner, columns,
        a.data_ptr(), a.stride(1), a.stride(2), a.stride(0),
        b.data_ptr(), b.stride(1), b.stride(0),
        None,
        out.data_ptr(), out.stride(1), out.stride(0),
        float(add), torch.get_num_threads(),
    )  # fmt: skip
    return True


def transposed(matrices: Tensor) -> Tensor:
    """Return a copy of one matrix (m, n), or of several (p, m, n), with the last two exchanged.

    Rows have to lie side by side.
    """
    if not applies(matrices):
        return matrices.transpose(-1, -2).contiguous()
    assert _library is not None
    *count, rows, columns = matrices.shape
    out = matrices.new_empty((*count, columns, rows))
    plane = matrices.stride(0) if count else 0
    _library.tf_transpose(
        *(count or (1,)), rows, columns, matrices.data_ptr(), plane, out.data_ptr()
    )
    return out


def _sparse(
    a: Tensor, b: Tensor, bias: Tensor | None, most: float, *, by_columns: bool = False
) -> Tensor | None:
    """Return a b + bias, or a^T b, from the values of a that are not zero; None if too many are.

    All values of b must be finite: zero times infinity is NaN, and would be left out.

    Args:
        a: (m, k), or with `by_columns` (k, m).
        b: (k, n).
        bias: (n,) or None.
        most: the share of values up to which to do it.
        by_columns: whether a is transposed.
    """
    assert _library is not None
    if a.numel() >= 2**31:  # lists are counted in 32 bits
        return None
    rows, inner = reversed(a.shape) if by_columns else a.shape
    out = b.new_empty((rows, b.shape[1]))
    limit = int(most * a.numel())
    starts = torch.empty(rows + 1, dtype=torch.int32, device="cpu")
    places = torch.empty(limit + inner, dtype=torch.int32, device="cpu")
    values = torch.empty(limit + inner, dtype=torch.float32, device="cpu")
    done = _library.tf_sparse(
        rows, inner, b.shape[1],
        a.data_ptr(), by_columns, limit,
        b.data_ptr(), None if bias is None else bias.data_ptr(), out.data_ptr(),
        starts.data_ptr(), places.data_ptr(), values.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return out if done else None
