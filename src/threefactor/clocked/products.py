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

With `torch.set_float32_matmul_precision("medium")`, the user asks for products whose factors are
rounded to bfloat16. A processor with vector instructions for it (AVX512-BF16) makes dense products
so, twice as fast, with sums in float32. Products that leave zeros out stay in float32.

Set the environment variable THREEFACTOR_PRODUCTS=0 before the import to leave all products to
PyTorch, or THREEFACTOR_KERNELS=0, which switches the other kernels off, too.
"""

from __future__ import annotations

import ctypes
import math
import os

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

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
VERSION = 3
FEWEST_COLUMNS = 16  # of a result: a vector
FEWEST_ROWS = 32  # of an input, for which a transposed copy of the weights pays
FEWEST_OUTPUTS = 128  # of a layer, for which it pays to list the values that are not zero
SHORTEST_INNER = 3  # dimension; below, results are best written row by row
LEAST_WORK = 2**18  # multiplications below which a call costs more than it gains
MOST_FORWARD, MOST_BACKWARD = 0.25, 0.2  # shares of values that are not zero, for sparse products
OF_BFLOAT16 = 0.6  # factor of these shares where dense products are faster
_VECTORS, _MATRIX_UNITS, _INTEL, _BFLOAT16 = 1, 2, 4, 8
_SIGNATURES = {
    "tf_dense": "nnnnpnnnpnnppnnfii",
    "tf_sparse": "nnnpinppppppi",
    "tf_transpose": "nnnpnpi",
    "tf_pairs_across": "nnppi",
    "tf_pairs_along": "nnpnpi",
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
    if _processor & _MATRIX_UNITS and torch.get_float32_matmul_precision() != "highest":
        return False  # the user asks for units that are faster and less exact
    return all(
        t.dtype is torch.float32
        and t.is_cpu
        and type(t) in (Tensor, nn.Parameter)
        and t.layout is torch.strided
        and not t.is_neg()
        for t in tensors
    )


def _rounds(*sides: int) -> bool:
    """Return whether a dense product rounds its factors to bfloat16, as the user allows.

    With a short side, to prepare the factors takes more than it saves.

    Args:
        sides: m, k and n of (m, k) times (k, n).
    """
    allowed = _processor & _BFLOAT16 and torch.get_float32_matmul_precision() == "medium"
    return bool(allowed) and min(sides) >= FEWEST_ROWS


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, kept: dict[str, Tensor]) -> Tensor:
    """Return x W^T + b, as `torch.nn.functional.linear`, without a graph.

    Args:
        x: (B, n_in).
        weight: (n_out, n_in).
        bias: (n_out,) or None.
        kept: has copies of the weights afterwards; for the caller to drop when they change.
    """
    given = (x, weight) if bias is None else (x, weight, bias)
    worthwhile = (
        x.dim() == 2
        and x.shape[0] >= FEWEST_ROWS
        and x.shape[0] * weight.numel() >= LEAST_WORK
        and x.shape[1] == weight.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
    )
    if not (worthwhile and applies(*given) and x.is_contiguous() and weight.is_contiguous()):
        return torch.nn.functional.linear(x, weight, bias)
    n_out = weight.shape[0]
    if n_out < FEWEST_COLUMNS:  # rows of zeros make up a vector
        if "padded" not in kept:
            kept["padded"] = pad(weight, (0, 0, 0, FEWEST_COLUMNS - n_out))
        weight = kept["padded"]
        bias = None if bias is None else pad(bias, (0, FEWEST_COLUMNS - n_out))
    rounded = _rounds(*x.shape, n_out)
    found = None
    if n_out >= FEWEST_OUTPUTS and _looks_sparse(x):
        if "sum" not in kept:
            kept["sum"] = weight.sum()
        if math.isfinite(kept["sum"].item()):
            most = MOST_FORWARD * OF_BFLOAT16 if rounded else MOST_FORWARD
            found = _sparse(x, _kept_transposed(weight, kept), bias, most)
    if found is None and rounded:
        if "pairs" not in kept:
            kept["pairs"] = transposed(_pairs_along(weight))
        found = _dense(_pairs_along(x), kept["pairs"], bias, pairs=True)
    elif found is None:
        found = _dense(x, _kept_transposed(weight, kept), bias)
    return found if n_out >= FEWEST_COLUMNS else found[:, :n_out].contiguous()


def _kept_transposed(weight: Tensor, kept: dict[str, Tensor]) -> Tensor:
    if "transposed" not in kept:
        kept["transposed"] = transposed(weight)
    return kept["transposed"]


def weight_gradient(delta: Tensor, trace: Tensor) -> Tensor:
    """Return delta^T trace, (n_out, n_in), of (B, n_out) and (B, n_in), without a graph."""
    worthwhile = (
        delta.shape[0] >= FEWEST_ROWS
        and delta.shape[0] == trace.shape[0]
        and delta.shape[1] >= FEWEST_OUTPUTS
        and delta.numel() * trace.shape[1] >= LEAST_WORK
        and delta.is_contiguous()
        and trace.is_contiguous()
    )
    if (
        worthwhile
        and applies(delta, trace)
        and _looks_sparse(trace)
        and math.isfinite(delta.sum().item())
    ):
        rounded = _rounds(*delta.shape, trace.shape[1])
        most = MOST_BACKWARD * OF_BFLOAT16 if rounded else MOST_BACKWARD
        found = _sparse(trace, delta, None, most, by_columns=True)
        if found is not None:
            return transposed(found)
    return product(delta.t(), trace)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a b, of (m, k), or more dimensions, and (k, n), without a graph."""
    if not (_worthwhile(a, b) and applies(a, b)):
        return a @ b
    if not _rounds(*a.shape, b.shape[1]):
        return _dense(a, b, None)
    a = _pairs_across(a.t()).t() if a.stride(0) == 1 else _pairs_along(a)
    return _dense(a, _pairs_across(b), None, pairs=True)


def add_product_(matrix: Tensor, a: Tensor, b: Tensor, *, beta: float, alpha: float) -> None:
    """Write beta times the matrix, plus alpha a b, to the matrix; no graph."""
    fits = matrix.shape == (a.shape[0], b.shape[1]) and matrix.is_contiguous()
    if fits and _worthwhile(a, b) and applies(matrix, a, b):
        _dense(a * alpha, b, None, into=matrix, keep=beta)
        torch.autograd.graph.increment_version(matrix)
    else:
        matrix.addmm_(a, b, beta=beta, alpha=alpha)


def _worthwhile(a: Tensor, b: Tensor) -> bool:
    """Return whether the kernels pay, if they may read these matrices."""
    inner, columns = b.shape
    return (
        a.numel() * columns >= LEAST_WORK
        and inner >= SHORTEST_INNER
        and columns >= FEWEST_COLUMNS
        and a.dim() == 2
        and a.shape[1] == inner  # PyTorch refuses other shapes
        and b.is_contiguous()
    )


def _looks_sparse(x: Tensor) -> bool:
    """Return whether at most half of the first rows is not zero, as the kernel asks, too."""
    first = x[:4]
    return int(first.count_nonzero()) <= first.numel() // 2


def _dense(
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    *,
    pairs: bool = False,
    into: Tensor | None = None,
    keep: float = 0.0,
) -> Tensor:
    """Return a b + bias of matrices of floats, or of pairs.

    Args:
        a: (m, k).
        b: (k, n), without gaps.
        bias: (n,) or None.
        pairs: whether a and b are of pairs in bfloat16.
        into: where to write, (m, n); None for a new tensor.
        keep: what is there is added, times so much; times 0 it is forgotten, NaN included.
    """
    assert _library is not None
    inner, columns = b.shape
    rows = a.shape[0]
    out = torch.empty(rows, columns, dtype=torch.float32, device="cpu") if into is None else into
    if bias is not None:
        bias = bias.contiguous()
    _library.tf_dense(
        1, rows, inner, columns,
        a.data_ptr(), *a.stride(), 0,
        b.data_ptr(), columns, 0,
        None if bias is None else bias.data_ptr(),
        out.data_ptr(), columns, 0,
        keep, pairs, torch.get_num_threads(),
    )  # fmt: skip
    return out


def _pairs_across(x: Tensor) -> Tensor:
    """Return (inner, columns) as pairs of two rows in bfloat16, (half of inner, columns)."""
    assert _library is not None
    x = x.contiguous()
    inner, columns = x.shape
    pairs = x.new_empty((inner + 1) // 2, columns)
    threads = torch.get_num_threads()
    _library.tf_pairs_across(inner, columns, x.data_ptr(), pairs.data_ptr(), threads)
    return pairs


def _pairs_along(x: Tensor) -> Tensor:
    """Return (rows, inner) as pairs of two columns in bfloat16, (rows, half of inner)."""
    assert _library is not None
    x = x if x.stride(1) == 1 else x.contiguous()
    rows, inner = x.shape
    pairs = x.new_empty(rows, (inner + 1) // 2)
    threads = torch.get_num_threads()
    _library.tf_pairs_along(rows, inner, x.data_ptr(), x.stride(0), pairs.data_ptr(), threads)
    return pairs


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
        float(add), False, torch.get_num_threads(),
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
        *(count or (1,)), rows, columns, matrices.data_ptr(), plane, out.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
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
